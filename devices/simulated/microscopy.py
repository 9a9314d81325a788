"""Draws what the cameras see of the embryos: two light-sheet views from the side, one bright field from
below.

Knows light sheet, focus and pixel sizes; how a frame came to be exposed it is told. Nuclei are Gaussian
blobs, so a frame costs a few small outer products.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from devices.configuration import Configuration
from devices.simulated.embryo import SEMI_AXES_UM, Embryo
from devices.simulated.scene import Frame, FrameContext, Sensor

SHEET_SIGMA_UM = 1.8
"""Half thickness of the light sheet."""
DEPTH_OF_FOCUS_UM = 6.0
EMISSION = {"405": 0.1, "488": 1.0, "561": 0.6, "637": 0.1}
"""Counts of a nucleus' middle, relative to 488 nm, for the same power and exposure."""
COUNTS = 28.0
"""Of the middle of a nucleus for 1 percent of 488 nm and 1 ms."""


class Microscopy:
    """A frame source: embryos under a diSPIM.

    Parameters
    ----------
    configuration
        Pixel sizes, sensors, where the embryos are.
    """

    def __init__(self, configuration: Configuration) -> None:
        simulation = configuration.simulation
        self._cameras = {
            "A": configuration.camera_a,
            "B": configuration.camera_b,
            "bottom": configuration.bottom_camera,
        }
        self._sensor = Sensor(simulation.seed)
        self._embryos: Sequence[Embryo] = [
            Embryo(position, seed=simulation.seed + 100 + i, age=3.4 + 0.3 * i)
            for i, position in enumerate(simulation.embryos_um.values())
        ]

    def __call__(self, context: FrameContext) -> Frame:
        """Draw a frame.

        Returns
        -------
        NDArray
            (y, x), uint16, camera counts.
        """
        frame = self._sensor.dark(context)
        if context.view == "bottom":
            self._bright_field(frame, context)
            return frame
        light = sum(EMISSION.get(line, 0.1) * percent for line, percent in context.powers.items())
        if light > 0:
            for embryo in self._embryos:
                self._light_sheet(frame, context, embryo, light * context.exposure_ms * COUNTS)
        return frame

    def _light_sheet(self, frame: Frame, context: FrameContext, embryo: Embryo, counts: float) -> None:
        nuclei = embryo.nuclei(context.elapsed_s)
        middle = np.array([*embryo.position_um, 0.0]) - np.array(context.stage_um)
        center = _from_the_side(middle[None], context.view)[0]
        if abs(center[2] - context.sheet_um) > SEMI_AXES_UM[0] + 3 * SHEET_SIGMA_UM:
            return
        um = self._pixel_um(context)
        patch = _Patch.around(center[:2], SEMI_AXES_UM[0] + 4.0, um, self._axis_px(context), context)
        if patch is None:
            return
        light = self._cytoplasm(patch, context, embryo, middle) * (0.06 * counts)
        places = _from_the_side(nuclei.centers_um + middle, context.view)
        lit = np.exp(-0.5 * ((places[:, 2] - context.sheet_um) / (SHEET_SIGMA_UM + 0.5 * nuclei.radius_um)) ** 2)
        out_of_focus = (places[:, 2] - context.focus_um) / DEPTH_OF_FOCUS_UM
        sigma = 0.55 * nuclei.radius_um * np.sqrt(1 + out_of_focus**2)
        strength = counts * nuclei.brightness * lit / (1 + out_of_focus**2)
        for place, width, amount in zip(places, sigma, strength, strict=True):
            if amount > 1.0:
                patch.blob(light, place[:2], width, amount)
        self._sensor.expose(frame, light, patch.at, context)

    def _cytoplasm(
        self, patch: "_Patch", context: FrameContext, embryo: Embryo, middle: NDArray[np.float64]
    ) -> NDArray[np.float32]:
        """Cut of the light sheet through the shell, (y, x) of the patch, 0 to 1."""
        rows, columns = patch.rows_um[:, None], patch.columns_um[None, :]
        x, y, z = _from_above(rows, columns, context.sheet_um, context.view)
        cosine, sine = np.cos(embryo.angle), np.sin(embryo.angle)
        x, y, z = x - middle[0], y - middle[1], z - middle[2]
        along, across = cosine * x + sine * y, cosine * y - sine * x
        inside = 1 - (along / SEMI_AXES_UM[0]) ** 2 - (across / SEMI_AXES_UM[1]) ** 2 - (z / SEMI_AXES_UM[2]) ** 2
        cut: NDArray[np.float32] = np.clip(inside * 4, 0, 1).astype(np.float32)
        return cut

    def _bright_field(self, frame: Frame, context: FrameContext) -> None:
        if context.lamp_percent <= 0:
            return
        level = min(30000.0, 40.0 * context.lamp_percent * context.exposure_ms)
        np.add(frame, np.uint16(level), out=frame)
        um = self._pixel_um(context)
        blur = 1 + abs(context.stage_um[2]) / 20
        for embryo in self._embryos:
            middle = np.array(embryo.position_um) - np.array(context.stage_um[:2])
            patch = _Patch.around(middle[::-1], SEMI_AXES_UM[0] + 8.0, um, self._axis_px(context), context)
            if patch is None:
                continue
            x, y = patch.columns_um[None, :] - middle[0], patch.rows_um[:, None] - middle[1]
            cosine, sine = np.cos(embryo.angle), np.sin(embryo.angle)
            along, across = (
                (cosine * x + sine * y) / SEMI_AXES_UM[0],
                (cosine * y - sine * x) / SEMI_AXES_UM[1],
            )
            shade = 0.45 / (1 + np.exp(((along**2 + across**2) - 1) * 12 / blur))
            part = frame[patch.slices]
            part[...] = (part * (1 - shade)).astype(np.uint16)

    def _pixel_um(self, context: FrameContext) -> float:
        camera = self._cameras[context.view]
        return camera.pixel_um / camera.magnification * context.binning

    def _axis_px(self, context: FrameContext) -> tuple[float, float]:
        """Where the optical axis is, (y, x), in pixels of the frame."""
        if context.view == "bottom":
            width, height = self._cameras["bottom"].sensor_px
            x, y = width / 2, height / 2
        else:
            roi = self._cameras[context.view].roi
            x, y = roi[0] + roi[2] / 2, roi[1] + roi[3] / 2
        return y / context.binning - context.roi[1], x / context.binning - context.roi[0]


