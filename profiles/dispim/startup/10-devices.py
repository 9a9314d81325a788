"""The microscope: its devices, each by its own name and all of them in `dispim`."""

import atexit

from devices import dark_on_signals, demo_embryos, micromanager_dispim, simulated_dispim

_make = micromanager_dispim if configuration.core == "micromanager" else simulated_dispim
dispim = _make(configuration, sink=writer)
atexit.register(dispim.close)  # lights off, whatever the way out
dark_on_signals(dispim)  # SIGTERM and a closed terminal are ways on which atexit has no turn

# each by its own name as well, for the prompt, %wa and queues
globals().update(dispim.devices())

sd.baseline = [
    dispim.xy_stage,
    dispim.z_stage,
    dispim.fdrive,
    dispim.piezo_a,
    dispim.piezo_b,
    dispim.scanner_a,
    dispim.scanner_b,
    dispim.laser,
    dispim.led,
]
if configuration.core == "simulated" or configuration.temperature.controller == "simulated":
    sd.baseline = [*sd.baseline, dispim.temperature]
