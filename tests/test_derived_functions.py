"""Functions for `derive`: what they do to pixels and spacings, against an independent calculation."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import bluesky.plan_stubs as bps
import numpy as np
import pytest
import tifffile
from bluesky import Msg
from numpy.typing import DTypeLike, NDArray

from gently_bluesky import Catalog, FileWriter, derive
from gently_bluesky.derived import deskew, maximum_projection, mean_volume, subtract_background
from gently_bluesky.derived.deskewing import sheared
from gently_bluesky.errors import DerivationError
from gently_bluesky.keep.verify import verify
from gently_bluesky.read.origin import Axis
from gently_bluesky.read.run import Run
from tests.data_rig import SHAPE, Camera, inline, record, volume
from tests.retention_rig import timelapse

KEY = "cam_image"


def run_of(root: Path, *volumes: NDArray[Any], **entry: Any) -> Run:
    """A run of given volumes, under the data key "cam"."""

    def plan(writer: FileWriter) -> Iterator[Msg]:
        described = {"dtype": "array", "voxel_size_um": [1.0, 0.5, 0.25], "dims": ["z", "y", "x"]}
        camera = inline("cam", *volumes, **described | entry)
        yield from bps.open_run()
        for _ in volumes:
            yield from bps.trigger_and_read([camera])
        yield from bps.close_run()

    return record(root, plan, inline_limit_bytes=10)


# --- projection -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("lazy", [False, True])
@pytest.mark.parametrize(("axis", "number"), [("z", 0), ("y", 1), ("x", 2)])
def test_a_projection_is_that_of_the_series_itself(axis: Axis, number: int, lazy: bool, root: Path) -> None:
    run = timelapse(root, 2)
    made = derive(maximum_projection, run, into=root, parameters={"axis": axis}, lazy=lazy)
    images = made["primary"][KEY]
    for event in range(2):
        np.testing.assert_array_equal(images.volume(event), volume(event).max(axis=number))
        np.testing.assert_array_equal(images.volume(event), run["primary"][KEY].project(event, axis=axis))
    left = [dim for dim in ("z", "y", "x") if dim != axis]
    assert images.dims == ("event", *left)
    assert images.voxel_size_um == tuple({"z": 0.5, "y": 0.25, "x": 0.25}[dim] for dim in left)
    assert images.dtype == np.dtype("u2")


def test_a_projection_of_a_projection_has_no_z_to_lose(root: Path) -> None:
    first = derive(maximum_projection, timelapse(root, 1), into=root)
    with pytest.raises(ValueError, match=r"has axes \('y', 'x'\); 'z' is none of them"):
        derive(maximum_projection, first, into=root)
    again = derive(maximum_projection, first, into=root, parameters={"axis": "y"})
    np.testing.assert_array_equal(again["primary"][KEY], [volume(0).max(axis=(0, 1))])


# --- deskewing --------------------------------------------------------------------------------------------------


def interpolated(pixels: NDArray[Any], shift_px: float, axis: int) -> NDArray[Any]:
    """The same by numpy's own interpolation, line by line, with darkness around every frame."""
    planes = np.moveaxis(pixels.astype(float), axis, -1)
    last, width = len(planes) - 1, planes.shape[-1]
    length = width + math.ceil(abs(shift_px) * last)
    out = np.zeros((*planes.shape[:-1], length))
    for z, plane in enumerate(planes):
        shift = shift_px * z if shift_px > 0 else -shift_px * (last - z)
        at = np.arange(-1, width + 1) + shift
        for y, line in enumerate(plane):
            out[z, y] = np.interp(np.arange(length), at, [0, *line, 0], left=0, right=0)
    return np.moveaxis(out, -1, axis)


@pytest.mark.parametrize("axis", [1, 2])
@pytest.mark.parametrize("shift_px", [0.0, 1.0, 0.7, -0.7, 2.25, -3.0, 1 / 3])
@pytest.mark.parametrize("dtype", ["u1", "u2", "u4", "i2", "f4"])
def test_shearing_is_linear_interpolation(dtype: DTypeLike, shift_px: float, axis: int) -> None:
    pixels = np.random.default_rng(7).integers(0, 100, (5, 6, 8)).astype(dtype)
    done = sheared(pixels, shift_px, axis)
    result = np.asarray(done)
    assert (result.shape, result.dtype) == (done.shape, pixels.dtype)
    expected = interpolated(pixels, shift_px, axis)
    np.testing.assert_allclose(result, expected, atol=0.5001 if pixels.dtype.kind in "iu" else 1e-4)
    if pixels.dtype.kind == "f":  # no light is lost
        assert result.sum() == pytest.approx(pixels.sum(), rel=1e-5)


