"""Data layer of a dual-view light-sheet microscope driven by Bluesky.

Documents and frames in, files that anyone can open out, and back: `FileWriter`, `Catalog`, `replay`, `derive`.
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gently_bluesky.derived.derivation import derive
    from gently_bluesky.read.catalog import Catalog
    from gently_bluesky.read.replay import replay
    from gently_bluesky.write.writer import FileWriter

__version__ = "0.1.0.dev0"

__all__ = ["Catalog", "FileWriter", "__version__", "derive", "replay"]

_HOMES = {
    "Catalog": "gently_bluesky.read.catalog",
    "FileWriter": "gently_bluesky.write.writer",
    "derive": "gently_bluesky.derived.derivation",
    "replay": "gently_bluesky.read.replay",
}


def __getattr__(
    name: str,
) -> object:  # imported when asked for: a reader needs no writer, and Bluesky takes time
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
