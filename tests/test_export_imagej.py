"""Hyperstacks for ImageJ and Fiji, as tifffile and Bio-Formats read them."""

import itertools
import logging
import re
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import bluesky.plans as bp
import numpy as np
import pytest
import tifffile
from bluesky import Msg
from numpy.typing import NDArray

from gently_bluesky import Catalog, FileWriter
from gently_bluesky.errors import ExportError, GeometryError, NothingSelectedError
from gently_bluesky.exchange import export_imagej
from gently_bluesky.exchange.export_imagej import imagej
from gently_bluesky.exchange.export_ome_zarr import ome_zarr
from gently_bluesky.exchange.selection import select
from gently_bluesky.read.run import Run
from tests.data_rig import SHAPE, Camera, inline, record, taken, volume
from tests.export_rig import Writer, hold_addresses, pixels, timelapse

WRITERS = pytest.mark.parametrize("write", [imagej, ome_zarr])

_SIZES = ("SizeZ", "SizeT", "SizeC", "SizeX", "SizeY")


def seen_by_bio_formats(image_info: list[str], path: Path) -> dict[str, Any]:
    """What ImageInfo says of a file: sizes, order of planes, physical sizes."""
    result = subprocess.run(
        [*image_info, "-nopix", "-omexml", path], capture_output=True, text=True, check=False, timeout=120
    )
    assert result.returncode == 0, result.stdout + result.stderr
    pixels = re.search(r"<Pixels ([^>]*)>", result.stdout)
    assert pixels is not None
    said: dict[str, Any] = dict(re.findall(r'(\w+)="([^"]*)"', pixels[1]))
    (said["series"],) = re.findall(r"Series count = (\d+)", result.stdout)
    return said | {size: int(said[size]) for size in _SIZES}


def plane_of_bio_formats(image_info: list[str], path: Path, number: int, shape: Sequence[int]) -> NDArray[Any]:
    """One plane as Bio-Formats reads it, converted by its own tool into a TIFF of its own."""
    out = path.with_name(f"plane{number}.ome.tif")
    convert = [*image_info[:-1], "loci.formats.tools.ImageConverter", "-range", str(number), str(number)]
    result = subprocess.run([*convert, path, out], capture_output=True, text=True, check=False, timeout=120)
    assert result.returncode == 0, result.stdout + result.stderr
    with tifffile.TiffFile(out) as file:
        (page,) = file.pages
        return np.asarray(page.asarray()).reshape(tuple(shape))


def test_channels_slices_and_frames_are_in_the_right_places(
    root: Path, tmp_path: Path, image_info: list[str]
) -> None:
    paths = imagej(select(timelapse(root)), tmp_path)
    assert [path.name for path in paths] == ["s_e1_t0000-0002.tif", "s_e2_t0000-0002.tif"]
    for embryo, path in enumerate(paths):
        with tifffile.TiffFile(path) as file:
            assert file.is_imagej
            assert file.series[0].axes == "TZCYX"
            assert len(file.pages) == 3 * SHAPE[0] * 4
            hold_addresses(file.asarray().swapaxes(1, 2), embryo=embryo)
    said = seen_by_bio_formats(image_info, paths[1])
    assert {size: said[size] for size in _SIZES} == {"SizeZ": 4, "SizeT": 3, "SizeC": 4, "SizeX": 16, "SizeY": 8}
    assert (said["DimensionOrder"], said["series"], said["Type"]) == ("XYCZT", "1", "uint16")
    for place in ((0, 0, 0), (3, 2, 1), (1, 3, 2)):  # c, z, t
        number = place[0] + 4 * place[1] + 16 * place[2]
        view, channel = divmod(place[0], 2)
        np.testing.assert_array_equal(
            plane_of_bio_formats(image_info, paths[1], number, SHAPE[1:]),
            pixels(1, place[2], view, channel)[place[1]],
        )


def test_spacing_interval_and_labels_are_in_the_file(root: Path, tmp_path: Path, image_info: list[str]) -> None:
    run = timelapse(root, embryos=["e1"])
    (path,) = imagej(select(run), tmp_path)
    said = seen_by_bio_formats(image_info, path)
    assert [float(said[f"PhysicalSize{axis}"]) for axis in "XYZ"] == [0.25, 0.25, 0.5]
    assert {said[f"PhysicalSize{axis}Unit"] for axis in "XYZ"} == {"\N{MICRO SIGN}m"}
    times = run["primary"].time[::2]
    assert float(said["TimeIncrement"]) == pytest.approx(float(np.median(np.diff(times))))
    with tifffile.TiffFile(path) as file:
        found = file.imagej_metadata
        assert found is not None
        assert found["Labels"][:5] == [
            "A 488 only t0 z1", "A 561 only t0 z1", "B 488 only t0 z1", "B 561 only t0 z1", "A 488 only t0 z2",
        ]  # fmt: skip
        assert (
            f"t2 B 561 only: embryo 'e1', timepoint 2, view 'B', channel '561 only' (run {run.uid[:8]}"
            in found["Info"]
        )
        assert (found["mode"], found["unit"]) == ("composite", "um")


