import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import bluesky.plan_stubs as bps
import bluesky.plans as bp
import bluesky.preprocessors as bpp
import numpy as np
import pytest
from bluesky import Msg
from bluesky.simulators import check_limits
from bluesky.utils import FailedStatus, ProgressBar
from ophyd.sim import det
from ophyd.utils import LimitError

from devices import Dispim, SystemClock
from devices.configuration import TemperatureSettings
from gently_bluesky.errors import AcquisitionError, MoveError, MoveTimeoutError, ReadingError
from tests.devices_rig import engine, faults, of, reason, simulated, small, validate

AXES = ["z_stage", "fdrive", "piezo_a", "piezo_b"]
Z, XY = "ZStage:Z:32", "XYStage:XY:31"


@pytest.mark.parametrize("name", [*AXES, "xy_stage", "scanner_a", "scanner_b", "temperature"])
def test_every_positioner_can_be_counted(name: str) -> None:
    run_engine, documents = engine()
    run_engine(bp.count([simulated().devices()[name]], 2))
    validate(documents)
    assert len(of(documents, "event")) == 2


@pytest.mark.parametrize("name", [*AXES, "temperature"])
def test_every_axis_can_be_scanned_and_reads_where_it_was_sent(name: str) -> None:
    run_engine, documents = engine()
    axis = simulated().devices()[name]
    run_engine(bp.scan([det], axis, 31, 35, 3))
    validate(documents)
    events = of(documents, "event")
    assert [event["data"][name] for event in events] == pytest.approx([31, 33, 35], abs=0.01)
    assert [event["data"][f"{name}_setpoint"] for event in events] == [31, 33, 35]


def test_the_xy_stage_can_be_grid_scanned() -> None:
    run_engine, documents = engine()
    stage = simulated().xy_stage
    run_engine(bp.grid_scan([det], stage.x, -10, 10, 2, stage.y, 0, 5, 2))
    places = [(event["data"]["xy_stage_x"], event["data"]["xy_stage_y"]) for event in of(documents, "event")]
    assert places == [(-10, 0), (-10, 5), (10, 0), (10, 5)]


def test_a_galvo_can_be_scanned() -> None:
    run_engine, documents = engine()
    run_engine(bp.scan([det], simulated().scanner_b.y, -0.5, 0.5, 3))
    assert [event["data"]["scanner_b_y"] for event in of(documents, "event")] == [-0.5, 0, 0.5]


def test_two_axes_of_one_stage_arrive_when_moved_at_once() -> None:
    run_engine, _ = engine()
    stage = simulated().xy_stage
    run_engine(bps.mv(stage.x, 300, stage.y, -200))
    assert stage.position == (300, -200)


def test_a_pair_is_moved_as_one() -> None:
    run_engine, _ = engine()
    stage = simulated().xy_stage
    run_engine(bps.mv(stage, (12.5, 7.5)))
    assert stage.position == (12.5, 7.5)


def test_an_axis_leaves_the_other_where_somebody_else_moved_it() -> None:
    """The joystick is no surprise: an axis that is not asked to move is not sent back to an old target."""
    run_engine, _ = engine()
    dispim = simulated()
    run_engine(bps.mv(dispim.xy_stage, (10, 10)))
    dispim.core.setXYPosition(XY, 10, 55)
    run_engine(bps.sleep(0))
    for _ in range(100):
        dispim.xy_stage.connection.clock.sleep(0.01)
    run_engine(bps.mv(dispim.xy_stage.x, 20))
    assert dispim.xy_stage.position == (20, 55)


def test_readings_say_source_unit_limits_and_dtype() -> None:
    key = simulated().z_stage.describe()["z_stage_setpoint"]
    assert key["source"] == "mmcore:ZStage:Z:32.Position"
    assert key["units"] == "um"
    assert key["limits"] == {"control": {"low": -50, "high": 250}}
    assert key["dtype_numpy"] == "<f8"
    assert key["precision"] == 3


def test_the_readback_is_what_a_plot_shows() -> None:
    dispim = simulated()
    assert dispim.z_stage.hints == {"fields": ["z_stage"]}
    assert dispim.xy_stage.hints == {"fields": ["xy_stage_x", "xy_stage_y"]}


