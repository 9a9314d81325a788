from pathlib import Path

import pytest
from pydantic import ValidationError

from devices import Configuration, load_configuration
from devices.loading import check_configuration
from gently_bluesky.errors import ConfigError


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
        ("[z_stage]\nlimits_um = [0, 1]\n", "z_stage.label: field required"),
        ('[laser]\nselected = "405 only"\n', "laser: preset '405 only' is not among presets"),
        ('[laser]\noff = "ALL ON"\n', "laser: preset 'ALL ON' is to switch everything off and lights"),
        ('[camera_a]\nlabel = "C"\nroi_px = [1, 0, 2048, 4]\n', "does not lie on the sensor [2048, 2048]"),
        ("[spim]\nnum_slices = 0\n", "spim.num_slices: input should be greater than or equal to 1, not 0"),
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


def test_content_from_elsewhere_is_checked_alike() -> None:
    with pytest.raises(ConfigError, match="the profile: name: "):
        check_configuration({"name": ""}, source="the profile")
