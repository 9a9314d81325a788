"""OME-TIFF files that are whole from their creation on, at every instant.

Layout of a file, little-endian BigTIFF:

    header | one directory (IFD) a plane | OME-XML, slots 0 to 2 | frame times | pixels

Everything a reader needs stands before the data, the data starts on a page and is contiguous, and nothing is
ever appended: a file cut off by a kill after any frame opens with every program, the planes that never came
being zeros. The OME-XML is completed in place: it is written into the next slot, made durable, and then the
sixteen bytes that point to it are replaced in one write inside one sector. There are three slots, because after
a power cut the pointer may still be the one before.

The table of frame times (float64, seconds since the epoch, one a plane) is ours: a zero says that the frame
never came. It is written after the frame, so it also tells which planes of an interrupted file are whole.

Source: TIFF 6.0; the BigTIFF extension; OME-TIFF specification 2016-06.
"""

import math
import os
import struct
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO, ClassVar

import numpy as np
import xxhash
from numpy.typing import NDArray

from gently_bluesky.store.disk import PAGE, BlockFile, Claim, claim_nothing, forget_pages
from gently_bluesky.store.facts import EventFacts, Found, FrameTimes, Geometry, VolumeFacts, stored_time
from gently_bluesky.store.ome_xml import describes, hold_unchanged, ome_xml, roomy_xml_bytes

_SHORT, _LONG, _RATIONAL, _LONG8, _ASCII = 3, 4, 5, 16, 2
_SAMPLE_FORMAT = {"u": 1, "i": 2, "f": 3}
_ENTRY = struct.Struct("<HHQ8s")
_FIRST_IFD = 16
_HEADER = struct.pack("<2sHHHQ", b"II", 43, 8, 0, _FIRST_IFD)  # BigTIFF, little-endian, offsets of 8 bytes
_DESCRIPTION = 270
_SLOTS = 3
_MOST_TAGS = 16


@dataclass(frozen=True, slots=True)
class TiffLayout:
    """Where everything is in one file; all offsets and sizes in bytes."""

    geometry: Geometry
    slot_bytes: int
    directories_bytes: int

    @property
    def slots(self) -> range:
        """Offsets of the OME-XML slots."""
        first = _FIRST_IFD + self.directories_bytes
        return range(first, first + _SLOTS * self.slot_bytes, self.slot_bytes)

    @property
    def data_offset(self) -> int:
        """Offset of the first pixel, a multiple of the page size."""
        return _aligned(self.slots.stop + 8 * self.geometry.planes, PAGE)

    @property
    def times_offset(self) -> int:
        """Offset of the table of frame times; it ends where the pixels begin."""
        return self.data_offset - 8 * self.geometry.planes

    @property
    def nbytes(self) -> int:
        """Size of the whole file."""
        return self.data_offset + self.geometry.nbytes


