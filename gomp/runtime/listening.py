"""Waiting without a thread that waits: in asyncio, and in goroutines whose body is Python (:mod:`~gomp.runtime.coroutines`).

A wait is begun as any other (:mod:`~gomp.runtime.waits`); then the process listens for its end, by one list for all of them
(:mod:`gomp.core.mutator.listening`). What awaits it is in asyncio a future, which a thread of ours settles; in a goroutine it is the goroutine.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections import Counter
from collections.abc import Callable, Generator, Iterator
from typing import Any

from gomp.core.mutator import listening, selectcalls, waitcalls
from gomp.core.shm.records import CHAN_CLOSED, CHAN_DONE
from gomp.errors import GompError, RuntimeLost
from gomp.runtime import handles, waits
from gomp.runtime.handles import table
from gomp.runtime.here import here
from gomp.runtime.slots import Handle, empty, slot_in
from gomp.runtime.waits import call, check_goroutine, note_place

_THREAD = "gomp-listener"


class Loops:
    """The loops of the main thread in which something is awaited, and by how many: Python's goroutines have their turns there meanwhile."""

    def __init__(self) -> None:
        self.run: Callable[[], bool] = lambda: False  # gives each that is ready its turn; whether more are
        self.forget()

    def forget(self) -> None:
        self._awaited: Counter[Any] = Counter()
        self._counting = threading.RLock()  # also for what Python's garbage collector throws away meanwhile

    @contextlib.contextmanager
    def awaiting(self, loop: Any) -> Iterator[None]:
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        self._count(loop, 1)
        try:
            _ensure_thread()
            loop.call_soon(self._turn)
            yield
        finally:
            self._count(loop, -1)  # in whichever thread: Python's garbage collector may have thrown away who awaited

    def _count(self, loop: Any, change: int) -> None:
        with self._counting:
            self._awaited[loop] += change
            if self._awaited[loop] <= 0:  # less in a forked child
                del self._awaited[loop]

    def wake(self) -> None:
        """There is something to run. From any thread."""
        for loop in list(self._awaited):
            with contextlib.suppress(RuntimeError):  # it is closed
                loop.call_soon_threadsafe(self._turn)

    def _turn(self) -> None:
        with contextlib.suppress(RuntimeLost):  # the thread that listens tells whoever awaits
            if self.run():
                self.wake()

    def __bool__(self) -> bool:
        return bool(self._awaited)


loops = Loops()


class Signal:
    """What is awaited once, and fired once, from any thread. Made by who awaits it."""

    __slots__ = ("_future", "_wake")

    def __init__(self) -> None:
        self._future: Any = None
        wake = here.wake
        if wake is None:
            self._future = future = _running_loop().create_future()
            wake = _settler(future)
        self._wake = wake

    @property
    def is_for_loop(self) -> bool:
        return self._future is not None

    def fire(self) -> None:
        self._wake()

    def __await__(self) -> Generator[Any, None, None]:
        if self._future is None:
            yield self
            return
        with loops.awaiting(self._future.get_loop()):
            yield from self._future


def _running_loop() -> Any:
    import asyncio  # 40 ms, for those who have it already

    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        raise RuntimeError(
            "this is awaited in asyncio, or in a goroutine that gomp.go has started; elsewhere wait with ch.recv(), ch.send(value) or gomp.select"
        ) from None


def _settler(future: Any) -> Callable[[], None]:
    loop = future.get_loop()

    def settle() -> None:
        if not future.done():
            future.set_result(None)

    def wake() -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody awaits it any more
            loop.call_soon_threadsafe(settle)

    return wake


