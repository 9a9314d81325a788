"""What was found in files of others, before there are documents of it: images, tables, and what is to be told.

Plain values that name files and say what is known of them. What is not known is not there.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

Scalar = str | int | float | bool

Kind = Literal["missing", "torn", "contradiction", "unreadable", "changed", "unknown"]
"""Of a remark: "unknown" is a file that nothing here knows, and "changed" one that was imported before."""


@dataclass(frozen=True, slots=True, order=True)
class Remark:
    """One thing that is not as it should be, or is left out: about which file, relative to the folder."""

    kind: Kind
    file: str
    text: str

    def __str__(self) -> str:
        return f"{self.file}: {self.text}"


@dataclass(frozen=True, slots=True)
class Part:
    """One array in a file: all of it, or a cut.

    Attributes
    ----------
    key
        Its data key.
    shape, dtype
        Of the cut; numpy's spelling.
    cut
        Which part of the file's array, as numpy spells it, e.g. ``"1"`` or ``"...,:1024"``; ``"..."``: all of it.
    details
        What else its data key says: view, voxel_size_um, dims.
    """

    key: str
    shape: tuple[int, ...]
    dtype: str
    cut: str = "..."
    details: Mapping[str, Any] = field(default_factory=dict)

    @property
    def nbytes(self) -> int:
        """Bytes of the pixels."""
        return int(np.prod(self.shape, dtype=np.int64)) * np.dtype(self.dtype).itemsize


@dataclass(frozen=True, slots=True)
class Image:
    """One file with pixels that becomes an event.

    Attributes
    ----------
    stream
        Of which it becomes an event; one more stream for each further geometry.
    file
        Relative to the folder, with forward slashes: a TIFF, or the array of a Zarr store.
    time
        Of the event, seconds since the epoch.
    values
        What the event says, by data key.
    """

    stream: str
    file: str
    time: float
    values: Mapping[str, Scalar]
    parts: tuple[Part, ...]
    format: Literal["tiff", "zarr"] = "tiff"


@dataclass(frozen=True, slots=True)
class Table:
    """A stream of scalars: its rows are times (seconds since the epoch) and values by data key."""

    stream: str
    rows: tuple[tuple[float, Mapping[str, Scalar]], ...]


@dataclass(frozen=True, slots=True)
class Source:
    """What becomes one run.

    Attributes
    ----------
    folder
        That the names of files are relative to.
    identity
        What says that it is the same source as another time.
    start
        For the start document: time, plan_name and what is known of all of it.
    beside
        Files that become no part of a run, relative to the folder; the run names them.
    runs
        uids of runs of ours that the files say they are of.
    """

    folder: Path
    identity: str
    start: Mapping[str, Any]
    images: tuple[Image, ...]
    tables: tuple[Table, ...] = ()
    beside: tuple[str, ...] = ()
    remarks: tuple[Remark, ...] = ()
    runs: tuple[str, ...] = ()


def row_key(values: Mapping[str, Any]) -> tuple[Any, ...]:
    """Give what tells one row of a source from another, whatever the user says of it."""
    return tuple(values.get(name) for name in ("file", "line", "time_index", "channel_index"))


def can_be_named(file: str) -> bool:
    r"""Whether a template of a StreamResource can be the name of a file.

    >>> can_be_named("t0001.tif"), can_be_named("t{}.tif"), can_be_named("100%.tif")
    (True, False, False)
    """
    return not set("{}%\\") & set(file)
