"""Old session folders become runs with documents, where they lie or copied, and nothing in them changes."""

import datetime
import json
import os
import shutil
import sys
from mmap import mmap
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import yaml
from filelock import FileLock

from gently_bluesky import Catalog, FileWriter
from gently_bluesky.errors import (
    ConfigError,
    DiskFullError,
    ImportRefusedError,
    RootError,
    RunLockedError,
    UnfillableError,
    VolumeMissingError,
)
from gently_bluesky.exchange.beside import TABLES
from gently_bluesky.exchange.importing import carry_out, plan_import
from gently_bluesky.exchange.said import Said
from gently_bluesky.keep.discard import discard
from gently_bluesky.keep.retention import apply
from gently_bluesky.keep.verify import verify
from tests.data_rig import (
    REPOSITORY,
    SHAPE,
    Child,
    fill_up,
    frame,
    hold_pixels,
    hold_together,
    journal,
    manifest,
    names,
    volume,
)
from tests.old_session_rig import (
    DATE,
    SESSION,
    OldSession,
    a_session,
    cut_short,
    every_volume,
    take_in,
    the_run,
    told,
    tree,
    write_tiff,
    write_yaml,
)
from tests.retention_rig import policy
from tests.test_cli import gently

COPIED = pytest.mark.parametrize("copied", [False, True], ids=["linked", "copied"])
ORDER = [(embryo, t) for t in range(3) for embryo in ("embryo_2", "embryo_1")]


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "Gently3"


# --- what comes of it ---------------------------------------------------------------------------------------


@COPIED
@pytest.mark.parametrize("compression", ["zlib", None])
@pytest.mark.parametrize("shape", [SHAPE, (1, 8, 16), (8, 16)], ids=str)
def test_every_volume_comes_back_equal_in_the_order_of_acquisition(
    store: Path, root: Path, copied: bool, compression: str | None, shape: tuple[int, ...]
) -> None:
    old = a_session(store, compression=compression, shape=shape)
    run = the_run(store, root, copied=copied)
    primary = run["primary"]
    assert list(zip(primary["embryo"], primary["timepoint"], strict=True)) == ORDER
    images = primary.images("volume")
    assert images.shape == (6, *shape)
    assert images.dtype == np.uint16
    for event, key in enumerate(ORDER):
        np.testing.assert_array_equal(images.volume(event), old.volumes[key])
    np.testing.assert_array_equal(images[:], np.stack([old.volumes[key] for key in ORDER]))
    assert images.voxel_size_um is None
    assert np.all(np.diff(primary.time) > 0)
    assert run.exit_status == "success"


@COPIED
@pytest.mark.parametrize("compression", ["zlib", None])
def test_the_first_axis_of_four_is_the_view(
    store: Path, root: Path, copied: bool, compression: str | None
) -> None:
    old = a_session(store, shape=(2, *SHAPE), compression=compression)
    run = the_run(store, root, copied=copied)
    for view in (0, 1):
        images = run["primary"].images(f"volume_{view}")
        assert images.shape == (6, *SHAPE)
        for event, key in enumerate(ORDER):
            np.testing.assert_array_equal(images.volume(event), old.volumes[key][view])
            np.testing.assert_array_equal(images[event, 2], old.volumes[key][view, 2])
    assert "view" not in run["primary"].data_keys["volume_0"]


@COPIED
def test_views_have_the_names_that_the_user_says(store: Path, root: Path, copied: bool) -> None:
    old = a_session(store, shape=(2, *SHAPE))
    take_in(store, root, copied=copied, said=Said(views="AB"))
    (found,) = Catalog(root).volumes(session=SESSION, embryo="embryo_1", timepoint=2, view="B")
    np.testing.assert_array_equal(found.array(), old.volumes["embryo_1", 2][1])
    assert found.data_key == "volume_b"
    assert found.run.start["imported"]["said"]["views"] == "AB"


@COPIED
def test_a_frame_that_is_wide_is_cut_only_if_the_user_says_so(store: Path, tmp_path: Path, copied: bool) -> None:
    old = a_session(store, shape=(4, 8, 32))
    whole = the_run(store, tmp_path / "whole", copied=copied)["primary"].images("volume")
    assert whole.shape == (6, 4, 8, 32)
    halves = the_run(store, tmp_path / "halves", copied=copied, said=Said(split_views=True))["primary"]
    for event, key in enumerate(ORDER):
        np.testing.assert_array_equal(halves.images("volume_left").volume(event), old.volumes[key][..., :16])
        np.testing.assert_array_equal(halves.images("volume_right").volume(event), old.volumes[key][..., 16:])
    (row,) = Catalog(tmp_path / "whole").volumes(embryo="embryo_1", timepoint=0)
    assert row.view is None


@COPIED
def test_a_volume_that_was_written_plane_by_plane_is_whole(store: Path, root: Path, copied: bool) -> None:
    old = a_session(store)
    path = old.folder / "embryos/embryo_1/volumes/t0001.tif"
    with tifffile.TiffWriter(path) as file:
        for plane in old.volumes["embryo_1", 1]:
            file.write(plane, photometric="minisblack")
    assert told(store, root, strict=True) == {}
    run = the_run(store, root, copied=copied)
    assert len(run["primary"]) == 6
    np.testing.assert_array_equal(dict(every_volume(root))["embryo_1", 1], old.volumes["embryo_1", 1])


def test_a_file_of_several_images_is_told_and_refused_if_strict(store: Path, root: Path) -> None:
    old = a_session(store)
    name = "embryos/embryo_1/volumes/t0001.tif"
    with tifffile.TiffWriter(old.folder / name) as file:
        for number in (1, 2):
            file.write(volume(number), photometric="minisblack")
    assert "holds 2 images" in told(store, root)["unreadable"][name]
    with pytest.raises(ImportRefusedError, match="only the first is taken"):
        plan_import(store, root, strict=True)
    run = the_run(store, root)
    np.testing.assert_array_equal(dict(every_volume(root))["embryo_1", 1], volume(1))
    assert name in set(run["files_beside"]["file"])


@COPIED
def test_another_geometry_is_another_stream(store: Path, root: Path, copied: bool) -> None:
    old = a_session(store)
    old.volume("embryo_1", 3, "20:00", shape=(5, 8, 16))
    old.volume("embryo_1", 4, "21:00", dtype="<u1")
    old.volume("embryo_1", 5, "22:00")
    run = the_run(store, root, copied=copied)
    assert [len(run[name]) for name in ("primary", "primary_2", "primary_3")] == [7, 1, 1]
    for key, pixels in every_volume(root):
        np.testing.assert_array_equal(pixels, old.volumes.pop(key))
    assert not old.volumes


