"""OME-Zarr stores: what is the format's own, beside what the tests of the writer hold of every format.

Read back by zarr-python, dask and yaozarrs. Small volumes have several shards and levels here: two planes a shard.
"""

import json
import re
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import bluesky.plan_stubs as bps
import bluesky.plans as bp
import numpy as np
import pytest
import yaozarrs
import zarr
from bluesky import Msg
from bluesky.utils import FailedStatus
from numpy.typing import NDArray

from gently_bluesky import Catalog, FileWriter
from gently_bluesky.errors import DamagedVolumeError, DiskFullError, FrameError, VolumeMissingError
from gently_bluesky.keep.verify import verify
from gently_bluesky.read.run import Run
from gently_bluesky.store import memory, ome_zarr, pyramid, shards
from gently_bluesky.store.disk import create_file
from gently_bluesky.store.facts import EventFacts, Geometry
from gently_bluesky.store.ngff import DTYPES
from gently_bluesky.store.ome_zarr import SHARDS_IN_MEMORY, OmeZarrSeries, OmeZarrVolume
from gently_bluesky.store.shards import Grid
from gently_bluesky.store.zarr_pixels import ZarrPixels, examine, hold_pyramid, hold_store, pixel_hash
from gently_bluesky.write.recovery import recover
from tests.data_rig import (
    DEADLINE_S,
    Camera,
    Child,
    connected,
    facts,
    frame,
    journal,
    manifest,
    newest,
    of,
    record,
    run_folder,
    start_doc,
    taken,
    volume,
)
from tests.data_rig import pixel_hash as hash_of

Plan = Iterator[Msg]
SHAPE = (8, 40, 56)
VOXEL = (0.5, 0.25, 0.25)


@pytest.fixture(autouse=True)
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shards of two planes, chunks that do not fit the planes, and three levels."""
    monkeypatch.setattr(shards, "CHUNK", (2, 16, 32))
    monkeypatch.setattr(shards, "SHARD_BYTES", 1)
    monkeypatch.setattr(pyramid, "SMALLEST", 16)


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    """What compresses and stores."""
    with ThreadPoolExecutor(2) as pool:
        yield pool


@pytest.fixture
def series(tmp_path: Path) -> Callable[..., OmeZarrSeries]:
    """Makes a store for volumes of a shape and dtype."""

    def make(shape: Sequence[int] = SHAPE, dtype: str = "<u2", name: str = "a") -> OmeZarrSeries:
        (tmp_path / f"{name}.ome.zarr").mkdir()
        return OmeZarrSeries(tmp_path / f"{name}.ome.zarr", Geometry(tuple(shape), np.dtype(dtype)))

    return make


def put(volume: OmeZarrVolume, z: int, plane: NDArray[Any], pool: ThreadPoolExecutor) -> None:
    """Give one frame."""
    volume.write(z, np.ascontiguousarray(plane).reshape(-1).view(np.uint8).data, 100.0 + z, pool)


def stored(
    series: OmeZarrSeries,
    pixels: NDArray[Any],
    pool: ThreadPoolExecutor,
    index: int = 0,
    order: Sequence[int] | None = None,
    **metadata: Any,
) -> OmeZarrVolume:
    """Store a volume, its frames in any order."""
    new = series.create(index, facts(index=index, metadata={"voxel_size_um": VOXEL} | metadata))
    planes = pixels.reshape(-1, *pixels.shape[-2:])
    for z in range(len(planes)) if order is None else order:
        put(new, z, planes[z], pool)
    new.complete([100.0 + z for z in range(len(planes))], None, durable=True)
    new.close()
    return new


def level(store: Path, number: int) -> Any:
    """One level, through zarr-python: (event, z, y, x)."""
    return zarr.open_array(store / str(number), mode="r")


def ome(store: Path) -> dict[str, Any]:
    """The one image of a store, as its root says."""
    (image,) = json.loads((store / "zarr.json").read_bytes())["attributes"]["ome"]["multiscales"]
    return dict(image)


def noise(shape: Sequence[int], dtype: str = "<u2") -> NDArray[Any]:
    """Pixels that cannot be compressed."""
    count = int(np.prod(shape)) * np.dtype(dtype).itemsize
    return np.random.default_rng(7).integers(0, 256, count, "u1").view(dtype).reshape(tuple(shape))


# --- for other programs -------------------------------------------------------------------------------------


def test_a_store_is_valid_at_every_moment_from_its_first_volume_on(root: Path) -> None:
    with FileWriter(root, image_format="ome-zarr") as writer:
        writer("start", start_doc())
        resource = writer.open_resource("cam", shape=SHAPE, dtype="<u2", metadata={"voxel_size_um": VOXEL})
        (store,) = run_folder(root).glob("*.ome.zarr")
        for number in range(3):
            new = resource.new_volume()
            for z in range(SHAPE[0]):
                yaozarrs.validate_zarr_store(store)
                assert level(store, 0).shape == (number + 1, *SHAPE)
                new.write(z, frame(number, z, SHAPE[1:]))
            new.seal()
            yaozarrs.validate_zarr_store(store)
            writer.flush()
            yaozarrs.validate_zarr_store(store)
    assert [level(store, number).shape for number in range(3)] == [(3, 8, 40, 56), (3, 8, 20, 28), (3, 4, 10, 14)]
    np.testing.assert_array_equal(level(store, 0)[:], np.stack([volume(i, SHAPE) for i in range(3)]))


OTHERS = """
import sys
import dask.array, numpy, xxhash, yaozarrs, zarr
print("ready", flush=True)
for line in sys.stdin:
    store, event = line.rstrip("\\n"), None
    yaozarrs.validate_zarr_store(store)
    group = zarr.open_group(store, mode="r")
    lazy = dask.array.from_zarr(store + "/0")
    events = group["0"].shape[0]
    assert lazy.shape[0] == events
    pixels = group["0"][:]
    assert (pixels == numpy.asarray(lazy)).all(), "zarr-python and dask differ"
    print(events, xxhash.xxh3_128_hexdigest(pixels[-1].tobytes()), flush=True)
