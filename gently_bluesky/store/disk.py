"""Every call to the operating system on which "nothing is lost" depends, with its fallback where there is none.

Positioned writes (never through a mapping: a full disk would be SIGBUS), space reserved in advance, exclusive
creation, write-behind and the several kinds of sync. Knows bytes and offsets; knows nothing of pixels or
documents.
"""

import contextlib
import ctypes
import errno
import os
import shutil
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future
from pathlib import Path
from typing import Self

from gently_bluesky.errors import DiskFullError

PAGE = 4096
"""Bytes; what every format here aligns pixels to, so that they can be mapped."""

WRITE_BEHIND_BYTES = 32 << 20
"""How much is written before it is pushed to the disk behind the acquisition's back."""

Claim = Callable[[Path, int], None]
"""Told of a file and its size in bytes before there is one; raises DiskFullError if there must be none."""

_REFUSALS = 200  # of Windows to rename over a file that somebody reads; then it is an error

_NO_ROOM = {errno.ENOSPC, errno.EDQUOT} if sys.platform != "win32" else {errno.ENOSPC}
_BINARY = getattr(os, "O_BINARY", 0) | getattr(os, "O_NOINHERIT", 0) | getattr(os, "O_CLOEXEC", 0)


def free_bytes(path: Path) -> int:
    """Bytes that an ordinary user may still write where `path` lies."""
    return shutil.disk_usage(path).free


def claim_nothing(path: Path, nbytes: int) -> None:
    """Let a file take whatever room there is; a `Claim`."""


