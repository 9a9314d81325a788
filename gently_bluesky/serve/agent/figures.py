"""Tools that measure: intensity and focus over time, and the pixels themselves."""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gently_bluesky.errors import GentlyError
from gently_bluesky.read.catalog import Catalog
from gently_bluesky.read.foreign import cut_of
from gently_bluesky.read.words import listed
from gently_bluesky.serve.agent.answering import (
    Facts,
    NotThereError,
    brief,
    limited,
    moment,
    statistics,
    table,
    without_none,
)
from gently_bluesky.serve.agent.asking import Opened, RunId, place_in, run_of, timepoints_of, volumes_of
from gently_bluesky.serve.agent.rendering import Axis, check_good, plane_of
from gently_bluesky.serve.agent.sheets import chosen_timepoints, newest_of_each

_MOST_VOLUMES = 100
_MOST_PIXELS = 400

_BINS = (1, 2, 4)
_SURE = 5.0
"""So many standard deviations of noise alone tell structure from noise."""

_COLUMNS = [
    "timepoint",
    "time",
    "min",
    "median",
    "mean",
    "percentile_99.8",
    "max",
    "focus",
    "run",
    "seq_num",
    "file",
]


def get_figures(
    catalog: Catalog,
    embryo_id: str,
    first: int | None = None,
    last: int | None = None,
    count: int = 20,
    plane: int | None = None,
    view: str | None = None,
    channel: str | None = None,
    session: str | None = None,
) -> Facts:
    """Measure intensity and focus of an embryo over time: of one plane of each volume, a row a timepoint.

    Focus is how much pixels two apart differ (Brenner) as far as those two rows, or columns, further on do so too,
    over the squared mean above the first percentile: without unit, larger where the picture is sharper, null where
    there is only noise. Compare it only within an embryo and view.

    Parameters
    ----------
    embryo_id
        The embryo.
    first, last
        Timepoints, both included; all, if not given.
    count
        At most so many timepoints, evenly chosen, 1 to 100.
    plane
        Along z, from 0; the middle one, if not given. No more than this plane is read.
    view, channel
        The view (or data key) and the laser preset; the first, if not given.
    session
        Its name or the beginning of it; the newest session with such an embryo, if not given.
    """
    limited(count, _MOST_VOLUMES, name="count")
    found = volumes_of(catalog, embryo_id, session=session, view=view, channel=channel, include_bad=True)
    chosen = chosen_timepoints(timepoints_of(found), first, last, count, embryo_id)
    opened, newest = Opened(catalog), newest_of_each(found)
    rows, left_out, what = [], [], ""
    for timepoint in (t for t in chosen if t in newest):
        place = opened.place(newest[timepoint])
        try:
            pixels, what = plane_of(place, plane)
        except NotThereError:
            raise
        except (GentlyError, OSError) as error:
            left_out.append(f"timepoint {timepoint}: {error}")
            continue
        said = statistics(pixels) | {
            "focus": focus_of(pixels),
            "timepoint": timepoint,
            "time": moment(place.row.time),
        }
        said |= {"run": place.run.uid[:8], "seq_num": place.row.seq_num, "file": place.file()}
        rows.append([said.get(column) for column in _COLUMNS])
    like = found[0].row
    return without_none(
        embryo=embryo_id,
        session=like.session,
        data_key=newest[max(newest)].row.data_key if newest else like.data_key,
        measured=what or "nothing could be read",
        figures=table(_COLUMNS, rows),
        left_out=left_out[:20] or None,
        missing=listed([t for t in chosen if t not in newest]),
        of_timepoints=listed(timepoints_of(found)),
        more="first=, last=, count= choose others; get_run_data gives what the events say, e.g. spim_a_mean",
    )


def focus_of(pixels: NDArray[Any]) -> float | None:
    """Give the structure of a plane over its squared signal; None of one that is too small, or has only noise."""
    structure = _structure(pixels)
    return structure and _over(structure, _signal(pixels))


def _structure(pixels: NDArray[Any]) -> float | None:
    """Give Brenner's measure of focus without what noise adds to it, in squared counts; None of noise alone.

    Noise of one pixel is not that of another: where differences of pixels two apart are multiplied by those two
    rows further on, not squared, its mean is zero. Of both directions, the smaller: stripes are no structure. What
    is too dim or blurred to stand out so is looked for in means of 2 x 2, then of 4 x 4 pixels.
    """
    exact = pixels.astype(np.float64)
    if exact.ndim != 2 or not np.isfinite(exact).all():
        return None
    for width in _BINS:
        binned = _binned(exact, width)
        along, across = _common(binned), _common(binned.T)
        if along is not None and across is not None:
            return min(along, across) / width**2
    return None