"""


def test_zarr_python_and_dask_read_it_from_another_process_while_it_grows(root: Path) -> None:
    with Child(OTHERS) as others, FileWriter(root, image_format="ome-zarr") as writer:
        assert others.line() == "ready"
        run_engine, _ = connected(writer)

        def plan() -> Plan:
            camera = Camera("cam", writer, shape=SHAPE)
            yield from bps.open_run()
            for number in range(4):
                yield from bps.trigger_and_read([camera])
                writer.flush()
                others.tell(str(run_folder(root) / "cam_image.ome.zarr"))
                assert others.line() == f"{number + 1} {hash_of(volume(number, SHAPE))}"
            yield from bps.close_run()

        run_engine(plan())


@pytest.mark.parametrize("kind", DTYPES)
@pytest.mark.parametrize("shape", [(20, 36), (5, 20, 36), (2, 3, 20, 36)], ids=str)
def test_every_shape_and_dtype_is_read_by_others(
    series: Callable[..., OmeZarrSeries], pool: ThreadPoolExecutor, shape: tuple[int, ...], kind: str
) -> None:
    one = series(shape, np.dtype(kind).newbyteorder("<").str)
    for number in range(2):
        stored(one, volume(number + 1, shape, kind), pool, number, voxel_size_um=VOXEL[-min(len(shape), 3) :])
    array = level(one.folder, 0)
    assert (array.shape, array.dtype) == ((2, *shape), np.dtype(kind))
    np.testing.assert_array_equal(array[:], np.stack([volume(number + 1, shape, kind) for number in range(2)]))
    assert (
        array.metadata.dimension_names
        == ("t", "frame", "z", "y", "x")[:1] + ("frame", "z", "y", "x")[-len(shape) :]
    )
    assert examine(one.folder, 1).geometry == one.geometry
    assert pixel_hash(one.folder, 1, partial=False) == hash_of(volume(2, shape, kind))
    yaozarrs.validate_zarr_store(one.folder)


def test_a_volume_is_appended_without_touching_those_before(
    series: Callable[..., OmeZarrSeries], pool: ThreadPoolExecutor
) -> None:
    def files() -> dict[Path, tuple[int, int]]:
        found = (path for path in one.folder.rglob("*") if path.is_file())
        return {path: (path.stat().st_ino, path.stat().st_mtime_ns) for path in found}

    one = series()
    stored(one, volume(0, SHAPE), pool)
    before = files()
    stored(one, volume(1, SHAPE), pool, 1)
    after = files()
    changed = {path.relative_to(one.folder).as_posix() for path in before if after[path] != before[path]}
    assert changed == {"0/zarr.json", "1/zarr.json", "2/zarr.json"}, "they say how many there are"
    added = {path.relative_to(one.folder).parts[:3] for path in after.keys() - before.keys()}
    assert added == {(number, "c", "1") for number in "012"} | {("events", "000001", "zarr.json")}


def test_its_names_are_safe_on_every_system(root: Path) -> None:
    run = record(root, lambda writer: bp.count([Camera("CON", writer, shape=SHAPE)]), image_format="ome-zarr")
    names = {part for path in run.folder.rglob("*") for part in path.relative_to(run.folder).parts}
    assert {name for name in names if not re.fullmatch(r"[A-Za-z0-9_.+-]+", name)} == set()
    assert {name for name in names if re.match(r"(?i)(con|prn|aux|nul|com\d|lpt\d)(\.|$)", name)} == set()


def test_a_store_whose_first_words_found_no_room_says_them_with_the_next_volume(
    series: Callable[..., OmeZarrSeries], pool: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, *_: object) -> None:
        raise DiskFullError(28, f"No room for {path.name}")

    one = series()
    with monkeypatch.context() as patched:
        patched.setattr(ome_zarr, "replace_file", full)
        with pytest.raises(DiskFullError):
            one.create(0, facts(metadata={"voxel_size_um": VOXEL}))
    stored(one, volume(1, SHAPE), pool, 1)
    yaozarrs.validate_zarr_store(one.folder)
    assert {axis.get("unit") for axis in ome(one.folder)["axes"]} == {None, "micrometer"}


# --- what it says -------------------------------------------------------------------------------------------


def test_voxel_sizes_are_on_each_dataset_and_larger_voxels_lie_further_in(
    series: Callable[..., OmeZarrSeries], pool: ThreadPoolExecutor
) -> None:
    """z is halved once y and x are as coarse. The middle of n voxels lies (n - 1) / 2 behind that of the first."""
    one = series()
    stored(one, volume(0, SHAPE), pool)
    image = ome(one.folder)
    assert image["name"] == "cam"
    assert image["axes"] == [
        {"name": "t", "type": "time"},
        *({"name": name, "type": "space", "unit": "micrometer"} for name in "zyx"),
    ]
    assert image["datasets"] == [
        {"path": "0", "coordinateTransformations": [{"type": "scale", "scale": [1.0, 0.5, 0.25, 0.25]}]},
        {
            "path": "1",
            "coordinateTransformations": [
                {"type": "scale", "scale": [1.0, 0.5, 0.5, 0.5]},
                {"type": "translation", "translation": [0.0, 0.0, 0.125, 0.125]},
            ],
        },
        {
            "path": "2",
            "coordinateTransformations": [
                {"type": "scale", "scale": [1.0, 1.0, 1.0, 1.0]},
                {"type": "translation", "translation": [0.0, 0.25, 0.375, 0.375]},
            ],
        },
    ]


@pytest.mark.parametrize(
    ("shape", "voxel", "scale"),
    [
        ((20, 36), (0.2, 0.3), [1.0, 0.2, 0.3]),
        ((2, 3, 20, 36), (0.5, 0.2, 0.3), [1.0, 1.0, 0.5, 0.2, 0.3]),
        ((5, 20, 36), (), [1.0, 1.0, 1.0, 1.0]),
        ((5, 20, 36), (0.2, 0.3), [1.0, 1.0, 1.0, 1.0]),
        ((5, 20, 36), (0.5, 0.2, float("nan")), [1.0, 1.0, 1.0, 1.0]),
        ((5, 20, 36), (0.5, 0.0, 0.2), [1.0, 1.0, 1.0, 1.0]),
    ],
    ids=str,
)
def test_a_scale_is_claimed_where_a_spacing_is_known_for_every_axis(
    series: Callable[..., OmeZarrSeries],
    pool: ThreadPoolExecutor,
    shape: tuple[int, ...],
    voxel: tuple[float, ...],
    scale: list[float],
) -> None:
    one = series(shape)
    stored(one, volume(0, shape), pool, voxel_size_um=voxel)
    image = ome(one.folder)
    assert image["datasets"][0]["coordinateTransformations"] == [{"type": "scale", "scale": scale}]
    known = [axis["name"] for axis in image["axes"] if axis.get("unit")]
    assert known == (["z", "y", "x"][-len(voxel) :] if scale[-1] == 0.3 else [])
    yaozarrs.validate_zarr_store(one.folder)


def test_of_a_voxel_size_that_changes_within_a_store_none_is_claimed_for_all(
    series: Callable[..., OmeZarrSeries], pool: ThreadPoolExecutor
) -> None:
    one, steps = series(), (0.5, 0.5, 1.5, 0.5)
    for number, step in enumerate(steps):
        assert [axis.get("unit") for axis in ome(one.folder)["axes"]][1:] == ["micrometer"] * 3 if number else True
        stored(one, volume(number, SHAPE), pool, number, voxel_size_um=(step, 0.25, 0.25))
        if number == 2:
            break
    image = ome(one.folder)
    assert all("unit" not in axis for axis in image["axes"])
    assert [each["coordinateTransformations"][0]["scale"] for each in image["datasets"]] == [
        [1.0, 1.0, 1.0, 1.0], [1.0, 1.0, 2.0, 2.0], [1.0, 2.0, 4.0, 4.0],
    ]  # fmt: skip
    assert [examine(one.folder, number).voxel_size_um[0] for number in range(3)] == [0.5, 0.5, 1.5]
    yaozarrs.validate_zarr_store(one.folder)


def test_an_event_s_scalars_and_frame_times_are_in_its_metadata(root: Path) -> None:
    def plan(writer: FileWriter) -> Plan:
        camera = Camera("cam", writer, shape=SHAPE, embryo="e1", x_um=0.0)
        return taken(camera, {"x_um": 1.5}, {"x_um": 2.5})

    run = record(root, plan, image_format="ome-zarr")
    events = of(journal(run.folder), "event")
    for number, event in enumerate(events):
        group = zarr.open_group(run.folder / "cam_image.ome.zarr" / "events" / f"{number:06d}", mode="r")
        said: Any = group.attrs["gently_bluesky"]
        assert said["run_uid"] == run.uid
        assert said["event"]["uid"] == event["uid"]
        assert said["event"]["seq_num"] == number + 1
        assert said["event"]["scalars"]["x_um"] == 1.5 + number
        assert said["event"]["scalars"]["embryo"] == "e1"
        assert said["frame_times"] == [1_800_000_000.0 + number + z / 100 for z in range(SHAPE[0])]
        assert said["metadata"]["channel"] == "cam channel"


# --- its pyramid --------------------------------------------------------------------------------------------


def mean(pixels: NDArray[Any], step: Sequence[int]) -> NDArray[Any]:
    """Means over blocks, as numpy alone makes them; edges are continued, integers rounded half up."""
    padded = np.pad(pixels, [(0, -size % by) for size, by in zip(pixels.shape, step, strict=True)], mode="edge")
    split = [part for size, by in zip(padded.shape, step, strict=True) for part in (size // by, by)]
    blocks: NDArray[Any] = padded.reshape(split).mean((1, 3, 5), dtype="f8")
    return (np.floor(blocks + 0.5) if pixels.dtype.kind in "ui" else blocks).astype(pixels.dtype)


@pytest.mark.parametrize("dtype", ["<u2", "u1", "i1", "<i2", "<u4", "<i4", "<f2", "<f4", "<f8"])
@pytest.mark.parametrize("shape", [(8, 40, 56), (7, 37, 51), (1, 33, 18)], ids=str)
def test_every_level_is_the_mean_of_the_one_before(
    series: Callable[..., OmeZarrSeries], pool: ThreadPoolExecutor, shape: tuple[int, ...], dtype: str
) -> None:
    one = series(shape, dtype)
    low, high = (-6e4, 6e4) if np.dtype(dtype).kind == "f" else (np.iinfo(dtype).min, np.iinfo(dtype).max)
    pixels = np.random.default_rng(3).uniform(low, high, shape).astype(dtype)
    pixels[0, :3, :5] = high
    stored(one, pixels, pool)
    found = [level(one.folder, number)[0] for number in range(len(one.levels))]
    assert len(found) == 3
    np.testing.assert_array_equal(found[0], pixels)
    for number in (1, 2):
        step = pyramid.step_between(one.levels[number - 1], one.levels[number])
        expected = mean(found[number - 1], step)
        if pixels.dtype.kind in "ui":
            np.testing.assert_array_equal(found[number], expected)
        else:
            digits = float(np.finfo(dtype).eps) * 8 * 6e4
            np.testing.assert_allclose(found[number], expected, rtol=0, atol=digits)


def test_what_is_no_number_is_none_in_every_level_and_nobody_is_warned(
    series: Callable[..., OmeZarrSeries], pool: ThreadPoolExecutor
) -> None:
    pixels = volume(1, SHAPE, "<f4")
    pixels[0, 0, :4] = np.nan, np.inf, -np.inf, np.inf
    one = series(dtype="<f4")
    stored(one, pixels, pool)
    assert np.isnan(level(one.folder, 1)[0, 0, 0, :2]).all()
    assert np.isfinite(level(one.folder, 1)[0, 0, 0, 2:]).all()


# --- frames -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "order",
    [
        range(16),
        range(15, -1, -1),
        [0, 2, 4, 6, 1, 3, 5, 7, 8, 10, 12, 14, 9, 11, 13, 15],
        [7, 0, 2, 4, 6, 1, 3, 5, 8, 9, 15, 10, 11, 12, 13, 14],
    ],
    ids=["in order", "reversed", "by fours", "mixed"],
)
def test_frames_out_of_order_within_four_shards_are_in_order(
    series: Callable[..., OmeZarrSeries], pool: ThreadPoolExecutor, order: Sequence[int]
) -> None:
    one, pixels = series((16, 20, 36)), volume(3, (16, 20, 36))
    stored(one, pixels, pool, order=order)
    np.testing.assert_array_equal(level(one.folder, 0)[0], pixels)
    np.testing.assert_array_equal(level(one.folder, 1)[0], mean(pixels, (1, 2, 2)))


def test_a_frame_beyond_four_shards_that_are_not_full_is_an_error_at_that_frame(root: Path) -> None:
    with FileWriter(root, image_format="ome-zarr") as writer:
        writer("start", start_doc())
        new = writer.open_resource("cam", shape=(16, 20, 36), dtype="<u2").new_volume()
        for z in (0, 2, 4, 6):
            new.write(z, frame(0, z, (20, 36)))
        said = r"Frame 8 of event 0 in .*cam\.ome\.zarr would be kept beside 4 shards.*A shard has 2 planes"
        with pytest.raises(FrameError, match=said):
            new.write(8, frame(0, 8, (20, 36)))
        for z in (1, 8, *range(3, 8, 2), *range(9, 16)):  # it has room again
            new.write(z, frame(0, z, (20, 36)))
        new.seal()
        writer.flush()
    (entry,) = manifest(run_folder(root))
    assert entry["xxh3_128"] == hash_of(volume(0, (16, 20, 36)))


def test_shards_that_are_taken_far_apart_do_not_fill_the_memory_with_their_pyramid(
    series: Callable[..., OmeZarrSeries], pool: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Grid, "of", classmethod(uneven))
    one = series((64, 32, 32))
    new = one.create(0, facts(metadata={"voxel_size_um": VOXEL}))

    def acquire() -> None:
        for z in range(0, 64, 4):
            for each in (z, z + 1):
                put(new, each, frame(0, each, (32, 32)), pool)

    with pytest.raises(FrameError, match="frames come too far out of order"):
        acquire()
    assert max(map(len, new._filling[1:])) <= 2 * SHARDS_IN_MEMORY + SHARDS_IN_MEMORY
    new.close()


def uneven(kind: type[Grid], planes: int, plane_shape: tuple[int, int], dtype: np.dtype[Any]) -> Grid:
    """Shards of two planes of the first level, of four of the others, as large planes have them."""
    return kind(planes, plane_shape, dtype, (2, 16, 16), 2 if max(plane_shape) > 16 else 4)


def test_no_more_than_four_shards_of_a_volume_are_in_memory_however_slow_the_disk_is(
    series: Callable[..., OmeZarrSeries], pool: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The fifth waits for the disk; the memory is used again for every volume that follows."""
    disk, live, most, made = threading.Event(), 0, 0, dict[int, Any]()
    take, gives_back, lock = memory.take, memory.give_back, threading.Lock()

    def taking(shape: tuple[int, ...], dtype: Any) -> NDArray[Any]:
        nonlocal live, most
        block = take(shape, dtype)
        with lock:
            if shape[-2:] != (20, 36):  # of a smaller level
                return block
            made[id(block.base)] = block.base
            live, most = live + 1, max(most, live + 1)
        return block

    def giving_back(block: NDArray[Any]) -> None:
        nonlocal live
        with lock:
            live -= block.shape[-2:] == (20, 36)
        gives_back(block)

    def slow(*arguments: Any) -> None:
        assert disk.wait(DEADLINE_S)
        create_file(*arguments)

    monkeypatch.setattr(memory, "_idle", [])
    monkeypatch.setattr(memory, "take", taking)
    monkeypatch.setattr(memory, "give_back", giving_back)
    monkeypatch.setattr(ome_zarr, "create_file", slow)
    one, came = series((32, 20, 36)), []

    def acquire() -> None:
        new = one.create(0, facts())
        for z in range(32):
            put(new, z, frame(0, z, (20, 36)), pool)
            came.append(z)
        new.complete([1.0] * 32, None, durable=True)

    thread = threading.Thread(target=acquire)
    thread.start()
    until = time.monotonic() + DEADLINE_S
    while len(came) < 2 * SHARDS_IN_MEMORY:
        assert time.monotonic() < until
    assert live == SHARDS_IN_MEMORY
    disk.set()
    thread.join(DEADLINE_S)
    stored(one, volume(1, (32, 20, 36)), pool, 1)
    assert (live, most, len(made)) == (0, SHARDS_IN_MEMORY, SHARDS_IN_MEMORY)
    np.testing.assert_array_equal(level(one.folder, 0)[:], [volume(0, (32, 20, 36)), volume(1, (32, 20, 36))])


