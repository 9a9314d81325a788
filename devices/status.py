"""Statuses that tell their cause, and the thread in which slow work is done.

The RunEngine puts the text of a failed Status into the stop document as its reason; ophyd's says only
`success=False`. Nothing here knows what the work is.
"""

import math
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from ophyd.status import DeviceStatus, StatusBase

TELL_S = 0.1
"""How often somebody who watches frames is told of them."""


class CausedStatus(DeviceStatus):  # type: ignore[misc]
    """A Status whose text, once it has failed, is its cause.

    Parameters
    ----------
    device
        Whose action it is.
    """

    def __init__(self, device: Any) -> None:
        # Whatever fails has cleaned up before it says so: stopping the device once more could only hit what
        # was started next.
        super().__init__(device, call_stop_on_failure=False)

    def follow(self, parts: Sequence[StatusBase]) -> None:
        """Finish when all parts have; fail when the first of them fails, with its cause.

        Parameters
        ----------
        parts
            Statuses, done or not.
        """
        lock = threading.Lock()
        waiting = len(parts)
        over = False

        def ended(part: StatusBase) -> None:
            nonlocal waiting, over
            with lock:
                waiting -= 1
                error = part.exception()
                if over or (error is None and waiting):
                    return
                over = True
            if error is None:
                self.set_finished()
            else:
                self.set_exception(error)

        for part in parts:
            part.add_callback(ended)

    def __str__(self) -> str:
        if self.done and self._exception is not None:
            return f"{self.device.name}: {type(self._exception).__name__}: {self._exception}"
        return str(super().__str__())

    __repr__ = __str__


class ProgressStatus(CausedStatus):
    """A CausedStatus that a progress bar can watch.

    Parameters
    ----------
    device
        What is on its way.
    initial, target
        Where it set out and where it is going, in `unit`.
    unit
        Unit of both.
    """

    def __init__(self, device: Any, *, initial: float, target: float, unit: str) -> None:
        self._watching: list[Callable[..., None]] = []
        self._begin = time.monotonic()
        self.initial = initial
        self.target = target
        self.unit = unit
        super().__init__(device)

    def watch(self, func: Callable[..., None]) -> None:
        """Call `func` with name, current, initial, target, unit, precision, fraction and time_elapsed.

        Parameters
        ----------
        func
            As bluesky's ProgressBar gives; `fraction` is what remains, 1 to 0.
        """
        self._watching.append(func)

    def tell(self, current: float) -> None:
        """Tell the watchers where it is.

        Parameters
        ----------
        current
            Position now, in the unit.
        """
        distance = abs(self.target - self.initial)
        fraction = min(1.0, abs(self.target - current) / distance) if distance else 0.0
        for func in self._watching:
            func(
                name=self.device.name,
                current=current,
                initial=self.initial,
                target=self.target,
                unit=self.unit,
                precision=3,
                fraction=fraction,
                time_elapsed=time.monotonic() - self._begin,
                time_remaining=None,
            )

    def _settled(self) -> None:
        if self._exception is None:
            self.tell(self.target)


class FramesStatus(ProgressStatus):
    """A ProgressStatus that counts frames, and tells no more often than anybody can read.

    Parameters
    ----------
    device
        What takes them.
    frames
        How many are to come.
    """

    def __init__(self, device: Any, *, frames: int) -> None:
        self._came = 0
        self._told = -math.inf
        super().__init__(device, initial=0, target=frames, unit="frames")

    def tell(self, current: float) -> None:
        """Take down how many have come, and tell the watchers ten times a second.

        Parameters
        ----------
        current
            How many frames have come.
        """
        self._came = int(current)
        # Drawing a bar takes longer than a frame may; there is none where nobody watches.
        if self._watching and (now := time.monotonic()) - self._told >= TELL_S:
            self._told = now
            super().tell(self._came)

    def _settled(self) -> None:
        super().tell(self._came)  # after a pause as well, in which not all have come


def in_thread(status: CausedStatus, work: Callable[[], None], *, name: str) -> threading.Thread:
    """Do the work in a thread of its own and finish the Status with how it ended.

    Parameters
    ----------
    status
        Finished when the work returns, failed with what it raises.
    work
        Bounded in time: the interpreter waits for it before it ends, so that a laser is switched off even
        then.
    name
        Of the thread.

    Returns
    -------
    threading.Thread
        Started.
    """

    def run() -> None:
        try:
            work()
        except Exception as error:  # noqa: BLE001 - it goes to whoever waits for the Status
            status.set_exception(error)
        else:
            status.set_finished()

    thread = threading.Thread(target=run, name=name, daemon=False)
    thread.start()
    return thread
