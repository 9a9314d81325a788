"""Where a run comes from: `RunOrigin` gives its documents and what was said of it, `VolumeReader` its pixels.

A `Run` and its image series know these two protocols and nothing of what stands behind them: a folder of this
machine, or a server of another.
"""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from gently_bluesky.store.facts import Found
from gently_bluesky.store.journal import Pair
from gently_bluesky.store.manifest import ManifestEntry
from gently_bluesky.store.pyramid import Factors
from gently_bluesky.store.streams import Doc, Row, RunTable, VolumeRef
from gently_bluesky.store.tags import Note

if TYPE_CHECKING:
    from gently_bluesky.read.assets import Pixels, Source
    from gently_bluesky.read.catalog import Catalog

Axis = Literal["z", "y", "x"]


class RunOrigin(Protocol):
    """What a run is read from."""

    @property
    def folder(self) -> Path:
        """Its folder on this machine; NotHereError if it is on another."""

    @property
    def home(self) -> PurePath:
        """What the paths of its files begin with: its folder; on another machine, as from the root there."""

    def is_there(self) -> bool:
        """Whether there is such a run, whatever state its journal is in."""

    def begins_document(self, offset: int) -> bool:
        """Whether a document may begin at an offset."""

    def documents(self, start: int = 0, *, rebase: bool = True) -> Iterator[tuple[int, Pair]]:
        """Give the documents from an offset on, as they are there now, each with the offset after it.

        With `rebase`, uris under the recorded root point to where the root is now.

        Raises
        ------
        JournalError
            What comes next is damaged.
        FileNotFoundError
            There is no journal.
        """

    def damage(self, what: str, offset: int) -> str:
        """Say of what is wrong with the document at an offset where that is, and what to do."""

    def manifest(self) -> list[ManifestEntry]:
        """Give what the manifest says now."""

    def notes(self) -> Iterator[Note]:
        """Give every act of tagging and noting, in order."""

    def add_note(
        self, *, by: str | None, added: Iterable[str] = (), removed: Iterable[str] = (), text: str = ""
    ) -> None:
        """Add an act; by the login name, if not said."""

    def reader(self, table: RunTable) -> "VolumeReader":
        """Give what reads the volumes that its documents name."""

    def catalog(self) -> "Catalog":
        """Give the catalog of its root."""


class VolumeReader(Protocol):
    """Reads the volumes and assets that a run's documents name; see `AssetReader`."""

    def entry(self, ref: VolumeRef) -> ManifestEntry | None:
        """Give the manifest's entry of a volume of ours, in its best form; None for a foreign one."""

    def data_key(self, resource: str) -> Doc:
        """Give what the descriptor says of the data key of a stream resource; KeyError if no document names it."""

    def stored(self, refs: Sequence[VolumeRef]) -> set[VolumeRef]:
        """Give those of which a stored form is at its place now."""

    def pyramid(self, ref: VolumeRef) -> tuple[Factors, ...]:
        """Give by how much each level of a volume is smaller, the whole one first; () if it has none."""

    def level(self, ref: VolumeRef, level: int) -> "Pixels":
        """Give one level of a volume."""

    def check(self, ref: VolumeRef, data_key: Doc, *, partial: bool = False) -> int:
        """Raise what `volume` would, as far as no pixel must be read for that; give the bytes of its pixels."""

    def volume(self, ref: VolumeRef, data_key: Doc, *, partial: bool = False, across: bool = False) -> "Pixels":
        """Give one volume."""

    def maximum(self, volume: "Pixels", axis: Axis) -> NDArray[Any]:
        """Give the maximum of a volume (z, y, x) that it gave, along an axis."""

    def look_again(self) -> None:
        """Forget where volumes were."""

    def source(self, ref: VolumeRef) -> "Source":
        """Give the stored form that `volume` reads."""

    def found(self, ref: VolumeRef) -> Found | None:
        """Give what the file of a volume says of it; None where that is not known."""

    def frames_there(self, ref: VolumeRef) -> NDArray[np.bool_] | None:
        """Give which frames of a volume that was given up came, one a plane; None for any other."""

    def inline(self, row: Row, key: str) -> NDArray[Any]:
        """Give an array that stayed in its event."""

    def datum(self, datum_id: str) -> NDArray[Any]:
        """Give what a Datum of old names."""

    def check_datum(self, datum_id: str) -> None:
        """Raise an UnfillableError if there is no such datum, or nothing that reads it."""
