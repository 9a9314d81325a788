"""One OME-Zarr of a time-lapse, as yaozarrs, zarr and dask read it, and the levels that it has."""

import json
from pathlib import Path
from typing import Any

import bluesky.plans as bp
import dask.array as da
import numpy as np
import pytest
import yaozarrs
import zarr

from gently_bluesky.errors import ExportError
from gently_bluesky.exchange.export_ome_zarr import ome_zarr
from gently_bluesky.exchange.selection import select
from gently_bluesky.store import shards
from gently_bluesky.store.pyramid import halved, levels_of, step_between
from tests.data_rig import SHAPE, Camera, inline, record, taken, volume
from tests.export_rig import hold_addresses, pixels, timelapse


def attributes(store: Path) -> Any:
    """The attributes of a group as any JSON parser reads them."""
    return json.loads((store / "zarr.json").read_text("utf-8"))["attributes"]


def test_many_events_are_one_image_of_t_c_z_y_x(root: Path, tmp_path: Path) -> None:
    paths = ome_zarr(select(timelapse(root)), tmp_path)
    assert [path.name for path in paths] == ["s_e1_t0000-0002.ome.zarr", "s_e2_t0000-0002.ome.zarr"]
    for embryo, path in enumerate(paths):
        yaozarrs.validate_zarr_store(path)
        array = zarr.open_array(path / "0", mode="r")
        assert array.metadata.dimension_names == ("t", "c", "z", "y", "x")  # type: ignore[union-attr]
        hold_addresses(np.asarray(array[:]), embryo=embryo)
        lazy: Any = da.from_zarr(path / "0")  # type: ignore[no-untyped-call]
        hold_addresses(lazy.compute(), embryo=embryo)


def test_it_says_what_its_axes_channels_and_times_are(root: Path, tmp_path: Path) -> None:
    run = timelapse(root, embryos=["e1"])
    (path,) = ome_zarr(select(run), tmp_path)
    said = attributes(path)
    (image,) = said["ome"]["multiscales"]
    assert [(axis["name"], axis["type"], axis.get("unit")) for axis in image["axes"]] == [
        ("t", "time", "second"),
        ("c", "channel", None),
        ("z", "space", "micrometer"),
        ("y", "space", "micrometer"),
        ("x", "space", "micrometer"),
    ]
    times = run["primary"].time.reshape(3, 2)
    (scale,) = image["datasets"][0]["coordinateTransformations"]
    assert scale["scale"] == [pytest.approx(float(np.median(np.diff(times[:, 0])))), 1.0, 0.5, 0.25, 0.25]
    channels = said["ome"]["omero"]["channels"]
    assert [channel["label"] for channel in channels] == ["A 488 only", "A 561 only", "B 488 only", "B 561 only"]
    shown = np.stack([pixels(0, t, 1, 0) for t in range(3)])
    window = {"min": 0, "max": 65535, "start": shown.min(), "end": shown.max()}
    assert channels[2]["window"] == window
    ours = said["gently_bluesky"]
    assert ours["timepoints"] == [0, 1, 2]
    assert np.array(ours["times"]).tolist() == np.tile(times, 2).tolist()
    assert ours["volumes"][2][3] == {
        "run_uid": run.uid, "stream": "primary", "seq_num": 6, "data_key": "spim_b_image",
        "view": "B", "channel": "561 only",
    }  # fmt: skip


def test_its_chunks_shards_and_levels_are_those_of_a_store_of_ours(root: Path, tmp_path: Path) -> None:
    shape = (20, 300, 600)
    run = record(root, lambda writer: taken(Camera("cam", writer, shape=shape), {"timepoint": 0, "embryo": "e"}))
    (path,) = ome_zarr(select(run), tmp_path)
    yaozarrs.validate_zarr_store(path)
    array = zarr.open_array(path / "0", mode="r")
    assert (array.chunks, array.shards) == ((1, 1, 8, 128, 128), (1, 1, 24, 384, 640))
    np.testing.assert_array_equal(array[0, 0], volume(0, shape))
    stored = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    assert stored < volume(0, shape).nbytes
    levels = levels_of(shape, np.dtype("u2"), (0.5, 0.25, 0.25))
    datasets = attributes(path)["ome"]["multiscales"][0]["datasets"]
    assert len(datasets) == len(levels) == 3
    for dataset, fine, level in zip(datasets[1:], levels, levels[1:], strict=False):
        expected = np.empty(level.shape, "u2")
        before = zarr.open_array(path / str(int(dataset["path"]) - 1), mode="r")
        halved(np.asarray(before[0, 0]), step_between(fine, level), expected)
        np.testing.assert_array_equal(zarr.open_array(path / dataset["path"], mode="r")[0, 0], expected)
        scale, translation = dataset["coordinateTransformations"]
        factors = np.array(level.factors)
        assert scale["scale"][2:] == (factors * (0.5, 0.25, 0.25)).tolist()
        # a coarse voxel's middle, in micrometer
        assert translation["translation"] == [0.0, 0.0, *((factors - 1) / 2 * (0.5, 0.25, 0.25)).tolist()]


