"""Where two houses meet: what a device needs of whatever stores its frames.

A device is given a `Sink` or none. It knows neither where nor in which format its frames end up; the
writer that satisfies these protocols knows nothing of hardware.
"""

from collections.abc import Iterator, Sequence
from typing import Any, Protocol, TypedDict, runtime_checkable

from numpy.typing import DTypeLike, NDArray


class VolumeMetadata(TypedDict, total=False):
    """What a device knows of the volumes that it writes; every key may be absent, absent means unknown.

    It is written into the files, so that a file found alone explains itself. The documents say the same and
    more, and where both speak the documents are right.
    """

    view: str
    """The light path, "A" or "B"."""
    channel: str
    """The laser preset and its emission, as the instrument spells it."""
    voxel_size_um: Sequence[float]
    """Spacing along (z, y, x), or (y, x) for single frames, in micrometer."""
    exposure_ms: float
    """Exposure of one frame in milliseconds."""
    stage_position_um: Sequence[float]
    """Stage (x, y, z) during the volume, in micrometer."""
    z_um: Sequence[float]
    """Position of each plane along the scan axis, in micrometer, one number a plane, relative to the stage."""


class Volume(Protocol):
    """One volume while it is being acquired: a file that is whole from its creation on."""

    @property
    def index(self) -> int:
        """Its index in the stream resource, from 0."""

    def write(self, z: int, frame: NDArray[Any], *, time: float | None = None) -> None:
        """Store one frame.

        Parameters
        ----------
        z
            Plane, from 0.
        frame
            (y, x), of the resource's dtype; camera counts. Not kept: the caller may reuse its memory.
        time
            When the camera took it, seconds since the epoch; now, if not given.

        Raises
        ------
        FrameError
            Wrong shape, dtype or plane, a plane written twice, or a volume that is closed.
        """

    def seal(self) -> None:
        """Declare the volume complete.

        Raises
        ------
        VolumeIncompleteError
            Frames are missing. The volume is then aborted: what came stays on disk and is never served as whole.
        """

    def abort(self, reason: str) -> None:
        """Give the volume up; the frames that came stay on disk. On a sealed or aborted volume: nothing."""


class Resource(Protocol):
    """All volumes of one data key, shape and dtype in one run: one StreamResource."""

    @property
    def uid(self) -> str:
        """The uid of its StreamResource."""

    @property
    def sealed(self) -> int:
        """How far sealed volumes reach: the index after the newest one."""

    def new_volume(self, metadata: VolumeMetadata | None = None) -> Volume:
        """Create the next volume on disk, its space reserved.

        Parameters
        ----------
        metadata
            What is true of this volume alone; it goes before what `Sink.open_resource` was told.

        Raises
        ------
        DiskFullError
            There is no room; nothing was exposed yet.
        WriterFailedError
            Something went wrong before, here or in the writer's thread.
        """

    def asset_docs(self, index: int | None = None) -> Iterator[tuple[str, dict[str, Any]]]:
        """Documents for `collect_asset_docs`: the StreamResource if this run has not seen it, then a StreamDatum.

        Parameters
        ----------
        index
            None in a step scan: the datum names the newest sealed volume, again if there was no new one.
            A number in a fly scan: the datum runs from where the last one ended to `index` (exclusive). The
            RunEngine passes None for a flyer that is collected alone: the device then gives `sealed`.
        """


@runtime_checkable
class Sink(Protocol):
    """Whatever takes frames; a FileWriter is one."""

    def open_resource(
        self,
        data_key: str,
        *,
        shape: Sequence[int],
        dtype: DTypeLike,
        metadata: VolumeMetadata | None = None,
    ) -> Resource:
        """Give the resource of this data key in the run that is open; the same one for the same arguments.

        Parameters
        ----------
        data_key
            As in the descriptor.
        shape
            (z, y, x) of a volume, or (y, x) of single frames (written with z = 0).
        dtype
            Of the pixels.
        metadata
            What is true of every volume of the resource.

        Raises
        ------
        NoOpenRunError
            The writer has seen no start document, or several runs are open and it cannot know which is meant.
        WriterFailedError
            An earlier failure of the writer that nobody was told yet.
        """
