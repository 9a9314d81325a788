"""`ServerOrigin`: a run of another machine, as its server gives it; a `RunOrigin`."""

from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from gently_bluesky.errors import (
    ElsewhereError,
    JournalError,
    ServerAnswerError,
    ServerRefusesError,
    ServerVersionError,
)
from gently_bluesky.read.remote.connection import Connection
from gently_bluesky.read.remote.reader import ServerReader
from gently_bluesky.store.journal import Pair
from gently_bluesky.store.manifest import ManifestEntry
from gently_bluesky.store.streams import RunTable
from gently_bluesky.store.tags import Note, login_name

if TYPE_CHECKING:
    from gently_bluesky.read.catalog import Catalog


class ServerOrigin:
    """A run of another machine.

    Parameters
    ----------
    catalog, connection
        Of the server.
    run
        uid of the run.
    home
        Its folder, as from the root there.
    """

    def __init__(self, catalog: "Catalog", connection: Connection, run: str, home: str) -> None:
        self.home = PurePosixPath(home)
        self._catalog = catalog
        self._connection = connection
        self._run = run

    @property
    def folder(self) -> Path:
        """There is none here."""
        raise ElsewhereError(
            f"Run {self._run} is in {self.home} at {self._connection.where}: its folder is not on this machine. "
            f"gently-bluesky replay {self._run[:8]} --root {self._connection.where} --into ROOT --fill copies it."
        )

    def is_there(self) -> bool:
        """Whether the server says so, which answers for its documents."""
        return True

    def begins_document(self, offset: int) -> bool:  # noqa: ARG002 - a RunOrigin
        """The server looks."""
        return True

    def documents(self, start: int = 0, *, rebase: bool = True) -> Iterator[tuple[int, Pair]]:
        """Ask for documents from a byte of the journal there on, answer after answer."""
        while True:
            page = self._connection.ask(
                "/questions/documents", _Page, **{"run": self._run, "from": start, "rebase": rebase}
            )
            for offset, pair in page.documents:
                if offset <= start:
                    raise ServerAnswerError(
                        f"{self._connection.where} was asked for documents of run {self._run} from byte {start} "
                        f"of its journal on, and gave one that ends at byte {offset}."
                    )
                start = offset
                yield offset, pair
            if page.damage is not None:
                raise JournalError(page.damage)
            if not page.documents or not page.more:
                return

    def damage(self, what: str, offset: int) -> str:  # noqa: ARG002 - a RunOrigin
        """Give what is said: the server named the place."""
        return what

    def manifest(self) -> list[ManifestEntry]:
        """Ask for the manifest."""
        return self._connection.ask(
            "/questions/manifest", lambda said: list(map(ManifestEntry.from_line, said["value"])), run=self._run
        )

    def notes(self) -> Iterator[Note]:
        """Ask for tags and notes."""
        return iter(self._connection.ask("/questions/notes", _notes, run=self._run))

    def add_note(
        self, *, by: str | None, added: Iterable[str] = (), removed: Iterable[str] = (), text: str = ""
    ) -> None:
        """Tell the server, where it allows that; by the login name here, if nobody is named."""
        said = {
            "add": list(added),
            "remove": list(removed),
            "note": text,
            "by": login_name() if by is None else by,
        }
        try:
            self._connection.tell(f"/runs/{quote(self._run, safe='')}/tags", said)
        except ServerVersionError as error:
            raise ServerRefusesError(
                f"{self._connection.where} takes no tags and notes; gently-bluesky serve --may-tag does."
            ) from error

    def reader(self, table: RunTable) -> ServerReader:
        """Give what asks for its volumes."""
        return ServerReader(self._connection, self._run, table)

    def catalog(self) -> "Catalog":
        """Give the catalog that it was found in."""
        return self._catalog


class _Page:
    """Documents of one answer, each with the offset after it; where they end because of damage, what that is."""

    def __init__(self, said: Any) -> None:
        self.documents = [_document(each) for each in said["documents"]]
        self.more = bool(said["more"])
        self.damage = None if said["damage"] is None else str(said["damage"])


def _document(said: Any) -> tuple[int, Pair]:
    offset, name, doc = said
    if type(offset) is not int or not isinstance(name, str) or not isinstance(doc, dict):
        raise TypeError(f"{said!r:.60} is no document")
    return offset, (name, doc)


def _notes(said: Any) -> list[Note]:
    return [
        Note(float(each["time"]), str(each["by"]), tuple(each["added"]), tuple(each["removed"]), str(each["text"]))
        for each in said["value"]
    ]
