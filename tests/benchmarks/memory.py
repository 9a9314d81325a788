"""Anonymous memory while ten volumes of 1.68 GB are streamed.

Run as a module it is the child process that streams and prints what it took at each sample. Each file is
deleted once the next one is journalled.
"""

import json
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import bluesky.plans as bp

from gently_bluesky import FileWriter
from tests.benchmarks.detector import Detector, noise
from tests.benchmarks.pairs import Row, Spread, Target, output_of_child, rss_anon_mb
from tests.benchmarks.runs import emptied, run_engine


def measure(folder: Path, *, tiny: bool) -> Iterator[Row]:
    """Give how far memory rises above its start, and how far between the first volumes and the last."""
    volumes, planes, side = (4, 4, 64) if tiny else (10, 200, 2048)
    with emptied(folder / "memory") as root:
        samples: list[tuple[int, float]] = json.loads(output_of_child("memory", root, volumes, planes, side))
    start = samples[0][1]
    peak = max(value for _, value in samples) - start
    half = volumes // 2
    # the first volume warms: threads, allocators, the first descriptor
    early = max((value for volume, value in samples if 1 <= volume < half), default=start)
    late = max((value for volume, value in samples if volume >= half), default=start)
    what = f"{volumes} volumes of {planes * side * side * 2 / 1e9:.2f} GB"
    yield Row("memory", f"RssAnon above start, {what}", Spread.of([peak]), "MB", Target("<=", 300))
    drift = Spread.of([late - early])
    yield Row("memory", "highest RssAnon of the later half above the earlier's", drift, "MB", Target("<=", 20))


def _stream(root: Path, volumes: int, planes: int, side: int) -> None:
    samples: list[tuple[int, float]] = []
    journalled: list[int] = []
    done = threading.Event()

    def sample() -> None:
        while not done.wait(0.01):
            samples.append((len(journalled), rss_anon_mb()))

    def delete_the_one_before(name: str, document: dict[str, Any]) -> None:
        journalled.append(document["seq_num"])
        for path in root.glob(f"runs/*/*/*/*/spim_a/{len(journalled) - 2:06d}.ome.tif"):
            path.unlink()

    with FileWriter(root) as writer:
        writer.subscribe(delete_the_one_before, "event")
        detector, engine = Detector(writer, ["spim_a"], planes, noise(side)), run_engine(writer)
        samples.append((0, rss_anon_mb()))
        sampler = threading.Thread(target=sample)
        sampler.start()
        try:
            engine(bp.count([detector], num=volumes))
        finally:
            done.set()
            sampler.join()
    samples.append((volumes, rss_anon_mb()))
    assert len(journalled) == volumes
    json.dump(samples, sys.stdout)


if __name__ == "__main__":
    _stream(Path(sys.argv[1]), *map(int, sys.argv[2:]))
