"""What has been exposed by now: by the pulses of the scanner's state machine, or by the cameras' own time.

Nothing runs in the background: `catch_up` lets everything happen that is due by the clock, in its order.
Calls come one at a time; the core sees to that.
"""

from collections.abc import Iterable

from devices.simulated.bench import Bench
from devices.simulated.cameras import CameraState, CircularBuffer, Sequence
from devices.simulated.faults import Faults
from devices.simulated.scan import Pulse, Scan, start_scan


class Exposures:
    """The exposures of a bench, and the buffer that they fill.

    Parameters
    ----------
    bench
        What there is.
    faults
        What goes wrong.
    """

    def __init__(self, bench: Bench, faults: Faults) -> None:
        self.buffer = CircularBuffer(faults)
        self._bench = bench
        self._faults = faults
        self._scan: Scan | None = None
        self._pulsed = 0

    def catch_up(self) -> None:
        """Let everything happen that is due."""
        now = self._bench.clock.monotonic() - self._faults.readout_delay_s
        if self._scan is not None:
            self._pulse(self._scan, now)
        if self._bench.configuration.trigger == "internal":
            for sequence in self.buffer.sequences.values():
                self._free_run(sequence, now)

    def start(self, cameras: Iterable[CameraState], number: int, *, stop_on_overflow: bool) -> None:
        """Let cameras take a sequence of `number` frames each; what is in the buffer is gone, as in MMCore."""
        self.buffer.clear()
        for camera in cameras:
            self.buffer.start(Sequence(camera, number, self._bench.clock.monotonic(), stop_on_overflow))

    def drive_scan(self, label: str, state: str) -> None:
        """Follow what the state machine of a scanner was told.

        Parameters
        ----------
        label
            Of the scanner.
        state
            "Running" starts it; everything else ends it.
        """
        self._scan = None
        if state != "Running":
            return
        properties = self._bench.properties
        self._scan = start_scan(
            properties[label],
            {side: properties[scanner] for side, scanner in self._bench.scanners().items()},
            {side: properties[piezo] for side, piezo in self._bench.piezos().items()},
            now=self._bench.clock.monotonic(),
        )
        self._pulsed = 0

    def _pulse(self, scan: Scan, now: float) -> None:
        configuration = self._bench.configuration
        labels = {"A": configuration.camera_a.label, "B": configuration.camera_b.label}
        while self._pulsed < len(scan.pulses):
            pulse = scan.pulses[self._pulsed]
            label = labels[pulse.side]
            ready = pulse.at + self._bench.cameras[label].takes_s
            if ready > now:
                return
            self._pulsed += 1
            if self.buffer.running(label) and self._bench.waits_for_pulses(label):
                self._see(self.buffer.sequences[label], ready, pulse)
        if now >= scan.ends:
            self._scan = None
            for each in (*self._bench.scanners().values(), *self._bench.piezos().values()):
                self._bench.properties[each]["SPIMState"] = "Idle"

    def _see(self, sequence: Sequence, ready: float, pulse: Pulse) -> None:
        if pulse.at < sequence.busy_until - 1e-9:  # edge-triggered: a pulse in between is no pulse
            sequence.seen += 1
            return
        sequence.busy_until = ready
        self._expose(sequence, ready, pulse.plane, pulse)

    def _free_run(self, sequence: Sequence, now: float) -> None:
        period = sequence.camera.takes_s
        while sequence.running and sequence.began + (sequence.seen + 1) * period <= now:
            self._expose(sequence, sequence.began + (sequence.seen + 1) * period, sequence.seen, None)

    def _expose(self, sequence: Sequence, at: float, plane: int, pulse: Pulse | None) -> None:
        clock = self._bench.clock
        number = self.buffer.count(sequence)
        if number is None:
            return
        context = self._bench.see(sequence.camera, number=number, plane=plane, pulse=pulse)
        self.buffer.insert(sequence, context, at=at, received=clock.time() - (clock.monotonic() - at))
