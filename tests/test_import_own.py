"""Files of ours that are imported again: what they say of embryo, timepoint, view, time and run is believed."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gently_bluesky import Catalog, derive
from gently_bluesky.exchange.export_imagej import imagej
from gently_bluesky.exchange.export_ome_tiff import ome_tiff
from gently_bluesky.exchange.export_ome_zarr import ome_zarr
from gently_bluesky.exchange.said import Said
from gently_bluesky.exchange.selection import select
from gently_bluesky.read.run import Run
from tests.data_rig import pixel_file
from tests.export_rig import CHANNELS, pixels, timelapse
from tests.old_session_rig import take_in, the_run, told
from tests.test_derive import doubled

SAID = ("session", "embryo", "timepoint", "view", "channel", "good")


def shown(volumes: Any) -> list[tuple[Any, ...]]:
    return sorted((tuple(getattr(each, name) for name in SAID), each.time) for each in volumes)


@pytest.mark.parametrize("write", [imagej, ome_zarr, ome_tiff])
def test_an_export_is_imported_as_what_it_was(root: Path, tmp_path: Path, write: Any) -> None:
    run = timelapse(root, embryos=["e1"], timepoints=[3, 4])
    for path in write(select(run), tmp_path / "out"):
        made = the_run(path, tmp_path / "new")
        assert made.start["imported"]["of_runs"] == [run.uid]
        assert "remarks" not in made
    imported, acquired = Catalog(tmp_path / "new").volumes(), Catalog(root).volumes()
    assert shown(imported) == [((*said[:5], True), time) for said, time in shown(acquired)]
    for each in imported:
        place = 0, each.timepoint, "AB".index(each.view), CHANNELS.index(each.channel)
        np.testing.assert_array_equal(each.array(), pixels(*place))
        assert each.images.voxel_size_um == pytest.approx((0.5, 0.25, 0.25))


@pytest.mark.parametrize("copied", [False, True])
@pytest.mark.parametrize("image_format", ["ome-tiff", "ome-zarr"])
def test_a_file_of_a_run_folder_says_what_its_event_did(
    root: Path, tmp_path: Path, image_format: str, copied: bool
) -> None:
    run = timelapse(root, channels=["488 only"], bad=[(0, 1)], image_format=image_format)
    path = pixel_file(run.folder, "spim_b_image", 2)
    path = next((each for each in path.parents if each.name.endswith(".ome.zarr")), path)
    made = the_run(path, tmp_path / "new", copied=copied)
    imported = Catalog(tmp_path / "new").volumes(include_bad=True)
    acquired = Catalog(root).volumes(view="B", include_bad=True)
    expected = shown(acquired) if image_format == "ome-zarr" else shown(acquired)[1:2]
    assert shown(imported) == expected
    assert len(Catalog(tmp_path / "new").volumes()) == (5 if image_format == "ome-zarr" else 0)
    assert made.start["session"] == "s"


def test_what_the_user_says_goes_before_what_the_file_says(root: Path, tmp_path: Path) -> None:
    run = timelapse(root, embryos=["e1"], timepoints=[3, 4], channels=["488 only"], views="A")
    (path,) = imagej(select(run), tmp_path)
    the_run(path, tmp_path / "new", said=Said(session="other", embryo="mine", timepoint=10))
    found = Catalog(tmp_path / "new").volumes(session="other", embryo="mine")
    assert [each.timepoint for each in found] == [11, 10]


def test_what_was_derived_is_imported_at_the_time_of_what_was_measured(root: Path, tmp_path: Path) -> None:
    run = timelapse(root, embryos=["e1"], timepoints=[0], channels=["488 only"], views="A")
    made = derive(doubled, run, into=root)
    for path in (pixel_file(made.folder, "spim_a_image"), *ome_tiff(select(made), tmp_path)):
        (row,) = the_run(path, tmp_path / f"of {path.name}")["primary"].rows
        assert row.time == run["primary"].time[0]


def test_an_import_into_the_root_of_its_run_stands_in_the_lineage(root: Path, tmp_path: Path) -> None:
    run = timelapse(root, embryos=["e1"], channels=["488 only"], views="A")
    (path,) = ome_zarr(select(run), tmp_path)
    made = the_run(path, root)
    assert [relative.uid for relative in made.parents] == [run.uid]
    assert [relative.uid for relative in run.children] == [made.uid]
    assert f"imported from files of timelapse  {run.uid[:8]}" in made_from(made, root)
    assert Catalog(root).volumes(session="s")[0].run_uid in {run.uid, made.uid}


def made_from(run: Run, root: Path) -> str:
    return Catalog(root).lineage(run).text()


def test_a_store_of_which_a_volume_is_torn_is_imported_with_that_volume_marked(root: Path, tmp_path: Path) -> None:
    run = timelapse(root, channels=["488 only"], views="A", image_format="ome-zarr")
    store = next(
        each for each in pixel_file(run.folder, "spim_a_image").parents if each.name.endswith(".ome.zarr")
    )
    said = store / "events/000002/zarr.json"
    said.write_bytes(said.read_bytes().replace(b"e1", b"e7"))
    assert told(store, tmp_path / "new")["torn"] == {store.name: "of volume 2 not all is there"}
    take_in(store, tmp_path / "new")
    volumes = Catalog(tmp_path / "new").volumes(include_bad=True)
    assert sum(not each.good for each in volumes) == 1
    assert {each.embryo for each in volumes if each.good} == {"e1", "e2"}
