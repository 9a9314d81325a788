"""What is selected for an export, and that what was named is there."""

import logging
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import bluesky.plans as bp
import numpy as np
import pytest
from bluesky import Msg

from gently_bluesky import Catalog, FileWriter
from gently_bluesky.errors import ExportError, FrameMissingError, NothingSelectedError
from gently_bluesky.exchange.export_names import names_of
from gently_bluesky.exchange.export_pixels import pixels_of
from gently_bluesky.exchange.selection import Selection, select, timepoints
from gently_bluesky.read.run import Run
from tests.data_rig import Camera, feed, inline, record, start_doc, taken, volume
from tests.export_rig import CHANNELS, timelapse
from tests.test_recovery import interrupted


@pytest.fixture
def run(root: Path) -> Run:
    return timelapse(root)


def shown(selection: Selection, *fields: str) -> list[tuple[Any, ...]]:
    return [tuple(getattr(volume.shows, field) for field in fields) for volume in selection.volumes]


def test_a_run_is_selected_whole_by_embryo_timepoint_and_view(run: Run) -> None:
    selection = select(run)
    places = [
        (embryo, timepoint, view, channel)
        for embryo in ("e1", "e2")
        for timepoint in range(3)
        for view in "AB"
        for channel in CHANNELS
    ]
    assert shown(selection, "embryo", "timepoint", "view", "channel") == places
    assert len(selection.events) == 12
    assert [each.uid for each in selection.runs] == [run.uid]


def test_a_catalog_is_asked_by_what_volumes_show(run: Run, root: Path) -> None:
    timelapse(root, session="other", timepoints=[0])
    catalog = Catalog(root)
    found = select(catalog, session="s", embryo="e2", timepoint=[0, 2], view="B", channel=CHANNELS[1])
    assert shown(found, "session", "embryo", "timepoint", "view") == [("s", "e2", 0, "B"), ("s", "e2", 2, "B")]
    assert shown(select(catalog, timepoint=0, embryo="e1", view="A"), "session") == [("other",)] * 2 + [("s",)] * 2
    assert len(select(catalog, data_key="spim_a_image").volumes) == len(select(catalog, view="A").volumes) == 16


@pytest.mark.parametrize(
    ("asked", "why"),
    [
        ({"embryo": "e9"}, "embryo 'e9' is not there; available: 'e1', 'e2'"),
        ({"session": "tuesday"}, "session 'tuesday' is not there; available: 's'"),
        ({"embryo": "e1", "view": "C"}, "view 'C' is not there for embryo 'e1'; available: 'A', 'B'"),
        ({"timepoint": [7, 8]}, "timepoint 7..8 is not there; available: 0..2"),
        ({"timepoint": [1, 2, 3]}, "timepoint 3 is not there for session 's', embryo 'e1'; available: 0..2"),
        ({"embryo": ["e1", "e3"]}, "embryo 'e3' is not there; available: 'e1', 'e2'"),
        ({"stream": "secondary"}, "stream 'secondary' is not there; available: 'primary'"),
    ],
)
@pytest.mark.parametrize("of_run", [True, False])
def test_what_is_not_there_is_said_with_what_is(
    run: Run, root: Path, asked: dict[str, Any], why: str, of_run: bool
) -> None:
    with pytest.raises(NothingSelectedError, match=re.escape(why)):
        select(run if of_run else Catalog(root), **asked)


def test_a_timepoint_that_one_embryo_lacks_is_missed(root: Path) -> None:
    timelapse(root, without=[(1, 2)])
    select(Catalog(root), timepoint=[0, 1])
    with pytest.raises(
        NothingSelectedError, match=r"timepoint 2 is not there for session 's', embryo 'e2'; avail.*0\.\.1"
    ):
        select(Catalog(root), timepoint=[0, 1, 2])


def test_bad_volumes_are_left_out_unless_they_are_asked_for(root: Path) -> None:
    run = timelapse(root, bad=[(0, 1)])
    selection = select(run, embryo="e1")
    assert [volume.shows.timepoint for volume in selection.bad] == [1] * 4
    assert {row[0] for row in shown(selection, "timepoint")} == {0, 2}
    assert len(selection.events) == 6  # tables have them
    assert len(select(run, include_bad=True).volumes) == 24
    with pytest.raises(NothingSelectedError, match="4 volumes would fit, marked as not good; include_bad=True"):
        select(run, embryo="e1", timepoint=range(3))
    assert len(select(run, embryo="e1", timepoint=range(3), include_bad=True).volumes) == 12
    only_bad = select(run, embryo="e1", timepoint=1)
    assert not only_bad.volumes
    with pytest.raises(NothingSelectedError, match="4 volumes would fit, marked as not good"):
        pixels_of(only_bad)


def test_a_volume_with_frames_that_never_came_is_no_volume_even_if_bad_ones_are_asked_for(root: Path) -> None:
    from gently_bluesky.write.recovery import recover

    interrupted(root)
    recover(root, salvage="event")
    run = Catalog(root)[-1]
    selection = select(run, include_bad=True)
    assert any(not each.shows.good for each in selection.volumes)
    with pytest.raises(FrameMissingError, match=r"frames .* never came; there is no whole volume"):
        pixels_of(selection)
    assert len(pixels_of(select(run))) == len(selection.volumes) - 1


