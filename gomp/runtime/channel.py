"""Messages between the coordinator and everybody else: a JSON header and a payload of bytes, over a Unix stream socket.

The coordinator never waits for a peer: it reads what is there and keeps what a peer does not take. Payloads (pickled functions and results) pass
through it unread.

A peer that asks and does not take the answers is *clogged*: it is neither read nor answered until it has taken most of them. So what is kept for it
does not grow with what it asks. What it is told unasked does not count, and results of goroutines count little: who starts many and waits for none
may leave their results where they are.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import select
import socket
import struct
import termios
import time
from array import array
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from gomp.errors import GompError, MessageTooLarge, RuntimeLost

_FRAME = struct.Struct("<II")
MAX_HEADER = 1 << 20
MAX_PAYLOAD = 1 << 30
MOST_TRACE_MS = 3_600_000
MAX_OWED = 1 << 20  # bytes of answers that are kept for a peer
RESULTS_TO_ANSWERS = 64  # so many bytes of results count as one
_READ = 1 << 18
NOBODYS = -1
_INT = struct.Struct("i")
_PEER = struct.Struct("iII")  # the kernel's struct ucred: pid, uid, gid
_MAX_READS = 64
_DESCRIPTORS_SPACE = socket.CMSG_LEN(8 * _INT.size)  # for at most so many at once


@dataclass(frozen=True)
class Message:
    """``op`` says what it is; ``fields`` is the rest of the header."""

    op: str
    fields: dict[str, Any] = field(default_factory=dict)
    payload: bytes = b""

    def __getitem__(self, name: str) -> Any:
        """Raises RuntimeLost if there is no such field: then it is no gomp that has sent this."""
        try:
            return self.fields[name]
        except KeyError:
            raise RuntimeLost(f"the peer does not speak gomp's protocol: its {self.op[:20]!r} has no {name}") from None


def nothing() -> None:
    pass


def check_answer(message: Message) -> Message:
    """What the coordinator said, unless it is that the runtime ends (RuntimeLost) or that it cannot do what it was asked (GompError)."""
    if message.op == "lost":
        raise RuntimeLost(message["why"])
    if message.op == "error":
        raise GompError(message["text"])
    return message


class Channel:
    """One end. ``receive`` and ``send`` never block; ``next``, ``fill`` and ``wait_to_send`` do.

    One thread uses it at a time; ``fill`` and ``pop`` leave alone what ``send``, ``flush`` and ``wait_to_send`` use, so that one may receive while
    another sends.
    Only an end that ``takes_descriptors`` has the kernel install what its peer attaches: nobody else can be made to run out of them.
    """

    def __init__(self, sock: socket.socket, takes_descriptors: bool = False) -> None:
        sock.setblocking(False)
        self.sock = sock
        self.peer = "a process"  # in words
        self.p = NOBODYS  # the P that the peer's process has borrowed
        self._takes_descriptors = takes_descriptors
        self._in = bytearray()
        self._out: deque[tuple[memoryview, list[int], int]] = deque()  # ... and how many bytes of answers it counts as
        self._owed = 0
        self.descriptors: list[int] = []  # received, in order; whoever takes one owns it
        self._ready: deque[Message] = deque()
        self.explain: Callable[[str], str] = (
            str  # what is said of a connection that is gone, with what has come of the peer
        )
        self.written: Callable[[], None] = nothing  # called when the peer has something to read
        self._is_told = True

    def fileno(self) -> int:
        return self.sock.fileno()

    def close(self) -> None:
        """With the descriptors that nobody has taken."""
        self.sock.close()
        while self.descriptors:
            os.close(self.descriptors.pop())

    @property
    def is_flushed(self) -> bool:
        return not self._out

    @property
    def is_clogged(self) -> bool:
        """Whether the peer has so many answers to take that it is to have no more."""
        return self._owed > MAX_OWED

    @property
    def has_unheard(self) -> bool:
        """Whether there is something that was read, and put back."""
        return bool(self._ready)

    def send(self, op: str, payload: bytes = b"", descriptors: Sequence[int] = (), **fields: Any) -> None:
        """Queue a message, and write what the peer takes now. Raises RuntimeLost if it hung up, MessageTooLarge.

        ``descriptors`` arrive in the peer's list with the first byte of the message; they stay open here until then.
        """
        self._queue(_frame(op, payload, fields), list(descriptors), 0)

    def answer(self, op: str, descriptors: Sequence[int] = (), **fields: Any) -> None:
        """As :meth:`send`, what the peer has asked for."""
        frame = _frame(op, b"", fields)
        self._queue(frame, list(descriptors), len(frame))

    def give_result(self, op: str, payload: bytes, **fields: Any) -> None:
        """As :meth:`send`, the result of a goroutine that the peer has started."""
        frame = _frame(op, payload, fields)
        self._queue(frame, [], len(frame) // RESULTS_TO_ANSWERS)

    def _queue(self, frame: bytes, descriptors: list[int], owed: int) -> None:
        queued = ((memoryview(frame), descriptors, owed),)
        self._out += queued  # with the next line, one step
        self._owed += owed
        self.flush()

    def flush(self) -> None:
        """Write what the peer takes now. Raises RuntimeLost if it hung up.

        Ctrl-C may end it anywhere but between the writing of a piece, which the iterator does, and the note that it is written: Python looks for
        signals after calls, and where a loop begins anew.
        """
        try:
            self._tell_written()
            while self._out:
                data, descriptors, owed = self._out[0]
                for n in self._writing(data, descriptors):
                    rest = data[n:]
                    self._is_told = False
                    if rest:
                        self._out[0] = (rest, [], owed)
                    else:
                        del self._out[0]
                        self._owed -= owed
                self._tell_written()
        except BlockingIOError:
            pass
        except OSError as error:
            raise RuntimeLost(self.explain(f"the connection to the runtime is gone: {error.strerror}")) from None

    def _writing(self, data: memoryview, descriptors: list[int]) -> Iterator[int]:
        """Of what the next step writes, the number of bytes."""
        if not descriptors:
            return map(self.sock.send, (data,))
        attached = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array("i", descriptors))]
        return map(self.sock.sendmsg, ([data],), (attached,))

    def _tell_written(self) -> None:
        if not self._is_told:
            self.written()
            self._is_told = True

    def wait_to_send(self, or_to_receive: bool, timeout_s: float | None) -> bool:
        """Wait until the peer takes more of what is queued ``or_to_receive`` something; whether there is something to receive."""
        poller = select.poll()
        poller.register(self.sock, select.POLLOUT | (select.POLLIN if or_to_receive else 0))
        events = poller.poll(None if timeout_s is None else timeout_s * 1000)
        return bool(events) and or_to_receive and bool(events[0][1] & ~select.POLLOUT)

    def receive(self) -> list[Message]:
        """The whole messages that have arrived; some of them, from a peer that writes faster than we read, and none from one that is clogged.

        Raises RuntimeLost when the peer hung up or does not speak our language.
        """
        if self.is_clogged:
            self.flush()
        if self.is_clogged:
            return []
        self._read_messages()
        return self._take_ready()

    def put_back(self, messages: Iterable[Message]) -> None:
        """Receive these again later, before all others."""
        self._ready.extendleft(reversed(list(messages)))

    def receive_rest(self) -> list[Message]:
        """The whole messages that a peer has left which has died: not what others go on to write, to whom it has given its end."""
        left: int = _INT.unpack(fcntl.ioctl(self.sock, termios.FIONREAD, bytes(_INT.size)))[0]
        with contextlib.suppress(OSError, RuntimeLost):  # it died in the middle of what it said
            while left > 0 and (data := self._read(min(left, _READ))):
                self._in += data
                left -= len(data)
            self._parse()
        return self._take_ready()

    @property
    def has_other_end(self) -> bool:
        """Whether somebody has the peer's end: of a peer that has died, whoever it has given it to."""
        try:
            return bool(self.sock.recv(1, socket.MSG_PEEK))
        except BlockingIOError:
            return True
        except OSError:
            return False

    def _take_ready(self) -> list[Message]:
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
        """Of those that are there, some: a peer is not to keep its reader busy with many small ones either."""
        reads = 0
        while not self._ready and reads < _MAX_READS:
            reads += 1
            try:
                data = self._read()
            except BlockingIOError:
                break
            except OSError as error:
                raise RuntimeLost(self.explain(f"the connection to the runtime is gone: {error.strerror}")) from None
            if not data:
                raise RuntimeLost(self.explain("the runtime hung up"))
            self._in += data
            self._parse()

    def _read(self, size: int = _READ) -> bytes:
        if not self._takes_descriptors:
            return self.sock.recv(size)
        # socket.recv_fds takes flags and leaves them out
        data, attached, flags, _ = self.sock.recvmsg(size, _DESCRIPTORS_SPACE, socket.MSG_CMSG_CLOEXEC)
        for _, _, rights in attached:  # SCM_RIGHTS: nothing else is asked for
            self.descriptors += array("i", rights)
        if flags & socket.MSG_CTRUNC:
            raise RuntimeLost("this process may not open what the runtime hands it: raise `ulimit -n`")
        return data

    def next(self, timeout_s: float | None = None) -> Message | None:
        """The next message, or None after ``timeout_s``. Sends what is queued meanwhile.

        What a peer has said before it hung up is heard, even where something could not be sent to it: it says why.
        """
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        while not self._ready:
            left = None if deadline is None else max(deadline - time.monotonic(), 0)
            poller = select.poll()
            poller.register(self.sock, select.POLLIN | (0 if self.is_flushed else select.POLLOUT))
            events = poller.poll(None if left is None else left * 1000)
            if not events:
                return None
            try:
                self.flush()
            except RuntimeLost:
                if not events[0][1] & select.POLLIN:
                    raise
            if events[0][1] & ~select.POLLOUT:
                self._ready.extend(self.receive())
        return self._ready.popleft()

    def _parse(self) -> None:
        """Cut whole messages from the input."""
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


