"""Pixels over HTTP: the right ones, in every form, with the right status where there are none."""

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import bluesky.plan_stubs as bps
import numpy as np
import pytest
import tifffile
from bluesky.plans import count
from PIL import Image

from gently_bluesky import Catalog, FileWriter
from gently_bluesky.keep.convert import convert_run
from gently_bluesky.keep.discard import discard, restore
from gently_bluesky.serve.doors import Limits
from gently_bluesky.serve.histograms import histogram_of
from tests.data_rig import Camera, inline, newest, record, volume
from tests.serve_rig import KEY, SHAPE, Served, as_array, recorded, series, served


@pytest.fixture(scope="module", params=["ome-tiff", "ome-zarr"])
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    root = tmp_path_factory.mktemp("pixels") / "root"
    recorded(root, 3, image_format=request.param)
    with served(root) as found:
        yield found


PIXELS = f"{series('-1')}/pixels"


@pytest.mark.parametrize(
    ("text", "index"),
    [
        ("0,2", np.s_[0, 2]), ("0,:,5", np.s_[0, :, 5]), ("0,:,:,7", np.s_[0, :, :, 7]),
        ("-1,...,3", np.s_[-1, ..., 3]),
        ("2,1:4,::3,5:9", np.s_[2, 1:4, ::3, 5:9]), ("2,::-1", np.s_[2, ::-1]), ("::2,0", np.s_[::2, 0]),
        ("0", np.s_[0]),
        ("0,3,4,5", np.s_[0, 3, 4, 5]), ("2,5:5", np.s_[2, 5:5]), ("5:,0", np.s_[5:, 0]),
    ],
)  # fmt: skip
def test_a_part_is_the_part_that_numpy_gives(server: Served, text: str, index: Any) -> None:
    whole = np.stack([volume(number, SHAPE) for number in range(3)])
    np.testing.assert_array_equal(server.pixels(PIXELS, slice=text), whole[index])


def test_every_form_holds_the_pixels(server: Served) -> None:
    plane = volume(2, SHAPE)[3]
    content = server.get(PIXELS, params={"slice": "2,3", "format": "npy"}).content
    np.testing.assert_array_equal(np.load(io.BytesIO(content)), plane)
    content = server.get(PIXELS, params={"slice": "2,2:5", "format": "tiff"}).content
    np.testing.assert_array_equal(tifffile.imread(io.BytesIO(content)), volume(2, SHAPE)[2:5])
    for form in ("png", "jpeg"):
        answer = server.get(PIXELS, params={"slice": "2,3", "format": form, "window": "0,255"})
        picture = np.asarray(Image.open(io.BytesIO(answer.content)))
        assert (answer.headers["content-type"], answer.headers["x-window"]) == (f"image/{form}", "0,255")
        assert picture.shape == plane.shape
        if form == "png":
            np.testing.assert_array_equal(picture, plane)


def test_a_picture_says_how_it_was_made(server: Served) -> None:
    answer = server.get(PIXELS, params={"slice": "0,3", "format": "png", "size": 12, "cmap": "viridis"})
    assert Image.open(io.BytesIO(answer.content)).size == (12, 8)
    low, high = map(float, answer.headers["x-window"].split(","))
    assert 0 <= low < high <= 100
    assert answer.headers["x-shape"] == "8,12"


@pytest.mark.parametrize(
    ("params", "status"),
    [
        ({"slice": "0"}, 422), ({"slice": "0,1,2"}, 422), ({"slice": "0,1", "cmap": "nothing"}, 422),
        ({"slice": "0,1", "cmap": "../../etc/passwd"}, 422), ({"slice": "0,1", "window": "3,1"}, 422),
        ({"slice": "0,1", "window": "x"}, 422), ({"slice": "0,1", "size": "0"}, 422),
        ({"slice": "0,1", "size": "99999"}, 422), ({"slice": "0,1,5:5"}, 422), ({"slice": "3,0"}, 404),
        ({"slice": "0,6"}, 404), ({"slice": "0,0,0,0,0"}, 404), ({"slice": "1,0"}, 409), ({}, 422),
        ({"slice": "0,1", "level": "7"}, 404), ({"slice": "0,1", "level": "-1"}, 422),
        ({"slice": "0,1", "format": "gif"}, 422),
        ({"slice": "0,1", "include_bad": "perhaps"}, 422),
    ],
)  # fmt: skip
def test_what_cannot_be_shown_is_a_problem(server: Served, params: dict[str, str], status: int) -> None:
    answer = server.get(PIXELS, params={"format": "png"} | params)
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json")
    assert answer.json()["detail"]


