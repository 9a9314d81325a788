"""How many pixels have which value, exactly; of integers of up to 16 bits without sorting. Knows arrays."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

_PERCENTILES = (0.1, 1, 5, 25, 50, 75, 95, 99, 99.8, 99.9)


def histogram_of(array: NDArray[Any], bins: int) -> dict[str, Any]:
    """Give counts, edges (one more), min, max, mean and percentiles; pixels that are no number do not count.

    Raises
    ------
    ValueError
        The pixels are complex.
    """
    if array.dtype.kind not in "buif":
        raise ValueError(f"There is no histogram of {array.dtype}.")
    flat = array.reshape(-1)
    flat = (
        flat.view(np.uint8) if flat.dtype == bool else flat[np.isfinite(flat)] if flat.dtype.kind == "f" else flat
    )
    said: dict[str, Any] = {"min": None, "max": None, "mean": None, "percentiles": {}, "pixels": int(flat.size)}
    if flat.size == 0:
        return said | {"counts": [0] * bins, "edges": np.linspace(0, 1, bins + 1).tolist()}
    if flat.dtype.kind == "u" and flat.dtype.itemsize <= 2:
        values, weights = _values(flat)
        counts, edges = np.histogram(values, bins, weights=weights)
        percentiles = _weighted(values, weights)
        mean = float(np.dot(values.astype(float), weights) / flat.size)
    else:
        values = flat
        counts, edges = np.histogram(flat, bins)
        percentiles = [float(each) for each in np.percentile(flat, _PERCENTILES)]
        mean = float(flat.mean(dtype=np.float64))
    said |= {"min": values.min().item(), "max": values.max().item(), "mean": mean}
    said |= {"percentiles": dict(zip(map(str, _PERCENTILES), percentiles, strict=True))}
    return said | {"counts": counts.tolist(), "edges": edges.tolist()}


def _values(flat: NDArray[Any]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    counts = np.bincount(flat)
    values = np.flatnonzero(counts)
    return values, counts[values]


def _weighted(values: NDArray[np.int64], weights: NDArray[np.int64]) -> list[float]:
    """Give percentiles as numpy does, linearly between two pixels, of values that come so often each."""
    last = np.cumsum(weights)  # of each value, the position after its last one among all, sorted
    found = []
    for percent in _PERCENTILES:
        at = percent / 100 * (int(last[-1]) - 1)
        low, high = (
            values[np.searchsorted(last, np.floor(at) + step, side="right").clip(max=len(values) - 1)]
            for step in (0, 1)
        )
        found.append(float(low + (high - low) * (at - np.floor(at))))
    return found
