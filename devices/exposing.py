"""What every detector here has in common: a trigger that exposes in a thread of its own and can be cut short.

Knows when an exposure begins and how it may end; what is exposed, the device says. What an exposure depends on
is read when it begins, is what it is taken with and what its event says, and cannot be changed until it has ended.
After an exposure that did not end well nothing can be read until one has.
"""

import threading
from abc import abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from ophyd import Device, Signal

from devices.core import Connection
from devices.light import Light
from devices.signals import Measured, Told, as_read
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
        self._offs = 0
        self._readings: dict[str, Any] = {}
        self._description: dict[str, Any] | None = None
        self._was_read = False
        super().__init__(name=name, labels={"detectors"}, **kwargs)

    @property
    @abstractmethod
    def held_as(self) -> str:
        """What exposures hold that depend on the settings of this device."""

    @property
    @abstractmethod
    def holds(self) -> frozenset[str]:
        """What must stay as it is while this device exposes: itself, its light, the labels of its hardware."""

    @abstractmethod
    def expose(self, told: Told) -> None:
        """Take what one trigger takes, light included; whatever is open is closed when this ends.

        Parameters
        ----------
        told
            Gives the settings that it is to be taken with.

        Raises
        ------
        ExposureStoppedError
            `stopped` was set.
        """

    @abstractmethod
    def outcome(self) -> dict[str, Any]:
        """Readings of what the exposure gave that has just ended well."""

    @abstractmethod
    def describe_next(self) -> dict[str, Any]:
        """Data keys of an exposure with the settings that there are now."""

    @abstractmethod
    def trigger_bytes(self, wanted: Mapping[Signal, Any] | None = None) -> int:
        """Bytes of all the pixels that one trigger gives.

        Parameters
        ----------
        wanted
            Settings, and what each is to be told before; the others are as they are.
        """

    def lit(self, preset: str | None = None) -> AbstractContextManager[str]:
        """Shine while the block runs, unless somebody has switched off since the trigger.

        Parameters
        ----------
        preset
            The one that is selected, if not given.
        """
        return self.light.lit(preset, since=self._offs)

    @property
    def stopped(self) -> threading.Event:
        """Set while an exposure is to end early."""
        return self._stopped

    def trigger(self) -> CausedStatus:
        """Expose, in a thread of its own; from now on to its end no setting that it depends on can be changed.

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
        self._description = None
        self._offs = self.light.offs
        self.connection.underway.begin(self.name, self.holds)
        try:
            self._thread = in_thread(self._status, self._run, name=f"expose-{self.name}")
        except BaseException:
            self.connection.underway.end(self.name)
            raise
        return self._status

    @contextmanager
    def changing(self, signal: Signal, _value: Any) -> Iterator[None]:
        """Let a setting be changed while the block runs.

        Raises
        ------
        ExposingError
            An exposure that goes on depends on it.
        """
        with self.connection.underway.change(signal.name, self.held_as):
            yield
        if self._was_read:
            self._description = None

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
        """Readings of the last exposure, its settings as they were when it began: later ones belong to the next.

        Raises
        ------
        ReadingError
            There is none that ended well since the device was staged.
        """
        self.check_readable()
        self._was_read = True
        return dict(self._readings)

    def describe(self) -> dict[str, Any]:
        """Data keys of the last exposure until it was read; of the next one after a setting is changed then."""
        keys = self.describe_next() if self._description is None else self._description
        return {name: dict(key) for name, key in keys.items()}

    def _read_settings(self) -> dict[str, Any]:
        """Read everything that an event says and that an exposure does not give."""
        signals = (getattr(self, name) for name in self.read_attrs)
        there = [each for each in signals if not isinstance(each, Device | Measured)]
        return {name: reading for each in there for name, reading in each.read().items()}

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
        self._description = None
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
            self._take()
        except Exception as error:
            self._unreadable = f"the last exposure did not end well: {type(error).__name__}: {error}"
            # A light that was stopped by itself is a pause as well: the RunEngine stops what was set first.
            if isinstance(error, ExposureStoppedError) and (self._pardoned or not self._stopped.is_set()):
                return
            raise
        self._unreadable = None

    def _take(self) -> None:
        underway = self.connection.underway
        try:
            with underway.turn(self.name, self._stopped):
                settings, description = self._read_settings(), self.describe_next()
                self.expose(as_read(settings))
                self._readings = {**settings, **self.outcome()}
                self._description, self._was_read = description, False
        finally:
            underway.end(self.name)

    def collect_asset_docs(self, index: int | None = None) -> Iterator[tuple[str, dict[str, Any]]]:
        """Give the documents that name the frames of the last trigger."""
        raise NotImplementedError
