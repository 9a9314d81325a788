"""What an import would do: the runs that it would write, and what is new of each. Nothing is written.

Nothing is taken in twice: what earlier runs of the same source hold is left out. So a second time does nothing,
and an import that was interrupted, or a source that has grown, is continued by a further run.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from gently_bluesky.errors import ImportRefusedError
from gently_bluesky.exchange.beside import TABLES
from gently_bluesky.exchange.found import Remark, Source, row_key
from gently_bluesky.exchange.old_session import find_sessions, read_session
from gently_bluesky.exchange.said import Said
from gently_bluesky.exchange.single import is_zarr, read_file
from gently_bluesky.read.catalog import Catalog
from gently_bluesky.read.run import Run
from gently_bluesky.read.words import counted
from gently_bluesky.store.layout import ROOT_MARK, check_root

_SHOWN = 5


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
    """Leave out what earlier runs hold; tell which files are not those that were imported."""
    runs = earlier_runs(source, root)
    known = dict(_rows(runs))
    changed = [
        Remark("changed", image.file, "it is not the file that was imported: its size or its time is another")
        for image in source.images
        if known.get(row_key(image.values), _of_file(image.values)) != _of_file(image.values)
    ]
    images = tuple(image for image in source.images if row_key(image.values) not in known)
    tables = (
        replace(table, rows=tuple(row for row in table.rows if row_key(row[1]) not in known))
        for table in source.tables
    )
    new = replace(
        source,
        images=images,
        tables=tuple(table for table in tables if table.rows),
        remarks=tuple(sorted({*source.remarks, *changed})),
    )
    return Intended(new, len(source.images) - len(images), tuple(run.uid for run in runs))


def earlier_runs(source: Source, root: Path) -> list[Run]:
    """Give the runs in a root that were made of a source, in order."""
    if not (root / ROOT_MARK).exists():
        return []
    found = reversed(Catalog(root).search(plan_name=source.start["plan_name"]))
    return [run for run in found if run.start.get("imported", {}).get("identity") == source.identity]


def _rows(runs: Iterable[Run]) -> Iterator[tuple[tuple[Any, ...], tuple[Any, ...]]]:
    for run in runs:
        for name in run.keys() - TABLES:
            yield from ((row_key(row.data), _of_file(row.data)) for row in run[name].rows if row.uid is not None)


def _of_file(values: Mapping[str, Any]) -> tuple[Any, ...]:
    return values.get("file_bytes"), values.get("file_modified")
