"""Frames with addresses through device, RunEngine, writer and accessor come back in the right place."""

import contextlib
import os
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
from bluesky.utils import FailedStatus, RunEngineInterrupted
from ophyd.sim import det, motor

from gently_bluesky import Catalog, FileWriter
from gently_bluesky.errors import (
    BadVolumeError,
    DocumentError,
    FrameError,
    FrameMissingError,
    NoOpenRunError,
    VolumeIncompleteError,
)
from gently_bluesky.protocols import Volume
from gently_bluesky.read.run import Run
from tests.data_rig import (
    DEADLINE_S,
    SHAPE,
    Camera,
    connected,
    frame,
    frame_times,
    hold_pixels,
    hold_together,
    journal,
    manifest,
    names,
    newest,
    of,
    pixel_hash,
    record,
    run_folder,
    said_by,
    start_doc,
    stop_doc,
    stored,
    volume,
)
from tests.devices_rig import PLANES, SIZE, faults, simulated

pytestmark = pytest.mark.usefixtures("every_format")

Plan = Iterator[Msg]


def hold_numbers(run: Run, key: str = "cam", stream: str = "primary") -> list[int]:
    """Every event's volume is the one that its own number names; give the numbers."""
    images, numbers = run[stream][f"{key}_image"], run[stream][f"{key}_number"].tolist()
    for position, number in enumerate(numbers):
        np.testing.assert_array_equal(images.volume(position), volume(number, images.shape[1:], images.dtype))
    return [int(number) for number in numbers]


# --- the instrument -----------------------------------------------------------------------------------------


def test_two_views_of_the_instrument_are_two_data_keys_with_every_plane_in_its_place(root: Path) -> None:
    def plan(writer: FileWriter) -> Plan:
        dispim = simulated(sink=writer)
        yield from bps.mv(dispim.spim.views, "AB")
        yield from bp.count([dispim.spim], 3)

    run = record(root, plan)
    hold_together(list(run.documents()))
    hold_pixels(run)
    stream = run["primary"]
    assert sorted(stream.image_keys) == ["spim_a", "spim_b"]
    for code, key in ((1, "spim_a"), (2, "spim_b")):
        images = stream[key]
        assert images.shape == (3, PLANES, SIZE, SIZE)
        assert images.dims == ("event", "z", "y", "x")
        for event in range(3):
            assert images[event, :, 0, 0].tolist() == [code] * PLANES
            assert images[event, :, 0, 2].tolist() == list(range(PLANES))
        assert len(images.voxel_size_um or ()) == 3
        (entry,) = [each for each in manifest(run.folder) if (each["data_key"], each["index"]) == (key, 1)]
        assert frame_times(run.folder, entry) == stream[f"{key}_frame_times"][1].tolist()


def test_volumes_of_a_scan_of_the_instrument_stay_with_their_positions(root: Path) -> None:
    def plan(writer: FileWriter) -> Plan:
        dispim = simulated(sink=writer)
        yield from bp.scan([dispim.spim, det], dispim.xy_stage.x, 0, 20, 3)

    stream = record(root, plan)["primary"]
    assert stream["spim_a"].shape[0] == 3
    position = next(key for key in stream if key.startswith("xy_stage_x"))
    assert [float(value) for value in stream[position]] == pytest.approx([0, 10, 20], abs=0.5)


@pytest.mark.parametrize("fault", ["lost_frames", "missed_triggers", "overflow_after"])
def test_a_volume_from_which_the_hardware_lost_frames_fails_the_run_and_is_never_served(
    root: Path, fault: str
) -> None:
    with FileWriter(root) as writer:
        dispim, (run_engine, _) = simulated(sink=writer), connected(writer)

        def plan() -> Plan:
            yield from bps.open_run()
            yield from bps.trigger_and_read([dispim.spim])
            setattr(faults(dispim), fault, 2 if fault == "overflow_after" else {("HamCam1", 2)})
            yield from bps.trigger_and_read([dispim.spim])
            yield from bps.close_run()

        with pytest.raises(FailedStatus):
            run_engine(plan())
    run = newest(root)
    assert run.exit_status == "fail"
    assert len(run["primary"]) == 1
    assert run["primary"]["spim_a"][0, :, 0, 2].tolist() == list(range(PLANES))
    assert [entry["state"] for entry in manifest(run.folder)] == ["sealed", "aborted"]
    assert len(Catalog(root).volumes(include_bad=True)) == 1


