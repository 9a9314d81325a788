import contextlib
from collections.abc import Callable, Iterator

import bluesky.plan_stubs as bps
import bluesky.plans as bp
import bluesky.preprocessors as bpp
import pytest
from bluesky import Msg
from bluesky.magics import _print_positioners
from bluesky.utils import FailedStatus
from ophyd.utils import LimitError

from devices import Configuration, Dispim, demo_micromanager_configuration, micromanager_dispim
from devices.scan import ScanProgram
from devices.signals import Told
from gently_bluesky.errors import DeviceError, ExposingError, ExposureStoppedError, PresetError, ReadingError
from tests.devices_rig import (
    PLANES,
    MemorySink,
    engine,
    faults,
    of,
    reason,
    simulated,
    subscribe,
    validate,
    with_sink,
)

OFF = "ALL OFF"


def now(dispim: Dispim) -> str:
    return str(dispim.core.getCurrentConfig("Laser"))


@pytest.mark.parametrize("name", ["laser", "led"])
def test_every_light_can_be_counted(name: str) -> None:
    run_engine, documents = engine()
    run_engine(bp.count([simulated().devices()[name]], 2))
    validate(documents)
    assert len(of(documents, "event")) == 2


@pytest.mark.parametrize("preset", list(Configuration().laser.presets))
def test_selecting_a_preset_lights_nothing_and_is_read(preset: str) -> None:
    dispim = simulated()
    dispim.laser.set(preset).wait(10)
    assert now(dispim) == OFF
    reading = dispim.laser.read()
    assert reading["laser_preset"]["value"] == preset
    assert reading["laser_output"]["value"] == OFF


@pytest.mark.parametrize("spelled", ["405 only", "488 Only", "", "488", "ALL"])
def test_a_preset_is_spelled_exactly_or_refused_with_those_that_there_are(spelled: str) -> None:
    with pytest.raises(PresetError, match=r"there are .*'405 only '"):
        simulated().laser.set(spelled)


def test_it_shines_with_what_is_selected_and_only_within_its_block() -> None:
    dispim = simulated()
    dispim.laser.set("488 and 561").wait(10)
    with dispim.laser.lit() as preset:
        assert preset == now(dispim) == "488 and 561"
    assert now(dispim) == OFF
    assert dispim.laser.preset.get() == "488 and 561"


def test_it_goes_dark_when_its_block_fails() -> None:
    dispim = simulated()
    with pytest.raises(ZeroDivisionError), dispim.laser.lit():
        raise ZeroDivisionError
    assert now(dispim) == OFF


def test_a_preset_that_is_refused_leaves_it_dark() -> None:
    dispim = simulated()
    faults(dispim).refused_presets.add(("Laser", "488 only"))
    with (
        pytest.raises(PresetError, match="laser: group 'Laser' refused preset '488 only'"),
        dispim.laser.lit(),
    ):
        pytest.fail("it shone")
    assert now(dispim) == OFF


def test_a_preset_that_does_not_come_on_is_an_error_and_not_a_dark_exposure() -> None:
    dispim = simulated()
    faults(dispim).ignored_presets.add(("Laser", "488 only"))
    with pytest.raises(PresetError, match="to show preset '488 only': not within 5 s"), dispim.laser.lit():
        pytest.fail("it was dark")


def test_light_that_goes_out_during_an_exposure_is_an_error() -> None:
    dispim = simulated()
    with (
        pytest.raises(PresetError, match=r"not lit throughout: it began with '488 only', and .* showed 'ALL OFF'"),
        dispim.laser.lit(),
    ):
        dispim.core.setConfig("Laser", OFF)


def flicker(dispim: Dispim, sink: MemorySink, switch: Callable[[str], object], *, dark: int, again: int) -> None:
    """Let somebody switch off at one plane of a volume and on again at another, as far as it is allowed."""

    def act(z: int) -> None:
        if z in {dark, again}:
            switch(OFF if z == dark else "488 only")

    sink.on_write = act


def second_client(dispim: Dispim) -> Callable[[str], object]:
    return lambda preset: dispim.core.setConfig("Laser", preset)


def own_output(dispim: Dispim) -> Callable[[str], object]:
    put: Callable[[str], object] = dispim.laser.output.put
    return put


