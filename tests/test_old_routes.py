"""The old viewer finds what it asked for: the same addresses and JSON, now of every stored volume, and true."""

import base64
import datetime
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import bluesky.plan_stubs as bps
import httpx
import numpy as np
import pytest
from bluesky import Msg
from fastapi import FastAPI
from numpy.typing import NDArray
from PIL import Image

from gently_bluesky import FileWriter
from gently_bluesky.keep.discard import discard
from gently_bluesky.read.run import Run
from gently_bluesky.serve.old_routes import old_router
from tests.data_rig import Camera, record, volume
from tests.serve_rig import Served, served, serving

SHAPE = (6, 70, 90)


def plan(writer: FileWriter, session: str, timepoints: int) -> Iterator[Msg]:
    cameras = [Camera("a", writer, shape=SHAPE, view="A"), Camera("b", writer, shape=SHAPE, view="B")]
    yield from bps.open_run({"plan_name": "timelapse", "session": session})
    for timepoint in range(timepoints):
        cameras[0].scalars = {"embryo": "e1", "timepoint": timepoint, "good": timepoint != 1}
        yield from bps.trigger_and_read(cameras)
    yield from bps.close_run()


@pytest.fixture(scope="module", params=["ome-tiff", "ome-zarr"])
def old(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Served, Run]]:
    """A server with the old routes, over two sessions with the same embryo, and the newer run."""
    root = tmp_path_factory.mktemp("old") / "root"
    record(root, lambda writer: plan(writer, "s1", 5), image_format=request.param)
    run = record(root, lambda writer: plan(writer, "s2", 4), image_format=request.param)
    with served(root, old_routes=True) as there:
        yield there, run


def ask(old: tuple[Served, Run], path: str, status: int = 200, **params: Any) -> Any:
    answer = old[0].client.get(f"/api{path}", params=params)
    assert answer.status_code == status, answer.text
    return answer.json() if answer.headers["content-type"] in JSON else answer


JSON = {"application/json", "application/problem+json"}


def picture(content: bytes) -> NDArray[Any]:
    return np.asarray(Image.open(io.BytesIO(content)))


def test_projections_come_as_the_old_viewer_reads_them(old: tuple[Served, Run]) -> None:
    answer = ask(old, "/projections/e1/2")
    assert list(answer) == ["embryo_id", "timepoint", "volume_shape", "projections"]
    assert (answer["embryo_id"], answer["timepoint"], answer["volume_shape"]) == ("e1", 2, list(SHAPE))
    methods = [each["method"] for each in answer["projections"]]
    assert methods == ["three_view", "max_z", "max_y", "max_x"]
    shapes = {each["method"]: picture(base64.b64decode(each["data"])).shape for each in answer["projections"]}
    assert (shapes["max_z"], shapes["max_y"]) == ((70, 90), (6, 90))
    assert all(each["description"].startswith("Maximum along") for each in answer["projections"])


def test_one_method_gives_one_projection_and_its_binary_variant_the_same_bytes(old: tuple[Served, Run]) -> None:
    (only,) = ask(old, "/projections/e1/2", method="max_y")["projections"]
    binary = ask(old, "/projections/e1/2/png", method="max_y")
    assert binary.headers["content-type"] == "image/png"
    assert base64.b64decode(only["data"]) == binary.content
    assert picture(binary.content).shape == (6, 90)
    assert picture(ask(old, "/projections/e1/2/png").content).ndim == 3  # three views, in one picture


def test_a_method_that_there_is_not_is_named_with_those_that_there_are(old: tuple[Served, Run]) -> None:
    answer = ask(old, "/projections/e1/2", 400, method="spin_3d")
    assert answer["detail"].startswith("Unknown method: spin_3d. Available: ['three_view'")


def test_a_raw_volume_is_stretched_and_says_its_true_voxels(old: tuple[Served, Run]) -> None:
    answer = ask(old, "/volume-raw/e1/2")
    assert list(answer) == ["embryo_id", "timepoint", "shape", "voxel_size_um", "data"]
    assert (answer["shape"], answer["voxel_size_um"]) == (list(SHAPE), [0.5, 0.25, 0.25])
    found = np.frombuffer(base64.b64decode(answer["data"]), np.uint8).reshape(SHAPE)
    pixels = volume(2, SHAPE).astype(float)
    low, high = np.percentile(pixels, [1, 99])
    np.testing.assert_allclose(found, np.clip((pixels - low) / (high - low), 0, 1) * 255, atol=1)
    binary = ask(old, "/volume-raw/e1/2/bytes")
    assert binary.content == found.tobytes()
    assert binary.headers["x-shape"] == "6,70,90"
    assert binary.headers["x-voxel-size-um"] == "0.5,0.25,0.25"


def test_a_raw_volume_can_be_had_smaller_with_voxels_that_fit(old: tuple[Served, Run]) -> None:
    answer = ask(old, "/volume-raw/e1/2", size=45)
    assert answer["shape"] == [6, 35, 45]
    assert answer["voxel_size_um"] == [0.5, 0.5, 0.5]


