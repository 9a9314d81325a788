import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import bluesky.plans as bp
import numpy as np
import pytest
import tifffile

from gently_bluesky import Catalog, FileWriter
from gently_bluesky.errors import JournalError, RootError
from gently_bluesky.keep.acts import finish_interrupted
from gently_bluesky.keep.discard import discard, restore
from gently_bluesky.keep.documents import DocumentCheck
from gently_bluesky.keep.finding import Report
from gently_bluesky.keep.policy import Policy
from gently_bluesky.keep.retention import apply, plan_retention
from gently_bluesky.keep.verify import verify
from gently_bluesky.store.index import reindex
from gently_bluesky.store.journal import encode_line
from gently_bluesky.write.recovery import recover
from tests.conftest import OF_TIFF
from tests.data_rig import (
    Camera,
    Child,
    connected,
    inline,
    journal,
    path_of,
    pixel_file,
    record,
    run_folder,
    start_doc,
)
from tests.test_recovery import interrupted

pytestmark = pytest.mark.usefixtures("every_format", "a_shard_a_frame")


def acquired(root: Path) -> Path:
    """A good run with streamed volumes, an array in a file and a small one in its event."""
    big = [np.full((200, 300), i, "<i8") for i in range(3)]
    plan = lambda writer: bp.count([Camera("cam", writer), inline("big", *big), inline("small", *big)], 3)  # noqa: E731
    return record(root, plan, inline_limit_bytes=500_000).folder


def found(root: Path, **options: Any) -> list[tuple[str, str, str]]:
    return [(finding.severity, finding.kind, finding.where) for finding in verify(root, **options).findings]


def texts(root: Path) -> list[tuple[str, str]]:
    return [(finding.kind, finding.text) for finding in verify(root).findings]


def rewrite(folder: Path, name: str, change: Callable[[list[dict[str, Any]]], object]) -> None:
    """Change the lines of a journal or manifest, checksums included: what a bug would have written."""
    path = folder / name
    lines = [json.loads(line) for line in path.read_bytes().splitlines()]
    for line in lines:
        del line["xxh3_64"]
    change(lines)
    path.write_bytes(b"".join(map(encode_line, lines)))


def test_what_a_writer_left_is_good(root: Path) -> None:
    acquired(root)
    report = verify(root)
    assert report.findings == ()
    assert (report.runs, report.files, report.documents) == (1, 3, len(journal(run_folder(root))))
    assert report.bytes == report.bytes_read == 3 * 4 * 8 * 16 * 2


def test_only_what_is_new_is_read_again(root: Path) -> None:
    folder = acquired(root)
    verify(root)
    again = verify(root)
    assert (again.bytes_read, again.documents, again.findings) == (0, 0, ())
    assert verify(root, afresh=True).bytes_read == again.bytes > 0
    os.utime(pixel_file(folder, "cam_image", 1), (2e9, 2e9))
    assert verify(root).bytes_read == again.bytes // 3
    (root / "index" / "verified.jsonl").write_bytes(b"{]\n")
    assert verify(root).bytes_read == again.bytes


def test_progress_ends_with_all_that_was_read(root: Path) -> None:
    acquired(root)
    told: list[tuple[int, int]] = []
    report = verify(root, progress=lambda done, known: told.append((done, known)))
    assert told[-1] == (report.bytes_read, report.bytes_read)


# --- files --------------------------------------------------------------------------------------------------


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 1)


def grow(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"\0")


def swap(folder: Path) -> None:
    """Let the third volume lie in the place of the second."""
    if (folder / "cam_image").exists():
        (folder / "cam_image" / "000002.ome.tif").replace(folder / "cam_image" / "000001.ome.tif")
        return
    for where in ("0/c/{}", "events/{:06d}"):
        shutil.rmtree(folder / "cam_image.ome.zarr" / where.format(1))
        names = (folder / "cam_image.ome.zarr" / where.format(number) for number in (2, 1))
        next(names).rename(next(names))


