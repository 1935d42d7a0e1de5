"""A process's connection to the coordinator, used by any of its threads.

Nouns
-----
request    a message that will be answered, by one message with the same number: a "go" by "done", any other by one with its own op, or by "error".
           The numbers are this connection's own.
receiver   the thread that reads the socket. There is one at a time, or none.

Protocol
--------
1. Who sends holds the sending lock until the coordinator has taken all of the message. So messages do not mix, and nothing is left for somebody else
   to send. The coordinator may wait, before it takes it, for what it has answered to be taken: so who has to wait there is the receiver, if nobody
   else is.
2. Who waits looks under the lock whether its answer is there. If not, and nobody receives, it becomes the receiver; else it sleeps.
3. The receiver reads without the lock, for all: it puts each answer where the one who waits for it looks. What is no answer it gives to
   ``arrived``, which neither waits nor calls anything of the user's. Then it gives up its part and wakes all who sleep: if its own answer was not
   among what came, it or another goes on.
4. Who leaves, because its time is over or by a Ctrl-C, has given up its part first. So nobody's answer depends on anybody else's patience.
5. When the connection is gone, or the coordinator says that the runtime is, or this end is closed, everybody who waits and everybody who asks later
   gets that error.

An answer for which nobody waits any more is kept in ``unwanted``. :meth:`Mailbox.forget` may be called in the middle of anything,
by a thread that holds the lock: so it takes none. It stops expecting, then looks for the answer; the receiver puts the answer down, then looks
whether it is expected: one of them finds it.
"""

from __future__ import annotations

import contextlib
import itertools
import socket
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from gomp.errors import RuntimeLost
from gomp.runtime.channel import Channel, Message

_CLOSE_S = 5.0
_NAP_S = 0.01  # of who sends while another receives, who may leave


def _never() -> bool:
    return False


class Mailbox:
    """Requests and their answers. ``arrived(message)`` is told of everything that comes, before whoever waits for it; ``received()`` is called when
    a thread has received for all."""

    def __init__(self, channel: Channel, arrived: Callable[[Message], None], received: Callable[[], None]) -> None:
        self.channel = channel
        self._received = received
        self.unwanted: deque[Message] = deque()
        self._arrived = arrived
        self._numbers = itertools.count(1)
        self._expected: set[int] = set()
        self._answers: dict[int, Message] = {}
        self._lost = ""
        self._make_locks()

    def _make_locks(self) -> None:
        self._sending = threading.Lock()
        self._lock = (
            threading.Lock()
        )  # taken itself: Condition.__enter__ is Python, and Ctrl-C in it would leave the lock taken
        self._changed = threading.Condition(self._lock)
        self._receiver: object = None  # under it: what stands for the wait whose thread receives for all

    def close(self) -> None:
        """End the connection. Returns when no thread uses it any more: its descriptor may then be another file's."""
        with self._lock:
            self._lost = self._lost or "the runtime was closed"
            self._changed.notify_all()
        with contextlib.suppress(OSError):  # the coordinator is gone already
            # A copy of the descriptor in another process must not keep the connection open.
            self.channel.sock.shutdown(socket.SHUT_RDWR)
        with self._lock:
            self._changed.wait_for(lambda: self._receiver is None, _CLOSE_S)
        with self._sending:
            self.channel.close()

    def leave(self) -> None:
        """In a forked child: the connection is its parent's, and so are the threads that may have held the locks."""
        self._make_locks()
        self._lost = "the runtime belongs to the process that this one was forked from"
        self.channel.close()

    # --- sending ------------------------------------------------------------------------------------------------------

    def post(self, op: str, payload: bytes = b"", **fields: Any) -> None:
        """Send a message that needs no answer. Raises RuntimeLost, MessageTooLarge."""
        with self._sending:
            if self._lost:
                raise RuntimeLost(self._lost)
            self.channel.send(op, payload, **fields)
            self._drain()

    def _drain(self) -> None:
        wait = object()
        try:
            while not self.channel.is_flushed:
                if self._lost:
                    raise RuntimeLost(self._lost)
                with self._lock:
                    receives = self._receiver is None
                    if receives:
                        self._receiver = wait
                if self.channel.wait_to_send(receives, None if receives else _NAP_S):
                    self._receive(0)
                elif receives:
                    self._end_receiving()
                self.channel.flush()
        finally:
            if self._receiver is wait:
                self._end_receiving()

    def number(self) -> int:
        """The number of a new request, whose answer is expected from now on, until it is :meth:`done` or forgotten."""
        number = next(self._numbers)
        self._expected.add(number)
        return number

    def done(self, number: int) -> None:
        """Its answer was taken."""
        self._expected.discard(number)
        self._answers.pop(number, None)

    def forget(self, number: int) -> None:
        """Nobody waits for this answer any more."""
        self._expected.discard(number)
        self._reject(number)

    def _reject(self, number: int) -> None:
        answer = self._answers.pop(number, None)
        if answer is not None:
            self.unwanted.append(answer)

    # --- waiting ------------------------------------------------------------------------------------------------------

    def is_expected(self, number: int) -> bool:
        return number in self._expected

    def has_come(self, number: int) -> bool:
        """Whether the answer is there."""
        return number in self._answers

    def take(self, number: int, timeout: float | None, is_enough: Callable[[], bool] = _never) -> Message | None:
        """The answer to request ``number``, which stays until it is :meth:`done` or forgotten; None after ``timeout`` seconds, or if ``is_enough()``
        before it is there. Raises RuntimeLost.

        Without time, too, what has arrived is looked at once: who only asks again and again would never be told.
        """
        wait = object()
        try:
            return self._take(wait, number, timeout, is_enough)
        finally:
            if self._receiver is wait:  # Ctrl-C came between two lines: without this nobody would receive any more
                self._end_receiving()

    def _take(self, wait: object, number: int, timeout: float | None, is_enough: Callable[[], bool]) -> Message | None:
        deadline = None if timeout is None else time.monotonic() + timeout
        has_looked = False
        while True:
            with self._lock:
                answer = self._answers.get(number)
                if answer is not None:
                    return answer
                left = None if deadline is None else deadline - time.monotonic()
                is_over = left is not None and left <= 0
                if is_enough() or (is_over and (has_looked or self._receiver is not None)):
                    return None
                if self._lost:
                    raise RuntimeLost(self._lost)
                if self._receiver is not None:
                    self._changed.wait(left)
                    continue
                self._receiver = wait
            self._receive(left)
            has_looked = True

    def _receive(self, timeout: float | None) -> None:
        """Be the receiver until something has come, or for ``timeout`` seconds."""
        lost = ""
        try:
            self.channel.fill(timeout)
            while (message := self.channel.pop()) is not None:
                if message.op == "lost":
                    lost = message["why"]
                self._deliver(message)
        except RuntimeLost as error:
            lost = str(error)
        finally:
            self._end_receiving(lost)

    def _end_receiving(self, lost: str = "") -> None:
        with self._lock:
            self._lost = self._lost or lost
            self._receiver = None
            self._changed.notify_all()
        self._received()

    def _deliver(self, message: Message) -> None:
        try:
            self._arrived(message)
        finally:
            number = message.fields.get("request")
            if number is not None:
                self._answers[number] = message
                if number not in self._expected:
                    self._reject(number)
