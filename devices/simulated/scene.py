"""What one frame sees, and what a camera makes of it: the border between geometry and pixels.

Knows exposure, light and position of a frame; does not know how it came to be exposed.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Frame = NDArray[np.uint16]


@dataclass(frozen=True, slots=True)
class FrameContext:
    """Everything that decides what a frame shows."""

    camera: str
    """Label of the camera."""
    view: str
    """"A", "B" or "bottom"."""
    number: int
    """Position in its sequence, from 0; 0 for a single frame."""
    plane: int
    """Slice of the scan at which it was exposed, from 0; differs from `number` after a missed trigger."""
    elapsed_s: float
    """Time since the simulation began, in seconds."""
    roi: tuple[int, int, int, int]
    """x, y, width, height in binned pixels."""
    binning: int
    exposure_ms: float
    stage_um: tuple[float, float, float]
    """x and y of the stage, z of the bottom objective."""
    sheet_um: float
    """Where the light sheet is along the scan axis."""
    focus_um: float
    """Where the objective is focused along the scan axis."""
    powers: Mapping[str, float]
    """Laser lines that shine, and their power in percent."""
    lamp_percent: float
    """The lamp of the bottom camera; 0 when it is off."""

    @property
    def shape(self) -> tuple[int, int]:
        """Of the frame, (y, x)."""
        return self.roi[3], self.roi[2]


SPAN = 1 << 19  # samples within which the cut of the noise begins

FrameSource = Callable[[FrameContext], Frame]
"""What is seen by a camera: a frame (y, x) of camera counts for its context."""


class Sensor:
    """An sCMOS sensor: an offset, read noise, and shot noise where there is light.

    Parameters
    ----------
    seed
        Noise is the same for the same seed, camera and frame.
    offset
        Counts without light.
    read_noise
        Standard deviation without light, in counts.
    counts_per_electron
        Gain.

    Notes
    -----
    Noise is drawn once and cut at another place for each frame: drawing it anew would take longer than a
    frame takes on the instrument.
    """

    def __init__(
        self,
        seed: int,
        *,
        offset: float = 100.0,
        read_noise: float = 3.0,
        counts_per_electron: float = 2.0,
    ) -> None:
        self._seed = seed
        self._offset = offset
        self._read_noise = read_noise
        self._gain = counts_per_electron
        self._dark = np.empty(0, np.uint16)
        self._normal = np.random.default_rng(seed).standard_normal(1 << 20, np.float32)

    def dark(self, context: FrameContext) -> Frame:
        """Give a frame without light.

        Returns
        -------
        NDArray
            (y, x), uint16, counts; the caller's own.
        """
        height, width = context.shape
        size = height * width
        start = self._start(context, SPAN)
        if self._dark.size < size + (SPAN):
            noise = np.random.default_rng(self._seed + 1).standard_normal(size + (SPAN), np.float32)
            self._dark = np.clip(noise * self._read_noise + self._offset, 0, 65535).astype(np.uint16)
        return self._dark[start : start + size].reshape(height, width).copy()

    def expose(self, frame: Frame, light: NDArray[np.float32], at: tuple[int, int], context: FrameContext) -> None:
        """Add light, with its shot noise, to a part of a frame.

        Parameters
        ----------
        frame
            (y, x), changed in place.
        light
            (y, x) of the part, counts.
        at
            y and x of the part's first pixel.
        context
            Of the frame.
        """
        start = self._start(context, self._normal.size // 2)
        noise = np.resize(self._normal[start:], light.shape)
        counts = light + np.sqrt(light * self._gain) * noise
        part = frame[at[0] : at[0] + light.shape[0], at[1] : at[1] + light.shape[1]]
        part[...] = np.clip(part + counts, 0, 65535).astype(np.uint16)

    def _start(self, context: FrameContext, span: int) -> int:
        key = (
            self._seed,
            len(context.camera),
            sum(context.camera.encode()),
            context.number,
            int(context.elapsed_s),
        )
        return hash(key) % span
