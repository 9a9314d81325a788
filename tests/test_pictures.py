"""Pictures: every value that a plane, a window and a colour map make."""

import io
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from gently_bluesky.serve.pictures.colour import coloured, overlaid, table
from gently_bluesky.serve.pictures.encoding import jpeg, png
from gently_bluesky.serve.pictures.layout import GAP, Tile, three_views, tiled
from gently_bluesky.serve.pictures.lettering import TEXT_HEIGHT, bar_um, cut, text_width, wrapped
from gently_bluesky.serve.pictures.picture import picture
from gently_bluesky.serve.pictures.scaling import area_mean, fitted, resampled
from gently_bluesky.serve.pictures.window import Window, as_bytes, window_of

REAL = ["uint8", "uint16", "uint32", "int16", "int32", "int64", "float32", "float64", "bool"]


# --- size ---------------------------------------------------------------------------------------------------


def exactly(line: list[int], size: int) -> list[Fraction]:
    """Give the means of so many equal parts of a line, as fractions: the area that a pixel covers, literally."""
    fine = [Fraction(value) for value in line for _ in range(size)]  # each part is then whole
    return [sum(fine[i * len(line) : (i + 1) * len(line)], Fraction(0)) / len(line) for i in range(size)]


@pytest.mark.parametrize("dtype", REAL)
def test_means_of_whole_blocks_are_those_of_numpy(dtype: str) -> None:
    plane = np.arange(8 * 12).reshape(8, 12).astype(dtype)
    small = area_mean(plane, 6)
    assert small.shape == (4, 6)
    assert small.dtype.kind == "f"
    np.testing.assert_array_equal(small, plane.reshape(4, 2, 6, 2).mean((1, 3)))


@given(
    line=st.lists(st.integers(0, 65_535), min_size=1, max_size=40),
    size=st.integers(1, 60),
    dtype=st.sampled_from(["uint16", "uint32", "float64"]),
)
def test_every_pixel_is_the_mean_of_the_area_that_it_covers(line: list[int], size: int, dtype: str) -> None:
    wanted = np.array(exactly(line, size), float)
    row = np.array([line], dtype)
    np.testing.assert_allclose(resampled(row, (1, size))[0], wanted, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(resampled(row.T, (size, 1))[:, 0], wanted, rtol=1e-6, atol=1e-6)


def test_a_plane_that_is_small_enough_stays_as_it_is() -> None:
    plane = np.arange(6, dtype=np.uint16).reshape(2, 3)
    assert area_mean(plane, 3) is plane
    assert area_mean(plane, 800) is plane
    assert area_mean(np.full((1, 1), 7, np.uint8), 1)[0, 0] == 7


def test_the_longest_side_fits_and_no_side_vanishes() -> None:
    assert area_mean(np.zeros((4096, 1), np.uint8), 512).shape == (512, 1)
    assert fitted((2304, 512), 512) == (512, 114)
    with pytest.raises(ValueError, match="longest side of 0"):
        fitted((5, 5), 0)


def test_large_counts_lose_nothing() -> None:
    plane = np.full((4, 4), 2**32 - 1, np.uint32)
    assert area_mean(plane, 2).tolist() == [[2.0**32 - 1] * 2] * 2


def test_pixels_that_are_not_numbers_are_left_out_of_means() -> None:
    plane = np.array([[1, np.nan, np.nan, np.nan], [3, 5, np.nan, np.nan]], np.float32)
    np.testing.assert_array_equal(resampled(plane, (1, 2)), [[3, np.nan]])


def test_a_picture_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match=r"\(0, 5\) cannot be made"):
        resampled(np.zeros((0, 5)), (1, 1))
    with pytest.raises(ValueError, match="not of uint8"):
        picture(np.zeros((2, 2, 2), np.uint8))
    with pytest.raises(ValueError, match="not of complex128"):
        picture(np.zeros((2, 2), complex))


