"""Where the frames of one data key go: to a sink that stores them, or into the event.

Makes the data key's description and its asset documents; this is the one place that decides both. Does not
know how frames come about.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gently_bluesky.errors import FrameError, ReadingError, VolumeIncompleteError
from gently_bluesky.protocols import Resource, Sink, Volume, VolumeMetadata

PIXELS = np.dtype("<u2")
AXES = ("z", "y", "x")


class InlineVolume:
    """A volume in memory, for devices without a sink.

    Parameters
    ----------
    shape
        (z, y, x), or (y, x) of a single frame.
    """

    def __init__(self, shape: Sequence[int]) -> None:
        self.array: NDArray[Any] = np.empty(tuple(shape), PIXELS)
        self._frames = self.array.reshape((-1, *self.array.shape[-2:]))
        self._missing = set(range(len(self._frames)))
        self.index = 0

    def write(self, z: int, frame: NDArray[Any], *, time: float | None = None) -> None:  # noqa: ARG002 - protocol
        """Keep a copy of one frame, (y, x), as plane `z`, from 0.

        Raises
        ------
        FrameError
            Not the shape of a plane, or a plane that is there already or that there is not.
        """
        if frame.shape != self._frames.shape[1:] or z not in self._missing:
            raise FrameError(f"plane {z} of {self.array.shape}: a frame of {frame.shape} does not belong there")
        self._frames[z] = frame
        self._missing.discard(z)

    def seal(self) -> None:
        """Declare it complete.

        Raises
        ------
        VolumeIncompleteError
            Planes are missing.
        """
        if self._missing:
            raise VolumeIncompleteError(f"{len(self._missing)} of {len(self._frames)} planes are missing")

    def abort(self, reason: str) -> None:
        """Give it up; nothing is stored."""


class Outlet:
    """Where the frames of one data key go.

    Parameters
    ----------
    sink
        What stores them; None: they travel in the event.
    """

    def __init__(self, sink: Sink | None) -> None:
        self._sink = sink
        self._resource: Resource | None = None
        self._inline: NDArray[Any] | None = None
        self._taken_inline = 0
        self._open: Volume | None = None

    @property
    def streamed(self) -> bool:
        """Whether a sink takes the frames."""
        return self._sink is not None

    @property
    def sealed(self) -> int:
        """How far sealed volumes reach: the index after the newest one."""
        if self._sink is None:
            return self._taken_inline
        return 0 if self._resource is None else self._resource.sealed

    def open(self, data_key: str, shape: Sequence[int], metadata: VolumeMetadata) -> Volume:
        """Make room for the next volume.

        Parameters
        ----------
        data_key
            As in the descriptor.
        shape
            (z, y, x), or (y, x) of a single frame.
        metadata
            What is true of this volume.

        Returns
        -------
        Volume
            For the frames; then `seal` or `abort` it.

        Raises
        ------
        DiskFullError, NoOpenRunError, WriterFailedError
            The sink has no room for it.
        """
        if self._sink is None:
            self._inline = None
            self._open = InlineVolume(shape)
        else:
            self._resource = self._sink.open_resource(
                data_key, shape=tuple(shape), dtype=PIXELS, metadata=metadata
            )
            self._open = self._resource.new_volume(metadata)
        return self._open

    def seal(self) -> None:
        """Declare the volume complete.

        Raises
        ------
        VolumeIncompleteError
            It is not.
        """
        volume = self._open
        if volume is None:
            raise VolumeIncompleteError("no volume is open that could be sealed")
        volume.seal()
        self._open = None
        if isinstance(volume, InlineVolume):
            self._inline = volume.array
            self._taken_inline += 1

    def abort(self, reason: str) -> None:
        """Give up the volume that is open, if one is.

        Parameters
        ----------
        reason
            What went wrong, for whoever finds the file.
        """
        volume, self._open = self._open, None
        if volume is not None:
            volume.abort(reason)

    def read(self, data_key: str, timestamp: float) -> dict[str, dict[str, Any]]:
        """Give the reading for an event: the array without a sink, nothing with one.

        Parameters
        ----------
        data_key
            As in the descriptor.
        timestamp
            Of the last volume, seconds since the epoch.

        Raises
        ------
        ReadingError
            Nothing was taken yet.
        """
        if self._sink is not None:
            return {}
        if self._inline is None:
            raise ReadingError(f"{data_key}: nothing was taken yet; trigger it first")
        return {data_key: {"value": self._inline, "timestamp": timestamp}}

    def describe(
        self,
        data_key: str,
        *,
        source: str,
        shape: Sequence[int],
        voxel_size_um: Sequence[float | str],
        **more: str | Sequence[str],
    ) -> dict[str, dict[str, Any]]:
        """Give the data key.

        Parameters
        ----------
        data_key
            Its name.
        source
            Of the frames.
        shape
            Of one event's array: (z, y, x) or (y, x). Streamed, it is the shape of one datum: consolidators
            that join by "stack" put the event axis before it.
        voxel_size_um
            Along the same axes in micrometer; a text is the data key that holds the number in every event.
        **more
            Further entries, as `view`.
        """
        key: dict[str, Any] = {
            "source": source,
            "dtype": "array",
            "dtype_numpy": PIXELS.str,
            "shape": list(shape),
            "dims": list(AXES[-len(shape) :]),
            "units": "counts",
            "voxel_size_um": list(voxel_size_um),
            **more,
        }
        if self._sink is not None:
            key["external"] = "STREAM:"
        return {data_key: key}

    def asset_docs(self, index: int | None = None) -> Iterator[tuple[str, dict[str, Any]]]:
        """Give the documents that name the frames; none without a sink."""
        if self._resource is not None:
            yield from self._resource.asset_docs(index)
