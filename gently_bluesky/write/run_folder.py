"""A run's folder: created once, locked for as long as its writer lives, appended to and never rewritten.

The lock dies with its process, and other machines cannot see it: so the folder says, too, on which machine it is
written.
"""

import contextlib
import json
import os
import platform
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Self

import xxhash
from filelock import FileLock, Timeout

from gently_bluesky.errors import RunExistsError, RunLockedError, RunNotFoundError
from gently_bluesky.store.disk import (
    AppendFile,
    naming_a_full_disk,
    replace_file,
    sync_file,
    sync_folder,
    sync_tree,
)
from gently_bluesky.store.journal import encode_line, mend, read_start
from gently_bluesky.store.layout import (
    JOURNAL,
    LOCK,
    MANIFEST,
    WRITER,
    day_folder,
    run_folder_name,
    slug,
    without_links,
)
from gently_bluesky.store.manifest import ManifestEntry

_PATIENCE_S = 10.0  # somebody may just look whether the lock is held


class RunFolder:
    """The folder of one run, open for writing; made by `create`, or by `reopen` after its writer has died."""

    def __init__(self, root: Path, path: Path, lock: FileLock, *, durable: bool) -> None:
        self.root = root
        self.path = path
        self._durable = durable
        self._image_folders: set[str] = set()
        self._lock = lock
        self._journal = AppendFile(path / JOURNAL)
        self._manifest = AppendFile(path / MANIFEST)

    @classmethod
    def create(cls, root: Path, start: Mapping[str, Any], *, durable: bool) -> Self:
        """Create the folder of a run.

        Parameters
        ----------
        root
            A root.
        start
            The start document; its time and uid must be there.
        durable
            Whether new names are made durable at once.

        Raises
        ------
        RunExistsError, RunLockedError
            The run is in this root already; in the second case another process is writing it.
        RootError
            A link leads out of the root.
        """
        parent = without_links(root, day_folder(start["time"]))
        with naming_a_full_disk(parent / run_folder_name(start), 0):
            parent.mkdir(parents=True, exist_ok=True)
            path = _create(parent, start)
            lock = FileLock(path / LOCK, thread_local=False, timeout=_PATIENCE_S)
            lock.acquire()
            said = {"host": platform.node(), "pid": os.getpid()}
            (path / WRITER).write_text(json.dumps(said) + "\n", encoding="utf-8")
            folder = cls(root, path, lock, durable=durable)
        if durable:
            sync_file(path / WRITER)
            for name in (path, parent, *parent.relative_to(root).parents):
                sync_folder(root / name)
        return folder

    @classmethod
    def reopen(cls, root: Path, path: Path) -> tuple[Self, int]:
        """Open a folder whose writer has died; give it, and how many torn bytes were cut off its journal.

        Raises
        ------
        RunLockedError
            A process writes it.
        """
        lock = FileLock(path / LOCK, thread_local=False, blocking=False)
        try:
            lock.acquire()
        except Timeout:
            raise RunLockedError(f"The run in {path} is being written.") from None
        try:
            mend(path / MANIFEST)
            torn_bytes = mend(path / JOURNAL)
            return cls(root, path, lock, durable=True), torn_bytes
        except BaseException:
            lock.release()
            raise

    def new_image_folder(self, data_key: str, suffix: str = "") -> Path:
        """Create a folder for the volumes of one stream resource, named after its data key."""
        name, number = slug(data_key), 1
        while True:
            folder = self.path / f"{name if number == 1 else f'{name}+{number}'}{suffix}"
            if folder.name.lower() in self._image_folders:
                # another shape, stream or a key that differs by an unsafe letter or, for other systems, by case
                number += 1
                continue
            with naming_a_full_disk(folder, 0):
                folder.mkdir()
            self._image_folders.add(folder.name.lower())
            if self._durable:
                sync_folder(self.path)
            return folder

    def append(self, entries: Iterable[ManifestEntry], documents: Iterable[tuple[str, Mapping[str, Any]]]) -> None:
        """Append to the manifest and then to the journal, each durable before the next step if asked for."""
        if lines := b"".join(encode_line(entry.line()) for entry in entries):
            self._manifest.append(lines)
            if self._durable:
                self._manifest.sync()
        if lines := b"".join(encode_line({"name": name, "doc": doc}) for name, doc in documents):
            self._journal.append(lines)
            if self._durable:
                self._journal.sync()

    def set_aside(self, offset: int) -> Path:
        """Move what the journal holds from a damaged line on into a file beside it; give that file."""
        with (self.path / JOURNAL).open("rb") as journal:
            journal.seek(offset)
            damaged = journal.read()
        # named by its content: who was interrupted here does the same again
        path = self.path / f"journal.damaged-{xxhash.xxh3_64_hexdigest(damaged)}.jsonl"
        replace_file(path, damaged, path.with_name(f".{path.name}.new"))
        sync_folder(self.path)
        self._journal.cut(offset)
        return path

    def sync_everything(self, volumes: Iterable[Path]) -> None:
        """Make durable what was not so far: the volumes, their folders, manifest and journal."""
        folders = {self.path}
        for path in dict.fromkeys(volumes):
            sync_tree(path)
            folders.add(path.parent)
        for folder in folders:
            sync_folder(folder)
        self._manifest.sync()
        self._journal.sync()

    def close(self) -> None:
        """Close the files and let go of the lock."""
        self._journal.close()
        self._manifest.close()
        self._lock.release()


