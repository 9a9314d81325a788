"""`Volume` and `Volumes`: what a catalog answers to a question about volumes.

An answer that is empty says why: which part of the question nothing fits, and what there is instead.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from gently_bluesky.read.answers import Answer, is_asked, why_none
from gently_bluesky.read.images import ImageSeries
from gently_bluesky.read.run import Run
from gently_bluesky.read.stream import Stream
from gently_bluesky.read.words import counted
from gently_bluesky.store.index import VolumeRow


@dataclass(frozen=True, slots=True)
class Volume:
    """One volume in answer to a question; its pixels are read when they are looked at.

    Attributes
    ----------
    run_uid, stream, seq_num, data_key
        Where it is.
    time
        Of its event, seconds since the epoch.
    session, embryo, timepoint, position, view, channel, good
        What it shows; None where the documents do not say.
    """

    run_uid: str
    row: VolumeRow
    _run: Callable[[str], Run]

    def __repr__(self) -> str:
        said = {name: getattr(self.row, name) for name in ("session", "embryo", "timepoint", "view", "channel")}
        shown = ", ".join(f"{name} {value!r}" for name, value in said.items() if value is not None)
        where = f"run {self.run_uid[:8]}, {self.row.stream}, seq_num {self.row.seq_num}, {self.row.data_key}"
        return f"<Volume {shown}; {where}{'' if self.row.good else '; not good'}>"

    def __getattr__(self, name: str) -> Any:
        if name in VolumeRow.__slots__:
            return getattr(self.row, name)
        raise AttributeError(
            f"a volume has no {name!r}; it has run_uid, images, event, array, {VolumeRow.__slots__}"
        )

    @property
    def run(self) -> Run:
        """The run."""
        return self._run(self.run_uid)

    @property
    def images(self) -> ImageSeries:
        """The series that it is part of."""
        return self.run[self.row.stream].images(self.row.data_key)

    @property
    def event(self) -> int:
        """Its position on the event axis of `images`."""
        return self._event_in(self.run[self.row.stream])

    def _event_in(self, stream: Stream) -> int:
        return [row.seq_num for row in stream.rows].index(self.row.seq_num)

    def array(self) -> NDArray[Any]:
        """Give the pixels, (z, y, x), mapped; a volume that is not good is given as it is."""
        stream = self.run[self.row.stream]
        return stream.images(self.row.data_key).volume(self._event_in(stream), include_bad=True)


class Volumes(Answer[Volume]):
    """Volumes in answer to a question."""

    _of = "volumes"


def no_volumes(rows: Sequence[VolumeRow], what: Mapping[str, Any]) -> Volumes:
    """Give the empty answer to a question: the first part of it that nothing fits, and what there is instead.

    Parameters
    ----------
    rows
        What was looked at, bad volumes and those of other sessions included.
    what
        The question: what each field must be, in plain values, or a frozenset of them.
    """
    if not rows:
        return Volumes(why_none="there are none in the runs that were looked at")
    why, available = why_none(rows, what, lambda row, key: [getattr(row, key)])
    if why:
        return Volumes(why_none=why, available=available)
    count = sum(fits(row, what) for row in rows)
    which = f"{counted(count, 'volume')} would fit, marked as not good"
    return Volumes(why_none=f"{which}; include_bad=True gives {'it' if count == 1 else 'them'}")


def fits(row: VolumeRow, what: Mapping[str, Any]) -> bool:
    """Whether a volume is what is asked for, in plain values, or one of a frozenset of them."""
    return all(is_asked(getattr(row, key), value) for key, value in what.items())