class Wait(Signal):
    """The end of the wait of a goroutine that stands for who awaits this: how, the number received, and the owner of a reference.

    If it is given up, ``undo`` is called with the goroutine's address, and whether it had come to its end all the same: nobody hears what has come
    then. Until that it has ``held``, of which the goroutine's record says nothing to the collector.
    """

    __slots__ = ("_ended", "_error", "_first", "_g", "_gave_up", "_held", "_undo")

    def __init__(self, undo: Callable[[int, bool], object] | None = None, held: object = None) -> None:
        super().__init__()
        self._g = 0
        self._first = table.first
        self._undo = undo
        self._held = held
        self._gave_up = False
        self._error: GompError | None = None
        self._ended: tuple[int, int, Handle] | None = None

    def listen(self, g: int) -> bool:
        """Begin, before it is awaited; false if the wait of the goroutine at ``g`` is over already."""
        self._g = g
        _add(g, self)
        if table.call(listening.listen, g):
            if self.is_for_loop:
                try:
                    _ensure_thread()
                except BaseException:
                    self._give_up()
                    raise
            return True
        _remove(g)
        return False

    def forget(self) -> None:
        """It has begun, and there is nothing to wait for."""
        _remove(self._g)

    def __await__(self) -> Generator[Any, None, tuple[int, int, Handle]]:  # type: ignore[override]
        try:
            yield from super().__await__()
        except BaseException:
            self._give_up()
            raise
        if self._ended is None:
            raise self._error or RuntimeLost("the runtime has ended")
        return self._ended

    def _give_up(self) -> None:
        """Wait no more. Who hears of its end after this, or is about to, finds it given up."""
        with waits.handing:
            self._gave_up = True
            if self._ended is None:
                if _waits.get(self._g) is not self or not table.call(listening.give_up, self._g):
                    return
                _remove(self._g)
        self._give_back()

    def ended(self, how: int, word: int, found: Handle) -> None:
        with waits.handing:  # so that one of them gives back, this or who gives up
            self._ended, gave_up = (how, word, found), self._gave_up
        if gave_up:
            self._give_back()
        else:
            self.fire()

    def check_same_runtime(self) -> None:
        """RuntimeLost, if that of its goroutine has ended: the address may be another's in the next one."""
        if self._first != table.first:
            raise RuntimeLost("the runtime has ended")

    def _give_back(self) -> None:
        if self._undo is not None and self._first == table.first:
            self._undo(self._g, self._ended is not None)

    def fail(self, error: GompError) -> None:
        self._error = error
        self.fire()


_waits: dict[int, Wait] = {}  # by the addresses of their goroutines
_of_goroutines: set[int] = set()  # those of them that are waits of goroutines of Python's


def _add(g: int, wait: Wait) -> None:
    _waits[g] = wait
    if not wait.is_for_loop:
        _of_goroutines.add(g)


def _remove(g: int) -> Wait | None:
    _of_goroutines.discard(g)
    return _waits.pop(g, None)


async def wait(
    into: int, join: Any, *args: int, undo: Callable[[], object] | None = None
) -> tuple[int, int, Handle | None]:
    """As ``waits.wait``: CHAN_DONE or CHAN_CLOSED, and the number that was received; or the owner of a reference, if that is not in slot ``into``."""
    end = Wait(lambda _, is_done: undo() if undo and is_done else None)
    g, word = call(join, *args)
    if g in (CHAN_DONE, CHAN_CLOSED):
        return g, word, None
    check_goroutine(g)
    try:
        note_place(g)
    except BaseException:
        call(waitcalls.end_wait, g, into)
        raise
    if end.listen(g):
        return await end
    done, word = call(waitcalls.end_wait, g, into)
    return done, word, None


def hear() -> None:
    """Take what has ended, and tell who awaits it. From any thread."""
    while _waits:
        found = empty(Handle)
        with waits.handing:
            g = table.call(listening.take_ended, slot_in(found))
            if g == 0:
                return
            ended = selectcalls.selected(), waitcalls.received_value(), found
            heard = _remove(g)  # before another wait has this address
        if heard is not None:
            heard.ended(*ended)


def num_goroutines_waiting() -> int:
    """How many of the waits are those of goroutines of Python."""
    return len(_of_goroutines)


def _fail_all(error: GompError) -> None:
    """Tell those in loops, which may outlive the runtime."""
    _of_goroutines.clear()
    while _waits:
        with contextlib.suppress(KeyError):  # another thread was faster
            _, wait = _waits.popitem()
            if wait.is_for_loop:
                wait.fail(error)


handles.on_close(lambda: _fail_all(RuntimeLost("the runtime has ended")))


# --- for asyncio ------------------------------------------------------------------------------------------------------

_thread: threading.Thread | None = None
_thread_lock = threading.Lock()


def _ensure_thread() -> None:
    """A thread listens as long as something is awaited in a loop: that loop may have nothing else to wake it."""
    global _thread
    with _thread_lock:
        if _thread is None:
            _thread = threading.Thread(target=_listen, name=_THREAD, daemon=True)
            try:
                _thread.start()
            except (
                BaseException
            ):  # the system allows no more threads, or an interruption: the next who awaits tries again
                if not _thread.is_alive():
                    _forget_thread()
                raise


def _listen() -> None:
    from gomp.runtime import current  # above this

    try:
        current.peer().wait_until(_is_done_listening, None)
    except GompError as error:
        _end_thread()
        _fail_all(error)


def _is_done_listening() -> bool:
    hear()
    with _thread_lock:
        if loops or any(wait.is_for_loop for wait in list(_waits.values())):
            return False
        _forget_thread()
        return True


def _forget_thread() -> None:
    global _thread
    _thread = None


def _end_thread() -> None:
    with _thread_lock:
        _forget_thread()


def _forget_in_child() -> None:
    """A forked child has none of its parent's threads, and another may have held a lock."""
    global _thread_lock
    _thread_lock = threading.Lock()
    _forget_thread()
    loops.forget()


os.register_at_fork(after_in_child=_forget_in_child)
