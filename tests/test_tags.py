"""Tags and notes: what people and agents say of a run after it happened."""

from pathlib import Path

import pytest

from gently_bluesky import Catalog
from gently_bluesky.errors import JournalError
from gently_bluesky.store import tags
from gently_bluesky.store.tags import add_note, read_tags
from tests.data_rig import feed, in_child, start_doc, stop_doc


@pytest.fixture
def run_root(root: Path) -> Path:
    feed(root, [("start", start_doc(uid="run")), ("stop", stop_doc("run"))])
    return root


def test_tags_come_and_go_and_the_notes_say_who_did_it_and_when(run_root: Path) -> None:
    run = Catalog(run_root)["run"]
    assert (run.tags, run.notes) == (frozenset(), ())
    run.tag("keep", "figure 2", by="ann")
    run.untag("keep", by="bob")
    run.note("the embryo moved at 12", by="agent")
    assert run.tags == {"figure 2"}
    first, second, third = run.notes
    assert (first.by, first.added, first.removed, first.text) == ("ann", ("keep", "figure 2"), (), "")
    assert (second.by, second.added, second.removed) == ("bob", (), ("keep",))
    assert (third.by, third.text) == ("agent", "the embryo moved at 12")
    assert first.time <= second.time <= third.time
    assert Catalog(run_root)["run"].tags == {"figure 2"}


def test_a_tag_that_is_not_there_is_not_taken_away(run_root: Path) -> None:
    run = Catalog(run_root)["run"]
    run.tag("keep", "figure 2", by="ann")
    with pytest.raises(ValueError, match="Run run has no tag 'kept'; its tags: figure 2, keep"):
        run.untag("keep", "kept", by="bob")
    assert run.tags == {"keep", "figure 2"}
    assert len(run.notes) == 1


def test_whoever_is_logged_in_says_it_if_nobody_is_named(run_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("getpass.getuser", lambda: "carol")
    run = Catalog(run_root)["run"]
    run.tag("a")
    run.untag("a")
    run.note("b")
    assert {note.by for note in run.notes} == {"carol"}


def test_a_system_that_knows_no_user_is_no_obstacle(run_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def nobody() -> str:
        raise KeyError("getpwuid(): uid not found: 1000")

    monkeypatch.setattr("getpass.getuser", nobody)
    run = Catalog(run_root)["run"]
    run.tag("a")
    assert run.notes[0].by == "unknown"


def test_documents_know_nothing_of_tags(run_root: Path) -> None:
    run = Catalog(run_root)["run"]
    before = (run.folder / "journal.jsonl").read_bytes()
    run.tag("keep", by="ann")
    assert (run.folder / "journal.jsonl").read_bytes() == before


@pytest.mark.parametrize("tag", ["", " a", "a ", "a\nb"])
def test_what_is_no_tag_is_refused(run_root: Path, tag: str) -> None:
    with pytest.raises(ValueError, match="is no tag"):
        Catalog(run_root)["run"].tag(tag, by="ann")


def test_a_note_says_something_and_by_whom(run_root: Path) -> None:
    run = Catalog(run_root)["run"]
    with pytest.raises(ValueError, match="needs a tag"):
        run.note("", by="ann")
    with pytest.raises(ValueError, match="by whom"):
        run.note("x", by=" ")
    assert run.notes == ()


def test_tags_of_several_processes_are_all_there(run_root: Path) -> None:
    folder = Catalog(run_root)["run"].folder
    in_child(
        """
import sys, threading
from pathlib import Path
from gently_bluesky.store.tags import add_note
threads = [threading.Thread(target=add_note, args=(Path(sys.argv[1]),), kwargs={"by": "x", "added": [f"t{i}"]})
           for i in range(8)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
""",
        folder,
    )
    add_note(folder, by="ann", added=["mine"])
    assert read_tags(folder) == {*(f"t{i}" for i in range(8)), "mine"}


def test_damaged_tags_are_an_error_and_never_no_tags(run_root: Path) -> None:
    run = Catalog(run_root)["run"]
    run.tag(tags.KEEP, by="ann")
    path = run.folder / "tags.jsonl"
    path.write_bytes(path.read_bytes().replace(b"keep", b"kepp"))
    with pytest.raises(JournalError, match=r"tags\.jsonl: .* is damaged"):
        run.tags  # noqa: B018
