import threading
from collections.abc import Iterator
from typing import Any

import bluesky.plan_stubs as bps
import bluesky.plans as bp
import numpy as np
import pytest
from bluesky import Msg
from bluesky.utils import ProgressBar
from ophyd.utils import LimitError

from devices import Configuration, Dispim, ManualClock, demo_embryos, simulated_dispim
from devices.status import FramesStatus
from gently_bluesky.errors import PresetError, ReadingError
from tests.devices_rig import (
    DARK,
    PLANES,
    SIZE,
    B,
    Documents,
    MemorySink,
    engine,
    of,
    simulated,
    validate,
    wait_until,
    with_sink,
)

Plan = Iterator[Msg]


def both_views(dispim: Dispim, num: int = 1) -> Plan:
    yield from bps.mv(dispim.spim.views, "AB")
    yield from bp.count([dispim.spim], num)


@pytest.mark.parametrize(("views", "keys"), [("A", ["a"]), ("B", ["b"]), ("AB", ["a", "b"])])
def test_frames_come_out_at_their_view_and_plane(views: str, keys: list[str]) -> None:
    dispim, sink, run_engine, documents = with_sink()
    run_engine(bps.mv(dispim.spim.views, views))
    run_engine(bp.count([dispim.spim], 2))
    validate(documents)
    assert sorted(sink.runs[-1]) == [f"spim_{key}" for key in keys]
    for key in keys:
        for volume in sink.volumes(f"spim_{key}"):
            assert volume.sealed
            assert volume.array.shape == (PLANES, SIZE, SIZE)
            assert volume.array[:, 0, 0].tolist() == ["?ab".index(key)] * PLANES
            assert volume.array[:, 0, 1].tolist() == list(range(PLANES))
            assert volume.array[:, 0, 2].tolist() == list(range(PLANES))


def test_frames_come_out_at_their_view_and_plane_in_the_event_too() -> None:
    run_engine, documents = engine()
    dispim = simulated()
    run_engine(both_views(dispim, 2))
    validate(documents)
    descriptor = of(documents, "descriptor")[0]
    for event in of(documents, "event"):
        assert set(event["data"]) == set(descriptor["data_keys"])
        for code, name in ((1, "spim_a"), (2, "spim_b")):
            volume, key = event["data"][name], descriptor["data_keys"][name]
            assert list(volume.shape) == key["shape"] == [PLANES, SIZE, SIZE]
            assert volume.dtype == np.dtype(key["dtype_numpy"])
            assert volume[:, 0, 0].tolist() == [code] * PLANES
            assert volume[:, 0, 1].tolist() == list(range(PLANES))
            assert "external" not in key


def test_an_event_keeps_its_volume_when_the_next_one_is_taken() -> None:
    run_engine, documents = engine()
    run_engine(bp.count([simulated().spim], 2))
    first, second = (event["data"]["spim_a"] for event in of(documents, "event"))
    assert not np.shares_memory(first, second)


def test_a_stream_key_says_what_a_reader_needs() -> None:
    dispim, _, run_engine, documents = with_sink()
    run_engine(both_views(dispim))
    key = of(documents, "descriptor")[0]["data_keys"]["spim_b"]
    assert key == {
        "source": "mmcore:HamCam2",
        "dtype": "array",
        "dtype_numpy": "<u2",
        "shape": [PLANES, SIZE, SIZE],
        "dims": ["z", "y", "x"],
        "units": "counts",
        "external": "STREAM:",
        "view": "B",
        "voxel_size_um": ["spim_z_step_um", 0.1625, 0.1625],
        "exposure_ms": "spim_exposure_ms",
        "channel": "spim_laser_preset",
        "stage_position_um": ("xy_stage_x", "xy_stage_y", "z_stage"),
        "z_centre_um": "spim_b_piezo_offset_um",
        "object_name": "spim",
    }
    assert "spim_z_step_um" in of(documents, "event")[0]["data"]


