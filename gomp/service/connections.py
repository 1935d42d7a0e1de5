"""An end to each connection, whatever its client does, so that neither descriptors nor memory run out and a scraper gets in.

1. A client has REQUEST_S to say what it wants, from the connection or from the first byte of another request, however slowly it speaks.
   Between two requests uvicorn closes it by itself.
2. A listener has MOST_CONNECTIONS at most. For one more, that is closed which has said nothing for longest; if all are being served, that which has
   taken nothing of its answer for longest; if all take theirs, the new one. Whichever was never answered is told why, in a line.
3. Who says more than MOST_AHEAD bytes before it is answered is cut off, as uvicorn keeps them all.
4. An answer that ends before it is whole ends at once: what is left of it would wait for a client that may never take it. Its time was over, or what
   the client went on to say made no sense; neither is an error, so neither is logged.
"""

from __future__ import annotations

import asyncio
import resource
import time
from typing import Any, cast

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

REQUEST_S = 10.0
# Two listeners leave half of the descriptors to the log sockets of the Ps, and to files.
MOST_CONNECTIONS = min(256, resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 4)
MOST_AHEAD = 1 << 16
_FULL = b"all connections of this service are in use: close some\n"
_REFUSAL = (
    b"HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: %d\r\n\r\n%s"
    % (len(_FULL), _FULL)
)


class Connection(H11Protocol):
    """uvicorn's, which waits for ever: for a request, and for an answer to be taken."""

    _deadline: asyncio.TimerHandle | None = None
    _idle_since_s = 0.0
    _stuck_since_s = 0.0

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._application = self.app
        self.app = self._answer

    @property
    def was_asked(self) -> bool:
        """Whether there was a request, ever."""
        return self.cycle is not None

    @property
    def is_served(self) -> bool:
        """Whether there is a request that is not answered yet."""
        return self.was_asked and not self.cycle.response_complete

    @property
    def is_stuck(self) -> bool:
        """Whether the client has to take something before there is more to it."""
        return self.flow.write_paused

    # --- their number -------------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._expect_request()
        if len(self.connections) > MOST_CONNECTIONS:
            self._choose_whom_to_turn_away()._turn_away()

    def _choose_whom_to_turn_away(self) -> Connection:
        others = cast("set[Connection]", self.connections) - {self}
        if idle := [other for other in others if not other.is_served]:
            return min(idle, key=lambda other: other._idle_since_s)
        stuck = [other for other in others if other.is_stuck]
        return min(stuck, key=lambda other: other._stuck_since_s, default=self)

    def _turn_away(self) -> None:
        self.connections.discard(self)  # or the next one that comes in this turn of the loop would find it here
        if self.was_asked:
            self.transport.abort()
        else:
            self.transport.write(_REFUSAL)
            self.transport.close()

    # --- what comes and goes ------------------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if len(self.conn.trailing_data[0]) > MOST_AHEAD:
            self.transport.abort()
        if self.is_served:
            self._expect_nothing()
        elif self._deadline is None:
            self._expect_request()

    def send_400_response(self, msg: str) -> None:
        if self.was_asked:  # the application may be about to answer, for which it is too late
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        try:
            super().send_400_response(msg)
        except h11.LocalProtocolError:  # an answer has begun; or it was a HEAD, whose answer has no text
            self.transport.abort()

    async def _answer(self, *asked: Any) -> None:
        """The application's answer to a request."""
        cycle = self.cycle
        try:
            await self._application(*asked)
        finally:
            if cycle.response_started and not cycle.response_complete:
                cycle.disconnected = True
                self.transport.abort()

    def pause_writing(self) -> None:
        self._stuck_since_s = time.monotonic()
        super().pause_writing()

    def on_response_complete(self) -> None:
        self._idle_since_s = time.monotonic()
        super().on_response_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        self._expect_nothing()
        super().connection_lost(exc)

    def _expect_request(self) -> None:
        self._idle_since_s = time.monotonic()
        self._deadline = self.loop.call_later(REQUEST_S, self.transport.abort)

    def _expect_nothing(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
