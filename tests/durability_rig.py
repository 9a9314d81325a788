"""Acquisitions in forked processes, ways to end them badly, and what must hold of what they leave.

A scenario acquires, or does something else to a root, in a child of the `Zygote`; what its writer acknowledges,
the test hears before anything else can happen. Every pixel carries its address, so what is read back can be
compared with what was exposed.
"""

import contextlib
import json
import logging
import os
import random
import signal
import threading
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import bluesky.plan_stubs as bps
import bluesky.preprocessors as bpp
import numpy as np
import tifffile
import yaozarrs
from bluesky import Msg
from ophyd import Signal

from gently_bluesky import Catalog, FileWriter
from gently_bluesky.errors import RunNotFoundError, StreamNotFoundError
from gently_bluesky.keep.verify import verify
from gently_bluesky.read.images import ImageSeries
from gently_bluesky.read.run import Run
from gently_bluesky.read.stream import Stream
from gently_bluesky.store import disk, ome_zarr, pyramid, shards
from gently_bluesky.store.formats import examine
from gently_bluesky.store.index import RootIndex, reindex
from gently_bluesky.store.streams import RunTable
from gently_bluesky.store.strict_json import encode, plain
from gently_bluesky.store.tags import add_note
from gently_bluesky.write.recovery import Recovery, recover
from tests.data_rig import (
    Camera,
    Inline,
    connected,
    frame,
    hold_together,
    manifest,
    pixel_hash,
    start_doc,
    stored,
    volume,
)
from tests.test_writer_streaming import Flyer
from tests.zygote import Child, Line, Zygote

Plan = Iterator[Msg]

# --- on the child's side: what is tried ---------------------------------------------------------------------

CALLS = (
    *("open", "write", "pwrite", "posix_fallocate", "fdatasync", "fsync", "ftruncate"),
    *("link", "rename", "replace", "unlink", "mkdir"),
)
"""Of os: all by which a root is changed."""


@dataclass(frozen=True, slots=True)
class KillInside:
    """SIGKILL inside the `number`-th call, from 1, when half of it is done; all or nothing, if it has no half."""

    call: str
    number: int
    late: bool


@dataclass
class Trial:
    """What a scenario is given."""

    line: Line
    root: Path
    durability: str = "event"
    salvage: str = "beside"
    image_format: str = "ome-tiff"
    watched: bool = False
    unsynced: str = ""
    kill: KillInside | None = None
    calls: Counter[str] = field(default_factory=Counter)

    def writer(self, **options: Any) -> FileWriter:
        """A writer of whose acknowledgements the test hears."""
        said: dict[str, Any] = {"durability": self.durability, "salvage": self.salvage, "inline_limit_bytes": 1000}
        said["image_format"] = self.image_format
        writer = FileWriter(self.root, **(said | options))
        writer.subscribe(lambda name, doc: self.line.say("acknowledged", name, plain(doc)))
        return writer

    def begin(self) -> None:
        """From here on it may be killed, and calls are counted."""
        if self.watched or self.kill is not None:
            lock = threading.Lock()
            for name in CALLS:
                setattr(os, name, self._watching(name, getattr(os, name), lock))
        self.line.say("begin")

    def _watching(self, name: str, real: Callable[..., Any], lock: threading.Lock) -> Callable[..., Any]:
        def watching(first: Any, *rest: Any, **options: Any) -> Any:
            path = os.readlink(f"/proc/self/fd/{first}") if isinstance(first, int) else os.fspath(first)  # noqa: PTH115
            if str(self.root) in str(path):
                with lock:
                    self.calls[name] += 1
                    if self.kill is not None and (name, self.calls[name]) == (self.kill.call, self.kill.number):
                        _do_half(name, real, self.kill.late, first, *rest, **options)
                        os.kill(os.getpid(), signal.SIGKILL)
            return real(first, *rest, **options)

        return watching


