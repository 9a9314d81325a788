"""An ImageSeries is an array (event, z, y, x) of which only what is asked for is touched."""

import os
import weakref
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import bluesky.plan_stubs as bps
import bluesky.plans as bp
import bluesky.preprocessors as bpp
import dask
import numpy as np
import pytest
import xarray as xr
from bluesky import Msg
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from gently_bluesky import Catalog, FileWriter
from gently_bluesky.errors import BadVolumeError, GeometryError, VolumeMissingError
from gently_bluesky.keep.discard import discard, restore
from gently_bluesky.read.images import ImageSeries
from gently_bluesky.read.run import Run, Stream
from gently_bluesky.store import disk, shards
from gently_bluesky.store.formats import FORMATS
from tests.conftest import OF_TIFF
from tests.data_rig import SHAPE, Camera, connected, inline, pixel_file, record, taken, volume

pytestmark = pytest.mark.usefixtures("every_format")

Plan = Iterator[Msg]
EVENTS = 5
WHOLE = np.stack([volume(i) for i in range(EVENTS)])


@pytest.fixture(scope="module")
def streams(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Stream]:
    """The same run in each format."""
    folder, plan = tmp_path_factory.mktemp("images"), lambda writer: bp.count([Camera("cam", writer)], EVENTS)
    return {kind: record(folder / kind, plan, image_format=kind)["primary"] for kind in FORMATS}


@pytest.fixture
def images(streams: Mapping[str, Stream], every_format: str) -> ImageSeries:
    return streams[every_format].images("cam_image")


# --- indexing, against numpy --------------------------------------------------------------------------------


def indices(size: int) -> st.SearchStrategy[Any]:
    return st.one_of(st.integers(-size - 2, size + 1), st.slices(size))


events = st.one_of(
    indices(EVENTS),
    st.lists(st.integers(-EVENTS, EVENTS - 1), max_size=6),
    st.lists(st.integers(-EVENTS - 1, EVENTS), min_size=1, max_size=3).map(np.array),
)
basic = st.lists(st.one_of(*(indices(size) for size in SHAPE)), max_size=3).map(tuple)


@st.composite
def keys(draw: st.DrawFn) -> Any:
    """Any index of the kinds that are promised, in range or not."""
    parts = [draw(events), *draw(basic)]
    if draw(st.booleans()):
        parts.insert(draw(st.integers(0, len(parts))), ...)
        if parts[0] is ... and len(parts) > 1 and not isinstance(parts[1], int | slice):
            parts[1] = draw(indices(EVENTS))
    return parts[0] if len(parts) == 1 and draw(st.booleans()) else tuple(parts)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(key=keys())
def test_any_index_gives_what_numpy_gives(images: ImageSeries, key: Any) -> None:
    try:
        expected = WHOLE[key]
    except IndexError:
        with pytest.raises(IndexError):
            images[key]
        return
    found = images[key]
    assert found.shape == expected.shape
    assert found.dtype == expected.dtype
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(
    "key",
    [
        (..., 0),
        (0, ..., 0),
        ...,
        (slice(None), ...),
        (..., slice(None), 3),
        (slice(None, None, -1),),
        ([4, 0, 0], 1, slice(2, 5)),
        (slice(5, 2),),
        (np.int64(2), np.uint8(1)),
        (),
        (slice(4, None), 0),
        (slice(9, 12), 0, 0),
    ],
    ids=str,
)
def test_the_corners_of_indexing_are_those_of_numpy(images: ImageSeries, key: Any) -> None:
    expected = WHOLE[key]
    assert images[key].shape == expected.shape
    np.testing.assert_array_equal(images[key], expected)


