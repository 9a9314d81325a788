"""One run being recorded: documents and pixels made permanent, in the order that is promised.

`take` runs on the RunEngine's thread: it enqueues what the intake decides. `commit` runs on the writer's thread:
it makes pixels durable, then the manifest, then the journal. Nothing else writes to a run folder.
"""

import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from gently_bluesky.errors import DiskFullError, WriterFailedError
from gently_bluesky.protocols import VolumeMetadata
from gently_bluesky.store.disk import Claim, sync_folder
from gently_bluesky.store.facts import EventFacts, Geometry, Scalar
from gently_bluesky.store.formats import ImageStore, NewFolder
from gently_bluesky.store.index import IDENTITY_KEYS, IndexEntry, append_entry, volume_rows
from gently_bluesky.store.manifest import ManifestEntry, foreign_asset
from gently_bluesky.store.streams import Doc, RunTable, VolumeRef
from gently_bluesky.write.intake import InlineVolume, Intake, Item
from gently_bluesky.write.resource import ResourceWriter, Surroundings, VolumeWriter
from gently_bluesky.write.run_folder import RunFolder

MakeStore = Callable[[NewFolder, Geometry], ImageStore]

_Step = tuple[list[ManifestEntry], list[tuple[str, Doc]]]  # what goes to the manifest, and then to the journal

