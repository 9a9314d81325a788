from collections.abc import Callable

import bluesky.plan_stubs as bps
import bluesky.plans as bp
import pytest
from bluesky.utils import FailedStatus

from devices import Configuration, Dispim
from devices.simulated.faults import Faults
from gently_bluesky.errors import (
    AcquisitionError,
    BufferOverflowError,
    CameraTimeoutError,
    DeviceError,
    DiskFullError,
    PresetError,
)
from tests.devices_rig import (
    PLANES,
    SIZE,
    A,
    B,
    faults,
    of,
    reason,
    simulated,
    small,
    spim_settings,
    with_sink,
)

Fault = Callable[[Faults], object]

FAULTS: dict[str, tuple[Fault, type[Exception], str]] = {
    "a trigger that a camera misses": (
        lambda f: f.missed_triggers.add((B, 2)),
        CameraTimeoutError,
        f"no frame for 3 s; {A}: 6 of 6 frames, {B}: 5 of 6 frames",
    ),
    "a frame that is lost on its way": (
        lambda f: f.lost_frames.add((A, 3)),
        AcquisitionError,
        f"camera {A}: frame 4 came where frame 3 was due (from 0): 1 dropped or repeated; {A}: 3 of 6 frames",
    ),
    "a last frame that is lost": (
        lambda f: f.lost_frames.add((B, PLANES - 1)),
        AcquisitionError,
        f"the camera ended its sequence before all frames had come; {A}: 6 of 6 frames, {B}: 5 of 6 frames",
    ),
    "a camera that stops delivering": (
        lambda f: f.silent_after.update({A: 4}),
        CameraTimeoutError,
        f"no frame for 3 s; {A}: 4 of 6 frames, {B}: 6 of 6 frames",
    ),
    "a camera that never delivers": (
        lambda f: f.silent_after.update({A: 0, B: 0}),
        CameraTimeoutError,
        f"no frame for 3 s; {A}: 0 of 6 frames, {B}: 0 of 6 frames",
    ),
    "a buffer that overflows": (
        lambda f: setattr(f, "overflow_after", 7),
        BufferOverflowError,
        "the circular buffer overflowed",
    ),
    "frames of another shape": (
        lambda f: f.frame_shapes.update({B: (8, 8)}),
        AcquisitionError,
        f"camera {B}: frame 0 is uint16 of shape (8, 8), asked for was uint16 of (64, 64)",
    ),
    "a camera that is set to 8 bits": (
        lambda f: f.shallow.add(B),
        AcquisitionError,
        f"spim_b ({B}): would deliver frames of 64 x 64 (y, x) with 1 bytes a pixel; asked for are 64 x 64 with 2",
    ),
    "a preset that is refused": (
        lambda f: f.refused_presets.add(("Laser", "488 only")),
        PresetError,
        "laser: group 'Laser' refused preset '488 only'",
    ),
    "a preset that has no effect": (
        lambda f: f.ignored_presets.add(("Laser", "488 only")),
        PresetError,
        "to show preset '488 only': not within 5 s",
    ),
    "a stage that does not say where it is": (
        lambda f: f.failing_readings.add(("ZStage:Z:32", "Position")),
        Exception,
        "z_stage: reading mmcore:ZStage:Z:32.Position failed",
    ),
    "a laser that does not say its power": (
        lambda f: f.failing_readings.add(("LaserPower488", "PowerSetpoint(%)")),
        Exception,
        "laser_power_488_percent: reading mmcore:LaserPower488.PowerSetpoint(%) failed",
    ),
    "a scanner that cannot be programmed": (
        lambda f: f.failing_writes.add(("Scanner:AB:33", "SPIMNumSlices")),
        Exception,
        "SPIMNumSlices",
    ),
    "a piezo that cannot be armed": (
        lambda f: f.failing_writes.add(("PiezoStage:Q:35", "SPIMState")),
        Exception,
        "SPIMState",
    ),
}


@pytest.mark.parametrize("fault", list(FAULTS))
def test_a_fault_fails_the_run_with_its_cause_and_leaves_everything_dark_and_at_rest(fault: str) -> None:
    """And the next volume, without the fault, is whole."""
    break_it, error, expected = FAULTS[fault]
    dispim, sink, run_engine, documents = with_sink()
    run_engine(bps.mv(dispim.spim.views, "AB"))
    break_it(faults(dispim))

    with pytest.raises(FailedStatus) as caught:
        run_engine(bp.count([dispim.spim]))

    assert isinstance(caught.value.__cause__, error)
    assert expected in reason(documents)
    assert of(documents, "stop")[0]["exit_status"] == "fail"
    assert of(documents, "event") == []
    faults(dispim).clear()
    at_rest(dispim)
    for volumes in (resource.volumes for resource in sink.runs[0].values()):
        assert [volume.sealed for volume in volumes] == [False]
        assert all(volume.aborted is not None and expected in volume.aborted for volume in volumes)

    run_engine(bp.count([dispim.spim]))
    assert of(documents, "stop")[1]["exit_status"] == "success"
    assert sink.volumes("spim_b")[0].array[:, 0, 1].tolist() == list(range(PLANES))


