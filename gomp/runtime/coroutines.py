"""Goroutines whose body is Python: a generator or a coroutine, which stays in the process that has started it.

They run in its main thread, one step after another, while that waits for anything in gomp: on a P between two programs, too. A step goes on until the
body awaits, ``value = await ch.receiving()``, or yields: what it waits for, ``value = yield ch.receiving()``, or nothing, to give others their turn.
What waits costs no thread, and being woken costs the same however many wait (:mod:`~gomp.runtime.listening`).
"""

from __future__ import annotations

import contextlib
import inspect
import logging
import os
import types
from collections import deque
from collections.abc import Coroutine, Generator
from typing import Any, TypeAlias

from gomp.core.mutator import goroutine
from gomp.core.sched import parking
from gomp.core.shm import layout
from gomp.core.shm.records import p_dtype, view
from gomp.errors import Deadlock, RuntimeLost
from gomp.runtime import handles
from gomp.runtime.handles import table
from gomp.runtime.here import Identity, here
from gomp.runtime.labels import number_of
from gomp.runtime.listening import Signal, hear, loops, num_goroutines_waiting
from gomp.runtime.sites import number_of_caller

Body: TypeAlias = Generator[Any, Any, Any] | Coroutine[Any, Any, Any]
log = logging.getLogger("gomp.goroutines")
_NO_LOOP = (
    "gomp runs this goroutine, and asyncio does not: await channels, groups and locks of gomp's in it. What needs an event loop belongs in "
    "asyncio.run, where those are awaited as well."
)
_ready: deque[PythonGoroutine] = deque()
_running: list[
    PythonGoroutine
] = []  # in the main thread; each but the last waits as programs do, and others run above it
_all: set[PythonGoroutine] = set()  # that have not ended
_left_behind: list[
    PythonGoroutine
] = []  # in a forked child, the parent's: what they are to do in the end is not the child's


class PythonGoroutine:
    """One that was started. ``wait`` gives what it returns, or raises what it raised; ``await`` and ``yield`` it elsewhere in the same process."""

    def __init__(self, body: Any, identity: Identity, is_anybodys: bool = True) -> None:
        """``is_anybodys``: somebody may wait for it, or else has dropped it; what it raises is logged only when that is so."""
        self.name = getattr(body, "__qualname__", type(body).__name__)
        self.identity = identity
        self.body = body
        self._pid = os.getpid()
        self._awaited: Generator[Any, Any, Any] | None = None  # what it has yielded, which goes on first
        self._value: Any = None  # what is sent into it next, or raised there
        self._error: BaseException | None = None
        self._is_anybodys = is_anybodys
        self._is_done = False
        self._was_told = False  # somebody has got its error
        self._signals: set[Signal] = set()  # of those who await it

    def wait(self, timeout: float | None = None) -> Any:
        """What it returns, or raises. TimeoutError after ``timeout`` seconds."""
        from gomp.runtime import current  # above this

        if here.wake is not None and not self._is_done:
            raise RuntimeError(f"a goroutine waits for {self!r} with await or yield: wait() would keep it from running")
        peer = current.peer()
        told = peer.deadlocks
        peer.wait_until(lambda: self._is_done or (timeout is None and peer.deadlocks != told), timeout)
        if not self._is_done and timeout is None:
            raise Deadlock(peer.deadlock)
        if not self._is_done:
            raise TimeoutError(f"the goroutine has not ended within {timeout} s")
        return self._outcome()

    def __await__(self) -> Generator[Any, Any, Any]:
        if not self._is_done:
            signal = Signal()
            self._signals.add(signal)
            try:
                if (
                    not self._is_done
                ):  # looked at again: it may have ended in another thread, which did not see the signal
                    yield from signal.__await__()
            finally:
                self._signals.discard(signal)
        return self._outcome()

    def _outcome(self) -> Any:
        self._was_told = True
        if self._error is not None:
            raise self._error
        return self._value

    def __repr__(self) -> str:
        return f"<goroutine {self.id} {self.name}>"

    @property
    def id(self) -> int:
        """As ``gomp.debug.goroutines`` has it."""
        return self.identity.id

    def __reduce__(self) -> Any:
        raise TypeError("a goroutine is waited for in the process that started it: send what its wait() has given")

    def __del__(self) -> None:
        self._log_error()

    def _log_error(self) -> None:
        if self._error is not None and not self._was_told:
            self._was_told = True
            log.error("goroutine %d (%s) has ended with an exception", self.id, self.name, exc_info=self._error)

    def lose(self) -> None:
        """It does not go on: the runtime has ended. Who awaits it in a loop is told."""
        self._value, self._error = None, RuntimeLost("the runtime has ended")
        self._is_done = self._was_told = True
        for signal in list(self._signals):
            if signal.is_for_loop:
                signal.fire()
        if self._pid != os.getpid():
            _left_behind.append(self)
            return
        self._awaited = None
        self._close()

    # --- its steps ----------------------------------------------------------------------------------------------------

    def make_ready(self) -> None:
        _ready.append(self)
        _wake_main_thread()

    def run(self) -> None:
        """Its turn, which is the next. A Ctrl-C that comes meanwhile ends it, be it in its body or around that, and is for the main thread, too."""
        before = here.goroutine, here.wake, here.frame
        try:
            del _ready[0]  # not before: who is interrupted between two turns loses none
            here.run(self.identity, self.make_ready)
            _running.append(self)
            while not self._is_done and self._goes_on():
                pass
        except KeyboardInterrupt as raised:
            self._awaited = None
            self._close()
            if not self._is_done:
                self._ended(None, raised)
            self._tell()
            raise
        finally:
            here.goroutine, here.wake, here.frame = (
                before  # first, and without a call, in which another Ctrl-C may come
            )
            if _running and _running[-1] is self:
                del _running[-1]
            here.go_back(before)

    def _goes_on(self) -> bool:
        """Resume what is to go on; whether something else is to go on at once then."""
        value, error = self._value, self._error
        self._value = self._error = None
        resumed = self.body if self._awaited is None else self._awaited
        try:
            got = resumed.send(value) if error is None else resumed.throw(error)
        except StopIteration as stop:
            return self._ended(stop.value, None)
        except KeyboardInterrupt:  # which run() hears of
            raise
        except BaseException as raised:  # its own end, as in a thread
            is_told = _NO_LOOP in getattr(raised, "__notes__", ())
            if isinstance(raised, RuntimeError) and "no running event loop" in str(raised) and not is_told:
                raised.add_note(_NO_LOOP)
            return self._ended(None, raised)
        return self._got(got)

    def _ended(self, value: Any, error: BaseException | None) -> bool:
        """The body, or what it has yielded, has returned or raised."""
        self._value, self._error = value, error
        if self._awaited is not None:
            self._awaited = here.frame = None
            return True
        self._is_done = True
        _all.discard(self)
        if not self._is_anybodys:
            self._log_error()
        self._tell()
        return False

    def _tell(self) -> None:
        while self._signals:
            with contextlib.suppress(KeyError):  # who awaited it has given up meanwhile
                self._signals.pop().fire()
        _wake_main_thread()

    def _close(self) -> None:
        try:
            self.body.close()
        except Exception:
            log.exception("goroutine %d (%s) has not taken its end well", self.id, self.name)

    def _got(self, got: Any) -> bool:
        if isinstance(got, Signal):  # which makes it ready
            return False
        if got is None:
            _ready.append(self)
            return False
        if self._awaited is None and hasattr(got, "__await__"):
            self._awaited = got.__await__()
            here.frame = _innermost(self.body)
            return True
        self._error = TypeError(
            f"a goroutine awaits or yields what gomp has to wait for, as ch.receiving(), or yields nothing to give others their turn: not {got!r}"
        )
        return True


