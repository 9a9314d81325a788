"""The device that starts both cameras as one: `Multi Camera`, of Micro-Manager's adapter `Utilities`.

Knows its properties and what it must join; what it starts, frames included, are the cameras that it joins, each
under its own label and with its own region, exposure and numbers.
"""

from collections.abc import Collection

from devices.core import Core
from gently_bluesky.errors import ConfigError

PHYSICAL_CAMERAS = tuple(f"Physical Camera {number}" for number in (1, 2, 3, 4))
UNDEFINED = "Undefined"


def joins(cameras: Collection[str]) -> dict[str, str]:
    """Give the properties of a device that joins cameras.

    Parameters
    ----------
    cameras
        Their labels, at most four.

    Returns
    -------
    dict
        All four properties; those that are not needed are undefined.
    """
    unused = [UNDEFINED] * (len(PHYSICAL_CAMERAS) - len(cameras))
    return dict(zip(PHYSICAL_CAMERAS, [*cameras, *unused], strict=True))


def check_joins(core: Core, label: str, cameras: Collection[str]) -> None:
    """See that a device starts these cameras, and no others.

    Parameters
    ----------
    core
        That has it.
    label
        Of the device.
    cameras
        Labels of the cameras.

    Raises
    ------
    ConfigError
        There is no such device, or it starts other cameras; the message says what to set.
    """
    both = " and ".join(cameras)
    try:
        found = [core.getProperty(label, name) for name in PHYSICAL_CAMERAS]
    except (RuntimeError, ValueError) as error:
        raise ConfigError(
            f"multi_camera: Micro-Manager has no device {label!r} that joins cameras: {error}; load "
            f"'Multi Camera' of its adapter Utilities with {both}, or set multi_camera to '': "
            f"volumes then have one view"
        ) from error
    joined = [each for each in found if each != UNDEFINED]
    if sorted(joined) != sorted(cameras):
        raise ConfigError(
            f"multi_camera: device {label!r} joins {' and '.join(joined) or 'no cameras'}, and is to join {both}; "
            f"set its properties {PHYSICAL_CAMERAS[0]!r} and {PHYSICAL_CAMERAS[1]!r} to these, and the others to "
            f"{UNDEFINED!r}"
        )
