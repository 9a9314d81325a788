"""Runs and volumes found by what they are, whatever state the index is in."""

import datetime
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import bluesky.plan_stubs as bps
import bluesky.plans as bp
import bluesky.preprocessors as bpp
import numpy as np
import pytest
from bluesky import Msg
from ophyd.sim import det

from gently_bluesky import Catalog, FileWriter
from gently_bluesky.errors import AmbiguousRunError, RootError, RunNotFoundError, StreamNotFoundError
from gently_bluesky.read.run import Run
from gently_bluesky.read.volumes import no_volumes
from gently_bluesky.store.index import VolumeRow
from tests.data_rig import (
    Camera,
    connected,
    feed,
    into,
    journal,
    newest,
    of,
    record,
    start_doc,
    stop_doc,
    taken,
    volume,
)

Plan = Iterator[Msg]
T0 = 1_795_433_400.0  # 2026-11-23T11:30 UTC


@pytest.fixture(scope="module")
def five(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five runs an hour apart, the last one open."""
    root = tmp_path_factory.mktemp("five") / "root"
    with FileWriter(root) as writer:
        for i, (uid, plan) in enumerate(
            [("aaaa-1", "count"), ("aaaa-2", "scan"), ("bbbb", "count"), ("aaaa", "count"), ("cccc", "scan")]
        ):
            md = {"uid": uid, "time": T0 + 3600 * i, "scan_id": i % 4, "plan_name": plan, "sample": {"id": i}}
            writer("start", start_doc(**md, session="s1" if i < 3 else "s2"))
            if uid != "cccc":
                writer("stop", stop_doc(uid, T0 + 3600 * i + 60))
    return root


# --- one run ------------------------------------------------------------------------------------------------


def test_negative_numbers_count_from_the_newest(five: Path) -> None:
    catalog = Catalog(five)
    assert [catalog[-i].uid for i in range(1, 6)] == ["cccc", "aaaa", "bbbb", "aaaa-2", "aaaa-1"]
    assert [run.uid for run in catalog] == ["cccc", "aaaa", "bbbb", "aaaa-2", "aaaa-1"]
    assert len(catalog) == 5
    assert "5 runs" in repr(catalog)
    with pytest.raises(RunNotFoundError, match=r": 5. There is no run -6"):
        catalog[-6]


def test_a_scan_id_gives_the_newest_run_that_has_it(five: Path) -> None:
    catalog = Catalog(five)
    assert catalog[0].uid == "cccc"
    assert catalog[1].uid == "aaaa-2"
    with pytest.raises(RunNotFoundError, match=r"No run in .* has scan_id 77; the newest have \[0, 1, 2, 3, 0\]"):
        catalog[77]


def test_a_uid_or_its_beginning_gives_its_run(five: Path) -> None:
    catalog = Catalog(five)
    assert catalog["bbbb"].uid == catalog["b"].uid == "bbbb"
    assert catalog["aaaa"].uid == "aaaa"  # in full it is not ambiguous
    assert catalog["aaaa-2"].uid == "aaaa-2"


def test_a_beginning_of_several_uids_is_an_error_that_lists_them(five: Path) -> None:
    with pytest.raises(
        AmbiguousRunError, match=r"2 runs begin with 'aaaa-': aaaa-1 \(scan 0, .*\), aaaa-2 \(scan 1"
    ):
        Catalog(five)["aaaa-"]


@pytest.mark.parametrize("key", ["zzzz", "", "bbbbb"])
def test_a_uid_that_no_run_has_is_an_error_that_names_it(five: Path, key: str) -> None:
    with pytest.raises(RunNotFoundError, match=f"has a uid that begins with '{key}'"):
        Catalog(five)[key]


def test_an_error_for_a_missing_run_is_the_builtin_that_one_would_think_of(five: Path) -> None:
    with pytest.raises(KeyError):
        Catalog(five)["nope"]


def test_an_empty_root_has_no_runs(root: Path) -> None:
    with FileWriter(root):
        catalog = Catalog(root)
        assert len(catalog) == 0
        assert not [*catalog, *catalog.search(), *catalog.volumes(), *catalog.sessions()]
        with pytest.raises(RunNotFoundError, match=r": 0\. There is no run"):
            catalog[-1]


def test_a_folder_that_is_no_root_is_an_error_that_says_why(tmp_path: Path) -> None:
    with pytest.raises(RootError, match=r"has no gently\.json"):
        Catalog(tmp_path)


def test_folders_and_files_beside_the_runs_are_none(root: Path) -> None:
    record(root, bp.count([det]))
    (root / "runs" / "notes.txt").touch()
    (root / "runs" / "2026" / "11").mkdir(parents=True, exist_ok=True)
    (root / "runs" / "2026" / "11" / "file").touch()
    (root / "runs" / "lost+found" / "a" / "b" / "c").mkdir(parents=True)
    (root / "trash").mkdir()
    assert len(Catalog(root)) == 1


# --- search -------------------------------------------------------------------------------------------------


def found(root: Path, **what: Any) -> list[str]:
    return [run.uid for run in Catalog(root).search(**what)]


def test_searching_without_arguments_gives_all_newest_first(five: Path) -> None:
    assert found(five) == ["cccc", "aaaa", "bbbb", "aaaa-2", "aaaa-1"]


def test_runs_are_found_by_plan_and_metadata(five: Path) -> None:
    assert found(five, plan_name="scan") == ["cccc", "aaaa-2"]
    assert found(five, session="s2") == ["cccc", "aaaa"]
    assert found(five, session="s2", plan_name="count") == ["aaaa"]
    assert found(five, sample={"id": 2}) == ["bbbb"]
    assert found(five, scan_id=0) == ["cccc", "aaaa-1"]
    assert found(five, uid="bbbb") == ["bbbb"]
    assert found(five, nobody_said=None) == []
    assert found(five, plan_name="nope") == []


@pytest.mark.parametrize(
    ("asked", "says", "available"),
    [
        ({"plan_name": "nope"}, "plan_name 'nope' is not there; available: 'count', 'scan'", ["count", "scan"]),
        ({"session": "s2", "scan_id": 2}, "scan_id 2 is not there for session 's2'; available: 0, 3", [0, 3]),
        ({"sesion": "s1"}, "no start document says 'sesion'; they say 'embryo', 'plan_name', 'sample'", None),
        ({"tag": "blue"}, "tag 'blue' is not there; available: none", []),
        ({"embryo": "e1", "session": "s1"}, "embryo 'e1' is not there for session 's1'; available: none", []),
        ({"since": "2999-01-01"}, "none started in the time that was asked for", None),
    ],
    ids=str,
)
def test_a_search_without_runs_says_why_and_what_there_is(
    five: Path, asked: dict[str, Any], says: str, available: list[Any] | None
) -> None:
    none = Catalog(five).search(**asked)
    assert none == []
    assert none.why_none.startswith(says)
    assert list(none.available.values()) == ([] if available is None else [available])
    assert repr(none) == f"<no runs: {none.why_none}>"


def test_a_search_with_runs_is_a_list_that_is_shown_in_short(five: Path) -> None:
    runs = Catalog(five).search(session="s1", limit=2)
    assert isinstance(runs, list)
    assert (runs.why_none, runs.available) == ("", {})
    assert repr(runs).count("<Run ") == 2
    assert repr(Catalog(five).search(limit=0)) == "<no runs>"


@pytest.mark.parametrize(
    ("asked", "meant"),
    [
        ({"roi": (1, 2)}, True),
        ({"roi": [1, 2]}, True),
        ({"roi": np.array([1, 2])}, True),
        ({"roi": [2, 1]}, False),
        ({"gain": np.float32(1.5), "scan_id": np.int64(9)}, True),
        ({"folder": Path("raw/x")}, True),
        ({"lost": float("nan")}, True),
        ({"lost": 0.0}, False),
        ({"nested": {"sizes": (np.uint8(3),)}}, True),
    ],
    ids=str,
)
def test_metadata_is_compared_as_documents_hold_it(root: Path, asked: dict[str, Any], meant: bool) -> None:
    said = {"roi": (1, 2), "gain": 1.5, "folder": "raw/x", "lost": float("nan"), "nested": {"sizes": [3]}}
    feed(root, [("start", start_doc(uid="run", scan_id=9, **said)), ("stop", stop_doc("run"))])
    assert found(root, **asked) == (["run"] if meant else [])


UTC = datetime.UTC
MOMENT = datetime.datetime.fromtimestamp(T0 + 2 * 3600, UTC)


@pytest.mark.parametrize(
    "moment",
    [
        T0 + 2 * 3600,
        MOMENT,
        MOMENT.astimezone(datetime.timezone(datetime.timedelta(hours=-8))),
        MOMENT.astimezone().replace(tzinfo=None),  # local time
        MOMENT.isoformat(),
        MOMENT.strftime("%Y-%m-%dT%H:%M:%SZ"),
        MOMENT.astimezone().strftime("%Y-%m-%d %H:%M:%S"),
        int(T0 + 2 * 3600),
        np.float64(T0 + 2 * 3600),
    ],
    ids=str,
)
def test_a_moment_may_be_given_in_every_usual_way_and_both_ends_count(five: Path, moment: Any) -> None:
    assert found(five, since=moment) == ["cccc", "aaaa", "bbbb"]
    assert found(five, until=moment) == ["bbbb", "aaaa-2", "aaaa-1"]
    assert found(five, since=moment, until=moment) == ["bbbb"]


def test_a_day_is_whole_from_midnight_to_midnight(five: Path) -> None:
    day = datetime.datetime.fromtimestamp(T0).date().isoformat()  # local
    assert len(found(five, since=day)) == 5
    assert len(found(five, since=day, until=day)) == 5
    before = (datetime.date.fromisoformat(day) - datetime.timedelta(days=1)).isoformat()
    assert found(five, until=before) == []


def test_a_moment_that_is_none_is_an_error_that_shows_how(five: Path) -> None:
    with pytest.raises(ValueError, match="'yesterday' is no time; write it like 2026-11-23"):
        Catalog(five).search(since="yesterday")


# --- volumes ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def embryos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two sessions of time-lapses: embryos, timepoints, a bad volume, an open run."""
    root = tmp_path_factory.mktemp("embryos") / "root"
    with FileWriter(root) as writer:
        run_engine, _ = connected(writer)

        def plan(names: list[str], timepoints: range, bad: tuple[str, int] | None) -> Plan:
            camera = Camera("cam", writer, embryo="", timepoint=0, position=0, channel="488", good=True)
            for timepoint in timepoints:
                for position, name in enumerate(names):
                    camera.taken = 10 * timepoint + position
                    camera.scalars |= {
                        "embryo": name,
                        "timepoint": timepoint,
                        "position": position,
                        "good": (name, timepoint) != bad,
                    }
                    yield from bps.trigger_and_read([camera])

        for session, timepoints, bad in (
            ("s1", range(3), ("e2", 1)),
            ("s1", range(3, 4), None),
            ("s2", range(1), None),
        ):
            run_engine(bpp.run_wrapper(plan(["e1", "e2"], timepoints, bad), md={"session": session}))
        camera = Camera("snap", writer)
        run_engine(bp.count([camera], md={"session": "s2", "embryo": "e9"}))
    return root


def addresses(volumes: list[Any]) -> list[tuple[Any, ...]]:
    return [(each.session, each.embryo, each.timepoint) for each in volumes]


def test_volumes_are_found_by_what_they_show_newest_first(embryos: Path) -> None:
    catalog = Catalog(embryos)
    assert addresses(catalog.volumes(session="s1", embryo="e1")) == [("s1", "e1", t) for t in (3, 2, 1, 0)]
    assert addresses(catalog.volumes(embryo="e2", timepoint=0)) == [("s2", "e2", 0), ("s1", "e2", 0)]
    assert len(catalog.volumes()) == 10
    assert len(catalog.volumes(view="A")) == 10
    assert catalog.volumes(view="B") == []
    assert len(catalog.volumes(channel="488", position=1)) == 4
    assert len(catalog.volumes(stream="primary", data_key="cam_image")) == 9
    times = [each.time for each in catalog.volumes()]
    assert times == sorted(times, reverse=True)


def test_a_volume_has_its_pixels_its_series_and_its_run(embryos: Path) -> None:
    (found,) = Catalog(embryos).volumes(session="s1", embryo="e2", timepoint=2)
    np.testing.assert_array_equal(found.array(), volume(21))
    assert found.event == 5
    np.testing.assert_array_equal(found.images[found.event, 1], volume(21)[1])
    assert found.run.uid == found.run_uid
    assert found.run.start["session"] == "s1"
    assert (found.view, found.position, found.good, found.seq_num) == ("A", 1, True, 6)
    with pytest.raises(AttributeError, match=r"a volume has no 'pixels'; it has run_uid, images"):
        _ = found.pixels


def test_bad_volumes_are_left_out_unless_they_are_asked_for(embryos: Path) -> None:
    catalog = Catalog(embryos)
    assert [each.timepoint for each in catalog.volumes(session="s1", embryo="e2")] == [3, 2, 0]
    assert [each.timepoint for each in catalog.volumes(session="s1", embryo="e2", include_bad=True)] == [
        3,
        2,
        1,
        0,
    ]
    (bad,) = catalog.volumes(good=False, include_bad=True)
    assert bad.timepoint == 1
    np.testing.assert_array_equal(bad.array(), volume(11))


def test_volumes_are_found_by_when_their_run_started(embryos: Path) -> None:
    catalog = Catalog(embryos)
    middle = catalog[-3].start["time"]
    assert {each.run_uid for each in catalog.volumes(since=middle)} == {catalog[-i].uid for i in (1, 2, 3)}
    assert {each.run_uid for each in catalog.volumes(until=middle)} == {catalog[-i].uid for i in (3, 4)}


def test_asking_by_something_unknown_is_an_error_that_lists_what_there_is(embryos: Path) -> None:
    with pytest.raises(TypeError, match=r"cannot be asked by \['color'\]; by \['stream', .*'embryo'"):
        Catalog(embryos).volumes(color="red")


@pytest.mark.parametrize(
    ("asked", "says", "available"),
    [
        (
            {"embryo": "e3"},
            "embryo 'e3' is not there; available: 'e1', 'e2', 'e9'",
            {"embryo": ["e1", "e2", "e9"]},
        ),
        (
            {"session": "s3", "embryo": "e1"},
            "session 's3' is not there; available: 's1', 's2'",
            {"session": ["s1", "s2"]},
        ),
        (
            {"timepoint": np.int64(99), "embryo": "e1", "session": "s1"},
            "timepoint 99 is not there for session 's1', embryo 'e1'; available: 0..3",
            {"timepoint": [0, 1, 2, 3]},
        ),
        ({"view": "B"}, "view 'B' is not there; available: 'A'", {"view": ["A"]}),
        (
            {"channel": "561", "position": 1},
            "'561' is not there for position 1; available: '488'",
            {"channel": ["488"]},
        ),
        (
            {"embryo": "e9", "timepoint": 0},
            "timepoint 0 is not there for embryo 'e9'; available: none",
            {"timepoint": []},
        ),
        (
            {"embryo": "e2", "timepoint": 1, "session": "s1"},
            "1 volume would fit, marked as not good; include_bad=True gives it",
            {},
        ),
        ({"since": "2999-01-01", "embryo": "e1"}, "there are none in the runs that were looked at", {}),
        ({"until": "1999-01-01"}, "there are none in the runs that were looked at", {}),
    ],
    ids=str,
)
def test_an_empty_answer_says_why_and_what_there_is(
    embryos: Path, asked: dict[str, Any], says: str, available: dict[str, Any]
) -> None:
    none = Catalog(embryos).volumes(**asked)
    assert none == []
    assert says in none.why_none
    assert repr(none) == f"<no volumes: {none.why_none}>"
    assert none.available == available


def test_what_is_available_is_told_in_short() -> None:
    def told(*values: Any) -> str:
        rows = [VolumeRow("primary", 1, "k", timepoint=value) for value in values]
        return no_volumes(rows, {"timepoint": -1}).why_none.partition("available: ")[2]

    assert told(0, 7, 1, 1, 2, 5, None) == "0..2, 5, 7"
    assert told("b", "a", "b") == "'a', 'b'"
    assert told([1, 2], "x") == "[1, 2], 'x'"
    assert told(*range(0, 50, 2)) == "0, 2, 4, 6, 8, 10, 12, 14, 16, 18, ... 15 more"


def test_an_answer_with_volumes_has_nothing_to_explain_and_is_shown_in_short(embryos: Path) -> None:
    volumes = Catalog(embryos).volumes(include_bad=True)
    assert (len(volumes), volumes.why_none, volumes.available) == (11, "", {})
    assert repr(volumes).count("<Volume ") == 10
    assert repr(volumes).endswith("... 1 more]")
    assert repr(volumes[:1]).startswith("[<Volume session 's2', embryo 'e9', view 'A'; run ")


def test_what_the_start_says_holds_where_the_event_says_nothing(embryos: Path) -> None:
    (one,) = Catalog(embryos).volumes(embryo="e9")
    assert (one.session, one.timepoint, one.channel, one.good) == ("s2", None, None, True)


def test_sessions_know_their_runs_and_embryos_newest_first(embryos: Path) -> None:
    catalog = Catalog(embryos)
    second, first = catalog.sessions()
    assert (first.name, first.runs, first.embryos) == ("s1", 2, ("e1", "e2"))
    assert (second.name, second.runs, second.embryos) == ("s2", 2, ("e1", "e2", "e9"))
    assert first.since == catalog[-4].start["time"]
    assert first.until == (catalog[-3].stop or {})["time"]


def test_timepoints_go_on_from_the_last_one_of_an_embryo_in_its_session(embryos: Path) -> None:
    catalog = Catalog(embryos)
    assert catalog.timepoints("s1", "e2") == [0, 1, 2, 3]
    assert catalog.next_timepoint("s1", "e2") == 4
    assert catalog.next_timepoint("s2", "e1") == 1
    assert catalog.next_timepoint("s2", "e9") == 0
    assert catalog.next_timepoint("s3", "e1") == 0


def test_scan_ids_go_on_from_the_highest(embryos: Path, five: Path, root: Path) -> None:
    assert Catalog(embryos).next_scan_id() == 5
    assert Catalog(five).next_scan_id() == 4
    with FileWriter(root):
        assert Catalog(root).next_scan_id() == 1


@pytest.mark.usefixtures("every_format")
def test_two_volumes_with_one_address_are_both_there(root: Path) -> None:
    def plan(writer: FileWriter) -> Plan:
        return bp.count([Camera("cam", writer, embryo="e", timepoint=0)], 2, md={"session": "s"})

    record(root, plan)
    newer, older = Catalog(root).volumes(session="s", embryo="e", timepoint=0)
    assert (older.seq_num, newer.seq_num) == (1, 2)
    assert Catalog(root).next_timepoint("s", "e") == 1


@pytest.mark.usefixtures("every_format")
def test_volumes_of_a_running_run_are_found_as_they_come(root: Path) -> None:
    catalog_of: list[Catalog] = []
    with FileWriter(root) as writer:
        run_engine, _ = connected(writer)

        def plan() -> Plan:
            camera = Camera("cam", writer, embryo="e", timepoint=0)
            yield from bps.open_run(md={"session": "s"})
            writer.flush()
            catalog_of.append(Catalog(root))
            for i in range(3):
                camera.scalars["timepoint"] = i
                yield from bps.trigger_and_read([camera])
                writer.flush()
                assert catalog_of[0].timepoints("s", "e") == list(range(i + 1))
                assert Catalog(root).next_timepoint("s", "e") == i + 1
            yield from bps.close_run()

        run_engine(plan())
    assert catalog_of[0].timepoints("s", "e") == [0, 1, 2]
    assert catalog_of[0][-1].exit_status == "success"


# --- runs that go on, and roots that move -------------------------------------------------------------------


@pytest.mark.usefixtures("every_format")
def test_a_run_is_a_snapshot_until_it_is_refreshed(root: Path) -> None:
    with FileWriter(root) as writer:
        run_engine, _ = connected(writer)
        seen: list[Run] = []

        def plan() -> Plan:
            camera = Camera("cam", writer)
            yield from bps.open_run()
            for _ in range(2):
                yield from bps.trigger_and_read([camera])
                writer.flush()
                seen.append(Catalog(root)[-1])
            yield from bps.close_run()

        run_engine(plan())
    first = seen[0]
    assert first.is_open
    assert first.exit_status is None
    assert first.stop is None
    assert len(first["primary"]) == 1
    stream = first["primary"]
    assert len(list(first.documents())) == 5
    assert first.refresh() is first
    refreshed = {"open": first.is_open, "status": first.exit_status, "events": len(first["primary"])}
    assert refreshed == {"open": False, "status": "success", "events": 2}
    assert len(stream) == 1
    assert len(list(first.documents())) == 8
    np.testing.assert_array_equal(first["primary"]["cam_image"].volume(1), volume(1))


def test_a_run_whose_folder_is_gone_is_an_error_that_says_so(root: Path) -> None:
    run = record(root, bp.count([det]))
    catalog = Catalog(root)
    assert len(catalog) == 1
    shutil.rmtree(run.folder)
    with pytest.raises(RunNotFoundError, match=r"There is no run in .* any more"):
        run.refresh()
    assert len(catalog) == 0


@pytest.mark.usefixtures("every_format")
def test_a_root_that_was_moved_is_read_where_it_is(root: Path, tmp_path: Path) -> None:
    def plan(writer: FileWriter) -> Plan:
        return bp.count([Camera("cam", writer)], 2)

    before = record(root, plan)
    old_uri, verbatim = f"file://localhost{root}", list(before.documents())
    elsewhere = tmp_path / "else where" / "50% #1"
    elsewhere.parent.mkdir()
    shutil.move(root, elsewhere)
    run = newest(elsewhere)
    np.testing.assert_array_equal(run["primary"]["cam_image"][:], np.stack([volume(0), volume(1)]))
    assert list(run.documents(rebase=False)) == verbatim == journal(run.folder)
    assert of(verbatim, "stream_resource")[0]["uri"].startswith(old_uri)
    (rebased,) = of(list(run.documents()), "stream_resource")
    assert rebased["uri"] == of(verbatim, "stream_resource")[0]["uri"].replace(
        old_uri, f"file://localhost{elsewhere}"
    )
    others = [pair for pair in run.documents() if pair[0] != "stream_resource"]
    assert others == [pair for pair in verbatim if pair[0] != "stream_resource"]
    copy = into(run, tmp_path / "copy")
    np.testing.assert_array_equal(copy["primary"]["cam_image"].volume(1), volume(1))


def test_foreign_files_elsewhere_keep_their_uris_when_the_root_moves(root: Path, tmp_path: Path) -> None:
    resource = {
        "uid": "r",
        "run_start": "run",
        "data_key": "img",
        "mimetype": "image/x",
        "uri": f"file://localhost{root}-beside/x",
        "parameters": {},
    }
    feed(root, [("start", start_doc(uid="run")), ("stream_resource", resource), ("stop", stop_doc("run"))])
    shutil.move(root, tmp_path / "moved")
    (said,) = of(list(newest(tmp_path / "moved").documents()), "stream_resource")
    assert said == resource


# --- streams ------------------------------------------------------------------------------------------------


def test_a_stream_or_key_that_is_not_there_is_an_error_that_lists_what_is(embryos: Path) -> None:
    run = Catalog(embryos)[-1]
    with pytest.raises(StreamNotFoundError, match=rf"Run {run.uid} has no stream 'nope'; it has \['primary'\]"):
        run["nope"]
    with pytest.raises(
        StreamNotFoundError, match=r"has no data key 'nope'; it has \['snap_image', 'snap_number'\]"
    ):
        run["primary"]["nope"]
    with pytest.raises(KeyError):
        run["primary"]["nope"]


def test_a_run_and_its_streams_are_mappings_of_names(embryos: Path) -> None:
    run = Catalog(embryos)[-1]
    assert list(run) == list(run.keys()) == ["primary"]
    assert "primary" in run
    assert "nope" not in run
    assert list(run["primary"]) == ["snap_image", "snap_number"]
    assert "snap_image" in run["primary"]
    assert repr(run) == f"<Run {run.uid[:8]} scan 4 count: success; primary (1)>"
    assert "1 event of ['snap_image', 'snap_number']" in repr(run["primary"])


def test_columns_have_the_types_that_came(root: Path) -> None:
    from tests.data_rig import Inline

    rows = iter([(1, 1.5, "a", True, [1, 2]), (2, 2.5, "b", False, [3]), (3, 3.5, "c", True, [4, 5, 6])])
    keys = {name: {"source": "t", "dtype": "number", "shape": []} for name in ("i", "f", "s", "b", "ragged")}
    keys["f"]["dtype_numpy"] = "<f8"
    keys["i"]["dtype_numpy"] = "<u1"
    device = Inline("many", lambda: dict(zip(keys, next(rows), strict=True)), keys)
    stream = record(root, bp.count([device], 3))["primary"]
    assert (stream["i"].dtype, stream["i"].tolist()) == (np.dtype("u1"), [1, 2, 3])
    assert (stream["f"].dtype, stream["f"].tolist()) == (np.dtype("f8"), [1.5, 2.5, 3.5])
    assert stream["s"].tolist() == ["a", "b", "c"]
    assert (stream["b"].dtype, stream["b"].tolist()) == (np.dtype(bool), [True, False, True])
    assert stream["ragged"].tolist() == [[1, 2], [3], [4, 5, 6]]
    assert stream.seq_num.tolist() == [1, 2, 3]
    assert (np.diff(stream.time) >= 0).all()


def test_a_column_whose_descriptor_lies_is_what_came(root: Path) -> None:
    from tests.data_rig import inline

    stream = record(root, bp.count([inline("x", 1.5, 300, dtype_numpy="|u1")], 2))["primary"]
    assert stream["x"].tolist() == [1.5, 300.0]


def test_volumes_of_runs_that_say_no_session_are_asked_for_by_none(root: Path) -> None:
    record(root, lambda writer: taken(Camera("cam", writer, embryo="e"), {}, {}))
    found = Catalog(root).volumes(session=None, embryo="e")
    assert [volume.session for volume in found] == [None, None]
    assert Catalog(root).volumes(session=None, embryo="f").available == {"embryo": ["e"]}
