"""One plane of a large volume through a catalog, against numpy.memmap and against tifffile.

Run as a module with a root it is the child process that says how much memory a plane takes.
"""

import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import bluesky.plans as bp
import numpy as np
import tifffile
from numpy.typing import NDArray

from gently_bluesky import Catalog, FileWriter
from tests.benchmarks.detector import Detector, address, noise
from tests.benchmarks.pairs import Row, Spread, Target, in_turns, output_of_child, rss_anon_mb
from tests.benchmarks.runs import emptied, run_engine

TIME = "time"
KEY = "spim_a"


def acquire(root: Path, planes: int, side: int) -> None:
    """Leave a run of one event with one volume in a root."""
    with FileWriter(root) as writer:
        run_engine(writer)(bp.count([Detector(writer, [KEY], planes, noise(side))], num=1))


def timed(read: Callable[[int], NDArray[Any]], planes: int) -> Callable[[], Mapping[str, float]]:
    """Give a measurement that reads another plane each time, and looks whether it is the right one."""
    turn = iter(range(10**9))

    def once() -> Mapping[str, float]:
        z = next(turn) * 7 % planes
        begun = time.perf_counter()
        plane = read(z)
        took = time.perf_counter() - begun
        assert (plane[0, :2] == address(0, z)).all()
        assert not isinstance(plane, np.memmap)
        return {TIME: took}

    return once


def measure(folder: Path, *, tiny: bool) -> Iterator[Row]:
    """Give times relative to numpy's, how much faster than tifffile's, and what memory it takes."""
    planes, side, rounds, few = (6, 64, 2, 1) if tiny else (200, 2048, 400, 5)
    root = folder / "planes"
    with emptied(root):
        acquire(root, planes, side)
        catalog = Catalog(root)
        run = catalog[-1]
        images = run["primary"][KEY]
        (path,) = run.folder.glob(f"{KEY}/*.ome.tif")
        offset, shape = path.stat().st_size - images.dtype.itemsize * images[0].size, images.shape[1:]

        def mapped() -> NDArray[Any]:
            return np.memmap(path, images.dtype, "r", offset, shape)

        kept = mapped()
        # numpy's plane is copied too, into memory as images[0, z] is
        plane = in_turns(
            {
                "series": timed(lambda z: images[0, z], planes),
                "numpy, mapped before": timed(lambda z: np.array(kept[z]), planes),
                "catalog": timed(lambda z: np.asarray(catalog[-1]["primary"][KEY][0, z]), planes),
                "numpy, mapped anew": timed(lambda z: np.array(mapped()[z]), planes),
            },
            rounds=rounds,
            settle=False,
            warm=rounds // 4,
        )
        whole = in_turns(
            {
                "series": timed(lambda z: images[0, z], planes),
                "catalog": timed(lambda z: np.asarray(catalog[-1]["primary"][KEY][0, z]), planes),
                "tifffile": timed(lambda z: np.array(tifffile.imread(path)[z]), planes),
            },
            rounds=few,
            settle=False,
            warm_bytes=images[0, 0].nbytes * planes,
        )
        growth = [float(output_of_child("planes", root, planes // 2)) for _ in range(few)]
    for what, ours, other, target in (
        ("time of images[0, z], to np.memmap's", "series", "numpy, mapped before", Target("<=", 1.3)),
        ("time of catalog[-1][...][0, z], to a new np.memmap's", "catalog", "numpy, mapped anew", None),
    ):
        shown = plane.shown(ours, TIME), plane.shown(other, TIME)
        yield Row("planes", what, plane.ratio(ours, other, TIME), "x", target, *shown)
    for what, ours in (("images[0, z]", "series"), ("catalog[-1][...][0, z]", "catalog")):
        shown = whole.shown(ours, TIME), whole.shown("tifffile", TIME)
        ratio = whole.ratio("tifffile", ours, TIME)
        yield Row("planes", f"{what}, times faster than tifffile.imread", ratio, "x", Target(">=", 100), *shown)
    yield Row("planes", "RssAnon more, one plane held (fresh process)", Spread.of(growth), "MB", Target("<=", 20))


def _print_growth(root: Path, z: int) -> None:
    before = rss_anon_mb()
    plane = Catalog(root)[-1]["primary"][KEY][0, z]
    grown = rss_anon_mb() - before
    assert plane.ndim == 2
    print(grown)


if __name__ == "__main__":
    _print_growth(Path(sys.argv[1]), int(sys.argv[2]))
