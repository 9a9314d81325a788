"""A server under load and among bad clients: bounded, never wrong, back to work at once."""

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import numpy as np
import psutil
import pytest

from gently_bluesky.errors import TooBusyError
from gently_bluesky.read.images import ImageSeries
from gently_bluesky.serve.answering import Room
from gently_bluesky.serve.app import create_app
from gently_bluesky.serve.doors import Limits
from gently_bluesky.serve.library import Kept, Library
from tests.data_rig import DEADLINE_S, volume
from tests.serve_rig import API, SHAPE, as_array, recorded, series, served, serving

PIXELS = f"{series('-1')}/pixels"


def until(true: Callable[[], bool]) -> None:
    """Wait for a condition."""
    deadline = time.monotonic() + DEADLINE_S
    while not true():
        assert time.monotonic() < deadline
        threading.Event().wait(0.01)


@contextlib.contextmanager
def connected(url: str) -> Iterator[socket.socket]:
    """A bare connection to a server."""
    host, _, port = url.removeprefix("http://").partition(":")
    with socket.create_connection((host, int(port)), timeout=DEADLINE_S) as connection:
        yield connection


def ended(connection: socket.socket) -> bool:
    """Whether the other side has hung up, after everything it sent is taken."""
    try:
        while connection.recv(1 << 20):
            pass
    except ConnectionError:
        pass
    except TimeoutError:
        return False
    return True


# --- many at once -------------------------------------------------------------------------------------------


def test_32_clients_at_once_get_right_answers(tmp_path: Path) -> None:
    root = tmp_path / "root"
    recorded(root, 3)
    whole = [volume(number, SHAPE) for number in range(3)]
    with served(root) as server:

        def ask(number: int) -> None:
            with httpx.Client(base_url=server.url, timeout=DEADLINE_S) as client:
                for turn in range(10):
                    event, z = (number % 2) * 2, (number + turn) % SHAPE[0]
                    answer = client.get(f"{API}{PIXELS}", params={"slice": f"{event},{z}"})
                    np.testing.assert_array_equal(as_array(answer), whole[event][z])

        with ThreadPoolExecutor(32) as pool:
            list(pool.map(ask, range(32)))


