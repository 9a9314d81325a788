"""Several pictures in one: three views, contact sheets, pictures beside each other, all at one scale.

Pictures are given with what a pixel measures; none is drawn over, and the whole is never larger than asked.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gently_bluesky.serve.pictures.lettering import (
    NARROWEST,
    TEXT_HEIGHT,
    Strip,
    canvas,
    cut,
    put,
    text_width,
    write,
)
from gently_bluesky.serve.pictures.scaling import resampled

GAP = 6
SMALLEST = 320
"""The least longest side of a sheet."""


@dataclass(frozen=True, slots=True)
class Tile:
    """Pixels of a sheet.

    Attributes
    ----------
    pixels
        (y, x) or (y, x, 3), uint8; None, where there are none: an empty frame is drawn.
    label
        Written above.
    """

    pixels: NDArray[np.uint8] | None
    label: str


@dataclass(frozen=True, slots=True)
class Sheet:
    """A picture made of several.

    Attributes
    ----------
    pixels
        (y, x, 3), uint8.
    um_per_pixel
        Along both axes; None where the voxel size is not known.
    """

    pixels: NDArray[np.uint8]
    um_per_pixel: float | None


def tiled(
    tiles: Sequence[Tile],
    *,
    size: int = 800,
    pixel_um: tuple[float, float] | None,
    captions: Sequence[str] = (),
    shape: tuple[int, int] | None = None,
) -> Sheet:
    """Give pictures of one shape in rows, each under its label, as large as they can be; also a single one.

    Parameters
    ----------
    tiles
        Of one shape, or None for one that is missing.
    size
        Of the whole, its longest side, from `SMALLEST`. Small pictures are enlarged, without smoothing.
    pixel_um
        What a pixel measures along (y, x), in micrometer; None: not known, pixels are drawn square.
    captions
        Paragraphs beneath.
    shape
        (y, x) of the pictures, where all are missing.

    Raises
    ------
    ValueError
        There is no picture, they differ in shape, or they are too many for the size.
    """
    shapes = {tile.pixels.shape[:2] for tile in tiles if tile.pixels is not None} or {shape or (1, 1)}
    if not tiles or len(shapes) > 1:
        raise ValueError(f"A sheet needs pictures of one shape, not {sorted(shapes) if tiles else 'none'}.")
    (shape,) = shapes
    unit = pixel_um or (1.0, 1.0)
    tall, wide = (count * um for count, um in zip(shape, unit, strict=True))
    height = _checked(size) - _strip_height(size, captions, pixel_um)
    scale, columns = max(
        (
            min(
                ((size - (columns - 1) * GAP) // columns) / wide,
                ((height - (rows - 1) * GAP) // rows - TEXT_HEIGHT) / tall,
            ),
            columns,
        )
        for columns in range(1, len(tiles) + 1)
        for rows in [math.ceil(len(tiles) / columns)]
    )
    if scale * max(tall, wide) < 1 or scale <= 0:
        raise ValueError(
            f"{len(tiles)} pictures do not fit into {size} pixels; ask for fewer, or for a larger size."
        )
    rows = math.ceil(len(tiles) / columns)
    y, x = max(1, int(tall * scale)), max(1, int(wide * scale))
    across = max(columns * (x + GAP) - GAP, min(NARROWEST, size))
    strip = Strip(across, captions, pixel_um and 1 / scale)
    top = rows * (y + TEXT_HEIGHT + GAP) - GAP
    picture = canvas(across, min(top + strip.height, size))
    for number, tile in enumerate(tiles):
        row, column = divmod(number, columns)
        left, above = column * (x + GAP), row * (y + TEXT_HEIGHT + GAP)
        write(picture, cut(tile.label, x if columns > 1 else across), left + 2, above)
        put(picture, _drawn(tile.pixels, (y, x)), left, above + TEXT_HEIGHT)
    strip.draw(picture, top)
    return Sheet(np.asarray(picture), pixel_um and 1 / scale)


def three_views(
    xy: NDArray[np.uint8],
    zx: NDArray[np.uint8],
    zy: NDArray[np.uint8],
    *,
    size: int = 800,
    voxel_um: tuple[float, float, float] | None,
    captions: Sequence[str] = (),
) -> Sheet:
    """Give three views of a volume at one scale: (y, x), to the right of it (y, z), beneath it (z, x).

    Parameters
    ----------
    xy, zx, zy
        (y, x), (z, x) and (z, y), as `ImageSeries.project` gives them along "z", "y" and "x"; as bytes.
    size
        Of the whole, its longest side, from `SMALLEST`.
    voxel_um
        What a voxel measures along (z, y, x), in micrometer; None: not known, voxels are drawn as cubes.
    captions
        Paragraphs beneath.
    """
    z_um, y_um, x_um = (
        count * um for count, um in zip((len(zx), *xy.shape[:2]), voxel_um or (1.0, 1.0, 1.0), strict=True)
    )
    names = "y over x, projected along z", "y over z", "z over x"
    height = _checked(size) - _strip_height(size, captions, voxel_um) - 2 * TEXT_HEIGHT - GAP
    scale = min((size - GAP) / (x_um + z_um), height / (y_um + z_um))
    x, y, z = (max(1, int(extent * scale)) for extent in (x_um, y_um, z_um))
    beside = x + GAP
    beneath = TEXT_HEIGHT + y + GAP
    across = min(max(beside + max(z, text_width(names[1]) + 2), NARROWEST), size)
    strip = Strip(across, captions, voxel_um and 1 / scale)
    top = beneath + TEXT_HEIGHT + z
    picture = canvas(across, min(top + strip.height, size))
    for pixels, label, left, above in (
        (_drawn(xy, (y, x)), names[0], 0, 0),
        (_drawn(zy.swapaxes(0, 1), (y, z)), names[1], beside, 0),
        (_drawn(zx, (z, x)), names[2], 0, beneath),
    ):
        room = x if not left and not above else across - left
        write(picture, cut(label, room), left + 2, above)
        put(picture, pixels, left, above + TEXT_HEIGHT)
    strip.draw(picture, top)
    return Sheet(np.asarray(picture), voxel_um and 1 / scale)


def _checked(size: int) -> int:
    if size < SMALLEST:
        raise ValueError(f"A picture with words needs {SMALLEST} pixels or more, not {size}.")
    return size


def _strip_height(size: int, captions: Sequence[str], known: object) -> int:
    """Give the most that the strip can need: that of the narrowest picture."""
    return Strip(min(NARROWEST, size), captions, 1.0 if known else None).height


def _drawn(pixels: NDArray[np.uint8] | None, shape: tuple[int, int]) -> NDArray[np.uint8]:
    if pixels is None:
        frame = np.full(shape, 48, np.uint8)
        frame[1:-1, 1:-1] = 24
        return frame
    drawn: NDArray[np.uint8] = np.rint(resampled(pixels, shape)).astype(np.uint8)
    return drawn
