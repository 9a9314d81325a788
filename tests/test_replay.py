"""Documents sent again: into a second writer, with pixels or without, into plots, into anything."""

from collections.abc import Iterator
from mmap import mmap
from pathlib import Path
from typing import Any

import bluesky.plan_stubs as bps
import bluesky.plans as bp
import event_model
import matplotlib as mpl
import numpy as np
import pytest
from bluesky import Msg
from bluesky.callbacks.best_effort import BestEffortCallback
from bluesky.utils import RunEngineInterrupted
from ophyd.sim import det, motor

from gently_bluesky import Catalog, FileWriter, replay
from gently_bluesky.errors import FrameMissingError, RunExistsError, UnfillableError, VolumeMissingError
from gently_bluesky.keep.aside import make_way
from gently_bluesky.keep.verify import verify
from gently_bluesky.read.run import Run
from gently_bluesky.store.audit import read_audit
from gently_bluesky.store.formats import FORMATS, examine
from gently_bluesky.write.recovery import recover
from tests.conftest import OF_TIFF
from tests.data_rig import (
    SHAPE,
    Camera,
    connected,
    feed,
    frame,
    hold_pixels,
    hold_together,
    inline,
    into,
    journal,
    manifest,
    names,
    newest,
    of,
    record,
    start_doc,
    volume,
)
from tests.devices_rig import Documents
from tests.test_recovery import interrupted
from tests.test_writer_streaming import Flyer

pytestmark = pytest.mark.usefixtures("every_format")

Plan = Iterator[Msg]


@pytest.fixture
def run(root: Path) -> Run:
    """A run with streamed volumes, an array in its events, and numbers."""

    def plan(writer: FileWriter) -> Plan:
        arrays = inline("img", *(volume(10 + i, (200, 200)) for i in range(3)))
        return bp.count([Camera("cam", writer, embryo="e", odd=float("nan")), arrays, det], 3, md={"session": "s"})

    return record(root, plan)


def hold_equal_pixels(one: Run, two: Run) -> None:
    """Both read the same arrays at the same positions."""
    assert set(one) == set(two)
    for name in one:
        assert one[name].seq_num.tolist() == two[name].seq_num.tolist()
        for key in one[name].image_keys:
            for event in range(len(one[name])):
                np.testing.assert_array_equal(
                    one[name].images(key).volume(event), two[name].images(key).volume(event)
                )


# --- as they are --------------------------------------------------------------------------------------------


def test_every_callback_gets_every_document_in_order(run: Run) -> None:
    first: Documents = []
    second: Documents = []
    replay(run, lambda name, doc: first.append((name, doc)), lambda name, doc: second.append((name, doc)))
    assert repr(first) == repr(second) == repr(list(run.documents()))


def test_pairs_of_documents_are_replayed_like_a_run(run: Run) -> None:
    got: Documents = []
    replay(iter(list(run.documents())), lambda name, doc: got.append((name, doc)))
    assert repr(got) == repr(list(run.documents()))
    with pytest.raises(ValueError, match="fill=True needs a Run"):
        replay(run.documents(), lambda name, doc: None, fill=True)


def test_a_second_writer_journals_the_same_documents_and_reads_the_same_pixels(run: Run, tmp_path: Path) -> None:
    second = into(run, tmp_path / "second")
    assert journal(second.folder) == journal(run.folder)
    assert {entry["state"] for entry in manifest(second.folder)} == {"foreign"}
    assert second["primary"].images("cam_image").stored.all()
    hold_equal_pixels(run, second)
    assert second["primary"].images("cam_image").shape == run["primary"].images("cam_image").shape
    assert second["primary"].images("cam_image").dtype == np.uint16
    (first, *_) = Catalog(tmp_path / "second").volumes(session="s")
    assert first.array().shape in {SHAPE, (200, 200)}


