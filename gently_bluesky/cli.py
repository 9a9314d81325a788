"""The command line: ``gently-bluesky demo | runs | show | replay``.

Here devices, writer and RunEngine meet, as they do in a profile. Says what there is in tables for people and,
with ``--json``, in lines for programs; every expected error is one line on stderr and exit status 1.
"""

import datetime
import enum
import logging
import shutil
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from gently_bluesky import Catalog, FileWriter, replay
from gently_bluesky.errors import GentlyError
from gently_bluesky.read.run import Run
from gently_bluesky.store.manifest import read_manifest
from gently_bluesky.store.strict_json import encode, plain

app = typer.Typer(
    help="Data layer of a dual-view light-sheet microscope: runs in, files out, and back.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
out = Console()

Root = Annotated[
    Path, typer.Option(envvar="GENTLY_ROOT", help="The root under which the runs lie.", show_default="gently-data")
]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON object a line, for programs.")]
DEFAULT_ROOT = Path("gently-data")
_WITH_MINUS = {"ignore_unknown_options": True}  # -1 is a run, not an option


class CoreName(enum.StrEnum):
    """Which core the devices of the demo stand on."""

    SIMULATED = "simulated"
    MICROMANAGER = "micromanager"


def main() -> None:
    """Run the command line."""
    from bluesky.utils import FailedStatus  # noqa: PLC0415 - known to those who run plans
    from ophyd.utils import LimitError  # noqa: PLC0415

    try:
        app()
    except BrokenPipeError:  # whoever read has seen enough
        sys.stdout = sys.stderr
        raise SystemExit(141) from None
    except (GentlyError, LimitError, FailedStatus, OSError, ValueError) as error:
        print(f"gently-bluesky: {error}", file=sys.stderr)
        raise SystemExit(1) from None


# --- demo ---------------------------------------------------------------------------------------------------


@app.command()
def demo(
    root: Root = DEFAULT_ROOT,
    core: Annotated[CoreName, typer.Option(help="Simulated hardware, or Micro-Manager's demo adapters.")] = (
        CoreName.SIMULATED
    ),
    timepoints: Annotated[int, typer.Option(min=1, help="How many rounds.")] = 2,
    planes: Annotated[int, typer.Option(min=1, help="Planes a volume.")] = 30,
) -> None:
    """Take a time-lapse of three embryos in two views, and say what came of it."""
    from bluesky import RunEngine  # noqa: PLC0415 - 1 s that runs and show need not spend
    from bluesky.utils import RunEngineInterrupted  # noqa: PLC0415

    from devices import demo_embryos  # noqa: PLC0415
    from gently_bluesky.plans import Embryo, acquire_timelapse  # noqa: PLC0415

    logging.getLogger("bluesky").setLevel(logging.CRITICAL)  # its tracebacks; errors here are one line
    with FileWriter(root) as writer:
        catalog = Catalog(writer.root)
        dispim = _demo_microscope(core, writer)
        engine: Any = RunEngine({}, scan_id_source=lambda _: catalog.next_scan_id())
        engine.subscribe(writer)
        embryos = [Embryo(name=name, x_um=x, y_um=y) for name, (x, y) in demo_embryos().items()]
        plan = acquire_timelapse(
            dispim,
            embryos,
            session=f"demo-{datetime.datetime.now():%Y-%m-%d}",
            count=timepoints,
            channels=["488 only"],
            views="AB",
            num_slices=planes,
            catalog=catalog,
            md={"purpose": "demo", "operator": "gently-bluesky demo"},
        )
        interrupted = False
        with _RunProgress() as progress:
            engine.subscribe(progress)
            try:
                engine(plan)
            except RunEngineInterrupted:
                engine.abort("interrupted at the keyboard")
                interrupted = True
            finally:
                dispim.close()
    _tell_demo(catalog)
    if interrupted:
        out.print("[bold]Interrupted:[/bold] what came is kept, the lasers are off.")
        raise typer.Exit(130)


def _demo_microscope(core: CoreName, writer: FileWriter) -> Any:
    from devices import Configuration, demo_micromanager_configuration, micromanager_dispim, simulated_dispim  # noqa: PLC0415

    def of_demo_size(configuration: Configuration) -> Configuration:
        cameras = {
            name: getattr(configuration, name).model_copy(
                update={"sensor_px": (1024, 1024), "roi_px": (0, 256, 1024, 512)}
            )
            for name in ("camera_a", "camera_b")
        }
        return configuration.model_copy(update=cameras)

    if core is CoreName.MICROMANAGER:
        return micromanager_dispim(
            of_demo_size(demo_micromanager_configuration(sensor_px=(1024, 1024))), sink=writer
        )
    return simulated_dispim(of_demo_size(Configuration()), sink=writer)


class _RunProgress(Progress):
    """A progress bar that is a callback: its total from the start document, a step an event."""

    def __init__(self) -> None:
        super().__init__(
            TextColumn("[progress.description]{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            console=out,
        )

    def __call__(self, name: str, doc: dict[str, Any]) -> None:
        if name == "start":
            self._task_of_run = self.add_task(doc["plan_name"], total=doc.get("num_points"))
        elif name == "event":
            data = doc["data"]
            self.update(self._task_of_run, description=f"{data.get('embryo')}, timepoint {data.get('timepoint')}")
            self.advance(self._task_of_run)


def _tell_demo(catalog: Catalog) -> None:
    run = catalog[-1]
    _print_run(run)
    root = "" if catalog.root == DEFAULT_ROOT.absolute() else f" --root {catalog.root}"
    series = (
        next((f'run["primary"]["{key}"]' for key in run["primary"].image_keys), "run") if "primary" in run else ""
    )
    out.print("\n[bold]What next[/bold]")
    program = "gently-bluesky" if shutil.which("gently-bluesky") else sys.argv[0]
    out.print(f"  {program} runs{root}\n  {program} show -1{root}", highlight=False, soft_wrap=True)
    out.print(
        f"  {sys.executable} -c '{_snippet(catalog.root, series)}'", highlight=False, markup=False, soft_wrap=True
    )
    out.print("  Open any .ome.tif in Fiji or napari: each is one volume.")


def _snippet(root: Path, series: str) -> str:
    return (
        f'from gently_bluesky import Catalog; run = Catalog("{root}")[-1]; images = {series}; '
        "print(images.shape, images[0, 10].max(), images.voxel_size_um)"
    )


# --- runs, show, replay -------------------------------------------------------------------------------------


@app.command()
def runs(
    root: Root = DEFAULT_ROOT,
    limit: Annotated[int, typer.Option(min=1, help="At most so many.")] = 20,
    plan: Annotated[str | None, typer.Option(help="Only of this plan.")] = None,
    session: Annotated[str | None, typer.Option(help="Only of this session.")] = None,
    embryo: Annotated[str | None, typer.Option(help="Only with volumes of this embryo.")] = None,
    since: Annotated[str | None, typer.Option(help="Started then or later, e.g. 2026-11-23T18:00.")] = None,
    until: Annotated[str | None, typer.Option(help="Started then or earlier.")] = None,
    as_json: AsJson = False,
) -> None:
    """List runs, newest first."""
    catalog = Catalog(root)
    wanted: dict[str, Any] = {} if session is None else {"session": session}
    if embryo is not None:
        wanted["embryo"] = embryo
    found = catalog.search(plan_name=plan, since=since, until=until, **wanted)
    if not found and not as_json:
        sessions = ", ".join(known.name for known in catalog.sessions()) or "none"
        out.print(f"No such runs among {len(catalog)} in {catalog.root}; sessions: {sessions}.", soft_wrap=True)
        return
    if as_json:
        for run in found[:limit]:
            _print_json({"start": run.start, "stop": run.stop, "folder": str(run.folder)})
        return
    table = Table(box=None, padding=(0, 1))
    for heading in ("scan", "uid", "started"):
        table.add_column(heading, no_wrap=True)
    for heading in ("plan", "session", "ended", "volumes"):
        table.add_column(heading, overflow="fold")
    for run in found[:limit]:
        table.add_row(
            str(run.start.get("scan_id", "")),
            run.uid[:8],
            _clock(run.start["time"]),
            str(run.start.get("plan_name", "")),
            str(run.start.get("session", "")),
            run.exit_status or "no stop yet",
            str(sum(len(run[name]) * len(run[name].image_keys) for name in run)),
        )
    out.print(table)
    if len(found) > limit:
        out.print(f"{len(found) - limit} more; --limit {len(found)} shows all.")


@app.command(context_settings=_WITH_MINUS)
def show(
    run: Annotated[str, typer.Argument(help="-1 for the newest, a scan_id, or a uid or its beginning.")] = "-1",
    root: Root = DEFAULT_ROOT,
    as_json: AsJson = False,
) -> None:
    """Show one run: what was asked, what came, where it is."""
    found = _find(Catalog(root), run)
    if not as_json:
        _print_run(found)
        return
    streams = {
        name: {
            "events": len(found[name]),
            "data_keys": found[name].data_keys,
            "descriptors": len(found[name].descriptors),
        }
        for name in found
    }
    files = [entry.line() for entry in read_manifest(found.folder).values()]
    _print_json(
        {"folder": str(found.folder), "start": found.start, "stop": found.stop, "streams": streams, "files": files}
    )


@app.command("replay", context_settings=_WITH_MINUS)
def replay_command(
    run: Annotated[str, typer.Argument(help="-1 for the newest, a scan_id, or a uid or its beginning.")] = "-1",
    root: Root = DEFAULT_ROOT,
    into: Annotated[Path | None, typer.Option(help="Another root; the run is stored there again.")] = None,
    fill: Annotated[
        bool, typer.Option(help="With --into: store the pixels again, not only the documents.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Send a run's documents through a table, into another root, or to standard output as JSON lines."""
    if (fill and into is None) or (as_json and into is not None):
        raise typer.BadParameter("--fill goes with --into; --json does not.")
    found = _find(Catalog(root), run)
    if into is not None:
        with FileWriter(into) as writer:
            replay(found, writer, fill=fill)
        out.print(f"Run {found.uid} is now in {writer.root}, too.", highlight=False, soft_wrap=True)
    elif as_json:
        replay(found, lambda name, doc: _print_json({"name": name, "doc": doc}))
    else:
        from bluesky.callbacks.best_effort import BestEffortCallback  # noqa: PLC0415 - needs matplotlib

        best_effort = BestEffortCallback()
        best_effort.disable_plots()
        replay(found, best_effort)


def _find(catalog: Catalog, key: str) -> Run:
    try:
        number = int(key)
    except ValueError:
        return catalog[key]
    return catalog[key] if len(key) >= 8 else catalog[number]


def _print_json(value: Any) -> None:
    sys.stdout.buffer.write(encode(plain(value)) + b"\n")


def _print_run(run: Run) -> None:
    start, stop = run.start, run.stop
    ended = (
        "no stop document yet"
        if stop is None
        else f"{stop['exit_status']} {_clock(stop['time'])} {stop['reason']}"
    )
    facts = Table.grid(padding=(0, 2))
    for name, value in (
        ("run", f"{run.uid}, scan {start.get('scan_id')}, {start.get('plan_name')}"),
        ("started", _clock(start["time"])),
        ("ended", ended),
        *((key, str(start[key])) for key in ("session", "embryo", "operator", "purpose") if key in start),
        ("folder", str(run.folder)),
    ):
        facts.add_row(f"[bold]{name}[/bold]", value)
    out.print(facts)
    table = Table("stream", "data key", "events", "shape", "dtype", "files", "MB")
    entries = list(read_manifest(run.folder).values())
    for name in run:
        stream = run[name]
        for key in stream.image_keys:
            mine = [entry for entry in entries if entry.data_key == key]
            megabytes = sum(entry.bytes for entry in mine) / 1e6
            shape = " x ".join(map(str, stream.data_keys[key].get("shape", ())))
            dtype = str(stream.data_keys[key].get("dtype_numpy", ""))
            table.add_row(name, key, str(len(stream)), shape, dtype, str(len(mine)), f"{megabytes:.0f}")
        scalars = len(stream.data_keys) - len(stream.image_keys)
        table.add_row(name, f"{scalars} others", str(len(stream)), "", "", "", "")
    out.print(table)


def _clock(seconds: float) -> str:
    return f"{datetime.datetime.fromtimestamp(seconds):%Y-%m-%d %H:%M:%S}"


if __name__ == "__main__":
    main()
