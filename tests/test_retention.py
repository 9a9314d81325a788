"""Files go as the user said, and only those; what stays, what comes back, and what is told of it."""

import json
import os
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import bluesky.plans as bp
import numpy as np
import pytest

from gently_bluesky import Catalog, FileWriter
from gently_bluesky.errors import (
    DamagedVolumeError,
    JournalError,
    NotInTrashError,
    RootError,
    RunKeptError,
    RunLockedError,
    RunNotFoundError,
    VolumeMissingError,
)
from gently_bluesky.keep.acts import finish_interrupted
from gently_bluesky.keep.discard import discard, restore
from gently_bluesky.keep.retention import Plan, apply, plan_retention
from gently_bluesky.keep.stored import StoredFiles
from gently_bluesky.keep.verify import verify
from gently_bluesky.store.audit import read_audit
from gently_bluesky.store.manifest import read_entries
from gently_bluesky.store.removed import day
from gently_bluesky.write.run_folder import held
from tests.conftest import OF_TIFF
from tests.data_rig import SHAPE, feed, inline, pixel_file, record, run_folder, start_doc, stop_doc, volume
from tests.retention_rig import (
    EVERYTHING,
    add_npy,
    days_later,
    ended,
    files,
    fresh,
    hold_root,
    planned,
    policy,
    readable,
    share,
    take,
    timelapse,
)

pytestmark = pytest.mark.usefixtures("every_format")
# Those that are OF_TIFF choose among files: in a store, all volumes go or stay together.


def paths(every_format: str, volumes: int) -> list[str]:
    """What there is to go of a run with volumes."""
    files = [f"cam_image/{number:06d}.ome.tif" for number in range(volumes)]
    return files if every_format == "ome-tiff" else ["cam_image.ome.zarr"]


def gone(plan: Plan) -> list[tuple[object, str, str]]:
    return [(each.scan_id, each.path, each.rule) for each in plan.removals]


def scans(plan: Plan) -> list[object]:
    return sorted({each.scan_id for each in plan.removals}, key=str)


def why_kept(plan: Plan) -> set[str]:
    return {each.why for each in plan.kept}


# --- what is planned ----------------------------------------------------------------------------------------


@OF_TIFF
def test_a_plan_says_what_would_go_and_changes_nothing(root: Path) -> None:
    run = timelapse(root)
    before = files(root)
    plan = planned(root)
    assert gone(plan) == [(1, f"cam_image/{i:06d}.ome.tif", "all") for i in range(3)]
    first = plan.removals[0]
    assert (first.run, first.folder) == (run.uid, run.folder.relative_to(root).as_posix())
    assert (first.volumes, first.format, first.plan_name) == ((("cam_image", 0),), "ome-tiff", "timelapse")
    assert first.age_days == pytest.approx(2)
    sizes = sum(path.stat().st_size for path in run.folder.glob("*/*.tif"))
    assert (plan.bytes_before, plan.bytes_after) == (sizes, 0)
    assert files(root) == before


def test_without_a_rule_nothing_goes(root: Path) -> None:
    timelapse(root)
    plan = planned(root, "", days=10**4)
    assert (plan.removals, plan.kept) == ((), ())
    assert plan.bytes_before == plan.bytes_after > 0


def test_a_run_goes_when_it_is_old_enough_and_not_before(root: Path, every_format: str) -> None:
    run = timelapse(root)
    for days, there in [(0.99, []), (1.0, paths(every_format, 3))]:
        removals = plan_retention(root, policy(), now=days_later(run, days)).removals
        assert [each.path for each in removals] == there


@pytest.mark.parametrize(
    ("selector", "chosen"),
    [
        ('plan_name = "cal*"', [2]),
        ('session = "s?"', [1, 2]),
        ('operator = "ann"', [1]),
        ('purpose = "alignment"', [2]),
        ('purpose = "alignment"\noperator = "ann"', []),
        ('data_key = "other*"', [3]),
        ('view = "A"', [1, 2, 3]),
        ('view = "B"', []),
    ],
)
def test_a_rule_names_what_fits_all_its_selectors(root: Path, selector: str, chosen: list[int]) -> None:
    take(root, {"embryo": "e1"}, session="s1", operator="ann", scan_id=1)
    take(root, {"embryo": "e1"}, session="s2", purpose="alignment", plan_name="calibrate", scan_id=2)
    take(root, {"embryo": "e1"}, key="other", scan_id=3)
    assert scans(planned(root, EVERYTHING + selector)) == chosen


@OF_TIFF
def test_a_rule_names_single_volumes_by_embryo_and_channel(root: Path) -> None:
    take(root, {"embryo": "e1", "channel": "488"}, {"embryo": "e2"}, {"embryo": "e2", "channel": "561"})
    plan = planned(root, EVERYTHING + 'embryo = "e2"\nchannel = "5*"')
    assert gone(plan) == [(1, "cam_image/000002.ome.tif", "all")]


@OF_TIFF
def test_an_index_that_knows_no_places_of_volumes_changes_no_choice(root: Path) -> None:
    """The index is a cache, and one of an older version told less."""
    take(root, {"embryo": "e1"}, {"embryo": "e2"})
    index = root / "index" / "runs.jsonl"
    line = json.loads(index.read_text())
    del line["xxh3_64"]
    line["volumes"] = [row[:-2] for row in line["volumes"]]
    index.write_text(json.dumps(line) + "\n")
    assert gone(planned(root, EVERYTHING + 'embryo = "e2"')) == [(1, "cam_image/000001.ome.tif", "all")]


