"""The scheduler: which goroutine runs next on a P (proc.go, schedule and findRunnable).

A P runs goroutines when it has nothing else to do: its process's main thread between two programs, and whatever thread waits here for a goroutine.
The order is Go's: what was made ready last, the P's own ring, the list for all (and that first, every 61st time), then what can be stolen. Marking
comes before all of it, at the polls.
"""

from __future__ import annotations

import numpy as np

from gomp.core.gc import limiter
from gomp.core.heap.gs import drop_g
from gomp.core.heap.stack import innermost
from gomp.core.jit import inline, kernel
from gomp.core.mutator.action import ACTION_SELECT, COUNT_BITS, forget_action
from gomp.core.mutator.goroutine import (
    ANYWHERE,
    ENDED,
    NO_STEP,
    PARKED,
    SLICE_NS,
    WAITS_IN_STEP,
    YIELDED,
    end_g,
    execute,
    is_python_s_turn,
)
from gomp.core.mutator.poll import POLL_SHUT_DOWN, poll
from gomp.core.mutator.pythoncalls import begin_call, end_call
from gomp.core.mutator.waits import blacken, change_status, stop_waiting
from gomp.core.sched.latency import note_ready, note_run
from gomp.core.sched.locks import begin_critical, end_critical
from gomp.core.sched.parking import begin_spinning, end_spinning, end_wait, is_any_queued, park, ring, wake_one, wakes
from gomp.core.sched.runq import NO_G, get_global, has_ring, put_global, runq_get, runq_put, runq_steal
from gomp.core.sched.status import (
    EVERY_STACK,
    OK,
    RETRY,
    SELF_POLL,
    enter,
    enter_waiting,
    leave,
    park_while_stopped,
    pause,
    stop_requested,
)
from gomp.core.shm import layout
from gomp.core.shm.atomics import cas_acq_rel, cpu_pause, load_acquire, load_relaxed, lsr, store_release
from gomp.core.shm.calls import call_at
from gomp.core.shm.libc import nanotime, stack_pointer
from gomp.core.shm.records import (
    DETAIL_RUNS,
    FRAME_TYPE,
    G_IDLE,
    G_RUNNABLE,
    G_RUNNING,
    G_STATUS_MASK,
    G_WAITING,
    NOT_WAITING,
    P_XMAIL,
    P_XOVER,
    POLL_CLEAR,
    RT_XSHUTDOWN,
    RUNQ_SIZE,
    TRACE_DETAIL_SHIFT,
    TRACE_FOR_PROGRAM,
    TRACE_RUN,
    TRACE_RUN_END,
    TRACE_SITE_SHIFT,
    TRACE_WAIT,
    TRACE_WAIT_END,
    TYPE_BYTES,
    WAITS_FOR_STEP,
    WAITS_FOR_TAKER,
    g_at,
    runtime,
    self_p,
    type_at,
)
from gomp.core.shm.tracing import begin_detail, is_too_much, is_tracing, tell, tell_at, was_running

NOBODY = 0
# Why :func:`schedule` comes back; or what a poll says.
NOTHING, READY, MAIL, OTHER_THREAD = 0, -1, -2, -3
POLLED = -100
_AT_NO_MAIL, AT_MAIL, AFTER_ONE = range(3)
_LIST_FIRST = 61  # every so many times
_ROUNDS = 4  # of looking at all other Ps
_SPIN_NS = 30_000
_TIMED_EVERY = 8  # goroutines
_HEEDLESS_NS = 1_000_000  # that nobody minds a signal being late
_NAP_NS = 100_000_000
_MAIL = layout.SELF_BASE + P_XMAIL
_OVER = layout.SELF_BASE + P_XOVER


@kernel("int64(int64, int64)")
def run_ready(thread: int, only_one: int) -> int:
    """Run goroutines from Python, in its thread number ``thread``: as :func:`schedule`, or OTHER_THREAD. If ``only_one`` there is MAIL after that.

    What the collector has to see of the native stack is below this kernel's frame, which holds no addresses.
    """
    if self_p().stack_thread != thread:
        return OTHER_THREAD
    return _run_from_python(stack_pointer(), AFTER_ONE if only_one else AT_MAIL)


