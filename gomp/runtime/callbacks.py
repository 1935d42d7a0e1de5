"""The functions of finalizers and cleanups, and the threads that run them: in the process that registered them, and nowhere else.

A function is known to the heap by a number. Finalizers run one after another in one thread, cleanups in up to GOMAXPROCS/4 (at least one). A thread
is started when it is first needed, in a script as in a P, and sleeps without the interpreter's lock on a word of this P's record. It ends with the
runtime; nobody waits for a function that does not return, also not at the end of the process: what is due then does not run.

A function that raises is logged with its traceback, counted, and done.

A thread touches shared memory only while it is counted among those who look at the mapping, and looks whether the runtime is still open after
that: so nothing is unmapped under it (:mod:`~gomp.runtime.mapping`).
"""

from __future__ import annotations

import atexit
import contextlib
import itertools
import logging
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from gomp.core.gc.specials import CLEANUPS, FINALIZERS
from gomp.core.mutator import lifetimes as kernels
from gomp.core.mutator.lifetimes import TO_FORGET
from gomp.core.shm.records import RUNTIME, runtime_dtype, view
from gomp.errors import RuntimeLost
from gomp.runtime import handles, mapping
from gomp.runtime.handles import table
from gomp.runtime.slots import Handle, filled

log = logging.getLogger("gomp.lifetimes")

_NAP_NS = 1_000_000_000  # a thread is woken; this is for what was lost with a process that was killed before it could
_JOIN_S = 1.0
_NAMES = ("finalizer", "cleanup")
Function = Callable[[Handle], object]  # of the owner of the slot with a finalizer's object; a cleanup's is empty


class _Worker(threading.Thread):
    """Runs what is due of one kind until its runtime ends."""

    def __init__(self, callbacks: Callbacks, kind: int) -> None:
        super().__init__(name=f"gomp-{_NAMES[kind]}s", daemon=True)
        self._callbacks = callbacks
        self._kind = kind
        self.is_busy = False  # with a function

    def run(self) -> None:
        try:
            while self._callbacks.is_current(self):
                if not self._run_one():
                    self._sleep()
        except RuntimeLost:
            pass
        finally:
            self._callbacks.has_ended(self)

    def _sleep(self) -> None:
        with mapping.asleep():
            if self._callbacks.is_current(self):
                kernels.sleep_until_ready(self._kind, _NAP_NS)

    def _run_one(self) -> bool:
        with mapping.asleep():
            if not self._callbacks.is_current(self):
                return False
            kernels.begin_look(self._kind)
            taken = self._take()
            if taken is None:
                return False
            record, owner, function = taken
        failed = 0
        if function is not None:
            self.is_busy = True
            self._callbacks.help(self)
            failed = self._call(function, owner)
            del function, taken  # what it holds is let go before its end is told
            self.is_busy = False
        with mapping.asleep():
            if self._callbacks.is_current(self):
                table.call(kernels.finish_special, record, failed)
        return True

    def _take(self) -> tuple[int, Handle, Function | None] | None:
        """The record that is due next, the owner of the slot that holds its object, and its function, None if it is only to be forgotten."""
        if self._kind == CLEANUPS:
            record, owner = table.call(kernels.take_cleanup), Handle()
        else:
            record, owner = filled(Handle, kernels.take_finalizer)
        if record == 0:
            return None
        function = self._callbacks.forget(kernels.function_of(record % TO_FORGET))
        return record % TO_FORGET, owner, None if record >= TO_FORGET else function

    def _call(self, function: Function, owner: Handle) -> int:
        """1 if it raised."""
        try:
            function(owner)
        except BaseException:
            log.exception("a %s raised", _NAMES[self._kind])
            return 1
        return 0


class Callbacks:
    """What this process has registered in the runtime that is open, and its threads."""

    def __init__(self) -> None:
        self._numbers = itertools.count(1)
        self._reset()

    def _reset(self) -> None:
        self._pid = os.getpid()
        self._functions: dict[int, Function] = {}
        self._workers: tuple[list[_Worker], list[_Worker]] = ([], [])
        self._lock = threading.Lock()

    @contextmanager
    def registering(self, function: Function, withdraw: Callable[[int], object]) -> Iterator[int]:
        """Its number, for what the block tells the heap. If the block raises it is forgotten, and by ``withdraw(number)`` the heap forgets it too."""
        number = next(self._numbers)
        try:
            self._functions[number] = function
            yield number
        except BaseException:
            withdraw(number)
            self.forget(number)
            raise

    def forget(self, number: int) -> Function | None:
        return self._functions.pop(number, None)

    def knows(self, number: int) -> bool:
        """Whether it may still be due one day: not of another runtime, and not over."""
        return number in self._functions

    # --- threads ------------------------------------------------------------------------------------------------------

    def need(self, kind: int) -> None:
        """Something of this kind has been registered: there is a thread for it from now on."""
        with self._lock:
            if not self._workers[kind]:
                self._start(kind)

    def help(self, worker: _Worker) -> None:
        """A worker is about to be busy: cleanups that wait may have another one, if nobody is idle."""
        with self._lock, mapping.asleep():
            workers = self._workers[CLEANUPS]
            if worker not in workers:  # the runtime has ended
                return
            most = max(int(view(runtime_dtype, RUNTIME)[0].nprocs) // 4, 1)
            if len(workers) < most and all(w.is_busy for w in workers):
                with contextlib.suppress(RuntimeError):  # the system allows no more threads: one is there
                    self._start(CLEANUPS)

    def _start(self, kind: int) -> None:
        worker = _Worker(self, kind)
        try:
            self._workers[kind].append(worker)
            worker.start()
        except BaseException:  # the system allows no more threads; or an interruption, and if it has begun it ends
            self.has_ended(worker)
            raise

    def is_current(self, worker: _Worker) -> bool:
        return any(worker in workers for workers in self._workers)

    def has_ended(self, worker: _Worker) -> None:
        for workers in self._workers:
            if worker in workers:
                workers.remove(worker)

    def end(self) -> None:
        """The runtime ends, or this is a child of the process that it was open in. Waits for threads that only sleep."""
        if self._pid != os.getpid():
            self._reset()
            return
        workers = [*self._workers[FINALIZERS], *self._workers[CLEANUPS]]
        self._workers = ([], [])
        self._functions = {}
        if not workers:
            return
        with mapping.asleep():
            kernels.wake_all()
        for worker in workers:
            if not worker.is_busy and worker is not threading.current_thread():
                worker.join(_JOIN_S)


callbacks = Callbacks()
handles.on_close(callbacks.end)
atexit.register(callbacks.end)
