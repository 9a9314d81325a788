"""`derive`: a run made out of runs.

Whatever can be found wrong is found before anything is written. From then on it is a run like any other: what
fails in it closes it as failed, and what kills it leaves a run for recovery.
"""

import contextlib
import platform
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from gently_bluesky.derived.documents import DerivedRun
from gently_bluesky.derived.function import TOLD, Called, called
from gently_bluesky.derived.parents import (
    Bad,
    Parents,
    ParentVolume,
    agreed,
    by_event,
    parent_documents,
    select,
)
from gently_bluesky.derived.result import Derived, Result, results_of
from gently_bluesky.errors import DerivationError
from gently_bluesky.provenance import versions
from gently_bluesky.read.catalog import Catalog
from gently_bluesky.read.run import Run
from gently_bluesky.write.writer import FileWriter

Into = Catalog | FileWriter | Path | str

_OURS = ("uid", "time", "parents", "function", "versions", "platform")
_CARRIED = ("session", "embryo", "purpose")


def derive(
    function: Callable[..., Any],
    parents: Parents,
    *,
    into: Into,
    parameters: Mapping[str, Any] | None = None,
    references: Mapping[str, Parents] | None = None,
    data_key: str | None = None,
    bad: Bad = "refuse",
    lazy: bool = False,
    start: Mapping[str, Any] | None = None,
) -> Run:
    """Make a run out of volumes: one event for each event that they are of, or as many as a generator gives.

    Parameters
    ----------
    function
        Called with the pixels of one volume, (z, y, x), read-only, and with the parameters; it gives an array,
        `Pixels` (an array with dims and voxel size), a number, or several of them by data key. If it has a keyword
        ``parent``, it is told of the volume as a `ParentVolume`. A generator function is called once, with the
        list of all volumes as `ParentVolume`, and yields `Derived` events. What an event shows is its parents'
        word: a function gives no embryo, timepoint, position or channel. It may give ``good``: False makes an
        event not good, True leaves it as its parents are.
    parents
        A run or its uid (all its volumes), volumes of ``catalog.volumes(...)``, an ImageSeries (of ``only(...)``
        the events that it chose, once each), a tuple (run, stream, data_key) or (run, stream, data_key, seq_nums),
        or several of these.
    into
        Where the run goes: the root of the parents, as a catalog or a path; or a FileWriter with that root which
        no acquisition uses meanwhile. Others may write into the root at any time.
    parameters
        Numbers, text, truth values, None, lists and dicts of them; they stand in the start document, beside the
        defaults of others. Every call is given them anew.
    references
        Further volumes that every event is made with, named like parents, e.g. ``{"dark": run}``: the function
        gets each as a list of `ParentVolume`, by its name.
    data_key
        The name of a result that has none; the name of its parent's data key, if not given.
    bad
        What becomes of volumes that are not good, of references too: "refuse" them all, "skip" them, or "take"
        them; then an event that one of them has part in is not good.
    lazy
        Give the function dask arrays, in chunks of whole planes; a generator asks `ParentVolume.dask` for them.
    start
        Goes into the start document; session, embryo and purpose are those on which all parents agree.

    Returns
    -------
    Run
        As it is in the catalog. Its events say in `parent_run`, `parent_stream`, `parent_seq_num` and
        `parent_time` from which event they are, and carry its identity: embryo, timepoint, position, channel,
        good.

    Raises
    ------
    DerivationError
        Nothing is selected; a parameter that no document can hold, or that the function does not take; a function
        that nothing identifies; a start document that says what `derive` says. Nothing was written.
    RunNotFoundError, StreamNotFoundError, BadVolumeError, VolumeMissingError
        Parents that are not in this root, not there, not good or gone. Nothing was written.
    Exception
        What the function raises. The run is closed with exit_status "fail" and the reason.
    """
    call = called(function, parameters or {}, references or {})
    catalog = _catalog(into)
    volumes = select(catalog, parents, bad=bad)
    others = {name: select(catalog, chosen, bad=bad) for name, chosen in (references or {}).items()}
    if data_key is not None and not call.is_generator and max(map(len, by_event(volumes))) > 1:
        keys = sorted({volume.data_key for volume in volumes})
        raise DerivationError(
            f"data_key={data_key!r} is one name, and events of the parents have several: {keys}."
        )
    said = _start(call, catalog, volumes, others, start or {})
    events = _events(call, volumes, others, data_key=data_key, lazy=lazy)
    with _writer(into, catalog) as writer:
        good = all(volume.good for chosen in others.values() for volume in chosen)
        uid = _record(DerivedRun(said, call.name, good=good), events, writer)
    return catalog[uid]


