"""Smaller and smaller versions of a volume: which levels there are, and how a block becomes one of the next.

Means of 2 along each axis that is halved. An axis is halved while its voxels are less than twice as long as the
shortest: so voxels become cubes, and then larger cubes. Knows arrays; knows nothing of files.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

SMALLEST = 256
"""A level whose planes are no longer than this on either side is the last one."""

Factors = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class Level:
    """One level of a pyramid: (planes, y, x), and how many voxels of the first level one of its own spans."""

    shape: tuple[int, int, int]
    factors: Factors


def levels_of(shape: tuple[int, int, int], dtype: np.dtype[Any], voxel: Sequence[float] = ()) -> list[Level]:
    """Give the levels of a volume, the whole one first.

    Parameters
    ----------
    shape, dtype
        (planes, y, x), and of the pixels; of others than integers of up to 4 bytes and floats there is no mean.
    voxel
        Spacing along (z, y, x), or (y, x); all alike, if it is not known.
    """
    levels = [Level(shape, (1, 1, 1))]
    if dtype.kind not in "uif" or (dtype.kind in "ui" and dtype.itemsize > 4):
        return levels
    spacing = np.array([*[np.inf] * (3 - len(voxel)), *voxel] if len(voxel) in {2, 3} else [1.0, 1.0, 1.0])
    while max(levels[-1].shape[1:]) > SMALLEST:
        last = levels[-1]
        now = spacing * last.factors
        step = [2 if size > 1 and each < 2 * now.min() else 1 for size, each in zip(last.shape, now, strict=True)]
        if step[1:] == [1, 1]:  # planes become smaller, whatever their voxels are
            step[1:] = [2 if size > 1 else 1 for size in last.shape[1:]]
        levels.append(Level(halved_shape(last.shape, step), _times(last.factors, step)))
    return levels


def levels_by(shape: tuple[int, int, int], factors: Sequence[Factors]) -> list[Level]:
    """Give the levels that have these factors, the whole volume's first."""
    levels = [Level(shape, (1, 1, 1))]
    for each in factors[1:]:
        step = tuple(b // a for a, b in zip(levels[-1].factors, each, strict=True))
        levels.append(Level(halved_shape(levels[-1].shape, step), each))
    return levels


def step_between(one: Level, other: Level) -> Factors:
    """Give by how much each axis shrinks from one level to the next."""
    return cast(Factors, tuple(b // a for a, b in zip(one.factors, other.factors, strict=True)))


def halved_shape(shape: Sequence[int], step: Sequence[int]) -> tuple[int, int, int]:
    """Give the shape of a block after `halved`."""
    return cast(tuple[int, int, int], tuple(-(-size // by) for size, by in zip(shape, step, strict=True)))


def _times(factors: Factors, step: Sequence[int]) -> Factors:
    return cast(Factors, tuple(a * b for a, b in zip(factors, step, strict=True)))


def halved(block: NDArray[Any], step: Factors, out: NDArray[Any]) -> None:
    """Average a block (planes, y, x) into `out`, of `halved_shape`; integers are rounded.

    An odd last row or column counts twice. Plane by plane, in place: five times faster than a mean over a reshaped
    block.
    """
    by_z, by_y, by_x = step
    for plane, target in enumerate(out):
        members = [_even(member, step) for member in block[plane * by_z : (plane + 1) * by_z]]
        _mean([member[y::by_y, x::by_x] for member in members for y in range(by_y) for x in range(by_x)], target)


def _even(plane: NDArray[Any], step: Factors) -> NDArray[Any]:
    missing = [(0, -size % by) for size, by in zip(plane.shape, step[1:], strict=True)]
    return np.pad(plane, missing, mode="edge") if any(after for _, after in missing) else plane


def _mean(parts: Sequence[NDArray[Any]], out: NDArray[Any]) -> None:
    if len(parts) == 1:
        out[...] = parts[0]
        return
    with np.errstate(over="ignore", invalid="ignore"):  # what is infinite, or no number, stays so
        total = np.add(parts[0], parts[1], dtype=_wide(out.dtype))
        for part in parts[2:]:
            np.add(total, part, out=total)
        if out.dtype.kind == "f":
            np.divide(total, len(parts), out=out)
            return
    total += len(parts) // 2
    np.right_shift(total, len(parts).bit_length() - 1, out=total)
    out[...] = total


def _wide(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """Give a type in which eight numbers of another can be added."""
    if dtype.kind == "f":
        return np.promote_types(dtype, "f4")
    return np.dtype("i8" if dtype.itemsize == 4 else "i4" if dtype.kind == "i" else "u4")
