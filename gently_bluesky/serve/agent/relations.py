"""Tools that relate runs: in what they differ, what changed within one, which was made from which."""

import re
from collections.abc import Mapping
from typing import Any

from gently_bluesky.read.catalog import Catalog
from gently_bluesky.read.diff import Difference, diff
from gently_bluesky.read.run import Run
from gently_bluesky.serve.agent.answering import (
    MOST_ROWS,
    Facts,
    brief,
    limited,
    moment,
    table,
)
from gently_bluesky.serve.agent.asking import RunId, place_in, run_of

_MOST_DIFFERENCES = 60
_MOST_CHANGES = 60


def compare_runs(catalog: Catalog, run_a: RunId, run_b: RunId, contains: str | None = None) -> Facts:
    """Say in which settings two runs differ: what was asked, how devices were configured, what events say.

    Parameters
    ----------
    run_a, run_b
        Runs, as in get_run.
    contains
        Only settings whose name contains this text, e.g. "laser".
    """
    a, b = run_of(catalog, run_a), run_of(catalog, run_b)
    found = [each for each in diff(a, b) if contains is None or contains.lower() in each.where.lower()]
    facts: Facts = {"run_a": a.uid, "run_b": b.uid, "differences": len(found)}
    facts["table"] = table(["part", "setting", "a", "b"], map(_sides, found[:_MOST_DIFFERENCES]))
    if len(found) > _MOST_DIFFERENCES:
        facts["more"] = (
            f"{len(found) - _MOST_DIFFERENCES} more: contains='...' gives those with a word in their name"
        )
    return facts


def _sides(difference: Difference) -> list[str]:
    return [difference.part, difference.where, str(difference.a)[:120], str(difference.b)[:120]]


def what_changed(
    catalog: Catalog, run_id: RunId = "-1", stream: str = "primary", since: int = 1, until: int | None = None
) -> Facts:
    """Say which settings changed from event to event within a run, and when; of one embryo after the other.

    Parameters
    ----------
    run_id
        "-1" is the newest run; a scan_id; or a run's uid, or its beginning.
    stream
        The stream.
    since, until
        The first and the last event, as seq_nums from 1; all, if not given.
    """
    run = run_of(catalog, run_id)
    found = run[stream]
    rows = [row for row in found.rows if row.seq_num >= since and (until is None or row.seq_num <= until)]
    measured = re.compile(r"_mean$|_times$|_max$|_min$|_std$|^timepoint$|^file|^sha256|filed_at")
    changes: list[list[Any]] = []
    before: dict[str, Mapping[str, Any]] = {}
    for row in rows:
        of = repr((row.data.get("embryo"), row.data.get("channel")))
        last = before.get(of, row.data)
        for key, value in row.data.items():
            if not (measured.search(key) or key in row.volumes or _same(value, last.get(key))):
                changes.append([row.seq_num, moment(row.time), row.data.get("embryo"), key, last.get(key), value])
        before[of] = row.data
    facts: Facts = {"run": run.uid, "stream": stream, "events_compared": len(rows), "changes": len(changes)}
    facts["table"] = table(["seq_num", "time", "embryo", "setting", "before", "after"], changes[:_MOST_CHANGES])
    facts["compared_with"] = "the event before of the same embryo and channel; measured values are left out"
    if len(changes) > _MOST_CHANGES:
        facts["more"] = f"{len(changes) - _MOST_CHANGES} more: since={changes[_MOST_CHANGES][0]}"
    return facts


def _same(value: Any, other: Any) -> bool:
    return bool(value == other) or (value != value and other != other)  # noqa: PLR0124 - nan


def get_lineage(catalog: Catalog, run_id: RunId = "-1", depth: int = 3, seq_num: int | None = None) -> Facts:
    """Say which raw data a run was made from, and what was made of it.

    Parameters
    ----------
    run_id
        "-1" is the newest run; a scan_id; or a run's uid, or its beginning; also the uid of a run that is gone.
    depth
        How many generations each way, 1 to 20.
    seq_num
        Also say from which run and event this event of a derived run came.
    """
    try:
        run: Run | str = run_of(catalog, run_id)
    except LookupError:
        run = str(run_id)
    found = catalog.lineage(run, limited(depth, 20, name="depth"))
    ours = ("run", "plan_name", "time", "session", "exit_status", "missing", "goes_on")
    nodes = [{**node, "time": moment(node.get("time"))} for node in found.as_dict()["nodes"]]
    edges: dict[tuple[str, ...], list[str]] = {}
    for edge in found.edges:
        edges.setdefault((edge.child, edge.kind, edge.parent, edge.call), []).append(edge.data_key)
    told = [[*edge, ", ".join(dict.fromkeys(filter(None, keys)))] for edge, keys in edges.items()]
    facts: Facts = {
        "run": found.run,
        "runs": table(ours, ([node.get(key) for key in ours] for node in nodes[:MOST_ROWS])),
        "edges": table(["run", "kind", "from_run", "function", "from_data_keys"], told[:MOST_ROWS]),
    }
    if found.cycles:
        facts["warnings"] = list(found.warnings)
    if isinstance(run, Run):
        facts["event"] = _parent_of(run, seq_num)
    return facts


def _parent_of(run: Run, seq_num: int | None) -> Facts | str:
    if "parents" not in run.start:
        return "this run is raw data: it was made from no other run"
    if seq_num is None:
        return "its events name parent_run, parent_seq_num: get_lineage(seq_num=...), get_run_data"
    place = place_in(run, seq_num=seq_num)
    said = {key: brief(value) for key, value in place.row.data.items() if key.startswith("parent")}
    return place.address() | {"made_from": said}
