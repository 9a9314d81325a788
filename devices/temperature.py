"""The temperature of the sample, held by a controller that is none of Micro-Manager's.

Knows set point, reading and when a change is done; how a controller is spoken to is behind
`TemperatureController`, because the syntax of its serial line is its maker's.
"""

import math
from typing import Any, Protocol

from ophyd import Component as Cpt
from ophyd import Kind

from devices.configuration import TemperatureSettings
from devices.core import Connection
from devices.motion import Drive, Motion, Mover
from devices.signals import CoreSignal
from devices.status import CausedStatus, ProgressStatus
from gently_bluesky.errors import DeviceError

CELSIUS = "degC"


class TemperatureController(Protocol):
    """What is asked of a controller; each call is one exchange on its line, and raises when there is no
    answer.
    """

    def set_point_c(self) -> float:
        """Temperature that it holds or is going to, in degree Celsius."""

    def go_to(self, temperature_c: float, /) -> None:
        """Give it a set point in degree Celsius."""

    def temperature_c(self) -> float:
        """Temperature now, in degree Celsius."""

    def state(self) -> str:
        """What it says of itself, as `[ SYSTEM LOCKED ]`."""


class NoController:
    """In place of a controller that is not connected: every question is an error."""

    def _refuse(self) -> DeviceError:
        return DeviceError(
            "no temperature controller is connected; hand one to the function that makes the devices"
        )

    def set_point_c(self) -> float:
        """Refuse."""
        raise self._refuse()

    def go_to(self, _temperature_c: float, /) -> None:
        """Refuse."""
        raise self._refuse()

    def temperature_c(self) -> float:
        """Refuse."""
        raise self._refuse()

    def state(self) -> str:
        """Refuse."""
        raise self._refuse()


class Temperature(Mover):
    """The temperature, as a positioner.

    Parameters
    ----------
    connection
        For its clock.
    controller
        That holds the temperature.
    settings
        Limits, time-out, and what the controller says when it is there.

    Notes
    -----
    Reads as `<name>` (hinted), `<name>_setpoint` and `<name>_state`. A change is done when the controller
    says so.
    """

    readback = Cpt(
        CoreSignal,
        source="temperature controller",
        read=lambda device: device.controller.temperature_c(),
        units=CELSIUS,
        precision=2,
        kind=Kind.hinted,
    )
    setpoint = Cpt(
        CoreSignal,
        source="temperature controller, set point",
        read=lambda device: device.controller.set_point_c(),
        units=CELSIUS,
        precision=2,
        limits=lambda device: device.limits,
    )
    state = Cpt(
        CoreSignal,
        source="temperature controller, state",
        read=lambda device: device.controller.state(),
        dtype_numpy="<U",
    )

    def __init__(
        self,
        *,
        name: str,
        connection: Connection,
        controller: TemperatureController,
        settings: TemperatureSettings,
        **kwargs: Any,
    ) -> None:
        self.connection = connection
        self.controller = controller
        self.limits = settings.limits_c
        self.egu = CELSIUS
        self.settle_time = 0.0
        drive = Drive(
            label="temperature controller",
            read=lambda: (controller.temperature_c(),),
            send=lambda targets: controller.go_to(targets[0]),
            busy=lambda: settings.locked not in controller.state(),
            halt=lambda: None,  # it holds a temperature, whatever it is told; there is nothing to stop
            tolerance=math.inf,  # the controller knows best when it is there
            timeout_s=settings.timeout_s,
        )
        self._motion = Motion(drive, connection.clock)
        super().__init__(name=name, labels={"motors"}, **kwargs)
        self.readback.name = self.name

    @property
    def position(self) -> float:
        """Temperature now, in degree Celsius."""
        return float(self.readback.get())

    def check_value(self, value: float) -> None:
        """Refuse a temperature outside the limits.

        Raises
        ------
        LimitError
            Outside, or no number.
        """
        self.setpoint.check_value(value)

    def set(self, value: float) -> CausedStatus:
        """Go to a temperature.

        Parameters
        ----------
        value
            In degree Celsius.

        Returns
        -------
        CausedStatus
            Done when the controller reports that it is there; fails with MoveTimeoutError.

        Raises
        ------
        LimitError
            At once, when it must not go there.
        """
        self.check_value(value)
        status = ProgressStatus(self, initial=self.position, target=float(value), unit=CELSIUS)
        self._motion.move({0: (float(value), status)})
        return status

    def stop(self, *, success: bool = False) -> None:
        """Wait for it no longer; the controller keeps its set point."""
        self._motion.stop(success=success)
