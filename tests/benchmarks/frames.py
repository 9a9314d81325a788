"""Frames into a resource against the same bytes into a raw file, preallocated, with the same write-behind."""

import contextlib
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
from numpy.typing import NDArray

from gently_bluesky import FileWriter
from gently_bluesky.store.disk import BlockFile
from tests.benchmarks.detector import PIXELS, noise
from tests.benchmarks.pairs import Row, Target, in_turns
from tests.benchmarks.runs import emptied, start_document, stop_document

WRITTEN = "written"
"""Until the last frame is handed over and the volume is sealed: what the acquiring thread waits for."""
DURABLE = "durable"
"""Until all of it is on disk."""

Frames = Sequence[NDArray[Any]]


class _NoHash:
    """Stands where xxh3-128 stood."""

    def update(self, data: object) -> None:
        """Do nothing."""

    def hexdigest(self) -> str:
        """Give what no pixels have."""
        return "0" * 32


def raw(folder: Path, frames: Frames, planes: int, pool: ThreadPoolExecutor) -> Mapping[str, float]:
    """Write the bytes and nothing else."""
    size = frames[0].nbytes
    with emptied(folder):
        folder.mkdir()
        begun = time.perf_counter()
        with BlockFile(folder / "raw", planes * size) as file:
            for plane in range(planes):
                data = frames[plane % len(frames)].reshape(-1).view(np.uint8).data
                file.write(plane * size, data)
                file.push_behind(plane * size, size, pool)
            written = time.perf_counter()
            file.sync()
            durable = time.perf_counter()
    return {WRITTEN: written - begun, DURABLE: durable - begun}


def resource(folder: Path, frames: Frames, planes: int, *, hashed: bool) -> Mapping[str, float]:
    """Write one volume of a run, opened and closed by documents."""
    hashing = (
        contextlib.nullcontext()
        if hashed
        else mock.patch("gently_bluesky.write.resource.xxhash.xxh3_128", _NoHash)
    )
    with emptied(folder), hashing, FileWriter(folder) as writer:
        start = start_document()
        writer("start", start)
        writer.flush()
        begun = time.perf_counter()
        target = writer.open_resource("spim_a", shape=(planes, *frames[0].shape), dtype=PIXELS)
        volume = target.new_volume()
        for plane in range(planes):
            volume.write(plane, frames[plane % len(frames)], time=0.0)
        volume.seal()
        written = time.perf_counter()
        writer.flush()
        durable = time.perf_counter()
        writer("stop", stop_document(start))
    return {WRITTEN: written - begun, DURABLE: durable - begun}


def measure(folder: Path, *, tiny: bool) -> Iterator[Row]:
    """Give speed relative to the raw file: 1 is as fast. The raw file against itself shows the noise."""
    planes, side, rounds = (4, 64, 1) if tiny else (100, 2048, 9)
    frames = noise(side)
    with ThreadPoolExecutor(1) as pool:
        measured = in_turns(
            {
                "raw": lambda: raw(folder / "raw", frames, planes, pool),
                "without hash": lambda: resource(folder / "bare", frames, planes, hashed=False),
                "with hash": lambda: resource(folder / "hashed", frames, planes, hashed=True),
                "raw again": lambda: raw(folder / "again", frames, planes, pool),
            },
            rounds=rounds,
            warm_bytes=planes * frames[0].nbytes * 5 // 4,
        )
    for quantity in (WRITTEN, DURABLE):
        targets = {"raw again": None, "without hash": Target(">=", 0.9), "with hash": Target(">=", 0.8)}
        for side_name, target in targets.items():
            yield Row(
                "frames",
                f"speed to a raw file's, until {quantity}: {side_name}",
                measured.ratio("raw", side_name, quantity),
                "x",
                target,
                measured.shown(side_name, quantity),
                measured.shown("raw", quantity),
            )
