"""The microscope, as dispim.toml describes it.

GENTLY_CONFIG names another file; GENTLY_CORE ("simulated" or "micromanager") goes before what the file says.
"""

import atexit
import os
from pathlib import Path

from devices import (
    Configuration,
    demo_embryos,
    demo_micromanager_configuration,
    load_configuration,
    micromanager_dispim,
    simulated_dispim,
)
from gently_bluesky.errors import ConfigError


def _configured() -> Configuration:
    file = Path(os.environ.get("GENTLY_CONFIG") or Path(__file__).parent.parent / "dispim.toml")
    found = load_configuration(file)
    core = os.environ.get("GENTLY_CORE") or found.core
    if core not in {"simulated", "micromanager"}:
        raise ConfigError(f"GENTLY_CORE is {core!r}; it can be 'simulated' or 'micromanager'.")
    nothing_to_load = found.micromanager.file is None and not found.micromanager.devices
    if core == "micromanager" and nothing_to_load:
        return demo_micromanager_configuration(found)
    return found.model_copy(update={"core": core})


configuration = _configured()
_make = micromanager_dispim if configuration.core == "micromanager" else simulated_dispim
dispim = _make(configuration, sink=writer)
atexit.register(dispim.close)  # lights off, whatever the way out

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
