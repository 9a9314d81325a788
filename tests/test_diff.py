"""What differs between two runs."""

import json
from pathlib import Path
from typing import Any

import bluesky.plan_stubs as bps
import pytest

from gently_bluesky import FileWriter
from gently_bluesky.read.diff import ABSENT, Difference, Values, diff
from gently_bluesky.read.run import Run
from tests.data_rig import Camera, Inline, record
from tests.test_cli import gently


def acquired(
    root: Path, *, exposure_ms: list[float], gain: float = 1.0, start: dict[str, Any], **more: Any
) -> Run:
    """A run with an event for each exposure, of a camera whose gain is configuration."""
    remaining = iter(exposure_ms)
    scalar = {"source": "test", "dtype": "number", "shape": []}
    values = dict.fromkeys(("exposure_ms", *more), scalar)
    lamp = Inline("lamp", lambda: {"exposure_ms": next(remaining), **more}, values)
    lamp.read_configuration = lambda: {"lamp_gain": {"value": gain, "timestamp": 1.0}}  # type: ignore[method-assign]
    lamp.describe_configuration = lambda: {"lamp_gain": scalar}  # type: ignore[method-assign]

    def plan(writer: FileWriter) -> Any:
        camera = Camera("cam", writer)
        yield from bps.open_run(md=start)
        for _ in exposure_ms:
            yield from bps.trigger_and_read([camera, lamp])
        yield from bps.close_run()

    return record(root, plan)


@pytest.fixture
def pair(root: Path) -> tuple[Run, Run]:
    one = acquired(
        root,
        exposure_ms=[5.0, 5.0],
        start={"plan_name": "p", "session": "s", "roi": {"x": 1, "y": 2}, "embryos": [{"name": "e1"}]},
        power=2,
    )
    other = acquired(
        root,
        exposure_ms=[5.0, 10.0, 7.5],
        gain=2.0,
        start={"plan_name": "p", "roi": {"x": 1, "y": 3}, "embryos": [{"name": "e2"}], "purpose": "test"},
        power=2.0,
    )
    return one, other


def test_start_configuration_and_events_are_compared_place_by_place(pair: tuple[Run, Run]) -> None:
    found = diff(*pair)
    assert found.of("start") == (
        Difference("start", "session", Values(("s",)), ABSENT),
        Difference("start", "roi.y", Values((2,)), Values((3,))),
        Difference("start", "embryos[0].name", Values(("e1",)), Values(("e2",))),
        Difference("start", "purpose", ABSENT, Values(("test",))),
    )
    assert found.of("configuration") == (
        Difference("configuration", "primary.lamp.lamp_gain", Values((1.0,)), Values((2.0,))),
    )
    (exposure,) = (each for each in found.of("events") if each.where == "primary.exposure_ms")
    assert (str(exposure.a), str(exposure.b)) == ("5", "5 .. 10 (3 values)")
    assert not exposure.constant
    assert not any("power" in each.where for each in found)  # 2 and 2.0 are one setting
    assert [each.where for each in found.of("events")] == ["primary.cam_number", "primary.exposure_ms"]


def test_a_run_does_not_differ_from_itself(pair: tuple[Run, Run]) -> None:
    found = diff(pair[0], pair[0])
    assert len(found) == 0
    assert "do not differ in their settings" in str(found)


def test_what_is_constant_in_both_comes_before_ranges(root: Path) -> None:
    one = acquired(root, exposure_ms=[1.0, 2.0], start={}, power=1, other=True)
    other = acquired(root, exposure_ms=[1.0, 3.0], start={}, power=2, other=False)
    assert [each.where for each in diff(one, other).of("events")] == [
        "primary.power",
        "primary.other",
        "primary.exposure_ms",
    ]


@pytest.mark.parametrize(
    ("one", "other", "differ"),
    [
        (2**60, 2**60 + 1, True),
        (2**60, 2.0**60, False),
        (2**60 + 1, 2.0**60, True),
        (10**400, 10**400 + 1, True),
        (10**400, float("inf"), True),
        (10**400, 10**400, False),
        (float("nan"), float("nan"), False),
        (0, -0.0, False),
        (1, True, True),
    ],
    ids=lambda value: f"{value!r:.20}",
)
def test_numbers_are_compared_exactly(one: Any, other: Any, differ: bool, root: Path) -> None:
    runs = [acquired(root, exposure_ms=[1.0], start={"given": value}, count=value) for value in (one, other)]
    found = diff(*runs)
    assert {each.where for each in found} == ({"given", "primary.count"} if differ else set())
    str(found)


def test_the_table_reads_side_by_side(pair: tuple[Run, Run]) -> None:
    lines = str(diff(*pair)).splitlines()
    assert lines[0].split() == ["setting", pair[0].uid[:8], pair[1].uid[:8]]
    assert lines[1].split() == ["start", "session", "s", "-"]
    assert any(line.split()[:2] == ["events", "primary.exposure_ms"] for line in lines)
    assert all(line == line.rstrip() for line in lines)


@pytest.mark.parametrize(
    ("distinct", "text", "plain"),
    [
        ((5,), "5", 5),
        ((1.23456789,), "1.23457", 1.23456789),
        ((3, 1, 2), "1 .. 3 (3 values)", {"min": 1, "max": 3, "values": 3}),
        (("a", "b"), "a, b", ["a", "b"]),
        (tuple("abcdefg"), "a, b, c, d, e, ...", list("abcdefg")),
        ((True, False), "True, False", [True, False]),
        ((None, 1), "None, 1", [None, 1]),
    ],
)
def test_values_are_one_a_range_or_a_list(distinct: tuple[Any, ...], text: str, plain: Any) -> None:
    values = Values(distinct)
    assert (str(values), values.plain(), values.constant) == (text, plain, len(distinct) == 1)


def test_the_command_line_shows_it_for_people_and_programs(pair: tuple[Run, Run], root: Path) -> None:
    shown = gently("diff", "-2", "-1", "--root", root).stdout
    assert "primary.lamp.lamp_gain" in shown
    assert "5 .. 10 (3 values)" in shown
    found = json.loads(gently("diff", "-2", "-1", "--root", root, "--json").stdout)
    assert found == json.loads(json.dumps(diff(*pair).as_dict()))
    assert {"part": "start", "where": "session", "a": "s"} in found["differences"]
    assert "do not differ" in gently("diff", "1", "1", "--root", root).stdout
    assert gently("diff", "1", "77", "--root", root).returncode == 1