@pytest.mark.parametrize(
    "key",
    [
        "x",
        None,
        1.5,
        (0, "z"),
        (0, [1, 2]),
        (0, None),
        (True,),
        np.array([True, False, True, False, True]),
        [True, False],
        (..., [1, 2]),
    ],
    ids=str,
)
def test_other_indices_are_errors_that_say_what_is_taken(images: ImageSeries, key: Any) -> None:
    with pytest.raises(TypeError, match=r"takes integers, slices and '...', and a list of integers for events"):
        images[key]


@pytest.mark.parametrize("key", [(0, 0, 0, 0, 0), (0, 99), (0, 0, -9), 5, -6, [0, 7]], ids=str)
def test_what_is_out_of_range_is_an_error_that_names_the_series(images: ImageSeries, key: Any) -> None:
    with pytest.raises(IndexError, match="primary, cam_image"):
        images[key]


@pytest.mark.parametrize("event", ["x", 1.5, None, [0]], ids=str)
def test_an_event_that_is_no_number_is_an_error_that_names_the_series(images: ImageSeries, event: Any) -> None:
    for ask in (images.volume, images.frames_there, images.project):
        with pytest.raises(
            TypeError, match=r"primary, cam_image counts its events in whole numbers from 0, not by"
        ):
            ask(event)
    with pytest.raises(IndexError, match=r"cam_image has 5 events, counted from 0; there is no event 99"):
        images.volume(99)


def test_an_event_without_configuration_is_an_error_that_says_how_many_there_are(
    streams: Mapping[str, Stream], every_format: str
) -> None:
    stream = streams[every_format]
    assert stream.configuration(4) == stream.configuration(-5)
    with pytest.raises(IndexError, match=r"Stream 'primary' of run .* has 5 events, counted from 0; .* event 5\."):
        stream.configuration(5)


def test_what_an_index_gives_is_in_memory_and_one_s_own(images: ImageSeries) -> None:
    plane = images[0, 1]
    plane[:] = 7
    np.testing.assert_array_equal(images[0, 1], volume(0)[1])
    assert not isinstance(plane, np.memmap)


def test_a_volume_is_mapped_or_decoded_and_cannot_be_changed(images: ImageSeries, every_format: str) -> None:
    mapped = images.volume(2)
    assert isinstance(mapped, np.memmap) is (every_format == "ome-tiff")
    np.testing.assert_array_equal(mapped, volume(2))
    np.testing.assert_array_equal(images.volume(-1), volume(EVENTS - 1))
    with pytest.raises(ValueError, match="read-only"):
        mapped[0, 0, 0] = 1
    with pytest.raises(IndexError, match=rf"has {EVENTS} events, counted from 0; there is no event {EVENTS}"):
        images.volume(EVENTS)


def test_a_series_is_what_an_array_is(images: ImageSeries) -> None:
    assert images.shape == WHOLE.shape
    assert images.dtype == WHOLE.dtype
    assert images.ndim == 4
    assert len(images) == EVENTS
    assert images.dims == ("event", "z", "y", "x")
    assert images.voxel_size_um == (0.5, 0.25, 0.25)
    assert repr(images).endswith(f"primary, cam_image: {EVENTS} events>")
    np.testing.assert_array_equal(np.stack([images[i] for i in range(EVENTS)]), WHOLE)


@pytest.mark.parametrize(("axis", "number"), [("z", 0), ("y", 1), ("x", 2)])
def test_a_projection_is_the_maximum_along_its_axis(images: ImageSeries, axis: Any, number: int) -> None:
    for event in (0, -1):
        projection = images.project(event, axis=axis)
        np.testing.assert_array_equal(projection, WHOLE[event].max(axis=number))
        assert projection.dtype == WHOLE.dtype


def test_dask_gives_what_numpy_gives(images: ImageSeries) -> None:
    lazy = images.to_dask()
    assert lazy.shape == WHOLE.shape
    assert lazy.dtype == WHOLE.dtype
    assert lazy.chunks[0] == (1,) * EVENTS
    with dask.config.set(scheduler="synchronous"):
        np.testing.assert_array_equal(np.asarray(lazy), WHOLE)
        part = lazy[::2, 1:3, :, ::-1].max(axis=1)
        np.testing.assert_array_equal(np.asarray(part), WHOLE[::2, 1:3, :, ::-1].max(axis=1))


