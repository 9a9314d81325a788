"""What a tool answers: facts that JSON holds, with a picture or none, small enough for an agent to read.

Knows how answers are spelled and how large they may be; knows nothing of what is asked.
"""

import datetime
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gently_bluesky.errors import GentlyError

Facts = dict[str, Any]

MOST_ROWS = 200
_LONGEST_TEXT = 300
_MOST_VALUES = 16


class NotThereError(GentlyError, LookupError):
    """Nothing fits what was asked for; the message says what there is."""


@dataclass(frozen=True, slots=True)
class Shown:
    """A picture with what is to be known of it.

    Attributes
    ----------
    facts
        Which run, event and file it is of, and what counts are in it.
    jpeg
        The picture.
    """

    facts: Facts
    jpeg: bytes


def moment(seconds: float | None) -> str | None:
    """Give a moment in local time with its zone, e.g. "2026-11-23 22:19:21+01:00"; None if there is none."""
    if seconds is None or not math.isfinite(seconds):
        return None
    try:
        local = datetime.datetime.fromtimestamp(seconds).astimezone()
    except (OverflowError, ValueError, OSError):
        return f"{seconds} s since the epoch"
    return local.isoformat(sep=" ", timespec="seconds")


def megabytes(nbytes: float) -> float:
    """Give millions of bytes, to four digits."""
    return float(f"{nbytes / 1e6:.4g}")


def brief(value: Any) -> Any:
    """Give a value of a document in short, as JSON holds it: long texts and lists lose their end, and say so.

    Of a number nine digits are given, of one from a million on three decimals: seconds since the epoch to a ms.

    >>> brief(1795484107.2251)
    1795484107.225
    >>> brief(1 / 3), brief(float("nan")), brief(list(range(100)))
    (0.333333333, 'nan', [0, 1, 2, '... 97 more'])
    """
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float):
        if not math.isfinite(value):
            return repr(value)
        return round(value, 3) if abs(value) >= 1e6 else float(f"{value:.9g}")
    if isinstance(value, Mapping):
        shown = list(value.items())[:_MOST_VALUES]
        more = {"...": f"{len(value) - len(shown)} more"} if len(value) > len(shown) else {}
        return {str(key): brief(item) for key, item in shown} | more
    if isinstance(value, list | tuple | np.ndarray):
        first = value if len(value) <= _MOST_VALUES else value[:3]
        return [brief(item) for item in first] + [f"... {len(value) - len(first)} more"] * (
            len(first) < len(value)
        )
    if isinstance(value, str) and len(value) > _LONGEST_TEXT:
        return f"{value[:_LONGEST_TEXT]}... {len(value) - _LONGEST_TEXT} more characters"
    return value if isinstance(value, int | str | None) else str(value)


def without_none(**facts: Any) -> Facts:
    """Give the facts that are known."""
    return {key: value for key, value in facts.items() if value is not None}


def table(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> Facts:
    """Give a table: names of the columns once, then the rows."""
    return {"columns": list(columns), "rows": [[brief(value) for value in row] for row in rows]}


def limited(limit: int, most: int = MOST_ROWS, *, name: str = "limit") -> int:
    """Give a number of rows that was asked for; ValueError if it is none, or too large an answer."""
    if not 1 <= limit <= most:
        raise ValueError(f"{name} is {limit}; it must be 1 to {most}. Ask several times for more.")
    return limit


def statistics(pixels: NDArray[Any]) -> Facts:
    """Give what counts there are: of every pixel, before any scaling; nan and inf are counted apart."""
    finite = pixels[np.isfinite(pixels)] if pixels.dtype.kind == "f" else pixels
    lost = pixels.size - finite.size
    if not finite.size:
        return {"not_finite": lost}
    low, median, high = np.percentile(finite.astype(np.uint8) if finite.dtype == bool else finite, (1, 50, 99.8))
    found = {
        "min": finite.min(),
        "percentile_1": low,
        "median": median,
        "mean": finite.mean(dtype=np.float64),
        "percentile_99.8": high,
        "max": finite.max(),
        "std": finite.std(dtype=np.float64),
    }
    return {key: float(f"{float(value):.6g}") for key, value in found.items()} | (
        {"not_finite": lost} if lost else {}
    )


def as_text(facts: Facts) -> str:
    """Spell facts as JSON for reading: a line a key, and a line a row of a table."""
    lines = [f"{json.dumps(key)}: {_spelled(value)}" for key, value in facts.items()]
    return "{\n" + ",\n".join(lines) + "\n}"


def _spelled(value: Any) -> str:
    if isinstance(value, Mapping) and any(_is_long(item) for item in value.values()):
        return "{" + ",\n ".join(f"{json.dumps(key)}: {_spelled(item)}" for key, item in value.items()) + "}"
    if _is_long(value):
        return "[\n  " + ",\n  ".join(_dumped(item) for item in value) + "\n ]"
    return _dumped(value)


def _is_long(value: Any) -> bool:
    return isinstance(value, list) and any(isinstance(item, list | Mapping) for item in value)


def _dumped(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False)
