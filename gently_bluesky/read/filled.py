"""Documents with their arrays in them, as callbacks take them that know nothing of files.

Arrays are lazy where they are mapped, and know what their files say beside the pixels. What said where they lie is
left out.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from numpy.typing import NDArray

from gently_bluesky.errors import UnfillableError
from gently_bluesky.read.assets import in_memory
from gently_bluesky.read.origin import VolumeReader
from gently_bluesky.store.journal import Pair
from gently_bluesky.store.streams import STORED_IN, Doc, RunTable, is_good, unpack_event_page
from gently_bluesky.store.volume_array import VolumeArray

_STREAM_DOCUMENTS = {"stream_resource", "stream_datum", "resource", "datum", "datum_page"}


def filled(pairs: Iterable[Pair], table: RunTable, reader: VolumeReader) -> Iterator[Pair]:
    """Put arrays into the events among documents; the descriptor of a stream without events stays as it is.

    Parameters
    ----------
    pairs
        Documents as they were journalled.
    table, reader
        Of the same run.

    Raises
    ------
    UnfillableError, VolumeMissingError, BadVolumeError
        As `check_fillable` raises them; nothing was given yet.
    """
    check_fillable(table, reader)
    with_events = {name for name, stream in table.streams.items() if stream.rows()}
    for name, doc in pairs:
        if name == "descriptor" and table.stream_of(doc["uid"]).name in with_events:
            keys = {key: _internal(entry) for key, entry in doc["data_keys"].items()}
            yield name, {**doc, "data_keys": keys}
        elif name == "event":
            yield name, _event(doc, table, reader)
        elif name == "event_page":
            yield from (("event", _event(event, table, reader)) for event in unpack_event_page(doc))
        elif name not in _STREAM_DOCUMENTS:
            yield name, doc


def check_fillable(table: RunTable, reader: VolumeReader) -> int:
    """Raise what filling a run's events would, as far as no pixel must be read for that.

    Returns
    -------
    int
        The bytes of all arrays in files of ours.

    Raises
    ------
    UnfillableError
        A stream has volumes and no events, or no handler reads an asset that others wrote.
    VolumeMissingError, BadVolumeError
        A volume was removed, is gone, was cut short, or was given up and its event does not say so.
    """
    nbytes = 0
    for stream in table.streams.values():
        keys = stream.data_keys
        for row in stream.every_row():
            if row.uid is None:
                raise UnfillableError(
                    f"Stream {stream.name!r} of run {(table.start or {}).get('uid')} has volumes and no events (a "
                    "fly scan): there is nothing to put its arrays into. Take the documents unfilled."
                )
            for key, ref in row.volumes.items():
                nbytes += reader.check(ref, keys[key], partial=not is_good(row.data))
            for datum_id in _datum_ids(row.data, keys).values():
                reader.check_datum(datum_id)
    return nbytes


def _datum_ids(data: Doc, keys: Mapping[str, Doc]) -> dict[str, str]:
    return {
        key: value for key, value in data.items() if isinstance(value, str) and keys.get(key, {}).get("external")
    }


def _event(event: Doc, table: RunTable, reader: VolumeReader) -> Doc:
    stream = table.stream_of(event["descriptor"])
    row, keys = stream.event(event["uid"]), stream.data_keys
    arrays: dict[str, NDArray[Any]] = {
        key: VolumeArray.of(
            in_memory(reader.volume(ref, keys[key], partial=not is_good(row.data))), reader.found(ref)
        )
        for key, ref in row.volumes.items()
    }
    arrays |= {key: reader.datum(datum_id) for key, datum_id in _datum_ids(event["data"], keys).items()}
    return {
        **event,
        "data": {**event["data"], **arrays},
        "timestamps": {**dict.fromkeys(arrays, event["time"]), **event["timestamps"]},
        "filled": {},
    }


def _internal(entry: Mapping[str, Any]) -> Doc:
    internal = {key: value for key, value in entry.items() if key != "external"}
    return internal | ({STORED_IN: "file"} if "external" in entry else {})
