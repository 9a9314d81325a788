"""What waits for the writer's thread: bounded in bytes, taken in order and in groups by a thread of its own.

Knows how much there is and when it is done; what becomes of it is the writer's business.
"""

import threading
from collections import deque
from collections.abc import Callable
from itertools import groupby

from gently_bluesky.errors import WriterFailedError
from gently_bluesky.write.intake import Item
from gently_bluesky.write.recorder import RunRecorder

_GROUP, _GROUP_BYTES = 256, 32 << 20  # what is made durable together, at most


class Backlog:
    """A queue and its thread.

    Parameters
    ----------
    limit_bytes
        How much may wait; `put` waits when it is more.
    work
        Called on the thread with a run and the items of it that came one after the other; it raises nothing.
    """

    def __init__(self, limit_bytes: int, work: Callable[[RunRecorder, list[Item]], None]) -> None:
        self._limit_bytes = limit_bytes
        self._work = work
        self._queue: deque[tuple[RunRecorder, Item, int]] = deque()
        self._nbytes = 0
        self._busy = False
        self._closed = False
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None

    @property
    def is_mine(self) -> bool:
        """Whether this is its thread: it must not wait for itself."""
        return threading.current_thread() is self._thread

    @property
    def nbytes(self) -> int:
        """How much waits, or is being worked on."""
        return self._nbytes

    def wait_for(self, what: Callable[[], bool], timeout_s: float | None = None) -> bool:
        """Wait until something holds that a change of the backlog may bring about; False if it did not in time."""
        with self._changed:
            return self._changed.wait_for(what, timeout_s)

    def begin(self) -> None:
        """Begin the thread, if it has not begun."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="gently-writer", daemon=True)
            self._thread.start()

    def put(self, run: RunRecorder, item: Item) -> None:
        """Add one item, once there is room.

        Raises
        ------
        WriterFailedError
            It was closed.
        """
        nbytes = item.nbytes  # before it is in the queue: what fails here must not fail on the thread
        with self._changed:
            while self._nbytes > self._limit_bytes and run.failure is None and not self._closed:
                self._changed.wait()
            if self._closed:
                raise WriterFailedError(f"The writer was closed in the middle of run {run.uid}.")
            self._queue.append((run, item, nbytes))
            self._nbytes += nbytes
            self._changed.notify_all()

    def drain(self) -> None:
        """Wait until nothing is left."""
        self.wait_for(lambda: not self._queue and not self._busy)

    def close(self) -> None:
        """Let the thread finish what there is, and end it; what is put later is refused."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._queue or self._closed)
                if not self._queue:
                    return
                group, nbytes = self._next_group()
                self._busy = True
            for run, items in groupby(group, key=lambda each: each[0]):
                self._work(run, [item for _, item, _ in items])
            del group
            with self._changed:
                self._nbytes -= nbytes
                self._busy = False
                self._changed.notify_all()

    def _next_group(self) -> tuple[list[tuple[RunRecorder, Item, int]], int]:
        group: list[tuple[RunRecorder, Item, int]] = []
        nbytes = 0
        while self._queue and len(group) < _GROUP and nbytes < _GROUP_BYTES:
            group.append(self._queue.popleft())
            nbytes += group[-1][2]
        return group, nbytes
