"""Arrays inside events: which go to files, and what a descriptor must then say.

What a descriptor says of an array cannot be trusted: ophyd's `Signal` gives no dtype, some devices describe a
10 x 10 image as [10], or as a number. The arrays that came decide.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Doc = dict[str, Any]

_NUMERIC = "biufc"


@dataclass(frozen=True, slots=True)
class ArrayKind:
    """What the descriptor must say of one data key that carries arrays."""

    place: Literal["event", "file"]
    shape: tuple[int, ...]
    dtype: str


Signature = frozenset[tuple[str, ArrayKind]]
"""All data keys of an event that carry arrays; one descriptor a signature."""


def as_array(value: Any) -> NDArray[Any] | None:
    """Give the array that a value is, or None for anything else (numbers, text, lists, dicts)."""
    if isinstance(value, np.ndarray):
        return value if value.ndim else None
    if isinstance(value, (str, bytes, int, float, list, dict, tuple, np.generic)) or value is None:
        return None
    if hasattr(value, "__array__"):
        array = np.asarray(value)
        return array if array.ndim else None
    return None


def kind_of(array: NDArray[Any], limit_bytes: int) -> ArrayKind:
    """Decide where an array goes: numbers above the limit to a file, all else stays in the event."""
    big = array.dtype.kind in _NUMERIC and array.nbytes > limit_bytes
    dtype = array.dtype.newbyteorder("<").str if array.dtype.kind in _NUMERIC else array.dtype.str
    return ArrayKind("file" if big else "event", array.shape, dtype)


def described(data_keys: Mapping[str, Doc], signature: Signature) -> dict[str, Doc]:
    """Give data keys that say what the arrays really are; the others as they were."""
    true = dict(data_keys)
    for key, kind in signature:
        entry = {k: v for k, v in true.get(key, {"source": "unknown"}).items() if k != "external"}
        entry |= {"dtype": "array", "shape": list(kind.shape), "dtype_numpy": kind.dtype}
        if len(entry.get("dims", kind.shape)) != len(kind.shape):
            del entry["dims"]
        if kind.place == "file":
            entry["external"] = "STREAM:"
        true[key] = entry
    return true


def agrees(data_keys: Mapping[str, Doc], signature: Signature) -> bool:
    """Whether data keys say already what the arrays are."""
    return all(
        (entry := data_keys.get(key)) is not None
        and entry.get("external") == ("STREAM:" if kind.place == "file" else None)
        and tuple(entry.get("shape", ())) == kind.shape
        and entry.get("dtype_numpy") == kind.dtype
        for key, kind in signature
    )
