"""What others make of our runs: Tiled, suitcase, dask, xarray and napari have the pixels that were recorded."""

import re
import textwrap
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import bluesky.plan_stubs as bps
import bluesky.plans as bp
import numpy as np
import pytest
import xarray as xr
from bluesky import Msg

from gently_bluesky import Catalog, FileWriter, replay
from gently_bluesky.errors import BadVolumeError, RunNotFoundError, VolumeMissingError, WriterFailedError
from gently_bluesky.keep.convert import convert_run
from gently_bluesky.keep.discard import discard, restore
from gently_bluesky.read.napari import get_reader, read_layers
from gently_bluesky.read.run import Run
from gently_bluesky.store import shards
from tests import test_replay, test_tiled
from tests.data_rig import REPOSITORY, SHAPE, Camera, in_child, inline, journal, of, record, taken, volume
from tests.devices_rig import PLANES, SIZE, simulated
from tests.test_images import Touched, Zooming
from tests.test_tiled import read, writer_of

Plan = Iterator[Msg]
FORMATS = pytest.mark.parametrize("image_format", ["ome-tiff", "ome-zarr"])
LARGE = (20, 300, 260)
"""A volume of several chunks of an OME-Zarr along each axis, and of two levels."""

EVENTS = 4

client = test_tiled.client
agg = test_replay.agg


def two_views(writer: FileWriter) -> Plan:
    dispim = simulated(sink=writer)
    yield from bps.mv(dispim.spim.views, "AB")
    yield from bps.mv(dispim.xy_stage.x, -120.0)
    yield from bp.count([dispim.spim, dispim.xy_stage, dispim.z_stage], EVENTS, md={"session": "s1"})


def with_bad(writer: FileWriter) -> Plan:
    return taken(Camera("cam", writer, good=True), *({"good": event != 2} for event in range(4)))


def large(root: Path, image_format: str) -> Run:
    def plan(writer: FileWriter) -> Plan:
        return bp.count([Camera("cam", writer, shape=LARGE)], 2)

    return record(root, plan, image_format=image_format)


