"""Reading the pixels of a stored volume once, from end to end, at the speed of the disk: for their hash.

What was read is dropped from the page cache behind the reader, so that checking a night of data does not push out
what people look at.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TypeVar

import xxhash

from gently_bluesky.store.disk import forget_range

_BLOCK_BYTES = 8 << 20

T = TypeVar("T")


def blocks(path: Path, offset: int, nbytes: int, *, size: int = _BLOCK_BYTES) -> Iterator[memoryview]:
    """Read a range of a file, in blocks of a size; each block is good until the next one is asked for.

    Raises
    ------
    EOFError
        The file ends before the range does.
    """
    buffers = [memoryview(bytearray(min(size, max(nbytes, 1)))) for _ in range(2)]
    with path.open("rb", buffering=0) as file:
        file.seek(offset)

        def fill(done: int) -> memoryview:
            block = buffers[done // size % 2][: min(size, nbytes - done)]
            here = 0
            while here < len(block):
                came = file.readinto(block[here:])
                if not came:
                    raise EOFError(
                        f"{path} ends at byte {offset + done + here}; it should reach {offset + nbytes}."
                    )
                here += came
            forget_range(file.fileno(), offset + done, here)
            return block

        yield from ahead(partial(fill, done) for done in range(0, nbytes, size))


def ahead(tasks: Iterable[Callable[[], T]]) -> Iterator[T]:
    """Give what tasks give, in order; a thread does the next while the last one's result is looked at."""
    with ThreadPoolExecutor(1, "gently-ahead") as pool:
        waiting: deque[Future[T]] = deque()
        for task in tasks:
            waiting.append(pool.submit(task))
            if len(waiting) > 1:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def pixel_hash(path: Path, offset: int, nbytes: int) -> str:
    """Give the xxh3-128 of pixels as they lie in a file, in hexadecimal; EOFError if the file is too short."""
    digest = xxhash.xxh3_128()
    for block in blocks(path, offset, nbytes):
        digest.update(block)
    return digest.hexdigest()
