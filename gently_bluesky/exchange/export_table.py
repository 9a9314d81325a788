"""Events as CSV: a table a stream, a row an event, and beside it a table of what its columns are.

First come run, seq_num, time and what the event shows, also where only the start document says so. The column of
an image holds the path of the file or store in which its volume is now, or a uri. What is no number and no text is
JSON. What an event does not have, or what is there no more, is an empty cell. A data key that runs have in
different units has a column for each.
"""

import csv
import datetime
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from gently_bluesky.errors import GentlyError, UnfillableError
from gently_bluesky.exchange.export_names import names_of, unlike
from gently_bluesky.exchange.export_target import Progress, Staging, staged
from gently_bluesky.exchange.selection import Selected, Selection
from gently_bluesky.store.layout import run_folder_name, slug
from gently_bluesky.store.manifest import foreign_asset
from gently_bluesky.store.streams import Doc
from gently_bluesky.store.strict_json import encode, plain

_SHOWN = ("session", "embryo", "timepoint", "position", "channel")
_FIXED = {
    "run": "uid of the run",
    "seq_num": "of the event, from 1",
    "time": "of the event, ISO 8601, UTC",
    "time_s": "of the event, seconds since the epoch",
    **dict.fromkeys(_SHOWN, "of the event or, where it does not say, of the start document"),
}
_ABOUT = ("column", "data_key", "units", "dtype", "shape", "source")


_Column = tuple[str, str | None]  # a data key, and its units


@dataclass(frozen=True, slots=True)
class _Table:
    """One stream of all selected runs: its events, and what each column is."""

    name: str
    events: Sequence[Selected]
    columns: Mapping[_Column, Doc]

    @property
    def headings(self) -> list[str]:
        """Names of the columns, no two alike: their data keys, and units where a data key has several."""
        often = Counter(key for key, _ in self.columns)
        names: list[str] = []
        for key, units in self.columns:
            name = key if often[key] == 1 else f"{key} ({units or 'no units'})"
            while name in _FIXED or name in names or (name != key and name in often):
                name += "_"
            names.append(name)
        return names


def csv_events(selection: Selection, into: Path | str, *, progress: Progress | None = None) -> tuple[Path, ...]:
    """Write the selected events, a table a stream; events that are marked as not good are in it, too.

    Parameters
    ----------
    selection
        What is to be exported.
    into
        The folder for the files.
    progress
        Told of rows.

    Returns
    -------
    tuple of Path
        For each stream the table, and the table of its columns: data key, units, dtype, shape, source.

    Raises
    ------
    TargetExistsError, DiskFullError
        As they say.
    """
    tables = _tables(selection)
    names = [f"{table.name}{ending}.csv" for table in tables for ending in ("", ".columns")]
    room = 2 * sum(run.journal_bytes for run in selection.runs)
    with staged(into, names, len(selection.events), room=room, progress=progress) as staging:
        for table in tables:
            fixed = ([column, "", "", "", "", what] for column, what in _FIXED.items())
            about = (
                [heading, key, *_about(entry)]
                for heading, ((key, _), entry) in zip(table.headings, table.columns.items(), strict=True)
            )
            _write(staging.folder / f"{table.name}.columns.csv", _ABOUT, chain(fixed, about))
            _write(staging.folder / f"{table.name}.csv", [*_FIXED, *table.headings], _rows(table, staging))
    return staging.paths


def _tables(selection: Selection) -> list[_Table]:
    events: dict[str, list[Selected]] = {}
    for event in selection.events:
        events.setdefault(event.stream.name, []).append(event)
    runs = selection.runs
    whole = run_folder_name(runs[0].start) if len(runs) == 1 and not selection.asked else ""
    stem = whole or names_of([selection.events])[0]
    names = unlike([f"{stem}_{slug(stream)}" for stream in events])
    return [
        _Table(name, of_stream, _columns(of_stream, selection))
        for name, of_stream in zip(names, events.values(), strict=True)
    ]


def _columns(events: Sequence[Selected], selection: Selection) -> dict[_Column, Doc]:
    """Give what the runs say of each data key in each of its units; of images those that were asked for."""
    asked = bool(selection.asked.keys() & {"view", "data_key"})
    images = {(volume.stream.name, volume.shows.data_key) for volume in selection.volumes}
    columns: dict[_Column, Doc] = {}
    for stream in {event.run.uid: event.stream for event in events}.values():
        for key, entry in stream.data_keys.items():
            if key in _SHOWN or (asked and entry.get("external") and (stream.name, key) not in images):
                continue
            columns.setdefault(_column(key, entry), entry)
    return columns


def _column(key: str, entry: Doc) -> _Column:
    return key, None if entry.get("external") else entry.get("units")  # of an image the column holds a path


def _about(entry: Doc) -> list[Any]:
    shape = " x ".join(map(str, entry.get("shape") or ()))
    return [entry.get("units"), entry.get("dtype_numpy") or entry.get("dtype"), shape, entry.get("source")]


def _rows(table: _Table, staging: Staging) -> Iterator[list[Any]]:
    said: dict[str, dict[str, Doc]] = {}
    for event in table.events:
        row = event.stream.rows[event.event]
        if event.run.uid not in said:
            said[event.run.uid] = event.stream.data_keys
        values = {
            _column(key, entry): _place(event, key) if key in row.volumes else _cell(row.data.get(key))
            for key, entry in said[event.run.uid].items()
        }
        cells = [values.get(column) for column in table.columns]
        shown = (_cell(getattr(event.shows, name)) for name in _SHOWN)
        yield [event.run.uid, row.seq_num, _iso(row.time), row.time, *shown, *cells]
        staging.wrote(1)


def _place(event: Selected, key: str) -> str | None:
    try:
        return str(event.stream.images(key).source(event.event).path)
    except UnfillableError:  # others wrote it, and nobody here reads it
        resource = event.stream.rows[event.event].volumes[key].resource
        docs = (doc for name, doc in event.run.documents() if name == "stream_resource")
        return next((foreign_asset(doc).uri for doc in docs if doc["uid"] == resource), None)
    except GentlyError:  # it was removed, is gone or was given up
        return None


def _cell(value: Any) -> Any:
    return value if value is None or isinstance(value, bool | int | float | str) else encode(plain(value)).decode()


def _iso(seconds: float | None) -> str | None:
    try:
        return None if seconds is None else datetime.datetime.fromtimestamp(seconds, datetime.UTC).isoformat()
    except (ValueError, OverflowError, OSError):  # no moment of our calendar
        return None


def _write(path: Path, heading: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    with path.open("w", encoding="utf-8", errors="backslashreplace", newline="") as file:
        csv.writer(file).writerows(chain([heading], rows))
