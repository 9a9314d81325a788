"""A full disk, at any call that can meet one: the plan fails with an error that says so, and nothing is lost.

Errors are injected into the system calls of an acquisition from outside, and real file systems are filled.
"""

import contextlib
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from gently_bluesky import Catalog
from gently_bluesky.store.formats import FORMATS
from gently_bluesky.write.recovery import Recovery, recover
from tests.conftest import Campaign, SmallDisk, tool
from tests.durability_rig import Held, acknowledged, hold_recovered, hold_root
from tests.zygote import DEADLINE_S, Child, Zygote

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="strace and small file systems are Linux's")

LONG = [pytest.mark.long, pytest.mark.timeout(1800)]

CALLS = {
    "write": ["pwrite64", "write"],
    "reserve": ["fallocate", "ftruncate"],
    "name": ["?mkdir", "mkdirat", "?link", "linkat", "?rename", "renameat", "renameat2"],
    "sync": ["fdatasync", "fsync"],
}
"""What can meet a full disk, but for opening a file: that would hit the files of Python as well."""


@pytest.fixture(scope="session")
def strace() -> Path:
    """What makes system calls fail from outside."""
    return tool("strace", "strace")


@contextlib.contextmanager
def failing(strace: Path, child: Child, calls: Sequence[str], when: str, log: Path) -> Iterator[None]:
    """Let calls of a child, and of its threads to come, fail with ENOSPC: those of a number, counted by thread."""
    names = ",".join(calls)
    command = [strace, "-f", "-p", child.pid, "-o", log, "-e", f"trace={names}"]
    command += ["-e", f"inject={names}:error=ENOSPC:when={when}"]
    with subprocess.Popen([*map(str, command)], stderr=subprocess.PIPE, text=True) as tracer:
        try:
            assert tracer.stderr is not None
            said = tracer.stderr.readline()  # it ends, or attaches
            assert "attached" in said, said
            yield
            child.listen()
            tracer.wait(DEADLINE_S)
        finally:
            tracer.kill()


def hold_failure(root: Path, causes: Sequence[Sequence[str]], said: frozenset[bytes], events: int | None) -> Held:
    """Hold a root whose disk was full: the error is clear, nothing is lost, what says success is whole."""
    if causes:
        kinds = {kind for cause in causes for kind in cause[:-1]}
        assert kinds & {"DiskFullError", "WriterFailedError", "RootError"}, causes
        text = "; ".join(cause[-1] for cause in causes)
        assert re.search("No room|No space left|Read-only file system|Input/output error", text), text
    held = hold_root(root, said)
    for run in Catalog(root) if (root / "gently.json").exists() else ():
        if run.exit_status == "success":  # also if no more than the sync of the stop itself has failed
            assert events is None or len(run["primary"]) == events
    return held


@pytest.mark.parametrize("image_format", FORMATS)
@pytest.mark.parametrize("when", ["{}", "{}+"], ids=["once", "from-then-on"])
@pytest.mark.parametrize("numbers", [(2, 7), pytest.param(range(1, 10_000), marks=LONG)], ids=["two", "all"])
@pytest.mark.parametrize("calls", CALLS)
def test_a_call_that_finds_no_room_fails_the_plan_and_loses_nothing(
    calls: str,
    numbers: Sequence[int],
    when: str,
    image_format: str,
    root: Path,
    tmp_path: Path,
    zygote: Zygote,
    strace: Path,
    campaign: Campaign,
) -> None:
    for number in numbers:
        log = tmp_path / "strace"
        with zygote.fork("tests.durability_rig:attempt", root=str(root), image_format=image_format) as child:
            assert child.listen(word="ready")
            with failing(strace, child, CALLS[calls], when.format(number), log):
                child.tell()
            causes = child.result()
        injected = log.read_text("utf-8").count("(INJECTED)")
        try:
            hold_failure(root, causes, acknowledged(child), 3)
            held = hold_recovered(root, acknowledged(child))
            zygote.call("tests.durability_rig:end_well_in", root=str(root))
            assert Catalog(root)[-1].exit_status == "success"
        except BaseException as error:
            error.add_note(f"{calls} {when.format(number)}: {injected} calls failed; {causes}")
            raise
        campaign.count(
            "no room left", states=1, failures=injected, events=held.events, volumes=held.volumes, lost=0
        )
        shutil.rmtree(root)
        if not injected:
            assert not causes
            break


