import errno
import os
import sys
from collections.abc import Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from pathlib import Path

import pytest

from gently_bluesky.errors import DiskFullError
from gently_bluesky.store import disk
from gently_bluesky.store.disk import PAGE, WRITE_BEHIND_BYTES, AppendFile, BlockFile, naming_a_full_disk


@pytest.fixture
def pool() -> Iterator[Executor]:
    with ThreadPoolExecutor(1) as pool:
        yield pool


def open_files() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def test_a_file_has_its_size_and_its_space_from_the_start(tmp_path: Path) -> None:
    with BlockFile(tmp_path / "f", 3 * PAGE):
        status = (tmp_path / "f").stat()
        assert status.st_size == 3 * PAGE
        assert status.st_blocks * 512 >= 3 * PAGE
    assert (tmp_path / "f").read_bytes() == bytes(3 * PAGE)


def test_what_is_written_at_a_place_is_there_and_nowhere_else(tmp_path: Path) -> None:
    with BlockFile(tmp_path / "f", 10) as file:
        file.write(4, b"abc")
        file.write(0, memoryview(b"xy"))
    assert (tmp_path / "f").read_bytes() == b"xy\0\0abc\0\0\0"


@pytest.mark.parametrize(("offset", "size"), [(8, 3), (-1, 1), (11, 0)])
def test_nothing_is_written_outside_the_reserved_space(tmp_path: Path, offset: int, size: int) -> None:
    with BlockFile(tmp_path / "f", 10) as file, pytest.raises(ValueError, match="lie outside the 10 reserved"):
        file.write(offset, b"x" * size)
    assert (tmp_path / "f").read_bytes() == bytes(10)


