"""A goroutine: how one begins and ends, and its frames' steps, one after another, with what they say to do next.

A *step* is compiled from the body of a frame. It runs with the frame's address until it has to wait for anything, another frame's result
first of all, and returns an *action*: the address of a frame type to call it, or one of the small numbers below. The slots of the frame that is to be
called, or the result, it has left in the P's P_OUT. So no step runs while frames come, go and move; and no native frame leads into a stack that
moves.

A goroutine with a *home* is run by one P alone, where somebody waits for it: it is in no queue, and ends with that P. Any other is in a queue
while it is ready (:mod:`~gomp.core.sched.runq`).
"""

from __future__ import annotations

import numpy as np

from gomp.core.heap.gs import drop_g, take_g
from gomp.core.heap.mheap import NO_MEMORY
from gomp.core.heap.stack import (
    adjust_slots,
    copy_stack,
    innermost,
    make_room,
    pop_frame,
    push_frame,
    shrink_stack,
    stack_hi,
    stack_lo,
    stack_size,
)
from gomp.core.jit import inline, kernel
from gomp.core.mutator.action import (
    ACTION_LOCK,
    ACTION_RAISED,
    ACTION_RECEIVE,
    ACTION_RETURN,
    ACTION_SELECT,
    ACTION_SEND,
    ACTION_WAIT,
    ACTION_YIELD,
    COUNT_BITS,
    forget_action,
)
from gomp.core.mutator.chan import VALUE, receive, send
from gomp.core.mutator.select import (
    CASE_BYTES,
    DONE,
    NONE_READY,
    SENDS,
    WAITS,
    end_select,
    look_again,
    try_cases,
    wait_for_cases,
)
from gomp.core.mutator.sites import NO_SITE
from gomp.core.mutator.sync import holder, lock_mutex, wait_group
from gomp.core.mutator.waits import blacken, tell_ready
from gomp.core.sched.latency import note_ready
from gomp.core.sched.locks import begin_critical, end_critical
from gomp.core.sched.parking import wake_one
from gomp.core.sched.runq import NO_G, is_ring_empty, runq_put
from gomp.core.sched.status import SELF_POLL
from gomp.core.shm import layout
from gomp.core.shm.atomics import (
    add_relaxed,
    and_acq_rel,
    copy_range,
    load64,
    load_relaxed,
    store8,
    store64,
    store_release,
)
from gomp.core.shm.calls import call_at
from gomp.core.shm.libc import nanotime
from gomp.core.shm.records import (
    AGAIN,
    CHAN_CLOSED,
    CHAN_DONE,
    CHAN_WOULD_BLOCK,
    DETAIL_READIES,
    FRAME_HEADER,
    FRAME_INTO,
    FRAME_TYPE,
    G_RUNNABLE,
    G_RUNNING,
    INTO_BITS,
    NOT_WAITING,
    P_OUT,
    P_XMAIL,
    P_XOVER,
    POLL_OTHERS,
    SCHED_XGOIDS,
    SCHED_XRUNQ_SIZE,
    TRACE_CREATE,
    TYPE_BYTES,
    WAITS_IN_SELECT,
    WAITS_TO_RECEIVE,
    WAITS_TO_SEND,
    g_at,
    self_p,
    stackpool,
)
from gomp.core.shm.tracing import is_too_much, is_tracing, skip_no_more

# Why :func:`execute` comes back. It is over, or cannot go on (STACK_OVERFLOW and NO_MEMORY too); or others are to run now.
ENDED, RAISED, NO_STEP, OTHER_ACTION, SENT_ON_CLOSED, WAITS_IN_STEP = range(0, -6, -1)
YIELDED, PARKED = 1, 2
ANYWHERE = 0  # instead of a home
_OUT = layout.SELF_BASE + P_OUT
_INTO_MASK = (1 << 32) - 1
_IDS_AT_A_TIME = 16  # as many as Go's Ps take
SLICE_NS = 10_000_000  # that a goroutine has, if others are ready (forcePreemptNS)
_LOOK_EVERY = 1024  # actions between looks at the clock


# --- beginning and end ------------------------------------------------------------------------------------------------


