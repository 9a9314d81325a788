"""`verify`: every run under a root against itself: journal, manifest, files, index.

Reads and changes nothing, but for the memory of what was compared. Runs that are being written are looked at as
far as they are.
"""

import os
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path

from gently_bluesky.errors import DocumentError, JournalError
from gently_bluesky.keep.acts import at_work
from gently_bluesky.keep.documents import DocumentCheck
from gently_bluesky.keep.files import FileCheck, stranger
from gently_bluesky.keep.finding import Finding, Report
from gently_bluesky.keep.stored import StoredFiles
from gently_bluesky.read.words import counted
from gently_bluesky.store.audit import audit_bytes, read_audit
from gently_bluesky.store.index import IndexEntry, read_index, run_folders, volume_rows
from gently_bluesky.store.journal import is_torn, read_documents
from gently_bluesky.store.layout import AUDIT, JOURNAL, MANIFEST, ROOT_MARK, TAGS, TRASH, open_root
from gently_bluesky.store.manifest import ManifestEntry, read_entries
from gently_bluesky.store.removed import Removed
from gently_bluesky.store.streams import RunTable
from gently_bluesky.store.tags import read_tags
from gently_bluesky.write.run_folder import is_locked

Progress = Callable[[int, int], object]
"""Called with the bytes that are done, and those that are known of so far."""

_AT_ROOT = {ROOT_MARK, AUDIT, f"{AUDIT}.lock", "runs", "index", "aside", TRASH, "retention.toml"}
_MOVED = {"missing", "stranger", "removed", "head", "unreadable", "short", "pyramid"}  # what a move looks like
_CHECKED = "documents hold together"
_AHEAD = 256  # files on their way to the readers


def verify(
    root: Path | str,
    *,
    uids: Collection[str] | None = None,
    afresh: bool = False,
    workers: int | None = None,
    progress: Progress | None = None,
) -> Report:
    """Check what is stored under a root against what its documents and manifests say.

    Parameters
    ----------
    root
        A root.
    uids
        Only these runs; all, and whatever else lies there, if None.
    afresh
        Read everything; else only pixels that are new, or whose files have changed since they were compared.
    workers
        Threads that read; as many as there are processors, up to four, if None.
    progress
        Told how far it is.

    Raises
    ------
    RootError
        It is no root.
    """
    path, _ = open_root(Path(root))
    begun, audited = time.monotonic(), audit_bytes(path)
    with ThreadPoolExecutor(workers or min(4, os.cpu_count() or 1), "gently-verify") as pool:
        work = _Verification(path, StoredFiles(path, afresh=afresh), pool, progress or _silent, read_index(path))
        for folder in sorted(run_folders(path)):
            work.check(folder, uids)
        work.settle(0)
        if uids is None:
            work.findings += _strangers_at(path)
            work.findings += _in_trash(path, work.trash)
            work.findings += (
                _without_folder(path, entry, work.uids.get(entry.start["uid"]))
                for name, entry in work.index.items()
                if not (path / name).is_dir()
            )
    findings = _at_rest(work.findings, at_work(path, audited))
    report = replace(work.report, root=str(path), findings=tuple(sorted(findings)))
    return replace(report, seconds=time.monotonic() - begun)


def _at_rest(findings: Collection[Finding], busy: Collection[str]) -> Iterator[Finding]:
    """Pass over what was said of files that were moved meanwhile, and say that."""
    names = {Path(folder).name for folder in busy}
    for finding in findings:
        parts = finding.where.split("/")
        home = parts[2].partition("+")[0] if parts[0] == TRASH and len(parts) > 3 else ""
        if finding.kind not in _MOVED or (home not in names and finding.folder not in busy):
            yield finding
    text = "retention, or a person, moved files of it meanwhile; verify it again to know of them"
    yield from (Finding(folder, "note", "moving", text) for folder in busy)


def _silent(done: int, known: int) -> None:
    """Say nothing of the progress."""


