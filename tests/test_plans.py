"""Plans of the microscope, run for real on the simulated core, read back from their files."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import bluesky.plan_stubs as bps
import bluesky.plans as bp
import bluesky.preprocessors as bpp
import numpy as np
import pytest
import tifffile
from bluesky import RunEngine
from bluesky.simulators import check_limits
from bluesky.utils import FailedStatus, RunEngineInterrupted
from ophyd import Signal
from ophyd.sim import det, motor
from ophyd.utils import LimitError

from devices import Dispim
from devices.simulated.scene import FrameContext
from gently_bluesky import Catalog, FileWriter, replay
from gently_bluesky.errors import DiskFullError, PlanError, PresetError
from gently_bluesky.plans import Calibration, Embryo, acquire_timelapse, acquire_volume, snap
from gently_bluesky.store.manifest import read_manifest
from tests.devices_rig import DARK, PLANES, SIZE, address, faults, simulated, small, spim_settings, subscribe

E1 = Embryo(name="e1", x_um=-400.0, y_um=-300.0)
E2 = Embryo(
    name="e2",
    x_um=100.0,
    y_um=-240.0,
    z_um=12.0,
    calibration={"A": Calibration(piezo_offset_um=5.0, galvo_offset_deg=0.25, um_per_deg=90.0)},
)


@contextmanager
def microscope(root: Path, **options: Any) -> Iterator[tuple[RunEngine, Dispim, FileWriter]]:
    """A RunEngine, a simulated microscope and the writer that both share."""
    with FileWriter(root) as writer:
        engine = RunEngine({}, context_managers=[])
        subscribe(engine, writer)
        dispim = simulated(sink=writer, configuration=small(spim=spim_settings(views="AB")), **options)
        try:
            yield engine, dispim, writer
        finally:
            dispim.close()


def addresses(images: Any) -> list[list[int]]:
    """View, number and plane that each plane of each volume carries."""
    return [[int(value) for value in images[event, :, 0, 2]] for event in range(len(images))]


def pause_soon(engine: RunEngine) -> None:
    """Ask for a pause from a thread of its own, as a keyboard or a server does: callbacks run on the engine's."""
    threading.Thread(target=engine.request_pause).start()


def dark(dispim: Dispim) -> bool:
    return str(dispim.laser.output.get()) == "ALL OFF"


def test_a_timelapse_puts_every_plane_where_it_belongs_and_says_what_it_shows(root: Path) -> None:
    with microscope(root) as (engine, dispim, _):
        engine(acquire_timelapse(dispim, [E1, E2], session="s", count=2, channels=["488 only", "561 only"]))
        assert dark(dispim)
    primary = Catalog(root)[-1]["primary"]
    assert list(primary["embryo"]) == ["e1", "e1", "e2", "e2"] * 2
    assert list(primary["timepoint"]) == [0] * 4 + [1] * 4
    assert list(primary["position"]) == [0, 0, 1, 1] * 2
    assert list(primary["channel"]) == ["488 only", "561 only"] * 4
    assert list(primary["xy_stage_x"]) == pytest.approx([-400.0, -400.0, 100.0, 100.0] * 2)
    assert list(primary["z_stage"][2:4]) == [12.0, 12.0]
    assert list(primary["spim_a_piezo_offset_um"][2:4]) == [5.0, 5.0]
    for key, view in (("spim_a", 1), ("spim_b", 2)):
        images = primary[key]
        assert images.shape == (8, PLANES, SIZE, SIZE)
        assert addresses(images) == [list(range(PLANES))] * 8
        assert {int(value) for value in images[:, 0, 0, 0]} == {view}


def test_the_start_document_says_what_was_planned(root: Path) -> None:
    with microscope(root) as (engine, dispim, _):
        engine(acquire_timelapse(dispim, [E2], session="s", count=1, md={"operator": "ann"}))
    start = Catalog(root)[-1].start
    assert (start["plan_name"], start["session"], start["operator"]) == ("acquire_timelapse", "s", "ann")
    assert start["num_points"] == 1
    assert start["embryos"][0]["calibration"]["A"]["um_per_deg"] == 90.0


