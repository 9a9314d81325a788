"""The few things of OME metadata that a volume needs: voxel size, channels, times, exposures.

Out of OME-XML, with the standard library, and out of the attributes of an OME-Zarr group, 0.4 and 0.5. What is not
said, or said in units that are none of length, is not there.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from xml.etree import ElementTree as ET

_UM: Mapping[str, float] = {
    "\u00b5m": 1.0, "\u03bcm": 1.0, "um": 1.0, "micron": 1.0, "micrometer": 1.0, "micrometre": 1.0,
    "nm": 1e-3, "nanometer": 1e-3, "mm": 1e3, "millimeter": 1e3, "m": 1e6, "meter": 1e6,
}  # fmt: skip
_S: Mapping[str, float] = {"s": 1.0, "ms": 1e-3, "\u00b5s": 1e-6, "min": 60.0, "h": 3600.0}


@dataclass(frozen=True, slots=True)
class OmeFacts:
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
    path, axes
        Of OME-Zarr: the array of full resolution in its group, and a letter an axis.
    """

    voxel_size_um: Mapping[str, float] = field(default_factory=dict)
    channels: Sequence[str] = ()
    acquired: str = ""
    planes: Mapping[tuple[int, int], Mapping[str, float]] = field(default_factory=dict)
    path: str = ""
    axes: str = ""


def facts_of_xml(text: str) -> OmeFacts:
    """Read OME-XML, of any schema; of its first image. What cannot be read says nothing."""
    try:
        root = ET.fromstring(text)
    except ET.ParseError:
        return OmeFacts()
    image, pixels = root.find("{*}Image"), root.find("{*}Image/{*}Pixels")
    if image is None or pixels is None:
        return OmeFacts()
    sizes = {axis: _number(pixels, f"PhysicalSize{axis}", _UM, "\u00b5m") for axis in "ZYX"}
    planes: dict[tuple[int, int], dict[str, float]] = {}
    for plane in sorted(pixels.iterfind("{*}Plane"), key=lambda plane: _place(plane)[2]):
        exposure_s, delta_s = (_number(plane, name, _S, "s") for name in ("ExposureTime", "DeltaT"))
        said = {"delta_s": delta_s, "exposure_ms": None if exposure_s is None else exposure_s * 1000}
        planes.setdefault(_place(plane)[:2], {key: value for key, value in said.items() if value is not None})
    return OmeFacts(
        {axis: size for axis, size in sizes.items() if size},
        [channel.get("Name", "") for channel in pixels.iterfind("{*}Channel")],
        (image.findtext("{*}AcquisitionDate") or "").strip(),
        planes,
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


def facts_of_zarr(attributes: Mapping[str, Any]) -> OmeFacts:
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
        return OmeFacts()
    try:
        scales = said["multiscales"][0]
        axes = [axis if isinstance(axis, dict) else {"name": axis} for axis in scales["axes"]]
        full = scales["datasets"][0]
        steps = [*full.get("coordinateTransformations", ()), *scales.get("coordinateTransformations", ())]
        factors = [step["scale"] for step in steps if step["type"] == "scale"]
        spacing = [math.prod(each) for each in zip(*factors, strict=True)] if factors else []
        return OmeFacts(
            voxel_size_um={
                axis["name"].upper(): round(size * _UM[axis["unit"]], 12)
                for axis, size in zip(axes, spacing, strict=bool(spacing))
                if axis["name"] in {"z", "y", "x"} and axis.get("unit") in _UM
            },
            channels=[str(each.get("label", "")) for each in said.get("omero", {}).get("channels", ())],
            path=str(full["path"]),
            axes="".join(axis["name"].upper() for axis in axes),
        )
    except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
        raise ValueError(f"its OME metadata lack or garble {error!s:.200}") from error
