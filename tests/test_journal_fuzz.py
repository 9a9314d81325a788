"""A file of lines that was cut anywhere gives its whole lines; a bit that flipped anywhere is found, and named.

Nothing is ever read that nobody wrote: not from the journal, the manifest, the tags or the audit. The index is a
cache: whatever happens to it, the answers are those of the journals.
"""

import re
import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bluesky.plans import count

from gently_bluesky import Catalog, FileWriter
from gently_bluesky.errors import JournalError
from gently_bluesky.store.audit import append_audit, read_audit
from gently_bluesky.store.index import IndexEntry, RootIndex
from gently_bluesky.store.journal import append_shared, read_documents, read_lines
from gently_bluesky.store.manifest import read_manifest
from gently_bluesky.store.tags import add_note, read_notes
from tests.conftest import Campaign
from tests.data_rig import Camera, Inline, connected, feed, inline, run_folder, start_doc

LINE_END = re.compile(r"the line that ends at byte (\d+)")
SAMPLE = 37  # bits: prime, so that every bit of a byte and every part of a line has its turn


@dataclass(frozen=True)
class Kind:
    """One kind of file: where it is in a root, and how it is read."""

    path: str
    read: Callable[[Path], Iterable[Any]]

    def __str__(self) -> str:
        return Path(self.path).name


