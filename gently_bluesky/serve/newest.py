"""`PictureMaker`: the newest pictures of runs, each made once for all who want it in that size.

What is newest replaces what was: nobody gets every picture, and nothing waits for anybody. Knows volumes and
sizes; who looks, and how fast, is the business of others.
"""

import contextlib
import itertools
import logging
import os
import sys
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from gently_bluesky.errors import GentlyError, VolumeMissingError
from gently_bluesky.read.assets import Pixels
from gently_bluesky.serve.coming import Coming, Frame, Projecting
from gently_bluesky.serve.following import Journal
from gently_bluesky.serve.pictures.encoding import jpeg
from gently_bluesky.serve.pictures.scaling import area_mean
from gently_bluesky.serve.pictures.window import Window, as_bytes, window_of
from gently_bluesky.store.formats import MAPPED, map_pixels
from gently_bluesky.store.index import shown_by
from gently_bluesky.store.journal import Pair
from gently_bluesky.store.manifest import ManifestEntry, entries_from
from gently_bluesky.store.streams import VolumeRef
from gently_bluesky.store.strict_json import encode, plain

log = logging.getLogger(__name__)

Show = Literal["projection", "plane"]
SIZES = (128, 256, 384, 512, 768, 1024, 1536, 2048)
"""Longest sides of pictures, in pixels: few, so that many share one."""

_MOST_RUNS = 8
_ENTRIES_KEPT = 256
_SLAB = 8
_NICE = 5
_LOOK_FOR_FRAMES_S = 0.04
_MOST_PROJECTING = 8  # volumes whose maximum is taken while they come
_CLOSING = 0.1  # of the way, a picture


@dataclass(frozen=True, slots=True)
class Want:
    """What somebody wants to see: the series of a run (of any; all of them), projections or planes, how large."""

    run: str | None = None
    series: frozenset[str] = frozenset()
    show: Show = "projection"
    size: int = 512
    rate: float = 5.0


@dataclass(frozen=True, slots=True)
class Key:
    """Of what there is one newest picture."""

    run: str
    series: str
    show: Show

    def fits(self, want: Want) -> bool:
        """Whether somebody wants it."""
        asked = want.run in {None, self.run} and want.show == self.show
        return asked and (not want.series or self.series in want.series)


@dataclass(frozen=True, slots=True)
class Subject:
    """What is newest: its number among all, what is to be said of it, and how its pixels are had."""

    number: int
    about: Mapping[str, Any]
    load: Callable[[], NDArray[Any]]


@dataclass(frozen=True, slots=True)
class Made:
    """A picture as it is sent: a line of JSON, and a JPEG."""

    number: int
    message: bytes


@dataclass(slots=True)
class _Watched:
    """A run that is looked at."""

    journal: Journal
    coming: Coming
    manifest_offset: int = 0
    entries: OrderedDict[VolumeRef, ManifestEntry] = field(default_factory=OrderedDict)
    frames: dict[str, tuple[Path, int]] = field(default_factory=dict)
    projecting: OrderedDict[Path, Projecting] = field(default_factory=OrderedDict)
    has_grown: bool = False

    def entry(self, ref: VolumeRef) -> ManifestEntry | None:
        """Give the manifest's entry of a volume, if it is one of the newest."""
        for offset, entry in entries_from(self.journal.folder, self.manifest_offset):
            self.manifest_offset = offset
            if entry.state == "sealed" and entry.index is not None:
                self.entries[VolumeRef(entry.resource, entry.index)] = entry
                while len(self.entries) > _ENTRIES_KEPT:
                    self.entries.popitem(last=False)
        return self.entries.get(ref)


