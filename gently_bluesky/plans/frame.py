"""One frame of one camera."""

from collections.abc import Mapping, Sequence
from typing import Any

import bluesky.plan_stubs as bps
import bluesky.preprocessors as bpp

from gently_bluesky.plans.microscope import Plan
from gently_bluesky.plans.size import expected_bytes


def snap(
    camera: Any,
    *,
    exposure_ms: float | None = None,
    also: Sequence[Any] = (),
    md: Mapping[str, Any] | None = None,
) -> Plan:
    """Take one frame with one camera: one run, one event.

    Parameters
    ----------
    camera
        Any camera of the microscope, e.g. ``dispim.bottom_camera``.
    exposure_ms
        As it is, if not given.
    also
        Devices to read in the event, e.g. ``[dispim.xy_stage, dispim.z_stage]``, so that it says where.
    md
        Goes into the start document: session, embryo, purpose ...

    Returns
    -------
    str
        The run's uid, as the plan's result.
    """
    read = [camera, *also]
    start = {"plan_name": "snap", **expected_bytes(read, triggers=1), **(md or {})}

    @bpp.stage_decorator([camera])
    @bpp.run_decorator(md=start)
    def one() -> Plan:
        yield from bps.checkpoint()
        yield from bps.trigger_and_read(read)

    if exposure_ms is not None:
        yield from bps.mv(camera.exposure_ms, exposure_ms)
    return (yield from one())
