"""What can be made to go wrong in the simulated hardware.

Faults stand at the lowest seam: everything above the core is the code that runs on the instrument. They stay
until they are taken away.
"""

from dataclasses import dataclass, field, fields


@dataclass(slots=True)
class Faults:
    """The faults of a simulated core; empty at the beginning, changed while it runs."""

    missed_triggers: set[tuple[str, int]] = field(default_factory=set)
    """Camera and frame, from 0: the camera does not see this pulse, and counts on as if it had not been."""
    lost_frames: set[tuple[str, int]] = field(default_factory=set)
    """Camera and frame, from 0: exposed and counted, and lost before it reached the buffer."""
    silent_after: dict[str, int] = field(default_factory=dict)
    """Camera: it delivers so many frames of a sequence and then none, and says that it is running."""
    frame_shapes: dict[str, tuple[int, int]] = field(default_factory=dict)
    """Camera: frames come in this shape (y, x), whatever the region of interest says."""
    shallow: set[str] = field(default_factory=set)
    """Cameras that deliver 8 bits a pixel, and say so."""
    overflow_after: int | None = None
    """The circular buffer overflows after so many frames of a sequence, of all cameras together."""
    stuck: set[str] = field(default_factory=set)
    """Stages that set out, stay busy and never arrive."""
    ends_beside: dict[str, float] = field(default_factory=dict)
    """Stages that come to rest this far beside their target, in their unit."""
    failing_readings: set[tuple[str, str]] = field(default_factory=set)
    """Label and property that cannot be read; positions are "Position", "XYPosition" and "GalvoPosition"."""
    failing_writes: set[tuple[str, str]] = field(default_factory=set)
    """Label and property that refuse to be set."""
    refused_presets: set[tuple[str, str]] = field(default_factory=set)
    """Config group and preset that raise an error."""
    ignored_presets: set[tuple[str, str]] = field(default_factory=set)
    """Config group and preset that are taken without an error and without effect."""
    readout_delay_s: float = 0.0
    """Every frame arrives this much later than it should."""

    def clear(self) -> None:
        """Take all faults away."""
        fresh = Faults()
        for each in fields(self):
            setattr(self, each.name, getattr(fresh, each.name))