def test_timepoints_go_on_where_the_catalog_ends(root: Path) -> None:
    with microscope(root) as (engine, dispim, writer):
        catalog = Catalog(writer.root)
        engine(acquire_timelapse(dispim, [E1], session="s", count=2, catalog=catalog))
        engine(acquire_timelapse(dispim, [E1, E2], session="s", count=1, catalog=catalog))
        engine(acquire_volume(dispim, session="s", embryo="e1", catalog=catalog))
        engine(acquire_timelapse(dispim, [E1], session="another", count=1, catalog=catalog))
    assert catalog.timepoints("s", "e1") == [0, 1, 2, 3]
    assert catalog.timepoints("s", "e2") == [0]
    assert catalog.timepoints("another", "e1") == [0]
    assert catalog.next_timepoint("s", "e1") == 4


def test_an_embryo_without_calibration_has_that_of_the_beginning_and_not_its_neighbours(root: Path) -> None:
    with microscope(root) as (engine, dispim, _):
        engine(acquire_timelapse(dispim, [E1, E2], session="s", count=2))
    primary = Catalog(root)[-1]["primary"]
    assert list(primary["spim_a_piezo_offset_um"]) == [0.0, 5.0, 0.0, 5.0]
    assert list(primary["z_stage"]) == [0.0, 12.0, 0.0, 12.0]


def test_a_volume_alone_is_a_run_of_one_event(root: Path) -> None:
    with microscope(root) as (engine, dispim, _):
        engine(
            acquire_volume(dispim, session="s", embryo="e", timepoint=7, views="B", num_slices=3, z_step_um=0.5)
        )
    run = Catalog(root)[-1]
    (volume,) = Catalog(root).volumes(session="s", embryo="e", timepoint=7, view="B")
    assert (run.start["embryo"], run.start["timepoint"]) == ("e", 7)
    assert run["primary"].image_keys == ["spim_b"]
    assert volume.array().shape == (3, SIZE, SIZE)
    assert volume.images.voxel_size_um == (0.5, 0.1625, 0.1625)


def test_a_volume_that_nobody_named_claims_no_embryo(root: Path) -> None:
    with microscope(root) as (engine, dispim, _):
        engine(acquire_volume(dispim))
    run = Catalog(root)[-1]
    assert "embryo" not in run.start
    assert "embryo" not in run["primary"].data_keys


def test_a_snap_is_one_frame(root: Path) -> None:
    with microscope(root) as (engine, dispim, _):
        engine(snap(dispim.bottom_camera, exposure_ms=3.0, also=[dispim.xy_stage]))
    primary = Catalog(root)[-1]["primary"]
    assert primary["bottom_camera"].dims == ("event", "y", "x")
    assert primary["bottom_camera_exposure_ms"][0] == 3.0
    assert primary["bottom_camera"][0].shape == (SIZE, SIZE)


