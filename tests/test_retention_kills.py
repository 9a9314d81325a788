"""Retention that is interrupted at any instant: nothing is lost, nothing wrong is read, and it comes to an end."""

import contextlib
import errno
import itertools
import json
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gently_bluesky.keep.acts import finish_interrupted
from gently_bluesky.keep.discard import restore
from gently_bluesky.keep.retention import apply
from gently_bluesky.store.audit import read_audit
from gently_bluesky.store.manifest import read_entries
from gently_bluesky.store.removed import Removed
from tests.data_rig import Child, in_child, newest
from tests.retention_rig import EVERYTHING, files, fresh, hold_root, planned, readable, timelapse

STEPS = [
    name
    for name in ("rename", "unlink", "write", "fdatasync", "fsync", "mkdir", "rmdir", "ftruncate")
    if hasattr(os, name)
]
"""Of the system, all that an act uses to change anything."""

ACTS: dict[str, Callable[[Path], object]] = {
    "removing": lambda root: apply(planned(root)),
    "restoring": lambda root: restore(root, -1),
    "deleting": lambda root: apply(planned(root, days=100), now=planned(root, days=100).now),
}
BEFORE: dict[str, tuple[str, ...]] = {"removing": (), "restoring": ("removing",), "deleting": ("removing",)}


class Stopped(BaseException):
    """As good as a kill: nobody catches it."""