def test_what_is_not_good_is_given_only_to_those_who_ask_for_it(server: Served) -> None:
    assert "include_bad=True" in server.get(PIXELS, params={"slice": "1,2"}).json()["detail"]
    got = server.pixels(PIXELS, slice="1,2", include_bad=True)
    np.testing.assert_array_equal(got, volume(1, SHAPE)[2])


def test_projections_are_maxima(server: Served) -> None:
    for axis, number in (("z", 0), ("y", 1), ("x", 2)):
        got = server.pixels(f"{series('-1')}/projection", event=2, axis=axis)
        np.testing.assert_array_equal(got, volume(2, SHAPE).max(axis=number))
    answer = server.get(f"{series('-1')}/projection", params={"event": 2, "axis": "three", "format": "png"})
    assert answer.status_code == 200
    assert max(Image.open(io.BytesIO(answer.content)).size) <= 512
    for params, status in (({"event": 1}, 409), ({"event": 3}, 404), ({"event": 0, "axis": "t"}, 422), ({}, 422),
                           ({"event": 0, "axis": "three"}, 422)):  # fmt: skip
        assert server.get(f"{series('-1')}/projection", params=params).status_code == status


def test_a_histogram_counts_every_pixel(server: Served) -> None:
    said = server.json(f"{series('-1')}/histogram", params={"slice": "2", "bins": 7})
    pixels = volume(2, SHAPE)
    counts, edges = np.histogram(pixels, 7)
    assert said["counts"] == counts.tolist()
    np.testing.assert_allclose(said["edges"], edges)
    assert (said["min"], said["max"], said["pixels"]) == (pixels.min(), pixels.max(), pixels.size)
    assert said["mean"] == pytest.approx(pixels.mean())
    for percent, value in said["percentiles"].items():
        assert value == pytest.approx(np.percentile(pixels, float(percent)))


@pytest.mark.parametrize("dtype", ["u1", "u2", "i2", "u4", "i8", "f4", "f8", "?"])
def test_a_histogram_of_any_numbers_is_numpys(dtype: str) -> None:
    pixels = np.random.default_rng(1).normal(100, 30, (40, 50)).astype(dtype)
    said = histogram_of(pixels, 16)
    counts, _ = np.histogram(pixels.astype(np.uint8) if dtype == "?" else pixels, 16)
    assert said["counts"] == counts.tolist()
    for percent, value in said["percentiles"].items():
        assert value == pytest.approx(np.percentile(pixels.astype(float), float(percent)))


def test_a_histogram_of_nothing_and_of_no_numbers() -> None:
    assert histogram_of(np.empty(0, np.uint16), 3)["counts"] == [0, 0, 0]
    said = histogram_of(np.array([np.nan, np.inf, 1.0, 3.0]), 2)
    assert (said["counts"], said["pixels"]) == ([1, 1], 2)
    with pytest.raises(ValueError, match="complex"):
        histogram_of(np.zeros(3, complex), 2)


def test_a_series_says_what_it_is(server: Served) -> None:
    said = server.json(series("-1"))
    assert (said["shape"], said["dtype"], said["dims"]) == ([3, *SHAPE], "<u2", ["event", "z", "y", "x"])
    assert said["voxel_size_um"] == [0.5, 0.25, 0.25]
    assert [(each["event"], each["timepoint"], each["good"]) for each in said["events"]] == [
        (0, 0, True), (1, 1, False), (2, 2, True)
    ]  # fmt: skip
    assert all(each["stored"] and each["embryo"] == "e1" and each["view"] == "A" for each in said["events"])
    assert not any(each["source"].split(": ")[1][0] == "/" for each in said["events"])
    page = server.json(series("-1"), params={"first": 1, "limit": 1})
    assert ([each["event"] for each in page["events"]], page["next"]) == ([1], 2)


# --- a volume by its permanent address ----------------------------------------------------------------------


def test_a_volume_has_an_address_that_does_not_change(server: Served) -> None:
    event = server.json(series("-1"))["events"][2]
    uid = server.json("/runs/-1")["uid"]
    at = f"/runs/{uid}/volumes/{event['resource']}/{event['index']}"
    said = server.json(at)
    assert (said["shape"], said["state"], said["frames_there"]) == (list(SHAPE), "sealed", None)
    answer = server.get(f"{at}/pixels", params={"slice": "3,::2"})
    np.testing.assert_array_equal(as_array(answer), volume(2, SHAPE)[3, ::2])
    assert "immutable" in answer.headers["cache-control"]
    newest_one = server.get(f"/runs/-1/volumes/{event['resource']}/2/pixels", params={"slice": "3"})
    assert newest_one.headers["cache-control"] == "private, no-cache"
    miss = server.get(f"/runs/{uid}/volumes/nothing/0")
    assert (miss.status_code, miss.json()["available"]) == (404, {"resource": [event["resource"]]})
    assert server.get(f"/runs/{uid}/volumes/{event['resource']}/7").status_code == 404
    assert server.get(f"{at}/pixels", params={"slice": "9"}).status_code == 404


