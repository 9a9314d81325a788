"""Carrying out an import: documents go through a FileWriter like those of any run.

Pixels are linked where they lie, or stored again and compared before the run ends. Nothing outside the root is
changed.
"""

import errno
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from gently_bluesky.errors import DiskFullError, RunLockedError, WriterFailedError
from gently_bluesky.exchange.as_run import documents, run_uid
from gently_bluesky.exchange.beside import with_tables
from gently_bluesky.exchange.copying import Copying
from gently_bluesky.exchange.found import Remark, Source
from gently_bluesky.exchange.import_plan import (
    DIFFERS,
    ImportPlan,
    Intended,
    earlier_runs,
    plan_import,
    what_is_new,
)
from gently_bluesky.read.catalog import Catalog
from gently_bluesky.read.replay import replay
from gently_bluesky.read.words import counted
from gently_bluesky.store.disk import free_bytes
from gently_bluesky.store.layout import file_uri, without_links
from gently_bluesky.write.recovery import recover
from gently_bluesky.write.space import Reserve
from gently_bluesky.write.writer import FileWriter

__all__ = ["ImportPlan", "Imported", "carry_out", "plan_import"]

Progress = Callable[[int, int], object]
"""Called with the images that are taken in, and with all that are to be."""

_LOCK = Path("index", "import.lock")


@dataclass(frozen=True, slots=True)
class Imported:
    """One run that was written: where, how many images it holds, and which turned out not to be readable."""

    uid: str
    folder: Path
    session: str | None
    images: int
    left_out: tuple[Remark, ...] = ()


def carry_out(plan: ImportPlan, *, progress: Progress | None = None) -> list[Imported]:
    """Do what a plan says, but for what was taken in meanwhile; give the runs that were written.

    Raises
    ------
    DiskFullError
        There is no room for the pixels; nothing was begun.
    RunLockedError
        Another import into this root is going on.
    WriterFailedError
        It could not be written, or something else is read back. The next import goes on from what is good.
    """
    if plan.copied:
        _hold_room(plan)
    total = sum(len(run.source.images) for run in plan.runs)
    numbers, done = count(1), []
    told = (lambda: progress(next(numbers), total)) if progress is not None else (lambda: None)
    with FileWriter(plan.root, image_format=plan.image_format) as writer, _alone(writer.root):
        for planned in plan.runs:
            run = _of_now(planned.source, writer.root)
            if run.is_new:
                done.append(_take_in(run, plan, writer, told))
    return done


def _hold_room(plan: ImportPlan) -> None:
    wanted = sum(run.nbytes for run in plan.runs)
    there = next(folder for folder in (plan.root, *plan.root.parents) if folder.exists())
    free, reserve = free_bytes(there), Reserve(there).nbytes
    if wanted > free - reserve:
        raise DiskFullError(
            errno.ENOSPC,
            f"No room for {wanted:,} bytes of pixels: {free:,} are free in {there}, and {reserve:,} stay "
            f"reserved for documents. Free {wanted + reserve - free:,} bytes there, or link instead of copying. "
            "Nothing was begun.",
        )


@contextmanager
def _alone(root: Path) -> Iterator[None]:
    """Let no other import into a root go on: both would take in the same."""
    without_links(root, _LOCK.parent).mkdir(exist_ok=True)
    lock = FileLock(root / _LOCK, blocking=False)
    try:
        lock.acquire()
    except Timeout:
        raise RunLockedError(f"Another import into {root} is going on. Wait for it.") from None
    try:
        yield
    finally:
        lock.release()


def _of_now(source: Source, root: Path) -> Intended:
    """Give what is new at this moment, after runs of imports that were interrupted have their stop documents."""
    if any(run.is_open for run in earlier_runs(source, root)):
        recover(root)
    return what_is_new(source, root)


def _take_in(run: Intended, plan: ImportPlan, writer: FileWriter, tell: Callable[[], object]) -> Imported:
    source = with_tables(run.source)
    uid = next(uid for number in count() if (uid := run_uid(source.identity, number)) not in run.runs)
    copying = Copying(source.folder) if plan.copied else None
    imported = {
        "identity": source.identity,
        "folder": str(source.folder),
        "uri": file_uri(source.folder),
        "copied": plan.copied,
        "said": plan.said.recorded(),
        **({"continues": list(run.runs)} if run.runs else {}),
        **({"of_runs": list(source.runs)} if source.runs else {}),
        "remarks": dict(Counter(remark.kind for remark in source.remarks)),
        "files_beside": len(source.beside),
    }
    more = {"scan_id": Catalog(writer.root).next_scan_id(), "imported": imported}

    def pairs() -> Iterator[tuple[str, dict[str, Any]]]:
        for name, doc in documents(source, uid=uid, more=more, arrays=copying):
            if name == "stop" and copying is not None:
                writer.flush()
                doc |= {"left_out": [[remark.file, remark.text] for remark in copying.left_out]}
                if differs := copying.compare(Catalog(writer.root)[uid]):
                    file = differs[0][0]
                    reason = f"{counted(len(differs), 'image')} stored, and something else is read back: {file}."
                    yield name, doc | {"exit_status": "fail", "reason": reason, DIFFERS: differs}
                    raise WriterFailedError(f"{reason} The next import takes them in again.")
            yield name, doc
            if name == "event":
                tell()

    replay(pairs(), writer)
    left_out = () if copying is None else tuple(copying.left_out)
    folder = Catalog(writer.root)[uid].folder
    return Imported(uid, folder, source.start.get("session"), len(source.images) - len(left_out), left_out)
