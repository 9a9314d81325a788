"""Deskewing: volumes whose planes were taken along a line that is not their normal, sheared upright.

Where the stage, or the galvo of an oblique microscope, carries the sample through the sheet at an angle, each
plane sees it displaced along itself. Viewers stack planes along their normal; so each is shifted back.
"""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from gently_bluesky.derived.parents import ParentVolume
from gently_bluesky.derived.result import Pixels
from gently_bluesky.errors import DerivationError

if TYPE_CHECKING:
    import dask.array

_PLANES = 8  # a task: few enough that every core has some


def deskew(
    volume: Any,
    *,
    parent: ParentVolume,
    angle_deg: float | None = None,
    along: Literal["y", "x"] = "x",
    direction: Literal[1, -1] = 1,
    step_along: Literal["scan", "normal"] = "scan",
) -> Pixels:
    """Shear a volume by its scan angle, with linear interpolation; a function for `derive`.

    Parameters
    ----------
    volume
        (z, y, x), one plane a step of the scan; numpy's or dask's.
    parent
        Which volume it is; its documents give the spacing.
    angle_deg
        Between the direction of the scan and the planes: 45 for a diSPIM whose stage scans, 90 where galvo and
        piezo scan together and nothing is to be sheared. None: what the data key, the event or the start document
        say as `scan_angle_deg`.
    along
        The axis of the planes along which the sample is displaced.
    direction
        1 if each plane is to be shifted towards larger indices than the one before it, -1 if towards smaller ones.
    step_along
        What the documents' spacing of planes is: the way of the sample from plane to plane, or the distance of the
        planes along their normal.

    Returns
    -------
    Pixels
        (z, y, x), z along the normal of the planes, as many as there were, larger along `along`; lazy. Where no
        plane saw anything it is 0. Integers are rounded, and as they are weighed between neighbours none leaves
        the range of the dtype; planes that are shifted by whole pixels stay as they are. Integers of 64 bits are
        weighed as float64, to 53 bits.

    Raises
    ------
    ValueError
        It is no volume (z, y, x), or its documents do not say its spacing or its angle.

    Notes
    -----
    With s the way between two planes and a the angle, planes lie s sin(a) apart and are displaced by s
    cos(a) along themselves: Kumar et al. 2016, doi:10.1086/689589, figure 1, for the diSPIM whose stage scans;
    Lamb et al. 2023, doi:10.1364/BOE.479977, figure 2, for scans at any angle, a galvo's as well as a stage's.
    """
    spacing = parent.voxel_size_um
    if parent.dims != ("z", "y", "x") or spacing is None:
        raise ValueError(
            f"{parent!r} has axes {parent.dims} and spacing {spacing}; deskewing needs (z, y, x) and um."
        )
    angle = math.radians(_angle_deg(parent) if angle_deg is None else angle_deg)
    if not 0 < angle < math.pi or along not in {"y", "x"} or direction not in {1, -1}:
        raise ValueError(
            f"angle_deg {angle_deg}, along {along!r} and direction {direction} are no geometry of a scan."
        )
    way = spacing[0] if step_along == "scan" else spacing[0] / math.sin(angle)
    axis = parent.dims.index(along)
    shift_px = round(direction * way * math.cos(angle) / spacing[axis], 9)
    return Pixels(sheared(volume, shift_px, axis), parent.dims, (way * math.sin(angle), *spacing[1:]))


def _angle_deg(parent: ParentVolume) -> float:
    said = parent.described.get("scan_angle_deg", "scan_angle_deg")
    angle = parent.said(said) if isinstance(said, str) else said
    if not isinstance(angle, int | float):
        raise DerivationError(f"The documents of {parent!r} do not say its scan_angle_deg. Give angle_deg=...")
    return float(angle)


def sheared(volume: Any, shift_px: float, axis: int) -> "dask.array.Array":
    """Shift each plane against the one before it, with linear interpolation.

    Parameters
    ----------
    volume
        (z, y, x), numpy's or dask's.
    shift_px
        Pixels from plane to plane; negative: towards smaller indices.
    axis
        1: along y; 2: along x.

    Returns
    -------
    dask.array.Array
        (z, y, x), dtype of the volume; `axis` is longer by what the last plane is shifted.
    """
    import dask.array as da  # noqa: PLC0415 - 0.4 s

    if not isinstance(volume, da.Array):
        volume = da.from_array(volume, chunks=(_PLANES, -1, -1), name=False)  # type: ignore[no-untyped-call]
    volume = volume.rechunk({0: _PLANES, 1: -1, 2: -1})
    last = volume.shape[0] - 1
    shape = list(volume.shape)
    shape[axis] += math.ceil(abs(shift_px) * last)
    shifts = [shift_px * z if shift_px > 0 else -shift_px * (last - z) for z in range(last + 1)]
    array: dask.array.Array = da.map_blocks(  # type: ignore[no-untyped-call]
        _sheared_planes,
        volume,
        dtype=volume.dtype,
        meta=np.empty((0, 0, 0), volume.dtype),
        chunks=(volume.chunks[0], (shape[1],), (shape[2],)),
        shifts=shifts,
        axis=axis,
        length=shape[axis],
    )
    return array


def _sheared_planes(
    planes: NDArray[Any], *, shifts: Sequence[float], axis: int, length: int, block_info: Any = None
) -> NDArray[Any]:
    first = block_info[0]["array-location"][0][0]
    shape = list(planes.shape)
    shape[axis] = length
    out = np.zeros(shape, planes.dtype)
    weighed_in = np.result_type(planes.dtype, np.float32)  # float64 for integers of more than 16 bits
    along = zip(np.moveaxis(planes, axis, -1), np.moveaxis(out, axis, -1), strict=True)
    for shift, (plane, target) in zip(shifts[first:], along, strict=False):
        whole, part = divmod(shift, 1)
        at, width = int(whole), plane.shape[-1]
        if not part:
            target[:, at : at + width] = plane
            continue
        mixed = np.zeros(target.shape, weighed_in)
        mixed[:, at : at + width] = plane * weighed_in.type(1 - part)
        mixed[:, at + 1 : at + 1 + width] += plane * weighed_in.type(part)
        if planes.dtype.kind in "iu":
            _round(mixed, np.iinfo(planes.dtype).max)
        target[...] = mixed
    return out


def _round(mixed: NDArray[Any], largest: int) -> None:
    # the largest integer of 64 bits is no float64; the next float is out of range
    most = np.nextafter(mixed.dtype.type(largest + 1), mixed.dtype.type(0))
    np.minimum(np.rint(mixed, out=mixed), most, out=mixed)
