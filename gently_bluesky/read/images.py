"""`ImageSeries`: all volumes of one data key of a stream, read on demand.

An array (event, z, y, x) of which only what is asked for is touched. Positions on the event axis are rows of the
stream; bad volumes keep theirs.
"""

import copy
import operator
from collections.abc import Callable, Mapping, Sequence
from types import EllipsisType
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from gently_bluesky.errors import BadVolumeError, FrameMissingError, GeometryError, VolumeMissingError
from gently_bluesky.read.assets import Pixels, Source, in_memory
from gently_bluesky.read.origin import Axis, VolumeReader
from gently_bluesky.read.words import counted, listed
from gently_bluesky.store.manifest import ManifestEntry
from gently_bluesky.store.mapped import fetch
from gently_bluesky.store.streams import Doc, Row, is_good

if TYPE_CHECKING:
    import dask.array

Index = int | slice | EllipsisType | Sequence[int] | NDArray[np.integer[Any]]

_DIMS = {1: ("x",), 2: ("y", "x"), 3: ("z", "y", "x"), 4: ("t", "z", "y", "x")}
_DASK_CHUNK_BYTES = 64 << 20
_COLUMNS = 128  # as wide as a chunk of an OME-Zarr


class ImageSeries:
    """Volumes of one data key, by position on the event axis; made by ``run[stream][data_key]``.

    Parameters
    ----------
    run_uid, stream, key
        Which.
    data_key
        The data key's entry in the descriptor.
    rows
        Rows of the stream.
    reader
        Gives the volume of a row.
    include_bad
        Whether volumes of events with ``good: False`` are read.

    Examples
    --------
    ``images[3, 100]`` is one plane, ``images[-1, ::10, :512]`` a part of the newest volume: arrays in memory.
    ``images.volume(3)`` is a whole volume, mapped and not yet read.
    """

    def __init__(
        self,
        run_uid: str,
        stream: str,
        key: str,
        data_key: Doc,
        rows: Sequence[Row],
        reader: VolumeReader,
        *,
        include_bad: bool = False,
    ) -> None:
        self.run_uid = run_uid
        self.stream = stream
        self._name = f"run {run_uid[:8]}, {stream}, {key}"
        self._key = key
        self._data_key = data_key
        self._rows = rows
        self._reader = reader
        self._include_bad = include_bad
        self._geometry: tuple[tuple[int, ...], np.dtype[Any]] | None = None
        self._chosen: tuple[int, ...] | None = None
        self._level = 0
        self._factors: tuple[int, ...] = ()

    def __repr__(self) -> str:
        level = f", level {self._level}" if self._level else ""
        return f"<ImageSeries {self._name}: {counted(len(self), 'event')}{level}>"

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def including_bad(self) -> "ImageSeries":
        """The same series, reading bad volumes as well."""
        series = copy.copy(self)
        series._include_bad = True
        return series

    def only(self, events: Sequence[int]) -> "ImageSeries":
        """The same series, of these events alone, in this order; IndexError if there is no such event."""
        series = copy.copy(self)
        series._rows, series._geometry = [self._rows[self._position(event)] for event in events], None
        series._chosen = tuple(row.seq_num for row in series._rows)
        return series

    @property
    def chosen(self) -> tuple[int, ...] | None:
        """seq_nums of the events that `only` chose; None for all events of the stream."""
        return self._chosen

    @property
    def levels(self) -> "tuple[ImageSeries, ...]":
        """The series, and smaller and smaller versions of it: the levels of an OME-Zarr, means of two.

        The series alone, unless all of its volumes are stored with the same levels.
        """
        refs = [row.volumes.get(self._key) for row in self._rows]
        pyramids = {() if ref is None else self._reader.pyramid(ref) for ref in refs}
        pyramid = (len(pyramids) == 1 and pyramids.pop()) or ((1, 1, 1),)
        return tuple(self._at_level(level, factors) for level, factors in enumerate(pyramid))

    @property
    def level(self) -> int:
        """Which of the `levels` it is; 0: the volumes as they were taken."""
        return self._level

    @property
    def factors(self) -> tuple[int, ...]:
        """How many voxels of the whole volume one of this level spans, along the axes of a volume."""
        return self._by(len(self._one_geometry()[0]))

    def _at_level(self, level: int, factors: tuple[int, ...]) -> "ImageSeries":
        series = copy.copy(self)
        series._level, series._factors, series._geometry = level, factors, None
        return series

    # --- what it is -----------------------------------------------------------------------------------------

    @property
    def data_key(self) -> str:
        """Whose volumes they are."""
        return self._key

    @property
    def shape(self) -> tuple[int, ...]:
        """(event, z, y, x); (event, y, x) for single frames.

        Raises
        ------
        GeometryError
            The volumes differ in shape; `volume` reads each all the same.
        """
        return (len(self), *self._one_geometry()[0])

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the pixels; GeometryError if volumes differ."""
        return self._one_geometry()[1]

    @property
    def ndim(self) -> int:
        """How many axes there are, the event axis included."""
        return len(self.shape)

    @property
    def dims(self) -> tuple[str, ...]:
        """Names of the axes: ("event", "z", "y", "x"), or as the descriptor names them."""
        return ("event", *dims_of(self._data_key, len(self._one_geometry()[0])))

    def _one_geometry(self) -> tuple[tuple[int, ...], np.dtype[Any]]:
        if self._geometry is None:
            found = dict.fromkeys(map(self._geometry_of, self._rows))
            found.pop(None, None)
            if len(found) > 1:
                shown = ", ".join(f"{shape} {dtype}" for shape, dtype in filter(None, found))
                raise GeometryError(
                    f"{self._name} has volumes of {shown}. Read them one by one: images.volume(i)."
                )
            shape, dtype = next(iter(found), None) or self._described_geometry()
            smaller = tuple(-(-size // by) for size, by in zip(shape, self._by(len(shape)), strict=True))
            self._geometry = smaller, dtype
        return self._geometry

    def _by(self, ndim: int) -> tuple[int, ...]:
        """Give how many voxels of the first level one of this level spans, along the last so many axes."""
        return (*[1] * (ndim - len(self._factors)), *self._factors)[-ndim:] if ndim else ()

    def _geometry_of(self, row: Row) -> tuple[tuple[int, ...], np.dtype[Any]] | None:
        ref = row.volumes.get(self._key)
        if ref is None and isinstance(row.data.get(self._key), list):
            small = self._reader.inline(row, self._key)
            return small.shape, small.dtype
        entry = None if ref is None else self._reader.entry(ref)
        return None if entry is None else (entry.shape, np.dtype(entry.dtype))

    def _described_geometry(self) -> tuple[tuple[int, ...], np.dtype[Any]]:
        if self._rows and "dtype_numpy" not in self._data_key:
            first = self._volume(0, include_bad=True)
            return first.shape, first.dtype
        return tuple(self._data_key.get("shape", ())), np.dtype(self._data_key.get("dtype_numpy", "<f8"))

    @property
    def voxel_size_um(self) -> tuple[float, ...] | None:
        """Spacing along (z, y, x) in micrometer; None if the documents do not say.

        Raises
        ------
        GeometryError
            It changed within the series; `voxel_size_um_of` gives it for one event.
        """
        sizes = {self.voxel_size_um_of(i) for i in range(len(self))}
        if len(sizes) > 1:
            raise GeometryError(f"{self._name} has voxels of {sorted(map(str, sizes))}. Ask voxel_size_um_of(i).")
        return next(iter(sizes), None)

    def voxel_size_um_of(self, event: int) -> tuple[float, ...] | None:
        """Spacing along (z, y, x) of one volume in micrometer; None if the documents do not say."""
        spacing = spacing_um(self._data_key, self._rows[self._position(event)].data)
        return spacing and tuple(map(operator.mul, spacing, self._by(len(spacing))))

    def row(self, event: int) -> Row:
        """Give the row of an event: its seq_num, time and data, and where its volumes are; IndexError."""
        return self._rows[self._position(event)]

    def entry(self, event: int) -> ManifestEntry | None:
        """Give what the manifest says of a volume, in its best form; None for one that is in no file of ours."""
        ref = self.row(event).volumes.get(self._key)
        return None if ref is None else self._reader.entry(ref)

    @property
    def stored(self) -> NDArray[np.bool_]:
        """Which volumes are still stored: (event,), True where a stored form of the volume is at its place.

        False where it was removed or is gone, and where an event names none. What stands in the journal itself,
        and assets of others, which nothing here removes, count as stored. Bad volumes count like good ones.
        """
        refs = [row.volumes.get(self._key) for row in self._rows]
        there = self._reader.stored([ref for ref in refs if ref is not None])
        pairs = zip(self._rows, refs, strict=True)
        return np.array([self._key in row.data if ref is None else ref in there for row, ref in pairs], bool)

    def source(self, event: int) -> Source:
        """Say where a volume is read from: its format, the file or store, its index there.

        Of assets of others, the file where each event has one of its own, else their folder or store.

        Planes along z, and along y, are read from an OME-TIFF where there is one; those along x, few columns of
        many rows, from an OME-Zarr where there is one as well.

        Raises
        ------
        IndexError
            No such event.
        FrameMissingError, VolumeMissingError
            It has no volume, or none is there.
        """
        position = self._position(event)
        row = self._rows[position]
        if self._key not in row.volumes:
            raise FrameMissingError(
                f"{self._name}, event {position} (seq_num {row.seq_num}), has no volume in a file."
            )
        return self._reader.source(row.volumes[self._key])

    # --- reading --------------------------------------------------------------------------------------------

    def volume(self, event: int, *, include_bad: bool = False) -> NDArray[Any]:
        """Give one volume.

        Parameters
        ----------
        event
            Position on the event axis, from 0; negative counts from the end.
        include_bad
            Give it even if its event says that it is not good, or if it was interrupted: frames that never came
            are then zeros, and `frames_there` says which came.

        Returns
        -------
        NDArray
            (z, y, x), read-only; mapped for OME-TIFF: nothing is read before it is looked at, and the file is open
            for as long as the array is held. Of OME-Zarr it is decoded whole, in memory.

        Raises
        ------
        IndexError
            No such event.
        BadVolumeError
            The event is marked as not good, or the volume was given up.
        VolumeMissingError, UnfillableError
            The file is gone, or nobody here can read it.
        """
        position, bad = self._position(event), include_bad or self._include_bad
        return self._read(position, in_memory, include_bad=bad)

    def lazy(self, event: int, *, include_bad: bool = False) -> Pixels:
        """Give one volume as `volume` does; of OME-Zarr only what it is indexed with is decoded, every time."""
        return self._volume(self._position(event), include_bad=include_bad or self._include_bad)

    def _position(self, event: int) -> int:
        try:
            position = operator.index(event)
        except TypeError:
            raise TypeError(f"{self._name} counts its events in whole numbers from 0, not by {event!r}.") from None
        if not -len(self) <= position < len(self):
            raise IndexError(
                f"{self._name} has {counted(len(self), 'event')}, counted from 0; there is no event {event}."
            )
        return position % len(self)

    def _volume(self, position: int, *, include_bad: bool, across: bool = False) -> Pixels:
        row = self._rows[position]
        if not (include_bad or is_good(row.data)) and (self._key in row.volumes or self._key in row.data):
            raise BadVolumeError(
                f"{self._name}, event {position} (seq_num {row.seq_num}), is marked as not good. "
                "images.volume(i, include_bad=True) reads it."
            )
        if self._level:
            return self._reader.level(row.volumes[self._key], self._level)
        if self._key in row.volumes:
            return self._reader.volume(row.volumes[self._key], self._data_key, partial=include_bad, across=across)
        value = row.data.get(self._key)
        if isinstance(value, str):
            return self._reader.datum(value)
        if isinstance(value, list):
            return self._reader.inline(row, self._key)
        raise FrameMissingError(
            f"{self._name}, event {position} (seq_num {row.seq_num}), has no volume: its documents name none."
        )

    def __getitem__(self, index: Index | tuple[Index, ...]) -> NDArray[Any]:
        """Give a part of the series, in memory; numpy's basic indexing, and a list of integers for events.

        ``images[3, 100]`` touches one plane of one file.
        """
        parts = self._expanded(index if isinstance(index, tuple) else (index,))
        events, inner = parts[0], parts[1:]
        if isinstance(events, slice):
            chosen = list(range(len(self))[events])
        elif isinstance(events, Sequence | np.ndarray):
            chosen = [self._position(event) for event in events]
        else:
            return np.array(self._part(self._position(events), inner))
        if not chosen:
            shape, dtype = self._one_geometry()
            return np.empty((0, *np.broadcast_to(np.empty((), dtype), shape)[inner].shape), dtype)
        first = self._part(chosen[0], inner)
        out = np.empty((len(chosen), *first.shape), first.dtype)
        for place, event in enumerate(chosen):
            part = first if place == 0 else self._part(event, inner)
            if part.shape != first.shape or part.dtype != first.dtype:
                raise GeometryError(
                    f"{self._name}: event {chosen[0]} gives {first.shape} {first.dtype}, event {event} "
                    f"{part.shape} {part.dtype}; they do not stack. Read them one by one."
                )
            out[place] = part
        return out

    def part(self, event: int, inner: tuple[int | slice, ...] = ()) -> NDArray[Any]:
        """Give a part of one volume as ``images[event, *inner]`` does, not copied where its file is mapped."""
        return self._part(self._position(event), inner or (Ellipsis,))

    def _part(self, position: int, inner: tuple[Any, ...]) -> NDArray[Any]:
        def part(volume: Pixels) -> NDArray[Any]:
            try:
                if self._include_bad:
                    self._hold_there(position, volume.shape, inner)
                found = volume[inner]
            except IndexError as error:
                raise IndexError(f"{self._name}, event {position}, is {volume.shape}: {error}") from None
            fetch(found)
            return np.asarray(found)

        across = is_across(inner) and len(inner) == len(self._data_key.get("shape") or ())
        return self._read(position, part, include_bad=self._include_bad, across=across)

    def _read(
        self,
        position: int,
        take: Callable[[Pixels], NDArray[Any]],
        *,
        include_bad: bool,
        across: bool = False,
    ) -> NDArray[Any]:
        volume = self._volume(position, include_bad=include_bad, across=across)
        try:
            return take(volume)
        except VolumeMissingError:  # a store that was there went meanwhile, or a part of it did
            self._reader.look_again()
        return take(self._volume(position, include_bad=include_bad, across=across))

    def check(self, event: int, *, include_bad: bool = False) -> None:
        """Raise what reading a volume would, as far as no pixel must be read for that."""
        row = self._rows[self._position(event)]
        if self._key in row.volumes:
            self._reader.check(row.volumes[self._key], self._data_key, partial=include_bad or self._include_bad)
        elif isinstance(row.data.get(self._key), str):
            self._reader.check_datum(row.data[self._key])

    def frames_there(self, event: int) -> NDArray[np.bool_]:
        """Give which frames of a volume came: (z,), all True but for one that was given up while it was taken."""
        position = self._position(event)
        volume = self._volume(position, include_bad=True)
        ref = self._rows[position].volumes.get(self._key)
        there = None if ref is None else self._reader.frames_there(ref)
        return np.ones(volume.shape[:-2], bool) if there is None else there.reshape(volume.shape[:-2])

    def _hold_there(self, position: int, shape: tuple[int, ...], inner: tuple[Any, ...]) -> None:
        ref = self._rows[position].volumes.get(self._key)
        there = None if ref is None else self._reader.frames_there(ref)
        if there is None:
            return
        wanted = np.zeros(shape[:-2], bool)
        wanted[inner[: len(shape) - 2]] = True
        missing = np.flatnonzero(wanted.ravel() & ~there)
        if len(missing):
            raise FrameMissingError(
                f"{self._name}, event {position}: frames {listed(missing.tolist())} never came, the volume was "
                f"interrupted. images.frames_there({position}) says which did; images.volume({position}, "
                "include_bad=True) gives it with zeros in their place."
            )

    def _expanded(self, parts: tuple[Index, ...]) -> tuple[Any, ...]:
        dots = [i for i, part in enumerate(parts) if part is Ellipsis]
        if dots and dots[0] == 0:
            missing = len(self.shape) - (len(parts) - 1)
            parts = (*[slice(None)] * max(missing, 0), *parts[1:])
        for i, part in enumerate(parts):
            plain = isinstance(part, int | np.integer | slice) or part is Ellipsis
            listed = i == 0 and isinstance(part, Sequence | np.ndarray) and not isinstance(part, str)
            truth = np.asarray(part).dtype == bool  # numpy would take it for a mask, or for a new axis
            if truth or not (plain or listed):
                raise TypeError(
                    f"{self._name} takes integers, slices and '...', and a list of integers for events; "
                    f"index {i} is {part!r}."
                )
        return parts or (slice(None),)

    def project(self, event: int, *, axis: Axis = "z", include_bad: bool = False) -> NDArray[Any]:
        """Maximum projection of one volume, plane by plane.

        Parameters
        ----------
        event
            Position on the event axis, from 0; negative counts from the end.
        axis
            The axis that vanishes.
        include_bad
            As in `volume`.

        Returns
        -------
        NDArray
            (y, x) for "z", (z, x) for "y", (z, y) for "x"; dtype of the series; camera counts.

        Raises
        ------
        IndexError
            No such event.
        GeometryError
            The series holds no volumes (z, y, x).
        FrameMissingError
            The volume was interrupted and planes that the projection needs were never written.
        """
        volume = self._volume(self._position(event), include_bad=include_bad or self._include_bad)
        if include_bad or self._include_bad:
            self._hold_there(self._position(event), volume.shape, ())
        if volume.ndim != 3 or axis not in {"z", "y", "x"}:
            raise GeometryError(
                f"{self._name} holds arrays {volume.shape}; z, y and x can be projected, not {axis!r}."
            )
        return self._reader.maximum(volume, axis)

    def to_dask(self, *, chunk_bytes: int = _DASK_CHUNK_BYTES) -> "dask.array.Array":
        """Give a lazy dask array (event, z, y, x), in chunks of whole planes that lie together in a file.

        Parameters
        ----------
        chunk_bytes
            How large a chunk may be. It is at least one plane of an OME-TIFF, or the 8 planes of an OME-Zarr that
            are compressed together, and at most a shard; by default, 64 MiB, it is a shard.

        Notes
        -----
        What is cut out in one step, by integers and slices, reads that alone: of ``array[3, 100]`` one plane. Dask
        reads whole chunks for a list of events, and for a cut of a cut.
        """
        import dask.array as da  # noqa: PLC0415 - 0.4 s

        chunks = (1, *self._chunks(self.shape[1:], self.dtype, chunk_bytes))
        array: dask.array.Array = da.from_array(self, chunks=chunks, name=False, asarray=False)  # type: ignore[no-untyped-call]
        return array

    def volume_to_dask(self, event: int, *, include_bad: bool = False) -> "dask.array.Array":
        """Give one volume as a lazy dask array (z, y, x), in chunks as `to_dask`; raises as `volume` does."""
        import dask.array as da  # noqa: PLC0415 - 0.4 s

        volume = self.lazy(event, include_bad=include_bad)
        chunks = self._chunks(volume.shape, volume.dtype, _DASK_CHUNK_BYTES)
        array: dask.array.Array = da.from_array(volume, chunks=chunks, name=False)  # type: ignore[no-untyped-call]
        return array

    def _chunks(self, shape: Sequence[int], dtype: np.dtype[Any], chunk_bytes: int) -> tuple[int, ...]:
        if len(shape) < 3:
            return tuple(shape)
        *outer, depth, height, width = shape
        together, most = 1, depth
        if self._level or self._form() == "ome-zarr":
            from gently_bluesky.store.shards import Grid  # noqa: PLC0415 - codecs that only Zarr needs

            grid = Grid.of(depth, (height, width), dtype)
            together, most = grid.chunk[0], grid.shard_planes
        layers = chunk_bytes // max(together * height * width * dtype.itemsize, 1)
        return (*[1] * len(outer), max(1, min(max(1, layers) * together, most, depth)), height, width)

    def _form(self) -> str | None:
        forms = (self._reader.entry(ref) for row in self._rows if (ref := row.volumes.get(self._key)))
        return next((entry.format for entry in forms if entry is not None), None)


def dims_of(data_key: Doc, ndim: int) -> tuple[str, ...]:
    """Give the names of the axes of a volume: as its data key has them, or z, y, x from the end."""
    named = tuple(data_key.get("dims", ()))
    return named if len(named) == ndim else _DIMS.get(ndim, tuple(f"dim_{i}" for i in range(ndim)))


def spacing_um(data_key: Doc, data: Mapping[str, Any]) -> tuple[float, ...] | None:
    """Give the spacing along the axes of a volume in micrometer; None if its documents do not say.

    Parameters
    ----------
    data_key
        Its entry in the descriptor; where it says text for a number, the event holds that.
    data
        Of the event.
    """
    sizes = [data.get(part) if isinstance(part, str) else part for part in data_key.get("voxel_size_um") or ()]
    known = tuple(float(size) for size in sizes if size is not None)
    return known if known and len(known) == len(sizes) else None


def is_across(inner: Sequence[Any]) -> bool:
    """Whether a few columns of planes and rows are asked for: of every page of a mapped file, a few bytes."""
    *others, last = inner or (Ellipsis,)
    if isinstance(last, slice):
        given = last.start is not None and last.stop is not None and last.start * last.stop >= 0
        few = given and last.stop - last.start <= _COLUMNS
    else:
        few = last is not Ellipsis
    return few and len(others) >= 2 and all(isinstance(part, slice) for part in others)
