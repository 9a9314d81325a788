"""One OME-Zarr 0.5 of a whole time-lapse, T, C, Z, Y, X, assembled of many events.

Chunks, shards, levels and compression are those of the stores that are written while data are taken; axes are as
viewers know them, with units, and omero's names and ranges of channels. Intervals are never quite even: when each
volume was taken is in the attribute ``gently_bluesky``, with what else the documents said.

Source: OME-Zarr (NGFF) 0.5, sections 2.4 (multiscales) and 2.5 (omero).
"""

import math
from collections import deque
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from gently_bluesky.errors import ExportError
from gently_bluesky.exchange.export_grid import Grid, grids_of
from gently_bluesky.exchange.export_target import Progress, Staging, staged
from gently_bluesky.exchange.own import HOME, said_of
from gently_bluesky.exchange.selection import Selection
from gently_bluesky.store import ngff, shards
from gently_bluesky.store.facts import Geometry
from gently_bluesky.store.ngff import shard_path
from gently_bluesky.store.pyramid import Level, halved, halved_shape, levels_of, step_between
from gently_bluesky.store.strict_json import encode

_AXES = ("c", "z", "y", "x")
_COLORS = ("00FF00", "FF00FF", "00FFFF", "FFFF00", "FF0000", "0000FF")
_ROOM = 1.01  # what compression may add to pixels that cannot be compressed


def ome_zarr(
    selection: Selection,
    into: Path | str,
    *,
    dtype: DTypeLike | None = None,
    split_time: bool = False,
    progress: Progress | None = None,
) -> tuple[Path, ...]:
    """Write an OME-Zarr (t, c, z, y, x) for each embryo of a session, or each stream of a run.

    Views and laser presets are its channels. Memory holds a shard of each level at a time, 64 MiB or less.

    Parameters
    ----------
    selection
        What is to be exported.
    into
        The folder for the stores.
    dtype
        That the pixels are to have; as they are, if not given. No value may change.
    split_time
        Write a store for each timepoint.
    progress
        Told of bytes.

    Returns
    -------
    tuple of Path
        The stores, which are folders.

    Raises
    ------
    NothingSelectedError
        There are no volumes, or some are missing among others.
    ExportError
        Two volumes have one place, or are of complex numbers.
    LossyCastError, GeometryError, VolumeMissingError, TargetExistsError, DiskFullError
        As they say. Room is asked for as if nothing could be compressed.
    """
    grids = grids_of(selection, dtype=dtype, split_time=split_time)
    if odd := next((grid for grid in grids if grid.dtype.kind == "c"), None):
        raise ExportError(f"No viewer of OME-Zarr knows complex numbers; {odd.volumes[0].volume} is {odd.dtype}.")
    names = [f"{grid.name}.ome.zarr" for grid in grids]
    amount = sum(grid.nbytes for grid in grids)
    room = sum(map(_room, grids))
    with staged(into, names, amount, room=room, progress=progress) as staging:
        for grid, name in zip(grids, names, strict=True):
            _Store(staging, staging.folder / name, grid).write()
    return staging.paths


def _levels(grid: Grid) -> list[Level]:
    z, y, x = grid.shape[2:]
    return levels_of((z, y, x), grid.dtype, grid.voxel_size_um or ())


def _room(grid: Grid) -> int:
    voxels = sum(math.prod(level.shape) for level in _levels(grid)) * len(grid.volumes)
    return int(voxels * grid.dtype.itemsize * _ROOM)


class _Store:
    """One store while it is written; its group says what it is when all else is there."""

    def __init__(self, staging: Staging, folder: Path, grid: Grid) -> None:
        self._staging = staging
        self._folder = folder
        self._grid = grid
        self._geometry = Geometry(grid.shape[1:], grid.dtype.newbyteorder("<"))
        self._levels = _levels(grid)
        self._shards = [
            shards.Grid.of(level.shape[0], level.shape[1:], self._geometry.dtype) for level in self._levels
        ]
        self._shown = [(math.inf, -math.inf)] * len(grid.channels)

    def write(self) -> None:
        """Write all of it."""
        for number, (level, of_level) in enumerate(zip(self._levels, self._shards, strict=True)):
            metadata = ngff.array(self._geometry, level, of_level, self._grid.shape[0], axes=_AXES)
            self._write_json(f"{number}/zarr.json", metadata)
        for t, row in enumerate(self._grid.cells):
            for c, volume in enumerate(row):
                planes = volume.planes()
                for number in range(len(self._levels)):
                    planes = self._stored(number, t, c, planes)
                deque(planes, maxlen=0)  # the last level draws all others through
        said = {"ome": self._ome(), HOME: said_of(self._grid)}
        self._write_json("zarr.json", ngff.group(said))

    def _stored(self, number: int, t: int, c: int, planes: Iterator[NDArray[Any]]) -> Iterator[NDArray[Any]]:
        """Store planes as one level, shard by shard, and give those of the next one."""
        grid = self._shards[number]
        memory = np.empty((min(grid.shard_planes, grid.planes), *grid.plane_shape), grid.dtype)
        for shard in range(grid.shards):
            block = memory[: len(grid.planes_of(shard))]
            for place, plane in zip(block, planes, strict=False):  # more are to come
                place[...] = plane
            path = shard_path(self._folder, number, t, self._geometry, (c, shard))
            path.parent.mkdir(parents=True)
            with path.open("xb") as file:
                file.writelines(shards.encode_shard(grid, block))
            if number == 0:
                self._staging.wrote(block.nbytes)
            if number + 1 < len(self._levels):
                step = step_between(self._levels[number], self._levels[number + 1])
                small = np.empty(halved_shape(block.shape, step), block.dtype)
                halved(block, step, small)
                yield from small
            else:
                self._see(c, block)

    def _see(self, c: int, block: NDArray[Any]) -> None:
        """Take the range of a channel from its coarsest level."""
        if (finite := block[np.isfinite(block)]).size:
            low, high = self._shown[c]
            self._shown[c] = min(low, float(finite.min())), max(high, float(finite.max()))

    def _ome(self) -> dict[str, Any]:
        grid, voxel = self._grid, self._grid.voxel_size_um or ()
        interval = grid.interval_s
        ome = ngff.multiscales(grid.name, self._geometry, self._levels, voxel, axes=_AXES, interval_s=interval)
        channels = []
        for number, (name, shown) in enumerate(zip(grid.channels, self._shown, strict=True)):
            low, high = shown if shown[0] <= shown[1] else (0.0, 1.0)
            span = np.iinfo(grid.dtype) if grid.dtype.kind in "iu" else None
            limits = (low, high) if span is None else (float(span.min), float(span.max))
            window = {"min": limits[0], "max": limits[1], "start": low, "end": high}
            color = _COLORS[number % len(_COLORS)] if len(grid.channels) > 1 else "FFFFFF"
            channels.append({"label": name, "color": color, "window": window, "active": True})
        return ome | {"omero": {"channels": channels, "rdefs": {"model": "color"}}}

    def _write_json(self, name: str, content: Mapping[str, Any]) -> None:
        path = self._folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encode(content))