def test_a_write_that_the_system_does_in_pieces_is_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pwrite = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda fd, data, offset: pwrite(fd, data[: max(1, len(data) // 2)], offset))
    with BlockFile(tmp_path / "f", 100) as file:
        file.write(10, bytes(range(90)))
    assert (tmp_path / "f").read_bytes() == bytes(10) + bytes(range(90))


def test_an_existing_file_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"precious")
    with pytest.raises(FileExistsError):
        BlockFile(tmp_path / "f", 10)
    assert (tmp_path / "f").read_bytes() == b"precious"


def test_a_closed_file_can_be_opened_again_for_what_became_known_later(tmp_path: Path) -> None:
    file = BlockFile(tmp_path / "f", 4)
    file.close()
    file.close()
    file.reopen()
    file.reopen()
    file.write(0, b"late")
    file.sync()
    before = open_files()
    file.close()
    assert open_files() == before - 1
    assert (tmp_path / "f").read_bytes() == b"late"


def test_behind_the_writer_every_byte_is_pushed_to_the_disk_once(
    tmp_path: Path, pool: Executor, monkeypatch: pytest.MonkeyPatch
) -> None:
    pushed: list[tuple[int, int]] = []
    monkeypatch.setattr(disk, "_push", lambda descriptor, offset, size: pushed.append((offset, size)))
    step, file = WRITE_BEHIND_BYTES // 4, BlockFile(tmp_path / "f", PAGE)
    for i in range(8):
        file.push_behind(i * step, step, pool)
    file.push_behind(0, 4 * step, pool)
    file.sync()
    file.close()
    assert pushed == [(0, 4 * step), (4 * step, 4 * step), (0, 4 * step)]


def test_an_error_behind_the_writer_surfaces_at_the_sync(
    tmp_path: Path, pool: Executor, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(disk, "_push", fail)
    with BlockFile(tmp_path / "f", PAGE) as file:
        file.push_behind(0, WRITE_BEHIND_BYTES, pool)
        with pytest.raises(OSError, match="Input/output error"):
            file.sync()


def test_pushing_a_real_range_harms_no_byte(tmp_path: Path, pool: Executor) -> None:
    with BlockFile(tmp_path / "f", WRITE_BEHIND_BYTES) as file:
        file.write(5, b"here")
        file.push_behind(0, WRITE_BEHIND_BYTES, pool)
        file.sync()
    disk.forget_pages(tmp_path / "f")
    with (tmp_path / "f").open("rb") as content:
        assert content.read(10) == b"\0\0\0\0\0here\0"


def test_a_full_disk_is_an_error_before_anything_is_written(small_disk: Path) -> None:
    before = open_files()
    with pytest.raises(
        DiskFullError, match=r"No room for v\.tif: 5,242,880 bytes are needed in .*small"
    ) as caught:
        BlockFile(small_disk / "v.tif", 5 << 20)
    assert caught.value.errno == errno.ENOSPC
    assert list(small_disk.iterdir()) == []
    assert open_files() == before


def test_a_line_for_which_there_is_no_room_leaves_the_lines_before_it(small_disk: Path) -> None:
    file = AppendFile(small_disk / "journal.jsonl")
    file.append(b"first\n")
    with pytest.raises(DiskFullError, match=r"No room for journal\.jsonl"):
        file.append(b"x" * (5 << 20) + b"\n")
    file.append(b"second\n")
    file.close()
    assert (small_disk / "journal.jsonl").read_bytes() == b"first\nsecond\n"


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_no_space_and_no_quota_are_both_a_full_disk(tmp_path: Path, code: int) -> None:
    with pytest.raises(DiskFullError, match=r"No room for f: 1,000 bytes .* bytes are free") as caught:  # noqa: SIM117
        with naming_a_full_disk(tmp_path / "f", 1000):
            raise OSError(code, os.strerror(code))
    assert isinstance(caught.value.__cause__, OSError)


def test_other_errors_stay_what_they_are(tmp_path: Path) -> None:
    with pytest.raises(PermissionError), naming_a_full_disk(tmp_path / "f", 1):
        raise PermissionError(errno.EACCES, "no")


def test_a_full_disk_whose_free_space_cannot_be_asked_is_still_a_full_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unknown(path: Path) -> int:
        raise PermissionError(errno.EACCES, "no")

    monkeypatch.setattr("gently_bluesky.store.disk.free_bytes", unknown)
    with pytest.raises(DiskFullError, match="and how many are free there is not known"):  # noqa: SIM117
        with naming_a_full_disk(tmp_path / "nowhere" / "f", 1):
            raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.skipif(sys.platform != "linux", reason="other systems sync by another call")
def test_a_sync_that_finds_no_room_says_where(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    (tmp_path / "f").touch()
    lines = AppendFile(tmp_path / "lines")
    with BlockFile(tmp_path / "v", 10) as file:
        monkeypatch.setattr(os, "fdatasync", full)
        monkeypatch.setattr(os, "fsync", full)
        for sync, name in (
            (file.sync, "v"),
            (lambda: disk.sync_file(tmp_path / "f"), "f"),
            (lambda: disk.sync_folder(tmp_path), tmp_path.name),
        ):
            with pytest.raises(DiskFullError, match=f"No room for {name}: it is to be in .* bytes are free there"):
                sync()
        with pytest.raises(OSError, match=r"No space left on device.*lines") as caught:
            lines.sync()
        assert not isinstance(caught.value, DiskFullError), "the lines are there: they must not be appended again"
    lines.close()


@pytest.mark.skipif(sys.platform == "win32", reason="Windows makes names durable by itself")
def test_folders_and_files_can_be_synced(tmp_path: Path) -> None:
    (tmp_path / "f").touch()
    before = open_files()
    disk.sync_folder(tmp_path)
    disk.sync_file(tmp_path / "f")
    assert open_files() == before


# --- whole files --------------------------------------------------------------------------------------------


def test_a_file_has_its_name_when_it_is_whole_and_on_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a power cut may leave the name without the bytes: of a file that replaces another, nothing."""
    steps: list[tuple[str, bool]] = []
    sync = disk.sync_data

    def watched(descriptor: int) -> None:
        steps.append((os.pread(descriptor, 100, 0).decode(), (tmp_path / "f").exists()))
        sync(descriptor)

    monkeypatch.setattr(disk, "sync_data", watched)
    disk.create_file(tmp_path / "f", [b"on", b"e"], tmp_path / "beside")
    disk.replace_file(tmp_path / "f", b"two", tmp_path / "beside")
    assert steps == [("one", False), ("two", True)]
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("f", b"two")]
    with pytest.raises(FileExistsError):
        disk.create_file(tmp_path / "f", [b"three"], tmp_path / "beside")
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("f", b"two")]


def test_a_file_that_cannot_be_replaced_is_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    disk.replace_file(tmp_path / "f", b"one", tmp_path / "beside")
    monkeypatch.setattr(disk, "sync_data", full)
    with pytest.raises(DiskFullError, match="No room for f: 3 bytes are needed"):
        disk.replace_file(tmp_path / "f", b"two", tmp_path / "beside")
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("f", b"one")]
