"""What a root holds: of every run, which forms of which volumes are stored, and what is in the trash.

Read from index, manifests and tags alone; no pixel and, as a rule, no journal is opened, and files are asked for
their sizes only where that matters: ten thousand runs of ten volumes take seconds.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from stat import S_ISDIR
from typing import Any

from gently_bluesky.errors import JournalError
from gently_bluesky.store.formats import size_said
from gently_bluesky.store.index import IDENTITY_KEYS, IndexEntry, RootIndex, VolumeRow, entry_of
from gently_bluesky.store.journal import is_torn
from gently_bluesky.store.layout import TAGS
from gently_bluesky.store.manifest import ManifestEntry, by_path, read_entries
from gently_bluesky.store.removed import Removed, away
from gently_bluesky.store.tags import KEEP, read_tags

VolumeId = tuple[str, int | None]
"""Stream resource, and index in it."""


@dataclass(frozen=True, slots=True)
class StoredVolume:
    """One volume in a stored form, and the rows of the documents that name it: one, as a rule."""

    entry: ManifestEntry
    rows: tuple[VolumeRow, ...]

    @property
    def id(self) -> VolumeId:
        """Which volume of its run it is."""
        return self.entry.resource, self.entry.index


@dataclass(frozen=True, slots=True)
class StoredForm:
    """One path in a run folder: a file of one volume, or a store of several, which go or stay together.

    Attributes
    ----------
    path
        Relative to the run folder.
    format
        "ome-tiff", "npy" ...
    bytes
        What it takes on the disk.
    """

    path: str
    format: str
    bytes: int
    volumes: tuple[StoredVolume, ...]

    @property
    def volume_ids(self) -> tuple[tuple[str, int | None], ...]:
        """Data key and index of each volume."""
        return tuple((volume.entry.data_key, volume.entry.index) for volume in self.volumes)

    @property
    def embryos(self) -> tuple[str, ...]:
        """What its volumes show, as far as that is known."""
        return embryos_in(row for volume in self.volumes for row in volume.rows)


@dataclass(frozen=True, slots=True)
class Trashed:
    """One path that is in the trash, not in its run folder."""

    path: str
    bytes: int
    how: Removed
    embryos: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Holding:
    """One run, and what is stored of it.

    Attributes
    ----------
    folder
        Relative to the root, with forward slashes.
    ended
        When, seconds since the epoch; None if it has no stop document.
    tags
        None if they cannot be read.
    children
        uids of runs that were derived from it.
    """

    folder: str
    start: Mapping[str, Any]
    ended: float | None
    forms: tuple[StoredForm, ...]
    trashed: tuple[Trashed, ...]
    tags: frozenset[str] | None
    children: tuple[str, ...] = ()

    @property
    def uid(self) -> str:
        """The run's uid."""
        return str(self.start["uid"])

    @property
    def must_stay(self) -> str:
        """Why nothing of it may go, whatever a policy says; "" if it may."""
        if self.ended is None:
            return "it has no stop document: running, or to be recovered"
        return held_by_tags(self.tags)

    @property
    def has_children(self) -> str:
        """Why its pixels may not go, in every form; "" if they may."""
        return f"run {self.children[0][:8]} is derived from it" if self.children else ""


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A run of which nothing may go, because its manifest cannot be read."""

    folder: str
    why: str


def embryos_in(rows: Iterable[VolumeRow]) -> tuple[str, ...]:
    """Give the embryos that some rows name, in order."""
    return tuple(sorted({str(row.embryo) for row in rows if row.embryo is not None}))


def read_holdings(
    root: Path, measured: Callable[[Mapping[str, Any]], bool]
) -> tuple[list[Holding], list[Unreadable]]:
    """Give what every run holds, by the time of its start, and the runs whose manifests are damaged.

    Parameters
    ----------
    root
        A root.
    measured
        Says by its start document whether the files of a run are asked for their sizes; of the others it is
        believed what the manifest says.
    """
    index = RootIndex(root)
    entries = [index.whole(entry) for entry in list(index.entries())]
    children = children_of(entries)
    holdings, unreadable = [], []
    for entry in entries:
        try:
            related = children.get(entry.start["uid"], ())
            holdings.append(_holding(root, entry, related, measured(entry.start)))
        except (JournalError, OSError) as error:
            unreadable.append(Unreadable(entry.folder, str(error)))
    return holdings, unreadable


def held_by_tags(tags: frozenset[str] | None) -> str:
    """Give why a run with these tags must stay; None: they cannot be read; "" if it may go."""
    if tags is None:
        return "not known by its tags: tags.jsonl is damaged"
    return "tagged keep" if KEEP in tags else ""


def children_of(entries: list[IndexEntry]) -> dict[str, tuple[str, ...]]:
    """Give the runs that name others as parents in their start, by the uid of the parent."""
    children: defaultdict[str, dict[str, None]] = defaultdict(dict)  # each once, however much of a parent it names
    for entry in entries:
        parents = entry.start.get("parents")
        for parent in parents if isinstance(parents, list | tuple) else (parents,):
            uid = parent.get("run") if isinstance(parent, dict) else parent
            if isinstance(uid, str):
                children[uid][entry.start["uid"]] = None
    return {uid: tuple(found) for uid, found in children.items()}


def _holding(root: Path, entry: IndexEntry, children: tuple[str, ...], measured: bool) -> Holding:
    folder = root / entry.folder
    by_its_path = by_path(read_entries(folder))
    named = {(each.resource, each.index): each.data_key for entries in by_its_path.values() for each in entries}
    rows = _rows(root, entry, named)
    forms, trashed = [], []
    for path, entries in by_its_path.items():
        present = [each for each in entries if each.state != "removed"]
        if present:
            volumes = tuple(StoredVolume(each, rows[each.resource, each.index]) for each in entries)
            size = None if measured else _said_bytes(entries)
            size = bytes_on_disk(folder / path) if size is None else size
            forms.append(StoredForm(path, present[0].format, size, volumes))
        elif (how := away(entries)) is not None and how.deleted is None:
            copy = how.path(root)
            embryos = embryos_in(row for each in entries for row in rows[each.resource, each.index])
            trashed.append(Trashed(path, 0 if copy is None else bytes_on_disk(copy), how, embryos))
    ended = None if entry.stop is None else float(entry.stop.get("time") or entry.start["time"])
    return Holding(entry.folder, entry.start, ended, tuple(forms), tuple(trashed), tags_of(folder), children)


def _rows(
    root: Path, entry: IndexEntry, data_keys: Mapping[VolumeId, str]
) -> dict[VolumeId, tuple[VolumeRow, ...]]:
    """Give the rows that name each volume; one made of the start document for a volume that no event names."""
    known = _by_id(entry.volumes)
    if data_keys.keys() - known.keys():  # an older index, perhaps
        fresh = entry_of(root, root / entry.folder)
        known = known if fresh is None else _by_id(fresh.volumes)
    said: dict[str, Any] = {key: entry.start.get(key) for key in ("session", *IDENTITY_KEYS) if key != "good"}
    return {each: tuple(known.get(each) or [VolumeRow("", 0, key, **said)]) for each, key in data_keys.items()}


def _by_id(rows: tuple[VolumeRow, ...]) -> dict[VolumeId, list[VolumeRow]]:
    found: defaultdict[VolumeId, list[VolumeRow]] = defaultdict(list)
    for row in rows:
        if row.resource is not None:
            found[row.resource, row.index].append(row)
    return dict(found)


def _said_bytes(entries: list[ManifestEntry]) -> int | None:
    """Give what a stored form was written with; None where its manifest does not say."""
    sizes = [size for entry in entries if (size := size_said(entry)) is not None]
    return sum(sizes) if len(sizes) == len(entries) else None


def bytes_on_disk(path: Path) -> int:
    """Give the size of a file, or of all files in a folder; 0 if there is nothing."""
    try:
        status = path.stat()
    except OSError:
        return 0
    if S_ISDIR(status.st_mode):
        return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    return status.st_size


def tags_of(folder: Path) -> frozenset[str] | None:
    """Give the tags of a run; None if they cannot be read."""
    try:
        return None if is_torn(folder / TAGS) else read_tags(folder)
    except (JournalError, OSError):
        return None


def oldest_first(holdings: Sequence[Holding]) -> Iterator[tuple[Holding, StoredForm]]:
    """Give every stored form, those of the run that ended first before the others."""
    by_age = sorted(holdings, key=lambda each: (each.ended or float("inf"), each.folder))
    return ((holding, form) for holding in by_age for form in sorted(holding.forms, key=lambda form: form.path))
