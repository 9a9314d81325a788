"""The command line, as a person or a script calls it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile

from gently_bluesky import Catalog

REPOSITORY = Path(__file__).parent.parent


def gently(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "gently_bluesky", *map(str, arguments)]
    environment = {**os.environ, "COLUMNS": "200", "PYTHONPATH": str(REPOSITORY)}
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment, timeout=120)


@pytest.fixture(scope="module")
def demo_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("demo") / "root"
    result = gently("demo", "--root", root, "--planes", "5")
    assert result.returncode == 0, result.stderr
    assert "show -1" in result.stdout
    return root


def test_the_demo_leaves_a_timelapse_of_three_embryos_in_two_views(demo_root: Path) -> None:
    run = Catalog(demo_root)[-1]
    assert run.exit_status == "success"
    assert run["primary"]["spim_a"].shape == run["primary"]["spim_b"].shape == (6, 5, 512, 1024)
    assert run["primary"]["spim_a"].voxel_size_um == (1.0, 0.1625, 0.1625)
    assert len({tuple(np.ravel(run["primary"]["spim_a"][event, 2, ::50])) for event in range(6)}) == 6


def test_the_demo_runs_on_micro_manager(tmp_path: Path) -> None:
    pytest.importorskip("pymmcore")
    result = gently(
        "demo", "--core", "micromanager", "--root", tmp_path / "r", "--planes", "4", "--timepoints", "1"
    )
    assert result.returncode == 0, result.stderr
    run = Catalog(tmp_path / "r")[-1]
    assert run["primary"]["spim_b"].shape == (3, 4, 512, 1024)
    assert all(tifffile.memmap(path, mode="r").shape == (4, 512, 1024) for path in run.folder.glob("*/*.ome.tif"))


def test_a_second_demo_goes_on_with_scan_id_and_timepoints(demo_root: Path) -> None:
    before = Catalog(demo_root)[-1]
    assert gently("demo", "--root", demo_root, "--planes", "2", "--timepoints", "1").returncode == 0
    after = Catalog(demo_root)[-1]
    assert after.start["scan_id"] == before.start["scan_id"] + 1
    assert min(after["primary"]["timepoint"]) == max(before["primary"]["timepoint"]) + 1


def test_runs_lists_what_there_is_for_people_and_for_programs(demo_root: Path) -> None:
    uids = [run.uid for run in Catalog(demo_root)]
    lines = gently("runs", "--root", demo_root, "--json").stdout.splitlines()
    assert [json.loads(line)["start"]["uid"] for line in lines] == uids
    shown = gently("runs", "--root", demo_root).stdout
    assert all(uid[:8] in shown for uid in uids)
    assert gently("runs", "--root", demo_root, "--since", "2999-01-01", "--json").stdout == ""


@pytest.mark.parametrize("key", ["-1", "1", "uid"])
def test_show_finds_a_run_by_place_scan_id_and_uid(demo_root: Path, key: str) -> None:
    catalog = Catalog(demo_root)
    wanted = catalog[int(key)] if key != "uid" else catalog[-1]
    result = gently("show", key if key != "uid" else wanted.uid[:8], "--root", demo_root, "--json")
    shown = json.loads(result.stdout)
    assert shown["start"]["uid"] == wanted.uid
    assert len(shown["files"]) == 2 * len(wanted["primary"])


def test_replay_gives_documents_a_table_or_another_root(demo_root: Path, tmp_path: Path) -> None:
    run = Catalog(demo_root)[-1]
    lines = gently("replay", "-1", "--root", demo_root, "--json").stdout.splitlines()
    assert [json.loads(line)["name"] for line in lines] == [name for name, _ in run.documents()]
    assert "embryo_2" in gently("replay", "-1", "--root", demo_root).stdout
    assert gently("replay", "-1", "--root", demo_root, "--into", tmp_path / "copy", "--fill").returncode == 0
    copy = Catalog(tmp_path / "copy")[run.uid]
    assert str(tmp_path) in str(copy.folder)
    assert np.array_equal(copy["primary"]["spim_b"][:], run["primary"]["spim_b"][:])


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["show", "zzzz"], "No run in"),
        (["show", "77"], "scan_id 77"),
        (["runs", "--since", "tomorrow"], "is no time"),
        (["replay", "-1", "--into", "SAME"], "is in this root already"),
    ],
)
def test_what_goes_wrong_is_one_line_on_stderr(demo_root: Path, arguments: list[str], says: str) -> None:
    arguments = [str(demo_root) if argument == "SAME" else argument for argument in arguments]
    result = gently(*arguments, "--root", demo_root)
    assert result.returncode == 1
    assert says in result.stderr
    assert result.stderr.count("\n") == 1


def test_a_root_that_is_none_is_named(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("not a root")
    for arguments in (["runs"], ["demo"]):
        result = gently(*arguments, "--root", tmp_path)
        assert result.returncode == 1
        assert str(tmp_path) in result.stderr
        assert result.stderr.count("\n") == 1
    assert [item.name for item in tmp_path.iterdir()] == ["thesis.txt"]
