"""Polls: where a running program looks whether it should do something else; and waiting for the collector.

One word answers everything. A compiled program looks at it at each function entry and loop back-edge; the rest is :func:`poll_slow`.
A P that waits here has published its native roots and is SAFE.
"""

from __future__ import annotations

from gomp.core.gc import limiter
from gomp.core.gc.assist import DRY, IN_DEBT, try_assist
from gomp.core.gc.ragged import pass_ragged
from gomp.core.gc.worker import has_work, run_worker
from gomp.core.jit import inline, kernel
from gomp.core.mutator.action import is_action_made
from gomp.core.sched.status import (
    NAPS_PER_LOOK,
    OK,
    SELF_POLL,
    TOO_DEEP,
    become_running,
    become_safe,
    grow_native_stack,
    has_room_for_others,
    note_safepoint,
    note_wait,
    shut_down_if_orphaned,
    wait_to_enter,
)
from gomp.core.shm import layout
from gomp.core.shm.atomics import (
    add_relaxed,
    and_acq_rel,
    cas_acq_rel,
    load_acquire,
    load_relaxed,
    store_relaxed,
    store_release,
    xchg_acq_rel,
)
from gomp.core.shm.calls import call_at
from gomp.core.shm.libc import eventfd_signal, futex_wait, nanotime, stack_pointer
from gomp.core.shm.records import (
    GC_MARK,
    GC_TRIGGER_HEAP,
    P_XAWAITS_CREDIT,
    P_XIDLE,
    P_XSLICE,
    PACER_XCREDIT,
    PACER_XCREDIT_GIVEN,
    PACER_XWAITERS,
    POLL_CLEAR,
    POLL_INTERRUPT,
    POLL_OTHERS,
    POLL_OVERDUE,
    POLL_RAGGED,
    POLL_STOP,
    POLL_WORK,
    RT_XCYCLE_DONE,
    RT_XCYCLES,
    RT_XGC_REQUEST,
    RT_XGCPHASE,
    RT_XSHUTDOWN,
    RT_XSTOP,
    TRACE_DETAIL_SHIFT,
    TRACE_FOR_COLLECTION,
    TRACE_FOR_CREDIT,
    TRACE_FOR_CYCLE,
    TRACE_FOR_END,
    TRACE_FOR_STOP,
    TRACE_WAIT,
    TRACE_WAIT_END,
    self_p,
)
from gomp.core.shm.tracing import is_tracing, tell_at

POLL_INTERRUPTED, POLL_OVERFLOW, POLL_SHUT_DOWN, POLL_NO_MEMORY = 1, 2, 3, 4
_NAP_NS = 1_000_000
_END_NAP_NS = 250_000
_DEAD_BYTES = 2048
_DEEPEST = 8
_IDLE = layout.SELF_BASE + P_XIDLE
_AWAITS_CREDIT = layout.SELF_BASE + P_XAWAITS_CREDIT


@inline
def poll() -> int:
    """At a loop's back-edge: 0, or why the program must end."""
    if load_relaxed(SELF_POLL) == 0:
        return OK
    why = poll_program()
    clear_dead_stack()
    return why


@inline
def clear_dead_stack() -> None:
    """Forget what calls that are over have left on the native stack, if this P has allocated enough since it last did.

    The frames of later calls have holes, and are scanned with what is in them: if the word that aligns a frame holds the root of a tree that the
    last round of a loop has dropped, the tree lives for another cycle. To be compiled into a function that calls others: it keeps nothing
    below its stack pointer.
    """
    if load_relaxed(SELF_POLL) & POLL_CLEAR:
        and_acq_rel(SELF_POLL, ~POLL_CLEAR)
        sp = stack_pointer() & -8
        for addr in range(max(sp - _DEAD_BYTES, 0), sp, 8):
            store_relaxed(addr, 0)


@inline
def poll_entry() -> int:
    """At a function's entry: as :func:`poll`, and a native stack that is too deep is POLL_OVERFLOW, one with no memory to scan it POLL_NO_MEMORY."""
    sp = stack_pointer()
    if sp < self_p().stack_guard:
        grown = grow_native_stack(sp)
        if grown != OK:
            return POLL_OVERFLOW if grown == TOO_DEEP else POLL_NO_MEMORY
    if load_relaxed(SELF_POLL) & ~POLL_CLEAR == 0:
        return OK
    return poll_program()


