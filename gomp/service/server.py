"""Uvicorn as the service uses it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import uvicorn

from gomp.service.connections import Connection


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
