"""Frames of one data key on their way into files: `ResourceWriter` gives volumes, `VolumeWriter` takes frames.

Runs on whichever thread acquires. Knows shapes, order and goodness of frames; what happens to documents is the
recorder's business, and how pixels are laid out the format's.
"""

import contextlib
import threading
import time as clock
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, Self, cast

import numpy as np
import xxhash
from event_model import RunStart, StreamRange, compose_stream_resource
from numpy.typing import NDArray

from gently_bluesky.errors import FrameError, VolumeIncompleteError
from gently_bluesky.protocols import VolumeMetadata
from gently_bluesky.store.disk import Claim
from gently_bluesky.store.facts import EventFacts, Geometry, Scalar, VolumeFacts
from gently_bluesky.store.formats import ImageFile, ImageStore, examine, hash_of
from gently_bluesky.store.manifest import ManifestEntry

_HASH_BESIDE_BYTES = 1 << 20
"""From here on, hashing a frame takes longer than handing it to another thread."""


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a resource must know of its run."""

    start: Mapping[str, Any]
    facts: Mapping[str, Scalar]
    folder: Path
    pool: Executor
    """Pushes to the disk behind the acquisition."""
    hashing: Executor
    """Hashes large frames beside their writing."""
    claim: Claim
    """Refuses a volume for which there is no room."""
    check: Callable[[], None]
    """Raises the writer's failure, if there is one."""
    volume_opened: Callable[["VolumeWriter"], None]
    volume_closed: Callable[["VolumeWriter"], None]
    has_seen: Callable[[str], bool]
    """Whether the run has seen the StreamResource with this uid."""
    referenced: Callable[[str], int]
    """How far StreamDatums of this uid reach."""


class ResourceWriter:
    """All volumes of one data key and geometry in one run; satisfies `protocols.Resource`."""

    def __init__(
        self,
        data_key: str,
        geometry: Geometry,
        store: ImageStore,
        metadata: VolumeMetadata | None,
        run: Surroundings,
    ) -> None:
        self.data_key = data_key
        self.geometry = geometry
        self._store = store
        self._metadata: VolumeMetadata = metadata or {}
        self._run = run
        self._lock = threading.Lock()
        self._next_index = 0
        self._open: set[int] = set()
        self._sealed = 0
        self._documents = compose_stream_resource(
            mimetype=store.mimetype,
            uri=store.uri,
            data_key=data_key,
            parameters=store.parameters,
            start=cast(RunStart, run.start),
        )

    @property
    def uid(self) -> str:
        """The uid of its StreamResource."""
        return str(self._documents.stream_resource_doc["uid"])

    @property
    def sealed(self) -> int:
        """The index after the newest sealed volume; 0 before the first."""
        return self._sealed

    def new_volume(self, metadata: VolumeMetadata | None = None) -> "VolumeWriter":
        """Create the next volume on disk; see `protocols.Resource`."""
        self._run.check()
        volume = self.create(self.next_index(), metadata)
        self._run.volume_opened(volume)
        return volume

    def next_index(self) -> int:
        """Take the next index."""
        with self._lock:
            index = self._next_index
            self._next_index += 1
            self._open.add(index)
            return index

    def create(self, index: int, metadata: VolumeMetadata | None = None) -> "VolumeWriter":
        """Create the volume of an index that `next_index` gave."""
        facts = VolumeFacts(
            run_uid=self._run.start["uid"],
            resource_uid=self.uid,
            data_key=self.data_key,
            index=index,
            run=self._run.facts,
            metadata={**self._metadata, **(metadata or {})},
        )
        try:
            return VolumeWriter(self, index, self._store.create(index, facts, self._run.claim), self._run)
        except BaseException:
            self.volume_aborted(index)
            raise

    def volume_sealed(self, index: int) -> None:
        """Note that a volume is complete."""
        with self._lock:
            self._open.discard(index)
            self._sealed = max(self._sealed, index + 1)

    def volume_aborted(self, index: int) -> None:
        """Note that a volume was given up."""
        with self._lock:
            self._open.discard(index)

    def is_open(self, indices: range) -> bool:
        """Whether one of these volumes is still being written: no document may name it."""
        with self._lock:
            return any(index in indices for index in self._open)

    def asset_docs(self, index: int | None = None) -> Iterator[tuple[str, dict[str, Any]]]:
        """Give documents for `collect_asset_docs`; see `protocols.Resource`."""
        if index is None:
            first, last = self._sealed - 1, self._sealed
        else:
            with self._lock:
                first, last = (
                    self._run.referenced(self.uid),
                    min(index, self._sealed, *self._open, self._next_index),
                )
        if last <= max(first, 0):
            return
        if not self._run.has_seen(self.uid):
            yield "stream_resource", self.stream_resource()
        yield "stream_datum", self.stream_datum(first, last)

    def stream_resource(self) -> dict[str, Any]:
        """Give the StreamResource, a new dict each time."""
        return dict(self._documents.stream_resource_doc)

    def stream_datum(self, first: int, last: int, descriptor: str = "", seq_num: int = 0) -> dict[str, Any]:
        """Give a StreamDatum of volumes `first` to `last`, exclusive; the RunEngine fills in the rest."""
        seq_nums = StreamRange(start=seq_num, stop=seq_num + last - first if seq_num else 0)
        doc = self._documents.compose_stream_datum(StreamRange(start=first, stop=last), seq_nums)
        return {**doc, "descriptor": descriptor}


