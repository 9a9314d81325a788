"""Where runs came from and what came of them, in both directions, whatever start documents say."""

import json
import re
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import numpy as np
import pytest

from gently_bluesky import Catalog, FileWriter, derive
from gently_bluesky.derived import deskew, maximum_projection, mean_volume, subtract_background
from gently_bluesky.errors import RunNotFoundError
from gently_bluesky.keep.holdings import children_of
from gently_bluesky.read.folder import FolderOrigin
from gently_bluesky.read.lineage import Lineage, trace
from gently_bluesky.read.parentage import edges_of, selection_of
from gently_bluesky.read.run import Run
from gently_bluesky.store.index import IndexEntry, RootIndex
from gently_bluesky.store.journal import encode_line
from tests.data_rig import Camera, feed, record, start_doc, stop_doc, taken
from tests.retention_rig import timelapse
from tests.test_cli import gently


def hand_made(root: Path, uid: str, **start: Any) -> Run:
    """A run without data, whose start document says what it is told to."""
    return feed(root, [("start", start_doc(uid=uid, **start)), ("stop", stop_doc(uid))], salvage=None)


def traced(uid: str, *starts: Mapping[str, Any], **options: Any) -> Lineage:
    """A lineage of start documents that no root holds."""
    known = {start["uid"]: {"time": 1_795_433_400.0 + i, **start} for i, start in enumerate(starts)}
    return trace(uid, known, {}, **options)


@pytest.fixture
def generations(root: Path) -> dict[str, Run]:
    """A time-lapse and a dark reference, what came of both, and what came of that."""
    runs = {"acquired": timelapse(root, 3, session="s"), "dark": timelapse(root, 2, purpose="dark")}
    runs["mean"] = derive(mean_volume, runs["dark"], into=root)
    references = {"dark": runs["mean"]}
    runs["flat"] = derive(subtract_background, runs["acquired"], into=root, references=references)
    runs["upright"] = derive(deskew, runs["flat"], into=root, parameters={"angle_deg": 45})
    selection = (runs["upright"], "primary", "cam_image", [1, 3])
    runs["projected"] = derive(maximum_projection, selection, into=root)
    return runs


def names(generations: Mapping[str, Run], found: Lineage) -> set[str]:
    by_uid = {run.uid: name for name, run in generations.items()}
    return {by_uid[node.uid] for node in found.nodes}


# --- in a root --------------------------------------------------------------------------------------------------


def test_every_generation_is_found_in_both_directions(generations: dict[str, Run], root: Path) -> None:
    catalog = Catalog(root)
    everything = {"acquired", "dark", "mean", "flat", "upright", "projected"}
    assert names(generations, catalog.lineage(generations["projected"])) == everything
    assert names(generations, catalog.lineage(-1, up=False)) == {"projected"}
    assert names(generations, catalog.lineage(generations["acquired"])) == {
        "acquired",
        "flat",
        "upright",
        "projected",
    }
    assert names(generations, catalog.lineage(generations["dark"].uid[:12])) == everything - {"acquired"}
    assert names(generations, catalog.lineage(generations["flat"], 1)) == {"acquired", "mean", "flat", "upright"}
    assert names(generations, catalog.lineage(generations["flat"], 0)) == {"flat"}
    assert names(generations, catalog.lineage(generations["flat"], up=False)) == {"flat", "upright", "projected"}
    assert names(generations, catalog.lineage(generations["flat"], down=False)) == {
        "acquired",
        "dark",
        "mean",
        "flat",
    }


def test_edges_say_which_volumes_went_through_which_function(generations: dict[str, Run], root: Path) -> None:
    found = Catalog(root).lineage(generations["projected"])
    edges = {(edge.parent, edge.child): edge for edge in found.edges}
    edge = edges[generations["upright"].uid, generations["projected"].uid]
    assert (edge.stream, edge.data_key, edge.seq_nums) == ("primary", "cam_image", (range(1, 2), range(3, 4)))
    assert edge.function == "gently_bluesky.derived.projection.maximum_projection"
    edge = edges[generations["flat"].uid, generations["upright"].uid]
    assert (edge.call, edge.parameters, edge.kind) == ("deskew(angle_deg=45)", {"angle_deg": 45}, "derived")
    assert edges[generations["mean"].uid, generations["flat"].uid].role == "dark"
    order = [node.uid for node in found.nodes]
    assert all(order.index(edge.parent) < order.index(edge.child) for edge in found.edges)
    assert found.cycles == ()


