"""What files of ours say of themselves, written by an export and read by an import: whose volumes they hold.

Knows OME-TIFFs and stores of run folders, and exports of grids. What was changed or cut off says nothing.
"""

import contextlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gently_bluesky.exchange.export_grid import Grid
from gently_bluesky.exchange.selection import Selected
from gently_bluesky.store.formats import examine
from gently_bluesky.store.index import IDENTITY_KEYS
from gently_bluesky.store.ome_xml import annotated
from gently_bluesky.store.strict_json import encode, plain, restored

HOME = "gently_bluesky"
"""The attribute of a Zarr group, and what a line of ImageJ's Info begins with."""

_PER_EVENT = (*IDENTITY_KEYS, "view", "exposure_ms", "time")


@dataclass(frozen=True, slots=True)
class Own:
    """What a file of ours says.

    Attributes
    ----------
    session
        If it is one.
    runs
        uids of the runs that its volumes are of.
    volumes
        By time and channel, from 0, as far as they are known: embryo, timepoint, position, channel, good, view,
        exposure_ms, and the time at which it was measured, seconds since the epoch.
    torn
        Those of which not all came, or whose metadata are damaged.
    """

    session: str | None = None
    runs: tuple[str, ...] = ()
    volumes: Mapping[tuple[int, int], Mapping[str, Any]] = field(default_factory=dict)
    torn: tuple[tuple[int, int], ...] = ()


# --- exports ------------------------------------------------------------------------------------------------


def said_of(grid: Grid) -> dict[str, Any]:
    """Give what an export of a grid says of it, in plain values."""
    shows = grid.volumes[0].volume.shows
    said: dict[str, Any] = plain(
        {
            "session": shows.session,
            "embryo": shows.embryo,
            "timepoints": grid.timepoints,
            "channels": grid.channels,
            "times": grid.times,
            "volumes": [[_address(pixels.volume) for pixels in row] for row in grid.cells],
        }
    )
    return said


def _address(volume: Selected) -> dict[str, Any]:
    shows = volume.shows
    where = {"run_uid": volume.run.uid, "stream": shows.stream, "seq_num": shows.seq_num}
    return where | {"data_key": shows.data_key, "view": shows.view, "channel": shows.channel}


def line_of(grid: Grid) -> str:
    """Give the same as one line of text."""
    return f"{HOME}: {encode(said_of(grid)).decode()}"


def of_lines(text: str) -> Own:
    """Read what `line_of` wrote, among other lines."""
    lines = (line.partition(": ")[2] for line in text.splitlines() if line.startswith(f"{HOME}: "))
    with contextlib.suppress(ValueError):
        return of_export(json.loads(next(lines, "{}")))
    return Own()


def of_export(said: Any) -> Own:
    """Read what `said_of` gave."""
    try:
        said = restored(said)
        volumes = {}
        for t, (timepoint, times, row) in enumerate(
            zip(said["timepoints"], said["times"], said["volumes"], strict=True)
        ):
            for c, (time, address) in enumerate(zip(times, row, strict=True)):
                known = {"embryo": said["embryo"], "timepoint": timepoint, "time": time}
                volumes[t, c] = _known(known | {key: address.get(key) for key in ("view", "channel")})
        addresses = (address for row in said["volumes"] for address in row)
        session = None if said["session"] is None else str(said["session"])
        return Own(session, tuple(dict.fromkeys(str(each["run_uid"]) for each in addresses)), volumes)
    except (KeyError, TypeError, ValueError, AttributeError):
        return Own()


# --- files of run folders -----------------------------------------------------------------------------------


def of_ome_tiff(path: Path, xml: str) -> Own:
    """Read what an OME-TIFF says that was written while data were taken, or exported as such."""
    text = annotated(xml)
    if "run_uid" not in text:
        return Own()
    said: dict[str, Any] = {key: text[key] for key in ("embryo", "position", "view", "channel") if text.get(key)}
    for key, kind in (("timepoint", int), ("event_time", float), ("parent_time", float)):
        with contextlib.suppress(KeyError, ValueError):
            said[key] = kind(text[key])
    return _own([((0, 0), text["run_uid"], text.get("session"), _timed(said) | _good(text.get("good")))], path)


def of_store(store: Path, events: int) -> Own:
    """Read what an OME-Zarr says that was written while data were taken."""
    from gently_bluesky.store.zarr_pixels import told_of  # noqa: PLC0415 - codecs that only Zarr needs

    found: list[tuple[tuple[int, int], str, str | None, dict[str, Any]]] = []
    for index in range(events):
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            told = told_of(store / "events" / f"{index:06d}")
            event = told.get("event") or {}
            said = {**told["run"], **told["metadata"], **event.get("scalars", {})}
            if "time" in event:
                said["event_time"] = event["time"]
            place = (index, 0), str(told["run_uid"]), told["run"].get("session")
            found.append((*place, _timed(said) | _good(said.get("good"))))
    return _own(found, store, events)


def _own(found: list[tuple[tuple[int, int], str, str | None, dict[str, Any]]], path: Path, events: int = 1) -> Own:
    volumes = {place: _known(said) for place, _, _, said in found}
    torn = tuple(_torn(path, events))
    volumes |= {place: {**volumes.get(place, {}), "good": False} for place in torn}
    session = next((session for _, _, session, _ in found), None)
    return Own(session, tuple(dict.fromkeys(uid for _, uid, _, _ in found)), volumes, torn)


def _torn(path: Path, events: int) -> Iterator[tuple[int, int]]:
    for index in range(events):
        try:
            whole = all(time != 0 for time in examine(path, index).times or ())
        except ValueError:
            whole = path.is_file()  # others have rewritten it: what is there, is
        if not whole:
            yield index, 0


def _timed(said: Mapping[str, Any]) -> dict[str, Any]:
    """Give the time of what was measured under its name; that of the run is none of a volume."""
    time = said.get("parent_time", said.get("event_time"))
    return {key: value for key, value in said.items() if key != "time"} | {"time": time}


def _good(said: object) -> dict[str, Any]:
    return {} if said is None else {"good": said in {True, "True"}}


def _known(said: Mapping[str, Any]) -> dict[str, Any]:
    return {key: said[key] for key in _PER_EVENT if isinstance(said.get(key), str | int | float)}