@kernel("int64()")
def poll_program() -> int:
    """At a poll of a program itself, or of a step, in the middle of nothing: goroutines may run here, and all that they do."""
    if load_acquire(SELF_POLL) & POLL_OTHERS and (self_p().curg == 0 or _is_overdue()):
        and_acq_rel(SELF_POLL, ~POLL_OTHERS)
        if _may_run_others():
            why = call_at(self_p().scheduler, 0)
            if why != OK:
                return why
    return poll_slow()


@inline
def _is_overdue() -> bool:
    """A goroutine lets others run at its next action. If it makes none for a whole slice, they run on top of its step: they cannot wait for it there,
    and if the P dies, all are lost. Among them may be one that does the same, so it goes some levels deep."""
    return load_relaxed(SELF_POLL) & POLL_OVERDUE != 0 and not is_action_made()


@inline
def _may_run_others() -> bool:
    me = self_p()
    if me.no_park != 0 or me.scheduler == 0 or not has_room_for_others():
        return False
    return me.scheduling == 0 if me.curg == 0 else me.scheduling < _DEEPEST


@kernel("int64()")
def poll_slow() -> int:
    bits = load_acquire(SELF_POLL)
    if bits & POLL_RAGGED:
        pass_ragged()
    if bits & POLL_STOP and load_acquire(RT_XSTOP) != 0:
        park_until(RT_XCYCLES, 0, TRACE_FOR_STOP)
    if load_acquire(RT_XSHUTDOWN) != 0:
        return POLL_SHUT_DOWN
    if bits & POLL_WORK:
        and_acq_rel(SELF_POLL, ~POLL_WORK)
        run_worker()
    if bits & POLL_INTERRUPT:  # which stays set until the program ends
        return POLL_INTERRUPTED
    return OK


@kernel("void(int64, int64, int64)")
def park_until(word: int, least: int, why: int) -> None:
    """Wait, in a compiled program, until no stop is on and the counter at ``word`` is at least ``least``. ``why``: TRACE_FOR_*."""
    began = nanotime()
    note_safepoint(began)
    if is_tracing():
        tell_at(began, TRACE_WAIT | why << TRACE_DETAIL_SHIFT, 0, 0)
    _sleep_until(word, least)
    note_wait(began)


@inline
def _park_idle(word: int, least: int, why: int) -> None:
    """As :func:`park_until`, for what the collector is to do: the time is not the program's, nor is the P stopped."""
    began = nanotime()
    limiter.begin_event(limiter.EVENT_IDLE, began)
    if is_tracing():
        tell_at(began, TRACE_WAIT | why << TRACE_DETAIL_SHIFT, 0, 0)
    _sleep_until(word, least)
    now = nanotime()
    if is_tracing():
        tell_at(now, TRACE_WAIT_END, 0, 0)
    limiter.end_event(now)
    store_relaxed(layout.SELF_BASE + P_XSLICE, now)


@inline
def _sleep_until(word: int, least: int) -> None:
    become_safe()
    naps = 0
    while load_acquire(RT_XSHUTDOWN) == 0:
        naps += 1
        if naps % NAPS_PER_LOOK == 0:
            shut_down_if_orphaned()
        now = load_acquire(word)
        if now < least and load_acquire(RT_XSTOP) == 0:
            futex_wait(word, now, _NAP_NS)
        elif now >= least and become_running():
            break
        else:
            wait_to_enter(_NAP_NS)


# --- asking for a collection ------------------------------------------------------------------------------------------


@kernel("int64(int64)")
def request_collection(kind: int) -> int:
    """Ask the coordinator for a cycle, by GC_TRIGGER_*; returns how many will have begun when it has. The strongest request stands."""
    target = load_acquire(RT_XCYCLES) + 1
    pending = load_acquire(RT_XGC_REQUEST)
    while pending < kind and not cas_acq_rel(RT_XGC_REQUEST, pending, kind):
        pending = load_acquire(RT_XGC_REQUEST)
    eventfd_signal(self_p().wake_fd)
    return target


@kernel("int64()")
def take_request() -> int:
    """The pending request, or 0; it is the coordinator's now."""
    return xchg_acq_rel(RT_XGC_REQUEST, 0)


@kernel("void(int64)")
def wait_for_cycle(kind: int) -> None:
    """Ask for a collection and wait, in a compiled program: until it has begun if it was the heap's size that asked, else until it is over.

    The caller has nothing in hand that is not on its native stack.
    """
    target = request_collection(kind)
    if kind != GC_TRIGGER_HEAP:
        store_release(_IDLE, 1)
        _park_idle(RT_XCYCLE_DONE, target, TRACE_FOR_COLLECTION)
        store_release(_IDLE, 0)
        return
    self_p().cycle_asked_for = target  # its slice of the processor goes on
    park_until(RT_XCYCLES, target, TRACE_FOR_CYCLE)
    and_acq_rel(SELF_POLL, ~POLL_WORK)


