"""Pixels in the form that a client asks for: raw, NPY, TIFF, or a picture. Knows arrays and bytes, no HTTP."""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from gently_bluesky.errors import GeometryError

Format = Literal["raw", "npy", "tiff", "png", "jpeg"]

MEDIA_TYPES: Mapping[str, str] = {
    "raw": "application/octet-stream",
    "npy": "application/x-npy",
    "tiff": "image/tiff",
    "png": "image/png",
    "jpeg": "image/jpeg",
}
PICTURES = {"png", "jpeg"}


@dataclass(frozen=True, slots=True)
class Shown:
    """How a picture is made: its longest side in pixels, which counts are black and white, its colours."""

    window: str = "auto"
    cmap: str = "gray"
    size: int = 512


def encoded(array: NDArray[Any], form: Format, shown: Shown) -> tuple[bytes, dict[str, str]]:
    """Give an array as a file, and what is to be said of it in headers.

    Raises
    ------
    GeometryError
        A picture is asked for of what is no plane.
    ValueError
        There is no such window or colour map.
    """
    if form == "npy":
        out = io.BytesIO()
        np.save(out, array, allow_pickle=False)
        return out.getvalue(), {}
    if form == "tiff":
        return _tiff(array), {}
    return picture_of(array, form, shown)


def picture_of(plane: NDArray[Any], form: Format, shown: Shown) -> tuple[bytes, dict[str, str]]:
    """Give a plane as a picture, and the window that was applied."""
    from gently_bluesky.serve.pictures.encoding import jpeg, png  # noqa: PLC0415 - Pillow is not needed for pixels
    from gently_bluesky.serve.pictures.picture import picture  # noqa: PLC0415

    if plane.ndim != 2 or 0 in plane.shape:
        raise GeometryError(
            f"A picture shows one plane; the slice gives {'x'.join(map(str, plane.shape)) or 'one number'}. "
            "Give integers for all axes but two, or another format."
        )
    made = picture(plane, size=shown.size, window=shown.window, cmap=shown.cmap)
    height, width = made.pixels.shape[:2]
    content = png(made.pixels) if form == "png" else jpeg(made.pixels)
    return content, {"x-window": str(made.window), "x-shape": f"{height},{width}"}


def three_of(
    projections: Sequence[NDArray[Any]], voxel_um: Sequence[float] | None, form: Format, shown: Shown
) -> tuple[bytes, dict[str, str]]:
    """Give the projections along z, y and x of a volume as one picture, in one window, and what was applied.

    Raises
    ------
    GeometryError
        Another form than that of a picture is asked for.
    ValueError
        There is no such window or colour map, or the size is too small for words.
    """
    from gently_bluesky.serve.pictures.colour import coloured  # noqa: PLC0415 - Pillow is not needed for pixels
    from gently_bluesky.serve.pictures.encoding import jpeg, png  # noqa: PLC0415
    from gently_bluesky.serve.pictures.layout import three_views  # noqa: PLC0415
    from gently_bluesky.serve.pictures.window import as_bytes, window_of  # noqa: PLC0415

    if form not in PICTURES:
        raise GeometryError(
            "Three views are a picture: format=png or format=jpeg. Pixels come axis by axis: axis=y."
        )
    window = window_of(projections[0], shown.window)
    xy, zx, zy = (coloured(as_bytes(each, window), shown.cmap) for each in projections)
    known = None if voxel_um is None or len(voxel_um) != 3 else (voxel_um[0], voxel_um[1], voxel_um[2])
    sheet = three_views(xy, zx, zy, size=shown.size, voxel_um=known)
    height, width = sheet.pixels.shape[:2]
    content = png(sheet.pixels) if form == "png" else jpeg(sheet.pixels)
    return content, {"x-window": str(window), "x-shape": f"{height},{width}"}


def _tiff(array: NDArray[Any]) -> bytes:
    import tifffile  # noqa: PLC0415 - 0.1 s

    if array.size == 0 or array.dtype.kind not in "buif" or array.dtype.itemsize > 8:
        raise GeometryError(f"A TIFF holds no {array.dtype} {array.shape}; format=npy does.")
    if array.ndim > 4:
        raise GeometryError(f"A TIFF has axes for T, Z, Y and X; this has {array.ndim}. format=npy has all.")
    out = io.BytesIO()
    axes = "TZYX"[-array.ndim :] if 1 < array.ndim <= 4 else None
    pixels = array.view(np.uint8) if array.dtype == bool else array
    tifffile.imwrite(
        out, np.atleast_2d(pixels), photometric="minisblack", metadata={"axes": axes} if axes else None
    )
    return out.getvalue()