@pytest.mark.parametrize("dtype", ["|u1", "<u2", "<f4"])
def test_the_dtypes_that_imagej_has_stay_what_they_are(root: Path, tmp_path: Path, dtype: str) -> None:
    run = record(root, lambda writer: taken(Camera("cam", writer, dtype=dtype), {}, {}))
    (path,) = imagej(select(run), tmp_path)
    read = tifffile.imread(path)
    assert read.dtype.newbyteorder("=") == np.dtype(dtype)
    np.testing.assert_array_equal(read, np.stack([volume(i, dtype=dtype) for i in range(2)]))


@pytest.mark.parametrize("dtype", ["<i2", "<i4", "<f8"])
def test_a_dtype_that_imagej_has_not_must_be_chosen(root: Path, tmp_path: Path, dtype: str) -> None:
    run = record(root, lambda writer: taken(Camera("cam", writer, dtype=dtype), {}))
    with pytest.raises(
        ExportError, match=r"ImageJ has uint8, uint16 and float32; .* is (int|float)\d\d\. If one of"
    ):
        imagej(select(run), tmp_path / "out")
    assert not (tmp_path / "out").exists()
    (path,) = imagej(select(run), tmp_path, dtype="uint16")
    np.testing.assert_array_equal(tifffile.imread(path), volume(0))


def test_a_file_a_timepoint_where_time_is_split(root: Path, tmp_path: Path) -> None:
    paths = imagej(select(timelapse(root), embryo="e2", view="B"), tmp_path, split_time=True)
    assert [path.name for path in paths] == [f"s_e2_t{t:04d}_B.tif" for t in range(3)]
    for t, path in enumerate(paths):
        read = tifffile.imread(path)
        np.testing.assert_array_equal(read, np.stack([pixels(1, t, 1, c) for c in range(2)], axis=1))