@OF_TIFF
def test_every_rule_says_what_it_came_to(root: Path) -> None:
    """A rule that names nothing is a slip of its writer: what was to be kept goes, what was to go stays."""
    for scan in (1, 2):
        timelapse(root, 2, scan_id=scan, session=f"s{scan}")
    size = planned(root).bytes_before // 4
    plan = planned(
        root,
        f"""
        [[keep]]
        name = "first timepoints"
        session = "s1"
        every_timepoint = 2
        [[keep]]
        name = "typo"
        tagged = "figrue*"
        [[remove]]
        name = "old"
        session = "s1"
        older_than_days = 1
        [[remove]]
        name = "space"
        total_above_gb = {(size - 1) / 1e9!r}
        [[remove]]
        name = "other session"
        session = "2062-*"
        older_than_days = 1
        """,
    )
    assert [(each.rule, each.kind, each.named, each.taken, each.kept) for each in plan.effects] == [
        ("first timepoints", "keep", 1, 0, 1),
        ("typo", "keep", 0, 0, 0),
        ("old", "remove", 2, 1, 1),
        ("space", "remove", 4, 2, 1),
        ("other session", "remove", 0, 0, 0),
    ]
    assert [each.lacking_bytes for each in plan.effects] == [0, 0, 0, 1, 0]


@OF_TIFF
@pytest.mark.parametrize(
    ("rule", "stats"), [("purpose = 'none'\nolder_than_days = 0", 0), ("total_above_gb = 1", 2)]
)
def test_files_that_no_rule_names_are_not_looked_at(
    root: Path, monkeypatch: pytest.MonkeyPatch, rule: str, stats: int
) -> None:
    timelapse(root, 2)
    size, looked = planned(root).bytes_before, list[Path]()

    def look(path: Path) -> int:
        looked.append(path)
        return size // 2

    monkeypatch.setattr("gently_bluesky.keep.holdings.bytes_on_disk", look)
    assert planned(root, f"[[remove]]\nname = 'x'\n{rule}").bytes_before == size
    assert len(looked) == stats


@OF_TIFF
def test_the_oldest_go_until_the_root_is_small_enough(root: Path) -> None:
    for scan in (1, 2, 3):
        timelapse(root, 1, scan_id=scan)
    size = planned(root).bytes_before // 3
    for limit, chosen in [(3 * size, []), (3 * size - 1, [1]), (size, [1, 2]), (0, [1, 2, 3])]:
        plan = planned(root, f'[[remove]]\nname = "space"\ntotal_above_gb = {limit / 1e9!r}')
        assert scans(plan) == chosen
        assert plan.bytes_after == 3 * size - len(chosen) * size


@OF_TIFF
def test_the_oldest_go_until_enough_will_be_free(root: Path) -> None:
    for scan in (1, 2, 3):
        timelapse(root, 1, scan_id=scan)
    size = planned(root).bytes_before // 3
    rule = f'[[remove]]\nname = "space"\nfree_below_gb = {(10**9 + size) / 1e9!r}'
    for free, chosen in [(10**9 + size, []), (10**9, [1]), (10**9 - 1, [1, 2]), (0, [1, 2, 3])]:
        assert scans(planned(root, rule, free=free)) == chosen


@OF_TIFF
def test_what_is_in_the_trash_counts_as_free_and_as_gone(root: Path) -> None:
    """Else every apply would take more, until the first grace is over."""
    for scan in (1, 2, 3):
        timelapse(root, 1, scan_id=scan)
    size = planned(root).bytes_before // 3
    by_total = f'[[remove]]\nname = "space"\ntotal_above_gb = {2 * size / 1e9!r}'
    by_free = f'[[remove]]\nname = "space"\nfree_below_gb = {(10**9 + size) / 1e9!r}'
    apply(planned(root, by_total))
    assert planned(root, by_total).removals == ()
    assert planned(root, by_free, free=10**9).removals == ()
    assert scans(planned(root, by_free, free=10**9 - 1)) == [2]


def test_a_rule_with_age_and_space_takes_only_what_is_old(root: Path) -> None:
    run = timelapse(root, 1, scan_id=1)
    rule = '[[remove]]\nname = "r"\nolder_than_days = 3\ntotal_above_gb = 0'
    assert plan_retention(root, policy(rule), now=days_later(run, 2)).removals == ()
    assert scans(plan_retention(root, policy(rule), now=days_later(run, 4))) == [1]


# --- what stays although a rule names it --------------------------------------------------------------------


@OF_TIFF
@pytest.mark.parametrize(
    ("keep", "kept"),
    [
        ('operator = "a*"', {0, 1}),
        ('embryo = "e2"', {1}),
        ("every_timepoint = 2", {0, 2}),
        ('every_timepoint = 2\nembryo = "e1"', {0}),
        ('newest = 1\nper = "session"', {2, 3}),
        ('newest = 1\nper = "plan"', {2, 3}),
        ('newest = 1\nper = "embryo"', {0, 1, 2, 3}),
        ('newest = 1\nper = "plan"\nembryo = "e1"', {0}),
        ('newest = 2\nper = "plan"', {0, 1, 2, 3}),
        ('tagged = "fig*"', {0, 1}),
        ('tagged = "fig*"\nembryo = "e2"', {1}),
        ("with_children = true", {2, 3}),
        ("", {0, 1, 2, 3}),
    ],
)
def test_a_keep_rule_goes_before_every_remove(root: Path, keep: str, kept: set[int]) -> None:
    """Volumes 0 and 1 are of the first run, 2 and 3 of the second, from which a third was derived."""
    first = take(
        root, {"embryo": "e1", "timepoint": 0}, {"embryo": "e2", "timepoint": 1}, session="s1", operator="ann"
    )
    second = take(root, {"embryo": "e3", "timepoint": 2}, {"embryo": "e4", "timepoint": 3}, session="s1")
    first.tag("figure 2", by="ann")
    if "with_children" in keep:
        feed(root, [("start", start_doc(uid="child", parents=[{"run": second.uid}])), ("stop", stop_doc("child"))])
    plan = plan_retention(root, policy(f'{EVERYTHING}[[keep]]\nname = "k"\n{keep}'), now=days_later(second, 2))
    number = {first.uid: 0, second.uid: 2}
    assert {number[each.run] + int(each.volumes[0][1] or 0) for each in plan.kept} == kept
    assert {number[each.run] + int(each.volumes[0][1] or 0) for each in plan.removals} == {0, 1, 2, 3} - kept
    expected = "run child is derived from it" if "with_children" in keep else "rule 'k' keeps it"
    assert why_kept(plan) <= {expected}