def behead(path: Path) -> None:
    """Change what stands before the pixels, or in a store what is said of them."""
    if path.suffix != ".tif":
        path = path.parents[5] / "events" / "000001" / "zarr.json"
    content = bytearray(path.read_bytes())
    content[16] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("harm", "kind"),
    [(Path.unlink, "missing"), (cut, "short"), (grow, "grown"), (flip, "changed"), (behead, "head")],
)
def test_a_file_that_is_not_as_it_was_written_is_an_error(
    root: Path, harm: Callable[[Path], object], kind: str, every_format: str
) -> None:
    folder = acquired(root)
    verify(root)
    harm(pixel_file(folder, "cam_image", 1))
    assert found(root) == [("error", kind, path_of("cam_image", 1, every_format))]


def test_a_volume_in_the_place_of_another_is_an_error_even_if_its_hash_was_changed_too(
    root: Path, every_format: str
) -> None:
    folder = acquired(root)
    swap(folder)
    hashes = [line["xxh3_128"] for line in map(json.loads, (folder / "manifest.jsonl").read_bytes().splitlines())]
    rewrite(folder, "manifest.jsonl", lambda lines: lines[1].update(xxh3_128=hashes[2]))
    report = verify(root)
    kinds = {finding.where: finding.kind for finding in report.errors}
    assert kinds == {path_of("cam_image", n, every_format): kind for n, kind in ((1, "head"), (2, "missing"))}
    assert "it says that it is volume 2 of 'cam_image'" in report.errors[0].text


@OF_TIFF
def test_a_tiff_that_nobody_names_is_traced_home(root: Path, tmp_path: Path) -> None:
    folder = acquired(root)
    shutil.copy(folder / "cam_image" / "000001.ome.tif", folder / "cam_image" / "copy.tif")
    shutil.copy(folder / "cam_image" / "000002.ome.tif", root / "stray.tif")
    tifffile.imwrite(root / "theirs.tif", np.zeros((4, 4), "u1"))
    report = verify(root)
    assert [finding.severity for finding in report.findings] == ["warning"] * 3
    said = {finding.where: finding.text for finding in report.findings}
    uid = Catalog(root)[-1].uid
    assert f"volume 1 of 'cam_image' of run {uid}" in said["cam_image/copy.tif"]
    assert f"volume 2 of 'cam_image' of run {uid}" in said["stray.tif"]
    assert "does not say where it belongs" in said["theirs.tif"]


def test_an_asset_of_others_that_is_gone_is_an_error(root: Path, tmp_path: Path) -> None:
    there, gone = tmp_path / "there.h5", tmp_path / "gone.h5"
    there.touch()
    with FileWriter(root) as writer:
        writer("start", start_doc(uid="run"))
        for uid, path in (("a", there), ("b", gone), ("c", "s3://bucket/c")):
            uri = path if isinstance(path, str) else f"file://localhost{path}"
            doc = {"uid": uid, "run_start": "run", "data_key": uid, "mimetype": "application/x-hdf5", "uri": uri}
            writer("stream_resource", {**doc, "parameters": {}})
        writer("stop", {"uid": "s", "time": 1.0, "run_start": "run", "exit_status": "success"})
    assert [finding[:2] for finding in found(root)] == [("error", "foreign"), ("note", "foreign")]
    assert there.exists()


def test_frames_past_the_last_reference_are_unreferenced_and_not_unknown(root: Path) -> None:
    with FileWriter(root) as writer:
        run_engine, _ = connected(writer)
        camera = Camera("cam", writer)

        def surplus(volume: object) -> None:
            camera.before_seal = lambda volume: None
            camera._take()

        camera.before_seal = surplus
        run_engine(bp.count([camera], 1))
    assert [finding[:2] for finding in found(root)] == [("note", "unreferenced")]


def test_a_manifest_that_names_files_elsewhere_is_an_error_and_they_are_not_read(root: Path) -> None:
    folder = acquired(root)
    for path in ("../../../outside", "/etc/passwd", "a/../../b", "C:\\x", ""):
        (folder / "manifest.jsonl").write_bytes(
            encode_line({"resource": "r", "index": 0, "path": path, "format": "ome-tiff", "state": "sealed"})
        )
        assert ("error", "damaged", "") in found(root)
        with pytest.raises(ValueError, match="outside the run's folder"):
            Catalog(root)[-1]["primary"]["cam_image"].volume(0)


