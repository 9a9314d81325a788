"""The audit: what recovery and retention did to a root, a line an act, for as long as the root exists."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from gently_bluesky.errors import JournalError
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


def read_audit(
    root: Path, start: int = 0, *, pass_over: Callable[[JournalError], object] | None = None
) -> Iterator[dict[str, Any]]:
    """Read acts on a root, in order, from a byte on; a damaged line is met as `read_lines` meets it."""
    path = root / AUDIT
    if path.exists():
        for _, line in read_lines(path, start, pass_over=pass_over):
            if isinstance(line, dict):
                yield line


def audit_bytes(root: Path) -> int:
    """Give how long the audit is now: where what comes later begins."""
    try:
        return (root / AUDIT).stat().st_size
    except FileNotFoundError:
        return 0