def test_the_newest_are_counted_among_runs_that_still_have_files(root: Path) -> None:
    timelapse(root, 1, scan_id=1)
    timelapse(root, 1, scan_id=2)
    rule = EVERYTHING + '[[keep]]\nname = "k"\nnewest = 1\nper = "plan"'
    assert scans(planned(root, rule)) == [1]
    discard(root, -1)
    assert scans(planned(root, rule)) == []


@pytest.mark.parametrize("parents", [["UID"], [{"run": "UID", "how": "deconvolved"}], [{}, 3, {"run": "UID"}]])
def test_a_run_from_which_another_was_derived_stays_without_a_rule(root: Path, parents: list[Any]) -> None:
    run = timelapse(root, 1)
    named = json.loads(json.dumps(parents).replace("UID", run.uid))
    feed(root, [("start", start_doc(uid="child", parents=named)), ("stop", stop_doc("child"))])
    plan = plan_retention(root, policy(), now=days_later(run, 2))
    assert plan.removals == ()
    assert why_kept(plan) == {"run child is derived from it"}


@pytest.mark.parametrize("parents", [None, 3, "UID", {"run": "UID"}, [None]])
def test_parents_that_nobody_can_read_are_no_reason_to_fail(root: Path, parents: Any) -> None:
    run = timelapse(root, 1)
    feed(root, [("start", start_doc(uid="child", parents=parents)), ("stop", stop_doc("child"))])
    assert len(plan_retention(root, policy(), now=days_later(run, 2)).removals) == 1


def test_a_run_that_is_tagged_keep_stays_without_a_rule(root: Path) -> None:
    run = timelapse(root, 1)
    run.tag("keep", by="ann")
    assert (planned(root).removals, why_kept(planned(root))) == ((), {"tagged keep"})
    run.untag("keep", by="ann")
    assert len(planned(root).removals) == 1


def test_a_run_whose_tags_are_damaged_stays(root: Path) -> None:
    run = timelapse(root, 1)
    run.tag("blue", by="ann")
    (run.folder / "tags.jsonl").write_bytes(b"{]\n")
    assert why_kept(planned(root)) == {"not known by its tags: tags.jsonl is damaged"}
    with pytest.raises(JournalError, match=r"tags\.jsonl: the line that ends at byte 3 is damaged"):
        discard(root, -1)


def test_a_run_that_is_being_written_stays(root: Path) -> None:
    with FileWriter(root) as writer:
        writer("start", start_doc(uid="run"))
        new = writer.open_resource("cam", shape=SHAPE, dtype="<u2").new_volume()
        for z in range(SHAPE[0]):
            new.write(z, volume(0)[z])
        new.seal()
        writer.flush()
        plan = plan_retention(root, policy(), now=2e9)
        assert plan.removals == ()
        with pytest.raises(RunKeptError, match="has no stop document: it is being written, or was interrupted"):
            discard(root, "run")
        writer("stop", stop_doc("run"))


def test_a_run_whose_manifest_is_damaged_stays_and_is_named(root: Path) -> None:
    run = timelapse(root, 1)
    with (run.folder / "manifest.jsonl").open("ab") as manifest:
        manifest.write(b"{]\n")
    plan = planned(root)
    assert plan.removals == ()
    assert [each.folder for each in plan.unreadable] == [run.folder.relative_to(root).as_posix()]
    assert "is damaged" in plan.unreadable[0].why


def test_foreign_assets_are_nobodys_to_remove(root: Path, tmp_path: Path) -> None:
    (tmp_path / "theirs.h5").write_bytes(b"theirs")
    resource = {
        "uid": "r",
        "run_start": "run",
        "spec": "AD_HDF5",
        "root": str(tmp_path),
        "path_semantics": "posix",
    }
    documents = [
        ("start", start_doc(uid="run")),
        ("resource", {**resource, "resource_path": "theirs.h5", "resource_kwargs": {}}),
        ("stop", stop_doc("run")),
    ]
    feed(root, documents)
    plan = planned(root, days=10**4)
    assert (plan.removals, plan.kept, plan.bytes_before) == ((), (), 0)
    assert discard(root, -1).paths == ()
    assert (tmp_path / "theirs.h5").exists()


@OF_TIFF
def test_a_store_that_several_volumes_share_goes_whole_or_not_at_all(root: Path) -> None:
    run = take(root, {"embryo": "e1"}, {"embryo": "e2"})
    path = share(run)
    half = planned(root, EVERYTHING + 'embryo = "e1"')
    assert gone(half) == [(1, "cam_image/000000.ome.tif", "all")]
    assert [(each.path, each.why) for each in half.kept] == [(path, "the rule names 1 of the 2 volumes in it")]
    kept = planned(root, EVERYTHING + '[[keep]]\nname = "k"\nembryo = "e2"')
    assert {each.path: each.why for each in kept.kept}[path] == "rule 'k' keeps it"
    assert (1, path, "all") in gone(planned(root))


@OF_TIFF
def test_a_shared_store_moves_whole_and_comes_back_whole(root: Path) -> None:
    run = take(root, {"embryo": "e1"}, {"embryo": "e2"})
    path = share(run)
    content = files(run.folder / path)
    applied = apply(
        planned(root, EVERYTHING.replace("older", 'representation = "ome-zarr"\nonce_in = "ome-tiff"\nolder'))
    )
    assert [each.path for each in applied.removed] == [path]
    assert not (run.folder / path).exists()
    assert readable(fresh(root, run)) == [0, 1]
    hold_root(root)
    assert restore(root, -1).paths == (path,)
    assert files(run.folder / path) == content
    hold_root(root)


