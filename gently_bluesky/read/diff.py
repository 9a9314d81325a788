"""What differs between two runs: what was asked, how devices were configured, what the settings of events were.

Compares documents, never pixels. Of a setting that changed within a run, its range is compared.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any, Literal

from gently_bluesky.read.run import Run
from gently_bluesky.read.stream import Stream
from gently_bluesky.store.streams import Doc

Part = Literal["start", "configuration", "events"]

_NEVER_THE_SAME = {"uid", "time", "scan_id"}
_MOST_SHOWN = 5
_WIDTH = 36


class Absent(Enum):
    """What stands in the place of a value that a run does not have."""

    ABSENT = "absent"

    def __str__(self) -> str:
        return "-"


ABSENT = Absent.ABSENT


@dataclass(frozen=True, slots=True)
class Values:
    """What a setting was in a run: one value, or several in the order in which they first came.

    Attributes
    ----------
    distinct
        Each of them once.
    """

    distinct: tuple[Any, ...]

    @property
    def constant(self) -> bool:
        """Whether it never changed."""
        return len(self.distinct) == 1

    def __str__(self) -> str:
        if self.constant:
            return _shown(self.distinct[0])
        if all(isinstance(value, int | float) and not isinstance(value, bool) for value in self.distinct):
            return f"{_shown(min(self.distinct))} .. {_shown(max(self.distinct))} ({len(self.distinct)} values)"
        more = ", ..." if len(self.distinct) > _MOST_SHOWN else ""
        return ", ".join(map(_shown, self.distinct[:_MOST_SHOWN])) + more

    def plain(self) -> Any:
        """Give it as JSON has it: the value; or minimum, maximum and count of numbers; or a list."""
        if self.constant:
            return self.distinct[0]
        if all(isinstance(value, int | float) and not isinstance(value, bool) for value in self.distinct):
            return {"min": min(self.distinct), "max": max(self.distinct), "values": len(self.distinct)}
        return list(self.distinct)


@dataclass(frozen=True, slots=True)
class Difference:
    """One thing that differs.

    Attributes
    ----------
    part
        Of which documents: "start", "configuration" (of descriptors) or "events".
    where
        The place in them: keys one in the other with dots between; stream and device, or stream and data key,
        first.
    a, b
        What it was in each run; ABSENT where there is no such thing.
    """

    part: Part
    where: str
    a: Values | Absent
    b: Values | Absent

    @property
    def constant(self) -> bool:
        """Whether it is one value in each of the runs that have it."""
        return all(side is ABSENT or side.constant for side in (self.a, self.b))

    def as_dict(self) -> Doc:
        """Give it as JSON has it; a run that has no such thing is left out."""
        sides = {name: side.plain() for name, side in (("a", self.a), ("b", self.b)) if side is not ABSENT}
        return {"part": self.part, "where": self.where, **sides}


@dataclass(frozen=True, slots=True)
class Diff:
    """Everything in which two runs differ: start documents first, then configuration, then events.

    Attributes
    ----------
    a, b
        uids of the runs.
    differences
        Of events, those that are constant in both runs before those that changed within one.
    """

    a: str
    b: str
    differences: tuple[Difference, ...]

    def __len__(self) -> int:
        return len(self.differences)

    def __iter__(self) -> Iterator[Difference]:
        return iter(self.differences)

    def of(self, part: Part) -> tuple[Difference, ...]:
        """Give those of one part."""
        return tuple(each for each in self.differences if each.part == part)

    def __str__(self) -> str:
        if not self.differences:
            return f"Runs {self.a[:8]} and {self.b[:8]} do not differ in their settings."
        rows = [(each.part, each.where, _cut(str(each.a)), _cut(str(each.b))) for each in self.differences]
        table = [("", "setting", self.a[:8], self.b[:8]), *rows]
        widths = [max(len(row[i]) for row in table) for i in range(4)]
        cells = ([cell.ljust(size) for cell, size in zip(row, widths, strict=True)] for row in table)
        cells = ([cell.ljust(size) for cell, size in zip(row, widths, strict=True)] for row in table)
        return "\n".join("  ".join(row).rstrip() for row in cells)

    def as_dict(self) -> Doc:
        """Give it as JSON has it."""
        return {"a": self.a, "b": self.b, "differences": [each.as_dict() for each in self.differences]}


def diff(a: Run, b: Run) -> Diff:
    """Compare the settings of two runs.

    Parameters
    ----------
    a, b
        Of any roots.

    Returns
    -------
    Diff
        What differs in the start documents, but for uid, time and scan_id; in the configuration of each device, by
        stream; and in the values of each scalar data key, by stream. Arrays and images are not compared.

    Raises
    ------
    JournalError
        A journal is damaged; `run.up_to_damage` can be compared.
    """
    found: list[Difference] = []
    sides: tuple[tuple[Part, Mapping[str, Values], Mapping[str, Values]], ...] = (
        ("start", _of_start(a), _of_start(b)),
        ("configuration", _of_streams(a, _configuration), _of_streams(b, _configuration)),
        ("events", _of_streams(a, _events), _of_streams(b, _events)),
    )
    for part, of_a, of_b in sides:
        places = dict.fromkeys([*of_a, *of_b])
        pairs = [(place, of_a.get(place, ABSENT), of_b.get(place, ABSENT)) for place in places]
        differences = [Difference(part, place, *pair) for place, *pair in pairs if not _same(*pair)]
        found += sorted(differences, key=lambda each: not each.constant) if part == "events" else differences
    return Diff(a.uid, b.uid, tuple(found))


def _of_start(run: Run) -> dict[str, Values]:
    start = {key: value for key, value in run.start.items() if key not in _NEVER_THE_SAME}
    return {place: Values((value,)) for place, value in _leaves(start)}


def _of_streams(run: Run, places: Any) -> dict[str, Values]:
    return {f"{name}.{place}": values for name in run for place, values in places(run[name])}


def _configuration(stream: Stream) -> Iterator[tuple[str, Values]]:
    every: dict[str, list[Any]] = {}
    for doc in stream.descriptors:
        for device, entry in doc.get("configuration", {}).items():
            for place, value in _leaves(entry.get("data", {}), device) if entry.get("data") else ():
                every.setdefault(place, []).append(value)
    return ((place, _distinct(values)) for place, values in every.items())


def _events(stream: Stream) -> Iterator[tuple[str, Values]]:
    for key, entry in stream.data_keys.items():
        values = [row.data[key] for row in stream.rows if key in row.data]
        if values and not entry.get("external") and not any(isinstance(value, list | dict) for value in values):
            yield key, _distinct(values)


def _leaves(value: Any, place: str = "") -> Iterator[tuple[str, Any]]:
    """Give what stands at every place of a document; a list is one thing, but for one of objects."""
    if isinstance(value, Mapping) and value:
        for key, item in value.items():
            yield from _leaves(item, f"{place}.{key}" if place else str(key))
    elif isinstance(value, list) and value and all(isinstance(item, Mapping) for item in value):
        for i, item in enumerate(value):
            yield from _leaves(item, f"{place}[{i}]")
    else:
        yield place, value


def _distinct(values: Iterable[Any]) -> Values:
    return Values(tuple({_key(value): value for value in values}.values()))


def _key(value: Any) -> str:
    return repr(int(value)) if type(value) is float and value.is_integer() else repr(value)  # 5.0 is 5


def _same(a: Values | Absent, b: Values | Absent) -> bool:
    if a is ABSENT or b is ABSENT:
        return a is b
    return sorted(map(_key, a.distinct)) == sorted(map(_key, b.distinct))


def _shown(value: Any) -> str:
    return f"{value:.6g}" if type(value) is float else value if isinstance(value, str) else repr(value)


def _cut(text: str) -> str:
    return text if len(text) <= _WIDTH else f"{text[: _WIDTH - 3]}..."
