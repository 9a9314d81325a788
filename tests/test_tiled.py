"""The journalled documents in Tiled: what it reads back is what was recorded."""

import importlib
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import bluesky.plan_stubs as bps
import bluesky.plans as bp
import numpy as np
import pytest
import tifffile
from bluesky import Msg

from gently_bluesky import FileWriter, replay
from gently_bluesky.read.run import Run
from tests.conftest import OF_TIFF
from tests.data_rig import SHAPE, Camera, hold_together, inline, journal, of, record, volume
from tests.devices_rig import PLANES, SIZE, simulated
from tests.old_session_rig import a_session, the_run
from tests.test_replay import flight

pytestmark = pytest.mark.usefixtures("every_format")

Plan = Iterator[Msg]


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A Tiled server that may read what tests write, and its client, over HTTP."""
    from tiled.client import from_uri
    from tiled.server import SimpleTiledServer

    everything = str(tmp_path_factory.getbasetemp().parent)
    folder = tmp_path_factory.mktemp("tiled")
    with SimpleTiledServer(folder, readable_storage=[everything]) as server:
        client = from_uri(server.uri)
        yield client
        client.context.http_client.close()
    for logger in [each for each in logging.root.manager.loggerDict.values() if isinstance(each, logging.Logger)]:
        for handler in logger.handlers:  # a second server would leave the log of the first one open
            if str(getattr(getattr(handler, "stream", None), "name", "")).startswith(str(folder)):
                logger.removeHandler(handler)
                handler.stream.close()  # type: ignore[attr-defined]


def writer_of(which: str, client: Any) -> Any:
    """Bluesky's TiledWriter, or that of the plugins."""
    module = {"bluesky": "bluesky.callbacks.tiled_writer", "plugins": "bluesky_tiled_plugins"}[which]
    return importlib.import_module(module).TiledWriter(client, batch_size=1)


def tiled(run: Run, which: str, client: Any) -> Any:
    """Send a run to Tiled, and give what Tiled has of it."""
    replay(run, writer_of(which, client))
    return client[run.uid]


def read(run: Any, key: str, stream: str = "primary") -> Any:
    return np.asarray(run[stream][key].read())


BOTH = pytest.mark.parametrize(
    ("every_format", "which"),
    [("ome-tiff", "bluesky"), ("ome-tiff", "plugins"), ("ome-zarr", "plugins")],
    indirect=["every_format"],
)


def test_the_tiled_writer_of_bluesky_itself_knows_no_zarr(root: Path, client: Any) -> None:
    """That of bluesky-tiled-plugins does, in the tests below."""
    run = record(root, lambda writer: bp.count([Camera("cam", writer)]), image_format="ome-zarr")
    with pytest.raises(Exception, match="application/x-zarr"):
        tiled(run, "bluesky", client)


@BOTH
@pytest.mark.parametrize("shape", [SHAPE, (1, 8, 16), (8, 16), (2, 3, 8, 16)], ids=str)
def test_tiled_reads_back_every_volume(root: Path, client: Any, which: str, shape: tuple[int, ...]) -> None:
    run = record(root, lambda writer: bp.count([Camera("cam", writer, shape=shape, embryo="e1")], 3))
    there = tiled(run, which, client)
    pixels = read(there, "cam_image")
    assert pixels.shape == (3, *shape)
    assert pixels.dtype == np.uint16
    np.testing.assert_array_equal(pixels, np.stack([volume(i, shape) for i in range(3)]))
    np.testing.assert_array_equal(pixels, run["primary"].images("cam_image")[:])


@BOTH
def test_tiled_reads_back_two_views_of_the_instrument_and_what_was_read_with_them(
    root: Path, client: Any, which: str
) -> None:
    def plan(writer: FileWriter) -> Plan:
        dispim = simulated(sink=writer)
        yield from bps.mv(dispim.spim.views, "AB")
        yield from bp.count([dispim.spim], 2)

    run = record(root, plan)
    there = tiled(run, which, client)
    for key in ("spim_a", "spim_b"):
        pixels = read(there, key)
        assert pixels.shape == (2, PLANES, SIZE, SIZE)
        np.testing.assert_array_equal(pixels, run["primary"].images(key)[:])
    np.testing.assert_allclose(read(there, "spim_a_mean"), run["primary"]["spim_a_mean"])
    np.testing.assert_allclose(read(there, "spim_a_frame_times"), run["primary"]["spim_a_frame_times"])


