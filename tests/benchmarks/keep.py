"""What keeps a root whole: recovery among very many runs, and verification against merely reading the files."""

import itertools
import os
import time
import uuid
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from gently_bluesky import FileWriter
from gently_bluesky.keep.verify import verify
from gently_bluesky.store.disk import forget_pages
from gently_bluesky.store.index import reindex
from gently_bluesky.store.journal import encode_line
from gently_bluesky.store.layout import JOURNAL, MANIFEST, day_folder, run_folder_name
from gently_bluesky.write.recovery import recover
from tests.benchmarks.pairs import Row, Target, in_turns
from tests.benchmarks.runs import emptied, start_document, stop_document

TIME = "time"
_READERS = min(4, os.cpu_count() or 1)


def measure(folder: Path, *, tiny: bool) -> Iterator[Row]:
    """Give what a recovery costs beyond the broken run, and how fast a verification reads."""
    yield from _recovery(folder, runs=20 if tiny else 10_000, rounds=1 if tiny else 7)
    yield from _verification(folder, planes=4 if tiny else 50, side=64 if tiny else 2048, rounds=1 if tiny else 7)


# --- recover ------------------------------------------------------------------------------------------------


def _recovery(folder: Path, *, runs: int, rounds: int) -> Iterator[Row]:
    with emptied(folder / "many") as many, emptied(folder / "one") as one:
        _fill(many, runs)

        def recovered(root: Path) -> Mapping[str, float]:
            _break_a_run(root)
            begun = time.perf_counter()
            done = recover(root)
            took = time.perf_counter() - begun
            assert len(done) == 1
            return {TIME: took}

        measured = in_turns({"many": lambda: recovered(many), "one": lambda: recovered(one)}, rounds=rounds)
        shown = measured.shown("many", TIME), measured.shown("one", TIME)
        what = f"recovery of a killed run among {runs:,}: more than alone"
        yield Row("keep", what, measured.more("many", "one", TIME), "s", Target("<=", 1.0), *shown)


def _fill(root: Path, runs: int) -> None:
    with FileWriter(root):
        pass
    for number in range(runs):
        start = start_document() | {"uid": str(uuid.uuid4()), "scan_id": number}
        folder = root / day_folder(start["time"] - 86400 * (number // 200)) / run_folder_name(start)
        folder.mkdir(parents=True)
        pairs = [("start", start), ("stop", stop_document(start))]
        lines = b"".join(encode_line({"name": name, "doc": doc}) for name, doc in pairs)
        (folder / JOURNAL).write_bytes(lines)
        (folder / MANIFEST).touch()
    reindex(root)


def _break_a_run(root: Path) -> None:
    with FileWriter(root, salvage=None) as writer:
        writer("start", start_document())
        volume = writer.open_resource("cam", shape=(8, 512, 512), dtype="<u2").new_volume()
        for z in range(4):
            volume.write(z, np.full((512, 512), z, "<u2"))
        writer.flush()


# --- verify -------------------------------------------------------------------------------------------------


def _verification(folder: Path, *, planes: int, side: int, rounds: int) -> Iterator[Row]:
    with emptied(folder / "verify") as root:
        files = _acquire(root, planes, side)
        nbytes = sum(path.stat().st_size for path in files)

        def verified() -> Mapping[str, float]:
            begun = time.perf_counter()
            report = verify(root, afresh=True, workers=_READERS)
            took = time.perf_counter() - begun
            assert not report.findings
            return {TIME: took}

        def read() -> Mapping[str, float]:
            begun = time.perf_counter()
            with ThreadPoolExecutor(_READERS) as pool:
                assert sum(pool.map(_read_once, files)) == nbytes
            return {TIME: time.perf_counter() - begun}

        measured = in_turns({"verify": verified, "read": read}, rounds=rounds)
        shown = measured.shown("verify", TIME), measured.shown("read", TIME)
        what = "verification of cold files, to reading them the fastest way: speed"
        yield Row("keep", what, measured.ratio("read", "verify", TIME), "x", Target(">=", 0.8), *shown)


def _acquire(root: Path, planes: int, side: int) -> list[Path]:
    frame = np.random.default_rng(0).integers(0, 4000, (side, side), np.uint16)
    start = start_document()
    with FileWriter(root) as writer:
        writer("start", start)
        resource = writer.open_resource("cam", shape=(planes, side, side), dtype="<u2")
        keys = {"cam": _stream_key(planes, side)}
        descriptor = {"uid": "d", "run_start": start["uid"], "time": start["time"], "name": "primary"}
        writer("descriptor", descriptor | {"data_keys": keys, "configuration": {}, "object_keys": {}, "hints": {}})
        for number in range(1, 5):
            volume = resource.new_volume()
            for z in range(planes):
                volume.write(z, frame)
            volume.seal()
            for name, doc in resource.asset_docs():
                seq_nums = {"start": number, "stop": number + 1}
                writer(name, doc | ({"descriptor": "d", "seq_nums": seq_nums} if name == "stream_datum" else {}))
            event = {"uid": f"e{number}", "descriptor": "d", "seq_num": number, "time": time.time(), "data": {}}
            writer("event", event | {"timestamps": {}, "filled": {}})
        writer("stop", stop_document(start))
    files = sorted(root.glob("runs/*/*/*/*/cam/*"))
    for path in files:
        forget_pages(path)
    return files


def _stream_key(planes: int, side: int) -> dict[str, object]:
    said = {"source": "none", "dtype": "array", "dtype_numpy": "<u2", "external": "STREAM:"}
    return {**said, "shape": [planes, side, side]}


def _read_once(path: Path) -> int:
    buffer = memoryview(bytearray(8 << 20))
    with path.open("rb", buffering=0) as file:
        for offset in itertools.count(0, len(buffer)):
            size = file.readinto(buffer)
            os.posix_fadvise(file.fileno(), offset, size or 0, os.POSIX_FADV_DONTNEED)
            if not size:
                return file.tell()
    raise AssertionError