@kernel("int64(int64)")
def start_here(type_addr: int) -> int:
    """Address of a new goroutine that this P runs, and nobody else ever, with a frame of that type whose slots are in P_OUT.

    NO_MEMORY, STACK_OVERFLOW.
    """
    g = _make(type_addr, self_p().idx + 1)
    if g < 0:
        return g
    _run_here(g)
    end_critical()
    return g


@kernel("int64()")
def start_waiter() -> int:
    """Address of a goroutine without frames, which stands for the program that this P runs where that has to wait; NO_MEMORY."""
    begin_critical()
    number = take_g()
    if number == NO_G:
        end_critical()
        return NO_MEMORY
    g = layout.g_addr(number)
    _describe(g, self_p().idx + 1, 0)
    g_at(g).into = NO_SITE
    _run_here(g)
    end_critical()
    return g


@inline
def _run_here(g: int) -> None:
    me = self_p()
    g_at(g).under = me.curg
    store_release(g, G_RUNNING)
    g_at(g).runs += 1
    me.curg = g


@kernel("int64(int64)")
def go(type_addr: int) -> int:
    """Have a new goroutine run, anywhere and when its time has come, which begins with a frame of that type whose slots are in P_OUT: its id.

    NO_MEMORY, STACK_OVERFLOW.
    """
    g = _make(type_addr, ANYWHERE)
    if g < 0:
        return g
    goid = g_at(g).id
    note_ready(g)
    if is_tracing() and not is_too_much(DETAIL_READIES):
        tell_ready(TRACE_CREATE, goid, g_at(g).parent)
    store_release(g, G_RUNNABLE)
    runq_put(layout.g_number(g), 1)
    end_critical()
    wake_one()
    return goid


@inline
def _make(type_addr: int, home: int) -> int:
    """A goroutine of G_IDLE, whose address is in this P's hand: it does not park until :func:`end_critical`. Or why there is none.

    It is black: while the heap is marked, what it was given is grey from now on.
    """
    begin_critical()
    number = take_g()
    if number == NO_G:
        end_critical()
        return NO_MEMORY
    g, me = layout.g_addr(number), self_p()
    frame = push_frame(g, type_addr)
    if frame < 0:
        drop_g(number)
        end_critical()
        return frame
    copy_range(frame + FRAME_HEADER, _OUT, me.out_bytes)
    me.out_bytes = 0
    store64(frame + FRAME_INTO, 0)  # and FRAME_LINE
    _describe(g, home, type_addr)
    blacken(g)
    return g


@inline
def _describe(g: int, home: int, type_addr: int) -> None:
    gp, me = g_at(g), self_p()
    gp.p = me.idx
    gp.home = home
    gp.entry = type_addr
    gp.wait = NOT_WAITING
    gp.since_ns = 0
    gp.listens = 0
    gp.site = me.call_site
    gp.id = next_id()
    gp.parent, inherited = _whose()
    gp.labels = me.call_labels if me.call_labels != 0 else inherited
    me.call_labels = 0


@inline
def _whose() -> tuple[int, int]:
    """Id and labels of the goroutine that starts another here, 0 if a program does."""
    me = self_p()
    if me.curg != 0:
        return g_at(me.curg).id, np.int64(g_at(me.curg).labels)
    if me.stack_thread == me.main_thread:
        return me.python_g, me.python_labels
    return np.int64(0), np.int64(0)


@kernel("int64()")
def next_id() -> int:
    """Of a goroutine that begins here. In any state."""
    me = self_p()
    if me.goid_next == me.goid_end:
        me.goid_next = add_relaxed(SCHED_XGOIDS, _IDS_AT_A_TIME) + 1
        me.goid_end = me.goid_next + _IDS_AT_A_TIME
    me.goid_next += 1
    return me.goid_next - 1


@kernel("void(int64)")
def end_g(g: int) -> None:
    """The goroutine at ``g``, which ran here last, is over, whatever is left on its stack."""
    self_p().curg = g_at(g).under
    forget_action()
    drop_g(layout.g_number(g))


# --- steps ------------------------------------------------------------------------------------------------------------


