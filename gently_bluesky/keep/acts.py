"""Acts on stored files, each between two lines of the audit, so that one that was interrupted is known.

An act opens ("removing", "restoring", "deleting"), changes manifest and files of one run whose lock it holds, and
closes ("removed", "restored", "deleted"). Whatever happens in between, a file is at its place or in the trash, and
what lies at its place is served: `finish_interrupted` makes the manifest say so.
"""

import contextlib
import logging
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from gently_bluesky.errors import JournalError, RunLockedError
from gently_bluesky.keep.stored import StoredFiles
from gently_bluesky.store.audit import append_audit, read_audit
from gently_bluesky.store.disk import sync_folder
from gently_bluesky.store.journal import append_shared
from gently_bluesky.store.layout import MANIFEST, TRASH, open_root
from gently_bluesky.store.manifest import ManifestEntry, by_path, read_entries
from gently_bluesky.store.removed import Removed, as_before, away, removed
from gently_bluesky.write.run_folder import held, is_locked

log = logging.getLogger(__name__)

_CLOSED_BY = {"removing": "removed", "restoring": "restored", "deleting": "deleted"}
_ACTS = {*_CLOSED_BY, *_CLOSED_BY.values()}


@dataclass(frozen=True, slots=True)
class Finished:
    """An act that was interrupted and is brought to its end: on which run, and what of it is where now."""

    run: str
    folder: str
    act: str
    at_place: tuple[str, ...]
    in_trash: tuple[str, ...]

    def __str__(self) -> str:
        return (
            f"Run {self.run}: {self.act} was interrupted; {len(self.at_place)} of its files are at their place, "
            f"{len(self.in_trash)} in the trash."
        )


def write_entries(folder: Path, entries: Iterable[ManifestEntry]) -> None:
    """Append to the manifest of a run whose lock is held, durably."""
    if lines := [entry.line() for entry in entries]:
        append_shared(folder / MANIFEST, lines)


def settle(root: Path, folder: Path) -> None:
    """Let the manifest of a run whose lock is held say that what lies at its place is there, if it is that."""
    files = StoredFiles(root, afresh=True)
    write_entries(folder, [as_before(entry) for entry in read_entries(folder) if _is_back(files, folder, entry)])


def _is_back(files: StoredFiles, folder: Path, entry: ManifestEntry) -> bool:
    path, before = folder / entry.path, as_before(entry)
    if entry.state != "removed" or not path.exists():
        return False
    return files.condition_of(path, before) in {"good", "unknown"}


def move(source: Path, target: Path, root: Path) -> None:
    """Move a file or a folder within a root, never over another; its names are durable after `sync_names`.

    Raises
    ------
    OSError
        It stayed where it was.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.exists() or target.is_symlink():
        raise FileExistsError(f"{target.relative_to(root)} is there already")
    source.rename(target)


def sync_names(root: Path, paths: Iterable[Path]) -> None:
    """Make durable under which names files lie, and their folders up to the root."""
    folders = {folder for path in paths for folder in path.parents if folder.is_relative_to(root)}
    for folder in sorted(folders, reverse=True):
        if folder.is_dir():
            sync_folder(folder)


def delete(root: Path, copy: Path) -> None:
    """Delete what is in the trash, and the folders that are empty without it."""
    if copy.is_dir() and not copy.is_symlink():
        shutil.rmtree(copy)
    else:
        copy.unlink(missing_ok=True)
    prune(root, copy.parent)


def prune(root: Path, folder: Path) -> None:
    """Delete empty folders in the trash, from this one upwards."""
    with contextlib.suppress(OSError):  # not empty
        while folder != root / TRASH and folder.is_relative_to(root / TRASH):
            if folder.exists():
                folder.rmdir()
            folder = folder.parent


def _prune_all(root: Path, name: str) -> None:
    """Delete empty folders in the trash: of days, and of runs with folders of this name."""
    for today in (root / TRASH).glob("*"):
        for folder in sorted(today.glob(f"{name}*/**/"), reverse=True):
            prune(root, folder)
        prune(root, today)


# --- acts that were interrupted -----------------------------------------------------------------------------


def close_act(root: Path, act: str, run: str, folder: str, paths: Iterable[str], **details: object) -> None:
    """Say in the audit that an act is done, and to which paths."""
    append_audit(root, _CLOSED_BY[act], run=run, folder=folder, paths=sorted(paths), **details)


def finish_interrupted(root: Path | str) -> list[Finished]:
    """Bring acts to their end that were interrupted; those of a living process are left to it.

    Returns
    -------
    list
        What was done; empty, and nothing changed, if there was nothing.

    Raises
    ------
    RootError, JournalError
        It is no root; the manifest of such a run is damaged.

    Notes
    -----
    A damaged line of the audit is passed over. What it opened may stay half done: every file of such a run is at
    its place or in the trash, `verify` names those whose manifest says something else, and `restore` mends it.
    """
    root, _ = open_root(Path(root))
    return [finished for folder in _open_acts(root) for finished in _finish(root, folder)]


def at_work(root: Path, since: int) -> set[str]:
    """Give the folders of runs whose files are being moved, or were since the audit was `since` bytes long."""
    later = read_audit(root, since, pass_over=_ignore)
    busy = (folder for folder in _open_acts(root) if is_locked(root / folder))
    return {*busy, *(str(line.get("folder")) for line in later if line.get("act") in _ACTS)}


def _ignore(damage: JournalError) -> None:
    """Pass over what `verify` names anyway."""


def _open_acts(root: Path) -> dict[str, dict[str, Any]]:
    """Give the lines that opened acts which were not closed, by the folder of the run."""
    begun: dict[str, dict[str, Any]] = {}
    for line in read_audit(root, pass_over=lambda damage: log.warning("%s", damage)):
        act, folder = line.get("act"), str(line.get("folder"))
        if act in _CLOSED_BY:
            begun[folder] = line
        elif act in _CLOSED_BY.values():
            begun.pop(folder, None)
    return begun


def _finish(root: Path, folder: str) -> Iterator[Finished]:
    path = root / folder
    if not path.is_dir():  # somebody took the whole run away
        begun = _open_acts(root)[folder]
        close_act(root, begun["act"], str(begun.get("run")), folder, [], finished="there is no such run any more")
        return
    with contextlib.suppress(RunLockedError), held(path):
        if folder not in (acts := _open_acts(root)):  # whoever did it has finished meanwhile
            return
        act, run = acts[folder]["act"], str(acts[folder].get("run"))
        mine = acts[folder].get("paths") or ()
        settle(root, path)
        said = by_path(read_entries(path))
        in_trash, deleted = [], []
        for name, entries in said.items():
            how = away(entries)
            if how is None:
                continue
            ends = [each.deleted for entry in entries if (each := Removed.of(entry)) and each.deleted is not None]
            if act == "deleting" and name in mine and ends and (copy := how.path(root)) is not None:
                gone = replace(how, deleted=ends[0])  # of all volumes in it, whichever the lines were that came
                write_entries(path, [removed(entry, gone) for entry in entries])
                delete(root, copy)
                deleted.append(name)
            elif not ends:
                in_trash.append(name)
        _prune_all(root, path.name)
        sync_names(root, [*(path / name for name in said), root / TRASH / "any"])
        at_place = [name for name, entries in said.items() if away(entries) is None]
        paths = {"removing": in_trash, "restoring": at_place, "deleting": deleted}[act]
        close_act(root, act, run, folder, paths, finished="it was interrupted")
        yield Finished(run, folder, act, tuple(at_place), tuple(in_trash))
