"""What the tests of the server share: a real one, over a real socket, and runs to serve."""

import contextlib
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import bluesky.plan_stubs as bps
import httpx
import numpy as np
import uvicorn
from bluesky import Msg
from fastapi import FastAPI
from numpy.typing import NDArray

from gently_bluesky import FileWriter
from gently_bluesky.read.run import Run
from gently_bluesky.serve.app import create_app
from gently_bluesky.serve.patience import patient
from tests.data_rig import DEADLINE_S, Camera, record

API = "/api/v1"
SHAPE = (6, 32, 48)
KEY = "cam_image"


@dataclass(frozen=True, slots=True)
class Served:
    """A server that runs: its address, and a client that asks it."""

    url: str
    client: httpx.Client
    app: FastAPI

    def get(self, path: str, **options: Any) -> httpx.Response:
        """Ask; the path is below the API's."""
        return self.client.get(f"{API}{path}", **options)

    def json(self, path: str, **options: Any) -> Any:
        """Ask, and hold that it went well."""
        answer = self.get(path, **options)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def pixels(self, path: str, **params: Any) -> NDArray[Any]:
        """Ask for raw pixels, and give them as an array."""
        return as_array(self.get(path, params=params))


def as_array(answer: httpx.Response) -> NDArray[Any]:
    """Raw pixels of an answer, as its headers say."""
    assert answer.status_code == 200, answer.text
    shape = [int(size) for size in answer.headers["x-shape"].split(",") if size]
    return np.frombuffer(answer.content, answer.headers["x-dtype"]).reshape(shape)


@contextlib.contextmanager
def serving(app: FastAPI, **options: Any) -> Iterator[str]:
    """Let an application be served from a thread, at a port that is free; its address."""
    patience = {key: options.pop(key) for key in ("request_s", "read_s") if key in options}
    settings: dict[str, Any] = {
        "log_level": "critical",
        "http": patient(**patience),
        "access_log": False,
        "lifespan": "off",
    }
    server = uvicorn.Server(uvicorn.Config(app, **{"port": 0} | settings | options))
    thread = threading.Thread(target=server.run, name="server")
    thread.start()
    try:
        deadline = time.monotonic() + DEADLINE_S
        while not server.started:
            assert thread.is_alive()
            assert time.monotonic() < deadline
            thread.join(0.005)
        port = server.servers[0].sockets[0].getsockname()[1]
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join(DEADLINE_S)


@contextlib.contextmanager
def served(root: Path, *, headers: dict[str, str] | None = None, **options: Any) -> Iterator[Served]:
    """Let a root be served."""
    app = create_app(root, **options)
    with serving(app) as url, httpx.Client(base_url=url, headers=headers, timeout=DEADLINE_S) as client:
        yield Served(url, client, app)


def timepoints(writer: FileWriter, count: int = 3, *, shape: Sequence[int] = SHAPE, **start: Any) -> Iterator[Msg]:
    """A run with a volume of one embryo at each of so many timepoints; the second one is not good."""
    camera = Camera("cam", writer, shape=shape)
    yield from bps.open_run({"plan_name": "acquire", "session": "s", "operator": "ann", **start})
    for number in range(count):
        camera.scalars |= {"embryo": "e1", "timepoint": number, "good": number != 1}
        yield from bps.trigger_and_read([camera])
    yield from bps.close_run()


def recorded(root: Path, count: int = 3, **options: Any) -> Run:
    """Such a run on disk."""
    start = options.pop("start", {})
    shape = options.pop("shape", SHAPE)
    return record(root, lambda writer: timepoints(writer, count, shape=shape, **start), **options)


def series(run: Run | str, stream: str = "primary", key: str = KEY) -> str:
    """The address of a series below the API's."""
    return f"/runs/{run if isinstance(run, str) else run.uid}/streams/{stream}/series/{key}"