_TEXT_FACT = 200  # characters; longer text of an event stays in the documents
_REMEMBERED = 64  # sealed volumes that an event may still say more about
_LARGE_VOLUME = 64 << 20
_START_FACTS = ("time", "scan_id", "plan_name", "session", "embryo", "operator", "purpose")


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
        claim: Claim,
        enqueue: Callable[["RunRecorder", Item], None],
    ) -> None:
        self.start = start
        self.begun = threading.Event()
        self.finished = threading.Event()
        self.failure: BaseException | None = None
        self._told = False
        self._thread = threading.get_ident()
        self._open_volumes: set[VolumeWriter] = set()
        self._durable = durability == "event"
        self._folder = RunFolder.create(root, start, durable=self._durable)
        self._make_store = make_store
        self._enqueue = enqueue
        self._resources: dict[tuple[Any, ...], ResourceWriter] = {}
        self._by_uid: dict[str, ResourceWriter] = {}
        self._intake = Intake(self, inline_limit_bytes)
        self._lock = threading.RLock()
        # the writer's thread alone touches these:
        self.stopped = False
        self._begun = False
        self._closed = False
        self._table = RunTable(keys=IDENTITY_KEYS)
        self._volumes: dict[VolumeRef, VolumeWriter] = {}
        self._unsynced: list[Path] = []
        self._hot: dict[str, VolumeWriter] = {}
        self._surroundings = Surroundings(
            start=start,
            facts=start_facts(start),
            folder=self._folder.path,
            pool=pool,
            hashing=hashing,
            claim=claim,
            check=self.check,
            volume_opened=self._open_volumes.add,
            volume_closed=self._volume_closed,
            has_seen=self._intake.seen.__contains__,
            referenced=lambda uid: self._intake.referenced.get(uid, 0),
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
        return self.resource(("device",), data_key, geometry, metadata)

    def resource(
        self,
        whose: tuple[str, ...],
        data_key: str,
        geometry: Geometry,
        metadata: VolumeMetadata | None = None,
    ) -> ResourceWriter:
        """Give the resource of a data key and geometry, made if there is none; `whose` keeps streams apart."""
        key = (*whose, data_key, geometry)
        with self._lock:
            if key not in self._resources:
                new_folder = partial(self._folder.new_image_folder, data_key)
                store = self._make_store(new_folder, geometry)
                resource = ResourceWriter(data_key, geometry, store, metadata, self._surroundings)
                self._resources[key] = self._by_uid[resource.uid] = resource
            return self._resources[key]

    def resource_of(self, uid: str) -> ResourceWriter | None:
        """Give a resource of this run by its uid; None for those of others."""
        return self._by_uid.get(uid)

    def _volume_closed(self, volume: VolumeWriter) -> None:
        self._open_volumes.discard(volume)
        self._enqueue(self, Item(volume=volume))
        if volume.state == "sealed":  # only now may a document name it: its pixels go before it
            volume.resource.volume_sealed(volume.index)
        else:
            volume.resource.volume_aborted(volume.index)

    # --- on the RunEngine's thread --------------------------------------------------------------------------

    def take(self, name: str, doc: Mapping[str, Any]) -> None:
        """Copy a document, decide what is journalled for it, and enqueue that."""
        with self._lock:
            if name != "stop":
                self.check(heard=self.at_home)
            else:
                for volume in list(self._open_volumes):
                    volume.abort("the run ended before it was complete")
            for item in self._intake.items(name, doc):
                self._enqueue(self, item)

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
        steps: list[_Step] = []
        folders: set[Path] = set()
        try:
            for item in items:
                entries: list[ManifestEntry] = []
                for volume in [item.volume] if item.volume else [self._store(array) for array in item.arrays]:
                    entries.append(self._settle(volume))
                    folders.add(volume.path.parent)
                steps.append((entries, []))
                if item.name:
                    foreign = self._foreign_entries(item.name, item.doc)
                    self._table(item.name, item.doc)
                    steps.append((foreign, [(item.name, item.doc)]))
                    if item.name == "event":
                        self._complete(item.doc)
        finally:
            if self._durable:
                for folder in folders:
                    sync_folder(folder)
            self._append(steps, journalled)

    def _append(self, steps: Sequence[_Step], journalled: list[tuple[str, Doc]]) -> None:
        entries = [entry for step_entries, _ in steps for entry in step_entries]
        documents = [document for _, step_documents in steps for document in step_documents]
        try:
            self._folder.append(entries, documents)
        except DiskFullError:
            if len(steps) < 2:
                raise
            for step in steps:  # as much of the group as finds room
                self._append([step], journalled)
        else:
            self._begun |= bool(documents)
            journalled += documents

    def _store(self, array: InlineVolume) -> VolumeWriter:
        volume = array.resource.create(array.index, array.metadata)
        planes = array.pixels.reshape(-1, *array.resource.geometry.plane_shape)
        for z, (plane, time) in enumerate(zip(planes, array.times, strict=True)):
            if time is not None:
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
                self._hot[volume.resource.uid] = volume
                if before is not None:
                    before.forget()
        return volume.manifest_entry()

    def _complete(self, event: Doc) -> None:
        stream = self._table.stream_of(event["descriptor"])
        row = stream.event(event["uid"])
        if not row.volumes:
            return
        facts = event_facts(event)
        for ref in row.volumes.values():
            volume = self._volumes.pop(ref, None)
            if volume is not None:
                volume.complete(facts, durable=self._durable)

    def _foreign_entries(self, name: str, doc: Doc) -> list[ManifestEntry]:
        foreign = name in {"stream_resource", "resource"} and doc["uid"] not in self._by_uid
        return [foreign_asset(doc)] if foreign else []

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
        append_entry(self._folder.root, entry.as_read())

    def abandon(self) -> None:
        """Let go of the folder without a stop; recovery will find it. The writer's thread must be idle."""
        self._closed = True
        for volume in list(self._open_volumes):
            volume.let_go()
        self._folder.close()


def start_facts(start: Mapping[str, Any]) -> dict[str, Scalar]:
    """Give what a stored volume says of its run."""
    return {key: start[key] for key in _START_FACTS if _is_fact(start.get(key))}


def event_facts(event: Mapping[str, Any]) -> EventFacts:
    """Give what a stored volume says of its event."""
    scalars = {key: value for key, value in event["data"].items() if _is_fact(value)}
    return EventFacts(event["uid"], event["seq_num"], event["time"], scalars)


def _is_fact(value: object) -> bool:
    return isinstance(value, Scalar) and not (isinstance(value, str) and len(value) > _TEXT_FACT)