@pytest.mark.parametrize(
    ("embryos", "options", "error", "match"),
    [
        ([], {}, ValueError, "needs embryos"),
        ([E1, E1], {}, ValueError, "a name of its own"),
        ([E1], {"count": 0}, ValueError, "at least 1"),
        ([Embryo(name="far", x_um=9999.0, y_um=0.0)], {}, LimitError, "9999"),
        ([Embryo(name="deep", x_um=0.0, y_um=0.0, z_um=999.0)], {}, LimitError, "999"),
        ([E1], {"channels": ["405 only"]}, PresetError, "405 only "),
        ([E1], {"channels": ["488 only", "488 only"]}, ValueError, "once a round"),
        ([E1], {"count": 1.5}, ValueError, "whole count"),
        ([E1], {"interval_s": -5.0}, ValueError, "interval_s"),
        ([E1], {"interval_s": "5"}, PlanError, "interval_s='5'"),
        ([E1], {"session": ""}, TypeError, "session"),
        ([E1], {"session": 3}, TypeError, "session"),
        ([E1], {"session": 3}, PlanError, "session"),
        ([("e", 0, 0)], {}, TypeError, "Embryo"),
        ([Embryo(name="e", x_um=0.0, y_um=0.0, calibration={"C": 1})], {}, TypeError, "calibration"),  # type: ignore[dict-item]
        ([Embryo(name="e", x_um=0.0, y_um=0.0, calibration=7)], {}, TypeError, "calibration"),  # type: ignore[arg-type]
    ],
    ids=[
        "no embryos",
        "one name twice",
        "no rounds",
        "x outside",
        "z outside",
        "a preset misspelled",
        "a channel twice",
        "half a round",
        "back in time",
        "text for an interval",
        "no session",
        "a number for a session",
        "a number for a session, by our own name",
        "a tuple for an embryo",
        "no such view",
        "a number for a calibration",
    ],
)
def test_a_plan_that_cannot_be_is_refused_before_anything_moves(
    root: Path, embryos: list[Any], options: dict[str, Any], error: type[Exception], match: str
) -> None:
    with microscope(root) as (engine, dispim, writer):
        before = dispim.xy_stage.position
        with pytest.raises(error, match=match):
            engine(acquire_timelapse(dispim, embryos, **{"session": "s", "count": 1, **options}))
        assert tuple(dispim.xy_stage.position) == tuple(before)
        assert len(Catalog(writer.root)) == 0


BENT = Embryo(
    name="bent",
    x_um=0.0,
    y_um=0.0,
    calibration={"B": Calibration(piezo_offset_um=199.0, galvo_offset_deg=0.0, um_per_deg=100.0)},
)
STEEP = Embryo(
    name="steep",
    x_um=0.0,
    y_um=0.0,
    calibration={"A": Calibration(piezo_offset_um=0.0, galvo_offset_deg=4.99, um_per_deg=2.0)},
)
FLAT = Embryo(
    name="flat",
    x_um=0.0,
    y_um=0.0,
    calibration={"A": Calibration(piezo_offset_um=0.0, galvo_offset_deg=0.0, um_per_deg=0.0)},
)


@pytest.mark.parametrize(
    ("embryos", "options", "error", "match"),
    [
        (
            [E1],
            {"num_slices": 50, "z_step_um": 10.0},
            LimitError,
            r"embryo 'e1': spim_a: 50 planes need the piezo from -245 to 245 um, allowed are -200 to 200; set "
            r"spim_num_slices or spim_z_step_um smaller, or spim_a_piezo_offset_um nearer to the middle",
        ),
        ([E1, BENT], {"views": "AB"}, LimitError, "embryo 'bent': spim_b: 6 planes need the piezo from 196.5 to"),
        ([E1, STEEP], {}, LimitError, "embryo 'steep': spim_a: 6 planes need the galvo from 3.74 to 6.24 deg"),
        ([E1, FLAT], {}, LimitError, "embryo 'flat': spim_a: a slope of 0 um per degree"),
        ([E1], {"exposure_ms": 50.0}, LimitError, "spim_exposure_ms: asked for 50; a plane takes 13 ms"),
        ([E1], {"exposure_ms": 1e6}, LimitError, "spim_exposure_ms: asked for 1e"),
        ([E1], {"z_step_um": 0.0}, LimitError, "spim_z_step_um: asked for 0"),
        ([E1], {"num_slices": 2.5}, LimitError, "spim_num_slices: 2.5 is not a whole number"),
        ([E1], {"views": "C"}, PresetError, "spim_views: 'C' is not a choice; there are 'A', 'B', 'AB'"),
        ([E1, Embryo(name="far", x_um=9999.0, y_um=0.0)], {}, LimitError, "embryo 'far': xy_stage_x: asked for"),
        ([E1, Embryo(name="deep", x_um=0.0, y_um=0.0, z_um=999.0)], {}, LimitError, "embryo 'deep': z_stage: "),
        ([E1], {"channels": ["561 only", "488 only"]}, PresetError, "488 nm at 9.09 percent, allowed are 2 to 6"),
    ],
    ids=[
        "a z step beyond the piezo",
        "a calibration beyond the piezo of view B",
        "a calibration beyond the galvo",
        "no slope",
        "an exposure longer than a plane",
        "an exposure longer than any",
        "no z step",
        "half a plane",
        "no such view",
        "x outside",
        "z outside",
        "a power that somebody else set",
    ],
)
def test_what_cannot_be_taken_is_found_before_the_first_document(
    root: Path, embryos: list[Embryo], options: dict[str, Any], error: type[Exception], match: str
) -> None:
    """At any embryo, view or channel; nothing has moved, and no setting has changed."""
    with microscope(root) as (engine, dispim, writer):
        dispim.core.setProperty("LaserPower488", "PowerSetpoint(%)", "9.09")
        documents: list[str] = []
        subscribe(engine, lambda name, doc: documents.append(name))

        def state() -> Any:
            spim = dispim.spim
            told = [each.get() for each in (spim.views, spim.num_slices, spim.z_step_um, spim.exposure_ms)]
            return told, dispim.xy_stage.position, dispim.z_stage.position, dispim.laser.position

        before = state()
        chosen = {"channels": ["561 only"], **options}
        with pytest.raises(error, match=match):
            engine(acquire_timelapse(dispim, embryos, session="s", count=1, **chosen))
        with pytest.raises(error, match=match):
            check_limits(acquire_timelapse(dispim, embryos, session="s", count=1, **chosen))
        assert documents == []
        assert state() == before
        assert len(Catalog(writer.root)) == 0


