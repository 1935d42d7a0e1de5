"""Channels as programs use them that run on native stacks: in compiled code, where an operation waits, and from Python by slot numbers.

Who has to wait is a goroutine without frames meanwhile, whose home is the program: so others find it in the channel's queue as any other.

From Python an operation takes several calls, of which each may be refused with RETRY and none waits: try; if that would block, join the queue; look
from time to time, with the interpreter's lock released in between, whether it is done; and take what there is.
"""

from __future__ import annotations

from gomp.core.heap.chanq import unlink_locked
from gomp.core.heap.mheap import NO_MEMORY
from gomp.core.jit import inline, kernel
from gomp.core.mutator.boundary import OUT_OF_MEMORY, fill_handle, load_handle
from gomp.core.mutator.chan import (
    VALUE,
    close_locked,
    is_awaited,
    receive,
    receive_locked,
    send,
    send_locked,
    unlock,
    wake_first_locked,
)
from gomp.core.mutator.goroutine import COUNT_BITS, blacken, end_g, start_waiter
from gomp.core.mutator.hashmap import lock_of
from gomp.core.mutator.mapcalls import try_lock_map
from gomp.core.mutator.schedule import await_done
from gomp.core.sched.locks import release
from gomp.core.sched.status import OK, RETRY, enter, leave, park_call_while_stopped, stop_requested
from gomp.core.shm import layout
from gomp.core.shm.atomics import cas_acq_rel, cpu_pause, load64, load_acquire, store64
from gomp.core.shm.libc import futex_wait
from gomp.core.shm.records import (
    CHAN_CLOSED,
    CHAN_DONE,
    CHAN_WOULD_BLOCK,
    G_RUNNABLE,
    G_RUNNING,
    G_STATUS_MASK,
    G_WAITING,
    P_XWAKE,
    WAITS_TO_RECEIVE,
    g_at,
    self_p,
)

_WAKE = layout.SELF_BASE + P_XWAKE


# --- in compiled code -------------------------------------------------------------------------------------------------


@kernel("int64(int64)")
def receive_waiting(ch: int) -> int:
    """Receive, however long it takes: CHAN_DONE or CHAN_CLOSED, and the value is at VALUE; or why not, NO_MEMORY or as await_done says."""
    me = self_p()
    me.out_for &= COUNT_BITS  # an action that the step made before is not the last any more: its place is VALUE's
    me.out_bytes = 0
    done = receive(ch, 0)
    if done != CHAN_WOULD_BLOCK:
        return done
    g = start_waiter()
    if g < 0:
        return NO_MEMORY
    done = receive(ch, g)
    if done == CHAN_WOULD_BLOCK:
        done = _wait_until_done(g)
        store64(VALUE, g_at(g).elem)
    _end_waiter(g)
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
        done = _wait_until_done(g)
    _end_waiter(g)
    return done


@inline
def _wait_until_done(g: int) -> int:
    why = await_done(g)
    return g_at(g).done if why == OK else why


@inline
def _end_waiter(g: int) -> None:
    end_g(g)


# --- from Python ------------------------------------------------------------------------------------------------------


@inline
def _begin(slot: int) -> int:
    """Enter, with the lock of the channel in handle ``slot``: its address, or 0 if either cannot be had now."""
    if enter() != OK:
        return 0
    ch = load_handle(slot)
    if not try_lock_map(ch):
        leave()
        return 0
    return ch


@inline
def _end(ch: int, done: int) -> int:
    unlock(ch)
    leave()
    return done


@kernel("int64(int64, int64)")
def chan_receive(slot: int, into: int) -> int:
    """CHAN_DONE or CHAN_CLOSED, with the value in the empty slot ``into`` or, a number, for :func:`chan_value`; CHAN_WOULD_BLOCK or RETRY."""
    ch = _begin(slot)
    if ch == 0:
        return RETRY
    done = receive_locked(ch, 0)
    if done != CHAN_WOULD_BLOCK:
        _keep(into, load64(VALUE))
    return _end(ch, done)


@kernel("int64(int64, int64, int64)")
def chan_send(slot: int, value: int, source: int) -> int:
    """Send what the handle ``source`` holds, or the word ``value`` if that is NO_SLOT: CHAN_DONE, CHAN_CLOSED, CHAN_WOULD_BLOCK, or RETRY."""
    ch = _begin(slot)
    if ch == 0:
        return RETRY
    return _end(ch, send_locked(ch, _sent(value, source), 0))


