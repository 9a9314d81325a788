"""Tools about embryos: which there are, which timepoints and volumes of one, and which files are missing."""

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gently_bluesky.errors import GentlyError
from gently_bluesky.read.catalog import Catalog
from gently_bluesky.read.volumes import Volume, Volumes
from gently_bluesky.read.words import listed
from gently_bluesky.serve.agent.answering import (
    Facts,
    brief,
    limited,
    megabytes,
    moment,
    table,
    without_none,
)
from gently_bluesky.serve.agent.asking import (
    Opened,
    at_timepoint,
    newest_session,
    session_of,
    timepoints_of,
    volumes_of,
)
from gently_bluesky.store.manifest import ManifestEntry
from gently_bluesky.store.removed import Removed

_MOST_FILES = 20


def list_embryos(catalog: Catalog, session: str | None = None) -> Facts:
    """List the embryos of a session: timepoints, gaps, volumes, views and channels of each.

    Parameters
    ----------
    session
        Its name or the beginning of it; the newest session, if not given.
    """
    name = newest_session(catalog) if session is None else session_of(catalog, session)
    by_embryo: defaultdict[str, list[Volume]] = defaultdict(list)
    for volume in catalog.volumes(session=name, include_bad=True):
        if volume.row.embryo is not None:
            by_embryo[str(volume.row.embryo)].append(volume)
    rows = [[embryo, *_extent(volumes)] for embryo, volumes in sorted(by_embryo.items())]
    others = [each.name for each in catalog.sessions() if each.name != name]
    columns = ["embryo", "timepoints", "missing", "volumes", "not_good", "views", "channels", "newest"]
    return without_none(
        session=name, embryos=table(columns, rows), other_sessions=brief(others) if others else None
    )


def _extent(volumes: Sequence[Volume]) -> list[Any]:
    there = timepoints_of(volumes)
    return [
        listed(there),
        listed(gaps(there)),
        len(volumes),
        sum(not v.row.good for v in volumes),
        _distinct(v.row.view or v.row.data_key for v in volumes),
        _distinct(v.row.channel for v in volumes),
        moment(volumes[0].row.time),
    ]


def gaps(timepoints: Sequence[int]) -> list[int]:
    """Give the timepoints between the first and the last that are missing.

    >>> gaps([2, 3, 6])
    [4, 5]
    """
    return sorted(set(range(timepoints[0], timepoints[-1])) - set(timepoints)) if timepoints else []


def _distinct(values: Iterable[Any]) -> str:
    return ", ".join(sorted({str(value) for value in values if value is not None}))


def get_timepoints(
    catalog: Catalog,
    embryo_id: str,
    session: str | None = None,
    view: str | None = None,
    channel: str | None = None,
) -> Facts:
    """Say which timepoints of an embryo there are, which are missing in between, and which are not good.

    Parameters
    ----------
    embryo_id
        The embryo.
    session
        Its name or the beginning of it; the newest session with such an embryo, if not given.
    view, channel
        Only of this view (or data key), or of this laser preset.
    """
    found = volumes_of(catalog, embryo_id, session=session, view=view, channel=channel, include_bad=True)
    there, good = timepoints_of(found), timepoints_of([v for v in found if v.row.good])
    return whose(catalog, found) | {
        "count": len(there),
        "timepoints": listed(there),
        "first": there[0] if there else None,
        "last": there[-1] if there else None,
        "missing_between": listed(gaps(there)),
        "only_not_good": listed(sorted(set(there) - set(good))),
        "next": there[-1] + 1 if there else 0,
        "without_timepoint": sum(v.row.timepoint is None for v in found),
    }


def whose(catalog: Catalog, found: Volumes) -> Facts:
    """Say whose volumes they are, and in which other sessions there is an embryo of this name."""
    row = found[0].row
    others = [s.name for s in catalog.sessions() if str(row.embryo) in s.embryos and s.name != row.session]
    return without_none(embryo=row.embryo, session=row.session, also_in_sessions=brief(others) if others else None)