def _frame(op: str, payload: bytes, fields: dict[str, Any]) -> bytes:
    """Raises MessageTooLarge."""
    header = json.dumps({"op": op, **fields}).encode()
    for part, size, limit in (("header", len(header), MAX_HEADER), ("payload", len(payload), MAX_PAYLOAD)):
        if size > limit:
            raise MessageTooLarge(f"the {part} of a message {op!r} has {size:,} bytes: more than {limit:,}")
    return _FRAME.pack(len(header), len(payload)) + header + payload


def _load_header(data: bytearray) -> dict[str, Any]:
    """The header of a message: a JSON object whose ``op`` is a text. Raises RuntimeLost."""
    try:
        header = json.loads(data)
    except (ValueError, RecursionError):
        header = None
    if not isinstance(header, dict) or not isinstance(header.get("op"), str):
        raise RuntimeLost("the peer does not speak gomp's protocol")
    return header


def pid_of(channel: Channel) -> int:
    """The process that made the peer's end of the connection; 0 if its number means nothing in this process's namespace."""
    return _credentials(channel.sock)[0]


def is_ours(sock: socket.socket) -> bool:
    """Whether a process of this user made the peer's end of the connection."""
    return _credentials(sock)[1] == os.getuid()


def _credentials(sock: socket.socket) -> tuple[int, int]:
    """pid and uid."""
    pid, uid, _ = _PEER.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size))
    return int(pid), int(uid)
