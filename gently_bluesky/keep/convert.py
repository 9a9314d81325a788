"""Conversion: a second stored form of volumes, verified against their hash, and only then named by the manifest.

Documents stay as they are. Runs that have ended are converted, while others are being acquired; a conversion that
was interrupted goes on where it was. The first form stays: retention may drop it.
"""

import os
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import count
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Literal

import numpy as np
import xxhash

from gently_bluesky.errors import ConversionError, GentlyError, RunKeptError, RunNotFoundError
from gently_bluesky.keep.acts import write_entries
from gently_bluesky.keep.holdings import bytes_on_disk
from gently_bluesky.store.audit import append_audit
from gently_bluesky.store.disk import sync_folder
from gently_bluesky.store.facts import Geometry, VolumeFacts
from gently_bluesky.store.formats import STORE, each_plane, examine, hash_of, is_whole
from gently_bluesky.store.journal import read_documents
from gently_bluesky.store.layout import open_root, without_links
from gently_bluesky.store.manifest import ManifestEntry, read_entries
from gently_bluesky.store.ngff import can_store
from gently_bluesky.store.ome_tiff import OmeTiffFile
from gently_bluesky.store.ome_xml import can_describe
from gently_bluesky.store.ome_zarr import OmeZarrSeries, OmeZarrVolume
from gently_bluesky.store.streams import Row, RunTable, VolumeRef
from gently_bluesky.write.inline import frame_times_of, metadata_of
from gently_bluesky.write.recorder import event_facts, start_facts
from gently_bluesky.write.run_folder import held
from gently_bluesky.write.space import Reserve

Format = Literal["ome-zarr", "ome-tiff"]
Progress = Callable[[int, int], object]
"""Called with the bytes of pixels that are done, and those that there are to do."""

_Id = tuple[str, int | None]
_GONE: _Id = "", -1  # a volume that was removed

_CAN: Mapping[str, Callable[[Geometry], bool]] = {"ome-zarr": can_store, "ome-tiff": can_describe}


@dataclass(frozen=True, slots=True)
class Converted:
    """What was done to one run.

    Attributes
    ----------
    run, folder, to
        Which run, its folder relative to the root, and the form that its volumes have now as well.
    volumes, already
        How many were converted now, and how many had that form before.
    bytes_from, bytes_to
        What the converted volumes take on the disk in the form that was read, and in the new one.
    left, damaged
        Volumes that were not converted, as (path, index), and why: the form has no words for them, or what was
        read is not what the manifest says.
    """

    run: str
    folder: str
    to: str
    volumes: int = 0
    already: int = 0
    bytes_from: int = 0
    bytes_to: int = 0
    left: tuple[tuple[str, int | None, str], ...] = ()
    damaged: tuple[tuple[str, int | None, str], ...] = ()


def convert_run(root: Path | str, folder: str, to: Format, *, progress: Progress | None = None) -> Converted:
    """Give every volume of one run a second stored form.

    Parameters
    ----------
    root, folder
        A root, and the folder of a run in it, relative to it.
    to
        The form.
    progress
        Told how far it is.

    Raises
    ------
    RunKeptError
        It has no stop document: it is being acquired, or was interrupted.
    RunLockedError
        Something else is done to it.
    DiskFullError
        There is no room for the next volume; those before it are converted.
    """
    if to not in _CAN:
        raise ValueError(f"{to!r} is no form that volumes can be converted to; there are {sorted(_CAN)}.")
    root, _ = open_root(Path(root))
    path = root / folder
    table = RunTable()
    try:
        for _, (name, doc) in read_documents(path):
            table(name, doc)
    except FileNotFoundError:
        raise RunNotFoundError(f"There is no run in {path}.") from None
    if table.start is None or table.stop is None:
        raise RunKeptError(
            f"The run in {path} has no stop document: it is being acquired, or was interrupted. Convert it when "
            "it has ended, or after `gently-bluesky recover`."
        )
    with held(path), ThreadPoolExecutor(min(4, os.cpu_count() or 1), "gently-convert") as pool:
        done = _Conversion(root, path, table, to, pool, progress or _silent).all()
    if done.volumes:
        append_audit(root, "converted", run=done.run, folder=folder, to=to, volumes=done.volumes)
    return done


def _silent(done: int, known: int) -> None:
    """Say nothing of the progress."""


def convert_runs(
    root: Path | str, folders: Sequence[str], to: Format, *, workers: int = 1
) -> Iterator[Converted | tuple[str, Exception]]:
    """Convert runs beside each other, in processes of their own; give what was done, or what went wrong.

    Parameters
    ----------
    root, folders, to
        As for `convert_run`.
    workers
        How many processes.
    """
    with ProcessPoolExecutor(workers, get_context("spawn")) as pool:
        futures = {folder: pool.submit(convert_run, root, folder, to) for folder in folders}
        for folder, future in futures.items():
            try:
                yield future.result()
            except (GentlyError, OSError, ValueError) as error:
                yield folder, error


