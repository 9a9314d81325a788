"""A lineage as a picture: runs as cards in columns, parents to the left of their children.

Layers after Sugiyama: each run a column behind the last of its parents, long edges through the columns between,
cards ordered and placed near their neighbours. Plain SVG that every browser and paper takes; text is measured as
a wide font has it, and what does not fit is cut and told in full by its tooltip.
"""

import re
from collections import Counter
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal
from xml.sax.saxutils import escape

from gently_bluesky.read.lineage import Lineage, Node
from gently_bluesky.read.parentage import Edge, selection_of

_CARD, _GAP = (232, 84), (292, 30)  # width and height of a card; between columns, and between cards
_BEND = 18  # height of an edge that passes a column
_TURN = (
    72  # width in which an edge turns; the rest of the way to a run of its own is straight, and bears its label
)
_MARGIN = 32
_INK, _SOFT, _LINE, _PAPER = "#0f172a", "#64748b", "#94a3b8", "#f8fafc"
_ACQUIRED, _DERIVED, _CALIBRATION = "#0f766e", "#4f46e5", "#a16207"
_DASHES = ' stroke-dasharray="5 4"'
_STATUS = {"success": "#16a34a", "fail": "#dc2626", "abort": "#d97706"}
_NARROW, _WIDE = " iIljtfr.,:;!|'()[]-/", "mwMW@%&"
_UUID = re.compile(r"^([0-9a-f]{8})(-[0-9a-f]{4}){3}-[0-9a-f]{12}$")
_NOT_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")

_LABEL = _GAP[0] - _TURN - 30  # what is left for the text of a label
_Turn = Literal["start", "middle", "end"]  # where the last piece of a route turns from one height to the other
_Item = Hashable  # a run, by its uid; or where an edge passes a column
_Place = tuple[float, float]
_Box = tuple[float, float, float, float]


@dataclass(frozen=True, slots=True)
class _Route:
    """All edges of a kind between two runs, and what they pass: runs at both ends, bends between."""

    edges: tuple[Edge, ...]
    items: tuple[_Item, ...]


def draw(lineage: Lineage) -> str:
    """Give the picture of a lineage, as text of an SVG file."""
    column = _columns(lineage)
    routes = list(_routes(lineage.edges, column))
    columns = _ordered(column, routes)
    places = _places(columns, routes)
    height = max(y for _, y in places.values()) + _CARD[1] / 2 + _MARGIN
    width = len(columns) * (_CARD[0] + _GAP[0]) - _GAP[0] + 2 * _MARGIN
    notes = [
        _words(_MARGIN, height + 18 * i, note, 12, _STATUS["fail"]) for i, note in enumerate(lineage.warnings)
    ]
    height += 18 * len(notes) + (12 if notes else 0)
    labels: list[_Box] = []
    calls = {
        route.edges[0].child: route for route in sorted(routes, key=lambda route: _steepness(route, places))[::-1]
    }
    ends = Counter(route.items[-1] for route in routes)
    starts = Counter(route.items[-2] for route in routes)
    drawn = []
    for route in routes:
        one, other = route.items[-2:]
        turn: _Turn = "start" if ends[other] == 1 else "end" if starts[one] == 1 else "middle"
        drawn.append(_route(route, places, labels, turn, tell=calls[route.edges[0].child] is route))
    cards = [_card(node, places[node.uid], asked=node.uid == lineage.run) for node in lineage.nodes]
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}" width="{width:.0f}" '
            f'height="{height:.0f}" font-family="Inter, Segoe UI, Helvetica, Arial, sans-serif">',
            f"<title>{_safe(f'Lineage of run {lineage.run}')}</title>",
            *(_arrow(name, color) for name, color in (("derived", _LINE), ("calibration", _CALIBRATION))),
            f'<rect width="100%" height="100%" fill="{_PAPER}"/>',
            *(line for line, _ in drawn),
            *(label for _, label in drawn),
            *cards,
            *notes,
            "</svg>\n",
        ]
    )


