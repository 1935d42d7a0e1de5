"""A process's side of its connection to the coordinator: starting goroutines, and waiting for them. From any thread (see ``mailbox``).

A goroutine here is a call that runs to completion on the P the coordinator gives it to. A thread of a P that waits for one runs what is queued on
that P meanwhile, so programs may start as many as they like.

References among the arguments are in transit until the goroutine has ended; then what it has not received is taken back. A result that nobody
waits for any more is unpickled and dropped if there are references in it, which the P that made it would keep for ever.
"""

from __future__ import annotations

import contextlib
import math
import threading
import time
from collections.abc import Callable
from typing import Any

from gomp.core.mutator import waitcalls
from gomp.core.sched import parking
from gomp.core.sched.status import shut_down_if_orphaned
from gomp.core.shm import layout
from gomp.core.shm.records import RUNTIME, runtime_dtype, view
from gomp.errors import RuntimeLost
from gomp.runtime import coroutines, localgoroutines, mapping, transit
from gomp.runtime.channel import Channel, Message, check_answer
from gomp.runtime.mailbox import Mailbox
from gomp.runtime.programs import Call, load_outcome
from gomp.runtime.room import check_room
from gomp.runtime.stillness import Stillness
from gomp.runtime.uninterrupted import uninterrupted

_NAP_S = 0.1
_SOON_S, _LATEST_S = 1.0, 10.0
NO_REQUEST, OF_GOROUTINE = 0, -1  # numbers that none has


def _is_main() -> bool:
    return threading.current_thread() is threading.main_thread()


class Goroutine:
    """A started call. ``wait`` gives its result or raises what it raised."""

    def __init__(self, peer: Peer, request: int, name: str) -> None:
        self._peer = peer
        self._request = request
        self.name = name

    def wait(self, timeout: float | None = None) -> Any:
        """The call's result, once. Raises TimeoutError after ``timeout`` seconds, WorkerDied if its P died."""
        return self._peer.wait(self._request, timeout)

    @uninterrupted
    def __del__(self) -> None:
        try:
            dropped = self._peer.dropped
            dropped += (self._request,)
        except AttributeError:  # who was making it was interrupted
            return

    def __reduce__(self) -> Any:
        raise TypeError("a goroutine is waited for in the process that started it: send what its wait() has given")

    def __repr__(self) -> str:
        return f"<goroutine {self.name}>"


