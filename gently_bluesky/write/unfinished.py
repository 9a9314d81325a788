"""Volumes that came last in an interrupted run and that no document names: found, and put into words.

Knows files, manifests and documents; changes none of them, but for space that was reserved for nothing.
"""

import logging
import re
import time
import uuid
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from gently_bluesky.errors import DamagedVolumeError
from gently_bluesky.store.disk import PAGE
from gently_bluesky.store.facts import Found
from gently_bluesky.store.formats import STORE, examine, hash_of, stored_in
from gently_bluesky.store.journal import Pair
from gently_bluesky.store.manifest import ManifestEntry, read_entries
from gently_bluesky.store.streams import Doc, RunTable, StreamTable

log = logging.getLogger(__name__)

_INDEX = re.compile(r"\d{6,9}\.")  # as files are named here: strangers are not ours to enter
_DTYPES: Mapping[type, str] = {str: "string", int: "integer", float: "number"}
_INTERRUPTED = "the run was interrupted before a document named it"


@dataclass(frozen=True, slots=True)
class Unfinished:
    """A volume that no document names, and what its file says of itself."""

    entry: ManifestEntry
    frames: int | None
    planes: int
    last_seen: float
    channel: str | None = None


def give_back_space(path: Path) -> None:
    """Remove what was reserved in a run folder for volumes that never got their name."""
    for file in path.glob("*/.*.new"):
        file.unlink()  # space that was reserved: a file has its name before its first frame


def find_unfinished(path: Path, table: RunTable) -> Iterator[Unfinished]:
    """Give the volumes of a run that came after those that its documents name."""
    named: dict[str, int] = {}
    for stream in table.streams.values():
        for ref in (ref for row in stream.rows() for ref in row.volumes.values()):
            named[ref.resource] = max(ref.index, named.get(ref.resource, -1))
    entries = read_entries(path)
    known = {(entry.path, entry.index if entry.path.endswith(STORE) else None): entry for entry in entries}
    resources = _resources_by_folder(path, table, entries)
    for file, event in stored_in(path):
        name = file.relative_to(path).as_posix()
        entry = known.get((name, event))
        try:
            if entry is not None and not _is_last(entry, named):
                continue
            found = examine(file, event)
            if entry is None or entry.state == "aborted":
                resource = found.resource_uid or resources.get(name.partition("/")[0], "")
                if not _is_ours(file, found):
                    log.warning("%s was left alone: it is no volume of this run", file)
                    continue
                entry = _aborted(file, name, found, resource)
        except (ValueError, EOFError, DamagedVolumeError) as error:  # not ours to name
            log.warning("%s was left alone: %s", file, error)
            continue
        now = time.time()  # a bit that flipped in the table of times is no time
        times = [moment for moment in found.times or () if 0 < moment <= now]
        yield Unfinished(entry, found.frames, found.geometry.planes, max(times, default=0.0), found.channel)


def _is_last(entry: ManifestEntry, named: Mapping[str, int]) -> bool:
    unfinished = entry.state == "sealed" or entry.details.get("reason") == _INTERRUPTED
    return unfinished and entry.index is not None and entry.index > named.get(entry.resource, -1)


def _resources_by_folder(path: Path, table: RunTable, known: Collection[ManifestEntry]) -> dict[str, str]:
    """Give the stream resource of each image folder, for files that do not say it themselves."""
    said = {entry.path.partition("/")[0]: entry.resource for entry in known if entry.path}
    for uid, doc in table.stream_resources.items():
        folder = Path(str(doc.get("uri", "")))
        if folder.parent.name == path.name:
            said[folder.name] = uid
    return said


def _is_ours(file: Path, found: Found) -> bool:
    if found.geometry.dtype.kind not in "biufc":
        return False
    return found.offset is None or (found.offset % PAGE == 0 and _INDEX.match(file.name) is not None)


