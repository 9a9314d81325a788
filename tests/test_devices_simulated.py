from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tifffile

from devices import Configuration, ManualClock, demo_embryos, simulated_dispim
from devices.configuration import SimulationSettings
from devices.sequence import frame_time
from devices.simulated.cameras import SimulatedTags
from devices.simulated.embryo import CYCLE_S, SEMI_AXES_UM, Embryo
from devices.simulated.microscopy import Microscopy
from devices.simulated.scan import SCANNER_PROPERTIES, start_scan
from devices.simulated.scene import FrameContext
from devices.simulated.stages import SimulatedStage
from devices.simulated.volume_file import VolumeFile
from gently_bluesky.errors import ConfigError

EMBRYO = demo_embryos()["embryo_1"]
SEEN = FrameContext(
    camera="HamCam1",
    view="A",
    number=3,
    plane=3,
    elapsed_s=0.0,
    roi=(896, 896, 512, 512),
    binning=1,
    exposure_ms=5.0,
    stage_um=(*EMBRYO, 0.0),
    sheet_um=0.0,
    focus_um=0.0,
    powers={"488": 5.0},
    lamp_percent=0.0,
)


@pytest.fixture(scope="module")
def microscopy() -> Microscopy:
    return Microscopy(Configuration())


def test_a_frame_without_laser_is_offset_and_noise(microscopy: Microscopy) -> None:
    dark = microscopy(replace(SEEN, powers={}))
    assert dark.dtype == np.uint16
    assert dark.shape == (512, 512)
    assert dark.mean() == pytest.approx(100, abs=1)
    assert dark.std() == pytest.approx(3, abs=0.3)


def test_an_embryo_is_brighter_with_more_power_and_longer_exposure(microscopy: Microscopy) -> None:
    def signal(context: FrameContext) -> float:
        return float(microscopy(context).mean() - 99.5)

    once = signal(SEEN)
    assert once > 1
    assert signal(replace(SEEN, powers={"488": 10.0})) == pytest.approx(2 * once, rel=0.15)
    assert signal(replace(SEEN, exposure_ms=10.0)) == pytest.approx(2 * once, rel=0.15)
    assert signal(replace(SEEN, powers={"488": 5.0, "561": 5.0})) > 1.4 * once
    assert signal(replace(SEEN, powers={"637": 5.0})) < 0.3 * once


def test_the_stage_moves_the_embryo_across_the_frame(microscopy: Microscopy) -> None:
    """View A sees y along its columns, and x, at 45 degree, along its rows."""

    def middle(stage: tuple[float, float, float]) -> tuple[float, float]:
        bright = microscopy(replace(SEEN, stage_um=stage)).astype(float) - 110
        bright = np.clip(bright, 0, None)
        rows, columns = np.indices(bright.shape)
        return float((rows * bright).sum() / bright.sum()), float((columns * bright).sum() / bright.sum())

    x, y = EMBRYO
    row, column = middle((x, y, 0.0))
    row_y, column_y = middle((x, y - 16.25, 0.0))
    assert column_y - column == pytest.approx(100, abs=2)
    assert row_y - row == pytest.approx(0, abs=2)


def test_both_views_see_the_same_nuclei_from_two_sides(microscopy: Microscopy) -> None:
    view_a = microscopy(SEEN)
    view_b = microscopy(replace(SEEN, view="B", camera="HamCam2"))
    assert view_b.max() > 300
    assert not np.array_equal(view_a, view_b)


def test_the_sheet_cuts_the_embryo_where_it_is(microscopy: Microscopy) -> None:
    def peak(um: float) -> int:
        return int(microscopy(replace(SEEN, sheet_um=um, focus_um=um)).max())

    assert max(peak(um) for um in range(-12, 13, 3)) > 600
    assert peak(60.0) < 130
    assert peak(-60.0) < 130


def test_out_of_focus_is_dimmer_and_wider(microscopy: Microscopy) -> None:
    """Focus comes from the piezo and the sheet from the galvo: a calibration that is off is seen."""
    sharp = microscopy(replace(SEEN, sheet_um=-7.0, focus_um=-7.0))
    blurred = microscopy(replace(SEEN, sheet_um=-7.0, focus_um=13.0))
    assert blurred.max() < 0.6 * sharp.max()
    assert blurred.mean() == pytest.approx(sharp.mean(), rel=0.05)


def test_the_same_seed_gives_the_same_frame_and_another_one_another() -> None:
    assert np.array_equal(Microscopy(Configuration())(SEEN), Microscopy(Configuration())(SEEN))
    other = Configuration(simulation=SimulationSettings(seed=2))
    assert not np.array_equal(Microscopy(Configuration())(SEEN), Microscopy(other)(SEEN))


def test_frames_of_one_sequence_differ_in_their_noise(microscopy: Microscopy) -> None:
    assert not np.array_equal(microscopy(SEEN), microscopy(replace(SEEN, number=4)))


def test_the_lamp_shows_embryos_as_shadows_to_the_bottom_camera(microscopy: Microscopy) -> None:
    below = replace(SEEN, view="bottom", camera="Bottom PCO", roi=(0, 0, 2048, 2048), exposure_ms=10.0)
    dark = microscopy(below)
    assert dark.max() < 150
    bright = microscopy(replace(below, lamp_percent=50.0))
    assert bright[0, 0] > 5000
    assert bright[1024, 1024] < 0.7 * bright[0, 0]


