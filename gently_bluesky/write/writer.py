"""`FileWriter`: the one callback that turns documents and frames into run folders.

Subscribed to a RunEngine, or fed by `replay`. It routes each document to the recorder of its run and owns the
thread that writes; it knows nothing of what documents mean.
"""

import atexit
import logging
import os
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

from event_model import DocumentNames, bulk_datum_to_datum_page
from numpy.typing import DTypeLike

from gently_bluesky.errors import DocumentError, NoOpenRunError, RunExistsError, WriterFailedError
from gently_bluesky.protocols import VolumeMetadata
from gently_bluesky.store.documents import check_document, shown
from gently_bluesky.store.formats import FORMATS
from gently_bluesky.store.layout import create_root, day_folder
from gently_bluesky.store.strict_json import plain, restored
from gently_bluesky.write.backlog import Backlog
from gently_bluesky.write.intake import Item
from gently_bluesky.write.recorder import RunRecorder
from gently_bluesky.write.recovery import LeftAlone, Salvage, recover
from gently_bluesky.write.resource import ResourceWriter
from gently_bluesky.write.space import Reserve, RunSpace

log = logging.getLogger(__name__)

Subscriber = Callable[[str, dict[str, Any]], object]

_NAMES = {name.value for name in DocumentNames} | {"bulk_events", "bulk_datum"}


