"""Plans that wait for room on a real small file system, under a real RunEngine."""

import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import bluesky.plan_stubs as bps
import bluesky.plans as bp
import bluesky.preprocessors as bpp
import pytest
from bluesky import Msg, RunEngine
from bluesky.utils import RunEngineInterrupted
from ophyd.sim import det

from gently_bluesky import FileWriter
from gently_bluesky.keep.space import SuspendOnLowSpace
from gently_bluesky.plans import Embryo, acquire_timelapse
from gently_bluesky.store.disk import free_bytes
from tests.data_rig import Camera, connected, fill_up, hold_pixels, names, newest
from tests.devices_rig import DARK, simulated, small, spim_settings, subscribe

MIB = 1 << 20
Plan = Iterator[Msg]


class Watched(SuspendOnLowSpace):
    """Looks often, and says so; `at_look` is called before each look, on the RunEngine's thread."""

    def __init__(self, root: Path, *, below_bytes: int = MIB, resume_bytes: int = 2 * MIB) -> None:
        self.looks = 0
        self.at_look: list[Any] = []
        super().__init__(root, below_bytes=below_bytes, resume_bytes=resume_bytes, poll_s=0.001, free=self._look)

    def _look(self, root: Path) -> int:
        self.looks += 1
        for do in self.at_look:
            do(self.looks)
        return free_bytes(root)


def waiting(run_engine: RunEngine, space: SuspendOnLowSpace) -> RunEngine:
    run_engine.preprocessors.append(space)
    return run_engine


