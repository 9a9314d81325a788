"""``gently-bluesky retain | discard | restore | tag``, as a person or a script calls them."""

import json
from pathlib import Path

import pytest

from gently_bluesky import Catalog
from gently_bluesky.read.run import Run
from tests.retention_rig import fresh, hold_root, readable, take, timelapse
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


def test_retain_says_what_would_go_and_why_what_stays_stays_in_100_columns(root: Path, runs: list[Run]) -> None:
    (root / "retention.toml").write_text(POLICY)
    result = gently("retain", "--root", root, columns=100)
    assert result.returncode == 0, result.stderr
    assert max(map(len, result.stdout.splitlines())) <= 100
    text = " ".join(result.stdout.split())
    assert "Would go scan uid plan session embryo files size age rule 1 " in text
    rule = "0 d old alignments of the first weeks"
    assert f"1 {runs[0].uid[:8]} timelapse s1 e1 1 58.4 kB {rule}" in text
    assert f"2 {runs[1].uid[:8]} timelapse s2 e1 2 116.7 kB {rule}" in text
    assert "rule 'thin' keeps it" in text
    assert "tagged keep" in text
    assert "Rule 'thin' keeps 2 files." in text
    assert "Rule 'old alignments of the first weeks' names 6 files: 3 to go by it, 3 to stay." in text
    assert "175.1 kB of 350.2 kB would go, 175.1 kB stay. Nothing was done: --apply does it." in text
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
    assert "cam_image  4 x 8 x 16 uint16  0 volumes" in shown
    back = gently("restore", runs[0].uid[:8], "--root", root).stdout
    assert back.startswith(f"Run {runs[0].uid}: 1 file back in")
    assert "The policy took them by 'old alignments of the first weeks', and would again." in back
    assert back.endswith(f"gently-bluesky tag {runs[0].uid[:8]} keep\n")
    result = gently("restore", "2", "cam_image/000001.ome.tif", "--root", root)
    assert (result.returncode, result.stderr) == (0, "")
    assert [readable(fresh(root, run)) for run in runs] == [[0, 1, 2], [1], [0]]
    hold_root(root)


def test_retain_says_of_what_data_it_speaks_and_which_rules_come_to_nothing(root: Path, runs: list[Run]) -> None:
    readings = [{"embryo": f"e{number}", "timepoint": 0} for number in range(5)]
    take(root, *readings, scan_id=7, session="2026-11-23", purpose="screening", plan_name="acquire_timelapse")
    (root / "retention.toml").write_text(
        """
        [[keep]]
        name = "figures"
        tagged = "figrue*"
        [[remove]]
        name = "screening"
        purpose = "scr*"
        total_above_gb = 0.0
        [[remove]]
        name = "typo"
        session = "2062-*"
        older_than_days = 1
        """
    )
    result = gently("retain", "--root", root, columns=100)
    text = " ".join(result.stdout.split())
    assert "scan uid plan session purpose embryo files size age rule 7 " in text
    assert " acquire_timelapse 2026-11-23 screening 5 embryos 5 291.8 kB 0 d screening" in text
    assert (
        "Rule 'figures' names nothing. Rule 'screening' names 5 files: 5 to go by it, 0 to stay; it wants" in text
    )
    assert "it wants 350.2 kB more, and nothing else may go. Rule 'typo' names nothing." in text
    lines = [json.loads(line) for line in gently("retain", "--root", root, "--json").stdout.splitlines()]
    rules = [line for line in lines if line["act"] == "rule"]
    assert [(line["rule"], line["kind"], line["named"]) for line in rules] == [
        ("figures", "keep", 0),
        ("screening", "remove", 5),
        ("typo", "remove", 0),
    ]
    assert (lines[0]["session"], lines[0]["purpose"], lines[0]["embryos"]) == ("2026-11-23", "screening", ["e0"])


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
    result = gently("discard", "-2", "--root", root)
    assert (result.returncode, result.stderr) == (0, "")
    assert f"Run {runs[1].uid}: nothing is left to discard: 2 files in the trash, since 20" in result.stdout
    result = gently("discard", "-1", "--root", root)
    assert (result.returncode, result.stdout) == (1, "")
    assert f"gently-bluesky tag {runs[2].uid[:8]} keep --remove" in result.stderr
    result = gently("restore", "-3", "--root", root)
    assert result.returncode == 1
    assert f"No file of run {runs[0].uid} is in the trash." in result.stderr
    assert json.loads(gently("restore", "-2", "--root", root, "--json").stdout)["left"] == {}
    assert readable(fresh(root, runs[1])) == [0, 1]


def test_discard_refuses_a_run_with_children_and_takes_it_if_that_is_said(root: Path, runs: list[Run]) -> None:
    timelapse(root, 1, parents=[runs[0].uid])
    result = gently("discard", runs[0].uid, "--root", root)
    assert (result.returncode, result.stdout) == (1, "")
    assert "has children" in result.stderr
    assert "--even-with-children" in result.stderr
    assert "3 files in the trash" in gently("discard", runs[0].uid, "--even-with-children", "--root", root).stdout


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
