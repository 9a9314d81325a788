"""What the user says of data that do not say it themselves; it is recorded as said by the user."""

import datetime
import math
import zoneinfo
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from gently_bluesky.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Said:
    """What the user says; everything may be left unsaid.

    Attributes
    ----------
    timezone
        Where the source's naive times were taken, e.g. "Europe/Berlin"; this machine's zone is assumed if None.
    voxel_size_um
        Along (z, y, x), of volumes.
    views
        Names of the views of a volume, in the order in which they lie, e.g. "AB".
    split_views
        Whether volumes whose frames are at least twice as wide as high hold two views, side by side.
    session, embryo, timepoint
        What a single file shows; the timepoint of its first volume.
    """

    timezone: str | None = None
    voxel_size_um: Sequence[float] | None = None
    views: str | None = None
    split_views: bool = False
    session: str | None = None
    embryo: str | None = None
    timepoint: int | None = None

    def __post_init__(self) -> None:
        sizes = self.voxel_size_um
        if sizes is not None and (len(sizes) != 3 or not all(0 < size < float("inf") for size in sizes)):
            raise ConfigError(f"voxel_size_um is {sizes!r}; it must be three numbers above 0: along z, y and x.")
        if self.views is not None and (
            not self.views.isalnum() or len(set(self.views.lower())) != len(self.views)
        ):
            raise ConfigError(f"views is {self.views!r}; it must be one letter a view, each once, e.g. 'AB'.")
        if self.timepoint is not None and self.timepoint < 0:
            raise ConfigError(f"timepoint is {self.timepoint}; timepoints count from 0.")
        self.zone  # noqa: B018 - one that there is not is told here

    @property
    def zone(self) -> datetime.tzinfo | None:
        """The time zone; None for this machine's.

        Raises
        ------
        ConfigError
            There is no such zone.
        """
        if self.timezone is None:
            return None
        try:
            return zoneinfo.ZoneInfo(self.timezone)
        except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError) as error:
            raise ConfigError(
                f"There is no time zone {self.timezone!r}; write it like 'Europe/Berlin'."
            ) from error

    def moment(self, said: object, *, not_before: float = float("-inf")) -> float:
        """Give a moment that a file spells, in seconds since the epoch.

        Parameters
        ----------
        said
            Seconds, a datetime, or ISO 8601 text; the zone of the user's, where it has none.
        not_before
            Where a clock was set back, the same local time comes twice: the second one is meant, if the first
            would be before this.

        Raises
        ------
        ValueError
            It is no moment.
        """
        if isinstance(said, int | float) and not isinstance(said, bool) and math.isfinite(said):
            return float(said)
        when = said if isinstance(said, datetime.datetime) else datetime.datetime.fromisoformat(str(said))
        try:
            if when.tzinfo is not None:
                return when.timestamp()
            first, second = (when.replace(tzinfo=self.zone, fold=fold).timestamp() for fold in (0, 1))
        except (OverflowError, OSError) as error:
            raise ValueError(f"{when} is too far away") from error
        return max(first, second) if first < not_before else first

    def recorded(self) -> dict[str, Any]:
        """Give what was said, for a start document, and the zone that was assumed."""
        return dict(self._recorded())

    def _recorded(self) -> Iterator[tuple[str, Any]]:
        yield from ((name, value) for name, value in asdict(self).items() if value not in (None, False))
        if self.timezone is None:
            yield (
                "assumed_timezone",
                f"that of the machine that imported: {datetime.datetime.now().astimezone():%Z}",
            )
