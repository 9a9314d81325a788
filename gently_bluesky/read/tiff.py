"""TIFFs of others: what they say of themselves, whether all of it is there, and their pixels.

A file that was cut short opens all the same, with fewer planes, and tifffile only logs it: here it is an error.
"""

import contextlib
import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gently_bluesky.read.tiff_pixels import TiffPixels, pages_of, volume_in


@dataclass(frozen=True, slots=True)
class TiffFacts:
    """Of the volume of a TIFF: its first series, or one of planes that were written one by one.

    Attributes
    ----------
    shape, dtype
        As it is read; numpy's spelling.
    axes
        A letter an axis, as tifffile has them: T, C, Z, Y, X, S; Q and I where the file does not say.
    series
        How many there are; the planes of one volume are one.
    ome_xml
        "" if there is none.
    imagej
        ImageJ's metadata; {} if there are none.
    pixels_per_unit
        Along (y, x), as the resolution of the first page has it.
    """

    shape: tuple[int, ...]
    dtype: str
    axes: str
    series: int
    ome_xml: str
    imagej: Mapping[str, Any]
    pixels_per_unit: tuple[float, float] | None


def read_tiff(path: Path) -> NDArray[Any] | TiffPixels:
    """Give the pixels of a TIFF's volume: mapped where they lie plainly, decoded plane by plane else.

    Raises
    ------
    OSError
        It is not there.
    ValueError
        It is damaged, or needs a package that is not here to be decoded.
    """
    import tifffile  # noqa: PLC0415 - 0.1 s that only foreign files need

    mapped = None
    with contextlib.suppress(ValueError):  # compressed, tiled or in pieces
        mapped = tifffile.memmap(path, mode="r")
    if mapped is not None and mapped.ndim > 2:  # else it may be the first of planes that were written one by one
        return mapped
    with _volume(path) as (_, series):
        if mapped is not None and mapped.shape == series.shape:
            return mapped
        pixels = pages_of(path, series)
        return np.asarray(series.asarray()) if pixels is None else pixels


def look_at_tiff(path: Path) -> TiffFacts:
    """Read what a TIFF says of itself; no pixel is decoded.

    Raises
    ------
    ValueError
        It is no TIFF, was cut short, or needs a package that is not here to be decoded.
    """
    with _volume(path) as (file, series):
        mapped = series.dataoffset is not None  # else it is decoded, into numbers of this machine
        dtype = series.dtype.newbyteorder(file.byteorder if mapped else "<").str
        count = len(file.series) if series in file.series else 1
        shape, axes, imagej = series.shape, series.axes, file.imagej_metadata or {}
        xml = file.ome_metadata or ""
        return TiffFacts(shape, dtype, axes, count, xml, imagej, _resolution(series.keyframe))


def _resolution(page: Any) -> tuple[float, float] | None:
    found = [page.tags.valueof(f"{axis}Resolution") for axis in "YX"]
    if not all(isinstance(each, tuple) and len(each) == 2 and 0 not in each for each in found):
        return None
    y, x = (over / under for over, under in found)
    return y, x


@contextlib.contextmanager
def _volume(path: Path) -> Iterator[tuple[Any, Any]]:
    """Open a TIFF of which all is there and can be decoded here; whatever is wrong with it is a ValueError."""
    import tifffile  # noqa: PLC0415 - 0.1 s that others need not spend

    try:
        with _complaints() as complaints, tifffile.TiffFile(path) as file:
            series = volume_in(file)
            _hold_whole(series, path.stat().st_size, complaints)
            for table, code in (
                (tifffile.TIFF.DECOMPRESSORS, series.keyframe.compression),
                (tifffile.TIFF.UNPREDICTORS, series.keyframe.predictor),
            ):
                table[code]
            yield file, series
    except KeyError as error:
        raise ValueError(f"{error.args[0]}: pip install imagecodecs") from error
    except (OSError, ValueError):
        raise
    except Exception as error:  # a damaged file may be anything, and what decodes has errors of its own
        raise ValueError(f"it is no TIFF, or a damaged one: {error!s:.200}") from error


def _hold_whole(series: Any, size: int, complaints: list[str]) -> None:
    if complaints:
        raise ValueError(f"it was cut short, or is damaged: {complaints[0]:.200}")
    if series.is_multifile:
        raise ValueError("its pixels are spread over several files")
    if series.dataoffset is not None:
        end = series.dataoffset + series.nbytes
    else:
        pages = list(series.pages)
        if None in pages or any(0 in page.databytecounts for page in pages):
            raise ValueError("some of its planes were never written")
        end = max(
            offset + count
            for page in pages
            for offset, count in zip(page.dataoffsets, page.databytecounts, strict=True)
        )
    if not 0 < end <= size:
        raise ValueError(f"it was cut short: its pixels reach to byte {end:,}, and it has {size:,}")


@contextlib.contextmanager
def _complaints() -> Iterator[list[str]]:
    """Give what tifffile logs as errors, in place of a log: a damaged directory is no exception there."""
    found: list[str] = []

    class _Listener(logging.Filter):
        def filter(self, record: logging.LogRecord) -> bool:
            text = record.getMessage()
            if record.levelno >= logging.ERROR and "series raised" not in text:  # that is only odd metadata
                found.append(text)
            return False

    listener, logger = _Listener(), logging.getLogger("tifffile")
    logger.addFilter(listener)
    try:
        yield found
    finally:
        logger.removeFilter(listener)
