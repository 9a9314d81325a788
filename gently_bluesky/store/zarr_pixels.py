"""Reading the events of an OME-Zarr store of ours: any part of one, as it is asked for.

`ZarrPixels` is one event at one level, indexed as numpy arrays are; only chunks that are asked for are decoded,
side by side. A shard that is not there is an error; only of a volume that was given up it stands for frames that
never came.
"""

import contextlib
import itertools
import math
import operator
import os
import types
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import xxhash
from numpy.typing import NDArray

from gently_bluesky.errors import DamagedVolumeError, VolumeMissingError
from gently_bluesky.store import memory
from gently_bluesky.store.facts import Found, Geometry
from gently_bluesky.store.ngff import DTYPES, array, group, shard_path, unsealed
from gently_bluesky.store.pixels import ahead
from gently_bluesky.store.pyramid import Factors, Level
from gently_bluesky.store.shards import Grid, forget_shard, hold_shard, read_part
from gently_bluesky.store.strict_json import restored

_WORKERS = min(4, os.cpu_count() or 1)
_WORTH_THREADS = 4 << 20  # bytes that are decoded


class ZarrPixels:
    """The pixels of one event.

    Parameters
    ----------
    store
        The store's folder.
    index
        On its event axis, from 0.
    level
        Of the pyramid; 0 is the whole volume.
    partial
        Whether shards that are not there are zeros.

    Raises
    ------
    VolumeMissingError
        There is no such store or level, or it was not written here.
    """

    def __init__(self, store: Path, index: int, *, level: int = 0, partial: bool = False) -> None:
        self._store = store
        self._index = index
        self._level = level
        self._partial = partial
        self.geometry, self.grid, events = _array(store, level)
        if index >= events:
            raise VolumeMissingError(f"{store} holds {events} events; there is no event {index}.")
        self._depth = self.geometry.shape[-3] if len(self.geometry.shape) > 2 else 1

    @property
    def shape(self) -> tuple[int, ...]:
        """(z, y, x), (y, x) or (t, z, y, x)."""
        return self.geometry.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the pixels."""
        return self.geometry.dtype

    @property
    def ndim(self) -> int:
        """How many axes there are."""
        return len(self.shape)

    def __len__(self) -> int:
        return self.shape[0]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        return np.asarray(self[...], dtype)

    def __getitem__(self, index: Any) -> NDArray[Any]:
        """Give a part, in memory; numpy's basic indexing."""
        parts = _expanded(index if isinstance(index, tuple) else (index,), self.ndim)
        wanted = [_positions(part, size) for part, size in zip(parts, self.shape, strict=True)]
        shape = self.shape[:-2]
        planes = np.arange(math.prod(shape)).reshape(shape)[np.ix_(*wanted[:-2])].ravel()
        rows, columns = (_span(each) for each in wanted[-2:])
        block = np.empty((len(planes), len(rows), len(columns)), self.dtype)
        order = np.argsort(planes)
        self._read(planes[order].tolist(), rows, columns, block)
        if not np.array_equal(order, np.arange(len(order))):  # a step backwards
            block = block[np.argsort(order)]
        inner = (_within(wanted[-2], rows), _within(wanted[-1], columns))
        part = block[:, inner[0]][:, :, inner[1]].reshape(*map(len, wanted))
        return part[tuple(0 if not isinstance(each, slice) else slice(None) for each in parts)]

    def each_plane(self, first: int = 0) -> Iterator[NDArray[Any]]:
        """Give plane after plane (y, x) in C order, each good until the next one is asked for.

        They are decoded a shard at a time; what was read is dropped behind.
        """
        stacks = itertools.product(range(self.geometry.planes // self._depth), range(self.grid.shards))
        wanted = [key for key in stacks if key[0] * self._depth + self.grid.planes_of(key[1]).stop > first]
        for (stack, shard), block in zip(wanted, ahead(partial(self._shard, key) for key in wanted), strict=True):
            begin = stack * self._depth + self.grid.planes_of(shard).start
            yield from block[max(0, first - begin) :]
            memory.give_back(block)

    def _shard(self, key: tuple[int, int]) -> NDArray[Any]:
        """Decode all planes of one shard, into memory that was taken."""
        planes, path = self.grid.planes_of(key[1]), self.path_of(key)
        block = memory.take((len(planes), *self.grid.plane_shape), self.dtype)
        height, width = self.grid.plane_shape
        self._read([key[0] * self._depth + z for z in planes], range(height), range(width), block)
        if path.exists():
            forget_shard(path)
        return block

    def _read(self, planes: Sequence[int], rows: range, columns: range, block: NDArray[Any]) -> None:
        if block.size == 0:
            return
        chunks = math.prod(
            -(-len(each) // size) + 1 for each, size in zip((planes, rows, columns), self.grid.chunk, strict=True)
        )
        if chunks * math.prod(self.grid.chunk) * self.dtype.itemsize < _WORTH_THREADS:
            self._read_shards(planes, rows, columns, block, None)
            return
        with ThreadPoolExecutor(_WORKERS, "gently-decode") as pool:
            self._read_shards(planes, rows, columns, block, pool)

    def _read_shards(
        self,
        planes: Sequence[int],
        rows: range,
        columns: range,
        block: NDArray[Any],
        pool: ThreadPoolExecutor | None,
    ) -> None:
        done = 0
        for key, members in groupby(planes, self._key_of):
            first = key[0] * self._depth + key[1] * self.grid.shard_planes
            local = [plane - first for plane in members]
            path = self.path_of(key)
            part = block[done : done + len(local)]
            if self._partial and not path.exists():
                part[...] = 0
            else:
                read_part(self.grid, path, local, rows, columns, part, pool)
            done += len(local)

    def _key_of(self, plane: int) -> tuple[int, int]:
        stack, z = divmod(plane, self._depth)
        return stack, z // self.grid.shard_planes

    def path_of(self, key: tuple[int, int]) -> Path:
        """Give where a shard is, by its stack and its number along z."""
        return shard_path(self._store, self._level, self._index, self.geometry, key)

    def planes_there(self) -> list[bool]:
        """Give of each plane whether its shard is there."""
        shards = dict.fromkeys(map(self._key_of, range(self.geometry.planes)))
        there = {key: self.path_of(key).exists() for key in shards}
        return [there[self._key_of(plane)] for plane in range(self.geometry.planes)]

    def shards(self) -> list[Path]:
        """Give where all its shards are, or should be."""
        stacks = range(self.geometry.planes // self._depth)
        return [self.path_of((stack, shard)) for stack in stacks for shard in range(self.grid.shards)]


def _expanded(parts: tuple[Any, ...], ndim: int) -> list[int | slice]:
    dots = sum(part is Ellipsis for part in parts)
    if dots > 1 or len(parts) - dots > ndim:
        raise IndexError(f"too many indices: {len(parts)} for {ndim} axes")
    at = next((i for i, part in enumerate(parts) if isinstance(part, types.EllipsisType)), len(parts))
    missing = ndim - (len(parts) - dots)
    full = [*parts[:at], *[slice(None)] * missing, *parts[at + 1 :]]
    return [part if isinstance(part, slice) else operator.index(part) for part in full]


def _positions(part: int | slice, size: int) -> range:
    if isinstance(part, slice):
        return range(size)[part]
    if not -size <= part < size:
        raise IndexError(f"index {part} is out of bounds for axis with size {size}")
    return range(part % size, part % size + 1)


def _span(wanted: range) -> range:
    return range(min(wanted), max(wanted) + 1) if wanted else range(0)


def _within(wanted: range, span: range) -> slice | NDArray[np.intp]:
    if wanted == span:
        return slice(None)
    return np.array([at - span.start for at in wanted], np.intp)


# --- what a store says --------------------------------------------------------------------------------------


def _array(store: Path, number: int) -> tuple[Geometry, Grid, int]:
    """Read what the array of a level says: of one event, how it lies in shards, and how many events there are."""
    path = store / str(number) / "zarr.json"
    names = {name: kind for kind, name in DTYPES.items()}
    try:
        said = unsealed(path.read_bytes())
        events, *shape = said["shape"]
        dtype = np.dtype(names[said["data_type"]])
        blocks = [each["configuration"]["chunk_shape"] for each in (said["chunk_grid"], *said["codecs"])]
        shard, chunk = ([1, 1, *block[1:]][-3:] for block in blocks)
        stack = (shape[-3] if len(shape) > 2 else 1, shape[-2], shape[-1])
        grid = Grid(stack[0], stack[1:], dtype, (chunk[0], chunk[1], chunk[2]), shard[0])
        geometry = Geometry(tuple(shape), dtype)
        _hold(said == array(geometry, Level(stack, (1, 1, 1)), grid, events), "its shards or codecs are others")
    except FileNotFoundError as error:
        raise VolumeMissingError(f"{path} is not there: the store is gone, or was cut short.") from error
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise DamagedVolumeError(f"{path} was not written here, or is damaged ({error}).") from error
    return geometry, grid, events


def examine(store: Path, index: int) -> Found:
    """Read what a store of ours says of one event.

    Raises
    ------
    ValueError
        It was not written here, or its metadata are damaged.
    """
    try:
        said = told_of(store / "events" / f"{index:06d}")
        pixels = ZarrPixels(store, index)
        shape, dtype = tuple(said["shape"]), np.dtype(said["dtype"])
        same = (shape, dtype) == (pixels.shape, pixels.dtype)
        _hold(same, f"it says {shape} {dtype}, and its array {pixels.shape} {pixels.dtype}")
        there = pixels.planes_there()
        told = zip(said["frame_times"], there, strict=True)
        times = tuple(float(time) or 5e-324 if is_there and time is not None else 0.0 for time, is_there in told)
        return Found(
            format="ome-zarr",
            geometry=pixels.geometry,
            offset=None,
            times=times,
            run_uid=said["run_uid"],
            resource_uid=said["resource_uid"],
            data_key=said["data_key"],
            index=said["index"],
            voxel_size_um=tuple(said["metadata"].get("voxel_size_um", ())),
            metadata=said["metadata"],
            channel=said["metadata"].get("channel"),
        )
    except (OSError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise ValueError(
            f"event {index} of {store} was not written here, or its metadata are damaged ({error!r})"
        ) from error


def _hold(true: bool, otherwise: str) -> None:
    if not true:
        raise ValueError(otherwise)


def told_of(group: Path) -> dict[str, Any]:
    """Give what a group of a store of ours says; OSError, ValueError or KeyError if it is none, or has changed."""
    return dict(restored(unsealed((group / "zarr.json").read_bytes())["attributes"]["gently_bluesky"]))


def hold_store(store: Path, index: int, resource: str) -> None:
    """Hold what a store says of itself and of all its levels, of which an event needs the first alone.

    Raises
    ------
    ValueError
        A file of metadata is gone, has changed, or is that of another stream resource.
    """
    try:
        _hold(unsealed((store / "events" / "zarr.json").read_bytes()) == group({}), "events/zarr.json is another")
        said = told_of(store)
        whose = said["stream_resource_uid"]
        _hold(whose == resource, f"it says that it holds stream resource {whose}")
        for level in range(len(said["levels"])):
            ZarrPixels(store, index, level=level)
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{store} is damaged, or not the store that was written here ({error})") from error


def hold_pyramid(store: Path, index: int, *, partial: bool) -> None:
    """Hold the smaller levels of an event against their checksums; they are not decoded.

    Raises
    ------
    FileNotFoundError, ValueError
        Something is missing, or is not what was written.
    """
    marks: dict[str, str] = {}
    with contextlib.suppress(
        OSError, KeyError, TypeError, ValueError
    ):  # damage of that file is found by `examine`
        marks = told_of(store / "events" / f"{index:06d}").get("shards", {})
    levels = sum(path.name.isdecimal() for path in store.iterdir())
    for level in range(1, levels):
        pixels = ZarrPixels(store, index, level=level)
        for shard in pixels.shards():
            if shard.exists() or not partial:
                hold_shard(pixels.grid, shard, marks.get(shard.relative_to(store).as_posix()))


def shards_there(store: Path, index: int) -> tuple[list[Path], list[Path]]:
    """Give the shards of an event that exist: of the first level, and of the others."""
    first: list[Path] = []
    others: list[Path] = []
    for path in store.glob(f"*/c/{index}/**/*"):
        if path.is_file():
            (first if path.is_relative_to(store / "0") else others).append(path)
    return first, others


def strangers_in(store: Path, indices: Collection[int]) -> Iterator[Path]:
    """Give what lies in a store and is no part of it or of these events; of folders, only themselves."""
    for path in sorted(store.iterdir()):
        known = {"zarr.json"}
        if path.name == "events":
            known |= {f"{index:06d}" for index in indices}
        elif path.name.isdecimal() and path.is_dir():
            known.add("c")
            chunks = {str(index) for index in indices}
            yield from (each for each in sorted(path.glob("c/*")) if each.name not in chunks)
        elif path.name != "zarr.json":
            yield path
            continue
        yield from (each for each in sorted(path.glob("*")) if each.name not in known)


def pyramid_of(store: Path) -> tuple[Factors, ...]:
    """Give by how much each level of a store is smaller than its first one, that one first.

    Raises
    ------
    VolumeMissingError
        There is no such store.
    DamagedVolumeError
        It was not written here, or its metadata is damaged.
    """
    path = store / "zarr.json"
    try:
        levels = told_of(store)["levels"]
        return tuple((int(z), int(y), int(x)) for z, y, x in levels)
    except FileNotFoundError as error:
        raise VolumeMissingError(f"{path} is not there: the store is gone, or was cut short.") from error
    except (ValueError, KeyError, TypeError) as error:
        raise DamagedVolumeError(f"{path} was not written here, or is damaged ({error!r}).") from error


def events_of(store: Path) -> list[int]:
    """Give the events that a store has, by their metadata."""
    names = (path.parent.name for path in store.glob("events/*/zarr.json"))
    return sorted(int(name) for name in names if name.isdecimal())


def pixel_hash(store: Path, index: int, *, partial: bool) -> str:
    """Give the xxh3-128 of an event's pixels in C order, in hexadecimal; raises as reading does."""
    digest = xxhash.xxh3_128()
    for plane in ZarrPixels(store, index, partial=partial).each_plane():
        digest.update(np.ascontiguousarray(plane).data)
    return digest.hexdigest()
