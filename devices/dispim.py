"""The instrument as a namespace of named devices, over the simulated core or over Micro-Manager's.

Both ways to make it differ in the core alone: every device above is the same code.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields
from typing import Any

from ophyd import Device

from devices.camera import Camera
from devices.clock import Clock, SystemClock
from devices.configuration import Configuration, ScannerSettings
from devices.core import Connection, Core
from devices.demo_adapters import demo_micromanager_configuration
from devices.laser import Laser, make_laser
from devices.led import Led
from devices.micromanager import open_micromanager
from devices.multi_camera import check_joins
from devices.scanner import Scanner, StillScanner
from devices.simulated.cameras import SimulatedTags
from devices.simulated.core import SimulatedCore
from devices.simulated.microscopy import Microscopy
from devices.simulated.scene import FrameSource
from devices.simulated.temperature import SimulatedTemperatureController
from devices.simulated.volume_file import VolumeFile
from devices.spim import Spim, make_spim
from devices.stage import LinearAxis, XYStage
from devices.temperature import NoController, Temperature, TemperatureController
from gently_bluesky.errors import ConfigError, DeviceError
from gently_bluesky.protocols import Sink


@dataclass(frozen=True, slots=True)
class Dispim:
    """A diSPIM: its devices by name, and what they are made of."""

    spim: Spim
    xy_stage: XYStage
    z_stage: LinearAxis
    fdrive: LinearAxis
    piezo_a: LinearAxis
    piezo_b: LinearAxis
    scanner_a: Scanner
    scanner_b: Scanner
    camera_a: Camera
    camera_b: Camera
    bottom_camera: Camera
    laser: Laser
    led: Led
    temperature: Temperature
    core: Core
    configuration: Configuration
    _close: Callable[[], None]

    def devices(self) -> dict[str, Device]:
        """Every device by its name, as plans and profiles call it."""
        values = (getattr(self, each.name) for each in fields(self))
        return {value.name: value for value in values if isinstance(value, Device)}

    def close(self) -> None:
        """End what is going on, switch everything off and let go of the hardware; a second time does nothing.

        Raises
        ------
        DeviceError
            A light would not go off, or an exposure would not end.
        """
        failures = []
        for end in (
            self.spim.stop,
            self.camera_a.stop,
            self.camera_b.stop,
            self.bottom_camera.stop,
            self.laser.all_off,
            self.led.all_off,
        ):
            try:
                end()
            except Exception as error:  # noqa: BLE001 - the next one must have its turn
                failures.append(str(error))
        self._close()
        if failures:
            raise DeviceError("; ".join(failures))


def simulated_dispim(
    configuration: Configuration | None = None,
    *,
    sink: Sink | None = None,
    clock: Clock | None = None,
    frame_source: FrameSource | None = None,
) -> Dispim:
    """Make an instrument without hardware.

    Parameters
    ----------
    configuration
        The instrument that it is to be; the one of the defaults, if not given.
    sink
        Stores the frames; None: they travel in the events.
    clock
        Its time; the time of this computer, if not given. With a `ManualClock` nothing is waited for.
    frame_source
        What its cameras see; embryos, or the file that the configuration names, if not given.

    Returns
    -------
    Dispim
        Its `core` is a `SimulatedCore`, whose `faults` can be set.

    Raises
    ------
    ConfigError
        The file that the configuration names cannot be served.
    """
    configuration = configuration or Configuration()
    clock = clock or SystemClock()
    core = SimulatedCore(configuration, clock, frame_source or _frame_source(configuration))
    core.setCircularBufferMemoryFootprint(configuration.spim.circular_buffer_mb)
    connection = Connection(core, clock, SimulatedTags)
    return _assemble(configuration, connection, sink, SimulatedTemperatureController(clock), lambda: None)


def micromanager_dispim(
    configuration: Configuration | None = None,
    *,
    sink: Sink | None = None,
    temperature: TemperatureController | None = None,
) -> Dispim:
    """Make an instrument over Micro-Manager's core.

    Parameters
    ----------
    configuration
        What to load, and under which labels; the demo adapters, if not given.
    sink
        Stores the frames; None: they travel in the events.
    temperature
        The controller of the temperature, if there is one.

    Returns
    -------
    Dispim
        Its `core` is a `pymmcore.CMMCore`.

    Raises
    ------
    ConfigError
        pymmcore is not installed, the configuration names nothing to load, or presets that there are not,
        or a device for both cameras that does not join them.
    DeviceError
        Micro-Manager could not load it, or a device of it does not answer.
    """
    configuration = configuration or demo_micromanager_configuration()
    clock = SystemClock()
    connection = open_micromanager(configuration, clock)
    if temperature is None:
        simulated = configuration.temperature.controller == "simulated"
        temperature = SimulatedTemperatureController(clock) if simulated else NoController()
    return _assemble(configuration, connection, sink, temperature, connection.core.unloadAllDevices)


def demo_embryos(configuration: Configuration | None = None) -> dict[str, tuple[float, float]]:
    """Say where the simulated embryos are.

    Parameters
    ----------
    configuration
        Of the instrument; the defaults, if not given.

    Returns
    -------
    dict
        Name, and the stage position (x, y) in micrometer that centres it.
    """
    return dict((configuration or Configuration()).simulation.embryos_um)


def _frame_source(configuration: Configuration) -> FrameSource:
    simulation = configuration.simulation
    if simulation.volume_file is not None:
        return VolumeFile(simulation.volume_file, seed=simulation.seed)
    return Microscopy(configuration)


def _assemble(
    configuration: Configuration,
    connection: Connection,
    sink: Sink | None,
    controller: TemperatureController,
    close: Callable[[], None],
) -> Dispim:
    _check_presets(connection.core, configuration.laser.group, configuration.laser.presets)
    _check_presets(connection.core, configuration.led.group, (configuration.led.on, configuration.led.off))
    if configuration.multi_camera:
        both = (configuration.camera_a.label, configuration.camera_b.label)
        check_joins(connection.core, configuration.multi_camera, both)
    laser = make_laser(name="laser", connection=connection, settings=configuration.laser)
    led = Led(name="led", connection=connection, settings=configuration.led)
    xy_stage = XYStage(name="xy_stage", connection=connection, settings=configuration.xy_stage)
    axes = {
        name: LinearAxis(name=name, connection=connection, settings=getattr(configuration, name))
        for name in ("z_stage", "fdrive", "piezo_a", "piezo_b")
    }
    scanners = {
        name: _scanner(name, connection, getattr(configuration, name)) for name in ("scanner_a", "scanner_b")
    }
    views: dict[str, Any] = {"camera_a": "A", "camera_b": "B", "bottom_camera": None}
    cameras = {
        name: Camera(
            name=name,
            connection=connection,
            settings=getattr(configuration, name),
            light=led if view is None else laser,
            sink=sink,
            view=view,
            xy_stage=xy_stage,
            z_stage=axes["z_stage"],
        )
        for name, view in views.items()
    }
    for camera in cameras.values():
        camera.binning.put(camera.settings.binning)
        camera.roi.put(list(camera.settings.roi))
        camera.exposure_ms.put(camera.settings.exposure_ms)
    spim = make_spim(
        name="spim",
        laser=laser,
        connection=connection,
        configuration=configuration,
        xy_stage=xy_stage,
        z_stage=axes["z_stage"],
        sink=sink,
    )
    temperature = Temperature(
        name="temperature", connection=connection, controller=controller, settings=configuration.temperature
    )
    return Dispim(
        spim=spim,
        xy_stage=xy_stage,
        **axes,
        **scanners,
        **cameras,
        laser=laser,
        led=led,
        temperature=temperature,
        core=connection.core,
        configuration=configuration,
        _close=close,
    )


def _check_presets(core: Core, group: str, presets: Iterable[str]) -> None:
    there = core.getAvailableConfigs(group)
    if missing := [preset for preset in presets if preset not in there]:
        raise ConfigError(
            f"config group {group!r} has no preset {', '.join(map(repr, missing))}; "
            f"it has {', '.join(map(repr, there)) or 'none, or there is no such group'}"
        )


def _scanner(name: str, connection: Connection, settings: ScannerSettings) -> Scanner:
    scans = connection.core.hasProperty(settings.label, "SingleAxisYOffset(deg)")
    return (Scanner if scans else StillScanner)(name=name, connection=connection, settings=settings)