def test_when_too_much_is_under_way_others_are_told_when_to_come_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whole volumes have few turns, and none of those who wait for them is in the way of a plane."""
    root = tmp_path / "root"
    recorded(root, 1)
    go_on, begun = threading.Event(), threading.Semaphore(0)
    projected = ImageSeries.project

    def slow(*arguments: object, **options: object) -> object:
        begun.release()
        go_on.wait(DEADLINE_S)
        return projected(*arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(ImageSeries, "project", slow)
    with served(root, limits=Limits(heavy_at_once=1, wait_s=0.2)) as server, ThreadPoolExecutor(1) as pool:
        first = pool.submit(server.get, f"{series('-1')}/projection", params={"event": 0})
        assert begun.acquire(timeout=DEADLINE_S)
        second = server.client.get(f"{API}{series('-1')}/projection", params={"event": 0})
        assert (second.status_code, second.headers["retry-after"]) == (503, "1")
        assert server.get(PIXELS, params={"slice": "0,1"}).status_code == 200
        go_on.set()
        assert first.result().status_code == 200
        assert server.get(f"{series('-1')}/projection", params={"event": 0}).status_code == 200


def test_memory_for_answers_is_bounded_and_given_back_when_they_are_gone() -> None:
    room = Room(1000, 0.05)
    held = [room.read(400, lambda: np.zeros(400, np.uint8)) for _ in range(2)]
    with pytest.raises(TooBusyError):
        room.read(400, lambda: np.zeros(400, np.uint8))
    view = held.pop()[3:9].view(np.int8)
    with pytest.raises(TooBusyError):  # a view keeps all of it
        room.read(400, lambda: np.zeros(400, np.uint8))
    del view
    with pytest.raises(ZeroDivisionError):
        room.read(400, lambda: np.zeros(1 // 0))
    assert room.read(400, lambda: np.ones(400, np.uint8)).all()


def test_memory_is_given_back_after_every_kind_of_answer(tmp_path: Path, every_format: str) -> None:
    """Of maps, which stay open, as of what is decoded: a hundred times what there is room for is given out."""
    root = tmp_path / "root"
    recorded(root, 1)
    with served(root, limits=Limits(room_bytes=40_000, wait_s=0.5)) as server:
        for turn in range(25):
            for text in ("0", f"0,:,{turn}", "0,::2,::3", "0,0:1", "0,1", "0:1,1"):
                for form in ("raw", "npy"):
                    answer = server.get(PIXELS, params={"slice": text, "format": form})
                    assert (text, answer.status_code) == (text, 200)
            histogram = server.get(f"{series('-1')}/histogram", params={"slice": f"0,:,{turn}"})
            assert histogram.status_code == 200
        until(lambda: bool(server.app.state.house.room._free == 40_000))


@pytest.mark.parametrize("form", ["npy", "tiff"])
def test_an_answer_that_nobody_reads_takes_room_until_it_is_sent(tmp_path: Path, form: str) -> None:
    root = tmp_path / "root"
    recorded(root, 1, shape=(32, 512, 512))
    asked = {"slice": "0", "format": form}
    with served(root, limits=Limits(room_bytes=24 << 20, wait_s=0.3, cache_bytes=0)) as server:
        with server.client.stream("GET", f"{API}{PIXELS}", params=asked) as first:
            assert first.status_code == 200
            assert server.get(PIXELS, params=asked).status_code == 503
        until(lambda: server.get(PIXELS, params=asked).status_code == 200)


def test_what_is_kept_is_bounded_in_bytes() -> None:
    kept: Kept[str] = Kept(100)
    for number in range(50):
        kept.put(str(number), "x", 20)
        assert kept.nbytes <= 100
    assert [kept.get(str(number)) is not None for number in (44, 45, 49)] == [False, True, True]
    kept.put("large", "x", 26)
    assert kept.get("large") is None
    assert kept.get("45")
    kept.put("new", "x", 20)
    assert kept.get("45")
    assert kept.get("46") is None
    kept.put("new", "y", 10)
    assert kept.nbytes == 90


def test_runs_that_are_held_are_bounded_in_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gently_bluesky.serve.library._RUNS_HELD", 2)
    root = tmp_path / "root"
    uids = [recorded(root, 1).uid for _ in range(4)]
    library = Library(root)
    for uid in uids:
        library.run(uid)
    assert len(library._held) == 2


# --- bad clients --------------------------------------------------------------------------------------------


def test_a_client_that_never_reads_holds_little_and_is_hung_up_on(tmp_path: Path) -> None:
    """Ten of them, each before an answer of 16 MB that would have to be decoded; others are served meanwhile."""
    root = tmp_path / "root"
    recorded(root, 1, shape=(8, 1024, 1024), image_format="ome-zarr")
    app = create_app(root, limits=Limits(room_bytes=64 << 20, wait_s=20))
    with serving(app, read_s=0.5) as url, contextlib.ExitStack() as stack:
        before = psutil.Process().memory_info().rss
        lazy = [stack.enter_context(connected(url)) for _ in range(10)]
        for connection in lazy:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)
            connection.sendall(f"GET {API}{PIXELS}?slice=0 HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        assert httpx.get(f"{url}{API}", timeout=DEADLINE_S).status_code == 200
        assert all(map(ended, lazy))
        assert psutil.Process().memory_info().rss - before < 256 << 20
        until(lambda: app.state.house.room._free == 64 << 20)
        answer = httpx.get(f"{url}{API}{PIXELS}?slice=0,3", timeout=DEADLINE_S)
        np.testing.assert_array_equal(as_array(answer), volume(0, (8, 1024, 1024))[3])


def test_a_client_that_sends_nothing_is_hung_up_on(tmp_path: Path) -> None:
    root = tmp_path / "root"
    recorded(root, 1)
    with serving(create_app(root), request_s=0.3) as url, connected(url) as silent, connected(url) as halting:
        halting.sendall(b"GET /api/v1 HTTP/1.1\r\nHost: loc")
        assert ended(silent)
        assert ended(halting)
        assert httpx.get(f"{url}{API}").status_code == 200


def test_a_body_is_not_read_beyond_its_limit(tmp_path: Path) -> None:
    root = tmp_path / "root"
    recorded(root, 1)
    with served(root, may_tag=True, limits=Limits(body_bytes=1000)) as server:
        long = b'{"by": "a", "note": "' + b"x" * 2000 + b'"}'
        path = f"{API}/runs/-1/tags"
        assert server.client.post(path, content=long).status_code == 413
        assert server.client.post(path, content=iter([long])).status_code == 413
        assert server.client.post(path, json={"by": "a", "note": "x"}).status_code == 200


@pytest.mark.parametrize(
    "request_line",
    [
        b"GET /api/v1 HTTP/1.1\r\n\r\n",  # no Host
        b"GET /api/v1 HTTP/1.1\r\nHost: localhost\r\nHost: evil.example.org\r\n\r\n",
        b"GET /api/v1/runs?limit=\xff\xfe HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET /api/v1/runs/\xe4 HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET /api/v1/runs/%ff%fe HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET /../../etc/passwd HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET http://evil.example.org/api/v1 HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET /api/v1 HTTP/1.1\r\nHost: localhost\r\nX: " + b"a" * 200_000 + b"\r\n\r\n",
        b"GET /api/v1 HTTP/1.1\r\nHost: localhost\r\nRange: bytes=" + b"9" * 5000 + b"-\r\n\r\n",
        b"GET /api/v1 HTTP/1.1\r\nHost: localhost\r\nIf-None-Match: " + b"," * 5000 + b"\r\n\r\n",
        b"GET /api/v1 HTTP/1.1\r\nHost: localhost\r\nAccept-Encoding: gzip;q=x;;,*;q=\r\n\r\n",
        b"GET /api/v1 HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n",
        b"GET /api/v1 HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n"
        b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"GET /api/v1 HTTP/9.9\r\nHost: localhost\r\n\r\n",
        b"\x16\x03\x01\x00\xa5\x01\x00\x00",
        b"\r\n\r\n\r\n\r\n",
    ],
)
def test_hostile_requests_are_answered_or_refused_and_nobody_else_notices(
    tmp_path_factory: pytest.TempPathFactory, request_line: bytes
) -> None:
    root = tmp_path_factory.getbasetemp() / "hostile"
    if not root.exists():
        recorded(root, 1)
    with serving(create_app(root), request_s=0.5) as url, connected(url) as connection:
        with contextlib.suppress(ConnectionError):
            connection.sendall(request_line)
            connection.shutdown(socket.SHUT_WR)
        answer = b""
        with contextlib.suppress(ConnectionError):
            while came := connection.recv(1 << 16):
                answer += came
        status = int(answer.split(b" ")[1]) if answer else 400
        assert status < 500
        assert b"Traceback" not in answer
        assert b"root:" not in answer
        assert httpx.get(f"{url}{API}").status_code == 200
