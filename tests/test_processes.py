"""Several processes with one root: locks, kills at any instant, readers of a run that is going on."""

import json
import os
import random
import signal
import time
from pathlib import Path
from typing import Any

import bluesky.plans as bp
import numpy as np
import pytest
import tifffile
import yaozarrs

from gently_bluesky import Catalog, FileWriter
from gently_bluesky.errors import RunExistsError, RunLockedError
from gently_bluesky.store.ome_tiff import examine
from gently_bluesky.write.run_folder import is_locked
from tests.data_rig import (
    DEADLINE_S,
    Camera,
    Child,
    connected,
    hold_together,
    in_child,
    journal,
    manifest,
    newest,
    of,
    pixel_hash,
    run_folder,
    start_doc,
    volume,
    volumes_in,
)

BOTH = pytest.mark.usefixtures("every_format")

WRITES = """
import sys
from gently_bluesky import FileWriter
from tests.data_rig import Camera, connected
import bluesky.plans as bp, bluesky.plan_stubs as bps, bluesky.preprocessors as bpp

def plan(camera, count, wait=False):
    for i in range(count):
        yield from bps.trigger_and_read([camera])
        print(i, flush=True)
        if wait:
            sys.stdin.readline()
"""

TIMELAPSE = (
    WRITES
    + """
writer = FileWriter(sys.argv[1])
run_engine, _ = connected(writer)
camera = Camera("cam", writer, shape=(16, 64, 128), embryo="e1")
run_engine(bpp.run_wrapper(plan(camera, 10**6)))
"""
)

STEP_BY_STEP = (
    WRITES
    + """
writer = FileWriter(sys.argv[1])
run_engine, _ = connected(writer)
run_engine(bpp.run_wrapper(plan(Camera("cam", writer), int(sys.argv[2]), wait=True)))
writer.close()
"""
)

EVERYTHING = """
import json, sys
import numpy as np
from gently_bluesky import Catalog
from tests.data_rig import pixel_hash
run = Catalog(sys.argv[1])[-1]
stream = run["primary"]
images = stream["cam_image"]
hashes = [pixel_hash(images.volume(i)) for i in range(len(stream))]
answer = {"open": run.is_open, "numbers": stream["cam_number"].tolist(), "hashes": hashes, "shape": images.shape}
print(json.dumps(answer))
"""


def read_elsewhere(root: Path) -> dict[str, Any]:
    """What a fresh process reads of the newest run."""
    answer: dict[str, Any] = json.loads(in_child(EVERYTHING, root))
    return answer


# --- locks --------------------------------------------------------------------------------------------------

HOLDS = """
import sys
from gently_bluesky import FileWriter
from tests.data_rig import start_doc
writer = FileWriter(sys.argv[1])
writer("start", start_doc(uid="the-run-itself"))
writer.flush()
print("open", flush=True)
sys.stdin.readline()
writer("stop", {"uid": "s", "time": 1.0, "run_start": "the-run-itself", "exit_status": "success"})
writer.close()
"""


def test_a_run_that_another_process_writes_is_locked_until_its_stop(root: Path) -> None:
    with Child(HOLDS, root) as other, FileWriter(root) as writer:
        assert other.line() == "open"
        assert is_locked(run_folder(root))
        said = r"Run the-run-itself is being written by another process, in .*by_hand"
        with pytest.raises(RunLockedError, match=said):
            writer("start", start_doc(uid="the-run-itself"))
        writer("start", start_doc(uid="the-run-beside"))  # of the same folder name
        writer("stop", {"uid": "t", "time": 1.0, "run_start": "the-run-beside", "exit_status": "success"})
        assert Catalog(root)["the-run-itself"].is_open
        other.tell()
        other.end()
        assert not is_locked(Catalog(root)["the-run-itself"].folder)
        with pytest.raises(RunExistsError):
            writer("start", start_doc(uid="the-run-itself"))
    assert Catalog(root)["the-run-itself"].exit_status == "success"
    assert len(Catalog(root)) == 2


