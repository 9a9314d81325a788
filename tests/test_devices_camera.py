from collections.abc import Iterator

import bluesky.plan_stubs as bps
import bluesky.plans as bp
import numpy as np
import pytest
from bluesky import Msg
from bluesky.utils import FailedStatus
from numpy.typing import NDArray
from ophyd.utils import LimitError

from devices import ManualClock
from devices.configuration import CameraSettings
from devices.simulated.scene import FrameContext
from gently_bluesky.errors import DiskFullError
from tests.devices_rig import (
    DARK,
    SIZE,
    address,
    engine,
    faults,
    of,
    reason,
    simulated,
    small,
    validate,
    with_sink,
)

CAMERAS = ["camera_a", "camera_b", "bottom_camera"]


@pytest.mark.parametrize("name", CAMERAS)
def test_every_camera_can_be_counted_and_its_frame_is_described_as_it_is(name: str) -> None:
    run_engine, documents = engine()
    run_engine(bp.count([simulated().devices()[name]], 2))
    validate(documents)
    key = of(documents, "descriptor")[0]["data_keys"][name]
    for event in of(documents, "event"):
        frame = event["data"][name]
        assert list(frame.shape) == key["shape"] == [SIZE, SIZE]
        assert frame.dtype == np.dtype(key["dtype_numpy"])
        assert event["data"][f"{name}_mean"] == frame[::8, ::8].mean()
    assert key["dims"] == ["y", "x"]
    assert "external" not in key
    assert of(documents, "descriptor")[0]["hints"] == {name: {"fields": [f"{name}_mean"]}}


def test_a_light_sheet_camera_is_lit_by_the_laser_and_the_bottom_camera_is_not() -> None:
    run_engine, documents = engine()
    dispim = simulated()
    run_engine(bp.count([dispim.camera_a, dispim.bottom_camera]))
    data = of(documents, "event")[0]["data"]
    assert data["camera_a"][1:].min() == DARK + 1000
    assert data["bottom_camera"][1:].max() == DARK
    assert dispim.core.getCurrentConfig("Laser") == "ALL OFF"
    assert dispim.core.getCurrentConfig("LED") == "Closed"


def test_a_frame_with_everything_off_is_dark() -> None:
    run_engine, documents = engine()
    dispim = simulated()
    run_engine(bps.mv(dispim.laser, "ALL OFF"))
    run_engine(bp.count([dispim.camera_a]))
    assert of(documents, "event")[0]["data"]["camera_a"][1:].max() == DARK


def test_with_a_sink_frames_are_streamed_and_named() -> None:
    dispim, sink, run_engine, documents = with_sink()
    run_engine(bp.count([dispim.camera_a, dispim.camera_b], 3))
    validate(documents)
    descriptor = of(documents, "descriptor")[0]
    assert descriptor["data_keys"]["camera_a"]["external"] == "STREAM:"
    assert descriptor["data_keys"]["camera_a"]["view"] == "A"
    assert "view" not in dispim.bottom_camera.describe()["bottom_camera"]
    assert len(of(documents, "stream_resource")) == 2
    assert len(of(documents, "stream_datum")) == 6
    assert all("camera_a" not in event["data"] for event in of(documents, "event"))
    for name, code in (("camera_a", 1), ("camera_b", 2)):
        volumes = sink.volumes(name)
        assert [volume.array[0, 0, 0] for volume in volumes] == [code] * 3
        assert all(volume.sealed for volume in volumes)
        assert volumes[0].metadata["voxel_size_um"] == pytest.approx((0.1625, 0.1625))
        assert volumes[0].metadata["channel"] == "488 only"


def test_exposure_region_and_binning_are_read_in_every_event() -> None:
    run_engine, documents = engine()
    dispim = simulated()
    camera = dispim.camera_a
    run_engine(bps.mv(camera.binning, 2))
    run_engine(bps.mv(camera.roi, [4, 2, 16, 8], camera.exposure_ms, 12.5))
    run_engine(bp.count([camera]))
    data = of(documents, "event")[0]["data"]
    assert data["camera_a_exposure_ms"] == 12.5
    assert data["camera_a_roi"] == [4, 2, 16, 8]
    assert data["camera_a_binning"] == 2
    assert data["camera_a"].shape == (8, 16)
    key = of(documents, "descriptor")[0]["data_keys"]["camera_a"]
    assert key["shape"] == [8, 16]
    assert key["voxel_size_um"] == pytest.approx([0.325, 0.325])


def test_what_cannot_change_is_configuration() -> None:
    run_engine, documents = engine()
    run_engine(bp.count([simulated().camera_a]))
    data = of(documents, "descriptor")[0]["configuration"]["camera_a"]["data"]
    assert data["camera_a_sensor_px"] == [SIZE, SIZE]
    assert data["camera_a_firmware"] == "simulated 1.0"
    assert data["camera_a_serial"] == "simulated A"
    assert data["camera_a_pixel_size_um"] == pytest.approx(0.1625)