def test_the_readme_is_true(
    root: Path, client: Any, agg: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    readme = (REPOSITORY / "README.md").read_text("utf-8").partition("## Neighbours")[2].partition("\n## ")[0]
    tiled, lazy, suitcase = re.findall(r"^```python\n(.*?)^```$", readme, re.M | re.S)
    run = record(root, two_views)
    monkeypatch.chdir(tmp_path)
    with FileWriter(tmp_path / "other") as writer:
        for code in (tiled, lazy, suitcase):
            exec(code, {"run": run, "writer": writer, "client": client, "replay": replay})
    assert client[run.uid].metadata["stop"]["exit_status"] == "success"
    assert len(list((tmp_path / "figures").iterdir())) == 2


# --- Tiled --------------------------------------------------------------------------------------------------


def one_of_each(writer: FileWriter) -> Plan:
    """Volumes of several chunks, of one, and arrays that come in events."""
    frames = inline("img", *(volume(i, (200, 210)) for i in range(2)))
    return bp.count([Camera("cam", writer, shape=(12, 130, 140)), Camera("small", writer), frames], 2)


def live(which: str, client: Any) -> Callable[[FileWriter], Plan]:
    """A plan to whose writer Tiled listens."""

    def plan(writer: FileWriter) -> Plan:
        writer.subscribe(writer_of(which, client))
        return one_of_each(writer)

    return plan


def hold_in_tiled(run: Run, client: Any) -> None:
    there = client[run.uid]
    assert there.metadata["stop"]["exit_status"] == "success"
    for key in ("cam_image", "small_image", "img"):
        pixels = read(there, key)
        assert pixels.dtype == run["primary"].images(key).dtype
        np.testing.assert_array_equal(pixels, run["primary"].images(key)[:])


@FORMATS
def test_tiled_has_the_pixels_of_a_run_that_it_listened_to(root: Path, client: Any, image_format: str) -> None:
    hold_in_tiled(record(root, live("plugins", client), image_format=image_format), client)


@FORMATS
def test_tiled_has_the_pixels_of_a_run_that_was_replayed(root: Path, client: Any, image_format: str) -> None:
    run = record(root, one_of_each, image_format=image_format)
    replay(run, writer_of("plugins", client))
    hold_in_tiled(run, client)


def test_bluesky_s_own_tiled_writer_takes_ome_tiff_and_refuses_ome_zarr(root: Path, client: Any) -> None:
    """Its consolidators do not know application/x-zarr; a run that it listens to fails, and says why."""
    hold_in_tiled(record(root / "tiff", live("bluesky", client)), client)
    refused = "application/x-zarr type can not be handled"
    with pytest.raises(WriterFailedError) as failed:
        record(root / "live", live("bluesky", client), image_format="ome-zarr")
    assert refused in str(failed.value.__cause__)
    run = record(root / "zarr", one_of_each, image_format="ome-zarr")
    with pytest.raises(ValueError, match=refused):
        replay(run, writer_of("bluesky", client))


# --- suitcase -----------------------------------------------------------------------------------------------


@FORMATS
def test_suitcase_tiff_exports_the_planes_of_volumes(root: Path, tmp_path: Path, image_format: str) -> None:
    import tifffile
    from suitcase import tiff_stack

    run = record(root, lambda writer: bp.count([Camera("cam", writer)], 3), image_format=image_format)
    made = tiff_stack.export(run.documents(fill=True), tmp_path / "out", bigtiff=True)
    (path,) = made["stream_data"]
    planes = np.concatenate([volume(i) for i in range(3)])
    np.testing.assert_array_equal(tifffile.imread(path), planes)


# --- dask ---------------------------------------------------------------------------------------------------


LAYER = 8 * 300 * 260 * 2
"""Bytes of the planes that are compressed together."""


def test_chunks_of_an_ome_zarr_are_its_shards_or_parts_of_them(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shards, "SHARD_BYTES", 2 * LAYER)
    run = large(root, "ome-zarr")
    (resource,) = of(journal(run.folder), "stream_resource")
    images = run["primary"]["cam_image"]
    lazy = images.to_dask()
    assert lazy.chunks == ((1, 1), (16, 4), (300,), (260,))
    assert lazy.chunksize == tuple(resource["parameters"]["chunk_shape"])
    for chunk_bytes in (0, LAYER, 2 * LAYER - 1):
        assert images.to_dask(chunk_bytes=chunk_bytes).chunks[1] == (8, 8, 4)
    np.testing.assert_array_equal(np.asarray(lazy[1]), volume(1, LARGE))


def test_chunks_of_an_ome_tiff_are_whole_planes(root: Path) -> None:
    images = large(root, "ome-tiff")["primary"]["cam_image"]
    assert images.to_dask().chunks == ((1, 1), (20,), (300,), (260,))
    assert images.to_dask(chunk_bytes=0).chunks[1] == (1,) * 20
    lazy = images.to_dask(chunk_bytes=5 * 300 * 260 * 2)
    assert lazy.chunks[1] == (5, 5, 5, 5)
    np.testing.assert_array_equal(np.asarray(lazy[1]), volume(1, LARGE))


@pytest.mark.parametrize("shape", [(16,), (8, 16), (2, 3, 8, 16)], ids=str)
@FORMATS
def test_arrays_of_any_number_of_axes_become_dask_s(root: Path, image_format: str, shape: tuple[int, ...]) -> None:
    arrays = [np.arange(np.prod(shape), dtype="<u2").reshape(shape) + i for i in range(2)]
    run = record(root, bp.count([inline("a", *arrays)], 2), image_format=image_format, inline_limit_bytes=0)
    lazy = run["primary"]["a"].to_dask()
    assert lazy.chunksize[0] == 1
    np.testing.assert_array_equal(np.asarray(lazy), np.stack(arrays))


def test_a_plane_that_is_computed_from_ome_tiff_touches_one_plane(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = large(root, "ome-tiff")
    Touched.log.clear()
    monkeypatch.setattr(np, "memmap", Touched)
    plane_bytes = 300 * 260 * 2
    lazy, data = run["primary"]["cam_image"].to_dask(), run.to_xarray()
    assert Touched.log == []
    np.testing.assert_array_equal(np.asarray(lazy[1, 7]), volume(1, LARGE)[7])
    assert Touched.log == [plane_bytes]
    plane = data["cam_image"].sel(z_um=3.6, method="nearest").isel(event=1)
    np.testing.assert_array_equal(plane.values, volume(1, LARGE)[7])
    assert Touched.log == [plane_bytes] * 2


@pytest.mark.parametrize(
    ("cut", "chunks"), [((1, 7), 3 * 3), ((1, slice(None), 7), 3 * 3), ((1, ..., 7), 3 * 3), ((1,), 27)], ids=str
)
def test_a_cut_that_is_computed_from_ome_zarr_decodes_its_chunks_once(
    root: Path, monkeypatch: pytest.MonkeyPatch, cut: tuple[Any, ...], chunks: int
) -> None:
    decoded = []
    decode = shards._decode_chunk

    def noted(*arguments: Any) -> Any:
        decoded.append(arguments[-1])
        return decode(*arguments)

    lazy = large(root, "ome-zarr")["primary"]["cam_image"].to_dask()
    monkeypatch.setattr(shards, "_decode_chunk", noted)
    np.testing.assert_array_equal(np.asarray(lazy[cut]), volume(1, LARGE)[cut[1:]])
    assert len(decoded) == len(set(decoded)) == chunks


# --- levels -------------------------------------------------------------------------------------------------


def test_a_series_has_the_levels_of_its_store(root: Path) -> None:
    import zarr

    run = large(root, "ome-zarr")
    images = run["primary"].images("cam_image")
    assert [level.shape for level in images.levels] == [(2, 20, 300, 260), (2, 20, 150, 130)]
    assert [level.voxel_size_um for level in images.levels] == [(0.5, 0.25, 0.25), (0.5, 0.5, 0.5)]
    assert str(images.levels[1].levels) == str(images.levels)
    for number, level in enumerate(images.levels):
        expected = np.asarray(zarr.open_array(run.folder / "cam_image.ome.zarr" / str(number), mode="r"))
        np.testing.assert_array_equal(level[:], expected)
        np.testing.assert_array_equal(level.volume(-1), expected[-1])
        np.testing.assert_array_equal(np.asarray(level.only([1]).to_dask()[0, ::2, 3]), expected[1, ::2, 3])


def test_a_series_has_levels_if_all_its_volumes_do(root: Path) -> None:
    run = large(root, "ome-tiff")
    images = run["primary"].images("cam_image")
    assert [level.shape for level in images.levels] == [images.shape]
    convert_run(root, run.folder.relative_to(root).as_posix(), "ome-zarr")
    run = Catalog(root)[-1]
    whole, smaller = run["primary"].images("cam_image").levels
    assert whole.source(0).format == "ome-tiff"
    discard(root, -1)
    with pytest.raises(VolumeMissingError, match=r"is in no OME-Zarr any more"):
        smaller[0, 0]


def test_some_events_of_a_series_are_a_series(root: Path) -> None:
    images = record(root, with_bad)["primary"].images("cam_image")
    some = images.only([3, -4])
    assert some.shape == (2, *SHAPE)
    np.testing.assert_array_equal(some[:], np.stack([volume(3), volume(0)]))
    np.testing.assert_array_equal(images.including_bad.only([2])[0], volume(2))
    assert images.only([]).shape == (0, *SHAPE)
    with pytest.raises(IndexError, match="there is no event 4"):
        images.only([4])


# --- xarray -------------------------------------------------------------------------------------------------


@FORMATS
def test_a_run_in_xarray_is_in_micrometers_and_seconds(root: Path, image_format: str) -> None:
    run = record(root, two_views, image_format=image_format)
    data, stream = run.to_xarray(), run["primary"]
    assert dict(data["spim_a"].sizes) == {"event": EVENTS, "z": PLANES, "y": SIZE, "x": SIZE}
    for key in ("spim_a", "spim_b"):
        assert data[key].chunks is not None
        assert data[key].dtype == np.uint16
        np.testing.assert_array_equal(data[key].values, stream.images(key)[:])
    step, side, _ = stream.images("spim_a").voxel_size_um or (0.0, 0.0, 0.0)
    np.testing.assert_array_equal(data["z_um"].values, step * np.arange(PLANES))
    np.testing.assert_array_equal(data["x_um"].values, side * np.arange(SIZE))
    np.testing.assert_array_equal(data["time"].values, stream.time)
    since = (data["time_utc"].values - np.datetime64(0, "s")) / np.timedelta64(1, "s")
    np.testing.assert_allclose(since, stream.time, rtol=0, atol=1e-6)
    assert data["stage_x_um"].values.tolist() == [-120.0] * EVENTS
    assert {data[each].attrs["units"] for each in ("z_um", "y_um", "x_um", "stage_x_um", "stage_z_um")} == {"um"}
    assert data["time"].attrs["units"] == "s"
    assert data["spim_b"].attrs == {"units": "counts", "view": "B", "source": "mmcore:HamCam2"}
    assert data["spim_b_frame_times"].dims == ("event", "z")
    said = {"session": "s1", "plan_name": "count", "scan_id": 1}
    assert data.attrs == {"run_uid": run.uid, "stream": "primary"} | said


def test_a_dataset_is_cut_by_micrometers(root: Path) -> None:
    data = record(root, lambda writer: bp.count([Camera("cam", writer)], 2)).to_xarray()
    plane = data["cam_image"].sel(z_um=1.1, method="nearest")
    assert float(plane["z_um"]) == 1.0
    np.testing.assert_array_equal(plane.values, np.stack([volume(i)[2] for i in range(2)]))
    part = data["cam_image"].sel(x_um=slice(1.0, 2.0))
    np.testing.assert_array_equal(part.values, np.stack([volume(i)[..., 4:9] for i in range(2)]))
    profile = data["cam_image"].mean(["z", "y"])
    np.testing.assert_allclose(profile.isel(event=1).values, volume(1).mean((0, 1)))
    assert "x_um" in profile.coords


def together(root: Path, *devices: Callable[[FileWriter], Any]) -> xr.Dataset:
    """A Dataset of one event of several cameras."""
    run = record(root, lambda writer: bp.count([make(writer) for make in devices]), inline_limit_bytes=100)
    return run.to_xarray()


class Coarse(Camera):
    """A camera whose voxels are larger."""

    def describe(self) -> dict[str, Any]:
        keys = super().describe()
        keys[self.key]["voxel_size_um"] = [2.0, 0.25, 1.0]
        return keys


def test_images_of_another_size_have_dimensions_and_coordinates_of_their_own(root: Path) -> None:
    data = together(root, lambda writer: Camera("a", writer), lambda writer: Coarse("b", writer, shape=(2, 8, 32)))
    assert data["a_image"].dims == ("event", "a_image_z", "y", "a_image_x")
    assert data["b_image"].dims == ("event", "b_image_z", "y", "b_image_x")
    assert data["a_image_z_um"].values.tolist() == [0.0, 0.5, 1.0, 1.5]
    assert data["b_image_z_um"].values.tolist() == [0.0, 2.0]
    assert data["y_um"].dims == ("y",)


def test_images_of_one_size_that_are_not_spaced_alike_have_coordinates_of_their_own(root: Path) -> None:
    data = together(root, lambda writer: Camera("a", writer), lambda writer: Coarse("b", writer))
    assert data["a_image"].dims == data["b_image"].dims == ("event", "z", "y", "x")
    assert data["a_image_z_um"].values.tolist() == [0.0, 0.5, 1.0, 1.5]
    assert data["b_image_z_um"].values.tolist() == [0.0, 2.0, 4.0, 6.0]
    assert data["y_um"].dims == ("y",)
    assert "z_um" not in data.coords
    plane = data["b_image"].sel(b_image_z_um=4.0)
    np.testing.assert_array_equal(plane.values[0], volume(0)[2])


def test_a_spacing_that_nobody_says_is_no_coordinate_even_where_others_say_theirs(root: Path) -> None:
    alone = together(root / "alone", lambda _: inline("img", volume(0)))
    assert not [name for name in alone.coords if str(name).endswith("_um")]
    beside = together(root / "beside", lambda writer: Camera("a", writer), lambda _: inline("img", volume(0)))
    assert [name for name in beside.coords if str(name).endswith("_um")] == [
        "a_image_z_um",
        "a_image_y_um",
        "a_image_x_um",
    ]


def test_a_spacing_that_changes_is_a_coordinate_of_each_event(root: Path) -> None:
    def plan(writer: FileWriter) -> Plan:
        camera = Zooming("cam", writer, cam_z_step_um=1.5)
        return taken(camera, *({"cam_z_step_um": step} for step in (1.5, 2.0)))

    data = record(root, plan).to_xarray()
    assert data["z_um"].dims == ("event", "z")
    assert data["z_um"].values.tolist() == [[0.0, 1.5, 3.0, 4.5], [0.0, 2.0, 4.0, 6.0]]
    assert data["y_um"].dims == ("y",)


def test_data_keys_that_are_called_like_coordinates_are_kept_under_another_name(root: Path) -> None:
    run = record(root, lambda writer: bp.count([Camera("cam", writer, z_um=7.0, time_utc="noon", time=3.0)]))
    data = run.to_xarray()
    assert data["z_um_"].values.tolist() == [7.0]
    assert data["time_utc_"].values.tolist() == ["noon"]
    assert data["time_"].values.tolist() == [3.0]
    assert data["z_um"].values.tolist() == [0.0, 0.5, 1.0, 1.5]


def test_bad_volumes_of_a_dataset_are_computed_only_when_that_is_meant(root: Path) -> None:
    run = record(root, with_bad)
    data = run.to_xarray()
    with pytest.raises(BadVolumeError, match="event 2"):
        data["cam_image"].values  # noqa: B018
    good = data.isel(event=data["good"].values)
    np.testing.assert_array_equal(good["cam_image"].values, np.stack([volume(i) for i in (0, 1, 3)]))
    every = run.to_xarray(include_bad=True)["cam_image"].values
    np.testing.assert_array_equal(every, np.stack([volume(i) for i in range(4)]))


def test_runs_without_events_or_with_none_yet_are_datasets(root: Path) -> None:
    def declared(writer: FileWriter) -> Plan:
        yield from bps.open_run()
        yield from bps.declare_stream(Camera("cam", writer), name="primary")
        yield from bps.close_run()

    empty = record(root / "empty", declared).to_xarray()
    assert empty["cam_image"].shape == (0, *SHAPE)
    flown = record(root / "flown", test_replay.flight).to_xarray()
    assert np.isnat(flown["time_utc"].values).all()
    np.testing.assert_array_equal(flown["cam_image"].values, np.stack([volume(i) for i in range(4)]))


# --- napari -------------------------------------------------------------------------------------------------

MANIFEST = REPOSITORY / "gently_bluesky" / "read" / "napari.yaml"


@pytest.fixture
def opened(npe2: Any, monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], list[Any]]:
    """Opens a path as napari does, with our plugin and no other."""
    manager = npe2.PluginManager()
    manager.register(npe2.PluginManifest.from_file(MANIFEST))
    monkeypatch.setattr(npe2.PluginManager, "instance", lambda: manager)
    return lambda path: list(npe2.read([str(path)], stack=False))


def test_the_manifest_is_valid_and_the_package_announces_it(npe2: Any) -> None:
    manifest = npe2.PluginManifest.from_file(MANIFEST)
    manifest.validate_imports()
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text("utf-8"))["project"]
    (value,) = project["entry-points"]["napari.manifest"].values()
    assert REPOSITORY / Path(*value.partition(":")[0].split("."), value.partition(":")[2]) == MANIFEST
    assert manifest.name == project["name"]


