"""Select as programs use it that run on native stacks: in compiled code, where it waits, and from Python by slot numbers.

From Python a goroutine stands for the program from the beginning: it is made, gets its cases one by one, and joins their queues, each of which may be
refused with RETRY. It is run by nobody meanwhile, and what it is to send Python holds. Once it waits it is as any other.
"""

from __future__ import annotations

from gomp.core.heap.mheap import NO_MEMORY
from gomp.core.heap.waitq import BUSY, unlink_locked
from gomp.core.jit import inline, kernel
from gomp.core.mutator.action import forget_action
from gomp.core.mutator.boundary import NO_SLOT, OUT_OF_MEMORY, load_handle
from gomp.core.mutator.goroutine import end_g, start_waiter
from gomp.core.mutator.hashmap import lock_of
from gomp.core.mutator.mapcalls import try_lock_map
from gomp.core.mutator.schedule import await_done
from gomp.core.mutator.select import (
    DONE,
    NONE_READY,
    WAITS,
    add_case,
    begin_select,
    end_select,
    free_cases,
    leave_queues,
    look_again,
    open_claim,
    try_case_locked,
    try_cases,
    wait_for_cases,
)
from gomp.core.mutator.waitcalls import keep, run_again
from gomp.core.mutator.waits import stop_waiting, unlock
from gomp.core.sched.locks import release
from gomp.core.sched.runq import NO_G
from gomp.core.sched.status import OK, RETRY, enter, leave
from gomp.core.shm import layout
from gomp.core.shm.atomics import store_release
from gomp.core.shm.records import AGAIN, G_XCLAIM, WAITS_TO_RECEIVE, WAITS_TO_SEND, g_at, self_p

LOOK_AGAIN = -1003  # beside those of select.py

# --- in compiled code -------------------------------------------------------------------------------------------------


@kernel("int64(int64, int64)")
def select_waiting(n: int, blocks: int) -> int:
    """Do one of the ``n`` cases in P_OUT, however long it takes if it ``blocks``: its place, and the rest is as ``try_cases`` says; NONE_READY; or
    why not, NO_MEMORY or as await_done says."""
    place = try_cases(n)
    if place == NONE_READY and blocks != 0:
        place = _select_as_goroutine(n)
    forget_action()
    return place


@inline
def _select_as_goroutine(n: int) -> int:
    g = start_waiter()
    if g < 0:
        return NO_MEMORY
    why = wait_for_cases(n, g)
    while why == WAITS:
        why = await_done(g)
        if why == OK and g_at(g).done == AGAIN:
            why = look_again(g)
    if why == DONE:
        why = end_select(g)
    else:
        leave_queues(g)
        free_cases(g)
    end_g(g)
    return why


# --- from Python ------------------------------------------------------------------------------------------------------


@kernel("int64()")
def select_begin() -> int:
    """Address of a goroutine that is to wait in a select, OUT_OF_MEMORY or RETRY."""
    if enter() != OK:
        return RETRY
    g = start_waiter()
    if g >= 0:
        begin_select(g)
        self_p().curg = g_at(g).under
    leave()
    return g if g >= 0 else OUT_OF_MEMORY


@kernel("int64(int64, int64, int64, int64, int64)")
def select_add(g: int, slot: int, sends: int, value: int, source: int) -> int:
    """Add a case, before the others: of the channel in handle ``slot``; if it ``sends`` as ``chan_send``. OK, OUT_OF_MEMORY or RETRY."""
    if enter() != OK:
        return RETRY
    value = load_handle(source) if source >= 0 else value
    case = add_case(g, load_handle(slot), value, WAITS_TO_SEND if sends else WAITS_TO_RECEIVE)
    leave()
    return OK if case >= 0 else OUT_OF_MEMORY


@kernel("int64(int64, int64)")
def select_join(g: int, into: int) -> int:
    """Do one of the cases, DONE, with what is received in ``into`` as ``chan_receive``; or wait: WAITS. Or RETRY."""
    if enter() != OK:
        return RETRY
    why = _join(g)
    if why == DONE:
        keep_selected(g, into)
    leave()
    return why


@inline
def _join(g: int) -> int:
    """As :func:`~gomp.core.mutator.select.join_queues`, but that it waits for no lock."""
    me, number = self_p(), g_at(g).cases
    while number != NO_G:
        case = layout.g_addr(number)
        ch = g_at(case).chan
        if ch != 0:
            if not try_lock_map(ch):
                return RETRY
            me.selecting = layout.g_number(g)
            done = try_case_locked(case)
            me.selecting = NO_G
            unlock(ch)
            if done:
                g_at(g).done = number
                return DONE
        number = g_at(case).link
    return WAITS if open_claim(g) else RETRY


@inline
def keep_selected(g: int, into: int) -> None:
    """What the select of the goroutine at ``g`` has done, for Python."""
    done = layout.g_addr(g_at(g).done)
    self_p().selected = g_at(done).done
    if g_at(done).wait == WAITS_TO_RECEIVE:
        keep(into if g_at(done).elem_is_link else NO_SLOT, g_at(done).elem)


@kernel("int64(int64, int64)")
def select_end_wait(g: int, into: int) -> int:
    """The goroutine at ``g`` waits no more: DONE, as :func:`select_join`; NONE_READY; LOOK_AGAIN: it is to join once more. Or RETRY."""
    if enter() != OK:
        return RETRY
    gives_up = stop_waiting(g) == 1
    run_again(g, gives_up)
    self_p().curg = g_at(g).under
    why = NONE_READY if gives_up else DONE
    if g_at(g).done == AGAIN:
        g_at(g).done = 0
        store_release(g + G_XCLAIM, BUSY)
        why = LOOK_AGAIN
    elif why == DONE:
        keep_selected(g, into)
    leave()
    return why


@kernel("int64(int64)")
def select_place(g: int) -> int:
    """Place of the case that is done."""
    place, number = 0, g_at(g).cases
    while number != g_at(g).done:
        place += 1
        number = g_at(layout.g_addr(number)).link
    return place


@kernel("int64()")
def selected() -> int:
    """How the case is done: CHAN_DONE or CHAN_CLOSED."""
    return self_p().selected


@kernel("int64(int64)")
def select_end(g: int) -> int:
    """The goroutine at ``g``, which is in no wait, is over: OK, or RETRY."""
    if enter() != OK:
        return RETRY
    number = g_at(g).cases
    while number != NO_G:
        case = layout.g_addr(number)
        if g_at(case).linked != 0:
            if not try_lock_map(g_at(case).chan):
                leave()
                return RETRY
            if g_at(case).linked != 0:
                unlink_locked(case)
            release(lock_of(g_at(case).chan))
        number = g_at(case).link
    free_cases(g)
    g_at(g).under = self_p().curg
    self_p().curg = g
    end_g(g)
    leave()
    return OK
