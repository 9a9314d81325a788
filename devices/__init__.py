"""The diSPIM as ophyd devices: over simulated hardware, or over Micro-Manager's core."""

from devices.clock import ManualClock, SystemClock
from devices.configuration import Configuration
from devices.demo_adapters import demo_micromanager_configuration
from devices.dispim import Dispim, demo_embryos, micromanager_dispim, simulated_dispim
from devices.loading import load_configuration
from devices.termination import dark_on_signals

__all__ = [
    "Configuration",
    "Dispim",
    "ManualClock",
    "SystemClock",
    "dark_on_signals",
    "demo_embryos",
    "demo_micromanager_configuration",
    "load_configuration",
    "micromanager_dispim",
    "simulated_dispim",
]