class _Conversion:
    """Of one run whose lock is held."""

    def __init__(
        self, root: Path, folder: Path, table: RunTable, to: Format, pool: Executor, progress: Progress
    ) -> None:
        assert table.start is not None
        self._root, self._folder, self._table, self._to = root, folder, table, to
        self._start = table.start
        self._pool, self._progress = pool, progress
        self._reserve = Reserve(root)
        self._entries: list[ManifestEntry] = []
        self._taken: defaultdict[str, set[_Id]] = defaultdict(set)  # by the first part of a path: what lies there
        self._owners: defaultdict[str, set[str]] = defaultdict(set)
        for entry in read_entries(folder):
            self._note(entry)
        self._rows = {ref: (row, key) for row, key, ref in _volumes_of(table)}
        self._stores: dict[str, OmeZarrSeries] = {}

    def all(self) -> Converted:
        for reserved in self._folder.glob("*/.*.new"):  # by a conversion that died
            reserved.unlink()
        entries = self._entries
        sealed = [entry for entry in entries if entry.state == "sealed" and entry.index is not None]
        there = {_id(each) for each in sealed if each.format == self._to and is_whole(self._path(each), each)}
        wanted = [entry for entry in _sources(sealed, self._to) if _id(entry) not in there]
        total, done = sum(entry.bytes for entry in wanted), 0
        result = Converted(
            str(self._start["uid"]),
            self._folder.relative_to(self._root).as_posix(),
            self._to,
            already=len(there),
            left=tuple(self._without_source({_id(entry) for entry in sealed})),
        )
        for entry in wanted:
            why = self._why_not(entry)
            if why:
                result = replace(result, left=(*result.left, (entry.path, entry.index, why)))
                continue
            try:
                new, size = self._convert(entry)
            except (ConversionError, FileNotFoundError, ValueError, EOFError) as error:
                result = replace(result, damaged=(*result.damaged, (entry.path, entry.index, str(error))))
                continue
            done += entry.bytes
            self._progress(done, total)
            result = replace(
                result,
                volumes=result.volumes + 1,
                bytes_from=result.bytes_from + _size(self._folder, entry),
                bytes_to=result.bytes_to + size,
            )
            write_entries(self._folder, [new])
            self._note(new)
        return result

    def _note(self, entry: ManifestEntry) -> None:
        self._entries.append(entry)
        name = entry.path.partition("/")[0]
        self._taken[name].add(_GONE if entry.state == "removed" else _id(entry))
        self._owners[name].add(entry.resource)

    def _path(self, entry: ManifestEntry) -> Path:
        return self._folder / entry.path

    def _without_source(self, stored: Collection[_Id]) -> Iterator[tuple[str, int | None, str]]:
        """Give the volumes that events name and that no file of ours holds, and why."""
        removed = {_id(entry) for entry in self._entries if entry.state == "removed"}
        given_up = {_id(entry) for entry in self._entries if entry.state == "aborted"}
        for ref, (_, key) in self._rows.items():
            which = ref.resource, ref.index
            if which not in stored and which not in given_up:
                linked = "it is a file of others, which is linked: import it with --copy"
                yield key, ref.index, "it was removed" if which in removed else linked

    def _why_not(self, entry: ManifestEntry) -> str:
        if not _CAN[self._to](_geometry(entry)):
            return f"{self._to} has no words for {entry.shape} {entry.dtype}"
        if entry.xxh3_128 is None:
            return "it has no hash to be verified with"
        return ""

    def _convert(self, entry: ManifestEntry) -> tuple[ManifestEntry, int]:
        file = self._new(entry)
        path = self._folder / entry.path
        digest = xxhash.xxh3_128()
        row, key = self._rows.get(_ref(entry), (None, ""))
        event = None if row is None or row.uid is None else _event(row)
        taken = self._times(entry, key, event)
        try:
            for plane, pixels in enumerate(each_plane(path, entry)):
                data = np.ascontiguousarray(pixels).reshape(-1).view(np.uint8).data
                digest.update(data)
                file.write(plane, data, taken[plane], self._pool)
            file.complete(taken, None if event is None else event_facts(event), durable=True)
            new = replace(
                entry,
                path=file.path.relative_to(self._folder).as_posix(),
                format=self._to,
                state="sealed",
                details=dict(file.manifest),
            )
            self._hold(entry, new, digest.hexdigest(), path)
        except BaseException:  # nothing stands half done under a name that others open
            file.close()
            self._take_back(file, entry)
            raise
        file.close()
        sync_folder(file.path.parent)
        return new, _size(self._folder, new)

    def _take_back(self, file: OmeZarrVolume | OmeTiffFile, entry: ManifestEntry) -> None:
        if isinstance(file, OmeTiffFile):
            file.path.unlink(missing_ok=True)
        else:
            self._stores[file.path.name].take_back(entry.index or 0)

    def _times(self, entry: ManifestEntry, key: str, event: Mapping[str, Any] | None) -> Sequence[float]:
        planes = _geometry(entry).planes
        said = examine(self._folder / entry.path, entry.index).times
        if said is not None:
            return said
        if event is None:
            return [0.0] * planes
        return [time or 0.0 for time in frame_times_of(key, planes, event)]

    def _hold(self, entry: ManifestEntry, new: ManifestEntry, read: str, path: Path) -> None:
        if read != entry.xxh3_128:
            raise ConversionError(
                f"{path} is not what the manifest says: its pixels have changed. It was left alone."
            )
        if hash_of(self._folder / new.path, new) != entry.xxh3_128:
            raise ConversionError(
                f"{self._folder / new.path} does not hold what {path} holds: it was written, and is something "
                "else now. The manifest does not name it."
            )

    def _new(self, entry: ManifestEntry) -> OmeZarrVolume | OmeTiffFile:
        index, geometry = entry.index or 0, _geometry(entry)
        row, key = self._rows.get(_ref(entry), (None, entry.data_key))
        said: dict[str, Any] = {} if row is None else dict(self._table.data_keys(row.descriptor)[key])
        event = {"data": {} if row is None else row.data}
        found = examine(self._folder / entry.path, entry.index)
        facts = VolumeFacts(
            run_uid=str(self._start["uid"]),
            resource_uid=entry.resource,
            data_key=entry.data_key,
            index=index,
            run=start_facts(self._start),
            metadata=metadata_of(said, geometry.planes, event, found),
        )
        name = self._name_for(entry)
        folder = without_links(self._root, (self._folder / name).relative_to(self._root))
        folder.mkdir(exist_ok=True)
        if self._to == "ome-zarr":
            series = self._stores.get(name)
            if series is None:
                if not (folder / "zarr.json").exists() and self._taken[name]:
                    raise ConversionError(f"{folder} has lost its zarr.json: bring it back from a copy.")
                series = self._stores[name] = OmeZarrSeries(folder, geometry)
            series.take_back(index)  # what a conversion left that was interrupted
            return series.create(index, facts, self._claim, salvageable=False)
        path = folder / f"{index:06d}.ome.tif"
        for left in (path, folder / f".{path.name}.new"):
            left.unlink(missing_ok=True)
        return OmeTiffFile(path, geometry, facts, self._claim)

    def _name_for(self, entry: ManifestEntry) -> str:
        """Give the folder of the new form: without this volume, without removed ones, and no other resource's."""
        stem, suffix = _folder_of(entry), STORE if self._to == "ome-zarr" else ""
        for number in count(1):
            name = f"{stem if number == 1 else f'{stem}+{number}'}{suffix}"
            if not self._taken[name] & {_GONE, _id(entry)} and self._owners[name] <= {entry.resource}:
                return name
        raise AssertionError  # there is always another number

    def _claim(self, path: Path, nbytes: int) -> None:
        self._reserve.check(path, nbytes)


