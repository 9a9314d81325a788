"""Finding the array behind a row: our own files through the manifest, foreign assets through handlers.

One `AssetReader` a run. Files of ours are mapped at the offset that the manifest gives, without parsing them;
of all runs together, the last few maps are kept for the next plane. Whatever cannot be read says which handler
is missing.
"""

import contextlib
import os
import weakref
from collections import defaultdict, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from importlib.metadata import entry_points
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any, Union

import numpy as np
from numpy.typing import NDArray

from gently_bluesky.errors import (
    BadVolumeError,
    DamagedVolumeError,
    DatumNotFoundError,
    JournalError,
    UnfillableError,
    VolumeMissingError,
    VolumeRemovedError,
)
from gently_bluesky.read.foreign import READERS, ForeignPixels, file_of, read_foreign
from gently_bluesky.read.maximum import maximum
from gently_bluesky.read.origin import Axis
from gently_bluesky.read.tiff_pixels import TiffPixels
from gently_bluesky.store.facts import Found
from gently_bluesky.store.formats import MAPPED, examine, is_whole, map_pixels
from gently_bluesky.store.layout import uri_path
from gently_bluesky.store.manifest import ManifestEntry, foreign_asset, read_entries
from gently_bluesky.store.pyramid import Factors
from gently_bluesky.store.removed import Removed, as_before
from gently_bluesky.store.streams import Doc, Row, RunTable, VolumeRef

if TYPE_CHECKING:
    from gently_bluesky.read.remote.pixels import RemotePixels
    from gently_bluesky.store.zarr_pixels import ZarrPixels

HandlerRegistry = Mapping[str, Callable[..., Callable[..., Any]]]
"""As event_model has it: spec (or mimetype) -> class, made with a path and keywords, called with keywords."""

Pixels = Union[NDArray[Any], "ZarrPixels", TiffPixels, "RemotePixels"]
"""A volume: an array, or what gives one when it is indexed."""

_KEPT_MAPS = 16
"""A map that is kept saves the next plane of its volume a third of its time. Each holds a file descriptor, which
Python's mmap duplicates and of which a process has a thousand; on Windows it keeps the file from being removed."""


_MapKey = tuple[VolumeRef, bool]


@dataclass(frozen=True, slots=True)
class Source:
    """Where a volume is read from: the form it is stored in, the file or store, and its index there."""

    format: str
    path: PurePath
    index: int

    def __str__(self) -> str:
        return f"{self.format}: volume {self.index} in {self.path}"


