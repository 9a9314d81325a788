"""Single frames: one camera, one exposure, its light.

Knows exposure, region of interest and binning of a camera that exposes by itself; how the same cameras take a
volume is `spim`'s business.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from ophyd import Component as Cpt
from ophyd import Device, Kind, Signal
from ophyd.utils import LimitError

from devices.camera_facts import CameraFacts
from devices.cleanup import clean_up_after
from devices.configuration import CameraSettings
from devices.core import Connection
from devices.exposing import ExposingDevice
from devices.light import Light
from devices.outlet import PIXELS, Outlet
from devices.signals import CoreSignal, Derived, Measured, Told, as_if_told, as_told
from devices.stage import LinearAxis, XYStage
from gently_bluesky.errors import AcquisitionError, ReadingError
from gently_bluesky.protocols import Sink, VolumeMetadata

LONGEST_EXPOSURE_MS = 10000.0
BINNINGS = (1, 2, 4, 8)


class Camera(ExposingDevice, CameraFacts):
    """A camera; a trigger takes one frame.

    Parameters
    ----------
    connection
        To the core.
    settings
        Label, sensor, optics.
    light
        What shines during the exposure.
    sink
        Stores the frames; None: they travel in the event.
    view
        "A" or "B" for the cameras of the light-sheet views; None otherwise.
    xy_stage, z_stage
        Asked where the sample is at each frame; None: not known.

    Notes
    -----
    Reads as `<name>` (the frame, (y, x), uint16 counts), `<name>_mean` (mean counts of every 8th pixel in y
    and x, hinted), `<name>_frame_times` ((1,), seconds since the epoch), `<name>_channel` (what the frame shows;
    empty: nothing that has a name), and its settings.
    """

    exposure_ms = Cpt(
        CoreSignal,
        source=lambda camera: f"mmcore:{camera.label}.Exposure",
        read=lambda camera: camera.connection.core.getExposure(camera.label),
        write=lambda camera, value: camera.connection.core.setExposure(camera.label, float(value)),
        units="ms",
        precision=3,
        limits=(0.001, LONGEST_EXPOSURE_MS),
    )
    roi = Cpt(
        CoreSignal,
        source=lambda camera: f"mmcore:{camera.label}.ROI",
        read=lambda camera: camera.read_roi(),
        write=lambda camera, value: camera.write_roi(value),
        check=lambda camera, value: camera.check_roi(value),
        dtype_numpy="<i8",
        shape=(4,),
        units="pixel",
    )
    binning = Cpt(
        CoreSignal,
        source=lambda camera: f"mmcore:{camera.label}.Binning",
        read=lambda camera: int(camera.connection.core.getProperty(camera.label, "Binning")),
        write=lambda camera, value: camera.write_binning(int(value)),
        dtype_numpy="<i8",
        limits=(1, 8),
        check=lambda camera, value: camera.check_binning(value),
    )
    channel = Cpt(Derived, read=lambda camera: camera.light.channel or "", dtype_numpy="<U")
    frame_times = Cpt(Measured, read=lambda camera: camera.last_times, shape=(1,), units="s")
    mean = Cpt(Measured, read=lambda camera: camera.last_mean, units="counts", precision=1, kind=Kind.hinted)
    pixel_size_um = Cpt(
        Derived,
        read=lambda camera: camera.settings.pixel_um / camera.settings.magnification,
        units="um",
        kind=Kind.config,
    )

    def __init__(
        self,
        *,
        name: str,
        connection: Connection,
        settings: CameraSettings,
        light: Light,
        sink: Sink | None = None,
        view: str | None = None,
        xy_stage: XYStage | None = None,
        z_stage: LinearAxis | None = None,
        **kwargs: Any,
    ) -> None:
        self.settings = settings
        self.label = settings.label
        self.view = view
        self._stages = None if xy_stage is None or z_stage is None else (xy_stage.x, xy_stage.y, z_stage)
        self._outlet = Outlet(sink)
        self._mean: float | None = None
        self._taken_at: float | None = None
        super().__init__(name=name, connection=connection, light=light, **kwargs)

    @property
    def held_as(self) -> str:
        """Its label: whoever exposes with this camera depends on its settings."""
        return self.label

    @property
    def holds(self) -> frozenset[str]:
        """What must stay as it is during a frame."""
        return frozenset((self.label, self.light.name))

    @property
    def last_mean(self) -> float:
        """Mean counts of the last frame, over every 8th pixel in y and x.

        Raises
        ------
        ReadingError
            There is none.
        """
        if self._mean is None:
            raise ReadingError(f"{self.name}: nothing was taken yet; trigger it first")
        return self._mean

    @property
    def last_times(self) -> NDArray[np.float64]:
        """When the last frame had been read out, (1,), seconds since the epoch.

        Raises
        ------
        ReadingError
            There is none.
        """
        if self._taken_at is None:
            raise ReadingError(f"{self.name}: nothing was taken yet; trigger it first")
        return np.array([self._taken_at])

    def read_roi(self) -> list[int]:
        """Region of interest now: x, y, width, height in binned pixels."""
        return [int(each) for each in self.connection.core.getROI(self.label)]

    def write_roi(self, value: Sequence[int]) -> None:
        """Set the region of interest: x, y, width, height in binned pixels."""
        self.connection.core.setROI(self.label, *(int(each) for each in value))

    def check_roi(self, value: Sequence[int]) -> None:
        """Refuse a region of interest that does not lie on the sensor.

        Raises
        ------
        LimitError
            It does not.
        """
        width, height = (size // int(self.binning.get()) for size in self.settings.sensor_px)
        check_roi(self.name, value, (width, height))

    def check_binning(self, value: int) -> None:
        """Refuse a binning that cameras do not have.

        Raises
        ------
        LimitError
            Not 1, 2, 4 or 8.
        """
        if value not in BINNINGS:
            raise LimitError(f"{self.name}_binning: asked for {value}, there are {BINNINGS}")

    def write_binning(self, value: int) -> None:
        """Set the binning; the region of interest becomes the whole sensor."""
        core = self.connection.core
        core.setProperty(self.label, "Binning", str(value))
        core.setCameraDevice(self.label)
        core.clearROI()

    def frame_shape(self, told: Told = as_told) -> tuple[int, int]:
        """Shape of the next frame, (y, x)."""
        _, _, width, height = told(self.roi)
        return int(height), int(width)

    def trigger_bytes(self, wanted: Mapping[Signal, Any] | None = None) -> int:
        """Bytes of the pixels of one frame.

        Parameters
        ----------
        wanted
            Settings of this camera, and what each is to be told before; the others are as they are.
        """
        return math.prod(self.frame_shape(as_if_told(wanted or {}))) * PIXELS.itemsize

    def describe_next(self) -> dict[str, Any]:
        """Data keys of the readings, and of the frame."""
        voxel = self.settings.pixel_um / self.settings.magnification * int(self.binning.get())
        more: dict[str, str | tuple[str, ...]] = {} if self.view is None else {"view": self.view}
        if self._stages is not None:
            more["stage_position_um"] = tuple(axis.name for axis in self._stages)
        frame = self._outlet.describe(
            self.name,
            source=f"mmcore:{self.label}",
            shape=self.frame_shape(),
            voxel_size_um=(voxel, voxel),
            exposure_ms=self.exposure_ms.name,
            channel=self.channel.name,
            **more,
        )
        return {**Device.describe(self), **frame}

    def outcome(self) -> dict[str, Any]:
        """Readings of the frame that was just taken."""
        frame = self._outlet.read(self.name, float(self.last_times[0]))
        return {**self.frame_times.read(), **self.mean.read(), **frame}

    def expose(self, told: Told) -> None:
        """Take one frame.

        Parameters
        ----------
        told
            Gives the settings that it is taken with.

        Raises
        ------
        AcquisitionError
            The camera delivered none, or something else than was asked for.
        """
        core, clock = self.connection.core, self.connection.clock
        for name, value in self.settings.internal.items():
            core.setProperty(self.label, name, value)
        core.setCameraDevice(self.label)
        shape = self.frame_shape(told)
        volume = self._outlet.open(self.name, shape, self._metadata_of_frame(told))
        try:
            with self.lit():
                frame = self._snap()
            if frame.shape != shape or frame.dtype != np.uint16:
                raise AcquisitionError(  # noqa: TRY301 - gives the volume up like every other failure
                    f"camera {self.label}: the frame is {frame.dtype} of shape {frame.shape}, "
                    f"asked for was uint16 of {shape}"
                )
            self._taken_at = clock.time()
            volume.write(0, frame, time=self._taken_at)
            self._outlet.seal()
        except BaseException as error:
            clean_up_after(error, partial(self._outlet.abort, f"{type(error).__name__}: {error}"))
            raise
        self._mean = mean_counts(frame)

    def _snap(self) -> NDArray[Any]:
        core = self.connection.core
        try:
            core.snapImage()
            return core.getImage()
        except Exception as error:
            raise AcquisitionError(f"camera {self.label} delivered no frame: {error}") from error

    def collect_asset_docs(self, index: int | None = None) -> Iterator[tuple[str, dict[str, Any]]]:
        """Give the documents that name the frames.

        Parameters
        ----------
        index
            None in a step scan: the newest frame. A number in a fly scan: up to there, exclusive.
        """
        yield from self._outlet.asset_docs(index)

    def get_index(self) -> int:
        """How many frames are sealed."""
        return self._outlet.sealed

    def _metadata_of_frame(self, told: Told) -> VolumeMetadata:
        um = self.settings.pixel_um / self.settings.magnification * int(told(self.binning))
        metadata: VolumeMetadata = {"voxel_size_um": (um, um), "exposure_ms": float(told(self.exposure_ms))}
        if self._stages is not None:
            metadata["stage_position_um"] = [axis.position for axis in self._stages]
        if channel := str(told(self.channel)):
            metadata["channel"] = channel
        if self.view is not None:
            metadata["view"] = self.view
        return metadata


def mean_counts(frame: NDArray[Any]) -> float:
    """Mean of every 8th pixel in y and x: a number to watch, at a sixty-fourth of the cost."""
    return float(frame[::8, ::8].mean())


def check_roi(name: str, roi: Sequence[int], size: tuple[int, int]) -> None:
    """Refuse a region of interest that does not lie on the pixels that there are.

    Parameters
    ----------
    name
        Of the device, for the message.
    roi
        x, y, width, height.
    size
        Width and height of all pixels.

    Raises
    ------
    LimitError
        It does not, or it is not four whole numbers.
    """
    try:
        x, y, width, height = (int(each) for each in roi)
    except (TypeError, ValueError):
        raise LimitError(f"{name}: region of interest {roi!r} is not x, y, width, height") from None
    if min(x, y) < 0 or min(width, height) < 1 or x + width > size[0] or y + height > size[1]:
        raise LimitError(
            f"{name}: region of interest {[x, y, width, height]} does not lie on {size[0]} x {size[1]} pixels"
        )
