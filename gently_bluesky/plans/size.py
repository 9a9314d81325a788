"""How many bytes of pixels a plan will give, as far as its devices can say; a FileWriter refuses too many."""

from collections.abc import Iterable, Mapping
from typing import Any


def expected_bytes(
    devices: Iterable[Any], *, triggers: int, settings: Mapping[Any, Any] | None = None
) -> dict[str, int]:
    """Say it for a start document.

    Parameters
    ----------
    devices
        All that are triggered; those that have no `trigger_bytes` are not counted.
    triggers
        How many times each is triggered.
    settings
        Settings of theirs, and what each will be told before.

    Returns
    -------
    dict
        `expected_bytes`; empty if none of the devices can say.
    """
    known = [device.trigger_bytes(settings) for device in devices if hasattr(device, "trigger_bytes")]
    return {"expected_bytes": triggers * sum(known)} if known else {}
