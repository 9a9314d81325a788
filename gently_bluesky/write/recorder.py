"""One run being recorded: which documents are journalled, and with what pixels.

`take` runs on the RunEngine's thread: it copies, decides and enqueues. `commit` runs on the writer's thread: it
makes pixels durable, then the manifest, then the journal, in this order. Nothing else writes to a run folder.
"""

import threading
import uuid
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from gently_bluesky.errors import DocumentError, WriterFailedError
from gently_bluesky.protocols import VolumeMetadata
from gently_bluesky.store.disk import forget_pages, sync_folder
from gently_bluesky.store.facts import EventFacts, Geometry, Scalar
from gently_bluesky.store.formats import ImageStore
from gently_bluesky.store.index import IDENTITY_KEYS, IndexEntry, append_entry, volume_rows
from gently_bluesky.store.manifest import ManifestEntry, foreign_asset
from gently_bluesky.store.streams import Doc, RunTable, VolumeRef, unpack_event_page
from gently_bluesky.store.strict_json import plain
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
from gently_bluesky.write.resource import ResourceWriter, Surroundings, VolumeWriter
from gently_bluesky.write.run_folder import RunFolder

MakeStore = Callable[[Path, Geometry], ImageStore]

_TEXT_FACT = 200  # characters; longer text of an event stays in the documents
_REMEMBERED = 64  # sealed volumes that an event may still say more about
_LARGE_VOLUME = 64 << 20
_START_FACTS = ("time", "scan_id", "plan_name", "session", "embryo", "operator", "purpose")


@dataclass(frozen=True, slots=True)
class InlineVolume:
    """An array out of an event, on its way to a file."""

    resource: ResourceWriter
    index: int
    pixels: NDArray[Any]
    times: list[float]
    metadata: VolumeMetadata


@dataclass(frozen=True, slots=True)
class Item:
    """What the writer's thread gets: a volume that was closed, or a document with the arrays out of it."""

    run: "RunRecorder"
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


