"""TIFF by suitcase-tiff: what the library writes of the same documents, without its traps."""

import resource
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import bluesky.plan_stubs as bps
import bluesky.plans as bp
import numpy as np
import psutil
import pytest
import tifffile
from bluesky import Msg
from bluesky.tests.conftest import RE  # noqa: F401 - a fixture of theirs
from suitcase import tiff_stack as library
from suitcase.utils.tests.conftest import (  # noqa: F401 - their example documents
    detector_list,
    example_data,
    generate_data,
    plan_type,
)

from gently_bluesky import FileWriter
from gently_bluesky.errors import ExportError, LossyCastError
from gently_bluesky.exchange.export_suitcase import tiff_series, tiff_stack
from gently_bluesky.exchange.selection import select
from tests.data_rig import SHAPE, Camera, feed, inline, record, taken, volume
from tests.export_rig import CHANNELS, pixels, timelapse
from tests.test_writer_streaming import Flyer


def test_a_stack_a_volume_has_its_planes_as_pages(root: Path, tmp_path: Path) -> None:
    paths = tiff_stack(select(timelapse(root)), tmp_path)
    names = [path.name for path in paths]
    assert names == sorted(names)
    assert len(names) == 24
    for e, embryo in enumerate(("e1", "e2")):
        for t in range(3):
            for v, view in enumerate("AB"):
                for c, channel in enumerate(CHANNELS):
                    path = tmp_path / f"s_{embryo}_t{t:04d}_{view}_{channel.replace(' ', '_')}.tif"
                    with tifffile.TiffFile(path) as file:
                        assert file.is_bigtiff
                        assert len(file.pages) == SHAPE[0]
                        np.testing.assert_array_equal(file.asarray(), pixels(e, t, v, c))


def test_a_series_a_volume_is_a_folder_with_a_file_a_plane(root: Path, tmp_path: Path) -> None:
    paths = tiff_series(select(timelapse(root), embryo="e2", channel=CHANNELS[0]), tmp_path)
    assert [path.name for path in paths][:2] == ["s_e2_t0000_A_488_only", "s_e2_t0000_B_488_only"]
    for t in range(3):
        for v, view in enumerate("AB"):
            folder = tmp_path / f"s_e2_t{t:04d}_{view}_488_only"
            files = sorted(folder.iterdir())
            assert [file.name for file in files] == [f"{folder.name}_z{z:04d}.tif" for z in range(SHAPE[0])]
            planes = np.stack([tifffile.imread(file) for file in files])
            np.testing.assert_array_equal(planes, pixels(1, t, v))


@pytest.mark.parametrize("dtype", ["|u1", "<u2", ">u2", "<i4", "<f4", "<f8"])
@pytest.mark.parametrize("write", [tiff_stack, tiff_series])
def test_the_library_s_own_cast_never_happens(
    root: Path, tmp_path: Path, dtype: str, write: Callable[..., tuple[Path, ...]]
) -> None:
    run = record(root, lambda writer: taken(Camera("cam", writer, shape=(2, 8, 16), dtype=dtype), {}))
    (path,) = write(select(run), tmp_path)
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    read = [tifffile.imread(file) for file in files]
    assert read[0].dtype == np.dtype(dtype).newbyteorder("=")
    np.testing.assert_array_equal(
        np.concatenate([each.reshape(-1, 8, 16) for each in read]), volume(0, (2, 8, 16))
    )


@pytest.mark.parametrize(
    ("value", "dtype", "wanted"),
    [
        (70000, "i4", "uint16"),
        (-1, "i4", "uint16"),
        (65535, "u2", "int16"),
        (2**24 + 1, "i4", "float32"),
        (2**53 + 1, "i8", "float64"),
        (0.5, "f8", "uint8"),
        (1e300, "f8", "float32"),
        (np.nan, "f8", "uint16"),
        (1j, "c8", "float32"),
    ],
)
def test_a_cast_that_would_change_a_pixel_is_refused(
    root: Path, tmp_path: Path, value: Any, dtype: str, wanted: str
) -> None:
    array = np.zeros((200, 200), dtype)
    array[100, 100] = value
    run = record(root, bp.count([inline("img", array)], 1))
    with pytest.raises(LossyCastError, match=f"which {wanted} cannot hold"):
        tiff_stack(select(run), tmp_path / "out", dtype=wanted)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("value", "dtype", "wanted"), [(65535, "i4", "uint16"), (np.nan, "f8", "float32"), (2**24, "i4", "float32")]
)
def test_a_cast_that_changes_nothing_is_made(
    root: Path, tmp_path: Path, value: Any, dtype: str, wanted: str
) -> None:
    array = np.full((200, 200), value, dtype)
    run = record(root, bp.count([inline("img", array)], 1))
    (path,) = tiff_stack(select(run), tmp_path, dtype=wanted)
    read = tifffile.imread(path)
    assert read.dtype == wanted
    np.testing.assert_array_equal(read, array)


