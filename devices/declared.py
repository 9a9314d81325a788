"""A signal that is described by what was declared of it, not by a value that it happens to have.

Knows dtype, unit, limits and choices, and refuses what they do not allow; where the value is from, `signals`
knows.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal

from ophyd import Kind, Signal
from ophyd.utils import LimitError

from devices.monitored import Monitored
from gently_bluesky.errors import PresetError

type_names = {"f": "number", "i": "integer", "U": "string"}

Bounds = tuple[float, float]
DType = Literal["<f8", "<i8", "<U"]


class DeclaredSignal(Monitored, Signal):  # type: ignore[misc]
    """A signal whose description, bounds and choices are declared.

    Parameters
    ----------
    dtype_numpy
        "<f8", "<i8", or "<U" for text.
    shape
        Of the value; called with the parent, if it is a function.
    dims
        Names of the axes of an array.
    units
        Unit of the value; called with the parent, if it is a function.
    precision
        Decimal places that mean something.
    limits
        Lowest and highest value allowed, both inclusive; called with the parent, if it is a function.
    choices
        All values allowed, for text; called with the parent, if it is a function.
    check
        Called with the parent and the value to refuse what limits and choices cannot express.
    """

    def __init__(
        self,
        *,
        name: str,
        dtype_numpy: DType = "<f8",
        shape: Sequence[int] | Callable[[Any], Sequence[int]] = (),
        dims: Sequence[str] = (),
        units: str | Callable[[Any], str] | None = None,
        precision: int | None = None,
        limits: Bounds | Callable[[Any], Bounds] | None = None,
        choices: Sequence[str] | Callable[[Any], Sequence[str]] | None = None,
        check: Callable[[Any, Any], None] | None = None,
        kind: Kind = Kind.normal,
        **kwargs: Any,
    ) -> None:
        super().__init__(name=name, kind=kind, **kwargs)
        self._dtype_numpy = dtype_numpy
        self._shape = shape
        self._dims = tuple(dims)
        self._units = units
        self._precision = precision
        self._limits = limits
        self._choices = choices
        self._check = check

    @property
    def egu(self) -> str:
        """Unit of the value; empty when it has none."""
        if self._units is None:
            return ""
        return self._units(self.parent) if callable(self._units) else self._units

    @property
    def limits(self) -> Bounds:
        """Lowest and highest value allowed; (0, 0) means no limits, as everywhere in ophyd."""
        if self._limits is None:
            return (0, 0)
        return self._limits(self.parent) if callable(self._limits) else self._limits

    @property
    def choices(self) -> tuple[str, ...]:
        """The values allowed; empty when all are."""
        if self._choices is None:
            return ()
        return tuple(self._choices(self.parent) if callable(self._choices) else self._choices)

    def check_value(self, value: Any) -> None:
        """Refuse what is not allowed.

        Parameters
        ----------
        value
            What it would be set to.

        Raises
        ------
        PresetError
            Not one of the choices.
        LimitError
            Outside the limits, or not a number at all.
        """
        self._check_choices(value)
        if self._dtype_numpy != "<U" and self._shape == ():
            whole = self._dtype_numpy == "<i8"
            check_number(self.name, value, None if self._limits is None else self.limits, self.egu, whole=whole)
        if self._check is not None:
            self._check(self.parent, value)

    def _check_choices(self, value: Any) -> None:
        choices = self.choices
        if choices and value not in choices:
            raise PresetError(f"{self.name}: {value!r} is not a choice; there are {_listed(choices)}")

    def describe(self) -> dict[str, Any]:
        """Data key of the signal, without asking the hardware."""
        shape = list(self._shape(self.parent) if callable(self._shape) else self._shape)
        key: dict[str, Any] = {
            "source": self.source_name,
            "dtype": "array" if shape else type_names[self._dtype_numpy[1]],
            "dtype_numpy": self._described_dtype(),
            "shape": shape,
        }
        if self._dims:
            key["dims"] = list(self._dims)
        if self.egu:
            key["units"] = self.egu
        if self._precision is not None:
            key["precision"] = self._precision
        if self._limits is not None:
            low, high = self.limits
            key["limits"] = {"control": {"low": low, "high": high}}
        if self.choices:
            key["choices"] = list(self.choices)
        return {self.name: key}

    def _described_dtype(self) -> str:
        if self._dtype_numpy != "<U":
            return self._dtype_numpy
        return f"<U{max((len(choice) for choice in self.choices), default=64)}"

    def read(self) -> dict[str, dict[str, Any]]:
        """Reading of the signal: value and seconds since the epoch.

        Raises
        ------
        ReadingError
            The value could not be had.
        """
        value, timestamp = self.reading_now()
        return {self.name: {"value": value, "timestamp": timestamp}}

    def reading_now(self) -> tuple[Any, float]:
        """Value of the signal, and seconds since the epoch.

        Raises
        ------
        ReadingError
            The value could not be had.
        """
        return self.get(), self._read_at()

    def _read_at(self) -> float:
        return float(self.timestamp)


def check_number(name: str, value: Any, limits: Bounds | None, unit: str, *, whole: bool = False) -> None:
    """Refuse what is no number, or outside the limits.

    Parameters
    ----------
    name
        Of what it would be given to, for the message.
    value
        What it would be given.
    limits
        Lowest and highest value allowed, both inclusive; None: any.
    unit
        Of both; empty when they have none.
    whole
        Whether it must be a whole number.

    Raises
    ------
    LimitError
        It is outside, no number at all, or not a finite one.
    """
    if not _is_number(value, whole=whole):
        kind = f"a {'whole' if whole else 'finite'} number{f' of {unit}' if unit else ''}"
        raise LimitError(f"{name}: {value!r} is not {kind}")
    if limits is not None and not limits[0] <= value <= limits[1]:
        low, high = limits
        raise LimitError(f"{name}: asked for {value:g}, allowed are {low:g} to {high:g} {unit}".rstrip())


def _is_number(value: Any, *, whole: bool) -> bool:
    if isinstance(value, bool | str | bytes):
        return False
    try:
        number = float(value)
    except (TypeError, ValueError):
        return False
    return math.isfinite(number) and (not whole or number == int(number))


def _listed(choices: Iterable[str]) -> str:
    return ", ".join(repr(choice) for choice in choices)