def test_an_event_says_what_its_sidecar_says_and_nothing_else(store: Path, root: Path) -> None:
    old = a_session(store)
    row = the_run(store, root)["primary"].rows[3]
    path = old.folder / "embryos/embryo_1/volumes/t0001.tif"
    assert row.data == {
        "embryo": "embryo_1",
        "timepoint": 1,
        "num_slices": 4,
        "exposure_ms": 5.0,
        "interval_seconds": 30,
        "acquisition_mode": "1hz",
        "laser_power_488_pct": 2.5,
        "role": "test",
        "calibration_galvo_amplitude": 0.5,
        "calibration_galvo_center": 0.0,
        "calibration_piezo_center": 51.0,
        "filed_at": f"{DATE}11:01",
        "file": "embryos/embryo_1/volumes/t0001.tif",
        "file_bytes": path.stat().st_size,
        "file_modified": path.stat().st_mtime,
    }
    berlin = datetime.datetime(2026, 3, 1, 11, 11, 1, tzinfo=datetime.UTC)
    assert row.time == berlin.timestamp()


def test_the_start_document_says_what_is_known_of_the_session_and_where_it_is_from(
    store: Path, root: Path
) -> None:
    old = a_session(store)
    start = the_run(store, root, said=Said(timezone="Europe/Berlin", voxel_size_um=(1.0, 0.1625, 0.1625))).start
    assert start["session"] == SESSION
    assert start["session_name"] == "Overnight"
    assert start["time"] == datetime.datetime(2026, 3, 1, 11, 0, 0, 500_000, tzinfo=datetime.UTC).timestamp()
    assert start["plan_name"] == "import_session"
    assert start["old_session"]["metadata"] == {"strain": "OD58"}
    assert start["embryos"]["embryo_1"]["position_coarse"] == {"x": 10.5, "y": -3.0}
    assert start["imported"]["folder"] == str(old.folder)
    assert start["imported"]["said"] == {"timezone": "Europe/Berlin", "voxel_size_um": [1.0, 0.1625, 0.1625]}
    assert not {"operator", "purpose", "view", "channel"} & start.keys()


def test_a_time_zone_that_is_assumed_is_said_to_be(store: Path, root: Path) -> None:
    a_session(store)
    said = the_run(store, root, said=Said()).start["imported"]["said"]
    assert "of the machine that imported" in said["assumed_timezone"]


@COPIED
def test_a_voxel_size_is_what_the_user_says_of_volumes_and_of_nothing_else(
    store: Path, root: Path, copied: bool
) -> None:
    a_session(store)
    run = the_run(store, root, copied=copied, said=Said(voxel_size_um=(1.0, 0.2, 0.25)))
    assert run["primary"].images("volume").voxel_size_um == (1.0, 0.2, 0.25)
    assert run["snapshots_bf"].images("snapshot").voxel_size_um is None


@COPIED
def test_snapshots_and_calibrations_are_streams_of_their_own(store: Path, root: Path, copied: bool) -> None:
    old = a_session(store)
    run = the_run(store, root, copied=copied)
    for source in ("bottom_camera", "bf"):
        stream = run[f"snapshots_{source}"]
        (name,) = stream["file"]
        np.testing.assert_array_equal(stream.images("snapshot").volume(0), old.snapshots[name])
        assert stream.rows[0].data["source"] == source
        assert stream.rows[0].data["exposure_ms"] == 20.0
    frames = run["calibration_frames"]
    np.testing.assert_array_equal(frames.images("frame")[1], frame(1, 7, (20, 30)))
    assert frames["galvo"].tolist() == [0.0, 0.1]
    assert run["calibrations"]["calibration_slope"].tolist() == [100.5]
    assert run["calibrations"]["calibration_r2"].tolist() == ["[0.99, 0.98]"]
    temperature = run["temperature"]
    assert frames["calibration_of"].tolist() == ["embryo_1"] * 2
    assert temperature["water_c"].tolist() == [20.0, 21.0, 22.0, 23.0]
    first = datetime.datetime(2026, 3, 1, 11, 0, 0, tzinfo=datetime.UTC).timestamp()
    assert temperature.time.tolist() == [first + i for i in range(4)]


def test_files_that_become_no_part_of_the_run_are_named_with_their_hash(store: Path, root: Path) -> None:
    old = a_session(store)
    beside = the_run(store, root)["files_beside"]
    known = tree(old.folder)
    assert set(beside["file"]) == {"timeline.jsonl", "embryos/embryo_1/projections/t0000.jpg"}
    for file, size, digest in zip(beside["file"], beside["file_bytes"], beside["sha256"], strict=True):
        assert (size, digest) == (known[file][0], known[file][2])


@COPIED
def test_documents_hold_together_and_events_are_in_the_order_of_their_time(
    store: Path, root: Path, copied: bool
) -> None:
    a_session(store, shape=(2, *SHAPE))
    documents = journal(the_run(store, root, copied=copied).folder)
    hold_together(documents)
    hold_pixels(Catalog(root)[-1])
    times = [document["time"] for name, document in documents if name == "event"]
    assert times == sorted(times)
    assert len(times) == 6 + 2 + 2
    assert names(documents)[-1] == "stop"


def test_linked_files_stay_where_they_lie_and_plain_ones_are_mapped(store: Path, root: Path) -> None:
    a_session(store, compression=None)
    run = the_run(store, root)
    assert {entry["state"] for entry in manifest(run.folder)} == {"foreign"}
    assert not list(run.folder.rglob("*.tif"))
    pixels = run["primary"].images("volume").volume(0)
    assert isinstance(mapped(pixels), mmap)
    assert not pixels.flags.writeable


def mapped(pixels: Any) -> Any:
    """What memory an array is a view of."""
    return pixels if getattr(pixels, "base", None) is None else mapped(pixels.base)


def test_copied_files_say_nothing_of_when_they_were_exposed(store: Path, root: Path) -> None:
    a_session(store)
    run = the_run(store, root, copied=True)
    paths = list(run.folder.rglob("*.ome.tif"))
    for path in paths:
        with tifffile.TiffFile(path) as file:
            said = file.ome_metadata or ""
        assert "AcquisitionDate" not in said
        assert "DeltaT=" not in said
        assert ('ExposureTime="5.0"' in said) == (path.parent.name == "volume")
    assert len(paths) == 10