class AssetReader:
    """Reads the volumes and assets that a run's documents name.

    Parameters
    ----------
    folder
        Of the run.
    table
        Its documents.
    registry
        Handlers that go before those that installed packages offer (entry points ``databroker.handlers``).
    """

    def __init__(self, folder: Path, table: RunTable, registry: HandlerRegistry) -> None:
        self._folder = folder
        self._table = table
        self._registry = registry
        self._forms: _Forms | None = None
        self._pyramids: dict[str, tuple[Factors, ...]] = {}
        self._maps: dict[_MapKey, Pixels] = {}  # they go with the run, or when newer ones come

    def entry(self, ref: VolumeRef) -> ManifestEntry | None:
        """Give the manifest's entry of a volume of ours, in its best form; None for a foreign one."""
        return next(iter(self._forms_of(ref)), None)

    def _forms_of(self, ref: VolumeRef) -> list[ManifestEntry]:
        """Give the stored forms of a volume, the best first, those that were removed last."""
        if self._forms is None or ref not in self._forms.volumes:
            self._forms = _forms_in(self._folder)
        if ref not in self._forms.volumes and self._forms.damage and ref.resource not in self._forms.foreign:
            raise JournalError(
                f"Volume {ref.index} of stream resource {ref.resource} of run {self._uid} cannot be found: "
                f"{self._forms.damage} Bring the manifest back from a copy; other volumes can be read."
            )
        return self._forms.volumes.get(ref, [])

    def data_key(self, resource: str) -> Doc:
        """Give what the descriptor says of the data key of a stream resource; KeyError if no document names it."""
        return self._table.data_key_of(resource)

    def stored(self, refs: Sequence[VolumeRef]) -> set[VolumeRef]:
        """Give those of which a stored form is whole at its place; assets of others are taken for granted."""
        return set(filter(self._is_stored, refs))

    def _is_stored(self, ref: VolumeRef) -> bool:
        try:
            forms = self._forms_of(ref)
        except JournalError:
            return False
        return not forms or _is_at_place(self._folder, forms)

    def pyramid(self, ref: VolumeRef) -> tuple[Factors, ...]:
        """Give by how much each level of a volume is smaller, the whole one first; () if it is in no OME-Zarr."""
        entry = self._in_store(ref)
        if entry is None:
            return ()
        if entry.path not in self._pyramids:
            from gently_bluesky.store.zarr_pixels import pyramid_of  # noqa: PLC0415 - codecs that only Zarr needs

            self._pyramids[entry.path] = pyramid_of(self._folder / entry.path)
        return self._pyramids[entry.path]

    def level(self, ref: VolumeRef, level: int) -> Pixels:
        """Give one level of a volume, decoded when it is indexed; 1 is the first that is smaller.

        Raises
        ------
        VolumeMissingError
            There is no OME-Zarr of it any more.
        """
        entry = self._in_store(ref)
        if entry is None:
            raise VolumeMissingError(
                f"Volume {ref.index} of stream resource {ref.resource} of run {self._uid} is in no OME-Zarr any "
                "more; the whole volume is read through images.levels[0]."
            )
        return self._mapped(entry, level=level)

    def _in_store(self, ref: VolumeRef) -> ManifestEntry | None:
        stores = (each for each in self._forms_of(ref) if (each.format, each.state) == ("ome-zarr", "sealed"))
        return next((entry for entry in stores if _is_at_place(self._folder, [entry])), None)

    def check(self, ref: VolumeRef, data_key: Doc, *, partial: bool = False) -> int:
        """Raise what `volume` would, as far as no pixel must be read for that.

        Returns
        -------
        int
            The bytes of its pixels; 0 for an asset of others, which says so only when it is read.
        """
        if forms := self._forms_of(ref):
            self.volume(ref, data_key, partial=partial)
            return forms[0].bytes
        mimetype, path, _ = self._foreign_file(ref)
        if mimetype in READERS and mimetype not in self._registry and not path.exists():
            raise VolumeMissingError(f"Stream resource {ref.resource} of run {self._uid}: {path} is not there.")
        return 0

    def volume(self, ref: VolumeRef, data_key: Doc, *, partial: bool = False, across: bool = False) -> Pixels:
        """Give one volume: mapped read-only, or decoded when it is indexed, where that is possible.

        With `partial`, one that was given up is given as it lies: frames that never came are zeros. With `across`,
        a form in chunks goes before one in planes.

        Raises
        ------
        VolumeMissingError
            Its file is not where the manifest says, or was cut short; or it was removed: the message says by which
            rule, when, by whom, and until when it is in the trash.
        BadVolumeError
            It was given up while it was acquired.
        UnfillableError
            It is foreign, and no handler for it is known.
        """
        forms = self._forms_of(ref)
        across = across and len(forms) > 1
        kept = self._maps.get((ref, across))
        if kept is not None:
            return kept
        if partial and forms and as_before(forms[0]).state == "aborted":
            return self._mapped(forms[0], partial=True)
        if not forms:  # not kept: it may be a whole volume in memory
            pixels = self._foreign(ref, data_key)
            return _read_only(pixels) if isinstance(pixels, np.ndarray) else pixels
        try:
            return self._keep((ref, across), self._any_of(forms, across=across))
        except FileNotFoundError:  # it went since the manifest was read, or came
            self._forms = None
        return self._keep((ref, across), self._any_of(self._forms_of(ref), across=across))

    def look_again(self) -> None:
        """Forget where volumes were: what was moved since is looked for where it is now."""
        self._maps.clear()
        self._forms = None

    def source(self, ref: VolumeRef, *, across: bool = False) -> Source:
        """Give the stored form that `volume` reads; raises as it does, and UnfillableError for one of others."""
        forms = self._forms_of(ref)
        if not forms:
            mimetype, path, parameters = self._foreign_file(ref)
            return Source(mimetype, file_of(path, parameters, ref.index), ref.index)
        entry = as_before(self._first_of(forms, across=across)[0])
        return Source(entry.format, self._folder / entry.path, ref.index)

    def _any_of(self, forms: Sequence[ManifestEntry], *, across: bool) -> Pixels:
        return self._first_of(forms, across=across)[1]

    def _first_of(self, forms: Sequence[ManifestEntry], *, across: bool) -> tuple[ManifestEntry, Pixels]:
        """Map the first form that is there; if none is, the best one says why."""
        errors: list[Exception] = []
        for entry in sorted(forms, key=partial(_preference, across=across)):
            try:
                return entry, self._mapped(entry)
            except (VolumeMissingError, UnfillableError) as error:
                errors.append(error)
        raise errors[0]

    def _keep(self, key: _MapKey, volume: Pixels) -> Pixels:
        self._maps[key] = volume
        _newest_maps.append((weakref.ref(self), key))
        while len(_newest_maps) > _KEPT_MAPS:
            reader, oldest = _newest_maps.popleft()
            if (whose := reader()) is not None:
                whose._maps.pop(oldest, None)
        return volume

    def maximum(self, volume: Pixels, axis: Axis) -> NDArray[Any]:
        """Give the maximum of a volume (z, y, x) along an axis."""
        return maximum(volume, axis)

    def inline(self, row: Row, key: str) -> NDArray[Any]:
        """Give an array that stayed in its event, of the dtype that the event's descriptor says."""
        return self._table.inline(row, key)

    def found(self, ref: VolumeRef) -> Found | None:
        """Give what the file of a volume says of it; None for one of others, or a file that says nothing."""
        entry = self.entry(ref)
        if entry is None:
            return None
        with contextlib.suppress(ValueError, OSError):
            return examine(self._folder / entry.path, entry.index)
        return None

    def frames_there(self, ref: VolumeRef) -> NDArray[np.bool_] | None:
        """Give which frames of a volume that was given up came, one a plane; None for any other."""
        entry = self.entry(ref)
        if entry is None or as_before(entry).state != "aborted":
            return None
        times = examine(self._folder / entry.path, entry.index).times
        return None if times is None else np.array(times) != 0

    def _mapped(self, entry: ManifestEntry, *, partial: bool = False, level: int = 0) -> Pixels:
        what = f"Volume {entry.index} of {entry.data_key!r} of run {self._uid}"
        path = self._folder / entry.path
        if not path.resolve().is_relative_to(self._folder.resolve()):
            raise VolumeMissingError(f"{what} should be in {path}, which is a link out of the run's folder.")
        how = Removed.of(entry)
        if how is not None and not path.exists():  # where it is there all the same, it is on its way
            back = "" if how.deleted else f" (to have it back: gently-bluesky restore {self._uid[:8]})"
            raise VolumeRemovedError(f"{what} was {how}{back}.", more={"removed": how.said()})
        entry = as_before(entry)
        if entry.state == "aborted" and not partial:
            raise BadVolumeError(f"{what} was given up: {entry.details.get('reason')}. Its frames are in {path}.")
        if entry.format not in {*MAPPED, "ome-zarr"}:
            raise UnfillableError(f"{what} is stored as {entry.format!r}, which this version cannot read.")
        try:
            return map_pixels(path, entry) if entry.format in MAPPED else _decoded(path, entry, level)
        except VolumeMissingError as error:
            raise type(error)(f"{what}: {error}") from error
        except FileNotFoundError as error:
            raise VolumeMissingError(f"{what} should be in {path}, and there is no such file.") from error
        except (ValueError, OverflowError) as error:
            raise VolumeMissingError(f"{what} should be in {path}, which was cut short ({error}).") from error
        except (OSError, KeyError) as error:
            raise VolumeMissingError(f"{what} should be in {path}, and cannot be read ({error!r}).") from error

    @property
    def _uid(self) -> str:
        return str((self._table.start or {}).get("uid"))

    # --- what others wrote ----------------------------------------------------------------------------------

    def _foreign(self, ref: VolumeRef, data_key: Doc) -> ForeignPixels:
        mimetype, path, parameters = self._foreign_file(ref)
        if mimetype in self._registry:
            handler = self._registry[mimetype](path, **parameters)
            return np.asarray(handler(indices=range(ref.index, ref.index + 1)))
        try:
            shape, dtype = tuple(data_key.get("shape") or ()), data_key.get("dtype_numpy")
            return read_foreign(mimetype, path, parameters, ref.index, shape, dtype)
        except OSError as error:
            raise VolumeMissingError(f"Stream resource {ref.resource} of run {self._uid}: {error}") from error
        except (ValueError, TypeError, LookupError, AttributeError, ArithmeticError) as error:
            raise UnfillableError(
                f"Stream resource {ref.resource} of run {self._uid} cannot be read: {error!r}. "
                f"Its parameters are {parameters!r:.200}; it lies at {path}."
            ) from error

    def _foreign_file(self, ref: VolumeRef) -> tuple[str, Path, Mapping[str, Any]]:
        """Give mimetype, place and parameters of what others wrote; UnfillableError if nobody here reads it."""
        resource = self._table.stream_resources[ref.resource]
        said = foreign_asset(resource)
        path = self._path(said.uri, ref)
        if said.format not in {*self._registry, *READERS}:
            raise UnfillableError(
                f"Stream resource {ref.resource} of run {self._uid} has mimetype {said.format!r}; no handler "
                f"reads it. Give one: Catalog(root, handlers={{{said.format!r}: ...}}). It lies at {said.uri}."
            )
        return said.format, path, resource.get("parameters") or resource.get("resource_kwargs", {})

    def _path(self, uri: str, ref: VolumeRef) -> Path:
        try:
            path = uri_path(uri)
        except ValueError:
            path = None
        if path is None or "\0" in str(path):
            raise UnfillableError(
                f"Stream resource {ref.resource} of run {self._uid} lies at {uri}, not in a file."
            )
        return path

    def datum(self, datum_id: str) -> NDArray[Any]:
        """Give what a Datum of old names, through the handler of its Resource's spec."""
        datum, make, path, kwargs = self._datum(datum_id)
        try:
            return np.asarray(make(path, **kwargs)(**datum["datum_kwargs"]))
        except FileNotFoundError as error:
            raise VolumeMissingError(f"Resource {datum['resource']} of run {self._uid}: {error}") from error

    def check_datum(self, datum_id: str) -> None:
        """Raise an UnfillableError if there is no such datum, or no handler for it."""
        self._datum(datum_id)

    def _datum(self, datum_id: str) -> tuple[Doc, Callable[..., Callable[..., Any]], str, Doc]:
        """Give a datum, the class of its handler, and with what that is made: a path and keywords."""
        datum = self._table.datums.get(datum_id)
        if datum is None:
            raise DatumNotFoundError(f"Run {self._uid} has no datum {datum_id!r}.")
        uid = datum["resource"]
        resource = self._table.resources.get(uid)
        if resource is None:
            raise UnfillableError(f"Resource {uid} of run {self._uid} came in none of its documents.")
        spec = resource["spec"]
        make = self._registry.get(spec) or _installed_handler(spec)
        if make is None:
            raise UnfillableError(
                f"Resource {uid} of run {self._uid} has spec {spec!r}; no handler reads it. "
                f"Install the package that has it (area-detector-handlers, for one), "
                f"or give one: Catalog(root, handlers={{{spec!r}: ...}})."
            )
        path = os.path.join(resource.get("root", ""), resource["resource_path"])  # noqa: PTH118 - text, as handlers want
        return datum, make, path, resource["resource_kwargs"]


