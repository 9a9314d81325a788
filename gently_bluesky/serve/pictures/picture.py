"""`picture`: a plane made small, windowed and coloured, in that order, with the window that was applied."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gently_bluesky.serve.pictures.colour import GREY, coloured
from gently_bluesky.serve.pictures.scaling import area_mean
from gently_bluesky.serve.pictures.window import Window, as_bytes, window_of


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture of a plane.

    Attributes
    ----------
    pixels
        (y, x), or (y, x, 3) in colour; uint8.
    window
        The counts that are black, and white.
    """

    pixels: NDArray[np.uint8]
    window: Window


def picture(
    plane: NDArray[Any], *, size: int = 512, window: str | tuple[float, float] = "auto", cmap: str = GREY
) -> Picture:
    """Give a picture of a plane.

    Parameters
    ----------
    plane
        (y, x), real numbers.
    size
        Its longest side, in pixels; a smaller plane is not enlarged.
    window
        As `window_of` takes it; percentiles are those of the picture, in which single hot pixels are averaged.
    cmap
        A colour map of cmap.

    Raises
    ------
    ValueError
        There is no pixel, no such window or colour map.
    """
    if plane.ndim != 2 or plane.dtype.kind not in "buif":
        raise ValueError(
            f"A picture is made of a plane (y, x) of real numbers, not of {plane.dtype} {plane.shape}."
        )
    small = area_mean(plane, size)
    applied = window_of(small, window)
    return Picture(coloured(as_bytes(small, applied), cmap), applied)
