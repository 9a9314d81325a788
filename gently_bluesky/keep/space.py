"""Plans that wait while the disk is low, and go on by themselves when there is room again.

They wait where they may be interrupted, before a run opens and at its checkpoints, so that no exposure is cut
short and none is repeated. Knows messages and free bytes; knows neither devices nor what is written, and frees
nothing.
"""

import logging
from collections.abc import Callable, Generator, Iterable
from pathlib import Path
from typing import Any

import bluesky.plan_stubs as bps
from bluesky.utils import Msg, ensure_generator

from gently_bluesky.store.disk import free_bytes

log = logging.getLogger(__name__)

Plan = Generator[Msg, Any, Any]


class SuspendOnLowSpace:
    """A preprocessor of plans: ``RE.preprocessors.append(SuspendOnLowSpace(root, below_bytes=5_000_000_000))``.

    Parameters
    ----------
    root
        A folder in the file system that runs are written to.
    below_bytes
        Plans wait while fewer bytes are free. More than the writer's reserve and what is taken between two
        checkpoints, or the writer refuses a volume first.
    resume_bytes
        They go on when as many are free again; `below_bytes`, if not given.
    poll_s
        How often a plan that waits looks, in seconds.
    free
        Gives the bytes that are free where a path lies.

    Raises
    ------
    ValueError
        A number that is negative, or `resume_bytes` below `below_bytes`.

    Notes
    -----
    Not one of `bluesky.suspenders`: those act at any moment, and a volume takes its space the moment it begins.
    Its exposure would be cut short and repeated, at twice the dose, and a plan that has no checkpoint be aborted.
    Ctrl-C twice pauses a plan that waits, as any other.
    """

    def __init__(
        self,
        root: Path | str,
        *,
        below_bytes: int,
        resume_bytes: int | None = None,
        poll_s: float = 5.0,
        free: Callable[[Path], int] = free_bytes,
    ) -> None:
        self.root = Path(root)
        self.below_bytes = below_bytes
        self.resume_bytes = below_bytes if resume_bytes is None else resume_bytes
        self._poll_s = poll_s
        self._free = free
        if not 0 <= self.below_bytes <= self.resume_bytes or poll_s < 0:
            raise ValueError(
                f"{self!r}, poll_s={poll_s}: 0 <= below_bytes <= resume_bytes and 0 <= poll_s must hold."
            )

    def __repr__(self) -> str:
        numbers = f"below_bytes={self.below_bytes}, resume_bytes={self.resume_bytes}"
        return f"SuspendOnLowSpace({str(self.root)!r}, {numbers})"

    def __call__(self, plan: Iterable[Msg]) -> Plan:
        """Give the plan that waits where it should, and is the same otherwise."""
        inner: Plan = ensure_generator(plan)
        step: Callable[[Any], Msg] = inner.send
        value: Any = None
        while True:
            try:
                msg = step(value)
            except StopIteration as end:
                return end.value
            step = inner.send
            try:
                if msg.command == "open_run":
                    yield from self.wait()
                value = yield msg
                if msg.command == "checkpoint":
                    yield from self.wait()
            except GeneratorExit:
                inner.close()
                raise
            except BaseException as error:  # noqa: BLE001 - the plan's to handle, as without us
                step, value = inner.throw, error

    def wait(self) -> Plan:
        """Wait, if fewer than `below_bytes` are free, until `resume_bytes` are."""
        free = self._free(self.root)
        if free >= self.below_bytes:
            return
        log.warning(
            "The plan waits: %s bytes are free in %s, fewer than %s. Free %s there, and it goes on by itself.",
            f"{free:,}",
            self.root,
            f"{self.below_bytes:,}",
            f"{self.resume_bytes - free:,}",
        )
        while free < self.resume_bytes:
            yield from bps.checkpoint()  # a pause in between repeats one look, and not a night of them
            yield from bps.sleep(self._poll_s)
            free = self._free(self.root)
        log.warning("The plan goes on: %s bytes are free in %s.", f"{free:,}", self.root)
