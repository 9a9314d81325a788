"""A temperature controller without hardware: it changes at a steady rate, then reports that it is locked."""

from devices.clock import Clock
from devices.simulated.stages import SimulatedStage

LOCKED, CHANGING = "[ SYSTEM LOCKED ]", "[ CHANGING ]"
ROOM_C = 20.0
RATE_C_PER_S = 0.5


class SimulatedTemperatureController:
    """Satisfies `devices.temperature.TemperatureController`.

    Parameters
    ----------
    clock
        Whose time a change takes.
    """

    def __init__(self, clock: Clock) -> None:
        self._heat = SimulatedStage(clock, RATE_C_PER_S, (ROOM_C,))
        self._set_point = ROOM_C

    def set_point_c(self) -> float:
        """Temperature that it holds or is going to, in degree Celsius."""
        return self._set_point

    def go_to(self, temperature_c: float, /) -> None:
        """Set out for a temperature in degree Celsius."""
        self._set_point = temperature_c
        self._heat.send((temperature_c,))

    def temperature_c(self) -> float:
        """Temperature now, in degree Celsius."""
        return self._heat.where()[0]

    def state(self) -> str:
        """Locked, or not yet."""
        return CHANGING if self._heat.busy() else LOCKED
