"""`HeldRuns`: the runs that volumes were read from last, so that each need not ask for its run again."""

import threading
from collections import OrderedDict
from collections.abc import Callable

from gently_bluesky.read.run import Run

_MOST = 16


class HeldRuns:
    """Gives runs by uid; those that have ended are held, the last few, others asked for each time.

    Parameters
    ----------
    find
        Asks for a run.
    """

    def __init__(self, find: Callable[[str], Run]) -> None:
        self._find = find
        self._lock = threading.Lock()
        self._runs: OrderedDict[str, Run] = OrderedDict()

    def __call__(self, uid: str) -> Run:
        """Give a run."""
        with self._lock:
            found = self._runs.get(uid)
        if found is None:
            found = self._find(uid)
        if found.is_open:
            return found
        with self._lock:
            self._runs[uid] = found
            self._runs.move_to_end(uid)
            while len(self._runs) > _MOST:
                self._runs.popitem(last=False)
        return found
