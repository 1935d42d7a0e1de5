"""Waiting as programs do that run on native stacks: in compiled code, and from Python by slot numbers.

Who has to wait is a goroutine without frames meanwhile, whose home is the program: so others find it in a queue as any other.

From Python an operation takes several calls, of which each may be refused with RETRY and none waits: try; if that would block, join the queue; look
from time to time, with the interpreter's lock released in between, whether it is done; and take what there is.
"""

from __future__ import annotations

from gomp.core.heap.waitq import unlink_locked
from gomp.core.jit import inline, kernel
from gomp.core.mutator.boundary import OUT_OF_MEMORY, fill_handle, load_handle
from gomp.core.mutator.goroutine import end_g, start_waiter
from gomp.core.mutator.hashmap import lock_of
from gomp.core.mutator.mapcalls import try_lock_map
from gomp.core.mutator.schedule import await_done
from gomp.core.mutator.waits import blacken, unlock
from gomp.core.sched.latency import note_run
from gomp.core.sched.locks import release
from gomp.core.sched.status import OK, RETRY, SELF_POLL, enter, leave, park_call_while_stopped, pause, stop_requested
from gomp.core.shm import layout
from gomp.core.shm.atomics import cas_acq_rel, load_acquire, or_acq_rel, store_release
from gomp.core.shm.libc import futex_wait
from gomp.core.shm.records import (
    CHAN_WOULD_BLOCK,
    G_RUNNABLE,
    G_RUNNING,
    G_STATUS_MASK,
    G_WAITING,
    P_XWAKE,
    POLL_INTERRUPT,
    RT_XSHUTDOWN,
    WAITS_TO_RECEIVE,
    g_at,
    self_p,
)

_WAKE = layout.SELF_BASE + P_XWAKE


# --- in compiled code -------------------------------------------------------------------------------------------------


@inline
def wait_until_done(g: int) -> int:
    """What has become of the wait of the goroutine at ``g``, which stands for the program that runs here; or why not, as await_done says."""
    why = await_done(g)
    return g_at(g).done if why == OK else why


# --- from Python ------------------------------------------------------------------------------------------------------


@inline
def begin_call(slot: int) -> int:
    """Enter, with the lock of the thing in handle ``slot``: its address, or 0 if either cannot be had now."""
    if enter() != OK:
        return 0
    at = load_handle(slot)
    if not try_lock_map(at):
        leave()
        return 0
    return at


@inline
def end_call(at: int, done: int) -> int:
    unlock(at)
    leave()
    return done


@inline
def begin_waiting(slot: int) -> int:
    """As :func:`begin_call`, with a goroutine that may have to wait: its address; or OUT_OF_MEMORY or RETRY, and nothing has happened."""
    if enter() != OK:
        return RETRY
    g = start_waiter()
    if g >= 0 and try_lock_map(load_handle(slot)):
        return g
    if g >= 0:
        end_g(g)
    leave()
    return RETRY if g >= 0 else OUT_OF_MEMORY


@inline
def joined(g: int, at: int, done: int) -> int:
    """The end of such a call: the address of the goroutine, if it waits; else ``done``."""
    if done == CHAN_WOULD_BLOCK:
        self_p().curg = g_at(g).under
        return end_call(at, g)
    unlock(at)
    end_g(g)
    leave()
    return done


@inline
def keep(into: int, value: int) -> None:
    """For Python: a reference, if there is a slot for it, else a number."""
    if into >= 0:
        fill_handle(into, value)
    else:
        self_p().received = value


@kernel("void(int64, int64)")
def set_site(g: int, site: int) -> None:
    """The goroutine at ``g``, which only this process ends, stands for a program that waits at that place."""
    g_at(g).site = site


@kernel("void(int64, int64, int64, int64, int64, int64)")
def describe_python_g(g: int, goid: int, parent: int, site: int, labels: int, place: int) -> None:
    """The goroutine at ``g``, which only this process ends, is one of Python's, of that id, started at ``site``, which waits at ``place``."""
    gp = g_at(g)
    gp.id = goid
    gp.parent = parent
    gp.site = site
    gp.labels = labels
    gp.into = place


@kernel("void(int64, int64)")
def set_python_g(goid: int, labels: int) -> None:
    """The main thread runs the goroutine of Python's of that id from now on, or a program, 0: whose are the goroutines that it starts."""
    me = self_p()
    me.python_g = goid
    me.python_labels = labels


@kernel("int64()")
def received_value() -> int:
    """The number that the last kernel of these has received."""
    return self_p().received


@kernel("int64(int64)")
def is_done_waiting(g: int) -> int:
    """Whether the goroutine at ``g`` may be asked what has become of it."""
    return 1 if load_acquire(g) & G_STATUS_MASK == G_RUNNABLE else 0


@kernel("void(int64, int64)", nogil=True)
def sleep_until_woken(seen: int, timeout_ns: int) -> None:
    """Sleep, SAFE and without the interpreter's lock, until this P is woken once more than ``seen``; at most so long."""
    futex_wait(_WAKE, seen, timeout_ns)


@kernel("void()")
def interrupt_program() -> None:
    """Have the program that runs here end by its next poll."""
    or_acq_rel(SELF_POLL, POLL_INTERRUPT)


@kernel("int64(int64, int64)")
def end_wait(g: int, into: int) -> int:
    """The goroutine at ``g`` waits no more: what has become of it, and what it has received; CHAN_WOULD_BLOCK, if it has got nothing; or RETRY."""
    if enter() != OK:
        return RETRY
    at = g_at(g).chan
    if not try_lock_map(at):
        leave()
        return RETRY
    gives_up = g_at(g).done == 0
    if gives_up:
        unlink_locked(g)
    release(lock_of(at))
    run_again(g, gives_up)
    done = CHAN_WOULD_BLOCK if gives_up else g_at(g).done
    if not gives_up and g_at(g).wait == WAITS_TO_RECEIVE:
        keep(into, g_at(g).elem)
    end_g(g)
    leave()
    return done


@inline
def run_again(g: int, gives_up: bool) -> None:
    """The goroutine at ``g``, which is done or ``gives_up``, is run by this P, until a kernel ends it."""
    looks = 0
    while not (cas_acq_rel(g, G_RUNNABLE, G_RUNNING) or (gives_up and cas_acq_rel(g, G_WAITING, G_RUNNING))):
        looks = pause(looks)  # a marker has its stack, or whoever ends its wait is about to say so
        if stop_requested():
            park_call_while_stopped()  # that one may have died
        if load_acquire(RT_XSHUTDOWN) != 0:
            store_release(g, G_RUNNING)  # and nobody repairs anything any more
            break
    run_ended(g)


@inline
def run_ended(g: int) -> None:
    """The goroutine at ``g`` is RUNNING, by this P."""
    me = self_p()
    note_run(g)
    g_at(g).under = me.curg
    me.curg = g
    blacken(g)  # what it has been given leaves it
