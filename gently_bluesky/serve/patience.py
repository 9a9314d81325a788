"""How long a server waits for a client that sends no request, or that reads none of its answer: then it hangs up.

ASGI knows no such thing, so it is done where the connections are: in uvicorn's protocol.
"""

import asyncio
from typing import Any

REQUEST_S = 20.0
"""From the connection to the first whole request."""
READ_S = 30.0
"""Without a byte of an answer being taken."""


class _Watching:
    """What both protocols have in common: a peer that takes nothing of what is sent is hung up on."""

    _timer: asyncio.TimerHandle | None = None
    _read_s = READ_S
    loop: asyncio.AbstractEventLoop
    transport: Any

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_timer()
        super().connection_lost(exc)  # type: ignore[misc]

    def pause_writing(self) -> None:
        super().pause_writing()  # type: ignore[misc]
        self._stop_timer()
        self._watch(self.transport.get_write_buffer_size())

    def resume_writing(self) -> None:
        self._stop_timer()
        super().resume_writing()  # type: ignore[misc]

    def _watch(self, before: int) -> None:
        self._timer = self.loop.call_later(self._read_s, self._look, before)

    def _look(self, before: int) -> None:
        now = self.transport.get_write_buffer_size()
        if now >= before:
            self.transport.abort()
        else:
            self._watch(now)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def patient(request_s: float = REQUEST_S, read_s: float = READ_S) -> type[asyncio.Protocol]:
    """Give uvicorn's HTTP protocol, with so much patience, for ``uvicorn.Config(http=...)``."""
    from uvicorn.protocols.http.auto import AutoHTTPProtocol  # noqa: PLC0415 - an extra

    kind: Any = AutoHTTPProtocol

    class Patient(_Watching, kind):  # type: ignore[misc]
        """Hangs up on clients that stand still."""

        _read_s = read_s

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            self._timer = self.loop.call_later(request_s, self._hang_up_idle)

        def _hang_up_idle(self) -> None:
            if self.cycle is None and self.transport.get_protocol() is self:  # and no WebSocket by now
                self.transport.abort()

    return Patient


def patient_socket(read_s: float = READ_S) -> type[asyncio.Protocol]:
    """Give uvicorn's WebSocket protocol, with so much patience, for ``uvicorn.Config(ws=...)``."""
    from uvicorn.protocols.websockets.auto import AutoWebSocketsProtocol  # noqa: PLC0415 - an extra

    kind: Any = AutoWebSocketsProtocol

    class PatientSocket(_Watching, kind):  # type: ignore[misc]
        """Hangs up on clients that read nothing."""

        _read_s = read_s

    return PatientSocket
