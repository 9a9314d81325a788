"""Grey bytes into colours: maps by the names that cmap knows, and two pictures over each other."""

import re
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

GREY = "gray"


def coloured(grey: NDArray[np.uint8], cmap: str = GREY) -> NDArray[np.uint8]:
    """Give grey bytes (y, x) their colours, (y, x, 3); (y, x) as they are for "gray".

    Raises
    ------
    ValueError
        There is no such colour map.
    """
    return grey if cmap == GREY else np.take(table(cmap), grey, axis=0)


@lru_cache(64)
def table(cmap: str) -> NDArray[np.uint8]:
    """Give the colours of a map: (256, 3), read-only.

    Raises
    ------
    ValueError
        There is no such colour map.
    """
    from cmap import Colormap  # noqa: PLC0415 - 0.1 s

    try:
        found = Colormap(cmap) if re.fullmatch(r"[A-Za-z][\w:.-]{0,63}", cmap) else None
    except (ValueError, TypeError, KeyError):
        found = None
    if found is None:
        raise ValueError(
            f"There is no colour map {cmap[:80]!r}; gray, viridis, magma, inferno, green, magenta, cyan, and "
            "what else cmap lists, each also with '_r' behind it, are there."
        )
    lut = np.round(found.lut(256)[:, :3] * 255).astype(np.uint8)
    lut.flags.writeable = False
    return lut


def overlaid(*layers: tuple[NDArray[np.uint8], str]) -> NDArray[np.uint8]:
    """Add pictures of one shape in their colours: grey bytes (y, x) and a colour map each.

    Returns
    -------
    NDArray
        (y, x, 3): sums, at most 255.

    Raises
    ------
    ValueError
        The pictures differ in shape, or there is no such colour map.
    """
    if len(shapes := {grey.shape for grey, _ in layers}) != 1:
        raise ValueError(f"Pictures {sorted(shapes)} cannot be laid over each other; they need one shape.")
    colours = np.stack([table(cmap)[grey] for grey, cmap in layers])
    total: NDArray[np.uint8] = np.minimum(colours.sum(axis=0, dtype=np.uint16), 255).astype(np.uint8)
    return total
