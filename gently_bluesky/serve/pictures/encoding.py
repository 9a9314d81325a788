"""Bytes of a picture: PNG and JPEG, by Pillow."""

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image

_MOST_SIDE = {"PNG": 1 << 31, "JPEG": 65_535}


def png(picture: NDArray[np.uint8]) -> bytes:
    """Give a picture (y, x) or (y, x, 3) as a PNG: every byte as it is."""
    return _encoded(picture, "PNG", compress_level=1)


def jpeg(picture: NDArray[np.uint8], quality: int = 85) -> bytes:
    """Give a picture (y, x) or (y, x, 3) as a JPEG.

    Raises
    ------
    ValueError
        A side is longer than 65 535 pixels, which JPEG does not have.
    """
    return _encoded(picture, "JPEG", quality=quality)


def _encoded(picture: NDArray[np.uint8], form: str, **options: int) -> bytes:
    if picture.dtype != np.uint8 or picture.ndim not in {2, 3} or 0 in picture.shape:
        raise ValueError(f"A picture is uint8, (y, x) or (y, x, 3), not {picture.dtype} {picture.shape}.")
    if max(picture.shape[:2]) > _MOST_SIDE[form]:
        raise ValueError(f"A picture {picture.shape} is too large for {form}; ask for a smaller size.")
    out = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(picture)).save(out, form, **options)
    return out.getvalue()