class Peer:
    """The connection of this process."""

    def __init__(self, channel: Channel) -> None:
        self.mailbox = Mailbox(channel, self.arrived, self.received)
        self._arguments: dict[int, list[transit.Sent]] = {}  # by request, the references among them
        self._drops = False  # some thread does what _drop_unwanted says
        self.dropped: list[int] = []  # requests of goroutines for which nobody waits any more
        self.stillness = Stillness()
        self._runs_python = False  # goroutines whose body is Python have their turn, in the middle of a wait
        self._look = 0  # number of the look of the coordinator's that is to be answered
        self._deadlock: tuple[frozenset[int], str] = (
            frozenset(),
            "",
        )  # ids of goroutines that wait for ever, and what is said of it
        self.deadlocks = 0  # of which this process was told

    def go(self, call: Call) -> Goroutine:
        check_room()
        self._drop_unwanted()
        request = self.mailbox.number()
        try:
            with transit.parcel() as sent:
                payload = call.dumps()
                if sent:
                    self._arguments[request] = sent  # before it is sent: its end may be told to another thread
                self.mailbox.post("go", payload, request=request, name=str(call))
        except BaseException:
            self._arguments.pop(request, None)
            self.mailbox.forget(request)
            raise
        return Goroutine(self, request, str(call))

    def wait(self, request: int, timeout: float | None = None) -> Any:
        check_room()
        deadline = None if timeout is None else time.monotonic() + timeout
        while (done := self._take(request, None if deadline is None else deadline - time.monotonic())) is None:
            if not self.mailbox.is_expected(request):
                raise RuntimeError("the result of this goroutine has been taken already")
            if not self._run_queued() and deadline is not None and time.monotonic() >= deadline:
                raise TimeoutError(f"the goroutine has not ended within {timeout} s")
        self._drop_unwanted()
        try:
            result = load_outcome(done["ok"], done.payload)
        except Exception:  # what it has raised
            self.mailbox.done(request)
            raise
        self.mailbox.done(
            request
        )  # not before: who is interrupted has got nothing, and when nobody waits any more it is dropped as a whole
        return result

    def ask(self, op: str, timeout: float = 120.0, **fields: Any) -> Message:
        """Send a request to the coordinator itself and return its answer."""
        check_room()
        request = self.mailbox.number()
        try:
            self.mailbox.post(op, request=request, **fields)
            answer = self.mailbox.take(request, timeout)
            self.mailbox.done(request)
        finally:
            self.mailbox.forget(request)
        if answer is None:
            raise RuntimeLost(f"the coordinator has not answered {op!r} within {timeout:.0f} s")
        del answer.fields["request"]
        return check_answer(answer)

    # --- messages and waits -------------------------------------------------------------------------------------------

    def arrived(self, message: Message) -> None:
        """What is done with a message at once, by the thread that has received it for all."""
        if message.op == "settle":
            transit.outbox.settle()
        elif message.op == "done":
            transit.outbox.revoke(self._arguments.pop(message["request"], ()))
        elif message.op == "look":
            self._look = message["n"]
        elif message.op == "deadlock":
            self._deadlock = frozenset(message["ids"]), message["text"]
            self.deadlocks += 1
        elif "request" not in message.fields:
            check_answer(message)

    def received(self) -> None:
        """Called by a thread that has received for all."""
        if not _is_main():
            parking.ring(layout.SELF_BASE)  # the main thread waits for more than messages

    def wait_until(self, is_done: Callable[[], bool], timeout: float | None) -> None:
        """Wait until ``is_done``, which somebody makes true who then wakes this P; at most ``timeout`` seconds. Raises RuntimeLost."""
        check_room()
        deadline = math.inf if timeout is None else time.monotonic() + timeout
        if _is_main():
            while not is_done() and (left := deadline - time.monotonic()) > 0:
                self._wait(OF_GOROUTINE, left, is_done)
                self._run_queued()
            return
        patience: Patience | None = None  # of a wait that is not over at once
        before = self.stillness.wait_of_this_thread()
        try:
            while True:
                seen, left = parking.wakes(), deadline - time.monotonic()
                self._look_aside()
                if is_done() or left <= 0:
                    return
                if patience is not None:
                    self._tell_of(patience, left)
                elif deadline == math.inf:
                    patience = Patience()
                    self.stillness.begin(is_done)
                self._sleep(seen, left)
        finally:
            self.stillness.end(before)

    def _take(self, request: int, timeout: float | None) -> Message | None:
        """The answer to ``request``, or None: after ``timeout`` seconds, or because there is something else to do."""
        if _is_main():
            return self._wait(request, math.inf if timeout is None else timeout)
        before = self.stillness.wait_of_this_thread()
        try:
            if timeout is None:
                self.stillness.begin(lambda: self._has_more_to_do(request) or self.mailbox.has_come(request))
            return self.mailbox.take(request, timeout, lambda: self._has_more_to_do(request))
        finally:
            self.stillness.end(before)

    def _wait(self, request: int, timeout: float, is_done: Callable[[], bool] | None = None) -> Message | None:
        """In the main thread: run what is ready while there is no answer to ``request`` and nothing else to do, and neither ``is_done``, by which a
        goroutine is waited for."""
        deadline = time.monotonic() + timeout
        patience: Patience | None = None
        has_napped = False  # most waits are over before this process need say that it waits

        def has_come() -> bool:
            return self._has_more_to_do(request) or (is_done is not None and is_done())

        before = self.stillness.wait_of_this_thread()
        try:
            while True:
                seen = parking.begin_look()
                if is_done is not None and is_done():  # before a look at the socket, which takes longer
                    return None
                answer = self.mailbox.take(request, 0, lambda: self._has_more_to_do(request))
                left = deadline - time.monotonic()
                if answer is not None or has_come() or left <= 0:
                    return answer
                if self._answer_look() or self._run_ready():
                    continue
                if not has_napped:
                    has_napped = True
                    self._park(seen, min(left, _NAP_S))
                    continue
                if patience is None and timeout == math.inf:
                    patience = Patience()
                    self.stillness.begin(
                        lambda: (
                            has_come()
                            or self._runs_python
                            or coroutines.is_any_ready()
                            or self.mailbox.has_come(request)
                        )
                    )
                if patience is None or is_done is None:
                    self._park(seen, left)
                else:
                    self._park(seen, patience.left)
                    self._tell_of(patience, left)
        finally:
            self.stillness.end(before)

    def _tell_of(self, patience: Patience, left: float) -> None:
        """In the middle of a wait for a goroutine that has ``left`` seconds: from time to time say that it is without end."""
        if left == math.inf and patience.is_over():
            self.mailbox.post("waits", seconds=patience.seconds)

    def _run_python(self) -> bool:
        """Let goroutines whose body is Python have their turn; whether any had."""
        self._runs_python = True
        ran = coroutines.run_ready()
        if ran:
            self.stillness.count()
        self._runs_python = False
        return ran

    # --- what differs on a P ------------------------------------------------------------------------------------------

    def _look_aside(self) -> None:
        """In any thread that waits: goroutines that have failed, or need a frame that this process does not know."""

    def _has_more_to_do(self, request: int) -> bool:
        return request > NO_REQUEST and not self.mailbox.is_expected(request)

    def _run_ready(self) -> bool:
        """In the main thread: run goroutines that are ready; whether there is something else to do than to sleep."""
        return self._run_python()

    def _park(self, seen: int, seconds: float) -> None:
        """Sleep, at most so long, until there is something to do."""
        self._sleep(seen, seconds)

    def _run_queued(self) -> bool:
        """Do what else there is to do; whether there was anything."""
        return False

    @staticmethod
    def _sleep(seen: int, seconds: float) -> None:
        if view(runtime_dtype, RUNTIME)[0].xshutdown:
            raise RuntimeLost("the runtime has ended")
        with mapping.asleep():
            waitcalls.sleep_until_woken(seen, int(min(seconds, _NAP_S) * 1e9))
        shut_down_if_orphaned()

    # --- waiting for ever ---------------------------------------------------------------------------------------------

    def _answer_look(self) -> bool:
        """In the main thread, without which no process is still: whether the coordinator wanted to know what this one does; it is told."""
        n, self._look = self._look, 0
        if n:
            state, changes, why = self.stillness.look()
            waits = localgoroutines.waiting_lines()
            self.mailbox.post("looked", n=n, state=state, changes=changes, why=why, waits=waits)
        return n != 0

    @property
    def deadlock(self) -> str:
        """What was said of the last one."""
        return self._deadlock[1]

    def deadlock_of(self, goid: int) -> str:
        """What is said of the goroutine of that id if it waits for ever and nobody runs who could end that; else ""."""
        ids, text = self._deadlock
        return text if goid in ids else ""

    # --- what nobody waits for ----------------------------------------------------------------------------------------

    def _drop_unwanted(self) -> None:
        with contextlib.suppress(IndexError):  # another thread was faster
            while self.dropped:
                self.mailbox.forget(self.dropped.pop())
        while self.mailbox.unwanted and not self._drops:
            self._drops = True
            try:
                _drop_result(self.mailbox.unwanted[0])
                del self.mailbox.unwanted[0]  # without a call: nobody can be interrupted in between
            finally:
                self._drops = False


def _drop_result(done: Message) -> None:
    """Receive and drop what nobody waits for, if the P that made it keeps something for that."""
    if done.fields.get("parcel"):
        with contextlib.suppress(Exception):  # it would have been raised by the wait
            load_outcome(done["ok"], done.payload)


class Patience:
    """Of who waits without end: from time to time the coordinator is to look whether that is for ever, after a second first."""

    def __init__(self) -> None:
        self._begun = time.monotonic()
        self._next = _SOON_S

    @property
    def seconds(self) -> int:
        """For how long it has waited."""
        return int(time.monotonic() - self._begun)

    @property
    def left(self) -> float:
        """Seconds until it is over."""
        return max(self._begun + self._next - time.monotonic(), 0.0)

    def is_over(self) -> bool:
        """Whether it is: then it begins anew, and lasts longer."""
        if self.left > 0:
            return False
        self._next = time.monotonic() - self._begun + min(self._next, _LATEST_S)
        return True
