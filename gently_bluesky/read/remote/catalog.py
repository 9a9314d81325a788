"""`RemoteCatalog`: the runs under a root of another machine, as its server finds them.

A `Catalog` there answers each question; so what is found, and what is said where nothing is, is the same. Runs and
volumes that come back are those of `read`, on a server in place of a folder.
"""

import itertools
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from gently_bluesky.errors import ElsewhereError, ServerAnswerError
from gently_bluesky.read.answers import Answer
from gently_bluesky.read.catalog import Catalog, Runs, Session, When, asked_key, seconds
from gently_bluesky.read.lineage import Lineage, Node
from gently_bluesky.read.parentage import Edge
from gently_bluesky.read.remote.connection import Connection
from gently_bluesky.read.remote.held import HeldRuns
from gently_bluesky.read.remote.origin import ServerOrigin
from gently_bluesky.read.run import Run
from gently_bluesky.read.volumes import Volume, Volumes
from gently_bluesky.store.index import VolumeRow
from gently_bluesky.store.streams import Doc
from gently_bluesky.store.strict_json import plain

if TYPE_CHECKING:
    from pathlib import Path

    from gently_bluesky.read.assets import HandlerRegistry

T = TypeVar("T")

_PAGE = 200  # runs of one answer
_NAMED = 50  # uids of one question


