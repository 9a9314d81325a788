"""Routes of pixels: series and single volumes, parts of them in any form, projections, histograms."""

from collections.abc import Callable
from dataclasses import replace
from typing import Annotated, Any, Literal
from urllib.parse import quote

import numpy as np
from fastapi import APIRouter, Path, Query, Request
from numpy.typing import NDArray
from starlette.responses import Response

from gently_bluesky.errors import GeometryError
from gently_bluesky.read.images import ImageSeries
from gently_bluesky.read.origin import Axis
from gently_bluesky.serve.addresses import stored_volume
from gently_bluesky.serve.answering import (
    FOR_GOOD,
    HEAVY,
    LIGHT,
    UNTIL_CHANGED,
    Buffer,
    GentlyRoute,
    House,
    InHouse,
    etag_of,
    is_known,
    json_answer,
    little_endian,
    pixels_answer,
    unchanged,
)
from gently_bluesky.serve.answers import Histogram, SeriesAnswer, VolumeAnswer
from gently_bluesky.serve.cutting import Cut, cut_pixels, cut_series, identity_of, level_of
from gently_bluesky.serve.formats import MEDIA_TYPES, PICTURES, Format, Shown, encoded, three_of
from gently_bluesky.serve.histograms import histogram_of
from gently_bluesky.serve.routes_run import Name, RunKey
from gently_bluesky.serve.slices import parsed
from gently_bluesky.store.index import shown_by
from gently_bluesky.store.removed import Removed
from gently_bluesky.store.streams import is_good

routes = APIRouter(prefix="/runs/{run}", route_class=GentlyRoute)

Slice = Annotated[
    str, Query(max_length=400, description="numpy's, the event axis first: 3,100 or 3,:,512,::2 or -1,...,0:64")
]
Level = Annotated[int, Query(ge=0, le=30, description="Of the pyramid; 0 is the whole.")]
Window = Annotated[str, Query(max_length=80, description="auto, 100,4000 or 1%,99.8%; of pictures.")]
Size = Annotated[
    int, Query(ge=1, le=4096, description="Longest side of a picture; smaller planes stay as they are.")
]
Colours = Annotated[str, Query(max_length=64, description="A colour map of cmap: gray, viridis, magma ...")]
Index = Annotated[int, Path(ge=0, lt=1 << 40)]
_SERIES = "/streams/{stream}/series/{key}"
_PIXELS: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The pixels.",
        "content": {kind: {"schema": {"type": "string", "format": "binary"}} for kind in MEDIA_TYPES.values()},
        "headers": {
            "X-Shape": {"description": "Of the array, or the picture: 2048,2048", "schema": {"type": "string"}},
            "X-Dtype": {"description": "Of raw pixels, as numpy has it: <u2", "schema": {"type": "string"}},
            "X-Window": {"description": "The counts that are black and white.", "schema": {"type": "string"}},
            "ETag": {"description": "What the pixels are, as far as that is known.", "schema": {"type": "string"}},
        },
    },
    304: {"description": "The client has it."},
}


def send(request: Request, house: House, cut: Cut, form: Format, shown: Shown, uid: str) -> Response:
    """Answer with a part of what is stored, unless the client has it already."""

    def read() -> NDArray[Any]:
        return house.room.read(0 if cut.is_mapped else cut.nbytes, lambda: little_endian(cut.read()))

    identity = cut.identity and (*cut.identity, form, shown if form in PICTURES else None)
    if form != "raw":
        return send_made(request, house, identity, MEDIA_TYPES[form], uid, lambda: encoded(read(), form, shown))
    headers = _headers(uid, identity)
    if is_known(request, headers):
        return unchanged(headers)
    return pixels_answer(request, read(), headers)


def send_made(
    request: Request,
    house: House,
    identity: tuple[object, ...] | None,
    media_type: str,
    uid: str,
    make: Callable[[], tuple[bytes, dict[str, str]]],
) -> Response:
    """Answer with what is made of pixels, and keep it, unless the client has it already, or it is kept."""
    headers = _headers(uid, identity)
    if is_known(request, headers):
        return unchanged(headers)
    etag = headers.get("etag", "")
    made = house.library.kept.get(etag)
    content, said = made if isinstance(made, tuple) else make()
    if etag and made is None:
        house.library.kept.put(etag, (content, said), len(content) + 200)
    waiting: Any = house.room.read(len(content), lambda: np.frombuffer(content, np.uint8))  # until it is sent
    return Buffer(memoryview(waiting), 200, {**headers, **said}, media_type)


