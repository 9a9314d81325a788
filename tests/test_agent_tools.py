"""The tools as plain functions: what they read, what they say, and what they say where there is nothing."""

import inspect
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import bluesky.plan_stubs as bps
import numpy as np
import pytest
from bluesky import Msg

from gently_bluesky import Catalog, FileWriter, derive
from gently_bluesky.derived import subtract_background
from gently_bluesky.errors import BadVolumeError, GentlyError, RunNotFoundError
from gently_bluesky.read.images import ImageSeries
from gently_bluesky.serve.agent import NotThereError, Shown, Tools
from gently_bluesky.serve.agent.answering import as_text
from gently_bluesky.serve.agent.figures import focus_of
from gently_bluesky.serve.agent.tools import READING, WRITING
from tests.data_rig import SHAPE, Camera, connected, inline, record, settle, taken
from tests.export_rig import pixels, timelapse
from tests.old_session_rig import a_session, take_in

PLANE_BYTES = int(np.prod(SHAPE[1:])) * 2


def rows(facts: dict[str, Any], key: str) -> list[dict[str, Any]]:
    """A table among facts, a dict a row."""
    return [dict(zip(facts[key]["columns"], row, strict=True)) for row in facts[key]["rows"]]


@pytest.fixture
def lapse(root: Path) -> Tools:
    """Two embryos in two views and channels, timepoints 0..5: e2 lacks 2 and 3, 4 of e1 is not good."""
    timelapse(root, timepoints=range(6), without=[(1, 2), (1, 3)], bad=[(0, 4)])
    return Tools(root)


# --- as functions -------------------------------------------------------------------------------------------


def test_the_four_calls_that_were_lost_have_their_parameters(lapse: Tools) -> None:
    wanted = {
        "list_runs": ["limit", "embryo_id", "plan_name"],
        "get_run_data": ["run_id", "data_keys", "stream"],
        "get_run_image": ["run_id", "detector"],
        "search_runs": ["since", "until", "metadata"],
    }
    for name, parameters in wanted.items():
        assert list(inspect.signature(getattr(lapse, name)).parameters)[: len(parameters)] == parameters
    uid = Catalog(lapse.get_status()["root"])[-1].uid
    assert rows(lapse.list_runs(5, "e1", "timelapse"), "runs")[0]["run_id"] == uid
    assert lapse.get_run_data("-1", ["embryo"], "primary")["run"] == uid
    assert lapse.get_run_image("-1", "spim_b").facts["data_key"] == "spim_b_image"
    assert rows(lapse.search_runs("2020-01-01", None, {"session": "s"}), "runs")[0]["run_id"] == uid


def test_tools_that_write_are_not_there_unless_they_are_allowed(root: Path) -> None:
    timelapse(root)
    assert set(dir(Tools(root))) == READING.keys()
    with pytest.raises(AttributeError, match="there is no tool 'tag_run'; there are"):
        Tools(root).tag_run("-1", add=["x"])
    allowed = Tools(root, may_tag=True, by="claude")
    assert set(dir(allowed)) == READING.keys() | WRITING.keys()
    assert allowed.tag_run("-1", add=["x"])["tags"] == ["x"]
    assert Catalog(root)[-1].notes[0].by == "claude"


def test_every_answer_is_json_that_every_parser_takes(lapse: Tools) -> None:
    def no_constant(name: str) -> Any:
        raise AssertionError(f"{name} is no JSON")

    needed: dict[str, dict[str, Any]] = {
        "compare_runs": {"run_a": -1, "run_b": "-1"},
        "compare_timepoints": {"embryo_id": "e1", "timepoint_a": 0, "timepoint_b": 1},
        "read_pixels": {"index": "0,0,:2"},
    }
    for name, tool in lapse:
        asked = needed.get(name, {"embryo_id": "e1"} if "embryo_id" in inspect.signature(tool).parameters else {})
        if name != "get_snapshot":
            answer = tool(**asked)
            facts = answer.facts if isinstance(answer, Shown) else answer
            assert json.loads(as_text(facts), parse_constant=no_constant) == json.loads(json.dumps(facts)), name