class PictureMaker:
    """Makes pictures on a thread of its own, of low priority, for as long as somebody wants any.

    Parameters
    ----------
    made
        Called, on that thread, when there is a new picture.
    """

    def __init__(self, made: Callable[[], object]) -> None:
        self._made_one = made
        self._condition = threading.Condition()
        self._watched: OrderedDict[str, _Watched] = OrderedDict()
        self._wants: dict[object, Want] = {}
        self._subjects: dict[Key, Subject] = {}
        self._made: dict[tuple[Key, int], Made] = {}
        self._loaded: dict[Key, tuple[int, NDArray[Any]]] = {}
        self._windows: dict[Key, Window] = {}
        self._number = itertools.count(1)
        self._quit = False
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin."""
        self._quit = False
        self._thread = threading.Thread(target=self._work, name="gently-pictures", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End, and forget everything."""
        with self._condition:
            self._quit = True
            self._condition.notify()
        if self._thread is not None:
            self._thread.join()
        for memory in (self._watched, self._subjects, self._made, self._loaded, self._windows):
            memory.clear()

    def want(self, who: object, want: Want | None) -> None:
        """Note what somebody wants; None: nothing any more."""
        with self._condition:
            if want is None:
                self._wants.pop(who, None)
            else:
                self._wants[who] = want
            sizes = {each.size for each in self._wants.values()}
            self._made = {key: made for key, made in self._made.items() if key[1] in sizes}
            self._condition.notify()

    def newest(self, want: Want) -> dict[Key, Made]:
        """Give the pictures that there are for somebody."""
        with self._condition:
            made = self._made.items()
            return {key: each for (key, size), each in made if size == want.size and key.fits(want)}

    # --- what is newest -------------------------------------------------------------------------------------

    def take(self, journal: Journal, pairs: list[Pair]) -> None:
        """Look through documents that came for volumes."""
        newest: dict[tuple[str, str], Any] = {}
        for name, doc in pairs:
            if name == "event":
                stream = journal.table.stream_of(doc["descriptor"])
                row = stream.event(doc["uid"])
                newest |= {(stream.name, key): (stream, row, ref) for key, ref in row.volumes.items()}
        with self._condition:
            watched = self._watched.setdefault(journal.uid, _Watched(journal, Coming(journal.folder)))
            self._watched.move_to_end(journal.uid)
            for key, (stream, row, ref) in ((key, found) for (_, key), found in newest.items()):
                view = stream.data_keys.get(key, {}).get("view")
                position = [each.seq_num for each in stream.rows()].index(row.seq_num)
                about = {"stream": stream.name, "event": position, "seq_num": row.seq_num, "time": row.time}
                self._volume(watched, key, ref, about | shown_by(row, journal.start) | {"view": view})
            while len(self._watched) > _MOST_RUNS:
                self._forget(self._watched.popitem(last=False)[0])
            self._condition.notify()

    def _forget(self, run: str) -> None:
        self._subjects = {key: subject for key, subject in self._subjects.items() if key.run != run}
        self._made = {key: made for key, made in self._made.items() if key[0].run != run}
        self._loaded = {key: loaded for key, loaded in self._loaded.items() if key.run != run}
        self._windows = {key: window for key, window in self._windows.items() if key.run != run}

    def _volume(self, watched: _Watched, series: str, ref: VolumeRef, about: dict[str, Any]) -> None:
        def load(show: Show) -> NDArray[Any]:
            entry = watched.entry(ref)
            if entry is None:
                raise VolumeMissingError(f"volume {ref.index} of {ref.resource} is in no file of this run")
            begun = watched.projecting.pop(watched.journal.folder / entry.path, None)
            if show == "projection" and begun is not None and (whole := begun.whole()) is not None:
                return whole
            planes = _planes(watched.journal.folder, entry)
            return _maximum(planes) if show == "projection" else np.array(planes[len(planes) // 2])

        run = watched.journal.uid
        self._subjects[Key(run, series, "projection")] = Subject(
            next(self._number), about | {"kind": "projection"}, lambda: load("projection")
        )
        if series not in watched.frames:  # its frames were not seen while they came
            self._subjects[Key(run, series, "plane")] = Subject(
                next(self._number), about | {"kind": "plane"}, lambda: load("plane")
            )

    def _grow(self) -> None:
        for watched in list(self._watched.values()):
            if watched.has_grown:
                continue
            watched.has_grown = watched.journal.is_over
            if watched.has_grown and not watched.frames:  # nobody looked while it was taken
                continue
            try:
                self._look_for_frames(watched)
            except Exception:  # whatever is in its files, other runs have theirs
                log.exception("frames of run %s are not shown as they come", watched.journal.uid)
                watched.has_grown = True

    def _look_for_frames(self, watched: _Watched) -> None:
        for frame in watched.coming.frames():
            series, now = frame.found.data_key or "", (frame.path, frame.came)
            if watched.frames.get(series) != now:
                watched.frames[series] = now
                self._frame_came(watched, series, frame)

    def _frame_came(self, watched: _Watched, series: str, frame: Frame) -> None:
        if any(want.show == "projection" for want in list(self._wants.values())):
            begun = watched.projecting.setdefault(frame.path, Projecting(frame.path, frame.found))
            while len(watched.projecting) > _MOST_PROJECTING:
                watched.projecting.popitem(last=False)
            with contextlib.suppress(OSError, ValueError):  # whoever wants it whole hears of it
                begun.go_on()
        about: dict[str, Any] = {"kind": "frame", "plane": frame.plane, "frames_came": frame.came}
        about |= {"frames": frame.found.geometry.planes, "view": frame.found.metadata.get("view")}
        with self._condition:
            key = Key(watched.journal.uid, series, "plane")
            self._subjects[key] = Subject(next(self._number), about, frame.pixels)

    # --- pictures -------------------------------------------------------------------------------------------

    def _work(self) -> None:
        if sys.platform == "linux":  # elsewhere it would be the whole process, or there is no such call
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICE)  # what acquires goes first
        while True:
            with self._condition:
                growing = self._wants and not all(watched.has_grown for watched in self._watched.values())
                if not self._quit and next(self._missing(), None) is None:
                    self._condition.wait(_LOOK_FOR_FRAMES_S if growing else None)
                if self._quit:
                    return
            if growing:
                self._grow()
            with self._condition:
                missing = next(self._missing(), None)
            if missing is not None:
                self._make(*missing)

    def _missing(self) -> Iterator[tuple[Key, Subject, int]]:
        """Give what is to be made, the oldest first."""
        for key, subject in sorted(self._subjects.items(), key=lambda item: item[1].number):
            for size in sorted({want.size for want in self._wants.values() if key.fits(want)}):
                made = self._made.get((key, size))
                if made is None or made.number < subject.number:
                    yield key, subject, size

    def _make(self, key: Key, subject: Subject, size: int) -> None:
        try:
            message = self._picture(key, subject, size)
        except Exception as error:  # noqa: BLE001 - one volume that is no picture is no end of pictures
            gone = isinstance(error, GentlyError | OSError)  # retention took it
            log.log(logging.DEBUG if gone else logging.WARNING, "no picture of %s: %r", key, error)
            with self._condition:
                if self._subjects.get(key) is subject:
                    del self._subjects[key]
            return
        with self._condition:
            self._made[key, size] = Made(subject.number, message)
        self._made_one()

    def _picture(self, key: Key, subject: Subject, size: int) -> bytes:
        number, pixels = self._loaded.get(key, (0, None))
        if pixels is None or number != subject.number:
            pixels = subject.load()
            self._loaded[key] = subject.number, pixels
        small = area_mean(pixels, size)
        window = self._calm(key, window_of(small))
        about = {"run": key.run, "series": key.series, **subject.about, "number": subject.number}
        about |= {"shape": list(pixels.shape), "window": [round(bound, 1) for bound in window]}
        return encode(plain(about)) + b"\n" + jpeg(as_bytes(small, window))

    def _calm(self, key: Key, now: Window) -> Window:
        """Give a window that opens at once and closes slowly: a picture does not flicker from frame to frame."""
        before = self._windows.get(key, now)
        low = min(now.low, before.low + (now.low - before.low) * _CLOSING)
        high = max(now.high, before.high + (now.high - before.high) * _CLOSING)
        self._windows[key] = Window(low, high)
        return self._windows[key]


def _planes(folder: Path, entry: ManifestEntry) -> Pixels:
    path = folder / entry.path
    if not path.resolve().is_relative_to(folder.resolve()):
        raise VolumeMissingError(f"{path} is a link out of the run's folder")
    if entry.format in MAPPED:
        array = map_pixels(path, entry)
        return array.reshape(-1, *array.shape[-2:])
    from gently_bluesky.store.zarr_pixels import ZarrPixels  # noqa: PLC0415 - codecs that only Zarr needs

    pixels = ZarrPixels(path, entry.index or 0)
    return pixels if len(pixels.shape) == 3 else np.asarray(pixels[...]).reshape(-1, *pixels.shape[-2:])


def _maximum(planes: Pixels) -> NDArray[Any]:
    out = np.array(planes[0])
    for first in range(0, len(planes), _SLAB):
        for plane in np.asarray(planes[first : first + _SLAB]):
            np.maximum(out, plane, out=out)
    return out
