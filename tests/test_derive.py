"""Runs made out of runs: their documents, their files, and what is refused before anything is written."""

import functools
import re
import shutil
import sys
import threading
import time
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import bluesky.plan_stubs as bps
import numpy as np
import ome_types
import pytest
import tifffile
from bluesky import Msg
from numpy.typing import NDArray

from gently_bluesky import Catalog, FileWriter, __version__, derive
from gently_bluesky.derived import Derived, ParentVolume, Pixels, Selection, maximum_projection
from gently_bluesky.errors import (
    BadVolumeError,
    DerivationError,
    RunNotFoundError,
    StreamNotFoundError,
    VolumeMissingError,
)
from gently_bluesky.keep.verify import verify
from gently_bluesky.plans import acquire_volume
from gently_bluesky.provenance import commit_of
from gently_bluesky.read.run import Run
from gently_bluesky.store import pyramid
from gently_bluesky.write.recovery import recover
from tests.data_rig import (
    DEADLINE_S,
    REPOSITORY,
    SHAPE,
    Camera,
    Child,
    connected,
    feed,
    hold_pixels,
    hold_together,
    inline,
    into,
    journal,
    newest,
    of,
    record,
    start_doc,
    stop_doc,
    taken,
    volume,
)
from tests.devices_rig import simulated
from tests.retention_rig import planned, take, timelapse

KEY = "cam_image"


# --- functions to derive with -----------------------------------------------------------------------------------


def doubled(pixels: NDArray[Any], *, add: int = 0) -> NDArray[Any]:
    """As numpy would, in the dtype of the volume."""
    result: NDArray[Any] = pixels * pixels.dtype.type(2) + pixels.dtype.type(add)
    return result


def measured(pixels: NDArray[Any]) -> dict[str, Any]:
    """Two numbers, a text, a truth value and a profile of each volume."""
    profile = pixels.max(axis=(1, 2))
    return {
        "brightest": int(pixels.max()),
        "mean": pixels.mean(),
        "said": "x",
        "yes": np.bool_(True),
        "profile": profile,
    }


def running_sum(volumes: Sequence[ParentVolume], *, over: int) -> Iterator[Derived]:
    """Each volume and those before it."""
    for last in range(len(volumes)):
        several = volumes[max(0, last + 1 - over) : last + 1]
        yield Derived(sum(np.asarray(each.array(), np.uint32) for each in several), of=several)


def each_alone(volumes: Sequence[ParentVolume]) -> Iterator[Derived]:
    """One event a volume, by a generator."""
    for each in volumes:
        yield Derived({"z0": Pixels(each.array()[0], ("y", "x"))}, of=each)


def fails_at_the_third(pixels: NDArray[Any], *, parent: ParentVolume) -> NDArray[Any]:
    """It does."""
    if parent.seq_num == 3:
        raise ArithmeticError("no more")
    return doubled(pixels)


# --- what comes of it -------------------------------------------------------------------------------------------


@pytest.fixture
def run(root: Path) -> Run:
    """Three volumes of an embryo, with addresses in their first pixels."""
    return timelapse(root, 3, session="s", purpose="test")


def test_one_event_of_the_parent_gives_one_event(run: Run, root: Path) -> None:
    """Pixels, documents, files, index and identity are those of any run."""
    made = derive(doubled, run["primary"][KEY], into=Catalog(root), parameters={"add": 1})
    images = made["primary"][KEY]
    for event in range(3):
        np.testing.assert_array_equal(images.volume(event), volume(event) * 2 + 1)
    assert (images.dims, images.voxel_size_um) == (("event", "z", "y", "x"), (0.5, 0.25, 0.25))
    stream = made["primary"]
    assert stream["parent_seq_num"].tolist() == [1, 2, 3]
    assert stream["parent_run"].tolist() == [run.uid] * 3
    assert stream["parent_stream"].tolist() == ["primary"] * 3
    np.testing.assert_array_equal(stream["parent_time"], run["primary"].time)
    assert (stream["embryo"].tolist(), stream["timepoint"].tolist()) == (["e1"] * 3, [0, 1, 2])
    hold_together(list(made.documents()))
    hold_together(journal(made.folder))
    hold_pixels(made)
    assert verify(root).findings == ()
    paths = sorted(made.folder.glob("*/*.ome.tif"))
    for event, path in enumerate(paths):
        np.testing.assert_array_equal(tifffile.imread(path), volume(event) * 2 + 1)
    assert len(paths) == 3


def test_a_file_found_alone_says_where_it_came_from(run: Run, root: Path) -> None:
    made = derive(maximum_projection, run, into=root)
    (path, *_) = sorted(made.folder.glob("*/*.ome.tif"))
    ome = ome_types.from_tiff(path)
    pixels = ome.images[0].pixels
    assert (pixels.physical_size_x, pixels.physical_size_y, pixels.physical_size_z) == (0.25, 0.25, None)
    assert (pixels.size_x, pixels.size_y, pixels.size_z) == (SHAPE[2], SHAPE[1], 1)
    text = ome.to_xml()
    assert run.uid in text
    assert '"parent_seq_num">1<' in text
    acquired = ome.images[0].acquisition_date
    assert acquired is not None
    assert acquired.replace(tzinfo=None) != path.stat().st_mtime  # it is the parent's
    assert abs(acquired.timestamp() - run["primary"].time[0]) < 1


