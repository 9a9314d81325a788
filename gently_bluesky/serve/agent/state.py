"""Tools about now: what is going on, and what the disk holds."""

import contextlib
import os
import shutil
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from gently_bluesky.errors import GentlyError
from gently_bluesky.read.catalog import Catalog
from gently_bluesky.read.run import Run
from gently_bluesky.serve.agent.answering import Facts, brief, limited, megabytes, moment, table, without_none
from gently_bluesky.serve.agent.asking import RunId, run_of, session_of
from gently_bluesky.serve.agent.runs import status_of

_SHOWN_OPEN = 5


def get_status(catalog: Catalog) -> Facts:
    """Say what is going on now: runs that are being acquired with their progress, the newest run, free space."""
    runs = list(catalog)
    open_runs = [run for run in runs if run.is_open]
    usage = shutil.disk_usage(catalog.root)
    sessions = catalog.sessions()
    return without_none(
        now=moment(time.time()),
        root=str(catalog.root),
        runs=len(runs),
        open_runs=[_progress(run) for run in open_runs[:_SHOWN_OPEN]] or "none: nothing is being acquired",
        more_open=len(open_runs) - _SHOWN_OPEN if len(open_runs) > _SHOWN_OPEN else None,
        newest_run=_progress(runs[0]) if runs and not runs[0].is_open else None,
        newest_session=sessions[0].name if sessions else None,
        free_GB=round(usage.free / 1e9, 3),
        total_GB=round(usage.total / 1e9, 3),
    )


def _progress(run: Run) -> Facts:
    seen = run.up_to_damage
    streams = {name: seen[name] for name in seen}
    counts = {name: len(stream) for name, stream in streams.items()}
    telling = {name: stream for name, stream in streams.items() if stream.image_keys} or streams
    newest = max(
        ((row.time, name, row) for name, stream in telling.items() for row in stream.rows[-1:] if row.time),
        key=lambda each: each[0],
        default=None,
    )
    facts = without_none(
        run=run.uid,
        plan_name=run.start.get("plan_name"),
        session=run.start.get("session"),
        status=status_of(run),
        started=moment(run.start["time"]),
        ended=moment((run.stop or {}).get("time")),
        events=counts,
    )
    if newest is not None:
        when, name, row = newest
        said = {key: row.data[key] for key in ("embryo", "timepoint", "channel") if key in row.data}
        facts["newest_event"] = {"stream": name, "seq_num": row.seq_num, "time": moment(when)} | brief(said)
    planned = run.start.get("num_points")
    if isinstance(planned, int) and planned > 0:
        facts["progress"] = f"{counts.get('primary', 0)} of {planned} events"
    return facts


def get_disk_use(
    catalog: Catalog, session: str | None = None, run_id: RunId | None = None, limit: int = 20
) -> Facts:
    """Say how much disk a session or a run takes, and what is free; of all runs, if neither is given.

    Parameters
    ----------
    session
        Its name or the beginning of it.
    run_id
        One run instead: "-1" is the newest.
    limit
        At most so many rows: the largest, up to 200.
    """
    limited(limit)
    if run_id is not None:
        runs: Iterable[Run] = [run_of(catalog, run_id)]
    else:
        what: dict[str, Any] = {} if session is None else {"session": session_of(catalog, session)}
        runs = catalog.search(**what)
    uses = sorted(((_use(run), run) for run in runs), key=lambda each: each[0]["bytes"], reverse=True)
    usage = shutil.disk_usage(catalog.root)
    columns = ["run", "session", "plan_name", "MB_on_disk", "MB_of_pixels", "volumes", "not_stored", "MB_linked"]
    rows = [
        [run.uid, run.start.get("session"), run.start.get("plan_name"), megabytes(use["bytes"]),
         megabytes(use["pixels"]), use["volumes"], use["gone"], megabytes(use["linked"])]
        for use, run in uses[:limit]
    ]  # fmt: skip
    facts: Facts = {
        "of": f"session {what['session']}"
        if run_id is None and session is not None
        else "run"
        if run_id
        else "all runs",
        "runs": len(uses),
        "MB_on_disk": megabytes(sum(use["bytes"] for use, _ in uses)),
        "MB_of_pixels": megabytes(sum(use["pixels"] for use, _ in uses)),
        "MB_linked": megabytes(sum(use["linked"] for use, _ in uses)),
        "free_GB": round(usage.free / 1e9, 3),
        "by_run": table(columns, rows),
        "said": "MB are millions of bytes; linked are files outside of the root, which are counted nowhere else",
    }
    if len(uses) > limit:
        facts["more"] = f"{len(uses) - limit} smaller runs: a larger limit"
    return facts


def _use(run: Run) -> dict[str, int]:
    entries = run.manifest
    ours = [entry for entry in entries if entry.index is not None and entry.state != "foreign"]
    has_foreign = len(ours) < len(entries)
    there = [entry for entry in ours if entry.state != "removed"]
    return {
        "bytes": _bytes_in(run.folder),
        "pixels": sum(entry.bytes for entry in there),
        "volumes": len(there),
        "gone": len(ours) - len(there),
        "linked": _linked(run) if has_foreign else 0,
    }


def _bytes_in(folder: Path) -> int:
    total = 0
    for path, _, names in os.walk(folder):
        for name in names:
            try:
                total += os.lstat(os.path.join(path, name)).st_size  # noqa: PTH118 - very many files
            except FileNotFoundError:  # it went meanwhile
                continue
    return total


def _linked(run: Run) -> int:
    """Give the bytes of the files outside of the root that hold its images, as far as they are there."""
    paths: set[Path] = set()
    seen = run.up_to_damage
    for stream in (seen[name] for name in seen):
        for key in stream.image_keys:
            images = stream.images(key)
            for event in range(len(stream)):
                with contextlib.suppress(GentlyError, OSError):
                    paths.add(Path(images.source(event).path))
    return sum(path.stat().st_size for path in paths if not path.is_relative_to(run.home) and path.is_file())
