"""What the tests of the data layer share: frames with addresses, a camera, runs on disk, and foreign readers."""

import json
import os
import subprocess
import sys
import threading
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import bluesky.plan_stubs as bps
import event_model
import numpy as np
import xxhash
from bluesky import Msg, RunEngine
from numpy.typing import DTypeLike, NDArray
from ophyd.status import Status

from gently_bluesky import Catalog, FileWriter, replay
from gently_bluesky.keep.documents import DocumentCheck
from gently_bluesky.protocols import Sink, Volume, VolumeMetadata
from gently_bluesky.read.run import Run
from gently_bluesky.store.disk import free_bytes
from gently_bluesky.store.facts import Found, VolumeFacts
from gently_bluesky.store.formats import examine, stored_in
from gently_bluesky.store.journal import Pair
from gently_bluesky.store.strict_json import decode, encode, plain
from tests.devices_rig import Documents, subscribe

REPOSITORY = Path(__file__).parent.parent
SHAPE = (4, 8, 16)
DEADLINE_S = 30.0


# --- frames with addresses ----------------------------------------------------------------------------------


def frame(number: int, z: int, shape: Sequence[int] = SHAPE[1:], dtype: DTypeLike = "<u2") -> NDArray[Any]:
    """A frame whose first pixels say which it is, volume and plane; the rest differs from frame to frame."""
    out = (np.arange(np.prod(shape)) * 3 + number * 5 + z * 7) % 101
    out = out.astype(dtype)
    out[:2] = number, z
    return out.reshape(tuple(shape))


def volume(number: int, shape: Sequence[int] = SHAPE, dtype: DTypeLike = "<u2") -> NDArray[Any]:
    """A volume of such frames."""
    planes = int(np.prod(shape[:-2], dtype=int))
    return np.stack([frame(number, z, shape[-2:], dtype) for z in range(planes)]).reshape(tuple(shape))


def pixel_hash(array: NDArray[Any]) -> str:
    """What the manifest must say of the pixels."""
    return xxhash.xxh3_128_hexdigest(np.ascontiguousarray(array).tobytes())


# --- a camera that streams ----------------------------------------------------------------------------------


class Camera:
    """A detector that streams volumes with addresses into a sink, as plainly as bluesky's protocols allow."""

    parent = None

    def __init__(
        self,
        name: str,
        sink: Sink,
        *,
        shape: Sequence[int] = SHAPE,
        dtype: DTypeLike = "<u2",
        view: str = "A",
        **scalars: Any,
    ) -> None:
        self.name = name
        self.view = view
        self.sink = sink
        self.shape = tuple(shape)
        self.dtype = np.dtype(dtype)
        self.scalars = scalars
        self.order: Sequence[int] | None = None
        self.before_seal: Callable[[Volume], None] = lambda volume: None
        self.taken = 0
        self._resource: Any = None
        self.key = f"{name}_image"

    def stage(self) -> list[object]:
        return [self]

    def unstage(self) -> list[object]:
        return [self]

    def trigger(self) -> Status:
        status = Status()
        try:
            self._take()
        except Exception as error:  # noqa: BLE001 - whatever it is, the RunEngine is to hear of it
            status.set_exception(error)
        else:
            status.set_finished()
        return status

    def _take(self) -> None:
        metadata = VolumeMetadata(voxel_size_um=(0.5, 0.25, 0.25), channel=f"{self.name} channel", view=self.view)
        self._resource = self.sink.open_resource(self.key, shape=self.shape, dtype=self.dtype, metadata=metadata)
        new = self._resource.new_volume()
        planes = volume(self.taken, self.shape, self.dtype).reshape(-1, *self.shape[-2:])
        for z in self.order if self.order is not None else range(len(planes)):
            new.write(z, planes[z], time=1_800_000_000.0 + self.taken + z / 100)
        self.taken += 1
        self.before_seal(new)
        new.seal()

    def read(self) -> dict[str, Any]:
        values = {f"{self.name}_number": self.taken - 1} | self.scalars
        return {key: {"value": value, "timestamp": 1.0} for key, value in values.items()}

    def describe(self) -> dict[str, Any]:
        image = {
            "source": f"test:{self.name}",
            "dtype": "array",
            "shape": list(self.shape),
            "dtype_numpy": self.dtype.str,
            "external": "STREAM:",
            "dims": list("tzyx"[-len(self.shape) :]),
            "voxel_size_um": [0.5, 0.25, 0.25],
            "view": self.view,
        }
        numbers = {f"{self.name}_number": 0} | self.scalars
        return {self.key: image} | {key: described(value) for key, value in numbers.items()}

    def read_configuration(self) -> dict[str, Any]:
        return {}

    def describe_configuration(self) -> dict[str, Any]:
        return {}

    def collect_asset_docs(self, index: int | None = None) -> Iterator[tuple[str, dict[str, Any]]]:
        if self._resource is not None:
            yield from self._resource.asset_docs(index)

    def get_index(self) -> int:
        return 0 if self._resource is None else int(self._resource.sealed)


