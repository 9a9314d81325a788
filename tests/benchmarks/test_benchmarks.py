"""Each benchmark runs; what it measures at this size means nothing, and no speed is asserted."""

import io
import json
import math
from pathlib import Path

import pytest
from rich.console import Console

from tests.benchmarks.__main__ import THEMES, run
from tests.benchmarks.pairs import Row, Spread, Target, in_turns
from tests.benchmarks.table import Noise, as_json, show, surroundings


@pytest.mark.parametrize("theme", THEMES)
def test_benchmark_runs_and_leaves_nothing(theme: str, tmp_path: Path) -> None:
    rows = run([theme], tmp_path, tiny=True, tell=lambda _: None)
    assert rows
    assert all(math.isfinite(row.figure.median) for row in rows)
    assert not list(tmp_path.iterdir())


def test_every_side_is_measured_in_each_round_and_the_order_turns_round() -> None:
    order: list[str] = []

    def side(name: str, value: float) -> dict[str, float]:
        order.append(name)
        return {"time": value}

    measured = in_turns({"a": lambda: side("a", 3.0), "b": lambda: side("b", 2.0)}, rounds=2, settle=False)
    assert "".join(order) == "abbaab"
    assert measured.ratio("a", "b", "time") == Spread(1.5, 1.5, 1.5, 2)
    assert measured.more("a", "b", "time", 1e3).median == 1000.0


def test_table_tells_figure_target_and_machine(tmp_path: Path) -> None:
    rows = [
        Row("frames", "speed of ours", Spread(0.85, 0.8, 0.9, 7), "x", Target(">=", 0.8), "1 s", "0.8 s"),
        Row("frames", "missed", Spread(12.0, 11.0, 13.0, 7), "ms", Target("<=", 8.0)),
    ]
    about = surroundings(tmp_path, Noise())
    text = io.StringIO()
    show(rows, about, Console(file=text, width=150))
    for word in ("0.85 x", "0.80 .. 0.90", ">= 0.8 x", "yes", "NO", "numpy", about["machine"][:20]):
        assert word in text.getvalue()
    assert [row["met"] for row in json.loads(json.dumps(as_json(rows, about)))["rows"]] == [True, False]
