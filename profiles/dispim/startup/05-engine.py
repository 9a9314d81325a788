"""RunEngine, writer, catalog: what every session needs, whatever the hardware.

GENTLY_ROOT says where the runs go; without it, the folder gently-data where IPython was started.
"""

import getpass
import os
import threading
from pathlib import Path

from bluesky import RunEngine, SupplementalData
from bluesky.callbacks.best_effort import BestEffortCallback

from gently_bluesky import Catalog, FileWriter, derive, replay
from gently_bluesky.keep.space import SuspendOnLowSpace
from gently_bluesky.provenance import provenance

_GB = 1_000_000_000
_space = configuration.space
writer = FileWriter(
    os.environ.get("GENTLY_ROOT", "gently-data"),
    reserve_bytes=None if _space.reserve_gb is None else int(_space.reserve_gb * _GB),
)
catalog = Catalog(writer.root)

# off the main thread there are no signals to handle, and the RunEngine's own defaults would raise
_signals = {} if threading.current_thread() is threading.main_thread() else {"context_managers": []}
_said_by_all = {
    "operator": getpass.getuser(),
    **provenance(profile=Path(__file__).parent.parent, configuration=configuration_file),
}
RE = RunEngine(_said_by_all, scan_id_source=lambda _: catalog.next_scan_id(), **_signals)
RE.subscribe(writer)  # first: nothing is shown that is not being written

bec = BestEffortCallback()
bec.disable_plots()  # bec.enable_plots(), after %matplotlib
RE.subscribe(bec)

sd = SupplementalData()
RE.preprocessors.append(sd)
RE.preprocessors.append(  # plans wait at their checkpoints while the disk is low
    SuspendOnLowSpace(
        writer.root,
        below_bytes=int(_space.suspend_below_gb * _GB),
        resume_bytes=int(_space.resume_from_gb * _GB),
    )
)