@pytest.mark.parametrize(
    ("move", "message"),
    [
        (lambda d: d.z_stage.set(251), r"z_stage: asked for 251, allowed are -50 to 250 um"),
        (lambda d: d.fdrive.set(29.9), r"fdrive: asked for 29\.9, allowed are 30 to 25000 um"),
        (lambda d: d.xy_stage.set((0, 600)), r"xy_stage_y: asked for 600, allowed are -1677 to 586\.6 um"),
        (lambda d: d.scanner_a.x.set(-6), r"scanner_a_x: asked for -6, allowed are -5 to 5 deg"),
        (
            lambda d: d.temperature.set(100),
            r"temperature_setpoint: asked for 100, allowed are 0 to 99\.9 degC",
        ),
        (lambda d: d.piezo_a.set(float("nan")), r"piezo_a: nan is not a finite number of um"),
        (lambda d: d.piezo_a.set("5"), r"piezo_a: '5' is not a finite number of um"),
        (lambda d: d.xy_stage.set(5), r"xy_stage: 5 is not a pair"),
        (lambda d: d.xy_stage.set((5, 6, 7)), r"xy_stage: \(5, 6, 7\) is not a pair"),
    ],
)
def test_a_target_outside_the_limits_is_refused_before_anything_moves(
    move: Callable[[Dispim], Any], message: str
) -> None:
    dispim = simulated()
    before = {name: dispim.devices()[name].position for name in (*AXES, "xy_stage", "scanner_a")}
    with pytest.raises(LimitError, match=message):
        move(dispim)
    assert {name: dispim.devices()[name].position for name in before} == before


def test_limits_stop_a_plan_with_the_limit_as_its_reason() -> None:
    run_engine, documents = engine()
    with pytest.raises(LimitError):
        run_engine(bp.scan([det], simulated().z_stage, 0, 1000, 3))
    assert "z_stage: asked for 500, allowed are -50 to 250 um" in reason(documents)


def test_a_plan_is_checked_against_limits_before_it_runs() -> None:
    dispim = simulated()
    check_limits(bp.scan([], dispim.z_stage, 0, 200, 3))
    with pytest.raises(LimitError, match="z_stage"):
        check_limits(bp.scan([], dispim.z_stage, 0, 1000, 3))


def test_a_stage_that_never_arrives_fails_with_where_it_is() -> None:
    dispim = simulated()
    faults(dispim).stuck.add(Z)
    status = dispim.z_stage.set(100)
    with pytest.raises(MoveTimeoutError, match=r"z_stage \(ZStage:Z:32\): sent to 100, at 50 um after 10 s"):
        status.wait(10)


def test_a_stage_that_ends_beside_its_target_fails() -> None:
    dispim = simulated()
    faults(dispim).ends_beside[Z] = 0.5
    with pytest.raises(MoveError, match=r"sent to 100, came to rest at 100\.5 um, further off than 0\.05"):
        dispim.z_stage.set(100).wait(10)


def test_the_cause_of_a_failed_move_is_the_reason_of_the_run() -> None:
    run_engine, documents = engine()
    dispim = simulated()
    faults(dispim).stuck.add(XY)
    with pytest.raises(FailedStatus):
        run_engine(bp.scan([det], dispim.xy_stage.x, 5, 100, 2))
    assert reason(documents).startswith(
        "xy_stage_x: MoveTimeoutError: xy_stage_x (XYStage:XY:31): sent to 5, at 2.5 um after 30 s"
    )
    assert of(documents, "stop")[0]["exit_status"] == "fail"


def test_a_stage_can_be_moved_again_after_it_failed() -> None:
    dispim = simulated()
    faults(dispim).stuck.add(Z)
    with pytest.raises(MoveTimeoutError):
        dispim.z_stage.set(100).wait(10)
    faults(dispim).clear()
    dispim.z_stage.set(20).wait(10)
    assert dispim.z_stage.position == 20


def test_a_failed_reading_is_an_error_and_never_a_number() -> None:
    dispim = simulated()
    faults(dispim).failing_readings.add(("PiezoStage:P:34", "Position"))
    with pytest.raises(ReadingError, match=r"piezo_a: reading mmcore:PiezoStage:P:34\.Position failed"):
        dispim.piezo_a.read()


@pytest.mark.parametrize("said", ["nan", "inf", "", "12,5", "off"])
def test_an_answer_that_is_no_number_is_a_failed_reading(said: str) -> None:
    dispim = simulated()
    dispim.core.setProperty("Scanner:AB:33", "SingleAxisYOffset(deg)", said)
    expected = r"scanner_a_y_offset_deg: reading mmcore:Scanner:AB:33\.SingleAxisYOffset\(deg\) failed"
    with pytest.raises(ReadingError, match=expected):
        dispim.scanner_a.read()


