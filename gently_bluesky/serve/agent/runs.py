"""Tools about runs: which there are, what is in one, its events as tables."""

from collections.abc import Sequence
from typing import Any

from gently_bluesky.errors import JournalError
from gently_bluesky.read.catalog import Catalog
from gently_bluesky.read.run import Run, Stream
from gently_bluesky.serve.agent.answering import (
    Facts,
    NotThereError,
    brief,
    limited,
    moment,
    table,
    without_none,
)
from gently_bluesky.serve.agent.asking import RunId, run_of, session_of
from gently_bluesky.serve.agent.meaning import group_of
from gently_bluesky.serve.agent.place import folder_of
from gently_bluesky.write.run_folder import is_locked

_COLUMNS = ["run_id", "scan_id", "plan_name", "session", "started", "status", "events", "tags"]
_MOST_COLUMNS = 60


def list_runs(
    catalog: Catalog,
    limit: int = 10,
    embryo_id: str | None = None,
    plan_name: str | None = None,
    session: str | None = None,
) -> Facts:
    """List runs, newest first.

    Parameters
    ----------
    limit
        At most so many, up to 200.
    embryo_id
        Only with volumes of this embryo.
    plan_name
        Only of this plan, e.g. "acquire_timelapse".
    session
        Only of this session.
    """
    what: dict[str, Any] = {} if embryo_id is None else {"embryo": embryo_id}
    if session is not None:
        what["session"] = session_of(catalog, session)
    return _runs(catalog, limit, plan_name=plan_name, **what)


def search_runs(
    catalog: Catalog,
    since: str | None = None,
    until: str | None = None,
    metadata: dict[str, Any] | None = None,
    limit: int = 20,
) -> Facts:
    """Search runs by when they started and by what their start documents say, newest first.

    Parameters
    ----------
    since, until
        Times like "2026-11-23" (the whole day) or "2026-11-23T18:30", local time where no zone is given.
    metadata
        What start documents must say, e.g. {"session": "2026-11-23", "operator": "ada", "purpose": "demo"}; also
        "plan_name", "embryo" and "tag".
    limit
        At most so many, up to 200.
    """
    what = dict(metadata or {})
    reserved = sorted(what.keys() & {"since", "until", "limit"})
    if reserved:
        raise ValueError(f"{reserved[0]!r} is an argument of its own, not metadata.")
    return _runs(catalog, limit, since=since, until=until, **what)


def _runs(catalog: Catalog, limit: int, **what: Any) -> Facts:
    limited(limit)
    found = catalog.search(**what)
    facts: Facts = {"runs": table(_COLUMNS, (_line(run) for run in found[:limit])), "found": len(found)}
    if not found:
        return {"runs": [], "found": 0, "why_none": found.why_none} | without_none(
            available=found.available or None
        )
    if len(found) > limit:
        oldest = moment(found[limit - 1].start["time"])
        facts["more"] = f"{len(found) - limit} older: a larger limit, or search_runs(until=...) before {oldest}"
    return facts


def _line(run: Run) -> list[Any]:
    start, stop = run.start, (run.stop or {})
    counts = stop.get("num_events") or {name: len(run.up_to_damage[name]) for name in run.up_to_damage}
    return [
        run.uid,
        start.get("scan_id"),
        start.get("plan_name"),
        start.get("session"),
        moment(start["time"]),
        status_of(run),
        ", ".join(f"{name} {count}" for name, count in counts.items()),
        ", ".join(_tags(run)),
    ]


def status_of(run: Run) -> str:
    """Say how a run ended, or that it is being acquired, or was interrupted."""
    if run.damage:
        return "damaged"
    if run.exit_status is not None:
        return run.exit_status
    return "being acquired" if is_locked(run.folder) else "interrupted, not yet closed"


def _tags(run: Run) -> list[str]:
    try:
        return sorted(run.tags)
    except JournalError:
        return ["(tags cannot be read)"]


def get_run(catalog: Catalog, run_id: RunId = "-1") -> Facts:
    """Describe one run: what was asked, how it ended, and its streams with the names of all data keys.

    Ask this before get_run_data and get_run_image: it says which data keys are images and which are numbers.

    Parameters
    ----------
    run_id
        "-1" is the newest run, "-2" the one before; a scan_id; or a run's uid, or its beginning.
    """
    run = run_of(catalog, run_id)
    start = {
        key: brief(value) for key, value in run.start.items() if key not in {"uid", "time", "versions", "hints"}
    }
    notes = [f"{moment(note.time)} {note.by}: {note.text}" for note in run.notes if note.text]
    return without_none(
        run=run.uid,
        folder=folder_of(run).as_posix(),
        started=moment(run.start["time"]),
        ended=moment((run.stop or {}).get("time")),
        status=status_of(run),
        reason=(run.stop or {}).get("reason") or None,
        damage=run.damage,
        tags=_tags(run) or None,
        notes=notes[-5:] or None,
        start=start,
        streams={name: _described(run.up_to_damage[name]) for name in run.up_to_damage},
        more="get_run_data gives events as tables, get_run_image a picture, get_settings the settings of an event",
    )


