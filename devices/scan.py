"""Programs the scanner's SPIM state machine and the piezos for a volume.

Knows the property names of the ASITiger adapter and which side is which; does not know cameras or frames. One
view is one side of the instrument: view A is scanned by scanner_a and piezo_a.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from devices.core import Core

IDLE, ARMED, RUNNING = "Idle", "Armed", "Running"


@dataclass(frozen=True, slots=True)
class Side:
    """How one side is scanned."""

    view: str
    """"A" or "B"."""
    scanner: str
    """Label of its galvos."""
    piezo: str
    """Label of its piezo."""
    galvo_amplitude_deg: float
    """Full range of the slice axis."""
    galvo_offset_deg: float
    piezo_amplitude_um: float
    """Full range: (slices - 1) * step."""
    piezo_offset_um: float


@dataclass(frozen=True, slots=True)
class ScanProgram:
    """How a volume is scanned.

    Parameters
    ----------
    sides
        In the order in which they are scanned.
    slices
        Planes of each side.
    sheet_width_deg, sheet_offset_deg
        Amplitude and offset of the axis that makes the sheet.
    timing_ms
        Of one slice, by the names of the adapter's properties.
    """

    sides: Sequence[Side]
    slices: int
    sheet_width_deg: float
    sheet_offset_deg: float
    timing_ms: Mapping[str, float]

    @property
    def period_ms(self) -> float:
        """From one plane to the next: as long as the longest of scan, laser and camera pulse takes."""
        return max(
            self.timing_ms[f"SPIMDelayBefore{part}(ms)"] + self.timing_ms[f"SPIM{part}Duration(ms)"]
            for part in ("Scan", "Laser", "Camera")
        )

    def load(self, core: Core) -> None:
        """Write it into the controller and arm the piezos; nothing moves.

        Parameters
        ----------
        core
            That reaches the controller.
        """
        self.idle(core)
        for side in self.sides:
            for name, value in self._scanner_properties(side).items():
                core.setProperty(side.scanner, name, value)
            core.setProperty(side.piezo, "SingleAxisAmplitude(um)", _text(side.piezo_amplitude_um))
            core.setProperty(side.piezo, "SingleAxisOffset(um)", _text(side.piezo_offset_um))
            core.setProperty(side.piezo, "SPIMNumSlices", str(self.slices))
            core.setProperty(side.piezo, "SPIMState", ARMED)

    def run(self, core: Core) -> None:
        """Start it: from here on the controller times everything."""
        core.setProperty(self.sides[0].scanner, "SPIMState", RUNNING)

    def idle(self, core: Core) -> None:
        """Bring the state machine to rest."""
        for side in self.sides:
            core.setProperty(side.scanner, "SPIMState", IDLE)

    def _scanner_properties(self, side: Side) -> dict[str, str]:
        return {
            "SPIMNumSlices": str(self.slices),
            "SPIMNumSides": str(len(self.sides)),
            "SPIMFirstSide": self.sides[0].view,
            "SingleAxisXAmplitude(deg)": _text(self.sheet_width_deg),
            "SingleAxisXOffset(deg)": _text(self.sheet_offset_deg),
            "SingleAxisYAmplitude(deg)": _text(side.galvo_amplitude_deg),
            "SingleAxisYOffset(deg)": _text(side.galvo_offset_deg),
            **{name: _text(value) for name, value in self.timing_ms.items()},
        }


def _text(value: float) -> str:
    return f"{value:.6g}"
