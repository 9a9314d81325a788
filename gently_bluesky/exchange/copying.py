"""Pixels of others on their way into files of ours: read as those of linked runs are, and compared afterwards."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import xxhash
from numpy.typing import NDArray

from gently_bluesky.errors import GentlyError
from gently_bluesky.exchange.as_run import foreign_resource
from gently_bluesky.exchange.found import Image, Part, Remark, row_key
from gently_bluesky.read.assets import in_memory
from gently_bluesky.read.foreign import read_foreign
from gently_bluesky.read.run import Run
from gently_bluesky.store.layout import uri_path


class Copying:
    """Reads the images of a source, and remembers what they were.

    Parameters
    ----------
    folder
        That the names of files are relative to.
    """

    def __init__(self, folder: Path) -> None:
        self.left_out: list[Remark] = []
        self._folder = folder
        self._sums: dict[tuple[Any, ...], str] = {}

    def __call__(self, image: Image) -> Mapping[str, NDArray[Any]] | None:
        """Give the pixels of an image, by data key; None if they cannot be read, which is then told."""
        try:
            arrays = {part.key: self._array(image, part) for part in image.parts}
        except (GentlyError, OSError, ValueError, IndexError) as error:
            self.left_out.append(Remark("unreadable", image.file, str(error)))
            return None
        for key, array in arrays.items():
            self._sums[(*row_key(image.values), key)] = _sum_of(array)
        return arrays

    def _array(self, image: Image, part: Part) -> NDArray[Any]:
        mimetype, uri, parameters = foreign_resource(self._folder, image, part)
        path = uri_path(uri)
        assert path is not None
        array = in_memory(read_foreign(mimetype, path, parameters, 0, part.shape))
        if (array.shape, array.dtype.str) != (part.shape, part.dtype):
            raise ValueError(f"it holds {array.shape} {array.dtype}, and was {part.shape} {part.dtype} before")
        return array

    def compare(self, run: Run) -> list[tuple[Any, ...]]:
        """Hold what was stored, read back, against what was read before; give the rows that differ."""
        left = dict(self._sums)
        for name in run:
            stream = run[name]
            for key in stream.image_keys:
                for event, row in enumerate(stream.rows):
                    whose = (*row_key(row.data), key)
                    if left.get(whose) == _sum_of(stream.images(key).volume(event, include_bad=True)):
                        del left[whose]
        return list(dict.fromkeys(key[:-1] for key in left))


def _sum_of(array: NDArray[Any]) -> str:
    little = array.dtype.newbyteorder("<")
    return xxhash.xxh3_128_hexdigest(np.ascontiguousarray(array, little).data)
