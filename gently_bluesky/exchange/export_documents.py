"""Documents as JSON lines: ``{"name": ..., "doc": ...}`` a line, strict JSON, a file a run.

A run's documents are written whole, whatever of the run was selected: a part of them would be no run. Where a part
was asked for, a warning says so.
"""

import logging
from pathlib import Path

from gently_bluesky.exchange.export_names import unlike
from gently_bluesky.exchange.export_target import Progress, staged
from gently_bluesky.exchange.selection import Selection
from gently_bluesky.store.layout import run_folder_name
from gently_bluesky.store.strict_json import encode, plain

log = logging.getLogger(__name__)


def json_lines(selection: Selection, into: Path | str, *, progress: Progress | None = None) -> tuple[Path, ...]:
    """Write the documents of each run that something was selected of, as they were journalled.

    Stream resources and resources name files where they lie now.

    Parameters
    ----------
    selection
        What is to be exported.
    into
        The folder for the files.
    progress
        Told of bytes.

    Returns
    -------
    tuple of Path
        The files.

    Raises
    ------
    JournalError
        A journal is damaged.
    TargetExistsError, DiskFullError
        As they say.
    """
    runs = selection.runs
    if parts := sorted(selection.asked.keys() - {"session"}):
        log.warning("documents are those of whole runs, not only what was asked for by %s", ", ".join(parts))
    names = [f"{name}.jsonl" for name in unlike([run_folder_name(run.start) for run in runs])]
    nbytes = sum(run.journal_bytes for run in runs)
    with staged(into, names, nbytes, room=nbytes, progress=progress) as staging:
        for run, name in zip(runs, names, strict=True):
            with (staging.folder / name).open("wb") as file:
                for kind, doc in run.documents():
                    staging.wrote(file.write(encode(plain({"name": kind, "doc": doc})) + b"\n"))
    return staging.paths
