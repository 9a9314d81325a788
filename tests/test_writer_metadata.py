"""Whatever users and devices put into names and metadata: strict JSON, safe names, and back as it was."""

import datetime
import enum
import re
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import bluesky.plan_stubs as bps
import bluesky.plans as bp
import bluesky.preprocessors as bpp
import numpy as np
import ome_types
import pytest
import yaozarrs
from bluesky import Msg
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from ophyd.sim import det

from gently_bluesky import Catalog, FileWriter
from gently_bluesky.errors import DocumentError
from gently_bluesky.keep.verify import verify
from gently_bluesky.read.run import Run
from gently_bluesky.store.journal import decode_line
from gently_bluesky.store.strict_json import decode, encode, plain
from tests.data_rig import (
    Camera,
    connected,
    feed,
    hold_together,
    inline,
    journal,
    manifest,
    newest,
    record,
    run_folder,
    said_by,
    start_doc,
    volume,
)

pytestmark = pytest.mark.usefixtures("every_format")

Plan = Iterator[Msg]
HOSTILE = [
    "../../../etc/passwd",
    "/absolute",
    "a\\b",
    "XYStage:XY:31",
    "dots...",
    "trailing ",
    " leading",
    "CON",
    "nul.txt",
    "x" * 300,
    "\N{MICRO SIGN}m \N{GREEK SMALL LETTER ALPHA}",
    "new\nline\ttab\x00\x1b",
    "*?<>|\"'`$(rm -rf)",
    ".",
    "..",
    "-rf",
    "~",
    "%2F..%2F",
    "\ud800",
    "\N{GRINNING FACE}",
    "journal.jsonl",
    "manifest.jsonl",
]


class Stain(enum.Enum):
    GFP = "green"


METADATA: dict[str, Any] = {
    "nan": float("nan"),
    "infinite": [float("inf"), -float("inf")],
    "numpy": {"f4": np.float32(1.5), "i8": np.int64(-3), "u8": np.uint64(2**63), "bool": np.bool_(False)},
    "array": np.arange(6).reshape(2, 3),
    "tuple": (1, (2, 3)),
    "path": PurePosixPath("/data/x"),
    "bytes": b"\x00\xff",
    "complex": 1 + 2j,
    "when": datetime.datetime(2026, 11, 23, 18, 30, tzinfo=datetime.UTC),
    "enum": Stain.GFP,
    "set": {"b", "a"},
    "odd keys": {1: "int", 2.5: "float", True + 1: "bool", "": "empty", "$float": "nan", "a.b": 1, "a/b": 2},
    "dollar": {"$float": 1},
    "text": "\N{MICRO SIGN}\x00\x07\u2028 \N{GRINNING FACE} </script>",
    "none": None,
    "big": 10**30,
    "nested": {"a": {"b": {"c": [{"d": float("nan")}]}}},
}


def test_what_a_data_key_leaves_open_with_none_is_not_known(root: Path) -> None:
    keys = ("voxel_size_um", "exposure_ms", "stage_position_um", "z_centre_um", "view", "channel")

    def plan(writer: FileWriter) -> Plan:
        camera = inline("cam", *[volume(0)] * 2, **dict.fromkeys(keys))
        yield from bps.open_run()
        for _ in range(2):
            yield from bps.trigger_and_read([camera])
        yield from bps.close_run()

    run = record(root, plan, inline_limit_bytes=10)
    images = run["primary"]["cam"]
    assert run.exit_status == "success"
    assert (images.voxel_size_um, images.dims) == (None, ("event", "z", "y", "x"))
    np.testing.assert_array_equal(images[1], volume(0))
    assert verify(root).findings == ()


