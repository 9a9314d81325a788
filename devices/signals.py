"""Signals of two kinds: what the hardware says (`CoreSignal`) and what a device was told (`Setting`).

A reading that fails raises; it never becomes a number. Nothing here knows which device a signal belongs to.
"""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from ophyd import Kind, Signal
from ophyd.utils import ReadOnlyError

from devices.declared import DeclaredSignal
from devices.status import CausedStatus, in_thread
from gently_bluesky.errors import DeviceError, ReadingError


class Changeable(Protocol):
    """A device that has a word in what is changed of it; any device with this method does."""

    def changing(self, signal: Signal, value: Any) -> AbstractContextManager[None]:
        """Let a signal of it be changed while the block runs, or refuse it.

        Parameters
        ----------
        signal
            That is changed.
        value
            What it is to be.

        Raises
        ------
        ExposingError
            An exposure that goes on depends on it.
        """


def _changing(signal: Signal, value: Any) -> AbstractContextManager[None]:
    if not hasattr(signal.parent, "changing"):
        return nullcontext()
    parent: Changeable = signal.parent
    return parent.changing(signal, value)


class Setting(DeclaredSignal):
    """What a device was told, and will do the next time.

    Parameters
    ----------
    initial
        Value at the beginning; called with the parent, if it is a function.
    convert
        Makes what is kept of what was given, as `int` of 50.0.
    after
        Called with the parent when the value has changed.
    """

    def __init__(
        self,
        *,
        name: str,
        initial: Any,
        parent: Any = None,
        convert: Callable[[Any], Any] | None = None,
        after: Callable[[Any], None] | None = None,
        **kwargs: Any,
    ) -> None:
        value = initial(parent) if callable(initial) else initial
        super().__init__(name=name, value=value, parent=parent, **kwargs)
        self._convert = convert
        self._after = after

    @property
    def source_name(self) -> str:
        """Where the value is from."""
        return f"setting:{self.name}"

    def get(self, **_: Any) -> Any:
        """What it was told.

        Raises
        ------
        ReadingError
            By force, or by the configuration, it was told a number that is not finite.
        """
        value = super().get()
        if self._dtype_numpy == "<f8" and not np.all(np.isfinite(value)):
            raise ReadingError(f"{self.name}: it was told {value}, which is no finite number; set it anew")
        return value

    def put(self, value: Any, *, force: bool = False, **_: Any) -> None:
        """Keep a value.

        Raises
        ------
        PresetError, LimitError
            It must not be this.
        ExposingError
            It must not be anything else now, forced or not.
        """
        if not force:
            self.check_value(value)
        with _changing(self, value):
            super().put(value if self._convert is None else self._convert(value), force=True)
            if self._after is not None:
                self._after(self.parent)

    def set(self, value: Any, **_: Any) -> CausedStatus:
        """Set the value at once.

        Returns
        -------
        CausedStatus
            Done.
        """
        self.put(value)
        status = CausedStatus(self)
        status.set_finished()
        return status


Told = Callable[[Signal], Any]
"""Gives the value of a setting."""


def as_told(setting: Signal) -> Any:
    """Give what a setting was told."""
    return setting.get()


def as_read(readings: Mapping[str, Any]) -> Told:
    """Give settings as they were read; what was not read is as it is."""
    return lambda setting: readings[setting.name]["value"] if setting.name in readings else setting.get()


def as_if_told(wanted: Mapping[Signal, Any]) -> Told:
    """Give what settings would be if they were told this; what is not named is as it is."""
    return lambda setting: wanted[setting] if setting in wanted else setting.get()