class VolumeWriter:
    """One volume while its frames come; satisfies `protocols.Volume`."""

    def __init__(self, resource: ResourceWriter, index: int, file: ImageFile, run: Surroundings) -> None:
        self.resource = resource
        self.index = index
        self.state: Literal["open", "sealed", "aborted"] = "open"
        self.reason = ""
        self.times: list[float | None] = [None] * resource.geometry.planes
        self._file = file
        self._run = run
        self._hash = xxhash.xxh3_128()
        self._hashed = 0
        self._lock = threading.Lock()

    @property
    def path(self) -> Path:
        """Where the file is."""
        return self._file.path

    def write(self, z: int, frame: NDArray[Any], *, time: float | None = None) -> None:
        """Store one frame; see `protocols.Volume`."""
        geometry = self.resource.geometry
        if frame.shape != geometry.plane_shape or frame.dtype.newbyteorder("<") != geometry.dtype:
            raise FrameError(
                f"{self} takes frames of {geometry.plane_shape} {geometry.dtype}; "
                f"frame {z} is {frame.shape} {frame.dtype}. Nothing of it was written."
            )
        if not 0 <= z < geometry.planes:
            raise FrameError(f"{self} has planes 0 to {geometry.planes - 1}; frame {z} has no place.")
        data = np.ascontiguousarray(frame, dtype=geometry.dtype)
        with self._lock:  # nobody closes the file meanwhile
            if self.state != "open":
                raise FrameError(f"{self} was {self.state} before frame {z} came. Begin a new volume.")
            if self.times[z] is not None:
                raise FrameError(f"{self} has plane {z} already; it is not written twice.")
            view = data.reshape(-1).view(np.uint8).data
            taken = clock.time() if time is None else time
            with self._hashing_beside(z, view):
                self._file.write(z, view, taken, self._run.pool)
            self.times[z] = taken

    @contextlib.contextmanager
    def _hashing_beside(self, z: int, view: memoryview) -> Iterator[None]:
        beside = None
        if z == self._hashed and view.nbytes >= _HASH_BESIDE_BYTES:
            with contextlib.suppress(RuntimeError):  # the interpreter is ending: it is hashed here, below
                beside = self._run.hashing.submit(self._hash.update, view)
        try:
            yield
        except BaseException:
            # the hash may know what the file does not: the seal reads all of it again
            self._hash, self._hashed = xxhash.xxh3_128(), 0
            raise
        else:
            if z == self._hashed:
                if beside is None:
                    self._hash.update(view)
                self._hashed += 1
        finally:
            if beside is not None:
                beside.result()  # only then may the caller use the frame's memory again

    def seal(self) -> None:
        """Declare the volume complete; see `protocols.Volume`."""
        if self.state != "open":
            raise FrameError(f"{self} was {self.state} already.")
        missing = [z for z, time in enumerate(self.times) if time is None]
        if missing:
            came = len(self.times) - len(missing)
            shown = ", ".join(map(str, missing[:8])) + (", ..." if len(missing) > 8 else "")
            reason = f"{came} frames of {len(self.times)} came; missing planes: {shown}"
            self.abort(reason)
            raise VolumeIncompleteError(f"{self}: {reason}. What came is kept and never served as whole.")
        self._hash_the_rest()
        if not self._close_as("sealed"):
            raise FrameError(f"{self} was {self.state} meanwhile: {self.reason}.")
        self._run.volume_closed(self)

    def finish(self) -> Self:
        """Seal a volume that the writer's own thread made, or, if frames never came, give it up; tell nobody."""
        if missing := self.times.count(None):
            came = len(self.times) - missing
            self._close_as("aborted", f"{came} frames of {len(self.times)} came, as where it was read from")
        else:
            self._hash_the_rest()
            self._close_as("sealed")
        self.resource.volume_sealed(self.index)
        return self

    def abort(self, reason: str) -> None:
        """Give the volume up; see `protocols.Volume`."""
        if self._close_as("aborted", reason):
            self._run.volume_closed(self)

    def let_go(self) -> None:
        """Close the file of a volume that nobody will record."""
        self._close_as("aborted", "the writer has failed, or was closed")
        self._file.close()

    def _close_as(self, state: Literal["sealed", "aborted"], reason: str = "") -> bool:
        with self._lock:
            if self.state != "open":
                return False
            self.state, self.reason = state, reason
            return True

    def _hash_the_rest(self) -> None:
        geometry = self.resource.geometry
        if self._hashed < geometry.planes:  # frames came out of order
            for plane in self._file.planes(self._hashed):
                self._hash.update(np.ascontiguousarray(plane).data)

    def forget(self) -> None:
        """Let the page cache drop it."""
        self._file.forget()

    def complete(self, event: EventFacts | None = None, *, durable: bool) -> None:
        """Add to the file what is known now, and close it."""
        try:
            self._file.complete(self.times, event, durable=durable)
        finally:
            self._file.close()

    def manifest_entry(self) -> ManifestEntry:
        """Give the line of the manifest."""
        geometry = self.resource.geometry
        details = dict(self._file.manifest)
        if self.state == "aborted":
            came = examine(self.path, self.index).frames
            frames = sum(time is not None for time in self.times) if came is None else came
            details |= {"reason": self.reason, "frames": frames}
        entry = ManifestEntry(
            data_key=self.resource.data_key,
            resource=self.resource.uid,
            index=self.index,
            path=self.path.relative_to(self._run.folder).as_posix(),
            format=self._file.format,
            shape=geometry.shape,
            dtype=geometry.dtype.str,
            bytes=geometry.nbytes,
            xxh3_128=self._hash.hexdigest(),
            state="sealed" if self.state == "sealed" else "aborted",
            details=details,
        )
        if self.state == "aborted":  # as it lies, with zeros for what never came
            return replace(entry, xxh3_128=hash_of(self.path, entry))
        return entry

    def __str__(self) -> str:
        return f"Volume {self.index} of {self.resource.data_key!r} ({self.path})"
