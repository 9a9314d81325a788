import json
import platform
import shutil
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import bluesky.plans as bp
import numpy as np
import pytest

from gently_bluesky import Catalog, FileWriter, replay
from gently_bluesky.errors import BadVolumeError, FrameMissingError, RootError
from gently_bluesky.keep.discard import discard
from gently_bluesky.protocols import VolumeMetadata
from gently_bluesky.read.beside import LeftBeside
from gently_bluesky.read.run import Run
from gently_bluesky.store.audit import read_audit
from gently_bluesky.store.formats import examine
from gently_bluesky.store.journal import encode_line
from gently_bluesky.store.manifest import read_manifest
from gently_bluesky.write.recovery import LeftAlone, Recovery, Salvage, recover
from tests.conftest import OF_TIFF
from tests.data_rig import (
    SHAPE,
    Camera,
    described,
    frame,
    hold_together,
    journal,
    manifest,
    path_of,
    pixel_hash,
    record,
    run_folder,
    volume,
    volumes_in,
)

pytestmark = pytest.mark.usefixtures("every_format", "a_shard_a_frame")

STREAM = {"dtype": "array", "shape": list(SHAPE), "dtype_numpy": "<u2", "external": "STREAM:", "source": "test"}


def interrupted(
    root: Path,
    *,
    events: int = 2,
    frames: int = 3,
    keys: tuple[str, ...] = ("cam",),
    start: Mapping[str, Any] = {"embryo": "e1"},
    shown: Sequence[Mapping[str, Any]] = ({}, {}),
) -> Path:
    """A run whose writer ended after some events, in the middle of a volume of each key."""
    with FileWriter(root) as writer:
        writer("start", {"uid": "run", "time": 1_795_433_400.0, "scan_id": 1, "plan_name": "p", **start})
        metadata = VolumeMetadata(channel="488")
        resources = [writer.open_resource(key, shape=SHAPE, dtype="<u2", metadata=metadata) for key in keys]
        descriptor = {"uid": "d", "run_start": "run", "time": 1_795_433_401.0, "name": "primary"}
        scalars = {"x": X, **{key: described(value) for key, value in shown[0].items()}}
        writer("descriptor", {**descriptor, "data_keys": {**dict.fromkeys(keys, STREAM), **scalars}})
        for number in range(events):
            for resource in resources:
                new = resource.new_volume()
                for z in range(SHAPE[0]):
                    new.write(z, frame(number, z), time=1_795_433_402.0 + number)
                new.seal()
                for name, doc in resource.asset_docs():
                    if name == "stream_datum":
                        doc |= {"descriptor": "d", "seq_nums": {"start": number + 1, "stop": number + 2}}
                    writer(name, doc)
            writer("event", event(number + 1, **shown[number]))
        for resource in resources:
            new = resource.new_volume()
            for z in range(frames):
                new.write(z, frame(events, z), time=1_795_433_410.0)
        writer.flush()
    return run_folder(root)


X = {"source": "test", "dtype": "number", "shape": []}


def event(seq_num: int, **shown: Any) -> dict[str, Any]:
    head = {"uid": f"event {seq_num}", "descriptor": "d", "seq_num": seq_num, "time": 1_795_433_402.0 + seq_num}
    data = {"x": seq_num, **shown}
    return {**head, "data": data, "timestamps": dict.fromkeys(data, 1.0), "filled": {}}


def the_recovery(root: Path, salvage: Salvage = "beside") -> Recovery:
    (done,) = recover(root, salvage=salvage)
    assert isinstance(done, Recovery)
    return done


def everything(root: Path) -> dict[str, bytes]:
    return {
        path.relative_to(root).as_posix(): path.read_bytes()
        for path in sorted(root.rglob("*"))
        if path.is_file() and not path.name.endswith(".lock")
    }


def the_run(root: Path) -> Run:
    return Catalog(root)["run"]


def hold_events(run: Run, count: int) -> None:
    assert run["primary"]["x"][:count].tolist() == list(range(1, count + 1))
    for number in range(count):
        np.testing.assert_array_equal(run["primary"]["cam"].volume(number), volume(number))


