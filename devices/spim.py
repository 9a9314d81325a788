"""The detector that plans name: one hardware-timed volume in one or both views for each trigger.

Knows the order of things: room first, then light, then frames, then dark, then sealed. What it is told it
says in every event; what cannot change it says once. Frames pass through and are never kept.
"""

import math
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

from ophyd import Component as Cpt
from ophyd import Device, Kind, Signal
from ophyd.device import create_device_from_components
from ophyd.utils import LimitError

from devices.camera import check_roi
from devices.cleanup import clean_up_after
from devices.configuration import Configuration, SpimSettings
from devices.core import Connection
from devices.exposing import ExposingDevice
from devices.laser import Laser
from devices.outlet import PIXELS
from devices.scan import ScanProgram
from devices.sequence import take_frames
from devices.signals import CoreSignal, Derived, Setting, Told, as_if_told, as_told
from devices.stage import LinearAxis, XYStage
from devices.status import CausedStatus, FramesStatus
from devices.view import Arm, View
from gently_bluesky.errors import PresetError
from gently_bluesky.protocols import Sink, VolumeMetadata

TIMING = {
    "delay_before_scan_ms": "SPIMDelayBeforeScan(ms)",
    "scan_duration_ms": "SPIMScanDuration(ms)",
    "delay_before_laser_ms": "SPIMDelayBeforeLaser(ms)",
    "laser_duration_ms": "SPIMLaserDuration(ms)",
    "delay_before_camera_ms": "SPIMDelayBeforeCamera(ms)",
    "camera_duration_ms": "SPIMCameraDuration(ms)",
}
"""Signals of the timing, and the properties of the scanner that they become."""
LONGEST_MS = 10000.0
MOST_SLICES = 10000


def _timing(name: str) -> Cpt:
    return Cpt(
        Setting,
        initial=lambda spim: getattr(spim.settings.timing, name),
        units="ms",
        precision=3,
        limits=(0.0, LONGEST_MS),
    )


def _check_views(spim: "Spim", value: Any) -> None:
    if len(value) > 1 and not spim.multi_camera:
        raise PresetError(
            f"{spim.views.name}: asked for {value!r}; two cameras must be started as one, and multi_camera names "
            f"nothing that does: take one view at a time, or name it in the configuration"
        )


