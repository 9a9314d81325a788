"""At the prompt, --root takes the address of a server where a command only reads."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from gently_bluesky.serve.app import create_app
from tests.data_rig import newest
from tests.serve_rig import KEY, recorded, serving
from tests.test_cli import gently


@pytest.fixture(scope="module")
def here_and_there(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, str]]:
    root = tmp_path_factory.mktemp("cli") / "root"
    recorded(root, 2)
    recorded(root, 3)
    with serving(create_app(root)) as url:
        yield root, url


@pytest.mark.parametrize(
    "command",
    [("runs",), ("runs", "--session", "nope"), ("lineage", "-1", "--json"), ("diff", "-1", "-2")],
    ids=str,
)
def test_what_is_said_is_the_same(here_and_there: tuple[Path, str], command: tuple[str, ...]) -> None:
    root, url = here_and_there
    here, there = (gently(*command, "--root", where) for where in (root, url))
    assert (here.returncode, there.returncode) == (0, 0), there.stderr
    assert there.stdout.replace(url, str(root)) == here.stdout


def test_show_says_what_a_run_is_and_where_it_is_there(here_and_there: tuple[Path, str]) -> None:
    root, url = here_and_there
    here, there = (json.loads(gently("show", "--root", where, "--json").stdout) for where in (root, url))
    assert there.pop("folder") == Path(here.pop("folder")).relative_to(root).as_posix()
    assert there == here
    shown = gently("show", "-1", "--root", url)
    assert (shown.returncode, KEY in shown.stdout) == (0, True), shown.stderr


def test_a_run_is_brought_here_with_its_pixels(here_and_there: tuple[Path, str], tmp_path: Path) -> None:
    done = gently("replay", "-1", "--root", here_and_there[1], "--into", tmp_path / "copy", "--fill")
    assert done.returncode == 0, done.stderr
    assert newest(tmp_path / "copy")["primary"][KEY].shape[0] == 3


@pytest.mark.parametrize("to", ["csv", "json", "tiff-stack"])
def test_an_export_comes_from_there(here_and_there: tuple[Path, str], tmp_path: Path, to: str) -> None:
    root, url = here_and_there
    for where, name in ((root, "here"), (url, "there")):
        done = gently("export", "-1", "--root", where, "--to", to, "--into", tmp_path / name)
        assert done.returncode == 0, done.stderr
    here, there = (
        {path.name: path.read_bytes().replace(f"{root}/".encode(), b"") for path in (tmp_path / name).iterdir()}
        for name in ("here", "there")
    )
    assert there.keys() == here.keys()
    assert to == "tiff-stack" or there == here  # a TIFF says when it was written


@pytest.mark.parametrize("command", ["verify", "recover", "reindex", "retain", "convert", "serve", "demo"])
def test_what_needs_a_folder_says_so(command: str) -> None:
    done = gently(command, "--root", "http://far:8000")
    assert done.returncode == 2
    assert "http://far:8000 is an address; this needs a folder here" in " ".join(done.stderr.split())


def test_what_is_written_is_written_to_a_folder(here_and_there: tuple[Path, str]) -> None:
    for command in (["replay", "-1"], ["export", "-1", "--to", "csv"]):
        done = gently(*command, "--root", here_and_there[0], "--into", "http://far:8000")
        assert done.returncode == 2
        assert "needs a folder here" in " ".join(done.stderr.split())


def test_nobody_there_is_one_line_and_status_1() -> None:
    done = gently("runs", "--root", "http://127.0.0.1:9")
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "Nobody answers at http://127.0.0.1:9" in done.stderr
