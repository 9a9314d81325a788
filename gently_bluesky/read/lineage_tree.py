"""A lineage as a tree, for terminals and files: the run, what it came from, then what came of it.

A run to which several ways lead is told in full once, so that a tree is never longer than its graph is large.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from gently_bluesky.read.lineage import Lineage, Node, kin_of
from gently_bluesky.read.parentage import Edge, Kind, selection_of

_SAID: Mapping[Kind, tuple[str, str]] = {
    "calibration": ("calibrated by ", "calibrated "),
    "imported": ("imported from files of ", "its files were imported as "),
    "continues": ("continues ", "continued by "),
}
"""Of kinds of edges: what is said before what a run came from, and before what came of it."""


@dataclass(frozen=True, slots=True)
class Branch:
    """One line of a lineage as a tree: how deep, by which edges (the first: none), to which run, and a remark."""

    level: int
    last: bool
    edges: tuple[Edge, ...]
    up: bool
    node: Node
    remark: str = ""

    def __str__(self) -> str:
        what = selection_of(self.edges)
        before = after = ""
        if self.edges and self.edges[0].kind in _SAID:
            before = _SAID[self.edges[0].kind][not self.up]
        elif self.edges and self.up:
            before = f"from {what} of " if what else "from "
        elif self.edges:
            before, after = "gave ", f"; of {what}" if what else ""
        return f"{before}{self.node}{after}{self.remark and f' ({self.remark})'}"


def branches(lineage: Lineage) -> Iterator[Branch]:
    """Give a lineage as a tree, line by line: the run, what it came from, then what came of it."""
    nodes = {node.uid: node for node in lineage.nodes}
    kin = {up: kin_of(lineage.edges, up=up) for up in (True, False)}
    shown: set[tuple[bool, str]] = set()
    path: list[str] = []
    waiting = [Branch(0, True, (), up, nodes[lineage.run]) for up in (False, True)]
    while waiting:
        branch = waiting.pop()
        uid, up = branch.node.uid, branch.up
        del path[branch.level :]
        again = uid in path or (up, uid) in shown
        further = {} if again else kin[up].get(uid, {})
        remark = "a cycle: it leads back to itself" if uid in path else ""
        if not remark and again and uid in kin[up]:
            remark = "as above"
        elif not remark and branch.node.goes_on:
            remark = "goes on"
        if branch.level or up:  # the run itself is there once, whichever way it goes on
            yield Branch(branch.level, branch.last, branch.edges, up, branch.node, remark)
        path.append(uid)
        shown.add((up, uid))
        both = branch.level == 0 and up and bool(kin[False].get(uid))
        below = [
            Branch(branch.level + 1, i == len(further) - 1 and not both, tuple(edges), up, nodes[other])
            for i, ((other, _), edges) in enumerate(further.items())
        ]
        waiting += reversed(below)


def text(lineage: Lineage, *, ascii_only: bool = False) -> str:
    """Give a lineage as lines of text, a tree."""
    rule, tee, corner = ("|  ", "|- ", "`- ") if ascii_only else ("\u2502  ", "\u251c\u2500 ", "\u2514\u2500 ")
    lines = []
    closed: list[bool] = []
    for branch in branches(lineage):
        del closed[max(branch.level - 1, 0) :]
        guides = "".join("   " if last else rule for last in closed)
        joint = "" if branch.level == 0 else corner if branch.last else tee
        lines.append(f"{guides}{joint}{branch}")
        closed += [branch.last] if branch.level else []
    text = "\n".join([*lines, *lineage.warnings])
    return text.encode("ascii", "backslashreplace").decode() if ascii_only else text
