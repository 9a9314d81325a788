"""Live viewing: from an event in the journal to what is seen of it, and what viewers cost whoever acquires.

Server and viewers are processes of their own; acquisition, at a camera's pace, is this one, with its two views.
Without a browser the page's row is left out. Run with its name, this module is many viewers that keep up.
"""

import asyncio
import contextlib
import json
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import bluesky.plans as bp
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect as connect_in_turn

from gently_bluesky import FileWriter
from tests.benchmarks.detector import Detector
from tests.benchmarks.pairs import Row, Spread, Target, child, in_turns
from tests.benchmarks.runs import emptied, run_engine
from tests.benchmarks.serve import server

KEYS = ("spim_a", "spim_b")
VIEWERS = 20
BUFFER_FRAMES = 8
"""Frames that a camera keeps for a program that is late; after that it loses one."""
TIME, LATE, LOST = "time", "late", "lost"

_HEAR = """addEventListener("gently-live-drawn", ({ detail }) => (globalThis.drawn ??= []).push(detail));"""
_Event = tuple[str, int]  # run and seq_num
_Journalled = dict[_Event, float]
_Seen = dict[_Event, dict[str, float]]


def _frames(height: int, width: int) -> list[Any]:
    import numpy as np

    random = np.random.default_rng(1)
    return [random.integers(90, 400, (height, width), "<u2") for _ in range(4)]


class Watched:
    """Runs that somebody may watch: two views, at a camera's pace."""

    def __init__(self, root: Path, planes: int, height: int, width: int, exposure_ms: float) -> None:
        self.root = root
        self._planes, self._frames, self._exposure_ms = planes, _frames(height, width), exposure_ms

    def take(self, volumes: int, delay_s: float = 0.0) -> tuple[Detector, _Journalled, float]:
        """Take a run; give its detector, when each event was in the journal, and how long it took."""
        journalled: _Journalled = {}
        runs: list[str] = []

        def note(name: str, doc: Mapping[str, Any]) -> None:
            if name == "start":
                runs.append(doc["uid"])
            if name == "event":
                journalled[runs[-1], doc["seq_num"]] = time.time()

        with FileWriter(self.root) as writer:
            writer.subscribe(note)
            detector = Detector(writer, KEYS, self._planes, self._frames, exposure_ms=self._exposure_ms)
            begun = time.perf_counter()
            run_engine(writer)(bp.count([detector], num=volumes, delay=delay_s))
            return detector, journalled, time.perf_counter() - begun


def measure(folder: Path, *, tiny: bool) -> Iterator[Row]:
    """Give milliseconds until an event is seen, and what twenty viewers change for the acquisition."""
    planes, height, width, pace_ms, volumes, rounds = (
        (2, 32, 64, 1.0, 2, 1) if tiny else (50, 512, 2048, 10.0, 6, 5)
    )
    with emptied(folder / "live") as root:
        watched = Watched(root, planes, height, width, pace_ms)
        watched.take(1)
        with server("ours", root) as (port, _):
            _until(lambda: _answers(port))
            yield from _latencies(watched, port, 2 if tiny else 12)

            def run(viewers: int) -> Callable[[], Mapping[str, float]]:
                def once() -> Mapping[str, float]:
                    with _viewers(port, viewers):
                        detector, _, took = watched.take(volumes)
                    shutil.rmtree(next(iter(root.glob("runs/*/*/*"))), ignore_errors=True)
                    late = sorted(detector.late)
                    lost = sum(each > BUFFER_FRAMES * pace_ms / 1e3 for each in late)
                    return {TIME: took, LATE: late[int(0.99 * (len(late) - 1))], LOST: lost}

                return once

            sides = {"viewers": run(2 if tiny else VIEWERS), "none": run(0), "control": run(0)}
            measured = in_turns(sides, rounds=rounds, settle=not tiny)
    times = measured.shown("viewers", TIME), measured.shown("none", TIME)
    yield Row(
        "live",
        f"a camera-paced run with {VIEWERS} viewers, time to one with none",
        measured.ratio("viewers", "none", TIME),
        "x",
        None,
        *times,
    )
    yield Row("live", "the same with none, to one with none", measured.ratio("control", "none", TIME), "x")
    for who, side in ((f"{VIEWERS} viewers", "viewers"), ("none, the control", "control")):
        shown = measured.shown(side, LATE), measured.shown("none", LATE)
        more = measured.more(side, "none", LATE, 1e3)
        yield Row(
            "live", f"later taken from the camera, of 100 frames the latest, with {who}", more, "ms", None, *shown
        )
    lost = Spread.of(measured.values("viewers", LOST))
    each = (f"{sum(measured.values(side, LOST)):.0f} in all" for side in ("viewers", "none"))
    yield Row("live", f"frames lost with {VIEWERS} viewers, and with none", lost, "", Target("<=", 0), *each)


