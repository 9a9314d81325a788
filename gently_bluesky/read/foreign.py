"""Arrays in files that others wrote, by the mimetype and parameters of their StreamResource.

One event's array at a time. Knows formats; which document names what is the asset reader's business.
"""

import re
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from types import EllipsisType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gently_bluesky.errors import UnfillableError
from gently_bluesky.read.tiff import read_tiff
from gently_bluesky.read.tiff_pixels import TiffPixels
from gently_bluesky.store.layout import name_from_template

ForeignPixels = NDArray[Any] | TiffPixels
"""An array, or what gives one when it is indexed."""


def read_foreign(
    mimetype: str,
    path: Path,
    parameters: Mapping[str, Any],
    index: int,
    shape: tuple[int, ...],
    dtype: str | None = None,
) -> ForeignPixels:
    """Read one event's array out of an asset that others wrote; planes that are compressed, when they are indexed.

    Parameters
    ----------
    mimetype
        One of those that are read here: TIFF, .npy, HDF5, Zarr.
    path, parameters
        As its StreamResource has them; a ``slice`` among them, e.g. ``"1"`` or ``"...,:1024"``, says which part of
        a file's array is meant.
    index
        In the stream resource, from 0.
    shape
        As its data key has it; () if it is not known.
    dtype
        As its data key has it; what was imported, whose StreamResource has a ``slice``, must be that.

    Raises
    ------
    OSError
        A file is not there.
    ValueError, TypeError, LookupError, AttributeError, ArithmeticError
        It cannot be read like that.
    UnfillableError
        A package is missing.
    """
    array = READERS[mimetype](path, parameters, index, shape)
    described = array.dtype if dtype is None or "slice" not in parameters else np.dtype(dtype)
    if array.dtype.newbyteorder("=") != described.newbyteorder("="):
        raise ValueError(f"it holds {array.dtype}, and is described as {described}")
    return array


def file_of(path: Path, parameters: Mapping[str, Any], index: int) -> Path:
    """Give the file of one event's array; where it is one of several, or no more is known, the folder or store."""
    template = parameters.get("template")
    if parameters.get("join_method") != "stack" or not isinstance(template, str):
        return path
    try:
        return path / name_from_template(template, index)
    except ValueError:
        return path


_CUT = re.compile(r"\.\.\.|\d+|\d*:\d*")


def cut_of(text: str) -> tuple[int | slice | EllipsisType, ...]:
    """Give the index that a ``slice`` spells, as numpy does: integers, ranges and "...".

    >>> cut_of("1"), cut_of("...,:1024")
    ((1,), (Ellipsis, slice(None, 1024, None)))
    """
    parts = text.split(",")
    if not all(map(_CUT.fullmatch, parts)):
        raise ValueError(f"the slice {text!r:.80} is none like '1' or '...,:1024'")
    return tuple(_cut_part(part) for part in parts)


def _cut_part(part: str) -> int | slice | EllipsisType:
    if part == "...":
        return ...
    start, colon, stop = part.partition(":")
    return slice(int(start) if start else None, int(stop) if stop else None) if colon else int(part)


def _part_of(array: ForeignPixels, spelled: str, shape: tuple[int, ...]) -> ForeignPixels:
    """Give a part of a file; it may differ from its data key in axes of length 1, and in nothing else."""
    cut = cut_of(spelled)
    there = np.broadcast_to(np.empty((), "?"), array.shape)[cut].shape
    if [size for size in there if size != 1] != [size for size in shape if size != 1]:
        raise ValueError(f"it holds {there}, and is described as {shape}")
    return array.cut(cut, shape) if isinstance(array, TiffPixels) else array[cut].reshape(shape)


def _file_series(path: Path, parameters: Mapping[str, Any], index: int, shape: tuple[int, ...]) -> ForeignPixels:
    template = parameters["template"]
    names = partial(name_from_template, template)
    if parameters.get("join_method") == "stack":
        content = _read_file(path / names(index))
        return _part_of(content, parameters["slice"], shape) if "slice" in parameters else content
    per_file = int(parameters.get("chunk_shape", [1])[0] or 1)
    per_event = shape[0] if shape else 1
    frames = range(index * per_event, (index + 1) * per_event)
    parts = []
    for number in range(frames.start // per_file, -(-frames.stop // per_file)):
        content = np.asarray(_read_file(path / names(number)))
        content = content if per_file > 1 or content.ndim == len(shape) else content[np.newaxis]
        first = number * per_file
        parts.append(content[max(frames.start - first, 0) : frames.stop - first])
    return np.concatenate(parts)


def _read_file(path: Path) -> ForeignPixels:
    if path.suffix == ".npy":
        array: NDArray[Any] = np.load(path, mmap_mode="r")
        return array
    return read_tiff(path)


def _hdf5(path: Path, parameters: Mapping[str, Any], index: int, shape: tuple[int, ...]) -> NDArray[Any]:
    try:
        import h5py  # noqa: PLC0415 - not ours to require
    except ImportError as error:
        raise UnfillableError(f"{path} is HDF5; install h5py to read it.") from error
    per_event = shape[0] if shape and parameters.get("join_method", "concat") == "concat" else 1
    with h5py.File(path, "r", swmr=bool(parameters.get("swmr", False))) as file:
        data = np.asarray(file[parameters["dataset"]][index * per_event : (index + 1) * per_event])
    return data if len(data.shape) == len(shape) else data.reshape(shape or data.shape[1:])


def _zarr(path: Path, parameters: Mapping[str, Any], index: int, shape: tuple[int, ...]) -> ForeignPixels:
    if not path.exists():
        raise FileNotFoundError(f"{path} is not there")
    cut = cut_of(parameters["slice"]) if "slice" in parameters else (index,)
    if (path.parent / "events").is_dir() and isinstance(cut[0], int):
        # written by a FileWriter, and copied: what is missing is no zeros
        from gently_bluesky.store.zarr_pixels import ZarrPixels  # noqa: PLC0415 - codecs that only Zarr needs

        part = ZarrPixels(path.parent, cut[0], level=int(path.name))[cut[1:] or ...]
    else:
        import zarr  # noqa: PLC0415 - 0.2 s that only foreign stores need

        part = np.asarray(zarr.open_array(path, mode="r")[cut])
    return _part_of(part, "...", shape) if "slice" in parameters else part


READERS: Mapping[str, Callable[[Path, Mapping[str, Any], int, tuple[int, ...]], ForeignPixels]] = {
    "multipart/related;type=image/tiff": _file_series,
    "multipart/related;type=application/x-npy": _file_series,
    "application/x-hdf5": _hdf5,
    "application/x-zarr": _zarr,
}
