"""The old viewer's routes: the same addresses and JSON as before, answered from runs.

A plane is had of every stored volume, where only those in memory had one; each base64 answer has a binary one
beside it; a z that is not there is an error, never the nearest one. Embryo ids repeat from session to session: the
newest volume is meant, unless `session` says which. What documents do not say is null, not a default.
"""

import base64
import datetime
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from fastapi import APIRouter, Depends, HTTPException, Query
from numpy.typing import NDArray
from starlette.responses import Response

from gently_bluesky import Catalog
from gently_bluesky.errors import GeometryError, NotHereError, StreamNotFoundError, TooLargeError
from gently_bluesky.read.catalog import Session, Volume, Volumes
from gently_bluesky.read.images import ImageSeries
from gently_bluesky.read.origin import Axis
from gently_bluesky.serve.answering import HEAVY, LIGHT, UNTIL_CHANGED, GentlyRoute, House, InHouse, json_answer
from gently_bluesky.serve.formats import Shown, picture_of, three_of
from gently_bluesky.serve.router import PROBLEMS, house
from gently_bluesky.store.streams import Doc

routes = APIRouter(route_class=GentlyRoute)

_AXES: Mapping[str, Axis] = {"max_z": "z", "max_y": "y", "max_x": "x"}
_METHODS = ["three_view", *_AXES]
_VOLUMES = {"volume", "volume_projection"}
_STRETCH = "1%,99%"
_PLANES = 8  # read together
_SEPARATOR = "~"

Name = Annotated[str | None, Query(max_length=200)]
Window = Annotated[str, Query(max_length=80, description="auto, 100,4000 or 1%,99.8%")]
Size = Annotated[int, Query(ge=64, le=4096, description="Longest side of a picture.")]


def old_router(of: House | Path | str, *, prefix: str = "/api") -> APIRouter:
    """Give the routes, for `FastAPI.include_router`.

    Parameters
    ----------
    of
        A root, or what `house` gives, where several routers share it.
    prefix
        Where they begin.
    """
    shared = of if isinstance(of, House) else house(of)
    api = APIRouter(dependencies=[Depends(shared.lend)], responses=PROBLEMS, tags=["old viewer"])
    api.include_router(routes, prefix=prefix)
    return api


# --- which volume -------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Found:
    """One volume, by what it shows."""

    images: ImageSeries
    event: int

    def pixels(self) -> Any:
        pixels = self.images.lazy(self.event)
        if pixels.ndim != 3:
            raise GeometryError(f"{self.images.data_key!r} holds arrays {pixels.shape}, no volumes (z, y, x).")
        return pixels

    @property
    def voxel_um(self) -> tuple[float, ...] | None:
        return self.images.voxel_size_um_of(self.event)


def _newest(house: InHouse, embryo: str, timepoint: int, session: Name = None, view: Name = None) -> _Found:
    found = _volumes(house, {"embryo": embryo, "timepoint": timepoint, "session": session, "view": view})
    if not found:
        raise NotHereError(f"There is no such volume: {found.why_none}.", available=found.available)
    newest = found[0]
    same = [each for each in found if (each.run_uid, each.row.seq_num) == (newest.run_uid, newest.row.seq_num)]
    return _found(house, min(same, key=lambda each: each.row.data_key))


def _volumes(house: House, asked: Doc) -> Volumes:
    """Give volumes of an embryo, newest first; of the newest session that has it, if none is asked for."""
    what = {key: value for key, value in asked.items() if value is not None}

    def ask(catalog: Catalog) -> Volumes:
        every = catalog.volumes(embryo=asked["embryo"], include_bad=True) if asked["session"] is None else None
        return catalog.volumes(**what | ({"session": every[0].row.session} if every else {}))

    return house.library.ask(ask)


def _found(house: House, volume: Volume) -> _Found:
    row = volume.row
    images = house.library.run(volume.run_uid).series(row.stream, row.data_key)
    return _Found(images, _event(images, row.seq_num))


def _event(images: ImageSeries, seq_num: int) -> int:
    for event in range(len(images)):
        if images.row(event).seq_num == seq_num:
            return event
    raise NotHereError(f"There is no event with seq_num {seq_num} in stream {images.stream!r}.")


Newest = Annotated[_Found, Depends(_newest)]


# --- projections --------------------------------------------------------------------------------------------


@routes.get("/projections/{embryo}/{timepoint}", operation_id="old_projections", dependencies=[HEAVY])
def projections(
    of: Newest,
    embryo: str,
    timepoint: int,
    method: str = "all",
    window: Window = "auto",
    size: Size = 800,
) -> Doc:
    """Projections of a volume as base64 PNGs."""
    wanted = _METHODS if method == "all" else [method]
    made = []
    for each in wanted:
        content, said = _projection(of, each, Shown(window=window, size=size))
        text = base64.b64encode(content).decode("ascii")
        made.append({"method": each, "description": _described(each, said), "data": text})
    shape = list(of.pixels().shape)
    return {"embryo_id": embryo, "timepoint": timepoint, "volume_shape": shape, "projections": made}


