"""Documents with their arrays in them, as callbacks take them that know nothing of files.

Arrays are lazy where they are mapped. What said where they lie is left out.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from gently_bluesky.errors import UnfillableError
from gently_bluesky.read.assets import AssetReader, in_memory
from gently_bluesky.store.journal import Pair
from gently_bluesky.store.streams import STORED_IN, Doc, RunTable, is_good, unpack_event_page

_STREAM_DOCUMENTS = {"stream_resource", "stream_datum", "resource", "datum", "datum_page"}


def filled(pairs: Iterable[Pair], table: RunTable, reader: AssetReader) -> Iterator[Pair]:
    """Put arrays into the events among documents; the descriptor of a stream without events stays as it is.

    Parameters
    ----------
    pairs
        Documents as they were journalled.
    table, reader
        Of the same run.

    Raises
    ------
    UnfillableError
        A stream has volumes and no events; nothing was given yet.
    """
    rows = {name: stream.rows() for name, stream in table.streams.items()}
    for name, of_stream in rows.items():
        if any(row.uid is None for row in of_stream):
            raise UnfillableError(
                f"Stream {name!r} of run {(table.start or {}).get('uid')} has volumes and no events (a fly scan): "
                "there is nothing to put its arrays into. Take the documents unfilled."
            )
    for name, doc in pairs:
        if name == "descriptor" and rows[table.stream_of(doc["uid"]).name]:
            keys = {key: _internal(entry) for key, entry in doc["data_keys"].items()}
            yield name, {**doc, "data_keys": keys}
        elif name == "event":
            yield name, _event(doc, table, reader)
        elif name == "event_page":
            yield from (("event", _event(event, table, reader)) for event in unpack_event_page(doc))
        elif name not in _STREAM_DOCUMENTS:
            yield name, doc


def _event(event: Doc, table: RunTable, reader: AssetReader) -> Doc:
    stream = table.stream_of(event["descriptor"])
    row, keys = stream.event(event["uid"]), stream.data_keys
    arrays = {
        key: in_memory(reader.volume(ref, keys[key], partial=not is_good(row.data)))
        for key, ref in row.volumes.items()
    }
    for key, value in event["data"].items():
        if keys.get(key, {}).get("external") and isinstance(value, str):
            arrays[key] = reader.datum(value)
    return {
        **event,
        "data": {**event["data"], **arrays},
        "timestamps": {**dict.fromkeys(arrays, event["time"]), **event["timestamps"]},
        "filled": {},
    }


def _internal(entry: Mapping[str, Any]) -> Doc:
    internal = {key: value for key, value in entry.items() if key != "external"}
    return internal | ({STORED_IN: "file"} if "external" in entry else {})