def test_runs_know_their_parents_and_children(generations: dict[str, Run], root: Path) -> None:
    flat = generations["flat"]
    assert [(parent.uid, parent.edge.role) for parent in flat.parents] == [
        (generations["acquired"].uid, ""),
        (generations["mean"].uid, "dark"),
    ]
    parent = flat.parents[0].run
    assert parent is not None
    np.testing.assert_array_equal(
        parent["primary"]["cam_image"][:], generations["acquired"]["primary"]["cam_image"][:]
    )
    assert [child.uid for child in flat.children] == [generations["upright"].uid]
    assert [child.uid for child in generations["acquired"].children] == [flat.uid]
    assert generations["acquired"].parents == generations["projected"].children == ()
    alone = Run(FolderOrigin(root, flat.folder))  # without a catalog that made it
    assert [parent.uid for parent in alone.up_to_damage.parents] == [parent.uid for parent in flat.parents]


def test_a_run_that_is_gone_is_named_as_missing(generations: dict[str, Run], root: Path) -> None:
    gone = generations["upright"]
    shutil.rmtree(gone.folder)
    catalog = Catalog(root)
    (parent,) = catalog[-1].parents
    assert parent.missing
    assert parent.run is None
    assert repr(parent) == f"<derived: primary/cam_image 1, 3 of missing run {gone.uid}>"
    found = catalog.lineage(-1)
    assert found[gone.uid].missing
    assert f"missing  {gone.uid}  no run in this root has this uid" in str(found)
    assert [node.uid for node in catalog.lineage(gone.uid).nodes] == [gone.uid, generations["projected"].uid]
    with pytest.raises(RunNotFoundError, match="nobody"):
        catalog.lineage("nobody")
    with pytest.raises(RunNotFoundError, match="is not in the lineage"):
        found["nobody"]


def test_a_calibration_is_a_parent_of_another_kind(root: Path) -> None:
    hand_made(root, "calibration-1", plan_name="calibrate", time=1_795_433_300.0)
    run = timelapse(root, 1, calibration=["calibration-1", "calibration-2"])
    made = derive(maximum_projection, run, into=root)
    found = Catalog(root).lineage(made)
    assert [(edge.kind, edge.parent) for edge in found.edges if edge.child == run.uid] == [
        ("calibration", "calibration-1"),
        ("calibration", "calibration-2"),
    ]
    assert "calibrated by calibrate  calibrat  scan 1" in str(found)
    assert f"calibrated timelapse  {run.uid[:8]}" in str(Catalog(root).lineage("calibration-1"))
    assert [parent.missing for parent in run.parents] == [False, True]


def test_a_child_that_names_a_parent_twice_is_one_child(root: Path) -> None:
    hand_made(root, "a")
    hand_made(root, "b", parents=[{"run": "a", "data_key": "x"}, {"run": "a", "data_key": "y"}])
    assert children_of(RootIndex(root).entries()) == {"a": ("b",)}


def test_retention_and_lineage_read_start_documents_alike(generations: dict[str, Run], root: Path) -> None:
    hand_made(root, "by-hand", parents=generations["dark"].uid)
    entries = RootIndex(root).entries()
    mine: dict[str, list[str]] = {}
    for entry in entries:
        for edge in edges_of(entry.start):
            mine.setdefault(edge.parent, []).append(edge.child)
    assert {uid: tuple(children) for uid, children in mine.items()} == children_of(entries)


