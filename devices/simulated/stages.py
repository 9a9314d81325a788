"""Stages that take their time.

A position follows from when a move began, how fast the stage is and what the clock says: nothing runs in the
background.
"""

from dataclasses import dataclass, field

from devices.clock import Clock


@dataclass(slots=True)
class SimulatedStage:
    """A stage with one or more axes that move together.

    Parameters
    ----------
    clock
        Whose time moves take.
    speed
        Of every axis, in its unit per second.
    position
        Of every axis at the beginning.
    """

    clock: Clock
    speed: float
    position: tuple[float, ...] = (0.0,)
    _target: tuple[float, ...] | None = field(default=None, init=False)
    _since: float = field(default=0.0, init=False)
    _stuck: bool = field(default=False, init=False)

    def send(self, target: tuple[float, ...], *, stuck: bool = False) -> None:
        """Set out for a target, from wherever it is.

        Parameters
        ----------
        target
            For every axis.
        stuck
            Stay busy half-way for ever.
        """
        self.position = self.where()
        self._target = target
        self._since = self.clock.monotonic()
        self._stuck = stuck

    def where(self) -> tuple[float, ...]:
        """Position of every axis now."""
        if self._target is None:
            return self.position
        reach = self.speed * (self.clock.monotonic() - self._since)
        steps = (
            min(reach, abs(end - start) * (0.5 if self._stuck else 1.0)) * (1 if end >= start else -1)
            for start, end in zip(self.position, self._target, strict=True)
        )
        return tuple(start + step for start, step in zip(self.position, steps, strict=True))

    def busy(self) -> bool:
        """Whether it is on its way."""
        if self._target is None:
            return False
        if self._stuck:
            return True
        longest = max(abs(end - start) for start, end in zip(self.position, self._target, strict=True))
        if self.speed * (self.clock.monotonic() - self._since) < longest:
            return True
        self.position, self._target = self._target, None
        return False

    def stop(self) -> None:
        """Come to rest where it is."""
        self.position, self._target = self.where(), None
