"""`Coming`: volumes of one run while their frames come, as far as a file says which came.

An OME-TIFF is whole from its creation on and has a time for every frame that came; so the newest frame is one
small read and one plane. Volumes that are written as OME-Zarr are not looked at before they are sealed.
"""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gently_bluesky.store.facts import Found
from gently_bluesky.store.ome_tiff import examine, times_now

_SUFFIX = ".ome.tif"


@dataclass(frozen=True, slots=True)
class Frame:
    """The newest frame of a volume: which plane of which file, and how many of its frames came."""

    path: Path
    found: Found
    plane: int
    came: int

    def pixels(self) -> NDArray[Any]:
        """Read it: (y, x)."""
        geometry = self.found.geometry
        offset = (self.found.offset or 0) + self.plane * geometry.plane_bytes
        count = geometry.plane_bytes // geometry.dtype.itemsize
        return np.fromfile(self.path, geometry.dtype, count, offset=offset).reshape(geometry.plane_shape)


class Projecting:
    """The maximum of a volume, taken of its frames as they come, so that it is there when the last one is."""

    def __init__(self, path: Path, found: Found) -> None:
        self._path = path
        self._found = found
        self._taken = np.zeros(found.geometry.planes, bool)
        self._maximum: NDArray[Any] | None = None

    def go_on(self) -> None:
        """Take in the frames that came since."""
        came = times_now(self._path, self._found) != 0
        for plane in np.flatnonzero(came & ~self._taken):
            pixels = Frame(self._path, self._found, int(plane), 0).pixels()
            if self._maximum is None:
                self._maximum = pixels
            else:
                np.maximum(self._maximum, pixels, out=self._maximum)
            self._taken[plane] = True

    def whole(self) -> NDArray[Any] | None:
        """Give it, (y, x), once all frames are there; None before."""
        self.go_on()
        return self._maximum if self._taken.all() else None


class Coming:
    """The newest file of each stream resource of a run."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._listed_ns = 0
        self._newest: dict[Path, int] = {}
        self._files: dict[Path, Found] = {}

    def frames(self) -> Iterator[Frame]:
        """Give the newest frame of each resource, if its newest volume has one."""
        with contextlib.suppress(FileNotFoundError):
            self._look_for_resources()
        for folder in self._newest:
            with contextlib.suppress(OSError, ValueError):  # it is on its way: the next look finds it
                path = self._newest_file(folder)
                found = self._files.get(path) or examine(path)
                self._files = {path: found} | {p: f for p, f in self._files.items() if p.parent != folder}
                times = times_now(path, found)
                if came := int(np.count_nonzero(times)):
                    yield Frame(path, found, int(np.argmax(times)), came)

    def _look_for_resources(self) -> None:
        changed_ns = self._folder.stat().st_mtime_ns
        if changed_ns == self._listed_ns and self._newest:
            return
        self._listed_ns = changed_ns
        for folder in self._folder.iterdir():
            if folder not in self._newest and folder.is_dir() and not folder.is_symlink():
                names = [path.name.removesuffix(_SUFFIX) for path in folder.glob(f"*{_SUFFIX}")]
                if numbers := [int(name) for name in names if name.isdecimal()]:
                    self._newest[folder] = max(numbers)

    def _newest_file(self, folder: Path) -> Path:
        while (folder / f"{self._newest[folder] + 1:06d}{_SUFFIX}").exists():
            self._newest[folder] += 1
        return folder / f"{self._newest[folder]:06d}{_SUFFIX}"
