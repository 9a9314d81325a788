"""The lamp of the bottom camera.

Knows its intensity; when there is light, `light` decides.
"""

from typing import Any

from ophyd import Component as Cpt
from ophyd import Kind

from devices.configuration import LedSettings
from devices.core import Connection
from devices.light import PERCENT, Light
from devices.signals import Property, PropertySignal

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
        PropertySignal,
        of=lambda led: Property(
            led.settings.label, led.settings.intensity_property, led.settings.units_per_percent
        ),
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
            switch=settings,
            presets=(settings.off, settings.on),
            **kwargs,
        )

    def levels(self, preset: str) -> dict[str, float]:
        """Intensity now, in percent, where the preset shines at all."""
        signal = self.intensity_percent
        return {} if preset == self.off else {signal.name: float(signal.get())}

    @property
    def channel(self) -> str | None:
        """Transmitted light, whatever the preset is called; None when it is off."""
        return None if str(self.preset.get()) == self.off else TRANSMITTED
