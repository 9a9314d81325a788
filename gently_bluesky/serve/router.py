"""`router`: all routes of the API as an `APIRouter` that another application mounts."""

from pathlib import Path
from typing import Any

from fastapi import APIRouter, Depends

from gently_bluesky.read.assets import HandlerRegistry
from gently_bluesky.serve import routes_catalog, routes_pixels, routes_questions, routes_run, routes_zarr
from gently_bluesky.serve.answering import House
from gently_bluesky.serve.answers import ProblemAnswer
from gently_bluesky.serve.doors import Limits
from gently_bluesky.serve.library import Library

API = "/api/v1"

_PROBLEM: dict[str, Any] = {
    "content": {"application/problem+json": {"schema": {"$ref": "#/components/schemas/ProblemAnswer"}}}
}
PROBLEMS: dict[int | str, dict[str, Any]] = {
    status: {"description": text, **_PROBLEM}
    for status, text in {
        400: "The body is not what it says it is.",
        401: "A token is needed.",
        403: "Pages of this origin may not ask.",
        404: "There is no such thing; `available` says what there is.",
        409: "It is ambiguous, not good, or not whole; the detail says how to have it all the same.",
        410: "It was removed; `removed` says by which rule and by whom.",
        413: "It is more than is given at once; the detail says how to ask for less.",
        421: "This server does not go by this name.",
        422: "It cannot be understood.",
        425: "It has not come yet.",
        500: "It is damaged.",
        501: "Nothing here reads it.",
        503: "There is too much to do, or the root cannot be reached.",
    }.items()
}


def house(
    root: Path | str,
    *,
    may_tag: bool = False,
    limits: Limits | None = None,
    handlers: HandlerRegistry | None = None,
) -> House:
    """Give what the routes of one root share: `router` and others that stand beside it take it.

    Raises
    ------
    RootError
        The folder is no root.
    """
    limits = limits or Limits()
    return House(Library(root, cache_bytes=limits.cache_bytes, handlers=handlers), limits, may_tag=may_tag)


def router(of: House | Path | str, *, prefix: str = API) -> APIRouter:
    """Give the routes, for `FastAPI.include_router`.

    Parameters
    ----------
    of
        A root, or what `house` gives, where several routers share it.
    prefix
        Where they begin.

    Notes
    -----
    Who may ask is decided by the application that mounts them.
    """
    shared = of if isinstance(of, House) else house(of)
    api = APIRouter(dependencies=[Depends(shared.lend)], responses=PROBLEMS)
    most_asked_first = (routes_pixels, routes_zarr, routes_questions, routes_run, routes_catalog)
    for part in most_asked_first:
        api.include_router(part.routes, prefix=prefix)
    return api


__all__ = ["API", "ProblemAnswer", "house", "router"]
