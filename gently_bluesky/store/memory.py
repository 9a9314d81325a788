"""Memory for frames that gather until they are written, used again: what is new to a process is ten times slower.

What is given back stays with the process, up to a bound, for whichever volume comes next. Knows nothing of what is
in it.
"""

import math
import threading

import numpy as np
from numpy.typing import DTypeLike, NDArray

IDLE_BYTES = 512 << 20
"""Of all that waits to be used again, at most: two cameras' worth of shards."""

_idle: list[NDArray[np.uint8]] = []
_lock = threading.Lock()


def take(shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[np.generic]:
    """Give an array with anything in it; `give_back` takes it, or any part of it that starts where it starts."""
    nbytes = math.prod(shape) * np.dtype(dtype).itemsize
    with _lock:
        found = next((number for number, each in enumerate(_idle) if each.nbytes == nbytes), None)
        whole = np.empty(nbytes, np.uint8) if found is None else _idle.pop(found)
    return whole.view(dtype).reshape(shape)


def give_back(array: NDArray[np.generic]) -> None:
    """Let others use the memory of an array that was taken; nobody may look at it any more."""
    whole = array.base
    assert isinstance(whole, np.ndarray), "it was taken"
    with _lock:
        _idle.append(whole)
        while sum(each.nbytes for each in _idle) > IDLE_BYTES:
            _idle.pop(0)
