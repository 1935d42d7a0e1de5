"""A process's side of its connection to the coordinator: starting goroutines, and waiting for them.

A goroutine here is a call that runs to completion on the P the coordinator gives it to. A P that waits for one runs what is queued on itself
meanwhile, so programs may start as many as they like.
"""

from __future__ import annotations

import time
from typing import Any

from gomp.errors import RuntimeLost
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

    def __repr__(self) -> str:
        return f"<goroutine {self.name}>"


class Peer:
    """The connection of this process. Only one thread uses it."""

    def __init__(self, channel: Channel) -> None:
        self.channel = channel
        self._requests = 0
        self._done: dict[int, tuple[bool, bytes]] = {}

    def go(self, call: Call) -> Goroutine:
        self._requests += 1
        self.channel.send("go", call.dumps(), request=self._requests, name=str(call))
        return Goroutine(self, self._requests, str(call))

    def wait(self, request: int, timeout: float | None = None) -> Any:
        deadline = None if timeout is None else time.monotonic() + timeout
        while request not in self._done:
            self.step(_NAP_S if deadline is None else max(deadline - time.monotonic(), 0))
            if deadline is not None and time.monotonic() >= deadline and request not in self._done:
                raise TimeoutError(f"the goroutine has not ended within {timeout} s")
        return load_outcome(*self._done.pop(request))

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
        if message.op == "done":
            self._done[message["request"]] = (message["ok"], message.payload)
        else:
            check_answer(message)