# --- step scans ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["u1", "<u2", "<f4", ">u2", "<i8"])
@pytest.mark.parametrize("shape", [SHAPE, (1, 8, 16), (8, 16), (2, 3, 8, 16)])
def test_every_volume_of_a_count_is_in_its_event(root: Path, shape: tuple[int, ...], dtype: str) -> None:
    run = record(root, lambda writer: bp.count([Camera("cam", writer, shape=shape, dtype=dtype)], 3))
    assert hold_numbers(run) == [0, 1, 2]
    assert run["primary"]["cam_image"].shape == (3, *shape)
    hold_together(list(run.documents()))
    hold_pixels(run)
    assert list(run.documents()) == journal(run.folder)


def test_two_cameras_in_one_event_do_not_mix(root: Path) -> None:
    def plan(writer: FileWriter) -> Plan:
        two = Camera("two", writer, shape=(2, 4, 8))
        two.taken = 50
        yield from bp.count([Camera("one", writer), two, det], 3)

    run = record(root, plan)
    assert hold_numbers(run, "one") == [0, 1, 2]
    assert hold_numbers(run, "two") == [50, 51, 52]


def test_the_manifest_names_every_volume_with_the_hash_of_its_pixels(root: Path, every_format: str) -> None:
    run = record(root, lambda writer: bp.count([Camera("cam", writer)], 2))
    (resource,) = of(journal(run.folder), "stream_resource")
    assert [entry["xxh3_128"] for entry in manifest(run.folder)] == [pixel_hash(volume(i)) for i in range(2)]
    first = manifest(run.folder)[0]
    assert {key: value for key, value in first.items() if key not in {"xxh3_128", "details"}} == {
        "data_key": "cam_image",
        "resource": resource["uid"],
        "index": 0,
        "path": "cam_image/000000.ome.tif" if every_format == "ome-tiff" else "cam_image.ome.zarr",
        "format": every_format,
        "shape": list(SHAPE),
        "dtype": "<u2",
        "bytes": int(np.prod(SHAPE)) * 2,
        "state": "sealed",
    }
    place = "cam_image/" if every_format == "ome-tiff" else "cam_image.ome.zarr/0"
    assert resource["uri"] == f"file://localhost{run.folder}/{place}"


@pytest.mark.parametrize("order", [(3, 2, 1, 0), (1, 0, 3, 2), (0, 2, 1, 3)])
def test_frames_that_come_out_of_order_are_in_order_and_so_is_their_hash(
    root: Path, order: tuple[int, ...]
) -> None:
    def plan(writer: FileWriter) -> Plan:
        camera = Camera("cam", writer)
        camera.order = order
        return bp.count([camera], 2)

    run = record(root, plan)
    assert hold_numbers(run) == [0, 1]
    hold_pixels(run)


def test_the_file_says_which_event_it_belongs_to_and_what_was_read_with_it(root: Path) -> None:
    run = record(root, lambda writer: bp.count([Camera("cam", writer, embryo="e1", timepoint=4), motor]))
    (event,), (entry,) = of(journal(run.folder), "event"), manifest(run.folder)
    said = said_by(run.folder, entry)
    assert (said["run_uid"], said["event_uid"]) == (run.uid, event["uid"])
    assert said["embryo"] == "e1"
    assert [str(said[key]) for key in ("timepoint", "motor")] == ["4", str(event["data"]["motor"])]
    assert said["voxel_size_um"] == (0.5, 0.25, 0.25)
    assert said["channel"] == "cam channel"


