"""What a document must be made of to be journalled, and to be read back: its structure, and no more.

The schemas of event-model say what each key is; this says what everything here relies on, in time that an event
can afford, and with an error that names the document and the place. Whatever else a document holds is its own.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from numbers import Real
from typing import Any

import numpy as np

from gently_bluesky.errors import DocumentError

_MOST_TEXT = 4096  # characters of a uid or a name
_MOST_VOLUMES = 1_000_000  # of one datum: each becomes a row

Check = Callable[[Any], bool]


def shown(value: Any) -> str:
    """Give a value as an error shows it: never long, never failing."""
    if isinstance(value, str | bytes):
        return repr(value[:60]) + ("..." if len(value) > 60 else "")
    if value is None or isinstance(value, bool | float):
        return repr(value)
    return repr(value) if isinstance(value, int) and value.bit_length() < 64 else f"a {type(value).__name__}"


def _text(value: Any) -> bool:
    return isinstance(value, str) and len(value) <= _MOST_TEXT


def _number(value: Any) -> bool:
    try:
        return type(value) is not bool and isinstance(value, Real) and math.isfinite(value)
    except OverflowError:
        return False


def _count(value: Any) -> bool:
    whole = type(value) is int or isinstance(value, np.integer)
    return whole and 0 <= int(value) < 1 << 53


def _mapping(value: Any) -> bool:
    return isinstance(value, Mapping)


def _listed(check: Check) -> Check:
    def each(value: Any) -> bool:
        listed = isinstance(value, Sequence | np.ndarray) and not isinstance(value, str | bytes)
        return listed and all(map(check, value))

    return each


_LIST = _listed(lambda _: True)


def _range(value: Any) -> bool:
    if not (isinstance(value, Mapping) and _count(value.get("start")) and _count(value.get("stop"))):
        return False
    return bool(0 <= value["stop"] - value["start"] <= _MOST_VOLUMES)


def _data_keys(value: Any) -> bool:
    return isinstance(value, Mapping) and all(_text(key) and _data_key(entry) for key, entry in value.items())


def _data_key(entry: Any) -> bool:
    return isinstance(entry, Mapping) and all(
        check(entry[key]) for key, check in _DATA_KEY.items() if entry.get(key) is not None
    )


_DATA_KEY: Mapping[str, Check] = {
    "shape": _listed(lambda size: size is None or _count(size)),
    "dims": _listed(_text),
    "external": _text,
    "view": _text,
    "voxel_size_um": _listed(lambda size: _number(size) or _text(size)),
}


def _configuration(value: Any) -> bool:
    return isinstance(value, Mapping) and all(
        isinstance(entry, Mapping) and isinstance(entry.get("data", {}), Mapping) for entry in value.values()
    )


def _columns(value: Any) -> bool:
    return isinstance(value, Mapping) and all(map(_LIST, value.values()))


_WORDS: Mapping[Check, str] = {
    _text: f"text of at most {_MOST_TEXT} characters",
    _number: "a finite number",
    _count: "an integer from 0 on",
    _mapping: "an object",
    _range: f"{{'start': ..., 'stop': ...}}, integers from 0 on, of at most {_MOST_VOLUMES:,}",
    _data_keys: "an object of data keys, each with shape, dims, external as event-model has them",
    _configuration: "an object of devices, each with its data",
    _columns: "an object of lists",
}

_NEEDED: Mapping[str, Mapping[str, Check]] = {
    "start": {"uid": _text, "time": _number},
    "stop": {"run_start": _text, "time": _number, "exit_status": _text},
    "descriptor": {"uid": _text, "data_keys": _data_keys},
    "event": {
        "uid": _text,
        "descriptor": _text,
        "seq_num": _count,
        "time": _number,
        "data": _mapping,
        "timestamps": _mapping,
    },
    "event_page": {
        "descriptor": _text,
        "uid": _listed(_text),
        "seq_num": _listed(_count),
        "time": _listed(_number),
        "data": _columns,
        "timestamps": _columns,
    },
    "stream_resource": {"uid": _text, "data_key": _text},
    "stream_datum": {
        "uid": _text,
        "descriptor": _text,
        "stream_resource": _text,
        "indices": _range,
        "seq_nums": _range,
    },
    "resource": {"uid": _text, "spec": _text, "resource_path": _text},
    "datum": {"datum_id": _text, "resource": _text, "datum_kwargs": _mapping},
    "datum_page": {"datum_id": _listed(_text), "resource": _text, "datum_kwargs": _columns},
}

_ALLOWED: Mapping[str, Mapping[str, Check]] = {
    "descriptor": {"run_start": _text, "name": _text, "configuration": _configuration},
    "event": {"filled": _mapping},
    "event_page": {"filled": _columns},
    "stream_resource": {
        "run_start": _text,
        "mimetype": _text,
        "spec": _text,
        "uri": _text,
        "root": _text,
        "resource_path": _text,
        "parameters": _mapping,
        "resource_kwargs": _mapping,
    },
    "resource": {"run_start": _text, "root": _text, "resource_kwargs": _mapping},
}


def check_document(name: str, doc: Any, *, whole: bool = True) -> None:
    """Refuse a document that nothing could be done with.

    Parameters
    ----------
    name
        Its kind.
    doc
        The document, as it came or as it was read.
    whole
        Whether what is needed must be there; otherwise only what is there must be right.

    Raises
    ------
    DocumentError
        It names the document, the key, what stands there and what should.
    """
    needed = _NEEDED.get(name)
    if needed is None:
        raise DocumentError(f"{name!r:.80} is no kind of document; there are {sorted(_NEEDED)}.")
    if not isinstance(doc, Mapping):
        raise DocumentError(f"A {name} is {shown(doc)}, and should be an object.")
    for checks in (needed, _ALLOWED.get(name, {})):
        for key, check in checks.items():
            if key not in doc:
                if whole and checks is needed:
                    raise DocumentError(f"{_which(name, doc)} lacks its {key!r}.")
            elif not check(doc[key]):
                should = _WORDS.get(check, "a list of such values")
                raise DocumentError(
                    f"{_which(name, doc)} has {shown(doc[key])} as its {key!r}, which should be {should}."
                )
    if name in {"event_page", "datum_page"}:
        _check_page(name, doc)


def _check_page(name: str, page: Mapping[str, Any]) -> None:
    columns = [page[key] for key in ("uid", "seq_num", "time", "datum_id") if key in page]
    parts = [page[key] for key in ("data", "timestamps", "filled", "datum_kwargs") if key in page]
    lengths = {len(column) for column in [*columns, *(column for part in parts for column in part.values())]}
    if len(lengths) > 1:
        raise DocumentError(
            f"{_which(name, page)} has columns of {sorted(lengths)} values, which should be one length."
        )


def _which(name: str, doc: Mapping[str, Any]) -> str:
    uid = doc.get("uid", doc.get("datum_id"))
    return f"{name} {shown(uid)}" if isinstance(uid, str) else f"A {name}"
