"""`Place`: one volume, or frame, of a run, and what its documents say of it: where it is, what it shows."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

from gently_bluesky.errors import GentlyError
from gently_bluesky.read.images import ImageSeries, dims_of
from gently_bluesky.read.run import Run, Stream
from gently_bluesky.serve.agent.answering import Facts, moment, without_none
from gently_bluesky.store.streams import Doc, Row, is_good


def folder_of(run: Run) -> PurePath:
    """Give a run's folder relative to its root: "runs", year, month, day, and its name."""
    return PurePath(*run.home.parts[-5:])


@dataclass(frozen=True, slots=True)
class Place:
    """One volume, or frame, of a run.

    Attributes
    ----------
    run, stream, images
        Where it is.
    event
        Its position on the event axis of `images`.
    newer_not_good
        Where a newer one is that is not good and was passed over for it, and how to see that.
    """

    run: Run
    stream: Stream
    images: ImageSeries
    event: int
    newer_not_good: str | None = None

    @property
    def row(self) -> Row:
        """Its event."""
        return self.stream.rows[self.event]

    @property
    def data_key(self) -> Doc:
        """What the descriptor says of it."""
        return self.stream.data_keys[self.images.data_key]

    @property
    def dims(self) -> tuple[str, ...]:
        """Names of its axes."""
        return dims_of(self.data_key, len(self.shape))

    @property
    def shape(self) -> tuple[int, ...]:
        """Of its pixels; no pixel is read for one of ours."""
        return tuple(self.images.only([self.event]).shape[1:])

    @property
    def voxel_um(self) -> tuple[float, ...] | None:
        """Along its axes; None if that was not recorded, or not of every axis."""
        sizes = self.images.voxel_size_um_of(self.event)
        return sizes if sizes is not None and len(sizes) == len(self.shape) and min(sizes) > 0 else None

    def said(self, key: str) -> Any:
        """Give what its event says, or else its start: embryo, timepoint, channel."""
        return self.row.data.get(key, self.run.start.get(key))

    def address(self) -> Facts:
        """Say where it is: run, event and file, and what it shows."""
        return without_none(
            run=self.run.uid,
            stream=self.stream.name,
            seq_num=self.row.seq_num,
            data_key=self.images.data_key,
            time=moment(self.row.time),
            session=self.run.start.get("session"),
            **{key: self.said(key) for key in ("embryo", "timepoint", "position", "channel")},
            view=self.data_key.get("view"),
            good=None if is_good(self.row.data) else False,
            newer_not_good=self.newer_not_good,
            file=self.file(),
        )

    def title(self, views: Sequence[str] = ()) -> str:
        """Say in a line what it shows; also, if it is shown with others, in which views."""
        view = ", ".join(views) or self.data_key.get("view")
        parts = [self.said("embryo") or self.images.data_key]
        if self.said("timepoint") is not None:
            parts.append(f"timepoint {self.said('timepoint')}")
        return ", ".join([*map(str, parts), *([f"view {view}"] if view else []), *_text(self.said("channel"))])

    def whereabouts(self) -> str:
        """Say in a line which run, event and data key it is."""
        return f"run {self.run.uid[:8]}, {self.stream.name}, seq_num {self.row.seq_num}, {self.images.data_key}"

    def file(self) -> str:
        """Say which file it is read from, relative to the root where it is inside; or why there is none."""
        try:
            source = self.images.source(self.event)
        except (GentlyError, OSError) as error:
            return f"none: {error}"
        home, path = self.run.home, source.path
        if path.is_relative_to(home):
            path = folder_of(self.run) / path.relative_to(home)
        return path.as_posix() + (f", volume {source.index}" if source.format == "ome-zarr" else "")


def _text(value: Any) -> list[str]:
    return [] if value in (None, "") else [str(value)]
