"""Sending a run's documents to callbacks again, as if it were happening now."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from gently_bluesky.read.run import Run

Callback = Callable[[str, dict[str, Any]], object]


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

    Raises
    ------
    ValueError
        `fill` was asked for of pairs; whoever has the pairs has to fill them.
    """
    if isinstance(source, Run):
        pairs: Iterable[tuple[str, Mapping[str, Any]]] = source.documents(fill=fill)
    elif fill:
        raise ValueError("fill=True needs a Run: pairs of documents do not say where their files are.")
    else:
        pairs = source
    for name, doc in pairs:
        for callback in callbacks:
            callback(name, dict(doc))
