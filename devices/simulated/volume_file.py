"""A frame source that serves the planes of a file, for those who would rather see their own data.

Knows the file and the dark frames in between; which plane is asked for, the context says.
"""

from pathlib import Path

import numpy as np
import tifffile

from devices.simulated.scene import Frame, FrameContext, Sensor
from gently_bluesky.errors import ConfigError


class VolumeFile:
    """Serves plane after plane of a volume; dark without laser.

    Parameters
    ----------
    path
        A TIFF whose first series is (z, y, x), uint8 or uint16.
    seed
        Of the noise around it.

    Raises
    ------
    ConfigError
        There is no such file, or it holds something else.
    """

    def __init__(self, path: Path, *, seed: int) -> None:
        try:
            volume = tifffile.imread(path)
        except (OSError, tifffile.TiffFileError) as error:
            raise ConfigError(f"simulation.volume_file: {path} cannot be read: {error}") from error
        if volume.ndim != 3 or volume.dtype not in (np.uint8, np.uint16):
            raise ConfigError(
                f"simulation.volume_file: {path} holds {volume.dtype} of shape {volume.shape}; "
                "what can be served is (z, y, x), uint8 or uint16"
            )
        self._volume = volume.astype(np.uint16, copy=False)
        self._sensor = Sensor(seed)

    def __call__(self, context: FrameContext) -> Frame:
        """Serve the plane of a frame, in the middle; planes behind the last one are dark.

        Returns
        -------
        NDArray
            (y, x), uint16.
        """
        frame = self._sensor.dark(context)
        if not context.powers or context.plane >= len(self._volume):
            return frame
        plane = self._volume[context.plane]
        here, there = [], []
        for size, extent in zip(frame.shape, plane.shape, strict=True):
            length = min(size, extent)
            here.append(slice((size - length) // 2, (size - length) // 2 + length))
            there.append(slice((extent - length) // 2, (extent - length) // 2 + length))
        frame[here[0], here[1]] = plane[there[0], there[1]]
        return frame
