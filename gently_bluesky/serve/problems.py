"""What goes wrong, as HTTP says it: a status, and ``application/problem+json`` (RFC 9457).

One place knows which error has which status. Messages name runs, streams and keys, never places on this machine.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from typing import Any

from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from gently_bluesky import errors
from gently_bluesky.store.strict_json import encode, plain

MEDIA_TYPE = "application/problem+json"

_STATUS: Sequence[tuple[type[Exception], HTTPStatus]] = (  # the first that fits
    (errors.AmbiguousRunError, HTTPStatus.CONFLICT),
    (errors.RunNotFoundError, HTTPStatus.NOT_FOUND),
    (errors.StreamNotFoundError, HTTPStatus.NOT_FOUND),
    (errors.NotHereError, HTTPStatus.NOT_FOUND),
    (errors.VolumeRemovedError, HTTPStatus.GONE),
    (errors.DamagedVolumeError, HTTPStatus.INTERNAL_SERVER_ERROR),
    (errors.VolumeMissingError, HTTPStatus.GONE),
    (errors.NotYetError, HTTPStatus.TOO_EARLY),
    (errors.FrameMissingError, HTTPStatus.CONFLICT),
    (errors.BadVolumeError, HTTPStatus.CONFLICT),
    (errors.TooLargeError, HTTPStatus.REQUEST_ENTITY_TOO_LARGE),
    (errors.TooBusyError, HTTPStatus.SERVICE_UNAVAILABLE),
    (errors.RootError, HTTPStatus.SERVICE_UNAVAILABLE),
    (errors.RunLockedError, HTTPStatus.SERVICE_UNAVAILABLE),
    (errors.DatumNotFoundError, HTTPStatus.NOT_FOUND),
    (errors.UnfillableError, HTTPStatus.NOT_IMPLEMENTED),
    (errors.JournalError, HTTPStatus.INTERNAL_SERVER_ERROR),
    (errors.GeometryError, HTTPStatus.UNPROCESSABLE_ENTITY),
    (errors.SliceError, HTTPStatus.UNPROCESSABLE_ENTITY),
    (IndexError, HTTPStatus.NOT_FOUND),
    (ValueError, HTTPStatus.UNPROCESSABLE_ENTITY),
    (TypeError, HTTPStatus.UNPROCESSABLE_ENTITY),
    (OSError, HTTPStatus.SERVICE_UNAVAILABLE),
)
_WORDS = re.compile(r"(?<=[a-z])(?=[A-Z])")
_PLACE = re.compile(
    r"(?:file:/{2,3}(?:localhost)?)?(?<![\w.])(?:[A-Za-z]:)?[\\/](?:[^\s'\",:;()\\/]+[\\/])*(?=\w)"
)


@dataclass(frozen=True, slots=True)
class Problem:
    """One, as it is answered.

    Attributes
    ----------
    status, detail
        What HTTP calls it, and a sentence: what was asked, what there is, what to do.
    kind
        The last part of its type, by which programs tell problems apart.
    more
        Further members: `available`, `limit`, `removed`.
    headers
        Of the answer.
    """

    status: HTTPStatus
    detail: str
    kind: str = ""
    more: Mapping[str, Any] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def title(self) -> str:
        """What HTTP calls it."""
        return self.status.phrase

    def response(self) -> Response:
        """Give it as an answer."""
        kind = self.kind or self.title.lower().replace(" ", "-")
        said = {"type": f"urn:gently-bluesky:{kind}", "title": self.title, "status": int(self.status)}
        body = encode(plain({**said, "detail": self.detail, **self.more}))
        headers = {"cache-control": "no-store", **self.headers}
        if self.status == HTTPStatus.UNAUTHORIZED:
            headers["www-authenticate"] = 'Bearer realm="gently_bluesky"'
        if self.status in {HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.TOO_EARLY}:
            headers.setdefault("retry-after", "1")
        return Response(body, self.status, headers, MEDIA_TYPE)


def problem_of(error: Exception, root: Path | None = None) -> Problem | None:
    """Give the problem that an error of a root is; None for one that nobody foresaw."""
    if isinstance(error, RequestValidationError):
        return _misunderstood(error)
    if isinstance(error, HTTPException):
        return Problem(HTTPStatus(error.status_code), str(error.detail), headers=dict(error.headers or {}))
    for kind, status in _STATUS:
        if isinstance(error, kind):
            more = dict(getattr(error, "more", {}))
            return Problem(status, without_places(str(error), root), kind_of(error), more)
    return None


def kind_of(error: Exception) -> str:
    """Give the name of an error as a type has it: "run-not-found"."""
    return _WORDS.sub("-", type(error).__name__.removesuffix("Error")).lower()


def without_places(text: str, root: Path | None = None) -> str:
    """Give a message in which no file has its folder: that is nobody's business at the other end.

    >>> without_places("No run in /data has it; '/a/b c/1.ome.tif' and /d/e/2.npy went.", Path("/a/b c"))
    "No run in data has it; 'b c/1.ome.tif' and 2.npy went."
    """
    if root is not None and root.name:
        text = text.replace(str(root), root.name)
    return _PLACE.sub("", text)


def _misunderstood(error: RequestValidationError) -> Problem:
    said = [
        {"in": ".".join(map(str, each["loc"])), "problem": str(each["msg"])[:200]} for each in error.errors()[:10]
    ]
    detail = "; ".join(f"{each['in']}: {each['problem']}" for each in said)
    return Problem(HTTPStatus.UNPROCESSABLE_ENTITY, detail, "not-understood", {"errors": said})


UNFORESEEN = Problem(
    HTTPStatus.INTERNAL_SERVER_ERROR, "Something went wrong here that nobody foresaw; the server's log has it."
)
