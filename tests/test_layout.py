import datetime
import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gently_bluesky.errors import RootError
from gently_bluesky.store.layout import (
    check_root,
    create_root,
    day_folder,
    file_uri,
    open_root,
    run_folder_name,
    slug,
    uri_path,
)

# Windows: "Naming Files, Paths, and Namespaces"; the superscripts count as digits there.
RESERVED = {
    "CON",
    "PRN",
    "AUX",
    "NUL",
    *(f"{name}{i}" for name in ("COM", "LPT") for i in "0123456789\u00b9\u00b2\u00b3"),
}
hostile = st.one_of(
    st.text(st.characters(), max_size=400),
    st.sampled_from(
        [".", "..", "a/b", "a\\b", "c:", "nul", "NUL.txt", "com\u00b9", "-rf", " ", "a.", "a ", "\x00", "x" * 300]
    ),
)


@given(hostile)
def test_a_name_on_disk_is_safe_on_every_system(text: str) -> None:
    name = slug(text)
    assert 0 < len(name.encode()) <= 255
    assert name == name.strip(" .")
    assert not set(name) & set('<>:"/\\|?*\x00')
    assert name.isascii()
    assert name.isprintable()
    assert name not in {".", ".."}
    assert name.upper().partition(".")[0] not in RESERVED


@given(hostile, hostile, st.one_of(st.none(), st.integers(), hostile))
def test_the_name_of_a_run_folder_is_safe_on_every_system(uid: str, plan: str, scan_id: object) -> None:
    name = run_folder_name({"uid": uid, "plan_name": plan, "scan_id": scan_id})
    assert 0 < len(name.encode()) <= 100
    assert slug(name, 255) == name


def test_a_scan_id_of_300_digits_makes_no_name_of_300_letters() -> None:
    assert len(run_folder_name({"uid": "abcdefghijk", "plan_name": "p" * 300, "scan_id": 10**300})) < 100


def test_runs_of_one_day_sort_by_scan_id() -> None:
    found = [run_folder_name({"uid": "abcdefghijk", "plan_name": "count", "scan_id": i}) for i in (2, 10, 1)]
    assert sorted(found) == ["0001-count-abcdefgh", "0002-count-abcdefgh", "0010-count-abcdefgh"]


def test_a_run_without_scan_id_and_plan_has_a_name_all_the_same() -> None:
    assert run_folder_name({"uid": "abcdefghijk"}) == "None-run-abcdefgh"


def test_the_day_is_that_of_utc() -> None:
    midnight = datetime.datetime(2026, 11, 23, tzinfo=datetime.UTC).timestamp()
    assert day_folder(midnight) == Path("runs/2026/11/23")
    assert day_folder(midnight - 0.001) == Path("runs/2026/11/22")


@pytest.mark.parametrize("name", ["plain", "with space", "a%20b", "a#b?c", "100%", "\u00b5m", "a;b&c=d", "a:b"])
def test_the_uri_of_any_path_leads_back_to_it(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.mkdir()
    assert uri_path(file_uri(path)) == path
    assert uri_path(path.as_uri()) == path


def test_a_uri_of_another_kind_has_no_path() -> None:
    assert uri_path("http://localhost/a") is None
    assert uri_path("file://elsewhere/a") is None


# --- roots --------------------------------------------------------------------------------------------------


def test_making_a_root_twice_keeps_the_first_mark(tmp_path: Path) -> None:
    create_root(tmp_path / "a" / "b")
    mark = (tmp_path / "a" / "b" / "gently.json").read_bytes()
    create_root(tmp_path / "a" / "b")
    assert (tmp_path / "a" / "b" / "gently.json").read_bytes() == mark
    assert json.loads(mark) == {"layout": 1, "uri": f"file://localhost{tmp_path}/a/b"}
    assert [item.name for item in (tmp_path / "a" / "b").iterdir()] == ["gently.json"]


def test_checking_a_root_changes_nothing(tmp_path: Path) -> None:
    check_root(tmp_path / "new")
    check_root(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_with_something_else_in_it_does_not_become_a_root(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(RootError, match=r"is no root: it has no gently\.json, and it is not empty"):
        check_root(tmp_path)


def test_a_file_is_no_root(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(RootError, match="is a file"):
        check_root(tmp_path / "file")
    with pytest.raises(RootError, match="it is a file"):
        open_root(tmp_path / "file")
    with pytest.raises(RootError, match="file"):
        check_root(tmp_path / "file" / "below")


def test_a_folder_that_is_not_there_is_no_root_to_read(tmp_path: Path) -> None:
    with pytest.raises(RootError, match="There is no such folder"):
        open_root(tmp_path / "nowhere")
    with pytest.raises(RootError, match=r"has no gently\.json"):
        open_root(tmp_path)


def test_a_root_of_a_newer_layout_is_refused_by_reader_and_writer(tmp_path: Path) -> None:
    (tmp_path / "gently.json").write_text('{"layout": 2, "uri": "file://localhost/x"}')
    with pytest.raises(RootError, match="has layout 2; this gently_bluesky knows up to 1"):
        open_root(tmp_path)
    with pytest.raises(RootError, match="has layout 2"):
        check_root(tmp_path)


@pytest.mark.parametrize("mark", ["", "{", "[]", "{}", '{"layout": "x", "uri": ""}', "null", "\x00"])
def test_a_damaged_mark_is_an_error_that_names_it(tmp_path: Path, mark: str) -> None:
    (tmp_path / "gently.json").write_text(mark)
    with pytest.raises(RootError, match=r"gently\.json is damaged"):
        open_root(tmp_path)


def test_a_root_that_cannot_be_written_is_refused_before_anything_happens(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # root may write everywhere
    with pytest.raises(RootError, match="is read-only here"):
        check_root(tmp_path / "new")
