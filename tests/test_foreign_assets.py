"""Assets that others wrote: journalled and indexed where they lie, and read through handlers."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import bluesky.plan_stubs as bps
import bluesky.plans as bp
import bluesky.tests.test_external_assets_and_paging as producers
import bluesky.tests.test_tiled_writer as templates
import event_model
import h5py
import numpy as np
import pytest
import suitcase.utils.tests.conftest as suitcase_data
import tifffile
import zarr
from bluesky import Msg
from ophyd.sim import SynSignal

from gently_bluesky import Catalog, FileWriter
from gently_bluesky.errors import DamagedVolumeError, UnfillableError, VolumeMissingError
from gently_bluesky.keep.verify import verify
from gently_bluesky.read.foreign import cut_of
from gently_bluesky.read.run import Run
from tests.data_rig import (
    Camera,
    as_json,
    connected,
    feed,
    hold_together,
    into,
    journal,
    manifest,
    names,
    newest,
    of,
    record,
    start_doc,
    stop_doc,
    volume,
)
from tests.devices_rig import Documents

Plan = Iterator[Msg]


@pytest.fixture(scope="module")
def assets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files that bluesky's example documents name."""
    folder = tmp_path_factory.mktemp("assets")
    rng = np.random.default_rng(7)
    with h5py.File(folder / "dataset.h5", "w") as file:
        file["entry/data/data_1"] = rng.random(3)
        file["entry/data/data_2"] = rng.integers(-10, 10, (3, 13, 17), dtype="<i8")
    with h5py.File(folder / "dataset_part2.h5", "w") as file:
        file["entry/data/data_2"] = rng.integers(-10, 10, (5, 13, 17), dtype="<i8")
    (folder / "tiff_files").mkdir()
    for i in range(3):
        tifffile.imwrite(folder / "tiff_files" / f"img_{i:05}.tif", rng.integers(0, 255, (1, 10, 15), "uint8"))
    return folder


def rendered(name: str, assets: Path) -> Documents:
    """Bluesky's example documents, about files in a folder."""
    found = [(item["name"], item["doc"]) for item in templates.render_templated_documents(name, str(assets))]
    assert len(found) > 5
    return found


# --- bluesky's examples -------------------------------------------------------------------------------------

TEMPLATES = [
    "internal_events.json",
    "external_assets.json",
    "external_assets_legacy.json",
    "external_assets_single_key.json",
]


@pytest.mark.parametrize("name", TEMPLATES)
def test_example_documents_of_bluesky_come_back_equal(root: Path, assets: Path, name: str) -> None:
    documents = rendered(name, assets)
    run = feed(root, documents)
    journalled = list(run.documents())
    assert journalled == journal(run.folder)
    expected = in_order(as_json(documents))
    assert in_order(journalled) == expected
    assert len(journalled) == len(expected)
    events = [pair for pair in documents if pair[0] in {"event", "stream_datum", "datum"}]
    assert [pair for pair in journalled if pair[0] in {"event", "stream_datum", "datum"}] == as_json(events)


def in_order(documents: Documents) -> list[tuple[str, dict[str, Any]]]:
    """By name and uid: a descriptor may wait for its first event, nothing else moves."""
    return sorted(documents, key=lambda pair: (pair[0], pair[1].get("uid", pair[1].get("datum_id", ""))))


def test_arrays_that_the_examples_name_in_hdf5_and_tiff_are_read(root: Path, assets: Path) -> None:
    run = feed(root, rendered("external_assets.json", assets))
    with h5py.File(assets / "dataset.h5") as file:
        ones, twos = file["entry/data/data_1"][:], file["entry/data/data_2"][:]
    with h5py.File(assets / "dataset_part2.h5") as file:
        more = file["entry/data/data_2"][:]
    tiffs = [tifffile.imread(assets / "tiff_files" / f"img_{i:05}.tif") for i in range(3)]
    expected = {"det-key1": ones, "det-key2": twos, "det-key3": np.stack(tiffs)}
    found = 0
    resources = {doc["uid"]: doc for doc in of(list(run.documents()), "stream_resource")}
    for name in run:
        stream = run[name]
        for key in stream.image_keys:
            for event, row in enumerate(stream.rows):
                array = stream.images(key).volume(event)
                resource = resources[row.volumes[key].resource]
                whole = more if "part2" in resource["uri"] else expected[key]
                index = row.volumes[key].index
                np.testing.assert_array_equal(np.squeeze(array), np.squeeze(whole[index]))
                found += 1
    assert found >= 8


