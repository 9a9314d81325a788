"""Whether the files of one run are those that its documents and its manifest name, and hold what these say.

Documents against manifest, manifest against files, and what lies there that nobody names. A volume that was
removed by retention, given up, or never referenced is not unknown: it is a note.
"""

import threading
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from glob import escape
from pathlib import Path

import numpy as np

from gently_bluesky.keep.finding import Finding, Severity
from gently_bluesky.keep.stored import StoredFiles
from gently_bluesky.store.facts import Found
from gently_bluesky.store.formats import examine, hold_store, name_of, strangers_in
from gently_bluesky.store.layout import JOURNAL, LOCK, MANIFEST, TAGS, WRITER, name_from_template, uri_path
from gently_bluesky.store.manifest import ManifestEntry, by_path, read_entries
from gently_bluesky.store.ome_xml import describes
from gently_bluesky.store.removed import Removed, as_before
from gently_bluesky.store.streams import Doc, Row, RunTable, VolumeRef, is_good

_OURS = {JOURNAL, MANIFEST, LOCK, WRITER, TAGS, f"{TAGS}.lock", f"{MANIFEST}.lock"}
_GONE = "an asset of others is gone, or on a disk that is not here"
_CONDITIONS: Mapping[str, str] = {
    "missing": "it is not there; bring it back from a copy, or from the trash",
    "short": "it was cut short; bring it back from a copy",
    "grown": "it is longer than it was written; somebody has appended to it",
    "changed": "its pixels have changed since they were written; bring them back from a copy",
    "pyramid": "its pixels are good, and what was derived from them, its smaller levels, is not what was written",
}


