"""Tables of a run that was imported: the files that became no part of it, and what is to be told of the others."""

import hashlib
from dataclasses import replace
from pathlib import Path

from gently_bluesky.exchange.found import Source, Table

FILES_BESIDE, REMARKS = "files_beside", "remarks"
TABLES = {FILES_BESIDE, REMARKS}
"""Streams about an import itself."""


def with_tables(source: Source) -> Source:
    """Give a source with these tables in front; the files beside are read, for their hash."""
    remarks = Table(
        REMARKS,
        tuple(
            (source.start["time"], {"kind": each.kind, "file": each.file, "text": each.text})
            for each in source.remarks
        ),
    )
    own = Table(FILES_BESIDE, tuple(_row(source.folder / name, name) for name in source.beside)), remarks
    return replace(source, tables=(*(table for table in own if table.rows), *source.tables))


def _row(path: Path, name: str) -> tuple[float, dict[str, str | int]]:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    status = path.stat()
    return status.st_mtime, {"file": name, "file_bytes": status.st_size, "sha256": digest}
