"""`FolderOrigin`: a run in a folder of this machine."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from gently_bluesky.read.assets import AssetReader, HandlerRegistry
from gently_bluesky.store.journal import Pair, begins_line, line_number, read_documents
from gently_bluesky.store.layout import JOURNAL, file_uri
from gently_bluesky.store.manifest import ManifestEntry, read_entries
from gently_bluesky.store.streams import Doc, RunTable
from gently_bluesky.store.tags import Note, add_note, login_name, read_notes

if TYPE_CHECKING:
    from gently_bluesky.read.catalog import Catalog


class FolderOrigin:
    """A run in a folder; a `RunOrigin`.

    Parameters
    ----------
    root, folder
        Of the catalog, and of the run.
    recorded_uri
        Where that root was when it was made.
    handlers
        For assets that others wrote.
    catalog
        Of the root; made when it is asked for, if not given.
    """

    def __init__(
        self,
        root: Path,
        folder: Path,
        *,
        recorded_uri: str = "",
        handlers: HandlerRegistry | None = None,
        catalog: "Catalog | None" = None,
    ) -> None:
        self.folder = self.home = folder
        self._root = root
        self._recorded_uri = recorded_uri
        self._handlers = handlers or {}
        self._catalog = catalog

    def is_there(self) -> bool:
        """Whether there is the folder."""
        return self.folder.is_dir()

    def begins_document(self, offset: int) -> bool:
        """Whether a line of the journal begins there."""
        return begins_line(self.folder / JOURNAL, offset)

    def documents(self, start: int = 0, *, rebase: bool = True) -> Iterator[tuple[int, Pair]]:
        """Read the journal from a byte on."""
        for offset, (name, doc) in read_documents(self.folder, start):
            yield (
                offset,
                (name, rebased(name, doc, self._root, self.folder, self._recorded_uri) if rebase else doc),
            )

    def damage(self, what: str, offset: int) -> str:
        """Name line and byte of the journal."""
        journal = self.folder / JOURNAL
        size, line = journal.stat().st_size, line_number(journal, offset)
        return (
            f"{what.rstrip('.')}. That is line {line} of {journal}; {size - offset} bytes from byte "
            f"{offset} on are not read. run.up_to_damage reads what stands before; with a whole copy of the "
            "file in its place, run.refresh() reads all."
        )

    def manifest(self) -> list[ManifestEntry]:
        """Read the manifest, but for lines of it that are damaged."""
        return read_entries(self.folder, pass_over=lambda _: None)

    def notes(self) -> Iterator[Note]:
        """Read tags and notes."""
        return read_notes(self.folder)

    def add_note(
        self, *, by: str | None, added: Iterable[str] = (), removed: Iterable[str] = (), text: str = ""
    ) -> None:
        """Append an act, durably."""
        add_note(self.folder, by=by or login_name(), added=added, removed=removed, text=text)

    def reader(self, table: RunTable) -> AssetReader:
        """Give what maps and decodes its files."""
        return AssetReader(self.folder, table, self._handlers)

    def catalog(self) -> "Catalog":
        """Give the catalog that made it, or one of the root."""
        from gently_bluesky.read.catalog import Catalog  # noqa: PLC0415 - it knows this module

        return self._catalog or Catalog(self._root, handlers=self._handlers)


def rebased(name: str, doc: Doc, root: Path, folder: Path, recorded_uri: str) -> Doc:
    """Give a document of a run as it reads where its root is now; `recorded_uri` is where that was when made."""
    if name != "stream_resource" or not str(doc.get("uri", "")).startswith("file:"):
        return doc
    # in the run's own folder, however often the root has moved; or beside it, under the root as it was made
    home = f"/{folder.relative_to(root).as_posix()}/"
    old, new = recorded_uri.rstrip("/"), file_uri(root).rstrip("/")
    if home in doc["uri"] and (folder / (here := doc["uri"].rpartition(home)[2])).exists():
        return {**doc, "uri": new + home + here}
    if old and doc["uri"].startswith(f"{old}/"):
        return {**doc, "uri": new + doc["uri"][len(old) :]}
    return doc
