from pathlib import Path

import pytest
from pydantic import ValidationError

from devices import (
    Configuration,
    ManualClock,
    demo_micromanager_configuration,
    load_configuration,
    simulated_dispim,
)
from devices.configuration import LaserSettings
from devices.loading import check_configuration
from gently_bluesky.errors import ConfigError


def loaded(tmp_path: Path, text: str) -> Configuration:
    path = tmp_path / "dispim.toml"
    path.write_text(text, encoding="utf-8")
    return load_configuration(path)


def refused(tmp_path: Path, text: str) -> str:
    path = tmp_path / "dispim.toml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        load_configuration(path)
    return str(caught.value)


def test_the_defaults_are_the_instrument_of_the_facts() -> None:
    configuration = Configuration()
    assert configuration.xy_stage.label == "XYStage:XY:31"
    assert configuration.xy_stage.x_limits_um == (-2252.1, 983.0)
    assert configuration.fdrive.limits_um == (30, 25000)
    assert configuration.fdrive.timeout_s == 120
    assert configuration.laser.lines["488"].max == 6.0
    assert configuration.laser.lines["488"].min == 2.0
    assert configuration.laser.lines["561"].max == 100.0
    assert "405 only " in configuration.laser.presets
    assert "405 only" not in configuration.laser.presets
    assert configuration.camera_a.roi == (128, 896, 2048, 512)
    assert configuration.camera_a.pixel_um / configuration.camera_a.magnification == 0.1625
    assert configuration.bottom_camera.pixel_um / configuration.bottom_camera.magnification == 0.65
    assert configuration.camera_a.timeout_s == 30
    assert configuration.spim.timing.delay_before_scan_ms == 6.75


def test_an_empty_file_is_the_default_instrument(tmp_path: Path) -> None:
    path = tmp_path / "dispim.toml"
    path.write_text("", encoding="utf-8")
    assert load_configuration(path) == Configuration()


def test_a_file_changes_what_it_names_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "dispim.toml"
    path.write_text('[z_stage]\nlabel = "Z"\nlimits_um = [0, 10]\n[spim]\nnum_slices = 7\n', encoding="utf-8")
    configuration = load_configuration(str(path))
    assert configuration.z_stage.limits_um == (0, 10)
    assert configuration.spim.num_slices == 7
    assert configuration.fdrive == Configuration().fdrive


@pytest.mark.parametrize("section", ["z_stage", "fdrive", "piezo_a", "piezo_b"])
def test_a_section_may_be_given_in_part(tmp_path: Path, section: str) -> None:
    configuration = loaded(tmp_path, f"[{section}]\ntimeout_s = 77\n")
    before = getattr(Configuration(), section)
    assert getattr(configuration, section) == before.model_copy(update={"timeout_s": 77})


def test_a_line_may_be_given_in_part_and_the_others_stay(tmp_path: Path) -> None:
    lines = loaded(tmp_path, "[laser.lines.488]\nmax = 5.5\n").laser.lines
    assert (lines["488"].min, lines["488"].max, lines["488"].label) == (2.0, 5.5, "LaserPower488")
    assert {name: lines[name] for name in ("405", "561", "637")} == {
        name: LaserSettings().lines[name] for name in ("405", "561", "637")
    }


def test_plans_go_on_with_no_less_room_than_they_wait_for(tmp_path: Path) -> None:
    message = refused(tmp_path, "[space]\nsuspend_below_gb = 20\n")
    assert message == "dispim.toml: space: resume_from_gb 10 is below suspend_below_gb 20"
    assert loaded(tmp_path, "[space]\nsuspend_below_gb = 0\n").space.reserve_gb is None


def test_tables_are_merged_and_lists_are_replaced(tmp_path: Path) -> None:
    text = """
        [laser.presets]
        "488 only" = ["488", "405"]
        [camera_a.external]
        "TRIGGER ACTIVE" = "SYNCREADOUT"
        [spim.timing]
        scan_duration_ms = 9
        """
    configuration = loaded(tmp_path, text)
    assert configuration.laser.presets == {**LaserSettings().presets, "488 only": ("488", "405")}
    assert configuration.camera_a.external == {
        **Configuration().camera_a.external,
        "TRIGGER ACTIVE": "SYNCREADOUT",
    }
    assert configuration.spim.timing.scan_duration_ms == 9
    assert configuration.spim.timing.delay_before_scan_ms == 6.75


