"""The service process: forked by the coordinator, it answers HTTP and writes everybody's log lines until the runtime ends.

1. The coordinator calls :func:`bind`, so that an address in use is found out before anything is announced, makes a SOCK_SEQPACKET pair,
   forks, and the child calls :func:`run`.
2. Before each fork of a P the coordinator sends ``b"log"`` over the pair with the receiving end of that P's log socket attached.
3. When the coordinator closes its end, or dies, the service writes the last log lines and exits at once.

Its life hangs on that socket alone: signals that reach the whole group or container (Ctrl-C, ``docker stop``) are for the coordinator, and
the service has to outlast the Ps to write what they still say. This module imports the HTTP libraries only in :func:`run`, so that the
coordinator and the Ps do without them.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import signal
import socket
import threading
from collections.abc import Iterator

from gomp.config import ServiceSettings
from gomp.errors import ConfigError
from gomp.service import logs

LOG_MESSAGE = b"log"
DRAIN_S = 1.0  # how long the last log lines may take
_BACKLOG = 128
_MAX_MESSAGE = 64


def bind(settings: ServiceSettings) -> socket.socket:
    """The listening socket of ``settings``. Raises ConfigError with a line that names the fix."""
    host, port = settings.metrics_host, settings.metrics_port
    try:
        family, kind, proto, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except OSError as error:
        raise ConfigError(f"metrics_host {host!r} is no address of this machine: {error.strerror}") from None
    listener = socket.socket(family, kind, proto)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(address)
        listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        raise ConfigError(_why_not(error, host, port)) from None
    return listener


def _why_not(error: OSError, host: str, port: int) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"port {port} on {host} is in use: end the process that has it, or choose another metrics_port"
    if error.errno == errno.EACCES:
        return f"port {port} on {host} is not allowed for this user: choose a metrics_port above 1023"
    return f"cannot listen on {host} port {port}: {error.strerror}"


def url(listener: socket.socket) -> str:
    """Where a browser on this machine finds ``listener``."""
    host, port = listener.getsockname()[:2]
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"http://[{host}]:{port}/" if ":" in host else f"http://{host}:{port}/"


def run(settings: ServiceSettings, listener: socket.socket, control: socket.socket) -> None:
    """Be the service: answer on ``listener`` until ``control`` ends. Does not return."""
    _ignore_signals()
    logs.configure(settings.log_level, "service")
    threading.Thread(target=_obey, args=(control,), name="control", daemon=True).start()
    try:
        _serve(settings, listener)
    except Exception:
        logging.getLogger(__name__).exception("the service failed")
    os._exit(1)


def _ignore_signals() -> None:
    signal.set_wakeup_fd(-1)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)


def _obey(control: socket.socket) -> None:
    """Take what the coordinator sends until it ends, then end the process."""
    receivers = logs.Receivers()
    while True:
        message, fds, _, _ = socket.recv_fds(control, _MAX_MESSAGE, 1)
        if not message:
            break
        if message == LOG_MESSAGE:
            receivers.add(socket.socket(fileno=fds[0]))
    receivers.drain(DRAIN_S)
    os._exit(0)


def _serve(settings: ServiceSettings, listener: socket.socket) -> None:
    import uvicorn

    from gomp.service.app import make_app

    class Server(uvicorn.Server):
        """Uvicorn without its signal handlers: see the head of this module."""

        @contextlib.contextmanager
        def capture_signals(self) -> Iterator[None]:
            yield

    app = make_app(settings.name or f"runtime {os.getppid()}")
    config = uvicorn.Config(
        app, log_config=None, log_level="warning", access_log=False, lifespan="off", server_header=False
    )
    asyncio.run(Server(config).serve(sockets=[listener]))
