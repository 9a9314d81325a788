"""Tags and notes of a run, by whom and when: what people and agents say of it after it happened.

A line an act in the run's folder; never part of the documents. Knows the words, and nothing of what they do:
`keep` is a promise that retention reads.
"""

import getpass
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from gently_bluesky.errors import JournalError
from gently_bluesky.store.journal import append_shared, read_lines
from gently_bluesky.store.layout import TAGS

KEEP = "keep"
"""The tag that retention never passes over."""


@dataclass(frozen=True, slots=True)
class Note:
    """One act: tags that were added or taken away, and a text, by whom and when (seconds since the epoch)."""

    time: float
    by: str
    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    text: str = ""


def login_name() -> str:
    """Give who works here, for tags and the audit; "unknown" where the system does not say."""
    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):  # no such user; no module pwd on Windows
        return "unknown"


def read_notes(folder: Path) -> Iterator[Note]:
    """Read every act on a run folder, in order.

    Raises
    ------
    JournalError
        A line is damaged: what the tags are is then not known.
    """
    path = folder / TAGS
    if not path.exists():
        return
    for offset, line in read_lines(path):
        try:
            yield Note(
                float(line["time"]),
                str(line["by"]),
                tuple(map(str, line.get("added", ()))),
                tuple(map(str, line.get("removed", ()))),
                str(line.get("text", "")),
            )
        except (TypeError, KeyError, AttributeError, ValueError) as error:
            raise JournalError(f"{path}: the line that ends at byte {offset} is no note ({error!r}).") from error


def read_tags(folder: Path) -> frozenset[str]:
    """Give the tags that a run has now; JournalError as in `read_notes`."""
    return tags_in(read_notes(folder))


def tags_in(notes: Iterable[Note]) -> frozenset[str]:
    """Give the tags that are left after all acts."""
    tags: set[str] = set()
    for note in notes:
        tags = (tags | set(note.added)) - set(note.removed)
    return frozenset(tags)


def add_note(
    folder: Path, *, by: str, added: Iterable[str] = (), removed: Iterable[str] = (), text: str = ""
) -> Note:
    """Append an act to a run folder, and make it durable.

    Raises
    ------
    ValueError
        Nothing is said, a tag is empty or has blanks at its ends, or `by` is empty.
    """
    note = Note(time.time(), by, tuple(added), tuple(removed), text)
    for tag in (*note.added, *note.removed):
        if not tag or tag != tag.strip() or "\n" in tag:
            raise ValueError(f"{tag!r} is no tag: it must be text without blanks at its ends.")
    if not by.strip():
        raise ValueError("A note says by whom it is: by='name'.")
    if not (note.added or note.removed or text):
        raise ValueError("A note needs a tag to add or to remove, or a text.")
    said = {"time": note.time, "by": by, "added": list(note.added), "removed": list(note.removed), "text": text}
    append_shared(folder / TAGS, [{key: value for key, value in said.items() if value not in ([], "")}])
    return note
