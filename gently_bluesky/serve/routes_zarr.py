"""The route of OME-Zarr: a series as a store that any Zarr client opens by its address."""

from typing import Annotated

from fastapi import APIRouter, Path, Request
from starlette.responses import Response

from gently_bluesky.serve.answering import (
    FOR_GOOD,
    LIGHT,
    UNTIL_CHANGED,
    GentlyRoute,
    InHouse,
    bytes_answer,
    etag_of,
    is_known,
    unchanged,
)
from gently_bluesky.serve.routes_run import Name, RunKey
from gently_bluesky.serve.zarr_view import ZarrView

routes = APIRouter(prefix="/runs/{run}/streams/{stream}/series/{key}/zarr", route_class=GentlyRoute)


@routes.get(
    "/{path:path}",
    operation_id="zarr",
    response_class=Response,
    responses={
        200: {
            "content": {
                "application/json": {"schema": {"type": "object"}},
                "application/octet-stream": {"schema": {"type": "string", "format": "binary"}},
            }
        },
        206: {"description": "The range that was asked for."},
        304: {"description": "The client has it."},
        416: {"description": "There is no such range."},
    },
    dependencies=[LIGHT],
)
def zarr(
    request: Request,
    house: InHouse,
    run: RunKey,
    stream: Name,
    key: Name,
    path: Annotated[str, Path(max_length=200, description="zarr.json, 0/zarr.json, 0/c/3/100/0/0 ...")],
) -> Response:
    """A series as OME-Zarr 0.5, read-only: give a Zarr client the address that ends in /zarr."""
    held = house.library.run(run)
    series = held.series(stream, key)
    view = held.once(("zarr", stream, key), lambda found: ZarrView(found, series))
    blob = view.get(path)
    headers = {"cache-control": UNTIL_CHANGED}
    if blob.is_metadata:
        return Response(blob.content.tobytes(), headers=headers, media_type="application/json")
    if blob.identity is not None:
        headers["etag"] = etag_of(series.run_uid, key, *blob.identity)
        if run == series.run_uid and not view.is_open:
            headers["cache-control"] = FOR_GOOD
        if is_known(request, headers):
            return unchanged(headers)
    return bytes_answer(request, blob.content, headers)