@FORMATS
def test_napari_shows_both_views_of_a_run_at_their_scale(
    root: Path, opened: Callable[[Path], list[Any]], image_format: str
) -> None:
    run = record(root, two_views, image_format=image_format)
    assert [layer[1]["name"] for layer in opened(root)] == [layer[1]["name"] for layer in opened(run.folder)]
    layers = opened(run.folder)
    step, side, _ = run["primary"].images("spim_a").voxel_size_um or (0.0, 0.0, 0.0)
    for (data, said, kind), key, view, colormap in zip(
        layers, ("spim_a", "spim_b"), "AB", ("green", "magenta"), strict=True
    ):
        assert kind == "image"
        assert said["name"] == f"{key}, view {view}, 488 only"
        assert said["scale"] == [1.0, step, side, side]
        assert said["units"] == ["pixel", "um", "um", "um"]
        assert said["axis_labels"] == ["event", "z", "y", "x"]
        assert (said["colormap"], said["multiscale"]) == (colormap, False)
        np.testing.assert_array_equal(np.asarray(data), run["primary"].images(key)[:])
        metadata = said["metadata"]
        assert (metadata["run_uid"], metadata["data_key"], metadata["view"]) == (run.uid, key, view)
        assert metadata["event"] == list(range(EVENTS))
        assert metadata["seq_num"] == run["primary"].seq_num.tolist()
        assert metadata["left_out"] == {}
        assert metadata["time"] == run["primary"].time.tolist()


