"""`Connection`: questions to one server, and answers that are whole.

What only asks is asked again where the network or the server failed, a few times, later and later; what changes
something is sent once. An answer that was cut short, is no JSON, is of another run, or has not the shape and dtype
that were asked for is an error, never data; of one that is too long, no more is taken in than was to come.
"""

import math
import os
import time
import weakref
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import parse_qsl, quote, urlsplit

import numpy as np
from numpy.typing import NDArray

from gently_bluesky.errors import (
    GentlyError,
    MissingExtraError,
    ServerAnswerError,
    ServerGoneError,
    ServerVersionError,
)
from gently_bluesky.read.remote.problems import error_of
from gently_bluesky.store.strict_json import decode, encode

if TYPE_CHECKING:
    import httpx

T = TypeVar("T")
Geometry = tuple[tuple[int, ...], np.dtype[Any]]
"""Shape and dtype."""

API = 1
"""Of the server's routes; another number is another language."""

TOKEN = "GENTLY_TOKEN"

_JSON_BYTES = 512 << 20  # far more than any answer has
_PROBLEM_BYTES = 64 << 10  # of an answer that says what went wrong, in place of a few pixels
_ENCODED = {"", "identity", "gzip"}
_OF_THE_WIRE = {"content-encoding", "content-length", "transfer-encoding"}
_LATER = {429, 502, 503, 504}
_FIRST_WAIT_S, _LONGEST_WAIT_S = 0.25, 10.0
_MISUNDERSTOOD = (KeyError, TypeError, ValueError, AttributeError, IndexError, OverflowError, RecursionError)


def is_address(root: object) -> bool:
    """Whether a root is a server's address, not a folder."""
    return isinstance(root, str) and root.startswith(("http://", "https://"))