# --- how soon -------------------------------------------------------------------------------------------------


def _latencies(watched: Watched, port: int, volumes: int) -> Iterator[Row]:
    heard: _Seen = {}
    with _listening(port, heard):
        _, journalled, _ = watched.take(volumes, delay_s=0.3)
        _until(lambda: all(len(heard.get(event, {})) == len(KEYS) for event in list(journalled)[-1:]))
    yield _row("from a journalled event to its pictures at a client", journalled, heard, None)
    if shutil.which("chromium") is None:
        return
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox", "--headless", "--disable-gpu"]
        )
        page = browser.new_page()
        page.add_init_script(_HEAR)
        page.goto(f"http://127.0.0.1:{port}/")
        _until(lambda: bool(page.evaluate("(globalThis.drawn ?? []).length >= 2")))
        taken: list[_Journalled] = []
        acquiring = threading.Thread(target=lambda: taken.append(watched.take(volumes, delay_s=0.3)[1]))
        acquiring.start()
        seen: _Seen = {}
        deadline = time.monotonic() + 120
        while not taken or len(seen.get(list(taken[0])[-1], {})) < len(KEYS):
            assert time.monotonic() < deadline
            for each in page.evaluate("drawn.splice(0)"):
                event = each["run"], each["seq_num"]
                seen.setdefault(event, {}).setdefault(each["series"], each["at"] / 1e3)
            page.wait_for_timeout(100)
        acquiring.join()
        browser.close()
    yield _row("from a journalled event to the page's pixels, both views", taken[0], seen, Target("<=", 150))


def _row(what: str, journalled: _Journalled, seen: _Seen, target: Target | None) -> Row:
    """Both views count: an event is seen when the later of them is."""
    there = [event for event in journalled if len(seen.get(event, {})) == len(KEYS)]
    times = [(max(seen[event].values()) - journalled[event]) * 1e3 for event in there]
    return Row("live", what, Spread.of(times), "ms", target, f"{len(there)} of {len(journalled)} events")


@contextlib.contextmanager
def _listening(port: int, heard: _Seen) -> Iterator[None]:
    with connect_in_turn(f"ws://127.0.0.1:{port}/api/v1/live?rate=8", max_size=None) as listener:

        def hear() -> None:
            with contextlib.suppress(ConnectionClosed):
                for message in listener:
                    if isinstance(message, bytes):
                        about = json.loads(message.partition(b"\n")[0])
                        event = about["run"], about["seq_num"]
                        heard.setdefault(event, {}).setdefault(about["series"], time.time())

        thread = threading.Thread(target=hear)
        thread.start()
        _until(lambda: len(heard) > 0)
        heard.clear()
        yield
        listener.close()
        thread.join()


def _answers(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
        return True
    return False


def _until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


# --- many viewers ---------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _viewers(port: int, count: int) -> Iterator[None]:
    if not count:
        yield
        return
    process = child("live", port, count)
    try:
        assert process.stdout is not None
        process.stdout.readline()
        yield
    finally:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


async def _view(port: int, ready: asyncio.Semaphore) -> None:
    async with connect(f"ws://127.0.0.1:{port}/api/v1/live?ack=true&size=512&rate=5", max_size=None) as viewer:
        ready.release()
        async for message in viewer:
            if isinstance(message, bytes):
                await viewer.send('{"drawn":1}')


async def _watch(port: int, count: int) -> None:
    ready = asyncio.Semaphore(0)
    viewers = [asyncio.create_task(_view(port, ready)) for _ in range(count)]
    for _ in viewers:
        await ready.acquire()
    print("all are there", flush=True)
    await asyncio.gather(*viewers)


if __name__ == "__main__":
    with contextlib.suppress(ConnectionClosed, subprocess.SubprocessError):
        asyncio.run(_watch(int(sys.argv[1]), int(sys.argv[2])))
