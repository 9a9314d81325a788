"""The server against a bare Starlette response out of a map, against Tiled with the same file, and against itself.

Every server is a process of its own; this module, run with its name, is each of them. The client is one connection
that takes bytes and does nothing with them.
"""

import contextlib
import http.client
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import uvicorn
from numpy.typing import NDArray

from gently_bluesky import Catalog
from gently_bluesky.serve.pictures.encoding import jpeg
from gently_bluesky.serve.pictures.picture import picture
from tests.benchmarks.detector import address
from tests.benchmarks.pairs import CHECKOUT, Row, Spread, Target, in_turns
from tests.benchmarks.planes import KEY, TIME, acquire
from tests.benchmarks.runs import emptied

CLIENTS = 32
_TILED_KEY = "secret"

Once = Callable[[], Mapping[str, float]]


class Client:
    """One connection that stays open; what it is sent goes into one piece of memory."""

    def __init__(self, port: int, nbytes: int, **headers: str) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=300)
        self._headers = {"Accept-Encoding": "identity", **headers}
        self._memory = memoryview(bytearray(nbytes))

    def get(self, path: str) -> memoryview:
        """Ask, and give the body; good until the next one is asked for."""
        self._connection.request("GET", path, headers=self._headers)
        answer = self._connection.getresponse()
        assert answer.status == 200, answer.read()
        size = 0
        while came := answer.readinto(self._memory[size:]):
            size += came
        answer.close()
        return self._memory[:size]

    def close(self) -> None:
        """Close it."""
        self._connection.close()


