"""Volumes of several embryos, again and again."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import chain
from typing import Any

import bluesky.plan_stubs as bps
import bluesky.preprocessors as bpp
from ophyd.utils import LimitError

from gently_bluesky.plans.checks import channels_of, check_embryos, check_identity, check_rounds
from gently_bluesky.plans.embryo import Calibration, Embryo
from gently_bluesky.plans.microscope import Microscope, Plan, Views
from gently_bluesky.plans.size import expected_bytes
from gently_bluesky.plans.steps import Identity, dark_afterwards, detector_settings, select, tell
from gently_bluesky.read.catalog import Catalog


@dataclass(frozen=True, slots=True, kw_only=True)
class Visit:
    """An embryo, and where everything goes for it."""

    embryo: Embryo
    stages: Mapping[Any, Any]
    """Stage, and its target."""
    settings: Mapping[Any, float]
    """Setting of a view, and its value."""

    def check(self, spim: Any, detector: Mapping[Any, Any]) -> None:
        """Refuse what the stages cannot reach, or the detector not scan, with its settings as they will be.

        Raises
        ------
        LimitError
            The message names the embryo.
        """
        try:
            for stage, target in self.stages.items():
                stage.check_value(target)
            spim.check_settings({**detector, **self.settings})
        except LimitError as error:
            raise LimitError(f"embryo {self.embryo.name!r}: {error}") from error

    def go(self) -> Plan:
        """Go there, all stages at once."""
        yield from bps.mv(*chain.from_iterable(self.stages.items()))
        yield from tell(self.settings)


def acquire_timelapse(
    dispim: Microscope,
    embryos: Sequence[Embryo],
    *,
    session: str,
    count: int,
    interval_s: float = 0.0,
    channels: Sequence[str] | None = None,
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
        Visited in this order in every round.
    session
        Timepoints count from 0 in an embryo of a session.
    count
        How many rounds.
    interval_s
        From the start of one round to the start of the next; a round that takes longer is followed at once.
    channels
        Laser presets, spelled exactly, one volume each in this order; the one that is selected, if not given.
        "ALL OFF" takes a dark reference, and its events say so as their channel; it must be asked for.
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
    PlanError
        No embryos, two of one name, no channel, a channel twice, a count or an interval that cannot be.
    PlanTypeError
        Something else than an Embryo, a Calibration, or text for a name.
    PresetError
        There is no such preset, a power of it is not allowed, or all its powers are 0.
    LimitError
        A stage, piezo or galvo would leave its limits at an embryo, which the message names; or a setting is not
        allowed, or the timings leave no room for the exposure.

    Notes
    -----
    The start document says how many bytes the volumes will be, `expected_bytes`, and a FileWriter refuses the run
    if they do not fit; 0 in `md` begins it all the same.

    The errors above are found before the run opens, and before anything is set or moved. `bluesky.simulators.
    check_limits` finds it as well.
    """
    if isinstance(channels, str):
        channels = [channels]
    check_embryos(embryos)
    check_identity(session=session)
    check_identity(**{key: (md or {}).get(key) for key in ("session", "embryo")})
    check_rounds(count, interval_s)
    taken = channels_of(dispim, channels)
    settings = detector_settings(
        dispim, views=views, num_slices=num_slices, z_step_um=z_step_um, exposure_ms=exposure_ms
    )
    z_um, calibration = float(dispim.z_stage.position), _calibration_of(dispim)
    visits = [_visit(dispim, embryo, z_um, calibration) for embryo in embryos]
    for visit in visits:
        visit.check(dispim.spim, settings)
    first = {embryo.name: catalog.next_timepoint(session, embryo.name) if catalog else 0 for embryo in embryos}
    identity = Identity()
    read = [dispim.spim, dispim.xy_stage, dispim.z_stage, *identity.signals(), *also]
    events = int(count) * len(embryos) * len(taken)
    start = {
        "plan_name": "acquire_timelapse",
        "session": session,
        "embryos": [asdict(embryo) for embryo in embryos],
        "channels": taken,
        "interval_s": interval_s,
        "num_points": events,
        **expected_bytes(read, triggers=events, settings=settings),
        **_calibrated_by(embryos),
        "hints": {"dimensions": [(("time",), "primary")]},
        **(md or {}),
    }

    @bpp.stage_decorator([dispim.spim])
    @bpp.run_decorator(md=start)
    def rounds() -> Plan:
        begun = time.monotonic()
        for number in range(int(count)):
            if (early := begun + number * interval_s - time.monotonic()) > 0:
                yield from bps.checkpoint()
                yield from bps.sleep(early)
            for place, visit in enumerate(visits):
                yield from bps.checkpoint()
                yield from visit.go()
                name = visit.embryo.name
                yield from bps.mv(
                    identity.embryo, name, identity.timepoint, first[name] + number, identity.position, place
                )
                for channel in taken:
                    yield from bps.checkpoint()
                    yield from select(dispim, identity, channel)
                    yield from bps.trigger_and_read(read)

    yield from tell(settings)
    return (yield from dark_afterwards(dispim, rounds()))


def _calibrated_by(embryos: Sequence[Embryo]) -> dict[str, list[str]]:
    """Say which runs the calibrations that are used were measured in, those that are known."""
    runs = {line.run for embryo in embryos for line in embryo.calibration.values() if line.run}
    return {"calibration": sorted(runs)} if runs else {}


def _calibration_of(dispim: Microscope) -> dict[str, Calibration]:
    """How each view is calibrated, before the first embryo changes it."""
    views = {name: getattr(dispim.spim, name.lower()) for name in ("A", "B")}
    return {
        name: Calibration(
            piezo_offset_um=view.piezo_offset_um.get(),
            galvo_offset_deg=view.galvo_offset_deg.get(),
            um_per_deg=view.calibration_um_per_deg.get(),
        )
        for name, view in views.items()
    }


def _visit(dispim: Microscope, embryo: Embryo, z_um: float, calibration: Mapping[str, Calibration]) -> Visit:
    """Say where everything is to go for an embryo; `z_um` and `calibration` where it has none of its own."""
    settings: dict[Any, float] = {}
    for name, line in {**calibration, **embryo.calibration}.items():
        view = getattr(dispim.spim, name.lower())
        settings[view.piezo_offset_um] = line.piezo_offset_um
        settings[view.galvo_offset_deg] = line.galvo_offset_deg
        settings[view.calibration_um_per_deg] = line.um_per_deg
    stages = {
        dispim.xy_stage: (embryo.x_um, embryo.y_um),
        dispim.z_stage: z_um if embryo.z_um is None else embryo.z_um,
    }
    return Visit(embryo=embryo, stages=stages, settings=settings)
