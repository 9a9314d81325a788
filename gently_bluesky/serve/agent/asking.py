"""From what an agent asks for to runs, events and volumes: by embryo and timepoint, or by run and detector.

What is left out is chosen, and the answer says how; what is not there is an error that says what is.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from gently_bluesky.errors import AmbiguousRunError, RunNotFoundError
from gently_bluesky.read.catalog import Catalog
from gently_bluesky.read.run import Run, Stream
from gently_bluesky.read.volumes import Volume, Volumes
from gently_bluesky.read.words import listed
from gently_bluesky.serve.agent.answering import NotThereError
from gently_bluesky.serve.agent.place import Place

RunId = str | int
"""-1 is the newest run, as text or number; a number that is not negative is a scan_id; or a uid, or its beginning.

Text of eight digits or more is the beginning of a uid, if one begins so; else it is a scan_id, too.
"""


def run_of(catalog: Catalog, run_id: RunId) -> Run:
    """Give the run that is asked for; RunNotFoundError if there is none."""
    if isinstance(run_id, int):
        return catalog[run_id]
    text = run_id.strip()
    try:
        number = int(text)
    except ValueError:
        return catalog[text]
    if len(text) >= 8:
        try:
            return catalog[text]
        except AmbiguousRunError:
            raise
        except RunNotFoundError:
            pass
    return catalog[number]


def session_of(catalog: Catalog, asked: str) -> str:
    """Give a session by its name, the name that an imported one had, or the beginning of either."""
    names = {session.name: {session.name} for session in catalog.sessions()}
    if asked in names:
        return asked
    for run in catalog.search():
        if (session := run.start.get("session")) in names:
            names[session].add(str(run.start.get("session_name") or session))
    exact = [name for name, known in names.items() if asked in known]
    found = exact or [
        name for name, known in names.items() if asked and any(each.startswith(asked) for each in known)
    ]
    if len(found) != 1:
        what = f"{len(found)} sessions begin with" if found else "There is no session"
        there = [" or ".join(sorted(names[name])) for name in found or names]
        raise NotThereError(f"{what} {asked!r}; available: {listed(there)}.")
    return found[0]


def newest_session(catalog: Catalog) -> str:
    """Give the newest session; NotThereError if no run says one."""
    sessions = catalog.sessions()
    if not sessions:
        raise NotThereError(f"No run under {catalog.root} says a session; list_runs() gives the runs.")
    return sessions[0].name


@dataclass(slots=True)
class Opened:
    """Runs and streams that one answer needs, each read once."""

    catalog: Catalog
    _runs: dict[str, Run] = field(default_factory=dict)
    _streams: dict[tuple[str, str], tuple[Stream, dict[int, int]]] = field(default_factory=dict)

    def place(self, volume: Volume) -> Place:
        """Give the place of a volume that the catalog found."""
        uid, row = volume.run_uid, volume.row
        run = self._runs.get(uid) or self._runs.setdefault(uid, self.catalog[uid])
        if (uid, row.stream) not in self._streams:
            stream = run[row.stream]
            self._streams[uid, row.stream] = stream, {each.seq_num: i for i, each in enumerate(stream.rows)}
        stream, positions = self._streams[uid, row.stream]
        return Place(run, stream, stream.images(row.data_key), positions[row.seq_num])


def volumes_of(
    catalog: Catalog,
    embryo_id: str,
    *,
    session: str | None = None,
    view: str | None = None,
    channel: str | None = None,
    include_bad: bool = False,
) -> Volumes:
    """Give volumes of an embryo, newest first; of the newest session that has such an embryo, if none is named.

    Parameters
    ----------
    view
        A view, or a data key.

    Raises
    ------
    NotThereError
        There is none; the message says what there is.
    """
    what: dict[str, Any] = {"embryo": embryo_id}
    if session is not None:
        what["session"] = session_of(catalog, session)
    found = _or_what_there_is(catalog.volumes(include_bad=True, **what))
    what["session"] = found[0].row.session
    if channel is not None:
        what["channel"] = channel
    if view is not None:
        named = {volume.row.view for volume in found if volume.row.session == what["session"]}
        what["view" if view in named or named - {None} else "data_key"] = view
    return _or_what_there_is(catalog.volumes(include_bad=include_bad, **what))


def _or_what_there_is(found: Volumes) -> Volumes:
    if not found:
        raise NotThereError(f"No such volume: {found.why_none}.")
    return found


def timepoints_of(volumes: Sequence[Volume]) -> list[int]:
    """Give the timepoints of volumes, in order."""
    return sorted({v.row.timepoint for v in volumes if type(v.row.timepoint) is int})


def volume_of(
    catalog: Catalog,
    embryo_id: str,
    timepoint: int | None = None,
    *,
    session: str | None = None,
    view: str | None = None,
    channel: str | None = None,
    include_bad: bool = False,
) -> Place:
    """Give one volume of an embryo: the newest, or that of a timepoint; -1 is the last timepoint.

    Of several views and channels, the first that was taken, if none is asked for. A place that is good says it, if
    it would be a newer one that is not good with `include_bad`.

    Raises
    ------
    NotThereError
        There is none; the message says which timepoints there are.
    """

    def chosen(*, include_bad: bool) -> Volume:
        found = volumes_of(
            catalog, embryo_id, session=session, view=view, channel=channel, include_bad=include_bad
        )
        return preferred(found if timepoint is None else at_timepoint(found, timepoint))

    volume = chosen(include_bad=include_bad)
    place = Opened(catalog).place(volume)
    newest = volume if include_bad else chosen(include_bad=True)
    if newest.row.good or newest == volume:
        return place
    where = f"timepoint {newest.row.timepoint}, run {newest.run_uid[:8]}, seq_num {newest.row.seq_num}"
    return replace(place, newer_not_good=f"{where}: get_volume, get_plane, ... with include_bad=true")


def preferred(volumes: Sequence[Volume]) -> Volume:
    """Give the newest volume; of several views and channels of its timepoint, the one that was taken first."""
    newest, by_channel = volumes[0], dict[str | None, Volume]()
    for volume in volumes:
        if (volume.run_uid, volume.row.timepoint) == (newest.run_uid, newest.row.timepoint):
            by_channel.setdefault(volume.row.channel, volume)
    return min(by_channel.values(), key=lambda volume: volume.row.time or 0.0)


def at_timepoint(volumes: Volumes, timepoint: int) -> Volumes:
    """Give those of one timepoint, the newest first; NotThereError says which there are."""
    there = timepoints_of(volumes)
    wanted = there[timepoint] if timepoint < 0 and -timepoint <= len(there) else timepoint
    found = Volumes(volume for volume in volumes if volume.row.timepoint == wanted)
    if not found:
        embryo = volumes[0].row.embryo
        raise NotThereError(
            f"Embryo {embryo!r} has no volume of timepoint {timepoint}; available: [{listed(there)}]."
        )
    return found


def place_in(
    run: Run, detector: str | None = None, *, stream: str | None = None, seq_num: int | None = None
) -> Place:
    """Give an image of a run: of a data key, a device or a camera's label; of its newest event, if none is named.

    Raises
    ------
    NotThereError
        The run has no such images; the message names those that it has.
    """
    keys = [(run[name], key) for name in sorted(run, key="primary".__ne__) for key in run[name].image_keys]
    keys = [(each, key) for each, key in keys if stream is None or each.name == stream]
    if detector is not None:
        named = [(each, key) for each, key in keys if key == detector]
        keys_named = named or [(each, key) for each, key in keys if detector in _names(each, key)]
    else:
        keys_named = keys
    if not keys_named:
        there = ", ".join(f"{key!r} in stream {each.name!r}" for each, key in keys) or "none"
        asked = "no images" if detector is None else f"no images of {detector!r}"
        where = "" if stream is None else f" in stream {stream!r}"
        raise NotThereError(f"Run {run.uid} has {asked}{where}; it has {there}.")
    found, key = next(((each, key) for each, key in keys_named if len(each)), keys_named[0])
    return Place(run, found, found.images(key), position_of(found, seq_num, key))


def _names(stream: Stream, key: str) -> set[str]:
    entry = stream.data_keys[key]
    label = str(entry.get("source", "")).rpartition(":")[2]
    return {str(entry.get("object_name")), label, str(entry.get("source")), f"{entry.get('view')}"}


def position_of(stream: Stream, seq_num: int | None, key: str | None = None) -> int:
    """Give the position of an event; None or -1: of the newest, with images of a data key if one is named.

    Raises
    ------
    NotThereError
        There is no such event.
    """
    rows = stream.rows
    there = [i for i, row in enumerate(rows) if key is None or key in row.volumes or key in row.data]
    if seq_num is None or seq_num < 0:
        back = 1 if seq_num is None else -seq_num
        if back <= len(there):
            return there[-back]
    else:
        for i in there:
            if rows[i].seq_num == seq_num:
                return i
    asked = "newest event" if seq_num is None else f"event with seq_num {seq_num}"
    seq_nums = listed([rows[i].seq_num for i in there])
    of = "" if key is None else f" with images of {key!r}"
    raise NotThereError(f"Stream {stream.name!r} has no {asked}{of}; available seq_nums: [{seq_nums}].")
