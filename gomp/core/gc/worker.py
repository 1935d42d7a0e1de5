"""Who marks, and how long: workers on the Ps, and the coordinator in the place of Ps that cannot.

A P in a compiled program is told at a poll (POLL_WORK) that a share of marking is due. It becomes a *dedicated* worker, which marks until there is
nothing or something else is asked of it, or a *fractional* one, which leaves when it has had its share of the time (mgc.go, mgcpacer.go:
proposal 44167; a quarter of the processors in all). As in Go, fractional workers are chosen where a scheduler would run: when the world has
been stopped, except on the P that asked for the cycle, and when a program has had its slice of the processor. A worker is in KERNEL and looks
at the poll word after each object.

A P that runs Python, waits for a goroutine or sits in a system call marks nothing. The coordinator marks in its stead, claiming nobody, all the time
for an idle P and as a worker would for one that is busy; what it takes is charged to that P.

Nobody counts workers. Whether marking is over is found out by a ragged barrier and, for good, with the world stopped
(:mod:`~gomp.core.gc.cycle`); ``marking`` only says when it is no use to ask.
"""

from __future__ import annotations

from gomp.core.gc import credit, limiter, roots, spanq, wbbuf, work
from gomp.core.gc.mark import PIECE, fetch_span, grey_pending, publish_scan_work, scan, scan_small
from gomp.core.gc.ragged import act_for_safe_ps, pass_ragged, publish_grey
from gomp.core.heap import mspan
from gomp.core.heap.mcache import release_all_stw
from gomp.core.jit import inline, kernel
from gomp.core.sched.status import SELF_POLL
from gomp.core.shm import layout
from gomp.core.shm.atomics import (
    add_relaxed,
    cas_acq_rel,
    load_acquire,
    load_relaxed,
    or_acq_rel,
    store_relaxed,
    store_release,
)
from gomp.core.shm.libc import cputime, futex_wait, futex_wake, nanotime
from gomp.core.shm.records import (
    GC_MARK,
    P_XIDLE,
    P_XMARKING,
    P_XNATIVE_KEPT,
    P_XNATIVE_N,
    P_XPOLL,
    P_XSLICE,
    P_XSTATUS,
    PACER_XDEDICATED_NEEDED,
    PACER_XDEDICATED_NS,
    PACER_XFRACTIONAL_NS,
    PACER_XIDLE_NS,
    PACER_XWAITERS,
    POLL_CLEAR,
    POLL_OTHERS,
    POLL_RAGGED,
    POLL_WORK,
    RESTS_FOR_TURN,
    RESTS_FOR_WORK,
    RESTS_NOT,
    RT_XCYCLES,
    RT_XGCPHASE,
    RT_XOVERFLOW,
    RT_XRESTING,
    SPAN_IN_USE,
    STATUS_KERNEL,
    TRACE_DEDICATED,
    TRACE_DETAIL_SHIFT,
    TRACE_FRACTIONAL,
    TRACE_IDLE,
    TRACE_MARK,
    TRACE_MARK_END,
    TRACE_STAND_IN,
    mheap,
    nrecords,
    nth_p,
    p_at,
    p_records,
    pacer,
    runtime,
    self_p,
    spans,
)
from gomp.core.shm.tracing import is_tracing, tell, tell_at

RESTING, WORKING, DRY = 0, 1, 2
DEDICATED = 2
NOBODY = -1
_CHECK_EVERY = 100_000  # units of scan work between looks at the clock
_ENDLESS = 1 << 62
_BALANCE_EVERY = 64  # entries: objects, or spans of them
_BALANCE_BYTES = 2 * PIECE  # or so much scanned: a piece of a table is one entry and leads to 4,000 objects
_LOOK_AHEAD = 3
_FRACTIONAL_SLACK = 1.2
STEP_NS = 1_000_000  # of the coordinator's
_SLICE_NS = 20_000_000  # of a program's: Go's sysmon looks every 10 ms, first sees that one has begun, then that it is over (proc.go, retake)


# --- draining ---------------------------------------------------------------------------------------------------------


@inline
def _is_work_wanted() -> bool:
    return load_relaxed(PACER_XWAITERS) > 0 or load_relaxed(RT_XRESTING) == RESTS_FOR_WORK


