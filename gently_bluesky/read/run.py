"""`Run` and `Stream`: a run read back from its folder.

A Run is a snapshot of what its journal held when it was asked for. The documents are the only source; the
manifest says where the bytes are.
"""

import contextlib
from collections.abc import Iterator, KeysView, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import numpy as np
from numpy.typing import NDArray

from gently_bluesky.errors import RunNotFoundError, StreamNotFoundError, UnfillableError
from gently_bluesky.read.assets import AssetReader, HandlerRegistry
from gently_bluesky.read.images import ImageSeries
from gently_bluesky.store.journal import Pair, read_documents
from gently_bluesky.store.layout import file_uri
from gently_bluesky.store.streams import STORED_IN, Doc, Row, RunTable, StreamTable, unpack_event_page

if TYPE_CHECKING:
    import xarray

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

    def __getitem__(self, name: str) -> "Stream":
        table = self._table.streams.get(name)
        if table is None:
            raise StreamNotFoundError(
                f"Run {self.uid} has no stream {name!r}; it has {list(self._table.streams)}."
            )
        return Stream(self, table, self._reader)

    def __iter__(self) -> Iterator[str]:
        return iter(self._table.streams)

    def __contains__(self, name: object) -> bool:
        return name in self._table.streams

    def keys(self) -> KeysView[str]:
        """Names of the streams."""
        return self._table.streams.keys()


class Stream:
    """One stream of a run: a table with a row an event, some of whose columns are images."""

    def __init__(self, run: Run, table: StreamTable, reader: AssetReader) -> None:
        self._run = run
        self._table = table
        self._reader = reader
        self._rows = table.rows()

    def __repr__(self) -> str:
        keys = list(self.data_keys)
        return f"<Stream {self.name!r} of run {self._run.uid[:8]}: {len(self._rows)} events of {keys}>"

    @property
    def name(self) -> str:
        """As in its descriptors."""
        return self._table.name

    @property
    def descriptors(self) -> list[Doc]:
        """Its descriptors, in order; several, where configuration changed in mid-run."""
        return self._table.descriptors

    @property
    def data_keys(self) -> dict[str, Doc]:
        """What each column is: shape, dtype, units, source."""
        return self._table.data_keys

    @property
    def rows(self) -> Sequence[Row]:
        """Events by seq_num, the last one where a seq_num was repeated."""
        return self._rows

    def __len__(self) -> int:
        return len(self._rows)

    def __iter__(self) -> Iterator[str]:
        return iter(self.data_keys)

    def __contains__(self, key: object) -> bool:
        return key in self.data_keys

    @property
    def image_keys(self) -> list[str]:
        """Data keys whose arrays lie in files."""
        return [key for key, entry in self.data_keys.items() if entry.get("external")]

    @property
    def seq_num(self) -> NDArray[np.int64]:
        """(event,), from 1."""
        return np.array([row.seq_num for row in self._rows], np.int64)

    @property
    def time(self) -> NDArray[np.float64]:
        """(event,), seconds since the epoch; nan where a fly scan gave no events."""
        return np.array([np.nan if row.time is None else row.time for row in self._rows], np.float64)

    def configuration(self, position: int = -1) -> dict[str, dict[str, Any]]:
        """Give the configuration of each device that was in force for an event: {device: {key: value}}."""
        uid = self._rows[position].descriptor if self._rows else self.descriptors[-1]["uid"]
        doc = next(doc for doc in self.descriptors if doc["uid"] == uid)
        return {name: dict(entry["data"]) for name, entry in doc.get("configuration", {}).items()}

    @overload
    def __getitem__(self, key: str) -> Any: ...
    @overload
    def __getitem__(self, key: list[str]) -> "xarray.Dataset": ...
    def __getitem__(self, key: str | list[str]) -> Any:
        """Give an ImageSeries for a data key with images, an array (event, ...) for any other."""
        if isinstance(key, list):
            return self.read(key)
        return self.images(key) if self._entry(key).get("external") else self._column(key)

    def images(self, key: str) -> ImageSeries:
        """Give the images of a data key."""
        name = f"run {self._run.uid[:8]}, {self.name}, {key}"
        return ImageSeries(name, key, self._entry(key), self._rows, self._reader)

    def _entry(self, key: str) -> Doc:
        entry = self.data_keys.get(key)
        if entry is None:
            raise StreamNotFoundError(
                f"Stream {self.name!r} of run {self._run.uid} has no data key {key!r}; it has "
                f"{list(self.data_keys)}."
            )
        return entry

    def _column(self, key: str) -> NDArray[Any]:
        values = [row.data.get(key) for row in self._rows]
        natural = _exact(values, None)
        promised = self._entry(key).get("dtype_numpy")
        if promised is None or natural is None or natural.dtype == object:
            return _objects(values) if natural is None else natural
        exact = _exact(values, promised)
        return natural if exact is None else exact

    def read(self, keys: Sequence[str] | None = None, *, include_bad: bool = False) -> "xarray.Dataset":
        """Give the stream as a Dataset; images are lazy, and read when they are looked at.

        Parameters
        ----------
        keys
            Which data keys; all, if None.
        include_bad
            Whether reading images of events that are marked as not good is allowed.

        Returns
        -------
        xarray.Dataset
            Dimension ``event``; coordinates ``time`` (event,), seconds since the epoch, and ``seq_num`` (event,).
            Units of each data key are in its attributes.
        """
        from gently_bluesky.read.dataset import dataset  # noqa: PLC0415 - xarray takes 0.3 s

        columns = {key: self[key] for key in (self.data_keys if keys is None else keys)}
        if include_bad:
            columns = {
                key: column.including_bad if isinstance(column, ImageSeries) else column
                for key, column in columns.items()
            }
        return dataset(columns, self.data_keys, time=self.time, seq_num=self.seq_num)


def _exact(values: Sequence[Any], dtype: str | None) -> NDArray[Any] | None:
    """Give an array that holds the values as they are, None standing for nan among floats; None if none does."""
    numbers = [np.nan if value is None else value for value in values]
    if None in values and not all(isinstance(value, float) for value in numbers):
        return None
    with contextlib.suppress(ValueError, TypeError, OverflowError):
        array = np.array(numbers, dtype)
        if _same(array.tolist(), numbers, strict=dtype is None):
            return array
    return None  # ragged, mixed, or not to be had in this dtype


def _same(these: Any, those: Any, *, strict: bool) -> bool:
    if isinstance(those, list):
        pairs = zip(these, those, strict=True) if isinstance(these, list) and len(these) == len(those) else None
        return pairs is not None and all(_same(this, that, strict=strict) for this, that in pairs)
    if isinstance(those, float) and those != those:  # noqa: PLR0124 - nan
        return isinstance(these, float) and these != these  # noqa: PLR0124
    alike = type(these) is type(those) or (not strict and not isinstance(those, bool | str))
    return bool(these == those) and alike


def _objects(values: Sequence[Any]) -> NDArray[Any]:
    column = np.empty(len(values), object)
    for i, value in enumerate(values):
        column[i] = value
    return column


def _internal(entry: Mapping[str, Any]) -> Doc:
    internal = {key: value for key, value in entry.items() if key != "external"}
    return internal | ({STORED_IN: "file"} if "external" in entry else {})