_newest_maps: deque[tuple[weakref.ref[AssetReader], _MapKey]] = deque()


def _decoded(path: Path, entry: ManifestEntry, level: int) -> "ZarrPixels":
    from gently_bluesky.store.zarr_pixels import ZarrPixels  # noqa: PLC0415 - codecs that only Zarr needs

    pixels = ZarrPixels(path, entry.index or 0, level=level, partial=entry.state == "aborted")
    if level == 0 and (pixels.shape, pixels.dtype) != (entry.shape, np.dtype(entry.dtype)):
        raise DamagedVolumeError(f"{path} holds {pixels.shape} {pixels.dtype}, and the manifest says otherwise.")
    here = path.resolve()
    for shard in pixels.shards():
        if not shard.resolve().is_relative_to(here):
            raise VolumeMissingError(f"{shard} is a link, and leads out of the store.")
        if entry.state != "aborted" and not shard.exists():
            raise DamagedVolumeError(f"{shard} is not there: the store was cut short.")
    return pixels


@dataclass(frozen=True, slots=True)
class _Forms:
    """What a manifest says: stored forms by volume, the resources of others, and where it is damaged."""

    volumes: Mapping[VolumeRef, list[ManifestEntry]]
    foreign: frozenset[str]
    damage: str


def _forms_in(folder: Path) -> _Forms:
    damage: list[JournalError] = []
    entries = read_entries(folder, pass_over=damage.append)
    forms: defaultdict[VolumeRef, list[ManifestEntry]] = defaultdict(list)
    for entry in sorted(entries, key=_preference):
        if entry.index is not None:
            forms[VolumeRef(entry.resource, entry.index)].append(entry)
    foreign = frozenset(entry.resource for entry in entries if entry.state == "foreign")
    return _Forms(dict(forms), foreign, str(damage[0]) if damage else "")


def _is_at_place(folder: Path, forms: Sequence[ManifestEntry]) -> bool:
    return any(is_whole(folder / entry.path, entry) for entry in forms)


def _preference(entry: ManifestEntry, *, across: bool = False) -> tuple[bool, bool, bool]:
    return entry.state == "removed", entry.state != "sealed", (entry.format in MAPPED) == across


def in_memory(pixels: Pixels) -> NDArray[Any]:
    """Give a volume as an array: as it is where it is one, else decoded whole, read-only."""
    return pixels if isinstance(pixels, np.ndarray) else _read_only(pixels[...])


def _read_only(array: NDArray[Any]) -> NDArray[Any]:
    view = array.view()
    view.flags.writeable = False
    return view


@lru_cache
def _installed_handler(spec: str) -> Callable[..., Callable[..., Any]] | None:
    found = [point for point in entry_points(group="databroker.handlers") if point.name == spec]
    return found[0].load() if found else None
