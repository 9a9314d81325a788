"""OME-Zarr over HTTP, read by zarr-python, obstore and yaozarrs: every stored form, and what is still growing."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import bluesky.plan_stubs as bps
import numpy as np
import obstore.store
import pytest
import zarr
from numpy.typing import NDArray
from yaozarrs import validate_ome_object
from yaozarrs.v05 import Image
from zarr.storage import ObjectStore

from gently_bluesky import Catalog, FileWriter
from gently_bluesky.keep.convert import convert_run
from gently_bluesky.keep.discard import discard, restore
from gently_bluesky.store.zarr_pixels import ZarrPixels
from tests.conftest import OF_TIFF
from tests.data_rig import Camera, connected, record, volume
from tests.serve_rig import API, KEY, SHAPE, Served, recorded, series, served


def store(server: Served, run: Any) -> str:
    """The address that a Zarr client is given."""
    return f"{server.url}{API}{series(run)}/zarr"


def levels(server: Served, run: Any) -> list[Any]:
    """The levels, as zarr-python finds them in the metadata."""
    group = zarr.open_group(store(server, run), mode="r")
    ome: Any = group.attrs["ome"]
    return [group[dataset["path"]] for dataset in ome["multiscales"][0]["datasets"]]


def test_zarr_python_reads_every_stored_form(tmp_path: Path, every_format: str) -> None:
    root = tmp_path / "root"
    run = recorded(root, 3)
    with served(root) as server:
        array = levels(server, run)[0]
        assert array.shape == (3, *SHAPE)
        assert array.dtype == np.uint16
        for number in (0, 2):
            np.testing.assert_array_equal(array[number], volume(number, SHAPE))
        np.testing.assert_array_equal(array[2, 3, 4:9, ::5], volume(2, SHAPE)[3, 4:9, ::5])


def test_another_client_reads_it_with_ranges(tmp_path: Path, every_format: str) -> None:
    """obstore's HTTP store, of Rust, asks by HEAD and with ranges."""
    root = tmp_path / "root"
    run = recorded(root, 1)
    with served(root) as server:
        name = levels(server, run)[0].path
        remote = obstore.store.HTTPStore(store(server, run), client_options={"allow_http": True})
        array = zarr.open_array(ObjectStore(remote, read_only=True), path=name, mode="r")
        np.testing.assert_array_equal(np.asarray(array)[0], volume(0, SHAPE))


def test_the_metadata_are_valid_and_say_where_it_belongs(tmp_path: Path, every_format: str) -> None:
    root = tmp_path / "root"
    run = recorded(root, 1, shape=(4, 600, 16))
    with served(root) as server:
        said = server.json(f"{series(run)}/zarr/zarr.json")
        validate_ome_object(said["attributes"]["ome"], Image)
        assert said["attributes"]["gently_bluesky"] == {"run_uid": run.uid, "stream": "primary", "data_key": KEY}
        scale = said["attributes"]["ome"]["multiscales"][0]["datasets"][0]["coordinateTransformations"][0]["scale"]
        assert scale == [1.0, 0.5, 0.25, 0.25]


@pytest.mark.parametrize(
    ("shape", "dtype"), [((6, 700, 530), "<u2"), ((5, 520, 9), ">f4"), ((600, 20), "<i2"), ((2, 3, 300, 8), "|u1")]
)
def test_a_pyramid_out_of_a_map_is_the_one_that_a_store_has(
    tmp_path: Path, shape: tuple[int, ...], dtype: str
) -> None:
    """Every level of a TIFF, averaged when it is asked for, has the pixels of the level that OME-Zarr stores."""
    root = tmp_path / "root"

    def plan(writer: FileWriter) -> Iterator[Any]:
        camera = Camera("cam", writer, shape=shape, dtype=np.dtype(dtype).newbyteorder("<"))
        yield from bps.open_run()
        yield from bps.trigger_and_read([camera])
        yield from bps.close_run()

    run = record(root, plan)
    with served(root) as server:
        made = [np.asarray(level[...]) for level in levels(server, run)]
        convert_run(root, run.folder.relative_to(root).as_posix(), "ome-zarr")
        run = Catalog(root)[-1]
        (path,) = run.folder.glob("*.ome.zarr")
        assert len(made) == len(list(path.glob("[0-9]*"))) > 1
        for number, level in enumerate(made):
            np.testing.assert_array_equal(level[0], ZarrPixels(path, 0, level=number)[...])