# --- window -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "window"),
    [
        ("100,4000", (100, 4000)),
        (" -1.5 , 2e3 ", (-1.5, 2000)),
        ((3, 9), (3, 9)),
        ("0%,100%", (0, 100)),
        ("1%,99.8%", (1, 99.8)),
        ("auto", (1, 99.8)),
        ("10,50%", (10, 50)),
    ],
)
def test_windows_are_counts_or_percentiles(asked: Any, window: tuple[float, float]) -> None:
    pixels = np.arange(101, dtype=np.uint16)
    assert window_of(pixels, asked) == pytest.approx(window)


@pytest.mark.parametrize(
    "asked",
    ["", "1", "1,2,3", "a,b", "5,5", "9,1", "1%,101%", "-1%,5%", "nan,1", "0,inf", "0,1e999", "1;2", "1,", (1,)],
)
def test_what_is_no_window_is_refused(asked: Any) -> None:
    with pytest.raises(ValueError, match="window"):
        window_of(np.arange(5), asked)


@pytest.mark.parametrize("dtype", REAL)
def test_a_constant_plane_is_black_in_a_window_of_one_count(dtype: str) -> None:
    made = picture(np.ones((3, 4), dtype))
    assert made.window == (1, 2)
    assert made.pixels.tolist() == [[0] * 4] * 3


def test_a_window_can_be_asked_for_again() -> None:
    pixels = np.array([[0.25, 4000.5]])
    window = window_of(pixels, "0%,100%")
    assert str(window) == "0.25,4000.5"
    assert window_of(pixels, str(window)) == window


def test_what_is_not_finite_has_no_percentile() -> None:
    pixels = np.array([np.nan, np.inf, -np.inf, 2, 4], np.float32)
    assert window_of(pixels, "0%,100%") == (2, 4)
    assert window_of(np.array([np.nan]), "auto") == (0, 1)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "uint32", "int16", "int32", "int64", "float32", "float64"])
def test_bytes_are_rounded_between_black_and_white(dtype: str) -> None:
    pixels = np.array([9, 10, 11, 61, 109, 110, 120], dtype)
    assert as_bytes(pixels, Window(10, 110)).tolist() == [0, 0, 3, 130, 252, 255, 255]


def test_values_beyond_numbers_become_black_and_white() -> None:
    pixels = np.array([np.nan, -np.inf, np.inf, 1e300])
    assert as_bytes(pixels, Window(0, 1)).tolist() == [0, 0, 255, 255]


def test_large_counts_are_told_apart() -> None:
    pixels = np.array([2**32 - 3, 2**32 - 2, 2**32 - 1], np.uint32)
    assert as_bytes(pixels, Window(2**32 - 3, 2**32 - 1)).tolist() == [0, 128, 255]


# --- colour -------------------------------------------------------------------------------------------------


def test_a_colour_map_gives_its_colours() -> None:
    grey = np.array([[0, 255]], np.uint8)
    assert coloured(grey).tolist() == [[0, 255]]
    assert coloured(grey, "gray_r").tolist() == [[[255] * 3, [0] * 3]]
    assert coloured(grey, "viridis").tolist() == [[[68, 1, 84], [253, 231, 37]]]


@pytest.mark.parametrize("name", ["nonsense", "", "#ff0000", "../etc", "viridis\n", "a" * 1000])
def test_a_colour_map_that_is_not_there_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="There is no colour map"):
        coloured(np.zeros((1, 1), np.uint8), name)


def test_two_views_are_laid_over_each_other_in_two_colours() -> None:
    a, b = np.array([[0, 255, 255]], np.uint8), np.array([[255, 0, 255]], np.uint8)
    assert overlaid((a, "green"), (b, "magenta")).tolist() == [
        [table("magenta")[255].tolist(), table("green")[255].tolist(), [255, 255, 255]]
    ]
    with pytest.raises(ValueError, match="need one shape"):
        overlaid((a, "green"), (a.T, "magenta"))


# --- bytes --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(1, 1), (5, 7), (5, 7, 3), (300, 2)])
def test_png_keeps_every_byte(shape: tuple[int, ...]) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(png(pixels)))), pixels)