def _catalog(into: Into) -> Catalog:
    if isinstance(into, Catalog):
        return into
    return Catalog(into.root if isinstance(into, FileWriter) else into)


def _writer(into: Into, catalog: Catalog) -> AbstractContextManager[FileWriter]:
    return contextlib.nullcontext(into) if isinstance(into, FileWriter) else FileWriter(catalog.root)


def _start(
    call: Called,
    catalog: Catalog,
    volumes: list[ParentVolume],
    others: Mapping[str, list[ParentVolume]],
    more: Mapping[str, Any],
) -> dict[str, Any]:
    """Give what the start document says, but for uid and time."""
    if ours := sorted(set(_OURS) & more.keys()):
        raise DerivationError(f"A start document cannot be given {ours}: derive says what is true of them.")
    starts = list({volume.run_uid: volume.start for volume in volumes}.values())
    carried = {key: agreed(start.get(key) for start in starts) for key in _CARRIED}
    references = [said for role, chosen in others.items() for said in parent_documents(chosen, role)]
    return {
        "plan_name": call.short_name,
        "plan_type": "derive",
        "scan_id": catalog.next_scan_id(),
        **{key: value for key, value in carried.items() if value is not None},
        **({} if call.is_generator else {"num_points": len(by_event(volumes))}),
        **more,
        "parents": parent_documents(volumes) + references,
        "function": call.document,
        "versions": versions(("numpy", call.package)),
        "platform": platform.platform(),
    }


def _events(
    call: Called,
    volumes: list[ParentVolume],
    references: Mapping[str, list[ParentVolume]],
    *,
    data_key: str | None,
    lazy: bool,
) -> Iterator[tuple[list[Result], bool]]:
    """Call the function; give what it gives for each event, and whether that is from volumes of one event."""
    if call.is_generator:
        for derived in call.function(volumes, **_fresh(references), **call.arguments()):
            if not isinstance(derived, Derived):
                raise DerivationError(
                    f"A generator function yields Derived(data, of=volumes), not {derived!r:.80}."
                )
            single = isinstance(derived.of, ParentVolume)
            of = [derived.of] if isinstance(derived.of, ParentVolume) else list(derived.of)
            yield results_of(derived.data, data_key or (of[0].data_key if of else ""), of), single
        return
    for of_event in by_event(volumes):
        results: list[Result] = []
        for volume in of_event:
            told = {TOLD: volume} if call.wants_parent else {}
            pixels = volume.dask() if lazy else volume.array()
            try:
                given = call.function(pixels, **told, **_fresh(references), **call.arguments())
            except Exception as error:
                error.add_note(f"{call.name} was given {volume!r}.")
                raise
            results += results_of(given, data_key or volume.data_key, [volume])
        yield results, True


def _fresh(references: Mapping[str, list[ParentVolume]]) -> dict[str, list[ParentVolume]]:
    return {name: list(chosen) for name, chosen in references.items()}


def _record(run: DerivedRun, events: Iterator[tuple[list[Result], bool]], writer: FileWriter) -> str:
    """Write the run, and close it however it ends; give its uid."""
    writer("start", run.start)
    try:
        for results, one_event in events:
            for name, doc in run.event(results, one_event=one_event):
                writer(name, doc)
    except BaseException as error:
        status = "fail" if isinstance(error, Exception) else "abort"
        reason = ". ".join([f"{type(error).__name__}: {error}", *getattr(error, "__notes__", ())])
        with contextlib.suppress(Exception):  # what failed before is what the caller hears of
            writer("stop", run.stop(status, reason))
        raise
    writer("stop", run.stop())
    return str(run.start["uid"])
