"""Tools that write: tags and notes of a run, in the name of the agent. They are there only where a user allows it.

Journalled beside the run's documents, which never change.
"""

from gently_bluesky.read.catalog import Catalog
from gently_bluesky.read.words import listed
from gently_bluesky.serve.agent.answering import Facts, NotThereError
from gently_bluesky.serve.agent.asking import RunId, run_of
from gently_bluesky.store.tags import add_note

_LONGEST = 4000


def tag_run(
    catalog: Catalog,
    by: str,
    run_id: RunId,
    add: list[str] | None = None,
    remove: list[str] | None = None,
    note: str = "",
) -> Facts:
    """Add tags to a run, take tags away, or add a note; all of it stays in its notes, with your name and the time.

    The tag "keep" holds all of its data: retention never passes over it.

    Parameters
    ----------
    run_id
        "-1" is the newest run; a scan_id; or a run's uid, or its beginning.
    add, remove
        Tags: words or short phrases.
    note
        A text, at most 4000 characters.
    """
    if len(note) > _LONGEST or any(len(tag) > _LONGEST for tag in [*(add or []), *(remove or [])]):
        raise ValueError(f"A note is {len(note)} characters long; at most {_LONGEST} are kept.")
    run = run_of(catalog, run_id)
    if absent := sorted(set(remove or ()) - run.tags):
        raise NotThereError(f"Run {run.uid} has no tag {absent[0]!r}; its tags: {listed(sorted(run.tags))}.")
    add_note(run.folder, by=by, added=add or (), removed=remove or (), text=note)
    return {"run": run.uid, "tags": sorted(run.tags), "by": by, "notes": len(run.notes)}
