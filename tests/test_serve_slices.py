"""Slices as text: numpy decides what is right."""

import re
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gently_bluesky import Catalog
from gently_bluesky.errors import SliceError
from gently_bluesky.serve.slices import expanded, parsed, shape_of, spanned
from tests.serve_rig import Served, as_array, recorded, series, served

NUMBERS = st.one_of(st.none(), st.integers(-9, 9), st.sampled_from([10**17, -(10**17)]))
PARTS = st.one_of(
    st.integers(-9, 9),
    st.builds(slice, NUMBERS, NUMBERS, NUMBERS.filter(lambda step: step != 0)),
    st.just(Ellipsis),
)
SLICES = st.lists(PARTS, min_size=1, max_size=5)
ARRAY = np.arange(3 * 4 * 5 * 6).reshape(3, 4, 5, 6)


def spelled(part: Any) -> str:
    if part is Ellipsis:
        return "..."
    if isinstance(part, slice):
        given = ["" if each is None else str(each) for each in (part.start, part.stop, part.step)]
        return ":".join(given if part.step is not None else given[:2])
    return str(part)


@given(SLICES)
def test_what_numpy_takes_is_cut_as_numpy_cuts_it_and_nothing_else(parts: list[Any]) -> None:
    text = ",".join(map(spelled, parts))
    try:
        wanted = ARRAY[tuple(parts)]
    except IndexError:
        with pytest.raises((IndexError, SliceError)):
            shape_of(expanded(parsed(text), ARRAY.ndim), ARRAY.shape)
        return
    found = expanded(parsed(text), ARRAY.ndim)
    assert shape_of(found, ARRAY.shape) == wanted.shape
    np.testing.assert_array_equal(ARRAY[found], wanted)


@given(st.text(max_size=30))
def test_text_is_a_slice_or_an_error_that_says_so(text: str) -> None:
    try:
        parts = parsed(text)
    except SliceError:
        return
    assert re.fullmatch(r"[-+0-9:., ]+", text)
    assert all(isinstance(part, int | slice) or part is Ellipsis for part in parts)


@pytest.mark.parametrize(
    "text",
    ["", ",", "1,", "a", "None", "True", "1.5", "0x1", "1_0", "::0", "1:2:3:4", "...,...", "[1,2]", "[0]", "1e3",
     "\u0661", "\uff11", "1;2", "__import__('os')", "../..", "%00", "0" * 400, "9" * 19, "1,\n2", "\x00", "1 2"],
)  # fmt: skip
def test_what_is_no_slice_is_refused(text: str) -> None:
    with pytest.raises(SliceError):
        parsed(text)


def test_a_span_reaches_from_the_first_to_the_last() -> None:
    assert spanned((3, slice(None, None, 7), slice(5, 1, -2), slice(4, 4)), (9, 16, 9, 9)) == (1, 15, 3, 0)


# --- over HTTP ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Any:
    root = tmp_path_factory.mktemp("slices") / "root"
    recorded(root, 3, shape=(4, 8, 6))
    with served(root) as found:
        yield found, Catalog(root)[-1]["primary"]["cam_image"].including_bad


@settings(max_examples=60)
@given(SLICES)
def test_the_server_cuts_as_numpy_does(server: tuple[Served, Any], parts: list[Any]) -> None:
    """The right pixels where there are some, 404 where an index lies outside, 422 for what is no slice."""
    served_root, images = server
    text = ",".join(map(spelled, parts))
    path = f"{series(images.run_uid)}/pixels"
    answer = served_root.get(path, params={"slice": text, "include_bad": "true"})
    whole = np.stack([images.volume(event) for event in range(3)])
    try:
        wanted = whole[tuple(parts)]
    except IndexError:
        assert answer.status_code == (422 if parts.count(Ellipsis) > 1 else 404)
        assert answer.json()["detail"]
        return
    np.testing.assert_array_equal(as_array(answer), wanted)
