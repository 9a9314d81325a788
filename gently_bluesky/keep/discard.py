"""What a person asks of one run: its files into the trash, or back."""

import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from gently_bluesky.errors import NotInTrashError, RunKeptError, VolumeMissingError
from gently_bluesky.keep.acts import finish_interrupted
from gently_bluesky.keep.choice import DAY_S
from gently_bluesky.keep.holdings import children_of, held_by_tags
from gently_bluesky.keep.policy import Policy
from gently_bluesky.keep.stored import StoredFiles
from gently_bluesky.keep.trash import Named, into_trash, out_of_trash
from gently_bluesky.read.catalog import Catalog
from gently_bluesky.read.run import Run
from gently_bluesky.read.words import counted, listed
from gently_bluesky.store.index import RootIndex
from gently_bluesky.store.manifest import ManifestEntry, by_path, read_entries
from gently_bluesky.store.removed import away, day
from gently_bluesky.store.tags import login_name

_BY_HAND = "discarded by "
_NAMED = 5  # files that are named in an error


@dataclass(frozen=True, slots=True)
class Moved:
    """What was moved.

    Attributes
    ----------
    run, folder, paths
        Of which run, and what of it.
    left
        By path, why others were not.
    rules
        Of what came back from the trash, by which rules of a policy it had gone: they name it still.
    why_none
        Where there was nothing to be moved into the trash: what became of it before; "" otherwise.
    """

    run: str
    folder: Path
    paths: tuple[str, ...]
    left: dict[str, str]
    rules: tuple[str, ...] = ()
    why_none: str = ""


def discard(
    root: Path | str,
    run: int | str,
    paths: Collection[str] | None = None,
    *,
    by: str | None = None,
    now: float | None = None,
    grace_days: float = Policy().grace_days,
    even_with_children: bool = False,
) -> Moved:
    """Move files of one run into the trash; its documents stay, and say what it was.

    Parameters
    ----------
    root, run
        A root, and a run in it, as a catalog takes it.
    paths
        Which, relative to the run's folder, also of volumes that were given up; None: all.
    by
        Who says so; None: the login name.
    now
        Seconds since the epoch; None: now.
    grace_days
        How long they stay in the trash.
    even_with_children
        Whether runs may have been derived from it: their parent's pixels are then gone.

    Raises
    ------
    RunKeptError
        It is tagged keep, has no stop document, or others were derived from it; the message says what to do.
    RunLockedError
        It is being written, or something else is done to it.
    RunNotFoundError
        There is no such run.
    VolumeMissingError
        It has no file of that path; nothing is moved then.
    """
    moment, who = time.time() if now is None else now, by or login_name()
    catalog = Catalog(root)
    found, home = catalog[run], catalog.root
    finish_interrupted(home)
    _check_may_go(found)
    children = children_of(RootIndex(home).entries()).get(found.uid, ())
    if children and not even_with_children:
        raise RunKeptError(
            f"Run {found.uid} has children, which were derived from it: {listed([uid[:8] for uid in children])}. "
            "With even_with_children=True (gently-bluesky discard --even-with-children) it goes all the same."
        )
    folder = found.folder.relative_to(home).as_posix()
    there = by_path(read_entries(found.folder))
    if paths is not None:
        there = _only(paths, there, found)
    named = [
        Named(path, _BY_HAND + who, tuple((entry.data_key, entry.index) for entry in entries), aborted_too=True)
        for path, entries in there.items()
        if away(entries) is None
    ]
    if not named:
        fate = "; ".join(_fate(there))
        why = f"nothing is left to discard: {fate}" if fate else "it has no files but its documents"
        return Moved(found.uid, found.folder, (), {}, why_none=why)
    files = StoredFiles(home, afresh=True)
    until = moment + grace_days * DAY_S
    left = into_trash(home, folder, named, files, by=who, now=moment, until=until)
    gone = tuple(each.path for each in named if each.path not in left)
    return Moved(found.uid, found.folder, gone, left)


