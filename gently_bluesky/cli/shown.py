"""A run on a terminal, readable at 80 columns."""

import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.markup import escape
from rich.padding import Padding
from rich.table import Table

from gently_bluesky.cli.app import out
from gently_bluesky.errors import JournalError
from gently_bluesky.read.parentage import edges_of, selection_of
from gently_bluesky.read.run import Run, Stream
from gently_bluesky.read.words import clock, counted
from gently_bluesky.store.index import IDENTITY_KEYS
from gently_bluesky.store.manifest import ManifestEntry, read_entries
from gently_bluesky.store.removed import Removed
from gently_bluesky.store.streams import VolumeRef
from gently_bluesky.store.strict_json import encode, plain
from gently_bluesky.write.run_folder import is_locked

_NAMED = 12  # data keys of a stream that are named
_KINDS = {"derived": "from", "calibration": "calibration", "imported": "files of", "continues": "continues"}


def print_json(value: Any) -> None:
    """Print one line of strict JSON."""
    sys.stdout.buffer.write(encode(plain(value)) + b"\n")


def without_stop(run: Run) -> str:
    """Say of a run without a stop document what that means."""
    if not isinstance(run.home, Path):
        return "open (running, or interrupted)"
    return "running" if is_locked(run.home) else "interrupted (gently-bluesky recover closes it)"


def entries_of(run: Run, damage: list[JournalError]) -> list[ManifestEntry]:
    """Give what the manifest says; lines that are damaged come to `damage`, those of this machine."""
    if isinstance(run.home, Path):
        return read_entries(run.home, pass_over=damage.append)
    return run.manifest


def print_run(run: Run) -> None:
    """Print what was asked, what came, and where it is."""
    start, stop = run.start, run.stop
    ended = without_stop(run) if stop is None else f"{stop['exit_status']} {clock(stop['time'])} {stop['reason']}"
    facts = Table.grid(padding=(0, 2))
    for name, value in (
        ("run", f"{run.uid}, scan {start.get('scan_id')}, {start.get('plan_name')}"),
        ("started", clock(start["time"])),
        ("ended", ended),
        *((key, str(start[key])) for key in ("session", "embryo", "operator", "purpose") if key in start),
        *_made_of(start),
        *([] if run.damage is None else [("damaged", run.damage)]),
        *([("tags", tags)] if (tags := _tags(run)) else []),
    ):
        facts.add_row(f"[bold]{name}[/bold]", escape(value))
    out.print(facts, highlight=False)
    out.print(f"[bold]folder[/bold]    {escape(str(run.home))}", highlight=False, soft_wrap=True)
    damage: list[JournalError] = []
    stored = [entry for entry in entries_of(run, damage) if entry.index is not None]
    for each in damage:
        out.print(f"[bold]damaged[/bold]   {escape(str(each))}", highlight=False, soft_wrap=True)
    _print_removed([how for entry in stored if (how := Removed.of(entry))])
    entries: dict[VolumeRef, list[ManifestEntry]] = {}
    for entry in stored:
        entries.setdefault(VolumeRef(entry.resource, entry.index or 0), []).append(entry)
    for name in run:
        _print_stream(run[name], entries)
    _print_beside(run)


def _made_of(start: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    edges = edges_of(start)
    if call := next((edge.call for edge in edges if edge.call), ""):
        yield "made by", call
    for edge in edges:
        yield _KINDS[edge.kind], f"{edge.parent}, {selection_of([edge])}".removesuffix(", ")
    imported = start.get("imported")
    if isinstance(imported, Mapping) and "folder" in imported:
        yield (
            "imported",
            f"{'copied from' if imported.get('copied') else 'linked, not copied, in'} {imported['folder']}",
        )


def _tags(run: Run) -> str:
    try:
        return ", ".join(sorted(run.tags))
    except JournalError as error:
        return str(error)


def _print_removed(ways: Sequence[Removed]) -> None:
    for text, count in Counter(str(how) for how in ways).items():
        out.print(
            f"[bold]removed[/bold]   {counted(count, 'volume')}: {escape(text)}", highlight=False, soft_wrap=True
        )


def _print_beside(run: Run) -> None:
    beside = run.left_beside
    if not beside:
        return
    out.print(f"\n{counted(len(beside), 'volume')} that no event names", highlight=False)
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, show_header=False)
    for each in beside[:_NAMED]:
        came = "?" if each.frames is None else each.frames
        path = f"  {each.path.relative_to(run.home).as_posix()}"
        line = (path, f"volume {each.index}", f"{came} of {counted(each.planes, 'frame')}", each.reason)
        table.add_row(*map(escape, line))
    out.print(table, highlight=False)
    if len(beside) > _NAMED:
        out.print(f"  and {len(beside) - _NAMED} more: --json", highlight=False)


def _print_stream(stream: Stream, entries: Mapping[VolumeRef, Sequence[ManifestEntry]]) -> None:
    out.print(f"\n[bold]{escape(stream.name)}[/bold]  {counted(len(stream), 'event')}", highlight=False)
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, show_header=False)
    for key in stream.image_keys:
        described = stream.data_keys[key]
        shape = " x ".join(map(str, described.get("shape", ())))
        mine = [entry for ref in _volumes(stream, key) for entry in entries.get(ref, ())]
        dtype = np.dtype(described["dtype_numpy"]).name if "dtype_numpy" in described else ""
        forms: dict[str, list[ManifestEntry]] = {}
        for entry in (entry for entry in mine if entry.state != "removed"):
            forms.setdefault(entry.format, []).append(entry)
        there = next(iter(forms.values()), [])
        files = counted(len(there), "volume") if mine or not len(stream) else "not in files of ours"
        first, *further = forms if len(forms) > 1 else [""]
        table.add_row(f"  {escape(key)}", f"{shape} {dtype}", files, _megabytes(there) if mine else "", first)
        for name in further:
            table.add_row("", "", counted(len(forms[name]), "volume"), _megabytes(forms[name]), f"{name}, as well")
    if table.row_count:
        out.print(table, highlight=False)
    scalars = [key for key, entry in stream.data_keys.items() if not entry.get("external")]
    scalars.sort(key=lambda key: key not in IDENTITY_KEYS)
    if scalars:
        more = f" and {len(scalars) - _NAMED} more: --json" if len(scalars) > _NAMED else ""
        values = Padding(f"{', '.join(scalars[:_NAMED])}{more}", (0, 0, 0, 2))
        out.print(values, highlight=False, markup=False)


def counted_volumes(run: Run) -> str:
    """Count the volumes that the events name, and those that are not there any more: "12, 4 not stored"."""
    series = [(run[name], key) for name in run for key in run[name].image_keys]
    named = sum(key in row.volumes or key in row.data for stream, key in series for row in stream.rows)
    gone = named - sum(int(stream.images(key).stored.sum()) for stream, key in series)
    return f"{named}, {gone} not stored" if gone else str(named)


def _volumes(stream: Stream, key: str) -> list[VolumeRef]:
    return [row.volumes[key] for row in stream.rows if key in row.volumes]


def _megabytes(entries: Sequence[ManifestEntry]) -> str:
    return f"{sum(entry.details.get('stored_bytes', entry.bytes) for entry in entries) / 1e6:,.1f} MB"