def test_the_start_document_says_of_what_with_what_and_on_what_it_was_made(run: Run, root: Path) -> None:
    made = derive(maximum_projection, run, into=root, parameters={"axis": "y"}, start={"operator": "ann"})
    start = made.start
    assert start["parents"] == [
        {"run": run.uid, "stream": "primary", "data_key": KEY, "seq_nums": [{"start": 1, "stop": 4}]}
    ]
    function = start["function"]
    assert function["name"] == "gently_bluesky.derived.projection.maximum_projection"
    assert function["parameters"] == {"axis": "y"}
    assert function["version"] == start["versions"]["gently_bluesky"] == __version__
    assert start["versions"].keys() == {"python", "gently_bluesky", "numpy"}
    assert start["platform"]
    checkout = commit_of(Path(__file__).parent.parent / "gently_bluesky" / "derived" / "projection.py")
    assert {key: function[key] for key in ("commit", "dirty") if key in function} == checkout
    assert (start["plan_name"], start["plan_type"], start["scan_id"]) == ("maximum_projection", "derive", 2)
    assert (start["session"], start["purpose"], start["operator"]) == ("s", "test", "ann")
    assert start["num_points"] == 3


def test_what_parents_do_not_agree_in_is_not_carried(root: Path) -> None:
    runs = [timelapse(root, 1, session="s", purpose=purpose) for purpose in ("a", "b")]
    made = derive(maximum_projection, runs, into=root)
    assert "purpose" not in made.start
    assert made.start["session"] == "s"
    assert made["primary"]["parent_run"].tolist() == [each.uid for each in runs]
    assert "purpose" not in derive(maximum_projection, reversed(runs), into=root).start


def test_views_of_one_event_stay_in_one_event(root: Path) -> None:
    def plan(writer: FileWriter) -> Iterator[Msg]:
        cameras = [Camera("a", writer, channel="488", good=True), Camera("b", writer, shape=(2, 4, 8))]
        yield from bps.open_run()
        for _ in range(2):
            yield from bps.trigger_and_read(cameras)
        yield from bps.close_run()

    run = record(root, plan)
    made = derive(maximum_projection, run, into=root)
    assert list(made) == ["primary"]
    assert made["primary"]["a_image"].shape == (2, 8, 16)
    assert made["primary"]["b_image"].shape == (2, 4, 8)
    assert made["primary"]["channel"].tolist() == ["488", "488"]
    assert made["primary"]["good"].tolist() == [True, True]
    assert made["primary"].data_keys["b_image"]["parent_data_key"] == "b_image"
    with pytest.raises(DerivationError, match=r"data_key='max' is one name.*a_image.*b_image"):
        derive(maximum_projection, run, into=root, data_key="max")
    alone = derive(maximum_projection, (run, "primary", "b_image"), into=root, data_key="max")
    assert alone["primary"].image_keys == ["max"]
    with pytest.raises(DerivationError, match=r"Several results of .* are named 'brightest'"):
        derive(measured, run, into=root)
    assert newest(root).exit_status == "fail"


def test_a_function_may_give_numbers_text_and_small_arrays(run: Run, root: Path) -> None:
    stream = derive(measured, run, into=root)["primary"]
    assert stream["brightest"].tolist() == [int(volume(event).max()) for event in range(3)]
    assert stream["mean"].tolist() == pytest.approx([volume(event).mean() for event in range(3)])
    assert (stream["said"].tolist(), stream["yes"].tolist()) == (["x"] * 3, [True] * 3)
    np.testing.assert_array_equal(stream["profile"], [volume(event).max(axis=(1, 2)) for event in range(3)])
    kinds = {key: stream.data_keys[key]["dtype"] for key in ("brightest", "mean", "said", "yes", "profile")}
    assert list(kinds.values()) == ["integer", "number", "string", "boolean", "array"]
    assert verify(root).findings == ()


def test_numpys_own_functions_are_called_by_their_names(run: Run, root: Path) -> None:
    made = derive(np.max, run, into=root, parameters={"axis": (1, 2)}, data_key="profile")
    assert made["primary"]["profile"].tolist() == [volume(event).max(axis=(1, 2)).tolist() for event in range(3)]
    function = made.start["function"]
    assert (function["name"], function["parameters"]) == ("numpy.max", {"axis": [1, 2]})
    assert function["version"] == np.__version__


def test_a_generator_combines_volumes_and_says_which(run: Run, root: Path) -> None:
    made = derive(running_sum, run, into=root, parameters={"over": 2}, data_key="sum")
    stream = made["primary"]
    assert [row.data["parent_seq_num"] for row in stream.rows] == [[1], [1, 2], [2, 3]]
    assert [row.data["timepoint"] for row in stream.rows] == [0, None, None]  # they do not agree
    assert [row.data["embryo"] for row in stream.rows] == ["e1"] * 3
    np.testing.assert_array_equal(stream["sum"].volume(2), volume(1).astype("u4") + volume(2))
    hold_together(list(made.documents()))
    assert verify(root).findings == ()
    alone = derive(each_alone, run, into=root)["primary"]
    assert alone["parent_seq_num"].tolist() == [1, 2, 3]
    np.testing.assert_array_equal(alone["z0"][1], volume(1)[0])
    assert alone["z0"].voxel_size_um == (0.25, 0.25)


