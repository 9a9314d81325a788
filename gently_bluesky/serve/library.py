"""`Library`: one catalog and open runs for many threads, and answers that are kept.

A run that is held is looked at again when its journal or its manifest has changed; until then its series are the
same objects. What is kept is bounded, runs in number and answers in bytes. Knows no HTTP.
"""

import contextlib
import re
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from gently_bluesky import Catalog
from gently_bluesky.errors import NotHereError, RootError, RunNotFoundError
from gently_bluesky.read.assets import HandlerRegistry
from gently_bluesky.read.images import ImageSeries
from gently_bluesky.read.run import Run, Stream
from gently_bluesky.store.layout import JOURNAL, MANIFEST, ROOT_MARK

T = TypeVar("T")

_RUNS_HELD = 64
_WORDS_BYTES = 512  # with the checksum of a whole line in them
_Stamp = tuple[tuple[int, int, int] | None, ...]


class HeldRun:
    """A run that several threads read; made by a `Library`."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._lock = threading.RLock()
        self._stamp, self._last = self._stamp_now(), self._last_words()
        self._made: dict[Hashable, Any] = {}

    def _stamp_now(self) -> _Stamp:
        return tuple(map(_stamp, (self._run.folder / JOURNAL, self._run.folder / MANIFEST)))

    @contextlib.contextmanager
    def reading(self) -> Iterator[Run]:
        """Give the run as it is now; nobody brings it up to date meanwhile. Take out what is needed, and go."""
        with self._lock:
            self._catch_up()
            yield self._run

    def series(self, stream: str, key: str) -> ImageSeries:
        """Give the images of a data key, as of now; StreamNotFoundError, NotHereError."""
        return self.once(("series", stream, key), lambda run: _images(run[stream], key))

    def once(self, name: Hashable, make: Callable[[Run], T]) -> T:
        """Give what was made of the run under a name, until it changes."""
        with self._lock:
            self._catch_up()
            if name not in self._made:
                self._made[name] = make(self._run)
            made: T = self._made[name]
            return made

    def _catch_up(self) -> None:
        now = self._stamp_now()
        if now != self._stamp:
            self._made = {}
            self._run.refresh()
            self._stamp, self._last = now, self._last_words()

    def _last_words(self) -> bytes:
        """Give the end of what was read of the journal: it tells a run from another one in its place."""
        end = self._run.journal_bytes
        with contextlib.suppress(OSError), (self._run.folder / JOURNAL).open("rb") as journal:
            journal.seek(max(0, end - _WORDS_BYTES))
            return journal.read(min(end, _WORDS_BYTES))
        return b""

    @property
    def is_there(self) -> bool:
        """Whether its folder still has its journal, and no other."""
        with self._lock:
            there = self._stamp_now()[0] is not None
            return there and (self._stamp_now() == self._stamp or self._last_words() == self._last)


def _images(stream: Stream, key: str) -> ImageSeries:
    if key not in stream.image_keys:
        raise NotHereError(
            f"Stream {stream.name!r} has no images {key!r:.100}.", available={"series": stream.image_keys}
        )
    return stream.images(key)


def _stamp(path: Path) -> tuple[int, int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_ino, status.st_size, status.st_mtime_ns


class Library:
    """The runs under a root, for many threads.

    Parameters
    ----------
    root
        A folder that a FileWriter made.
    cache_bytes
        Of answers that are kept.
    handlers
        For assets that others wrote, as `Catalog` has them.

    Raises
    ------
    RootError
        The folder is no root.
    """

    def __init__(self, root: Path | str, *, cache_bytes: int = 0, handlers: HandlerRegistry | None = None) -> None:
        self._catalog = Catalog(root, handlers=handlers)
        self._asking, self._lock = threading.Lock(), threading.Lock()
        self._held: OrderedDict[str, HeldRun] = OrderedDict()
        self.kept: Kept[object] = Kept(cache_bytes)

    @property
    def root(self) -> Path:
        """The root."""
        return self._catalog.root

    def ask(self, question: Callable[[Catalog], T]) -> T:
        """Give the answer of the catalog, which one thread asks at a time; RootError if the root is gone."""
        with self._asking:
            if not (self.root / ROOT_MARK).exists():
                raise RootError("The root is not there any more, or cannot be reached. Is its disk mounted?")
            return question(self._catalog)

    def run(self, key: str) -> HeldRun:
        """Give a run by its uid, the beginning of it, or -1, -2 ...; RunNotFoundError if there is none."""
        if re.fullmatch(r"-[1-9][0-9]{0,8}", key):
            key = self.ask(lambda catalog: _counted_back(catalog, int(key)))
        with self._lock:
            held = self._held.get(key)
            if held is not None:
                self._held.move_to_end(key)
        if held is None or not held.is_there:
            held = self._hold(self.ask(lambda catalog: catalog[key]))
        return held

    def _hold(self, run: Run) -> HeldRun:
        with self._lock:
            held = self._held.get(run.uid)
            if held is None or not held.is_there:
                held = self._held[run.uid] = HeldRun(run)
            self._held.move_to_end(run.uid)
            while len(self._held) > _RUNS_HELD:
                self._held.popitem(last=False)
            return held


def _counted_back(catalog: Catalog, number: int) -> str:
    newest = catalog.starts(limit=-number)
    if len(newest) < -number:
        raise RunNotFoundError(f"There are {len(newest)} runs; there is no run {number}.")
    return str(newest[-1]["uid"])


@dataclass(slots=True)
class _Item(Generic[T]):
    value: T
    nbytes: int


class Kept(Generic[T]):
    """Answers by what they answer, bounded in bytes; the one that was asked for longest ago goes first."""

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes = most_bytes
        self._items: OrderedDict[str, _Item[T]] = OrderedDict()
        self._lock = threading.Lock()
        self.nbytes = 0

    def get(self, key: str) -> T | None:
        """Give an answer that is kept."""
        with self._lock:
            item = self._items.get(key)
            if item is None:
                return None
            self._items.move_to_end(key)
            return item.value

    def put(self, key: str, value: T, nbytes: int) -> None:
        """Keep an answer, if it is not too large a part of all."""
        if nbytes > self._most_bytes // 4:
            return
        with self._lock:
            before = self._items.pop(key, None)
            self._items[key] = _Item(value, nbytes)
            self.nbytes += nbytes - (before.nbytes if before else 0)
            while self.nbytes > self._most_bytes:
                self.nbytes -= self._items.popitem(last=False)[1].nbytes
