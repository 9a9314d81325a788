"""`Stream`: one stream of a run as a table, its columns arrays or images.

Knows rows and data keys; where the bytes of an image are, the reader knows that it was given.
"""

import contextlib
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, overload

import numpy as np
from numpy.typing import NDArray

from gently_bluesky.errors import StreamNotFoundError
from gently_bluesky.read.images import ImageSeries
from gently_bluesky.read.origin import VolumeReader
from gently_bluesky.read.words import counted
from gently_bluesky.store.index import IDENTITY_KEYS
from gently_bluesky.store.streams import Doc, Row, StreamTable

if TYPE_CHECKING:
    import xarray


class Stream:
    """One stream of a run: a table with a row an event, some of whose columns are images."""

    def __init__(self, run_uid: str, table: StreamTable, reader: VolumeReader) -> None:
        self._run_uid = run_uid
        self._table = table
        self._reader = reader
        self._rows = table.rows()

    def __repr__(self) -> str:
        keys = list(self.data_keys)
        rows = counted(len(self._rows), "event")
        return f"<Stream {self.name!r} of run {self._run_uid[:8]}: {rows} of {keys}>"

    @property
    def name(self) -> str:
        """As in its descriptors."""
        return self._table.name

    @property
    def descriptors(self) -> list[Doc]:
        """Its descriptors, in order; several, where configuration changed in mid-run."""
        return self._table.descriptors

    @property
    def data_keys(self) -> dict[str, Doc]:
        """What each column is: shape, dtype, units, source."""
        return self._table.data_keys

    @property
    def rows(self) -> Sequence[Row]:
        """Events by seq_num, the last one where a seq_num was repeated."""
        return self._rows

    def __len__(self) -> int:
        return len(self._rows)

    def __iter__(self) -> Iterator[str]:
        return iter(self.data_keys)

    def __contains__(self, key: object) -> bool:
        return key in self.data_keys

    @property
    def image_keys(self) -> list[str]:
        """Data keys whose arrays lie in files."""
        return [key for key, entry in self.data_keys.items() if entry.get("external")]

    @property
    def seq_num(self) -> NDArray[np.int64]:
        """(event,), from 1."""
        return np.array([row.seq_num for row in self._rows], np.int64)

    @property
    def time(self) -> NDArray[np.float64]:
        """(event,), seconds since the epoch; nan where a fly scan gave no events."""
        return np.array([np.nan if row.time is None else row.time for row in self._rows], np.float64)

    def configuration(self, position: int = -1) -> dict[str, dict[str, Any]]:
        """Give the configuration of each device that was in force for an event: {device: {key: value}}.

        Raises
        ------
        IndexError
            No such event; a stream without events has the configuration of its last descriptor, whatever is asked.
        """
        if self._rows and not -len(self) <= position < len(self):
            raise IndexError(
                f"Stream {self.name!r} of run {self._run_uid} has {counted(len(self), 'event')}, counted from 0; "
                f"there is no event {position}."
            )
        uid = self._rows[position].descriptor if self._rows else self.descriptors[-1]["uid"]
        doc = next(doc for doc in self.descriptors if doc["uid"] == uid)
        return {name: dict(entry.get("data", {})) for name, entry in doc.get("configuration", {}).items()}

    @overload
    def __getitem__(self, key: str) -> Any: ...
    @overload
    def __getitem__(self, key: list[str]) -> "xarray.Dataset": ...
    def __getitem__(self, key: str | list[str]) -> Any:
        """Give an ImageSeries for a data key with images, an array (event, ...) for any other."""
        if isinstance(key, list):
            return self.read(key)
        return self.images(key) if self._entry(key).get("external") else self._column(key)

    def images(self, key: str) -> ImageSeries:
        """Give the images of a data key."""
        return ImageSeries(self._run_uid, self.name, key, self._entry(key), self._rows, self._reader)

    def _entry(self, key: str) -> Doc:
        entry = self.data_keys.get(key)
        if entry is None:
            raise StreamNotFoundError(
                f"Stream {self.name!r} of run {self._run_uid} has no data key {key!r}; it has "
                f"{list(self.data_keys)}."
            )
        return entry

    def _column(self, key: str) -> NDArray[Any]:
        values = [row.data.get(key) for row in self._rows]
        natural = _exact(values, None)
        promised = self._entry(key).get("dtype_numpy")
        if promised is None or natural is None or natural.dtype == object:
            return _objects(values) if natural is None else natural
        exact = _exact(values, promised)
        return natural if exact is None else exact

    def read(self, keys: Sequence[str] | None = None, *, include_bad: bool = False) -> "xarray.Dataset":
        """Give the stream as a Dataset; images are lazy, and read when they are looked at.

        Parameters
        ----------
        keys
            Which data keys; all, if None.
        include_bad
            Whether reading images of events that are marked as not good is allowed.

        Returns
        -------
        xarray.Dataset
            Dimension ``event``; coordinates ``time`` (event,), seconds since the epoch, ``seq_num`` (event,), and
            what each volume shows: ``embryo``, ``timepoint``, ``position``, ``channel``, ``good``, as far as they
            are data keys of the stream, whatever `keys` are. Units of each data key are in its attributes.
        """
        from gently_bluesky.read.dataset import dataset  # noqa: PLC0415 - xarray takes 0.3 s

        wanted = self.data_keys if keys is None else [*keys, *(self.data_keys.keys() & set(IDENTITY_KEYS))]
        columns = {key: self[key] for key in wanted}
        if include_bad:
            columns = {
                key: column.including_bad if isinstance(column, ImageSeries) else column
                for key, column in columns.items()
            }
        return dataset(columns, self.data_keys, time=self.time, seq_num=self.seq_num)


def _exact(values: Sequence[Any], dtype: str | None) -> NDArray[Any] | None:
    """Give an array that holds the values as they are, None standing for nan among floats; None if none does."""
    numbers = [np.nan if value is None else value for value in values]
    if None in values and not all(isinstance(value, float) for value in numbers):
        return None
    with contextlib.suppress(ValueError, TypeError, OverflowError):
        array = np.array(numbers, dtype)
        if _same(array.tolist(), numbers, strict=dtype is None):
            return array
    return None  # ragged, mixed, or not to be had in this dtype


def _same(these: Any, those: Any, *, strict: bool) -> bool:
    if isinstance(those, list):
        pairs = zip(these, those, strict=True) if isinstance(these, list) and len(these) == len(those) else None
        return pairs is not None and all(_same(this, that, strict=strict) for this, that in pairs)
    if isinstance(those, float) and those != those:  # noqa: PLR0124 - nan
        return isinstance(these, float) and these != these  # noqa: PLR0124
    alike = type(these) is type(those) or (not strict and not isinstance(those, bool | str))
    return bool(these == those) and alike


def _objects(values: Sequence[Any]) -> NDArray[Any]:
    column = np.empty(len(values), object)
    for i, value in enumerate(values):
        column[i] = value
    return column
