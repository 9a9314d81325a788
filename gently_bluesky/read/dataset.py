"""Columns of a stream as an xarray.Dataset.

`dataset` gives its images behind xarray's own lazy indexing: no dask, no copy. `measured` gives them as dask
arrays, with coordinates in micrometers and seconds.
"""

from collections import defaultdict
from collections.abc import Hashable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from xarray.backends import BackendArray
from xarray.core import indexing

from gently_bluesky.read.images import ImageSeries
from gently_bluesky.store.index import IDENTITY_KEYS

if TYPE_CHECKING:
    from gently_bluesky.read.stream import Stream


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
    times: Mapping[str, NDArray[np.float64]],
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
        key = _name(name)
        attributes = {part: entry for part, entry in data_keys[name].items() if part in {"units", "source"}}
        if isinstance(value, ImageSeries):
            # images of one size share z, y and x, so that views can be compared
            dims = ("event", *(dim if len(sizes[dim]) == 1 else f"{key}_{dim}" for dim in value.dims[1:]))
            variables[key] = xr.Variable(dims, indexing.LazilyIndexedArray(_LazyImages(value)), attributes)
        else:
            dims = ("event", *_named(data_keys[name].get("dims", ()), np.shape(value)[1:], key, sizes))
            variables[key] = xr.Variable(dims, value, attributes)
    coordinates: dict[str, Any] = {
        name: ("event", time, {"units": "s", "long_name": "seconds since the epoch"})
        for name, time in times.items()
    }
    coordinates["seq_num"] = "event", seq_num
    coordinates |= {
        key: variables.pop(key)
        for key in IDENTITY_KEYS
        if key in columns and not isinstance(columns[key], ImageSeries)
    }
    return xr.Dataset(variables, coordinates)


def _named(said: Sequence[str], shape: Sequence[int], key: str, sizes: Mapping[str, set[int]]) -> Sequence[str]:
    """Give the axes of a column: as its data key says, where images have them too; else of its own."""
    if len(set(said)) == len(said) and [sizes.get(dim) for dim in said] == [{size} for size in shape]:
        return said
    return [f"{key}_dim_{i}" for i in range(1, len(shape) + 1)]


def _name(key: str) -> str:
    return f"{key}_" if key in {"time", "measured_time", "seq_num"} else key  # those are the coordinates


# --- with coordinates ---------------------------------------------------------------------------------------


def measured(stream: "Stream", *, include_bad: bool) -> xr.Dataset:
    """Give a stream, its images dask arrays, with coordinates in micrometers and seconds; see `Run.to_xarray`."""
    data = stream.read(include_bad=include_bad)
    claims: defaultdict[str, dict[str, xr.Variable | None]] = defaultdict(dict)
    for key in stream.image_keys:
        images = stream.images(key).including_bad if include_bad else stream.images(key)
        name, entry = _name(key), stream.data_keys[key]
        dims, attributes = data[name].dims, data[name].attrs
        data[name] = dims, images.to_dask(), attributes | ({"view": entry["view"]} if "view" in entry else {})
        for what, variable in (*_axes(dims, images), *_stage(entry, stream)):
            claims[what][name] = variable
    coordinates = {
        f"{name}_utc": xr.Variable("event", _on_the_calendar(data[name].values))
        for name in ("time", "measured_time")
        if name in data.coords
    }
    coordinates |= _settled(claims)
    data = data.rename({name: f"{name}_" for name in coordinates.keys() & data.variables.keys()})
    data = data.assign_coords(coordinates)
    for name, variable in coordinates.items():
        if "event" not in variable.dims:
            data = data.set_xindex(name)
    return data


def _on_the_calendar(seconds: NDArray[np.float64]) -> NDArray[np.datetime64]:
    return np.datetime64(0, "ns") + np.round(seconds * 1e6).astype("timedelta64[us]")


def _axes(dims: Sequence[Hashable], images: ImageSeries) -> Iterator[tuple[str, xr.Variable | None]]:
    """Give where voxels are along each axis of images, None along one whose spacing nobody says."""
    steps = np.full((len(images), len(dims) - 1), np.nan)
    for event, row in enumerate(steps):
        sizes = (images.voxel_size_um_of(event) or ())[-len(row) :]
        row[len(row) - len(sizes) :] = sizes
    for dim, size, step in zip(dims[1:], images.shape[1:], steps.T, strict=True):
        yield f"{dim}_um", None if np.isnan(step).all() else _axis(dim, size, step)


def _axis(dim: Hashable, size: int, step: NDArray[np.float64]) -> xr.Variable:
    attributes = {"units": "um", "long_name": "from the middle of the first voxel"}
    if (step == step[0]).all():
        return xr.Variable(dim, step[0] * np.arange(size), attributes)
    return xr.Variable(("event", dim), step[:, np.newaxis] * np.arange(size), attributes)


def _stage(entry: Mapping[str, Any], stream: "Stream") -> Iterator[tuple[str, xr.Variable]]:
    for axis, key in zip("xyz", entry.get("stage_position_um", ()), strict=False):
        if key in stream:
            yield f"stage_{axis}_um", xr.Variable("event", stream[key], {"units": "um"})


def _settled(claims: Mapping[str, Mapping[str, xr.Variable | None]]) -> Iterator[tuple[str, xr.Variable]]:
    """Give what all images say as it is, and what they do not agree in as what each of them says."""
    for what, said in claims.items():
        known = {name: variable for name, variable in said.items() if variable is not None}
        first = next(iter(known.values()), None)
        if first is not None and len(known) == len(said) and all(map(first.equals, known.values())):
            yield what, first
        else:
            yield from ((f"{name}_{what}", variable) for name, variable in known.items())
