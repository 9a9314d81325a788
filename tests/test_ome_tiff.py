"""Files of volumes, held against readers that nobody here wrote."""

import datetime
import json
import os
import re
import struct
import subprocess
from collections.abc import Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import ome_types
import pytest
import tifffile
from numpy.typing import NDArray

from gently_bluesky.protocols import VolumeMetadata
from gently_bluesky.store.facts import EventFacts, Geometry
from gently_bluesky.store.ome_tiff import OmeTiffFile, examine
from gently_bluesky.store.ome_xml import PIXEL_TYPES, can_describe, ome_xml
from tests.data_rig import facts, in_child, pixel_hash, volume

SHAPES = {"one frame": (8, 16), "volume": (5, 8, 16), "volumes in time": (2, 3, 8, 16)}
METADATA = VolumeMetadata(
    view="B",
    channel="488 nm \N{GREEK SMALL LETTER LAMDA}/2, 5 \N{MICRO SIGN}W\x00\x1b",
    voxel_size_um=(1.5, 0.25, 0.125),
    exposure_ms=10.0,
    stage_position_um=(100.0, -200.5, 50.25),
    z_um=(0.0, 1.5, 3.0, 4.5, 6.0),
)
RUN = {"time": 1_795_433_400.0, "scan_id": 7, "session": "\N{MICRO SIGN}-scan \ud800 <&>\x07", "ok": True}


@pytest.fixture
def pool() -> Iterator[Executor]:
    with ThreadPoolExecutor(1) as pool:
        yield pool


def made(path: Path, shape: tuple[int, ...] = (5, 8, 16), dtype: str = "<u2") -> OmeTiffFile:
    return OmeTiffFile(path, Geometry(shape, np.dtype(dtype)), facts(run=RUN, metadata=METADATA))


def fill(file: OmeTiffFile, pixels: NDArray[Any], pool: Executor, planes: range | None = None) -> None:
    flat = pixels.reshape(-1, *pixels.shape[-2:])
    for z in planes if planes is not None else range(len(flat)):
        file.write(z, flat[z].reshape(-1).view(np.uint8).data, 1_795_433_400.0 + z / 8, pool)


def hold(path: Path, expected: NDArray[Any], tiffinfo: Path) -> ome_types.OME:
    """Hold one file against tifffile, ome-types and libtiff."""
    mapped = tifffile.memmap(path, mode="r")
    assert mapped.dtype == expected.dtype
    np.testing.assert_array_equal(mapped, expected)
    with tifffile.TiffFile(path) as tiff:
        assert tiff.is_ome
        assert tiff.is_bigtiff
        assert len(tiff.series) == 1
        assert tiff.series[0].shape == expected.shape
        assert tiff.series[0].axes == "TZYX"[-expected.ndim :]
        offsets = [page.dataoffsets[0] for page in tiff.pages]
        assert offsets[0] % 4096 == 0
        assert set(np.diff(offsets)) <= {expected.nbytes // len(offsets)}
        for plane, page in zip(expected.reshape(-1, *expected.shape[-2:]), tiff.pages, strict=True):
            np.testing.assert_array_equal(page.asarray(), plane)
        xml = tiff.ome_metadata
    assert xml is not None
    ome_types.validate_xml(xml)
    told = subprocess.run([tiffinfo, path], capture_output=True, text=True, check=True)
    assert told.stderr == ""
    assert told.stdout.count("=== TIFF directory") == expected[..., 0, 0].size
    assert told.stdout.count(f"Image Width: {expected.shape[-1]} Image Length: {expected.shape[-2]}") == (
        expected[..., 0, 0].size
    )
    return ome_types.from_xml(xml)


def annotations(ome: ome_types.OME) -> list[dict[str, str | None]]:
    """The key-value pairs of each annotation."""
    assert ome.structured_annotations is not None
    return [dict(each.value.items()) for each in ome.structured_annotations.map_annotations]


def hold_image_info(command: list[str], path: Path, shape: tuple[int, ...], kind: str) -> None:
    """Hold one file against Bio-Formats."""
    told = subprocess.run([*command, "-nopix", path], capture_output=True, text=True, check=True).stdout
    assert "Checking file format [OME-TIFF]" in told
    *outer, height, width = (1,) * (4 - len(shape)) + shape
    for line in (
        f"Width = {width}",
        f"Height = {height}",
        f"SizeZ = {outer[1]}",
        f"SizeT = {outer[0]}",
        "SizeC = 1",
    ):
        assert re.search(rf"^\s*{line}$", told, re.MULTILINE), line
    assert f"Pixel type = {kind}" in told
    assert f"Image count = {outer[0] * outer[1]}" in told


@pytest.mark.parametrize("dtype", PIXEL_TYPES)
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_every_type_and_shape_of_ome_is_read_by_others_when_it_is_made_and_when_it_is_complete(
    tmp_path: Path, pool: Executor, tiffinfo: Path, shape: tuple[int, ...], dtype: str
) -> None:
    path, pixels = tmp_path / "v.ome.tif", volume(3, shape, f"<{dtype}")
    file = made(path, shape, f"<{dtype}")
    blank = hold(path, np.zeros_like(pixels), tiffinfo)
    assert blank.images[0].pixels.type.value == PIXEL_TYPES[dtype]
    fill(file, pixels, pool)
    times = [1_795_433_400.0 + z / 8 for z in range(pixels[..., 0, 0].size)]
    file.complete(times, EventFacts("event", 4, 1_795_433_401.0, {"good": True, "x_um": -1.5}), durable=True)
    file.close()
    ome = hold(path, pixels, tiffinfo)
    assert [plane.delta_t for plane in ome.images[0].pixels.planes] == [z / 8 for z in range(len(times))]


@pytest.mark.parametrize(("shape", "dtype"), [((5, 8, 16), "<u2"), ((2, 3, 8, 16), "<f4"), ((8, 16), "<i4")])
def test_bio_formats_reads_a_file_that_is_blank_and_one_that_is_complete(
    tmp_path: Path, pool: Executor, image_info: list[str], shape: tuple[int, ...], dtype: str
) -> None:
    path = tmp_path / "v.ome.tif"
    file = made(path, shape, dtype)
    kind = PIXEL_TYPES[dtype[1:]]
    hold_image_info(image_info, path, shape, kind)
    fill(file, volume(1, shape, dtype), pool)
    file.complete([1.8e9] * int(np.prod(shape[:-2], dtype=int)), EventFacts("event", 1, 1.8e9), durable=False)
    file.close()
    hold_image_info(image_info, path, shape, kind)


def test_bio_formats_reads_every_pixel_as_it_was_written(
    tmp_path: Path, pool: Executor, image_info: list[str]
) -> None:
    path, pixels = tmp_path / "v.ome.tif", volume(2)
    file = made(path, pixels.shape)
    fill(file, pixels, pool)
    file.close()
    command = [*image_info[:-1], "loci.formats.tools.ImageConverter", str(path), str(tmp_path / "copy.tif")]
    subprocess.run(command, capture_output=True, check=True)
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "copy.tif", is_ome=False), pixels)


