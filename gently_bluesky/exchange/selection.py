"""`select`: what is to be exported, of one run or by what volumes show.

Knows runs and what they say of themselves; reads no pixel and writes nothing. What is named must be there: one
timepoint or view of those that were asked for that is missing is an error, which says what there is.
"""

import logging
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from gently_bluesky.errors import ExportError, FrameMissingError, NothingSelectedError
from gently_bluesky.read.answers import said
from gently_bluesky.read.assets import Pixels
from gently_bluesky.read.catalog import Catalog
from gently_bluesky.read.images import ImageSeries
from gently_bluesky.read.parentage import is_derived
from gently_bluesky.read.run import Run
from gently_bluesky.read.stream import Stream
from gently_bluesky.read.volumes import fits, no_volumes
from gently_bluesky.read.words import listed
from gently_bluesky.store.index import VolumeRow, shown_by
from gently_bluesky.store.streams import Doc, measured_at

log = logging.getLogger(__name__)

_OF_IMAGES = {"view", "data_key"}
"""What is asked of the images of an event; all else is asked of the event."""

_OF_EMBRYO = {"timepoint", "view", "channel"}
"""What must be there for each embryo of a session, if it was asked for."""

_MOST_TIMEPOINTS = 1_000_000


@dataclass(frozen=True, slots=True)
class Selected:
    """One event of a selection or, if `shows` has a data key, one volume of it.

    Attributes
    ----------
    run, stream
        Where it is.
    event
        Its position on the event axis.
    shows
        What it shows; its time is when that was measured, also where it was derived afterwards.
    """

    run: Run
    stream: Stream
    event: int
    shows: VolumeRow

    def __str__(self) -> str:
        names = ("embryo", "timepoint", "view", "channel")
        known = [f"{name} {value!r}" for name in names if (value := getattr(self.shows, name)) is not None]
        where = f"run {self.run.uid[:8]}, {self.stream.name}, seq_num {self.shows.seq_num}, {self.shows.data_key}"
        return f"{', '.join(known)} ({where})" if known else where

    @property
    def images(self) -> ImageSeries:
        """The series that the volume is part of."""
        return self.stream.images(self.shows.data_key)

    def pixels(self) -> Pixels:
        """Give the pixels of the volume, mapped, or decoded when asked for; of a bad one only if it is whole.

        Raises
        ------
        VolumeMissingError, DamagedVolumeError, UnfillableError
            The file is gone or was cut short, or nobody here can read it.
        FrameMissingError
            The volume was interrupted.
        """
        images = self.images
        if self.shows.good:
            return images.lazy(self.event)
        there = images.frames_there(self.event)
        if not there.all():
            missing = listed(np.flatnonzero(~there.ravel()).tolist())
            raise FrameMissingError(f"{self}: frames {missing} never came; there is no whole volume to export.")
        return images.lazy(self.event, include_bad=True)


@dataclass(frozen=True, slots=True)
class Selection:
    """What is to be exported.

    Attributes
    ----------
    events
        By run, stream and seq_num; those that are marked as not good, too.
    volumes
        By session, embryo, timepoint, view and data key.
    bad
        Volumes that were left out because they are marked as not good.
    asked
        What was named, by field; all of it is there.
    why_none
        A sentence, if there are no volumes.
    """

    events: tuple[Selected, ...]
    volumes: tuple[Selected, ...]
    bad: tuple[Selected, ...] = ()
    asked: Mapping[str, frozenset[Any]] = field(default_factory=dict)
    why_none: str = ""

    @property
    def runs(self) -> list[Run]:
        """The runs that something was selected of."""
        return list({event.run.uid: event.run for event in self.events}.values())


def select(
    source: Catalog | Run,
    *,
    session: str | Iterable[str] | None = None,
    embryo: str | Iterable[str] | None = None,
    timepoint: int | Iterable[int] | None = None,
    view: str | Iterable[str] | None = None,
    channel: str | Iterable[str] | None = None,
    stream: str | Iterable[str] | None = None,
    data_key: str | Iterable[str] | None = None,
    include_bad: bool = False,
    derived: bool | None = False,
) -> Selection:
    """Select events and volumes, of one run or of all that a catalog has.

    Parameters
    ----------
    source
        A run, all of which is selected if nothing else is said; or a catalog.
    session, embryo, timepoint, view, channel, stream, data_key
        What a volume must be: one value, or several of which it must be one.
    include_bad
        Take volumes of events that are marked as not good, too, as far as they are whole.
    derived
        Of a catalog, as `Catalog.volumes` has it. False: what devices gave; True: what was derived from it;
        None: both. A run that is given is taken, whatever it is.

    Raises
    ------
    NothingSelectedError
        There is nothing like that, or not every value that was named is there, for each embryo of a session.
    """
    named = {
        "session": session,
        "embryo": embryo,
        "timepoint": timepoint,
        "view": view,
        "channel": channel,
        "stream": stream,
        "data_key": data_key,
    }
    asked = {name: _values(value) for name, value in named.items() if value is not None}
    runs = [source] if isinstance(source, Run) else _runs(source, asked, derived)
    found = [pair for run in runs for pair in _of_run(run)]
    events, volumes = [event for event, _ in found], [volume for _, each in found for volume in each]
    fitting = [volume for volume in volumes if fits(volume.shows, asked)]
    taken = [volume for volume in fitting if volume.shows.good or include_bad]
    chosen = _events_of(events, fitting, asked)
    why_none = "" if taken else no_volumes([volume.shows for volume in volumes], asked).why_none
    if not chosen:
        raise NothingSelectedError(
            f"Nothing is selected: {_why_no_run(source, runs, asked, derived) or why_none}."
        )
    if taken:
        _hold_all_there(taken, volumes, asked)
    else:
        of_events = {name: values for name, values in asked.items() if name not in _OF_IMAGES}
        _hold_all_there(chosen, events, of_events)
    bad = () if include_bad else tuple(volume for volume in fitting if not volume.shows.good)
    selection = Selection(tuple(chosen), tuple(sorted(taken, key=_order)), bad, asked, why_none)
    for run in selection.runs:
        if run.is_open:
            log.warning("run %s has no stop document: what came of it so far is taken", run.uid[:8])
    return selection


