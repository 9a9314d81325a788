"""What the tests of the agent share: roots to be asked, and a client of the MCP SDK that asks them."""

import base64
import contextlib
import io
import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio
import httpx2
import numpy as np
from mcp import Client, StdioServerParameters
from mcp.client.streamable_http import streamable_http_client
from mcp_types import CallToolResult, ImageContent, TextContent
from numpy.typing import NDArray
from PIL import Image

from gently_bluesky import Catalog, derive
from gently_bluesky.derived import subtract_background
from gently_bluesky.plans import Embryo, acquire_timelapse, snap
from tests.data_rig import REPOSITORY
from tests.old_session_rig import a_session, take_in
from tests.test_plans import microscope

SESSION = "2026-11-23"
EMBRYOS = {name: Embryo(name=name, x_um=x, y_um=-240.0) for name, x in (("embryo_1", -400.0), ("embryo_3", 120.0))}
TIMEPOINTS = 4


def a_night(root: Path) -> None:
    """A time-lapse of two embryos in two views, a snapshot of the bottom camera, a derived run of one embryo."""
    with microscope(root) as (engine, dispim, writer):
        catalog = Catalog(writer.root)
        asked: dict[str, Any] = {"session": SESSION, "catalog": catalog, "channels": ["488 only"]}
        said = {"operator": "ada", "purpose": "test"}
        engine(acquire_timelapse(dispim, [*EMBRYOS.values()], count=TIMEPOINTS - 1, md=said, **asked))
        engine(snap(dispim.bottom_camera, also=[dispim.xy_stage, dispim.z_stage], md={"session": SESSION}))
        engine(acquire_timelapse(dispim, [EMBRYOS["embryo_3"]], count=1, exposure_ms=4.0, **asked))
        derive(
            subtract_background,
            catalog.volumes(embryo="embryo_3", view="A"),
            into=catalog,
            parameters={"percentile": 5},
        )


def an_old_session(folder: Path) -> Path:
    """A root into which an old session folder was imported, where it lies: two embryos, three timepoints."""
    a_session(folder / "Gently3")
    take_in(folder / "Gently3", folder / "root")
    return folder / "root"


# --- a client -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Answer:
    """What a tool answered."""

    is_error: bool
    text: str
    pictures: tuple[bytes, ...]

    @property
    def facts(self) -> dict[str, Any]:
        """The facts, as a client of any language reads them."""
        assert not self.is_error, self.text
        facts = json.loads(self.text, parse_constant=lambda name: f"{name} is no JSON")
        assert isinstance(facts, dict)
        return facts

    def rows(self, key: str) -> list[dict[str, Any]]:
        """A table among the facts, a dict a row."""
        table = self.facts[key]
        return [dict(zip(table["columns"], row, strict=True)) for row in table["rows"]]

    def pixels(self) -> NDArray[Any]:
        """The picture."""
        (jpeg,) = self.pictures
        return np.asarray(Image.open(io.BytesIO(jpeg)))

    @classmethod
    def of(cls, result: CallToolResult) -> "Answer":
        texts = [each.text for each in result.content if isinstance(each, TextContent)]
        images = [each for each in result.content if isinstance(each, ImageContent)]
        assert len(texts) == 1
        assert all(image.mime_type == "image/jpeg" for image in images)
        return cls(bool(result.is_error), texts[0], tuple(base64.b64decode(image.data) for image in images))


Ask = Callable[..., Awaitable[Answer]]


@contextlib.asynccontextmanager
async def asking(server: Any) -> AsyncIterator[tuple[Client, Ask]]:
    """A client of a server, and a function that asks it."""
    async with Client(server, read_timeout_seconds=60) as client:

        async def ask(tool: str, /, **arguments: Any) -> Answer:
            return Answer.of(await client.call_tool(tool, arguments))

        yield client, ask


def over_stdio(root: Path, *options: str) -> StdioServerParameters:
    """A server that is a child process of the client."""
    arguments = ["-m", "gently_bluesky", "agent", "--root", str(root), *options]
    environment = {"PYTHONPATH": str(REPOSITORY), "PATH": os.environ["PATH"]}
    return StdioServerParameters(command=sys.executable, args=arguments, env=environment, cwd=REPOSITORY)


@contextlib.contextmanager
def serving(root: Path, *options: str, environment: Mapping[str, str] | None = None) -> Iterator[str]:
    """A server in a process of its own, over HTTP; gives its address."""
    process = subprocess.Popen(
        [sys.executable, "-m", "gently_bluesky", "agent", "--root", root, "--http", "--port", "0", *options],
        stderr=subprocess.PIPE,
        text=True,
        cwd=REPOSITORY,
        env=os.environ | {"PYTHONPATH": str(REPOSITORY)} | dict(environment or {}),
    )
    watchdog = threading.Timer(120, process.kill)
    watchdog.start()
    assert process.stderr is not None
    try:
        line = process.stderr.readline()
        found = re.search(r"http://\S+", line)
        assert found, line + process.stderr.read()
        yield found[0]
    finally:
        watchdog.cancel()
        watchdog.join()
        process.terminate()
        process.communicate(timeout=30)


@contextlib.asynccontextmanager
async def over_http(address: str, token: str | None = None) -> AsyncIterator[Any]:
    """A server's address, with a token if it wants one."""
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    async with (
        httpx2.AsyncClient(headers=headers, timeout=60) as http_client,
        streamable_http_client(address, http_client=http_client) as streams,
    ):
        yield streams


def run(talk: Callable[..., Awaitable[None]], *arguments: Any) -> None:
    """Run a talk to its end."""
    anyio.run(talk, *arguments)