def list_volumes(
    catalog: Catalog,
    embryo_id: str,
    session: str | None = None,
    view: str | None = None,
    channel: str | None = None,
    timepoint: int | None = None,
    limit: int = 20,
    skip: int = 0,
) -> Facts:
    """List volumes of an embryo, newest first: how many, which timepoints, MB each, and files that are missing.

    Parameters
    ----------
    embryo_id
        The embryo.
    session
        Its name or the beginning of it; the newest session with such an embryo, if not given.
    view, channel, timepoint
        Only of this view (or data key), laser preset, timepoint (-1 is the last).
    limit, skip
        At most so many rows, up to 200, after so many.
    """
    found = volumes_of(catalog, embryo_id, session=session, view=view, channel=channel, include_bad=True)
    if timepoint is not None:
        found = at_timepoint(found, timepoint)
    limited(limit)
    if skip < 0:
        raise ValueError(f"skip is {skip}; it must be 0 or more.")
    stored = _Stored(catalog)
    there = timepoints_of(found)
    sizes = [size for volume in found if (size := stored.nbytes(volume)) is not None]
    missing = [f"{_named(volume)}: {why}" for volume in found if (why := stored.missing(volume))]
    columns = ["timepoint", "view", "channel", "MB", "time", "good", "run", "seq_num", "data_key", "file"]
    rows = [
        [v.row.timepoint, v.row.view, v.row.channel, _mb(stored.nbytes(v)), moment(v.row.time), v.row.good,
         v.run_uid[:8], v.row.seq_num, v.row.data_key, stored.file(v)]
        for v in found[skip : skip + limit]
    ]  # fmt: skip
    facts = whose(catalog, found) | {
        "count": len(found),
        "timepoints": listed(there),
        "missing_between": listed(gaps(there)),
        "MB_total": megabytes(sum(sizes)),
        "MB_each": f"{megabytes(min(sizes))}..{megabytes(max(sizes))}" if sizes else "not known",
        "missing_files": missing[:_MOST_FILES] or "none",
        "volumes": table(columns, rows),
    }
    if len(missing) > _MOST_FILES:
        facts["more_missing"] = len(missing) - _MOST_FILES
    if skip + limit < len(found):
        facts["more"] = f"{len(found) - skip - limit} more: skip={skip + limit}"
    return facts


def _named(volume: Volume) -> str:
    row = volume.row
    return f"timepoint {row.timepoint}, {row.data_key}, run {volume.run_uid[:8]} seq_num {row.seq_num}"


def _mb(nbytes: int | None) -> float | None:
    return None if nbytes is None else megabytes(nbytes)


@dataclass(slots=True)
class _Stored:
    """Where volumes are stored, as the manifests say and files confirm; each manifest is read once."""

    catalog: Catalog
    _entries: dict[str, dict[tuple[str, int | None], ManifestEntry]] = field(default_factory=dict)
    _opened: Opened = field(init=False)

    def __post_init__(self) -> None:
        self._opened = Opened(self.catalog)

    def _entry(self, volume: Volume) -> ManifestEntry | None:
        if volume.run_uid not in self._entries:
            entries = self._opened.place(volume).run.manifest
            # of several forms of a volume, one that is there
            entries.sort(key=lambda entry: entry.state != "removed")
            self._entries[volume.run_uid] = {(entry.resource, entry.index): entry for entry in entries}
        return self._entries[volume.run_uid].get((volume.row.resource or "", volume.row.index))

    def nbytes(self, volume: Volume) -> int | None:
        """Give the bytes of its pixels; None for one that is not in a file of ours."""
        if (entry := self._entry(volume)) is not None:
            return entry.bytes
        place = self._opened.place(volume)
        try:
            return math.prod(place.shape) * place.images.dtype.itemsize
        except (GentlyError, OSError, ValueError):
            return None

    def missing(self, volume: Volume) -> str:
        """Say why its file is not there; "" if it is."""
        entry = self._entry(volume)
        if entry is None:
            place = self._opened.place(volume)
            try:
                path = Path(place.images.source(place.event).path)
            except (GentlyError, OSError) as error:
                return str(error)
            return "" if path.exists() else f"there is no file {path}"
        path = self._opened.place(volume).run.folder / entry.path
        if path.exists():
            return "" if entry.state == "sealed" else f"{entry.state}: {entry.details.get('reason', entry.path)}"
        return str(Removed.of(entry) or f"there is no file {entry.path}")

    def file(self, volume: Volume) -> str:
        """Say which file it is in."""
        return self._opened.place(volume).file()