def test_ten_thousand_runs_are_no_matter_and_no_journal_is_read(root: Path) -> None:
    FileWriter(root).close()
    folder = root / "runs/2026/11/23"
    folder.mkdir(parents=True)
    lines = []
    for number in range(10_000):
        parents = {"parents": [{"run": f"run-{number - 100:05d}"}]} if number >= 100 else {}
        start = start_doc(uid=f"run-{number:05d}", time=1_795_433_400.0 + number, **parents)
        (folder / f"{number:05d}").mkdir()  # no journal lies in it
        stop = stop_doc(start["uid"], start["time"]) | {"num_events": {}}
        lines.append(encode_line(IndexEntry(f"runs/2026/11/23/{number:05d}", start, stop).line()))
    (root / "index").mkdir()
    (root / "index/runs.jsonl").write_bytes(b"".join(lines))
    catalog = Catalog(root)
    assert len(catalog) == 10_000
    began = time.process_time()  # others may be busy
    found = catalog.lineage("run-05007")
    assert time.process_time() - began < 2.0
    assert [node.uid for node in found.nodes] == [f"run-{number:05d}" for number in range(7, 10_000, 100)]
    assert len(str(found).splitlines()) == 100
    assert len(catalog[-1].parents) == 1


# --- whatever start documents say -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("a", ["a"]),
        (["a", {"run": "b"}], ["a", "b"]),
        ({"run": "a", "stream": "primary", "seq_nums": [3, 1, 2]}, ["a primary 1..3"]),
        ([{"run": "a", "data_key": "k", "seq_nums": [{"start": 1, "stop": 10**30}]}], [f"a k 1..{10**30 - 1}"]),
        ([{"run": "a", "seq_nums": [{"start": 5, "stop": 5}, {"start": "x", "stop": 2}, None]}], ["a"]),
        ([{"run": 5}, None, 7, "", [], {"stream": "x"}], []),
        ([{"run": "a", "stream": 5, "data_key": None, "role": {}}], ["a"]),
        (None, []),
    ],
)
def test_parents_are_understood_in_every_spelling(said: Any, expected: list[str]) -> None:
    for key, kind in (("parents", "derived"), ("calibration", "calibration")):
        edges = edges_of({"uid": "child", key: said, "function": ["no", "function"]})
        assert [f"{edge.parent} {selection_of([edge])}".strip() for edge in edges] == expected
        assert {edge.kind for edge in edges} <= {kind}


def test_a_cycle_ends_and_is_named(root: Path) -> None:
    for uid, parent in (("a" * 8, "c" * 8), ("b" * 8, "a" * 8), ("c" * 8, "b" * 8), ("d" * 8, "c" * 8)):
        hand_made(root, uid, parents=[parent])
    found = Catalog(root).lineage("b" * 8)
    assert {node.uid[0] for node in found.nodes} == set("abcd")
    assert len(found.cycles) == 1
    assert {uid[0] for uid in found.cycles[0]} == set("abc")
    assert found.cycles[0][0] == found.cycles[0][-1]
    assert "(a cycle: it leads back to itself)" in str(found)
    assert str(found).splitlines()[-1].startswith("A cycle, which no data can come from: ")
    ET.fromstring(found.svg())
    shown = gently("lineage", "b" * 8, "--root", root)
    assert shown.returncode == 0
    assert "A cycle, which no data can come from" in shown.stdout
    assert [child.uid for child in Catalog(root)["a" * 8].children] == ["b" * 8]


def test_a_run_may_claim_to_come_from_itself() -> None:
    found = traced("me", {"uid": "me", "parents": "me"})
    assert found.cycles == (("me", "me"),)
    assert len(str(found).splitlines()) > 1
    ET.fromstring(found.svg())


def test_a_chain_of_any_length_is_walked_to_its_ends() -> None:
    starts = [{"uid": f"{i}", "parents": [f"{i - 1}"] if i else []} for i in range(3000)]
    found = traced("1500", *starts)
    assert [node.uid for node in found.nodes] == [f"{i}" for i in range(3000)]
    assert len(found.text().splitlines()) == 3000
    near = traced("1500", *starts, depth=2)
    assert [node.uid for node in near.nodes] == ["1498", "1499", "1500", "1501", "1502"]
    assert [node.uid for node in near.nodes if node.goes_on] == ["1498", "1502"]
    assert str(near).count("(goes on)") == 2