# --- where everything goes ------------------------------------------------------------------------------------


def _columns(lineage: Lineage) -> dict[str, int]:
    """Give the column of each run: behind all of its parents, and no further from its children than need be."""
    place = {node.uid: i for i, node in enumerate(lineage.nodes)}
    parents: dict[str, list[str]] = {uid: [] for uid in place}
    children: dict[str, list[str]] = {uid: [] for uid in place}
    for edge in lineage.edges:
        if place[edge.parent] < place[edge.child]:  # not one that closes a cycle
            parents[edge.child].append(edge.parent)
            children[edge.parent].append(edge.child)
    column: dict[str, int] = {}
    for uid in place:
        column[uid] = max((column[parent] + 1 for parent in parents[uid]), default=0)
    for uid in reversed(place):
        if not parents[uid]:
            column[uid] = min((column[child] - 1 for child in children[uid]), default=0)
    return column


def _routes(edges: Sequence[Edge], column: Mapping[str, int]) -> Iterator[_Route]:
    together: dict[tuple[str, str, str], list[Edge]] = {}
    for edge in edges:
        together.setdefault((edge.parent, edge.child, edge.kind), []).append(edge)
    for (parent, child, kind), several in together.items():
        bends = [(parent, child, kind, at) for at in range(column[parent] + 1, column[child])]
        yield _Route(tuple(several), (parent, *bends, child))


def _ordered(column: Mapping[str, int], routes: Sequence[_Route]) -> list[list[_Item]]:
    """Give the items of each column from top to bottom, each near the middle of its neighbours."""
    columns: list[list[_Item]] = [[] for _ in range(max(column.values()) + 1)]
    for uid, at in column.items():
        columns[at].append(uid)
    for route in routes:
        for bend in route.items[1:-1]:
            columns[column[route.edges[0].parent] + route.items.index(bend)].append(bend)
    beside = _beside(routes)
    for sweep in range(6):
        rank = {item: i for items in columns for i, item in enumerate(items)}
        for items in columns if sweep % 2 == 0 else reversed(columns):
            items.sort(key=lambda item: _mean([rank[other] for other in beside.get(item, ())], rank[item]))
            rank |= {item: i for i, item in enumerate(items)}
    return columns


def _places(columns: Sequence[Sequence[_Item]], routes: Sequence[_Route]) -> dict[_Item, _Place]:
    """Give the centre of every item: as near to its neighbours' height as the others of its column allow."""
    beside = _beside(routes)
    high = {item: _BEND if isinstance(item, tuple) else _CARD[1] for items in columns for item in items}
    y: dict[_Item, float] = {item: i * (_CARD[1] + _GAP[1]) for items in columns for i, item in enumerate(items)}
    for sweep in range(12):
        for items in columns if sweep % 2 else reversed(columns):
            wanted = [_mean([y[other] for other in beside.get(item, ())], y[item]) for item in items]
            placed: list[float] = []
            for i, (item, at) in enumerate(zip(items, wanted, strict=True)):
                apart = (high[items[i - 1]] + high[item]) / 2 + _GAP[1] if i else 0.0
                placed.append(max(at, placed[-1] + apart) if i else at)
            shift = _mean([at - got for at, got in zip(wanted, placed, strict=True)], 0.0)
            y |= {item: at + shift for item, at in zip(items, placed, strict=True)}
    top = min(y[item] - high[item] / 2 for item in y)
    left = _MARGIN + _CARD[0] / 2
    step = _CARD[0] + _GAP[0]
    return {item: (left + i * step, y[item] - top + _MARGIN) for i, items in enumerate(columns) for item in items}


def _beside(routes: Sequence[_Route]) -> dict[_Item, list[_Item]]:
    beside: dict[_Item, list[_Item]] = {}
    for route in routes:
        for one, other in pairwise(route.items):
            beside.setdefault(one, []).append(other)
            beside.setdefault(other, []).append(one)
    return beside


