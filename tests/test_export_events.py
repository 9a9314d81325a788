"""Events as CSV and documents as JSON lines, as other programs read them."""

import csv
import datetime
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import bluesky.plan_stubs as bps
import bluesky.plans as bp
import numpy as np
import pytest
import tifffile
from bluesky import Msg

from gently_bluesky import Catalog, FileWriter
from gently_bluesky.errors import JournalError
from gently_bluesky.exchange.export_documents import json_lines
from gently_bluesky.exchange.export_table import csv_events
from gently_bluesky.exchange.selection import select
from gently_bluesky.keep.discard import discard
from tests.data_rig import Camera, Inline, hold_together, inline, journal, record, refused, taken, volume
from tests.export_rig import timelapse


def table(path: Path) -> list[dict[str, str]]:
    """The rows of a table."""
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_a_table_has_a_row_an_event_with_what_it_shows_and_its_files(root: Path, tmp_path: Path) -> None:
    run = timelapse(root, bad=[(1, 2)])
    path, _ = csv_events(select(run), tmp_path)
    assert path.name == f"{run.folder.name}_primary.csv"
    rows = table(path)
    assert [int(row["seq_num"]) for row in rows] == list(range(1, 13))
    assert [(row["session"], row["embryo"], row["timepoint"]) for row in rows[:3]] == [("s", "e1", "0")] * 2 + [
        ("s", "e2", "0")
    ]
    assert [row["good"] for row in rows].count("False") == 2
    for row, time in zip(rows, run["primary"].time, strict=True):
        assert float(row["time_s"]) == time
        moment = datetime.datetime.fromisoformat(row["time"])
        assert moment.timestamp() == pytest.approx(time, abs=1e-5)
        assert moment.utcoffset() == datetime.timedelta(0)
        assert row["run"] == run.uid
    for position in (0, 7):
        read = tifffile.imread(rows[position]["spim_b_image"])
        np.testing.assert_array_equal(read, run["primary"]["spim_b_image"].volume(position))


def test_beside_it_is_what_its_columns_are(root: Path, tmp_path: Path) -> None:
    keys = {
        "x": {"source": "stage", "dtype": "number", "shape": [], "units": "um", "dtype_numpy": "<f8"},
        "run": {"source": "a key of that name", "dtype": "string", "shape": []},
    }
    device = Inline("stage", lambda: {"x": 1.5, "run": "mine"}, keys)
    run = record(root, bp.count([device], 2))
    path, about = csv_events(select(run), tmp_path)
    assert about.name == f"{run.folder.name}_primary.columns.csv"
    columns = {row["column"]: row for row in table(about)}
    assert list(columns) == list(table(path)[0])
    assert columns["x"] == {
        "column": "x", "data_key": "x", "units": "um", "dtype": "<f8", "shape": "", "source": "stage",
    }  # fmt: skip
    assert columns["run_"]["data_key"] == "run"
    assert [(row["x"], row["run_"], row["run"]) for row in table(path)] == [("1.5", "mine", run.uid)] * 2


def test_no_two_columns_have_one_name(root: Path, tmp_path: Path) -> None:
    values = {"time": 1.0, "time_": 2.0, "run": 3.0}
    keys = {key: {"source": "t", "dtype": "number", "shape": []} for key in values}
    run = record(root, bp.count([Inline("d", lambda: values, keys)], 1))
    path, about = csv_events(select(run), tmp_path)
    heading = path.read_text().splitlines()[0].split(",")
    assert len(heading) == len(set(heading))
    (row,) = table(path)
    assert [row[column] for column in ("time__", "time_", "run_")] == ["1.0", "2.0", "3.0"]
    assert {said["column"]: said["data_key"] for said in table(about)}["time__"] == "time"


def test_values_come_back_as_they_were(root: Path, tmp_path: Path) -> None:
    values: dict[str, Any] = {
        "third": 1 / 3,
        "large": 2**60,
        "nan": math.nan,
        "inf": -math.inf,
        "text": 'a, "b"\nc \N{MICRO SIGN}',
        "pair": np.array([1.0, math.inf]),
        "yes": True,
    }
    keys = {key: {"source": "t", "dtype": "number", "shape": []} for key in values}
    (row,) = table(csv_events(select(record(root, bp.count([Inline("d", lambda: values, keys)], 1))), tmp_path)[0])
    assert float(row["third"]) == 1 / 3
    assert int(row["large"]) == 2**60
    assert math.isnan(float(row["nan"]))
    assert float(row["inf"]) == -math.inf
    assert row["text"] == values["text"]
    assert json.loads(row["pair"], parse_constant=refused) == [1.0, {"$float": "inf"}]
    assert row["yes"] == "True"