# --- only what is asked for ---------------------------------------------------------------------------------


@pytest.fixture
def large(root: Path) -> Run:
    """Two volumes of planes of 256 KiB."""
    return record(root, lambda writer: bp.count([Camera("cam", writer, shape=(16, 256, 512))], 2))


class Touched(np.memmap[Any, Any]):
    """A mapped volume that notes what is taken out of it."""

    log: list[Any] = []  # noqa: RUF012 - of the class: numpy makes the instances

    def __getitem__(self, key: Any) -> Any:
        part = super().__getitem__(key)
        if isinstance(part, np.ndarray):
            self.log.append(part.nbytes)
        return part


@pytest.fixture
def touched(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Bytes that are taken out of files: of a map as they are, of a shard before they are decoded."""

    def read_at(descriptor: int, size: int, offset: int) -> bytes:
        Touched.log.append(size)
        return disk.read_at(descriptor, size, offset)

    Touched.log.clear()
    monkeypatch.setattr(np, "memmap", Touched)
    monkeypatch.setattr(shards, "read_at", read_at)
    return Touched.log


PLANE_BYTES = 256 * 512 * 2


def hold_one_plane(run: Run, touched: list[int]) -> None:
    """One plane was taken out of a map; out of a shard, the chunks of one of its two layers."""
    (path,) = run.folder.glob("cam_image*")
    if not (path / "zarr.json").exists():
        assert touched == [PLANE_BYTES]
        return
    shard = pixel_file(run.folder, "cam_image", 1)
    assert len(touched) == 2 * 4
    assert 0 < sum(touched) < 0.6 * shard.stat().st_size


def test_one_plane_touches_one_plane(large: Run, touched: list[int]) -> None:
    images = large["primary"].images("cam_image")
    np.testing.assert_array_equal(images[1, 7], volume(1, (16, 256, 512))[7])
    hold_one_plane(large, touched)


def test_a_volume_and_a_dataset_touch_nothing_until_they_are_looked_at(
    large: Run, touched: list[int], every_format: str
) -> None:
    images = large["primary"].images("cam_image")
    if every_format == "ome-tiff":
        images.volume(0)
    lazy, data = images.to_dask(), large["primary"].read()
    assert images.shape == (2, 16, 256, 512)
    assert images.dtype == np.uint16
    assert images.voxel_size_um == (0.5, 0.25, 0.25)
    assert data["cam_image"].shape == lazy.shape
    assert touched == []


def test_a_plane_of_a_dataset_touches_one_plane(large: Run, touched: list[int]) -> None:
    data = large["primary"].read()
    plane = data["cam_image"].isel(event=1, z=7).values
    np.testing.assert_array_equal(plane, volume(1, (16, 256, 512))[7])
    hold_one_plane(large, touched)


# --- datasets -----------------------------------------------------------------------------------------------


def test_a_dataset_holds_what_the_events_held(root: Path) -> None:
    def plan(writer: FileWriter) -> Plan:
        camera = Camera("cam", writer, x_um=1.5, embryo="e1")
        return bp.count([camera, inline("trace", *np.arange(9.0).reshape(3, 3))], 3)

    stream = record(root, plan)["primary"]
    data = stream.read()
    assert isinstance(data, xr.Dataset)
    assert dict(data.sizes) == {
        "event": 3,
        "z": 4,
        "y": 8,
        "x": 16,
        "trace_dim_1": 3,
    }
    np.testing.assert_array_equal(data["cam_image"].values, WHOLE[:3])
    np.testing.assert_array_equal(data["cam_image"][::-1, 1:3, 2].values, WHOLE[:3][::-1, 1:3, 2])
    np.testing.assert_array_equal(data["cam_image"].isel(event=[2, 0]).values, WHOLE[[2, 0]])
    np.testing.assert_array_equal(data["cam_image"].max("z").values, WHOLE[:3].max(1))
    np.testing.assert_array_equal(data["trace"].values, np.arange(9.0).reshape(3, 3))
    assert data["cam_number"].values.tolist() == [0, 1, 2]
    assert data["embryo"].values.tolist() == ["e1"] * 3
    assert data["seq_num"].values.tolist() == [1, 2, 3]
    assert data["time"].values.tolist() == stream.time.tolist()
    assert data["time"].attrs["units"] == "s"
    assert data["cam_image"].attrs == {"source": "test:cam"}
    assert list(stream.read(["x_um"])) == ["x_um"]
    assert list(stream[["x_um", "cam_image"]]) == ["x_um", "cam_image"]


def test_what_a_volume_shows_is_a_coordinate_of_its_dataset(root: Path) -> None:
    """Whatever data keys are asked for; those that the stream does not have are no coordinates."""

    def plan(writer: FileWriter) -> Plan:
        camera = Camera("cam", writer, embryo="", timepoint=0, good=True, x_um=1.5)
        return taken(camera, *({"embryo": embryo, "timepoint": t} for t in (0, 1) for embryo in ("e1", "e2")))

    stream = record(root, plan)["primary"]
    for data in (stream.read(), stream.read(["x_um", "cam_image"]), stream.read(["embryo", "x_um", "cam_image"])):
        assert set(data.coords) == {"time", "seq_num", "embryo", "timepoint", "good"}
        assert data["embryo"].values.tolist() == ["e1", "e2"] * 2
    assert list(stream.read(["x_um", "embryo"])) == ["x_um"]
    assert set(stream.read(["x_um"])["x_um"].coords) == {"time", "seq_num", "embryo", "timepoint", "good"}
    of_one = stream.read().set_index(event=["embryo", "timepoint"]).sel(embryo="e2")
    np.testing.assert_array_equal(of_one["cam_image"].values, WHOLE[[1, 3]])


def test_a_dataset_of_a_stream_without_events_is_empty(root: Path) -> None:
    def plan(writer: FileWriter) -> Plan:
        camera = Camera("cam", writer)
        yield from bps.open_run()
        yield from bps.declare_stream(camera, name="primary")
        yield from bps.close_run()

    stream = record(root, plan)["primary"]
    assert stream.read().sizes["event"] == 0
    assert stream["cam_image"].shape == (0, *SHAPE)
    assert stream["cam_image"][:].shape == (0, *SHAPE)
    assert stream["cam_image"].voxel_size_um is None


# --- volumes that are not good ------------------------------------------------------------------------------


@pytest.fixture
def with_bad(root: Path) -> Run:
    def plan(writer: FileWriter) -> Plan:
        return taken(Camera("cam", writer, good=True), *({"good": i != 2} for i in range(4)))

    return record(root, plan)


def test_a_bad_volume_keeps_its_position_and_is_read_only_when_that_is_meant(with_bad: Run) -> None:
    stream = with_bad["primary"]
    images = stream.images("cam_image")
    assert images.shape == (4, *SHAPE)
    np.testing.assert_array_equal(images.volume(3), volume(3))
    said = r"cam_image, event 2 \(seq_num 3\), is marked as not good.*include_bad=True"
    reads: list[Callable[[], object]] = [
        lambda: images.volume(2),
        lambda: images[2, 0],
        lambda: images[:],
        lambda: images.project(2),
        lambda: np.asarray(images.to_dask()),
        lambda: stream.read()["cam_image"].values,
    ]
    for read in reads:
        with pytest.raises(BadVolumeError, match=said):
            read()
    np.testing.assert_array_equal(images.volume(2, include_bad=True), volume(2))
    np.testing.assert_array_equal(images.project(2, include_bad=True), volume(2).max(0))
    np.testing.assert_array_equal(images.including_bad[:], WHOLE[:4])
    np.testing.assert_array_equal(stream.read(include_bad=True)["cam_image"].values, WHOLE[:4])
    assert stream["good"].tolist() == [True, True, False, True]
    np.testing.assert_array_equal(images[[0, 1, 3], 1], WHOLE[[0, 1, 3], 1])


@OF_TIFF
def test_a_series_says_which_of_its_volumes_are_stored(with_bad: Run, root: Path) -> None:
    assert with_bad["primary"]["cam_image"].stored.tolist() == [True] * 4
    discard(root, -1)
    assert with_bad["primary"]["cam_image"].stored.tolist() == [False] * 4, "also to a reader who knew it before"
    restore(root, -1, ["cam_image/000001.ome.tif", "cam_image/000002.ome.tif"])
    assert Catalog(root)[-1]["primary"]["cam_image"].stored.tolist() == [False, True, True, False]
    (with_bad.folder / "cam_image" / "000001.ome.tif").unlink()
    catalog = Catalog(root)
    assert catalog[-1]["primary"]["cam_image"].stored.tolist() == [False, False, True, False]
    assert [each.seq_num for each in catalog.volumes(stored=True, include_bad=True)] == [3]
    assert catalog.volumes(stored=True).why_none == (
        "what would fit is not stored any more; without stored=True it is given"
    )


def test_a_volume_that_was_cut_short_is_not_stored(with_bad: Run) -> None:
    shards = list(with_bad.folder.glob("*.ome.zarr/0/c/1/*/*/*"))
    if shards:
        shards[0].unlink()
    else:
        path = with_bad.folder / "cam_image" / "000001.ome.tif"
        os.truncate(path, path.stat().st_size - 1)
    assert with_bad["primary"]["cam_image"].stored.tolist() == [True, False, True, True]


def test_a_volume_whose_file_is_gone_or_cut_is_an_error_that_names_it(with_bad: Run, root: Path) -> None:
    gone, cut = (pixel_file(with_bad.folder, "cam_image", number) for number in (1, 3))
    gone.unlink()
    os.truncate(cut, cut.stat().st_size - 10)
    images = Catalog(root)[-1]["primary"].images("cam_image")
    with pytest.raises(VolumeMissingError, match=rf"Volume 1 of 'cam_image' of run .*{gone}.*(no such|not there)"):
        images.volume(1)
    with pytest.raises(VolumeMissingError, match=rf"{cut}.* (cut short|damaged)"):
        images.volume(3)
    with pytest.raises(FileNotFoundError):
        images[1, 0]
    np.testing.assert_array_equal(images.volume(0), volume(0))


# --- geometry -----------------------------------------------------------------------------------------------


def changing(root: Path) -> ImageSeries:
    def plan(writer: FileWriter) -> Plan:
        device = inline("img", volume(0), volume(1, (2, 8, 16)), volume(2))
        yield from bps.open_run()
        for _ in range(3):
            yield from bps.trigger_and_read([device])
        yield from bps.close_run()

    return record(root, plan, inline_limit_bytes=100)["primary"].images("img")


def test_volumes_that_do_not_agree_have_no_one_shape_but_are_read_each(root: Path) -> None:
    images = changing(root)
    for read in (
        lambda: images.shape,
        lambda: images.dtype,
        lambda: images.dims,
        lambda: np.asarray(images.to_dask()),
    ):
        with pytest.raises(GeometryError, match=r"has volumes of \(4, 8, 16\) uint16, \(2, 8, 16\) uint16"):
            read()
    np.testing.assert_array_equal(images.volume(1), volume(1, (2, 8, 16)))
    np.testing.assert_array_equal(images[1, 1], volume(1, (2, 8, 16))[1])
    np.testing.assert_array_equal(images[[0, 2]], WHOLE[[0, 2]])
    np.testing.assert_array_equal(images[:, 1], np.stack([volume(0)[1], volume(1, (2, 8, 16))[1], volume(2)[1]]))
    with pytest.raises(GeometryError, match=r"event 0 gives .*\(4, 8, 16\).*event 1 .*\(2, 8, 16\).*do not stack"):
        images[:]
    with pytest.raises(IndexError, match=r"event 1, is \(2, 8, 16\)"):
        images[1, 3]


def test_only_volumes_are_projected(root: Path) -> None:
    run = record(root, lambda writer: bp.count([Camera("cam", writer, shape=(8, 16))]))
    images = run["primary"].images("cam_image")
    assert images.dims == ("event", "y", "x")
    with pytest.raises(GeometryError, match=r"holds arrays \(8, 16\); z, y and x can be projected"):
        images.project(0)


def test_an_axis_that_is_none_is_an_error(images: ImageSeries) -> None:
    with pytest.raises(GeometryError, match="not 't'"):
        images.project(0, axis="t")  # type: ignore[arg-type]


class Zooming(Camera):
    """A camera whose z step is read in each event."""

    z_step_um = 1.5

    def describe(self) -> dict[str, Any]:
        keys = super().describe()
        keys[self.key]["voxel_size_um"] = [f"{self.name}_z_step_um", 0.25, 0.125]
        return keys


def test_a_spacing_that_each_event_says_is_that_of_its_volume(root: Path) -> None:
    def plan(writer: FileWriter) -> Plan:
        camera = Zooming("cam", writer, cam_z_step_um=1.5)
        return taken(camera, *({"cam_z_step_um": step} for step in (1.5, 1.5, 2.0)))

    images = record(root, plan)["primary"].images("cam_image")
    assert images.voxel_size_um_of(0) == (1.5, 0.25, 0.125)
    assert images.voxel_size_um_of(-1) == (2.0, 0.25, 0.125)
    with pytest.raises(GeometryError, match=r"has voxels of .*Ask voxel_size_um_of"):
        _ = images.voxel_size_um


def test_where_nobody_says_the_spacing_it_is_none(root: Path) -> None:
    images = record(root, bp.count([inline("img", np.zeros((200, 200)))]))["primary"].images("img")
    assert images.voxel_size_um is None
    assert images.dims == ("event", "y", "x")


@OF_TIFF
def test_a_walk_over_many_volumes_keeps_a_few_of_them_mapped_and_none_without_its_run(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of all runs together, however many are held: a map may stop a file from being removed."""
    maps: list[weakref.ref[Any]] = []

    def alive() -> int:
        return sum(noted() is not None for noted in maps)

    class Noted(np.memmap[Any, Any]):
        def __init__(self, *_: object) -> None:
            maps.append(weakref.ref(self))

    with FileWriter(root, durability="run") as writer:
        run_engine, _ = connected(writer)
        for _ in range(3):
            run_engine(bp.count([Camera("cam", writer, shape=(1, 4, 8))], 40))
    monkeypatch.setattr(np, "memmap", Noted)
    held = [run["primary"].images("cam_image") for run in Catalog(root)]
    for images in held:
        for event in range(40):
            assert int(images[event, 0, 0, 0]) == event
        assert len(images[:, 0, 0, 0]) == 40
    assert alive() == 16
    first = held[0].volume(0)
    assert held[0].volume(0) is first
    assert alive() == 16
    del first, images
    held.clear()
    assert alive() == 0


def test_a_stream_with_a_run_wrapper_is_like_any_other(root: Path) -> None:
    def plan(writer: FileWriter) -> Plan:
        yield from bpp.run_wrapper(bps.trigger_and_read([Camera("cam", writer, dtype="<f8")]))

    found: NDArray[Any] = record(root, plan)["primary"]["cam_image"][0]
    np.testing.assert_array_equal(found, volume(0, SHAPE, "<f8"))
