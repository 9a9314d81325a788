"""What the tests of remote catalogs share: a root with everything in it, and answers in a form that compares."""

import dataclasses
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path, PurePath
from typing import Any

import bluesky.plan_stubs as bps
import bluesky.plans as bp
import numpy as np
import tifffile
import xarray as xr
from bluesky import Msg

from gently_bluesky import Catalog, FileWriter, derive
from gently_bluesky.derived import maximum_projection
from gently_bluesky.keep.discard import discard
from gently_bluesky.read.assets import Source
from gently_bluesky.read.beside import LeftBeside
from gently_bluesky.read.images import ImageSeries
from gently_bluesky.read.run import Run
from gently_bluesky.read.stream import Stream
from gently_bluesky.read.volumes import Volume
from gently_bluesky.serve.problems import without_places
from gently_bluesky.store.strict_json import encode, plain
from gently_bluesky.write.recovery import recover
from tests.data_rig import SHAPE, Camera, feed, inline, record, start_doc, stop_doc, taken, volume
from tests.test_foreign_assets import legacy
from tests.test_recovery import interrupted
from tests.test_writer_streaming import Flyer

ADDRESS = "ADDRESS"


class Handler:
    """Of an asset that no installed package reads."""

    def __init__(self, path: str, **keywords: Any) -> None:
        self.keywords = keywords

    def __call__(self, *, number: int) -> Any:
        return np.full((5, 6), number, "<i4")


HANDLERS = {ADDRESS: Handler}


def everything(root: Path, image_format: str) -> None:
    """Make a root with every kind of run."""
    interrupted(root)
    recover(root, salvage="event")  # run "run": its third event names a volume that was given up
    first = record(root, _timelapse, image_format=image_format)
    removed = record(
        root, lambda writer: taken(Camera("cam", writer), {"embryo": "gone"}), image_format=image_format
    )
    discard(root, removed.uid)
    record(root, _inline)
    record(root, _fly, image_format=image_format)
    _foreign(root)
    resource = {"spec": ADDRESS, "root": "/", "resource_path": "x", "resource_kwargs": {"a": 1}}
    legacy(root, resource, [{"number": 4}, {"number": 9}], (5, 6))
    derive(maximum_projection, (first, "primary", "cam_image", [1]), into=root, parameters={"axis": "y"})
    feed(root, [("start", start_doc(uid="aaaa-1", parents=["nowhere"])), ("stop", stop_doc("aaaa-1"))])
    damaged = record(root, lambda writer: taken(Camera("cam", writer), {}, {}), image_format=image_format)
    journal = damaged.folder / "journal.jsonl"
    lines = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(b"".join([*lines[:-2], lines[-2].replace(b'"seq_num":', b'"seq_num":\x1a'), lines[-1]]))
    feed(root, [("start", start_doc(uid="aaaa-2", scan_id=7, odd=float("nan"), sample={"a": [1, None]}))])


def _timelapse(writer: FileWriter) -> Iterator[Msg]:
    first, second = Camera("cam", writer), Camera("other", writer, shape=(3, 5, 130), dtype="<f4", view="B")
    yield from bps.open_run({"plan_name": "timelapse", "session": "s", "operator": "ann", "roi": (1, 2)})
    for timepoint in range(3):
        said = {"embryo": "e1" if timepoint else "e0", "timepoint": timepoint, "good": timepoint != 1}
        for camera in (first, second):
            camera.scalars = {}
        first.scalars = said
        yield from bps.trigger_and_read([first, second])
    yield from bps.close_run()


def _inline(writer: FileWriter) -> Iterator[Msg]:
    small = [np.arange(6, dtype="<i2").reshape(2, 3) + i for i in range(2)]
    devices = [
        inline("small", *small, dtype="array"),
        inline("words", "a", "b", dtype="string"),
        inline("odd", float("nan"), float("inf")),
        inline("large", *(volume(i, (4, 64, 256)) for i in range(2))),
    ]
    return bp.count(devices, 2)


def _fly(writer: FileWriter) -> Iterator[Msg]:
    flyer = Flyer("cam", writer)
    yield from bps.open_run()
    yield from bps.declare_stream(flyer, name="primary", collect=True)
    yield from bps.kickoff(flyer, wait=True)
    yield from bps.complete(flyer, wait=True)
    yield from bps.collect(flyer, name="primary")
    yield from bps.close_run()


