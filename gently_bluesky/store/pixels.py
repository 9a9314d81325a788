"""Reading the pixels of a stored volume once, from end to end, at the speed of the disk: for their hash.

What was read is dropped from the page cache behind the reader, so that checking a night of data does not push out
what people look at.
"""

from collections.abc import Iterator
from pathlib import Path

import xxhash

from gently_bluesky.store.disk import forget_range

_BLOCK_BYTES = 8 << 20


def blocks(path: Path, offset: int, nbytes: int, *, size: int = _BLOCK_BYTES) -> Iterator[memoryview]:
    """Read a range of a file, in blocks of a size; each block is good until the next one is asked for.

    Raises
    ------
    EOFError
        The file ends before the range does.
    """
    buffer = memoryview(bytearray(min(size, max(nbytes, 1))))
    with path.open("rb", buffering=0) as file:
        file.seek(offset)
        done = 0
        while done < nbytes:
            wanted = min(len(buffer), nbytes - done)
            here = 0
            while here < wanted:
                came = file.readinto(buffer[here:wanted])
                if not came:
                    raise EOFError(
                        f"{path} ends at byte {offset + done + here}; it should reach {offset + nbytes}."
                    )
                here += came
            yield buffer[:here]
            forget_range(file.fileno(), offset + done, here)
            done += here


def pixel_hash(path: Path, offset: int, nbytes: int) -> str:
    """Give the xxh3-128 of pixels as they lie in a file, in hexadecimal; EOFError if the file is too short."""
    digest = xxhash.xxh3_128()
    for block in blocks(path, offset, nbytes):
        digest.update(block)
    return digest.hexdigest()
