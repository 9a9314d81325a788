"""What stands under a final name is whole: targets that are taken, full disks, stores cut short, kills."""

import errno
import itertools
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from gently_bluesky.errors import (
    DiskFullError,
    ExportError,
    GentlyError,
    LossyCastError,
    NothingSelectedError,
    TargetExistsError,
    VolumeMissingError,
)
from gently_bluesky.exchange import export_target
from gently_bluesky.exchange.export_target import staged
from gently_bluesky.exchange.selection import Selected, select
from gently_bluesky.read.run import Run
from tests.data_rig import Child
from tests.export_rig import OF_PIXELS, WRITERS, Writer, everything_under, timelapse

of_every_format = pytest.mark.parametrize("write", WRITERS, ids=lambda write: write.__name__)
of_pixels = pytest.mark.parametrize("write", OF_PIXELS, ids=lambda write: write.__name__)


@pytest.fixture
def run(root: Path) -> Run:
    return timelapse(root, embryos=["e1"], timepoints=[0, 1])


# --- the place ----------------------------------------------------------------------------------------------


def test_a_home_is_found_where_the_shell_did_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    stage(Path("~/out"), ["a"])
    assert everything_under(tmp_path) == ["out", "out/a"]


def test_what_was_written_has_its_names_when_all_of_it_is_there(tmp_path: Path) -> None:
    into, told = tmp_path / "deep" / "out", []
    with staged(
        into, ["a.txt", "b"], 3, room=3, progress=lambda done, total: told.append((done, total))
    ) as staging:
        (staging.folder / "a.txt").write_text("abc")
        (staging.folder / "b").mkdir()
        (staging.folder / "b" / "c.txt").write_text("c")
        staging.wrote(2)
        staging.wrote(1)
        assert all(path.startswith(staging.folder.name) for path in everything_under(into))
    assert everything_under(into) == ["a.txt", "b", "b/c.txt"]
    assert staging.paths == (into / "a.txt", into / "b")
    assert told == [(2, 3), (3, 3)]


def stage(into: Path, names: Sequence[str], then: Callable[[], object] = lambda: None, room: int = 0) -> None:
    """Write some files, and do something before they get their names."""
    with staged(into, names, 0, room=room) as staging:
        for name in names:
            (staging.folder / name).write_text("ours")
        then()


@pytest.mark.parametrize("error", [ValueError("no"), KeyboardInterrupt()])
def test_what_failed_leaves_nothing_and_no_folder_that_was_not_there(tmp_path: Path, error: BaseException) -> None:
    def fail() -> None:
        raise error

    (tmp_path / "there").mkdir()
    for into in (tmp_path / "new" / "er", tmp_path / "there"):
        with pytest.raises(type(error)):
            stage(into, ["a"], fail)
    assert everything_under(tmp_path) == ["there"]


@pytest.mark.parametrize("made", ["file", "folder", "link"])
def test_a_name_that_is_taken_is_refused_before_anything(tmp_path: Path, made: str) -> None:
    place = tmp_path / "b"
    if made == "file":
        place.write_text("mine")
    elif made == "folder":
        place.mkdir()
    else:
        place.symlink_to("nowhere")
    with pytest.raises(TargetExistsError, match="b is there already, and nothing is overwritten"):
        stage(tmp_path, ["a", "b"])
    assert everything_under(tmp_path) == ["b"]


def test_a_name_that_is_taken_meanwhile_takes_all_others_back(tmp_path: Path) -> None:
    with pytest.raises(TargetExistsError, match="b came to be there meanwhile"):
        stage(tmp_path, ["a", "b"], lambda: (tmp_path / "b").write_text("theirs"))
    assert everything_under(tmp_path) == ["b"]
    assert (tmp_path / "b").read_text() == "theirs"


def test_a_file_is_no_folder_to_export_into(tmp_path: Path) -> None:
    (tmp_path / "f").write_text("x")
    with pytest.raises(TargetExistsError, match="f is a file"):
        stage(tmp_path / "f", ["a"])


def test_nothing_is_exported_into_a_root(run: Run, root: Path) -> None:
    for into in (root, root / "exports", run.folder):
        with pytest.raises(ExportError, match="lies in the root"):
            stage(into, ["a"])


def test_room_is_asked_for_before_anything(tmp_path: Path) -> None:
    with pytest.raises(DiskFullError, match=r"may need 1,000,000,000,065,536 bytes, [\d,]+ are free") as caught:
        stage(tmp_path / "new", ["a"], room=10**15)
    assert caught.value.errno == errno.ENOSPC
    assert everything_under(tmp_path) == []


# --- every format -------------------------------------------------------------------------------------------


@of_every_format
def test_an_export_gives_the_paths_of_what_it_wrote_and_leaves_nothing_else(
    run: Run, tmp_path: Path, write: Writer
) -> None:
    told: list[tuple[int, int]] = []
    paths = write(select(run), tmp_path / "out", progress=lambda done, total: told.append((done, total)))
    assert sorted(paths) == sorted(path for path in (tmp_path / "out").iterdir())
    assert told[-1][0] == told[-1][1] or write not in OF_PIXELS
    assert [done for done, _ in told] == sorted(done for done, _ in told)


