"""Whether stored pixels still are what the manifest says: size, and hash, unless they were compared before.

What was compared is remembered in the index, by size and time of change, so that only what is new is read again.
Like all of the index, that memory may be deleted at any time.
"""

import logging
import os
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from gently_bluesky.errors import DamagedVolumeError, JournalError, RunLockedError
from gently_bluesky.store.formats import MAPPED, Stamp, hash_of, hold_pyramid, size_said, stamp_of
from gently_bluesky.store.journal import append_shared, read_lines
from gently_bluesky.store.manifest import ManifestEntry

log = logging.getLogger(__name__)

_MEMORY = Path("index", "verified.jsonl")

Condition = Literal["good", "missing", "short", "grown", "changed", "pyramid", "unknown"]
"""Of a stored volume. "pyramid": its pixels are good, what was derived from them is not; "unknown": it has no hash
to compare with."""


@dataclass(frozen=True, slots=True)
class _Seen:
    size: int
    mtime_ns: int
    xxh3_128: str


class StoredFiles:
    """The stored files of a root, compared with what manifests say of them; for several threads.

    Parameters
    ----------
    root
        A root.
    afresh
        Read everything again, whatever was compared before.
    """

    def __init__(self, root: Path, *, afresh: bool = False) -> None:
        self._root = root
        self._seen: dict[str, _Seen] = {}
        self._new: dict[str, _Seen] = {}
        self._lock = threading.Lock()
        if not afresh:
            self._recall()

    def _recall(self) -> None:
        path = self._root / _MEMORY
        try:
            for _, line in read_lines(path) if path.exists() else ():
                self._seen[line["path"]] = _Seen(line["size"], line["mtime_ns"], line["xxh3_128"])
        except (JournalError, KeyError, TypeError):
            pass  # a cache: what it does not say is read again

    def is_unchanged(self, path: Path, said: str) -> bool:
        """Whether `found_good` was told of this file, and nobody has touched it since."""
        try:
            status = path.stat()
        except OSError:
            return False
        return self._seen.get(self._name(path)) == _Seen(status.st_size, status.st_mtime_ns, said)

    def found_good(self, path: Path, status: os.stat_result, said: str) -> None:
        """Note that a file is what it should be: `status` from before it was read, `said` a word."""
        with self._lock:
            self._new[self._name(path)] = _Seen(status.st_size, status.st_mtime_ns, said)

    def is_known(self, folder: Path, entry: ManifestEntry) -> bool:
        """Whether the volume was compared before and nobody has touched it since."""
        path = folder / entry.path
        try:
            return self._is_known(path, entry, stamp_of(path, entry))
        except OSError:
            return False

    def _is_known(self, path: Path, entry: ManifestEntry, stamp: Stamp) -> bool:
        return self._seen.get(self._name(path, entry)) == _seen(entry, stamp)

    def _name(self, path: Path, entry: ManifestEntry | None = None) -> str:
        name = path.relative_to(self._root).as_posix()
        return name if entry is None or entry.format in MAPPED else f"{name}#{entry.index}"

    def condition(self, folder: Path, entry: ManifestEntry) -> Condition:
        """Compare one file of a run folder with its manifest entry; its pixels are read, unless they are known."""
        return self.condition_of(folder / entry.path, entry)

    def condition_of(self, path: Path, entry: ManifestEntry) -> Condition:
        """Compare a file, wherever it is now, with a manifest entry."""
        try:
            stamp = stamp_of(path, entry)
        except DamagedVolumeError:
            return "changed"
        except (FileNotFoundError, NotADirectoryError):
            return "missing"
        wanted = size_said(entry)
        if wanted is not None and stamp.size != wanted:
            return "short" if stamp.size < wanted else "grown"
        if entry.xxh3_128 is None:
            return "unknown"
        return "good" if self._is_known(path, entry, stamp) else self._compare(path, entry, stamp)

    def _compare(self, path: Path, entry: ManifestEntry, stamp: Stamp) -> Condition:
        found = _found(path, entry)
        with self._lock:  # if it has changed, what was remembered is not true any more, whatever its time says
            self._new[self._name(path, entry)] = _seen(entry, stamp) if found == "good" else _Seen(-1, 0, "")
        return found

    def remember(self) -> None:
        """Note in the index what was found good since the last time; where it cannot be written, it is not."""
        with self._lock:
            new, self._new = self._new, {}
        self._seen |= new
        if not new:
            return
        lines = [
            {"path": name, "size": seen.size, "mtime_ns": seen.mtime_ns, "xxh3_128": seen.xxh3_128}
            for name, seen in new.items()
        ]
        path = self._root / _MEMORY
        try:
            path.parent.mkdir(exist_ok=True)
            append_shared(path, lines, durable=False)
        except (OSError, RunLockedError) as error:  # read-only, full or busy
            log.warning("what was compared in %s is not remembered (%s), and read again", self._root, error)


def _seen(entry: ManifestEntry, stamp: Stamp) -> _Seen:
    return _Seen(stamp.size + stamp.derived, stamp.mtime_ns, entry.xxh3_128 or "")


def _found(path: Path, entry: ManifestEntry) -> Condition:
    """Read a stored volume, and say how it is."""
    try:
        if hash_of(path, entry) != entry.xxh3_128:
            return "changed"
    except EOFError:
        return "short"
    except DamagedVolumeError:
        return "changed"
    except FileNotFoundError:
        return "missing"
    try:
        hold_pyramid(path, entry)
    except (ValueError, FileNotFoundError):
        return "pyramid"
    return "good"
