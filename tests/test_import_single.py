"""A single TIFF or OME-Zarr of anybody's becomes a run, where it lies or copied."""

import datetime
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import zarr

from gently_bluesky import Catalog
from gently_bluesky.errors import ImportRefusedError, UnfillableError, VolumeMissingError
from gently_bluesky.exchange.importing import plan_import
from gently_bluesky.exchange.said import Said
from gently_bluesky.keep.verify import verify
from tests.data_rig import SHAPE, hold_pixels, hold_together, journal, volume
from tests.old_session_rig import cut_short, take_in, the_run, told, tree
from tests.test_cli import gently

COPIED = pytest.mark.parametrize("copied", [False, True], ids=["linked", "copied"])
MINE = Said(session="s", embryo="e1", timepoint=7)
TCZYX = volume(3, (2, 3, 4, 16, 32)).astype("<u2")
TCZYX += np.arange(6, dtype="<u2").reshape(2, 3, 1, 1, 1)


def write(path: Path, pixels: Any, **options: Any) -> Path:
    tifffile.imwrite(path, pixels, photometric="minisblack", **options)
    return path


VOXEL_SIZE = "its voxel size is not known: it does not say one along every axis"
TIME = "its time is not known: events are counted from when the file was changed"


def remarks(path: Path, root: Path, **options: Any) -> list[str]:
    (run,) = plan_import(path, root, **options).runs
    return [remark.text for remark in run.source.remarks if remark.kind == "missing"][::-1]


# --- TIFF ---------------------------------------------------------------------------------------------------


KINDS: list[dict[str, Any]] = [
    {}, {"compression": "zlib"}, {"tile": (16, 16)}, {"tile": (16, 16), "compression": "zlib"}, {"bigtiff": True},
    {"byteorder": ">"}, {"byteorder": ">", "compression": "zlib"}, {"rowsperstrip": 3}, {"metadata": None},
]  # fmt: skip
PREDICTED = {"compression": "zlib", "predictor": True}


@COPIED
@pytest.mark.parametrize(
    ("options", "dtype"),
    [*((kind, dtype) for kind in KINDS for dtype in ("u1", "u2", "f4")), (PREDICTED, "u1"), (PREDICTED, "u2")],
    ids=str,
)
def test_a_tiff_of_any_kind_is_one_volume(
    tmp_path: Path, root: Path, copied: bool, options: dict[str, Any], dtype: str
) -> None:
    pixels = volume(5, dtype=dtype)
    path = write(tmp_path / "stack.tif", pixels, **options)
    before = tree(tmp_path)
    run = the_run(path, root, copied=copied, said=MINE)
    (found,) = Catalog(root).volumes(session="s", embryo="e1", timepoint=7)
    np.testing.assert_array_equal(found.array(), pixels)
    assert found.array().dtype == found.images.dtype
    assert run["primary"].images("volume").voxel_size_um is None
    hold_together(journal(run.folder))
    hold_pixels(run)
    assert take_in(path, root, copied=not copied) == []
    assert {name: known for name, known in tree(tmp_path).items() if not name.startswith("root")} == before


@COPIED
@pytest.mark.parametrize("suffix", [".tif", ".TIFF", ".ome.tif", ".btf", ""])
def test_what_a_file_is_called_does_not_matter(tmp_path: Path, root: Path, copied: bool, suffix: str) -> None:
    path = write(tmp_path / "named.tif", volume(1)).rename(tmp_path / f"stack{suffix}")
    np.testing.assert_array_equal(
        the_run(path, root, copied=copied)["primary"].images("volume").volume(0), volume(1)
    )


