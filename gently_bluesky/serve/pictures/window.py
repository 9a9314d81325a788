"""`Window`: which counts are black and which are white.

What a window is asked by: "auto", two counts ("100,4000"), percentiles of the pixels ("1%,99.8%"), or one of each.
"""

import math
import re
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

AUTO = "1%,99.8%"

_BOUND = re.compile(r"\s*([+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)\s*(%?)\s*")


class Window(NamedTuple):
    """Counts that are shown black, and white; as text it can be asked for again.

    >>> str(Window(100.0, 4000.5))
    '100,4000.5'
    """

    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.low:.6g},{self.high:.6g}"


def window_of(pixels: NDArray[Any], asked: str | tuple[float, float] = "auto") -> Window:
    """Give the window that is asked for.

    Parameters
    ----------
    pixels
        Of any shape and real dtype: percentiles are theirs, linearly interpolated. Those that are not finite do
        not count.
    asked
        "auto", which is `AUTO`; text with low and high, each a count or a percentile; or two counts.

    Returns
    -------
    Window
        With `high` above `low`: of pixels that are all alike, one count wide.

    Raises
    ------
    ValueError
        What is asked for is no window.
    """
    low, high = _bounds(AUTO if asked == "auto" else asked)
    percents = [bound for bound, is_percent in (low, high) if is_percent]
    found = iter(_percentiles(pixels, percents) if percents else ())
    window = Window(*(next(found) if is_percent else bound for bound, is_percent in (low, high)))
    if window.high > window.low:
        return window
    if not percents:
        raise ValueError(f"A window from {window.low:g} to {window.high:g} shows nothing; give low, then high.")
    return Window(window.low, window.low + 1)


def _percentiles(pixels: NDArray[Any], percents: list[float]) -> list[float]:
    if pixels.dtype == bool:
        pixels = pixels.view(np.uint8)
    elif pixels.dtype.kind == "f":
        pixels = pixels[np.isfinite(pixels)]
    return [float(value) for value in np.percentile(pixels, percents)] if pixels.size else [0.0] * len(percents)


def _bounds(asked: str | tuple[float, float]) -> list[tuple[float, bool]]:
    bounds: list[tuple[float, bool]] = []
    if not isinstance(asked, str):
        bounds = [(float(bound), False) for bound in asked]
    else:
        for part in asked.split(","):
            if not (match := _BOUND.fullmatch(part)):
                break
            bounds.append((float(match[1]), bool(match[2])))
    good = all(math.isfinite(bound) and (not percent or 0 <= bound <= 100) for bound, percent in bounds)
    if len(bounds) != 2 or not good or (isinstance(asked, str) and asked.count(",") != 1):
        raise ValueError(
            f"{asked!r} is no window; write 'auto', counts like '100,4000', or percentiles like '{AUTO}'."
        )
    return bounds


def as_bytes(pixels: NDArray[Any], window: Window) -> NDArray[np.uint8]:
    """Give the pixels as 0 (at `low` and below, and where there is no number) to 255 (at `high` and above)."""
    small = pixels.dtype.itemsize <= 2 or pixels.dtype == np.float32
    shown: NDArray[np.floating] = pixels.astype(np.float32 if small else np.float64)
    np.subtract(shown, window.low, out=shown)
    np.multiply(shown, 255 / (window.high - window.low), out=shown)
    np.nan_to_num(shown, copy=False, nan=0, posinf=255, neginf=0)
    np.clip(shown, 0, 255, out=shown)
    rounded: NDArray[np.uint8] = np.add(shown, 0.5, out=shown).astype(np.uint8)
    return rounded