def test_jpeg_is_close() -> None:
    ramp = np.tile(np.arange(0, 256, 4, dtype=np.uint8), (32, 1))
    back = np.asarray(Image.open(io.BytesIO(jpeg(ramp))))
    assert back.shape == ramp.shape
    assert np.abs(back.astype(int) - ramp).max() <= 4


@pytest.mark.parametrize("pixels", [np.zeros((2, 2)), np.zeros((0, 2), np.uint8), np.zeros(4, np.uint8)])
def test_what_is_no_picture_is_not_encoded(pixels: NDArray[Any]) -> None:
    with pytest.raises(ValueError, match="A picture is uint8"):
        png(pixels)


def test_jpeg_says_what_it_cannot_hold() -> None:
    with pytest.raises(ValueError, match="too large for JPEG"):
        jpeg(np.zeros((70_000, 1), np.uint8))


# --- together -----------------------------------------------------------------------------------------------


def test_a_picture_is_small_then_windowed_then_coloured() -> None:
    plane = np.kron(np.array([[100, 200], [300, 400]], np.uint16), np.ones((4, 4), np.uint16))
    plane[0, 0] += 160  # 10 in the mean of its block
    made = picture(plane, size=2, window="110,410", cmap="gray")
    assert made.pixels.tolist() == [[0, 77], [162, 247]]
    assert made.window == (110, 410)
    assert picture(plane, size=2, window="110,410", cmap="viridis").pixels[0, 0].tolist() == [68, 1, 84]


# --- several in one -----------------------------------------------------------------------------------------

UNIT = (1.0, 1.0)


def where(picture: NDArray[np.uint8], colour: tuple[int, int, int]) -> tuple[int, int, int, int]:
    """Give first and last row, first and last column, of what has a colour."""
    rows, columns = np.nonzero((picture == np.array(colour, np.uint8)).all(axis=-1))
    return int(rows.min()), int(rows.max()), int(columns.min()), int(columns.max())


def test_a_single_picture_is_enlarged_without_smoothing_beneath_its_label() -> None:
    plane = np.array([[0, 100], [200, 50]], np.uint8)
    sheet = tiled([Tile(plane, "two by two")], size=400, pixel_um=None)
    size = sheet.pixels.shape[1]
    shown = sheet.pixels[TEXT_HEIGHT : TEXT_HEIGHT + size, :, 0]
    half = size // 2
    assert (shown[: half - 1, : half - 1].max(), shown[half + 1 : size, half + 1 :].min()) == (0, 50)
    assert (shown[half + 1 : size - 20, : half - 1] == 200).all()
    assert sheet.um_per_pixel is None


@pytest.mark.parametrize("size", [320, 500, 800, 1600])
@pytest.mark.parametrize("shape", [(1, 1), (512, 2048), (2048, 512), (7, 300), (300, 7), (64, 64)])
@pytest.mark.parametrize("count", [1, 2, 5, 24])
def test_a_sheet_is_never_larger_than_asked(size: int, shape: tuple[int, int], count: int) -> None:
    tiles = [Tile(np.zeros(shape, np.uint8), f"t{i}") for i in range(count)]
    captions = ["embryo_1, view A, 488 only, maximum along z", "run 8664355e, primary, seq_num 1, spim_a"]
    sheet = tiled(tiles, size=size, pixel_um=UNIT, captions=captions)
    assert max(sheet.pixels.shape[:2]) <= size
    views = three_views(
        np.zeros(shape, np.uint8), np.zeros((30, shape[1]), np.uint8), np.zeros((30, shape[0]), np.uint8),
        size=size, voxel_um=(2, 1, 1), captions=captions,
    )  # fmt: skip
    assert max(views.pixels.shape[:2]) <= size


