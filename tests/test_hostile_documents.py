"""Documents, manifests and roots from whoever means harm, or does not know what he does.

Nothing is written outside the root, and nothing outside of it is read through a manifest, a link or a template
that leads out of its folder. What cannot be journalled is refused with its name, the run is no success, and what
was journalled before is read as it was.
"""

import copy
import itertools
import json
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gently_bluesky import Catalog, FileWriter
from gently_bluesky.errors import (
    DocumentError,
    GentlyError,
    JournalError,
    RootError,
    UnfillableError,
    VolumeMissingError,
    WriterFailedError,
)
from gently_bluesky.store.audit import append_audit
from gently_bluesky.store.documents import check_document, shown
from gently_bluesky.store.index import reindex, run_folders
from gently_bluesky.store.journal import encode_line
from gently_bluesky.store.layout import name_from_template
from gently_bluesky.store.manifest import read_manifest
from gently_bluesky.store.tags import add_note
from tests.conftest import Campaign
from tests.data_rig import journal, names, run_folder, start_doc, volume

BOTH = pytest.mark.usefixtures("every_format")

Doc = dict[str, Any]
Tree = dict[str, Any]

DAY = "runs/2026/11/23"
ONE_IN = 5  # of all pairs of a place and a value, where not all are tried


def tree(folder: Path, *, but: Path) -> Tree:
    """Everything in a folder but for what is under one of its own, to the byte."""
    found: Tree = {}
    for path in sorted(folder.rglob("*")):
        if path != but and not path.is_relative_to(but):
            link = os.readlink(path) if path.is_symlink() else None  # noqa: PTH115 - as text
            found[path.relative_to(folder).as_posix()] = link or (
                path.read_bytes() if path.is_file() else "folder"
            )
    return found


@pytest.fixture
def outside(tmp_path: Path) -> Iterator[Path]:
    """A folder beside the root that holds a secret; fails the test if anything beside the root changes."""
    folder = tmp_path / "outside"
    folder.mkdir()
    np.save(folder / "secret0.npy", volume(99))
    (folder / "precious.jsonl").write_bytes(b'{"precious":1}\ntorn')
    before = tree(tmp_path, but=tmp_path / "root")
    yield folder
    after = tree(tmp_path, but=tmp_path / "root")
    after.pop("root", None)
    assert after == before


# --- anything, anywhere -------------------------------------------------------------------------------------


class Strange:
    """Something that no document holds."""

    def __repr__(self) -> str:
        return "something strange"


def cycle() -> list[Any]:
    cyclic: list[Any] = []
    cyclic.append(cyclic)
    return cyclic


