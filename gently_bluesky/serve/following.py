"""`Follower`: the journals of runs that are being written, read as they grow, once for all who listen.

The writer is another process and is never asked: a journal that grew is seen by its size, a new run by its
folder. Knows documents and where they end; who listens, and pictures, are the business of others.
"""

import itertools
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from gently_bluesky.errors import DocumentError, JournalError
from gently_bluesky.read.catalog import Catalog
from gently_bluesky.read.folder import rebased
from gently_bluesky.store.index import IDENTITY_KEYS, RootIndex
from gently_bluesky.store.journal import Pair, begins_line, read_documents
from gently_bluesky.store.layout import JOURNAL, day_folder, open_root
from gently_bluesky.store.streams import Doc, RunTable
from gently_bluesky.store.strict_json import encode, plain

log = logging.getLogger(__name__)

TICK_S = 0.02
"""Between two looks at the sizes of the journals that are followed: a few microseconds each."""

_LOOK_FOR_RUNS_S = 0.1
_DAY_S = 86400.0
_TURNS = 20  # looks after which every day was looked at; those of now, each time
_MOST_OPEN = 8  # runs without a stop that are followed; older ones were interrupted
_LOOKED_AT = 50
_RECENT_BYTES = 1 << 20
_BATCH = 64


@dataclass(frozen=True, slots=True)
class Message:
    """A document as it is sent: where its line begins and ends in the journal, and the text."""

    begin: int
    end: int
    text: str


class Journal:
    """The journal of one run while it grows, and what its documents add up to.

    The newest messages are kept for those who are up to date; who is behind reads the file. `read_on` is called
    by one thread, everything else by any.
    """

    def __init__(self, root: Path, recorded_uri: str, folder: Path, start: Doc) -> None:
        self.folder = folder
        self.start = start
        self.uid = str(start["uid"])
        self._root, self._recorded_uri = root, recorded_uri
        self.offset = 0
        self.events: dict[str, int] = {}
        self.last_event: Doc | None = None
        self.damage: str | None = None
        self.table = RunTable(keys=IDENTITY_KEYS)
        self._size = 0
        self._recent: deque[Message] = deque()
        self._recent_bytes = 0
        self._lock = threading.Lock()

    @property
    def stop(self) -> Doc | None:
        """The stop document, once it was read."""
        return self.table.stop

    @property
    def is_over(self) -> bool:
        """Whether nothing more is read of it."""
        return self.stop is not None or self.damage is not None

    def read_on(self) -> list[Pair]:
        """Take in what was journalled since; give it."""
        path = self.folder / JOURNAL
        try:
            size = path.stat().st_size
            if self.is_over or size == self._size:
                return []
            keep = size - self.offset <= _RECENT_BYTES  # nobody waits for what lies far back
            self._size = size
            return list(self._take(keep=keep))
        except (OSError, JournalError, DocumentError) as error:
            self.damage = f"The journal of run {self.uid} cannot be followed any further: {error}"
            log.warning("%s", self.damage)
            return []

    def _take(self, *, keep: bool) -> Iterator[Pair]:
        begin = self.offset
        for end, (name, doc) in read_documents(self.folder, begin):
            self.table(name, doc)
            self._count(name, doc)
            message = Message(begin, end, self._text(end, name, doc)) if keep else None
            with self._lock:
                self.offset = begin = end
                self._remember(message)
            yield name, doc

    def _count(self, name: str, doc: Doc) -> None:
        if name in {"event", "event_page"}:
            stream = self.table.stream_of(doc["descriptor"]).name
            self.events[stream] = self.events.get(stream, 0) + (1 if name == "event" else len(doc["seq_num"]))
        if name == "event" and (self.last_event is None or "timepoint" in doc["data"] or "embryo" in doc["data"]):
            self.last_event = doc

    def _remember(self, message: Message | None) -> None:
        if message is None:
            self._recent.clear()
            self._recent_bytes = 0
            return
        self._recent.append(message)
        self._recent_bytes += len(message.text)
        while self._recent_bytes > _RECENT_BYTES and len(self._recent) > 1:
            self._recent_bytes -= len(self._recent.popleft().text)

    def _text(self, end: int, name: str, doc: Doc) -> str:
        here = rebased(name, doc, self._root, self.folder, self._recorded_uri)
        said = {"type": "document", "run": self.uid, "offset": end, "name": name, "doc": here}
        return encode(plain(said)).decode()

    def at_hand(self, begin: int) -> list[Message] | None:
        """Give the next messages from an offset on, if they are in memory; None: `from_disk` has them."""
        with self._lock:
            if begin >= self.offset:
                return []
            if not self._recent or self._recent[0].begin > begin:
                return None
            return [message for message in self._recent if message.begin >= begin][:_BATCH]

    def from_disk(self, begin: int) -> list[Message]:
        """Read the next messages from an offset on, as far as the journal has been followed.

        Raises
        ------
        JournalError
            No document begins there.
        """
        messages: list[Message] = []
        total = 0
        for end, (name, doc) in read_documents(self.folder, begin):
            if end > self.offset or len(messages) == _BATCH or total > _RECENT_BYTES:
                break
            messages.append(Message(begin, end, self._text(end, name, doc)))
            total += len(messages[-1].text)
            begin = end
        return messages

    def begins_at(self, offset: int) -> bool:
        """Whether a document begins at an offset, or will."""
        if offset in {0, self.offset}:
            return True
        return offset < self.offset and begins_line(self.folder / JOURNAL, offset)


