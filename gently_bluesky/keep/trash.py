"""Into the trash, back from there, and out of it for good: the three acts on the stored files of one run.

Each holds the run's lock. Into the trash goes only what is verified right then. The order of every act is: audit,
manifest, files, audit; see `acts` for what an interruption leaves.
"""

import datetime
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from gently_bluesky.keep.acts import (
    close_act,
    delete,
    move,
    prune,
    settle,
    sync_names,
    write_entries,
)
from gently_bluesky.keep.choice import is_same_volume
from gently_bluesky.keep.holdings import bytes_on_disk, held_by_tags, tags_of
from gently_bluesky.keep.stored import StoredFiles
from gently_bluesky.store.audit import append_audit
from gently_bluesky.store.formats import examine
from gently_bluesky.store.index import IndexEntry, entry_of
from gently_bluesky.store.layout import TRASH, without_links
from gently_bluesky.store.manifest import ManifestEntry, by_path, read_entries
from gently_bluesky.store.removed import Removed, as_before, away, day, removed
from gently_bluesky.store.tags import read_notes
from gently_bluesky.write.run_folder import held


@dataclass(frozen=True, slots=True)
class Named:
    """A path that is to go: by which rule, with which volumes (data key and index), and why it may.

    Attributes
    ----------
    once_in
        The other form in which every volume of it must be stored as well; None if that is not asked.
    aborted_too
        Whether volumes that were given up may go, also without a hash: nothing was promised of them.
    """

    path: str
    rule: str
    volumes: tuple[tuple[str, int | None], ...]
    once_in: str | None = None
    aborted_too: bool = False


@dataclass(frozen=True, slots=True)
class Deleted:
    """What was deleted from the trash."""

    run: str
    folder: str
    path: str
    bytes: int


def into_trash(
    root: Path,
    folder: str,
    named: Sequence[Named],
    files: StoredFiles,
    *,
    by: str,
    now: float,
    until: float,
    planned: float | None = None,
) -> dict[str, str]:
    """Move stored forms of a run into the trash.

    Parameters
    ----------
    root, folder
        The root, and the run's folder relative to it.
    named
        What is to go.
    files
        To verify them with.
    by, now, until
        Who says so, when, and until when they stay in the trash.
    planned
        When it was decided: a run that was tagged since stays. None: now.

    Returns
    -------
    dict
        By path, why it was not removed after all; empty if all were.

    Raises
    ------
    RunLockedError
        The run is being written.
    """
    path = root / folder
    with held(path):
        said = entry_of(root, path)
        if said is None or said.stop is None:
            return dict.fromkeys((each.path for each in named), "its journal has no stop document")
        if why := held_by_tags(tags_of(path)) or _tagged_since(path, planned) or _before_its_end(said, now):
            return dict.fromkeys((each.path for each in named), why)
        entries = read_entries(path)
        refused = {each.path: _why_not(path, each, entries, files) for each in named}
        going = [each for each in named if not refused[each.path]]
        refused = {name: why for name, why in refused.items() if why}
        return refused | (_move_into(root, folder, str(said.start["uid"]), going, entries, by, now, until))


def _tagged_since(folder: Path, planned: float | None) -> str:
    if planned is None:
        return ""
    notes = (note.time for note in read_notes(folder))
    return "it was tagged or noted since this was planned" if any(time > planned for time in notes) else ""


def _before_its_end(run: IndexEntry, now: float) -> str:
    if run.stop is None or now >= float(run.stop["time"]):
        return ""
    return f"the clock says {day(now)}, and the run ended on {day(float(run.stop['time']))}: set the clock"


def _why_not(folder: Path, named: Named, entries: Sequence[ManifestEntry], files: StoredFiles) -> str:
    mine = [entry for entry in entries if entry.path == named.path and entry.state != "removed"]
    if _is_linked(folder, named.path):
        return "a link leads there: a root is one tree"
    if sorted(map(_volume, mine), key=str) != sorted(named.volumes, key=str):
        return "it is not what it was when this was planned"
    for entry in mine:
        if entry.state == "aborted" and not named.aborted_too:
            return "it was given up while it was taken: by hand only"
        condition = _condition(folder, entry, files)
        if condition == "unknown" and entry.state == "aborted":
            continue
        if condition != "good":
            return f"it cannot be verified: {condition}"
        if named.once_in is not None and not _stands_in(folder, entry, named.once_in, entries, files):
            return f"volume {entry.index} of {entry.data_key!r} is not stored as {named.once_in}, verified, too"
    return ""


def _volume(entry: ManifestEntry) -> tuple[str, int | None]:
    return entry.data_key, entry.index


def _condition(folder: Path, entry: ManifestEntry, files: StoredFiles) -> str:
    try:
        condition: str = files.condition(folder, entry)
        if condition == "good":
            examine(folder / entry.path, entry.index)
    except OSError as error:
        return f"it cannot be read ({error.strerror or error})"
    except ValueError as error:
        return f"its head is damaged ({error})"
    return condition


def _stands_in(
    folder: Path, entry: ManifestEntry, form: str, entries: Sequence[ManifestEntry], files: StoredFiles
) -> bool:
    others = (other for other in entries if is_same_volume(entry, other, form))
    return any(
        not _is_linked(folder, other.path) and _condition(folder, other, files) == "good" for other in others
    )


def _is_linked(folder: Path, path: str) -> bool:
    return (folder / path).resolve() != folder.resolve() / path


