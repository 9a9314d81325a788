"""Shards of a Zarr v3 array: blocks of planes as files, cut into chunks that are compressed one by one.

Encodes and decodes what the `sharding_indexed` codec says, with Blosc and a crc32c a chunk, the index at the end.
Knows bytes and shapes; knows nothing of stores, events or files' names. A chunk that is not there, or is not what
was written, is an error, never zeros.

Source: Zarr core specification 3.0; sharding codec 1.0; blosc and crc32c codecs 1.0. Written and read here because
the same bytes take half the time that zarr-python's fastest pipeline takes (tests/benchmarks).
"""

import contextlib
import itertools
import math
import os
import struct
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import google_crc32c
import numpy as np
import xxhash
from numcodecs import blosc
from numpy.typing import NDArray

from gently_bluesky.errors import DamagedVolumeError, VolumeMissingError
from gently_bluesky.store.disk import PAGE, forget_range, read_at

CHUNK = (8, 128, 128)
"""Planes, rows and columns of a chunk: of a volume of 200 x 2048 x 2048 in 16 bits, a plane along z decodes
64 MiB, one along y or x 100 MiB. See the table of chunkings in the README."""

SHARD_BYTES = 64 << 20
"""How much of an array goes into one file, at most, if that is not less than one layer of chunks."""

_EMPTY = 2**64 - 1  # offset and size of a chunk that was not written
_CRC = struct.Struct("<I")
_BLOSC_BYTES = slice(4, 8)  # of the header of what Blosc packed: how many bytes it was
_IN_TURN = 4  # chunks that are not worth a thread


