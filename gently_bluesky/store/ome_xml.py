"""OME-XML of one volume, as UTF-8: schema 2016-06, one Image, one Plane element a plane.

Knows the schema; knows nothing of files. What cannot stand in XML 1.0 is replaced by U+FFFD.
"""

import datetime
import math
import re
import uuid
from collections.abc import Iterator, Mapping
from xml.etree import ElementTree as ET

import numpy as np
import xxhash

from gently_bluesky.protocols import VolumeMetadata
from gently_bluesky.store.facts import EventFacts, Found, FrameTimes, Geometry, VolumeFacts, frame_times_sum

_NAMESPACE = "http://www.openmicroscopy.org/Schemas/OME/2016-06"
_SCHEMA = f"{_NAMESPACE} {_NAMESPACE}/ome.xsd"
_NOT_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_YEAR_10000 = 253_402_300_800  # seconds since the epoch
_MICROMETER = "\u00b5m"
_HOME = "gently_bluesky/volume"
_NO_SUM = b"0" * 16  # stands in the place of the checksum while it is taken
_SUM = re.compile(rb'(<M K="xxh3_64">)([0-9a-f]{16})(</M>)')

PIXEL_TYPES: Mapping[str, str] = {
    "i1": "int8",
    "i2": "int16",
    "i4": "int32",
    "u1": "uint8",
    "u2": "uint16",
    "u4": "uint32",
    "f4": "float",
    "f8": "double",
}
"""OME's name of each numpy type that OME has and its readers read.

OME has "complex" and "double-complex" too: Bio-Formats 7.3 refuses a file with either, tifffile does not map the
second.
"""


def can_describe(geometry: Geometry) -> bool:
    """Whether OME has words for such an array: (y, x), (z, y, x) or (t, z, y, x) of a type that it knows."""
    return 2 <= len(geometry.shape) <= 4 and geometry.dtype.str[1:] in PIXEL_TYPES


def ome_xml(
    geometry: Geometry,
    facts: VolumeFacts,
    times: FrameTimes | None = None,
    event: EventFacts | None = None,
) -> bytes:
    """Describe one volume.

    Parameters
    ----------
    geometry
        Of the volume; `can_describe` it must hold.
    facts
        Known at creation.
    times
        When each frame was taken, seconds since the epoch; DeltaT counts from AcquisitionDate, the first of them.
    event
        Known once the event came.
    """
    root = ET.Element(
        "OME",
        {
            "xmlns": _NAMESPACE,
            "xmlns:xsi": "http://www.w3.org/2001/XMLSchema-instance",
            "xsi:schemaLocation": _SCHEMA,
            "UUID": f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, f'{facts.resource_uid}/{facts.index}')}",
            "Creator": "gently_bluesky",
        },
    )
    image = ET.SubElement(root, "Image", {"ID": "Image:0", "Name": _text(f"{facts.data_key} {facts.index:06d}")})
    began = min((t for t in times or () if t is not None and 0 <= t < _YEAR_10000), default=None)  # no nan, no inf
    if began is not None:
        began = math.floor(began * 1000) / 1000  # as it is said
        moment = datetime.datetime.fromtimestamp(began, datetime.UTC)
        ET.SubElement(image, "AcquisitionDate").text = moment.isoformat(timespec="milliseconds")[:-6]
    _pixels(image, geometry, facts)
    annotations = ET.SubElement(root, "StructuredAnnotations")
    for number, (name, values) in enumerate(_annotations(geometry, facts, times, event)):
        ET.SubElement(image, "AnnotationRef", {"ID": f"Annotation:{number}"})
        box = ET.SubElement(annotations, "MapAnnotation", {"ID": f"Annotation:{number}", "Namespace": name})
        value = ET.SubElement(box, "Value")
        for key, item in values.items():
            ET.SubElement(value, "M", {"K": _text(key)}).text = _text(item)
    text: bytes = ET.tostring(root, encoding="utf-8", xml_declaration=True)
    text = text.replace(b"<Planes />", _planes(geometry, facts, times, began).encode(), 1)
    return _SUM.sub(rb"\g<1>" + _sum_of(text) + rb"\g<3>", text, count=1)