@routes.get(
    "/projections/{embryo}/{timepoint}/png",
    operation_id="old_projection_png",
    response_class=Response,
    responses={200: {"content": {"image/png": {}}}},
    dependencies=[HEAVY],
)
def projection_png(of: Newest, method: str = "three_view", window: Window = "auto", size: Size = 800) -> Response:
    """One projection of a volume as a PNG."""
    content, said = _projection(of, method, Shown(window=window, size=size))
    return Response(content, headers={**said, "cache-control": UNTIL_CHANGED}, media_type="image/png")


def _projection(of: _Found, method: str, shown: Shown) -> tuple[bytes, dict[str, str]]:
    if method not in _METHODS:
        raise HTTPException(400, f"Unknown method: {method[:80]}. Available: {[*_METHODS, 'all']}")
    of.pixels()
    if method == "three_view":
        views = [of.images.project(of.event, axis=axis) for axis in ("z", "y", "x")]
        return three_of(views, of.voxel_um, "png", shown)
    plane = of.images.project(of.event, axis=_AXES[method])
    return picture_of(plane, "png", shown)


def _described(method: str, said: Mapping[str, str]) -> str:
    along = "z, y and x" if method == "three_view" else _AXES[method]
    return f"Maximum along {along}; counts {said['x-window'].replace(',', ' to ')} from black to white"


# --- whole volumes ------------------------------------------------------------------------------------------

Smaller = Annotated[
    int | None, Query(ge=1, le=8192, description="Longest side of a plane; as it is, if left out.")
]


@routes.get("/volume-raw/{embryo}/{timepoint}", operation_id="old_volume_raw", dependencies=[HEAVY])
def volume_raw(house: InHouse, of: Newest, embryo: str, timepoint: int, size: Smaller = None) -> Doc:
    """A volume in bytes, its counts stretched from the 1st to the 99th percentile, in base64."""
    stretched, voxel_um, _ = _stretched(house, of, size)
    return {
        "embryo_id": embryo,
        "timepoint": timepoint,
        "shape": list(stretched.shape),
        "voxel_size_um": None if voxel_um is None else list(voxel_um),
        "data": base64.b64encode(stretched.data).decode("ascii"),
    }


@routes.get(
    "/volume-raw/{embryo}/{timepoint}/bytes",
    operation_id="old_volume_bytes",
    response_class=Response,
    responses={200: {"content": {"application/octet-stream": {}}}},
    dependencies=[HEAVY],
)
def volume_bytes(house: InHouse, of: Newest, size: Smaller = None) -> Response:
    """The same bytes as they are; shape, voxel size and window in headers."""
    stretched, voxel_um, window = _stretched(house, of, size)
    said = {"x-shape": ",".join(map(str, stretched.shape)), "x-dtype": "|u1", "x-window": window}
    if voxel_um is not None:
        said["x-voxel-size-um"] = ",".join(map(str, voxel_um))
    headers = {**said, "cache-control": UNTIL_CHANGED}
    return Response(stretched.data, headers=headers, media_type="application/octet-stream")


def _stretched(
    house: House, of: _Found, size: int | None
) -> tuple[NDArray[np.uint8], tuple[float, ...] | None, str]:
    from gently_bluesky.serve.pictures.scaling import area_mean  # noqa: PLC0415 - Pillow is not needed for pixels
    from gently_bluesky.serve.pictures.window import as_bytes, window_of  # noqa: PLC0415

    pixels = of.pixels()
    depth, height, width = pixels.shape
    longest = size or max(height, width)
    scale = min(1.0, longest / max(height, width))
    nbytes = int(depth * height * width * scale**2) * (pixels.dtype.itemsize if scale == 1 else 4)
    if nbytes > house.limits.answer_bytes:
        raise TooLargeError(
            f"{depth}x{height}x{width} {pixels.dtype.name} are more than the {house.limits.answer_bytes:,} bytes "
            "that are given at once. Ask for smaller planes: size=512.",
            limit=house.limits.answer_bytes,
            nbytes=nbytes,
        )

    def read() -> NDArray[Any]:
        slabs = (pixels[first : first + _PLANES] for first in range(0, depth, _PLANES))
        return np.stack([plane if scale == 1 else area_mean(plane, longest) for slab in slabs for plane in slab])

    small = house.room.read(nbytes, read)
    window = window_of(small, _STRETCH)
    _, rows, columns = small.shape
    made = np.empty(small.shape, np.uint8)
    for z, plane in enumerate(small):
        made[z] = as_bytes(plane, window)
    voxel = of.voxel_um
    by = (1.0, height / rows, width / columns)
    size_um = None if voxel is None else tuple(one * other for one, other in zip(voxel, by, strict=True))
    return made, size_um, str(window)


# --- planes -------------------------------------------------------------------------------------------------