KINDS = [
    Kind("run/journal.jsonl", lambda path: (pair for _, pair in read_documents(path.parent))),
    Kind("run/manifest.jsonl", lambda path: read_manifest(path.parent).values()),
    Kind("run/tags.jsonl", lambda path: read_notes(path.parent)),
    Kind("audit.jsonl", lambda path: read_audit(path.parent)),
]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with streamed volumes, arrays in files and in events, and tags, in a root with an audit."""
    root = tmp_path_factory.mktemp("written") / "root"
    with FileWriter(root, inline_limit_bytes=64) as writer:
        run_engine, _ = connected(writer)
        camera = Camera("cam", writer, shape=(2, 2, 4))
        odd = Inline(
            "odd", lambda: {"odd": float("nan")}, {"odd": {"source": "t", "dtype": "number", "shape": []}}
        )
        values = [np.full((2, 3), i) for i in range(2)]
        big = [np.full((5, 5), i) for i in range(2)]
        run_engine(
            count([camera, odd, inline("small", *values), inline("big", *big)], 2),
            session="\N{MICRO SIGN}-night",
            note='a "quoted"\nline \\ of \x7f\u2028 text',
        )
    folder = run_folder(root)
    shutil.move(folder, root / "run")
    add_note(root / "run", by="ada", added=["keep", "\N{GREEK SMALL LETTER BETA}"])
    add_note(root / "run", by="bob", removed=["keep"], text="out of focus\nfrom event 2 on")
    append_audit(root, "recovered", run="3f2a9c1e", torn_bytes=17)
    append_audit(root, "removed", run="3f2a9c1e", files=["cam/000000.ome.tif"], rule=None)
    return root


@pytest.fixture
def copy(written: Path, tmp_path: Path) -> Path:
    """The same, for one test to damage."""
    return shutil.copytree(written, tmp_path / "copy")


def reading(kind: Kind, path: Path) -> tuple[list[Any], str | None]:
    """What is read until the end or an error, and that error."""
    read: list[Any] = []
    try:
        read.extend(kind.read(path))
    except JournalError as error:
        return read, str(error)
    return read, None


def same(these: Any, those: Any) -> bool:
    """Whether two things are equal; nan is nan, and 1 is not True."""
    return repr(these) == repr(those)


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_cut_at_any_byte_it_gives_the_longest_prefix_of_whole_lines(
    kind: Kind, copy: Path, campaign: Campaign
) -> None:
    path = copy / kind.path
    whole, content = list(kind.read(path)), path.read_bytes()
    ends = [offset for offset, _ in read_lines(path)]
    assert len(ends) >= 2
    if "manifest" not in kind.path:  # of which a later line may replace an earlier one
        assert len(ends) == len(whole)
    lost = 0
    for size in range(len(content), -1, -1):
        with path.open("r+b") as file:
            file.truncate(size)
        there = sum(end <= size for end in ends)
        read, error = reading(kind, path)
        assert error is None, f"cut at byte {size}"
        lost += not same(read, whole[:there])
    campaign.count("cuts at a byte", states=len(content) + 1, lost=lost)
    assert not lost


@pytest.mark.parametrize("kind", KINDS, ids=str)
@pytest.mark.parametrize("step", [SAMPLE, pytest.param(1, marks=[pytest.mark.long, pytest.mark.timeout(1200)])])
def test_a_flipped_bit_is_an_error_that_names_file_and_line_and_no_line_before_it_changes(
    kind: Kind, step: int, copy: Path, campaign: Campaign
) -> None:
    path = copy / kind.path
    whole, content = list(kind.read(path)), path.read_bytes()
    ends = [offset for offset, _ in read_lines(path)]
    tried = wrong = 0
    with path.open("r+b", buffering=0) as file:
        for bit in {*range(0, 8 * len(content), step), *range(8 * len(content) - 8 * 40, 8 * len(content))}:
            at = bit // 8
            _put(file, at, content[at] ^ 1 << bit % 8)
            read, error = reading(kind, path)
            _put(file, at, content[at])
            before = sum(end <= at for end in ends)
            named = error is not None and error.startswith(f"{path}: ") and LINE_END.search(error)
            # a bit may make a newline of a letter, or a letter of one: then the line ends earlier, or later
            near = (
                named
                and (ends[before - 1] if before else 0) < int(named[1]) <= ends[min(before + 1, len(ends) - 1)]
            )
            expected = [] if "manifest" in kind.path else whole[:before]
            tried += 1
            wrong += not (near and same(read, expected))
            assert near, f"bit {bit}: {error}"
            assert same(read, expected), f"bit {bit}"
    assert path.read_bytes() == content
    campaign.count("flipped bits", states=tried, wrong=wrong)


def _put(file: Any, at: int, byte: int) -> None:
    file.seek(at)
    file.write(bytes([byte]))


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_what_is_appended_after_a_cut_follows_the_whole_lines(kind: Kind, copy: Path) -> None:
    path = copy / kind.path
    content = path.read_bytes()
    lines = [line for _, line in read_lines(path)]
    ends = [offset for offset, _ in read_lines(path)]
    for size in {0, 1, *ends, *(end - 1 for end in ends), *(end + 1 for end in ends[:-1]), len(content) // 2}:
        path.write_bytes(content[:size])
        append_shared(path, [{"new": size}], durable=False)
        there = sum(end - 1 <= size for end in ends)  # a line that lacks its newline alone gets it
        assert same([line for _, line in read_lines(path)], [*lines[:there], {"new": size}]), f"cut at byte {size}"


@pytest.mark.parametrize("bit", range(8))
def test_a_last_line_whose_newline_was_damaged_is_not_cut_off_by_the_next_writer(copy: Path, bit: int) -> None:
    path = copy / "run/tags.jsonl"
    content = path.read_bytes()
    notes = list(read_notes(path.parent))
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1 << bit]))
    with pytest.raises(JournalError, match=rf"tags\.jsonl: the line that ends at byte {len(content)} is damaged"):
        list(read_notes(path.parent))
    added = add_note(path.parent, by="eve", text="later")
    assert list(read_notes(path.parent)) == [*notes, added]


# --- the index ----------------------------------------------------------------------------------------------


@pytest.fixture
def indexed(tmp_path: Path) -> Path:
    """A root with three runs in its index, volumes in each, and one that is in it twice."""
    root = tmp_path / "root"
    for i in range(3):
        uid = f"{i}{i}{i}{i}-run"
        start = start_doc(uid=uid, time=1_795_433_400.0 + i, scan_id=i + 1, session="s", embryo=f"e{i % 2}")
        key = {"source": "t", "dtype": "array", "shape": [2, 4]}
        feed(
            root,
            [
                ("start", start),
                (
                    "descriptor",
                    {"uid": f"d{i}", "run_start": uid, "time": 1.0, "name": "primary", "data_keys": {"a": key}},
                ),
                (
                    "event",
                    {
                        "uid": f"v{i}",
                        "descriptor": f"d{i}",
                        "seq_num": 1,
                        "time": 1.0 + i,
                        "data": {"a": np.full((2, 4), i), "timepoint": i},
                        "timestamps": {"a": 1.0, "timepoint": 1.0},
                    },
                ),
                ("stop", {"uid": f"s{i}", "run_start": uid, "time": 9.0 + i, "exit_status": "success"}),
            ],
            inline_limit_bytes=16,
        )
    path = root / "index/runs.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    assert len(lines) == 3
    path.write_bytes(b"".join([*lines, lines[0]]))
    return root


def answers(root: Path) -> list[IndexEntry]:
    """All that a catalog knows of the runs, from a fresh index."""
    index = RootIndex(root)
    return [index.whole(entry) for entry in list(index.entries())]


@pytest.mark.parametrize("step", [SAMPLE, pytest.param(1, marks=[pytest.mark.long, pytest.mark.timeout(1200)])])
def test_nothing_that_happens_to_the_index_changes_an_answer(indexed: Path, step: int, campaign: Campaign) -> None:
    path = indexed / "index/runs.jsonl"
    content, right = path.read_bytes(), answers(indexed)
    assert [len(entry.volumes) for entry in right] == [1, 1, 1]
    tried = wrong = 0
    damaged: list[bytes] = [content[:size] for size in range(0, len(content), max(1, step // 8))]
    for bit in range(0, 8 * len(content), step):
        at = bit // 8
        damaged.append(content[:at] + bytes([content[at] ^ 1 << bit % 8]) + content[at + 1 :])
    for state in damaged:
        path.write_bytes(state)
        tried += 1
        wrong += not same(answers(indexed), right)
    path.unlink()
    wrong += not same(answers(indexed), right)
    campaign.count("damaged indexes", states=tried + 1, wrong=wrong)
    assert not wrong


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: content[:-40],
        lambda content: content[:-1] + b"K",
        lambda content: b"\x00" * len(content),
        lambda content: content.replace(b"success", b"SUCCESS"),
        lambda content: b"[]\n7\nnull\n{}\n" + content,
        lambda content: b"\n" * 100 + content[: len(content) // 2],
    ],
    ids=["torn", "newline", "zeros", "altered", "nonsense", "half"],
)
def test_a_damaged_index_goes_on_with_the_next_run_and_every_catalog_sees_it(
    indexed: Path, damage: Callable[[bytes], bytes]
) -> None:
    before = Catalog(indexed)
    assert len(before.volumes()) == 3
    path = indexed / "index/runs.jsonl"
    path.write_bytes(damage(path.read_bytes()))
    during = Catalog(indexed)
    assert len(during.volumes()) == 3
    feed(
        indexed,
        [
            ("start", start_doc(uid="4444-run", time=1_795_433_500.0, session="s")),
            ("stop", {"uid": "s4", "run_start": "4444-run", "time": 2.0, "exit_status": "success"}),
        ],
    )
    for catalog in (before, during, Catalog(indexed)):
        assert [run.uid for run in catalog.search()] == ["4444-run", "2222-run", "1111-run", "0000-run"]
        assert [run.exit_status for run in catalog] == ["success"] * 4
        assert len(catalog.volumes()) == 3
        assert catalog.timepoints("s", "e0") == [0, 2]
        assert catalog.next_timepoint("s", "e1") == 2
