"""Files of JSON lines that only grow: journals of documents, manifests of files, tags, the index, the audit.

Each line is an object whose last key is the xxh3-64 of the line without it, so that a flipped bit is found and
never read. A reader may come at any time: a last line without its newline is still being written, and is not
there yet. Any other line that is not whole is an error that names file and place.
"""

import contextlib
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import xxhash
from filelock import FileLock, Timeout

from gently_bluesky.errors import JournalError, RootError, RunLockedError
from gently_bluesky.store.disk import AppendFile
from gently_bluesky.store.layout import JOURNAL
from gently_bluesky.store.strict_json import decode, encode

Pair = tuple[str, dict[str, Any]]

_SUM = re.compile(rb',"xxh3_64":"([0-9a-f]{16})"}\n\Z')
_SUM_BYTES = 31
_SUM_KEY = b',"xxh3_64":"'
_PATIENCE_S = 10.0
_BLOCK_BYTES = 1 << 16


def encode_line(value: Mapping[str, Any]) -> bytes:
    r"""Give one line, with its checksum and its newline.

    >>> encode_line({"a": 1})
    b'{"a":1,"xxh3_64":"c5e3762ffc8453c6"}\n'
    """
    body = encode(value)
    return b'%b,"xxh3_64":"%b"}\n' % (body[:-1], xxhash.xxh3_64_hexdigest(body).encode())


def decode_line(line: bytes) -> Any:
    """Give back what `encode_line` was given; ValueError if that is not what stands there.

    A line without a checksum, from another hand, is taken as it is.
    """
    found = _SUM.search(line, max(0, len(line) - _SUM_BYTES))
    if found is None:
        near = line[-_SUM_BYTES:]
        if sum(one == other for one, other in zip(near, _SUM_KEY, strict=False)) > len(_SUM_KEY) // 2:
            raise ValueError("its checksum is damaged itself")
        return decode(line)
    body = line[: found.start()] + b"}"
    if xxhash.xxh3_64_hexdigest(body).encode() != found[1]:
        raise ValueError("its checksum is another")
    return decode(body)


def read_lines(
    path: Path, start: int = 0, *, pass_over: Callable[[JournalError], object] | None = None
) -> Iterator[tuple[int, Any]]:
    """Read what is there now, from byte `start` on.

    Parameters
    ----------
    path, start
        The file, and the offset of a line.
    pass_over
        Told of each damaged line, which is then passed over; None: the first one is raised.

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
            if not line.endswith(b"\n") and not _lacks_its_newline(line):
                return
            offset += len(line)
            try:
                content = decode_line(line)
            except (ValueError, RecursionError) as error:
                damage = JournalError(
                    f"{path}: the line that ends at byte {offset} is damaged ({error}). "
                    "The lines before it are good."
                )
                if pass_over is None:
                    raise damage from error
                pass_over(damage)
                continue
            yield offset, content


def _lacks_its_newline(tail: bytes) -> bool:
    """Whether a last line is whole but for its newline, in whose place something else stands."""
    return _SUM.search(tail[:-1] + b"\n", max(0, len(tail) - _SUM_BYTES)) is not None


def read_documents(folder: Path, start: int = 0) -> Iterator[tuple[int, Pair]]:
    """Read the documents of a run folder in order, as `read_lines` does."""
    path = folder / JOURNAL
    for offset, line in read_lines(path, start):
        if not (
            isinstance(line, dict) and isinstance(line.get("name"), str) and isinstance(line.get("doc"), dict)
        ):
            raise JournalError(f"{path}: the line that ends at byte {offset} is no document: {line!r:.80}")
        yield offset, (line["name"], line["doc"])


def line_number(path: Path, offset: int) -> int:
    """Give the line that begins at a byte, from 1."""
    with path.open("rb") as file:
        return file.read(offset).count(b"\n") + 1


def begins_line(path: Path, offset: int) -> bool:
    """Whether a line begins at a byte, or may: the first one, and any after a newline."""
    if offset <= 0:
        return offset == 0
    with path.open("rb") as file:
        file.seek(offset - 1)
        return file.read(1) == b"\n"


def read_start(folder: Path) -> dict[str, Any] | None:
    """Give the start document of a run folder; None if it holds none yet."""
    try:
        for _, (name, doc) in read_documents(folder):
            return doc if name == "start" else None
    except (FileNotFoundError, NotADirectoryError):
        return None
    return None


def mend(path: Path) -> int:
    """Cut off a torn last line, which a writer that died left; give how many bytes that were.

    A last line that is whole but for a damaged newline gets it back. The caller holds the lock of the file.
    """
    with contextlib.suppress(FileNotFoundError), path.open("r+b") as file:
        size = file.seek(0, os.SEEK_END)
        end = size
        while end:  # backwards, a block at a time, to the last newline
            begin = max(0, end - _BLOCK_BYTES)
            file.seek(begin)
            newline = file.read(end - begin).rfind(b"\n")
            if newline >= 0:
                end = begin + newline + 1
                break
            end = begin
        file.seek(end)
        tail = file.read()
        for whole in (tail[:-1], tail):  # something stands in the newline's place, or nothing
            if _SUM.search(whole + b"\n", max(0, len(whole) - _SUM_BYTES)):
                file.seek(end + len(whole))
                file.write(b"\n")
                return 0
        if end < size:
            file.truncate(end)
        return size - end
    return 0


def is_torn(path: Path) -> bool:
    """Whether the last line of a file was cut off while it was written; False if there is no file."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - 1))
            return file.read(1) not in {b"", b"\n"}
    except FileNotFoundError:
        return False


def append_shared(path: Path, values: Iterable[Mapping[str, Any]], *, durable: bool = True) -> None:
    """Append lines to a file that several processes append to, one at a time.

    Raises
    ------
    RunLockedError
        Another process did not let go of the file.
    """
    lines = b"".join(map(encode_line, values))
    with _alone(path):
        mend(path)
        file = AppendFile(path)
        try:
            file.append(lines)
            if durable:
                file.sync()
        finally:
            file.close()


def rewrite_shared(path: Path, values: Callable[[], Iterable[Mapping[str, Any]]]) -> None:
    """Replace such a file in one step; `values` is asked for once nobody else appends.

    Raises as `append_shared`.
    """
    beside = path.with_name(f".{path.name}.new")
    with _alone(path):
        beside.unlink(missing_ok=True)
        beside.write_bytes(b"".join(map(encode_line, values())))
        beside.replace(path)


@contextlib.contextmanager
def _alone(path: Path) -> Iterator[None]:
    lock_path = path.with_name(f"{path.name}.lock")
    if link := next((item for item in (path, lock_path) if item.is_symlink()), None):
        raise RootError(f"{link} is a link, and nothing is written through it. Take it away.")
    lock = FileLock(lock_path, timeout=_PATIENCE_S)
    try:
        lock.acquire()
    except Timeout as error:
        raise RunLockedError(
            f"{path} has been held by another process for {_PATIENCE_S:.0f} s. Look which one, and try again."
        ) from error
    try:
        yield
    finally:
        lock.release()
