"""What is journalled for each document: it, corrected or held back, and those that its arrays make necessary.

Runs on the RunEngine's thread. A descriptor whose keys may carry arrays waits for the first event of its stream,
and says then what the arrays are; assets that came meanwhile follow it. Arrays are copied, never written here.
"""

import uuid
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from gently_bluesky.errors import DocumentError, GentlyError
from gently_bluesky.protocols import VolumeMetadata
from gently_bluesky.store.documents import check_document, shown
from gently_bluesky.store.facts import Geometry
from gently_bluesky.store.streams import Doc, unpack_event_page
from gently_bluesky.store.strict_json import plain
from gently_bluesky.store.volume_array import found_with
from gently_bluesky.write.inline import (
    ArrayKind,
    Signature,
    agrees,
    as_array,
    described,
    frame_times_of,
    kind_of,
    metadata_of,
)
from gently_bluesky.write.resource import ResourceWriter, VolumeWriter


class Recorder(Protocol):
    """What the intake must know of the run that it works for."""

    @property
    def uid(self) -> str:
        """The uid of the run."""

    def resource(self, whose: tuple[str, ...], data_key: str, geometry: Geometry) -> ResourceWriter:
        """Give the resource of a data key and geometry, made if there is none."""

    def resource_of(self, uid: str) -> ResourceWriter | None:
        """Give a resource of this run by its uid; None for those of others."""


@dataclass(frozen=True, slots=True)
class InlineVolume:
    """An array out of an event, on its way to a file."""

    resource: ResourceWriter
    index: int
    pixels: NDArray[Any]
    times: Sequence[float | None]
    metadata: VolumeMetadata


@dataclass(frozen=True, slots=True)
class Item:
    """What the writer's thread gets: a volume that was closed, or a document with the arrays out of it."""

    name: str = ""
    doc: Doc = field(default_factory=dict)
    arrays: tuple[InlineVolume, ...] = ()
    volume: VolumeWriter | None = None

    @property
    def nbytes(self) -> int:
        """How much memory it holds, about."""
        return 1024 + _footprint(self.doc) + sum(array.pixels.nbytes for array in self.arrays)


@dataclass(slots=True)
class _Descriptor:
    """A descriptor as it came, and those journalled for it, one for each set of arrays."""

    doc: Doc
    journalled: dict[Signature, str] = field(default_factory=dict)
    as_described: bool = False

    @property
    def held(self) -> bool:
        return not self.journalled


