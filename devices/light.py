"""A light: what is selected shines within an exposure, and at no other time.

Selecting a preset lights nothing. `lit()` does, for as long as its block runs, and switches off however the
block ends. Nothing here knows what is exposed.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ophyd import Component as Cpt
from ophyd import Device, Kind, Signal

from devices.clock import wait_for
from devices.configuration import LaserSettings, LedSettings
from devices.core import Connection
from devices.signals import CoreSignal, Setting
from devices.status import CausedStatus
from gently_bluesky.errors import DeviceError, ExposureStoppedError, PresetError

PERCENT = "percent"


class Preset(str):
    """A preset as a position: text that bluesky's `%wa` can round like every other position."""

    __slots__ = ()

    def round(self, decimals: int = 0, out: None = None) -> "Preset":  # noqa: ARG002 - as numpy.round calls it
        """Give itself: there is nothing to round."""
        return self


class Light(Device):  # type: ignore[misc]
    """A light that is switched by the presets of a config group.

    Parameters
    ----------
    connection
        To the core.
    switch
        The config group, which of its presets is off, which is selected at the beginning, and its time-out.
    presets
        All its presets, spelled as on the instrument.
    """

    preset = Cpt(
        Setting,
        initial=lambda light: light.initial,
        dtype_numpy="<U",
        choices=lambda light: light.presets,
        convert=str,
        kind=Kind.normal,
    )
    output = Cpt(
        CoreSignal,
        source=lambda light: f"mmcore:config group {light.group}",
        read=lambda light: light.connection.core.getCurrentConfig(light.group),
        write=lambda light, value: light.switch(value),
        dtype_numpy="<U",
        choices=lambda light: light.presets,
        kind=Kind.normal,
    )

    def __init__(
        self,
        *,
        name: str,
        connection: Connection,
        switch: LaserSettings | LedSettings,
        presets: tuple[str, ...],
        **kwargs: Any,
    ) -> None:
        self.connection = connection
        self.group = switch.group
        self.off = switch.off
        self.presets = presets
        self.initial = switch.selected
        self._timeout_s = switch.timeout_s
        self._switching = threading.RLock()
        self._stopped = False
        super().__init__(name=name, labels={"lights"}, **kwargs)

    @property
    def position(self) -> Preset:
        """The preset that is selected: what `set` is undone with."""
        return Preset(self.preset.get())

    @property
    def channel(self) -> str | None:
        """What frames of the selected preset show, for their metadata; None: nothing that has a name."""
        return str(self.preset.get())

    def check_value(self, value: str) -> None:
        """Refuse a preset that there is not.

        Raises
        ------
        PresetError
            Not spelled like any of the presets; the message lists them.
        """
        self.preset.check_value(value)

    def set(self, value: str) -> CausedStatus:
        """Select what the next exposures are lit with. Nothing shines.

        Parameters
        ----------
        value
            A preset, spelled exactly.

        Returns
        -------
        CausedStatus
            Done.

        Raises
        ------
        PresetError
            There is no such preset.
        """
        self.check_value(value)
        self.preset.put(value)
        status = CausedStatus(self)
        status.set_finished()
        return status

    @contextmanager
    def changing(self, signal: Signal, _value: Any) -> Iterator[None]:
        """Let what is selected be changed, or how bright it is, while the block runs.

        Raises
        ------
        ExposingError
            An exposure that goes on is lit with it.
        """
        if signal is self.output:  # drives, and selects nothing
            yield
            return
        with self.connection.underway.change(signal.name, self.name):
            yield

    @contextmanager
    def lit(self, preset: str | None = None) -> Iterator[str]:
        """Shine while the block runs.

        Parameters
        ----------
        preset
            The one that is selected, if not given.

        Yields
        ------
        str
            The preset.

        Raises
        ------
        PresetError
            The preset was refused, or was not on any more when the block ended.
        ExposureStoppedError
            `stop` came while it was on.
        DeviceError
            It could not be switched off.
        """
        preset = str(self.preset.get()) if preset is None else preset
        self.check_before(preset)
        try:
            with self._switching:
                self._stopped = False
                self.switch(preset)
            yield preset
            self._check_still(preset)
        except BaseException as error:
            try:
                self.all_off()
            except DeviceError as still_on:
                raise DeviceError(f"{still_on}; it was lit, and then: {error}") from error
            raise
        self.all_off()

    def check_before(self, preset: str) -> None:
        """Refuse to shine with a preset as its powers are now; a light without powers never does."""

    def switch(self, preset: str) -> None:
        """Drive the group, and see that it followed.

        Parameters
        ----------
        preset
            One of the presets.

        Raises
        ------
        PresetError
            It was refused, or the group shows another one.
        """
        core = self.connection.core
        try:
            core.setConfig(self.group, preset)
        except Exception as error:
            raise PresetError(f"{self.name}: group {self.group!r} refused preset {preset!r}: {error}") from error
        wait_for(
            lambda: core.getCurrentConfig(self.group) == preset,
            self.connection.clock,
            timeout_s=self._timeout_s,
            what=f"{self.name}: group {self.group!r} to show preset {preset!r}",
            error=PresetError,
        )

    def all_off(self) -> None:
        """Switch off; what is selected stays selected.

        Raises
        ------
        DeviceError
            It would not go off: the light may be on.
        """
        with self._switching:
            try:
                self.switch(self.off)
            except Exception as error:
                raise DeviceError(
                    f"{self.name} COULD NOT BE SWITCHED OFF, the light may be on, close the shutter by hand: "
                    f"{error}"
                ) from error

    def stop(self, *, success: bool = False) -> None:  # noqa: ARG002 - bluesky's signature
        """Switch off at once; an exposure that is going on fails, and the next one is lit again."""
        with self._switching:
            self._stopped = True
            self.all_off()

    def pause(self) -> None:
        """Switch off, as the RunEngine pauses."""
        self.stop()

    def unstage(self) -> list[object]:
        """Switch off, as a run ends."""
        self.stop()
        return list(super().unstage())

    def _check_still(self, preset: str) -> None:
        if self._stopped:
            raise ExposureStoppedError(f"{self.name}: switched off by stop() during the exposure")
        now = self.connection.core.getCurrentConfig(self.group)
        if now != preset:
            raise PresetError(
                f"{self.name}: lit with {preset!r}, and at the end of the exposure group {self.group!r} "
                f"shows {now!r}"
            )
