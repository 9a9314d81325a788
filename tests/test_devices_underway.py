"""What an exposure depends on stays as it is until it has ended, and is what its event says."""

import threading
from collections.abc import Callable, Iterator
from typing import Any

import bluesky.plan_stubs as bps
import bluesky.plans as bp
import ophyd
import pytest
from bluesky import Msg, RunEngine
from bluesky.utils import RunEngineInterrupted

from devices import Dispim
from devices.underway import Underway
from gently_bluesky.errors import ExposingError, ExposureStoppedError
from tests.devices_rig import (
    PLANES,
    SIZE,
    Documents,
    MemorySink,
    address,
    engine,
    of,
    reason,
    simulated,
    validate,
    wait_until,
    with_sink,
)

Plan = Iterator[Msg]
Rig = tuple[Dispim, MemorySink, RunEngine, Documents]


@pytest.fixture
def rig() -> Rig:
    return with_sink()


def during(rig: Rig, action: Callable[[], object], *, plane: int = 2) -> list[str]:
    """Do something in the middle of each volume; what refused it comes out."""
    refusals: list[str] = []

    def act(z: int) -> None:
        if z == plane:
            try:
                action()
            except ExposingError as error:
                refusals.append(str(error))

    rig[1].on_write = act
    return refusals


def found(device: Any, path: str) -> Any:
    for part in path.split("."):
        device = getattr(device, part)
    return device


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("spim.num_slices", 3),
        ("spim.views", "A"),
        ("spim.z_step_um", 2.5),
        ("spim.exposure_ms", 2.0),
        ("spim.roi", [0, 0, 32, 16]),
        ("spim.sheet_width_deg", 0.5),
        ("spim.delay_before_scan_ms", 7.0),
        ("spim.a.piezo_offset_um", 10.0),
        ("spim.b.calibration_um_per_deg", 90.0),
        ("laser.preset", "561 only"),
        ("laser.power_488_percent", 3.0),
        ("camera_a.exposure_ms", 3.0),
        ("camera_b.roi", [0, 0, 8, 8]),
        ("camera_a.binning", 2),
        ("scanner_b.y_offset_deg", 0.5),
    ],
)
def test_what_a_volume_depends_on_is_not_changed_while_it_is_taken(rig: Rig, path: str, value: Any) -> None:
    dispim, sink, run_engine, documents = rig
    run_engine(bps.mv(dispim.spim.views, "AB"))
    signal = found(dispim, path)
    before = signal.get()
    put = during(rig, lambda: signal.put(value))
    run_engine(bp.count([dispim.spim]))
    forced = during(rig, lambda: signal.put(value, force=True))
    run_engine(bp.count([dispim.spim]))
    told = during(rig, lambda: signal.set(value))
    run_engine(bp.count([dispim.spim]))
    for refusals in (put, forced, told):
        assert len(refusals) == 2  # each view has such a plane
        assert refusals[0].startswith(f"{signal.name}: not changed, for spim is exposing and depends on it; wait")
    assert [stop["exit_status"] for stop in of(documents, "stop")] == ["success"] * 3
    sink.on_write = None
    if not path.startswith("camera"):
        assert signal.get() == before
    signal.put(value)
    assert signal.get() == value


def test_the_positioner_of_a_light_refuses_as_its_preset_does(rig: Rig) -> None:
    dispim, _, run_engine, _ = rig
    refusals = during(rig, lambda: dispim.laser.set("561 only"))
    run_engine(bp.count([dispim.spim]))
    assert refusals[0].startswith("laser_preset: not changed, for spim is exposing")
    assert dispim.laser.position == "488 only"


def test_what_it_does_not_depend_on_is_free(rig: Rig) -> None:
    dispim, _, run_engine, documents = rig

    def act() -> None:
        dispim.camera_b.exposure_ms.put(3.0)  # of the view that is not taken
        dispim.bottom_camera.exposure_ms.put(4.0)
        dispim.led.preset.put("Closed")
        dispim.led.intensity_percent.put(20)

    assert during(rig, act) == []
    run_engine(bp.count([dispim.spim]))
    assert of(documents, "stop")[0]["exit_status"] == "success"