def test_copies_are_stored_in_the_format_that_is_asked_for(store: Path, root: Path) -> None:
    old = a_session(store, shape=(2, *SHAPE))
    run = the_run(store, root, copied=True, image_format="ome-zarr")
    assert {entry["format"] for entry in manifest(run.folder)} == {"ome-zarr"}
    for event, key in enumerate(ORDER):
        np.testing.assert_array_equal(run["primary"].images("volume_1").volume(event), old.volumes[key][1])


def test_filling_a_linked_run_gives_its_pixels_to_any_writer(store: Path, root: Path, tmp_path: Path) -> None:
    from tests.data_rig import into

    old = a_session(store, shape=(2, *SHAPE))
    copy = into(the_run(store, root), tmp_path / "second", fill=True)
    for event, key in enumerate(ORDER):
        np.testing.assert_array_equal(copy["primary"].images("volume_1").volume(event), old.volumes[key][1])
    assert verify(tmp_path / "second").errors == ()


def test_every_call_of_the_old_store_finds_its_answer(store: Path, root: Path) -> None:
    """As the table in the README says."""
    old = a_session(store)
    run, catalog = the_run(store, root), Catalog(root)
    (found,) = catalog.volumes(session=SESSION, embryo="embryo_1", timepoint=2)
    row = found.run[found.stream].rows[found.event]
    path = Path(run.start["imported"]["folder"], row.data["file"])
    assert path == old.folder / "embryos/embryo_1/volumes/t0002.tif"  # get_volume_path
    np.testing.assert_array_equal(found.array(), tifffile.imread(path))  # get_volume
    np.testing.assert_array_equal(found.images[found.event, 2], tifffile.imread(path)[2])
    assert row.data["calibration_piezo_center"] == 52.0  # get_volume_meta
    listed = catalog.volumes(session=SESSION, embryo="embryo_1")
    assert [volume.timepoint for volume in listed] == [2, 1, 0]  # list_volumes; the first: get_acquisition_params
    assert catalog.timepoints(SESSION, "embryo_1") == [0, 1, 2]
    assert len(catalog.volumes(session=SESSION, data_key="snapshot")) == 2  # list_snapshots
    assert len(catalog.volumes(session=SESSION, stream="snapshots_bottom_camera")) == 1
    assert found.images.project(found.event).shape == SHAPE[1:]  # list_projections
    (session,) = catalog.sessions()  # stats
    assert (session.name, session.runs, session.embryos) == (SESSION, 1, ("embryo_1", "embryo_2"))
    assert [each.uid for each in catalog.search(plan_name="import_session", limit=1)] == [
        run.uid
    ]  # query, list_recent
    readme = (REPOSITORY / "README.md").read_text("utf-8")
    for call in OLD_CALLS:
        assert f"| `{call}(" in readme, call


OLD_CALLS = [
    "put_volume", "register_volume", "get_volume", "get_volume_path", "get_volume_meta", "list_volumes",
    "get_acquisition_params", "register_snapshot", "list_snapshots", "list_projections", "stats", "get_lineage",
    "get_children", "query", "list_recent",
]  # fmt: skip


# --- which folders ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("which", ["store", "sessions", "session"])
def test_a_store_its_sessions_and_one_session_can_be_named(store: Path, root: Path, which: str) -> None:
    old = a_session(store)
    path = {"store": store, "sessions": store / "sessions", "session": old.folder}[which]
    assert len(the_run(path, root)["primary"]) == 6


def test_each_session_is_a_run_though_embryos_have_the_same_names(store: Path, root: Path) -> None:
    first = OldSession(store)
    first.volume("embryo_1", 0, "01:00")
    second = OldSession(store, "11111111-2222", "20260302_0900_second_11111111")
    second.volume("embryo_1", 0, "02:00", shape=(5, 8, 16))
    assert [run.images for run in take_in(store, root)] == [1, 1]
    for old in (first, second):
        (found,) = Catalog(root).volumes(session=old.session, embryo="embryo_1", timepoint=0)
        np.testing.assert_array_equal(found.array(), old.volumes["embryo_1", 0])
    assert {session.name for session in Catalog(root).sessions()} == {first.session, second.session}


def test_what_is_no_session_in_a_store_is_told(store: Path, root: Path) -> None:
    a_session(store)
    (store / "sessions/notes.txt").write_text("x")
    (store / "incoming").mkdir()
    (store / "incoming/abc.tif").write_bytes(b"x")
    write_yaml(store / "sessions/_index.yaml", **{SESSION: "x", "gone": "20250101_0000_gone_00000000"})
    remarks = {(remark.kind, remark.file) for remark in plan_import(store, root).remarks}
    assert remarks == {("unknown", "notes.txt"), ("unknown", "incoming"), ("missing", "_index.yaml")}


@pytest.mark.parametrize("what", ["nothing", "empty", "text"])
def test_what_can_not_be_imported_is_refused_before_anything_is_written(
    tmp_path: Path, root: Path, what: str
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "text").write_text("no image")
    with pytest.raises(ImportRefusedError, match=r"no folder or file|holds no session folder|cannot be imported"):
        plan_import(tmp_path / what, root)
    assert not root.exists()


def test_a_root_in_the_folder_that_is_imported_is_refused(store: Path) -> None:
    a_session(store)
    before = tree(store)
    with pytest.raises(ImportRefusedError, match="where nothing is to be changed"):
        plan_import(store, store / "root")
    assert tree(store) == before


def test_a_target_that_is_no_root_is_refused(store: Path, tmp_path: Path) -> None:
    a_session(store)
    (tmp_path / "target").mkdir()
    (tmp_path / "target/thesis.txt").write_text("x")
    with pytest.raises(RootError, match="is not empty"):
        plan_import(store, tmp_path / "target")


@pytest.mark.parametrize(
    ("said", "match"),
    [
        ({"timezone": "Mars/Base"}, "no time zone 'Mars/Base'"),
        ({"voxel_size_um": (1.0, 0.0, 1.0)}, "three numbers above 0"),
        ({"voxel_size_um": (1.0, 1.0)}, "three numbers above 0"),
        ({"views": "AA"}, "one letter a view"),
        ({"timepoint": -1}, "count from 0"),
    ],
    ids=str,
)
def test_what_a_user_cannot_mean_is_refused(said: Any, match: str) -> None:
    with pytest.raises(ConfigError, match=match):
        Said(**said)