# --- ETags --------------------------------------------------------------------------------------------------


def test_an_etag_is_that_of_the_pixels_and_of_how_they_are_given(server: Served) -> None:
    """One slice in two spellings has one; another plane, form, window or event has another."""
    questions = [
        {"slice": "0,2"}, {"slice": "0,3"}, {"slice": "2,2"}, {"slice": "0,2", "format": "npy"},
        {"slice": "0,2", "format": "png"}, {"slice": "0,2", "format": "png", "window": "0,9"},
        {"slice": "0,2", "format": "png", "cmap": "magma"}, {"slice": "0,2", "format": "png", "size": "20"},
        {"slice": "0,2", "format": "jpeg"}, {"slice": "0,2,:5"}, {"slice": "0,2,::-1"},
    ]  # fmt: skip
    etags = [server.get(PIXELS, params=params).headers["etag"] for params in questions]
    assert len(set(etags)) == len(questions)
    assert server.get(PIXELS, params={"slice": "-3,-4,...,0:48"}).headers["etag"] == etags[0]
    for etag, params in zip(etags, questions, strict=True):
        known = server.get(PIXELS, params=params, headers={"if-none-match": f'"x", W/{etag}'})
        assert (known.status_code, known.content) == (304, b"")
        assert server.get(PIXELS, params=params, headers={"if-none-match": '"x"'}).status_code == 200


def test_a_picture_that_is_kept_is_the_same(server: Served) -> None:
    params = {"slice": "2,4", "format": "jpeg", "size": "31"}
    first, again = (server.get(PIXELS, params=params) for _ in range(2))
    assert first.content == again.content
    assert dict(first.headers) | {"date": ""} == dict(again.headers) | {"date": ""}


# --- what was removed, is foreign, or differs ---------------------------------------------------------------


def test_what_was_removed_is_gone_with_the_reason_and_may_come_back(tmp_path: Path, every_format: str) -> None:
    """Also where a map of it, or a picture, is kept; and a client that has it hears so, too."""
    root = tmp_path / "root"
    run = recorded(root, 3)
    with served(root) as server:
        before = server.get(PIXELS, params={"slice": "0,1"})
        picture = server.get(PIXELS, params={"slice": "0,1", "format": "png"})
        assert picture.status_code == 200
        discard(root, run.uid, by="ann")
        for params in ({"slice": "0,1"}, {"slice": "0,1", "format": "png"}, {"slice": "0:1,1"}):
            gone = server.get(PIXELS, params=params, headers={"if-none-match": before.headers["etag"]})
            assert gone.status_code == 410
            assert gone.json()["removed"]["by"] == "ann"
            assert str(tmp_path) not in gone.text
        assert server.get(f"{series('-1')}/histogram", params={"slice": "0,1"}).status_code == 410
        events = server.json(series("-1"))["events"]
        assert [each["stored"] for each in events] == [False] * 3
        assert "ann" in events[0]["removed"]
        at = f"/runs/{run.uid}/volumes/{events[0]['resource']}/0"
        assert server.json(at)["state"] == "removed"
        assert server.get(f"{at}/pixels", params={"slice": "0"}).status_code == 410
        assert server.json("/volumes?stored=true")["volumes"] == []
        restore(root, run.uid)
        np.testing.assert_array_equal(server.pixels(PIXELS, slice="0,1"), volume(0, SHAPE)[1])


def test_levels_are_those_of_the_pyramid(tmp_path: Path) -> None:
    root = tmp_path / "root"
    run = recorded(root, 1, shape=(4, 600, 520))
    convert_run(root, run.folder.relative_to(root).as_posix(), "ome-zarr")
    images = newest(root)["primary"][KEY]
    with served(root) as server:
        said = server.json(series("-1"))["levels"]
        assert [tuple(each["shape"]) for each in said] == [level.shape for level in images.levels]
        assert len(said) > 1
        for number, level in enumerate(images.levels):
            np.testing.assert_array_equal(server.pixels(PIXELS, slice="0,1", level=number), level[0, 1])
        uid, ref = images.run_uid, images.row(0).volumes[KEY]
        at = f"/runs/{uid}/volumes/{ref.resource}/0"
        assert [each["factors"] for each in server.json(at)["levels"]] == [each["factors"] for each in said]
        np.testing.assert_array_equal(
            server.pixels(f"{at}/pixels", slice=":,3", level=1), images.levels[1][0, :, 3]
        )


