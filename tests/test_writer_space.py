"""The reserve that volumes leave alone, runs that cannot fit, and a word in time, on real small file systems."""

import datetime
import logging
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import bluesky.plan_stubs as bps
import bluesky.plans as bp
import numpy as np
import pytest
from bluesky import Msg
from bluesky.utils import FailedStatus
from ophyd.sim import det

from gently_bluesky import Catalog, FileWriter, replay
from gently_bluesky.errors import DiskFullError, DocumentError, WriterFailedError
from gently_bluesky.read.run import Run
from gently_bluesky.store.disk import free_bytes
from gently_bluesky.write import space
from gently_bluesky.write.space import RESERVE_BYTES, Reserve, RunSpace
from tests.data_rig import (
    Camera,
    connected,
    fill_up,
    hold_pixels,
    hold_together,
    inline,
    journal,
    names,
    newest,
    record,
    run_folder,
    start_doc,
)
from tests.devices_rig import of

pytestmark = pytest.mark.usefixtures("every_format")

MIB = 1 << 20
LARGE = (8, 128, 512)  # 1 MiB


def volumes_in(root: Path) -> list[Path]:
    """Every volume that is there, and whatever was reserved for others."""
    in_stores = [*root.glob("runs/*/*/*/*/*/0/c/*"), *root.glob("runs/*/*/*/*/*/.*")]
    return in_stores or [*root.glob("runs/*/*/*/*/*/*")]


def hold(run: Run) -> None:
    hold_together(list(run.documents()))
    hold_pixels(run)


# --- the reserve --------------------------------------------------------------------------------------------