def test_events_without_handlers_for_their_legacy_resource_say_which_is_missing(root: Path, assets: Path) -> None:
    run = feed(root, rendered("external_assets_legacy.json", assets))
    stream = run["primary"]
    (key,) = stream.image_keys
    with pytest.raises(UnfillableError, match=r"has spec '.*'; no handler reads it.*Catalog\(root, handlers="):
        stream.images(key).volume(0)
    (resource,) = of(list(run.documents()), "resource")

    class Handler:
        def __init__(self, path: str, **keywords: Any) -> None:
            assert keywords == resource["resource_kwargs"]
            self.path = path

        def __call__(self, **keywords: Any) -> Any:
            return np.full((13, 17), len(str(keywords)))

    with_handler = Catalog(root, handlers={resource["spec"]: Handler})[-1]
    images = with_handler["primary"].images(key)
    assert [int(images.volume(i)[0, 0]) for i in range(len(images))] == [
        len(str(datum["datum_kwargs"])) for datum in of(list(run.documents()), "datum")
    ]
    filled = [doc for name, doc in with_handler.documents(fill=True) if name == "event"]
    assert all(isinstance(event["data"][key], np.ndarray) for event in filled)


# --- bluesky's producers ------------------------------------------------------------------------------------


def counting(*devices: Any) -> Any:
    return bp.count(list(devices), 2)


def collecting(*devices: Any) -> Plan:
    yield from bps.open_run()
    yield from bps.declare_stream(*devices, name="main", collect=True)
    yield from bps.collect(*devices, name="main")
    yield from bps.close_run()


def collecting_old(*devices: Any) -> Plan:
    yield from bps.open_run()
    yield from bps.collect(*devices)
    yield from bps.close_run()


@pytest.mark.parametrize(
    ("plan", "kinds"),
    [
        (counting, ["StreamDatumReadableCollectable"]),
        (counting, ["PvAndStreamDatumReadable"]),
        (collecting, ["StreamDatumReadableCollectable"]),
        (collecting, ["StreamDatumReadableCollectable", "StreamDatumReadableCollectable"]),
        (collecting, ["PvCollectable"]),
        (collecting, ["PvPageCollectable"]),
        (collecting_old, ["OldPvCollectable"]),
    ],
    ids=range(7),
)
def test_every_kind_of_producer_is_journalled_as_it_was_emitted(root: Path, plan: Any, kinds: list[str]) -> None:
    with FileWriter(root) as writer:
        run_engine, documents = connected(writer)
        devices = [getattr(producers, kind)(name=f"det{i}") for i, kind in enumerate(kinds)]
        run_engine(plan(*devices))
    run = newest(root)
    assert in_order(list(run.documents())) == in_order(as_json(documents))
    assert run.exit_status == "success"
    for name in run:
        assert len(run[name]) > 0, name


@pytest.mark.parametrize("kind", ["DatumReadable", "PvAndDatumReadable"])
def test_legacy_producers_are_journalled_and_say_what_cannot_be_read(root: Path, kind: str) -> None:
    with FileWriter(root) as writer:
        run_engine, documents = connected(writer)
        run_engine(bp.count([getattr(producers, kind)(name="det")]))
    run = newest(root)
    assert in_order(list(run.documents())) == in_order(as_json(documents))
    (entry,) = manifest(run.folder)
    assert entry == {
        "bytes": 0,
        "resource": "RESOURCEUID",
        "uri": "file://localhost/path.h5",
        "format": "ADHDF5_SWMR",
        "state": "foreign",
    }
    with pytest.raises(UnfillableError, match="has spec 'ADHDF5_SWMR'"):
        run["primary"].images("det-datum").volume(0)