def test_views_that_are_more_than_there_are_are_refused(store: Path, root: Path) -> None:
    a_session(store, shape=(2, *SHAPE))
    with pytest.raises(ConfigError, match=r"views is 'ABC', and a volume in .* holds 2 views"):
        plan_import(store, root, said=Said(views="ABC"))


# --- nothing twice, nothing changed -------------------------------------------------------------------------


@COPIED
def test_nothing_in_the_folder_is_changed(store: Path, root: Path, copied: bool) -> None:
    a_session(store)
    before = tree(store)
    run = the_run(store, root, copied=copied)
    for name in run:
        run[name].read().load()
    take_in(store, root, copied=copied)
    discard(root, run.uid)
    assert tree(store) == before


@pytest.mark.skipif(sys.platform == "win32", reason="folders are not read-only there")
@COPIED
def test_a_folder_that_is_read_only_is_imported(store: Path, root: Path, copied: bool) -> None:
    a_session(store)
    folders = [store, *(path for path in store.rglob("*"))]
    for path in folders:
        path.chmod(0o555 if path.is_dir() else 0o444)
    try:
        assert len(the_run(store, root, copied=copied)["primary"]) == 6
    finally:
        for path in folders:
            path.chmod(0o755)


@pytest.mark.parametrize("again", [False, True], ids=["linked", "copied"])
@COPIED
def test_a_second_time_does_nothing(store: Path, root: Path, copied: bool, again: bool) -> None:
    a_session(store)
    run = the_run(store, root, copied=copied)
    before = tree(root / "runs")
    (plan,) = plan_import(store, root, copied=again).runs
    assert (plan.is_new, plan.known, plan.runs) == (False, 10, (run.uid,))
    assert take_in(store, root, copied=again) == []
    assert tree(root / "runs") == before
    assert len(Catalog(root)) == 1


def test_the_same_folder_gives_the_same_documents(store: Path, tmp_path: Path) -> None:
    a_session(store)
    first, second = (list(the_run(store, tmp_path / name).documents()) for name in ("first", "second"))
    assert first == second


def test_a_folder_that_was_moved_is_the_same_session(store: Path, root: Path) -> None:
    a_session(store)
    take_in(store, root)
    store.rename(store.with_name("moved"))
    assert take_in(store.with_name("moved"), root) == []
    with pytest.raises(VolumeMissingError, match=r"t0000\.tif"):
        Catalog(root)[-1]["primary"].images("volume").volume(0)
    gone = [finding.where for finding in verify(root).errors]
    assert len(gone) == 10
    assert all(str(store) in where for where in gone)


@COPIED
def test_a_session_that_has_grown_is_continued_with_what_is_new(store: Path, root: Path, copied: bool) -> None:
    old = a_session(store)
    first = the_run(store, root, copied=copied)
    old.volume("embryo_1", 3, "30:00")
    old.snapshot("bf", 3, "31:00")
    old.temperatures(6)
    (plan,) = plan_import(store, root, copied=copied).runs
    assert [image.file for image in plan.source.images] == [
        "embryos/embryo_1/volumes/t0003.tif",
        "snapshots/bf_000000000003.tif",
    ]
    second = the_run(store, root, copied=copied)
    assert second.start["imported"]["continues"] == [first.uid]
    assert second["temperature"]["water_c"].tolist() == [24.0, 25.0]
    volumes = dict(every_volume(root))
    assert volumes.keys() == old.volumes.keys()
    assert len(Catalog(root).volumes(data_key="volume")) == 7
    assert take_in(store, root, copied=copied) == []


def test_a_file_that_has_changed_since_is_told_and_not_taken_in_twice(store: Path, root: Path) -> None:
    old = a_session(store)
    take_in(store, root)
    path = old.volume("embryo_1", 1, "50:00", metadata={})
    os.utime(path, ns=(1, 1))
    assert list(told(store, root)["changed"]) == ["embryos/embryo_1/volumes/t0001.tif"]
    assert take_in(store, root) == []


def test_what_is_said_otherwise_since_is_told_of_each_file(store: Path, root: Path) -> None:
    old = a_session(store)
    take_in(store, root, said=Said(views="AB"))
    assert told(store, root, strict=True) == {}
    volumes = old.folder / "embryos/embryo_1/volumes"
    for name, content in (("t0001", {"exposure_ms": 50.0, "laser_power_561_pct": 3}), ("t0002", {})):
        sidecar = yaml.safe_load((volumes / f"{name}.meta.yaml").read_text())
        sidecar["metadata"] |= content
        write_yaml(volumes / f"{name}.meta.yaml", **sidecar)
    (calibration,) = old.folder.rglob("calibration.yaml")
    calibration.write_text(calibration.read_text().replace("100.5", "99"))
    log = old.folder / "temperature.jsonl"
    log.write_text(log.read_text().replace("21.0", "31.0").replace("22.0", "32.0"))
    changed = told(store, root)["changed"]
    assert changed.keys() == {
        "embryos/embryo_1/volumes/t0001.tif",
        calibration.relative_to(old.folder).as_posix(),
        "temperature.jsonl",
    }
    what = "what is said of it is not what was imported: "
    assert changed["embryos/embryo_1/volumes/t0001.tif"] == (
        f"{what}exposure_ms was 5.0, and is 50.0; laser_power_561_pct was None, and is 3"
    )
    assert changed["temperature.jsonl"] == f"line 2: {what}water_c was 21.0, and is 31.0; and 1 row more"
    with pytest.raises(ImportRefusedError, match="3 things missing or wrong"):
        plan_import(store, root, said=Said(timezone="Europe/Berlin"), strict=True)
    assert take_in(store, root) == []


def test_what_is_said_otherwise_of_a_session_is_told_unless_a_further_run_says_it(store: Path, root: Path) -> None:
    old = a_session(store)
    take_in(store, root)
    old.embryo("embryo_1", role="control")
    text = told(store, root)["changed"]["."]
    assert text.endswith("embryos_embryo_1_role was 'test', and is 'control'")
    old.volume("embryo_1", 3, "30:00")
    assert told(store, root) == {}
    assert the_run(store, root).start["embryos"]["embryo_1"]["role"] == "control"
    assert told(store, root) == {}