@inline
def _sent(value: int, source: int) -> int:
    return load_handle(source) if source >= 0 else value


@kernel("int64(int64)")
def chan_close(slot: int) -> int:
    """CHAN_DONE, CHAN_CLOSED if it was closed before, or RETRY. After it, :func:`chan_tell` whoever waits."""
    ch = _begin(slot)
    if ch == 0:
        return RETRY
    return _end(ch, CHAN_DONE if close_locked(ch) else CHAN_CLOSED)


@kernel("int64(int64)")
def chan_tell(slot: int) -> int:
    """Tell one who waits that the channel is closed: 1 if others wait, 0, or RETRY."""
    ch = _begin(slot)
    if ch == 0:
        return RETRY
    wake_first_locked(ch)
    return _end(ch, 1 if is_awaited(ch) else 0)


@inline
def _keep(into: int, value: int) -> None:
    """For Python: a reference, if there is a slot for it, else a number."""
    if into >= 0:
        fill_handle(into, value)
    else:
        self_p().received = value


@kernel("int64()")
def chan_value() -> int:
    """The number that the last kernel of these has received."""
    return self_p().received


@inline
def _begin_waiting(slot: int) -> int:
    """As :func:`_begin`, with a goroutine that may have to wait: its address; or OUT_OF_MEMORY or RETRY, and nothing has happened."""
    if enter() != OK:
        return RETRY
    g = start_waiter()
    if g >= 0 and try_lock_map(load_handle(slot)):
        return g
    if g >= 0:
        _end_waiter(g)
    leave()
    return RETRY if g >= 0 else OUT_OF_MEMORY


@kernel("int64(int64, int64)")
def chan_wait_to_receive(slot: int, into: int) -> int:
    """As :func:`chan_receive`; where that would block, address of a goroutine that waits from now on, OUT_OF_MEMORY, or RETRY."""
    g = _begin_waiting(slot)
    if g < 0:
        return g
    ch = load_handle(slot)
    done = receive_locked(ch, g)
    if done != CHAN_WOULD_BLOCK:
        _keep(into, load64(VALUE))
    return _joined(g, ch, done)


@kernel("int64(int64, int64, int64)")
def chan_wait_to_send(slot: int, value: int, source: int) -> int:
    """The same of :func:`chan_send`."""
    g = _begin_waiting(slot)
    if g < 0:
        return g
    ch = load_handle(slot)
    return _joined(g, ch, send_locked(ch, _sent(value, source), g))


@inline
def _joined(g: int, ch: int, done: int) -> int:
    if done == CHAN_WOULD_BLOCK:
        self_p().curg = g_at(g).under
        return _end(ch, g)
    unlock(ch)
    _end_waiter(g)
    leave()
    return done


@kernel("int64(int64)")
def is_done_waiting(g: int) -> int:
    """Whether the goroutine at ``g`` may be asked what has become of it."""
    return 1 if load_acquire(g) & G_STATUS_MASK == G_RUNNABLE else 0


@kernel("void(int64, int64)", nogil=True)
def sleep_until_woken(seen: int, timeout_ns: int) -> None:
    """Sleep, SAFE and without the interpreter's lock, until this P is woken once more than ``seen``; at most so long."""
    futex_wait(_WAKE, seen, timeout_ns)


@kernel("int64(int64, int64)")
def chan_end_wait(g: int, into: int) -> int:
    """The goroutine at ``g`` waits no more: CHAN_DONE or CHAN_CLOSED, and what it has received; CHAN_WOULD_BLOCK, if it has got nothing; or RETRY."""
    if enter() != OK:
        return RETRY
    ch = g_at(g).chan
    if not try_lock_map(ch):
        leave()
        return RETRY
    gives_up = g_at(g).done == 0
    if gives_up:
        unlink_locked(g)
    release(lock_of(ch))
    while not (cas_acq_rel(g, G_RUNNABLE, G_RUNNING) or (gives_up and cas_acq_rel(g, G_WAITING, G_RUNNING))):
        cpu_pause()  # a marker has its stack, or whoever ends its wait is about to say so
        if stop_requested():
            park_call_while_stopped()  # that one may have died
    me = self_p()
    g_at(g).under = me.curg
    me.curg = g
    blacken(g)  # what it has been given leaves it
    done = CHAN_WOULD_BLOCK if gives_up else g_at(g).done
    if not gives_up and g_at(g).wait == WAITS_TO_RECEIVE:
        _keep(into, g_at(g).elem)
    _end_waiter(g)
    leave()
    return done
