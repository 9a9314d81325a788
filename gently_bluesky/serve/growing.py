"""Volumes that no document names yet: one that is being acquired, or that was left when its run was interrupted.

A file of ours says itself which frames have come: each frame's time is written after its pixels. Reads heads of
files; changes nothing.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gently_bluesky.errors import VolumeMissingError
from gently_bluesky.read.assets import Pixels
from gently_bluesky.read.images import ImageSeries
from gently_bluesky.read.run import Run
from gently_bluesky.store.facts import Found
from gently_bluesky.store.formats import STORE, examine
from gently_bluesky.store.manifest import ManifestEntry, read_entries
from gently_bluesky.store.streams import VolumeRef


@dataclass(frozen=True, slots=True)
class Growing:
    """A volume that no manifest names yet.

    Attributes
    ----------
    path, index
        Its file, or its store, and which volume of its stream resource it is.
    found
        What it says of itself.
    """

    path: Path
    index: int
    found: Found

    @property
    def frames_there(self) -> NDArray[np.bool_]:
        """Which frames have come, in C order of what comes before (y, x)."""
        times = self.found.times or (0.0,) * self.found.geometry.planes
        return np.array(times, np.float64).astype(np.bool_)

    def pixels(self) -> Pixels:
        """Give it as it lies: frames that have not come are zeros."""
        if self.found.offset is None:
            from gently_bluesky.store.zarr_pixels import ZarrPixels  # noqa: PLC0415 - codecs that only Zarr needs

            return ZarrPixels(self.path, self.index, partial=True)
        geometry = self.found.geometry
        try:
            return np.memmap(self.path, geometry.dtype, "r", self.found.offset, geometry.shape)
        except (OSError, ValueError) as error:
            raise VolumeMissingError(f"Volume {self.index} of {self.found.data_key} went: {error}") from error

    def said(self) -> dict[str, Any]:
        """Give it as answers say it."""
        there = self.frames_there
        return {
            "data_key": self.found.data_key or "",
            "resource": self.found.resource_uid or "",
            "index": self.index,
            "shape": list(self.found.geometry.shape),
            "dtype": self.found.geometry.dtype.str,
            "frames_there": int(there.sum()),
            "frames": len(there),
        }


def growing_in(run: Run, entries: Sequence[ManifestEntry] | None = None) -> Iterator[Growing]:
    """Give the volume after the last one that the manifest has, of each series of files in a run's folder."""
    last: dict[str, int] = {}
    for entry in read_entries(run.folder) if entries is None else entries:
        if entry.path and entry.index is not None:
            name = entry.path.partition("/")[0]
            last[name] = max(entry.index, last.get(name, -1))
    for folder in sorted(run.folder.iterdir()):
        if folder.is_symlink() or not folder.is_dir():
            continue
        index = last.get(folder.name, -1) + 1
        found = _found(folder, index)
        if found is not None and found.found.run_uid == run.uid:
            yield found


def next_of(run: Run, series: ImageSeries) -> "Growing | VolumeRef | None":
    """Give the volume that the next event of a series will name, growing or just sealed; None if there is none.

    None, too, where it may be another stream that names it.
    """
    key = series.data_key
    if not run.is_open or sum(key in run[name].data_keys for name in run) > 1:
        return None
    last: dict[str, int] = {}  # what lies before it and was not named never will be
    for ref in run.named:
        last[ref.resource] = max(ref.index, last.get(ref.resource, -1))
    entries = read_entries(run.folder)
    for entry in entries:
        index = entry.index or 0
        if entry.data_key == key and entry.state == "sealed" and index > last.get(entry.resource, -1):
            return VolumeRef(entry.resource, index)
    growing = growing_in(run, entries)
    return next((each for each in growing if each.found.data_key == key), None)


def _found(folder: Path, index: int) -> Growing | None:
    names = (
        [folder] if folder.name.endswith(STORE) else [folder / f"{index:06d}{end}" for end in (".ome.tif", ".npy")]
    )
    for path in names:
        if path.exists() and not path.is_symlink():
            try:
                return Growing(path, index, examine(path, index))
            except (ValueError, OSError):  # not ours, or not whole yet
                return None
    return None


def growing_volume(run: Run, resource: str, index: int) -> Growing | None:
    """Give the growing volume of a stream resource with this index; None if there is none."""
    if not run.is_open:
        return None
    return next(
        (each for each in growing_in(run) if (each.found.resource_uid, each.index) == (resource, index)), None
    )