@COPIED
def test_times_and_channels_of_an_ome_tiff_are_volumes(tmp_path: Path, root: Path, copied: bool) -> None:
    metadata = {
        "axes": "TCZYX",
        "PhysicalSizeX": 162.5,
        "PhysicalSizeXUnit": "nm",
        "PhysicalSizeY": 0.1625,
        "PhysicalSizeZ": 1.0,
        "PhysicalSizeZUnit": "\u00b5m",
        "Channel": {"Name": ["405", "488", "561"]},
        "Plane": {"DeltaT": [0.5 * i for i in range(24)], "ExposureTime": [0.01] * 24},
        "AcquisitionDate": "2026-03-01T12:00:00+00:00",
    }
    path = write(tmp_path / "x.ome.tif", TCZYX, metadata=metadata, tile=(16, 16), compression="zlib")
    stream = the_run(path, root, copied=copied, said=Said(session="s", embryo="e1"))["primary"]
    assert stream["timepoint"].tolist() == [0, 0, 0, 1, 1, 1]
    assert stream["channel"].tolist() == ["405", "488", "561"] * 2
    assert stream["exposure_ms"].tolist() == [10.0] * 6
    images = stream.images("volume")
    np.testing.assert_array_equal(images[:], TCZYX.reshape(6, 4, 16, 32))
    assert images.voxel_size_um == pytest.approx((1.0, 0.1625, 0.1625))
    assert images.dims == ("event", "z", "y", "x")
    began = datetime.datetime(2026, 3, 1, 12, tzinfo=datetime.UTC).timestamp()
    assert stream.time.tolist() == [began + 2.0 * i for i in range(6)]
    (found,) = Catalog(root).volumes(embryo="e1", timepoint=1, channel="488")
    np.testing.assert_array_equal(found.array(), TCZYX[1, 1])


@COPIED
def test_an_imagej_hyperstack_is_cut_along_its_own_axes(tmp_path: Path, root: Path, copied: bool) -> None:
    pixels = np.moveaxis(TCZYX, 1, 2)
    path = tmp_path / "x.tif"
    tifffile.imwrite(path, pixels, imagej=True, metadata={"axes": "TZCYX"})
    stream = the_run(path, root, copied=copied, said=Said(timepoint=10))["primary"]
    np.testing.assert_array_equal(stream.images("volume")[:], TCZYX.reshape(6, 4, 16, 32))
    assert stream["timepoint"].tolist() == [10, 10, 10, 11, 11, 11]
    assert stream["channel_index"].tolist() == [0, 1, 2] * 2
    assert stream["time_index"].tolist() == [0, 0, 0, 1, 1, 1]
    assert "channel" not in stream
    assert remarks(path, root) == [VOXEL_SIZE, TIME]


@pytest.mark.parametrize(
    ("unit", "voxel_size_um"),
    [
        ("um", (1.5, 0.25, 0.5)),
        ("micron", (1.5, 0.25, 0.5)),
        ("\\u00B5m", (1.5, 0.25, 0.5)),
        ("nm", (0.0015, 0.00025, 0.0005)),
        ("pixel", None),
    ],
)
def test_imagej_says_spacing_and_interval(
    tmp_path: Path, root: Path, unit: str, voxel_size_um: tuple[float, ...] | None
) -> None:
    metadata = {"axes": "TZCYX", "spacing": 1.5, "unit": unit, "finterval": 30.0, "tunit": "sec"}
    path = tmp_path / "x.tif"
    tifffile.imwrite(path, np.moveaxis(TCZYX, 1, 2), imagej=True, resolution=(2.0, 4.0), metadata=metadata)
    stream = the_run(path, root)["primary"]
    assert stream.images("volume").voxel_size_um == (voxel_size_um and pytest.approx(voxel_size_um, rel=1e-5))
    began = path.stat().st_mtime
    assert stream.time.tolist() == [began] * 3 + [began + 30.0] * 3
    assert remarks(path, root) == ([TIME] if voxel_size_um else [VOXEL_SIZE, TIME])


@pytest.mark.parametrize("date", [{"AcquisitionDate": "2026-03-01T12:00:00+00:00"}, {}], ids=["dated", "undated"])
def test_the_interval_of_an_ome_tiff_tells_times(tmp_path: Path, root: Path, date: dict[str, str]) -> None:
    said = {"axes": "TCZYX", "TimeIncrement": 0.5, "TimeIncrementUnit": "min", **date}
    path = write(tmp_path / "x.ome.tif", TCZYX, metadata=said)
    stream = the_run(path, root)["primary"]
    began = datetime.datetime(2026, 3, 1, 12, tzinfo=datetime.UTC).timestamp() if date else path.stat().st_mtime
    assert stream.time.tolist() == [began] * 3 + [began + 30.0] * 3
    assert remarks(path, root) == ([VOXEL_SIZE] if date else [VOXEL_SIZE, TIME])