def _described(stream: Stream) -> Facts:
    images = {
        key: brief(without_none(shape=entry.get("shape"), dtype=entry.get("dtype_numpy"), view=entry.get("view")))
        for key, entry in stream.data_keys.items()
        if entry.get("external")
    }
    groups: dict[str, list[str]] = {}
    for key, entry in stream.data_keys.items():
        if not entry.get("external"):
            units = f" ({entry['units']})" if entry.get("units") else ""
            groups.setdefault(group_of(key), []).append(f"{key}{units}")
    return {
        "events": len(stream),
        "images": images,
        "data_keys": {name: ", ".join(k) for name, k in groups.items()},
    }


def get_run_data(
    catalog: Catalog,
    run_id: RunId = "-1",
    data_keys: list[str] | None = None,
    stream: str = "primary",
    first: int = 1,
    limit: int = 20,
) -> Facts:
    """Give events of a run as a table: a row an event, a column a data key.

    Parameters
    ----------
    run_id
        "-1" is the newest run; a scan_id; or a run's uid, or its beginning.
    data_keys
        Which columns; those of get_run. Left out: what a volume shows, and every number that changes.
    stream
        "primary", or another one of get_run.
    first
        The first row, as a seq_num, from 1; -20 gives the last twenty rows.
    limit
        At most so many rows, up to 200.
    """
    run = run_of(catalog, run_id)
    found = run[stream]
    limited(limit)
    if data_keys is not None and (unknown := [key for key in data_keys if key not in found]):
        raise NotThereError(
            f"Stream {stream!r} of run {run.uid} has no data key {unknown[0]!r}; it has {list(found.data_keys)}."
        )
    keys = _telling(found) if data_keys is None else data_keys
    images = [key for key in keys if found.data_keys[key].get("external")]
    shown = [key for key in keys if key not in images][:_MOST_COLUMNS]
    seq_nums = [row.seq_num for row in found.rows]
    start = (
        max(len(found) + first, 0)
        if first < 0
        else next((i for i, s in enumerate(seq_nums) if s >= first), len(found))
    )
    rows = found.rows[start : start + limit]
    facts: Facts = {
        "run": run.uid,
        "stream": stream,
        "events": len(found),
        "table": table(
            ["seq_num", "time", *shown], ([r.seq_num, moment(r.time), *map(r.data.get, shown)] for r in rows)
        ),
    }
    if images:
        facts["images"] = f"{', '.join(images)}: get_run_image shows them"
    if data_keys is None:
        facts["left_out"] = _left_out(found, shown)
    if start + limit < len(found):
        facts["more"] = f"{len(found) - start - limit} rows follow: first={rows[-1].seq_num + 1}"
    if not rows:
        facts["why_none"] = f"there are {len(found)} events" + (
            f", seq_nums to {seq_nums[-1]}" if seq_nums else ""
        )
    return facts


def _telling(stream: Stream) -> list[str]:
    """Give the data keys that tell events apart: what they show, and scalars that are not the same in all."""
    keys = [key for key, entry in stream.data_keys.items() if not entry.get("external")]
    told = [key for key in keys if group_of(key) == "identity"]
    for key in keys:
        values = {repr(row.data.get(key)) for row in stream.rows if not isinstance(row.data.get(key), list)}
        if (
            key not in told
            and not key.endswith("_setpoint")
            and (len(values) > 1 or (len(stream) == 1 and values))
        ):
            told.append(key)
    return told[:_MOST_COLUMNS]


def _left_out(stream: Stream, shown: Sequence[str]) -> str:
    count = sum(not entry.get("external") for entry in stream.data_keys.values()) - len(shown)
    return f"{count} data keys that are the same in all events, or lists: get_settings, or name them in data_keys"


def list_sessions(catalog: Catalog, limit: int = 20) -> Facts:
    """List sessions, newest first: when, how many runs, which embryos.

    Parameters
    ----------
    limit
        At most so many, up to 200.
    """
    sessions = catalog.sessions()
    starts = (run.start for run in catalog)
    names = {start.get("session"): start.get("session_name") for start in starts}
    columns = ["session", "name", "since", "until", "runs", "embryos"]
    rows = [
        [s.name, names.get(s.name), moment(s.since), moment(s.until), s.runs, list(s.embryos)]
        for s in sessions[: limited(limit)]
    ]
    facts: Facts = {"sessions": table(columns, rows), "found": len(sessions)}
    if len(sessions) > limit:
        facts["more"] = f"{len(sessions) - limit} older: a larger limit"
    return facts
