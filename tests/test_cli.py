"""The command line, as a person or a script calls it."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import bluesky.plan_stubs as bps
import numpy as np
import pytest
import tifffile
from bluesky import Msg

from gently_bluesky import Catalog, FileWriter, __version__
from gently_bluesky.read.replay import FAILED
from gently_bluesky.read.run import Run
from tests.data_rig import Camera, feed, inline, record, start_doc, stop_doc
from tests.test_recovery import interrupted

REPOSITORY = Path(__file__).parent.parent


def gently(*arguments: str | Path, columns: int = 200) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "gently_bluesky", *map(str, arguments)]
    environment = {**os.environ, "COLUMNS": str(columns), "PYTHONPATH": str(REPOSITORY)}
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment, timeout=120)


@pytest.fixture(scope="module")
def demo_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("demo") / "root"
    result = gently("demo", "--root", root, "--planes", "5")
    assert result.returncode == 0, result.stderr
    assert "show -1" in result.stdout
    return root


@pytest.fixture
def three_streams(root: Path) -> Run:
    """A run with two streams of one camera, one of a temperature, and a volume that no event names."""

    def plan(writer: FileWriter) -> Iterator[Msg]:
        camera, temperature = Camera("cam", writer, x_um=1.5, embryo="e", good=True), inline("temperature_c", 21.5)
        yield from bps.open_run(md={"plan_name": "acquire_with_a_look_around_before_and_after", "session": "s"})
        for _ in range(2):
            yield from bps.trigger_and_read([camera], name="primary")
        yield from bps.trigger_and_read([camera], name="look_around_[before]")
        yield from bps.trigger_and_read([temperature], name="baseline")
        yield from bps.trigger(camera, wait=True)
        yield from bps.close_run()

    return record(root, plan)


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


def test_show_tells_every_stream_in_80_columns(three_streams: Run, root: Path) -> None:
    shown = gently("show", "--root", root, columns=80).stdout
    head, *streams = [part.rstrip() for part in shown.split("\n\n")]
    assert [[line.strip() for line in stream.split("\n")] for stream in streams] == [
        ["primary  2 events", "cam_image  4 x 8 x 16 uint16  2 volumes  0.0 MB", "embryo, good, cam_number, x_um"],
        [
            "look_around_[before]  1 event",
            "cam_image  4 x 8 x 16 uint16  1 volume  0.0 MB",
            "embryo, good, cam_number, x_um",
        ],
        ["baseline  1 event", "temperature_c"],
        ["1 volume that no event names", "cam_image/000003.ome.tif  volume 3  4 of 4 frames"],
    ]
    assert f"folder    {three_streams.folder}\n" in f"{head}\n"  # in one line, however long: to be copied
    assert all(len(line) <= 80 for line in shown.split("\n") if not line.startswith("folder"))


def test_show_of_the_demo_names_a_dozen_data_keys_and_counts_the_others(demo_root: Path) -> None:
    shown = gently("show", "--root", demo_root, columns=80).stdout
    assert "  embryo, timepoint, position, channel, " in shown
    assert re.search(r"and \d+\s+more:\s+--json", shown)
    assert "512 x 1024 uint16" in shown


def test_a_damaged_run_is_shown_up_to_its_damage_and_listed_as_damaged(three_streams: Run, root: Path) -> None:
    path = three_streams.folder / "journal.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    second = [i for i, line in enumerate(lines) if line.startswith(b'{"name":"event"')][1]
    path.write_bytes(b"".join([*lines[:second], b"\x00", *lines[second:]]))
    listed = gently("runs", "--root", root).stdout
    assert three_streams.uid[:8] in listed
    assert "damaged" in listed
    shown = gently("show", "--root", root)
    assert shown.returncode == 0
    assert f"That is line {second + 1} of" in shown.stdout
    assert "primary  1 event\n" in shown.stdout
    assert f"line {second + 1} of" in json.loads(gently("show", "--root", root, "--json").stdout)["damage"]
    replayed = gently("replay", "--root", root, "--json")
    assert (replayed.returncode, replayed.stdout) == (1, "")
    assert replayed.stderr.count("\n") == 1


def test_the_program_says_its_version() -> None:
    assert gently("--version").stdout == f"gently-bluesky {__version__}\n"


def test_a_question_that_no_run_answers_is_told_what_there_is(demo_root: Path) -> None:
    told = gently("runs", "--root", demo_root, "--session", "nope").stdout
    assert "No such runs among " in told
    assert ": session 'nope' is not there; available: 'demo-" in told
    told = gently("runs", "--root", demo_root, "--embryo", "nope").stdout
    assert "embryo 'nope' is not there; available: 'embryo_1', 'embryo_2', 'embryo_3'." in told


def test_replay_gives_documents_a_table_or_another_root(demo_root: Path, tmp_path: Path) -> None:
    run = Catalog(demo_root)[-1]
    lines = gently("replay", "-1", "--root", demo_root, "--json").stdout.splitlines()
    assert [json.loads(line)["name"] for line in lines] == [name for name, _ in run.documents()]
    assert "embryo_2" in gently("replay", "-1", "--root", demo_root).stdout
    assert gently("replay", "-1", "--root", demo_root, "--into", tmp_path / "copy", "--fill").returncode == 0
    copy = Catalog(tmp_path / "copy")[run.uid]
    assert str(tmp_path) in str(copy.folder)
    assert np.array_equal(copy["primary"]["spim_b"][:], run["primary"]["spim_b"][:])


def test_a_replay_that_cannot_fill_leaves_nothing_and_one_that_broke_off_is_tried_again(
    three_streams: Run, root: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "copy"
    again = ("replay", "-1", "--root", root, "--into", copy, "--fill")
    gone = three_streams.folder / "cam_image" / "000001.ome.tif"
    gone.rename(tmp_path / gone.name)
    result = gently(*again)
    assert (result.returncode, result.stdout) == (1, "")
    assert "Volume 1 of 'cam_image'" in result.stderr
    assert not copy.exists()
    (tmp_path / gone.name).rename(gone)
    feed(copy, [*list(three_streams.documents())[:4], ("stop", stop_doc(three_streams.uid) | {"reason": FAILED})])
    result = gently(*again)
    assert (result.returncode, result.stderr.count("\n")) == (1, 1)
    assert "a copy that broke off (the replay failed)" in result.stderr
    result = gently(*again, "--again")
    assert (result.returncode, result.stderr) == (0, "")
    assert f"The copy that broke off is now in {copy / 'aside' / three_streams.folder.name}." in result.stdout
    assert gently("verify", "--root", copy).returncode == 0
    assert np.array_equal(Catalog(copy)[-1]["primary"]["cam_image"][:], three_streams["primary"]["cam_image"][:])
    assert gently("replay", "-1", "--root", root, "--again").returncode == 2


def test_runs_counts_what_was_removed_and_shows_and_finds_tags(three_streams: Run, root: Path) -> None:
    three_streams.tag("figure 2", "blue", by="ann")
    (three_streams.folder / "cam_image" / "000001.ome.tif").unlink()
    lines = gently("runs", "--root", root, "--tag", "blue").stdout.splitlines()
    assert lines[0].split() == ["scan", "uid", "started", "plan", "session", "ended", "volumes", "tags"]
    assert lines[1].rstrip().endswith(" success 3, 1 not stored blue, figure 2")
    (line,) = gently("runs", "--root", root, "--json").stdout.splitlines()
    assert json.loads(line)["tags"] == ["blue", "figure 2"]
    assert (
        "tag 'red' is not there; available: 'blue', 'figure 2'"
        in gently("runs", "--root", root, "--tag", "red").stdout
    )


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


# --- recover, verify, reindex -------------------------------------------------------------------------------


def test_verify_says_what_is_wrong_and_ends_with_1(three_streams: Run, root: Path) -> None:
    good = gently("verify", "--root", root)
    assert good.returncode == 0
    assert "0 errors, 0 warnings, 1 note." in good.stdout
    os.truncate(three_streams.folder / "cam_image" / "000001.ome.tif", 5000)
    bad = gently("verify", "--root", root, columns=80)
    assert bad.returncode == 1
    assert "error cam_image/000001.ome.tif: it was cut short" in bad.stdout
    assert "1 error, 0 warnings, 1 note." in bad.stdout
    assert max(map(len, bad.stdout.splitlines()[1:])) <= 80
    *findings, figures = map(json.loads, gently("verify", "--root", root, "--json").stdout.splitlines())
    assert [finding["kind"] for finding in findings] == ["short", "unreferenced"]
    assert figures["errors"] == 1
    assert gently("verify", "--root", root, "--run", "nope").returncode == 1


def test_recover_closes_what_was_interrupted_and_says_so(root: Path) -> None:
    interrupted(root)
    assert "it has no stop document" in gently("verify", "--root", root).stdout
    (line,) = gently("recover", "--root", root, "--salvage", "event", "--json").stdout.splitlines()
    assert json.loads(line)["salvaged"] == 1
    assert "has its stop document" in gently("recover", "--root", root).stdout
    assert gently("verify", "--root", root).returncode == 0
    shown = gently("show", "-1", "--root", root).stdout
    assert "abort" in shown
    assert "interrupted" in shown
    assert "get no event afterwards" in " ".join(gently("recover", "--help").stdout.split())


def test_show_names_what_was_left_beside_with_its_frames(root: Path) -> None:
    interrupted(root)
    gently("recover", "--root", root)
    assert (
        "1 volume that no event names\n  cam/000002.ome.tif  volume 2  3 of 4 frames  the run was interrupted"
        in gently("show", "--root", root).stdout
    )
    (left,) = json.loads(gently("show", "--root", root, "--json").stdout)["left_beside"]
    assert (left["frames"], left["planes"], Path(left["path"]).name) == (3, 4, "000002.ome.tif")


def test_verify_of_a_root_without_files_does_not_say_that_any_were_compared(root: Path) -> None:
    feed(root, [("start", start_doc(uid="run")), ("stop", stop_doc("run"))])
    assert "1 run, 0 files, 0 MB, in " in gently("verify", "--root", root).stdout


def test_recover_says_of_a_run_that_is_written_that_it_was_left_alone(root: Path) -> None:
    with FileWriter(root) as writer:
        writer("start", start_doc(uid="run"))
        assert "Run run" in (said := gently("recover", "--root", root).stdout)
        assert "left alone" in said
        writer("stop", stop_doc("run"))


def test_reindex_says_how_many_runs_there_are(three_streams: Run, root: Path) -> None:
    before = (root / "index" / "runs.jsonl").read_bytes()
    (root / "index" / "runs.jsonl").unlink()
    assert gently("reindex", "--root", root).stdout.startswith("1 run in the index of")
    assert (root / "index" / "runs.jsonl").read_bytes() == before


@pytest.mark.parametrize("command", ["recover", "verify", "reindex"])
def test_what_keeps_a_root_wants_one_in_one_line(command: str, tmp_path: Path) -> None:
    result = gently(command, "--root", tmp_path / "nowhere")
    assert result.returncode == 1
    assert result.stderr.startswith("gently-bluesky: ")
    assert result.stderr.count("\n") == 1
