"""Routes over all runs: what there is, sessions and embryos, runs and volumes by what they show."""

import contextlib
import itertools
import json
import pathlib
import shutil
from collections.abc import Mapping
from dataclasses import asdict
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Path, Query

from gently_bluesky import Catalog, __version__
from gently_bluesky.errors import JournalError, NotHereError
from gently_bluesky.read.catalog import Volume
from gently_bluesky.read.run import Run
from gently_bluesky.serve.answering import LIGHT, GentlyRoute, House, InHouse
from gently_bluesky.serve.answers import (
    EmbryoAnswer,
    Home,
    Number,
    Numbers,
    RunLine,
    RunPage,
    SessionAnswer,
    Timepoints,
    VolumeLine,
    VolumePage,
)
from gently_bluesky.serve.problems import without_places
from gently_bluesky.store.disk import free_bytes
from gently_bluesky.store.strict_json import plain

routes = APIRouter(route_class=GentlyRoute, dependencies=[LIGHT])

Text = Annotated[str | None, Query(max_length=200)]
Needed = Annotated[str, Query(max_length=200)]
When = Annotated[str | None, Query(max_length=40, description="2026-11-23, or 2026-11-23T18:30")]
_MISSING_SAID = 1000


@routes.get("", operation_id="home")
def home(house: InHouse) -> Home:
    """What this server is and has."""
    library = house.library
    count, newest = library.ask(lambda catalog: (len(catalog), catalog.starts(limit=1)))
    return Home(
        name="gently_bluesky",
        version=__version__,
        api=1,
        runs=count,
        newest=newest[0]["uid"] if newest else None,
        free_bytes=free_bytes(library.root),
        total_bytes=shutil.disk_usage(library.root).total,
        may_tag=house.may_tag,
    )


@routes.get("/sessions", operation_id="sessions")
def sessions(house: InHouse) -> list[SessionAnswer]:
    """Sessions, the newest first."""
    found = house.library.ask(lambda catalog: catalog.sessions())
    return [SessionAnswer.model_validate(asdict(session)) for session in found]


@routes.get("/sessions/{session}/embryos", operation_id="embryos")
def embryos(house: InHouse, session: Annotated[str, Path(max_length=200)]) -> list[EmbryoAnswer]:
    """Embryos of a session, with their timepoints and what was taken of them."""
    found = house.library.ask(lambda catalog: catalog.volumes(session=session, include_bad=True, derived=None))
    if not found:
        known = house.library.ask(lambda catalog: [each.name for each in catalog.sessions()])
        if session not in known:
            raise NotHereError(f"There is no session {session!r}.", available={"session": known[:200]})
    by_embryo: dict[str, list[Volume]] = {}
    for volume in found:
        if volume.row.embryo is not None:
            by_embryo.setdefault(str(volume.row.embryo), []).append(volume)
    return [_embryo(name, by_embryo[name]) for name in sorted(by_embryo)]


def _embryo(name: str, volumes: list[Volume]) -> EmbryoAnswer:
    rows = [volume.row for volume in volumes]
    numbers = sorted({row.timepoint for row in rows if type(row.timepoint) is int and row.timepoint >= 0})
    first, last = (numbers[0], numbers[-1]) if numbers else (None, None)
    missing: list[int] = []
    for one, other in itertools.pairwise(numbers):
        missing += range(one + 1, min(other, one + 1 + _MISSING_SAID))
    return EmbryoAnswer(
        embryo=name,
        timepoints=Timepoints(first=first, last=last, count=len(numbers), missing=missing[:_MISSING_SAID]),
        volumes=len(rows),
        views=sorted({str(row.view) for row in rows if row.view is not None}),
        channels=sorted({str(row.channel) for row in rows if row.channel is not None}),
    )


# --- runs ---------------------------------------------------------------------------------------------------


@routes.get("/runs", operation_id="runs")
def runs(
    house: InHouse,
    plan_name: Text = None,
    session: Text = None,
    embryo: Text = None,
    operator: Text = None,
    purpose: Text = None,
    tag: Text = None,
    since: When = None,
    until: When = None,
    text: Annotated[str | None, Query(max_length=200, description="In the start document, anywhere.")] = None,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
    after: Annotated[str | None, Query(max_length=100, description="`next` of the page before.")] = None,
) -> RunPage:
    """Runs, newest first."""
    said = {"plan_name": plan_name, "session": session, "embryo": embryo, "operator": operator}
    said |= {"purpose": purpose, "tag": tag}
    asked: dict[str, Any] = {key: value for key, value in said.items() if value is not None}
    found = house.library.ask(lambda catalog: catalog.starts(since=since, until=until, **asked))
    chosen = [str(start["uid"]) for start in found if text is None or _mentions(start, text)]
    page, more = _page(chosen, after, limit)
    lines = [run_line(house, chosen[i]) for i in page]
    why = found.why_none or ("" if chosen else f"no start document of those that fit mentions {text!r}")
    return RunPage(
        runs=lines,
        next=lines[-1].uid if more else None,
        why_none="" if chosen else why,
        available=plain(found.available),
    )


