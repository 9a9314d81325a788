"""Sidecars of others: YAML and JSON lines, read without running what they say.

What is torn is an error or a remark, never guessed at. Knows no layout of folders.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain, count
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from gently_bluesky.exchange.found import Scalar

_MOST_BYTES = 16 << 20
_MOST_VALUES = 100_000  # of one sidecar: aliases in YAML can multiply without end
_UNITS = {"ms": "ms", "um": "um", "pct": "%", "c": "degC", "s": "s", "seconds": "s", "deg": "deg", "v": "V"}

_Base: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class _Loader(_Base):  # type: ignore[misc]
    """Safe: it makes plain values, and numbers of the numpy scalars that old sidecars hold as Python objects."""


def _numpy_value(loader: Any, name: str, node: Any) -> Any:
    if name.endswith("core.multiarray.scalar"):
        dtype, content = loader.construct_sequence(node, deep=True)
        return np.frombuffer(content, dtype)[0].item()
    if name == "dtype":
        said = loader.construct_mapping(node, deep=True)
        return np.dtype(said["args"][0]).newbyteorder(said["state"][1])
    raise yaml.constructor.ConstructorError(None, None, f"it holds a Python object, numpy.{name}", node.start_mark)


_Loader.add_multi_constructor("tag:yaml.org,2002:python/object/apply:numpy.", _numpy_value)
_Loader.add_constructor(
    "tag:yaml.org,2002:python/tuple", lambda loader, node: loader.construct_sequence(node, deep=True)
)


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a mapping.

    Raises
    ------
    ValueError
        It is torn, or something else than a mapping; the message says where.
    """
    if (size := path.stat().st_size) > _MOST_BYTES:
        raise ValueError(f"it is no sidecar: it has {size:,} bytes")
    try:
        said = yaml.load(path.read_bytes(), Loader=_Loader)
        _hold_few(said)
        said = _with_names(said)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = "" if mark is None else f" (line {mark.line + 1})"
        raise ValueError(f"it is torn: {getattr(error, 'problem', None) or error}{where}") from error
    except (ValueError, TypeError, KeyError, IndexError, RecursionError) as error:
        raise ValueError(f"it is torn: {error!r:.200}") from error
    if isinstance(said, dict):
        return said
    raise ValueError("it is empty" if said is None else f"it should hold keys and values, and holds {said!r:.80}")


def _hold_few(said: object) -> None:
    seen, left = 0, [said]
    while left:
        value = left.pop()
        inside = (
            list(value.values()) if isinstance(value, dict) else value if isinstance(value, list | tuple) else []
        )
        left += inside
        seen += 1
        if seen + len(left) > _MOST_VALUES:
            raise ValueError(f"more than {_MOST_VALUES:,} values")


def _with_names(said: Any) -> Any:
    """Give what YAML holds with keys that are text, whatever they were, and sets in an order."""
    if isinstance(said, dict):
        return _unlike((str(key), _with_names(value)) for key, value in said.items())
    if isinstance(said, set):
        return sorted(map(str, said))
    return [_with_names(value) for value in said] if isinstance(said, list | tuple) else said


def _unlike(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    """Give all pairs; of those with one name the later ones get a number."""
    found: dict[str, Any] = {}
    for name, value in pairs:
        names = chain([name], (f"{name}_{number}" for number in count(2)))
        found[next(each for each in names if each not in found)] = value
    return found


def read_json_lines(path: Path) -> Iterator[tuple[int, dict[str, Any] | str]]:
    """Read records, each with the number of its line, from 1; text that says why, for a line that is none."""
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                record = json.loads(line)
            except (ValueError, RecursionError) as error:
                yield number, f"line {number} is torn: {error!s:.100}"
            else:
                is_record = isinstance(record, dict)
                yield number, record if is_record else f"line {number} should be an object, and is {record!r:.80}"


def scalars(*said: object, taken: frozenset[str] = frozenset()) -> dict[str, Scalar]:
    """Give every value in nested mappings, by its keys joined with "_"; what is None is not known, and left out.

    Parameters
    ----------
    said
        Mappings, or anything else, which has no values.
    taken
        Names that mean something else; a value of such a name is called ``metadata_<name>``.

    Values that come to one name are numbered, from the second on.

    Examples
    --------
    >>> scalars({"exposure_ms": 5.0, "calibration": {"galvo_center": 0, "note": None}, "roi": [1, 2]})
    {'exposure_ms': 5.0, 'calibration_galvo_center': 0, 'roi': '[1, 2]'}
    >>> scalars({"a": {"b": 1}, "a_b": 2})
    {'a_b': 1, 'a_b_2': 2}
    """
    leaves = (leaf for each in said for leaf in _leaves(each, ""))
    return _unlike(
        (
            f"metadata_{name}" if name in taken else name,
            value if isinstance(value, Scalar) else json.dumps(value, default=str),
        )
        for name, value in leaves
    )


def _leaves(said: object, prefix: str) -> Iterator[tuple[str, object]]:
    for key, value in said.items() if isinstance(said, Mapping) else ():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{name}_")
        elif value is not None:
            yield name, value


def unit_of(name: str) -> str | None:
    """Give the unit that a name ends with; None if it ends with none.

    >>> unit_of("exposure_ms"), unit_of("num_slices")
    ('ms', None)
    """
    return _UNITS.get(name.rpartition("_")[2].lower()) if "_" in name else None
