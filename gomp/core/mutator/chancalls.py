"""Channels as programs use them that run on native stacks: in compiled code, where an operation waits, and from Python by slot numbers."""

from __future__ import annotations

from gomp.core.heap.mheap import NO_MEMORY
from gomp.core.jit import inline, kernel
from gomp.core.mutator.action import forget_action
from gomp.core.mutator.boundary import load_handle
from gomp.core.mutator.chan import (
    VALUE,
    close_locked,
    receive,
    receive_locked,
    send,
    send_locked,
    wake_first_locked,
)
from gomp.core.mutator.goroutine import end_g, start_waiter
from gomp.core.mutator.waitcalls import begin_call, begin_waiting, end_call, joined, keep, wait_until_done
from gomp.core.sched.status import RETRY
from gomp.core.shm.atomics import load64, store64
from gomp.core.shm.records import CHAN_CLOSED, CHAN_DONE, CHAN_WOULD_BLOCK, g_at

# --- in compiled code -------------------------------------------------------------------------------------------------


@kernel("int64(int64)")
def receive_waiting(ch: int) -> int:
    """Receive, however long it takes: CHAN_DONE or CHAN_CLOSED, and the value is at VALUE; or why not, NO_MEMORY or as await_done says."""
    forget_action()
    done = receive(ch, 0)
    if done != CHAN_WOULD_BLOCK:
        return done
    g = start_waiter()
    if g < 0:
        return NO_MEMORY
    done = receive(ch, g)
    if done == CHAN_WOULD_BLOCK:
        done = wait_until_done(g)
        store64(VALUE, g_at(g).elem)
    end_g(g)
    return done


@kernel("int64(int64, int64)")
def send_waiting(ch: int, value: int) -> int:
    """Send, however long it takes: CHAN_DONE or CHAN_CLOSED; or why not, as :func:`receive_waiting`."""
    done = send(ch, value, 0)
    if done != CHAN_WOULD_BLOCK:
        return done
    g = start_waiter()
    if g < 0:
        return NO_MEMORY
    done = send(ch, value, g)
    if done == CHAN_WOULD_BLOCK:
        done = wait_until_done(g)
    end_g(g)
    return done


# --- from Python ------------------------------------------------------------------------------------------------------


@kernel("int64(int64, int64)")
def chan_receive(slot: int, into: int) -> int:
    """CHAN_DONE or CHAN_CLOSED, with the value in the empty slot ``into`` or, a number, for ``received_value``; CHAN_WOULD_BLOCK or RETRY."""
    ch = begin_call(slot)
    if ch == 0:
        return RETRY
    done = receive_locked(ch, 0)
    if done != CHAN_WOULD_BLOCK:
        keep(into, load64(VALUE))
    return end_call(ch, done)


@kernel("int64(int64, int64, int64)")
def chan_send(slot: int, value: int, source: int) -> int:
    """Send what the handle ``source`` holds, or the word ``value`` if that is NO_SLOT: CHAN_DONE, CHAN_CLOSED, CHAN_WOULD_BLOCK, or RETRY."""
    ch = begin_call(slot)
    if ch == 0:
        return RETRY
    return end_call(ch, send_locked(ch, _sent(value, source), 0))


@inline
def _sent(value: int, source: int) -> int:
    return load_handle(source) if source >= 0 else value


@kernel("int64(int64)")
def chan_close(slot: int) -> int:
    """CHAN_DONE, CHAN_CLOSED if it was closed before, or RETRY. After it, :func:`chan_tell` whoever waits."""
    ch = begin_call(slot)
    if ch == 0:
        return RETRY
    return end_call(ch, CHAN_DONE if close_locked(ch) else CHAN_CLOSED)


@kernel("int64(int64)")
def chan_tell(slot: int) -> int:
    """Tell one who waits that the channel is closed: 1, 0 if nobody does, or RETRY."""
    ch = begin_call(slot)
    if ch == 0:
        return RETRY
    return end_call(ch, 1 if wake_first_locked(ch) else 0)


@kernel("int64(int64, int64)")
def chan_wait_to_receive(slot: int, into: int) -> int:
    """As :func:`chan_receive`; where that would block, address of a goroutine that waits from now on, OUT_OF_MEMORY, or RETRY."""
    g = begin_waiting(slot)
    if g < 0:
        return g
    ch = load_handle(slot)
    done = receive_locked(ch, g)
    if done != CHAN_WOULD_BLOCK:
        keep(into, load64(VALUE))
    return joined(g, ch, done)


@kernel("int64(int64, int64, int64)")
def chan_wait_to_send(slot: int, value: int, source: int) -> int:
    """The same of :func:`chan_send`."""
    g = begin_waiting(slot)
    if g < 0:
        return g
    ch = load_handle(slot)
    return joined(g, ch, send_locked(ch, _sent(value, source), g))
