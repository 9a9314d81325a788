"""The instrument, as dispim.toml describes it.

GENTLY_CONFIG names another file; GENTLY_CORE ("simulated" or "micromanager") goes before what the file says.
"""

import os
from pathlib import Path

from devices import Configuration, demo_micromanager_configuration, load_configuration
from gently_bluesky.errors import ConfigError


def _configured(file: Path) -> Configuration:
    found = load_configuration(file)
    core = os.environ.get("GENTLY_CORE") or found.core
    if core not in {"simulated", "micromanager"}:
        raise ConfigError(f"GENTLY_CORE is {core!r}; it can be 'simulated' or 'micromanager'.")
    nothing_to_load = found.micromanager.file is None and not found.micromanager.devices
    if core == "micromanager" and nothing_to_load:
        return demo_micromanager_configuration(found)
    return found.model_copy(update={"core": core})


configuration_file = Path(os.environ.get("GENTLY_CONFIG") or Path(__file__).parent.parent / "dispim.toml")
configuration = _configured(configuration_file)
