"""What the documents of a run add up to: streams, rows by seq_num, and which volume belongs to which row.

The one place that knows how StreamDatums and events meet. A datum comes before its event; after a rewind a
seq_num comes again, and the last event with it counts, together with the datum that came for that event, never
with one whose event was lost. A stream without events (a fly scan) takes its rows from its datums.
"""

from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gently_bluesky.errors import DocumentError
from gently_bluesky.store.documents import check_document

Doc = dict[str, Any]

STORED_IN = "stored_in"
"""In a data key of a filled replay: "file", if the array was in a file, for a writer to file it again."""


@dataclass(frozen=True, slots=True)
class VolumeRef:
    """One volume, as documents name it."""

    resource: str
    index: int


def is_good(data: Mapping[str, Any]) -> bool:
    """Whether an event's data say that its volumes are good: they do not say otherwise, or say True.

    Whatever is neither, "no" or nan for one, is taken for a no.
    """
    good = data.get("good")
    return good is None or (isinstance(good, bool | int | float) and good == 1)


@dataclass(slots=True)
class Row:
    """One position on the event axis.

    Attributes
    ----------
    seq_num
        From 1.
    uid, time
        Of the event; None where there was none.
    descriptor
        uid of its descriptor.
    data, timestamps, filled
        As in the event, restricted to the keys that were asked for.
    volumes
        By data key, for keys in StreamResources.
    """

    seq_num: int
    descriptor: str
    uid: str | None = None
    time: float | None = None
    data: Doc = field(default_factory=dict)
    timestamps: Doc = field(default_factory=dict)
    filled: Doc = field(default_factory=dict)
    volumes: dict[str, VolumeRef] = field(default_factory=dict)
    _order: dict[str, int] = field(default_factory=dict)


def measured_at(row: Row) -> float | None:
    """Give when what an event holds was measured, seconds since the epoch; None if that is not known.

    Of an event that was derived it is the time of its parent, of the first of several; its own is when it was
    computed.
    """
    if "parent_time" not in row.data:
        return row.time
    said = row.data["parent_time"]
    times = [time for time in (said if isinstance(said, list) else [said]) if isinstance(time, int | float)]
    return min(times, default=None)


@dataclass(slots=True)
class _Datum:
    order: int
    descriptor: str
    seq_nums: range
    resource: str
    first_index: int

    def volume(self, seq_num: int) -> VolumeRef:
        return VolumeRef(self.resource, self.first_index + seq_num - self.seq_nums.start)


