# ruff: noqa: N802 - the names are MMCore's own
"""Camera sequences into one circular buffer, as MMCore has them.

Knows when a frame is due and what becomes of it; what it shows is the scene's. Frames are drawn when they are
taken, so a full buffer costs no memory.
"""

import datetime
import math
from collections import deque
from dataclasses import dataclass, field

from devices.simulated.faults import Faults
from devices.simulated.scene import FrameContext

MEGABYTE = 1 << 20


class CameraState:
    """What a camera is set to.

    Parameters
    ----------
    label
        Of the camera.
    view
        "A", "B" or "bottom".
    sensor
        Width and height in pixels.
    readout_ms
        From the end of an exposure to the frame in the buffer, and until it sees the next pulse.
    """

    def __init__(self, *, label: str, view: str, sensor: tuple[int, int], readout_ms: float) -> None:
        self.label = label
        self.view = view
        self.sensor = sensor
        self.readout_ms = readout_ms
        self.binning = 1
        self.exposure_ms = 10.0
        self.roi = self.whole_sensor()

    @property
    def takes_s(self) -> float:
        """How long a frame takes from its trigger to the buffer, in seconds."""
        return (self.exposure_ms + self.readout_ms) / 1000

    def whole_sensor(self) -> tuple[int, int, int, int]:
        """The region of interest that is everything, in binned pixels."""
        return 0, 0, self.sensor[0] // self.binning, self.sensor[1] // self.binning

    def set_binning(self, binning: int) -> None:
        """Bin; the region of interest becomes the whole sensor, as with MMCore's cameras."""
        self.binning = binning
        self.roi = self.whole_sensor()

    def set_roi(self, roi: tuple[int, int, int, int]) -> None:
        """Set the region of interest; RuntimeError when it is not on the sensor, as from a device."""
        x, y, width, height = roi
        _, _, all_width, all_height = self.whole_sensor()
        if x < 0 or y < 0 or width < 1 or height < 1 or x + width > all_width or y + height > all_height:
            raise RuntimeError(
                f'Error in device "{self.label}": ROI {list(roi)} is not on {all_width} x {all_height} pixels'
            )
        self.roi = roi


@dataclass(frozen=True, slots=True)
class BufferedFrame:
    """A frame in the circular buffer: what it shows and what the core says of it."""

    context: FrameContext
    number: int
    elapsed_ms: float
    received: float
    """Seconds since the epoch."""


@dataclass(slots=True)
class Sequence:
    """A sequence that a camera takes."""

    camera: CameraState
    wanted: int
    began: float
    stop_on_overflow: bool
    seen: int = 0
    """Pulses or exposures so far."""
    counted: int = 0
    """Frames so far: the number of the next one."""
    forgotten: int = 0
    """Frames when the buffer was last emptied: the core numbers those that come from 0 again."""
    running: bool = True
    busy_until: float = -math.inf
    """On the monotonic clock: when it has exposed and read out, and sees pulses again."""


class SimulatedTag:
    """One entry of a frame's metadata."""

    def __init__(self, value: str) -> None:
        self._value = value

    def GetValue(self) -> str:
        """Its value as text."""
        return self._value


class SimulatedTags:
    """A frame's metadata, with the methods of `pymmcore.Metadata` that are used."""

    def __init__(self) -> None:
        self._tags: dict[str, str] = {}

    def fill(self, tags: dict[str, str]) -> None:
        """Replace all entries."""
        self._tags = dict(tags)

    def HasTag(self, key: str, /) -> bool:
        """Whether there is such a tag."""
        return key in self._tags

    def GetSingleTag(self, key: str, /) -> SimulatedTag:
        """Give the tag of this name; ValueError when there is none, as pymmcore."""
        if key not in self._tags:
            raise ValueError(f"Undefined metadata key: {key}")
        return SimulatedTag(self._tags[key])


@dataclass(slots=True)
class CircularBuffer:
    """The buffer of all cameras, and the sequences that fill it.

    Parameters
    ----------
    faults
        What goes wrong on the way.
    """

    faults: Faults
    megabytes: int = 250
    frames: deque[BufferedFrame] = field(default_factory=deque)
    overflowed: bool = False
    sequences: dict[str, Sequence] = field(default_factory=dict)
    _bytes: int = 0
    _delivered: int = 0

    def clear(self) -> None:
        """Empty it, and forget how many frames there were of each sequence."""
        self.frames.clear()
        for sequence in self.sequences.values():
            sequence.forgotten = sequence.counted
        self.overflowed = False
        self._bytes = 0
        self._delivered = 0

    def start(self, sequence: Sequence) -> None:
        """Take a sequence of a camera, in place of the one it took before."""
        self.sequences[sequence.camera.label] = sequence

    def running(self, label: str) -> bool:
        """Whether a camera's sequence goes on."""
        sequence = self.sequences.get(label)
        return sequence is not None and sequence.running

    def count(self, sequence: Sequence) -> int | None:
        """Count an exposure of a sequence.

        Returns
        -------
        int or None
            Number of its frame, from 0; None when it comes to no frame.
        """
        label = sequence.camera.label
        seen, sequence.seen = sequence.seen, sequence.seen + 1
        silent = seen >= self.faults.silent_after.get(label, seen + 1)
        if silent or (label, seen) in self.faults.missed_triggers:
            return None
        number, sequence.counted = sequence.counted, sequence.counted + 1
        if sequence.counted >= sequence.wanted:
            sequence.running = False
        return None if (label, seen) in self.faults.lost_frames else number

    def insert(self, sequence: Sequence, context: FrameContext, *, at: float, received: float) -> None:
        """Take a frame in, if there is room.

        Parameters
        ----------
        sequence
            That it belongs to.
        context
            What it shows.
        at, received
            When it came: on the monotonic clock, and in seconds since the epoch.
        """
        full = self._bytes + _size(context) > self.megabytes * MEGABYTE
        if full or (self.faults.overflow_after is not None and self._delivered >= self.faults.overflow_after):
            self.overflowed = True
            sequence.running = sequence.running and not sequence.stop_on_overflow
            return
        self._delivered += 1
        self._bytes += _size(context)
        elapsed_ms = (at - sequence.began) * 1000
        number = context.number - sequence.forgotten
        self.frames.append(BufferedFrame(context, number, elapsed_ms, received))

    def take(self) -> BufferedFrame:
        """Take the oldest frame; IndexError when there is none, as pymmcore."""
        if not self.frames:
            raise IndexError("Circular buffer is empty.")
        frame = self.frames.popleft()
        self._bytes -= _size(frame.context)
        return frame


def tags_of(frame: BufferedFrame) -> dict[str, str]:
    """Give what MMCore says of a frame.

    Returns
    -------
    dict
        The tags of MMCore 12; TimeReceivedByCore is local time without a zone, as there.
    """
    context = frame.context
    received = datetime.datetime.fromtimestamp(frame.received).astimezone().replace(tzinfo=None)
    return {
        "Camera": context.camera,
        "ImageNumber": str(frame.number),
        "ElapsedTime-ms": f"{frame.elapsed_ms:.2f}",
        "TimeReceivedByCore": received.isoformat(sep=" ", timespec="microseconds"),
        "Binning": str(context.binning),
        "Width": str(context.roi[2]),
        "Height": str(context.roi[3]),
        "ROI-X-start": str(context.roi[0]),
        "ROI-Y-start": str(context.roi[1]),
        "PixelType": "GRAY16",
    }


def _size(context: FrameContext) -> int:
    return 2 * context.roi[2] * context.roi[3]