def test_a_manifest_that_says_another_shape_than_the_descriptor_is_an_error(root: Path) -> None:
    folder = acquired(root)
    rewrite(folder, "manifest.jsonl", lambda lines: lines[0].update(shape=[8, 4, 16]))
    assert {kind for _, kind, _ in found(root)} == {"shape", "head"}


def test_a_volume_that_the_manifest_forgot_is_an_error_and_its_file_a_stranger(
    root: Path, every_format: str
) -> None:
    folder = acquired(root)
    rewrite(folder, "manifest.jsonl", lambda lines: lines.pop(1))
    strangers = ["cam_image/000001.ome.tif"]
    if every_format == "ome-zarr":
        strangers = ["cam_image.ome.zarr/0/c/1", "cam_image.ome.zarr/events/000001"]
    assert found(root) == [("error", "missing", "seq_num 2"), *(("warning", "stranger", s) for s in strangers)]


@OF_TIFF
def test_a_bit_that_flipped_in_the_head_of_a_volume_is_found(root: Path) -> None:
    """Directories and OME-XML, what other programs read and where they find each plane, and the frame times."""
    folder = acquired(root)
    path = folder / "cam_image" / "000001.ome.tif"
    content = path.read_bytes()
    with tifffile.TiffFile(path) as file:
        (tag,) = [tag for tag in file.pages[0].tags if tag.name == "ImageDescription"]  # type: ignore[union-attr]
        places = {
            *range(0, 16 + 4 * 16 + 20 * 41, 7),
            *range(tag.valueoffset, tag.valueoffset + tag.count - 1, 41),
            *range(file.pages[0].dataoffsets[0] - 4 * 8, file.pages[0].dataoffsets[0], 3),
        }
    for place in sorted(places):
        flipped = bytearray(content)
        flipped[place] ^= 1 << place % 8
        path.write_bytes(flipped)
        assert found(root, afresh=True)[0][0] == "error", f"byte {place}"
    path.write_bytes(content)
    assert found(root, afresh=True) == []


def test_what_was_found_changed_stays_an_error_whatever_the_time_of_its_file_says(
    root: Path, every_format: str
) -> None:
    path = pixel_file(acquired(root), "cam_image", 1)
    assert found(root) == []
    status = path.stat()
    flip(path)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert found(root) == [], "as if nobody had touched it"
    for afresh in (True, False, False):
        assert found(root, afresh=afresh) == [("error", "changed", path_of("cam_image", 1, every_format))]
    flip(path)
    assert found(root) == []


# --- runs ---------------------------------------------------------------------------------------------------


def test_an_interrupted_run_is_an_error_until_it_is_recovered(root: Path, every_format: str) -> None:
    interrupted(root)
    assert ("error", "interrupted", "") in found(root)
    recover(root)
    assert found(root) == [("note", "incomplete", path_of("cam", 2, every_format))]


@pytest.mark.parametrize("frames", [0, 1, 4])
def test_after_a_recovery_with_events_there_is_no_error(root: Path, frames: int) -> None:
    interrupted(root, frames=frames, keys=("cam", "other"))
    recover(root, salvage="event")
    assert verify(root).errors == ()


def test_a_run_that_is_being_written_is_a_note(root: Path) -> None:
    with FileWriter(root) as writer:
        writer("start", start_doc(uid="run"))
        assert found(root) == [("note", "running", "")]
        writer("stop", {"uid": "s", "time": 1.0, "run_start": "run", "exit_status": "success"})
    assert found(root) == []


@pytest.mark.parametrize("torn", [b"", b'{"name":"start","doc":{"uid":"abc'])
def test_a_folder_in_which_no_run_began_is_a_note(root: Path, torn: bytes) -> None:
    acquired(root)
    folder = root / "runs" / "2026" / "01" / "01" / "0001-p-abc"
    folder.mkdir(parents=True)
    (folder / "journal.jsonl").write_bytes(torn)
    assert [finding[:2] for finding in found(root)] == [("note", "empty")]