@inline
def _call_coordinator() -> None:
    """Have it go on, if it sleeps in :func:`rest`."""
    store_release(RT_XRESTING, RESTS_NOT)
    futex_wake(RT_XRESTING)


@kernel("int64(int64)")
def drain(budget: int) -> int:
    """Mark what this process can find, until it has scanned ``budget`` bytes or a poll asks for something; the bytes it scanned."""
    p = layout.p_addr(self_p().idx)
    done, n = 0, 0
    while done < budget and load_relaxed(SELF_POLL) & ~(POLL_WORK | POLL_CLEAR | POLL_OTHERS) == 0:
        entry = work.get_object(p)  # before spans: meanwhile more of their objects are marked
        if entry == 0:
            entry = spanq.take(p)
            ahead = spanq.peek(p, _LOOK_AHEAD)
            if ahead != 0:
                fetch_span(ahead)
        if entry == 0:
            entry = work.get(p)
        if entry != 0:
            scan(p, entry)
            n += 1
            if (
                n % _BALANCE_EVERY == 0
                or p_at(p).heap_scan_work >= _BALANCE_BYTES
                or ((n % 8 == 0 or p_at(p).heap_scan_work >= PIECE) and _is_work_wanted())
            ):
                done += publish_scan_work(p)
                if not work.has_full():
                    spanq.share(p)
                    if work.has_full():
                        credit.call_waiters()
                if load_relaxed(RT_XRESTING) == RESTS_FOR_WORK and work.has_full():
                    _call_coordinator()
            continue
        if grey_pending(p):
            continue
        found = roots.run_root_job(p)
        if found != roots.NO_JOB:
            done += found
        elif wbbuf.flush(p) == 0 or spanq.is_empty(p):
            break
    grey_pending(p)
    return done + publish_scan_work(p)


@inline
def has_work() -> bool:
    """Whether a marker would find anything that is public."""
    return work.has_full() or roots.has_root_jobs()


@inline
def stop_marking_here(p: int, is_dry: bool) -> None:
    """This P leaves off marking. The coordinator, which marks with idle Ps and ends it all, should look now and not when it has rested: if it
    waits for work, or nothing is left (``is_dry``)."""
    if load_relaxed(RT_XRESTING) == RESTS_FOR_WORK:
        spanq.dispose(p)
    store_release(p + P_XMARKING, 0)
    resting = load_acquire(RT_XRESTING)
    if resting == RESTS_FOR_WORK or (is_dry and resting != RESTS_NOT):
        _call_coordinator()


# --- a worker on a P --------------------------------------------------------------------------------------------------


@inline
def _take_dedicated() -> bool:
    n = load_relaxed(PACER_XDEDICATED_NEEDED)
    return n > 0 and cas_acq_rel(PACER_XDEDICATED_NEEDED, n, n - 1)


@inline
def _is_slice_over(p: int, now: int) -> bool:
    """Whether the P's program has been stopped for this cycle and not worked for it yet, or had a slice end since; one follows the other."""
    if p_at(p).fractional_ns == 0 and p_at(p).cycle_asked_for != load_relaxed(RT_XCYCLES):
        return True
    first = load_relaxed(p + P_XSLICE)
    return (now - first) // _SLICE_NS > (max(pacer().mark_start_ns, first) - first) // _SLICE_NS


@inline
def _is_fraction_due(p: int, now: int) -> bool:
    pc = pacer()
    return float(p_at(p).fractional_ns) <= pc.fractional_goal * float(now - pc.mark_start_ns)


@inline
def _has_had_fraction(p: int, began: int, now: int) -> bool:
    """Whether a fractional worker that has marked since ``began`` may leave (pollFractionalWorkerExit)."""
    pc = pacer()
    taken = float(p_at(p).fractional_ns + now - began)
    return taken > _FRACTIONAL_SLACK * pc.fractional_goal * float(now - pc.mark_start_ns)


