"""Documents of what was found in files of others: one run, its images linked where they lie, or in its events.

The same source gives the same documents, uids included. Knows no root and no writer.
"""

import math
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from gently_bluesky.exchange.beside import TABLES
from gently_bluesky.exchange.found import Image, Part, Scalar, Source, Table
from gently_bluesky.exchange.sidecar import unit_of
from gently_bluesky.store.layout import file_uri
from gently_bluesky.store.streams import STORED_IN, Doc

Arrays = Callable[[Image], Mapping[str, NDArray[Any]] | None]
"""Gives the pixels of an image, by data key; None if they cannot be had, and the image is left out."""

_NAMESPACE = uuid.UUID("5b1c0f0e-8b0c-5f0a-9a54-6a8d5f3f2c77")
_ROWS = 1000  # of an event page

PRODUCER = "import"
"""In the place of a device's name."""

_SOURCES: Mapping[str, str] = {
    "filed_at": "its sidecar: when it was filed, not when exposed; without it the event's time is the file's",
    "file": "relative to the folder that the start document names",
    "file_modified": "when the file was changed last, seconds since the epoch",
    "contradiction": "where its sidecar says something else than is",
}


def run_uid(identity: str, number: int) -> str:
    """Give the uid of the run that a source becomes; `number` counts, from 0, those that it was taken in with."""
    return str(uuid.uuid5(_NAMESPACE, f"{identity} {number}"))


def foreign_resource(folder: Path, image: Image, part: Part) -> tuple[str, str, dict[str, Any]]:
    """Give mimetype, uri and parameters of the StreamResource that names one array where it lies.

    All TIFFs of a source have one uri: Tiled takes a stream's files from one place, and only their names change.
    """
    parameters = {"chunk_shape": [1, *part.shape], "join_method": "stack", "slice": part.cut}
    if image.format == "tiff":
        return "multipart/related;type=image/tiff", file_uri(folder) + "/", {"template": image.file, **parameters}
    return "application/x-zarr", file_uri(folder / image.file), parameters


def documents(
    source: Source, *, uid: str, more: Mapping[str, Any], arrays: Arrays | None
) -> Iterator[tuple[str, Doc]]:
    """Give the documents of a run: start, tables, images by their time, stop.

    Parameters
    ----------
    source
        What becomes of it.
    uid
        Of the run.
    more
        Further keys of the start document: scan_id, and what is to be known of the import.
    arrays
        Gives pixels, which then travel in the events; None: StreamResources name them where they lie.
    """
    yield "start", {**source.start, "uid": uid, **more}
    run = _Run(source, uid, arrays)
    yield from run.documents()
    times = [source.start["time"], *(image.time for image in source.images)]
    times += [time for table in source.tables if table.stream not in TABLES for time, _ in table.rows]
    yield (
        "stop",
        {
            "uid": run.new_uid("stop"),
            "time": max(times),
            "run_start": uid,
            "exit_status": "success",
            "reason": "",
            "num_events": dict(run.counts),
        },
    )


def streams_of(images: Sequence[Image]) -> list[str]:
    """Give the name of the stream of each image: one geometry a stream, the first one as the image says."""
    names: dict[tuple[Any, ...], str] = {}
    for image in images:
        if (kind := _kind(image)) not in names:
            wanted = (image.stream, *(f"{image.stream}_{number}" for number in range(2, len(names) + 3)))
            names[kind] = next(name for name in wanted if name not in names.values())
    return [names[_kind(image)] for image in images]


def _kind(image: Image) -> tuple[Any, ...]:
    return (image.stream, *((part.key, part.shape, part.dtype) for part in image.parts))


