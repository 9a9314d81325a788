import datetime
import enum
import json
import math
from pathlib import PurePosixPath
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gently_bluesky.errors import DocumentError
from gently_bluesky.store.strict_json import decode, encode, plain
from tests.data_rig import refused

texts = st.text(st.characters(), max_size=12)
keys = st.one_of(texts, st.sampled_from(["$float", "$bytes", "$complex", "$", "$$", "$$float", "$$$"]))
values = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(), st.floats(), texts, st.binary(max_size=8), st.complex_numbers()
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(keys, inner, max_size=4)),
    max_leaves=12,
)


def same(left: Any, right: Any) -> bool:
    """Equal in value and type, nan to itself, -0.0 not to 0.0."""
    return repr(left) == repr(right)


@given(values)
def test_what_is_encoded_comes_back_as_it_was(value: Any) -> None:
    assert same(decode(encode(plain(value))), value)


@given(values)
def test_what_is_encoded_is_one_line_of_json_for_every_parser(value: Any) -> None:
    line = encode(plain(value))
    assert b"\n" not in line
    assert b"\r" not in line
    json.loads(line.decode("utf-8"), parse_constant=refused)


@given(values)
def test_a_plain_copy_is_deep(value: Any) -> None:
    before = repr(value)
    copy = plain(value)

    def spoil(item: Any) -> None:
        if isinstance(item, dict):
            for child in list(item.values()):
                spoil(child)
            item.clear()
        elif isinstance(item, list):
            for child in item:
                spoil(child)
            item.append("spoiled")

    spoil(copy)
    assert repr(value) == before


class Color(enum.Enum):
    RED = "red"


class Number(enum.IntEnum):
    TWO = 2


class Name(enum.StrEnum):
    A = "a"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ((1, (2.5, "x")), [1, [2.5, "x"]]),
        ({3, 1, 2}, [1, 2, 3]),
        (np.float32(0.5), 0.5),
        (np.uint64(2**64 - 1), 2**64 - 1),
        (np.bool_(True), True),
        (np.str_("text"), "text"),
        (np.bytes_(b"\x01"), b"\x01"),
        (np.float64("nan"), math.nan),
        (np.float16("inf"), math.inf),
        (np.longdouble(1.5), 1.5),
        (np.array([[1, 2], [3, 4]], ">i2"), [[1, 2], [3, 4]]),
        (np.array([np.nan, -np.inf]), [math.nan, -math.inf]),
        (np.array(3.5), 3.5),
        (np.array(["a", None], object), ["a", None]),
        (bytearray(b"ab"), b"ab"),
        (memoryview(b"ab"), b"ab"),
        (PurePosixPath("/a/b"), "/a/b"),
        (Color.RED, "red"),
        (Number.TWO, 2),
        (Name.A, "a"),
        (datetime.datetime(2026, 11, 23, 12, tzinfo=datetime.UTC), "2026-11-23T12:00:00+00:00"),
        (datetime.date(2026, 11, 23), "2026-11-23"),
        (datetime.timedelta(seconds=1.5), 1.5),
        (np.datetime64("2026-11-23T12:00:00.123456789"), "2026-11-23T12:00:00.123456789"),
        (np.array(["2026-11-23T12:00:00", "NaT"], "datetime64[ns]"), ["2026-11-23T12:00:00.000000000", "NaT"]),
        (np.array([1500, -250], "timedelta64[ms]"), [1.5, -0.25]),
        (np.timedelta64(2, "m"), 120.0),
        ({1: "a", 2.5: "b", False: "c"}, {"1": "a", "2.5": "b", "False": "c"}),
        ({np.int64(7): "a"}, {"7": "a"}),
        ({"$float": "nan"}, {"$float": "nan"}),
        ({"$float": "nan", "more": 1}, {"$float": "nan", "more": 1}),
    ],
)
def test_what_bluesky_users_put_into_metadata_has_a_spelling(value: Any, expected: Any) -> None:
    assert same(decode(encode(plain(value))), expected)


@pytest.mark.parametrize(
    "value",
    [
        object(),
        1j.__class__,
        {1, 2}.__class__,
        lambda: None,
        np.random,
        np.zeros(2, [("a", "<i4"), ("b", "<f8")]),
        np.ma.masked,
        [np.ma.array([1, 2], mask=[True, False])],
        np.timedelta64(3, "M"),
        np.longdouble(1) / 3,
        np.array([np.longdouble(1) / 3]),
    ],
)
def test_what_has_no_spelling_is_an_error_that_names_the_place(value: Any) -> None:
    with pytest.raises(DocumentError, match=r"start document, 'sample', 'made_of'\[1\].* holds"):
        plain({"sample": {"made_of": ["agar", value]}}, "start document")


@pytest.mark.parametrize("key", [None, (1, 2), b"x", frozenset()])
def test_a_key_that_is_no_text_is_an_error_that_names_it(key: Any) -> None:
    with pytest.raises(DocumentError, match=r"has the key .* JSON keys are text"):
        plain({"md": {key: 1}})


def test_keys_that_would_become_one_are_refused_instead_of_merged() -> None:
    with pytest.raises(DocumentError, match="keys that differ only in type"):
        plain({1: "a", "1": "b"})


def test_a_document_that_holds_itself_is_refused() -> None:
    round_and_round: dict[str, Any] = {}
    round_and_round["self"] = round_and_round
    with pytest.raises(DocumentError, match="nested deeper than 100"):
        plain(round_and_round)


@pytest.mark.parametrize("line", [b"NaN", b"[Infinity]", b"-Infinity", b"{'a': 1}", b"[1,]", b"", b"\xff"])
def test_what_is_not_strict_json_is_refused(line: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        decode(line)
