"""Where runs came from and what came of them: a graph of runs, out of their start documents alone.

A start document names the runs that its data were derived from (`parents`), those that calibrated it
(`calibration`) and, of an import, those whose files it took in and those that it continues (`imported`). Nothing
else is read, so ten thousand runs take no time. Whatever start documents say is walked to its end, once: a cycle,
which no run can come from, is found and named.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from gently_bluesky.errors import RunNotFoundError
from gently_bluesky.read.parentage import Edge, Kind, edges_of, selection_of
from gently_bluesky.read.words import clock
from gently_bluesky.store.streams import Doc

if TYPE_CHECKING:
    from gently_bluesky.read.run import Run


@dataclass(frozen=True, slots=True)
class Node:
    """One run of a lineage.

    Attributes
    ----------
    uid
        Of the run.
    start
        Its start document; None: there is no such run in the root.
    exit_status
        As its stop document says; None if the index knows none.
    goes_on
        Whether it has relations beyond the depth that was asked for.
    """

    uid: str
    start: Mapping[str, Any] | None = None
    exit_status: str | None = None
    goes_on: bool = False

    @property
    def missing(self) -> bool:
        """Whether there is no such run in the root."""
        return self.start is None

    @property
    def title(self) -> str:
        """What it is: its plan's name, and with which parameters it was derived."""
        if self.start is None:
            return "missing"
        name = str(self.start.get("plan_name") or "run")
        call = next((edge.call for edge in edges_of(self.start) if edge.call), "")
        return call if call.startswith(f"{name}(") else name

    @property
    def facts(self) -> tuple[str, ...]:
        """What is said of it beside its title and uid, part by part."""
        if self.start is None:
            return ("no run in this root has this uid",)
        named = [str(self.start[key]) for key in ("session", "embryo", "purpose") if self.start.get(key)]
        scan = [] if self.start.get("scan_id") is None else [f"scan {self.start['scan_id']}"]
        return (*scan, clock(self.start["time"])[:-3], *named, self.exit_status or "no stop yet")

    def __str__(self) -> str:
        return f"{self.title}  {self.uid if self.missing else self.uid[:8]}  {', '.join(self.facts)}"

    def as_dict(self) -> Doc:
        """Give it as JSON has it."""
        start = self.start or {}
        keys = ("scan_id", "plan_name", "time", "session", "embryo", "purpose")
        said = {key: start[key] for key in keys if key in start}
        state = {"exit_status": self.exit_status, "missing": self.missing, "goes_on": self.goes_on}
        return {"run": self.uid} | said | state


@dataclass(frozen=True, slots=True)
class Lineage:
    """What a run came from and what came of it.

    Attributes
    ----------
    run
        The uid of the run that was asked about.
    nodes
        All runs, those without parents in it first, missing ones included.
    edges
        All edges between them.
    cycles
        uids along each cycle, the first one again at the end; no run can come from itself, so a start document
        among them was made by hand.
    """

    run: str
    nodes: tuple[Node, ...]
    edges: tuple[Edge, ...]
    cycles: tuple[tuple[str, ...], ...] = ()

    def __getitem__(self, uid: str) -> Node:
        """Give a run of it by its uid."""
        for node in self.nodes:
            if node.uid == uid:
                return node
        raise RunNotFoundError(f"Run {uid} is not in the lineage of run {self.run}.")

    def text(self, *, ascii_only: bool = False) -> str:
        """Give it as lines of text, a tree: the run, what it came from, then what came of it."""
        from gently_bluesky.read.lineage_tree import text  # noqa: PLC0415 - it knows this module

        return text(self, ascii_only=ascii_only)

    @property
    def warnings(self) -> tuple[str, ...]:
        """A sentence for each cycle."""
        return tuple(
            f"A cycle, which no data can come from: {' -> '.join(uid[:8] for uid in cycle)}."
            for cycle in self.cycles
        )

    def __str__(self) -> str:
        return self.text()

    def svg(self) -> str:
        """Give it as a picture, parents to the left of their children."""
        from gently_bluesky.read.lineage_svg import draw  # noqa: PLC0415 - it knows this module

        return draw(self)

    def as_dict(self) -> Doc:
        """Give it as JSON has it."""
        return {
            "run": self.run,
            "nodes": [node.as_dict() for node in self.nodes],
            "edges": [edge.as_dict() for edge in self.edges],
            "cycles": [list(cycle) for cycle in self.cycles],
        }


