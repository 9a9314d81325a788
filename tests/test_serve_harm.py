"""Whatever becomes of a root does not harm the server, and whatever becomes of the server harms nobody."""

import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import psutil
import pytest

from gently_bluesky import Catalog, FileWriter
from tests.conftest import OF_TIFF
from tests.data_rig import DEADLINE_S, REPOSITORY, hold_pixels, journal, newest, volume
from tests.serve_rig import API, SHAPE, as_array, recorded, series, served

PIXELS = f"{series('-1')}/pixels"
_SERVER = "from gently_bluesky.cli import main; main()"


def test_a_root_that_vanishes_is_said_and_served_again_when_it_is_back(tmp_path: Path) -> None:
    """A disk that was unmounted: 503, and no folder is named."""
    root, away = tmp_path / "root", tmp_path / "away"
    recorded(root, 2)
    with served(root) as server:
        assert server.get(PIXELS, params={"slice": "0,1"}).status_code == 200
        root.rename(away)
        for path in ("", "/runs", "/runs/-1", "/sessions", "/volumes", f"{series('-1')}/pixels?slice=0,1"):
            answer = server.get(path)
            assert (path, answer.status_code) == (path, 503)
            assert answer.headers["retry-after"]
            assert str(tmp_path) not in answer.text
        away.rename(root)
        np.testing.assert_array_equal(server.pixels(PIXELS, slice="0,1"), volume(0, SHAPE)[1])


def test_a_run_that_vanishes_is_not_found(tmp_path: Path) -> None:
    root = tmp_path / "root"
    run = recorded(root, 1)
    with served(root) as server:
        at = f"{series(run)}/pixels"
        assert server.get(at, params={"slice": "0,1"}).status_code == 200
        shutil.rmtree(run.folder)
        assert server.get(at, params={"slice": "0,1"}).status_code == 404
        assert server.json("")["runs"] == 0


@OF_TIFF
@pytest.mark.usefixtures("every_format")
def test_a_file_that_vanishes_or_was_cut_short_is_gone(tmp_path: Path) -> None:
    root = tmp_path / "root"
    run = recorded(root, 3)
    files = sorted(run.folder.glob("*/*.ome.tif"))
    files[0].unlink()
    with files[2].open("r+b") as file:
        file.truncate(5000)
    with served(root) as server:
        for event in (0, 2):
            answer = server.get(PIXELS, params={"slice": f"{event},1"})
            assert answer.status_code == 410
            assert str(tmp_path) not in answer.text


@OF_TIFF
@pytest.mark.usefixtures("every_format")
def test_a_link_out_of_the_run_is_not_followed(tmp_path: Path) -> None:
    """Whoever can write to a root cannot have the server read other files of this machine."""
    root, secret = tmp_path / "root", tmp_path / "secret.ome.tif"
    run = recorded(root, 1)
    (file,) = run.folder.glob("*/*.ome.tif")
    file.rename(secret)
    file.symlink_to(secret)
    with served(root) as server:
        answer = server.get(PIXELS, params={"slice": "0,1"})
        assert answer.status_code == 410
        assert str(tmp_path) not in answer.text


# --- the writer beside it -----------------------------------------------------------------------------------


class _Floods:
    """Clients in threads that ask a server for everything, as fast as they can, until they are stopped."""

    def __init__(self, url: str, clients: int) -> None:
        self._stop = threading.Event()
        self.answers = 0
        self.wrong: list[str] = []
        self._threads = [threading.Thread(target=self._ask, args=(url, n)) for n in range(clients)]

    def __enter__(self) -> "_Floods":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(DEADLINE_S)

    def _ask(self, url: str, number: int) -> None:
        paths = (f"{PIXELS}?slice=-1,2&include_bad=true", "/runs/-1", f"{PIXELS}?slice=...&include_bad=true",
                 f"{series('-1')}/zarr/0/c/0/1/0/0", "/runs/-1/documents", "/volumes",
                 f"{PIXELS}?slice=junk")  # fmt: skip
        turn = number
        while not self._stop.is_set():
            turn += 1
            try:
                answer = httpx.get(f"{url}{API}{paths[turn % len(paths)]}", timeout=DEADLINE_S)
            except httpx.HTTPError:  # it was killed
                self._stop.wait(0.01)
                continue
            self.answers += 1
            if answer.status_code >= 500 and answer.status_code != 503:
                self.wrong.append(answer.text)
            if answer.status_code == 200 and "slice=-1,2" in str(answer.request.url):
                plane = as_array(answer)
                if not np.array_equal(plane, volume(int(plane[0, 0]), SHAPE)[2]):
                    self.wrong.append("a plane that nobody took")