def _aligned(offset: int, to: int) -> int:
    return -(-offset // to) * to


def _value(kind: int, value: float) -> bytes:
    if kind == _RATIONAL:
        return struct.pack("<II", round(value * 1000), 1000)
    return struct.pack({_SHORT: "<H6x", _LONG: "<I4x", _LONG8: "<Q"}[kind], value)


def _directories(
    geometry: Geometry, data_offset: int, pixels_per_cm: tuple[float, float] | None, description: tuple[int, int]
) -> bytes:
    """Give all of them; `description` is the length of the OME-XML and its offset."""
    return b"".join(
        _directory(geometry, plane, data_offset, pixels_per_cm, description) for plane in range(geometry.planes)
    )


def _directory(
    geometry: Geometry,
    plane: int,
    data_offset: int,
    pixels_per_cm: tuple[float, float] | None,
    description: tuple[int, int],
) -> bytes:
    height, width = geometry.plane_shape
    tags: list[tuple[int, int, int, bytes]] = [
        (256, _LONG, 1, _value(_LONG, width)),
        (257, _LONG, 1, _value(_LONG, height)),
        (258, _SHORT, 1, _value(_SHORT, geometry.dtype.itemsize * 8)),
        (259, _SHORT, 1, _value(_SHORT, 1)),  # Compression: none
        (262, _SHORT, 1, _value(_SHORT, 1)),  # PhotometricInterpretation: BlackIsZero
        (273, _LONG8, 1, _value(_LONG8, data_offset + plane * geometry.plane_bytes)),
        (277, _SHORT, 1, _value(_SHORT, 1)),  # SamplesPerPixel
        (278, _LONG, 1, _value(_LONG, height)),  # RowsPerStrip: the plane is one strip
        (279, _LONG8, 1, _value(_LONG8, geometry.plane_bytes)),
        (339, _SHORT, 1, _value(_SHORT, _SAMPLE_FORMAT[geometry.dtype.kind])),
    ]
    if pixels_per_cm is not None:
        tags += [
            (282, _RATIONAL, 1, _value(_RATIONAL, pixels_per_cm[1])),
            (283, _RATIONAL, 1, _value(_RATIONAL, pixels_per_cm[0])),
            (296, _SHORT, 1, _value(_SHORT, 3)),  # ResolutionUnit: centimeter
        ]
    if plane == 0:
        length, where = description
        tags.append((_DESCRIPTION, _ASCII, length, struct.pack("<Q", where)))
    body = b"".join(_ENTRY.pack(*tag) for tag in sorted(tags))
    here = _FIRST_IFD + (0 if plane == 0 else _directory_bytes(pixels_per_cm, plane))
    after = here + 8 + len(body) + 8
    return struct.pack("<Q", len(tags)) + body + struct.pack("<Q", after if plane + 1 < geometry.planes else 0)


def _directory_bytes(pixels_per_cm: tuple[float, float] | None, planes: int) -> int:
    entries = planes * (10 + (0 if pixels_per_cm is None else 3)) + 1  # the description, once
    return 16 * planes + _ENTRY.size * entries


def _pixels_per_cm(spacing: Sequence[float]) -> tuple[float, float] | None:
    if len(spacing) < 2 or not all(1e-2 <= value <= 1e4 for value in spacing[-2:]):
        return None
    return 1e4 / spacing[-2], 1e4 / spacing[-1]


class OmeTiffFile:
    """One volume being written as OME-TIFF.

    Parameters
    ----------
    path
        Created exclusively, whole, with its space reserved.
    geometry
        Shape (y, x), (z, y, x) or (t, z, y, x), and a little-endian dtype that OME knows.
    facts
        What is known now.
    claim
        Asked for the room before anything is created.
    """

    format: ClassVar[str] = "ome-tiff"

    def __init__(self, path: Path, geometry: Geometry, facts: VolumeFacts, claim: Claim = claim_nothing) -> None:
        self.path = path
        self._facts = facts
        resolution = _pixels_per_cm(facts.metadata.get("voxel_size_um", ()))
        self._layout = layout = TiffLayout(
            geometry,
            _aligned(roomy_xml_bytes(geometry, facts), 8),
            _directory_bytes(resolution, geometry.planes),
        )
        claim(path, layout.nbytes)
        xml = ome_xml(geometry, facts) + b"\0"
        directories = _directories(geometry, layout.data_offset, resolution, (len(xml), layout.slots[0]))
        self._slot = 0
        self._file = BlockFile(path, layout.nbytes, _HEADER + directories + xml)

    @property
    def manifest(self) -> Mapping[str, Any]:
        """What a reader needs to map the pixels without parsing the file."""
        return {"offset": self._layout.data_offset}

    def write(self, plane: int, data: memoryview, time: float, pool: Executor) -> None:
        """Write one plane and then its time; `pool` pushes it to the disk behind our back."""
        offset = self._layout.data_offset + plane * len(data)
        self._file.write(offset, data)
        self._file.write(self._layout.times_offset + 8 * plane, stored_time(time))
        self._file.push_behind(offset, len(data), pool)

    def complete(self, times: FrameTimes, event: EventFacts | None, *, durable: bool) -> None:
        """Replace the OME-XML by one that knows more; the file is whole before, meanwhile and after.

        Everything written before is durable afterwards, if that is asked for. Scalars of an event that find
        no room are left out; the documents have them.
        """
        geometry, slot = self._layout.geometry, (self._slot + 1) % _SLOTS
        self._file.reopen()
        xml = ome_xml(geometry, self._facts, times, event) + b"\0"
        if len(xml) > self._layout.slot_bytes and event is not None:
            bare = EventFacts(event.uid, event.seq_num, event.time)
            xml = ome_xml(geometry, self._facts, times, bare) + b"\0"
        if len(xml) <= self._layout.slot_bytes:
            self._file.write(self._layout.slots[slot], xml)
        (self._file.sync if durable else self._file.settle)()
        if len(xml) <= self._layout.slot_bytes:
            pointer = struct.pack("<QQ", len(xml), self._layout.slots[slot])
            self._file.write(_description_entry() + 4, pointer)
            self._slot = slot

    def planes(self, first: int) -> Iterator[NDArray[Any]]:
        """Read planes back, from one on, flattened."""
        geometry = self._layout.geometry
        shape = (geometry.planes, math.prod(geometry.plane_shape))
        yield from np.memmap(self.path, geometry.dtype, "r", self._layout.data_offset, shape)[first:]

    def forget(self) -> None:
        """Let the page cache drop it."""
        forget_pages(self.path)

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def _description_entry() -> int:
    # the sixth tag of the first directory; width, height, bits, compression and photometric come before
    return _FIRST_IFD + 8 + 5 * _ENTRY.size


def examine(path: Path) -> Found:
    """Read what a file of ours says of itself, whole or interrupted; only its head is read.

    Raises
    ------
    ValueError
        It was not written here, or its head is damaged.
    """
    try:
        with path.open("rb") as file:
            return _examine(file)
    except (struct.error, KeyError, IndexError, TypeError) as error:
        raise ValueError(f"{path} was not written here, or its head is damaged ({error!r})") from error
    except ValueError as error:
        raise ValueError(f"{path} was not written here ({error})") from error


def times_now(path: Path, found: Found) -> NDArray[np.float64]:
    """Give the frame times of a file that was examined, as they are now: one a plane, 0 where none came yet."""
    planes = found.geometry.planes
    return np.fromfile(path, "<f8", planes, offset=(found.offset or 0) - 8 * planes)


def _examine(file: BinaryIO) -> Found:
    if file.read(_FIRST_IFD) != _HEADER:
        raise ValueError("another kind of file")
    planes, offset, tags = 0, _FIRST_IFD, dict[int, tuple[int, bytes]]()
    while offset:
        file.seek(offset)
        (count,) = struct.unpack("<Q", file.read(8))
        if count > _MOST_TAGS:
            raise ValueError(f"a directory of {count} tags")
        body = file.read(_ENTRY.size * count + 8)
        if planes == 0:
            tags = {tag: (length, value) for tag, _, length, value in _ENTRY.iter_unpack(body[:-8])}
        after = struct.unpack("<Q", body[-8:])[0]
        if after and after <= offset:
            raise ValueError("its directories run in a circle")
        offset, planes = after, planes + 1
    length, (where,) = tags[_DESCRIPTION][0], struct.unpack("<Q", tags[_DESCRIPTION][1])
    if where + length > file.seek(0, os.SEEK_END):
        raise ValueError("its OME-XML would reach beyond its end")
    file.seek(where)
    xml = file.read(length).rstrip(b"\0")
    hold_unchanged(xml)
    said = describes(xml)
    (data_offset,) = struct.unpack("<Q", tags[273][1])
    expected = _directories(said.geometry, data_offset, _pixels_per_cm(said.voxel_size_um), (length, where))
    file.seek(_FIRST_IFD)
    if file.read(len(expected)) != expected:
        raise ValueError("its directories are not those of its OME-XML")
    file.seek(data_offset - 8 * planes)
    table = file.read(8 * planes)
    if said.times_xxh3_64 not in {None, xxhash.xxh3_64_hexdigest(table)}:
        raise ValueError("its table of frame times has changed since it was written")
    times = np.frombuffer(table, "<f8")
    return replace(said, offset=data_offset, times=tuple(times.tolist()))
