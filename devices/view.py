"""One light path of the diSPIM: its scan geometry, its camera, and what its last volume was.

Knows the line between piezo and galvo and where the frames of this view go; when they are taken is `spim`'s.
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from ophyd import Component as Cpt
from ophyd import Kind, Signal
from ophyd.utils import LimitError

from devices.camera import mean_counts
from devices.camera_facts import CameraFacts
from devices.configuration import AxisSettings, CameraSettings, ScannerSettings
from devices.core import Connection
from devices.outlet import PIXELS, Outlet
from devices.scan import ScanProgram, Side
from devices.sequence import Take
from devices.signals import Derived, Measured, Setting, Told, as_told
from gently_bluesky.errors import AcquisitionError, ReadingError
from gently_bluesky.protocols import Sink, Volume, VolumeMetadata


@dataclass(frozen=True, slots=True)
class Arm:
    """The hardware of one view."""

    view: str
    """"A" or "B"."""
    camera: CameraSettings
    scanner: ScannerSettings
    piezo: AxisSettings


def _not_zero(view: Any, value: float) -> None:
    if value == 0:
        raise LimitError(f"{view.name}: a slope of 0 um per degree says that the galvo does not move the sheet")


class View(CameraFacts):
    """One view of a `Spim`.

    Parameters
    ----------
    arm
        Its hardware; set by the parent.

    Notes
    -----
    Reads as `<name>` (the volume, (z, y, x), uint16 counts), `<name>_mean` (mean counts of every 8th pixel in
    y and x of all planes, hinted), `<name>_frame_times` ((z,), seconds since the epoch), and its scan
    geometry. The galvo follows the piezo along a line: its amplitude is the piezo's over the slope.
    """

    piezo_offset_um = Cpt(
        Setting,
        initial=lambda view: view.spim_settings.piezo_offset_um,
        units="um",
        precision=2,
        limits=lambda view: view.arm.piezo.limits_um,
    )
    galvo_offset_deg = Cpt(
        Setting,
        initial=lambda view: view.spim_settings.galvo_offset_deg,
        units="deg",
        precision=4,
        limits=lambda view: view.arm.scanner.limits_deg,
    )
    calibration_um_per_deg = Cpt(
        Setting,
        initial=lambda view: view.spim_settings.calibration_um_per_deg,
        units="um/deg",
        precision=2,
        check=_not_zero,
    )
    piezo_amplitude_um = Cpt(Derived, read=lambda view: view.piezo_range_um, units="um", precision=3)
    galvo_amplitude_deg = Cpt(Derived, read=lambda view: view.galvo_range_deg, units="deg", precision=5)
    frame_times = Cpt(
        Measured, read=lambda view: view.last_times, shape=lambda view: (view.planes,), dims=("z",), units="s"
    )
    mean = Cpt(Measured, read=lambda view: view.last_mean, units="counts", precision=1, kind=Kind.hinted)
    camera_label = Cpt(Derived, read=lambda view: view.label, dtype_numpy="<U", kind=Kind.config)
    piezo_label = Cpt(Derived, read=lambda view: view.arm.piezo.label, dtype_numpy="<U", kind=Kind.config)
    scanner_label = Cpt(Derived, read=lambda view: view.arm.scanner.label, dtype_numpy="<U", kind=Kind.config)
    pixel_size_um = Cpt(Derived, read=lambda view: view.pixel_um, units="um", kind=Kind.config)
    binning = Cpt(Derived, read=lambda view: view.arm.camera.binning, dtype_numpy="<i8", kind=Kind.config)

    def __init__(self, *, name: str, parent: Any, view: str, **kwargs: Any) -> None:
        self.arm: Arm = parent.arms[view]
        self.view = view
        self.settings = self.arm.camera
        self.label = self.settings.label
        self.spim_settings = parent.settings
        self.connection: Connection = parent.connection
        sink: Sink | None = parent.sink
        self.outlet = Outlet(sink)
        self._times: NDArray[np.float64] | None = None
        self._sums = np.zeros(0)
        self._mean: float | None = None
        super().__init__(name=name, parent=parent, **kwargs)

    @property
    def planes(self) -> int:
        """Planes of the next volume."""
        return int(self.parent.num_slices.get())

    @property
    def pixel_um(self) -> float:
        """Side of a pixel in the sample, binned, in micrometer."""
        camera = self.arm.camera
        return camera.pixel_um / camera.magnification * camera.binning

    @property
    def piezo_range_um(self) -> float:
        """Way of the piezo from the first plane to the last, in micrometer."""
        return self.side().piezo_amplitude_um

    @property
    def galvo_range_deg(self) -> float:
        """Way of the galvo from the first plane to the last, in degree."""
        return self.side().galvo_amplitude_deg

    @property
    def last_times(self) -> NDArray[np.float64]:
        """When the core received each frame of the last volume, (z,), seconds since the epoch."""
        if self._times is None:
            raise ReadingError(f"{self.name}: nothing was taken yet; trigger it first")
        return self._times

    @property
    def last_mean(self) -> float:
        """Mean counts of the last volume, over every 8th pixel in y and x of all planes."""
        if self._mean is None:
            raise ReadingError(f"{self.name}: nothing was taken yet; trigger it first")
        return self._mean

    def side(self, told: Told = as_told) -> Side:
        """How this view is to be scanned.

        Parameters
        ----------
        told
            What the settings are; what they are now, if not given.
        """
        range_um = (int(told(self.parent.num_slices)) - 1) * float(told(self.parent.z_step_um))
        return Side(
            view=self.view,
            scanner=self.arm.scanner.label,
            piezo=self.arm.piezo.label,
            galvo_amplitude_deg=range_um / float(told(self.calibration_um_per_deg)),
            galvo_offset_deg=float(told(self.galvo_offset_deg)),
            piezo_amplitude_um=range_um,
            piezo_offset_um=float(told(self.piezo_offset_um)),
        )

    def check_scan(self, side: Side, program: ScanProgram) -> None:
        """Refuse a scan that leaves the limits of piezo or galvo.

        Parameters
        ----------
        side
            How this view would be scanned.
        program
            Of which it is a part.

        Raises
        ------
        LimitError
            It would; the message says from where to where, what is allowed, and which settings to change.
        """
        galvo, own, shared = self.arm.scanner.limits_deg, self.name, self.parent.name
        planes = f"{program.slices} planes need"
        fewer = f"set {shared}_num_slices or {shared}_z_step_um smaller, or {own}"
        sheet = f"set {shared}_sheet_width_deg or {shared}_sheet_offset_deg smaller"
        for what, offset, width, limits, unit, do in (
            (f"{planes} the piezo", side.piezo_offset_um, side.piezo_amplitude_um, self.arm.piezo.limits_um, "um",
             f"{fewer}_piezo_offset_um nearer to the middle"),
            (f"{planes} the galvo", side.galvo_offset_deg, side.galvo_amplitude_deg, galvo, "deg",
             f"{fewer}_galvo_offset_deg nearer to the middle"),
            ("the sheet needs the galvo", program.sheet_offset_deg, program.sheet_width_deg, galvo, "deg", sheet),
        ):  # fmt: skip
            low, high = sorted((offset - width / 2, offset + width / 2))
            if low < limits[0] or high > limits[1]:
                raise LimitError(
                    f"{own}: {what} from {low:g} to {high:g} {unit}, "
                    f"allowed are {limits[0]:g} to {limits[1]:g}; {do}"
                )

    def set_up_camera(self, roi: Sequence[int], exposure_ms: float, *, external: bool) -> None:
        """Bring the camera to what the volume needs, and see that it is.

        Parameters
        ----------
        roi
            x, y, width, height in binned pixels.
        exposure_ms
            Of each frame.
        external
            Whether it waits for the controller's pulses.

        Raises
        ------
        AcquisitionError
            It took something else.
        """
        core, camera = self.connection.core, self.arm.camera
        if int(core.getProperty(self.label, "Binning")) != camera.binning:
            core.setProperty(self.label, "Binning", str(camera.binning))
        wanted = [int(each) for each in roi]
        if list(core.getROI(self.label)) != wanted:
            core.setROI(self.label, *wanted)
        if list(core.getROI(self.label)) != wanted:
            raise AcquisitionError(
                f"{self.name} ({self.label}): asked for region of interest {wanted}, "
                f"the camera took {list(core.getROI(self.label))}"
            )
        core.setExposure(self.label, exposure_ms)
        taken = core.getExposure(self.label)
        # Rolling shutters count exposures in rows of about 0.01 ms. What is no number is not near either.
        if not abs(taken - exposure_ms) <= max(0.02, 0.01 * exposure_ms):
            raise AcquisitionError(
                f"{self.name} ({self.label}): asked for an exposure of {exposure_ms:g} ms, "
                f"the camera took {taken:g}"
            )
        for name, value in (camera.external if external else camera.internal).items():
            core.setProperty(self.label, name, value)
        self._check_frames(height=wanted[3], width=wanted[2])

    def changing(self, signal: Signal, value: Any) -> AbstractContextManager[None]:
        """Let a setting be changed as the detector does.

        Raises
        ------
        ExposingError
            An exposure that goes on depends on it.
        """
        allowed: AbstractContextManager[None] = self.parent.changing(signal, value)
        return allowed

    def open(self, shape: tuple[int, int, int], more: VolumeMetadata, told: Told) -> Take:
        """Make room for a volume, and say how its frames are to be taken.

        Parameters
        ----------
        shape
            (z, y, x).
        more
            What is true of both views.
        told
            Gives the settings that it is taken with.

        Returns
        -------
        Take
            Writes each frame as it comes.

        Raises
        ------
        DiskFullError, NoOpenRunError, WriterFailedError
            The sink has no room for it.
        """
        step = float(told(self.parent.z_step_um))
        side = self.side(told)
        first = side.piezo_offset_um - side.piezo_amplitude_um / 2
        metadata: VolumeMetadata = {
            **more,
            "view": self.view,
            "voxel_size_um": (step, self.pixel_um, self.pixel_um),
            "z_um": [first + plane * step for plane in range(shape[0])],
        }
        self._times = None
        self._mean = None
        self._sums = np.zeros(shape[0])
        times = np.zeros(shape[0])
        volume: Volume = self.outlet.open(self.name, shape, metadata)

        def receive(z: int, frame: NDArray[Any], time: float) -> None:
            volume.write(z, frame, time=time)
            times[z] = time
            self._sums[z] = mean_counts(frame)
            if z == shape[0] - 1:
                self._times = times

        return Take(label=self.label, count=shape[0], shape=(shape[1], shape[2]), receive=receive)

    def seal(self) -> None:
        """Declare the volume complete."""
        self.outlet.seal()
        self._mean = float(self._sums.mean())

    def describe(self) -> dict[str, Any]:
        """Data keys of the readings, and of the volume."""
        volume = self.outlet.describe(
            self.name,
            source=f"mmcore:{self.label}",
            shape=self.parent.volume_shape(),
            voxel_size_um=(self.parent.z_step_um.name, self.pixel_um, self.pixel_um),
            view=self.view,
            exposure_ms=self.parent.exposure_ms.name,
            channel=self.parent.laser_preset.name,
            stage_position_um=self.parent.stage_keys,
            z_centre_um=self.piezo_offset_um.name,
        )
        return {**super().describe(), **volume}

    def read(self) -> dict[str, Any]:
        """Readings of the last volume of the detector, those of this view.

        Raises
        ------
        ReadingError
            There is none that ended well since the detector was staged.
        """
        read = self.parent.read().items()
        return {name: each for name, each in read if name == self.name or name.startswith(f"{self.name}_")}

    def outcome(self) -> dict[str, Any]:
        """Readings of the volume that was just taken."""
        volume = self.outlet.read(self.name, float(self.last_times[-1]))
        return {**self.frame_times.read(), **self.mean.read(), **volume}

    def _check_frames(self, *, height: int, width: int) -> None:
        """See that the camera will deliver what was asked for."""
        # Cameras share one buffer: MMCore mixes up frames of different sizes, in silence.
        core = self.connection.core
        core.setCameraDevice(self.label)
        found = (core.getImageHeight(), core.getImageWidth(), core.getBytesPerPixel())
        if found != (height, width, PIXELS.itemsize):
            raise AcquisitionError(
                f"{self.name} ({self.label}): would deliver frames of {found[0]} x {found[1]} (y, x) with "
                f"{found[2]} bytes a pixel; asked for are {height} x {width} with {PIXELS.itemsize}"
            )