def test_a_root_that_cannot_be_written_is_checked_all_the_same(
    root: Path, small_disk: Path, caplog: pytest.LogCaptureFixture
) -> None:
    acquired(small_disk / "root")
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    report = verify(small_disk / "root")
    assert report.findings == ()
    assert report.bytes_read > 0
    assert "is not remembered" in caplog.text


def test_a_torn_journal_or_manifest_is_an_error(root: Path) -> None:
    folder = acquired(root)
    for name in ("journal.jsonl", "manifest.jsonl"):
        content = (folder / name).read_bytes()
        (folder / name).write_bytes(content + b'{"to')
        assert found(root) == [("warning", "torn", name)], "it had ended before: nothing is lost"
        (folder / name).write_bytes(content)


def test_only_the_runs_that_are_asked_for_are_checked(root: Path) -> None:
    acquired(root)
    uid = Catalog(root)[-1].uid
    folder = record(root, lambda writer: bp.count([Camera("cam", writer)])).folder
    flip(pixel_file(folder, "cam_image"))
    (root / "stray.txt").touch()
    assert verify(root, uids=[uid]).findings == ()
    assert len(verify(root).findings) == 2


def test_a_journal_that_is_gone_or_empty_is_an_error_while_anything_of_its_run_is_there(root: Path) -> None:
    folder = acquired(root)
    content = (folder / "journal.jsonl").read_bytes()
    (folder / "journal.jsonl").write_bytes(b"")
    assert found(root) == [("error", "journal", "journal.jsonl")]
    (folder / "journal.jsonl").unlink()
    assert found(root) == [("error", "journal", "journal.jsonl")]
    shutil.rmtree(root / "index")
    assert found(root) == [("error", "journal", "journal.jsonl")]
    (folder / "journal.jsonl").write_bytes(content)
    assert found(root) == []


def test_a_run_that_the_index_knows_to_have_ended_is_not_made_an_interrupted_one(root: Path) -> None:
    folder = acquired(root)
    content, index = (folder / "journal.jsonl").read_bytes(), (root / "index" / "runs.jsonl").read_bytes()
    for damaged in (content[:-50], b""):
        (folder / "journal.jsonl").write_bytes(damaged)
        (first, *_) = [finding for finding in verify(root).findings if finding.kind == "journal"]
        assert "from a copy" in first.text
        assert reindex(root) == 1
        assert (root / "index" / "runs.jsonl").read_bytes() == index, "there is no other trace of its end"
        assert recover(root) == []
        (run,) = Catalog(root)
        assert run.exit_status == "success"
    (folder / "journal.jsonl").unlink()
    (run,) = Catalog(root)
    assert run.damage is not None
    assert "journal" in run.damage
    with pytest.raises(JournalError, match="is gone"):
        run["primary"]
    (folder / "journal.jsonl").write_bytes(content)
    assert found(root) == []


def test_a_run_whose_folder_is_gone_is_an_error_while_the_index_knows_it(root: Path) -> None:
    shutil.rmtree(acquired(root))
    assert [finding[:2] for finding in found(root)] == [("error", "gone")]


def test_a_run_that_was_copied_within_its_root_is_an_error(root: Path) -> None:
    folder = acquired(root)
    shutil.copytree(folder, folder.with_name("copy"))
    assert [finding[:2] for finding in found(root)] == [("error", "twice")]


def test_the_last_event_that_is_missing_is_an_error_though_its_datum_is_there(root: Path) -> None:
    folder = acquired(root)
    shutil.rmtree(root / "index")
    rewrite(folder, "journal.jsonl", lambda lines: lines.pop(-2))
    assert ("error", "count") in {finding[:2] for finding in found(root)}


def test_a_datum_that_is_missing_in_a_run_that_ended_well_is_an_error(root: Path) -> None:
    folder = acquired(root)
    number = next(i for i, (name, _) in enumerate(journal(folder)) if name == "stream_datum")
    rewrite(folder, "journal.jsonl", lambda lines: lines.pop(number))
    assert ("error", "reference") in {finding[:2] for finding in found(root)}


