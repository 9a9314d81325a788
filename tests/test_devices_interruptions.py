"""What happens to light and data when somebody interrupts: pause, resume, abort, halt, stop."""

import threading
from collections.abc import Callable, Iterator
from typing import Any

import bluesky.plan_stubs as bps
import bluesky.plans as bp
import pytest
from bluesky import Msg, RunEngine
from bluesky.utils import FailedStatus, RunEngineInterrupted

from devices import Dispim
from gently_bluesky.errors import ReadingError
from tests.devices_rig import (
    DARK,
    PLANES,
    Documents,
    MemorySink,
    of,
    reason,
    validate,
    wait_until,
    with_sink,
)

Plan = Iterator[Msg]
Rig = tuple[Dispim, MemorySink, RunEngine, Documents]


@pytest.fixture
def rig() -> Rig:
    return with_sink()


def at_plane(rig: Rig, plane: int, action: Callable[[], object], *, once: bool = True) -> list[str]:
    """Do something in the middle of an exposure; what the laser was then comes out."""
    dispim, sink, _, _ = rig
    seen: list[str] = []

    def act(z: int) -> None:
        if z == plane and not (once and seen):
            seen.append(str(dispim.core.getCurrentConfig("Laser")))
            action()

    sink.on_write = act
    return seen


def pause(rig: Rig) -> Callable[[], None]:
    dispim, _, run_engine, _ = rig

    def request() -> None:
        run_engine.request_pause(defer=False)
        wait_until(dispim.spim.stopped.is_set, "the pause to reach the detector")

    return request


def lit_once_then_count(dispim: Dispim, num: int) -> Plan:
    """The laser is set before the checkpoint, as people do: it is not set again when a run resumes."""
    yield from bps.mv(dispim.laser, "488 and 561", dispim.spim.views, "AB")
    yield from bp.count([dispim.spim], num)


def off(dispim: Dispim) -> bool:
    return dispim.core.getCurrentConfig("Laser") == "ALL OFF"


def test_a_pause_goes_dark_and_a_resumed_run_is_lit_again(rig: Rig) -> None:
    dispim, sink, run_engine, documents = rig
    seen = at_plane(rig, 2, pause(rig))
    with pytest.raises(RunEngineInterrupted):
        run_engine(lit_once_then_count(dispim, 2))
    assert seen == ["488 and 561"]
    assert off(dispim)
    assert run_engine.state == "paused"
    assert dispim.laser.preset.get() == "488 and 561"

    run_engine.resume()

    validate(documents)
    assert of(documents, "stop")[0]["exit_status"] == "success"
    assert len(of(documents, "event")) == 2
    given_up, *whole = sink.volumes("spim_a")
    assert given_up.aborted is not None
    assert not given_up.sealed
    assert len(whole) == 2
    for volume in whole:
        assert volume.sealed
        assert volume.array[:, 1:].min() == DARK + 1000
    named = [datum["indices"]["start"] for datum in of(documents, "stream_datum")]
    assert named == [1, 1, 2, 2]
    assert off(dispim)


def test_a_pause_between_volumes_changes_nothing_but_the_light(rig: Rig) -> None:
    dispim, sink, run_engine, documents = rig

    def plan() -> Plan:
        yield from bps.mv(dispim.laser, "488 only")
        yield from bps.open_run()
        yield from bps.trigger_and_read([dispim.spim])
        yield from bps.checkpoint()
        yield from bps.pause()
        yield from bps.trigger_and_read([dispim.spim])
        yield from bps.close_run()

    with pytest.raises(RunEngineInterrupted):
        run_engine(plan())
    assert off(dispim)
    run_engine.resume()
    assert len(of(documents, "event")) == 2
    assert [volume.array[:, 1:].min() for volume in sink.volumes("spim_a")] == [DARK + 1000] * 2


@pytest.mark.parametrize("how", ["abort", "halt", "stop"])
def test_a_paused_run_that_is_ended_stays_dark(rig: Rig, how: str) -> None:
    dispim, sink, run_engine, documents = rig
    at_plane(rig, 2, pause(rig))
    with pytest.raises(RunEngineInterrupted):
        run_engine(lit_once_then_count(dispim, 2))
    getattr(run_engine, how)()
    assert off(dispim)
    assert of(documents, "event") == []
    assert len(of(documents, "stop")) == 1
    assert all(not volume.sealed for volume in sink.volumes("spim_a"))
    check_next_run(rig)