@dataclass(slots=True)
class _Verification:
    root: Path
    stored: StoredFiles
    pool: ThreadPoolExecutor
    progress: Progress
    index: Mapping[str, IndexEntry]
    uids: dict[str, str] = field(default_factory=dict)
    trash: dict[str, tuple[Path, ManifestEntry]] = field(default_factory=dict)
    report: Report = field(default_factory=lambda: Report(""))
    findings: list[Finding] = field(default_factory=list)
    pending: list[tuple[int, Future[list[Finding]]]] = field(default_factory=list)
    done: int = 0

    def check(self, folder: Path, uids: Collection[str] | None) -> None:
        """Check one run; its pixels are read meanwhile, and `settle` waits for them."""
        name = folder.relative_to(self.root).as_posix()
        known = self.index.get(name)
        ended = known is not None and known.stop is not None
        table, findings, documents = _documents_of(folder, name, self.stored, ended=ended)
        uid = (table.start or {}).get("uid")
        if uids is not None and uid not in uids:
            return
        self.findings += findings
        self.report = replace(self.report, runs=self.report.runs + 1, documents=self.report.documents + documents)
        if table.start is None:
            self.findings += _about_start(folder, name, known=name in self.index)
            return
        if (first := self.uids.setdefault(table.start["uid"], name)) != name:
            text = f"its run is in {first}, too: a copy, which makes its uid ambiguous; move one of them away"
            self.findings.append(Finding(name, "error", "twice", text))
        running = is_locked(folder)
        if table.stop is None:
            self.findings.append(_without_stop(name, running=running, ended=ended))
        fresh = IndexEntry(name, table.start, table.stop, tuple(volume_rows(table)))
        if known is not None and known.line() != fresh.line() and (table.stop is not None or not ended):
            text = "the index says something else than its journal: gently-bluesky reindex"
            self.findings.append(Finding(name, "error", "index", text))
        try:
            manifest = read_entries(folder)
            read_tags(folder)
        except (JournalError, OSError) as error:
            text = f"{error} Bring the file back from a copy; until then its volumes cannot be read, nor checked."
            self.findings.append(Finding(name, "error", "damaged", text))
            return
        files = FileCheck(self.root, folder, table, manifest)
        self.findings += files.of_documents()
        if not running:
            self.findings += files.of_strangers()
        for entry in manifest:
            how = Removed.of(entry)
            if how is not None and how.deleted is None and not (folder / entry.path).exists():
                self.trash[how.trash] = (folder, entry)
            self._submit(folder, files, entry)

    def _submit(self, folder: Path, files: FileCheck, entry: ManifestEntry) -> None:
        here = entry.bytes if entry.state in {"sealed", "aborted"} else 0
        read = 0 if self.stored.is_known(folder, entry) else here
        self.report = replace(
            self.report,
            files=self.report.files + 1,
            bytes=self.report.bytes + here,
            bytes_read=self.report.bytes_read + read,
        )
        self.pending.append((read, self.pool.submit(lambda: list(files.of_entry(entry, self.stored)))))
        self.settle(_AHEAD)

    def settle(self, ahead: int) -> None:
        """Take in what is ready, until no more than `ahead` files are on their way."""
        while len(self.pending) > ahead:
            read, future = self.pending.pop(0)
            self.findings += future.result()
            self.done += read
            self.progress(self.done, self.report.bytes_read)
        if not ahead:
            self.stored.remember()


