"""Nothing is in the journal whose pixels are not on disk: the order of what is made durable."""

import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import bluesky.plan_stubs as bps
import bluesky.plans as bp
import numpy as np
import pytest
from bluesky import Msg

from gently_bluesky import FileWriter
from gently_bluesky.store import disk
from gently_bluesky.write.recovery import recover
from tests.conftest import OF_TIFF
from tests.data_rig import Camera, connected, inline, journal, newest, of, pixel_file, run_folder, volume

pytestmark = pytest.mark.usefixtures("every_format")

Plan = Iterator[Msg]


class Trail:
    """What was written and made durable, in order, by the name of the file."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.steps: list[tuple[str, str]] = []
        self._lock = threading.Lock()
        for name in ("pwrite", "write", "fdatasync", "fsync"):
            self._watch(monkeypatch, os, name)

    def _watch(self, monkeypatch: pytest.MonkeyPatch, module: Any, name: str) -> None:
        real = getattr(module, name)

        def watched(descriptor: int, *arguments: Any) -> Any:
            path = os.readlink(f"/proc/self/fd/{descriptor}")  # noqa: PTH115
            done = real(descriptor, *arguments)
            with self._lock:
                # a descriptor goes on to be called by the name under which the file was begun
                file = path.rsplit("/", 1)[-1].removesuffix(" (deleted)")
                if file.endswith(".new"):
                    file = file.removeprefix(".").removesuffix(".new")
                self.steps.append(("write" if "write" in name else "sync", file))
            return done

        monkeypatch.setattr(module, name, watched)

    def positions(self, kind: str, name: str) -> list[int]:
        """When something was done to a file."""
        return [i for i, step in enumerate(self.steps) if step == (kind, name)]


def pixels(number: int, image_format: str) -> str:
    """The name under which the file is begun that holds the pixels of a volume."""
    return f"00000{number}.ome.tif" if image_format == "ome-tiff" else f"00000{number}-0-0-0"


@pytest.mark.parametrize("streamed", [True, False])
def test_pixels_are_durable_before_the_manifest_and_the_manifest_before_the_journal(
    root: Path, monkeypatch: pytest.MonkeyPatch, streamed: bool, every_format: str
) -> None:
    with FileWriter(root) as writer:
        run_engine, _ = connected(writer)
        device = (
            Camera("cam", writer) if streamed else inline("cam_image", *(volume(i, (40, 1000)) for i in range(3)))
        )
        trail = Trail(monkeypatch)

        def plan() -> Plan:
            yield from bps.open_run()
            for _ in range(3):
                yield from bps.trigger_and_read([device])
                writer.flush()  # one group a volume: the order shows
            yield from bps.close_run()

        run_engine(plan())
        monkeypatch.undo()
    manifest_writes = trail.positions("write", "manifest.jsonl")
    assert len(manifest_writes) >= 3
    for number in range(3):
        file = pixels(number, every_format)
        pixel_sync = next(i for i in trail.positions("sync", file) if i > trail.positions("write", file)[0])
        in_manifest = next(i for i in manifest_writes if i > pixel_sync)
        assert [i for i in manifest_writes if i < pixel_sync] == manifest_writes[:number]
        manifest_sync = next(i for i in trail.positions("sync", "manifest.jsonl") if i > in_manifest)
        in_journal = next(i for i in trail.positions("write", "journal.jsonl") if i > manifest_sync)
        assert any(i > in_journal for i in trail.positions("sync", "journal.jsonl"))


@OF_TIFF
def test_every_frame_was_written_before_the_sync_that_makes_its_volume_durable(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    offsets: list[tuple[str, int]] = []
    pwrite, fdatasync = os.pwrite, os.fdatasync

    def watched_write(descriptor: int, data: Any, offset: int) -> int:
        offsets.append(("write", offset))
        return pwrite(descriptor, data, offset)

    def watched_sync(descriptor: int) -> None:
        if os.readlink(f"/proc/self/fd/{descriptor}").endswith(".tif"):  # noqa: PTH115
            offsets.append(("sync", 0))
        fdatasync(descriptor)

    monkeypatch.setattr(os, "pwrite", watched_write)
    monkeypatch.setattr(os, "fdatasync", watched_sync)
    with FileWriter(root) as writer:
        run_engine, _ = connected(writer)
        run_engine(bp.count([Camera("cam", writer)]))
    monkeypatch.undo()
    plane = 8 * 16 * 2
    frames = [
        i for i, (kind, offset) in enumerate(offsets) if kind == "write" and offset >= 4096 and not offset % plane
    ]
    assert len(frames) >= 4
    first_sync = next(i for i, (kind, _) in enumerate(offsets) if kind == "sync")
    assert max(frames[:4]) < first_sync


def test_every_event_is_durable_in_the_journal_before_the_stop_is(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []
    real = os.fdatasync

    def watched(descriptor: int) -> None:
        real(descriptor)
        if os.readlink(f"/proc/self/fd/{descriptor}").endswith("journal.jsonl"):  # noqa: PTH115
            sizes.append(os.fstat(descriptor).st_size)

    monkeypatch.setattr(os, "fdatasync", watched)
    with FileWriter(root) as writer:
        run_engine, _ = connected(writer)
        run_engine(bp.count([Camera("cam", writer)], 3))
    monkeypatch.undo()
    content = (run_folder(root) / "journal.jsonl").read_bytes()
    assert sizes[-1] == len(content)
    before_stop = content[: sizes[-2]]
    assert before_stop.count(b'"name":"event"') == 3
    assert b'"name":"stop"' not in before_stop


def test_durability_of_a_run_waits_for_nothing_before_its_end_and_for_everything_then(
    root: Path, monkeypatch: pytest.MonkeyPatch, every_format: str
) -> None:
    """What a store holds is on disk before it has its name, whatever is asked for: the names are not."""
    with FileWriter(root, durability="run") as writer:
        camera, (run_engine, _) = Camera("cam", writer), connected(writer)
        trail = Trail(monkeypatch)

        def plan() -> Plan:
            yield from bps.open_run()
            for _ in range(3):
                yield from bps.trigger_and_read([camera])
            writer.flush()
            synced = {name for kind, name in trail.steps if kind == "sync"}
            assert not synced & {"manifest.jsonl", "journal.jsonl", "cam_image", "cam_image.ome.zarr"}
            assert not synced or every_format == "ome-zarr"
            yield from bps.close_run()

        run_engine(plan())
        monkeypatch.undo()
    stop_written = trail.positions("write", "journal.jsonl")[-1]
    files = [f"00000{number}.ome.tif" for number in range(3)] + ["cam_image"]
    if every_format == "ome-zarr":
        files = ["000000", "000001", "000002", "cam_image.ome.zarr"]
    for name in (*files, "manifest.jsonl"):
        syncs = trail.positions("sync", name)
        assert syncs, name
        assert syncs[0] < stop_written, name
        assert syncs[-1] > max(trail.positions("write", name), default=-1), name
    assert trail.positions("sync", "journal.jsonl")[-1] > stop_written
    assert len(of(journal(run_folder(root)), "event")) == 3


def test_names_of_new_folders_and_files_are_durable_too(
    root: Path, monkeypatch: pytest.MonkeyPatch, every_format: str
) -> None:
    synced: list[Path] = []
    real = disk.sync_folder

    def watched(path: Path) -> None:
        synced.append(path)
        real(path)

    monkeypatch.setattr("gently_bluesky.write.recorder.sync_folder", watched)
    monkeypatch.setattr("gently_bluesky.write.run_folder.sync_folder", watched)
    monkeypatch.setattr("gently_bluesky.store.ome_zarr.sync_folder", watched)
    with FileWriter(root) as writer:
        run_engine, _ = connected(writer)
        run_engine(bp.count([Camera("cam", writer)]))
    folder = run_folder(root)
    expected = {*folder.glob("cam_image*/**/"), folder, folder.parent, root / "runs", root}
    assert len(expected) == {"ome-tiff": 5, "ome-zarr": 12}[every_format]
    assert expected <= set(synced)


def test_the_mark_of_a_root_is_durable_before_its_name_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trail = Trail(monkeypatch)
    with FileWriter(tmp_path / "new" / "root"):
        monkeypatch.undo()
    assert [name for kind, name in trail.steps if kind == "sync"] == [
        f".gently.json.{os.getpid()}", "root", "new", tmp_path.name,
    ]  # fmt: skip


@pytest.mark.parametrize("durability", ["event", "run"])
def test_what_a_writer_that_died_had_not_synced_is_durable_before_recover_closes_its_run(
    root: Path, monkeypatch: pytest.MonkeyPatch, durability: Any, every_format: str
) -> None:
    with FileWriter(root, durability=durability) as writer:
        writer("start", {"uid": "run", "time": 1_795_433_400.0})
        resource = writer.open_resource("cam", shape=(4, 8, 16), dtype="<u2")
        for number in range(2):
            new = resource.new_volume()
            for z in range(4 - number):
                new.write(z, volume(number)[z])
            if number == 0:
                new.seal()
        writer.flush()
    trail = Trail(monkeypatch)
    recover(root)
    monkeypatch.undo()
    stop_written = trail.positions("write", "journal.jsonl")[-1]
    files = ["000000.ome.tif", "000001.ome.tif", "cam"]
    if every_format == "ome-zarr":
        files = ["0", "000000", "000001", "cam.ome.zarr"]
    for name in (*files, "manifest.jsonl"):
        assert trail.positions("sync", name)[0] < stop_written, name


@OF_TIFF
def test_a_large_volume_is_pushed_to_the_disk_while_it_is_acquired(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pushed: list[tuple[int, int]] = []
    real = disk._push

    def watched(descriptor: int, offset: int, size: int) -> None:
        pushed.append((offset, size))
        real(descriptor, offset, size)

    monkeypatch.setattr(disk, "_push", watched)
    monkeypatch.setattr(disk, "WRITE_BEHIND_BYTES", 1 << 20)
    with FileWriter(root) as writer:
        run_engine, _ = connected(writer)
        run_engine(bp.count([Camera("cam", writer, shape=(16, 512, 512))]))
    assert sum(size for _, size in pushed) == 16 * 512 * 512 * 2
    assert len(pushed) == 8


def test_the_memory_of_the_last_volume_stays_warm_and_the_one_before_is_let_go(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forgotten: list[Path] = []
    monkeypatch.setattr("gently_bluesky.write.recorder._LARGE_VOLUME", 1000)
    for module in ("ome_tiff", "ome_zarr"):
        monkeypatch.setattr(f"gently_bluesky.store.{module}.forget_pages", forgotten.append)
    with FileWriter(root) as writer:
        run_engine, _ = connected(writer)
        run_engine(bp.count([Camera("cam", writer)], 3))
    assert forgotten == [pixel_file(run_folder(root), "cam_image", number) for number in range(2)]


def test_what_is_forgotten_by_the_page_cache_is_still_on_disk(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gently_bluesky.write.recorder._LARGE_VOLUME", 1000)
    with FileWriter(root) as writer:
        run_engine, _ = connected(writer)
        run_engine(bp.count([Camera("cam", writer)], 3))
    images = newest(root)["primary"]["cam_image"]
    for i in range(3):
        np.testing.assert_array_equal(images.volume(i), volume(i))
