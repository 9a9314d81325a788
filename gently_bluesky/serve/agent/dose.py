"""The tool about light: how much an embryo has had, as far as documents tell."""

import math
from collections import defaultdict
from dataclasses import dataclass, field

from gently_bluesky.read.catalog import Catalog
from gently_bluesky.serve.agent.answering import Facts, NotThereError
from gently_bluesky.serve.agent.asking import volumes_of
from gently_bluesky.serve.agent.conditions import events_of
from gently_bluesky.serve.agent.embryos import whose
from gently_bluesky.serve.agent.meaning import lines_of, number_of, powers_of, preset_of
from gently_bluesky.serve.agent.place import Place


@dataclass(slots=True)
class _Light:
    """What is known of the light that an embryo has had."""

    events: int = 0
    frames: int = 0
    seconds: float = 0.0
    unknown: int = 0
    views: int = 0
    bases: set[str] = field(default_factory=set)
    lines: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))
    presets: defaultdict[str, int] = field(default_factory=lambda: defaultdict(int))

    def add(self, place: Place) -> None:
        """Count one event: every frame of every view in it."""
        self.events += 1
        preset = preset_of(place)
        self.presets[preset or "not recorded"] += 1
        keys = [key for key in place.stream.image_keys if key in place.row.volumes or key in place.row.data]
        shapes = [Place(place.run, place.stream, place.stream.images(key), place.event).shape for key in keys]
        self.views = max(self.views, len(keys))
        frames = sum(math.prod(shape[:-2]) for shape in shapes)
        self.frames += frames
        lines = lines_of(preset)
        if lines is not None and not lines:  # dark
            return
        pulse = number_of(place, "laser_duration_ms", "laser_duration_ms")
        length = pulse if pulse is not None else number_of(place, "exposure_ms", "exposure_ms")
        if length is None:
            self.unknown += 1
            return
        self.bases.add("length of the laser pulses" if pulse is not None else "exposure of the camera")
        seconds = frames * length / 1e3
        self.seconds += seconds
        for line, percent in powers_of(place.row.data).items():
            if lines is None or line in lines:
                self.lines[line] += seconds * percent


def get_light_dose(
    catalog: Catalog,
    embryo_id: str,
    session: str | None = None,
    since: str | None = None,
    until: str | None = None,
) -> Facts:
    """Say how much light an embryo has had so far, as far as documents tell; volumes that are not good count, too.

    Seconds of light times percent of laser power, by wavelength: a measure to compare embryos by, not an energy.

    Parameters
    ----------
    embryo_id
        The embryo.
    session
        Its name or the beginning of it; the newest session with such an embryo, if not given.
    since, until
        Only of runs that started in this time, like "2026-11-23T18:30".
    """
    found = volumes_of(catalog, embryo_id, session=session, include_bad=True)
    if since is not None or until is not None:
        within = catalog.volumes(
            embryo=embryo_id, session=found[0].row.session, include_bad=True, since=since, until=until
        )
        if not within:
            raise NotThereError(f"No volume of {embryo_id!r} in that time: {within.why_none}.")
        found = within
    light = _Light()
    events = list(events_of(catalog, found))
    for place in events:
        light.add(place)
    unsaid = ["snaps, focus sweeps and runs that name no embryo are not counted"]
    if light.views > 1:
        unsaid.append("views are taken to have been lit one after the other, each for its own frames")
    if "not recorded" in light.presets:
        unsaid.append(
            "where no laser preset was recorded, every line whose power was recorded is taken to have been on"
        )
    if not light.lines:
        unsaid.append("no laser power was recorded: light is known in seconds only")
    if light.unknown:
        unsaid.append(f"{light.unknown} events say neither pulse nor exposure: not in the seconds")
    return whose(catalog, found) | {
        "events": light.events,
        "frames_of_all_views": light.frames,
        "light_seconds": round(light.seconds, 4),
        "percent_seconds_by_line_nm": {line: round(dose, 4) for line, dose in sorted(light.lines.items())},
        "events_by_laser_preset": dict(light.presets),
        "seconds_from": f"frames times {' or '.join(sorted(light.bases))}" if light.bases else "not recorded",
        "from": events[0].address(),
        "to": events[-1].address(),
        "not_known": unsaid,
    }