def test_a_run_replayed_into_its_own_root_is_refused(run: Run, root: Path) -> None:
    with FileWriter(root) as writer, pytest.raises(RunExistsError):
        replay(run, writer)
    assert len(Catalog(root)) == 1


def test_documents_that_were_replayed_hold_together(run: Run, tmp_path: Path) -> None:
    hold_together(list(into(run, tmp_path / "second").documents()))


# --- filled -------------------------------------------------------------------------------------------------


def is_mapped(array: Any) -> bool:
    while isinstance(array, np.ndarray):
        array = array.base
    return isinstance(array, mmap)


def test_filled_documents_hold_arrays_and_say_nothing_of_files(run: Run, every_format: str) -> None:
    documents = list(run.documents(fill=True))
    kinds = [name for name in names(documents) if name != "descriptor"]
    assert kinds == ["start", "event", "event", "event", "stop"]
    for descriptor in of(documents, "descriptor"):
        assert all("external" not in entry for entry in descriptor["data_keys"].values())
    for i, event in enumerate(of(documents, "event")):
        np.testing.assert_array_equal(event["data"]["cam_image"], volume(i))
        np.testing.assert_array_equal(event["data"]["img"], volume(10 + i, (200, 200)))
        assert set(event["data"]) == set(event["timestamps"]) == set(of(documents, "descriptor")[0]["data_keys"])
        assert is_mapped(event["data"]["cam_image"]) is (every_format == "ome-tiff")
    for name, document in documents:
        if name != "event":
            event_model.schema_validators[event_model.DocumentNames[name]].validate(document)


def test_filled_into_a_second_writer_the_pixels_are_stored_again(run: Run, tmp_path: Path) -> None:
    second = into(run, tmp_path / "second", fill=True)
    hold_equal_pixels(run, second)
    hold_pixels(second)
    hold_together(list(second.documents()))
    assert {entry["state"] for entry in manifest(second.folder)} == {"sealed"}
    hashes = [{entry["xxh3_128"] for entry in manifest(each.folder)} for each in (run, second)]
    assert hashes[0] == hashes[1]
    for document in ("start", "stop"):
        assert repr(of(list(second.documents()), document)) == repr(of(list(run.documents()), document))
    assert [event["uid"] for event in of(list(second.documents()), "event")] == [
        event["uid"] for event in of(list(run.documents()), "event")
    ]
    assert second["primary"].images("cam_image").voxel_size_um == (0.5, 0.25, 0.25)


def test_filled_into_a_writer_of_another_format_the_pixels_and_their_hashes_are_the_same(
    run: Run, tmp_path: Path, every_format: str
) -> None:
    (other,) = FORMATS.keys() - {every_format}
    second = into(run, tmp_path / "second", fill=True, image_format=other)
    hold_equal_pixels(run, second)
    hold_pixels(second)
    said = [{(entry["format"], entry["xxh3_128"]) for entry in manifest(each.folder)} for each in (run, second)]
    assert said[1] == {(other, digest) for _, digest in said[0]}


@OF_TIFF
@pytest.mark.parametrize("image_format", FORMATS)
def test_what_files_alone_know_goes_with_the_pixels_and_no_frame_that_never_came_is_made_up(
    root: Path, tmp_path: Path, image_format: str
) -> None:
    interrupted(
        root
    )  # two events of 488 nm without a word of it in their descriptor, a third of which 3 frames came
    recover(root, salvage="event")
    run = newest(root)
    copy = into(run, tmp_path / "copy", fill=True, image_format=image_format)
    for each in (run, copy):
        images = each["primary"].images("cam").including_bad
        assert images.frames_there(2).tolist() == [z < 3 for z in range(SHAPE[0])]
        np.testing.assert_array_equal(images[2, 1], frame(2, 1))
        with pytest.raises(FrameMissingError):
            images[2, 3]
    entries = {entry["index"]: entry for entry in manifest(copy.folder)}
    assert [entries[index]["state"] for index in range(3)] == ["sealed", "sealed", "aborted"]
    found = [examine(copy.folder / entries[index]["path"], index) for index in range(3)]
    assert [each.channel for each in found] == ["488"] * 3
    assert [set(each.times or ()) for each in found] == [
        {1_795_433_402.0},
        {1_795_433_403.0},
        {1_795_433_410.0, 0.0},
    ]
    assert verify(tmp_path / "copy").errors == ()