def test_a_plan_that_changes_a_setting_too_early_fails_by_name_and_the_next_one_runs(rig: Rig) -> None:
    dispim, sink, run_engine, documents = rig
    began = threading.Event()

    def hold(z: int) -> None:
        if z == 1 and not began.is_set():
            began.set()
            wait_until(dispim.spim.stopped.is_set, "the end of the run")

    sink.on_write = hold

    def plan() -> Plan:
        yield from bps.stage(dispim.spim)
        yield from bps.open_run()
        yield from bps.trigger(dispim.spim, group="volume")
        wait_until(began.is_set, "the exposure")
        yield from bps.mv(dispim.laser, "561 only")
        yield from bps.wait("volume")

    with pytest.raises(ExposingError, match="laser_preset: not changed, for spim is exposing"):
        run_engine(plan())
    dispim.spim.unstage()
    assert "not changed, for spim is exposing" in reason(documents)
    assert dispim.core.getCurrentConfig("Laser") == "ALL OFF"
    assert all(volume.aborted for volume in sink.volumes("spim_a"))
    run_engine(bps.mv(dispim.laser, "561 only"))
    run_engine(bp.count([dispim.spim]))
    assert of(documents, "event")[-1]["data"]["spim_laser_preset"] == "561 only"


def test_settings_can_be_changed_in_a_pause_and_the_repeated_volume_is_taken_with_them(rig: Rig) -> None:
    dispim, _, run_engine, documents = rig
    paused: list[int] = []

    def pause() -> None:
        if not paused:
            paused.append(1)
            run_engine.request_pause(defer=False)
            wait_until(dispim.spim.stopped.is_set, "the pause to reach the detector")

    during(rig, pause)
    with pytest.raises(RunEngineInterrupted):
        run_engine(bp.count([dispim.spim]))
    dispim.spim.z_step_um.put(2.0)
    dispim.laser.set("561 only").wait(10)
    run_engine.resume()
    (event,) = of(documents, "event")
    assert event["data"]["spim_z_step_um"] == 2.0
    assert event["data"]["spim_laser_preset"] == "561 only"
    assert rig[1].volumes("spim_a")[-1].metadata["channel"] == "561 only"


def test_an_event_says_what_its_volume_was_taken_with_whoever_changed_what_behind_the_detector(rig: Rig) -> None:
    dispim, sink, run_engine, documents = rig
    spim = dispim.spim
    run_engine(bps.mv(spim.z_step_um, 1.5))
    want = {"num_slices": 3, "z_step_um": 4.0, "exposure_ms": 2.0, "roi": [0, 0, 8, 8], "views": "B"}

    def behind() -> None:
        for name, value in want.items():
            ophyd.Signal.put(getattr(spim, name), value, force=True)
        ophyd.Signal.put(spim.a.piezo_offset_um, 33.0, force=True)
        ophyd.Signal.put(dispim.laser.preset, "561 only", force=True)

    during(rig, behind)
    run_engine(bp.count([spim]))
    validate(documents)
    key = of(documents, "descriptor")[0]["data_keys"]["spim_a"]
    data = of(documents, "event")[0]["data"]
    volume = sink.volumes("spim_a")[0]
    assert key["shape"] == [PLANES, SIZE, SIZE] == list(volume.array.shape)
    assert (data["spim_num_slices"], data["spim_z_step_um"], data["spim_views"]) == (PLANES, 1.5, "A")
    assert (data["spim_exposure_ms"], data["spim_roi"]) == (5, [0, 0, SIZE, SIZE])
    assert data["spim_laser_preset"] == volume.metadata["channel"] == "488 only"
    assert data["spim_a_piezo_offset_um"] == 0
    assert data["spim_a_piezo_amplitude_um"] == (PLANES - 1) * 1.5
    assert volume.metadata["voxel_size_um"][0] == 1.5


@pytest.mark.parametrize(("name", "value"), [("num_slices", 3), ("views", "A"), ("roi", [0, 0, 8, 8])])
def test_a_volume_that_is_read_late_is_described_as_it_was_taken(rig: Rig, name: str, value: Any) -> None:
    dispim, _, run_engine, documents = rig
    spim = dispim.spim
    run_engine(bps.mv(spim.views, "AB"))
    before = getattr(spim, name).get()

    def plan() -> Plan:
        for _ in range(2):
            yield from bps.open_run()
            yield from bps.trigger(spim, wait=True)
            yield from bps.mv(getattr(spim, name), value)
            yield from bps.create()
            yield from bps.read(spim)
            yield from bps.save()
            yield from bps.close_run()

    run_engine(plan())
    validate(documents)
    first, second = of(documents, "descriptor")
    shapes = [descriptor["data_keys"]["spim_a"]["shape"] for descriptor in (first, second)]
    assert shapes[0] == [PLANES, SIZE, SIZE]
    assert shapes[1] == {"num_slices": [3, SIZE, SIZE], "views": shapes[0], "roi": [PLANES, 8, 8]}[name]
    assert [event["data"][f"spim_{name}"] for event in of(documents, "event")] == [before, value]
    assert ("spim_b" in second["data_keys"]) == (name != "views")


