"""How every route answers: in its turn, with problems for errors, ETags, compression, memory that is not copied.

`GentlyRoute` is the class of every route, so that all of this comes along where the router is mounted. Work is
done in threads; here only bytes and headers are handled.
"""

import asyncio
import gzip
import logging
import re
import threading
import weakref
from collections.abc import Callable, Collection, Coroutine, Mapping, Sequence
from http import HTTPStatus
from typing import Annotated, Any

import numpy as np
import xxhash
from fastapi import Depends, Request
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute
from numpy.typing import NDArray
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response
from starlette.routing import Match
from starlette.types import Receive, Scope, Send

from gently_bluesky import __version__
from gently_bluesky.errors import GentlyError, TooBusyError
from gently_bluesky.serve.doors import Limits
from gently_bluesky.serve.library import Library
from gently_bluesky.serve.problems import UNFORESEEN, problem_of
from gently_bluesky.store.strict_json import encode, plain

log = logging.getLogger(__name__)

PIECE = 1 << 20
"""Pixels go out in pieces of so many bytes: as much is in flight for a client that is slow."""

_RANGE = re.compile(r"bytes=([0-9]{0,18})-([0-9]{0,18})")  # several at once are answered with the whole
_COMPRESSED = ("application/json", "application/problem+json", "application/x-ndjson", "image/svg+xml")
_WORTH_COMPRESSING = 1400
_WORTH_A_THREAD = 64 << 10

UNTIL_CHANGED = "private, no-cache"
"""Ask each time; if nothing has changed, the answer is a 304 without a body."""
FOR_GOOD = "private, max-age=31536000, immutable"
"""What is at this address cannot change."""


class House:
    """What the routes of one router share: a library, limits, and turns."""

    def __init__(self, library: Library, limits: Limits, *, may_tag: bool = False) -> None:
        self.library = library
        self.limits = limits
        self.may_tag = may_tag
        self._light = asyncio.Semaphore(limits.at_once)
        self._heavy = asyncio.Semaphore(limits.heavy_at_once)
        self._waiting = 0
        self.room = Room(limits.room_bytes, limits.wait_s)

    async def lend(self, request: Request) -> None:
        """Let a request find what it needs: a dependency of the router."""
        request.state.house = self

    async def turn(self, *, heavy: bool = False) -> asyncio.Semaphore:
        """Wait for a turn, and give what is to be released after it; TooBusyError if it does not come."""
        turns = self._heavy if heavy else self._light
        if not turns.locked():
            await turns.acquire()
            return turns
        if self._waiting >= self.limits.waiting:
            raise TooBusyError(f"{self._waiting} requests wait for their turn already. Try again in a moment.")
        self._waiting += 1
        try:
            async with asyncio.timeout(self.limits.wait_s):
                await turns.acquire()
        except TimeoutError:
            raise TooBusyError(
                f"No turn came within {self.limits.wait_s:g} s, there is much to do here. Try again in a moment."
            ) from None
        finally:
            self._waiting -= 1
        return turns


class Room:
    """Memory for answers that are made and not yet sent, bounded in bytes; it is given back when they are gone."""

    def __init__(self, most_bytes: int, wait_s: float) -> None:
        self._free = most_bytes
        self._wait_s = wait_s
        self._changed = threading.Condition()

    def read(self, nbytes: int, read: Callable[[], NDArray[Any]]) -> NDArray[Any]:
        """Read into so much memory, when it is there; TooBusyError if it does not come. For worker threads."""
        with self._changed:
            if not self._changed.wait_for(lambda: self._free >= nbytes, self._wait_s):
                raise TooBusyError("Too many large answers are on their way. Try again in a moment.")
            self._free -= nbytes
        try:
            array = read()
        except BaseException:
            self._give_back(nbytes)
            raise
        owner: Any = array  # it may be of bytes, which nobody can be told the end of
        while isinstance(owner.base, np.ndarray):
            owner = owner.base
        if isinstance(owner, np.memmap):  # no memory of ours, and it may stay for long
            self._give_back(nbytes)
        else:
            weakref.finalize(owner, self._give_back, nbytes)
        return array

    def _give_back(self, nbytes: int) -> None:
        with self._changed:
            self._free += nbytes
            self._changed.notify_all()


async def house_of(request: Request) -> House:
    """Give the house that a request is in."""
    house: House = request.state.house
    return house


async def _in_turn(request: Request) -> None:
    request.state.turn = await request.state.house.turn()


async def _in_heavy_turn(request: Request) -> None:
    request.state.turn = await request.state.house.turn(heavy=True)


InHouse = Annotated[House, Depends(house_of)]
LIGHT = Depends(_in_turn)
"""A dependency of routes that read a plane, or documents."""
HEAVY = Depends(_in_heavy_turn)
"""A dependency of routes that read whole volumes."""


class UnknownParameterError(GentlyError, ValueError):
    """A request with a parameter that its route does not have."""

    def __init__(self, message: str, known: Sequence[str]) -> None:
        super().__init__(message)
        self.more = {"available": list(known)}