@pytest.mark.parametrize(
    ("who", "because"),
    [
        (second_client, "it began with '488 only', and then group 'Laser' showed 'ALL OFF'"),
        (own_output, "switched off during the exposure"),
    ],
)
@pytest.mark.parametrize("dark", [0, 2, PLANES - 2])
def test_a_volume_that_was_dark_for_a_while_is_none(
    dark: int, who: Callable[[Dispim], Callable[[str], object]], because: str
) -> None:
    """The light is back before the volume ends."""
    dispim, sink, run_engine, documents = with_sink()
    flicker(dispim, sink, who(dispim), dark=dark, again=dark + 1)
    with pytest.raises(FailedStatus):
        run_engine(bp.count([dispim.spim]))
    assert reason(documents) == f"spim: PresetError: laser: not lit throughout: {because}"
    assert of(documents, "event") == []
    assert sink.volumes("spim_a")[0].aborted is not None
    assert now(dispim) == OFF
    sink.on_write = None
    run_engine(bp.count([dispim.spim]))
    assert of(documents, "stop")[-1]["exit_status"] == "success"


def test_off_and_on_again_between_two_frames_is_no_less_dark_when_it_was_our_own_output() -> None:
    """A second client could do so unseen; what goes through this device cannot."""
    dispim, sink, run_engine, documents = with_sink()
    refused: list[str] = []

    def act(z: int) -> None:
        if z == 2:
            dispim.laser.output.put(OFF)
            with pytest.raises(ExposingError) as caught:
                dispim.laser.output.put("488 only")
            refused.append(str(caught.value))
            dispim.core.setConfig("Laser", "488 only")

    sink.on_write = act
    with pytest.raises(FailedStatus):
        run_engine(bp.count([dispim.spim]))
    assert "not lit throughout: switched off during the exposure" in reason(documents)
    assert refused[0].startswith("laser_output: not changed, for spim is exposing and depends on it")


@pytest.mark.parametrize(("light", "preset"), [("laser", "561 only"), ("led", "Open")])
def test_no_light_of_ours_comes_on_during_an_exposure(light: str, preset: str) -> None:
    dispim, sink, run_engine, documents = with_sink()
    refused: list[str] = []

    def act(z: int) -> None:
        with pytest.raises(ExposingError) as caught:
            dispim.devices()[light].output.put(preset)
        refused.append(str(caught.value))

    sink.on_write = act
    run_engine(bp.count([dispim.spim]))
    assert len(refused) == PLANES
    assert of(documents, "stop")[0]["exit_status"] == "success"


def test_a_power_that_somebody_else_turns_down_in_an_exposure_is_seen_at_its_end() -> None:
    dispim, sink, run_engine, documents = with_sink()

    def act(z: int) -> None:
        if z == 2:
            dispim.core.setProperty("LaserPower488", "PowerSetpoint(%)", "0")

    sink.on_write = act
    with pytest.raises(FailedStatus):
        run_engine(bp.count([dispim.spim]))
    assert "laser_power_488_percent was 5 percent when the exposure began, and 0 at its end" in reason(documents)


def test_a_light_that_does_not_say_what_shines_fails_the_exposure() -> None:
    """Once, while frames come; it answers again when it is switched off."""
    dispim, sink, run_engine, documents = with_sink()
    ask, silent = dispim.core.getCurrentConfig, ["Serial command failed"]

    def sometimes(group: str) -> str:
        if ask(group) != OFF and silent and sink.volumes("spim_a")[-1].frames:
            raise RuntimeError(silent.pop())
        return ask(group)

    dispim.core.getCurrentConfig = sometimes  # type: ignore[method-assign]
    with pytest.raises(FailedStatus):
        run_engine(bp.count([dispim.spim]))
    assert "group 'Laser' does not say what shines: Serial command failed" in reason(documents)
    assert now(dispim) == OFF


