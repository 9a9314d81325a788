"""One volume, where the stage is."""

from collections.abc import Mapping, Sequence
from typing import Any

import bluesky.plan_stubs as bps
import bluesky.preprocessors as bpp

from gently_bluesky.plans.checks import channels_of, check_identity, check_timepoint
from gently_bluesky.plans.microscope import Microscope, Plan, Views
from gently_bluesky.plans.size import expected_bytes
from gently_bluesky.plans.steps import Identity, dark_afterwards, detector_settings, select, tell, without_none
from gently_bluesky.read.catalog import Catalog


def acquire_volume(
    dispim: Microscope,
    *,
    session: str | None = None,
    embryo: str | None = None,
    timepoint: int | None = None,
    catalog: Catalog | None = None,
    channel: str | None = None,
    views: Views | None = None,
    num_slices: int | None = None,
    z_step_um: float | None = None,
    exposure_ms: float | None = None,
    also: Sequence[Any] = (),
    md: Mapping[str, Any] | None = None,
) -> Plan:
    """Take one volume where the stage is: one run, one event.

    Parameters
    ----------
    dispim
        The microscope.
    session, embryo
        What it shows; absent from the documents, if not given.
    timepoint
        From 0; if not given, the next one of the embryo in the session that `catalog` knows, else absent.
    catalog
        Asked for the next timepoint.
    channel
        The laser preset, spelled exactly; the one that is selected, if not given. "ALL OFF" takes a dark
        reference, and its event says so as its channel; it must be asked for.
    views, num_slices, z_step_um, exposure_ms
        Of the detector; as they are, if not given.
    also
        Further devices to read in the event.
    md
        Goes into the start document.

    Returns
    -------
    str
        The run's uid, as the plan's result.

    Raises
    ------
    PlanTypeError
        A session or an embryo that is not text, a timepoint that is not a whole number.
    PlanError
        No channel was given, and "ALL OFF" is selected.
    PresetError
        There is no such preset, a power of it is not allowed, or all its powers are 0.
    LimitError
        A setting is not allowed, or settings together: a scan that leaves piezo or galvo, an exposure for which
        the timings leave no room.

    Notes
    -----
    The start document says how many bytes the volume will be, `expected_bytes`, and a FileWriter refuses the run
    if they do not fit; 0 in `md` begins it all the same.

    The errors above are found before the run opens, and before anything is set.
    """
    check_identity(session=session, embryo=embryo)
    check_identity(**{key: (md or {}).get(key) for key in ("session", "embryo")})
    check_timepoint(timepoint)
    channel = channels_of(dispim, None if channel is None else [channel])[0]
    settings = detector_settings(
        dispim, views=views, num_slices=num_slices, z_step_um=z_step_um, exposure_ms=exposure_ms
    )
    dispim.spim.check_settings(settings)
    identity = Identity()
    if timepoint is None and catalog is not None and session is not None and embryo is not None:
        timepoint = catalog.next_timepoint(session, embryo)
    said = {"session": session, "embryo": embryo, "timepoint": timepoint}
    known = [signal for signal in identity.signals()[:2] if said[signal.name] is not None]
    read = [dispim.spim, dispim.xy_stage, dispim.z_stage, *known, identity.channel, *also]
    start = {
        "plan_name": "acquire_volume",
        **without_none(said),
        **expected_bytes(read, triggers=1, settings=settings),
        **(md or {}),
    }

    @bpp.stage_decorator([dispim.spim])
    @bpp.run_decorator(md=start)
    def one() -> Plan:
        for signal in known:
            yield from bps.abs_set(signal, said[signal.name], wait=True)
        yield from select(dispim, identity, channel)
        yield from bps.checkpoint()
        yield from bps.trigger_and_read(read)

    yield from tell(settings)
    return (yield from dark_afterwards(dispim, one()))