@pytest.mark.parametrize("within", [{}, {"z_centre_um": 40.0}])
def test_a_plane_is_as_high_in_every_copy_as_it_was(root: Path, tmp_path: Path, within: dict[str, float]) -> None:
    place = {"voxel_size_um": [2.0, 0.5, 0.5], "stage_position_um": [1.0, 2.0, 30.0]} | within
    arrays = inline("img", volume(0), volume(1), **place)
    run = record(root, bp.count([arrays], 2), inline_limit_bytes=10)
    for number, other in enumerate((*FORMATS, *FORMATS)):
        run = into(run, tmp_path / str(number), fill=True, image_format=other)
        for entry in manifest(run.folder):
            said = examine(run.folder / entry["path"], entry["index"]).metadata
            heights = np.add(said.get("z_um", 0), said["stage_position_um"][2])
            of_planes = 40 + 2 * (np.arange(SHAPE[0]) - (SHAPE[0] - 1) / 2) if within else [0.0]
            np.testing.assert_allclose(np.unique(heights), np.add(of_planes, 30))


def test_filled_once_more_from_the_copy_it_is_still_the_same(run: Run, tmp_path: Path) -> None:
    second = into(run, tmp_path / "second", fill=True)
    third = into(second, tmp_path / "third", fill=True)
    hold_equal_pixels(run, third)
    assert len(manifest(third.folder)) == len(manifest(second.folder))


def test_filled_documents_of_a_rewound_run_hold_the_array_of_each_event(root: Path, tmp_path: Path) -> None:
    with FileWriter(root) as writer:
        camera, (run_engine, _) = Camera("cam", writer), connected(writer)
        paused: list[bool] = []

        def plan() -> Plan:
            yield from bps.open_run()
            yield from bps.checkpoint()
            yield from bps.trigger_and_read([camera])
            if not paused:
                paused.append(True)
                yield from bps.pause()
            yield from bps.close_run()

        with pytest.raises(RunEngineInterrupted):
            run_engine(plan())
        run_engine.resume()
    run = newest(root)
    events = of(list(run.documents(fill=True)), "event")
    assert [event["seq_num"] for event in events] == [1, 1]
    for i, event in enumerate(events):
        np.testing.assert_array_equal(event["data"]["cam_image"], volume(i))
    second = into(run, tmp_path / "second", fill=True)
    hold_equal_pixels(run, second)
    assert len(manifest(second.folder)) == 2


def test_bad_volumes_are_replayed_as_bad_volumes(root: Path, tmp_path: Path) -> None:
    run = record(root, lambda writer: bp.count([Camera("cam", writer, good=False)]))
    second = into(run, tmp_path / "second", fill=True)
    np.testing.assert_array_equal(second["primary"].images("cam_image").volume(0, include_bad=True), volume(0))
    assert Catalog(tmp_path / "second").volumes() == []


def test_pages_of_events_are_filled_too(root: Path, tmp_path: Path) -> None:
    run = record(root, lambda writer: bp.count([Camera("cam", writer)], 3))
    documents = list(run.documents())
    page = event_model.pack_event_page(*of(documents, "event"))
    paged = [pair for pair in documents if pair[0] not in {"event", "stop"}]
    second = feed(tmp_path / "paged", [*paged, ("event_page", page), documents[-1]])
    hold_equal_pixels(run, second)
    third = into(second, tmp_path / "third", fill=True)
    hold_equal_pixels(run, third)