@pytest.mark.parametrize("shape", [(16, 32), (1, 16, 32), (3, 4, 16, 32), (16, 32, 3)], ids=str)
@COPIED
def test_arrays_of_other_shapes_come_as_they_are(
    tmp_path: Path, root: Path, copied: bool, shape: tuple[int, ...]
) -> None:
    pixels = volume(2, shape).astype("u1")
    tifffile.imwrite(tmp_path / "x.tif", pixels, photometric="rgb" if shape[-1] == 3 else "minisblack")
    images = the_run(tmp_path / "x.tif", root, copied=copied)["primary"].images("volume")
    np.testing.assert_array_equal(images.volume(0), pixels)


def test_what_a_file_does_not_say_is_absent_and_told(tmp_path: Path, root: Path) -> None:
    path = write(tmp_path / "x.tif", volume(1), metadata=None)
    assert remarks(path, root) == [VOXEL_SIZE, TIME]
    assert remarks(path, root, said=Said(voxel_size_um=(1.0, 1.0, 1.0))) == [TIME]
    run = the_run(path, root, said=Said())
    row = run["primary"].rows[0]
    status = path.stat()
    assert row.data == {"file": "x.tif", "file_bytes": status.st_size, "file_modified": status.st_mtime}
    assert row.time == status.st_mtime
    assert not {"session", "embryo", "operator"} & run.start.keys()
    assert take_in(path, root, said=MINE) == []


def test_what_the_user_says_of_the_voxels_goes_before_the_file(tmp_path: Path, root: Path) -> None:
    path = write(tmp_path / "x.ome.tif", volume(1), metadata={"axes": "ZYX", "PhysicalSizeX": 9.0})
    assert the_run(path, root / "a")["primary"].images("volume").voxel_size_um is None  # y and z are not known
    said = Said(voxel_size_um=(1.0, 0.5, 0.25))
    assert the_run(path, root / "b", said=said)["primary"].images("volume").voxel_size_um == (1.0, 0.5, 0.25)


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        (("2026-03-01T12:00:00", "the day before tomorrow"), "contradiction"),
        (('PhysicalSizeXUnit="&#181;m"', 'PhysicalSizeXUnit="pixel"'), None),
        (("<Pixels", "<Pxels"), None),
    ],
    ids=["time", "unit", "pixels"],
)
def test_ome_metadata_that_make_no_sense_say_nothing(
    tmp_path: Path, root: Path, change: tuple[str, str], kind: str | None
) -> None:
    metadata = {"axes": "ZYX", "PhysicalSizeX": 0.5, "PhysicalSizeY": 0.5, "PhysicalSizeZ": 2.0}
    path = write(
        tmp_path / "x.ome.tif", volume(1), metadata={**metadata, "AcquisitionDate": "2026-03-01T12:00:00"}
    )
    with tifffile.TiffFile(path) as file:
        xml = (file.ome_metadata or "").replace("\u00b5m", "&#181;m")
    assert change[0] in xml or kind is None
    path.unlink()
    write(path, volume(1), metadata=None, description=xml.replace(*change))
    if kind is not None:
        assert kind in told(path, root)
    np.testing.assert_array_equal(the_run(path, root)["primary"].images("volume").volume(0), volume(1))


@COPIED
@pytest.mark.parametrize("append", [False, True], ids=["written", "appended"])
@pytest.mark.parametrize("options", [{}, {"compression": "zlib"}, {"byteorder": ">"}], ids=str)
def test_planes_that_were_written_one_by_one_are_one_volume(
    tmp_path: Path, root: Path, copied: bool, append: bool, options: dict[str, Any]
) -> None:
    path, planes = tmp_path / "x.tif", volume(3)
    if append:
        for z, plane in enumerate(planes):
            write(path, plane, append=z > 0, **({} if z and "byteorder" in options else options))
    else:
        byteorder = options.get("byteorder")
        with tifffile.TiffWriter(path, byteorder=byteorder) as file:
            for plane in planes:
                file.write(plane, compression=options.get("compression"), photometric="minisblack")
    assert "unreadable" not in told(path, root)
    images = the_run(path, root, copied=copied)["primary"].images("volume")
    np.testing.assert_array_equal(images.volume(0), planes)
    np.testing.assert_array_equal(images[0, 2, 3:5], planes[2, 3:5])


