"""TIFF by suitcase-tiff: a stack a volume, or a file a plane.

The library writes what documents hold, and needs to be kept from what it does in silence: it casts to uint16,
passes over what has not two or three axes, runs all planes of a stream into one file, fails above 4 GB when it
has written them, and keeps every file of a series open until the end. So it is given filled documents of one
volume at a time, an event a plane, the dtype that the pixels have, BigTIFF, and a few planes of a series at once.
"""

import contextlib
import importlib
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from numpy.typing import DTypeLike, NDArray

from gently_bluesky.errors import ExportError, MissingExtraError
from gently_bluesky.exchange.export_names import names_of
from gently_bluesky.exchange.export_pixels import Outgoing, pixels_of
from gently_bluesky.exchange.export_target import Progress, Staging, staged
from gently_bluesky.exchange.selection import Selection
from gently_bluesky.store.layout import slug
from gently_bluesky.store.streams import Doc

_OPEN_FILES = 64
_FIELD = "image"
_IFD_BYTES = 512


def tiff_stack(
    selection: Selection, into: Path | str, *, dtype: DTypeLike | None = None, progress: Progress | None = None
) -> tuple[Path, ...]:
    """Write each volume into a TIFF of its own, a page a plane.

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
    ExportError
        NothingSelectedError, LossyCastError; a fly scan has no events that could be filled.
    VolumeMissingError, TargetExistsError, DiskFullError
        As they say.
    """
    serializers = _suitcase("tiff_stack")
    volumes = _volumes(selection, dtype)
    names = [f"{name}.tif" for name in names_of([[pixels.volume] for pixels in volumes])]
    with _staged(into, names, volumes, progress) as staging:
        for pixels, name in zip(volumes, names, strict=True):
            (made,) = _export(serializers, pixels, pixels.shape[0], staging)
            made.rename(staging.folder / name)
    return staging.paths


def tiff_series(
    selection: Selection, into: Path | str, *, dtype: DTypeLike | None = None, progress: Progress | None = None
) -> tuple[Path, ...]:
    """Write each volume into a folder of its own, a TIFF a plane; see `tiff_stack`.

    Returns
    -------
    tuple of Path
        The folders, by embryo and timepoint.
    """
    serializers = _suitcase("tiff_series")
    volumes = _volumes(selection, dtype)
    names = names_of([[pixels.volume] for pixels in volumes])
    with _staged(into, names, volumes, progress) as staging:
        for pixels, name in zip(volumes, names, strict=True):
            (staging.folder / name).mkdir()
            for z, made in enumerate(_export(serializers, pixels, _OPEN_FILES, staging)):
                made.rename(staging.folder / name / f"{name}_z{z:04d}.tif")
    return staging.paths


def _suitcase(name: str) -> Any:
    try:
        return importlib.import_module(f"suitcase.{name}")
    except ImportError as error:
        raise MissingExtraError(
            f"This format is written by suitcase-tiff, and {error.name} is not installed: "
            "pip install 'gently_bluesky[export]'."
        ) from error


def _volumes(selection: Selection, dtype: DTypeLike | None) -> list[Outgoing]:
    volumes = pixels_of(selection, dtype)
    without = next(
        (each.volume for each in volumes if each.volume.stream.rows[each.volume.event].uid is None), None
    )
    if without is not None:
        raise ExportError(
            f"suitcase-tiff takes events, and {without} has none (a fly scan). Choose another format."
        )
    return volumes


def _staged(
    into: Path | str, names: Sequence[str], volumes: Sequence[Outgoing], progress: Progress | None
) -> contextlib.AbstractContextManager[Staging]:
    nbytes = sum(pixels.nbytes for pixels in volumes)
    planes = sum(pixels.shape[0] for pixels in volumes)
    return staged(into, names, nbytes, room=nbytes + _IFD_BYTES * planes, progress=progress)


def _export(suitcase: Any, pixels: Outgoing, at_once: int, staging: Staging) -> Iterator[Path]:
    """Let the library write one volume, so many planes at a time; give its files, to be renamed as they come."""
    planes = pixels.planes()
    for _ in range(0, pixels.shape[0], at_once):
        with suitcase.Serializer(staging.folder, "", astype=pixels.dtype, bigtiff=True) as serializer:
            serializer("start", pixels.volume.run.start)
            serializer("descriptor", _descriptor(pixels))
            for plane in islice(planes, at_once):
                serializer("event", _event(pixels, plane))
                staging.wrote(plane.nbytes)
        yield from map(Path, serializer.artifacts["stream_data"])


def _descriptor(pixels: Outgoing) -> Doc:
    volume = pixels.volume
    of_row = volume.stream.rows[volume.event].descriptor
    doc = next(doc for doc in volume.stream.descriptors if doc["uid"] == of_row)
    said = {
        key: value for key, value in volume.stream.data_keys[volume.shows.data_key].items() if key != "external"
    }
    plane = said | {"dtype": "array", "shape": list(pixels.shape[1:]), "dtype_numpy": pixels.dtype.str}
    return {**doc, "name": slug(volume.stream.name), "data_keys": {_FIELD: plane}}  # names of files come of these


def _event(pixels: Outgoing, plane: NDArray[Any]) -> Doc:
    row = pixels.volume.stream.rows[pixels.volume.event]
    values = {"data": {_FIELD: plane}, "timestamps": {_FIELD: row.time}, "filled": {}}
    return {"uid": row.uid, "time": row.time, "seq_num": row.seq_num, "descriptor": row.descriptor, **values}
