"""The benchmarks, in one command: a table of ratios, measured side by side in one run.

    python -m tests.benchmarks                  all of them, about ten minutes, up to 6 GB of disk at a time
    python -m tests.benchmarks frames planes    these only
    python -m tests.benchmarks --json           for programs; progress goes to standard error
    python -m tests.benchmarks --folder /data   on the disk that matters

They are no tests and no test run collects them; `test_benchmarks` executes each once at a tiny size, where its
figures mean nothing, to see that it still runs. The exit code says nothing of targets: a figure of one run on one
machine is to be looked at. How measurement goes about it is told in `pairs`.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Protocol

from rich.console import Console

from tests.benchmarks import (
    conversion,
    cuts,
    engine,
    frames,
    journal,
    keep,
    live,
    memory,
    ome_zarr,
    planes,
    serve,
    suitcase,
)
from tests.benchmarks.pairs import Row
from tests.benchmarks.table import Noise, as_json, show, surroundings


class Theme(Protocol):
    """Measures one theme in a folder that it leaves empty."""

    def __call__(self, folder: Path, *, tiny: bool) -> Iterator[Row]:
        """Give its rows."""


THEMES: Mapping[str, Theme] = {
    "frames": frames.measure,
    "planes": planes.measure,
    "engine": engine.measure,
    "live": live.measure,
    "memory": memory.measure,
    "suitcase": suitcase.measure,
    "journal": journal.measure,
    "keep": keep.measure,
    "ome_zarr": ome_zarr.measure,
    "serve": serve.measure,
    "cuts": cuts.measure,
    "conversion": conversion.measure,
}


def run(names: list[str], folder: Path, *, tiny: bool, tell: Callable[[str], object]) -> list[Row]:
    """Measure themes one after the other."""
    rows = []
    for name in names:
        tell(f"{name} ...")
        rows += list(THEMES[name](folder, tiny=tiny))
    return rows


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__.split("\n")[0])
    parser.add_argument(
        "themes", nargs="*", metavar="theme", help=f"of {', '.join(THEMES)}; all, if none is named"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument(
        "--folder", type=Path, help="where to write, in a new folder; a temporary one, if not given"
    )
    parser.add_argument("--tiny", action="store_true", help="at the size of the smoke test: figures mean nothing")
    chosen = parser.parse_args()
    if unknown := set(chosen.themes) - THEMES.keys():
        parser.error(f"no theme {', '.join(sorted(unknown))}; there are {', '.join(THEMES)}")
    progress = Console(stderr=True)
    with tempfile.TemporaryDirectory(prefix="gently-benchmarks-", dir=chosen.folder) as name:
        folder, noise = Path(name), Noise()
        rows = run(chosen.themes or list(THEMES), folder, tiny=chosen.tiny, tell=progress.print)
        about = surroundings(folder, noise)
    if chosen.json:
        json.dump(as_json(rows, about), sys.stdout, indent=1)
    else:
        # wide enough for every column where the output is no terminal
        show(rows, about, Console(width=None if sys.stdout.isatty() else 150))


if __name__ == "__main__":
    main()