def test_every_descriptor_key_has_a_numpy_dtype_and_holds_what_it_says() -> None:
    run_engine, documents = engine()
    dispim = simulated()
    run_engine(both_views(dispim))
    keys = of(documents, "descriptor")[0]["data_keys"]
    data = of(documents, "event")[0]["data"]
    for name, key in keys.items():
        value = np.asarray(data[name])
        assert value.shape == tuple(key["shape"]), name
        assert value.dtype.kind == np.dtype(key["dtype_numpy"]).kind, name
        assert np.can_cast(value.dtype, key["dtype_numpy"]), name


def test_what_may_change_is_in_every_event_and_what_cannot_is_configuration() -> None:
    run_engine, documents = engine()
    dispim = simulated()
    run_engine(both_views(dispim))
    data = of(documents, "event")[0]["data"]
    for name in (
        *("exposure_ms", "num_slices", "z_step_um", "roi", "views", "sheet_width_deg", "sheet_offset_deg"),
        *("delay_before_scan_ms", "scan_duration_ms", "delay_before_laser_ms", "laser_duration_ms"),
        *("delay_before_camera_ms", "camera_duration_ms", "laser_preset"),
        *(f"laser_power_{line}_percent" for line in (405, 488, 561, 637)),
        *(f"{view}_{each}" for view in "ab" for each in ("piezo_offset_um", "piezo_amplitude_um")),
        *(f"{view}_{each}" for view in "ab" for each in ("galvo_offset_deg", "galvo_amplitude_deg")),
        *(f"{view}_{each}" for view in "ab" for each in ("calibration_um_per_deg", "frame_times", "mean")),
    ):
        assert f"spim_{name}" in data
    configuration = of(documents, "descriptor")[0]["configuration"]["spim"]["data"]
    for name in ("camera_label", "sensor_px", "pixel_size_um", "binning", "adapter", "firmware", "serial"):
        assert f"spim_a_{name}" in configuration
        assert f"spim_a_{name}" not in data
    assert configuration["spim_b_camera_label"] == B


def test_a_setting_that_changes_in_a_run_is_read_as_it_was_at_each_volume() -> None:
    run_engine, documents = engine()
    dispim = simulated()
    run_engine(bp.scan([dispim.spim], dispim.laser.power_488_percent, 2, 4, 3))
    assert [event["data"]["spim_laser_power_488_percent"] for event in of(documents, "event")] == [2, 3, 4]


def test_the_way_of_piezo_and_galvo_follows_from_the_step() -> None:
    run_engine, documents = engine()
    dispim = simulated()
    spim = dispim.spim
    run_engine(bps.mv(spim.num_slices, 5, spim.z_step_um, 0.5))
    run_engine(bps.mv(spim.a.calibration_um_per_deg, 80, spim.a.piezo_offset_um, 50))
    run_engine(bp.count([spim]))
    data = of(documents, "event")[0]["data"]
    assert data["spim_a_piezo_amplitude_um"] == 2.0
    assert data["spim_a_galvo_amplitude_deg"] == 2.0 / 80
    core = dispim.core
    assert core.getProperty("PiezoStage:P:34", "SingleAxisAmplitude(um)") == "2"
    assert core.getProperty("PiezoStage:P:34", "SingleAxisOffset(um)") == "50"
    assert core.getProperty("Scanner:AB:33", "SingleAxisYAmplitude(deg)") == "0.025"
    assert core.getProperty("Scanner:AB:33", "SPIMNumSlices") == "5"
    assert core.getProperty("Scanner:AB:33", "SPIMDelayBeforeScan(ms)") == "6.75"
    assert core.getProperty("Scanner:AB:33", "SPIMState") == "Idle"