def test_a_timelapse_waits_in_the_dark_while_the_disk_is_low_and_goes_on_by_itself(
    small_disk: Path, caplog: pytest.LogCaptureFixture
) -> None:
    space = Watched(small_disk)
    events: list[int] = []
    lit: list[str] = []

    def lower(name: str, doc: dict[str, Any]) -> None:
        if name == "event":
            events.append(doc["seq_num"])
            if doc["seq_num"] == 2:
                ballast = fill_up(small_disk, leaving=MIB // 2)
                begun = space.looks

                def free_it(look: int) -> None:
                    lit.append(str(dispim.laser.output.get()))
                    if look == begun + 20:
                        assert len(events) == 2  # it waits
                        ballast.unlink()

                space.at_look = [free_it]

    with FileWriter(small_disk) as writer:
        run_engine = waiting(connected(writer)[0], space)
        subscribe(run_engine, lower)
        dispim = simulated(sink=writer, configuration=small(spim=spim_settings(views="AB")))
        try:
            run_engine(acquire_timelapse(dispim, [Embryo(name="e", x_um=0, y_um=0)], session="s", count=4))
        finally:
            dispim.close()
    run = newest(small_disk)
    assert run.exit_status == "success"
    assert run["primary"]["spim_a"].shape[0] == 4
    assert all(run["primary"]["spim_a"][event, :, 5:].min() > DARK for event in range(4))
    assert len(list(run.folder.glob("spim_a/*"))) == 4  # nothing was begun and given up
    assert set(lit) == {"ALL OFF"}
    hold_pixels(run)
    low, high = [record.getMessage() for record in caplog.records if "keep" in record.name]
    # a line or two of the journal may have come between
    assert re.match(
        rf"The plan waits: 5[12]\d,\d{{3}} bytes are free in {small_disk}, fewer than 1,048,576\.", low
    )
    assert "goes on by itself" in low
    assert high.startswith("The plan goes on: ")


def test_a_run_is_not_opened_before_there_is_room(small_disk: Path) -> None:
    space = Watched(small_disk)
    documents: list[int] = []
    with FileWriter(small_disk) as writer:
        ballast = fill_up(small_disk, leaving=MIB // 2)
        space.at_look = [lambda look: ballast.unlink() if look == 5 else None]
        run_engine = waiting(connected(writer)[0], space)
        subscribe(run_engine, lambda name, doc: documents.append(space.looks))
        run_engine(bp.count([Camera("cam", writer)]))
    assert documents[0] == 5
    assert newest(small_disk).exit_status == "success"


def test_more_must_be_free_to_go_on_than_to_wait(small_disk: Path) -> None:
    space = Watched(small_disk)
    ballast = fill_up(small_disk, leaving=MIB // 2)

    def free_it_by_and_by(look: int) -> None:
        if look == 10:
            ballast.unlink()
            fill_up(small_disk, leaving=3 * MIB // 2)
        if look == 20:
            ballast.unlink()

    space.at_look = [free_it_by_and_by]
    run_engine = waiting(RunEngine({}, context_managers=[]), space)
    run_engine(bp.count([det]))
    assert space.looks >= 20


def test_on_a_disk_with_room_a_plan_is_what_it_was(small_disk: Path) -> None:
    def plan() -> Any:
        with_error = bpp.contingency_wrapper(
            failing(), except_plan=lambda error: bps.null(), auto_raise=False, final_plan=bps.null
        )
        yield from with_error
        return (yield from bp.count([det], 3))

    def failing() -> Plan:
        yield from bps.checkpoint()
        yield Msg("no such command")

    space = SuspendOnLowSpace(small_disk, below_bytes=MIB)
    without, with_it = RunEngine({}, context_managers=[]), RunEngine({}, context_managers=[])
    waiting(with_it, space)
    seen: dict[RunEngine, list[str]] = {without: [], with_it: []}
    for run_engine, messages in seen.items():
        setattr(run_engine, "msg_hook", lambda msg, messages=messages: messages.append(msg.command))  # noqa: B010
        run_engine(plan())
    assert seen[without] == seen[with_it]
    assert "no such command" in seen[with_it]
    assert seen[with_it].count("save") == 3


def test_moving_waits_for_no_disk(small_disk: Path) -> None:
    fill_up(small_disk)
    space = Watched(small_disk)
    run_engine = waiting(RunEngine({}, context_managers=[]), space)
    run_engine(bps.null())
    assert space.looks == 0


@pytest.mark.parametrize("how", ["abort", "stop", "halt", "resume"])
def test_a_plan_that_waits_can_be_interrupted_like_any_other(small_disk: Path, how: str) -> None:
    space = Watched(small_disk)
    ballast = fill_up(small_disk, leaving=MIB // 2)
    ended: list[str] = []

    def pause(look: int) -> None:
        if look == 10:
            threading.Thread(target=run_engine.request_pause).start()

    space.at_look = [pause]
    run_engine = waiting(RunEngine({}, context_managers=[]), space)
    documents: list[tuple[str, dict[str, Any]]] = []
    subscribe(run_engine, lambda name, doc: documents.append((name, doc)))
    plan = bpp.finalize_wrapper(bp.count([det], 2), _note(ended))
    with pytest.raises(RunEngineInterrupted):
        run_engine(plan)
    ballast.unlink()
    getattr(run_engine, how)()
    assert ended == ([] if how == "halt" else ["ended"])
    assert names(documents).count("event") == (2 if how == "resume" else 0)


def _note(ended: list[str]) -> Any:
    def note() -> Plan:
        ended.append("ended")
        yield from bps.null()

    return note


def test_a_disk_that_is_gone_fails_the_plan_and_not_in_silence(tmp_path: Path) -> None:
    space = SuspendOnLowSpace(tmp_path / "nowhere", below_bytes=1)
    run_engine = waiting(RunEngine({}, context_managers=[]), space)
    with pytest.raises(FileNotFoundError):
        run_engine(bp.count([det]))


@pytest.mark.parametrize("numbers", [{"below_bytes": -1}, {"below_bytes": 2, "resume_bytes": 1}])
def test_numbers_that_cannot_be_meant_are_refused(tmp_path: Path, numbers: Any) -> None:
    with pytest.raises(ValueError, match="0 <= below_bytes <= resume_bytes"):
        SuspendOnLowSpace(tmp_path, **numbers)