@pytest.mark.parametrize(
    ("options", "error", "match"),
    [
        ({"num_slices": 50, "z_step_um": 10.0, "channel": "561 only"}, LimitError, "from -245 to 245 um"),
        ({"exposure_ms": 50.0, "channel": "561 only"}, LimitError, r"at most 12\.5"),
        ({"channel": "405 only"}, PresetError, "'405 only' is not a choice"),
        ({"channel": "488 only"}, PresetError, "488 nm at 9.09 percent"),
        ({}, PresetError, "488 nm at 9.09 percent"),
    ],
    ids=["a z step", "an exposure", "a preset misspelled", "a power", "the power of what is selected"],
)
def test_a_volume_that_cannot_be_taken_is_found_before_the_first_document(
    root: Path, options: dict[str, Any], error: type[Exception], match: str
) -> None:
    with microscope(root) as (engine, dispim, _):
        dispim.core.setProperty("LaserPower488", "PowerSetpoint(%)", "9.09")
        documents: list[str] = []
        subscribe(engine, lambda name, doc: documents.append(name))
        with pytest.raises(error, match=match):
            engine(acquire_volume(dispim, **options))
        assert documents == []


def test_a_dark_reference_is_taken_when_it_is_asked_for_by_name(root: Path) -> None:
    with microscope(root) as (engine, dispim, _):
        engine(acquire_timelapse(dispim, [E1], session="s", count=1, channels=["ALL OFF", "488 only"]))
        engine(acquire_volume(dispim, channel="ALL OFF"))
    volume, timelapse = list(Catalog(root))
    assert list(timelapse["primary"]["channel"]) == ["ALL OFF", "488 only"]
    assert timelapse["primary"]["spim_a"][0, :, 5:].max() == DARK
    assert timelapse["primary"]["spim_a"][1, :, 5:].min() > DARK
    assert list(volume["primary"]["channel"]) == ["ALL OFF"]


def test_a_volume_is_not_dark_because_the_lasers_were_left_off(root: Path) -> None:
    with microscope(root) as (engine, dispim, _):
        engine(bps.mv(dispim.laser, "ALL OFF"))
        for plan in (acquire_volume(dispim), acquire_timelapse(dispim, [E1], session="s", count=1)):
            with pytest.raises(ValueError, match="'ALL OFF' is selected; for a dark reference ask for 'ALL OFF'"):
                engine(plan)
        assert len(Catalog(root)) == 0