@kernel("int64(int64)")
def execute(g: int) -> int:
    """Run the goroutine at ``g``, as which this P's ``curg`` names it, until it is over, ENDED, with its result in P_OUT; or why not so far.

    YIELDED: it would go on. PARKED: it waits, and may be anybody's by now. Or it cannot go on.
    """
    if g_at(g).wait != NOT_WAITING:
        why = _end_wait(g)
        if why != ENDED:
            return why
    frame = innermost(g)
    actions, since = 0, 0
    while frame != 0:
        actions += 1
        if actions % _LOOK_EVERY == 0:
            now = nanotime()
            since = now if since == 0 else since
            if now - since > SLICE_NS and _is_anything_else_ready():
                return YIELDED
            if is_python_s_turn(now):
                return YIELDED
        if load_relaxed(SELF_POLL) & POLL_OTHERS:
            and_acq_rel(SELF_POLL, ~POLL_OTHERS)
            if is_tracing():
                skip_no_more()
            if _is_anything_else_ready():
                return YIELDED
        if g_at(g).wants_shrink or stackpool().always_copy:
            frame = _move(g)
        step = _step_of(load64(frame + FRAME_TYPE))
        if step == 0:
            return NO_STEP
        forget_action()
        action = call_at(step, frame)
        if action == ACTION_RAISED:
            return RAISED
        if action != self_p().out_for:
            return OTHER_ACTION
        what = action & ~COUNT_BITS
        if what == ACTION_RETURN:
            frame = _return(g, frame)
        elif what == ACTION_YIELD:
            return YIELDED
        elif what == ACTION_RECEIVE:
            if not _receive(g, frame):
                return PARKED
        elif what == ACTION_SEND:
            sent = _send(g)
            if sent != CHAN_DONE:
                return PARKED if sent == CHAN_WOULD_BLOCK else SENT_ON_CLOSED
        elif what == ACTION_SELECT:
            why = _select(g, frame)
            if why != ENDED:
                return why
        elif what == ACTION_LOCK:
            if _lock(g) == CHAN_WOULD_BLOCK:
                return PARKED
        elif what == ACTION_WAIT:
            if _wait(g) == CHAN_WOULD_BLOCK:
                return PARKED
        else:
            frame = _call(g, what)
            if frame < 0:
                return frame
    return ENDED


@inline
def is_python_s_turn(now_ns: int) -> bool:
    """Whether Python, which has goroutines run while it waits, is to look whether its time is over, or a signal has come."""
    turn_ns = self_p().python_turn_ns
    return turn_ns != 0 and now_ns > turn_ns


@inline
def _is_anything_else_ready() -> bool:
    return (
        load_relaxed(layout.SELF_BASE + P_XMAIL) != 0
        or load_relaxed(layout.SELF_BASE + P_XOVER) != 0
        or load_relaxed(SCHED_XRUNQ_SIZE) != 0
        or not is_ring_empty(layout.p_addr(self_p().idx))
    )


@inline
def _receive(g: int, frame: int) -> bool:
    """False if the goroutine at ``g`` waits from now on, and may be anybody's."""
    me = self_p()
    ch, into, ok_into = load64(_OUT), me.out_into, me.out_ok
    gp = g_at(g)
    gp.into = into
    gp.ok_into = ok_into
    done = receive(ch, g)
    if done == CHAN_WOULD_BLOCK:
        me.out_bytes = 0
        return False
    _put_received(frame, into, ok_into, load64(VALUE), done)
    return True


@inline
def _put_received(frame: int, into: int, ok_into: int, value: int, done: int) -> None:
    me = self_p()
    me.out_bytes = 0
    if into != 0:
        store64(_OUT, value)
        copy_range(frame + (into & ((1 << INTO_BITS) - 1)), _OUT, into >> INTO_BITS)
    if ok_into != 0:
        store8(frame + (ok_into & ((1 << INTO_BITS) - 1)), 1 if done == CHAN_DONE else 0)


@inline
def _send(g: int) -> int:
    done = send(load64(_OUT), load64(_OUT + 8), g)
    self_p().out_bytes = 0
    return done


@inline
def _lock(g: int) -> int:
    m = load64(_OUT)
    self_p().out_bytes = 0
    return lock_mutex(m, holder(g), g)