def test_a_volume_of_several_shards_passes_through_all_levels(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shards, "SHARD_BYTES", 1)  # one layer of chunks a shard
    shape = (43, 300, 16)
    run = record(root, lambda writer: taken(Camera("cam", writer, shape=shape), {}))
    (path,) = ome_zarr(select(run), tmp_path)
    assert len(list((path / "0" / "c" / "0" / "0").iterdir())) == 6
    np.testing.assert_array_equal(zarr.open_array(path / "0", mode="r")[0, 0], volume(0, shape))
    (_, last) = levels_of(shape, np.dtype("u2"), (0.5, 0.25, 0.25))
    whole = np.empty(last.shape, "u2")
    halved(volume(0, shape), last.factors, whole)
    np.testing.assert_array_equal(zarr.open_array(path / "1", mode="r")[0, 0], whole)


def test_what_is_stored_as_ome_zarr_is_exported_like_any_other(root: Path, tmp_path: Path) -> None:
    run = timelapse(root, embryos=["e1"], image_format="ome-zarr", shape=SHAPE)
    assert run["primary"]["spim_a_image"].source(0).format == "ome-zarr"
    (path,) = ome_zarr(select(run), tmp_path)
    hold_addresses(np.asarray(zarr.open_array(path / "0", mode="r")[:]))


@pytest.mark.parametrize("dtype", ["|u1", "<u2", ">u2", "<i2", "<u4", "<i8", "<f4", "<f8"])
def test_dtypes_stay_what_they_are(root: Path, tmp_path: Path, dtype: str) -> None:
    run = record(root, lambda writer: taken(Camera("cam", writer, dtype=dtype), {}))
    (path,) = ome_zarr(select(run), tmp_path)
    yaozarrs.validate_zarr_store(path)
    array = zarr.open_array(path / "0", mode="r")
    assert array.dtype == np.dtype(dtype).newbyteorder("=")
    np.testing.assert_array_equal(array[0, 0], volume(0))


def test_a_dtype_may_be_chosen_that_holds_every_value(root: Path, tmp_path: Path) -> None:
    run = record(root, lambda writer: taken(Camera("cam", writer, dtype="<i4"), {}))
    (path,) = ome_zarr(select(run), tmp_path, dtype="uint8")
    assert zarr.open_array(path / "0", mode="r").dtype == np.uint8


def test_numbers_that_are_none_leave_the_metadata_sound(root: Path, tmp_path: Path) -> None:
    image = np.full((300, 300), np.nan)
    run = record(root, bp.count([inline("img", image), inline("other", np.where(np.eye(300), np.inf, 7.0))], 1))
    (path,) = ome_zarr(select(run), tmp_path)
    yaozarrs.validate_zarr_store(path)
    windows = [channel["window"] for channel in attributes(path)["ome"]["omero"]["channels"]]
    assert [(window["start"], window["end"]) for window in windows] == [(0.0, 1.0), (7.0, 7.0)]
    assert not any("unit" in axis for axis in attributes(path)["ome"]["multiscales"][0]["axes"])


def test_complex_numbers_are_refused(root: Path, tmp_path: Path) -> None:
    run = record(root, bp.count([inline("img", np.ones((200, 200), "c8"))], 1))
    with pytest.raises(ExportError, match="No viewer of OME-Zarr knows complex numbers"):
        ome_zarr(select(run), tmp_path / "out")


def test_a_store_a_timepoint_where_time_is_split(root: Path, tmp_path: Path) -> None:
    paths = ome_zarr(select(timelapse(root, embryos=["e1"])), tmp_path, split_time=True)
    assert [path.name for path in paths] == [f"s_e1_t{t:04d}.ome.zarr" for t in range(3)]
    for t, path in enumerate(paths):
        yaozarrs.validate_zarr_store(path)
        hold_addresses(np.asarray(zarr.open_array(path / "0", mode="r")[:]), timepoints=[t])
