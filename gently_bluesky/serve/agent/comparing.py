"""Tools that show several volumes in one picture: two views, two timepoints."""

import math
from collections.abc import Iterable, Sequence
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

_COLOURS = ("green", "magenta")
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
    places = _two_views(one, views)
    planes = [_plane(place, plane) for place in places.values()]
    _hold_alike(places, planes)
    windows = [window_of(pixels, window) for pixels in planes]
    greys = [as_bytes(pixels, shown) for pixels, shown in zip(planes, windows, strict=True)]
    said = [
        f"{colour} {name}: {counts_in(shown)}"
        for colour, name, shown in zip(_COLOURS, places, windows, strict=True)
    ]
    what, where = _what(plane), f"run {one.run.uid[:8]}, seq_num {one.row.seq_num}"
    sheet = tiled(
        [Tile(overlaid(*zip(greys, _COLOURS, strict=True)), f"{what}; views as recorded, not registered")],
        size=size,
        pixel_um=pixel_um(one),
        captions=[
            one.title(views=[*places]),
            "; ".join([where, *said]),
        ],
    )
    facts: Facts = one.address() | {"shows": what, "views": {}}
    for colour, (name, place), pixels in zip(_COLOURS, places.items(), planes, strict=True):
        facts["views"][name] = {"colour": colour, "file": place.file(), "counts": statistics(pixels)}
    return shown_of(sheet, facts, None, windows[0])


def _two_views(one: Place, asked: Sequence[str] | None) -> dict[str, Place]:
    """Give the two views of an event that are asked for, by these names; the first two, if none are."""
    views = {str(one.stream.data_keys[key].get("view") or key): key for key in one.stream.image_keys}
    keys = views | {key: key for key in one.stream.image_keys}
    first = str(one.data_key.get("view") or one.images.data_key)
    names = list(asked or dict.fromkeys([first, *views]))[: len(asked) if asked else 2]
    if len(names) != 2 or not keys.keys() >= {*names} or keys[names[0]] == keys[names[1]]:
        raise NotThereError(f"Two views are shown together, not {names}; this event has {list(keys)}.")
    return {name: Place(one.run, one.stream, one.stream.images(keys[name]), one.event) for name in names}


def _plane(place: Place, plane: int | None) -> NDArray[Any]:
    return projections_of(place, "z")["z"] if plane is None else plane_of(place, plane)[0]


def _what(plane: int | None) -> str:
    return "maximum along z" if plane is None else f"z plane {plane}"


def _hold_alike(names: Iterable[object], planes: Sequence[NDArray[Any]]) -> None:
    one, other = (pixels.shape for pixels in planes)
    if one != other:
        raise NotThereError(f"{' and '.join(map(str, names))} differ in shape, {one} and {other}.")


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
    a, b = (_plane(place, plane) for place in places)
    _hold_alike((f"timepoint {timepoint_a}", timepoint_b), (a, b))
    with np.errstate(invalid="ignore"):  # inf - inf
        difference = b.astype(np.float64) - a
    small = [area_mean(pixels, size) for pixels in (a, b)]
    shown = window_of(np.stack(small), window)
    change = area_mean(difference, size)
    most = window_of(np.abs(change), "0,99.8%").high
    more, less = (as_bytes(signed, Window(0, most)) for signed in (change, -change))
    sheet = tiled(
        [
            Tile(as_bytes(small[0], shown), f"a: timepoint {places[0].said('timepoint')}"),
            Tile(as_bytes(small[1], shown), f"b: timepoint {places[1].said('timepoint')}"),
            Tile(overlaid((more, _MORE), (less, _LESS)), "b - a"),
        ],
        size=size,
        pixel_um=enlarged(pixel_um(places[0]), (a.shape[0], a.shape[1]), small[0]),
        captions=[
            ", ".join([str(embryo_id), _what(plane), *of_view(places[0])]),
            f"a: {places[0].whereabouts()}; b: {places[1].whereabouts()}; a and b: {counts_in(shown)}; "
            f"b - a: {_LESS} {-most:.4g} or less, black 0, {_MORE} {most:.4g} counts or more",
        ],
    )
    facts: Facts = {
        "a": places[0].address() | {"counts": statistics(a)},
        "b": places[1].address() | {"counts": statistics(b)},
        "shows": _what(plane),
        "b_minus_a": statistics(difference),
        "correlation": _correlation(a, b),
        "ratio_of_means": brief(_ratio(float(b.mean(dtype=float)), float(a.mean(dtype=float)))),
    }
    return shown_of(sheet, facts, None, shown)


def _ratio(this: float, that: float) -> float | None:
    return this / that if that else None


def _correlation(a: NDArray[Any], b: NDArray[Any]) -> float | str:
    both = np.isfinite(a) & np.isfinite(b)
    x, y = (pixels[both].astype(np.float64) for pixels in (a, b))
    if x.size:
        x, y = x - x.mean(), y - y.mean()
    norm = math.sqrt(float(x @ x) * float(y @ y))
    return float(f"{float(x @ y) / norm:.6g}") if norm else "not defined: a picture is constant, or no number"