def _binned(exact: NDArray[np.float64], width: int) -> NDArray[np.float64]:
    rows, columns = (size // width for size in exact.shape)
    blocks = exact[: rows * width, : columns * width].reshape(rows, width, columns, width)
    means: NDArray[np.float64] = blocks.mean(axis=(1, 3))
    return means


def _common(exact: NDArray[np.float64]) -> float | None:
    steps = exact[:, 2:] - exact[:, :-2]
    one, other = steps[:-2], steps[2:]
    if not one.size:
        return None
    common, all_of_it = float(np.mean(one * other)), float(np.mean(steps * steps))
    return common if common * math.sqrt(one.size) > _SURE * all_of_it else None


def _signal(pixels: NDArray[Any]) -> float:
    return float(pixels.mean(dtype=np.float64) - np.percentile(pixels.astype(np.float64), 1))


def _over(structure: float, signal: float) -> float | None:
    return float(f"{structure / signal**2:.6g}") if signal > 0 else None


def read_pixels(
    catalog: Catalog,
    index: str,
    run_id: RunId = "-1",
    detector: str | None = None,
    seq_num: int | None = None,
    stream: str | None = None,
    include_bad: bool = False,
) -> Facts:
    """Read the pixels themselves: at most 400 counts of a volume, as numbers.

    Parameters
    ----------
    index
        Which, as numpy writes it, along (z, y, x): "12,100:110,200:220"; "12" alone is a plane, too many pixels.
    run_id, detector, seq_num, stream, include_bad
        Of which image, as in get_run_image.
    """
    place = check_good(place_in(run_of(catalog, run_id), detector, stream=stream, seq_num=seq_num), include_bad)
    try:
        parts = cut_of(index.replace(" ", ""))
        there = np.broadcast_to(np.empty((), "?"), place.shape)[parts].shape
    except (ValueError, IndexError) as error:
        raise NotThereError(f"{place.whereabouts()} has axes {place.dims} {place.shape}: {error}.") from None
    if math.prod(there) > _MOST_PIXELS:
        raise ValueError(
            f"{index!r} are {math.prod(there)} pixels {list(there)}; at most {_MOST_PIXELS} are given as numbers. "
            "Ask for fewer; get_plane(region=...) shows many."
        )
    pixels = place.images[(place.event, *parts)]
    return place.address() | {
        "index": index,
        "shape": list(there),
        "dtype": str(place.images.dtype),
        "pixels": _numbers(pixels.tolist()),
        "counts": statistics(pixels),
    }


def _numbers(values: Any) -> Any:
    return [_numbers(value) for value in values] if isinstance(values, list) else brief(values)


def get_profile(
    catalog: Catalog,
    run_id: RunId = "-1",
    detector: str | None = None,
    seq_num: int | None = None,
    stream: str | None = None,
    axis: Axis = "z",
    include_bad: bool = False,
) -> Facts:
    """Measure intensity and focus plane by plane through one volume: where in it the sample is, and sharp.

    Focus is as in get_figures, but over the squared signal of the plane that has most: background is not sharp,
    and a plane with only noise in it has none. The volume is read once, plane by plane; at most 64 planes, evenly
    chosen, are measured.

    Parameters
    ----------
    run_id, detector, seq_num, stream, include_bad
        Of which image, as in get_run_image.
    axis
        Across which planes are cut.
    """
    place = check_good(place_in(run_of(catalog, run_id), detector, stream=stream, seq_num=seq_num), include_bad)
    plane_of(place, 0, axis)  # it has such planes
    size = place.shape["zyx".index(axis)] if len(place.shape) == 3 else 1
    numbers = np.unique(np.linspace(0, size - 1, min(size, 64)).round().astype(int)).tolist()
    rows, signal = [], 0.0
    for number in numbers:
        pixels, _ = plane_of(place, number, axis)
        with np.errstate(invalid="ignore"):  # inf - inf
            signal = max(signal, _signal(pixels))
        rows.append([number, float(pixels.mean(dtype=np.float64)), pixels.max(), _structure(pixels)])
    for row in rows:
        row[3] = row[3] and _over(row[3], signal)
    sharpest = max((row for row in rows if row[3] is not None), key=lambda row: row[3], default=None)
    return place.address() | without_none(
        planes=f"{len(numbers)} of {size} along {axis}",
        profile=table(["plane", "mean", "max", "focus"], rows),
        sharpest_plane=sharpest[0] if sharpest else "none: no plane stands out from its noise",
    )