class FileCheck:
    """Compares the files of one run.

    Parameters
    ----------
    root, folder
        Of the run.
    table
        Its documents.
    manifest
        Its entries, as `read_entries` gives them.
    """

    def __init__(self, root: Path, folder: Path, table: RunTable, manifest: Sequence[ManifestEntry]) -> None:
        self._root = root
        self._lock = threading.Lock()
        self._size = -1  # of the manifest when it was read again
        self._current: dict[tuple[str, str, str, int | None], ManifestEntry] = {}
        self._folder = folder
        self._name = folder.relative_to(root).as_posix()
        self._table = table
        self._paths = by_path(manifest)
        self._stored: dict[VolumeRef, list[ManifestEntry]] = {}
        for entry in manifest:
            if entry.index is not None:
                self._stored.setdefault(VolumeRef(entry.resource, entry.index), []).append(entry)
        self._foreign = {entry.resource for entry in manifest if entry.state == "foreign"}
        rows = (row for stream in table.streams.values() for row in stream.every_row())
        self._named = {ref for row in rows for ref in row.volumes.values()}
        self._indices: defaultdict[str, list[int]] = defaultdict(list)
        for ref in self._named:
            self._indices[ref.resource].append(ref.index)

    def _finding(self, severity: Severity, kind: str, text: str, where: str = "") -> Finding:
        return Finding(self._name, severity, kind, text, where)

    # --- documents against manifest -------------------------------------------------------------------------

    def of_documents(self) -> Iterator[Finding]:
        """Find volumes that documents name and the manifest does not hold as they say."""
        for stream in self._table.streams.values():
            for row in stream.rows():
                keys = self._table.data_keys(row.descriptor)
                for key, ref in row.volumes.items():
                    yield from self._of_volume(row, key, ref, keys.get(key, {}))
                if row.uid is not None:
                    yield from self._without_volume(stream.name, row, keys)

    def _without_volume(self, stream: str, row: Row, keys: Mapping[str, Doc]) -> Iterator[Finding]:
        for key, entry in keys.items():
            if entry.get("external") == "STREAM:" and key not in row.volumes:
                # an interrupted run may have lost its last datum; one that ended well has lost a line
                well = (self._table.stop or {}).get("exit_status") == "success"
                text = f"seq_num {row.seq_num} of {stream!r} has no volume of {key!r}"
                yield self._finding("error" if well else "warning", "reference", text, f"event {row.uid}")

    def _of_volume(self, row: Row, key: str, ref: VolumeRef, data_key: Doc) -> Iterator[Finding]:
        where, what = f"seq_num {row.seq_num}", f"volume {ref.index} of {key!r}"
        if ref.resource in self._foreign:
            return
        stored = self._stored.get(ref, [])
        good = [entry for entry in stored if entry.state == "sealed"]
        marked = not is_good(row.data)
        if not stored:
            yield self._finding("error", "missing", f"{what} is in no file that the manifest names", where)
        elif not good and any(entry.state == "aborted" for entry in stored) and not marked:
            yield self._finding("error", "incomplete", f"{what} was given up, and its event is not marked", where)
        shape, dtype = tuple(data_key.get("shape", ())), data_key.get("dtype_numpy")
        for entry in stored:
            if entry.shape != shape or (dtype is not None and np.dtype(entry.dtype) != np.dtype(dtype)):
                text = f"{what} is {entry.shape} {entry.dtype}; its descriptor says {shape} {dtype}"
                yield self._finding("error", "shape", text, where)

    # --- manifest against files -----------------------------------------------------------------------------

    def of_entry(self, entry: ManifestEntry, stored: StoredFiles) -> Iterator[Finding]:
        """Find what is wrong with one entry of the manifest; its pixels are read, unless they are known."""
        try:
            found = list(self._of_entry(entry, stored))
        except OSError as error:
            found = [self._finding("error", "unreadable", f"it cannot be read: {error.strerror}", name_of(entry))]
        if all(finding.severity == "note" for finding in found) or self._is_current(entry):
            yield from found  # else retention moved it meanwhile, and this says nothing

    def _is_current(self, entry: ManifestEntry) -> bool:
        size = (self._folder / MANIFEST).stat().st_size
        with self._lock:
            if size != self._size:
                self._current = {_key(each): each for each in read_entries(self._folder)}
                self._size = size
            return self._current.get(_key(entry)) == entry

    def _of_entry(self, entry: ManifestEntry, stored: StoredFiles) -> Iterator[Finding]:
        if entry.state == "foreign":
            yield from self._of_foreign(entry)
            return
        if entry.state == "removed":
            yield from self._of_trashed(entry, stored)
            yield from self._of_brought_back(entry, stored)
            return
        condition = stored.condition(self._folder, entry)
        if condition in _CONDITIONS:
            yield self._finding("error", condition, _CONDITIONS[condition], name_of(entry))
            return
        if condition == "unknown":
            yield self._finding("warning", "unknown hash", "the manifest has no hash of it", name_of(entry))
        yield from self._of_head(entry)
        if entry.state == "aborted":
            came = entry.details.get("frames", "?")
            text = f"{came} of {_planes(entry)} frames came: {entry.details.get('reason')}"
            yield self._finding("note", "incomplete", text, name_of(entry))
        elif VolumeRef(entry.resource, entry.index or 0) not in self._named:
            yield self._finding("note", "unreferenced", "it is whole, and no document names it", name_of(entry))

    def _of_trashed(self, entry: ManifestEntry, stored: StoredFiles) -> Iterator[Finding]:
        how = Removed.of(entry)
        copy = None if how is None or how.deleted is not None else how.path(self._root)
        if copy is None or not copy.exists():
            return
        condition = stored.condition_of(copy, as_before(entry))
        if condition in _CONDITIONS:
            yield self._finding("error", condition, f"in the trash: {_CONDITIONS[condition]}", name_of(entry))

    def _of_brought_back(self, entry: ManifestEntry, stored: StoredFiles) -> Iterator[Finding]:
        path, whose = self._folder / entry.path, (self._table.start or {}).get("uid", "")[:8]
        if not path.exists():
            return
        condition = stored.condition_of(path, as_before(entry))
        if condition in _CONDITIONS:
            text = f"the manifest says that it was removed; what lies there is {condition}, so take it away"
            yield self._finding("error", condition, text, name_of(entry))
        else:
            text = f"it is there, and the manifest says that it was removed: gently-bluesky restore {whose}"
            yield self._finding("warning", "removed", text, name_of(entry))

    def _of_head(self, entry: ManifestEntry) -> Iterator[Finding]:
        try:
            found = examine(self._folder / entry.path, entry.index)
            hold_store(self._folder / entry.path, entry)
        except (ValueError, OSError) as error:
            yield self._finding("error", "head", f"its head is damaged: {error}", name_of(entry))
            return
        said = (found.geometry.shape, found.geometry.dtype, found.offset)
        if said != (entry.shape, np.dtype(entry.dtype), entry.details.get("offset")):
            yield self._finding("error", "head", f"it says {said}, and the manifest does not", name_of(entry))
        home = ((self._table.start or {}).get("uid"), entry.resource, entry.index)
        if found.run_uid is not None and (found.run_uid, found.resource_uid, found.index) != home:
            yield self._finding(
                "error", "head", f"it says that it is {_where(found)}: a wrong file", name_of(entry)
            )

    def _of_foreign(self, entry: ManifestEntry) -> Iterator[Finding]:
        path = uri_path(entry.uri)
        if path is None:
            yield self._finding("note", "foreign", "it lies in no file, and was not looked for", entry.uri)
        elif files := self._files_of(entry.resource, path):
            gone = (file for file in files if not file.exists())
            yield from (self._finding("error", "foreign", _GONE, str(file)) for file in gone)
        elif not path.exists() and not any(path.parent.glob(f"{escape(path.name)}*")):  # some name a prefix
            yield self._finding("error", "foreign", _GONE, entry.uri)

    def _files_of(self, resource: str, folder: Path) -> list[Path]:
        """Give the files of others that hold the volumes of a resource, where each has a file of its own."""
        parameters = self._table.stream_resources.get(resource, {}).get("parameters") or {}
        template = parameters.get("template")
        if parameters.get("join_method") != "stack" or not isinstance(template, str):
            return []
        try:
            return sorted({folder / name_from_template(template, index) for index in self._indices[resource]})
        except ValueError:  # whoever reads it hears why
            return []

    # --- what nobody names ----------------------------------------------------------------------------------

    def of_strangers(self) -> Iterator[Finding]:
        """Find files in the run's folder that neither the manifest nor the layout knows."""
        for path in sorted(self._folder.rglob("*")):
            name = path.relative_to(self._folder).as_posix()
            within = {name, *(parent.as_posix() for parent in Path(name).parents)}  # a store is a folder of files
            if not path.is_symlink() and (path.is_dir() or name in _OURS or within & self._paths.keys()):
                continue
            if name.startswith("journal.damaged"):
                yield self._finding("warning", "damaged", "lines that recovery set aside from the journal", name)
            else:
                yield stranger(path, self._name, name)
        for name, entries in self._paths.items():
            for path in strangers_in(self._folder / name, entries):
                yield stranger(path, self._name, path.relative_to(self._folder).as_posix())


