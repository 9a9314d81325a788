"""Pixels of a TIFF of others that must be decoded: planes are, when they are indexed, and no others.

An array as far as readers need one. Knows planes that are pages of a file, and nothing of what they show.
"""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from gently_bluesky.errors import DamagedVolumeError, VolumeMissingError

Part = int | slice


class TiffPixels:
    """An array whose planes (y, x) are pages of a file.

    Parameters
    ----------
    path
        A TIFF.
    dtype
        Of the pixels, decoded.
    pages
        The number of the page of each plane, of the shape of the array without its last two axes.
    rows, columns
        Which of each page.
    """

    def __init__(
        self, path: Path, dtype: np.dtype[Any], pages: NDArray[np.intp], rows: range, columns: range
    ) -> None:
        self.dtype = dtype
        self._path = path
        self._pages = pages
        self._rows = rows
        self._columns = columns

    @property
    def shape(self) -> tuple[int, ...]:
        """(z, y, x), with whatever stands before, or (y, x)."""
        return (*self._pages.shape, len(self._rows), len(self._columns))

    @property
    def ndim(self) -> int:
        """How many axes there are."""
        return len(self.shape)

    def __len__(self) -> int:
        return self.shape[0]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        return np.asarray(self[...], dtype)

    def __getitem__(self, index: Any) -> NDArray[Any]:
        """Give a part, in memory; numpy's basic indexing.

        Raises
        ------
        DamagedVolumeError
            A plane cannot be decoded.
        VolumeMissingError
            The file is gone.
        """
        *outer, row, column = self._expanded(index)
        pages = np.asarray(self._pages[tuple(outer)])
        within = _spelled(self._rows[row]), _spelled(self._columns[column])
        inner = [len(part) for part in (self._rows[row], self._columns[column]) if isinstance(part, range)]
        out = np.empty((pages.size, *inner), self.dtype)
        for place, plane in enumerate(self._decoded(pages.ravel().tolist())):
            out[place] = plane[within]
        return out.reshape((*pages.shape, *inner))

    def cut(self, index: Any, shape: Sequence[int]) -> Self | NDArray[Any]:
        """Give a part of a certain shape, whose planes are decoded when they are indexed where that can be."""
        *outer, row, column = self._expanded(index)
        rows, columns = self._rows[row], self._columns[column]
        if isinstance(rows, int) or isinstance(columns, int) or tuple(shape[-2:]) != (len(rows), len(columns)):
            return self[index].reshape(shape)
        pages = np.asarray(self._pages[tuple(outer)]).reshape(shape[:-2])
        return type(self)(self._path, self.dtype, pages, rows, columns)

    def _expanded(self, index: Any) -> list[Part]:
        parts = list(index) if isinstance(index, tuple) else [index]
        if Ellipsis not in parts:
            parts.append(Ellipsis)
        dots = parts.index(Ellipsis)
        if len(parts) - 1 > self.ndim:
            raise IndexError(f"too many indices: there are {self.ndim} axes, and {len(parts) - 1} were indexed")
        return [*parts[:dots], *[slice(None)] * (self.ndim - len(parts) + 1), *parts[dots + 1 :]]

    def _decoded(self, pages: Sequence[int]) -> Iterator[NDArray[Any]]:
        import tifffile  # noqa: PLC0415 - 0.1 s that only foreign files need

        try:
            with tifffile.TiffFile(self._path) as file:
                planes = volume_in(file).pages
                for number in pages:
                    yield planes[number].asarray()
        except FileNotFoundError as error:
            raise VolumeMissingError(f"{self._path} is not there any more.") from error
        except Exception as error:  # what decodes has errors of its own
            raise DamagedVolumeError(f"{self._path} cannot be decoded: {error!s:.200}") from error


def volume_in(file: Any) -> Any:
    """Give the series of a TIFF that is its volume: the first, or one of all, where each is one plane of a kind.

    Whoever writes a volume plane by plane leaves as many series.
    """
    import tifffile  # noqa: PLC0415 - 0.1 s that only foreign files need

    first, pages = file.series[0], [each.keyframe for each in file.series]
    kinds = {(each.kind, each.shape, each.keyframe.shape, each.keyframe.hash) for each in file.series}
    if len(pages) == 1 or len(first.shape) != 2 or kinds != {("shaped", first.shape, first.shape, pages[0].hash)}:
        return first
    return tifffile.TiffPageSeries(pages, (len(pages), *first.shape), first.dtype, "IYX")


def pages_of(path: Path, series: Any) -> TiffPixels | None:
    """Give the pixels of a series whose planes are its pages; None for any other."""
    *outer, height, width = series.shape
    if tuple(series.keyframe.shape) != (height, width) or len(series.pages) != math.prod(outer):
        return None
    pages = np.arange(math.prod(outer)).reshape(outer)
    return TiffPixels(path, series.dtype.newbyteorder("<"), pages, range(height), range(width))


def _spelled(part: int | range) -> Part:
    if isinstance(part, int):
        return part
    stop = part.stop if part.stop >= 0 else None  # backwards, to the first one
    return slice(part.start, stop, part.step)