def _headers(uid: str, identity: tuple[object, ...] | None) -> dict[str, str]:
    """Give what is said of every answer with pixels; what may change has no ETag, and is kept by nobody."""
    uid = quote(uid)  # a uid may be any text
    if identity is None:
        return {"x-run": uid, "cache-control": "no-store"}
    return {"x-run": uid, "cache-control": UNTIL_CHANGED, "etag": etag_of(*identity)}


# --- series -------------------------------------------------------------------------------------------------


@routes.get(_SERIES, operation_id="series", response_model=SeriesAnswer, dependencies=[LIGHT])
def series_(
    house: InHouse,
    run: RunKey,
    stream: Name,
    key: Name,
    first: Annotated[int, Query(ge=0, le=1 << 40)] = 0,
    limit: Annotated[int, Query(ge=1, le=10_000)] = 200,
) -> Response:
    """The images of a data key: their geometry, and what each shows."""
    held = house.library.run(run)
    with held.reading() as found:
        series = held.series(stream, key)
        start, is_open, uid = found.start, found.is_open, found.uid
        view = found[stream].data_keys[key].get("view")
    chosen = range(len(series))[first : first + limit]
    answer = {
        "run": uid,
        "stream": stream,
        "key": key,
        "shape": series.shape,
        "dtype": series.dtype.str,
        "dims": series.dims,
        "voxel_size_um": _voxels(series),
        "levels": _levels(series),
        "is_open": is_open,
        "first": first,
        "events": [_event(series, event, start, view) for event in chosen],
        "next": first + limit if first + limit < len(series) else None,
    }
    return json_answer(answer)


def _voxels(series: ImageSeries) -> tuple[float, ...] | None:
    try:
        return series.voxel_size_um
    except GeometryError:  # they changed
        return None


def _levels(series: ImageSeries) -> list[dict[str, Any]]:
    return [{"shape": level.shape, "factors": level.factors} for level in series.levels]


def _event(series: ImageSeries, event: int, start: dict[str, Any], view: Any) -> dict[str, Any]:
    row = series.row(event)
    ref = row.volumes.get(series.data_key)
    shown = {key: value for key, value in shown_by(row, start).items() if key != "session"}
    said = {
        "event": event,
        "seq_num": row.seq_num,
        "time": row.time,
        **shown,
        "good": is_good(row.data),
        "stored": bool(series.only([event]).stored[0]),
        "view": view,
        "resource": None if ref is None else ref.resource,
        "index": None if ref is None else ref.index,
        "source": None,
        "removed": None,
    }
    if (entry := series.entry(event)) is not None:
        how = Removed.of(entry)
        said |= {"source": f"{entry.format}: {entry.path}", "removed": None if how is None else str(how)}
    return said


@routes.get(
    f"{_SERIES}/pixels", operation_id="pixels", response_class=Response, responses=_PIXELS, dependencies=[LIGHT]
)
def pixels(
    request: Request,
    house: InHouse,
    run: RunKey,
    stream: Name,
    key: Name,
    slice: Slice,
    level: Level = 0,
    include_bad: bool = False,
    format: Annotated[Format, Query()] = "raw",
    window: Window = "auto",
    cmap: Colours = "gray",
    size: Size = 512,
) -> Response:
    """A part of a series: a plane along any axis, a region, a sub-volume, in any form."""
    parts = parsed(slice)
    series = house.library.run(run).series(stream, key)
    series = level_of(series.including_bad if include_bad else series, level)
    cut = cut_series(series, parts, house.limits)
    cut = replace(cut, identity=None if cut.identity is None else (*cut.identity, level, include_bad))
    return send(request, house, cut, format, Shown(window, cmap, size), series.run_uid)


