"""What holds on every core: the simulated one, and Micro-Manager's own with its demo adapters.

One class of claims; each core supplies only how to make the instrument.
"""

import datetime
import sys
import threading
import time
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path

import bluesky.plan_stubs as bps
import bluesky.plans as bp
import bluesky.preprocessors as bpp
import numpy as np
import pytest
from bluesky import Msg
from bluesky.utils import FailedStatus
from numpy.typing import NDArray

from devices import Configuration, Dispim, ManualClock, demo_micromanager_configuration, simulated_dispim
from devices.configuration import MicroManagerSettings
from devices.core import Core, FrameTags
from devices.dispim import micromanager_dispim
from devices.sequence import frame_time
from gently_bluesky.errors import AcquisitionError, BufferOverflowError, ConfigError, DeviceError, PresetError
from gently_bluesky.protocols import Sink
from tests.devices_rig import MemorySink, engine, of, reason, small, subscribe, validate, wait_until

Plan = Iterator[Msg]
CAMERAS = ("HamCam1", "HamCam2")
PLANES = 5


class AnyInstrument:
    """Claims about an instrument, whatever its core."""

    @abstractmethod
    def make(self, *, sink: Sink | None = None, **changes: object) -> Dispim:
        """Make an instrument of 64 x 64 pixels; the changes are those of its configuration."""

    @pytest.fixture
    def dispim(self) -> Iterator[Dispim]:
        dispim = self.make()
        dispim.spim.num_slices.put(PLANES)
        dispim.spim.views.put("AB")
        yield dispim
        dispim.close()

    def test_every_device_is_counted_in_one_run(self, dispim: Dispim) -> None:
        run_engine, documents = engine()
        run_engine(bp.count(list(dispim.devices().values())))
        validate(documents)
        keys = of(documents, "descriptor")[0]["data_keys"]
        data = of(documents, "event")[0]["data"]
        assert set(keys) == set(data)
        for name, key in keys.items():
            value = np.asarray(data[name])
            assert list(value.shape) == key["shape"], name
            assert np.can_cast(value.dtype, key["dtype_numpy"]), name

    def test_the_detector_takes_both_views_at_every_step_of_a_scan(self, dispim: Dispim) -> None:
        run_engine, documents = engine()
        run_engine(bp.scan([dispim.spim], dispim.piezo_a, -10, 10, 3))
        validate(documents)
        for event, place in zip(of(documents, "event"), (-10, 0, 10), strict=True):
            assert event["data"]["piezo_a"] == pytest.approx(place, abs=0.01)
            for name in ("spim_a", "spim_b"):
                assert event["data"][name].shape == (PLANES, 64, 64)
                assert event["data"][name].dtype == np.uint16
                assert np.all(np.diff(event["data"][f"{name}_frame_times"]) > 0)

    def test_frames_are_streamed_to_a_sink_whole_and_in_order(self) -> None:
        sink = MemorySink()
        dispim = self.make(sink=sink)
        run_engine, documents = engine()
        subscribe(run_engine, sink)
        run_engine(bps.mv(dispim.spim.num_slices, PLANES, dispim.spim.views, "AB"))
        run_engine(bp.count([dispim.spim], 3))
        validate(documents)
        for name in ("spim_a", "spim_b"):
            volumes = sink.volumes(name)
            assert [volume.sealed for volume in volumes] == [True] * 3
            assert [list(volume.frames) for volume in volumes] == [list(range(PLANES))] * 3
        assert len(of(documents, "stream_datum")) == 6
        dispim.close()

    def test_frame_times_are_of_now(self, dispim: Dispim) -> None:
        run_engine, documents = engine()
        before = dispim.spim.connection.clock.time()
        run_engine(bp.count([dispim.spim]))
        times = of(documents, "event")[0]["data"]["spim_a_frame_times"]
        assert before - 0.01 <= times[0] <= times[-1] <= dispim.spim.connection.clock.time() + 0.01

    def test_the_laser_is_on_while_frames_come_and_off_afterwards(self) -> None:
        sink = MemorySink()
        dispim = self.make(sink=sink)
        seen: list[str] = []
        sink.on_write = lambda _: seen.append(str(dispim.core.getCurrentConfig("Laser")))
        run_engine, _ = engine()
        subscribe(run_engine, sink)
        run_engine(bps.mv(dispim.laser, "405 only ", dispim.spim.num_slices, PLANES))
        run_engine(bp.count([dispim.spim]))
        assert seen == ["405 only "] * PLANES
        assert dispim.core.getCurrentConfig("Laser") == "ALL OFF"
        dispim.close()

    def test_a_sink_that_fails_leaves_it_dark_at_rest_and_able_to_go_on(self) -> None:
        sink = MemorySink()
        dispim = self.make(sink=sink)
        run_engine, documents = engine()
        subscribe(run_engine, sink)
        run_engine(bps.mv(dispim.spim.num_slices, 50, dispim.spim.views, "AB"))

        def fail(z: int) -> None:
            if z == 2:
                raise OSError("no space left on device")

        sink.on_write = fail
        with pytest.raises(FailedStatus):
            run_engine(bp.count([dispim.spim]))
        assert reason(documents) == "spim: OSError: no space left on device"
        assert dispim.core.getCurrentConfig("Laser") == "ALL OFF"
        assert not any(dispim.core.isSequenceRunning(camera) for camera in CAMERAS)
        assert all(volume.aborted for name in ("spim_a", "spim_b") for volume in sink.volumes(name))
        sink.on_write = None
        run_engine(bp.count([dispim.spim]))
        assert of(documents, "stop")[-1]["exit_status"] == "success"
        dispim.close()

    def test_an_overflowing_buffer_fails_the_run(self) -> None:
        sink = MemorySink()
        dispim = self.make(sink=sink)
        dispim.core.setCircularBufferMemoryFootprint(1)
        run_engine, documents = engine()
        subscribe(run_engine, sink)
        run_engine(bps.mv(dispim.spim.num_slices, 300, dispim.spim.z_step_um, 0.1, dispim.spim.exposure_ms, 1))
        clock = dispim.spim.connection.clock

        def be_slow(z: int) -> None:
            if z == 0:
                clock.sleep(5.0 if isinstance(clock, ManualClock) else 1.5)

        sink.on_write = be_slow
        with pytest.raises(FailedStatus) as caught:
            run_engine(bp.count([dispim.spim]))
        assert isinstance(caught.value.__cause__, BufferOverflowError)
        assert "BufferOverflowError: the circular buffer overflowed" in reason(documents)
        assert dispim.core.getCurrentConfig("Laser") == "ALL OFF"
        dispim.close()

    def test_a_stop_ends_a_long_volume(self) -> None:
        sink = MemorySink()
        dispim = self.make(sink=sink)
        run_engine, documents = engine()
        subscribe(run_engine, sink)
        run_engine(bps.mv(dispim.spim.num_slices, 300, dispim.spim.z_step_um, 0.1))

        def stop(z: int) -> None:
            if z == 1:
                threading.Thread(target=dispim.spim.stop).start()
                wait_until(dispim.spim.stopped.is_set, "the stop")

        sink.on_write = stop
        with pytest.raises(FailedStatus):
            run_engine(bp.count([dispim.spim]))
        assert reason(documents).startswith("spim: ExposureStoppedError: stopped; HamCam1: 2 of 300 frames")
        assert not dispim.core.isSequenceRunning("HamCam1")
        dispim.close()

    def test_cameras_of_different_sizes_are_refused_before_the_light(self, dispim: Dispim) -> None:
        """MMCore loses one camera's frames in silence otherwise."""
        core = dispim.core
        set_roi = core.setROI

        def shrink(label: str, *_: int) -> None:
            set_roi(label, 0, 0, 32, 16)

        for label in CAMERAS:
            core.setROI(label, 0, 0, 64, 64)
        core.setROI("HamCam2", 0, 0, 32, 32)
        dispim.core.setROI = shrink  # type: ignore[method-assign]
        with pytest.raises(AcquisitionError, match=r"spim_b \(HamCam2\): .*the camera took \[0, 0, 32, 16\]"):
            dispim.spim.trigger().wait(10)
        assert core.getCurrentConfig("Laser") == "ALL OFF"

    def test_stages_arrive_where_they_are_sent(self, dispim: Dispim) -> None:
        run_engine, _ = engine()
        run_engine(bps.mv(dispim.xy_stage.x, 30, dispim.xy_stage.y, -20))
        assert dispim.xy_stage.position == pytest.approx((30, -20), abs=0.02)
        run_engine(bps.mv(dispim.xy_stage, (-5, 8), dispim.z_stage, 44, dispim.scanner_a, (0.5, 0.25)))
        assert dispim.xy_stage.position == pytest.approx((-5, 8), abs=0.02)
        assert dispim.z_stage.position == pytest.approx(44)
        assert dispim.scanner_a.position == (0.5, 0.25)

    def test_an_exposure_that_fits_the_period_is_taken_to_its_last_frame(self, dispim: Dispim) -> None:
        run_engine, documents = engine()
        run_engine(bps.mv(dispim.spim.exposure_ms, 12.5, dispim.spim.views, "AB"))
        run_engine(bp.count([dispim.spim]))
        assert of(documents, "stop")[-1]["exit_status"] == "success"

    def test_a_positioner_that_does_not_move_is_monitored_with_where_it_is(self, dispim: Dispim) -> None:
        run_engine, documents = engine()
        signals = [dispim.z_stage, dispim.piezo_a.readback, dispim.xy_stage.x, dispim.xy_stage]
        run_engine(bpp.monitor_during_wrapper(bp.count([dispim.led]), signals))
        names = {of_stream["name"]: of_stream["uid"] for of_stream in of(documents, "descriptor")}
        for signal in signals:
            uid = names[f"{signal.name}_monitor"]
            assert [each["seq_num"] for each in of(documents, "event") if each["descriptor"] == uid] == [1]

    def test_powers_are_in_percent_whatever_the_hardware_counts_in(self, dispim: Dispim) -> None:
        run_engine, documents = engine()
        run_engine(bps.mv(dispim.laser.power_488_percent, 2.5, dispim.led.intensity_percent, 20))
        run_engine(bp.count([dispim.laser, dispim.led]))
        data = of(documents, "event")[0]["data"]
        assert data["laser_power_488_percent"] == pytest.approx(2.5)
        assert data["led_intensity_percent"] == pytest.approx(20)

    def test_a_preset_that_there_is_not_is_refused_by_the_core_as_well(self, dispim: Dispim) -> None:
        with pytest.raises(PresetError, match="refused preset 'MAGENTA'"):
            dispim.laser.switch("MAGENTA")

    def test_the_core_numbers_frames_from_nought_in_each_sequence(self, dispim: Dispim) -> None:
        for _ in range(2):
            tags = take(dispim, "HamCam1", 3)
            assert [each.GetSingleTag("ImageNumber").GetValue() for each in tags] == ["0", "1", "2"]
            assert {each.GetSingleTag("Camera").GetValue() for each in tags} == {"HamCam1"}

    def test_the_core_numbers_the_frames_of_each_camera_that_it_starts_with_another(self, dispim: Dispim) -> None:
        for _ in range(2):
            numbers: dict[str, list[str]] = {camera: [] for camera in CAMERAS}
            for tags in take(dispim, dispim.configuration.multi_camera, 3, cameras=CAMERAS):
                numbers[tags.GetSingleTag("Camera").GetValue()].append(tags.GetSingleTag("ImageNumber").GetValue())
            assert numbers == {camera: ["0", "1", "2"] for camera in CAMERAS}
            assert not dispim.core.isSequenceRunning(dispim.configuration.multi_camera)

    def test_the_core_leaves_cameras_that_it_starts_together_as_they_are_set(self, dispim: Dispim) -> None:
        core, both = dispim.core, dispim.configuration.multi_camera
        core.setROI("HamCam1", 0, 16, 32, 8)
        core.setROI("HamCam2", 4, 0, 32, 8)
        core.setExposure("HamCam1", 3)
        core.setExposure("HamCam2", 4)
        take(dispim, both, 2, cameras=CAMERAS)
        assert [list(core.getROI(camera)) for camera in CAMERAS] == [[0, 16, 32, 8], [4, 0, 32, 8]]
        assert [core.getExposure(camera) for camera in CAMERAS] == [3, 4]
        for stopped in (both, *CAMERAS):
            core.startSequenceAcquisition(both, 1000, 0.0, True)
            assert core.isSequenceRunning(both)
            assert all(core.isSequenceRunning(camera) for camera in CAMERAS)
            core.stopSequenceAcquisition(stopped)
            running = {camera: core.isSequenceRunning(camera) for camera in CAMERAS}
            assert running == {camera: stopped not in {both, camera} for camera in CAMERAS}
            core.stopSequenceAcquisition(both)
        core.startSequenceAcquisition("HamCam2", 1000, 0.0, True)
        with pytest.raises(RuntimeError, match="sequence acquisition is running"):
            core.startSequenceAcquisition(both, 10, 0.0, True)
        core.stopSequenceAcquisition("HamCam2")

    def test_the_core_forgets_what_came_when_it_starts_another_camera(self, dispim: Dispim) -> None:
        """It is why two cameras are never started one after the other."""
        connection = dispim.spim.connection
        core = connection.core
        core.setExposure("HamCam2", 1000)
        begin(dispim, "HamCam1", 1000)
        wait_for_frames(dispim, 3)
        core.startSequenceAcquisition("HamCam2", 10, 0.0, True)
        assert core.getRemainingImageCount() < 3
        wait_for_frames(dispim, 1)
        tags = connection.new_tags()
        core.popNextImageMD(tags)
        assert tags.GetSingleTag("Camera").GetValue() == "HamCam1"
        assert tags.GetSingleTag("ImageNumber").GetValue() == "0"
        for camera in CAMERAS:
            core.stopSequenceAcquisition(camera)

    def test_a_camera_that_delivers_while_another_starts_loses_nothing(self, dispim: Dispim) -> None:
        core, clock = dispim.core, dispim.spim.connection.clock
        start = core.startSequenceAcquisition

        def start_slowly(label: str, number: int, interval_ms: float, stop: bool) -> None:
            start(label, number, interval_ms, stop)
            for _ in range(30):
                if core.getRemainingImageCount():
                    break
                clock.sleep(0.001)

        core.startSequenceAcquisition = start_slowly  # type: ignore[method-assign]
        run_engine, documents = engine()
        run_engine(bp.count([dispim.spim], 2))
        assert [event["data"]["spim_b"].shape[0] for event in of(documents, "event")] == [PLANES] * 2

    def test_one_view_needs_nothing_that_joins_cameras(self) -> None:
        dispim = self.make(multi_camera="")
        run_engine, documents = engine()
        run_engine(bps.mv(dispim.spim.num_slices, PLANES, dispim.spim.views, "B"))
        run_engine(bp.count([dispim.spim]))
        assert of(documents, "stop")[-1]["exit_status"] == "success"
        expected = "spim_views: asked for 'AB'; two cameras must be started as one, and multi_camera names nothing"
        with pytest.raises(PresetError, match=expected):
            dispim.spim.views.put("AB")
        with pytest.raises(PresetError, match=expected):
            dispim.spim.check_settings({dispim.spim.views: "AB"})
        dispim.close()

    def test_the_core_says_when_it_received_a_frame(self, dispim: Dispim) -> None:
        (tags,) = take(dispim, "HamCam1", 1)
        now = dispim.spim.connection.clock.time()
        assert frame_time(tags, now) == pytest.approx(now, abs=2)
        text = tags.GetSingleTag("TimeReceivedByCore").GetValue()
        assert datetime.datetime.fromisoformat(text).tzinfo is None
        assert float(tags.GetSingleTag("ElapsedTime-ms").GetValue()) > 0

    def test_the_core_refuses_as_micro_manager_does(self, dispim: Dispim) -> None:
        core, new_tags = dispim.core, dispim.spim.connection.new_tags
        core.setCameraDevice("HamCam1")
        core.clearCircularBuffer()
        with pytest.raises(IndexError, match="Circular buffer is empty"):
            core.popNextImageMD(new_tags())
        with pytest.raises(RuntimeError, match='No device with label "nobody"'):
            core.deviceBusy("nobody")
        with pytest.raises(RuntimeError, match="Nope"):
            core.getProperty("HamCam1", "Nope")
        with pytest.raises(ValueError, match="does not exist"):
            core.setConfig("Laser", "nope")
        with pytest.raises(ValueError, match="Undefined metadata key: Nope"):
            new_tags().GetSingleTag("Nope")

    def test_the_core_refuses_to_change_a_camera_that_takes_a_sequence(self, dispim: Dispim) -> None:
        core = dispim.core
        core.setCameraDevice("HamCam1")
        core.startSequenceAcquisition("HamCam1", 1000, 0.0, True)
        with pytest.raises(RuntimeError, match="sequence acquisition is running"):
            core.snapImage()
        with pytest.raises(RuntimeError, match="sequence acquisition is running"):
            core.startSequenceAcquisition("HamCam1", 10, 0.0, True)
        core.stopSequenceAcquisition("HamCam1")
        core.stopSequenceAcquisition("HamCam1")
        assert not core.isSequenceRunning("HamCam1")

    def test_binning_makes_the_region_the_whole_sensor(self, dispim: Dispim) -> None:
        core = dispim.core
        core.setROI("HamCam1", 4, 8, 16, 32)
        assert list(core.getROI("HamCam1")) == [4, 8, 16, 32]
        core.setProperty("HamCam1", "Binning", "2")
        core.setCameraDevice("HamCam1")
        core.clearROI()
        assert list(core.getROI("HamCam1")) == [0, 0, 32, 32]

    def test_presets_are_those_of_the_configuration(self, dispim: Dispim) -> None:
        core = dispim.core
        assert set(core.getAvailableConfigs("Laser")) == set(dispim.configuration.laser.presets)
        core.setConfig("Laser", "405 only ")
        assert core.getCurrentConfig("Laser") == "405 only "


