"""A volume as an array in an event, with what its file says beside the pixels.

Documents name embryo and stage, files know when each frame was taken and which never came. Who stores a filled
event again keeps both; for everybody else it is an array.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from gently_bluesky.store.facts import Found


class VolumeArray(np.ndarray[Any, Any]):
    """Pixels, and what was found beside them; views and results of arithmetic know nothing of that."""

    found: Found | None = None

    @classmethod
    def of(cls, pixels: NDArray[Any], found: Found | None) -> "VolumeArray":
        """View an array as one, without a copy."""
        array = pixels.view(cls)
        array.found = found
        return array


def found_with(array: NDArray[Any]) -> Found | None:
    """Give what was found beside the pixels of an array; None for any array of others."""
    return array.found if isinstance(array, VolumeArray) else None
