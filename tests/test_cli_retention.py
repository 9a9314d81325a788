"""``gently-bluesky retain | discard | restore | tag``, as a person or a script calls them."""

import json
from pathlib import Path

import pytest

from gently_bluesky import Catalog
from gently_bluesky.read.run import Run
from tests.retention_rig import fresh, hold_root, readable, timelapse
from tests.test_cli import gently

POLICY = """
[[keep]]
name = "thin"
session = "s1"
every_timepoint = 2
[[remove]]
name = "old alignments of the first weeks"
older_than_days = 0
"""


@pytest.fixture
def runs(root: Path) -> list[Run]:
    made = [timelapse(root, 4 - scan, scan_id=scan, session=f"s{scan}") for scan in (1, 2, 3)]
    made[2].tag("keep", by="ann")
    return made


def test_retain_says_what_would_go_and_why_what_stays_stays_in_80_columns(root: Path, runs: list[Run]) -> None:
    (root / "retention.toml").write_text(POLICY)
    result = gently("retain", "--root", root, columns=80)
    assert result.returncode == 0, result.stderr
    text = " ".join(result.stdout.split())
    assert "Would go scan uid files size age rule 1 " in text
    assert f"1 {runs[0].uid[:8]} 1 58.4 kB 0 d old alignments of the first weeks" in text
    assert f"2 {runs[1].uid[:8]} 2 116.7 kB 0 d old alignments of the first weeks" in text
    assert "rule 'thin' keeps it" in text
    assert "tagged keep" in text
    assert "175.1 kB of 350.2 kB would go, 175.1 kB stay. Nothing was done: --apply does it." in text
    assert max(map(len, result.stdout.splitlines())) <= 80
    assert [readable(run) for run in runs] == [[0, 1, 2], [0, 1], [0]]


def test_retain_apply_moves_it_and_restore_brings_it_back(root: Path, runs: list[Run]) -> None:
    policy = root.parent / "my.toml"
    policy.write_text(POLICY)
    result = gently("retain", "--root", root, "--policy", policy, "--apply", "--by", "ann")
    assert result.returncode == 0, result.stderr
    assert "In the trash for 14 days: 3 files, 175.1 kB. Back with: gently-bluesky restore RUN" in result.stdout
    assert [readable(fresh(root, run)) for run in runs] == [[0, 2], [], [0]]
    again = gently("retain", "--root", root, "--policy", policy)
    assert "In the trash" in again.stdout
    assert "Nothing would go, 175.1 kB stay." in again.stdout
    shown = gently("show", "2", "--root", root).stdout
    assert "2 volumes: removed on " in shown
    assert "by rule 'old alignments of the first weeks', applied by ann; it is in the trash until" in shown
    assert "cam_image  4 x 8 x 16 uint16  0 files" in shown
    assert gently("restore", runs[0].uid[:8], "--root", root).stdout.startswith(
        f"Run {runs[0].uid}: 1 file back in"
    )
    result = gently("restore", "2", "cam_image/000001.ome.tif", "--root", root)
    assert (result.returncode, result.stderr) == (0, "")
    assert [readable(fresh(root, run)) for run in runs] == [[0, 1, 2], [1], [0]]
    hold_root(root)


def test_retain_tells_programs_what_it_tells_people(root: Path, runs: list[Run]) -> None:
    (root / "retention.toml").write_text(POLICY)
    for options, act in [((), "remove"), (("--apply",), "removed")]:
        lines = [
            json.loads(line) for line in gently("retain", "--root", root, "--json", *options).stdout.splitlines()
        ]
        gone = [line for line in lines if line["act"] == act]
        assert [(line["run"], line["path"]) for line in gone] == [
            (runs[0].uid, "cam_image/000001.ome.tif"),
            (runs[1].uid, "cam_image/000000.ome.tif"),
            (runs[1].uid, "cam_image/000001.ome.tif"),
        ]
        assert {line["why"] for line in lines if line["act"] == "kept"} == {"rule 'thin' keeps it", "tagged keep"}
        assert lines[-1]["bytes_removed"] == sum(line["bytes"] for line in gone)


def test_what_cannot_be_verified_stays_and_is_exit_status_1(root: Path, runs: list[Run]) -> None:
    (root / "retention.toml").write_text(POLICY)
    path = runs[1].folder / "cam_image" / "000001.ome.tif"
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    result = gently("retain", "--root", root, "--apply")
    assert result.returncode == 1
    assert "it cannot be verified: changed" in result.stdout
    assert path.exists()


def test_without_a_policy_nothing_is_removed_and_it_is_said_where_one_would_be(
    root: Path, runs: list[Run]
) -> None:
    result = gently("retain", "--root", root, "--apply")
    assert result.returncode == 1
    assert "There is no policy, and without one nothing is removed" in result.stderr
    assert str(root / "retention.toml") in result.stderr
    assert "profiles/dispim/retention.toml" in result.stderr
    assert result.stderr.count("\n") == 1
    (root / "retention.toml").write_text("[[remove]]\nname = 'x'\nolder = 3\n")
    result = gently("retain", "--root", root)
    assert result.returncode == 1
    assert "retention.toml: [[remove]] 'x': older: no such key; allowed are name, plan_name" in result.stderr


def test_discard_takes_a_run_and_refuses_one_that_is_tagged(root: Path, runs: list[Run]) -> None:
    (root / "retention.toml").write_text("grace_days = 3")
    result = gently("discard", "-2", "--root", root, "--by", "ann")
    assert result.stdout == f"Run {runs[1].uid}: 2 files in the trash for 3 days.\n"
    result = gently("discard", "-1", "--root", root)
    assert (result.returncode, result.stdout) == (1, "")
    assert f"gently-bluesky tag {runs[2].uid[:8]} keep --remove" in result.stderr
    result = gently("restore", "-3", "--root", root)
    assert result.returncode == 1
    assert f"No file of run {runs[0].uid} is in the trash." in result.stderr
    assert json.loads(gently("restore", "-2", "--root", root, "--json").stdout)["left"] == {}
    assert readable(fresh(root, runs[1])) == [0, 1]


def test_tag_adds_removes_notes_and_shows(root: Path, runs: list[Run]) -> None:
    result = gently("tag", "1", "blue", "figure 2", "--note", "nice", "--by", "ann", "--root", root)
    assert result.stdout.startswith(f"Run {runs[0].uid}: blue, figure 2\n")
    assert gently("tag", "1", "blue", "--remove", "--root", root).returncode == 0
    said = json.loads(gently("tag", "1", "--root", root, "--json").stdout)
    assert said["tags"] == ["figure 2"]
    assert [note["text"] for note in said["notes"]] == ["", "nice", ""]
    assert "tags     figure 2" in gently("show", "1", "--root", root).stdout
    assert gently("tag", "1", " ", "--root", root).returncode == 1


def test_runs_are_found_by_their_tags(root: Path, runs: list[Run]) -> None:
    catalog = Catalog(root)
    runs[0].tag("keep", by="ann")
    assert [run.uid for run in catalog.search(tag="keep")] == [runs[2].uid, runs[0].uid]
    assert [run.uid for run in catalog.search(tag="keep", session="s1")] == [runs[0].uid]
    assert [run.uid for run in catalog.search(tag="keep", limit=1)] == [runs[2].uid]
    assert catalog.search(tag="blue") == []
