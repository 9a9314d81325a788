"""One TIFF or OME-Zarr of anybody's: its volumes, and what its OME metadata say of them.

A volume for each time and channel; what the file does not say, only the user can. Knows no documents.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any, Literal

from gently_bluesky.errors import ImportRefusedError
from gently_bluesky.exchange.found import Image, Part, Remark, Scalar, Source, can_be_named
from gently_bluesky.exchange.ome import OmeFacts, facts_of_xml, facts_of_zarr
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
    ome: OmeFacts
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
    began, remarks = path.stat().st_mtime, list(array.remarks)
    if array.ome.acquired:
        try:
            began = said.moment(array.ome.acquired)
        except ValueError:
            text = f"it was acquired at {array.ome.acquired!r:.60}, which is no time"
            remarks.append(Remark("contradiction", path.name, text))
    images = sorted(_images(array, said, began, _status(path)), key=lambda image: image.time)
    start: dict[str, Any] = {"time": images[0].time, "plan_name": PLAN_NAME}
    start |= {name: value for name in ("session", "embryo") if (value := getattr(said, name)) is not None}
    return Source(path.parent, file_uri(path), start, tuple(images), remarks=tuple(remarks))


def _status(path: Path) -> dict[str, Scalar]:
    files = [each for each in path.rglob("*") if each.is_file()] if path.is_dir() else [path]
    return {"file_bytes": sum(each.stat().st_size for each in files), "file_modified": path.stat().st_mtime}


def _images(array: _Array, said: Said, began: float, status: Mapping[str, Scalar]) -> Iterator[Image]:
    sizes = {axis: range(size) for axis, size in zip(array.axes, array.shape, strict=True) if axis in _APART}
    inner = [(axis, size) for axis, size in zip(array.axes, array.shape, strict=True) if axis not in _APART]
    details = _details([axis for axis, _ in inner], array.ome, said)
    for t, c in product(sizes.get("T", range(1)), sizes.get("C", range(1))):
        at = {"T": str(t), "C": str(c)}
        cut = ",".join(at.get(axis, ":") for axis in array.axes) if sizes else "..."
        plane = array.ome.planes.get((t, c), {})
        values: dict[str, Scalar] = {}
        if "T" in sizes or said.timepoint is not None:
            values["timepoint"] = (said.timepoint or 0) + t
        values |= {
            name: i for name, axis, i in (("time_index", "T", t), ("channel_index", "C", c)) if axis in sizes
        }
        if c < len(array.ome.channels) and array.ome.channels[c]:
            values["channel"] = array.ome.channels[c]
        if "exposure_ms" in plane:
            values["exposure_ms"] = plane["exposure_ms"]
        part = Part("volume", tuple(size for _, size in inner), array.dtype, cut, details)
        time = began + (plane.get("delta_s", 0.0) if array.ome.acquired else 0.0)
        yield Image("primary", array.file, time, {**values, "file": array.file, **status}, (part,), array.format)


def _details(axes: Sequence[str], ome: OmeFacts, said: Said) -> dict[str, Any]:
    """Say what is known of the axes of a volume: their names, and the spacing, if it is known along each."""
    details: dict[str, Any] = {"dims": [axis.lower() for axis in axes]} if set(axes) <= set("ZYXS") else {}
    known = ome.voxel_size_um
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
    ome = facts_of_xml(facts.ome_xml) if facts.ome_xml else OmeFacts()
    remarks = []
    if not facts.ome_xml:
        remarks.append(
            Remark("missing", path.name, "it has no OME metadata: voxel size, channel and time are not known")
        )
    if facts.series > 1:
        remarks.append(Remark("unreadable", path.name, only_first(facts)))
    return _Array(path.name, facts.shape, facts.dtype, axes, "tiff", ome, tuple(remarks))


def _zarr_array(path: Path) -> _Array:
    import zarr  # noqa: PLC0415 - 0.2 s that only Zarr needs

    try:
        node: Any = zarr.open(path, mode="r")
        ome = facts_of_zarr(node.attrs.asdict())
        array = node if isinstance(node, zarr.Array) else node[ome.path]
        axes = ome.axes or "TCZYX"[-array.ndim :]
        dtype = array.dtype.newbyteorder("<")
    except Exception as error:  # a damaged store may be anything
        raise ImportRefusedError(f"{path} cannot be imported: {error!s:.300}") from error
    if dtype.kind not in "biufc" or len(axes) != array.ndim or not isinstance(array, zarr.Array):
        raise ImportRefusedError(
            f"{path} holds an array {array.shape} of {dtype} with the axes {axes!r}: no volumes."
        )
    name = f"{path.name}/{ome.path}" if ome.path else path.name
    remarks = (
        () if ome.axes else (Remark("missing", path.name, "it has no OME metadata: voxel size is not known"),)
    )
    return _Array(name, array.shape, dtype.str, axes, "zarr", ome, remarks)