def test_numbers_that_json_lacks_in_a_start_document_are_no_error(root: Path) -> None:
    with FileWriter(root) as writer:
        start = start_doc(uid="run", q=float("nan"), low=float("-inf"), raw=b"x")
        writer("start", start)
        writer("stop", {"uid": "s", "time": 1.0, "run_start": "run", "exit_status": "success"})
    before = (root / "index" / "runs.jsonl").read_bytes()
    assert found(root) == []
    shutil.rmtree(root / "index")
    assert reindex(root) == 1
    assert (root / "index" / "runs.jsonl").read_bytes() == before
    assert Catalog(root)["run"].start["low"] == float("-inf")


def test_a_volume_that_was_given_up_has_a_hash_like_any_other(root: Path, every_format: str) -> None:
    with FileWriter(root) as writer:
        writer("start", start_doc(uid="run"))
        new = writer.open_resource("cam", shape=(4, 8, 16), dtype="<u2").new_volume()
        new.write(0, np.full((8, 16), 7, "<u2"))
        new.abort("the camera stopped")
        writer("stop", {"uid": "s", "time": 1.0, "run_start": "run", "exit_status": "fail"})
    where = path_of("cam", 0, every_format)
    assert found(root) == [("note", "incomplete", where)]
    flip(pixel_file(run_folder(root), "cam"))
    assert found(root, afresh=True) == [("error", "changed", where)]


def test_an_asset_that_is_named_by_the_beginning_of_its_files_is_there(root: Path, tmp_path: Path) -> None:
    (tmp_path / "8f17c8_0.npy").touch()
    with FileWriter(root) as writer:
        writer("start", start_doc(uid="run"))
        named = {
            "root": str(tmp_path),
            "resource_path": "8f17c8",
            "resource_kwargs": {},
            "path_semantics": "posix",
        }
        writer("resource", {"uid": "r", "run_start": "run", "spec": "NPY_SEQ", **named})
        writer("stop", {"uid": "s", "time": 1.0, "run_start": "run", "exit_status": "success"})
    assert found(root) == []


def test_a_root_that_cannot_be_written_is_verified_all_the_same(small_disk: Path) -> None:
    root = small_disk / "root"
    acquired(root)
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    report = verify(root)
    assert report.findings == ()
    assert report.bytes_read > 0


# --- the trash ----------------------------------------------------------------------------------------------


def test_what_is_in_the_trash_is_held_against_the_manifests(root: Path, every_format: str) -> None:
    acquired(root)
    discard(root, -1, by="ada")
    assert found(root) == []
    copy = min(root.glob("trash/*/*/cam_image/*.tif" if every_format == "ome-tiff" else "trash/*/*/*.ome.zarr"))
    name = copy.relative_to(root).as_posix()
    moved = copy.rename(copy.with_name(f"elsewhere{copy.name}"))
    strangers = [path for path in [moved, *moved.rglob("*")] if path.is_file()]
    names = sorted(path.relative_to(root).as_posix() for path in strangers)
    assert found(root) == [("error", "missing", name), *(("warning", "stranger", each) for each in names)]


def test_a_bit_that_flipped_in_the_trash_is_found(root: Path, every_format: str) -> None:
    acquired(root)
    discard(root, -1, by="ada")
    (images,) = root.glob("trash/*/*/cam_image*")
    flip(pixel_file(images.parent, "cam_image", 1))
    assert found(root) == [("error", "changed", path_of("cam_image", 1, every_format))]


@OF_TIFF
def test_what_was_removed_and_is_brought_back_by_hand_is_compared_and_taken_in(root: Path) -> None:
    folder = acquired(root)
    kept = {path.name: path.read_bytes() for path in (folder / "cam_image").iterdir()}
    discard(root, -1, by="ada", grace_days=0)
    apply(plan_retention(root, Policy()))
    assert not list((root / "trash").rglob("*.tif"))
    for name, content in kept.items():
        (folder / "cam_image" / name).write_bytes(content)
    flip(folder / "cam_image" / "000001.ome.tif")
    assert found(root) == [
        ("error", "changed", "cam_image/000001.ome.tif"),
        ("warning", "removed", "cam_image/000000.ome.tif"),
        ("warning", "removed", "cam_image/000002.ome.tif"),
    ]
    back = restore(root, -1)
    assert back.paths == ("cam_image/000000.ome.tif", "cam_image/000002.ome.tif")
    assert back.left == {"cam_image/000001.ome.tif": "what lies there is not what was removed"}
    assert found(root) == [("error", "changed", "cam_image/000001.ome.tif")]


