"""The index: what a catalog must know of every run to find it, in one file that only grows.

It is a cache over the run folders. The folders decide which runs there are; a run that the index does not know,
or knows without its stop, is read from its own journal. So the index may be missing, torn or behind, and
answers stay right.
"""

import contextlib
import itertools
import logging
import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from gently_bluesky.errors import DocumentError, JournalError, RunLockedError
from gently_bluesky.store.documents import check_document
from gently_bluesky.store.journal import append_shared, read_documents, read_lines, read_start, rewrite_shared
from gently_bluesky.store.layout import without_links
from gently_bluesky.store.streams import Doc, Row, RunTable, VolumeRef, is_good
from gently_bluesky.store.strict_json import plain, restored

log = logging.getLogger(__name__)

IDENTITY_KEYS = ("embryo", "timepoint", "position", "channel", "good")
"""Data keys of events that say what a volume shows."""

_INDEX = Path("index", "runs.jsonl")
_SETTLED_S = 2.0  # a folder's time is too coarse to tell two changes apart that lie closer


@dataclass(frozen=True, slots=True)
class VolumeRow:
    """One volume by what it shows, and its index in which stream resource; None where documents do not say."""

    stream: str
    seq_num: int
    data_key: str
    time: float | None = None
    session: str | None = None
    embryo: str | None = None
    timepoint: int | None = None
    position: Any = None
    view: str | None = None
    channel: str | None = None
    good: bool = True
    resource: str | None = None
    index: int | None = None

    @property
    def ref(self) -> VolumeRef | None:
        """What a manifest knows it by; None for an array that stayed in its event."""
        return None if self.resource is None else VolumeRef(self.resource, self.index or 0)


@dataclass(frozen=True, slots=True)
class IndexEntry:
    """One run: its folder relative to the root, its start and stop, and its volumes once it has stopped.

    All as a journal is read, nan and bytes included; `line` spells it.
    """

    folder: str
    start: Doc
    stop: Doc | None = None
    volumes: tuple[VolumeRow, ...] = ()

    def line(self) -> dict[str, Any]:
        """Give the entry as it is written."""
        line: dict[str, Any] = plain(self._parts(), "entry of the index")
        return line

    def _parts(self) -> dict[str, Any]:
        names = [item.name for item in fields(VolumeRow)]
        rows = [[getattr(row, name) for name in names] for row in self.volumes]
        return {"folder": self.folder, "start": self.start, "stop": self.stop, "volumes": rows}

    def as_read(self) -> "IndexEntry":
        """Give an entry that was made of plain documents as it will be read from the index."""
        return IndexEntry.from_line(restored(self._parts()))

    @classmethod
    def from_line(cls, line: Mapping[str, Any]) -> "IndexEntry":
        """Give back what `line` gave; KeyError or TypeError for anything else."""
        folder, start, stop = line["folder"], line["start"], line["stop"]
        check_document("start", start)
        if stop is not None:
            check_document("stop", stop, whole=False)
        volumes = tuple(VolumeRow(*row) for row in line["volumes"])
        if not (isinstance(folder, str) and all(map(_is_sound, volumes))):
            raise TypeError(f"no entry of an index: {line!r:.80}")
        return cls(folder, start, stop, volumes)


def _is_sound(row: VolumeRow) -> bool:
    kinds = {"stream": str, "seq_num": int, "data_key": str, "time": int | float | None}
    return all(isinstance(getattr(row, name), kind) for name, kind in kinds.items())


def shown_by(row: Row, start: Mapping[str, Any]) -> dict[str, Any]:
    """Give what the volumes of an event show, by the fields of a VolumeRow; its word goes before its start's."""
    said: dict[str, Any] = {key: row.data.get(key, start.get(key)) for key in IDENTITY_KEYS}
    return said | {"session": start.get("session"), "good": is_good(row.data)}


def volume_rows(run: RunTable) -> Iterator[VolumeRow]:
    """Give the volumes of a run, by stream and seq_num; an event's word goes before its start's.

    An event with a timepoint and no volume in a file gives a row without a data key: its timepoint is taken.
    """
    start = run.start or {}
    for stream in run.streams.values():
        images = {key: entry for key, entry in stream.data_keys.items() if entry.get("external")}
        for row in stream.rows() if images or "timepoint" in stream.data_keys else ():
            said = shown_by(row, start)
            # a small array stays in its event, and some events have none at all
            there = [key for key in images if images[key]["external"] != "STREAM:" or key in row.volumes]
            for key in there:
                ref = row.volumes.get(key)
                where: dict[str, Any] = {} if ref is None else {"resource": ref.resource, "index": ref.index}
                view = images[key].get("view")
                yield VolumeRow(stream.name, row.seq_num, key, row.time, view=view, **said, **where)
            if not there and said["timepoint"] is not None:
                yield VolumeRow(stream.name, row.seq_num, "", row.time, **said)


def entry_of(root: Path, folder: Path) -> IndexEntry | None:
    """Read a run folder into an entry; None if its journal holds no start yet.

    Of a journal that is damaged, what comes before the damage counts.
    """
    run = RunTable(keys=IDENTITY_KEYS)
    with contextlib.suppress(FileNotFoundError):
        try:
            for _, (name, doc) in read_documents(folder):
                run(name, doc)
        except (JournalError, DocumentError) as error:
            log.warning("a run is known only in part: %s", error)
    if run.start is None:
        return None
    return IndexEntry(folder.relative_to(root).as_posix(), run.start, run.stop, tuple(volume_rows(run)))