def test_a_volume_is_not_dark_because_no_channel_is_left(root: Path) -> None:
    with microscope(root) as (engine, dispim, _):
        with pytest.raises(ValueError, match=r"need a channel; there are \['ALL OFF', '405 only ',"):
            engine(acquire_timelapse(dispim, [E1], session="s", count=1, channels=[]))
        assert len(Catalog(root)) == 0


def test_a_volume_is_not_dark_because_its_power_is_0(root: Path) -> None:
    with microscope(root) as (engine, dispim, _):
        engine(bps.mv(dispim.laser.power_561_percent, 0.0))
        expected = (
            "'561 only' would light nothing, its lines stand at 0 percent; set laser_power_561_percent first"
        )
        with pytest.raises(PresetError, match=expected):
            engine(acquire_volume(dispim, channel="561 only"))
        assert len(Catalog(root)) == 0
        engine(acquire_volume(dispim, channel="488 and 561"))  # a mixture: one of its lines is at 0
        assert len(Catalog(root)) == 1


def test_the_channel_that_is_selected_is_taken_and_named(root: Path) -> None:
    with microscope(root) as (engine, dispim, _):
        engine(bps.mv(dispim.laser, "561 only"))
        engine(acquire_timelapse(dispim, [E1], session="s", count=1))
    run = Catalog(root)[-1]
    assert run.start["channels"] == ["561 only"]
    assert list(run["primary"]["channel"]) == ["561 only"]


def test_a_plan_says_how_many_bytes_it_will_give(root: Path) -> None:
    """Settings that the plan is still to make count; so do cameras beside the detector."""
    with microscope(root) as (engine, dispim, _):
        engine(acquire_volume(dispim, num_slices=3, views="A", also=[dispim.bottom_camera]))
        two = ["488 only", "561 only"]
        engine(acquire_timelapse(dispim, [E1, E2], session="s", count=2, channels=two, views="AB", num_slices=2))
        engine(snap(dispim.bottom_camera))
        engine(snap(det))
    volume, timelapse, frame, other = reversed(list(Catalog(root)))
    size = SIZE * SIZE * 2
    assert volume.start["expected_bytes"] == (3 + 1) * size
    assert timelapse.start["expected_bytes"] == 2 * 2 * 2 * 2 * 2 * size
    assert frame.start["expected_bytes"] == size
    assert "expected_bytes" not in other.start  # it cannot say
    for run in (volume, timelapse, frame):
        assert sum(entry.bytes for entry in read_manifest(run.folder).values()) == run.start["expected_bytes"]


def test_a_timelapse_that_does_not_fit_is_refused_before_its_run_opens(small_disk: Path) -> None:
    exposures: list[int] = []

    def counted(context: FrameContext) -> Any:
        exposures.append(context.number)
        return address(context)

    with microscope(small_disk, frame_source=counted) as (engine, dispim, _):
        documents: list[str] = []
        subscribe(engine, lambda name, doc: documents.append(name))
        expected = 50 * 2 * PLANES * SIZE * SIZE * 2
        with pytest.raises(DiskFullError, match=rf"\(acquire_timelapse\): it expects {expected:,} bytes"):
            engine(acquire_timelapse(dispim, [E1], session="s", count=50))
        assert "start" not in documents
        assert exposures == []
        assert dark(dispim)
        assert len(Catalog(small_disk)) == 0
        with pytest.raises(FailedStatus):  # who knows better may try
            engine(acquire_timelapse(dispim, [E1], session="s", count=50, md={"expected_bytes": 0}))
        assert dark(dispim)
    tried = Catalog(small_disk)[-1]
    assert len(tried["primary"]) > 10
    assert "No room for" in (tried.stop or {})["reason"]