def _move_into(
    root: Path,
    folder: str,
    run: str,
    named: Sequence[Named],
    entries: Sequence[ManifestEntry],
    by: str,
    now: float,
    until: float,
) -> dict[str, str]:
    if not named:
        return {}
    path, there = root / folder, by_path(entries)
    append_audit(
        root,
        "removing",
        run=run,
        folder=folder,
        by=by,
        rules={each.path: each.rule for each in named},
        paths=sorted(each.path for each in named),
    )
    trash = _new_folder(root, Path(folder).name, now)
    where = trash.relative_to(root).as_posix()
    new = []
    for each in named:
        to = f"{where}/{each.path}"
        how = Removed(rule=each.rule, by=by, time=now, until=until, trash=to)
        new += [removed(entry, how) for entry in there[each.path]]
    write_entries(path, new)
    moves = {each.path: (path / each.path, trash / each.path) for each in named}
    failed = _move_all(root, moves)
    settle(root, path)
    prune(root, trash)
    close_act(root, "removing", run, folder, moves.keys() - failed.keys(), trash=where, failed=failed)
    return failed


def _move_all(root: Path, moves: Mapping[str, tuple[Path, Path]]) -> dict[str, str]:
    """Move files, make their names durable, and give those that could not be moved, and why."""
    failed = {}
    for name, (source, target) in moves.items():
        try:
            move(source, target, root)
        except OSError as error:  # open on Windows, another file system ...
            failed[name] = f"it could not be moved: {error.strerror or error}"
    sync_names(root, [each for pair in moves.values() for each in pair])
    return failed


def _new_folder(root: Path, name: str, now: float) -> Path:
    """Create a folder in the trash that nobody else uses: nothing in there is ever overwritten."""
    today = without_links(root, Path(TRASH)) / f"{datetime.datetime.fromtimestamp(now, datetime.UTC):%Y-%m-%d}"
    number = 1
    while True:
        folder = today / (name if number == 1 else f"{name}+{number}")
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            number += 1
        else:
            return folder


def out_of_trash(
    root: Path, folder: str, run: str, paths: Collection[str], *, by: str
) -> tuple[list[str], dict[str, str]]:
    """Let stored forms of a run be where they were; give which are, and, by path, why others are not.

    What somebody has brought back there already is compared with its hash, and taken in.
    """
    path = root / folder
    with held(path):
        settle(root, path)
        there = {
            name: how
            for name, entries in by_path(read_entries(path)).items()
            if name in paths and (how := away(entries)) is not None and how.deleted is None
        }
        append_audit(root, "restoring", run=run, folder=folder, by=by, paths=sorted(there))
        copies = {name: how.path(root) for name, how in there.items()}
        failed, partly = _rotten(root, path, copies)
        moves = {
            name: (copy, path / name) for name, copy in copies.items() if copy is not None and name not in failed
        }
        failed |= _move_all(root, moves)
        # what moved is what was there, whole; a volume in it that has rotted is named by verify, and by its reader
        moved = [entry for name in moves if name not in failed for entry in by_path(read_entries(path))[name]]
        write_entries(path, map(as_before, moved))
        settle(root, path)
        for copy in copies.values():
            if copy is not None:
                prune(root, copy.parent)
        close_act(root, "restoring", run, folder, there.keys() - failed.keys())
        now = by_path(read_entries(path))
    back = [name for name in paths if away(now[name]) is None]
    failed |= {name: "what lies there is not what was removed" for name in paths if name not in {*back, *failed}}
    return sorted(back), partly | failed


def _rotten(root: Path, folder: Path, copies: Mapping[str, Path | None]) -> tuple[dict[str, str], dict[str, str]]:
    """Give why copies in the trash are not what the manifest says: those that stay there, and those of which some
    volumes are good, which come back.
    """
    files, found = StoredFiles(root, afresh=True), by_path(read_entries(folder))
    why, partly = {}, {}
    for name, copy in copies.items():
        conditions = {
            entry.index: "missing" if copy is None else files.condition_of(copy, as_before(entry))
            for entry in found[name]
        }
        bad = {index: condition for index, condition in conditions.items() if condition not in {"good", "unknown"}}
        if len(bad) == len(conditions):
            why[name] = f"its copy in the trash is {next(iter(bad.values()))}: it stays there"
        elif bad:
            said = ", ".join(f"volume {index} is {condition}" for index, condition in bad.items())
            partly[name] = f"it is back, but not all of it is what it was: {said}"
    return why, partly


def delete_expired(root: Path, folder: str, *, now: float, planned: float | None = None) -> list[Deleted]:
    """Delete for good what of a run is in the trash for longer than its grace.

    None of it if the run is tagged keep, or was tagged or noted since `planned`.
    """
    path = root / folder
    with held(path):
        if held_by_tags(tags_of(path)) or _tagged_since(path, planned):
            return []
        expired = {
            name: (how, copy, entries)
            for name, entries in by_path(read_entries(path)).items()
            if (how := away(entries)) is not None
            and how.deleted is None
            and how.until <= now
            and (copy := how.path(root)) is not None
        }
        said = entry_of(root, path)
        if not expired or said is None:
            return []
        run = str(said.start["uid"])
        append_audit(root, "deleting", run=run, folder=folder, paths=sorted(expired))
        write_entries(
            path, [removed(e, replace(how, deleted=now)) for how, _, entries in expired.values() for e in entries]
        )
        deleted, still = [], []
        for name, (how, copy, entries) in expired.items():
            size = bytes_on_disk(copy)
            try:
                delete(root, copy)
                deleted.append(Deleted(run, folder, name, size))
            except OSError:  # held open by somebody, on Windows: another time
                still += [removed(entry, how) for entry in entries]
        write_entries(path, still)
        sync_names(root, [root / TRASH / "any"])
        close_act(root, "deleting", run, folder, [each.path for each in deleted])
    return deleted
