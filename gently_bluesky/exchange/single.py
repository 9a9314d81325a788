"""One TIFF or OME-Zarr of anybody's: its volumes, and what its metadata say of them: OME's, ImageJ's or ours.

A volume for each time and channel; what the file does not say, only the user can. Knows no documents.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from pathlib import Path
from typing import Any, Literal

from gently_bluesky.errors import ImportRefusedError
from gently_bluesky.exchange.found import Image, Part, Remark, Scalar, Source, can_be_named
from gently_bluesky.exchange.ome import FileFacts, facts_of_imagej, facts_of_xml, facts_of_zarr
from gently_bluesky.exchange.own import of_ome_tiff, of_store
from gently_bluesky.exchange.said import Said
from gently_bluesky.exchange.session_folder import only_first
from gently_bluesky.read.tiff import look_at_tiff
from gently_bluesky.store.layout import file_uri

PLAN_NAME = "import_file"

_ZARR_MARKS = ("zarr.json", ".zgroup", ".zarray")
_APART = "TC"  # axes along which volumes are told apart


@dataclass(frozen=True, slots=True)
class _Array:
    """The array of a file: `file` is where it lies, relative to the folder of the file."""

    file: str
    shape: tuple[int, ...]
    dtype: str
    axes: str
    format: Literal["tiff", "zarr"]
    said: FileFacts
    remarks: tuple[Remark, ...] = field(default=())


def is_zarr(path: Path) -> bool:
    """Whether a folder is a Zarr store."""
    return any((path / mark).is_file() for mark in _ZARR_MARKS)


def read_file(path: Path, said: Said) -> Source:
    """Read what one file holds.

    Parameters
    ----------
    path
        A TIFF, or the folder of a Zarr store, of version 2 or 3.
    said
        What the user says: session, embryo, timepoint, voxel size; it goes before what the file says.

    Raises
    ------
    ImportRefusedError
        It is no such file, was cut short, or holds what cannot be read here.
    """
    array = _zarr_array(path) if path.is_dir() else _tiff_array(path)
    if 0 in array.shape:
        raise ImportRefusedError(f"{path} holds an array {array.shape}: no pixels.")
    own, began, remarks = array.said.own, None, list(array.remarks)
    if array.said.acquired:
        try:
            began = said.moment(array.said.acquired)
        except ValueError:
            text = f"it was acquired at {array.said.acquired!r:.60}, which is no time"
            remarks.append(Remark("contradiction", path.name, text))
    images = sorted(_images(array, said, began, _status(path)), key=lambda image: image.time)
    timed = began is not None or all("time" in own.volumes.get(place, ()) for place in _places(array))
    remarks += _unknown(path.name, images[0], timed=timed)
    remarks += [Remark("torn", path.name, f"of volume {t} not all is there") for t, _ in own.torn]
    start: dict[str, Any] = {"time": images[0].time, "plan_name": PLAN_NAME}
    known = {"session": own.session if said.session is None else said.session, "embryo": said.embryo}
    start |= {name: value for name, value in known.items() if value is not None}
    return Source(
        path.parent, file_uri(path), start, tuple(images), remarks=tuple(dict.fromkeys(remarks)), runs=own.runs
    )


def _unknown(file: str, image: Image, *, timed: bool) -> Iterator[Remark]:
    if "voxel_size_um" not in image.parts[0].details:
        yield Remark("missing", file, "its voxel size is not known: it does not say one along every axis")
    if not timed:
        yield Remark("missing", file, "its time is not known: events are counted from when the file was changed")


def _status(path: Path) -> dict[str, Scalar]:
    files = [each for each in path.rglob("*") if each.is_file()] if path.is_dir() else [path]
    return {"file_bytes": sum(each.stat().st_size for each in files), "file_modified": path.stat().st_mtime}


def _places(array: _Array) -> list[tuple[int, int]]:
    """Give time and channel of each volume."""
    sizes = dict(zip(array.axes, array.shape, strict=True))
    return list(product(range(sizes.get("T", 1)), range(sizes.get("C", 1))))


def _images(array: _Array, said: Said, began: float | None, status: Mapping[str, Scalar]) -> Iterator[Image]:
    apart = [axis for axis in array.axes if axis in _APART]
    facts, views = array.said, {known.get("view") for known in array.said.own.volumes.values()}
    inner = [(axis, size) for axis, size in zip(array.axes, array.shape, strict=True) if axis not in _APART]
    details = _details([axis for axis, _ in inner], facts, said)
    for t, c in _places(array):
        at = {"T": str(t), "C": str(c)}
        cut = ",".join(at.get(axis, ":") for axis in array.axes) if apart else "..."
        plane, own = facts.planes.get((t, c), {}), dict(facts.own.volumes.get((t, c), {}))
        view, time = own.pop("view", None), own.pop("time", None)
        values: dict[str, Scalar] = {"timepoint": t} if "T" in apart and not facts.own.volumes else {}
        values |= {
            name: i for name, axis, i in (("time_index", "T", t), ("channel_index", "C", c)) if axis in apart
        }
        if c < len(facts.channels) and facts.channels[c]:
            values["channel"] = facts.channels[c]
        if "exposure_ms" in plane:
            values["exposure_ms"] = plane["exposure_ms"]
        values |= own
        if said.timepoint is not None:
            values["timepoint"] = said.timepoint + t
        if said.embryo is not None:
            values.pop("embryo", None)  # the start document says it
        key = f"volume_{str(view).lower()}" if len(views) > 1 else "volume"
        seen = details if view is None else {**details, "view": view}
        part = Part(key, tuple(size for _, size in inner), array.dtype, cut, seen)
        if time is None:
            first = status["file_modified"] if began is None else began
            time = float(first) + plane.get("delta_s", t * facts.interval_s)
        yield Image("primary", array.file, time, {**values, "file": array.file, **status}, (part,), array.format)


def _details(axes: Sequence[str], facts: FileFacts, said: Said) -> dict[str, Any]:
    """Say what is known of the axes of a volume: their names, and the spacing, if it is known along each."""
    details: dict[str, Any] = {"dims": [axis.lower() for axis in axes]} if set(axes) <= set("ZYXS") else {}
    known = facts.voxel_size_um
    if said.voxel_size_um is not None:
        known = dict(zip("ZYX", said.voxel_size_um, strict=True))
    spatial = [axis for axis in axes if axis != "S"]
    if spatial and all(axis in known for axis in spatial):
        details["voxel_size_um"] = [known[axis] for axis in spatial]
    return details


def _tiff_array(path: Path) -> _Array:
    if not can_be_named(path.name):
        raise ImportRefusedError(f"No document can name {path}: it holds one of {{, }}, % and \\. Rename it.")
    try:
        facts = look_at_tiff(path)
    except ValueError as error:
        raise ImportRefusedError(f"{path} cannot be imported: {error}.") from error
    except OSError as error:
        raise ImportRefusedError(f"{path} cannot be read: {error.strerror or error}.") from error
    axes = facts.axes
    if len(facts.shape) == 3 and axes[0] in "QI":  # nothing says of what: planes
        axes = f"Z{axes[1:]}"
    said = facts_of_imagej(facts.imagej, facts.pixels_per_unit)
    if facts.ome_xml:
        said = replace(facts_of_xml(facts.ome_xml), own=of_ome_tiff(path, facts.ome_xml))
    remarks = []
    if facts.series > 1:
        remarks.append(Remark("unreadable", path.name, only_first(facts)))
    return _Array(path.name, facts.shape, facts.dtype, axes, "tiff", said, tuple(remarks))


def _zarr_array(path: Path) -> _Array:
    import zarr  # noqa: PLC0415 - 0.2 s that only Zarr needs

    try:
        node: Any = zarr.open(path, mode="r")
        said = facts_of_zarr(node.attrs.asdict())
        array = node if isinstance(node, zarr.Array) else node[said.path]
        axes = said.axes or "TCZYX"[-array.ndim :]
        dtype = array.dtype.newbyteorder("<")
    except Exception as error:  # a damaged store may be anything
        raise ImportRefusedError(f"{path} cannot be imported: {error!s:.300}") from error
    if dtype.kind not in "biufc" or len(axes) != array.ndim or not isinstance(array, zarr.Array):
        raise ImportRefusedError(
            f"{path} holds an array {array.shape} of {dtype} with the axes {axes!r}: no volumes."
        )
    if (path / "events").is_dir():  # written by a FileWriter
        said = replace(said, own=of_store(path, array.shape[0]))
    name = f"{path.name}/{said.path}" if said.path else path.name
    return _Array(name, array.shape, dtype.str, axes, "zarr", said)
