"""What goes wrong, and what it must never take with it."""

import errno
import os
import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import bluesky.plan_stubs as bps
import bluesky.plans as bp
import bluesky.preprocessors as bpp
import numpy as np
import pytest
from bluesky import Msg
from bluesky.utils import FailedStatus
from ophyd import Signal
from ophyd.sim import det

from gently_bluesky import Catalog, FileWriter
from gently_bluesky.errors import DiskFullError, DocumentError, WriterFailedError
from gently_bluesky.read.run import Run
from gently_bluesky.store import disk
from gently_bluesky.store.disk import AppendFile
from gently_bluesky.write.recorder import RunRecorder
from tests.data_rig import (
    DEADLINE_S,
    Camera,
    connected,
    fill_up,
    hold_pixels,
    hold_together,
    inline,
    journal,
    manifest,
    names,
    newest,
    of,
    pixel_file,
    record,
    run_folder,
    settle,
    start_doc,
    volume,
)
from tests.devices_rig import subscribe

pytestmark = pytest.mark.usefixtures("every_format")

Plan = Iterator[Msg]


def hold_what_was_journalled(run: Run) -> None:
    """Everything in the journal is whole, and readable."""
    documents = list(run.documents())
    hold_together(documents)
    hold_pixels(run)
    for name in run:
        for key in run[name].image_keys:
            for event in range(len(run[name])):
                assert run[name].images(key).volume(event).size


# --- documents that cannot be journalled --------------------------------------------------------------------


def test_an_event_that_json_cannot_spell_fails_the_run_and_takes_none_before_it(root: Path) -> None:
    with FileWriter(root) as writer:
        camera, (run_engine, _) = Camera("cam", writer, odd=0), connected(writer)

        def plan() -> Plan:
            yield from bps.open_run()
            for i in range(4):
                camera.scalars["odd"] = object() if i == 3 else i
                yield from bps.trigger_and_read([camera])
            yield from bps.close_run()

        with pytest.raises(DocumentError, match=r"event .*'odd' holds <object object .* JSON cannot spell"):
            run_engine(plan())
        run_engine(bp.count([det]))  # the writer itself is good
    run = Catalog(root)[-2]
    assert run.exit_status == "fail"
    assert run["primary"]["odd"].tolist() == [0, 1, 2]
    hold_what_was_journalled(run)


