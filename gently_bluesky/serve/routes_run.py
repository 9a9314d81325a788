"""Routes of one run: what it was, its documents, its tables, where it came from, what is said of it."""

from collections.abc import Mapping
from functools import partial
from http import HTTPStatus
from typing import Annotated, Any, Literal
from urllib.parse import quote

from fastapi import APIRouter, HTTPException, Path, Query
from starlette.responses import Response

from gently_bluesky import Catalog
from gently_bluesky.errors import NotHereError
from gently_bluesky.read.lineage import Relative
from gently_bluesky.read.run import Stream
from gently_bluesky.serve.answering import LIGHT, UNTIL_CHANGED, GentlyRoute, InHouse, json_answer
from gently_bluesky.serve.answers import (
    LineageAnswer,
    RunAnswer,
    Table,
    Tagging,
    Tags,
)
from gently_bluesky.serve.growing import growing_in
from gently_bluesky.serve.routes_catalog import facts_of
from gently_bluesky.store.manifest import read_entries
from gently_bluesky.store.strict_json import encode, plain
from gently_bluesky.store.tags import add_note

routes = APIRouter(prefix="/runs/{run}", route_class=GentlyRoute, dependencies=[LIGHT])

RunKey = Annotated[str, Path(max_length=100, description="A uid, the beginning of one, or -1 for the newest.")]
Name = Annotated[str, Path(max_length=200)]
_DOCUMENT_BYTES = 4 << 20
_COLUMN_EVENTS = 10_000


@routes.get("", operation_id="run", response_model=RunAnswer)
def run_(house: InHouse, run: RunKey) -> Response:
    """One run: what was asked, what came, what was said of it afterwards."""
    with house.library.run(run).reading() as found:
        entries = read_entries(found.folder)
        whole = found if found.damage is None else found.up_to_damage
        said = facts_of(found, house.library.root) | {
            "start": found.start,
            "stop": found.stop,
            "notes": [_note(note) for note in found.notes],
            "streams": {name: _stream(whole[name]) for name in whole},
            "disk_bytes": sum(entry.bytes for entry in entries if entry.state in {"sealed", "aborted"}),
            "growing": [each.said() for each in growing_in(whole)] if found.is_open else [],
        }
        uid = found.uid
    for way in ("parents", "children"):
        relatives = house.library.ask(partial(Catalog.relatives, uid=uid, up=way == "parents"))
        said[way] = [_relative(each) for each in relatives]
    return json_answer(said)


def _stream(stream: Stream) -> dict[str, Any]:
    return {"events": len(stream), "data_keys": stream.data_keys, "series": stream.image_keys}


def _note(note: Any) -> dict[str, Any]:
    names = ("time", "by", "added", "removed", "text")
    return {name: getattr(note, name) for name in names}


def _relative(relative: Relative) -> dict[str, Any]:
    return {"run": relative.uid, "kind": relative.edge.kind, "is_there": not relative.missing}


@routes.get(
    "/documents",
    operation_id="documents",
    response_class=Response,
    responses={
        200: {
            "content": {"application/x-ndjson": {"schema": {"type": "string"}}},
            "headers": {
                "X-Next": {"description": "`from` of the next answer.", "schema": {"type": "integer"}},
                "X-More": {"description": "Whether there are more now.", "schema": {"enum": ["true", "false"]}},
                "X-Run": {"description": "The whole uid.", "schema": {"type": "string"}},
            },
        }
    },
)
def documents(
    house: InHouse,
    run: RunKey,
    from_: Annotated[int, Query(alias="from", ge=0, lt=1 << 62, description="0, or X-Next of an answer.")] = 0,
) -> Response:
    """Documents as they were journalled, one a line: {"name": ..., "doc": ...}; at most 4 MiB at a time."""
    lines: list[bytes] = []
    size, end, more = 0, from_, False
    with house.library.run(run).reading() as found:
        uid = found.uid
    for offset, (name, doc) in found.journalled(from_):  # others may go on: what is journalled stays as it is
        if size > _DOCUMENT_BYTES:
            more = True
            break
        lines.append(encode(plain({"name": name, "doc": doc})) + b"\n")
        size, end = size + len(lines[-1]), offset
    headers = {"x-next": str(end), "x-more": str(more).lower(), "cache-control": UNTIL_CHANGED}
    headers["x-run"] = quote(uid)  # it may be any text
    return Response(b"".join(lines), headers=headers, media_type="application/x-ndjson")


@routes.get(
    "/lineage",
    operation_id="lineage",
    response_model=LineageAnswer,
    responses={200: {"content": {"image/svg+xml": {"schema": {"type": "string"}}}}},
)
def lineage(
    house: InHouse,
    run: RunKey,
    depth: Annotated[int | None, Query(ge=0, le=1000)] = None,
    format: Annotated[Literal["json", "svg"], Query()] = "json",
) -> Response:
    """What a run came from, and what came of it; as a picture with format=svg."""
    found = house.library.ask(lambda catalog: catalog.lineage(catalog[run] if run.startswith("-") else run, depth))
    if format == "svg":
        return Response(found.svg(), media_type="image/svg+xml")
    return json_answer(found.as_dict())


@routes.get("/streams/{stream}", operation_id="stream", response_model=Table)
def stream_(
    house: InHouse,
    run: RunKey,
    stream: Name,
    first: Annotated[int, Query(ge=0, le=1 << 40)] = 0,
    limit: Annotated[int, Query(ge=1, le=_COLUMN_EVENTS)] = 1000,
    keys: Annotated[
        str | None, Query(max_length=2000, description="Data keys, with commas; all, if left out.")
    ] = None,
) -> Response:
    """Events of a stream as a table: seq_num, time, and the columns that are no images."""
    with house.library.run(run).reading() as found:
        table = found[stream]
        described = table.data_keys
        rows = list(table.rows)
    columns = [key for key, entry in described.items() if not entry.get("external")]
    if keys is not None:
        wanted = [key for key in keys.split(",") if key]
        if unknown := [key for key in wanted if key not in columns]:
            raise NotHereError(
                f"Stream {stream!r} has no column {unknown[0]!r:.100}.", available={"keys": columns[:1000]}
            )
        columns = wanted
    shown = rows[first : first + limit]
    answer: Mapping[str, Any] = {
        "stream": stream,
        "events": len(rows),
        "first": first,
        "seq_num": [row.seq_num for row in shown],
        "time": [row.time for row in shown],
        "columns": {key: [row.data.get(key) for row in shown] for key in columns},
        "next": first + limit if first + limit < len(rows) else None,
    }
    return json_answer(answer)


@routes.post("/tags", operation_id="tag")
def tag(house: InHouse, run: RunKey, said: Tagging) -> Tags:
    """Add and remove tags, add a note, where the user allows it; journalled with who said it."""
    if not house.may_tag:
        raise HTTPException(
            HTTPStatus.FORBIDDEN, "This server takes no tags; gently-bluesky serve --may-tag does."
        )
    with house.library.run(run).reading() as found:
        add_note(found.folder, by=said.by, added=said.add, removed=said.remove, text=said.note)
        return Tags(run=found.uid, tags=sorted(found.tags))