def _aborted(path: Path, name: str, what: Found, resource: str) -> ManifestEntry:
    details: dict[str, Any] = {"reason": _INTERRUPTED}
    if what.offset is not None:
        details["offset"] = what.offset
    if what.frames is not None:
        details["frames"] = what.frames
    folder, _, file = name.partition("/")
    entry = ManifestEntry(
        data_key=what.data_key or folder,
        resource=resource,
        index=int(file.split(".")[0]) if what.index is None else what.index,
        path=name,
        format=what.format,
        shape=what.geometry.shape,
        dtype=what.geometry.dtype.str,
        bytes=what.geometry.nbytes,
        state="aborted",
        details=details,
    )
    return replace(entry, xxh3_128=hash_of(path, entry))


def documents_of(table: RunTable, unfinished: Collection[Unfinished]) -> Iterator[Pair]:
    """Give documents that name volumes which came in part, one event for those of one trigger.

    The table takes each document before the next one is asked for. A volume whose stream is not known, or has no
    events, stays beside.
    """
    together: defaultdict[tuple[str, int], list[Unfinished]] = defaultdict(list)
    for each in unfinished:
        stream = _stream_of(table, each.entry)
        if stream is not None and each.entry.index is not None and each.frames:
            together[stream.name, each.entry.index].append(each)
    for (name, _), group in sorted(together.items()):
        yield from _event_of(table, table.streams[name], group)


def _stream_of(table: RunTable, entry: ManifestEntry) -> StreamTable | None:
    for stream in table.streams.values():
        for row in stream.rows():
            if row.uid is not None and any(ref.resource == entry.resource for ref in row.volumes.values()):
                return stream
    return None


def _shown(start: Doc, stream: StreamTable, group: Collection[Unfinished]) -> Doc:
    """Give what is known of what volumes show: the start's word, if no event of theirs differs, and their own."""
    said = {
        key: start[key]
        for key in ("embryo", "timepoint", "position", "channel")
        if key in start and all(row.data.get(key, start[key]) == start[key] for row in stream.rows())
    }
    channels = {each.channel for each in group}
    said |= {"channel": channels.pop()} if len(channels) == 1 else {}
    return {key: value for key, value in said.items() if type(value) in _DTYPES}


def _event_of(table: RunTable, stream: StreamTable, group: Collection[Unfinished]) -> Iterator[Pair]:
    assert table.start is not None
    seq_num = max(row.seq_num for row in stream.rows()) + 1
    counts = {f"{each.entry.data_key}_frames": each.frames for each in group}
    shown = _shown(table.start, stream, group)
    source = {"source": "gently_bluesky:recovery", "shape": []}
    moment = max(each.last_seen for each in group)
    descriptor = {
        "uid": str(uuid.uuid4()),
        "run_start": table.start["uid"],
        "time": moment,
        "name": stream.name,
        "data_keys": {
            **{each.entry.data_key: stream.data_keys[each.entry.data_key] for each in group},
            "good": {**source, "dtype": "boolean"},
            **{key: {**source, "dtype": _DTYPES[type(value)]} for key, value in {**shown, **counts}.items()},
        },
        "configuration": {},
        "object_keys": {},
        "hints": {},
    }
    yield "descriptor", descriptor
    for each in group:
        index = each.entry.index or 0
        datum = {
            "uid": f"{each.entry.resource}/{index}",
            "stream_resource": each.entry.resource,
            "descriptor": descriptor["uid"],
            "indices": {"start": index, "stop": index + 1},
            "seq_nums": {"start": seq_num, "stop": seq_num + 1},
        }
        yield "stream_datum", datum
    said = {"good": False, **shown, **counts}
    event = {
        "uid": str(uuid.uuid4()),
        "descriptor": descriptor["uid"],
        "time": moment,
        "seq_num": seq_num,
        "data": said,
        "timestamps": dict.fromkeys(said, moment),
        "filled": {},
    }
    yield "event", event
