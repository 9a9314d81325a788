"""OME-TIFF, a file a volume, as it is written while data are taken: voxel size, channel, positions, frame times.

Each file says of which run, stream resource and event it is, so that an import finds its way back.
"""

import contextlib
import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import DTypeLike

from gently_bluesky.errors import ExportError, GentlyError
from gently_bluesky.exchange.export_names import names_of
from gently_bluesky.exchange.export_pixels import Outgoing, pixels_of
from gently_bluesky.exchange.export_target import Progress, staged
from gently_bluesky.exchange.selection import Selected, Selection
from gently_bluesky.store.facts import Found, Geometry, VolumeFacts
from gently_bluesky.store.formats import examine
from gently_bluesky.store.ome_tiff import OmeTiffFile
from gently_bluesky.store.ome_xml import PIXEL_TYPES, can_describe
from gently_bluesky.store.streams import VolumeRef
from gently_bluesky.write.inline import frame_times_of, metadata_of
from gently_bluesky.write.recorder import event_facts, start_facts

_BYTES_A_PLANE = 2048  # its directory and, three times, its line of the OME-XML


def ome_tiff(
    selection: Selection, into: Path | str, *, dtype: DTypeLike | None = None, progress: Progress | None = None
) -> tuple[Path, ...]:
    """Write each volume into an OME-TIFF of its own. Memory holds a plane at a time.

    Parameters
    ----------
    selection
        What is to be exported.
    into
        The folder for the files.
    dtype
        That the pixels are to have; as they are, if not given. No value may change.
    progress
        Told of bytes.

    Returns
    -------
    tuple of Path
        The files, by embryo and timepoint.

    Raises
    ------
    NothingSelectedError
        There are no volumes.
    ExportError
        OME-TIFF has no such dtype.
    LossyCastError, VolumeMissingError, TargetExistsError, DiskFullError
        As they say.
    """
    volumes = pixels_of(selection, dtype)
    for pixels in volumes:
        if not can_describe(_geometry(pixels)):
            known = ", ".join(sorted(np.dtype(name).name for name in PIXEL_TYPES))
            raise ExportError(f"OME-TIFF has {known}; {pixels.volume} is {pixels.dtype}. Choose one as the dtype.")
    names = [f"{name}.ome.tif" for name in names_of([[pixels.volume] for pixels in volumes])]
    nbytes = sum(pixels.nbytes for pixels in volumes)
    room = nbytes + _BYTES_A_PLANE * sum(pixels.shape[0] for pixels in volumes)
    with (
        staged(into, names, nbytes, room=room, progress=progress) as staging,
        ThreadPoolExecutor(1, "gently-export") as pool,
    ):
        for pixels, name in zip(volumes, names, strict=True):
            volume, geometry = pixels.volume, _geometry(pixels)
            found = _found(volume)
            times = _times(volume, found, geometry.planes)
            file = OmeTiffFile(staging.folder / name, geometry, _facts(volume, found, geometry.planes))
            with contextlib.closing(file):
                for z, plane in enumerate(pixels.planes()):
                    data = np.ascontiguousarray(plane, geometry.dtype)
                    file.write(z, data.data.cast("B"), times[z], pool)
                    staging.wrote(data.nbytes)
            row = volume.stream.rows[volume.event]
            event = (
                None
                if row.uid is None
                else event_facts({"uid": row.uid, "seq_num": row.seq_num, "time": row.time, "data": row.data})
            )
            file.complete(times, event, durable=False)
    return staging.paths


def _geometry(pixels: Outgoing) -> Geometry:
    return Geometry(pixels.shape, pixels.dtype.newbyteorder("<"))


def _found(volume: Selected) -> Found | None:
    """Give what the stored form says of a volume; None where it is not one of ours."""
    with contextlib.suppress(GentlyError, ValueError, OSError):
        source = volume.images.source(volume.event)
        return examine(Path(source.path), source.index)
    return None


def _facts(volume: Selected, found: Found | None, planes: int) -> VolumeFacts:
    row, key = volume.stream.rows[volume.event], volume.shows.data_key
    entry = next(doc["data_keys"][key] for doc in volume.stream.descriptors if doc["uid"] == row.descriptor)
    ref = row.volumes.get(key) or VolumeRef(row.uid or "", 0)
    return VolumeFacts(
        run_uid=volume.run.uid,
        resource_uid=ref.resource,
        data_key=key,
        index=ref.index,
        run=start_facts(volume.run.start),
        metadata=metadata_of(entry, planes, {"data": row.data}, found),
    )


def _times(volume: Selected, found: Found | None, planes: int) -> Sequence[float]:
    """Give when each plane was taken; nan where that is not known."""
    if found is not None and found.times is not None:
        return [time or math.nan for time in found.times]
    row, measured = volume.stream.rows[volume.event], volume.shows.time
    if measured is None:
        return [math.nan] * planes
    event = {"data": row.data, "timestamps": row.timestamps, "time": measured}
    times = frame_times_of(volume.shows.data_key, planes, event)
    return [math.nan if time is None else time for time in times]