def _check_roi(spim: "Spim", value: Any) -> None:
    for arm in spim.arms.values():
        width, height = (size // arm.camera.binning for size in arm.camera.sensor_px)
        check_roi(f"{spim.name} ({arm.camera.label})", value, (width, height))


class Spim(ExposingDevice):
    """A dual-view light-sheet microscope as one detector. Make it with `make_spim`.

    Parameters
    ----------
    connection
        To the core.
    configuration
        Of the instrument.
    laser
        Lit for each volume.
    xy_stage, z_stage
        Asked where the sample is at each volume.
    sink
        Stores the frames as they come; None: volumes travel in the event.

    Notes
    -----
    Volumes read as `<name>_a` and `<name>_b`, (z, y, x), uint16 counts. Which of them there are is `views`;
    this, `num_slices` and `roi` decide the geometry, and a plan that changes them uses another stream.
    """

    views = Cpt(
        Setting,
        initial=lambda spim: spim.settings.views,
        dtype_numpy="<U",
        choices=("A", "B", "AB"),
        check=_check_views,
        after=lambda spim: spim.arrange(),
    )
    num_slices = Cpt(
        Setting,
        initial=lambda spim: spim.settings.num_slices,
        dtype_numpy="<i8",
        limits=(1, MOST_SLICES),
        convert=int,
    )
    z_step_um = Cpt(
        Setting, initial=lambda spim: spim.settings.z_step_um, units="um", precision=3, limits=(0.001, 1000.0)
    )
    exposure_ms = Cpt(
        Setting,
        initial=lambda spim: spim.settings.exposure_ms,
        units="ms",
        precision=3,
        limits=(0.001, LONGEST_MS),
    )
    roi = Cpt(
        Setting,
        initial=lambda spim: list(spim.arms["A"].camera.roi),
        dtype_numpy="<i8",
        shape=(4,),
        units="pixel",
        check=_check_roi,
        convert=lambda value: [int(each) for each in value],
    )
    sheet_width_deg = Cpt(
        Setting,
        initial=lambda spim: spim.settings.sheet_width_deg,
        units="deg",
        precision=4,
        limits=(0.0, 10.0),
    )
    sheet_offset_deg = Cpt(
        Setting,
        initial=lambda spim: spim.settings.sheet_offset_deg,
        units="deg",
        precision=4,
        limits=(-5.0, 5.0),
    )
    delay_before_scan_ms = _timing("delay_before_scan_ms")
    scan_duration_ms = _timing("scan_duration_ms")
    delay_before_laser_ms = _timing("delay_before_laser_ms")
    laser_duration_ms = _timing("laser_duration_ms")
    delay_before_camera_ms = _timing("delay_before_camera_ms")
    camera_duration_ms = _timing("camera_duration_ms")
    laser_preset = Cpt(
        Derived,
        read=lambda spim: spim.light.preset.get(),
        dtype_numpy="<U",
        choices=lambda spim: spim.light.presets,
    )
    trigger_source = Cpt(Derived, read=lambda spim: spim.trigger_by, dtype_numpy="<U", kind=Kind.config)
    core_version = Cpt(
        CoreSignal,
        source="mmcore:version",
        read=lambda spim: spim.connection.core.getVersionInfo(),
        dtype_numpy="<U",
        kind=Kind.config,
    )
    a = Cpt(View, view="A")
    b = Cpt(View, view="B")

    def __init__(
        self,
        *,
        name: str,
        connection: Connection,
        configuration: Configuration,
        laser: Laser,
        xy_stage: XYStage,
        z_stage: LinearAxis,
        sink: Sink | None = None,
        **kwargs: Any,
    ) -> None:
        self.settings: SpimSettings = configuration.spim
        self.trigger_by = configuration.trigger
        self.multi_camera = configuration.multi_camera
        self.sink = sink
        self.arms: Mapping[str, Arm] = {
            "A": Arm("A", configuration.camera_a, configuration.scanner_a, configuration.piezo_a),
            "B": Arm("B", configuration.camera_b, configuration.scanner_b, configuration.piezo_b),
        }
        self._taken: list[View] = []
        self._xy_stage = xy_stage
        self._z_stage = z_stage
        super().__init__(name=name, connection=connection, light=laser, **kwargs)
        self.arrange()

    @property
    def held_as(self) -> str:
        """Its own name: only its volumes depend on its settings."""
        return str(self.name)

    @property
    def holds(self) -> frozenset[str]:
        """What must stay as it is during a volume."""
        arms = [view.arm for view in self.active_views()]
        labels = [each.label for arm in arms for each in (arm.camera, arm.scanner, arm.piezo)]
        return frozenset((self.name, self.light.name, *labels))

    def arrange(self) -> None:
        """Let the views that are taken, and no others, appear in descriptions and readings."""
        wanted = str(self.views.get())
        for view in (self.a, self.b):
            view.kind = Kind.normal if view.view in wanted else Kind.omitted

    def active_views(self, told: Told = as_told) -> list[View]:
        """The views that a trigger takes, in the order in which they are scanned."""
        return [view for view in (self.a, self.b) if view.view in str(told(self.views))]

    def volume_shape(self, told: Told = as_told) -> tuple[int, int, int]:
        """Shape of the next volume of each view, (z, y, x)."""
        _, _, width, height = told(self.roi)
        return int(told(self.num_slices)), int(height), int(width)

    def trigger_bytes(self, wanted: Mapping[Signal, Any] | None = None) -> int:
        """Bytes of the pixels of one volume in each active view.

        Parameters
        ----------
        wanted
            Settings of this detector, and what each is to be told before; the others are as they are.
        """
        told = as_if_told(wanted or {})
        return len(self.active_views(told)) * math.prod(self.volume_shape(told)) * PIXELS.itemsize

    def check_settings(self, wanted: Mapping[Signal, Any]) -> None:
        """Refuse settings with which no volume can be taken; nothing is changed.

        Parameters
        ----------
        wanted
            Settings of this detector or of its views, and what each is to be told; the others are as they are.

        Raises
        ------
        PresetError, LimitError
            One of them must not be this, or together they lead piezo or galvo out of their limits or leave a
            camera no time to read out.
        """
        for setting, value in wanted.items():
            setting.check_value(value)
        self._program(as_if_told(wanted))

    def expose(self, told: Told) -> None:
        """Take one volume of each active view.

        Parameters
        ----------
        told
            Gives the settings that it is to be taken with.

        Raises
        ------
        AcquisitionError
            It did not come whole; what came was given up, and the light is off.
        PresetError, LimitError
            It cannot be taken with these settings; nothing was exposed.
        DiskFullError, NoOpenRunError, WriterFailedError
            The sink cannot take it; nothing was exposed.
        """
        core = self.connection.core
        views = self._taken = self.active_views(told)
        program = self._program(told)
        external = self.trigger_by == "external"
        for view in views:
            view.set_up_camera(told(self.roi), float(told(self.exposure_ms)), external=external)
        try:
            if external:
                program.load(core)
            shape, metadata = self.volume_shape(told), self._metadata_of_volume(told)
            takes = [view.open(shape, metadata, told) for view in views]
            with self.lit(str(told(self.laser_preset))):
                take_frames(
                    self.connection,
                    takes,
                    starter=takes[0].label if len(takes) == 1 else self.multi_camera,
                    start=(lambda: program.run(core)) if external else (lambda: None),
                    stopped=self.stopped,
                    timeout_s=max(view.arm.camera.timeout_s for view in views),
                    came=self._tell_frames,
                )
            if external:
                program.idle(core)
            for view in views:
                view.seal()
        except BaseException as error:
            reason = f"{type(error).__name__}: {error}"
            rest = [partial(program.idle, core)] if external else []
            clean_up_after(error, *rest, *(partial(view.outlet.abort, reason) for view in views))
            raise

    def collect_asset_docs(self, index: int | None = None) -> Iterator[tuple[str, dict[str, Any]]]:
        """Give the documents that name the volumes.

        Parameters
        ----------
        index
            None in a step scan: the newest volume. A number in a fly scan: up to there, exclusive.
        """
        for view in self._taken or self.active_views():
            yield from view.outlet.asset_docs(index)

    def outcome(self) -> dict[str, Any]:
        """Readings of the volumes that were just taken."""
        return {name: reading for view in self._taken for name, reading in view.outcome().items()}

    def describe_next(self) -> dict[str, Any]:
        """Data keys of the settings, and of the volumes of the active views."""
        return dict(Device.describe(self))

    def get_index(self) -> int:
        """How many volumes are sealed in every active view."""
        return min(view.outlet.sealed for view in self.active_views())

    @property
    def stage_keys(self) -> tuple[str, str, str]:
        """Data keys of the stage (x, y, z), for events in which the stages are read as well."""
        return self._xy_stage.x.name, self._xy_stage.y.name, self._z_stage.name

    def _new_status(self) -> CausedStatus:
        return FramesStatus(self, frames=len(self.active_views()) * int(self.num_slices.get()))

    def _tell_frames(self, count: int) -> None:
        self.light.check_lit()
        if isinstance(self._status, FramesStatus):
            self._status.tell(count)

    def _program(self, told: Told) -> ScanProgram:
        """Give the scan that the settings ask for, if it can be."""
        views = self.active_views(told)
        program = ScanProgram(
            sides=[view.side(told) for view in views],
            slices=int(told(self.num_slices)),
            sheet_width_deg=float(told(self.sheet_width_deg)),
            sheet_offset_deg=float(told(self.sheet_offset_deg)),
            timing_ms={name: float(told(getattr(self, signal))) for signal, name in TIMING.items()},
        )
        for view, side in zip(views, program.sides, strict=True):
            view.check_scan(side, program)
        if self.trigger_by == "external":
            self._check_exposure(views, float(told(self.exposure_ms)), program.period_ms)
        return program

    def _check_exposure(self, views: list[View], exposure: float, period_ms: float) -> None:
        """See that every pulse finds its camera waiting: one that still exposes or reads out misses it."""
        slowest = max((view.arm.camera for view in views), key=lambda camera: camera.readout_ms)
        most = period_ms - slowest.readout_ms
        if exposure > most + 1e-6:
            raise LimitError(
                f"{self.exposure_ms.name}: asked for {exposure:g}; a plane takes {period_ms:g} ms with these "
                f"timings, and {slowest.label} needs {slowest.readout_ms:g} ms of them to read out: at most "
                f"{most:g}, or the camera would miss triggers; for longer exposures set {self.name}_"
                f"scan_duration_ms (and laser_duration_ms) longer"
            )

    def _metadata_of_volume(self, told: Told) -> VolumeMetadata:
        x, y = self._xy_stage.position
        return {
            "channel": str(told(self.laser_preset)),
            "exposure_ms": float(told(self.exposure_ms)),
            "stage_position_um": (x, y, self._z_stage.position),
        }


def make_spim(*, name: str, laser: Laser, **kwargs: Any) -> Spim:
    """Make the detector, with a signal `laser_power_<line>_percent` for each line of the laser.

    Parameters
    ----------
    name
        Of the device.
    laser
        Its lines are read in every event.
    **kwargs
        As `Spim` takes them.

    Returns
    -------
    Spim
        Ready for plans.
    """
    powers = {f"laser_power_{line}_percent": _power(line) for line in laser.powers}
    of_instrument = create_device_from_components("Spim", base_class=Spim, **powers)
    spim: Spim = of_instrument(name=name, laser=laser, **kwargs)
    return spim


def _power(line: str) -> Cpt:
    return Cpt(
        CoreSignal,
        source=lambda spim: spim.light.powers[line].source_name,
        read=lambda spim: spim.light.powers[line].get(),
        units="percent",
        precision=2,
    )
