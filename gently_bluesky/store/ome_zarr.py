"""OME-Zarr stores: one a stream resource, its event axis first, a volume appended without rewriting any other.

    <key>.ome.zarr/
      zarr.json                    group: multiscales, and where it belongs
      0/zarr.json, 1/zarr.json     arrays (event, z, y, x), a level each
      0/c/<event>/<z>/0/0          shards: whole planes of one event, complete and durable when they get their name
      events/<event>/zarr.json     group whose attributes say everything of one volume: frame times, positions ...

Frames gather in memory until a shard is full; then it is compressed beside the acquisition. At most four shards of
a volume are in memory, and their room on the disk is reserved before the first frame. What was never written is
zeros for other programs; here it is an error.
"""

import json
import math
import shutil
import threading
from collections import deque
from collections.abc import Iterator, Mapping
from concurrent.futures import Executor, Future
from dataclasses import asdict
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from gently_bluesky.errors import FrameError
from gently_bluesky.store import memory, ngff
from gently_bluesky.store.disk import (
    Claim,
    Reservation,
    claim_nothing,
    create_file,
    forget_pages,
    replace_file,
    sync_folder,
)
from gently_bluesky.store.facts import EventFacts, FrameTimes, Geometry, VolumeFacts
from gently_bluesky.store.layout import file_uri
from gently_bluesky.store.pyramid import Level, halved, halved_shape, levels_by, levels_of, step_between
from gently_bluesky.store.shards import Grid, encode_shard, mark_of
from gently_bluesky.store.strict_json import plain
from gently_bluesky.store.zarr_pixels import ZarrPixels

SHARDS_IN_MEMORY = 4
"""Of one volume, at most: one that fills, the others on their way to the disk."""

_METADATA_BYTES, _PLANE_BYTES = 1 << 16, 128  # what is said of an event and of each of its frames, at most


class OmeZarrSeries:
    """All volumes of one stream resource, in one store."""

    mimetype = "application/x-zarr"

    def __init__(self, folder: Path, geometry: Geometry) -> None:
        self.folder = folder
        self.geometry = geometry
        self.depth = geometry.shape[-3] if len(geometry.shape) > 2 else 1
        self.levels: list[Level] = []
        self.grids: list[Grid] = []
        self._voxel_um: tuple[float, ...] = ()
        self._events = 0
        self._described = False
        self._lock = threading.Lock()
        if (folder / "zarr.json").exists():
            self._go_on()

    def _go_on(self) -> None:
        """Take up a store that is there."""
        home = json.loads((self.folder / "zarr.json").read_bytes())["attributes"]["gently_bluesky"]
        self._voxel_um, self._described = tuple(home["voxel_size_um"]), True
        self._events = json.loads((self.folder / "0" / "zarr.json").read_bytes())["shape"][0]
        self._have_levels(levels_by((self.depth, *self._plane_shape), [tuple(each) for each in home["levels"]]))

    def _have_levels(self, levels: list[Level]) -> None:
        self.levels = levels
        self.grids = [self._grid(level.shape) for level in levels]

    def take_back(self, index: int) -> None:
        """Remove what there is of an event that nobody names; the last one is then as if it had never come."""
        said = self.folder / "events" / f"{index:06d}"
        if self.levels and index == self._events - 1 and said.exists():
            there = (int(path.name) for path in self.folder.glob("events/*") if path != said and path.is_dir())
            self._events = max(there, default=-1) + 1
            self._say_events()
        for folder in (*self.folder.glob(f"*/c/{index}"), self.folder / "events" / f"{index:06d}"):
            shutil.rmtree(folder, ignore_errors=True)
        for file in self.folder.glob(".*.new"):
            file.unlink()

    @property
    def uri(self) -> str:
        """Where the array of all events is."""
        return file_uri(self.folder / "0")

    @property
    def parameters(self) -> dict[str, Any]:
        """What Tiled's consolidators need: a shard a chunk, events stacked."""
        grid = self._grid((self.depth, *self._plane_shape))
        outer = [1] * len(self.geometry.shape[:-3])
        shard = (min(grid.shard_planes, self.depth), *self._plane_shape)[-len(self.geometry.shape) :]
        return {"chunk_shape": [1, *outer, *shard], "join_method": "stack"}

    @property
    def _plane_shape(self) -> tuple[int, int]:
        height, width = self.geometry.plane_shape
        return height, width

    def _grid(self, shape: tuple[int, int, int]) -> Grid:
        return Grid.of(shape[0], shape[1:], self.geometry.dtype)

    def create(
        self, index: int, facts: VolumeFacts, claim: Claim = claim_nothing, *, salvageable: bool = True
    ) -> "OmeZarrVolume":
        """Let the store have one more event, its room reserved.

        Shards are told of as they come; not where nobody would salvage them, `salvageable=False`.
        """
        with self._lock:
            voxel = tuple(map(float, facts.metadata.get("voxel_size_um", ())))
            if not self.levels:
                self._have_levels(levels_of((self.depth, *self._plane_shape), self.geometry.dtype, voxel))
            stacks = math.prod(self.geometry.shape[:-3])
            room = stacks * sum(grid.most_bytes for grid in self.grids)
            room += _METADATA_BYTES + _PLANE_BYTES * self.geometry.planes
            claim(self.folder, room)
            reservation = Reservation(self.folder / f".{index:06d}.room.new", room)
            try:
                self._appear(index, facts, voxel)
                return OmeZarrVolume(self, index, facts, reservation, salvageable)
            except BaseException:
                reservation.release()
                raise

    def _appear(self, index: int, facts: VolumeFacts, voxel: tuple[float, ...]) -> None:
        first = not self._described
        if index >= self._events:
            self._events = index + 1
            self._say_events()
        if first:
            self.say("events/zarr.json", ngff.group({}))
        if first or (voxel != self._voxel_um and self._voxel_um):
            # one spacing stands for all events, or none does
            common = voxel if first else ()
            ome = ngff.multiscales(facts.data_key, self.geometry, self.levels, common)
            home = {
                "run_uid": facts.run_uid,
                "stream_resource_uid": facts.resource_uid,
                "data_key": facts.data_key,
                "voxel_size_um": list(common),
                "levels": [list(level.factors) for level in self.levels],
                "run": dict(facts.run),
            }
            self.say("zarr.json", ngff.group({"ome": ome, "gently_bluesky": plain(home)}))
            self._described, self._voxel_um = True, common  # else the next event says it

    def _say_events(self) -> None:
        for number in reversed(range(len(self.levels))):
            metadata = ngff.array(self.geometry, self.levels[number], self.grids[number], self._events)
            self.say(f"{number}/zarr.json", metadata)  # the level that says how many there are comes last

    def say(self, name: str, metadata: Mapping[str, Any]) -> None:
        """Write or replace a file of metadata; documents rely on the old one until the new one is there."""
        replace_file(self.folder / name, ngff.sealed(metadata), self.folder / f".{name.replace('/', '-')}.new")


