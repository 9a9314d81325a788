"""Planes in three directions of a large volume: OME-TIFF, and OME-Zarr in several chunkings.

From the disk: what was read before is dropped from the page cache. Bytes are those that a plane makes a reader
take from the files; of a mapped TIFF, the pages.
"""

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import bluesky.plans as bp
import numpy as np

from gently_bluesky import Catalog, FileWriter
from gently_bluesky.read.images import ImageSeries
from gently_bluesky.store import ome_zarr, shards
from gently_bluesky.store.disk import PAGE, forget_pages, read_at
from tests.benchmarks.detector import PIXELS, Detector
from tests.benchmarks.ome_zarr import Frames, camera_noise, one_level
from tests.benchmarks.pairs import Row, Spread, in_turns
from tests.benchmarks.runs import emptied, run_engine

TIME, BYTES = "time", "bytes"
KEY = "spim_a"
CHUNKINGS = ((1, 2048, 2048), (8, 128, 128), (16, 128, 128), (16, 256, 256), (32, 64, 64))
AXES = "zyx"


@dataclass(frozen=True, slots=True)
class Layout:
    """One volume as it is stored."""

    name: str
    root: Path
    files: tuple[Path, ...]

    def images(self) -> ImageSeries:
        """Open it anew: a page that is mapped is not dropped."""
        images: ImageSeries = Catalog(self.root)[-1]["primary"].images(KEY)
        return images

    def cut(self, axis: str, turn: Iterator[int]) -> Callable[[], Mapping[str, float]]:
        """Give a measurement that cuts at another place each time, from the disk."""
        along = AXES.index(axis)
        shape = self.images().shape

        def once() -> Mapping[str, float]:
            images = self.images()
            for path in self.files:
                forget_pages(path)
            place = next(turn) * 37 % shape[1 + along]
            index = tuple(place if axis == each else slice(None) for each in AXES)
            with _counted() as read:
                begun = time.perf_counter()
                np.asarray(images[(0, *index)])
                took = time.perf_counter() - begun
            return {TIME: took, BYTES: read[0] or pages_of(shape[1:], axis)}

        return once


def pages_of(shape: Sequence[int], axis: str) -> float:
    """Give the bytes of the pages that a plane of a mapped volume touches."""
    depth, height, width = shape
    row = -(-width * PIXELS.itemsize // PAGE) * PAGE
    return float({"z": height, "y": depth, "x": depth * height}[axis] * row)


@contextlib.contextmanager
def _counted() -> Iterator[list[float]]:
    """Count the bytes of chunks that are read."""
    read = [0.0]

    def counting(descriptor: int, size: int, offset: int) -> bytes:
        read[0] += size
        return read_at(descriptor, size, offset)

    with mock.patch("gently_bluesky.store.shards.read_at", counting):
        yield read


def stored(root: Path, frames: Frames, planes: int, chunk: tuple[int, int, int] | None) -> Layout:
    """Store one volume: in chunks, or, with None, in an OME-TIFF."""
    with contextlib.ExitStack() as stack:
        if chunk is not None:
            stack.enter_context(mock.patch.object(shards, "CHUNK", chunk))
            stack.enter_context(mock.patch.object(ome_zarr, "levels_of", one_level))
        writer = stack.enter_context(FileWriter(root, image_format="ome-zarr" if chunk else "ome-tiff"))
        run_engine(writer)(bp.count([Detector(writer, [KEY], planes, frames)], num=1))
    run = Catalog(root)[-1]
    files = (path for path in run.folder.rglob("*") if path.suffix == ".tif" or path.name == "0")
    there = tuple(path for path in files if path.is_file())
    return Layout(f"OME-Zarr in {chunk}" if chunk else "OME-TIFF", root, there)


def measure(folder: Path, *, tiny: bool) -> Iterator[Row]:
    """Give the time of each plane, to that of the chunking that is the default."""
    planes, side, rounds = (9, 64, 1) if tiny else (200, 2048, 5)
    frames = camera_noise(side)
    with contextlib.ExitStack() as stack:
        layouts = []
        for number, chunk in enumerate((None, *CHUNKINGS)):
            root = stack.enter_context(emptied(folder / f"cuts{number}"))
            layouts.append(stored(root, frames, planes, chunk))
        for axis in AXES:
            turn = iter(range(10**9))
            sides = {each.name: each.cut(axis, turn) for each in layouts}
            measured = in_turns(sides, rounds=rounds, settle=False)
            default = f"OME-Zarr in {shards.CHUNK}"
            for each in layouts:
                nbytes = Spread.of(measured.values(each.name, BYTES)).median
                yield Row(
                    "cuts",
                    f"plane along {axis}, {each.name}: {nbytes / 1e6:.1f} MB; time, to the default's",
                    measured.ratio(each.name, default, TIME),
                    "x",
                    None,
                    measured.shown(each.name, TIME),
                    measured.shown(default, TIME),
                )
