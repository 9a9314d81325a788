"""Takes the frames of one volume, or of two at once, out of the core's circular buffer.

Knows labels, counts and shapes; does not know what times the cameras, what lights them, or where frames go. A
sequence is whole or an error: a frame that is missing, late, misshapen or out of order is never passed over.
"""

import datetime
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from numpy.typing import NDArray

from devices.cleanup import clean_up_after
from devices.core import Connection, FrameTags
from gently_bluesky.errors import (
    AcquisitionError,
    BufferOverflowError,
    CameraTimeoutError,
    ExposureStoppedError,
)

POLL_S = 0.001


@dataclass(slots=True)
class Take:
    """The frames that one camera is to deliver."""

    label: str
    """Of the camera."""
    count: int
    """How many frames."""
    shape: tuple[int, int]
    """Of each, (y, x)."""
    receive: Callable[[int, NDArray[Any], float], None]
    """Called with number from 0, frame (y, x), and seconds since the epoch; the frame is not ours to keep."""
    came: int = field(default=0, init=False)
    """How many have come."""


def take_frames(
    connection: Connection,
    takes: Sequence[Take],
    *,
    starter: str,
    start: Callable[[], None],
    stopped: threading.Event,
    timeout_s: float,
    came: Callable[[int], None] = lambda _: None,
) -> None:
    """Run the cameras and hand out their frames as they come.

    Parameters
    ----------
    connection
        To the core.
    takes
        One for each camera, all of the same count; all frames run through one buffer and are told apart by their
        `Camera` tag.
    starter
        Label of what starts them: the camera, or the device that joins the cameras.
    start
        Called when all cameras wait.
    stopped
        Set from outside to end it.
    timeout_s
        Longest time without a frame from any camera.
    came
        Called after each frame with how many have come, of all cameras together.

    Raises
    ------
    ExposureStoppedError
        `stopped` was set.
    CameraTimeoutError
        No frame came for too long.
    BufferOverflowError
        Frames were lost in the buffer.
    AcquisitionError
        Frames are missing, or not what they should be; every message has the counts.
    """
    core = connection.core
    core.setCameraDevice(takes[0].label)  # without a current camera MMCore's pop fails, and does not say why
    core.clearCircularBuffer()
    # One by one: the device that joins them gives up at the first that refuses.
    stops = [partial(core.stopSequenceAcquisition, take.label) for take in takes]
    try:
        _start(connection, takes, starter)
        start()
        _drain(connection, takes, stopped, timeout_s, came)
    except BaseException as error:
        clean_up_after(error, *stops, core.clearCircularBuffer)
        raise
    for stop in stops:
        stop()


def _drain(
    connection: Connection,
    takes: Sequence[Take],
    stopped: threading.Event,
    timeout_s: float,
    came: Callable[[int], None],
) -> None:
    core, clock = connection.core, connection.clock
    by_label = {take.label: take for take in takes}
    last = clock.monotonic()
    while any(take.came < take.count for take in takes):
        if stopped.is_set():
            raise ExposureStoppedError(f"stopped; {_counts(takes)}")
        if core.isBufferOverflowed():
            raise BufferOverflowError(
                f"the circular buffer overflowed: frames came faster than they were stored; {_counts(takes)}"
            )
        # Asked before the buffer is: a camera that stops in between has delivered its last frame by then.
        running = [take for take in takes if take.came < take.count and core.isSequenceRunning(take.label)]
        if core.getRemainingImageCount():
            tags = connection.new_tags()
            try:
                frame = core.popNextImageMD(tags)
            except Exception as error:
                raise AcquisitionError(f"a frame could not be taken: {error}; {_counts(takes)}") from error
            _hand_out(by_label, frame, tags, clock.time())
            last = clock.monotonic()
            came(sum(take.came for take in takes))
        elif not running:
            raise AcquisitionError(f"the camera ended its sequence before all frames had come; {_counts(takes)}")
        elif clock.monotonic() - last > timeout_s:
            raise CameraTimeoutError(f"no frame for {timeout_s:g} s; {_counts(takes)}")
        else:
            clock.sleep(POLL_S)
    if core.isBufferOverflowed():
        raise BufferOverflowError(f"the circular buffer overflowed; {_counts(takes)}")


def _start(connection: Connection, takes: Sequence[Take], starter: str) -> None:
    (count,) = {take.count for take in takes}
    try:
        # Once: with every start MMCore empties the buffer, and what another camera has delivered is gone.
        connection.core.startSequenceAcquisition(starter, count, 0.0, True)
    except Exception as error:
        raise AcquisitionError(f"{starter} did not start: {error}; {_counts(takes)}") from error


def _hand_out(takes: dict[str, Take], frame: NDArray[Any], tags: FrameTags, now: float) -> None:
    label = tags.GetSingleTag("Camera").GetValue() if tags.HasTag("Camera") else ""
    take = takes.get(label)
    if take is None:
        raise AcquisitionError(
            f"a frame of camera {label!r} came, which was not started; {_counts(takes.values())}"
        )
    if take.came == take.count:
        raise AcquisitionError(f"camera {label} delivered more frames than asked for; {_counts(takes.values())}")
    if tags.HasTag("ImageNumber"):
        number = int(tags.GetSingleTag("ImageNumber").GetValue())
        if number != take.came:
            raise AcquisitionError(
                f"camera {label}: frame {number} came where frame {take.came} was due (from 0): "
                f"{abs(number - take.came)} dropped or repeated; {_counts(takes.values())}"
            )
    if frame.shape != take.shape or frame.dtype.kind != "u" or frame.dtype.itemsize != 2:
        raise AcquisitionError(
            f"camera {label}: frame {take.came} is {frame.dtype} of shape {frame.shape}, "
            f"asked for was uint16 of {take.shape}; {_counts(takes.values())}"
        )
    take.receive(take.came, frame, frame_time(tags, now))
    take.came += 1


def frame_time(tags: FrameTags, now: float) -> float:
    """When the core received a frame.

    Parameters
    ----------
    tags
        Of the frame.
    now
        Seconds since the epoch; the answer when the core does not say.

    Returns
    -------
    float
        Seconds since the epoch.

    Notes
    -----
    MMCore writes local time without a zone. In the hour that comes twice when summer time ends, the reading
    nearest to `now` is right: a frame is not an hour old when it is taken out.
    """
    if not tags.HasTag("TimeReceivedByCore"):
        return now
    local = datetime.datetime.fromisoformat(tags.GetSingleTag("TimeReceivedByCore").GetValue())
    readings = (local.replace(fold=fold).timestamp() for fold in (0, 1))
    return min(readings, key=lambda reading: abs(reading - now))


def _counts(takes: Any) -> str:
    return ", ".join(f"{take.label}: {take.came} of {take.count} frames" for take in takes)