def test_every_stream_of_a_run_is_a_table_and_a_selection_is_one_of_what_fits(root: Path, tmp_path: Path) -> None:
    def plan(writer: FileWriter) -> Iterator[Msg]:
        camera, temperature = Camera("cam", writer, embryo="e"), inline("temperature_c", 21.5)
        yield from bps.open_run(md={"session": "s"})
        yield from bps.trigger_and_read([temperature], name="baseline")
        for timepoint in range(3):
            camera.scalars["timepoint"] = timepoint
            yield from bps.trigger_and_read([camera])
        yield from bps.close_run()

    run = record(root, plan)
    paths = csv_events(select(run), tmp_path / "run")
    assert {path.name: len(table(path)) for path in paths if ".columns" not in path.name} == {
        f"{run.folder.name}_baseline.csv": 1,
        f"{run.folder.name}_primary.csv": 3,
    }
    path, _ = csv_events(select(Catalog(root), embryo="e", timepoint=[1, 2]), tmp_path / "selection")
    assert path.name == "s_e_t0001-0002_primary.csv"
    assert [row["timepoint"] for row in table(path)] == ["1", "2"]


def test_of_a_view_that_was_asked_for_only_its_files_are_named(root: Path, tmp_path: Path) -> None:
    path, _ = csv_events(select(timelapse(root), view="B"), tmp_path)
    assert "spim_b_image" in table(path)[0]
    assert "spim_a_image" not in table(path)[0]


def test_runs_with_other_keys_share_a_table_and_what_one_has_not_is_empty(root: Path, tmp_path: Path) -> None:
    record(root, lambda writer: taken(Camera("cam", writer, x_um=1.5), {}))
    record(root, lambda writer: taken(Camera("cam", writer, y_um=1.5), {}))
    path, _ = csv_events(select(Catalog(root)), tmp_path)
    assert path.name == "selection_primary.csv"
    assert [(row["x_um"], row["y_um"]) for row in table(path)] == [("1.5", ""), ("", "1.5")]


def test_runs_that_differ_in_a_unit_have_a_column_for_each(root: Path, tmp_path: Path) -> None:
    for said in ({"units": "um"}, {"units": "mm"}, {}):
        record(root, bp.count([inline("x", 1.5, y=2.0, **said)], 1))
    path, about = csv_events(select(Catalog(root)), tmp_path)
    names = ["x (um)", "x (mm)", "x (no units)"]
    assert [[row[name] for name in names] for row in table(path)] == [
        ["1.5", "", ""],
        ["", "1.5", ""],
        ["", "", "1.5"],
    ]
    of_x = [row for row in table(about) if row["data_key"] == "x"]
    assert [(row["column"], row["units"]) for row in of_x] == list(zip(names, ["um", "mm", ""], strict=True))


def test_a_file_that_was_removed_is_an_empty_cell(root: Path, tmp_path: Path) -> None:
    run = timelapse(root, embryos=["e1"], timepoints=[0], channels=["c"])
    discard(root, run.uid)
    (row,) = table(csv_events(select(Catalog(root)[-1]), tmp_path)[0])
    assert row["spim_a_image"] == row["spim_b_image"] == ""


def test_what_others_wrote_is_named_by_its_file_or_its_uri(root: Path, tmp_path: Path) -> None:
    from bluesky.tests.test_tiled_writer import render_templated_documents

    with FileWriter(root) as writer:
        for item in render_templated_documents("external_assets.json", str(tmp_path)):
            if item["name"] == "stream_resource" and item["doc"]["mimetype"] == "application/x-hdf5":
                item["doc"] |= {"mimetype": "application/x-new", "uri": "s3://bucket/key"}
            writer(item["name"], item["doc"])
    run = Catalog(root)[-1]
    named = [
        row[key]
        for path in csv_events(select(run), tmp_path / "out")
        if ".columns" not in path.name
        for row in table(path)
        for name in run
        for key in run[name].image_keys
        if key in row
    ]
    assert set(named) > {"s3://bucket/key"}
    assert all(cell == "s3://bucket/key" or str(tmp_path) in cell for cell in named)


# --- documents ----------------------------------------------------------------------------------------------


def test_json_lines_are_the_documents_of_each_run_whole(root: Path, tmp_path: Path) -> None:
    runs = [timelapse(root, timepoints=[0]), timelapse(root, timepoints=[1])]
    paths = json_lines(select(Catalog(root), embryo="e1"), tmp_path)
    assert [path.name for path in paths] == [f"{run.folder.name}.jsonl" for run in runs]
    for run, path in zip(runs, paths, strict=True):
        lines = [json.loads(line, parse_constant=refused) for line in path.read_text("utf-8").splitlines()]
        assert [(line["name"], line["doc"]) for line in lines] == journal(run.folder)
        assert all(set(line) == {"name", "doc"} for line in lines)
        hold_together([(line["name"], line["doc"]) for line in lines])


def test_a_damaged_journal_is_no_export(root: Path, tmp_path: Path) -> None:
    run = timelapse(root, timepoints=[0])
    path = run.folder / "journal.jsonl"
    path.write_bytes(path.read_bytes().replace(b'"embryo":"e2"', b'"embryo":"e3"', 1))
    with pytest.raises(JournalError):
        json_lines(select(Catalog(root)[-1]), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_numbers_that_json_lacks_are_spelled(root: Path, tmp_path: Path) -> None:
    run = record(root, bp.count([inline("x", math.nan), inline("img", volume(0, (200, 200)))], 1))
    (path,) = json_lines(select(run), tmp_path)
    events = [json.loads(line) for line in path.read_text("utf-8").splitlines() if '"event"' in line]
    assert events[0]["doc"]["data"]["x"] == {"$float": "nan"}
