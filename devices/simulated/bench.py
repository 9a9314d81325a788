"""What stands on the simulated bench: stages, cameras, properties and config groups, and what a camera sees
of it.

Knows what there is and in which state; does not know when anything is exposed.
"""

from dataclasses import dataclass, field

from devices.clock import Clock
from devices.configuration import CameraSettings, Configuration
from devices.multi_camera import PHYSICAL_CAMERAS, joins
from devices.simulated.cameras import CameraState
from devices.simulated.scan import PIEZO_PROPERTIES, SCANNER_PROPERTIES, TRUE_UM_PER_DEG, Pulse
from devices.simulated.scene import FrameContext
from devices.simulated.stages import SimulatedStage

LASER_LABEL, LASER_PROPERTY = "PLogic:E:36", "OutputChannel"
HALF_PERCENT = 50.0
LIT_PERCENT = 5.0

Preset = tuple[str, str, str]
"""Label, property and value."""


@dataclass(slots=True)
class Bench:
    """An instrument without hardware.

    Parameters
    ----------
    configuration
        What it is made of.
    clock
        Its time.
    """

    configuration: Configuration
    clock: Clock
    stages: dict[str, SimulatedStage] = field(init=False)
    cameras: dict[str, CameraState] = field(init=False)
    properties: dict[str, dict[str, str]] = field(init=False)
    groups: dict[str, dict[str, Preset]] = field(init=False)
    _began: float = field(init=False)

    def __post_init__(self) -> None:
        self._began = self.clock.monotonic()
        self.stages = _stages(self.configuration, self.clock)
        self.cameras = {
            camera.label: CameraState(
                label=camera.label, view=view, sensor=camera.sensor_px, readout_ms=camera.readout_ms
            )
            for view, camera in _cameras(self.configuration).items()
        }
        self.properties = _properties(self.configuration)
        self.groups = _groups(self.configuration)

    def known(self, label: str) -> bool:
        """Whether there is a device of this label."""
        return label in self.properties

    def scanners(self) -> dict[str, str]:
        """Labels of the scanners, by side."""
        return {"A": self.configuration.scanner_a.label, "B": self.configuration.scanner_b.label}

    def piezos(self) -> dict[str, str]:
        """Labels of the piezos, by side."""
        return {"A": self.configuration.piezo_a.label, "B": self.configuration.piezo_b.label}

    def cameras_of(self, label: str) -> list[str]:
        """Labels of the cameras that a device starts: itself, or those that it joins."""
        if label != self.configuration.multi_camera:
            return [label]
        joined = (self.properties[label][name] for name in PHYSICAL_CAMERAS)
        return [camera for camera in joined if camera in self.cameras]

    def waits_for_pulses(self, label: str) -> bool:
        """Whether a camera is set to the controller's pulses."""
        return self.properties[label].get("TRIGGER SOURCE") == "EXTERNAL"

    def see(self, camera: CameraState, *, number: int, plane: int, pulse: Pulse | None) -> FrameContext:
        """What a camera sees now.

        Parameters
        ----------
        camera
            Which one.
        number
            Of the frame in its sequence, from 0.
        plane
            Slice of the scan, from 0.
        pulse
            That started the exposure, and says where sheet and focus are; None: where galvo and piezo rest.
        """
        configuration = self.configuration
        side = "B" if camera.view == "B" else "A"
        x, y = self.stages[configuration.xy_stage.label].where()
        (z,) = self.stages[configuration.z_stage.label].where()
        sheet = self.stages[self.scanners()[side]].where()[1] * TRUE_UM_PER_DEG
        (focus,) = self.stages[self.piezos()[side]].where()
        if pulse is not None:
            sheet = pulse.sheet_um
            focus = focus if pulse.focus_um is None else pulse.focus_um
        shining = configuration.laser.presets.get(self.properties[LASER_LABEL][LASER_PROPERTY], ())
        return FrameContext(
            camera=camera.label,
            view=camera.view,
            number=number,
            plane=plane,
            elapsed_s=self.clock.monotonic() - self._began,
            roi=camera.roi,
            binning=camera.binning,
            exposure_ms=camera.exposure_ms,
            stage_um=(x, y, z),
            sheet_um=sheet,
            focus_um=focus,
            powers={line: self._power(line) for line in shining},
            lamp_percent=self._lamp(),
        )

    def _power(self, line: str) -> float:
        settings = self.configuration.laser.lines[line]
        return float(self.properties[settings.label][settings.property]) / settings.units_per_percent

    def _lamp(self) -> float:
        led = self.configuration.led
        if self.properties[led.label]["State"] != led.on:
            return 0.0
        return float(self.properties[led.label][led.intensity_property]) / led.units_per_percent


