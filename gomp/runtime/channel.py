"""Messages between the coordinator and everybody else: a JSON header and a payload of bytes, over a Unix stream socket.

The coordinator never waits for a peer: it reads what is there and keeps what a peer does not take. Payloads (pickled functions and results) pass
through it unread.
"""

from __future__ import annotations

import json
import select
import socket
import struct
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from gomp.errors import GompError, MessageTooLarge, RuntimeLost

_FRAME = struct.Struct("<II")
MAX_HEADER = 1 << 20
MAX_PAYLOAD = 1 << 30
_READ = 1 << 18
_MAX_READS = 64
_MAX_DESCRIPTORS = 8


@dataclass(frozen=True)
class Message:
    """``op`` says what it is; ``fields`` is the rest of the header."""

    op: str
    fields: dict[str, Any] = field(default_factory=dict)
    payload: bytes = b""

    def __getitem__(self, name: str) -> Any:
        return self.fields[name]


def check_answer(message: Message) -> Message:
    """What the coordinator said, unless it is that the runtime ends (RuntimeLost) or that it cannot do what it was asked (GompError)."""
    if message.op == "lost":
        raise RuntimeLost(message["why"])
    if message.op == "error":
        raise GompError(message["text"])
    return message


class Channel:
    """One end. ``receive`` and ``send`` never block; ``next``, ``fill`` and ``drain`` do.

    One thread uses it at a time; ``fill`` and ``pop`` leave alone what ``send`` and ``drain`` use, so that one may receive while another sends.
    Only an end that ``takes_descriptors`` has the kernel install what its peer attaches: nobody else can be made to run out of them.
    """

    def __init__(self, sock: socket.socket, takes_descriptors: bool = False) -> None:
        sock.setblocking(False)
        self.sock = sock
        self._takes_descriptors = takes_descriptors
        self._in = bytearray()
        self._out: deque[tuple[memoryview, list[int]]] = deque()
        self.descriptors: list[int] = []  # received, in order; whoever takes one owns it
        self._ready: deque[Message] = deque()
        self.explain: Callable[[str], str] = (
            str  # what is said of a connection that is gone, with what has come of the peer
        )

    def fileno(self) -> int:
        return self.sock.fileno()

    def close(self) -> None:
        self.sock.close()

    @property
    def is_flushed(self) -> bool:
        return not self._out

    def send(self, op: str, payload: bytes = b"", descriptors: Sequence[int] = (), **fields: Any) -> None:
        """Queue a message, and write what the peer takes now. Raises RuntimeLost if it hung up, MessageTooLarge.

        ``descriptors`` arrive in the peer's list with the first byte of the message; they stay open here until then.
        """
        header = json.dumps({"op": op, **fields}).encode()
        for part, size, limit in (("header", len(header), MAX_HEADER), ("payload", len(payload), MAX_PAYLOAD)):
            if size > limit:
                raise MessageTooLarge(f"the {part} of a message {op!r} has {size:,} bytes: more than {limit:,}")
        frame = _FRAME.pack(len(header), len(payload)) + header + payload
        self._out.append((memoryview(frame), list(descriptors)))
        self.flush()

    def flush(self) -> None:
        try:
            while self._out:
                data, descriptors = self._out[0]
                sent = socket.send_fds(self.sock, [data], descriptors) if descriptors else self.sock.send(data)
                self._out[0] = (data[sent:], [])
                if sent == len(data):
                    self._out.popleft()
        except BlockingIOError:
            pass
        except OSError as error:
            raise RuntimeLost(self.explain(f"the connection to the runtime is gone: {error.strerror}")) from None

    def drain(self) -> None:
        """Wait until the peer has taken all that is queued. Raises RuntimeLost."""
        while not self.is_flushed:
            poller = select.poll()
            poller.register(self.sock, select.POLLOUT)
            poller.poll()
            self.flush()

    def receive(self) -> list[Message]:
        """The whole messages that have arrived; some of them, from a peer that writes faster than we read.

        Raises RuntimeLost when the peer hung up or does not speak our language.
        """
        self._read_messages()
        messages = list(self._ready)
        self._ready.clear()
        return messages

    def fill(self, timeout_s: float | None) -> None:
        """Read what has arrived, for :meth:`pop`, or arrives within ``timeout_s``. Raises RuntimeLost as :meth:`receive` does."""
        if self._ready:
            return
        poller = select.poll()
        poller.register(self.sock, select.POLLIN)
        if poller.poll(None if timeout_s is None else max(timeout_s, 0) * 1000):
            self._read_messages()

    def pop(self) -> Message | None:
        """The next message that has been read."""
        return self._ready.popleft() if self._ready else None

    def _read_messages(self) -> None:
        for _ in range(_MAX_READS):
            try:
                data = self._read()
            except BlockingIOError:
                break
            except OSError as error:
                raise RuntimeLost(self.explain(f"the connection to the runtime is gone: {error.strerror}")) from None
            if not data:
                if self._ready or self._parse():
                    break
                raise RuntimeLost(self.explain("the runtime hung up"))
            self._in += data
        self._parse()

    def _read(self) -> bytes:
        if not self._takes_descriptors:
            return self.sock.recv(_READ)
        data, descriptors, _, _ = socket.recv_fds(self.sock, _READ, _MAX_DESCRIPTORS)
        self.descriptors += descriptors
        return data

    def next(self, timeout_s: float | None = None) -> Message | None:
        """The next message, or None after ``timeout_s``. Sends what is queued meanwhile."""
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        while not self._ready:
            left = None if deadline is None else max(deadline - time.monotonic(), 0)
            poller = select.poll()
            poller.register(self.sock, select.POLLIN | (0 if self.is_flushed else select.POLLOUT))
            events = poller.poll(None if left is None else left * 1000)
            if not events:
                return None
            self.flush()
            if events[0][1] & ~select.POLLOUT:
                self._ready.extend(self.receive())
        return self._ready.popleft()

    def _parse(self) -> bool:
        """Cut whole messages from the input; whether there was one."""
        found = False
        while len(self._in) >= _FRAME.size:
            header_size, payload_size = _FRAME.unpack_from(self._in)
            if header_size > MAX_HEADER or payload_size > MAX_PAYLOAD:
                raise RuntimeLost("the peer does not speak gomp's protocol")
            end = _FRAME.size + header_size + payload_size
            if len(self._in) < end:
                break
            header = _load_header(self._in[_FRAME.size : _FRAME.size + header_size])
            self._ready.append(Message(header.pop("op"), header, bytes(self._in[_FRAME.size + header_size : end])))
            del self._in[:end]
            found = True
        return found


def _load_header(data: bytearray) -> dict[str, Any]:
    """The header of a message: a JSON object whose ``op`` is a text. Raises RuntimeLost."""
    try:
        header = json.loads(data)
    except (ValueError, RecursionError):
        header = None
    if not isinstance(header, dict) or not isinstance(header.get("op"), str):
        raise RuntimeLost("the peer does not speak gomp's protocol")
    return header