@of_every_format
def test_a_second_export_to_the_same_place_is_refused(run: Run, tmp_path: Path, write: Writer) -> None:
    write(select(run), tmp_path / "out")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*")}
    with pytest.raises(TargetExistsError, match="nothing is overwritten"):
        write(select(run), tmp_path / "out")
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*")} == before


@of_pixels
def test_a_store_that_was_cut_short_is_found_before_anything(run: Run, tmp_path: Path, write: Writer) -> None:
    os.truncate(run.folder / "spim_b_image" / "000003.ome.tif", 4200)
    with pytest.raises(VolumeMissingError, match="was cut short"):
        write(select(run), tmp_path / "out")
    assert not (tmp_path / "out").exists()


@of_pixels
def test_a_volume_that_is_gone_is_found_before_anything(run: Run, tmp_path: Path, write: Writer) -> None:
    (run.folder / "spim_b_image" / "000003.ome.tif").unlink()
    with pytest.raises(VolumeMissingError, match="there is no such file"):
        write(select(run), tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert write(select(run, view="A"), tmp_path / "out")


@of_pixels
def test_what_cannot_be_read_in_the_middle_takes_the_export_back(
    run: Run, tmp_path: Path, write: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, count = Selected.pixels, itertools.count()

    def gone(volume: Selected) -> Any:
        if next(count) == 12:  # eight are looked at before anything is written
            raise VolumeMissingError(f"{volume} is gone")
        return read(volume)

    monkeypatch.setattr(Selected, "pixels", gone)
    with pytest.raises(VolumeMissingError, match="is gone"):
        write(select(run), tmp_path / "out")
    assert not (tmp_path / "out").exists()


@of_pixels
def test_a_cast_that_loses_takes_the_export_back(root: Path, tmp_path: Path, write: Writer) -> None:
    run = timelapse(root, timepoints=[0])  # addresses of the second embryo begin at 1000
    lossy = r"embryo 'e2', timepoint 0, .* plane 0 holds 10\d\d, which uint8 cannot hold"
    with pytest.raises(LossyCastError, match=lossy):
        write(select(run), tmp_path / "out", dtype="uint8")
    assert not (tmp_path / "out").exists()
    assert write(select(run, embryo="e1"), tmp_path / "out", dtype="uint8")


@of_pixels
def test_a_selection_without_volumes_says_why(root: Path, tmp_path: Path, write: Writer) -> None:
    run = timelapse(root, bad=[(0, 1), (1, 1)])
    with pytest.raises(
        NothingSelectedError, match="No volumes are selected: 8 volumes would fit, marked as not good"
    ):
        write(select(run, timepoint=1), tmp_path / "out")
    assert not (tmp_path / "out").exists()


@of_every_format
def test_a_disk_without_room_is_found_before_anything(
    run: Run, tmp_path: Path, write: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export_target, "free_bytes", lambda path: 1000)
    with pytest.raises(DiskFullError, match="1,000 are free"):
        write(select(run), tmp_path / "out")
    assert not (tmp_path / "out").exists()


@of_pixels
def test_a_disk_that_others_fill_meanwhile_takes_the_export_back(
    root: Path, small_disk: Path, write: Writer
) -> None:
    run = timelapse(root, embryos=["e1"], timepoints=range(4), shape=(8, 64, 64), channels=["c"])

    def fill(done: int, total: int) -> None:
        with (small_disk / "ballast").open("wb") as file:
            left = os.statvfs(small_disk)
            os.posix_fallocate(file.fileno(), 0, left.f_bavail * left.f_frsize)

    with pytest.raises(DiskFullError, match=r"failed and was taken back: .* 0 bytes are free there"):
        write(select(run), small_disk / "out", progress=fill)
    assert everything_under(small_disk) == ["ballast"]


_EXPORT_AND_WAIT = """
import sys
from gently_bluesky import Catalog
from gently_bluesky.exchange.selection import select
from tests.export_rig import WRITERS
write = next(write for write in WRITERS if write.__name__ == sys.argv[3])
def wait(done, total):
    if done >= total / 2:
        print("half of it is written", flush=True)
        sys.stdin.readline()
write(select(Catalog(sys.argv[1])[-1]), sys.argv[2], progress=wait)
"""


@of_every_format
def test_a_kill_in_the_middle_leaves_nothing_under_a_final_name(
    run: Run, root: Path, tmp_path: Path, write: Writer
) -> None:
    out = tmp_path / "out"
    with Child(_EXPORT_AND_WAIT, root, out, write.__name__) as child:
        assert child.line() == "half of it is written"
        child.kill()
    (left,) = out.iterdir()
    assert left.name.endswith(".partial")
    assert write(select(run), out)  # what is left is in nobody's way
    assert left in out.iterdir()


def test_every_error_of_an_export_is_one_of_ours() -> None:
    assert all(issubclass(error, GentlyError) for error in (ExportError, TargetExistsError, LossyCastError))
    assert issubclass(TargetExistsError, FileExistsError)