def test_of_the_planes_that_are_said_the_lowest_counts_and_one_of_no_place_does_not(
    tmp_path: Path, root: Path
) -> None:
    said = [("0", "3", 30), ("-1", "0", 99), ("0", "0", 1), ("1", "0", 10)]
    planes = "".join(f'<Plane TheT="{t}" TheC="0" TheZ="{z}" DeltaT="{delta}"/>' for t, z, delta in said)
    path = write(tmp_path / "x.ome.tif", TCZYX[:, 0], metadata={"axes": "TZYX"})
    with tifffile.TiffFile(path) as file:
        xml = file.ome_metadata or ""
    date = "<AcquisitionDate>2026-03-01T12:00:00+00:00</AcquisitionDate>"
    xml = xml.replace("<Pixels", f"{date}<Pixels").replace("</Pixels>", f"{planes}</Pixels>")
    path.unlink()
    write(path, TCZYX[:, 0], metadata=None, description=xml)
    began = datetime.datetime(2026, 3, 1, 12, tzinfo=datetime.UTC).timestamp()
    assert the_run(path, root)["primary"].time.tolist() == [began + 1, began + 10]


@pytest.mark.parametrize("second", [volume(2, (5, 8, 8)), volume(2)], ids=["another shape", "the same shape"])
def test_of_several_images_the_first_is_taken_and_it_is_told(tmp_path: Path, root: Path, second: Any) -> None:
    with tifffile.TiffWriter(tmp_path / "x.tif") as file:
        file.write(volume(1), photometric="minisblack")
        file.write(second, photometric="minisblack")
    assert "only the first is taken" in told(tmp_path / "x.tif", root)["unreadable"]["x.tif"]
    with pytest.raises(ImportRefusedError, match="only the first is taken"):
        plan_import(tmp_path / "x.tif", root, strict=True)
    run = the_run(tmp_path / "x.tif", root)
    np.testing.assert_array_equal(run["primary"].images("volume").volume(0), volume(1))


@pytest.mark.parametrize("compression", ["zlib", None])
@pytest.mark.parametrize("part", [0.0, 0.001, 0.3, 0.99])
def test_a_tiff_that_was_cut_short_is_refused(
    tmp_path: Path, root: Path, part: float, compression: str | None
) -> None:
    path = write(tmp_path / "x.tif", volume(1, (8, 64, 64)), compression=compression)
    cut_short(path, part)
    with pytest.raises(ImportRefusedError, match=r"x\.tif cannot be imported: "):
        plan_import(path, root)
    assert not root.exists()


def test_a_compression_that_cannot_be_decoded_here_is_refused(tmp_path: Path, root: Path) -> None:
    path = write(tmp_path / "x.tif", volume(1, (1, 8, 16)), compression="zlib")
    with tifffile.TiffFile(path, mode="r+") as file:
        file.pages.first.tags["Compression"].overwrite(34887)  # LERC
    with pytest.raises(ImportRefusedError, match=r"imagecodecs"):
        plan_import(path, root)


@pytest.mark.parametrize("name", ["a{0}.tif", "100%.tif"])
def test_a_name_that_no_document_can_hold_is_refused(tmp_path: Path, root: Path, name: str) -> None:
    with pytest.raises(ImportRefusedError, match="No document can name"):
        plan_import(write(tmp_path / name, volume(1)), root)


def test_a_linked_tiff_that_is_gone_says_so(tmp_path: Path, root: Path) -> None:
    path = write(tmp_path / "x.tif", volume(1))
    run = the_run(path, root)
    path.unlink()
    with pytest.raises(VolumeMissingError, match=r"x\.tif"):
        run["primary"].images("volume").volume(0)
    assert [finding.where for finding in verify(root).errors] == [str(path)]


