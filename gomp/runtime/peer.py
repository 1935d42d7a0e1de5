"""A process's side of its connection to the coordinator: starting goroutines, and waiting for them.

A goroutine here is a call that runs to completion on the P the coordinator gives it to. A P that waits for one runs what is queued on itself
meanwhile, so programs may start as many as they like.

References among the arguments are in transit until the goroutine has ended; then what it has not received is taken back. A result that nobody
waits for any more is unpickled and dropped if there are references in it, which the P that made it would keep for ever.
"""

from __future__ import annotations

import contextlib
import time
from typing import Any

from gomp.errors import RuntimeLost
from gomp.runtime import transit
from gomp.runtime.channel import Channel, Message, check_answer
from gomp.runtime.programs import Call, load_outcome

_NAP_S = 0.5


class Goroutine:
    """A started call. ``wait`` gives its result or raises what it raised."""

    def __init__(self, peer: Peer, request: int, name: str) -> None:
        self._peer = peer
        self._request = request
        self.name = name

    def wait(self, timeout: float | None = None) -> Any:
        """The call's result. Raises TimeoutError after ``timeout`` seconds, WorkerDied if its P died."""
        return self._peer.wait(self._request, timeout)

    def __del__(self) -> None:
        self._peer.forget(self._request)

    def __repr__(self) -> str:
        return f"<goroutine {self.name}>"


class Peer:
    """The connection of this process. Only one thread uses it."""

    def __init__(self, channel: Channel) -> None:
        self.channel = channel
        self._requests = 0
        self._done: dict[int, Message] = {}
        self._awaited: set[int] = set()
        self._unwanted: list[int] = []  # of those that are done
        self._arguments: dict[int, list[transit.Sent]] = {}  # the references among them

    def go(self, call: Call) -> Goroutine:
        self._drop_unwanted()
        self._requests += 1
        request = self._requests
        with transit.parcel() as sent:
            self.channel.send("go", call.dumps(), request=request, name=str(call))
        if sent:
            self._arguments[request] = sent
        self._awaited.add(request)
        return Goroutine(self, request, str(call))

    def forget(self, request: int) -> None:
        """Nobody waits for this goroutine any more. From ``__del__``, in the middle of anything, so this only notes it."""
        self._awaited.discard(request)
        if request in self._done:
            self._unwanted.append(request)

    def wait(self, request: int, timeout: float | None = None) -> Any:
        deadline = None if timeout is None else time.monotonic() + timeout
        while request not in self._done:
            self.step(_NAP_S if deadline is None else max(deadline - time.monotonic(), 0))
            if deadline is not None and time.monotonic() >= deadline and request not in self._done:
                raise TimeoutError(f"the goroutine has not ended within {timeout} s")
        done = self._done.pop(request)
        self._awaited.discard(request)
        return load_outcome(done["ok"], done.payload)

    def step(self, timeout: float | None) -> None:
        """Handle the next message, if one comes within ``timeout`` seconds."""
        message = self.channel.next(timeout)
        if message is not None:
            self.handle(message)

    def ask(self, op: str, timeout: float = 120.0, **fields: Any) -> Message:
        """Send a request to the coordinator itself and return its answer, which has the same op."""
        self.channel.send(op, **fields)
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            message = self.channel.next(max(deadline - time.monotonic(), 0))
            if message is not None and message.op == op:
                return message
            if message is not None:
                self.handle(message)
        raise RuntimeLost(f"the coordinator has not answered {op!r} within {timeout:.0f} s")

    def handle(self, message: Message) -> None:
        if message.op == "settle":
            transit.outbox.settle()
        elif message.op == "done":
            self._finish(message)
        else:
            check_answer(message)

    def _finish(self, done: Message) -> None:
        request = done["request"]
        if sent := self._arguments.pop(request, None):
            transit.outbox.revoke(sent)
        if request in self._awaited:
            self._done[request] = done
        else:
            _drop_result(done)
        self._drop_unwanted()

    def _drop_unwanted(self) -> None:
        while self._unwanted:
            _drop_result(self._done.pop(self._unwanted.pop()))


def _drop_result(done: Message) -> None:
    """Receive and drop what nobody waits for, if the P that made it keeps something for that."""
    if done["parcel"]:
        with contextlib.suppress(Exception):  # it would have been raised by the wait
            load_outcome(done["ok"], done.payload)
