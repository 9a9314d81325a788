"""Arrays inside events: which go to files, and what a descriptor must then say.

What a descriptor says of an array cannot be trusted: ophyd's `Signal` gives no dtype, some devices describe a
10 x 10 image as [10], or as a number. The arrays that came decide.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from gently_bluesky.errors import DocumentError
from gently_bluesky.protocols import VolumeMetadata
from gently_bluesky.store.facts import Found
from gently_bluesky.store.streams import STORED_IN

Doc = dict[str, Any]

_NUMERIC = "biufc"


def metadata_of(
    data_key: Doc, planes: int, event: Mapping[str, Any], found: Found | None = None
) -> VolumeMetadata:
    """Give what a descriptor and an event say of a volume in the words that files have for it.

    Where a data key says text for a number, it is the data key of the same event that holds the number. What the
    documents do not say is taken from the file that the array was read from.
    """
    data = event["data"]
    metadata: VolumeMetadata = {}
    if sizes := _numbers(data_key.get("voxel_size_um"), data):
        metadata["voxel_size_um"] = sizes
    if exposure := _numbers([data_key.get("exposure_ms")], data):
        metadata["exposure_ms"] = exposure[0]
    if position := _numbers(data_key.get("stage_position_um"), data):
        metadata["stage_position_um"] = position
    if sizes and (centre := _numbers([data_key.get("z_centre_um")], data)):
        metadata["z_um"] = [centre[0] + sizes[0] * (plane - (planes - 1) / 2) for plane in range(planes)]
    if isinstance(view := data_key.get("view"), str):
        metadata["view"] = view
    # a camera with a light of its own is no part of the channel that the event is of
    if (channel := data.get(data_key.get("channel", "channel"))) and isinstance(channel, str):
        metadata["channel"] = channel
    return metadata if found is None else _and_from_file(metadata, found.metadata)


def _and_from_file(said: VolumeMetadata, file: VolumeMetadata) -> VolumeMetadata:
    """Add what a file says, where the documents say nothing; every plane stays as high as the file has it.

    An OME-TIFF tells the heights of stage and scan as one, which makes the one's share of them unknown.
    """
    told: VolumeMetadata = {**file, **said}
    stage, within = told.get("stage_position_um", ()), file.get("z_um", ())
    was = file.get("stage_position_um", ())
    if len(stage) == len(was) == 3 and within:
        if "z_um" not in said:
            told["z_um"] = [was[2] + z - stage[2] for z in within]
        elif "stage_position_um" not in said:
            told["stage_position_um"] = [*stage[:2], was[2] + within[0] - said["z_um"][0]]
    return told


def _numbers(said: Sequence[Any] | None, data: Mapping[str, Any]) -> list[float]:
    """Give what is said as numbers; none at all, if nothing is, or one of them is not known."""
    values = [data.get(value) if isinstance(value, str) else value for value in said or ()]
    known = [float(value) for value in values if isinstance(value, int | float)]
    return known if len(known) == len(values) else []


def frame_times_of(
    key: str, planes: int, event: Mapping[str, Any], found: Found | None = None
) -> list[float | None]:
    """Give when each plane of an array was taken, seconds since the epoch; None for a frame that never came.

    Of each frame, if the event says so, or the file that the array was read from; else the time of the key.
    """
    there = None if found is None or found.times is None or len(found.times) != planes else found.times
    said = event["data"].get(f"{key}_frame_times")
    if said is not None and len(said) == planes:
        times = [float(time) for time in said]
    else:
        times = list(there or [float(event["timestamps"].get(key, event["time"]))] * planes)
    return [time if came else None for time, came in zip(times, there or [True] * planes, strict=True)]


@dataclass(frozen=True, slots=True)
class ArrayKind:
    """What the descriptor must say of one data key that carries arrays."""

    place: Literal["event", "file"]
    shape: tuple[int, ...]
    dtype: str


Signature = frozenset[tuple[str, ArrayKind]]
"""All data keys of an event that carry arrays; one descriptor a signature."""


def as_array(value: Any) -> NDArray[Any] | None:
    """Give the array that a value is, or None for anything else (numbers, text, lists, dicts)."""
    if isinstance(value, np.ndarray):
        return value if value.ndim else None
    if isinstance(value, (str, bytes, int, float, list, dict, tuple, np.generic)) or value is None:
        return None
    if hasattr(value, "__array__"):
        array = np.asarray(value)
        return array if array.ndim else None
    return None


def kind_of(array: NDArray[Any], limit_bytes: int, data_key: Doc) -> ArrayKind:
    """Decide where an array goes: numbers above the limit, or out of a file, to a file; all else stays."""
    if np.ma.is_masked(array):
        raise DocumentError("A masked array has no spelling in a document. Fill it: array.filled(value).")
    if array.dtype.kind == "V":
        raise DocumentError(
            f"An array of records {array.dtype} has no spelling in a document. Give field by field."
        )
    wanted = array.nbytes > limit_bytes or data_key.get(STORED_IN) == "file"
    big = array.dtype.kind in _NUMERIC and array.size > 0 and wanted
    dtype = array.dtype.newbyteorder("<").str if array.dtype.kind in _NUMERIC else array.dtype.str
    return ArrayKind("file" if big else "event", array.shape, dtype)


def described(data_keys: Mapping[str, Doc], signature: Signature) -> dict[str, Doc]:
    """Give data keys that say what the arrays really are; the others as they were."""
    true = dict(data_keys)
    for key, kind in signature:
        entry = {k: v for k, v in true.get(key, {"source": "unknown"}).items() if k not in {"external", STORED_IN}}
        entry |= {"dtype": "array", "shape": list(kind.shape), "dtype_numpy": kind.dtype}
        if len(entry.get("dims", kind.shape)) != len(kind.shape):
            del entry["dims"]
        if kind.place == "file":
            entry["external"] = "STREAM:"
        true[key] = entry
    return true


def agrees(data_keys: Mapping[str, Doc], signature: Signature) -> bool:
    """Whether data keys say already what the arrays are."""
    return all(
        (entry := data_keys.get(key)) is not None
        and entry.get("external") == ("STREAM:" if kind.place == "file" else None)
        and tuple(entry.get("shape", ())) == kind.shape
        and entry.get("dtype_numpy") == kind.dtype
        for key, kind in signature
    )