def test_the_reserve_is_a_hundredth_of_the_disk_and_one_gibibyte_at_most(root: Path, small_disk: Path) -> None:
    with FileWriter(small_disk) as writer:
        assert writer.reserve_bytes == 4 * MIB // 100
    with FileWriter(root) as writer:
        assert writer.reserve_bytes == min(RESERVE_BYTES, shutil.disk_usage(root).total // 100)
    with FileWriter(root, reserve_bytes=7) as writer:
        assert writer.reserve_bytes == 7


def test_a_reserve_below_nothing_is_refused(root: Path) -> None:
    with pytest.raises(ValueError, match="reserve_bytes is -1; it must be 0 or more"):
        FileWriter(root, reserve_bytes=-1)


def test_a_streamed_volume_that_would_take_of_the_reserve_is_refused_before_it_is_there(
    small_disk: Path, every_format: str
) -> None:
    with FileWriter(small_disk, reserve_bytes=MIB) as writer:
        camera, (run_engine, _) = Camera("cam", writer, shape=LARGE), connected(writer)
        with pytest.raises(FailedStatus) as caught:
            run_engine(bp.count([camera], 1000))
        full = caught.value.__cause__
        assert isinstance(full, DiskFullError)
        file = r"(000002\.ome\.tif|cam_image\.ome\.zarr)"
        needs = rf"No room for {file}: it needs 1,\d\d\d,\d\d\d bytes, \d,\d\d\d,\d\d\d are free in .*small"
        does = (
            r"1,048,576 stay reserved for documents\. Free [\d,]+ bytes there, or give the writer another root\."
        )
        assert re.search(f"{needs}.*{does}", str(full))
    assert camera.taken == 2 or every_format == "ome-zarr"  # of a third there is room, but in the reserve
    assert len(volumes_in(small_disk)) == camera.taken
    assert free_bytes(small_disk) > MIB
    run = newest(small_disk)
    assert run.exit_status == "fail"
    hold(run)


@pytest.mark.parametrize("dtype", ["<u2", "<i8"])
def test_an_array_in_an_event_that_would_take_of_the_reserve_is_refused(
    small_disk: Path, dtype: str, every_format: str
) -> None:
    """OME-TIFF has no 64 bits: those go to an .npy file."""
    arrays = (np.full(MIB // np.dtype(dtype).itemsize, i, dtype).reshape(64, -1) for i in range(1000))
    with FileWriter(small_disk, reserve_bytes=MIB) as writer:
        run_engine, _ = connected(writer)
        with pytest.raises(
            WriterFailedError, match=r"No room for (000002\.|img\.ome\.zarr).*1,048,576 stay reserved"
        ):
            run_engine(bp.count([inline("img", *arrays)], 1000))
    there = len(volumes_in(small_disk))
    assert there == 2 or every_format == "ome-zarr"
    assert free_bytes(small_disk) > MIB
    run = newest(small_disk)
    assert (run.exit_status, len(run["primary"])) == ("fail", there)
    hold(run)


def test_what_just_fits_above_the_reserve_is_taken_and_a_byte_more_is_not(small_disk: Path) -> None:
    reserve = Reserve(small_disk, MIB)
    room = free_bytes(small_disk) - MIB
    assert reserve.check(small_disk / "v", room) == 0
    with pytest.raises(DiskFullError, match=r"Free 1 bytes there"):
        reserve.check(small_disk / "v", room + 1)


def test_documents_may_use_the_reserve_and_a_run_on_a_full_disk_gets_its_stop(small_disk: Path) -> None:
    with FileWriter(small_disk, reserve_bytes=MIB) as writer:
        camera, (run_engine, _) = Camera("cam", writer), connected(writer)
        fill_up(small_disk, leaving=MIB)
        run_engine(bp.count([det], 200))  # no pixels: nothing is refused
        with pytest.raises(FailedStatus) as caught:
            run_engine(bp.count([camera]))
    assert isinstance(caught.value.__cause__, DiskFullError)
    scalars, volumes = reversed(list(Catalog(small_disk)))
    assert (scalars.exit_status, len(scalars["primary"])) == ("success", 200)
    assert names(journal(volumes.folder)) == ["start", "stop"]
    assert volumes.exit_status == "fail"
    assert camera.taken == 0
    assert volumes_in(small_disk) == []


def test_a_run_whose_disk_fills_meanwhile_is_closed_in_the_reserve(small_disk: Path) -> None:
    with FileWriter(small_disk, reserve_bytes=MIB) as writer:
        camera, (run_engine, _) = Camera("cam", writer), connected(writer)

        def plan() -> Iterator[Msg]:
            yield from bps.open_run()
            yield from bps.trigger_and_read([camera])
            fill_up(small_disk, leaving=MIB // 2)  # others respect nothing
            yield from bps.trigger_and_read([camera])

        with pytest.raises(FailedStatus):
            run_engine(plan())
    run = newest(small_disk)
    assert (run.exit_status, len(run["primary"])) == ("fail", 1)
    hold(run)


# --- a run that cannot fit ----------------------------------------------------------------------------------


def test_a_run_that_cannot_fit_is_refused_before_there_is_anything_of_it(small_disk: Path) -> None:
    with FileWriter(small_disk, reserve_bytes=MIB) as writer:
        camera, (run_engine, _) = Camera("cam", writer), connected(writer)
        needs = r"No room for run .* \(count\): it expects 5,000,000 bytes, [34],\d\d\d,\d\d\d are free in .*small"
        with pytest.raises(DiskFullError, match=f"{needs}, and 1,048,576 stay reserved .* The run was not begun"):
            run_engine(bp.count([camera]), expected_bytes=5_000_000)
        assert not (small_disk / "runs").exists()
        assert camera.taken == 0
        run_engine(bp.count([camera]), expected_bytes=2_000_000)  # the writer is good
    assert newest(small_disk).exit_status == "success"
    assert len(Catalog(small_disk)) == 1


def test_what_just_fits_begins_and_a_byte_more_does_not(small_disk: Path) -> None:
    reserve = Reserve(small_disk, MIB)
    room = free_bytes(small_disk) - MIB
    reserve.check_run(start_doc(expected_bytes=room))
    with pytest.raises(DiskFullError, match=r"Free 1 bytes there, or give the writer another root, or take less"):
        reserve.check_run(start_doc(expected_bytes=room + 1))


@pytest.mark.parametrize(
    "said",
    [-1, 0.5, True, "many", [10**15], {"bytes": 10**15}, float("nan"), float("inf"), np.float64(1.5)],
    ids=repr,
)
def test_what_is_no_number_of_bytes_is_refused_before_there_is_anything_of_the_run(
    small_disk: Path, said: Any
) -> None:
    with FileWriter(small_disk) as writer:
        camera, (run_engine, _) = Camera("cam", writer), connected(writer)
        with pytest.raises(DocumentError, match=r"Start '.*' has .* as its 'expected_bytes': it must be a whole"):
            run_engine(bp.count([camera]), expected_bytes=said)
        with pytest.raises(DocumentError, match="'expected_bytes'"):
            writer("start", start_doc(expected_bytes=said))
        assert not (small_disk / "runs").exists()
        assert camera.taken == 0
        run_engine(bp.count([camera]))  # the writer is good
    assert len(Catalog(small_disk)) == 1


@pytest.mark.parametrize("said", [0, None, 1e6, np.int64(1000)], ids=repr)
def test_a_whole_number_of_bytes_may_be_spelled_in_any_way_or_not_be_known(small_disk: Path, said: Any) -> None:
    assert record(small_disk, bp.count([det], md={"expected_bytes": said})).exit_status == "success"


def test_on_a_disk_below_its_reserve_a_run_that_expects_nothing_begins_and_one_of_a_byte_does_not(
    small_disk: Path,
) -> None:
    with FileWriter(small_disk, reserve_bytes=3 * MIB) as writer:
        run_engine, _ = connected(writer)
        fill_up(small_disk, leaving=MIB)
        run_engine(bp.count([det]), expected_bytes=0)
        with pytest.raises(DiskFullError):
            run_engine(bp.count([det]), expected_bytes=1)
    assert len(Catalog(small_disk)) == 1


def test_a_run_that_is_replayed_is_not_asked_what_it_once_expected(root: Path, small_disk: Path) -> None:
    run = record(root, bp.count([det], md={"expected_bytes": 10**7}))
    with FileWriter(small_disk) as writer:
        replay(run, writer)
    assert newest(small_disk).start["expected_bytes"] == 10**7


# --- a word in time -----------------------------------------------------------------------------------------


class Day:
    """A clock that is set, and a disk that is as full as it is told."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, folder: Path, caplog: pytest.LogCaptureFixture) -> None:
        self.time = 1_795_433_400.0
        self.free = 10**9
        self.folder = folder
        self._caplog = caplog
        monkeypatch.setattr(space, "free_bytes", lambda path: self.free)

    def run(self, **start: Any) -> RunSpace:
        return RunSpace(Reserve(self.folder, 1000), start_doc(uid="the run", **start), lambda: self.time)

    def take(self, run: RunSpace, nbytes: int, *, every_s: float, times: int = 1) -> None:
        for _ in range(times):
            run.claim(self.folder / "v", nbytes)
            self.free -= nbytes
            self.time += every_s

    def warned(self) -> list[str]:
        """What was said since the last time."""
        said = [record.getMessage() for record in self._caplog.records if record.levelno == logging.WARNING]
        self._caplog.clear()
        return said


@pytest.fixture
def day(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> Day:
    return Day(monkeypatch, tmp_path, caplog)


def test_a_run_of_unknown_size_is_warned_of_the_last_hour(day: Day) -> None:
    run = day.run()
    day.free = 10**6 + 1000
    day.take(run, 2000, every_s=10, times=14)  # 200 bytes a second, 720,000 an hour
    assert day.warned() == []
    day.take(run, 2000, every_s=10, times=150)
    (said,) = day.warned()
    left = 720_000 - 2000
    ends = datetime.datetime.fromtimestamp(day.time - 10 * 24 + left / 200).astimezone()
    assert said.startswith(
        "Run the run: at the present rate of 0.0002 MB/s no volume fits any more from "
        f"{ends.isoformat(' ', 'minutes')} on. 718,000 bytes are free above the reserve in {day.folder}. "
    )
    assert "Free space there until then" in said


def test_a_run_that_will_end_before_the_disk_does_is_not_warned(day: Day) -> None:
    run = day.run(expected_bytes=900_000)
    day.free = 10**6 + 1000
    day.take(run, 2000, every_s=10, times=450)
    assert day.warned() == []


def test_a_run_that_others_leave_no_room_is_warned_hours_before(day: Day) -> None:
    run = day.run(expected_bytes=10**9)
    day.free = 2 * 10**9
    day.take(run, 10**6, every_s=60, times=60)
    assert day.warned() == []
    day.free = 5 * 10**8
    day.take(run, 10**6, every_s=60)
    (said,) = day.warned()
    ends = datetime.datetime.fromtimestamp(day.time - 60 + 498.999 * 60).astimezone()
    assert f"from {ends.isoformat(' ', 'minutes')}" in said
    assert ", before the 1,000,000,000 bytes that it expects are written. 498,999,000 bytes are free" in said


def test_it_is_said_once_an_hour(day: Day) -> None:
    run = day.run(expected_bytes=10**9)
    day.free = 10**8
    day.take(run, 1000, every_s=60, times=60)
    assert len(day.warned()) == 1
    day.take(run, 1000, every_s=60, times=60)
    assert len(day.warned()) == 1
    day.free = 10**10
    day.take(run, 1000, every_s=60, times=90)
    assert day.warned() == []


def test_two_views_that_are_opened_together_are_no_rate(day: Day) -> None:
    run = day.run()
    day.free = 10**7
    day.take(run, 10**6, every_s=0.001, times=2)
    day.take(run, 1, every_s=59.0)
    assert day.warned() == []


def test_the_present_rate_forgets_a_burst(day: Day) -> None:
    run = day.run()
    day.take(run, 10**5, every_s=1, times=100)  # 0.1 MB/s
    day.warned()
    day.free = 10**7
    day.take(run, 100, every_s=300, times=12)
    day.warned()
    day.take(run, 100, every_s=300, times=12)
    assert day.warned() == []


def test_a_run_that_takes_more_than_it_said_is_warned_as_if_it_had_said_nothing(day: Day) -> None:
    run = day.run(expected_bytes=1000)
    day.free = 200_000
    day.take(run, 5000, every_s=60, times=10)
    assert len(day.warned()) == 1


def test_a_writer_warns_in_the_middle_of_a_run(
    small_disk: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    time = [0.0]

    def pass_half_a_minute(volume: Any) -> None:
        time[0] += 30

    with FileWriter(small_disk, now=lambda: time[0]) as writer:
        camera, (run_engine, documents) = Camera("cam", writer, shape=(4, 128, 128)), connected(writer)
        camera.before_seal = pass_half_a_minute
        run_engine(bp.count([camera], 6))
    (uid,) = [start["uid"] for start in of(documents, "start")]
    said = [record.getMessage() for record in caplog.records if record.name == "gently_bluesky.write.space"]
    assert len(said) == 1
    assert said[0].startswith(f"Run {uid}: at the present rate of 0.00")
    assert run_folder(small_disk).exists()