@pytest.mark.parametrize("grace_days", [0.0, 30.0], ids=["for good", "into the trash"])
def test_what_was_discarded_is_taken_in_again_and_nothing_else(store: Path, root: Path, grace_days: float) -> None:
    old = a_session(store)
    run = the_run(store, root, copied=True)
    path = run["primary"].images("volume").source(1).path.relative_to(run.folder).as_posix()
    discard(root, run.uid, [path], grace_days=grace_days)
    again = the_run(store, root, copied=True)
    assert again.keys() - TABLES == {"primary"}
    assert again.start["imported"]["continues"] == [run.uid]
    np.testing.assert_array_equal(again["primary"].images("volume")[:], [old.volumes[ORDER[1]]])
    assert take_in(store, root, copied=True) == []


def test_folders_of_one_name_are_sessions_of_their_own_where_nothing_says_an_id(
    tmp_path: Path, root: Path
) -> None:
    folders = [tmp_path / day / "session" for day in ("monday", "tuesday")]
    for number, folder in enumerate(folders):
        write_tiff(folder / "embryos/embryo_1/volumes/t0000.tif", volume(number), None)
    runs = [the_run(folder, root)["primary"].images("volume").volume(0) for folder in folders]
    np.testing.assert_array_equal(runs, [volume(0), volume(1)])
    (tmp_path / "link").symlink_to(tmp_path / "monday")
    assert [take_in(folder, root) for folder in (*folders, tmp_path / "link/session")] == [[], [], []]


def test_a_linked_file_that_is_another_shape_now_is_never_served(store: Path, root: Path) -> None:
    old = a_session(store)
    take_in(store, root)
    write_tiff(old.folder / "embryos/embryo_1/volumes/t0001.tif", volume(1, (3, 8, 16)), "zlib")
    images = Catalog(root)[-1]["primary"].images("volume")
    with pytest.raises(UnfillableError, match=r"holds \(3, 8, 16\), and is described as \(4, 8, 16\)"):
        images.volume(3)
    cut_short(old.folder / "embryos/embryo_1/volumes/t0002.tif")
    with pytest.raises(UnfillableError, match="cut short, or is damaged"):
        images.volume(5)


def test_two_imports_at_once_are_one(store: Path, root: Path) -> None:
    a_session(store)
    FileWriter(root).close()
    (root / "index").mkdir()
    with FileLock(root / "index/import.lock"), pytest.raises(RunLockedError, match="Another import"):
        take_in(store, root)
    assert len(take_in(store, root)) == 1


IMPORT = """
import sys
from mmap import mmap
from pathlib import Path
from gently_bluesky.exchange.beside import TABLES
from gently_bluesky.exchange.importing import carry_out, plan_import
from gently_bluesky.exchange.said import Said

store, root, copied, stop_at = sys.argv[1:]

def progress(done, total):
    if done == int(stop_at):
        print("here", flush=True)
        sys.stdin.readline()

plan = plan_import(store, root, copied=copied == "True", said=Said(timezone="Europe/Berlin"))
carry_out(plan, progress=progress)
print("done", flush=True)
"""


@COPIED
@pytest.mark.parametrize("stop_at", [1, 5, 10])
def test_an_import_that_was_killed_is_continued_and_nothing_is_there_twice(
    store: Path, root: Path, copied: bool, stop_at: int
) -> None:
    old = a_session(store)
    before = tree(store)
    with Child(IMPORT, store, root, copied, stop_at) as child:
        assert child.line() == "here"
        child.kill()
    assert [run.exit_status for run in Catalog(root)] == [None]
    take_in(store, root, copied=copied)
    interrupted, *continued = reversed(list(Catalog(root)))
    assert interrupted.exit_status == "abort"
    assert [run.exit_status for run in continued] in ([], ["success"])
    volumes = list(every_volume(root))
    assert sorted(key for key, _ in volumes) == sorted(old.volumes)
    for key, pixels in volumes:
        np.testing.assert_array_equal(pixels, old.volumes[key])
    rows = [
        row.data["file"] for run in Catalog(root) for name in run for row in run[name].rows if "file" in row.data
    ]
    images = [file for file in rows if file.endswith(".tif")]
    assert len(images) == len(set(images)) == 10
    assert sum(len(run["temperature"]) for run in Catalog(root) if "temperature" in run) == 4
    assert verify(root).errors == ()
    assert take_in(store, root, copied=copied) == []
    assert tree(store) == before


def test_a_copy_that_finds_no_room_is_refused_before_it_begins(store: Path, small_disk: Path) -> None:
    a_session(store, shape=(8, 256, 512), compression="zlib")
    FileWriter(small_disk / "root").close()
    with pytest.raises(DiskFullError, match=r"No room for .* bytes of pixels.*or link instead"):
        take_in(store, small_disk / "root", copied=True)
    assert len(Catalog(small_disk / "root")) == 0
    assert len(take_in(store, small_disk / "root")) == 1