def test_a_store_in_which_one_volume_has_rotted_comes_back_and_the_volume_is_named(root: Path) -> None:
    run = take(root, {"embryo": "e1"}, {"embryo": "e2"})
    path = share(run)
    discard(root, -1)
    (shard,) = (root / "trash").rglob(f"{path}/0/c/1/0/0/0")
    content = bytearray(shard.read_bytes())
    content[3] ^= 1
    shard.write_bytes(content)
    back = restore(root, -1, [path])
    assert back.paths == (path,)
    assert back.left == {path: "it is back, but not all of it is what it was: volume 1 is changed"}
    assert [(each.kind, each.severity) for each in verify(root).findings] == [("changed", "error")]
    images = fresh(root, run)["untimed"]["cam_image"]
    np.testing.assert_array_equal(images.volume(0), volume(0))
    with pytest.raises(DamagedVolumeError, match="chunk"):
        images.volume(1)


def test_a_delete_whose_lines_were_torn_is_finished_for_every_volume_of_the_store(root: Path) -> None:
    run = take(root, {"embryo": "e1"}, {"embryo": "e2"})
    path = share(run)
    discard(root, -1, grace_days=0)
    manifest, audit = run.folder / "manifest.jsonl", root / "audit.jsonl"
    late = planned(root, days=100)
    apply(late, now=late.now)
    lines = manifest.read_bytes().splitlines(keepends=True)
    cut = next(i for i, line in enumerate(lines) if path.encode() in line and b'"deleted":' in line)
    manifest.write_bytes(b"".join(lines[: cut + 1]))
    audit.write_bytes(b"".join(audit.read_bytes().splitlines(keepends=True)[:-1]))
    assert len(finish_interrupted(root)) == 1
    said = {entry.details.get("deleted") for entry in read_entries(run.folder) if entry.path == path}
    assert len(said) == 1
    assert None not in said


@OF_TIFF
def test_a_manifest_that_leads_out_of_the_folder_leads_nowhere(root: Path) -> None:
    run = timelapse(root, 1)
    precious = root.parent / "precious.tif"
    (run.folder / "cam_image" / "000000.ome.tif").rename(precious)
    manifest = run.folder / "manifest.jsonl"
    line = json.loads(manifest.read_text())
    line["path"] = os.path.relpath(precious, run.folder)
    del line["xxh3_64"]
    manifest.write_text(json.dumps(line) + "\n")
    plan = planned(root)
    assert plan.removals == ()
    assert "which lies outside the run's folder" in plan.unreadable[0].why
    with pytest.raises(JournalError, match="which lies outside the run's folder"):
        discard(root, -1)
    assert precious.exists()


# --- two forms of one volume --------------------------------------------------------------------------------

ARCHIVED = '[[remove]]\nname = "archived"\nrepresentation = "ome-tiff"\nonce_in = "npy"\n'


@OF_TIFF
def test_a_form_goes_where_the_same_pixels_are_stored_in_another(root: Path) -> None:
    run, other = timelapse(root, 2, scan_id=1), timelapse(root, 1, scan_id=2)
    add_npy(run)
    plan = planned(root, ARCHIVED)
    assert gone(plan) == [(1, f"cam_image/{i:06d}.ome.tif", "archived") for i in range(2)]
    assert [(each.scan_id, each.why) for each in plan.kept] == [
        (2, "not every volume in it is stored as npy, too")
    ]
    assert len(apply(plan).removed) == 2
    assert readable(fresh(root, run)) == [0, 1]
    assert readable(fresh(root, other)) == [0]
    hold_root(root)


@OF_TIFF
def test_a_form_stays_if_the_other_one_does_not_hold_what_it_should(root: Path) -> None:
    run = timelapse(root, 2)
    add_npy(run, wrong=True)
    plan = planned(root, ARCHIVED)
    assert len(plan.removals) == 2, "their manifests agree"
    applied = apply(plan)
    assert applied.removed == ()
    assert {each.why for each in applied.kept} == {
        f"volume {i} of 'cam_image' is not stored as npy, verified, too" for i in range(2)
    }
    assert readable(fresh(root, run)) == [0, 1]


@OF_TIFF
def test_of_two_rules_that_rely_on_each_other_one_form_stays(root: Path) -> None:
    run = timelapse(root, 1)
    add_npy(run)
    back = (
        ARCHIVED.replace("archived", "back")
        .replace("ome-tiff", "x")
        .replace("npy", "ome-tiff")
        .replace('"x"', '"npy"')
    )
    for text in (ARCHIVED + back, back + ARCHIVED):
        assert len(planned(root, text).removals) == 1
    apply(planned(root, ARCHIVED + back))
    assert planned(root, ARCHIVED + back).removals == ()
    assert readable(fresh(root, run)) == [0]


@OF_TIFF
def test_a_form_stays_if_the_other_one_goes_by_another_rule(root: Path) -> None:
    run = timelapse(root, 1)
    (path,) = add_npy(run)
    plan = planned(root, f"{ARCHIVED}\n{EVERYTHING}representation = 'npy'\nonce_in = 'ome-tiff'".replace("'", '"'))
    assert len(plan.removals) == 1
    alone = plan_retention(root, policy(ARCHIVED + EVERYTHING), now=days_later(run, 2))
    assert gone(alone) == [(1, path, "all"), (1, "cam_image/000000.ome.tif", "all")]


@OF_TIFF
def test_a_form_that_an_archive_makes_needless_goes_before_any_other(root: Path) -> None:
    run = timelapse(root, 1)
    add_npy(run)
    limit = (planned(root).bytes_before - 1) / 1e9
    text = f'[[remove]]\nname = "space"\ntotal_above_gb = {limit!r}\n{ARCHIVED}'
    assert gone(planned(root, text)) == [(1, "cam_image/000000.ome.tif", "archived")]


@OF_TIFF
def test_a_form_stays_if_a_rule_about_space_stops_right_after_the_other_one(root: Path) -> None:
    run = timelapse(root, 1)
    (path,) = add_npy(run)
    limit = ((run.folder / path).stat().st_size - 1) / 1e9
    plan = planned(root, f'[[remove]]\nname = "space"\ntotal_above_gb = {limit!r}\n{ARCHIVED}')
    assert gone(plan) == [(1, path, "space")]
    assert [(each.path, each.why) for each in plan.kept] == [
        ("cam_image/000000.ome.tif", "its form as npy goes by another rule")
    ]
    apply(plan)
    assert readable(fresh(root, run)) == [0]