BACK_AND_FORTH = """
import sys
from itertools import cycle
from gently_bluesky.keep.discard import discard, restore
print("go", flush=True)
for position in cycle([-1, -2, -3]):
    discard(sys.argv[1], position)
    restore(sys.argv[1], position)
"""


def test_a_verification_beside_discard_and_restore_finds_nothing_wrong(root: Path) -> None:
    for _ in range(3):
        acquired(root)
    with Child(BACK_AND_FORTH, root) as child:
        child.line()
        meanwhile = [verify(root, afresh=True).findings for _ in range(40)]
        child.kill()
    assert {(each.severity, each.kind) for findings in meanwhile for each in findings} == {("note", "moving")}
    finish_interrupted(root)
    assert found(root) == []


def test_a_damaged_line_of_the_audit_is_named_and_stops_neither_restoring_nor_discarding(
    root: Path, every_format: str
) -> None:
    acquired(root)
    files = 3 if every_format == "ome-tiff" else 1
    discard(root, -1, by="ada")
    audit = root / "audit.jsonl"
    audit.write_bytes(audit.read_bytes().replace(b'"removing"', b'"remowing"', 1))
    assert found(root) == [("error", "damaged", "audit.jsonl")]
    assert len(restore(root, -1).paths) == files
    assert len(discard(root, -1).paths) == files
    assert found(root) == [("error", "damaged", "audit.jsonl")]


def test_links_and_what_is_no_day_are_strangers(root: Path, tmp_path: Path) -> None:
    folder = acquired(root)
    (root / "runs" / "mine").mkdir()
    (root / "runs" / "2026" / "todo.txt").touch()
    (folder / "elsewhere").symlink_to(tmp_path, target_is_directory=True)
    assert {where for _, kind, where in found(root) if kind == "stranger"} == {
        "elsewhere",
        "runs/mine",
        "runs/2026/todo.txt",
    }


def test_a_run_folder_that_was_renamed_is_said_to_be_where_it_is(root: Path) -> None:
    folder = acquired(root)
    folder.rename(folder.with_name("the good one"))
    assert [(kind, "the good one now: gently" in text) for kind, text in texts(root)] == [("index", True)]
    reindex(root)
    assert found(root) == []


@OF_TIFF
def test_a_removal_that_was_interrupted_is_a_warning_until_it_is_finished(root: Path) -> None:
    folder = acquired(root)
    discard(root, -1, by="ada")
    lines = (root / "audit.jsonl").read_bytes().splitlines(keepends=True)
    (root / "audit.jsonl").write_bytes(b"".join(lines[:-1]))
    (copy,) = (root / "trash").rglob("000001.ome.tif")
    copy.rename(folder / "cam_image" / copy.name)
    assert found(root) == [("warning", "removed", "cam_image/000001.ome.tif")]
    assert len(finish_interrupted(root)) == 1
    assert found(root) == []


# --- the index ----------------------------------------------------------------------------------------------


def test_an_index_that_says_something_else_is_an_error_until_it_is_written_anew(root: Path) -> None:
    acquired(root)
    index = root / "index" / "runs.jsonl"
    before = index.read_bytes()
    rewrite(root / "index", "runs.jsonl", lambda lines: lines[0]["start"].update(plan_name="other"))
    assert [finding[:2] for finding in found(root)] == [("error", "index")]
    assert reindex(root) == 1
    assert found(root) == []
    assert index.read_bytes() == before


def test_an_index_made_anew_is_the_one_that_was_kept_on_the_way(root: Path) -> None:
    for _ in range(3):
        acquired(root)
    index = root / "index" / "runs.jsonl"
    before, answers = index.read_bytes(), [run.start for run in Catalog(root)]
    shutil.rmtree(root / "index")
    assert reindex(root) == 3
    assert index.read_bytes() == before
    assert [run.start for run in Catalog(root)] == answers
    assert not [path for path in index.parent.iterdir() if path.name.endswith(".new")]