@pytest.mark.parametrize("compression", ["zlib", None])
def test_a_linked_tiff_that_was_overwritten_is_told_by_verify(
    tmp_path: Path, root: Path, compression: str | None
) -> None:
    path = write(tmp_path / "x.tif", volume(1), compression=compression)
    the_run(path, root)
    write(path, volume(2), compression=compression)
    os.utime(path, (1e9, 1e9))
    (finding,) = verify(root).findings
    assert (finding.severity, finding.kind, finding.where) == ("warning", "changed", str(path))
    assert "not the file that was imported" in finding.text


@pytest.mark.parametrize("compression", ["zlib", None])
def test_a_linked_tiff_that_is_another_dtype_now_is_never_served(
    tmp_path: Path, root: Path, compression: str | None
) -> None:
    path = write(tmp_path / "x.tif", volume(1), compression=compression)
    images = the_run(path, root)["primary"].images("volume")
    write(path, volume(1, dtype="f4"), compression=compression)
    with pytest.raises(UnfillableError, match="holds float32, and is described as uint16"):
        images.volume(0)


# --- Zarr ---------------------------------------------------------------------------------------------------

OMERO = {"channels": [{"label": "405"}, {"label": "488"}, {"label": "561"}]}


def ome_zarr(path: Path, pixels: Any, axes: str, *, version: str, **more: Any) -> Path:
    """An OME-Zarr as others write it: 0.4 in Zarr version 2, 0.5 in version 3."""
    kinds = {"t": "time", "c": "channel"}
    said = [
        {"name": axis, "type": kinds.get(axis, "space")} | ({"unit": "micrometer"} if axis in "zyx" else {})
        for axis in axes
    ]
    said = [axis | ({"unit": "minute"} if axis["name"] == "t" else {}) for axis in said]
    scale = [{"z": 1.5, "y": 0.25, "x": 0.25, "t": 0.5}.get(axis, 1.0) for axis in axes]
    transformations = [{"type": "scale", "scale": scale}]
    multiscales = [{"axes": said, "datasets": [{"path": "0", "coordinateTransformations": transformations}]}]
    attributes: dict[str, Any] = {"multiscales": multiscales, **more}
    zarr_format: Any = 2 if version == "0.4" else 3
    if version == "0.4":
        multiscales[0]["version"] = version
    else:
        attributes = {"ome": {"version": version, **attributes}}
    group = zarr.create_group(path, zarr_format=zarr_format, attributes=attributes)
    chunks = (1,) * (pixels.ndim - 2) + pixels.shape[-2:]
    array = group.create_array("0", shape=pixels.shape, dtype=pixels.dtype, chunks=chunks)
    array[...] = pixels
    return path


@COPIED
@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_an_ome_zarr_is_a_volume_a_time_and_channel(
    tmp_path: Path, root: Path, copied: bool, version: str
) -> None:
    path = ome_zarr(tmp_path / "x.ome.zarr", TCZYX, "tczyx", version=version, omero=OMERO)
    before = tree(path)
    run = the_run(path, root, copied=copied, said=Said(session="s", embryo="e1"))
    stream = run["primary"]
    images = stream.images("volume")
    np.testing.assert_array_equal(images[:], TCZYX.reshape(6, 4, 16, 32))
    assert images.voxel_size_um == (1.5, 0.25, 0.25)
    assert stream["channel"].tolist() == ["405", "488", "561"] * 2
    assert np.diff(stream.time).tolist() == [0, 0, 30, 0, 0]
    assert remarks(path, root) == [TIME]
    (found,) = Catalog(root).volumes(session="s", embryo="e1", timepoint=1, channel="561")
    np.testing.assert_array_equal(found.array(), TCZYX[1, 2])
    hold_together(journal(run.folder))
    assert take_in(path, root) == []
    assert tree(path) == before