@kernel("int64(int64, int64, int64)")
def park_and_run(thread: int, seen: int, timeout_ns: int) -> int:
    """From Python, in its main thread number ``thread``: sleep until this P is woken once more than ``seen``, and run what is ready, again and again.

    What comes to be run does not wait for Python to be woken. NOTHING after ``timeout_ns``, or when a signal has come. MAIL also when one may have
    come while something ran; else as :func:`schedule`.
    """
    until = nanotime() + timeout_ns
    while True:
        _nap(seen, until - nanotime())
        now = wakes()
        if now == seen or self_p().stack_thread != thread or _has_more_to_do():
            _look_no_more()
            return NOTHING if now == seen else MAIL
        seen = now
        began = nanotime()
        why = _run_from_python(stack_pointer(), AT_MAIL)
        if why != NOTHING:
            return why
        if nanotime() - began > _HEEDLESS_NS:
            return MAIL


@inline
def _run_from_python(native_base: int, heeds_mail: int) -> int:
    me = self_p()
    if enter_waiting() != OK:
        return POLL_SHUT_DOWN
    me.native_base = native_base
    me.stack_guard = EVERY_STACK
    me.python_turn_ns = nanotime() + SLICE_NS
    why = schedule(NOBODY, heeds_mail)
    me.python_turn_ns = 0
    leave()
    return why


@inline
def _nap(seen: int, timeout_ns: int) -> None:
    """SAFE, on a P's main thread."""
    limiter.begin_idle()
    park(seen, timeout_ns)
    limiter.end_idle()


@inline
def _has_more_to_do() -> bool:
    """Whether something has come that Python is to look at."""
    return load_acquire(_MAIL) != 0 or load_acquire(_OVER) != 0


@kernel("int64(int64, int64)")
def schedule(until: int, heeds_mail: int) -> int:
    """Run goroutines, in KERNEL and with nothing in hand, until the one at address ``until`` may go on here: READY. Or until there is NOTHING to run,
    or MAIL, a wait that is over, or Python's turn, if it ``heeds_mail``, AT_MAIL or AFTER_ONE goroutine; or a poll says why the program must end."""
    me = self_p()
    me.scheduling += 1
    why = _schedule(until, heeds_mail)
    me.scheduling -= 1
    _look_no_more()
    return why


@inline
def _look_no_more() -> None:
    """This P may have been woken to look, and does something else."""
    if end_spinning() and is_any_queued():
        wake_one()


@inline
def _schedule(until: int, heeds_mail: int) -> int:
    while True:
        why = poll()
        if why != OK:
            return why
        if _is_ready(until):
            return READY
        if heeds_mail and (_has_more_to_do() or _is_time_to_look()):
            return MAIL
        if not has_ring():
            return NOTHING
        g = _find_runnable(until)
        if g == NO_G:
            return NOTHING
        _run(g)
        if heeds_mail == AFTER_ONE:
            return MAIL


@inline
def _is_time_to_look() -> bool:
    return self_p().sched_tick % _TIMED_EVERY == 0 and is_python_s_turn(nanotime())


@inline
def _is_ready(g: int) -> bool:
    return g != NOBODY and load_acquire(g) & G_STATUS_MASK == G_RUNNABLE


@kernel("int64(int64)")
def run_slice(_: int) -> int:
    """Called at a poll of a program, or of a step, that has had the processor for a while: run what is ready for as long.

    What a step has in hand stays its own: its goroutine's stack is not moved but by itself, and it has no action yet that would be in P_OUT.
    OK, or POLL_SHUT_DOWN.
    """
    until = nanotime() + SLICE_NS
    me = self_p()
    raised_code, raised_info = me.raised_code, me.raised_info  # which this program may be about to raise anew
    me.scheduling += 1
    while nanotime() < until and has_ring() and not stop_requested():
        g = _take_near()
        if g == NO_G:
            break
        _run(g)
    me.scheduling -= 1
    why = OK
    if me.curg == 0 and (me.strange != NO_G or me.failed != NO_G):
        why = _look_aside()
    me.raised_code = raised_code
    me.raised_info = raised_info
    forget_action()
    return why


# --- finding ----------------------------------------------------------------------------------------------------------


@inline
def _find_runnable(until: int) -> int:
    """Number of a goroutine that was taken out of its queue. NO_G if there is none, if the one at ``until`` may go on, or if Python is to look."""
    me = self_p()
    me.sched_tick += 1
    g = get_global(1) if me.sched_tick % _LIST_FIRST == 0 else NO_G
    if g == NO_G:
        g = _take_near()
    if g == NO_G:
        g = _look_around(until)
    if end_spinning() and g != NO_G:
        wake_one()  # this P looked for all: from now on another has to
    return g


