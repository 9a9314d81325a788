"""A detector as thin as a detector can be: 12 scalars, and volumes that cost nothing to make.

So only the data layer is measured. Frames carry their address in their first pixels, so that what is read back
can be told.
"""

import itertools
import threading
import time
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from bluesky.protocols import Reading
from event_model import DataKey
from numpy.typing import NDArray
from ophyd.status import Status

from gently_bluesky.protocols import Resource, Sink

Doc = dict[str, Any]
PIXELS = np.dtype("<u2")
SCALARS = 12


def noise(side: int) -> list[NDArray[np.uint16]]:
    """Give four frames (side, side) of camera noise."""
    random = np.random.default_rng(1)
    return [random.integers(90, 400, (side, side), PIXELS) for _ in range(4)]


def address(event: int, plane: int) -> NDArray[np.uint16]:
    """Give what the first two pixels of a frame say; events and planes from 0."""
    return np.array([event, plane], PIXELS)


class Detector:
    """12 scalars, and volumes of one or more data keys, as Bluesky's protocols want them.

    Parameters
    ----------
    sink
        Where frames go; None: volumes travel in the events.
    keys
        Data keys of the volumes.
    planes
        Of each volume.
    frames
        All of one shape, taken in turns.
    exposure_ms
        Between two frames; 0: as fast as the sink takes them.
    """

    name = "spim"
    parent = None

    def __init__(
        self,
        sink: Sink | None,
        keys: Sequence[str],
        planes: int,
        frames: list[NDArray[np.uint16]],
        *,
        exposure_ms: float = 0.0,
    ) -> None:
        self.shape = (planes, *frames[0].shape)
        self.to_trigger: list[float] = []
        """Seconds from the last frame's arrival to the next trigger."""
        self.to_exposure: list[float] = []
        """Seconds from the last frame's arrival to the moment when the next one could be exposed."""
        self.late: list[float] = []
        """Seconds by which each frame was taken from the camera after it was there, at a camera's pace."""
        self._sink = sink
        self._keys = list(keys)
        self._frames = frames
        self._exposure_s = exposure_ms / 1e3
        self._resources: dict[str, Resource] = {}
        self._inline = {key: np.resize(np.stack(frames), self.shape) for key in keys if sink is None}
        self._events = itertools.count()
        self._last_frame: float | None = None

    def _entry(self) -> DataKey:
        entry: DataKey = {
            "source": "noise",
            "dtype": "array",
            "dtype_numpy": PIXELS.str,
            "shape": list(self.shape),
        }
        return entry if self._sink is None else {**entry, "external": "STREAM:"}

    def describe(self) -> dict[str, DataKey]:
        number: DataKey = {"source": "noise", "dtype": "number", "shape": []}
        return {**{f"scalar_{i}": number for i in range(SCALARS)}, **{key: self._entry() for key in self._keys}}

    def read(self) -> dict[str, Reading[Any]]:
        now = time.time()
        values: dict[str, Any] = {f"scalar_{i}": i * 1.1 for i in range(SCALARS)} | self._inline
        return {key: {"value": value, "timestamp": now} for key, value in values.items()}

    def describe_configuration(self) -> dict[str, DataKey]:
        return {}

    def read_configuration(self) -> dict[str, Reading[Any]]:
        return {}

    def trigger(self) -> Any:
        status, event = Status(), next(self._events)
        if self._last_frame is not None:
            self.to_trigger.append(time.perf_counter() - self._last_frame)
        if self._sink is None:
            for array in self._inline.values():
                for plane in range(len(array)):
                    array[plane, 0, :2] = address(event, plane)
            status.set_finished()
        else:
            threading.Thread(target=self._acquire, args=(status, event)).start()
        return status

    def _acquire(self, status: Any, event: int) -> None:
        assert self._sink is not None
        try:
            for key in self._keys:
                self._resources[key] = self._sink.open_resource(key, shape=self.shape, dtype=PIXELS)
            volumes = [self._resources[key].new_volume() for key in self._keys]
            ready = time.perf_counter()
            if self._last_frame is not None:
                self.to_exposure.append(ready - self._last_frame)
            for plane in range(self.shape[0]):
                frame = self._frames[plane % len(self._frames)]
                frame[0, :2] = address(event, plane)
                pause = ready + (plane + 1) * self._exposure_s - time.perf_counter()
                if self._exposure_s:
                    self.late.append(max(0.0, -pause))
                    time.sleep(max(0.0, pause))
                self._last_frame = time.perf_counter()
                for volume in volumes:
                    volume.write(plane, frame)
            for volume in volumes:
                volume.seal()
        except BaseException as error:
            status.set_exception(error)
            raise
        status.set_finished()

    def collect_asset_docs(self, index: int | None = None) -> Iterator[tuple[str, Doc]]:
        for resource in self._resources.values():
            yield from resource.asset_docs(index)

    def get_index(self) -> int:
        return min((resource.sealed for resource in self._resources.values()), default=0)

    def forget_run(self) -> None:
        """Begin anew: what the last run left is not measured with the next."""
        self.to_trigger, self.to_exposure, self.late, self._last_frame = [], [], [], None