def test_after_any_frame_the_file_holds_that_frame_and_zeros_behind_it(
    tmp_path: Path, pool: Executor, tiffinfo: Path
) -> None:
    path, pixels = tmp_path / "v.ome.tif", volume(1, (5, 8, 16))
    file = made(path)
    so_far = np.zeros_like(pixels)
    for z in (2, 0, 4, 1, 3):
        fill(file, pixels, pool, range(z, z + 1))
        so_far[z] = pixels[z]
        hold(path, so_far, tiffinfo)
    file.close()


KILLED = """
import os, signal, sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
import numpy as np
from tests.data_rig import volume
from tests.test_ome_tiff import made
from gently_bluesky.store.facts import EventFacts

folder, pixels = Path(sys.argv[1]), volume(1, (5, 8, 16))
for frames in range(-1, 8):
    if os.fork() == 0:
        file = made(folder / f"{frames}.ome.tif")
        with ThreadPoolExecutor(1) as pool:
            for z in range(min(max(frames, 0), 5)):
                file.write(z, pixels[z].reshape(-1).view(np.uint8).data, 100.0 + z, pool)
            if frames >= 6:
                file.complete([100.0 + z for z in range(5)], None, durable=frames == 7)
            os.kill(os.getpid(), signal.SIGKILL)
    _, status = os.wait()
    assert os.WTERMSIG(status) == signal.SIGKILL
"""


def test_a_process_killed_after_any_frame_leaves_a_file_that_everybody_reads(
    tmp_path: Path, tiffinfo: Path, image_info: list[str]
) -> None:
    pixels = volume(1, (5, 8, 16))
    in_child(KILLED, tmp_path)
    for frames in range(-1, 8):
        path, came = tmp_path / f"{frames}.ome.tif", min(max(frames, 0), 5)
        left = np.zeros_like(pixels)
        left[:came] = pixels[:came]
        hold(path, left, tiffinfo)
        assert list(examine(path).times or ()) == [100.0 + z for z in range(came)] + [0.0] * (5 - came)
    hold_image_info(image_info, tmp_path / "3.ome.tif", pixels.shape, "uint16")


