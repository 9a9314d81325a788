"""The galvo pairs that make the light sheet and move it.

Knows their positions and the offsets around which the scanner's state machine swings them; when that machine
runs is the volume's business.
"""

from contextlib import AbstractContextManager
from typing import Any

from ophyd import Component as Cpt
from ophyd import Kind, Signal

from devices.configuration import ScannerSettings
from devices.core import Connection
from devices.motion import Drive
from devices.signals import Property, PropertySignal
from devices.stage import AxisPair

DEGREE = "deg"


def _offset(axis: str) -> Cpt:
    return Cpt(
        PropertySignal,
        of=lambda scanner: Property(scanner.label, f"SingleAxis{axis}Offset(deg)"),
        units=DEGREE,
        precision=4,
        limits=lambda scanner: scanner.limits[0],
        kind=Kind.normal,
    )


class Scanner(AxisPair):
    """A pair of galvos: x makes the sheet, y moves it through the sample.

    Parameters
    ----------
    connection
        To the core.
    settings
        Label, limits in degree, tolerance, time-out.

    Notes
    -----
    `x` and `y` are positioners in degree. `x_offset_deg` and `y_offset_deg` are the centres of the scan; a
    galvo whose adapter has no such properties is a `StillScanner`.
    """

    x_offset_deg = _offset("X")
    y_offset_deg = _offset("Y")

    def __init__(self, *, name: str, connection: Connection, settings: ScannerSettings, **kwargs: Any) -> None:
        core, label = connection.core, settings.label
        self.label = label
        drive = Drive(
            label=label,
            read=lambda: core.getGalvoPosition(label),
            send=lambda targets: core.setGalvoPosition(label, targets[0], targets[1]),
            busy=lambda: core.deviceBusy(label),
            halt=lambda: None,  # a galvo is there before anybody could stop it, and MMCore stops stages only
            tolerance=settings.tolerance_deg,
            timeout_s=settings.timeout_s,
        )
        limits = (settings.limits_deg, settings.limits_deg)
        super().__init__(name=name, connection=connection, drive=drive, limits=limits, egu=DEGREE, **kwargs)

    def changing(self, signal: Signal, _value: Any) -> AbstractContextManager[None]:
        """Let an offset be changed while the block runs.

        Raises
        ------
        ExposingError
            It swings around it for a volume that is being taken.
        """
        return self.connection.underway.change(signal.name, self.label)


class StillScanner(Scanner):
    """A pair of galvos without a state machine, as Micro-Manager's demo galvo: positions only."""

    x_offset_deg = None
    y_offset_deg = None
