"""What an import would do: the runs that it would write, and what is new of each. Nothing is written.

Nothing is taken in twice: what earlier runs of the same source hold is left out. So a second time does nothing,
and an import that was interrupted, or a source that has grown, is continued by a further run. What these runs hold
no more is new again.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from gently_bluesky.errors import ImportRefusedError
from gently_bluesky.exchange.beside import TABLES
from gently_bluesky.exchange.found import Remark, Source, row_key
from gently_bluesky.exchange.old_session import find_sessions, read_session
from gently_bluesky.exchange.said import Said
from gently_bluesky.exchange.sidecar import scalars
from gently_bluesky.exchange.single import is_zarr, read_file
from gently_bluesky.read.catalog import Catalog
from gently_bluesky.read.run import Run
from gently_bluesky.read.words import counted
from gently_bluesky.store.layout import ROOT_MARK, check_root
from gently_bluesky.store.strict_json import plain

DIFFERS = "differs"
"""In a stop document: what a copy was not read back of as it was read before."""

_SHOWN = 5
_OF_FILE = ("file_bytes", "file_modified")
_SAID = frozenset({"time", "plan_name", "session", "embryo", "timepoint", "old_session_last_active"})
"""What is said by the user, or by where a file lies, or is another whenever someone has looked."""

_Key = tuple[Any, ...]
_Values = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Intended:
    """One run that an import would write.

    Attributes
    ----------
    source
        What is new; its remarks are about all of it.
    known
        How many of its images earlier runs hold.
    runs
        uids of these runs.
    """

    source: Source
    known: int = 0
    runs: tuple[str, ...] = ()

    @property
    def is_new(self) -> bool:
        """Whether there is anything to be taken in."""
        return not self.runs or bool(self.source.images or self.source.tables)

    @property
    def nbytes(self) -> int:
        """Bytes of the pixels that are new."""
        return sum(part.nbytes for image in self.source.images for part in image.parts)


@dataclass(frozen=True, slots=True)
class ImportPlan:
    """What an import would do; made by `plan_import`, done by `importing.carry_out`.

    Attributes
    ----------
    copied
        Whether pixels are stored again; they are linked where they lie otherwise.
    runs
        One a session or file, also where nothing of it is new.
    remarks
        About the folder; those about a session are with it.
    """

    root: Path
    copied: bool
    image_format: str
    said: Said
    runs: tuple[Intended, ...]
    remarks: tuple[Remark, ...] = ()


def plan_import(
    path: Path | str,
    root: Path | str,
    *,
    copied: bool = False,
    said: Said | None = None,
    strict: bool = False,
    image_format: str = "ome-tiff",
) -> ImportPlan:
    """Say what an import would do.

    Parameters
    ----------
    path
        A session folder of gently, the folder that holds them, a TIFF, or a Zarr store.
    root
        A root, or a folder that can become one.
    copied
        Whether pixels are to be stored again, in `image_format`; they are linked where they lie otherwise.
    said
        What the user says of data that do not say it themselves.
    strict
        Whether to refuse what is torn, missing, contradictory or not readable; it is told otherwise.

    Raises
    ------
    ImportRefusedError
        There is nothing that could be imported; or, if `strict`, something is wrong with it.
    ConfigError
        What the user says cannot be.
    RootError
        The root cannot be one.
    """
    there, said = Path(path).expanduser().absolute(), said or Said()
    home = check_root(Path(root))
    if there in (home, *home.parents):
        raise ImportRefusedError(f"The root {home} lies in {there}, where nothing is to be changed. Give another.")
    remarks: list[Remark] = []
    if there.is_file() or is_zarr(there):
        sources = [read_file(there, said)]
    else:
        folders, remarks = find_sessions(there)
        sources = [read_session(folder, said) for folder in folders]
    runs = tuple(what_is_new(source, home) for source in sources)
    plan = ImportPlan(home, copied, image_format, said, runs, tuple(remarks))
    if strict:
        _hold_clean(plan)
    return plan


def _hold_clean(plan: ImportPlan) -> None:
    told = [*plan.remarks, *(remark for run in plan.runs for remark in run.source.remarks)]
    wrong = [str(remark) for remark in told if remark.kind != "unknown"]
    if wrong:
        more = "; ..." if len(wrong) > _SHOWN else ""
        raise ImportRefusedError(
            f"Nothing was imported, for {counted(len(wrong), 'thing')} missing or wrong: "
            f"{'; '.join(wrong[:_SHOWN])}{more}. Without strict they are told in the run."
        )


def what_is_new(source: Source, root: Path) -> Intended:
    """Leave out what earlier runs hold; tell what is not any more as it was imported."""
    runs = earlier_runs(source, root)
    known = dict(_rows(runs))
    images = tuple(image for image in source.images if row_key(image.values) not in known)
    tables = (
        replace(table, rows=tuple(row for row in table.rows if row_key(row[1]) not in known))
        for table in source.tables
    )
    new = replace(source, images=images, tables=tuple(table for table in tables if table.rows))
    intended = Intended(new, len(source.images) - len(images), tuple(run.uid for run in runs))
    changed = [*_changed(source, known), *(() if intended.is_new else _changed_start(source, runs[-1]))]
    return replace(intended, source=replace(new, remarks=tuple(sorted({*source.remarks, *changed}))))


def _changed(source: Source, known: Mapping[_Key, _Values]) -> Iterator[Remark]:
    """Tell of each file with rows that were imported and say something else now."""
    rows = [image.values for image in source.images]
    rows += [row for table in source.tables for _, row in table.rows]
    found: defaultdict[str, list[str]] = defaultdict(list)
    for now in rows:
        if (before := known.get(row_key(now))) is None:
            continue
        if any(now.get(key) != before.get(key) for key in _OF_FILE):
            found[str(now["file"])].append("it is not the file that was imported: its size or its time is another")
        elif text := _differences(before, now):
            line = f"line {now['line']}: " if "line" in now else ""
            found[str(now["file"])].append(f"{line}what is said of it is not what was imported: {text}")
    for file, texts in found.items():
        more = f"; and {counted(len(texts) - 1, 'row')} more" if len(texts) > 1 else ""
        yield Remark("changed", file, f"{texts[0]}{more}")


def _changed_start(source: Source, newest: Run) -> Iterator[Remark]:
    """Tell if no run will say what is known now of all of it."""
    now = {key: value for key, value in source.start.items() if key not in _SAID}
    before = {key: newest.start.get(key) for key in now}
    if text := _differences(scalars(plain(before)), scalars(plain(now))):
        yield Remark("changed", ".", f"what is said of all of it is not what was imported: {text}")


def _differences(before: _Values, now: _Values) -> str:
    # what is of another kind in other rows became text
    keys = [key for key in {**now, **before} if key not in _SAID and str(before.get(key)) != str(now.get(key))]
    more = "; ..." if len(keys) > _SHOWN else ""
    shown = (f"{key} was {before.get(key)!r:.60}, and is {now.get(key)!r:.60}" for key in keys[:_SHOWN])
    return f"{'; '.join(shown)}{more}"


def earlier_runs(source: Source, root: Path) -> list[Run]:
    """Give the runs in a root that were made of a source, in order."""
    if not (root / ROOT_MARK).exists():
        return []
    found = reversed(Catalog(root).search(plan_name=source.start["plan_name"]))
    return [run for run in found if run.start.get("imported", {}).get("identity") == source.identity]


def _rows(runs: Iterable[Run]) -> Iterator[tuple[_Key, _Values]]:
    """Give what runs hold: not what was removed from them, nor what was read back as something else."""
    for run in runs:
        differs = {tuple(key) for key in (run.stop or {}).get(DIFFERS, ())}
        for name in run.keys() - TABLES:
            stream = run[name]
            there = [stream.images(key).stored for key in stream.image_keys]
            for row, *stored in zip(stream.rows, *there, strict=True):
                key = row_key(row.data)
                if row.uid is not None and all(stored) and key not in differs:
                    yield key, row.data