class _Run:
    """The documents of one run, as they come."""

    def __init__(self, source: Source, uid: str, arrays: Arrays | None) -> None:
        self.counts: Counter[str] = Counter()
        self._uid = uid
        self._source = source
        self._arrays = arrays
        self._streams = streams_of(source.images)
        self._keys: dict[str, dict[str, Doc]] = {}

    def documents(self) -> Iterator[tuple[str, Doc]]:
        for table in self._source.tables:
            yield from self._table(table)
        for stream, image in zip(self._streams, self._source.images, strict=True):
            yield from self._image(stream, image)

    def new_uid(self, *what: object) -> str:
        """Give the uid of a document of this run, the same one each time."""
        return str(uuid.uuid5(uuid.UUID(self._uid), " ".join(map(str, what))))

    def _descriptor(self, stream: str, time: float, keys: Mapping[str, Doc], images: Mapping[str, Doc]) -> Doc:
        self._keys[stream] = dict(keys)
        return {
            "uid": self.new_uid("descriptor", stream),
            "run_start": self._uid,
            "time": time,
            "name": stream,
            "data_keys": {**keys, **images},
            "object_keys": {PRODUCER: [*keys, *images]},
            "configuration": {},
            "hints": {},
        }

    def _table(self, table: Table) -> Iterator[tuple[str, Doc]]:
        keys = _scalar_keys([values for _, values in table.rows])
        yield "descriptor", self._descriptor(table.stream, table.rows[0][0], keys, {})
        for first in range(0, len(table.rows), _ROWS):
            rows = table.rows[first : first + _ROWS]
            times = [time for time, _ in rows]
            numbers = range(first + 1, first + len(rows) + 1)
            yield (
                "event_page",
                {
                    "descriptor": self.new_uid("descriptor", table.stream),
                    "uid": [self.new_uid("event", table.stream, number) for number in numbers],
                    "seq_num": list(numbers),
                    "time": times,
                    "data": {key: [_value(row, key, entry) for _, row in rows] for key, entry in keys.items()},
                    "timestamps": dict.fromkeys(keys, times),
                    "filled": {},
                },
            )
        self.counts[table.stream] = len(table.rows)

    def _image(self, stream: str, image: Image) -> Iterator[tuple[str, Doc]]:
        pixels = {} if self._arrays is None else self._arrays(image)
        if pixels is None:
            return
        if stream not in self._keys:
            mine = [each for name, each in zip(self._streams, self._source.images, strict=True) if name == stream]
            keys = _scalar_keys([each.values for each in mine])
            images = {part.key: _image_key(part, keys, linked=self._arrays is None) for part in image.parts}
            yield "descriptor", self._descriptor(stream, image.time, keys, images)
        self.counts[stream] += 1
        if self._arrays is None:
            for part in image.parts:
                yield from self._linked(stream, image, part)
        data = {key: _value(image.values, key, entry) for key, entry in self._keys[stream].items()}
        yield (
            "event",
            {
                "uid": self.new_uid("event", stream, self.counts[stream]),
                "descriptor": self.new_uid("descriptor", stream),
                "seq_num": self.counts[stream],
                "time": image.time,
                "data": {**data, **pixels},
                # when pixels were exposed is not known, only when they were filed
                "timestamps": {**dict.fromkeys(data, image.time), **dict.fromkeys(pixels, math.nan)},
                "filled": {},
            },
        )

    def _linked(self, stream: str, image: Image, part: Part) -> Iterator[tuple[str, Doc]]:
        mimetype, uri, parameters = foreign_resource(self._source.folder, image, part)
        uid = self.new_uid("stream_resource", stream, part.key, self.counts[stream])
        yield (
            "stream_resource",
            {
                "uid": uid,
                "run_start": self._uid,
                "data_key": part.key,
                "mimetype": mimetype,
                "uri": uri,
                "parameters": parameters,
            },
        )
        yield (
            "stream_datum",
            {
                "uid": f"{uid}/0",
                "stream_resource": uid,
                "descriptor": self.new_uid("descriptor", stream),
                "indices": {"start": 0, "stop": 1},
                "seq_nums": {"start": self.counts[stream], "stop": self.counts[stream] + 1},
            },
        )


# --- data keys ----------------------------------------------------------------------------------------------


def _image_key(part: Part, scalars: Mapping[str, Doc], *, linked: bool) -> Doc:
    exposure = {"exposure_ms": "exposure_ms"} if "exposure_ms" in scalars else {}
    return {
        "source": f"{PRODUCER}:{part.cut}",
        "dtype": "array",
        "dtype_numpy": part.dtype,
        "shape": list(part.shape),
        **part.details,
        **exposure,
        **({"external": "STREAM:"} if linked else {STORED_IN: "file"}),
    }


def _scalar_keys(rows: Sequence[Mapping[str, Scalar]]) -> dict[str, Doc]:
    """Give data keys of all that any row knows; values of different kinds become text."""
    kinds: dict[str, set[str]] = {}
    for row in rows:
        for key, value in row.items():
            kinds.setdefault(key, set()).add(_dtype(value))
    keys = {}
    for key, found in kinds.items():
        dtype = "number" if found == {"integer", "number"} else found.pop() if len(found) == 1 else "string"
        entry: Doc = {"source": _SOURCES.get(key, PRODUCER), "dtype": dtype, "shape": []}
        keys[key] = entry | ({"units": unit} if (unit := unit_of(key)) and dtype != "string" else {})
    return keys


def _dtype(value: Scalar) -> str:
    if isinstance(value, bool):
        return "boolean"
    return "integer" if isinstance(value, int) else "number" if isinstance(value, float) else "string"


def _value(row: Mapping[str, Scalar], key: str, entry: Doc) -> Scalar | None:
    value = row.get(key)
    return str(value) if entry["dtype"] == "string" and value is not None else value
