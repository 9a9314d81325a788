"""The IPython profile, in a real IPython and in the queue server's loader."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from gently_bluesky import Catalog

REPOSITORY = Path(__file__).parent.parent
PROFILE = REPOSITORY / "profiles" / "dispim"


def ipython(root: Path, code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    pytest.importorskip("IPython")
    return subprocess.run(
        [sys.executable, "-m", "IPython", f"--profile-dir={PROFILE}", "--colors=NoColor", "-c", code],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        env={**os.environ, "GENTLY_ROOT": str(root), "PYTHONPATH": str(REPOSITORY), **environment},
    )


def in_profile(root: Path, code: str, **environment: str) -> str:
    result = ipython(root, code, **environment)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def test_the_prompt_has_everything_and_goes_on_counting(root: Path) -> None:
    code = "RE(volume('s', 'embryo_1', num_slices=2)); print('KEYS', list(catalog[-1])); %wa"
    shown = in_profile(root, "\n".join(code.split("; ")))
    assert "KEYS ['baseline', 'primary']" in shown
    assert "spim_a_mean" in shown  # the table of the best-effort callback
    assert "xy_stage" in shown.split("motors")[1]  # what %wa says
    in_profile(root, "RE(count([spim, temperature], 1)); RE(overview())")
    runs = list(reversed(list(Catalog(root))))
    assert [run.start["scan_id"] for run in runs] == [1, 2, 3]
    assert [run.exit_status for run in runs] == ["success"] * 3
    assert runs[0].start["operator"]


def test_the_same_profile_runs_on_micro_manager_with_what_the_file_says(root: Path, tmp_path: Path) -> None:
    """It names nothing to load: the demo adapters are loaded, and everything else is the user's."""
    pytest.importorskip("pymmcore")
    camera = "sensor_px = [64, 64]\nroi_px = [8, 16, 32, 24]\nmagnification = 10\n"
    mine = tmp_path / "mine.toml"
    mine.write_text(
        'name = "my diSPIM"\n[xy_stage]\nx_limits_um = [-500, 500]\n[laser.lines.561]\nmax = 7\n'
        f"[camera_a]\n{camera}[camera_b]\n{camera}[spim]\ncircular_buffer_mb = 16\n",
        encoding="utf-8",
    )
    shown = in_profile(
        root,
        "RE(timelapse(demo_embryos(), 's', 1, num_slices=2))\n"
        "print('LIMITS', xy_stage.limits[0], laser.power_561_percent.limits)",
        GENTLY_CORE="micromanager",
        GENTLY_CONFIG=str(mine),
    )
    assert "my diSPIM on the micromanager core" in shown
    assert "LIMITS (-500.0, 500.0) (0.0, 7.0)" in shown
    primary = Catalog(root)[-1]["primary"]
    assert primary["spim_a"].shape == (3, 2, 24, 32)
    assert primary["spim_a"].voxel_size_um == pytest.approx((1.0, 0.65, 0.65))
    assert primary.configuration()["spim"]["spim_core_version"].startswith("MMCore")


def test_the_disk_is_looked_after_as_the_file_says(root: Path, tmp_path: Path) -> None:
    mine = tmp_path / "mine.toml"
    space = "[space]\nreserve_gb = 0.25\nsuspend_below_gb = 0.5\nresume_from_gb = 0.75\n"
    mine.write_text(space, encoding="utf-8")
    code = "print('SPACE', writer.reserve_bytes, RE.preprocessors[-1])\nRE(volume(num_slices=2))"
    shown = in_profile(root, code, GENTLY_CONFIG=str(mine))
    assert "SPACE 250000000 SuspendOnLowSpace(" in shown
    assert "below_bytes=500000000, resume_bytes=750000000)" in shown
    assert Catalog(root)[-1].start["expected_bytes"] == 2 * 2 * 2048 * 512 * 2


def test_a_configuration_with_an_unknown_key_is_named(root: Path, tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.toml"
    wrong.write_text('[laser.lines."488"]\nmost = 9\n', encoding="utf-8")
    shown = in_profile(root, "1", GENTLY_CONFIG=str(wrong))
    assert "wrong.toml" in shown
    assert "laser.lines.488.most" in shown


def test_what_a_plan_refuses_is_one_line_each_and_a_bug_keeps_its_traceback(root: Path) -> None:
    refused = {
        "RE(volume(session=5))": "PlanTypeError: session is 5; it must be text",
        "RE(volume(z_step_um=50.0))": "LimitError: spim_a: 50 planes need the piezo from -1225 to 1225 um",
        "RE(volume(channel='488'))": "PresetError: laser_preset: '488' is not a choice",
        "RE(timelapse(['e1'], 's', 1))": "PlanTypeError: embryos are {name: (x_um, y_um)}",
        "RE(timelapse({}, 's', 1))": "PlanError: A time-lapse needs embryos",
        "RE(timelapse(demo_embryos(), 's', 0))": "PlanError: A time-lapse needs a whole count",
        "RE(bps.mv(spim.laser_preset, '488 only'))": "ReadOnlyError: spim_laser_preset is read from",
        "RE(bps.mv(xy_stage, (9999, 0)))": "LimitError: xy_stage_x: asked for 9999",
    }
    code = "\n".join(f"get_ipython().run_cell({plan!r})" for plan in refused)
    result = ipython(root, code)
    said = result.stderr.splitlines()
    assert len(said) == len(refused), result.stderr
    for line, expected in zip(said, refused.values(), strict=True):
        assert line.startswith(expected)
    assert "Traceback" not in result.stdout
    bug = ipython(root, "def broken():\n    yield from bps.null()\n    int('none')\nRE(broken())")
    assert "ValueError" in bug.stdout
    assert "Traceback" in bug.stdout


@pytest.mark.skipif(sys.platform == "win32", reason="signals between processes are POSIX")
def test_a_prompt_that_is_told_to_end_switches_the_lasers_off(root: Path) -> None:
    lines = (
        "import os, signal",
        "set_config = dispim.core.setConfig",
        "def told(*preset):",
        "    set_config(*preset)",
        "    print('TOLD', *preset, flush=True)",
        "dispim.core.setConfig = told",
        "laser.output.put('488 only')",
        "os.kill(os.getpid(), signal.SIGTERM)",
    )
    result = ipython(root, "\n".join(lines))
    said = [line for line in result.stdout.splitlines() if line.startswith("TOLD")]
    assert said == ["TOLD Laser 488 only", "TOLD Laser ALL OFF", "TOLD LED Closed"], result.stderr
    assert result.returncode == -signal.SIGTERM


def test_what_ipython_writes_does_not_dirty_the_tree(root: Path) -> None:
    def status() -> str:
        command = ["git", "status", "--porcelain", "profiles"]
        return subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False).stdout

    before = status()
    in_profile(root, "catalog")
    assert status() == before


def test_the_queue_server_finds_plans_and_devices(root: Path, tmp_path: Path) -> None:
    pytest.importorskip("bluesky_queueserver")
    program = Path(sys.executable).parent / "qserver-list-plans-devices"
    result = subprocess.run(
        [str(program), "--startup-dir", str(PROFILE / "startup"), "--file-dir", str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        env={**os.environ, "GENTLY_ROOT": str(root), "PYTHONPATH": str(REPOSITORY)},
    )
    assert result.returncode == 0, result.stderr
    listed = (tmp_path / "existing_plans_and_devices.yaml").read_text(encoding="utf-8")
    for name in ("timelapse", "volume", "overview", "count", "spim", "xy_stage", "laser"):
        assert f"\n  {name}:" in listed