def test_a_stream_resource_that_nobody_reads_says_its_mimetype_and_place(root: Path) -> None:
    run = foreign(root, "application/x-unheard-of", f"file://localhost{root}/x", {})
    said = r"mimetype 'application/x-unheard-of'; no handler reads it.*It lies at file://localhost.*root/x"
    with pytest.raises(UnfillableError, match=said):
        run["primary"].images("img").volume(0)
    assert manifest(run.folder)[0]["state"] == "foreign"


def test_a_stream_resource_that_lies_nowhere_here_says_so(root: Path) -> None:
    run = foreign(root, "application/x-hdf5", "s3://bucket/x.h5", {"dataset": "/x"})
    with pytest.raises(UnfillableError, match=r"lies at s3://bucket/x\.h5, not in a file"):
        run["primary"].images("img").volume(0)


def test_a_foreign_file_that_is_gone_says_so(root: Path, tmp_path: Path) -> None:
    run = foreign(root, "application/x-hdf5", f"file://localhost{tmp_path}/gone.h5", {"dataset": "/x"})
    with pytest.raises(VolumeMissingError, match=r"gone\.h5"):
        run["primary"].images("img").volume(0)


def test_a_handler_of_the_user_s_reads_any_mimetype(root: Path, tmp_path: Path) -> None:
    foreign(root, "application/x-mine", f"file://localhost{tmp_path}/some file", {"scale": 3})

    class Mine:
        def __init__(self, path: Any, scale: int) -> None:
            assert Path(path) == tmp_path / "some file"
            self.scale = scale

        def __call__(self, indices: range) -> Any:
            return np.full((2, 3), self.scale * indices.start)

    images = Catalog(root, handlers={"application/x-mine": Mine})[-1]["primary"].images("img")
    assert images.volume(1).tolist() == [[3] * 3] * 2
    assert images[:, 0, 0].tolist() == [0, 3]


def foreign(
    root: Path, mimetype: str, uri: str, parameters: dict[str, Any], shape: Any = (2, 3), dtype: str = "<i8"
) -> Run:
    """A run with two events whose images somebody else wrote."""
    run = event_model.compose_run()
    key: Any = {"source": "t", "dtype": "array", "shape": list(shape), "dtype_numpy": dtype, "external": "STREAM:"}
    stream = run.compose_descriptor(name="primary", data_keys={"img": key})
    resource = event_model.compose_stream_resource(
        mimetype=mimetype, uri=uri, data_key="img", parameters=parameters, start=run.start_doc
    )
    documents: list[tuple[str, Any]] = [("start", run.start_doc), ("descriptor", stream.descriptor_doc)]
    documents.append(("stream_resource", resource.stream_resource_doc))
    for i in range(2):
        ranges: Any = {"start": i, "stop": i + 1}
        datum = resource.compose_stream_datum(indices=ranges, seq_nums={"start": i + 1, "stop": i + 2})
        documents.append(("stream_datum", {**datum, "descriptor": stream.descriptor_doc["uid"]}))
        documents.append(("event", stream.compose_event(data={}, timestamps={})))
    found = feed(root, [*documents, ("stop", run.compose_stop())])
    hold_together(list(found.documents()))
    return found


@pytest.mark.parametrize("per_event", [1, 3])
@pytest.mark.parametrize("join", ["concat", None])
def test_hdf5_of_several_frames_an_event_is_cut_at_its_events(
    root: Path, tmp_path: Path, per_event: int, join: str | None
) -> None:
    frames = np.arange(2 * per_event * 2 * 3).reshape(2 * per_event, 2, 3)
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["data"] = frames
    parameters = {"dataset": "/data", "chunk_shape": [1, 2, 3]} | ({"join_method": join} if join else {})
    uri = f"file://localhost{tmp_path}/x.h5"
    images = foreign(root, "application/x-hdf5", uri, parameters, (per_event, 2, 3))["primary"].images("img")
    for i in range(2):
        np.testing.assert_array_equal(images.volume(i), frames[i * per_event : (i + 1) * per_event])


