"""A light: what is selected shines within an exposure, and at no other time.

Selecting a preset lights nothing. `lit()` does, for as long as its block runs, and switches off however the
block ends. Nothing here knows what is exposed.

What is lit is lit throughout, or the exposure fails. Writes through these devices that would change the light are
refused while an exposure goes on, but for those that switch off: they do, and end it. A second client of the core
(a panel, a script) cannot be refused: it is seen if the group shows another preset when a frame has come, or when
the exposure ends, and if a power is another one at the end than at the beginning. What it changes and changes back
between two frames is not seen, nor within a single frame; nor what happens behind the core, as an interlock or a
client of its own on the controller's line, where the adapter answers from memory: the ASITiger adapter keeps the
output channel of a PLogic card and does not ask the card.
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
ROUNDING_PERCENT = 0.005
"""Controllers round: a power at its bound reads back a hair beside it."""


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
        write=lambda light, value: light.drive(value),
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
        self._shining = switch.off
        self._offs = self._since = 0
        self._why: tuple[type[DeviceError], str] = (DeviceError, "")
        self._is_shut = False
        super().__init__(name=name, labels={"lights"}, **kwargs)

    @property
    def position(self) -> Preset:
        """The preset that is selected: what `set` is undone with."""
        return Preset(self.preset.get())

    @property
    def offs(self) -> int:
        """How many times it was switched off by anything else than the end of an exposure."""
        return self._offs

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
    def changing(self, signal: Signal, value: Any) -> Iterator[None]:
        """Let what is selected be changed, how bright it is, or what shines, while the block runs.

        Raises
        ------
        ExposingError
            An exposure that goes on is lit with it, or any exposure would be lit by it. Switching off is never
            refused: it ends the exposure.
        """
        if signal is self.output and value == self.off:
            yield
            return
        of = None if signal is self.output else self.name
        with self.connection.underway.change(signal.name, of):
            yield

    @contextmanager
    def lit(self, preset: str | None = None, *, since: int | None = None) -> Iterator[str]:
        """Shine while the block runs.

        Parameters
        ----------
        preset
            The one that is selected, if not given.
        since
            What `offs` said when the exposure was asked for: whoever has switched off since did not want it any
            more. Now, if not given.

        Yields
        ------
        str
            The preset.

        Raises
        ------
        PresetError
            The preset was refused, or it was not lit throughout.
        ExposureStoppedError
            `stop` came while it was on.
        DeviceError
            It could not be switched off.
        """
        preset = str(self.preset.get()) if preset is None else preset
        self.check_before(preset)
        levels = self.levels(preset)
        try:
            with self._switching:
                self._since = self._offs if since is None else since
                self._shining = preset
                self._check_allowed()
                self.switch(preset)
            yield preset
            self.check_lit()
            self._check_levels(levels)
        except BaseException as error:
            try:
                self._switch_off()
            except DeviceError as still_on:
                raise DeviceError(f"{still_on}; it was lit, and then: {error}") from error
            raise
        self._switch_off()

    def check_lit(self) -> None:
        """See that it shines as it did when the block of `lit` began; asked after every frame.

        Raises
        ------
        PresetError
            It does not, or was switched off in between.
        ExposureStoppedError
            `stop` came.
        DeviceError
            The core does not say.
        """
        self._check_allowed()
        try:
            now = self.connection.core.getCurrentConfig(self.group)
        except Exception as error:
            raise DeviceError(f"{self.name}: group {self.group!r} does not say what shines: {error}") from error
        if now != self._shining:
            raise PresetError(
                f"{self.name}: not lit throughout: it began with {self._shining!r}, and then group {self.group!r} "
                f"showed {now!r}"
            )

    def levels(self, preset: str) -> dict[str, float]:  # noqa: ARG002 - for those that have some
        """How bright a preset is now, in percent, by name of the signal; empty for a light that has no levels."""
        return {}

    def check_before(self, preset: str) -> None:
        """Refuse to shine with a preset as its powers are now; a light without powers never does."""

    def drive(self, preset: str) -> None:
        """Shine with a preset until somebody switches off; the one that is off ends an exposure that goes on.

        Raises
        ------
        PresetError
            It was refused.
        DeviceError
            It could not be switched off.
        """
        if preset == self.off:
            self.all_off()
            return
        with self._switching:
            self._check_open()
            self.switch(preset)

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
        """Switch off; what is selected stays selected, and an exposure that goes on fails.

        Raises
        ------
        DeviceError
            It would not go off: the light may be on.
        """
        self._end(PresetError, "not lit throughout: switched off during the exposure")

    def shut(self) -> None:
        """Switch off, and let nothing switch on again until `reopen`; an exposure that goes on fails.

        Raises
        ------
        DeviceError
            It would not go off: the light may be on.
        """
        self._is_shut = True
        self.stop()

    def reopen(self) -> None:
        """Let it be switched on again."""
        self._is_shut = False

    def _switch_off(self) -> None:
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
        self._end(ExposureStoppedError, "switched off by stop() during the exposure")

    def pause(self) -> None:
        """Switch off, as the RunEngine pauses."""
        self.stop()

    def unstage(self) -> list[object]:
        """Switch off, as a run ends."""
        self.stop()
        return list(super().unstage())

    def _end(self, error: type[DeviceError], why: str) -> None:
        with self._switching:
            self._why = (error, f"{self.name}: {why}")
            self._offs += 1
            self._switch_off()

    def _check_allowed(self) -> None:
        self._check_open()
        if self._offs != self._since:
            error, why = self._why
            raise error(why)

    def _check_open(self) -> None:
        if self._is_shut:
            raise ExposureStoppedError(f"{self.name}: shut, for the program is about to end")

    def _check_levels(self, before: dict[str, float]) -> None:
        for name, now in self.levels(self._shining).items():
            if abs(now - before[name]) > ROUNDING_PERCENT:
                raise PresetError(
                    f"{self.name}: not lit throughout: {name} was {before[name]:g} percent when the exposure "
                    f"began, and {now:g} at its end"
                )
