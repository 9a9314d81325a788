"""Tools that show: images of a run; planes, regions and projections of an embryo; snapshots."""

from typing import Any

from gently_bluesky.read.catalog import Catalog
from gently_bluesky.read.words import listed
from gently_bluesky.serve.agent.answering import NotThereError, Shown
from gently_bluesky.serve.agent.asking import (
    Opened,
    RunId,
    place_in,
    run_of,
    session_of,
    volume_of,
)
from gently_bluesky.serve.agent.meaning import stage_of
from gently_bluesky.serve.agent.place import Place
from gently_bluesky.serve.agent.rendering import (
    SIZE,
    Axis,
    Kind,
    check_good,
    cut_of,
    picture_of,
    plane_of,
    projections_of,
    three_of,
)


def get_run_image(
    catalog: Catalog,
    run_id: RunId = "-1",
    detector: str | None = None,
    seq_num: int | None = None,
    stream: str | None = None,
    plane: int | None = None,
    projection: Kind | None = None,
    size: int = SIZE,
    window: str = "auto",
    cmap: str = "gray",
    include_bad: bool = False,
) -> Shown:
    """Show an image of a run: one plane of a volume, or its projection, with a scale bar and the counts in it.

    Parameters
    ----------
    run_id
        "-1" is the newest run; a scan_id; or a run's uid, or its beginning.
    detector
        A data key of get_run that is an image, a device, a camera's label or a view; the first, if not given.
    seq_num
        The event, from 1; -1 is the newest, as if not given.
    stream
        Only in this stream; "primary" first, if not given.
    plane
        Along z, from 0; the middle one, if not given.
    projection
        Instead of a plane: "three" views, or the maximum along "z", "y" or "x". The whole volume is then read.
    size
        The longest side in pixels, 320 to 1600.
    window
        What is black and white: "auto", counts like "100,4000", or percentiles like "1%,99.8%".
    cmap
        A colour map: gray, viridis, magma, green ...
    include_bad
        Show a volume that is marked as not good, too.
    """
    place = check_good(place_in(run_of(catalog, run_id), detector, stream=stream, seq_num=seq_num), include_bad)
    if projection is not None:
        return _projected(place, projection, size=size, window=window, cmap=cmap)
    pixels, what = plane_of(place, plane)
    return picture_of(place, pixels, what, size=size, window=window, cmap=cmap)


def _projected(place: Place, kind: Kind, **options: Any) -> Shown:
    if kind == "three":
        return three_of(place, **options)
    what = f"maximum along {kind}"
    return picture_of(place, projections_of(place, kind)[kind], what, axis=kind, **options)


def get_plane(
    catalog: Catalog,
    embryo_id: str,
    timepoint: int | None = None,
    plane: int | None = None,
    axis: Axis = "z",
    region: list[int] | None = None,
    view: str | None = None,
    channel: str | None = None,
    session: str | None = None,
    size: int = SIZE,
    window: str = "auto",
    cmap: str = "gray",
    include_bad: bool = False,
) -> Shown:
    """Show one plane of a volume of an embryo, or a region of it, with a scale bar and the counts in it.

    Parameters
    ----------
    embryo_id
        The embryo.
    timepoint
        From 0; -1 is the last; the newest volume, if not given.
    plane
        Along the axis, from 0; the middle one, if not given.
    axis
        Across which the plane is cut: "z" gives (y, x), "y" (z, x), "x" (z, y).
    region
        [top, bottom, left, right] in pixels of the plane, from 0, bottom and right not included; small regions are
        enlarged.
    view, channel
        The view (or data key) and the laser preset; the first, if not given.
    session
        Its name or the beginning of it; the newest session with such an embryo, if not given.
    size, window, cmap, include_bad
        As in get_run_image.
    """
    place = volume_of(
        catalog, embryo_id, timepoint, session=session, view=view, channel=channel, include_bad=include_bad
    )
    pixels, what = plane_of(check_good(place, include_bad), plane, axis)
    part, where = cut_of(pixels, region)
    return picture_of(place, part, what + where, axis=axis, size=size, window=window, cmap=cmap)


def get_projection(
    catalog: Catalog,
    embryo_id: str,
    timepoint: int | None = None,
    kind: Kind = "three",
    view: str | None = None,
    channel: str | None = None,
    session: str | None = None,
    size: int = SIZE,
    window: str = "auto",
    cmap: str = "gray",
    include_bad: bool = False,
) -> Shown:
    """Show the maximum projection of a volume of an embryo: three views at one scale, or along one axis.

    Parameters
    ----------
    embryo_id
        The embryo.
    timepoint
        From 0; -1 is the last; the newest volume, if not given.
    kind
        "three", or the axis that vanishes: "z", "y" or "x".
    view, channel
        The view (or data key) and the laser preset; the first, if not given.
    session
        Its name or the beginning of it; the newest session with such an embryo, if not given.
    size, window, cmap, include_bad
        As in get_run_image.
    """
    place = volume_of(
        catalog, embryo_id, timepoint, session=session, view=view, channel=channel, include_bad=include_bad
    )
    return _projected(check_good(place, include_bad), kind, size=size, window=window, cmap=cmap)


def get_snapshot(
    catalog: Catalog,
    source: str = "bottom",
    back: int = 0,
    session: str | None = None,
    size: int = SIZE,
    window: str = "auto",
) -> Shown:
    """Show the newest snapshot of a camera, as a rule the bottom camera's, and say where the stage was.

    Parameters
    ----------
    source
        A part of the name of camera or stream: "bottom", "bf", "lightsheet"; "" is any snapshot.
    back
        0 is the newest, 1 the one before ...
    session
        Only of this session.
    size, window
        As in get_run_image.
    """
    what: dict[str, Any] = {} if session is None else {"session": session_of(catalog, session)}
    found = [v for v in catalog.volumes(**what) if v.row.timepoint is None and "calibration" not in v.row.stream]
    named = [v for v in found if source.lower() in f"{v.row.stream} {v.row.data_key}".lower().replace(" ", "_")]
    if not 0 <= back < len(named):
        there = sorted({f"{v.row.data_key} in stream {v.row.stream}" for v in found})
        raise NotThereError(
            f"{len(named)} snapshots have {source!r} in their name, none is number {back}; there are "
            f"{listed(there)}."
        )
    place = Opened(catalog).place(named[back])
    pixels, label = plane_of(place, None)
    shown = picture_of(place, pixels, label, size=size, window=window)
    facts = shown.facts | {"stage": stage_of(place), "snapshots": len(named)}
    return Shown(facts, shown.jpeg)
