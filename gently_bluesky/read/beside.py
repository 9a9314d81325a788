"""`LeftBeside`: a volume of a run that is stored and that no event names."""

from collections.abc import Container, Iterable, Iterator
from dataclasses import dataclass
from pathlib import PurePath

import numpy as np

from gently_bluesky.store.facts import Geometry
from gently_bluesky.store.manifest import ManifestEntry
from gently_bluesky.store.streams import VolumeRef


@dataclass(frozen=True, slots=True)
class LeftBeside:
    """A stored volume that no event names.

    Attributes
    ----------
    data_key, index, path
        What it shows, its index in the stream resource, and where it is: a file, or a store of several.
    frames, planes
        How many frames came, None if that is not known, and how many should have.
    reason
        Why it was given up; "" if it is whole.
    """

    data_key: str
    index: int
    path: PurePath
    frames: int | None
    planes: int
    reason: str


def left_beside(
    entries: Iterable[ManifestEntry], home: PurePath, named: Container[VolumeRef]
) -> Iterator[LeftBeside]:
    """Give what the manifest of a run names and its events, `named`, do not, but for what was removed.

    `home` is what the paths of its files begin with.
    """
    for entry in entries:
        if entry.index is None or entry.state == "removed" or VolumeRef(entry.resource, entry.index) in named:
            continue
        planes = Geometry(entry.shape, np.dtype(entry.dtype)).planes
        frames = planes if entry.state == "sealed" else entry.details.get("frames")
        reason = str(entry.details.get("reason", ""))
        yield LeftBeside(entry.data_key, entry.index, home / entry.path, frames, planes, reason)