def nested(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = [value]
    return value


MISSING = Strange()

BAD: Mapping[str, Any] = {
    "nothing": None,
    "a number": 3,
    "a negative number": -1,
    "a huge integer": 10**5000,
    "infinity": float("inf"),
    "nan": float("nan"),
    "truth": True,
    "text": "x",
    "no text": "",
    "a path that climbs": "../../../../outside/evil",
    "an absolute path": "/evil/x",
    "a drive": "C:\\evil",
    "NUL": "a\0b",
    "a lone surrogate": "\ud800",
    "long text": "x" * 100_000,
    "bytes": b"x",
    "a list": [1, [2]],
    "an empty object": {},
    "an object": {"start": "0", "stop": 10**12},
    "keys that are no text": {1: 2, (1, 2): 3},
    "a cycle": cycle(),
    "a million levels": nested(100_000),
    "an array": np.zeros((3, 3)),
    "a set": {1, "a"},
    "something strange": Strange(),
    "nothing at all": MISSING,
}


def a_run() -> dict[str, Doc]:
    """A run with a document of each kind, by its kind."""
    number, array = (
        {"source": "t", "dtype": "number", "shape": []},
        {"source": "t", "dtype": "array", "shape": [2]},
    )
    return {
        "start": start_doc(uid="the-run", session="s", embryo="e"),
        "descriptor": {
            "uid": "d",
            "run_start": "the-run",
            "time": 1.0,
            "name": "primary",
            "data_keys": {"x": number, "big": dict(number), "alien": {**array, "external": "STREAM:"}},
            "configuration": {
                "dev": {"data": {"c": 1}, "timestamps": {"c": 1.0}, "data_keys": {"c": dict(number)}}
            },
            "object_keys": {"dev": ["x"]},
            "hints": {"dev": {"fields": ["x"]}},
        },
        "stream_resource": {
            "uid": "r",
            "run_start": "the-run",
            "data_key": "alien",
            "mimetype": "multipart/related;type=application/x-npy",
            "uri": "file://localhost/nowhere/",
            "parameters": {"template": "{:03d}.npy", "join_method": "stack", "chunk_shape": [1, 2]},
        },
        "stream_datum": {
            "uid": "r/0",
            "stream_resource": "r",
            "descriptor": "d",
            "indices": {"start": 0, "stop": 1},
            "seq_nums": {"start": 1, "stop": 2},
        },
        "resource": {
            "uid": "o",
            "run_start": "the-run",
            "spec": "S",
            "root": "/nowhere",
            "resource_path": "p",
            "resource_kwargs": {"k": 1},
            "path_semantics": "posix",
        },
        "datum": {"datum_id": "o/0", "resource": "o", "datum_kwargs": {"k": 1}},
        "datum_page": {"datum_id": ["o/1"], "resource": "o", "datum_kwargs": {"k": [1]}},
        "event": {
            "uid": "e1",
            "descriptor": "d",
            "seq_num": 1,
            "time": 2.0,
            "data": {"x": 1, "big": np.zeros((9, 9)), "timepoint": 0, "embryo": "e"},
            "timestamps": {"x": 1.0, "big": 1.0, "timepoint": 1.0, "embryo": 1.0},
            "filled": {},
        },
        "event_page": {
            "uid": ["e2"],
            "descriptor": "d",
            "seq_num": [2],
            "time": [2.0],
            "data": {"x": [1]},
            "timestamps": {"x": [1.0]},
            "filled": {},
        },
        "stop": {"uid": "s", "run_start": "the-run", "time": 3.0, "exit_status": "success"},
    }


def places(doc: Doc, before: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Every place in a document."""
    for key, value in doc.items():
        yield (*before, key)
        if isinstance(value, dict):
            yield from places(value, (*before, key))


def spoilt(doc: Doc, place: tuple[str, ...], value: Any) -> Doc:
    """A copy with another value in one place, or without it."""
    doc = copy.deepcopy(doc)
    *outer, last = place
    inner = doc
    for key in outer:
        inner = inner[key]
    if value is MISSING:
        del inner[last]
    else:
        inner[last] = value
    return doc


def ask_everything(catalog: Catalog) -> list[str]:
    """Ask all that can be asked of a catalog and its runs; give the uids."""
    uids = []
    for run in catalog.search():
        uids.append(run.uid)
        repr(run)
        list(run.documents())
        for name in run:
            stream = run[name]
            repr(stream)
            assert len(stream) == len(stream.rows) == len(stream.time) == len(stream.seq_num)
            for key, entry in stream.data_keys.items():
                for position in range(len(stream)):
                    if entry.get("external"):
                        with_pixels_or_an_error(stream.images(key).volume, position)
                    else:
                        stream[key]
            if len(stream):
                stream.configuration(-1)
    catalog.volumes(include_bad=True)
    catalog.sessions()
    catalog.timepoints("s", "e")
    catalog.next_timepoint("s", "e")
    catalog.next_scan_id()
    catalog.search(embryo="e", session="s")
    return uids


def with_pixels_or_an_error(read: Callable[[int], Any], position: int) -> None:
    try:
        np.asarray(read(position)).sum()
    except GentlyError:
        return


@pytest.mark.parametrize("kind", list(a_run()))
@pytest.mark.parametrize("one_in", [ONE_IN, pytest.param(1, marks=[pytest.mark.long, pytest.mark.timeout(1800)])])
def test_a_document_with_anything_anywhere_is_journalled_or_refused_by_its_name(
    kind: str, one_in: int, tmp_path: Path, outside: Path, campaign: Campaign
) -> None:
    cases = list(itertools.product(places(a_run()[kind]), BAD))
    refused = 0
    for number, (place, what) in enumerate(cases[:: 1 if one_in == 1 else one_in]):
        said = f"{kind} with {what} in {place}"
        root = tmp_path / "root" / f"{number}"
        good: list[str] = []
        errors: list[tuple[str, str]] = []
        with FileWriter(root, inline_limit_bytes=16, durability="run") as writer:
            for name, doc in a_run().items():
                astray = [text for _, text in errors if "this writer has not received" in text]
                if name == "stop" and astray:  # whose it was the writer cannot know; the RunEngine was told
                    doc["exit_status"] = "fail"
                try:
                    writer(name, spoilt(doc, place, BAD[what]) if name == kind else doc)
                except GentlyError as error:
                    errors.append((name, str(error)))
                else:
                    good += [name] if len(errors) == len(astray) else []
        assert all(0 < len(text) < 2000 for _, text in errors), said
        assert not errors or errors[0][0] != kind or kind in errors[0][1].lower(), f"{said}: {errors[0]}"
        refused += bool(errors)
        uids = ask_everything(Catalog(root))
        assert len(uids) == ("start" in good), said
        if uids:
            run = Catalog(root)[-1]
            assert run.exit_status in ({None, "fail"} if errors else {run.exit_status}), said
            happened = [name for name in names(list(run.documents())) if name in {"start", "event", "event_page"}]
            assert happened == [name for name in good if name in {"start", "event", "event_page"}], said
    campaign.count("documents with something wrong", states=number + 1, refused=refused)


@pytest.mark.parametrize("kind", list(a_run()))
@pytest.mark.parametrize("doc", [None, 3, "text", [], [("uid", "x")], {}], ids=repr)
def test_what_is_no_document_at_all_is_refused(root: Path, kind: str, doc: Any) -> None:
    with FileWriter(root, durability="run") as writer:
        writer("start", start_doc(uid="the-run"))
        with pytest.raises(DocumentError):
            writer(kind, doc)


def test_an_event_that_makes_no_sense_ends_the_run_as_failed_and_what_came_before_is_read(root: Path) -> None:
    documents = a_run()
    event = documents["event"]
    with FileWriter(root, inline_limit_bytes=16) as writer:
        for name in ("start", "descriptor", "event"):
            writer(name, documents[name])
        with pytest.raises(
            DocumentError, match=r"event 'second' has a list as its 'seq_num', which should be an int"
        ):
            writer("event", {**event, "uid": "second", "seq_num": [2]})
        with pytest.raises(WriterFailedError, match=r"event 'second'"):
            writer("event", {**event, "uid": "third", "seq_num": 3})
        writer("stop", documents["stop"])
    run = Catalog(root)[-1]
    assert (run.exit_status, run["primary"].images("big").shape) == ("fail", (1, 9, 9))


@pytest.mark.parametrize(
    "value", [cycle(), nested(101), {"x": Strange()}, {(1, 2): 3}, {"n": 10**5000}, {1: 1, "1": 2}]
)
def test_what_has_no_spelling_in_a_start_is_refused_before_there_is_a_folder(root: Path, value: Any) -> None:
    with FileWriter(root) as writer, pytest.raises(DocumentError, match="start document"):
        writer("start", start_doc(md=value))
    assert not list(root.glob("runs/*"))


def test_fifty_megabytes_of_text_are_stored_where_they_may_stand(root: Path) -> None:
    text, documents = "\N{MICRO SIGN}x" * 25_000_000, a_run()
    with FileWriter(root, inline_limit_bytes=16, durability="run") as writer:
        writer("start", {**documents["start"], "plan_name": text, "note": {"deep": [text]}})
        writer("descriptor", documents["descriptor"])
        event = documents["event"]
        writer("event", {**event, "data": {**event["data"], "x": text}})
        writer("stop", documents["stop"])
    run = Catalog(root)[-1]
    assert run.start["plan_name"] == run.start["note"]["deep"][0] == text
    assert run["primary"].rows[0].data["x"] == text
    assert run["primary"].images("big").shape == (1, 9, 9)
    assert sum(path.stat().st_size for path in run.folder.glob("*/*.npy")) < 100_000


@pytest.mark.parametrize("place", [("uid",), ("name",), ("data_keys", "x")])
def test_fifty_megabytes_are_no_name(root: Path, place: tuple[str, ...]) -> None:
    documents, text = a_run(), "x" * 50_000_000
    descriptor = documents["descriptor"]
    if place == ("data_keys", "x"):
        descriptor["data_keys"][text] = descriptor["data_keys"].pop("x")
    else:
        descriptor[place[0]] = text
    with FileWriter(root, durability="run") as writer:
        writer("start", documents["start"])
        with pytest.raises(DocumentError, match=f"descriptor.*as its '{place[0]}'") as caught:
            writer("descriptor", descriptor)
        assert len(str(caught.value)) < 1000


def test_a_datum_of_more_volumes_than_there_can_be_is_refused_and_takes_no_time(root: Path) -> None:
    documents = a_run()
    with FileWriter(root, durability="run") as writer:
        for name in ("start", "descriptor", "stream_resource"):
            writer(name, documents[name])
        vast = {"start": 0, "stop": 10**12}
        with pytest.raises(DocumentError, match="of at most 1,000,000"):
            writer("stream_datum", documents["stream_datum"] | {"indices": vast, "seq_nums": vast})


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (10**5000, "a int"),
        ("x" * 100, f"'{'x' * 60}'..."),
        (b"ab", "b'ab'"),
        (-1, "-1"),
        (None, "None"),
        ([], "a list"),
    ],
    ids=shown,
)
def test_an_error_shows_a_value_in_a_few_letters(value: Any, text: str) -> None:
    assert shown(value) == text


def test_columns_of_a_page_are_of_one_length() -> None:
    page = a_run()["event_page"]
    with pytest.raises(DocumentError, match=r"event_page has columns of \[1, 2\] values"):
        check_document("event_page", page | {"seq_num": [1, 2]})


@pytest.mark.parametrize("timepoint", ["0", [0], {"a": 1}, 0.5, True, None, float("nan"), 10**30, 2.0])
def test_a_timepoint_of_any_kind_leaves_the_others_countable(root: Path, timepoint: Any) -> None:
    for number, value in enumerate([7, timepoint]):
        documents = copy.deepcopy(a_run())
        for doc in documents.values():
            for key in ("uid", "run_start"):
                if isinstance(doc.get(key), str):
                    doc[key] = doc[key].replace("the-run", f"the-run-{number}")
        documents["event"]["data"]["timepoint"] = value
        with FileWriter(root, inline_limit_bytes=16, durability="run") as writer:
            for name in ("start", "descriptor", "event", "stop"):
                writer(name, documents[name])
    counted = {7, *([timepoint] if timepoint == 10**30 else [])}
    for _ in range(2):
        catalog = Catalog(root)
        assert catalog.timepoints("s", "e") == sorted(counted)
        assert catalog.next_timepoint("s", "e") == max(counted) + 1
        assert len(catalog.volumes(session="s")) == 2
        reindex(root)


@pytest.mark.parametrize("time", [float("nan"), float("inf"), -1e300, 1e300, -5.0])
def test_a_timestamp_that_is_none_loses_no_pixels(root: Path, time: float) -> None:
    documents = a_run()
    documents["event"]["timestamps"]["big"] = time
    documents["event"]["data"]["big"] = np.arange(64, dtype="<u2").reshape(4, 4, 4)
    with FileWriter(root, inline_limit_bytes=16) as writer:
        for name in ("start", "descriptor", "event", "stop"):
            writer(name, documents[name])
    run = Catalog(root)[-1]
    assert run.exit_status == "success"
    np.testing.assert_array_equal(run["primary"].images("big").volume(0).ravel(), np.arange(64))


# --- names that climb ---------------------------------------------------------------------------------------

NAMES = [
    "../../x",
    "../" * 40 + "etc/x",
    "/etc/x",
    "C:\\x",
    "..\\..\\x",
    "a\0b",
    ".",
    "..",
    "",
    "\ud800",
    "con",
    "a/b",
]


@BOTH
@pytest.mark.parametrize("name", NAMES, ids=ascii)
def test_names_that_climb_stay_inside_the_run_folder(root: Path, outside: Path, name: str) -> None:
    documents = a_run()
    number = documents["descriptor"]["data_keys"]["x"]
    with FileWriter(root, inline_limit_bytes=16) as writer:
        writer("start", documents["start"] | {"plan_name": name, "scan_id": name, "uid": f"{name}-run"})
        streamed = writer.open_resource(name, shape=(2, 2, 2), dtype="<u2")
        new = streamed.new_volume()
        for z in range(2):
            new.write(z, np.full((2, 2), z, "<u2"))
        new.seal()
        keys = {name: number, "other": number}
        descriptor = {"uid": f"{name}-d", "run_start": f"{name}-run", "name": name, "data_keys": keys, "time": 1.0}
        writer("descriptor", descriptor)
        data = {name: np.arange(9), "other": 1}
        event = {"uid": f"{name}-e", "descriptor": f"{name}-d", "seq_num": 1, "time": 1.0, "data": data}
        writer("event", event | {"timestamps": dict.fromkeys(data, 1.0)})
        writer("stop", documents["stop"] | {"run_start": f"{name}-run"})
    folder = run_folder(root)
    assert folder.parent == root / DAY
    run = Catalog(root)[f"{name}-run"]
    np.testing.assert_array_equal(run[name or "primary"].images(name).volume(0), np.arange(9))
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert {path.relative_to(folder).as_posix() for path in files} >= {"journal.jsonl", "manifest.jsonl"}
    assert len([path for path in [*files, *folder.iterdir()] if path.suffix in {".npy", ".tif", ".zarr"}]) == 2
    assert all(path.name.isascii() and not set(path.name) & set('\\:*?"<>|\0') for path in root.rglob("*"))


# --- links --------------------------------------------------------------------------------------------------

links = pytest.mark.skipif(not hasattr(os, "symlink") or os.name == "nt", reason="links need a privilege here")


@links
@pytest.mark.parametrize("where", ["runs", "runs/2026", "runs/2026/11", DAY])
def test_a_run_is_not_begun_through_a_link_out_of_the_root(root: Path, outside: Path, where: str) -> None:
    with FileWriter(root) as writer:
        (root / where).parent.mkdir(parents=True, exist_ok=True)
        (root / where).symlink_to(outside, target_is_directory=True)
        with pytest.raises(RootError, match=f"{where} is a link"):
            writer("start", start_doc())


@links
@pytest.mark.parametrize("where", ["index", "index/runs.jsonl", "index/runs.jsonl.lock"])
def test_an_index_that_leads_out_of_the_root_is_not_written_and_answers_stay_right(
    root: Path, outside: Path, where: str, caplog: pytest.LogCaptureFixture
) -> None:
    target = outside if where == "index" else outside / "precious.jsonl"
    with FileWriter(root) as writer:
        (root / where).parent.mkdir(exist_ok=True)
        (root / where).symlink_to(target)
        for name in ("start", "stop"):
            writer(name, a_run()[name])
    assert "is a link" in caplog.text
    with pytest.raises(RootError, match="is a link"):
        reindex(root)
    assert [run.exit_status for run in Catalog(root).search()] == ["success"]


@links
@pytest.mark.parametrize("name", ["tags.jsonl", "tags.jsonl.lock", "audit.jsonl", "audit.jsonl.lock"])
def test_tags_and_audit_are_not_written_through_a_link(tmp_path: Path, outside: Path, name: str) -> None:
    folder = tmp_path / "root"
    folder.mkdir()
    (folder / name).symlink_to(outside / "precious.jsonl")
    write = add_tags if name.startswith("tags") else add_act
    with pytest.raises(RootError, match=f"{name} is a link"):
        write(folder)


def add_tags(folder: Path) -> None:
    add_note(folder, by="eve", text="hello")


def add_act(folder: Path) -> None:
    append_audit(folder, "removed")


@links
@pytest.mark.parametrize("level", ["runs", "runs/2026", "runs/2026/11", DAY, f"{DAY}/0001-by_hand-the-run"])
def test_a_folder_under_runs_that_is_a_link_to_elsewhere_is_no_run(root: Path, tmp_path: Path, level: str) -> None:
    record_one(root)
    (root / level).rename(tmp_path / "elsewhere")
    (root / level).symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    for _ in range(2):
        assert ask_everything(Catalog(root)) == []
        assert run_folders(root) == []
        (root / "index/runs.jsonl").unlink(missing_ok=True)


# --- a root from somebody else ------------------------------------------------------------------------------


def record_one(root: Path, uid: str = "the-run", **options: Any) -> Path:
    """A run with one array in a file; give its folder."""
    documents = a_run()
    documents["start"]["uid"] = documents["stop"]["run_start"] = documents["descriptor"]["run_start"] = uid
    with FileWriter(root, inline_limit_bytes=16, durability="run", **options) as writer:
        for name in ("start", "descriptor", "event", "stop"):
            writer(name, documents[name])
    return Catalog(root)[uid].folder


def rewrite(path: Path, change: Callable[[int, Doc], Any]) -> None:
    """Change the lines of a file, as somebody who knows checksums would."""
    lines = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    for line in lines:
        del line["xxh3_64"]
    path.write_bytes(b"".join(encode_line(change(i, line) or line) for i, line in enumerate(lines)))


CLIMBING = ["../../../../../../outside/secret0.npy", "{abs}", "big/../../../../../../../outside/secret0.npy", "..",
            "C:\\secret0.npy", "..\\secret0.npy", "big\\..\\x", "big/a\0b", "", "."]  # fmt: skip


@pytest.mark.parametrize("path", CLIMBING, ids=ascii)
def test_a_manifest_whose_path_climbs_is_an_error_that_names_its_line(
    root: Path, outside: Path, path: str
) -> None:
    folder = record_one(root)
    path = path.replace("{abs}", str(outside / "secret0.npy"))
    rewrite(folder / "manifest.jsonl", lambda i, line: line.update(path=path, details={"offset": 0}))
    with pytest.raises(JournalError, match=r"manifest\.jsonl: the line that ends at byte \d+ "):
        Catalog(root)[-1]["primary"].images("big").volume(0)
    assert names(list(Catalog(root)[-1].documents())) == names(journal(folder))


@links
@pytest.mark.parametrize("level", ["big", "big/000000.npy"])
def test_a_volume_that_is_a_link_out_of_the_run_is_not_read(
    root: Path, outside: Path, tmp_path: Path, level: str
) -> None:
    folder = record_one(root)
    (entry,) = read_manifest(folder).values()
    level = str(Path(entry.path).parent if level == "big" else entry.path)
    (folder / level).rename(root / "moved away")
    target = outside / "secret0.npy" if level == entry.path else outside
    (folder / level).symlink_to(target)
    if target == outside:
        rewrite(folder / "manifest.jsonl", lambda i, line: line.update(path=f"{level}/secret0.npy"))
    with pytest.raises(VolumeMissingError, match="which is a link out of the run's folder"):
        Catalog(root)[-1]["primary"].images("big").volume(0)


@links
@pytest.mark.parametrize("level", ["", "0", "0/c", "0/c/0", "0/c/0/0/0"])
def test_a_store_that_leads_out_of_the_run_anywhere_is_not_read(root: Path, tmp_path: Path, level: str) -> None:
    store = record_one(root, image_format="ome-zarr") / "big.ome.zarr"
    elsewhere = tmp_path / "elsewhere"
    (store / level).rename(elsewhere)
    (store / level).symlink_to(elsewhere)
    with pytest.raises(VolumeMissingError, match="is a link"):
        Catalog(root)[-1]["primary"].images("big").volume(0)


@pytest.mark.parametrize(
    "change",
    [
        {"shape": "ab"}, {"shape": 3}, {"shape": [-1, 9]}, {"shape": [None]}, {"shape": [1.5]},
        {"shape": [10**30]}, {"shape": [10**9, 10**9]},
        {"dtype": "O"}, {"dtype": "V8"}, {"dtype": "no such"}, {"dtype": 5}, {"dtype": "<f8,<f8"},
        {"index": "0"}, {"index": -1}, {"index": [0]}, {"index": 1.0}, {"resource": None}, {"resource": ["r"]},
        {"path": 5}, {"path": ["a"]}, {"path": None}, {"details": []}, {"details": {"offset": -1}},
        {"details": {"offset": "0"}}, {"details": None}, {"format": {}}, {"bytes": "many"}, {"data_key": 1},
    ],
    ids=repr,
)  # fmt: skip
def test_a_manifest_with_values_of_another_type_is_an_error_that_names_its_line(root: Path, change: Doc) -> None:
    folder = record_one(root)
    rewrite(folder / "manifest.jsonl", lambda i, line: line.update(change))
    with pytest.raises(JournalError, match=r"manifest\.jsonl: the line that ends at byte \d+ is no entry"):
        Catalog(root)[-1]["primary"].images("big").volume(0)


@pytest.mark.parametrize(
    "change",
    [
        {"shape": [10**6, 10**6]},
        {"shape": [1 << 47]},
        {"details": {"offset": 1 << 50}},
        {"details": {}},
        {"path": "big"},
    ],
    ids=repr,
)
def test_a_manifest_that_promises_more_than_there_is_gives_no_pixels(root: Path, change: Doc) -> None:
    folder = record_one(root)
    rewrite(folder / "manifest.jsonl", lambda i, line: line.update(change))
    with pytest.raises(VolumeMissingError, match="should be in"):
        Catalog(root)[-1]["primary"].images("big").volume(0)


@pytest.mark.parametrize(
    "change",
    [{"shape": [10**6, 10**6]}, {"shape": [9, 10]}, {"dtype": "<u8"}, {"path": "big"}, {"path": "big.ome.zarr/0"}],
    ids=repr,
)
def test_a_manifest_that_promises_something_else_than_a_store_holds_gives_no_pixels(
    root: Path, change: Doc
) -> None:
    folder = record_one(root, image_format="ome-zarr")
    rewrite(folder / "manifest.jsonl", lambda i, line: line.update(change))
    with pytest.raises(VolumeMissingError, match=r"is not there|and the manifest says otherwise"):
        Catalog(root)[-1]["primary"].images("big").volume(0)


def test_a_manifest_line_that_is_no_object_is_an_error_that_names_it(root: Path) -> None:
    folder = record_one(root)
    for line in (b"[]\n", b"7\n", b'"x"\n', b"null\n"):
        (folder / "manifest.jsonl").write_bytes(line)
        with pytest.raises(JournalError, match=r"manifest\.jsonl: the line that ends at byte \d+ is no entry"):
            read_manifest(folder)


@pytest.mark.parametrize(
    "start",
    [{}, [], None, "x", {"uid": "u"}, {"uid": 3, "time": 1.0}, {"uid": "u", "time": "x"},
     {"uid": "u", "time": 10**400}, {"uid": ["u"], "time": 1.0}, {"uid": "u", "time": None}],
    ids=repr,
)  # fmt: skip
def test_a_start_that_makes_no_sense_in_a_journal_hides_no_other_run(
    root: Path, start: Any, caplog: pytest.LogCaptureFixture
) -> None:
    folder = record_one(root)
    record_one(root, "another-run")
    rewrite(folder / "journal.jsonl", lambda i, line: line.update(doc=start) if i == 0 else None)
    (root / "index/runs.jsonl").unlink()
    assert ask_everything(Catalog(root)) == ["another-run"]
    assert reindex(root) == 1


@pytest.mark.parametrize("line", range(1, 6))
def test_a_document_that_makes_no_sense_in_a_journal_is_an_error_or_damage_and_hides_no_other_run(
    root: Path, line: int
) -> None:
    folder = record_one(root)
    record_one(root, "another-run")
    count = len(journal(folder))
    assert line < count + 1
    values: list[Any] = [[], None, 3, {}, {"uid": []}, {"descriptor": {}}, {"data_keys": 5}]
    for value in values:
        rewrite(folder / "journal.jsonl", lambda i, doc: doc.update(doc=value) if i == line else None)  # noqa: B023
        (root / "index/runs.jsonl").unlink(missing_ok=True)
        catalog = Catalog(root)
        assert [run.uid for run in catalog.search()] == ["the-run", "another-run"]
        assert catalog["another-run"]["primary"].images("big").shape == (1, 9, 9)
        assert catalog.timepoints("s", "e") == [0]
        catalog.sessions()
        if line < count:
            with pytest.raises((DocumentError, JournalError), match=r"the-run|journal"):
                list(catalog["the-run"]["primary"].rows)


@pytest.mark.parametrize(
    "change",
    [
        {"folder": "../../outside"}, {"folder": 3}, {"start": {}}, {"start": None},
        {"start": {"uid": "u", "time": "x"}}, {"stop": []}, {"stop": {"time": "x"}}, {"volumes": [[]]},
        {"volumes": 3}, {"volumes": [["a"] * 11]}, {"volumes": [["primary", 1, "big", "late"]]},
    ],
    ids=repr,
)  # fmt: skip
def test_an_index_that_makes_no_sense_is_passed_over(root: Path, outside: Path, change: Doc) -> None:
    record_one(root)
    right = [repr(volume) for volume in Catalog(root).volumes()]
    assert len(right) == 1
    rewrite(root / "index/runs.jsonl", lambda i, line: line.update(change))
    catalog = Catalog(root)
    assert ask_everything(catalog) == ["the-run"]
    assert [repr(volume) for volume in catalog.volumes()] == right


# --- templates ----------------------------------------------------------------------------------------------

ALIEN = "multipart/related;type=application/x-npy"


def record_alien(root: Path, uri: str, **parameters: Any) -> Any:
    """A run with one volume of somebody else's; give its images."""
    documents = a_run()
    documents["stream_resource"] |= {"uri": uri, "parameters": {"join_method": "stack"} | parameters}
    with FileWriter(root, inline_limit_bytes=16, durability="run") as writer:
        for name in ("start", "descriptor", "stream_resource", "stream_datum", "event", "stop"):
            writer(name, documents[name])
    return Catalog(root)[-1]["primary"].images("alien")


@pytest.mark.parametrize(
    "template", ["secret{:d}.npy", "secret{}.npy", "secret%d.npy", "secret{0}.npy", "./secret%1.1d.npy"]
)
def test_a_foreign_volume_is_read_where_its_uri_says(root: Path, outside: Path, template: str) -> None:
    images = record_alien(root, f"file://localhost{outside}/", template=template)
    np.testing.assert_array_equal(images.volume(0), volume(99))


@pytest.mark.parametrize(
    "template",
    ["../outside/secret{:d}.npy", "a/../../outside/secret{:d}.npy", "../outside/secret%d.npy",
     "{abs}/secret{:d}.npy", "secret{:d}.npy\0", "{}/../../outside/secret0.npy"],
)  # fmt: skip
@pytest.mark.parametrize("join", ["stack", "concat"])
def test_a_template_that_leads_out_of_its_folder_is_not_followed(
    root: Path, outside: Path, template: str, join: str
) -> None:
    inner = root / "inner"
    template = template.replace("{abs}", str(outside))
    images = record_alien(root, f"file://localhost{inner}/", template=template, join_method=join)
    with pytest.raises(UnfillableError, match=r"Stream resource r of run the-run .* leads out of its folder"):
        images.volume(0)


@pytest.mark.parametrize(
    "template",
    ["{:99999999999d}", "%99999999999d", "{.__class__}", "{0.real}", "{!r}", "{0[0]}", "%s", "%(a)s", "",
     "{}{}", "{", "%", "{:{}}", 3, None, ["a"], {}, b"x{}"],
    ids=repr,
)  # fmt: skip
def test_a_template_that_is_none_is_an_error_that_names_its_resource(
    root: Path, outside: Path, template: Any
) -> None:
    images = record_alien(root, f"file://localhost{outside}/", template=template)
    with pytest.raises(UnfillableError, match=r"Stream resource r of run the-run cannot be read"):
        images.volume(0)


@pytest.mark.parametrize(
    "uri",
    ["", "nonsense", "http://[", "file://elsewhere/x/", "file://localhost/a\0b/", "s3://bucket/x/", "file:"],
    ids=ascii,
)
def test_a_uri_that_is_none_is_an_error_that_names_its_resource(root: Path, uri: str) -> None:
    images = record_alien(root, uri, template="{:03d}.npy")
    with pytest.raises((UnfillableError, VolumeMissingError), match=r"Stream resource r of run the-run"):
        images.volume(0)


def test_the_names_of_a_template_are_those_of_its_numbers() -> None:
    assert [name_from_template("a_{:04d}.tif", i) for i in (0, 12, 12345)] == [
        "a_0000.tif",
        "a_0012.tif",
        "a_12345.tif",
    ]