@inline
def _wait(g: int) -> int:
    group = load64(_OUT)
    self_p().out_bytes = 0
    return wait_group(group, g)


@kernel("int64(int64, int64)")
def _select(g: int, frame: int) -> int:
    """Do the select that P_OUT describes: ENDED, and the frame knows; PARKED, SENT_ON_CLOSED or NO_MEMORY."""
    me = self_p()
    n, which = me.out_ncases, me.out_into
    place = try_cases(n)
    if place >= 0:
        me.out_into = load64(_OUT + CASE_BYTES * place + 16)
        me.out_ok = load64(_OUT + CASE_BYTES * place + 24)
    elif me.out_blocks != 0:
        place = wait_for_cases(n, g)
        if place == WAITS:
            return PARKED
        if place != DONE:
            return NO_MEMORY
        place = end_select(g)
    return _put_selected(frame, which, place)


@inline
def _put_selected(frame: int, which: int, place: int) -> int:
    """Tell the frame which case is done, and what was received if one was: ENDED, or SENT_ON_CLOSED."""
    me = self_p()
    if which != 0:
        store64(frame + (which & ((1 << INTO_BITS) - 1)), place if place != NONE_READY else -1)
    if place == NONE_READY:
        me.out_bytes = 0
        return ENDED
    if me.out_into != SENDS:
        _put_received(frame, me.out_into, me.out_ok, load64(VALUE), me.selected)
        return ENDED
    me.out_bytes = 0
    return ENDED if me.selected == CHAN_DONE else SENT_ON_CLOSED


@kernel("int64(int64)")
def _end_selecting(g: int) -> int:
    """As :func:`_end_wait` of one in a select, which may have to wait on: PARKED."""
    which = g_at(g).into
    if g_at(g).done == AGAIN and look_again(g) == WAITS:
        return PARKED
    place = end_select(g)
    return _put_selected(innermost(g), which, place)


@inline
def _end_wait(g: int) -> int:
    """What the goroutine at ``g`` has waited for goes where its frame wants it: ENDED, or SENT_ON_CLOSED."""
    gp = g_at(g)
    if gp.wait == WAITS_IN_SELECT:
        return _end_selecting(g)
    why, done, value = gp.wait, gp.done, gp.elem
    gp.wait = NOT_WAITING
    gp.elem = 0
    if why == WAITS_TO_RECEIVE:
        _put_received(innermost(g), gp.into, gp.ok_into, value, done)
    return SENT_ON_CLOSED if why == WAITS_TO_SEND and done == CHAN_CLOSED else ENDED


@inline
def _move(g: int) -> int:
    """The innermost frame, where it is now."""
    if stackpool().always_copy:
        copy_stack(g, stack_size(g))
    else:
        shrink_stack(g)
    return innermost(g)


@inline
def _step_of(type_addr: int) -> int:
    """Address of the machine code of a frame type's step in this process, 0 if it has none."""
    return load64(self_p().steps + (type_addr - layout.TYPES_BASE) // TYPE_BYTES * 8)


@inline
def _call(g: int, type_addr: int) -> int:
    """The new frame, STACK_OVERFLOW or NO_MEMORY."""
    lo, hi = stack_lo(g), stack_hi(g)
    if self_p().out_room != 0:
        short = make_room(g, self_p().out_room)
        if short < 0:
            return short
    frame = push_frame(g, type_addr)
    if frame >= 0:
        copy_range(frame + FRAME_HEADER, _OUT, self_p().out_bytes)
        self_p().out_bytes = 0
        store64(frame + FRAME_INTO, self_p().out_into)  # and FRAME_LINE
        if stack_lo(g) != lo:  # what its caller has left in P_OUT leads into the old one
            adjust_slots(frame, lo, hi, stack_hi(g) - hi)
    return frame


@inline
def _return(g: int, frame: int) -> int:
    """The caller's frame, which has the result where it wants it; 0 if there is none, and the result is still in P_OUT."""
    self_p().out_bytes = 0
    into = load64(frame + FRAME_INTO) & _INTO_MASK
    caller = pop_frame(g)
    if caller != 0 and into != 0:
        copy_range(caller + (into & ((1 << INTO_BITS) - 1)), _OUT, into >> INTO_BITS)
    return caller
