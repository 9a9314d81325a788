"""Arrays inside events of any ophyd device: what goes to files, and what the documents then say."""

import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import bluesky.plan_stubs as bps
import bluesky.plans as bp
import bluesky.preprocessors as bpp
import event_model
import numpy as np
import ophyd.sim
import pytest
import tifffile
from bluesky import Msg
from numpy.typing import NDArray
from ophyd import Signal

from gently_bluesky import FileWriter
from gently_bluesky.errors import GeometryError
from gently_bluesky.read.run import Run
from tests.data_rig import (
    Camera,
    Inline,
    as_json,
    connected,
    feed,
    hold_pixels,
    hold_together,
    inline,
    journal,
    manifest,
    names,
    newest,
    of,
    pixel_hash,
    record,
    run_folder,
    start_doc,
    stored,
    volume,
)

pytestmark = pytest.mark.usefixtures("every_format")

Plan = Iterator[Msg]
LIMIT = 1000  # bytes, in these tests


def counted(root: Path, device: Any, num: int = 1, **options: Any) -> Run:
    """Count a device."""
    return record(root, bp.count([device], num), **({"inline_limit_bytes": LIMIT} | options))


def key_of(run: Run, key: str, descriptor: int = -1) -> dict[str, Any]:
    """A data key as journalled."""
    return dict(of(journal(run.folder), "descriptor")[descriptor]["data_keys"][key])


class Duck:
    """Something that numpy makes an array of."""

    def __init__(self, array: NDArray[Any]) -> None:
        self._array = array

    def __array__(self, dtype: Any = None, copy: Any = None) -> NDArray[Any]:
        return self._array


# --- what goes where ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("size", "external"), [(LIMIT - 1, None), (LIMIT, None), (LIMIT + 1, "STREAM:")])
def test_the_limit_is_the_largest_array_that_stays_in_its_event(
    root: Path, size: int, external: str | None
) -> None:
    array = (np.arange(size) % 251).astype(np.uint8)
    run = counted(root, inline("img", array))
    assert key_of(run, "img").get("external") == external
    assert key_of(run, "img")["shape"] == [size]
    np.testing.assert_array_equal(run["primary"]["img"][0], array)
    assert len(manifest(run.folder)) == (1 if external else 0)
    assert ("img" in of(journal(run.folder), "event")[0]["data"]) is (external is None)


def test_without_being_told_the_limit_is_64_kib(root: Path) -> None:
    two = Inline("two", lambda: {"small": np.zeros(65536, "u1"), "big": np.zeros(65537, "u1")}, {
        "small": {"source": "t", "dtype": "array", "shape": [65536]},
        "big": {"source": "t", "dtype": "array", "shape": [65537]},
    })  # fmt: skip
    run = record(root, bp.count([two]))
    assert run["primary"].image_keys == ["big"]


@pytest.mark.parametrize(
    "dtype", ["u1", "i1", "<u2", "<i2", "<u4", "<i4", "<f4", "<f8", "<i8", "<u8", "?", "<c8", "<f2"]
)
@pytest.mark.parametrize("shape", [(600,), (30, 40), (4, 20, 30), (2, 3, 20, 30), (2, 1, 3, 20, 30)])
def test_an_array_of_any_type_and_shape_comes_back_and_others_read_its_file(
    root: Path, shape: tuple[int, ...], dtype: str
) -> None:
    array = (np.arange(np.prod(shape)).reshape(shape) % 101).astype(dtype)
    run = counted(root, inline("img", array, array), 2, inline_limit_bytes=100)
    images = run["primary"]["img"]
    assert images.shape == (2, *shape)
    assert images.dtype == np.dtype(dtype)
    for event in range(2):
        np.testing.assert_array_equal(images.volume(event), array)
    entry = manifest(run.folder)[1]
    path = run.folder / entry["path"]
    if entry["format"] == "ome-zarr":
        foreign = stored(run.folder, entry)
    else:
        foreign = np.load(path) if path.suffix == ".npy" else tifffile.imread(path)
    np.testing.assert_array_equal(np.asarray(foreign).reshape(shape), array)
    assert entry["xxh3_128"] == pixel_hash(array)
    assert key_of(run, "img")["dtype_numpy"] == np.dtype(dtype).newbyteorder("<").str
    hold_together(list(run.documents()))


