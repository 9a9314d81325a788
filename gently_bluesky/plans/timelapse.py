"""Volumes of several embryos, again and again."""

import time
from collections.abc import Generator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import bluesky.plan_stubs as bps
import bluesky.preprocessors as bpp
from bluesky.utils import Msg

from gently_bluesky.plans.checks import check_channels, check_embryos, check_identity
from gently_bluesky.plans.embryo import Calibration, Embryo
from gently_bluesky.plans.microscope import Microscope, Plan, Views
from gently_bluesky.plans.steps import Identity, configure, dark_afterwards, select
from gently_bluesky.read.catalog import Catalog


def acquire_timelapse(
    dispim: Microscope,
    embryos: Sequence[Embryo],
    *,
    session: str,
    count: int,
    interval_s: float = 0.0,
    channels: Sequence[str] = (),
    views: Views | None = None,
    num_slices: int | None = None,
    z_step_um: float | None = None,
    exposure_ms: float | None = None,
    catalog: Catalog | None = None,
    also: Sequence[Any] = (),
    md: Mapping[str, Any] | None = None,
) -> Plan:
    """Take volumes of several embryos again and again: one run, an event a volume of an embryo and channel.

    Parameters
    ----------
    dispim
        The microscope.
    embryos
        Visited in this order in every round. Their positions are checked before the run begins.
    session
        Timepoints count from 0 in an embryo of a session.
    count
        How many rounds.
    interval_s
        From the start of one round to the start of the next; a round that takes longer is followed at once.
    channels
        Laser presets, one volume each; the one that is selected, if there are none.
    views, num_slices, z_step_um, exposure_ms
        Of the detector; as they are, if not given.
    catalog
        Asked for the timepoint to go on with, embryo by embryo; without one they count from 0.
    also
        Further devices to read in every event.
    md
        Goes into the start document.

    Returns
    -------
    str
        The run's uid, as the plan's result.

    Raises
    ------
    ValueError
        No embryos, two of one name, a channel twice, a count or an interval that cannot be.
    TypeError
        Something else than an Embryo, a Calibration, or text for a name.
    LimitError, PresetError
        A position or a channel is not allowed; nothing has moved.
    """
    if isinstance(channels, str):
        channels = [channels]
    check_embryos(dispim, embryos)
    check_identity(session=session)
    check_channels(dispim, channels)
    if count < 1 or count % 1 or not interval_s >= 0:
        raise ValueError(
            f"A time-lapse needs a whole count of at least 1 and an interval_s of at least 0, "
            f"not count={count!r}, interval_s={interval_s!r}."
        )
    first = {embryo.name: catalog.next_timepoint(session, embryo.name) if catalog else 0 for embryo in embryos}
    identity = Identity()
    start = {
        "plan_name": "acquire_timelapse",
        "session": session,
        "embryos": [asdict(embryo) for embryo in embryos],
        "channels": list(channels),
        "interval_s": interval_s,
        "num_points": count * len(embryos) * max(len(channels), 1),
        "hints": {"dimensions": [(("time",), "primary")]},
        **(md or {}),
    }
    read = [dispim.spim, dispim.xy_stage, dispim.z_stage, *identity.signals(), *also]

    @bpp.stage_decorator([dispim.spim])
    @bpp.run_decorator(md=start)
    def rounds() -> Plan:
        z_um, calibration = yield from _settings_of(dispim)
        begun = time.monotonic()
        for number in range(count):
            if (early := begun + number * interval_s - time.monotonic()) > 0:
                yield from bps.checkpoint()
                yield from bps.sleep(early)
            for place, embryo in enumerate(embryos):
                yield from bps.checkpoint()
                yield from _go_to(dispim, embryo, z_um, calibration)
                yield from bps.mv(
                    identity.embryo,
                    embryo.name,
                    identity.timepoint,
                    first[embryo.name] + number,
                    identity.position,
                    place,
                )
                for channel in channels or (None,):
                    yield from bps.checkpoint()
                    yield from select(dispim, identity, channel)
                    yield from bps.trigger_and_read(read)

    yield from configure(dispim.spim, views, num_slices, z_step_um, exposure_ms)
    return (yield from dark_afterwards(dispim, rounds()))


def _settings_of(dispim: Microscope) -> Generator[Msg, Any, tuple[float, dict[str, Calibration]]]:
    """Ask where the focus is, and how each view is calibrated, before the first embryo changes it."""
    lines = {}
    for name in ("A", "B"):
        view = getattr(dispim.spim, name.lower())
        lines[name] = Calibration(
            piezo_offset_um=(yield from bps.rd(view.piezo_offset_um)),
            galvo_offset_deg=(yield from bps.rd(view.galvo_offset_deg)),
            um_per_deg=(yield from bps.rd(view.calibration_um_per_deg)),
        )
    return (yield from bps.rd(dispim.z_stage)), lines


def _go_to(dispim: Microscope, embryo: Embryo, z_um: float, calibration: Mapping[str, Calibration]) -> Plan:
    yield from bps.mv(
        dispim.xy_stage, (embryo.x_um, embryo.y_um), dispim.z_stage, z_um if embryo.z_um is None else embryo.z_um
    )
    for name, line in {**calibration, **embryo.calibration}.items():
        view = getattr(dispim.spim, name.lower())
        yield from bps.mv(
            view.piezo_offset_um, line.piezo_offset_um,
            view.galvo_offset_deg, line.galvo_offset_deg,
            view.calibration_um_per_deg, line.um_per_deg,
        )  # fmt: skip