def test_a_root_whose_newest_run_is_a_table_shows_the_newest_with_images(root: Path) -> None:
    run = record(root, lambda writer: bp.count([Camera("cam", writer)], 2))
    record(root, bp.count([inline("temperature_c", 20.5)]))
    (layer,) = read_layers(root)
    assert layer[1]["metadata"]["run_uid"] == run.uid


def test_contrast_is_that_of_one_plane_in_the_middle(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = large(root, "ome-tiff")
    Touched.log.clear()
    monkeypatch.setattr(np, "memmap", Touched)
    ((_, said, _),) = read_layers(run.folder)
    assert Touched.log == [300 * 260 * 2]
    low, high = np.percentile(volume(1, LARGE)[10, ::4, ::4], (1, 99.9))
    assert said["contrast_limits"] == [low, high]
    dark = record(root / "dark", bp.count([inline("img", np.full((2, 200, 200), 7, "<u2"))]))
    assert read_layers(dark.folder)[0][1]["contrast_limits"] == [7.0, 8.0]


def test_the_levels_of_an_ome_zarr_are_those_of_a_layer(root: Path, opened: Callable[[Path], list[Any]]) -> None:
    run = large(root, "ome-zarr")
    ((levels, said, _),) = opened(run.folder / "cam_image.ome.zarr")
    assert said["multiscale"]
    assert [level.shape for level in levels] == [(2, 20, 300, 260), (2, 20, 150, 130)]
    for level, expected in zip(levels, run["primary"].images("cam_image").levels, strict=True):
        np.testing.assert_array_equal(np.asarray(level[1, 3]), expected[1, 3])


def test_napari_shows_one_volume_as_it_is_good_or_not(root: Path, opened: Callable[[Path], list[Any]]) -> None:
    run = record(root, with_bad)
    ((data, said, _),) = opened(run.folder / "cam_image" / "000002.ome.tif")
    np.testing.assert_array_equal(np.asarray(data), volume(2)[np.newaxis])
    assert (said["metadata"]["event"], said["metadata"]["good"]) == ([2], [False])
    assert said["colormap"] == "gray"
    beside = root.parent / "copied"
    run.folder.rename(beside)
    ((data, _, _),) = opened(beside / "cam_image" / "000001.ome.tif")
    np.testing.assert_array_equal(np.asarray(data), volume(1)[np.newaxis])


def test_what_is_not_good_or_not_stored_in_all_views_is_left_out_and_named(root: Path) -> None:
    def plan(writer: FileWriter) -> Plan:
        cameras = Camera("a", writer, good=True), Camera("b", writer)
        yield from bps.open_run()
        for event in range(4):
            cameras[0].scalars["good"] = event != 2
            yield from bps.trigger_and_read(cameras)
        yield from bps.close_run()

    run = record(root, plan)
    (run.folder / "b_image" / "000000.ome.tif").unlink()
    layers = read_layers(run.folder)
    assert [layer[1]["name"] for layer in layers] == ["a_image, view A", "b_image, view A"]
    for data, said, _ in layers:
        np.testing.assert_array_equal(np.asarray(data), np.stack([volume(1), volume(3)]))
        assert said["metadata"]["event"] == [1, 3]
        assert said["metadata"]["left_out"] == {0: "not stored: b_image", 2: "not good"}


def test_each_channel_is_a_layer(root: Path) -> None:
    def plan(writer: FileWriter) -> Plan:
        camera = Camera("cam", writer, channel="", embryo="e1", timepoint=0)
        return taken(camera, *({"channel": c, "timepoint": t} for t in range(2) for c in ("488", "561")))

    layers = read_layers(record(root, plan).folder)
    assert [said["name"] for _, said, _ in layers] == ["cam_image, view A, 488", "cam_image, view A, 561"]
    assert [said["colormap"] for _, said, _ in layers] == ["green", "magenta"]
    for first, (data, said, _) in enumerate(layers):
        np.testing.assert_array_equal(np.asarray(data), np.stack([volume(first), volume(first + 2)]))
        assert said["metadata"]["timepoint"] == [0, 1]
        assert said["metadata"]["embryo"] == ["e1", "e1"]


def test_frames_stand_where_volumes_do_and_other_streams_are_named(root: Path) -> None:
    def plan(writer: FileWriter) -> Plan:
        yield from bps.open_run()
        yield from bps.trigger_and_read([Camera("cam", writer)])
        yield from bps.trigger_and_read([inline("img", volume(0, (200, 210)))], name="overview")
        yield from bps.close_run()

    (_, _, _), (data, said, _) = read_layers(record(root, plan).folder)
    assert said["name"] == "overview: img"
    assert data.shape == (1, 1, 200, 210)
    assert said["scale"] == [1.0] * 4
    assert said["axis_labels"] == ["event", "z", "y", "x"]
    assert "units" not in said


def test_what_cannot_be_shown_is_said_and_the_rest_is_shown(root: Path) -> None:
    long = np.arange(100_000.0)
    run = record(root, lambda writer: bp.count([Camera("cam", writer), inline("spectrum", long)]))
    with pytest.warns(UserWarning, match=r"spectrum: 1 event> holds \(1, 100000\) float64: no images"):
        ((_, said, _),) = read_layers(run.folder)
    assert said["metadata"]["data_key"] == "cam_image"
    discard(root, -1)
    with pytest.raises(VolumeMissingError, match=r"no volume can be shown.*primary.*no event is good and stored"):
        read_layers(root)
    with pytest.raises(VolumeMissingError, match="no event names what lies there"):
        read_layers(run.folder / "cam_image" / "000001.ome.tif")
    restore(root, -1)
    nothing = record(root / "nothing", bp.count([inline("n", 1.0)]))
    with pytest.raises(VolumeMissingError, match=r"no volume can be shown. The run has no images"):
        read_layers(nothing.folder)


def test_what_is_not_ours_is_left_to_others(root: Path, tmp_path: Path) -> None:
    run = record(root, lambda writer: bp.count([Camera("cam", writer)]))
    assert get_reader(str(run.folder / "cam_image" / "000000.ome.tif")) is read_layers
    assert get_reader(str(tmp_path)) is None
    assert get_reader(str(tmp_path / "x.ome.tif")) is None
    assert get_reader([str(root), str(root)]) is None
    with pytest.raises(RunNotFoundError, match="is no root, no run folder and nothing in one"):
        read_layers(tmp_path)


def test_the_reader_imports_neither_napari_nor_qt(root: Path) -> None:
    run = record(root, lambda writer: bp.count([Camera("cam", writer)]))
    code = """
        import sys
        from gently_bluesky.read.napari import get_reader
        get_reader(sys.argv[1])(sys.argv[1])
        there = {name.split(".")[0] for name in sys.modules}
        print(there & {"napari", "npe2", "qtpy", "PyQt5", "PyQt6", "PySide6"})
        """
    assert in_child(textwrap.dedent(code), run.folder) == "set()\n"