def _create(parent: Path, start: Mapping[str, Any]) -> Path:
    name, number = run_folder_name(start), 1
    while True:
        folder = parent / (name if number == 1 else f"{name}+{number}")
        try:
            folder.mkdir()
        except FileExistsError:
            other = read_start(folder)
            if is_locked(folder) and (other is None or other["uid"] == start["uid"]):
                raise RunLockedError(
                    f"Run {start['uid']} is being written by another process, in {folder}. "
                    "Wait for it, or give this writer another root."
                ) from None
            if other is not None and other["uid"] == start["uid"]:
                raise RunExistsError(
                    f"Run {start['uid']} is in this root already, in {folder}. Nothing was changed. "
                    "Replay it into another root; a copy that broke off is put aside by `replay --again`."
                ) from None
            number += 1
            continue
        return folder


@contextlib.contextmanager
def held(folder: Path) -> Iterator[None]:
    """Hold the lock of a run that has ended, while something is done to it; its documents are not touched.

    Raises
    ------
    RunLockedError
        Somebody writes it, or does something to it.
    RunNotFoundError
        It is not there.
    """
    if not (folder / JOURNAL).exists():  # a lock would make the folder again
        raise RunNotFoundError(f"There is no run in {folder} any more.")
    lock = FileLock(folder / LOCK, thread_local=False, blocking=False)
    try:
        lock.acquire()
    except Timeout:
        raise RunLockedError(f"The run in {folder} is being written, or something is done to it. Wait.") from None
    try:
        yield
    finally:
        lock.release()


def is_locked(folder: Path) -> bool:
    """Whether a living process writes this run."""
    if not (folder / LOCK).exists():
        return False
    try:
        with FileLock(folder / LOCK, blocking=False):
            return False
    except Timeout:
        return True
    except OSError:  # a root that cannot be written here
        return _is_held(folder / LOCK)


def _is_held(lock: Path) -> bool:
    if sys.platform == "win32":
        return False
    import fcntl  # noqa: PLC0415 - not on Windows

    with contextlib.suppress(PermissionError, FileNotFoundError), lock.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return True
    return False


def writing_host(folder: Path) -> str | None:
    """Give the name of the machine on which a run was written; None if that is not known."""
    try:
        host = json.loads((folder / WRITER).read_text(encoding="utf-8"))["host"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return str(host)