class StreamTable:
    """Descriptors and rows of one stream."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.has_ended = False
        self.descriptors: list[Doc] = []
        self._rows: dict[int, Row] = {}
        self._events: dict[str | None, Row] = {}
        self._datums: defaultdict[str, list[_Datum]] = defaultdict(list)

    @property
    def data_keys(self) -> dict[str, Doc]:
        """Every data key of the stream, as the last descriptor says that has it, in files if it ever was."""
        keys: dict[str, Doc] = {}
        for doc in self.descriptors:
            for key, entry in doc["data_keys"].items():
                if entry.get("external") or not keys.get(key, {}).get("external"):
                    keys[key] = entry
        return keys

    def rows(self) -> list[Row]:
        """Rows in the order of their seq_nums."""
        if self._rows:
            return [self._rows[seq_num] for seq_num in sorted(self._rows)]
        rows: dict[int, Row] = {}
        for key, datums in self._datums.items():
            for datum in datums:
                promised = self._promises_readings(datum.descriptor)
                if promised and not self.has_ended:
                    continue  # their event is on its way
                # a fly scan has no events; where one was lost nobody vouches for volumes
                data: Doc = {"good": False} if promised else {}
                for seq_num in datum.seq_nums:
                    row = rows.setdefault(seq_num, Row(seq_num, datum.descriptor, data=dict(data)))
                    row.volumes[key] = datum.volume(seq_num)
        return [rows[seq_num] for seq_num in sorted(rows)]

    def _promises_readings(self, descriptor: str) -> bool:
        keys = next(doc["data_keys"] for doc in self.descriptors if doc["uid"] == descriptor)
        return any(entry.get("external") != "STREAM:" for entry in keys.values())

    def every_row(self) -> list[Row]:
        """Rows as `rows` gives them, and before them those of events that a rewind repeated."""
        current = self.rows()
        return [row for row in self._events.values() if row is not self._rows[row.seq_num]] + current

    def event(self, uid: str) -> Row:
        """Give the row that an event made, also of one that a rewind repeated."""
        return self._events[uid]

    def add_event(self, row: Row, stream_keys: Collection[str]) -> None:
        """Take an event, and for each of its keys the newest datum that no earlier event with its seq_num took."""
        before = self._rows.get(row.seq_num)
        for key in stream_keys:
            taken = -1 if before is None else before._order.get(key, -1)
            datums = self._datums[key]
            for datum in reversed(datums):
                if datum.order > taken and row.seq_num in datum.seq_nums:
                    row.volumes[key] = datum.volume(row.seq_num)
                    row._order[key] = datum.order
                    if before is not None and key not in before._order:
                        before.volumes.pop(key, None)  # it did not come late for that one, but for this one
                    if row.seq_num == datum.seq_nums.stop - 1:
                        del datums[: datums.index(datum) + 1]
                    break
        self._rows[row.seq_num] = self._events[row.uid] = row

    def add_datum(self, key: str, datum: _Datum) -> None:
        """Take a datum: for events to come, and for events that came without one."""
        self._datums[key].append(datum)
        for seq_num in datum.seq_nums if self._rows else ():
            row = self._rows.get(seq_num)
            if row is not None and key not in row.volumes:
                row.volumes[key] = datum.volume(seq_num)


class RunTable:
    """A run, read document by document; it may be asked at any time for what came so far.

    Parameters
    ----------
    keys
        Which data keys of events to keep: all, if None.
    """

    def __init__(self, keys: Collection[str] | None = None) -> None:
        self.start: Doc | None = None
        self.stop: Doc | None = None
        self.streams: dict[str, StreamTable] = {}
        self.stream_resources: dict[str, Doc] = {}
        self.resources: dict[str, Doc] = {}
        self.datums: dict[str, Doc] = {}
        self._keys = keys
        self._resource_streams: dict[str, StreamTable] = {}
        self._descriptors: dict[str, tuple[StreamTable, Doc, list[str]]] = {}
        self._count = 0

    def __call__(self, name: str, doc: Doc) -> None:
        """Take the next document.

        Raises
        ------
        DocumentError
            It refers to something that did not come before it, or is of an unknown kind.
        """
        self._count += 1
        if name in _TAKE:
            check_document(name, doc, whole=name in {"start", "stop"})
        try:
            _TAKE[name](self, doc)
        except KeyError as error:
            what = f"{name} {doc.get('uid', doc.get('datum_id', ''))}"
            raise DocumentError(f"{what} refers to, or lacks, {error}, in run {self._run()}") from error

    def stream_of(self, descriptor: str) -> StreamTable:
        """Give the stream of a descriptor that came."""
        return self._descriptors[descriptor][0]

    def data_keys(self, descriptor: str) -> Mapping[str, Doc]:
        """Give what a descriptor that came says of its data keys."""
        keys: Mapping[str, Doc] = self._descriptors[descriptor][1]["data_keys"]
        return keys

    def data_key_of(self, resource: str) -> Doc:
        """Give what descriptors say of the data key of a stream resource; KeyError if no document names it."""
        key = self.stream_resources[resource]["data_key"]
        stream = self._resource_streams.get(resource)
        return {} if stream is None else stream.data_keys.get(key, {})

    def inline(self, row: Row, key: str) -> NDArray[Any]:
        """Give an array that stayed in its event, of the dtype that the event's descriptor says."""
        return np.array(row.data[key], self.data_keys(row.descriptor)[key].get("dtype_numpy"))

    def _run(self) -> str:
        return self.start["uid"] if self.start else "(without start)"

    def _take_start(self, doc: Doc) -> None:
        self.start = doc

    def _take_stop(self, doc: Doc) -> None:
        self.stop = doc
        for stream in self.streams.values():
            stream.has_ended = True

    def _take_descriptor(self, doc: Doc) -> None:
        uid, name = doc["uid"], doc.get("name") or "primary"
        stream_keys = [key for key, entry in doc["data_keys"].items() if entry.get("external") == "STREAM:"]
        stream = self.streams.setdefault(name, StreamTable(name))
        stream.descriptors.append(doc)
        self._descriptors[uid] = (stream, doc, stream_keys)

    def _take_event(self, doc: Doc) -> None:
        stream, _, stream_keys = self._descriptors[doc["descriptor"]]
        row = Row(
            doc["seq_num"],
            doc["descriptor"],
            doc["uid"],
            doc["time"],
            self._kept(doc["data"]),
            self._kept(doc["timestamps"]),
            self._kept(doc.get("filled", {})),
        )
        stream.add_event(row, stream_keys)

    def _kept(self, values: Mapping[str, Any]) -> Doc:
        if self._keys is None:
            return dict(values)
        return {key: values[key] for key in self._keys if key in values}

    def _take_event_page(self, doc: Doc) -> None:
        for event in unpack_event_page(doc):
            self._take_event(event)

    def _take_stream_resource(self, doc: Doc) -> None:
        self.stream_resources[doc["uid"]] = doc

    def _take_stream_datum(self, doc: Doc) -> None:
        stream, _, _ = self._descriptors[doc["descriptor"]]
        resource = self.stream_resources[doc["stream_resource"]]
        seq_nums = range(doc["seq_nums"]["start"], doc["seq_nums"]["stop"])
        datum = _Datum(self._count, doc["descriptor"], seq_nums, resource["uid"], doc["indices"]["start"])
        stream.add_datum(resource["data_key"], datum)
        self._resource_streams[resource["uid"]] = stream

    def _take_resource(self, doc: Doc) -> None:
        self.resources[doc["uid"]] = doc

    def _take_datum(self, doc: Doc) -> None:
        if self._keys is None:
            self.datums[doc["datum_id"]] = doc

    def _take_datum_page(self, doc: Doc) -> None:
        for i, datum_id in enumerate(doc["datum_id"]):
            kwargs = {key: values[i] for key, values in doc["datum_kwargs"].items()}
            self._take_datum({"datum_id": datum_id, "resource": doc["resource"], "datum_kwargs": kwargs})


_TAKE: Mapping[str, Callable[[RunTable, Doc], None]] = {
    "start": RunTable._take_start,
    "stop": RunTable._take_stop,
    "descriptor": RunTable._take_descriptor,
    "event": RunTable._take_event,
    "event_page": RunTable._take_event_page,
    "stream_resource": RunTable._take_stream_resource,
    "stream_datum": RunTable._take_stream_datum,
    "resource": RunTable._take_resource,
    "datum": RunTable._take_datum,
    "datum_page": RunTable._take_datum_page,
}


def unpack_event_page(page: Mapping[str, Any]) -> Iterator[Doc]:
    """Give the events of a page, one by one; arrays are cut along their first axis, not copied."""

    def cut(columns: Mapping[str, Sequence[Any]], i: int) -> Doc:
        return {key: column[i] for key, column in columns.items()}

    for i, seq_num in enumerate(page["seq_num"]):
        yield {
            "uid": page["uid"][i],
            "time": page["time"][i],
            "seq_num": seq_num,
            "descriptor": page["descriptor"],
            "data": cut(page["data"], i),
            "timestamps": cut(page["timestamps"], i),
            "filled": cut(page.get("filled", {}), i),
        }