def _cameras(configuration: Configuration) -> dict[str, CameraSettings]:
    return {"A": configuration.camera_a, "B": configuration.camera_b, "bottom": configuration.bottom_camera}


def _stages(configuration: Configuration, clock: Clock) -> dict[str, SimulatedStage]:
    """Speeds in micrometer (or degree) per second, about those of the instrument's drives."""
    lowest = max(30.0, configuration.fdrive.limits_um[0])
    return {
        configuration.xy_stage.label: SimulatedStage(clock, 2000.0, (0.0, 0.0)),
        configuration.z_stage.label: SimulatedStage(clock, 500.0),
        configuration.fdrive.label: SimulatedStage(clock, 1000.0, (lowest,)),
        configuration.piezo_a.label: SimulatedStage(clock, 20000.0),
        configuration.piezo_b.label: SimulatedStage(clock, 20000.0),
        configuration.scanner_a.label: SimulatedStage(clock, 5000.0, (0.0, 0.0)),
        configuration.scanner_b.label: SimulatedStage(clock, 5000.0, (0.0, 0.0)),
    }


def _properties(configuration: Configuration) -> dict[str, dict[str, str]]:
    properties: dict[str, dict[str, str]] = {
        configuration.xy_stage.label: {},
        configuration.z_stage.label: {},
        configuration.fdrive.label: {},
        configuration.piezo_a.label: dict(PIEZO_PROPERTIES),
        configuration.piezo_b.label: dict(PIEZO_PROPERTIES),
        configuration.scanner_a.label: dict(SCANNER_PROPERTIES),
        configuration.scanner_b.label: dict(SCANNER_PROPERTIES),
        LASER_LABEL: {LASER_PROPERTY: configuration.laser.off},
    }
    for view, camera in _cameras(configuration).items():
        properties[camera.label] = _camera_properties(view, camera)
    if configuration.multi_camera:
        both = (configuration.camera_a.label, configuration.camera_b.label)
        properties[configuration.multi_camera] = joins(both)
    for line in configuration.laser.lines.values():
        percent = min(max(LIT_PERCENT, line.min), line.max)
        properties.setdefault(line.label, {})[line.property] = f"{percent * line.units_per_percent:.6g}"
    led = configuration.led
    half = f"{HALF_PERCENT * led.units_per_percent:.6g}"
    properties[led.label] = {"State": led.off, led.intensity_property: half}
    return properties


def _camera_properties(view: str, camera: CameraSettings) -> dict[str, str]:
    properties = {"Binning": "1", **dict.fromkeys(camera.external, ""), **camera.internal}
    values = ("1", "simulated 1.0", f"simulated {view}")
    names = (camera.gain_property, camera.firmware_property, camera.serial_property)
    properties.update({name: value for name, value in zip(names, values, strict=True) if name is not None})
    return properties


def _groups(configuration: Configuration) -> dict[str, dict[str, Preset]]:
    laser, led = configuration.laser, configuration.led
    return {
        laser.group: {preset: (LASER_LABEL, LASER_PROPERTY, preset) for preset in laser.presets},
        led.group: {state: (led.label, "State", state) for state in (led.on, led.off)},
    }