@contextlib.contextmanager
def naming_a_full_disk(path: Path, wanted: int) -> Iterator[None]:
    """Turn "no space left" into a DiskFullError that says where, how much was wanted and what is there.

    Syncs meet a full disk, too: some file systems find a place for bytes only then.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in _NO_ROOM:
            raise
        free = "and how many are free there is not known"
        with contextlib.suppress(OSError):
            there = next(folder for folder in path.parents if folder.exists())
            free = f"{free_bytes(there):,} bytes are free there"
        needed = f"{wanted:,} bytes are needed in {path.parent}" if wanted else f"it is to be in {path.parent}"
        raise DiskFullError(
            error.errno,
            f"No room for {path.name}: {needed}, {free}. "
            "Nothing that was written before is lost. Free space, or give the writer another root.",
        ) from error


def sync_folder(path: Path) -> None:
    """Make the names in a folder durable; Windows does so by itself."""
    if sys.platform == "win32":
        return
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with naming_a_full_disk(path, 0):
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_file(path: Path) -> None:
    """Make durable what any process wrote into a file."""
    descriptor = os.open(path, os.O_RDWR | _BINARY)
    try:
        with naming_a_full_disk(path, 0):
            sync_data(descriptor)
    finally:
        os.close(descriptor)


def sync_tree(path: Path) -> None:
    """Make durable a file, or all files and folders in a folder."""
    if not path.is_dir():
        sync_file(path)
        return
    for folder, _, names in os.walk(path, topdown=False):
        for name in names:
            sync_file(Path(folder, name))
        sync_folder(Path(folder))


def sync_data(descriptor: int) -> None:
    """Make the bytes of a file durable, and whatever is needed to find them."""
    if sys.platform == "linux":
        os.fdatasync(descriptor)
    else:
        os.fsync(descriptor)


if sys.platform == "linux":
    _sync_file_range = ctypes.CDLL(None, use_errno=True).sync_file_range
    _sync_file_range.argtypes = (ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint)

    def _push(descriptor: int, offset: int, size: int) -> None:
        # 7: wait for what is on its way, start the rest, wait for it. It lets go of the interpreter meanwhile.
        if _sync_file_range(descriptor, offset, size, 7) != 0:
            code = ctypes.get_errno()
            if code not in {errno.ENOSYS, errno.ESPIPE, errno.EINVAL, errno.EOPNOTSUPP}:
                raise OSError(code, os.strerror(code))
            os.fdatasync(descriptor)

    def forget_range(descriptor: int, offset: int, size: int) -> None:
        """Let the page cache drop a part of a file, as far as it is on disk already."""
        whole = offset // PAGE * PAGE
        os.posix_fadvise(descriptor, whole, offset + size - whole, os.POSIX_FADV_DONTNEED)

    def forget_pages(path: Path) -> None:
        """Let the page cache drop a file that is on disk already, so that its warm memory serves the next one."""
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(descriptor)
else:

    def _push(descriptor: int, offset: int, size: int) -> None:  # noqa: ARG001
        os.fsync(descriptor)

    def forget_range(descriptor: int, offset: int, size: int) -> None:
        """Do nothing: this system manages its page cache alone."""

    def forget_pages(path: Path) -> None:
        """Do nothing: this system manages its page cache alone."""


class BlockFile:
    """A file of fixed size, created exclusively with its space reserved, written at positions from any thread.

    Parameters
    ----------
    path
        Must not exist.
    size
        Bytes, all reserved before the constructor returns.
    head
        The first of them. The file has its name only when they are written: whoever finds it finds it whole.

    Raises
    ------
    FileExistsError
        Something is there already; it is left alone.
    DiskFullError
        There is no room; no file is left behind.
    """

    def __init__(self, path: Path, size: int, head: bytes = b"") -> None:
        self.path = path
        self.size = size
        self._pending: deque[Future[None]] = deque()
        self._unpushed = (0, 0)
        self._lock = threading.Lock()
        unnamed = path.with_name(f".{path.name}.new")
        with naming_a_full_disk(path, size):
            self._descriptor = os.open(unnamed, os.O_RDWR | os.O_CREAT | os.O_EXCL | _BINARY, 0o666)
            try:
                _reserve(self._descriptor, size)
                self.write(0, head)
                self._descriptor = _named(self._descriptor, unnamed, path)
            except BaseException:
                os.close(self._descriptor)
                unnamed.unlink(missing_ok=True)
                raise

    def write(self, offset: int, data: bytes | memoryview) -> None:
        """Write all of `data` at `offset`; it must lie inside the reserved size."""
        view = memoryview(data).cast("B")
        if offset < 0 or offset + len(view) > self.size:
            raise ValueError(f"{len(view)} bytes at {offset} lie outside the {self.size} reserved in {self.path}")
        with naming_a_full_disk(self.path, len(view)):
            while view:
                done = _write_at(self._descriptor, view, offset, self._lock)
                view, offset = view[done:], offset + done

    def push_behind(self, offset: int, size: int, pool: Executor) -> None:
        """Let `pool` push a range that was just written to the disk, once enough has gathered."""
        start, end = self._unpushed
        if offset != end:
            start = end = offset
        end += size
        if end - start >= WRITE_BEHIND_BYTES:
            while self._pending and self._pending[0].done():
                with naming_a_full_disk(self.path, 0):
                    self._pending.popleft().result()
            with contextlib.suppress(RuntimeError):  # the interpreter is ending: `sync` does it all
                self._pending.append(pool.submit(_push, self._descriptor, start, end - start))
            start = end
        self._unpushed = (start, end)

    def sync(self) -> None:
        """Make everything written so far durable; errors of the pushes before surface here."""
        self.settle()
        with naming_a_full_disk(self.path, 0):
            sync_data(self._descriptor)

    def settle(self) -> None:
        """Wait for what was pushed behind, without demanding more; errors of the pushes surface here."""
        with naming_a_full_disk(self.path, 0):
            while self._pending:
                self._pending.popleft().result()

    def reopen(self) -> None:
        """Open it again after `close`, for what became known later."""
        if self._descriptor < 0:
            self._descriptor = os.open(self.path, os.O_RDWR | _BINARY)

    def close(self) -> None:
        """Close it; the bytes stay where they are."""
        if self._descriptor >= 0:
            while self._pending:
                self._pending.popleft().exception()
            os.close(self._descriptor)
            self._descriptor = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _named(descriptor: int, unnamed: Path, path: Path) -> int:
    """Give an open file its name, unless that is taken; give its descriptor."""
    if sys.platform == "win32":  # renames no open file
        os.close(descriptor)
        give_name(unnamed, path)
        return os.open(path, os.O_RDWR | _BINARY)
    give_name(unnamed, path)
    return descriptor


def give_name(unnamed: Path, path: Path) -> None:
    """Give a file or a folder another name on its file system, unless that is taken: FileExistsError."""
    if sys.platform == "win32":  # never renames over another
        unnamed.rename(path)
        return
    try:
        path.hardlink_to(unnamed)  # refuses a name that is taken, which a rename does not on every system
    except FileExistsError:
        raise
    except OSError:  # a folder, or a file system without links
        if path.exists():
            raise FileExistsError(f"{path} is there already") from None
        unnamed.rename(path)
    else:
        unnamed.unlink()


def _reserve(descriptor: int, size: int) -> None:
    if sys.platform == "linux":
        os.posix_fallocate(descriptor, 0, size)
    else:  # NTFS reserves what the length says; elsewhere the length is the best there is
        os.ftruncate(descriptor, size)


def _write_at(descriptor: int, view: memoryview, offset: int, lock: threading.Lock) -> int:
    if sys.platform == "win32":
        with lock:
            os.lseek(descriptor, offset, os.SEEK_SET)
            return os.write(descriptor, view)
    return os.pwrite(descriptor, view, offset)


class Reservation:
    """Room on the disk that nobody else may take, given back bit by bit as it is used; a hidden file.

    Raises
    ------
    DiskFullError
        There is no room; no file is left behind.
    """

    def __init__(self, path: Path, nbytes: int) -> None:
        self._path = path
        self._left = nbytes
        with naming_a_full_disk(path, nbytes):
            self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | _BINARY, 0o666)
            try:
                _reserve(self._descriptor, nbytes)
            except BaseException:
                self.release()
                raise

    def shrink(self, nbytes: int) -> None:
        """Give some of it back, right before it is written elsewhere."""
        self._left = max(0, self._left - nbytes)
        if self._descriptor >= 0:
            os.ftruncate(self._descriptor, self._left)

    def release(self) -> None:
        """Give back what is left; a second time does nothing."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
            self._path.unlink(missing_ok=True)