def test_arrays_of_any_device_are_served(tmp_path: Path) -> None:
    """Of other byte orders, kinds and numbers of axes; those that stay in their event are no series."""
    root = tmp_path / "root"
    arrays = [np.arange(200 * 200, dtype=">i4").reshape(200, 200) + i for i in range(2)]
    record(root, count([inline("picture", *arrays)], 2))
    with served(root) as server:
        got = server.pixels(f"{series('-1', key='picture')}/pixels", slice="1,3:9")
        np.testing.assert_array_equal(got, arrays[1][3:9])
        assert got.dtype.str == "<i4"
        assert server.get(f"{series('-1', key='picture')}/projection", params={"event": 0}).status_code == 422


def test_frames_that_never_came_are_never_zeros(tmp_path: Path) -> None:
    """An interrupted volume is given as far as it came, to those who ask for it; 409 for the other frames."""
    root = tmp_path / "root"
    with FileWriter(root) as writer:
        camera = Camera("cam", writer, shape=SHAPE)
        camera.before_seal = lambda new: new.abort("a test")
        writer("start", {"uid": "u" * 8, "time": 1.0})
        resource = writer.open_resource(KEY, shape=SHAPE, dtype="<u2")
        new = resource.new_volume()
        for z in range(3):
            new.write(z, volume(5, SHAPE)[z], time=2.0)
        new.abort("a test")
    with served(root) as server:
        (entry,) = newest(root).left_beside
        assert entry.frames == 3
        manifest = (newest(root).folder / "manifest.jsonl").read_text()
        uid = manifest.split('"resource":"')[1].split('"')[0]
        at = f"/runs/-1/volumes/{uid}/0"
        assert server.json(at)["state"] == "aborted"
        assert sum(server.json(at)["frames_there"]) == 3
        assert server.get(f"{at}/pixels", params={"slice": "1"}).status_code == 409
        got = server.pixels(f"{at}/pixels", slice=":3", include_bad=True)
        np.testing.assert_array_equal(got, volume(5, SHAPE)[:3])
        never = server.get(f"{at}/pixels", params={"slice": "2:5", "include_bad": True})
        assert never.status_code == 409
        assert "3 of 6 frames" in never.json()["detail"]


# --- what is too much ---------------------------------------------------------------------------------------


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Served]:
    root = tmp_path / "root"
    recorded(root, 3, image_format="ome-zarr")
    limits = Limits(answer_bytes=4000, decode_bytes=8000, room_bytes=1 << 20)
    with served(root, limits=limits) as server:
        yield server


@pytest.mark.parametrize("text", ["0", "...", ":,0", "0,:,:,0:20", "0," + "9" * 18 + "::-1"])
def test_gigantic_requests_are_refused_before_anything_is_read(small: Served, text: str) -> None:
    for form in ("raw", "npy", "tiff", "png"):
        answer = small.get(PIXELS, params={"slice": text, "format": form, "include_bad": True})
        assert answer.status_code == 413
        assert answer.json()["limit"] == 4000
        assert "level" in answer.json()["detail"]


def test_what_must_be_decoded_for_little_is_bounded_too(small: Served) -> None:
    """Four corners of every plane are a few bytes, and a whole volume has to be decoded for them."""
    answer = small.get(PIXELS, params={"slice": "0,:,::31,::47"})
    assert (answer.status_code, answer.json()["limit"]) == (413, 8000)
    assert small.get(PIXELS, params={"slice": "0,0"}).status_code == 200


def test_the_newest_run_is_the_newest_run(tmp_path: Path) -> None:
    """-1 names another run as soon as there is one, also in a server that holds the older one."""
    root = tmp_path / "root"
    first = recorded(root, 1)
    with served(root) as server:
        assert server.get(PIXELS, params={"slice": "0,0"}).headers["x-run"] == first.uid
        second = recorded(root, 1)
        assert server.get(PIXELS, params={"slice": "0,0"}).headers["x-run"] == second.uid
        assert len(Catalog(root)) == 2


def test_an_open_run_is_served_as_far_as_it_is(tmp_path: Path) -> None:
    root = tmp_path / "root"
    seen = []

    def plan(writer: FileWriter) -> Iterator[Any]:
        camera = Camera("cam", writer, shape=SHAPE)
        yield from bps.open_run()
        with served(root) as server:
            for number in range(3):
                yield from bps.trigger_and_read([camera])
                writer._backlog.drain()
                said = server.json(series("-1"))
                np.testing.assert_array_equal(server.pixels(PIXELS, slice="-1,2"), volume(number, SHAPE)[2])
                seen.append((len(said["events"]), said["is_open"]))
        yield from bps.close_run()

    record(root, plan)
    assert seen == [(1, True), (2, True), (3, True)]
