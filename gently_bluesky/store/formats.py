"""The formats of volumes, behind one protocol, and the choice between them.

An `ImageStore` holds all volumes of one stream resource; it makes one `ImageFile` a volume. What the store
says of itself (mimetype, parameters) goes into the StreamResource; what a file says goes into the manifest.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from gently_bluesky.store import npy, ome_tiff
from gently_bluesky.store.disk import Claim, claim_nothing
from gently_bluesky.store.facts import EventFacts, Found, FrameTimes, Geometry, VolumeFacts
from gently_bluesky.store.layout import file_uri
from gently_bluesky.store.manifest import ManifestEntry
from gently_bluesky.store.npy import NpyFile
from gently_bluesky.store.ome_tiff import OmeTiffFile
from gently_bluesky.store.ome_xml import can_describe
from gently_bluesky.store.pixels import blocks, pixel_hash
from gently_bluesky.store.removed import as_before


class ImageFile(Protocol):
    """One volume while it is being written."""

    format: ClassVar[str]
    path: Path

    @property
    def manifest(self) -> Mapping[str, Any]:
        """What a reader needs beside path, format, shape and dtype."""

    def write(self, plane: int, data: memoryview, time: float, pool: Executor) -> None:
        """Write one plane, taken at `time` (seconds since the epoch); `pool` pushes to the disk behind."""

    def complete(self, times: FrameTimes, event: EventFacts | None, *, durable: bool) -> None:
        """Add what became known; the file is whole before, meanwhile and after. Works after `close`, too.

        With `durable`, everything that was written before it is on disk when it returns.
        """

    def planes(self, first: int) -> Iterator[NDArray[Any]]:
        """Read planes back, from one on, flattened or not; before `close`."""

    def forget(self) -> None:
        """Let the page cache drop it; it is on disk already."""

    def close(self) -> None:
        """Close it."""


class ImageStore(Protocol):
    """All volumes of one stream resource."""

    mimetype: str

    @property
    def uri(self) -> str:
        """Of the StreamResource."""

    @property
    def parameters(self) -> dict[str, Any]:
        """Parameters of the StreamResource."""

    def create(self, index: int, facts: VolumeFacts, claim: Claim = claim_nothing) -> ImageFile:
        """Create the file of one volume, whole, its space reserved; `claim` is asked for it before."""


class FileSeries:
    """One file a volume in a folder of its own, named by its index in the stream resource."""

    def __init__(self, folder: Path, geometry: Geometry, kind: type[OmeTiffFile] | type[NpyFile]) -> None:
        self.folder = folder
        self._geometry = geometry
        self._kind = kind
        self._suffix, subtype = (".npy", "application/x-npy") if kind is NpyFile else (".ome.tif", "image/tiff")
        self.mimetype = f"multipart/related;type={subtype}"

    @property
    def uri(self) -> str:
        """The folder: names of files follow from its parameters."""
        return file_uri(self.folder) + "/"

    @property
    def parameters(self) -> dict[str, Any]:
        """What Tiled's consolidators need: a name for each index, and one volume a chunk, stacked."""
        return {
            "template": "{:06d}" + self._suffix,
            "chunk_shape": [1, *self._geometry.shape],
            "join_method": "stack",
        }

    def create(self, index: int, facts: VolumeFacts, claim: Claim = claim_nothing) -> ImageFile:
        """Create `<index>.ome.tif` or `<index>.npy`."""
        return self._kind(self.folder / f"{index:06d}{self._suffix}", self._geometry, facts, claim)


NewFolder = Callable[[str], Path]
"""Makes the folder of a stream resource, its name ending as is said."""


def _ome_tiff(new_folder: NewFolder, geometry: Geometry) -> ImageStore:
    return FileSeries(new_folder(""), geometry, OmeTiffFile if can_describe(geometry) else NpyFile)


def _ome_zarr(new_folder: NewFolder, geometry: Geometry) -> ImageStore:
    from gently_bluesky.store.ngff import can_store  # noqa: PLC0415 - codecs that only Zarr needs
    from gently_bluesky.store.ome_zarr import OmeZarrSeries  # noqa: PLC0415

    if can_store(geometry):
        return OmeZarrSeries(new_folder(STORE), geometry)
    return FileSeries(new_folder(""), geometry, NpyFile)


FORMATS: Mapping[str, Callable[[NewFolder, Geometry], ImageStore]] = {"ome-tiff": _ome_tiff, "ome-zarr": _ome_zarr}
"""By the name that a FileWriter is given: from what makes a folder, and a geometry, to a store in it."""

STORE = ".ome.zarr"
"""How the name of a folder ends that holds all volumes of a stream resource."""

MAPPED = {"ome-tiff", "npy"}
"""Formats whose pixels lie in one piece, as they are, from an offset on."""


# --- what is stored -----------------------------------------------------------------------------------------


def examine(path: Path, index: int | None = None) -> Found:
    """Read what a file, or one event of a store, says of itself; ValueError if no format of ours knows it."""
    if path.name.endswith(STORE) and index is not None:
        from gently_bluesky.store import zarr_pixels  # noqa: PLC0415

        return zarr_pixels.examine(path, index)
    for suffix, read in _EXAMINE.items():
        if path.name.endswith(suffix):
            return read(path)
    raise ValueError(f"{path} has the name of no format that is written here")


_EXAMINE: Mapping[str, Callable[[Path], Found]] = {".ome.tif": ome_tiff.examine, ".npy": npy.examine}


