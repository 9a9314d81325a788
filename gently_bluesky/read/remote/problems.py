"""What a server says went wrong, as the error that it was there.

Its problems (RFC 9457) name the error in their type; here that becomes the class of `errors` again, and its text.
"""

import re
from typing import Any

from gently_bluesky import errors
from gently_bluesky.errors import ServerAnswerError, ServerRefusesError, ServerVersionError

MEDIA_TYPE = "application/problem+json"

_URN = "urn:gently-bluesky:"
_WORDS = re.compile(r"(?<=[a-z])(?=[A-Z])")
_REFUSED = {401, 403, 421}
_SHOWN = 300


def _kind_of(name: str) -> str:
    return _WORDS.sub("-", name.removesuffix("Error")).lower()


_KINDS: dict[str, type[Exception]] = {
    _kind_of(kind.__name__): kind
    for kind in [*vars(errors).values(), IndexError, ValueError, TypeError]
    if isinstance(kind, type) and issubclass(kind, Exception)
}


def error_of(where: str, asked: str, status: int, problem: Any, text: str) -> Exception:
    """Give the error that an answer tells of.

    Parameters
    ----------
    where, asked
        The server's address, and the path that was asked for.
    status
        Of the answer.
    problem
        What its JSON holds; None if it has none.
    text
        Of the answer, for one that is no problem.
    """
    if not isinstance(problem, dict):
        if status == 404:
            return _older(where, asked)
        return ServerAnswerError(f"{where} answered {asked} with status {status}: {text[:_SHOWN]!r}")
    detail = str(problem.get("detail") or problem.get("title") or f"status {status}")
    kind = str(problem.get("type", "")).removeprefix(_URN)
    if status in _REFUSED:
        return ServerRefusesError(
            f"{where} refuses: {detail} From Python: Catalog({where!r}, token=...), or GENTLY_TOKEN in the "
            "environment."
        )
    if kind in _KINDS:
        error = _KINDS[kind](detail)
        if hasattr(error, "more"):
            error.more = {key: value for key, value in problem.items() if key not in _ALWAYS}
        return error
    if status == 404:
        return _older(where, asked)
    return ServerAnswerError(f"{where} answered {asked} with status {status}: {detail[:_SHOWN]}")


_ALWAYS = {"type", "title", "status", "detail"}


def _older(where: str, asked: str) -> ServerVersionError:
    return ServerVersionError(
        f"{where} does not know {asked}: there is no server of gently_bluesky, or one that is older than this "
        "client. Look at the address, or bring gently_bluesky up to date there."
    )