def described(value: object) -> dict[str, Any]:
    """An honest data key of a scalar."""
    kind = "boolean" if isinstance(value, bool) else "string" if isinstance(value, str) else "number"
    return {"source": "test", "dtype": kind, "shape": []}


class Inline:
    """Any device of anybody: it reads what it is told to, and describes it as it likes."""

    parent = None

    def __init__(self, name: str, values: Callable[[], Mapping[str, Any]], keys: Mapping[str, Any]) -> None:
        self.name = name
        self._values = values
        self._keys = keys

    def read(self) -> dict[str, Any]:
        return {key: {"value": value, "timestamp": 2.0} for key, value in self._values().items()}

    def describe(self) -> dict[str, Any]:
        return {key: dict(entry) for key, entry in self._keys.items()}

    def read_configuration(self) -> dict[str, Any]:
        return {}

    def describe_configuration(self) -> dict[str, Any]:
        return {}


def inline(name: str, *arrays: Any, **entry: Any) -> Inline:
    """A device that gives one value after the other under its own name, described as a number at best."""
    remaining = iter(arrays)
    described_as = {"source": "test", "dtype": "number", "shape": []} | entry
    return Inline(name, lambda: {name: next(remaining)}, {name: described_as})


# --- runs ---------------------------------------------------------------------------------------------------


def connected(writer: FileWriter) -> tuple[RunEngine, Documents]:
    """A RunEngine with a writer first among its subscribers, and the documents that it emits."""
    run_engine = RunEngine({}, context_managers=[])
    subscribe(run_engine, writer)
    documents: Documents = []
    subscribe(run_engine, lambda name, document: documents.append((name, document)))
    return run_engine, documents


def record(root: Path, plan: Any, **options: Any) -> Run:
    """Run a plan, given the writer or as it is, through a writer, and give the run."""
    with FileWriter(root, **options) as writer:
        run_engine, _ = connected(writer)
        run_engine(plan(writer) if callable(plan) else plan)
    return newest(root)


def feed(root: Path, documents: Sequence[tuple[str, Mapping[str, Any]]], **options: Any) -> Run:
    """Give documents to a writer, and give the run."""
    with FileWriter(root, **options) as writer:
        for name, document in documents:
            writer(name, document)
    return newest(root)


def into(source: Any, root: Path, *, fill: bool = False, **options: Any) -> Run:
    """Replay a run, or pairs of documents, into a writer with another root, and give the run there."""
    with FileWriter(root, **options) as writer:
        replay(source, writer, fill=fill)
    return newest(root)


def taken(camera: Camera, *readings: Mapping[str, Any]) -> Iterator[Msg]:
    """A run with one event for each set of readings that the camera is to give beside its volume."""
    yield from bps.open_run()
    for reading in readings:
        camera.scalars |= reading
        yield from bps.trigger_and_read([camera])
    yield from bps.close_run()


def settle(writer: FileWriter) -> None:
    """Wait until the writer's thread has done all that it was given, and raise nothing."""
    writer._backlog.drain()


def newest(root: Path) -> Run:
    """The newest run, through a new catalog."""
    return Catalog(root)[-1]


def run_folder(root: Path) -> Path:
    """The only run folder under a root."""
    (journal,) = root.glob("runs/*/*/*/*/journal.jsonl")
    return journal.parent


def refused(name: str) -> Any:
    """For json.loads: there is no NaN in JSON."""
    raise AssertionError(f"the journal holds {name}")