def test_false_takes_a_default_away_where_the_keys_are_the_users_own(tmp_path: Path) -> None:
    text = """
        [laser.lines]
        637 = false
        [laser.presets]
        "637 only" = false
        "ALL ON" = false
        [simulation.embryos_um]
        embryo_1 = false
        mine = [0, 0]
        """
    configuration = loaded(tmp_path, text)
    assert list(configuration.laser.lines) == ["405", "488", "561"]
    assert "ALL ON" not in configuration.laser.presets
    assert list(configuration.simulation.embryos_um) == ["embryo_2", "embryo_3", "mine"]


def test_a_region_that_does_not_fit_a_smaller_sensor_is_refused_with_one_that_does(tmp_path: Path) -> None:
    text = "[camera_a]\nsensor_px = [2048, 2048]\n[camera_b]\nsensor_px = [2048, 2048]\n"
    message = refused(tmp_path, text)
    expected = (
        "roi_px [128, 896, 2048, 512] does not lie on the sensor [2048, 2048]; "
        "give both, as in roi_px = [0, 768, 2048, 512]"
    )
    assert message.splitlines() == [f"dispim.toml: camera_{view}: {expected}" for view in "ab"]
    follows = text.replace("2048]\n", "2048]\nroi_px = [0, 768, 2048, 512]\n")
    assert loaded(tmp_path, follows).camera_b.roi == (0, 768, 2048, 512)


def test_the_examples_of_the_shipped_file_can_be_uncommented(tmp_path: Path) -> None:
    shipped = Path(__file__).parent.parent / "profiles" / "dispim" / "dispim.toml"
    head, mark, examples = shipped.read_text(encoding="utf-8").partition("(take the # away):\n")
    assert mark
    uncommented = "".join(line.removeprefix("#").removeprefix(" ") for line in examples.splitlines(keepends=True))
    configuration = loaded(tmp_path, head + mark + uncommented)
    assert configuration.micromanager.file == Path("C:/Program Files/Micro-Manager-2.0/dispim.cfg") or (
        configuration.micromanager.file == tmp_path / "C:/Program Files/Micro-Manager-2.0/dispim.cfg"
    )
    assert configuration.laser == LaserSettings()
    assert configuration.camera_a.sensor_px == (2048, 2048)
    assert configuration.piezo_a.timeout_s == 20
    simulated_dispim(configuration, clock=ManualClock()).close()


def test_relative_paths_are_meant_from_the_folder_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "dispim.toml"
    path.write_text('[micromanager]\nfile = "mm/dispim.cfg"\nadapter_paths = ["/opt/mm"]\n', encoding="utf-8")
    section = load_configuration(path).micromanager
    assert section.file == tmp_path / "mm" / "dispim.cfg"
    assert section.adapter_paths == (Path("/opt/mm"),)


def test_an_unknown_key_is_named_with_the_keys_that_there_are(tmp_path: Path) -> None:
    message = refused(tmp_path, "[spim]\nslices = 7\n")
    assert message.startswith("dispim.toml: spim.slices: no such key; allowed are ")
    assert "num_slices" in message


def test_an_unknown_section_is_named_with_the_sections_that_there_are(tmp_path: Path) -> None:
    message = refused(tmp_path, "[lasers]\n")
    assert message.startswith("dispim.toml: lasers: no such key; allowed are ")
    assert "laser" in message.split("allowed are ")[1]


def test_an_unknown_key_inside_a_table_of_lines_is_named(tmp_path: Path) -> None:
    text = '[laser.lines.405]\nlabel = "L"\nproperty = "P"\nmaximum = 3\n'
    message = refused(tmp_path, text)
    line = next(line for line in message.splitlines() if "maximum" in line)
    expected = (
        "dispim.toml: laser.lines.405.maximum: no such key; allowed are label, max, min, property, units_per"
    )
    assert line.startswith(expected)


