"""An embryo: its name, where it is, and how piezo and galvo meet in it."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """How piezo and galvo of one view meet in an embryo.

    Attributes
    ----------
    piezo_offset_um
        Centre of the scan.
    galvo_offset_deg
        Where the sheet is then.
    um_per_deg
        Slope of the line.
    run
        The uid of the run that it was measured in, if there is one: the start document then links to it.
    """

    piezo_offset_um: float
    galvo_offset_deg: float
    um_per_deg: float
    run: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Embryo:
    """An embryo and where it is.

    Attributes
    ----------
    name
        Unique within its session.
    x_um, y_um
        Of the stage.
    z_um
        Of the focus; where it was when the plan began, if None.
    calibration
        By view; what the detector had when the plan began, if a view is not there.
    """

    name: str
    x_um: float
    y_um: float
    z_um: float | None = None
    calibration: Mapping[str, Calibration] = field(default_factory=dict)
