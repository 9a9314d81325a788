"""Shards and pyramids: what zarr-python and numpy make of the same bytes."""

from pathlib import Path

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from gently_bluesky.errors import DamagedVolumeError, VolumeMissingError
from gently_bluesky.store import ngff
from gently_bluesky.store.disk import create_file
from gently_bluesky.store.facts import Geometry
from gently_bluesky.store.pyramid import Level, halved, halved_shape, levels_of
from gently_bluesky.store.shards import Grid, encode_shard, read_index, read_part
from gently_bluesky.store.strict_json import encode
from tests.data_rig import volume

SHAPES = [(4, 8, 16), (1, 1, 2), (9, 130, 257), (17, 128, 128), (8, 5, 300)]
DTYPES = ["<u2", "u1", "<i4", "<f4", "<f8", "<i8", "<c8", "?", "<f2"]


def stored(folder: Path, pixels: NDArray[np.generic], shard_planes: int | None = None) -> tuple[Grid, list[Path]]:
    """Store one volume as zarr-python finds it."""
    planes, height, width = pixels.shape
    grid = Grid.of(planes, (height, width), pixels.dtype)
    if shard_planes is not None:
        grid = Grid(planes, (height, width), pixels.dtype, grid.chunk, shard_planes)
    geometry = Geometry(pixels.shape, pixels.dtype)
    folder.mkdir()
    metadata = ngff.array(geometry, Level((planes, height, width), (1, 1, 1)), grid, 1)
    (folder / "zarr.json").write_bytes(encode(metadata))
    paths = []
    for shard in range(grid.shards):
        path = folder / "c" / "0" / str(shard) / "0" / "0"
        planes_of = grid.planes_of(shard)
        create_file(path, encode_shard(grid, pixels[planes_of.start : planes_of.stop]), folder / "new")
        paths.append(path)
    return grid, paths


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_zarr_python_reads_what_is_encoded(tmp_path: Path, shape: tuple[int, int, int], dtype: str) -> None:
    pixels = volume(1, shape, dtype)
    stored(tmp_path / "a", pixels, 8 if shape[0] > 8 else None)
    array = zarr.open_array(tmp_path / "a", mode="r")
    assert (array.shape, array.dtype) == ((1, *shape), pixels.dtype)
    np.testing.assert_array_equal(array[0], pixels)


# --- out again ----------------------------------------------------------------------------------------------


def part_of(grid: Grid, path: Path, planes: list[int], rows: range, columns: range) -> NDArray[np.generic]:
    out = np.zeros((len(planes), len(rows), len(columns)), grid.dtype)
    read_part(grid, path, planes, rows, columns, out)
    return out


@settings(max_examples=60)
@given(data=st.data())
def test_any_part_of_a_shard_is_what_numpy_gives(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    shape = (11, 140, 270)
    pixels = volume(1, shape)
    grid, (path,) = stored(tmp_path_factory.mktemp("a") / "a", pixels)
    planes = sorted(data.draw(st.sets(st.integers(0, shape[0] - 1), min_size=1)))
    spans = []
    for size in shape[1:]:
        start = data.draw(st.integers(0, size - 1))
        spans.append(range(start, data.draw(st.integers(start + 1, size))))
    part = part_of(grid, path, planes, *spans)
    rows, columns = spans
    np.testing.assert_array_equal(part, pixels[planes, rows.start : rows.stop, columns.start : columns.stop])


def test_a_flipped_bit_anywhere_is_an_error_that_names_the_file(tmp_path: Path) -> None:
    pixels = volume(1, (9, 130, 20))
    grid, (path,) = stored(tmp_path / "a", pixels)
    whole = path.read_bytes()
    for place in range(0, len(whole), 7):
        damaged = bytearray(whole)
        damaged[place] ^= 1 << place % 8
        path.write_bytes(damaged)
        with pytest.raises(DamagedVolumeError, match=r"0/0"):
            part_of(grid, path, list(range(9)), range(130), range(20))


def test_a_shard_cut_at_any_length_is_an_error(tmp_path: Path) -> None:
    grid, (path,) = stored(tmp_path / "a", volume(1, (2, 9, 20)))
    whole = path.read_bytes()
    for size in range(len(whole)):
        path.write_bytes(whole[:size])
        with pytest.raises(DamagedVolumeError, match=r"cut short|damaged"):
            read_index(grid, path)
    path.unlink()
    with pytest.raises(VolumeMissingError, match="not there"):
        read_index(grid, path)


def test_a_chunk_that_was_never_written_is_an_error_and_no_zeros(tmp_path: Path) -> None:
    grid, (path,) = stored(tmp_path / "a", volume(1, (2, 9, 20)))
    path.write_bytes(b"".join(encode_shard(grid, np.empty((0, 9, 20), "<u2"))))
    with pytest.raises(DamagedVolumeError, match=r"lacks chunk \(0, 0, 0\)"):
        part_of(grid, path, [0], range(9), range(20))


# --- smaller and smaller ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shape", "voxel", "factors"),
    [
        ((200, 2048, 2048), (1.0, 0.1625, 0.1625), [(1, 1, 1), (1, 2, 2), (1, 4, 4), (2, 8, 8)]),
        ((200, 1024, 1024), (0.2, 0.2, 0.2), [(1, 1, 1), (2, 2, 2), (4, 4, 4)]),
        ((200, 1024, 1024), (), [(1, 1, 1), (2, 2, 2), (4, 4, 4)]),
        ((1, 600, 100), (0.2, 0.2), [(1, 1, 1), (1, 2, 2), (1, 4, 4)]),
        ((1, 600, 1), (1.0, 9.0, 0.01), [(1, 1, 1), (1, 2, 1), (1, 4, 1)]),
        ((30, 256, 256), (1.0, 0.2, 0.2), [(1, 1, 1)]),
    ],
)
def test_levels_end_with_small_planes_and_make_voxels_cubes(
    shape: tuple[int, int, int], voxel: tuple[float, ...], factors: list[tuple[int, int, int]]
) -> None:
    assert [level.factors for level in levels_of(shape, np.dtype("<u2"), voxel)] == factors


@pytest.mark.parametrize("dtype", ["<u2", "u1", "<i2", "<i4", "<u4", "<f4", "<f8"])
@pytest.mark.parametrize("step", [(2, 2, 2), (1, 2, 2), (2, 1, 2)], ids=str)
def test_a_halved_block_is_the_mean_and_integers_are_rounded(step: tuple[int, int, int], dtype: str) -> None:
    low, high = (np.iinfo(dtype).min, np.iinfo(dtype).max) if dtype[-2] != "f" else (-1e3, 1e3)
    block = np.random.default_rng(1).uniform(low, high, (8, 12, 20)).astype(dtype)
    block[:2, :2, :2] = high
    out = np.empty(halved_shape(block.shape, step), dtype)
    halved(block, step, out)
    blocks = block.reshape(8 // step[0], step[0], 12 // step[1], step[1], 20 // step[2], step[2])
    mean = blocks.astype("f8").mean((1, 3, 5))
    np.testing.assert_allclose(out, mean if dtype[-2] == "f" else np.floor(mean + 0.5), rtol=1e-4, atol=1e-2)


def test_odd_rows_columns_and_planes_count_with_their_neighbours(tmp_path: Path) -> None:
    block = np.full((3, 5, 7), 9, "<u2")
    out = np.zeros(halved_shape(block.shape, (2, 2, 2)), "<u2")
    assert out.shape == (2, 3, 4)
    halved(block, (2, 2, 2), out)
    assert (out == 9).all()