def test_the_lock_dies_with_its_process_and_the_run_is_refused_a_second_time(root: Path) -> None:
    with Child(HOLDS, root) as other:
        assert other.line() == "open"
        other.kill()
    before = (run_folder(root) / "journal.jsonl").read_bytes()
    assert not is_locked(run_folder(root))
    with FileWriter(root) as writer, pytest.raises(RunExistsError):
        writer("start", start_doc(uid="the-run-itself"))
    assert (run_folder(root) / "journal.jsonl").read_bytes().startswith(before)
    assert Catalog(root)[-1].exit_status == "abort"


def test_two_writers_of_one_process_do_not_write_one_run(root: Path) -> None:
    with FileWriter(root) as one, FileWriter(root) as two:
        one("start", start_doc(uid="run"))
        one.flush()
        with pytest.raises(RunLockedError):
            two("start", start_doc(uid="run"))
        one("stop", {"uid": "s", "time": 1.0, "run_start": "run", "exit_status": "success"})


def test_a_lock_is_held_while_the_run_is_open_and_no_longer(root: Path) -> None:
    with FileWriter(root) as writer:
        writer("start", start_doc(uid="run"))
        assert is_locked(run_folder(root))
        writer("stop", {"uid": "s", "time": 1.0, "run_start": "run", "exit_status": "success"})
        assert not is_locked(run_folder(root))


@BOTH
def test_processes_add_runs_to_one_root_at_once(root: Path) -> None:
    code = WRITES + (
        "writer = FileWriter(sys.argv[1]); run_engine, _ = connected(writer)\n"
        "camera = Camera('cam', writer)\n"
        "for _ in range(5): run_engine(bp.count([camera]))\n"
        "writer.close()"
    )
    with Child(code, root) as one, Child(code, root) as two:
        one.end()
        two.end()
    catalog = Catalog(root)
    assert len(catalog) == 10
    numbers = sorted(int(run["primary"]["cam_number"][0]) for run in catalog)
    assert numbers == sorted([*range(5), *range(5)])
    for run in catalog:
        number = int(run["primary"]["cam_number"][0])
        np.testing.assert_array_equal(run["primary"]["cam_image"].volume(0), volume(number))
    assert len((root / "index" / "runs.jsonl").read_bytes().splitlines()) == 10


# --- kills --------------------------------------------------------------------------------------------------


@BOTH
@pytest.mark.parametrize("events", [1, 2, 7])
def test_after_a_kill_in_a_timelapse_a_fresh_process_reads_every_journalled_event(root: Path, events: int) -> None:
    with Child(TIMELAPSE, root) as acquiring:
        acquiring.line()
        deadline = time.monotonic() + DEADLINE_S
        while len(of(list(newest(root).documents()), "event")) < events:
            assert time.monotonic() < deadline
        acquiring.kill()
    run = newest(root)
    seen = of(list(run.documents()), "event")
    assert len(seen) >= events
    answer = read_elsewhere(root)
    shape = (16, 64, 128)
    assert answer["open"]
    assert answer["numbers"] == list(range(len(seen)))
    assert answer["hashes"] == [pixel_hash(volume(i, shape)) for i in range(len(seen))]
    hold_together(list(run.documents()))
    there = list(volumes_in(run.folder))
    assert len(there) >= len(seen)
    for i, (found, left) in enumerate(there):
        frames = np.flatnonzero(np.array(found.times))
        np.testing.assert_array_equal(left[frames], volume(i, shape)[frames])


KILLED_INSIDE = (
    WRITES
    + """
import os, signal
root, function, after, image_format = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4]
writer = FileWriter(root, image_format=image_format)
run_engine, _ = connected(writer)
camera = Camera("cam", writer)
real, calls = getattr(os, function), 0

def last(descriptor, data, *rest):
    global calls
    path = os.readlink(f"/proc/self/fd/{descriptor}")
    if root not in path:
        return real(descriptor, data, *rest)
    calls += 1
    if calls == after:
        half = data if function == "fdatasync" else bytes(data)[: max(1, len(data) // 2)]
        real(descriptor, half, *rest)
        os.kill(os.getpid(), signal.SIGKILL)
    return real(descriptor, data, *rest)

setattr(os, function, last)
run_engine(bpp.run_wrapper(plan(camera, 10**6)))
"""
)


