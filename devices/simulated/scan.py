"""The SPIM state machine of the Tiger controller's scanner: when it pulses a camera, and where the sheet is
then.

Reads the properties that the ASITiger adapter has; does not know cameras or pixels.
"""

from collections.abc import Mapping
from dataclasses import dataclass

Properties = Mapping[str, str]

TRUE_UM_PER_DEG = 100.0
"""How far one degree of the galvo moves the sheet, whatever the calibration says."""

SCANNER_PROPERTIES = {
    "SPIMState": "Idle",
    "SPIMNumSlices": "1",
    "SPIMNumSides": "1",
    "SPIMFirstSide": "A",
    "SPIMDelayBeforeScan(ms)": "0",
    "SPIMScanDuration(ms)": "1",
    "SPIMDelayBeforeLaser(ms)": "0",
    "SPIMLaserDuration(ms)": "1",
    "SPIMDelayBeforeCamera(ms)": "0",
    "SPIMCameraDuration(ms)": "1",
    "SingleAxisXAmplitude(deg)": "0",
    "SingleAxisXOffset(deg)": "0",
    "SingleAxisYAmplitude(deg)": "0",
    "SingleAxisYOffset(deg)": "0",
}
_PIEZO_AXIS = ("SingleAxisOffset(um)", "SingleAxisAmplitude(um)")
PIEZO_PROPERTIES = {
    "SPIMState": "Idle",
    "SPIMNumSlices": "1",
    "SingleAxisAmplitude(um)": "0",
    "SingleAxisOffset(um)": "0",
}


@dataclass(frozen=True, slots=True)
class Pulse:
    """One pulse to a camera."""

    side: str
    """"A" or "B"."""
    plane: int
    """Slice, from 0."""
    at: float
    """On the monotonic clock, in seconds."""
    sheet_um: float
    """Where the light sheet is."""
    focus_um: float | None
    """Where the piezo is; None when it was not armed and stays."""


@dataclass(frozen=True, slots=True)
class Scan:
    """One run of the state machine."""

    pulses: tuple[Pulse, ...]
    ends: float
    """On the monotonic clock, in seconds."""


def start_scan(
    master: Properties, scanners: Mapping[str, Properties], piezos: Mapping[str, Properties], now: float
) -> Scan:
    """Work out a run of the state machine.

    Parameters
    ----------
    master
        Properties of the scanner that was told to run: it counts slices and sides.
    scanners, piezos
        Properties by side.
    now
        On the monotonic clock, in seconds.

    Returns
    -------
    Scan
        All its pulses in time order.
    """
    slices = int(master["SPIMNumSlices"])
    first = master["SPIMFirstSide"]
    sides = [first] if int(master["SPIMNumSides"]) == 1 else [first, "B" if first == "A" else "A"]
    parts = (("Scan", "Scan"), ("Laser", "Laser"), ("Camera", "Camera"))
    period = max(
        float(master[f"SPIMDelayBefore{delay}(ms)"]) + float(master[f"SPIM{duration}Duration(ms)"])
        for delay, duration in parts
    )
    camera = float(master["SPIMDelayBeforeCamera(ms)"])
    pulses = []
    for turn, side in enumerate(sides):
        scanner, piezo = scanners[side], piezos[side]
        for plane in range(slices):
            along = plane / (slices - 1) - 0.5 if slices > 1 else 0.0
            galvo = _swing(scanner, "SingleAxisYOffset(deg)", "SingleAxisYAmplitude(deg)", along)
            armed = piezo["SPIMState"] == "Armed"
            pulses.append(
                Pulse(
                    side=side,
                    plane=plane,
                    at=now + ((turn * slices + plane) * period + camera) / 1000,
                    sheet_um=galvo * TRUE_UM_PER_DEG,
                    focus_um=_swing(piezo, *_PIEZO_AXIS, along) if armed else None,
                )
            )
    return Scan(tuple(pulses), ends=now + len(pulses) * period / 1000)


def _swing(properties: Properties, offset: str, amplitude: str, along: float) -> float:
    return float(properties[offset]) + along * float(properties[amplitude])
