"""What the tests of the devices share: a RunEngine, a sink in memory, and frames that carry their address."""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import event_model
import numpy as np
from bluesky import RunEngine
from numpy.typing import DTypeLike, NDArray

from devices import Configuration, Dispim, ManualClock, simulated_dispim
from devices.configuration import CameraSettings, SpimSettings
from devices.simulated.faults import Faults
from devices.simulated.scene import FrameContext
from gently_bluesky.protocols import VolumeMetadata

Documents = list[tuple[str, dict[str, Any]]]
SIZE = 64
PLANES = 6
DARK = 100
A, B = "HamCam1", "HamCam2"


def address(context: FrameContext) -> NDArray[np.uint16]:
    """A frame whose first pixels say which it is: view, number, plane; the rest is bright when lit."""
    frame = np.full(context.shape, DARK + (1000 if context.powers else 0), np.uint16)
    frame[0, :3] = ("?AB".index(context.view) if context.view in "AB" else 9, context.number, context.plane)
    return frame


def small(**changes: Any) -> Configuration:
    """The instrument with small sensors and few planes."""

    def camera(settings: CameraSettings) -> CameraSettings:
        return settings.model_copy(update={"sensor_px": (SIZE, SIZE), "roi_px": None, "timeout_s": 3.0})

    whole = Configuration()
    few = whole.spim.model_copy(update={"num_slices": PLANES})
    update = {
        "camera_a": camera(whole.camera_a),
        "camera_b": camera(whole.camera_b),
        "bottom_camera": camera(whole.bottom_camera),
        "spim": few,
    }
    return whole.model_copy(update={**update, **changes})


def spim_settings(**changes: Any) -> SpimSettings:
    """Settings of few planes, with changes."""
    return SpimSettings(**{"num_slices": PLANES, **changes})


def simulated(**options: Any) -> Dispim:
    """A simulated instrument whose frames carry their address and whose time costs nothing."""
    options.setdefault("configuration", small())
    options.setdefault("clock", ManualClock())
    options.setdefault("frame_source", address)
    return simulated_dispim(**options)


def faults(dispim: Dispim) -> Faults:
    """The faults of a simulated instrument."""
    found: Faults = dispim.core.faults  # type: ignore[attr-defined]
    return found


def engine() -> tuple[RunEngine, Documents]:
    """A RunEngine that works in any thread, and the documents that it has emitted."""
    documents: Documents = []
    run_engine = RunEngine({}, context_managers=[])
    subscribe(run_engine, lambda name, document: documents.append((name, document)))
    return run_engine, documents


def subscribe(run_engine: RunEngine, function: Callable[[str, dict[str, Any]], object]) -> None:
    """Subscribe; bluesky's own method is untyped."""
    run_engine.subscribe(function)


def of(documents: Documents, name: str) -> list[dict[str, Any]]:
    """The documents of one name."""
    return [document for each, document in documents if each == name]


def reason(documents: Documents) -> str:
    """What the last stop document says."""
    return str(of(documents, "stop")[-1]["reason"])


def validate(documents: Documents) -> None:
    """Hold every document against its schema."""
    for name, document in documents:
        event_model.schema_validators[event_model.DocumentNames[name]].validate(document)


@dataclass
class MemoryVolume:
    """A volume that keeps its frames."""

    index: int
    shape: tuple[int, ...]
    metadata: VolumeMetadata
    owner: "MemoryResource"
    frames: dict[int, NDArray[Any]] = field(default_factory=dict)
    times: dict[int, float | None] = field(default_factory=dict)
    sealed: bool = False
    aborted: str | None = None

    def write(self, z: int, frame: NDArray[Any], *, time: float | None = None) -> None:
        """Keep one frame."""
        assert not self.sealed
        assert self.aborted is None
        assert z not in self.frames
        assert frame.shape == self.shape[-2:]
        if self.owner.sink.on_write is not None:
            self.owner.sink.on_write(z)
        self.frames[z] = frame.copy()
        self.times[z] = time

    def seal(self) -> None:
        """Declare it complete."""
        assert set(self.frames) == set(range(self.shape[0] if len(self.shape) == 3 else 1))
        self.sealed = True
        self.owner.sealed = self.index + 1

    def abort(self, reason: str) -> None:
        """Give it up."""
        if not self.sealed:
            self.aborted = reason

    @property
    def array(self) -> NDArray[Any]:
        """All frames."""
        return np.stack([self.frames[z] for z in sorted(self.frames)])


@dataclass
class MemoryResource:
    """Volumes of one data key, with the documents of a step scan."""

    sink: "MemorySink"
    data_key: str
    shape: tuple[int, ...]
    sealed: int = 0
    volumes: list[MemoryVolume] = field(default_factory=list)

    def __post_init__(self) -> None:
        bundle = event_model.compose_stream_resource(
            mimetype="application/x-memory",
            uri="file://localhost/memory",
            data_key=self.data_key,
            parameters={},
        )
        self._document, self._datum = bundle
        self._emitted = False

    @property
    def uid(self) -> str:
        """Of its StreamResource."""
        return str(self._document["uid"])

    def new_volume(self, metadata: VolumeMetadata | None = None) -> MemoryVolume:
        """Give the next volume."""
        if self.sink.refuse is not None:
            raise self.sink.refuse
        self.sink.log.append(f"open {self.data_key}")
        volume = MemoryVolume(len(self.volumes), self.shape, metadata or {}, self)
        self.volumes.append(volume)
        return volume

    def asset_docs(self, index: int | None = None) -> Iterator[tuple[str, dict[str, Any]]]:
        """Documents of the newest sealed volume."""
        if not self._emitted:
            yield "stream_resource", dict(self._document)
            self._emitted = True
        indices = event_model.StreamRange(start=self.sealed - 1, stop=self.sealed)
        yield "stream_datum", dict(self._datum(indices=indices))


class MemorySink:
    """A sink in memory, new resources for each run."""

    def __init__(self) -> None:
        self.runs: list[dict[str, MemoryResource]] = []
        self.log: list[str] = []
        self.refuse: Exception | None = None
        self.on_write: Callable[[int], None] | None = None

    def __call__(self, name: str, document: dict[str, Any]) -> None:
        """See the documents, as a FileWriter does."""
        if name == "start":
            self.runs.append({})

    def open_resource(
        self, data_key: str, *, shape: Sequence[int], dtype: DTypeLike, metadata: VolumeMetadata | None = None
    ) -> MemoryResource:
        """Give the resource of a data key in this run."""
        assert np.dtype(dtype) == np.uint16
        run = self.runs[-1]
        if data_key not in run or run[data_key].shape != tuple(shape):
            run[data_key] = MemoryResource(self, data_key, tuple(shape))
        return run[data_key]

    def volumes(self, data_key: str, run: int = -1) -> list[MemoryVolume]:
        """All volumes of a data key in a run."""
        return self.runs[run][data_key].volumes


def with_sink(**options: Any) -> tuple[Dispim, MemorySink, RunEngine, Documents]:
    """A simulated instrument that streams into memory, and a RunEngine that tells the sink of runs."""
    sink = MemorySink()
    run_engine, documents = engine()
    subscribe(run_engine, sink)
    return simulated(sink=sink, **options), sink, run_engine, documents


def wait_until(condition: Callable[[], bool], what: str) -> None:
    """Wait for another thread, and fail after ten seconds."""
    deadline = time.monotonic() + 10
    pause = threading.Event()
    while not condition():
        assert time.monotonic() < deadline, f"{what}: not within 10 s"
        pause.wait(0.001)