def test_metadata_of_any_kind_is_strict_json_and_comes_back(root: Path) -> None:
    with FileWriter(root) as writer:
        run_engine, documents = connected(writer)
        few = {key: value for key, value in METADATA.items() if key != "odd keys"}  # event-model wants text
        run_engine.md["of the engine"] = few
        run_engine(bp.count([det]), given=few)
    run = newest(root)
    for place in ("of the engine", "given"):
        assert repr(run.start[place]) == repr(decode(encode(plain(few))))
    assert run.start["given"]["numpy"] == {"f4": 1.5, "i8": -3, "u8": 2**63, "bool": False}
    assert run.start["given"]["complex"] == 1 + 2j
    assert run.start["given"]["bytes"] == b"\x00\xff"
    assert run.start["given"]["dollar"] == {"$float": 1}
    assert len(journal(run.folder)) == len(documents)
    assert repr(next(iter(Catalog(root))).start) == repr(run.start)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=25)
@given(
    st.dictionaries(
        st.text(min_size=1, max_size=5),
        st.recursive(
            st.one_of(st.floats(), st.integers(), st.text(max_size=5), st.none(), st.binary(max_size=3)),
            lambda inner: st.one_of(
                st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=3), inner, max_size=3)
            ),
            max_leaves=5,
        ),
        max_size=4,
    )
)
def test_any_start_document_goes_through_journal_and_index(
    tmp_path_factory: pytest.TempPathFactory, metadata: dict[str, Any]
) -> None:
    root, start = tmp_path_factory.mktemp("any") / "root", start_doc(uid="run")
    documents = [
        ("start", {**metadata, **start}),
        ("stop", {"uid": "s", "time": 1.0, "run_start": "run", "exit_status": "success"}),
    ]
    run = feed(root, documents)
    assert repr(sorted(run.start.items())) == repr(sorted(documents[0][1].items()))
    (indexed,) = (root / "index" / "runs.jsonl").read_bytes().splitlines()
    assert repr(decode_line(indexed + b"\n")["start"]) == repr(run.start)


@pytest.mark.parametrize(
    "value", [float("nan"), float("-inf"), np.float64("nan"), np.int16(-7), np.str_("x"), b"\x00", (1, 2), 1j, ""]
)
def test_values_of_any_kind_in_events_are_strict_json_and_come_back(root: Path, value: Any) -> None:
    run = record(root, bp.count([inline("it", value)]))
    journal(run.folder)
    assert repr(run["primary"].rows[0].data["it"]) == repr(decode(encode(plain(value))))


def test_configuration_of_any_kind_is_strict_json(root: Path) -> None:
    class Odd(type(inline("x"))):  # type: ignore[misc]
        def read_configuration(self) -> dict[str, Any]:
            return {"gain": {"value": np.float32("nan"), "timestamp": 1.0}}

        def describe_configuration(self) -> dict[str, Any]:
            return {"gain": {"source": "t", "dtype": "number", "shape": []}}

    device = Odd("odd", lambda: {"odd": 1}, {"odd": {"source": "t", "dtype": "number", "shape": []}})
    run = record(root, bp.count([device]))
    assert np.isnan(run["primary"].configuration()["odd"]["gain"])


def test_a_key_of_metadata_that_json_has_no_word_for_refuses_the_run(root: Path) -> None:
    said = r"start document, 'grid' has the key \(1, 2\) of type tuple"
    with FileWriter(root) as writer, pytest.raises(DocumentError, match=said):
        writer("start", start_doc(grid={(1, 2): "x"}))
    assert len(Catalog(root)) == 0


# --- names --------------------------------------------------------------------------------------------------


def names_below(folder: Path) -> list[str]:
    return [part for path in folder.rglob("*") for part in path.relative_to(folder).parts]


SAFE = re.compile(r"[A-Za-z0-9_+=.-]{1,120}")
RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)