def _mean(values: Sequence[float], otherwise: float) -> float:
    return sum(values) / len(values) if values else otherwise


# --- what is drawn --------------------------------------------------------------------------------------------


def _steepness(route: _Route, places: Mapping[_Item, _Place]) -> float:
    """Give how far the last piece of a route climbs: of those to one run, the flattest tells the function."""
    one, other = route.items[-2:]
    return (route.edges[0].kind == "calibration") * 1e9 + abs(places[one][1] - places[other][1])


def _route(
    route: _Route, places: Mapping[_Item, _Place], labels: list[_Box], turn: _Turn, *, tell: bool
) -> tuple[str, str]:
    """Give the line of a route and its label, which keeps off the labels before it."""
    kind = route.edges[0].kind
    color = _CALIBRATION if kind == "calibration" else _LINE
    path = ""
    for one, other in pairwise(route.items):
        (x0, y0), (x1, y1) = places[one], places[other]
        x0, x1 = x0 + _CARD[0] / 2, x1 - _CARD[0] / 2 - (5 if other == route.items[-1] else 0)
        last = other == route.items[-1]
        left = x1 - _TURN if last and turn == "end" else x0
        right = x0 + _TURN if last and turn == "start" else x1
        middle = (left + right) / 2  # a line leads to where the turn begins, and through the column of a bend
        path += f"{' L' if path else 'M'} {x0:.1f} {y0:.1f} L {left:.1f} {y0:.1f}"
        path += f" C {middle:.1f} {y0:.1f} {middle:.1f} {y1:.1f} {right:.1f} {y1:.1f} L {x1:.1f} {y1:.1f}"
    dashes, arrow = (_DASHES, kind) if kind == "calibration" else ("", "derived")
    line = f'<path d="{path}" fill="none" stroke="{color}" stroke-width="1.6"{dashes} marker-end="url(#{arrow})"/>'
    texts: list[str] = [kind] if kind != "derived" else _called(route.edges[0].call) if tell else []
    heads = len(texts)
    texts += filter(None, [selection_of(route.edges)])
    straight = {"start": ((right, y1), (x1, y1)), "end": ((x0, y0), (left, y0)), "middle": ((x0, y0), (x1, y1))}
    return line, _label(texts, heads, straight[turn], labels, color) if texts else ""


def _called(call: str) -> list[str]:
    """Give a call in one line, or in two where it needs them."""
    name, bracket, parameters = call.partition("(")
    return [line for line in ([call] if _width(call) <= _LABEL else [name, bracket + parameters]) if line]


def _label(texts: Sequence[str], heads: int, ends: tuple[_Place, _Place], labels: list[_Box], color: str) -> str:
    """Give a label between two places on a line, where it covers no other; its first lines say more."""
    (x0, y0), (x1, y1) = ends
    shown = [_cut(text, _LABEL, 11) for text in texts]
    width, height = max(map(_width, shown)) + 14, 15 * len(shown) + 6
    boxes = []
    for t in (0.5, 0.36, 0.64, 0.25, 0.75):
        y = y0 + (y1 - y0) * t * t * (3 - 2 * t)
        x = (x0 + x1) / 2 if y0 == y1 else x0 + (x1 - x0) * (0.5 + (t - 0.5) * 0.4)
        boxes.append((x - width / 2, y - height / 2, width, height))
    box = next((box for box in boxes if not any(_meet(box, other) for other in labels)), boxes[0])
    labels.append(box)
    left, top = box[:2]
    lines = [
        _words(left + width / 2, top + 14 + 15 * i, text, 11, _INK if i < heads else _SOFT, anchor="middle")
        for i, text in enumerate(shown)
    ]
    return (
        f'<g><title>{_safe(chr(10).join(texts))}</title><rect x="{left:.1f}" y="{top:.1f}" width="{width:.1f}" '
        f'height="{height}" rx="6" fill="{_PAPER}" stroke="{color}" stroke-opacity="0.45"/>{"".join(lines)}</g>'
    )