def test_what_a_camera_does_not_say_is_unknown_and_not_invented() -> None:
    camera = CameraSettings(label="Bottom PCO", sensor_px=(SIZE, SIZE), firmware_property="Nowhere")
    dispim = simulated(configuration=small(bottom_camera=camera))
    assert dispim.bottom_camera.serial.get() == "unknown"


@pytest.mark.parametrize("binning", [0, 3, 16, "two"])
def test_a_binning_that_there_is_not_is_refused(binning: object) -> None:
    with pytest.raises(LimitError, match="camera_a_binning"):
        simulated().camera_a.binning.set(binning)


@pytest.mark.parametrize("roi", [[0, 0, 65, 64], [-1, 0, 8, 8], [0, 0, 0, 8], [1, 2, 3], "all"])
def test_a_region_that_is_not_on_the_sensor_is_refused(roi: object) -> None:
    dispim = simulated()
    with pytest.raises(LimitError, match="region of interest"):
        dispim.camera_a.roi.set(roi).wait(10)
    with pytest.raises(LimitError, match="region of interest"):
        dispim.spim.roi.set(roi).wait(10)


def test_nothing_can_be_read_before_the_first_trigger() -> None:
    run_engine, documents = engine()
    dispim = simulated()

    def plan() -> Iterator[Msg]:
        yield from bps.open_run()
        yield from bps.create()
        yield from bps.read(dispim.camera_a)

    with pytest.raises(Exception, match="nothing was taken yet; trigger it first"):
        run_engine(plan())
    assert "camera_a: nothing was taken yet" in reason(documents)


def test_a_camera_that_delivers_nothing_fails_the_run_in_the_dark() -> None:
    dispim, sink, run_engine, documents = with_sink()
    faults(dispim).silent_after["HamCam1"] = 0
    with pytest.raises(FailedStatus):
        run_engine(bp.count([dispim.camera_a]))
    assert reason(documents).startswith("camera_a: AcquisitionError: camera HamCam1 delivered no frame")
    assert dispim.core.getCurrentConfig("Laser") == "ALL OFF"
    assert sink.volumes("camera_a")[0].aborted is not None


def test_a_frame_of_another_shape_fails_the_run() -> None:
    dispim, sink, run_engine, documents = with_sink()
    faults(dispim).frame_shapes["HamCam1"] = (8, 8)
    with pytest.raises(FailedStatus):
        run_engine(bp.count([dispim.camera_a]))
    assert "the frame is uint16 of shape (8, 8), asked for was uint16 of (64, 64)" in reason(documents)
    assert sink.volumes("camera_a")[0].aborted is not None


def test_a_full_disk_is_an_error_before_the_exposure() -> None:
    seen = []

    def watched(context: FrameContext) -> NDArray[np.uint16]:
        seen.append(context)
        return address(context)

    dispim, sink, run_engine, documents = with_sink(frame_source=watched)
    sink.refuse = DiskFullError("no room for 8 KiB")
    with pytest.raises(FailedStatus):
        run_engine(bp.count([dispim.camera_a]))
    assert reason(documents) == "camera_a: DiskFullError: no room for 8 KiB"
    assert seen == []


def test_a_camera_takes_single_frames_again_after_a_volume() -> None:
    """The volume leaves the camera waiting for the controller's pulses."""
    run_engine, documents = engine()
    dispim = simulated()
    run_engine(bp.count([dispim.spim]))
    run_engine(bp.count([dispim.camera_a]))
    assert of(documents, "stop")[-1]["exit_status"] == "success"


@pytest.mark.parametrize(("preset", "channel"), [("Open", "transmitted light"), ("Closed", None)])
def test_the_channel_of_the_bottom_camera_is_transmitted_light(preset: str, channel: str | None) -> None:
    dispim, sink, run_engine, _ = with_sink()
    run_engine(bps.mv(dispim.led, preset))
    run_engine(bp.count([dispim.bottom_camera]))
    assert sink.volumes("bottom_camera")[0].metadata.get("channel") == channel


def test_a_frame_is_described_with_the_readings_that_say_more_of_it() -> None:
    clock = ManualClock(epoch=1_800_000_000.0)
    dispim, sink, run_engine, documents = with_sink(clock=clock)
    run_engine(bps.mv(dispim.xy_stage, (120, -240), dispim.z_stage, 12))
    run_engine(bp.count([dispim.bottom_camera, dispim.xy_stage, dispim.z_stage]))
    key = of(documents, "descriptor")[0]["data_keys"]["bottom_camera"]
    data = of(documents, "event")[0]["data"]
    assert data[key["exposure_ms"]] == dispim.bottom_camera.exposure_ms.get()
    assert data[key["channel"]] == "transmitted light"
    assert [data[name] for name in key["stage_position_um"]] == [120, -240, 12]
    volume = sink.volumes("bottom_camera")[0]
    assert volume.metadata["stage_position_um"] == [120, -240, 12]
    assert data["bottom_camera_frame_times"].tolist() == list(volume.times.values())
    assert 1_800_000_000 < data["bottom_camera_frame_times"][0] < 1_800_000_010