class Connection:
    """A server, as one client asks it; for many threads.

    Parameters
    ----------
    address
        ``http://host:8000``; with a path, where the routes are mounted under one. A token in its query, as for
        browsers, is taken for `token`.
    token
        Shown with each question; GENTLY_TOKEN of the environment, if not given.
    timeout_s
        How long the server may be silent.
    tries
        How often a question is asked, at most.
    transport, wait
        For tests: httpx's transport, and what waits so many seconds.

    Raises
    ------
    ServerGoneError
        Nobody answers there.
    ServerRefusesError
        It wants a token, or another one.
    ServerVersionError
        What is there is no server of gently_bluesky, or an older or newer one.
    """

    def __init__(
        self,
        address: str,
        *,
        token: str | None = None,
        timeout_s: float = 30.0,
        tries: int = 4,
        transport: "httpx.BaseTransport | None" = None,
        wait: Callable[[float], object] = time.sleep,
    ) -> None:
        parts = urlsplit(address)
        if not parts.hostname or parts.username is not None:
            raise ValueError("An address is http://host:8000, without a user; a token is given as token='...'.")
        self.where = f"{parts.scheme}://{parts.netloc}{parts.path.removesuffix('/api/v1').rstrip('/')}"
        self._api = f"{self.where}/api/v1"
        token = token or dict(parse_qsl(parts.query)).get("token") or os.environ.get(TOKEN)
        if token is not None and not token.isascii():
            raise ValueError("A token has letters, digits and -._~+/=, and this one has others: it is none.")
        self._tries = tries
        self._wait = wait
        self._timeout_s = timeout_s
        self._client = self._new_client(token, transport)
        self._close = weakref.finalize(self, self._client.close)
        self.ask("", self._hold_version)

    def _new_client(self, token: str | None, transport: "httpx.BaseTransport | None") -> "httpx.Client":
        try:
            import httpx  # noqa: PLC0415 - who reads folders needs none
        except ImportError as error:
            raise MissingExtraError(
                f"A catalog of another machine needs httpx: pip install 'gently_bluesky[remote]' ({error})"
            ) from error
        return httpx.Client(
            headers={"Accept-Encoding": "gzip"} | ({"Authorization": f"Bearer {token}"} if token else {}),
            timeout=httpx.Timeout(self._timeout_s, connect=min(5.0, self._timeout_s)),
            transport=transport,
        )

    def _hold_version(self, said: Any) -> None:
        api = said["api"]
        if type(api) is not int:
            raise TypeError(f"its api is {api!r}")
        if api != API:
            older = (
                "older than this client; bring it up to date there" if api < API else "newer; update this client"
            )
            raise ServerVersionError(
                f"{self.where} is gently_bluesky {said.get('version')} with API {api}, and this client knows API "
                f"{API}: it is {older}."
            )

    # --- questions ------------------------------------------------------------------------------------------

    def ask(self, path: str, understand: Callable[[Any], T], **asked: Any) -> T:
        """Ask, and give what is made of the JSON that comes.

        Raises
        ------
        ServerAnswerError
            It is no JSON, or nothing can be made of it.
        GentlyError, IndexError, TypeError, ValueError
            What went wrong there, as it went wrong there.
        """
        response = self._asked(path, asked)
        try:
            return understand(decode(response.content))
        except GentlyError:
            raise
        except _MISUNDERSTOOD as error:
            shown = response.text[:80]
            raise ServerAnswerError(
                f"{self.where} answered {path or 'who it is'} with what is not understood ({error!r:.120}): "
                f"{shown!r}. Is it a server of gently_bluesky?"
            ) from error

    def pixels(self, path: str, expected: Geometry | None = None, **asked: Any) -> NDArray[Any]:
        """Ask for pixels: an array in C order, little-endian, read-only.

        Parameters
        ----------
        path, asked
            The question.
        expected
            Shape and dtype of what is asked for; None if only the server knows.

        Raises
        ------
        ServerAnswerError
            It is of another run, or not of this shape and dtype; the bytes that came are not as many as shape and
            dtype say, or nothing says those.
        """
        response = self._asked(path, asked, None if expected is None else _nbytes(expected))
        content = response.content
        if "run" in asked and response.headers.get("x-run") != quote(asked["run"]):
            raise ServerAnswerError(
                f"{self.where} was asked {path} of run {asked['run']}, and answered of "
                f"{response.headers.get('x-run', 'none that it names')}. Nothing of it is taken."
            )
        try:
            shape = tuple(int(size) for size in response.headers["x-shape"].split(",") if size)
            dtype = np.dtype(response.headers["x-dtype"])
            if dtype.kind not in "biufc" or min(shape, default=0) < 0:
                raise ValueError(f"{shape} {dtype}")
        except _MISUNDERSTOOD as error:
            raise ServerAnswerError(
                f"{self.where} answered {path} without saying shape and dtype of the pixels ({error!r:.120})."
            ) from error
        if expected is not None and (shape, dtype) != (expected[0], expected[1].newbyteorder("<")):
            raise ServerAnswerError(
                f"{self.where} answered {path} with {shape} {dtype}; {expected[0]} {expected[1]} was asked for "
                f"({asked}). Nothing of it is taken."
            )
        if len(content) != _nbytes((shape, dtype)):
            raise ServerAnswerError(
                f"{self.where} answered {path} with {len(content)} bytes; {shape} {dtype} are "
                f"{_nbytes((shape, dtype))}. None of them is taken."
            )
        return np.frombuffer(content, dtype).reshape(shape)

    def tell(self, path: str, said: Mapping[str, Any]) -> None:
        """Send what changes something there: once, but for a server that says that it did nothing yet."""
        response = self._tried(
            self._client.build_request(
                "POST", f"{self._api}{path}", content=encode(said), headers={"Content-Type": "application/json"}
            ),
            path,
            _JSON_BYTES,
            changes=True,
        )
        self._hold_good(response, path)

    def _asked(self, path: str, asked: Mapping[str, Any], nbytes: int | None = None) -> "httpx.Response":
        params = {key: _spelled(value) for key, value in asked.items() if value is not None}
        most = _JSON_BYTES if nbytes is None else nbytes + _PROBLEM_BYTES
        response = self._tried(self._client.build_request("GET", f"{self._api}{path}", params=params), path, most)
        self._hold_good(response, path)
        return response

    def _sent(self, request: "httpx.Request", path: str, most: int) -> "httpx.Response":
        """Send once, and take in an answer that is as long as it may be."""
        import httpx  # noqa: PLC0415

        answer = self._client.send(request, stream=True)
        try:
            encoding = answer.headers.get("content-encoding", "")
            if encoding.lower() not in _ENCODED:
                raise ServerAnswerError(f"{self.where} answered {path} in {encoding[:40]!r}; gzip was asked for.")
            pieces: list[bytes] = []
            came = 0
            for piece in answer.iter_bytes():
                came += len(piece)
                if came > most:
                    raise ServerAnswerError(
                        f"{self.where} answered {path or 'who it is'} with more than {most:,} bytes, more "
                        "than can be meant. None of them is taken."
                    )
                pieces.append(piece)
        finally:
            answer.close()
        headers = [(key, value) for key, value in answer.headers.multi_items() if key not in _OF_THE_WIRE]
        return httpx.Response(answer.status_code, headers=headers, content=b"".join(pieces))

    def _tried(self, request: "httpx.Request", path: str, most: int, *, changes: bool = False) -> "httpx.Response":
        import httpx  # noqa: PLC0415 - there, as the client is

        wait_s = _FIRST_WAIT_S
        for left in reversed(range(self._tries)):
            later_s = wait_s
            try:
                response = self._sent(request, path, most)
            except httpx.HTTPError as error:
                if not left or (changes and not isinstance(error, httpx.ConnectError | httpx.ConnectTimeout)):
                    raise self._failed(error, path) from error
            else:
                if response.status_code not in (_LATER if not changes else {503}) or not left:
                    return response
                later_s = max(wait_s, _seconds(response.headers.get("retry-after", "")))
            self._wait(min(later_s, _LONGEST_WAIT_S))
            wait_s *= 2
        raise ServerGoneError(f"{self.where} was not asked: tries is {self._tries}.")

    def _failed(self, error: "httpx.HTTPError", path: str) -> Exception:
        import httpx  # noqa: PLC0415

        what = path or "who it is"
        if isinstance(error, httpx.ConnectError | httpx.ConnectTimeout):
            return ServerGoneError(
                f"Nobody answers at {self.where} ({error}). Is the server running there (gently-bluesky serve), "
                "and does it listen for other machines?"
            )
        if isinstance(error, httpx.TimeoutException):
            return ServerGoneError(
                f"{self.where} was silent for {self._timeout_s:g} s when it was asked for {what}."
            )
        if isinstance(error, httpx.RemoteProtocolError | httpx.DecodingError):
            return ServerAnswerError(f"{self.where} broke off its answer to {what}, or speaks no HTTP ({error}).")
        return ServerGoneError(f"{self.where} went while it was asked for {what} ({error!r}).")

    def _hold_good(self, response: "httpx.Response", path: str) -> None:
        if response.status_code == 200:  # a part of an answer, 206, was not asked for
            return
        if response.is_redirect:
            raise ServerAnswerError(f"{self.where} is now at {response.headers.get('location')!r}; ask there.")
        try:
            problem = decode(response.content)
        except ValueError:
            problem = None
        raise error_of(self.where, path or "/api/v1", response.status_code, problem, response.text)


def _nbytes(geometry: Geometry) -> int:
    return math.prod(geometry[0]) * geometry[1].itemsize


def _spelled(value: Any) -> Any:
    return value if isinstance(value, str | int | float) else encode(value).decode()


def _seconds(text: str) -> float:
    return float(text) if text.isascii() and text.isdigit() else 0.0
