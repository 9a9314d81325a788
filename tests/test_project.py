"""The rules of the project: style, types, imports, and a README whose commands are what CI runs."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.mark.parametrize(
    "command",
    [
        ["ruff", "check", "."],
        ["ruff", "format", "--check", "."],
        ["mypy"],
        ["mypy", "--platform", "win32", "gently_bluesky", "devices"],
        ["importlinter.cli"],
    ],
    ids=" ".join,
)
def test_the_rules_hold(command: list[str]) -> None:
    module, *arguments = command
    code = "from importlinter.cli import lint_imports_command; lint_imports_command()"
    run = ["-c", code] if module == "importlinter.cli" else ["-m", module, *arguments]
    result = subprocess.run([sys.executable, *run], cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr


def test_the_readme_begins_with_two_commands_of_one_line() -> None:
    blocks = re.findall(r"^```sh\n(.*?)^```$", (ROOT / "README.md").read_text("utf-8"), re.MULTILINE | re.DOTALL)
    assert len(blocks) == 2
    assert all(block.count("\n") == 1 for block in blocks)


def test_the_top_level_holds_what_it_is_meant_to_hold() -> None:
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("not a git checkout")
    top = {name.split("/")[0] for name in listed.stdout.split()}
    visible = {name for name in top if not name.startswith(".")}
    assert visible == {
        "pyproject.toml", "gently_bluesky", "devices", "tests", "profiles", "README.md", "LICENSE", "CHANGELOG.md",
    }  # fmt: skip


def test_no_module_is_called_something_that_explains_nothing() -> None:
    vague = re.compile(r"(utils?|helpers?|common|base|misc|manager)\.py")
    files = [*ROOT.glob("gently_bluesky/**/*.py"), *ROOT.glob("devices/**/*.py")]
    assert files
    assert not [file for file in files if vague.fullmatch(file.name)]
