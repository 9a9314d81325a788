"""What the data layer adds around a volume on the RunEngine's thread: 12 scalars and two data keys of volumes.

The same plan on the same detector, at a camera's pace, once with a FileWriter as sink and subscriber, once with
a sink that drops the frames, gives the same documents and writes nothing, and no subscriber. The clock starts
when the last pair of frames has arrived, before they are handed over.
"""

import statistics
from collections.abc import Iterator, Mapping
from pathlib import Path

import bluesky.plans as bp

from gently_bluesky import FileWriter
from tests.benchmarks.detector import Detector, noise
from tests.benchmarks.null_sink import NullSink
from tests.benchmarks.pairs import Row, Target, in_turns
from tests.benchmarks.runs import emptied, run_engine

TO_TRIGGER = "to trigger"
TO_EXPOSURE = "to exposure"
KEYS = ("spim_a", "spim_b")


def _gaps(detector: Detector) -> Mapping[str, float]:
    return {
        TO_TRIGGER: statistics.median(detector.to_trigger),
        TO_EXPOSURE: statistics.median(detector.to_exposure),
    }


def measure(folder: Path, *, tiny: bool) -> Iterator[Row]:
    """Give by how much longer the RunEngine is busy between two volumes."""
    planes, side, exposure_ms, volumes, rounds = (2, 64, 0.0, 3, 1) if tiny else (20, 2048, 10.0, 7, 7)
    frames = noise(side)

    def with_writer() -> Mapping[str, float]:
        with emptied(folder / "engine") as root, FileWriter(root) as writer:
            detector = Detector(writer, KEYS, planes, frames, exposure_ms=exposure_ms)
            run_engine(writer)(bp.count([detector], num=volumes))
            return _gaps(detector)

    def without() -> Mapping[str, float]:
        detector = Detector(NullSink(), KEYS, planes, frames, exposure_ms=exposure_ms)
        run_engine()(bp.count([detector], num=volumes))
        return _gaps(detector)

    measured = in_turns(
        {"writer": with_writer, "nothing": without},
        rounds=rounds,
        warm_bytes=volumes * planes * len(KEYS) * frames[0].nbytes,
    )
    for what, quantity, target in (
        ("more from last frame to next trigger", TO_TRIGGER, Target("<=", 8.0)),
        ("more from last frame to next exposure (new files)", TO_EXPOSURE, None),
    ):
        shown = measured.shown("writer", quantity), measured.shown("nothing", quantity)
        more = measured.more("writer", "nothing", quantity, 1e3)
        yield Row("engine", what, more, "ms", target, *shown)
