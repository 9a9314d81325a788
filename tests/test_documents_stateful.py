"""Whatever sequence of documents comes, the files hold it all, and hold nothing else.

A machine makes up what a RunEngine can emit: runs one after the other and interleaved, streams of every kind,
volumes that are sealed, given up, dropped or taken again after a rewind. A model of plain dicts says what must be
read back; it shares no code with what is tested. Pixels carry the number of their array.
"""

import copy
import itertools
import json
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import event_model
import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from numpy.typing import DTypeLike, NDArray

from gently_bluesky import Catalog, FileWriter
from gently_bluesky.errors import BadVolumeError, FrameMissingError, NoOpenRunError, VolumeIncompleteError
from gently_bluesky.read.run import Run
from gently_bluesky.store.formats import FORMATS, stored_in
from gently_bluesky.write.resource import ResourceWriter
from tests.conftest import Campaign
from tests.data_rig import journal, manifest, pixel_hash, stored

LIMIT_BYTES = 16
NOON = 1_795_433_400.0
CHECK_EVERY = 8

Doc = dict[str, Any]

SMALL = [((2,), "<u2"), ((2, 2), "u1"), ((0,), "<f8"), ((3,), "<U1")]
LARGE = [((3, 4), "<u2"), ((2, 3, 4), "u1"), ((9,), ">i4"), ((2, 2, 3), "<i8"), ((4, 5), "<c8"), ((33,), "?")]
STREAMED: list[tuple[tuple[int, ...], str]] = [((2, 2, 4), "<u2"), ((1, 3, 3), "<f4")]
PLANS = {
    "primary": ["x", "cam", "small", "large", "any", "who"],
    "second": ["x", "cam", "any"],
    "baseline": ["x", "large"],
    "x_monitor": ["x"],
    "any_monitor": ["any"],
    "alien": ["x", "alien", "who"],
    "old": ["x", "old", "who"],
    "fly": ["fly_cam"],
    "fly_page": ["page_cam", "x", "who"],
}
STEPS = ["primary", "second", "baseline", "x_monitor", "any_monitor", "alien", "old"]

picks = st.integers(0, 11)


def pixels(number: int, shape: Sequence[int], dtype: DTypeLike) -> NDArray[Any]:
    """An array that says its number."""
    out = (np.arange(int(np.prod(shape))) * 3 + number) % 97
    if np.dtype(dtype).kind == "U":
        out = out % 10
    elif np.dtype(dtype).kind == "b":
        out = (number >> np.arange(out.size) % 16) & 1
    elif out.size:
        out[:2] = number // 97, number % 97
    return out.astype(dtype).reshape(tuple(shape))


class Addressed:
    """A handler of old: what it gives, its datum says."""

    def __init__(self, path: str, **kwargs: Any) -> None:
        assert path == "/nowhere/at/all"
        assert kwargs == {"scale": 1}

    def __call__(self, number: int) -> NDArray[Any]:
        return pixels(number, (2, 5), "<u2")


# --- the model ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class GivenUp:
    """In place of a volume that came short: what came of it, zeros elsewhere."""

    pixels: NDArray[Any]
    came: list[bool]


@dataclass
class Camera:
    """What was streamed under a data key: numbers of the volumes of each resource, by index."""

    resource: ResourceWriter | None = None
    newest: int = -1
    collected: int = 0
    volumes: dict[tuple[str, int], Any] = field(default_factory=dict)
    open: set[tuple[str, int]] = field(default_factory=set)


@dataclass
class Event:
    """An event as it was given, with the arrays that belong to it."""

    uid: str
    seq_num: int
    time: float
    descriptor: str
    doc: Doc
    arrays: dict[str, Any]
    filed: set[str]
    named: set[str]


@dataclass
class Stream:
    """A stream as it was emitted."""

    name: str
    data_keys: dict[str, Doc]
    descriptors: dict[str, Doc] = field(default_factory=dict)
    next_seq: int = 1
    events: list[Event] = field(default_factory=list)
    collected: dict[int, dict[str, Any]] = field(default_factory=dict)

    @property
    def descriptor(self) -> str:
        return list(self.descriptors)[-1]

    @property
    def external_only(self) -> bool:
        return all("external" in entry for entry in self.data_keys.values())

    @property
    def streamed_only(self) -> bool:
        return all(entry.get("external") == "STREAM:" for entry in self.data_keys.values())

    def rows(self) -> dict[int, Event]:
        """Last events by seq_num; of a stream without events, what was collected."""
        rows = {event.seq_num: event for event in self.events}
        if not rows:
            for seq_num, arrays in self.collected.items():
                # readings were promised, and the event that has them never came: nobody vouches for the volumes
                data = {} if self.streamed_only else {"good": False}
                rows[seq_num] = Event("", seq_num, np.nan, "", {"data": data}, arrays, set(), set(arrays))
        return dict(sorted(rows.items()))

    def image_keys(self) -> set[str]:
        said = {key for key, entry in self.data_keys.items() if "external" in entry}
        return said.union(*(event.filed for event in self.events))


