"""A client of the MCP SDK asks what people ask the data for, over standard input and output and over HTTP."""

import contextlib
import inspect
import re
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import anyio
import httpx2
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gently_bluesky import Catalog
from gently_bluesky.serve.agent.mcp_server import AgentServer, http_app
from gently_bluesky.serve.agent.tools import READING, WRITING
from tests.agent_rig import (
    SESSION,
    TIMEPOINTS,
    Ask,
    a_night,
    an_old_session,
    asking,
    over_http,
    over_stdio,
    run,
    serving,
)
from tests.data_rig import REPOSITORY
from tests.old_session_rig import SESSION as OLD
from tests.test_cli import gently

MOST_TEXT = 8_000
TOKEN = "open-sesame-16-more"


@pytest.fixture(scope="module")
def night(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("night") / "root"
    a_night(root)
    return root


@pytest.fixture(scope="module")
def old(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return an_old_session(tmp_path_factory.mktemp("old"))


@pytest.fixture(params=["stdio", "http"])
def connected(request: pytest.FixtureRequest) -> Iterator[Callable[..., Any]]:
    """Connects a client to a server of a root: each of the ways there are."""
    with contextlib.ExitStack() as stack:

        def connect(root: Path) -> Any:
            if request.param == "stdio":
                return over_stdio(root)
            return over_http(stack.enter_context(serving(root)))

        yield connect


def talk_to(server: Any, talk: Callable[[Ask], Awaitable[None]]) -> None:
    """Let a client talk to a server."""

    async def whole() -> None:
        async with asking(server) as (_, ask):
            await talk(ask)

    run(whole)


# --- what people ask the data for ---------------------------------------------------------------------------


def test_what_people_ask_of_a_night_is_answered(night: Path, connected: Callable[..., Any]) -> None:
    runs = {each.start["plan_name"]: each for each in Catalog(night)}
    lapse = Catalog(night)[1]

    async def talk(ask: Ask) -> None:
        latest = (await ask("get_volume", embryo_id="embryo_3")).facts
        assert (latest["timepoint"], latest["view"], latest["run"]) == (3, "A", Catalog(night)[3].uid)
        assert (latest["file"].startswith("runs/"), latest["seq_num"]) == (True, 1)
        assert latest["shape"] == {"z": 6, "y": 64, "x": 64}
        missed = await ask("get_volume", embryo_id="embryo_3", timepoint=41)
        assert missed.is_error
        assert "available: [0..3]" in missed.text
        assert (await ask("get_timepoints", embryo_id="embryo_3")).facts["timepoints"] == "0..3"
        listed = (await ask("list_volumes", embryo_id="embryo_3", limit=3)).facts
        assert (listed["count"], listed["missing_files"]) == (2 * TIMEPOINTS, "none")
        assert listed["MB_each"] == "0.04915..0.04915"

        plane = await ask("get_plane", embryo_id="embryo_3", timepoint=2, plane=4, view="B")
        assert plane.facts["counts"]["shape"] == [64, 64]
        assert (plane.facts["seq_num"], plane.facts["run"]) == (6, lapse.uid)
        assert max(plane.pixels().shape) <= 800
        three = await ask("get_projection", embryo_id="embryo_3")
        assert max(three.pixels().shape) <= 800
        assert three.facts["picture"]["um_per_picture_pixel"] > 0
        compared = (await ask("compare_timepoints", embryo_id="embryo_3", timepoint_a=0, timepoint_b=-1)).facts
        assert (compared["a"]["timepoint"], compared["b"]["timepoint"]) == (0, 3)
        assert (compared["correlation"], compared["b_minus_a"]["std"]) == (1.0, 0.0)  # its sample does not change

        assert latest["stage"] == {"xy_stage_x": 120.0, "xy_stage_y": -240.0, "z_stage": 0.0, "units": "um"}
        assert latest["laser"]["preset"] == "488 only"
        assert latest["laser"]["power_percent"]["488"] == 5.0
        pulses = {"spim_delay_before_laser_ms": 8.0, "spim_laser_duration_ms": 5.0}
        assert latest["laser"]["settings"] == pulses
        assert (await ask("get_settings", run_id=latest["run"])).facts["laser"]["settings"] == pulses
        assert latest["calibration"]["spim_a_calibration_um_per_deg"] == 100.0
        used = (await ask("get_calibration", embryo_id="embryo_3")).rows("used")
        assert [row["from_timepoint"] for row in used] == [0]
        dose = (await ask("get_light_dose", embryo_id="embryo_3")).facts
        assert dose["events"] == TIMEPOINTS
        assert dose["frames_of_all_views"] == TIMEPOINTS * 2 * 6
        assert dose["light_seconds"] == pytest.approx(48 * 0.005)
        assert dose["percent_seconds_by_line_nm"] == {"488": pytest.approx(5 * 48 * 0.005)}

        disk = (await ask("get_disk_use", session=SESSION)).facts
        volumes, frame_bytes = 2 * 3 * 2 + 2 + TIMEPOINTS, 2 * 64 * 64  # two runs, and one that was derived
        assert disk["MB_of_pixels"] == pytest.approx((6 * volumes + 1) * frame_bytes / 1e6, rel=1e-3)

        derived = (await ask("get_lineage", run_id="-1", seq_num=1)).facts
        assert derived["event"]["made_from"]["parent_run"] in {each.uid for each in Catalog(night)}
        assert (
            (await ask("get_lineage", run_id="-1")).rows("edges")[0]["function"].startswith("subtract_background")
        )

        newest = (await ask("list_runs", limit=2)).facts
        assert len(newest["runs"]["rows"]) == 2
        assert "2 older" in newest["more"]
        of = (await ask("list_runs", limit=9, embryo_id="embryo_1", plan_name="acquire_timelapse")).rows("runs")
        assert [row["run_id"] for row in of] == [lapse.uid]
        found = (
            await ask("search_runs", since="2020-01-01", until="2099-01-01", metadata={"operator": "ada"})
        ).rows("runs")
        assert [row["run_id"] for row in found] == [lapse.uid]
        assert (await ask("get_run_data", run_id="-1")).facts["run"] == Catalog(night)[-1].uid
        table = (
            await ask("get_run_data", run_id=lapse.uid, data_keys=["embryo", "spim_a_mean"], first=2, limit=2)
        ).rows("table")
        assert [(row["seq_num"], row["embryo"]) for row in table] == [(2, "embryo_3"), (3, "embryo_1")]
        image = await ask("get_run_image", run_id=lapse.uid[:8], detector="HamCam2", seq_num=3)
        assert (image.facts["data_key"], image.facts["seq_num"]) == ("spim_b", 3)
        snapshot = (await ask("get_snapshot")).facts
        assert snapshot["run"] == runs["snap"].uid
        assert set(snapshot["stage"]) >= {"xy_stage_x", "xy_stage_y", "z_stage"}
        assert (await ask("get_status")).facts["open_runs"] == "none: nothing is being acquired"
        changed = (await ask("compare_runs", run_a=lapse.uid, run_b=latest["run"], contains="exposure")).rows(
            "table"
        )
        assert [(row["a"], row["b"]) for row in changed] == [("5", "4")]

    talk_to(connected(night), talk)


def test_what_people_ask_of_an_old_session_is_answered_and_nothing_is_invented(
    old: Path, connected: Callable[..., Any]
) -> None:
    async def talk(ask: Ask) -> None:
        latest = (await ask("get_volume", embryo_id="embryo_1", session="Overnight")).facts
        assert (latest["session"], latest["timepoint"], latest["voxel_size_um"]) == (OLD, 2, "not recorded")
        assert latest["file"].endswith("embryos/embryo_1/volumes/t0002.tif")
        assert "view" not in latest
        assert "not recorded" in latest["stage"]["from"]
        assert latest["stage"]["position_coarse"] == {"x": 10.5, "y": -3.0}
        assert latest["laser"] == {"preset": "not recorded", "power_percent": {"488": 2.5}}
        assert latest["calibration"]["calibration_piezo_center"] == 52.0
        assert "available: [0..2]" in (await ask("get_volume", embryo_id="embryo_1", timepoint=3)).text
        assert (await ask("get_timepoints", embryo_id="embryo_2")).facts["missing_between"] == "none"
        plane = await ask("get_plane", embryo_id="embryo_2", timepoint=1, plane=3)
        assert plane.facts["counts"]["max"] <= 100
        assert "not known" in plane.facts["picture"]["um_per_picture_pixel"]
        for tool in ("get_projection", "get_contact_sheet"):
            assert max((await ask(tool, embryo_id="embryo_1")).pixels().shape) <= 800
        both = (await ask("compare_timepoints", embryo_id="embryo_1", timepoint_a=0, timepoint_b=2)).facts
        assert (both["a"]["seq_num"], both["b"]["seq_num"]) == (2, 6)
        a, b = (Catalog(old)[-1]["primary"].images("volume").project(event).astype(float) for event in (1, 5))
        assert both["b_minus_a"]["mean"] == pytest.approx((b - a).mean(), rel=1e-5)
        assert both["correlation"] == pytest.approx(np.corrcoef(a.ravel(), b.ravel())[0, 1], rel=1e-5)
        measured = (await ask("get_calibration", embryo_id="embryo_1")).facts["measured"]
        assert [each["calibration_slope"] for each in measured] == [100.5]
        dose = (await ask("get_light_dose", embryo_id="embryo_1")).facts
        assert dose["light_seconds"] == pytest.approx(3 * 4 * 0.005)
        assert dose["percent_seconds_by_line_nm"] == {"488": pytest.approx(0.15)}
        assert any("no laser preset was recorded" in each for each in dose["not_known"])
        disk = (await ask("get_disk_use", session="Overnight")).facts
        assert disk["MB_linked"] > disk["MB_of_pixels"] == 0
        assert "raw data" in (await ask("get_lineage")).facts["event"]
        assert [row["plan_name"] for row in (await ask("list_runs", embryo_id="embryo_1")).rows("runs")] == [
            "import_session"
        ]
        assert (await ask("search_runs", metadata={"session": OLD})).facts["found"] == 1
        water = (await ask("get_run_data", run_id="-1", stream="temperature", data_keys=["water_c"])).rows("table")
        assert [row["water_c"] for row in water] == [20.0, 21.0, 22.0, 23.0]
        assert (await ask("get_run_image", run_id="-1")).facts["data_key"] == "volume"
        assert (await ask("get_snapshot", source="bf")).facts["stream"] == "snapshots_bf"
        parameters = (await ask("get_acquisition_parameters")).facts
        assert parameters["detector"]["exposure_ms"] == 5.0
        assert (await ask("list_sessions")).rows("sessions")[0]["name"] == "Overnight"

    talk_to(connected(old), talk)


# --- every tool ---------------------------------------------------------------------------------------------

NEEDED: dict[str, dict[str, Any]] = {
    **{name: {} for name in READING},
    **{
        name: {"embryo_id": "embryo_3"}
        for name, tool in READING.items()
        if "embryo_id: str," in inspect.getsource(tool).partition('"""')[0]
    },
    "compare_runs": {"run_a": "-1", "run_b": "-2"},
    "compare_timepoints": {"embryo_id": "embryo_3", "timepoint_a": 0, "timepoint_b": 1},
    "read_pixels": {"index": "2,3,4:9"},
}


def test_every_tool_answers_in_a_few_kilobytes_and_is_described(night: Path) -> None:
    async def talk() -> None:
        async with asking(over_stdio(night)) as (client, ask):
            tools = {tool.name: tool for tool in (await client.list_tools()).tools}
            assert tools.keys() == READING.keys()
            for name, tool in tools.items():
                assert tool.description == inspect.getdoc(READING[name])
                for parameter in tool.input_schema["properties"]:
                    assert parameter in str(tool.description), (name, parameter)
                assert tool.annotations is not None
                assert tool.annotations.read_only_hint
                answer = await ask(name, **NEEDED[name])
                assert answer.facts
                assert len(answer.text) < MOST_TEXT, name
                assert len(answer.pictures) <= 1

    run(talk)


def test_the_readme_names_every_tool() -> None:
    section = (REPOSITORY / "README.md").read_text("utf-8").partition("## Agent")[2].partition("\n## ")[0]
    named = set(re.findall(r"`([a-z]+(?:_[a-z]+)+)[(`]", section))
    assert named == READING.keys() | WRITING.keys()


OF_A_WRONG_TYPE: list[tuple[str, dict[str, Any], str]] = [
    (
        "get_plane",
        {"embryo_id": "embryo_3", "timepoint": "latest"},
        "get_plane: timepoint is 'latest'; it takes a whole number or null.",
    ),
    (
        "get_projection",
        {"embryo_id": "embryo_3", "kind": "xyz"},
        """get_projection: kind is 'xyz'; it takes "three" or "z" or "y" or "x".""",
    ),
    (
        "get_plane",
        {"embryo_id": "embryo_3", "region": "a"},
        "get_plane: region is 'a'; it takes a list (each a whole number) or null.",
    ),
    ("tag_run", {"run_id": "-1", "add": "x"}, "tag_run: add is 'x'; it takes a list (each text) or null."),
    ("search_runs", {"metadata": 3}, "search_runs: metadata is 3; it takes an object or null."),
    ("get_run", {"run_id": None}, "get_run: run_id is None; it takes text or a whole number."),
    ("get_plane", {"plane": 1}, "get_plane: embryo_id is not given; it takes text."),
]


def test_an_argument_of_a_wrong_type_is_refused_in_a_line(night: Path) -> None:
    async def talk(ask: Ask) -> None:
        for tool, arguments, said in OF_A_WRONG_TYPE:
            answer = await ask(tool, **arguments)
            assert answer.is_error
            assert answer.text == said

    talk_to(over_stdio(night, "--may-tag"), talk)
    with serving(night, "--may-tag") as address:
        talk_to(over_http(address), talk)


WRONG: list[tuple[str, dict[str, Any], str]] = [
    ("get_run", {"run_id": "nosuchrun"}, "begins with 'nosuchrun'"),
    ("get_run", {"run_id": 99}, "has scan_id 99"),
    ("get_run", {"run_id": "-99"}, "There is no run -99"),
    ("get_run", {"run_id": ""}, "No run"),
    ("get_run", {"run_id": "../../etc/passwd"}, "No run"),
    ("get_run", {"run_id": None}, "run_id"),
    ("get_run", {"run_id": [1]}, "run_id"),
    ("get_run", {"run": "-1"}, "takes no 'run'; it takes"),
    ("no_such_tool", {}, "There is no tool 'no_such_tool'; there are"),
    ("tag_run", {"run_id": "-1", "add": ["x"]}, "There is no tool 'tag_run'"),
    ("list_runs", {"limit": 0}, "must be 1 to 200"),
    ("list_runs", {"limit": 10**9}, "must be 1 to 200"),
    ("list_runs", {"limit": "many"}, "limit"),
    ("list_runs", {"session": "nope"}, "There is no session 'nope'; available"),
    ("search_runs", {"since": "yesterday"}, "is no time"),
    ("search_runs", {"metadata": "operator"}, "metadata"),
    ("search_runs", {"metadata": {"limit": 3}}, "argument of its own"),
    ("search_runs", {"metadata": {"self": 3}}, "self"),
    ("get_run_data", {"stream": "secondary"}, "has no stream 'secondary'; it has"),
    ("get_run_data", {"data_keys": ["volume_scanner"]}, "has no data key 'volume_scanner'; it has"),
    ("get_run_data", {"data_keys": "embryo"}, "data_keys"),
    ("get_run_data", {"limit": 5000}, "must be 1 to 200"),
    ("get_run_image", {"detector": "camera_image"}, "has no images of 'camera_image'; it has"),
    ("get_run_image", {"seq_num": 4000}, "available seq_nums"),
    ("get_run_image", {"plane": 600}, "available: 0..5"),
    ("get_run_image", {"size": 100_000}, "320 to 1600"),
    ("get_run_image", {"size": -1}, "320 to 1600"),
    ("get_run_image", {"window": "dark"}, "is no window"),
    ("get_run_image", {"cmap": "nonsense"}, "no colour map"),
    ("get_run_image", {"projection": "four"}, "projection"),
    ("get_plane", {"embryo_id": "embryo_9"}, "available: 'embryo_1', 'embryo_3'"),
    ("get_plane", {"embryo_id": "embryo_3", "axis": "w"}, "axis"),
    ("get_plane", {"embryo_id": "embryo_3", "plane": -7}, "available: 0..5"),
    ("get_plane", {"embryo_id": "embryo_3", "view": "C"}, "available: 'A', 'B'"),
    ("get_plane", {"embryo_id": "embryo_3", "channel": "405 only"}, "available: '488 only'"),
    ("get_plane", {"embryo_id": "embryo_3", "region": [0, 10]}, "top, bottom, left, right"),
    ("get_plane", {"embryo_id": "embryo_3", "region": [0, 1000, 0, 10]}, "within 0..64"),
    ("get_plane", {"embryo_id": "embryo_3", "timepoint": 2.5}, "timepoint"),
    ("get_plane", {}, "embryo_id"),
    ("get_contact_sheet", {"embryo_id": "embryo_3", "first": 9}, "available: [0..3]"),
    ("get_contact_sheet", {"embryo_id": "embryo_3", "count": 65}, "must be 1 to 64"),
    ("get_contact_sheet", {"embryo_id": "embryo_3", "first": 3, "last": 1}, "no timepoint from 3 to 1"),
    ("get_overlay", {"embryo_id": "embryo_3", "views": ["A"]}, "Two views"),
    ("get_overlay", {"embryo_id": "embryo_3", "views": ["A", "Z"]}, "Two views"),
    ("compare_timepoints", {"embryo_id": "embryo_3", "timepoint_a": 0, "timepoint_b": 77}, "available: [0..3]"),
    ("get_snapshot", {"source": "infrared"}, "there are"),
    ("get_snapshot", {"back": 5}, "none is number 5"),
    ("read_pixels", {"index": "1"}, "at most 400"),
    ("read_pixels", {"index": "99,0,0"}, "out of bounds"),
    ("read_pixels", {"index": "__import__('os')"}, "none like"),
    ("read_pixels", {"index": "9" * 5000}, ""),
    ("list_volumes", {"embryo_id": "embryo_3", "skip": -1}, "0 or more"),
    ("get_light_dose", {"embryo_id": "embryo_3", "since": "2099-01-01"}, "in that time"),
    ("get_lineage", {"depth": 0}, "1 to 20"),
    ("get_settings", {"seq_num": 0}, "available seq_nums"),
]


def test_wrong_arguments_are_tool_errors_that_say_what_there_is(night: Path) -> None:
    async def talk(ask: Ask) -> None:
        for tool, arguments, said in WRONG:
            answer = await ask(tool, **arguments)
            assert answer.is_error, (tool, arguments, answer.text)
            assert said in answer.text, (tool, arguments, answer.text)
            assert "Traceback" not in answer.text
            assert len(answer.text) < 3_000, (tool, len(answer.text))
        assert (await ask("list_runs")).facts["found"]

    talk_to(AgentServer(night), talk)
    talk_to(over_stdio(night), talk)


WORDS = [
    "embryo_3",
    "embryo_1",
    "-1",
    "primary",
    "spim_a",
    "A",
    "B",
    "z",
    "x",
    "three",
    "auto",
    "0%,100%",
    "5,9",
    "gray",
]
VALUES = st.one_of(
    st.sampled_from(WORDS),
    st.integers(-8, 8),
    st.sampled_from([320, 400, 10**12, -(10**12), 0.5, True, None]),
    st.text(max_size=12),
    st.lists(st.one_of(st.integers(-2, 70), st.sampled_from(WORDS)), max_size=5),
    st.dictionaries(
        st.sampled_from(["operator", "session", "tag", "x"]), st.one_of(st.none(), st.sampled_from(WORDS))
    ),
)
PARAMETERS = {name: list(inspect.signature(tool).parameters)[1:] for name, tool in READING.items()}
CALLS = st.sampled_from(sorted(READING)).flatmap(
    lambda name: st.tuples(st.just(name), st.dictionaries(st.sampled_from(PARAMETERS[name] or ["none"]), VALUES))
)


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(calls=st.lists(CALLS, min_size=8, max_size=20))
def test_whatever_is_asked_is_answered_or_refused_in_words(
    night: Path, calls: list[tuple[str, dict[str, Any]]]
) -> None:
    async def talk(ask: Ask) -> None:
        for tool, arguments in calls:
            asked = NEEDED[tool] | arguments
            answer = await ask(tool, **asked)
            assert answer.text != f"Error executing tool {tool}", (tool, asked)
            assert len(answer.text) < 2 * MOST_TEXT
            assert answer.is_error or answer.facts

    talk_to(AgentServer(night), talk)


# --- tags, tokens -------------------------------------------------------------------------------------------


def test_tags_and_notes_are_written_in_the_agents_name_where_the_user_allows_it(root: Path) -> None:
    a_night(root)
    before = [(name, doc) for name, doc in Catalog(root)[-1].documents()]

    async def talk() -> None:
        async with asking(over_stdio(root, "--may-tag", "--by", "claude")) as (client, ask):
            tools = {tool.name: tool for tool in (await client.list_tools()).tools}
            assert tools["tag_run"].annotations is not None
            assert not tools["tag_run"].annotations.read_only_hint
            said = await ask("tag_run", run_id="-1", add=["hatched", "keep"], note="bean stage at t3")
            assert said.facts["tags"] == ["hatched", "keep"]
            assert (await ask("tag_run", run_id="-1", remove=["hatched"])).facts["tags"] == ["keep"]
            assert (await ask("search_runs", metadata={"tag": "keep"})).facts["found"] == 1
            assert "bean stage" in (await ask("get_run")).text
            for wrong in ({"add": [" "]}, {}, {"note": "x" * 5000}, {"remove": ["never"]}):
                assert (await ask("tag_run", run_id="-1", **wrong)).is_error

    run(talk)
    tagged = Catalog(root)[-1]
    assert [(note.by, note.added, note.removed) for note in tagged.notes] == [
        ("claude", ("hatched", "keep"), ()),
        ("claude", (), ("hatched",)),
    ]
    assert list(tagged.documents()) == before


def test_beyond_this_machine_a_token_is_needed(night: Path) -> None:
    result = gently("agent", "--http", "--host", "0.0.0.0", "--root", night)
    assert result.returncode == 1
    assert "give a token" in result.stderr
    with pytest.raises(ValueError, match="give a token"):
        http_app(AgentServer(night), host="192.0.2.1")


def test_with_a_token_nothing_is_told_without_it(night: Path) -> None:
    with serving(night, environment={"GENTLY_TOKEN": TOKEN}) as address:
        for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": TOKEN}, {"Authorization": ""}):
            reply = httpx2.post(address, headers=headers, json={"jsonrpc": "2.0", "id": 1, "method": "tools/list"})
            assert reply.status_code == 401
            assert "tools" not in reply.text

        async def talk(ask: Ask) -> None:
            assert (await ask("get_status")).facts["runs"] == 4

        talk_to(over_http(address, TOKEN), talk)


def test_another_host_or_origin_is_refused(night: Path) -> None:
    with serving(night) as address:
        body = {"jsonrpc": "2.0", "id": 1, "method": "tools/list"}
        accept = {"Accept": "application/json, text/event-stream"}
        for wrong in ({"Host": "evil.example"}, {"Origin": "http://evil.example"}):
            assert httpx2.post(address, headers=accept | wrong, json=body).status_code in {403, 421}
        big = httpx2.post(address, headers=accept, content=b"x" * (2 << 20))
        assert big.status_code == 413


def test_many_questions_at_once_get_each_their_own_answer(night: Path) -> None:
    lapse = Catalog(night)[1]
    wrong: list[Any] = []

    async def whole(address: str) -> None:
        async with asking(over_http(address)) as (_, one), asking(over_http(address)) as (_, other):

            async def look(ask: Ask, z: int, seq_num: int, key: str) -> None:
                asked: dict[str, Any] = {"run_id": lapse.uid, "seq_num": seq_num, "detector": key}
                answer = await ask("read_pixels", index=f"{z},0,:3", **asked)
                wanted = lapse["primary"].images(key)[seq_num - 1, z, 0, :3].tolist()
                if (answer.facts["pixels"], answer.facts["seq_num"]) != (wanted, seq_num):
                    wrong.append((z, seq_num, key, answer.text))

            async with anyio.create_task_group() as group:
                for i in range(48):
                    group.start_soon(look, (one, other)[i % 2], i % 6, 1 + i % 5, f"spim_{'ab'[i % 2]}")

    with serving(night) as address:
        run(whole, address)
    assert not wrong


def test_without_the_extra_it_is_named(night: Path) -> None:
    code = "import sys; sys.modules['mcp'] = None; from gently_bluesky.cli import main; main()"
    command = [sys.executable, "-c", code, "agent", "--root", str(night)]
    result = subprocess.run(command, capture_output=True, text=True, check=False, cwd=REPOSITORY, timeout=60)
    assert result.returncode == 1
    assert result.stderr == "gently-bluesky: An agent's server needs mcp: pip install 'gently_bluesky[agent]'.\n"


def test_a_root_that_is_none_is_said_in_one_line(tmp_path: Path) -> None:
    result = gently("agent", "--root", tmp_path / "nowhere")
    assert result.returncode == 1
    assert result.stderr.count("\n") == 1
    assert "nowhere" in result.stderr