@routes.get(
    f"{_SERIES}/projection",
    operation_id="projection",
    response_class=Response,
    responses=_PIXELS,
    dependencies=[HEAVY],
)
def projection(
    request: Request,
    house: InHouse,
    run: RunKey,
    stream: Name,
    key: Name,
    event: Annotated[int, Query(ge=-(1 << 40), le=1 << 40)],
    axis: Annotated[Axis | Literal["three"], Query(description="three: all, as one picture.")] = "z",
    level: Level = 0,
    include_bad: bool = False,
    format: Annotated[Format, Query()] = "raw",
    window: Window = "auto",
    cmap: Colours = "gray",
    size: Size = 512,
) -> Response:
    """The maximum projection of a volume along an axis."""
    series = house.library.run(run).series(stream, key)
    series = level_of(series.including_bad if include_bad else series, level)
    volume = series.lazy(event)
    if volume.ndim != 3:
        raise GeometryError(f"{key!r} holds arrays {volume.shape}; only volumes (z, y, x) are projected.")
    known = identity_of(series, event)
    identity = None if known is None else (series.run_uid, key, known, level, include_bad, "projection", axis)
    shown = Shown(window, cmap, size)
    if axis != "three":
        shape = tuple(size for name, size in zip("zyx", volume.shape, strict=True) if name != axis)
        cut = Cut(shape, volume.dtype, identity, lambda: series.project(event, axis=axis))
        return send(request, house, cut, format, shown, series.run_uid)

    def three() -> tuple[bytes, dict[str, str]]:
        along: tuple[Axis, ...] = ("z", "y", "x")
        projections = [series.project(event, axis=each) for each in along]
        return three_of(projections, series.voxel_size_um_of(event), format, shown)

    return send_made(
        request, house, identity and (*identity, format, shown), MEDIA_TYPES[format], series.run_uid, three
    )


@routes.get(f"{_SERIES}/histogram", operation_id="histogram", response_model=Histogram, dependencies=[HEAVY])
def histogram(
    house: InHouse,
    run: RunKey,
    stream: Name,
    key: Name,
    slice: Slice,
    bins: Annotated[int, Query(ge=1, le=4096)] = 256,
    level: Level = 0,
    include_bad: bool = False,
) -> Response:
    """How many pixels of a part have which value, and what they come to."""
    parts = parsed(slice)
    series = house.library.run(run).series(stream, key)
    series = level_of(series.including_bad if include_bad else series, level)
    cut = cut_series(series, parts, house.limits)
    kept_as = None if cut.identity is None else etag_of(*cut.identity, level, include_bad, "histogram", bins)
    found = house.library.kept.get(kept_as) if kept_as else None
    if found is None:
        array = house.room.read(0 if cut.is_mapped else cut.nbytes, lambda: little_endian(cut.read()))
        found = histogram_of(array, bins)
        if kept_as:
            house.library.kept.put(kept_as, found, 100 * bins)
    return json_answer(found)


# --- one volume by its permanent address --------------------------------------------------------------------


_VOLUME = "/volumes/{resource}/{index}"


@routes.get(_VOLUME, operation_id="volume", response_model=VolumeAnswer, dependencies=[LIGHT])
def volume_(
    house: InHouse,
    run: RunKey,
    resource: Name,
    index: Index,
) -> Response:
    """What is known of one volume, by its stream resource and its index in it."""
    with house.library.run(run).reading() as found:
        stored = stored_volume(found, resource, index, include_bad=True)
        return json_answer({"run": found.uid, "resource": resource, "index": index, **stored.facts})


@routes.get(
    f"{_VOLUME}/pixels",
    operation_id="volume_pixels",
    response_class=Response,
    responses=_PIXELS,
    dependencies=[LIGHT],
)
def volume_pixels(
    request: Request,
    house: InHouse,
    run: RunKey,
    resource: Name,
    index: Index,
    slice: Slice,
    level: Level = 0,
    include_bad: bool = False,
    format: Annotated[Format, Query()] = "raw",
    window: Window = "auto",
    cmap: Colours = "gray",
    size: Size = 512,
) -> Response:
    """A part of one volume, without the event axis, at an address that is good for as long as the volume is."""
    parts = parsed(slice)
    with house.library.run(run).reading() as found:
        stored = stored_volume(found, resource, index, include_bad=include_bad)
        uid = found.uid
    volume = stored.pixels(level)
    identity = stored.identity and (*stored.identity, level, include_bad)
    cut = cut_pixels(volume, identity, parts, house.limits)
    stored.hold_there(parts)
    answer = send(request, house, cut, format, Shown(window, cmap, size), uid)
    if "etag" in answer.headers and run == uid:
        answer.headers["cache-control"] = FOR_GOOD
    return answer
