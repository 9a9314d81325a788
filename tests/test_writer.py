"""What a FileWriter promises whatever the devices are: its life, its routes, its subscribers."""

import threading
from pathlib import Path
from typing import Any

import bluesky.plan_stubs as bps
import bluesky.plans as bp
import bluesky.preprocessors as bpp
import event_model
import numpy as np
import pytest
from ophyd.sim import det, motor

from gently_bluesky import Catalog, FileWriter
from gently_bluesky.errors import (
    DocumentError,
    NoOpenRunError,
    RootError,
    RunExistsError,
    WriterFailedError,
)
from gently_bluesky.protocols import Sink
from tests.data_rig import (
    DEADLINE_S,
    Camera,
    as_json,
    connected,
    feed,
    hold_together,
    inline,
    journal,
    names,
    newest,
    of,
    record,
    run_folder,
    settle,
    start_doc,
    volume,
)
from tests.devices_rig import Documents, subscribe

pytestmark = pytest.mark.usefixtures("every_format")


def by_hand(**more: Any) -> Documents:
    """A run of one stream and two events, given by documents."""
    run = event_model.compose_run(metadata={"scan_id": 1, "plan_name": "by_hand"} | more)
    stream = run.compose_descriptor(
        name="primary", data_keys={"x": {"source": "test", "dtype": "number", "shape": []}}
    )
    events = [stream.compose_event(data={"x": i}, timestamps={"x": 1.0}) for i in range(2)]
    documents: list[tuple[str, Any]] = [("start", run.start_doc), ("descriptor", stream.descriptor_doc)]
    documents += [("event", event) for event in events]
    return [(name, dict(document)) for name, document in [*documents, ("stop", run.compose_stop())]]


# --- its life -----------------------------------------------------------------------------------------------


def test_a_root_is_made_at_once_and_no_run_before_its_start(root: Path) -> None:
    with FileWriter(root) as writer:
        run_engine, _ = connected(writer)
        writer.flush()
        run_engine(bps.null())
        assert len(Catalog(root)) == 0
    assert [item.name for item in root.iterdir()] == ["gently.json"]


def test_no_thread_is_begun_before_the_first_run(root: Path) -> None:
    before = threading.active_count()
    writer = FileWriter(root)
    assert threading.active_count() == before
    writer.close()


def test_closing_twice_is_closing_once_and_a_closed_writer_takes_nothing(root: Path) -> None:
    writer = FileWriter(root)
    run_engine, _ = connected(writer)
    run_engine(bp.count([det]))
    writer.close()
    writer.close()
    with pytest.raises(WriterFailedError, match=r"FileWriter\(.*root.* is closed\. Make a new one"):
        writer("start", start_doc())
    assert len(Catalog(root)) == 1


def test_closing_with_a_run_open_leaves_what_came_and_no_stop(root: Path) -> None:
    documents = by_hand()[:-1]
    run = feed(root, documents)
    assert run.is_open
    assert names(journal(run.folder)) == names(documents)


