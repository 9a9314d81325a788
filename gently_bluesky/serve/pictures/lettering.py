"""Words and scale bars in strips of their own, beside pixels and never over them."""

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

GROUND = (17, 17, 20)
TEXT_HEIGHT = 18
NARROWEST = 300  # a strip has room for a line of words and a scale bar

_WORDS, _FAINT, _BAR = (222, 222, 226), (150, 150, 158), (255, 255, 255)
_MARGIN = 6
_FONT_SIZE = 13


@lru_cache(1)
def _font() -> Any:
    return ImageFont.load_default(_FONT_SIZE)


def bar_um(um_per_pixel: float, most_pixels: float) -> float:
    """Give the length of a scale bar: 1, 2 or 5 of a power of ten, at most so many pixels.

    >>> bar_um(0.65, 200), bar_um(0.1, 99)
    (100.0, 5.0)
    """
    most = um_per_pixel * most_pixels
    power = 10.0 ** math.floor(math.log10(most))
    return next(float(f"{step * power:.1g}") for step in (5, 2, 1) if step * power <= most * (1 + 1e-9))


def canvas(width: int, height: int) -> Image.Image:
    """Give an empty picture."""
    return Image.new("RGB", (width, height), GROUND)


def put(picture: Image.Image, pixels: NDArray[np.uint8], left: int, top: int) -> None:
    """Put grey or coloured pixels into a picture."""
    picture.paste(Image.fromarray(np.ascontiguousarray(pixels)).convert("RGB"), (left, top))


def write(picture: Image.Image, text: str, left: int, top: int, *, faint: bool = False) -> None:
    """Write a line whose top is there, in a row `TEXT_HEIGHT` high."""
    ImageDraw.Draw(picture).text((left, top + 1), text, font=_font(), fill=_FAINT if faint else _WORDS)


def text_width(text: str) -> int:
    """Give how wide a line is, in pixels."""
    return math.ceil(float(_font().getlength(text)))


def cut(text: str, width: int) -> str:
    """Give a line that is no wider: its end gives way to dots."""
    if text_width(text) <= width:
        return text
    while text and text_width(text + "...") > width:
        text = text[:-1]
    return text + "..." if text else ""


def wrapped(text: str, width: int) -> list[str]:
    """Give lines that are no wider; a word that is too wide alone is cut."""
    lines: list[str] = []
    for word in text.split():
        if lines and text_width(f"{lines[-1]} {word}") <= width:
            lines[-1] += f" {word}"
        else:
            lines.append(cut(word, width))
    return lines


class Strip:
    """What stands beneath pixels: words on the left, a scale bar on the right.

    Parameters
    ----------
    width
        In pixels, at least `NARROWEST`.
    captions
        A paragraph each.
    um_per_pixel
        Of the pixels above; None draws no bar.
    """

    def __init__(self, width: int, captions: Sequence[str], um_per_pixel: float | None) -> None:
        self._width = width
        self._um_per_pixel = um_per_pixel
        self._bar = bar_um(um_per_pixel, width / 5) if um_per_pixel else 0.0
        self._label = f"{self._bar:g} um"
        self._bar_width = max(round(self._bar / um_per_pixel), text_width(self._label)) if um_per_pixel else 0
        room = width - 2 * _MARGIN - (self._bar_width + 3 * _MARGIN if um_per_pixel else 0)
        self._lines = [(line, i > 0) for i, caption in enumerate(captions) for line in wrapped(caption, room)]

    @property
    def height(self) -> int:
        """In pixels."""
        return 2 * _MARGIN + TEXT_HEIGHT * max(len(self._lines), 2 if self._um_per_pixel else 0)

    def draw(self, picture: Image.Image, top: int) -> None:
        """Draw it across a picture."""
        for number, (line, faint) in enumerate(self._lines):
            write(picture, line, _MARGIN, top + _MARGIN + number * TEXT_HEIGHT, faint=faint)
        if not self._um_per_pixel:
            return
        pixels = round(self._bar / self._um_per_pixel)
        left, above = self._width - _MARGIN - self._bar_width, top + _MARGIN + 4
        start = left + (self._bar_width - pixels) // 2
        ImageDraw.Draw(picture).rectangle((start, above, start + pixels - 1, above + 3), fill=_BAR)
        write(picture, self._label, left + (self._bar_width - text_width(self._label)) // 2, above + 6)
