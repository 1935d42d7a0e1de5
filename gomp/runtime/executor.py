"""``gomp.Executor``: a ``concurrent.futures.Executor`` whose tasks run on the Ps and share the heap with the script.

It has a connection to the coordinator of its own, so what the script's threads do with ``rt.run`` meanwhile does not concern it, nor it them.
Calls wait here, where they can be cancelled, until a P is to be had: as many are on their way or running as there are Ps, which each answer says
anew. One thread sleeps in ``poll`` until a call is submitted or the coordinator says that one has ended; it sends the next, and resolves the future.
Callbacks run in it. All of that is left to the thread, and whoever submits only wakes it: Ctrl-C comes to the main thread alone, and what it ends
there is nothing that must be whole.

Arguments are pickled when the call is sent, not when it is submitted: references and arrays in them are in transit only that long.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import os
import select
import threading
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent import futures
from dataclasses import dataclass, field
from typing import Any, ParamSpec, TypeVar

from gomp.errors import RuntimeLost
from gomp.runtime import current, transit
from gomp.runtime.channel import Channel, Message, check_answer
from gomp.runtime.joined import Joined
from gomp.runtime.programs import Call, load_outcome

__all__ = ["Executor"]

A = ParamSpec("A")
T = TypeVar("T")


class Executor(futures.Executor):
    """Runs calls on the Ps of ``rt``. A task that raises gives its future that exception, one whose P dies gives it ``WorkerDied``."""

    def __init__(self, rt: Joined | None = None) -> None:
        if not isinstance(rt, Joined):
            raise TypeError(
                "gomp.Executor(rt) needs the runtime whose Ps run its tasks, of gomp.Runtime or gomp.attach; a program on a P starts goroutines "
                "with gomp.go"
            )
        self._tasks = _Tasks(rt.open_channel(), current.num_procs())
        self._thread = threading.Thread(target=self._tasks.serve, name="gomp-executor", daemon=True)
        self._thread.start()
        weakref.finalize(self, self._tasks.end).atexit = False

    def submit(self, fn: Callable[A, T], /, *args: A.args, **kwargs: A.kwargs) -> futures.Future[T]:
        """Have ``fn(*args, **kwargs)`` called on a P; its future."""
        return self._tasks.add(Call(fn, args, kwargs))

    def map(
        self, fn: Callable[..., T], *iterables: Iterable[Any], timeout: float | None = None, chunksize: int = 1
    ) -> Iterator[T]:
        """As the built-in ``map``, with ``chunksize`` calls in one task."""
        if chunksize < 1:
            raise ValueError(f"chunksize is at least 1, not {chunksize}")
        if chunksize == 1:
            return super().map(fn, *iterables, timeout=timeout)
        chunks = _chunks(zip(*iterables, strict=False), chunksize)
        return itertools.chain.from_iterable(super().map(functools.partial(_run_chunk, fn), chunks, timeout=timeout))

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no more calls. What was submitted is still done, unless ``cancel_futures``: then only what has been sent to a P."""
        self._tasks.end(cancel_futures)
        if wait:
            self._thread.join()

    def __reduce__(self) -> Any:
        raise TypeError(
            "an executor stays in the script that made it: a task starts others with gomp.go, or returns what is to be done next"
        )


def _chunks(rows: Iterable[tuple[Any, ...]], size: int) -> Iterator[list[tuple[Any, ...]]]:
    rows = iter(rows)
    while chunk := list(itertools.islice(rows, size)):
        yield chunk


def _run_chunk(fn: Callable[..., T], chunk: list[tuple[Any, ...]]) -> list[T]:
    return [fn(*row) for row in chunk]


@dataclass
class _Task:
    call: Call
    future: futures.Future[Any] = field(default_factory=futures.Future)
    sent: list[transit.Sent] = field(default_factory=list)


