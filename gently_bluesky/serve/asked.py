"""What clients of the WebSocket ask for, and how far a run is, as they are told."""

import json
import re
from collections.abc import Mapping, Set
from dataclasses import dataclass, field, replace
from typing import Any

from gently_bluesky.errors import GentlyError
from gently_bluesky.serve.following import Journal
from gently_bluesky.serve.newest import SIZES, Want
from gently_bluesky.serve.problems import without_places

MOST_RATE = 30.0
_MOST_SERIES = 16
_MOST_TEXT = 4096
_OF_PICTURES = frozenset({"show", "size", "rate", "series"})


class AskedWrongError(GentlyError, ValueError):
    """What a client asked for cannot be understood."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What a client asked for.

    Attributes
    ----------
    run
        A run, as a catalog takes it; None: what happens now, in any run.
    begin
        Where to go on: offsets in journals by uid; with `run`, its offset under "".
    want
        Which pictures; none where its rate is 0.
    acknowledged
        Whether the client says when it has drawn a picture, and gets the next one only then.
    """

    run: str | None = None
    begin: Mapping[str, int] = field(default_factory=dict)
    want: Want = field(default_factory=Want)
    acknowledged: bool = False

    @classmethod
    def of(cls, said: Mapping[str, str]) -> "Asked":
        """Read the query of a WebSocket.

        Raises
        ------
        AskedWrongError
            A part of it is nothing that can be asked for.
        """
        beside = {"run", "from", "ack"}
        _known(said, beside | _OF_PICTURES)
        run = said.get("run") or None
        begin = _offsets(said.get("from", ""), of_one=run is not None)
        if said.get("ack", "false") not in {"true", "false"}:
            raise AskedWrongError(f"ack is {said['ack']!r:.40}; it is true or false.")
        pictures = {key: each for key, each in said.items() if key not in beside}
        return cls(run, begin, wanted(pictures, Want()), said.get("ack") == "true")


def _known(said: Mapping[str, Any], known: Set[str]) -> None:
    if unknown := sorted(said.keys() - known):
        raise AskedWrongError(
            f"{', '.join(unknown):.80}: no such thing can be asked for; {', '.join(sorted(known))} can."
        )


def _offsets(text: str, *, of_one: bool) -> dict[str, int]:
    pattern = r"\d{1,15}" if of_one else r"([\w.-]{1,100}:\d{1,15})(,[\w.-]{1,100}:\d{1,15}){0,15}"
    if text and not re.fullmatch(pattern, text, re.ASCII):
        raise AskedWrongError(
            f"from is {text!r:.80}; with run= it is the offset of a message, without it uid:offset, several with "
            "commas between them."
        )
    parts = [part.rpartition(":") for part in text.split(",") if part]
    return {uid: int(offset) for uid, _, offset in parts}


def heard(text: str, before: Want) -> Want:
    """Read a message of a client: which pictures it wants from now on, where it wanted others `before`.

    Raises
    ------
    AskedWrongError
        It is nothing that can be said.
    """
    if len(text) > _MOST_TEXT:
        raise AskedWrongError(f"A message has {_MOST_TEXT} characters at most; this one has {len(text)}.")
    try:
        said = json.loads(text)
    except (ValueError, RecursionError):
        said = None
    if not isinstance(said, dict):
        raise AskedWrongError(f'A message is a JSON object, as {{"size": 1024}}; this one is {text!r:.80}.')
    _known(said, _OF_PICTURES | {"drawn"})
    return wanted({key: each for key, each in said.items() if key != "drawn"}, before)


def wanted(said: Mapping[str, Any], before: Want) -> Want:
    """Read which pictures somebody wants: show, size, rate, series; what is not named stays as it was `before`.

    Raises
    ------
    AskedWrongError
        A part of it is nothing that can be asked for.
    """
    show, series = said.get("show", before.show), said.get("series", ",".join(sorted(before.series)))
    try:
        size, rate = int(said.get("size", before.size)), float(said.get("rate", before.rate))
    except (ValueError, TypeError, OverflowError):
        raise AskedWrongError(
            "size and rate are numbers: pixels of the longest side, pictures a second."
        ) from None
    if show not in ("projection", "plane") or not 0 <= rate <= MOST_RATE or not 1 <= size <= 1 << 16:
        raise AskedWrongError(
            f"show is 'projection' or 'plane', rate 0 to {MOST_RATE:g}, size 1 or more; "
            f"asked were {show!r:.40}, {rate:g}, {size}."
        )
    if not isinstance(series, str):
        raise AskedWrongError(f"series is a text, names with commas between them; asked was {series!r:.80}.")
    keys = frozenset(key for key in series.split(",") if key)
    if len(keys) > _MOST_SERIES:
        raise AskedWrongError(f"{len(keys)} series were asked for; {_MOST_SERIES} at once can be had.")
    fitting = next((each for each in SIZES if each >= size), SIZES[-1])
    return replace(before, series=keys, show=show, size=fitting, rate=rate)


def progress_of(journal: Journal) -> dict[str, Any]:
    """Give how far a run is: its plan, events by stream, and what the last one shows."""
    start, stop, last = journal.start, journal.stop or {}, journal.last_event
    said = (
        "scan_id",
        "plan_name",
        "session",
        "operator",
        "purpose",
        "num_points",
        "embryos",
        "channels",
        "interval_s",
    )
    address = {}
    if last is not None:
        data, keys = last["data"], ("embryo", "timepoint", "position", "channel", "good")
        address = {"time": last["time"], "seq_num": last["seq_num"]} | {
            key: data.get(key, start.get(key)) for key in keys
        }
    return {
        "run": journal.uid,
        "since": start["time"],
        "plan": {key: start[key] for key in said if key in start},
        "events": dict(journal.events),
        "last": address,
        "until": stop.get("time"),
        "exit_status": stop.get("exit_status"),
        "reason": stop.get("reason"),
        "damage": journal.damage and without_places(journal.damage),
    }