def _volumes_of(table: RunTable) -> Iterator[tuple[Row, str, VolumeRef]]:
    for stream in table.streams.values():
        for row in stream.every_row():
            for key, ref in row.volumes.items():
                yield row, key, ref


def _sources(sealed: Sequence[ManifestEntry], to: str) -> list[ManifestEntry]:
    """Give a good stored form of each volume that has one in another form."""
    found: dict[_Id, ManifestEntry] = {}
    for entry in sealed:
        if entry.format != to:
            found.setdefault(_id(entry), entry)
    return sorted(found.values(), key=lambda entry: (entry.path, entry.index))


def _id(entry: ManifestEntry) -> _Id:
    return entry.resource, entry.index


def _ref(entry: ManifestEntry) -> VolumeRef:
    return VolumeRef(entry.resource, entry.index or 0)


def _event(row: Row) -> dict[str, Any]:
    return {
        "uid": row.uid,
        "seq_num": row.seq_num,
        "time": row.time,
        "data": row.data,
        "timestamps": row.timestamps,
    }


def _geometry(entry: ManifestEntry) -> Geometry:
    return Geometry(entry.shape, np.dtype(entry.dtype))


def _folder_of(entry: ManifestEntry) -> str:
    return entry.path.partition("/")[0].removesuffix(STORE)


def _size(folder: Path, entry: ManifestEntry) -> int:
    stored = entry.details.get("stored_bytes")
    return stored if isinstance(stored, int) else bytes_on_disk(folder / entry.path)
