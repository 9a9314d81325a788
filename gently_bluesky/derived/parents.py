"""What is derived from: selections of volumes, found in one root and held against what is there.

Knows how a user names volumes, and which of them can be read. Reads no pixel before it is asked to.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from numpy.typing import NDArray

from gently_bluesky.errors import AmbiguousRunError, BadVolumeError, DerivationError, RunNotFoundError
from gently_bluesky.read.catalog import Catalog
from gently_bluesky.read.images import ImageSeries, dims_of, spacing_um
from gently_bluesky.read.parentage import as_ranges
from gently_bluesky.read.run import Run
from gently_bluesky.read.stream import Stream
from gently_bluesky.read.volumes import Volume, Volumes
from gently_bluesky.read.words import listed
from gently_bluesky.store.streams import Doc, Row, is_good, measured_at

if TYPE_CHECKING:
    import dask.array

Bad = Literal["refuse", "skip", "take"]


class Selection(NamedTuple):
    """Volumes of one data key of one stream; a plain tuple (run, stream, data_key) does as well.

    Attributes
    ----------
    run
        A run, or what ``catalog[...]`` takes.
    stream, data_key
        Which volumes of it.
    seq_nums
        Which events, from 1; all that have a volume, if None.
    """

    run: Run | str | int
    stream: str
    data_key: str
    seq_nums: Iterable[int] | None = None


Parents = Run | str | Volume | ImageSeries | Iterable[Any]
"""A run or its uid (all its volumes), volumes of a catalog, an ImageSeries, a selection; or several of these."""


@dataclass(frozen=True, slots=True, eq=False)
class ParentVolume:
    """One volume that something is derived from, with what the documents say of it.

    Attributes
    ----------
    run_uid, stream, data_key, seq_num
        Which; seq_num from 1.
    start
        The start document of its run.
    data, time
        Of its event: scalars by data key, seconds since the epoch (None where a fly scan gave no events).
    data_keys
        What the descriptor of its event says of every data key.
    """

    run_uid: str
    stream: str
    data_key: str
    seq_num: int
    start: Mapping[str, Any]
    data: Mapping[str, Any]
    time: float | None
    data_keys: Mapping[str, Doc]
    _images: ImageSeries
    _event: int
    _bad_too: bool

    def __repr__(self) -> str:
        return f"<ParentVolume {self.data_key}, {self.event}>"

    @property
    def event(self) -> str:
        """Of which event it is, as messages say it."""
        return f"run {self.run_uid[:8]}, {self.stream}, seq_num {self.seq_num}"

    @property
    def described(self) -> Doc:
        """What its data key says of it."""
        return self.data_keys[self.data_key]

    @property
    def good(self) -> bool:
        """Whether its event says so."""
        return is_good(self.data)

    def said(self, key: str) -> Any:
        """Give what its event says under a key, or else the start document of its run; None if neither does."""
        return self.data.get(key, self.start.get(key))

    @property
    def shape(self) -> tuple[int, ...]:
        """(z, y, x), as described."""
        return tuple(self.described.get("shape", ()))

    @property
    def dims(self) -> tuple[str, ...]:
        """Names of its axes."""
        return dims_of(self.described, len(self.shape))

    @property
    def voxel_size_um(self) -> tuple[float, ...] | None:
        """Spacing along its axes in micrometer; None if the documents do not say."""
        return spacing_um(self.described, self.data)

    def array(self) -> NDArray[Any]:
        """Give the pixels, (z, y, x), read-only: mapped where that is possible, as `ImageSeries.volume` has it."""
        return self._images.volume(self._event, include_bad=self._bad_too)

    def dask(self) -> "dask.array.Array":
        """Give the pixels as a dask array (z, y, x), in chunks of whole planes that lie together in the file."""
        return self._images.volume_to_dask(self._event, include_bad=self._bad_too)

    def check(self) -> None:
        """Refuse a volume that cannot be read, reading none of it."""
        self._images.check(self._event, include_bad=self._bad_too)


def select(catalog: Catalog, parents: Parents, *, bad: Bad = "refuse") -> list[ParentVolume]:
    """Find what is derived from, oldest run first, each by seq_num.

    Parameters
    ----------
    catalog
        Of the root in which all of it must lie.
    parents
        What the user named.
    bad
        Volumes of events that are not good: all is refused, they are skipped, or they are taken.

    Raises
    ------
    RunNotFoundError
        A run is not in this root.
    StreamNotFoundError
        It has no such stream or data key.
    BadVolumeError
        Volumes are not good.
    VolumeMissingError
        A file is gone.
    DerivationError
        Nothing is selected, or a seq_num that has no volume.
    """
    if bad not in {"refuse", "skip", "take"}:
        raise ValueError(f"bad is {bad!r}; it can be 'refuse', 'skip' or 'take'.")
    runs, wanted = _wanted(catalog, parents)
    oldest_first = sorted(runs.values(), key=lambda run: (run.start["time"], run.uid))
    found = [volume for run in oldest_first for volume in _volumes(run, wanted, bad)]
    if bad == "refuse":
        _refuse_bad(found)
    chosen = [volume for volume in found if volume.good or bad == "take"]
    if not chosen:
        why = f"all {len(found)} of them are marked as not good" if found else _why_none(parents)
        raise DerivationError(f"There are no parents: {why}.")
    for volume in chosen:
        volume.check()
    return chosen


_Wanted = dict[tuple[str, str, str], set[int]]
"""Which seq_nums of which run, stream and data key."""


def _wanted(catalog: Catalog, parents: Parents) -> tuple[dict[str, Run], _Wanted]:
    """Find the runs that are named, each once, and what of them."""
    named: dict[tuple[str | int, str, str], tuple[Run | str | int, set[int] | None]] = {}
    for run, stream, key, seq_nums in _selections(parents):
        which = (run.uid if isinstance(run, Run) else run, stream, key)
        before = named.get(which, (run, set()))[1]
        named[which] = (run, None if seq_nums is None or before is None else before | set(seq_nums))
    runs: dict[str, Run] = {}
    wanted: _Wanted = {}
    for (_, of_stream, of_key), (run, asked) in named.items():
        found = _find(catalog, run)
        found = runs.setdefault(found.uid, found)
        for stream, key in [(of_stream, of_key)] if of_stream else _images_of(found):
            there = _with_volume(found[stream], key)
            if asked is not None and asked - there:
                raise DerivationError(
                    f"Run {found.uid}, {stream}, {key} has no volume with seq_num "
                    f"{listed(sorted(asked - there))}; it has {listed(sorted(there))}."
                )
            wanted.setdefault((found.uid, stream, key), set()).update(there if asked is None else asked)
    return runs, wanted


def _why_none(parents: Parents) -> str:
    why = parents.why_none if isinstance(parents, Volumes) else ""
    return why or "the selection holds no volume"


def _selections(parents: Any) -> Iterator[Selection]:
    if isinstance(parents, Volume):
        yield Selection(parents.run_uid, parents.row.stream, parents.row.data_key, (parents.row.seq_num,))
    elif isinstance(parents, ImageSeries):
        if parents.level:
            raise DerivationError(
                f"{parents!r} is a smaller version of its volumes, and parents are volumes as they were taken. "
                "Derive from images.levels[0], and let the function make them smaller."
            )
        yield Selection(parents.run_uid, parents.stream, parents.data_key, parents.chosen)
    elif isinstance(parents, Run | str):
        yield Selection(parents, "", "")
    elif isinstance(parents, tuple) and len(parents) in {3, 4} and all(type(name) is str for name in parents[1:3]):
        run, stream, key, *seq_nums = parents
        yield Selection(run, stream, key, *seq_nums)
    elif isinstance(parents, Iterable):
        for each in parents:
            yield from _selections(each)
    else:
        raise TypeError(
            "Parents are runs, volumes of catalog.volumes(...), image series, or tuples (run, stream, data_key), "
            f"not {parents!r}."
        )


def _find(catalog: Catalog, named: Run | str | int) -> Run:
    try:
        return catalog[named.uid if isinstance(named, Run) else named]
    except AmbiguousRunError:
        raise
    except RunNotFoundError as error:
        uid, home = (named.uid, str(named.folder.parents[4])) if isinstance(named, Run) else (named, "ITS-ROOT")
        raise RunNotFoundError(
            f"Run {uid} is not in {catalog.root}. A derived run lies in the root of its parents: derive into it, "
            f"or copy the run first: gently-bluesky replay {uid} --root {home} --into {catalog.root} --fill"
        ) from error


def _images_of(run: Run) -> list[tuple[str, str]]:
    return [(stream, key) for stream in run for key in run[stream].image_keys]


def _with_volume(stream: Stream, key: str) -> set[int]:
    stream.images(key)  # there is such a data key
    return {row.seq_num for row in stream.rows if _has(row, key)}


def _has(row: Row, key: str) -> bool:
    return key in row.volumes or row.data.get(key) is not None


def _volumes(run: Run, wanted: _Wanted, bad: Bad) -> Iterator[ParentVolume]:
    for name in run:
        stream = run[name]
        series = {key: stream.images(key) for key in stream.data_keys if (run.uid, name, key) in wanted}
        described = {doc["uid"]: doc["data_keys"] for doc in stream.descriptors if series}
        for event, row in enumerate(stream.rows if series else ()):
            for key, images in series.items():
                if row.seq_num in wanted[run.uid, name, key]:
                    yield ParentVolume(
                        run.uid,
                        name,
                        key,
                        row.seq_num,
                        run.start,
                        row.data,
                        measured_at(row),
                        described[row.descriptor],
                        images,
                        event,
                        bad == "take",
                    )


def _refuse_bad(found: Iterable[ParentVolume]) -> None:
    bad = [volume for volume in found if not volume.good]
    if bad:
        named = [
            f"run {said['run'][:8]}, {said['stream']}, {said['data_key']}, seq_num "
            + listed([number for each in said["seq_nums"] for number in range(each["start"], each["stop"])])
            for said in parent_documents(bad)
        ]
        raise BadVolumeError(
            f"Not good: {'; '.join(named)}. bad='skip' derives from the others, bad='take' from these as well."
        )


def parent_documents(volumes: Iterable[ParentVolume], role: str = "") -> list[Doc]:
    """Give what a start document says of parents: run, stream, data key, and seq_nums as half-open ranges."""
    numbers: dict[tuple[str, str, str], list[int]] = {}
    for volume in volumes:
        numbers.setdefault((volume.run_uid, volume.stream, volume.data_key), []).append(volume.seq_num)
    return [
        {"run": uid, "stream": stream, "data_key": key}
        | {"seq_nums": [{"start": each.start, "stop": each.stop} for each in as_ranges(of_key)]}
        | ({"role": role} if role else {})
        for (uid, stream, key), of_key in numbers.items()
    ]


def by_event(volumes: Iterable[ParentVolume]) -> list[list[ParentVolume]]:
    """Give volumes of one event together, in order."""
    events: dict[tuple[str, str, int], list[ParentVolume]] = {}
    for volume in volumes:
        events.setdefault((volume.run_uid, volume.stream, volume.seq_num), []).append(volume)
    return list(events.values())


def agreed(values: Iterable[Any]) -> Any:
    """Give the value that all are; None if they differ."""
    first, *rest = values
    return first if all(type(value) is type(first) and value == first for value in rest) else None
