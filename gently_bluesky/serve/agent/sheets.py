"""Tools that show sheets: an embryo over time, the embryos of a session; and how timepoints are chosen."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gently_bluesky.errors import BadVolumeError, GentlyError
from gently_bluesky.read.catalog import Catalog
from gently_bluesky.read.volumes import Volume
from gently_bluesky.read.words import listed
from gently_bluesky.serve.agent.answering import Facts, NotThereError, Shown, brief, limited, moment
from gently_bluesky.serve.agent.asking import (
    Opened,
    at_timepoint,
    newest_session,
    preferred,
    session_of,
    timepoints_of,
    volumes_of,
)
from gently_bluesky.serve.agent.place import Place
from gently_bluesky.serve.agent.rendering import (
    SIZE,
    check_size,
    counts_in,
    enlarged,
    of_view,
    pixel_um,
    plane_of,
    projections_of,
    shown_of,
    unscaled,
)
from gently_bluesky.serve.pictures.colour import coloured
from gently_bluesky.serve.pictures.layout import Tile, tiled
from gently_bluesky.serve.pictures.scaling import area_mean
from gently_bluesky.serve.pictures.window import Window, as_bytes, window_of

_WHOLE_BYTES = 2 << 30
"""So much is read for a contact sheet of projections; above it, one plane of each volume is shown."""

_MOST_TILES = 64

Key = int | str
"""A timepoint, or an embryo."""


def get_contact_sheet(
    catalog: Catalog,
    embryo_id: str,
    first: int | None = None,
    last: int | None = None,
    count: int = 12,
    plane: int | None = None,
    view: str | None = None,
    channel: str | None = None,
    session: str | None = None,
    size: int = SIZE,
    window: str = "auto",
    cmap: str = "gray",
) -> Shown:
    """Show an embryo over time: a picture a timepoint, all in one window, so that they can be compared.

    Maximum projections along z; one plane of each instead, where that would read more than 2 GB.

    Parameters
    ----------
    embryo_id
        The embryo.
    first, last
        Timepoints, both included; all, if not given.
    count
        At most so many timepoints, evenly chosen, 1 to 64; those that are missing among them are empty frames.
    plane
        Along z, from 0: this plane of each volume instead of its projection.
    view, channel
        The view (or data key) and the laser preset; the first, if not given.
    session
        Its name or the beginning of it; the newest session with such an embryo, if not given.
    size, window, cmap
        As in get_run_image.
    """
    check_size(size)
    found = volumes_of(catalog, embryo_id, session=session, view=view, channel=channel, include_bad=True)
    chosen = chosen_timepoints(
        timepoints_of(found), first, last, limited(count, _MOST_TILES, name="count"), embryo_id
    )
    newest = newest_of_each(found)
    frames = _gather(catalog, {t: newest[t] for t in chosen if t in newest}, plane, size)
    sample, drawn = frames.sample, next(iter(frames.pictures.values()))
    shown = window_of(np.concatenate([pixels.ravel() for pixels in frames.pictures.values()]), window)
    title = ", ".join([str(embryo_id), f"timepoints {listed(chosen)}", *of_view(sample)])
    words = (
        f"{frames.what}; run {sample.run.uid[:8]}, {sample.images.data_key}; {counts_in(shown)}{unscaled(sample)}"
    )
    sheet = tiled(
        [frames.tile(t, f"t{t}{frames.since(t)}", shown, cmap) for t in chosen],
        size=size,
        pixel_um=enlarged(pixel_um(sample), frames.shape, drawn),
        captions=[title, words],
    )
    facts: Facts = {
        "embryo": embryo_id,
        "session": found[0].row.session,
        "shows": frames.what,
        "timepoints": listed(chosen),
        "of": listed(timepoints_of(found)),
        "volumes": [{"timepoint": t} | frames.fact(t) for t in chosen],
        "more": "first=, last=, count= choose other timepoints; get_projection shows one of them larger",
    }
    return shown_of(sheet, facts, None, shown)


def compare_embryos(
    catalog: Catalog,
    session: str | None = None,
    timepoint: int | None = None,
    plane: int | None = None,
    view: str | None = None,
    channel: str | None = None,
    size: int = SIZE,
    window: str = "auto",
    cmap: str = "gray",
) -> Shown:
    """Show the embryos of a session side by side, all in one window: the newest volume of each, or one timepoint.

    Parameters
    ----------
    session
        Its name or the beginning of it; the newest session, if not given.
    timepoint
        From 0; -1 is the last of each embryo; the newest volumes, if not given.
    plane
        Along z, from 0: this plane of each volume instead of its projection.
    view, channel
        The view (or data key) and the laser preset; the first, if not given.
    size, window, cmap
        As in get_run_image.
    """
    check_size(size)
    name = newest_session(catalog) if session is None else session_of(catalog, session)
    embryos = next(each.embryos for each in catalog.sessions() if each.name == name)
    if len(embryos) > _MOST_TILES:
        raise ValueError(f"{len(embryos)} embryos do not fit on a sheet; get_plane shows each.")
    volumes: dict[str, Volume] = {}
    why: dict[Key, str] = {}
    for embryo in embryos:
        try:
            found = volumes_of(catalog, embryo, session=name, view=view, channel=channel)
            volumes[embryo] = preferred(found if timepoint is None else at_timepoint(found, timepoint))
        except NotThereError as error:
            why[embryo] = f"missing: {error}"
    if not volumes:
        raise NotThereError(f"No embryo of session {name!r} has such a volume: {why or 'there are no embryos'}.")
    frames = _gather(catalog, volumes, plane, size)
    frames.why |= why
    sample, drawn = frames.sample, next(iter(frames.pictures.values()))
    shown = window_of(np.concatenate([pixels.ravel() for pixels in frames.pictures.values()]), window)
    labels = {embryo: f"{embryo}  t{volume.row.timepoint}" for embryo, volume in volumes.items()}
    sheet = tiled(
        [frames.tile(embryo, labels.get(embryo, embryo), shown, cmap) for embryo in embryos],
        size=size,
        pixel_um=enlarged(pixel_um(sample), frames.shape, drawn),
        captions=[
            ", ".join([str(name), *of_view(sample)]),
            f"{frames.what}; {counts_in(shown)}{unscaled(sample)}",
        ],
    )
    facts: Facts = {
        "session": name,
        "shows": frames.what,
        "volumes": [{"embryo": embryo} | frames.fact(embryo) for embryo in embryos],
        "more": "get_contact_sheet shows one embryo over time, get_projection one volume larger",
    }
    return shown_of(sheet, facts, None, shown)


@dataclass(slots=True)
class _Frames:
    """What is shown of each volume of a sheet, and why there is nothing to be shown of some."""

    sample: Place
    what: str
    places: Mapping[Key, Place]
    shape: tuple[int, int] = (1, 1)
    pictures: dict[Key, NDArray[Any]] = field(default_factory=dict)
    counts: dict[Key, Facts] = field(default_factory=dict)
    why: dict[Key, str] = field(default_factory=dict)

    def add(self, key: Key, pixels: NDArray[Any], size: int) -> None:
        """Take the pixels of a volume; of the shape of those that came before."""
        if self.pictures and pixels.shape != self.shape:
            self.why[key] = f"another shape: {pixels.shape}, not {self.shape}"
            return
        self.shape = pixels.shape[0], pixels.shape[1]
        self.pictures[key] = area_mean(pixels, size)
        self.counts[key] = {"max": brief(pixels.max()), "mean": brief(pixels.mean(dtype=float))}

    def tile(self, key: Key, label: str, window: Window, cmap: str) -> Tile:
        """Draw one; an empty frame that says why, where there is nothing to be shown."""
        if key not in self.pictures:
            return Tile(None, f"{label} {self.why.get(key, 'missing').partition(':')[0]}")
        return Tile(coloured(as_bytes(self.pictures[key], window), cmap), label)

    def since(self, key: Key) -> str:
        """Say how long after the first of them it was taken."""
        begun = min(place.row.time or math.inf for place in self.places.values())
        time = self.places[key].row.time if key in self.pictures else None
        return "" if time is None or math.isinf(begun) else f"  +{_hours(time - begun)}"

    def fact(self, key: Key) -> Facts:
        """Say where it is and what is in it."""
        facts: Facts = {}
        if (place := self.places.get(key)) is not None:
            facts |= {"time": moment(place.row.time), "run": place.run.uid[:8], "seq_num": place.row.seq_num}
            facts |= {"data_key": place.images.data_key, "file": place.file()}
        if key not in self.pictures:
            facts["not_shown"] = self.why.get(key, "missing")
        return facts | self.counts.get(key, {})


def _gather(catalog: Catalog, volumes: Mapping[Any, Volume], plane: int | None, size: int) -> _Frames:
    if not volumes:
        raise NotThereError("Of these timepoints there is no volume of this view; get_timepoints says which.")
    opened = Opened(catalog)
    places = {key: opened.place(volume) for key, volume in volumes.items()}
    sample = next(iter(places.values()))
    nbytes = math.prod(sample.shape) * sample.images.dtype.itemsize * len(places)
    whole = plane is None and len(sample.shape) == 3
    cut = whole and nbytes > _WHOLE_BYTES
    frames = _Frames(sample, f"maximum along z of {sample.shape[0]} planes" if whole else "", places)
    for key, place in places.items():
        try:
            if whole and not cut:
                pixels = projections_of(place, "z")["z"]
            else:
                pixels, frames.what = plane_of(place, plane)
        except NotThereError:
            raise
        except BadVolumeError as error:
            frames.why[key] = f"not good: {error}"
        except (GentlyError, OSError) as error:
            frames.why[key] = f"gone: {error}"
        else:
            frames.add(key, pixels, size)
    if not frames.pictures:
        raise NotThereError(f"Nothing can be shown: {listed(list(frames.why.values()))}.")
    if cut:
        frames.what += " (projections of so many would read too much)"
    return frames


def chosen_timepoints(there: list[int], first: int | None, last: int | None, count: int, embryo: str) -> list[int]:
    """Give at most so many timepoints of a span, also missing ones if there is room for all of it.

    Raises
    ------
    NotThereError
        There is none in that span; the message says which there are.
    """
    if not there:
        raise NotThereError(
            f"The volumes of {embryo!r} say no timepoint; get_run_image shows them by run and event."
        )
    low, high = there[0] if first is None else first, there[-1] if last is None else last
    if low < 0 or high < low or not any(low <= t <= high for t in there):
        raise NotThereError(f"{embryo!r} has no timepoint from {low} to {high}; available: [{listed(there)}].")
    span = range(max(low, there[0]), min(high, there[-1]) + 1)
    if len(span) <= count:
        return list(span)
    inside = [t for t in there if t in span]
    picks = np.linspace(0, len(inside) - 1, min(count, len(inside))).round().astype(int)
    return [inside[i] for i in dict.fromkeys(picks.tolist())]


def newest_of_each(found: list[Volume]) -> dict[int, Volume]:
    """Give the newest volume of each timepoint, in the view and channel of `preferred`, good ones first."""
    first = preferred(found).row
    like = first.data_key, first.channel
    newest: dict[int, Volume] = {}
    for volume in sorted(found, key=lambda each: not each.row.good):
        if (volume.row.data_key, volume.row.channel) == like and type(volume.row.timepoint) is int:
            newest.setdefault(volume.row.timepoint, volume)
    return newest


def _hours(seconds: float) -> str:
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02d}:{second:02d}"