class Intake:
    """Decides for one run.

    Parameters
    ----------
    run
        That the documents belong to.
    limit_bytes
        Arrays of numbers that are larger go to files.
    """

    def __init__(self, run: Recorder, limit_bytes: int) -> None:
        self.seen: set[str] = set()
        self.referenced: dict[str, int] = {}
        self._run = run
        self._limit = limit_bytes
        self._descriptors: dict[str, _Descriptor] = {}
        self._assets: deque[Item] = deque()

    def items(self, name: str, doc: Mapping[str, Any]) -> Iterator[Item]:
        """Give what is journalled for a document, copied: nothing, itself, or several.

        Raises
        ------
        DocumentError
            It cannot be journalled.
        """
        check_document(name, doc)
        try:
            yield from self._items(name, doc)
        except GentlyError:
            raise
        except (TypeError, ValueError, LookupError, AttributeError, OverflowError, RecursionError) as error:
            uid = doc.get("uid", doc.get("datum_id"))
            raise DocumentError(
                f"{name} {shown(uid)} of run {self._run.uid} makes no sense: {error!r:.300}"
            ) from error

    def _items(self, name: str, doc: Mapping[str, Any]) -> Iterator[Item]:
        match name:
            case "descriptor":
                yield from self._take_descriptor(plain(doc, f"descriptor {doc.get('uid')}"))
            case "event":
                yield from self._take_event(doc)
            case "event_page":
                yield from self._take_event_page(doc)
            case "stream_datum":
                yield from self._take_stream_datum(plain(doc, f"stream_datum {doc.get('uid')}"))
            case "stop":
                for descriptor in self._descriptors.values():
                    if descriptor.held:
                        yield self._journal_as_described(descriptor)
                yield from self._waiting_assets()
                yield Item(name, plain(doc, f"stop {doc.get('uid')}"))
            case _:
                if name == "stream_resource":
                    self.seen.add(doc["uid"])
                self._assets.append(Item(name, plain(doc, f"{name} {doc.get('uid', '')}")))
                if not any(descriptor.held for descriptor in self._descriptors.values()):
                    yield from self._waiting_assets()

    def _waiting_assets(self) -> Iterator[Item]:
        # assets that came while their descriptor was held follow it, as they did when they came
        for _ in range(len(self._assets)):
            item = self._assets.popleft()
            if item.name == "stream_datum" and self._descriptors[item.doc["descriptor"]].held:
                self._assets.append(item)
            else:
                yield item

    def _take_descriptor(self, doc: Doc) -> Iterator[Item]:
        self._descriptors[doc["uid"]] = descriptor = _Descriptor(doc)
        if all("external" in entry for entry in doc["data_keys"].values()):
            yield self._journal_as_described(descriptor)

    def _journal_as_described(self, descriptor: _Descriptor) -> Item:
        descriptor.as_described = True
        descriptor.journalled[frozenset()] = descriptor.doc["uid"]
        return Item("descriptor", descriptor.doc)

    def _descriptor(self, uid: str, name: str) -> _Descriptor:
        try:
            return self._descriptors[uid]
        except KeyError:
            raise DocumentError(
                f"A {name} of run {self._run.uid} names descriptor {uid}, which never came."
            ) from None

    def _take_stream_datum(self, doc: Doc) -> Iterator[Item]:
        descriptor = self._descriptor(doc["descriptor"], "stream_datum")
        uid, stop = doc["stream_resource"], doc["indices"]["stop"]
        if uid not in self.seen:
            raise DocumentError(f"stream_datum {doc['uid']} names stream_resource {uid}, which never came.")
        resource = self._run.resource_of(uid)
        if resource is not None and (
            stop > resource.sealed or resource.is_open(range(doc["indices"]["start"], stop))
        ):
            raise DocumentError(
                f"stream_datum {doc['uid']} names volumes up to {stop} of {resource.data_key!r}; "
                f"{resource.sealed} are sealed. Seal them first."
            )
        if resource is not None:
            self._hold_geometry(descriptor.doc, resource)
        self.referenced[uid] = max(stop, self.referenced.get(uid, 0))
        if descriptor.held and any(item.doc.get("stream_resource") == uid for item in self._assets):
            yield self._journal_as_described(descriptor)  # a second datum and no event between: none decides soon
        self._assets.append(Item("stream_datum", doc))
        if not descriptor.held:
            yield from self._waiting_assets()

    @staticmethod
    def _hold_geometry(descriptor: Doc, resource: ResourceWriter) -> None:
        key = descriptor["data_keys"].get(resource.data_key, {})
        shape = tuple(key.get("shape", resource.geometry.shape))
        if shape != resource.geometry.shape:
            raise DocumentError(
                f"Volumes of {resource.data_key!r} are {resource.geometry.shape}; their descriptor, in stream "
                f"{descriptor.get('name')!r}, says {shape}. One stream has one geometry: after a change of it "
                "trigger and read into another stream, or begin another run."
            )

    def _take_event_page(self, page: Mapping[str, Any]) -> Iterator[Item]:
        if any(as_array(value) is not None for column in page["data"].values() for value in column):
            for event in unpack_event_page(page):
                yield from self._take_event(event)
            return
        descriptor = self._descriptor(page["descriptor"], "event_page")
        yield from self._described_as(descriptor, frozenset(), page["time"][0] if len(page["time"]) else 0.0)
        yield from self._waiting_assets()
        uid = descriptor.journalled[frozenset()]
        yield Item("event_page", plain({**page, "descriptor": uid}, "event_page"))

    def _take_event(self, doc: Mapping[str, Any]) -> Iterator[Item]:
        descriptor = self._descriptor(doc["descriptor"], "event")
        arrays = {key: array for key, value in doc["data"].items() if (array := as_array(value)) is not None}
        data_keys = descriptor.doc["data_keys"]
        kinds = {key: kind_of(array, self._limit, data_keys.get(key, {})) for key, array in arrays.items()}
        filed = {key: kind for key, kind in kinds.items() if kind.place == "file"}
        parts = {
            part: {key: value for key, value in doc.get(part, {}).items() if key not in filed}
            for part in ("data", "timestamps", "filled")
            if part in doc
        }
        event = plain({**doc, **parts}, f"event {doc['uid']}")  # if it has no spelling, nothing comes of it
        signature = frozenset(kinds.items())
        yield from self._described_as(descriptor, signature, doc["time"])
        yield from self._waiting_assets()
        uid = descriptor.journalled[signature]
        for key, kind in filed.items():
            volume = self._inline_volume(descriptor, key, kind, arrays[key], doc)
            if volume.resource.uid not in self.seen:
                self.seen.add(volume.resource.uid)
                yield Item("stream_resource", volume.resource.stream_resource())
            datum = volume.resource.stream_datum(volume.index, volume.index + 1, uid, doc["seq_num"])
            yield Item("stream_datum", datum, arrays=(volume,))
        yield Item("event", {**event, "descriptor": uid})

    def _inline_volume(
        self,
        descriptor: _Descriptor,
        key: str,
        kind: ArrayKind,
        array: NDArray[Any],
        event: Mapping[str, Any],
    ) -> InlineVolume:
        geometry = Geometry(kind.shape, np.dtype(kind.dtype))
        resource = self._run.resource(("stream", descriptor.doc.get("name", "")), key, geometry)
        # a copy: whoever made the array may use its memory again before it is written
        pixels = np.array(array, dtype=geometry.dtype, order="C", copy=True)
        found = found_with(array)
        times = frame_times_of(key, geometry.planes, event, found)
        metadata = metadata_of(descriptor.doc["data_keys"].get(key, {}), geometry.planes, event, found)
        return InlineVolume(resource, resource.next_index(), pixels, times, metadata)

    def _described_as(self, descriptor: _Descriptor, signature: Signature, time: float) -> Iterator[Item]:
        if signature in descriptor.journalled:
            return
        original = descriptor.doc
        if descriptor.as_described and agrees(original["data_keys"], signature):
            descriptor.journalled[signature] = original["uid"]
            return
        doc = {**original, "data_keys": described(original["data_keys"], signature)}
        if not descriptor.held:
            doc |= {"uid": str(uuid.uuid4()), "time": time}
        descriptor.journalled[signature] = doc["uid"]
        yield Item("descriptor", doc)


def _footprint(value: object) -> int:
    """Estimate the memory of something plain: lists of numbers are what can be large."""
    if isinstance(value, dict):
        return 64 + sum(64 + _footprint(item) for item in value.values())
    if isinstance(value, list):
        inner = _footprint(value[0]) if value else 0
        return 64 + len(value) * (8 + inner)
    return 32 + (len(value) if isinstance(value, str) else 0)
