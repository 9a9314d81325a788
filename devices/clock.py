"""Time, as everything in this house asks for it, so that a test or a demo need not spend it.

Nothing here knows of hardware. Whoever waits does it through `wait_for`, which ends: with the condition or
with an error that says what was waited for.
"""

import threading
import time
from collections.abc import Callable
from typing import Protocol

from gently_bluesky.errors import DeviceError


class Clock(Protocol):
    """What is asked of time."""

    def time(self) -> float:
        """Seconds since the epoch, for what is recorded."""

    def monotonic(self) -> float:
        """Seconds that only grow, for deadlines."""

    def sleep(self, seconds: float) -> None:
        """Let `seconds` pass."""


class SystemClock:
    """The time of this computer."""

    def time(self) -> float:
        """Seconds since the epoch."""
        return time.time()

    def monotonic(self) -> float:
        """Seconds that only grow."""
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        """Spend `seconds`."""
        time.sleep(seconds)


class ManualClock:
    """A clock that moves when somebody sleeps on it or advances it, and at no other time.

    Parameters
    ----------
    epoch
        What `time` says at the beginning, seconds since the epoch; the time of this computer, if not given.

    Notes
    -----
    Safe to share between threads. Two threads that sleep at once move it by the sum of what they ask for, so
    a deadline may come early against it, never late.
    """

    def __init__(self, epoch: float | None = None) -> None:
        self._epoch = time.time() if epoch is None else epoch
        self._elapsed = 0.0
        self._lock = threading.Lock()

    def time(self) -> float:
        """Seconds since the epoch."""
        with self._lock:
            return self._epoch + self._elapsed

    def monotonic(self) -> float:
        """Seconds since this clock was made."""
        with self._lock:
            return self._elapsed

    def sleep(self, seconds: float) -> None:
        """Let `seconds` pass at once."""
        self.advance(seconds)
        time.sleep(0)  # let the other threads see it

    def advance(self, seconds: float) -> None:
        """Move the clock.

        Parameters
        ----------
        seconds
            How far; a clock does not go back, so not negative.
        """
        if seconds < 0:
            raise ValueError(f"a clock does not go back: asked to advance by {seconds} s")
        with self._lock:
            self._elapsed += seconds


def wait_for(
    condition: Callable[[], bool],
    clock: Clock,
    *,
    timeout_s: float,
    what: str,
    poll_s: float = 0.01,
    error: type[DeviceError] = DeviceError,
) -> None:
    """Wait until the condition holds.

    Parameters
    ----------
    condition
        Asked at once, and then every `poll_s`; what it raises ends the waiting.
    clock
        Whose time is spent.
    timeout_s
        Seconds from now until giving up.
    what
        What is waited for, for the message.
    poll_s
        Seconds between two questions.
    error
        Raised when the time is up.
    """
    deadline = clock.monotonic() + timeout_s
    while not condition():
        if clock.monotonic() >= deadline:
            raise error(f"{what}: not within {timeout_s:g} s")
        clock.sleep(poll_s)