def _innermost(body: Any) -> Any:
    """The frame that has yielded."""
    while isinstance(inner := getattr(body, "gi_yieldfrom", None), types.GeneratorType):
        body = inner
    return getattr(body, "gi_frame", None)


def is_body(target: Any) -> bool:
    return inspect.isgenerator(target) or inspect.iscoroutine(target)


def go(target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> PythonGoroutine:
    """Start a goroutine whose body is ``target``, which may be given ``labels``, or what ``target`` makes with these arguments."""
    labels = None
    if callable(target):
        target = target(*args, **kwargs)
    else:
        labels = kwargs.pop("labels", None)
        if args or kwargs:
            raise TypeError(
                f"gomp.go of a {type(target).__name__} takes nothing else but labels=: it has its arguments already"
            )
    table.check_open()
    by = here.goroutine
    return begin(target, Identity(goroutine.next_id(), by.id, number_of_caller(), number_of(labels) or by.labels))


def begin(body: Body, identity: Identity, is_anybodys: bool = True) -> PythonGoroutine:
    """Have ``body`` go on here, as the goroutine that is said."""
    started = PythonGoroutine(body, identity, is_anybodys)
    _all.add(started)
    if not table.is_open:  # it was closed meanwhile, and what was there has been told
        _all.discard(started)
        table.check_open()
    started.make_ready()
    _publish()
    return started


def all_here() -> list[PythonGoroutine]:
    """Those of this process that have not ended."""
    return list(_all)


def state_of(started: PythonGoroutine) -> str:
    """ "running", "runnable" or "waiting"."""
    if started in _running:
        return "running"
    return "runnable" if started in _ready else "waiting"


def run_ready() -> bool:
    """In the main thread: let each that is ready have its turn; whether any was."""
    if here.wake is not None:  # one waits as programs do: others would go on above it
        return False
    hear()
    n = len(_ready)
    for _ in range(n):
        _ready[0].run()
    if n > 0:
        _publish()
    return n > 0


def is_any() -> bool:
    """Whether any has not ended here."""
    return bool(_all)


def is_any_ready() -> bool:
    return bool(_ready)


def _wake_main_thread() -> None:
    if table.is_open:
        parking.ring(layout.SELF_BASE)
    loops.wake()


def _run_in_loop() -> bool:
    run_ready()
    return bool(_ready)


loops.run = _run_in_loop


def _publish() -> None:
    """Say what ``gomp.num_goroutine`` is to count beside those who wait in the heap."""
    if table.is_open:
        view(p_dtype, layout.SELF_BASE)[0].python_gs = len(_all) - num_goroutines_waiting()


def _end_all() -> None:
    _ready.clear()
    while _all:
        _all.pop().lose()


handles.on_close(_end_all)
