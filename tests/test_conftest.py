"""The fixtures that hold every test do hold it."""

import subprocess
import sys
import threading
from pathlib import Path

import pytest

from tests.conftest import leaving_nothing_behind, tool
from tests.data_rig import REPOSITORY


def test_a_thread_that_is_left_behind_is_named() -> None:
    end = threading.Event()
    thread = threading.Thread(target=end.wait, name="forgotten")
    try:
        with (
            pytest.raises(AssertionError, match=r"threads were left behind: .*forgotten"),
            leaving_nothing_behind(0.1),
        ):
            thread.start()
    finally:
        end.set()
        thread.join()


def test_a_thread_that_still_ends_is_no_fault() -> None:
    with leaving_nothing_behind():
        threading.Timer(0.05, lambda: None).start()


def test_a_process_that_is_left_behind_is_named() -> None:
    children: list[subprocess.Popen[bytes]] = []
    try:
        with (
            pytest.raises(AssertionError, match=r"processes were left behind: .*pid="),
            leaving_nothing_behind(0.1),
        ):
            children.append(subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE))
    finally:
        for child in children:
            child.communicate()


def test_a_tool_that_is_missing_skips_a_test_by_name_and_fails_it_where_ci_is_set(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("CI", raising=False)
    with pytest.raises(pytest.skip.Exception, match=r"nothing-like-it \(Debian package some-package\) is missing"):
        tool("nothing-like-it", "some-package")
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match=r"nothing-like-it .* is missing, and CI is set"):
        tool("nothing-like-it", "some-package")


@pytest.mark.parametrize("workers", [[], ["-n", "2"]], ids=["alone", "workers"])
def test_what_tests_counted_is_added_up_and_said_a_line_a_campaign(tmp_path: Path, workers: list[str]) -> None:
    (tmp_path / "test_it.py").write_text(
        "import pytest\n"
        "@pytest.mark.parametrize('i', [0, 1])\n"
        "def test_it(campaign, i):\n"
        "    campaign.count('kills', states=1, events=2, lost=0)\n"
        "    campaign.count('kills', states=1, events=3, lost=0)\n"
        "    campaign.count('cuts', states=9, wrong=i)\n",
        encoding="utf-8",
    )
    result = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "tests.conftest", "-q", "--rootdir", tmp_path, *workers, tmp_path],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert "kills: 4 states tried, 10 events checked, 0 lost\n" in result.stdout
    assert "cuts: 18 states tried, 1 wrong\n" in result.stdout
