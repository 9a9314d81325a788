"""``gently-bluesky convert``: volumes in a second stored form."""

import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
    track,
)

from gently_bluesky import Catalog
from gently_bluesky.cli.app import DEFAULT_ROOT, AsJson, Root, app, out
from gently_bluesky.cli.runs import find
from gently_bluesky.cli.shown import print_json
from gently_bluesky.errors import GentlyError
from gently_bluesky.keep.convert import Converted, Format, convert_run, convert_runs
from gently_bluesky.read.words import counted

_MB = 1e6


@app.command("convert", context_settings={"ignore_unknown_options": True})
def convert_command(
    run: Annotated[
        list[str] | None, typer.Argument(help="Runs, as for show; all that have ended, if none.")
    ] = None,
    to: Annotated[Format, typer.Option(help="The form: ome-zarr or ome-tiff.")] = "ome-zarr",
    root: Root = DEFAULT_ROOT,
    workers: Annotated[int, typer.Option(min=1, help="Processes.")] = max(1, (os.cpu_count() or 1) // 2),
    as_json: AsJson = False,
) -> None:
    """Store volumes in a second form, verified; the first one stays, and documents stay as they are.

    What was converted before is passed over, also where a conversion was interrupted.
    """
    catalog = Catalog(root)
    chosen = (
        [find(catalog, key) for key in run] if run else [each for each in catalog.search() if not each.is_open]
    )
    folders = [each.folder.relative_to(catalog.root).as_posix() for each in chosen]
    failed = False
    for result in _results(catalog.root, folders, to, workers):
        if isinstance(result, Converted):
            _tell(result, as_json=as_json)
            failed |= bool(result.damaged)
        else:
            failed = True
            print(f"gently-bluesky: {result[0]}: {result[1]}", file=sys.stderr)
    if failed:
        raise typer.Exit(1)


def _results(
    root: Path, folders: Sequence[str], to: Format, workers: int
) -> Iterator[Converted | tuple[str, Exception]]:
    """Convert with a bar: of the bytes of one run after the other, or of runs beside each other."""
    if len(folders) > 1 and workers > 1:
        console, hidden = Console(stderr=True), not sys.stderr.isatty()
        results = convert_runs(root, folders, to, workers=workers)
        yield from track(results, "runs", len(folders), console=console, transient=True, disable=hidden)
        return
    for folder in folders:
        try:
            yield _with_a_bar(root, folder, to)
        except (GentlyError, OSError, ValueError) as error:
            yield folder, error


def _with_a_bar(root: Path, folder: str, to: Format) -> Converted:
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    console, hidden = Console(stderr=True), not sys.stderr.isatty()
    with Progress(*columns, TimeRemainingColumn(), console=console, transient=True, disable=hidden) as bar:
        task = bar.add_task(folder.rpartition("/")[2], total=None)
        return convert_run(
            root, folder, to, progress=lambda ready, known: bar.update(task, completed=ready, total=known)
        )


def _tell(done: Converted, *, as_json: bool) -> None:
    if as_json:
        print_json(asdict(done))
        return
    sizes = f", {done.bytes_from / _MB:,.1f} MB as {done.bytes_to / _MB:,.1f} MB" if done.volumes else ""
    before = f"; {counted(done.already, 'volume')} before" if done.already else ""
    name = done.folder.rpartition("/")[2]
    text = f"{name}: {counted(done.volumes, 'volume')} converted to {done.to}{sizes}{before}"
    out.print(text, highlight=False, markup=False, soft_wrap=True)
    for why in dict.fromkeys(why for _, _, why in done.left):
        number = sum(each == why for _, _, each in done.left)
        out.print(f"  {counted(number, 'volume')} left: {why}", highlight=False, markup=False, soft_wrap=True)
    for path, index, why in done.damaged:
        print(f"gently-bluesky: volume {index} in {path} was not converted: {why}", file=sys.stderr)