class _Patch:
    """A part of a frame, and where its pixels are in micrometer from the optical axis."""

    def __init__(self, y: slice, x: slice, um: float, axis_px: tuple[float, float]) -> None:
        self.slices = (y, x)
        self.at = (y.start, x.start)
        self.um = um
        self.rows_um = (np.arange(y.start, y.stop) - axis_px[0]) * um
        self.columns_um = (np.arange(x.start, x.stop) - axis_px[1]) * um

    @classmethod
    def around(
        cls,
        center_um: NDArray[np.float64],
        reach_um: float,
        um: float,
        axis_px: tuple[float, float],
        context: FrameContext,
    ) -> "_Patch | None":
        """Cut out the surroundings of a place (y, x); None when they are not in the frame."""
        spans = []
        for place, axis, size in zip(center_um, axis_px, context.shape, strict=True):
            start = max(0, int((place - reach_um) / um + axis))
            stop = min(size, int((place + reach_um) / um + axis) + 1)
            if start >= stop:
                return None
            spans.append(slice(start, stop))
        return cls(spans[0], spans[1], um, axis_px)

    def blob(
        self, light: NDArray[np.float32], place_um: NDArray[np.float64], sigma_um: float, amount: float
    ) -> None:
        """Add a Gaussian at (y, x), cut off at three sigma."""
        cuts, profiles = [], []
        for axis, place in ((self.rows_um, place_um[0]), (self.columns_um, place_um[1])):
            first = int(np.searchsorted(axis, place - 3 * sigma_um))
            last = int(np.searchsorted(axis, place + 3 * sigma_um))
            cuts.append(slice(first, last))
            profiles.append(np.exp(-0.5 * ((axis[first:last] - place) / sigma_um) ** 2).astype(np.float32))
        light[cuts[0], cuts[1]] += np.float32(amount) * profiles[0][:, None] * profiles[1][None, :]


def _from_the_side(places: NDArray[np.float64], view: str) -> NDArray[np.float64]:
    """Turn (n, 3) x, y, z into (n, 3) row, column and scan axis of a view, 45 degree from the vertical."""
    x, y, z = places.T
    side = 1.0 if view == "A" else -1.0
    return np.stack([(side * x + z) / np.sqrt(2), y, (side * x - z) / np.sqrt(2)], axis=1)


def _from_above(
    row: NDArray[np.float64], column: NDArray[np.float64], scan: float, view: str
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Turn row, column and scan axis of a view into x, y, z."""
    side = 1.0 if view == "A" else -1.0
    return side * (row + scan) / np.sqrt(2), column, (row - scan) / np.sqrt(2)