def test_one_camera_may_be_in_two_streams_of_a_run(root: Path) -> None:
    def plan(writer: FileWriter) -> Plan:
        camera = Camera("cam", writer)
        yield from bps.open_run()
        for name in ("primary", "other", "primary"):
            yield from bps.trigger_and_read([camera], name=name)
        yield from bps.close_run()

    run = record(root, plan)
    assert hold_numbers(run) == [0, 2]
    assert hold_numbers(run, stream="other") == [1]


def test_a_camera_read_again_without_a_trigger_gives_its_volume_again(root: Path) -> None:
    def plan(writer: FileWriter) -> Plan:
        camera = Camera("cam", writer)
        yield from bps.open_run()
        for triggered in (True, False, True, False):
            if triggered:
                yield from bps.trigger(camera, wait=True)
            yield from bps.create("primary")
            yield from bps.read(camera)
            yield from bps.save()
        yield from bps.close_run()

    run = record(root, plan)
    assert hold_numbers(run) == [0, 0, 1, 1]
    assert len(manifest(run.folder)) == 2


@pytest.mark.parametrize("dropped", [(0,), (1,), (0, 1), (2,), (0, 2)])
def test_after_dropped_events_the_others_have_their_own_volumes(root: Path, dropped: tuple[int, ...]) -> None:
    def plan(writer: FileWriter) -> Plan:
        camera = Camera("cam", writer)
        yield from bps.open_run()
        for i in range(4):
            yield from bps.trigger(camera, wait=True)
            yield from bps.create("primary")
            yield from bps.read(camera)
            yield from bps.drop() if i in dropped else bps.save()
        yield from bps.close_run()

    run = record(root, plan)
    assert hold_numbers(run) == [i for i in range(4) if i not in dropped]
    hold_together(list(run.documents()))


def test_two_runs_in_one_stage_have_their_volumes_each(root: Path) -> None:
    def plan(writer: FileWriter) -> Plan:
        camera = Camera("cam", writer)
        yield from bps.stage(camera)
        for _ in range(2):
            yield from bps.open_run()
            yield from bps.trigger_and_read([camera])
            yield from bps.trigger_and_read([camera])
            yield from bps.close_run()
        yield from bps.unstage(camera)

    record(root, plan)
    catalog = Catalog(root)
    assert hold_numbers(catalog[-2]) == [0, 1]
    assert hold_numbers(catalog[-1]) == [2, 3]
    for run in catalog:
        hold_together(list(run.documents()))


def test_a_rewind_repeats_an_event_and_the_last_one_counts(root: Path) -> None:
    with FileWriter(root) as writer:
        camera, (run_engine, documents) = Camera("cam", writer), connected(writer)
        paused: list[bool] = []

        def plan() -> Plan:
            yield from bps.open_run()
            yield from bps.checkpoint()
            yield from bps.trigger_and_read([camera])
            yield from bps.checkpoint()
            yield from bps.trigger_and_read([camera])
            if not paused:
                paused.append(True)
                yield from bps.pause()
            yield from bps.checkpoint()
            yield from bps.trigger_and_read([camera])
            yield from bps.close_run()

        with pytest.raises(RunEngineInterrupted):
            run_engine(plan())
        run_engine.resume()
    assert [event["seq_num"] for event in of(documents, "event")] == [1, 2, 2, 3]
    run = newest(root)
    assert hold_numbers(run) == [0, 2, 3]
    assert run["primary"].seq_num.tolist() == [1, 2, 3]
    assert len(of(list(run.documents()), "event")) == 4
    hold_pixels(run)


def test_a_shape_that_changes_in_a_run_is_another_resource_and_each_volume_is_whole(root: Path) -> None:
    def plan(writer: FileWriter) -> Plan:
        camera = Camera("cam", writer)
        yield from bps.open_run()
        yield from bps.trigger_and_read([camera])
        camera.shape = (2, 8, 16)
        yield from bps.trigger_and_read([camera], name="shallow")
        yield from bps.close_run()

    run = record(root, plan)
    np.testing.assert_array_equal(run["primary"]["cam_image"].volume(0), volume(0))
    np.testing.assert_array_equal(run["shallow"]["cam_image"].volume(0), volume(1, (2, 8, 16)))
    assert len(of(journal(run.folder), "stream_resource")) == 2


