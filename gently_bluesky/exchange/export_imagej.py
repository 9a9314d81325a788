"""Hyperstacks as ImageJ writes them: channels, slices and frames in the right sliders, with spacing and interval.

The format is ImageJ's own, not OME's: planes in the order t, z, c, big-endian, 8 or 16 bit or 32 bit float. Above
4 GB, where TIFF ends, ImageJ and what understands it take the planes one after the other from the first one on;
other programs see one plane then, and `split_time` gives them files that they can read.
"""

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from numpy.typing import DTypeLike, NDArray

from gently_bluesky.errors import ExportError
from gently_bluesky.exchange.export_grid import Grid, grids_of
from gently_bluesky.exchange.export_target import Progress, Staging, staged
from gently_bluesky.exchange.own import line_of
from gently_bluesky.exchange.selection import Selection

log = logging.getLogger(__name__)

_DTYPES = ("uint8", "uint16", "float32")
_IFD_BYTES = 512  # for the directory of one plane and its label
_TIFF_ENDS = 1 << 32


def imagej(
    selection: Selection,
    into: Path | str,
    *,
    dtype: DTypeLike | None = None,
    split_time: bool = False,
    progress: Progress | None = None,
) -> tuple[Path, ...]:
    """Write a hyperstack (t, z, c, y, x) for each embryo of a session, or each stream of a run.

    Views and laser presets are its channels. Memory holds a plane at a time.

    Parameters
    ----------
    selection
        What is to be exported.
    into
        The folder for the files.
    dtype
        uint8, uint16 or float32; as the pixels are, if not given. No value may change.
    split_time
        Write a file for each timepoint.
    progress
        Told of bytes.

    Returns
    -------
    tuple of Path
        The files.

    Raises
    ------
    NothingSelectedError
        There are no volumes, or some are missing among others.
    ExportError
        ImageJ has no such dtype, or two volumes have one place.
    LossyCastError, GeometryError, VolumeMissingError, TargetExistsError, DiskFullError
        As they say.
    """
    grids = grids_of(selection, dtype=dtype, split_time=split_time)
    for grid in grids:
        if grid.dtype.name not in _DTYPES:
            raise ExportError(
                f"ImageJ has uint8, uint16 and float32; {grid.cells[0][0].volume} is {grid.dtype}. If one of them "
                "can hold every value, choose it as the dtype: a value that it cannot hold is an error."
            )
    names = [f"{grid.name}.tif" for grid in grids]
    nbytes = sum(grid.nbytes for grid in grids)
    with staged(into, names, nbytes, room=sum(map(_file_bytes, grids)), progress=progress) as staging:
        for grid, name in zip(grids, names, strict=True):
            _write(staging, grid, name)
    return staging.paths


def _file_bytes(grid: Grid) -> int:
    return grid.nbytes + _IFD_BYTES * grid.planes


def _write(staging: Staging, grid: Grid, name: str) -> None:
    from tifffile import TiffWriter  # noqa: PLC0415 - 0.1 s

    t, c, z, y, x = grid.shape
    voxel, is_long = grid.voxel_size_um, _file_bytes(grid) > _TIFF_ENDS
    if is_long:
        log.warning(
            "%s is larger than 4 GB: ImageJ and Bio-Formats read it, others see its first plane only", name
        )
    with TiffWriter(staging.folder / name, imagej=True, byteorder=">") as file:
        file.write(
            _planes(grid, staging),
            shape=(t, z, c, y, x),
            dtype=grid.dtype.newbyteorder(">"),
            photometric="minisblack",
            resolution=None if voxel is None else (1 / voxel[2], 1 / voxel[1]),
            truncate=is_long,
            metadata=_metadata(grid),
        )


def _planes(grid: Grid, staging: Staging) -> Iterator[NDArray[Any]]:
    big_endian = grid.dtype.newbyteorder(">")
    for row in grid.cells:
        for planes in zip(*(pixels.planes() for pixels in row), strict=True):
            for plane in planes:
                yield plane.astype(big_endian)
                staging.wrote(plane.nbytes)


def _metadata(grid: Grid) -> dict[str, Any]:
    said: dict[str, Any] = {"axes": "TZCYX", "mode": "composite" if len(grid.channels) > 1 else "grayscale"}
    if grid.voxel_size_um is not None:
        said |= {"spacing": grid.voxel_size_um[0], "unit": "um"}
    if grid.interval_s is not None:
        said |= {"finterval": grid.interval_s, "tunit": "s"}
    slices = range(1, grid.shape[2] + 1)
    said["Labels"] = [
        f"{channel} t{timepoint} z{z}"
        for timepoint in grid.timepoints
        for z in slices
        for channel in grid.channels
    ]
    lines = [
        f"t{timepoint} {channel}: {pixels.volume}, time {pixels.volume.shows.time}"
        for timepoint, row in zip(grid.timepoints, grid.cells, strict=True)
        for channel, pixels in zip(grid.channels, row, strict=True)
    ]
    return said | {"Info": "\n".join([*lines, line_of(grid)])}