# --- doing it -----------------------------------------------------------------------------------------------


@OF_TIFF
def test_what_goes_is_in_the_trash_and_told_by_manifest_audit_and_reader(root: Path) -> None:
    run = timelapse(root, 2)
    hashes = [entry.xxh3_128 for entry in read_entries(run.folder)]
    plan = planned(root)
    applied = apply(plan, by="ann", now=plan.now)
    assert applied.removed == plan.removals
    assert (applied.kept, applied.deleted) == ((), ())
    entries = read_entries(run.folder)
    assert [entry.state for entry in entries] == ["removed", "removed"]
    assert [entry.xxh3_128 for entry in entries] == hashes
    details = entries[0].details
    assert (details["rule"], details["by"], details["time"]) == ("all", "ann", plan.now)
    assert details["until"] == plan.now + 14 * 86400
    assert details["trash"].startswith("trash/20")
    assert details["trash"].endswith(f"/{run.folder.name}/cam_image/000000.ome.tif")
    assert details["was"]["state"] == "sealed"
    begun, done = read_audit(root)
    assert (begun["act"], done["act"]) == ("removing", "removed")
    assert begun["run"] == done["run"] == run.uid
    assert begun["paths"] == done["paths"] == sorted(begun["rules"])
    assert (begun["by"], set(begun["rules"].values())) == ("ann", {"all"})
    said = (
        rf"Volume 1 of 'cam_image' of run {run.uid} was removed on \d{{4}}-\d\d-\d\d by rule 'all', "
        rf"applied by ann; it is in the trash until \d{{4}}-\d\d-\d\d "
        rf"\(to have it back: gently-bluesky restore {run.uid[:8]}\)\."
    )
    with pytest.raises(VolumeMissingError, match=said):
        fresh(root, run)["primary"]["cam_image"].volume(1)
    hold_root(root)


def test_the_run_remains_with_its_documents_shapes_and_scalars(root: Path) -> None:
    run = timelapse(root, 3)
    documents = list(run.documents())
    apply(planned(root))
    after = fresh(root, run)
    assert list(after.documents()) == documents
    assert after["primary"]["cam_image"].shape == (3, *SHAPE)
    assert after["primary"]["timepoint"].tolist() == [0, 1, 2]
    assert Catalog(root).volumes(embryo="e1", timepoint=2)


def test_applying_twice_changes_nothing(root: Path) -> None:
    timelapse(root)
    plan = planned(root)
    apply(plan, now=plan.now)
    before = files(root)
    assert planned(root).removals == ()
    again = apply(plan, now=plan.now)
    assert again.removed == ()
    assert {each.why for each in again.kept} == {"it is not what it was when this was planned"}
    apply(planned(root))
    assert files(root) == before


@OF_TIFF
def test_nothing_is_removed_while_the_clock_says_a_time_before_the_run_ended(root: Path) -> None:
    timelapse(root)
    left = discard(root, -1, now=86_400.0).left
    assert len(left) == 3
    assert "the clock says 1970-01-02, and the run ended on 20" in next(iter(left.values()))
    hold_root(root)


def test_what_is_restored_is_as_it_was(root: Path, every_format: str) -> None:
    run = timelapse(root)
    before, entries = files(run.folder), read_entries(run.folder)
    apply(planned(root))
    back = restore(root, run.uid[:8], by="ann")
    assert (list(back.paths), back.left, back.run) == (paths(every_format, 3), {}, run.uid)
    after = files(run.folder)
    assert after.pop("manifest.jsonl") != before.pop("manifest.jsonl")
    assert after == before
    assert read_entries(run.folder) == entries
    assert readable(fresh(root, run)) == [0, 1, 2]
    assert [act["act"] for act in read_audit(root)] == ["removing", "removed", "restoring", "restored"]
    assert not list((root / "trash").rglob("*")), "no empty folders stay behind"
    hold_root(root)
    assert verify(root).findings == ()


@OF_TIFF
def test_single_files_are_restored_and_the_others_stay_in_the_trash(root: Path) -> None:
    run = timelapse(root)
    apply(planned(root))
    assert restore(root, -1, ["cam_image/000001.ome.tif"]).paths == ("cam_image/000001.ome.tif",)
    assert readable(fresh(root, run)) == [1]
    hold_root(root)
    said = r"cam_image/000001.ome.tif of run .* is not in the trash\. 2 files in the trash, .*000000.ome.tif, .*"
    with pytest.raises(NotInTrashError, match=said):
        restore(root, -1, ["cam_image/000001.ome.tif"])
    with pytest.raises(NotInTrashError, match=r"nothing\.tif of run"):
        restore(root, -1, ["nothing.tif"])


def test_nothing_is_restored_of_a_run_that_has_everything(root: Path) -> None:
    timelapse(root)
    with pytest.raises(NotInTrashError, match=r"No file of run .* is in the trash"):
        restore(root, -1)


@OF_TIFF
def test_nothing_is_restored_over_another_file(root: Path) -> None:
    run = timelapse(root, 2)
    apply(planned(root))
    mine = run.folder / "cam_image" / "000000.ome.tif"
    mine.symlink_to("nowhere")
    back = restore(root, -1)
    assert back.paths == ("cam_image/000001.ome.tif",)
    assert "is there already" in back.left["cam_image/000000.ome.tif"]
    assert mine.is_symlink()


def test_a_run_can_be_removed_restored_and_removed_on_one_day(root: Path, every_format: str) -> None:
    run = timelapse(root, 1)
    for _ in range(2):
        discard(root, -1, now=ended(run))
        restore(root, -1)
    discard(root, -1, now=ended(run))
    assert list(restore(root, -1).paths) == paths(every_format, 1)
    assert readable(fresh(root, run)) == [0]


