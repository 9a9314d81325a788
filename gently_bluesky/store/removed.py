"""What the manifest says of a stored form that retention took away, and how it comes back.

The entry keeps path, format, shape and hash; its details say who, when, by which rule and where to, and keep what
they were before. Knows words and moves nothing.
"""

import datetime
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any, Self

from gently_bluesky.store.layout import TRASH
from gently_bluesky.store.manifest import ManifestEntry, is_inside


@dataclass(frozen=True, slots=True, kw_only=True)
class Removed:
    """How a stored form was taken away.

    Attributes
    ----------
    rule, by
        The policy's rule, and who applied it.
    time, until
        When, and until when it stays in the trash, seconds since the epoch.
    trash
        Where it is, relative to the root, with forward slashes.
    deleted
        When it went for good; None while it is in the trash.
    """

    rule: str
    by: str
    time: float
    until: float
    trash: str
    deleted: float | None = None

    @classmethod
    def of(cls, entry: ManifestEntry) -> Self | None:
        """Give what an entry says of its removal; None if it was not removed."""
        if entry.state != "removed":
            return None
        said = entry.details
        deleted = said.get("deleted")
        return cls(
            rule=str(said.get("rule")),
            by=str(said.get("by")),
            time=float(said.get("time", 0)),
            until=float(said.get("until", 0)),
            trash=str(said.get("trash", "")),
            deleted=None if deleted is None else float(deleted),
        )

    def path(self, root: Path) -> Path | None:
        """Give where it is in the trash; None if what is said is no place in there."""
        parts = PurePosixPath(self.trash).parts
        ours = parts[:1] == (TRASH,) and len(parts) > 3 and is_inside(self.trash)  # trash, day, run, path
        return root.joinpath(*parts) if ours else None

    def said(self) -> dict[str, Any]:
        """Give what others may know of it, as JSON has it: not where it is."""
        said = {"rule": self.rule, "by": self.by, "time": self.time, "until": self.until, "deleted": self.deleted}
        return {key: value for key, value in said.items() if value is not None}

    def __str__(self) -> str:
        text = f"removed on {day(self.time)} by rule {self.rule!r}, applied by {self.by}"
        if self.deleted is not None:
            return f"{text}, and deleted from the trash on {day(self.deleted)}"
        return f"{text}; it is in the trash until {day(self.until)}"


def away(entries: Iterable[ManifestEntry]) -> Removed | None:
    """Give how a path was taken away: all of the volumes in it; None if one of them is at its place."""
    ways = [Removed.of(entry) for entry in entries]
    known = [how for how in ways if how is not None]
    return known[0] if known and len(known) == len(ways) else None


def removed(entry: ManifestEntry, how: Removed) -> ManifestEntry:
    """Give the entry of a stored form that is taken away, or, once it is, of one that is deleted."""
    before = as_before(entry)
    said: dict[str, Any] = {key: value for key, value in asdict(how).items() if value is not None}
    was = {"state": before.state, "details": dict(before.details)}
    return replace(before, state="removed", details={**said, "was": was})


def as_before(entry: ManifestEntry) -> ManifestEntry:
    """Give an entry as it was before it was removed; as it is, if it was not."""
    if entry.state != "removed":
        return entry
    was = entry.details.get("was") or {}
    return replace(entry, state=was.get("state", "sealed"), details=was.get("details", {}))


def day(seconds: float) -> str:
    """Give the day of a moment in local time, e.g. "2026-11-23"."""
    return f"{datetime.datetime.fromtimestamp(seconds):%Y-%m-%d}"