def test_an_error_of_the_disk_is_raised_at_a_frame_and_not_at_the_end(
    series: Callable[..., OmeZarrSeries], pool: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    def scratched(*_: object) -> None:
        raise OSError(5, "the platter is scratched")

    monkeypatch.setattr(ome_zarr, "create_file", scratched)
    one = series((32, 20, 36))
    new, came = one.create(0, facts()), []

    def acquire() -> None:
        for z in range(32):
            put(new, z, frame(0, z, (20, 36)), pool)
            came.append(z)

    with pytest.raises(OSError, match="scratched"):
        acquire()
    assert len(came) <= 2 * SHARDS_IN_MEMORY
    new.close()
    assert not list(one.folder.glob(".*"))


@pytest.mark.parametrize("shape", [(8, 40, 56), (7, 33, 65), (1, 17, 100), (3, 7, 17, 33)], ids=str)
def test_what_cannot_be_compressed_finds_room_in_what_was_reserved(
    series: Callable[..., OmeZarrSeries], pool: ThreadPoolExecutor, shape: tuple[int, ...]
) -> None:
    one, claimed = series(shape), []
    new = one.create(0, facts(), lambda path, nbytes: claimed.append(nbytes))
    for z, plane in enumerate(noise(shape).reshape(-1, *shape[-2:])):
        put(new, z, plane, pool)
    new.complete([1.0] * one.geometry.planes, None, durable=True)
    taken = sum(-(-path.stat().st_size // 4096) * 4096 for path in one.folder.rglob("*/*"))
    assert noise(shape).nbytes < taken <= claimed[0]


# --- volumes that came in part ------------------------------------------------------------------------------


def test_an_interrupted_volume_keeps_its_whole_shards(root: Path) -> None:
    """Single frames, as in OME-TIFF, are not kept: a frame is on disk when its shard is full."""
    with FileWriter(root, image_format="ome-zarr") as writer:
        writer("start", start_doc(uid="run"))
        new = writer.open_resource("cam", shape=SHAPE, dtype="<u2").new_volume()
        for z in (0, 1, 2, 4, 5):
            new.write(z, frame(0, z, SHAPE[1:]))
    (done,) = recover(root)
    assert "cam.ome.zarr/events/000000 holds 4 of 8 frames" in str(done)
    store = run_folder(root) / "cam.ome.zarr"
    assert [time != 0 for time in examine(store, 0).times or ()] == [
        True,
        True,
        False,
        False,
        True,
        True,
        False,
        False,
    ]
    (entry,) = manifest(run_folder(root))
    left = volume(0, SHAPE)
    left[[2, 3, 6, 7]] = 0
    np.testing.assert_array_equal(level(store, 0)[0], left)
    assert (entry["state"], entry["xxh3_128"]) == ("aborted", hash_of(left))
    assert verify(root).errors == ()


def test_a_volume_that_was_given_up_keeps_every_frame_also_of_a_shard_that_was_not_full(root: Path) -> None:
    def stop(volume: Any) -> None:
        raise RuntimeError("the camera stopped")

    with FileWriter(root, image_format="ome-zarr") as writer:
        run_engine, _ = connected(writer)
        camera = Camera("cam", writer, shape=SHAPE)

        def plan() -> Plan:
            yield from bps.open_run()
            yield from bps.trigger_and_read([camera])
            camera.order, camera.before_seal = range(5), stop
            yield from bps.trigger_and_read([camera])

        with pytest.raises(FailedStatus):
            run_engine(plan())
    store = newest(root).folder / "cam_image.ome.zarr"
    assert np.flatnonzero(np.array(examine(store, 1).times)).tolist() == [0, 1, 2, 3, 4]
    np.testing.assert_array_equal(level(store, 0)[1, :5], volume(1, SHAPE)[:5])
    assert not level(store, 0)[1, 5:].any()
    np.testing.assert_array_equal(level(store, 0)[0], volume(0, SHAPE))
    assert verify(root).errors == ()


def test_frames_of_a_volume_that_is_acquired_are_seen_by_others_when_their_shard_is_full(root: Path) -> None:
    with FileWriter(root, image_format="ome-zarr") as writer:
        writer("start", start_doc())
        resource = writer.open_resource("cam", shape=SHAPE, dtype="<u2")
        new = resource.new_volume()
        for z in range(3):
            new.write(z, frame(0, z, SHAPE[1:]))
        resource.new_volume()
        store = run_folder(root) / "cam.ome.zarr"
        until = time.monotonic() + DEADLINE_S
        while not list(store.glob("0/c/0/*/0/0")):
            assert time.monotonic() < until
        np.testing.assert_array_equal(level(store, 0)[0, :2], volume(0, SHAPE)[:2])
        assert not level(store, 0)[0, 2:].any()


# --- damage -------------------------------------------------------------------------------------------------


@pytest.fixture
def run(root: Path) -> Run:
    """Two events, three levels, a few shards each."""
    return record(
        root, lambda writer: bp.count([Camera("cam", writer, shape=(4, 20, 36))], 2), image_format="ome-zarr"
    )


def flipped(content: bytes, place: int) -> bytes:
    return content[:place] + bytes([content[place] ^ 1 << place % 8]) + content[place + 1 :]


def kinds(root: Path) -> list[tuple[str, str]]:
    return [(finding.severity, finding.kind) for finding in verify(root, afresh=True).findings]


def test_a_bit_that_flipped_in_any_byte_of_its_metadata_is_found(run: Run) -> None:
    store, (entry, _) = run.folder / "cam_image.ome.zarr", manifest(run.folder)
    files = [path for path in store.rglob("zarr.json") if "000001" not in path.parts]
    assert len(files) == 1 + 2 + 3
    for path in files:
        content = path.read_bytes()
        for place in range(len(content)):
            path.write_bytes(flipped(content, place))
            with pytest.raises(ValueError, match=r"cam_image\.ome\.zarr"):
                hold_whole(store, entry["resource"])
        path.write_bytes(content)
    hold_whole(store, entry["resource"])


def hold_whole(store: Path, resource: str) -> None:
    examine(store, 0)
    hold_store(store, 0, resource)


def test_a_bit_that_flipped_in_any_byte_of_any_shard_is_found(run: Run) -> None:
    """Of the whole volume when it is read or verified; of the smaller levels when it is verified."""
    store = run.folder / "cam_image.ome.zarr"
    files = sorted(store.glob("*/c/0/**/0"))
    files = [path for path in files if path.is_file()]
    assert len(files) == 2 + 2 + 1
    for path in files:
        content = path.read_bytes()
        for place in range(0, len(content), 5):
            path.write_bytes(flipped(content, place))
            with pytest.raises(DamagedVolumeError, match=re.escape(str(path))):
                hold_pixels(store)
        path.write_bytes(content)


def hold_pixels(store: Path) -> None:
    pixel_hash(store, 0, partial=False)
    hold_pyramid(store, 0, partial=False)


def test_verify_names_what_is_wrong_with_a_store(run: Run, root: Path) -> None:
    store = run.folder / "cam_image.ome.zarr"
    assert kinds(root) == []
    harms: dict[str, list[tuple[str, str]]] = {
        "zarr.json": [("error", "head")] * 2,
        "events/zarr.json": [("error", "head")] * 2,
        "events/000001/zarr.json": [("error", "head")],
        "1/zarr.json": [("error", "pyramid")] * 2,
        "0/c/1/0/0/0": [("error", "changed")],
        "1/c/1/0/0/0": [("error", "pyramid")],
    }
    for name, expected in harms.items():
        content = (store / name).read_bytes()
        (store / name).write_bytes(flipped(content, len(content) // 2))
        assert set(kinds(root)) >= set(expected), name
        assert {kind for _, kind in kinds(root)} <= {"head", "pyramid", "changed"}
        (store / name).unlink()
        missing = {("error", "missing")} if name.startswith("0/") else {("error", "head"), ("error", "pyramid")}
        assert set(kinds(root)) & missing, f"{name} is not there"
        (store / name).write_bytes(content)
    assert kinds(root) == []


@pytest.mark.parametrize("level", [0, 1, 2])
def test_verify_finds_shards_that_changed_places(run: Run, root: Path, level: int) -> None:
    one, two = (run.folder / "cam_image.ome.zarr" / str(level) / "c" / str(event) / "0/0/0" for event in (0, 1))
    first, second = one.read_bytes(), two.read_bytes()
    one.write_bytes(second)
    two.write_bytes(first)
    assert len(found := kinds(root)) == 2
    assert set(found) <= {("error", kind) for kind in (["pyramid"] if level else ["changed", "grown", "short"])}


def test_metadata_of_a_level_in_another_place_are_found(run: Run, root: Path) -> None:
    store = run.folder / "cam_image.ome.zarr"
    (store / "events" / "zarr.json").write_bytes((store / "0" / "zarr.json").read_bytes())
    assert set(kinds(root)) == {("error", "head")}


def test_a_shard_of_other_pixels_is_never_decoded(root: Path) -> None:
    """Its chunks are whole, and as many, and hold half the bytes."""
    run = record(
        root,
        lambda writer: bp.count(
            [Camera("bytes", writer, shape=SHAPE, dtype="u1"), Camera("words", writer, shape=SHAPE)]
        ),
        image_format="ome-zarr",
    )
    theirs, ours = (run.folder / f"{name}_image.ome.zarr" / "0/c/0/0/0/0" for name in ("bytes", "words"))
    ours.write_bytes(theirs.read_bytes())
    with pytest.raises(VolumeMissingError, match=r"another shard: chunk \(0, 0, 0\) holds 1024 bytes of 2048"):
        Catalog(root)[-1]["primary"]["words_image"].volume(0)


def test_a_store_that_was_cut_short_is_a_clear_error(run: Run, root: Path) -> None:
    store = run.folder / "cam_image.ome.zarr"
    shard = store / "0" / "c" / "1" / "1" / "0" / "0"
    content = shard.read_bytes()
    for size in (0, 10, len(content) // 2, len(content) - 1):
        shard.write_bytes(content[:size])
        with pytest.raises(VolumeMissingError, match=rf"{shard} (was cut short|is damaged)"):
            Catalog(root)[-1]["primary"]["cam_image"].volume(1)
        assert kinds(root) == [("error", "short")]
    np.testing.assert_array_equal(Catalog(root)[-1]["primary"]["cam_image"][1, :2], volume(1, (4, 20, 36))[:2])
    shard.unlink()
    with pytest.raises(VolumeMissingError, match=rf"Volume 1 of 'cam_image' of run .*{shard} is not there"):
        Catalog(root)[-1]["primary"]["cam_image"][1, 0]
    np.testing.assert_array_equal(Catalog(root)[-1]["primary"]["cam_image"].volume(0), volume(0, (4, 20, 36)))


def test_metadata_of_others_are_a_clear_error(run: Run, root: Path, tmp_path: Path) -> None:
    store = run.folder / "cam_image.ome.zarr"
    said, (here, _) = Catalog(root)[-1], manifest(run.folder)
    theirs = zarr.create_array(tmp_path / "theirs", shape=(2, 4, 20, 36), chunks=(1, 2, 20, 36), dtype="u2")
    assert theirs.shape == (2, 4, 20, 36)
    ours = (store / "0" / "zarr.json").read_bytes()
    (store / "0" / "zarr.json").write_bytes((tmp_path / "theirs" / "zarr.json").read_bytes())
    with pytest.raises(DamagedVolumeError, match=r"0/zarr\.json was not written here, or is damaged"):
        said["primary"]["cam_image"].volume(0)
    assert set(kinds(root)) == {("error", "changed")}
    (store / "0" / "zarr.json").write_bytes(ours)
    other = record(tmp_path / "other", lambda writer: bp.count([Camera("cam", writer)]), image_format="ome-zarr")
    for name in ("zarr.json", "events/000001/zarr.json"):
        mine, another = (store / name).read_bytes(), other.folder / "cam_image.ome.zarr" / name.replace("1", "0")
        (store / name).write_bytes(another.read_bytes())
        assert set(kinds(root)) == {("error", "head")}, name
        (store / name).write_bytes(mine)
    with pytest.raises(ValueError, match="it says that it holds stream resource"):
        hold_store(other.folder / "cam_image.ome.zarr", 0, here["resource"])
    with pytest.raises(VolumeMissingError, match=r"holds 2 events; there is no event 2"):
        ZarrPixels(store, 2)


def test_what_lies_in_a_store_and_is_no_part_of_it_is_a_stranger(run: Run, root: Path) -> None:
    store = run.folder / "cam_image.ome.zarr"
    (store / ".000007.room.new").touch()
    (store / "labels" / "cells").mkdir(parents=True)
    (store / "labels" / "cells" / "zarr.json").write_bytes(b"{}")
    (store / "0" / "c" / "7").mkdir()
    (store / "events" / "000007").mkdir()
    (store / "1" / "notes.txt").touch()
    found = {finding.where for finding in verify(root).findings if finding.kind == "stranger"}
    names = (".000007.room.new", "labels", "0/c/7", "events/000007", "1/notes.txt")
    assert found == {f"cam_image.ome.zarr/{name}" for name in names}


def test_what_it_says_of_an_event_is_complete_after_the_writer_has_forgotten_it(
    series: Callable[..., OmeZarrSeries], pool: ThreadPoolExecutor
) -> None:
    """The event comes after its volume was closed; what is said already is not written again."""
    one = series()
    new = stored(one, volume(0, SHAPE), pool)
    path = one.folder / "events" / "000000" / "zarr.json"
    before = path.stat().st_ino
    new.complete([100.0 + z for z in range(SHAPE[0])], None, durable=True)
    assert path.stat().st_ino == before
    new.complete([100.0 + z for z in range(SHAPE[0])], EventFacts("e", 1, 2.0, {"x": 1}), durable=True)
    assert json.loads(path.read_bytes())["attributes"]["gently_bluesky"]["event"]["scalars"] == {"x": 1}
    assert not list(one.folder.glob(".*"))


# --- memory that is used again ------------------------------------------------------------------------------


def test_memory_that_was_given_back_is_used_again_and_only_so_much_of_it_waits(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(memory, "_idle", [])
    monkeypatch.setattr(memory, "IDLE_BYTES", 3000)
    one, other = memory.take((4, 10, 10), "<u2"), memory.take((4, 10, 10), "<u2")
    assert not np.shares_memory(one, other)
    memory.give_back(one[:3])
    again = memory.take((8, 10, 10), "u1")
    assert np.shares_memory(one, again)
    assert not np.shares_memory(one, memory.take((4, 10, 10), "<u2"))
    for number in range(5):
        memory.give_back(memory.take((900 + number,), "u1"))
    assert [each.nbytes for each in memory._idle] == [902, 903, 904]