def test_pixels_that_are_higher_than_wide_are_drawn_so() -> None:
    sheet = tiled([Tile(np.full((10, 10), 99, np.uint8), "")], pixel_um=(2.0, 1.0))
    top, bottom, left, right = where(sheet.pixels, (99, 99, 99))
    assert bottom - top + 1 == pytest.approx(2 * (right - left + 1), abs=2)
    assert sheet.um_per_pixel == pytest.approx(20 / (bottom - top + 1), rel=0.01)


def test_the_scale_bar_is_as_long_as_it_says_and_beneath_the_pixels() -> None:
    sheet = tiled([Tile(np.full((100, 200), 99, np.uint8), "")], pixel_um=(0.5, 0.5), captions=["words"])
    _, bottom, _, _ = where(sheet.pixels, (99, 99, 99))
    top, low, left, right = where(sheet.pixels[bottom + 1 :], (255, 255, 255))
    assert (top, low - top + 1) == (10, 4)
    assert sheet.um_per_pixel == pytest.approx(0.125)
    assert (right - left + 1) * 0.125 == pytest.approx(20)


@pytest.mark.parametrize(
    ("um", "pixels", "bar"), [(1, 100, 100), (1, 99, 50), (0.1625, 160, 20), (1e-4, 30, 0.002)]
)
def test_scale_bars_are_round(um: float, pixels: float, bar: float) -> None:
    assert bar_um(um, pixels) == pytest.approx(bar)


def test_three_views_are_at_one_scale_in_their_places() -> None:
    xy, zx, zy = (
        np.full(shape, grey, np.uint8) for shape, grey in (((40, 80), 51), ((10, 80), 102), ((10, 40), 153))
    )
    zy[0] = 204  # the first plane is on the left of y over z
    sheet = three_views(xy, zx, zy, voxel_um=(2.0, 1.0, 1.0))
    a, b, c, first = (where(sheet.pixels, (grey, grey, grey)) for grey in (51, 102, 153, 204))
    scale = 1 / (sheet.um_per_pixel or 0)
    for (top, bottom, left, right), (tall, wide) in zip((a, b), ((40, 80), (20, 80)), strict=True):
        assert (bottom - top + 1, right - left + 1) == pytest.approx((tall * scale, wide * scale), abs=1)
    assert a[2] == b[2] == 0
    assert b[0] == a[1] + 1 + GAP + TEXT_HEIGHT
    assert (c[0], c[1]) == (a[0], a[1])
    assert first[2] == a[3] + 1 + GAP
    assert first[3] < c[2]
    assert c[3] + 1 - first[2] == pytest.approx(20 * scale, abs=1)


def test_a_missing_picture_is_an_empty_frame() -> None:
    tiles = [Tile(np.full((20, 20), 99, np.uint8), "t0"), Tile(None, "t1 missing")]
    sheet = tiled(tiles, pixel_um=None)
    assert where(sheet.pixels, (48, 48, 48))[2] > where(sheet.pixels, (99, 99, 99))[3]
    assert tiled([Tile(None, "t1")], pixel_um=None, shape=(10, 20)).pixels.shape[2] == 3


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="5000 pictures do not fit into 320 pixels"):
        tiled([Tile(np.zeros((9, 9), np.uint8), "")] * 5000, size=320, pixel_um=None)
    with pytest.raises(ValueError, match="needs 320 pixels or more"):
        tiled([Tile(np.zeros((9, 9), np.uint8), "")], size=100, pixel_um=None)
    with pytest.raises(ValueError, match="of one shape"):
        tiled([Tile(np.zeros((9, 9), np.uint8), ""), Tile(np.zeros((8, 9), np.uint8), "")], pixel_um=None)
    with pytest.raises(ValueError, match="not none"):
        tiled([], pixel_um=None)


def test_words_are_wrapped_and_cut_to_their_room() -> None:
    lines = wrapped("a few words that do not fit into one line " + "x" * 500, 120)
    assert len(lines) > 2
    assert all(text_width(line) <= 120 for line in lines)
    assert lines[-1].endswith("...")
    assert cut("short", 300) == "short"
    assert cut("anything", 0) == ""