def _meet(one: _Box, other: _Box) -> bool:
    (x, y, width, height), (left, top, wide, high) = one, other
    return x < left + wide and left < x + width and y < top + high and top < y + height


def _card(node: Node, place: _Place, *, asked: bool) -> str:
    """Give the card of a run: its name, scan and uid, when, and what it shows."""
    x, y = place[0] - _CARD[0] / 2, place[1] - _CARD[1] / 2
    start = node.start or {}
    color = _LINE if node.missing else _DERIVED if "parents" in start else _ACQUIRED
    when = node.facts[0] if node.missing else next(fact for fact in node.facts if not fact.startswith("scan "))
    scan = f"scan {start['scan_id']} \u00b7 " if start.get("scan_id") is not None else ""
    session = str(start.get("session_name") or _UUID.sub(r"\1", str(start.get("session") or "")))
    shows = " / ".join(filter(None, [session, str(start.get("embryo") or "")]))
    purpose = f" \u00b7 {start['purpose']}" if start.get("purpose") else ""
    name = "missing" if node.missing else str(start.get("plan_name") or "run")
    room = _CARD[0] - 44
    texts = [
        _words(x + 18, y + 24, _cut(name, room + 2, 15), 14, _SOFT if node.missing else _INK, weight=600),
        _words(x + 18, y + 42, f"{scan}{node.uid[:8]}", 11, _SOFT),
        _words(x + 18, y + 57, _cut(when, room + 20, 11), 11, _SOFT),
        _words(x + 18, y + 72, _cut(f"{shows}{purpose}".removeprefix(" \u00b7 "), room + 20, 11), 11, _SOFT),
    ]
    if not node.missing:
        dot = _STATUS.get(node.exit_status or "", _LINE)
        texts.append(f'<circle cx="{x + _CARD[0] - 18:.1f}" cy="{y + 19:.1f}" r="4.5" fill="{dot}"/>')
    border = f'stroke="{color}" stroke-width="{2.4 if asked else 1}"{_DASHES if node.missing else ""}'
    return (
        f"<g><title>{_safe(chr(10).join((node.title, node.uid, *node.facts)))}</title>"
        f'<rect x="{x:.1f}" y="{y:.1f}" width="{_CARD[0]}" height="{_CARD[1]}" rx="10" fill="#ffffff" {border}/>'
        f'<rect x="{x + 6:.1f}" y="{y + 12:.1f}" width="4" height="{_CARD[1] - 24}" rx="2" fill="{color}"/>'
        f"{''.join(texts)}</g>"
    )


def _words(
    x: float, y: float, text: str, size: int, color: str, *, anchor: str = "start", weight: int = 400
) -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" font-weight="{weight}" fill="{color}" '
        f'text-anchor="{anchor}">{_safe(text)}</text>'
    )


def _arrow(name: str, color: str) -> str:
    return (
        f'<defs><marker id="{name}" viewBox="0 0 8 8" refX="6" refY="4" markerWidth="7" markerHeight="7" '
        f'orient="auto"><path d="M0 0.5 L7 4 L0 7.5 z" fill="{color}"/></marker></defs>'
    )


def _width(text: str, size: int = 11) -> float:
    """Measure a text, in a wide font: none that shows it takes more room."""
    return size * sum(
        0.4
        if letter in _NARROW
        else 1.0
        if letter in _WIDE or letter > "\u0400"
        else 0.78
        if letter.isupper()
        else 0.65
        for letter in text
    )


def _cut(text: str, room: float, size: int) -> str:
    if _width(text, size) <= room:
        return text
    most = max(n for n in range(len(text)) if n == 0 or _width(text[:n], size) + size <= room)
    return f"{text[:most]}\u2026"


def _safe(text: str) -> str:
    return escape(_NOT_XML.sub("\N{REPLACEMENT CHARACTER}", text))