def _documents_of(
    folder: Path, name: str, stored: StoredFiles, *, ended: bool
) -> tuple[RunTable, list[Finding], int]:
    table, check, journal = RunTable(), DocumentCheck(name), folder / JOURNAL
    known = stored.is_unchanged(journal, _CHECKED)
    try:
        status = journal.stat()
        for _, (kind, doc) in read_documents(folder):
            if not known:
                check(kind, doc)
            table(kind, doc)
        if table.stop is not None and not known and not check.findings:
            stored.found_good(journal, status, _CHECKED)
    except FileNotFoundError:
        pass
    except (JournalError, DocumentError, OSError) as error:
        check.findings.append(Finding(name, "error", "damaged", str(error), JOURNAL))
    for file in (JOURNAL, MANIFEST, TAGS):
        began = table.start is not None  # else what is torn is the start: nothing was exposed, nothing to recover
        if began and is_torn(folder / file) and not is_locked(folder):
            text = "its last line was cut off while it was written"
            if table.stop is None and not ended:
                text = f"{text}: gently-bluesky recover"
            check.findings.append(Finding(name, "error" if table.stop is None else "warning", "torn", text, file))
    return table, check.findings, check.count


def _about_start(folder: Path, name: str, *, known: bool) -> Iterator[Finding]:
    left = [path for path in folder.rglob("*") if path.is_file() and path.parent != folder]
    manifest = folder / MANIFEST
    if known or left or (manifest.exists() and manifest.stat().st_size):
        text = (
            f"its journal holds no start document any more, and there {'are' if len(left) != 1 else 'is'} "
            f"{counted(len(left), 'volume')} of it: bring {JOURNAL} back from a copy, and do not reindex before"
        )
        yield Finding(name, "error", "journal", text, JOURNAL)
    else:
        text = "a run that never began: its start document was not journalled, nothing was exposed"
        yield Finding(name, "note", "empty", text)


def _without_folder(root: Path, entry: IndexEntry, now_in: str | None) -> Finding:
    if now_in is not None:
        text = f"the index knows this run, which is in {now_in} now: gently-bluesky reindex"
        return Finding(entry.folder, "error", "index", text)
    volumes = counted(len(entry.volumes), "volume")
    text = (
        f"the index knows this run, with {volumes}, and its folder is gone from {root}: bring it back from a copy"
    )
    return Finding(entry.folder, "error", "gone", text)


def _without_stop(name: str, *, running: bool, ended: bool) -> Finding:
    if ended:
        text = (
            "the index knows that it ended, and its journal does not hold that any more: bring journal.jsonl back "
            "from a copy"
        )
        return Finding(name, "error", "journal", text, JOURNAL)
    if running:
        return Finding(name, "note", "running", "it is being written; it was looked at as far as it is")
    text = "it has no stop document, and nobody writes it: gently-bluesky recover"
    return Finding(name, "error", "interrupted", text)


def _in_trash(root: Path, named: Mapping[str, tuple[Path, ManifestEntry]]) -> Iterator[Finding]:
    for path in _files_in(root / TRASH):
        within = path.relative_to(root)  # a store is a folder of files
        if not any(each.as_posix() in named for each in (within, *within.parents)):
            yield stranger(path, "", within.as_posix())
    for each, (folder, entry) in named.items():
        if not (root / each).exists() and entry in read_entries(folder):  # else it was restored meanwhile
            text = "a manifest says that it is in the trash, and it is not there; bring it back from a copy"
            yield Finding("", "error", "missing", text, each)


def _files_in(folder: Path) -> list[Path]:
    # os.walk passes over folders that go while it walks, as restoring prunes them
    return sorted(Path(where, name) for where, _, names in os.walk(folder) for name in names)


def _strangers_at(root: Path) -> Iterator[Finding]:
    for path in sorted(root.iterdir()):
        if path.name not in _AT_ROOT:
            yield stranger(path, "", path.name)
    runs = set(run_folders(root))
    for depth, name in enumerate(("????", "??", "??", "*")):
        for path in sorted((root / "runs").glob("/".join(["*"] * (depth + 1)))):
            is_day = depth < 3 and path.match(name) and path.name.isdecimal() and path.is_dir()
            if path.is_symlink() or not (is_day or path in runs):
                yield stranger(path, "", path.relative_to(root).as_posix())
    damages: list[JournalError] = []
    for _ in read_audit(root, pass_over=damages.append):
        pass
    yield from (Finding("", "error", "damaged", str(damage), AUDIT) for damage in damages)
