"""Tools about how a volume was taken: where, with which settings, stage, laser and calibration."""

import math
from collections.abc import Iterator, Sequence
from typing import Any

from gently_bluesky.read.catalog import Catalog
from gently_bluesky.read.volumes import Volume
from gently_bluesky.serve.agent.answering import (
    Facts,
    NotThereError,
    brief,
    megabytes,
    moment,
    table,
    without_none,
)
from gently_bluesky.serve.agent.asking import (
    Opened,
    RunId,
    place_in,
    position_of,
    run_of,
    session_of,
    volume_of,
    volumes_of,
)
from gently_bluesky.serve.agent.embryos import whose
from gently_bluesky.serve.agent.meaning import (
    calibration_of,
    laser_of,
    settings_of,
    stage_of,
)
from gently_bluesky.serve.agent.place import Place

_MOST_CHANGES = 20


def get_settings(
    catalog: Catalog, run_id: RunId = "-1", seq_num: int | None = None, stream: str | None = None
) -> Facts:
    """Give the settings of one event: stage, laser, calibration, detector, and how devices were configured.

    Parameters
    ----------
    run_id
        "-1" is the newest run; a scan_id; or a run's uid, or its beginning.
    seq_num
        The event, from 1; the newest, if not given.
    stream
        The first that has images, if not given.
    """
    run = run_of(catalog, run_id)
    try:
        place = place_in(run, stream=stream, seq_num=seq_num)
    except NotThereError:
        if stream is None or run[stream].image_keys:
            raise
        found = run[stream]
        row = found.rows[position_of(found, seq_num)]
        facts: Facts = {"run": run.uid, "stream": stream, "seq_num": row.seq_num, "time": moment(row.time)}
        return facts | {"settings": settings_of(row.data, found)}
    configuration, stage = place.stream.configuration(place.event), stage_of(place)
    settings = settings_of(place.row.data, place.stream)
    further = {
        key: value for key, value in settings.pop("stage", {}).items() if key.partition(" (")[0] not in stage
    }
    return place.address() | {
        "stage": stage,
        "laser": laser_of(place),
        "calibration": calibration_of(place),
        "settings": ({"stage": further} if further else {})
        | {name: values for name, values in settings.items() if name not in {"identity", "laser", "calibration"}},
        "configuration": {
            device: {key: brief(value) for key, value in values.items()}
            for device, values in configuration.items()
            if values
        },
    }


def get_volume(
    catalog: Catalog,
    embryo_id: str,
    timepoint: int | None = None,
    view: str | None = None,
    channel: str | None = None,
    session: str | None = None,
    include_bad: bool = False,
) -> Facts:
    """Describe the latest or a given volume of an embryo: where it is, shape, stage, laser, calibration, settings.

    It is the volume that get_plane and get_projection show; where none is good, one that is not. No pixel is read.

    Parameters
    ----------
    embryo_id
        The embryo.
    timepoint
        From 0; -1 is the last; the newest volume, if not given.
    view, channel
        The view (or data key) and the laser preset; the first, if not given.
    session
        Its name or the beginning of it; the newest session with such an embryo, if not given.
    include_bad
        The newest, also where it is marked as not good and an older one is good.
    """
    what: dict[str, Any] = {"session": session, "view": view, "channel": channel}
    try:
        place = volume_of(catalog, embryo_id, timepoint, include_bad=include_bad, **what)
    except NotThereError:
        place = volume_of(catalog, embryo_id, timepoint, include_bad=True, **what)
    siblings = [key for key in place.stream.image_keys if key != place.images.data_key]
    return place.address() | without_none(
        shape=dict(zip(place.dims, place.shape, strict=True)),
        dtype=str(place.images.dtype),
        MB=megabytes(math.prod(place.shape) * place.images.dtype.itemsize),
        voxel_size_um=place.voxel_um or "not recorded",
        also_in_this_event=siblings or None,
        stage=stage_of(place),
        laser=laser_of(place),
        calibration=calibration_of(place),
        settings=settings_of(place.row.data, place.stream).get("detector"),
        more="get_plane, get_projection: pictures; get_settings: everything that was set",
    )


def get_acquisition_parameters(
    catalog: Catalog, embryo_id: str | None = None, session: str | None = None
) -> Facts:
    """Give the parameters of the newest volume: what the plan was asked for, and what the event says was used.

    Parameters
    ----------
    embryo_id
        Of this embryo; of any, if not given.
    session
        Its name or the beginning of it; any, if not given.
    """
    if embryo_id is not None:
        place = volume_of(catalog, embryo_id, session=session, include_bad=True)
    else:
        what: dict[str, Any] = {} if session is None else {"session": session_of(catalog, session)}
        found = [v for v in catalog.volumes(include_bad=True, **what) if v.row.embryo is not None]
        if not found:
            raise NotThereError(
                f"There is no volume of an embryo under {catalog.root}; list_runs() gives the runs."
            )
        place = Opened(catalog).place(found[0])
    unsaid = {"uid", "time", "hints", "versions", "embryos", "old_session", "imported", "platform"}
    asked = {key: brief(value) for key, value in place.run.start.items() if key not in unsaid}
    settings = settings_of(place.row.data, place.stream)
    return place.address() | {
        "asked": asked,
        "stage": stage_of(place),
        "laser": laser_of(place),
        "calibration": calibration_of(place),
        "detector": settings.get("detector", "not recorded"),
    }


def get_calibration(catalog: Catalog, embryo_id: str, session: str | None = None) -> Facts:
    """Say which calibrations an embryo was imaged with, from when on, and which were measured.

    Parameters
    ----------
    embryo_id
        The embryo.
    session
        Its name or the beginning of it; the newest session with such an embryo, if not given.
    """
    found = volumes_of(catalog, embryo_id, session=session, include_bad=True)
    used: list[list[Any]] = []
    for place in events_of(catalog, found):
        said = calibration_of(place)
        if not used or used[-1][-1] != said:
            used.append(
                [place.said("timepoint"), moment(place.row.time), place.run.uid[:8], place.row.seq_num, said]
            )
    of_session: dict[str, Any] = {} if found[0].row.session is None else {"session": found[0].row.session}
    measured = []
    for run in catalog.search(**of_session):
        for stream in (run.up_to_damage[each] for each in run.up_to_damage if "calibration" in each):
            for row in stream.rows:
                if embryo_id in {row.data.get("embryo"), row.data.get("calibration_of")} and not stream.image_keys:
                    said = {key: brief(value) for key, value in row.data.items()}
                    measured.append({"run": run.uid, "stream": stream.name, "seq_num": row.seq_num} | said)
    return whose(catalog, found) | without_none(
        used=table(["from_timepoint", "from", "run", "seq_num", "calibration"], used[-_MOST_CHANGES:]),
        earlier_changes=len(used) - _MOST_CHANGES if len(used) > _MOST_CHANGES else None,
        measured=measured[-_MOST_CHANGES:] or "no stream of the session holds calibrations of this embryo",
    )


def events_of(catalog: Catalog, found: Sequence[Volume]) -> Iterator[Place]:
    """Give the events that took volumes, each once, in the order in which they were taken."""
    opened, seen = Opened(catalog), set()
    for volume in sorted(found, key=lambda each: each.row.time or 0.0):
        event = volume.run_uid, volume.row.stream, volume.row.seq_num
        if event not in seen:
            seen.add(event)
            yield opened.place(volume)
