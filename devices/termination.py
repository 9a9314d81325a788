"""The lasers go off when the program is told to end, and then it ends as it would have.

Knows signals of the operating system; what is switched off, the lights know. `atexit` has no turn when a signal
kills, and a laser that nobody switches off goes on.
"""

import os
import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any, Protocol

NAMES = ("SIGTERM", "SIGHUP", "SIGBREAK")
"""What tells a program to end, as far as the system has it: a service manager, a terminal that closes, Windows.
An interrupt from the keyboard is the RunEngine's."""


class Darkened(Protocol):
    """What has lights; a `Dispim` is one."""

    @property
    def laser(self) -> Any:
        """Light with `shut` and `reopen`."""

    @property
    def led(self) -> Any:
        """Another one."""


def dark_on_signals(dispim: Darkened) -> Callable[[], None]:
    """Switch the lights off when a signal ends the program (SIGTERM, SIGHUP; SIGBREAK on Windows).

    Parameters
    ----------
    dispim
        Its laser and its lamp.

    Returns
    -------
    Callable
        Gives the signals back to those who had them, unless somebody took them since.

    Notes
    -----
    For a program of its own, as a prompt or the command line: nothing here is done by importing. What handled a
    signal before has its turn afterwards, be it the default, which ends the process by that signal, or a handler
    of an application; while that runs no light can be switched on, and an exposure that goes on has failed. A
    signal that is ignored stays ignored (`nohup`), and one that something else than Python handles is left alone.
    Off the main thread, where Python hands out no signals, nothing is done. An application that installs its
    handlers later replaces these, and must call `dispim.close()` itself.

    SIGKILL, a crash of the interpreter and a power failure cannot be heard: for those the hardware needs an
    interlock.
    """
    if threading.current_thread() is not threading.main_thread():
        return lambda: None
    ours: dict[signal.Signals, tuple[Any, Any]] = {}
    for name in NAMES:
        number: signal.Signals | None = getattr(signal, name, None)
        before = signal.SIG_IGN if number is None else signal.getsignal(number)
        if number is None or before in (signal.SIG_IGN, None):
            continue
        handler = _handler(dispim, before)
        signal.signal(number, handler)
        ours[number] = (handler, before)

    def give_back() -> None:
        for number, (handler, before) in ours.items():
            if signal.getsignal(number) is handler:
                signal.signal(number, before)

    return give_back


def _handler(dispim: Darkened, before: Any) -> Callable[[int, FrameType | None], None]:
    def handle(number: int, frame: FrameType | None) -> None:
        lights = (dispim.laser, dispim.led)
        for light in lights:
            try:
                light.shut()
            except Exception as error:  # noqa: BLE001 - the other one must have its turn, and the signal as well
                os.write(2, f"{error}\n".encode())  # a signal may have come in the middle of a print
        if before == signal.SIG_DFL:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
            return
        try:
            before(number, frame)
        finally:
            for light in lights:
                light.reopen()

    return handle