def test_a_value_out_of_bounds_is_named_with_what_is_allowed(tmp_path: Path) -> None:
    message = refused(tmp_path, '[laser.lines.488]\nlabel = "L"\nproperty = "P"\nmax = 150\n')
    assert "dispim.toml: laser.lines.488.max: input should be less than or equal to 100, not 150" in message


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('[z_stage]\nlabel = "Z"\nlimits_um = [5, 1]\n', "z_stage.limits_um: the lower limit comes first"),
        ('trigger = "later"\n', "trigger: input should be 'external' or 'internal', not 'later'"),
        ("[laser.lines.445]\nmax = 5\n", "laser.lines.445.label: field required"),
        ("[laser.lines]\n445 = false\n", "laser.lines.445: input should be a valid dictionary"),
        (
            "[laser.lines]\n637 = false\n",
            "laser: preset '637 only' lights ['637']; lines are ['405', '488', '561']",
        ),
        ("[laser.lines.488]\nmax = 1.5\n", "laser.lines.488: min 2 is above max 1.5"),
        ("[laser]\nlines = 3\n", "laser.lines: input should be a valid dictionary, not 3"),
        ("[spim.timing]\nscan_ms = 3\n", "spim.timing.scan_ms: no such key; allowed are camera_duration_ms"),
        ('[laser]\nselected = "405 only"\n', "laser: preset '405 only' is not among presets"),
        ('[laser]\noff = "ALL ON"\n', "laser: preset 'ALL ON' is to switch everything off and lights"),
        ('[camera_a]\nlabel = "C"\nroi_px = [257, 0, 2048, 4]\n', "does not lie on the sensor [2304, 2304]"),
        ("[spim]\nnum_slices = 0\n", "spim.num_slices: input should be greater than or equal to 1, not 0"),
        (
            'multi_camera = ""\n[spim]\nviews = "AB"\n',
            "the whole file: multi_camera names nothing that starts both cameras, and spim.views is 'AB'",
        ),
        ('[camera_b]\nlabel = "C"\nroi_px = [0, 0, 64, 64]\n', "must deliver frames of one size"),
    ],
)
def test_what_cannot_be_meant_is_refused_by_file_and_key(tmp_path: Path, text: str, expected: str) -> None:
    message = refused(tmp_path, text)
    assert message.startswith("dispim.toml: ")
    assert expected in message


def test_every_problem_of_a_file_is_told_at_once(tmp_path: Path) -> None:
    message = refused(tmp_path, "[spim]\nnum_slices = 0\nz_step_um = -1\n")
    assert len(message.splitlines()) == 2


def test_a_file_that_is_not_toml_is_named(tmp_path: Path) -> None:
    assert "dispim.toml: is not TOML" in refused(tmp_path, "= nonsense")


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere\.toml: cannot be read: No such file"):
        load_configuration(tmp_path / "nowhere.toml")


def test_a_configuration_does_not_change() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        Configuration().spim.num_slices = 3


def test_an_instrument_on_the_demo_adapters_keeps_what_its_user_said(tmp_path: Path) -> None:
    """Only what the adapters force is other: how they are loaded, triggered, and told a power."""
    text = """
        name = "mine"
        trigger = "external"
        [xy_stage]
        label = "XY"
        x_limits_um = [-9, 9]
        [piezo_a]
        limits_um = [-20, 1000]
        [fdrive]
        limits_um = [1000, 2000]
        [laser.lines.488]
        label = "Lasers"
        property = "Percent488"
        min = 1
        max = 3
        [laser.lines.561]
        label = "Lasers"
        property = "Percent561"
        [laser.presets]
        "only mine" = ["488"]
        [bottom_camera]
        sensor_px = [100, 80]
        pixel_um = 3.45
        [led]
        limits_percent = [2, 50]
        [spim]
        num_slices = 7
        """
    mine = loaded(tmp_path, text)
    demo = demo_micromanager_configuration(mine)
    assert (demo.name, demo.core, demo.trigger) == ("mine", "micromanager", "internal")
    assert (demo.xy_stage, demo.spim, demo.scanner_a) == (mine.xy_stage, mine.spim, mine.scanner_a)
    assert demo.piezo_a.limits_um == (-20, 300)  # a DStage goes no further
    assert demo.fdrive.limits_um == (1000, 2000)  # it cannot go there at all, and says so
    lines = demo.laser.lines
    assert (lines["488"].min, lines["488"].max, lines["488"].property) == (1, 3, "Voltage")
    assert lines["488"].label != lines["561"].label
    assert demo.laser.presets == mine.laser.presets
    assert demo.led.limits_percent == (2, 50)
    assert (demo.bottom_camera.sensor_px, demo.bottom_camera.pixel_um) == ((100, 80), 3.45)
    assert demo.camera_a.roi == mine.camera_a.roi
    assert Configuration.model_validate(demo.model_dump()) == demo
    loads = {device.label: device for device in demo.micromanager.devices}
    assert loads["XY"].name == "DXYStage"
    assert loads["Multi Camera"].adapter == "Utilities"
    assert loads["Multi Camera"].properties["Physical Camera 2"] == "HamCam2"
    assert loads["Bottom PCO"].properties["OnCameraCCDXSize"] == "100"
    assert "only mine" in demo.micromanager.groups["Laser"]


def test_content_from_elsewhere_is_checked_alike() -> None:
    with pytest.raises(ConfigError, match="the profile: name: "):
        check_configuration({"name": ""}, source="the profile")