def test_references_are_parents_with_a_role(run: Run, root: Path) -> None:
    def minus(pixels: NDArray[Any], *, dark: list[ParentVolume]) -> Any:
        return pixels.astype("i4") - dark[0].array()

    dark = (run, "primary", KEY, [2])
    made = derive(minus, (run, "primary", KEY, [1, 3]), into=root, references={"dark": dark})
    np.testing.assert_array_equal(made["primary"][KEY].volume(1), volume(2).astype("i4") - volume(1))
    first, second = made.start["parents"]
    assert first["seq_nums"] == [{"start": 1, "stop": 2}, {"start": 3, "stop": 4}]
    assert "role" not in first
    assert (second["role"], second["seq_nums"]) == ("dark", [{"start": 2, "stop": 3}])


def test_lazy_functions_are_given_dask_arrays(run: Run, root: Path) -> None:
    def through(pixels: Any) -> Any:
        return pixels + 1

    made = derive(through, run, into=root, lazy=True)
    np.testing.assert_array_equal(made["primary"][KEY].volume(1), volume(1) + 1)
    derive(lambda pixels: type(pixels).__module__, run, into=root, lazy=True, data_key="kind")
    assert newest(root)["primary"]["kind"].tolist() == ["dask.array.core"] * 3


def test_parents_and_what_comes_of_them_may_be_stored_as_ome_zarr(root: Path) -> None:
    shape = (20, 40, 60)
    run = record(root, lambda writer: taken(Camera("cam", writer, shape=shape), {}, {}), image_format="ome-zarr")
    with FileWriter(root, image_format="ome-zarr") as writer:
        for lazy in (False, True):
            made = derive(doubled, run, into=writer, lazy=lazy)["primary"][KEY]
            assert made.source(1).format == "ome-zarr"
            np.testing.assert_array_equal(made.volume(1), volume(1, shape) * 2)
    assert verify(root).findings == ()


@pytest.mark.parametrize("many", ["volumes", "uid", "series", "selection", "run", "several"])
def test_parents_are_named_in_every_way_that_a_catalog_gives(many: str, run: Run, root: Path) -> None:
    catalog = Catalog(root)
    ways: dict[str, Any] = {
        "volumes": catalog.volumes(embryo="e1"),
        "uid": run.uid[:10],
        "series": run["primary"][KEY],
        "selection": Selection(run.uid, "primary", KEY, range(1, 4)),
        "run": run,
        "several": [*catalog.volumes(timepoint=2), (run, "primary", KEY, [1]), catalog.volumes(timepoint=1)[0]],
    }
    made = derive(maximum_projection, ways[many], into=catalog)
    assert made["primary"]["parent_seq_num"].tolist() == [1, 2, 3]


def test_of_a_series_the_events_that_were_chosen_are_parents(run: Run, root: Path) -> None:
    images = run["primary"][KEY]
    made = derive(maximum_projection, images.only([1]), into=root)
    assert made["primary"]["parent_seq_num"].tolist() == [2]
    assert made.start["parents"][0]["seq_nums"] == [{"start": 2, "stop": 3}]
    twice = derive(maximum_projection, [images.only([2, 1, 2]).only([0]), images.only([-3])], into=root)
    assert twice["primary"]["parent_seq_num"].tolist() == [1, 3]
    every = derive(maximum_projection, [images.only([1]), images], into=root)
    assert every["primary"]["parent_seq_num"].tolist() == [1, 2, 3]
    with pytest.raises(DerivationError, match="the selection holds no volume"):
        derive(maximum_projection, images.only([]), into=root)


def test_a_level_of_a_pyramid_is_no_parent(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pyramid, "SMALLEST", 16)
    shape = (4, 40, 40)
    run = record(root, lambda writer: taken(Camera("cam", writer, shape=shape), {}), image_format="ome-zarr")
    whole, smaller, *_ = run["primary"][KEY].levels
    with pytest.raises(DerivationError, match=r"level 1> is a smaller version .* images\.levels\[0\]"):
        derive(maximum_projection, [smaller], into=root)
    assert len(Catalog(root)) == 1
    assert derive(maximum_projection, whole, into=root)["primary"][KEY].shape == (1, 40, 40)


def test_what_differs_in_geometry_goes_to_a_stream_of_its_own(root: Path) -> None:
    pixel_um = {"dtype": "array", "shape": [], "dims": ["z", "y", "x"]}
    for size in (0.5, 0.25):
        camera = inline("cam", *[np.full(SHAPE, size * 4, "u2")] * 2, voxel_size_um=[1.0, size, size], **pixel_um)
        plan = [
            *bps.open_run(),
            *bps.trigger_and_read([camera]),
            *bps.trigger_and_read([camera]),
            *bps.close_run(),
        ]
        record(root, plan, inline_limit_bytes=100)
    made = derive(doubled, Catalog(root), into=root)
    assert {name: made[name]["cam"].voxel_size_um for name in made} == {
        "primary": (1.0, 0.5, 0.5),
        "primary_2": (1.0, 0.25, 0.25),
    }
    assert [len(made[name]) for name in made] == [2, 2]
    assert verify(root).findings == ()