@pytest.mark.parametrize(
    "make",
    [
        lambda array: array.astype(">u2"),
        np.asfortranarray,
        lambda array: np.repeat(array, 3, axis=0)[::3],
        lambda array: array[::-1, ::-1][::-1, ::-1],
        np.ma.MaskedArray,
        Duck,
    ],
    ids=["big-endian", "fortran", "strided", "reversed", "masked", "array-like"],
)
def test_an_array_of_any_layout_is_stored_as_it_looks(root: Path, make: Any) -> None:
    array = volume(3, (30, 40))
    run = counted(root, inline("img", make(array)))
    np.testing.assert_array_equal(run["primary"]["img"].volume(0), array)
    assert manifest(run.folder)[0]["xxh3_128"] == pixel_hash(array)
    assert key_of(run, "img")["dtype_numpy"] == "<u2"


@pytest.mark.parametrize(
    "value",
    [
        "text" * 1000,
        list(range(1000)),
        [[1] * 50] * 50,
        np.array(["a" * 50] * 100),
        np.array([{"a": 1}, None] * 300, object),
        {"nested": [1.5] * 500},
        3.5,
        np.float32(2.5),
        True,
        None,
        b"bytes" * 300,
        np.array(7),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_is_no_array_of_numbers_stays_in_its_event(root: Path, value: Any) -> None:
    run = counted(root, inline("it", value))
    assert manifest(run.folder) == []
    expected = value.tolist() if isinstance(value, np.ndarray | np.generic) else value
    ((_, event),) = [pair for pair in run.documents() if pair[0] == "event"]
    assert event["data"]["it"] == expected


# --- descriptors that are wrong -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "entry",
    [
        {"dtype": "number", "shape": []},
        {"dtype": "array", "shape": [10]},
        {"dtype": "array", "shape": [40, 30, 1]},
        {"dtype": "array", "shape": [30, 40], "dtype_numpy": "<f8"},
        {"dtype": "integer", "shape": [], "dtype_numpy": "<i8", "units": "counts"},
        {"dtype": "array", "shape": [10], "dims": ["x"]},
        {"dtype": "array", "shape": [30, 40], "dims": ["y", "x"]},
    ],
)
def test_the_journal_says_what_came_whatever_the_device_described(root: Path, entry: dict[str, Any]) -> None:
    array = volume(1, (30, 40))
    run = counted(root, inline("img", array, **entry))
    said = key_of(run, "img")
    assert said["shape"] == [30, 40]
    assert said["dtype"] == "array"
    assert said["dtype_numpy"] == "<u2"
    assert said["external"] == "STREAM:"
    assert said.get("units") == entry.get("units")
    assert said.get("dims", ["y", "x"]) == ["y", "x"]
    np.testing.assert_array_equal(run["primary"]["img"].volume(0), array)
    hold_together(list(run.documents()))


def test_a_descriptor_that_is_right_keeps_its_uid_and_everything_else(root: Path) -> None:
    with FileWriter(root) as writer:
        run_engine, documents = connected(writer)
        entry = {
            "dtype": "array",
            "shape": [3],
            "dtype_numpy": "<f8",
            "limits": {"control": {"low": 0, "high": 1}},
        }
        run_engine(bp.count([inline("trace", *np.ones((2, 3)), **entry)], 2))
    assert journal(newest(root).folder) == as_json(documents)


def test_the_first_descriptor_keeps_its_uid_even_where_it_is_corrected(root: Path) -> None:
    with FileWriter(root, inline_limit_bytes=LIMIT) as writer:
        run_engine, documents = connected(writer)
        run_engine(bp.count([inline("img", volume(0, (30, 40)))]))
    (emitted,), (journalled,) = of(documents, "descriptor"), of(journal(newest(root).folder), "descriptor")
    assert journalled["uid"] == emitted["uid"]
    assert {**journalled, "data_keys": {}} == as_json([("", {**emitted, "data_keys": {}})])[0][1]


def test_configuration_of_nan_survives_a_correction(root: Path) -> None:
    run = event_model.compose_run()
    stream = run.compose_descriptor(
        name="primary",
        data_keys={"x": {"source": "t", "dtype": "number", "shape": []}},
        configuration={"x": {"data": {"gain": float("nan")}, "timestamps": {"gain": 1.0}, "data_keys": {}}},
    )
    event = stream.compose_event(data={"x": np.ones(500)}, timestamps={"x": 1.0}, validate=False)
    documents: list[tuple[str, Any]] = [("start", run.start_doc), ("descriptor", stream.descriptor_doc)]
    found = feed(root, [*documents, ("event", event), ("stop", run.compose_stop())], inline_limit_bytes=LIMIT)
    assert repr(found["primary"].configuration()["x"]["gain"]) == "nan"


@pytest.mark.parametrize("name", ["direct_img", "img", "direct_img_list"])
def test_images_of_ophyd_sim_come_through(root: Path, name: str) -> None:
    if name == "direct_img_list":
        device = ophyd.sim.DirectImage(func=lambda: [[1] * 10] * 10, name="direct", labels={"detectors"})
        device.img.name = name
        expected: Any = [[1] * 10] * 10
    else:
        device = ophyd.sim.hw().direct_img
        expected = np.ones((10, 10))
    run = counted(root, device, 2, inline_limit_bytes=100)
    (key,) = [key for key in run["primary"] if "img" in key]
    value = run["primary"][key]
    assert (key in run["primary"].image_keys) is (name != "direct_img_list")
    np.testing.assert_array_equal(value[1], expected)
    hold_together(list(run.documents()))


# --- what changes in a run ----------------------------------------------------------------------------------


def test_another_shape_or_type_gives_another_descriptor_and_stream_resource(root: Path) -> None:
    arrays = [volume(0, (30, 40)), volume(1, (40, 30)), volume(2, (40, 30)).astype("<f4"), volume(3, (30, 40))]
    run = counted(root, inline("img", *arrays), 4)
    descriptors = of(journal(run.folder), "descriptor")
    assert [(d["data_keys"]["img"]["shape"], d["data_keys"]["img"]["dtype_numpy"]) for d in descriptors] == [
        ([30, 40], "<u2"),
        ([40, 30], "<u2"),
        ([40, 30], "<f4"),
    ]
    assert len({d["uid"] for d in descriptors}) == 3
    assert {d["name"] for d in descriptors} == {"primary"}
    assert len(of(journal(run.folder), "stream_resource")) == 3
    events = of(journal(run.folder), "event")
    assert [event["descriptor"] for event in events] == [descriptors[i]["uid"] for i in (0, 1, 2, 0)]
    images = run["primary"]["img"]
    for i, array in enumerate(arrays):
        np.testing.assert_array_equal(images.volume(i), array)
    with pytest.raises(GeometryError, match=r"has volumes of .*\(30, 40\) uint16.*\(40, 30\) float32"):
        _ = images.shape
    hold_together(list(run.documents()))
    hold_pixels(run)


def test_an_array_that_grows_over_the_limit_goes_to_a_file_from_then_on(root: Path) -> None:
    arrays = [np.arange(n, dtype=np.uint8) for n in (10, 200, 10)]
    run = counted(root, inline("img", *arrays), 3, inline_limit_bytes=100)
    assert [key_of(run, "img", i).get("external") for i in range(2)] == [None, "STREAM:"]
    events = of(journal(run.folder), "event")
    assert [event["data"].get("img") for event in events] == [arrays[0].tolist(), None, arrays[2].tolist()]
    images = run["primary"].images("img")
    for i, array in enumerate(arrays):
        np.testing.assert_array_equal(images.volume(i), array)
        assert images.volume(i).dtype == np.uint8


def test_a_number_that_becomes_an_array_and_back_is_what_it_was_in_each_event(root: Path) -> None:
    values: list[Any] = [1.5, np.full(300, 2.5), 3.5]
    run = counted(root, inline("it", *values), 3)
    data = [event["data"].get("it") for event in of(journal(run.folder), "event")]
    assert data == [1.5, None, 3.5]
    np.testing.assert_array_equal(run["primary"].images("it").volume(1), values[1])


def test_memory_that_the_device_uses_again_at_once_does_not_change_the_event(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from gently_bluesky.write.recorder import RunRecorder

    gate, commit = threading.Event(), RunRecorder.commit

    def gated(self: RunRecorder, *arguments: Any) -> Any:
        if self.begun.is_set():  # the start is waited for
            gate.wait(30)
        return commit(self, *arguments)

    monkeypatch.setattr(RunRecorder, "commit", gated)
    buffers = {"big": np.zeros((30, 40), "<u2"), "small": np.zeros(3, "<u2")}
    expected: list[dict[str, Any]] = []

    def read() -> Mapping[str, Any]:
        for buffer in buffers.values():
            buffer[:] = len(expected) + 1
        expected.append({key: buffer.copy() for key, buffer in buffers.items()})
        return buffers

    keys = {key: {"source": "t", "dtype": "array", "shape": list(b.shape)} for key, b in buffers.items()}

    def plan() -> Plan:
        yield from bp.count([Inline("cam", read, keys)], 3)

    with FileWriter(root, inline_limit_bytes=LIMIT) as writer:
        run_engine, _ = connected(writer)

        stop = writer._stop  # it waits for everything: the gate opens before it

        def open_gate(doc: Any) -> None:
            gate.set()
            stop(doc)

        monkeypatch.setattr(writer, "_stop", open_gate)
        run_engine(plan())
    stream = newest(root)["primary"]
    for i, values in enumerate(expected):
        np.testing.assert_array_equal(stream["big"].volume(i), values["big"])
        np.testing.assert_array_equal(stream["small"][i], values["small"])


# --- every way in which events come -------------------------------------------------------------------------


def test_dropped_events_leave_no_file_and_the_others_keep_their_arrays(root: Path) -> None:
    device = inline("img", *(volume(i, (30, 40)) for i in range(4)))

    def plan() -> Plan:
        yield from bps.open_run()
        for i in range(4):
            yield from bps.create("primary")
            yield from bps.read(device)
            yield from bps.drop() if i in (0, 2) else bps.save()
        yield from bps.close_run()

    run = record(root, plan(), inline_limit_bytes=LIMIT)
    images = run["primary"]["img"]
    for event, number in enumerate((1, 3)):
        np.testing.assert_array_equal(images.volume(event), volume(number, (30, 40)))
    assert len(manifest(run.folder)) == 2


@pytest.mark.parametrize("piece", ["event_page", "bulk_events"])
def test_arrays_in_events_that_come_in_one_piece_go_to_files_too(root: Path, piece: str) -> None:
    run = event_model.compose_run()
    keys = {key: {"source": "t", "dtype": "number", "shape": []} for key in ("img", "x")}
    stream = run.compose_descriptor(name="primary", data_keys=keys)
    events = [
        stream.compose_event(
            data={"img": volume(i, (30, 40)), "x": i}, timestamps={"img": 1.0, "x": 1.0}, validate=False
        )
        for i in range(3)
    ]
    packed: Any = event_model.pack_event_page(*events) if piece == "event_page" else {"primary": events}
    documents: list[tuple[str, Any]] = [("start", run.start_doc), ("descriptor", stream.descriptor_doc)]
    found = feed(root, [*documents, (piece, packed), ("stop", run.compose_stop())], inline_limit_bytes=LIMIT)
    for i in range(3):
        np.testing.assert_array_equal(found["primary"]["img"].volume(i), volume(i, (30, 40)))
    assert found["primary"]["x"].tolist() == [0, 1, 2]
    assert [row.uid for row in found["primary"].rows] == [event["uid"] for event in events]


def test_an_event_page_whose_column_is_one_array_is_cut_into_events(root: Path) -> None:
    run = event_model.compose_run()
    stream = run.compose_descriptor(
        name="primary", data_keys={"img": {"source": "t", "dtype": "array", "shape": [30, 40]}}
    )
    pixels = np.stack([volume(i, (30, 40)) for i in range(3)])
    columns: Any = {"img": pixels}
    page = stream.compose_event_page(
        data=columns,
        timestamps={"img": [1.0] * 3},
        seq_num=[1, 2, 3],
        validate=False,
    )
    documents: list[tuple[str, Any]] = [("start", run.start_doc), ("descriptor", stream.descriptor_doc)]
    found = feed(root, [*documents, ("event_page", page), ("stop", run.compose_stop())], inline_limit_bytes=LIMIT)
    np.testing.assert_array_equal(found["primary"]["img"][:], pixels)


def test_arrays_of_monitors_and_baselines_have_files_of_their_own(root: Path) -> None:
    signal = Signal(name="img", value=volume(0, (30, 40)))

    def plan() -> Plan:
        for i in (1, 2):
            yield from bps.abs_set(signal, volume(i, (30, 40)), wait=True)

    monitored = bpp.monitor_during_wrapper(bpp.run_wrapper(plan()), [signal])
    run = record(root, bpp.baseline_wrapper(monitored, [signal]), inline_limit_bytes=LIMIT)
    baseline, monitor = run["baseline"]["img"], run["img_monitor"]["img"]
    np.testing.assert_array_equal(baseline.volume(0), volume(0, (30, 40)))
    np.testing.assert_array_equal(baseline.volume(-1), volume(2, (30, 40)))
    np.testing.assert_array_equal(monitor.volume(-1), volume(2, (30, 40)))
    hold_together(list(run.documents()))
    hold_pixels(run)


def test_a_rewound_event_with_an_array_is_the_last_one(root: Path) -> None:
    from bluesky.utils import RunEngineInterrupted

    device, paused = inline("img", *(volume(i, (30, 40)) for i in range(4))), [False]

    def plan() -> Plan:
        yield from bps.open_run()
        yield from bps.checkpoint()
        yield from bps.trigger_and_read([device])
        yield from bps.checkpoint()
        yield from bps.trigger_and_read([device])
        if not paused[0]:
            paused[0] = True
            yield from bps.pause()
        yield from bps.close_run()

    with FileWriter(root, inline_limit_bytes=LIMIT) as writer:
        run_engine, _ = connected(writer)
        with pytest.raises(RunEngineInterrupted):
            run_engine(plan())
        run_engine.resume()
    images = newest(root)["primary"]["img"]
    assert len(images) == 2
    np.testing.assert_array_equal(images.volume(0), volume(0, (30, 40)))
    np.testing.assert_array_equal(images.volume(1), volume(2, (30, 40)))


def test_a_camera_that_streams_and_one_that_does_not_are_in_one_event(root: Path) -> None:
    def plan(writer: FileWriter) -> Plan:
        arrays = inline("img", *(volume(10 + i, (30, 40)) for i in range(3)))
        return bp.count([Camera("cam", writer), arrays], 3)

    run = record(root, plan, inline_limit_bytes=LIMIT)
    stream = run["primary"]
    assert len(stream.descriptors) == 1
    assert sorted(stream.image_keys) == ["cam_image", "img"]
    for i in range(3):
        np.testing.assert_array_equal(stream["cam_image"].volume(i), volume(i))
        np.testing.assert_array_equal(stream["img"].volume(i), volume(10 + i, (30, 40)))
    hold_together(list(run.documents()))
    hold_pixels(run)


def test_filled_events_of_others_are_stored_and_their_descriptor_says_so(root: Path) -> None:
    run = event_model.compose_run()
    key: Any = {"source": "t", "dtype": "array", "shape": [30, 40], "external": "FILESTORE:"}
    stream = run.compose_descriptor(name="primary", data_keys={"img": key})
    event = stream.compose_event(
        data={"img": volume(0, (30, 40))}, timestamps={"img": 1.0}, filled={"img": True}, validate=False
    )
    documents: list[tuple[str, Any]] = [("start", run.start_doc), ("descriptor", stream.descriptor_doc)]
    found = feed(root, [*documents, ("event", event), ("stop", run.compose_stop())], inline_limit_bytes=LIMIT)
    np.testing.assert_array_equal(found["primary"]["img"].volume(0), volume(0, (30, 40)))
    assert of(journal(found.folder), "event")[0]["filled"] == {}
    hold_together(list(found.documents()))


def test_a_stream_that_never_had_an_event_has_its_descriptor_as_it_came(root: Path) -> None:
    run = event_model.compose_run()
    key: Any = {"source": "t", "dtype": "array", "shape": [10]}
    stream = run.compose_descriptor(name="primary", data_keys={"img": key})
    documents: list[tuple[str, Any]] = [("start", run.start_doc), ("descriptor", stream.descriptor_doc)]
    found = feed(root, [*documents, ("stop", run.compose_stop())])
    assert names(journal(found.folder)) == ["start", "descriptor", "stop"]
    assert key_of(found, "img") == key
    assert len(found["primary"]) == 0


def test_a_datum_waits_for_the_event_that_decides_its_descriptor_but_not_for_a_second_one(root: Path) -> None:
    keys = {
        "cam": {"source": "t", "dtype": "array", "shape": [1], "external": "STREAM:"},
        "x": {"source": "t", "dtype": "number", "shape": []},
    }
    resource = {
        "uid": "r",
        "run_start": "run",
        "data_key": "cam",
        "mimetype": "m",
        "uri": "file:///x",
        "parameters": {},
    }
    with FileWriter(root) as writer:
        writer("start", start_doc(uid="run"))
        writer("descriptor", {"uid": "d", "run_start": "run", "time": 1.0, "name": "primary", "data_keys": keys})
        writer("stream_resource", resource)
        seen = []
        for i in range(3):
            ranges = {"indices": {"start": i, "stop": i + 1}, "seq_nums": {"start": i + 1, "stop": i + 2}}
            writer("stream_datum", {"uid": f"sd{i}", "stream_resource": "r", "descriptor": "d", **ranges})
            writer.flush()
            seen.append(names(journal(run_folder(root))))
        writer("stop", {"uid": "s", "time": 1.0, "run_start": "run", "exit_status": "success"})
    begin = ["start", "descriptor", "stream_resource"]
    assert seen == [["start"], [*begin, *["stream_datum"] * 2], [*begin, *["stream_datum"] * 3]]
    assert len(newest(root)["primary"]) == 3


def test_a_datum_that_waited_to_the_end_is_journalled_before_the_stop(root: Path) -> None:
    keys = {
        "cam": {"source": "t", "dtype": "array", "shape": [1], "external": "STREAM:"},
        "x": {"source": "t", "dtype": "number", "shape": []},
    }
    resource = {
        "uid": "r",
        "run_start": "run",
        "data_key": "cam",
        "mimetype": "m",
        "uri": "file:///x",
        "parameters": {},
    }
    ranges = {"indices": {"start": 0, "stop": 4}, "seq_nums": {"start": 1, "stop": 5}}
    documents = [
        ("start", start_doc(uid="run")),
        ("descriptor", {"uid": "d", "run_start": "run", "time": 1.0, "name": "primary", "data_keys": keys}),
        ("stream_resource", resource),
        ("stream_datum", {"uid": "sd", "stream_resource": "r", "descriptor": "d", **ranges}),
        ("stop", {"uid": "s", "time": 1.0, "run_start": "run", "exit_status": "success"}),
    ]
    assert journal(feed(root, documents).folder) == documents