def create_file(path: Path, pieces: Sequence[bytes | memoryview], beside: Path) -> None:
    """Write a whole file and make it durable; it has its name only then.

    Parameters
    ----------
    path
        Must not exist; its folders are made.
    pieces
        Its content.
    beside
        The name that it has meanwhile, on the same file system.

    Raises
    ------
    FileExistsError
        Something is there already; it is left alone.
    DiskFullError
        There is no room.
    """
    _put(path, pieces, beside, give_name)


def replace_file(path: Path, content: bytes, beside: Path) -> None:
    """Let a file hold something else: the old or the new whole, at every instant and after a power cut.

    Parameters
    ----------
    path
        It need not exist; its folder is made.
    content
        All of it.
    beside
        The name that the new one has meanwhile, on the same file system.

    Raises
    ------
    DiskFullError
        There is no room; the old one is as it was.
    """
    _put(path, [content], beside, _rename)


def _put(
    path: Path, pieces: Sequence[bytes | memoryview], beside: Path, name: Callable[[Path, Path], None]
) -> None:
    with naming_a_full_disk(path, sum(map(len, pieces))):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            descriptor = os.open(beside, os.O_RDWR | os.O_CREAT | os.O_TRUNC | _BINARY, 0o666)
            try:
                for piece in pieces:
                    _write_all(descriptor, piece)
                sync_data(descriptor)  # else a power cut may leave the name without the bytes
            finally:
                os.close(descriptor)
            name(beside, path)
        except BaseException:
            beside.unlink(missing_ok=True)
            raise


def _write_all(descriptor: int, piece: bytes | memoryview) -> None:
    view = memoryview(piece)
    while view:
        view = view[os.write(descriptor, view) :]


def _rename(beside: Path, path: Path) -> None:
    """Rename a file over another; Windows refuses that for as long as somebody reads the other."""
    if sys.platform == "win32":
        for _ in range(_REFUSALS):
            try:
                beside.replace(path)
            except PermissionError:
                time.sleep(0.01)
            else:
                return
    beside.replace(path)


def read_at(descriptor: int, size: int, offset: int) -> bytes:
    """Read from a position of a file, from any thread; fewer bytes if it ends before."""
    if sys.platform == "win32":
        with _reading:
            os.lseek(descriptor, offset, os.SEEK_SET)
            return os.read(descriptor, size)
    return os.pread(descriptor, size, offset)


_reading = threading.Lock()  # where a file has one position for all threads


class AppendFile:
    """A file that only grows, a whole line at a time; a line that failed half-way is cut off again.

    Parameters
    ----------
    path
        Created if it is not there. A torn last line from a writer that died is the caller's to mend first.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | _BINARY, 0o666)

    def append(self, lines: bytes) -> None:
        """Append bytes that end with a newline, all or none of them."""
        before = os.fstat(self._descriptor).st_size
        view = memoryview(lines)
        try:
            with naming_a_full_disk(self.path, len(lines)):
                while view:
                    view = view[os.write(self._descriptor, view) :]
        except OSError:
            with contextlib.suppress(OSError):
                os.ftruncate(self._descriptor, before)
            raise

    def cut(self, size: int) -> None:
        """Make it shorter, durably: what follows is kept elsewhere."""
        os.ftruncate(self._descriptor, size)
        self.sync()

    def sync(self) -> None:
        """Make it durable; if that fails, the lines are there all the same, and must not be appended again."""
        try:
            sync_data(self._descriptor)
        except OSError as error:  # not a DiskFullError: of that, less may find room
            raise OSError(error.errno, error.strerror, str(self.path)) from error

    def close(self) -> None:
        """Close it; a second time does nothing."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
