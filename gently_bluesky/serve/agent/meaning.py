"""What data keys mean: stage, laser, calibration, exposure. By what descriptors refer to, else by their names.

Descriptors of this microscope say which data keys hold exposure, channel and stage position of a camera; of an
imported session only the names tell. What no document says is not there.
"""

import re
from collections.abc import Mapping
from typing import Any

from gently_bluesky.read.stream import Stream
from gently_bluesky.serve.agent.answering import Facts, brief
from gently_bluesky.serve.agent.place import Place
from gently_bluesky.store.index import IDENTITY_KEYS

_GROUPS: Mapping[str, re.Pattern[str]] = {
    "stage": re.compile(r"stage|fdrive|position_(coarse|fine)|^[xyz]_um$", re.IGNORECASE),
    "laser": re.compile(r"laser|(^|_)led", re.IGNORECASE),
    "calibration": re.compile(r"calibration|piezo|galvo", re.IGNORECASE),
    "temperature": re.compile(r"temperature|water_c", re.IGNORECASE),
    "file": re.compile(r"^(file|filed_at|sha256)", re.IGNORECASE),
}
_POWER = re.compile(r"(?:^|_)(?:laser_)?power_(\d{3})_(?:percent|pct)$|(?:^|_)laser_(\d{3})_pct$")
_LINE = re.compile(r"\d{3}")


def group_of(key: str) -> str:
    """Say what a data key is about.

    >>> group_of("xy_stage_x"), group_of("laser_power_488_pct"), group_of("spim_num_slices")
    ('stage', 'laser', 'detector')
    """
    if key in IDENTITY_KEYS:
        return "identity"
    return next((name for name, pattern in _GROUPS.items() if pattern.search(key)), "detector")


def settings_of(place_data: Mapping[str, Any], stream: Stream) -> dict[str, Facts]:
    """Give the scalars of an event by what they are about; setpoints that were reached are left out."""
    groups: dict[str, Facts] = {}
    for key, value in place_data.items():
        entry = stream.data_keys.get(key, {})
        if entry.get("external") or (isinstance(value, list) and len(value) > 8):
            continue
        if key.endswith("_setpoint") and place_data.get(key.removesuffix("_setpoint")) == value:
            continue
        units = entry.get("units")
        suffix = f" ({units})" if units and units not in _spoken(key) else ""
        groups.setdefault(group_of(key), {})[f"{key}{suffix}"] = brief(value)
    order = ["identity", "stage", "laser", "calibration", "detector"]
    return {name: groups[name] for name in sorted(groups, key=lambda each: (each not in order, each))}


def _spoken(key: str) -> set[str]:
    """Give the units that a name ends with."""
    last = key.rpartition("_")[2]
    return {last, {"pct": "%", "seconds": "s"}.get(last, last)}


def stage_of(place: Place) -> Facts:
    """Say where the stage was: data keys that the descriptor refers to, else by name, else of the embryo."""
    data = place.row.data
    refers = [key for key in place.data_key.get("stage_position_um") or () if isinstance(key, str)]
    keys = [key for key in refers if key in data] or [
        key for key in data if group_of(key) == "stage" and not key.endswith("_setpoint")
    ]
    if keys:
        return {key: brief(data[key]) for key in keys} | {"units": "um"}
    embryo = _embryo_of(place)
    said = {key: brief(value) for key, value in embryo.items() if group_of(key) == "stage" and value is not None}
    if said:
        return said | {"from": "embryos in the start document; where the stage was in the event was not recorded"}
    return {"not_recorded": "neither the event nor the start document says where the stage was"}


def _embryo_of(place: Place) -> Mapping[str, Any]:
    embryos, name = place.run.start.get("embryos"), place.said("embryo")
    if isinstance(embryos, Mapping):
        found = embryos.get(name)
    else:
        found = next((e for e in embryos or () if isinstance(e, Mapping) and e.get("name") == name), None)
    return found if isinstance(found, Mapping) else {}


def calibration_of(place: Place) -> Facts:
    """Say which calibration was used: the event's data keys, and the runs that the start document links to."""
    data = place.row.data
    said = {key: brief(value) for key, value in data.items() if group_of(key) == "calibration"}
    runs = place.run.start.get("calibration")
    return (said or {"not_recorded": "the event says nothing of piezo, galvo or calibration"}) | (
        {"calibration_runs": brief(runs)} if runs else {}
    )


def preset_of(place: Place) -> str | None:
    """Give the laser preset; None if no document says."""
    data = place.row.data
    key = place.data_key.get("channel")
    said = [data.get(key)] if isinstance(key, str) else []
    said += [data[each] for each in data if each.endswith("laser_preset")] + [place.said("channel")]
    return next((value for value in said if isinstance(value, str) and value), None)


def powers_of(data: Mapping[str, Any]) -> dict[str, float]:
    """Give the laser powers that an event says: percent by wavelength in nm."""
    found = {key: _POWER.search(key) for key in data}
    return {
        match[1] or match[2]: float(data[key])
        for key, match in found.items()
        if match and isinstance(data[key], int | float) and not isinstance(data[key], bool)
    }


def lines_of(preset: str | None) -> set[str] | None:
    """Give the lines that a preset lets through, by wavelength; None where that is not known.

    >>> sorted(lines_of("488 and 561")), lines_of("ALL OFF"), lines_of("ALL ON"), lines_of(None)
    (['488', '561'], set(), None, None)
    """
    if preset is None:
        return None
    if preset.strip().upper() == "ALL OFF":
        return set()
    return set(_LINE.findall(preset)) or None


def laser_of(place: Place) -> Facts:
    """Say which laser preset, powers and pulses were used, as far as documents say."""
    settings = settings_of(place.row.data, place.stream).get("laser", {})
    further = {
        key: value
        for key, value in settings.items()
        if not (_POWER.search(name := key.partition(" (")[0]) or name.endswith("laser_preset"))
    }
    preset, powers = preset_of(place), powers_of(place.row.data)
    lines = lines_of(preset)
    return {
        "preset": preset if preset is not None else "not recorded",
        "power_percent": powers or "not recorded",
        **({} if lines is None else {"lines_nm_on": sorted(lines)}),
        **({"settings": further} if further else {}),
    }


def number_of(place: Place, reference: str, *endings: str) -> float | None:
    """Give a number of an event: that of the data key to which its descriptor refers, or whose name ends so."""
    data, said = place.row.data, place.data_key.get(reference)
    keys = [said] if isinstance(said, str) else []
    keys += [key for ending in endings for key in data if key == ending or key.endswith(f"_{ending}")]
    values = [said] if isinstance(said, int | float) else [data.get(key) for key in keys]
    return next((float(v) for v in values if isinstance(v, int | float) and not isinstance(v, bool)), None)
