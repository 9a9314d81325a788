"""`Stored`: one volume by its permanent address, its stream resource and its index in it.

In a file of ours, as its manifest says; in one that no manifest names yet, while it grows; or where others put it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gently_bluesky.errors import BadVolumeError, NotHereError, NotYetError
from gently_bluesky.read.assets import Pixels
from gently_bluesky.read.run import Run
from gently_bluesky.serve.growing import Growing, growing_volume
from gently_bluesky.serve.slices import Part, expanded
from gently_bluesky.store.manifest import ManifestEntry
from gently_bluesky.store.streams import VolumeRef


@dataclass(frozen=True, slots=True)
class Stored:
    """One volume.

    Attributes
    ----------
    facts
        What answers say of it: data_key, shape, dtype, format, state, frames_there, levels.
    identity
        What its pixels are, whenever they are read; None if they may change.
    pixels
        Gives a level of it.
    """

    facts: dict[str, Any]
    identity: tuple[object, ...] | None
    pixels: Callable[[int], Pixels]

    def hold_there(self, parts: Sequence[Part]) -> None:
        """Hold that all frames have come of which a part is asked for.

        Raises
        ------
        NotYetError
            Not yet.
        BadVolumeError
            Not all, and no more will.
        """
        there = np.array(self.facts["frames_there"] or [], np.bool_)
        shape = self.facts["shape"]
        wanted = there.reshape(shape[:-2])[expanded(parts, len(shape))[: len(shape) - 2]] if there.size else there
        if np.all(wanted):
            return
        said = f"{there.sum()} of {there.size} frames of this volume have come, not all that were asked for"
        if self.facts["state"] == "growing":
            raise NotYetError(f"{said}. It is being acquired.")
        raise BadVolumeError(f"{said}, and no more will: it was interrupted.")


def stored_volume(run: Run, resource: str, index: int, *, include_bad: bool = False) -> Stored:
    """Give a volume of a run; `include_bad` reads one that was given up as far as it came.

    Raises
    ------
    NotHereError
        There is none; `more` says of which stream resources there are.
    """
    ref = VolumeRef(resource, index)
    entry = run.assets.entry(ref)
    if entry is not None:
        return _in_manifest(run, ref, entry, include_bad=include_bad)
    growing = growing_volume(run, resource, index)
    if growing is not None:
        return _growing(growing)
    named = {each for name in run for row in run[name].rows for each in row.volumes.values()}
    if ref not in named:
        raise NotHereError(
            f"Run {run.uid} has no volume {index} of stream resource {resource!r:.100}.",
            available={"resource": sorted({each.resource for each in named})[:100]},
        )
    return _of_others(run, ref)


def _in_manifest(run: Run, ref: VolumeRef, entry: ManifestEntry, *, include_bad: bool) -> Stored:
    assets = run.assets
    there = assets.frames_there(ref) if entry.state == "aborted" else None
    factors = assets.pyramid(ref) if entry.state == "sealed" else ()
    levels = [
        {"shape": [-(-size // by) for size, by in zip(entry.shape, each, strict=True)], "factors": each}
        for each in ((*[1] * len(entry.shape), *by)[-len(entry.shape) :] for by in factors)
    ]
    facts: dict[str, Any] = {"data_key": entry.data_key, "shape": entry.shape, "dtype": entry.dtype}
    facts |= {"format": entry.format, "state": entry.state, "levels": levels}
    facts |= {"frames_there": None if there is None else there.tolist()}

    def pixels(level: int) -> Pixels:
        if level >= max(len(levels), 1):
            raise NotHereError(f"There is no level {level}.", available={"level": [*range(max(len(levels), 1))]})
        return assets.level(ref, level) if level else assets.volume(ref, {}, partial=include_bad)

    return Stored(facts, (run.uid, ref.resource, ref.index, entry.xxh3_128), pixels)


def _growing(growing: Growing) -> Stored:
    facts = {name: value for name, value in growing.said().items() if name in {"data_key", "shape", "dtype"}}
    facts |= {"format": growing.found.format, "state": "growing", "levels": []}
    facts |= {"frames_there": growing.frames_there.tolist()}

    def pixels(level: int) -> Pixels:
        if level:
            raise NotYetError("A volume that is being acquired has no levels yet; level=0 has its frames.")
        return growing.pixels()

    return Stored(facts, None, pixels)


def _of_others(run: Run, ref: VolumeRef) -> Stored:
    key = run.assets.data_key(ref.resource)
    facts = {
        "data_key": key.get("data_key", ""),
        "shape": key.get("shape", ()),
        "dtype": key.get("dtype_numpy", ""),
    }
    facts |= {"format": "foreign", "state": "foreign", "frames_there": None, "levels": []}

    def pixels(level: int) -> Pixels:
        if level:
            raise NotHereError(f"There is no level {level}.", available={"level": [0]})
        return run.assets.volume(ref, key)

    return Stored(facts, None, pixels)
