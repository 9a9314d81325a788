"""What a camera is and cannot change: read once, as configuration.

Knows which properties an instrument has for it; how the camera is used, `camera` and `view` know.
"""

from ophyd import Component as Cpt
from ophyd import Device, Kind

from devices.configuration import CameraSettings
from devices.core import Connection
from devices.signals import CoreSignal, Derived

UNKNOWN = "unknown"


def _optional(kind_of: str) -> Cpt:
    """A property that not every adapter has; "unknown" where it does not."""

    def name(camera: "CameraFacts") -> str | None:
        found: str | None = getattr(camera.settings, f"{kind_of}_property")
        return found

    def read(camera: "CameraFacts") -> str:
        core, there = camera.connection.core, name(camera)
        if there is None or not core.hasProperty(camera.label, there):
            return UNKNOWN
        return core.getProperty(camera.label, there)

    return Cpt(
        CoreSignal,
        source=lambda camera: f"mmcore:{camera.label}.{name(camera)}",
        read=read,
        dtype_numpy="<U",
        kind=Kind.config,
    )


def _adapter(camera: "CameraFacts") -> str:
    """Adapter and device name, as Micro-Manager has them."""
    core = camera.connection.core
    return f"{core.getDeviceLibrary(camera.label)}.{core.getDeviceName(camera.label)}"


class CameraFacts(Device):  # type: ignore[misc]
    """A device with a camera. A subclass has its `label` and `settings`, and a `connection`."""

    label: str
    settings: CameraSettings
    connection: Connection

    sensor_px = Cpt(
        Derived,
        read=lambda camera: list(camera.settings.sensor_px),
        dtype_numpy="<i8",
        shape=(2,),
        units="pixel",
        kind=Kind.config,
    )
    adapter = Cpt(
        CoreSignal,
        source=lambda camera: f"mmcore:{camera.label}",
        read=_adapter,
        dtype_numpy="<U",
        kind=Kind.config,
    )
    gain = _optional("gain")
    firmware = _optional("firmware")
    serial = _optional("serial")
