"""Measuring side by side: whatever is compared runs in turns, in one process, and only ratios come out.

A machine that others use, or that hands memory back when idle, changes its speed from minute to minute. So all
sides run in each round, in an order that turns round each time, the first round only warms, and each ratio is
taken within its round. What is reported is the median over the rounds with its quartiles.

Knows nothing of what is measured.
"""

import gc
import mmap
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

Measurement = Callable[[], Mapping[str, float]]
"""Does the work once and gives what it measured, by quantity; its own setting up and clearing away left out."""

CHECKOUT = Path(__file__).parents[2]


@dataclass(frozen=True, slots=True)
class Spread:
    """A median and the quartiles around it."""

    median: float
    low: float
    high: float
    rounds: int

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        """Give it for values, at least one."""
        low, _, high = statistics.quantiles([*values, *values[:1]][: max(len(values), 2)], n=4, method="inclusive")
        return cls(statistics.median(values), low, high, len(values))


@dataclass(frozen=True, slots=True)
class Target:
    """What a figure must not exceed ("<="), or must reach (">=")."""

    sense: Literal["<=", ">="]
    limit: float

    def met(self, value: float) -> bool:
        """Whether a value meets it."""
        return value <= self.limit if self.sense == "<=" else value >= self.limit


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table.

    Attributes
    ----------
    theme, what
        What was compared.
    figure
        The ratio, or the difference, that a target speaks of.
    unit
        "x" for ratios, "ms", "MB" or "%".
    target
        None where the figure is for information.
    ours, other
        The two medians as they were in this run, for whoever wants to know the order of magnitude.
    """

    theme: str
    what: str
    figure: Spread
    unit: str
    target: Target | None = None
    ours: str = ""
    other: str = ""

    @property
    def met(self) -> bool | None:
        """Whether the target is met; None without one."""
        return None if self.target is None else self.target.met(self.figure.median)


class Measured:
    """What several rounds gave: values by side and quantity, one a round."""

    def __init__(self, rounds: Sequence[Mapping[str, Mapping[str, float]]]) -> None:
        self._rounds = rounds

    def values(self, side: str, quantity: str) -> list[float]:
        """Give the values of one side, in the order of the rounds."""
        return [measured[side][quantity] for measured in self._rounds]

    def ratio(self, numerator: str, denominator: str, quantity: str) -> Spread:
        """Give the ratio of two sides, taken round by round."""
        return Spread.of([r[numerator][quantity] / r[denominator][quantity] for r in self._rounds])

    def more(self, side: str, than: str, quantity: str, scale: float = 1.0) -> Spread:
        """Give by how much one side exceeds another, taken round by round."""
        return Spread.of([(r[side][quantity] - r[than][quantity]) * scale for r in self._rounds])

    def shown(self, side: str, quantity: str) -> str:
        """Give the median time of one side as text."""
        return seconds(statistics.median(self.values(side, quantity)))


def warm_memory(nbytes: int) -> None:
    """Have the kernel hold memory that was used a moment ago, so that nobody's figure is its first touch.

    A virtual machine hands free memory back to its host within seconds, and the first touch of a page then
    costs ten times the writing of it. What this touches and frees is what is given out next.
    """
    for _ in range(4):
        begun = time.perf_counter()
        np.empty(nbytes, np.uint8)[:: mmap.PAGESIZE] = 1
        if time.perf_counter() - begun < nbytes / 2e9:
            return


def in_turns(
    sides: Mapping[str, Measurement], *, rounds: int, settle: bool = True, warm: int = 1, warm_bytes: int = 0
) -> Measured:
    """Measure all sides in every round.

    Parameters
    ----------
    sides
        What to compare.
    rounds
        How many count; `warm` more go before them.
    settle
        Whether to bring the disk to rest before each measurement.
    warm_bytes
        About how much new memory, page cache included, one measurement takes.
    """
    measured = []
    for number in range(warm + rounds):
        order = list(sides)[:: 1 if number % 2 == 0 else -1]
        this: dict[str, Mapping[str, float]] = {}
        for side in order:
            if settle:
                gc.collect()
                os.sync()
            warm_memory(warm_bytes)
            this[side] = sides[side]()
        measured.append(this)
    return Measured(measured[warm:])


def seconds(value: float) -> str:
    """Give a duration as text."""
    for unit, scale in (("s", 1.0), ("ms", 1e3)):
        if value * scale >= 1:
            return f"{value * scale:.3g} {unit}"
    return f"{value * 1e6:.3g} us"


def rss_anon_mb() -> float:
    """Give this process's anonymous resident memory, in MB; mapped files do not count (Linux only)."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024 / 1e6
    raise OSError("/proc/self/status has no RssAnon")


def child(module: str, *arguments: object) -> "subprocess.Popen[str]":
    """Start a module of this package in a fresh process, its standard output a pipe of text."""
    command = [sys.executable, "-m", f"tests.benchmarks.{module}", *map(str, arguments)]
    return subprocess.Popen(command, cwd=CHECKOUT, stdout=subprocess.PIPE, text=True)


def output_of_child(module: str, *arguments: object) -> str:
    """Give what such a process prints until it ends.

    Raises
    ------
    subprocess.SubprocessError
        It failed, or did not end within ten minutes.
    """
    process = child(module, *arguments)
    try:
        output, _ = process.communicate(timeout=600)
    finally:
        process.kill()
        process.wait()
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, process.args)
    return output