@pytest.mark.parametrize(
    ("template", "per_file", "join"),
    [
        ("{:05d}.tif", 1, "stack"),
        ("img_%05d.tif", 1, "stack"),
        ("{:d}.tif", 1, "concat"),
        ("{:d}.tif", 2, "concat"),
        ("{:d}.tif", 4, "concat"),
    ],
)
def test_tiff_sequences_are_cut_at_their_events(
    root: Path, tmp_path: Path, template: str, per_file: int, join: str
) -> None:
    frames = np.arange(4 * 5 * 6, dtype="<u2").reshape(4, 5, 6)
    name = template.format if "{" in template else lambda i: template % i
    per_event = 2
    if join == "stack":
        for i in range(2):
            tifffile.imwrite(tmp_path / name(i), frames[2 * i : 2 * i + 2])
    else:
        for i in range(4 // per_file):
            part = frames[i * per_file : (i + 1) * per_file]
            tifffile.imwrite(tmp_path / name(i), part if per_file > 1 else part[0], photometric="minisblack")
    chunk = [1, per_event, 5, 6] if join == "stack" else [per_file, 5, 6]
    parameters = {"template": template, "chunk_shape": chunk, "join_method": join}
    uri = f"file://localhost{tmp_path}/"
    run = foreign(root, "multipart/related;type=image/tiff", uri, parameters, (per_event, 5, 6))
    for i in range(2):
        np.testing.assert_array_equal(run["primary"].images("img").volume(i), frames[2 * i : 2 * i + 2])


def test_a_compressed_tiff_of_others_is_read_too(root: Path, tmp_path: Path) -> None:
    frames = np.arange(2 * 2 * 5 * 6, dtype="<u2").reshape(2, 2, 5, 6)
    for i in range(2):
        tifffile.imwrite(tmp_path / f"{i}.tif", frames[i], compression="zlib")
    parameters = {"template": "{:d}.tif", "chunk_shape": [1, 2, 5, 6], "join_method": "stack"}
    uri = f"file://localhost{tmp_path}/"
    run = foreign(root, "multipart/related;type=image/tiff", uri, parameters, (2, 5, 6))
    np.testing.assert_array_equal(run["primary"].images("img")[:], frames)


@pytest.mark.parametrize("compression", ["zlib", None])
def test_a_part_of_a_file_is_read_where_a_slice_says_so(
    root: Path, tmp_path: Path, compression: str | None
) -> None:
    frames = np.arange(2 * 4 * 5 * 6, dtype="<u2").reshape(2, 4, 5, 6)
    tifffile.imwrite(tmp_path / "x.tif", frames, compression=compression, photometric="minisblack")
    parameters = {"template": "x.tif", "join_method": "stack"}
    for number, (cut, expected) in enumerate(
        {"1": frames[1], "0,1:3": frames[0, 1:3], "...,:3": frames[..., :3]}.items()
    ):
        run = foreign(
            root / str(number),
            "multipart/related;type=image/tiff",
            f"file://localhost{tmp_path}/",
            parameters | {"slice": cut},
            expected.shape,
            "<u2",
        )
        np.testing.assert_array_equal(run["primary"].images("img").volume(0), expected)


@pytest.mark.parametrize(
    "cut", ["x", "1;2", "-1", "1:2:3", "0,0,0,0,0", "9", "None", "__import__('os')", 3, None, []]
)
def test_a_slice_that_is_none_is_an_error_that_names_its_resource(root: Path, tmp_path: Path, cut: Any) -> None:
    tifffile.imwrite(tmp_path / "x.tif", np.zeros((4, 5, 6), "<u2"), photometric="minisblack")
    parameters = {"template": "x.tif", "join_method": "stack", "slice": cut}
    run = foreign(root, "multipart/related;type=image/tiff", f"file://localhost{tmp_path}/", parameters, (4, 5, 6))
    with pytest.raises(UnfillableError, match=r"Stream resource .* cannot be read"):
        run["primary"].images("img").volume(0)


def test_a_tiff_of_others_that_was_cut_short_is_never_served(root: Path, tmp_path: Path) -> None:
    for i, compression in enumerate(["zlib", None]):
        path = tmp_path / f"{i}.tif"
        tifffile.imwrite(path, volume(i, (8, 32, 32)), compression=compression, photometric="minisblack")
        with path.open("r+b") as file:
            file.truncate(path.stat().st_size // 2)
    parameters = {"template": "{:d}.tif", "chunk_shape": [1, 8, 32, 32], "join_method": "stack"}
    run = foreign(
        root, "multipart/related;type=image/tiff", f"file://localhost{tmp_path}/", parameters, (8, 32, 32)
    )
    for i in range(2):
        with pytest.raises(UnfillableError, match="cannot be read"):
            run["primary"].images("img").volume(i)


PARTS: list[Any] = [
    np.s_[2], np.s_[2, 3], np.s_[2, 3, 4], np.s_[-1, -2, -3], np.s_[:, 3], np.s_[:, :, 4], np.s_[1:3, ::2, 5],
    np.s_[::-1, ::-3, 10:2:-1], np.s_[3:3], np.s_[:, 2:2], np.s_[1:, 1:5, 2:7], np.s_[:],
]  # fmt: skip


@pytest.mark.parametrize("cut", ["...", "1", ":,1:6", "...,2:9,4:"])
@pytest.mark.parametrize("options", [{"compression": "zlib"}, {"tile": (16, 16)}], ids=str)
def test_compressed_planes_are_indexed_as_arrays_are(
    root: Path, tmp_path: Path, cut: str, options: dict[str, Any]
) -> None:
    whole = np.arange(4 * 6 * 12 * 16, dtype="<u2").reshape(4, 6, 12, 16)
    tifffile.imwrite(tmp_path / "x.tif", whole, photometric="minisblack", **options)
    expected = whole[cut_of(cut)]
    uri, parameters = f"file://localhost{tmp_path}/", {"template": "x.tif", "join_method": "stack", "slice": cut}
    run = foreign(root, "multipart/related;type=image/tiff", uri, parameters, expected.shape, "<u2")
    images = run["primary"].images("img")
    for part in PARTS:
        np.testing.assert_array_equal(images[(0, *(part if isinstance(part, tuple) else (part,)))], expected[part])
    np.testing.assert_array_equal(images.volume(1), expected)
    np.testing.assert_array_equal(images.to_dask()[0].compute(), expected)


def test_a_plane_of_a_compressed_tiff_is_decoded_alone(root: Path, tmp_path: Path) -> None:
    frames = volume(3, (8, 32, 32))
    tifffile.imwrite(tmp_path / "x.tif", frames, compression="zlib", photometric="minisblack")
    with tifffile.TiffFile(tmp_path / "x.tif") as file:
        offset = file.pages[5].dataoffsets[0]
    with (tmp_path / "x.tif").open("r+b") as raw:
        raw.seek(offset)
        raw.write(bytes(20))
    uri, parameters = f"file://localhost{tmp_path}/", {"template": "x.tif", "join_method": "stack"}
    images = foreign(root, "multipart/related;type=image/tiff", uri, parameters, (8, 32, 32))["primary"].images(
        "img"
    )
    np.testing.assert_array_equal(images[0, 4], frames[4])
    with pytest.raises(DamagedVolumeError, match=r"x\.tif cannot be decoded"):
        images[0, 5]
    with pytest.raises(DamagedVolumeError, match=r"x\.tif cannot be decoded"):
        images.volume(0)


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_zarr_of_others_is_read_event_by_event(root: Path, tmp_path: Path, zarr_format: Any) -> None:
    frames = np.arange(2 * 4 * 5 * 6, dtype="<u2").reshape(2, 4, 5, 6)
    zarr.create_array(tmp_path / "x.zarr", data=frames, zarr_format=zarr_format)
    images = foreign(root, "application/x-zarr", f"file://localhost{tmp_path}/x.zarr", {}, (4, 5, 6))[
        "primary"
    ].images("img")
    np.testing.assert_array_equal(images[:], frames)


def test_verify_names_every_file_of_others_that_is_gone(root: Path, tmp_path: Path) -> None:
    parameters = {"template": "{:d}.tif", "chunk_shape": [1, 4, 8, 16], "join_method": "stack"}
    tifffile.imwrite(tmp_path / "0.tif", volume(0), photometric="minisblack")
    foreign(root, "multipart/related;type=image/tiff", f"file://localhost{tmp_path}/", parameters, (4, 8, 16))
    assert [finding.where for finding in verify(root).errors] == [str(tmp_path / "1.tif")]


# --- area detectors -----------------------------------------------------------------------------------------


def legacy(root: Path, resource: dict[str, Any], datums: list[dict[str, Any]], shape: tuple[int, ...]) -> Run:
    """A run whose events name datums of one resource."""
    run = event_model.compose_run()
    key: Any = {"source": "t", "dtype": "array", "shape": list(shape), "external": "FILESTORE:"}
    stream = run.compose_descriptor(name="primary", data_keys={"img": key})
    composed = run.compose_resource(**resource)
    documents: list[tuple[str, Any]] = [("start", run.start_doc), ("descriptor", stream.descriptor_doc)]
    documents.append(("resource", composed.resource_doc))
    for keywords in datums:
        datum = composed.compose_datum(datum_kwargs=keywords)
        documents.append(("datum", datum))
        event = stream.compose_event(
            data={"img": datum["datum_id"]}, timestamps={"img": 1.0}, filled={"img": False}
        )
        documents.append(("event", event))
    found = feed(root, [*documents, ("stop", run.compose_stop())])
    hold_together(list(found.documents()))
    assert list(found.documents()) == [*as_json(documents), ("stop", found.stop or {})]
    return found


def test_area_detector_tiffs_are_read_through_their_handler(root: Path, tmp_path: Path) -> None:
    frames = np.arange(4 * 5 * 6, dtype="<u2").reshape(4, 5, 6)
    for i in range(4):
        tifffile.imwrite(tmp_path / f"x_{i:06d}.tiff", frames[i])
    keywords = {"template": "%s%s_%6.6d.tiff", "filename": "x", "frame_per_point": 2}
    resource = {"spec": "AD_TIFF", "root": "/", "resource_path": str(tmp_path)[1:], "resource_kwargs": keywords}
    run = legacy(root, resource, [{"point_number": i} for i in range(2)], (2, 5, 6))
    images = run["primary"].images("img")
    for i in range(2):
        np.testing.assert_array_equal(images.volume(i), frames[2 * i : 2 * i + 2])
    np.testing.assert_array_equal(images[1, 1], frames[3])
    assert images.shape == (2, 2, 5, 6)


@pytest.mark.parametrize("spec", ["AD_HDF5", "AD_HDF5_SWMR"])
def test_area_detector_hdf5_is_read_through_its_handler(root: Path, tmp_path: Path, spec: str) -> None:
    frames = np.arange(4 * 5 * 6, dtype="<u2").reshape(4, 5, 6)
    with h5py.File(tmp_path / "x.h5", "w", libver="latest") as file:
        file["entry/data/data"] = frames
    keywords = {"frame_per_point": 2}
    resource = {"spec": spec, "root": str(tmp_path), "resource_path": "x.h5", "resource_kwargs": keywords}
    run = legacy(root, resource, [{"point_number": i} for i in range(2)], (2, 5, 6))
    for i in range(2):
        np.testing.assert_array_equal(run["primary"].images("img").volume(i), frames[2 * i : 2 * i + 2])


def test_legacy_files_that_are_gone_say_so(root: Path, tmp_path: Path) -> None:
    resource = {"spec": "AD_HDF5", "root": str(tmp_path), "resource_path": "gone.h5", "resource_kwargs": {}}
    run = legacy(root, resource, [{"point_number": 0}], (1, 5, 6))
    with pytest.raises(VolumeMissingError, match=r"Resource .* of run"):
        run["primary"].images("img").volume(0)


def test_a_datum_that_never_came_says_so(root: Path) -> None:
    run = event_model.compose_run()
    key: Any = {"source": "t", "dtype": "array", "shape": [2], "external": "FILESTORE:"}
    stream = run.compose_descriptor(name="primary", data_keys={"img": key})
    event = stream.compose_event(data={"img": "nowhere/0"}, timestamps={"img": 1.0}, filled={"img": False})
    documents: list[tuple[str, Any]] = [("start", run.start_doc), ("descriptor", stream.descriptor_doc)]
    found = feed(root, [*documents, ("event", event), ("stop", run.compose_stop())])
    with pytest.raises(UnfillableError, match="has no datum 'nowhere/0'"):
        found["primary"].images("img").volume(0)


def test_a_resource_of_an_earlier_run_of_one_stage_does_not_stop_the_next(root: Path) -> None:
    with FileWriter(root) as writer:
        for number in (1, 2):
            run = f"run {number}"
            keys = {"img": {"source": "t", "dtype": "array", "shape": [2], "external": "FILESTORE:"}}
            writer("start", start_doc(uid=run, scan_id=number))
            writer(
                "descriptor", {"uid": f"d{number}", "run_start": run, "time": 1.0, "name": "p", "data_keys": keys}
            )
            if number == 1:
                resource = {"uid": "r", "spec": "X", "root": "/", "resource_path": "x", "resource_kwargs": {}}
                writer("resource", resource | {"run_start": run, "path_semantics": "posix"})
            datum_id = f"r/{number}"
            writer("datum", {"datum_id": datum_id, "resource": "r", "datum_kwargs": {}})
            event = {"uid": f"e{number}", "descriptor": f"d{number}", "seq_num": 1, "time": 1.0}
            data = {"data": {"img": datum_id}, "timestamps": {"img": 1.0}, "filled": {"img": False}}
            writer("event", event | data)
            writer("stop", stop_doc(run))
    second = Catalog(root)[2]
    assert names(list(second.documents())) == ["start", "descriptor", "datum", "event", "stop"]
    with pytest.raises(UnfillableError, match=r"Resource r .* came in none of its documents"):
        second["p"].images("img").volume(0)


def test_images_of_ours_beside_a_legacy_resource_are_read_as_ever(root: Path) -> None:
    def plan(writer: FileWriter) -> Plan:
        return bp.count([Camera("cam", writer), producers.DatumReadable(name="det")])

    run = record(root, plan)
    np.testing.assert_array_equal(run["primary"].images("cam_image").volume(0), volume(0))
    assert [entry["state"] for entry in manifest(run.folder)] == ["sealed", "foreign"]


def test_bulk_datums_and_datum_pages_are_datums(root: Path) -> None:
    run = event_model.compose_run()
    key: Any = {"source": "t", "dtype": "array", "shape": [2], "external": "FILESTORE:"}
    stream = run.compose_descriptor(name="primary", data_keys={"img": key})
    composed = run.compose_resource(spec="X", root="/", resource_path="x", resource_kwargs={})
    datums = [composed.compose_datum(datum_kwargs={"n": i}) for i in range(4)]
    events = [
        stream.compose_event(data={"img": datum["datum_id"]}, timestamps={"img": 1.0}, filled={"img": False})
        for datum in datums
    ]
    uid = composed.resource_doc["uid"]
    bulk = {
        "resource": uid,
        "datum_ids": [datum["datum_id"] for datum in datums[2:]],
        "datum_kwarg_list": [datum["datum_kwargs"] for datum in datums[2:]],
    }
    documents: list[tuple[str, Any]] = [
        ("start", run.start_doc),
        ("descriptor", stream.descriptor_doc),
        ("resource", composed.resource_doc),
        ("datum_page", event_model.pack_datum_page(*datums[:2])),
        ("bulk_datum", bulk),
        *[("event", event) for event in events],
        ("stop", run.compose_stop()),
    ]
    feed(root, documents)

    class Numbers:
        def __init__(self, path: str) -> None:
            pass

        def __call__(self, n: int) -> Any:
            return np.array([n, n])

    images = Catalog(root, handlers={"X": Numbers})[-1]["primary"].images("img")
    assert [images.volume(i).tolist() for i in range(4)] == [[i, i] for i in range(4)]


# --- suitcase's examples ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "plan", ["simple_plan", "multi_stream_one_descriptor_plan", "one_stream_multi_descriptors_plan"]
)
@pytest.mark.parametrize("devices", ["_make_single", "_make_image", "_make_image_list"])
@pytest.mark.parametrize("piece", ["event", "event_page", "bulk_events"])
def test_example_data_of_suitcase_comes_back(root: Path, plan: str, devices: str, piece: str) -> None:
    """Equal but for the descriptors of arrays: those now say the shape and dtype that came."""
    with FileWriter(root / "emitted") as writer:
        run_engine, documents = connected(writer)
        make: Any = getattr(suitcase_data, plan)
        run_engine(make(getattr(suitcase_data, devices)([])))
    given = list(documents)
    if piece != "event":
        events = of(documents, "event")
        streams = {descriptor["uid"] for descriptor in of(documents, "descriptor")}
        given = [pair for pair in documents if pair[0] not in {"event", "stop"}]
        for uid in streams:
            mine = [event for event in events if event["descriptor"] == uid]
            if mine:
                packed: Any = event_model.pack_event_page(*mine) if piece == "event_page" else {"x": mine}
                given.append((piece, packed))
        given += [pair for pair in documents if pair[0] == "stop"]
    run = feed(root / "fed", given)
    for name in ("start", "stop"):
        assert of(list(run.documents()), name) == of(as_json(documents), name)
    emitted = {doc["uid"]: doc for doc in of(as_json(documents), "descriptor")}
    for descriptor in of(list(run.documents()), "descriptor"):
        original = emitted[descriptor["uid"]]
        for key, entry in descriptor["data_keys"].items():
            said = original["data_keys"][key]
            if devices == "_make_image":
                assert (entry["shape"], entry["dtype_numpy"]) == ([10, 10], "<f8")
                said = said | {"dtype": "array", "shape": [10, 10], "dtype_numpy": "<f8"}
            assert entry == said
        assert {**descriptor, "data_keys": {}} == {**original, "data_keys": {}}
    unpacked: dict[str, Any] = {}
    for name in run:
        for row in run[name].rows:
            unpacked[str(row.uid)] = row.data
    assert unpacked == {event["uid"]: event["data"] for event in of(as_json(documents), "event")}


def test_images_of_suitcase_that_are_large_are_equal_in_their_files(root: Path) -> None:
    rng = np.random.default_rng(3)
    made: list[Any] = []

    def image() -> Any:
        made.append(rng.random((120, 130)))
        return made[-1]

    device = SynSignal(name="img", func=image)
    run = record(root, bp.count([device], 3))
    images = run["primary"].images("img")
    np.testing.assert_array_equal(images[:], np.stack(made[-3:]))


def test_foreign_assets_replayed_into_another_root_are_found_where_they_lie(
    root: Path, tmp_path: Path, assets: Path
) -> None:
    run = feed(root, rendered("external_assets.json", assets))
    second = into(run, tmp_path / "second")
    assert list(second.documents()) == list(run.documents())
    for name in run:
        for key in run[name].image_keys:
            for event in range(len(run[name])):
                np.testing.assert_array_equal(
                    second[name].images(key).volume(event), run[name].images(key).volume(event)
                )
