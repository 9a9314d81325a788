"""Brings up the real MMCore: from a configuration file of Micro-Manager, or device by device.

The one module that imports pymmcore, and only when it is called. What it returns satisfies
`devices.core.Core` as it is.
"""

from pathlib import Path
from typing import Any

from devices.clock import Clock
from devices.configuration import (
    AxisSettings,
    CameraSettings,
    Configuration,
    LaserSettings,
    LedSettings,
    LineSettings,
    MicroManagerDevice,
    MicroManagerSettings,
    ScannerSettings,
    SpimSettings,
    TemperatureSettings,
    XYStageSettings,
)
from devices.core import Connection
from gently_bluesky.errors import ConfigError, DeviceError

DEMO = "DemoCamera"
EXTRA = "pip install 'gently_bluesky[micromanager]'"


def open_micromanager(configuration: Configuration, clock: Clock) -> Connection:
    """Load the devices of a configuration into an MMCore.

    Parameters
    ----------
    configuration
        Its section `micromanager` says what to load.
    clock
        For the connection.

    Returns
    -------
    Connection
        To a `pymmcore.CMMCore`.

    Raises
    ------
    ConfigError
        pymmcore is not installed, or the section names nothing to load, or what is not there.
    DeviceError
        Micro-Manager could not load it; its message is attached.
    """
    try:
        import pymmcore  # noqa: PLC0415 - optional
    except ImportError as error:
        raise ConfigError(f"core 'micromanager' needs pymmcore: {EXTRA}") from error
    settings = configuration.micromanager
    if settings.file is None and not settings.devices:
        raise ConfigError("micromanager: names neither a file nor devices; there is nothing to load")
    _check_paths(settings)
    core = pymmcore.CMMCore()
    try:
        core.setDeviceAdapterSearchPaths([str(path) for path in settings.adapter_paths or _test_adapters()])
        if settings.file is not None:
            core.loadSystemConfiguration(str(settings.file))
        _load_devices(core, settings)
        _define_groups(core, settings)
        core.setCircularBufferMemoryFootprint(configuration.spim.circular_buffer_mb)
    except (RuntimeError, ValueError, OSError) as error:  # a configuration file that it refuses is an OSError
        core.unloadAllDevices()
        what = f" from {settings.file}" if settings.file is not None else ""
        said = " ".join(str(error).split())  # several lines, some of them empty
        raise DeviceError(f"Micro-Manager could not load {configuration.name!r}{what}: {said}") from error
    return Connection(core, clock, pymmcore.Metadata)


def _check_paths(settings: MicroManagerSettings) -> None:
    """See that what is named is there; MMCore takes a folder for an empty file, and any search path."""
    if settings.file is not None and not settings.file.is_file():
        raise ConfigError(f"micromanager.file: there is no file {settings.file}")
    for path in settings.adapter_paths:
        if not path.is_dir():
            raise ConfigError(f"micromanager.adapter_paths: there is no folder {path}")


def demo_micromanager_configuration(*, sensor_px: tuple[int, int] = (512, 512)) -> Configuration:
    """Give an instrument of Micro-Manager's demo devices, under the labels of the real one.

    Parameters
    ----------
    sensor_px
        Width and height of the sensors of all cameras.

    Returns
    -------
    Configuration
        Its cameras trigger themselves: the demo galvo has no SPIM state machine.

    Notes
    -----
    Limits are those of the demo devices where they are narrower: a DStage goes from -300 to 300 micrometer, a
    DGalvo from 0 to 10 degree on paper and anywhere in fact; a DXYStage rounds to 0.015 micrometer.
    """
    lines = {
        line: LineSettings(
            label=f"LaserPower{line}",
            property="Voltage",
            units_per_percent=0.1,
            min=bounds.min,
            max=bounds.max,
        )
        for line, bounds in LaserSettings().lines.items()
    }
    laser = LaserSettings(lines=lines)
    led = LedSettings(intensity_property="Voltage", units_per_percent=0.1)
    return Configuration(
        name="demo adapters",
        core="micromanager",
        trigger="internal",
        xy_stage=XYStageSettings(tolerance_um=0.05),
        z_stage=AxisSettings(label="ZStage:Z:32", limits_um=(-50, 250)),
        fdrive=AxisSettings(label="ZStage:V:37", limits_um=(-300, 300), tolerance_um=0.1, timeout_s=120),
        piezo_a=AxisSettings(label="PiezoStage:P:34", limits_um=(-200, 200), tolerance_um=0.01),
        piezo_b=AxisSettings(label="PiezoStage:Q:35", limits_um=(-200, 200), tolerance_um=0.01),
        scanner_a=ScannerSettings(label="Scanner:AB:33"),
        scanner_b=ScannerSettings(label="Scanner:CD:33"),
        camera_a=_demo_camera("HamCam1", sensor_px, magnification=40.0),
        camera_b=_demo_camera("HamCam2", sensor_px, magnification=40.0),
        bottom_camera=_demo_camera("Bottom PCO", sensor_px, magnification=10.0),
        laser=laser,
        led=led,
        spim=SpimSettings(circular_buffer_mb=128),
        temperature=TemperatureSettings(controller="simulated"),
        micromanager=MicroManagerSettings(
            devices=_demo_devices(laser, led, sensor_px), groups=_demo_groups(laser, led)
        ),
    )