class RunRecorder:
    """Records one run."""

    def __init__(
        self,
        root: Path,
        start: Doc,
        *,
        make_store: MakeStore,
        durability: str,
        inline_limit_bytes: int,
        pool: Executor,
        hashing: Executor,
        enqueue: Callable[[Item], None],
    ) -> None:
        self.start = start
        self.finished = threading.Event()
        self.failure: BaseException | None = None
        self._told = False
        self._thread = threading.get_ident()
        self._open_volumes: set[VolumeWriter] = set()
        self._durable = durability == "event"
        self._folder = RunFolder(root, start, durable=self._durable)
        self._make_store = make_store
        self._limit = inline_limit_bytes
        self._enqueue = enqueue
        self._descriptors: dict[str, _Descriptor] = {}
        self._resources: dict[tuple[Any, ...], ResourceWriter] = {}
        self._by_uid: dict[str, ResourceWriter] = {}
        self._assets: deque[Item] = deque()
        self._seen: set[str] = set()
        self._referenced: dict[str, int] = {}
        self._lock = threading.RLock()
        # the writer's thread alone touches these:
        self.stopped = False
        self._begun = False
        self._closed = False
        self._table = RunTable(keys=IDENTITY_KEYS)
        self._volumes: dict[VolumeRef, VolumeWriter] = {}
        self._unsynced: list[Path] = []
        self._hot: dict[str, Path] = {}
        self._surroundings = Surroundings(
            start=start,
            facts={key: value for key in _START_FACTS if isinstance(value := start.get(key), Scalar)},
            folder=self._folder.path,
            pool=pool,
            hashing=hashing,
            check=self.check,
            volume_opened=self._open_volumes.add,
            volume_closed=self._volume_closed,
            has_seen=self._seen.__contains__,
            referenced=lambda uid: self._referenced.get(uid, 0),
        )

    @property
    def uid(self) -> str:
        """The uid of the run."""
        return str(self.start["uid"])

    @property
    def folder(self) -> Path:
        """The folder of the run."""
        return self._folder.path

    @property
    def at_home(self) -> bool:
        """Whether this is the RunEngine's thread: others, those of monitors, swallow what is raised on them."""
        return threading.get_ident() == self._thread

    def check(self, *, heard: bool = True) -> None:
        """Raise what went wrong, if anything did; `heard`, if whoever asks fails the run for it.

        Raises
        ------
        WriterFailedError
            With its cause attached.
        """
        if self.failure is not None:
            self._told |= heard
            raise WriterFailedError(
                f"Run {self.uid} cannot be recorded any further: {self.failure} "
                f"What was journalled before is good, in {self.folder}."
            ) from self.failure

    def fail(self, error: BaseException, *, raised: bool = False) -> None:
        """Note the first thing that went wrong; `raised`, if whoever gave the document sees it as well."""
        if self.failure is None:
            self.failure = error
            self._told = raised and self.at_home

    def check_at_stop(self) -> None:
        """Raise what went wrong, unless it was told before."""
        if not self._told:
            self.check()

    # --- on the acquiring thread ----------------------------------------------------------------------------

    def open_resource(
        self, data_key: str, shape: Sequence[int], dtype: DTypeLike, metadata: VolumeMetadata | None
    ) -> ResourceWriter:
        """Give the resource of a data key and geometry that a device streams to."""
        self.check()
        geometry = Geometry(tuple(int(size) for size in shape), np.dtype(dtype).newbyteorder("<"))
        if geometry.dtype.kind not in "biufc" or geometry.nbytes == 0:
            raise ValueError(
                f"{data_key!r} was offered as {geometry.shape} {geometry.dtype}: volumes hold numbers."
            )
        return self._resource(("device",), data_key, geometry, metadata)

    def _resource(
        self,
        whose: tuple[str, ...],
        data_key: str,
        geometry: Geometry,
        metadata: VolumeMetadata | None = None,
    ) -> ResourceWriter:
        key = (*whose, data_key, geometry)
        with self._lock:
            if key not in self._resources:
                store = self._make_store(self._folder.new_image_folder(data_key), geometry)
                resource = ResourceWriter(data_key, geometry, store, metadata, self._surroundings)
                self._resources[key] = self._by_uid[resource.uid] = resource
            return self._resources[key]

    def _volume_closed(self, volume: VolumeWriter) -> None:
        self._open_volumes.discard(volume)
        self._enqueue(Item(self, volume=volume))
        if volume.state == "sealed":  # only now may a document name it: its pixels go before it
            volume.resource.volume_sealed(volume.index)

    # --- on the RunEngine's thread --------------------------------------------------------------------------

    def take(self, name: str, doc: Mapping[str, Any]) -> None:
        """Copy a document, decide what is journalled for it, and enqueue that."""
        with self._lock:
            if name != "stop":
                self.check(heard=self.at_home)
            for item in self._items(name, doc):
                self._enqueue(item)

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
                for volume in list(self._open_volumes):
                    volume.abort("the run ended before it was complete")
                for descriptor in self._descriptors.values():
                    if descriptor.held:
                        yield self._journal_as_described(descriptor)
                yield from self._waiting_assets()
                yield Item(self, name, plain(doc, f"stop {doc.get('uid')}"))
            case _:
                if name == "stream_resource":
                    self._seen.add(doc["uid"])
                self._assets.append(Item(self, name, plain(doc, f"{name} {doc.get('uid', '')}")))
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
        return Item(self, "descriptor", descriptor.doc)

    def _descriptor(self, uid: str, name: str) -> _Descriptor:
        try:
            return self._descriptors[uid]
        except KeyError:
            raise DocumentError(f"A {name} of run {self.uid} names descriptor {uid}, which never came.") from None

    def _take_stream_datum(self, doc: Doc) -> Iterator[Item]:
        descriptor = self._descriptor(doc["descriptor"], "stream_datum")
        uid, stop = doc["stream_resource"], doc["indices"]["stop"]
        resource = self._by_uid.get(uid)
        if resource is not None and stop > resource.sealed:
            raise DocumentError(
                f"stream_datum {doc['uid']} names volumes up to {stop} of {resource.data_key!r}; "
                f"{resource.sealed} are sealed. Seal them first."
            )
        self._referenced[uid] = max(stop, self._referenced.get(uid, 0))
        if descriptor.held and any(item.doc.get("stream_resource") == uid for item in self._assets):
            yield self._journal_as_described(descriptor)  # a second datum and no event between: none decides soon
        self._assets.append(Item(self, "stream_datum", doc))
        if not descriptor.held:
            yield from self._waiting_assets()

    def _take_event_page(self, page: Mapping[str, Any]) -> Iterator[Item]:
        if any(as_array(value) is not None for column in page["data"].values() for value in column):
            for event in unpack_event_page(page):
                yield from self._take_event(event)
            return
        descriptor = self._descriptor(page["descriptor"], "event_page")
        yield from self._described_as(descriptor, frozenset(), page["time"][0] if len(page["time"]) else 0.0)
        yield from self._waiting_assets()
        uid = descriptor.journalled[frozenset()]
        yield Item(self, "event_page", plain({**page, "descriptor": uid}, "event_page"))

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
            if volume.resource.uid not in self._seen:
                self._seen.add(volume.resource.uid)
                yield Item(self, "stream_resource", volume.resource.stream_resource())
            datum = volume.resource.stream_datum(volume.index, volume.index + 1, uid, doc["seq_num"])
            yield Item(self, "stream_datum", datum, arrays=(volume,))
        yield Item(self, "event", {**event, "descriptor": uid})

    def _inline_volume(
        self,
        descriptor: _Descriptor,
        key: str,
        kind: ArrayKind,
        array: NDArray[Any],
        event: Mapping[str, Any],
    ) -> InlineVolume:
        geometry = Geometry(kind.shape, np.dtype(kind.dtype))
        resource = self._resource(("stream", descriptor.doc.get("name", "")), key, geometry)
        # a copy: whoever made the array may use its memory again before it is written
        pixels = np.array(array, dtype=geometry.dtype, order="C", copy=True)
        times = frame_times_of(key, geometry.planes, event)
        metadata = metadata_of(descriptor.doc["data_keys"].get(key, {}), event)
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
        yield Item(self, "descriptor", doc)

    # --- on the writer's thread -----------------------------------------------------------------------------

    def commit(self, items: Sequence[Item], journalled: list[tuple[str, Doc]]) -> None:
        """Make a group of items permanent, in the order that is promised; add the documents to `journalled`.

        What came before an item that fails is permanent all the same; what comes after it is dropped.
        """
        try:
            self._commit(items if not self._closed else (), journalled)
        except BaseException:
            self._closed = True  # nothing may follow a hole
            raise
        finally:
            if self._closed:
                for item in items:
                    if item.volume is not None:
                        item.volume.let_go()

    def _commit(self, items: Sequence[Item], journalled: list[tuple[str, Doc]]) -> None:
        entries: list[ManifestEntry] = []
        documents: list[tuple[str, Doc]] = []
        folders: set[Path] = set()
        try:
            for item in items:
                for volume in [item.volume] if item.volume else [self._store(array) for array in item.arrays]:
                    entries.append(self._settle(volume))
                    folders.add(volume.path.parent)
                if item.name:
                    foreign = list(self._foreign_entry(item.name, item.doc))
                    self._table(item.name, item.doc)
                    documents.append((item.name, item.doc))
                    entries += foreign
                    if item.name == "event":
                        self._complete(item.doc)
        finally:
            if self._durable:
                for folder in folders:
                    sync_folder(folder)
            self._folder.append(entries, documents)
            self._begun |= bool(documents)
            journalled += documents

    def _store(self, array: InlineVolume) -> VolumeWriter:
        volume = array.resource.create(array.index, array.metadata)
        planes = array.pixels.reshape(-1, *array.resource.geometry.plane_shape)
        for z, (plane, time) in enumerate(zip(planes, array.times, strict=True)):
            volume.write(z, plane, time=time)
        return volume.finish()

    def _settle(self, volume: VolumeWriter) -> ManifestEntry:
        volume.complete(durable=self._durable)
        if not self._durable:
            self._unsynced.append(volume.path)
        if volume.state == "sealed":
            self._volumes[VolumeRef(volume.resource.uid, volume.index)] = volume
            if len(self._volumes) > _REMEMBERED:  # dropped events, or a fly scan: no event will tell more of it
                del self._volumes[next(iter(self._volumes))]
            if volume.resource.geometry.nbytes >= _LARGE_VOLUME and self._durable:
                # the newest volume stays hot for readers, its predecessor's memory serves the next
                before = self._hot.get(volume.resource.uid)
                self._hot[volume.resource.uid] = volume.path
                if before is not None:
                    forget_pages(before)
        return volume.manifest_entry()

    def _complete(self, event: Doc) -> None:
        stream = self._table.stream_of(event["descriptor"])
        row = stream.event(event["uid"])
        if not row.volumes:
            return
        scalars = {key: value for key, value in event["data"].items() if _is_fact(value)}
        facts = EventFacts(event["uid"], event["seq_num"], event["time"], scalars)
        for ref in row.volumes.values():
            volume = self._volumes.pop(ref, None)
            if volume is not None:
                volume.complete(facts, durable=self._durable)

    def _foreign_entry(self, name: str, doc: Doc) -> Iterator[ManifestEntry]:
        if name in {"stream_resource", "resource"} and doc["uid"] not in self._by_uid:
            yield foreign_asset(doc)

    def finish(self, stop: Doc, journalled: list[tuple[str, Doc]]) -> None:
        """Journal the stop document, close the folder and tell the index.

        A run that lost anything is never journalled as a success.
        """
        if not self._durable:
            try:
                self._folder.sync_everything(self._unsynced)
            except OSError as error:
                self.fail(error)
        if not self._begun:  # not even the start was written: there is no run
            self.abandon()
            self.stopped = True
            return
        if self.failure is not None and stop.get("exit_status") == "success":
            stop = {**stop, "exit_status": "fail", "reason": f"FileWriter: {self.failure}"}
        try:
            self._table("stop", stop)
            self._folder.append((), [("stop", stop)])
            journalled.append(("stop", stop))
            self.stopped = True
            if not self._durable:
                self._folder.sync_everything(())
        finally:
            self._closed = True
            self._folder.close()
        if self.failure is not None:  # what is there, the journal knows
            return
        entry = IndexEntry(
            self.folder.relative_to(self._folder.root).as_posix(),
            self.start,
            stop,
            tuple(volume_rows(self._table)),
        )
        append_entry(self._folder.root, entry)

    def abandon(self) -> None:
        """Let go of the folder without a stop; recovery will find it. The writer's thread must be idle."""
        self._closed = True
        for volume in list(self._open_volumes):
            volume.let_go()
        self._folder.close()


def _footprint(value: object) -> int:
    """Estimate the memory of something plain: lists of numbers are what can be large."""
    if isinstance(value, dict):
        return 64 + sum(64 + _footprint(item) for item in value.values())
    if isinstance(value, list):
        inner = _footprint(value[0]) if value else 0
        return 64 + len(value) * (8 + inner)
    return 32 + (len(value) if isinstance(value, str) else 0)


def _is_fact(value: object) -> bool:
    return isinstance(value, Scalar) and not (isinstance(value, str) and len(value) > _TEXT_FACT)
