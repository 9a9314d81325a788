"""The text of a slice, "3,100,0:512,::2" or "...,5", and what it cuts out of a shape.

Integers, slices and one "...", as numpy's basic indexing has them, and nothing else: what cannot be understood is
a `SliceError`, what is not there an IndexError. Knows text and shapes; touches no pixel.
"""

import re
from collections.abc import Sequence
from types import EllipsisType

from gently_bluesky.errors import SliceError

Part = int | slice | EllipsisType

_NUMBER = r"[+-]?[0-9]{1,18}"
_INTEGER = re.compile(_NUMBER)
_RANGE = re.compile(rf"({_NUMBER})?:({_NUMBER})?(?::({_NUMBER})?)?")
_LONGEST = 400


def parsed(text: str) -> tuple[Part, ...]:
    """Give the parts of a slice.

    Raises
    ------
    SliceError
        It is no slice.

    Examples
    --------
    >>> parsed("3,100,0:512,::2")
    (3, 100, slice(0, 512, None), slice(None, None, 2))
    >>> parsed("...,-1")
    (Ellipsis, -1)
    """
    if len(text) > _LONGEST:
        raise SliceError(f"A slice of {len(text)} characters; {_LONGEST} are allowed.")
    parts = tuple(_part(part.strip(" ")) for part in text.split(","))
    if sum(part is Ellipsis for part in parts) > 1:
        raise SliceError(f"The slice {text!r:.80} has more than one '...'.")
    return parts


def _part(text: str) -> Part:
    if text == "...":
        return Ellipsis
    if _INTEGER.fullmatch(text):
        return int(text)
    if (found := _RANGE.fullmatch(text)) is None:
        raise SliceError(
            f"{text!r:.80} is no part of a slice. Between commas stand whole numbers, start:stop:step of which "
            "each may be left out, or one '...': 3,100,0:512,::2."
        )
    start, stop, step = (None if number is None else int(number) for number in found.groups())
    if step == 0:
        raise SliceError(f"The step of {text!r} is 0.")
    return slice(start, stop, step)


def expanded(parts: Sequence[Part], ndim: int) -> tuple[int | slice, ...]:
    """Give a part for each of so many axes.

    Raises
    ------
    IndexError
        There are more parts than axes.
    """
    given = [part for part in parts if not isinstance(part, EllipsisType)]
    if len(given) > ndim:
        raise IndexError(f"The slice has {len(given)} parts, and there are {ndim} axes.")
    dots = next((i for i, part in enumerate(parts) if part is Ellipsis), len(parts))
    return (*given[:dots], *[slice(None)] * (ndim - len(given)), *given[dots:])


def shape_of(parts: Sequence[int | slice], shape: Sequence[int], dims: Sequence[str] = ()) -> tuple[int, ...]:
    """Give the shape of what a slice cuts out; `parts` has one for each axis.

    Raises
    ------
    IndexError
        An integer lies outside; `dims`, names of the axes, says in the message which.

    Examples
    --------
    >>> shape_of((3, slice(None), slice(0, None, 2)), (4, 8, 15))
    (8, 8)
    """
    cut = []
    for axis, (part, size) in enumerate(zip(parts, shape, strict=True)):
        if isinstance(part, slice):
            cut.append(len(range(size)[part]))
        elif not -size <= part < size:
            name = dims[axis] if axis < len(dims) else f"axis {axis}"
            raise IndexError(f"There is no {name} {part}; there are {size}, counted from 0.")
    return tuple(cut)


def spanned(parts: Sequence[int | slice], shape: Sequence[int]) -> tuple[int, ...]:
    """Give how many positions of each axis lie from the first to the last that a slice names, both included."""
    spans = []
    for part, size in zip(parts, shape, strict=True):
        named = range(size)[part] if isinstance(part, slice) else range(1)
        spans.append(abs(named[-1] - named[0]) + 1 if named else 0)
    return tuple(spans)
