"""``gently-bluesky serve``: where it listens, to whom it opens, and what it says of that."""

import socket
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from tests.data_rig import DEADLINE_S, REPOSITORY
from tests.serve_rig import API, recorded
from tests.test_cli import gently

_MAIN = "from gently_bluesky.cli import main; main()"
TOKEN = "a-token-of-the-tests-0123456789"


class Command:
    """`gently-bluesky serve` in a process of its own."""

    def __init__(self, *arguments: str, token: str | None = None) -> None:
        environment = {"PATH": "/usr/bin:/bin", **({"GENTLY_TOKEN": token} if token else {})}
        self.process = subprocess.Popen(
            [sys.executable, "-u", "-c", _MAIN, "serve", "--port", "0", *arguments],
            cwd=REPOSITORY,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def address(self) -> str:
        """What it says of where it is."""
        assert self.process.stdout is not None
        return self.process.stdout.readline().rsplit(" ", 1)[-1].strip()

    def end(self) -> tuple[str, str]:
        """Let it end, as Ctrl-C does; what it wrote."""
        self.process.terminate()
        return self.process.communicate(timeout=DEADLINE_S)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    recorded(tmp_path / "root", 1)
    return tmp_path / "root"


def test_it_serves_this_machine_alone_and_ends_quietly(root: Path) -> None:
    command = Command("--root", str(root))
    address = command.address()
    try:
        assert address.startswith("http://127.0.0.1:")
        answer = httpx.get(f"{address}api/v1", timeout=DEADLINE_S)
        assert answer.json()["runs"] == 1
        assert "server" not in answer.headers
    finally:
        _, errors = command.end()
    assert "Traceback" not in errors


def test_a_port_that_is_taken_is_said_in_one_line(root: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = str(other.getsockname()[1])
        for name in ("serve", "agent"):
            result = gently(name, *(["--http"] if name == "agent" else []), "--port", port, "--root", root)
            assert (result.returncode, result.stderr.count("\n")) == (1, 1)
            assert f"port {port} of 127.0.0.1" in result.stderr


def test_beyond_this_machine_there_is_a_token_even_if_none_was_given(root: Path) -> None:
    command = Command("--root", str(root), "--host", "0.0.0.0")
    address = command.address()
    try:
        base, _, token = address.partition("/?token=")
        assert len(token) >= 40
        port = base.rpartition(":")[2]
        url = f"http://127.0.0.1:{port}{API}"
        assert httpx.get(url, timeout=DEADLINE_S).status_code == 401
        assert httpx.get(url, headers={"authorization": f"Bearer {token}"}).status_code == 200
        assert httpx.get(url, headers={"authorization": f"Bearer {token}", "host": "x.org"}).status_code == 421
    finally:
        command.end()


def test_a_token_comes_from_the_environment_or_a_file_and_is_not_logged(root: Path, tmp_path: Path) -> None:
    (tmp_path / "token").write_text(f"{TOKEN}\n")
    for arguments, token in (([], TOKEN), (["--token-file", str(tmp_path / "token")], None)):
        command = Command("--root", str(root), "--access-log", *arguments, token=token)
        base = command.address().rstrip("/")
        try:
            assert TOKEN not in base  # who gave it knows it
            assert httpx.get(f"{base}{API}", timeout=DEADLINE_S).status_code == 401
            assert httpx.get(f"{base}/?token={TOKEN}").status_code == 303
        finally:
            out, errors = command.end()
        assert "401" in out + errors
        assert TOKEN not in out + errors


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--token", "short"], "16 to 200"),
        (["--allow-origin", "viewer"], "no origin"),
        (["--token", TOKEN, "--token-file", "x"], "two tokens"),
        (["--root", "/nowhere/at/all"], "/nowhere/at/all"),
    ],
)
def test_what_cannot_be_meant_is_one_line_and_exit_status_1(root: Path, arguments: list[str], says: str) -> None:
    command = Command("--root", str(root), *arguments)
    _, errors = command.process.communicate(timeout=DEADLINE_S)
    assert command.process.returncode == 1
    assert says in errors
    assert len(errors.strip().splitlines()) == 1
