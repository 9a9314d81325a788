"""What every detector here has in common: a trigger that exposes in a thread of its own and can be cut short.

Knows when an exposure begins and how it may end; what is exposed, the device says. After an exposure that did
not end well nothing can be read until one has.
"""

import threading
from abc import abstractmethod
from collections.abc import Iterator, Mapping
from typing import Any

from ophyd import Device, Signal

from devices.core import Connection
from devices.light import Light
from devices.status import CausedStatus, in_thread
from gently_bluesky.errors import AcquisitionError, ExposureStoppedError, ReadingError

JOIN_S = 10.0
"""How long a stop waits for an exposure to have ended: one frame, and the light going off."""


class ExposingDevice(Device):  # type: ignore[misc]
    """A device that exposes when it is triggered.

    Parameters
    ----------
    connection
        To the core.
    light
        What shines while it exposes.

    Notes
    -----
    The RunEngine stops and pauses devices at a pause and takes the trigger again when it resumes. A Status
    that failed in between would end the run after all, so an exposure that a pause cut short finishes its
    Status; but reading is refused until the trigger was repeated, so that nothing dark or short is ever
    recorded.
    """

    def __init__(self, *, name: str, connection: Connection, light: Light, **kwargs: Any) -> None:
        self.connection = connection
        self.light = light
        self._stopped = threading.Event()
        self._pardoned = False
        self._status: CausedStatus | None = None
        self._thread: threading.Thread | None = None
        self._unreadable: str | None = "nothing was taken yet; trigger it first"
        self._readings: dict[str, Any] = {}
        super().__init__(name=name, labels={"detectors"}, **kwargs)

    @abstractmethod
    def expose(self) -> None:
        """Take what one trigger takes, light included; whatever is open is closed when this ends.

        Raises
        ------
        ExposureStoppedError
            `stopped` was set.
        """

    @abstractmethod
    def trigger_bytes(self, wanted: Mapping[Signal, Any] | None = None) -> int:
        """Bytes of all the pixels that one trigger gives.

        Parameters
        ----------
        wanted
            Settings, and what each is to be told before; the others are as they are.
        """

    @property
    def stopped(self) -> threading.Event:
        """Set while an exposure is to end early."""
        return self._stopped

    def trigger(self) -> CausedStatus:
        """Expose, in a thread of its own.

        Returns
        -------
        CausedStatus
            Done when everything is sealed; fails with what went wrong, after the light is off.

        Raises
        ------
        AcquisitionError
            It is still exposing.
        """
        if self._status is not None and not self._status.done:
            raise AcquisitionError(f"{self.name}: triggered while it is still exposing")
        self._stopped.clear()
        self._pardoned = False
        self._status = self._new_status()
        self._thread = in_thread(self._status, self._run, name=f"expose-{self.name}")
        return self._status

    def check_readable(self) -> None:
        """Refuse to give readings that are not those of the last trigger.

        Raises
        ------
        ReadingError
            There was no trigger, or it came to no good end.
        """
        if self._unreadable is not None:
            raise ReadingError(f"{self.name}: {self._unreadable}")

    def read(self) -> dict[str, Any]:
        """Readings of the last exposure, as they were when it ended: settings changed since belong to the next.

        Raises
        ------
        ReadingError
            There is none that ended well since the device was staged.
        """
        self.check_readable()
        return dict(self._readings)

    def take_readings(self) -> dict[str, Any]:
        """Read everything that an event is to say of the exposure that has just ended.

        Raises
        ------
        ReadingError
            The hardware does not answer.
        """
        return dict(super().read())

    def stop(self, *, success: bool = False) -> None:
        """End an exposure that is going on; returns when the light is off and its volume given up.

        Parameters
        ----------
        success
            Whether its Status then counts as done, as in a pause.
        """
        thread, status = self._thread, self._status
        if thread is None or status is None or thread is threading.current_thread():
            return
        if not status.done:
            self._pardoned = success
            self._stopped.set()
        thread.join(JOIN_S)
        if thread.is_alive():
            raise AcquisitionError(f"{self.name}: its exposure did not end within {JOIN_S:g} s of being stopped")

    def pause(self) -> None:
        """End an exposure that is going on; the RunEngine repeats its trigger when it resumes."""
        self.stop(success=True)

    def stage(self) -> list[object]:
        """Get ready for a run; what was taken before belongs to others."""
        self.stop()
        self._unreadable = "nothing was taken since it was staged; trigger it first"
        return list(super().stage())

    def unstage(self) -> list[object]:
        """End what is going on, and see that the light is off."""
        try:
            self.stop()
        finally:
            self.light.all_off()
        return list(super().unstage())

    def _new_status(self) -> CausedStatus:
        return CausedStatus(self)

    def _run(self) -> None:
        self._unreadable = "the exposure has not ended"
        try:
            with self._alone():
                self.expose()
                self._readings = self.take_readings()
        except Exception as error:
            self._unreadable = f"the last exposure did not end well: {type(error).__name__}: {error}"
            # A light that was stopped by itself is a pause as well: the RunEngine stops what was set first.
            if isinstance(error, ExposureStoppedError) and (self._pardoned or not self._stopped.is_set()):
                return
            raise
        self._unreadable = None

    def _alone(self) -> "_Turn":
        return _Turn(self.connection.exposing, self._stopped, self.name)

    def collect_asset_docs(self, index: int | None = None) -> Iterator[tuple[str, dict[str, Any]]]:
        """Give the documents that name the frames of the last trigger."""
        raise NotImplementedError


class _Turn:
    """A lock that is waited for no longer than the exposure is wanted."""

    def __init__(self, lock: threading.Lock, stopped: threading.Event, name: str) -> None:
        self._lock = lock
        self._stopped = stopped
        self._name = name

    def __enter__(self) -> None:
        while not self._lock.acquire(timeout=0.02):
            if self._stopped.is_set():
                raise ExposureStoppedError(f"{self._name}: stopped while another camera was exposing")

    def __exit__(self, *_: object) -> None:
        self._lock.release()