def test_what_waits_in_the_backlog_when_a_bad_document_comes_is_journalled_all_the_same(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate, commit = threading.Event(), RunRecorder.commit

    def gated(self: RunRecorder, *arguments: Any) -> Any:
        assert not self.begun.is_set() or gate.wait(DEADLINE_S)  # the start is waited for
        return commit(self, *arguments)

    monkeypatch.setattr(RunRecorder, "commit", gated)
    with FileWriter(root, inline_limit_bytes=100) as writer:
        for name, document in [
            ("start", start_doc(uid="run")),
            ("descriptor", descriptor("d", "run")),
            *[("event", event("d", i + 1, {"x": np.full(200, i)})) for i in range(3)],
        ]:
            writer(name, document)
        with pytest.raises(DocumentError):
            writer("event", event("d", 4, {"x": object()}))
        gate.set()
        writer("stop", stop("run"))
    run = newest(root)
    assert run.exit_status == "fail"
    assert [int(run["primary"]["x"].volume(i)[0]) for i in range(3)] == [0, 1, 2]


def descriptor(uid: str, run: str) -> dict[str, Any]:
    keys = {"x": {"source": "t", "dtype": "number", "shape": []}}
    return {"uid": uid, "run_start": run, "time": 1.0, "name": "primary", "data_keys": keys}


def event(stream: str, seq_num: int, data: dict[str, Any]) -> dict[str, Any]:
    stamps = dict.fromkeys(data, 1.0)
    uid = f"event {seq_num}"
    return {"uid": uid, "descriptor": stream, "time": 1.0, "seq_num": seq_num, "data": data, "timestamps": stamps}


def stop(run: str, exit_status: str = "success") -> dict[str, Any]:
    return {"uid": f"stop {run}", "time": 2.0, "run_start": run, "exit_status": exit_status}


def test_a_document_that_refers_to_nothing_takes_no_good_one_of_its_group_with_it(root: Path) -> None:
    with FileWriter(root) as writer:
        writer("start", start_doc(uid="run"))
        writer("descriptor", descriptor("d", "run"))
        writer("event", event("d", 1, {"x": 1}))
        datum = {"uid": "sd", "stream_resource": "nowhere", "descriptor": "d"}
        ranges = {"indices": {"start": 0, "stop": 1}, "seq_nums": {"start": 1, "stop": 2}}
        with pytest.raises(DocumentError, match="names stream_resource nowhere, which never came"):
            writer("stream_datum", datum | ranges)
        with pytest.raises(WriterFailedError, match="nowhere"):
            writer.flush()
        with pytest.raises(WriterFailedError):
            writer("event", event("d", 2, {"x": 2}))
        writer("stop", stop("run"))
    run = newest(root)
    assert names(journal(run.folder)) == ["start", "descriptor", "event", "stop"]
    assert run.exit_status == "fail"
    assert "nowhere" in str((run.stop or {})["reason"])


def test_a_start_that_cannot_be_journalled_refuses_the_run_and_leaves_nothing(root: Path) -> None:
    with FileWriter(root) as writer:
        run_engine, _ = connected(writer)
        with pytest.raises(DocumentError, match="start document, 'agar' holds <object"):
            run_engine(bp.count([det]), agar=object())
        run_engine(bp.count([det]))
    assert len(Catalog(root)) == 1


def test_a_failure_of_the_plan_is_not_made_worse_by_one_of_the_writer(root: Path) -> None:
    with FileWriter(root) as writer:
        run_engine, _ = connected(writer)

        def plan() -> Plan:
            yield from bps.open_run()
            yield from bps.trigger_and_read([inline("x", object())])

        with pytest.raises(DocumentError):
            run_engine(bpp.finalize_wrapper(plan(), bps.null()))
    run = newest(root)
    assert run.exit_status == "fail"
    assert "JSON cannot spell" in str((run.stop or {})["reason"])


# --- the writer's own thread --------------------------------------------------------------------------------


def failing(monkeypatch: pytest.MonkeyPatch, at: int) -> threading.Event:
    """Make the journal fail at a call, as a dying disk does; set once it has."""
    calls, failed, append = [0], threading.Event(), AppendFile.append

    def dying(self: AppendFile, lines: bytes) -> None:
        if self.path.name == "journal.jsonl" and b'"stop"' not in lines[:20]:
            calls[0] += 1
            if calls[0] >= at:
                failed.set()
                raise OSError(errno.EIO, "Input/output error")
        append(self, lines)

    monkeypatch.setattr(AppendFile, "append", dying)
    return failed


def test_a_disk_that_dies_stops_the_plan_at_the_next_document(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with FileWriter(root) as writer:
        camera, (run_engine, documents) = Camera("cam", writer), connected(writer)

        def plan() -> Plan:
            yield from bps.open_run()
            yield from bps.trigger_and_read([camera])
            writer.flush()
            failed = failing(monkeypatch, 1)
            yield from bps.trigger_and_read([camera])
            assert failed.wait(DEADLINE_S)
            settle(writer)
            yield from bps.trigger_and_read([det], name="other")
            raise AssertionError("the plan must not get here")

        with pytest.raises(WriterFailedError, match=r"cannot be recorded any further: .*Input/output error"):
            run_engine(plan())
        assert of(documents, "stop")[0]["exit_status"] == "fail"
    run = newest(root)
    assert run.exit_status == "fail"
    assert len(run["primary"]) == 1
    np.testing.assert_array_equal(run["primary"]["cam_image"].volume(0), volume(0))


def test_a_disk_that_dies_refuses_the_next_volume_before_its_exposure(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with FileWriter(root) as writer:
        camera, (run_engine, _) = Camera("cam", writer), connected(writer)

        def plan() -> Plan:
            yield from bps.open_run()
            writer.flush()  # the start is journalled; the disk dies after it
            failed = failing(monkeypatch, 1)
            yield from bps.trigger_and_read([det])
            assert failed.wait(DEADLINE_S)
            settle(writer)
            yield from bps.trigger(camera, wait=True)

        with pytest.raises(FailedStatus) as caught:
            run_engine(plan())
    assert isinstance(caught.value.__cause__, WriterFailedError)
    assert camera.taken == 0


def test_a_failure_that_nobody_heard_of_is_raised_at_the_stop_and_the_journal_says_fail(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    resource = {
        "uid": "r",
        "run_start": "run",
        "spec": "s",
        "root": "",
        "resource_path": "p",
        "resource_kwargs": {},
    }
    with FileWriter(root) as writer:
        writer("start", start_doc(uid="run"))
        failed = failing(monkeypatch, 1)
        writer("resource", resource)
        assert failed.wait(DEADLINE_S)
        with pytest.raises(WriterFailedError, match="Input/output error"):
            writer("stop", stop("run"))
        monkeypatch.undo()
        writer("start", start_doc(uid="next"))
        writer("stop", stop("next"))
    catalog = Catalog(root)
    assert [catalog[uid].exit_status for uid in ("run", "next")] == ["fail", "success"]


def test_a_start_that_cannot_be_journalled_is_refused_at_once(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with FileWriter(root) as writer:
        failing(monkeypatch, 1)
        with pytest.raises(WriterFailedError, match="Input/output error"):
            writer("start", start_doc(uid="run"))
        writer("stop", stop("run"))
        monkeypatch.undo()
        writer("start", start_doc(uid="next"))
        writer("stop", stop("next"))
    assert [run.uid for run in Catalog(root)] == ["next"]


def test_an_error_while_pixels_are_made_durable_fails_the_run(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = disk.sync_data

    def fail(descriptor: int) -> None:
        path = os.readlink(f"/proc/self/fd/{descriptor}")  # noqa: PTH115
        if "/cam_image" in path and "json" not in path:
            raise OSError(errno.EIO, "the platter is scratched")
        real(descriptor)

    monkeypatch.setattr(disk, "sync_data", fail)
    with FileWriter(root) as writer:
        camera, (run_engine, _) = Camera("cam", writer), connected(writer)
        with pytest.raises((WriterFailedError, FailedStatus)):
            run_engine(bp.count([camera], 50))
    run = newest(root)
    assert run.exit_status == "fail"
    assert "event" not in names(journal(run.folder))
    assert manifest(run.folder) == []


@pytest.mark.parametrize("durability", ["event", "run"])
def test_what_cannot_be_made_durable_at_the_end_is_no_success(
    root: Path, monkeypatch: pytest.MonkeyPatch, durability: Any
) -> None:
    with FileWriter(root, durability=durability) as writer:
        camera, (run_engine, _) = Camera("cam", writer), connected(writer)

        def plan() -> Plan:
            yield from bps.open_run()
            yield from bps.trigger_and_read([camera])
            writer.flush()

            def fail(descriptor: int) -> None:
                raise OSError(errno.EIO, "the platter is scratched")

            monkeypatch.setattr(disk, "sync_data", fail)
            yield from bps.trigger_and_read([camera])
            yield from bps.close_run()
            monkeypatch.undo()

        with pytest.raises((WriterFailedError, FailedStatus)):
            run_engine(plan())
        monkeypatch.undo()
    run = newest(root)
    assert run.exit_status != "success"


# --- monitors -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bad_puts", [1, 2, 3])
@pytest.mark.parametrize("more", [True, False])
def test_a_failure_on_the_thread_of_a_monitor_fails_the_run(root: Path, bad_puts: int, more: bool) -> None:
    signal = Signal(name="sig", value=0)
    with FileWriter(root) as writer:
        run_engine, _ = connected(writer)

        def plan() -> Plan:
            def put_all() -> None:
                for value in [1] + [object()] * bad_puts:
                    signal.put(value)

            putter = threading.Thread(target=put_all)
            putter.start()
            putter.join()
            if more:
                yield from bps.trigger_and_read([det])
                raise AssertionError("the plan must not get here")
            yield from bps.null()

        with pytest.raises((WriterFailedError, DocumentError), match="JSON cannot spell"):
            run_engine(bpp.monitor_during_wrapper(bpp.run_wrapper(plan()), [signal]))
    run = newest(root)
    assert run.exit_status == "fail"
    assert "JSON cannot spell" in str((run.stop or {})["reason"])
    assert run["sig_monitor"]["sig"].tolist() == [1]


def test_monitors_and_the_engine_may_speak_at_once(root: Path) -> None:
    signal = Signal(name="sig", value=0)
    with FileWriter(root) as writer:
        run_engine, _ = connected(writer)

        def put_many() -> None:
            for value in range(1, 200):
                signal.put(value)

        def plan() -> Plan:
            putter = threading.Thread(target=put_many)
            putter.start()
            for _ in range(20):
                yield from bps.trigger_and_read([det])
            putter.join()

        run_engine(bpp.monitor_during_wrapper(bpp.run_wrapper(plan()), [signal]))
    run = newest(root)
    assert run["sig_monitor"]["sig"].tolist() == list(range(1, 200))
    assert len(run["primary"]) == 20
    hold_together(list(run.documents()))


# --- a full disk --------------------------------------------------------------------------------------------


def test_a_full_disk_is_an_error_before_the_exposure_and_everything_before_is_good(small_disk: Path) -> None:
    with FileWriter(small_disk) as writer:
        camera, (run_engine, _) = Camera("cam", writer, shape=(8, 128, 512)), connected(writer)  # 1 MiB each
        with pytest.raises(FailedStatus) as caught:
            run_engine(bp.count([camera], 1000))
        full = caught.value.__cause__
        assert isinstance(full, DiskFullError)
        assert re.search(rf"No room for (00000{camera.taken}\.ome\.tif|cam_image\.ome\.zarr)", str(full))
        assert "Nothing that was written before is lost" in str(full)
    run = newest(small_disk)
    assert run.exit_status == "fail"
    assert len(run["primary"]) == camera.taken >= 2
    hold_what_was_journalled(run)
    for i in range(camera.taken):
        np.testing.assert_array_equal(run["primary"]["cam_image"].volume(i), volume(i, (8, 128, 512)))
    assert not pixel_file(run.folder, "cam_image", camera.taken).exists()
    assert not list(run.folder.glob("*/.*"))


def test_a_disk_that_fills_under_arrays_in_events_fails_the_run_and_keeps_those_before(
    small_disk: Path, every_format: str
) -> None:
    arrays = (np.full((512, 1024), i, "<u2") for i in range(1000))
    with FileWriter(small_disk) as writer:
        run_engine, _ = connected(writer)
        with pytest.raises(WriterFailedError, match="No room for") as caught:
            run_engine(bp.count([inline("img", *arrays)], 1000))
        assert isinstance(caught.value.__cause__, DiskFullError)
    run = newest(small_disk)
    assert run.exit_status == "fail"
    assert 1 <= len(run["primary"]) <= (3 if every_format == "ome-tiff" else 999)
    assert [int(run["primary"]["img"][i, 0, 0]) for i in range(len(run["primary"]))] == list(
        range(len(run["primary"]))
    )
    hold_what_was_journalled(run)


def test_a_disk_without_room_for_a_line_leaves_a_journal_of_whole_lines(small_disk: Path) -> None:
    with FileWriter(small_disk) as writer:
        run_engine, _ = connected(writer)
        device = inline("text", *["x" * 500_000] * 20)

        def plan() -> Plan:
            for _ in range(20):
                yield from bps.trigger_and_read([device])
                writer.flush()

        with pytest.raises(WriterFailedError, match=r"No room for journal\.jsonl"):
            run_engine(bpp.run_wrapper(plan()))
    run = newest(small_disk)
    assert 5 <= len(run["primary"]) <= 8
    assert run["primary"]["text"][-1] == "x" * 500_000
    assert run.exit_status == "fail"


def test_of_a_group_that_finds_no_room_as_much_is_journalled_as_does(small_disk: Path) -> None:
    held = threading.Event()
    with FileWriter(small_disk) as writer:
        writer.subscribe(lambda name, doc: held.wait(30), "descriptor")
        writer("start", start_doc(uid="run"))
        writer("descriptor", descriptor("d", "run"))
        writer("event", event("d", 1, {"x": "first"}))  # the descriptor waits for it
        fill_up(small_disk, leaving=200_000)
        for number in range(2, 102):
            writer("event", event("d", number, {"x": "x" * 10_000}))
        held.set()
        with pytest.raises(WriterFailedError, match=r"No room for journal\.jsonl"):
            writer.flush()
        writer("stop", stop("run"))  # whoever asked knows
    run = newest(small_disk)
    assert run.exit_status in {"fail", None}
    assert 10 <= len(run["primary"]) <= 21
    assert run["primary"]["x"].tolist() == ["first"] + ["x" * 10_000] * (len(run["primary"]) - 1)


def test_a_disk_without_room_for_a_run_refuses_its_start(small_disk: Path) -> None:
    with FileWriter(small_disk) as writer:
        fill_up(small_disk)

        def begin() -> None:
            writer("start", start_doc(uid="run"))
            writer.flush()

        with pytest.raises((DiskFullError, WriterFailedError), match="No room for"):
            begin()
        (small_disk / "ballast").unlink()
        writer("start", start_doc(uid="second"))
        writer("stop", stop("second"))
    assert Catalog(small_disk)["second"].exit_status == "success"


# --- who else listens ---------------------------------------------------------------------------------------


def test_a_later_subscriber_that_fails_leaves_the_run_as_failed(root: Path) -> None:
    def fail(name: str, doc: dict[str, Any]) -> None:
        if name == "event":
            raise ZeroDivisionError("a plot")

    with FileWriter(root) as writer:
        run_engine, _ = connected(writer)
        subscribe(run_engine, fail)
        with pytest.raises(ZeroDivisionError):
            run_engine(bp.count([Camera("cam", writer)], 3))
    run = newest(root)
    assert run.exit_status == "fail"
    assert len(run["primary"]) == 1
    hold_what_was_journalled(run)


def test_documents_after_the_stop_are_refused_and_change_nothing(root: Path) -> None:
    with FileWriter(root) as writer:
        for name, document in [("start", start_doc(uid="run")), ("descriptor", descriptor("d", "run"))]:
            writer(name, document)
        resource = writer.open_resource("cam", shape=(1, 2, 3), dtype="u1")
        late = resource.new_volume()
        writer("stop", stop("run"))
        before = (run_folder(root) / "journal.jsonl").read_bytes()
        with pytest.raises(DocumentError, match="No run is open"):
            writer("event", event("d", 1, {"x": 1}))
        with pytest.raises(ValueError, match="was aborted before frame 0 came"):
            late.write(0, np.zeros((2, 3), "u1"))
        writer.flush()
    assert (run_folder(root) / "journal.jsonl").read_bytes() == before


def test_a_run_that_was_good_is_a_success(root: Path) -> None:
    assert record(root, lambda writer: bp.count([Camera("cam", writer)])).exit_status == "success"