def test_a_run_whose_writer_is_gone_is_closed_and_says_what_happened(root: Path, every_format: str) -> None:
    interrupted(root)
    done = the_recovery(root)
    assert (done.uid, done.events, done.torn_bytes, done.salvaged) == ("run", 2, 0, 0)
    unfinished = path_of("cam", 2, every_format)
    assert done.unfinished == ((unfinished, 3, 4),)
    run = the_run(root)
    hold_events(run, 2)
    hold_together(list(run.documents()))
    assert run.stop is not None
    assert run.exit_status == "abort"
    assert run.stop["reason"].startswith("interrupted")
    assert run.stop["time"] == 1_795_433_410.0, "the last frame that came"
    assert run.stop["num_events"] == {"primary": 2}
    assert run.stop["recovered"]["unfinished"] == [[unfinished, 3, 4]]
    assert f"{unfinished} holds 3 of 4 frames" in str(done)


def test_recovering_twice_changes_nothing(root: Path) -> None:
    interrupted(root)
    recover(root)
    before = everything(root)
    assert recover(root) == []
    assert everything(root) == before


def test_frames_of_an_unfinished_volume_are_beside_and_in_the_manifest(root: Path) -> None:
    folder = interrupted(root)
    recover(root)
    entry = manifest(folder)[-1]
    assert (entry["state"], entry["details"]["frames"], entry["index"]) == ("aborted", 3, 2)
    left = np.concatenate([volume(2)[:3], np.zeros((1, *SHAPE[1:]), "<u2")])
    assert entry["xxh3_128"] == pixel_hash(left)
    assert len(the_run(root)["primary"]) == 2


@pytest.mark.parametrize("frames", [1, 3, 4])
def test_frames_of_an_unfinished_volume_become_an_event_that_is_not_good_where_the_user_wants_it(
    root: Path, frames: int
) -> None:
    interrupted(root, frames=frames, keys=("cam", "other"))
    assert the_recovery(root, "event").salvaged == 1
    run = the_run(root)
    hold_events(run, 2)
    hold_together(list(run.documents()))
    stream = run["primary"]
    assert len(stream) == 3
    assert stream["good"].tolist() == [None, None, False]
    assert stream["cam_frames"].tolist()[-1] == stream["other_frames"].tolist()[-1] == frames
    with pytest.raises(ValueError, match="not good"):
        stream["cam"].volume(2)
    assert [row.good for row in Catalog(root).volumes(embryo="e1", include_bad=True)].count(False) == 2
    assert len(Catalog(root).volumes(embryo="e1")) == 4


@OF_TIFF
def test_what_no_event_names_is_left_beside_with_the_frames_that_came(root: Path) -> None:
    folder = interrupted(root, keys=("cam", "other"))
    assert the_run(root).left_beside == ()
    recover(root)
    why = "the run was interrupted before a document named it"
    assert the_run(root).left_beside == tuple(
        LeftBeside(key, 2, folder / key / "000002.ome.tif", 3, 4, why) for key in ("cam", "other")
    )
    discard(root, -1)
    assert the_run(root).left_beside == ()


E1, E2 = {"embryo": "e1", "timepoint": 3}, {"embryo": "e2", "timepoint": 3}


@pytest.mark.parametrize(
    ("start", "shown", "known"),
    [
        ({"embryo": "e9"}, [{}, {}], {"embryo": "e9"}),
        ({"embryo": "e1"}, [E1, E1], {"embryo": "e1"}),
        ({"embryo": "e1"}, [E1, E2], {}),
        ({}, [E1, E1], {}),
        ({"embryo": "e1", "timepoint": 3}, [E1, E1], {"embryo": "e1", "timepoint": 3}),
        ({"embryo": None, "position": [1, 2]}, [{}, {}], {}),
    ],
    ids=str,
)
def test_a_salvaged_event_says_what_its_run_and_its_volume_say_and_nothing_else(
    root: Path, start: dict[str, Any], shown: list[dict[str, Any]], known: dict[str, Any]
) -> None:
    """An embryo of which other events speak may not be the one that was being taken."""
    interrupted(root, start=start, shown=shown)
    recover(root, salvage="event")
    run = the_run(root)
    hold_together(list(run.documents()))
    assert run["primary"].rows[-1].data == {"good": False, "cam_frames": 3, "channel": "488", **known}


def test_a_volume_that_was_whole_and_named_by_no_document_is_told_of(root: Path, every_format: str) -> None:
    with FileWriter(root) as writer:
        writer("start", {"uid": "run", "time": 1_795_433_400.0})
        new = writer.open_resource("cam", shape=SHAPE, dtype="<u2").new_volume()
        for z in range(SHAPE[0]):
            new.write(z, frame(0, z))
        new.seal()
        writer.flush()
    assert the_recovery(root).unfinished == ((path_of("cam", 0, every_format), 4, 4),)
    assert [entry["state"] for entry in manifest(run_folder(root))] == ["sealed"]


