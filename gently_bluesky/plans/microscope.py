"""What plans need of a microscope, and what a plan is."""

from collections.abc import Generator
from typing import Any, Literal, Protocol

from bluesky.utils import Msg

Plan = Generator[Msg, Any, Any]
Views = Literal["A", "B", "AB"]


class Microscope(Protocol):
    """The devices that plans use; `devices.Dispim` has them."""

    @property
    def spim(self) -> Any:
        """Takes a volume in one or both views a trigger.

        `check_settings` refuses what it could not take, `trigger_bytes` says how many bytes it would be.
        """

    @property
    def xy_stage(self) -> Any:
        """Positioner of (x, y) in micrometer."""

    @property
    def z_stage(self) -> Any:
        """Positioner of the focus in micrometer."""

    @property
    def laser(self) -> Any:
        """Positioner of `presets`, one of which is `off`: selects, and is lit by the detectors alone.

        `check_value` refuses a preset that there is not, `check_before` one whose powers are not allowed now.
        """