def append_entry(root: Path, entry: IndexEntry) -> None:
    """Add a line to the index. A failure is logged and no more: the run's own journal has it all."""
    path = root / _INDEX
    try:
        without_links(root, _INDEX.parent).mkdir(exist_ok=True)
        append_shared(path, [entry.line()], durable=False)
    except (OSError, RunLockedError) as error:
        log.warning("the index of %s was not brought up to date (%s); answers stay right", root, error)


def run_folders(root: Path) -> list[Path]:
    """Give the folders of all runs under a root, also of those that never began, by the days of their start."""
    return sorted(RootIndex(root).folders())


def read_index(root: Path) -> dict[str, IndexEntry]:
    """Give what the index holds, by folder, and nothing else; damaged lines are passed over."""
    return RootIndex(root).read()


def reindex(root: Path) -> int:
    """Write the index anew, from the run folders; give how many runs it holds.

    Runs that end meanwhile are not lost from it. Of a run whose journal has lost its start or its stop since it
    was indexed, the old entry stays: there is no other trace of it.

    Raises
    ------
    RunLockedError
        Another process did not let go of the index.
    """
    entries: dict[Path, IndexEntry] = {}
    before = read_index(root)

    def all_entries() -> list[IndexEntry]:
        for folder in run_folders(root):
            if folder in entries:
                continue
            entry = entry_of(root, folder)
            if entry is None or entry.stop is None:
                entry = before.get(folder.relative_to(root).as_posix())
            if entry is not None and entry.stop is not None:
                entries[folder] = entry
        return sorted(entries.values(), key=lambda entry: (entry.stop or {})["time"])

    all_entries()  # most of the work, while others may append
    without_links(root, _INDEX.parent).mkdir(exist_ok=True)
    rewrite_shared(root / _INDEX, lambda: [entry.line() for entry in all_entries()])
    return len(entries)


class RootIndex:
    """All runs under a root, newest last, brought up to date at every call of `entries`."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._offset = 0
        self._known: dict[str, IndexEntry] = {}
        self._identity: tuple[int, int] | None = None
        self._listings: dict[Path, tuple[int, list[Path]]] = {}
        self._sorted: list[IndexEntry] | None = None
        self._damaged: set[Path] = set()

    def entries(self) -> list[IndexEntry]:
        """Give every run, by the time of its start; those without a stop may have gone on meanwhile."""
        changed = self._read_index()
        present = {folder.relative_to(self.root).as_posix(): folder for folder in self.folders()}
        for gone in self._known.keys() - present.keys():
            del self._known[gone]
            changed = True
        for name in present.keys() - self._known.keys():
            start = self.start(present[name])
            if start is not None:
                self._known[name] = IndexEntry(name, start)
                changed = True
        if changed or self._sorted is None:
            self._sorted = sorted(self._known.values(), key=lambda e: (e.start["time"], e.start["uid"]))
        return self._sorted

    def read(self) -> dict[str, IndexEntry]:
        """Give what the index holds, by folder, whether the folders are there or not."""
        self._read_index()
        return dict(self._known)

    def start(self, folder: Path) -> Doc | None:
        """Give the start document of a run folder; None if there is none yet, or it is damaged."""
        try:
            start = read_start(folder)
            check_document("start", start or {}, whole=start is not None)
        except (JournalError, DocumentError) as error:
            if folder not in self._damaged:
                self._damaged.add(folder)
                log.warning("a run is left out: %s", error)
            return None
        return start

    def whole(self, entry: IndexEntry) -> IndexEntry:
        """Give an entry with its stop and its volumes: as it is if it has stopped, else from its journal."""
        if entry.stop is not None:
            return entry
        fresh = entry_of(self.root, self.root / entry.folder) or entry
        if fresh.stop is not None:
            self._known[entry.folder] = fresh
            self._sorted = None
        return fresh

    def _read_index(self) -> bool:
        path = self.root / _INDEX
        try:
            status = path.stat()
        except OSError:
            return False
        identity = (status.st_dev, status.st_ino)
        if identity != self._identity or status.st_size < self._offset:
            self._identity, self._offset = identity, 0
        changed = False
        while self._offset < status.st_size:
            before = self._offset
            try:
                for offset, line in read_lines(path, self._offset):
                    self._offset = offset
                    entry = IndexEntry.from_line(line)
                    self._known[entry.folder] = entry
                    changed = True
                break
            except OSError:
                break
            except (JournalError, DocumentError, KeyError, TypeError, AttributeError):
                self._offset = self._after_damaged_line(path, max(before, self._offset))
        return changed

    @staticmethod
    def _after_damaged_line(path: Path, offset: int) -> int:
        with path.open("rb") as file:
            file.seek(offset)
            return offset + len(file.readline())

    def folders(self) -> Iterator[Path]:
        """Give the folders of all runs. Links are not followed: a root is one tree."""
        return itertools.chain.from_iterable(map(self.folders_of, self.days()))

    def days(self) -> Iterator[Path]:
        """Give the folders of the days."""
        runs = self.root / "runs"
        for year in () if runs.is_symlink() else self._children(runs):
            for month in self._children(year):
                yield from self._children(month)

    def folders_of(self, day: Path) -> list[Path]:
        """Give the run folders in one of `days`; nothing is listed that has not changed."""
        return self._children(day)

    def _children(self, folder: Path) -> list[Path]:
        try:
            changed_ns = folder.stat().st_mtime_ns
            known = self._listings.get(folder)
            if known is not None and known[0] == changed_ns:
                return known[1]
            with os.scandir(folder) as items:
                children = [Path(item.path) for item in items if item.is_dir(follow_symlinks=False)]
        except (FileNotFoundError, NotADirectoryError):
            return []
        if time.time_ns() - changed_ns > _SETTLED_S * 1e9:
            self._listings[folder] = (changed_ns, children)
        return children