def test_the_brightest_pixels_do_not_wrap_around(root: Path) -> None:
    pixels = np.full((4, 3, 5), np.iinfo("u2").max, "u2")
    result = np.asarray(sheared(pixels, 0.37, 2))
    assert result.max() == np.iinfo("u2").max
    assert result[3, 1, 3] == np.iinfo("u2").max


def test_shearing_in_pieces_is_shearing_at_once() -> None:
    da = pytest.importorskip("dask.array")
    pixels = np.random.default_rng(3).integers(0, 1000, (7, 4, 9)).astype("u2")
    pieces = da.from_array(pixels, chunks=(2, 2, 3))
    np.testing.assert_array_equal(sheared(pieces, -0.6, 2), sheared(pixels, -0.6, 2))


def test_a_straight_line_through_a_slanted_scan_comes_out_straight(root: Path) -> None:
    """A thread along the normal of the planes, as a stage that scans at 45 degrees sees it."""
    step, pixel = 1.0, 0.25
    shift = round(step * math.cos(math.pi / 4) / pixel)  # 2.83 pixels a plane, to the nearest
    seen = np.zeros((5, 4, 32), "u2")
    for z in range(5):
        seen[z, 2, 20 - shift * z] = 1000
    run = run_of(root, seen)
    made = derive(deskew, run, into=root, parameters={"angle_deg": 45})
    images = made["primary"]["cam"]
    brightest = images.volume(0)[:, 2].argmax(axis=1)
    assert np.ptp(brightest) <= 1  # but for what rounding the thread to pixels left
    assert images.shape == (1, 5, 4, 32 + math.ceil(4 * step * math.cos(math.pi / 4) / pixel))
    assert images.voxel_size_um == pytest.approx((math.sin(math.pi / 4), 0.5, 0.25))
    path = next(made.folder.glob("*/*.ome.tif"))
    with tifffile.TiffFile(path) as file:
        assert 'PhysicalSizeZ="0.7071' in str(file.ome_metadata)
    assert verify(root).findings == ()


def test_where_galvo_and_piezo_scan_together_nothing_is_sheared(root: Path) -> None:
    run = timelapse(root, 1)
    made = derive(deskew, run, into=root, parameters={"angle_deg": 90.0})
    np.testing.assert_array_equal(made["primary"][KEY].volume(0), volume(0))
    assert made["primary"][KEY].voxel_size_um == pytest.approx((0.5, 0.25, 0.25))


def test_the_step_may_be_said_along_the_normal_and_the_displacement_along_y_downwards(root: Path) -> None:
    run = run_of(root, volume(0))
    options = {"angle_deg": 60.0, "step_along": "normal", "along": "y", "direction": -1}
    images = derive(deskew, run, into=root, parameters=options)["primary"]["cam"]
    assert images.voxel_size_um == pytest.approx((1.0, 0.5, 0.25))
    expected = interpolated(volume(0), -1.0 / math.tan(math.radians(60)) / 0.5, 1)
    np.testing.assert_allclose(images.volume(0), expected, atol=0.5001)


def test_the_angle_is_read_from_the_documents(root: Path) -> None:
    described = run_of(root, volume(0), scan_angle_deg=45.0)
    told = derive(deskew, described, into=root)
    given = derive(deskew, run_of(root, volume(0)), into=root, parameters={"angle_deg": 45.0})
    np.testing.assert_array_equal(told["primary"]["cam"].volume(0), given["primary"]["cam"].volume(0))

    def plan(writer: FileWriter) -> Iterator[Msg]:
        camera = Camera("cam", writer, scan_angle_deg=45.0)
        yield from bps.open_run()
        yield from bps.trigger_and_read([camera])
        yield from bps.close_run()

    assert derive(deskew, record(root, plan), into=root).exit_status == "success"
    with pytest.raises(DerivationError, match="do not say its scan_angle_deg"):
        derive(deskew, timelapse(root, 1), into=root)


