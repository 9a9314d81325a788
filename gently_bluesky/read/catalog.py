"""`Catalog`: the runs under a root, and their volumes by what they show.

Opening one reads nothing but the root's mark; every question brings the view up to date. It takes no lock and
changes nothing.
"""

import datetime
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from gently_bluesky.errors import AmbiguousRunError, RunNotFoundError
from gently_bluesky.read.answers import Answer, why_none
from gently_bluesky.read.assets import AssetReader, HandlerRegistry
from gently_bluesky.read.folder import FolderOrigin
from gently_bluesky.read.lineage import Lineage, Relative, trace
from gently_bluesky.read.parentage import is_derived
from gently_bluesky.read.run import Run
from gently_bluesky.read.volumes import Volume, Volumes, fits, no_volumes
from gently_bluesky.read.words import counted, listed
from gently_bluesky.store.index import IndexEntry, RootIndex, VolumeRow
from gently_bluesky.store.layout import open_root
from gently_bluesky.store.streams import Doc, RunTable, VolumeRef
from gently_bluesky.store.strict_json import plain
from gently_bluesky.store.tags import read_tags

__all__ = ["Catalog", "Runs", "Session", "Volume", "Volumes"]

When = float | str | datetime.datetime


@dataclass(frozen=True, slots=True)
class Session:
    """A session: its name, when its first run started and its last one ended, its runs and embryos."""

    name: str
    since: float
    until: float
    runs: int
    embryos: tuple[str, ...]


class Runs(Answer[Run]):
    """Runs in answer to a question."""

    _of = "runs"


