"""Where an export goes: what it writes has its final names only when all of it is whole and on disk.

It is written into a folder beside its place, whose name ends in ".partial", and taken away again if anything goes
wrong; a process that is killed leaves that folder and nothing else. Names that are taken and a disk that is too
full are found before anything is written.
"""

import contextlib
import errno
import os
import shutil
import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from gently_bluesky.errors import DiskFullError, ExportError, GentlyError, TargetExistsError
from gently_bluesky.store.disk import free_bytes, give_name, sync_file, sync_folder
from gently_bluesky.store.layout import ROOT_MARK

Progress = Callable[[int, int], object]
"""Told how much was written, and of how much: bytes of pixels or documents, rows of tables."""

_ROOM_A_NAME = 64 << 10  # bytes for what a file holds beside pixels
_FULL_BYTES = 1 << 20  # numpy does not say why a write came short: a disk with less room than this is full


class Staging:
    """The folder that an export writes into before its files get their names.

    Attributes
    ----------
    folder
        The folder.
    paths
        Of the files when they have their names.
    """

    def __init__(self, folder: Path, paths: tuple[Path, ...], amount: int, progress: Progress | None) -> None:
        self.folder = folder
        self.paths = paths
        self._amount = amount
        self._progress = progress
        self._done = 0

    def wrote(self, amount: int) -> None:
        """Tell that so much more was written."""
        self._done += amount
        if self._progress is not None:
            self._progress(self._done, self._amount)


@contextlib.contextmanager
def staged(
    into: Path | str,
    names: Sequence[str],
    amount: int,
    *,
    room: int,
    progress: Progress | None = None,
) -> Iterator[Staging]:
    """Give a folder to write into; what it holds moves to its place when the block has ended well.

    Parameters
    ----------
    into
        The folder that the files are to be in; made if it is not there.
    names
        Of all files and folders that the block writes.
    amount
        How much of it the block will tell of.
    room
        How many bytes it may need.
    progress
        Told of what was written.

    Raises
    ------
    TargetExistsError
        A name is taken, or `into` is a file.
    ExportError
        `into` lies in a root.
    DiskFullError
        There is no room.
    """
    target = Path(into).expanduser().absolute()
    _check_names(target, names)
    made = [folder for folder in (target, *target.parents) if not folder.exists()]
    there = made[-1].parent if made else target
    _check_room(there, room + _ROOM_A_NAME * len(names))
    target.mkdir(parents=True, exist_ok=True)
    partial = target / f"export-{uuid.uuid4().hex[:8]}.partial"
    partial.mkdir()
    try:
        with _naming_a_failed_write(target):
            yield Staging(partial, tuple(target / name for name in names), amount, progress)
            _sync(partial)
            _give_names(partial, target, names)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
        for folder in made:
            with contextlib.suppress(OSError):  # not empty: all went well
                folder.rmdir()


def _check_names(target: Path, names: Sequence[str]) -> None:
    root = next((folder for folder in (target, *target.parents) if (folder / ROOT_MARK).exists()), None)
    if root is not None:
        raise ExportError(
            f"{target} lies in the root {root}, which holds runs and nothing else. Choose another folder."
        )
    if target.exists() and not target.is_dir():
        raise TargetExistsError(f"{target} is a file. Choose a folder, one that is there or a new one.")
    taken = [name for name in names if os.path.lexists(target / name)]
    if taken:
        more = f" and {len(taken) - 1} more of {len(names)}" if len(taken) > 1 else ""
        raise TargetExistsError(
            f"{target / taken[0]}{more} is there already, and nothing is overwritten. Choose another folder."
        )


def _check_room(folder: Path, needed: int) -> None:
    free = free_bytes(folder)
    if needed > free:
        raise DiskFullError(
            errno.ENOSPC,
            f"No room for the export: it may need {needed:,} bytes, {free:,} are free in {folder}. Select less, "
            "or choose another disk.",
        )


@contextlib.contextmanager
def _naming_a_failed_write(target: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        full = isinstance(error, DiskFullError)
        if isinstance(error, GentlyError) and not full:
            raise
        free, why = free_bytes(target), os.strerror(errno.ENOSPC) if full else error
        what = f"The export to {target} failed and was taken back: {why}; {free:,} bytes are free there."
        if error.errno == errno.ENOSPC or free < _FULL_BYTES:
            raise DiskFullError(errno.ENOSPC, what) from error
        raise OSError(error.errno or errno.EIO, what) from error


def _sync(folder: Path) -> None:
    for place, _, files in os.walk(folder):
        for name in files:
            sync_file(Path(place, name))
        sync_folder(Path(place))


def _give_names(partial: Path, target: Path, names: Sequence[str]) -> None:
    given: list[str] = []
    try:
        for name in names:
            give_name(partial / name, target / name)
            given.append(name)
    except BaseException as error:
        for name in given:
            (target / name).rename(partial / name)
        if isinstance(error, FileExistsError):
            raise TargetExistsError(f"{target / names[len(given)]} came to be there meanwhile.") from error
        raise
    sync_folder(target)
