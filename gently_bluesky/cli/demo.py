"""``gently-bluesky demo``: here devices, writer and RunEngine meet, as they do in a profile."""

import datetime
import enum
import logging
import shutil
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from gently_bluesky import Catalog, FileWriter
from gently_bluesky.cli.app import DEFAULT_ROOT, Root, app, out
from gently_bluesky.cli.shown import print_run


class CoreName(enum.StrEnum):
    """Which core the devices of the demo stand on."""

    SIMULATED = "simulated"
    MICROMANAGER = "micromanager"


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

    from devices import dark_on_signals, demo_embryos  # noqa: PLC0415
    from gently_bluesky.plans import Embryo, acquire_timelapse  # noqa: PLC0415
    from gently_bluesky.provenance import provenance  # noqa: PLC0415

    logging.getLogger("bluesky").setLevel(logging.CRITICAL)  # its tracebacks; errors here are one line
    with FileWriter(root) as writer:
        catalog = Catalog(writer.root)
        dispim = _demo_microscope(core, writer)
        give_back = dark_on_signals(dispim)
        engine: Any = RunEngine(provenance(), scan_id_source=lambda _: catalog.next_scan_id())
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
                give_back()
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
    print_run(run)
    root = "" if catalog.root == DEFAULT_ROOT.absolute() else f" --root {catalog.root}"
    series = (
        next((f'run["primary"]["{key}"]' for key in run["primary"].image_keys), "run") if "primary" in run else ""
    )
    out.print("\n[bold]What next[/bold]")
    program = "gently-bluesky" if shutil.which("gently-bluesky") else f"{sys.executable} -m gently_bluesky"
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