def _do_half(name: str, real: Callable[..., Any], late: bool, first: Any, *rest: Any, **options: Any) -> None:
    if name in {"write", "pwrite"}:
        real(first, bytes(rest[0])[: max(1, len(bytes(rest[0])) // 2)], *rest[1:])
    elif name == "posix_fallocate":
        real(first, rest[0], max(1, rest[1] // 2))
    elif late:
        real(first, *rest, **options)


def perform(
    line: Line,
    scenario: str,
    root: str,
    kill: Mapping[str, Any] | None = None,
    **options: Any,
) -> dict[str, int]:
    """Perform a scenario; give how often each call was made, if they were watched."""
    logging.disable()
    trial = Trial(line, Path(root), kill=None if kill is None else KillInside(**kill), **options)
    forget_to_sync(trial.unsynced)
    split_stores()
    SCENARIOS[scenario](trial)
    return dict(trial.calls)


def forget_to_sync(what: str) -> None:
    """Take the syncing out of this process: of "pixels", of "lines" (manifest and journal), or of "everything"."""

    def nothing(*_: object) -> None: ...

    everything = [(os, "fsync"), (os, "fdatasync"), (disk, "_push")]
    pixels = [(disk.BlockFile, "sync"), (ome_zarr, "create_file"), (ome_zarr, "sync_folder")]
    names: dict[str, list[tuple[Any, str]]] = {"pixels": pixels, "everything": everything}
    names["lines"] = [(disk.AppendFile, "sync")]
    for owner, name in names.get(what, []):
        setattr(owner, name, unsynced_file if name == "create_file" else nothing)


def unsynced_file(path: Path, pieces: Sequence[bytes], beside: Path) -> None:
    """What makes a shard, if it forgets to sync it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"".join(pieces))


def split_stores() -> None:
    """Let small volumes have several shards, of two planes each, and several levels."""
    shards.CHUNK, shards.SHARD_BYTES = (2, 16, 32), 1
    pyramid.SMALLEST = 16


def streamed(trial: Trial) -> None:
    """Volumes of two cameras in one stream, and planes of a third in another."""
    with trial.writer() as writer:
        run_engine, _ = connected(writer)
        a = Camera("a", writer, shape=(4, 32, 64), embryo="e1", timepoint=0)
        b = Camera("b", writer, shape=(3, 16, 16), dtype="<f4")
        over = Camera("over", writer, shape=(24, 32), dtype="<i8")

        def plan() -> Plan:
            yield from bps.open_run({"plan_name": "streamed", "session": "s"})
            for number in range(4):
                a.scalars["timepoint"] = number
                yield from bps.trigger_and_read([a, b])
                yield from bps.trigger_and_read([over], name="overview")
            yield from bps.close_run()

        trial.begin()
        run_engine(plan())


def inline_arrays(trial: Trial) -> None:
    """Arrays in events: large ones go to files, small ones stay."""
    number = iter(range(100))

    def values() -> dict[str, Any]:
        n = next(number)
        return {
            "big_image": volume(n, (3, 16, 32)),
            "odd_image": volume(n, (4, 16, 16), "<i8"),
            "small_image": volume(n, (2, 3, 4)),
            "big_number": n, "odd_number": n, "small_number": n, "timepoint": n,
        }  # fmt: skip

    keys = ("big_image", "odd_image", "small_image", "big_number", "odd_number", "small_number", "timepoint")
    device = Inline("device", values, {key: {"source": "test", "dtype": "number", "shape": []} for key in keys})
    with trial.writer() as writer:
        run_engine, _ = connected(writer)
        trial.begin()
        run_engine(
            bpp.run_wrapper(_repeated(5, device), md={"plan_name": "inline", "embryo": "e1", "session": "s"})
        )


def _repeated(count: int, *devices: Any) -> Plan:
    for _ in range(count):
        yield from bps.trigger_and_read(list(devices))


def monitors(trial: Trial) -> None:
    """Numbers and arrays that another thread puts while a camera streams."""
    number, image = Signal(name="sig", value=0), Signal(name="img", value=volume(0, (3, 16, 32)))

    def put() -> None:
        for n in range(1, 6):
            number.put(n)
            image.put(volume(n, (3, 16, 32)))

    with trial.writer() as writer:
        run_engine, _ = connected(writer)
        camera = Camera("a", writer)

        def plan() -> Plan:
            putting = threading.Thread(target=put)
            putting.start()
            yield from _repeated(3, camera)
            putting.join()

        trial.begin()
        run_engine(bpp.monitor_during_wrapper(bpp.run_wrapper(plan(), md={"plan_name": "mon"}), [number, image]))


def fly(trial: Trial) -> None:
    """A fly scan: StreamDatums and no event."""
    with trial.writer() as writer:
        run_engine, _ = connected(writer)
        flyer = Flyer("a", writer)
        flyer.count = 2

        def plan() -> Plan:
            yield from bps.open_run({"plan_name": "fly"})
            yield from bps.declare_stream(flyer, name="primary", collect=True)
            for _ in range(4):
                yield from bps.kickoff(flyer, wait=True)
                yield from bps.collect(flyer, name="primary")
                yield from bps.complete(flyer, wait=True)
                yield from bps.collect(flyer, name="primary")
            yield from bps.close_run()

        trial.begin()
        run_engine(plan())


def runs_in_a_row(trial: Trial) -> None:
    """Three short runs."""
    with trial.writer() as writer:
        run_engine, _ = connected(writer)
        camera = Camera("a", writer, embryo="e1", timepoint=0)
        trial.begin()
        for number in range(3):
            camera.scalars["timepoint"] = number
            run_engine(bpp.run_wrapper(_repeated(2, camera), md={"plan_name": "row", "session": "s"}))


def leave_broken(trial: Trial, frames: int) -> None:
    """Leave a run of two events without its stop, in the middle of the third volume, torn and cluttered."""
    start = start_doc(session="s", embryo="e1")
    with trial.writer() as writer:
        camera = Camera("a", writer)
        writer("start", start)
        uid, time, keys = start["uid"], start["time"], camera.describe()
        head = {"uid": f"{uid} d", "run_start": uid, "time": time, "name": "primary"}
        writer("descriptor", {**head, "data_keys": keys})
        for seq_num in (1, 2):
            camera.trigger()
            for name, doc in camera.collect_asset_docs():
                filled = {"descriptor": f"{uid} d", "seq_nums": {"start": seq_num, "stop": seq_num + 1}}
                writer(name, doc | (filled if name == "stream_datum" else {}))
            data = {key: entry["value"] for key, entry in camera.read().items()}
            rest = {
                "seq_num": seq_num,
                "time": time + seq_num,
                "timestamps": dict.fromkeys(data, 1.0),
                "filled": {},
            }
            writer("event", {"uid": f"{uid} {seq_num}", "descriptor": f"{uid} d", "data": data, **rest})
        resource = writer.open_resource(camera.key, shape=camera.shape, dtype=camera.dtype)
        unfinished = resource.new_volume()
        for z in range(frames):
            unfinished.write(z, volume(2)[z], time=start["time"] + 3)
        writer.flush()
    (folder,) = trial.root.glob(f"runs/*/*/*/*-{start['uid'][:8]}")
    with (folder / "journal.jsonl").open("ab") as journal, (folder / "manifest.jsonl").open("ab") as files:
        journal.write(b'{"name":"event","doc":{"uid":"torn')
        files.write(b'{"resource":"torn')
    (images,) = folder.glob("a_image*")
    (images / ".000003.new").write_bytes(bytes(5000))


def first_start(trial: Trial) -> None:
    """A writer that finds broken runs at its first start."""
    trial.salvage, salvage = "beside", trial.salvage
    for frames in (0, 2, 4):
        leave_broken(trial, frames)
    trial.salvage = salvage
    with trial.writer() as writer:
        run_engine, _ = connected(writer)
        trial.begin()
        run_engine(bpp.run_wrapper(_repeated(1, Camera("a", writer)), md={"plan_name": "after"}))


def end_well(trial: Trial) -> None:
    """A run that nobody disturbs."""
    with trial.writer() as writer:
        run_engine, _ = connected(writer)
        run_engine(bpp.run_wrapper(_repeated(1, Camera("a", writer)), md={"plan_name": "well"}))


def end_well_in(line: Line, root: str) -> None:
    """A run that nobody disturbs, in a child of its own."""
    logging.disable()
    end_well(Trial(line, Path(root)))


def recovery(trial: Trial) -> None:
    """`recover` itself, with a run that ended well and that the index does not know."""
    for frames in (0, 2, 4):
        leave_broken(trial, frames)
    end_well(trial)
    (trial.root / "index" / "runs.jsonl").unlink()
    trial.begin()
    recover(trial.root, salvage=trial.salvage)  # type: ignore[arg-type]


def index_anew(trial: Trial) -> None:
    """`reindex`, of a run that ended well and of one that did not."""
    leave_broken(trial, 2)
    end_well(trial)
    trial.begin()
    reindex(trial.root)


SCENARIOS: dict[str, Callable[[Trial], None]] = {
    scenario.__name__: scenario
    for scenario in (streamed, inline_arrays, monitors, fly, runs_in_a_row, first_start, recovery, index_anew)
}
"""What can be ended badly. One more is a function that calls `trial.begin()` and then does it, and a name here."""


def mixed(trial: Trial, events: int = 3, shape: tuple[int, ...] = (4, 32, 64), **options: Any) -> None:
    """Streamed volumes, and arrays large and small, in every event."""
    with trial.writer(**options) as writer:
        run_engine, _ = connected(writer)
        camera = Camera("a", writer, shape=shape, embryo="e1", timepoint=0)
        number = iter(range(events))

        def values() -> dict[str, Any]:
            n = next(number)
            return {"big_image": volume(n, (3, 16, 32)), "small_image": volume(n, (2, 3, 4))} | {
                "big_number": n, "small_number": n,
            }  # fmt: skip

        keys = ("big_image", "small_image", "big_number", "small_number")
        device = Inline(
            "device", values, {key: {"source": "test", "dtype": "number", "shape": []} for key in keys}
        )
        run_engine(bpp.run_wrapper(_repeated(events, camera, device), md={"plan_name": "mixed", "session": "s"}))


def attempt(line: Line, root: str, **options: Any) -> list[list[str]]:
    """Wait for a word, then try `mixed`; give what went wrong, if anything did: each cause, kind and text."""
    logging.disable()
    split_stores()
    line.say("ready")
    line.hear()
    try:
        mixed(Trial(line, Path(root)), **options)
    except Exception as error:  # noqa: BLE001 - which, the test says
        return list(_causes(error))
    return []


def _causes(error: BaseException | None) -> Iterator[list[str]]:
    while error is not None:
        yield [cls.__name__ for cls in type(error).__mro__] + [str(error)]
        error = error.__cause__ or error.__context__


# --- on the child's side: many at once ----------------------------------------------------------------------


def keep_writing(line: Line, root: str, image_format: str, most_runs: int = 1000) -> int:
    """Write short runs until the word comes; give how many events."""
    logging.disable()
    split_stores()
    events = 0
    with FileWriter(root, image_format=image_format) as writer:
        run_engine, _ = connected(writer)
        camera = Camera("a", writer, session="s", embryo="e1", timepoint=0)
        for number in range(most_runs):
            camera.scalars["timepoint"] = number
            run_engine(bpp.run_wrapper(_repeated(5, camera), md={"plan_name": "crowd", "session": "s"}))
            events += 5
            if number == 0:
                line.say("first")
            if line.is_called():
                break
    return events


def keep_reading(line: Line, root: str, seed: int, operations: int) -> dict[str, int]:
    """Read at random, from catalogs fresh and old, and hold all that comes; give how much of what."""
    logging.disable()
    chance, done, old = random.Random(seed), Counter[str](), Catalog(root)
    for _ in range(operations):
        read = chance.choice(READS)
        catalog = old if chance.random() < 0.7 else Catalog(root)
        try:
            read(catalog, chance)
            done[read.__name__] += 1
        except (RunNotFoundError, StreamNotFoundError) as error:  # a run that has only just begun
            done[type(error).__name__] += 1
    return dict(done)


def _any_stream(catalog: Catalog, chance: random.Random) -> Stream:
    run = catalog[-chance.randint(1, min(len(catalog), 3 if chance.random() < 0.7 else 1000))]
    stream = run["primary"]
    if not len(stream):
        raise StreamNotFoundError("it has no event yet")
    return stream


def plane(catalog: Catalog, chance: random.Random) -> None:
    stream = _any_stream(catalog, chance)
    event, z = chance.randrange(len(stream)), chance.randrange(4)
    np.testing.assert_array_equal(stream["a_image"][event, z], frame(stream["a_number"][event], z))


def whole_volume(catalog: Catalog, chance: random.Random) -> None:
    stream = _any_stream(catalog, chance)
    event = chance.randrange(len(stream))
    np.testing.assert_array_equal(stream["a_image"].volume(event), volume(stream["a_number"][event]))


def projection(catalog: Catalog, chance: random.Random) -> None:
    stream = _any_stream(catalog, chance)
    event, axis = chance.randrange(len(stream)), chance.randrange(3)
    expected = volume(stream["a_number"][event]).max(axis=axis)
    np.testing.assert_array_equal(stream["a_image"].project(event, axis="zyx"[axis]), expected)


def documents(catalog: Catalog, chance: random.Random) -> None:
    run = catalog[-chance.randint(1, min(len(catalog), 5))]
    hold_together(list(run.documents()))
    assert run.refresh().start == run.start


def of_an_embryo(catalog: Catalog, chance: random.Random) -> None:
    rows = catalog.volumes(session="s", embryo="e1")
    for row in chance.sample(list(rows), min(len(rows), 3)):
        pixels = row.array()
        np.testing.assert_array_equal(pixels, volume(pixels.flat[0]))
    taken = catalog.timepoints("s", "e1")
    assert taken == list(range(len(taken)))
    assert catalog.next_timepoint("s", "e1") >= len(taken)


def runs(catalog: Catalog, chance: random.Random) -> None:
    found = catalog.search(session="s")
    assert [run.start["time"] for run in found] == sorted((run.start["time"] for run in found), reverse=True)
    assert all(run.stop is None or run.exit_status == "success" for run in found)


READS = (plane, plane, plane, whole_volume, projection, documents, of_an_embryo, runs)


def keep_house(line: Line, root: str, seed: int) -> int:
    """Recover, index anew and verify while others read and write, until the word comes; nobody is disturbed."""
    logging.disable()
    chance, operations = random.Random(seed), 0
    while not line.is_called():
        operations += 1
        match chance.choice(HOUSEKEEPING):
            case "recover":
                assert not [done for done in recover(root) if isinstance(done, Recovery) or not done.running]
            case "reindex":
                reindex(Path(root))
            case "verify":
                hold_verified(Path(root))
    return operations


HOUSEKEEPING = ("recover", "reindex", "verify")


def write_and_tag(line: Line, root: str, me: str, many: int, image_format: str) -> list[list[str]]:
    """Add runs, and tags to any; give the uid and tag of each."""
    logging.disable()
    chance, said = random.Random(me), []
    with FileWriter(root, image_format=image_format) as writer:
        run_engine, _ = connected(writer)
        camera = Camera("a", writer, embryo="e1", timepoint=0)
        for number in range(many):
            run_engine(bpp.run_wrapper(_repeated(1, camera), md={"plan_name": me}))
            catalog = Catalog(root)
            for run in chance.sample([*catalog], min(len(catalog), 3)):
                tag = f"{me} {number} {run.uid[:8]}"
                add_note(run.folder, by=me, added=[tag])
                said.append([run.uid, tag])
    return said


# --- on the test's side: how it is ended --------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Measured:
    """A scenario that nobody disturbed: how long it took, and how often each call was made."""

    seconds: float
    calls: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Ending:
    """How a trial ended, and what had been acknowledged by then, encoded."""

    how: str
    acknowledged: frozenset[bytes]
    killed: bool


def begun(zygote: Zygote, scenario: str, root: Path, **options: Any) -> Child:
    """A scenario that has just begun."""
    child = zygote.fork("tests.durability_rig:perform", scenario=scenario, root=str(root), **options)
    if not child.listen(word="begin") or not child.heard("begin"):
        with child:
            raise AssertionError(f"{scenario} did not begin: {child.said[-1:]}")
    return child


def acknowledged(child: Child) -> frozenset[bytes]:
    """What the writer of a child has acknowledged, as far as it was heard."""
    return frozenset(encode(words) for words in child.heard("acknowledged"))


def ended(child: Child, how: str) -> Ending:
    """How a child has ended that nobody but us may have ended badly."""
    assert child.status is not None
    killed = os.WIFSIGNALED(child.status)
    assert not killed or os.WTERMSIG(child.status) == signal.SIGKILL, f"{how}: status {child.status}"
    assert not child.heard("error"), f"{how}: {child.heard('error')}"
    return Ending(how, acknowledged(child), killed)


def kill_at(zygote: Zygote, scenario: str, root: Path, instant_s: float, **options: Any) -> Ending:
    """SIGKILL, some time after a scenario has begun."""
    with begun(zygote, scenario, root, **options) as child:
        child.listen(instant_s)
    return ended(child, f"{scenario} {options}, killed after {instant_s:.4f} s")


def kill_inside(zygote: Zygote, scenario: str, root: Path, kill: KillInside, **options: Any) -> Ending:
    """SIGKILL inside a call."""
    where = {"call": kill.call, "number": kill.number, "late": kill.late}
    with begun(zygote, scenario, root, kill=where, **options) as child:
        assert child.listen(), f"{scenario} {options} {kill} did not end"
    return ended(child, f"{scenario} {options}, killed in {kill}")


def any_kill(seed: random.Random, measured: Measured) -> KillInside:
    """Some call of a scenario: each kind as often as the others, and any of that kind."""
    call = seed.choice(sorted(measured.calls))
    return KillInside(call, seed.randint(1, measured.calls[call]), seed.random() < 0.5)


# --- what must hold -----------------------------------------------------------------------------------------


@dataclass(slots=True)
class Held:
    """How much was compared."""

    events: int = 0
    volumes: int = 0

    def __iadd__(self, other: "Held") -> "Held":
        self.events += other.events
        self.volumes += other.volumes
        return self


def hold_verified(root: Path) -> None:
    """Hold a root against `verify`: it finds no error."""
    assert not (errors := verify(root).errors), errors


def hold_root(root: Path, acknowledged: Collection[bytes]) -> Held:
    """Hold a root, as a fresh catalog sees it: what was acknowledged is there, and volumes are what they say."""
    held, journalled = Held(), set[bytes]()
    if not (root / "gently.json").exists():
        assert not acknowledged
        return held
    for run in Catalog(root):
        documents = list(run.documents(rebase=False))
        hold_together(documents)
        journalled |= {encode([name, plain(doc)]) for name, doc in documents}
        hold_hashes(run)
        held += hold_run(run)
    lost = [json.loads(words) for words in acknowledged if words not in journalled]
    assert not lost, f"acknowledged, and not in the journal: {lost}"
    return held


def hold_run(run: Run) -> Held:
    """Hold every row of a run against the addresses in its pixels."""
    held, table = Held(), RunTable()
    for name, doc in run.documents():
        table(name, doc)
    for stream in table.streams.values():
        for position, row in enumerate(stream.rows()):
            held.events += 1
            held.volumes += len(row.volumes)
            for key in row.volumes:
                if row.data.get("good") is False:
                    hold_salvaged(run[stream.name][key], position, row.data.get(f"{key}_frames"))
                else:
                    pixels = run[stream.name][key].volume(position)
                    said = row.data.get(key.replace("_image", "_number"), row.volumes[key].index)
                    # a monitor reads what was put again: its event may hold a later value than what made it
                    number = int(pixels.flat[0]) if key == "img" else said
                    np.testing.assert_array_equal(pixels, volume(number, pixels.shape, pixels.dtype))
            if "small_image" in row.data:
                expected = volume(row.data["small_number"], (2, 3, 4)).tolist()
                assert row.data["small_image"] == expected
    return held


def hold_salvaged(images: ImageSeries, position: int, frames: int | None) -> None:
    """Hold what came of a volume that was not finished; all of it, where its event alone was lost."""
    pixels, there = images.volume(position, include_bad=True), images.frames_there(position)
    assert np.count_nonzero(there) == (there.size if frames is None else frames)
    np.testing.assert_array_equal(pixels[there], volume(pixels[there].flat[0], pixels.shape, pixels.dtype)[there])


def hold_hashes(run: Run) -> None:
    """Hold every volume that a manifest has a hash of against it, as others read it."""
    last = {(entry.get("path"), entry.get("index")): entry for entry in manifest(run.folder)}
    for entry in last.values():
        if "xxh3_128" in entry:
            assert pixel_hash(stored(run.folder, entry)) == entry["xxh3_128"], entry


def hold_recovered(root: Path, acknowledged: Collection[bytes]) -> Held:
    """Recover a root, and hold it again: every run is closed, and a second time nothing is done."""
    if not (root / "gently.json").exists():
        return Held()
    done = recover(root)
    assert all(isinstance(each, Recovery) for each in done), done
    held = hold_root(root, acknowledged)
    hold_verified(root)
    assert not [run for run in Catalog(root) if run.is_open]
    assert not [*root.glob("runs/*/*/*/*/*/.*.new")]
    before = everything(root)
    assert recover(root) == []
    assert everything(root) == before
    hold_index(root)
    return held


def everything(root: Path) -> dict[str, bytes]:
    """Every file under a root, but for locks."""
    files = (path for path in sorted(root.rglob("*")) if path.is_file() and not path.name.endswith(".lock"))
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in files}


def hold_index(root: Path) -> None:
    """Hold the index against the run folders alone."""

    def answers() -> list[dict[str, Any]]:
        index = RootIndex(root)
        return [index.whole(entry).line() for entry in index.entries()]

    told, path = answers(), root / "index" / "runs.jsonl"
    content = path.read_bytes() if path.exists() else None
    path.unlink(missing_ok=True)
    try:
        assert answers() == told
    finally:
        if content is not None:
            path.write_bytes(content)


def hold_files(root: Path) -> int:
    """Hold every volume that a manifest names against readers of others: its file is whole. Give how many."""
    files = 0
    for folder in root.glob("runs/*/*/*/*"):
        for entry in manifest(folder) if (folder / "manifest.jsonl").exists() else ():
            path = folder / entry.get("path", "")
            if path.name.endswith(".npy"):
                continue
            examine(path, entry["index"])
            if path.name.endswith(".ome.tif"):
                with contextlib.closing(tifffile.TiffFile(path)) as tiff:
                    assert tiff.is_ome
                    assert tiff.series[0].shape == tuple(entry["shape"])
            else:
                yaozarrs.validate_zarr_store(path)
            files += 1
    return files


def hold_after_cut(line: Line, root: str, acknowledged: str) -> list[int]:
    """Hold a root after its power was cut, and go on in it; give how many events, volumes and files held."""
    logging.disable()
    path = Path(root)
    said = frozenset(encode(words) for words in json.loads(Path(acknowledged).read_bytes()))
    held = hold_root(path, said)
    files = hold_files(path)
    held = hold_recovered(path, said)
    with FileWriter(path) as writer:
        run_engine, _ = connected(writer)
        run_engine(bpp.run_wrapper(_repeated(1, Camera("a", writer)), md={"plan_name": "next"}))
    assert Catalog(path)[-1].exit_status == "success"
    return [held.events, held.volumes, files]