class Catalog:
    """The runs under a root.

    Parameters
    ----------
    root
        A folder that a FileWriter made; or the address of a server that has one, ``http://host:8000``.
    handlers
        For assets that others wrote: spec or mimetype -> handler class, as event_model has it.
    token
        For a server; the environment's GENTLY_TOKEN, if not given.

    Raises
    ------
    RootError
        The folder is no root, or was made by a newer version.
    ServerError
        There is no server, it refuses, or it is older or newer.
    """

    def __new__(cls, root: Path | str, **_: Any) -> "Catalog":
        """Give one of a folder, or of a server."""
        if cls is Catalog and isinstance(root, str) and root.startswith(("http://", "https://")):
            from gently_bluesky.read.remote.catalog import RemoteCatalog  # noqa: PLC0415 - it knows this module

            return super().__new__(RemoteCatalog)
        return super().__new__(cls)

    def __init__(
        self, root: Path | str, *, handlers: HandlerRegistry | None = None, token: str | None = None
    ) -> None:
        if token is not None:
            raise TypeError(f"A token is shown to a server, http://host:8000, and {root} is a folder.")
        self._root, self._uri = open_root(Path(root))
        self._handlers = dict(handlers or {})
        self._index = RootIndex(self._root)

    @property
    def root(self) -> Path:
        """Its folder; ElsewhereError if that is on another machine."""
        return self._root

    @property
    def where(self) -> str:
        """Where it is, as messages say it: the folder, or the server's address."""
        return str(self.root)

    def __repr__(self) -> str:
        return f"<Catalog {self.where}: {counted(len(self), 'run')}>"

    def __len__(self) -> int:
        return len(self._index.entries())

    def __iter__(self) -> Iterator[Run]:
        return map(self._run, reversed(self._index.entries()))

    def _run(self, entry: IndexEntry) -> Run:
        folder = self.root / entry.folder
        origin = FolderOrigin(self.root, folder, recorded_uri=self._uri, handlers=self._handlers, catalog=self)
        return Run(origin, start=entry.start, stop=entry.stop)

    def __getitem__(self, key: int | str) -> Run:
        """Give one run.

        Parameters
        ----------
        key
            Negative, also as text: counted from the newest, -1. Not negative: the newest run with this scan_id.
            Text: a uid, or its beginning.

        Raises
        ------
        RunNotFoundError
            There is none.
        AmbiguousRunError
            Several uids begin like that; the message lists them.
        """
        key, entries = asked_key(key), self._index.entries()
        if isinstance(key, str):
            return self._by_uid(entries, key)
        if key < 0:
            if -key > len(entries):
                raise RunNotFoundError(f"Runs in {self.root}: {len(entries)}. There is no run {key}.")
            return self._run(entries[key])
        found = [entry for entry in entries if entry.start.get("scan_id") == key]
        if not found:
            known = [entry.start.get("scan_id") for entry in entries[-5:]]
            raise RunNotFoundError(f"No run in {self.root} has scan_id {key}; the newest have {known}.")
        return self._run(found[-1])

    def _by_uid(self, entries: list[IndexEntry], key: str) -> Run:
        found = [entry for entry in entries if key and entry.start["uid"].startswith(key)]
        exact = [entry for entry in found if entry.start["uid"] == key]
        if not found:
            raise RunNotFoundError(f"No run in {self.root} has a uid that begins with {key!r}.")
        if len(exact or found) > 1:
            shown = ", ".join(f"{e.start['uid']} (scan {e.start.get('scan_id')}, {e.folder})" for e in found[:10])
            raise AmbiguousRunError(f"{len(found)} runs begin with {key!r}: {shown}. Give more of the uid.")
        return self._run((exact or found)[0])

    # --- lineage --------------------------------------------------------------------------------------------

    def lineage(
        self, run: Run | int | str, depth: int | None = None, *, up: bool = True, down: bool = True
    ) -> Lineage:
        """Give what a run came from and what came of it, from the start documents alone.

        Parameters
        ----------
        run
            A run, or what `catalog[...]` takes; also the uid of a run that is gone, if others name it.
        depth
            How many generations each way; None: all.
        up, down
            Whether what it came from, and what came of it, is wanted.

        Returns
        -------
        Lineage
            Its runs, with the edges between them; ``print`` shows it as a tree, ``.svg()`` draws it.

        Raises
        ------
        RunNotFoundError
            There is no such run, and none names it.
        """
        if depth is not None and depth < 0:
            raise ValueError(f"depth is {depth}; it must be 0 or more, or None for all generations.")
        try:
            uid = run.uid if isinstance(run, Run) else self[run].uid
        except AmbiguousRunError:
            raise
        except RunNotFoundError:
            uid = str(run)
            if not self.trace(uid, 1, up=False).edges:
                raise
        return self.trace(uid, depth, up=up, down=down)

    def trace(self, uid: str, depth: int | None = None, *, up: bool = True, down: bool = True) -> Lineage:
        """Give the lineage of a uid, whether there is such a run or not; see `lineage`."""
        entries = {entry.start["uid"]: entry for entry in self._index.entries()}
        starts = {uid: entry.start for uid, entry in entries.items()}
        statuses = {uid: entry.stop.get("exit_status") for uid, entry in entries.items() if entry.stop}
        return trace(uid, starts, statuses, depth=depth, up=up, down=down)

    def relatives(self, uid: str, *, up: bool) -> tuple[Relative, ...]:
        """Give the parents of a run (`up`), or its children, and what of which; see `Run.parents`."""
        edges = self.trace(uid, 1, up=up, down=not up).edges
        mine = [
            (edge, edge.parent if up else edge.child)
            for edge in edges
            if uid == (edge.child if up else edge.parent)
        ]
        known = self.known({other for _, other in mine})
        return tuple(Relative(other, edge, known.get(other)) for edge, other in mine)

    def known(self, uids: Collection[str]) -> dict[str, Run]:
        """Give those of some runs that there are."""
        entries = (entry for entry in self._index.entries() if entry.start["uid"] in uids)
        return {entry.start["uid"]: self._run(entry) for entry in entries}

    # --- questions ------------------------------------------------------------------------------------------

    def search(
        self,
        *,
        plan_name: str | None = None,
        since: When | None = None,
        until: When | None = None,
        tag: str | None = None,
        limit: int | None = None,
        **start_metadata: Any,
    ) -> Runs:
        """Give runs, newest first; without arguments all of them. Where there are none, the empty list says why.

        Parameters
        ----------
        plan_name
            The plan.
        since, until
            When the run started, both inclusive: seconds since the epoch, a datetime, or ISO 8601 text; local
            time, where no zone is given. A date alone is the whole day.
        tag
            A tag that they have now.
        limit
            The newest so many; all, if None.
        start_metadata
            What the start document must say, e.g. ``session="2026-11-23"``, ``roi=(1, 2)``; for ``embryo``, events
            may say it as well. Compared as documents hold it: a tuple is a list, a number of numpy's a number.
        """
        asked = {"plan_name": plan_name, "tag": tag}
        what = start_metadata | {key: value for key, value in asked.items() if value is not None}
        found = self._searched(since, until, limit, what)
        return Runs(map(self._run, found), why_none=found.why_none, available=found.available)

    def starts(
        self, *, since: When | None = None, until: When | None = None, limit: int | None = None, **what: Any
    ) -> Answer[Doc]:
        """Give the start documents of the runs that `search` gives, and open no journal for it."""
        found = self._searched(since, until, limit, what)
        return Answer((entry.start for entry in found), why_none=found.why_none, available=found.available)

    def _searched(
        self, since: When | None, until: When | None, limit: int | None, asked: Mapping[str, Any]
    ) -> Answer[IndexEntry]:
        if limit is not None and limit < 0:
            raise ValueError(f"limit is {limit}; it must be 0 or more, or None for all.")
        what: dict[str, Any] = plain(dict(asked), "the question")
        fitting = (entry for entry in reversed(self._between(since, until)) if self._fits(entry, what))
        found = Answer(islice(fitting, limit))
        return found if found or limit == 0 else self._none_found(self._between(since, until), what)

    def _between(self, since: When | None, until: When | None) -> list[IndexEntry]:
        low = float("-inf") if since is None else seconds(since)
        high = float("inf") if until is None else seconds(until, end=True)
        return [entry for entry in self._index.entries() if low <= entry.start["time"] <= high]

    def _fits(self, entry: IndexEntry, what: Mapping[str, Any]) -> bool:
        return all(value in self._said(entry, key) for key, value in what.items())

    def _said(self, entry: IndexEntry, key: str) -> list[Any]:
        """Give what a run says of a part of a question: its start; of tags itself, of embryos its events, too."""
        if key == "tag":
            return sorted(read_tags(self.root / entry.folder))
        said = [plain(entry.start[key])] if key in entry.start else []
        return said if key != "embryo" else said + [row.embryo for row in self._index.whole(entry).volumes]

    def _none_found(self, there: Sequence[IndexEntry], what: Mapping[str, Any]) -> Answer[IndexEntry]:
        if not there:
            return Answer(
                why_none="there are none yet" if not self else "none started in the time that was asked for"
            )
        known = {key for entry in there for key in entry.start} | {"embryo", "tag"}
        if unknown := sorted(what.keys() - known):
            return Answer(why_none=f"no start document says {unknown[0]!r}; they say {listed(sorted(known))}")
        why, available = why_none(there, what, self._said)
        return Answer(why_none=why, available=available)

    def volumes(
        self,
        *,
        since: When | None = None,
        until: When | None = None,
        include_bad: bool = False,
        stored: bool = False,
        derived: bool | None = False,
        **what: Any,
    ) -> Volumes:
        """Give volumes, newest first; where there are none, the empty list says why, and what there is.

        Parameters
        ----------
        since, until
            When their run started, as in `search`.
        include_bad
            Give those of events that are marked as not good, too.
        stored
            Only those that are still stored, as `ImageSeries.stored` has it.
        derived
            False: those that cameras took; True: those that were derived from others; None: both.
        what
            session, embryo, timepoint, position, view, channel, stream, data_key: what it must be.

        Raises
        ------
        TypeError
            There is nothing of that name to ask for.
        """
        unknown = what.keys() - set(VolumeRow.__slots__)
        if unknown:
            raise TypeError(
                f"Volumes cannot be asked by {sorted(unknown)}; by {list(VolumeRow.__slots__)} they can."
            )
        what = plain(what, "the question")
        session = {"session": what["session"]} if what.get("session") is not None else {}
        found = [
            Volume(uid, row, self.__getitem__)
            for uid, row in self._rows(since, until, session, derived)
            if (row.good or include_bad) and fits(row, what)
        ]
        if not found:
            return no_volumes([row for _, row in self._rows(since, until, {}, derived)], what)
        if stored and not (found := self._still_stored(found)):
            return Volumes(why_none="what would fit is not stored any more; without stored=True it is given")
        return Volumes(sorted(found, key=lambda volume: volume.row.time or 0.0, reverse=True))

    def _rows(
        self, since: When | None, until: When | None, metadata: Mapping[str, Any], derived: bool | None
    ) -> Iterator[tuple[str, VolumeRow]]:
        for entry in self._between(since, until):
            if derived in {None, is_derived(entry.start)} and self._fits(entry, metadata):
                yield from ((entry.start["uid"], row) for row in self._index.whole(entry).volumes if row.data_key)

    def _still_stored(self, volumes: Sequence[Volume]) -> list[Volume]:
        folders = {entry.start["uid"]: self.root / entry.folder for entry in self._index.entries()}
        refs: dict[str, list[VolumeRef]] = {each.run_uid: [] for each in volumes}
        for each in volumes:
            if each.row.ref is not None:
                refs[each.run_uid].append(each.row.ref)
        stored = {uid: AssetReader(folders[uid], RunTable(), {}).stored(its) for uid, its in refs.items()}
        return [each for each in volumes if each.row.ref is None or each.row.ref in stored[each.run_uid]]

    def sessions(self) -> list[Session]:
        """Give the sessions, the newest first."""
        by_name: dict[str, list[IndexEntry]] = {}
        for entry in map(self._index.whole, list(self._index.entries())):
            if (name := entry.start.get("session")) is not None:
                by_name.setdefault(str(name), []).append(entry)
        sessions = []
        for name, entries in by_name.items():
            rows = [row for entry in entries for row in entry.volumes]
            ends = [entry.stop["time"] if entry.stop else entry.start["time"] for entry in entries]
            embryos = dict.fromkeys(str(row.embryo) for row in rows if row.embryo is not None)
            sessions.append(
                Session(name, entries[0].start["time"], max(ends), len(entries), tuple(sorted(embryos)))
            )
        return sorted(sessions, key=lambda session: session.since, reverse=True)

    def timepoints(self, session: str, embryo: str) -> list[int]:
        """Give the timepoints of an embryo in a session that there are, bad volumes included, in order."""
        rows = (
            row
            for entry in self._index.entries()
            if self._fits(entry, {"session": session})
            for row in self._index.whole(entry).volumes
            if row.embryo == embryo
        )
        return sorted({row.timepoint for row in rows if type(row.timepoint) is int and row.timepoint >= 0})

    def next_timepoint(self, session: str, embryo: str) -> int:
        """Give the timepoint after the last one of an embryo in a session; 0 before the first."""
        return max(self.timepoints(session, embryo), default=-1) + 1

    def next_scan_id(self) -> int:
        """Give the scan_id after the highest one; 1 before the first."""
        known = (entry.start.get("scan_id") for entry in self._index.entries())
        return max((scan_id for scan_id in known if isinstance(scan_id, int)), default=0) + 1


def asked_key(key: int | str) -> int | str:
    """Give what a run is asked for by, -1 as text for a number; TypeError if nothing can be asked by it."""
    if type(key) not in {int, str} and not isinstance(key, str | np.integer):
        raise TypeError(f"A run is asked for by -1, a scan_id, or a uid or its beginning, not by {key!r}.")
    if isinstance(key, str):
        return int(key) if re.fullmatch(r"-[1-9]\d*", key) else key
    return int(key)


def seconds(when: When, *, end: bool = False) -> float:
    """Give a moment in seconds since the epoch; of a date alone, with `end`, its last one. ValueError."""
    if isinstance(when, str):
        whole_day = end and re.fullmatch(r"\d{4}-\d\d-\d\d", when)
        try:
            when = datetime.datetime.fromisoformat(when)
            when += datetime.timedelta(days=1, microseconds=-1) if whole_day else datetime.timedelta()
        except (ValueError, OverflowError):
            raise ValueError(f"{when!r} is no time; write it like 2026-11-23 or 2026-11-23T18:30.") from None
    try:
        return when.timestamp() if isinstance(when, datetime.datetime) else float(when)
    except OverflowError:
        raise ValueError(f"{when!r:.40} is no time: it is too far away.") from None
