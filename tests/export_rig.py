"""What the tests of export share: a time-lapse whose pixels say which volume they are of, and every writer."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import bluesky.plan_stubs as bps
import numpy as np
from bluesky import Msg
from numpy.typing import DTypeLike, NDArray

from gently_bluesky import FileWriter
from gently_bluesky.exchange.export_documents import json_lines
from gently_bluesky.exchange.export_imagej import imagej
from gently_bluesky.exchange.export_ome_tiff import ome_tiff
from gently_bluesky.exchange.export_ome_zarr import ome_zarr
from gently_bluesky.exchange.export_suitcase import tiff_series, tiff_stack
from gently_bluesky.exchange.export_table import csv_events
from gently_bluesky.read.run import Run
from tests.data_rig import SHAPE, Camera, record, volume

VIEWS = ("A", "B")
CHANNELS = ("488 only", "561 only")

Writer = Callable[..., tuple[Path, ...]]
OF_PIXELS: tuple[Writer, ...] = (ome_tiff, tiff_stack, tiff_series, imagej, ome_zarr)
WRITERS: tuple[Writer, ...] = (*OF_PIXELS, csv_events, json_lines)


def number(embryo: int, timepoint: int, view: int, channel: int = 0) -> int:
    """What the first pixel of a volume of `timelapse` is."""
    return (1000 * embryo + 100 * timepoint + 10 * view + channel) % 60_000


def pixels(*place: int, shape: Sequence[int] = SHAPE, dtype: DTypeLike = "<u2") -> NDArray[Any]:
    """The volume of one place in a time-lapse: embryo, timepoint, view, channel."""
    return volume(number(*place), shape, dtype)


def timelapse(
    root: Path,
    *,
    embryos: Sequence[str] = ("e1", "e2"),
    timepoints: Sequence[int] = (0, 1, 2),
    channels: Sequence[str] = CHANNELS,
    views: Sequence[str] = VIEWS,
    without: Sequence[tuple[int, ...]] = (),
    bad: Sequence[tuple[int, ...]] = (),
    session: str = "s",
    image_format: Any = "ome-tiff",
    **options: Any,
) -> Run:
    """Record a time-lapse; places in `without` (embryo, timepoint) are never taken, those in `bad` not good."""

    def plan(writer: FileWriter) -> Iterator[Msg]:
        cameras = [Camera(f"spim_{view.lower()}", writer, view=view, **options) for view in views]
        yield from bps.open_run(md={"session": session, "plan_name": "timelapse", "scan_id": 7})
        for t in timepoints:
            for e, embryo in enumerate(embryos):
                for c, channel in enumerate(channels):
                    if (e, t) in without:
                        continue
                    said = {"embryo": embryo, "timepoint": t, "channel": channel, "good": (e, t) not in bad}
                    cameras[0].scalars |= said
                    for v, camera in enumerate(cameras):
                        camera.taken = number(e, t, v, c)
                    yield from bps.trigger_and_read(cameras)
        yield from bps.close_run()

    return record(root, plan, image_format=image_format)


def everything_under(folder: Path) -> list[str]:
    """All files and folders there are, by their paths."""
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*")) if folder.exists() else []


def hold_addresses(stack: NDArray[Any], *, embryo: int = 0, timepoints: Sequence[int] = (0, 1, 2)) -> None:
    """Hold an array (t, c, z, y, x) against the addresses in its pixels: views before laser presets."""
    places = [(view, channel) for view in range(len(VIEWS)) for channel in range(len(CHANNELS))]
    assert stack.shape == (len(timepoints), len(places), *SHAPE)
    for t, timepoint in enumerate(timepoints):
        for c, (view, channel) in enumerate(places):
            np.testing.assert_array_equal(stack[t, c], pixels(embryo, timepoint, view, channel))