@pytest.mark.parametrize("after", random.Random(20261123).sample(range(2, 24), 3))
@pytest.mark.parametrize(
    ("image_format", "function"), [("ome-tiff", "pwrite"), ("ome-tiff", "write"), ("ome-zarr", "write")]
)
def test_a_kill_in_the_middle_of_any_write_leaves_every_journalled_event_whole(
    root: Path, function: str, after: int, image_format: str
) -> None:
    with Child(KILLED_INSIDE, root, function, after, image_format) as acquiring:
        acquiring.process.communicate()
        assert acquiring.process.returncode == -signal.SIGKILL
    catalog = Catalog(root)
    (run,) = catalog
    documents = list(run.documents())
    hold_together(documents)
    for i in range(len(of(documents, "event"))):
        np.testing.assert_array_equal(run["primary"]["cam_image"].volume(i), volume(i))
    for path in run.folder.glob("cam_image/*"):
        whole = path.read_bytes()[:2] == b"II"  # else killed before its first write was done
        assert not whole or tifffile.memmap(path, mode="r").shape == (4, 8, 16)
    for path in run.folder.glob("*.ome.zarr/zarr.json"):
        yaozarrs.validate_zarr_store(path.parent)
    with FileWriter(root) as writer:
        run_engine, _ = connected(writer)
        run_engine(bp.count([Camera("cam", writer)]))
    assert [run.exit_status for run in Catalog(root)] == ["success", "abort"]


def test_a_run_whose_start_was_torn_is_no_run_yet_and_harms_no_other(root: Path) -> None:
    with Child(KILLED_INSIDE, root, "write", 1, "ome-tiff") as acquiring:
        acquiring.process.communicate()
    torn = next(root.glob("runs/*/*/*/*"))
    content = (torn / "journal.jsonl").read_bytes()
    assert content.startswith(b'{"name":"start"')
    assert not content.endswith(b"\n")
    assert len(Catalog(root)) == 0
    with FileWriter(root) as writer:
        writer("start", start_doc())
        writer.flush()
        writer("stop", {"uid": "s", "time": 1.0, "run_start": Catalog(root)[-1].uid, "exit_status": "success"})
    assert len(Catalog(root)) == 1


# --- readers beside a writer --------------------------------------------------------------------------------


@BOTH
def test_planes_of_a_running_run_are_read_from_another_process(root: Path) -> None:
    with Child(STEP_BY_STEP, root, 4) as acquiring:
        assert acquiring.line() == "0"
        deadline = time.monotonic() + DEADLINE_S
        while not Catalog(root) or "primary" not in (run := newest(root)) or not len(run["primary"]):
            assert time.monotonic() < deadline
        for number in range(4):
            while len(run.refresh()["primary"]) <= number:
                assert time.monotonic() < deadline
            assert run.is_open
            assert len(run["primary"]) == number + 1
            images = run["primary"]["cam_image"]
            np.testing.assert_array_equal(images[number, 2], volume(number)[2])
            np.testing.assert_array_equal(images[:, 1], np.stack([volume(i)[1] for i in range(number + 1)]))
            acquiring.tell()
            if number < 3:
                assert acquiring.line() == str(number + 1)
        acquiring.end()
    assert run.is_open  # a snapshot
    assert not run.refresh().is_open
    assert run.exit_status == "success"


def test_frames_of_the_volume_that_is_being_acquired_are_seen_by_other_processes(root: Path) -> None:
    code = """
import sys
from gently_bluesky import FileWriter
from tests.data_rig import frame, start_doc
writer = FileWriter(sys.argv[1])
writer("start", start_doc())
volume = writer.open_resource("cam", shape=(4, 8, 16), dtype="<u2").new_volume()
for z in range(4):
    volume.write(z, frame(0, z), time=100.0 + z)
    print(z, flush=True)
    sys.stdin.readline()
writer.close()
"""
    with Child(code, root) as acquiring:
        for z in range(4):
            assert acquiring.line() == str(z)
            path = run_folder(root) / "cam" / "000000.ome.tif"
            seen = tifffile.memmap(path, mode="r")
            np.testing.assert_array_equal(seen[: z + 1], volume(0)[: z + 1])
            assert np.count_nonzero(np.array(examine(path).times)) == z + 1
            acquiring.tell()
        acquiring.end()


