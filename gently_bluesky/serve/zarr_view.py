"""A series as a read-only OME-Zarr 0.5 store: every form that is stored, a volume that is still growing included.

    zarr.json                      multiscales, and which run, stream and data key
    0/zarr.json, 1/zarr.json       levels, (event, z, y, x), a plane a chunk, as it is or averaged
    0/c/<event>/<z>/0/0
    s0/zarr.json, s1/zarr.json     instead, where all volumes lie in OME-Zarr alone: their shards as they lie
    s0/c/<event>/<shard>/0/0

The event axis is that of the series: what is not good, or was removed, is an error there, and never zeros. Frames
that have not come are chunks that are not there. A client that opened the one kind while it became the other hears
that this is gone. Makes bytes; knows no HTTP.

Source: Zarr core specification 3.0; OME-Zarr 0.5.
"""

import re
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gently_bluesky.errors import GeometryError, NotHereError, VolumeMissingError
from gently_bluesky.read.assets import Pixels
from gently_bluesky.read.images import ImageSeries
from gently_bluesky.read.run import Run
from gently_bluesky.serve.cutting import identity_of
from gently_bluesky.serve.growing import Growing, next_of
from gently_bluesky.store.facts import Geometry
from gently_bluesky.store.ngff import DTYPES, can_store, group, inner_shape, multiscales
from gently_bluesky.store.ngff import array as sharded_array
from gently_bluesky.store.pyramid import Factors, Level, halved, halved_shape, levels_of, step_between
from gently_bluesky.store.streams import VolumeRef
from gently_bluesky.store.strict_json import encode
from gently_bluesky.store.zarr_pixels import ZarrPixels

_CHUNK = re.compile(r"(s?)(\d{1,2})/c/(\d{1,9}(?:/\d{1,9}){2,4})", re.ASCII)
_ARRAY = re.compile(r"(s?)(\d{1,2})/zarr\.json", re.ASCII)


@dataclass(frozen=True, slots=True)
class Blob:
    """What is at a path of the store.

    Attributes
    ----------
    content
        Its bytes: in memory, or mapped.
    identity
        What they are, whenever they are read; None if they may change.
    is_metadata
        Whether it is JSON.
    """

    content: NDArray[np.uint8]
    identity: tuple[object, ...] | None = None
    is_metadata: bool = False


