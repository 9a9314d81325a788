"""OME-TIFFs, a file a volume, as tifffile and Bio-Formats read them."""

from pathlib import Path

import bluesky.plans as bp
import numpy as np
import pytest
import tifffile

from gently_bluesky import derive
from gently_bluesky.errors import ExportError
from gently_bluesky.exchange.export_ome_tiff import ome_tiff
from gently_bluesky.exchange.selection import select
from gently_bluesky.store.ome_tiff import examine
from tests.data_rig import SHAPE, Camera, frame_times, inline, manifest, record, taken, volume
from tests.export_rig import pixels, timelapse
from tests.old_session_rig import the_run, told
from tests.test_derive import doubled
from tests.test_export_imagej import seen_by_bio_formats
from tests.test_replay import flight


@pytest.mark.parametrize("image_format", ["ome-tiff", "ome-zarr"])
def test_a_volume_keeps_its_planes_voxel_size_channel_and_frame_times(
    root: Path, tmp_path: Path, image_info: list[str], image_format: str
) -> None:
    run = timelapse(root, embryos=["e1"], timepoints=[0, 1], channels=["488 only"], image_format=image_format)
    paths = ome_tiff(select(run), tmp_path)
    assert [path.name for path in paths] == [
        f"s_e1_t000{t}_{view}_488_only.ome.tif" for t in range(2) for view in "AB"
    ]
    for number, path in enumerate(paths):
        np.testing.assert_array_equal(tifffile.imread(path), pixels(0, number // 2, number % 2))
    said = seen_by_bio_formats(image_info, paths[3])
    assert (said["SizeZ"], said["SizeT"], said["SizeC"], said["series"]) == (SHAPE[0], 1, 1, "1")
    assert [float(said[f"PhysicalSize{axis}"]) for axis in "XYZ"] == [0.25, 0.25, 0.5]
    found = examine(paths[3])
    assert (found.run_uid, found.channel, found.metadata["view"]) == (run.uid, "488 only", "B")
    (entry,) = (e for e in manifest(run.folder) if (e["data_key"], e["index"]) == ("spim_b_image", 1))
    assert list(found.times or ()) == frame_times(run.folder, entry)


def test_what_was_derived_has_the_time_of_what_was_measured(root: Path, tmp_path: Path) -> None:
    run = timelapse(root, embryos=["e1"], timepoints=[0], channels=["488 only"], views="A")
    (path,) = ome_tiff(select(derive(doubled, run, into=root)), tmp_path)
    assert path.name == "s_e1_t0000_A_488_only_doubled.ome.tif"
    assert set(examine(path).times or ()) == {run["primary"].time[0]}


def test_volumes_whose_times_are_not_known_are_whole_all_the_same(root: Path, tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "x.tif", volume(0), photometric="minisblack")
    run = the_run(tmp_path / "x.tif", root, copied=True)
    (path,) = ome_tiff(select(run), tmp_path / "out")
    assert np.isnan(examine(path).times or ()).all()
    assert "torn" not in told(path, tmp_path / "new")


def test_a_fly_scan_has_volumes_and_no_events(root: Path, tmp_path: Path) -> None:
    run = record(root, flight)
    paths = ome_tiff(select(run), tmp_path)
    for path, flown in zip(paths, run["primary"].images("cam_image")[:], strict=True):
        np.testing.assert_array_equal(tifffile.imread(path), flown)


def test_single_frames_of_others_are_volumes_of_one_plane(root: Path, tmp_path: Path) -> None:
    run = record(root, bp.count([inline("img", volume(0, (300, 4)))]))
    (path,) = ome_tiff(select(run), tmp_path)
    np.testing.assert_array_equal(tifffile.imread(path), volume(0, (300, 4)))


def test_a_dtype_that_ome_has_not_must_be_chosen(root: Path, tmp_path: Path) -> None:
    run = record(root, lambda writer: taken(Camera("cam", writer, dtype="<i8"), {}))
    with pytest.raises(ExportError, match=r"OME-TIFF has float32, .*uint8; .* is int64\. Choose one as the dtype"):
        ome_tiff(select(run), tmp_path / "out")
    assert not (tmp_path / "out").exists()
    (path,) = ome_tiff(select(run), tmp_path, dtype="int32")
    np.testing.assert_array_equal(tifffile.imread(path), volume(0))