def test_the_scanner_is_at_rest_while_it_is_programmed_and_runs_last() -> None:
    run_engine, _ = engine()
    dispim = simulated()
    core = dispim.core
    set_property = core.setProperty
    told: list[tuple[str, str, str]] = []

    def watched(label: str, name: str, value: Any) -> None:
        if label.startswith(("Scanner", "Piezo")):
            told.append((label, name, str(value)))
        set_property(label, name, value)

    core.setProperty = watched  # type: ignore[method-assign]
    run_engine(both_views(dispim))
    assert told[:2] == [("Scanner:AB:33", "SPIMState", "Idle"), ("Scanner:CD:33", "SPIMState", "Idle")]
    running = told.index(("Scanner:AB:33", "SPIMState", "Running"))
    assert {entry for entry in told[:running] if entry[2] == "Armed"} == {
        ("PiezoStage:P:34", "SPIMState", "Armed"),
        ("PiezoStage:Q:35", "SPIMState", "Armed"),
    }
    assert {name for _, name, _ in told[running + 1 :]} == {"SPIMState"}
    assert core.getProperty("Scanner:AB:33", "SPIMNumSides") == "2"


def test_frame_times_are_those_of_the_frames() -> None:
    clock = ManualClock(epoch=1_800_000_000.0)
    dispim, sink, run_engine, documents = with_sink(clock=clock)
    run_engine(bp.count([dispim.spim]))
    times = of(documents, "event")[0]["data"]["spim_a_frame_times"]
    assert list(sink.volumes("spim_a")[0].times.values()) == times.tolist()
    # The longest of scan (12.25), laser (13) and camera (9 ms) is the period.
    assert np.diff(times) == pytest.approx(0.013, abs=1e-5)
    assert 1_800_000_000 <= times[0] < 1_800_000_001


def test_the_mean_is_of_every_8th_pixel_and_is_what_a_plot_shows() -> None:
    run_engine, documents = engine()
    dispim = simulated()
    run_engine(bp.count([dispim.spim]))
    data = of(documents, "event")[0]["data"]
    assert data["spim_a_mean"] == pytest.approx(data["spim_a"][:, ::8, ::8].mean())
    assert of(documents, "descriptor")[0]["hints"] == {"spim": {"fields": ["spim_a_mean"]}}


def test_a_volume_is_told_what_it_is() -> None:
    dispim, sink, run_engine, _ = with_sink()
    spim = dispim.spim
    run_engine(bps.mv(dispim.xy_stage, (120, -240), dispim.z_stage, 12, dispim.laser, "488 and 561"))
    run_engine(bps.mv(spim.z_step_um, 2, spim.b.piezo_offset_um, 10))
    run_engine(both_views(dispim))
    metadata = sink.volumes("spim_b")[0].metadata
    assert metadata["view"] == "B"
    assert metadata["channel"] == "488 and 561"
    assert metadata["exposure_ms"] == 5
    assert metadata["voxel_size_um"] == pytest.approx((2, 0.1625, 0.1625))
    assert metadata["stage_position_um"] == (120, -240, 12)
    assert metadata["z_um"] == [5, 7, 9, 11, 13, 15]


def test_room_is_made_before_the_light_and_the_light_is_off_before_the_seal() -> None:
    dispim, sink, run_engine, _ = with_sink()
    core = dispim.core
    set_config = core.setConfig

    def watched(group: str, preset: str) -> None:
        sink.log.append(preset)
        set_config(group, preset)

    core.setConfig = watched  # type: ignore[method-assign]
    sink.on_write = lambda z: sink.log.append(f"plane {z}") if z in {0, PLANES - 1} else None
    run_engine(bp.count([dispim.spim]))
    first = sink.log[: sink.log.index(f"plane {PLANES - 1}") + 2]
    assert first == ["open spim_a", "488 only", "plane 0", f"plane {PLANES - 1}", "ALL OFF"]


def test_light_is_on_for_every_frame_and_off_afterwards() -> None:
    run_engine, documents = engine()
    dispim = simulated()
    run_engine(both_views(dispim, 2))
    for event in of(documents, "event"):
        assert event["data"]["spim_a"][:, 1:].min() == DARK + 1000
        assert event["data"]["spim_b"][:, 1:].min() == DARK + 1000
    assert dispim.core.getCurrentConfig("Laser") == "ALL OFF"


