"""Exports of derived runs: at the times of what was measured, beside what was acquired, told from it by name."""

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import zarr

from gently_bluesky import Catalog, derive
from gently_bluesky.derived import maximum_projection
from gently_bluesky.errors import NothingSelectedError
from gently_bluesky.exchange.export_grid import grids_of
from gently_bluesky.exchange.export_imagej import imagej
from gently_bluesky.exchange.export_ome_zarr import ome_zarr
from gently_bluesky.exchange.export_table import csv_events
from gently_bluesky.exchange.selection import select
from gently_bluesky.read.run import Run
from tests.export_rig import timelapse
from tests.test_cli import gently
from tests.test_derive import doubled, measured


@pytest.fixture
def run(root: Path) -> Run:
    return timelapse(root, embryos=["e1"], channels=["488 only"], views="A")


@pytest.fixture
def once(run: Run, root: Path) -> Run:
    return derive(doubled, run, into=root)


def test_what_is_derived_from_what_was_derived_has_the_times_of_what_was_measured(
    run: Run, once: Run, root: Path, tmp_path: Path
) -> None:
    twice = derive(maximum_projection, once, into=root, parameters={"axis": "z"})
    times = run["primary"].time
    assert set(times).isdisjoint(twice["primary"].time)
    for made in (once, twice):
        (grid,) = grids_of(select(made))
        assert grid.times == times[:, np.newaxis].tolist()
        (store,) = ome_zarr(select(made), tmp_path / made.uid)
        attributes: Any = zarr.open_group(store, mode="r").attrs.asdict()
        assert attributes["gently_bluesky"]["times"] == grid.times
        dataset = attributes["ome"]["multiscales"][0]["datasets"][0]
        assert dataset["coordinateTransformations"][0]["scale"][0] == float(np.median(np.diff(times)))
        (stack,) = imagej(select(made), tmp_path / made.uid)
        with tifffile.TiffFile(stack) as file:
            assert (file.imagej_metadata or {})["finterval"] == pytest.approx(float(np.median(np.diff(times))))


def test_a_dataset_of_a_derived_run_says_when_it_was_computed_and_when_it_was_measured(
    run: Run, once: Run
) -> None:
    for data in (once["primary"].read(), once.to_xarray()):
        np.testing.assert_array_equal(data["time"], once["primary"].time)
        np.testing.assert_array_equal(data["measured_time"], run["primary"].time)
    acquired, made = run.to_xarray(), once.to_xarray()
    np.testing.assert_array_equal(made["measured_time_utc"], acquired["time_utc"])
    assert "measured_time" not in acquired.coords


def test_a_catalog_is_asked_for_what_was_acquired_unless_derived_is_said(run: Run, once: Run, root: Path) -> None:
    catalog = Catalog(root)
    assert [each.uid for each in select(catalog, session="s").runs] == [run.uid]
    assert [each.uid for each in select(catalog, session="s", derived=True).runs] == [once.uid]
    assert len(select(catalog, embryo="e1", derived=None).volumes) == 6
    assert [each.uid for each in select(once).runs] == [once.uid]


def test_a_session_of_which_nothing_was_derived_says_so(run: Run, root: Path) -> None:
    with pytest.raises(NothingSelectedError, match="there are none in the runs that were looked at"):
        select(Catalog(root), session="s", derived=True)


def test_what_was_acquired_and_what_was_derived_lie_in_one_folder(
    run: Run, once: Run, root: Path, tmp_path: Path
) -> None:
    for arguments in (["--session", "s"], ["--session", "s", "--derived"]):
        result = gently("export", *arguments, "--to", "imagej", "--into", tmp_path / "out", "--root", root)
        assert (result.returncode, result.stderr) == (0, "")
    names = ["s_e1_t0000-0002_A_488_only.tif", "s_e1_t0000-0002_A_488_only_doubled.tif"]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == names


def test_a_table_of_both_has_all_columns(run: Run, root: Path, tmp_path: Path) -> None:
    derive(measured, run, into=root)
    path, _ = csv_events(select(Catalog(root), derived=None), tmp_path)
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["mean"] != "" for row in rows] == [False] * 3 + [True] * 3