class RemoteCatalog(Catalog):
    """The runs under a root of another machine; ``Catalog("http://host:8000")`` gives one.

    Parameters
    ----------
    root
        The server's address.
    handlers
        None: what others wrote is read there, with handlers that the server was given.
    token
        Shown to the server; GENTLY_TOKEN of the environment, if not given.
    connection
        To this server, with other times than usual; made from the address, if not given.

    Raises
    ------
    ServerError
        As `Connection` raises it.
    """

    def __init__(
        self,
        root: "Path | str",
        *,
        handlers: "HandlerRegistry | None" = None,
        token: str | None = None,
        connection: Connection | None = None,
    ) -> None:
        if handlers:
            raise TypeError(
                f"Handlers are for files of this machine. Those for runs at {root} are given to the server there."
            )
        self._connection = connection or Connection(str(root), token=token)
        self._held = HeldRuns(self.__getitem__)

    @property
    def where(self) -> str:
        """The server's address."""
        return self._connection.where

    @property
    def root(self) -> "Path":
        """There is none here."""
        raise ElsewhereError(
            f"The root at {self.where} is a folder of another machine; that needs one of this one."
        )

    def __len__(self) -> int:
        return self._connection.ask("", lambda said: int(said["runs"]))

    def __iter__(self) -> Iterator[Run]:
        return (run for page in self._pages({}, None, self._run_of) for run in page)

    def __getitem__(self, key: int | str) -> Run:
        """Give one run; see `Catalog`."""
        key = asked_key(key)
        scan = isinstance(key, int) and key >= 0
        run = self._connection.ask("/questions/run", self._run_of, **{"scan_id" if scan else "key": str(key)})
        named = run.uid.startswith(key) if isinstance(key, str) else key < 0 or run.start.get("scan_id") == key
        if not named:
            raise self._another_run(f"run {key}", run)
        return run

    def _another_run(self, asked: str, run: Run) -> ServerAnswerError:
        scan = run.start.get("scan_id")
        return ServerAnswerError(f"{self.where} was asked for {asked}, and gave run {run.uid} (scan {scan}).")

    def _run_of(self, said: Any) -> Run:
        origin = ServerOrigin(self, self._connection, str(said["start"]["uid"]), str(said["home"]))
        return Run(origin, start=dict(said["start"]), stop=None if said["stop"] is None else dict(said["stop"]))

    # --- lineage --------------------------------------------------------------------------------------------

    def trace(self, uid: str, depth: int | None = None, *, up: bool = True, down: bool = True) -> Lineage:
        """Give the lineage of a uid, whether there is such a run or not; see `lineage`."""
        return self._connection.ask("/questions/lineage", _lineage_of, uid=uid, depth=depth, up=up, down=down)

    def known(self, uids: Collection[str]) -> dict[str, Run]:
        """Give those of some runs that there are."""
        found: list[Run] = []
        named = sorted(uids)
        for first in range(0, len(named), _NAMED):
            found += self._connection.ask("/questions/runs", self._runs_of, uids=named[first : first + _NAMED])
        for run in found:
            if run.uid not in uids:
                raise self._another_run(", ".join(named), run)
        return {run.uid: run for run in found}

    def _runs_of(self, said: Any) -> list[Run]:
        return [self._run_of(each) for each in said["runs"]]

    # --- questions ------------------------------------------------------------------------------------------

    def search(
        self,
        *,
        plan_name: str | None = None,
        since: When | None = None,
        until: When | None = None,
        tag: str | None = None,
        limit: int | None = None,
        **start_metadata: Any,
    ) -> Runs:
        """Give runs, newest first; see `Catalog`."""
        asked = {"plan_name": plan_name, "tag": tag} | _when(since, until) | plain(start_metadata, "the question")
        pages = list(self._pages(asked, limit, self._run_of))
        return Runs(itertools.chain(*pages), why_none=pages[0].why_none, available=pages[0].available)

    def starts(
        self, *, since: When | None = None, until: When | None = None, limit: int | None = None, **what: Any
    ) -> Answer[Doc]:
        """Give the start documents of the runs that `search` gives; see `Catalog`."""
        pages = list(
            self._pages(_when(since, until) | plain(what, "the question"), limit, lambda said: dict(said["start"]))
        )
        return Answer(itertools.chain(*pages), why_none=pages[0].why_none, available=pages[0].available)

    def _pages(self, asked: Mapping[str, Any], limit: int | None, make: Callable[[Any], T]) -> Iterator[Answer[T]]:
        what = {key: value for key, value in asked.items() if value is not None}
        after: str | None = None

        def page_of(said: Any) -> tuple[Answer[T], str | None]:
            answer = Answer(map(make, said["runs"]), why_none=str(said["why_none"]), available=said["available"])
            return answer, None if said["next"] is None else str(said["next"])

        while True:
            size = _PAGE if limit is None else min(limit, _PAGE)
            page, after = self._connection.ask("/questions/search", page_of, asked=what, limit=size, after=after)
            yield page
            limit = None if limit is None else limit - len(page)
            if after is None or not page or limit == 0:
                return

    def volumes(
        self,
        *,
        since: When | None = None,
        until: When | None = None,
        include_bad: bool = False,
        stored: bool = False,
        derived: bool | None = False,
        **what: Any,
    ) -> Volumes:
        """Give volumes, newest first; see `Catalog`."""
        asked = {"include_bad": include_bad, "stored": stored, "derived": derived} | _when(since, until)
        return self._connection.ask(
            "/questions/volumes", self._volumes_of, asked=asked | plain(what, "the question")
        )

    def _volumes_of(self, said: Any) -> Volumes:
        rows = ((str(uid), VolumeRow(*fields)) for uid, *fields in said["volumes"])
        found = [Volume(uid, row, self._held) for uid, row in rows]
        return Volumes(found, why_none=str(said["why_none"]), available=said["available"])

    def sessions(self) -> list[Session]:
        """Give the sessions, the newest first."""
        return self._connection.ask("/sessions", _sessions_of)

    def timepoints(self, session: str, embryo: str) -> list[int]:
        """Give the timepoints of an embryo in a session that there are, bad volumes included, in order."""
        return self._connection.ask(
            "/questions/timepoints", lambda said: list(map(int, said["values"])), session=session, embryo=embryo
        )

    def next_scan_id(self) -> int:
        """Give the scan_id after the highest one; 1 before the first."""
        return self._connection.ask("/questions/next_scan_id", lambda said: int(said["value"]))


def _when(since: When | None, until: When | None) -> dict[str, float]:
    """Give moments as every machine understands them: a date means another moment in another zone."""
    said = {} if since is None else {"since": seconds(since)}
    return said if until is None else said | {"until": seconds(until, end=True)}


def _sessions_of(said: Any) -> list[Session]:
    if not isinstance(said, list):
        raise TypeError(f"sessions are {said!r:.40}")
    return list(map(_session_of, said))


def _session_of(said: Any) -> Session:
    since, until = float(said["since"]), float(said["until"])
    return Session(str(said["name"]), since, until, int(said["runs"]), tuple(map(str, said["embryos"])))


def _lineage_of(said: Any) -> Lineage:
    nodes = (
        Node(each["uid"], each["start"], each["exit_status"], bool(each["goes_on"])) for each in said["nodes"]
    )
    edges = (
        Edge(**{**each, "seq_nums": tuple(range(part["start"], part["stop"]) for part in each["seq_nums"])})
        for each in said["edges"]
    )
    return Lineage(said["run"], tuple(nodes), tuple(edges), tuple(map(tuple, said["cycles"])))