@OF_TIFF
@pytest.mark.parametrize("known", [True, False])
def test_a_file_that_does_not_say_where_it_belongs_is_entered_all_the_same(root: Path, known: bool) -> None:
    with FileWriter(root) as writer:
        writer("start", {"uid": "run", "time": 1_795_433_400.0})
        resource = writer.open_resource("long", shape=SHAPE, dtype="<i8")  # .npy: it knows nothing of runs
        if known:
            first = resource.new_volume()
            for z in range(SHAPE[0]):
                first.write(z, frame(0, z, dtype="<i8"))
            first.seal()
            writer("stream_resource", resource.stream_resource())
        resource.new_volume().write(0, frame(1, 0, dtype="<i8"))
        writer.flush()
    recover(root)
    entry = list(read_manifest(run_folder(root)).values())[-1]
    assert (entry.state, entry.index, entry.data_key) == ("aborted", int(known), "long")
    assert entry.resource == (resource.uid if known else "")


@pytest.mark.parametrize("kept", [0, 1, 100])
def test_a_torn_last_line_is_cut_off(root: Path, kept: int) -> None:
    folder = interrupted(root)
    before = journal(folder)
    torn = encode_line({"name": "event", "doc": event(3)})[: kept + 1]
    with (folder / "journal.jsonl").open("ab") as file:
        file.write(torn)
    assert the_recovery(root).torn_bytes == len(torn)
    assert journal(folder)[:-1] == before


def test_a_manifest_with_a_torn_line_is_mended(root: Path) -> None:
    folder = interrupted(root)
    lines = (folder / "manifest.jsonl").read_bytes()
    (folder / "manifest.jsonl").write_bytes(lines + lines[:40])
    recover(root)
    assert [entry["state"] for entry in manifest(folder)] == ["sealed", "sealed", "aborted"]
    hold_events(the_run(root), 2)


def test_a_kill_between_manifest_and_journal_of_a_recovery_loses_nothing(root: Path) -> None:
    folder = interrupted(root)
    before = (folder / "journal.jsonl").read_bytes()
    recover(root, salvage="event")
    (folder / "journal.jsonl").write_bytes(before)
    (root / "index" / "runs.jsonl").unlink()
    assert the_recovery(root, "event").salvaged == 1
    assert [row.uid for row in the_run(root)["primary"].rows][:2] == ["event 1", "event 2"]
    assert len(the_run(root)["primary"]) == 3


def test_a_kill_within_the_last_write_of_a_recovery_adds_no_event_twice(root: Path) -> None:
    folder = interrupted(root)
    recover(root, salvage="event")
    whole = (folder / "journal.jsonl").read_bytes()
    (folder / "journal.jsonl").write_bytes(whole[: whole.rindex(b'{"name":"stop"') + 10])
    (root / "index" / "runs.jsonl").unlink()
    again = the_recovery(root, "event")
    assert (again.salvaged, again.torn_bytes, again.unfinished) == (0, 10, ())
    assert len(the_run(root)["primary"]) == 3


def test_space_that_was_reserved_for_a_file_without_a_name_is_given_back(root: Path) -> None:
    folder = interrupted(root)
    (images,) = folder.glob("cam*")
    (images / ".000003.new").write_bytes(bytes(10**6))
    recover(root)
    assert not [path for path in folder.rglob("*") if path.name.startswith(".") and path.name.endswith(".new")]
    assert len(list(volumes_in(folder))) == 3


def test_a_file_of_others_in_a_run_folder_is_left_alone(root: Path) -> None:
    (images,) = interrupted(root).glob("cam*")
    (images / "notes.txt").write_text("mine")
    (images / "000009.ome.tif").write_bytes(b"II+\0 no TIFF")
    (images / "events" / "000009").mkdir(parents=True)
    (images / "events" / "000009" / "zarr.json").write_bytes(b"{}")
    assert len(the_recovery(root).unfinished) == 1
    assert (images / "notes.txt").read_text() == "mine"