@kernel("int64(int64, int64, int64)", nogil=True)
def sleep_until(word: int, more_than: int, timeout_ns: int) -> int:
    """Sleep until the counter at ``word`` is more than that, at most ``timeout_ns``; returns the counter. For Python: this P is SAFE."""
    now = load_acquire(word)
    if now <= more_than:
        futex_wait(word, now, timeout_ns)
    return load_acquire(word)


@kernel("int64(int64, int64, int64)", nogil=True)
def sleep_idle_until(word: int, more_than: int, timeout_ns: int) -> int:
    """As :func:`sleep_until`, for the main thread of a P that runs nothing meanwhile: the collector may have its time."""
    limiter.begin_idle()
    now = sleep_until(word, more_than, timeout_ns)
    limiter.end_idle()
    return now


# --- assists ----------------------------------------------------------------------------------------------------------


@kernel("void()")
def assist_waiting() -> None:
    """Pay this P's debt, in a compiled program: by marking, or by waiting for what others mark. The caller has nothing in hand."""
    given = load_acquire(PACER_XCREDIT_GIVEN)
    paid = try_assist()
    while paid == IN_DEBT:
        bits = load_acquire(SELF_POLL)
        if bits & POLL_INTERRUPT or load_acquire(RT_XSHUTDOWN) != 0:
            return  # the program sees it at its next poll
        if bits & ~(POLL_CLEAR | POLL_OTHERS):
            poll_slow()
        else:
            _park_for_credit()
            run_worker()  # who goes on after a wait comes from Go's scheduler, which chooses workers first
        given = load_acquire(PACER_XCREDIT_GIVEN)
        paid = try_assist()
    if paid == DRY:
        _await_end(given)


@inline
def _await_end(given: int) -> None:
    """Leave the coordinator a moment to end the marking before this P allocates more that is born black (in Go the assist ends it, gcMarkDone)."""
    began = nanotime()
    if is_tracing():
        tell_at(began, TRACE_WAIT | TRACE_FOR_END << TRACE_DETAIL_SHIFT, 0, 0)
    _join_waiters()
    become_safe()
    futex_wait(PACER_XCREDIT_GIVEN, given, _END_NAP_NS)
    naps = 0
    while load_acquire(RT_XSHUTDOWN) == 0 and not become_running():
        wait_to_enter(_NAP_NS)
        naps += 1
        if naps % NAPS_PER_LOOK == 0:
            shut_down_if_orphaned()
    _leave_waiters()
    note_wait(began)


@inline
def is_credit_awaited() -> bool:
    """Whether it is any use to wait for credit. To be asked as one of the waiters: what was shared when there were none was not announced.

    Both sides store and then load, in no order that aarch64 keeps: who is missed sleeps until the next credit, which the coordinator gives.
    """
    return (
        load_relaxed(RT_XGCPHASE) == GC_MARK
        and load_relaxed(PACER_XCREDIT) <= 0
        and not has_work()
        and not limiter.is_limiting()
    )


@inline
def _park_for_credit() -> None:
    given = load_acquire(PACER_XCREDIT_GIVEN)
    _join_waiters()
    if is_credit_awaited():
        _park_idle(PACER_XCREDIT_GIVEN, given + 1, TRACE_FOR_CREDIT)
    _leave_waiters()


@inline
def _join_waiters() -> None:
    """Killed here or until :func:`_leave_waiters` is done, this P is counted once too often at most: repair takes off what its record says."""
    add_relaxed(PACER_XWAITERS, 1)
    add_relaxed(_AWAITS_CREDIT, 1)


@inline
def _leave_waiters() -> None:
    add_relaxed(_AWAITS_CREDIT, -1)
    add_relaxed(PACER_XWAITERS, -1)


@kernel("void(int64)", nogil=True)
def sleep_for_credit(timeout_ns: int) -> None:
    """As :func:`assist_waiting` waits, for Python: at most ``timeout_ns``, this P is SAFE."""
    given = load_acquire(PACER_XCREDIT_GIVEN)
    _join_waiters()
    if is_credit_awaited():
        futex_wait(PACER_XCREDIT_GIVEN, given, timeout_ns)
    _leave_waiters()
