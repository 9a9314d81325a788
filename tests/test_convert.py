"""Conversion: the same pixels in a second form, verified, found by the accessor, and never half done."""

import shutil
from pathlib import Path
from typing import Any

import bluesky.plan_stubs as bps
import bluesky.plans as bp
import numpy as np
import pytest
import tifffile
import yaozarrs
import zarr

from gently_bluesky import Catalog, FileWriter
from gently_bluesky.errors import DiskFullError, RootError, RunKeptError, RunLockedError
from gently_bluesky.keep.convert import Converted, Format, convert_run, convert_runs
from gently_bluesky.keep.discard import discard, restore
from gently_bluesky.keep.retention import apply
from gently_bluesky.keep.verify import verify
from gently_bluesky.read.run import Run
from gently_bluesky.store.audit import read_audit
from gently_bluesky.store.manifest import read_entries
from gently_bluesky.write.run_folder import held
from gently_bluesky.write.space import Reserve
from tests.data_rig import (
    Camera,
    Child,
    feed,
    inline,
    journal,
    newest,
    pixel_hash,
    record,
    run_folder,
    start_doc,
    stop_doc,
    stored,
    volume,
)
from tests.old_session_rig import a_session, the_run
from tests.retention_rig import EVERYTHING, planned, timelapse

OTHER: dict[str, Format] = {"ome-tiff": "ome-zarr", "ome-zarr": "ome-tiff"}


def acquired(root: Path, image_format: str = "ome-tiff", count: int = 3) -> Run:
    return record(root, lambda writer: bp.count([Camera("cam", writer)], count), image_format=image_format)


def converted(run: Run, to: Format = "ome-zarr", **options: Any) -> Converted:
    root = run.folder.parents[4]
    return convert_run(root, run.folder.relative_to(root).as_posix(), to, **options)


def read(run: Run) -> list[np.ndarray[Any, Any]]:
    images = Catalog(run.folder.parents[4])[run.uid]["primary"]["cam_image"]
    return [images.volume(event) for event in range(len(images))]


def described(run: Run) -> str | None:
    with tifffile.TiffFile(run.folder / "cam_image" / "000001.ome.tif") as file:
        return file.ome_metadata


def hold(run: Run) -> None:
    """Hold every form against its hash, and its pixels against what was acquired."""
    for entry in read_entries(run.folder):
        if entry.state == "sealed":
            assert pixel_hash(stored(run.folder, entry.line())) == entry.xxh3_128
    for event, pixels in enumerate(read(run)):
        np.testing.assert_array_equal(pixels, volume(event))
    assert verify(run.folder.parents[4], afresh=True).findings == ()


@pytest.mark.parametrize("image_format", OTHER)
def test_a_converted_run_has_both_forms_with_the_same_hash_and_the_same_documents(
    root: Path, image_format: str
) -> None:
    run, to = acquired(root, image_format), OTHER[image_format]
    before = journal(run.folder)
    done = converted(run, to)
    assert (done.volumes, done.already, done.left) == (3, 0, ())
    hold(run)
    assert journal(run.folder) == before
    forms = {(entry.index, entry.format): entry.xxh3_128 for entry in read_entries(run.folder)}
    assert all(forms[index, "ome-tiff"] == forms[index, "ome-zarr"] for index in range(3))
    assert [act["act"] for act in read_audit(root)] == ["converted"]


def test_what_others_read_is_valid_and_says_what_the_first_form_said(root: Path) -> None:
    run = acquired(root)
    before = described(run)
    converted(run)
    yaozarrs.validate_zarr_store(run.folder / "cam_image.ome.zarr")
    shutil.rmtree(run.folder / "cam_image")
    manifest = run.folder / "manifest.jsonl"
    lines = [line for line in manifest.read_bytes().splitlines(keepends=True) if b"ome-tiff" not in line]
    manifest.write_bytes(b"".join(lines))
    converted(run, "ome-tiff")
    assert described(run) == before


def test_a_second_conversion_changes_nothing(root: Path) -> None:
    run = acquired(root)
    converted(run)
    before = {path: path.stat().st_mtime_ns for path in run.folder.rglob("*")}
    done = converted(run)
    assert (done.volumes, done.already) == (0, 3)
    assert {path: path.stat().st_mtime_ns for path in run.folder.rglob("*")} == before