def test_settings_that_a_data_key_refers_to_travel_with_each_event(root: Path) -> None:
    """Of a real detector: the OME metadata of a derived volume are those of the acquired one."""
    with FileWriter(root) as writer:
        run_engine, _ = connected(writer)
        dispim = simulated(sink=writer)
        run_engine(
            acquire_volume(
                dispim, session="s", embryo="e1", timepoint=4, channel="488 only", views="AB", z_step_um=1.5
            )
        )
        dispim.close()
    run = newest(root)
    made = derive(maximum_projection, run, into=root)
    keys = made["primary"].data_keys["spim_b"]
    assert (keys["view"], keys["dims"], keys["voxel_size_um"]) == ("B", ["y", "x"], [0.1625, 0.1625])
    path = next(made.folder.glob("spim_b/*.ome.tif"))
    image, parent = (ome_types.from_tiff(each).images[0] for each in (path, next(run.folder.glob("spim_b/*.tif"))))
    assert image.pixels.channels[0].name == parent.pixels.channels[0].name == "488 only"
    of_image, of_parent = image.pixels.planes[0], parent.pixels.planes[0]
    for name in ("exposure_time", "position_x", "position_y"):
        assert getattr(of_image, name) == getattr(of_parent, name) is not None
    same = derive(doubled, run["primary"]["spim_a"], into=root)
    assert same["primary"]["spim_a"].voxel_size_um == (1.5, 0.1625, 0.1625)
    planes = ome_types.from_tiff(next(same.folder.glob("spim_a/*.ome.tif"))).images[0].pixels.planes
    taken = ome_types.from_tiff(next(run.folder.glob("spim_a/*.ome.tif"))).images[0].pixels.planes
    assert [plane.position_z for plane in planes] == pytest.approx([plane.position_z for plane in taken])
    assert Catalog(root).next_timepoint("s", "e1") == 5


def cropped(pixels: NDArray[Any], *, say: bool) -> Pixels:
    """Less of it, and at most what it says of that."""
    return Pixels(pixels[:, 2:], ("z", "y", "x"), (0.5, 0.25, 0.25) if say else None)


def test_a_spacing_that_is_not_known_is_not_made_up(run: Run, root: Path) -> None:
    """Of fewer pixels nobody but the function knows whether they are larger."""
    unsaid = derive(cropped, run, into=root, parameters={"say": False})["primary"]
    assert unsaid[KEY].voxel_size_um is None
    assert unsaid[KEY].dims == ("event", "z", "y", "x")
    assert derive(cropped, run, into=root, parameters={"say": True})["primary"][KEY].voxel_size_um == (
        0.5,
        0.25,
        0.25,
    )
    flattened = derive(np.ravel, run, into=root)["primary"]
    np.testing.assert_array_equal(flattened[KEY][1], volume(1).ravel())
    assert "voxel_size_um" not in flattened.data_keys[KEY]
    assert "dims" not in flattened.data_keys[KEY]


def test_derived_volumes_are_found_when_they_are_asked_for(run: Run, root: Path) -> None:
    made = derive(doubled, run, into=root)
    catalog = Catalog(root)
    assert {found.run_uid for found in catalog.volumes(embryo="e1")} == {run.uid}
    assert {found.run_uid for found in catalog.volumes(embryo="e1", derived=True)} == {made.uid}
    assert len(catalog.volumes(embryo="e1", timepoint=1, view="A", derived=None)) == 2
    np.testing.assert_array_equal(catalog.volumes(timepoint=2, derived=True)[0].array(), volume(2) * 2)


