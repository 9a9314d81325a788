"""The audit: what recovery and retention did to a root, a line an act, for as long as the root exists."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gently_bluesky.store.journal import append_shared, read_lines
from gently_bluesky.store.layout import AUDIT


def append_audit(root: Path, act: str, **details: Any) -> None:
    """Append one act with its time, and make it durable.

    Parameters
    ----------
    root
        A root.
    act
        What was done: "recovered", "removed", "restored" ...
    details
        Plain values: to which run, which files, by which rule.
    """
    append_shared(root / AUDIT, [{"time": time.time(), "act": act, **details}])


def read_audit(root: Path) -> Iterator[dict[str, Any]]:
    """Read every act on a root, in order; JournalError where a line is damaged."""
    path = root / AUDIT
    if path.exists():
        for _, line in read_lines(path):
            yield line
