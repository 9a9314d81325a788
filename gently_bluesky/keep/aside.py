"""A copy of a run that broke off, put aside whole, so that the run can be stored there again.

Only what says of itself that it is less than the run to be stored: a replay that failed says so in its stop
document, one that was killed has none, or one by `recover`. Nothing is deleted.
"""

from itertools import count
from pathlib import Path

from gently_bluesky.errors import RunExistsError, RunNotFoundError
from gently_bluesky.keep.acts import move, sync_names
from gently_bluesky.read.catalog import Catalog
from gently_bluesky.read.replay import FAILED
from gently_bluesky.read.run import Run
from gently_bluesky.store.audit import append_audit
from gently_bluesky.store.layout import without_links
from gently_bluesky.write.run_folder import held

ASIDE = "aside"
"""Where copies that broke off are, in a root: for people to look at, and to delete."""


def make_way(root: Path | str, source: Run, *, put_aside: bool = False) -> Path | None:
    """Make way in a root for a run that is to be replayed into it.

    Parameters
    ----------
    root
        Where it is to be stored.
    source
        The run, from another root.
    put_aside
        Whether a copy of it that broke off is moved, whole, into the folder `ASIDE`.

    Returns
    -------
    Path
        Where such a copy is now; None if there was none. A run that is there and whole is left to the writer,
        which refuses to store it twice.

    Raises
    ------
    RunExistsError
        A copy that broke off is there, and was not to be put aside.
    RunLockedError
        It is being written.
    """
    catalog = Catalog(root)
    there = _copy_in(catalog, source.uid)
    if there is None or _end_of(there) >= _end_of(source):
        return None
    said = "it has no stop document" if there.stop is None else there.stop.get("reason")
    if not put_aside:
        raise RunExistsError(
            f"Run {source.uid} is in this root already, in {there.folder}: a copy that broke off ({said}). "
            "Nothing was changed. To put it aside, and store the run anew, say --again, with the other options as "
            "they were."
        )
    with held(there.folder):  # and let go: on Windows a folder with an open file is not moved
        pass
    aside = without_links(catalog.root, Path(ASIDE))
    names = (there.folder.name if number == 1 else f"{there.folder.name}+{number}" for number in count(1))
    target = next(aside / name for name in names if not (aside / name).exists())
    move(there.folder, target, catalog.root)
    sync_names(catalog.root, [there.folder, target])
    folder, where = (path.relative_to(catalog.root).as_posix() for path in (there.folder, target))
    append_audit(catalog.root, "put aside", run=source.uid, folder=folder, aside=where, reason=said)
    return target


def _copy_in(catalog: Catalog, uid: str) -> Run | None:
    try:
        there = catalog[uid]
    except RunNotFoundError:
        return None
    return there if there.uid == uid else None


def _end_of(run: Run) -> int:
    """Of two copies the one with the higher number came to more of an end."""
    if run.stop is None or "recovered" in run.stop:
        return 1
    return 0 if str(run.stop.get("reason", "")).startswith(FAILED) else 2
