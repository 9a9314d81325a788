"""`create_app`: the whole application, behind its doors.

Routes, page, live channel and the old viewer's routes come together here, and nowhere else.
"""

from collections.abc import Iterable
from http import HTTPStatus
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request
from fastapi.openapi.utils import get_openapi
from starlette.exceptions import HTTPException
from starlette.responses import Response

from gently_bluesky import __version__
from gently_bluesky.read.assets import HandlerRegistry
from gently_bluesky.serve.answers import ProblemAnswer
from gently_bluesky.serve.doors import Doors, Limits
from gently_bluesky.serve.live import live_router
from gently_bluesky.serve.page_files import page_router
from gently_bluesky.serve.problems import UNFORESEEN, Problem, problem_of
from gently_bluesky.serve.router import API, house, router


def create_app(
    root: Path | str,
    *,
    token: str | None = None,
    allowed_hosts: Iterable[str] = (),
    allowed_origins: Iterable[str] = (),
    may_tag: bool = False,
    limits: Limits | None = None,
    handlers: HandlerRegistry | None = None,
) -> FastAPI:
    """Give the application that serves a root.

    Parameters
    ----------
    root
        A folder that a FileWriter made.
    token
        What clients must show; None: nobody is asked, for a server that only this machine reaches.
    allowed_hosts, allowed_origins
        As `Doors` has them.
    may_tag
        Whether tags and notes may be added.
    limits
        As `Limits` has them.
    handlers
        For assets that others wrote, as `Catalog` has them.

    Raises
    ------
    RootError
        The folder is no root.
    ConfigError
        The token or an origin is none.
    """
    limits = limits or Limits()
    shared = house(root, may_tag=may_tag, limits=limits, handlers=handlers)
    doors = Doors(token, frozenset(allowed_hosts), frozenset(allowed_origins))
    app = FastAPI(
        title="gently_bluesky",
        version=__version__,
        openapi_url=f"{API}/openapi.json",
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    app.state.house = shared
    app.add_exception_handler(HTTPException, _problem)
    app.add_exception_handler(Exception, _problem)
    app.include_router(router(shared))
    app.include_router(live_router(shared.library.root))
    app.include_router(page_router())
    app.openapi = lambda: _openapi(app)  # type: ignore[method-assign]
    app.add_middleware(lambda inner: doors(inner, limits))
    return app


async def _problem(request: Request, error: Exception) -> Response:  # noqa: ARG001 - as Starlette has it
    if isinstance(error, HTTPException) and error.status_code == HTTPStatus.NOT_FOUND:
        return Problem(
            HTTPStatus.NOT_FOUND, f"There is nothing at this address. {API} is where the API begins."
        ).response()
    return (problem_of(error) or UNFORESEEN).response()


def _openapi(app: FastAPI) -> dict[str, Any]:
    """Give what the routes say of themselves, problems included."""
    if app.openapi_schema is None:
        schema = get_openapi(title=app.title, version=app.version, routes=app.routes)
        schemas = schema.setdefault("components", {}).setdefault("schemas", {})
        schemas["ProblemAnswer"] = ProblemAnswer.model_json_schema()
        for operations in schema["paths"].values():
            for operation in operations.values():  # FastAPI's own shape of errors is never answered
                for answer in operation["responses"].values():
                    problem = answer.get("content", {})
                    if "application/problem+json" in problem:
                        answer["content"] = {"application/problem+json": problem["application/problem+json"]}
        for name in ("HTTPValidationError", "ValidationError"):
            schemas.pop(name, None)
        app.openapi_schema = schema
    return app.openapi_schema