@dataclass(frozen=True, slots=True)
class Relative:
    """A run that another came from, or that came of it, and what of it; a missing run is named all the same."""

    uid: str
    edge: Edge
    run: "Run | None"

    @property
    def missing(self) -> bool:
        """Whether there is no such run in the root."""
        return self.run is None

    def __repr__(self) -> str:
        shown = f"missing run {self.uid}" if self.run is None else repr(self.run)[1:-1]
        return f"<{self.edge.kind}: {' of '.join(part for part in (selection_of([self.edge]), shown) if part)}>"


# --- the graph ------------------------------------------------------------------------------------------------


def trace(
    uid: str,
    starts: Mapping[str, Mapping[str, Any]],
    statuses: Mapping[str, str | None],
    *,
    depth: int | None = None,
    up: bool = True,
    down: bool = True,
) -> Lineage:
    """Give the lineage of a run.

    Parameters
    ----------
    uid
        Of the run; it may be missing.
    starts, statuses
        Start document and exit status of every run in the root, by uid.
    depth
        How many generations each way; None: all.
    up, down
        Whether what it came from, and what came of it, is wanted.
    """
    edges = [edge for start in starts.values() if _RELATED & start.keys() for edge in edges_of(start)]
    kin = {way: kin_of(edges, up=way) for way in (True, False)}
    found, ends = {uid}, []
    for way in (way for way, wanted in ((True, up), (False, down)) if wanted):
        reached, last = _walk(uid, kin[way], depth)
        found |= reached
        ends += [(each, kin[way].get(each, {})) for each in last]
    goes_on = {each for each, others in ends if any(other not in found for other, _ in others)}
    inside = [edge for edge in edges if edge.parent in found and edge.child in found]
    order, cycles = _in_order(found, kin_of(inside, up=False), starts)
    nodes = tuple(Node(each, starts.get(each), statuses.get(each), each in goes_on) for each in order)
    place = {each: i for i, each in enumerate(order)}
    return Lineage(uid, nodes, tuple(sorted(inside, key=lambda edge: place[edge.child])), cycles)


_RELATED = {"parents", "calibration", "imported"}

Kin = dict[str, dict[tuple[str, Kind], list[Edge]]]
"""By a run's uid: its parents, or its children, each with the kind of the edges to it, and those."""


def kin_of(edges: Iterable[Edge], *, up: bool) -> Kin:
    """Give the parents of each run (`up`), or its children."""
    kin: Kin = {}
    for edge in edges:
        here, other = (edge.child, edge.parent) if up else (edge.parent, edge.child)
        kin.setdefault(here, {}).setdefault((other, edge.kind), []).append(edge)
    return kin


def _walk(uid: str, kin: Kin, depth: int | None) -> tuple[set[str], set[str]]:
    """Give all runs that are reached in so many generations, and those of the last generation."""
    found, last, generation = {uid}, {uid}, 0
    while last and (depth is None or generation < depth):
        last = {other for each in last for other, _ in kin.get(each, {})} - found
        found |= last
        generation += 1
    return found, last


def _in_order(
    uids: Iterable[str], children: Kin, starts: Mapping[str, Mapping[str, Any]]
) -> tuple[list[str], tuple[tuple[str, ...], ...]]:
    """Give runs with parents before their children, as far as there are no cycles, and the cycles."""
    newest_first = sorted(uids, key=lambda uid: (starts.get(uid, {}).get("time", 0.0), uid), reverse=True)
    finished: dict[str, None] = {}
    cycles = []
    for first in newest_first:
        path: dict[str, Iterator[str]] = {} if first in finished else {first: _others(first, children)}
        while path:
            uid, others = next(reversed(path.items()))
            other = next(others, None)
            if other is None:
                del path[uid]
                finished[uid] = None
            elif other in path:
                cycles.append((*list(path)[list(path).index(other) :], other))
            elif other not in finished:
                path[other] = _others(other, children)
    return list(reversed(finished)), tuple(cycles)


def _others(uid: str, kin: Kin) -> Iterator[str]:
    return iter(dict.fromkeys(other for other, _ in kin.get(uid, {})))
