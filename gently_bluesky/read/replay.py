"""Sending a run's documents to callbacks again, as if it were happening now."""

import contextlib
import time
import uuid
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from gently_bluesky.read.run import Run

Callback = Callable[[str, dict[str, Any]], object]

FAILED = "the replay failed"
"""How the reason in the stop document of a copy begins that is none."""


def replay(
    source: Run | Iterable[tuple[str, Mapping[str, Any]]], *callbacks: Callback, fill: bool = False
) -> None:
    """Send documents to callbacks, in order.

    Parameters
    ----------
    source
        A run, or pairs of name and document.
    callbacks
        Each gets every document; a BestEffortCallback plots, a FileWriter with another root stores.
    fill
        Of a run: events carry their arrays, and no stream documents are sent; a FileWriter then stores the
        pixels again, in its own format.

    A replay that fails ends with a stop document that says so, to every callback. Such a copy in another root
    stands in the way of the next try; `keep.aside.make_way` puts it aside.

    Raises
    ------
    ValueError
        `fill` was asked for of pairs; whoever has the pairs has to fill them.
    UnfillableError, VolumeMissingError, BadVolumeError
        With `fill`: a volume cannot be had, as `Run.check_fillable` says. No document was sent.
    """
    if isinstance(source, Run):
        pairs: Iterable[tuple[str, Mapping[str, Any]]] = source.documents(fill=fill)
    elif fill:
        raise ValueError("fill=True needs a Run: pairs of documents do not say where their files are.")
    else:
        pairs = source
    run, stopped = "", False
    try:
        for name, doc in pairs:
            run, stopped = (doc["uid"] if name == "start" else run), name == "stop"
            for callback in callbacks:
                callback(name, dict(doc))
    except BaseException as error:
        if run and not stopped:
            _close(run, error, callbacks)
        raise


def _close(run: str, error: BaseException, callbacks: Iterable[Callback]) -> None:
    """Tell callbacks that a run ends here: a copy that stays must say that it is none."""
    stop = {"uid": str(uuid.uuid4()), "time": time.time(), "run_start": run, "exit_status": "fail"}
    for callback in callbacks:
        with contextlib.suppress(Exception):  # what failed before is what its caller hears of
            callback("stop", {**stop, "reason": f"{FAILED}: {error!r}", "num_events": {}})
