from collections.abc import Iterator

import bluesky.plan_stubs as bps
import bluesky.plans as bp
import bluesky.preprocessors as bpp
import pytest
from bluesky import Msg
from bluesky.magics import _print_positioners
from ophyd.utils import LimitError

from devices import Configuration, Dispim
from gently_bluesky.errors import DeviceError, ExposureStoppedError, PresetError
from tests.devices_rig import engine, faults, of, reason, simulated, validate

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
        pytest.raises(PresetError, match=r"lit with '488 only', and at the end .* shows 'ALL OFF'"),
        dispim.laser.lit(),
    ):
        dispim.core.setConfig("Laser", OFF)


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