def at_rest(dispim: Dispim) -> None:
    core = dispim.core
    assert core.getCurrentConfig("Laser") == "ALL OFF"
    assert not core.isSequenceRunning(A)
    assert not core.isSequenceRunning(B)
    assert core.getRemainingImageCount() == 0
    assert core.getProperty("Scanner:AB:33", "SPIMState") == "Idle"


def test_a_buffer_that_is_too_small_overflows_and_says_so() -> None:
    """Nobody takes frames for as long as the sink is busy with the first one."""
    settings = spim_settings(num_slices=300, circular_buffer_mb=1, z_step_um=0.1)
    dispim, sink, run_engine, documents = with_sink(configuration=small(spim=settings))
    sink.on_write = lambda z: dispim.spim.connection.clock.sleep(5.0)
    with pytest.raises(FailedStatus):
        run_engine(bp.count([dispim.spim]))
    assert "BufferOverflowError" in reason(documents)
    at_rest(dispim)


@pytest.mark.parametrize("plane", [0, 3, PLANES - 1])
def test_a_sink_that_fails_at_a_plane_fails_the_run_with_its_own_error(plane: int) -> None:
    dispim, sink, run_engine, documents = with_sink()
    run_engine(bps.mv(dispim.spim.views, "AB"))

    def fail(z: int) -> None:
        if z == plane:
            raise DiskFullError("the disk is full")

    sink.on_write = fail
    with pytest.raises(FailedStatus):
        run_engine(bp.count([dispim.spim]))
    assert reason(documents) == "spim: DiskFullError: the disk is full"
    at_rest(dispim)
    assert all(volume.aborted for key in "ab" for volume in sink.volumes(f"spim_{key}"))


def test_a_disk_without_room_is_an_error_before_the_light() -> None:
    dispim, sink, run_engine, documents = with_sink()
    seen: list[str] = []
    set_config = dispim.core.setConfig

    def watched(group: str, preset: str) -> None:
        seen.append(preset)
        set_config(group, preset)

    dispim.core.setConfig = watched  # type: ignore[method-assign]
    sink.refuse = DiskFullError("no room for 24 KiB")
    with pytest.raises(FailedStatus):
        run_engine(bp.count([dispim.spim]))
    assert reason(documents) == "spim: DiskFullError: no room for 24 KiB"
    assert set(seen) == {"ALL OFF"}


def test_room_for_one_view_of_two_is_given_back() -> None:
    dispim, sink, run_engine, _ = with_sink()
    run_engine(bps.mv(dispim.spim.views, "AB"))
    open_resource = sink.open_resource

    def refuse_b(data_key: str, **options: object) -> object:
        if data_key == "spim_b":
            raise DiskFullError("no room for the second view")
        return open_resource(data_key, **options)  # type: ignore[arg-type]

    sink.open_resource = refuse_b  # type: ignore[method-assign, assignment]
    with pytest.raises(FailedStatus):
        run_engine(bp.count([dispim.spim]))
    assert sink.volumes("spim_a")[0].aborted == "DiskFullError: no room for the second view"


def test_a_laser_that_stays_on_is_the_reason_that_is_told() -> None:
    dispim, sink, run_engine, documents = with_sink()
    faults(dispim).ignored_presets.add(("Laser", "ALL OFF"))
    with pytest.raises((FailedStatus, DeviceError)):
        run_engine(bp.count([dispim.spim]))
    assert "laser COULD NOT BE SWITCHED OFF, the light may be on" in reason(documents)
    assert sink.volumes("spim_a")[0].aborted is not None


def test_cameras_of_different_sizes_are_refused_before_the_light() -> None:
    """MMCore loses one camera's frames in silence otherwise."""
    dispim, sink, run_engine, documents = with_sink()
    run_engine(bps.mv(dispim.spim.views, "AB"))
    get_roi = dispim.core.getROI
    dispim.core.setROI = lambda *_: None  # type: ignore[method-assign]
    dispim.core.getROI = lambda label: [0, 0, 32, 32] if label == B else get_roi(label)  # type: ignore[method-assign]
    with pytest.raises(FailedStatus):
        run_engine(bp.count([dispim.spim]))
    assert f"spim_b ({B}): asked for region of interest [0, 0, {SIZE}, {SIZE}], the camera took" in reason(
        documents
    )
    assert sink.log == []