class TestSimulatedInstrument(AnyInstrument):
    """The simulated core, its cameras pulsed by the scanner."""

    def make(self, *, sink: Sink | None = None, **changes: object) -> Dispim:
        return simulated_dispim(small(**changes), sink=sink, clock=ManualClock())


class TestSimulatedInstrumentThatTriggersItself(AnyInstrument):
    """The simulated core, its cameras in their own time."""

    def make(self, *, sink: Sink | None = None, **changes: object) -> Dispim:
        return simulated_dispim(small(trigger="internal", **changes), sink=sink, clock=ManualClock())


class TestMicroManagerInstrument(AnyInstrument):
    """Micro-Manager's core with its demo adapters."""

    def make(self, *, sink: Sink | None = None, **changes: object) -> Dispim:
        pytest.importorskip("pymmcore")
        demo = demo_micromanager_configuration(sensor_px=(64, 64))
        # MMCore touches all of its buffer when the first sequence starts.
        small_buffer = demo.spim.model_copy(update={"circular_buffer_mb": 16})
        return micromanager_dispim(demo.model_copy(update={"spim": small_buffer, **changes}), sink=sink)

    def test_a_camera_that_is_set_to_8_bits_is_refused_before_the_light(self) -> None:
        dispim = self.make()
        dispim.spim.views.put("AB")
        dispim.core.setProperty("HamCam2", "PixelType", "8bit")
        with pytest.raises(AcquisitionError, match=r"spim_b \(HamCam2\): would deliver frames .* 1 bytes a pixel"):
            dispim.spim.trigger().wait(10)
        dispim.close()

    def test_nothing_to_load_is_told(self) -> None:
        with pytest.raises(ConfigError, match="names neither a file nor devices"):
            micromanager_dispim(Configuration(core="micromanager"))

    def test_a_device_that_cannot_be_loaded_is_told(self) -> None:
        demo = demo_micromanager_configuration()
        broken = demo.micromanager.devices[0].model_copy(update={"name": "DNothing"})
        section = demo.micromanager.model_copy(update={"devices": (broken,)})
        with pytest.raises(DeviceError, match=r"could not load 'demo adapters': .*DNothing"):
            micromanager_dispim(demo.model_copy(update={"micromanager": section}))

    def test_a_file_that_is_not_there_is_named_by_key_and_path(self, tmp_path: Path) -> None:
        demo = demo_micromanager_configuration()
        section = MicroManagerSettings(file=tmp_path / "nowhere.cfg")
        with pytest.raises(ConfigError, match=r"micromanager\.file: there is no file .*nowhere\.cfg$"):
            micromanager_dispim(demo.model_copy(update={"micromanager": section}))

    def test_a_folder_of_adapters_that_is_not_there_is_named_by_key_and_path(self, tmp_path: Path) -> None:
        demo = demo_micromanager_configuration()
        section = demo.micromanager.model_copy(update={"adapter_paths": (tmp_path / "nowhere",)})
        with pytest.raises(ConfigError, match=r"micromanager\.adapter_paths: there is no folder .*nowhere$"):
            micromanager_dispim(demo.model_copy(update={"micromanager": section}))

    def test_a_file_that_micro_manager_refuses_is_told_in_one_sentence(self, tmp_path: Path) -> None:
        file = tmp_path / "dispim.cfg"
        file.write_text("Device,a\n", encoding="utf-8")
        demo = demo_micromanager_configuration()
        section = MicroManagerSettings(file=file)
        expected = r"^Micro-Manager could not load 'demo adapters' from \S+dispim\.cfg: Line 1: Device,a Invalid "
        with pytest.raises(DeviceError, match=expected) as caught:
            micromanager_dispim(demo.model_copy(update={"micromanager": section}))
        assert len(str(caught.value).splitlines()) == 1

    def test_presets_that_the_hardware_does_not_have_are_told(self) -> None:
        demo = demo_micromanager_configuration(sensor_px=(64, 64))
        laser = demo.laser.model_copy(update={"presets": {**demo.laser.presets, "405 only": ("405",)}})
        with pytest.raises(ConfigError, match="group 'Laser' has no preset '405 only'; it has '405 only '"):
            micromanager_dispim(demo.model_copy(update={"laser": laser, "micromanager": demo.micromanager}))

    @pytest.mark.parametrize(
        ("changes", "joined"),
        [
            ({"Physical Camera 2": "Undefined"}, "HamCam1"),
            ({"Physical Camera 1": "Undefined", "Physical Camera 2": "Undefined"}, "no cameras"),
            ({"Physical Camera 2": "Bottom PCO"}, "HamCam1 and Bottom PCO"),
            ({"Physical Camera 3": "Bottom PCO"}, "HamCam1 and HamCam2 and Bottom PCO"),
        ],
    )
    def test_a_device_that_starts_other_cameras_is_told(self, changes: dict[str, str], joined: str) -> None:
        demo = demo_micromanager_configuration(sensor_px=(64, 64))
        devices = [
            device.model_copy(update={"properties": {**device.properties, **changes}})
            if device.label == demo.multi_camera
            else device
            for device in demo.micromanager.devices
        ]
        section = demo.micromanager.model_copy(update={"devices": tuple(devices)})
        expected = (
            f"multi_camera: device 'Multi Camera' joins {joined}, and is to join HamCam1 and HamCam2; set its "
            "properties 'Physical Camera 1' and 'Physical Camera 2' to these, and the others to 'Undefined'"
        )
        with pytest.raises(ConfigError, match=f"^{expected}$"):
            micromanager_dispim(demo.model_copy(update={"micromanager": section}))

    @pytest.mark.parametrize("label", ["Both Cameras", "HamCam1"])
    def test_a_device_that_joins_no_cameras_is_told_with_what_to_load(self, label: str) -> None:
        demo = demo_micromanager_configuration(sensor_px=(64, 64))
        expected = f"multi_camera: Micro-Manager has no device '{label}' that joins cameras: .*; load 'Multi"
        with pytest.raises(ConfigError, match=expected):
            micromanager_dispim(demo.model_copy(update={"multi_camera": label}))

    def test_a_temperature_that_nobody_measures_is_an_error(self) -> None:
        demo = demo_micromanager_configuration(sensor_px=(64, 64))
        none = demo.temperature.model_copy(update={"controller": "none"})
        dispim = micromanager_dispim(demo.model_copy(update={"temperature": none}))
        with pytest.raises(DeviceError, match="no temperature controller is connected"):
            dispim.temperature.read()
        dispim.close()


