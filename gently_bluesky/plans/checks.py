"""What is refused before a run opens."""

from collections.abc import Sequence
from typing import Any

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
    TypeError
        Not text, or empty.
    """
    for name, value in said.items():
        if value is not None and not (isinstance(value, str) and value):
            # numbers would be other names than their text, and timepoints be counted for both
            raise TypeError(f"{name} is {value!r}; it must be text that is not empty, e.g. {name}='embryo_3'.")


def check_channels(dispim: Microscope, channels: Sequence[str]) -> None:
    """Refuse channels that cannot be taken.

    Raises
    ------
    PresetError
        Not a preset of the laser.
    ValueError
        One of them twice.
    """
    for channel in channels:
        dispim.laser.check_value(channel)
    if len(set(channels)) != len(channels):
        raise ValueError(f"Each channel can be taken once a round; channels are {list(channels)}.")


def check_embryos(dispim: Microscope, embryos: Sequence[Embryo]) -> None:
    """Refuse embryos that cannot be told apart or reached.

    Raises
    ------
    TypeError
        Something else than an Embryo or a Calibration.
    ValueError
        None at all, or two of one name.
    LimitError
        One of them is where the stage must not go.
    """
    for embryo in embryos:
        if not isinstance(embryo, Embryo):
            raise TypeError(f"embryos must hold Embryo(name=..., x_um=..., y_um=...), not {embryo!r}.")
        check_identity(embryo=embryo.name)
        dispim.xy_stage.check_value((embryo.x_um, embryo.y_um))
        if embryo.z_um is not None:
            dispim.z_stage.check_value(embryo.z_um)
        for view, line in embryo.calibration.items():
            if view not in {"A", "B"} or not isinstance(line, Calibration):
                raise TypeError(
                    f"{embryo.name}: calibration must be {{'A': Calibration(...)}}, not {view!r}: {line!r}."
                )
    names = [embryo.name for embryo in embryos]
    if not names or len(set(names)) != len(names):
        raise ValueError(f"A time-lapse needs embryos, each with a name of its own; there are {names}.")
