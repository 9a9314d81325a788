"""Tools that show several volumes in one picture: two views, two timepoints."""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gently_bluesky.read.catalog import Catalog
from gently_bluesky.serve.agent.answering import Facts, NotThereError, Shown, brief, statistics
from gently_bluesky.serve.agent.asking import (
    volume_of,
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
)
from gently_bluesky.serve.pictures.colour import overlaid
from gently_bluesky.serve.pictures.layout import Tile, tiled
from gently_bluesky.serve.pictures.scaling import area_mean
from gently_bluesky.serve.pictures.window import Window, as_bytes, window_of

_MORE, _LESS = "red", "cyan"


def get_overlay(
    catalog: Catalog,
    embryo_id: str,
    timepoint: int | None = None,
    views: list[str] | None = None,
    plane: int | None = None,
    channel: str | None = None,
    session: str | None = None,
    size: int = SIZE,
    window: str = "auto",
) -> Shown:
    """Show two views of an embryo in one picture, the first in green, the second in magenta.

    Nothing is registered: as they were recorded, pixel by pixel.

    Parameters
    ----------
    embryo_id
        The embryo.
    timepoint
        From 0; -1 is the last; the newest volume, if not given.
    views
        Two views (or data keys), e.g. ["A", "B"]; the first two, if not given.
    plane
        Along z, from 0; maximum projections along z, if not given.
    channel
        The laser preset; the first, if not given.
    session
        Its name or the beginning of it; the newest session with such an embryo, if not given.
    size, window
        As in get_run_image; percentiles are those of each view.
    """
    check_size(size)
    one = volume_of(
        catalog, embryo_id, timepoint, session=session, view=views[0] if views else None, channel=channel
    )
    keys = {
        str(entry.get("view") or key): key
        for key in one.stream.image_keys
        for entry in [one.stream.data_keys[key]]
    }
    keys |= {key: key for key in one.stream.image_keys}
    asked = views or list(dict.fromkeys([str(one.data_key.get("view") or one.images.data_key), *keys]))[:2]
    if len(asked) != 2 or any(view not in keys for view in asked) or keys[asked[0]] == keys[asked[1]]:
        raise NotThereError(f"Two views are shown together, not {asked}; this event has {list(keys)}.")
    places = [Place(one.run, one.stream, one.stream.images(keys[view]), one.event) for view in asked]
    planes = [projections_of(p, "z")["z"] if plane is None else plane_of(p, plane)[0] for p in places]
    if planes[0].shape != planes[1].shape:
        raise NotThereError(f"Views {asked} differ in shape, {planes[0].shape} and {planes[1].shape}.")
    windows = [window_of(pixels, window) for pixels in planes]
    greys = [as_bytes(pixels, shown) for pixels, shown in zip(planes, windows, strict=True)]
    both = overlaid((greys[0], "green"), (greys[1], "magenta"))
    said = [
        f"{colour} {view}: {counts_in(shown)}"
        for colour, view, shown in zip(("green", "magenta"), asked, windows, strict=True)
    ]
    what = "maximum along z" if plane is None else f"z plane {plane}"
    sheet = tiled(
        [Tile(both, f"{what}; views as recorded, not registered")],
        size=size,
        pixel_um=pixel_um(one),
        captions=[one.title(views=asked), "; ".join([f"run {one.run.uid[:8]}, seq_num {one.row.seq_num}", *said])],
    )
    facts = one.address() | {
        "shows": what,
        "views": {
            view: {"colour": colour, "file": place.file(), "counts": statistics(pixels)}
            for view, colour, place, pixels in zip(asked, ("green", "magenta"), places, planes, strict=True)
        },
    }
    return shown_of(sheet, facts, None, windows[0])


def compare_timepoints(
    catalog: Catalog,
    embryo_id: str,
    timepoint_a: int,
    timepoint_b: int,
    plane: int | None = None,
    view: str | None = None,
    channel: str | None = None,
    session: str | None = None,
    size: int = SIZE,
    window: str = "auto",
) -> Shown:
    """Compare two timepoints of an embryo: both in one window, their difference, and what differs in numbers.

    Parameters
    ----------
    embryo_id
        The embryo.
    timepoint_a, timepoint_b
        From 0; -1 is the last. The difference is b minus a.
    plane
        Along z, from 0; maximum projections along z, if not given.
    view, channel
        The view (or data key) and the laser preset; the first, if not given.
    session
        Its name or the beginning of it; the newest session with such an embryo, if not given.
    size, window
        As in get_run_image.
    """
    check_size(size)
    places = [
        volume_of(catalog, embryo_id, t, session=session, view=view, channel=channel)
        for t in (timepoint_a, timepoint_b)
    ]
    a, b = (projections_of(p, "z")["z"] if plane is None else plane_of(p, plane)[0] for p in places)
    if a.shape != b.shape:
        raise NotThereError(
            f"Timepoints {timepoint_a} and {timepoint_b} differ in shape, {a.shape} and {b.shape}."
        )
    what = "maximum along z" if plane is None else f"z plane {plane}"
    difference = b.astype(np.float64) - a
    small = [area_mean(pixels, size) for pixels in (a, b)]
    shown = window_of(np.stack(small), window)
    most = max(float(np.percentile(np.abs(difference), 99.8)), 1e-9)
    labels = [f"a: timepoint {places[0].said('timepoint')}", f"b: timepoint {places[1].said('timepoint')}"]
    tiles = [Tile(as_bytes(p, shown), label) for p, label in zip(small, labels, strict=True)]
    change = area_mean(difference, size)
    more, less = (as_bytes(signed, Window(0, most)) for signed in (change, -change))
    tiles.append(Tile(overlaid((more, _MORE), (less, _LESS)), "b - a"))
    unit = enlarged(pixel_um(places[0]), (a.shape[0], a.shape[1]), small[0])
    captions = [
        f"{embryo_id}, {what}, {', '.join(of_view(places[0]))}",
        f"a: {places[0].whereabouts()}; b: {places[1].whereabouts()}; a and b: {counts_in(shown)}; "
        f"b - a: {_LESS} {-most:.4g} or less, black 0, {_MORE} {most:.4g} counts or more",
    ]
    sheet = tiled(tiles, size=size, pixel_um=unit, captions=captions)
    facts: Facts = {
        "a": places[0].address() | {"counts": statistics(a)},
        "b": places[1].address() | {"counts": statistics(b)},
        "shows": what,
        "b_minus_a": statistics(difference),
        "correlation": _correlation(a, b),
        "ratio_of_means": brief(_ratio(float(b.mean(dtype=float)), float(a.mean(dtype=float)))),
    }
    return shown_of(sheet, facts, None, shown)


def _ratio(this: float, that: float) -> float | None:
    return this / that if that else None


def _correlation(a: NDArray[Any], b: NDArray[Any]) -> float | str:
    x, y = a.astype(np.float64).ravel(), b.astype(np.float64).ravel()
    x, y = x - x.mean(), y - y.mean()
    norm = math.sqrt(float(x @ x) * float(y @ y))
    return float(f"{float(x @ y) / norm:.6g}") if norm else "not defined: a picture is constant"
