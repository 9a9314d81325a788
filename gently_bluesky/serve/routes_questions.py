"""What the catalog of another machine asks: whatever `Catalog`, `Run` and `VolumeReader` answer, without a loss.

One route a question, named as the method that answers it here; `read.remote` asks. Runs and stream resources are
named in the query, as documents name them. For viewers there are `routes_catalog`, `routes_run`, `routes_pixels`.
"""

from dataclasses import dataclass, fields
from pathlib import PurePath
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request
from pydantic import BaseModel
from starlette.responses import Response

from gently_bluesky import Catalog
from gently_bluesky.errors import GeometryError, NotHereError, UnfillableError
from gently_bluesky.read.assets import Pixels
from gently_bluesky.read.catalog import Volume
from gently_bluesky.read.images import is_across
from gently_bluesky.read.lineage import Lineage
from gently_bluesky.read.origin import Axis, VolumeReader
from gently_bluesky.read.run import Run
from gently_bluesky.serve.answering import HEAVY, LIGHT, GentlyRoute, House, InHouse, json_answer
from gently_bluesky.serve.cutting import Cut, cut_pixels
from gently_bluesky.serve.formats import Shown
from gently_bluesky.serve.problems import without_places
from gently_bluesky.serve.routes_pixels import send
from gently_bluesky.serve.slices import parsed
from gently_bluesky.store.index import VolumeRow
from gently_bluesky.store.streams import Doc, VolumeRef
from gently_bluesky.store.strict_json import decode

routes = APIRouter(prefix="/questions", route_class=GentlyRoute)

_ROW = VolumeRow.__slots__
_DOCUMENT_BYTES = 4 << 20
_LONGEST_NAME = 1024  # what is asked for is to fit into an address
_PIXELS: dict[int | str, dict[str, Any]] = {200: {"content": {"application/octet-stream": {}}}}

Uid = Annotated[str, Query(max_length=_LONGEST_NAME)]
Asked = Annotated[str, Query(max_length=4096, description="What is asked for, as JSON: an object.")]


class Value(BaseModel):
    """What a method gives."""

    value: Any


class RunsAnswer(BaseModel):
    """Runs by their start and stop documents, and where they are under the root."""

    runs: list[Doc]
    next: str | None = None
    why_none: str = ""
    available: Doc = {}


class RowsAnswer(BaseModel):
    """Volumes: the uid of the run, and the fields of a `VolumeRow` in their order."""

    volumes: list[list[Any]]
    why_none: str
    available: Doc


class DocumentsAnswer(BaseModel):
    """Documents: the offset after each, its name, and the document; and where they end in damage, what that is."""

    documents: list[tuple[int, str, Doc]]
    more: bool
    damage: str | None


# --- of the catalog -----------------------------------------------------------------------------------------


@routes.get("/run", operation_id="question_run", response_model=Doc, dependencies=[LIGHT])
def run(
    house: InHouse,
    key: Annotated[str | None, Query(max_length=_LONGEST_NAME)] = None,
    scan_id: Annotated[int | None, Query(ge=0, lt=1 << 62)] = None,
) -> Response:
    """``catalog[key]``: -1, a uid or its beginning; or the newest run with a scan_id."""
    asked: int | str = scan_id if scan_id is not None else key or ""
    return json_answer(house.library.ask(lambda catalog: _run(catalog, catalog[asked])))


@routes.get("/runs", operation_id="question_runs", response_model=RunsAnswer, dependencies=[LIGHT])
def runs(house: InHouse, uids: Annotated[str, Query(max_length=4096, description="JSON: a list.")]) -> Response:
    """Those of some runs that there are."""
    named = _decoded(uids)
    if not isinstance(named, list):
        raise TypeError("uids should be a list, as JSON.")

    def known(catalog: Catalog) -> list[Doc]:
        return [
            _run(catalog, each) for each in catalog.known([uid for uid in named if isinstance(uid, str)]).values()
        ]

    return json_answer({"runs": house.library.ask(known)})


@routes.get("/search", operation_id="question_search", response_model=RunsAnswer, dependencies=[LIGHT])
def search(
    house: InHouse,
    asked: Asked = "{}",
    limit: Annotated[int, Query(le=1000)] = 200,
    after: Annotated[
        str | None, Query(max_length=_LONGEST_NAME + 100, description="`next` of the page before.")
    ] = None,
) -> Response:
    """``catalog.search(...)``, page by page."""
    what = _object(asked)

    def question(catalog: Catalog) -> Doc:
        found = catalog.starts(**what, limit=limit if limit < 1 else None)
        rest = [start for start in found if after is None or _place(start) < _place_of(after)]
        page = rest[: max(limit, 0)]
        known = catalog.known([start["uid"] for start in page])
        return {
            "runs": [_run(catalog, known[start["uid"]]) for start in page if start["uid"] in known],
            "next": f"{page[-1]['time']!r},{page[-1]['uid']}" if len(rest) > len(page) > 0 else None,
            "why_none": found.why_none,
            "available": found.available,
        }

    return json_answer(house.library.ask(question))


def _place(start: Doc) -> tuple[float, str]:
    return float(start["time"]), str(start["uid"])