class _Tasks:
    """What an executor shares with its thread, which must not keep the executor itself."""

    def __init__(self, channel: Channel, procs: int) -> None:
        self._channel = channel
        self._lock = threading.Lock()
        self._wake_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._pid = os.getpid()
        # under the lock
        self._waiting: deque[_Task] = deque()
        self._ends = False
        self._lost: str | None = None  # why nothing is answered any more; no exception: its traceback keeps frames
        # the thread's
        self._running: dict[int, _Task] = {}
        self._requests = 0
        self._procs = procs

    def add(self, call: Call) -> futures.Future[Any]:
        if os.getpid() != self._pid:
            raise RuntimeLost("this executor belongs to the process that this one was forked from")
        task = _Task(call)
        with self._lock:
            if self._lost is not None:
                raise RuntimeLost(self._lost)
            if self._ends:
                raise RuntimeError("cannot schedule new futures after shutdown")
            self._wake()
            self._waiting.append(task)
        return task.future

    def end(self, cancel: bool = False) -> None:
        """Take no more; the thread ends when nothing is left to do. ``cancel`` what has not been sent."""
        if os.getpid() != self._pid:
            return
        cancelled: list[_Task] = []
        with self._lock:
            self._wake()
            self._ends = True
            if cancel:
                cancelled, self._waiting = list(self._waiting), deque()
        for task in cancelled:
            if task.future.cancel():
                task.future.set_running_or_notify_cancel()

    def _wake(self) -> None:
        """Holds the lock. Before the change that the thread is to see: it waits for the lock, and nothing that comes in between is missed."""
        if self._wake_fd >= 0:
            os.eventfd_write(self._wake_fd, 1)

    # --- the thread ---------------------------------------------------------------------------------------------------

    def serve(self) -> None:
        try:
            while not self._is_over():
                self._send_waiting()
                for message in self._receive():
                    self._settle(message)
        except RuntimeLost as error:
            self._lose(str(error))
        except BaseException as error:  # of ours: nobody may wait for ever because of it
            self._lose(f"the executor's thread has ended: {error!r}")
            raise
        finally:
            with self._lock:
                self._channel.close()
                os.close(self._wake_fd)
                self._wake_fd = -1

    def _is_over(self) -> bool:
        with self._lock:
            return self._ends and not self._waiting and not self._running

    def _send_waiting(self) -> None:
        """Send as many as there are Ps for."""
        while len(self._running) < self._procs and (task := self._next()) is not None:
            try:
                if task.future.set_running_or_notify_cancel():
                    self._send(task)
            except RuntimeLost as error:
                task.future.set_exception(RuntimeLost(str(error)))  # without the frames that have the arguments
                raise
            except (
                BaseException
            ) as error:  # it cannot be pickled, or is too large; whatever a __reduce__ of its arguments raises
                task.future.set_exception(error)

    def _next(self) -> _Task | None:
        with self._lock:
            return self._waiting.popleft() if self._waiting else None

    def _send(self, task: _Task) -> None:
        request, name = self._requests + 1, str(task.call)
        with transit.parcel() as task.sent:
            self._channel.send("go", task.call.dumps(), request=request, name=name)
            self._requests, self._running[request] = request, task
        task.call = Call(name)  # the arguments are on their way: nothing here keeps them

    def _receive(self) -> list[Message]:
        """What the coordinator says next; nothing, if a call was submitted."""
        poller = select.poll()
        poller.register(self._channel, select.POLLIN | (0 if self._channel.is_flushed else select.POLLOUT))
        poller.register(self._wake_fd, select.POLLIN)
        ready = dict(poller.poll())
        if self._wake_fd in ready:
            with contextlib.suppress(BlockingIOError):
                os.eventfd_read(self._wake_fd)
        self._channel.flush()
        return self._channel.receive() if ready.get(self._channel.fileno(), 0) & ~select.POLLOUT else []

    def _settle(self, message: Message) -> None:
        if check_answer(message).op != "done":
            return
        self._procs = message["procs"]
        task = self._running.pop(message["request"])
        try:
            self._send_waiting()
        finally:
            self._answer(task, message)

    @staticmethod
    def _answer(task: _Task, message: Message) -> None:
        if task.sent:
            transit.outbox.revoke(task.sent)
        try:
            result = load_outcome(message["ok"], message.payload)
        except BaseException as error:
            task.future.set_exception(error)
        else:
            task.future.set_result(result)

    def _lose(self, why: str) -> None:
        """Nothing will be answered any more."""
        with self._lock:
            self._lost = why
            running, waiting = list(self._running.values()), list(self._waiting)
            self._running.clear()
            self._waiting.clear()
        for task in running:
            task.future.set_exception(RuntimeLost(why))
        for task in waiting:
            if task.future.set_running_or_notify_cancel():
                task.future.set_exception(RuntimeLost(why))