def test_a_dark_volume_can_be_taken_on_purpose_and_says_so() -> None:
    run_engine, documents = engine()
    dispim = simulated()
    run_engine(bps.mv(dispim.laser, "ALL OFF"))
    run_engine(bp.count([dispim.spim]))
    data = of(documents, "event")[0]["data"]
    assert data["spim_laser_preset"] == "ALL OFF"
    assert data["spim_a"][:, 1:].max() == DARK


def stream_rows(documents: Documents, name: str) -> list[tuple[str, int]]:
    """Which StreamResource and index each datum of a data key names."""
    mine = {doc["uid"]: doc["data_key"] for doc in of(documents, "stream_resource")}
    return [
        (datum["stream_resource"], datum["indices"]["start"])
        for datum in of(documents, "stream_datum")
        if mine[datum["stream_resource"]] == name
    ]


def test_two_runs_within_one_stage_have_a_resource_each() -> None:
    dispim, sink, run_engine, documents = with_sink()
    spim = dispim.spim

    def plan() -> Plan:
        yield from bps.stage(spim)
        for _ in range(2):
            yield from bps.open_run()
            yield from bps.trigger_and_read([spim])
            yield from bps.trigger_and_read([spim])
            yield from bps.close_run()
        yield from bps.unstage(spim)

    run_engine(plan())
    validate(documents)
    assert len(sink.runs) == 2
    rows = stream_rows(documents, "spim_a")
    assert [index for _, index in rows] == [0, 1, 0, 1]
    assert rows[0][0] == rows[1][0] != rows[2][0] == rows[3][0]


def test_a_reading_without_a_trigger_gives_the_last_volume_again() -> None:
    dispim, _, run_engine, documents = with_sink()
    spim = dispim.spim

    def plan() -> Plan:
        yield from bps.open_run()
        yield from bps.trigger_and_read([spim])
        yield from bps.create()
        yield from bps.read(spim)
        yield from bps.save()
        yield from bps.close_run()

    run_engine(plan())
    assert [index for _, index in stream_rows(documents, "spim_a")] == [0, 0]


def test_the_index_is_that_of_the_view_that_has_fewest() -> None:
    dispim, sink, run_engine, _ = with_sink()
    assert dispim.spim.get_index() == 0
    run_engine(both_views(dispim, 3))
    assert dispim.spim.get_index() == 3
    sink.runs[-1]["spim_b"].sealed = 2
    assert dispim.spim.get_index() == 2


def test_geometry_changes_from_run_to_run_and_descriptions_follow() -> None:
    dispim, sink, run_engine, documents = with_sink()
    run_engine(bp.count([dispim.spim]))
    run_engine(bps.mv(dispim.spim.num_slices, 3, dispim.spim.roi, [8, 16, 32, 24]))
    run_engine(bp.count([dispim.spim]))
    shapes = [doc["data_keys"]["spim_a"]["shape"] for doc in of(documents, "descriptor")]
    assert shapes == [[PLANES, SIZE, SIZE], [3, 24, 32]]
    assert of(documents, "descriptor")[1]["data_keys"]["spim_a_frame_times"]["shape"] == [3]
    assert sink.volumes("spim_a")[0].array.shape == (3, 24, 32)
    assert of(documents, "event")[1]["data"]["spim_roi"] == [8, 16, 32, 24]


def test_one_plane_is_a_volume_too() -> None:
    dispim, sink, run_engine, _ = with_sink()
    run_engine(bps.mv(dispim.spim.num_slices, 1))
    run_engine(both_views(dispim))
    assert sink.volumes("spim_b")[0].array.shape == (1, SIZE, SIZE)