def _place_of(cursor: str) -> tuple[float, str]:
    time, _, uid = cursor.partition(",")
    try:
        return float(time), uid
    except ValueError:
        raise NotHereError(f"{cursor!r:.100} is no `next` of an answer. Begin again, without after.") from None


@routes.get("/volumes", operation_id="question_volumes", response_model=RowsAnswer, dependencies=[LIGHT])
def volumes(house: InHouse, asked: Asked = "{}") -> Response:
    """``catalog.volumes(...)``."""
    what = _object(asked)
    found = house.library.ask(lambda catalog: catalog.volumes(**what))
    rows = [_row(volume) for volume in found]
    return json_answer({"volumes": rows, "why_none": found.why_none, "available": found.available})


def _row(volume: Volume) -> list[Any]:
    return [volume.run_uid, *(getattr(volume.row, name) for name in _ROW)]


@routes.get("/lineage", operation_id="question_lineage", response_model=Doc, dependencies=[LIGHT])
def lineage(
    house: InHouse,
    uid: Uid,
    depth: Annotated[int | None, Query(ge=0, lt=1 << 31)] = None,
    up: bool = True,
    down: bool = True,
) -> Response:
    """The lineage of a uid, whether there is such a run or not, with whole start documents."""
    found: Lineage = house.library.ask(lambda catalog: catalog.trace(uid, depth, up=up, down=down))
    names = ("uid", "start", "exit_status", "goes_on")
    nodes = [{name: getattr(node, name) for name in names} for node in found.nodes]
    return json_answer(found.as_dict() | {"nodes": nodes})


def _object(asked: str) -> Doc:
    said = _decoded(asked)
    if not isinstance(said, dict) or "limit" in said:
        raise TypeError("What is asked for should be an object, as JSON, without a limit.")
    return said


def _decoded(text: str) -> Any:
    try:
        return decode(text.encode(errors="surrogatepass"))
    except RecursionError:
        raise ValueError("What is asked for is nested too deep.") from None


def _run(catalog: Catalog, run: Run) -> Doc:
    home = run.folder.relative_to(catalog.root).as_posix()
    return {"start": run.start, "stop": run.stop, "home": home}


# --- of a run -----------------------------------------------------------------------------------------------


@routes.get("/documents", operation_id="question_documents", response_model=DocumentsAnswer, dependencies=[LIGHT])
def documents(
    house: InHouse,
    run: Uid,
    from_: Annotated[int, Query(alias="from", ge=0, lt=1 << 62, description="0, or an offset of an answer.")] = 0,
    rebase: bool = True,
) -> Response:
    """Documents up to damage, about 4 MiB at a time, each with the byte of the journal after it."""
    said: list[tuple[int, str, Doc]] = []
    more = False
    with house.library.run(run).reading() as found:
        damage = found.damage
        whole = found if damage is None else found.up_to_damage
    for offset, (name, doc) in whole.journalled(from_, rebase=rebase):
        if more := offset - from_ > _DOCUMENT_BYTES and bool(said):
            break
        said.append((offset, name, doc))
    where = None if damage is None or more else without_places(damage, house.library.root)
    return json_answer({"documents": said, "more": more, "damage": where})


@routes.get("/notes", operation_id="question_notes", response_model=Value, dependencies=[LIGHT])
def notes(house: InHouse, run: Uid) -> Response:
    """``run.notes``."""
    names = ("time", "by", "added", "removed", "text")
    with house.library.run(run).reading() as found:
        return _value([{name: getattr(note, name) for name in names} for note in found.notes])


@routes.get("/manifest", operation_id="question_manifest", response_model=Value, dependencies=[LIGHT])
def manifest(house: InHouse, run: Uid) -> Response:
    """``run.manifest``, as the file spells it."""
    with house.library.run(run).reading() as found:
        return _value([entry.line() for entry in found.manifest])


@routes.get("/held", operation_id="question_held", response_model=Value, dependencies=[LIGHT])
def held(house: InHouse, run: Uid) -> Response:
    """Of each volume in the manifest: its best form, whether one is at its place, the levels of its pyramid."""
    with house.library.run(run).reading() as found:
        assets, entries = found.assets, found.manifest
    refs = list(dict.fromkeys(VolumeRef(each.resource, each.index) for each in entries if each.index is not None))
    there = assets.stored(refs)
    best = [(ref, entry) for ref in refs if (entry := assets.entry(ref)) is not None]
    return _value(
        [{"entry": entry.line(), "stored": ref in there, "levels": assets.pyramid(ref)} for ref, entry in best]
    )


def _value(value: Any) -> Response:
    return json_answer({"value": value})


# --- of its volumes -----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Asked:
    """One volume of a run."""

    uid: str
    ref: VolumeRef
    assets: VolumeReader
    data_key: Doc
    root: PurePath

    def pixels(self, *, partial: bool, level: int = 0, across: bool = False) -> Pixels:
        if level:
            return self.assets.level(self.ref, level)
        return self.assets.volume(self.ref, self.data_key, partial=partial, across=across)