def test_once_a_volume_was_read_new_settings_describe_the_next_one(rig: Rig) -> None:
    dispim, _, run_engine, documents = rig
    spim = dispim.spim

    def plan() -> Plan:
        yield from bps.open_run()
        yield from bps.trigger_and_read([spim])
        yield from bps.mv(spim.num_slices, 3)
        yield from bps.declare_stream(spim, name="fewer")
        yield from bps.trigger_and_read([spim], name="fewer")
        yield from bps.close_run()

    run_engine(plan())
    shapes = [descriptor["data_keys"]["spim_a"]["shape"] for descriptor in of(documents, "descriptor")]
    assert shapes == [[PLANES, SIZE, SIZE], [3, SIZE, SIZE]]


def test_a_view_reads_as_the_detector_says(rig: Rig) -> None:
    dispim, _, run_engine, _ = rig
    run_engine(bp.count([dispim.spim]))
    whole, view = dispim.spim.read(), dispim.spim.a.read()
    assert {name: reading for name, reading in whole.items() if name.startswith("spim_a_")} == view


@pytest.mark.parametrize(("name", "value"), [("exposure_ms", 3.0), ("roi", [0, 0, 8, 8]), ("binning", 2)])
def test_what_a_frame_depends_on_is_not_changed_while_it_is_taken(name: str, value: Any) -> None:
    run_engine, documents = engine()
    dispim = simulated()
    camera = dispim.camera_a
    refusals: list[str] = []

    def watched(context: Any) -> Any:
        for signal, to in ((getattr(camera, name), value), (dispim.laser.preset, "561 only")):
            with pytest.raises(ExposingError) as caught:
                signal.put(to)
            refusals.append(str(caught.value))
        dispim.spim.num_slices.put(3)  # of volumes, which this frame is none of
        return address(context)

    dispim.core.frame_source = watched  # type: ignore[attr-defined]
    run_engine(bp.count([camera]))
    assert [refusal.partition(":")[0] for refusal in refusals] == [f"camera_a_{name}", "laser_preset"]
    assert "for camera_a is exposing" in refusals[0]
    data = of(documents, "event")[0]["data"]
    assert list(data["camera_a"].shape) == data["camera_a_roi"][:1:-1] == [SIZE, SIZE]


def test_cameras_that_wait_for_their_turn_hold_their_settings_too() -> None:
    """Both are triggered at once; the second exposes after the first."""
    run_engine, documents = engine()
    dispim = simulated()
    refusals: list[str] = []

    def watched(context: Any) -> Any:
        if not refusals:
            wait_until(lambda: len(dispim.camera_b.connection.underway._held) == 2, "both to be triggered")
            with pytest.raises(ExposingError) as caught:
                dispim.laser.preset.put("561 only")
            refusals.append(str(caught.value))
        return address(context)

    dispim.core.frame_source = watched  # type: ignore[attr-defined]
    run_engine(bp.count([dispim.camera_a, dispim.camera_b]))
    assert "for camera_a and camera_b are exposing and depend on it" in refusals[0]
    assert of(documents, "stop")[0]["exit_status"] == "success"


def test_an_exposure_waits_for_a_change_that_was_allowed_before_its_trigger() -> None:
    underway = Underway()
    events: list[str] = []

    def expose() -> None:
        with underway.turn("spim", threading.Event()):
            events.append("exposed")

    with underway.change("laser_power_488_percent", "laser"):
        underway.begin("spim", {"laser"})
        thread = threading.Thread(target=expose)
        thread.start()
        wait_until(underway._turn.locked, "the turn to be taken")
        with pytest.raises(ExposingError), underway.change("laser_preset", "laser"):
            pytest.fail("it was changed")
        events.append("changed")
    thread.join(10)
    underway.end("spim")
    assert events == ["changed", "exposed"]
    with underway.change("laser_preset", "laser"), underway.change("anything"):
        pass


def test_an_exposure_that_is_stopped_waits_for_nothing() -> None:
    underway, stopped = Underway(), threading.Event()
    stopped.set()
    with (
        underway.change("laser_preset", "laser"),
        pytest.raises(ExposureStoppedError, match="spim: stopped while a setting was being changed"),
        underway.turn("spim", stopped),
    ):
        pytest.fail("it had its turn")
    with (
        underway.turn("camera_a", threading.Event()),
        pytest.raises(ExposureStoppedError, match="spim: stopped while another camera was exposing"),
        underway.turn("spim", stopped),
    ):
        pytest.fail("it had its turn")
