"""Uvicorn as the service uses it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Iterator
from typing import Any

import uvicorn

from gomp.service.connections import Connection

log = logging.getLogger(__name__)

_QUIET_S = 60.0  # between two complaints


class Complaints:
    """What the event loop complains of. That it can accept nobody is one line a minute; asyncio tries again each second, and has then a traceback
    for as many as a listener accepts at a time."""

    def __init__(self) -> None:
        self._next_s = 0.0

    def __call__(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        if "socket" not in context:
            loop.default_exception_handler(context)
        elif time.monotonic() >= self._next_s:
            self._next_s = time.monotonic() + _QUIET_S
            log.error("nobody can connect: %s; raise `ulimit -n`", context["exception"].strerror)


class Server(uvicorn.Server):
    """Without its signal handlers: see the head of :mod:`~gomp.service.process`."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def make_server(application: Any, backlog: int) -> Server:
    """One that answers with ``application`` on the listeners that it is given, of which it accepts ``backlog`` connections at a time."""
    return Server(
        uvicorn.Config(
            application,
            http=Connection,
            ws="none",
            backlog=backlog,
            log_config=None,
            log_level="error",  # a warning is what a client can have written as often as it likes
            access_log=False,
            lifespan="off",
            server_header=False,
        )
    )
