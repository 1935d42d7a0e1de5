"""Waiting for goroutines from Python, at channels, groups and locks: with the interpreter's lock released, and an end."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable
from typing import Any

from gomp.core.mutator import waitcalls
from gomp.core.mutator.boundary import OUT_OF_MEMORY
from gomp.core.shm.records import CHAN_CLOSED, CHAN_DONE, CHAN_WOULD_BLOCK, g_dtype, view
from gomp.errors import Deadlock, OutOfMemory, RuntimeLost
from gomp.runtime import mapping
from gomp.runtime.handles import table
from gomp.runtime.here import NOBODY, here

handing = threading.RLock()  # a coroutine that Python collects in the middle of such a call gives up its wait


def _forget_in_child() -> None:
    global handing
    handing = threading.RLock()  # another thread of the parent's may have held it


os.register_at_fork(after_in_child=_forget_in_child)


def call(kernel: Any, *args: int) -> tuple[int, int]:
    """What the kernel says, and the number that it has received, if it has: no other thread's kernel comes in between."""
    with handing:
        return table.call(kernel, *args), waitcalls.received_value()


def wait(
    what: str, timeout: float | None, into: int, join: Any, *args: int, undo: Callable[[], object] | None = None
) -> tuple[int, int]:
    """CHAN_DONE or CHAN_CLOSED, once it is done, and the number that was received. TimeoutError, which says ``what`` has not come to pass, or what
    interrupts the wait: if that has come to pass all the same, what was received is lost, or ``undo`` takes it back.
    """
    g, word = call(join, *args)
    if g in (CHAN_DONE, CHAN_CLOSED):
        return g, word
    check_goroutine(g)
    with mapping.asleep():
        try:
            note_place(g)
            wait_until_done(g, timeout)
        except BaseException:
            with contextlib.suppress(RuntimeLost):  # what is raised says why
                done, _ = call(waitcalls.end_wait, g, into)
                if undo is not None and done != CHAN_WOULD_BLOCK:
                    undo()
            raise
        done, word = call(waitcalls.end_wait, g, into)
    if done == CHAN_WOULD_BLOCK:
        raise TimeoutError(f"{what} within {timeout} s")
    return done, word


def check_goroutine(g: int) -> int:
    """What a kernel says that makes one who waits. OutOfMemory."""
    if g == OUT_OF_MEMORY:
        raise OutOfMemory("there is no memory for one who waits")
    return g


def note_place(g: int) -> None:
    """The goroutine at ``g`` stands for the program that waits here, or for the goroutine of Python's."""
    from gomp.runtime import sites  # above this, as current

    place = sites.number_of_caller() if here.frame is None else sites.number_of(here.frame)
    by = here.goroutine
    if by is NOBODY:
        waitcalls.set_site(g, place)
    else:
        waitcalls.describe_python_g(g, by.id, by.parent, by.site, by.labels, place)


def wait_until_done(g: int, timeout: float | None) -> None:
    """Wait until the goroutine at ``g`` may be asked what has become of it; at most ``timeout`` seconds. Raises Deadlock, if that is None."""
    from gomp.runtime import current  # above this: it unpickles what names classes of channels

    peer = current.peer()
    told = peer.deadlocks

    def is_done() -> bool:
        return bool(waitcalls.is_done_waiting(g))

    def deadlock() -> str:
        if timeout is not None or peer.deadlocks == told:
            return ""
        return peer.deadlock_of(int(view(g_dtype, g)[0].id))

    peer.wait_until(lambda: is_done() or deadlock() != "", timeout)
    if (text := deadlock()) and not is_done():
        raise Deadlock(text)
