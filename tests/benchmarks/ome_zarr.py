"""Frames into OME-Zarr against the same frames through acquire-zarr and ome-writers.

All sides write the same chunks and shards in lz4 with bitshuffle (ome-writers with the shuffle by bytes that it
offers, with the same codec), and end when everything is on disk. Ours besides hashes, checksums every chunk and
writes documents.
"""

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
from numpy.typing import NDArray

from gently_bluesky import FileWriter
from gently_bluesky.store import ome_zarr
from gently_bluesky.store.disk import sync_tree
from gently_bluesky.store.pyramid import Level
from gently_bluesky.store.shards import Grid
from tests.benchmarks.detector import PIXELS
from tests.benchmarks.pairs import Row, Target, in_turns
from tests.benchmarks.runs import emptied, start_document, stop_document

Frames = Sequence[NDArray[Any]]

TIME, BYTES = "durable", "bytes"


def camera_noise(side: int) -> Frames:
    """Give eight frames as a camera of a light sheet sees an embryo: shot noise on an offset, a bright middle."""
    random = np.random.default_rng(1)
    rows, columns = np.mgrid[:side, :side] / side - 0.5
    light = 12 + 150 * np.exp(-(rows**2 + columns**2) * 60)
    return [(100 + random.poisson(light)).astype(PIXELS) for _ in range(8)]


def ours(folder: Path, frames: Frames, planes: int, *, pyramid: bool) -> Mapping[str, float]:
    """Write one volume of a run, opened and closed by documents."""
    levels = contextlib.nullcontext() if pyramid else mock.patch.object(ome_zarr, "levels_of", one_level)
    with emptied(folder), levels, FileWriter(folder, image_format="ome-zarr") as writer:
        start = start_document()
        writer("start", start)
        writer.flush()
        begun = time.perf_counter()
        target = writer.open_resource("spim_a", shape=(planes, *frames[0].shape), dtype=PIXELS)
        volume = target.new_volume()
        for plane in range(planes):
            volume.write(plane, frames[plane % len(frames)], time=0.0)
        volume.seal()
        writer.flush()
        durable = time.perf_counter()
        writer("stop", stop_document(start))
        return {TIME: durable - begun, BYTES: _bytes(folder)}


def one_level(shape: tuple[int, int, int], dtype: object, voxel: object = ()) -> list[Level]:
    """Give no level but the volume itself."""
    return [Level(shape, (1, 1, 1))]


def acquire_zarr(folder: Path, frames: Frames, planes: int, *, pyramid: bool) -> Mapping[str, float]:
    """Write the same array with acquire-zarr."""
    import acquire_zarr as aqz

    grid = Grid.of(planes, frames[0].shape, PIXELS)
    space = aqz.DimensionType.SPACE
    dimensions = [
        aqz.Dimension(name="t", kind=aqz.DimensionType.TIME, array_size_px=0, chunk_size_px=1, shard_size_chunks=1)
    ]
    for name, size, chunk, chunks in zip("zyx", (planes, *frames[0].shape), grid.chunk, grid.chunks, strict=True):
        dimensions.append(
            aqz.Dimension(name=name, kind=space, array_size_px=size, chunk_size_px=chunk, shard_size_chunks=chunks)
        )
    packing = aqz.CompressionSettings(
        compressor=aqz.Compressor.BLOSC1, codec=aqz.CompressionCodec.BLOSC_LZ4, level=1, shuffle=2
    )
    array = aqz.ArraySettings(
        dimensions=dimensions,
        data_type=aqz.DataType.UINT16,
        compression=packing,
        downsampling_method=aqz.DownsamplingMethod.MEAN if pyramid else None,
    )
    with emptied(folder):
        folder.mkdir()
        settings = aqz.StreamSettings(store_path=str(folder / "a.zarr"), overwrite=True, arrays=[array])
        begun = time.perf_counter()
        stream = aqz.ZarrStream(settings)
        for plane in range(planes):
            stream.append(frames[plane % len(frames)])
        stream.close()
        sync_tree(folder)
        return {TIME: time.perf_counter() - begun, BYTES: _bytes(folder)}


def ome_writers(folder: Path, frames: Frames, planes: int) -> Mapping[str, float]:
    """Write the same array with ome-writers, on the backend that it chooses."""
    import ome_writers as omew

    grid = Grid.of(planes, frames[0].shape, PIXELS)
    space = [
        omew.Dimension(name=name, type="space", count=size, chunk_size=chunk, shard_size_chunks=chunks)
        for name, size, chunk, chunks in zip(
            "zyx", (planes, *frames[0].shape), grid.chunk, grid.chunks, strict=True
        )
    ]
    settings = omew.AcquisitionSettings(
        root_path=str(folder / "a.ome.zarr"),
        dimensions=(omew.Dimension(name="t", type="time", count=1, chunk_size=1), *space),
        dtype="uint16",
        format=omew.OmeZarrFormat(),
        compression="blosc-lz4",
    )
    with emptied(folder):
        folder.mkdir()
        begun = time.perf_counter()
        with omew.create_stream(settings) as stream:
            for plane in range(planes):
                stream.append(frames[plane % len(frames)])
        sync_tree(folder)
        return {TIME: time.perf_counter() - begun, BYTES: _bytes(folder)}


def _bytes(folder: Path) -> float:
    return float(sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()))


def measure(folder: Path, *, tiny: bool) -> Iterator[Row]:
    """Give speed relative to each peer, and what the pyramid costs."""
    planes, side, rounds = (9, 64, 1) if tiny else (96, 2048, 5)
    frames = camera_noise(side)
    sides: dict[str, Callable[[], Mapping[str, float]]] = {
        "ours": lambda: ours(folder / "ours", frames, planes, pyramid=True),
        "ours, one level": lambda: ours(folder / "flat", frames, planes, pyramid=False),
        "acquire-zarr": lambda: acquire_zarr(folder / "acquire", frames, planes, pyramid=True),
        "acquire-zarr, one level": lambda: acquire_zarr(folder / "level", frames, planes, pyramid=False),
        "ome-writers, one level": lambda: ome_writers(folder / "writers", frames, planes),
    }
    measured = in_turns(sides, rounds=rounds, warm_bytes=planes * frames[0].nbytes)
    for mine, peer in (
        ("ours", "acquire-zarr"),
        ("ours, one level", "acquire-zarr, one level"),
        ("ours, one level", "ome-writers, one level"),
    ):
        figure = measured.ratio(peer, mine, TIME)
        what = f"OME-Zarr, until it is on disk: speed of {mine}, to {peer}"
        yield Row(
            "ome_zarr",
            what,
            figure,
            "x",
            Target(">=", 1.0),
            measured.shown(mine, TIME),
            measured.shown(peer, TIME),
        )
    yield Row(
        "ome_zarr",
        "OME-Zarr: time with the pyramid to time without",
        measured.ratio("ours", "ours, one level", TIME),
        "x",
        None,
        measured.shown("ours", TIME),
        measured.shown("ours, one level", TIME),
    )
    yield Row(
        "ome_zarr",
        "OME-Zarr: bytes with the pyramid to bytes without",
        measured.ratio("ours", "ours, one level", BYTES),
        "x",
    )
