"""What the tests of live viewing share: an acquisition that goes on when it is told to, and listeners."""

import contextlib
import json
import queue
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import bluesky.plan_stubs as bps
from bluesky import Msg
from websockets.sync.client import ClientConnection, connect

from gently_bluesky import FileWriter
from gently_bluesky.read.run import Run
from gently_bluesky.store.strict_json import encode, plain
from tests.data_rig import DEADLINE_S, Camera, connected, newest

Said = dict[str, Any]


class Acquiring:
    """A run of two views that takes a volume of each whenever it is told to."""

    def __init__(
        self, root: Path, *, shape: tuple[int, ...] = (4, 32, 64), views: str = "AB", **start: Any
    ) -> None:
        self.root = root
        self.writer = FileWriter(root)
        self.cameras = [Camera(f"cam_{view.lower()}", self.writer, shape=shape, view=view) for view in views]
        self.start = {"plan_name": "acquire", "session": "s", "num_points": 99} | start
        self._steps: queue.Queue[dict[str, Any] | None] = queue.Queue()
        self._journalled: queue.Queue[tuple[str, float]] = queue.Queue()
        self.writer.subscribe(lambda name, doc: self._journalled.put((name, time.time())))
        self._failure: list[BaseException] = []
        self._thread = threading.Thread(target=self._run, name="acquiring")

    def _run(self) -> None:
        try:
            run_engine, _ = connected(self.writer)
            run_engine(self._plan())
        except BaseException as error:  # noqa: BLE001 - the test is to hear of it
            self._failure.append(error)

    def _plan(self) -> Iterator[Msg]:
        yield from bps.open_run(self.start)
        while (said := self._steps.get()) is not None:
            self.cameras[0].scalars = said
            yield from bps.trigger_and_read(self.cameras)
        yield from bps.close_run()

    def __enter__(self) -> "Acquiring":
        self._thread.start()
        self.wait("start")
        return self

    def take(self, **said: Any) -> float:
        """Take a volume of each view; give when its event was in the journal."""
        self.ask(**said)
        return self.wait("event")

    def ask(self, **said: Any) -> None:
        """Let a volume of each view be taken."""
        self._steps.put({"embryo": "e1", "timepoint": self.cameras[0].taken} | said)

    def end(self) -> Run:
        """End the run; give it."""
        if self._thread.is_alive():
            self._steps.put(None)
            self._thread.join()
            self.writer.close()
        assert not self._failure
        return newest(self.root)

    def wait(self, wanted: str) -> float:
        """Wait until a document is in the journal; give when it was."""
        while True:
            name, at = self._journalled.get(timeout=DEADLINE_S)
            if name == wanted:
                return at

    def __exit__(self, *_: object) -> None:
        self.end()


class Listener:
    """A client of the WebSocket."""

    def __init__(self, connection: ClientConnection) -> None:
        self.connection = connection
        self.offsets: dict[str, int] = {}

    def next(self, kind: str = "") -> Said:
        """Wait for the next message of a kind: hello, document, progress, error, picture; of any, if none is said.

        Of a picture, its header, and its JPEG under "jpeg".
        """
        deadline = time.monotonic() + DEADLINE_S
        while True:
            said = self._one(deadline - time.monotonic())
            if not kind or said["type"] == kind:
                return said

    def _one(self, patience_s: float) -> Said:
        message = self.connection.recv(timeout=max(0.0, patience_s))
        if isinstance(message, bytes):
            header, _, jpeg = message.partition(b"\n")
            return {"type": "picture", **json.loads(header), "jpeg": jpeg}
        said: Said = json.loads(message)
        if said["type"] == "document":
            self.offsets[said["run"]] = said["offset"]
        return said

    def documents(self, *, until: str = "stop", runs: int = 1) -> list[tuple[str, Any]]:
        """Give the documents up to one of a name, of so many runs."""
        documents: list[tuple[str, Any]] = []
        while sum(name == until for name, _ in documents) < runs:
            said = self.next("document")
            documents.append((said["name"], said["doc"]))
        return documents

    def picture(self, **wanted: Any) -> Said:
        """Wait for a picture of which all this is said."""
        while True:
            said = self.next("picture")
            if all(said.get(key) == value for key, value in wanted.items()):
                return said

    def say(self, **said: Any) -> None:
        """Send something."""
        self.connection.send(json.dumps(said))


@contextlib.contextmanager
def listening(url: str, query: str = "rate=0", **options: Any) -> Iterator[Listener]:
    """Listen to a server; without pictures, unless the query says otherwise."""
    address = f"ws{url.removeprefix('http')}/api/v1/live?{query}"
    with connect(
        address, max_size=None, open_timeout=DEADLINE_S, close_timeout=DEADLINE_S, **options
    ) as connection:
        yield Listener(connection)


def as_sent(run: Run) -> list[tuple[str, Any]]:
    """The documents of a run as strict JSON spells them."""
    return [(name, json.loads(encode(plain(doc)))) for name, doc in run.documents()]
