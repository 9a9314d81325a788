"""The few things of metadata that a volume needs: voxel size, channels, times, exposures.

Out of OME-XML, with the standard library, out of the attributes of an OME-Zarr group, 0.4 and 0.5, and out of what
ImageJ writes. What is not said, or said in units that are none of length or time, is not there.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from xml.etree import ElementTree as ET

from gently_bluesky.exchange.own import HOME, Own, of_export, of_lines

_UM: Mapping[str, float] = {
    "\u00b5m": 1.0, "\u03bcm": 1.0, "um": 1.0, "micron": 1.0, "micrometer": 1.0, "micrometre": 1.0,
    "microns": 1.0, "cm": 1e4, "inch": 25_400.0,
    "nm": 1e-3, "nanometer": 1e-3, "mm": 1e3, "millimeter": 1e3, "m": 1e6, "meter": 1e6,
}  # fmt: skip
_S: Mapping[str, float] = {
    "s": 1.0, "ms": 1e-3, "\u00b5s": 1e-6, "min": 60.0, "h": 3600.0,
    "sec": 1.0, "second": 1.0, "seconds": 1.0, "millisecond": 1e-3, "minute": 60.0, "hour": 3600.0,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class FileFacts:
    """What a file says of its volumes.

    Attributes
    ----------
    voxel_size_um
        By axis, "Z", "Y", "X".
    channels
        Names, "" where there is none.
    acquired
        When, as it is spelled; "" if that is not said.
    planes
        By time and channel, from 0: ``delta_s`` after `acquired`, and ``exposure_ms``, of the first plane.
    interval_s
        From one time to the next; 0 if that is not said.
    own
        What a file of ours says.
    path, axes
        Of OME-Zarr: the array of full resolution in its group, and a letter an axis.
    """

    voxel_size_um: Mapping[str, float] = field(default_factory=dict)
    channels: Sequence[str] = ()
    acquired: str = ""
    planes: Mapping[tuple[int, int], Mapping[str, float]] = field(default_factory=dict)
    interval_s: float = 0.0
    own: Own = field(default_factory=Own)
    path: str = ""
    axes: str = ""


def facts_of_xml(text: str) -> FileFacts:
    """Read OME-XML, of any schema; of its first image. What cannot be read says nothing."""
    try:
        root = ET.fromstring(text)
    except ET.ParseError:
        return FileFacts()
    image, pixels = root.find("{*}Image"), root.find("{*}Image/{*}Pixels")
    if image is None or pixels is None:
        return FileFacts()
    sizes = {axis: _number(pixels, f"PhysicalSize{axis}", _UM, "\u00b5m") for axis in "ZYX"}
    planes: dict[tuple[int, int], dict[str, float]] = {}
    for plane in sorted(pixels.iterfind("{*}Plane"), key=lambda plane: _place(plane)[2]):
        exposure_s, delta_s = (_number(plane, name, _S, "s") for name in ("ExposureTime", "DeltaT"))
        said = {"delta_s": delta_s, "exposure_ms": None if exposure_s is None else exposure_s * 1000}
        planes.setdefault(_place(plane)[:2], {key: value for key, value in said.items() if value is not None})
    return FileFacts(
        {axis: size for axis, size in sizes.items() if size},
        [channel.get("Name", "") for channel in pixels.iterfind("{*}Channel")],
        (image.findtext("{*}AcquisitionDate") or "").strip(),
        planes,
        _number(pixels, "TimeIncrement", _S, "s") or 0.0,
    )


def _place(plane: ET.Element) -> tuple[int, int, int]:
    """Give time, channel and z; one that cannot be read is of no plane there is."""
    t, c, z = (plane.get(name, "0").strip() for name in ("TheT", "TheC", "TheZ"))
    return (int(t), int(c), int(z)) if t.isdecimal() and c.isdecimal() and z.isdecimal() else (-1, -1, -1)


def _number(element: ET.Element, name: str, units: Mapping[str, float], default: str) -> float | None:
    factor = units.get(element.get(f"{name}Unit", default))
    try:
        value = float(element.get(name, ""))
    except ValueError:
        return None
    return None if factor is None or not math.isfinite(value) else round(value * factor, 12)


def facts_of_imagej(said: Mapping[str, Any], pixels_per_unit: tuple[float, float] | None) -> FileFacts:
    """Read what ImageJ says: spacing along z and its unit, the interval; `pixels_per_unit` along (y, x)."""
    um = _UM.get(str(said.get("unit", "")).replace("\\u00B5", "\u00b5"))
    sizes = dict(zip("YX", (1 / each for each in pixels_per_unit or () if each > 0), strict=False))
    sizes |= {"Z": spacing} if (spacing := _above_0(said.get("spacing"))) else {}
    return FileFacts(
        {} if um is None else {axis: round(size * um, 12) for axis, size in sizes.items()},
        interval_s=_above_0(said.get("finterval")) * _S.get(str(said.get("tunit", "s")), 0.0),
        own=of_lines(str(said.get("Info", ""))),
    )


def _above_0(value: object) -> float:
    return float(value) if isinstance(value, int | float) and 0 < value < math.inf else 0.0


def facts_of_zarr(attributes: Mapping[str, Any]) -> FileFacts:
    """Read the attributes of a group; of its first multiscale image.

    Raises
    ------
    ValueError
        They say of OME-Zarr, and not what they should; or they are of a plate or of several images.
    """
    said = attributes.get("ome", attributes)
    if "multiscales" not in said:
        if {"plate", "well", "bioformats2raw.layout"} & said.keys():
            raise ValueError("it holds several images: give one of the groups in it, such as its '0'")
        return FileFacts()
    try:
        scales = said["multiscales"][0]
        axes = [axis if isinstance(axis, dict) else {"name": axis} for axis in scales["axes"]]
        full = scales["datasets"][0]
        steps = [*full.get("coordinateTransformations", ()), *scales.get("coordinateTransformations", ())]
        factors = [step["scale"] for step in steps if step["type"] == "scale"]
        spacing = [math.prod(each) for each in zip(*factors, strict=True)] if factors else []
        spaced = list(zip(axes, spacing, strict=bool(spacing)))  # none, if nothing is scaled
        interval_s = (size * _S.get(axis.get("unit", ""), 0.0) for axis, size in spaced if axis["name"] == "t")
        return FileFacts(
            voxel_size_um={
                axis["name"].upper(): round(size * _UM[axis["unit"]], 12)
                for axis, size in spaced
                if axis["name"] in {"z", "y", "x"} and axis.get("unit") in _UM
            },
            channels=[str(each.get("label", "")) for each in said.get("omero", {}).get("channels", ())],
            interval_s=_above_0(next(interval_s, 0.0)),
            own=of_export(attributes.get(HOME)),
            path=str(full["path"]),
            axes="".join(axis["name"].upper() for axis in axes),
        )
    except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
        raise ValueError(f"its OME metadata lack or garble {error!s:.200}") from error