class GentlyRoute(APIRoute):
    """A route whose errors are problems, whose answers have ETags, and which takes HEAD for GET without a body."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Give the handler of FastAPI, and what goes around it."""
        inner = super().get_route_handler()
        known = _parameters(self.dependant)

        async def handler(request: Request) -> Response:
            try:
                _hold_known(request, known)
                response = await inner(request)
            except Exception as error:
                house = getattr(request.state, "house", None)
                problem = problem_of(error, house and house.library.root)
                if problem is None:
                    log.exception("%s %s", request.method, request.url.path)
                    problem = UNFORESEEN
                response = problem.response()
            finally:
                if (turn := getattr(request.state, "turn", None)) is not None:
                    turn.release()
            return await _finished(request, response)

        return handler

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """Take HEAD for GET."""
        return super().matches(_as_get(scope))

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Take HEAD for GET; servers send no body for it."""
        await super().handle(_as_get(scope), receive, send)


def _parameters(dependant: Dependant) -> set[str]:
    """Give the names of the parameters of a route in its query, and of what it depends on."""
    names = {field.alias for field in dependant.query_params}
    return names.union(*map(_parameters, dependant.dependencies))


def _hold_known(request: Request, known: Collection[str]) -> None:
    """Hold that a route has all parameters that it is given: a slip in a name must not pass for an answer."""
    if unknown := sorted(set(request.query_params) - set(known)):
        raise UnknownParameterError(f"There is no parameter {unknown[0]!r:.100} here.", sorted(known))


def _as_get(scope: Scope) -> Scope:
    return {**scope, "method": "GET"} if scope.get("method") == "HEAD" else scope


# --- answers ------------------------------------------------------------------------------------------------


class Buffer(Response):
    """Memory as it is, not copied: sent piece by piece, so that one slow client holds one piece and no more."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 - as ASGI has it
        """Send it."""
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        body = memoryview(self.body)
        for first in range(0, len(body), PIECE):
            await send({"type": "http.response.body", "body": body[first : first + PIECE], "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})


def json_answer(value: Any, *, headers: Mapping[str, str] | None = None) -> Response:
    """Give a value as strict JSON; nan and what else JSON lacks as journals spell them."""
    return Response(encode(plain(value)), headers=headers, media_type="application/json")


def pixels_answer(request: Request, array: NDArray[Any], headers: Mapping[str, str]) -> Response:
    """Give an array as its bytes in C order, little-endian; its shape and dtype in headers."""
    array = little_endian(array)
    said = {"x-shape": ",".join(map(str, array.shape)), "x-dtype": array.dtype.str, **headers}
    return bytes_answer(request, array.reshape(-1).view(np.uint8), said)


def bytes_answer(request: Request, content: NDArray[np.uint8], headers: Mapping[str, str]) -> Response:
    """Give bytes, or the one range of them that is asked for."""
    headers = {"accept-ranges": "bytes", **headers}
    asked, size = request.headers.get("range"), len(content)
    if request.headers.get("if-range") not in {None, headers.get("etag")}:
        asked = None  # it has a part of something else
    status = HTTPStatus.OK
    if asked is not None and (found := _RANGE.fullmatch(asked)) and found.groups() != ("", ""):
        first, last = found.groups()
        begin = int(first) if first else max(size - int(last), 0)
        end = min(int(last) + 1, size) if first and last else size
        if begin >= end:
            headers |= {"content-range": f"bytes */{size}"}
            return Response(None, HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE, headers)
        status = HTTPStatus.PARTIAL_CONTENT
        headers |= {"content-range": f"bytes {begin}-{end - 1}/{size}"}
        content = content[begin:end]
    memory: Any = warm(content)
    return Buffer(memoryview(memory), status, headers, "application/octet-stream")


def little_endian(array: NDArray[Any]) -> NDArray[Any]:
    """Give an array in C order and little-endian: as it is where it is so already."""
    return np.ascontiguousarray(array, array.dtype.newbyteorder("<")).reshape(array.shape)


def warm(content: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Have the pages of mapped bytes in memory: what is sent later, on the event loop, waits for no disk."""
    np.add.reduce(content[::4096])
    return content


def etag_of(*parts: object) -> str:
    """Give the ETag of what is said by its identity: what it was made of, and how."""
    text = "\0".join(map(repr, (__version__, *parts)))
    return f'"{xxhash.xxh3_128_hexdigest(text.encode(errors="surrogatepass"))}"'


def is_known(request: Request, headers: Mapping[str, str]) -> bool:
    """Whether the client has already what has this ETag, as its If-None-Match says."""
    given = request.headers.get("if-none-match")
    if given is None or "etag" not in headers:
        return False
    known = {each.strip().removeprefix("W/") for each in given[:4096].split(",")}
    return "*" in known or headers["etag"].removeprefix("W/") in known


def unchanged(headers: Mapping[str, str]) -> Response:
    """Say that the client has it already."""
    return Response(status_code=HTTPStatus.NOT_MODIFIED, headers=headers)


async def _finished(request: Request, response: Response) -> Response:
    """Give small texts an ETag of their content, and compress them where the client takes it."""
    kind = response.headers.get("content-type", "").partition(";")[0]
    body = getattr(response, "body", b"")
    if kind not in _COMPRESSED or isinstance(body, memoryview):
        return response
    headers = response.headers
    headers.add_vary_header("Accept-Encoding")
    headers.setdefault("cache-control", UNTIL_CHANGED)
    if response.status_code == HTTPStatus.OK and request.method == "GET":
        headers.setdefault("etag", f'W/"{xxhash.xxh3_128_hexdigest(body)}"')
        if is_known(request, headers):
            kept = ("etag", "cache-control", "vary")
            return unchanged({name: headers[name] for name in kept if name in headers})
    if len(body) >= _WORTH_COMPRESSING and accepts_gzip(request):
        if len(body) < _WORTH_A_THREAD:
            body = gzip.compress(body, 1)
        else:
            body = await run_in_threadpool(gzip.compress, body, 1)
        response.body = body
        headers["content-encoding"], headers["content-length"] = "gzip", str(len(body))
    return response


def accepts_gzip(request: Request) -> bool:
    """Whether the client says that it takes gzip."""
    for each in request.headers.get("accept-encoding", "")[:1024].lower().split(","):
        name, _, rest = each.strip().partition(";")
        if name.strip() in {"gzip", "*"}:
            return rest.replace(" ", "") not in {"q=0", "q=0.0", "q=0.00", "q=0.000"}
    return False
