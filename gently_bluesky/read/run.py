"""`Run`: a run read back from its folder.

A Run is a snapshot of what its journal held when it was asked for. The documents are the only source; the
manifest says where the bytes are. Where a journal is damaged, nothing is served as if it were whole.
"""

from collections.abc import Iterator, KeysView
from pathlib import Path, PurePath
from typing import TYPE_CHECKING

from gently_bluesky.errors import (
    DocumentError,
    JournalError,
    RunNotFoundError,
    StreamNotFoundError,
)
from gently_bluesky.read.beside import LeftBeside, left_beside
from gently_bluesky.read.filled import check_fillable, filled
from gently_bluesky.read.origin import RunOrigin, VolumeReader
from gently_bluesky.read.stream import Stream
from gently_bluesky.store.journal import Pair
from gently_bluesky.store.manifest import ManifestEntry
from gently_bluesky.store.streams import Doc, RunTable, VolumeRef
from gently_bluesky.store.tags import Note, tags_in

if TYPE_CHECKING:
    import xarray

    from gently_bluesky.read.lineage import Relative

__all__ = ["Run", "Stream"]


class Run:
    """One run; made by a `Catalog`.

    Parameters
    ----------
    origin
        What it is read from.
    start, stop
        What an index knows already; only the rest has then to be read.
    up_to_damage
        Whether to read what stands before the damage of a damaged journal.
    """

    def __init__(
        self, origin: RunOrigin, *, start: Doc | None = None, stop: Doc | None = None, up_to_damage: bool = False
    ) -> None:
        self._origin = origin
        self._assets: VolumeReader | None = None
        self._start, self._stop = start, stop
        self._documents: RunTable | None = None
        self._offset = 0
        self._damage: str | None = None
        self._up_to_damage = up_to_damage
        if start is None or stop is None:  # it may go on: this is the moment of the snapshot
            self._documents = self._read()

    @property
    def folder(self) -> Path:
        """Its folder; NotHereError if that is on another machine."""
        return self._origin.folder

    @property
    def home(self) -> PurePath:
        """What the paths of its files begin with: its folder; on another machine, as from the root there."""
        return self._origin.home

    @property
    def _table(self) -> RunTable:
        table = self._good_part()
        if self._damage is not None and not self._up_to_damage:
            raise JournalError(self._damage)
        return table

    def _good_part(self) -> RunTable:
        if self._documents is None:
            self._documents = self._read()
        return self._documents

    def _read(self) -> RunTable:
        table = RunTable()
        self._read_on(table)
        return table

    @property
    def assets(self) -> VolumeReader:
        """What reads volumes by their stream resource and their index in it, as documents name them."""
        if self._assets is None:
            self._assets = self._origin.reader(self._table)
        return self._assets

    def _read_on(self, table: RunTable) -> None:
        self._damage = None
        try:
            for offset, (name, doc) in self._origin.documents(self._offset):
                table(name, doc)
                self._offset = offset
        except FileNotFoundError as error:
            if self._start is not None and self._origin.is_there():
                self._damage = (
                    f"The journal of run {self.uid} is gone from {self.folder}; the index knows its start, and no "
                    "more. With a copy of the file in its place, run.refresh() reads all."
                )
                return
            raise RunNotFoundError(f"There is no run in {self.folder} any more.") from error
        except (JournalError, DocumentError) as error:
            self._damage = self._described(str(error))
        if self._damage is None and table.stop is None and self._stop is not None:
            self._damage = self._described("The stop document that the index knows is not there.")
        self._start, self._stop = table.start or self._start, table.stop or self._stop

    def _described(self, what: str) -> str:
        return self._origin.damage(what, self._offset)

    def refresh(self) -> "Run":
        """Take in what was journalled since; give the run itself."""
        self._read_on(self._good_part())
        self._assets = None
        return self

    def __repr__(self) -> str:
        streams = self._good_part().streams.items()
        parts = [
            self.exit_status or "no stop yet",
            ", ".join(f"{name} ({len(stream.rows())})" for name, stream in streams),
            *(["its journal is damaged, see run.damage"] if self._damage else []),
        ]
        what = f"scan {self.start.get('scan_id')} {self.start.get('plan_name')}"
        return f"<Run {self.uid[:8]} {what}: {'; '.join(parts)}>"

    # --- a damaged journal ----------------------------------------------------------------------------------

    @property
    def damage(self) -> str | None:
        """Where the journal is damaged, and what to do; None if it is not.

        Documents and streams of a damaged run raise a JournalError that says the same. Damage is a line that is
        not what was written, a document that refers to nothing before it, or the want of the stop document that
        the index knows.
        """
        self._good_part()
        return self._damage

    @property
    def up_to_damage(self) -> "Run":
        """The same run, read up to its damage: of the documents from there on, none is there.

        So events may be missing, and where a rewind repeated one, it may be the earlier one that is given.
        """
        return Run(self._origin, start=self._start, stop=self._stop, up_to_damage=True)

    # --- where it came from, and what came of it ------------------------------------------------------------

    @property
    def parents(self) -> "tuple[Relative, ...]":
        """The runs that it was made from, and what of each: as its start document names them, missing ones too."""
        return self._origin.catalog().relatives(self.uid, up=True)

    @property
    def children(self) -> "tuple[Relative, ...]":
        """The runs that were made from it, and from what of it; `catalog.lineage` gives further generations."""
        return self._origin.catalog().relatives(self.uid, up=False)

    # --- what was said of it afterwards ---------------------------------------------------------------------

    @property
    def tags(self) -> frozenset[str]:
        """The tags that it has now."""
        return tags_in(self._origin.notes())

    @property
    def notes(self) -> tuple[Note, ...]:
        """Every act of tagging and noting, in order: by whom, when, which tags came and went, what was said."""
        return tuple(self._origin.notes())

    def tag(self, *tags: str, by: str | None = None) -> None:
        """Add tags; "keep" is the one that retention never passes over. `by` is the login name if not given."""
        self._origin.add_note(by=by, added=tags)

    def untag(self, *tags: str, by: str | None = None) -> None:
        """Take tags away; that they were there stays in the notes. ValueError if one is not there."""
        if absent := sorted(set(tags) - self.tags):
            there = ", ".join(sorted(self.tags)) or "none"
            raise ValueError(f"Run {self.uid} has no tag {absent[0]!r}; its tags: {there}.")
        self._origin.add_note(by=by, removed=tags)

    def note(self, text: str, *, by: str | None = None) -> None:
        """Add a note."""
        self._origin.add_note(by=by, text=text)

    # --- documents ------------------------------------------------------------------------------------------

    @property
    def uid(self) -> str:
        """The run's uid."""
        return str(self.start["uid"])

    @property
    def start(self) -> Doc:
        """The start document."""
        if self._start is None:
            raise RunNotFoundError(f"The journal in {self.folder} holds no start document yet.")
        return self._start

    @property
    def stop(self) -> Doc | None:
        """The stop document; None if there was none yet."""
        return self._stop

    @property
    def exit_status(self) -> str | None:
        """How it ended: "success", "abort" or "fail", as the stop document says; None if there was none yet."""
        return None if self.stop is None else str(self.stop["exit_status"])

    @property
    def is_open(self) -> bool:
        """Whether there is no stop document: it is still being acquired, or it was interrupted."""
        return self.stop is None

    def documents(self, *, fill: bool = False, rebase: bool = True) -> Iterator[Pair]:
        """Give the documents as they were journalled, in order, up to this snapshot.

        Parameters
        ----------
        fill
            Put (lazy) arrays into the events, and leave out the documents that told where they are. The descriptor
            of a stream without events stays as it is.
        rebase
            Point uris under the recorded root to where the root is now; False gives them verbatim.

        Raises
        ------
        JournalError
            The journal is damaged; see `damage`. No document is given, lest a part pass for the whole.
        UnfillableError, VolumeMissingError, BadVolumeError
            With `fill`: as `check_fillable` raises them. No document is given.
        """
        table = self._table
        if fill:
            yield from filled(self._pairs(), table, self.assets)
            return
        yield from self._pairs(rebase=rebase)

    def _pairs(self, *, rebase: bool = True) -> Iterator[Pair]:
        return (pair for _, pair in self.journalled(rebase=rebase))

    def journalled(self, start: int = 0, *, rebase: bool = True) -> Iterator[tuple[int, Pair]]:
        """Give the documents from a byte of the journal on, each with the byte at which the next one begins.

        Parameters
        ----------
        start
            0, or a byte that this gave: so a reader goes on where it was.
        rebase
            As `documents` has it.

        Raises
        ------
        JournalError
            The journal is damaged.
        ValueError
            No document begins at this byte.
        """
        self._table  # noqa: B018 - raises, if the journal is damaged
        if start == self._offset:
            return
        if start > self._offset or not self._origin.begins_document(start):
            raise ValueError(f"No document of run {self.uid} begins at byte {start} of its journal.")
        for offset, pair in self._origin.documents(start, rebase=rebase):
            yield offset, pair
            if offset >= self._offset:
                return

    def check_fillable(self) -> int:
        """Hold that every array of the run can be had, and no part of it passes for the whole.

        Returns
        -------
        int
            The bytes of its arrays in files of ours. What others wrote is not counted: it says so when it is read.

        Raises
        ------
        UnfillableError
            A stream has volumes and no events to put them into, or no handler reads an asset that others wrote.
        VolumeMissingError, BadVolumeError
            A volume was removed, is gone or was cut short; or was given up, and its event does not say so.
        """
        return check_fillable(self._table, self.assets)

    @property
    def left_beside(self) -> tuple[LeftBeside, ...]:
        """Stored volumes of this run that none of its events names, as the manifest has them; not those removed.

        Interrupted volumes, once `recover` has closed the run, and whole ones that were never read into an event.
        """
        return tuple(left_beside(self.manifest, self.home, self.named))

    @property
    def named(self) -> frozenset[VolumeRef]:
        """Every volume that an event names, of those too that a rewind repeated."""
        rows = (row for stream in self._table.streams.values() for row in stream.every_row())
        return frozenset(ref for row in rows for ref in row.volumes.values())

    @property
    def journal_bytes(self) -> int:
        """How much of the journal was read: all that there was, but for damage."""
        self._good_part()
        return self._offset

    @property
    def manifest(self) -> list[ManifestEntry]:
        """What the manifest says now: where each stored volume is, and what was removed."""
        return self._origin.manifest()

    # --- streams --------------------------------------------------------------------------------------------

    def __getitem__(self, name: str) -> Stream:
        table = self._table.streams.get(name)
        if table is None:
            raise StreamNotFoundError(
                f"Run {self.uid} has no stream {name!r}; it has {list(self._table.streams)}."
            )
        return Stream(self.uid, table, self.assets)

    def to_xarray(self, stream: str = "primary", *, include_bad: bool = False) -> "xarray.Dataset":
        """Give a stream as a Dataset in micrometers and seconds, its images lazy dask arrays.

        Parameters
        ----------
        stream
            Its name.
        include_bad
            Whether computing images of events that are marked as not good is allowed.

        Returns
        -------
        xarray.Dataset
            What `Stream.read` gives: dimensions ``event``, ``z``, ``y``, ``x``; images of another size have their
            own, ``<data key>_z`` and so on. Coordinates beside those that it has there:

            - ``time_utc`` (event,), datetime64[ns]: ``time`` on the calendar; NaT where a fly scan gave no events.
              Of a derived run also ``measured_time_utc``, of ``measured_time``: ``time`` is when it was computed;
            - ``z_um``, ``y_um``, ``x_um``, each along its dimension: micrometers from the middle of the first
              voxel, indexed: ``data.sel(z_um=12.3, method="nearest")``. Where the spacing changed from event to
              event, (event, z) and not indexed; absent where the documents do not say it;
            - ``stage_x_um``, ``stage_y_um``, ``stage_z_um`` (event,): the stage, if the events have it.

            Where images do not agree in a coordinate, each has its own, ``<data key>_z_um``. Units are in
            attributes; those of the Dataset say which run and stream it is, and what the start document says.

        Raises
        ------
        StreamNotFoundError
            The run has no such stream.
        GeometryError
            The volumes of a data key differ in shape.

        Notes
        -----
        Computing images raises as reading them does: ``data.isel(event=data["good"].values)`` leaves bad ones out.
        """
        from gently_bluesky.read.dataset import measured  # noqa: PLC0415 - xarray takes 0.3 s

        said = ("scan_id", "plan_name", "session", "embryo", "operator", "purpose")
        about = {key: self.start[key] for key in said if key in self.start}
        data = measured(self[stream], include_bad=include_bad)
        return data.assign_attrs(run_uid=self.uid, stream=stream, **about)

    def __iter__(self) -> Iterator[str]:
        return iter(self._table.streams)

    def __contains__(self, name: object) -> bool:
        return name in self._table.streams

    def keys(self) -> KeysView[str]:
        """Names of the streams."""
        return self._table.streams.keys()