def test_after_its_grace_the_trash_is_emptied_and_that_is_told(root: Path, every_format: str) -> None:
    run = timelapse(root, 2)
    text = f"grace_days = 3\n{EVERYTHING}"
    first = planned(root, text)
    apply(first, now=first.now)
    early = plan_retention(root, policy(text), now=first.now + 2.9 * 86400)
    count = len(paths(every_format, 2))
    assert (len(early.trash), early.expired) == (count, ())
    assert apply(early, now=early.now).deleted == ()
    late = plan_retention(root, policy(text), now=first.now + 3 * 86400)
    assert late.expired == late.trash
    assert late.trash[0].bytes > (4096 if every_format == "ome-tiff" else 2048)
    deleted = apply(late, now=late.now).deleted
    assert [each.path for each in deleted] == [each.path for each in late.trash]
    assert not list((root / "trash").rglob("*"))
    with pytest.raises(
        VolumeMissingError, match=r"applied by .*, and deleted from the trash on \d{4}-\d\d-\d\d\.$"
    ):
        fresh(root, run)["primary"]["cam_image"].volume(0)
    gone_for_good = rf"is in the trash\. {count} files? deleted for good, the last on"
    with pytest.raises(NotInTrashError, match=gone_for_good):
        restore(root, -1)
    assert plan_retention(root, policy(text), now=late.now).trash == ()
    hold_root(root)
    before = files(root)
    apply(late, now=late.now)
    assert files(root) == before


def test_a_grace_of_nothing_deletes_at_once(root: Path, every_format: str) -> None:
    timelapse(root, 2)
    plan = planned(root, f"grace_days = 0\n{EVERYTHING}")
    applied = apply(plan, now=plan.now)
    assert [each.path for each in applied.removed] == paths(every_format, 2)
    assert [each.path for each in applied.deleted] == paths(every_format, 2)
    assert [act["act"] for act in read_audit(root)] == ["removing", "removed", "deleting", "deleted"]
    hold_root(root)


def test_a_run_that_is_tagged_keep_while_it_is_in_the_trash_is_not_deleted(root: Path) -> None:
    run = timelapse(root, 1)
    apply(planned(root))
    run.tag("keep", by="ann")
    late = planned(root, days=100)
    assert (late.trash[0].held, late.expired) == ("tagged keep", ())
    assert apply(late, now=late.now).deleted == ()
    assert len(restore(root, -1).paths) == 1


def test_a_run_in_the_trash_that_a_rule_keeps_by_its_tag_is_not_deleted(root: Path) -> None:
    run = timelapse(root, 1)
    text = EVERYTHING + '[[keep]]\nname = "figures"\ntagged = "figure*"'
    apply(planned(root, text))
    run.tag("figure 2b", by="ann")
    again = planned(root, text, days=100)
    assert (again.trash[0].held, again.expired) == ("rule 'figures' keeps it", ())
    assert apply(again, now=again.now).deleted == ()
    run.untag("figure 2b", by="ann")
    last = planned(root, text, days=100)
    assert len(apply(last, now=last.now).deleted) == 1


@OF_TIFF
def test_a_trash_that_somebody_emptied_by_hand_is_no_error(root: Path) -> None:
    run = timelapse(root, 2)
    apply(planned(root))
    for copy in (root / "trash").rglob("*.tif"):
        copy.unlink()
    assert sum(each.bytes for each in planned(root).trash) == 0
    back = restore(root, -1)
    assert (back.paths, set(back.left.values())) == ((), {"its copy in the trash is missing: it stays there"})
    late = planned(root, days=100)
    assert len(apply(late, now=late.now).deleted) == 2
    assert readable(fresh(root, run)) == []


# --- what is refused at the last moment ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("harm", "why"),
    [
        (lambda path: path.write_bytes(path.read_bytes()[:-1]), "it cannot be verified: short"),
        (lambda path: path.write_bytes(path.read_bytes() + b"x"), "it cannot be verified: grown"),
        (lambda path: path.write_bytes(path.read_bytes()[:-1] + b"x"), "it cannot be verified: changed"),
        (Path.unlink, "it cannot be verified: missing"),
    ],
    ids=["short", "grown", "changed", "missing"],
)
def test_a_file_that_is_not_what_it_should_be_stays_and_is_reported(
    root: Path, harm: Any, why: str, every_format: str
) -> None:
    run = timelapse(root, 2)
    harm(pixel_file(run.folder, "cam_image"))
    applied = apply(planned(root))
    stays, *goes = paths(every_format, 2)
    assert [(each.path, each.why) for each in applied.kept] == [(stays, why)]
    assert [each.path for each in applied.removed] == goes
    states = ["sealed", "removed" if goes else "sealed"]
    assert [entry.state for entry in read_entries(run.folder)] == states


def test_a_file_is_read_again_before_it_goes_whatever_was_compared_before(root: Path) -> None:
    """Bits rot without a change of size or time."""
    run = timelapse(root, 1)
    known = StoredFiles(root)
    (entry,) = read_entries(run.folder)
    assert known.condition(run.folder, entry) == "good"
    known.remember()
    path = pixel_file(run.folder, "cam_image")
    status = path.stat()
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert StoredFiles(root).is_known(run.folder, entry)
    assert [each.why for each in apply(planned(root)).kept] == ["it cannot be verified: changed"]


def test_a_run_whose_lock_is_held_stays(root: Path) -> None:
    run = timelapse(root, 1)
    plan = planned(root)
    with held(run.folder):
        applied = apply(plan)
        assert applied.removed == ()
        assert "is being written, or something is done to it" in applied.kept[0].why
        with pytest.raises(RunLockedError):
            discard(root, -1)
    assert list(read_audit(root)) == []
    assert readable(fresh(root, run)) == [0]


def test_what_came_to_be_kept_since_the_plan_stays(root: Path) -> None:
    tagged, parent, vanished = (timelapse(root, 1, scan_id=scan) for scan in (1, 2, 3))
    plan = planned(root)
    tagged.tag("keep", by="ann")
    feed(root, [("start", start_doc(uid="c", parents=[{"run": parent.uid}])), ("stop", stop_doc("c"))])
    vanished.folder.rename(root / "elsewhere")
    applied = apply(plan)
    assert applied.removed == ()
    whys = {each.scan_id: each.why for each in applied.kept}
    assert whys[1] == "tagged keep"
    assert whys[2] == "a run was derived from it meanwhile"
    assert "There is no run in" in whys[3]
    assert not vanished.folder.exists()