def timepoints(text: str) -> list[int]:
    """Read timepoints as people write them; both ends of a range count.

    Raises
    ------
    ExportError
        It is not written like that.

    Examples
    --------
    >>> timepoints("0-3,12")
    [0, 1, 2, 3, 12]
    """
    numbers: list[int] = []
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        if not (first.isdecimal() and (last.isdecimal() or not dash)):
            raise ExportError(f"{text!r} are no timepoints; write them like 0-9,12.")
        wanted = range(int(first), int(last or first) + 1)
        if not 0 < len(wanted) + len(numbers) <= _MOST_TIMEPOINTS or not wanted:
            raise ExportError(f"{part.strip()!r} is no range of timepoints, from the first to the last of them.")
        numbers += wanted
    return numbers


def _values(value: Any) -> frozenset[Any]:
    return frozenset([value] if isinstance(value, str | int | np.integer) else value)


def _runs(catalog: Catalog, asked: Mapping[str, frozenset[Any]], derived: bool | None) -> list[Run]:
    one = {name: next(iter(asked[name])) for name in ("session", "embryo") if len(asked.get(name, ())) == 1}
    return [run for run in catalog.search(**one)[::-1] if derived in {None, is_derived(run.start)}]


def _of_run(run: Run) -> Iterator[tuple[Selected, list[Selected]]]:
    """Give each event with its volumes."""
    for name in run:
        stream = run[name]
        images = {key: entry for key, entry in stream.data_keys.items() if _holds_images(entry)}
        for position, row in enumerate(stream.rows):
            shows = VolumeRow(name, row.seq_num, "", measured_at(row), **shown_by(row, run.start))
            there = [key for key in images if key in row.volumes or key in row.data]
            volumes = [replace(shows, data_key=key, view=images[key].get("view")) for key in there]
            event = Selected(run, stream, position, shows)
            yield event, [replace(event, shows=volume) for volume in volumes]


def _holds_images(entry: Doc) -> bool:
    return bool(entry.get("external")) or (entry.get("dtype") == "array" and len(entry.get("shape") or ()) > 1)


def _events_of(
    events: Sequence[Selected], fitting: Sequence[Selected], asked: Mapping[str, frozenset[Any]]
) -> list[Selected]:
    if asked.keys() & _OF_IMAGES:
        there = {(volume.run.uid, volume.stream.name, volume.event) for volume in fitting}
        return [event for event in events if (event.run.uid, event.stream.name, event.event) in there]
    return [event for event in events if fits(event.shows, asked)]


def _why_no_run(
    source: Catalog | Run, runs: Sequence[Run], asked: Mapping[str, frozenset[Any]], derived: bool | None
) -> str:
    if isinstance(source, Run) or runs:
        return ""
    there = source.volumes(include_bad=True, derived=derived)
    return no_volumes([volume.row for volume in there], asked).why_none


def _hold_all_there(
    taken: Sequence[Selected], among: Sequence[Selected], asked: Mapping[str, frozenset[Any]]
) -> None:
    """Refuse a selection in which something is missing that was named, of any embryo of a session."""
    groups: defaultdict[str, list[VolumeRow]] = defaultdict(list)
    for each in taken:
        groups[""].append(each.shows)
        groups[f"{each.shows.session!r} {each.shows.embryo!r}"].append(each.shows)
    for group, shown in groups.items():
        of_group = {"session": shown[0].session, "embryo": shown[0].embryo} if group else {}
        known = {key: value for key, value in of_group.items() if value is not None}
        for name, values in asked.items():
            there = [getattr(row, name) for row in shown]
            missing = frozenset(value for value in values if value not in there)
            if missing and bool(group) == (name in _OF_EMBRYO):
                why = no_volumes([each.shows for each in among], {**asked, **known, name: missing}).why_none
                raise NothingSelectedError(
                    f"Not all is there that was asked for, not {name} {said(missing)}: {why}."
                )


def _order(volume: Selected) -> tuple[Any, ...]:
    row = volume.shows
    where = [str(getattr(row, name) or "") for name in ("session", "embryo")]
    timepoint = row.timepoint if type(row.timepoint) is int else -1
    return (*where, timepoint, str(row.view or ""), row.data_key, row.time or 0.0, row.seq_num)
