"""`Volume` and `Volumes`: what a catalog answers to a question about volumes.

An answer that is empty says why: which part of the question nothing fits, and what there is instead.
"""

import contextlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from gently_bluesky.read.images import ImageSeries
from gently_bluesky.read.run import Run
from gently_bluesky.read.stream import Stream
from gently_bluesky.read.words import counted, listed
from gently_bluesky.store.index import VolumeRow

if TYPE_CHECKING:
    from gently_bluesky.read.catalog import Catalog

_ASKED_IN_ORDER = ("session", "embryo", "position", "timepoint", "channel", "view")
_SHOWN = 10


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
    _catalog: "Catalog"

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
        return self._catalog[self.run_uid]

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


class Volumes(list[Volume]):
    """Volumes in answer to a question, newest first: a list, which says why if it is empty.

    Attributes
    ----------
    why_none
        A sentence for people and agents; "" if there are volumes.
    available
        What the question could have been: for the first part of it that nothing fits, the values that there
        are among the volumes that fit the parts before, e.g. ``{"embryo": ["e1", "e2"]}``. Empty otherwise.
    """

    def __init__(
        self,
        volumes: Iterable[Volume] = (),
        *,
        why_none: str = "",
        available: Mapping[str, Sequence[Any]] | None = None,
    ) -> None:
        super().__init__(volumes)
        self.why_none = why_none
        self.available = {key: list(values) for key, values in (available or {}).items()}

    def __repr__(self) -> str:
        if not self:
            return f"<no volumes: {self.why_none}>" if self.why_none else "<no volumes>"
        lines = [repr(volume) for volume in self[:_SHOWN]]
        if len(self) > _SHOWN:
            lines.append(f"... {len(self) - _SHOWN} more")
        return "[" + ",\n ".join(lines) + "]"


def no_volumes(rows: Sequence[VolumeRow], what: Mapping[str, Any]) -> Volumes:
    """Give the empty answer to a question: the first part of it that nothing fits, and what there is instead.

    Parameters
    ----------
    rows
        What was looked at, bad volumes and those of other sessions included.
    what
        The question: what each field must be, in plain values.
    """
    if not rows:
        return Volumes(why_none="there are none in the runs that were looked at")
    so_far = ""
    for key in sorted(what, key=_place):
        fitting = [row for row in rows if fits(row, {key: what[key]})]
        if not fitting:
            there = _distinct(getattr(row, key) for row in rows)
            why = f"{key} {what[key]!r} is not there{so_far}; available: {listed(there)}"
            return Volumes(why_none=why, available={key: there})
        rows = fitting
        so_far += f"{',' if so_far else ' for'} {key} {what[key]!r}"
    which = f"{counted(len(rows), 'volume')} would fit, marked as not good"
    return Volumes(why_none=f"{which}; include_bad=True gives {'it' if len(rows) == 1 else 'them'}")


def fits(row: VolumeRow, what: Mapping[str, Any]) -> bool:
    """Whether a volume is what is asked for, in plain values."""
    return all(getattr(row, key) == value for key, value in what.items())


def _place(key: str) -> tuple[int, str]:
    return (_ASKED_IN_ORDER.index(key) if key in _ASKED_IN_ORDER else len(_ASKED_IN_ORDER), key)


def _distinct(values: Iterable[Any]) -> list[Any]:
    distinct = list({repr(value): value for value in values if value is not None}.values())
    with contextlib.suppress(TypeError):  # a position may be anything
        distinct.sort()
    return distinct