@kernel("void()")
def run_worker() -> None:
    """At a poll, in KERNEL, with nothing in hand: be a worker if one is needed here."""
    if load_relaxed(RT_XGCPHASE) != GC_MARK or not has_work():
        return
    p = layout.p_addr(self_p().idx)
    pp, pc = p_at(p), pacer()
    began, began_cpu = nanotime(), cputime()
    is_dedicated = _take_dedicated()
    if not is_dedicated and (pc.fractional_goal == 0.0 or not _is_fraction_due(p, began)):
        return
    store_release(p + P_XMARKING, DEDICATED if is_dedicated else 1)
    if is_tracing():
        kind = TRACE_DEDICATED if is_dedicated else TRACE_FRACTIONAL
        tell_at(began, TRACE_MARK | kind << TRACE_DETAIL_SHIFT, pp.idx, 0)
    scanned = 0
    while True:
        done = drain(_CHECK_EVERY)
        scanned += done
        credit.give(done)
        if load_relaxed(SELF_POLL) & POLL_RAGGED:
            pass_ragged()  # as the last root job asks
        elif done < _CHECK_EVERY:
            break
        if not is_dedicated and _has_had_fraction(p, began, nanotime()):
            break
    spanq.dispose(p)  # for others: this P goes on with its program
    stop_marking_here(p, done < _CHECK_EVERY)
    store_relaxed(p + P_XSLICE, nanotime())
    pp.mark_ns += cputime() - began_cpu
    if is_dedicated:
        add_relaxed(PACER_XDEDICATED_NS, nanotime() - began)
        add_relaxed(PACER_XDEDICATED_NEEDED, 1)
    else:
        pp.fractional_ns += nanotime() - began
        add_relaxed(PACER_XFRACTIONAL_NS, nanotime() - began)
    if is_tracing():
        tell(TRACE_MARK_END, pp.idx, scanned)


# --- the coordinator --------------------------------------------------------------------------------------------------


@inline
def _call_workers(now: int) -> None:
    """Tell those Ps in a program that are due. (One that is only in a short call from Python does not look.)"""
    dedicated, fraction = load_relaxed(PACER_XDEDICATED_NEEDED), pacer().fractional_goal
    for i in range(runtime().nprocs):
        p = layout.p_addr(i)
        if load_relaxed(p + P_XSTATUS) != STATUS_KERNEL:
            continue
        if dedicated > 0 or (fraction > 0.0 and _is_slice_over(p, now) and _is_fraction_due(p, now)):
            or_acq_rel(p + P_XPOLL, POLL_WORK)


@inline
def _is_idle(p: int) -> bool:
    """A P that waits for something to run, for the end of a collection or, in the middle of a program, for credit. (One that waits for a cycle to
    begin is about to go on.)"""
    return load_relaxed(p + P_XIDLE) != 0 or (_is_parked(p) and load_relaxed(PACER_XWAITERS) > 0)


@inline
def _is_parked(p: int) -> bool:
    """Whether a P waits in the middle of a program. (One whose program waits for Python does not wait.)"""
    return load_relaxed(p + P_XNATIVE_N) != load_relaxed(p + P_XNATIVE_KEPT)


@inline
def _is_worker_due(p: int, now: int) -> bool:
    """Whether the P would be a dedicated or a fractional worker if it could mark. An idle one is with its scheduler, whatever its slice."""
    if load_relaxed(PACER_XDEDICATED_NEEDED) > 0:
        return True
    if pacer().fractional_goal == 0.0 or not _is_fraction_due(p, now):
        return False
    return _is_idle(p) or _is_slice_over(p, now)


@kernel("int64(int64)")
def _pick_stand_in(now: int) -> int:
    """Number of a P that cannot mark and whose turn it is: one that owes work first, as an idle worker is a scheduler's last choice (proc.go,
    findRunnable); NOBODY if all are in programs or have had their share."""
    idle = NOBODY
    for i in range(runtime().nprocs):
        p = layout.p_addr(i)
        if load_relaxed(p + P_XSTATUS) == STATUS_KERNEL:
            continue
        if _is_worker_due(p, now):
            return i
        if idle == NOBODY and _is_idle(p) and pacer().max_idle > 0:  # the coordinator is one worker at most
            idle = i
    return idle