def _asked(house: InHouse, run: Uid, resource: Uid, index: Annotated[int, Query(ge=0, lt=1 << 40)]) -> _Asked:
    with house.library.run(run).reading() as found:
        try:
            key = found.assets.data_key(resource)
        except KeyError:
            raise NotHereError(
                f"No document of run {found.uid} names stream resource {resource[:100]!r}."
            ) from None
        return _Asked(found.uid, VolumeRef(resource, index), found.assets, key, house.library.root)


OneVolume = Annotated[_Asked, Depends(_asked)]


@routes.get("/check", operation_id="question_check", response_model=Value, dependencies=[LIGHT])
def check(of: OneVolume, partial: bool = False) -> Response:
    """The bytes of a volume that can be read."""
    return _value(of.assets.check(of.ref, of.data_key, partial=partial))


@routes.get("/source", operation_id="question_source", response_model=Value, dependencies=[LIGHT])
def source(of: OneVolume) -> Response:
    """The stored form that is read; its path as from the root, the name alone of what lies elsewhere."""
    found = of.assets.source(of.ref)
    inside = found.path.is_relative_to(of.root)
    path = found.path.relative_to(of.root).as_posix() if inside else found.path.name
    return _value({"format": found.format, "path": path, "index": found.index})


@routes.get("/frames_there", operation_id="question_frames_there", response_model=Value, dependencies=[LIGHT])
def frames_there(of: OneVolume) -> Response:
    """Which frames came of a volume that was given up; null for any other."""
    there = of.assets.frames_there(of.ref)
    return _value(None if there is None else there.tolist())


@routes.get("/found", operation_id="question_found", response_model=Value, dependencies=[LIGHT])
def found(of: OneVolume) -> Response:
    """What the file of a volume says of it; null where it says nothing."""
    said = of.assets.found(of.ref)
    if said is None:
        return _value(None)
    geometry = {"shape": said.geometry.shape, "dtype": said.geometry.dtype.str}
    return _value({field.name: getattr(said, field.name) for field in fields(said)} | {"geometry": geometry})


@routes.get("/geometry", operation_id="question_geometry", response_model=Value, dependencies=[LIGHT])
def geometry(of: OneVolume, partial: bool = False, level: Annotated[int, Query(ge=0, le=30)] = 0) -> Response:
    """Shape and dtype of a volume."""
    pixels = of.pixels(partial=partial, level=level)
    return _value({"shape": pixels.shape, "dtype": pixels.dtype.newbyteorder("<").str})


@routes.get(
    "/pixels", operation_id="question_pixels", dependencies=[LIGHT], response_class=Response, responses=_PIXELS
)
def pixels(
    request: Request,
    house: InHouse,
    of: OneVolume,
    slice: Annotated[str, Query(max_length=400, description="Of the volume: 100 or 3:7,...,::2.")],
    partial: bool = False,
    level: Annotated[int, Query(ge=0, le=30)] = 0,
) -> Response:
    """A part of a volume; with `partial`, also of one that was given up: frames that never came are zeros."""
    parts = parsed(slice)
    across = is_across(parts) and len(parts) == len(of.data_key.get("shape") or ())
    found = of.pixels(partial=partial, level=level, across=across)
    return _sent(request, house, cut_pixels(found, None, parts, house.limits), of.uid)


@routes.get(
    "/projection",
    operation_id="question_projection",
    dependencies=[HEAVY],
    response_class=Response,
    responses=_PIXELS,
)
def projection(
    request: Request,
    house: InHouse,
    of: OneVolume,
    axis: Annotated[Axis, Query()],
    partial: bool = False,
    level: Annotated[int, Query(ge=0, le=30)] = 0,
) -> Response:
    """The maximum of a volume (z, y, x) along an axis."""
    found = of.pixels(partial=partial, level=level)
    if found.ndim != 3:
        raise GeometryError(f"It is {found.shape}; only volumes (z, y, x) are projected.")
    shape = tuple(size for name, size in zip("zyx", found.shape, strict=True) if name != axis)
    return _sent(request, house, Cut(shape, found.dtype, None, lambda: of.assets.maximum(found, axis)), of.uid)


@routes.get("/check_datum", operation_id="question_check_datum", response_model=Value, dependencies=[LIGHT])
def check_datum(house: InHouse, run: Uid, datum_id: Uid) -> Response:
    """Whether a Datum of old can be read."""
    with house.library.run(run).reading() as found:
        found.assets.check_datum(datum_id)
    return _value(None)


@routes.get(
    "/datum", operation_id="question_datum", dependencies=[HEAVY], response_class=Response, responses=_PIXELS
)
def datum(request: Request, house: InHouse, run: Uid, datum_id: Uid) -> Response:
    """What a Datum of old names."""
    with house.library.run(run).reading() as found:
        uid, array = found.uid, found.assets.datum(datum_id)
    return _sent(request, house, cut_pixels(array, None, (...,), house.limits), uid)


def _sent(request: Request, house: House, cut: Cut, uid: str) -> Response:
    if cut.dtype.kind not in "biufc":
        raise UnfillableError(f"Its dtype is {cut.dtype}: none of numbers, which is all that is sent.")
    return send(request, house, cut, "raw", Shown(), uid)
