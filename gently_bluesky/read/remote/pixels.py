"""`RemotePixels`: one volume of another machine, of which what it is indexed with is asked for, and no more.

An array as far as readers need one. What is large comes in several answers, put together in place. Knows shapes
and slices; where a volume is stored there, nobody here knows.
"""

import math
import operator
from collections.abc import Callable, Mapping, Sequence
from types import EllipsisType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gently_bluesky.errors import ServerAnswerError
from gently_bluesky.read.origin import Axis
from gently_bluesky.read.remote.connection import Connection, Geometry

ANSWER_BYTES = 64 << 20
"""Of one answer, at most, where pixels can be asked for in parts: a server gives no more than it likes at once."""

Part = int | slice


class RemotePixels:
    """A volume of another machine.

    Parameters
    ----------
    connection, asked
        Where its pixels are asked for, and which.
    geometry
        Gives its shape and dtype; asked for only where that must be known.
    about
        Its shape and dtype as far as documents promise them, to know what is to come without asking.
    """

    def __init__(
        self,
        connection: Connection,
        asked: Mapping[str, Any],
        geometry: Callable[[], Geometry],
        about: Geometry | None = None,
    ) -> None:
        self._connection = connection
        self._asked = dict(asked)
        self._geometry = geometry
        self._about = about

    @property
    def shape(self) -> tuple[int, ...]:
        """(z, y, x), or whatever it has."""
        return self._geometry()[0]

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the pixels."""
        return self._geometry()[1]

    @property
    def ndim(self) -> int:
        """How many axes there are."""
        return len(self.shape)

    def __len__(self) -> int:
        return self.shape[0]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        return np.asarray(self[...], dtype)

    def __getitem__(self, index: Any) -> NDArray[Any]:
        """Give a part, in memory, little-endian; numpy's basic indexing with integers, slices and "..."."""
        parts = tuple(map(_plain, index if isinstance(index, tuple) else (index,)))
        return self._as_promised(lambda geometry: self._cut(parts, geometry))

    def maximum(self, axis: Axis) -> NDArray[Any]:
        """Give the maximum along an axis, which is computed there."""

        def ask(geometry: Geometry) -> NDArray[Any]:
            shape = tuple(size for name, size in zip("zyx", geometry[0], strict=False) if name != axis)
            return self._connection.pixels("/questions/projection", (shape, geometry[1]), axis=axis, **self._asked)

        return self._as_promised(ask)

    def _as_promised(self, ask: Callable[[Geometry], NDArray[Any]]) -> NDArray[Any]:
        """Ask for what documents promise; where that is not what comes, for what is stored."""
        if self._about is not None:
            try:
                return ask(self._about)
            except (IndexError, ServerAnswerError):
                if self._geometry() == self._about:
                    raise
        return ask(self._geometry())

    def _cut(self, parts: Sequence[int | slice | EllipsisType], geometry: Geometry) -> NDArray[Any]:
        shape, dtype = _shape_of(parts, *geometry), geometry[1].newbyteorder("<")
        if math.prod(shape) * dtype.itemsize <= ANSWER_BYTES:
            return self._asked_for(parts, (shape, dtype))
        out = np.empty(shape, dtype)
        self._fill(out, _expanded(parts, self._geometry()[0]))
        return out

    def _fill(self, out: NDArray[Any], parts: Sequence[Part]) -> None:
        axis = next((i for i, part in enumerate(parts) if isinstance(part, slice) and _size(part) > 1), None)
        if out.nbytes <= ANSWER_BYTES or axis is None:
            out[...] = self._asked_for(parts, (out.shape, out.dtype))
            return
        along = sum(isinstance(part, slice) for part in parts[:axis])
        middle = out.shape[along] // 2
        first, second = np.split(out, [middle], along)
        for half, piece in zip((first, second), _halves(parts[axis], middle), strict=True):
            self._fill(half, [*parts[:axis], piece, *parts[axis + 1 :]])

    def _asked_for(self, parts: Sequence[int | slice | EllipsisType], expected: Geometry) -> NDArray[Any]:
        return self._connection.pixels("/questions/pixels", expected, slice=_text(parts), **self._asked)


def _plain(part: Any) -> int | slice | EllipsisType:
    if isinstance(part, slice) or part is Ellipsis:
        return part
    return operator.index(part)


def _text(parts: Sequence[int | slice | EllipsisType]) -> str:
    """Give a slice as text.

    >>> _text((3, slice(None, 512), slice(None, None, -2), Ellipsis))
    '3,:512,::-2,...'
    """
    return ",".join(map(_part_text, parts)) or "..."


def _part_text(part: int | slice | EllipsisType) -> str:
    if not isinstance(part, slice):
        return "..." if part is Ellipsis else str(part)
    start, stop, step = (
        "" if number is None else str(operator.index(number)) for number in (part.start, part.stop, part.step)
    )
    return f"{start}:{stop}:{step}" if step else f"{start}:{stop}"


def _shape_of(parts: Any, shape: tuple[int, ...], dtype: np.dtype[Any]) -> tuple[int, ...]:
    """Give the shape of what a slice cuts out; IndexError as arrays raise it."""
    cut: NDArray[Any] = np.broadcast_to(np.empty((), dtype), shape)[tuple(parts)]
    return cut.shape


def _expanded(parts: Sequence[int | slice | EllipsisType], shape: Sequence[int]) -> list[Part]:
    """Give a part for each axis, each slice with its ends where they are."""
    dots = next((i for i, part in enumerate(parts) if part is Ellipsis), len(parts))
    given = [part for part in parts if not isinstance(part, EllipsisType)]
    full = [*given[:dots], *[slice(None)] * (len(shape) - len(given)), *given[dots:]]
    return [
        _spelled(range(size)[part]) if isinstance(part, slice) else part
        for part, size in zip(full, shape, strict=True)
    ]


def _spelled(positions: range) -> slice:
    stop = positions.stop if positions.stop >= 0 else None  # backwards, to the first one
    return slice(positions.start, stop, positions.step) if len(positions) else slice(0, 0, 1)


def _positions(part: slice) -> range:
    stop = -1 if part.stop is None else part.stop
    return range(part.start, stop, part.step)


def _size(part: slice) -> int:
    return len(_positions(part))


def _halves(part: Part, middle: int) -> tuple[slice, slice]:
    if isinstance(part, int):
        raise TypeError("an integer has no halves")
    positions = _positions(part)
    return _spelled(positions[:middle]), _spelled(positions[middle:])