@dataclass(frozen=True, slots=True)
class Grid:
    """How the planes of one volume lie in shards and chunks.

    Attributes
    ----------
    planes, plane_shape, dtype
        Of the volume: planes (y, x) one after the other.
    chunk
        (planes, y, x) of a chunk.
    shard_planes
        Planes of a shard, a multiple of those of a chunk; a shard spans whole planes.
    """

    planes: int
    plane_shape: tuple[int, int]
    dtype: np.dtype[Any]
    chunk: tuple[int, int, int]
    shard_planes: int

    @classmethod
    def of(cls, planes: int, plane_shape: tuple[int, int], dtype: np.dtype[Any]) -> "Grid":
        """Choose chunks and shards for a volume."""
        chunk = tuple(min(most, size) for most, size in zip(CHUNK, (planes, *plane_shape), strict=True))
        layer = chunk[0] * math.prod(plane_shape) * dtype.itemsize
        layers = max(1, min(SHARD_BYTES // layer, -(-planes // chunk[0])))
        return cls(planes, plane_shape, dtype, cast(tuple[int, int, int], chunk), layers * chunk[0])

    @property
    def shards(self) -> int:
        """How many there are."""
        return -(-self.planes // self.shard_planes)

    @property
    def shard_shape(self) -> tuple[int, int, int]:
        """(planes, y, x), whole chunks, so perhaps more than there are."""
        height, width = (
            -(-size // chunk) * chunk for size, chunk in zip(self.plane_shape, self.chunk[1:], strict=True)
        )
        return self.shard_planes, height, width

    @property
    def chunks(self) -> tuple[int, int, int]:
        """How many chunks a shard has along each axis."""
        return cast(
            tuple[int, int, int],
            tuple(size // chunk for size, chunk in zip(self.shard_shape, self.chunk, strict=True)),
        )

    @property
    def index_bytes(self) -> int:
        """Size of the index at the end of a shard."""
        return 16 * math.prod(self.chunks) + _CRC.size

    @property
    def most_chunk_bytes(self) -> int:
        """What a chunk takes at most, its checksum included, if it cannot be compressed."""
        return math.prod(self.chunk) * self.dtype.itemsize + int(blosc.MAX_OVERHEAD) + _CRC.size

    @property
    def most_bytes(self) -> int:
        """What all shards of a volume take on the disk at most, folders included, if nothing can be compressed."""
        chunks = -(-self.planes // self.chunk[0]) * math.prod(self.chunks[1:])
        return chunks * self.most_chunk_bytes + self.shards * (self.index_bytes + 3 * PAGE)

    def planes_of(self, shard: int) -> range:
        """Give the planes of a shard."""
        first = shard * self.shard_planes
        return range(first, min(first + self.shard_planes, self.planes))


# --- into bytes ---------------------------------------------------------------------------------------------


class _Scratch(threading.local):
    """Memory of each thread that encodes, used again and again: new memory is slow."""

    def __init__(self) -> None:
        self.chunk: NDArray[Any] = np.empty((0, 0, 0))
        self.shard = bytearray()

    def chunk_of(self, grid: Grid) -> NDArray[Any]:
        if (self.chunk.shape, self.chunk.dtype) != (grid.chunk, grid.dtype):
            self.chunk = np.empty(grid.chunk, grid.dtype)
        return self.chunk

    def shard_of(self, grid: Grid) -> memoryview:
        most = math.prod(grid.chunks) * grid.most_chunk_bytes
        if len(self.shard) < most:
            self.shard = bytearray(most)  # only what is written to takes memory
        return memoryview(self.shard)


_scratch = _Scratch()


def encode_shard(grid: Grid, block: NDArray[Any]) -> list[bytes | memoryview]:
    """Give the bytes of one shard, in pieces, which are good until the thread encodes another.

    Parameters
    ----------
    grid
        What it is a shard of.
    block
        (planes, y, x): all planes of the shard; the last shard of a volume may have fewer.
    """
    packed, chunk = _scratch.shard_of(grid), _scratch.chunk_of(grid)
    index = np.full((math.prod(grid.chunks), 2), _EMPTY, "<u8")
    offset = 0
    for number, place in enumerate(itertools.product(*map(range, grid.chunks))):
        if place[0] * grid.chunk[0] >= len(block):
            break  # beyond the end of the volume
        part = block[tuple(slice(at * size, (at + 1) * size) for at, size in zip(place, grid.chunk, strict=True))]
        if part.shape != grid.chunk:  # at an edge: chunks are whole in every file
            chunk[...] = 0
        chunk[tuple(map(slice, part.shape))] = part
        piece = blosc.compress(chunk, b"lz4", 1, blosc.BITSHUFFLE, 0, grid.dtype.itemsize)
        end = offset + len(piece)
        packed[offset:end] = piece
        _CRC.pack_into(packed, end, google_crc32c.value(piece))
        index[number] = offset, len(piece) + _CRC.size
        offset = end + _CRC.size
    table = index.tobytes()
    return [packed[:offset], table + _CRC.pack(google_crc32c.value(table))]


def codecs(grid: Grid) -> list[dict[str, Any]]:
    """Give the codecs of the array's metadata; an array with more axes has longer chunks, with ones in front."""
    crc: dict[str, Any] = {"name": "crc32c"}
    little = {"name": "bytes", "configuration": {"endian": "little"}}
    packing = {
        "cname": "lz4",
        "clevel": 1,
        "shuffle": "bitshuffle",
        "typesize": grid.dtype.itemsize,
        "blocksize": 0,
    }
    return [
        {
            "name": "sharding_indexed",
            "configuration": {
                "chunk_shape": list(grid.chunk),
                "codecs": [little, {"name": "blosc", "configuration": packing}, crc],
                "index_codecs": [little, crc],
                "index_location": "end",
            },
        }
    ]


# --- out of bytes -------------------------------------------------------------------------------------------


def read_index(grid: Grid, path: Path) -> NDArray[np.uint64]:
    """Read where the chunks of a shard lie: (chunk, 2), offset and size in bytes.

    Raises
    ------
    VolumeMissingError
        The file is not there.
    DamagedVolumeError
        It was cut short, or its index has changed.
    """
    with _opened(grid, path) as (_, index):
        return index


@contextlib.contextmanager
def _opened(grid: Grid, path: Path) -> Iterator[tuple[int, NDArray[np.uint64]]]:
    """Give the descriptor of a shard, and its index: of one file, whatever has its name meanwhile."""
    try:
        file = path.open("rb", buffering=0)
    except FileNotFoundError as error:
        raise VolumeMissingError(f"{path} is not there: the store is gone, or was cut short.") from error
    with file:
        size = file.seek(0, os.SEEK_END)
        if size < grid.index_bytes:
            raise DamagedVolumeError(f"{path} was cut short: it has {size} bytes.")
        file.seek(-grid.index_bytes, os.SEEK_END)
        table = file.read(grid.index_bytes)
        body = table[: -_CRC.size]
        if _CRC.pack(google_crc32c.value(body)) != table[-_CRC.size :]:
            raise DamagedVolumeError(f"{path} is damaged: the index at its end is not what was written.")
        yield file.fileno(), np.frombuffer(body, "<u8").reshape(-1, 2)


def read_part(
    grid: Grid,
    path: Path,
    planes: Sequence[int],
    rows: range,
    columns: range,
    out: NDArray[Any],
    pool: Executor | None = None,
) -> None:
    """Decode a part of a shard.

    Parameters
    ----------
    grid, path
        The shard.
    planes
        Which planes of the shard, from 0, ascending.
    rows, columns
        Of those planes, without steps.
    out
        (len(planes), len(rows), len(columns)); where they go.
    pool
        Decodes chunks beside each other; None: one after the other.

    Raises
    ------
    VolumeMissingError, DamagedVolumeError
        As `read_index` raises them; or a chunk is missing, or is not what was written.
    """
    layers = [(layer, list(members)) for layer, members in itertools.groupby(planes, lambda z: z // grid.chunk[0])]
    wanted = [
        (layer, row, column, members)
        for layer, members in layers
        for row in _chunks_in(rows, grid.chunk[1])
        for column in _chunks_in(columns, grid.chunk[2])
    ]
    first = {layer: planes.index(members[0]) for layer, members in layers}
    with _opened(grid, path) as (descriptor, index):

        def take(layer: int, row: int, column: int, members: list[int]) -> None:
            chunk = _decode_chunk(grid, path, descriptor, index, (layer, row, column))
            inside_y, outside_y = _overlap(rows, row, grid.chunk[1])
            inside_x, outside_x = _overlap(columns, column, grid.chunk[2])
            lo = first[layer]
            local = [z - layer * grid.chunk[0] for z in members]
            picked = chunk[local[0] : local[-1] + 1] if _is_run(local) else chunk[local]
            out[lo : lo + len(members), outside_y, outside_x] = picked[:, inside_y, inside_x]

        if pool is None or len(wanted) <= _IN_TURN:
            for each in wanted:
                take(*each)
        else:
            for done in [pool.submit(_several, take, group) for group in _shares(wanted)]:
                done.result()


def _several(take: Any, group: Sequence[tuple[Any, ...]]) -> None:
    for each in group:
        take(*each)


def _shares(wanted: Sequence[tuple[Any, ...]]) -> Iterator[Sequence[tuple[Any, ...]]]:
    size = max(1, -(-len(wanted) // 16))
    return (wanted[at : at + size] for at in range(0, len(wanted), size))


def _is_run(numbers: Sequence[int]) -> bool:
    return numbers[-1] - numbers[0] + 1 == len(numbers)


def _chunks_in(wanted: range, size: int) -> range:
    return range(wanted.start // size, -(-wanted.stop // size))


def _overlap(wanted: range, number: int, size: int) -> tuple[slice, slice]:
    """Give where a chunk and what is wanted meet: within the chunk, and within what is wanted."""
    low, high = max(wanted.start, number * size), min(wanted.stop, (number + 1) * size)
    return slice(low - number * size, high - number * size), slice(low - wanted.start, high - wanted.start)


def _decode_chunk(
    grid: Grid, path: Path, descriptor: int, index: NDArray[np.uint64], place: tuple[int, int, int]
) -> NDArray[Any]:
    piece = _packed_chunk(path, descriptor, index[np.ravel_multi_index(place, grid.chunks)], place)
    packed = memoryview(piece)[: -_CRC.size]
    chunk = np.empty(grid.chunk, grid.dtype)
    holds = int.from_bytes(packed[_BLOSC_BYTES], "little")
    if holds != chunk.nbytes:
        raise DamagedVolumeError(f"{path} is another shard: chunk {place} holds {holds} bytes of {chunk.nbytes}.")
    try:
        blosc.decompress(packed, chunk)
    except (RuntimeError, ValueError) as error:
        raise DamagedVolumeError(f"{path} is damaged: chunk {place} cannot be decoded ({error}).") from error
    return chunk


def _packed_chunk(path: Path, descriptor: int, where: NDArray[np.uint64], place: tuple[int, ...]) -> bytes:
    """Read a chunk and the checksum behind it, which is right."""
    offset, size = (int(value) for value in where)
    if offset == _EMPTY:
        raise DamagedVolumeError(f"{path} lacks chunk {place}: it was never written.")
    piece = read_at(descriptor, size, offset)
    if len(piece) != size or _CRC.pack(google_crc32c.value(piece[: -_CRC.size])) != piece[-_CRC.size :]:
        raise DamagedVolumeError(f"{path} is damaged: chunk {place} is not what was written.")
    return piece


def mark_of(pieces: Sequence[bytes | memoryview]) -> str:
    """Give what tells an encoded shard from any other: the xxh3-64 of the checksums of its chunks."""
    packed, table = pieces
    ends = (offset + size for offset, size in np.frombuffer(table[: -_CRC.size], "<u8").reshape(-1, 2).tolist())
    return xxhash.xxh3_64_hexdigest(b"".join(packed[end - _CRC.size : end] for end in ends if end < _EMPTY))


def hold_shard(grid: Grid, path: Path, mark: str | None) -> None:
    """Hold the chunks that a shard has against their checksums, without decoding them.

    Parameters
    ----------
    grid, path
        The shard.
    mark
        As `mark_of` gave it when the shard was written; None: not known.

    Raises
    ------
    VolumeMissingError, DamagedVolumeError
        As `read_part` raises them; or it is another shard.
    """
    sums = xxhash.xxh3_64()
    with _opened(grid, path) as (descriptor, index):
        for where, place in zip(index, itertools.product(*map(range, grid.chunks)), strict=True):
            if where[0] != _EMPTY:
                sums.update(_packed_chunk(path, descriptor, where, place)[-_CRC.size :])
    if mark not in {None, sums.hexdigest()}:
        raise DamagedVolumeError(f"{path} is another shard than was written there.")
    forget_shard(path)


def forget_shard(path: Path) -> None:
    """Let the page cache drop a shard that is on disk already."""
    with path.open("rb", buffering=0) as file:
        forget_range(file.fileno(), 0, file.seek(0, os.SEEK_END))