def _key(entry: ManifestEntry) -> tuple[str, str, str, int | None]:
    return entry.path, entry.uri, entry.resource, entry.index


def stranger(path: Path, folder: str, where: str) -> Finding:
    """Give the finding about a file that nothing names; a TIFF of ours says itself where it belongs."""
    text = "no manifest names it"
    if path.is_symlink():
        text = "a link: a root is one tree, and nothing is read through it"
    elif path.name.endswith(".new"):
        text = "space that was reserved by a writer that died: gently-bluesky recover, or the next convert, gives it back"
    elif path.name.lower().endswith((".tif", ".tiff", ".npy")):
        text = f"{text}; {_trace(path)}"
    return Finding(folder, "warning", "stranger", text, where)


def _trace(path: Path) -> str:
    if path.suffix != ".npy":
        import tifffile  # noqa: PLC0415 - 0.1 s that only strangers need

        try:
            with tifffile.TiffFile(path) as file:
                return f"it says that it is {_where(describes((file.ome_metadata or '').encode()))}"
        except (ValueError, OSError, tifffile.TiffFileError) as error:
            return f"it does not say where it belongs ({error!s:.80})"
    return "and .npy files do not say where they belong"


def _where(found: Found) -> str:
    where = f"run {found.run_uid} (stream resource {found.resource_uid})"
    return f"volume {found.index} of {found.data_key!r} of {where}"


def _planes(entry: ManifestEntry) -> int:
    return int(np.prod(entry.shape[:-2], dtype=int))