@pytest.mark.parametrize("said", [float("nan"), float("inf"), float("-inf")])
def test_a_position_that_is_no_number_fails_the_move_and_nobody_is_told_of_it(said: float) -> None:
    dispim = simulated()
    told: list[float] = []
    dispim.xy_stage.x.readback.subscribe(lambda value, **_: told.append(value))
    sent: list[tuple[float, float]] = []
    where, send = dispim.core.getXYPosition, dispim.core.setXYPosition

    def says(label: str) -> Sequence[float]:
        return (where(label)[0], said) if armed else where(label)

    def watched(label: str, x: float, y: float) -> None:
        sent.append((x, y))
        send(label, x, y)

    armed: list[int] = []
    dispim.core.getXYPosition = says  # type: ignore[method-assign]
    dispim.core.setXYPosition = watched  # type: ignore[method-assign]
    status = dispim.xy_stage.x.aim(30.0)
    armed.append(1)
    dispim.xy_stage.motion.move({0: (30.0, status)})
    with pytest.raises(MoveError, match=rf"XYStage:XY:31: says that it is at \[.*{said}\]"):
        status.wait(10)
    assert np.all(np.isfinite(told))
    assert sent == []
    with pytest.raises(ReadingError, match=f"it says {said}"):
        dispim.xy_stage.read()


@pytest.mark.parametrize("said", [float("nan"), float("inf")])
def test_a_reading_that_is_not_finite_is_none_wherever_it_is_from(said: float) -> None:
    dispim = simulated()
    dispim.core.getExposure = lambda _: said  # type: ignore[method-assign]
    with pytest.raises(ReadingError, match=f"camera_a_exposure_ms: .*: it says {said}"):
        dispim.camera_a.trigger().wait(10)
    with pytest.raises(AcquisitionError, match=f"asked for an exposure of 5 ms, the camera took {said}"):
        dispim.spim.trigger().wait(10)
    dispim.spim.z_step_um.put(said, force=True)
    with pytest.raises(ReadingError, match=f"spim_z_step_um: it was told {said}"):
        dispim.spim.trigger().wait(10)
    dispim.spim.a._times = np.array([1.0, said])
    with pytest.raises(ReadingError, match=f"spim_a_frame_times: .*it says .*{said}"):
        dispim.spim.a.frame_times.get()
    assert dispim.core.getCurrentConfig("Laser") == "ALL OFF"


def test_a_failed_reading_stops_a_run_with_its_cause() -> None:
    run_engine, documents = engine()
    dispim = simulated()
    faults(dispim).failing_readings.add(("PiezoStage:P:34", "Position"))
    with pytest.raises(ReadingError):
        run_engine(bp.count([dispim.piezo_a]))
    assert "PiezoStage:P:34.Position" in reason(documents)
    assert of(documents, "event") == []


def test_a_stage_that_nobody_can_read_any_more_is_stopped_and_the_move_fails() -> None:
    dispim = simulated(clock=SystemClock())
    status = dispim.fdrive.set(20000)
    faults(dispim).failing_readings.add(("ZStage:V:37", "Position"))
    with pytest.raises(MoveError, match=r"moving to 20000 failed: .*Serial command failed"):
        status.wait(10)
    faults(dispim).clear()
    assert not dispim.core.deviceBusy("ZStage:V:37")


def test_a_stop_that_the_hardware_refuses_does_not_leave_a_plan_waiting() -> None:
    dispim = simulated(clock=SystemClock())
    status = dispim.fdrive.set(20000)

    def refuse(label: str) -> None:
        raise RuntimeError("no answer")

    dispim.core.stop = refuse  # type: ignore[method-assign]
    with pytest.raises(RuntimeError, match="no answer"):
        dispim.fdrive.stop()
    with pytest.raises(MoveError, match="stopped on its way"):
        status.wait(10)


def test_a_move_that_is_sent_elsewhere_fails_and_the_new_one_arrives() -> None:
    dispim = simulated(clock=SystemClock())
    first = dispim.fdrive.set(1000)
    second = dispim.fdrive.set(50)
    with pytest.raises(MoveError, match="sent elsewhere"):
        first.wait(10)
    second.wait(10)
    assert dispim.fdrive.position == 50


def test_a_stop_ends_a_move_where_it_is() -> None:
    dispim = simulated(clock=SystemClock())
    status = dispim.fdrive.set(20000)
    dispim.fdrive.stop()
    with pytest.raises(MoveError, match="fdrive: stopped on its way to 20000"):
        status.wait(10)
    assert dispim.fdrive.position < 20000


