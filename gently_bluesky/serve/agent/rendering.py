"""Pictures for tools: of one volume, of several, with the counts that are in them said in words.

Reads what is shown and no more: a plane is one plane of one file.
"""

from collections.abc import Sequence
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from gently_bluesky.serve.agent.answering import Facts, NotThereError, Shown, statistics
from gently_bluesky.serve.agent.place import Place
from gently_bluesky.serve.pictures.colour import GREY, coloured
from gently_bluesky.serve.pictures.encoding import jpeg
from gently_bluesky.serve.pictures.layout import SMALLEST, Sheet, Tile, three_views, tiled
from gently_bluesky.serve.pictures.window import Window, as_bytes, window_of

Axis = Literal["z", "y", "x"]
Kind = Literal["three", "z", "y", "x"]

SIZE = 800
LARGEST = 1600
_QUALITY = 88
_AXES = "zyx"


def check_size(size: int) -> int:
    """Hold that a picture has a size that is given."""
    if not SMALLEST <= size <= LARGEST:
        raise ValueError(f"size is {size}; the longest side of a picture is {SMALLEST} to {LARGEST} pixels.")
    return size


def check_good(place: Place, include_bad: bool) -> Place:
    """Give a place of which bad volumes are read only where they are asked for."""
    if not include_bad:
        return place
    return Place(place.run, place.stream, place.images.including_bad, place.event)


def plane_of(place: Place, plane: int | None, axis: Axis = "z") -> tuple[NDArray[Any], str]:
    """Give one plane of a volume, the middle one if none is named, and which it is; single frames are planes.

    Raises
    ------
    NotThereError
        There is no such plane; the message says which there are.
    """
    shape = place.shape
    if len(shape) == 2:
        if plane not in {None, 0, -1}:
            raise NotThereError(f"{place.whereabouts()} is a single frame: there is no plane {plane}, only 0.")
        return place.images[place.event], "single frame"
    if len(shape) != 3:
        raise NotThereError(f"{place.whereabouts()} has axes {place.dims} {shape}; planes are shown of (z, y, x).")
    along = _AXES.index(axis)
    count = shape[along]
    number = count // 2 if plane is None else plane
    if not -count <= number < count:
        raise NotThereError(f"{place.whereabouts()} has no plane {plane} along {axis}; available: 0..{count - 1}.")
    index: list[Any] = [slice(None)] * 3
    index[along] = number % count
    return place.images[(place.event, *index)], f"{axis} plane {number % count} of 0..{count - 1}"


def cut_of(pixels: NDArray[Any], region: Sequence[int] | None) -> tuple[NDArray[Any], str]:
    """Give a region of a plane: first and last row, first and last column, the last ones not included.

    Raises
    ------
    NotThereError
        It is outside; the message says how large the plane is.
    """
    if region is None:
        return pixels, ""
    if len(region) != 4:
        raise ValueError(f"region is {list(region)}; it is four numbers: top, bottom, left, right.")
    top, bottom, left, right = region
    height, width = pixels.shape
    if not (0 <= top < bottom <= height and 0 <= left < right <= width):
        raise NotThereError(
            f"region {list(region)} is not inside; top, bottom within 0..{height}, left, right within 0..{width}."
        )
    return pixels[top:bottom, left:right], f", rows {top}..{bottom - 1}, columns {left}..{right - 1}"


def pixel_um(place: Place, axis: Axis = "z") -> tuple[float, float] | None:
    """Give what a pixel of a plane across an axis measures, (rows, columns) in micrometer; None if not known."""
    sizes = place.voxel_um
    if sizes is None or len(sizes) < 2:
        return None
    if len(sizes) == 2:
        return sizes[0], sizes[1]
    left = [size for name, size in zip(_AXES, sizes, strict=False) if name != axis]
    return left[0], left[1]