@pytest.mark.parametrize(
    ("options", "entry", "says"),
    [
        ({"angle_deg": 0.0}, {}, "no geometry of a scan"),
        ({"angle_deg": 45.0, "along": "z"}, {}, "no geometry of a scan"),
        ({"angle_deg": 45.0}, {"voxel_size_um": []}, r"deskewing needs \(z, y, x\) and um"),
        ({"angle_deg": 45.0}, {"dims": ["t", "y", "x"]}, r"deskewing needs \(z, y, x\) and um"),
    ],
)
def test_a_geometry_that_is_none_is_refused(options: Any, entry: Any, says: str, root: Path) -> None:
    with pytest.raises(ValueError, match=says):
        derive(deskew, run_of(root, volume(0), **entry), into=root, parameters=options)


# --- background -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("lazy", [False, True])
def test_a_constant_is_subtracted_and_what_would_be_negative_is_said(lazy: bool, root: Path) -> None:
    run = timelapse(root, 2)
    made = derive(subtract_background, run, into=root, parameters={"constant": 40}, lazy=lazy)["primary"]
    for event in range(2):
        expected = np.clip(volume(event).astype(int) - 40, 0, None)
        np.testing.assert_array_equal(made[KEY].volume(event), expected)
        assert made[f"{KEY}_clipped"][event] == (volume(event) < 40).sum() > 0
    assert made[KEY].dtype == np.dtype("u2")
    assert made[KEY].voxel_size_um == (0.5, 0.25, 0.25)
    assert made[f"{KEY}_background"].tolist() == [40.0, 40.0]


@pytest.mark.parametrize("dtype", ["u1", "u2", "u4", "i2", "f4"])
@pytest.mark.parametrize("percentile", [0, 5, 50, 100])
def test_a_percentile_is_a_count_that_is_there(percentile: float, dtype: DTypeLike, root: Path) -> None:
    pixels = np.random.default_rng(1).integers(0, 120, SHAPE).astype(dtype)
    made = derive(subtract_background, run_of(root, pixels), into=root, parameters={"percentile": percentile})
    background = made["primary"]["cam_background"][0]
    assert background in pixels
    assert (pixels <= background).mean() >= percentile / 100
    assert (pixels < background).mean() <= percentile / 100
    np.testing.assert_array_equal(made["primary"]["cam"].volume(0), np.clip(pixels - background, 0, None))
    assert made["primary"]["cam"].dtype == np.dtype(dtype)


def test_a_dark_reference_is_a_run_of_its_own_and_a_parent(root: Path) -> None:
    """Four generations: dark frames, their mean, what it is subtracted from, and a projection of that."""
    light, darks = timelapse(root, 2), run_of(root, *(np.full(SHAPE, n, "u2") for n in (10, 12, 14)))
    dark = derive(mean_volume, darks, into=root, data_key="unused", start={"purpose": "dark"})
    assert dark["primary"]["cam"].dtype == np.dtype("f4")
    np.testing.assert_array_equal(dark["primary"]["cam"].volume(0), np.full(SHAPE, 12.0))
    assert dark["primary"].rows[0].data["parent_seq_num"] == [1, 2, 3]
    with pytest.raises(ValueError, match="needs one dark reference of its data key"):
        derive(subtract_background, light, into=root, references={"dark": dark})
    flat = run_of(root, *(volume(event) for event in range(2)))
    made = derive(subtract_background, flat, into=root, references={"dark": dark})
    np.testing.assert_array_equal(made["primary"]["cam"].volume(1), np.clip(volume(1).astype(int) - 12, 0, None))
    assert [parent.get("role") for parent in made.start["parents"]] == [None, "dark"]
    projected = derive(maximum_projection, made, into=root)
    found = Catalog(root).lineage(projected)
    assert {node.uid for node in found.nodes} == {projected.uid, made.uid, flat.uid, dark.uid, darks.uid}
    assert verify(root).findings == ()


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({}, "a constant, a percentile or a dark reference"),
        ({"constant": 1, "percentile": 5}, "a constant, a percentile or a dark reference"),
        ({"constant": -1}, r"of -1.* to -1.* cannot be subtracted from uint16"),
        ({"constant": 70000}, "cannot be subtracted from uint16"),
        ({"constant": float("nan")}, "cannot be subtracted from uint16"),
        ({"percentile": 101}, "range"),
    ],
)
def test_a_background_that_is_none_is_refused(options: Any, says: str, root: Path) -> None:
    with pytest.raises(ValueError, match=says):
        derive(subtract_background, timelapse(root, 1), into=root, parameters=options)


def test_volumes_of_different_shapes_have_no_mean(root: Path) -> None:
    runs = [run_of(root, volume(0)), run_of(root, volume(0, (2, 8, 16)))]
    with pytest.raises(ValueError, match="they have no mean"):
        derive(mean_volume, runs, into=root)
