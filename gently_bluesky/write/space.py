"""Room on the disk: what a run may take of it, and a word in time when that will not do.

Volumes leave a reserve alone; documents may use it, so a run on a disk that is otherwise full still gets its stop
document. Knows bytes and the clock; knows nothing of pixels, and frees nothing.
"""

import datetime
import errno
import logging
import math
import shutil
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from gently_bluesky.errors import DiskFullError, DocumentError
from gently_bluesky.store.disk import free_bytes
from gently_bluesky.store.documents import shown
from gently_bluesky.store.strict_json import restored

log = logging.getLogger(__name__)

RESERVE_BYTES, RESERVE_PART = 1 << 30, 100
"""What is kept free unless the user says otherwise: this much, or this part of a file system that is smaller."""

_HOUR_S = 3600.0
_BELIEVED_AFTER_S = 60.0  # two views that are opened together are no rate
_FILES_TO_PIXELS = 1.1  # files are a little larger than the pixels that were expected
_PRESENT_S = 600.0  # how far back "at present" reaches, at least: rounds and pauses must average out


def expected_bytes(start: Mapping[str, Any]) -> int:
    """Give the bytes of pixels that a start document expects; 0 if it does not say.

    Raises
    ------
    DocumentError
        What it says is no whole number of bytes.
    """
    said = start.get("expected_bytes")
    if said is None:
        return 0
    if isinstance(said, bool) or not isinstance(said, int | float) or said < 0 or said % 1 != 0:
        raise DocumentError(
            f"Start {shown(start.get('uid'))} has {shown(restored(said))} as its 'expected_bytes': it must be "
            "a whole number from 0 on: the bytes of pixels that the run will take. Without it the run is begun "
            "whatever room there is."
        )
    return int(said)


class Reserve:
    """The part of a file system that volumes leave alone.

    Parameters
    ----------
    root
        A folder in that file system.
    nbytes
        How much; None: `RESERVE_BYTES`, or a hundredth of a file system where that is less.
    """

    def __init__(self, root: Path, nbytes: int | None = None) -> None:
        if nbytes is None:
            nbytes = min(RESERVE_BYTES, shutil.disk_usage(root).total // RESERVE_PART)
        if not isinstance(nbytes, int | float) or math.isnan(nbytes):  # type: ignore[redundant-expr]
            raise TypeError(f"reserve_bytes is {nbytes!r}; it must be a number of bytes, e.g. 2 * 10**9.")
        if nbytes < 0:
            raise ValueError(f"reserve_bytes is {nbytes}; it must be 0 or more.")
        self.root = root
        self.nbytes = nbytes

    def check_run(self, start: Mapping[str, Any]) -> None:
        """Refuse a run that cannot fit.

        Parameters
        ----------
        start
            Its start document; without `expected_bytes`, or with 0, it is not refused.

        Raises
        ------
        DocumentError
            Its `expected_bytes` is no whole number.
        DiskFullError
            There is less room above the reserve than it expects to need.
        """
        expected = expected_bytes(start)
        free = free_bytes(self.root)
        if expected > max(free - self.nbytes, 0):
            raise DiskFullError(
                errno.ENOSPC,
                f"No room for run {start['uid']} ({start.get('plan_name', 'of an unnamed plan')}): it expects "
                f"{self._lacking(expected, free, self.root)}, or take less. The run was not begun; with "
                "expected_bytes=0 in its metadata it is begun all the same.",
            )

    def check(self, path: Path, nbytes: int) -> int:
        """Refuse a file that would take of the reserve.

        Parameters
        ----------
        path
            Where it would be; its folder is there.
        nbytes
            Its size.

        Returns
        -------
        int
            Bytes that will be free above the reserve when it is there.

        Raises
        ------
        DiskFullError
            There would be none; nothing was created.
        """
        free = free_bytes(path.parent)
        left = free - self.nbytes - nbytes
        if left < 0:
            raise DiskFullError(
                errno.ENOSPC,
                f"No room for {path.name}: it needs {self._lacking(nbytes, free, path.parent)}. "
                "Nothing that was written before is lost.",
            )
        return left

    def _lacking(self, wanted: int, free: int, folder: Path) -> str:
        return (
            f"{wanted:,} bytes, {free:,} are free in {folder}, and {self.nbytes:,} stay reserved for documents. "
            f"Free {wanted + self.nbytes - free:,} bytes there, or give the writer another root"
        )


class RunSpace:
    """What one run takes of the disk, and how fast.

    Parameters
    ----------
    reserve
        What it must leave alone.
    start
        Its start document.
    now
        Gives the time, seconds since the epoch.
    """

    def __init__(self, reserve: Reserve, start: Mapping[str, Any], now: Callable[[], float]) -> None:
        self._reserve = reserve
        self._uid = start["uid"]
        self._expected = expected_bytes(start)
        self._now = now
        self._lock = threading.Lock()
        self._taken = 0
        self._marks: list[
            tuple[float, int]
        ] = []  # when, and what was taken before: the rate counts from the first
        self._warned_at = -math.inf

    def claim(self, path: Path, nbytes: int) -> None:
        """Take room for a file, and warn if there will soon be none; a `Claim`.

        Raises
        ------
        DiskFullError
            It would take of the reserve; nothing was created.
        """
        left = self._reserve.check(path, nbytes)
        now = self._now()
        with self._lock:
            rate = self._rate(now)
            self._taken += nbytes
            ends_at = self._ends_at(now, rate, left)
            if ends_at is None or now - self._warned_at < _HOUR_S:
                return
            self._warned_at = now
        log.warning(
            "Run %s: at the present rate of %.3g MB/s no volume fits any more from %s on%s. %s bytes are free "
            "above the reserve in %s. Free space there until then; otherwise the run fails before that exposure, "
            "and what is written stays good.",
            self._uid,
            rate / 1e6,
            datetime.datetime.fromtimestamp(ends_at).astimezone().isoformat(" ", "minutes"),
            f", before the {self._expected:,} bytes that it expects are written" if self._expected else "",
            f"{left:,}",
            self._reserve.root,
        )

    def _rate(self, now: float) -> float:
        """Bytes a second that were taken at present, before now; 0 as long as that cannot be said."""
        if not self._marks or now - self._marks[-1][0] >= _PRESENT_S:
            self._marks = [*self._marks[-1:], (now, self._taken)]
        since, before = self._marks[0]
        return (self._taken - before) / (now - since) if now - since >= _BELIEVED_AFTER_S else 0.0

    def _ends_at(self, now: float, rate: float, left: int) -> float | None:
        """Say when the reserve is reached, if that is too early."""
        if rate <= 0:
            return None
        if self._taken < self._expected * _FILES_TO_PIXELS:
            too_early = left < self._expected - self._taken
        else:  # it said nothing, or takes more than it said
            too_early = left < rate * _HOUR_S
        return now + left / rate if too_early else None