@pytest.mark.parametrize("how", ["abort", "halt", "stop"])
def test_a_run_that_is_ended_in_the_middle_of_a_volume_goes_dark(rig: Rig, how: str) -> None:
    dispim, _sink, run_engine, documents = rig

    def end() -> None:
        ender = threading.Thread(target=getattr(run_engine, how))
        ender.start()
        if how == "stop":  # lets the plan end in its own time
            return
        wait_until(lambda: dispim.spim.stopped.is_set() or run_engine.state == "idle", how)

    seen = at_plane(rig, 2, end)
    with pytest.raises((RunEngineInterrupted, Exception)):
        run_engine(lit_once_then_count(dispim, 200))
    assert seen == ["488 and 561"]
    wait_until(lambda: run_engine.state == "idle", "the run to end")
    wait_until(lambda: off(dispim), "the light to go off")
    assert of(documents, "stop")[0]["exit_status"] in {"abort", "success", "fail"}
    check_next_run(rig)


def check_next_run(rig: Rig) -> None:
    dispim, sink, run_engine, documents = rig
    sink.on_write = None
    run_engine(bp.count([dispim.spim]))
    assert of(documents, "stop")[-1]["exit_status"] == "success"
    assert sink.volumes("spim_a")[0].array[:, 0, 1].tolist() == list(range(PLANES))
    assert off(dispim)


def test_stop_ends_an_exposure_and_the_run_says_why(rig: Rig) -> None:
    dispim, sink, run_engine, documents = rig

    def stop() -> None:
        threading.Thread(target=dispim.spim.stop).start()
        wait_until(dispim.spim.stopped.is_set, "the stop")

    at_plane(rig, 3, stop)
    with pytest.raises(FailedStatus):
        run_engine(lit_once_then_count(dispim, 2))
    assert reason(documents).startswith("spim: ExposureStoppedError: stopped; HamCam1: 4 of 6 frames")
    assert all(volume.aborted for volume in sink.volumes("spim_a"))
    check_next_run(rig)


def test_a_laser_that_is_stopped_by_hand_never_gives_a_dark_volume_as_good(rig: Rig) -> None:
    dispim, _sink, run_engine, documents = rig
    at_plane(rig, 3, dispim.laser.stop)
    with pytest.raises(ReadingError, match="switched off by stop"):
        run_engine(lit_once_then_count(dispim, 2))
    assert "ExposureStoppedError: laser: switched off by stop() during the exposure" in reason(documents)
    assert of(documents, "event") == []
    check_next_run(rig)


def test_nothing_is_read_after_an_exposure_that_was_cut_short(rig: Rig) -> None:
    dispim, sink, run_engine, _documents = rig
    run_engine(bp.count([dispim.spim]))

    def cut(z: int) -> None:
        if z == 1:
            threading.Thread(target=lambda: dispim.spim.stop(success=True)).start()
            wait_until(dispim.spim.stopped.is_set, "the stop")

    sink.on_write = cut
    status = dispim.spim.trigger()
    status.wait(10)
    with pytest.raises(ReadingError, match="the last exposure did not end well: ExposureStoppedError"):
        dispim.spim.read()


def test_unstage_ends_an_exposure_that_nobody_waits_for(rig: Rig) -> None:
    dispim, sink, run_engine, _ = rig

    def plan() -> Plan:
        yield from bps.stage(dispim.spim)
        yield from bps.open_run()
        yield from bps.trigger(dispim.spim, wait=False)
        yield from bps.unstage(dispim.spim)
        yield from bps.close_run()

    def hold() -> None:
        wait_until(dispim.spim.stopped.is_set, "the unstage")

    at_plane(rig, 1, hold)
    with pytest.raises(FailedStatus):
        run_engine(plan())
    assert off(dispim)
    assert sink.volumes("spim_a")[0].aborted is not None


def test_a_stop_without_an_exposure_does_nothing(rig: Rig) -> None:
    dispim, _, _, _ = rig
    dispim.spim.stop()
    dispim.spim.pause()
    dispim.camera_a.stop(success=True)
    check_next_run(rig)


def test_closing_ends_an_exposure(rig: Rig) -> None:
    dispim, sink, run_engine, _ = rig
    run_engine(bp.count([dispim.spim]))
    began = threading.Event()

    def hold(_: int) -> None:
        began.set()
        wait_until(dispim.spim.stopped.is_set, "the close")

    sink.on_write = hold
    status: Any = dispim.spim.trigger()
    wait_until(began.is_set, "the first frame")
    dispim.close()
    with pytest.raises(Exception, match="stopped"):
        status.wait(10)
    assert off(dispim)