class Interruption:
    """Stops at one step of the system, before it or after it, a write in its middle; counts the steps."""

    def __init__(self, step: int, stop: Callable[[], None], *, after: bool = False) -> None:
        self.done = 0
        self._step, self._stop, self._after = step, stop, after

    def install(self, patched: pytest.MonkeyPatch) -> None:
        for name in STEPS:
            patched.setattr(os, name, self._wrapped(name, getattr(os, name)))

    def _wrapped(self, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            self.done += 1
            if self.done - 1 != self._step:
                return real(*arguments, **options)
            if self._after:
                real(*arguments, **options)
            elif name == "write" and len(arguments[1]) > 30:
                real(arguments[0], bytes(arguments[1])[:20])
            return self._stop()

        return call


def stopped() -> None:
    raise Stopped


def refused() -> None:
    raise OSError(errno.ENOSPC, "no space left")


def prepared(root: Path, act: str) -> Path:
    timelapse(root, 2)
    for before in BEFORE[act]:
        ACTS[before](root)
    return root


def images(found: dict[str, bytes]) -> dict[str, bytes]:
    """Of files, those of volumes, wherever they are."""
    return {name.partition("/cam_image")[2]: content for name, content in found.items() if "/cam_image" in name}


def hold_after(root: Path, act: str, whole: dict[str, bytes], *, tidy: bool = True) -> None:
    """What must hold after an interruption, before and after it was brought to its end."""
    run = newest(root)
    first = readable(run)
    if act != "deleting":
        assert images(files(root)) == images(whole)
    finish_interrupted(root)
    hold_root(root)
    empty = [path for path in root.glob("trash/*/**/") if not any(path.iterdir())]
    assert not (empty and tidy), "empty folders are left"
    assert readable(fresh(root, run)) == first, "what could be read can be read"
    before = files(root)
    assert finish_interrupted(root) == []
    assert files(root) == before
    in_trash = [how for entry in read_entries(run.folder) if (how := Removed.of(entry)) and how.deleted is None]
    if in_trash:
        restore(root, -1)
    hold_root(root)
    if act != "deleting":
        assert readable(fresh(root, run)) == [0, 1]
    assert {name: content for name, content in files(root).items() if name.endswith("journal.jsonl")} == {
        name: content for name, content in whole.items() if name.endswith("journal.jsonl")
    }


@pytest.mark.parametrize(
    ("stop", "after"), [(stopped, False), (stopped, True), (refused, False)], ids=["before", "after", "refused"]
)
@pytest.mark.parametrize(
    ("every_format", "act"),
    [*(("ome-tiff", act) for act in ACTS), ("ome-zarr", "removing"), ("ome-zarr", "deleting")],
    indirect=["every_format"],
)
def test_an_act_that_is_stopped_at_any_step_loses_nothing_and_is_finished(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    every_format: str,
    act: str,
    stop: Callable[[], None],
    after: bool,
) -> None:
    whole = prepared(tmp_path / "root", act)
    for step in itertools.count():
        root = tmp_path / str(step)
        shutil.copytree(whole, root)
        interruption = Interruption(step, stop, after=after)
        with monkeypatch.context() as patched, contextlib.suppress(Stopped, OSError):
            interruption.install(patched)
            ACTS[act](root)
        if interruption.done <= step:
            break
        hold_after(root, act, files(whole), tidy=stop is stopped)
        shutil.rmtree(root)
    assert step > 10


KILLED = """
import os, shutil, signal, sys
from pathlib import Path
import pytest
from tests.test_retention_kills import ACTS, Interruption

whole, act = Path(sys.argv[1]), sys.argv[2]
step = 0
while True:
    root = whole.parent / f"{act}-{step}"
    shutil.copytree(whole, root)
    child = os.fork()
    if not child:
        Interruption(step, lambda: os.kill(os.getpid(), signal.SIGKILL)).install(pytest.MonkeyPatch())
        ACTS[act](root)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    if os.WIFEXITED(status):
        assert status == 0
        break
    step += 1
print(step, flush=True)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="forks, to be killed at every step")
@pytest.mark.parametrize("act", ACTS)
def test_an_act_whose_process_is_killed_at_any_step_loses_nothing_and_is_finished(
    tmp_path: Path, act: str
) -> None:
    whole = prepared(tmp_path / "root", act)
    steps = int(in_child(KILLED, whole, act))
    assert steps > 10
    for step in range(steps):
        hold_after(tmp_path / f"{act}-{step}", act, files(whole))


def test_the_next_apply_finishes_what_was_interrupted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = prepared(tmp_path / "root", "removing")
    with monkeypatch.context() as patched:
        patched.setattr(os, "rename", lambda *_: stopped())
        with pytest.raises(Stopped):
            apply(planned(root))
    assert [entry.state for entry in read_entries(newest(root).folder)] == ["removed", "removed"]
    assert readable(newest(root)) == [0, 1], "what lies at its place is served"
    assert len(apply(planned(root)).removed) == 0, "the plan took what the manifest said"
    assert [act["act"] for act in read_audit(root)] == ["removing", "removed"]
    assert len(apply(planned(root)).removed) == 2
    hold_root(root)


def test_an_act_on_a_run_that_somebody_took_away_is_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = prepared(tmp_path / "root", "removing")
    with monkeypatch.context() as patched:
        patched.setattr(os, "rename", lambda *_: stopped())
        with pytest.raises(Stopped):
            apply(planned(root))
    newest(root).folder.rename(tmp_path / "elsewhere")
    assert finish_interrupted(root) == []
    assert list(read_audit(root))[-1]["finished"] == "there is no such run any more"
    assert finish_interrupted(root) == []


def test_an_act_of_a_living_process_is_left_to_it(tmp_path: Path) -> None:
    root = prepared(tmp_path / "root", "removing")
    with Child(HELD_UP, root) as other:
        assert other.line() == "moving"
        before = files(root)
        assert finish_interrupted(root) == []
        assert files(root) == before
        assert readable(newest(root)) == [0, 1]
        other.tell()
        other.end()
    assert readable(newest(root)) == []
    hold_root(root)


HELD_UP = """
import os, sys
from pathlib import Path
from gently_bluesky.keep.retention import apply
from tests.retention_rig import planned
rename, asked = os.rename, []
def slow(*paths):
    if not asked:
        asked.append(True)
        print("moving", flush=True)
        sys.stdin.readline()
    rename(*paths)
os.rename = slow
apply(planned(Path(sys.argv[1])))
"""

TO_AND_FRO = """
import sys
from pathlib import Path
from gently_bluesky.keep.retention import apply
from gently_bluesky.keep.discard import restore
from tests.retention_rig import planned
root = Path(sys.argv[1])
print("ready", flush=True)
for _ in range(int(sys.argv[2])):
    assert len(apply(planned(root)).removed) in (1, 4)
    assert len(restore(root, -1).paths) in (1, 4)
print("done", flush=True)
"""


@pytest.mark.usefixtures("every_format")
def test_a_reader_in_another_process_never_sees_a_wrong_pixel(root: Path) -> None:
    run = timelapse(root, 4)
    seen = {"there": 0, "gone": 0}
    with Child(TO_AND_FRO, root, 25) as other:
        assert other.line() == "ready"
        while other.process.poll() is None:
            there = len(readable(fresh(root, run)))
            seen["there"] += there
            seen["gone"] += 4 - there
        other.end()
    assert seen["there"]
    assert readable(fresh(root, run)) == [0, 1, 2, 3]
    hold_root(root)


def test_every_line_of_the_audit_can_be_read_by_anybody(root: Path) -> None:
    timelapse(root, 1)
    plan = planned(root, f"grace_days = 0\n{EVERYTHING}")
    apply(plan, now=plan.now)
    lines = [json.loads(line) for line in (root / "audit.jsonl").read_text().splitlines()]
    assert [line["act"] for line in lines] == ["removing", "removed", "deleting", "deleted"]
    assert all(line["time"] and line["run"] and line["folder"] and line["paths"] for line in lines)