class Follower:
    """All journals that somebody listens to; one thread, for as long as somebody does.

    Parameters
    ----------
    root
        Under which the runs lie.
    changed
        Called, on the follower's thread, with a journal and the documents that it has more.
    """

    def __init__(self, root: Path, changed: Callable[[Journal, list[Pair]], object]) -> None:
        self._root, self._recorded_uri = open_root(root)
        self._catalog = Catalog(root)
        self._changed = changed
        self._lock = threading.RLock()
        self._current: dict[str, Journal] = {}
        self._asked: dict[str, tuple[Journal, int]] = {}
        self._index = RootIndex(self._root)
        self._folders: set[Path] = set()
        self._turn = itertools.cycle(range(_TURNS))
        self._quit = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Follow; the journals of now are read when it returns."""
        with self._lock:
            runs = list(self._catalog)
            self._folders = {run.folder for run in runs}
            newest = runs[:_LOOKED_AT]
            for run in reversed([run for run in newest if run.is_open or run is newest[0]][:_MOST_OPEN]):
                self._current[run.uid] = self._journal(run.folder, run.start)
            self._look_for_runs()
            for journal in self._current.values():
                self._changed(journal, journal.read_on())
        self._quit = threading.Event()
        self._thread = threading.Thread(target=self._follow, args=[self._quit], name="gently-live", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End the thread and forget everything."""
        self._quit.set()
        if self._thread is not None:
            self._thread.join()
        self._thread = None
        self._current, self._folders, self._index = {}, set(), RootIndex(self._root)

    def current(self) -> list[Journal]:
        """Give the newest run and those that are open, the oldest first."""
        with self._lock:
            return sorted(self._current.values(), key=lambda journal: float(journal.start["time"]))

    def ask(self, key: str) -> Journal:
        """Follow one run, however old, until `let_go` is called as often; raises what a catalog raises."""
        with self._lock:
            run = self._catalog[key]
            journal = self._current.get(run.uid) or self._asked.get(run.uid, (None,))[0]
            journal = journal or self._journal(run.folder, run.start)
            self._asked[run.uid] = (journal, self._asked.get(run.uid, (journal, 0))[1] + 1)
            if not journal.offset:
                self._changed(journal, journal.read_on())
        return journal

    def let_go(self, journal: Journal) -> None:
        """Undo one `ask`."""
        with self._lock:
            _, count = self._asked.pop(journal.uid)
            if count > 1:
                self._asked[journal.uid] = (journal, count - 1)

    def _journal(self, folder: Path, start: Doc) -> Journal:
        return Journal(self._root, self._recorded_uri, folder, start)

    def _follow(self, quit_: threading.Event) -> None:
        looked = time.monotonic()
        while not quit_.wait(TICK_S):
            try:
                look = time.monotonic() - looked >= _LOOK_FOR_RUNS_S
                looked = time.monotonic() if look else looked
                self._tick(look=look)
            except Exception:  # a disk that was away may come back; one run of many may be nonsense
                log.exception("following the runs of %s", self._root)

    def _tick(self, *, look: bool) -> None:
        with self._lock:
            if look:
                self._look_for_runs()
            journals = {journal.uid: journal for journal, _ in self._asked.values()} | self._current
        for journal in journals.values():
            if pairs := journal.read_on():
                self._changed(journal, pairs)

    def _look_for_runs(self) -> None:
        """Take in runs that have begun, and let go of those that are neither open nor the newest."""
        began = {folder: self._index.start(folder) for folder in self._unknown_folders()}
        for start, folder in sorted(
            ((start, folder) for folder, start in began.items() if start), key=lambda each: float(each[0]["time"])
        ):
            self._folders.add(folder)
            self._current[str(start["uid"])] = self._journal(folder, start)
        there = list(self._current.values())  # in the order in which they came: a start may have any time
        opened = [journal for journal in there[:-1] if not journal.is_over][-_MOST_OPEN:]
        self._current = {journal.uid: journal for journal in [*opened, *there[-1:]]}

    def _unknown_folders(self) -> list[Path]:
        """Give run folders that have come: on the newest day or about now at once, on any other in its turn."""
        days = sorted(self._index.days())
        now = time.time()
        near = {self._root / day_folder(now + shift) for shift in (-_DAY_S, 0.0, _DAY_S)}
        looked_at = {*near.intersection(days), *days[-1:], *days[next(self._turn) :: _TURNS]}
        return [
            folder for day in looked_at for folder in self._index.folders_of(day) if folder not in self._folders
        ]
