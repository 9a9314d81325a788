"""NumPy's own file format, for arrays that OME has no words for: one dimension, more than four, 64-bit integers,
complex numbers.

The header is padded to a page, which the format allows, so that the data can be mapped where they lie.
Source: NumPy enhancement proposal 1 (NEP 1), format version 1.0.
"""

import math
from collections.abc import Iterator, Mapping
from concurrent.futures import Executor
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from gently_bluesky.store.disk import PAGE, BlockFile, Claim, claim_nothing, forget_pages
from gently_bluesky.store.facts import EventFacts, Found, FrameTimes, Geometry, VolumeFacts


class NpyFile:
    """One array being written as .npy; same interface as an OME-TIFF, without metadata."""

    format: ClassVar[str] = "npy"

    def __init__(
        self,
        path: Path,
        geometry: Geometry,
        facts: VolumeFacts,  # noqa: ARG002
        claim: Claim = claim_nothing,
    ) -> None:
        self.path = path
        self._geometry = geometry
        size = PAGE + geometry.nbytes
        claim(path, size)
        header = repr({"descr": geometry.dtype.str, "fortran_order": False, "shape": geometry.shape}).encode()
        magic = b"\x93NUMPY\x01\x00" + (PAGE - 10).to_bytes(2, "little")
        self._file = BlockFile(path, size, magic + header.ljust(PAGE - 11) + b"\n")

    @property
    def manifest(self) -> Mapping[str, Any]:
        """What a reader needs to map the pixels without parsing the file."""
        return {"offset": PAGE}

    def write(self, plane: int, data: memoryview, time: float, pool: Executor) -> None:  # noqa: ARG002
        """Write one plane."""
        offset = PAGE + plane * len(data)
        self._file.write(offset, data)
        self._file.push_behind(offset, len(data), pool)

    def complete(self, times: FrameTimes, event: EventFacts | None, *, durable: bool) -> None:  # noqa: ARG002
        """Make it durable; the format holds an array and no more."""
        self._file.reopen()
        (self._file.sync if durable else self._file.settle)()

    def planes(self, first: int) -> Iterator[NDArray[Any]]:
        """Read planes back, from one on, flattened."""
        geometry = self._geometry
        shape = (geometry.planes, math.prod(geometry.plane_shape))
        yield from np.memmap(self.path, geometry.dtype, "r", PAGE, shape)[first:]

    def forget(self) -> None:
        """Let the page cache drop it."""
        forget_pages(self.path)

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def examine(path: Path) -> Found:
    """Read how an array lies in a file; ValueError if it is no .npy file."""
    with path.open("rb") as file:
        version = np.lib.format.read_magic(file)
        if version != (1, 0):
            raise ValueError(f"{path} was not written here: its version is {version}")
        shape, fortran_order, dtype = np.lib.format.read_array_header_1_0(file)
        if fortran_order:
            raise ValueError(f"{path} was not written here: it is in Fortran order")
        return Found("npy", Geometry(shape, dtype), file.tell())