def test_a_run_on_two_ways_is_told_in_full_once() -> None:
    found = traced(
        "end",
        {"uid": "begin", "parents": "before"},
        {"uid": "left", "parents": "begin"},
        {"uid": "right", "parents": "begin"},
        {"uid": "end", "parents": ["left", "right"]},
    )
    lines = found.text(ascii_only=True).splitlines()
    assert len(lines) == 6
    assert sum("as above" in line for line in lines) == 1
    assert sum("before" in line for line in lines) == 1


# --- as a person sees it ----------------------------------------------------------------------------------------


def test_the_tree_tells_the_story(generations: dict[str, Run], root: Path) -> None:
    lines = Catalog(root).lineage(generations["flat"]).text(ascii_only=True).splitlines()
    uids = {name: run.uid[:8] for name, run in generations.items()}
    assert [line.partition("  scan")[0] for line in lines] == [
        f"subtract_background()  {uids['flat']}",
        f"|- from primary/cam_image 1..3 of timelapse  {uids['acquired']}",
        f"|- from dark: primary/cam_image 1 of mean_volume()  {uids['mean']}",
        f"|  `- from primary/cam_image 1..2 of timelapse  {uids['dark']}",
        f"`- gave deskew(angle_deg=45)  {uids['upright']}",
        f"   `- gave maximum_projection()  {uids['projected']}",
    ]
    assert lines[-1].endswith("success; of primary/cam_image 1, 3")


def test_the_picture_shows_every_run_and_what_made_it(generations: dict[str, Run], root: Path) -> None:
    picture = Catalog(root).lineage(generations["flat"]).svg()
    text = " ".join(ET.fromstring(picture).itertext())
    for run in generations.values():
        assert run.uid in text
        assert run.start["plan_name"] in text
    assert "deskew(angle_deg=45)" in text
    assert "primary/cam_image 1, 3" in text


def test_whatever_start_documents_hold_the_picture_is_xml() -> None:
    odd: dict[str, Any] = {
        "uid": "<&>\x00\ud800",
        "plan_name": "a\x1b]<b>",
        "session": "\x07",
        "scan_id": "\n",
        "time": 1e300,
    }
    picture = traced(odd["uid"], odd, {"uid": "b", "parents": odd["uid"], "function": {"name": "\x00.<x>"}}).svg()
    ET.fromstring(picture.encode())


def test_cards_and_labels_do_not_lie_on_each_other() -> None:
    """Of a root whose lineages fan in and out."""
    starts: list[dict[str, Any]] = [{"uid": f"v{i}"} for i in range(6)]
    starts.append({"uid": "fused", "parents": [f"v{i}" for i in range(6)], "function": {"name": "a.fuse"}})
    starts += [{"uid": f"m{i}", "parents": ["fused", "v0"], "function": {"name": "a.max"}} for i in range(4)]
    tree = ET.fromstring(traced("fused", *starts).svg())
    boxes = [
        tuple(float(rect.attrib[key]) for key in ("x", "y", "width", "height"))
        for rect in tree.iter("{http://www.w3.org/2000/svg}rect")
        if rect.attrib.get("rx") == "10"
    ]
    assert len(boxes) == 11
    for i, (x, y, width, height) in enumerate(boxes):
        for left, top, _, _ in boxes[i + 1 :]:
            assert abs(x - left) >= width or abs(y - top) >= height
    size = [float(part) for part in tree.attrib["viewBox"].split()]
    assert all(x >= 0 and y >= 0 and x + w <= size[2] and y + h <= size[3] for x, y, w, h in boxes)


def test_the_label_of_each_of_many_children_lies_on_its_own_edge() -> None:
    starts: list[dict[str, Any]] = [{"uid": "parent", "time": 0.0}]
    starts += [
        {"uid": f"child{i}", "time": 1.0, "parents": "parent", "function": {"name": f"a.f{i}"}} for i in range(12)
    ]
    tree = ET.fromstring(traced("parent", *starts).svg())
    rects = [rect.attrib for rect in tree.iter("{http://www.w3.org/2000/svg}rect")]
    cards, labels = ([each for each in rects if each.get("rx") == rx] for rx in ("10", "6"))
    middles = [sorted(float(each["y"]) + float(each["height"]) / 2 for each in boxes) for boxes in (cards, labels)]
    assert len(labels) == 12
    assert set(middles[1]) <= set(middles[0])


