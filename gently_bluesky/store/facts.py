"""What a stored volume says of itself, so that a file found alone tells where it belongs.

Plain values, filled from the documents by the writer and spelled by each format in its own way.
"""

import math
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import xxhash

from gently_bluesky.protocols import VolumeMetadata

Scalar = str | int | float | bool


@dataclass(frozen=True, slots=True)
class Geometry:
    """Shape and dtype of one volume, seen as planes (y, x) one after the other in C order."""

    shape: tuple[int, ...]
    dtype: np.dtype[np.generic]

    @property
    def plane_shape(self) -> tuple[int, ...]:
        """(y, x); (x,) for an array of one dimension."""
        return self.shape[-2:]

    @property
    def planes(self) -> int:
        """How many planes there are."""
        return math.prod(self.shape[:-2])

    @property
    def plane_bytes(self) -> int:
        """Bytes of one plane."""
        return math.prod(self.plane_shape) * self.dtype.itemsize

    @property
    def nbytes(self) -> int:
        """Bytes of the pixels of one volume."""
        return self.planes * self.plane_bytes


@dataclass(frozen=True, slots=True)
class VolumeFacts:
    """Known when a volume is created."""

    run_uid: str
    resource_uid: str
    data_key: str
    index: int
    run: Mapping[str, Scalar] = field(default_factory=dict)
    """From the start document: time, scan_id, plan_name, session, embryo, operator, purpose."""
    metadata: VolumeMetadata = field(default_factory=VolumeMetadata)


@dataclass(frozen=True, slots=True)
class EventFacts:
    """Known when the event came."""

    uid: str
    seq_num: int
    time: float
    scalars: Mapping[str, Scalar] = field(default_factory=dict)
    """Every number, truth value and short text in the event, by data key."""


FrameTimes = Sequence[float | None]
"""Seconds since the epoch, one a plane; None where no frame came."""

_AT_ZERO = 5e-324  # the time of a frame that was taken at 0; 0 says that none came


def stored_time(time: float) -> bytes:
    """Give the time of a frame as files hold it: float64, little-endian, never the 0 that stands for no frame."""
    return struct.pack("<d", time or _AT_ZERO)


def frame_times_sum(times: FrameTimes) -> str:
    """Give the xxh3-64 of a whole table of frame times as files hold it, in hexadecimal."""
    table = b"".join(bytes(8) if time is None else stored_time(time) for time in times)
    return xxhash.xxh3_64_hexdigest(table)


@dataclass(frozen=True, slots=True)
class Found:
    """What a volume's file says of itself when it is found.

    Attributes
    ----------
    format, geometry, offset
        How its pixels lie: `offset` in bytes, contiguous from there, in C order; None if they lie in shards.
    times
        When each frame was taken, seconds since the epoch, 0 where it never came; None where the format does
        not say.
    run_uid, resource_uid, data_key, index
        Where it belongs; None where the format does not say.
    voxel_size_um, channel
        Along (z, y, x), and what it shows, as far as that is said.
    """

    format: str
    geometry: Geometry
    offset: int | None
    times: tuple[float, ...] | None = None
    run_uid: str | None = None
    resource_uid: str | None = None
    data_key: str | None = None
    index: int | None = None
    voxel_size_um: tuple[float, ...] = ()
    times_xxh3_64: str | None = None
    """Of the table of frame times; None where the format does not say."""
    metadata: VolumeMetadata = field(default_factory=VolumeMetadata)
    """What was known of the volume when it was created, as far as the file still says it."""
    channel: str | None = None

    @property
    def frames(self) -> int | None:
        """How many frames came; None where the format does not say."""
        return None if self.times is None else sum(time != 0 for time in self.times)
