"""The metadata of an OME-Zarr store: groups and arrays of Zarr v3, multiscales of OME-Zarr 0.5.

Knows the two specifications; knows nothing of files. The event axis is NGFF's time axis, without a unit: events
are not evenly spaced, and their times are in the metadata of each volume.

Source: Zarr core specification 3.0; OME-Zarr (NGFF) 0.5, sections 2.2 (axes), 2.4 (multiscales).
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xxhash

from gently_bluesky.store.facts import Geometry
from gently_bluesky.store.pyramid import Level
from gently_bluesky.store.shards import Grid, codecs

_SUM = "xxh3_64"

_AXES = {2: ("y", "x"), 3: ("z", "y", "x"), 4: ("frame", "z", "y", "x")}
"""By the number of axes of a volume; "frame" is of a kind of its own."""

_KINDS = {"frame": {}, "c": {"type": "channel"}}
"""What there is in front of space."""

DTYPES = {
    "b1": "bool",
    **{
        f"{kind}{size}": f"{name}{8 * size}"
        for kind, name in (("i", "int"), ("u", "uint"))
        for size in (1, 2, 4, 8)
    },
    **{f"f{size}": f"float{8 * size}" for size in (2, 4, 8)},
    **{f"c{size}": f"complex{8 * size}" for size in (8, 16)},
}
"""Zarr's name of each numpy type that it has."""


def can_store(geometry: Geometry) -> bool:
    """Whether OME-Zarr takes a series of such arrays: (y, x), (z, y, x) or (t, z, y, x) of a type that it has."""
    return len(geometry.shape) in _AXES and geometry.dtype.str[1:] in DTYPES


def sealed(metadata: Mapping[str, Any]) -> bytes:
    """Give metadata as they are stored: with a checksum of themselves among their attributes."""
    digest = xxhash.xxh3_64_hexdigest(_json(metadata))
    return _json({**metadata, "attributes": {**metadata["attributes"], _SUM: digest}})


def _json(metadata: Mapping[str, Any]) -> bytes:
    text = json.dumps(metadata, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return text.encode(errors="replace")  # a lone surrogate has no UTF-8, and no other parser takes it escaped


def unsealed(content: bytes) -> dict[str, Any]:
    """Give what `sealed` was given.

    Raises
    ------
    ValueError
        Somebody else wrote it, or it has changed since.
    """
    try:
        metadata: dict[str, Any] = json.loads(content)
        del metadata["attributes"][_SUM]
        if sealed(metadata) == content:
            return metadata
    except (KeyError, TypeError) as error:
        raise ValueError(f"it holds no checksum of itself ({error!r})") from error
    raise ValueError("it is not what its checksum says")


def group(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Give the metadata of a group."""
    return {"zarr_format": 3, "node_type": "group", "attributes": dict(attributes)}


def array(
    geometry: Geometry, level: Level, grid: Grid, events: int, *, axes: Sequence[str] = ()
) -> dict[str, Any]:
    """Give the metadata of one level: all its events, in shards of one event; `axes` as `multiscales` has them."""
    inner = inner_shape(geometry, level.shape)
    shard, chunk = (
        [1, *[1] * len(geometry.shape[:-3]), *each[-len(geometry.shape) :]]
        for each in (grid.shard_shape, grid.chunk)
    )
    (sharding,) = codecs(grid)
    sharding["configuration"]["chunk_shape"] = chunk
    zero = {"b": False, "f": 0.0, "c": [0.0, 0.0]}.get(geometry.dtype.kind, 0)
    return {
        "zarr_format": 3,
        "node_type": "array",
        "shape": [events, *inner],
        "data_type": DTYPES[geometry.dtype.str[1:]],
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": shard}},
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
        "fill_value": zero,
        "codecs": [sharding],
        "dimension_names": ["t", *(axes or _AXES[len(inner)])],
        "attributes": {},
    }


def inner_shape(geometry: Geometry, level: tuple[int, int, int]) -> tuple[int, ...]:
    """Give the shape of one event of a level whose stacks are (z, y, x)."""
    return (*geometry.shape[:-3], *level[-len(geometry.shape) :])


def multiscales(
    name: str,
    geometry: Geometry,
    levels: Sequence[Level],
    voxel_um: Sequence[float],
    *,
    axes: Sequence[str] = (),
    interval_s: float | None = None,
) -> dict[str, Any]:
    """Give the `ome` attribute of the root group.

    Parameters
    ----------
    name
        Of the image: its data key.
    geometry, levels
        Of one volume.
    voxel_um
        Spacing along (z, y, x), or (y, x), in micrometer; empty if it is not known, or not the same for all.
    axes
        Names of the axes of one event; ("c", "z", "y", "x") where it is several channels.
    interval_s
        From one event to the next; without it time has no unit.
    """
    names = axes or _AXES[len(geometry.shape)]
    known = voxel_um if len(voxel_um) == min(len(names), 3) and all(0 < each < np.inf for each in voxel_um) else ()
    unit = {"unit": "micrometer"} if known else {}
    seconds = {"unit": "second"} if interval_s else {}
    said: list[dict[str, Any]] = [{"name": "t", "type": "time"} | seconds]
    said += [{"name": each} | _KINDS.get(each, {"type": "space"} | unit) for each in names]
    spacing = np.array([*known] or [1.0] * min(len(names), 3))
    lead = [interval_s or 1.0] + [1.0] * (len(names) - len(spacing))
    datasets = []
    for number, level in enumerate(levels):
        factors = np.array(level.factors[-len(spacing) :])
        moves: list[dict[str, Any]] = [{"type": "scale", "scale": [*lead, *(spacing * factors).tolist()]}]
        if number:  # the middle of a larger voxel lies further in
            shift = [0.0] * len(lead) + (spacing * (factors - 1) / 2).tolist()
            moves.append({"type": "translation", "translation": shift})
        datasets.append({"path": str(number), "coordinateTransformations": moves})
    return {
        "version": "0.5",
        "multiscales": [{"name": name, "axes": said, "datasets": datasets, "type": "mean"}],
    }


def shard_path(store: Path, level: int, index: int, geometry: Geometry, key: tuple[int, int]) -> Path:
    """Give where a shard is: of an event, its stack (in C order of what comes before z), and shard along z."""
    stack, shard = key
    outer = np.unravel_index(stack, geometry.shape[:-3]) if len(geometry.shape) > 3 else ()
    along_z = [shard] if len(geometry.shape) > 2 else []
    return store.joinpath(str(level), "c", str(index), *map(str, outer), *map(str, along_z), "0", "0")
