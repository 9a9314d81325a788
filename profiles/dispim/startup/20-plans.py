"""Plans of this microscope, bound to its devices, and the stock plans beside them."""

import bluesky.plan_stubs as bps
import bluesky.plans as bp
from bluesky.plans import count, grid_scan, scan

from gently_bluesky.errors import PlanTypeError
from gently_bluesky.plans import Calibration, Embryo, acquire_timelapse, acquire_volume
from gently_bluesky.plans import snap as _snap


def volume(
    session: str = "",
    embryo: str = "",
    channel: str = "488 only",
    views: str = "AB",
    num_slices: int = 50,
    z_step_um: float = 1.0,
    exposure_ms: float = 5.0,
):
    """Take one volume where the stage is: one run.

    channel is a laser preset, spelled exactly (laser.presets lists them); views are "A", "B" or "AB". The
    timepoint goes on from the embryo's last one in the session. Abort with RE.abort() after Ctrl-C twice.
    """
    return (
        yield from acquire_volume(
            dispim,
            session=session or None,
            embryo=embryo or None,
            catalog=catalog,
            channel=channel,
            views=views,
            num_slices=num_slices,
            z_step_um=z_step_um,
            exposure_ms=exposure_ms,
        )
    )


def timelapse(
    embryos: dict,
    session: str,
    timepoints: int,
    interval_s: float = 0.0,
    channels: list = ["488 only"],  # noqa: B006 - read only; queues want a plain default
    views: str = "AB",
    num_slices: int = 50,
    z_step_um: float = 1.0,
    exposure_ms: float = 5.0,
):
    """Take volumes of several embryos again and again: one run.

    embryos are {name: (x_um, y_um)}, positions of the stage; interval_s counts from the start of one round to the
    start of the next; channels are laser presets, spelled exactly (laser.presets lists them). Timepoints go on
    from each embryo's last one in the session. For z and calibration use acquire_timelapse with Embryo(...).
    """
    return (
        yield from acquire_timelapse(
            dispim,
            _placed(embryos),
            session=session,
            count=timepoints,
            interval_s=interval_s,
            channels=channels,
            views=views,
            num_slices=num_slices,
            z_step_um=z_step_um,
            exposure_ms=exposure_ms,
            catalog=catalog,
        )
    )


def _placed(embryos):
    try:
        return [Embryo(name=name, x_um=x, y_um=y) for name, (x, y) in embryos.items()]
    except (AttributeError, TypeError, ValueError):
        raise PlanTypeError(
            f"embryos are {{name: (x_um, y_um)}}, as demo_embryos() gives, not {embryos!r}."
        ) from None


def overview(exposure_ms: float = 10.0):
    """Take one frame with the bottom camera, where the stage is."""
    stages = [dispim.xy_stage, dispim.z_stage]
    return (yield from _snap(dispim.bottom_camera, exposure_ms=exposure_ms, also=stages))
