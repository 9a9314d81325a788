"""The formats of volumes, behind one protocol, and the choice between them.

An `ImageStore` holds all volumes of one stream resource; it makes one `ImageFile` a volume. What the store
says of itself (mimetype, parameters) goes into the StreamResource; what a file says goes into the manifest.
"""

from collections.abc import Callable, Mapping
from concurrent.futures import Executor
from pathlib import Path
from typing import Any, ClassVar, Protocol

from gently_bluesky.store import npy, ome_tiff
from gently_bluesky.store.disk import Claim, claim_nothing
from gently_bluesky.store.facts import EventFacts, Found, FrameTimes, Geometry, VolumeFacts
from gently_bluesky.store.npy import NpyFile
from gently_bluesky.store.ome_tiff import OmeTiffFile
from gently_bluesky.store.ome_xml import can_describe


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

    def close(self) -> None:
        """Close it."""


class ImageStore(Protocol):
    """All volumes of one stream resource."""

    mimetype: str
    folder: Path

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


def _ome_tiff(folder: Path, geometry: Geometry) -> ImageStore:
    return FileSeries(folder, geometry, OmeTiffFile if can_describe(geometry) else NpyFile)


FORMATS: Mapping[str, Callable[[Path, Geometry], ImageStore]] = {"ome-tiff": _ome_tiff}
"""By the name that a FileWriter is given: from a new, empty folder and a geometry to a store in it."""


def examine(path: Path) -> Found:
    """Read what a file says of itself; ValueError if no format of ours knows it."""
    for suffix, read in _EXAMINE.items():
        if path.name.endswith(suffix):
            return read(path)
    raise ValueError(f"{path} has the name of no format that is written here")


_EXAMINE: Mapping[str, Callable[[Path], Found]] = {".ome.tif": ome_tiff.examine, ".npy": npy.examine}
