"""Conversion of an OME-TIFF into OME-Zarr, against what its codec alone makes of the same frames on all cores.

The codec packs shards in memory, of the first level and of the others, and stores nothing. The conversion reads
cold files, hashes, packs, stores, syncs, reads what it stored and hashes that.
"""

import os
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from unittest import mock

import bluesky.plans as bp
import numpy as np

from gently_bluesky import Catalog, FileWriter
from gently_bluesky.keep.convert import convert_run
from gently_bluesky.store.disk import forget_pages
from gently_bluesky.store.formats import hash_of
from gently_bluesky.store.manifest import ManifestEntry
from gently_bluesky.store.pyramid import halved, halved_shape, levels_of, step_between
from gently_bluesky.store.shards import Grid, encode_shard
from tests.benchmarks.detector import PIXELS, Detector
from tests.benchmarks.ome_zarr import Frames, camera_noise
from tests.benchmarks.pairs import Row, Spread, Target, in_turns
from tests.benchmarks.runs import emptied, run_engine

TIME, STORED, SHARE = "time", "stored", "share"
KEY = "spim_a"


def converted(folder: Path, frames: Frames, planes: int) -> Mapping[str, float]:
    """Acquire a volume, and convert it from the disk."""
    with emptied(folder):
        with FileWriter(folder) as writer:
            run_engine(writer)(bp.count([Detector(writer, [KEY], planes, frames)], num=1))
        run = Catalog(folder)[-1]
        for path in run.folder.rglob("*.tif"):
            forget_pages(path)
        verifying = [0.0]

        def timed(path: Path, entry: ManifestEntry) -> str:
            begun = time.perf_counter()
            said = hash_of(path, entry)
            verifying[0] += time.perf_counter() - begun
            return said

        with mock.patch("gently_bluesky.keep.convert.hash_of", timed):
            begun = time.perf_counter()
            done = convert_run(folder, run.folder.relative_to(folder).as_posix(), "ome-zarr")
            took = time.perf_counter() - begun
        assert done.volumes == 1
        return {TIME: took, STORED: took - verifying[0], SHARE: 100 * verifying[0] / took}


def packed(frames: Frames, planes: int) -> Mapping[str, float]:
    """Pack the same frames in memory, levels included, a shard a thread."""
    levels = levels_of((planes, *frames[0].shape), PIXELS, ())
    grids = [Grid.of(level.shape[0], level.shape[1:], PIXELS) for level in levels]
    block = np.stack([frames[plane % len(frames)] for plane in range(min(grids[0].shard_planes, planes))])

    def shard(_: int) -> None:
        level, pixels = 0, block
        encode_shard(grids[0], pixels)
        for level in range(1, len(levels)):
            step = step_between(levels[level - 1], levels[level])
            small = np.empty(halved_shape(pixels.shape, step), pixels.dtype)
            halved(pixels, step, small)
            pixels = small
            encode_shard(grids[level], pixels)

    with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
        begun = time.perf_counter()
        list(pool.map(shard, range(grids[0].shards)))
        took = time.perf_counter() - begun
        return {TIME: took, STORED: took}


def measure(folder: Path, *, tiny: bool) -> Iterator[Row]:
    """Give the speed of conversion, to the codec's, and what share verification has."""
    planes, side, rounds = (9, 64, 1) if tiny else (200, 2048, 5)
    frames = camera_noise(side)
    measured = in_turns(
        {
            "conversion": lambda: converted(folder / "conversion", frames, planes),
            "codec": lambda: packed(frames, planes),
        },
        rounds=rounds,
        warm_bytes=2 * planes * frames[0].nbytes,
    )
    yield Row(
        "conversion",
        "OME-TIFF into OME-Zarr, synced and verified: speed, to its codec's alone",
        measured.ratio("codec", "conversion", TIME),
        "x",
        None,
        measured.shown("conversion", TIME),
        measured.shown("codec", TIME),
    )
    yield Row(
        "conversion",
        "the same before it is verified",
        measured.ratio("codec", "conversion", STORED),
        "x",
        Target(">=", 0.4),
        measured.shown("conversion", STORED),
        measured.shown("codec", STORED),
    )
    yield Row(
        "conversion",
        "of the whole, reading back and comparing",
        Spread.of(measured.values("conversion", SHARE)),
        "%",
    )
