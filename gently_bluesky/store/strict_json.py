"""Documents as JSON that every parser takes, and back without loss.

Python's json writes bare NaN, which JavaScript refuses, and numpy's numbers not at all. Here a document
becomes plain first: a deep copy of dicts, lists, text, numbers, booleans and None, in which the few values
that JSON lacks are spelled as a one-key object: `{"$float": "nan"}`, `{"$bytes": "<base64>"}`. An object of
the user's whose only key begins with "$" gets a second "$" in front, so that it comes back as it was.
Whatever cannot be spelled is an error that names the place; nothing is replaced by its repr.
"""

import base64
import datetime
import enum
import json
import math
import os
from collections.abc import Mapping, Set
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gently_bluesky.errors import DocumentError

_MAX_DEPTH = 100
_MAX_BITS = 14_000  # of an integer: Python reads and writes no more than 4300 digits


def plain(value: Any, where: str = "document") -> Any:
    """Give a deep copy of a value that strict JSON can hold.

    Parameters
    ----------
    value
        Anything a document may hold. Tuples and sets become lists (sets sorted), paths and dates ISO 8601 text,
        durations seconds, enums their value, numpy scalars and arrays Python's numbers and lists.
    where
        Names the value in errors, e.g. ``"start document"``.

    Raises
    ------
    DocumentError
        The value, or one inside it, has no spelling.

    Examples
    --------
    >>> plain({"x": np.float64(1.5), "n": np.int64(3), "bad": float("nan"), "shape": (2, 3)})
    {'x': 1.5, 'n': 3, 'bad': {'$float': 'nan'}, 'shape': [2, 3]}
    """
    return _plain(value, where, 0)


def _plain(value: Any, where: str, depth: int) -> Any:  # noqa: PLR0911 - one line a type
    kind = type(value)
    if value is None or kind is bool or (kind is int and value.bit_length() < _MAX_BITS):
        return value
    if kind is str:
        return value
    if kind is float:
        return value if math.isfinite(value) else {"$float": repr(value)}
    if depth > _MAX_DEPTH:
        raise DocumentError(f"{where} is nested deeper than {_MAX_DEPTH} levels. A document is not a tree.")
    if isinstance(value, Mapping):
        copy = {_key(key, where): _plain(item, f"{where}, {key!r}", depth + 1) for key, item in value.items()}
        if len(copy) != len(value):
            raise DocumentError(f"{where} has keys that differ only in type: {list(value)!r}. JSON keys are text.")
        if len(copy) == 1 and (only := next(iter(copy))).startswith("$"):
            return {f"${only}": copy[only]}
        return copy
    if isinstance(value, (list, tuple)):
        return [_plain(item, f"{where}[{i}]", depth + 1) for i, item in enumerate(value)]
    if isinstance(value, np.ndarray):
        return _plain(_timeless(value, where).tolist(), where, depth)
    return _plain_other(value, where, depth)


def _plain_other(value: Any, where: str, depth: int) -> Any:  # noqa: PLR0911, PLR0912 - one line a type
    if isinstance(value, enum.Enum):
        return _plain(value.value, where, depth + 1)
    if isinstance(value, np.generic):
        item = _timeless(np.asarray(value), where).item()
        if isinstance(item, np.generic):  # longdouble stays what it is
            item = _exact(item, where)
        return _plain(item, where, depth + 1)
    if isinstance(value, int):
        if value.bit_length() >= _MAX_BITS:
            raise DocumentError(f"{where} holds an integer of {value.bit_length()} bits. JSON parsers take fewer.")
        return int(value)
    if isinstance(value, float):
        return _plain(float(value), where, depth)
    if isinstance(value, str):
        return str(value)
    if isinstance(value, bytes | bytearray | memoryview):
        return {"$bytes": base64.b64encode(value).decode("ascii")}
    if isinstance(value, datetime.datetime | datetime.date | datetime.time):
        return value.isoformat()
    if isinstance(value, datetime.timedelta):
        return value.total_seconds()
    if isinstance(value, complex):
        return {"$complex": [_plain(value.real, where, depth), _plain(value.imag, where, depth)]}
    if isinstance(value, os.PathLike):
        return str(os.fspath(value))
    if isinstance(value, Set):
        return _plain(sorted(value, key=repr), where, depth)
    if hasattr(value, "__array__"):
        return _plain(np.asarray(value), where, depth + 1)
    raise DocumentError(
        f"{where} holds {value!r} of type {type(value).__module__}.{type(value).__qualname__}, "
        "which JSON cannot spell. Put in text, numbers, lists or dicts instead."
    )


def _timeless(array: NDArray[Any], where: str) -> NDArray[Any]:
    if array.dtype.kind == "V":
        raise DocumentError(f"{where} holds records {array.dtype}, which JSON cannot spell. Give field by field.")
    if np.ma.is_masked(array):
        raise DocumentError(
            f"{where} holds a masked value, which JSON cannot spell. Fill it: array.filled(value)."
        )
    # numpy gives times finer than a microsecond as bare integers
    if array.dtype.kind == "M":
        return np.datetime_as_string(array)
    if array.dtype.kind != "m":
        return array
    try:
        return array / np.timedelta64(1, "s")
    except TypeError:
        raise DocumentError(f"{where} holds months or years ({array}), which have no length in seconds.") from None


def _exact(value: np.generic, where: str) -> float | complex:
    plain = complex(value) if value.dtype.kind == "c" else float(value)
    if plain == value or value != value:  # noqa: PLR0124 - nan
        return plain
    raise DocumentError(f"{where} holds {value!r}, which is finer than a JSON number. Give a float, or text.")


def _key(key: Any, where: str) -> str:
    if isinstance(key, str):
        return str(key)
    if isinstance(key, bool | int | float | np.generic):
        return str(key)
    raise DocumentError(f"{where} has the key {key!r} of type {type(key).__name__}. JSON keys are text.")


def restored(value: Any) -> Any:
    """Give back, as a deep copy, what `plain` was given: what `decode` makes of it after `encode`.

    >>> restored(plain({"x": float("-inf"), "$odd": None}))
    {'x': -inf, '$odd': None}
    """
    if isinstance(value, dict):
        return _restore({key: restored(item) for key, item in value.items()})
    if isinstance(value, list):
        return [restored(item) for item in value]
    return value


def encode(value: Any) -> bytes:
    r"""Give one line of strict JSON, UTF-8, without its newline, of something plain.

    >>> encode({"b": 1, "a": "\u00b5m"})
    b'{"b":1,"a":"\xc2\xb5m"}'
    """
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    try:
        return text.encode()
    except UnicodeEncodeError:  # lone surrogates have no UTF-8; escaped they survive
        return json.dumps(value, allow_nan=False, separators=(",", ":")).encode()


def decode(line: bytes) -> Any:
    """Give back what `encode` was given; ValueError for anything that is not strict JSON.

    >>> decode(encode(plain({"x": float("-inf"), "$odd": None})))
    {'x': -inf, '$odd': None}
    """
    return json.loads(line, object_hook=_restore, parse_constant=_refuse)


def _refuse(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _restore(item: dict[str, Any]) -> Any:
    if len(item) != 1:
        return item
    ((key, value),) = item.items()
    match key:
        case "$float":
            return float(value)
        case "$bytes":
            return base64.b64decode(value)
        case "$complex":
            return complex(*value)
    if key.startswith("$$"):
        return {key[1:]: value}
    return item
