"""The lasers: a preset is selected, each line has its power, and no line shines outside its bounds.

Knows lines and powers; when there is light, `light` decides.
"""

from collections.abc import Mapping
from typing import Any

from ophyd import Component as Cpt
from ophyd import Kind
from ophyd.device import create_device_from_components

from devices.configuration import LaserSettings, LineSettings
from devices.core import Connection
from devices.light import PERCENT, ROUNDING_PERCENT, Light
from devices.signals import CoreSignal, Property, PropertySignal
from gently_bluesky.errors import PresetError


class Laser(Light):
    """The lasers: a preset is selected, each line has its power.

    Parameters
    ----------
    connection
        To the core.
    settings
        Presets, lines and their bounds. Make one with `make_laser`, which gives it a signal
        `power_<line>_percent` for each line.
    """

    def __init__(self, *, name: str, connection: Connection, settings: LaserSettings, **kwargs: Any) -> None:
        self.settings = settings
        super().__init__(
            name=name,
            connection=connection,
            switch=settings,
            presets=tuple(settings.presets),
            **kwargs,
        )

    @property
    def powers(self) -> Mapping[str, CoreSignal]:
        """The signal of each line's power in percent, by the name of the line."""
        return {line: getattr(self, _power_name(line)) for line in self.settings.lines}

    def levels(self, preset: str) -> dict[str, float]:
        """Power of each line of a preset now, in percent, by name of the signal."""
        signals = [self.powers[line] for line in self.settings.presets[preset]]
        return {signal.name: float(signal.get()) for signal in signals}

    def check_before(self, preset: str) -> None:
        """Refuse to shine while a line of the preset stands outside its bounds, or while all of them are at 0.

        Raises
        ------
        PresetError
            Somebody else set it there, or nothing would shine; the message names lines and what to set.
        """
        powers = {line: float(self.powers[line].get()) for line in self.settings.presets[preset]}
        for line, power in powers.items():
            bounds = self.settings.lines[line]
            if not bounds.min - ROUNDING_PERCENT <= power <= bounds.max + ROUNDING_PERCENT:
                raise PresetError(
                    f"{self.name}: preset {preset!r} would light {line} nm at {power:g} percent, allowed are "
                    f"{bounds.min:g} to {bounds.max:g}; set {self.powers[line].name} first"
                )
        # Single lines at 0 are how a mixture is made that has no preset of its own.
        if powers and max(powers.values()) <= ROUNDING_PERCENT:
            signals = " or ".join(self.powers[line].name for line in powers)
            raise PresetError(
                f"{self.name}: preset {preset!r} would light nothing, its lines stand at 0 percent; set {signals} "
                f"first, or take {self.off!r} for a dark reference"
            )


def make_laser(*, name: str, connection: Connection, settings: LaserSettings) -> Laser:
    """Make the lasers of an instrument.

    Parameters
    ----------
    name
        Of the device.
    connection
        To the core.
    settings
        Presets, lines and their bounds.

    Returns
    -------
    Laser
        With a signal `power_<line>_percent` for each line.
    """
    powers = {_power_name(line): _power(bounds) for line, bounds in settings.lines.items()}
    of_instrument = create_device_from_components("Laser", base_class=Laser, **powers)
    laser: Laser = of_instrument(name=name, connection=connection, settings=settings)
    return laser


def _power_name(line: str) -> str:
    return f"power_{line}_percent"


def _power(line: LineSettings) -> Cpt:
    return Cpt(
        PropertySignal,
        of=lambda _: Property(line.label, line.property, line.units_per_percent),
        units=PERCENT,
        precision=2,
        limits=(line.min, line.max),
        kind=Kind.normal,
    )
