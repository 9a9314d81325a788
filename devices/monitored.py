"""What can be monitored: whoever subscribes begins with a reading of now.

Knows how ophyd hands the first reading to a new subscriber; what a reading is, the subclass says.
"""

from collections.abc import Callable
from typing import Any

from ophyd.ophydobj import OphydObject


class Monitored(OphydObject):  # type: ignore[misc]
    """A device or a signal that can be monitored, by bluesky as by anybody.

    Its default subscription is the reading that a subclass gives in `reading_now`.
    """

    def reading_now(self) -> tuple[Any, float]:
        """Value of its reading, and seconds since the epoch.

        Raises
        ------
        ReadingError
            The value could not be had.
        """
        raise NotImplementedError

    def subscribe(self, callback: Callable[..., object], event_type: str | None = None, run: bool = True) -> int:
        """Call back with every new reading, and with the one of now if `run`.

        Parameters
        ----------
        callback
            Called as ophyd calls it.
        event_type
            Absent: of the reading.
        run
            Whether to call it at once.

        Returns
        -------
        int
            For `unsubscribe`.

        Raises
        ------
        ReadingError
            The reading of now could not be had.
        """
        if run and event_type in (None, self._default_sub):
            # ophyd calls back at once with what was told last, and not at all where nothing ever was
            value, timestamp = self.reading_now()
            told = {"value": value, "timestamp": timestamp, "sub_type": self._default_sub, "obj": self}
            self._args_cache[self._default_sub] = ((), told)
        return int(super().subscribe(callback, event_type=event_type, run=run))