@dataclass
class OneRun:
    """A run as it was emitted."""

    start: Doc
    streams: dict[str, Stream] = field(default_factory=dict)
    cameras: dict[str, Camera] = field(default_factory=dict)
    events: list[tuple[str, Doc]] = field(default_factory=list)
    assets: list[tuple[str, Doc]] = field(default_factory=list)
    alien: str = ""
    aliens: int = 0
    old: str = ""
    aborted: int = 0
    stop: Doc | None = None

    @property
    def uid(self) -> str:
        return str(self.start["uid"])


def said(value: Any) -> str:
    """One text for what is the same in JSON."""

    def other(item: Any) -> Any:
        return item.tolist() if isinstance(item, np.ndarray | np.generic) else str(item)

    return json.dumps(value, sort_keys=True, default=other)


def numeric(array: NDArray[Any]) -> bool:
    return array.dtype.kind in "biufc"


def hold_valid(documents: Sequence[tuple[str, Mapping[str, Any]]]) -> None:
    """Hold documents against event-model's schemas, and every reference in them against what came before."""
    seen: set[str] = set()
    for name, document in documents:
        event_model.schema_validators[event_model.DocumentNames[name]].validate(dict(document))
        for reference in ("descriptor", "run_start", "stream_resource", "resource"):
            assert reference not in document or document[reference] in seen, f"{name} before its {reference}"
        uids = document.get("uid", document.get("datum_id"))
        new = [uids] if isinstance(uids, str) else uids
        assert not seen.intersection(new), f"{name} came twice"
        seen.update(new)


def rows_of(run: OneRun) -> Iterator[Doc]:
    """What a catalog must know of every volume, and of every timepoint without one."""
    for stream in run.streams.values():
        for row in stream.rows().values():
            values = {key: row.doc["data"].get(key, run.start.get(key)) for key in ("embryo", "timepoint")}
            values |= {"session": run.start.get("session"), "stream": stream.name, "seq_num": row.seq_num}
            values |= {"good": row.doc["data"].get("good") is not False}
            files = (row.filed | row.named) & stream.image_keys()
            for key in files:
                yield values | {"data_key": key}
            known = stream.image_keys() or "timepoint" in stream.data_keys
            if not files and known and values["timepoint"] is not None:
                yield values | {"data_key": ""}


# --- the machine --------------------------------------------------------------------------------------------


