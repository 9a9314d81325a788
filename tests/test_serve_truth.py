"""What a server says of runs that grow, rewind, begin anew or hold odd text: true, or an error."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import bluesky.plan_stubs as bps
import numpy as np
import pytest
import zarr
from bluesky.utils import Msg

from gently_bluesky import Catalog, FileWriter
from tests.data_rig import Camera, connected, feed, settle, start_doc, stop_doc, volume
from tests.serve_rig import API, KEY, SHAPE, Served, as_array, recorded, series, served

pytestmark = pytest.mark.usefixtures("every_format")


def shown(server: Served, run: str, stream: str) -> list[int]:
    """The first pixels of the volumes that the OME-Zarr of a series has."""
    group = zarr.open_group(f"{server.url}{API}{series(run, stream)}/zarr", mode="r")
    ome: Any = group.attrs["ome"]
    array: Any = group[ome["multiscales"][0]["datasets"][0]["path"]]
    return [int(np.asarray(array[event])[0, 0, 0]) for event in range(array.shape[0])]


def told(root: Path, run: str, stream: str) -> list[int]:
    """The same of the events that its documents name."""
    images = Catalog(root)[run][stream][KEY]
    return [int(images[event, 0, 0, 0]) for event in range(len(images))]


def test_a_volume_of_another_stream_is_no_next_event(tmp_path: Path) -> None:
    root = tmp_path / "root"
    with FileWriter(root) as writer:
        run_engine, _ = connected(writer)

        def plan() -> Iterator[Msg]:
            camera = Camera("cam", writer, shape=SHAPE)
            run = yield from bps.open_run()
            for name in ("primary", "focus", "focus"):
                yield from bps.trigger_and_read([camera], name=name)
            settle(writer)
            with served(root) as server:
                for name in ("primary", "focus"):
                    assert shown(server, run, name) == told(root, run, name)
                assert server.get(f"{series(run)}/zarr/0/c/1/0/0/0").status_code in {404, 410}
            yield from bps.close_run()

        run_engine(plan())


def test_a_volume_that_a_rewind_left_behind_is_no_next_event(tmp_path: Path) -> None:
    root = tmp_path / "root"
    with FileWriter(root) as writer:
        camera, start = Camera("cam", writer, shape=SHAPE), start_doc()
        keys = camera.describe()
        writer("start", start)
        described = {"uid": "d", "time": 1.0, "run_start": start["uid"], "name": "primary", "data_keys": keys}
        writer("descriptor", described | {"configuration": {}, "hints": {}, "object_keys": {"cam": list(keys)}})
        for number, seq_num in enumerate((1, 1, 2)):
            camera.trigger()
            for name, doc in camera.collect_asset_docs():
                seen = {"descriptor": "d", "seq_nums": {"start": seq_num, "stop": seq_num + 1}}
                writer(name, {**doc, **seen} if name == "stream_datum" else doc)
            event = {"uid": f"e{number}", "descriptor": "d", "seq_num": seq_num, "time": 2.0 + number, "data": {}}
            writer("event", event | {"timestamps": {}, "filled": {}})
        settle(writer)
        with served(root) as server:
            assert shown(server, start["uid"], "primary") == told(root, start["uid"], "primary")
        writer("stop", stop_doc(start["uid"]))


def test_a_download_that_is_taken_up_again_is_of_one_volume(tmp_path: Path) -> None:
    root = tmp_path / "root"
    with FileWriter(root) as writer:
        run_engine, _ = connected(writer)

        def plan() -> Iterator[Msg]:
            camera = Camera("cam", writer, shape=SHAPE)
            run = yield from bps.open_run()
            yield from bps.trigger_and_read([camera])
            settle(writer)
            with served(root) as server:
                at = f"{series(run)}/pixels"
                first = server.get(at, params={"slice": "-1"})
                part = {"Range": "bytes=512-", "If-Range": first.headers["etag"]}
                again = server.get(at, params={"slice": "-1"}, headers=part)
                assert (again.status_code, again.content) == (206, first.content[512:])
                yield from bps.trigger_and_read([camera])
                settle(writer)
                other = server.get(at, params={"slice": "-1"}, headers=part)
                np.testing.assert_array_equal(as_array(other), volume(1, SHAPE))
            yield from bps.close_run()

        run_engine(plan())


def test_a_run_that_was_stored_anew_in_its_place_is_read_anew(tmp_path: Path) -> None:
    root = tmp_path / "root"
    run = recorded(root, 3, start={"operator": "alpha"})
    with served(root) as server:
        assert server.json(f"/runs/{run.uid}")["start"]["operator"] == "alpha"
        shutil.rmtree(run.folder)
        shutil.rmtree(root / "index")
        feed(root, [("start", {**run.start, "operator": "bravo"}), ("stop", stop_doc(run.uid, run.start["time"]))])
        again = server.json(f"/runs/{run.uid}")
        assert again["start"]["operator"] == "bravo"
        assert not again["streams"]


def test_odd_text_in_one_run_takes_no_list_away(tmp_path: Path) -> None:
    root = tmp_path / "root"
    recorded(root, 1)
    start = start_doc(uid="\N{SNOWMAN}\r\nx", plan_name="x\ud800y", session="\udfff")
    feed(root, [("start", start), ("stop", stop_doc(start["uid"]))])
    with served(root) as server:
        assert {run["plan_name"] for run in server.json("/runs")["runs"]} == {"acquire", "x?y"}
        assert {session["name"] for session in server.json("/sessions")} == {"s", "?"}


def test_a_tiff_of_more_axes_than_it_has_is_refused(tmp_path: Path) -> None:
    root = tmp_path / "root"
    run = recorded(root, 2, shape=(2, 3, 8, 8))
    with served(root) as server:
        answer = server.get(
            f"{series(run)}/pixels", params={"slice": "::2", "format": "tiff", "include_bad": True}
        )
        assert answer.status_code == 422
        assert "format=npy" in answer.json()["detail"]