def test_a_plane_of_every_stored_volume_is_had_by_the_uid_of_the_sequence(old: tuple[Served, Run]) -> None:
    items = ask(old, "/sequence/e1", view="B")["sequence"]
    for item in items:
        answer = ask(old, f"/volumes3d/{item['uid']}/slice/5", window="0,255")
        np.testing.assert_array_equal(
            picture(answer.content), volume(item["timepoint"], SHAPE)[5].astype(np.uint8)
        )


@pytest.mark.parametrize("z", [6, 600, -1])
def test_a_plane_that_is_not_there_is_an_error_and_never_the_nearest(old: tuple[Served, Run], z: int) -> None:
    uid = ask(old, "/sequence/e1")["sequence"][0]["uid"]
    answer = ask(old, f"/volumes3d/{uid}/slice/{z}", 404)
    assert answer["detail"] == f"There is no plane {z}; there are 6, counted from 0."
    assert answer["available"] == {"z": [0, 5]}


@pytest.mark.parametrize("uid", ["nope", "a~b~c~d", "a~primary~1~k", "%00", "..%2F..", "~~~"])
def test_a_uid_that_names_no_volume_is_not_there(old: tuple[Served, Run], uid: str) -> None:
    assert "status" in ask(old, f"/volumes3d/{uid}/slice/0", 404)


def test_a_sequence_is_light_and_in_order_and_of_the_newest_session(old: tuple[Served, Run]) -> None:
    answer = ask(old, "/sequence/e1", start=2, end=3)
    assert list(answer) == ["embryo_id", "requested_range", "buffered_range", "sequence", "count"]
    assert answer["requested_range"] == {"start": 2, "end": 3}
    assert [item["timepoint"] for item in answer["sequence"]] == [2, 3]
    whole = ask(old, "/sequence/e1")
    assert [item["timepoint"] for item in whole["sequence"]] == [0, 2, 3]  # 1 is not good
    first = whole["sequence"][0]
    assert set(first) == {"uid", "timepoint", "timestamp", "data_type", "shape", "embryo_id"}
    assert (first["shape"], first["embryo_id"], first["data_type"]) == (list(SHAPE), "e1", "volume_projection")
    assert datetime.datetime.fromisoformat(first["timestamp"]).tzinfo is not None
    assert first["uid"].startswith(old[1].uid)
    older = ask(old, "/sequence/e1", session="s1")
    assert [item["timepoint"] for item in older["sequence"]] == [0, 2, 3, 4]
    assert ask(old, "/sequence/e1", data_type="snapshot")["sequence"] == []
    assert ask(old, "/sequence/nobody")["count"] == 0


def test_the_range_of_a_sequence_is_wider_by_its_buffer(old: tuple[Served, Run]) -> None:
    answer = ask(old, "/sequence/e1", start=10, end=30, buffer_percent=0.15)
    assert answer["buffered_range"] == {"start": 7, "end": 33}


def test_an_older_session_is_had_by_its_name(old: tuple[Served, Run]) -> None:
    assert ask(old, "/volume-raw/e1/4", session="s1")["timepoint"] == 4
    for which in ({"session": "s2"}, {}):  # nothing of an older session comes unasked
        answer = ask(old, "/volume-raw/e1/4", 404, **which)
        assert answer["available"] == {"timepoint": [0, 1, 2, 3]}
        assert "timepoint 4 is not there" in answer["detail"]


def test_sessions_are_those_of_the_runs(old: tuple[Served, Run]) -> None:
    answer = ask(old, "/sessions")
    (second, first) = answer["sessions"]
    assert list(second) == [
        "session_id", "name", "created_at", "last_active", "embryo_count", "description", "active"
    ]  # fmt: skip
    assert (second["session_id"], second["embryo_count"], second["active"]) == ("s2", 1, False)
    one = ask(old, "/sessions/s1")
    assert one["embryo_states"] == {"e1": {"embryo_id": "e1", "timepoints": 5, "last_timepoint": 4}}
    assert (one["conversation"], one["detection_history"], one["created_at"]) == ([], {}, first["created_at"])
    assert ask(old, "/sessions/s9", 404)["available"] == {"session": ["s2", "s1"]}


def test_a_volume_that_is_not_good_or_was_removed_is_not_shown(old: tuple[Served, Run], tmp_path: Path) -> None:
    assert "not good" in ask(old, "/volume-raw/e1/1", 404)["detail"]
    root = tmp_path / "root"
    record(root, lambda writer: plan(writer, "s", 1))
    discard(root, -1)
    with served(root, old_routes=True) as there:
        answer = there.client.get("/api/volume-raw/e1/0")
    assert (answer.status_code, "was removed on" in answer.text) == (410, True)


def test_the_routes_are_there_only_where_they_are_asked_for(root: Path) -> None:
    run = record(root, lambda writer: plan(writer, "s", 1))
    with served(root) as there:
        assert there.client.get("/api/sessions").status_code == 404
    app = FastAPI()
    app.include_router(old_router(root, prefix="/old"))
    with serving(app) as url:
        assert httpx.get(f"{url}/old/sessions").json()["sessions"][0]["session_id"] == run.start["session"]
