"""Files of JSON lines that only grow: journals of documents, manifests of files, the index.

A reader may come at any time: a last line without its newline is still being written, and is not there yet.
Any other line that does not parse is an error that names file and line.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gently_bluesky.errors import JournalError
from gently_bluesky.store.layout import JOURNAL
from gently_bluesky.store.strict_json import decode, encode

Pair = tuple[str, dict[str, Any]]


def encode_line(value: Any) -> bytes:
    """Give one line with its newline."""
    return encode(value) + b"\n"


def read_lines(path: Path, start: int = 0) -> Iterator[tuple[int, Any]]:
    """Read what is there now, from byte `start` on.

    Yields
    ------
    tuple
        The offset after the line, and its content.

    Raises
    ------
    JournalError
        A whole line that is not strict JSON.
    """
    with path.open("rb") as file:
        file.seek(start)
        offset = start
        for line in file:
            if not line.endswith(b"\n"):
                return
            offset += len(line)
            try:
                content = decode(line)
            except (ValueError, RecursionError) as error:
                raise JournalError(
                    f"{path}: the line that ends at byte {offset} is damaged ({error}). "
                    "The lines before it are good."
                ) from error
            yield offset, content


def read_documents(folder: Path, start: int = 0) -> Iterator[tuple[int, Pair]]:
    """Read the documents of a run folder in order, as `read_lines` does."""
    path = folder / JOURNAL
    for offset, line in read_lines(path, start):
        try:
            yield offset, (line["name"], line["doc"])
        except (TypeError, KeyError) as error:
            raise JournalError(
                f"{path}: the line that ends at byte {offset} is no document: {line!r:.80}"
            ) from error


def read_start(folder: Path) -> dict[str, Any] | None:
    """Give the start document of a run folder; None if it holds none yet."""
    try:
        for _, (name, doc) in read_documents(folder):
            return doc if name == "start" else None
    except (FileNotFoundError, NotADirectoryError):
        return None
    return None
