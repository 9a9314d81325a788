"""What napari shows of a run: the reader that `napari.yaml`, beside this module, announces.

Makes layers of what is read, lazy arrays and words for them; imports neither napari nor Qt. Of a run whole events
are shown, good and stored in all their views, so that layers of one stream and channel go through the same events
side by side. What is left out, and why, is in the metadata of each layer.
"""

import contextlib
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from gently_bluesky.errors import GentlyError, GeometryError, RunNotFoundError, VolumeMissingError
from gently_bluesky.read.catalog import Catalog
from gently_bluesky.read.folder import FolderOrigin
from gently_bluesky.read.images import ImageSeries
from gently_bluesky.read.run import Run, Stream
from gently_bluesky.store.layout import JOURNAL, ROOT_MARK, open_root
from gently_bluesky.store.manifest import read_entries
from gently_bluesky.store.streams import VolumeRef, is_good

LayerData = tuple[Any, dict[str, Any], str]
"""As napari takes it: an array, or one for each level; keywords; the kind of layer."""

_COLORMAPS = ("green", "magenta", "cyan", "yellow", "red", "blue")
_PERCENTILES = (1.0, 99.9)
_EVERY = 4  # rows and columns of a plane that its percentiles are taken of


def get_reader(path: str | Path | Sequence[str]) -> Callable[[str], list[LayerData]] | None:
    """Give what reads a path; None, if it is no root, no run folder and nothing in one. The command of npe2."""
    if not isinstance(path, str | Path):  # several, to be stacked
        return None
    ours = (Path(path) / ROOT_MARK).exists() or _run_folder(Path(path)) is not None
    return read_layers if ours else None


def read_layers(path: str | Path) -> list[LayerData]:
    """Give a run as layers of napari: one for each data key, channel and voxel size.

    Parameters
    ----------
    path
        A run folder; or a root, for its newest run with images; or what lies in a run folder, a volume
        (``000000.ome.tif``) or a folder of them, for these volumes alone, good or not.

    Returns
    -------
    list of (data, keywords, "image")
        data: lazy (event, z, y, x), of single frames (event, 1, y, x); a list of them where volumes have levels.
        Scale: 1 an event, and voxels in micrometers where the documents say them. ``keywords["metadata"]``: the
        run's uid and folder, stream, data key, view, channel; of each event in the layer its position in the
        stream (from 0), seq_num, time, embryo, timepoint and whether it is good; ``left_out``: why others are not
        in it, by position.

    Raises
    ------
    RunNotFoundError
        There is no run.
    VolumeMissingError
        There is no volume that can be shown; the message says why.

    Warns
    -----
    UserWarning
        A data key cannot be shown, others can.
    """
    run, wanted = _opened(Path(path).absolute())
    parts = [part for name in run for part in _parts_of(run, run[name], wanted)]
    lights = list(dict.fromkeys(part.light for part in parts))
    layers, errors = [], []
    for part in parts:
        colormap = _COLORMAPS[lights.index(part.light) % len(_COLORMAPS)] if len(lights) > 1 else "gray"
        try:
            layers.append(part.layer(run, colormap))
        except GentlyError as error:
            errors.append(str(error))
    if not layers:
        missing = "no event is good and stored" if wanted is None else "no event names what lies there"
        why = errors or [f"{run[name]!r}: {missing}." for name in run if run[name].image_keys]
        raise VolumeMissingError(f"{path}: no volume can be shown. {' '.join(why) or 'The run has no images.'}")
    for said in errors:
        warnings.warn(said, stacklevel=2)
    return layers


# --- which volumes ------------------------------------------------------------------------------------------


def _run_folder(path: Path) -> Path | None:
    return next((folder for folder in (path, *path.parents[:2]) if (folder / JOURNAL).is_file()), None)


def _opened(path: Path) -> tuple[Run, set[VolumeRef] | None]:
    """Give the run, and the volumes that are asked for; None: all."""
    if (path / ROOT_MARK).exists():
        return _newest_with_images(Catalog(path)), None
    folder = _run_folder(path)
    if folder is None:
        raise RunNotFoundError(f"{path} is no root, no run folder and nothing in one.")
    root = next((above for above in folder.parents if (above / ROOT_MARK).exists()), None)
    uri = open_root(root)[1] if root else ""
    run = Run(FolderOrigin(root or folder.parent, folder, recorded_uri=uri))
    if path == folder:
        return run, None
    inside = path.relative_to(folder).as_posix()
    entries = read_entries(folder, pass_over=lambda _: None)
    there = [entry for entry in entries if PurePosixPath(entry.path).is_relative_to(inside)]
    return run, {VolumeRef(entry.resource, entry.index) for entry in there if entry.index is not None}