def test_a_session_is_shown_by_its_name_or_the_beginning_of_its_uuid() -> None:
    uid = "3f2a9c1e-aaaa-bbbb-cccc-1234567890ab"
    assert ">3f2a9c1e<" in traced("a", {"uid": "a", "time": 0.0, "session": uid}).svg()
    named = traced("a", {"uid": "a", "time": 0.0, "session": uid, "session_name": "morning"}).svg()
    assert ">morning<" in named
    long = traced("a", {"uid": "a", "time": 0.0, "session_name": "WM" * 40}).svg()
    (shown,) = re.findall(r">((?:WM)+W?)\u2026<", long)
    assert len(shown) * 11 <= 232 - 18


def test_an_import_that_continues_another_stands_behind_it() -> None:
    later = {"uid": "b" * 8, "imported": {"continues": ["a" * 8]}, "time": 1.0}
    text = traced("a" * 8, {"uid": "a" * 8, "time": 0.0}, later).text(ascii_only=True)
    assert "`- continued by run  bbbbbbbb" in text
    assert "continues" in traced("a" * 8, {"uid": "a" * 8, "time": 0.0}, later).svg()


def test_the_command_line_shows_draws_and_gives_json(
    generations: dict[str, Run], root: Path, tmp_path: Path
) -> None:
    shown = gently("lineage", "-1", "--root", root)
    assert shown.returncode == 0
    assert shown.stdout.isascii()
    assert shown.stdout.rstrip() == Catalog(root).lineage(-1).text(ascii_only=True)
    near = json.loads(gently("lineage", "-1", "--root", root, "--depth", "1", "--json").stdout)
    assert [node["run"] for node in near["nodes"]] == [generations["upright"].uid, generations["projected"].uid]
    assert near["nodes"][0]["goes_on"]
    assert near["edges"][0]["seq_nums"] == [{"start": 1, "stop": 2}, {"start": 3, "stop": 4}]
    path = tmp_path / "lineage.svg"
    assert "6 runs are drawn" in gently("lineage", "-1", "--root", root, "--svg", path).stdout
    assert path.read_text(encoding="utf-8") == Catalog(root).lineage(-1).svg()
    for name, code, says in (
        ("lineage.svg", 1, "lineage.svg is there already, and nothing is overwritten. Choose another name."),
        ("nowhere/lineage.svg", 1, "nowhere is no folder. Make it, or choose another for lineage.svg."),
        ("lineage.png", 2, "SVG is what is drawn"),
    ):
        refused = gently("lineage", "-1", "--root", root, "--svg", tmp_path / name, columns=400)
        assert (refused.returncode, says in refused.stderr) == (code, True)
    assert sorted(each.name for each in tmp_path.iterdir() if each.is_file()) == ["lineage.svg"]
    nobody = gently("lineage", "nobody", "--root", root)
    assert (nobody.returncode, nobody.stderr.count("\n")) == (1, 1)


def test_show_says_what_made_a_run(generations: dict[str, Run], root: Path) -> None:
    shown = gently("show", generations["flat"].uid, "--root", root).stdout
    assert "made by  subtract_background()" in shown
    assert f"{generations['mean'].uid}, dark: primary/cam_image 1" in shown


def test_a_terminal_gets_a_tree_with_lines(generations: dict[str, Run], root: Path) -> None:
    from gently_bluesky.cli.lineage import _tree

    tree = _tree(Catalog(root).lineage(generations["flat"]))
    assert "subtract_background()" in str(tree.label)
    assert len(tree.children) == 3


def test_a_run_that_is_open_has_a_lineage_too(root: Path) -> None:
    run = record(root, lambda writer: taken(Camera("cam", writer), {}))
    made = derive(maximum_projection, run, into=root)
    journal = made.folder / "journal.jsonl"
    journal.write_bytes(b"".join(journal.read_bytes().splitlines(keepends=True)[:-1]))
    (root / "index/runs.jsonl").unlink()
    found = Catalog(root).lineage(run)
    assert found[made.uid].exit_status is None
    assert "no stop yet" in str(found)
