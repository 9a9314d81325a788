"""What to acquire: one volume, a time-lapse of several embryos, a snap.

Plans name devices through a namespace (``dispim.spim``, ``dispim.xy_stage`` ...) and know nothing of what is
behind it, simulated or real. Each says in its documents what every volume shows: session and purpose in the
start document, embryo, timepoint, position and channel in every event.
"""

import time
from collections.abc import Generator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, Protocol

import bluesky.plan_stubs as bps
import bluesky.preprocessors as bpp
from bluesky.utils import Msg
from ophyd import Signal

from gently_bluesky.read.catalog import Catalog

Plan = Generator[Msg, Any, Any]
Views = Literal["A", "B", "AB"]


class Microscope(Protocol):
    """The devices that plans use; `devices.Dispim` has them."""

    @property
    def spim(self) -> Any:
        """Takes a volume in one or both views for each trigger."""

    @property
    def xy_stage(self) -> Any:
        """Positioner of (x, y) in micrometer."""

    @property
    def z_stage(self) -> Any:
        """Positioner of the focus in micrometer."""

    @property
    def laser(self) -> Any:
        """Positioner of presets: selects, and is lit by the detectors alone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """How piezo and galvo of one view meet in an embryo.

    Attributes
    ----------
    piezo_offset_um
        Centre of the scan.
    galvo_offset_deg
        Where the sheet is then.
    um_per_deg
        Slope of the line.
    """

    piezo_offset_um: float
    galvo_offset_deg: float
    um_per_deg: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Embryo:
    """An embryo and where it is.

    Attributes
    ----------
    name
        Unique within its session.
    x_um, y_um
        Of the stage.
    z_um
        Of the focus; where it was when the plan began, if None.
    calibration
        By view; what the detector had when the plan began, if a view is not there.
    """

    name: str
    x_um: float
    y_um: float
    z_um: float | None = None
    calibration: Mapping[str, Calibration] = field(default_factory=dict)


class _Identity:
    """The signals whose readings say what a volume shows."""

    def __init__(self) -> None:
        self.embryo = Signal(name="embryo", value="")
        self.timepoint = Signal(name="timepoint", value=0)
        self.position = Signal(name="position", value=0)
        self.channel = Signal(name="channel", value="")

    def signals(self) -> list[Signal]:
        return [self.embryo, self.timepoint, self.position, self.channel]


def acquire_volume(
    dispim: Microscope,
    *,
    session: str | None = None,
    embryo: str | None = None,
    timepoint: int | None = None,
    catalog: Catalog | None = None,
    channel: str | None = None,
    views: Views | None = None,
    num_slices: int | None = None,
    z_step_um: float | None = None,
    exposure_ms: float | None = None,
    also: Sequence[Any] = (),
    md: Mapping[str, Any] | None = None,
) -> Plan:
    """Take one volume where the stage is: one run, one event.

    Parameters
    ----------
    dispim
        The microscope.
    session, embryo
        What it shows; absent from the documents, if not given.
    timepoint
        From 0; if not given, the next one of the embryo in the session that `catalog` knows, else absent.
    catalog
        Asked for the next timepoint.
    channel
        The laser preset; the one that is selected, if not given.
    views, num_slices, z_step_um, exposure_ms
        Of the detector; as they are, if not given.
    also
        Further devices to read in the event.
    md
        Goes into the start document.

    Returns
    -------
    str
        The run's uid, as the plan's result.
    """
    _check_identity(session=session, embryo=embryo)
    _check_channels(dispim, [] if channel is None else [channel])
    identity = _Identity()
    if timepoint is None and catalog is not None and session is not None and embryo is not None:
        timepoint = catalog.next_timepoint(session, embryo)
    said = {"session": session, "embryo": embryo, "timepoint": timepoint}
    known = [signal for signal in identity.signals()[:2] if said[signal.name] is not None]
    start = {"plan_name": "acquire_volume", **_without_none(said), **(md or {})}

    @bpp.stage_decorator([dispim.spim])
    @bpp.run_decorator(md=start)
    def one() -> Plan:
        for signal in known:
            yield from bps.abs_set(signal, said[signal.name], wait=True)
        yield from _select(dispim, identity, channel)
        yield from bps.checkpoint()
        yield from bps.trigger_and_read(
            [dispim.spim, dispim.xy_stage, dispim.z_stage, *known, identity.channel, *also]
        )

    yield from _configure(dispim.spim, views, num_slices, z_step_um, exposure_ms)
    return (yield from _dark_afterwards(dispim, one()))


def acquire_timelapse(
    dispim: Microscope,
    embryos: Sequence[Embryo],
    *,
    session: str,
    count: int,
    interval_s: float = 0.0,
    channels: Sequence[str] = (),
    views: Views | None = None,
    num_slices: int | None = None,
    z_step_um: float | None = None,
    exposure_ms: float | None = None,
    catalog: Catalog | None = None,
    also: Sequence[Any] = (),
    md: Mapping[str, Any] | None = None,
) -> Plan:
    """Take volumes of several embryos again and again: one run, an event a volume of an embryo and channel.

    Parameters
    ----------
    dispim
        The microscope.
    embryos
        Visited in this order in every round. Their positions are checked before the run begins.
    session
        Timepoints count from 0 in an embryo of a session.
    count
        How many rounds.
    interval_s
        From the start of one round to the start of the next; a round that takes longer is followed at once.
    channels
        Laser presets, one volume each; the one that is selected, if there are none.
    views, num_slices, z_step_um, exposure_ms
        Of the detector; as they are, if not given.
    catalog
        Asked for the timepoint to go on with, embryo by embryo; without one they count from 0.
    also
        Further devices to read in every event.
    md
        Goes into the start document.

    Returns
    -------
    str
        The run's uid, as the plan's result.

    Raises
    ------
    ValueError
        No embryos, two of one name, a channel twice, a count or an interval that cannot be.
    TypeError
        Something else than an Embryo, a Calibration, or text for a name.
    LimitError, PresetError
        A position or a channel is not allowed; nothing has moved.
    """
    if isinstance(channels, str):
        channels = [channels]
    _check_embryos(dispim, embryos)
    _check_identity(session=session)
    _check_channels(dispim, channels)
    if count < 1 or count % 1 or not interval_s >= 0:
        raise ValueError(
            f"A time-lapse needs a whole count of at least 1 and an interval_s of at least 0, "
            f"not count={count!r}, interval_s={interval_s!r}."
        )
    first = {embryo.name: catalog.next_timepoint(session, embryo.name) if catalog else 0 for embryo in embryos}
    identity = _Identity()
    start = {
        "plan_name": "acquire_timelapse",
        "session": session,
        "embryos": [asdict(embryo) for embryo in embryos],
        "channels": list(channels),
        "interval_s": interval_s,
        "num_points": count * len(embryos) * max(len(channels), 1),
        "hints": {"dimensions": [(("time",), "primary")]},
        **(md or {}),
    }
    read = [dispim.spim, dispim.xy_stage, dispim.z_stage, *identity.signals(), *also]

    @bpp.stage_decorator([dispim.spim])
    @bpp.run_decorator(md=start)
    def rounds() -> Plan:
        z_um, calibration = yield from _settings_of(dispim)
        begun = time.monotonic()
        for number in range(count):
            if (early := begun + number * interval_s - time.monotonic()) > 0:
                yield from bps.checkpoint()
                yield from bps.sleep(early)
            for place, embryo in enumerate(embryos):
                yield from bps.checkpoint()
                yield from _go_to(dispim, embryo, z_um, calibration)
                yield from bps.mv(
                    identity.embryo,
                    embryo.name,
                    identity.timepoint,
                    first[embryo.name] + number,
                    identity.position,
                    place,
                )
                for channel in channels or (None,):
                    yield from bps.checkpoint()
                    yield from _select(dispim, identity, channel)
                    yield from bps.trigger_and_read(read)

    yield from _configure(dispim.spim, views, num_slices, z_step_um, exposure_ms)
    return (yield from _dark_afterwards(dispim, rounds()))


def snap(
    camera: Any,
    *,
    exposure_ms: float | None = None,
    also: Sequence[Any] = (),
    md: Mapping[str, Any] | None = None,
) -> Plan:
    """Take one frame with one camera: one run, one event.

    Parameters
    ----------
    camera
        Any camera of the microscope, e.g. ``dispim.bottom_camera``.
    exposure_ms
        As it is, if not given.
    also
        Devices to read in the event, e.g. ``[dispim.xy_stage]``.
    md
        Goes into the start document: session, embryo, purpose ...

    Returns
    -------
    str
        The run's uid, as the plan's result.
    """

    @bpp.stage_decorator([camera])
    @bpp.run_decorator(md={"plan_name": "snap", **(md or {})})
    def one() -> Plan:
        yield from bps.checkpoint()
        yield from bps.trigger_and_read([camera, *also])

    if exposure_ms is not None:
        yield from bps.mv(camera.exposure_ms, exposure_ms)
    return (yield from one())


def _check_identity(**said: Any) -> None:
    for name, value in said.items():
        if value is not None and not (isinstance(value, str) and value):
            # numbers would be other names than their text, and timepoints be counted for both
            raise TypeError(f"{name} is {value!r}; it must be text that is not empty, e.g. {name}='embryo_3'.")


def _check_channels(dispim: Microscope, channels: Sequence[str]) -> None:
    for channel in channels:
        dispim.laser.check_value(channel)
    if len(set(channels)) != len(channels):
        raise ValueError(f"Each channel can be taken once a round; channels are {list(channels)}.")


def _check_embryos(dispim: Microscope, embryos: Sequence[Embryo]) -> None:
    for embryo in embryos:
        if not isinstance(embryo, Embryo):
            raise TypeError(f"embryos must hold Embryo(name=..., x_um=..., y_um=...), not {embryo!r}.")
        _check_identity(embryo=embryo.name)
        dispim.xy_stage.check_value((embryo.x_um, embryo.y_um))
        if embryo.z_um is not None:
            dispim.z_stage.check_value(embryo.z_um)
        for view, line in embryo.calibration.items():
            if view not in {"A", "B"} or not isinstance(line, Calibration):
                raise TypeError(
                    f"{embryo.name}: calibration must be {{'A': Calibration(...)}}, not {view!r}: {line!r}."
                )
    names = [embryo.name for embryo in embryos]
    if not names or len(set(names)) != len(names):
        raise ValueError(f"A time-lapse needs embryos, each with a name of its own; there are {names}.")


def _configure(
    spim: Any, views: Views | None, num_slices: int | None, z_step_um: float | None, exposure_ms: float | None
) -> Plan:
    # before the run: these decide the geometry, which is constant in a stream
    wanted = {
        spim.views: views,
        spim.num_slices: num_slices,
        spim.z_step_um: z_step_um,
        spim.exposure_ms: exposure_ms,
    }
    for signal, value in _without_none(wanted).items():
        yield from bps.mv(signal, value)


def _settings_of(dispim: Microscope) -> Generator[Msg, Any, tuple[float, dict[str, Calibration]]]:
    """Ask where the focus is, and how each view is calibrated, before the first embryo changes it."""
    lines = {}
    for name in ("A", "B"):
        view = getattr(dispim.spim, name.lower())
        lines[name] = Calibration(
            piezo_offset_um=(yield from bps.rd(view.piezo_offset_um)),
            galvo_offset_deg=(yield from bps.rd(view.galvo_offset_deg)),
            um_per_deg=(yield from bps.rd(view.calibration_um_per_deg)),
        )
    return (yield from bps.rd(dispim.z_stage)), lines


def _go_to(dispim: Microscope, embryo: Embryo, z_um: float, calibration: Mapping[str, Calibration]) -> Plan:
    yield from bps.mv(
        dispim.xy_stage, (embryo.x_um, embryo.y_um), dispim.z_stage, z_um if embryo.z_um is None else embryo.z_um
    )
    for name, line in {**calibration, **embryo.calibration}.items():
        view = getattr(dispim.spim, name.lower())
        yield from bps.mv(
            view.piezo_offset_um, line.piezo_offset_um,
            view.galvo_offset_deg, line.galvo_offset_deg,
            view.calibration_um_per_deg, line.um_per_deg,
        )  # fmt: skip


def _select(dispim: Microscope, identity: _Identity, channel: str | None) -> Plan:
    if channel is not None:
        yield from bps.mv(dispim.laser, channel)
    selected = yield from bps.rd(dispim.laser.preset)
    yield from bps.mv(identity.channel, selected)


def _dark_afterwards(dispim: Microscope, plan: Plan) -> Plan:
    # light is on within a trigger alone, which switches it off itself; this is the second lock on the door
    def off() -> Plan:
        yield from bps.stop(dispim.laser)

    return (yield from bpp.finalize_wrapper(plan, off))


def _without_none(values: Mapping[Any, Any]) -> dict[Any, Any]:
    return {key: value for key, value in values.items() if value is not None}
