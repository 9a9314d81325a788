"""Steps that every plan of volumes takes: set the detector, select the light, say what is shown, end dark."""

from collections.abc import Mapping
from typing import Any

import bluesky.plan_stubs as bps
import bluesky.preprocessors as bpp
from ophyd import Signal

from gently_bluesky.plans.microscope import Microscope, Plan, Views


class Identity:
    """The signals whose readings say what a volume shows."""

    def __init__(self) -> None:
        self.embryo = Signal(name="embryo", value="")
        self.timepoint = Signal(name="timepoint", value=0)
        self.position = Signal(name="position", value=0)
        self.channel = Signal(name="channel", value="")

    def signals(self) -> list[Signal]:
        """All of them, to be read in an event."""
        return [self.embryo, self.timepoint, self.position, self.channel]


def detector_settings(
    dispim: Microscope,
    *,
    views: Views | None,
    num_slices: int | None,
    z_step_um: float | None,
    exposure_ms: float | None,
) -> dict[Any, Any]:
    """Settings of the detector, and what was asked for each; what is None is not among them."""
    spim = dispim.spim
    return without_none(
        {spim.views: views, spim.num_slices: num_slices, spim.z_step_um: z_step_um, spim.exposure_ms: exposure_ms}
    )


def tell(settings: Mapping[Any, Any]) -> Plan:
    """Set each to its value.

    Parameters
    ----------
    settings
        Of the detector: before the run, for those decide the geometry, which is constant in a stream.
    """
    for setting, value in settings.items():
        yield from bps.mv(setting, value)


def select(dispim: Microscope, identity: Identity, channel: str) -> Plan:
    """Select a channel, and let the identity say which."""
    yield from bps.mv(dispim.laser, channel)
    yield from bps.mv(identity.channel, channel)


def dark_afterwards(dispim: Microscope, plan: Plan) -> Plan:
    """Switch the lasers off however the plan ends."""

    # light is on within a trigger alone, which switches it off itself; this is the second lock on the door
    def off() -> Plan:
        yield from bps.stop(dispim.laser)

    return (yield from bpp.finalize_wrapper(plan, off))


def without_none(values: Mapping[Any, Any]) -> dict[Any, Any]:
    """What was given."""
    return {key: value for key, value in values.items() if value is not None}
