"""The pixels of selected volumes on their way out: all of them there, plane by plane, no value changed.

Before anything is written every volume is looked at: its file, its shape, whether its planes can be exported. A
cast is exact or an error; where the types do not say that it is, each plane is compared.
"""

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from gently_bluesky.errors import ExportError, LossyCastError, NothingSelectedError
from gently_bluesky.exchange.selection import Selected, Selection
from gently_bluesky.read.words import counted

log = logging.getLogger(__name__)

_SLAB = 8  # planes that are decoded together, where they are not mapped: a chunk of an OME-Zarr


@dataclass(frozen=True, slots=True)
class Outgoing:
    """One volume as it is exported.

    Attributes
    ----------
    volume
        Which.
    shape
        (z, y, x); a single frame has one plane.
    dtype
        That it is to have.
    """

    volume: Selected
    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    @property
    def nbytes(self) -> int:
        """How many bytes it will be."""
        return int(np.prod(self.shape)) * self.dtype.itemsize

    def planes(self) -> Iterator[NDArray[Any]]:
        """Give its planes (y, x), one after the other.

        Raises
        ------
        LossyCastError
            A plane holds a value that `dtype` cannot hold.
        """
        pixels = self.volume.pixels()
        stack = pixels if len(pixels.shape) == 3 else np.asarray(pixels)[np.newaxis]
        slabs = (stack[first : first + _SLAB] for first in range(0, self.shape[0], _SLAB))
        for z, plane in enumerate(plane for slab in slabs for plane in slab):
            yield cast(plane, self.dtype, f"{self.volume}, plane {z}")


def pixels_of(selection: Selection, dtype: DTypeLike | None = None) -> list[Outgoing]:
    """Look at every volume of a selection.

    Arrays that are no (y, x) or (z, y, x) are left out with a warning, unless their data key was asked for.

    Parameters
    ----------
    selection
        What is to be exported.
    dtype
        That all are to have; as they are, if not given.

    Raises
    ------
    NothingSelectedError
        There are no volumes.
    ExportError
        An array that was asked for has no planes.
    VolumeMissingError, DamagedVolumeError, UnfillableError, FrameMissingError, BadVolumeError
        A volume is not there, or not whole.
    """
    if not selection.volumes:
        raise NothingSelectedError(f"No volumes are selected: {selection.why_none}.")
    if bad := selection.bad:
        shown = "; ".join(map(str, bad[:3])) + ("; ..." if len(bad) > 3 else "")
        log.warning("%s marked as not good left out: %s", counted(len(bad), "volume"), shown)
    wanted = None if dtype is None else _dtype(dtype)
    found: list[Outgoing] = []
    odd: dict[str, str] = {}
    for volume in selection.volumes:
        pixels = volume.pixels()
        if pixels.ndim in {2, 3} and 0 not in pixels.shape:
            shape = (1, *pixels.shape)[-3:]
            found.append(Outgoing(volume, shape, (pixels.dtype if wanted is None else wanted).newbyteorder("=")))
        else:
            odd.setdefault(volume.shows.data_key, f"{volume} is {pixels.shape}")
    if odd and (not found or "data_key" in selection.asked):
        raise ExportError(f"Only arrays (y, x) and (z, y, x) have planes to export; {next(iter(odd.values()))}.")
    for key, what in odd.items():
        log.warning("data key %s is left out, it holds no planes: %s", key, what)
    return found


def _dtype(said: DTypeLike) -> np.dtype[Any]:
    try:
        dtype = np.dtype(said)
    except TypeError as error:
        raise ExportError(f"{said!r} is no dtype; write it like uint16 or float32.") from error
    if dtype.kind not in "biufc":
        raise ExportError(f"{said!r} is no dtype of pixels; write it like uint16 or float32.")
    return dtype


def cast(plane: NDArray[Any], dtype: np.dtype[Any], what: str) -> NDArray[Any]:
    """Give a plane in a dtype that holds every one of its values; `what` names it in errors."""
    if plane.dtype == dtype:
        return plane
    if plane.dtype.kind == "c" and dtype.kind != "c":
        raise LossyCastError(f"{what} holds complex numbers, which {dtype} cannot hold.")
    with np.errstate(invalid="ignore", over="ignore"):
        out = plane.astype(dtype)
        if _holds_all(dtype, plane.dtype):
            return out
        same = (out == plane) & (out.astype(plane.dtype) == plane)  # -1 and 65535 are the same in one way only
    if plane.dtype.kind in "fc" and dtype.kind in "fc":
        same |= np.isnan(out) & np.isnan(plane)
    if not same.all():
        value = plane[~same][0]
        raise LossyCastError(f"{what} holds {value}, which {dtype} cannot hold. Choose another dtype.")
    return out


def _holds_all(dtype: np.dtype[Any], values: np.dtype[Any]) -> bool:
    wide = values.kind in "iu" and values.itemsize == 8 and dtype.kind in "fc"  # numpy calls that safe
    return np.can_cast(values, dtype, "safe") and not wide