def journal(folder: Path) -> list[Pair]:
    """The journal of a run folder as any JSON parser reads it, and nothing else."""
    content = (folder / "journal.jsonl").read_text(encoding="utf-8")
    assert content.endswith("\n")
    lines = [json.loads(line, parse_constant=refused) for line in content.split("\n")[:-1]]
    assert all(set(line) == {"name", "doc", "xxh3_64"} for line in lines)
    return [(line["name"], line["doc"]) for line in lines]


def manifest(folder: Path) -> list[dict[str, Any]]:
    """The manifest of a run folder as any JSON parser reads it."""
    text = (folder / "manifest.jsonl").read_text(encoding="utf-8").split("\n")[:-1]
    lines = [json.loads(line, parse_constant=refused) for line in text]
    assert all(line.pop("xxh3_64") for line in lines)
    return lines


def of(documents: Sequence[tuple[str, Mapping[str, Any]]], name: str) -> list[Any]:
    """The documents of one name."""
    return [document for each, document in documents if each == name]


def as_json(documents: Sequence[tuple[str, Mapping[str, Any]]]) -> Documents:
    """What strict JSON makes of documents: lists of tuples, numbers of numpy's."""
    return [(name, decode(encode(plain(document)))) for name, document in documents]


def names(documents: Sequence[tuple[str, Mapping[str, Any]]]) -> list[str]:
    """The names of documents, in order."""
    return [name for name, _ in documents]


def hold_together(documents: Sequence[tuple[str, Mapping[str, Any]]]) -> None:
    """Hold documents against their schemas, and every reference in them against what came before."""
    seen: set[str] = set()
    for name, document in documents:
        kind = event_model.DocumentNames[name]
        event_model.schema_validators[kind].validate(dict(document))
        for reference in ("descriptor", "run_start", "stream_resource", "resource"):
            assert reference not in document or document[reference] in seen, f"{name} before its {reference}"
        uid = document.get("uid", document.get("datum_id", ""))
        seen.update(uid if isinstance(uid, list) else [uid])
    check = DocumentCheck("")
    for name, document in documents:
        check(name, dict(document))
    assert not [finding for finding in check.findings if finding.severity == "error"]


def stored(folder: Path, entry: Mapping[str, Any]) -> NDArray[Any]:
    """Read a volume that the manifest names with somebody else's reader: numpy's map, or zarr-python."""
    path = folder / entry["path"]
    if entry["format"] == "ome-zarr":
        import zarr

        array = zarr.open_array(path / "0", mode="r")
        return np.asarray(array[entry["index"]])
    return np.memmap(path, entry["dtype"], "r", entry["details"]["offset"], tuple(entry["shape"]))


def path_of(key: str, index: int, image_format: str) -> str:
    """Where a volume of a data key is in its run folder, as findings and recoveries name it."""
    return f"{key}/{index:06d}.ome.tif" if image_format == "ome-tiff" else f"{key}.ome.zarr/events/{index:06d}"


def pixel_file(folder: Path, key: str, index: int = 0) -> Path:
    """The file that holds the pixels of a volume: of a store, its first shard of the whole volume."""
    store = folder / f"{key}.ome.zarr"
    return store / f"0/c/{index}/0/0/0" if store.exists() else folder / f"{key}/{index:06d}.ome.tif"


def said_by(folder: Path, entry: Mapping[str, Any]) -> dict[str, Any]:
    """What a stored volume says of itself, as others read it: words flat by their names, voxels, channel."""
    path = folder / entry["path"]
    if entry["format"] == "ome-zarr":
        group = json.loads((path / "events" / f"{entry['index']:06d}" / "zarr.json").read_bytes())
        said = group["attributes"]["gently_bluesky"]
        event = said.get("event", {"scalars": {}})
        words = {**said, **said["run"], **said["metadata"], **event["scalars"], "event_uid": event.get("uid")}
        return words | {"voxel_size_um": tuple(said["metadata"].get("voxel_size_um", ()))}
    import ome_types

    ome = ome_types.from_tiff(path)
    annotations = [] if ome.structured_annotations is None else ome.structured_annotations.map_annotations
    words = {key: value for annotation in annotations for key, value in annotation.value.items()}
    pixels = ome.images[0].pixels
    voxel = (pixels.physical_size_z, pixels.physical_size_y, pixels.physical_size_x)
    return words | {"voxel_size_um": voxel, "channel": pixels.channels[0].name}