@pytest.mark.parametrize("end", ["stop", "all_off"])
def test_who_switches_off_after_the_trigger_and_before_the_light_is_heard(end: str) -> None:
    dispim, _, run_engine, _ = with_sink()
    run_engine(bp.count([dispim.spim]))
    lit: list[str] = []
    set_config = dispim.core.setConfig

    def watched(group: str, preset: str) -> None:
        lit.append(preset)
        set_config(group, preset)

    dispim.core.setConfig = watched  # type: ignore[method-assign]
    program = dispim.spim._program

    def meanwhile(told: Told) -> ScanProgram:
        getattr(dispim.laser, end)()
        return program(told)

    dispim.spim._program = meanwhile  # type: ignore[method-assign]
    error = ExposureStoppedError if end == "stop" else PresetError
    status = dispim.spim.trigger()
    with contextlib.suppress(PresetError):  # a stop alone is a pause, and ends it well
        status.wait(10)
    with pytest.raises(ReadingError, match=error.__name__):
        dispim.spim.read()
    assert set(lit) == {OFF}


def test_on_micro_manager_a_second_client_is_seen_as_well() -> None:
    pytest.importorskip("pymmcore")
    sink = MemorySink()
    run_engine, documents = engine()
    subscribe(run_engine, sink)
    dispim = micromanager_dispim(demo_micromanager_configuration(sensor_px=(64, 64)), sink=sink)
    run_engine(bps.mv(dispim.spim.num_slices, PLANES))
    flicker(dispim, sink, second_client(dispim), dark=1, again=2)
    with pytest.raises(FailedStatus):
        run_engine(bp.count([dispim.spim]))
    assert "not lit throughout: it began with '488 only', and then group 'Laser' showed 'ALL OFF'" in reason(
        documents
    )
    dispim.close()


def test_a_light_that_is_shut_stays_dark_until_it_is_opened_again() -> None:
    dispim = simulated()
    with (
        pytest.raises(ExposureStoppedError, match="laser: shut, for the program is about to end"),
        dispim.laser.lit(),
    ):
        dispim.laser.shut()
    with pytest.raises(ExposureStoppedError), dispim.laser.lit():
        pytest.fail("it shone")
    with pytest.raises(ExposureStoppedError):
        dispim.laser.output.put("488 only")
    assert now(dispim) == OFF
    dispim.laser.reopen()
    with dispim.laser.lit() as preset:
        assert now(dispim) == preset


def test_light_that_does_not_go_off_is_told_loudly() -> None:
    dispim = simulated()
    faults(dispim).ignored_presets.add(("Laser", OFF))
    with pytest.raises(DeviceError, match="laser COULD NOT BE SWITCHED OFF"), dispim.laser.lit():
        pass


def test_light_that_does_not_go_off_after_a_failure_tells_both() -> None:
    dispim = simulated()
    faults(dispim).ignored_presets.add(("Laser", OFF))
    expected = "COULD NOT BE SWITCHED OFF.*it was lit, and then: no more film"
    with pytest.raises(DeviceError, match=expected), dispim.laser.lit():
        raise ValueError("no more film")


def test_stop_switches_off_and_keeps_the_selection() -> None:
    dispim = simulated()
    dispim.laser.set("561 only").wait(10)
    seen = []

    def stopped() -> None:
        with dispim.laser.lit():
            dispim.laser.stop()
            seen.append(now(dispim))

    with pytest.raises(ExposureStoppedError):
        stopped()
    assert seen == [OFF]
    with dispim.laser.lit():
        assert now(dispim) == "561 only"


def test_output_drives_the_group_by_hand_and_unstage_ends_it() -> None:
    run_engine, documents = engine()
    dispim = simulated()
    run_engine(bps.mv(dispim.laser.output, "637 only"))
    assert now(dispim) == "637 only"
    run_engine(bp.count([dispim.laser]))
    assert of(documents, "event")[-1]["data"]["laser_output"] == "637 only"
    assert now(dispim) == OFF


@pytest.mark.parametrize(
    ("line", "percent", "allowed"),
    [("488", 9.09, "2 to 6"), ("488", 1.99, "2 to 6"), ("405", 100.5, "0 to 100"), ("637", -1, "0 to 100")],
)
def test_a_power_outside_its_bounds_is_refused_by_line(line: str, percent: float, allowed: str) -> None:
    dispim = simulated()
    before = dispim.laser.powers[line].get()
    with pytest.raises(
        LimitError, match=rf"laser_power_{line}_percent: asked for .*allowed are {allowed} percent"
    ):
        dispim.laser.powers[line].set(percent)
    assert dispim.laser.powers[line].get() == before