def test_more_than_tiff_holds_is_written_as_imagej_does(
    root: Path,
    tmp_path: Path,
    image_info: list[str],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(export_imagej, "_TIFF_ENDS", 1000)
    with caplog.at_level(logging.WARNING):
        (path,) = imagej(select(timelapse(root, embryos=["e1"])), tmp_path)
    assert "is larger than 4 GB: ImageJ and Bio-Formats read it" in caplog.text
    with tifffile.TiffFile(path) as file:
        assert len(file.pages) == 1
        hold_addresses(file.asarray().swapaxes(1, 2))
    said = seen_by_bio_formats(image_info, path)
    assert (said["SizeZ"], said["SizeT"], said["SizeC"]) == (4, 3, 4)
    last = plane_of_bio_formats(image_info, path, 47, SHAPE[1:])
    np.testing.assert_array_equal(last, pixels(0, 2, 1, 1)[3])


# --- what cannot be a hyperstack ----------------------------------------------------------------------------


def test_a_channel_that_lacks_a_timepoint_is_named(root: Path, tmp_path: Path) -> None:
    timelapse(root, embryos=["e1"], timepoints=[0, 1, 2, 3])
    timelapse(root, embryos=["e1"], timepoints=[4], channels=["488 only"])
    with pytest.raises(
        NothingSelectedError,
        match=r"Embryo 'e1': 'A 561 only' has no volumes at timepoints 4, which others have, .* it has 0\.\.3\.",
    ):
        imagej(select(Catalog(root)), tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert imagej(select(Catalog(root), channel="488 only"), tmp_path)


@pytest.mark.parametrize("how", ["without", "bad"])
def test_a_gap_in_time_is_refused_unless_its_neighbours_are_named(root: Path, tmp_path: Path, how: str) -> None:
    options: dict[str, Any] = {how: [(0, 1), (0, 3), (0, 4)]}
    run = timelapse(root, embryos=["e1"], timepoints=range(7), **options)
    with pytest.raises(
        NothingSelectedError, match=r"timepoints 1, 3-4 are not there, .* there are 0, 2, 5\.\.6\."
    ):
        imagej(select(run), tmp_path / "out")
    assert not (tmp_path / "out").exists()
    (path,) = imagej(select(run, timepoint=[0, 2, 5, 6]), tmp_path)
    assert path.name == "s_e1_t0000-0006.tif"
    hold_addresses(np.asarray(tifffile.imread(path)).swapaxes(1, 2), timepoints=[0, 2, 5, 6])


def test_two_volumes_of_one_place_are_refused_by_name(root: Path, tmp_path: Path) -> None:
    first = timelapse(root, embryos=["e1"], timepoints=[0])
    again = timelapse(root, embryos=["e1"], timepoints=[0])
    with pytest.raises(
        ExportError, match=rf"run {first.uid[:8]}.*run {again.uid[:8]}.* have one place in a time-lapse"
    ):
        imagej(select(Catalog(root)), tmp_path / "out")
    assert imagej(select(again), tmp_path)


def test_views_of_different_shape_are_no_channels_of_one_file(root: Path, tmp_path: Path) -> None:
    def plan(writer: FileWriter) -> Iterator[Msg]:
        return bp.count([Camera("a", writer), Camera("b", writer, view="B", shape=(4, 8, 8))], 1)

    run = record(root, plan)
    with pytest.raises(
        GeometryError, match=r"must be of one kind: .* is \(4, 8, 16\) uint16 .* is \(4, 8, 8\) uint16"
    ):
        imagej(select(run), tmp_path / "out")
    assert imagej(select(run, view="B"), tmp_path)


# --- runs without timepoints --------------------------------------------------------------------------------


def test_events_in_order_are_the_frames_where_no_timepoint_is_named(root: Path, tmp_path: Path) -> None:
    run = record(root, lambda writer: taken(Camera("cam", writer), {}, {}, {}))
    (path,) = imagej(select(run), tmp_path)
    assert path.name == f"{run.folder.name}_primary_000001-000003_A.tif"
    np.testing.assert_array_equal(tifffile.imread(path), np.stack([volume(i) for i in range(3)]))


def test_channels_in_turn_are_channels_where_no_timepoint_is_named(root: Path, tmp_path: Path) -> None:
    readings = [{"channel": name} for name in ("red", "green") * 3]
    run = record(root, lambda writer: taken(Camera("cam", writer, channel=""), *readings))
    (path,) = imagej(select(run), tmp_path)
    read = np.asarray(tifffile.imread(path))
    for t, c in itertools.product(range(3), range(2)):
        np.testing.assert_array_equal(read[t, :, c], volume(2 * t + c))


def not_good(root: Path, channels: Sequence[str], *bad: int) -> Run:
    """Events without timepoints, their channels in turn, of which some are not good."""
    readings = [{"channel": channels[i % len(channels)], "good": i not in bad} for i in range(4 * len(channels))]
    return record(root, lambda writer: taken(Camera("cam", writer, channel="", good=True), *readings))


@WRITERS
def test_a_volume_that_is_not_good_lets_no_other_move_to_its_place(
    root: Path, tmp_path: Path, write: Writer
) -> None:
    run = not_good(root, ["red"], 1)
    with pytest.raises(
        NothingSelectedError,
        match=r"timepoints 1 are not there.* Take volumes that are not good, too.* are 0, 2\.\.3",
    ):
        write(select(run), tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert write(select(run, include_bad=True), tmp_path)


@WRITERS
def test_channels_of_different_rounds_are_at_no_timepoint_together(
    root: Path, tmp_path: Path, write: Writer
) -> None:
    run = not_good(root, ["red", "green"], 2, 5)  # red of the round 1, green of the round 2
    with pytest.raises(NothingSelectedError, match=r"'A red' has no volumes at timepoints 1, which others have"):
        write(select(run), tmp_path / "out")
    with pytest.raises(NothingSelectedError, match=r"timepoints 2 are not there"):
        write(select(run, channel="green"), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_single_frames_are_hyperstacks_of_one_slice(root: Path, tmp_path: Path, image_info: list[str]) -> None:
    run = record(root, bp.count([inline("img", *(volume(i, (300, 4)) for i in range(3)))], 3))
    (path,) = imagej(select(run), tmp_path)
    np.testing.assert_array_equal(tifffile.imread(path), np.stack([volume(i, (300, 4)) for i in range(3)]))
    said = seen_by_bio_formats(image_info, path)
    assert (said["SizeZ"], said["SizeT"], said["SizeC"], said["SizeX"]) == (1, 3, 1, 4)