def test_a_writer_is_a_sink(root: Path) -> None:
    with FileWriter(root) as writer:
        assert isinstance(writer, Sink)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"image_format": "jpeg"}, r"image_format 'jpeg' is not one of \['ome-tiff'"),
        ({"durability": "never"}, "durability 'never' is neither 'event' nor 'run'"),
    ],
)
def test_wrong_options_are_errors_at_construction(root: Path, options: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        FileWriter(root, **options)
    assert not root.exists()


def test_a_folder_that_can_be_no_root_is_an_error_at_construction(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(RootError, match="is no root"):
        FileWriter(tmp_path)


# --- documents in, documents out ----------------------------------------------------------------------------


def test_documents_come_back_as_they_were_in_order(root: Path) -> None:
    with FileWriter(root) as writer:
        run_engine, documents = connected(writer)
        run_engine(bp.scan([det], motor, -1, 1, 5), sample={"name": "e1", "tags": ["a", "b"]})
    run = newest(root)
    assert list(run.documents()) == as_json(documents)
    hold_together(list(run.documents()))
    assert run.exit_status == "success"


def test_many_runs_go_to_many_folders(root: Path) -> None:
    with FileWriter(root) as writer:
        run_engine, documents = connected(writer)
        for _ in range(3):
            run_engine(bp.count([det], 2))
    catalog = Catalog(root)
    uids = [start["uid"] for start in of(documents, "start")]
    assert [run.uid for run in catalog] == uids[::-1]
    for uid in uids:
        assert of(journal(catalog[uid].folder), "start")[0]["uid"] == uid
        assert len(of(journal(catalog[uid].folder), "event")) == 2


def test_metadata_of_the_engine_is_in_the_start(root: Path) -> None:
    with FileWriter(root) as writer:
        run_engine, _ = connected(writer)
        run_engine.md["session"] = "s1"
        run_engine(bp.count([det]), embryo="e1", operator="\u00c9l\u00e9onore")
    start = newest(root).start
    assert (start["session"], start["embryo"], start["operator"]) == ("s1", "e1", "\u00c9l\u00e9onore")
    assert start["plan_name"] == "count"
    assert start["detectors"] == ["det"]


def test_baseline_and_monitors_are_streams_beside_the_primary(root: Path) -> None:
    from ophyd import Signal

    signal = Signal(name="sig", value=0)

    def plan() -> Any:
        for value in range(3):
            yield from bps.abs_set(signal, value, wait=True)
            yield from bps.trigger_and_read([det])

    monitored_run = bpp.monitor_during_wrapper(bpp.run_wrapper(plan()), [signal])
    run = record(root, bpp.baseline_wrapper(monitored_run, [motor]))
    assert set(run.keys()) == {"baseline", "primary", "sig_monitor"}
    assert len(run["baseline"]) == 2
    assert len(run["primary"]) == 3
    monitored = run["sig_monitor"]["sig"].tolist()
    assert monitored[-1] == 2
    assert monitored == sorted(monitored)
    hold_together(list(run.documents()))


def test_configure_in_mid_run_gives_a_second_descriptor_of_the_same_stream(root: Path) -> None:
    from ophyd import Component, Device, Signal

    class Configurable(Device):  # type: ignore[misc]
        reading = Component(Signal, value=1.0, kind="normal")
        gain = Component(Signal, value=1, kind="config")

    device = Configurable(name="dev")

    def plan() -> Any:
        yield from bps.trigger_and_read([device])
        yield from bps.configure(device, {"gain": 5})
        yield from bps.trigger_and_read([device])

    run = record(root, bpp.run_wrapper(plan()))
    stream = run["primary"]
    assert len(stream.descriptors) == 2
    assert len(stream) == 2
    assert stream.configuration(0)["dev"]["dev_gain"] == 1
    assert stream.configuration(1)["dev"]["dev_gain"] == 5
    hold_together(list(run.documents()))


@pytest.mark.parametrize("as_pages", [True, False], ids=["event_page", "bulk_events"])
def test_events_that_come_in_one_piece_are_rows_like_any_other(root: Path, as_pages: bool) -> None:
    documents = by_hand()
    events = of(documents, "event")
    piece: tuple[str, Any] = ("bulk_events", {"primary": events})
    if as_pages:
        piece = ("event_page", event_model.pack_event_page(*events))
    run = feed(root, [*documents[:2], piece, documents[-1]])
    stream = run["primary"]
    assert stream["x"].tolist() == [0, 1]
    assert stream.seq_num.tolist() == [1, 2]
    assert [row.uid for row in stream.rows] == [event["uid"] for event in events]


def test_two_runs_whose_documents_are_interleaved_are_told_apart(root: Path) -> None:
    one, two = by_hand(scan_id=1), by_hand(scan_id=2)
    feed(root, [document for pair in zip(one, two, strict=True) for document in pair])
    catalog = Catalog(root)
    for scan_id, documents in ((1, one), (2, two)):
        assert journal(catalog[scan_id].folder) == documents


def test_runs_inside_a_run_are_told_apart(root: Path) -> None:
    def keyed(which: str, plan: Any) -> Any:
        return bpp.set_run_key_wrapper(bpp.run_wrapper(plan, md={"which": which}), which)

    def outer() -> Any:
        yield from bps.trigger_and_read([det])
        yield from keyed("inner", bps.trigger_and_read([det]))
        yield from bps.trigger_and_read([det])

    record(root, keyed("outer", outer()))
    catalog = Catalog(root)
    found = {run.start["which"]: len(run["primary"]) for run in catalog}
    assert found == {"inner": 1, "outer": 2}
    assert {run.exit_status for run in catalog} == {"success"}


# --- what does not belong anywhere --------------------------------------------------------------------------


def test_a_document_of_an_unknown_kind_is_an_error_that_lists_the_kinds(root: Path) -> None:
    with (
        FileWriter(root) as writer,
        pytest.raises(DocumentError, match=r"'evnet' is no kind of document.*'event'"),
    ):
        writer("evnet", {})


def test_a_document_without_its_run_is_an_error_that_names_both(root: Path) -> None:
    _, descriptor, event, _, stop = by_hand()
    with FileWriter(root) as writer:
        with pytest.raises(DocumentError, match=r"descriptor .* run_start .*No run is open"):
            writer(*descriptor)
        writer(*by_hand()[0])
        with pytest.raises(DocumentError, match=r"refers to descriptor .* Open: .*by_hand"):
            writer(*event)
        with pytest.raises(DocumentError, match="refers to run_start"):
            writer(*stop)
    assert not journal(run_folder(root))[1:]


@pytest.mark.parametrize("broken", [{}, {"uid": 5, "time": 1.0}, {"uid": "a"}, {"uid": "a", "time": "now"}])
def test_a_start_without_identity_is_refused(root: Path, broken: dict[str, Any]) -> None:
    with FileWriter(root) as writer, pytest.raises(DocumentError, match="A start document needs a uid"):
        writer("start", broken)
    assert len(Catalog(root)) == 0


@pytest.mark.parametrize("time", [float("nan"), float("inf"), 1e20, -1e20])
def test_a_start_at_a_time_that_no_calendar_knows_is_refused(root: Path, time: float) -> None:
    with FileWriter(root) as writer, pytest.raises(DocumentError, match="time"):
        writer("start", start_doc(time=time))


def test_a_run_that_is_in_the_root_already_is_refused_and_left_alone(root: Path) -> None:
    documents = by_hand()
    before = (feed(root, documents).folder / "journal.jsonl").read_bytes()
    with FileWriter(root) as writer:
        with pytest.raises(
            RunExistsError, match=rf"Run {documents[0][1]['uid']} is in this root already, in .*by_hand"
        ):
            writer(*documents[0])
        writer(*documents[-1])  # the RunEngine's stop follows a refused start; it asks for nothing more
        other = by_hand()
        for document in other:
            writer(*document)
    catalog = Catalog(root)
    assert len(catalog) == 2
    assert (catalog[documents[0][1]["uid"]].folder / "journal.jsonl").read_bytes() == before


def test_two_runs_whose_folders_would_have_one_name_have_two(root: Path) -> None:
    uids = ["abcdefgh-1", "abcdefgh-2"]
    with FileWriter(root) as writer:
        for uid in uids:
            writer("start", start_doc(uid=uid))
            writer("stop", {"uid": f"stop {uid}", "time": 1.0, "run_start": uid, "exit_status": "success"})
    catalog = Catalog(root)
    assert [catalog[uid].folder.name for uid in uids] == ["0001-by_hand-abcdefgh", "0001-by_hand-abcdefgh+2"]


# --- the sink -----------------------------------------------------------------------------------------------


def test_frames_without_a_run_are_an_error_that_says_so(root: Path) -> None:
    with (
        FileWriter(root) as writer,
        pytest.raises(NoOpenRunError, match=r"No run is open.*RE\.subscribe\(writer\)"),
    ):
        writer.open_resource("cam", shape=(1, 2, 3), dtype="u2")


def test_frames_with_several_runs_open_are_an_error_that_names_them(root: Path) -> None:
    with FileWriter(root) as writer:
        writer("start", start_doc(uid="one-aaaaa"))
        writer("start", start_doc(uid="two-bbbbb"))
        with pytest.raises(NoOpenRunError, match=r"Several runs are open.*one-aaaaa.*two-bbbbb"):
            writer.open_resource("cam", shape=(1, 2, 3), dtype="u2")


def test_runs_that_another_writer_records_do_not_count(root: Path, tmp_path: Path) -> None:
    with FileWriter(root) as writer, FileWriter(tmp_path / "other") as other:
        other("start", start_doc())
        with pytest.raises(NoOpenRunError, match="No run is open"):
            writer.open_resource("cam", shape=(1, 2, 3), dtype="u2")


def test_the_same_arguments_give_the_same_resource_in_a_run_and_another_in_the_next(root: Path) -> None:
    with FileWriter(root) as writer:
        writer("start", start_doc(uid="one"))
        first = writer.open_resource("cam", shape=(2, 3, 4), dtype="u2")
        assert writer.open_resource("cam", shape=[2, 3, 4], dtype="<u2") is first
        assert writer.open_resource("cam", shape=(2, 3, 5), dtype="u2") is not first
        assert writer.open_resource("cam", shape=(2, 3, 4), dtype="u1") is not first
        writer("stop", {"uid": "s", "time": 1.0, "run_start": "one", "exit_status": "success"})
        writer("start", start_doc(uid="two"))
        assert writer.open_resource("cam", shape=(2, 3, 4), dtype="u2").uid != first.uid


@pytest.mark.parametrize(("shape", "dtype"), [((2, 0, 4), "u2"), ((2, 3), "U5"), ((2, 3), object)])
def test_a_resource_that_holds_no_numbers_is_refused(root: Path, shape: tuple[int, ...], dtype: Any) -> None:
    with FileWriter(root) as writer:
        writer("start", start_doc())
        with pytest.raises(ValueError, match=r"'cam' was offered as .*: volumes hold numbers"):
            writer.open_resource("cam", shape=shape, dtype=dtype)


# --- subscribers --------------------------------------------------------------------------------------------


def test_subscribers_get_every_document_as_the_journal_has_it(root: Path) -> None:
    told: Documents = []
    events: list[dict[str, Any]] = []

    def plan(writer: FileWriter) -> Any:
        writer.subscribe(lambda name, doc: told.append((name, doc)))
        writer.subscribe(lambda name, doc: events.append(doc), "event")
        camera = Camera("cam", writer, odd=float("nan"))
        return bp.count([camera, det, inline("img", np.full((300, 300), np.nan))], md={"limit": float("inf")})

    run = record(root, plan)
    journalled = list(run.documents())
    assert repr(told) == repr(journalled)
    assert repr(events) == repr(of(journalled, "event"))
    assert told[0][1]["limit"] == float("inf")


def test_a_document_is_told_only_when_it_is_in_the_journal(root: Path) -> None:
    behind: list[str] = []

    def look(name: str, doc: dict[str, Any]) -> None:
        if doc not in [each for _, each in journal(run_folder(root))]:
            behind.append(name)

    def plan(writer: FileWriter) -> Any:
        writer.subscribe(look)
        return bp.count([det], 3)

    record(root, plan)
    assert behind == []


def test_who_has_unsubscribed_is_told_nothing_more(root: Path) -> None:
    told: list[str] = []
    with FileWriter(root) as writer:
        token = writer.subscribe(lambda name, doc: told.append(name))
        documents = by_hand()
        writer(*documents[0])
        writer.flush()
        writer.unsubscribe(token)
        writer.unsubscribe(token)
        for document in documents[1:]:
            writer(*document)
    assert told == ["start"]


def test_subscribing_to_no_kind_of_document_is_an_error(root: Path) -> None:
    with FileWriter(root) as writer, pytest.raises(ValueError, match="'evnet' is no kind of document"):
        writer.subscribe(lambda name, doc: None, "evnet")


def test_a_subscriber_that_fails_is_told_to_the_engine_and_harms_no_file(root: Path) -> None:
    def fail(name: str, doc: dict[str, Any]) -> None:
        raise ZeroDivisionError("my plot")

    with FileWriter(root) as writer:
        token = writer.subscribe(fail, "descriptor")
        run_engine, documents = connected(writer)

        def plan() -> Any:
            yield from bps.open_run()
            yield from bps.trigger_and_read([det])
            yield from bps.checkpoint()
            settle(writer)
            yield from bps.trigger_and_read([det])
            yield from bps.close_run()

        with pytest.raises(WriterFailedError, match=r"A subscriber of .* failed: .*my plot.* The files are good"):
            run_engine(plan())
        assert of(documents, "stop")[0]["exit_status"] == "fail"
        writer.unsubscribe(token)
        run_engine(bp.count([motor]))  # told once
    first = Catalog(root)[-2]
    assert first.exit_status == "fail"
    assert "my plot" in str(first.stop)
    hold_together(journal(first.folder))


def test_a_failing_subscriber_keeps_no_other_from_its_documents(root: Path) -> None:
    told: list[str] = []

    def fail(name: str, doc: dict[str, Any]) -> None:
        raise ZeroDivisionError

    with FileWriter(root) as writer:
        writer.subscribe(fail, "start")
        writer.subscribe(lambda name, doc: told.append(name))
        documents = by_hand()
        writer(*documents[0])
        with pytest.raises(WriterFailedError, match="ZeroDivisionError"):
            writer.flush()
        for document in documents[1:]:
            writer(*document)
    assert told == names(documents)


def test_the_failure_of_a_subscriber_is_not_lost_on_the_thread_of_a_monitor(root: Path) -> None:
    from ophyd import Signal

    signal = Signal(name="sig", value=0)

    def fail(name: str, doc: dict[str, Any]) -> None:
        raise ZeroDivisionError("my plot")

    with FileWriter(root) as writer:
        writer.subscribe(fail, "descriptor")
        run_engine, _ = connected(writer)

        def plan() -> Any:
            signal.put(1)
            settle(writer)
            putter = threading.Thread(target=signal.put, args=(2,))
            putter.start()
            putter.join()
            yield from bps.null()

        with pytest.raises(WriterFailedError, match="my plot"):
            run_engine(bpp.monitor_during_wrapper(bpp.run_wrapper(plan()), [signal]))


# --- its backlog --------------------------------------------------------------------------------------------


def test_a_full_backlog_makes_the_engine_wait_and_loses_nothing(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from gently_bluesky.write.recorder import RunRecorder

    gate, most = threading.Event(), [0]
    commit = RunRecorder.commit

    def gated(self: RunRecorder, *arguments: Any) -> Any:
        assert not self.begun.is_set() or gate.wait(DEADLINE_S)  # the start is waited for
        return commit(self, *arguments)

    monkeypatch.setattr(RunRecorder, "commit", gated)
    size = 1 << 18
    with FileWriter(root, backlog_bytes=3 * size) as writer:
        emitted: list[int] = []
        documents = image_run(20, size)

        def feed_all() -> None:
            for name, document in documents:
                writer(name, document)
                most[0] = max(most[0], writer._backlog.nbytes)
                if name == "event":
                    emitted.append(document["seq_num"])

        feeder = threading.Thread(target=feed_all)
        feeder.start()
        assert writer._backlog.wait_for(lambda: writer._backlog.nbytes > 3 * size, DEADLINE_S)
        assert len(emitted) <= 4
        gate.set()
        feeder.join(DEADLINE_S)
        assert not feeder.is_alive()
    assert len(emitted) == 20
    assert most[0] < 5 * size
    images = newest(root)["primary"]["img"]
    assert images.shape == (20, size)
    assert [int(images[i, 0]) for i in range(20)] == list(range(20))


def image_run(events: int, size: int) -> Documents:
    """A run with an array of bytes in each event."""
    run = event_model.compose_run()
    stream = run.compose_descriptor(
        name="primary", data_keys={"img": {"source": "test", "dtype": "array", "shape": [size]}}
    )
    documents: list[tuple[str, Any]] = [("start", run.start_doc), ("descriptor", stream.descriptor_doc)]
    for i in range(events):
        array = np.full(size, i, np.uint8)
        documents.append(
            ("event", stream.compose_event(data={"img": array}, timestamps={"img": 1.0}, validate=False))
        )
    return [*documents, ("stop", run.compose_stop())]


def test_flush_waits_until_everything_is_journalled(root: Path) -> None:
    with FileWriter(root) as writer:
        documents = by_hand()
        for i, document in enumerate(documents[:-1]):
            writer(*document)
            if i != 1:  # a descriptor waits for its first event
                writer.flush()
                assert journal(run_folder(root)) == documents[: i + 1]


def test_a_writer_given_to_several_engines_records_each(root: Path) -> None:
    with FileWriter(root) as writer:
        engines = [connected(writer)[0] for _ in range(2)]
        for run_engine in engines:
            run_engine(bp.count([Camera("cam", writer)]))
    assert [len(run["primary"]) for run in Catalog(root)] == [1, 1]


def test_a_second_writer_with_the_same_root_adds_runs_of_its_own(root: Path) -> None:
    with FileWriter(root) as one, FileWriter(root) as two:
        engine_one, _ = connected(one)
        engine_two, _ = connected(two)
        engine_one(bp.count([Camera("cam", one)]))
        engine_two(bp.count([Camera("cam", two)]))
    for run in Catalog(root):
        np.testing.assert_array_equal(run["primary"]["cam_image"].volume(0), volume(0))


def test_the_writer_stays_first_and_later_subscribers_see_the_same_run(root: Path) -> None:
    seen: Documents = []
    with FileWriter(root) as writer:
        run_engine, documents = connected(writer)
        subscribe(run_engine, lambda name, doc: seen.append((name, doc)))
        run_engine(bp.count([Camera("cam", writer)]))
    assert seen == documents
    assert names(seen) == names(journal(run_folder(root)))