def test_while_the_description_is_replaced_each_write_leaves_a_whole_file(
    tmp_path: Path, pool: Executor, tiffinfo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, pixels = tmp_path / "v.ome.tif", volume(1, (5, 8, 16))
    file = made(path)
    fill(file, pixels, pool)
    pwrite, writes = os.pwrite, []

    def watched(descriptor: int, data: Any, offset: int) -> int:
        done = pwrite(descriptor, data, offset)
        writes.append((offset, bytes(data)))
        hold(path, pixels, tiffinfo)
        return done

    monkeypatch.setattr(os, "pwrite", watched)
    times: list[float | None] = [1_795_433_400.0] * 5
    file.complete(times, None, durable=False)
    for number in range(1, 4):
        file.complete(times, EventFacts("e", number, 1.0, {"x": "long " * 30}), durable=True)
    file.close()
    assert len(writes) == 8
    named: list[int] = []
    for (slot, _), (offset, data) in zip(writes[::2], writes[1::2], strict=True):
        assert offset // 512 == (offset + len(data) - 1) // 512, "the pointer must lie inside one sector"
        assert slot not in named[-2:], "after a power cut the pointer may be the one before"
        count, pointed = struct.unpack("<QQ", data)
        assert pointed == slot
        named.append(slot)
        assert count > 0


def test_the_description_says_where_the_file_belongs_and_what_it_shows(tmp_path: Path, pool: Executor) -> None:
    path = tmp_path / "v.ome.tif"
    file = OmeTiffFile(
        path,
        Geometry((5, 8, 16), np.dtype("<u2")),
        facts(run_uid="run-1", resource_uid="res-1", data_key="spim_b", index=42, run=RUN, metadata=METADATA),
    )
    fill(file, volume(1, (5, 8, 16)), pool)
    event = EventFacts("event-1", 9, 1_795_433_402.5, {"embryo": "e1", "laser_mW": 2.5, "good": True})
    file.complete([1_795_433_400.0 + z / 8 for z in range(5)], event, durable=False)
    file.close()
    ome = ome_types.from_tiff(path)
    assert ome.uuid is not None
    image = ome.images[0]
    assert image.name == "spim_b 000042"
    assert image.acquisition_date is not None
    assert image.acquisition_date.isoformat()[:19] == "2026-11-23T11:30:00"
    pixels = image.pixels
    sizes = (pixels.physical_size_z, pixels.physical_size_y, pixels.physical_size_x)
    assert sizes == METADATA["voxel_size_um"]
    assert pixels.physical_size_x_quantity is not None
    assert pixels.physical_size_x_quantity.units == "micrometer"
    assert pixels.channels[0].name == "488 nm \u03bb/2, 5 \u00b5W\ufffd\ufffd"
    assert [plane.exposure_time for plane in pixels.planes] == [10.0] * 5
    assert [plane.position_x for plane in pixels.planes] == [100.0] * 5
    assert [plane.position_y for plane in pixels.planes] == [-200.5] * 5
    assert [plane.position_z for plane in pixels.planes] == [50.25 + 1.5 * z for z in range(5)]
    assert [(plane.the_z, plane.delta_t) for plane in pixels.planes] == [(z, z / 8) for z in range(5)]
    said = {key: value for annotation in annotations(ome) for key, value in annotation.items()}
    assert said == {
        "run_uid": "run-1",
        "stream_resource_uid": "res-1",
        "data_key": "spim_b",
        "index": "42",
        "shape": "5 8 16",
        "xxh3_64": said["xxh3_64"],
        "frame_times_xxh3_64": said["frame_times_xxh3_64"],
        "view": "B",
        "time": "1795433400.0",
        "scan_id": "7",
        "session": "\u00b5-scan \ufffd <&>\ufffd",
        "ok": "True",
        "event_uid": "event-1",
        "seq_num": "9",
        "event_time": "1795433402.5",
        "embryo": "e1",
        "laser_mW": "2.5",
        "good": "True",
    }


def test_libtiff_reads_the_resolution_in_pixels_a_centimeter(tmp_path: Path, tiffinfo: Path) -> None:
    made(tmp_path / "v.ome.tif").close()
    told = subprocess.run([tiffinfo, tmp_path / "v.ome.tif"], capture_output=True, text=True, check=True).stdout
    assert "Resolution: 80000, 40000 pixels/cm" in told


@pytest.mark.parametrize("spacing", [(), (1.0,), (1, 0, 0), (1, -1, -1), (1, 1e-9, 1e9), (float("nan"),) * 3])
def test_a_spacing_that_makes_no_sense_harms_no_file(
    tmp_path: Path, tiffinfo: Path, spacing: tuple[float, ...]
) -> None:
    path, geometry = tmp_path / "v.ome.tif", Geometry((2, 8, 16), np.dtype("<u2"))
    OmeTiffFile(path, geometry, facts(metadata=VolumeMetadata(voxel_size_um=spacing))).close()
    hold(path, np.zeros(geometry.shape, "<u2"), tiffinfo)


def test_scalars_of_an_event_that_find_no_room_are_left_out_and_the_file_stays_whole(
    tmp_path: Path, tiffinfo: Path
) -> None:
    file = made(tmp_path / "v.ome.tif")
    scalars = {f"scalar_{i}": "x" * 200 for i in range(500)}
    file.complete([None] * 5, EventFacts("the event", 3, 1.0, scalars), durable=False)
    file.close()
    ome = hold(tmp_path / "v.ome.tif", np.zeros((5, 8, 16), "<u2"), tiffinfo)
    assert annotations(ome)[-1] == {"event_uid": "the event", "seq_num": "3", "event_time": "1.0"}


def test_metadata_of_any_characters_becomes_xml_that_validates() -> None:
    everything = "".join(map(chr, [*range(0x20), 0x7F, 0x85, 0xB5, 0xD800, 0xFFFE, 0xFFFF, 0x1F600])) + "<&>\"']]>"
    geometry = Geometry((1, 2, 2), np.dtype("<u2"))
    xml = ome_xml(
        geometry,
        facts(run={everything: everything}, data_key=everything, metadata=VolumeMetadata(channel=everything)),
        [1.0],
        EventFacts("e", 1, 1.0, {everything: everything}),
    )
    ome_types.validate_xml(xml)
    name = ome_types.from_xml(xml).images[0].pixels.channels[0].name
    assert name is not None
    assert "\N{MICRO SIGN}" in name
    assert "\N{GRINNING FACE}" in name
    assert "\x00" not in name


def test_frames_of_several_planes_at_once_are_never_mistaken_for_each_other(
    tmp_path: Path, pool: Executor
) -> None:
    many, shape = 300, (300, 4, 8)
    path, pixels = tmp_path / "v.ome.tif", volume(1, shape, "<f4")
    file = made(path, shape, "<f4")
    fill(file, pixels, pool)
    file.complete([1_795_433_400.0 + z / 8 for z in range(many)], None, durable=False)
    file.close()
    assert pixel_hash(np.asarray(tifffile.imread(path))) == pixel_hash(pixels)
    assert len(examine(path).times or ()) == many


def test_a_file_that_is_not_ours_is_an_error_that_names_it(tmp_path: Path) -> None:
    path = tmp_path / "theirs.tif"
    tifffile.imwrite(path, np.zeros((2, 3), np.uint8))
    with pytest.raises(ValueError, match=r"theirs\.tif was not written here"):
        examine(path)


def test_an_existing_file_is_never_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "v.ome.tif"
    path.write_bytes(b"precious")
    with pytest.raises(FileExistsError):
        made(path)
    assert path.read_bytes() == b"precious"


@pytest.mark.parametrize(
    ("shape", "dtype", "described"),
    [
        ((4, 4), "<u2", True),
        ((2, 2, 2, 4, 4), "<u2", False),
        ((4,), "<u2", False),
        ((4, 4), "<i8", False),
        ((4, 4), "|b1", False),
        ((4, 4), "<f2", False),
        ((4, 4), "<c8", False),
    ],
)
def test_only_what_ome_has_words_for_becomes_ome_tiff(shape: tuple[int, ...], dtype: str, described: bool) -> None:
    assert can_describe(Geometry(shape, np.dtype(dtype))) is described


def test_space_is_reserved_when_the_file_is_made(tmp_path: Path) -> None:
    file = made(tmp_path / "v.ome.tif", (16, 512, 512))
    status = (tmp_path / "v.ome.tif").stat()
    file.close()
    assert status.st_size > 16 * 512 * 512 * 2
    assert status.st_blocks * 512 >= status.st_size


def test_the_manifest_of_a_file_gives_the_offset_that_tifffile_finds(tmp_path: Path) -> None:
    file = made(tmp_path / "v.ome.tif")
    file.close()
    with tifffile.TiffFile(tmp_path / "v.ome.tif") as tiff:
        assert json.loads(json.dumps(file.manifest)) == {"offset": tiff.series[0].dataoffset}


@pytest.mark.parametrize("order", [1, -1], ids=["in order", "backwards"])
def test_times_of_frames_count_from_the_acquisition_date(tmp_path: Path, order: int) -> None:
    """So that whoever adds the two, as Bio-Formats does, has the moment of each frame."""
    times = [1_795_433_400.0128 + 0.25 * z for z in range(4)][::order]
    xml = ome_xml(Geometry((4, 8, 8), np.dtype("<u2")), facts(run={"time": 1_795_000_000.0}), times).decode()
    image = ome_types.from_xml(xml, validate=True).images[0]
    assert image.acquisition_date is not None
    began = image.acquisition_date.replace(tzinfo=datetime.UTC).timestamp()
    assert 0 <= min(times) - began < 0.001
    taken = [began + (plane.delta_t or 0) for plane in image.pixels.planes]
    np.testing.assert_allclose(taken, times, rtol=0, atol=2e-6)