@inline
def _stand_in(i: int, now: int, alone: int) -> None:
    """Mark for a slice at the expense of P ``i``: as long as that cannot, or for all of it ``alone``."""
    p = layout.p_addr(i)
    idle, dedicated = _is_idle(p) and not _is_worker_due(p, now), load_relaxed(PACER_XDEDICATED_NEEDED) > 0
    if is_tracing():
        tell_at(now, TRACE_MARK | (TRACE_IDLE if idle else TRACE_STAND_IN) << TRACE_DETAIL_SHIFT, i, 0)
    began_cpu = cputime()
    done, took, scanned = _CHECK_EVERY, 0, 0
    while done >= _CHECK_EVERY and took < STEP_NS:
        done = drain(_CHECK_EVERY)
        scanned += done
        credit.give(done)
        took = nanotime() - now
        if alone:
            continue
        if load_relaxed(p + P_XSTATUS) == STATUS_KERNEL:
            break
        if not idle and not dedicated and _has_had_fraction(p, now, now + took):
            break
    p_at(p).stand_in_ns += cputime() - began_cpu
    limiter.take_from_idle(p, took, 1 if idle else 0)
    if is_tracing():
        tell_at(now + took, TRACE_MARK_END, i, scanned)
    if idle:
        add_relaxed(PACER_XIDLE_NS, took)
    else:
        p_at(p).fractional_ns += took
        add_relaxed(PACER_XFRACTIONAL_NS, took)


@inline
def _somebody_marks() -> bool:
    for i in range(nrecords()):
        if load_acquire(layout.p_addr(i) + P_XMARKING):
            return True
    return False


@kernel("int64(int64)")
def mark_step(alone: int) -> int:
    """One look at the marking by the coordinator. World: running.

    WORKING: it marked for a slice, and there may be more. RESTING: it is others' turn, and there is time for a :func:`rest`. DRY: nobody finds
    anything to mark. ``alone``: mark whatever the shares are.
    """
    store_release(RT_XRESTING, RESTS_NOT)
    left = 0 if roots.has_root_jobs() else act_for_safe_ps()
    own = layout.p_addr(layout.COORDINATOR_P)
    if has_work() or not spanq.is_empty(own):
        now = nanotime()
        limiter.update_if_due(now)
        _call_workers(now)
        i = 0 if alone else _pick_stand_in(now)
        if i != NOBODY:
            _stand_in(i, now, alone)
            return WORKING
        spanq.dispose(own)
        store_release(RT_XRESTING, RESTS_FOR_TURN)
        return RESTING
    store_release(RT_XRESTING, RESTS_FOR_WORK)  # pairs with stop_marking_here; if that is missed, the rest is longer
    return DRY if left == 0 and not _somebody_marks() else RESTING


@kernel("int64(int64)")
def rest(timeout_ns: int) -> int:
    """Sleep after a RESTING until a P has something for the coordinator, at most so long; whether one had."""
    why = load_acquire(RT_XRESTING)
    if why != RESTS_NOT:
        futex_wait(RT_XRESTING, why, timeout_ns)
    return 1 if load_acquire(RT_XRESTING) == RESTS_NOT else 0


# --- with the world stopped -------------------------------------------------------------------------------------------


@inline
def is_work_left_stw() -> bool:
    """Whether anybody has anything grey, in public or private. World: stopped."""
    left = has_work()
    for i in range(p_records()):
        left |= publish_grey(nth_p(i)) != 0
    return left


@kernel("void()")
def mark_stw() -> None:
    """Mark everything that is left, alone, the objects among it that were dropped for want of a work buffer. World: stopped."""
    while True:
        while is_work_left_stw():
            drain(_ENDLESS)
        if load_acquire(RT_XOVERFLOW) == 0:
            return
        store_release(RT_XOVERFLOW, 0)
        for i in range(p_records()):
            release_all_stw(nth_p(i))  # so that only objects are marked
        _rescan_marked(layout.p_addr(self_p().idx))


@inline
def _scan_again(p: int, page: int, idx: int) -> None:
    addr = mspan.obj_addr(page, idx)
    if mspan.has_inline_marks(spans()[page].elem_size):
        p_at(p).heap_scan_work += scan_small(p, addr, spans()[page].elem_size)
    else:
        scan(p, addr)


@kernel("void(int64)")
def _rescan_marked(p: int) -> None:
    """Scan every marked object once more: among them are those that were dropped."""
    page, end = 0, mheap().end_page
    while page < end:
        sp = spans()[page]
        if sp.state != SPAN_IN_USE or mspan.span_of(layout.page_to_addr(page)) != page:
            page += 1
            continue
        if not mspan.is_noscan(sp.span_class):
            for idx in range(sp.nelems):
                if mspan.is_marked(page, idx):
                    _scan_again(p, page, idx)
            drain(_ENDLESS)
        page += sp.npages
