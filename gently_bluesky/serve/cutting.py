"""`Cut`: a part of what is stored, known by shape and identity before a pixel is read.

Of a series, of one volume by its permanent address, or of a volume that is still growing. What would be too large
is refused here. Knows arrays and slices; knows no HTTP.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gently_bluesky.errors import NotHereError, TooLargeError
from gently_bluesky.read.assets import Pixels
from gently_bluesky.read.images import ImageSeries
from gently_bluesky.serve.doors import Limits
from gently_bluesky.serve.slices import Part, expanded, shape_of, spanned

_MOST_EVENTS = 10_000


@dataclass(frozen=True, slots=True)
class Cut:
    """A part of what is stored.

    Attributes
    ----------
    shape, dtype
        Of the array.
    identity
        What its pixels are, whenever they are read; None if they may change.
    read
        Gives the array.
    is_mapped
        Whether reading takes no memory: the array is a view of a mapped file.
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    identity: tuple[object, ...] | None
    read: Callable[[], NDArray[Any]]
    is_mapped: bool = False

    @property
    def nbytes(self) -> int:
        """How large it is."""
        return math.prod(self.shape) * self.dtype.itemsize


def level_of(series: ImageSeries, level: int) -> ImageSeries:
    """Give a level of a series; NotHereError if it has no such level."""
    if level == 0:
        return series
    levels = series.levels
    if level >= len(levels):
        raise NotHereError(
            f"There is no level {level} of {series.data_key}; there are {len(levels)}, counted from 0.",
            available={"level": list(range(len(levels)))},
        )
    return levels[level]


def cut_series(series: ImageSeries, parts: Sequence[Part], limits: Limits) -> Cut:
    """Give a part of a series; `parts` begin with the event axis.

    Raises
    ------
    IndexError
        There is no such event, plane, row or column.
    TooLargeError
        It is more than is given at once.
    BadVolumeError, VolumeMissingError, UnfillableError
        As `ImageSeries.lazy` raises them.
    """
    if not isinstance(parts[0], int):
        parts = expanded(parts, series.ndim)
    first = parts[0]
    if isinstance(first, int):
        return _cut_event(series, first, parts[1:], limits)
    full = expanded(parts, series.ndim)
    shape = shape_of(full, series.shape, series.dims)
    _hold_size(shape, series.dtype, limits)
    chosen = range(len(series))[first] if isinstance(first, slice) else range(0)
    if len(chosen) > _MOST_EVENTS:
        raise TooLargeError(f"{len(chosen)} events at once; {_MOST_EVENTS} are given.", limit=_MOST_EVENTS)
    for event in chosen:
        _hold_work(series.lazy(event), full[1:], limits)
    each = [identity_of(series, event) for event in chosen]
    identity = None if None in each else (series.run_uid, series.data_key, tuple(each), full[1:])
    return Cut(shape, series.dtype, identity, lambda: series[full])


def _cut_event(series: ImageSeries, event: int, parts: Sequence[Part], limits: Limits) -> Cut:
    pixels = series.lazy(event)
    inner = expanded(parts, pixels.ndim)
    shape = shape_of(inner, pixels.shape, ("z", "y", "x")[-pixels.ndim :] if pixels.ndim <= 3 else ())
    _hold_size(shape, pixels.dtype, limits)
    _hold_work(pixels, inner, limits)
    known = identity_of(series, event)
    identity = None if known is None else (series.run_uid, series.data_key, known, _spelled(inner, pixels.shape))
    is_mapped = isinstance(pixels, np.memmap) and _is_contiguous(inner, pixels.shape)
    return Cut(shape, pixels.dtype, identity, lambda: series.part(event, inner), is_mapped)


def cut_pixels(pixels: Pixels, identity: tuple[object, ...] | None, parts: Sequence[Part], limits: Limits) -> Cut:
    """Give a part of one volume; raises as `cut_series`."""
    inner = expanded(parts, pixels.ndim)
    shape = shape_of(inner, pixels.shape, ("z", "y", "x")[-pixels.ndim :] if pixels.ndim <= 3 else ())
    _hold_size(shape, pixels.dtype, limits)
    _hold_work(pixels, inner, limits)
    whose = None if identity is None else (*identity, _spelled(inner, pixels.shape))
    is_mapped = isinstance(pixels, np.memmap) and _is_contiguous(inner, pixels.shape)
    return Cut(shape, pixels.dtype, whose, lambda: np.asarray(pixels[inner]), is_mapped)


def identity_of(series: ImageSeries, event: int) -> tuple[object, ...] | None:
    """Give what the pixels of an event are, whenever they are read; None if they may change."""
    row = series.row(event)
    ref = row.volumes.get(series.data_key)
    if ref is not None:
        entry = series.entry(event)
        return None if entry is None or entry.xxh3_128 is None else (ref.resource, ref.index, entry.xxh3_128)
    return (row.uid,) if isinstance(row.data.get(series.data_key), list) else None


def _spelled(inner: Sequence[int | slice], shape: Sequence[int]) -> tuple[object, ...]:
    """Give a slice in one spelling of many."""
    return tuple(
        part.indices(size) if isinstance(part, slice) else part % size
        for part, size in zip(inner, shape, strict=True)
    )


def _is_contiguous(inner: Sequence[int | slice], shape: Sequence[int]) -> bool:
    """Whether a part lies in one piece: behind the first axis of which it has several, all axes are whole."""
    begun = False
    for part, size in zip(inner, shape, strict=True):
        named = range(size)[part] if isinstance(part, slice) else range(1)
        if named.step != 1 or (begun and len(named) != size):
            return False
        begun = begun or len(named) > 1
    return True


def _hold_size(shape: Sequence[int], dtype: np.dtype[Any], limits: Limits) -> None:
    nbytes = math.prod(shape) * dtype.itemsize
    if nbytes > limits.answer_bytes:
        raise TooLargeError(
            f"{'x'.join(map(str, shape))} {dtype.name} are {nbytes:,} bytes, and {limits.answer_bytes:,} are "
            "given at once. Ask for fewer planes, with a step (::4), or for a level of a pyramid (level=2).",
            limit=limits.answer_bytes,
            nbytes=nbytes,
        )


def _hold_work(pixels: Pixels, inner: Sequence[int | slice], limits: Limits) -> None:
    """Hold that no more must be decoded in memory than may be; of a mapped file nothing is."""
    if isinstance(pixels, np.ndarray):
        return
    planes, spans = shape_of(inner[:-2], pixels.shape[:-2]), spanned(inner[-2:], pixels.shape[-2:])
    nbytes = math.prod((*planes, *spans)) * pixels.dtype.itemsize
    if nbytes > limits.decode_bytes:
        raise TooLargeError(
            f"{nbytes:,} bytes would have to be decoded for that, and {limits.decode_bytes:,} are at once. Ask "
            "for fewer planes, or for a level of a pyramid (level=2).",
            limit=limits.decode_bytes,
            nbytes=nbytes,
        )