def _sum_of(text: bytes) -> bytes:
    return xxhash.xxh3_64_hexdigest(_SUM.sub(rb"\g<1>" + _NO_SUM + rb"\g<3>", text, count=1)).encode()


def hold_unchanged(xml: bytes) -> None:
    """Hold what `ome_xml` wrote against the checksum that stands in it; ValueError if it is another."""
    found = _SUM.search(xml)
    if found is None or found[2] != _sum_of(xml):
        raise ValueError("its OME-XML has changed since it was written: its checksum is another")


def _pixels(image: ET.Element, geometry: Geometry, facts: VolumeFacts) -> None:
    *outer, height, width = geometry.shape
    size_z = outer[-1] if outer else 1
    size_t = outer[-2] if len(outer) == 2 else 1
    attributes = {
        "ID": "Pixels:0",
        "DimensionOrder": "XYZCT",
        "Type": PIXEL_TYPES[geometry.dtype.str[1:]],
        "BigEndian": "false",
        "SizeX": str(width),
        "SizeY": str(height),
        "SizeZ": str(size_z),
        "SizeC": "1",
        "SizeT": str(size_t),
    }
    for axis, spacing in zip("XYZ", reversed(facts.metadata.get("voxel_size_um", ())), strict=False):
        if spacing > 0 and math.isfinite(spacing):
            attributes |= {
                f"PhysicalSize{axis}": repr(float(spacing)),
                f"PhysicalSize{axis}Unit": _MICROMETER,
            }
    pixels = ET.SubElement(image, "Pixels", attributes)
    channel = {"ID": "Channel:0:0", "SamplesPerPixel": "1"}
    if name := facts.metadata.get("channel"):
        channel["Name"] = _text(name)
    ET.SubElement(pixels, "Channel", channel)
    ET.SubElement(pixels, "TiffData", {"IFD": "0", "PlaneCount": str(geometry.planes)})
    ET.SubElement(pixels, "Planes")


def _planes(geometry: Geometry, facts: VolumeFacts, times: FrameTimes | None, began: float | None) -> str:
    # by hand: there are hundreds, and they hold nothing but numbers
    size_z = geometry.shape[-3] if len(geometry.shape) > 2 else 1
    common = ""
    if (exposure := facts.metadata.get("exposure_ms")) and math.isfinite(exposure):
        common = f' ExposureTime="{float(exposure)!r}" ExposureTimeUnit="ms"'
    stage = [float(value) for value in facts.metadata.get("stage_position_um", ())]
    stage = stage if all(map(math.isfinite, stage)) else []
    for axis, position in zip("XY", stage, strict=False):
        common += f' Position{axis}="{position:.4f}" Position{axis}Unit="{_MICROMETER}"'
    z_um = facts.metadata.get("z_um", ())
    parts = []
    for plane in range(geometry.planes):
        text = f'<Plane TheZ="{plane % size_z}" TheC="0" TheT="{plane // size_z}"'
        time = times[plane] if times else None
        if time is not None and math.isfinite(time) and began is not None:
            text += f' DeltaT="{time - began:.6f}" DeltaTUnit="s"'
        if len(stage) > 2:
            position = stage[2] + (float(z_um[plane]) if plane < len(z_um) else 0.0)
            text += f' PositionZ="{position:.4f}" PositionZUnit="{_MICROMETER}"'
        parts.append(f"{text}{common}/>")
    return "".join(parts)