def test_a_run_without_volumes_has_events_and_says_that_it_has_no_volumes(root: Path) -> None:
    run = record(root, bp.count([inline("temperature_c", 20.5, 21.0)], 2))
    selection = select(run)
    assert (len(selection.events), selection.volumes) == (2, ())
    with pytest.raises(NothingSelectedError, match="No volumes are selected: there are none"):
        pixels_of(selection)


def test_a_run_that_is_empty_selects_nothing(root: Path) -> None:
    run = feed(root, [("start", start_doc(uid="run"))])
    with pytest.raises(NothingSelectedError, match="Nothing is selected: there are none"):
        select(run)


def test_of_a_run_that_goes_on_what_came_is_taken_and_that_is_said(
    root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = timelapse(root)
    pairs = [pair for pair in run.documents() if pair[0] != "stop"]
    open_run = feed(root.parent / "copy", pairs)
    with caplog.at_level(logging.WARNING):
        assert len(select(open_run).events) == 12
    assert "has no stop document: what came of it so far is taken" in caplog.text


def test_small_images_that_stayed_in_their_events_are_volumes_too(root: Path) -> None:
    run = record(root, bp.count([inline("img", *(volume(i, (8, 16)) for i in range(3)))], 3))
    (first, *_) = found = pixels_of(select(run))
    assert [each.shape for each in found] == [(1, 8, 16)] * 3
    np.testing.assert_array_equal(next(first.planes()), volume(0, (8, 16)))


def test_arrays_without_planes_are_left_out_and_named(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    def plan(writer: FileWriter) -> Iterator[Msg]:
        wave = inline("wave", np.arange(40_000.0))
        return bp.count([Camera("cam", writer), wave], 1)

    run = record(root, plan)
    with caplog.at_level(logging.WARNING):
        assert [each.volume.shows.data_key for each in pixels_of(select(run))] == ["cam_image"]
    assert "data key wave is left out, it holds no planes" in caplog.text
    with pytest.raises(ExportError, match=r"have planes to export; .*wave is \(40000,\)"):
        pixels_of(select(run, data_key="wave"))


def test_timepoints_are_read_as_people_write_them() -> None:
    assert timepoints("0-2, 7") == [0, 1, 2, 7]
    for text in ("", "a", "3-1", "1-", "-1", "0-99999999"):
        with pytest.raises(ExportError):
            timepoints(text)


# --- names --------------------------------------------------------------------------------------------------


def test_names_carry_embryo_and_timepoint_and_sort_by_them(root: Path) -> None:
    run = timelapse(root, timepoints=[2, 10], channels=["488 only"])
    names = names_of([[each] for each in select(run).volumes])
    assert names == sorted(names)
    assert names[:3] == ["s_e1_t0002_A_488_only", "s_e1_t0002_B_488_only", "s_e1_t0010_A_488_only"]


def test_two_volumes_of_one_address_have_names_of_their_own(root: Path) -> None:
    first = timelapse(root, embryos=["e"], timepoints=[0], channels=["c"], views="A")
    again = timelapse(root, embryos=["e"], timepoints=[0], channels=["c"], views="A")
    names = names_of([[each] for each in select(Catalog(root)).volumes])
    assert names == ["s_e_t0000_A_c", f"s_e_t0000_A_c_{again.uid[:8]}-0001"]
    assert first.uid != again.uid


def test_embryos_whose_names_differ_only_in_what_files_cannot_hold_do_not_collide(root: Path) -> None:
    run = timelapse(root, embryos=["a/b", "a:b", "A_b"], timepoints=[0], channels=["c"], views="A")
    names = names_of([[each] for each in select(run).volumes])
    assert len({name.lower() for name in names}) == 3
    assert not any(set("/:.\\") & set(name) for name in names)


def test_where_no_timepoint_is_known_the_run_and_seq_num_name_the_file(root: Path) -> None:
    run = record(root, lambda writer: taken(Camera("cam", writer), {}, {}))
    names = names_of([[each] for each in select(run).volumes])
    assert names == [f"{run.folder.name}_primary_{seq_num:06d}_A" for seq_num in (1, 2)]
    assert names_of([select(run).volumes]) == [f"{run.folder.name}_primary_000001-000002_A"]


def test_timepoints_beyond_four_digits_still_sort(root: Path) -> None:
    run = timelapse(root, embryos=["e"], timepoints=[9, 12345], channels=["c"], views="A")
    names = names_of([[each] for each in select(run).volumes])
    assert names == ["s_e_t00009_A_c", "s_e_t12345_A_c"]


def test_names_of_any_length_fit_into_a_file_system(root: Path) -> None:
    run = timelapse(root, embryos=["e" * 300], timepoints=[0], channels=["c" * 300], session="s" * 300, views="A")
    assert all(len(name) < 200 for name in names_of([[each] for each in select(run).volumes]))