@inline
def _take_near() -> int:
    """From this P's own ring, or else from the list for all."""
    g = runq_get()
    return g if g != NO_G else get_global(RUNQ_SIZE // 2)


@inline
def _look_around(until: int) -> int:
    """Steal; and if there is nothing, look for some microseconds whether something comes."""
    if not begin_spinning():
        return NO_G
    end = nanotime() + _SPIN_NS
    while True:
        g = _steal()
        if g == NO_G:
            g = get_global(RUNQ_SIZE // 2)
        if g != NO_G or nanotime() > end:
            return g
        while not is_any_queued():
            if load_relaxed(SELF_POLL) & ~POLL_CLEAR != 0 or nanotime() > end or _is_ready(until):
                return NO_G
            if until == NOBODY and _has_more_to_do():
                return NO_G
            cpu_pause()


@kernel("int64()")
def _steal() -> int:
    """Take from the other Ps, beginning anywhere; what they run next only if there is nothing else."""
    n, mine = runtime().nprocs, self_p().idx
    first = self_p().sched_tick % n
    for round_ in range(_ROUNDS):
        for i in range(n):
            victim = (first + i) % n
            if victim != mine:
                g = runq_steal(layout.p_addr(victim), 1 if round_ == _ROUNDS - 1 else 0)
                if g != NO_G:
                    return g
    return NO_G


# --- running ----------------------------------------------------------------------------------------------------------


@kernel("void(int64)")
def _run(g: int) -> None:
    """Run goroutine ``g``, which was taken out of its queue, until it ends, waits or has had its turn."""
    at, me = layout.g_addr(g), self_p()
    gp = g_at(at)
    gp.p = me.idx  # before the status: who finds it running, and this P dead, knows that it is over
    if not cas_acq_rel(at, G_RUNNABLE, G_RUNNING):  # a marker has its stack
        runq_put(g, 0)
        return
    note_run(at)
    under = me.curg
    gp.under = under
    gp.runs += 1
    me.curg = at
    blacken(at)
    goid, shown, action = gp.id, 0, me.out_for
    if is_tracing() and not is_too_much(DETAIL_RUNS):
        shown = _tell_run(at)
    why = execute(at)
    if is_tracing() and (shown != 0 or was_running(goid)):
        _tell_run_end(goid, why, action)
    if why == PARKED:  # the record is whose it may be
        me.curg = under
    elif why == ENDED:
        end_g(at)
    elif why == YIELDED:
        begin_critical()  # runnable, and not in a queue yet
        blacken(at)  # a cycle may have begun meanwhile, and this P may be white
        me.curg = under
        note_ready(at)
        store_release(at, G_RUNNABLE)
        put_global(g)
        end_critical()
        wake_one()
    else:
        me.curg = under
        _set_aside(at, why)


@kernel("int64(int64)")
def _tell_run(g: int) -> int:
    """Only while tracing: 1 if it is told that the goroutine at ``g`` runs here from now on, 0 if there are too many."""
    now = nanotime()
    if begin_detail(DETAIL_RUNS, now) == 0:
        return 0
    gp = g_at(g)
    tell_at(now, TRACE_RUN, gp.id, (gp.entry - layout.TYPES_BASE) // TYPE_BYTES | np.int64(gp.site) << TRACE_SITE_SHIFT)
    return 1


@kernel("void(int64, int64, int64)")
def _tell_run_end(goid: int, why: int, before: int) -> None:
    """That goroutine stops, ``why`` as :func:`execute` says. What it waits for is its action; one in a select that has to wait on has made none since
    ``before``, the P's last."""
    action = self_p().out_for
    if action == before:
        action = ACTION_SELECT
    tell(TRACE_RUN_END | (action & ~COUNT_BITS & 0xFFFF) << TRACE_DETAIL_SHIFT, goid, why)


@inline
def _set_aside(g: int, why: int) -> None:
    """The goroutine at ``g`` cannot go on, ``why`` as :func:`execute` says. It stays for Python to look at, which alone can do something about it."""
    me, gp = self_p(), g_at(g)
    blacken(g)
    gp.home = me.idx + 1
    gp.ending = why
    gp.since_ns = 0
    me.out_bytes = 0
    if why == NO_STEP:
        gp.wait = WAITS_FOR_STEP
        gp.link = me.strange
        me.strange = layout.g_number(g)
    else:
        gp.wait = WAITS_FOR_TAKER
        gp.raised_code = me.raised_code
        gp.raised_info = me.raised_info
        gp.link = me.failed
        me.failed = layout.g_number(g)
    store_release(g, G_WAITING)
    ring(layout.SELF_BASE)  # Python is to look, however much there is to run, in whichever thread waits


# --- waiting in a program ---------------------------------------------------------------------------------------------


@kernel("int64(int64, int64)")
def go_on(g: int, why: int) -> int:
    """The goroutine at ``g``, whose home is the program that runs here, has YIELDED or PARKED: have it go on when its time has come, as
    :func:`~gomp.core.mutator.goroutine.execute`; or why it waits no more, as :func:`await_done`."""
    if why == YIELDED:
        _give_turn()
        return execute(g)
    why = await_done(g)
    return execute(g) if why == OK else why


@kernel("int64(int64)")
def await_done(g: int) -> int:
    """Until the goroutine at ``g``, which has PARKED and whose home is the program that runs here, may go on; it runs here again.

    OK; POLLED less what a poll says, or WAITS_IN_STEP: it would wait in the middle of another's step. Then it waits no more, and has got nothing.
    """
    me = self_p()
    under = g_at(g).under
    me.curg = under
    why = WAITS_IN_STEP if under != 0 else _await(g)
    if why != OK and stop_waiting(g) == 0:
        why = OK  # it was done all the same
    looks = 0
    while not (cas_acq_rel(g, G_RUNNABLE, G_RUNNING) or (why != OK and cas_acq_rel(g, G_WAITING, G_RUNNING))):
        looks = pause(looks)  # a marker has its stack, or whoever ends its wait is about to say so
        if stop_requested():
            park_while_stopped()  # that one may have died
        if load_acquire(RT_XSHUTDOWN) != 0:
            store_release(g, G_RUNNING)  # and nobody repairs anything any more
            break
    note_run(g)
    g_at(g).runs += 1
    me.curg = g
    blacken(g)
    return why


@inline
def _await(g: int) -> int:
    me = self_p()
    while True:
        seen = wakes()
        why = schedule(g, _AT_NO_MAIL)
        if why == READY:
            if (
                me.stack_thread == me.main_thread
            ):  # who then does not sleep; another thread would take what that one is to see
                end_wait()
            return OK
        if why == NOTHING:
            why = _wait_aside(g, seen)
        if why != OK:
            return POLLED - why


@kernel("int64(int64, int64)")
def _wait_aside(g: int, seen: int) -> int:
    """There is nothing to run since this P was woken ``seen`` times: sleep for a while, and have Python wait for the goroutine at ``g`` then, which
    does whatever else there is to do here. Other threads run meanwhile.

    OK: it is to be looked for again. POLL_SHUT_DOWN.
    """
    me = self_p()
    native_base, stack_low, stack_thread = me.native_base, me.stack_low, me.stack_thread
    region = begin_call()
    if region < 0:
        return OK
    if is_tracing():
        tell(TRACE_WAIT | (TRACE_FOR_PROGRAM + np.int64(g_at(g).wait)) << TRACE_DETAIL_SHIFT, 0, 0)
    if has_ring() and stack_thread == me.main_thread and load_acquire(_MAIL) == 0:
        _nap(seen, _NAP_NS)
    if not _is_ready(g) and (wakes() == seen or load_acquire(_MAIL) != 0):
        _look_no_more()
        call_at(me.waiter, g)
    if is_tracing():
        tell(TRACE_WAIT_END, 0, 0)
    return OK if end_call(region, native_base, stack_low, stack_thread) == OK else POLL_SHUT_DOWN


@kernel("int64()")
def _look_aside() -> int:
    """Goroutines were set aside in the middle of a program that may go on for long: have Python look at them now. OK, or POLL_SHUT_DOWN.

    Not in the middle of a step: other threads run meanwhile, and could begin and end what stands above its goroutine in the P's record.
    """
    me = self_p()
    native_base, stack_low, stack_thread = me.native_base, me.stack_low, me.stack_thread
    region = begin_call()
    if region < 0:
        return OK
    call_at(me.waiter, NOBODY)
    return OK if end_call(region, native_base, stack_low, stack_thread) == OK else POLL_SHUT_DOWN


@kernel("void()")
def _give_turn() -> None:
    """Run one other goroutine, if one is ready: the one that this P runs has offered it."""
    if has_ring():
        g = _take_near()
        if g != NO_G:
            _run(g)


# --- what was set aside: for Python, in no kernel ---------------------------------------------------------------------
# By number: while Python looks at one, another thread may set aside more.


@kernel("int64()")
def last_strange() -> int:
    """Number of the goroutine set aside last that waits for this process to know a step; NO_G."""
    return self_p().strange


@kernel("int64()")
def last_failed() -> int:
    """Number of the goroutine that failed last here; NO_G."""
    return self_p().failed


@kernel("int64(int64)")
def strange_type(number: int) -> int:
    """Key of the type whose step the goroutine waits for."""
    return type_at(_word_of_frame(layout.g_addr(number), FRAME_TYPE)).key


@kernel("int64(int64, int64)")
def strange_word(number: int, at: int) -> int:
    """The word of its innermost frame in which byte ``at`` is, moved so that this byte is the first."""
    return lsr(_word_of_frame(layout.g_addr(number), at & -8), 8 * (at & 7))


@inline
def _word_of_frame(g: int, at: int) -> int:
    """A word of the innermost frame of the goroutine at ``g``, which is set aside. A marker may make its stack smaller at any time, and give the old
    one away when the record leads to the new: so what was read counts if the record still leads there afterwards. It never grows, and so comes back
    to no place that it had."""
    while True:
        frame = innermost(g)
        word = load_acquire(frame + at)
        if innermost(g) == frame:
            return word


@kernel("int64(int64, int64)")
def release_strange(number: int, to_all: int) -> int:
    """Have that goroutine run again, or another P sooner than this one if it is ``to_all``: OK, or RETRY."""
    if enter() != OK:
        return RETRY
    begin_critical()
    g = layout.g_addr(number)
    self_p().strange = _without(self_p().strange, number)
    note_ready(g)
    change_status(g, G_WAITING, G_RUNNABLE)
    g_at(g).home = ANYWHERE  # last, but for its wait: of one that was ready, and at home here, repair knows what to do
    g_at(g).wait = NOT_WAITING
    if to_all:
        put_global(number)
    else:
        runq_put(number, 0)
    end_critical()
    wake_one()
    leave()
    return OK


@kernel("int64(int64)")
def bury_strange(number: int) -> int:
    """That goroutine is over: there is no way to know its step, or its body is Python's and goes on without it. OK, or RETRY."""
    if enter() != OK:
        return RETRY
    blacken(layout.g_addr(number))  # what Python has of its frame is in handles that may be black
    self_p().strange = _without(self_p().strange, number)
    _bury(number)
    leave()
    return OK


@kernel("int64(int64)")
def goroutine_id(number: int) -> int:
    """Id of the goroutine."""
    return g_at(layout.g_addr(number)).id


@kernel("int64(int64)")
def failed_entry(number: int) -> int:
    """Key of the type of its first frame."""
    return type_at(g_at(layout.g_addr(number)).entry).key


@kernel("int64(int64)")
def failure(number: int) -> int:
    """Why it has failed, as :func:`~gomp.core.mutator.goroutine.execute` says; what it has raised is in the P's record."""
    me = self_p()
    gp = g_at(layout.g_addr(number))
    me.raised_code = gp.raised_code
    me.raised_info = gp.raised_info
    return gp.ending


@kernel("int64(int64)")
def bury_failed(number: int) -> int:
    """That goroutine is over for good. OK, or RETRY."""
    if enter() != OK:
        return RETRY
    self_p().failed = _without(self_p().failed, number)
    _bury(number)
    leave()
    return OK


@inline
def _without(first: int, number: int) -> int:
    """The first of a list that goroutine ``number`` is taken out of."""
    after = g_at(layout.g_addr(number)).link
    if first == number:
        return after
    at = layout.g_addr(first)
    while g_at(at).link != number:
        at = layout.g_addr(g_at(at).link)
    g_at(at).link = after
    return first


@inline
def _bury(number: int) -> None:
    change_status(layout.g_addr(number), G_WAITING, G_IDLE)
    drop_g(number)