class _Filling:
    """A shard whose planes come."""

    def __init__(self, grid: Grid, planes: range) -> None:
        most = min(grid.shard_planes, grid.planes)  # the last of a volume has fewer, and the same memory
        self.block = memory.take((most, *grid.plane_shape), grid.dtype)[: len(planes)]
        self.planes = planes
        self.there = np.zeros(len(planes), bool)


class OmeZarrVolume:
    """One event of a store while it is being written."""

    format: ClassVar[str] = "ome-zarr"

    def __init__(
        self, series: OmeZarrSeries, index: int, facts: VolumeFacts, reservation: Reservation, salvageable: bool
    ) -> None:
        self.path = series.folder
        self._series = series
        self._index = index
        self._facts = facts
        self._reservation = reservation
        self._salvageable = salvageable
        self._filling: list[dict[tuple[int, int], _Filling]] = [{} for _ in series.levels]
        self._pending: deque[Future[None]] = deque()
        self._times: list[float | None] = [None] * series.geometry.planes
        self._stored: set[int] = set()
        self._bytes = 0
        self._folders = {self.path / str(level) for level in range(len(series.levels))}
        self._folders |= {self.path, self.path / "events"}
        self._shards: list[Path] = []
        self._marks: dict[str, str] = {}
        self._told: dict[str, Any] = {}
        self._lock = threading.Lock()
        self._flushed = False
        self._tell(None)

    @property
    def manifest(self) -> Mapping[str, Any]:
        """How many bytes the first level takes."""
        return {"stored_bytes": self._bytes}

    # --- frames ---------------------------------------------------------------------------------------------

    def write(self, plane: int, data: memoryview, time: float, pool: Executor) -> None:
        """Keep one plane until its shard is full; `pool` compresses and stores that."""
        series, grid = self._series, self._series.grids[0]
        stack, z = divmod(plane, series.depth)
        key = stack, z // grid.shard_planes
        filling = self._filling[0].get(key)
        if filling is None:
            self._make_room(plane)
            filling = self._filling[0][key] = _Filling(grid, grid.planes_of(key[1]))
        place = z - filling.planes.start
        filling.block[place] = np.frombuffer(data, grid.dtype).reshape(grid.plane_shape)
        filling.there[place] = True
        self._times[plane] = time
        if filling.there.all():
            del self._filling[0][key]
            self._submit(pool, key, filling)

    def _make_room(self, plane: int) -> None:
        while self._pending and (
            self._pending[0].done() or len(self._pending) + len(self._filling[0]) >= SHARDS_IN_MEMORY
        ):
            self._pending.popleft().result()
        smaller = max(map(len, self._filling[1:]), default=0)
        if len(self._filling[0]) >= SHARDS_IN_MEMORY or smaller >= 2 * SHARDS_IN_MEMORY:
            raise FrameError(
                f"Frame {plane} of event {self._index} in {self.path} would be kept beside {SHARDS_IN_MEMORY} "
                "shards that are not full: frames come too far out of order for OME-Zarr. A shard has "
                f"{self._series.grids[0].shard_planes} planes. Write OME-TIFF, or bring frames in order."
            )

    def _submit(self, pool: Executor | None, key: tuple[int, int], filling: _Filling) -> None:
        if pool is not None:
            try:
                self._pending.append(pool.submit(self._store_first, key, filling))
            except RuntimeError:  # the interpreter is ending
                pool = None
        if pool is None:
            self._store_first(key, filling)

    def _store_first(self, key: tuple[int, int], filling: _Filling) -> None:
        if self._salvageable:
            first = key[0] * self._series.depth
            with (
                self._lock
            ):  # before the shard has its name: a frame is there if it is told of and its shard is there
                self._stored |= {
                    first + z for z, there in zip(filling.planes, filling.there, strict=True) if there
                }
                self._tell(None)
        self._store(0, key, filling)

    def _store(self, level: int, key: tuple[int, int], filling: _Filling) -> None:
        """Write one shard, and what it is for the next level."""
        filling.block[~filling.there] = 0
        try:
            self._put(level, key, filling.block)
            if level + 1 < len(self._series.levels):
                step = step_between(self._series.levels[level], self._series.levels[level + 1])
                small = memory.take(halved_shape(filling.block.shape, step), filling.block.dtype)
                try:
                    halved(filling.block, step, small)
                    self._deposit(level + 1, key[0], filling.planes.start // step[0], small)
                finally:
                    memory.give_back(small)
        finally:
            memory.give_back(filling.block)

    def _put(self, level: int, key: tuple[int, int], block: NDArray[Any]) -> None:
        pieces = encode_shard(self._series.grids[level], block)
        nbytes = sum(map(len, pieces))
        path = self._shard_path(level, key)
        with self._lock:
            self._marks[path.relative_to(self.path).as_posix()] = mark_of(pieces)
            self._reservation.shrink(nbytes)
            self._folders |= {each for each in path.parents if each.is_relative_to(self.path)}
            self._shards.append(path)
        create_file(path, pieces, self.path / f".{self._index:06d}-{level}-{key[0]}-{key[1]}.new")
        with self._lock:
            self._bytes += nbytes if level == 0 else 0

    def _deposit(self, level: int, stack: int, first: int, block: NDArray[Any]) -> None:
        grid = self._series.grids[level]
        full = []
        with self._lock:
            while len(block):
                key = stack, first // grid.shard_planes
                planes = grid.planes_of(key[1])
                filling = self._filling[level].get(key)
                if filling is None:
                    filling = _Filling(grid, planes)
                    self._filling[level][key] = filling
                part = slice(first - planes.start, min(first - planes.start + len(block), len(planes)))
                size = part.stop - part.start
                filling.block[part], filling.there[part] = block[:size], True
                block, first = block[size:], first + size
                if filling.there.all():
                    full.append((key, self._filling[level].pop(key)))
        for key, filling in full:
            self._store(level, key, filling)

    def _shard_path(self, level: int, key: tuple[int, int]) -> Path:
        return ngff.shard_path(self.path, level, self._index, self._series.geometry, key)

    # --- the end --------------------------------------------------------------------------------------------

    def flush(self) -> None:
        """Store what has come, whole shards or not; planes that never came are zeros."""
        for key, filling in list(self._filling[0].items()):
            del self._filling[0][key]
            self._submit(None, key, filling)
        while self._pending:
            self._pending.popleft().result()
        for level in range(1, len(self._filling)):
            for key, filling in list(self._filling[level].items()):
                del self._filling[level][key]
                self._store(level, key, filling)
        self._reservation.release()

    def planes(self, first: int) -> Iterator[NDArray[Any]]:
        """Read planes back, from one on."""
        self.flush()
        yield from ZarrPixels(self.path, self._index).each_plane(first)

    def complete(self, times: FrameTimes, event: EventFacts | None, *, durable: bool) -> None:
        """Store what is left, and say everything that is known of the event."""
        if not self._flushed:
            self.flush()
            self._flushed = True
        self._times = list(times)
        self._stored = {plane for plane, time in enumerate(times) if time is not None}
        self._tell(event)
        if durable:
            self._sync()

    def _tell(self, event: EventFacts | None) -> None:
        said = asdict(self._facts)
        said |= {
            "shape": list(self._series.geometry.shape),
            "dtype": self._series.geometry.dtype.str,
            "frame_times": [time if plane in self._stored else None for plane, time in enumerate(self._times)],
            "shards": dict(sorted(self._marks.items())),
        }
        if event is not None:
            said["event"] = asdict(event)
        metadata = ngff.group({"gently_bluesky": plain(said, f"event {self._index} of {self.path}")})
        if metadata != self._told:
            self._series.say(f"events/{self._index:06d}/zarr.json", metadata)
            self._told = metadata
            self._folders.add(self.path / "events" / f"{self._index:06d}")

    def _sync(self) -> None:
        """Make names durable; what is in the files is."""
        folders, self._folders = self._folders, set()
        for folder in folders:
            sync_folder(folder)

    def forget(self) -> None:
        """Let the page cache drop it."""
        for path in self._shards:
            forget_pages(path)

    def close(self) -> None:
        """Let go of what is still in memory, and of the room."""
        while self._pending:
            self._pending.popleft().exception()
        for filling in self._filling:
            filling.clear()
        self._reservation.release()