def test_check_limits_passes_a_plan_that_can_be(root: Path) -> None:
    with microscope(root) as (_, dispim, _):
        check_limits(acquire_timelapse(dispim, [E1, E2], session="s", count=2, channels=["488 only"]))
        check_limits(acquire_volume(dispim, num_slices=3))


def test_a_power_outside_its_bounds_is_refused(root: Path) -> None:
    with microscope(root) as (engine, dispim, _), pytest.raises(LimitError, match=r"9\.09"):
        engine(bps.mv(dispim.laser.power_488_percent, 9.09))


def test_check_limits_sees_a_scan_that_leaves_the_stage(root: Path) -> None:
    with microscope(root) as (_, dispim, _):
        for plan, match in (
            (bp.scan([dispim.spim], dispim.piezo_a, 0, 500, 3), "piezo_a: asked for 250"),
            (bps.mv(dispim.xy_stage, (0.0, 9999.0)), "xy_stage_y: asked for 9999"),
            (bps.mv(dispim.fdrive, 29.0), "fdrive: asked for 29"),
        ):
            with pytest.raises(LimitError, match=match):
                check_limits(plan)


def test_a_failed_volume_fails_the_run_with_its_cause_and_leaves_what_came_before(root: Path) -> None:
    with microscope(root) as (engine, dispim, _):
        count = 0

        def lose_one(name: str, doc: dict[str, Any]) -> None:
            nonlocal count
            count += name == "event"
            if name == "event" and count == 2:
                faults(dispim).lost_frames = {("HamCam1", 2)}

        subscribe(engine, lose_one)
        with pytest.raises(FailedStatus):
            engine(acquire_timelapse(dispim, [E1], session="s", count=5))
        assert dark(dispim)
        faults(dispim).clear()
        engine(acquire_volume(dispim))
    broken = Catalog(root)[-2]
    assert broken.exit_status == "fail"
    assert "spim" in broken.stop["reason"] if broken.stop else False
    assert addresses(broken["primary"]["spim_a"]) == [list(range(PLANES))] * 2
    assert Catalog(root)[-1].exit_status == "success"


def test_after_pause_and_resume_volumes_are_lit_again(root: Path) -> None:
    with microscope(root) as (engine, dispim, _):
        events = 0

        def pause_once(name: str, doc: dict[str, Any]) -> None:
            nonlocal events
            events += name == "event"
            if name == "event" and events == 2:
                pause_soon(engine)

        subscribe(engine, pause_once)
        with pytest.raises(RunEngineInterrupted):
            engine(acquire_timelapse(dispim, [E1], session="s", count=4))
        assert dark(dispim)
        engine.resume()
        assert dark(dispim)
    run = Catalog(root)[-1]
    images = run["primary"]["spim_a"]
    assert run.exit_status == "success"
    assert len(images) == 4
    assert all(images[event, :, 5:].min() > DARK for event in range(4))


@pytest.mark.parametrize("how", ["abort", "stop", "halt"])
def test_an_interrupted_timelapse_ends_dark_and_readable(root: Path, how: str) -> None:
    with microscope(root) as (engine, dispim, _):

        def pause(name: str, doc: dict[str, Any]) -> None:
            if name == "event" and doc["seq_num"] == 2:
                pause_soon(engine)

        subscribe(engine, pause)
        with pytest.raises(RunEngineInterrupted):
            engine(acquire_timelapse(dispim, [E1, E2], session="s", count=9))
        getattr(engine, how)()
        assert dark(dispim)
    run = Catalog(root)[-1]
    assert run.exit_status in {"abort", "success"}
    assert len(run["primary"]) >= 2
    assert addresses(run["primary"]["spim_b"]) == [list(range(PLANES))] * len(run["primary"])


