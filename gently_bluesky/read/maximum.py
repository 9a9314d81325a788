"""The maximum of a volume along an axis, plane by plane."""

import operator
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from gently_bluesky.read.origin import Axis

if TYPE_CHECKING:
    from gently_bluesky.read.assets import Pixels

_SLAB = 8  # planes that are read together: a chunk of an OME-Zarr


def maximum(volume: "Pixels", axis: Axis) -> NDArray[Any]:
    """Give the maximum of a volume (z, y, x): (y, x) along "z", (z, x) along "y", (z, y) along "x"."""
    slabs = (volume[first : first + _SLAB] for first in range(0, len(volume), _SLAB))
    if axis == "z":
        projection = np.array(volume[0])
        for slab in slabs:
            for plane in slab:
                np.maximum(projection, plane, out=projection)
        return projection
    along: Callable[[NDArray[Any]], NDArray[Any]] = operator.methodcaller("max", axis=0 if axis == "y" else 1)
    return np.stack([along(np.asarray(plane)) for slab in slabs for plane in slab])