@contextlib.contextmanager
def server(kind: str, root: Path) -> Iterator[tuple[int, psutil.Process]]:
    """Run one of the servers; give its port and its process."""
    command = [sys.executable, "-m", "tests.benchmarks.serve", kind, str(root)]
    process = subprocess.Popen(command, cwd=CHECKOUT, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield int(process.stdout.readline()), psutil.Process(process.pid)
    finally:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def _turns(planes: int) -> Iterator[int]:
    number = 0
    while True:
        yield number * 7 % planes
        number += 1


def timed(client: Client, path: str, planes: int, *, hold: bool = True) -> Once:
    """Give a measurement that asks for another plane each time, and looks whether it is the right one."""
    turn = _turns(planes)

    def once() -> Mapping[str, float]:
        z = next(turn)
        begun = time.perf_counter()
        body = client.get(path.format(z))
        took = time.perf_counter() - begun
        assert not hold or (np.frombuffer(body[:4], "<u2") == address(0, z)).all()
        return {TIME: took}

    return once


def crowd(port: int, path: str, planes: int, nbytes: int, each: int) -> Once:
    """Give a measurement of many clients at once: seconds that all their planes take."""

    def one(number: int) -> None:
        client = Client(port, nbytes)
        try:
            for turn in range(each):
                z = (number * 7 + turn * 3) % planes
                assert (np.frombuffer(client.get(path.format(z))[:4], "<u2") == address(0, z)).all()
        finally:
            client.close()

    def once() -> Mapping[str, float]:
        with ThreadPoolExecutor(CLIENTS) as pool:
            begun = time.perf_counter()
            list(pool.map(one, range(CLIENTS)))
            return {TIME: time.perf_counter() - begun}

    return once


def measure(folder: Path, *, tiny: bool) -> Iterator[Row]:
    """Give times relative to those of the others, and what memory a crowd costs."""
    planes, side, rounds, few, each = (8, 64, 2, 1, 1) if tiny else (200, 2048, 60, 5, 4)
    root, shallow = folder / "serve", folder / "shallow"
    with emptied(root), emptied(shallow), contextlib.ExitStack() as running:
        acquire(root, planes, side)
        acquire(shallow, max(planes // 10, 2), side)
        ports = {kind: running.enter_context(server(kind, root)) for kind in ("ours", "bare", "tiled")}
        ports["shallow"] = running.enter_context(server("ours", shallow))
        series = {each: _address(each) for each in (root, shallow)}
        api = series[root]
        nbytes = 2 * side * side
        most = nbytes * max(1, -(-planes // side)) + 4096

        def client(kind: str, **headers: str) -> Client:
            made = Client(ports[kind][0], most, **headers)
            running.callback(made.close)
            return made

        ours, bare = client("ours"), client("bare")
        tiled = client("tiled", Authorization=f"Apikey {_TILED_KEY}")
        plane = in_turns(
            {
                "ours": timed(ours, f"{api}/pixels?slice=0,{{}}", planes),
                "bare": timed(bare, "/z/{}", planes),
                "shallow": timed(
                    client("shallow"), f"{series[shallow]}/pixels?slice=0,{{}}", max(planes // 10, 2)
                ),
            },
            rounds=rounds,
            settle=False,
            warm=rounds // 4,
        )
        across = in_turns(
            {
                "ours": timed(ours, f"{api}/pixels?slice=0,:,{{}}", side, hold=False),
                "bare": timed(bare, "/y/{}", side, hold=False),
            },
            rounds=rounds,
            settle=False,
            warm=rounds // 4,
        )
        tiled_path = "/api/v1/array/full/volume?slice={}&format=application/octet-stream"
        whole = in_turns(
            {
                "ours": timed(ours, f"{api}/pixels?slice=0,{{}}", planes),
                "tiled": timed(tiled, tiled_path, planes),
            },
            rounds=few,
            settle=False,
        )
        images = Catalog(root)[-1]["primary"][KEY]
        shown = in_turns(
            {
                "ours": timed(ours, f"{api}/pixels?slice=0,{{}}&format=jpeg&size=512", planes, hold=False),
                "in process": _pictures(lambda z: images[0, z], planes),
            },
            rounds=min(rounds, planes - rounds // 4),
            settle=False,
            warm=rounds // 4,
        )
        many = in_turns(
            {
                "ours": crowd(ports["ours"][0], f"{api}/pixels?slice=0,{{}}", planes, most, each),
                "bare": crowd(ports["bare"][0], "/z/{}", planes, most, each),
            },
            rounds=few,
            settle=False,
        )
        grown = _rss_anon_mb(ports["ours"][1]) - _rss_anon_mb(ports["bare"][1])
    for what, measured, other, target in (
        ("a raw plane, time to a bare response from a map", plane, "bare", Target("<=", 1.3)),
        ("a raw plane of 200, time to one of 20", plane, "shallow", None),
        ("an XZ plane, time to a bare response", across, "bare", Target("<=", 2)),
        ("a JPEG of 512 pixels, time to the same work in process", shown, "in process", Target("<=", 1.5)),
    ):
        row = measured.ratio("ours", other, TIME)
        yield Row("serve", what, row, "x", target, measured.shown("ours", TIME), measured.shown(other, TIME))
    times = whole.shown("ours", TIME), whole.shown("tiled", TIME)
    faster = whole.ratio("tiled", "ours", TIME)
    yield Row(
        "serve", "a raw plane, times faster than Tiled with the same file", faster, "x", Target(">=", 15), *times
    )
    times = many.shown("ours", TIME), many.shown("bare", TIME)
    speed = many.ratio("bare", "ours", TIME)
    yield Row(
        "serve", f"{CLIENTS} clients at once, speed to the bare server's", speed, "x", Target(">=", 0.85), *times
    )
    yield Row("serve", "anonymous memory more than the bare server's, after all", Spread.of([grown]), "MB")


def _address(root: Path) -> str:
    return f"/api/v1/runs/{Catalog(root)[-1].uid}/streams/primary/series/{KEY}"


def _pictures(read: Callable[[int], NDArray[Any]], planes: int) -> Once:
    turn = _turns(planes)

    def once() -> Mapping[str, float]:
        z = next(turn)
        begun = time.perf_counter()
        jpeg(picture(read(z), size=512).pixels)
        return {TIME: time.perf_counter() - begun}

    return once


def _rss_anon_mb(process: psutil.Process) -> float:
    lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 / 1e6 for line in lines if line.startswith("RssAnon:"))


# --- the servers --------------------------------------------------------------------------------------------


def _ours(root: Path) -> Any:
    from gently_bluesky.serve.app import create_app

    return create_app(root)


def _bare(root: Path) -> Any:
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.routing import Route

    volume: Any = Catalog(root)[-1]["primary"][KEY].volume(0)

    async def z(request: Request) -> Response:
        return Response(memoryview(volume[int(request.path_params["at"])]))

    async def y(request: Request) -> Response:
        plane: Any = np.ascontiguousarray(volume[:, int(request.path_params["at"])])
        return Response(memoryview(plane))

    return Starlette(routes=[Route("/z/{at}", z), Route("/y/{at}", y)])


def _tiled(root: Path) -> Any:
    from tiled.adapters.mapping import MapAdapter
    from tiled.adapters.tiff import TiffAdapter
    from tiled.config import Authentication
    from tiled.server.app import build_app

    (path,) = Catalog(root)[-1].folder.glob(f"{KEY}/*.ome.tif")
    tree = MapAdapter({"volume": TiffAdapter.from_uris(path.as_uri())})
    return build_app(tree, authentication=Authentication(single_user_api_key=_TILED_KEY))


def _run(kind: str, root: Path) -> None:
    app = {"ours": _ours, "bare": _bare, "tiled": _tiled}[kind](root)
    config = uvicorn.Config(app, port=0, log_level="critical", access_log=False, timeout_keep_alive=600)
    listening = config.bind_socket()
    print(json.dumps(listening.getsockname()[1]), flush=True)
    uvicorn.Server(config).run(sockets=[listening])


if __name__ == "__main__":
    _run(sys.argv[1], Path(sys.argv[2]))
