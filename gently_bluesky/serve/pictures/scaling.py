"""Pixels in another size: area means, exact for every ratio.

A pixel of the result is the mean of the area that it covers, so a picture is as bright as what it shows. Knows
nothing of windows and colours.
"""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray


def area_mean(plane: NDArray[Any], longest: int) -> NDArray[Any]:
    """Give a plane with its longest side at most so long, in its own proportions; never enlarged.

    Parameters
    ----------
    plane
        (y, x), real numbers of any dtype; or (y, x, channel).
    longest
        Pixels, from 1.

    Returns
    -------
    NDArray
        (y, x), floating point: float32 where that holds means of the dtype, float64 elsewhere; the plane itself
        where it is small enough. Pixels that are nan are left out of means.
    """
    return resampled(plane, fitted(plane.shape[:2], longest))


def fitted(shape: tuple[int, ...], longest: int) -> tuple[int, int]:
    """Give the shape of a plane (y, x) with its longest side at most so long, never enlarged.

    >>> fitted((2048, 512), 800), fitted((3, 5), 800), fitted((1, 4096), 512)
    ((800, 200), (3, 5), (1, 512))
    """
    if longest < 1:
        raise ValueError(f"A picture with a longest side of {longest} pixels cannot be made; from 1 on it can.")
    height, width = shape
    most = max(height, width)
    if most <= longest:
        return height, width
    return max(1, round(height * longest / most)), max(1, round(width * longest / most))


def resampled(plane: NDArray[Any], shape: tuple[int, int]) -> NDArray[Any]:
    """Give a plane in another shape, larger or smaller: each pixel the mean of the area that it covers.

    Parameters
    ----------
    plane
        (y, x) or (y, x, channel), at least one pixel.
    shape
        (y, x), each at least 1.

    Returns
    -------
    NDArray
        As `area_mean` gives it.

    Raises
    ------
    ValueError
        The plane has no pixel, or the result would have none.
    """
    if plane.ndim not in {2, 3} or 0 in plane.shape or min(shape) < 1:
        raise ValueError(
            f"Pixels {plane.shape} cannot be made into a picture {shape}; both need (y, x), from 1 on."
        )
    if plane.shape[:2] == shape:
        return plane
    if plane.dtype.kind == "f" and (gone := np.isnan(plane)).any():
        there = resampled((~gone).astype(np.float64), shape)
        with np.errstate(invalid="ignore"):  # 0 / 0 where nothing is there is the nan that it is to be
            return np.asarray(resampled(np.where(gone, 0, plane), shape) / there)
    rows = _mean_along(plane, shape[0])
    return _mean_along(np.ascontiguousarray(rows.swapaxes(0, 1)), shape[1]).swapaxes(0, 1)


def _mean_along(pixels: NDArray[Any], size: int) -> NDArray[Any]:
    """Give the means of so many equal parts of the first axis."""
    there = len(pixels)
    small = pixels.dtype.itemsize <= 2 or pixels.dtype == np.float32
    dtype = np.dtype(np.float32 if small else np.float64)
    if there == size:
        return pixels.astype(dtype, copy=False)
    if there % size == 0:  # whole rows: strided sums, which numpy adds fastest
        every = there // size
        total = pixels[::every].astype(dtype)
        for offset in range(1, every):
            total += pixels[offset::every]
        return total / dtype.type(every)
    ratio = there / size
    edges = np.arange(size + 1) * ratio
    first = np.floor(edges[:-1]).astype(np.intp)
    mean = np.zeros((size, *pixels.shape[1:]), dtype)
    rows, weighed = np.empty(mean.shape, pixels.dtype), np.empty_like(mean)
    for offset in range(math.ceil(ratio) + 1):
        row = first + offset
        covered = np.clip(np.minimum(edges[1:], row + 1) - np.maximum(edges[:-1], row), 0, None) / ratio
        np.take(pixels, row, axis=0, mode="clip", out=rows)
        mean += np.multiply(rows, covered.astype(dtype).reshape(-1, *[1] * (mean.ndim - 1)), out=weighed)
    return mean