def test_a_fly_scan_is_replayed_unfilled_as_it_was(root: Path, tmp_path: Path) -> None:
    run = record(root, flight)
    second = into(run, tmp_path / "second")
    assert journal(second.folder) == journal(run.folder)
    hold_equal_pixels(run, second)


def flight(writer: FileWriter) -> Plan:
    """A fly scan of four volumes."""
    flyer = Flyer("cam", writer)
    yield from bps.open_run()
    yield from bps.declare_stream(flyer, name="primary", collect=True)
    yield from bps.kickoff(flyer, wait=True)
    yield from bps.complete(flyer, wait=True)
    yield from bps.collect(flyer, name="primary")
    yield from bps.close_run()


def test_a_fly_scan_is_not_filled_for_want_of_events(root: Path) -> None:
    run = record(root, flight)
    with pytest.raises(UnfillableError, match=rf"Stream 'primary' of run {run.uid} has volumes and no events"):
        replay(run, lambda name, doc: pytest.fail(f"{name} was given"), fill=True)


def test_a_stream_that_was_declared_and_has_no_events_is_replayed_as_it_is(root: Path, tmp_path: Path) -> None:
    def plan(writer: FileWriter) -> Plan:
        camera = Camera("cam", writer)
        yield from bps.open_run()
        yield from bps.declare_stream(Camera("later", writer), name="later")
        yield from bps.declare_stream(Flyer("fly", writer), name="fly", collect=True)
        yield from bps.trigger_and_read([camera])
        yield from bps.close_run()

    run = record(root, plan)
    second = into(run, tmp_path / "second", fill=True)
    assert set(second) == set(run) == {"primary", "later", "fly"}
    for name in ("later", "fly"):
        assert second[name].descriptors == run[name].descriptors
    assert second["later"].images("later_image").shape == (0, *SHAPE)
    hold_equal_pixels(run, second)


def test_a_run_without_stop_is_replayed_as_far_as_it_came(root: Path, tmp_path: Path) -> None:
    run = feed(root, [("start", start_doc(uid="open"))])
    second = into(run, tmp_path / "second")
    assert second.is_open
    assert second.start == run.start


# --- into others --------------------------------------------------------------------------------------------


@pytest.fixture
def agg() -> Iterator[Any]:
    """Matplotlib without a screen."""
    before = mpl.get_backend()
    mpl.use("Agg")
    import matplotlib.pyplot as plt

    plt.close("all")
    yield plt
    plt.close("all")
    mpl.use(before)


@pytest.mark.parametrize("fill", [False, True])
def test_a_best_effort_callback_plots_a_run_that_is_replayed(
    root: Path, agg: Any, capsys: pytest.CaptureFixture[str], fill: bool
) -> None:
    run = record(root, lambda writer: bp.scan([det, Camera("cam", writer)], motor, -1, 1, 5))
    callback = BestEffortCallback()
    replay(run, callback, fill=fill)
    (figure,) = [agg.figure(number) for number in agg.get_fignums()]
    (line,) = figure.axes[0].get_lines()
    assert list(line.get_xdata()) == pytest.approx(run["primary"]["motor"].tolist())
    assert list(line.get_ydata()) == pytest.approx(run["primary"]["det"].tolist())
    printed = capsys.readouterr().out
    assert run.uid in printed
    assert "det" in printed


def test_a_document_router_of_event_model_takes_a_replay(run: Run) -> None:
    seen: list[str] = []

    class Router(event_model.DocumentRouter):
        def __call__(self, name: str, doc: Any, validate: bool = False) -> Any:
            seen.append(name)
            return super().__call__(name, doc, validate)

    replay(run, Router())
    assert seen == names(list(run.documents()))


def test_suitcase_tiff_exports_a_filled_replay(root: Path, tmp_path: Path) -> None:
    import tifffile
    from suitcase import tiff_stack

    pixels = [volume(i, (300, 300)) for i in range(3)]
    run = record(root, bp.count([inline("img", *pixels)], 3))
    made = tiff_stack.export(run.documents(fill=True), tmp_path / "out", bigtiff=True)
    (path,) = made["stream_data"]
    np.testing.assert_array_equal(tifffile.imread(path), np.stack(pixels))