def _demo_camera(label: str, sensor_px: tuple[int, int], *, magnification: float) -> CameraSettings:
    return CameraSettings(
        label=label,
        sensor_px=sensor_px,
        magnification=magnification,
        exposure_ms=5.0,
        gain_property="Gain",
        firmware_property="CameraID",
        serial_property="CameraName",
    )


def _demo_devices(
    laser: LaserSettings, led: LedSettings, sensor_px: tuple[int, int]
) -> tuple[MicroManagerDevice, ...]:
    def device(label: str, name: str, **properties: str) -> MicroManagerDevice:
        return MicroManagerDevice(label=label, adapter=DEMO, name=name, properties=properties)

    camera = {
        "PixelType": "16bit",
        "BitDepth": "16",
        "OnCameraCCDXSize": str(sensor_px[0]),
        "OnCameraCCDYSize": str(sensor_px[1]),
    }
    stages = ("ZStage:Z:32", "ZStage:V:37", "PiezoStage:P:34", "PiezoStage:Q:35")
    return (
        device("XYStage:XY:31", "DXYStage"),
        *(device(label, "DStage") for label in stages),
        *(device(label, "DGalvo") for label in ("Scanner:AB:33", "Scanner:CD:33")),
        *(device(label, "DCam", **camera) for label in ("HamCam1", "HamCam2", "Bottom PCO")),
        device("PLogic:E:36", "DStateDevice"),
        *(
            device(line.label, "D-DA", Voltage=f"{min(max(5.0, line.min), line.max) * line.units_per_percent:g}")
            for line in laser.lines.values()
        ),
        device(led.label, "D-DA", Voltage="5"),
        device("LED shutter", "DShutter"),
    )


def _demo_groups(laser: LaserSettings, led: LedSettings) -> dict[str, dict[str, tuple[tuple[str, str, str], ...]]]:
    return {
        laser.group: {
            preset: (("PLogic:E:36", "State", str(state)),) for state, preset in enumerate(laser.presets)
        },
        led.group: {
            led.off: (("LED shutter", "State", "0"),),
            led.on: (("LED shutter", "State", "1"),),
        },
    }


def _test_adapters() -> list[Path]:
    try:
        import mm_test_adapters  # noqa: PLC0415 - optional
    except ImportError as error:
        raise ConfigError(
            f"micromanager.adapter_paths is empty, and mm-test-adapters is not there to fill it: {EXTRA}"
        ) from error
    return [Path(mm_test_adapters.device_adapter_path())]


def _load_devices(core: Any, settings: MicroManagerSettings) -> None:
    for device in settings.devices:
        core.loadDevice(device.label, device.adapter, device.name)
        core.initializeDevice(device.label)
        for name, value in device.properties.items():
            core.setProperty(device.label, name, value)


def _define_groups(core: Any, settings: MicroManagerSettings) -> None:
    for group, presets in settings.groups.items():
        core.defineConfigGroup(group)
        for preset, properties in presets.items():
            for label, name, value in properties:
                core.defineConfig(group, preset, label, name, value)
