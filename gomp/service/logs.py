"""Log lines of every process, written by one: the service.

Each P has a socket of its own to the service (SOCK_SEQPACKET: a record is a packet, so records of a P that is killed in the middle of one
are whole or absent). It stands where multiprocessing-logging has its queue: a shared ``multiprocessing.Queue`` has a lock that a killed
process takes with it, and its handler starts a thread wherever it is made, which a P must not have.

1. Before it forks a P, the coordinator makes a :func:`pair` and sends the receiving end to the service.
2. The P calls :func:`attach` with the other end: from then on its root logger has this one handler.
3. The service calls :func:`receive`: a thread of its own passes what comes to the service's handlers, until the P's end is closed.

A record travels as JSON of its standard attributes, already formatted, so nothing in it can fail to arrive; one too large for a packet is
cut. If the service does not read for SEND_TIMEOUT_S, a record is given up, and so is each that finds no room at once, until one gets through and
says how many were; if the service is gone, the P writes to stderr itself.
"""

from __future__ import annotations

import contextlib
import json
import logging
import multiprocessing
import queue
import socket
import sys
import threading
import time

from multiprocessing_logging import MultiProcessingHandler

MAX_PACKET = 48 << 10
MAX_NAME = 256  # of a logger, a file, a function, a thread
SEND_TIMEOUT_S = 1.0
FORMAT = "%(asctime)s %(levelname)s %(processName)s[%(process)d] %(name)s: %(message)s"

_FIELDS = (
    "name", "levelno", "levelname", "pathname", "filename", "module", "lineno", "funcName", "created", "msecs", "relativeCreated",
    "thread", "threadName", "processName", "process",
)  # fmt: skip
_TEXTS = ("msg", "exc_text", "stack_info")
_CUT = " …[cut]"


def configure(level: str, process_name: str) -> None:
    """Log to stderr from here as ``process_name``. For the coordinator and the service."""
    name_process(process_name)
    root = logging.getLogger()
    root.handlers[:] = [_stderr_handler()]
    root.setLevel(level.upper())


def _stderr_handler() -> logging.Handler:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter(FORMAT))
    return handler


def name_process(process_name: str) -> None:
    """Log as ``process_name`` from here, to where the parent did."""
    multiprocessing.current_process().name = process_name


def pair() -> tuple[socket.socket, socket.socket]:
    """The P's end and the service's end of a new connection."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    return ours, theirs


def attach(sock: socket.socket, process_name: str) -> SocketHandler:
    """Send whatever this process logs, as ``process_name``, through ``sock`` and nowhere else. Starts no thread."""
    name_process(process_name)
    handler = SocketHandler(PacketQueue(sock), _stderr_handler())
    logging.getLogger().handlers[:] = [handler]
    return handler


def receive(sock: socket.socket) -> threading.Thread:
    """Log here what comes through ``sock``. The thread that does it ends when the other end is closed, by will or by death."""
    handler = SocketHandler(PacketQueue(sock), _Forward())
    return handler.start_receiving()


class _Forward(logging.Handler):
    """Hands a record to this process's own handlers, each of which locks, formats and filters for itself."""

    def emit(self, record: logging.LogRecord) -> None:
        logging.getLogger().handle(record)


class PacketQueue:
    """What MultiProcessingHandler needs of a queue, over one end of a SOCK_SEQPACKET pair."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.lost = 0

    def put_nowait(self, record: logging.LogRecord) -> None:
        """Send ``record``, cut to the size of a packet. Waits at most SEND_TIMEOUT_S for the service to read, and not at all once it has not."""
        if self.lost:
            record.msg = f"[{self.lost} records lost before this one] {record.msg}"
        self.lost = 0 if self._send(encode(record)) else self.lost + 1

    def _send(self, packet: bytes) -> bool:
        # Not with the time at once: that waits until three quarters of the socket's buffer are free.
        for timeout in (0.0,) if self.lost else (0.0, SEND_TIMEOUT_S):
            self.sock.settimeout(timeout)
            with contextlib.suppress(BlockingIOError, TimeoutError):
                self.sock.send(packet)
                return True
        return False

    def get(self, timeout: float) -> logging.LogRecord:
        """The next record. Raises ``queue.Empty`` after ``timeout`` seconds, EOFError when the sender is gone."""
        self.sock.settimeout(timeout)
        try:
            packet = self.sock.recv(2 * MAX_PACKET)
        except TimeoutError:
            raise queue.Empty from None
        if not packet:
            raise EOFError
        return decode(packet)

    def qsize(self) -> int:
        return 0

    def close(self) -> None:
        self.sock.close()

    def join_thread(self) -> None:
        """There is none: sending is done in place."""


class SocketHandler(MultiProcessingHandler):  # type: ignore[misc]
    """MultiProcessingHandler whose queue is a socket and whose thread is started only where records arrive."""

    def __init__(self, packets: PacketQueue, sub_handler: logging.Handler) -> None:
        # Not the parent's constructor: it makes a queue with a lock and starts a thread.
        logging.Handler.__init__(self)
        self.sub_handler = sub_handler
        self.queue = packets
        self._is_closed = False
        self._receive_thread: threading.Thread | None = None

    def _send(self, record: logging.LogRecord) -> None:
        try:
            self.queue.put_nowait(record)
        except (BrokenPipeError, ConnectionResetError):
            self.sub_handler.emit(record)  # the service is gone

    def start_receiving(self) -> threading.Thread:
        """Begin to hand what arrives to the sub-handler, in a thread."""
        self._receive_thread = threading.Thread(target=self._receive, name="log-receiver", daemon=True)
        self._receive_thread.start()
        return self._receive_thread

    def close(self) -> None:
        """End the thread, if there is one, and close the socket."""
        if self._is_closed:
            return
        self._is_closed = True
        if self._receive_thread:
            self._receive_thread.join(5.0)
        self.queue.close()
        logging.Handler.close(self)


def encode(record: logging.LogRecord) -> bytes:
    """The packet of ``record``, whose message is already formatted: at most MAX_PACKET bytes, texts cut where needed."""
    state = {name: _short(getattr(record, name, None)) for name in _FIELDS}
    texts = {name: str(value) for name in _TEXTS if (value := getattr(record, name, None)) is not None}
    packet = json.dumps(state | texts).encode()
    room = MAX_PACKET
    while len(packet) > MAX_PACKET:
        # A character takes up to 12 bytes in JSON; halving the room finds a length that fits, whatever the text is made of.
        room //= 2
        packet = json.dumps(state | {name: _cut(text, room) for name, text in texts.items()}).encode()
    return packet


def _short(value: object) -> object:
    return value[:MAX_NAME] if isinstance(value, str) else value


def _cut(text: str, length: int) -> str:
    return text if len(text) <= length else text[:length] + _CUT


def decode(packet: bytes) -> logging.LogRecord:
    """The record in ``packet``."""
    return logging.makeLogRecord(json.loads(packet))


class Receivers:
    """The threads that receive, so that the end of the service can wait for the last records."""

    def __init__(self) -> None:
        self._threads: list[threading.Thread] = []

    def add(self, sock: socket.socket) -> None:
        self._threads = [thread for thread in self._threads if thread.is_alive()]
        self._threads.append(receive(sock))

    def drain(self, seconds: float) -> None:
        """Wait until every sender is gone and everything it sent is written, at most ``seconds``."""
        deadline = time.monotonic() + seconds
        for thread in self._threads:
            thread.join(max(deadline - time.monotonic(), 0))