def test_a_journal_that_lost_its_stop_keeps_its_files(root: Path) -> None:
    """The index is a cache; whether a run has ended is asked of its journal."""
    run = timelapse(root, 1)
    plan = planned(root)
    journal = run.folder / "journal.jsonl"
    journal.write_bytes(b"".join(journal.read_bytes().splitlines(keepends=True)[:-1]))
    assert {each.why for each in apply(plan).kept} == {"its journal has no stop document"}


@OF_TIFF
@pytest.mark.parametrize(
    "error", [PermissionError(13, "it is open in another program"), OSError(18, "other device")]
)
def test_a_file_that_cannot_be_moved_is_reported_and_served(
    root: Path, monkeypatch: pytest.MonkeyPatch, error: OSError
) -> None:
    run = timelapse(root, 2)
    rename = os.rename

    def refusing(source: Any, target: Any) -> None:
        if str(source).endswith("000000.ome.tif"):
            raise error
        rename(source, target)

    monkeypatch.setattr(os, "rename", refusing)
    applied = apply(planned(root))
    assert [each.why for each in applied.kept] == [f"it could not be moved: {error.strerror}"]
    assert [entry.state for entry in sorted(read_entries(run.folder), key=lambda e: e.path)] == [
        "sealed",
        "removed",
    ]
    assert readable(fresh(root, run)) == [0]
    assert list(read_audit(root))[-1]["failed"] == {"cam_image/000000.ome.tif": applied.kept[0].why}
    assert [each.path for each in planned(root).removals] == ["cam_image/000000.ome.tif"]
    hold_root(root)