# --- fly scans ----------------------------------------------------------------------------------------------


class Flyer(Camera):
    """A camera that takes a few volumes by itself once it is kicked off."""

    count = 4

    def kickoff(self) -> Any:
        return self.trigger()  # the first one is there before the first collect

    def complete(self) -> Any:
        for _ in range(self.count - 1):
            status = self.trigger()
        return status

    def describe_collect(self) -> dict[str, Any]:
        return {self.key: self.describe()[self.key]}

    def collect_asset_docs(self, index: int | None = None) -> Iterator[tuple[str, dict[str, Any]]]:
        # the RunEngine gives an index only where several are collected at once
        return super().collect_asset_docs(self.get_index() if index is None else index)


def test_a_fly_scan_has_a_row_for_every_volume_and_no_event(root: Path) -> None:
    def plan(writer: FileWriter) -> Plan:
        flyer = Flyer("cam", writer)
        yield from bps.open_run()
        yield from bps.declare_stream(flyer, name="primary", collect=True)
        yield from bps.kickoff(flyer, wait=True)
        yield from bps.collect(flyer, name="primary")
        yield from bps.complete(flyer, wait=True)
        yield from bps.collect(flyer, name="primary")
        yield from bps.close_run()

    run = record(root, plan)
    assert names(journal(run.folder)).count("stream_datum") == 2
    assert "event" not in names(journal(run.folder))
    images = run["primary"]["cam_image"]
    assert images.shape == (4, *SHAPE)
    for i in range(4):
        np.testing.assert_array_equal(images.volume(i), volume(i))
    assert run["primary"].seq_num.tolist() == [1, 2, 3, 4]
    hold_together(list(run.documents()))


def test_collecting_when_there_is_nothing_new_gives_no_datum(root: Path) -> None:
    with FileWriter(root) as writer:
        writer("start", start_doc())
        resource = writer.open_resource("cam", shape=(1, 2, 3), dtype="u1")
        assert list(resource.asset_docs()) == []
        assert list(resource.asset_docs(5)) == []
        for index in range(2):
            one = resource.new_volume()
            one.write(0, np.zeros((2, 3), "u1"))
            one.seal()
            assert resource.sealed == index + 1
        (_, first), (_, datum) = resource.asset_docs(1)
        assert first["uid"] == datum["stream_resource"] == resource.uid
        assert datum["indices"] == {"start": 0, "stop": 1}
        assert [doc["indices"] for name, doc in resource.asset_docs(9) if name == "stream_datum"] == [
            {"start": 0, "stop": 2}
        ]


# --- runs that do not end well ------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["abort", "halt", "stop"])
def test_a_run_that_is_cut_off_keeps_every_volume_that_it_had(root: Path, how: str) -> None:
    with FileWriter(root) as writer:
        camera, (run_engine, _) = Camera("cam", writer), connected(writer)

        def plan() -> Plan:
            yield from bps.open_run()
            for _ in range(2):
                yield from bps.trigger_and_read([camera])
            yield from bps.pause()
            yield from bps.close_run()

        with pytest.raises(RunEngineInterrupted):
            run_engine(plan())
        getattr(run_engine, how)()
    run = newest(root)
    assert run.exit_status == {"abort": "abort", "halt": "abort", "stop": "success"}[how]
    assert hold_numbers(run) == [0, 1]
    hold_pixels(run)


def test_a_plan_that_raises_leaves_a_failed_run_with_everything_before(root: Path) -> None:
    with FileWriter(root) as writer:
        camera, (run_engine, _) = Camera("cam", writer), connected(writer)

        def plan() -> Plan:
            yield from bps.open_run()
            yield from bps.trigger_and_read([camera])
            raise ZeroDivisionError("the plan")

        with pytest.raises(ZeroDivisionError):
            run_engine(plan())
        run_engine(bp.count([camera]))
    catalog = Catalog(root)
    assert catalog[-2].exit_status == "fail"
    assert "the plan" in str(catalog[-2].stop)
    assert hold_numbers(catalog[-2]) == [0]
    assert hold_numbers(catalog[-1]) == [1]


