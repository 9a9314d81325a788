"""`Answer`: what a catalog found, newest first; one that is empty says why, and what there is instead.

Knows questions, which are names with values, and nothing of what is asked for.
"""

import contextlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, ClassVar, TypeVar

from gently_bluesky.read.words import listed

T = TypeVar("T")

_ASKED_IN_ORDER = ("session", "embryo", "position", "timepoint", "channel", "view")
_SHOWN = 10


class Answer(list[T]):
    """What was found, newest first: a list, which says why if it is empty.

    Attributes
    ----------
    why_none
        A sentence for people and agents; "" if there is something.
    available
        What the question could have been: for the first part of it that nothing fits, the values that there
        are among those that fit the parts before, e.g. ``{"embryo": ["e1", "e2"]}``. Empty otherwise.
    """

    _of: ClassVar[str] = "answers"

    def __init__(
        self,
        found: Iterable[T] = (),
        *,
        why_none: str = "",
        available: Mapping[str, Sequence[Any]] | None = None,
    ) -> None:
        super().__init__(found)
        self.why_none = why_none
        self.available = {key: list(values) for key, values in (available or {}).items()}

    def __repr__(self) -> str:
        if not self:
            return f"<no {self._of}: {self.why_none}>" if self.why_none else f"<no {self._of}>"
        lines = [repr(each) for each in self[:_SHOWN]]
        if len(self) > _SHOWN:
            lines.append(f"... {len(self) - _SHOWN} more")
        return "[" + ",\n ".join(lines) + "]"


def why_none(
    there: Sequence[T], what: Mapping[str, Any], values: Callable[[T, str], Sequence[Any]]
) -> tuple[str, dict[str, list[Any]]]:
    """Give the first part of a question that nothing fits, in words, and what there is instead.

    Parameters
    ----------
    there
        What was looked at.
    what
        The question: what each of its parts must be, in plain values, or a frozenset of them.
    values
        Gives what one of them says of a part: nothing, a value, or several.

    Returns
    -------
    tuple
        `why_none` and `available` of an Answer; "" and nothing if every part is fitted.
    """
    so_far = ""
    for key in sorted(what, key=_place):
        fitting = [each for each in there if any(is_asked(value, what[key]) for value in values(each, key))]
        if not fitting:
            others = _distinct(value for each in there for value in values(each, key))
            return f"{key} {said(what[key])} is not there{so_far}; available: {listed(others)}", {key: others}
        there = fitting
        so_far += f"{',' if so_far else ' for'} {key} {said(what[key])}"
    return "", {}


def is_asked(value: Any, wanted: Any) -> bool:
    """Whether a value is what is asked for, or one of a frozenset of values."""
    return any(value == each for each in wanted) if isinstance(wanted, frozenset) else bool(value == wanted)


def said(wanted: Any) -> str:
    """Give what is asked for, a value or a frozenset of them, as messages say it."""
    return listed(_distinct(wanted)) if isinstance(wanted, frozenset) else repr(wanted)


def _place(key: str) -> tuple[int, str]:
    return (_ASKED_IN_ORDER.index(key) if key in _ASKED_IN_ORDER else len(_ASKED_IN_ORDER), key)


def _distinct(values: Iterable[Any]) -> list[Any]:
    distinct = list({repr(value): value for value in values if value is not None}.values())
    with contextlib.suppress(TypeError):  # a position may be anything
        distinct.sort()
    return distinct