# --- real file systems --------------------------------------------------------------------------------------


def fill(
    zygote: Zygote, root: Path, reserve_bytes: int, image_format: str
) -> tuple[list[list[str]], frozenset[bytes]]:
    """Acquire until the disk is full; give what went wrong, and what was acknowledged."""
    options: dict[str, Any] = {"events": 1000, "shape": (16, 64, 64), "reserve_bytes": reserve_bytes}
    options["image_format"] = image_format
    with zygote.fork("tests.durability_rig:attempt", root=str(root), **options) as child:
        child.tell()
        causes = child.result()
    return causes, acknowledged(child)


@pytest.mark.parametrize("image_format", FORMATS)
@pytest.mark.parametrize("reserve_bytes", [0, 200_000])
@pytest.mark.parametrize("kind", ["tmpfs", "ext4"])
def test_a_disk_that_is_filled_fails_the_run_and_loses_nothing(
    kind: str,
    reserve_bytes: int,
    image_format: str,
    small_disk: Path,
    make_disk: Callable[..., SmallDisk],
    zygote: Zygote,
    campaign: Campaign,
) -> None:
    folder = (
        small_disk if kind == "tmpfs" else make_disk("ext4", 8, "-N", "8192").path
    )  # of names there are enough
    root, ballast = folder / "root", folder / "ballast"
    ballast.write_bytes(bytes(1 << 20))
    causes, said = fill(zygote, root, reserve_bytes, image_format)
    assert causes
    held = hold_failure(root, causes, said, None)
    assert held.events > 2
    for done in recover(root):  # there may be room for that, or not
        assert isinstance(done, Recovery) or "No room" in str(done) or "No space" in str(done)
    hold_root(root, said)
    assert [run.exit_status for run in Catalog(root)] == ["fail"] or not reserve_bytes
    ballast.unlink()
    held = hold_recovered(root, said)
    zygote.call("tests.durability_rig:end_well_in", root=str(root))
    assert Catalog(root)[-1].exit_status == "success"
    campaign.count("filled disks", states=1, events=held.events, volumes=held.volumes, lost=0)


@pytest.mark.parametrize(("image_format", "inodes"), [("ome-tiff", 64), ("ome-zarr", 1024)])
def test_a_disk_without_room_for_names_fails_the_run_and_loses_nothing(
    image_format: str, inodes: int, make_disk: Callable[..., SmallDisk], zygote: Zygote, campaign: Campaign
) -> None:
    """Bytes are free, inodes are not."""
    disk = make_disk("ext4", 16, "-N", str(inodes))
    root = disk.path / "root"
    causes, said = fill(zygote, root, 0, image_format)
    held = hold_failure(root, causes, said, None)
    assert held.events > 2
    hold_recovered(root, said)
    campaign.count("filled disks", states=1, events=held.events, volumes=held.volumes, lost=0)


@pytest.mark.parametrize(
    ("events", "image_format"),
    [(1, "ome-tiff"), (3, "ome-zarr"), *(pytest.param(n, [*FORMATS][n % 2], marks=LONG) for n in range(4, 28))],
)
def test_a_disk_that_becomes_read_only_fails_the_run_and_keeps_what_was_acknowledged(
    events: int,
    image_format: str,
    make_disk: Callable[..., SmallDisk],
    tmp_path: Path,
    zygote: Zygote,
    campaign: Campaign,
) -> None:
    disk = make_disk("ext4", 256)  # more than all its events, however late it is aborted
    root = disk.path / "root"
    options: dict[str, Any] = {"root": str(root), "events": 1000, "image_format": image_format}
    with zygote.fork("tests.durability_rig:attempt", **options) as child:
        child.tell()
        while sum(name == "event" for name, _ in child.heard("acknowledged")) < events:
            assert not child.listen(0.001), child.said[-1:]
        before = frozenset(acknowledged(child))
        disk.abort()
        causes = child.result()
    assert causes
    hold_failure(root, causes, before, None)
    assert not any(isinstance(done, Recovery) for done in recover(root)), "nothing can be written"
    disk.unmount()
    disk.mount()
    held = hold_root(root, before)
    hold_recovered(root, before)
    zygote.call("tests.durability_rig:end_well_in", root=str(root))
    campaign.count("disks that became read-only", states=1, events=held.events, volumes=held.volumes, lost=0)
