import contextlib
import json
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from gently_bluesky.errors import JournalError, RunLockedError
from gently_bluesky.store.disk import AppendFile
from gently_bluesky.store.journal import append_shared, encode_line, mend, read_documents, read_lines, read_start
from gently_bluesky.store.manifest import ManifestEntry, read_manifest


def test_a_file_cut_anywhere_gives_the_lines_that_are_whole(tmp_path: Path) -> None:
    lines = [encode_line({"i": i, "text": "\N{MICRO SIGN}\n"}) for i in range(3)]
    whole, path = b"".join(lines), tmp_path / "f.jsonl"
    for size in range(len(whole) + 1):
        path.write_bytes(whole[:size])
        ends = [len(b"".join(lines[: i + 1])) for i in range(3)]
        assert [offset for offset, _ in read_lines(path)] == [end for end in ends if end <= size]


def test_reading_goes_on_where_it_ended(tmp_path: Path) -> None:
    path = tmp_path / "f.jsonl"
    path.write_bytes(encode_line({"i": 1}) + b'{"i":2}')
    ((offset, first),) = read_lines(path)
    assert first == {"i": 1}
    with path.open("ab") as file:
        file.write(b"\n" + encode_line({"i": 3}))
    assert [content for _, content in read_lines(path, offset)] == [{"i": 2}, {"i": 3}]


@pytest.mark.parametrize(
    "damage", [b"\x00\x00\n", b"{]\n", b'{"a": NaN}\n', b"\xff\xfe\n", b"\n", b"[" * 10**5 + b"\n"]
)
def test_a_damaged_line_is_an_error_that_names_file_and_place(tmp_path: Path, damage: bytes) -> None:
    path, good = tmp_path / "journal.jsonl", encode_line({"a": 1})
    path.write_bytes(good + damage + good)
    lines = read_lines(path)
    assert next(lines) == (len(good), {"a": 1})
    with pytest.raises(JournalError, match=rf"journal\.jsonl: the line that ends at byte {len(good + damage)}"):
        next(lines)


@pytest.mark.parametrize("line", [[], {}, {"name": "start"}, 1, "start", None])
def test_a_line_that_is_no_document_is_an_error_that_names_it(tmp_path: Path, line: object) -> None:
    (tmp_path / "journal.jsonl").write_bytes(json.dumps(line).encode() + b"\n")
    with pytest.raises(JournalError, match="is no document"):
        list(read_documents(tmp_path))


def test_a_folder_without_a_start_has_none_yet(tmp_path: Path) -> None:
    assert read_start(tmp_path) is None
    (tmp_path / "journal.jsonl").write_bytes(b'{"name":"start","doc":{"uid":')
    assert read_start(tmp_path) is None
    (tmp_path / "journal.jsonl").write_bytes(encode_line({"name": "stop", "doc": {}}))
    assert read_start(tmp_path) is None
    assert read_start(tmp_path / "nowhere") is None


def test_a_line_that_cannot_be_appended_whole_is_not_appended_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import os

    write = os.write

    def half(descriptor: int, data: bytes) -> int:
        if len(data) < 8:
            raise OSError(5, "the disk is gone")
        return write(descriptor, bytes(data)[: len(data) // 2])

    file = AppendFile(tmp_path / "f.jsonl")
    file.append(b"first\n")
    monkeypatch.setattr(os, "write", half)
    with pytest.raises(OSError, match="the disk is gone"):
        file.append(b"a line that comes in pieces\n")
    monkeypatch.undo()
    file.append(b"second\n")
    file.close()
    file.close()
    assert (tmp_path / "f.jsonl").read_bytes() == b"first\nsecond\n"


def test_a_later_line_of_the_manifest_replaces_an_earlier_one_about_the_same_path(tmp_path: Path) -> None:
    entries = [
        ManifestEntry(data_key="a", resource="r", index=0, path="a/0.tif", shape=(1, 2), dtype="<u2"),
        ManifestEntry(data_key="a", resource="r", index=1, path="a/1.tif", details={"offset": 4096}),
        ManifestEntry(data_key="a", resource="r", index=0, path="a/0.tif", state="aborted"),
        ManifestEntry(data_key="b", resource="s", uri="file://localhost/x", state="foreign"),
    ]
    (tmp_path / "manifest.jsonl").write_bytes(b"".join(encode_line(entry.line()) for entry in entries))
    assert list(read_manifest(tmp_path).values()) == [entries[2], entries[1], entries[3]]


def test_a_manifest_line_of_another_kind_is_an_error_that_names_it(tmp_path: Path) -> None:
    (tmp_path / "manifest.jsonl").write_bytes(encode_line({"data_key": "a", "resource": "r", "color": "red"}))
    with pytest.raises(JournalError, match=r"manifest\.jsonl: the line that ends at byte \d+ is no entry .*color"):
        read_manifest(tmp_path)
    assert read_manifest(tmp_path / "nowhere") == {}


def test_a_bit_that_flipped_anywhere_is_found_or_changes_nothing(tmp_path: Path) -> None:
    path, values = tmp_path / "f.jsonl", [{"i": i, "text": "\N{MICRO SIGN}"} for i in range(2)]
    whole = b"".join(map(encode_line, values))
    for bit in range(8 * len(whole)):
        flipped = bytearray(whole)
        flipped[bit // 8] ^= 1 << bit % 8
        path.write_bytes(flipped)
        read: list[dict[str, Any]] = []
        with contextlib.suppress(JournalError):
            read.extend(line for _, line in read_lines(path))
        said = [{key: value for key, value in line.items() if key in values[0]} for line in read]
        assert said == values[: len(said)], f"bit {bit}"


def test_a_torn_line_is_cut_off_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "f.jsonl"
    assert mend(path) == 0
    line = encode_line({"text": "x" * 100_000})
    for content, torn in [
        (b"", 0),
        (line, 0),
        (b"torn", 4),
        (line + b"torn", 4),
        (line + line[:-2], len(line) - 2),
    ]:
        path.write_bytes(content)
        assert mend(path) == torn
        assert path.read_bytes() == content[: len(content) - torn]


def test_a_last_line_that_lacks_its_newline_alone_gets_it(tmp_path: Path) -> None:
    path, line = tmp_path / "f.jsonl", encode_line({"text": "x"})
    for damaged in (line[:-1], line[:-1] + b"?"):
        path.write_bytes(line + damaged)
        assert mend(path) == 0
        assert path.read_bytes() == line + line


def test_a_file_of_several_writers_goes_on_after_one_that_died_in_a_line(tmp_path: Path) -> None:
    path = tmp_path / "f.jsonl"
    append_shared(path, [{"i": 1}, {"i": 2}])
    with path.open("ab") as file:
        file.write(encode_line({"i": 3})[:-5])
    append_shared(path, [{"i": 4}])
    assert [line for _, line in read_lines(path)] == [{"i": 1}, {"i": 2}, {"i": 4}]


def test_a_file_that_another_process_holds_is_an_error_that_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gently_bluesky.store.journal._PATIENCE_S", 0.05)
    path = tmp_path / "f.jsonl"
    with FileLock(f"{path}.lock"), pytest.raises(RunLockedError, match="held by another process"):
        append_shared(path, [{"i": 1}])
    assert not path.exists()
