"""``gently-bluesky runs | show | replay``: what there is, for people and, with ``--json``, for programs."""

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from gently_bluesky import Catalog, FileWriter, replay
from gently_bluesky.cli.app import DEFAULT_ROOT, AsJson, Root, app, out
from gently_bluesky.cli.shown import clock, number_of_volumes, print_json, print_run, without_stop
from gently_bluesky.errors import MissingExtraError
from gently_bluesky.read.run import Run
from gently_bluesky.store.manifest import read_entries

_WITH_MINUS = {"ignore_unknown_options": True}  # -1 is a run, not an option


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
        why = catalog.volumes(since=since, until=until, include_bad=True, **wanted).why_none if embryo else ""
        sessions = ", ".join(known.name for known in catalog.sessions()) or "none"
        out.print(
            f"No such runs among {len(catalog)} in {catalog.root}; {why or f'sessions: {sessions}'}.",
            highlight=False,
            soft_wrap=True,
        )
        return
    if as_json:
        for run in found[:limit]:
            print_json({"start": run.start, "stop": run.stop, "folder": str(run.folder)})
        return
    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False)
    for heading in ("scan", "uid", "started"):
        table.add_column(heading, no_wrap=True)
    for heading in ("plan", "session", "ended", "volumes"):
        table.add_column(heading, overflow="fold")
    for run in found[:limit]:
        table.add_row(
            str(run.start.get("scan_id", "")),
            run.uid[:8],
            clock(run.start["time"])[:-3],
            str(run.start.get("plan_name", "")),
            str(run.start.get("session", "")),
            run.exit_status or without_stop(run).split()[0],
            "damaged" if run.damage else str(number_of_volumes(run)),
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
    shown = {"folder": str(found.folder), "start": found.start, "stop": found.stop, "damage": found.damage}
    files = [entry.line() for entry in read_entries(found.folder)]
    print_json(shown | {"streams": streams, "files": files})


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
    found = find(Catalog(root), run)
    if into is not None:
        with FileWriter(into) as writer:
            replay(found, writer, fill=fill)
        out.print(f"Run {found.uid} is now in {writer.root}, too.", highlight=False, soft_wrap=True)
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


def find(catalog: Catalog, key: str) -> Run:
    """Give the run that a person named: -1 for the newest, a scan_id, or a uid or its beginning."""
    try:
        number = int(key)
    except ValueError:
        return catalog[key]
    return catalog[key] if len(key) >= 8 else catalog[number]
