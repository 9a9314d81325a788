"""`ServerReader`: the volumes and assets of a run of another machine; a `VolumeReader`.

What the manifest there says of all volumes is asked for once, where it is needed at all; pixels each time.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from gently_bluesky.read.assets import Pixels, Source
from gently_bluesky.read.maximum import maximum
from gently_bluesky.read.origin import Axis
from gently_bluesky.read.remote.connection import Connection, Geometry
from gently_bluesky.read.remote.pixels import RemotePixels
from gently_bluesky.store.facts import Found
from gently_bluesky.store.facts import Geometry as Planes
from gently_bluesky.store.manifest import ManifestEntry
from gently_bluesky.store.pyramid import Factors
from gently_bluesky.store.removed import as_before
from gently_bluesky.store.streams import Doc, Row, RunTable, VolumeRef

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class _Held:
    """What the manifest there says of a volume: its best form, whether one is at its place, its levels."""

    entry: ManifestEntry
    stored: bool
    pyramid: tuple[Factors, ...]


class ServerReader:
    """Reads the volumes that the documents of a run of another machine name.

    Parameters
    ----------
    connection, run
        Which server, and the uid of the run.
    table
        Its documents.
    """

    def __init__(self, connection: Connection, run: str, table: RunTable) -> None:
        self._connection = connection
        self._run = run
        self._table = table
        self._held: dict[VolumeRef, _Held] | None = None

    def data_key(self, resource: str) -> Doc:
        """Give what the descriptor says of the data key of a stream resource; KeyError if no document names it."""
        return self._table.data_key_of(resource)

    # --- what the manifest says -----------------------------------------------------------------------------

    def entry(self, ref: VolumeRef) -> ManifestEntry | None:
        """Give the manifest's entry of a volume of theirs, in its best form; None for one of others."""
        held = self._holding(ref)
        return None if held is None else held.entry

    def stored(self, refs: Sequence[VolumeRef]) -> set[VolumeRef]:
        """Give those of which a stored form is at its place now; of assets of others it is taken for granted."""
        self._held = self._asked_held() if refs else self._held
        return {ref for ref in refs if (held := self._holding(ref)) is None or held.stored}

    def pyramid(self, ref: VolumeRef) -> tuple[Factors, ...]:
        """Give by how much each level of a volume is smaller; () if it is in no OME-Zarr."""
        held = self._holding(ref)
        return () if held is None else held.pyramid

    def _holding(self, ref: VolumeRef) -> _Held | None:
        if self._held is None:  # whatever is in the documents stood in the manifest before
            self._held = self._asked_held()
        return self._held.get(ref)

    def _asked_held(self) -> dict[VolumeRef, _Held]:
        return self._connection.ask("/questions/held", _held_of, run=self._run)

    def look_again(self) -> None:
        """Forget what the manifest said."""
        self._held = None

    # --- what the server finds ------------------------------------------------------------------------------

    def check(self, ref: VolumeRef, data_key: Doc, *, partial: bool = False) -> int:  # noqa: ARG002
        """Raise what reading would, as far as no pixel must be read for that; give the bytes of its pixels."""
        return self._asked(ref, "check", int, partial=partial)

    def source(self, ref: VolumeRef) -> Source:
        """Give the stored form that is read there; its path is as from the root there."""
        return self._asked(ref, "source", _source_of)

    def frames_there(self, ref: VolumeRef) -> NDArray[np.bool_] | None:
        """Give which frames of a volume that was given up came, one a plane; None for any other."""
        entry = self.entry(ref)
        if entry is None or as_before(entry).state != "aborted":
            return None
        return self._asked(ref, "frames_there", lambda said: None if said is None else np.array(said, bool))

    def found(self, ref: VolumeRef) -> Found | None:
        """Give what the file of a volume says of it; None for one of others, or a file that says nothing."""
        return None if self.entry(ref) is None else self._asked(ref, "found", _found_of)

    def _asked(self, ref: VolumeRef, what: str, understand: Callable[[Any], T], **asked: Any) -> T:
        return self._connection.ask(
            f"/questions/{what}", lambda said: understand(said["value"]), **self._named(ref), **asked
        )

    def _named(self, ref: VolumeRef) -> dict[str, Any]:
        return {"run": self._run, "resource": ref.resource, "index": ref.index}

    # --- pixels ---------------------------------------------------------------------------------------------

    def volume(
        self,
        ref: VolumeRef,
        data_key: Doc,
        *,
        partial: bool = False,
        across: bool = False,  # noqa: ARG002 - the server knows better which form to read
    ) -> RemotePixels:
        """Give one volume; what is wrong with it is heard of when it is indexed."""

        def geometry() -> Geometry:
            held = self._holding(ref)
            if held is None:
                return self._asked(ref, "geometry", _geometry_of)
            if not held.stored or held.entry.state != "sealed":
                self.check(ref, data_key, partial=partial)
            return held.entry.shape, np.dtype(held.entry.dtype)

        asked = self._named(ref) | ({"partial": True} if partial else {})
        return RemotePixels(self._connection, asked, geometry, _promised(data_key))

    def level(self, ref: VolumeRef, level: int) -> RemotePixels:
        """Give one level of a volume; 1 is the first that is smaller."""

        def geometry() -> Geometry:
            held = self._holding(ref)
            if held is None or level >= len(held.pyramid):
                return self._asked(ref, "geometry", _geometry_of, level=level)
            by = (*[1] * len(held.entry.shape), *held.pyramid[level])[-len(held.entry.shape) :]
            shape = tuple(-(-size // each) for size, each in zip(held.entry.shape, by, strict=True))
            return shape, np.dtype(held.entry.dtype)

        return RemotePixels(self._connection, self._named(ref) | {"level": level}, geometry)

    def maximum(self, volume: Pixels, axis: Axis) -> NDArray[Any]:
        """Give the maximum of a volume along an axis: computed there, unless the volume is here."""
        return volume.maximum(axis) if isinstance(volume, RemotePixels) else maximum(volume, axis)

    def inline(self, row: Row, key: str) -> NDArray[Any]:
        """Give an array that stayed in its event."""
        return self._table.inline(row, key)

    def datum(self, datum_id: str) -> NDArray[Any]:
        """Give what a Datum of old names, read there."""
        return self._connection.pixels("/questions/datum", run=self._run, datum_id=datum_id)

    def check_datum(self, datum_id: str) -> None:
        """Raise an UnfillableError if there is no such datum, or no handler for it there."""
        self._connection.ask(
            "/questions/check_datum", lambda said: said["value"], run=self._run, datum_id=datum_id
        )


def _held_of(said: Any) -> dict[VolumeRef, _Held]:
    held: dict[VolumeRef, _Held] = {}
    for each in said["value"]:
        entry = ManifestEntry.from_line(each["entry"])
        levels = tuple((int(z), int(y), int(x)) for z, y, x in each["levels"])
        held[VolumeRef(entry.resource, entry.index or 0)] = _Held(entry, bool(each["stored"]), levels)
    return held


def _found_of(said: Any) -> Found | None:
    if said is None:
        return None
    shape, dtype = _geometry_of(said["geometry"])
    lists = {name: None if said[name] is None else tuple(said[name]) for name in ("times", "voxel_size_um")}
    return Found(**{**said, **lists, "geometry": Planes(shape, dtype)})


def _source_of(said: Any) -> Source:
    return Source(str(said["format"]), PurePosixPath(said["path"]), int(said["index"]))


def _geometry_of(said: Any) -> Geometry:
    return tuple(map(int, said["shape"])), np.dtype(said["dtype"])


def _promised(data_key: Doc) -> Geometry | None:
    shape, dtype = data_key.get("shape"), data_key.get("dtype_numpy")
    if not shape or not isinstance(dtype, str) or None in shape:
        return None
    try:
        return tuple(map(int, shape)), np.dtype(dtype)
    except (TypeError, ValueError):
        return None
