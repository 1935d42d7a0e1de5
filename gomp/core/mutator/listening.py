"""Waiting from Python without a thread that waits: a process listens for the ends of many waits at once.

Who has joined a queue (``waitcalls.py``, ``selectcalls.py``) is a goroutine without frames whose home is this P. If it *listens*, whoever makes it
ready puts it on this P's list of ended waits, and this process takes it from there: what one wake costs does not depend on how many wait.

Who listens and is done is on the list, or about to be, and is ended by nobody but who takes it from there. Who gives up before it is done is never
there. Whether it is done is said under the lock of the thing at which it waits, and so is that it listens; of one in a select its claim says so.

The list says nothing that the records do not: it is those that are RUNNABLE and listen. So it is made again after a death. Between the change of
the status and the list its maker does not park; what is taken from the list is RUNNING before this process parks.
"""

from __future__ import annotations

from gomp.core.heap.waitq import BUSY, GAVE_UP, OPEN, unlink_locked
from gomp.core.jit import kernel
from gomp.core.mutator.boundary import NO_SLOT
from gomp.core.mutator.goroutine import end_g
from gomp.core.mutator.hashmap import lock_of
from gomp.core.mutator.mapcalls import try_lock_map
from gomp.core.mutator.selectcalls import keep_selected
from gomp.core.mutator.waitcalls import keep, run_again, run_ended
from gomp.core.sched.locks import release
from gomp.core.sched.runq import NO_G
from gomp.core.sched.status import OK, RETRY, enter, leave
from gomp.core.shm import layout
from gomp.core.shm.atomics import cas_acq_rel, store_release, xchg_acq_rel
from gomp.core.shm.records import (
    AGAIN,
    G_RUNNABLE,
    G_RUNNING,
    G_XCLAIM,
    P_XENDED_WAITS,
    WAITS_IN_SELECT,
    WAITS_TO_RECEIVE,
    g_at,
    self_p,
)

_ENDED = layout.SELF_BASE + P_XENDED_WAITS


@kernel("int64(int64)")
def listen(g: int) -> int:
    """Have the goroutine at ``g`` listen, which waits here or is about to join a select: 1; 0 if it is done already; or RETRY."""
    if enter() != OK:
        return RETRY
    at = g_at(g).chan
    if not try_lock_map(at):
        leave()
        return RETRY
    waits = g_at(g).done == 0
    if waits:
        g_at(g).listens = 1
    release(lock_of(at))
    leave()
    return 1 if waits else 0


@kernel("int64(int64)")
def take_ended(into: int) -> int:
    """Address of a goroutine that has listened and is done, 0 if there is none, or RETRY. It is over, but for one in a select.

    ``selected`` says what has become of it, and what it has received is in the empty slot ``into`` or, a number, ``received_value``. Of one in a
    select it may be AGAIN: it is to join once more.
    """
    if enter() != OK:
        return RETRY
    me = self_p()
    if me.ended_waits == NO_G:
        me.ended_waits = xchg_acq_rel(_ENDED, NO_G)
    if me.ended_waits == NO_G:
        leave()
        return 0
    g = layout.g_addr(me.ended_waits)
    if not cas_acq_rel(g, G_RUNNABLE, G_RUNNING):  # a marker has its stack
        leave()
        return RETRY
    me.ended_waits = g_at(g).link
    run_ended(g)
    if g_at(g).wait == WAITS_IN_SELECT:
        me.curg = g_at(g).under
        _end_select(g, into)
    else:
        me.selected = g_at(g).done
        if g_at(g).wait == WAITS_TO_RECEIVE:
            keep(into if g_at(g).elem_is_link else NO_SLOT, g_at(g).elem)
        end_g(g)
    leave()
    return g


@kernel("void(int64, int64)")
def _end_select(g: int, into: int) -> None:
    if g_at(g).done == AGAIN:
        g_at(g).done = 0
        store_release(g + G_XCLAIM, BUSY)
        self_p().selected = AGAIN
    else:
        keep_selected(g, into)


@kernel("int64(int64)")
def give_up(g: int) -> int:
    """Have the goroutine at ``g``, which listens, wait no more: 1, and it is over, but for one in a select; 0 if it is done already; or RETRY."""
    if enter() != OK:
        return RETRY
    in_select = g_at(g).wait == WAITS_IN_SELECT
    if in_select:
        gives_up = cas_acq_rel(g + G_XCLAIM, OPEN, GAVE_UP)
    else:
        at = g_at(g).chan
        if not try_lock_map(at):
            leave()
            return RETRY
        gives_up = g_at(g).done == 0
        if gives_up:
            unlink_locked(g)
        release(lock_of(at))
    if gives_up:
        run_again(g, True)
        self_p().curg = g_at(g).under
        if not in_select:
            end_g(g)
    leave()
    return 1 if gives_up else 0