# --- what is read -------------------------------------------------------------------------------------------


def test_no_volume_is_read_whole_where_a_plane_will_do(lapse: Tools, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[int] = []
    getitem = ImageSeries.__getitem__

    def counted(self: ImageSeries, index: Any) -> Any:
        part = getitem(self, index)
        read.append(part.nbytes)
        return part

    def whole(self: ImageSeries, *args: Any, **kwargs: Any) -> Any:
        raise AssertionError("a volume is read whole")

    monkeypatch.setattr(ImageSeries, "__getitem__", counted)
    for name in ("volume", "project", "lazy", "to_dask"):
        monkeypatch.setattr(ImageSeries, name, whole)
    lapse.get_run_image()
    lapse.get_plane("e1", 3, plane=2)
    lapse.get_plane("e1", 3, axis="y")
    lapse.get_overlay("e1", 3, plane=1)
    lapse.compare_timepoints("e1", 0, 1, plane=1)
    lapse.get_contact_sheet("e1", plane=0)
    lapse.get_figures("e1")
    lapse.get_profile()
    lapse.read_pixels("1,2,3:5")
    assert 0 < max(read) <= PLANE_BYTES
    read.clear()
    for facts in ("get_volume", "get_timepoints", "list_volumes", "get_light_dose", "get_calibration"):
        getattr(lapse, facts)("e1")
    lapse.get_settings()
    lapse.get_run()
    lapse.get_disk_use()
    assert read == []


def test_a_contact_sheet_that_would_read_too_much_shows_planes(
    lapse: Tools, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "maximum along z of 4 planes" in lapse.get_contact_sheet("e2").facts["shows"]
    monkeypatch.setattr("gently_bluesky.serve.agent.sheets._WHOLE_BYTES", 100)
    assert lapse.get_contact_sheet("e2").facts["shows"].startswith("z plane 2 of 0..3 (projections of so many")


# --- volumes ------------------------------------------------------------------------------------------------


def test_the_pixels_are_those_that_were_asked_for(lapse: Tools) -> None:
    for view, channel in ((0, 0), (1, 0), (1, 1)):
        facts = lapse.get_plane("e2", 1, plane=3, view="AB"[view], channel=("488 only", "561 only")[channel]).facts
        wanted = pixels(1, 1, view, channel)[3]
        assert facts["counts"]["mean"] == pytest.approx(wanted.mean(), rel=1e-5)
        assert (facts["counts"]["min"], facts["counts"]["max"]) == (wanted.min(), wanted.max())
        shown = lapse.read_pixels("3,0,:4", facts["run"], facts["data_key"], facts["seq_num"])
        assert shown["pixels"] == wanted[0, :4].tolist()
    region = lapse.get_plane("e2", 1, plane=3, region=[2, 5, 1, 9]).facts["counts"]
    assert region["shape"] == [3, 8]
    assert region["mean"] == pytest.approx(pixels(1, 1, 0, 0)[3][2:5, 1:9].mean(), rel=1e-5)
    across = lapse.get_plane("e2", 1, plane=5, axis="x").facts["counts"]
    assert across["mean"] == pytest.approx(pixels(1, 1, 0, 0)[:, :, 5].mean(), rel=1e-5)


def test_timepoints_say_which_are_missing_and_which_are_not_good(lapse: Tools) -> None:
    two = lapse.get_timepoints("e2")
    assert (two["timepoints"], two["missing_between"], two["next"]) == ("0..1, 4..5", "2..3", 6)
    one = lapse.get_timepoints("e1")
    assert (one["timepoints"], one["only_not_good"]) == ("0..5", "4")
    embryos = {row["embryo"]: row for row in rows(lapse.list_embryos(), "embryos")}
    assert embryos["e2"]["missing"] == "2..3"
    assert embryos["e1"]["not_good"] == 4
    assert (embryos["e1"]["views"], embryos["e1"]["channels"]) == ("A, B", "488 only, 561 only")


def test_a_volume_that_is_not_good_is_shown_only_if_it_is_asked_for(lapse: Tools) -> None:
    assert lapse.get_volume("e1", 4)["good"] is False
    with pytest.raises(NotThereError, match=r"timepoint 4; available: \[0\.\.3, 5\]"):
        lapse.get_plane("e1", 4)
    with pytest.raises(BadVolumeError):
        lapse.get_run_image(seq_num=lapse.get_volume("e1", 4)["seq_num"])
    assert lapse.get_plane("e1", 4, include_bad=True).facts["good"] is False
    sheet = lapse.get_contact_sheet("e1").facts
    assert "not good" in sheet["volumes"][4]["not_shown"]
    assert [each["timepoint"] for each in sheet["volumes"]] == list(range(6))
    left_out = lapse.get_figures("e1")["left_out"]
    assert len(left_out) == 1
    assert "timepoint 4" in left_out[0]


def test_missing_timepoints_have_their_empty_place_on_a_sheet(lapse: Tools) -> None:
    facts = lapse.get_contact_sheet("e2").facts
    assert [each.get("not_shown") for each in facts["volumes"]] == [None, None, "missing", "missing", None, None]
    few = lapse.get_contact_sheet("e2", count=2).facts
    assert [each["timepoint"] for each in few["volumes"]] == [0, 5]
    with pytest.raises(NotThereError, match=r"available: \[0\.\.1, 4\.\.5\]"):
        lapse.get_contact_sheet("e2", first=2, last=3)


def test_the_embryos_of_a_session_are_shown_side_by_side(lapse: Tools) -> None:
    newest = lapse.compare_embryos().facts
    assert [(each["embryo"], each["seq_num"]) for each in newest["volumes"]] == [("e1", 17), ("e2", 19)]
    assert newest["volumes"][1]["mean"] == pytest.approx(pixels(1, 5, 0, 0).max(axis=0).mean())
    third = lapse.compare_embryos(timepoint=3, plane=1).facts["volumes"]
    assert third[0]["max"] == pixels(0, 3, 0, 0)[1].max()
    assert "no volume of timepoint 3" in third[1]["not_shown"]
    with pytest.raises(NotThereError, match="No embryo of session 's' has such a volume"):
        lapse.compare_embryos(timepoint=77)


def test_a_file_that_is_gone_is_named(lapse: Tools, root: Path) -> None:
    gone = sorted(Catalog(root)[-1].folder.rglob("000003.ome.tif"))
    for path in gone:
        path.unlink()
    listed = lapse.list_volumes("e2")
    assert len(listed["missing_files"]) == 2
    assert all("there is no file" in each and "000003.ome.tif" in each for each in listed["missing_files"])
    assert lapse.get_disk_use()["runs"] == 1
    at = next(
        row for row in rows(lapse.list_volumes("e2", limit=100), "volumes") if row["file"].startswith("none: ")
    )
    assert at["seq_num"] == 4
    with pytest.raises(GentlyError, match="no such file"):
        lapse.get_plane("e2", at["timepoint"], channel=at["channel"])


def test_an_embryo_of_several_sessions_is_that_of_the_newest(root: Path) -> None:
    timelapse(root, session="monday", timepoints=[0, 1])
    timelapse(root, session="tuesday", timepoints=[0])
    tools = Tools(root)
    assert tools.get_timepoints("e1")["session"] == "tuesday"
    assert tools.get_timepoints("e1")["also_in_sessions"] == ["monday"]
    assert tools.get_timepoints("e1", "mon")["timepoints"] == "0..1"
    with pytest.raises(NotThereError, match="available: 'tuesday', 'monday'"):
        tools.get_timepoints("e1", "sunday")
    with pytest.raises(NotThereError, match="There is no session ''"):
        tools.get_timepoints("e1", "")
    assert rows(tools.list_sessions(), "sessions")[0]["session"] == "tuesday"


def test_volumes_of_another_shape_have_no_place_among_the_others(root: Path) -> None:
    timelapse(root, timepoints=[0, 1], channels=["488 only"])
    timelapse(root, timepoints=[2], channels=["488 only"], shape=(4, 9, 16))
    tools = Tools(root)
    facts = tools.get_contact_sheet("e1").facts
    assert "another shape" in facts["volumes"][2]["not_shown"]
    with pytest.raises(NotThereError, match="differ in shape"):
        tools.compare_timepoints("e1", 0, 2)


# --- runs ---------------------------------------------------------------------------------------------------


def test_events_come_page_by_page(lapse: Tools) -> None:
    first = lapse.get_run_data(data_keys=["embryo", "timepoint"], limit=6)
    assert [row["seq_num"] for row in rows(first, "table")] == [1, 2, 3, 4, 5, 6]
    assert first["more"] == "14 rows follow: first=7"
    last = lapse.get_run_data(data_keys=["embryo"], first=-2)
    assert [row["seq_num"] for row in rows(last, "table")] == [19, 20]
    assert "more" not in last
    assert "20 events, seq_nums to 20" in lapse.get_run_data(first=21)["why_none"]
    assert "get_run_image" in lapse.get_run_data(data_keys=["spim_a_image"])["images"]


def test_a_run_that_goes_on_says_how_far_it_is(root: Path) -> None:
    with FileWriter(root) as writer:
        run_engine, _ = connected(writer)
        seen: list[dict[str, Any]] = []

        def plan() -> Iterator[Msg]:
            camera = Camera("cam", writer, embryo="e", timepoint=0)
            yield from bps.open_run(md={"plan_name": "lapse", "num_points": 3, "session": "s"})
            yield from bps.trigger_and_read([camera])
            yield from bps.trigger_and_read([camera])
            settle(writer)
            seen.append(Tools(root).get_status())
            yield from bps.close_run()

        run_engine(plan())
    (now,) = seen[0]["open_runs"]
    assert (now["status"], now["plan_name"]) == ("being acquired", "lapse")
    assert now["progress"] == "2 of 3 events"
    assert Tools(root).get_status()["open_runs"] == "none: nothing is being acquired"


def test_what_changed_from_event_to_event_is_said_of_each_embryo(root: Path) -> None:
    def plan(writer: FileWriter) -> Iterator[Msg]:
        camera = Camera("cam", writer, timepoint=0, exposure_ms=5.0)
        yield from taken(
            camera,
            {"embryo": "e1", "x_um": 1.0},
            {"embryo": "e2", "x_um": 2.0},
            {"embryo": "e1", "x_um": 1.0, "timepoint": 1},
            {"embryo": "e2", "x_um": 2.0, "timepoint": 1, "exposure_ms": 7.0},
        )

    record(root, plan)
    changes = rows(Tools(root).what_changed(), "table")
    columns = ("seq_num", "embryo", "setting", "before", "after")
    told = [tuple(row[key] for key in columns) for row in changes if row["setting"] != "cam_number"]
    assert told == [(4, "e2", "exposure_ms", 5.0, 7.0)]


def test_the_light_is_counted_of_every_view_and_only_of_lines_that_were_on(root: Path) -> None:
    def plan(writer: FileWriter) -> Iterator[Msg]:
        said: dict[str, Any] = {
            "embryo": "e",
            "channel": "488 only",
            "exposure_ms": 10.0,
            "laser_duration_ms": 5.0,
        }
        said |= {"laser_power_488_percent": 4.0, "laser_power_561_percent": 50.0}
        camera = Camera("cam", writer, good=True, **said)
        dark = {"channel": "ALL OFF"}
        yield from taken(camera, {}, {"channel": "488 and 561"}, dark, {"channel": "488 only", "good": False})

    record(root, plan)
    dose = Tools(root).get_light_dose("e")
    volume_s = 4 * 0.005
    assert dose["events"] == 4
    assert dose["light_seconds"] == pytest.approx(3 * volume_s)
    assert dose["percent_seconds_by_line_nm"] == {
        "488": pytest.approx(3 * 4.0 * volume_s),
        "561": pytest.approx(50.0 * volume_s),
    }
    assert dose["events_by_laser_preset"] == {"488 only": 2, "488 and 561": 1, "ALL OFF": 1}


def test_light_of_which_nothing_is_recorded_is_not_invented(lapse: Tools) -> None:
    dose = lapse.get_light_dose("e1")
    assert (dose["light_seconds"], dose["percent_seconds_by_line_nm"]) == (0, {})
    assert any("say neither pulse nor exposure" in each for each in dose["not_known"])
    assert any("no laser power was recorded" in each for each in dose["not_known"])
    assert lapse.get_volume("e1")["stage"] == {
        "not_recorded": "neither the event nor the start document says where the stage was"
    }


def test_numbers_that_are_none_are_said_as_words(root: Path) -> None:
    frames = [np.full((200, 200), 3.0), np.linspace(0, 1, 40_000).reshape(200, 200), np.full((200, 200), np.nan)]
    for frame in frames:
        frame[0, :2] = np.nan, np.inf

    def plan() -> Iterator[Msg]:
        devices = [inline("frame", *frames), inline("focus", *[float("inf")] * 3), inline("timepoint", 0, 1, 2)]
        yield from bps.open_run(md={"gain": float("nan"), "embryo": "e"})
        for _ in frames:
            yield from bps.create()
            for device in devices:
                yield from bps.read(device)
            yield from bps.save()
        yield from bps.close_run()

    record(root, plan())
    tools = Tools(root)
    shown = tools.get_run_image(seq_num=1)
    assert shown.facts["counts"]["not_finite"] == 2
    assert (shown.facts["counts"]["mean"], shown.facts["picture"]["black_counts"]) == (3.0, 3.0)
    assert tools.read_pixels("0,:3", seq_num=1)["pixels"] == ["nan", "inf", 3.0]
    assert tools.get_run()["start"]["gain"] == "nan"
    assert rows(tools.get_run_data(data_keys=["focus"]), "table")[0]["focus"] == "inf"
    for a, b in ((0, 1), (1, 1), (1, 2), (2, 2)):
        json.loads(as_text(tools.compare_timepoints("e", a, b).facts))
    assert tools.compare_timepoints("e", 1, 1).facts["correlation"] == 1
    for answer in (shown, tools.get_contact_sheet("e")):
        json.loads(as_text(answer.facts))
    json.loads(as_text(tools.get_figures("e")))
    json.loads(as_text(tools.get_profile(seq_num=3)))


def test_a_root_without_runs_says_so(root: Path) -> None:
    FileWriter(root).close()
    tools = Tools(root)
    assert tools.list_runs()["why_none"] == "there are none yet"
    assert tools.get_status()["runs"] == 0
    assert tools.list_sessions()["found"] == 0
    assert tools.get_disk_use()["MB_on_disk"] == 0
    with pytest.raises(RunNotFoundError):
        tools.get_run()
    with pytest.raises(NotThereError, match="No run under"):
        tools.list_embryos()
    for tool in (tools.get_volume, tools.get_timepoints, tools.get_contact_sheet):
        with pytest.raises(NotThereError, match="No such volume: there are none"):
            tool("e1")


def test_focus_is_larger_where_a_picture_is_sharper() -> None:
    x = np.arange(64)
    edges = (x % 16 < 8) * 100.0
    waves = 50 + 50 * np.sin(x / 64 * 2 * np.pi)
    sharp, blurred = edges + edges[:, None], waves + waves[:, None]
    assert (focus_of(sharp) or 0) > (focus_of(blurred) or 0) > 0
    assert focus_of(np.tile(edges, (64, 1))) is None  # stripes
    assert focus_of(np.full((5, 5), 7)) is None
    assert focus_of(np.ones((5, 2))) is None


def test_a_plane_of_background_is_never_the_sharpest(root: Path) -> None:
    noise = np.random.default_rng(1).normal(100, 2, (2, 7, 128, 128))
    y, x = np.mgrid[:128, :128] - 64
    for z, width in ((2, 24), (3, 16), (4, 24)):  # dim, and nowhere sharp
        noise[0, z] += 12 * (16 / width) ** 2 * np.exp(-(x * x + y * y) / (2 * width**2))
    embryo, background = noise.round().astype("<u2")

    def plan() -> Iterator[Msg]:
        device = inline("volume", embryo, background)
        yield from bps.open_run()
        for _ in range(2):
            yield from bps.trigger_and_read([device])
        yield from bps.close_run()

    record(root, plan())
    tools = Tools(root)
    profile = tools.get_profile(seq_num=1)
    assert profile["sharpest_plane"] == 3
    assert [row["focus"] is None for row in rows(profile, "profile")] == [
        True,
        True,
        False,
        False,
        False,
        True,
        True,
    ]
    assert tools.get_profile(seq_num=2)["sharpest_plane"] == "none: no plane stands out from its noise"


def test_seconds_since_the_epoch_keep_their_milliseconds(root: Path) -> None:
    times = [1795484107.225, 1795484107.238, 1795484107.251]

    def plan() -> Iterator[Msg]:
        device = inline("frame_times", times, dtype="array", shape=[3])
        yield from bps.open_run()
        yield from bps.trigger_and_read([device])
        yield from bps.close_run()

    record(root, plan())
    assert rows(Tools(root).get_run_data("-1", ["frame_times"], limit=1), "table")[0]["frame_times"] == times


def test_a_scan_id_may_be_a_date(root: Path) -> None:
    def plan() -> Iterator[Msg]:
        yield from bps.open_run(md={"scan_id": 20261123})
        yield from bps.close_run()

    uid = record(root, plan()).uid
    for asked in (20261123, "20261123", " 20261123", uid[:8], uid):
        assert Tools(root).get_run(asked)["run"] == uid
    for wrong in (20261124, "20261124"):
        with pytest.raises(RunNotFoundError, match=r"has scan_id 20261124; the newest have \[20261123\]"):
            Tools(root).get_run(wrong)


def test_one_address_means_one_volume_for_every_tool(root: Path) -> None:
    good = timelapse(root, timepoints=[0, 1], embryos=["e1"], channels=["488 only"])
    bad = timelapse(root, timepoints=[1], embryos=["e1"], channels=["488 only"], bad=[(0, 1)])
    tools = Tools(root)
    for timepoint in (1, -1, None):
        for tool in (tools.get_volume, tools.get_plane, tools.get_projection):
            answer = tool("e1", timepoint)
            facts = answer.facts if isinstance(answer, Shown) else answer
            assert facts["run"] == good.uid
            assert facts["newer_not_good"].startswith(f"timepoint 1, run {bad.uid[:8]}, seq_num 1: ")
            answer = tool("e1", timepoint, include_bad=True)
            facts = answer.facts if isinstance(answer, Shown) else answer
            assert (facts["run"], facts["good"]) == (bad.uid, False)
            assert "newer_not_good" not in facts
    assert "newer_not_good" not in tools.get_volume("e1", 0)


def test_an_edge_of_a_lineage_is_said_once_with_its_data_keys(root: Path) -> None:
    raw = timelapse(root, embryos=["e1"], timepoints=[0], channels=["488 only"])
    catalog = Catalog(root)
    child = derive(subtract_background, catalog.volumes(embryo="e1"), into=catalog, parameters={"percentile": 5})
    (edge,) = rows(Tools(root).get_lineage(), "edges")
    assert (edge["run"], edge["from_run"]) == (child.uid, raw.uid)
    assert sorted(edge["from_data_keys"].split(", ")) == ["spim_a_image", "spim_b_image"]


def test_views_that_nobody_named_are_asked_for_by_their_data_keys(tmp_path: Path, root: Path) -> None:
    old = a_session(tmp_path / "Gently3", shape=(2, *SHAPE))
    take_in(tmp_path / "Gently3", root)
    tools = Tools(root)
    assert rows(tools.list_embryos(), "embryos")[0]["views"] == "volume_0, volume_1"
    facts = tools.get_plane("embryo_2", 1, plane=3, view="volume_1").facts
    assert facts["counts"]["mean"] == pytest.approx(old.volumes["embryo_2", 1][1, 3].mean(), rel=1e-5)
    assert facts["file"].endswith("embryo_2/volumes/t0001.tif")
    assert list(tools.get_overlay("embryo_2").facts["views"]) == ["volume_0", "volume_1"]
    assert tools.get_light_dose("embryo_2")["frames_of_all_views"] == 3 * 2 * SHAPE[0]
    with pytest.raises(NotThereError, match="available: 'volume_0', 'volume_1'"):
        tools.get_plane("embryo_2", view="B")