class CoreSignal(DeclaredSignal):
    """What the hardware says, asked anew for every reading.

    Parameters
    ----------
    source
        Where the value is from, as "mmcore:<label>.<property>"; called with the parent, if it is a function.
    read
        Called with the parent to get the value; None when there is no value yet.
    write
        Called with the parent and the value; absent, the signal is read-only.
    """

    def __init__(
        self,
        *,
        name: str,
        source: str | Callable[[Any], str],
        read: Callable[[Any], Any],
        write: Callable[[Any, Any], None] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(name=name, **kwargs)
        self._source = source
        self._read_function = read
        self._write_function = write
        self._metadata["write_access"] = write is not None

    @property
    def source_name(self) -> str:
        """Where the value is from."""
        return self._source(self.parent) if callable(self._source) else self._source

    def get(self, **_: Any) -> Any:
        """Ask the hardware.

        Raises
        ------
        ReadingError
            It did not answer, or not with a value; the message names device and property.
        """
        try:
            value = self._read_function(self.parent)
            if self._dtype_numpy == "<f8":
                value = float(value) if self._shape == () else value
                if not np.all(np.isfinite(value)):
                    raise ValueError(f"it says {value}")  # noqa: TRY301 - told like every other failure
            elif self._dtype_numpy == "<i8" and self._shape == ():
                value = int(value)
        except ReadingError:
            raise
        except Exception as error:
            raise ReadingError(f"{self.name}: reading {self.source_name} failed: {error}") from error
        self._readback = value
        return value

    def put(self, value: Any, *, force: bool = False, **_: Any) -> None:
        """Tell the hardware, and return when it has taken it.

        Raises
        ------
        ReadOnlyError
            It cannot be told.
        PresetError, LimitError
            It must not be told this.
        ExposingError
            It must not be told anything else now, forced or not.
        DeviceError
            It refused.
        """
        if self._write_function is None:
            raise ReadOnlyError(f"{self.name} is read from {self.source_name} and cannot be set")
        if not force:
            self.check_value(value)
        with _changing(self, value):
            try:
                self._write_function(self.parent, value)
            except DeviceError:
                raise
            except Exception as error:
                raise DeviceError(f"{self.name}: {self.source_name} refused {value!r}: {error}") from error
        super().put(value, force=True, timestamp=self._read_at())

    def set(self, value: Any, **_: Any) -> CausedStatus:
        """Tell the hardware, in a thread of its own: a property of a serial device takes tens of
        milliseconds.

        Returns
        -------
        CausedStatus
            Done when the hardware has taken it.

        Raises
        ------
        ReadOnlyError, PresetError, LimitError, ExposingError
            At once, when it cannot be set to this, or not now.
        """
        if self._write_function is None:
            raise ReadOnlyError(f"{self.name} is read from {self.source_name} and cannot be set")
        self.check_value(value)
        with _changing(self, value):
            pass
        status = CausedStatus(self)
        in_thread(status, lambda: self.put(value, force=True), name=f"set-{self.name}")
        return status

    def _described_dtype(self) -> str:
        # Text without choices is a label or a version: it does not change, and its length is known.
        if self._dtype_numpy == "<U" and not self.choices and self.kind == Kind.config:
            return f"<U{max(1, len(str(self.get())))}"
        return super()._described_dtype()

    def _read_at(self) -> float:
        return float(self.parent.connection.clock.time())


@dataclass(frozen=True, slots=True)
class Property:
    """A property of a device of the core that holds a number."""

    label: str
    """Of the device."""
    name: str
    per_unit: float = 1.0
    """What the property counts for one unit of the signal."""


class PropertySignal(CoreSignal):
    """A number that is a property of a device of the core.

    Parameters
    ----------
    of
        Called with the parent to get the property.
    """

    def __init__(self, *, name: str, of: Callable[[Any], Property], **kwargs: Any) -> None:
        def source(parent: Any) -> str:
            return f"mmcore:{of(parent).label}.{of(parent).name}"

        def read(parent: Any) -> float:
            there = of(parent)
            return float(parent.connection.core.getProperty(there.label, there.name)) / there.per_unit

        def write(parent: Any, value: float) -> None:
            there = of(parent)
            parent.connection.core.setProperty(there.label, there.name, f"{value * there.per_unit:.6g}")

        super().__init__(name=name, source=source, read=read, write=write, **kwargs)


class Derived(CoreSignal):
    """What a device works out, or measured, by itself; read-only.

    Parameters
    ----------
    read
        Called with the parent to get the value.
    """

    def __init__(self, *, name: str, read: Callable[[Any], Any], **kwargs: Any) -> None:
        super().__init__(name=name, read=read, source=lambda _: f"derived:{self.name}", **kwargs)


class Measured(Derived):
    """What an exposure gave, and the next one will give anew; read-only."""
