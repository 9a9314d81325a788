"""What the tests of retention share: runs with ages, second forms of volumes, and what always holds of a root."""

import tomllib
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import bluesky.plan_stubs as bps
import numpy as np
from bluesky import Msg

from gently_bluesky import Catalog, FileWriter
from gently_bluesky.errors import VolumeMissingError
from gently_bluesky.keep.policy import Policy, check_policy
from gently_bluesky.keep.retention import Plan, plan_retention
from gently_bluesky.read.run import Run
from gently_bluesky.store.audit import read_audit
from gently_bluesky.store.facts import Geometry
from gently_bluesky.store.journal import append_shared
from gently_bluesky.store.manifest import read_entries
from gently_bluesky.store.ome_zarr import OmeZarrSeries
from gently_bluesky.store.removed import Removed
from tests.data_rig import SHAPE, Camera, facts, newest, record, volume

DAY_S = 86_400.0
EVERYTHING = '[[remove]]\nname = "all"\nolder_than_days = 1\n'
STREAMS = {("embryo", "timepoint"): "primary", ("embryo",): "untimed", ("embryo", "channel"): "coloured"}
CLOSING = {"removing": "removed", "restoring": "restored", "deleting": "deleted"}


def policy(text: str = EVERYTHING) -> Policy:
    return check_policy(tomllib.loads(text), source="retention.toml")


def take(root: Path, *readings: Mapping[str, Any], key: str = "cam", **start: Any) -> Run:
    """A run with a volume for each set of readings, a stream for each kind of them; the first pixel says which."""

    def plan(writer: FileWriter) -> Iterator[Msg]:
        camera = Camera(key, writer)
        yield from bps.open_run(md={"plan_name": "timelapse"} | start)
        for reading in readings:
            camera.scalars = dict(reading)
            yield from bps.trigger_and_read([camera], name=STREAMS[tuple(reading)])
        yield from bps.close_run()

    return record(root, plan)


def timelapse(root: Path, count: int = 3, **start: Any) -> Run:
    """A run of one embryo, a volume a timepoint."""
    return take(root, *({"embryo": "e1", "timepoint": timepoint} for timepoint in range(count)), **start)


def ended(run: Run) -> float:
    assert run.stop is not None
    return float(run.stop["time"])


def days_later(run: Run, days: float) -> float:
    return ended(run) + days * DAY_S


def planned(root: Path, text: str = EVERYTHING, *, days: float = 2.0, free: int = 10**12) -> Plan:
    """The plan of a policy, some days after the newest run ended."""
    return plan_retention(root, policy(text), now=days_later(newest(root), days), free=lambda path: free)


def add_npy(run: Run, *, wrong: bool = False) -> list[str]:
    """Store every volume of a run as .npy as well, as a conversion would; give the paths."""
    folder = run.folder / "cam.npy"
    folder.mkdir()
    entries = []
    for entry in read_entries(run.folder):
        path = folder / f"{entry.index:06d}.npy"
        np.save(path, volume(int(entry.index or 0)) + np.uint16(wrong))
        said = {"offset": path.stat().st_size - entry.bytes}
        name = path.relative_to(run.folder).as_posix()
        entries.append(replace(entry, path=name, format="npy", details=said))
    append_shared(run.folder / "manifest.jsonl", [entry.line() for entry in entries])
    return [entry.path for entry in entries]


def share(run: Run) -> str:
    """Store every volume of a run in one folder as well, as an OME-Zarr store would; give its path."""
    path = run.folder / "cam.ome.zarr"
    path.mkdir()
    series = OmeZarrSeries(path, Geometry(SHAPE, np.dtype("<u2")))
    shared = []
    with ThreadPoolExecutor(1) as pool:
        for entry in read_entries(run.folder):
            index = int(entry.index or 0)
            said = {"run_uid": run.uid, "resource_uid": entry.resource, "data_key": entry.data_key}
            file = series.create(index, facts(index=index, **said))
            for z, plane in enumerate(volume(index)):
                file.write(z, plane.reshape(-1).view(np.uint8).data, 1.0 + z, pool)
            file.complete([1.0 + z for z in range(SHAPE[0])], None, durable=True)
            file.close()
            shared.append(replace(entry, path=path.name, format="ome-zarr", details=file.manifest))
    append_shared(run.folder / "manifest.jsonl", [entry.line() for entry in shared])
    return path.name


def files(root: Path) -> dict[str, bytes]:
    """Every file of a root but locks and the index, by path."""
    return {
        path.relative_to(root).as_posix(): path.read_bytes()
        for path in sorted(root.rglob("*"))
        if path.is_file() and not path.name.endswith(".lock") and path.relative_to(root).parts[0] != "index"
    }


def readable(run: Run) -> list[int]:
    """Which volumes of a run can be read, each with exactly its pixels; the others say that they were removed."""
    there, refused = [], []
    for stream in run:
        for event, row in enumerate(run[stream].rows):
            number = row.volumes["cam_image"].index
            try:
                pixels = run[stream]["cam_image"].volume(event)
            except VolumeMissingError as error:
                refused.append(str(error))
            else:
                np.testing.assert_array_equal(pixels, volume(number))
                there.append(number)
    moving = "is not there: the store is gone"  # while it is read: not a plane of it is given
    assert all("was removed on " in message or moving in message for message in refused), refused
    return there


def fresh(root: Path, run: Run) -> Run:
    return Catalog(root)[run.uid]


def hold_root(root: Path) -> None:
    """Hold what the manifests say against what there is, and the audit against itself."""
    for journal in root.glob("runs/*/*/*/*/journal.jsonl"):
        folder = journal.parent
        for entry in read_entries(folder):
            how = Removed.of(entry)
            if how is None:
                assert (folder / entry.path).exists(), f"{entry.path} should be there"
                continue
            assert not (folder / entry.path).exists(), f"{entry.path} is said to be removed"
            copy = how.path(root)
            assert copy is not None
            assert copy.exists() is (how.deleted is None)
    acts = [line for line in read_audit(root) if line["act"] in {*CLOSING, *CLOSING.values()}]
    for begun, done in zip(acts[::2], acts[1::2], strict=True):
        assert done["act"] == CLOSING[begun["act"]]
        assert (done["run"], done["folder"]) == (begun["run"], begun["folder"])
        assert set(done["paths"]) <= set(begun["paths"]) or "finished" in done
