"""The WebSocket: documents as they are journalled, and the newest pictures, to each client as fast as it can take.

Documents are never skipped: a client that is behind reads on in the journal from where it was, and what waits for
it is on disk. Pictures are: what is newer takes the place of what was not sent yet. Nobody waits for anybody, a
client costs a bounded amount of memory, and the writer of a run never learns that somebody looks.
"""

import asyncio
import contextlib
import json
import shutil
import threading
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from fastapi import APIRouter, WebSocket
from starlette.websockets import WebSocketDisconnect

from gently_bluesky.errors import GentlyError, NotHereError, TooBusyError
from gently_bluesky.serve.asked import Asked, AskedWrongError, heard, progress_of
from gently_bluesky.serve.following import Follower, Journal
from gently_bluesky.serve.newest import Key, Made, PictureMaker
from gently_bluesky.serve.problems import UNFORESEEN, problem_of
from gently_bluesky.store.journal import Pair
from gently_bluesky.store.strict_json import encode, plain

MOST_CLIENTS = 64
SEND_S = 20.0
"""How long a client may take for one message before it is let go."""

_PROGRESS_S = 0.2
_HEARTBEAT_S = 5.0
_SPACE_S = 2.0
_MOST_KEYS = 256  # of pictures that a client was sent


class Live:
    """What is followed under a root, and who listens; it costs nothing while nobody does."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.pictures = PictureMaker(self._wake_all)
        self.follower = Follower(root, self._changed)
        self._clients: dict[Client, asyncio.AbstractEventLoop] = {}
        self._lock = threading.Lock()
        self._space = (0.0, 0, 0)

    def join(self, client: "Client", loop: asyncio.AbstractEventLoop) -> bool:
        """Let a client listen; False if there are too many. It may wait for a disk: not for an event loop."""
        with self._lock:
            if len(self._clients) >= MOST_CLIENTS:
                return False
            if not self._clients:
                self.pictures.start()
                self.follower.start()
            self._clients[client] = loop
            return True

    def leave(self, client: "Client") -> None:
        """Undo `join`; with the last one, everything ends."""
        with self._lock:
            self.pictures.want(client, None)
            if self._clients.pop(client, None) is not None and not self._clients:
                self.follower.close()
                self.pictures.close()

    def space(self) -> tuple[int, int]:
        """Give the free and all bytes of the disk, as they were a moment ago."""
        if time.monotonic() - self._space[0] > _SPACE_S:
            with contextlib.suppress(OSError):
                usage = shutil.disk_usage(self.root)
                self._space = (time.monotonic(), usage.free, usage.total)
        return self._space[1:]

    def _changed(self, journal: Journal, pairs: list[Pair]) -> None:
        self.pictures.take(journal, pairs)
        self._wake_all()

    def _wake_all(self) -> None:
        for client, loop in list(self._clients.items()):
            with contextlib.suppress(RuntimeError):  # its loop has ended
                loop.call_soon_threadsafe(client.wake.set)


class Client:
    """One WebSocket."""

    def __init__(self, socket: WebSocket, live: Live, asked: Asked) -> None:
        self.wake = asyncio.Event()
        self._socket = socket
        self._live = live
        self._asked = asked
        self._want = asked.want
        self._of: Journal | None = None
        self._at: dict[str, tuple[Journal, int]] = {}
        self._shown: dict[Key, int] = {}
        self._drawn = True
        self._wrong: AskedWrongError | None = None
        self._next_of: dict[Key, float] = {}
        self._told: dict[str, int] = {}
        self._next_progress = 0.0
        self._heartbeat = 0.0

    async def serve(self) -> None:
        """Send until the client has gone, or takes nothing any more."""
        if not await asyncio.to_thread(self._live.join, self, asyncio.get_running_loop()):
            await refuse(
                self._socket, 1013, TooBusyError(f"{MOST_CLIENTS} clients listen already. Try again later.")
            )
            return
        try:
            try:
                await asyncio.to_thread(self._begin)
            except GentlyError as error:
                await refuse(self._socket, 1008, error)
                return
            await self._hello()
            await self._go_on()
        except (TimeoutError, WebSocketDisconnect, RuntimeError):
            pass  # it went, or does not read: it will come back and say where it was
        except (GentlyError, OSError) as error:
            await refuse(self._socket, 1011, error)
        finally:
            await asyncio.shield(asyncio.to_thread(self._end))

    def _begin(self) -> None:
        begin, asked = self._asked.begin, self._asked
        if asked.run is not None:
            self._of = self._live.follower.ask(asked.run)
            self._at[self._of.uid] = self._of, begin.get("", 0)
        else:
            current = self._live.follower.current()
            for uid in begin.keys() - {journal.uid for journal in current}:
                with contextlib.suppress(GentlyError):  # it went
                    journal = self._live.follower.ask(uid)
                    self._live.follower.let_go(journal)
                    current.append(journal)
            newest = max((j.start["time"] for j in current if j.uid in begin), default=float("inf"))
            for journal in sorted(current, key=lambda journal: float(journal.start["time"])):
                missed = 0 if journal.start["time"] > newest else journal.offset
                self._at[journal.uid] = journal, begin.get(journal.uid, missed)
        for journal, offset in self._at.values():
            if not journal.begins_at(offset):
                raise NotHereError(f"No document of run {journal.uid} begins at byte {offset} of its journal.")
        self._set_want()

    def _set_want(self) -> None:
        if self._of is not None:
            self._want = replace(self._want, run=self._of.uid)
        self._live.pictures.want(self, self._want if self._want.rate else None)

    def _end(self) -> None:
        if self._of is not None:
            self._live.follower.let_go(self._of)
        self._live.leave(self)

    async def _hello(self) -> None:
        runs = [
            {"run": uid, "offset": offset, "is_open": journal.stop is None}
            for uid, (journal, offset) in self._at.items()
        ]
        await self._tell({"type": "hello", "api": 1, "runs": runs})

    async def _go_on(self) -> None:
        receiving = asyncio.create_task(self._receive())
        try:
            while not receiving.done():
                self.wake.clear()
                sent = await self._send_wrong()
                sent |= await self._send_documents()
                sent |= await self._send_progress()
                sent |= await self._send_picture()
                if not sent:
                    with contextlib.suppress(TimeoutError):
                        await asyncio.wait_for(self.wake.wait(), self._until_next())
        finally:
            receiving.cancel()
            await asyncio.gather(receiving, return_exceptions=True)

    def _until_next(self) -> float:
        now = time.monotonic()
        due = [self._heartbeat]
        if self._drawn:
            due += [self._next_of.get(key, 0.0) for key in self._newer_pictures()]
        if self._has_progress():
            due.append(self._next_progress)
        return max(0.001, min(due) - now)

    # --- documents ------------------------------------------------------------------------------------------

    async def _send_documents(self) -> bool:
        if self._of is None:
            for journal in self._live.follower.current():
                self._at.setdefault(journal.uid, (journal, 0))
        sent = False
        for uid, (journal, offset) in list(self._at.items()):
            messages = journal.at_hand(offset)
            if messages is None:
                messages = await asyncio.to_thread(journal.from_disk, offset)
            for message in messages:
                await self._send(message.text)
                self._at[uid] = journal, message.end
                sent = True
        return sent

    # --- progress -------------------------------------------------------------------------------------------

    def _has_progress(self) -> bool:
        return any(self._told.get(uid) != offset for uid, (_, offset) in self._at.items())

    async def _send_progress(self) -> bool:
        now = time.monotonic()
        if not (self._has_progress() and now >= self._next_progress) and now < self._heartbeat:
            return False
        free, total = await asyncio.to_thread(self._live.space)
        changed = [journal for uid, (journal, at) in self._at.items() if self._told.get(uid) != at]
        said: dict[str, Any] = {"type": "progress", "time": time.time(), "free_bytes": free, "total_bytes": total}
        for journal in changed:
            await self._tell(said | progress_of(journal))
        if not changed:
            await self._tell(said)
        self._told = {uid: at for uid, (_, at) in self._at.items()}
        current = {journal.uid for journal in self._live.follower.current()}
        if self._of is None:  # of what is over and told, nothing more comes
            self._at = {uid: (j, at) for uid, (j, at) in self._at.items() if uid in current or at < j.offset}
        self._next_progress, self._heartbeat = now + _PROGRESS_S, now + _HEARTBEAT_S
        return True

    # --- pictures -------------------------------------------------------------------------------------------

    def _newer_pictures(self) -> dict[Key, Made]:
        there = self._live.pictures.newest(self._want) if self._want.rate else {}
        return {key: made for key, made in there.items() if made.number > self._shown.get(key, 0)}

    async def _send_picture(self) -> bool:
        now = time.monotonic()
        newer = self._newer_pictures() if self._drawn else {}
        due = {key: made for key, made in newer.items() if self._next_of.get(key, 0.0) <= now}
        for key, made in due.items():
            await self._send(made.message)
            self._shown[key] = made.number
            self._next_of[key] = now + 1 / (self._want.rate or 1)
            self._drawn = not self._asked.acknowledged
        for kept in (self._shown, self._next_of):
            while len(kept) > _MOST_KEYS:
                del kept[next(iter(kept))]
        return bool(due)

    # --- the wire -------------------------------------------------------------------------------------------

    async def _receive(self) -> None:
        try:
            while True:
                self._hear(await self._socket.receive_text())
        except (WebSocketDisconnect, RuntimeError, KeyError):
            return
        finally:
            self.wake.set()

    def _hear(self, text: str) -> None:
        """Take what a client says: that it has drawn, or what it wants from now on. Nonsense changes nothing."""
        try:
            want = heard(text, self._want)
        except AskedWrongError as error:
            self._wrong = error
        else:
            if want != self._want:
                self._want = want
                self._shown.clear()
                self._set_want()
            self._drawn = True
        self.wake.set()

    async def _send_wrong(self) -> bool:
        wrong, self._wrong = self._wrong, None
        if wrong is not None:
            await self._tell(_error(wrong))
        return wrong is not None

    async def _tell(self, said: Mapping[str, Any]) -> None:
        await self._send(encode(plain(said)).decode())

    async def _send(self, message: str | bytes) -> None:
        async with asyncio.timeout(SEND_S):
            if isinstance(message, str):
                await self._socket.send_text(message)
            else:
                await self._socket.send_bytes(message)


async def refuse(socket: WebSocket, code: int, error: Exception) -> None:
    """Say why not, in words, and close."""
    with contextlib.suppress(TimeoutError, WebSocketDisconnect, RuntimeError):
        async with asyncio.timeout(SEND_S):
            await socket.send_text(json.dumps(_error(error)))
            await socket.close(code)


def _error(error: Exception) -> dict[str, Any]:
    problem = problem_of(error) or UNFORESEEN
    return {"type": "error", "status": int(problem.status), "detail": problem.detail}


def live_router(root: Path | str) -> APIRouter:
    """Give the route of the WebSocket; who may come in is decided by the doors of the application."""
    router, live = APIRouter(), Live(Path(root))

    @router.websocket("/api/v1/live")
    async def follow(socket: WebSocket) -> None:
        """Send documents, progress and pictures; see the README."""
        await socket.accept()
        try:
            asked = Asked.of(socket.query_params)
        except AskedWrongError as error:
            await refuse(socket, 1008, error)
            return
        await Client(socket, live, asked).serve()

    return router