def test_a_volume_that_comes_short_fails_the_run_and_is_no_event(root: Path) -> None:
    with FileWriter(root) as writer:
        camera, (run_engine, documents) = Camera("cam", writer), connected(writer)

        def plan() -> Plan:
            yield from bps.open_run()
            yield from bps.trigger_and_read([camera])
            camera.order = [0, 2]
            yield from bps.trigger_and_read([camera])
            yield from bps.close_run()

        with pytest.raises(FailedStatus) as caught:
            run_engine(plan())
        assert isinstance(caught.value.__cause__, VolumeIncompleteError)
        said = r"2 frames of 4 came; missing planes: 1, 3"
        assert said in str(caught.value.__cause__)
        assert len(of(documents, "event")) == 1
    run = newest(root)
    assert run.exit_status == "fail"
    assert hold_numbers(run) == [0]
    short = manifest(run.folder)[1]
    assert short["state"] == "aborted"
    assert short["details"]["frames"] == 2
    assert said in short["details"]["reason"]
    kept = stored(run.folder, short)
    assert short["xxh3_128"] == pixel_hash(np.asarray(kept))
    np.testing.assert_array_equal(kept[[0, 2]], volume(1)[[0, 2]])


def test_a_trigger_that_fails_keeps_the_volumes_before_it(root: Path) -> None:
    def fail(volume: Volume) -> None:
        raise RuntimeError("the camera is on fire")

    with FileWriter(root) as writer:
        camera, (run_engine, _) = Camera("cam", writer), connected(writer)

        def plan() -> Plan:
            yield from bps.open_run()
            yield from bps.trigger_and_read([camera])
            camera.before_seal = fail
            yield from bps.trigger_and_read([camera])

        with pytest.raises(FailedStatus):
            run_engine(plan())
    run = newest(root)
    assert run.exit_status == "fail"
    assert hold_numbers(run) == [0]
    left = manifest(run.folder)[1]
    assert left["state"] == "aborted"
    assert left["details"]["reason"] == "the run ended before it was complete"
    assert left["details"]["frames"] == 4
    np.testing.assert_array_equal(stored(run.folder, left), volume(1))


def test_a_plan_that_goes_on_after_a_failed_trigger_does_not_serve_the_short_volume(root: Path) -> None:
    with FileWriter(root) as writer:
        camera, (run_engine, _) = Camera("cam", writer), connected(writer)

        def plan() -> Plan:
            yield from bps.open_run()
            for order in (range(4), [0], range(4)):
                camera.order = order
                try:
                    yield from bps.trigger(camera, wait=True)
                except FailedStatus:
                    continue
                yield from bps.create("primary")
                yield from bps.read(camera)
                yield from bps.save()
            yield from bps.close_run()

        run_engine(plan())
    run = newest(root)
    assert hold_numbers(run) == [0, 2]
    assert [datum["indices"]["start"] for datum in of(journal(run.folder), "stream_datum")] == [0, 2]


def test_an_event_that_names_no_volume_says_so_when_it_is_looked_at(root: Path) -> None:
    with FileWriter(root) as writer:
        documents = [("start", start_doc(uid="run"))]
        keys = {"cam": {"source": "t", "dtype": "array", "shape": [1, 2, 3], "external": "STREAM:"}}
        documents.append(("descriptor", {"uid": "d", "run_start": "run", "time": 1.0, "data_keys": keys}))
        event = {"uid": "e", "descriptor": "d", "time": 1.0, "seq_num": 1, "data": {}, "timestamps": {}}
        for name, document in [*documents, ("event", event)]:
            writer(name, document)
    with pytest.raises(FrameMissingError, match=r"cam, event 0 \(seq_num 1\), has no volume"):
        newest(root)["primary"]["cam"].volume(0)


