"""What exported files are called: by what they show, so that they sort, and no two the same.

Session, embryo, timepoint, view, channel, as far as they are known and one, and by which function it was derived.
Where nothing says which timepoint, it is the run's folder, the stream and the seq_num. A second volume
of one address is told apart by run and seq_num.
"""

from collections.abc import Sequence
from itertools import chain, count

from gently_bluesky.exchange.selection import Selected
from gently_bluesky.read.parentage import called
from gently_bluesky.store.layout import run_folder_name, slug

_LETTERS = 40  # of each part: a name has 255 at most


def names_of(groups: Sequence[Sequence[Selected]]) -> list[str]:
    """Give a name without an ending for each group of volumes or events; no two are the same."""
    known = [timepoint for group in groups for timepoint in _timepoints(group)]
    digits = max(4, len(str(max(known, default=0))))
    names: list[str] = []
    taken: set[str] = set()
    for group in groups:
        name = _name(group, digits)
        if name.lower() in taken:
            name += f"_{slug(group[0].run.uid, 8)}-{group[0].shows.seq_num:04d}"
        taken.add(name.lower())
        names.append(name)
    return unlike(names)


def unlike(names: Sequence[str]) -> list[str]:
    """Give names of which no two are the same on any system, upper or lower case; a later one gets a number.

    >>> unlike(["a", "b", "A"])
    ['a', 'b', 'A-2']
    """
    unique: dict[str, str] = {}
    for name in names:
        numbered = (f"{name}-{number}" for number in count(2))
        found = next(each for each in chain([name], numbered) if each.lower() not in unique)
        unique[found.lower()] = found
    return list(unique.values())


def _name(group: Sequence[Selected], digits: int) -> str:
    timepoints = _timepoints(group)
    when = [_span("t", timepoints, digits)] if len(timepoints) == len(group) else _place(group)
    what = _one(group, "view") or _one(group, "data_key")
    by = {called(item.run.start) for item in group}
    made = slug(by.pop(), _LETTERS) if len(by) == 1 and any(by) else None
    parts = [_one(group, "session"), _one(group, "embryo"), *when, what, _one(group, "channel"), made]
    return "_".join(filter(None, parts)) or "selection"


def _timepoints(group: Sequence[Selected]) -> list[int]:
    said = (item.shows.timepoint for item in group)
    return [timepoint for timepoint in said if type(timepoint) is int and timepoint >= 0]


def _place(group: Sequence[Selected]) -> list[str | None]:
    if len({item.run.uid for item in group}) > 1:
        return []
    run = run_folder_name(group[0].run.start)
    if not group[0].shows.data_key:  # events; a table has a name for each stream anyway
        return [run]
    return [run, _one(group, "stream"), _span("", [item.shows.seq_num for item in group], 6)]


def _span(letter: str, numbers: Sequence[int], digits: int) -> str:
    first, last = (f"{number:0{digits}d}" for number in (min(numbers), max(numbers)))
    return letter + (first if first == last else f"{first}-{last}")


def _one(group: Sequence[Selected], field: str) -> str | None:
    """Give the value of a field that the whole group has, as a part of a name; None if there is no such value."""
    said = {str(value) for item in group if (value := getattr(item.shows, field)) not in (None, "")}
    return slug(said.pop(), _LETTERS) if len(said) == 1 else None