def test_a_copy_that_meets_a_full_disk_half_way_fails_and_goes_on_later(
    store: Path, small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = a_session(store, shape=(8, 128, 256))
    plan = plan_import(store, small_disk / "root", copied=True)
    FileWriter(small_disk / "root").close()
    ballast = fill_up(small_disk, leaving=2 << 20)
    monkeypatch.setattr("gently_bluesky.exchange.importing._hold_room", lambda plan: None)
    with pytest.raises((DiskFullError, Exception), match="No room"):
        carry_out(plan)
    assert [run.exit_status for run in Catalog(small_disk / "root")] == ["fail"]
    assert 0 < len(dict(every_volume(small_disk / "root"))) < 6
    ballast.unlink()
    carry_out(plan)
    volumes = list(every_volume(small_disk / "root"))
    assert sorted(key for key, _ in volumes) == sorted(old.volumes)
    assert verify(small_disk / "root").errors == ()


def test_retention_never_touches_what_is_linked(store: Path, root: Path) -> None:
    from gently_bluesky.keep.retention import plan_retention

    a_session(store)
    take_in(store, root)
    before = tree(store)
    plan = plan_retention(root, policy('[[remove]]\nname = "all"\nolder_than_days = 0\n'))
    assert plan.removals == ()
    apply(plan, by="test")
    assert tree(store) == before


# --- what is missing, torn or contradictory -----------------------------------------------------------------


def test_a_clean_session_has_nothing_to_be_told(store: Path, root: Path) -> None:
    a_session(store)
    assert told(store, root, strict=True) == {}


def test_a_volume_without_its_sidecar_says_what_its_place_says(store: Path, root: Path) -> None:
    old = a_session(store)
    path = old.folder / "embryos/embryo_1/volumes/t0001.tif"
    path.with_suffix(".meta.yaml").unlink()
    os.utime(path, (1e9, 1e9))
    assert "embryos/embryo_1/volumes/t0001.meta.yaml" in told(store, root)["missing"]
    row = the_run(store, root)["primary"].rows[0]
    assert (row.data["embryo"], row.data["timepoint"], row.time) == ("embryo_1", 1, 1e9)
    assert row.data["filed_at"] is None
    assert row.data["exposure_ms"] is None
    np.testing.assert_array_equal(dict(every_volume(root))["embryo_1", 1], old.volumes["embryo_1", 1])


TORN = {
    "cut": "session_id: x\nmetadata: {num_slices: [1, 2",
    "zeros": "\0" * 300,
    "empty": "",
    "list": "- 1\n- 2\n",
    "object": "a: !!python/object/apply:os.system ['touch /tmp/owned']\n",
    "tabs": "a:\n\t- b: 'x",
    "bomb": "a: &a [1,1,1,1,1,1,1,1,1]\n"
    + "".join(
        f"{n}: &{n} {{x: *{p}, y: *{p}, z: *{p}, q: *{p}}}\n"
        for p, n in zip("abcdefghij", "bcdefghijk", strict=True)
    ),
}


@pytest.mark.parametrize("content", TORN.values(), ids=TORN)
def test_a_torn_sidecar_is_told_and_its_volume_is_there(store: Path, root: Path, content: str) -> None:
    old = a_session(store)
    (old.folder / "embryos/embryo_1/volumes/t0001.meta.yaml").write_text(content)
    torn = told(store, root)["torn"]
    assert list(torn) == ["embryos/embryo_1/volumes/t0001.meta.yaml"]
    run = the_run(store, root)
    np.testing.assert_array_equal(dict(every_volume(root))["embryo_1", 1], old.volumes["embryo_1", 1])
    assert "embryos/embryo_1/volumes/t0001.meta.yaml" in set(run["files_beside"]["file"])
    assert torn == dict(zip(run["remarks"]["file"], run["remarks"]["text"], strict=True))


def test_numbers_of_numpy_in_old_sidecars_are_numbers(store: Path, root: Path) -> None:
    old = a_session(store)
    path = old.folder / "embryos/embryo_1/volumes/t0001.meta.yaml"
    content = yaml.safe_load(path.read_text())
    content["metadata"] |= {"exposure_ms": np.float32(7.5), "num_slices": np.int64(9), "roi": (1, 2)}
    path.write_text(yaml.dump(content))
    assert "numpy" in path.read_text()
    row = the_run(store, root)["primary"].rows[3].data
    assert (row["exposure_ms"], row["num_slices"], row["roi"]) == (7.5, 9, "[1, 2]")


CONTRADICTIONS = {
    "session_id": "another",
    "embryo_id": "embryo_7",
    "timepoint": 12,
    "shape": [4, 9, 16],
    "dtype": "float32",
}


@pytest.mark.parametrize(("key", "value"), CONTRADICTIONS.items(), ids=CONTRADICTIONS)
def test_where_a_sidecar_contradicts_its_file_the_file_is_believed_and_it_is_told(
    store: Path, root: Path, key: str, value: Any
) -> None:
    old = a_session(store)
    old.volume("embryo_1", 3, "40:00", sidecar={key: value})
    (text,) = told(store, root)["contradiction"].values()
    assert text.startswith(f"{key} is {value!r} in its sidecar, and ")
    row = the_run(store, root)["primary"].rows[-1]
    assert row.data["contradiction"] == text
    assert (row.data["embryo"], row.data["timepoint"]) == ("embryo_1", 3)
    np.testing.assert_array_equal(dict(every_volume(root))["embryo_1", 3], old.volumes["embryo_1", 3])


def test_a_time_that_is_none_is_told(store: Path, root: Path) -> None:
    old = a_session(store)
    path = old.volume("embryo_1", 3, "40:00", sidecar={"acquired_at": "yesterday"})
    os.utime(path, (2e9, 2e9))
    assert "which is no time" in told(store, root)["contradiction"]["embryos/embryo_1/volumes/t0003.tif"]
    row = the_run(store, root)["primary"].rows[-1]
    assert (row.data["filed_at"], row.time) == ("yesterday", 2e9)


@pytest.mark.parametrize("compression", ["zlib", None])
@pytest.mark.parametrize("part", [0.0, 0.2, 0.5, 0.9])
@COPIED
def test_a_tiff_that_was_cut_short_is_left_out_and_told(
    store: Path, root: Path, copied: bool, part: float, compression: str | None
) -> None:
    old = a_session(store, shape=(8, 32, 32), compression=compression)
    cut_short(old.folder / "embryos/embryo_1/volumes/t0001.tif", part)
    assert list(told(store, root)["unreadable"]) == ["embryos/embryo_1/volumes/t0001.tif"]
    run = the_run(store, root, copied=copied)
    assert dict(every_volume(root)).keys() == old.volumes.keys() - {("embryo_1", 1)}
    assert "embryos/embryo_1/volumes/t0001.tif" in set(run["files_beside"]["file"])


def test_a_tiff_whose_pixels_are_torn_is_found_when_it_is_copied(store: Path, root: Path) -> None:
    old = a_session(store, shape=(8, 32, 32))
    path = old.folder / "embryos/embryo_1/volumes/t0001.tif"
    content = bytearray(path.read_bytes())
    with tifffile.TiffFile(path) as file:
        offset = file.pages[3].dataoffsets[0]
    content[offset : offset + 40] = bytes(40)
    path.write_bytes(content)
    (done,) = take_in(store, root, copied=True)
    assert [remark.file for remark in done.left_out] == ["embryos/embryo_1/volumes/t0001.tif"]
    assert done.images == 9
    run = Catalog(root)[done.uid]
    assert run.stop is not None
    assert run.stop["left_out"][0][0] == "embryos/embryo_1/volumes/t0001.tif"
    assert dict(every_volume(root)).keys() == old.volumes.keys() - {("embryo_1", 1)}
    assert verify(root).findings == ()


def test_a_copy_that_differs_fails_its_run_and_is_taken_in_again(
    store: Path, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from gently_bluesky.exchange.copying import _sum_of

    old = a_session(store)
    sums = iter(range(1000))
    with monkeypatch.context() as patched:
        patched.setattr(
            "gently_bluesky.exchange.copying._sum_of",
            lambda array: "rotten" if next(sums) in {3, 5} else _sum_of(array),
        )
        with pytest.raises(Exception, match="2 images stored, and something else is read back"):
            take_in(store, root, copied=True)
    (failed,) = Catalog(root)
    assert failed.stop is not None
    assert failed.exit_status == "fail"
    wrong = [key[0] for key in failed.stop["differs"]]
    (done,) = take_in(store, root, copied=True)
    assert done.images == len(wrong) == 2
    again = Catalog(root)[done.uid]
    assert [row.data["file"] for row in again["primary"].rows] == wrong
    assert take_in(store, root, copied=True) == []
    assert dict(every_volume(root)).keys() == old.volumes.keys()


def test_a_sidecar_without_its_volume_is_told(store: Path, root: Path) -> None:
    old = a_session(store)
    (old.folder / "embryos/embryo_1/volumes/t0001.tif").unlink()
    (old.folder / "snapshots/bf_000000000002.tif").unlink()
    assert set(told(store, root)["missing"]) == {
        "embryos/embryo_1/volumes/t0001.tif",
        "snapshots/bf_000000000002.tif",
    }
    assert len(the_run(store, root)["primary"]) == 5


def test_a_session_without_its_head_is_known_by_the_index_or_by_its_folder(store: Path, tmp_path: Path) -> None:
    old = a_session(store)
    (old.folder / "session.yaml").unlink()
    remarks = told(store, tmp_path / "root")
    assert list(remarks["missing"]) == ["session.yaml"]
    start = the_run(store, tmp_path / "root").start
    assert start["session"] == SESSION
    assert start["time"] == datetime.datetime(2026, 3, 1, 11, 0, tzinfo=datetime.UTC).timestamp()
    (store / "sessions/_index.yaml").unlink()
    assert the_run(store, tmp_path / "second").start["session"] == old.name


def test_images_in_other_places_and_open_sessions_are_told(store: Path, root: Path) -> None:
    old = a_session(store)
    write_tiff(old.folder / "embryos/embryo_1/volumes/t1.tif", volume(0), None)
    write_tiff(old.folder / "plots/x.tif", volume(0), None)
    write_yaml(old.folder / "session.lock", pid=3)
    assert set(told(store, root)["unknown"]) == {"embryos/embryo_1/volumes/t1.tif", "plots/x.tif", "session.lock"}
    assert {"plots/x.tif", "session.lock"} <= set(the_run(store, root)["files_beside"]["file"])


def test_links_are_not_followed_and_are_told(store: Path, root: Path, tmp_path: Path) -> None:
    old = a_session(store)
    (old.folder / "embryos/embryo_1").rename(tmp_path / "elsewhere")
    (old.folder / "embryos/embryo_1").symlink_to(tmp_path / "elsewhere")
    (old.folder / "nowhere").symlink_to(tmp_path / "nothing")
    assert set(told(store, root)["unknown"]) == {"embryos/embryo_1", "nowhere"}
    assert {embryo for (embryo, _), _ in every_volume(root_of(store, root))} == {"embryo_2"}


def test_torn_lines_of_logs_are_told_by_their_number(store: Path, root: Path) -> None:
    old = a_session(store)
    path = old.folder / "temperature.jsonl"
    path.write_text(path.read_text() + '[1]\n{"water_c": 3}\n{"t": "2026-03-0')
    (plan,) = plan_import(store, root).runs
    texts = [remark.text for remark in plan.source.remarks if remark.kind == "torn"]
    assert [text.split(":")[0] for text in texts] == [
        "line 5 should be an object, and is [1]",
        "line 6 has no time",
        "line 7 is torn",
    ]
    run = the_run(store, root)
    assert len(run["temperature"]) == 4
    assert "temperature.jsonl" in set(run["files_beside"]["file"])


def test_a_clock_that_was_set_back_does_not_turn_the_order_round(store: Path, root: Path) -> None:
    """In Berlin the hour from 2 to 3 o'clock comes twice on the last Sunday of October."""
    old = OldSession(store)
    times = ["01:50", "02:10", "02:40", "02:05", "02:35", "03:00"]
    for timepoint, time in enumerate(times):
        old.volume("embryo_1", timepoint, "00:00", sidecar={"acquired_at": f"2025-10-26T{time}:00"})
    primary = the_run(store, root)["primary"]
    assert primary["timepoint"].tolist() == list(range(6))
    assert np.diff(primary.time).tolist() == [1200.0, 1800.0, 1500.0, 1800.0, 1500.0]


def test_metadata_that_are_named_like_ours_keep_another_name(store: Path, root: Path) -> None:
    old = OldSession(store)
    metadata = {"channel": "red", "good": False, "file": 3}
    old.volume("embryo_1", 0, "00:00", metadata=metadata, sidecar={"run_uid": "abc"})
    run = the_run(store, root)
    row = run["primary"].rows[0].data
    assert [row[f"metadata_{key}"] for key in metadata] == ["red", False, 3]
    assert row["run_uid"] == "abc"
    run["primary"].images("volume").volume(0)


def test_values_that_come_to_one_name_are_all_there(store: Path, root: Path) -> None:
    old = OldSession(store)
    metadata: dict[Any, Any] = {
        "a": {"b": 1},
        "a_b": 2,
        "file": "x.raw",
        "metadata_file": "y",
        1: "one",
        "1": "another",
    }
    sidecar = {"run_uid": "top", "source": "spim", "captured_at": "never", "width": 99, "at": "here"}
    old.volume("embryo_1", 0, "00:00", metadata=metadata | {"run_uid": "abc"}, sidecar=sidecar)
    row = the_run(store, root)["primary"].rows[0].data
    expected = {
        "a_b": 1,
        "a_b_2": 2,
        "metadata_file": "x.raw",
        "metadata_file_2": "y",
        "1": "one",
        "1_2": "another",
        "run_uid": "abc",
        "run_uid_2": "top",
        "metadata_source": "spim",
        "captured_at": "never",
        "width": 99,
        "at": "here",
    }
    assert {key: row[key] for key in expected} == expected


def test_keys_and_sets_of_yaml_are_text_in_every_depth(store: Path, root: Path) -> None:
    old = a_session(store)
    path = old.folder / "embryos/embryo_1/volumes/t0001.meta.yaml"
    log = "log: [{2024-01-01: focus}]\n  seen: !!set {b, a}"
    path.write_text(path.read_text().replace("metadata:", f"metadata:\n  {log}"))
    embryo = old.folder / "embryos/embryo_1/embryo.yaml"
    embryo.write_text(embryo.read_text() + "history:\n  2024-01-01: moved\n")
    run = the_run(store, root)
    row = run["primary"].rows[3].data
    assert (row["log"], row["seen"]) == ('[{"2024-01-01": "focus"}]', '["a", "b"]')
    assert run.start["embryos"]["embryo_1"]["history"] == {"2024-01-01": "moved"}


def test_records_that_are_of_no_frame_are_told_and_their_file_is_beside(store: Path, root: Path) -> None:
    old = a_session(store)
    (path,) = old.folder.rglob("frames.jsonl")
    name = path.relative_to(old.folder).as_posix()
    frame_file = json.loads(path.read_text().splitlines()[0])["file"]
    more = [{"file": frame_file, "galvo": 9.0}, {"file": "frames/gone.tif", "galvo": 3.0}, {"note": "focus lost"}]
    path.write_text(path.read_text() + "".join(json.dumps(line) + "\n" for line in more))
    (plan,) = plan_import(store, root).runs
    assert [(remark.kind, remark.text) for remark in plan.source.remarks if remark.file == name] == [
        ("contradiction", f"line 3 is of {frame_file} like line 1, which is believed"),
        ("missing", "line 4 is of frames/gone.tif, which is not there, or cannot be read"),
        ("missing", "line 5 is of no file"),
    ]
    run = the_run(store, root)
    assert run["calibration_frames"]["galvo"].tolist() == [0.0, 0.1]
    assert name in set(run["files_beside"]["file"])
    shutil.rmtree(path.parent / "frames")
    assert "frames/gone.tif" in str(plan_import(store, root).runs[0].source.remarks)


def test_values_of_several_kinds_become_text(store: Path, root: Path) -> None:
    old = OldSession(store)
    for timepoint, value in enumerate((3, "three", 0.5)):
        old.volume("embryo_1", timepoint, f"0{timepoint}:00", metadata={"x": value, "n": timepoint or 0.5})
    stream = the_run(store, root)["primary"]
    assert stream["x"].tolist() == ["3", "three", "0.5"]
    assert stream["n"].tolist() == [0.5, 1.0, 2.0]
    assert stream.data_keys["n"]["dtype"] == "number"


@pytest.mark.parametrize("name", ["embryo{1}", "embryo%d", "100%"])
def test_names_that_no_document_can_hold_are_told(store: Path, root: Path, name: str) -> None:
    old = a_session(store)
    shutil.copytree(old.folder / "embryos/embryo_1", old.folder / "embryos" / name)
    assert all(name in file for file in told(store, root)["unreadable"])
    assert dict(every_volume(root_of(store, root))).keys() == old.volumes.keys()


def root_of(store: Path, root: Path) -> Path:
    take_in(store, root)
    return root


@pytest.mark.parametrize("name", ["embryo 1", "embryo#1", "\N{GREEK SMALL LETTER ALPHA}1", "a&b=1", "a,b'c"])
def test_any_other_name_is_a_name(store: Path, root: Path, name: str) -> None:
    old = OldSession(store)
    old.volume(name, 0, "00:00")
    the_run(store, root)
    (found,) = Catalog(root).volumes(embryo=name)
    np.testing.assert_array_equal(found.array(), old.volumes[name, 0])


def test_strict_refuses_all_that_is_wrong_before_anything_is_written(store: Path, root: Path) -> None:
    old = a_session(store)
    old.volume("embryo_1", 3, "40:00", sidecar={"timepoint": 4})
    with pytest.raises(ImportRefusedError, match=r"for 1 thing missing or wrong: .*timepoint is 4 in its sidecar"):
        plan_import(store, root, strict=True)
    assert not root.exists()


# --- at the prompt ------------------------------------------------------------------------------------------


def test_a_dry_run_says_what_would_come_and_writes_nothing(store: Path, root: Path) -> None:
    old = a_session(store)
    cut_short(old.folder / "embryos/embryo_1/volumes/t0001.tif")
    result = gently("import", store, "--root", root, "--dry-run", "--timezone", "Europe/Berlin")
    assert result.returncode == 0, result.stderr
    assert "5 primary" in result.stdout
    assert "1 unreadable" in result.stdout
    assert "t0001.tif: it was cut short" in result.stdout
    assert not root.exists()


def test_the_command_imports_tells_and_does_nothing_twice(store: Path, root: Path) -> None:
    a_session(store)
    first = gently("import", store, "--root", root, "--copy", "--voxel-size", "1", "0.2", "0.2")
    assert first.returncode == 0, first.stderr
    (run,) = Catalog(root)
    assert f"Run {run.uid}: 10 images in {run.folder}" in first.stdout
    assert run["primary"].images("volume").voxel_size_um == (1.0, 0.2, 0.2)
    again = gently("import", store, "--root", root)
    assert "All of it is here already; nothing was imported." in again.stdout
    lines = [json.loads(line) for line in gently("import", store, "--root", root, "--json").stdout.splitlines()]
    assert [(line["act"], line["images"], line["known"]) for line in lines] == [("plan", 0, 10)]


def test_what_is_refused_is_one_line(store: Path, root: Path) -> None:
    old = a_session(store)
    (old.folder / "session.yaml").write_text("x: [")
    result = gently("import", store, "--root", root, "--strict")
    assert result.returncode == 1
    assert result.stderr.count("\n") == 1
    assert "session.yaml: it is torn" in result.stderr


def test_a_copy_that_leaves_something_out_has_exit_status_1(store: Path, root: Path) -> None:
    old = a_session(store, shape=(8, 32, 32))
    path = old.folder / "embryos/embryo_1/volumes/t0001.tif"
    with tifffile.TiffFile(path) as file:
        offset = file.pages[3].dataoffsets[0]
    content = bytearray(path.read_bytes())
    content[offset : offset + 40] = bytes(40)
    path.write_bytes(content)
    result = gently("import", store, "--root", root, "--copy")
    assert result.returncode == 1
    assert "left out: embryos/embryo_1/volumes/t0001.tif" in result.stdout


@COPIED
def test_a_volume_says_in_which_file_it_is(store: Path, root: Path, copied: bool) -> None:
    old = a_session(store)
    images = the_run(store, root, copied=copied)["primary"].images("volume")
    for event, (embryo, timepoint) in enumerate(ORDER):
        path = Path(images.source(event).path)
        assert path.is_file()
        assert path.is_relative_to(root if copied else old.folder)
        assert copied or path.name == f"t{timepoint:04d}.tif"
        assert copied or embryo in path.parts