def stored_in(folder: Path) -> Iterator[tuple[Path, int | None]]:
    """Give what looks like a stored volume in a run folder: files, and events of stores."""
    for path in sorted(folder.glob("*/*")):
        if path.parent.name.endswith(STORE):
            continue
        if path.is_file():
            yield path, None
    for store in sorted(folder.glob(f"*{STORE}")):
        from gently_bluesky.store.zarr_pixels import events_of  # noqa: PLC0415

        yield from ((store, index) for index in events_of(store))


def name_of(entry: ManifestEntry) -> str:
    """Give the path in its run folder by which people know a volume: its file; in a store, what says all of it."""
    return f"{entry.path}/events/{entry.index:06d}" if entry.path.endswith(STORE) else entry.path


def strangers_in(path: Path, entries: Iterable[ManifestEntry]) -> Iterator[Path]:
    """Give what lies in a store and is no part of it, or of none of these volumes; nothing, if it is a file."""
    if path.name.endswith(STORE) and path.is_dir():
        from gently_bluesky.store import zarr_pixels  # noqa: PLC0415

        yield from zarr_pixels.strangers_in(path, {entry.index or 0 for entry in entries})


def map_pixels(path: Path, entry: ManifestEntry) -> NDArray[Any]:
    """Map the pixels of a volume that lies in one piece; raises what numpy raises."""
    return np.memmap(path, np.dtype(entry.dtype), "r", entry.details["offset"], entry.shape)


def hash_of(path: Path, entry: ManifestEntry) -> str:
    """Give the xxh3-128 of a stored volume's pixels in C order, in hexadecimal, wherever it is now.

    Raises
    ------
    EOFError, DamagedVolumeError
        A part of it is not there, or is not what was written.
    """
    if entry.format in MAPPED:
        return pixel_hash(path, int(entry.details.get("offset", 0)), entry.bytes)
    from gently_bluesky.store import zarr_pixels  # noqa: PLC0415

    partial = as_before(entry).state == "aborted"
    return zarr_pixels.pixel_hash(path, entry.index or 0, partial=partial)


def hold_pyramid(path: Path, entry: ManifestEntry) -> None:
    """Hold what was derived from the pixels of a volume against checksums; ValueError, FileNotFoundError."""
    if entry.format not in MAPPED:
        from gently_bluesky.store import zarr_pixels  # noqa: PLC0415

        partial = as_before(entry).state == "aborted"
        zarr_pixels.hold_pyramid(path, entry.index or 0, partial=partial)


def hold_store(path: Path, entry: ManifestEntry) -> None:
    """Hold what a store says beside what `examine` reads of one volume; ValueError if it has changed."""
    if entry.format not in MAPPED:
        from gently_bluesky.store import zarr_pixels  # noqa: PLC0415

        zarr_pixels.hold_store(path, entry.index or 0, entry.resource)


def each_plane(path: Path, entry: ManifestEntry) -> Iterator[NDArray[Any]]:
    """Read a stored volume once, plane by plane (y, x), each good until the next; raises as `hash_of` does."""
    if entry.format not in MAPPED:
        from gently_bluesky.store.zarr_pixels import ZarrPixels  # noqa: PLC0415

        yield from ZarrPixels(path, entry.index or 0).each_plane()
        return
    dtype = np.dtype(entry.dtype)
    geometry = Geometry(entry.shape, dtype)
    whole = blocks(path, int(entry.details.get("offset", 0)), entry.bytes, size=geometry.plane_bytes)
    for block in whole:
        yield np.frombuffer(block, dtype).reshape(geometry.plane_shape)


@dataclass(frozen=True, slots=True)
class Stamp:
    """What a stored volume looks like from outside: its size in bytes, and when it last changed, in ns.

    `derived` is the size of what was made of its pixels: the smaller levels of a pyramid.
    """

    size: int
    mtime_ns: int
    derived: int = 0


def stamp_of(path: Path, entry: ManifestEntry) -> Stamp:
    """Give it; FileNotFoundError if the volume, or a part of its pixels, is not there."""
    if entry.format in MAPPED:
        status = path.stat()
        return Stamp(status.st_size, status.st_mtime_ns)
    from gently_bluesky.store.zarr_pixels import ZarrPixels, shards_there  # noqa: PLC0415

    shards = ZarrPixels(path, entry.index or 0).shards()
    found, derived = ([each.stat() for each in level] for level in shards_there(path, entry.index or 0))
    if len(found) < len(shards) and as_before(entry).state != "aborted":
        raise FileNotFoundError(f"{path} has {len(found)} of the {len(shards)} shards of event {entry.index}")
    newest = max((each.st_mtime_ns for each in [*found, *derived]), default=0)
    return Stamp(sum(each.st_size for each in found), newest, sum(each.st_size for each in derived))


def is_whole(path: Path, entry: ManifestEntry) -> bool:
    """Whether a stored volume is there with all its bytes, as far as sizes tell: no pixel is read."""
    before = as_before(entry)
    try:
        stamp = stamp_of(path, before)
    except (OSError, ValueError, KeyError):
        return False
    return before.format not in MAPPED or stamp.size >= (size_said(before) or 0)


def size_said(entry: ManifestEntry) -> int | None:
    """Give how many bytes a stored volume takes, as its manifest says; None if it does not."""
    if entry.format in MAPPED:
        return int(entry.details.get("offset", 0)) + entry.bytes
    said = entry.details.get("stored_bytes")
    return said if isinstance(said, int) else None
