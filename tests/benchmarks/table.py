"""The table that the benchmarks print, and what it must say of the machine for its figures to mean anything."""

import datetime
import os
import platform
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil
from rich.console import Console
from rich.table import Table

from tests.benchmarks.pairs import Row

_LIBRARIES = (
    "numpy",
    "tifffile",
    "zarr",
    "xxhash",
    "bluesky",
    "ophyd",
    "event-model",
    "suitcase-tiff",
    "acquire-zarr",
    "ome-writers",
)


def _busy_s() -> float:
    times = psutil.cpu_times()
    idle = times.idle + getattr(times, "iowait", 0.0) + getattr(times, "guest", 0.0)
    return float(sum(times) - idle)


@dataclass(slots=True)
class Noise:
    """What else the machine did meanwhile: begin it before, ask it after."""

    _cpu: float = field(default_factory=_busy_s)
    _own: float = field(default_factory=lambda: sum(os.times()[:4]))
    _wall: float = field(default_factory=time.perf_counter)

    def others_percent(self) -> float:
        """Share of all CPUs that went to anybody else, the kernel's own threads included."""
        wall = time.perf_counter() - self._wall
        others = (_busy_s() - self._cpu) - (sum(os.times()[:4]) - self._own)
        return 100 * max(others, 0.0) / (wall * (os.cpu_count() or 1))


def surroundings(folder: Path, noise: Noise) -> dict[str, str]:
    """Give machine, disk, date and versions, one line each."""
    memory = psutil.virtual_memory().total / 1e9
    mounts = [part for part in psutil.disk_partitions(all=True) if folder.is_relative_to(part.mountpoint)]
    disk = max(mounts, key=lambda part: len(part.mountpoint))
    return {
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "machine": f"{_processor()}, {os.cpu_count()} CPUs, {memory:.0f} GB, {platform.platform(terse=True)}",
        "disk": f"{disk.fstype} on {disk.device}, {psutil.disk_usage(str(folder)).free / 1e9:.0f} GB free",
        "versions": f"Python {platform.python_version()}, "
        + ", ".join(f"{library} {version(library)}" for library in _LIBRARIES),
        "noise": f"others took {noise.others_percent():.0f} % of the CPUs (kernel threads included), "
        f"load {os.getloadavg()[0]:.1f} at the end",
    }


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor()


def as_json(rows: Sequence[Row], about: dict[str, str]) -> dict[str, Any]:
    """Give the table for programs."""
    return {**about, "rows": [{**asdict(row), "met": row.met} for row in rows]}


def show(rows: Sequence[Row], about: dict[str, str], console: Console) -> None:
    """Print the table."""
    table = Table(title="gently_bluesky: ratios measured side by side", title_justify="left")
    for name in ("", "what"):
        table.add_column(name)
    for name in ("median", "quartiles", "n", "target", "met", "ours", "other"):
        table.add_column(name, justify="right", no_wrap=True)
    for before, row in zip([None, *rows], rows, strict=False):
        new = before is None or before.theme != row.theme
        if new and before is not None:
            table.add_section()
        figure, target = row.figure, row.target
        table.add_row(
            row.theme if new else "",
            row.what,
            f"{_short(figure.median)} {row.unit}",
            f"{_short(figure.low)} .. {_short(figure.high)}",
            str(figure.rounds),
            "" if target is None else f"{target.sense} {target.limit:g} {row.unit}",
            {None: "", True: "[green]yes[/]", False: "[red]NO[/]"}[row.met],
            row.ours,
            row.other,
        )
    console.print(table)
    for name, text in about.items():
        console.print(f"{name}: {text}", highlight=False)


def _short(value: float) -> str:
    return f"{value:.2f}" if abs(value) < 10 else f"{value:.0f}"
