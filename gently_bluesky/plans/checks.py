"""What is refused before a run opens."""

import math
from collections.abc import Iterable, Mapping, Sequence
from numbers import Real
from typing import Any

from gently_bluesky.errors import PlanError, PlanTypeError
from gently_bluesky.plans.embryo import Calibration, Embryo
from gently_bluesky.plans.microscope import Microscope


def check_identity(**said: Any) -> None:
    """Refuse a name that is none.

    Parameters
    ----------
    **said
        What was given as `session` or `embryo`; None is no name, and allowed.

    Raises
    ------
    PlanTypeError
        Not text, or empty.
    """
    for name, value in said.items():
        if value is not None and not (isinstance(value, str) and value):
            # numbers would be other names than their text, and timepoints be counted for both
            raise PlanTypeError(f"{name} is {value!r}; it must be text that is not empty, e.g. {name}='{name}_1'.")


def check_timepoint(timepoint: object) -> None:
    """Refuse a timepoint that no other could follow.

    Raises
    ------
    PlanTypeError
        Not a whole number of at least 0.
    """
    if timepoint is not None and (type(timepoint) is not int or timepoint < 0):
        raise PlanTypeError(f"timepoint is {timepoint!r}; it must be a whole number from 0 on.")


def channels_of(dispim: Microscope, asked: Sequence[str] | None) -> list[str]:
    """Say which channels are to be taken, if they can be.

    Parameters
    ----------
    dispim
        The microscope.
    asked
        Laser presets; None: the one that is selected. The preset that switches all off must be asked for.

    Raises
    ------
    PresetError
        Not a preset of the laser, or one that would light a line outside its bounds, or none at all.
    PlanError
        None of them, one of them twice, or the dark one when nobody asked for it.
    """
    if asked is not None and not isinstance(asked, Iterable):
        raise PlanTypeError(
            f"channels must be a list of laser presets, {list(dispim.laser.presets)}, not {asked!r}."
        )
    off = dispim.laser.off
    channels = [str(dispim.laser.position)] if asked is None else list(asked)
    if asked is None and channels == [off]:
        raise PlanError(f"No channel was given, and {off!r} is selected; for a dark reference ask for {off!r}.")
    if not channels:
        raise PlanError(
            f"Volumes need a channel; there are {list(dispim.laser.presets)}. For the one that is selected leave "
            f"channels away, for a dark reference ask for {off!r}."
        )
    for channel in channels:
        dispim.laser.check_value(channel)
        dispim.laser.check_before(channel)
    if len(set(channels)) != len(channels):
        raise PlanError(f"Each channel can be taken once a round; channels are {channels}.")
    return channels


def check_embryos(embryos: Sequence[Embryo]) -> None:
    """Refuse embryos that are none, or that cannot be told apart.

    Raises
    ------
    PlanTypeError
        Something else than an Embryo or a Calibration.
    PlanError
        None at all, or two of one name.
    """
    if isinstance(embryos, Embryo) or not isinstance(embryos, Iterable):
        raise PlanTypeError(
            f"embryos must be a list, [Embryo(name=..., x_um=..., y_um=...), ...], not {embryos!r}."
        )
    for embryo in embryos:
        if not isinstance(embryo, Embryo):
            raise PlanTypeError(f"embryos must hold Embryo(name=..., x_um=..., y_um=...), not {embryo!r}.")
        check_identity(embryo=embryo.name)
        if not _calibrates(embryo.calibration):
            raise PlanTypeError(
                f"{embryo.name}: calibration must be {{'A': Calibration(...)}}, not {embryo.calibration!r}."
            )
    names = [embryo.name for embryo in embryos]
    if not names or len(set(names)) != len(names):
        raise PlanError(f"A time-lapse needs embryos, each with a name of its own; there are {names}.")


def check_rounds(count: int, interval_s: float) -> None:
    """Refuse rounds that cannot be.

    Raises
    ------
    PlanError
        Not a whole count of at least 1, or an interval that is negative or no finite number.
    """
    numbers = isinstance(count, Real) and isinstance(interval_s, Real)
    if not numbers or count < 1 or count % 1 or not 0 <= interval_s < math.inf:
        raise PlanError(
            f"A time-lapse needs a whole count of at least 1 and an interval_s of at least 0, "
            f"not count={count!r}, interval_s={interval_s!r}."
        )


def _calibrates(lines: object) -> bool:
    return isinstance(lines, Mapping) and all(
        view in {"A", "B"} and isinstance(line, Calibration) and isinstance(line.run, str | None)
        for view, line in lines.items()
    )