@BOTH
def test_tiled_reads_back_arrays_that_came_in_events(root: Path, client: Any, which: str) -> None:
    run = record(root, bp.count([inline("img", *(volume(i, (200, 210)) for i in range(3)))], 3))
    np.testing.assert_array_equal(read(tiled(run, which, client), "img"), run["primary"].images("img")[:])


def test_tiled_reads_back_a_fly_scan(root: Path, client: Any) -> None:
    run = record(root, flight)
    pixels = read(tiled(run, "plugins", client), "cam_image")
    np.testing.assert_array_equal(pixels, np.stack([volume(i) for i in range(4)]))


@OF_TIFF
@pytest.mark.parametrize("compression", ["zlib", None])
def test_tiled_reads_back_a_linked_session_of_old(
    root: Path, tmp_path: Path, client: Any, compression: str | None
) -> None:
    old = a_session(tmp_path / "store", f"compressed by {compression}", compression=compression)
    run = the_run(tmp_path / "store", root)
    there = tiled(run, "plugins", client)
    order = zip(run["primary"]["embryo"], run["primary"]["timepoint"], strict=True)
    np.testing.assert_array_equal(read(there, "volume"), np.stack([old.volumes[key] for key in order]))
    assert read(there, "embryo").tolist() == run["primary"]["embryo"].tolist()
    assert read(there, "snapshot", "snapshots_bf").shape == (1, 20, 30)
    assert read(there, "water_c", "temperature").tolist() == [20.0, 21.0, 22.0, 23.0]


@BOTH
def test_tiled_reads_back_a_single_tiff_of_others(root: Path, tmp_path: Path, client: Any, which: str) -> None:
    tifffile.imwrite(tmp_path / "x.tif", volume(3), compression="zlib", photometric="minisblack")
    np.testing.assert_array_equal(
        read(tiled(the_run(tmp_path / "x.tif", root), which, client), "volume")[0], volume(3)
    )


@OF_TIFF
def test_of_a_part_of_a_file_tiled_gives_an_error_and_no_other_pixels(
    root: Path, tmp_path: Path, client: Any
) -> None:
    a_session(tmp_path / "store", "of two views", shape=(2, *SHAPE))
    there = tiled(the_run(tmp_path / "store", root), "plugins", client)
    with pytest.raises(Exception, match="reshape"):
        read(there, "volume_1")


def test_a_tiled_writer_that_listens_to_the_file_writer_finds_the_files_there(root: Path, client: Any) -> None:
    def plan(writer: FileWriter) -> Plan:
        tiled_writer = writer_of("plugins", client)
        writer.subscribe(tiled_writer)
        return bp.count([Camera("cam", writer), inline("img", *(volume(i, (200, 210)) for i in range(2)))], 2)

    run = record(root, plan)
    there = client[run.uid]
    np.testing.assert_array_equal(read(there, "cam_image"), np.stack([volume(i) for i in range(2)]))
    np.testing.assert_array_equal(read(there, "img"), np.stack([volume(i, (200, 210)) for i in range(2)]))
    assert there.metadata["stop"]["exit_status"] == "success"


def test_what_tiled_was_told_is_valid_by_its_schemas(root: Path, every_format: str) -> None:
    run = record(root, lambda writer: bp.count([Camera("cam", writer)], 2))
    hold_together(journal(run.folder))
    (descriptor,) = of(journal(run.folder), "descriptor")
    (resource,) = of(journal(run.folder), "stream_resource")
    assert descriptor["data_keys"]["cam_image"]["shape"] == list(SHAPE)
    template, mimetype = {"template": "{:06d}.ome.tif"}, "multipart/related;type=image/tiff"
    if every_format == "ome-zarr":
        template, mimetype = {}, "application/x-zarr"
    assert resource["parameters"] == {"chunk_shape": [1, *SHAPE], "join_method": "stack", **template}
    assert resource["mimetype"] == mimetype