def test_an_exposure_that_the_camera_does_not_take_is_refused() -> None:
    dispim, _, run_engine, documents = with_sink()
    dispim.core.setExposure = lambda label, value: None  # type: ignore[method-assign]
    run_engine(bps.mv(dispim.spim.exposure_ms, 7))
    with pytest.raises(FailedStatus):
        run_engine(bp.count([dispim.spim]))
    assert "asked for an exposure of 7 ms, the camera took 5" in reason(documents)


def test_an_exposure_that_does_not_fit_between_two_pulses_is_refused_before_the_light() -> None:
    dispim, sink, run_engine, documents = with_sink()
    run_engine(bps.mv(dispim.spim.exposure_ms, 1000))
    set_configs: list[str] = []
    set_config = dispim.core.setConfig
    dispim.core.setConfig = lambda *said: (set_configs.append(said[1]), set_config(*said))[1]  # type: ignore[method-assign, func-returns-value]
    with pytest.raises(FailedStatus):
        run_engine(bp.count([dispim.spim]))
    assert reason(documents).startswith(
        "spim: LimitError: spim_exposure_ms: asked for 1000; a plane takes 13 ms with these timings, and HamCam1 "
        "needs 0.5 ms of them to read out: at most 12.5, "
    )
    assert sink.log == []
    assert set(set_configs) <= {"ALL OFF"}
    at_rest(dispim)


@pytest.mark.parametrize(
    ("timing", "value", "most"),
    [("scan_duration_ms", 50, 56.25), ("laser_duration_ms", 20, 27.5), ("camera_duration_ms", 12, 19.5)],
)
def test_the_longest_exposure_follows_from_the_timing(timing: str, value: float, most: float) -> None:
    dispim, sink, run_engine, documents = with_sink()
    run_engine(bps.mv(getattr(dispim.spim, timing), value, dispim.spim.exposure_ms, most))
    run_engine(bp.count([dispim.spim]))
    assert sink.volumes("spim_a")[0].array[:, 0, 2].tolist() == list(range(PLANES))
    run_engine(bps.mv(dispim.spim.exposure_ms, most + 0.1))
    with pytest.raises(FailedStatus):
        run_engine(bp.count([dispim.spim]))
    assert f"at most {most:g}" in reason(documents)


def test_a_camera_that_times_itself_may_expose_as_long_as_it_likes() -> None:
    dispim, sink, run_engine, _ = with_sink(configuration=small(trigger="internal"))
    run_engine(bps.mv(dispim.spim.exposure_ms, 1000))
    run_engine(bp.count([dispim.spim]))
    assert sink.volumes("spim_a")[0].sealed


def test_a_simulated_camera_misses_the_pulses_that_come_while_it_exposes() -> None:
    """Were the check not there, or the configured time to read out too short, the run would fail."""
    dispim, sink, run_engine, documents = with_sink()
    dispim.spim._check_exposure = lambda *_: None  # type: ignore[method-assign]
    run_engine(bps.mv(dispim.spim.exposure_ms, 20))
    with pytest.raises(FailedStatus) as caught:
        run_engine(bp.count([dispim.spim]))
    assert isinstance(caught.value.__cause__, CameraTimeoutError)
    assert f"{PLANES // 2} of {PLANES} frames" in reason(documents)
    (volume,) = sink.volumes("spim_a")
    assert volume.aborted
    assert [int(frame[0, 2]) for frame in volume.frames.values()] == list(range(0, PLANES, 2))


def test_two_detectors_that_share_the_light_take_turns() -> None:
    dispim, _, run_engine, documents = with_sink()
    run_engine(bp.count([dispim.spim, dispim.camera_a, dispim.camera_b], 3))
    assert of(documents, "stop")[0]["exit_status"] == "success"
    assert len(of(documents, "event")) == 3
    at_rest(dispim)


def test_a_second_trigger_during_an_exposure_is_refused() -> None:
    dispim, sink, run_engine, _ = with_sink()
    refused: list[str] = []

    def again(z: int) -> None:
        if z == 0:
            with pytest.raises(AcquisitionError) as caught:
                dispim.spim.trigger()
            refused.append(str(caught.value))

    sink.on_write = again
    run_engine(bp.count([dispim.spim]))
    assert refused == ["spim: triggered while it is still exposing"]


def test_faults_go_away_when_they_are_cleared() -> None:
    found = faults(simulated())
    for break_it, _, _ in FAULTS.values():
        break_it(found)
    found.clear()
    assert found == Faults()


def test_the_configured_time_out_is_what_a_camera_is_waited_for() -> None:
    camera = Configuration().camera_a.model_copy(
        update={"timeout_s": 2.0, "sensor_px": (SIZE, SIZE), "roi_px": None}
    )
    dispim, _, run_engine, documents = with_sink(configuration=small(camera_a=camera))
    faults(dispim).silent_after[A] = 0
    with pytest.raises(FailedStatus):
        run_engine(bp.count([dispim.spim]))
    assert "no frame for 2 s" in reason(documents)
