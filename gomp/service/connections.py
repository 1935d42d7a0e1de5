"""Connections that clients leave unused: an end to each, so that neither descriptors nor memory run out and a scraper always gets in.

1. A client has REQUEST_S to say what it wants, from the connection or from the first byte of another request, however slowly it speaks.
   Between two requests uvicorn closes it by itself.
2. A listener has MOST_CONNECTIONS at most. For one more, that is closed which has said nothing for longest; if all are being served, the new one is
   refused in a line.
"""

from __future__ import annotations

import asyncio
import resource
import time
from typing import cast

from uvicorn.protocols.http.h11_impl import H11Protocol

REQUEST_S = 10.0
# Two listeners leave half of the descriptors to the log sockets of the Ps, and to files.
MOST_CONNECTIONS = min(256, resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 4)
_FULL = b"all connections of this service are in use: close some\n"
_REFUSAL = (
    b"HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: %d\r\n\r\n%s"
    % (len(_FULL), _FULL)
)


class Connection(H11Protocol):
    """uvicorn's, which waits for a request for ever."""

    _deadline: asyncio.TimerHandle | None = None
    _idle_since_s = 0.0

    @property
    def is_served(self) -> bool:
        """Whether there is a request that is not answered yet."""
        return self.cycle is not None and not self.cycle.response_complete

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        has_room = len(self.connections) < MOST_CONNECTIONS or self._close_idlest()
        super().connection_made(transport)
        if has_room:
            self._expect_request()
        else:
            transport.write(_REFUSAL)
            transport.close()

    def _close_idlest(self) -> bool:
        """Whether there was one to close."""
        idle = [other for other in cast("set[Connection]", self.connections) if not other.is_served]
        if not idle:
            return False
        idlest = min(idle, key=lambda other: other._idle_since_s)
        self.connections.discard(idlest)
        idlest.transport.abort()
        return True

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.is_served:
            self._expect_nothing()
        elif self._deadline is None:
            self._expect_request()

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
