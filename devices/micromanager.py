"""Brings up the real MMCore: from a configuration file of Micro-Manager, or device by device.

The one module that imports pymmcore, and only when it is called. What it returns satisfies
`devices.core.Core` as it is.
"""

from pathlib import Path
from typing import Any

from devices.clock import Clock
from devices.configuration import Configuration, MicroManagerSettings
from devices.core import Connection
from gently_bluesky.errors import ConfigError, DeviceError

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