# --- what is no volume to be read ---------------------------------------------------------------------------


def test_what_is_not_good_is_an_error_and_never_zeros(tmp_path: Path, every_format: str) -> None:
    root = tmp_path / "root"
    run = recorded(root, 3)
    with served(root) as server:
        array = levels(server, run)[0]
        with pytest.raises(Exception, match="409"):
            array[1]
        answer = server.get(f"{series(run)}/zarr/{array.path}/c/1/0/0/0")
        assert (answer.status_code, "include_bad" in answer.json()["detail"]) == (409, True)


def test_what_was_removed_is_gone_and_comes_back(tmp_path: Path, every_format: str) -> None:
    """Also for a client that had opened it before: an error with the reason, not the fill value."""
    root = tmp_path / "root"
    run = recorded(root, 3)
    with served(root) as server:
        array = levels(server, run)[0]
        before = array[0]
        discard(root, run.uid)
        with pytest.raises(Exception, match="410"):
            array[0]
        answer = server.get(f"{series(run)}/zarr/{array.path}/c/0/0/0/0")
        assert answer.status_code == 410
        restore(root, run.uid)
        np.testing.assert_array_equal(levels(server, run)[0][0], before)


@OF_TIFF
@pytest.mark.usefixtures("every_format")
def test_a_client_that_opened_another_form_hears_that_it_is_gone(tmp_path: Path) -> None:
    """Planes of a TIFF are no shards: when only OME-Zarr is left, a store that was opened before is an error."""
    root = tmp_path / "root"
    run = recorded(root, 1)
    with served(root) as server:
        planes = levels(server, run)[0]
        convert_run(root, run.folder.relative_to(root).as_posix(), "ome-zarr")
        np.testing.assert_array_equal(planes[0], volume(0, SHAPE))
        manifest = run.folder / "manifest.jsonl"
        lines = [line for line in manifest.read_bytes().splitlines(keepends=True) if b"ome-tiff" not in line]
        manifest.write_bytes(b"".join(lines))
        with pytest.raises(Exception, match="410"):
            planes[0]
        np.testing.assert_array_equal(levels(server, run)[0][0], volume(0, SHAPE))


NO_PART = (
    "", "zarr.json/", "0", "9/zarr.json", "0/c/0", "0/c/0/99/0/0", "0/c/9/0/0/0", "0/c/0/0/1/0", "0/c/-1/0/0/0",
    "0/c/0/0/0/0/0", "0/c/0/0/0/0/0/0", ".zarray", ".zgroup", "0/.zarray", "..%2f..%2fgently.json",
    "0/c/0/0/%30%0a/0", "0/c/\u0660/0/0/0", "%00", "journal.jsonl", "0/c/00000000000/0/0/0", "s0/zarr.json",
)  # fmt: skip


def test_what_is_no_part_of_a_store_is_not_there(tmp_path: Path) -> None:
    root = tmp_path / "root"
    recorded(root, 1)
    with served(root) as server:
        for path in NO_PART:
            answer = server.get(f"{series('-1')}/zarr/{path}")
            assert (path, answer.status_code in {404, 410}) == (path, True)


def test_a_range_is_a_range(tmp_path: Path) -> None:
    root = tmp_path / "root"
    run = recorded(root, 1)
    plane = volume(0, SHAPE)[2].tobytes()
    with served(root) as server:
        for asked, status, wanted in (
            ("bytes=0-9", 206, plane[:10]),
            ("bytes=10-", 206, plane[10:]),
            ("bytes=-7", 206, plane[-7:]),
            (f"bytes=5-{10**17}", 206, plane[5:]),
            ("bytes=-999999", 206, plane),
            ("bytes=999999-", 416, b""),
            ("bytes=9-3", 416, b""),
            ("bytes=-0", 416, b""),
            ("bytes=-", 200, plane),
            ("bytes=0-1,5-9", 200, plane),
            ("planes=0-1", 200, plane),
        ):
            answer = server.get(f"{series(run)}/zarr/0/c/0/2/0/0", headers={"range": asked})
            assert (asked, answer.status_code, answer.content) == (asked, status, wanted)