@pytest.mark.parametrize(
    ("signal", "value", "error"),
    [
        ("num_slices", 0, LimitError),
        ("num_slices", 2.5, LimitError),
        ("z_step_um", 0, LimitError),
        ("exposure_ms", -1, LimitError),
        ("exposure_ms", True, LimitError),
        ("views", "C", PresetError),
        ("roi", [0, 0, SIZE + 1, 4], LimitError),
        ("a.calibration_um_per_deg", 0, LimitError),
        ("a.piezo_offset_um", 201, LimitError),
        ("b.galvo_offset_deg", 5.1, LimitError),
    ],
)
def test_a_setting_that_cannot_be_is_refused_by_name(signal: str, value: Any, error: type[Exception]) -> None:
    spim = simulated().spim
    target = spim
    for part in signal.split("."):
        target = getattr(target, part)
    before = target.get()
    with pytest.raises(error, match="spim"):
        target.set(value)
    assert target.get() == before


def test_a_setting_of_a_volume_that_leaves_the_piezo_is_refused_before_the_light() -> None:
    dispim, sink, run_engine, documents = with_sink()
    run_engine(bps.mv(dispim.spim.num_slices, 500))
    expected = r"spim_a: 500 planes need the piezo from -249\.5 to 249\.5 um, allowed are -200 to 200"
    with pytest.raises(Exception, match=expected):
        run_engine(bp.count([dispim.spim]))
    assert sink.log == []
    assert "-249.5 to 249.5" in of(documents, "stop")[0]["reason"]


def test_settings_are_checked_together_and_nothing_is_changed() -> None:
    """A sheet beyond the galvo, a scan beyond the piezo of a view that is not selected yet."""
    spim = simulated().spim
    spim.check_settings({spim.num_slices: 400})
    before = spim.views.get(), spim.num_slices.get(), spim.sheet_width_deg.get()
    with pytest.raises(LimitError, match=r"spim_b: 6 planes need the piezo from 190\.5 to 202\.5"):
        spim.check_settings({spim.views: "AB", spim.b.piezo_offset_um: 196.5, spim.z_step_um: 2.4})
    spim.check_settings({spim.views: "A", spim.b.piezo_offset_um: 196.5, spim.z_step_um: 2.4})
    expected = "the sheet needs the galvo from -1 to 6 deg, allowed are -5 to 5; set spim_sheet_width_deg or"
    with pytest.raises(LimitError, match=expected):
        spim.check_settings({spim.sheet_width_deg: 7.0, spim.sheet_offset_deg: 2.5})
    assert (spim.views.get(), spim.num_slices.get(), spim.sheet_width_deg.get()) == before


def test_readings_of_the_hardware_that_cannot_be_set_refuse_to_be() -> None:
    spim = simulated().spim
    with pytest.raises(Exception, match=r"spim_a_piezo_amplitude_um is read from .* and cannot be set"):
        spim.a.piezo_amplitude_um.set(5)


def test_it_runs_off_the_main_thread() -> None:
    dispim, sink, run_engine, documents = with_sink()
    thread = threading.Thread(target=lambda: run_engine(both_views(dispim, 2)))
    thread.start()
    thread.join(20)
    assert not thread.is_alive()
    assert of(documents, "stop")[0]["exit_status"] == "success"
    assert len(sink.volumes("spim_b")) == 2


def test_all_devices_of_the_namespace_are_found_by_name() -> None:
    devices = simulated().devices()
    assert list(devices) == [device.name for device in devices.values()]
    assert {"spim", "xy_stage", "fdrive", "piezo_b", "scanner_a", "bottom_camera", "temperature"} <= set(devices)
    assert "detectors" in devices["spim"]._ophyd_labels_
    assert "motors" in devices["fdrive"]._ophyd_labels_


