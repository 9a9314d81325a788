"""Counts, lists and moments as a person reads them, in reprs and messages."""

import datetime
from collections.abc import Sequence
from typing import Any

_SHOWN = 10


def counted(number: int, noun: str) -> str:
    """Give a count with its noun.

    >>> counted(1, "run"), counted(0, "run")
    ('1 run', '0 runs')
    """
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def clock(seconds: float) -> str:
    """Give a moment in local time, to the second; question marks for what no calendar has."""
    try:
        return f"{datetime.datetime.fromtimestamp(seconds):%Y-%m-%d %H:%M:%S}"
    except (OverflowError, ValueError, OSError):
        return "????-??-?? ??:??:??"


def listed(values: Sequence[Any]) -> str:
    """Give ascending values in short; whole numbers as ranges, both ends of which count.

    >>> listed([0, 1, 2, 5, 7]), listed(["a", "b"]), listed([])
    ('0..2, 5, 7', "'a', 'b'", 'none')
    """
    parts = _ranges(values) if all(type(value) is int for value in values) else [repr(value) for value in values]
    more = f", ... {len(parts) - _SHOWN} more" if len(parts) > _SHOWN else ""
    return ", ".join(parts[:_SHOWN]) + more or "none"


def _ranges(numbers: Sequence[int]) -> list[str]:
    ranges: list[list[int]] = []
    for number in numbers:
        if ranges and number == ranges[-1][1] + 1:
            ranges[-1][1] = number
        else:
            ranges.append([number, number])
    return [str(first) if first == last else f"{first}..{last}" for first, last in ranges]