def test_what_is_no_dtype_is_named(root: Path, tmp_path: Path) -> None:
    run = timelapse(root, embryos=["e"], timepoints=[0])
    for wanted in ("uint12", "U5"):
        with pytest.raises(ExportError, match=f"'{wanted}' is no dtype"):
            tiff_stack(select(run), tmp_path / "out", dtype=wanted)


def test_a_series_of_more_planes_than_a_process_may_have_files_open(root: Path, tmp_path: Path) -> None:
    shape = (200, 4, 4)
    run = record(root, lambda writer: taken(Camera("cam", writer, shape=shape), {}))
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (psutil.Process().num_fds() + 100, hard))
    try:
        (folder,) = tiff_series(select(run), tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    planes = np.stack([tifffile.imread(file) for file in sorted(folder.iterdir())])
    np.testing.assert_array_equal(planes, volume(0, shape))


def test_arrays_of_four_axes_are_refused_by_name_not_skipped(root: Path, tmp_path: Path) -> None:
    run = record(root, bp.count([inline("img", volume(0, (2, 3, 100, 100)))], 1))
    with pytest.raises(ExportError, match=r"have planes to export; .*img is \(2, 3, 100, 100\)"):
        tiff_stack(select(run), tmp_path / "out")


def test_a_fly_scan_is_refused_as_the_library_would_write_nothing_of_it(root: Path, tmp_path: Path) -> None:
    def plan(writer: FileWriter) -> Iterator[Msg]:
        flyer = Flyer("cam", writer)
        yield from bps.open_run()
        yield from bps.declare_stream(flyer, name="primary", collect=True)
        yield from bps.kickoff(flyer, wait=True)
        yield from bps.complete(flyer, wait=True)
        yield from bps.collect(flyer, name="primary")
        yield from bps.close_run()

    with pytest.raises(ExportError, match=r"takes events, and .* has none \(a fly scan\)"):
        tiff_stack(select(record(root, plan)), tmp_path / "out")


def test_names_of_devices_are_no_templates(root: Path, tmp_path: Path) -> None:
    run = record(root, bp.count([inline("{start[uid]}:{img}", volume(3, (200, 200)))], 1))
    (path,) = tiff_stack(select(run), tmp_path)
    assert path.name == f"{run.folder.name}_primary_000001__start_uid_img_.tif"
    np.testing.assert_array_equal(tifffile.imread(path), volume(3, (200, 200)))


@pytest.fixture
def event_type() -> Callable[[Any], str]:
    """Their documents as events: bulk_events are no more, and their pages mix the events of two streams."""
    return lambda ignore: "event"


def test_the_library_writes_the_same_pixels_of_its_own_example_documents(
    example_data: Any,  # noqa: F811
    root: Path,
    tmp_path: Path,
) -> None:
    run = feed(root, example_data())
    theirs = library.export(run.documents(fill=True), tmp_path / "theirs", bigtiff=True, astype="float64")
    if not theirs:
        with pytest.raises(ExportError, match="No volumes are selected"):
            tiff_stack(select(run), tmp_path / "ours")
        return
    ours: dict[str, list[Any]] = {}
    for path, each in zip(tiff_stack(select(run), tmp_path / "ours"), select(run).volumes, strict=True):
        ours.setdefault(f"{run.uid}-{each.stream.name}-{each.shows.data_key}.tiff", []).append(
            tifffile.imread(path)
        )
    for path in theirs["stream_data"]:
        np.testing.assert_array_equal(tifffile.imread(path).reshape(-1, 10, 10), np.stack(ours[Path(path).name]))
    assert len(ours) == len(theirs["stream_data"])