def test_planes_of_a_partial_volume_are_read_where_they_came_and_nowhere_else(root: Path, tmp_path: Path) -> None:
    interrupted(root, frames=3)
    recover(root, salvage="event")
    images = the_run(root)["primary"]["cam"]
    assert images.frames_there(2).tolist() == [True, True, True, False]
    assert images.frames_there(0).all()
    partial = images.including_bad
    for z in range(3):
        np.testing.assert_array_equal(partial[2, z], frame(2, z))
    np.testing.assert_array_equal(partial[2, :3, 1:4], volume(2)[:3, 1:4])
    np.testing.assert_array_equal(images.volume(2, include_bad=True)[:3], volume(2)[:3])
    needs_all: list[Callable[[], object]] = [
        lambda: partial[2, 3],
        lambda: partial[2, ::3],
        lambda: images.project(2, include_bad=True),
    ]
    for touch in needs_all:
        with pytest.raises(FrameMissingError, match="frames 3 never came"):
            touch()
    asks_no_bad: list[Callable[[], object]] = [
        lambda: images[2, 0],
        lambda: images.volume(2),
        lambda: images.project(2),
    ]
    for touch in asks_no_bad:
        with pytest.raises(BadVolumeError):
            touch()
    with FileWriter(tmp_path / "copy") as copy:
        replay(the_run(root), copy, fill=True)
    again = Catalog(tmp_path / "copy")["run"]["primary"]
    assert again["good"].tolist() == [None, None, False]
    np.testing.assert_array_equal(again["cam"].volume(2, include_bad=True)[:3], volume(2)[:3])


@pytest.mark.parametrize("name", ["0.npy", "-5.npy", "99999999999999999999.npy", "000007.npy"])
def test_an_array_of_others_in_a_run_folder_is_left_alone(root: Path, name: str) -> None:
    folder = interrupted(root)
    (folder / "analysis").mkdir()
    np.save(folder / "analysis" / name, np.array(["a", "b"]))
    recover(root)
    hold_events(the_run(root), 2)
    assert len(manifest(folder)) == 3


@OF_TIFF
def test_a_bit_that_flipped_in_the_times_of_an_unfinished_volume_is_no_time(root: Path) -> None:
    """Of OME-TIFF: in OME-Zarr they have a checksum at every moment."""
    folder = interrupted(root)
    path = folder / "cam" / "000002.ome.tif"
    content = bytearray(path.read_bytes())
    place = (examine(path).offset or 0) - 8 * SHAPE[0]
    for times in (struct.pack("<d", 2.4e163), struct.pack("<d", float("inf")), struct.pack("<d", float("nan"))):
        content[place : place + 8] = times
        path.write_bytes(content)
        recover(root)
        stop = the_run(root).stop
        assert stop is not None
        assert stop["time"] == 1_795_433_410.0
        (folder / "journal.jsonl").write_bytes(
            b"".join((folder / "journal.jsonl").read_bytes().splitlines(True)[:-1])
        )
        (root / "index" / "runs.jsonl").unlink()


# --- who is alive -------------------------------------------------------------------------------------------


def test_a_run_that_is_being_written_is_left_alone(root: Path) -> None:
    with FileWriter(root) as writer:
        writer("start", {"uid": "run", "time": 1_795_433_400.0})
        (left,) = recover(root)
        assert isinstance(left, LeftAlone)
        assert left.running
        writer("stop", {"uid": "s", "time": 1_795_433_401.0, "run_start": "run", "exit_status": "success"})
    assert the_run(root).exit_status == "success"
    assert recover(root) == []


def test_a_run_of_another_machine_is_closed_only_if_the_user_says_that_it_is_off(root: Path) -> None:
    folder = interrupted(root)
    said = json.loads((folder / "writer.json").read_text())
    assert said["host"] == platform.node()
    (folder / "writer.json").write_text(json.dumps({**said, "host": "acquisition-pc"}))
    (left,) = recover(root)
    assert isinstance(left, LeftAlone)
    assert not left.running
    assert "recover --host acquisition-pc" in str(left)
    assert the_run(root).is_open
    (done,) = recover(root, hosts=["acquisition-pc"])
    assert isinstance(done, Recovery)
    assert the_run(root).exit_status == "abort"


def test_a_run_that_ended_well_and_is_unknown_to_the_index_is_entered_there(root: Path) -> None:
    interrupted(root)
    recover(root)
    line = (root / "index" / "runs.jsonl").read_bytes()
    (root / "index" / "runs.jsonl").unlink()
    assert recover(root) == []
    assert (root / "index" / "runs.jsonl").read_bytes() == line


# --- a writer does it by itself -----------------------------------------------------------------------------