def test_a_stop_that_counts_as_success_finishes_the_move() -> None:
    dispim = simulated(clock=SystemClock())
    status = dispim.fdrive.set(20000)
    dispim.fdrive.stop(success=True)
    status.wait(10)
    assert status.success


def test_a_move_can_be_watched_by_a_progress_bar() -> None:
    told: list[dict[str, Any]] = []
    status = simulated().fdrive.set(2030)
    status.watch(lambda **facts: told.append(facts))
    status.wait(10)
    assert told[-1]["fraction"] == 0
    assert (told[-1]["initial"], told[-1]["target"], told[-1]["unit"]) == (30, 2030, "um")
    assert all(0 <= facts["fraction"] <= 1 for facts in told)


def test_bluesky_draws_a_bar_of_a_move(capsys: pytest.CaptureFixture[str]) -> None:
    status = simulated().fdrive.set(2030)
    bar = ProgressBar([status], delay_draw=0)
    status.wait(10)
    bar.clear()
    assert "fdrive" in "".join(capsys.readouterr())


def test_simulated_stages_take_the_time_of_their_speed() -> None:
    dispim = simulated()
    before = dispim.fdrive.connection.clock.monotonic()
    began = time.monotonic()
    dispim.fdrive.set(3030).wait(10)
    assert 3.0 <= dispim.fdrive.connection.clock.monotonic() - before < 3.1
    assert time.monotonic() - began < 3


def test_a_temperature_is_reached_when_the_controller_is_locked() -> None:
    dispim = simulated()
    status = dispim.temperature.set(25)
    status.wait(10)
    reading = dispim.temperature.read()
    assert reading["temperature"]["value"] == 25
    assert reading["temperature_state"]["value"] == "[ SYSTEM LOCKED ]"


def test_a_temperature_that_is_not_reached_in_time_fails() -> None:
    dispim = simulated(configuration=small(temperature=TemperatureSettings(timeout_s=2)))
    with pytest.raises(MoveTimeoutError, match=r"sent to 80, at 21 degC after 2 s"):
        dispim.temperature.set(80).wait(10)


def test_scan_offsets_are_properties_with_the_limits_of_the_galvo() -> None:
    dispim = simulated()
    dispim.scanner_a.y_offset_deg.set(0.25).wait(10)
    assert dispim.core.getProperty("Scanner:AB:33", "SingleAxisYOffset(deg)") == "0.25"
    assert dispim.scanner_a.read()["scanner_a_y_offset_deg"]["value"] == 0.25
    with pytest.raises(LimitError, match="scanner_a_y_offset_deg"):
        dispim.scanner_a.y_offset_deg.set(7)


def test_a_monitored_positioner_gives_its_position_at_once_and_wherever_it_goes() -> None:
    run_engine, documents = engine()
    stage = simulated().xy_stage

    def plan() -> Iterator[Msg]:
        yield from bps.open_run()
        yield from bps.monitor(stage.x, name="x")
        yield from bps.monitor(stage, name="both")
        yield from bps.mv(stage.x, 500)
        yield from bps.unmonitor(stage.x)
        yield from bps.unmonitor(stage)
        yield from bps.close_run()

    run_engine(plan())
    validate(documents)
    x = [each["data"]["xy_stage_x"] for each in of(documents, "event") if "xy_stage_y" not in each["data"]]
    both = [each["data"]["xy_stage_x"] for each in of(documents, "event") if "xy_stage_y" in each["data"]]
    for positions in (x, both):
        assert positions[0] == 0
        assert positions[-1] == 500
        assert len(positions) > 2


def test_a_subscription_begins_with_where_it_is_now_and_not_where_it_was_last_seen() -> None:
    dispim = simulated()
    dispim.z_stage.set(20).wait(10)
    dispim.core.setPosition("ZStage:Z:32", 30)
    dispim.z_stage.connection.clock.sleep(10)
    told: list[Any] = []
    dispim.z_stage.subscribe(lambda value, **_: told.append(value))
    dispim.z_stage.readback.subscribe(lambda value, **_: told.append(value))
    dispim.z_stage.subscribe(lambda value, **_: told.append("never"), run=False)
    assert told == [30, 30]


def test_a_positioner_that_cannot_be_read_cannot_be_monitored() -> None:
    run_engine, documents = engine()
    dispim = simulated()
    faults(dispim).failing_readings.add(("ZStage:Z:32", "Position"))
    with pytest.raises(ReadingError, match="z_stage"):
        run_engine(bpp.monitor_during_wrapper(bp.count([det]), [dispim.z_stage]))
    assert of(documents, "stop")[0]["exit_status"] == "fail"
