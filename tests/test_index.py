"""The index is a cache: deleted, torn, stale or full of garbage, the answers are the same."""

import logging
import shutil
from pathlib import Path
from typing import Any

import bluesky.plan_stubs as bps
import bluesky.preprocessors as bpp
import pytest
from filelock import FileLock

from gently_bluesky import Catalog, FileWriter
from gently_bluesky.store.index import IndexEntry, RootIndex, VolumeRow
from gently_bluesky.store.journal import decode_line, encode_line
from tests.data_rig import Camera, connected, start_doc


@pytest.fixture(scope="module")
def indexed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three runs, the last one without its stop."""
    root = tmp_path_factory.mktemp("indexed") / "root"
    with FileWriter(root) as writer:
        run_engine, _ = connected(writer)
        camera = Camera("cam", writer, embryo="e1", timepoint=0, limit=float("nan"))
        for timepoint in range(2):
            camera.scalars["timepoint"] = timepoint
            run_engine(bpp.run_wrapper(bps.trigger_and_read([camera]), md={"session": "s"}))
        writer("start", start_doc(uid="open", time=2e9, session="s"))
    return root


def answers(root: Path, catalog: Catalog | None = None) -> dict[str, Any]:
    """What a catalog says to everything that the index may know."""
    catalog = catalog or Catalog(root)
    return {
        "runs": [(run.uid, run.exit_status) for run in catalog],
        "volumes": [(each.run_uid, each.row) for each in catalog.volumes(session="s")],
        "sessions": catalog.sessions(),
        "next": (catalog.next_timepoint("s", "e1"), catalog.next_scan_id()),
        "starts": repr([run.start for run in catalog.search(session="s")]),
    }


@pytest.fixture
def copied(indexed: Path, root: Path) -> Path:
    shutil.copytree(indexed, root)
    return root


def test_the_index_knows_each_run_that_has_stopped(indexed: Path) -> None:
    lines = [decode_line(line) for line in (indexed / "index" / "runs.jsonl").read_bytes().splitlines()]
    entries = [IndexEntry.from_line(line) for line in lines]
    assert [len(entry.volumes) for entry in entries] == [1, 1]
    assert entries[1].volumes[0].timepoint == 1
    assert all((indexed / entry.folder / "journal.jsonl").exists() for entry in entries)
    assert IndexEntry.from_line(entries[0].line()) == entries[0]


def test_without_an_index_answers_are_the_same(copied: Path, indexed: Path) -> None:
    shutil.rmtree(copied / "index")
    assert answers(copied) == answers(indexed)


def test_an_index_cut_off_at_any_byte_gives_the_same_answers(copied: Path, indexed: Path) -> None:
    path, expected = copied / "index" / "runs.jsonl", answers(indexed)
    whole = path.read_bytes()
    step = max(1, len(whole) // 150)
    ends = {0, 1, len(whole) - 1, *(i + 1 for i, byte in enumerate(whole) if byte == 10)}
    for size in sorted({*range(0, len(whole), step), *ends}):
        path.write_bytes(whole[:size])
        assert answers(copied) == expected, size


GARBAGE = [
    b"\x00" * 100 + b"\n",
    b"{}\n",
    b"[]\n",
    b'null\n1\n"text"\n',
    b"{not json}\n",
    b'{"folder":"runs/x","start":{},"stop":null,"volumes":[]}\n',
    b'{"folder":"runs/x","start":{"uid":"x","time":"now"},"stop":null,"volumes":[]}\n',
    b'{"folder":3,"start":{"uid":"x","time":1.0},"stop":null,"volumes":[]}\n',
    b'{"folder":"../../x","start":{"uid":"x","time":1.0},"stop":{},"volumes":[]}\n',
    b'{"folder":"runs/2026/11/23/gone","start":{"uid":"gone","time":1.0},"stop":{"time":1.0},"volumes":[]}\n',
    b'{"folder":"runs/x","start":{"uid":"x","time":1.0},"stop":null,"volumes":[[1,2,3,4,5,6,7,8,9,10,11,12,13]]}\n',
    b'{"folder":"runs/x","start":5,"stop":null,"volumes":[]}\n',
    b"\xff\xfe\x00\n",
    b"\n\n\n",
    b"no newline at the end",
]


@pytest.mark.parametrize("where", ["before", "after", "between"])
@pytest.mark.parametrize("garbage", GARBAGE, ids=range(len(GARBAGE)))
def test_garbage_in_the_index_gives_the_same_answers(
    copied: Path, indexed: Path, garbage: bytes, where: str
) -> None:
    path = copied / "index" / "runs.jsonl"
    first, rest = path.read_bytes().split(b"\n", 1)
    lines = {
        "before": garbage + first + b"\n" + rest,
        "between": first + b"\n" + garbage + rest,
        "after": first + b"\n" + rest + garbage,
    }
    path.write_bytes(lines[where])
    assert answers(copied) == answers(indexed)


def garbage_entry(root: Path, change: dict[str, Any]) -> None:

    path = root / "index" / "runs.jsonl"
    line = decode_line(path.read_bytes().splitlines()[0]) | change
    with path.open("ab") as file:
        file.write(encode_line(line))


@pytest.mark.parametrize(
    "change", [{"start": {}}, {"start": {"uid": 1, "time": None}}, {"volumes": [[1] * 11] * 2, "start": 7}]
)
def test_garbage_about_a_run_that_there_is_gives_the_same_answers(
    copied: Path, indexed: Path, change: dict[str, Any]
) -> None:
    garbage_entry(copied, change)
    assert answers(copied) == answers(indexed)


def test_an_index_that_is_behind_gives_the_same_answers(copied: Path, indexed: Path) -> None:
    path = copied / "index" / "runs.jsonl"
    path.write_bytes(path.read_bytes().splitlines(keepends=True)[1])
    assert answers(copied) == answers(indexed)


def test_an_index_that_is_a_folder_or_unreadable_is_as_good_as_none(copied: Path, indexed: Path) -> None:
    path = copied / "index" / "runs.jsonl"
    path.unlink()
    path.mkdir()
    assert answers(copied) == answers(indexed)


def test_a_run_beside_the_others_whose_journal_is_damaged_hides_none_of_them(
    copied: Path, indexed: Path, caplog: pytest.LogCaptureFixture
) -> None:
    bad = copied / "runs" / "2026" / "11" / "23" / "0001-bad-00000000"
    bad.mkdir(parents=True)
    (bad / "journal.jsonl").write_bytes(b"\x00\x00\n")
    with caplog.at_level(logging.WARNING):
        assert answers(copied) == answers(indexed)
    assert "0001-bad-00000000" in caplog.text


def test_a_journal_that_is_damaged_in_its_middle_keeps_what_came_before(
    copied: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shutil.rmtree(copied / "index")
    run = Catalog(copied).search()[1]
    lines = (run.folder / "journal.jsonl").read_bytes().splitlines(keepends=True)
    (run.folder / "journal.jsonl").write_bytes(b"".join(lines[:-1]) + b"\x00\x00\n")
    with caplog.at_level(logging.WARNING):
        catalog = Catalog(copied)
        assert catalog.next_timepoint("s", "e1") == 2
        assert len(catalog.volumes(session="s")) == 2
    assert run.folder.name in caplog.text


def test_an_open_catalog_notices_what_happens_to_its_index(copied: Path, indexed: Path) -> None:
    catalog, path = Catalog(copied), copied / "index" / "runs.jsonl"
    expected, whole = answers(indexed), path.read_bytes()
    assert answers(copied, catalog) == expected
    path.write_bytes(whole[:50])
    assert answers(copied, catalog) == expected
    path.unlink()
    assert answers(copied, catalog) == expected
    path.write_bytes(b"garbage\n" * 1000)
    assert answers(copied, catalog) == expected
    path.write_bytes(whole)
    assert answers(copied, catalog) == expected


def test_an_open_catalog_notices_new_runs(root: Path) -> None:
    with FileWriter(root) as writer:
        catalog = Catalog(root)
        run_engine, _ = connected(writer)
        camera = Camera("cam", writer)
        for number in range(1, 4):
            run_engine(bpp.run_wrapper(bps.trigger_and_read([camera])))
            assert len(catalog) == number
            assert catalog[-1].exit_status == "success"


def test_an_index_that_cannot_be_written_costs_no_run(
    root: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    with FileWriter(root) as writer:
        (root / "index").write_text("in the way")
        run_engine, _ = connected(writer)
        with caplog.at_level(logging.WARNING):
            run_engine(bpp.run_wrapper(bps.trigger_and_read([Camera("cam", writer, embryo="e", timepoint=0)])))
    assert "was not brought up to date" in caplog.text
    assert Catalog(root)[-1].exit_status == "success"
    assert len(Catalog(root).volumes(embryo="e")) == 1


def test_writers_that_end_at_once_do_not_mix_their_lines(root: Path) -> None:
    import threading

    from gently_bluesky.store.index import append_entry

    root.mkdir()
    entry = IndexEntry("runs/x", {"uid": "u" * 2000, "time": 1.0}, {"time": 2.0}, (VolumeRow("p", 1, "k"),))
    threads = [threading.Thread(target=append_entry, args=(root, entry)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    lines = (root / "index" / "runs.jsonl").read_bytes().splitlines()
    assert [IndexEntry.from_line(decode_line(line)) for line in lines] == [entry] * 8


def test_a_run_after_a_torn_line_is_in_the_index_all_the_same(copied: Path) -> None:
    path = copied / "index" / "runs.jsonl"
    path.write_bytes(path.read_bytes()[:-10])
    with FileWriter(copied) as writer:
        writer("start", start_doc(uid="new", time=2.1e9))
        writer("stop", {"uid": "s", "time": 2.1e9, "run_start": "new", "exit_status": "success"})
    index = RootIndex(copied)
    assert Catalog(copied)["new"].exit_status == "success"
    assert [entry.start["uid"] for entry in index.entries() if entry.stop][-1] == "new"
    assert FileLock(path.with_suffix(".lock")).acquire(blocking=False) is not None