def _mentions(start: Mapping[str, Any], text: str) -> bool:
    return text.casefold() in json.dumps(plain(start), ensure_ascii=False).casefold()


def _page(names: list[str], after: str | None, limit: int) -> tuple[range, bool]:
    """Give which of a list are on the page after one that was named, and whether more follow."""
    if after is None:
        first = 0
    elif after in names:
        first = names.index(after) + 1
    else:
        raise NotHereError(f"There is no {after!r} in this answer any more. Begin again, without after.")
    return range(first, min(first + limit, len(names))), first + limit < len(names)


def run_line(house: House, uid: str) -> RunLine:
    """Give a run as lists have it."""
    with house.library.run(uid).reading() as run:
        whole = run if run.damage is None else run.up_to_damage
        streams = {name: len(whole[name]) for name in whole}
        return RunLine(**facts_of(run, house.library.root), streams=streams)


def facts_of(run: Run, root: pathlib.Path) -> dict[str, Any]:
    """Give what is said of a run wherever it stands."""
    start, stop = run.start, run.stop
    tags: list[str] = []
    with contextlib.suppress(JournalError):  # the run itself says so
        tags = sorted(run.tags)
    said: dict[str, Any] = plain(
        {
            "uid": run.uid,
            "time": start["time"],
            "stop_time": None if stop is None else stop["time"],
            "exit_status": run.exit_status,
            "is_open": run.is_open,
            "tags": tags,
            "damage": None if run.damage is None else without_places(run.damage, root),
            "plan_name": None if start.get("plan_name") is None else str(start["plan_name"]),
        }
        | {key: start.get(key) for key in ("scan_id", "session", "embryo", "operator", "purpose")}
    )
    return said


# --- volumes ------------------------------------------------------------------------------------------------


@routes.get("/volumes", operation_id="volumes")
def volumes(
    house: InHouse,
    session: Text = None,
    embryo: Text = None,
    timepoint: int | None = None,
    view: Text = None,
    channel: Text = None,
    position: Annotated[str | None, Query(max_length=200, description="JSON, or text.")] = None,
    stream: Text = None,
    data_key: Text = None,
    since: When = None,
    until: When = None,
    include_bad: bool = False,
    stored: bool = False,
    derived: Literal["false", "true", "both"] = "false",
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
    after: Annotated[str | None, Query(max_length=1000, description="`next` of the page before.")] = None,
) -> VolumePage:
    """Volumes, newest first; an answer that is empty says why, and what there is."""
    said = {
        "session": session,
        "embryo": embryo,
        "timepoint": timepoint,
        "view": view,
        "channel": channel,
        "position": None if position is None else _value(position),
        "stream": stream,
        "data_key": data_key,
    }
    asked: dict[str, Any] = {key: value for key, value in said.items() if value is not None}
    kinds = {"false": False, "true": True, "both": None}

    def question(catalog: Catalog) -> Any:
        return catalog.volumes(
            since=since, until=until, include_bad=include_bad, stored=stored, derived=kinds[derived], **asked
        )

    found = house.library.ask(question)
    names = [_cursor(volume) for volume in found]
    page, more = _page(names, after, limit)
    return VolumePage(
        volumes=[_volume_line(house, found[i]) for i in page],
        next=names[page[-1]] if more else None,
        why_none=found.why_none,
        available=plain(found.available),
    )


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def _cursor(volume: Volume) -> str:
    row = volume.row
    return f"{volume.run_uid}:{row.stream}:{row.seq_num}:{row.data_key}"


def _volume_line(house: House, volume: Volume) -> VolumeLine:
    said = {name: getattr(volume.row, name) for name in type(volume.row).__slots__}
    with house.library.run(volume.run_uid).reading() as run:
        whole = run if run.damage is None else run.up_to_damage
        seq_nums = [row.seq_num for row in whole[volume.row.stream].rows]
    event = seq_nums.index(volume.row.seq_num) if volume.row.seq_num in seq_nums else None
    return VolumeLine(run_uid=volume.run_uid, event=event, **plain(said))


# --- questions that a catalog answers -----------------------------------------------------------------------


@routes.get("/questions/timepoints", operation_id="timepoints")
def timepoints(house: InHouse, session: Needed, embryo: Needed) -> Numbers:
    """The timepoints of an embryo in a session that there are, bad volumes included, in order."""
    return Numbers(values=house.library.ask(lambda catalog: catalog.timepoints(session, embryo)))


@routes.get("/questions/next_timepoint", operation_id="next_timepoint")
def next_timepoint(house: InHouse, session: Needed, embryo: Needed) -> Number:
    """The timepoint after the last one of an embryo in a session."""
    return Number(value=house.library.ask(lambda catalog: catalog.next_timepoint(session, embryo)))


@routes.get("/questions/next_scan_id", operation_id="next_scan_id")
def next_scan_id(house: InHouse) -> Number:
    """The scan_id after the highest one."""
    return Number(value=house.library.ask(lambda catalog: catalog.next_scan_id()))