def _server(root: Path) -> "tuple[subprocess.Popen[str], str]":
    """Start `gently-bluesky serve` in a process of its own; its address."""
    command = [sys.executable, "-u", "-c", _SERVER, "serve", "--root", str(root), "--port", "0"]
    process = subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    line = process.stdout.readline()
    return process, line.rsplit(" ", 1)[1].strip().rstrip("/")


@pytest.fixture
def killed_at_the_end() -> Iterator["list[subprocess.Popen[str]]"]:
    processes: list[subprocess.Popen[str]] = []
    yield processes
    for process in processes:
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


def test_a_server_that_is_flooded_and_killed_costs_the_writer_nothing(
    tmp_path: Path, killed_at_the_end: "list[subprocess.Popen[str]]"
) -> None:
    """The writer is another process; its journal is that of a run that nobody looked at, its pixels are whole."""
    quiet, looked_at = tmp_path / "quiet", tmp_path / "looked_at"
    count = 60
    recorded(quiet, count)
    FileWriter(looked_at).close()
    process, url = _server(looked_at)
    killed_at_the_end.append(process)
    with _Floods(url, 4) as flood:
        writer = threading.Thread(target=recorded, args=(looked_at, count))
        writer.start()
        deadline = time.monotonic() + DEADLINE_S
        while flood.answers < 40 and time.monotonic() < deadline:
            threading.Event().wait(0.01)
        psutil.Process(process.pid).send_signal(signal.SIGKILL)
        process.wait(DEADLINE_S)
        again, url = _server(looked_at)
        killed_at_the_end.append(again)
        writer.join(DEADLINE_S)
        assert httpx.get(f"{url}{API}/runs/-1", timeout=DEADLINE_S).json()["exit_status"] == "success"
    assert flood.wrong == []
    assert flood.answers >= 40
    runs = [Catalog(root)[-1] for root in (quiet, looked_at)]
    assert _shape_of(runs[0].folder) == _shape_of(runs[1].folder)
    hold_pixels(runs[1])
    names = {path.relative_to(runs[1].folder).as_posix() for path in runs[1].folder.rglob("*")}
    assert names == {path.relative_to(runs[0].folder).as_posix() for path in runs[0].folder.rglob("*")}


def _shape_of(folder: Path) -> list[tuple[str, object]]:
    """What a journal says, but for uids and times."""
    gone = {"uid", "time", "timestamps", "descriptor", "run_start", "stream_resource", "uri", "versions"}
    return [
        (name, {key: value for key, value in document.items() if key not in gone})
        for name, document in journal(folder)
    ]


def test_serving_leaves_nothing_in_a_root(tmp_path: Path) -> None:
    """Not a byte: every file is as it was, with the time at which it was written."""
    root = tmp_path / "root"
    recorded(root, 2)
    before = {path: (path.stat().st_mtime_ns, path.stat().st_size) for path in root.rglob("*")}
    with served(root) as server:
        for path in ("", "/runs", "/runs/-1", "/volumes", series("-1"), f"{PIXELS}?slice=0,1", "/sessions"):
            assert server.get(path).status_code == 200
        assert server.get(f"{series('-1')}/zarr/0/c/0/1/0/0").status_code == 200
    assert {path: (path.stat().st_mtime_ns, path.stat().st_size) for path in root.rglob("*")} == before
    assert newest(root).exit_status == "success"
