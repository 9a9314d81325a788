"""One axis as a bluesky positioner.

Knows position, limits and readings; how a move is driven is `motion`'s. A target outside the limits is
refused before anything moves.
"""

from typing import Any

from ophyd import Component as Cpt
from ophyd import Kind

from devices.core import Connection
from devices.declared import Bounds, check_number
from devices.motion import Drive, Motion, Mover
from devices.signals import CoreSignal
from devices.status import CausedStatus, ProgressStatus


class Axis(Mover):
    """One axis: bluesky moves it, reads it, and checks a plan against its limits.

    Parameters
    ----------
    connection
        To the core.
    motion
        Of the stage that it belongs to.
    drive
        Of the same stage.
    index
        Which axis of the stage it is, from 0.
    quantity
        What of the stage it is, for the source of its readings.
    limits
        Lowest and highest target allowed, in `egu`.
    egu
        Unit of positions.

    Notes
    -----
    Reads as `<name>` (hinted) and `<name>_setpoint`, like an EpicsMotor. Monitored, it tells of every position
    that it is seen at while it moves.
    """

    readback = Cpt(
        CoreSignal,
        source=lambda axis: axis.source,
        read=lambda axis: axis._drive.read()[axis.index],
        units=lambda axis: axis.egu,
        precision=3,
        kind=Kind.hinted,
    )
    setpoint = Cpt(
        CoreSignal,
        source=lambda axis: axis.source,
        read=lambda axis: axis.target,
        units=lambda axis: axis.egu,
        precision=3,
        limits=lambda axis: axis.limits,
        kind=Kind.normal,
    )

    def __init__(
        self,
        *,
        name: str,
        connection: Connection,
        motion: Motion,
        drive: Drive,
        limits: Bounds,
        index: int = 0,
        quantity: str = "Position",
        egu: str,
        **kwargs: Any,
    ) -> None:
        self.connection = connection
        self.limits = limits
        self.egu = egu
        self.settle_time = drive.settle_s
        self.source = f"mmcore:{drive.label}.{quantity}"
        self._motion = motion
        self._drive = drive
        self.index = index
        self._target: float | None = None
        super().__init__(name=name, labels={"motors"}, **kwargs)
        self.readback.name = self.name

    @property
    def position(self) -> float:
        """Where it is now, in `egu`.

        Raises
        ------
        ReadingError
            The stage did not say.
        """
        return float(self.readback.get())

    @property
    def target(self) -> float:
        """Where it was sent last; where it is, if it was never sent anywhere."""
        return self.position if self._target is None else self._target

    def check_value(self, value: float) -> None:
        """Refuse a target outside the limits.

        Parameters
        ----------
        value
            Target in `egu`.

        Raises
        ------
        LimitError
            Outside, or no finite number.
        """
        check_number(self.name, value, self.limits, self.egu)

    def set(self, value: float) -> CausedStatus:
        """Move there.

        Parameters
        ----------
        value
            Target in `egu`.

        Returns
        -------
        CausedStatus
            Done on arrival within the tolerance; fails with MoveError or MoveTimeoutError. A progress bar can
            watch it.

        Raises
        ------
        LimitError
            At once, when it must not go there.
        """
        self.check_value(value)
        status = self.aim(float(value))
        self._motion.move({self.index: (float(value), status)})
        return status

    def aim(self, target: float) -> ProgressStatus:
        """Take a target without setting out, and give the Status of the move to come.

        Parameters
        ----------
        target
            In `egu`, already checked.

        Returns
        -------
        ProgressStatus
            For the motion to finish.
        """
        status = ProgressStatus(self, initial=self.position, target=target, unit=self.egu)
        self._target = target
        return status

    def stop(self, *, success: bool = False) -> None:
        """Stop where it is, together with the axes that share its stage.

        Parameters
        ----------
        success
            Whether a move that is cut short counts as done.
        """
        self._motion.stop(success=success)