@OF_TIFF
def test_a_copy_in_the_trash_that_cannot_be_deleted_stays_there_for_another_time(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = timelapse(root, 2)
    apply(planned(root))
    unlink = os.unlink

    def refusing(path: Any, **how: Any) -> None:
        if str(path).endswith("000000.ome.tif"):
            raise PermissionError(13, "it is open in another program")
        unlink(path, **how)

    late = planned(root, days=100)
    with monkeypatch.context() as patched:
        patched.setattr(os, "unlink", refusing)
        assert [each.path for each in apply(late, now=late.now).deleted] == ["cam_image/000001.ome.tif"]
    hold_root(root)
    assert restore(root, -1).paths == ("cam_image/000000.ome.tif",)
    assert readable(fresh(root, run)) == [0]


def test_a_name_that_only_linux_knows_is_safe_in_the_trash(root: Path) -> None:
    timelapse(root, 1, plan_name="scan: A/B*?")
    apply(planned(root))
    names = [part for path in (root / "trash").rglob("*") for part in path.relative_to(root).parts]
    assert names
    assert not [name for name in names if set(name) & set('<>:"\\|?*') or name != name.rstrip(". ")]


# --- one run, as a person asks ------------------------------------------------------------------------------


def test_a_run_is_discarded_whole_by_the_name_of_who_did_it(root: Path, every_format: str) -> None:
    run = timelapse(root)
    done = discard(root, run.uid[:8], by="ann", grace_days=2)
    assert (done.run, list(done.paths), done.left) == (run.uid, paths(every_format, 3), {})
    with pytest.raises(VolumeMissingError, match="by rule 'discarded by ann', applied by ann"):
        fresh(root, run)["primary"]["cam_image"].volume(0)
    (entry, *_) = read_entries(run.folder)
    assert entry.details["until"] - entry.details["time"] == 2 * 86400
    hold_root(root)


@OF_TIFF
def test_single_files_are_discarded_and_the_others_stay(root: Path) -> None:
    run = timelapse(root, 3)
    paths = [entry.path for entry in read_entries(run.folder)]
    with pytest.raises(VolumeMissingError, match=r"has no file 'cam_image/7' in its manifest. Of its 3 files"):
        discard(root, -1, [paths[0], "cam_image/7"])
    assert readable(fresh(root, run)) == [0, 1, 2]
    assert discard(root, -1, [paths[1]]).paths == (paths[1],)
    assert readable(fresh(root, run)) == [0, 2]
    assert discard(root, -1, [paths[1]]).why_none.startswith("nothing is left to discard: 1 file in the trash")
    assert verify(root).errors == ()


@OF_TIFF
def test_what_is_discarded_twice_is_told_where_it_is_since_when_and_until_when(root: Path) -> None:
    run = timelapse(root)
    moment = ended(run) + 1.0
    discard(root, -1, now=moment, grace_days=2)
    before = files(root)
    again = discard(root, -1)
    assert (again.paths, again.left) == ((), {})
    since, until = day(moment), day(moment + 2 * 86_400)
    assert again.why_none == f"nothing is left to discard: 3 files in the trash, since {since} and until {until}"
    assert files(root) == before
    apply(planned(root, "", days=10**4), now=days_later(run, 10**4))
    assert discard(root, -1).why_none.startswith(
        "nothing is left to discard: 3 files deleted for good, the last on"
    )
    feed(root, [("start", start_doc(uid="bare")), ("stop", stop_doc("bare"))])
    assert discard(root, "bare").why_none == "it has no files but its documents"


def test_a_run_with_children_is_discarded_only_if_that_is_said(root: Path) -> None:
    run = timelapse(root, 1)
    feed(root, [("start", start_doc(uid="child-of-it", parents=[run.uid])), ("stop", stop_doc("child-of-it"))])
    with pytest.raises(
        RunKeptError, match=r"has children, which were derived from it: 'child-of'\. With even_with"
    ):
        discard(root, run.uid)
    assert readable(run) == [0]
    assert len(discard(root, run.uid, even_with_children=True).paths) == 1


def test_what_is_restored_is_told_which_rules_of_a_policy_name_it_still(root: Path) -> None:
    timelapse(root, 3)
    apply(planned(root, EVERYTHING + 'embryo = "e?"'))
    assert restore(root, -1).rules == ("all",)
    discard(root, -1, by="ann")
    assert restore(root, -1).rules == ()


def test_a_run_that_is_tagged_keep_is_not_discarded_before_the_tag_goes(root: Path) -> None:
    run = timelapse(root, 1)
    run.tag("keep", by="ann")
    with pytest.raises(RunKeptError, match=rf"is tagged keep\. .*gently-bluesky tag {run.uid[:8]} keep --remove"):
        discard(root, -1)
    run.untag("keep", by="ann")
    assert len(discard(root, -1).paths) == 1


@OF_TIFF
def test_a_volume_that_was_given_up_goes_by_hand_and_not_by_rule(root: Path) -> None:
    with FileWriter(root) as writer:
        writer("start", start_doc(uid="run"))
        new = writer.open_resource("cam", shape=SHAPE, dtype="<u2").new_volume()
        new.write(0, volume(0)[0])
        new.abort("the camera stopped")
        writer("stop", stop_doc("run"))
    plan = planned(root, days=10**4)
    assert (plan.removals, why_kept(plan)) == ((), {"it was given up while it was taken: by hand only"})
    assert discard(root, "run").paths == ("cam/000000.ome.tif",)
    assert restore(root, "run").paths == ("cam/000000.ome.tif",)
    assert read_entries(run_folder(root))[0].state == "aborted"


def test_what_is_no_run_and_no_root_is_an_error(root: Path, tmp_path: Path) -> None:
    timelapse(root, 1)
    with pytest.raises(RunNotFoundError):
        discard(root, "nope")
    with pytest.raises(RunNotFoundError):
        restore(root, "nope")
    for ask in (lambda: plan_retention(tmp_path, policy()), lambda: finish_interrupted(tmp_path)):
        with pytest.raises(RootError):
            ask()


# --- reading meanwhile --------------------------------------------------------------------------------------


def test_a_reader_that_knew_the_manifest_before_tells_of_the_removal_too(root: Path) -> None:
    run = timelapse(root, 2)
    images = fresh(root, run)["primary"]["cam_image"]
    held_by_reader = images.volume(0)
    apply(planned(root))
    with pytest.raises(VolumeMissingError, match=r"was removed on .* by rule 'all'"):
        images.volume(1)
    np.testing.assert_array_equal(held_by_reader, volume(0))
    restore(root, -1)
    np.testing.assert_array_equal(images.volume(1), volume(1))


@OF_TIFF
def test_a_reader_takes_the_form_that_is_there(root: Path) -> None:
    run = timelapse(root, 2)
    add_npy(run)
    images = fresh(root, run)["primary"]["cam_image"]
    images.volume(0)
    apply(planned(root, ARCHIVED))
    np.testing.assert_array_equal(images.volume(1), volume(1))
    assert readable(fresh(root, run)) == [0, 1]
    (run.folder / "cam.npy" / "000000.npy").unlink()
    with pytest.raises(
        VolumeMissingError, match=r"should be in .*cam\.npy.000000\.npy, and there is no such file"
    ):
        fresh(root, run)["primary"]["cam_image"].volume(0)


@OF_TIFF
def test_a_volume_that_lies_at_its_place_is_read_whatever_the_manifest_says(root: Path) -> None:
    run = timelapse(root, 1)
    apply(planned(root))
    (copy,) = (root / "trash").rglob("*.tif")
    copy.rename(run.folder / "cam_image" / copy.name)
    assert readable(fresh(root, run)) == [0]


def test_inline_arrays_stay_in_their_events(root: Path) -> None:
    run = record(root, bp.count([inline("small", np.array([1, 2, 3]))], 1))
    assert discard(root, run.uid).paths == ()
    np.testing.assert_array_equal(fresh(root, run)["primary"]["small"][0], [1, 2, 3])


def test_what_lies_behind_a_link_is_not_taken(root: Path) -> None:
    timelapse(root, 1)
    folder = run_folder(root)
    (name,) = {entry.path.partition("/")[0] for entry in read_entries(folder)}
    (folder / name).rename(folder / "there")
    (folder / name).symlink_to(folder / "there", target_is_directory=True)
    moved = discard(root, -1)
    assert moved.paths == ()
    assert all("a link leads there" in why for why in moved.left.values())
    assert list((folder / "there").iterdir())


def test_a_copy_that_changed_in_the_trash_is_not_brought_back_as_if_it_were_good(root: Path) -> None:
    timelapse(root, 1)
    discard(root, -1)
    (copy, *_) = sorted(path for path in (root / "trash").rglob("*") if path.is_file())
    content = bytearray(copy.read_bytes())
    content[-1] ^= 1
    copy.write_bytes(content)
    moved = restore(root, -1)
    assert len(moved.left) == 1
    assert "changed" in next(iter(moved.left.values()))
    assert copy.exists()


def test_what_lies_at_the_place_of_a_removed_file_is_not_taken_for_it(root: Path) -> None:
    timelapse(root, 1)
    folder = run_folder(root)
    discard(root, -1)
    path = read_entries(folder)[0].path
    (folder / path).touch()
    assert path in restore(root, -1).left
    (folder / path).unlink()
    assert restore(root, -1, [path]).paths == (path,)
    assert all(entry.state == "sealed" for entry in read_entries(folder))


def test_a_trash_that_is_a_link_to_nowhere_is_an_error(root: Path) -> None:
    timelapse(root, 1)
    (root / "trash").symlink_to(root / "unplugged")
    with pytest.raises(RootError, match="is a link"):
        discard(root, -1)


def test_a_run_that_was_tagged_after_the_plan_stays(root: Path) -> None:
    timelapse(root, 1)
    plan = replace(planned(root), now=time.time())
    assert plan.removals
    Catalog(root)[-1].tag("figure 3", by="ann")
    applied = apply(plan, by="ann")
    assert applied.removed == ()
    assert all("since this was planned" in each.why for each in applied.kept)