def test_a_replay_that_fails_leaves_a_copy_that_says_so(run: Run, tmp_path: Path) -> None:
    documents = list(run.documents())

    def broken() -> Iterator[tuple[str, Any]]:
        yield from documents[:-2]
        raise OSError("the cable")

    told: Documents = []
    with FileWriter(tmp_path / "copy") as copy, pytest.raises(OSError, match="the cable"):
        replay(broken(), copy, lambda name, doc: told.append((name, doc)))
    stop = Catalog(tmp_path / "copy")[-1].stop
    assert stop is not None
    assert (stop["exit_status"], stop["reason"]) == ("fail", "the replay failed: OSError('the cable')")
    assert told[-1][1]["reason"] == stop["reason"]


# --- a copy that broke off ----------------------------------------------------------------------------------


@OF_TIFF
def test_a_run_that_lost_a_volume_is_not_filled_and_nothing_of_it_is_sent(run: Run, tmp_path: Path) -> None:
    assert run.check_fillable() == sum(entry["bytes"] for entry in manifest(run.folder))
    (run.folder / "cam_image" / "000002.ome.tif").unlink()
    run = Catalog(run.folder.parents[4])[-1]
    with FileWriter(tmp_path / "copy") as copy, pytest.raises(VolumeMissingError, match="Volume 2 of 'cam_image'"):
        replay(run, copy, lambda name, doc: pytest.fail(f"{name} was sent"), fill=True)
    assert len(Catalog(tmp_path / "copy")) == 0, "and so nothing stands in the way of the next try"


def breaking_off(run: Run) -> Iterator[tuple[str, Any]]:
    """The documents of a run, up to a cable that is pulled."""
    yield from list(run.documents())[:-2]
    raise OSError("the cable")


def test_a_copy_that_broke_off_is_put_aside_if_that_is_said_and_the_run_stored_anew(
    run: Run, tmp_path: Path
) -> None:
    root = tmp_path / "copy"
    with FileWriter(root) as copy:
        for number in (1, 2):
            with pytest.raises(OSError, match="the cable"):
                replay(breaking_off(run), copy)
            stub = newest(root).folder
            with pytest.raises(
                RunExistsError, match=r"a copy that broke off \(the replay failed: OSError.* --again"
            ):
                make_way(root, run)
            before = (stub / "journal.jsonl").read_bytes()
            aside = make_way(root, run, put_aside=True)
            assert aside == root / "aside" / (stub.name + ("" if number == 1 else "+2"))
            assert (aside / "journal.jsonl").read_bytes() == before
            assert not stub.exists()
        assert make_way(root, run, put_aside=True) is None
        replay(run, copy, fill=True)
    hold_equal_pixels(run, newest(root))
    assert [act["act"] for act in read_audit(root)] == ["put aside"] * 2


def test_a_copy_that_was_killed_makes_way_for_a_run_that_has_its_end(run: Run, tmp_path: Path) -> None:
    root = tmp_path / "copy"
    feed(root, list(run.documents())[:4])
    assert newest(root).is_open
    recover(root)
    with pytest.raises(RunExistsError, match=r"a copy that broke off \(interrupted: the process"):
        make_way(root, run)
    assert make_way(root, run, put_aside=True) is not None
    hold_equal_pixels(run, into(run, root, fill=True))


def test_no_run_makes_way_for_one_that_is_no_more_than_itself(run: Run, root: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    with FileWriter(copy) as writer, pytest.raises(OSError, match="the cable"):
        replay(breaking_off(run), writer)
    for source, there in [(run, root), (newest(copy), copy), (newest(copy), root)]:
        assert make_way(there, source, put_aside=True) is None
        with FileWriter(there) as writer, pytest.raises(RunExistsError, match="is in this root already"):
            replay(source, writer)