def test_what_the_form_has_no_words_for_is_left_and_named(root: Path) -> None:
    long = [np.full((100, 100), number, "<i8") for number in range(2)]
    run = record(root, lambda writer: bp.count([inline("long", *long)], 2), image_format="ome-zarr")
    done = converted(run, "ome-tiff")
    assert done.volumes == 0
    assert done.left[0] == ("long.ome.zarr", 0, "ome-tiff has no words for (100, 100) <i8")


# --- which form is read -------------------------------------------------------------------------------------


def test_the_accessor_names_the_form_it_reads_and_takes_another_when_one_is_gone(root: Path) -> None:
    run = acquired(root)
    converted(run)
    images = Catalog(root)[-1]["primary"]["cam_image"]
    source = images.source(1)
    assert (source.format, source.path.name, source.index) == ("ome-tiff", "000001.ome.tif", 1)
    assert str(source).startswith("ome-tiff: volume 1 in /")
    shutil.rmtree(run.folder / "cam_image")
    again = Catalog(root)[-1]["primary"]["cam_image"]
    assert (again.source(1).format, again.source(1).path.name) == ("ome-zarr", "cam_image.ome.zarr")
    np.testing.assert_array_equal(again.volume(1), volume(1))


def test_a_cut_along_x_is_read_from_chunks_and_others_from_planes(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = acquired(root)
    converted(run)
    from gently_bluesky.store.zarr_pixels import ZarrPixels

    decoded = []
    get = ZarrPixels.__getitem__

    def noted(self: ZarrPixels, index: Any) -> Any:
        decoded.append(index)
        return get(self, index)

    monkeypatch.setattr(ZarrPixels, "__getitem__", noted)
    images = Catalog(root)[-1]["primary"]["cam_image"]
    expected = volume(1)
    np.testing.assert_array_equal(images[1, 2], expected[2])
    np.testing.assert_array_equal(images[1, :, 3], expected[:, 3])
    assert decoded == []
    np.testing.assert_array_equal(images[1, :, :, 5], expected[:, :, 5])
    np.testing.assert_array_equal(images[1, :, :, 2:9], expected[:, :, 2:9])
    assert len(decoded) == 2


def test_retention_drops_the_first_form_once_the_second_is_verified(root: Path) -> None:
    run = timelapse(root, 2)
    converted(run)
    text = '[[remove]]\nname = "archived"\nrepresentation = "ome-tiff"\nonce_in = "ome-zarr"'
    assert len(apply(planned(root, text)).removed) == 2
    assert Catalog(root)[-1]["primary"]["cam_image"].source(0).format == "ome-zarr"
    hold(run)


def test_the_first_form_of_a_run_with_children_may_go_and_the_last_may_not(root: Path) -> None:
    run = timelapse(root, 2)
    child = start_doc(uid="child", parents=[{"run": run.uid}])
    feed(root, [("start", child), ("stop", stop_doc("child"))])
    text = '[[remove]]\nname = "archived"\nrepresentation = "ome-tiff"\nonce_in = "ome-zarr"'
    assert planned(root, text, days=30).removals == ()
    converted(run)
    everything = planned(root, EVERYTHING, days=30)
    assert (everything.removals, {each.why for each in everything.kept}) == ((), {"run child is derived from it"})
    assert len(apply(planned(root, text, days=30)).removed) == 2
    hold(run)


def test_what_is_in_the_trash_is_converted_again_when_it_is_back(root: Path) -> None:
    run = acquired(root)
    converted(run)
    discard(root, -1)
    assert converted(run).volumes == 0
    restore(root, -1)
    hold(run)


# --- what goes wrong ----------------------------------------------------------------------------------------


def test_a_volume_whose_pixels_have_changed_is_not_converted(root: Path) -> None:
    run = acquired(root)
    path = run.folder / "cam_image" / "000001.ome.tif"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    done = converted(run)
    ((_, index, why),) = done.damaged
    assert (done.volumes, index) == (2, 1)
    assert "000001.ome.tif is not what the manifest says" in why
    assert {entry.index for entry in read_entries(run.folder) if entry.format == "ome-zarr"} == {0, 2}
    assert not list((run.folder / "cam_image.ome.zarr").glob("*/c/1"))
    content[-1] ^= 1
    path.write_bytes(content)
    assert converted(run).volumes == 1
    hold(run)


def test_a_damaged_last_volume_leaves_a_store_that_ends_before_it(root: Path) -> None:
    run = acquired(root)
    path = run.folder / "cam_image" / "000002.ome.tif"
    path.write_bytes(path.read_bytes()[:-1])
    assert converted(run).volumes == 2
    assert zarr.open_array(run.folder / "cam_image.ome.zarr" / "0", mode="r").shape[0] == 2


def test_a_volume_that_is_not_there_is_named_and_those_after_it_are_converted(root: Path) -> None:
    run = acquired(root)
    (run.folder / "cam_image" / "000001.ome.tif").unlink()
    done = converted(run)
    assert ([index for _, index, _ in done.damaged], done.volumes) == ([1], 2)


def test_a_form_that_lost_a_part_is_made_again_under_a_name_of_its_own(root: Path) -> None:
    run = acquired(root)
    converted(run)
    (shard,) = (run.folder / "cam_image.ome.zarr" / "0" / "c" / "1").rglob("0/0/0")
    shard.unlink()
    assert (converted(run).volumes, converted(run).already) == (1, 3)
    shutil.rmtree(run.folder / "cam_image")
    assert {entry.path for entry in read_entries(run.folder)} >= {"cam_image.ome.zarr", "cam_image+2.ome.zarr"}
    for event, pixels in enumerate(read(run)):
        np.testing.assert_array_equal(pixels, volume(event))


def test_room_that_a_conversion_reserved_before_it_died_is_given_back(root: Path) -> None:
    run = acquired(root)
    converted(run)
    left = run.folder / "cam_image.ome.zarr" / ".000001.room.new"
    left.write_bytes(bytes(100))
    assert [finding.text.endswith("or the next convert, gives it back") for finding in verify(root).findings] == [
        True
    ]
    assert converted(run).volumes == 0
    assert verify(root).findings == ()


@pytest.mark.parametrize("to", ["ome-tiff", "ome-zarr"])
def test_resources_of_one_key_do_not_come_into_each_other_s_folder(root: Path, to: Format) -> None:
    """Their folders are cam, cam+2 ...: what the new form of one takes, that of another passes over."""
    streams = {
        "line": np.arange(1 << 16, dtype="<u2"),
        "two": np.full((256, 256), 22, "<u2"),
        "three": np.full((256, 256), 33, "<u2"),
    }

    def plan() -> Any:
        yield from bps.open_run()
        for name, pixels in streams.items():
            yield from bps.trigger_and_read([inline("cam", pixels)], name=name)
        yield from bps.close_run()

    run = record(root, plan(), image_format=OTHER[to])
    done = converted(run, to)
    assert (done.volumes, done.damaged, converted(run, to).volumes) == (2, (), 0)
    for name, pixels in streams.items():
        np.testing.assert_array_equal(newest(root)[name].images("cam").volume(0), pixels)
    assert verify(root, afresh=True).findings == ()


def test_what_no_file_of_ours_holds_is_left_and_named(root: Path, tmp_path: Path) -> None:
    run = the_run(a_session(tmp_path).folder, root)
    done = converted(run)
    assert {why for _, _, why in done.left} == {"it is a file of others, which is linked: import it with --copy"}
    assert len(done.left) == sum(len(run[stream]) for stream in run if run[stream].image_keys)
    mine = acquired(root)
    discard(root, mine.uid)
    assert [why for _, _, why in converted(mine).left] == ["it was removed"] * 3


def test_a_store_in_the_trash_is_left_alone_and_the_new_one_has_a_name_of_its_own(root: Path) -> None:
    run = acquired(root)
    converted(run)
    discard(root, -1)
    restore(root, -1, ["cam_image/000001.ome.tif"])
    assert converted(run).volumes == 1
    names = {entry.path for entry in read_entries(run.folder) if entry.format == "ome-zarr"}
    assert names == {"cam_image.ome.zarr", "cam_image+2.ome.zarr"}
    assert set(restore(root, -1).paths) == {
        "cam_image/000000.ome.tif",
        "cam_image/000002.ome.tif",
        "cam_image.ome.zarr",
    }
    hold(run)


def test_nothing_is_written_or_deleted_through_a_link(root: Path, tmp_path: Path) -> None:
    run = acquired(root)
    precious = tmp_path / "elsewhere" / "0" / "c" / "0" / "precious"
    precious.parent.mkdir(parents=True)
    precious.touch()
    (run.folder / "cam_image.ome.zarr").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    with pytest.raises(RootError, match="is a link"):
        converted(run)
    assert [path.name for path in (tmp_path / "elsewhere").rglob("*")] == ["0", "c", "0", "precious"]


def test_a_form_behind_a_link_is_none_that_retention_relies_on(root: Path, tmp_path: Path) -> None:
    run = timelapse(root, 1)
    converted(run)
    store = run.folder / "cam_image.ome.zarr"
    store.rename(tmp_path / "moved")
    store.symlink_to(tmp_path / "moved", target_is_directory=True)
    text = '[[remove]]\nname = "archived"\nrepresentation = "ome-tiff"\nonce_in = "ome-zarr"'
    assert apply(planned(root, text)).removed == ()
    np.testing.assert_array_equal(read(run)[0], volume(0))


def test_a_run_that_is_being_acquired_is_not_converted(root: Path) -> None:
    with FileWriter(root) as writer:
        writer("start", start_doc())
        folder = run_folder(root).relative_to(root).as_posix()
        with pytest.raises(RunKeptError, match="has no stop document"):
            convert_run(root, folder, "ome-zarr")


def test_a_run_to_which_something_else_is_done_is_left_alone(root: Path) -> None:
    run = acquired(root)
    with held(run.folder), pytest.raises(RunLockedError):
        converted(run)


def test_no_room_is_an_error_before_the_next_volume_and_those_before_it_are_good(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = acquired(root)
    check, asked = Reserve.check, []

    def full(self: Reserve, path: Path, nbytes: int) -> int:
        asked.append(path)
        if len(asked) == 2:
            raise DiskFullError(28, "No room")
        return check(self, path, nbytes)

    monkeypatch.setattr(Reserve, "check", full)
    with pytest.raises(DiskFullError, match="No room"):
        converted(run)
    monkeypatch.undo()
    assert verify(root).findings == ()
    assert (converted(run).volumes, converted(run).already) == (2, 3)
    hold(run)


def test_an_unknown_form_is_an_error_that_names_those_there_are(root: Path) -> None:
    run = acquired(root)
    with pytest.raises(ValueError, match=r"'png' is no form .* \['ome-tiff', 'ome-zarr'\]"):
        converted(run, "png")  # type: ignore[arg-type]


def test_several_runs_are_converted_beside_each_other_and_a_failure_names_its_run(root: Path) -> None:
    runs = [acquired(root), acquired(root)]
    folders = [run.folder.relative_to(root).as_posix() for run in runs]
    path = runs[1].folder / "cam_image" / "000000.ome.tif"
    path.write_bytes(path.read_bytes()[:-5])
    good, bad, none = convert_runs(root, [*folders, "runs/2026/01/01/none"], "ome-zarr", workers=2)
    assert isinstance(good, Converted)
    assert isinstance(bad, Converted)
    assert (good.volumes, bad.volumes) == (3, 2)
    assert "ends at byte" in bad.damaged[0][2]
    assert isinstance(none, tuple)
    assert "There is no run in" in str(none[1])


CONVERT = """
import sys
from gently_bluesky.keep.convert import convert_run
print("go", flush=True)
convert_run(sys.argv[1], sys.argv[2], sys.argv[3], progress=lambda done, known: print(done, flush=True))
"""


@pytest.mark.parametrize("image_format", OTHER)
def test_a_conversion_that_is_killed_goes_on_where_it_was(root: Path, image_format: str) -> None:
    run = acquired(root, image_format, count=6)
    folder = run.folder.relative_to(root).as_posix()
    for volumes in (0, 1, 2):
        with Child(CONVERT, root, folder, OTHER[image_format]) as child:
            for _ in range(volumes + 1):
                child.line()
            child.kill()
        assert not verify(root).errors
        for event, pixels in enumerate(read(run)):
            np.testing.assert_array_equal(pixels, volume(event))
    converted(run, OTHER[image_format])
    hold(run)
    assert not list(run.folder.rglob("*.new"))
