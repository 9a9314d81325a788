"""What a writer that died left behind, brought to its end: the run is closed, and all that came is named.

Every journalled document is kept as it is. Torn last lines are cut off, files that no manifest names are entered
as what they are, and a stop document says that the run was interrupted. Nothing is done to a run whose writer is
alive, or may be, on a machine whose locks cannot be seen from here. Doing it twice changes nothing.
"""

import logging
import platform
import time
import uuid
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from gently_bluesky.errors import DocumentError, GentlyError, JournalError, RunElsewhereError, RunLockedError
from gently_bluesky.store.audit import append_audit
from gently_bluesky.store.formats import name_of
from gently_bluesky.store.index import IndexEntry, RootIndex, append_entry, volume_rows
from gently_bluesky.store.journal import Pair, read_documents
from gently_bluesky.store.layout import JOURNAL, open_root
from gently_bluesky.store.manifest import read_manifest
from gently_bluesky.store.streams import Doc, RunTable
from gently_bluesky.write.run_folder import RunFolder, writing_host
from gently_bluesky.write.unfinished import Unfinished, documents_of, find_unfinished, give_back_space

log = logging.getLogger(__name__)

_STOP_LINE = b'{"name":"stop"'

Salvage = Literal["beside", "event"]


@dataclass(frozen=True, slots=True)
class Recovery:
    """What was done to one run.

    Attributes
    ----------
    uid, folder
        Which.
    torn_bytes
        How much of a half-written last line was cut off its journal; no event of it was acknowledged.
    events
        How many journalled events there are, all kept.
    unfinished
        Volumes that came last and that no document names: path in the run folder (in a store, of what says all of
        it), frames that came (None if that is not known), frames that should have.
    salvaged
        How many events were added for them, each marked as not good.
    set_aside
        Where what follows a damaged line of the journal is now; empty if there was none.
    """

    uid: str
    folder: Path
    torn_bytes: int
    events: int
    unfinished: tuple[tuple[str, int | None, int], ...]
    salvaged: int
    set_aside: str = ""

    def __str__(self) -> str:
        parts = [f"Run {self.uid} in {self.folder} was interrupted and is closed", f"Events kept: {self.events}"]
        parts += [
            f"{path} holds {'an unknown number' if came is None else came} of {planes} frames"
            for path, came, planes in self.unfinished
        ]
        if self.salvaged:
            parts.append(f"Events added that name them, marked as not good: {self.salvaged}")
        if self.torn_bytes:
            parts.append(f"Bytes of a half-written line that were cut off: {self.torn_bytes}")
        if self.set_aside:
            parts.append(f"What follows a damaged line is in {self.set_aside}")
        return ". ".join(parts) + "."


@dataclass(frozen=True, slots=True)
class LeftAlone:
    """A run without a stop document that was not touched, and why."""

    uid: str
    folder: Path
    why: str
    running: bool = False

    def __str__(self) -> str:
        return f"Run {self.uid} in {self.folder} was left alone: {self.why}"


def recover(
    root: Path | str, *, salvage: Salvage = "beside", hosts: Collection[str] = ()
) -> list[Recovery | LeftAlone]:
    """Close every run under a root whose writer is gone.

    Parameters
    ----------
    root
        A root.
    salvage
        What becomes of the frames of a volume that was not finished. "beside": its file stays where it is, and
        the manifest says what it holds. "event": besides, an event is added that names it, marked as not good. A
        run that is closed gets none any more: documents are never changed.
    hosts
        Other machines that are known to be off: their runs, too.

    Returns
    -------
    list
        What was done to each run without a stop document, and which were left alone, and why.

    Raises
    ------
    RootError
        It is no root.
    """
    if salvage not in {"beside", "event"}:
        raise ValueError(f"salvage {salvage!r} is neither 'beside' nor 'event'.")
    root, _ = open_root(Path(root))
    index = RootIndex(root)
    done: list[Recovery | LeftAlone] = []
    for entry in list(index.entries()):
        if entry.stop is not None:
            continue
        if (whole := index.whole(entry)).stop is not None:  # it ended, and the index was not told
            append_entry(root, whole)
            continue
        uid, folder = entry.start["uid"], root / entry.folder
        try:
            done += _recover_run(root, folder, salvage, hosts)
        except RunLockedError as error:
            done.append(LeftAlone(uid, folder, str(error), running=True))
        except (GentlyError, OSError) as error:
            done.append(LeftAlone(uid, folder, str(error)))
    return done