def _only(
    paths: Collection[str], there: Mapping[str, list[ManifestEntry]], run: Run
) -> dict[str, list[ManifestEntry]]:
    if unknown := sorted(set(paths) - there.keys()):
        names = ", ".join(sorted(there)[:_NAMED]) or "none"
        raise VolumeMissingError(
            f"Run {run.uid} has no file {unknown[0]!r} in its manifest. Of its {counted(len(there), 'file')}, "
            f"relative to {run.folder}, the first are: {names}."
        )
    return {path: there[path] for path in paths}


def _fate(there: Mapping[str, Sequence[ManifestEntry]]) -> list[str]:
    """Say of the files of a run that were removed what became of them."""
    ways = [how for entries in there.values() if (how := away(entries))]
    trashed, deleted = [how for how in ways if how.deleted is None], [how.deleted for how in ways if how.deleted]
    parts = []
    if trashed:
        since, until = day(min(how.time for how in trashed)), day(min(how.until for how in trashed))
        parts.append(f"{counted(len(trashed), 'file')} in the trash, since {since} and until {until}")
    if deleted:
        parts.append(f"{counted(len(deleted), 'file')} deleted for good, the last on {day(max(deleted))}")
    return parts


def _check_may_go(run: Run) -> None:
    if run.is_open:
        raise RunKeptError(
            f"Run {run.uid} has no stop document: it is being written, or was interrupted. "
            "Wait for its end, or close it with `gently-bluesky recover`; then discard it."
        )
    if why := held_by_tags(run.tags):
        raise RunKeptError(
            f"Run {run.uid} is {why}. To discard it all the same, take the tag away before: "
            f"gently-bluesky tag {run.uid[:8]} keep --remove"
        )


def restore(
    root: Path | str, run: int | str, paths: Collection[str] | None = None, *, by: str | None = None
) -> Moved:
    """Move files of a run from the trash back to where they were; they can be read again at once.

    Files that were removed, also those that were deleted for good, and that somebody has put back from a copy are
    taken in, if they are what they were.

    Parameters
    ----------
    root, run
        A root, and a run in it, as a catalog takes it.
    paths
        Which, relative to the run's folder; None: all that are in the trash.
    by
        Who says so; None: the login name.

    Raises
    ------
    NotInTrashError
        Nothing of it, or not all that is asked for, is in the trash; the message says what was deleted when.
    RunLockedError
        Something else is done to it.
    """
    catalog = Catalog(root)
    found = catalog[run]
    finish_interrupted(catalog.root)
    there = by_path(entry for entry in read_entries(found.folder) if entry.state == "removed")
    in_trash = {path for path, entries in there.items() if (how := away(entries)) and how.deleted is None}
    in_trash |= {path for path in there if (found.folder / path).exists()}  # brought back by hand
    wanted = in_trash if paths is None else set(paths)
    if not wanted or wanted - in_trash:
        raise NotInTrashError(_why_none(found, sorted(wanted - in_trash), there, in_trash))
    folder = found.folder.relative_to(catalog.root).as_posix()
    back, left = out_of_trash(catalog.root, folder, found.uid, wanted, by=by or login_name())
    rules = {str(there[path][0].details.get("rule")) for path in back}
    by_policy = tuple(sorted(rule for rule in rules if not rule.startswith(_BY_HAND)))
    return Moved(found.uid, found.folder, tuple(back), left, rules=by_policy)


def _why_none(run: Run, missing: list[str], there: dict[str, list[ManifestEntry]], in_trash: set[str]) -> str:
    what = f"{missing[0]} of run {run.uid} is not" if missing else f"No file of run {run.uid} is"
    names = f" ({', '.join(sorted(in_trash)[:_NAMED])})" if in_trash else ""
    return ". ".join([f"{what} in the trash", *_fate(there)]) + f"{names}."
