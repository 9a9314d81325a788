"""The lamp of the bottom camera.

Knows its intensity; when there is light, `light` decides.
"""

from typing import Any

from ophyd import Component as Cpt
from ophyd import Kind

from devices.configuration import LedSettings
from devices.core import Connection
from devices.light import PERCENT, Light
from devices.signals import CoreSignal

TRANSMITTED = "transmitted light"


class Led(Light):
    """The lamp of the bottom camera.

    Parameters
    ----------
    connection
        To the core.
    settings
        Label, group, bounds of the intensity.
    """

    intensity_percent = Cpt(
        CoreSignal,
        source=lambda led: f"mmcore:{led.settings.label}.{led.settings.intensity_property}",
        read=lambda led: led.read_intensity(),
        write=lambda led, percent: led.write_intensity(percent),
        units=PERCENT,
        precision=1,
        limits=lambda led: led.settings.limits_percent,
        kind=Kind.normal,
    )

    def __init__(self, *, name: str, connection: Connection, settings: LedSettings, **kwargs: Any) -> None:
        self.settings = settings
        super().__init__(
            name=name,
            connection=connection,
            group=settings.group,
            off=settings.off,
            presets=(settings.off, settings.on),
            selected=settings.selected,
            timeout_s=settings.timeout_s,
            **kwargs,
        )

    @property
    def channel(self) -> str | None:
        """Transmitted light, whatever the preset is called; None when it is off."""
        return None if str(self.preset.get()) == self.off else TRANSMITTED

    def read_intensity(self) -> float:
        """Intensity in percent, asked of the hardware."""
        text = self.connection.core.getProperty(self.settings.label, self.settings.intensity_property)
        return float(text) / self.settings.units_per_percent

    def write_intensity(self, percent: float) -> None:
        """Tell the hardware an intensity in percent."""
        value = f"{percent * self.settings.units_per_percent:.6g}"
        self.connection.core.setProperty(self.settings.label, self.settings.intensity_property, value)
