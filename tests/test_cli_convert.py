"""``gently-bluesky convert``, as a person or a script calls it."""

import json
from pathlib import Path

import numpy as np
import pytest

from gently_bluesky import Catalog
from gently_bluesky.keep.verify import verify
from tests.data_rig import feed, start_doc
from tests.retention_rig import timelapse
from tests.test_cli import gently


@pytest.fixture
def there(root: Path) -> Path:
    """Three runs that have ended, of 1, 2 and 3 volumes, and one that has not."""
    for scan in (1, 2, 3):
        timelapse(root, scan, scan_id=scan, session=f"s{scan}")
    feed(root, [("start", start_doc(uid="open", scan_id=4))])
    return root


@pytest.mark.parametrize("workers", [1, 2])
def test_every_run_that_has_ended_is_converted_and_a_second_time_none(there: Path, workers: int) -> None:
    result = gently("convert", "--root", there, "--workers", str(workers))
    assert (result.returncode, result.stderr) == (0, "")
    lines = sorted(result.stdout.splitlines())
    assert [line.partition(": ")[2].partition(",")[0] for line in lines] == [
        "1 volume converted to ome-zarr",
        "2 volumes converted to ome-zarr",
        "3 volumes converted to ome-zarr",
    ]
    again = gently("convert", "--root", there, "--workers", str(workers))
    assert "0 volumes converted to ome-zarr; 3 volumes before" in again.stdout
    images = Catalog(there)[3]["primary"]["cam_image"]
    assert [images.source(event).format for event in range(3)] == ["ome-tiff"] * 3
    assert [finding.kind for finding in verify(there, afresh=True).errors] == ["interrupted"], (
        "the one that is open"
    )


def test_one_run_is_converted_and_a_program_can_read_what_was_done(there: Path) -> None:
    result = gently("convert", "2", "--to", "ome-zarr", "--root", there, "--json")
    (said,) = map(json.loads, result.stdout.splitlines())
    assert (said["run"], said["volumes"], said["left"]) == (Catalog(there)[2].uid, 2, [])
    assert gently("convert", "2", "--to", "ome-tiff", "--root", there).returncode == 0


def test_show_tells_both_forms_and_how_large_they_are(there: Path) -> None:
    gently("convert", "2", "--to", "ome-zarr", "--root", there)
    lines = [line.split() for line in gently("show", "2", "--root", there).stdout.splitlines()]
    (first,) = (line for line in lines if line[-1:] == ["ome-tiff"])
    (second,) = (line for line in lines if line[-3:] == ["ome-zarr,", "as", "well"])
    assert first[-5:-3] == second[:2]
    assert second[3] == "MB"


@pytest.mark.parametrize("workers", [1, 2])
def test_what_cannot_be_converted_is_named_and_the_rest_is_converted(there: Path, workers: int) -> None:
    path = Catalog(there)[2].folder / "cam_image" / "000001.ome.tif"
    with path.open("r+b") as file:
        file.seek(-1, 2)
        file.write(b"x")
    result = gently("convert", "--root", there, "--workers", str(workers))
    assert result.returncode == 1
    assert "gently-bluesky: volume 1 in cam_image/000001.ome.tif was not converted: " in result.stderr
    folders = [Catalog(there)[scan].folder for scan in (1, 2, 3)]
    assert [len(list(folder.glob("*.ome.zarr/events/0*"))) for folder in folders] == [1, 1, 3]


def test_a_run_that_has_not_ended_is_refused(there: Path) -> None:
    result = gently("convert", "open", "--root", there)
    assert result.returncode == 1
    assert "has no stop document" in result.stderr
    assert result.stdout == ""


def test_a_form_that_there_is_not_is_refused(there: Path) -> None:
    result = gently("convert", "1", "--to", "png", "--root", there)
    assert result.returncode == 2
    assert "'png' is not one of" in result.stderr.replace("\n", " ")


def test_the_other_form_goes_on_to_be_read_when_the_first_is_gone(there: Path) -> None:
    before = Catalog(there)[3]["primary"]["cam_image"][:]
    gently("convert", "3", "--root", there)
    for path in (Catalog(there)[3].folder / "cam_image").iterdir():
        path.unlink()
    images = Catalog(there)[3]["primary"]["cam_image"]
    assert images.source(0).format == "ome-zarr"
    np.testing.assert_array_equal(images[:], before)