@OF_TIFF
def test_a_writer_recovers_at_its_first_run_and_says_what_it_did(
    root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    interrupted(root)
    with FileWriter(root, salvage="event") as writer:
        assert the_run(root).is_open, "opening a writer changes nothing"
        writer("start", {"uid": "next", "time": 1_795_433_500.0})
        assert the_run(root).exit_status == "abort"
        writer("stop", {"uid": "s", "time": 1_795_433_501.0, "run_start": "next", "exit_status": "success"})
    (message,) = [record.getMessage() for record in caplog.records]
    assert "Run run in" in message
    assert "Events kept: 2. cam/000002.ome.tif holds 3 of 4 frames. Events added that name them" in message
    assert [act["act"] for act in read_audit(root)] == ["recovered"]


def test_a_recovery_that_fails_stops_no_acquisition(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = interrupted(root)
    (folder / "manifest.jsonl").write_bytes(b"{]\n")
    with FileWriter(root) as writer:
        writer("start", {"uid": "next", "time": 1_795_433_500.0})
        writer("stop", {"uid": "s", "time": 1_795_433_501.0, "run_start": "next", "exit_status": "success"})
    assert "was left alone" in caplog.text
    assert Catalog(root)["next"].exit_status == "success"


# --- damage -------------------------------------------------------------------------------------------------


def flipped(content: bytes, place: int) -> bytes:
    return content[:place] + bytes([content[place] ^ 4]) + content[place + 1 :]


def damages(folder: Path) -> Iterator[tuple[int, bytes]]:
    content = (folder / "journal.jsonl").read_bytes()
    ends = [i for i, byte in enumerate(content) if byte == 10]
    for number, (begin, end) in enumerate(zip([-1, *ends], ends, strict=False)):
        yield number, flipped(content, (begin + end) // 2)


def test_a_damaged_line_in_an_interrupted_run_is_set_aside_with_what_follows(root: Path) -> None:
    folder = interrupted(root)
    true, content = journal(folder), (folder / "journal.jsonl").read_bytes()
    for number, damaged in list(damages(folder))[1:]:
        (folder / "journal.jsonl").write_bytes(damaged)
        done = the_recovery(root)
        assert journal(folder)[:-1] == true[:number]
        kept = (folder / "journal.jsonl").read_bytes()
        kept = kept[: kept.rindex(b'{"name":"stop"')]
        assert kept + (folder / done.set_aside).read_bytes() == damaged, "no byte is lost"
        (folder / "journal.jsonl").write_bytes(content)
        (root / "index" / "runs.jsonl").unlink()


def test_a_damaged_line_in_a_run_that_ended_is_left_to_people(root: Path) -> None:
    folder = interrupted(root)
    recover(root)
    (root / "index" / "runs.jsonl").unlink()
    for number, damaged in list(damages(folder))[1:-1]:
        (folder / "journal.jsonl").write_bytes(damaged)
        (left,) = recover(root)
        assert isinstance(left, LeftAlone), number
        assert "ended well, and its journal was damaged since" in str(left)
        assert (folder / "journal.jsonl").read_bytes() == damaged


@pytest.mark.parametrize("place", [3, 11, 12, 40, -20])
def test_a_run_whose_stop_line_is_damaged_is_not_closed_again_without_its_index(root: Path, place: int) -> None:
    folder = record(root, lambda writer: bp.count([Camera("cam", writer)], 2)).folder
    whole = (folder / "journal.jsonl").read_bytes()
    stop = whole.splitlines(keepends=True)[-1]
    at = len(whole) - len(stop) + place % len(stop)
    (folder / "journal.jsonl").write_bytes(whole[:at] + bytes([whole[at] ^ 2]) + whole[at + 1 :])
    damaged = (folder / "journal.jsonl").read_bytes()
    shutil.rmtree(root / "index")
    (left,) = recover(root)
    assert isinstance(left, LeftAlone)
    assert (folder / "journal.jsonl").read_bytes() == damaged


# --- what the user gave -------------------------------------------------------------------------------------


def test_a_folder_that_is_no_root_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(RootError, match="is no root"):
        recover(tmp_path)


def test_another_word_for_salvage_is_an_error_that_names_those_there_are(root: Path) -> None:
    with FileWriter(root):
        pass
    with pytest.raises(ValueError, match="neither 'beside' nor 'event'"):
        recover(root, salvage="delete")  # type: ignore[arg-type]


def test_a_root_without_runs_has_nothing_to_recover(root: Path) -> None:
    with FileWriter(root):
        pass
    assert recover(root) == []
