"""``gently-bluesky export``: a run, or what volumes show, as files for other programs."""

import enum
import importlib
import logging
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from gently_bluesky.cli.app import ANY_ROOT, AnyRoot, AsJson, a_folder, app, out
from gently_bluesky.cli.runs import find
from gently_bluesky.cli.shown import print_json
from gently_bluesky.exchange.selection import select, timepoints
from gently_bluesky.read.catalog import Catalog

Several = list[str] | None


class Format(enum.StrEnum):
    """What an export is written as."""

    OME_TIFF = "ome-tiff"
    TIFF_STACK = "tiff-stack"
    TIFF_SERIES = "tiff-series"
    IMAGEJ = "imagej"
    OME_ZARR = "ome-zarr"
    CSV = "csv"
    JSON = "json"


_WRITERS: Mapping[Format, tuple[str, str]] = {
    Format.OME_TIFF: ("export_ome_tiff", "ome_tiff"),
    Format.TIFF_STACK: ("export_suitcase", "tiff_stack"),
    Format.TIFF_SERIES: ("export_suitcase", "tiff_series"),
    Format.IMAGEJ: ("export_imagej", "imagej"),
    Format.OME_ZARR: ("export_ome_zarr", "ome_zarr"),
    Format.CSV: ("export_table", "csv_events"),
    Format.JSON: ("export_documents", "json_lines"),
}
"""Module and function of each, imported when it is asked for: codecs take time."""

_OF_PIXELS = {Format.OME_TIFF, Format.TIFF_STACK, Format.TIFF_SERIES, Format.IMAGEJ, Format.OME_ZARR}
_OF_TIMES = {Format.IMAGEJ, Format.OME_ZARR}


class Split(enum.StrEnum):
    """What files are split by."""

    TIME = "time"


@app.command(context_settings={"ignore_unknown_options": True})  # -1 is a run, not an option
def export(
    to: Annotated[Format, typer.Option(help="What to write.")],
    into: Annotated[
        Path, typer.Option(callback=a_folder, help="The folder for it; nothing in it is overwritten.")
    ],
    run: Annotated[
        str | None, typer.Argument(help="-1 for the newest, a scan_id, or a uid or its beginning; or say what.")
    ] = None,
    root: AnyRoot = ANY_ROOT,
    session: Annotated[
        Several, typer.Option(help="Only of this session; repeatable, as all that say what.")
    ] = None,
    embryo: Annotated[Several, typer.Option(help="Only of this embryo.")] = None,
    timepoint: Annotated[Several, typer.Option(help="Only these, like 0-9,12.")] = None,
    view: Annotated[Several, typer.Option(help="Only of this view.")] = None,
    channel: Annotated[Several, typer.Option(help="Only of this channel.")] = None,
    stream: Annotated[Several, typer.Option(help="Only of this stream.")] = None,
    key: Annotated[Several, typer.Option(help="Only of this data key.")] = None,
    include_bad: Annotated[
        bool, typer.Option("--include-bad", help="Volumes that are marked as not good, too.")
    ] = False,
    derived: Annotated[
        bool, typer.Option("--derived", help="If no run is named: what was derived, not what was acquired.")
    ] = False,
    dtype: Annotated[
        str | None, typer.Option("--as", help="The dtype of pixels; a value that it cannot hold is an error.")
    ] = None,
    split: Annotated[Split | None, typer.Option(help="imagej, ome-zarr: a file a timepoint.")] = None,
    as_json: AsJson = False,
) -> None:
    """Write a run, or the volumes and events that show what is named, for other programs.

    Voxel sizes, channels and times are in ome-tiff, imagej and ome-zarr; tiff-stack and tiff-series hold planes
    and nothing else. json holds the documents of whole runs. If no run is named, derived ones are left out.
    """
    said = {"session": session, "embryo": embryo, "view": view, "channel": channel, "stream": stream}
    asked: dict[str, Any] = {name: values for name, values in {**said, "data_key": key}.items() if values}
    if timepoint:
        asked["timepoint"] = [number for text in timepoint for number in timepoints(text)]
    if run is None and not asked:
        raise typer.BadParameter("Say what to export: a run, or --session, --embryo, --timepoint ...")
    if (dtype is not None and to not in _OF_PIXELS) or (split is not None and to not in _OF_TIMES):
        raise typer.BadParameter("--as goes with formats of pixels, --split with imagej and ome-zarr.")
    options: dict[str, Any] = {"dtype": dtype} if to in _OF_PIXELS else {}
    options |= {"split_time": split is Split.TIME} if to in _OF_TIMES else {}
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    catalog = Catalog(root)
    selection = select(
        catalog if run is None else find(catalog, run), **asked, include_bad=include_bad, derived=derived
    )
    with _progress() as bar:
        task = bar.add_task("exporting", total=None)

        def tell(done: int, total: int) -> None:
            bar.update(task, completed=done, total=total)

        paths = _writer(to)(selection, into, progress=tell, **options)
    for path in paths:
        if as_json:
            print_json({"path": path})
        else:
            out.print(str(path), highlight=False, markup=False, soft_wrap=True)


def _writer(to: Format) -> Callable[..., tuple[Path, ...]]:
    module, name = _WRITERS[to]
    writer: Callable[..., tuple[Path, ...]] = getattr(
        importlib.import_module(f"gently_bluesky.exchange.{module}"), name
    )
    return writer


def _progress() -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    return Progress(*columns, transient=True, disable=not sys.stderr.isatty())
