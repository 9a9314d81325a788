"""A run whose journal is damaged is found and opened, and never read as if it were whole."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import bluesky.plans as bp
import numpy as np
import pytest
from bluesky import Msg

from gently_bluesky import Catalog, FileWriter
from gently_bluesky.errors import JournalError
from gently_bluesky.keep.verify import verify
from gently_bluesky.read.run import Run
from tests.data_rig import Camera, feed, into, journal, newest, of, record, start_doc, volume

EVENTS = 4


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("damage") / "root"

    def plan(writer: FileWriter) -> Iterator[Msg]:
        return bp.count([Camera("cam", writer, embryo="e", timepoint=0)], EVENTS)

    record(root, plan)
    return root


@pytest.fixture
def copied(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "copy"))


def lines_of(run: Run) -> list[bytes]:
    return (run.folder / "journal.jsonl").read_bytes().splitlines(keepends=True)


def damage(root: Path, line: int, old: bytes, new: bytes) -> Run:
    """Change something in a line of the journal, from 1, and open the run again."""
    path = newest(root).folder / "journal.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    assert lines[line - 1].count(old) == 1
    lines[line - 1] = lines[line - 1].replace(old, new)
    path.write_bytes(b"".join(lines))
    return newest(root)


def line_of_event(run: Run, number: int) -> int:
    return [i for i, (name, _) in enumerate(journal(run.folder), 1) if name == "event"][number]


def test_a_damaged_run_opens_and_says_where_it_is_damaged_and_what_to_do(copied: Path) -> None:
    before = newest(copied)
    line = line_of_event(before, 2)
    begins = len(b"".join(lines_of(before)[: line - 1]))
    run = damage(copied, line, b'"seq_num":', b'"seq_num":\x1a')
    assert (run.uid, run.start, run.stop, run.exit_status) == (before.uid, before.start, before.stop, "success")
    size = (run.folder / "journal.jsonl").stat().st_size
    assert run.damage is not None
    assert (
        f"line {line} of {run.folder / 'journal.jsonl'}; {size - begins} bytes from byte {begins} on" in run.damage
    )
    assert "run.up_to_damage reads what stands before" in run.damage
    assert (
        repr(run)
        == f"<Run {run.uid[:8]} scan 1 count: success; primary (2); its journal is damaged, see run.damage>"
    )


def test_nothing_of_a_damaged_run_is_given_as_if_it_were_whole(copied: Path, tmp_path: Path) -> None:
    run = damage(copied, line_of_event(newest(copied), 2), b'"time":', b'"time":\x00')
    (found,) = {each.run_uid for each in Catalog(copied).volumes(embryo="e")}
    assert found == run.uid
    for read in (
        lambda: run["primary"],
        lambda: list(run),
        lambda: list(run.documents()),
        lambda: list(run.documents(fill=True)),
        Catalog(copied).volumes(embryo="e")[0].array,
    ):
        with pytest.raises(JournalError, match=r"is damaged .* That is line \d+ of .*run\.up_to_damage reads"):
            read()
    with pytest.raises(JournalError):
        into(run, tmp_path / "second")
    assert len(Catalog(tmp_path / "second")) == 0


def test_what_stands_before_the_damage_is_read_on_request(copied: Path, tmp_path: Path) -> None:
    before = newest(copied)
    line = line_of_event(before, 2)
    documents = list(before.documents(rebase=False))
    run = damage(copied, line, b'"time":', b'"time":\x00').up_to_damage
    assert list(run.documents(rebase=False)) == documents[: line - 1]
    assert run["primary"].seq_num.tolist() == [1, 2]
    np.testing.assert_array_equal(run["primary"]["cam_image"][:], np.stack([volume(0), volume(1)]))
    assert len(of(list(run.documents(fill=True)), "event")) == 2
    assert run.damage is not None
    assert into(run, tmp_path / "second", fill=True).is_open


def test_a_run_that_is_whole_is_the_same_up_to_damage(whole: Path) -> None:
    run = newest(whole)
    assert run.damage is None
    assert list(run.up_to_damage.documents()) == list(run.documents())
    assert run.up_to_damage.damage is None


def test_a_reference_to_nothing_is_damage_too(copied: Path) -> None:
    """A line may be whole, and the one that it needs be gone."""
    before = newest(copied)
    path, lines = before.folder / "journal.jsonl", lines_of(before)
    lost = journal(before.folder).index(("descriptor", of(journal(before.folder), "descriptor")[0]))
    path.write_bytes(b"".join([*lines[:lost], *lines[lost + 1 :]]))
    run = newest(copied)
    assert f"refers to, or lacks, '{of(journal(before.folder), 'event')[0]['descriptor']}'" in (run.damage or "")
    assert list(run.up_to_damage) == []
    assert of(list(run.up_to_damage.documents()), "event") == []


@pytest.mark.parametrize("cut", [1, 200])
def test_a_journal_that_lost_its_end_is_damaged_if_the_index_knows_its_stop(copied: Path, cut: int) -> None:
    path = newest(copied).folder / "journal.jsonl"
    path.write_bytes(path.read_bytes()[:-cut])
    run = newest(copied)
    assert run.exit_status == "success"
    assert run.damage is not None
    assert run.damage.startswith("The stop document that the index knows is not there. That is line ")
    shutil.rmtree(copied / "index")
    assert newest(copied).damage is None  # nothing tells it from a run that goes on


def test_a_journal_that_is_whole_again_is_read_on(copied: Path) -> None:
    path = newest(copied).folder / "journal.jsonl"
    good = path.read_bytes()
    run = damage(copied, line_of_event(newest(copied), 2), b'"time":', b'"time":\x00')
    assert run.damage is not None
    path.write_bytes(good)
    assert run.refresh() is run
    assert run.damage is None
    assert run["primary"].seq_num.tolist() == [1, 2, 3, 4]


def test_a_start_that_is_damaged_is_known_from_the_index(copied: Path) -> None:
    before = newest(copied)
    run = damage(copied, 1, b'"uid":', b'"uid"\x00:')
    assert (run.uid, run.start) == (before.uid, before.start)
    assert not list(run.up_to_damage)
    assert not list(run.up_to_damage.documents())
    assert "That is line 1 of" in (run.damage or "")


def test_a_run_without_a_stop_may_be_damaged_and_goes_on_being_open(root: Path) -> None:
    run = feed(root, [("start", start_doc(uid="run")), ("descriptor", {"uid": "d", "name": "p", "data_keys": {}})])
    path = run.folder / "journal.jsonl"
    with path.open("ab") as file:
        file.write(b"\x00\n")
    run = newest(root)
    assert run.is_open
    assert (run.damage or "").count(str(path)) == 2


@pytest.mark.parametrize("bit", range(8))
def test_whatever_bit_flips_nothing_else_is_read_than_was_journalled(copied: Path, bit: int) -> None:
    before = newest(copied)
    path, good = before.folder / "journal.jsonl", (before.folder / "journal.jsonl").read_bytes()
    documents = list(before.documents(rebase=False))
    ends = np.cumsum([len(line) for line in good.splitlines(keepends=True)])
    for place in range(bit, len(good), 23):
        flipped = bytearray(good)
        flipped[place] ^= 1 << bit
        path.write_bytes(flipped)
        run = newest(copied)
        if run.damage is None:  # the name of the checksum, say
            assert list(run.documents(rebase=False)) == documents
            continue
        line = int(np.searchsorted(ends, place, side="right"))
        assert list(run.up_to_damage.documents(rebase=False)) == documents[:line]
        with pytest.raises(JournalError):
            list(run.documents())


@pytest.mark.parametrize("kind", ["a volume", "what was last said of it"])
def test_a_damaged_line_of_the_manifest_hides_its_own_volume_and_no_other(copied: Path, kind: str) -> None:
    manifest = newest(copied).folder / "manifest.jsonl"
    lines = manifest.read_bytes().splitlines(keepends=True)
    if kind == "a volume":
        lines[1] = lines[1].replace(b"sealed", b"sealef")
    else:
        lines.append(lines[1].replace(b"sealed", b"sealef"))
    manifest.write_bytes(b"".join(lines))
    run = newest(copied)
    images = run["primary"]["cam_image"]
    whole = [0, 2, 3] if kind == "a volume" else range(EVENTS)
    assert images.stored.tolist() == [event in whole for event in range(EVENTS)]
    for event in whole:
        np.testing.assert_array_equal(images.volume(event), volume(event))
    if kind == "a volume":
        with pytest.raises(JournalError, match=r"Volume 1 of .* is damaged .* Bring the manifest back"):
            images.volume(1)
    assert [each.seq_num for each in Catalog(copied).volumes(stored=True)] == [event + 1 for event in whole][::-1]
    assert run.left_beside == ()
    assert any("manifest.jsonl" in str(error) for error in verify(copied).errors)