# --- frames that have no place ------------------------------------------------------------------------------


@pytest.fixture
def open_volume(root: Path) -> Iterator[Volume]:
    with FileWriter(root) as writer:
        writer("start", start_doc())
        yield writer.open_resource("cam", shape=SHAPE, dtype="<u2").new_volume()


@pytest.mark.parametrize(
    ("z", "array", "said"),
    [
        (0, np.zeros((8, 15), "<u2"), r"takes frames of \(8, 16\) uint16; frame 0 is \(8, 15\)"),
        (0, np.zeros((1, 8, 16), "<u2"), r"frame 0 is \(1, 8, 16\)"),
        (0, np.zeros((8, 16), "<u4"), r"frame 0 is \(8, 16\) uint32"),
        (0, np.zeros((8, 16), "<i2"), r"frame 0 is \(8, 16\) int16"),
        (4, np.zeros((8, 16), "<u2"), r"has planes 0 to 3; frame 4 has no place"),
        (-1, np.zeros((8, 16), "<u2"), r"frame -1 has no place"),
    ],
)
def test_a_frame_that_does_not_fit_is_refused_by_name(open_volume: Volume, z: int, array: Any, said: str) -> None:
    with pytest.raises(FrameError, match=rf"Volume 0 of 'cam' \(.*cam(/000000\.ome\.tif|\.ome\.zarr)\) .*{said}"):
        open_volume.write(z, array)


def test_a_plane_is_not_written_twice(open_volume: Volume) -> None:
    open_volume.write(2, frame(0, 2))
    with pytest.raises(FrameError, match="has plane 2 already"):
        open_volume.write(2, frame(0, 2))


def test_a_sealed_volume_takes_nothing_more_and_is_not_aborted(open_volume: Volume, root: Path) -> None:
    for z in range(4):
        open_volume.write(z, frame(0, z))
    open_volume.seal()
    open_volume.abort("too late")
    with pytest.raises(FrameError, match="was sealed before frame 0 came"):
        open_volume.write(0, frame(0, 0))
    with pytest.raises(FrameError, match="was sealed already"):
        open_volume.seal()


def test_an_aborted_volume_takes_nothing_more(open_volume: Volume) -> None:
    open_volume.abort("first")
    open_volume.abort("second")
    with pytest.raises(FrameError, match="was aborted before frame 0 came"):
        open_volume.write(0, frame(0, 0))
    with pytest.raises(FrameError, match="was aborted already"):
        open_volume.seal()


@pytest.mark.parametrize(
    "given",
    [
        lambda array: array.astype(">u2"),
        np.asfortranarray,
        lambda array: np.repeat(array, 2, axis=1)[:, ::2],
        lambda array: array[::-1][::-1],
        lambda array: np.frombuffer(array.tobytes(), "<u2").reshape(array.shape),
    ],
    ids=["big-endian", "fortran", "strided", "reversed", "read-only"],
)
def test_frames_of_any_layout_in_memory_are_stored_as_they_look(root: Path, given: Any) -> None:
    with FileWriter(root) as writer:
        writer("start", start_doc())
        new = writer.open_resource("cam", shape=SHAPE, dtype="<u2").new_volume()
        for z in range(4):
            new.write(z, given(frame(1, z)))
        new.seal()
        writer.flush()
    (entry,) = manifest(run_folder(root))
    np.testing.assert_array_equal(stored(run_folder(root), entry), volume(1))
    assert entry["xxh3_128"] == pixel_hash(volume(1))


def test_no_document_names_a_volume_that_is_still_being_written(root: Path) -> None:
    with FileWriter(root) as writer:
        writer("start", start_doc(uid="run"))
        target = writer.open_resource("cam", shape=SHAPE, dtype="<u2")
        first, second = target.new_volume(), target.new_volume()
        for z in range(SHAPE[0]):
            second.write(z, frame(1, z))
        second.seal()
        assert list(target.asset_docs(2)) == []
        for z in range(SHAPE[0]):
            first.write(z, frame(0, z))
        first.seal()
        assert [name for name, _ in target.asset_docs(2)] == ["stream_resource", "stream_datum"]
        writer("stop", stop_doc("run"))