@routes.get(
    "/volumes3d/{uid}/slice/{z}",
    operation_id="old_slice",
    response_class=Response,
    responses={200: {"content": {"image/png": {}}}},
    dependencies=[LIGHT],
)
def slice_(house: InHouse, uid: str, z: int, window: Window = "auto", size: Size = 4096) -> Response:
    """A plane of a stored volume as a PNG; `uid` as ``/sequence`` gives it."""
    run, *rest = uid.split(_SEPARATOR, 3)
    if len(rest) != 3 or not rest[1].isdigit():
        raise NotHereError(
            f"Volume {uid[:200]!r} is not there; the route sequence gives the uids of those that are."
        )
    stream, seq_num, key = rest
    images = house.library.run(run).series(stream, key)
    of = _Found(images, _event(images, int(seq_num)))
    depth = of.pixels().shape[0]
    if not 0 <= z < depth:
        raise NotHereError(
            f"There is no plane {z}; there are {depth}, counted from 0.", available={"z": [0, depth - 1]}
        )
    content, said = picture_of(images[of.event, z], "png", Shown(window=window, size=size))
    return Response(content, headers={**said, "cache-control": UNTIL_CHANGED}, media_type="image/png")


@routes.get("/sequence/{embryo}", operation_id="old_sequence", dependencies=[LIGHT])
def sequence(
    house: InHouse,
    embryo: str,
    start: Annotated[int, Query(ge=0, le=1 << 40)] = 0,
    end: Annotated[int | None, Query(ge=0, le=1 << 40)] = None,
    data_type: str = "volume_projection",
    buffer_percent: Annotated[float, Query(ge=0, le=10)] = 0.15,
    session: Name = None,
    view: Name = None,
) -> Response:
    """The newest volume of each timepoint, without pixels; `end` is the last one."""
    more = 0 if end is None else int(max(0, end - start) * buffer_percent)
    first, last = max(0, start - more), None if end is None else end + more
    asked: Doc = {"embryo": embryo, "session": session, "view": view}
    found = _volumes(house, asked) if data_type in _VOLUMES else []
    newest: dict[int, Volume] = {}
    for volume in sorted(found, key=lambda each: (-(each.row.time or 0.0), each.row.data_key)):
        timepoint = volume.row.timepoint
        if type(timepoint) is int and first <= timepoint and (last is None or timepoint <= last):
            newest.setdefault(timepoint, volume)
    items = [_item(house, newest[timepoint], data_type) for timepoint in sorted(newest)]
    ranges = {"requested_range": {"start": start, "end": end}, "buffered_range": {"start": first, "end": last}}
    return json_answer({"embryo_id": embryo, **ranges, "sequence": items, "count": len(items)})


def _item(house: House, volume: Volume, data_type: str) -> Doc:
    row = volume.row
    try:
        found = _found(house, volume)
        entry = found.images.entry(found.event)
    except (NotHereError, StreamNotFoundError):
        entry = None
    return {
        "uid": _SEPARATOR.join((volume.run_uid, row.stream, str(row.seq_num), row.data_key)),
        "timepoint": row.timepoint,
        "timestamp": _iso(row.time),
        "data_type": data_type,
        "shape": None if entry is None else list(entry.shape),
        "embryo_id": row.embryo,
    }


# --- sessions -----------------------------------------------------------------------------------------------


@routes.get("/sessions", operation_id="old_sessions", dependencies=[LIGHT])
def sessions(house: InHouse) -> Response:
    """Sessions, the newest first."""
    found = house.library.ask(lambda catalog: [_session(catalog, each) for each in catalog.sessions()])
    return json_answer({"sessions": found})


@routes.get("/sessions/{session}", operation_id="old_session", dependencies=[LIGHT])
def session_(house: InHouse, session: str) -> Response:
    """One session, and its embryos."""

    def question(catalog: Catalog) -> Doc:
        known = {each.name: each for each in catalog.sessions()}
        if session not in known:
            raise NotHereError(f"There is no session {session[:200]!r}.", available={"session": list(known)[:200]})
        said = _session(catalog, known[session])
        states = {embryo: _state(catalog, session, embryo) for embryo in known[session].embryos}
        names = ("session_id", "name", "description", "created_at", "last_active")
        kept = {name: said[name] for name in names}
        return kept | {"embryo_states": states, "conversation": [], "detection_history": {}}

    return json_answer(house.library.ask(question))


def _session(catalog: Catalog, session: Session) -> Doc:
    runs = catalog.search(session=session.name)
    said = next((run.start for run in runs if run.start.get("session_name")), {})
    return {
        "session_id": session.name,
        "name": str(said.get("session_name") or session.name),
        "created_at": _iso(session.since),
        "last_active": _iso(session.until),
        "embryo_count": len(session.embryos),
        "description": "",
        "active": any(run.is_open for run in runs),
    }


def _state(catalog: Catalog, session: str, embryo: str) -> Doc:
    timepoints = catalog.timepoints(session, embryo)
    return {"embryo_id": embryo, "timepoints": len(timepoints), "last_timepoint": max(timepoints, default=None)}


def _iso(time: float | None) -> str | None:
    """Give a moment as ISO 8601, in this machine's zone."""
    return None if time is None else datetime.datetime.fromtimestamp(time).astimezone().isoformat()
