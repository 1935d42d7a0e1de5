"""The service process: forked by the coordinator, it answers HTTP and writes everybody's log lines until the runtime ends.

1. The coordinator calls :func:`bind`, so that an address in use is found out before anything is announced, makes a SOCK_SEQPACKET pair,
   forks, and the child calls :func:`run`.
2. Before each fork of a P the coordinator sends ``b"log"`` over the pair with the receiving end of that P's log socket attached.
3. When the coordinator closes its end, or dies, the service writes the last log lines and exits at once.

Its life hangs on that socket alone: signals that reach the whole group or container (Ctrl-C, ``docker stop``) are for the coordinator, and
the service has to outlast the Ps to write what they still say.

The HTTP libraries are imported by :func:`prepare` in the coordinator of a service, and in no other. An import writes to pages all over the
interpreter's heap, to count references: in the service it had 13 MiB of shared pages copied, beside 6 that were new.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import signal
import socket
import stat
import threading
from pathlib import Path

from gomp.config import ServiceSettings
from gomp.errors import ConfigError
from gomp.runtime.discovery import listen_privately
from gomp.service import logs

LOG_MESSAGE = b"log"
DRAIN_S = 1.0  # how long the last log lines may take
_BACKLOG = 64  # so many are accepted at a time, before any of them is looked at
_MAX_MESSAGE = 64
_MAX_TOKEN = 4096
UNREAD_S = 20  # a client that takes nothing for so long is cut off


def bind(settings: ServiceSettings) -> socket.socket:
    """The socket of ``settings`` that answers scrapes. Raises ConfigError with a line that names the fix."""
    return _bind_port(settings.metrics_host, settings.metrics_port, "metrics")


def bind_control(settings: ServiceSettings, path: Path) -> socket.socket | None:
    """The socket that takes changes of settings, at ``path`` or on the loopback interface, if any. Raises ConfigError as :func:`bind`."""
    if settings.control == "off":
        return None
    if settings.control == "tcp":
        read_token(settings)
        return _bind_port("127.0.0.1", settings.control_port, "control")
    try:
        return listen_privately(path)
    except OSError as error:
        raise ConfigError(
            f'cannot listen at {path}: {error.strerror}; set XDG_RUNTIME_DIR, or control = "tcp"'
        ) from None


def read_token(settings: ServiceSettings) -> bytes | None:
    """The token that control asks for. Raises ConfigError if there is none, or others could know it."""
    if settings.control != "tcp":
        return None
    file = settings.control_token_file
    if file is None:
        raise ConfigError('control = "tcp" needs control_token_file: a file of mode 0600 with a long random word')
    try:
        with file.open("rb") as opened:
            found = os.fstat(opened.fileno())
            token = opened.read(_MAX_TOKEN).strip()
    except OSError as error:
        raise ConfigError(f"control_token_file: cannot read {file}: {error.strerror}") from None
    if not stat.S_ISREG(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
        raise ConfigError(f"control_token_file: {file} must be a file of your own with mode 0600")
    if not token:
        raise ConfigError(f"control_token_file: {file} is empty: write a long random word into it")
    if not token.isascii() or not token.decode(errors="replace").isprintable() or b" " in token:
        raise ConfigError(
            f"control_token_file: {file} must hold one word of printable ASCII characters: no header can carry anything else"
        )
    return token


def _bind_port(host: str, port: int, what: str) -> socket.socket:
    try:
        family, kind, proto, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except (OSError, UnicodeError) as error:  # which of them, depends on whether it could be a name
        why = getattr(error, "strerror", "no host has such a name")
        raise ConfigError(f"{what}_host {host[:60]!r} is no address of this machine: {why}") from None
    listener = socket.socket(family, kind, proto)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, UNREAD_S * 1000)  # of those that it accepts
    try:
        listener.bind(address)
        listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        raise ConfigError(_why_not(error, host, port, what)) from None
    return listener


def _why_not(error: OSError, host: str, port: int, what: str) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"port {port} on {host} is in use: end the process that has it, or choose another {what}_port"
    if error.errno == errno.EACCES:
        return f"port {port} on {host} is not allowed for this user: choose a {what}_port above 1023"
    return f"cannot listen on {host} port {port}: {error.strerror}"


def where(listener: socket.socket | None) -> str:
    """The path or URL of ``listener``; "" for none."""
    if listener is None:
        return ""
    return str(listener.getsockname()) if listener.family == socket.AF_UNIX else url(listener)


def url(listener: socket.socket) -> str:
    """Where a browser on this machine finds ``listener``."""
    host, port = listener.getsockname()[:2]
    return url_of(host, port)


def url_of(host: str, port: int) -> str:
    """As :func:`url`, of who listens at this address."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"http://[{host}]:{port}/" if ":" in host else f"http://{host}:{port}/"


