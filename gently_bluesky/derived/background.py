"""Background: what a volume shows where there is nothing, measured and subtracted."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gently_bluesky.derived.parents import ParentVolume
from gently_bluesky.derived.result import Derived, Pixels


def subtract_background(
    volume: Any,
    *,
    parent: ParentVolume,
    constant: float | None = None,
    percentile: float | None = None,
    dark: Sequence[ParentVolume] = (),
) -> dict[str, Any]:
    """Subtract the background of one volume; a function for `derive`.

    Parameters
    ----------
    volume
        (z, y, x), numpy's or dask's.
    parent
        Which volume it is.
    constant
        Counts to subtract everywhere; or
    percentile
        of the pixels of each volume, 0 to 100: the lowest count that so many percent do not exceed; or
    dark
        a reference, ``references={"dark": ...}``: one volume of the same data key, as `mean_volume` makes it, (z,
        y, x) or (y, x).

    Returns
    -------
    dict
        Under the data key of the parent, the volume in its own dtype: nothing wraps around, what would be negative
        is 0. ``<data key>_clipped``: how many pixels were set to 0 like that. ``<data key>_background``: the
        counts that were subtracted, rounded to the dtype; their mean, for a dark reference.

    Raises
    ------
    ValueError
        Not one of the three is given, it is negative, or no number of the dtype; the reference does not fit.
    """
    if (constant is not None) + (percentile is not None) + bool(dark) != 1:
        raise ValueError("The background is a constant, a percentile or a dark reference: give one of them.")
    if dark:
        background = _dark(parent, dark)
    elif percentile is not None:
        background = np.percentile(np.asarray(volume), percentile, method="inverted_cdf")
    else:
        background = np.asarray(constant)
    exact = _as(background, volume.dtype, parent)
    key = parent.data_key
    return {
        key: Pixels(volume - np.minimum(volume, exact), parent.dims),
        f"{key}_clipped": int((volume < exact).sum()),
        f"{key}_background": float(exact.mean()),
    }


def _as(background: Any, dtype: np.dtype[Any], parent: ParentVolume) -> NDArray[Any]:
    """Give counts in the dtype of the volume from which they are subtracted."""
    counts = np.rint(background) if dtype.kind in "iu" else np.asarray(background)
    limit = np.iinfo(dtype).max if dtype.kind in "iu" else np.finfo(dtype).max
    if not (np.all(counts >= 0) and np.all(counts <= limit)):
        raise ValueError(
            f"A background of {counts.min()} to {counts.max()} cannot be subtracted from {dtype}, {parent!r}."
        )
    return counts.astype(dtype)


def _dark(parent: ParentVolume, dark: Sequence[ParentVolume]) -> NDArray[Any]:
    fitting = [volume for volume in dark if volume.data_key == parent.data_key]
    if len(fitting) != 1 or fitting[0].shape not in {parent.shape, parent.shape[-2:]}:
        shown = [(volume.data_key, volume.shape) for volume in dark]
        raise ValueError(
            f"{parent!r} is {parent.shape}, and needs one dark reference of its data key that fits it; there are "
            f"{shown}. mean_volume makes one of several."
        )
    return fitting[0].array()


def mean_volume(volumes: Sequence[ParentVolume]) -> Iterator[Derived]:
    """Mean of all volumes, one event; a generator function for `derive`.

    Parameters
    ----------
    volumes
        Those of one data key must agree in shape.

    Yields
    ------
    Derived
        For each data key the mean, (z, y, x), float32, summed in float64.

    Raises
    ------
    ValueError
        Shapes differ.
    """
    means: dict[str, Any] = {}
    for key in dict.fromkeys(volume.data_key for volume in volumes):
        of_key = [volume for volume in volumes if volume.data_key == key]
        total = np.zeros(of_key[0].shape)
        for volume in of_key:
            if volume.shape != of_key[0].shape:
                raise ValueError(
                    f"{volume!r} is {volume.shape}, {of_key[0]!r} {of_key[0].shape}: they have no mean."
                )
            total += volume.array()
        means[key] = Pixels((total / len(of_key)).astype(np.float32), of_key[0].dims)
    yield Derived(means, of=volumes)