def _annotations(
    geometry: Geometry, facts: VolumeFacts, times: FrameTimes | None, event: EventFacts | None
) -> Iterator[tuple[str, dict[str, object]]]:
    home: dict[str, object] = {
        "run_uid": facts.run_uid,
        "stream_resource_uid": facts.resource_uid,
        "data_key": facts.data_key,
        "index": facts.index,
        "shape": " ".join(map(str, geometry.shape)),
        "xxh3_64": _NO_SUM.decode(),
    }
    if view := facts.metadata.get("view"):
        home["view"] = view
    if times is not None:
        home["frame_times_xxh3_64"] = frame_times_sum(times)
    yield _HOME, home | dict(facts.run)
    if event is not None:
        yield (
            "gently_bluesky/event",
            {"event_uid": event.uid, "seq_num": event.seq_num, "event_time": event.time} | dict(event.scalars),
        )


def describes(xml: bytes) -> Found:
    """Read what `ome_xml` wrote, also out of a file that others have rewritten: geometry, and where it belongs.

    Raises
    ------
    ValueError
        It is no OME-XML, or none of ours.
    """
    try:
        root = ET.fromstring(xml)
    except ET.ParseError as error:
        raise ValueError(f"no XML: {error}") from error
    pixels = root.find(f".//{{{_NAMESPACE}}}Pixels")
    channel = root.find(f".//{{{_NAMESPACE}}}Channel")
    box = root.find(f".//{{{_NAMESPACE}}}MapAnnotation[@Namespace='{_HOME}']")
    if pixels is None or box is None:
        raise ValueError("its OME-XML does not say where it belongs")
    home = {item.get("K"): item.text or "" for item in box.iter(f"{{{_NAMESPACE}}}M")}
    names = {name: kind for kind, name in PIXEL_TYPES.items()}
    try:
        return Found(
            format="ome-tiff",
            geometry=Geometry(
                tuple(map(int, home["shape"].split())), np.dtype("<" + names[pixels.get("Type", "")])
            ),
            offset=0,
            run_uid=home["run_uid"],
            resource_uid=home["stream_resource_uid"],
            data_key=home["data_key"],
            index=int(home["index"]),
            voxel_size_um=tuple(
                float(pixels.get(f"PhysicalSize{axis}", "nan"))
                for axis in "ZYX"
                if axis != "Z" or pixels.get("PhysicalSizeZ")
            ),
            times_xxh3_64=home.get("frame_times_xxh3_64"),
            metadata=_metadata(pixels, home),
            channel=None if channel is None else channel.get("Name"),
        )
    except (KeyError, ValueError) as error:
        raise ValueError(f"its OME-XML lacks or garbles {error}") from error


def _metadata(pixels: ET.Element, home: Mapping[str | None, str]) -> VolumeMetadata:
    channel, plane = pixels.find(f"{{{_NAMESPACE}}}Channel"), pixels.find(f"{{{_NAMESPACE}}}Plane")
    said: VolumeMetadata = {}
    if channel is not None and (name := channel.get("Name")):
        said["channel"] = name
    if view := home.get("view"):
        said["view"] = view
    if plane is not None and (exposure := plane.get("ExposureTime")):
        said["exposure_ms"] = float(exposure)
    if plane is not None and plane.get("PositionX") and plane.get("PositionY"):
        said["stage_position_um"] = [float(plane.get(f"Position{axis}", 0)) for axis in "XY"]
        heights = [each.get("PositionZ") for each in pixels.iter(f"{{{_NAMESPACE}}}Plane")]
        if None not in heights:  # of the stage and within the scan together: the stage is taken to be at 0
            said["stage_position_um"] = [*said["stage_position_um"], 0.0]
            said["z_um"] = [float(each or 0) for each in heights]
    sizes = [pixels.get(f"PhysicalSize{axis}") for axis in "ZYX"]
    if known := [float(size) for size in sizes if size is not None]:
        said["voxel_size_um"] = known
    return said


def _text(value: object) -> str:
    return _NOT_XML.sub("\N{REPLACEMENT CHARACTER}", str(value))


def roomy_xml_bytes(geometry: Geometry, facts: VolumeFacts) -> int:
    """Give how much room the XML of such a volume may need: a time for every plane, and an event's scalars."""
    return len(ome_xml(geometry, facts)) + 64 * geometry.planes + 16384