class FileWriter:
    """Write every run to a folder of its own: documents to a journal, pixels to files.

    Subscribe it first among the RunEngine's subscribers, ``RE.subscribe(writer)``, and give it to devices as
    their sink. It satisfies `protocols.Sink`.

    Parameters
    ----------
    root
        A root; or an empty folder or one that does not exist yet, which becomes one.
    image_format
        "ome-tiff": a file a volume, mappable, whole from its creation on. "ome-zarr": a store a stream resource,
        compressed, with a pyramid; a frame is on disk when its shard is full. Arrays that OME has no words for go
        to .npy files.
    durability
        "event": every event is on disk, pixels first, a moment after it was emitted, and all of them before
        the stop document. "run": once, at the end of the run.
    inline_limit_bytes
        Arrays of numbers inside events that are larger go to files; the others stay in the journal.
    backlog_bytes
        How much may wait for the writer's thread; the RunEngine waits when it is full.
    salvage
        What becomes of frames that an interrupted run left behind; see `recover`, which goes before the first
        run. With None interrupted runs are left as they are.
    reserve_bytes
        How much of the file system no volume may take, so that documents always find room; None: 1 percent of
        it, at most 1 GiB.
    now
        Gives the time, seconds since the epoch; for tests.

    Raises
    ------
    RootError
        The folder cannot be a root.
    """

    def __init__(
        self,
        root: Path | str,
        *,
        image_format: str = "ome-tiff",
        durability: Literal["event", "run"] = "event",
        inline_limit_bytes: int = 65536,
        backlog_bytes: int = 512 << 20,
        salvage: Salvage | None = "beside",
        reserve_bytes: int | None = None,
        now: Callable[[], float] = time.time,
    ) -> None:
        if image_format not in FORMATS:
            raise ValueError(f"image_format {image_format!r} is not one of {sorted(FORMATS)}.")
        if durability not in {"event", "run"}:
            raise ValueError(f"durability {durability!r} is neither 'event' nor 'run'.")
        if salvage not in {"beside", "event", None}:
            raise ValueError(f"salvage {salvage!r} is none of 'beside', 'event' and None.")
        self.root = create_root(Path(root))
        self._reserve = Reserve(self.root, reserve_bytes)
        self._now = now
        self._made_at = now()
        self._durability = durability
        self._inline_limit_bytes = inline_limit_bytes
        self._make_store = FORMATS[image_format]
        self._workers = (
            1 if image_format == "ome-tiff" else min(4, os.cpu_count() or 1)
        )  # who pushes; who compresses
        self._backlog = Backlog(backlog_bytes, self._commit)
        self._salvage = salvage
        self._runs: dict[str, RunRecorder] = {}
        self._of: dict[str, RunRecorder] = {}
        self._refused: set[str] = set()
        self._subscribers: dict[int, tuple[str, Subscriber]] = {}
        self._tokens = count()
        self._complaint: BaseException | None = None
        self._pool: ThreadPoolExecutor | None = None
        self._hashing: ThreadPoolExecutor | None = None
        self._closed = False

    def __repr__(self) -> str:
        return f"FileWriter({str(self.root)!r})"

    @property
    def reserve_bytes(self) -> int:
        """How much of the file system no volume may take."""
        return self._reserve.nbytes

    # --- the callback ---------------------------------------------------------------------------------------

    def __call__(self, name: str, doc: Mapping[str, Any]) -> None:
        """Take one document.

        Raises
        ------
        DocumentError
            It cannot be journalled, or belongs to no run that this writer has open.
        DiskFullError
            There is no room above the reserve for the `expected_bytes` of a start document; the run has not begun.
            A run older than this writer is replayed, and may come without its pixels: it is not asked.
        WriterFailedError
            Something went wrong since the last document, in the writer's thread or in a monitor's.
        """
        name = str(name)
        self._refuse_own_thread()
        if self._closed:
            raise WriterFailedError(f"{self!r} is closed. Make a new one.")
        if name not in _NAMES:
            raise DocumentError(f"{name!r} is no kind of document; there are {sorted(_NAMES)}.")
        if not isinstance(doc, Mapping):
            raise DocumentError(f"A {name} is {shown(doc)}, and should be a dict.")
        if name == "start":
            self._start(doc)
        elif name == "stop":
            self._stop(doc)
        elif name == "bulk_events":
            for events in doc.values():
                for event in events:
                    self("event", event)
        elif name == "bulk_datum":
            self("datum_page", bulk_datum_to_datum_page(dict(doc)))
        else:
            self._take(name, doc)

    def _refuse_own_thread(self) -> None:
        if self._backlog.is_mine:  # it would wait for itself
            raise WriterFailedError(
                f"A subscriber of {self!r} writes into the same writer, on the thread that writes. "
                "Do it from a thread of its own."
            )

    def _start(self, doc: Mapping[str, Any]) -> None:
        start = plain(doc, "start document")
        if not isinstance(start.get("uid"), str) or not isinstance(start.get("time"), int | float):
            raise DocumentError("A start document needs a uid (text) and a time (seconds since the epoch).")
        check_document("start", start)
        try:
            day_folder(start["time"])
        except (OverflowError, ValueError, OSError) as error:
            raise DocumentError(f"Start {start['uid']} has the time {start['time']}: {error}.") from error
        if start["uid"] in self._runs:
            raise RunExistsError(f"Run {start['uid']} is open in {self!r} already; its start document came twice.")
        self._recover()
        try:
            if start["time"] >= self._made_at:
                self._reserve.check_run(start)
            self._begin_thread()
            assert self._pool is not None
            assert self._hashing is not None
            run = RunRecorder(
                self.root,
                start,
                make_store=self._make_store,
                pool=self._pool,
                hashing=self._hashing,
                claim=RunSpace(self._reserve, start, self._now).claim,
                enqueue=self._backlog.put,
                durability=self._durability,
                inline_limit_bytes=self._inline_limit_bytes,
            )
        except BaseException:
            self._refused.add(start["uid"])
            raise
        self._runs[start["uid"]] = self._of[start["uid"]] = run
        self._backlog.put(run, Item("start", start))
        run.begun.wait()  # what is exposed from now on has a run to belong to
        run.check()

    def _recover(self) -> None:
        salvage, self._salvage = self._salvage, None
        try:
            for done in recover(self.root, salvage=salvage) if salvage is not None else ():
                if not (isinstance(done, LeftAlone) and done.running):
                    log.warning("%s", done)
        except Exception:  # what was interrupted can wait, and is as it was; this run cannot
            log.exception("interrupted runs in %s were not looked after: gently-bluesky recover", self.root)

    def _take(self, name: str, doc: Mapping[str, Any]) -> None:
        run = self._run_of(name, doc)
        try:
            run.take(name, doc)
        except BaseException as error:
            # kept as well as raised: on a thread that swallows it, the next document tells
            run.fail(error, raised=True)
            raise
        if (uid := doc.get("uid")) is not None and name in {"descriptor", "resource", "stream_resource"}:
            self._of[uid] = run
        if run.at_home:
            self._complain()

    def _stop(self, doc: Mapping[str, Any]) -> None:
        uid = doc.get("run_start")
        if isinstance(uid, str) and uid in self._refused:
            self._refused.discard(uid)  # whoever asked was told at the start
            return
        run = self._run_of("stop", doc)
        try:
            run.take("stop", doc)
            run.finished.wait()
        except BaseException:
            self._backlog.drain()
            run.abandon()
            raise
        finally:
            self._runs.pop(run.uid, None)
            for uid in [uid for uid, owner in self._of.items() if owner is run]:
                del self._of[uid]
        run.check_at_stop()
        if not run.stopped:
            raise WriterFailedError(
                f"{self!r} was closed before the stop document of run {run.uid} was journalled."
            )
        self._complain()

    def _run_of(self, name: str, doc: Mapping[str, Any]) -> RunRecorder:
        for reference in ("descriptor", "run_start", "stream_resource", "resource"):
            if reference in doc:
                run = self._of.get(doc[reference]) if isinstance(doc[reference], str) else None
                if run is not None:
                    return run
                if reference == "resource" and len(self._runs) == 1:  # it came in an earlier run of one stage
                    return next(iter(self._runs.values()))
                raise DocumentError(
                    f"{name} {shown(doc.get('uid', ''))} refers to {reference} {shown(doc[reference])}, "
                    f"which this writer has not received in a run that is open. {self._open_runs()}"
                )
        if len(self._runs) == 1:  # resources of old do not name their run
            return next(iter(self._runs.values()))
        raise DocumentError(
            f"{name} {shown(doc.get('uid', ''))} does not say to which run it belongs. {self._open_runs()}"
        )

    def _open_runs(self) -> str:
        if not self._runs:
            return "No run is open."
        return "Open: " + ", ".join(f"{run.uid} ({run.folder.name})" for run in self._runs.values()) + "."

    def _complain(self) -> None:
        complaint, self._complaint = self._complaint, None
        if complaint is not None:
            raise WriterFailedError(
                f"A subscriber of {self!r} failed: {complaint!r}. The files are good."
            ) from complaint

    # --- the sink -------------------------------------------------------------------------------------------

    def open_resource(
        self,
        data_key: str,
        *,
        shape: Sequence[int],
        dtype: DTypeLike,
        metadata: VolumeMetadata | None = None,
    ) -> ResourceWriter:
        """Give the resource that a device streams to; see `protocols.Sink`."""
        self._complain()
        if len(self._runs) != 1:
            what = "No run is open" if not self._runs else "Several runs are open"
            raise NoOpenRunError(
                f"{data_key!r} offers frames, and {self!r} cannot know for which run. {what} in it. "
                + (
                    "Subscribe it to the RunEngine, RE.subscribe(writer), and open a run first."
                    if not self._runs
                    else self._open_runs() + " Frames can be streamed into one run at a time."
                )
            )
        (run,) = self._runs.values()
        return run.open_resource(data_key, shape, dtype, metadata)

    # --- subscribers ----------------------------------------------------------------------------------------

    def subscribe(self, func: Subscriber, name: str = "all") -> int:
        """Have `func(name, doc)` called with each document once it is journalled, on the writer's thread.

        Parameters
        ----------
        func
            It gets the documents as they are in the journal; an exception in it is raised to the RunEngine at
            the next document, and harms no file.
        name
            One kind of document, or "all".

        Returns
        -------
        int
            A token for `unsubscribe`.
        """
        if name != "all" and name not in _NAMES:
            raise ValueError(f"{name!r} is no kind of document; give 'all' or one of {sorted(_NAMES)}.")
        token = next(self._tokens)
        self._subscribers[token] = (name, func)
        return token

    def unsubscribe(self, token: int) -> None:
        """Undo a `subscribe`; a token that is not in use is ignored."""
        self._subscribers.pop(token, None)

    # --- the thread -----------------------------------------------------------------------------------------

    def _begin_thread(self) -> None:
        if self._pool is None:
            self._pool = ThreadPoolExecutor(self._workers, "gently-write-behind")
            self._hashing = ThreadPoolExecutor(1, "gently-hash")
            self._backlog.begin()
            atexit.register(self.close)

    def _commit(self, run: RunRecorder, items: list[Item]) -> None:
        stop = next((i for i, item in enumerate(items) if item.name == "stop"), None)
        journalled: list[tuple[str, dict[str, Any]]] = []
        try:
            run.commit(items[:stop], journalled)
        except BaseException as error:
            log.exception("run %s: writing failed", run.uid)
            run.fail(error)
        try:
            if stop is not None:
                run.finish(items[stop].doc, journalled)
                run.commit(items[stop + 1 :], journalled)  # a volume that was sealed too late
        except BaseException as error:
            log.exception("run %s: its stop could not be written", run.uid)
            run.fail(error)
        run.begun.set()
        if self._subscribers:
            for name, doc in journalled:
                self._tell(name, restored(doc))
        if stop is not None:
            run.finished.set()

    def _tell(self, name: str, doc: dict[str, Any]) -> None:
        for wanted, func in list(self._subscribers.values()):
            if wanted in {"all", name}:
                try:
                    func(name, doc)
                except BaseException as error:
                    log.exception("subscriber %r failed", func)
                    self._complaint = error

    # --- the end --------------------------------------------------------------------------------------------

    def flush(self) -> None:
        """Wait until everything received so far is journalled, and told to subscribers.

        Raises
        ------
        WriterFailedError
            Something could not be written.
        """
        self._refuse_own_thread()
        self._backlog.drain()
        for run in list(self._runs.values()):
            run.check()
        self._complain()

    def close(self) -> None:
        """Write what is still to be written and end the thread; a second time does nothing.

        A run that is still open stays without its stop document.
        """
        if self._closed:
            return
        self._closed = True
        self._backlog.close()
        for pool in (self._pool, self._hashing):
            if pool is not None:
                pool.shutdown()
        atexit.unregister(self.close)
        for run in self._runs.values():
            run.abandon()
            run.begun.set()
            run.finished.set()
        self._runs.clear()
        self._of.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
