"""Moves of one stage, piece by piece: axes that share a controller are sent together and arrive each for
itself.

Knows how to send, watch and end a move; does not know what moves or in which unit. One thread drives one
stage at a time, however many of its axes are asked to move and in whichever order.
"""

import math
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from ophyd import Device

from devices.cleanup import clean_up_after
from devices.clock import Clock
from devices.monitored import Monitored
from devices.status import ProgressStatus
from gently_bluesky.errors import MoveError, MoveTimeoutError, ReadingError

POLL_S = 0.01


class Positioned(Monitored, Device):  # type: ignore[misc]
    """A device with a position that can be monitored.

    A subclass has a `connection`, for its clock, and a `position`.
    """

    SUB_READBACK = "readback"
    _default_sub = SUB_READBACK

    def reading_now(self) -> tuple[Any, float]:
        """Where it is, and seconds since the epoch.

        Raises
        ------
        ReadingError
            It did not say where it is.
        """
        return self.position, self.connection.clock.time()


class Mover(Positioned):
    """A device that moves, and tells whoever monitors it, or its readback, where it has come to.

    A subclass has a `readback`.
    """

    def moved(self, position: float) -> None:
        """Tell of a position.

        Parameters
        ----------
        position
            In `egu`.
        """
        now = self.connection.clock.time()
        self._run_subs(sub_type=self.SUB_READBACK, value=position, timestamp=now)
        self.readback._run_subs(sub_type=self.readback.SUB_VALUE, value=position, timestamp=now)


@dataclass(frozen=True, slots=True)
class Drive:
    """How a stage with one or more axes is driven."""

    label: str
    """As the core calls it."""
    read: Callable[[], Sequence[float]]
    """Position of every axis."""
    send: Callable[[Sequence[float]], None]
    """Send every axis to a position; returns at once."""
    busy: Callable[[], bool]
    """Whether it is on its way."""
    halt: Callable[[], None]
    """Stop it where it is."""
    tolerance: float
    """How far from its target an axis may come to rest."""
    timeout_s: float
    """How long a move may take."""
    settle_s: float = 0.0
    """How long it rests before a move is done."""


@dataclass(slots=True)
class _Move:
    target: float
    status: ProgressStatus
    deadline: float


class Motion:
    """The moves of one stage.

    Parameters
    ----------
    drive
        How it is driven.
    clock
        Whose time moves take.
    """

    def __init__(self, drive: Drive, clock: Clock) -> None:
        self._drive = drive
        self._clock = clock
        self._lock = threading.Lock()
        self._moves: dict[int, _Move] = {}
        self._news = False
        self._thread: threading.Thread | None = None

    def move(self, targets: dict[int, tuple[float, ProgressStatus]]) -> None:
        """Send axes to their targets; axes that are not named keep theirs, or stay.

        Parameters
        ----------
        targets
            Axis, from 0: where to, and the Status to finish on arrival. A move of the same axis that is still
            going on fails, because it will not arrive.
        """
        deadline = self._clock.monotonic() + self._drive.timeout_s
        with self._lock:
            replaced = [self._moves.pop(axis) for axis in targets if axis in self._moves]
            for axis, (target, status) in targets.items():
                self._moves[axis] = _Move(target, status, deadline)
            self._news = True
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name=f"move-{self._drive.label}", daemon=True)
                self._thread.start()
        for move in replaced:
            move.status.set_exception(MoveError(f"{move.status.device.name}: sent elsewhere before it arrived"))

    def stop(self, *, success: bool) -> None:
        """Stop where it is, and finish what was on its way.

        Parameters
        ----------
        success
            Whether moves that were cut short count as done.
        """
        with self._lock:
            cut = list(self._moves.values())
            self._moves.clear()
        try:
            self._drive.halt()
        finally:  # a stage that does not stop must not keep a plan waiting as well
            for move in cut:
                if success:
                    move.status.set_finished()
                else:
                    device = move.status.device
                    move.status.set_exception(MoveError(f"{device.name}: stopped on its way to {move.target:g}"))

    def _run(self) -> None:
        """Drive until every axis has arrived, failed or been stopped."""
        try:
            while self._step():
                self._clock.sleep(POLL_S)
        except Exception as error:  # noqa: BLE001 - it goes to whoever waits for the moves
            self._fail_all(error)

    def _step(self) -> bool:
        """Do what is due; False when nothing is on its way any more, and the thread with it."""
        with self._lock:
            if self._over():
                return False
            if self._news:
                # An axis that is not asked to move stays where it is, and not where it was once sent:
                # somebody may have moved it by hand.
                here = self._where()
                self._drive.send(
                    [self._moves[i].target if i in self._moves else here[i] for i in range(len(here))]
                )
                self._news = False
            due = dict(self._moves)
        busy = self._drive.busy()
        position = self._where()
        for axis, move in due.items():
            move.status.tell(position[axis])
            move.status.device.moved(position[axis])
        if not busy:
            self._arrive(due)
            with self._lock:
                return not self._over()
        now = self._clock.monotonic()
        for axis, move in due.items():
            if now >= move.deadline:
                self._time_out(axis, move, position[axis])
        return True

    def _where(self) -> Sequence[float]:
        """Position of every axis; one that is no number is neither told to anybody nor sent back to the stage."""
        position = self._drive.read()
        if not all(map(math.isfinite, position)):
            raise ReadingError(f"{self._drive.label}: says that it is at {list(position)}")
        return position

    def _over(self) -> bool:
        """Whether nothing is on its way any more; the thread then ends, and the next move starts another."""
        if self._moves:
            return False
        self._thread = None
        return True

    def _arrive(self, due: dict[int, _Move]) -> None:
        if self._drive.settle_s:
            self._clock.sleep(self._drive.settle_s)
        position = self._where()
        for axis, move in due.items():
            if not self._take(axis, move):
                continue
            move.status.device.moved(position[axis])
            if abs(position[axis] - move.target) <= self._drive.tolerance:
                move.status.set_finished()
                continue
            move.status.set_exception(
                MoveError(
                    f"{move.status.device.name} ({self._drive.label}): sent to {move.target:g}, came to rest "
                    f"at {position[axis]:g} {move.status.unit}, further off than {self._drive.tolerance:g}"
                )
            )

    def _time_out(self, axis: int, move: _Move, position: float) -> None:
        if not self._take(axis, move):
            return
        self._drive.halt()
        move.status.set_exception(
            MoveTimeoutError(
                f"{move.status.device.name} ({self._drive.label}): sent to {move.target:g}, at {position:g} "
                f"{move.status.unit} after {self._drive.timeout_s:g} s and still busy; stopped"
            )
        )

    def _take(self, axis: int, move: _Move) -> bool:
        """Claim a move, so that it ends once; False when somebody else ended or replaced it."""
        with self._lock:
            if self._moves.get(axis) is not move:
                return False
            del self._moves[axis]
            return True

    def _fail_all(self, error: Exception) -> None:
        with self._lock:
            failed = list(self._moves.values())
            self._moves.clear()
            self._thread = None
        clean_up_after(error, self._drive.halt)  # nobody watches it any more
        for move in failed:
            device = move.status.device
            cause = (
                error
                if isinstance(error, MoveError)
                else MoveError(f"{device.name} ({self._drive.label}): moving to {move.target:g} failed: {error}")
            )
            move.status.set_exception(cause)
