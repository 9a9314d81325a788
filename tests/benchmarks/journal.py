"""An event of 12 scalars in the journal: each made durable, against all at the end of the run."""

import statistics
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from event_model import compose_run

from gently_bluesky import FileWriter
from tests.benchmarks.detector import SCALARS
from tests.benchmarks.pairs import Row, in_turns
from tests.benchmarks.runs import emptied

CALL = "call"
"""An event, as long as it keeps the RunEngine's thread."""
WHOLE = "whole"
"""An event, until the whole run is journalled and durable."""

ALONE = "alone"
"""An event that comes alone, until it is journalled."""

Pair = tuple[str, dict[str, Any]]


def documents(events: int) -> Iterator[Pair]:
    """Give a run of scalars."""
    names = [f"scalar_{i}" for i in range(SCALARS)]
    run = compose_run()
    yield "start", dict(run.start_doc)
    keys: Any = {name: {"source": "none", "dtype": "number", "shape": []} for name in names}
    stream = run.compose_descriptor(name="primary", data_keys=keys)
    yield "descriptor", dict(stream.descriptor_doc)
    for number in range(events):
        data = dict.fromkeys(names, number * 1.1)
        yield "event", dict(stream.compose_event(data=data, timestamps=dict.fromkeys(names, float(number))))
    yield "stop", dict(run.compose_stop())


def measure(folder: Path, *, tiny: bool) -> Iterator[Row]:
    """Give the time of durability "event" relative to "run"."""
    events, rounds = (20, 1) if tiny else (3000, 9)

    def journal(durability: Literal["event", "run"]) -> Mapping[str, float]:
        pairs = list(documents(events))
        with emptied(folder / "journal") as root, FileWriter(root, durability=durability) as writer:
            begun, called = time.perf_counter(), 0.0
            for name, document in pairs:
                before = time.perf_counter()
                writer(name, document)
                called += time.perf_counter() - before if name == "event" else 0.0
            whole = time.perf_counter() - begun
        return {CALL: called / events, WHOLE: whole / events, ALONE: alone(durability)}

    def alone(durability: Literal["event", "run"]) -> float:
        took = []
        with emptied(folder / "journal") as root, FileWriter(root, durability=durability) as writer:
            for name, document in documents(events // 10):
                before = time.perf_counter()
                writer(name, document)
                writer.flush()
                took.append(time.perf_counter() - before)
        return statistics.median(took)

    measured = in_turns({"event": lambda: journal("event"), "run": lambda: journal("run")}, rounds=rounds)
    for what, quantity in (
        ('an event alone, journalled: time, "event" to "run"', ALONE),
        ('an event on the caller\'s thread: time, "event" to "run"', CALL),
        ('an event in the whole run: time, "event" to "run"', WHOLE),
    ):
        shown = measured.shown("event", quantity), measured.shown("run", quantity)
        yield Row("journal", what, measured.ratio("event", "run", quantity), "x", None, *shown)
