# ruff: noqa: N802 - the names are MMCore's own, and as many as are used
"""A core without hardware: stages that take time, a Tiger scanner that pulses two cameras, and embryos before
them.

It is `devices.core.Core` and behaves as MMCore does, errors included. What it is made of is `bench`'s, what
has happened by now `exposures`'.
"""

import threading
from typing import Any

import numpy as np
from numpy.typing import NDArray

from devices.clock import Clock
from devices.configuration import Configuration
from devices.simulated.bench import Bench
from devices.simulated.cameras import CameraState, tags_of
from devices.simulated.exposures import Exposures
from devices.simulated.faults import Faults
from devices.simulated.scene import FrameContext, FrameSource
from devices.simulated.stages import SimulatedStage


class SimulatedCore:
    """MMCore's methods over a simulated diSPIM.

    Parameters
    ----------
    configuration
        The instrument that it is to be.
    clock
        Its time.
    frame_source
        What the cameras see.

    Attributes
    ----------
    faults : Faults
        What goes wrong; nothing at the beginning.
    frame_source : FrameSource
        What the cameras see.
    """

    def __init__(self, configuration: Configuration, clock: Clock, frame_source: FrameSource) -> None:
        self.faults = Faults()
        self.frame_source = frame_source
        self._clock = clock
        self._lock = threading.RLock()
        self._bench = Bench(configuration, clock)
        self._exposures = Exposures(self._bench, self.faults)
        self._buffer = self._exposures.buffer
        self._current_camera = ""
        self._snapped: FrameContext | None = None
        self._snaps = 0

    # --- versions and properties ----------------------------------------------------------------------------

    def getVersionInfo(self) -> str:
        """Version of the core."""
        return "simulated core 1"

    def getDeviceLibrary(self, label: str, /) -> str:
        """Adapter of a device."""
        self._check_known(label)
        return "Simulated"

    def getDeviceName(self, label: str, /) -> str:
        """Name of a device within its adapter."""
        self._check_known(label)
        return label.partition(":")[0]

    def unloadAllDevices(self) -> None:
        """Let go of the hardware: cameras and scanner come to rest."""
        with self._lock:
            self._buffer.sequences.clear()
            self._buffer.clear()
            for scanner in self._bench.scanners().values():
                self._exposures.drive_scan(scanner, "Idle")

    def hasProperty(self, label: str, name: str, /) -> bool:
        """Whether a device has a property."""
        self._check_known(label)
        return name in self._bench.properties.get(label, {})

    def getProperty(self, label: str, name: str, /) -> str:
        """A property's value as text."""
        with self._lock:
            self._exposures.catch_up()
            self._check_reading(label, name)
            self._check_property(label, name)
            return self._bench.properties[label][name]

    def setProperty(self, label: str, name: str, value: Any, /) -> None:
        """Set a property."""
        with self._lock:
            self._exposures.catch_up()
            self._check_property(label, name)
            if (label, name) in self.faults.failing_writes:
                raise RuntimeError(f'Error in device "{label}": Can not set property "{name}" to "{value}"')
            self._bench.properties[label][name] = str(value)
            if name == "Binning" and label in self._bench.cameras:
                self._camera(label).set_binning(int(value))
            if name == "SPIMState" and label in self._bench.scanners().values():
                self._exposures.drive_scan(label, str(value))

    # --- stages -------------------------------------------------------------------------------------------

    def deviceBusy(self, label: str, /) -> bool:
        """Whether a device is still at it."""
        with self._lock:
            self._check_known(label)
            return label in self._bench.stages and self._bench.stages[label].busy()

    def stop(self, label: str, /) -> None:
        """Stop a stage."""
        with self._lock:
            self._stage(label).stop()

    def getPosition(self, label: str, /) -> float:
        """Position of a single-axis stage in micrometer."""
        return self._where(label, "Position")[0]

    def setPosition(self, label: str, position: float, /) -> None:
        """Send a single-axis stage to a position in micrometer."""
        self._send(label, (position,))

    def getXYPosition(self, label: str, /) -> list[float]:
        """Position of the XY stage in micrometer."""
        return self._where(label, "XYPosition")

    def setXYPosition(self, label: str, x: float, y: float, /) -> None:
        """Send the XY stage to a position in micrometer."""
        self._send(label, (x, y))

    def getGalvoPosition(self, label: str, /) -> list[float]:
        """Position of a galvo in degree."""
        return self._where(label, "GalvoPosition")

    def setGalvoPosition(self, label: str, x: float, y: float, /) -> None:
        """Send a galvo to a position in degree."""
        self._send(label, (x, y))

    # --- config groups --------------------------------------------------------------------------------------

    def getAvailableConfigs(self, group: str, /) -> tuple[str, ...]:
        """Presets of a config group."""
        return tuple(self._bench.groups[group]) if group in self._bench.groups else ()

    def getCurrentConfig(self, group: str, /) -> str:
        """The preset that a group's properties match now; empty when they match none."""
        with self._lock:
            for preset, (label, name, value) in self._bench.groups.get(group, {}).items():
                self._check_reading(label, name)
                if self._bench.properties[label][name] == value:
                    return preset
        return ""

    def setConfig(self, group: str, preset: str, /) -> None:
        """Apply a preset."""
        with self._lock:
            self._exposures.catch_up()
            if preset not in self._bench.groups.get(group, {}):
                raise ValueError(f'Preset "{preset}" of configuration group "{group}" does not exist')
            if (group, preset) in self.faults.refused_presets:
                raise RuntimeError(f'Error in config group "{group}": preset "{preset}" was refused')
            if (group, preset) not in self.faults.ignored_presets:
                label, name, value = self._bench.groups[group][preset]
                self._bench.properties[label][name] = value

    # --- cameras ------------------------------------------------------------------------------------------

    def getExposure(self, label: str, /) -> float:
        """Exposure of a camera in milliseconds."""
        self._check_reading(label, "Exposure")
        return self._camera(label).exposure_ms

    def setExposure(self, label: str, exposure_ms: float, /) -> None:
        """Set the exposure of a camera in milliseconds."""
        with self._lock:
            self._still(label).exposure_ms = float(exposure_ms)

    def getROI(self, label: str, /) -> list[int]:
        """Region of interest of a camera: x, y, width, height in binned pixels."""
        return list(self._camera(label).roi)

    def setROI(self, label: str, x: int, y: int, width: int, height: int, /) -> None:
        """Set the region of interest of a camera."""
        with self._lock:
            self._still(label).set_roi((x, y, width, height))

    def setCameraDevice(self, label: str, /) -> None:
        """Make a camera the current one."""
        self._camera(label)
        self._current_camera = label

    def getImageWidth(self) -> int:
        """Width of the current camera's frames."""
        return self._camera(self._current_camera).roi[2]

    def getImageHeight(self) -> int:
        """Height of the current camera's frames."""
        return self._camera(self._current_camera).roi[3]

    def getBytesPerPixel(self) -> int:
        """Depth of the current camera's frames."""
        return 1 if self._camera(self._current_camera).label in self.faults.shallow else 2

    def clearROI(self) -> None:
        """Set the current camera to its full sensor."""
        with self._lock:
            camera = self._still(self._current_camera)
            camera.roi = camera.whole_sensor()

    def snapImage(self) -> None:
        """Expose the current camera once; takes its exposure."""
        with self._lock:
            camera = self._still(self._current_camera)
            if self._bench.waits_for_pulses(camera.label):
                raise RuntimeError(f'Error in device "{camera.label}": no trigger came within its time')
            if camera.label in self.faults.silent_after:
                raise RuntimeError(f'Error in device "{camera.label}": Failed to snap an image')
            self._snapped = self._bench.see(camera, number=self._snaps, plane=0, pulse=None)
            self._snaps += 1
        self._clock.sleep(camera.exposure_ms / 1000)

    def getImage(self) -> NDArray[Any]:
        """The frame that was snapped, (y, x)."""
        if self._snapped is None:
            raise RuntimeError("Camera image buffer read failed.")
        return self._draw(self._snapped)

    # --- sequences ----------------------------------------------------------------------------------------

    def startSequenceAcquisition(self, label: str, number: int, _interval: float, stop: bool, /) -> None:
        """Start a camera, or those that a device joins, on `number` frames into the buffer, which is emptied.

        The interval is unused, as in MMCore.
        """
        with self._lock:
            cameras = [self._still(camera) for camera in self._bench.cameras_of(label)]
            self._exposures.start(cameras, number, stop_on_overflow=stop)

    def stopSequenceAcquisition(self, label: str, /) -> None:
        """Stop a camera's sequence; nothing when none is running."""
        with self._lock:
            self._exposures.catch_up()
            for each in self._bench.cameras_of(label):
                self._camera(each)
                if each in self._buffer.sequences:
                    self._buffer.sequences[each].running = False

    def isSequenceRunning(self, label: str, /) -> bool:
        """Whether a camera's sequence goes on."""
        with self._lock:
            self._exposures.catch_up()
            return any(self._buffer.running(self._camera(each).label) for each in self._bench.cameras_of(label))

    def getRemainingImageCount(self) -> int:
        """Frames in the circular buffer."""
        with self._lock:
            self._exposures.catch_up()
            return len(self._buffer.frames)

    def isBufferOverflowed(self) -> bool:
        """Whether frames were lost because nobody took them."""
        with self._lock:
            self._exposures.catch_up()
            return self._buffer.overflowed

    def clearCircularBuffer(self) -> None:
        """Empty the circular buffer."""
        with self._lock:
            self._exposures.catch_up()
            self._buffer.clear()

    def setCircularBufferMemoryFootprint(self, megabytes: int, /) -> None:
        """Size of the circular buffer; empties it."""
        with self._lock:
            self._buffer.megabytes = megabytes
            self._buffer.clear()

    def popNextImageMD(self, tags: Any, /) -> NDArray[Any]:
        """Take the oldest frame, (y, x), and fill `tags` with what is known of it."""
        with self._lock:
            self._exposures.catch_up()
            frame = self._buffer.take()
        tags.fill(tags_of(frame))
        return self._draw(frame.context)

    # --- what there is --------------------------------------------------------------------------------------

    def _draw(self, context: FrameContext) -> NDArray[Any]:
        frame = self.frame_source(context)
        shape = self.faults.frame_shapes.get(context.camera)
        if shape is not None:
            frame = np.resize(frame, shape)
        return (frame >> 8).astype(np.uint8) if context.camera in self.faults.shallow else frame

    def _check_known(self, label: str) -> None:
        if not self._bench.known(label):
            raise RuntimeError(f'No device with label "{label}"')

    def _check_property(self, label: str, name: str) -> None:
        self._check_known(label)
        if name not in self._bench.properties[label]:
            raise RuntimeError(f'Cannot get value of property "{name}": no such property of "{label}"')

    def _check_reading(self, label: str, name: str) -> None:
        if (label, name) in self.faults.failing_readings:
            raise RuntimeError(f'Error in device "{label}": Serial command failed while reading "{name}" (14)')

    def _stage(self, label: str) -> SimulatedStage:
        if label not in self._bench.stages:
            raise RuntimeError(f'No stage with label "{label}"')
        return self._bench.stages[label]

    def _where(self, label: str, quantity: str) -> list[float]:
        with self._lock:
            self._check_reading(label, quantity)
            return list(self._stage(label).where())

    def _send(self, label: str, target: tuple[float, ...]) -> None:
        with self._lock:
            self._exposures.catch_up()
            beside = self.faults.ends_beside.get(label, 0.0)
            ends = tuple(float(each) + beside for each in target)
            self._stage(label).send(ends, stuck=label in self.faults.stuck)

    def _camera(self, label: str) -> CameraState:
        if label not in self._bench.cameras:
            raise RuntimeError(f'No camera with label "{label}"')
        return self._bench.cameras[label]

    def _still(self, label: str) -> CameraState:
        """A camera that is not taking a sequence, as everything that changes it needs it."""
        self._exposures.catch_up()
        camera = self._camera(label)
        if self._buffer.running(label):
            raise RuntimeError("This operation can not be executed while sequence acquisition is running.")
        return camera