def _recover_run(root: Path, path: Path, salvage: Salvage, hosts: Collection[str]) -> Iterator[Recovery]:
    host = writing_host(path)
    if host not in {None, platform.node(), *hosts}:
        raise RunElsewhereError(
            f"it was written on {host}, whose locks cannot be seen from here. Recover it there, or, if that "
            f"machine is off for good: gently-bluesky recover --host {host}"
        )
    folder, torn_bytes = RunFolder.reopen(root, path)
    try:
        table, damage = _read(path)
        set_aside = ""
        if damage is not None:
            if _ends_with_stop(path):
                raise JournalError(f"it ended well, and its journal was damaged since. {damage[1]}")
            set_aside = folder.set_aside(damage[0]).name
        if table.stop is None:  # nobody else was faster
            yield _close(folder, table, torn_bytes, salvage, set_aside)
    finally:
        folder.close()


def _read(path: Path) -> tuple[RunTable, tuple[int, Exception] | None]:
    """Give what a journal says up to its end, or up to its first damaged line, and then where and what that is."""
    table, end = RunTable(), 0
    try:
        for offset, (name, doc) in read_documents(path):
            table(name, doc)
            end = offset
    except (JournalError, DocumentError) as error:
        return table, (end, error)
    return table, None


def _ends_with_stop(path: Path) -> bool:
    """Whether its last line is, or with a bit or two flipped was, a stop document."""
    last = b"".join((path / JOURNAL).read_bytes().splitlines(keepends=True)[-1:])
    same = sum(one == other for one, other in zip(last, _STOP_LINE, strict=False))
    return last.endswith(b"\n") and same >= len(_STOP_LINE) - 2  # "start" differs in three


def _close(folder: RunFolder, table: RunTable, torn_bytes: int, salvage: Salvage, set_aside: str) -> Recovery:
    assert table.start is not None
    give_back_space(folder.path)
    unfinished = list(find_unfinished(folder.path, table))
    _sync_volumes(folder, unfinished)
    events = sum(row.uid is not None for stream in table.streams.values() for row in stream.rows())
    salvaged: list[Pair] = []
    for name, doc in documents_of(table, unfinished) if salvage == "event" else ():
        table(name, doc)
        salvaged.append((name, doc))
    recovery = Recovery(
        uid=str(table.start["uid"]),
        folder=folder.path,
        torn_bytes=torn_bytes,
        events=events,
        unfinished=tuple((name_of(each.entry), each.frames, each.planes) for each in unfinished),
        salvaged=sum(name == "event" for name, _ in salvaged),
        set_aside=set_aside,
    )
    stop = _stop(table, recovery, unfinished)
    table("stop", stop)
    new = [each.entry for each in unfinished if each.entry.state == "aborted"]
    folder.append(new, [*salvaged, ("stop", stop)])
    name = folder.path.relative_to(folder.root).as_posix()
    append_entry(folder.root, IndexEntry(name, table.start, stop, tuple(volume_rows(table))))
    append_audit(folder.root, "recovered", run=recovery.uid, folder=name, **stop["recovered"])
    return recovery


def _sync_volumes(folder: RunFolder, unfinished: Collection[Unfinished]) -> None:
    # what its writer had not synced yet is on disk before the run is closed: a stop, or an event, names it
    named = [*read_manifest(folder.path).values(), *(each.entry for each in unfinished)]
    paths = {folder.path / entry.path for entry in named if entry.path}
    folder.sync_everything(sorted(path for path in paths if path.exists()))


def _stop(table: RunTable, recovery: Recovery, unfinished: Collection[Unfinished]) -> Doc:
    assert table.start is not None
    seen = [table.start["time"], *(each.last_seen for each in unfinished)]
    for stream in table.streams.values():
        seen += [doc["time"] for doc in stream.descriptors]
        seen += [row.time for row in stream.rows() if row.time is not None]
    said = {
        "time": time.time(),
        "host": platform.node(),
        "torn_bytes": recovery.torn_bytes,
        "events": recovery.events,
        "unfinished": [list(each) for each in recovery.unfinished],
        "salvaged": recovery.salvaged,
        "set_aside": recovery.set_aside,
    }
    return {
        "uid": str(uuid.uuid4()),
        "time": max(seen),  # the last that is known of it
        "run_start": recovery.uid,
        "exit_status": "abort",
        "reason": "interrupted: the process that wrote this run ended without a stop document",
        "num_events": {name: len(stream.rows()) for name, stream in table.streams.items()},
        "recovered": said,
    }