class Documents(RuleBasedStateMachine):
    """Makes up runs, and holds what is on disk against the model."""

    counts: ClassVar[Counter[str]] = Counter()

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="documents-"))
        self.root = self.folder / "root"
        self.numbers = itertools.count(1)
        self.runs: list[OneRun] = []
        self.writer: FileWriter | None = None
        self.since_check = self.checks = 0
        self.held: set[str] = set()
        self.run_of: dict[str, str] = {}
        self.told: dict[str, list[tuple[str, Doc]]] = {}

    @initialize(
        image_format=st.sampled_from(sorted(FORMATS)),
        durability=st.sampled_from(["event", "run"]),
        names=st.sets(st.sampled_from(sorted(PLANS)), min_size=2),
    )
    def begin(self, image_format: str, durability: Any, names: set[str]) -> None:
        self.image_format = image_format
        self.new_writer(durability)
        self.second = self.catalog()
        self.start("a", None, None, "count")
        for name in sorted(names):
            self.declare(0, name, 0)

    def new_writer(self, durability: Any) -> None:
        self.durability = durability
        options: dict[str, Any] = {"durability": durability, "inline_limit_bytes": LIMIT_BYTES}
        self.writer = FileWriter(self.root, image_format=self.image_format, **options)
        self.writer.subscribe(self.tell)

    def catalog(self) -> Catalog:
        return Catalog(self.root, handlers={"ADDRESS": Addressed})

    def tell(self, name: str, doc: Doc) -> None:
        """As a subscriber of the writer."""
        references = [doc[key] for key in ("run_start", "descriptor", "stream_resource", "resource") if key in doc]
        uid = self.run_of[references[0]] if references else doc["uid"]
        if name in {"start", "descriptor", "stream_resource", "resource"}:
            self.run_of[doc["uid"]] = uid
        self.told.setdefault(uid, []).append((name, doc))

    def give(self, name: str, doc: Mapping[str, Any]) -> None:
        self.counts["documents given"] += 1
        assert self.writer is not None
        self.writer(name, doc)

    def uid(self, kind: str) -> str:
        return f"{next(self.numbers):04d}-{kind}"

    def time(self) -> float:
        return NOON + next(self.numbers)

    def open(self) -> list[OneRun]:
        return [run for run in self.runs if run.stop is None]

    def a_run(self, pick: int) -> OneRun:
        return self.open()[pick % len(self.open())]

    def a_stream(self, pick: int, names: Sequence[str]) -> tuple[OneRun, Stream] | None:
        found = [(r, s) for r in self.open() for s in r.streams.values() if s.name in names]
        return found[pick % len(found)] if found else None

    # --- runs -----------------------------------------------------------------------------------------------

    @precondition(lambda self: self.writer is not None and len(self.open()) < 3)
    @rule(
        session=st.sampled_from([None, "a", "b"]),
        embryo=st.sampled_from([None, "e1", "e2"]),
        timepoint=st.sampled_from([None, 0, 3]),
        plan=st.sampled_from(["count", "scan"]),
    )
    def start(self, session: str | None, embryo: str | None, timepoint: int | None, plan: str) -> None:
        metadata = {"session": session, "embryo": embryo, "timepoint": timepoint}
        start = {"uid": self.uid("run"), "time": self.time(), "scan_id": len(self.runs) % 4 + 1, "plan_name": plan}
        start |= {key: value for key, value in metadata.items() if value is not None}
        start |= {"shape": (2, 3), "odd": float("inf"), "number": np.int64(4)}
        run = OneRun(start)
        self.runs.append(run)
        run.events.append(("start", start))
        self.give("start", start)

    @precondition(lambda self: self.open())
    @rule(pick=picks, status=st.sampled_from(["success", "success", "abort", "fail"]))
    def stop(self, pick: int, status: str) -> None:
        run = self.a_run(pick)
        stop = {"uid": self.uid("stop"), "run_start": run.uid, "time": self.time(), "exit_status": status}
        stop |= {"num_events": {name: len(stream.events) for name, stream in run.streams.items()}}
        run.events.append(("stop", stop))
        run.stop = stop
        self.give("stop", stop)
        self.hold_run(self.second[run.uid], run)
        self.held.add(run.uid)  # it changes no more: it is looked at again at the end

    @precondition(lambda self: self.writer is not None and self.runs and not self.open())
    @rule(durability=st.sampled_from(["event", "run"]))
    def another_writer(self, durability: Any) -> None:
        assert self.writer is not None
        self.writer.close()
        self.new_writer(durability)

    # --- streams --------------------------------------------------------------------------------------------

    @precondition(lambda self: self.open())
    @rule(pick=picks, name=st.sampled_from(sorted(PLANS)), fewer=st.integers(0, 63))
    def declare(self, pick: int, name: str, fewer: int) -> None:
        run = self.a_run(pick)
        if name in run.streams:
            return
        keys = [key for i, key in enumerate(PLANS[name]) if i == 0 or not fewer >> i & 1]
        if name in {"alien", "old", "fly_page"}:
            keys = list(dict.fromkeys([*keys, *PLANS[name][:2]]))
        data_keys = dict(itertools.chain.from_iterable(described(key).items() for key in keys))
        run.streams[name] = Stream(name, data_keys)
        self.describe(run, run.streams[name])

    @precondition(lambda self: self.open())
    @rule(pick=picks)
    def configure(self, pick: int) -> None:
        if (found := self.a_stream(pick, STEPS)) is not None:
            self.describe(*found)

    def describe(self, run: OneRun, stream: Stream) -> None:
        """A descriptor: the data keys stay, the configuration is new."""
        number = len(stream.descriptors)
        setting = {"data": {"s": number}, "timestamps": {"s": 1.0}, "data_keys": {"s": scalar("number")}}
        doc = {
            "uid": self.uid("descriptor"),
            "run_start": run.uid,
            "time": self.time(),
            "name": stream.name,
            "data_keys": copy.deepcopy(stream.data_keys),
            "configuration": {"device": setting},
            "object_keys": {"device": list(stream.data_keys)},
            "hints": {"device": {"fields": []}},
        }
        stream.descriptors[str(doc["uid"])] = doc
        self.give("descriptor", doc)

    # --- volumes --------------------------------------------------------------------------------------------

    @precondition(lambda self: self.open())
    @rule(
        pick=picks,
        geometry=st.sampled_from([0] * 5 + [1]),
        ends=st.sampled_from(["seal"] * 6 + ["abort", "short", "open"]),
        backwards=st.booleans(),
        repeat=st.integers(1, 3),
    )
    def take_volume(self, pick: int, geometry: int, ends: str, backwards: bool, repeat: int) -> None:
        run = self.a_run(pick)
        assert self.writer is not None
        kinds = ["cam", "fly_cam", "page_cam"]
        kinds = [kind for kind in kinds if any(kind in stream.data_keys for stream in run.streams.values())]
        if not kinds:
            return
        kind = kinds[pick // 3 % len(kinds)]
        camera = run.cameras.setdefault(kind, Camera())
        geometry = geometry if kind == "cam" and len(self.open()) == 1 else 0
        offered, kind_of_number = STREAMED[geometry]
        if len(self.open()) == 1:
            resource = self.writer.open_resource(kind, shape=offered, dtype=kind_of_number)
        else:
            with pytest.raises(NoOpenRunError, match="Several runs are open"):
                self.writer.open_resource(kind, shape=offered, dtype=kind_of_number)
            if camera.resource is None:
                return
            resource = camera.resource
        shape, dtype = resource.geometry.shape, resource.geometry.dtype
        ends = "short" if ends == "open" and kind != "cam" else ends
        for _ in range(repeat if ends == "seal" else 1):
            number = next(self.numbers)
            volume = resource.new_volume()
            index = sum(uid == resource.uid for uid, _ in camera.volumes)
            array = pixels(number, shape, dtype)
            planes = list(range(shape[0]))[:: -1 if backwards else 1][: None if ends in {"seal", "abort"} else -1]
            came = np.zeros_like(array)
            for z in planes:
                volume.write(z, array[z], time=NOON + z)
                came[z] = array[z]
            camera.volumes[resource.uid, index] = (
                array if ends == "seal" else GivenUp(came, [z in planes for z in range(shape[0])])
            )
            if ends == "seal":
                volume.seal()
                if geometry == 0:  # the device shows none of another geometry: one stream has one
                    camera.resource, camera.newest = resource, index
            elif ends == "abort":
                volume.abort("the test wants it so")
            elif ends == "short":
                with pytest.raises(VolumeIncompleteError, match="frames of"):
                    volume.seal()
            else:  # as long as the run
                camera.open.add((resource.uid, index))

    def assets_of(self, run: OneRun, stream: Stream, seq_num: int) -> dict[str, Any]:
        """Emit the asset documents of a step, as a save does; give the arrays by data key."""
        arrays: dict[str, Any] = {}
        for key in stream.data_keys:
            camera = run.cameras.get(key)
            if key == "cam" and camera is not None and camera.resource is not None:
                arrays[key] = camera.volumes[camera.resource.uid, camera.newest]
                self.stream_documents(run, stream, camera.resource.asset_docs(), camera.newest, seq_num, 1)
            elif key == "alien":
                arrays[key] = self.alien_documents(run, stream, seq_num)
        return arrays

    def stream_documents(
        self,
        run: OneRun,
        stream: Stream,
        documents: Iterator[tuple[str, Doc]],
        first: int,
        seq_num: int,
        width: int,
    ) -> None:
        emitted = {doc["uid"] for name, doc in run.assets if name == "stream_resource"}
        names = []
        for name, doc in documents:
            names.append(name)
            if name == "stream_datum":
                assert doc["indices"] == {"start": first, "stop": first + width}
                seq_nums = {"start": seq_num, "stop": seq_num + width}
                doc |= {"descriptor": stream.descriptor, "seq_nums": seq_nums}
                again = doc["stream_resource"] in emitted
            run.assets.append((name, doc))
            self.give(name, doc)
        assert names == (["stream_datum"] if again else ["stream_resource", "stream_datum"])

    def alien_documents(self, run: OneRun, stream: Stream, seq_num: int) -> NDArray[Any]:
        folder = self.folder / f"alien of {run.uid}"
        if not run.alien:
            run.alien = self.uid("alien")
            folder.mkdir()
            resource = {
                "uid": run.alien,
                "run_start": run.uid,
                "data_key": "alien",
                "mimetype": "multipart/related;type=application/x-npy",
                "uri": f"file://localhost{folder}/",
                "parameters": {"template": "{:03d}.npy", "chunk_shape": (1, 2, 5), "join_method": "stack"},
            }
            run.assets.append(("stream_resource", resource))
            self.give("stream_resource", resource)
        array = pixels(next(self.numbers), (2, 5), "<u2")
        np.save(folder / f"{run.aliens:03d}.npy", array)
        datum = {
            "uid": self.uid("alien-datum"),
            "stream_resource": run.alien,
            "descriptor": stream.descriptor,
            "indices": {"start": run.aliens, "stop": run.aliens + 1},
            "seq_nums": {"start": seq_num, "stop": seq_num + 1},
        }
        run.aliens += 1
        run.assets.append(("stream_datum", datum))
        self.give("stream_datum", datum)
        return array

    def old_documents(self, run: OneRun, number: int, paged: bool) -> str:
        if not run.old:
            run.old = self.uid("resource")
            resource = {
                "uid": run.old,
                "run_start": run.uid,
                "spec": "ADDRESS",
                "root": "/nowhere",
                "resource_path": "at/all",
                "resource_kwargs": {"scale": 1},
                "path_semantics": "posix",
            }
            run.assets.append(("resource", resource))
            self.give("resource", resource)
        datum_id = f"{run.old}/{number}"
        name, doc = "datum", {"datum_id": datum_id, "resource": run.old, "datum_kwargs": {"number": number}}
        if paged:
            doc |= {"datum_id": [datum_id], "datum_kwargs": {"number": [number]}}
            name = "datum_page"
        run.assets.append((name, doc))
        self.give(name, doc)
        return datum_id

    # --- events ---------------------------------------------------------------------------------------------

    @precondition(lambda self: self.open())
    @rule(
        pick=picks,
        shapes=st.lists(st.tuples(*[picks] * 3), min_size=1, max_size=3),
        embryo=st.sampled_from([None, "e1", "e2", "e3"]),
        timepoint=st.integers(0, 5),
        good=st.sampled_from([True, True, False]),
        lost=st.sampled_from([False] * 5 + [True]),
    )
    def save(
        self, pick: int, shapes: list[Sequence[int]], embryo: str | None, timepoint: int, good: bool, lost: bool
    ) -> None:
        """Events of a step scan or a monitor; `lost`, if the last ends between its assets and its event."""
        if (found := self.a_stream(pick, STEPS)) is None:
            return
        run, stream = found
        for i, each in enumerate(shapes, 1):
            arrays = self.assets_of(run, stream, stream.next_seq)
            if lost and i == len(shapes):
                if arrays:
                    stream.collected.setdefault(stream.next_seq, {}).update(arrays)
                return
            event = self.event(run, stream, arrays, each, (embryo, timepoint + i, good))
            self.expect(run, stream, event, arrays)
            self.give("event", event)

    def event(
        self, run: OneRun, stream: Stream, arrays: Doc, shapes: Sequence[int], who: tuple[Any, int, bool]
    ) -> Doc:
        """Make up an event of the next seq_num; add its arrays to `arrays`."""
        data: Doc = {}
        filled: Doc = {}
        for key in stream.data_keys:
            number = next(self.numbers)
            if key == "x":
                data[key] = [number * 0.5, np.float64(number), float("nan")][shapes[0] % 3]
            elif key in {"embryo", "timepoint", "good"}:
                data[key] = dict(zip(("embryo", "timepoint", "good"), who, strict=True))[key]
            elif key == "old":
                data[key] = self.old_documents(run, number, paged=bool(shapes[1] % 2))
                filled[key] = False
                arrays[key] = pixels(number, (2, 5), "<u2")
            elif key in {"small", "large", "any"}:
                choice = {"small": SMALL, "large": LARGE, "any": SMALL + LARGE}[key]
                shape, dtype = choice[shapes[2] % len(choice)]
                data[key] = pixels(number, shape, dtype)
        seq_num, stream.next_seq = stream.next_seq, stream.next_seq + 1
        return {
            "uid": self.uid("event"),
            "descriptor": stream.descriptor,
            "time": self.time(),
            "seq_num": seq_num,
            "data": data,
            "timestamps": dict.fromkeys(data, 1.0),
            "filled": filled,
        }

    def expect(self, run: OneRun, stream: Stream, event: Doc, arrays: Doc, *, as_event: bool = True) -> None:
        """Put into the model what is to come of an event."""
        inline = {key: value for key, value in event["data"].items() if isinstance(value, np.ndarray)}
        filed = {key for key, array in inline.items() if numeric(array) and array.nbytes > LIMIT_BYTES}
        doc = copy.deepcopy(event)
        doc = {name: {k: v for k, v in part.items() if k not in filed} if isinstance(part, dict) else part
               for name, part in doc.items()}  # fmt: skip
        stream.events.append(
            Event(
                event["uid"],
                event["seq_num"],
                event["time"],
                event["descriptor"],
                doc,
                arrays | inline,
                filed,
                set(arrays),
            )
        )
        if as_event:
            run.events.append(("event", doc))

    @precondition(lambda self: self.open())
    @rule(
        pick=picks, shapes=st.lists(st.tuples(*[picks] * 3), min_size=1, max_size=3), timepoint=st.integers(0, 5)
    )
    def save_page(self, pick: int, shapes: list[Sequence[int]], timepoint: int) -> None:
        """Several events at once, as a flyer of old gives them."""
        found = self.a_stream(pick, STEPS)
        if found is None or {"cam", "alien"} & found[1].data_keys.keys():
            return
        run, stream = found
        self.page(run, stream, [self.event(run, stream, {}, each, ("e1", timepoint, True)) for each in shapes], {})

    def page(self, run: OneRun, stream: Stream, events: list[Doc], collected: Mapping[int, Doc]) -> None:
        apart = any(isinstance(value, np.ndarray) for event in events for value in event["data"].values())
        columns = {key: [event[key] for event in events] for key in ("uid", "seq_num", "time")}
        page: Doc = {"descriptor": stream.descriptor, **columns}
        for part in ("data", "timestamps", "filled"):
            page[part] = {key: [event[part][key] for event in events] for key in events[0][part]}
        for event in events:
            arrays = dict(collected.get(event["seq_num"], {}))
            if "old" in stream.data_keys:
                arrays["old"] = pixels(int(event["data"]["old"].split("/")[1]), (2, 5), "<u2")
            self.expect(run, stream, event, arrays, as_event=apart)
        if not apart:
            run.events.append(("event_page", copy.deepcopy(page)))
        self.give("event_page", page)

    @precondition(lambda self: self.open())
    @rule(pick=picks, leave=st.integers(0, 2), shapes=st.tuples(*[picks] * 3))
    def collect(self, pick: int, leave: int, shapes: Sequence[int]) -> None:
        """What a flyer has by now, but for its last few: a datum of them all, with events in a page or without."""
        if (found := self.a_stream(pick, ["fly", "fly_page"])) is None:
            return
        run, stream = found
        key = next(iter(stream.data_keys))
        camera = run.cameras.get(key, Camera())
        if camera.resource is None:
            return
        first, stop = camera.collected, max(camera.newest + 1 - leave, 0)
        if stop <= first:
            assert not list(camera.resource.asset_docs(stop))
            return
        width, seq_num, uid = stop - first, stream.next_seq, camera.resource.uid
        self.stream_documents(run, stream, camera.resource.asset_docs(stop), first, seq_num, width)
        camera.collected = stop
        arrays = {seq_num + i: {key: camera.volumes[uid, first + i]} for i in range(width)}
        if stream.name == "fly":
            stream.collected |= arrays
            stream.next_seq += width
        else:
            events = [self.event(run, stream, {}, shapes, ("e2", i, True)) for i in range(width)]
            self.page(run, stream, events, arrays)

    @precondition(lambda self: self.open())
    @rule(pick=picks, back=st.integers(1, 3))
    def rewind(self, pick: int, back: int) -> None:
        """Go back to a checkpoint: the next events have the seq_nums of the last ones."""
        found = self.a_stream(pick, STEPS)
        if found is not None and found[1].events:
            found[1].next_seq = max(1, found[1].next_seq - back)

    # --- what must hold -------------------------------------------------------------------------------------

    @invariant()
    def all_agrees(self) -> None:
        self.counts["steps"] += 1
        self.since_check += 1
        if self.writer is not None and self.since_check >= CHECK_EVERY:
            self.since_check = 0
            self.writer.flush()
            self.checks += 1
            self.hold(self.catalog() if self.checks % 2 else self.second)

    def hold(self, catalog: Catalog) -> None:
        """Hold all answers of a catalog against the model."""
        uids = [run.uid for run in self.runs]
        assert [run.uid for run in catalog.search()] == uids[::-1]
        assert len(catalog) == len(uids)
        for name in ("count", "scan"):
            found = [run.uid for run in catalog.search(plan_name=name)]
            assert found == [run.uid for run in reversed(self.runs) if run.start["plan_name"] == name]
        assert catalog.next_scan_id() == max((run.start["scan_id"] for run in self.runs), default=0) + 1
        self.hold_volumes(catalog)
        for run in self.runs:
            if run.uid not in self.held:
                self.hold_run(catalog[run.uid], run)

    def hold_volumes(self, catalog: Catalog) -> None:
        rows = [(run, row) for run in self.runs for row in rows_of(run) if self.visible(run, row["stream"])]
        keys = ("stream", "seq_num", "data_key", "session", "embryo", "timepoint", "good")
        for bad in (False, True):
            volumes = catalog.volumes(include_bad=bad)
            found = Counter(said([v.run_uid, {key: getattr(v.row, key) for key in keys}]) for v in volumes)
            known = [(run, row) for run, row in rows if row["data_key"] and (bad or row["good"])]
            wanted = Counter(said([run.uid, row]) for run, row in known)
            assert found == wanted, f"too many: {found - wanted}, too few: {wanted - found}"
            times = [volume.row.time or 0.0 for volume in volumes]
            assert times == sorted(times, reverse=True)
        for embryo in ("e1", "e2", "e3"):
            shown = {run.uid for run, row in rows if row["embryo"] == embryo}
            shown |= {run.uid for run in self.runs if run.start.get("embryo") == embryo}
            assert {run.uid for run in catalog.search(embryo=embryo)} == shown
            for session in ("ab"[self.checks % 2],):
                points = {
                    row["timepoint"]
                    for _, row in rows
                    if (row["session"], row["embryo"]) == (session, embryo) and row["timepoint"] is not None
                }
                assert catalog.timepoints(session, embryo) == sorted(points)
                assert catalog.next_timepoint(session, embryo) == max(points, default=-1) + 1

    @staticmethod
    def visible(run: OneRun, name: str) -> bool:
        """Whether a stream is in the journal for sure: its descriptor may wait for what its first event says."""
        stream = run.streams[name]
        return run.stop is not None or bool(stream.events) or stream.external_only

    def hold_run(self, read: Run, run: OneRun) -> None:
        assert said(read.start) == said(run.start)
        assert said(read.stop) == said(run.stop)
        assert read.exit_status == (None if run.stop is None else run.stop["exit_status"])
        self.hold_journal(list(read.documents(rebase=False)), run)
        if run.stop is not None:
            hold_valid(journal(read.folder))
            assert set(read.keys()) == set(run.streams)
            assert said(self.told[run.uid]) == said(list(read.documents(rebase=False)))
        for name, stream in run.streams.items():
            if self.visible(run, name):
                self.hold_stream(read, stream)
        self.hold_manifest(read, run)
        if run.stop is not None and not any(
            stream.collected and not stream.events for stream in run.streams.values()
        ):
            self.hold_filled(read, run)

    def hold_journal(self, documents: list[tuple[str, Doc]], run: OneRun) -> None:
        ours = {doc["uid"] for _, doc in run.assets if "uid" in doc}
        descriptors = {doc["uid"]: doc for name, doc in documents if name == "descriptor"}
        happened = [pair for pair in documents if pair[0] in {"start", "stop", "event", "event_page"}]
        assert len(happened) == len(run.events)
        for (name, doc), (wanted_name, wanted) in zip(happened, run.events, strict=True):
            assert name == wanted_name
            if "descriptor" in wanted:
                stream = next(s for s in run.streams.values() if wanted["descriptor"] in s.descriptors)
                self.hold_descriptor(descriptors[doc["descriptor"]], stream, wanted)
            assert said({**doc, "descriptor": 0}) == said({**wanted, "descriptor": 0})
        assets = [said(pair) for pair in documents if pair[0] in {"stream_resource", "resource"}
                  if pair[1]["uid"] in ours]  # fmt: skip
        given = [said(pair) for pair in run.assets if pair[0] in {"stream_resource", "resource"}]
        datums = [said(pair) for pair in documents if pair[0] in {"datum", "datum_page"}
                  or (pair[0] == "stream_datum" and pair[1]["uid"] in ours)]  # fmt: skip
        given_datums = [said(pair) for pair in run.assets if pair[0] in {"datum", "datum_page", "stream_datum"}]
        if run.stop is None:
            assert not Counter(assets + datums) - Counter(given + given_datums)
        else:
            assert assets == given
            assert Counter(datums) == Counter(given_datums)
            assert set(descriptors) >= {uid for stream in run.streams.values() for uid in stream.descriptors}
        self.counts["documents checked"] += len(documents)

    def hold_descriptor(self, doc: Doc, stream: Stream, event: Doc) -> None:
        """A journalled descriptor says of every array what it is, and of all else what it was told."""
        told = stream.descriptors[event["descriptor"]]
        for key in ("name", "run_start", "configuration", "object_keys", "hints"):
            assert said(doc[key]) == said(told[key])
        arrays = next((e.arrays for e in stream.events if e.uid == event["uid"]), {})
        filed = next((e.filed for e in stream.events if e.uid == event["uid"]), set())
        for key, entry in stream.data_keys.items():
            array = arrays.get(key)
            if key not in {"small", "large", "any"}:
                assert said(doc["data_keys"][key]) == said(entry)
            elif array is not None:
                true = doc["data_keys"][key]
                assert (true["dtype"], tuple(true["shape"])) == ("array", array.shape)
                assert np.dtype(true["dtype_numpy"]) == array.dtype.newbyteorder("<")
                assert true.get("external") == ("STREAM:" if key in filed else None)

    def hold_stream(self, read: Run, stream: Stream) -> None:
        rows = list(stream.rows().values())
        found = read[stream.name]
        assert list(found.seq_num) == [row.seq_num for row in rows]
        np.testing.assert_array_equal(found.time, [row.time for row in rows])
        assert set(found.data_keys) == set(stream.data_keys)
        assert set(found.image_keys) == stream.image_keys()
        for position, row in enumerate(rows):
            assert said(found.rows[position].data) == said(row.doc["data"])
            if stream.events:
                number = stream.descriptors[row.descriptor]["configuration"]["device"]["data"]["s"]
                assert found.configuration(position) == {"device": {"s": number}}
            for key in stream.image_keys():
                images = found.images(key)
                if key not in row.arrays:
                    with pytest.raises(FrameMissingError, match="its documents name none"):
                        images.volume(position, include_bad=True)
                elif isinstance(lost := row.arrays[key], GivenUp):
                    with pytest.raises(BadVolumeError, match=r"was given up|is marked as not good"):
                        images.volume(position)
                    self.hold_pixels(images.volume(position, include_bad=True), lost.pixels)
                    assert list(images.frames_there(position)) == lost.came
                else:
                    self.hold_pixels(images.volume(position, include_bad=True), row.arrays[key])
                    if row.doc["data"].get("good") is False:
                        with pytest.raises(BadVolumeError, match="marked as not good"):
                            images.volume(position)

    def hold_pixels(self, found: NDArray[Any], wanted: NDArray[Any]) -> None:
        np.testing.assert_array_equal(found, wanted)
        assert found.dtype == wanted.dtype.newbyteorder("<")
        self.counts["volumes compared"] += 1

    def hold_manifest(self, read: Run, run: OneRun) -> None:
        """Whatever was sealed is on disk, whether an event tells of it or not."""
        entries = {(e["resource"], e.get("index")): e for e in manifest(read.folder)}
        files = [f"{p.relative_to(read.folder).as_posix()}#{index}" for p, index in stored_in(read.folder)]
        if run.stop is not None:
            assert sorted(files) == sorted(file_of(e) for e in entries.values() if "path" in e)
            for each in entries.values():
                if each["state"] == "sealed":
                    assert pixel_hash(stored(read.folder, each)) == each["xxh3_128"]
        for camera in run.cameras.values():
            for address, array in camera.volumes.items():
                entry = entries.get(address)
                if isinstance(array, GivenUp):
                    assert (entry is None) == (run.stop is None and address in camera.open)
                    assert entry is None or entry["state"] == "aborted"
                    continue
                assert entry is not None, f"{address} was lost"
                assert entry["state"] == "sealed"
                self.hold_pixels(stored(read.folder, entry), array)
        filed = sum(len(event.filed) for stream in run.streams.values() for event in stream.events)
        streamed = sum(len(camera.volumes) for camera in run.cameras.values())
        foreign = bool(run.alien) + bool(run.old)
        if run.stop is not None:
            assert len(entries) == filed + streamed + foreign

    def hold_filled(self, read: Run, run: OneRun) -> None:
        """Every event has its arrays, also one that a rewind has replaced."""
        events = {event.uid: event for stream in run.streams.values() for event in stream.events}
        if any(isinstance(array, GivenUp) for event in events.values() for array in event.arrays.values()):
            return
        filled = [doc for name, doc in read.documents(fill=True) if name == "event"]
        assert [doc["uid"] for doc in filled] == [e.uid for e in sorted(events.values(), key=lambda e: e.uid)]
        for doc in filled:
            event = events[doc["uid"]]
            for key in event.filed | event.named:
                self.hold_pixels(doc["data"][key], event.arrays[key])

    def teardown(self) -> None:
        try:
            if self.writer is not None:
                self.writer.close()
                self.hold(self.catalog())
                shutil.rmtree(self.root / "index", ignore_errors=True)
                self.held.clear()
                self.hold(self.second)
                self.held.clear()
                self.hold(self.catalog())
                self.counts["runs"] += len(self.runs)
        finally:
            if self.writer is not None:
                self.writer.close()
            shutil.rmtree(self.folder)


def file_of(entry: Doc) -> str:
    """The file of a volume, or its place in a store."""
    return f"{entry['path']}#{entry['index'] if entry['format'] == 'ome-zarr' else None}"


def scalar(dtype: str) -> Doc:
    return {"source": "test", "dtype": dtype, "shape": []}


def described(key: str) -> dict[str, Doc]:
    """Data keys as devices describe them: honest about streams, careless about arrays."""
    streamed = {
        "source": "test",
        "dtype": "array",
        "shape": [2, 2, 4],
        "external": "STREAM:",
        "dtype_numpy": "<u2",
    }
    match key:
        case "who":
            return {"embryo": scalar("string"), "timepoint": scalar("integer"), "good": scalar("boolean")}
        case "cam" | "fly_cam" | "page_cam":
            return {key: streamed}
        case "alien":
            return {key: {**streamed, "shape": [2, 5]}}
        case "old":
            return {key: {"source": "test", "dtype": "array", "shape": [2, 5], "external": "FILESTORE:"}}
    return {key: scalar("number")}


# --- campaigns ----------------------------------------------------------------------------------------------


def explore(campaign: Campaign, name: str, examples: int, steps: int) -> None:
    profile = settings(
        max_examples=examples,
        stateful_step_count=steps,
        suppress_health_check=list(HealthCheck),
    )
    Documents.counts.clear()
    run_state_machine_as_test(Documents, settings=profile)
    campaign.count(name, **Documents.counts, lost=0)


@pytest.mark.timeout(900)  # a counterexample takes its time to become small
def test_whatever_documents_come_the_files_hold_them_all(campaign: Campaign) -> None:
    explore(campaign, "documents of any kind", examples=40, steps=40)


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_whatever_documents_come_in_very_many_runs_the_files_hold_them_all(campaign: Campaign) -> None:
    explore(campaign, "documents of any kind, long", examples=1000, steps=150)
