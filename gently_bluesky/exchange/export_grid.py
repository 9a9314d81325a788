"""Volumes of a selection as grids of timepoints and channels, for formats that hold a whole time-lapse.

A grid is one embryo of a session or, where events name no timepoints, one stream of a run, in which the n-th
event of a channel is its n-th timepoint. Views and laser presets together are the channels. A grid has no holes:
nothing stands in for a volume that is not there.
"""

import math
import statistics
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from gently_bluesky.errors import ExportError, GeometryError, NothingSelectedError
from gently_bluesky.exchange.export_names import names_of
from gently_bluesky.exchange.export_pixels import Outgoing, pixels_of
from gently_bluesky.exchange.selection import Selection
from gently_bluesky.read.words import listed
from gently_bluesky.store.index import shown_by

_NAME_THEM = "Name the timepoints that are meant"
_NO_NAMES = "Take volumes that are not good, too, or choose a format with a file a volume"


@dataclass(frozen=True, slots=True)
class Grid:
    """What one file or store is to hold.

    Attributes
    ----------
    name
        Of the file, without its ending.
    timepoints
        As events name them; where they do not, events of each channel are counted, from 0.
    channels
        Names of view and channel.
    cells
        The volumes, by timepoint, then channel.
    """

    name: str
    timepoints: tuple[int, ...]
    channels: tuple[str, ...]
    cells: tuple[tuple[Outgoing, ...], ...]

    @property
    def volumes(self) -> list[Outgoing]:
        """The volumes, timepoint by timepoint."""
        return [pixels for row in self.cells for pixels in row]

    @property
    def shape(self) -> tuple[int, ...]:
        """(t, c, z, y, x)."""
        return (len(self.timepoints), len(self.channels), *self.cells[0][0].shape)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the pixels."""
        return self.cells[0][0].dtype

    @property
    def nbytes(self) -> int:
        """Bytes of all pixels."""
        return sum(pixels.nbytes for pixels in self.volumes)

    @property
    def voxel_size_um(self) -> tuple[float, ...] | None:
        """Spacing along (z, y, x) in micrometer; None if the documents do not say."""
        first = self.cells[0][0].volume
        size = first.images.voxel_size_um_of(first.event)
        if size is None or len(size) < 2 or not all(math.isfinite(spacing) and spacing > 0 for spacing in size):
            return None
        return (1.0, *size)[-3:]

    @property
    def planes(self) -> int:
        """How many planes there are."""
        return math.prod(self.shape[:3])

    @property
    def times(self) -> list[list[float | None]]:
        """When volumes were measured, seconds since the epoch, by timepoint, then channel; None if not known."""
        return [[pixels.volume.shows.time for pixels in row] for row in self.cells]

    @property
    def interval_s(self) -> float | None:
        """Median time from one timepoint to the next; None where there is one, or no times."""
        began = [min((time for time in row if time is not None), default=np.nan) for row in self.times]
        steps = [step for step in np.diff(began).tolist() if step > 0]  # nan is not
        return statistics.median(steps) if steps else None


def grids_of(selection: Selection, *, dtype: DTypeLike | None = None, split_time: bool = False) -> list[Grid]:
    """Sort the volumes of a selection into grids.

    Parameters
    ----------
    selection
        What is to be exported.
    dtype
        That all are to have; as they are, if not given.
    split_time
        Whether each timepoint is a grid of its own.

    Raises
    ------
    NothingSelectedError
        A channel lacks a timepoint that others have, or timepoints are missing between those that there are, and
        none were named.
    ExportError
        Two volumes have one place.
    GeometryError
        Volumes differ in shape, dtype or voxel size.
    """
    groups: defaultdict[tuple[str, str], list[Outgoing]] = defaultdict(list)
    for pixels in pixels_of(selection, dtype):
        groups[_home(pixels)].append(pixels)
    whole = [_grid(group, named="timepoint" in selection.asked) for group in groups.values()]
    parts = [part for grid in whole for part in (_split(grid) if split_time else [grid])]
    names = names_of([[pixels.volume for pixels in part.volumes] for part in parts])
    return [replace(part, name=name) for name, part in zip(names, parts, strict=True)]


def _split(grid: Grid) -> list[Grid]:
    pairs = zip(grid.timepoints, grid.cells, strict=True)
    return [Grid("", (timepoint,), grid.channels, (row,)) for timepoint, row in pairs]


def _home(pixels: Outgoing) -> tuple[str, str]:
    volume = pixels.volume
    if _numbered(pixels):
        return repr(volume.shows.session), repr(volume.shows.embryo)
    return volume.run.uid, volume.stream.name


def _numbered(pixels: Outgoing) -> bool:
    return type(pixels.volume.shows.timepoint) is int


def _grid(group: Sequence[Outgoing], *, named: bool) -> Grid:
    at: dict[tuple[int, str], Outgoing] = {}
    for timepoint, pixels in zip(_timepoints(group), group, strict=True):
        place = timepoint, _label(pixels)
        if place in at:
            raise ExportError(
                f"{at[place].volume} and {pixels.volume} have one place in a time-lapse. Name the run, the stream "
                "or the data key of the one that is meant."
            )
        at[place] = pixels
    timepoints = tuple(sorted({timepoint for timepoint, _ in at}))
    channels = tuple(dict.fromkeys(label for _, label in sorted(at, key=lambda place: _rank(at[place]))))
    _hold_whole(group[0], at, timepoints, channels, named=named)
    _hold_alike(group)
    cells = tuple(tuple(at[timepoint, label] for label in channels) for timepoint in timepoints)
    return Grid("", timepoints, channels, cells)


def _timepoints(group: Sequence[Outgoing]) -> list[int]:
    """Give the timepoint of each volume; where none is named, the how-manieth event of its channel it is of.

    All events of the stream count, also those that are not exported: no volume moves to the place of another.
    """
    if _numbered(group[0]):
        return [pixels.volume.shows.timepoint or 0 for pixels in group]
    of_all = group[0].volume
    ranks: dict[int, int] = {}
    taken: Counter[str] = Counter()
    for row in of_all.stream.rows:
        channel = repr(shown_by(row, of_all.run.start)["channel"])
        ranks[row.seq_num] = taken[channel]
        taken[channel] += 1
    return [ranks[pixels.volume.shows.seq_num] for pixels in group]


def _label(pixels: Outgoing) -> str:
    shows = pixels.volume.shows
    parts = (shows.view or shows.data_key, shows.channel)
    return " ".join(str(part) for part in parts if part is not None)


def _rank(pixels: Outgoing) -> tuple[str, int, float]:
    """Views by name, channels in the order in which they were taken."""
    shows = pixels.volume.shows
    return str(shows.view or shows.data_key), shows.timepoint or 0, shows.time or float(shows.seq_num)


def _hold_whole(
    first: Outgoing,
    at: Mapping[tuple[int, str], Outgoing],
    timepoints: Sequence[int],
    channels: Sequence[str],
    *,
    named: bool,
) -> None:
    embryo = first.volume.shows.embryo
    whose = "" if embryo is None else f"Embryo {embryo!r}: "
    for label in channels:
        there = [timepoint for timepoint in timepoints if (timepoint, label) in at]
        if missing := sorted(set(timepoints) - set(there)):
            raise NothingSelectedError(
                f"{whose}{label!r} has no volumes at timepoints {listed(missing)}, which others have, and nothing "
                f"can stand in for them; it has {listed(there)}. Name timepoints, views or channels that are "
                "whole, or choose a format with a file a volume."
            )
    gaps = [range(before + 1, after) for before, after in pairwise(timepoints) if after - before > 1]
    if gaps and not named:
        missed = ", ".join(f"{gap[0]}-{gap[-1]}" if len(gap) > 1 else f"{gap[0]}" for gap in gaps[:5])
        raise NothingSelectedError(
            f"{whose}timepoints {missed} are not there, and those after them would move up in their place. "
            f"{_NAME_THEM if _numbered(first) else _NO_NAMES}; there are {listed(timepoints)}."
        )


def _hold_alike(group: Sequence[Outgoing]) -> None:
    kinds: dict[tuple[Any, ...], Outgoing] = {}
    for pixels in group:
        size = pixels.volume.images.voxel_size_um_of(pixels.volume.event)
        kinds.setdefault((pixels.shape, pixels.dtype, size), pixels)
    if len(kinds) > 1:
        shown = "; ".join(
            f"{pixels.volume} is {shape} {dtype} with voxels of {size}"
            for (shape, dtype, size), pixels in list(kinds.items())[:2]
        )
        raise GeometryError(
            f"Volumes of one file must be of one kind: {shown}. Name views, channels or timepoints that are alike."
        )
