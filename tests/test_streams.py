"""What the documents of a run add up to, whatever was dropped, repeated or collected in pieces."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gently_bluesky.errors import DocumentError
from gently_bluesky.store.streams import RunTable, VolumeRef, unpack_event_page
from tests.data_rig import start_doc, stop_doc

KEYS = {
    "a": {"source": "t", "dtype": "array", "shape": [1], "external": "STREAM:"},
    "b": {"source": "t", "dtype": "array", "shape": [1], "external": "STREAM:"},
    "x": {"source": "t", "dtype": "number", "shape": []},
}


def table(*keys: str) -> RunTable:
    """A run with one stream of these keys."""
    run = RunTable()
    run("start", start_doc(uid="run"))
    run("descriptor", descriptor("d", *keys))
    for key in keys:
        run("stream_resource", {"uid": f"r-{key}", "data_key": key})
    return run


def descriptor(uid: str, *keys: str) -> dict[str, Any]:
    return {"uid": uid, "name": "primary", "data_keys": {key: KEYS[key] for key in keys}}


def datum(key: str, indices: range, seq_nums: range, descriptor: str = "d") -> dict[str, Any]:
    return {
        "uid": f"{key} {indices} {seq_nums}",
        "stream_resource": f"r-{key}",
        "descriptor": descriptor,
        "indices": {"start": indices.start, "stop": indices.stop},
        "seq_nums": {"start": seq_nums.start, "stop": seq_nums.stop},
    }


def event(seq_num: int, uid: str = "", descriptor: str = "d", **data: Any) -> dict[str, Any]:
    stamps = dict.fromkeys(data, 1.0)
    uid = uid or f"e{seq_num}"
    return {
        "uid": uid,
        "descriptor": descriptor,
        "seq_num": seq_num,
        "time": 1.0,
        "data": data,
        "timestamps": stamps,
    }


def volumes(run: RunTable, key: str = "a") -> dict[int, int | None]:
    """Which index of a key each row has, by its seq_num."""
    rows = run.streams["primary"].rows()
    return {row.seq_num: row.volumes[key].index if key in row.volumes else None for row in rows}


@st.composite
def step_scans(draw: st.DrawFn) -> list[tuple[str, int]]:
    """What a plan does: take a volume and save, drop, read without a trigger; rewind to the last checkpoint."""
    kinds = st.sampled_from(["save", "save", "drop", "again", "checkpoint", "rewind", "lost"])
    return [(kind, i) for i, kind in enumerate(draw(st.lists(kinds, min_size=1, max_size=25)))]


@given(step_scans())
def test_every_row_has_the_volume_that_came_for_its_last_event(steps: list[tuple[str, int]]) -> None:
    run = table("a", "b")
    index, seq_num, checkpoint = 0, 1, 1
    expected: dict[int, int] = {}
    for kind, number in steps:
        if kind == "checkpoint":
            checkpoint = seq_num
        elif kind == "rewind":
            seq_num = checkpoint
        elif kind == "drop":
            index += 1
        else:
            index += kind != "again" or index == 0
            for key in ("a", "b"):
                run("stream_datum", datum(key, range(index - 1, index), range(seq_num, seq_num + 1)))
            if kind != "lost":  # the run was interrupted between a datum and its event
                run("event", event(seq_num, f"event {number}"))
                expected[seq_num] = index - 1
                assert run.streams["primary"].event(f"event {number}").volumes["a"] == VolumeRef("r-a", index - 1)
                seq_num += 1
    if expected:
        assert volumes(run, "a") == volumes(run, "b") == dict(sorted(expected.items()))


@given(st.lists(st.integers(1, 5), max_size=6), st.booleans())
def test_what_is_collected_in_pieces_is_a_row_each_with_or_without_events(
    widths: list[int], with_events: bool
) -> None:
    run, first = table("a"), 1
    for width in widths:
        run("stream_datum", datum("a", range(first - 1, first - 1 + width), range(first, first + width)))
        if with_events:
            page = [event(seq_num, x=seq_num) for seq_num in range(first, first + width)]
            run("event_page", packed(page))
        first += width
    assert volumes(run) == {seq_num: seq_num - 1 for seq_num in range(1, first)}


def packed(events: list[dict[str, Any]]) -> dict[str, Any]:
    page: dict[str, Any] = {key: [each[key] for each in events] for key in ("uid", "seq_num", "time")}
    page["data"] = {"x": [each["data"]["x"] for each in events]}
    page["timestamps"] = {"x": [1.0] * len(events)}
    return page | {"descriptor": "d"}


def test_an_event_page_is_its_events() -> None:
    events = [event(i, x=10 * i) for i in (1, 2, 3)]
    assert list(unpack_event_page(packed(events))) == [each | {"filled": {}} for each in events]


def test_a_datum_that_comes_after_its_event_belongs_to_it() -> None:
    run = table("a")
    run("event", event(1))
    run("event", event(2))
    run("stream_datum", datum("a", range(5, 7), range(1, 3)))
    assert volumes(run) == {1: 5, 2: 6}


def test_a_datum_whose_event_was_lost_is_not_that_of_the_event_before() -> None:
    run = table("a")
    run("stream_datum", datum("a", range(0, 1), range(1, 2)))
    run("event", event(1))
    run("stream_datum", datum("a", range(1, 2), range(1, 2)))
    assert volumes(run) == {1: 0}


def test_a_second_descriptor_of_a_stream_goes_on_with_its_rows() -> None:
    run = table("a")
    run("stream_datum", datum("a", range(0, 1), range(1, 2)))
    run("event", event(1))
    run("descriptor", descriptor("d2", "a", "x"))
    run("stream_datum", datum("a", range(1, 2), range(2, 3), "d2"))
    run("event", event(2, descriptor="d2", x=5))
    assert volumes(run) == {1: 0, 2: 1}
    assert list(run.streams["primary"].data_keys) == ["a", "x"]
    assert [row.descriptor for row in run.streams["primary"].rows()] == ["d", "d2"]


def test_only_the_keys_that_were_asked_for_are_kept() -> None:
    run = RunTable(keys=("x",))
    run("start", start_doc(uid="run"))
    run("descriptor", descriptor("d", "x"))
    run("event", event(1, x=1, y=2))
    (row,) = run.streams["primary"].rows()
    assert row.data == {"x": 1}
    assert row.timestamps == {"x": 1.0}


@pytest.mark.parametrize(
    ("name", "doc"),
    [
        ("event", event(1, descriptor="nowhere")),
        ("stream_datum", datum("a", range(1), range(1, 2), "nowhere")),
        ("stream_datum", datum("b", range(1), range(1, 2))),
        ("event", {"uid": "e", "descriptor": "d"}),
        ("descriptor", {"uid": "d3"}),
        ("no such kind", {"uid": "u"}),
    ],
)
def test_a_document_that_refers_to_nothing_is_an_error_that_names_it_and_its_run(
    name: str, doc: dict[str, Any]
) -> None:
    with pytest.raises(DocumentError, match=rf"{name} .*refers to, or lacks, '.*', in run run"):
        table("a")(name, doc)


def test_a_repeated_event_does_not_get_the_volume_of_the_one_that_it_replaces() -> None:
    run = table("a")
    run("stream_datum", datum("a", range(0, 3), range(1, 4)))
    for uid, seq_num in (("first", 1), ("second", 2), ("second again", 2)):
        run("event", event(seq_num, uid))
    assert volumes(run) == {1: 0, 2: None}


def test_an_event_that_a_rewind_repeats_has_the_volume_that_came_for_it_though_the_first_had_none() -> None:
    run = table("a")
    run("event", event(1, "first"))
    run("stream_datum", datum("a", range(0, 1), range(1, 2)))
    run("event", event(1, "again"))
    assert volumes(run) == {1: 0}
    assert run.streams["primary"].event("first").volumes == {}


def test_a_volume_whose_event_is_on_its_way_is_no_event_yet_and_one_whose_event_was_lost_is_a_bad_one() -> None:
    run = table("a", "x")
    run("stream_datum", datum("a", range(1), range(1, 2)))
    assert run.streams["primary"].rows() == []
    run("stop", stop_doc("run"))
    (row,) = run.streams["primary"].rows()
    assert (row.data, row.volumes["a"]) == ({"good": False}, VolumeRef("r-a", 0))
