"""``gently-bluesky runs | show | replay``: what there is, for people and, with ``--json``, for programs."""

import contextlib
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from gently_bluesky import Catalog, FileWriter, replay
from gently_bluesky.cli.app import ANY_ROOT, AnyRoot, AsJson, a_folder, app, out
from gently_bluesky.cli.shown import counted_volumes, entries_of, print_json, print_run, without_stop
from gently_bluesky.errors import JournalError, MissingExtraError, RunNotFoundError
from gently_bluesky.keep.aside import make_way
from gently_bluesky.keep.holdings import tags_of
from gently_bluesky.read.run import Run
from gently_bluesky.read.words import clock
from gently_bluesky.write.space import Reserve

_WITH_MINUS = {"ignore_unknown_options": True}  # -1 is a run, not an option


@app.command()
def runs(
    root: AnyRoot = ANY_ROOT,
    limit: Annotated[int, typer.Option(min=1, help="At most so many.")] = 20,
    plan: Annotated[str | None, typer.Option(help="Only of this plan.")] = None,
    session: Annotated[str | None, typer.Option(help="Only of this session.")] = None,
    embryo: Annotated[str | None, typer.Option(help="Only with volumes of this embryo.")] = None,
    since: Annotated[str | None, typer.Option(help="Started then or later, e.g. 2026-11-23T18:00.")] = None,
    until: Annotated[str | None, typer.Option(help="Started then or earlier.")] = None,
    tag: Annotated[str | None, typer.Option(help="Only with this tag.")] = None,
    as_json: AsJson = False,
) -> None:
    """List runs, newest first."""
    catalog = Catalog(root)
    asked = {"session": session, "embryo": embryo}
    wanted: dict[str, Any] = {key: value for key, value in asked.items() if value is not None}
    found = catalog.search(plan_name=plan, since=since, until=until, tag=tag, **wanted)
    if as_json:
        for run in found[:limit]:
            print_json({"start": run.start, "stop": run.stop, "folder": str(run.home), "tags": _tags(run)})
        return
    if not found:
        text = f"No such runs among {len(catalog)} in {catalog.where}: {found.why_none}."
        out.print(text, highlight=False, markup=False, soft_wrap=True)
        return
    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False)
    for heading in ("scan", "uid", "started"):
        table.add_column(heading, no_wrap=True)
    for heading in ("plan", "session", "ended", "volumes", "tags"):
        table.add_column(heading, overflow="fold")
    for run in found[:limit]:
        line = (
            str(run.start.get("scan_id", "")),
            run.uid[:8],
            clock(run.start["time"])[:-3],
            str(run.start.get("plan_name", "")),
            str(run.start.get("session", "")),
            run.exit_status or without_stop(run).split()[0],
            "damaged" if run.damage else counted_volumes(run),
            ", ".join(_tags(run) or ()),
        )
        table.add_row(*map(escape, line))
    out.print(table, highlight=False)
    if len(found) > limit:
        out.print(f"{len(found) - limit} more; --limit {len(found)} shows all.")


def _tags(run: Run) -> list[str] | None:
    if isinstance(run.home, Path):
        tags = tags_of(run.home)
        return None if tags is None else sorted(tags)
    with contextlib.suppress(JournalError):
        return sorted(run.tags)
    return None


@app.command(context_settings=_WITH_MINUS)
def show(
    run: Annotated[str, typer.Argument(help="-1 for the newest, a scan_id, or a uid or its beginning.")] = "-1",
    root: AnyRoot = ANY_ROOT,
    as_json: AsJson = False,
) -> None:
    """Show one run: what was asked, what came, where it is."""
    found = find(Catalog(root), run).up_to_damage
    if not as_json:
        print_run(found)
        return
    streams = {
        name: {
            "events": len(found[name]),
            "data_keys": found[name].data_keys,
            "descriptors": len(found[name].descriptors),
        }
        for name in found
    }
    passed_over: list[JournalError] = []
    files = [entry.line() for entry in entries_of(found, passed_over)]
    damage = [found.damage] if found.damage else list(map(str, passed_over))
    shown = {"folder": str(found.home), "start": found.start, "stop": found.stop}
    shown["damage"] = damage[0] if damage else None
    beside = [asdict(each) | {"path": str(each.path)} for each in found.left_beside]
    print_json(shown | {"tags": _tags(found), "streams": streams, "files": files, "left_beside": beside})


@app.command("replay", context_settings=_WITH_MINUS)
def replay_command(
    run: Annotated[str, typer.Argument(help="-1 for the newest, a scan_id, or a uid or its beginning.")] = "-1",
    root: AnyRoot = ANY_ROOT,
    into: Annotated[
        Path | None, typer.Option(callback=a_folder, help="Another root; the run is stored there again.")
    ] = None,
    fill: Annotated[
        bool, typer.Option(help="With --into: store the pixels again, not only the documents.")
    ] = False,
    again: Annotated[
        bool, typer.Option("--again", help="With --into: put a copy aside that broke off there, into aside/.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Send a run's documents through a table, into another root, or to standard output as JSON lines.

    With --fill it is looked before whether every volume can be read, and whether there is room for them.
    """
    if ((fill or again) and into is None) or (as_json and into is not None):
        raise typer.BadParameter("--fill and --again go with --into; --json does not.")
    found = find(Catalog(root), run)
    if into is not None:
        _store_again(found, into, fill=fill, again=again)
    elif as_json:
        replay(found, lambda name, doc: print_json({"name": name, "doc": doc}))
    else:
        try:
            from bluesky.callbacks.best_effort import BestEffortCallback  # noqa: PLC0415 - needs matplotlib
        except ImportError as error:
            raise MissingExtraError(
                f"The table needs {error.name}: pip install 'gently_bluesky[profile]'. --json and --into do not."
            ) from error

        best_effort = BestEffortCallback()
        best_effort.disable_plots()
        replay(found, best_effort)


def _store_again(run: Run, into: Path, *, fill: bool, again: bool) -> None:
    pixel_bytes = run.check_fillable() if fill else 0
    with FileWriter(into) as writer:
        if pixel_bytes:
            Reserve(writer.root, writer.reserve_bytes).check(writer.root / f"run {run.uid}", pixel_bytes)
        if (aside := make_way(writer.root, run, put_aside=again)) is not None:
            out.print(f"The copy that broke off is now in {aside}.", highlight=False, markup=False, soft_wrap=True)
        replay(run, writer, fill=fill)
        out.print(f"Run {run.uid} is now in {writer.root}, too.", highlight=False, markup=False, soft_wrap=True)


def find(catalog: Catalog, key: str) -> Run:
    """Give the run that a person named: -1 for the newest, a scan_id, or a uid or its beginning."""
    try:
        number = int(key)
    except ValueError:
        return catalog[key]
    if len(key) < 8 or number < 0:
        return catalog[number]
    try:
        return catalog[key]  # digits may be the beginning of a uid
    except RunNotFoundError:
        return catalog[number]