@BOTH
def test_results_are_equal_from_any_process(root: Path) -> None:
    with Child(STEP_BY_STEP, root, 2) as acquiring:
        for _ in range(2):
            acquiring.line()
            acquiring.tell()
        acquiring.end()
    hashes = [pixel_hash(volume(i)) for i in range(2)]
    expected = {"open": False, "numbers": [0, 1], "hashes": hashes, "shape": [2, 4, 8, 16]}
    assert read_elsewhere(root) == expected
    assert [entry["xxh3_128"] for entry in manifest(run_folder(root))] == hashes


@BOTH
def test_a_process_that_ends_without_closing_its_writer_loses_nothing(root: Path) -> None:
    code = """
import sys
import numpy as np
from gently_bluesky import FileWriter
from tests.data_rig import start_doc
from tests.test_writer import image_run
writer = FileWriter(sys.argv[1])
for name, document in image_run(2, 40 << 20)[:-1]:
    writer(name, document)
"""
    in_child(code, root)
    run = newest(root)
    assert run.is_open
    assert len(run["primary"]) == 2
    assert [int(run["primary"]["img"][i, -1]) for i in range(2)] == [0, 1]


# --- what reading costs -------------------------------------------------------------------------------------

AUDITED = """
import json, os, sys
opened, imported = [], []

def watch(event, arguments):
    if event == "open" and isinstance(arguments[0], (str, bytes, os.PathLike)):
        opened.append(os.fsdecode(arguments[0]))
    elif event == "import":
        imported.append(arguments[0])

sys.addaudithook(watch)
from gently_bluesky import Catalog
catalog = Catalog(sys.argv[1])
plane = catalog[sys.argv[2]]["primary"]["cam_image"][1, 2]
inside = [path for path in opened if path.startswith(sys.argv[1])]
print(json.dumps({"opened": inside, "imported": imported, "plane": plane.tolist()}))
"""


def test_reading_one_plane_opens_no_other_run_and_parses_no_tiff(root: Path, every_format: str) -> None:
    with FileWriter(root) as writer:
        run_engine, documents = connected(writer)
        camera = Camera("cam", writer)
        for _ in range(3):
            run_engine(bp.count([camera], 2))
    run = Catalog(root)[of(documents, "start")[1]["uid"]]
    answer = json.loads(in_child(AUDITED, root, run.uid[:13]))
    assert answer["plane"] == volume(3)[2].tolist()
    opened = {os.path.relpath(path, root) for path in answer["opened"]}
    folder = run.folder.relative_to(root).as_posix()
    files = ["cam_image/000001.ome.tif"]
    if every_format == "ome-zarr":
        files = ["cam_image.ome.zarr/0/zarr.json", "cam_image.ome.zarr/0/c/1/0/0/0"]
    assert opened == {
        "gently.json",
        "index/runs.jsonl",
        f"{folder}/journal.jsonl",
        f"{folder}/manifest.jsonl",
        *(f"{folder}/{file}" for file in files),
    }
    for heavy in ("tifffile", "xarray", "dask", "bluesky", "ophyd", "zarr", "h5py"):
        assert heavy not in answer["imported"], heavy


@BOTH
def test_a_catalog_takes_no_lock_and_changes_nothing(root: Path) -> None:
    with FileWriter(root) as writer:
        run_engine, _ = connected(writer)
        run_engine(bp.count([Camera("cam", writer, embryo="e", timepoint=0)]))

    def state() -> dict[str, tuple[int, int]]:
        return {str(path): (path.stat().st_mtime_ns, path.stat().st_size) for path in sorted(root.rglob("*"))}

    before = state()
    in_child(EVERYTHING, root)
    assert Catalog(root).volumes(embryo="e")
    assert Catalog(root).sessions() == []
    assert state() == before


def test_documents_of_a_run_are_the_same_in_the_journal_and_in_another_process(root: Path) -> None:
    with FileWriter(root) as writer:
        run_engine, _ = connected(writer)
        run_engine(bp.count([Camera("cam", writer)], 2))
    code = "documents = list(Catalog(sys.argv[1])[-1].documents()); print(json.dumps(documents))"
    told = json.loads(in_child(f"import json, sys; from gently_bluesky import Catalog; {code}", root))
    assert [(name, doc) for name, doc in told] == journal(run_folder(root))
