"""Which exposures are under way, and what must stay as it is until they have ended.

One exposure has its turn at a time: one core has one current camera, one buffer and one laser. Knows names of
devices and what they hold; does not know what is changed, nor how.
"""

import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from gently_bluesky.errors import ExposingError, ExposureStoppedError

_POLL_S = 0.02


class Underway:
    """The exposures of one core, from their trigger to their end."""

    def __init__(self) -> None:
        self._turn = threading.Lock()
        self._news = threading.Condition()
        self._held: dict[str, frozenset[str]] = {}
        self._changing = 0

    def begin(self, name: str, holds: Iterable[str]) -> None:
        """Take down that a device is triggered.

        Parameters
        ----------
        name
            Of the device.
        holds
            Names and labels of what must not be changed until it has ended.
        """
        with self._news:
            self._held[name] = frozenset(holds)

    def end(self, name: str) -> None:
        """Take down that its exposure has ended, well or not.

        Parameters
        ----------
        name
            Of the device.
        """
        with self._news:
            self._held.pop(name, None)

    @contextmanager
    def turn(self, name: str, stopped: threading.Event) -> Iterator[None]:
        """Wait until it is this device's turn and nothing is being changed; hold the turn while the block runs.

        Parameters
        ----------
        name
            Of the device; it has begun.
        stopped
            Set when the exposure is not wanted any more.

        Raises
        ------
        ExposureStoppedError
            `stopped` was set while it waited.
        """
        while not self._turn.acquire(timeout=_POLL_S):
            if stopped.is_set():
                raise ExposureStoppedError(f"{name}: stopped while another camera was exposing")
        try:
            with self._news:
                # What was allowed before the trigger is done before anything is read for it.
                while not self._news.wait_for(lambda: not self._changing, timeout=_POLL_S):
                    if stopped.is_set():
                        raise ExposureStoppedError(f"{name}: stopped while a setting was being changed")
            yield
        finally:
            self._turn.release()

    @contextmanager
    def change(self, what: str, of: str | None = None) -> Iterator[None]:
        """Change something while the block runs: no exposure that holds it begins before it is done.

        Parameters
        ----------
        what
            Name of what is changed, for the message.
        of
            Name or label that exposures may hold; None: no exposure at all may go on.

        Raises
        ------
        ExposingError
            One does.
        """
        with self._news:
            by = sorted(name for name, holds in self._held.items() if of is None or of in holds)
            if by:
                raise ExposingError(
                    f"{what}: not changed, for {' and '.join(by)} {'is' if len(by) == 1 else 'are'} exposing and "
                    f"depend{'s' if len(by) == 1 else ''} on it; wait for the end of the exposure, or stop it"
                )
            self._changing += 1
        try:
            yield
        finally:
            with self._news:
                self._changing -= 1
                self._news.notify_all()
