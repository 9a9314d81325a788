"""Runs to measure: documents that no RunEngine makes, a RunEngine for any thread, and volumes on disk."""

import contextlib
import shutil
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from bluesky import RunEngine

Doc = dict[str, Any]


def start_document() -> Doc:
    """Give the start of a run that no RunEngine makes."""
    return {"uid": str(uuid.uuid4()), "time": time.time(), "scan_id": 1, "plan_name": "benchmark"}


def stop_document(start: Doc) -> Doc:
    """Give the stop to a start."""
    return {
        "uid": str(uuid.uuid4()),
        "time": time.time(),
        "run_start": start["uid"],
        "exit_status": "success",
        "reason": "",
        "num_events": {},
    }


@contextlib.contextmanager
def emptied(folder: Path) -> Iterator[Path]:
    """Give a folder that does not exist yet, and delete it afterwards."""
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def run_engine(*subscribers: Callable[[str, Doc], object]) -> RunEngine:
    """Give a RunEngine that works on any thread."""
    engine = RunEngine({}, context_managers=[])
    for subscriber in subscribers:
        engine.subscribe(subscriber)
    return engine