def test_a_frame_is_not_kept_its_memory_may_be_used_again(root: Path) -> None:
    with FileWriter(root) as writer:
        writer("start", start_doc())
        new = writer.open_resource("cam", shape=SHAPE, dtype="<u2").new_volume()
        buffer = np.empty(SHAPE[1:], "<u2")
        for z in range(4):
            buffer[:] = frame(0, z)
            new.write(z, buffer)
            buffer[:] = 0
        new.seal()
        writer.flush()
    np.testing.assert_array_equal(stored(run_folder(root), *manifest(run_folder(root))), volume(0))


def test_a_datum_for_a_volume_that_is_not_sealed_is_refused(root: Path) -> None:
    with FileWriter(root) as writer:
        camera, (run_engine, _) = Camera("cam", writer), connected(writer)

        def too_early(index: int | None = None) -> Iterator[tuple[str, dict[str, Any]]]:
            for name, doc in camera._resource.asset_docs():
                yield name, doc | ({"indices": {"start": 1, "stop": 2}} if name == "stream_datum" else {})

        camera.collect_asset_docs = too_early  # type: ignore[method-assign]
        with pytest.raises(ValueError, match=r"names volumes up to 2 of 'cam_image'; 1 are sealed"):
            run_engine(bp.count([camera]))
    assert newest(root).exit_status == "fail"


# --- its files and threads ----------------------------------------------------------------------------------


def open_under(root: Path) -> list[str]:
    links = [f"/proc/self/fd/{name}" for name in os.listdir("/proc/self/fd")]  # noqa: PTH208
    targets = [os.readlink(link) for link in links if os.path.lexists(link)]  # noqa: PTH115
    return [target for target in targets if target.startswith(str(root))]


@pytest.mark.parametrize("fails", [False, True])
def test_no_file_stays_open_after_a_run(root: Path, fails: bool) -> None:
    with FileWriter(root) as writer:
        camera, (run_engine, _) = Camera("cam", writer, odd=0), connected(writer)

        def plan() -> Plan:
            yield from bps.open_run()
            for i in range(3):
                yield from bps.trigger_and_read([camera])
                if fails and i == 1:
                    camera.scalars["odd"] = object()
            yield from bps.close_run()

        with pytest.raises(DocumentError) if fails else contextlib.nullcontext():
            run_engine(plan())
        assert open_under(root) == []


def test_a_writer_closed_while_a_volume_is_open_closes_its_file(root: Path) -> None:
    with FileWriter(root) as writer:
        writer("start", start_doc())
        new = writer.open_resource("cam", shape=SHAPE, dtype="<u2").new_volume()
        new.write(0, frame(0, 0))
        assert open_under(root / "runs")
    assert open_under(root) == []
    with pytest.raises(FrameError, match="was aborted"):
        new.write(1, frame(0, 1))


def test_a_volume_aborted_while_another_thread_writes_never_writes_into_a_closed_file(root: Path) -> None:
    errors: list[BaseException] = []
    with FileWriter(root) as writer:
        writer("start", start_doc())
        resource = writer.open_resource("cam", shape=(2000, 8, 16), dtype="<u2")
        new, begun = resource.new_volume(), threading.Event()

        def acquire() -> None:
            try:
                for z in range(2000):
                    new.write(z, frame(0, z))
                    begun.set()
            except (FrameError, OSError) as error:
                errors.append(error)

        thread = threading.Thread(target=acquire)
        thread.start()
        assert begun.wait(DEADLINE_S)
        new.abort("enough")
        writer.flush()
        thread.join(DEADLINE_S)
    assert [type(error) for error in errors] == [FrameError]
    (entry,) = manifest(run_folder(root))
    assert entry["details"]["frames"] == np.count_nonzero(frame_times(run_folder(root), entry))