# --- what is still growing ----------------------------------------------------------------------------------


def acquire(root: Path, look: Callable[[str, int, int], None], events: int = 3, **options: Any) -> None:
    """Take volumes plane by plane, and let somebody look after every frame and event: what came, and how far."""
    with FileWriter(root, **options) as writer:
        run_engine, _ = connected(writer)
        camera = Camera("cam", writer, shape=SHAPE)
        camera.before_seal = lambda _: look("frame", camera.taken - 1, SHAPE[0])

        def order() -> Iterator[int]:
            for z in range(SHAPE[0]):
                look("frame", camera.taken, z)
                yield z

        def plan() -> Iterator[Any]:
            yield from bps.open_run()
            for event in range(events):
                camera.order = order()  # type: ignore[assignment]
                yield from bps.trigger_and_read([camera])
                writer._backlog.drain()
                look("event", event, 0)
            yield from bps.close_run()

        run_engine(plan())


def test_a_store_grows_frame_by_frame_while_it_is_acquired(tmp_path: Path, every_format: str) -> None:
    """At every moment zarr-python reads all events, and of the newest volume the frames that have come."""
    root = tmp_path / "root"
    FileWriter(root).close()
    seen: list[tuple[str, int, int]] = []

    with served(root) as server:

        def look(what: str, event: int, z: int) -> None:
            if what == "frame" and event == 0:
                return  # the descriptor comes with the first event
            array = levels(server, "-1")[0]
            assert array.shape[0] == event + 1
            for number in range(event if what == "frame" else event + 1):
                np.testing.assert_array_equal(array[number], volume(number, SHAPE))
            if what == "frame":
                pixels: NDArray[Any] = array[event]
                whole = volume(event, SHAPE)
                if every_format == "ome-tiff":
                    np.testing.assert_array_equal(pixels[:z], whole[:z])
                    assert not pixels[z:].any()
                else:  # shards come whole
                    assert not pixels.any() or np.array_equal(pixels, whole)
            seen.append((what, event, z))

        acquire(root, look, image_format=every_format)
    assert len(seen) == 3 + 2 * (SHAPE[0] + 1)


@OF_TIFF
@pytest.mark.usefixtures("every_format")
def test_a_growing_volume_has_an_address_from_its_first_frame_on(tmp_path: Path) -> None:
    """Frames that have come are served, those that have not are too early: 425."""
    root = tmp_path / "root"
    FileWriter(root).close()
    statuses = []

    with served(root) as server:

        def look(what: str, event: int, z: int) -> None:
            if what != "frame":
                return
            (growing,) = server.json("/runs/-1")["growing"]
            assert (growing["frames_there"], growing["index"]) == (z, event)
            at = f"/runs/-1/volumes/{growing['resource']}/{growing['index']}"
            said = server.json(at)
            assert (said["state"], sum(said["frames_there"])) == ("growing", z)
            if z:
                got = server.pixels(f"{at}/pixels", slice=f":{z}")
                np.testing.assert_array_equal(got, volume(event, SHAPE)[:z])
            if z < SHAPE[0]:
                early = server.get(f"{at}/pixels", params={"slice": str(z)})
                assert early.headers["retry-after"]
                statuses.append(early.status_code)

        acquire(root, look, 2)
    assert statuses == [425] * 2 * SHAPE[0]


def test_metadata_say_json(tmp_path: Path) -> None:
    root = tmp_path / "root"
    run = recorded(root, 1)
    with served(root) as server:
        answer = server.get(f"{series(run)}/zarr/0/zarr.json", headers={"accept-encoding": "identity"})
        assert answer.headers["content-type"] == "application/json"
        assert json.loads(answer.content)["shape"] == [1, *SHAPE]
        known = server.get(f"{series(run)}/zarr/0/zarr.json", headers={"if-none-match": answer.headers["etag"]})
        assert (known.status_code, known.content) == (304, b"")
