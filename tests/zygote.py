"""A process that has imported everything once and forks a fresh one for each trial, in milliseconds.

The zygote has one thread and no RunEngine, so a child begins as a new process would. Child and test talk over a
socket, in lines: what a child has said is heard, however it ends. No child outlives its zygote, and no zygote its
test run.
"""

import ctypes
import gc
import importlib
import json
import os
import select
import selectors
import signal
import socket
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

REPOSITORY = Path(__file__).parent.parent
DEADLINE_S = 60.0
_MESSAGE_BYTES = 1 << 20
_PR_SET_PDEATHSIG, _PR_SET_PTRACER, _ANY = 1, 0x59616D61, ctypes.c_ulong(-1)


class Line:
    """The child's end of the line."""

    def __init__(self, end: socket.socket) -> None:
        self._end = end
        self._lock = threading.Lock()

    def say(self, *words: Any) -> None:
        """Say something; it is heard even if the process is killed at once."""
        with self._lock:
            self._end.sendall(json.dumps(words).encode() + b"\n")

    def hear(self) -> None:
        """Wait for a word."""
        if not self._end.recv(1):
            raise EOFError("nobody is there any more")

    def is_called(self) -> bool:
        """Whether a word has come."""
        return bool(select.select([self._end], [], [], 0)[0])


class Child:
    """A forked process, seen from the test; made by `Zygote.fork`."""

    def __init__(self, pid: int, end: socket.socket, reap: Callable[[int], int]) -> None:
        self.pid = pid
        self.said: list[list[Any]] = []
        self.status: int | None = None
        self._end = end
        self._reap = reap
        self._torn = b""
        self._selector = selectors.DefaultSelector()
        self._selector.register(end, selectors.EVENT_READ)

    def listen(self, seconds: float = DEADLINE_S, *, word: str = "") -> bool:
        """Hear what it says until it has said `word` or ended: False if the time was over before."""
        until = time.monotonic() + seconds
        while not (word and self.heard(word)):
            if not self._selector.select(max(0.0, until - time.monotonic())):
                return False
            try:
                heard = self._end.recv(_MESSAGE_BYTES)
            except ConnectionResetError:
                heard = b""
            if not heard:
                return True
            *lines, self._torn = (self._torn + heard).split(b"\n")
            self.said += [json.loads(line) for line in lines]
        return True

    def heard(self, word: str) -> list[list[Any]]:
        """Give what it said that begins with a word, without that word."""
        return [words[1:] for words in self.said if words[0] == word]

    def tell(self) -> None:
        """Give it the word that it waits for."""
        self._end.send(b"!")

    def kill(self) -> None:
        """SIGKILL."""
        os.kill(self.pid, signal.SIGKILL)  # until it is reaped, nobody else has its number

    def result(self, seconds: float = DEADLINE_S) -> Any:
        """Hear all, and give what its function returned; it must have gone well."""
        assert self.listen(seconds), f"process {self.pid} was not done after {seconds} s; it said {self.said[-3:]}"
        for (error,) in self.heard("error"):
            raise AssertionError(error)
        assert self.heard("done"), f"process {self.pid} died; it said {self.said[-3:]}"
        return self.heard("done")[0][0]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        self.listen()
        self._selector.close()
        self._end.close()
        self.status = self._reap(self.pid)


class Zygote:
    """The zygote, seen from the test."""

    def __init__(self) -> None:
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._control.settimeout(DEADLINE_S)
        self.process = subprocess.Popen(
            [sys.executable, "-c", "from tests.zygote import serve; serve()"],
            cwd=REPOSITORY,
            stdin=theirs.fileno(),
            env=os.environ
            | {"PYTHONPATH": str(REPOSITORY), "PYTHONWARNINGS": "ignore", "OPENBLAS_NUM_THREADS": "1"},
        )
        theirs.close()

    def fork(self, function: str, *, lifetime_s: int = 240, **arguments: Any) -> Child:
        """Fork a child that calls `function` ("module:name") with its `Line` and arguments that JSON takes."""
        ours, theirs = socket.socketpair()
        request = json.dumps({"function": function, "lifetime_s": lifetime_s, "arguments": arguments}).encode()
        socket.send_fds(self._control, [request], [theirs.fileno()])
        theirs.close()
        return Child(int(self._control.recv(_MESSAGE_BYTES)), ours, self._reap)

    def call(self, function: str, **arguments: Any) -> Any:
        """Call a function in a child of its own, and give what it returned."""
        with self.fork(function, **arguments) as child:
            return child.result()

    def _reap(self, pid: int) -> int:
        self._control.send(json.dumps({"reap": pid}).encode())
        return int(self._control.recv(_MESSAGE_BYTES))

    def close(self) -> None:
        """End it, and all its children."""
        self._control.close()
        try:
            self.process.wait(DEADLINE_S)
        finally:
            self.process.kill()
            self.process.wait()


# --- on the other side --------------------------------------------------------------------------------------


def serve() -> None:
    """Be the zygote: fork for each request that comes over standard input, until its other end is closed."""
    control = socket.socket(fileno=os.dup(0))
    os.dup2(os.open(os.devnull, os.O_RDWR), 0)
    os.set_inheritable(control.fileno(), False)
    importlib.import_module("tests.durability_rig")
    gc.collect()
    gc.freeze()  # what is shared stays shared
    assert len(os.listdir("/proc/self/task")) == 1, "a process with threads cannot be forked"  # noqa: PTH208
    while True:
        message, descriptors, _, _ = socket.recv_fds(control, _MESSAGE_BYTES, 1)
        if not message:
            return
        request = json.loads(message)
        if "reap" in request:
            control.send(str(os.waitpid(request["reap"], 0)[1]).encode())
            continue
        zygote, pid = os.getpid(), os.fork()
        if pid == 0:
            control.close()
            _be_child(zygote, Line(socket.socket(fileno=descriptors[0])), **request)
        os.close(descriptors[0])
        control.send(str(pid).encode())


def _be_child(zygote: int, line: Line, function: str, lifetime_s: int, arguments: dict[str, Any]) -> None:
    try:
        libc = ctypes.CDLL(None, use_errno=True)
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        libc.prctl(_PR_SET_PTRACER, _ANY)  # strace may attach
        signal.alarm(lifetime_s)
        if os.getppid() != zygote:
            os._exit(1)
        module, _, name = function.partition(":")
        line.say("done", getattr(importlib.import_module(module), name)(line, **arguments))
    except BaseException:  # noqa: BLE001 - whatever it is, the test is to hear of it
        line.say("error", traceback.format_exc())
        os._exit(1)
    os._exit(0)