def test_several_threads_may_write_into_several_volumes_at_once(root: Path) -> None:
    with FileWriter(root) as writer:
        writer("start", start_doc())
        resources = [writer.open_resource(f"cam{i}", shape=SHAPE, dtype="<u2") for i in range(4)]

        def acquire(i: int) -> None:
            for number in range(10):
                new = resources[i].new_volume()
                for z in range(4):
                    new.write(z, frame(10 * i + number, z))
                new.seal()

        threads = [threading.Thread(target=acquire, args=(i,)) for i in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(DEADLINE_S)
        writer.flush()
    entries = manifest(run_folder(root))
    assert len(entries) == 40
    for entry in entries:
        expected = volume(10 * int(entry["data_key"][3:]) + entry["index"])
        assert entry["xxh3_128"] == pixel_hash(expected)
        np.testing.assert_array_equal(stored(run_folder(root), entry), expected)


def test_interrupting_a_replay_with_the_keyboard_lets_go_of_the_run(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with FileWriter(root) as writer:
        writer("start", start_doc(uid="run"))
        (recorder,) = writer._runs.values()
        new = writer.open_resource("cam", shape=SHAPE, dtype="<u2").new_volume()
        new.write(0, frame(0, 0))
        wait = recorder.finished.wait

        def interrupted(timeout: float | None = None) -> bool:
            wait(timeout)
            raise KeyboardInterrupt

        monkeypatch.setattr(recorder.finished, "wait", interrupted)
        with pytest.raises(KeyboardInterrupt):
            writer("stop", {"uid": "s", "time": 1.0, "run_start": "run", "exit_status": "success"})
        assert open_under(root) == []
        assert newest(root).exit_status == "success"
        with pytest.raises(NoOpenRunError, match="No run is open"):
            writer.open_resource("cam", shape=SHAPE, dtype="<u2")


@pytest.mark.parametrize("stages", [1, 2])
def test_staging_in_a_finalized_plan_changes_nothing(root: Path, stages: int) -> None:
    def plan(writer: FileWriter) -> Plan:
        camera = Camera("cam", writer)
        for _ in range(stages):
            yield from bpp.stage_wrapper(bpp.run_wrapper(bps.trigger_and_read([camera])), [camera])

    record(root, plan)
    assert [hold_numbers(run) for run in Catalog(root)] == [[i] for i in reversed(range(stages))]


def test_a_geometry_that_changes_within_a_stream_fails_the_run(root: Path) -> None:
    with FileWriter(root) as writer:
        run_engine, _ = connected(writer)
        camera = Camera("cam", writer)

        def plan() -> Plan:
            yield from bps.trigger_and_read([camera])
            camera.shape = (2, 8, 16)
            yield from bps.trigger_and_read([camera])

        with pytest.raises(DocumentError, match="One stream has one geometry"):
            run_engine(bpp.run_wrapper(plan()))
    run = newest(root)
    assert run.exit_status == "fail"
    assert hold_numbers(run) == [0]


def test_a_volume_whose_event_never_came_is_not_served_as_good(root: Path) -> None:
    with FileWriter(root) as writer:
        run_engine, _ = connected(writer)
        with pytest.raises(DocumentError):
            run_engine(bp.count([Camera("cam", writer, odd=object())]))
    stream = newest(root)["primary"]
    with pytest.raises(BadVolumeError):
        stream["cam_image"].volume(0)
    np.testing.assert_array_equal(stream["cam_image"].volume(0, include_bad=True), volume(0))
    assert not Catalog(root).volumes()


@pytest.mark.parametrize("said", ["False", "bad", float("nan"), -1, [False], 0, False])
def test_whatever_is_said_of_an_event_but_yes_is_no(root: Path, said: object) -> None:
    run = record(root, lambda writer: bp.count([Camera("cam", writer, good=said)]))
    with pytest.raises(BadVolumeError):
        run["primary"]["cam_image"].volume(0)
    assert not Catalog(root).volumes()
    assert len(Catalog(root).volumes(include_bad=True)) == 1
