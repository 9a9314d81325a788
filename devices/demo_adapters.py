"""An instrument on Micro-Manager's demo adapters, under the labels of the real one.

Knows what the demo adapters are called, what they can do, and which of their properties stand for ours; what the
instrument is, its configuration says.
"""

from devices.configuration import AxisSettings, CameraSettings, Configuration, MicroManagerDevice
from devices.multi_camera import joins

Properties = tuple[tuple[str, str, str], ...]
"""Label, property and value each."""
DEMO, UTILITIES = "DemoCamera", "Utilities"
PRESETS, LAMP = "PLogic:E:36", "LED shutter"
"""Labels of what switches the lasers and the lamp."""
STAGE_UM = (-300.0, 300.0)
"""How far a DStage goes."""
VOLTAGE = "Voltage"
IN_VOLTS = {"units_per_percent": 0.1}
"""A D-DA has 0 to 10 V."""
ON_PERCENT = 5.0
"""Of every line at the beginning, as far as its bounds allow."""
LAMP_PERCENT = 50.0


def demo_micromanager_configuration(
    configuration: Configuration | None = None, *, sensor_px: tuple[int, int] = (512, 512)
) -> Configuration:
    """Give an instrument on Micro-Manager's demo adapters.

    Parameters
    ----------
    configuration
        The instrument that it is to be; the one of the defaults with small sensors, if not given. Its labels,
        limits, time-outs, presets, bounds of lasers, sensors, regions and optics are kept.
    sensor_px
        Width and height of the sensors of all cameras where no configuration is given.

    Returns
    -------
    Configuration
        With the demo adapters to load, and with what these force: cameras trigger themselves, for the demo galvo
        has no SPIM state machine; powers are voltages; the temperature is simulated.

    Notes
    -----
    A DStage goes from -300 to 300 micrometer, and limits are cut to that where something is left of them; a DGalvo
    goes from 0 to 10 degree on paper and anywhere in fact; a DXYStage rounds to 0.015 micrometer.
    """
    of = configuration or _small(sensor_px)
    lines = {
        name: line.model_copy(update={"label": f"LaserPower{name}", "property": VOLTAGE, **IN_VOLTS})
        for name, line in of.laser.lines.items()
    }
    stages = {name: _within_reach(getattr(of, name)) for name in ("z_stage", "fdrive", "piezo_a", "piezo_b")}
    cameras = {name: _demo_camera(getattr(of, name)) for name in ("camera_a", "camera_b", "bottom_camera")}
    forced = {
        "core": "micromanager",
        "trigger": "internal",
        "laser": of.laser.model_copy(update={"lines": lines}),
        "led": of.led.model_copy(update={"intensity_property": VOLTAGE, **IN_VOLTS}),
        "temperature": of.temperature.model_copy(update={"controller": "simulated"}),
        **stages,
        **cameras,
    }
    demo = of.model_copy(update=forced)
    adapters = {"devices": _devices(demo), "groups": _groups(demo)}
    return demo.model_copy(update={"micromanager": of.micromanager.model_copy(update=adapters)})


def _small(sensor_px: tuple[int, int]) -> Configuration:
    whole = Configuration()
    cameras = {
        name: getattr(whole, name).model_copy(update={"sensor_px": sensor_px, "roi_px": None})
        for name in ("camera_a", "camera_b", "bottom_camera")
    }
    few_mb = whole.spim.model_copy(update={"circular_buffer_mb": 128})
    return whole.model_copy(update={"name": "demo adapters", "spim": few_mb, **cameras})


def _within_reach(axis: AxisSettings) -> AxisSettings:
    low, high = max(axis.limits_um[0], STAGE_UM[0]), min(axis.limits_um[1], STAGE_UM[1])
    # limits of which nothing is left stay: the device then refuses, and the user learns why
    return axis.model_copy(update={"limits_um": (low, high)}) if low < high else axis


def _demo_camera(camera: CameraSettings) -> CameraSettings:
    properties = {"gain_property": "Gain", "firmware_property": "CameraID", "serial_property": "CameraName"}
    return camera.model_copy(update={"external": {}, "internal": {}, **properties})


def _devices(of: Configuration) -> tuple[MicroManagerDevice, ...]:
    def device(label: str, name: str, **properties: str) -> MicroManagerDevice:
        return MicroManagerDevice(label=label, adapter=DEMO, name=name, properties=properties)

    def both_cameras(label: str) -> MicroManagerDevice:
        properties = joins((of.camera_a.label, of.camera_b.label))
        return MicroManagerDevice(label=label, adapter=UTILITIES, name="Multi Camera", properties=properties)

    def volts(percent: float) -> str:
        return f"{percent * IN_VOLTS['units_per_percent']:g}"

    return (
        device(of.xy_stage.label, "DXYStage"),
        *(device(axis.label, "DStage") for axis in (of.z_stage, of.fdrive, of.piezo_a, of.piezo_b)),
        *(device(scanner.label, "DGalvo") for scanner in (of.scanner_a, of.scanner_b)),
        *(
            device(camera.label, "DCam", **_sensor(camera.sensor_px))
            for camera in (of.camera_a, of.camera_b, of.bottom_camera)
        ),
        *([both_cameras(of.multi_camera)] if of.multi_camera else []),
        device(PRESETS, "DStateDevice"),
        *(
            device(line.label, "D-DA", **{VOLTAGE: volts(min(max(ON_PERCENT, line.min), line.max))})
            for line in of.laser.lines.values()
        ),
        device(of.led.label, "D-DA", **{VOLTAGE: volts(LAMP_PERCENT)}),
        device(LAMP, "DShutter"),
    )


def _sensor(size_px: tuple[int, int]) -> dict[str, str]:
    width, height = size_px
    return {
        "PixelType": "16bit",
        "BitDepth": "16",
        "OnCameraCCDXSize": str(width),
        "OnCameraCCDYSize": str(height),
    }


def _groups(of: Configuration) -> dict[str, dict[str, Properties]]:
    presets: dict[str, Properties] = {
        preset: ((PRESETS, "State", str(state)),) for state, preset in enumerate(of.laser.presets)
    }
    lamp: dict[str, Properties] = {of.led.off: ((LAMP, "State", "0"),), of.led.on: ((LAMP, "State", "1"),)}
    return {of.laser.group: presets, of.led.group: lamp}