def _foreign(root: Path) -> None:
    """A run of two events whose volumes lie in files of others, of which the second is not there."""
    folder = root.parent / "of others"
    folder.mkdir()
    tifffile.imwrite(folder / "0.tif", volume(5, (3, 4, 9), ">u2"), byteorder=">", photometric="minisblack")
    key = {"source": "t", "dtype": "array", "shape": [3, 4, 9], "external": "STREAM:", "dtype_numpy": ">u2"}
    resource = {"uid": "r/0?", "run_start": "foreign", "data_key": "img", "uri": folder.as_uri() + "/"}
    resource |= {"mimetype": "multipart/related;type=image/tiff"}
    parameters = {"template": "{:d}.tif", "join_method": "stack", "chunk_shape": [1, 3, 4, 9]}
    documents: list[tuple[str, dict[str, Any]]] = [("start", start_doc(uid="foreign"))]
    documents.append(("descriptor", {"uid": "d", "time": 1.0, "run_start": "foreign", "data_keys": {"img": key}}))
    documents.append(("stream_resource", resource | {"parameters": parameters}))
    for number in range(2):
        datum: dict[str, Any] = {"uid": f"r/{number}", "descriptor": "d", "stream_resource": "r/0?"}
        datum |= {"indices": {"start": number, "stop": number + 1}}
        documents.append(("stream_datum", datum | {"seq_nums": {"start": number + 1, "stop": number + 2}}))
        head = {"uid": f"e{number}", "descriptor": "d", "seq_num": number + 1, "time": 2.0 + number}
        documents.append(("event", head | {"data": {}, "timestamps": {}, "filled": {}}))
    feed(root, [*documents, ("stop", stop_doc("foreign"))])


# --- what is asked, and what comes --------------------------------------------------------------------------


def outcome(ask: Callable[[], Any]) -> Any:
    """What comes of a question, in a form that compares: the value, or the error's class and text."""
    try:
        return shown(ask())
    except Exception as error:  # noqa: BLE001 - whatever it is
        text = re.sub(r"(?<=is \()[^)]*\): .*", "...", str(error)) if isinstance(error, IndexError) else str(error)
        return type(error).__name__, placeless(text)


def placeless(text: str) -> str:
    """A text as a server says it: a root by its name, no folder of this machine."""
    return without_places(re.sub(r"/[^\s'\"]*/root(?=/|\b)", "root", text))


def shown(value: Any) -> Any:
    """A value in a form that compares."""
    match value:
        case Run():
            return ("run", encode(plain([value.start, value.stop])))
        case Volume():
            return ("volume", value.run_uid, value.row)
        case Stream():
            return ("stream", value.name, len(value), shown(value.data_keys))
        case ImageSeries():
            return ("images", value.data_key, len(value), repr(value))
        case np.ndarray():
            native = value.astype(value.dtype.newbyteorder("=")) if value.dtype.kind in "iufc" else value
            found = getattr(value, "found", None)
            beside = None if found is None else encode(plain({**dataclasses.asdict(found), "geometry": None}))
            return ("array", native.dtype.str, native.shape, repr(native.tolist()), beside)
        case xr.Dataset():
            return {str(name): shown(value[name].values) for name in value.variables}
        case Source():
            return ("source", value.format, value.path.name, value.index)
        case LeftBeside():
            return shown(dataclasses.asdict(value))
        case PurePath():
            return value.name
        case str():
            return placeless(value)
        case Mapping():
            return {key: shown(item) for key, item in value.items()}
        case tuple() | list() | set() | frozenset():
            return shown_all(sorted(value) if isinstance(value, set | frozenset) else value, value)
        case _:
            return repr(value)


def shown_all(items: Iterable[Any], of: Any) -> Any:
    """Each of them, and what an answer says that has none."""
    return [shown(item) for item in items], getattr(of, "why_none", ""), repr(getattr(of, "available", {}))


def every_run(catalog: Catalog) -> dict[str, Run]:
    """Runs by uid, damaged ones included."""
    return {run.uid: run for run in catalog}


__all__ = ["HANDLERS", "SHAPE", "every_run", "everything", "outcome", "shown"]
