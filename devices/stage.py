"""Linear axes, pairs of axes, and the XY stage.

Knows how each kind of stage is asked and sent through the core; what a positioner is, `axis` knows.
"""

from collections.abc import Callable, Sequence
from typing import Any

from ophyd import Component as Cpt
from ophyd.utils import LimitError

from devices.axis import Axis
from devices.configuration import AxisSettings, XYStageSettings
from devices.core import Connection, Core
from devices.declared import Bounds
from devices.motion import Drive, Motion, Positioned
from devices.status import CausedStatus

MICROMETER = "um"


class LinearAxis(Axis):
    """A stage with one axis: a focus drive or a piezo.

    Parameters
    ----------
    connection
        To the core.
    settings
        Label, limits in micrometer, tolerance, time-out.
    """

    def __init__(self, *, name: str, connection: Connection, settings: AxisSettings, **kwargs: Any) -> None:
        core, label = connection.core, settings.label
        drive = _drive(
            core,
            settings,
            read=lambda: (core.getPosition(label),),
            send=lambda targets: core.setPosition(label, targets[0]),
        )
        super().__init__(
            name=name,
            connection=connection,
            motion=Motion(drive, connection.clock),
            drive=drive,
            limits=settings.limits_um,
            egu=MICROMETER,
            **kwargs,
        )


class PairedAxis(Axis):
    """One axis of a pair that one controller moves.

    Parameters
    ----------
    parent
        The pair.
    index
        0 for x, 1 for y.
    """

    def __init__(self, *, name: str, parent: "AxisPair", index: int, **kwargs: Any) -> None:
        super().__init__(
            name=name,
            parent=parent,
            connection=parent.connection,
            motion=parent.motion,
            drive=parent.drive,
            limits=parent.limits[index],
            index=index,
            quantity="XY"[index],
            egu=parent.egu,
            **kwargs,
        )

    def moved(self, position: float) -> None:
        """Tell of a position, and let the pair tell as well.

        Parameters
        ----------
        position
            In `egu`.
        """
        super().moved(position)
        self.parent.moved()


class AxisPair(Positioned):
    """Two axes, x and y, that one controller moves; each goes alone, or both at once.

    Parameters
    ----------
    connection
        To the core.
    drive
        Of both axes.
    limits
        Of x and of y, in `egu`.
    egu
        Unit of positions.
    """

    x = Cpt(PairedAxis, index=0)
    y = Cpt(PairedAxis, index=1)

    def __init__(
        self,
        *,
        name: str,
        connection: Connection,
        drive: Drive,
        limits: tuple[Bounds, Bounds],
        egu: str,
        **kwargs: Any,
    ) -> None:
        self.connection = connection
        self.drive = drive
        self.motion = Motion(drive, connection.clock)
        self.limits = limits
        self.egu = egu
        super().__init__(name=name, labels={"motors"}, **kwargs)

    @property
    def position(self) -> tuple[float, float]:
        """Where it is now: x and y, in `egu`.

        Raises
        ------
        ReadingError
            The stage did not say.
        """
        return self.x.position, self.y.position

    def moved(self) -> None:
        """Tell whoever monitors the pair where it is."""
        if self._callbacks[self.SUB_READBACK]:  # asking costs a turn on the controller's line
            now = self.connection.clock.time()
            self._run_subs(sub_type=self.SUB_READBACK, value=self.position, timestamp=now)

    def check_value(self, value: Sequence[float]) -> None:
        """Refuse a target outside the limits.

        Parameters
        ----------
        value
            x and y, in `egu`.

        Raises
        ------
        LimitError
            Either is outside, or there are not two of them.
        """
        if isinstance(value, str | bytes) or not hasattr(value, "__len__") or len(value) != 2:
            raise LimitError(f"{self.name}: {value!r} is not a pair (x, y)")
        self.x.check_value(value[0])
        self.y.check_value(value[1])

    def set(self, value: Sequence[float]) -> CausedStatus:
        """Move both axes at once.

        Parameters
        ----------
        value
            x and y, in `egu`.

        Returns
        -------
        CausedStatus
            Done when both have arrived; fails with the first that fails.

        Raises
        ------
        LimitError
            At once, when it must not go there.
        """
        self.check_value(value)
        both = CausedStatus(self)
        parts = {
            axis.index: (float(target), axis.aim(float(target)))
            for axis, target in zip((self.x, self.y), value, strict=True)
        }
        both.follow([status for _, status in parts.values()])
        self.motion.move(parts)
        return both

    def stop(self, *, success: bool = False) -> None:
        """Stop both axes where they are.

        Parameters
        ----------
        success
            Whether a move that is cut short counts as done.
        """
        self.motion.stop(success=success)


class XYStage(AxisPair):
    """The stage that carries the sample.

    Parameters
    ----------
    connection
        To the core.
    settings
        Label, limits in micrometer, tolerance, time-out.
    """

    def __init__(self, *, name: str, connection: Connection, settings: XYStageSettings, **kwargs: Any) -> None:
        core, label = connection.core, settings.label
        drive = _drive(
            core,
            settings,
            read=lambda: core.getXYPosition(label),
            send=lambda targets: core.setXYPosition(label, targets[0], targets[1]),
        )
        limits = (settings.x_limits_um, settings.y_limits_um)
        super().__init__(name=name, connection=connection, drive=drive, limits=limits, egu=MICROMETER, **kwargs)


def _drive(
    core: Core,
    settings: AxisSettings | XYStageSettings,
    *,
    read: Callable[[], Sequence[float]],
    send: Callable[[Sequence[float]], None],
) -> Drive:
    label = settings.label
    return Drive(
        label=label,
        read=read,
        send=send,
        busy=lambda: core.deviceBusy(label),
        halt=lambda: core.stop(label),
        tolerance=settings.tolerance_um,
        timeout_s=settings.timeout_s,
        settle_s=settings.settle_s,
    )
