"""What a start document says its run was made from.

`parents` are the runs that its data were derived from, `function` is what made them, `calibration` are the runs in
which was measured what it was acquired with. `imported` names the runs of whose files it was made, and the imports
that it continues. Takes every spelling that a hand may have given them.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from gently_bluesky.store.streams import Doc

Kind = Literal["derived", "calibration", "imported", "continues"]


@dataclass(frozen=True, slots=True)
class Edge:
    """One thing that a run was made from.

    Attributes
    ----------
    parent, child
        uids of the runs.
    kind
        "derived": its data were; "calibration": what it was acquired with was; "imported": it holds what files of
        that run held; "continues": it is the same import, going on.
    stream, data_key, seq_nums
        Which volumes of the parent; seq_nums as ranges, from 1, half-open. Empty where the document does not say.
    role
        As what, where it is a reference: "dark", for one.
    function, parameters
        What made the child of it.
    """

    parent: str
    child: str
    kind: Kind = "derived"
    stream: str = ""
    data_key: str = ""
    seq_nums: tuple[range, ...] = ()
    role: str = ""
    function: str = ""
    parameters: Mapping[str, Any] = field(default_factory=dict)

    @property
    def call(self) -> str:
        """What was called, as a person reads it: "deskew(angle_deg=45)"."""
        name = _short(self.function)
        return f"{name}({', '.join(f'{key}={value!r}' for key, value in self.parameters.items())})" if name else ""

    def as_dict(self) -> Doc:
        """Give it as JSON has it."""
        seq_nums = [{"start": each.start, "stop": each.stop} for each in self.seq_nums]
        said = {"parent": self.parent, "child": self.child, "kind": self.kind, "stream": self.stream}
        said |= {"data_key": self.data_key, "role": self.role, "function": self.function}
        return said | {"seq_nums": seq_nums, "parameters": dict(self.parameters)}


def selection_of(edges: Iterable[Edge]) -> str:
    """Give what of the parent, as a person reads it: "primary/spim_a, spim_b 1..12"; both ends count."""
    together: dict[tuple[str, str, tuple[range, ...]], list[str]] = {}
    for edge in edges:
        together.setdefault((edge.role, edge.stream, edge.seq_nums), []).append(edge.data_key)
    parts = []
    for (role, stream, seq_nums), keys in together.items():
        spans = ", ".join(
            str(each[0]) if each[0] == each[-1] else f"{each[0]}..{each[-1]}" for each in seq_nums if each
        )
        what = "/".join(part for part in (stream, ", ".join(filter(None, keys))) if part)
        parts.append(" ".join(part for part in (role and f"{role}:", what, spans) if part))
    return ", ".join(filter(None, parts))


def called(start: Mapping[str, Any]) -> str:
    """Give the name of the function that a run was derived by, without its module; "" if there was none."""
    function = start.get("function")
    return _short(str(function.get("name", ""))) if isinstance(function, Mapping) and is_derived(start) else ""


def _short(name: str) -> str:
    return name.rpartition(".")[2]


def is_derived(start: Mapping[str, Any]) -> bool:
    """Whether a start document says that its run's data were derived from others."""
    return "parents" in start


def edges_of(start: Mapping[str, Any]) -> tuple[Edge, ...]:
    """Give what a start document says its run was made from; what cannot be understood in it is passed over."""
    child, function, imported = str(start["uid"]), start.get("function"), start.get("imported")
    imported = imported if isinstance(imported, Mapping) else {}
    called: dict[str, Any] = {}
    if isinstance(function, Mapping):
        parameters = function.get("parameters")
        called["function"] = str(function.get("name", ""))
        called["parameters"] = parameters if isinstance(parameters, Mapping) else {}
    return (
        *(Edge(uid, child, "derived", **which, **called) for uid, which in _named(start.get("parents"))),
        *(Edge(uid, child, "calibration", **which) for uid, which in _named(start.get("calibration"))),
        *(Edge(uid, child, "imported") for uid, _ in _named(imported.get("of_runs"))),
        *(Edge(uid, child, "continues") for uid, _ in _named(imported.get("continues"))),
    )


def _named(said: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    """Give the runs that are named, as uids, as objects with one, or as a list of either."""
    for each in said if isinstance(said, list | tuple) else (said,):
        uid = each.get("run") if isinstance(each, Mapping) else each
        if not isinstance(uid, str) or not uid:
            continue
        which: dict[str, Any] = {}
        if isinstance(each, Mapping):
            which = {key: each[key] for key in ("stream", "data_key", "role") if isinstance(each.get(key), str)}
            which["seq_nums"] = tuple(_ranges(each.get("seq_nums")))
        yield uid, which


def _ranges(said: Any) -> Iterator[range]:
    numbers: list[int] = []
    for each in said if isinstance(said, list | tuple) else ():
        if type(each) is int:
            numbers.append(each)
        elif isinstance(each, Mapping) and {type(each.get("start")), type(each.get("stop"))} == {int}:
            yield range(each["start"], each["stop"])
    yield from as_ranges(numbers)


def as_ranges(numbers: Iterable[int]) -> list[range]:
    """Give numbers as ranges, ascending, half-open.

    >>> as_ranges([1, 2, 3, 7])
    [range(1, 4), range(7, 8)]
    """
    ranges: list[range] = []
    for number in sorted(set(numbers)):
        if ranges and number == ranges[-1].stop:
            ranges[-1] = range(ranges[-1].start, number + 1)
        else:
            ranges.append(range(number, number + 1))
    return ranges
