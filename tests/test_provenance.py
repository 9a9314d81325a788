"""What ran: versions, commits, hashes, in the start documents of acquisitions."""

import hashlib
import os
import platform
import subprocess
from pathlib import Path

import bluesky
import numpy as np
import ophyd
import pytest

from gently_bluesky import Catalog, __version__
from gently_bluesky.plans import Calibration, Embryo, acquire_timelapse
from gently_bluesky.provenance import commit_of, provenance, version_of, versions
from tests.conftest import tool
from tests.devices_rig import engine, of, simulated
from tests.test_cli import gently
from tests.test_profile import PROFILE, in_profile


def git(folder: Path, *arguments: str) -> str:
    program = tool("git", "git")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    done = subprocess.run(
        [program, "-C", folder, "-c", "user.name=t", "-c", "user.email=t@example.org", *arguments],
        capture_output=True,
        text=True,
        check=True,
        env=environment,
    )
    return done.stdout.strip()


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout with a file in a folder, and one that is ignored."""
    folder = tmp_path / "checkout"
    (folder / "startup").mkdir(parents=True)
    (folder / "startup" / "00.py").write_text("x = 1\n")
    (folder / ".gitignore").write_text("ignored/\n")
    (folder / "ignored").mkdir()
    (folder / "ignored" / "library.py").write_text("y = 2\n")
    git(folder, "init", "--quiet")
    git(folder, "add", ".")
    git(folder, "commit", "--quiet", "--message", "first")
    return folder


def test_a_commit_is_that_of_the_checkout_and_dirty_is_what_is_tracked(checkout: Path) -> None:
    commit = git(checkout, "rev-parse", "HEAD")
    clean = {"commit": commit, "dirty": False}
    assert commit_of(checkout) == commit_of(checkout / "startup") == commit_of(checkout / "startup/00.py") == clean
    (checkout / "notes.txt").write_text("not tracked")
    assert commit_of(checkout / "startup") == clean
    (checkout / "startup" / "00.py").write_text("x = 2\n")
    assert commit_of(checkout / "startup") == {"commit": commit, "dirty": True}


def test_where_no_checkout_tracks_a_file_there_is_no_commit(checkout: Path, tmp_path: Path) -> None:
    """A virtual environment inside a checkout is none of its work."""
    assert commit_of(checkout / "ignored" / "library.py") == {}
    assert commit_of(checkout / "startup" / "missing.py") == {}
    assert commit_of(tmp_path) == {}
    assert commit_of(tmp_path / "nowhere" / "at_all.py") == {}
    empty = tmp_path / "empty"
    empty.mkdir()
    git(empty, "init", "--quiet")
    (empty / "a").write_text("")
    git(empty, "add", "a")
    assert commit_of(empty / "a") == {}  # it has no commit yet


def test_without_git_there_is_no_commit(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    assert commit_of(checkout) == {}
    assert "commit" not in provenance(profile=checkout)["profile"]


def test_a_variable_of_git_leads_to_no_other_checkout(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As it stands in the environment of a hook."""
    expected = commit_of(checkout)
    monkeypatch.setenv("GIT_DIR", str(Path(__file__).parent.parent / ".git"))
    assert commit_of(checkout) == expected


def test_versions_are_those_that_run() -> None:
    assert versions(("numpy", "bluesky", "no_such_package")) == {
        "python": platform.python_version(),
        "gently_bluesky": __version__,
        "numpy": np.__version__,
        "bluesky": bluesky.__version__,
    }
    assert version_of("pytest") == pytest.__version__
    assert version_of("xxhash")
    assert version_of("") is None


def test_the_configuration_is_named_with_its_hash(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_bytes(b'name = "x"\n')
    said = provenance(configuration=file)
    assert said["configuration"] == {"path": str(file), "sha256": hashlib.sha256(b'name = "x"\n').hexdigest()}
    with pytest.raises(FileNotFoundError):
        provenance(configuration=tmp_path / "none.toml")


def test_every_run_of_the_profile_says_what_ran(root: Path, tmp_path: Path) -> None:
    mine = tmp_path / "mine.toml"
    mine.write_text('name = "my diSPIM"\n', encoding="utf-8")
    in_profile(root, "RE(volume(num_slices=2)); RE(overview())", GENTLY_CONFIG=str(mine))
    for run in Catalog(root):
        start = run.start
        assert start["versions"] | {"event_model": ""} == {
            "python": platform.python_version(),
            "gently_bluesky": __version__,
            "bluesky": bluesky.__version__,
            "ophyd": ophyd.__version__,
            "numpy": np.__version__,
            "event_model": "",
        }
        assert start["profile"] == {"path": str(PROFILE), **commit_of(PROFILE)}
        assert start["configuration"] == {
            "path": str(mine),
            "sha256": hashlib.sha256(mine.read_bytes()).hexdigest(),
        }
        assert start["operator"]


def test_the_demo_says_it_as_well(root: Path) -> None:
    assert gently("demo", "--root", root, "--planes", "2", "--timepoints", "1").returncode == 0
    start = Catalog(root)[-1].start
    assert start["versions"]["gently_bluesky"] == __version__
    assert start["platform"] == platform.platform()


def test_a_calibration_that_is_used_is_a_link_to_its_run() -> None:
    run_engine, documents = engine()
    dispim = simulated()

    def line(run: str | None = None) -> Calibration:
        return Calibration(piezo_offset_um=5.0, galvo_offset_deg=0.25, um_per_deg=90.0, run=run)

    calibrated = [
        Embryo(name="e1", x_um=0, y_um=0, calibration={"A": line("b"), "B": line()}),
        Embryo(name="e2", x_um=10, y_um=0, calibration={"A": line("a")}),
    ]
    for embryos in (calibrated, [Embryo(name="e3", x_um=0, y_um=0)]):
        run_engine(acquire_timelapse(dispim, embryos, session="s", count=1, channels=["488 only"]))
    dispim.close()
    first, second = of(documents, "start")
    assert first["calibration"] == ["a", "b"]
    assert "calibration" not in second
