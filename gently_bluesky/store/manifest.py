"""The manifest of a run: where the bytes of each volume are now, a line a file.

A later line about the same path replaces an earlier one. The documents say what happened; only this file
changes when bytes move.
"""

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from gently_bluesky.errors import JournalError
from gently_bluesky.store.journal import read_lines
from gently_bluesky.store.layout import MANIFEST, file_uri

State = Literal["sealed", "aborted", "foreign", "removed"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ManifestEntry:
    """One file, or one asset of somebody else's.

    Attributes
    ----------
    data_key, resource, index
        Which volume: index in the stream resource, from 0; None for an asset that has no index. The resource is
        empty where neither a document nor the file says which: an interrupted file that knows nothing of itself.
    path
        Relative to the run folder, with forward slashes; empty for foreign assets, which have a uri.
    format
        "ome-tiff", "npy", or the mimetype or spec of a foreign asset.
    shape, dtype
        Of the volume; numpy's spelling.
    bytes
        Size of the pixels.
    xxh3_128
        Of the pixels in C order, in hexadecimal, of an aborted volume as they lie; None for a foreign asset.
    state
        "sealed": complete. "aborted": given up, with the frames that came. "foreign": where it lies.
        "removed": taken away by retention; the details say by which rule, when, and where to (`removed`).
    details
        What the format needs to be read, e.g. ``{"offset": 4096}``; why it was aborted or removed.
    """

    resource: str
    data_key: str = ""
    index: int | None = None
    path: str = ""
    uri: str = ""
    format: str = ""
    shape: tuple[int, ...] = ()
    dtype: str = ""
    bytes: int = 0
    xxh3_128: str | None = None
    state: State = "sealed"
    details: Mapping[str, Any] = field(default_factory=dict)

    def line(self) -> dict[str, Any]:
        """Give the entry as it is written; what is empty is left out, but for the resource."""
        return {
            key: value
            for key, value in asdict(self).items()
            if key == "resource" or value not in (None, "", (), {})
        }


def foreign_asset(doc: Mapping[str, Any]) -> ManifestEntry:
    """Give the entry of a Resource or StreamResource of somebody else's, in the spelling of any event-model."""
    uri = doc.get("uri") or file_uri(Path(doc.get("root", ""), doc.get("resource_path", "")))
    kind = doc.get("mimetype") or doc.get("spec", "")
    return ManifestEntry(
        data_key=doc.get("data_key", ""), resource=doc["uid"], uri=uri, format=kind, state="foreign"
    )


def is_inside(path: str) -> bool:
    """Whether a relative path stays in its folder, on every system."""
    names = [name for name in path.split("/") if name not in {"", "."}]
    climbs = path.startswith("/") or ".." in names or not names
    return not climbs and not {":", "\\", "\0"} & set(path)


def _check_types(entry: ManifestEntry) -> None:
    texts: tuple[object, ...] = (entry.resource, entry.data_key, entry.path, entry.uri, entry.format, entry.dtype)
    sizes: tuple[object, ...] = (*entry.shape, entry.bytes, entry.index or 0)
    offset: object = entry.details.get("offset", 0)
    wrong: list[object] = [value for value in texts if not isinstance(value, str)]
    wrong += [size for size in (*sizes, offset) if type(size) is not int or not 0 <= size < 1 << 62]
    if wrong or math.prod(entry.shape) >= 1 << 48:
        raise TypeError(f"{(wrong or [entry.shape])[0]!r:.80} cannot stand where it stands")
    if entry.dtype and np.dtype(entry.dtype).kind not in "biufc":
        raise TypeError(f"dtype {entry.dtype!r:.80} is none of numbers")


def read_manifest(folder: Path) -> dict[str, ManifestEntry]:
    """Read the manifest of a run folder, an entry a file.

    Returns
    -------
    dict
        By path, or uri for foreign assets; empty if there is no manifest yet. Of volumes that share one path, the
        last: `read_entries` gives them all.

    Raises
    ------
    JournalError
        As `read_entries` raises it.
    """
    return {entry.path or entry.uri: entry for entry in read_entries(folder)}


def read_entries(folder: Path) -> list[ManifestEntry]:
    """Read the manifest of a run folder, an entry a volume and path; none if there is no manifest yet.

    Raises
    ------
    JournalError
        A line is damaged, is no entry, or names a file outside the run's folder.
    """
    entries: dict[tuple[str, str, int | None], ManifestEntry] = {}
    for _, entry in entries_from(folder):
        entries[entry.path or entry.uri, entry.resource, entry.index] = entry
    return list(entries.values())


def entries_from(folder: Path, start: int = 0) -> Iterator[tuple[int, ManifestEntry]]:
    """Read the lines of a manifest from a byte on, each with the offset after it; raises as `read_entries`."""
    path = folder / MANIFEST
    if not path.exists():
        return
    for offset, line in read_lines(path, start):
        try:
            entry = ManifestEntry(**{**line, "shape": tuple(line.get("shape", ()))})
            _check_types(entry)
        except (TypeError, AttributeError) as error:
            raise JournalError(f"{path}: the line that ends at byte {offset} is no entry ({error})") from error
        if not (entry.state == "foreign" or is_inside(entry.path)):
            raise JournalError(
                f"{path}: the line that ends at byte {offset} names {entry.path!r}, which lies outside the run's "
                "folder. Nothing there is read."
            )
        yield offset, entry


def by_path(entries: Iterable[ManifestEntry]) -> dict[str, list[ManifestEntry]]:
    """Give the entries of stored forms, those of volumes in one path together."""
    found: dict[str, list[ManifestEntry]] = {}
    for entry in entries:
        if entry.path:
            found.setdefault(entry.path, []).append(entry)
    return found
