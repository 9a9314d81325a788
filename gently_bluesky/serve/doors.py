"""Who may come in: a token, the Host and the Origin of a request, and how much one request may be.

`Doors` are in force for a whole application, WebSockets included, before any route is looked for. A router that is
mounted elsewhere has the doors of its house. Knows headers; knows nothing of data.
"""

import hashlib
import hmac
import ipaddress
import re
import socket
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from urllib.parse import parse_qsl, urlencode, urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import cookie_parser
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gently_bluesky.errors import ConfigError
from gently_bluesky.serve.problems import Problem

COOKIE = "gently_token"
_TOKEN = re.compile(r"[A-Za-z0-9._~+/=-]{16,200}")
_MONTH_S = 30 * 24 * 3600
_EXPOSED = "ETag, X-Shape, X-Dtype, X-Window, X-Next, X-More, X-Run, Retry-After"
_ALWAYS = {
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "x-frame-options": "SAMEORIGIN",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How much one request, and all together, may take.

    Attributes
    ----------
    answer_bytes
        Pixels of one answer, at most.
    decode_bytes
        What may have to be decoded in memory for one answer.
    body_bytes
        Of what a client sends.
    at_once, heavy_at_once
        Requests that are worked on at the same time, and of those that read whole volumes.
    waiting
        Requests that wait for their turn; more are refused at once.
    wait_s, send_s
        How long one waits for its turn; how long a client may take for a piece of its answer.
    room_bytes, cache_bytes
        Of all answers that are made and not yet sent; of those that are kept.
    """

    answer_bytes: int = 256 << 20
    decode_bytes: int = 512 << 20
    body_bytes: int = 256 << 10
    at_once: int = 16
    heavy_at_once: int = 2
    waiting: int = 256
    wait_s: float = 10.0
    send_s: float = 30.0
    room_bytes: int = 1 << 30
    cache_bytes: int = 64 << 20


@dataclass(frozen=True, slots=True)
class Doors:
    """Who may come in.

    Parameters
    ----------
    token
        What a client must show, in ``Authorization: Bearer`` or a cookie; None: nobody is asked.
    allowed_hosts
        Names in Host beside localhost and addresses; "*" for any. A name that leads here without our knowledge is
        how pages of others reach a server on this machine.
    allowed_origins
        Origins whose pages may read answers, "https://viewer.example.org"; those of this server always may.

    Raises
    ------
    ConfigError
        The token is too short to be one, or has characters that no header takes; an origin is none.
    """

    token: str | None = field(default=None, repr=False)
    allowed_hosts: frozenset[str] = frozenset()
    allowed_origins: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        if self.token is not None and not _TOKEN.fullmatch(self.token):
            raise ConfigError(
                "A token has 16 to 200 letters, digits and -._~+/=. "
                'python -c "import secrets; print(secrets.token_urlsafe(32))" gives one.'
            )
        for origin in self.allowed_origins:
            parts = urlsplit(origin)
            if (
                parts.scheme not in {"http", "https"}
                or not parts.netloc
                or origin != f"{parts.scheme}://{parts.netloc}"
            ):
                raise ConfigError(f"{origin!r} is no origin; one is https://viewer.example.org, without a path.")

    @property
    def cookie(self) -> str:
        """What the cookie holds: made from the token, and not the token."""
        return hmac.new((self.token or "").encode(), b"gently_bluesky cookie", hashlib.sha256).hexdigest()

    def refusal(self, scope: Scope) -> Problem | None:
        """Say why a request, or a WebSocket that wants to open, is refused; None if it may come in."""
        headers = Headers(scope=scope)
        if not self.is_known_host(headers.get("host", "")):
            return Problem(
                HTTPStatus.MISDIRECTED_REQUEST,
                "The Host of the request is none that this server answers to; --allow-host NAME adds one.",
            )
        origin = headers.get("origin")
        if origin is not None and not self.is_known_origin(origin, headers.get("host", "")):
            return Problem(
                HTTPStatus.FORBIDDEN,
                "Pages of other origins may not ask this server; --allow-origin ORIGIN adds one.",
            )
        if not self.has_token(headers):
            wrong = "The token that was shown is another. " if "authorization" in headers else ""
            return Problem(
                HTTPStatus.UNAUTHORIZED,
                f"{wrong}A token is needed: Authorization: Bearer TOKEN, or, in a browser, /?token=TOKEN once.",
            )
        return None

    def is_known_host(self, host: str) -> bool:
        """Whether a Host header names this server: by an address, as localhost, or by a name that is allowed."""
        name = _host_name(host)
        if name is None:
            return False
        return name == "localhost" or _is_address(name) or bool({"*", name} & self.allowed_hosts)

    def is_known_origin(self, origin: str, host: str) -> bool:
        """Whether a page of this origin may ask: its own, or one that is allowed."""
        parts = urlsplit(origin) if origin.startswith(("http://", "https://")) else None
        same = parts is not None and bool(host) and parts.netloc.lower() == host.lower()
        return same or origin in self.allowed_origins

    def has_token(self, headers: Headers) -> bool:
        """Whether the token is shown, if one is asked for; in constant time."""
        if self.token is None:
            return True
        kind, _, shown = headers.get("authorization", "").partition(" ")
        if kind.lower() == "bearer" and _same(shown.strip(), self.token):
            return True
        cookies = cookie_parser(headers.get("cookie", "")[:8192])
        return _same(cookies.get(COOKIE, ""), self.cookie)

    def __call__(self, app: ASGIApp, limits: Limits) -> ASGIApp:
        """Give an application behind these doors."""
        return _Behind(app, self, limits)


def _same(shown: str, wanted: str) -> bool:
    return hmac.compare_digest(shown.encode(errors="surrogateescape"), wanted.encode())


def _host_name(host: str) -> str | None:
    found = re.fullmatch(r"(\[[0-9a-fA-F:.]{2,45}\]|[A-Za-z0-9._-]{1,253})(?::[0-9]{1,5})?", host)
    return None if found is None else found[1].strip("[]").lower().rstrip(".")


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


class _Behind:
    """An application behind doors, as ASGI has it."""

    def __init__(self, app: ASGIApp, doors: Doors, limits: Limits) -> None:
        self.app = app
        self._doors = doors
        self._limits = limits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in {"http", "websocket"}:
            await self.app(scope, receive, send)
            return
        shown = _take_token(scope)
        if scope["type"] == "http":
            await self._answer(scope, receive, send, shown)
        elif (refusal := self._doors.refusal(scope)) is not None:
            await send({"type": "websocket.close", "code": 1008, "reason": refusal.title})
        else:
            await self.app(scope, receive, send)

    async def _answer(self, scope: Scope, receive: Receive, send: Send, shown: str | None) -> None:
        headers = Headers(scope=scope)
        origin = headers.get("origin", "")
        allowed = origin if origin in self._doors.allowed_origins else ""
        answer = _Answer(send, allowed)
        response = (
            _preflight() if allowed and _is_preflight(scope, headers) else self._log_in(scope, headers, shown)
        )
        if response is None and (refusal := self._doors.refusal(scope)) is not None:
            response = refusal.response()
        if response is not None:
            await response(scope, receive, answer)
        else:
            await self.app(scope, self._measured(headers, receive), answer)

    def _measured(self, headers: Headers, receive: Receive) -> Receive:
        """Give what receives a body, as far as it is not too long."""
        said, most, came = headers.get("content-length", ""), self._limits.body_bytes, 0
        length = int(said[:18]) if said.isdecimal() else 0

        async def measured() -> Message:
            nonlocal came
            message: Message = {} if length > most else await receive()
            came += len(message.get("body", b""))
            if max(length, came) > most:
                raise HTTPException(
                    HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
                    f"A request may have a body of {most:,} bytes, and no more.",
                )
            return message

        return measured

    def _log_in(self, scope: Scope, headers: Headers, shown: str | None) -> Response | None:
        """Let a browser that shows the token in its first URL go on with a cookie, and without it in the URL."""
        doors = self._doors
        if shown is None or doors.token is None or scope["method"] != "GET" or scope["path"].startswith("/api/"):
            return None
        if not doors.is_known_host(headers.get("host", "")) or not _same(shown, doors.token):
            return None
        query = scope["query_string"].decode("latin-1")
        response = Response(status_code=HTTPStatus.SEE_OTHER, headers={"cache-control": "no-store"})
        response.headers["location"] = _relative(scope) + (f"?{query}" if query else "")
        secure = scope.get("scheme") == "https"
        response.set_cookie(COOKIE, doors.cookie, _MONTH_S, httponly=True, samesite="strict", secure=secure)
        return response


def _relative(scope: Scope) -> str:
    """Give the path of a request as a browser that is there may be sent to: never to another server."""
    raw: bytes = scope.get("raw_path") or scope["path"].encode()
    return "/" + raw.partition(b"?")[0].decode("latin-1").lstrip("/\\")


def _take_token(scope: Scope) -> str | None:
    """Take a token out of the query, for good: what is logged later has none."""
    pairs = parse_qsl(scope.get("query_string", b"").decode("latin-1"), keep_blank_values=True)
    shown = [str(value) for name, value in pairs if name == "token"]
    if not shown:
        return None
    scope["query_string"] = urlencode([pair for pair in pairs if pair[0] != "token"]).encode()
    return shown[-1]


def _is_preflight(scope: Scope, headers: Headers) -> bool:
    return scope["method"] == "OPTIONS" and "access-control-request-method" in headers


def _preflight() -> Response:
    return Response(
        status_code=HTTPStatus.NO_CONTENT,
        headers={
            "access-control-allow-methods": "GET, HEAD, POST",
            "access-control-allow-headers": "Authorization, Content-Type, If-None-Match, Range",
            "access-control-max-age": "600",
        },
    )


class _Answer:
    """Sends an answer with the headers that every answer has."""

    def __init__(self, send: Send, origin: str) -> None:
        self._send = send
        self._more: Mapping[str, str] = _ALWAYS
        if origin:
            self._more = _ALWAYS | {
                "cross-origin-resource-policy": "cross-origin",
                "access-control-allow-origin": origin,
                "access-control-expose-headers": _EXPOSED,
                "vary": "Origin",
            }

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, value in self._more.items():
                if name == "vary":
                    headers.add_vary_header(value)
                else:
                    headers.setdefault(name, value)
        await self._send(message)


def names_of_host(host: str, more: Iterable[str] = ()) -> frozenset[str]:
    """Give the names that a server on this address answers to, beside localhost and addresses.

    They are those given and, where others reach it, this machine's own.
    """
    named: tuple[str, ...] = () if _is_address(host) else (host,)
    if not is_loopback(host):
        own = socket.gethostname()
        named = (*named, own, f"{own}.local", socket.getfqdn())
    return frozenset(name.lower().rstrip(".") for name in (*named, *more))


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches a server on this address."""
    return host == "localhost" or (_is_address(host) and ipaddress.ip_address(host).is_loopback)
