"""A stream as an xarray.Dataset, its images behind xarray's own lazy indexing: no dask, no copy, no read."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from xarray.backends import BackendArray
from xarray.core import indexing

from gently_bluesky.read.images import ImageSeries

if TYPE_CHECKING:
    from gently_bluesky.read.run import Stream


class _LazyImages(BackendArray):  # type: ignore[misc, no-any-unimported, unused-ignore]
    """An ImageSeries as xarray wants it."""

    def __init__(self, images: ImageSeries) -> None:
        self._images = images
        self.shape = images.shape
        self.dtype = images.dtype

    def __getitem__(self, key: indexing.ExplicitIndexer) -> NDArray[Any]:
        result: NDArray[Any] = indexing.explicit_indexing_adapter(
            key, self.shape, indexing.IndexingSupport.BASIC, self._images.__getitem__
        )
        return result


def dataset(stream: "Stream", keys: Sequence[str], *, include_bad: bool) -> xr.Dataset:
    """Give a Dataset of some data keys; see `Stream.read`."""
    variables = {}
    for key in keys:
        value = stream[key]
        attributes = {name: entry for name, entry in stream.data_keys[key].items() if name in {"units", "source"}}
        if isinstance(value, ImageSeries):
            images = value.including_bad if include_bad else value
            dims = ("event", *(f"{key}_{dim}" for dim in images.dims[1:]))
            variables[key] = xr.Variable(dims, indexing.LazilyIndexedArray(_LazyImages(images)), attributes)
        else:
            dims = ("event", *(f"{key}_dim_{i}" for i in range(1, np.ndim(value))))
            variables[key] = xr.Variable(dims, value, attributes)
    coordinates = {
        "time": ("event", stream.time, {"units": "s", "long_name": "seconds since the epoch"}),
        "seq_num": ("event", stream.seq_num),
    }
    return xr.Dataset(variables, coordinates)