def frame_times(folder: Path, entry: Mapping[str, Any]) -> list[float]:
    """When each frame of a stored volume was taken, as its file says; 0 where none came."""
    return list(examine(folder / entry["path"], entry["index"]).times or ())


def volumes_in(folder: Path) -> Iterator[tuple[Found, NDArray[Any]]]:
    """Every volume that lies in a run folder, whether a manifest names it or not: what it says, and its pixels."""
    for path, index in stored_in(folder):
        if path.name.startswith("."):  # it has no name yet
            continue
        found = examine(path, index)
        entry = {"path": path.relative_to(folder), "format": found.format, "index": found.index}
        shape, dtype = found.geometry.shape, found.geometry.dtype.str
        yield found, stored(folder, entry | {"shape": shape, "dtype": dtype, "details": {"offset": found.offset}})


def hold_pixels(run: Run) -> None:
    """Hold every file of the manifest against its hash, and every StreamDatum of ours against the manifest."""
    entries = [entry for entry in manifest(run.folder) if entry["state"] == "sealed"]
    ours = {(entry["resource"], entry["index"]) for entry in entries}
    for entry in entries:
        assert pixel_hash(stored(run.folder, entry)) == entry["xxh3_128"]
    foreign = {entry["resource"] for entry in manifest(run.folder) if entry["state"] == "foreign"}
    for datum in of(list(run.documents()), "stream_datum"):
        for index in range(datum["indices"]["start"], datum["indices"]["stop"]):
            assert datum["stream_resource"] in foreign or (datum["stream_resource"], index) in ours


def start_doc(**more: Any) -> dict[str, Any]:
    """A start document."""
    return {"uid": str(uuid.uuid4()), "time": 1_795_433_400.0, "scan_id": 1, "plan_name": "by_hand"} | more


def stop_doc(run: str, time: float = 1_795_433_400.0) -> dict[str, Any]:
    """The stop document of a run that went well."""
    return {"uid": f"stop {run}", "time": time, "run_start": run, "exit_status": "success"}


def facts(**more: Any) -> VolumeFacts:
    """What a file is told at its creation."""
    said: dict[str, Any] = {"run_uid": "run", "resource_uid": "resource", "data_key": "cam", "index": 0}
    return VolumeFacts(**(said | more))


def fill_up(folder: Path, *, leaving: int = 0) -> Path:
    """Fill a file system with a ballast, and give that; tmpfs counts in pages."""
    ballast = folder / "ballast"
    with ballast.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, free_bytes(folder) - leaving)
    return ballast


# --- other processes ----------------------------------------------------------------------------------------


def in_this_format(code: str) -> str:
    """Let a FileWriter in a child write the format that one would write here."""
    here = (FileWriter.__init__.__kwdefaults__ or {})["image_format"]
    told = f"FileWriter.__init__.__kwdefaults__['image_format'] = {here!r}"
    return f"from gently_bluesky import FileWriter; {told}\n{code}" if "FileWriter" in code else code


class Child:
    """Another process that runs some Python, answers in lines, and does not outlive its test."""

    def __init__(self, code: str, *arguments: object) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", in_this_format(code), *map(str, arguments)],
            cwd=REPOSITORY,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | {"PYTHONPATH": str(REPOSITORY), "PYTHONWARNINGS": "ignore"},
        )
        self._watchdog = threading.Timer(120, self.process.kill)
        self._watchdog.start()

    def line(self) -> str:
        """Its next line; fails if it has ended."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            assert self.process.stderr is not None
            raise AssertionError(f"the child ended: {self.process.stderr.read()}")
        return line.rstrip("\n")

    def tell(self, line: str = "") -> None:
        """Send it a line."""
        assert self.process.stdin is not None
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    def kill(self) -> None:
        """SIGKILL, and wait until it is gone."""
        self.process.kill()
        self.process.wait()

    def end(self) -> str:
        """Wait for its end, and give what it still had to say; it must have gone well."""
        out, err = self.process.communicate()
        assert self.process.returncode == 0, err
        return out

    def __enter__(self) -> "Child":
        return self

    def __exit__(self, *_: object) -> None:
        self._watchdog.cancel()
        self.process.kill()
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout, self.process.stderr):
            if stream is not None:
                stream.close()
        self._watchdog.join()


def in_child(code: str, *arguments: object) -> str:
    """Run some Python in a fresh process, and give what it printed."""
    with Child(code, *arguments) as child:
        return child.end()
