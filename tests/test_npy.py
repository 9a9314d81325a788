from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from gently_bluesky.store.facts import Geometry
from gently_bluesky.store.formats import FORMATS
from gently_bluesky.store.npy import NpyFile
from tests.data_rig import facts


@pytest.mark.parametrize("dtype", ["<i8", "<u8", "|b1", "<f2", "<c8", "<c16", "<u2", "|i1", "<f8"])
@pytest.mark.parametrize("shape", [(7,), (3, 4), (2, 3, 4), (2, 1, 2, 3, 4), (1, 1)])
def test_numpy_loads_and_maps_what_was_written(tmp_path: Path, shape: tuple[int, ...], dtype: str) -> None:
    pixels = (np.arange(np.prod(shape)).reshape(shape) % 5).astype(dtype)
    file = NpyFile(tmp_path / "v.npy", Geometry(shape, np.dtype(dtype)), facts())
    np.testing.assert_array_equal(np.load(tmp_path / "v.npy"), np.zeros(shape, dtype))
    with ThreadPoolExecutor(1) as pool:
        for number, plane in enumerate(pixels.reshape(-1, *shape[-2:])):
            file.write(number, plane.reshape(-1).view(np.uint8).data, 1.0, pool)
    file.complete([1.0], None, durable=True)
    file.close()
    loaded = np.load(tmp_path / "v.npy", mmap_mode="r", allow_pickle=False)
    assert loaded.dtype == np.dtype(dtype)
    np.testing.assert_array_equal(loaded, pixels)
    offset = file.manifest["offset"]
    assert offset % 4096 == 0
    np.testing.assert_array_equal(np.memmap(tmp_path / "v.npy", dtype, "r", offset, shape), pixels)


@pytest.mark.parametrize(
    ("shape", "dtype", "suffix", "mimetype"),
    [
        ((2, 3, 4), "<u2", ".ome.tif", "multipart/related;type=image/tiff"),
        ((2, 3, 4), "<i8", ".npy", "multipart/related;type=application/x-npy"),
        ((4,), "<u2", ".npy", "multipart/related;type=application/x-npy"),
    ],
)
def test_a_store_says_what_tiled_needs_to_find_its_files(
    tmp_path: Path, shape: tuple[int, ...], dtype: str, suffix: str, mimetype: str
) -> None:
    store = FORMATS["ome-tiff"](lambda suffix: tmp_path, Geometry(shape, np.dtype(dtype)))
    file = store.create(12, facts())
    file.close()
    assert store.mimetype == mimetype
    assert store.parameters["chunk_shape"] == [1, *shape]
    assert store.parameters["join_method"] == "stack"
    assert file.path.name == store.parameters["template"].format(12) == f"000012{suffix}"