def begin(dispim: Dispim, starter: str, count: int) -> None:
    """Start a camera, or those that a device joins, bypassing the devices."""
    core = dispim.core
    core.setCameraDevice("HamCam1")
    core.clearCircularBuffer()
    if dispim.configuration.trigger == "external":
        for camera in CAMERAS:
            core.setProperty(camera, "TRIGGER SOURCE", "EXTERNAL")
        core.setProperty("Scanner:AB:33", "SPIMNumSides", "2")
        core.setProperty("Scanner:AB:33", "SPIMNumSlices", str(count))
        core.setProperty("Scanner:AB:33", "SPIMScanDuration(ms)", "10")
    core.startSequenceAcquisition(starter, count, 0.0, True)
    if dispim.configuration.trigger == "external":
        core.setProperty("Scanner:AB:33", "SPIMState", "Running")


def wait_for_frames(dispim: Dispim, count: int) -> None:
    """Wait until there are so many in the buffer."""
    deadline = time.monotonic() + 10
    while dispim.core.getRemainingImageCount() < count:
        assert time.monotonic() < deadline, f"{dispim.core.getRemainingImageCount()} of {count} frames within 10 s"
        dispim.spim.connection.clock.sleep(0.001)


def take(dispim: Dispim, starter: str, count: int, *, cameras: Sequence[str] = CAMERAS[:1]) -> list[FrameTags]:
    """Let cameras take a sequence, bypassing the devices, and give what is known of its frames."""
    connection = dispim.spim.connection
    begin(dispim, starter, count)
    taken: list[FrameTags] = []
    while len(taken) < count * len(cameras):
        wait_for_frames(dispim, 1)
        taken.append(connection.new_tags())
        connection.core.popNextImageMD(taken[-1])
    connection.core.stopSequenceAcquisition(starter)
    return taken


def test_a_real_core_satisfies_the_protocol_as_it_is() -> None:
    """Signatures are checked by mypy, where `open_micromanager` makes a Connection; here, the names."""
    pymmcore = pytest.importorskip("pymmcore")
    core = pymmcore.CMMCore()
    names = [name for name in vars(Core) if not name.startswith("_")]
    assert len(names) > 25
    assert [name for name in names if not callable(getattr(core, name, None))] == []


def test_a_core_without_micro_manager_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pymmcore", None)
    with pytest.raises(ConfigError, match=r"needs pymmcore: pip install 'gently_bluesky\[micromanager\]'"):
        micromanager_dispim()


def test_a_failing_pop_is_told_with_counts() -> None:
    dispim = simulated_dispim(small(), clock=ManualClock())

    def fail(tags: object) -> NDArray[np.uint16]:
        raise SystemError("returned NULL without setting an exception")

    dispim.core.popNextImageMD = fail  # type: ignore[method-assign]
    expected = r"a frame could not be taken: returned NULL .*HamCam1: 0 of 6 frames"
    with pytest.raises(AcquisitionError, match=expected):
        dispim.spim.trigger().wait(10)
