"""Columns of a stream as an xarray.Dataset, its images behind xarray's own lazy indexing: no dask, no copy."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from xarray.backends import BackendArray
from xarray.core import indexing

from gently_bluesky.read.images import ImageSeries
from gently_bluesky.store.index import IDENTITY_KEYS


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


def dataset(
    columns: Mapping[str, ImageSeries | NDArray[Any]],
    data_keys: Mapping[str, Mapping[str, Any]],
    *,
    time: NDArray[np.float64],
    seq_num: NDArray[np.int64],
) -> xr.Dataset:
    """Give a Dataset of columns, each (event, ...); see `Stream.read`."""
    sizes: dict[str, set[int]] = {}
    for value in columns.values():
        if isinstance(value, ImageSeries):
            for dim, size in zip(value.dims[1:], value.shape[1:], strict=True):
                sizes.setdefault(dim, set()).add(size)
    variables = {}
    for name, value in columns.items():
        key = f"{name}_" if name in {"time", "seq_num"} else name  # those are the coordinates
        attributes = {part: entry for part, entry in data_keys[name].items() if part in {"units", "source"}}
        if isinstance(value, ImageSeries):
            # images of one size share z, y and x, so that views can be compared
            dims = ("event", *(dim if len(sizes[dim]) == 1 else f"{key}_{dim}" for dim in value.dims[1:]))
            variables[key] = xr.Variable(dims, indexing.LazilyIndexedArray(_LazyImages(value)), attributes)
        else:
            dims = ("event", *(f"{key}_dim_{i}" for i in range(1, np.ndim(value))))
            variables[key] = xr.Variable(dims, value, attributes)
    coordinates: dict[str, Any] = {
        "time": ("event", time, {"units": "s", "long_name": "seconds since the epoch"}),
        "seq_num": ("event", seq_num),
    }
    coordinates |= {
        key: variables.pop(key)
        for key in IDENTITY_KEYS
        if key in columns and not isinstance(columns[key], ImageSeries)
    }
    return xr.Dataset(variables, coordinates)