# --- documents ----------------------------------------------------------------------------------------------


def documents_of(root: Path) -> list[tuple[str, dict[str, Any]]]:
    return [(name, json.loads(json.dumps(doc))) for name, doc in journal(acquired(root))]


def checked(documents: list[tuple[str, dict[str, Any]]]) -> set[tuple[str, str]]:
    check = DocumentCheck("run")
    for name, doc in documents:
        check(name, doc)
    return {(finding.severity, finding.kind) for finding in check.findings}


def first(documents: list[tuple[str, dict[str, Any]]], kind: str) -> dict[str, Any]:
    return next(doc for name, doc in documents if name == kind)


Documents = list[tuple[str, dict[str, Any]]]


@pytest.mark.parametrize(
    ("harm", "expected"),
    [
        (lambda docs: docs.pop(0), {("error", "order"), ("error", "reference")}),
        (lambda docs: docs.append(docs[0]), {("error", "order"), ("error", "uid")}),
        (lambda docs: docs.append(docs[-2]), {("error", "order"), ("error", "uid")}),
        (lambda docs: docs.insert(1, ("evnt", {})), {("error", "schema")}),
        (lambda docs: first(docs, "event").pop("time"), {("error", "schema")}),
        (lambda docs: first(docs, "event").update(seq_num=7), {("error", "seq_num")}),
        (
            lambda docs: first(docs, "event").update(descriptor="x"),
            {("error", "count"), ("error", "reference"), ("error", "seq_num")},
        ),
        (lambda docs: first(docs, "event")["data"].update(odd=1), {("error", "keys")}),
        (lambda docs: first(docs, "event")["timestamps"].pop("small"), {("error", "keys")}),
        (lambda docs: first(docs, "event")["data"].update(cam_number="one"), {("warning", "dtype")}),
        (lambda docs: first(docs, "event")["data"].update(small=[[1]]), {("warning", "shape")}),
        (
            lambda docs: first(docs, "stream_datum")["indices"].update(stop=9),
            {("error", "range"), ("warning", "order")},
        ),
        (lambda docs: first(docs, "stream_datum")["seq_nums"].update(start=5), {("error", "range")}),
        (lambda docs: first(docs, "stream_datum").update(stream_resource="x"), {("error", "reference")}),
        (lambda docs: first(docs, "stream_resource").update(data_key="small"), {("error", "reference")}),
        (lambda docs: first(docs, "stream_resource").update(run_start="x"), {("error", "reference")}),
        (lambda docs: first(docs, "stop").update(num_events={"primary": 4}), {("error", "count")}),
        (
            lambda docs: first(docs, "descriptor")["data_keys"]["small"].update(dtype_numpy="<q9"),
            {("error", "dtype"), ("error", "schema")},
        ),
        (
            lambda docs: first(docs, "descriptor")["data_keys"]["cam_image"].update(dims=["y"]),
            {("warning", "shape")},
        ),
    ],
)  # fmt: skip
def test_documents_that_do_not_hold_together_are_found(
    root: Path, harm: Callable[[Documents], object], expected: set[tuple[str, str]]
) -> None:
    documents = documents_of(root)
    assert checked(documents) == set()
    harm(documents)
    assert checked(documents) == expected


# --- reports ------------------------------------------------------------------------------------------------


def test_a_report_for_programs_is_an_object_a_finding_and_one_of_the_figures(
    root: Path, every_format: str
) -> None:
    folder = acquired(root)
    cut(pixel_file(folder, "cam_image", 1))
    finding, figures = json.loads(json.dumps(list(verify(root).lines())))
    assert (finding["kind"], finding["where"]) == ("short", path_of("cam_image", 1, every_format))
    assert (figures["runs"], figures["files"], figures["errors"]) == (1, 3, 1)


def test_a_folder_that_is_no_root_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(RootError):
        verify(tmp_path)
    assert Report("").counts == {}
