"""What differs between instruments, checked before anything moves.

The defaults are the instrument of the project's facts: a diSPIM on an ASI Tiger controller. Nothing here
talks to hardware. A configuration that cannot be meant is an error at once, and says which key and what is
allowed.
"""

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationInfo, model_validator


def _in_order(limits: tuple[float, float]) -> tuple[float, float]:
    if not limits[0] < limits[1]:
        raise ValueError(f"the lower limit comes first, not {list(limits)}")
    return limits


def _beside_the_file(path: Path, info: ValidationInfo) -> Path:
    folder = (info.context or {}).get("folder")
    return path if folder is None else Path(folder) / path


Limits = Annotated[tuple[float, float], AfterValidator(_in_order)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
FilePath = Annotated[Path, AfterValidator(_beside_the_file)]
"""A relative path is meant from the folder of the configuration file."""
Whole = Annotated[int, Field(gt=0)]
Label = Annotated[str, Field(min_length=1)]


class Section(BaseModel):
    """A part of the configuration: frozen, and closed to keys that nobody reads."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class AxisSettings(Section):
    """An axis: a focus drive or a piezo."""

    label: Label
    limits_um: Limits
    tolerance_um: Positive = 0.05
    timeout_s: Positive = 10.0
    settle_s: NotNegative = 0.0


class XYStageSettings(Section):
    """The stage that carries the sample."""

    label: Label = "XYStage:XY:31"
    x_limits_um: Limits = (-2252.1, 983.0)
    y_limits_um: Limits = (-1677.0, 586.6)
    tolerance_um: Positive = 0.1
    timeout_s: Positive = 30.0
    settle_s: NotNegative = 0.0


class ScannerSettings(Section):
    """A pair of galvos; x makes the sheet, y moves it through the sample."""

    label: Label
    limits_deg: Limits = (-5.0, 5.0)
    tolerance_deg: Positive = 0.005
    timeout_s: Positive = 5.0


class CameraSettings(Section):
    """A camera and the optics in front of it."""

    label: Label
    sensor_px: tuple[Whole, Whole] = (2048, 2048)
    """Width and height of the sensor."""
    pixel_um: Positive = 6.5
    """Side of a pixel on the sensor."""
    magnification: Positive = 40.0
    roi_px: tuple[int, int, int, int] | None = None
    """x, y, width, height; absent: the whole sensor."""
    binning: Literal[1, 2, 4, 8] = 1
    exposure_ms: Positive = 10.0
    timeout_s: Positive = 30.0
    """Longest time without a frame."""
    external: dict[str, str] = {}
    """Properties that make it wait for the controller's pulses."""
    internal: dict[str, str] = {}
    """Properties that make it expose by itself."""
    readout_ms: NotNegative = 0.5
    """From the end of an exposure until it takes the next trigger; the default is the simulated camera's."""
    gain_property: str | None = None
    firmware_property: str | None = None
    serial_property: str | None = None

    @property
    def roi(self) -> tuple[int, int, int, int]:
        """The region of interest at the beginning: x, y, width, height."""
        return self.roi_px or (0, 0, *self.sensor_px)

    @model_validator(mode="after")
    def _roi_on_sensor(self) -> Self:
        x, y, width, height = self.roi
        if x < 0 or y < 0 or width < 1 or height < 1:
            raise ValueError(f"roi_px {list(self.roi)}: x and y from 0, width and height from 1")
        if x + width > self.sensor_px[0] or y + height > self.sensor_px[1]:
            sensor, size = self.sensor_px, (min(width, self.sensor_px[0]), min(height, self.sensor_px[1]))
            middle = [(sensor[0] - size[0]) // 2, (sensor[1] - size[1]) // 2, *size]
            raise ValueError(
                f"roi_px {list(self.roi)} does not lie on the sensor {list(sensor)}; "
                f"give both, as in roi_px = {middle}"
            )
        return self


class LineSettings(Section):
    """One laser line: how its power is set, and how much of it is allowed."""

    min: NotNegative = 0.0
    max: Annotated[float, Field(gt=0, le=100)] = 100.0
    label: Label
    property: Label
    units_per_percent: Positive = 1.0
    """What the property counts in, for one percent."""

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.min > self.max:
            raise ValueError(f"min {self.min:g} is above max {self.max:g}")
        return self


def _line(wavelength: str, **bounds: float) -> LineSettings:
    return LineSettings(label=f"LaserPower{wavelength}", property="PowerSetpoint(%)", **bounds)


class LaserSettings(Section):
    """The lasers: presets of a config group, and a power for each line."""

    group: Label = "Laser"
    off: Label = "ALL OFF"
    presets: dict[str, tuple[str, ...]] = {
        "ALL OFF": (),
        "405 only ": ("405",),
        "488 only": ("488",),
        "561 only": ("561",),
        "637 only": ("637",),
        "488 and 561": ("488", "561"),
        "ALL ON": ("405", "488", "561", "637"),
    }
    """Every preset, spelled as on the instrument, and the lines that it lights."""
    selected: str = "488 only"
    """The preset that is selected at the beginning; selecting lights nothing."""
    lines: dict[str, LineSettings] = {
        "405": _line("405"),
        "488": _line("488", min=2.0, max=6.0),
        "561": _line("561"),
        "637": _line("637"),
    }
    timeout_s: Positive = 5.0

    @model_validator(mode="after")
    def _presets_know_lines(self) -> Self:
        for preset in (self.off, self.selected):
            if preset not in self.presets:
                raise ValueError(f"preset {preset!r} is not among presets: {list(self.presets)}")
        if self.presets[self.off]:
            raise ValueError(
                f"preset {self.off!r} is to switch everything off and lights {self.presets[self.off]}"
            )
        for preset, lines in self.presets.items():
            if unknown := [line for line in lines if line not in self.lines]:
                raise ValueError(f"preset {preset!r} lights {unknown}; lines are {list(self.lines)}")
        return self


class LedSettings(Section):
    """The lamp of the bottom camera."""

    label: Label = "LED:X:31"
    group: Label = "LED"
    on: Label = "Open"
    off: Label = "Closed"
    selected: Label = "Open"
    """What the lamp is during an exposure of the bottom camera; selecting lights nothing."""
    intensity_property: Label = "LED Intensity(%)"
    units_per_percent: Positive = 1.0
    """What the property counts in, for one percent."""
    limits_percent: Limits = (1.0, 100.0)
    timeout_s: Positive = 5.0


class TemperatureSettings(Section):
    """The controller of the sample's temperature."""

    controller: Literal["simulated", "none"] = "none"
    """A simulated controller, or none; a real one is handed to the function that builds the devices."""
    limits_c: Limits = (0.0, 99.9)
    locked: str = "[ SYSTEM LOCKED ]"
    timeout_s: Positive = 600.0


class TimingSettings(Section):
    """One slice of the SPIM scan, from its start, in milliseconds."""

    delay_before_scan_ms: NotNegative = 6.75
    scan_duration_ms: Positive = 5.5
    delay_before_laser_ms: NotNegative = 8.0
    laser_duration_ms: Positive = 5.0
    delay_before_camera_ms: NotNegative = 8.0
    camera_duration_ms: Positive = 1.0


class SpimSettings(Section):
    """What a volume is unless a plan says otherwise."""

    views: Literal["A", "B", "AB"] = "A"
    num_slices: Annotated[int, Field(ge=1)] = 50
    z_step_um: Positive = 1.0
    exposure_ms: Positive = 5.0
    sheet_width_deg: NotNegative = 2.0
    sheet_offset_deg: float = 0.0
    galvo_offset_deg: float = 0.0
    piezo_offset_um: float = 0.0
    calibration_um_per_deg: float = 100.0
    timing: TimingSettings = TimingSettings()
    circular_buffer_mb: Whole = 1024
    """Of MMCore, for all cameras; MMCore 11 uses half of it when both are started as one, MMCore 12 all."""


class SpaceSettings(Section):
    """Room on the disk that runs are written to, in GB of 1e9 bytes."""

    reserve_gb: NotNegative | None = None
    """What volumes leave alone, so that documents always find room; absent: what the writer chooses."""
    suspend_below_gb: NotNegative = 5.0
    """Plans wait while less is free; the default is the usual reserve and two large volumes of each view."""
    resume_from_gb: NotNegative = 10.0
    """They go on by themselves when as much is free again."""

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.resume_from_gb < self.suspend_below_gb:
            raise ValueError(
                f"resume_from_gb {self.resume_from_gb:g} is below suspend_below_gb {self.suspend_below_gb:g}"
            )
        return self


class MicroManagerDevice(Section):
    """A device to load."""

    label: Label
    adapter: Label
    name: Label
    properties: dict[str, str] = {}
    """Set after it is initialized, in this order."""


class MicroManagerSettings(Section):
    """How to bring up MMCore: a configuration file of Micro-Manager, or devices one by one."""

    file: FilePath | None = None
    adapter_paths: tuple[FilePath, ...] = ()
    """Where the adapters are; empty: those of the package mm-test-adapters."""
    devices: tuple[MicroManagerDevice, ...] = ()
    groups: dict[str, dict[str, tuple[tuple[str, str, str], ...]]] = {}
    """Config group, preset, and its (label, property, value) each."""


class SimulationSettings(Section):
    """What the simulated core is to be."""

    seed: int = 1
    embryos_um: dict[str, tuple[float, float]] = {
        "embryo_1": (-400.0, -300.0),
        "embryo_2": (-150.0, -520.0),
        "embryo_3": (120.0, -240.0),
    }
    """Name, and the stage position (x, y) that centres it."""
    volume_file: FilePath | None = None
    """A TIFF (z, y, x) whose planes are served instead of embryos."""


_EXTERNAL = {"SENSOR MODE": "PROGRESSIVE", "TRIGGER SOURCE": "EXTERNAL", "TRIGGER ACTIVE": "EDGE"}
_INTERNAL = {"TRIGGER SOURCE": "INTERNAL"}
_SPIM_ROI = (128, 896, 2048, 512)  # with a sensor of 2304 x 2304: x 128 + 2048 does not fit on 2048


def _spim_camera(label: str) -> CameraSettings:
    return CameraSettings(
        label=label,
        sensor_px=(2304, 2304),
        roi_px=_SPIM_ROI,
        exposure_ms=5.0,
        external=_EXTERNAL,
        internal=_INTERNAL,
        firmware_property="Camera Firmware Version",
        serial_property="CameraID",
        gain_property="Gain",
    )


class Configuration(Section):
    """An instrument."""

    name: Label = "diSPIM"
    core: Literal["simulated", "micromanager"] = "simulated"
    trigger: Literal["external", "internal"] = "external"
    """Who times the frames of a volume: the scanner's state machine, or each camera by itself."""
    xy_stage: XYStageSettings = XYStageSettings()
    z_stage: AxisSettings = AxisSettings(label="ZStage:Z:32", limits_um=(-50, 250))
    fdrive: AxisSettings = AxisSettings(
        label="ZStage:V:37", limits_um=(30, 25000), tolerance_um=0.1, timeout_s=120
    )
    piezo_a: AxisSettings = AxisSettings(label="PiezoStage:P:34", limits_um=(-200, 200), tolerance_um=0.01)
    piezo_b: AxisSettings = AxisSettings(label="PiezoStage:Q:35", limits_um=(-200, 200), tolerance_um=0.01)
    scanner_a: ScannerSettings = ScannerSettings(label="Scanner:AB:33")
    scanner_b: ScannerSettings = ScannerSettings(label="Scanner:CD:33")
    camera_a: CameraSettings = _spim_camera("HamCam1")
    camera_b: CameraSettings = _spim_camera("HamCam2")
    multi_camera: str = "Multi Camera"
    """Label of what starts camera_a and camera_b as one; empty: nothing does, and a volume has one view."""
    bottom_camera: CameraSettings = CameraSettings(label="Bottom PCO", magnification=10.0)
    laser: LaserSettings = LaserSettings()
    led: LedSettings = LedSettings()
    temperature: TemperatureSettings = TemperatureSettings()
    spim: SpimSettings = SpimSettings()
    space: SpaceSettings = SpaceSettings()
    micromanager: MicroManagerSettings = MicroManagerSettings()
    simulation: SimulationSettings = SimulationSettings()

    @model_validator(mode="after")
    def _both_views_can_be_started(self) -> Self:
        if len(self.spim.views) > 1 and not self.multi_camera:
            raise ValueError(
                f"multi_camera names nothing that starts both cameras, and spim.views is {self.spim.views!r}"
            )
        return self

    @model_validator(mode="after")
    def _cameras_agree(self) -> Self:
        if self.camera_a.roi[2:] != self.camera_b.roi[2:]:
            raise ValueError(
                f"camera_a and camera_b share one buffer and must deliver frames of one size; "
                f"roi_px say {list(self.camera_a.roi)} and {list(self.camera_b.roi)}"
            )
        return self
