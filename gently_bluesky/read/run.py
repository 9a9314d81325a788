"""`Run`: a run read back from its folder.

A Run is a snapshot of what its journal held when it was asked for. The documents are the only source; the
manifest says where the bytes are.
"""

from collections.abc import Iterator, KeysView, Mapping
from pathlib import Path
from typing import Any

from gently_bluesky.errors import RunNotFoundError, StreamNotFoundError, UnfillableError
from gently_bluesky.read.assets import AssetReader, HandlerRegistry
from gently_bluesky.read.stream import Stream
from gently_bluesky.store.journal import Pair, read_documents
from gently_bluesky.store.layout import file_uri
from gently_bluesky.store.streams import STORED_IN, Doc, RunTable, unpack_event_page

__all__ = ["Run", "Stream"]

_STREAM_DOCUMENTS = {"stream_resource", "stream_datum", "resource", "datum", "datum_page"}


class Run:
    """One run; made by a `Catalog`.

    Parameters
    ----------
    root
        Of the catalog, and `recorded_uri`, where that root was when it was made.
    folder
        Of the run.
    handlers
        For assets that others wrote.
    start, stop
        What an index knows already; only the rest has then to be read.
    """

    def __init__(
        self,
        root: Path,
        folder: Path,
        *,
        recorded_uri: str = "",
        handlers: HandlerRegistry | None = None,
        start: Doc | None = None,
        stop: Doc | None = None,
    ) -> None:
        self.folder = folder
        self._root = root
        self._recorded_uri = recorded_uri
        self._handlers = handlers or {}
        self._assets: AssetReader | None = None
        self._start, self._stop = start, stop
        self._documents: RunTable | None = None
        self._offset = 0
        if start is None or stop is None:  # it may go on: this is the moment of the snapshot
            self._documents = self._read()

    @property
    def _table(self) -> RunTable:
        if self._documents is None:
            self._documents = self._read()
        return self._documents

    def _read(self) -> RunTable:
        table = RunTable()
        self._read_on(table)
        self._start, self._stop = table.start, table.stop
        return table

    @property
    def _reader(self) -> AssetReader:
        if self._assets is None:
            self._assets = AssetReader(self.folder, self._table, self._handlers)
        return self._assets

    def _read_on(self, table: RunTable) -> None:
        try:
            for offset, (name, doc) in read_documents(self.folder, self._offset):
                table(name, self._rebased(name, doc))
                self._offset = offset
        except FileNotFoundError as error:
            raise RunNotFoundError(f"There is no run in {self.folder} any more.") from error

    def refresh(self) -> "Run":
        """Take in what was journalled since; give the run itself."""
        table = self._table
        self._read_on(table)
        self._start, self._stop, self._assets = table.start, table.stop, None
        return self

    def __repr__(self) -> str:
        streams = ", ".join(f"{name} ({len(stream.rows())})" for name, stream in self._table.streams.items())
        status = self.exit_status or "no stop yet"
        what = f"scan {self.start.get('scan_id')} {self.start.get('plan_name')}"
        return f"<Run {self.uid[:8]} {what}: {status}; {streams}>"

    # --- documents ------------------------------------------------------------------------------------------

    @property
    def uid(self) -> str:
        """The run's uid."""
        return str(self.start["uid"])

    @property
    def start(self) -> Doc:
        """The start document."""
        if self._start is None:
            raise RunNotFoundError(f"The journal in {self.folder} holds no start document yet.")
        return self._start

    @property
    def stop(self) -> Doc | None:
        """The stop document; None if there was none yet."""
        return self._stop

    @property
    def exit_status(self) -> str | None:
        """How it ended: "success", "abort" or "fail", as the stop document says; None if there was none yet."""
        return None if self.stop is None else str(self.stop["exit_status"])

    @property
    def is_open(self) -> bool:
        """Whether there is no stop document: it is still being acquired, or it was interrupted."""
        return self.stop is None

    def documents(self, *, fill: bool = False, rebase: bool = True) -> Iterator[Pair]:
        """Give the documents as they were journalled, in order, up to this snapshot.

        Parameters
        ----------
        fill
            Put (lazy) arrays into the events, and leave out the documents that told where they are.
        rebase
            Point uris under the recorded root to where the root is now; False gives them verbatim.
        """
        table = self._table
        for stream in table.streams.values() if fill else ():
            if any(row.uid is None for row in stream.rows()):
                raise UnfillableError(
                    f"Stream {stream.name!r} of run {self.uid} has volumes and no events (a fly scan): there is "
                    "nothing to put its arrays into. Take the documents unfilled."
                )
        for offset, (name, doc) in read_documents(self.folder):
            if offset > self._offset:
                return
            if not fill:
                yield name, self._rebased(name, doc) if rebase else doc
            elif name == "descriptor":
                yield (
                    name,
                    {**doc, "data_keys": {k: _internal(entry) for k, entry in doc["data_keys"].items()}},
                )
            elif name == "event":
                yield name, self._filled(table, doc)
            elif name == "event_page":
                yield from (("event", self._filled(table, event)) for event in unpack_event_page(doc))
            elif name not in _STREAM_DOCUMENTS:
                yield name, doc

    def _filled(self, table: RunTable, event: Doc) -> Doc:
        stream = table.stream_of(event["descriptor"])
        row, keys = stream.event(event["uid"]), stream.data_keys
        arrays = {key: self._reader.volume(ref, keys[key]) for key, ref in row.volumes.items()}
        for key, value in event["data"].items():
            if keys.get(key, {}).get("external") and isinstance(value, str):
                arrays[key] = self._reader.datum(value)
        return {
            **event,
            "data": {**event["data"], **arrays},
            "timestamps": {**dict.fromkeys(arrays, event["time"]), **event["timestamps"]},
            "filled": {},
        }

    def _rebased(self, name: str, doc: Doc) -> Doc:
        if name != "stream_resource" or not str(doc.get("uri", "")).startswith("file:"):
            return doc
        # in the run's own folder, however often the root has moved; or beside it, under the root as it was made
        home = f"/{self.folder.relative_to(self._root).as_posix()}/"
        old, new = self._recorded_uri.rstrip("/"), file_uri(self._root).rstrip("/")
        if home in doc["uri"] and (self.folder / (here := doc["uri"].rpartition(home)[2])).exists():
            return {**doc, "uri": new + home + here}
        if old and doc["uri"].startswith(f"{old}/"):
            return {**doc, "uri": new + doc["uri"][len(old) :]}
        return doc

    # --- streams --------------------------------------------------------------------------------------------

    def __getitem__(self, name: str) -> Stream:
        table = self._table.streams.get(name)
        if table is None:
            raise StreamNotFoundError(
                f"Run {self.uid} has no stream {name!r}; it has {list(self._table.streams)}."
            )
        return Stream(self.uid, table, self._reader)

    def __iter__(self) -> Iterator[str]:
        return iter(self._table.streams)

    def __contains__(self, name: object) -> bool:
        return name in self._table.streams

    def keys(self) -> KeysView[str]:
        """Names of the streams."""
        return self._table.streams.keys()


def _internal(entry: Mapping[str, Any]) -> Doc:
    internal = {key: value for key, value in entry.items() if key != "external"}
    return internal | ({STORED_IN: "file"} if "external" in entry else {})
