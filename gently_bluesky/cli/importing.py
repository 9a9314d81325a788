"""``gently-bluesky import``: what others stored becomes runs; what is wrong with it is told."""

import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from gently_bluesky.cli.app import DEFAULT_ROOT, AsJson, Root, app, out
from gently_bluesky.cli.shown import print_json
from gently_bluesky.read.words import clock, counted

_SHOWN = 10  # remarks of a kind


@app.command("import")
def import_command(
    path: Annotated[
        Path,
        typer.Argument(help="A session folder of gently, the folder of all of them, a TIFF, or a Zarr store."),
    ],
    root: Root = DEFAULT_ROOT,
    copy: Annotated[bool, typer.Option("--copy", help="Store the pixels again; else they are linked.")] = False,
    image_format: Annotated[str, typer.Option(help="With --copy: in which format.")] = "ome-tiff",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be imported.")] = False,
    strict: Annotated[bool, typer.Option("--strict", help="Refuse it, if anything is missing or wrong.")] = False,
    timezone: Annotated[
        str | None, typer.Option(help="Where it was acquired, e.g. Europe/Berlin; else this machine's is assumed.")
    ] = None,
    voxel_size: Annotated[
        tuple[float, float, float] | None, typer.Option(metavar="Z Y X", help="Of volumes, in micrometer.")
    ] = None,
    views: Annotated[str | None, typer.Option(help="Names of the views in a volume, in order, e.g. AB.")] = None,
    split_views: Annotated[
        bool, typer.Option("--split-views", help="Frames twice as wide as high are two views, side by side.")
    ] = False,
    session: Annotated[str | None, typer.Option(help="Of a single file.")] = None,
    embryo: Annotated[str | None, typer.Option(help="Of a single file.")] = None,
    timepoint: Annotated[int | None, typer.Option(min=0, help="Of a single file, or of its first volume.")] = None,
    as_json: AsJson = False,
) -> None:
    """Make runs of session folders of gently, of a TIFF or of a Zarr store, where they lie.

    Nothing in them is changed, and a second time does nothing. Exit status 1 if an image could not be copied.
    """
    from gently_bluesky.exchange.importing import carry_out, plan_import  # noqa: PLC0415 - writer and more
    from gently_bluesky.exchange.said import Said  # noqa: PLC0415

    said = Said(
        timezone=timezone,
        voxel_size_um=voxel_size,
        views=views,
        split_views=split_views,
        session=session,
        embryo=embryo,
        timepoint=timepoint,
    )
    plan = plan_import(path, root, copied=copy, said=said, strict=strict, image_format=image_format)
    if not as_json:
        _print_plan(plan)
    if dry_run:
        done: list[Any] = []
    else:
        with _progress() as bar:
            task = bar.add_task("importing", total=None)
            done = carry_out(plan, progress=lambda count, total: bar.update(task, completed=count, total=total))
    if as_json:
        _print_lines(plan, done)
    elif not dry_run:
        _print_done(done)
    if any(run.left_out for run in done):
        raise typer.Exit(1)


def _progress() -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, transient=True, disable=not sys.stderr.isatty())


def _print_lines(plan: Any, done: Sequence[Any]) -> None:
    for remark in plan.remarks:
        print_json({"act": "remark", "session": None, **asdict(remark)})
    for run in plan.runs:
        session = run.source.start.get("session")
        for remark in run.source.remarks:
            print_json({"act": "remark", "session": session, **asdict(remark)})
        new = {"images": len(run.source.images), "bytes": run.nbytes, "known": run.known, "known_runs": run.runs}
        print_json({"act": "plan", "session": session, "folder": str(run.source.folder), **new})
    for run in done:
        print_json({"act": "imported", **asdict(run), "folder": str(run.folder)})


def _print_plan(plan: Any) -> None:
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False)
    for heading in ("session", "began", "new", "here", "pixels", "wrong or missing"):
        table.add_column(heading, overflow="fold")
    for run in plan.runs:
        kinds = Counter(remark.kind for remark in run.source.remarks)
        table.add_row(
            str(run.source.start.get("session_name") or run.source.start.get("session", run.source.folder.name)),
            clock(run.source.start["time"])[:-3],
            ", ".join(f"{number} {stream}" for stream, number in _new_of(run).items()) or "nothing",
            str(run.known) if run.runs else "",
            f"{run.nbytes / 1e6:,.1f} MB",
            ", ".join(f"{number} {kind}" for kind, number in sorted(kinds.items())),
        )
    out.print(table)
    _print_remarks(plan.remarks)
    for run in plan.runs:
        _print_remarks(run.source.remarks)


def _new_of(run: Any) -> Counter[str]:
    found = Counter(image.stream for image in run.source.images)
    found.update({table.stream: len(table.rows) for table in run.source.tables})
    return found


def _print_remarks(remarks: Sequence[Any]) -> None:
    for kind, number in Counter(remark.kind for remark in remarks).items():
        _say(f"\n{kind}:")
        for remark in [remark for remark in remarks if remark.kind == kind][:_SHOWN]:
            _say(f"  {remark}")
        if number > _SHOWN:
            _say(f"  and {number - _SHOWN} more; --json gives all, and the run's stream 'remarks' holds them.")


def _print_done(done: Sequence[Any]) -> None:
    if not done:
        _say("\nAll of it is here already; nothing was imported.")
    for run in done:
        _say(f"\nRun {run.uid}: {counted(run.images, 'image')} in {run.folder}")
        for remark in run.left_out:
            _say(f"  left out: {remark}")


def _say(text: str) -> None:
    out.print(text, highlight=False, markup=False, soft_wrap=True)