def test_the_stock_plans_work_with_our_devices_and_others_beside_them(root: Path) -> None:
    with microscope(root) as (engine, dispim, _):
        engine(bp.count([dispim.spim, det], 2))
        engine(bp.scan([dispim.spim, det], dispim.piezo_a, -10, 10, 3))
        engine(bp.grid_scan([dispim.camera_a, det], dispim.xy_stage.x, -5, 5, 2, dispim.xy_stage.y, 0, 9, 2))
        engine(bp.scan([dispim.bottom_camera], motor, 0, 1, 2))

        def go() -> Any:
            return (yield from bps.abs_set(dispim.z_stage, 20.0))

        engine(bp.ramp_plan(go(), dispim.z_stage, lambda: bps.trigger_and_read([det]), timeout=30))
    assert max(Catalog(root)[-1]["z_stage_monitor"]["z_stage"]) > 0
    catalog = Catalog(root)
    assert [run.exit_status for run in catalog] == ["success"] * 5
    scan, grid = catalog.search(plan_name="scan")[-1], catalog.search(plan_name="grid_scan")[0]
    assert list(scan["primary"]["piezo_a"]) == [-10.0, 0.0, 10.0]
    assert grid["primary"]["camera_a"].shape[0] == 4
    assert np.all(catalog.search(plan_name="count")[0]["primary"]["det"] > 0)


def test_a_flyer_of_others_goes_along(root: Path) -> None:
    from ophyd.sim import trivial_flyer

    with microscope(root) as (engine, dispim, _):
        engine(bpp.fly_during_wrapper(bp.count([dispim.spim], 2), [trivial_flyer]))
    run = Catalog(root)[-1]
    assert run.exit_status == "success"
    assert addresses(run["primary"]["spim_a"]) == [list(range(PLANES))] * 2


def planes_said(root: Path, key: str) -> list[dict[str, str]]:
    """What the OME-XML of the first volume says of each plane."""
    (path,) = root.glob(f"runs/*/*/*/*/{key}/000000.ome.tif")
    with tifffile.TiffFile(path) as file:
        tree = ElementTree.fromstring(str(file.ome_metadata))
    return [dict(plane.attrib) for plane in tree.iter() if plane.tag.endswith("}Plane")]


def test_a_copy_of_a_run_says_of_each_plane_what_the_first_files_said(root: Path, tmp_path: Path) -> None:
    with microscope(root) as (engine, dispim, _):
        engine(acquire_timelapse(dispim, [E2], session="s", count=1))
    with FileWriter(tmp_path / "copy") as copy:
        replay(Catalog(root)[-1], copy, fill=True)
    for key in ("spim_a", "spim_b"):
        first, second = planes_said(root, key), planes_said(tmp_path / "copy", key)
        assert {"ExposureTime", "PositionX", "PositionY", "PositionZ", "DeltaT"} <= first[0].keys()
        assert second == first


def channels_said(root: Path, key: str) -> list[str]:
    (path,) = root.glob(f"runs/*/*/*/*/{key}/000000.ome.tif")
    with tifffile.TiffFile(path) as file:
        tree = ElementTree.fromstring(str(file.ome_metadata))
    return [channel.attrib.get("Name", "") for channel in tree.iter() if channel.tag.endswith("}Channel")]


def test_a_copy_of_a_snap_says_what_the_first_file_said(root: Path, tmp_path: Path) -> None:
    """Each camera has the channel of its own light, whatever the event is of."""
    with microscope(root) as (engine, dispim, _):
        engine(bps.mv(dispim.xy_stage, (120, -240), dispim.laser, "561 only"))
        channel = Signal(name="channel", value="561 only")
        stages = [dispim.xy_stage, dispim.z_stage]
        engine(snap(dispim.bottom_camera, exposure_ms=3.0, also=[dispim.camera_a, channel, *stages]))
    with FileWriter(tmp_path / "copy") as copy:
        replay(Catalog(root)[-1], copy, fill=True)
    for key, shown in (("bottom_camera", "transmitted light"), ("camera_a", "561 only")):
        first, second = planes_said(root, key), planes_said(tmp_path / "copy", key)
        assert {"ExposureTime", "PositionX", "PositionY", "PositionZ", "DeltaT"} <= first[0].keys()
        assert second == first
        assert channels_said(root, key) == channels_said(tmp_path / "copy", key) == [shown]