def projections_of(place: Place, axes: str = "zyx") -> dict[str, NDArray[Any]]:
    """Give maximum projections of a volume along axes; the whole of it is read."""
    if len(place.shape) == 2 and axes == "z":
        return {"z": place.images[place.event]}
    if len(place.shape) != 3:
        raise NotThereError(f"{place.whereabouts()} has axes {place.dims} {place.shape}; volumes are projected.")
    return {axis: place.images.project(place.event, axis=_axis(axis)) for axis in axes}


def _axis(name: str) -> Axis:
    return next(axis for axis in get_args(Axis) if axis == name)


def picture_of(
    place: Place,
    pixels: NDArray[Any],
    what: str,
    *,
    axis: Axis = "z",
    size: int = SIZE,
    window: str = "auto",
    cmap: str = GREY,
) -> Shown:
    """Show one plane or projection, with a scale bar and the counts in it."""
    shown = window_of(pixels, window)
    sheet = tiled(
        [Tile(coloured(as_bytes(pixels, shown), cmap), what)],
        size=check_size(size),
        pixel_um=pixel_um(place, axis),
        captions=captions_of(place, shown),
    )
    return shown_of(sheet, place.address() | {"shows": what}, pixels, shown)


def three_of(place: Place, *, size: int = SIZE, window: str = "auto", cmap: str = GREY) -> Shown:
    """Show three views of a volume: its maximum projections along z, y and x at one scale."""
    check_size(size)
    found = projections_of(place)
    shown = window_of(found["z"], window)
    views = {axis: coloured(as_bytes(pixels, shown), cmap) for axis, pixels in found.items()}
    sizes = place.voxel_um
    sheet = three_views(
        views["z"],
        views["y"],
        views["x"],
        size=size,
        voxel_um=None if sizes is None else (sizes[0], sizes[1], sizes[2]),
        captions=captions_of(place, shown),
    )
    facts = place.address() | {"shows": "maximum projections along z, y and x"}
    return shown_of(sheet, facts, found["z"], shown)


def captions_of(place: Place, window: Window) -> list[str]:
    """Give the words beneath a picture."""
    return [place.title(), f"{place.whereabouts()}; {counts_in(window)}{unscaled(place)}"]


def unscaled(place: Place) -> str:
    """Say why there is no scale bar, where there is none."""
    return "" if place.voxel_um else "; voxel size not recorded"


def counts_in(window: Window) -> str:
    """Say which counts are black and white."""
    return f"black {window.low:.4g}, white {window.high:.4g} counts"


def shown_of(sheet: Sheet, facts: Facts, pixels: NDArray[Any] | None, window: Window) -> Shown:
    """Give a picture with its facts: what it is of, the counts that are in it, how it is drawn."""
    height, width = sheet.pixels.shape[:2]
    counts = {} if pixels is None else {"counts": {**statistics(pixels), "shape": list(pixels.shape)}}
    scale = sheet.um_per_pixel
    drawn: Facts = {
        "picture": {
            "black_counts": float(f"{window.low:.6g}"),
            "white_counts": float(f"{window.high:.6g}"),
            "um_per_picture_pixel": "not known: voxel size not recorded"
            if scale is None
            else float(f"{scale:.4g}"),
            "size": [width, height],
        }
    }
    return Shown(facts | counts | drawn, jpeg(np.ascontiguousarray(sheet.pixels), _QUALITY))


def enlarged(
    unit: tuple[float, float] | None, shape: tuple[int, int], drawn: NDArray[Any]
) -> tuple[float, float] | None:
    """Give what a pixel of a picture that is smaller already measures."""
    return unit and (unit[0] * shape[0] / drawn.shape[0], unit[1] * shape[1] / drawn.shape[1])


def of_view(place: Place) -> list[str]:
    """Say in which view and channel it was taken, as far as that is known."""
    view, channel = place.data_key.get("view"), place.said("channel")
    return [*([f"view {view}"] if view else []), *([str(channel)] if channel else [])]