def streamed(root: Path, keys: Sequence[str], events: int = 1, **start: Any) -> Run:
    """A run whose documents are given by hand: event-model itself refuses some of these names."""
    with FileWriter(root) as writer:
        writer("start", start_doc(uid="the run", **start))
        cameras = []
        for i, key in enumerate(keys):
            cameras.append(Camera(f"c{i}", writer))
            cameras[-1].key, cameras[-1].taken = key, 10 * i
        data_keys = {camera.key: camera.describe()[camera.key] for camera in cameras}
        data_keys["embryo"] = {"source": "t", "dtype": "string", "shape": []}
        stream = start.get("plan_name", "primary")
        common = {"run_start": "the run", "time": 1.0, "name": stream, "data_keys": data_keys}
        writer("descriptor", {"uid": "d", **common})
        for seq_num in range(1, events + 1):
            for camera in cameras:
                camera.trigger()
                for name, doc in camera.collect_asset_docs():
                    numbers = {"start": seq_num, "stop": seq_num + 1}
                    writer(
                        name, doc | ({"descriptor": "d", "seq_nums": numbers} if name == "stream_datum" else {})
                    )
            event = {"uid": f"e{seq_num}", "descriptor": "d", "time": 1.0, "seq_num": seq_num}
            writer("event", event | {"data": {"embryo": start.get("session")}, "timestamps": {"embryo": 1.0}})
        writer("stop", {"uid": "s", "time": 1.0, "run_start": "the run", "exit_status": "success"})
    return newest(root)


@pytest.mark.parametrize("name", HOSTILE, ids=range(len(HOSTILE)))
def test_a_hostile_name_is_safe_on_disk_and_found_by_its_true_self(root: Path, name: str) -> None:
    run = streamed(root, [name], plan_name=name, session=name, operator=name)
    assert {item.name for item in root.iterdir()} == {"gently.json", "runs", "index"}
    for part in names_below(root):
        assert SAFE.fullmatch(part), part
        assert not RESERVED.fullmatch(part), part
        assert not part.endswith((".", " ")), part
    np.testing.assert_array_equal(run[name][name].volume(0), volume(0))
    catalog = Catalog(root)
    assert catalog.search(plan_name=name)[0].uid == run.uid
    (found,) = catalog.volumes(session=name, embryo=name)
    assert found.data_key == name
    np.testing.assert_array_equal(found.array(), volume(0))
    assert catalog.sessions()[0].name == name
    assert catalog.sessions()[0].embryos == (name,)
    (entry,) = manifest(run.folder)
    if entry["format"] == "ome-tiff":
        ome = ome_types.from_tiff(run.folder / entry["path"])
        assert ome.images[0].name is not None
    else:
        yaozarrs.validate_zarr_store(run.folder / entry["path"])
        assert said_by(run.folder, entry)["data_key"] == name.replace("\ud800", "?")  # which has no UTF-8
    assert {finding.kind for finding in verify(root).findings} <= {"schema"}  # of event-model, about the name


@pytest.mark.parametrize("name", ["a b", "XYStage:XY:31", "\N{MICRO SIGN}m", "x" * 300, "CON"])
def test_a_hostile_name_that_the_engine_lets_through_is_recorded_by_it(root: Path, name: str) -> None:
    def plan(writer: FileWriter) -> Plan:
        camera = Camera("cam", writer, embryo=name)
        camera.key = name
        yield from bpp.run_wrapper(bps.trigger_and_read([camera], name=name), md={"plan_name": name})

    run = record(root, plan)
    np.testing.assert_array_equal(run[name][name].volume(0), volume(0))
    hold_together(journal(run.folder))


def test_names_that_differ_only_by_unsafe_letters_or_case_have_folders_of_their_own(root: Path) -> None:
    keys = ["cam:a", "cam/a", "CAM:A", "cam_a", "cam_a+2", "Cam_A+2"]
    run = streamed(root, keys, 2)
    folders = [item.name.lower() for item in run.folder.iterdir() if item.is_dir()]
    assert len(folders) == len(set(folders)) == len(keys)
    for i, key in enumerate(keys):
        for event in range(2):
            np.testing.assert_array_equal(run["primary"][key].volume(event), volume(10 * i + event))


def test_a_uid_that_looks_like_a_path_stays_inside_the_root(root: Path) -> None:
    uid = "../../../../../../tmp/evil"
    feed(
        root,
        [
            ("start", start_doc(uid=uid)),
            ("stop", {"uid": "s", "time": 1.0, "run_start": uid, "exit_status": "success"}),
        ],
    )
    assert run_folder(root).is_relative_to(root)
    assert Catalog(root)[uid].uid == uid