def test_a_power_within_its_bounds_is_set_and_read() -> None:
    run_engine, documents = engine()
    dispim = simulated()
    run_engine(bps.mv(dispim.laser.power_488_percent, 3.5))
    run_engine(bp.count([dispim.laser]))
    assert of(documents, "event")[0]["data"]["laser_power_488_percent"] == 3.5
    assert dispim.core.getProperty("LaserPower488", "PowerSetpoint(%)") == "3.5"


def test_it_does_not_shine_while_somebody_else_has_set_a_power_out_of_bounds() -> None:
    """The instrument's own preset says 9.09 percent."""
    dispim = simulated()
    dispim.core.setProperty("LaserPower488", "PowerSetpoint(%)", "9.09")
    expected = r"preset '488 only' would light 488 nm at 9\.09 percent, allowed are 2 to 6"
    with pytest.raises(PresetError, match=expected), dispim.laser.lit():
        pytest.fail("it shone")
    dispim.laser.set("561 only").wait(10)
    with dispim.laser.lit():
        assert now(dispim) == "561 only"


def test_a_refused_preset_is_the_reason_of_the_run() -> None:
    run_engine, documents = engine()
    dispim = simulated()

    def plan() -> Iterator[Msg]:
        yield from bps.open_run()
        yield from bps.mv(dispim.laser, "405 only")

    with pytest.raises(PresetError):
        run_engine(plan())
    assert "'405 only' is not a choice" in reason(documents)


def test_a_power_that_cannot_be_written_is_the_reason_of_the_run() -> None:
    run_engine, documents = engine()
    dispim = simulated()
    faults(dispim).failing_writes.add(("LaserPower561", "PowerSetpoint(%)"))

    def plan() -> Iterator[Msg]:
        yield from bps.open_run()
        yield from bps.mv(dispim.laser.power_561_percent, 20)

    with pytest.raises(Exception, match="DeviceError"):
        run_engine(plan())
    assert "mmcore:LaserPower561.PowerSetpoint(%) refused 20" in reason(documents)


def test_the_lamp_shines_within_an_exposure_and_at_no_other_time() -> None:
    dispim = simulated()
    with dispim.led.lit():
        assert dispim.core.getCurrentConfig("LED") == "Open"
    assert dispim.core.getCurrentConfig("LED") == "Closed"


def test_the_lamp_has_an_intensity_with_bounds() -> None:
    dispim = simulated()
    dispim.led.intensity_percent.set(30).wait(10)
    assert dispim.led.read()["led_intensity_percent"]["value"] == 30
    with pytest.raises(LimitError, match="led_intensity_percent: asked for 0, allowed are 1 to 100 percent"):
        dispim.led.intensity_percent.set(0)


def test_closing_the_instrument_switches_everything_off() -> None:
    dispim = simulated()
    dispim.laser.output.set("ALL ON").wait(10)
    dispim.led.output.set("Open").wait(10)
    dispim.close()
    assert now(dispim) == OFF
    assert dispim.core.getCurrentConfig("LED") == "Closed"
    dispim.close()


@pytest.mark.parametrize(("name", "preset"), [("laser", "405 only "), ("led", "Closed")])
def test_the_position_of_a_light_is_its_preset_and_a_plan_can_bring_it_back(name: str, preset: str) -> None:
    run_engine, documents = engine()
    light = simulated().devices()[name]
    before = light.position
    run_engine(bpp.reset_positions_wrapper(bps.mv(light, preset), [light]))
    assert light.position == before
    run_engine(bps.mv(light, preset))
    assert light.position == preset
    run_engine(bps.mv(light, light.position))
    assert type(light.preset.get()) is str
    assert documents == []


def test_lights_are_listed_among_positioners_as_at_the_prompt(capsys: pytest.CaptureFixture[str]) -> None:
    dispim = simulated()
    _print_positioners([dispim.laser, dispim.led, dispim.z_stage, dispim.xy_stage])
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[1:]] == ["laser", "led", "xy_stage", "z_stage"]
    assert "488 only" in lines[1]