def test_nuclei_divide_with_time_and_stay_in_the_shell() -> None:
    embryo = Embryo((0.0, 0.0), seed=7, age=2.0)
    reach = []
    for hours in range(6):
        nuclei = embryo.nuclei(hours * 3600.0)
        apart = np.unique(np.round(nuclei.centers_um, 3), axis=0)
        reach.append(len(apart))
        turn = np.array([np.cos(embryo.angle), np.sin(embryo.angle)])
        along = nuclei.centers_um[:, :2] @ turn
        across = nuclei.centers_um[:, :2] @ np.array([-turn[1], turn[0]])
        inside = (along / SEMI_AXES_UM[0]) ** 2 + (across / SEMI_AXES_UM[1]) ** 2
        inside += (nuclei.centers_um[:, 2] / SEMI_AXES_UM[2]) ** 2
        assert inside.max() <= 1
    assert reach == sorted(reach)
    assert reach[0] >= 4
    assert reach[-1] > 8 * reach[0]


def test_nuclei_move_steadily() -> None:
    embryo = Embryo((0.0, 0.0), seed=7)
    before, after = embryo.nuclei(CYCLE_S * 0.6), embryo.nuclei(CYCLE_S * 0.6 + 10)
    assert np.abs(before.centers_um - after.centers_um).max() < 1.0


def test_planes_of_a_file_are_served_in_the_middle_of_the_frame(tmp_path: Path) -> None:
    volume = np.arange(4 * 8 * 16, dtype=np.uint16).reshape(4, 8, 16) + 1000
    path = tmp_path / "volume.tif"
    tifffile.imwrite(path, volume, photometric="minisblack")
    small = replace(SEEN, roi=(0, 0, 32, 16), plane=2)
    source = VolumeFile(path, seed=1)
    frame = source(small)
    assert np.array_equal(frame[4:12, 8:24], volume[2])
    assert frame[0, 0] < 150
    assert source(replace(small, powers={})).max() < 150
    assert source(replace(small, plane=4)).max() < 150
    assert np.array_equal(source(replace(small, roi=(0, 0, 4, 4)))[:, :], volume[2][2:6, 6:10])


def test_the_configured_file_is_what_the_cameras_see(tmp_path: Path) -> None:
    path = tmp_path / "volume.tif"
    tifffile.imwrite(path, np.full((3, 64, 64), 4321, np.uint16), photometric="minisblack")
    settings = SimulationSettings(volume_file=path)
    dispim = simulated_dispim(Configuration(simulation=settings), clock=ManualClock())
    dispim.spim.num_slices.put(3)
    dispim.spim.trigger().wait(30)
    volume = dispim.spim.read()["spim_a"]["value"]
    assert (volume == 4321).sum() == 3 * 64 * 64


@pytest.mark.parametrize("shape", [(8, 8), (2, 2, 8, 8)])
def test_a_file_that_is_no_volume_is_refused(tmp_path: Path, shape: tuple[int, ...]) -> None:
    path = tmp_path / "volume.tif"
    tifffile.imwrite(path, np.zeros(shape, np.uint16), photometric="minisblack")
    with pytest.raises(ConfigError, match=r"simulation\.volume_file: .* what can be served is \(z, y, x\)"):
        VolumeFile(path, seed=1)


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"simulation\.volume_file: .*nowhere\.tif cannot be read"):
        VolumeFile(tmp_path / "nowhere.tif", seed=1)


def test_a_stage_stops_between_two_places() -> None:
    clock = ManualClock()
    stage = SimulatedStage(clock, speed=10.0, position=(0.0, 0.0))
    stage.send((100.0, -20.0))
    clock.advance(3)
    assert stage.where() == (30.0, -20.0)
    assert stage.busy()
    stage.stop()
    assert not stage.busy()
    clock.advance(10)
    assert stage.where() == (30.0, -20.0)


def test_the_state_machine_pulses_side_after_side() -> None:
    scanner = {
        **SCANNER_PROPERTIES,
        "SPIMNumSlices": "3",
        "SPIMNumSides": "2",
        "SPIMFirstSide": "B",
        "SPIMDelayBeforeCamera(ms)": "2",
        "SPIMCameraDuration(ms)": "8",
        "SingleAxisYAmplitude(deg)": "0.2",
        "SingleAxisYOffset(deg)": "0.1",
    }
    armed = {"SPIMState": "Armed", "SingleAxisAmplitude(um)": "20", "SingleAxisOffset(um)": "5"}
    idle = {**armed, "SPIMState": "Idle"}
    scan = start_scan(scanner, {"A": scanner, "B": scanner}, {"A": armed, "B": idle}, now=100.0)
    assert [(pulse.side, pulse.plane) for pulse in scan.pulses] == [(s, p) for s in "BA" for p in range(3)]
    assert [pulse.at for pulse in scan.pulses] == pytest.approx([100.002 + 0.010 * i for i in range(6)])
    assert [pulse.sheet_um for pulse in scan.pulses[3:]] == pytest.approx([0, 10, 20])
    assert [pulse.focus_um for pulse in scan.pulses[3:]] == pytest.approx([-5, 5, 15])
    assert [pulse.focus_um for pulse in scan.pulses[:3]] == [None] * 3
    assert scan.ends == pytest.approx(100.06)


def test_the_hour_that_comes_twice_is_read_by_the_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """MMCore writes local time without a zone; 2026-10-25 02:30 happened twice in Berlin."""
    import time

    monkeypatch.setenv("TZ", "Europe/Berlin")
    time.tzset()
    try:
        tags = SimulatedTags()
        tags.fill({"TimeReceivedByCore": "2026-10-25 02:30:00.250000"})
        summer, winter = 1792888200.25, 1792891800.25
        assert frame_time(tags, summer + 1) == summer
        assert frame_time(tags, winter + 1) == winter
    finally:
        monkeypatch.undo()
        time.tzset()


def test_a_frame_without_a_time_came_now() -> None:
    assert frame_time(SimulatedTags(), 42.0) == 42.0
