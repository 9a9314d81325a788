"""Runs made out of runs: data that functions give, with their parents named in documents like any other's.

`derive` makes them; `maximum_projection`, `deskew`, `subtract_background` and `mean_volume` are functions for it.
"""

from gently_bluesky.derived.background import mean_volume, subtract_background
from gently_bluesky.derived.derivation import derive
from gently_bluesky.derived.deskewing import deskew
from gently_bluesky.derived.parents import ParentVolume, Selection
from gently_bluesky.derived.projection import maximum_projection
from gently_bluesky.derived.result import Derived, Pixels

__all__ = [
    "Derived",
    "ParentVolume",
    "Pixels",
    "Selection",
    "derive",
    "deskew",
    "maximum_projection",
    "mean_volume",
    "subtract_background",
]
