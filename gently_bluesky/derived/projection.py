"""Maximum projections."""

from typing import Any

from gently_bluesky.derived.parents import ParentVolume
from gently_bluesky.derived.result import Pixels
from gently_bluesky.read.origin import Axis


def maximum_projection(volume: Any, *, parent: ParentVolume, axis: Axis = "z") -> Pixels:
    """Maximum projection of one volume; a function for `derive`.

    Parameters
    ----------
    volume
        (z, y, x), numpy's or dask's.
    parent
        Which volume it is.
    axis
        The axis that vanishes.

    Returns
    -------
    Pixels
        (y, x) for "z", (z, x) for "y", (z, y) for "x"; dtype of the volume, spacing of the axes that are left.

    Raises
    ------
    ValueError
        The volume has no such axis.
    """
    if axis not in parent.dims:
        raise ValueError(f"{parent!r} has axes {parent.dims}; {axis!r} is none of them.")
    left = [dim for dim in parent.dims if dim != axis]
    return Pixels(volume.max(axis=parent.dims.index(axis)), dims=left)