@COPIED
@pytest.mark.parametrize("zarr_format", [2, 3])
def test_a_zarr_array_without_metadata_is_a_volume(
    tmp_path: Path, root: Path, copied: bool, zarr_format: Any
) -> None:
    array = zarr.create_array(tmp_path / "x.zarr", shape=SHAPE, dtype="<u2", zarr_format=zarr_format)
    array[...] = volume(4)
    assert remarks(tmp_path / "x.zarr", root) == [VOXEL_SIZE, TIME]
    run = the_run(tmp_path / "x.zarr", root, copied=copied, said=MINE)
    np.testing.assert_array_equal(run["primary"].images("volume").volume(0), volume(4))
    assert run["primary"]["timepoint"].tolist() == [7]


def test_an_array_without_pixels_is_refused(tmp_path: Path, root: Path) -> None:
    zarr.create_array(tmp_path / "x.zarr", shape=(0, 4, 8, 16), dtype="<u2")
    with pytest.raises(ImportRefusedError, match="no pixels"):
        plan_import(tmp_path / "x.zarr", root)


def test_a_zarr_store_that_has_grown_is_continued(tmp_path: Path, root: Path) -> None:
    path = ome_zarr(tmp_path / "x.ome.zarr", TCZYX[:, 0], "tzyx", version="0.5")
    take_in(path, root, said=Said(embryo="e1"))
    array = zarr.open_array(path / "0")
    array.resize((3, *array.shape[1:]))
    array[2] = volume(9, array.shape[1:])
    (done,) = take_in(path, root, said=Said(embryo="e1"))
    assert done.images == 1
    (first,) = (run.uid for run in Catalog(root) if run.uid != done.uid)
    shown = " ".join(gently("show", done.uid, "--root", root).stdout.split())
    assert f"continues {first}" in shown
    assert f"imported linked, not copied, in {tmp_path}" in shown
    assert [relative.uid for relative in Catalog(root)[done.uid].parents] == [first]
    (found,) = Catalog(root).volumes(embryo="e1", timepoint=2)
    np.testing.assert_array_equal(found.array(), volume(9, (4, 16, 32)))


@pytest.mark.parametrize(
    ("attributes", "match"),
    [
        ({"plate": {}}, "holds several images"),
        ({"bioformats2raw.layout": 3}, "holds several images"),
        ({"multiscales": []}, "lack or garble"),
        ({"multiscales": [{"axes": "zyx", "datasets": [{"path": "nowhere"}]}]}, "nowhere"),
        ({"multiscales": 3}, "lack or garble"),
        ({}, "cannot be imported"),
    ],
    ids=str,
)
def test_a_zarr_store_that_is_none_of_an_image_is_refused(
    tmp_path: Path, root: Path, attributes: dict[str, Any], match: str
) -> None:
    zarr.create_group(tmp_path / "x.zarr", attributes={"ome": attributes})
    with pytest.raises(ImportRefusedError, match=match):
        plan_import(tmp_path / "x.zarr", root)
    (tmp_path / "x.zarr/zarr.json").write_text("{torn")
    with pytest.raises(ImportRefusedError, match="cannot be imported"):
        plan_import(tmp_path / "x.zarr", root)
    assert not root.exists()


def test_a_linked_zarr_store_that_is_gone_says_so(tmp_path: Path, root: Path) -> None:
    path = ome_zarr(tmp_path / "x.ome.zarr", TCZYX[0, 0], "zyx", version="0.5")
    run = the_run(path, root)
    path.rename(tmp_path / "elsewhere")
    with pytest.raises(VolumeMissingError, match=r"x\.ome\.zarr/0"):
        run["primary"].images("volume").volume(0)
    assert len(verify(root).errors) == 1


# --- at the prompt ------------------------------------------------------------------------------------------


def test_the_command_imports_a_file_under_the_names_that_are_said(tmp_path: Path, root: Path) -> None:
    path = write(tmp_path / "x.tif", volume(1))
    names = ("--session", "s", "--embryo", "e1", "--timepoint", "4")
    result = gently("import", path, "--root", root, *names, "--voxel-size", "2", "0.5", "0.5")
    assert result.returncode == 0, result.stderr
    (found,) = Catalog(root).volumes(session="s", embryo="e1", timepoint=4)
    np.testing.assert_array_equal(found.array(), volume(1))
    assert found.images.voxel_size_um == (2.0, 0.5, 0.5)
    assert Catalog(root).next_timepoint("s", "e1") == 5