def test_the_default_instrument_sees_its_embryos_where_it_says_they_are() -> None:
    """Two views of an embryo are bright, and a place between the embryos is dark."""
    run_engine, documents = engine()
    dispim = simulated_dispim(clock=ManualClock())
    places = [*demo_embryos().values(), (500.0, 500.0)]

    def plan() -> Plan:
        yield from bps.mv(dispim.spim.num_slices, 3, dispim.spim.z_step_um, 5)
        yield from bps.mv(dispim.spim.roi, [896, 896, 512, 512])
        for place in places:
            yield from bps.mv(dispim.xy_stage, place)
            yield from both_views(dispim)

    run_engine(plan())
    peaks = [[int(event["data"][key].max()) for key in ("spim_a", "spim_b")] for event in of(documents, "event")]
    assert all(min(pair) > 300 for pair in peaks[:-1])
    assert max(peaks[-1]) < 150
    assert demo_embryos() == Configuration().simulation.embryos_um


def test_a_sink_is_not_asked_without_frames() -> None:
    sink = MemorySink()
    dispim = simulated(sink=sink)
    assert list(dispim.spim.collect_asset_docs()) == []
    assert sink.log == []


def test_a_volume_can_be_watched_frame_by_frame() -> None:
    dispim = simulated()
    dispim.spim.views.put("AB")
    status = FramesStatus(dispim.spim, frames=2 * PLANES)
    told: list[dict[str, Any]] = []
    status.watch(lambda **facts: told.append(facts))
    for count in range(1, 2 * PLANES + 1):
        status.tell(count)
    assert [facts["current"] for facts in told] == [1], "not more often than ten times a second"
    status.set_finished()
    status.wait(10)
    assert told[-1]["current"] == told[-1]["target"] == 2 * PLANES
    assert (told[-1]["initial"], told[-1]["unit"], told[-1]["fraction"]) == (0, "frames", 0)


def test_bluesky_draws_a_bar_of_frames(capsys: pytest.CaptureFixture[str]) -> None:
    hold = threading.Event()
    sink = MemorySink()
    sink("start", {})
    dispim = simulated(sink=sink)
    sink.on_write = lambda z: None if z < 2 else (hold.wait(10), None)[1]
    status = dispim.spim.trigger()
    bar = ProgressBar([status], delay_draw=0)
    hold.set()
    status.wait(10)
    bar.clear()
    drawn = "".join(capsys.readouterr())
    assert "spim: 100%" in drawn
    assert f"{PLANES}.0/{PLANES}.0" in drawn
    assert "No progress bar" not in drawn


def test_a_pause_does_not_claim_frames_that_did_not_come() -> None:
    sink = MemorySink()
    sink("start", {})
    dispim = simulated(sink=sink)
    reached, hold = threading.Event(), threading.Event()

    def wait(z: int) -> None:
        if z == 2:
            reached.set()
            hold.wait(10)

    sink.on_write = wait
    told: list[dict[str, Any]] = []
    status = dispim.spim.trigger()
    status.watch(lambda **facts: told.append(facts))
    assert reached.wait(10)
    threading.Thread(target=dispim.spim.pause).start()
    wait_until(dispim.spim.stopped.is_set, "the pause")
    hold.set()
    status.wait(10)
    assert told[-1]["current"] == 3


def test_an_event_says_the_settings_of_its_exposure_and_not_those_of_now() -> None:
    dispim = simulated()
    dispim.spim.trigger().wait(10)
    dispim.spim.z_step_um.put(7.0)
    dispim.spim.exposure_ms.put(2.0)
    dispim.laser.set("561 only").wait(10)
    reading = dispim.spim.read()
    assert reading["spim_z_step_um"]["value"] != 7.0
    assert reading["spim_exposure_ms"]["value"] != 2.0
    assert reading["spim_laser_preset"]["value"] == "488 only"
    dispim.close()


def test_what_was_taken_before_staging_is_not_read_again() -> None:
    dispim = simulated()
    dispim.spim.trigger().wait(10)
    dispim.spim.stage()
    with pytest.raises(ReadingError, match="since it was staged"):
        dispim.spim.read()
    dispim.spim.unstage()
    dispim.close()