def _newest_with_images(catalog: Catalog) -> Run:
    """Give the newest run that has images, or the newest of all, which can say that it has none."""
    for run in catalog:
        with contextlib.suppress(GentlyError):  # a damaged run shows nothing
            if any(run[name].images(key).stored.any() for name in run for key in run[name].image_keys):
                return run
    return catalog[-1]


def _parts_of(run: Run, stream: Stream, wanted: set[VolumeRef] | None) -> Iterator["_Part"]:
    series = {key: stream.images(key) for key in stream.image_keys}
    left_out = _left_out(stream, series) if wanted is None else {}
    for key, images in series.items():
        if not images.stored.any():
            continue
        groups: dict[tuple[str | None, tuple[float, ...] | None], list[int]] = {}
        channel_key = stream.data_keys[key].get("channel", "channel")
        for event, row in enumerate(stream.rows):
            if event not in left_out and (wanted is None or row.volumes.get(key) in wanted):
                said = row.data.get(channel_key, run.start.get("channel"))
                alike = str(said) if said else None, images.voxel_size_um_of(event)
                groups.setdefault(alike, []).append(event)
        for (channel, _), events in groups.items():
            chosen = images.only(events) if wanted is None else images.including_bad.only(events)
            yield _Part(stream, key, chosen, channel, events, left_out)


def _left_out(stream: Stream, series: Mapping[str, ImageSeries]) -> dict[int, str]:
    """Give the events that are not shown, by position, and why: one view without the other is out of step."""
    stored = {key: there for key, images in series.items() if (there := images.stored).any()}
    why = {}
    for event, row in enumerate(stream.rows):
        gone = [key for key, there in stored.items() if not there[event]]
        if not is_good(row.data):
            why[event] = "not good"
        elif gone:
            why[event] = f"not stored: {', '.join(gone)}"
    return why


# --- layers -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Part:
    """Events of a data key that have one channel and one voxel size, by position in their stream."""

    stream: Stream
    key: str
    images: ImageSeries
    channel: str | None
    events: list[int]
    left_out: dict[int, str]

    @property
    def view(self) -> Any:
        return self.stream.data_keys[self.key].get("view")

    @property
    def light(self) -> tuple[Any, Any]:
        """What has a colour of its own."""
        return (self.view, self.channel) if self.view or self.channel else (self.key, None)

    def layer(self, run: Run, colormap: str) -> LayerData:
        images = self.images
        if images.ndim < 3 or images.dtype.kind not in "biuf":
            raise GeometryError(f"{images!r} holds {images.shape} {images.dtype}: no images of real numbers.")
        dims = images.dims if images.ndim > 3 else ("event", "z", *images.dims[1:])
        levels = [level.to_dask(chunk_bytes=0) for level in images.levels]  # napari reads whole chunks
        if images.ndim == 3:
            levels = [level[:, np.newaxis] for level in levels]
        voxel = (images.voxel_size_um or ())[1 - len(dims) :]
        known = {"units": ["pixel"] * (len(dims) - 3) + ["um"] * 3} if voxel else {}
        view = [] if self.view is None else [f"view {self.view}"]
        channel = [] if self.channel is None else [self.channel]
        stream = "" if self.stream.name == "primary" else f"{self.stream.name}: "
        keywords = {
            "name": stream + ", ".join([self.key, *view, *channel]),
            "scale": [1.0] * (len(dims) - len(voxel)) + list(voxel),
            "axis_labels": list(dims),
            "multiscale": len(levels) > 1,
            "colormap": colormap,
            "blending": "additive",
            "contrast_limits": _contrast(images),
            "metadata": self._metadata(run),
        }
        return levels if len(levels) > 1 else levels[0], keywords | known, "image"

    def _metadata(self, run: Run) -> dict[str, Any]:
        rows = [self.stream.rows[event] for event in self.events]
        return {
            "run_uid": run.uid,
            "folder": str(run.folder),
            "stream": self.stream.name,
            "data_key": self.key,
            "view": self.view,
            "channel": self.channel,
            "event": self.events,
            "seq_num": [row.seq_num for row in rows],
            "time": [row.time for row in rows],
            **{key: [row.data.get(key, run.start.get(key)) for row in rows] for key in ("embryo", "timepoint")},
            "good": [is_good(row.data) for row in rows],
            "left_out": self.left_out,
        }


def _contrast(images: ImageSeries) -> list[float]:
    """Give contrast limits, from percentiles of one plane: the middle one of the event in the middle."""
    plane = images[tuple(size // 2 for size in images.shape[:-2])][::_EVERY, ::_EVERY]
    finite = plane[np.isfinite(plane)].astype(float)
    low, high = np.percentile(finite, _PERCENTILES) if finite.size else (0.0, 1.0)
    return [float(low), float(high if high > low else low + 1)]