def prepare() -> None:
    """Import what the service needs, where its coordinator's other children share it."""
    import anyio._backends._asyncio  # noqa: F401  # what anyio imports when a thread is first asked for
    import uvicorn.lifespan.off  # noqa: F401

    from gomp.service import app, control, server  # noqa: F401


def run(
    settings: ServiceSettings,
    name: str,
    metrics: socket.socket,
    control: socket.socket | None,
    coordinator: socket.socket,
) -> None:
    """Be the service of the runtime ``name``: answer on the listeners until ``coordinator`` ends. Does not return."""
    _ignore_signals()
    logs.configure(settings.log_level, "service")
    threading.Thread(target=_obey, args=(coordinator,), name="coordinator", daemon=True).start()
    try:
        asyncio.run(_serve(settings, name, metrics, control))
    except Exception:
        logging.getLogger(__name__).exception("the service failed")
    os._exit(1)


def _ignore_signals() -> None:
    signal.set_wakeup_fd(-1)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)


def _obey(coordinator: socket.socket) -> None:
    """Take what the coordinator sends until it ends, then end the process."""
    receivers = logs.Receivers()
    try:
        while _obey_next(coordinator, receivers):
            pass
        receivers.drain(DRAIN_S)
    finally:
        os._exit(0)


def _obey_next(coordinator: socket.socket, receivers: logs.Receivers) -> bool:
    """Take the next message; whether there was one.

    Where no descriptor is left, the kernel drops the one that comes with it; and there may be no thread for it. Then the P finds its end of the
    connection closed, and writes its lines to stderr itself.
    """
    try:
        message, fds, _, _ = socket.recv_fds(coordinator, _MAX_MESSAGE, 1)
    except ConnectionError:
        return False
    if message == LOG_MESSAGE:
        try:
            receivers.add(socket.socket(fileno=fds[0]))
        except (IndexError, OSError, RuntimeError):
            logging.getLogger(__name__).warning(
                "the service has no descriptor or thread left for a P's log lines: raise `ulimit -n` or `ulimit -u`"
            )
    return bool(message)


async def _serve(settings: ServiceSettings, name: str, metrics: socket.socket, control: socket.socket | None) -> None:
    from gomp.service import app
    from gomp.service import control as control_app
    from gomp.service.live.routes import Page
    from gomp.service.metrics import look_early
    from gomp.service.server import Complaints, make_server
    from gomp.service.shared import Shared

    asyncio.get_running_loop().set_exception_handler(Complaints())
    shared = Shared(name)
    page = Page(
        name,
        control=settings.control if control else "off",
        control_url=url(control) if control and settings.control == "tcp" else "",
    )
    applications = [(app.make_app(shared, page, settings.metrics == "all"), metrics)]
    if control:
        applications.append((control_app.make_app(shared, read_token(settings)), control))
    early = asyncio.ensure_future(look_early())
    await asyncio.gather(*(make_server(made, _BACKLOG).serve(sockets=[listener]) for made, listener in applications))
    await early