def test_the_readme_is_true(root: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    readme = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    code = re.findall(r"^```python\n(.*?)^```$", readme.partition("## Derived data")[2], re.M | re.S)[0]
    with FileWriter(root) as writer:
        run_engine, _ = connected(writer)
        dispim = simulated(sink=writer)
        run_engine(acquire_volume(dispim, session="s", channel="488 only", views="AB"), scan_id=1)
        dispim.close()
    script = tmp_path / "readme.py"
    script.write_text(code.replace('"data"', repr(str(root))), encoding="utf-8")
    monkeypatch.setitem(sys.modules, "readme", module := types.ModuleType("readme"))
    exec(compile(script.read_text(encoding="utf-8"), script, "exec"), module.__dict__)
    made = Catalog(root)[-1]
    assert made["primary"]["view"].tolist() == ["A"]
    assert "def quality" in made.start["function"]["source"]
    assert len(Catalog(root)) == 5
    assert verify(root).findings == ()


# --- bad volumes ------------------------------------------------------------------------------------------------


@pytest.fixture
def with_a_bad_one(root: Path) -> Run:
    """Three volumes, the second of which is not good."""

    def plan(writer: FileWriter) -> Iterator[Msg]:
        camera = Camera("cam", writer, good=True)
        yield from bps.open_run()
        for good in (True, False, True):
            camera.scalars["good"] = good
            yield from bps.trigger_and_read([camera])
        yield from bps.close_run()

    return record(root, plan)


def test_bad_volumes_are_refused_by_name_skipped_or_taken(with_a_bad_one: Run, root: Path) -> None:
    with pytest.raises(BadVolumeError, match=rf"{with_a_bad_one.uid[:8]}, primary, {KEY}, seq_num 2\. bad='skip'"):
        derive(doubled, with_a_bad_one, into=root)
    assert len(Catalog(root)) == 1
    skipped = derive(doubled, with_a_bad_one, into=root, bad="skip")
    assert skipped["primary"]["parent_seq_num"].tolist() == [1, 3]
    assert skipped.start["parents"][0]["seq_nums"] == [{"start": 1, "stop": 2}, {"start": 3, "stop": 4}]
    all_three = derive(doubled, with_a_bad_one, into=root, bad="take")
    assert all_three["primary"]["good"].tolist() == [True, False, True]
    np.testing.assert_array_equal(all_three["primary"][KEY].volume(1, include_bad=True), volume(1) * 2)
    mixed = derive(running_sum, with_a_bad_one, into=root, bad="take", parameters={"over": 2})
    assert mixed["primary"]["good"].tolist() == [True, False, False]
    with pytest.raises(DerivationError, match="all 1 of them are marked as not good"):
        derive(doubled, (with_a_bad_one, "primary", KEY, [2]), into=root, bad="skip")
    with pytest.raises(ValueError, match="'refuse', 'skip' or 'take'"):
        derive(doubled, with_a_bad_one, into=root, bad="keep")  # type: ignore[arg-type]


@pytest.mark.parametrize("bad", ["dark", "both"])
def test_what_comes_of_a_bad_reference_is_not_good(bad: str, run: Run, with_a_bad_one: Run, root: Path) -> None:
    def minus(pixels: NDArray[Any], *, dark: list[ParentVolume]) -> Any:
        return {KEY: pixels - dark[0].array(), "good": True}

    parents = run if bad == "dark" else with_a_bad_one
    references = {"dark": (with_a_bad_one, "primary", KEY, [1, 2])}
    made = derive(minus, parents, into=root, references=references, bad="take")
    assert made["primary"]["good"].tolist() == [False] * 3
    made = derive(minus, parents, into=root, references=references, bad="skip")
    assert made["primary"]["good"].tolist() == [True] * len(made["primary"])


def judged(pixels: NDArray[Any], *, parent: ParentVolume, worst: int) -> dict[str, Any]:
    """Not good for the worst of them."""
    return {f"{parent.data_key}_mean": pixels.mean(), "good": np.bool_(worst != parent.seq_num)}


def bad_in_one_view(pixels: NDArray[Any], *, parent: ParentVolume) -> dict[str, Any]:
    """The first."""
    return {"good": parent.data_key != "a_image"}


def test_a_function_makes_an_event_not_good_and_never_good(with_a_bad_one: Run, root: Path) -> None:
    made = derive(judged, with_a_bad_one, into=root, bad="take", parameters={"worst": 3})
    assert made["primary"]["good"].tolist() == [True, False, False]
    assert list(made) == ["primary"]

    def views(writer: FileWriter) -> Iterator[Msg]:
        yield from bps.open_run()
        yield from bps.trigger_and_read([Camera("a", writer), Camera("b", writer)])
        yield from bps.close_run()

    either = derive(bad_in_one_view, record(root, views), into=root)["primary"]
    assert either["good"].tolist() == [False]
    assert either.data_keys["good"]["parent_data_key"] == ["a_image", "b_image"]


# --- what is refused before anything is written -----------------------------------------------------------------


def of_two(pixels: NDArray[Any], other: NDArray[Any]) -> Any:
    """It needs more than it is given."""
    return pixels + other


def enclosed() -> Callable[..., Any]:
    factor = 3

    def inner(pixels: NDArray[Any]) -> Any:
        return pixels * factor

    return inner


class Stateful:
    """An object with a method."""

    def method(self, pixels: NDArray[Any]) -> NDArray[Any]:
        """It knows more than its arguments."""
        return pixels


@pytest.mark.parametrize(
    ("function", "parents", "options", "error", "says"),
    [
        (doubled, "nope", {}, RunNotFoundError, "Run nope is not in"),
        (doubled, (-1, "nope", KEY), {}, StreamNotFoundError, "no stream 'nope'"),
        (doubled, (-1, "primary", "nope"), {}, StreamNotFoundError, "no data key 'nope'"),
        (doubled, (-1, "primary", KEY, [2, 9]), {}, DerivationError, r"no volume with seq_num 9; it has 1\.\.3"),
        (doubled, [], {}, DerivationError, "the selection holds no volume"),
        (doubled, 5, {}, TypeError, "Parents are runs"),
        (doubled, -1, {"parameters": {"add": np.zeros(3)}}, DerivationError, r"'add' is an array \(3,\)"),
        (doubled, -1, {"parameters": {"add": {"x": [Path()]}}}, DerivationError, r"Parameter 'add', 'x'\[0\] is"),
        (doubled, -1, {"parameters": {"times": 3}}, DerivationError, "unexpected keyword argument 'times'"),
        (doubled, -1, {"references": {"dark": -1}}, DerivationError, "unexpected keyword argument 'dark'"),
        (of_two, -1, {}, DerivationError, "missing a required argument: 'other'"),
        (maximum_projection, -1, {"parameters": {"parent": 1}}, DerivationError, "'parent' is a parameter"),
        (functools.partial(doubled, add=1), -1, {}, DerivationError, "belongs into parameters"),
        (Stateful().method, -1, {}, DerivationError, "belongs into parameters"),
        (enclosed(), -1, {}, DerivationError, "depends on factor of the function around it"),
        ("doubled", -1, {}, DerivationError, "is no function"),
        (doubled, -1, {"start": {"uid": "mine", "parents": []}}, DerivationError, r"\['parents', 'uid'\]"),
        (doubled, -1, {"references": {"add": "nope"}}, RunNotFoundError, "Run nope"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused_and_nothing_is_written(
    function: Any,
    parents: Any,
    options: Mapping[str, Any],
    error: type[Exception],
    says: str,
    run: Run,
    root: Path,
) -> None:
    parents = run if parents == -1 else (run, *parents[1:]) if isinstance(parents, tuple) else parents
    options = {**options}
    if options.get("references") == {"dark": -1}:
        options["references"] = {"dark": run}
    before = sorted(root.rglob("*"))
    with pytest.raises(error, match=says):
        derive(function, parents, into=root, **options)
    assert sorted(root.rglob("*")) == before


def test_an_empty_answer_of_the_catalog_says_why(run: Run, root: Path) -> None:
    catalog = Catalog(root)
    with pytest.raises(DerivationError, match="no parents: embryo 'e9' is not there; available: 'e1'"):
        derive(doubled, catalog.volumes(embryo="e9"), into=catalog)


def test_parents_of_another_root_are_refused_until_they_are_there(run: Run, root: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    feed(elsewhere, [("start", start_doc(uid="x")), ("stop", stop_doc("x"))])
    with pytest.raises(RunNotFoundError, match=f"replay {run.uid} --root {root} --into {elsewhere} --fill"):
        derive(doubled, run, into=elsewhere)
    assert len(Catalog(elsewhere)) == 1
    into(run, elsewhere, fill=True)
    made = derive(doubled, run, into=elsewhere)
    assert made.folder.is_relative_to(elsewhere)
    assert made.start["parents"][0]["run"] == run.uid


def test_a_file_that_is_gone_is_found_before_anything_is_written(run: Run, root: Path) -> None:
    next(run.folder.glob("*/000001.ome.tif")).unlink()
    with pytest.raises(VolumeMissingError, match=r"000001\.ome\.tif"):
        derive(doubled, run, into=root)
    assert len(Catalog(root)) == 1


# --- what ran ---------------------------------------------------------------------------------------------------


def test_a_function_without_a_name_is_recorded_with_its_source(run: Run, root: Path) -> None:
    made = derive(lambda pixels: pixels[0] + pixels.dtype.type(7), run, into=root)
    function = made.start["function"]
    assert "pixels[0] + pixels.dtype.type(7)" in function["source"]
    assert "<lambda>" in function["name"]
    assert made.start["plan_name"] == "lambda"
    assert "version" not in function
    assert "commit" not in function
    np.testing.assert_array_equal(made["primary"][KEY][2], volume(2)[0] + 7)


def test_a_function_of_nowhere_is_refused(run: Run, root: Path) -> None:
    found: dict[str, Any] = {"__name__": "nowhere"}
    exec("def made_up(pixels): return pixels", found)
    with pytest.raises(DerivationError, match="no source that could be kept"):
        derive(found["made_up"], run, into=root)


def test_defaults_are_recorded_beside_what_was_given(run: Run, root: Path) -> None:
    function = derive(doubled, run, into=root).start["function"]
    assert (function["parameters"], function["defaults"]) == ({}, {"add": 0})
    assert function["name"] == "tests.test_derive.doubled"


def uses_up(
    pixels: NDArray[Any],
    *,
    steps: list[int],
    dark: list[ParentVolume],
    kernel: tuple[int, ...] = (1, 2, 3),
    seen: dict[str, list[int]] = {"at": []},  # noqa: B006 - what is to be found out
    dtype: Any = np.float32,
) -> dict[str, Any]:
    """All that it is given."""
    seen["at"].append(len(dark))
    return {"step": steps.pop(), "calls": len(seen["at"]), "dark": dark.pop().seq_num, "kernel": sum(kernel)}


def test_what_is_recorded_is_what_every_call_was_given(run: Run, root: Path) -> None:
    steps = [3, 2, 1]
    made = derive(uses_up, run, into=root, parameters={"steps": steps}, references={"dark": run})
    function = made.start["function"]
    assert function["parameters"] == {"steps": [3, 2, 1]} == {"steps": steps}
    assert function["defaults"] == {"kernel": [1, 2, 3], "seen": {"at": []}}
    stream = made["primary"]
    assert {key: stream[key].tolist() for key in ("step", "calls", "dark", "kernel")} == {
        "step": [1, 1, 1],
        "calls": [1, 1, 1],
        "dark": [3, 3, 3],
        "kernel": [6, 6, 6],
    }


# --- how it ends ------------------------------------------------------------------------------------------------


def test_a_function_that_fails_closes_the_run_and_is_heard(run: Run, root: Path) -> None:
    with pytest.raises(ArithmeticError, match="no more") as raised:
        derive(fails_at_the_third, run, into=root)
    assert f"run {run.uid[:8]}, primary, seq_num 3" in raised.value.__notes__[0]
    made = newest(root)
    assert made.exit_status == "fail"
    assert made.stop is not None
    assert made.stop["reason"].startswith(
        "ArithmeticError: no more. tests.test_derive.fails_at_the_third was given"
    )
    assert made["primary"]["parent_seq_num"].tolist() == [1, 2]
    np.testing.assert_array_equal(made["primary"][KEY].volume(1), volume(1) * 2)
    assert [finding.severity for finding in verify(root).findings] == []


def interrupts(pixels: NDArray[Any]) -> NDArray[Any]:
    """As a person at the keyboard does."""
    raise KeyboardInterrupt


def test_an_interruption_closes_the_run_as_aborted(run: Run, root: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        derive(interrupts, run, into=root)
    assert newest(root).exit_status == "abort"


def gives_a_list(pixels: NDArray[Any]) -> Any:
    return [object()]


def gives_nothing(pixels: NDArray[Any]) -> Any:
    return pixels[:0]


def gives_a_parent(pixels: NDArray[Any]) -> Any:
    return {"parent_run": 5}


def gives_an_embryo(pixels: NDArray[Any]) -> Any:
    return {"mean": 1.0, "embryo": "e9"}


def gives_a_timepoint(pixels: NDArray[Any]) -> Any:
    return {"timepoint": 99}


def gives_a_doubtful_good(pixels: NDArray[Any]) -> Any:
    return {"good": "yes"}


def yields_one_name_twice(volumes: Sequence[ParentVolume]) -> Iterator[Derived]:
    yield Derived({1: 10.0, "1": 20.0}, of=volumes)


def gives_wrong_dims(pixels: NDArray[Any]) -> Any:
    return Pixels(pixels[0], ("z", "y", "x"))


def gives_an_axis_twice(pixels: NDArray[Any]) -> Any:
    return Pixels(pixels[0], ("y", "y"))


def gives_wrong_spacing(pixels: NDArray[Any]) -> Any:
    return Pixels(pixels[0], ("y", "x"), (1, 1, 1))


def gives_masked_pixels(pixels: NDArray[Any]) -> Any:
    return np.ma.masked_greater(pixels, 3)


def gives_lazy_masked_pixels(pixels: NDArray[Any]) -> Any:
    da = pytest.importorskip("dask.array")
    return da.ma.masked_greater(da.from_array(pixels), 3)


def gives_what_is_masked(pixels: NDArray[Any]) -> Any:
    return {"brightest": np.ma.masked_array(pixels, mask=True).max()}


def gives_a_list_of_masked(pixels: NDArray[Any]) -> Any:
    return {"profile": [np.ma.masked_greater(plane, 3).sum(axis=0) for plane in pixels]}


def gives_unmasked(pixels: NDArray[Any]) -> Any:
    return np.ma.masked_greater(pixels, pixels.max())


def yields_an_array(volumes: Sequence[ParentVolume]) -> Iterator[Any]:
    yield volumes[0].array()


def yields_orphans(volumes: Sequence[ParentVolume]) -> Iterator[Derived]:
    yield Derived(5, of=[])


@pytest.mark.parametrize(
    ("function", "says"),
    [
        (gives_a_list, r"'cam_image' is \(1,\) object, out of a list"),
        (gives_nothing, "arrays of numbers that are not empty"),
        (gives_a_parent, "'parent_run' says from which volume"),
        (gives_an_embryo, "'embryo' says from which volume a derived event is, or what that shows"),
        (gives_a_timepoint, "'timepoint' says from which"),
        (gives_a_doubtful_good, "True, or it is not, False; 'yes' says neither"),
        (yields_one_name_twice, r"Several results of run \w+, primary, seq_num 1 are named '1'"),
        (gives_masked_pixels, r"'cam_image' has masked values.*array\.filled\(value\)"),
        (gives_lazy_masked_pixels, r"'cam_image' has masked values"),
        (gives_what_is_masked, r"'brightest' has masked values"),
        (gives_a_list_of_masked, r"'profile' has masked values"),
        (gives_wrong_dims, r"its dims are \('z', 'y', 'x'\)"),
        (gives_an_axis_twice, r"its dims are \('y', 'y'\)"),
        (gives_wrong_spacing, r"its voxel_size_um \(1, 1, 1\)"),
        (yields_an_array, r"yields Derived\(data, of=volumes\)"),
        (yields_orphans, "must hold something, and say from which volumes"),
    ],
)
def test_a_result_that_cannot_be_stored_fails_the_run(function: Any, says: str, run: Run, root: Path) -> None:
    with pytest.raises(DerivationError, match=says):
        derive(function, run, into=root)
    assert newest(root).exit_status == "fail"
    hold_together(list(newest(root).documents()))


def test_a_mask_that_hides_nothing_is_no_reason_to_refuse(run: Run, root: Path) -> None:
    made = derive(gives_unmasked, run, into=root)
    np.testing.assert_array_equal(made["primary"][KEY].volume(1), volume(1))


def waits_at_the_third(pixels: NDArray[Any], *, parent: ParentVolume) -> NDArray[Any]:
    """For somebody who never comes."""
    if parent.seq_num == 3:
        print("here", flush=True)
        sys.stdin.readline()
    return doubled(pixels)


KILLED = """
import sys
from gently_bluesky import Catalog, derive
from tests.test_derive import waits_at_the_third

derive(waits_at_the_third, Catalog(sys.argv[1])[-1], into=sys.argv[1])
"""


def test_a_derived_run_that_was_killed_is_recovered_like_any(run: Run, root: Path) -> None:
    with Child(KILLED, root) as child:
        assert child.line() == "here"
        until = time.monotonic() + DEADLINE_S
        while len(newest(root).keys()) == 0 or len(newest(root)["primary"]) < 2:
            assert time.monotonic() < until, "the events were not journalled"
        child.kill()
    assert newest(root).is_open
    (done,) = recover(root)
    assert done.uid == newest(root).uid
    made = newest(root)
    assert made.exit_status == "abort"
    assert made["primary"]["parent_seq_num"].tolist() == [1, 2]
    np.testing.assert_array_equal(made["primary"][KEY].volume(1), volume(1) * 2)
    assert not [finding for finding in verify(root).findings if finding.severity == "error"]
    assert [relative.uid for relative in made.parents] == [run.uid]


# --- beside an acquisition --------------------------------------------------------------------------------------


def test_deriving_from_a_run_that_is_being_acquired_in_another_writer(root: Path) -> None:
    """From what is there so far; the acquisition does not notice."""
    derived: list[Run] = []
    failures: list[BaseException] = []

    def beside() -> None:
        try:
            catalog = Catalog(root)
            derived.append(derive(doubled, catalog[-1], into=catalog))
        except BaseException as error:  # noqa: BLE001 - told to the test
            failures.append(error)

    def plan(writer: FileWriter) -> Iterator[Msg]:
        camera = Camera("cam", writer)
        yield from bps.open_run()
        for number in range(4):
            yield from bps.trigger_and_read([camera])
            if number == 1:
                writer.flush()
                thread = threading.Thread(target=beside)
                thread.start()
                thread.join(DEADLINE_S)
        yield from bps.close_run()

    record(root, plan)
    assert not failures
    (made,) = derived
    acquired = Catalog(root)[made.start["parents"][0]["run"]]
    assert acquired.exit_status == "success"
    assert (len(acquired["primary"]), len(made["primary"])) == (4, 2)
    np.testing.assert_array_equal(made["primary"][KEY].volume(1), volume(1) * 2)
    np.testing.assert_array_equal(acquired["primary"][KEY].volume(3), volume(3))
    assert verify(root).findings == ()


def test_a_writer_that_is_given_is_used_and_stays_open(run: Run, root: Path) -> None:
    with FileWriter(root) as writer:
        heard: list[str] = []
        writer.subscribe(lambda name, doc: heard.append(name))
        for _ in range(2):
            assert derive(maximum_projection, run, into=writer).exit_status == "success"
    assert heard.count("event") == 6
    assert len(Catalog(root)) == 3


def test_retention_keeps_what_others_were_derived_from(root: Path) -> None:
    parent, other = timelapse(root), timelapse(root)
    derive(maximum_projection, parent, into=root)
    plan = planned(root)
    assert {removal.run for removal in plan.removals} >= {other.uid}
    assert parent.uid not in {removal.run for removal in plan.removals}
    assert any("is derived from it" in kept.why for kept in plan.kept if kept.run == parent.uid)


def test_a_derived_run_is_replayed_like_any(run: Run, root: Path, tmp_path: Path) -> None:
    made = derive(doubled, run, into=root)
    copy = into(made, tmp_path / "copy", fill=True)
    assert copy.start == made.start
    np.testing.assert_array_equal(copy["primary"][KEY][:], made["primary"][KEY][:])
    shutil.rmtree(run.folder)
    assert Catalog(root)[made.uid].parents[0].missing
    assert len(of(list(copy.documents()), "event")) == 3


def test_readings_of_one_run_in_several_streams_keep_their_streams(root: Path) -> None:
    run = take(root, {"embryo": "e1", "timepoint": 0}, {"embryo": "e1"}, {"embryo": "e1", "timepoint": 1})
    made = derive(doubled, run, into=root)
    assert {name: made[name]["parent_stream"].tolist() for name in made} == {
        "primary": ["primary"] * 2,
        "untimed": ["untimed"],
    }
