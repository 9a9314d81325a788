"""What a function gives: pixels, with what is known of their axes, and from which volumes they are."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gently_bluesky.derived.parents import ParentVolume
from gently_bluesky.errors import DerivationError


@dataclass(frozen=True, slots=True, eq=False)
class Pixels:
    """An array, and what is known of its axes.

    Attributes
    ----------
    array
        numpy's or dask's.
    dims
        Names of its axes, ("z", "y", "x") for one; None: those of the parent if the shape is the same, else
        unknown.
    voxel_size_um
        Spacing along them in micrometer; None: that of the parent, if it has axes of these names and sizes.
    """

    array: Any
    dims: Sequence[str] | None = None
    voxel_size_um: Sequence[float] | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Derived:
    """One derived event, as a generator function gives it.

    Attributes
    ----------
    data
        An array, `Pixels`, a number, or several of them by data key.
    of
        The volume that it is from, or several.
    """

    data: Any
    of: ParentVolume | Sequence[ParentVolume]


@dataclass(frozen=True, slots=True, eq=False)
class Result:
    """One value on its way into an event: under which data key, and from which volumes it is."""

    data_key: str
    value: Any
    of: Sequence[ParentVolume]


def results_of(data: Any, data_key: str, of: Sequence[ParentVolume]) -> list[Result]:
    """Give what a function gave, value by value; what has no name of its own gets `data_key`."""
    named = data if isinstance(data, Mapping) else {data_key: data}
    return [Result(str(key), value, of) for key, value in named.items()]


def in_memory(value: Any, data_key: str) -> Pixels | str | bool | int | float:
    """Give a result as it goes into an event: lazy arrays computed, numbers as Python's.

    Raises
    ------
    DerivationError
        It is nothing that a document or a file can hold: a mask has a place in neither.
    """
    pixels = value if isinstance(value, Pixels) else Pixels(value)
    computed = pixels.array.compute() if hasattr(pixels.array, "compute") else pixels.array
    plain = computed.item() if isinstance(computed, np.generic) else computed
    if isinstance(plain, bool | int | float | str):
        return plain
    if _is_masked(plain):  # np.asarray would make data of what is hidden
        raise DerivationError(
            f"{data_key!r} has masked values, which nothing stores. Fill it: array.filled(value)."
        )
    array: NDArray[Any] = np.asarray(plain)
    if array.dtype.kind not in "biufc" or array.size == 0:
        raise DerivationError(
            f"{data_key!r} is {array.shape} {array.dtype}, out of a {type(plain).__name__}; a function gives "
            "arrays of numbers that are not empty, numbers, text, or a mapping of data keys to them."
        )
    if array.ndim == 0:
        number: bool | int | float = array.item()
        return number
    if pixels.dims is not None and not len(set(pixels.dims)) == len(pixels.dims) == array.ndim:
        raise DerivationError(f"{data_key!r} is {array.shape}, and its dims are {tuple(pixels.dims)}.")
    if pixels.voxel_size_um is not None and len(pixels.voxel_size_um) != array.ndim:
        raise DerivationError(
            f"{data_key!r} is {array.shape}, and its voxel_size_um {tuple(pixels.voxel_size_um)}."
        )
    return Pixels(array, pixels.dims, pixels.voxel_size_um)


def _is_masked(value: Any) -> bool:
    return any(map(_is_masked, value)) if isinstance(value, list | tuple) else bool(np.ma.is_masked(value))
