"""Against suitcase-tiff: the same arrays in events through the same RunEngine, and what a kill leaves of them.

Run as a module it is the child process that is killed. An event counts as acknowledged when its writer says so:
a FileWriter to its subscribers, once it is in the journal; a suitcase by returning from the callback.
"""

import contextlib
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import bluesky.plans as bp
import numpy as np
import tifffile
from numpy.typing import NDArray
from suitcase.tiff_stack import Serializer

from gently_bluesky import Catalog, FileWriter
from tests.benchmarks.detector import Detector, address, noise
from tests.benchmarks.pairs import Row, Spread, Target, child, in_turns
from tests.benchmarks.runs import emptied, run_engine

Who = Literal["ours", "suitcase"]
CALLED = "called"
RETURNED = "returned"
DURABLE = "durable"
KEY = "spim_a"


def _measured(who: Who, folder: Path, detector: Detector, events: int) -> Mapping[str, float]:
    with emptied(folder), contextlib.ExitStack() as closing:
        writer: Any = closing.enter_context(
            FileWriter(folder) if who == "ours" else Serializer(folder, bigtiff=True)
        )
        called = [0.0]

        def timed(name: str, document: Mapping[str, Any]) -> None:
            before = time.perf_counter()
            writer(name, document)
            called[0] += time.perf_counter() - before if name == "event" else 0.0

        engine = run_engine(timed)
        begun = time.perf_counter()
        engine(bp.count([detector], num=events))
        returned = time.perf_counter()
        if who == "suitcase":  # ours are on disk before the plan returns
            for path in folder.rglob("*.tiff"):
                with path.open("rb+") as file:
                    os.fsync(file.fileno())
        durable = time.perf_counter()
    return {CALLED: called[0] / events, RETURNED: returned - begun, DURABLE: durable - begun}


def measure(folder: Path, *, tiny: bool) -> Iterator[Row]:
    """Give how many times faster ours is, and what share of the acknowledged frames can be read after SIGKILL."""
    planes, side, events, rounds = (3, 64, 4, 1) if tiny else (20, 2048, 6, 7)
    detector = Detector(None, [KEY], planes, noise(side))
    # the backlog of arrays takes as much memory again as the files
    measured = in_turns(
        {
            "ours": lambda: _measured("ours", folder / "ours", detector, events),
            "suitcase": lambda: _measured("suitcase", folder / "suitcase", detector, events),
        },
        rounds=rounds,
        warm_bytes=2 * events * planes * side * side * 2,
    )
    for what, quantity in (
        ("a callback returns", CALLED),
        ("the plan returns", RETURNED),
        ("it is on disk", DURABLE),
    ):
        shown = measured.shown("ours", quantity), measured.shown("suitcase", quantity)
        ratio = measured.ratio("suitcase", "ours", quantity)
        yield Row("suitcase", f"suitcase-tiff's time to ours, until {what}", ratio, "x", None, *shown)
    ours = [_killed("ours", folder / "killed", planes, side, events // 2) for _ in range(rounds)]
    theirs = [_killed("suitcase", folder / "killed", planes, side, events // 2) for _ in range(rounds)]
    yield Row(
        "suitcase",
        "acknowledged frames readable after SIGKILL",
        Spread.of([100 * readable / acknowledged for readable, acknowledged in ours]),
        "%",
        Target(">=", 100),
        f"{sum(r for r, _ in ours)} of {sum(a for _, a in ours)}",
        f"{sum(r for r, _ in theirs)} of {sum(a for _, a in theirs)}",
    )


def _killed(who: Who, folder: Path, planes: int, side: int, events: int) -> tuple[int, int]:
    """Kill a child once some events are acknowledged; give frames readable and frames acknowledged."""
    with emptied(folder), child("suitcase", who, folder, planes, side) as process:
        assert process.stdout is not None
        acknowledged = 0
        for line in process.stdout:
            acknowledged = int(line)
            if acknowledged >= events:
                break
        process.kill()
        acknowledged = max([acknowledged, *map(int, process.stdout.read().split())])  # said before it died
        process.wait()
        frames = _frames_of_ours if who == "ours" else _frames_of_suitcase
        frame = frames(folder)
        readable = 0
        for event in range(acknowledged):
            for plane in range(planes):
                with contextlib.suppress(IndexError):
                    readable += bool((frame(event, plane, planes)[0, :2] == address(event, plane)).all())
    return readable, acknowledged * planes


FrameOf = Callable[[int, int, int], NDArray[Any]]


def _frames_of_ours(folder: Path) -> FrameOf:
    images = Catalog(folder)[-1]["primary"][KEY]
    return lambda event, plane, _: np.asarray(images[event, plane])


def _frames_of_suitcase(folder: Path) -> FrameOf:
    (path,) = folder.rglob("*.tiff")
    with tifffile.TiffFile(path) as file:
        frames = [page.asarray() for page in file.pages]
    return lambda event, plane, planes: frames[event * planes + plane]


def _acquire(who: Who, folder: Path, planes: int, side: int) -> None:
    acknowledged = 0

    def acknowledge(name: str, document: Mapping[str, Any]) -> None:
        nonlocal acknowledged
        if name == "event":
            acknowledged += 1
            print(acknowledged, flush=True)

    detector = Detector(None, [KEY], planes, noise(side))
    if who == "ours":
        writer = FileWriter(folder)
        writer.subscribe(acknowledge)
        engine = run_engine(writer)
    else:
        engine = run_engine(Serializer(folder, bigtiff=True), acknowledge)
    engine(bp.count([detector], num=None))


if __name__ == "__main__":
    _acquire(
        "ours" if sys.argv[1] == "ours" else "suitcase", Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
    )
