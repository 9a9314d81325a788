"""What to acquire: one volume, a time-lapse of several embryos, a snap.

Plans name devices through a namespace (``dispim.spim``, ``dispim.xy_stage`` ...) and know nothing of what is
behind it, simulated or real. Each says in its documents what every volume shows: session and purpose in the
start document, embryo, timepoint, position and channel in every event.
"""

from gently_bluesky.plans.embryo import Calibration, Embryo
from gently_bluesky.plans.frame import snap
from gently_bluesky.plans.microscope import Microscope, Plan, Views
from gently_bluesky.plans.timelapse import acquire_timelapse
from gently_bluesky.plans.volume import acquire_volume

__all__ = [
    "Calibration",
    "Embryo",
    "Microscope",
    "Plan",
    "Views",
    "acquire_timelapse",
    "acquire_volume",
    "snap",
]
