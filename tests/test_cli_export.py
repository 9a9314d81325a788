"""``gently-bluesky export``, as a person or a script calls it."""

import json
from pathlib import Path

import numpy as np
import pytest
import tifffile
import zarr

from gently_bluesky import Catalog
from tests.export_rig import everything_under, hold_addresses, pixels, timelapse
from tests.test_cli import gently


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("exported") / "root"
    timelapse(root, bad=[(1, 2)])
    return root


@pytest.mark.parametrize(
    ("to", "names"),
    [
        ("ome-tiff", ["s_e1_t0001_A_488_only.ome.tif", "s_e1_t0001_A_561_only.ome.tif"]),
        ("tiff-stack", ["s_e1_t0001_A_488_only.tif", "s_e1_t0001_A_561_only.tif"]),
        ("tiff-series", ["s_e1_t0001_A_488_only", "s_e1_t0001_A_561_only"]),
        ("imagej", ["s_e1_t0001_A.tif"]),
        ("ome-zarr", ["s_e1_t0001_A.ome.zarr"]),
        ("csv", ["s_e1_t0001_primary.csv", "s_e1_t0001_primary.columns.csv"]),
        ("json", ["RUN.jsonl"]),
    ],
)
def test_every_format_is_written_and_its_files_are_named(
    root: Path, tmp_path: Path, to: str, names: list[str]
) -> None:
    asked = ["--session", "s", "--embryo", "e1", "--timepoint", "1", "--view", "A"]
    result = gently("export", *asked, "--to", to, "--into", tmp_path / "out", "--root", root)
    assert result.returncode == 0, result.stderr
    names = [name.replace("RUN", Catalog(root)[-1].folder.name) for name in names]
    assert result.stdout.splitlines() == [str(tmp_path / "out" / name) for name in names]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted(names)
    whole = "documents are those of whole runs, not only what was asked for by embryo, timepoint, view\n"
    assert result.stderr == (whole if to == "json" else "")


def test_a_run_is_exported_by_its_key_and_as_what_is_asked(root: Path, tmp_path: Path) -> None:
    options = ["--embryo", "e1", "--timepoint", "0-1,2", "--as", "float32", "--json"]
    result = gently("export", "-1", *options, "--to", "imagej", "--into", tmp_path, "--root", root)
    (line,) = result.stdout.splitlines()
    read = np.asarray(tifffile.imread(json.loads(line)["path"]))
    assert read.dtype == "float32"
    hold_addresses(read.swapaxes(1, 2))


def test_time_is_split_where_it_is_asked(root: Path, tmp_path: Path) -> None:
    options = ["--embryo", "e2", "--view", "B", "--channel", "561 only", "--split", "time"]
    result = gently("export", "7", *options, "--to", "ome-zarr", "--into", tmp_path, "--root", root)
    assert "4 volumes marked as not good left out" not in result.stderr
    assert "1 volume marked as not good left out: embryo 'e2', timepoint 2, view 'B'" in result.stderr
    paths = [Path(line) for line in result.stdout.splitlines()]
    assert [path.name for path in paths] == [f"s_e2_t{t:04d}_B_561_only.ome.zarr" for t in range(2)]
    np.testing.assert_array_equal(zarr.open_array(paths[1] / "0", mode="r")[0, 0], pixels(1, 1, 1, 1))


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--embryo", "nobody", "--to", "csv"], "embryo 'nobody' is not there; available: 'e1', 'e2'"),
        (["--embryo", "e2", "--timepoint", "2", "--to", "imagej"], "marked as not good; include_bad=True"),
        (
            ["--embryo", "e2", "--timepoint", "1-3", "--to", "imagej"],
            "not timepoint 2..3: 4 volumes would fit, marked as not good",
        ),
        (["--timepoint", "soon", "--to", "csv"], "'soon' are no timepoints; write them like 0-9,12"),
        (["-1", "--as", "uint8", "--to", "tiff-stack"], "which uint8 cannot hold"),
        (["-1", "--as", "uint12", "--to", "tiff-stack"], "'uint12' is no dtype"),
        (["zzzz", "--to", "csv"], "has a uid that begins with"),
    ],
)
def test_what_cannot_be_exported_is_one_line_and_leaves_nothing(
    root: Path, tmp_path: Path, arguments: list[str], says: str
) -> None:
    result = gently("export", *arguments, "--into", tmp_path / "out", "--root", root)
    assert result.returncode == 1
    assert says in result.stderr.splitlines()[-1]
    assert result.stderr.splitlines()[-1].startswith("gently-bluesky: ")
    assert everything_under(tmp_path) == []


def test_an_export_that_is_there_is_left_as_it_is(root: Path, tmp_path: Path) -> None:
    command = ["export", "-1", "--embryo", "e1", "--to", "csv", "--into", str(tmp_path), "--root", str(root)]
    assert gently(*command).returncode == 0
    again = gently(*command)
    assert (again.returncode, again.stderr.count("\n")) == (1, 1)
    assert "is there already, and nothing is overwritten. Choose another folder." in again.stderr


@pytest.mark.parametrize(
    "arguments",
    [["--to", "csv"], ["-1", "--to", "csv", "--as", "uint8"], ["-1", "--to", "json", "--split", "time"], ["-1"]],
)
def test_a_question_that_makes_no_sense_ends_with_2(root: Path, tmp_path: Path, arguments: list[str]) -> None:
    result = gently("export", *arguments, "--into", tmp_path / "out", "--root", root)
    assert result.returncode == 2
    assert everything_under(tmp_path) == []