class ZarrView:
    """A series as a store; `get` gives what is at a path.

    Raises
    ------
    GeometryError
        OME-Zarr has no such arrays, or the volumes differ in shape.
    """

    def __init__(self, run: Run, series: ImageSeries) -> None:
        self._run = run
        self._series = series
        self.is_open = run.is_open
        self._factors: tuple[Factors, ...] = ()
        self._stores: set[str] = set()
        self._geometry = Geometry(series.shape[1:], series.dtype.newbyteorder("<"))
        if not can_store(self._geometry):
            raise GeometryError(
                f"OME-Zarr has no arrays {self._geometry.shape} {series.dtype}; the route pixels gives them."
            )
        self._depth = self._geometry.shape[-3] if len(self._geometry.shape) > 2 else 1
        self._voxel_um = _voxels(series)
        self._stored = self._one_grid()
        self._kind = "s" if self._stored else ""
        stack = (self._depth, *self._geometry.shape[-2:])
        self._levels: list[Level] = (
            [Level(*each) for each in self._stored_levels()]
            if self._stored
            else levels_of((stack[0], stack[1], stack[2]), self._geometry.dtype, self._voxel_um)
        )

    def _one_grid(self) -> list[ZarrPixels]:
        """Give the levels of the store, if all volumes lie in OME-Zarr alone, in shards of one kind."""
        found: list[ZarrPixels] = []
        for event in range(len(self._series)):
            entry = self._series.entry(event)
            if entry is None or entry.format != "ome-zarr" or entry.state == "removed":
                return []
            if entry.path in self._stores:
                continue
            store = self._run.folder / entry.path
            factors = self._run.assets.pyramid(VolumeRef(entry.resource, entry.index or 0)) or ((1, 1, 1),)
            levels = [ZarrPixels(store, entry.index or 0, level=level) for level in range(len(factors))]
            if found and [each.grid for each in levels] != [each.grid for each in found]:
                return []
            self._factors, found = factors, levels
            self._stores.add(entry.path)
        return found

    def _stored_levels(self) -> list[tuple[tuple[int, int, int], Factors]]:
        shapes = [each.grid for each in self._stored]
        return [((g.planes, *g.plane_shape), f) for g, f in zip(shapes, self._factors, strict=True)]

    # --- what is at a path ----------------------------------------------------------------------------------

    def get(self, path: str) -> Blob:
        """Give what is at a path of the store.

        Raises
        ------
        NotHereError
            Nothing is there, or not yet.
        BadVolumeError, VolumeMissingError
            The volume is not good, or was removed.
        """
        if path == "zarr.json":
            return self._json(self._group())
        if found := _ARRAY.fullmatch(path):
            return self._json(self._array(self._level(found[1], int(found[2]))))
        if found := _CHUNK.fullmatch(path):
            numbers = [int(number) for number in found[3].split("/")]
            return self._chunk(self._level(found[1], int(found[2])), numbers[0], numbers[1:])
        raise NotHereError("There is nothing at this place of the store.", available=["zarr.json", "0/zarr.json"])

    def _level(self, kind: str, level: int) -> int:
        if kind != self._kind:
            raise VolumeMissingError(
                "The volumes of this store lie in another form now, or do for the first time. Open it again."
            )
        if level >= len(self._levels):
            raise NotHereError(f"There is no level {level}.", available={"level": list(range(len(self._levels)))})
        return level

    def _json(self, metadata: dict[str, Any]) -> Blob:
        return Blob(np.frombuffer(encode(metadata), np.uint8), is_metadata=True)

    def _group(self) -> dict[str, Any]:
        series = self._series
        ome = multiscales(series.data_key, self._geometry, self._levels, self._voxel_um)
        for dataset in ome["multiscales"][0]["datasets"]:
            dataset["path"] = self._kind + dataset["path"]
        home = {"run_uid": series.run_uid, "stream": series.stream, "data_key": series.data_key}
        return group({"ome": ome, "gently_bluesky": home})

    def _array(self, level: int) -> dict[str, Any]:
        events = len(self._series) + (self._next() is not None)
        if self._stored:
            return sharded_array(self._geometry, self._levels[level], self._stored[level].grid, events)
        dtype, inner = self._geometry.dtype, inner_shape(self._geometry, self._levels[level].shape)
        order = {"endian": "little"} if dtype.itemsize > 1 else {}
        return {
            "zarr_format": 3,
            "node_type": "array",
            "shape": [events, *inner],
            "data_type": DTYPES[dtype.str[1:]],
            "chunk_grid": {
                "name": "regular",
                "configuration": {"chunk_shape": [*[1] * (len(inner) - 1), *inner[-2:]]},
            },
            "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
            "fill_value": {"b": False, "f": 0.0, "c": [0.0, 0.0]}.get(dtype.kind, 0),
            "codecs": [{"name": "bytes", "configuration": order} if order else {"name": "bytes"}],
            "dimension_names": ["t", *({4: ["frame"]}.get(len(inner), [])), *"zyx"[-min(len(inner), 3) :]],
            "attributes": {},
        }

    def _next(self) -> Growing | VolumeRef | None:
        return next_of(self._run, self._series)

    # --- chunks ---------------------------------------------------------------------------------------------

    def _chunk(self, level: int, event: int, place: list[int]) -> Blob:
        outer = place[:-2]  # (z), or (t, z), or nothing
        shape = self._levels[level].shape
        together = self._stored[level].grid.shard_planes if self._stored else 1
        counts = (*self._geometry.shape[:-3], -(-shape[0] // together))[: len(self._geometry.shape) - 2]
        inside = len(outer) == len(counts) and all(at < most for at, most in zip(outer, counts, strict=True))
        if not inside or place[-2:] != [0, 0]:
            raise NotHereError("There is no such chunk.")
        stack, z = divmod(int(np.ravel_multi_index(tuple(outer), counts)), counts[-1]) if outer else (0, 0)
        if event < len(self._series):
            if self._stored:
                return self._shard_of_event(level, event, (stack, z))
            pixels = self._series.lazy(event)
            known = identity_of(self._series, event)
            return Blob(_bytes(self._plane(pixels, level, outer)), known and (*known, "plane", level, *outer))
        return self._of_next(level, event, outer, (stack, z))

    def _shard_of_event(self, level: int, event: int, key: tuple[int, int]) -> Blob:
        self._series.check(event)
        self._series.lazy(event)
        entry = self._series.entry(event)
        if entry is None:
            raise NotHereError("There is no such chunk.")
        pixels = ZarrPixels(self._run.folder / entry.path, entry.index or 0, level=level)
        return Blob(self._file(pixels, key), (entry.resource, entry.index, entry.xxh3_128, "shard", level, *key))

    def _of_next(self, level: int, event: int, outer: list[int], key: tuple[int, int]) -> Blob:
        after = self._next() if event == len(self._series) else None
        if after is None:
            raise NotHereError(f"There is no event {event}; there are {len(self._series)}, counted from 0.")
        if self._stored:
            entry = self._run.assets.entry(after) if isinstance(after, VolumeRef) else None
            path = after.path if isinstance(after, Growing) else self._run.folder / entry.path if entry else None
            if path is None or path.name not in self._stores:
                raise NotHereError("There is no such chunk yet.")
            return Blob(self._file(ZarrPixels(path, after.index, level=level), key, growing=True))
        if isinstance(after, VolumeRef):
            pixels = self._run.assets.volume(after, {})
        else:
            pixels = after.pixels()
            there = after.frames_there.reshape(self._geometry.shape[:-2])
            if not np.all(there[self._planes(level, outer)]):
                raise NotHereError("Frames of this chunk have not come yet.")
        return Blob(_bytes(self._plane(pixels, level, outer)))

    def _file(self, pixels: ZarrPixels, key: tuple[int, int], *, growing: bool = False) -> NDArray[np.uint8]:
        path = pixels.path_of(key)
        if not path.resolve().is_relative_to(self._run.folder.resolve()):
            raise VolumeMissingError("A shard is a link, and leads out of the run's folder.")
        try:
            return np.memmap(path, np.uint8, "r")
        except (OSError, ValueError) as error:
            if growing:
                raise NotHereError("Frames of this chunk have not come yet.") from error
            raise VolumeMissingError(f"A shard of {self._series.data_key} is not there: {error}") from error

    def _planes(self, level: int, outer: list[int]) -> tuple[int | slice, ...]:
        """Give which planes of the whole volume one plane of a level is made of."""
        if not outer:
            return ()
        by_z = self._levels[level].factors[0]
        return (*outer[:-1], slice(outer[-1] * by_z, min((outer[-1] + 1) * by_z, self._depth)))

    def _plane(self, pixels: Pixels, level: int, outer: list[int]) -> NDArray[Any]:
        """Give one plane of a level: the mean of the planes that it is made of, as a stored pyramid has it."""
        if level == 0:
            return np.asarray(pixels[tuple(outer)])
        block = np.asarray(pixels[self._planes(level, outer)]).reshape(-1, *self._geometry.shape[-2:])
        for one, other in zip(self._levels[:level], self._levels[1:], strict=False):
            step = step_between(one, other)
            small = np.empty(halved_shape(block.shape, step), block.dtype)
            halved(block, step, small)
            block = small
        plane: NDArray[Any] = block[0]
        return plane


def _bytes(plane: NDArray[Any]) -> NDArray[np.uint8]:
    plane = np.ascontiguousarray(plane, plane.dtype.newbyteorder("<"))
    return plane.reshape(-1).view(np.uint8)


def _voxels(series: ImageSeries) -> tuple[float, ...]:
    try:
        return series.voxel_size_um or ()
    except GeometryError:  # they changed: no spacing stands for all events
        return ()
