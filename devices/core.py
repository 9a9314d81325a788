# ruff: noqa: N802 - the names are MMCore's own
"""The part of Micro-Manager's CMMCore that the devices use, with its own names.

A `pymmcore.CMMCore` satisfies `Core` as it is; so does the simulated core. Whatever differs between the two
beyond the core itself travels in a `Connection`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from numpy.typing import NDArray

from devices.clock import Clock
from devices.underway import Underway


class Tag(Protocol):
    """One entry of a frame's metadata."""

    def GetValue(self) -> str:
        """Its value as text."""


class FrameTags(Protocol):
    """What the core says of one frame; `pymmcore.Metadata` is one."""

    def HasTag(self, key: str, /) -> bool:
        """Whether there is such a tag."""

    def GetSingleTag(self, key: str, /) -> Tag:
        """The tag of this name."""


class Core(Protocol):
    """Micro-Manager's core, as far as it is used here.

    Notes
    -----
    The methods are those of MMCore 12, `MMCore.h`, in the overloads that name the device. Failures are what
    pymmcore raises: RuntimeError from a device, ValueError for a name or preset that does not exist.
    """

    def getVersionInfo(self) -> str:
        """Version of the core."""

    def getDeviceLibrary(self, label: str, /) -> str:
        """Adapter of a device."""

    def getDeviceName(self, label: str, /) -> str:
        """Name of a device within its adapter."""

    def unloadAllDevices(self) -> None:
        """Let go of all hardware."""

    def hasProperty(self, label: str, name: str, /) -> bool:
        """Whether a device has a property."""

    def getProperty(self, label: str, name: str, /) -> str:
        """A property's value as text."""

    def setProperty(self, label: str, name: str, value: Any, /) -> None:
        """Set a property."""

    def deviceBusy(self, label: str, /) -> bool:
        """Whether a device is still at it."""

    def stop(self, label: str, /) -> None:
        """Stop a stage."""

    def getPosition(self, label: str, /) -> float:
        """Position of a single-axis stage in micrometer."""

    def setPosition(self, label: str, position: float, /) -> None:
        """Send a single-axis stage to a position in micrometer."""

    def getXYPosition(self, label: str, /) -> Sequence[float]:
        """Position of an XY stage in micrometer."""

    def setXYPosition(self, label: str, x: float, y: float, /) -> None:
        """Send an XY stage to a position in micrometer."""

    def getGalvoPosition(self, label: str, /) -> Sequence[float]:
        """Position of a galvo in degree."""

    def setGalvoPosition(self, label: str, x: float, y: float, /) -> None:
        """Send a galvo to a position in degree."""

    def getAvailableConfigs(self, group: str, /) -> Sequence[str]:
        """Presets of a config group."""

    def getCurrentConfig(self, group: str, /) -> str:
        """The preset that a group's properties match now; empty when they match none."""

    def setConfig(self, group: str, preset: str, /) -> None:
        """Apply a preset."""

    def getExposure(self, label: str, /) -> float:
        """Exposure of a camera in milliseconds."""

    def setExposure(self, label: str, exposure_ms: float, /) -> None:
        """Set the exposure of a camera in milliseconds."""

    def getROI(self, label: str, /) -> Sequence[int]:
        """Region of interest of a camera: x, y, width, height in (binned) pixels."""

    def setROI(self, label: str, x: int, y: int, width: int, height: int, /) -> None:
        """Set the region of interest of a camera."""

    def setCameraDevice(self, label: str, /) -> None:
        """Make a camera the current one: what names no camera means it."""

    def getImageWidth(self) -> int:
        """Width of the current camera's frames."""

    def getImageHeight(self) -> int:
        """Height of the current camera's frames."""

    def getBytesPerPixel(self) -> int:
        """Depth of the current camera's frames."""

    def clearROI(self) -> None:
        """Set the current camera to its full sensor."""

    def snapImage(self) -> None:
        """Expose the current camera once; returns after the exposure."""

    def getImage(self) -> NDArray[Any]:
        """The frame that was snapped, (y, x)."""

    def startSequenceAcquisition(self, label: str, number: int, interval_ms: float, stop: bool, /) -> None:
        """Empty the circular buffer and start a camera on `number` frames into it; `stop` when it overflows."""

    def stopSequenceAcquisition(self, label: str, /) -> None:
        """Stop a camera's sequence; nothing when none is running."""

    def isSequenceRunning(self, label: str, /) -> bool:
        """Whether a camera's sequence goes on."""

    def getRemainingImageCount(self) -> int:
        """Frames in the circular buffer."""

    def isBufferOverflowed(self) -> bool:
        """Whether frames were lost because nobody took them."""

    def clearCircularBuffer(self) -> None:
        """Empty the circular buffer."""

    def setCircularBufferMemoryFootprint(self, megabytes: int, /) -> None:
        """Size of the circular buffer, for all cameras together."""

    def popNextImageMD(self, tags: Any, /) -> NDArray[Any]:
        """Take the oldest frame, (y, x), and fill `tags` with what is known of it."""


@dataclass(frozen=True, slots=True)
class Connection:
    """What every device is given: the core, the clock, and what two of them must not do at once."""

    core: Core
    clock: Clock
    new_tags: Callable[[], FrameTags]
    """Makes what `popNextImageMD` fills: the class belongs to the core's own library."""
    underway: Underway = field(default_factory=Underway)
    """The exposures that go on."""
