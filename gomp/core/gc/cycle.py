"""A garbage collection cycle, run by the coordinator. Each pause is one kernel.

1. Sweep what the last cycle left unswept, while programs run.
2. Stop the world (sweep termination). Empty every mcache, so that the span table says exactly what is allocated. From here the write barrier is
   on and objects are born black. Start the world; those who met the trigger go on.
3. Mark, while programs run: workers on the Ps, assists, the coordinator.
4. When nobody finds work, a ragged barrier makes public what each P still knows alone. If there was nothing, stop the world (mark
   termination) and look again; if anything is left after all, start it and go on with 3.
5. Settle: what is marked is live; barrier off; the next goal; a new sweep generation. Start the world; sweeping is proportional to allocation
   and, in the background, the coordinator's.

A pause is stamped before anybody is woken.
"""

from __future__ import annotations

from gomp.core.gc import (
    cpuclasses,
    credit,
    goal,
    leaks,
    limiter,
    memprofile,
    pacer,
    pacerlog,
    scavenger,
    spanq,
    sweep,
    work,
)
from gomp.core.gc.mark import forget_pending
from gomp.core.gc.poolroots import rotate_pools_stw
from gomp.core.gc.ragged import for_each_p, open_ragged
from gomp.core.gc.roots import prepare_root_jobs_stw
from gomp.core.gc.stackscan import set_start_size_stw
from gomp.core.gc.worker import DRY, is_work_left_stw, mark_step, mark_stw
from gomp.core.heap.mcache import release_all_stw
from gomp.core.heap.pagecache import flush_cache_locked
from gomp.core.heap.palloc import lock_heap, unlock_heap
from gomp.core.heap.stackalloc import empty_caches_stw
from gomp.core.jit import inline, kernel
from gomp.core.sched.status import OK, start_world, stop_world
from gomp.core.shm import layout
from gomp.core.shm.atomics import (
    add_acq_rel,
    cas_acq_rel,
    fence_release,
    load_acquire,
    load_relaxed,
    or_acq_rel,
    store_release,
)
from gomp.core.shm.libc import futex_wake, nanotime
from gomp.core.shm.records import (
    CYCLES_KEPT,
    GC_MARK,
    GC_OFF,
    GC_TRIGGER_FORCED,
    GC_TRIGGER_HEAP,
    GC_TRIGGER_LAST_RESORT,
    P_XMARKING,
    P_XPOLL,
    PACER_EVENT_ENDED,
    PACER_EVENT_ENDING,
    PACER_EVENT_RESTARTED,
    PACER_EVENT_SET,
    PACER_EVENT_START,
    PACER_EVENT_STARTED,
    PACER_XASSIST_NS,
    PACER_XDEDICATED_NS,
    PACER_XFRACTIONAL_NS,
    PACER_XIDLE_NS,
    PACER_XLIVE,
    POLL_WORK,
    RT_XCYCLE_DONE,
    RT_XCYCLES,
    RT_XFLUSHED,
    RT_XGC_REQUEST,
    RT_XGCPHASE,
    RT_XNGLOBALS,
    RT_XOVERFLOW,
    RT_XRAGGED,
    SPAN_IN_USE,
    TRACE_CYCLE,
    TRACE_CYCLE_MARKED,
    TRACE_DETAIL_SHIFT,
    TRACE_HEAP,
    TRACE_STOP_WHY,
    TRACE_TO_COLLECT,
    TRACE_TO_END,
    TRACE_TO_MARK,
    cycles,
    gcstats,
    mheap,
    nth_p,
    p_at,
    p_records,
    runtime,
    spans,
)
from gomp.core.shm.records import limiter as limiter_record
from gomp.core.shm.records import pacer as pacer_record
from gomp.core.shm.tracing import is_tracing, tell, tell_at

NOT_DONE = 1
STOPS_KEPT = 512
_SWEEP_SLICE = 64
_ROOT_BYTES = 8  # of a global: its reference


@kernel("void()")
def flush_caches_stw() -> None:
    """Give every P's cached spans back, so that the counters say exactly what is allocated. World: stopped."""
    for i in range(p_records()):
        release_all_stw(nth_p(i))


@inline
def _flush_page_caches_stw() -> None:
    """A P that has become idle must not keep pages that another one needs."""
    lock_heap()
    for i in range(p_records()):
        flush_cache_locked(nth_p(i))
    unlock_heap()


# --- the beginning ----------------------------------------------------------------------------------------------------


@kernel("int64(int64, int64)")
def begin_cycle(kind: int, deadline_ns: int) -> int:
    """Start marking, by GC_TRIGGER_*: OK, or -1 - p if P p did not stop by ``deadline_ns``."""
    _sweep_all()
    began = nanotime()
    code = _stop(deadline_ns)
    if code != OK:
        return code
    stopped = nanotime()
    _begin_mark_stw(kind, began)
    _end_pause_stw(began, stopped)
    start_world()
    futex_wake(RT_XCYCLES)
    return OK


@inline
def _stop(deadline_ns: int) -> int:
    runtime().stop_is_gc = 1
    code = stop_world(deadline_ns)
    if code != OK:
        start_world()
    return code


@inline
def _sweep_all() -> None:
    while sweep.sweep_step(_SWEEP_SLICE):
        pass


@kernel("void(int64, int64)")
def _begin_mark_stw(kind: int, began: int) -> None:
    rt, stats = runtime(), gcstats()
    _sweep_all()  # a P may have been in the middle of a span
    flush_caches_stw()
    rotate_pools_stw()
    for i in range(p_records()):
        p_at(nth_p(i)).assist_bytes = 0
        p_at(nth_p(i)).fractional_ns = 0
        p_at(nth_p(i)).cycle_assist_ns = 0
        store_release(nth_p(i) + P_XMARKING, 0)
    stats.heap0 = load_relaxed(PACER_XLIVE)
    if is_tracing():
        tell(TRACE_STOP_WHY | TRACE_TO_MARK << TRACE_DETAIL_SHIFT, 0, 0)
    stats.last_start_ns = began
    stats.last_forced = 1 if kind == GC_TRIGGER_FORCED else 0
    stats.last_pause_ns = 0
    store_release(RT_XCYCLES, load_relaxed(RT_XCYCLES) + 1)
    store_release(RT_XGCPHASE, GC_MARK)
    cas_acq_rel(RT_XGC_REQUEST, GC_TRIGGER_HEAP, 0)  # whoever asked for this since
    limiter.change_gc(1, nanotime())
    pacerlog.note(PACER_EVENT_START, began, kind)
    pacer_record().globals_scan = _ROOT_BYTES * load_relaxed(RT_XNGLOBALS)
    pacer.start_cycle(began, rt.nprocs, kind)
    pacerlog.note(PACER_EVENT_STARTED, began, kind)
    _start_from_roots_stw()
    stats.last_mark_ns = nanotime()
    if is_tracing():
        tell_at(stats.last_mark_ns, TRACE_CYCLE, load_relaxed(RT_XCYCLES), kind)
        tell_at(stats.last_mark_ns, TRACE_HEAP, stats.heap0, goal.heap_goal())


@inline
def _start_from_roots_stw() -> None:
    """Everything is white, and nobody has anything grey."""
    for i in range(p_records()):
        pp = p_at(nth_p(i))
        pp.bytes_marked = 0
        pp.heap_scan_work = 0
        pp.scanned_cycle = 0
        pp.wb_n = 0
        forget_pending(nth_p(i))
    prepare_root_jobs_stw()
    store_release(RT_XOVERFLOW, 0)
    store_release(RT_XFLUSHED, 0)
    open_ragged()  # which the last root job has Ps pass
    for i in range(runtime().nprocs):
        or_acq_rel(layout.p_addr(i) + P_XPOLL, POLL_WORK)


@kernel("void()")
def restart_marking_stw() -> None:
    """Begin the marking that is on once more, as a part of its cycle. World: stopped, no window open, no work in buffers and queues.

    A process that was killed may have had grey objects, and overwritten references in its barrier's buffer. The snapshot of what was
    reachable is taken anew, so what else the cycle has found does not matter.
    """
    page, end = 0, mheap().end_page
    while page < end:
        if spans()[page].state != SPAN_IN_USE:
            page += 1
            continue
        sweep.clear_marks(page)
        page += spans()[page].npages
    pacer.restart_cycle()
    pacerlog.note(PACER_EVENT_RESTARTED, nanotime(), 0)
    _start_from_roots_stw()


@inline
def _end_pause_stw(began: int, stopped: int) -> int:
    """Account for a pause that ends now; when that is."""
    stats = gcstats()
    now = nanotime()
    if limiter_record().transitioning:
        limiter.end_pause(now)
    pause = now - began
    stats.last_pause_ns += pause
    stats.pause_total_ns += pause
    stats.pause_max_ns = max(stats.pause_max_ns, pause)
    stats.stop_ns[stats.stops % STOPS_KEPT] = pause
    stats.stopping_total_ns += stopped - began
    stats.pause_cpu_ns += runtime().stopping_cpu_ns + (now - stopped) * runtime().nprocs
    stats.stops += 1
    return now


# --- the end ----------------------------------------------------------------------------------------------------------


@kernel("int64(int64)")
def may_be_done(deadline_ns: int) -> int:
    """Ask every P for what it alone knows: OK if there was nothing, NOT_DONE, or -1 - p if P p has not answered by ``deadline_ns``."""
    spanq.dispose(layout.p_addr(layout.COORDINATOR_P))
    code = for_each_p(deadline_ns)
    if code != OK:
        return code
    if load_acquire(RT_XFLUSHED) >= load_acquire(RT_XRAGGED) or work.has_full():
        return NOT_DONE
    if leaks.needs_round():
        leaks.begin_round()
        return NOT_DONE
    return OK


@kernel("int64(int64)")
def stop_marking(deadline_ns: int) -> int:
    """Stop the world if nothing is left to mark: OK, NOT_DONE, or -1 - p if P p did not stop. Only with OK it is stopped."""
    stats = gcstats()
    term = nanotime()
    code = _stop(deadline_ns)
    if code != OK:
        return code
    stopped = nanotime()
    if is_tracing():
        tell_at(stopped, TRACE_STOP_WHY | TRACE_TO_END << TRACE_DETAIL_SHIFT, 0, 0)
    if load_acquire(RT_XOVERFLOW) == 0 and (is_work_left_stw() or _is_leak_round_due_stw()):
        _end_pause_stw(term, stopped)
        start_world()
        return NOT_DONE
    _mark_all_stw()
    stats.last_term_ns = term
    stats.last_stopped_ns = stopped
    return OK


@inline
def _is_leak_round_due_stw() -> bool:
    """Begin the next round over the stacks in a cycle that looks for leaks, the last of which comes when all that are hidden have leaked."""
    if not leaks.is_hiding():
        return False
    if leaks.needs_round():
        leaks.begin_round()
    else:
        leaks.reveal_stw()
    return True


@kernel("void()")
def _mark_all_stw() -> None:
    """Mark everything that is left, alone. World: stopped."""
    mark_stw()
    while _is_leak_round_due_stw():
        mark_stw()


@kernel("void(int64)")
def finish_cycle(unix_ns: int) -> None:
    """From the end of marking to the beginning of the sweep. ``unix_ns``: the time of day. World: stopped; it runs afterwards."""
    _settle_stw(unix_ns)
    start_world()
    credit.call_all()  # nobody needs any now
    memprofile.publish(0)


@kernel("int64(int64, int64)")
def end_marking(unix_ns: int, deadline_ns: int) -> int:
    """Both, in one pause: OK, NOT_DONE, or -1 - p if P p did not stop by ``deadline_ns``."""
    code = stop_marking(deadline_ns)
    if code == OK:
        finish_cycle(unix_ns)
    return code


@kernel("void(int64)")
def _settle_stw(unix_ns: int) -> None:
    rt, stats = runtime(), gcstats()
    term = stats.last_term_ns
    limiter.change_gc(0, nanotime())
    pacerlog.note(PACER_EVENT_ENDING, term, 0)
    pacer.end_cycle(term, rt.nprocs)
    stats.heap1 = load_relaxed(PACER_XLIVE)
    flush_caches_stw()
    _flush_page_caches_stw()
    scavenger.end_generation_stw()
    marked = 0
    for i in range(p_records()):
        marked += p_at(nth_p(i)).bytes_marked
        p_at(nth_p(i)).assist_bytes = 0
    store_release(RT_XGCPHASE, GC_OFF)
    leaks.end_leaks_stw()
    stats.heap2 = marked
    pacer.reset_live(marked)
    sweep.begin_sweep_stw()
    memprofile.next_cycle_stw()
    set_start_size_stw()
    for i in range(p_records()):
        empty_caches_stw(nth_p(i))
    pacer.commit(0)
    scavenger.set_goals_stw()
    pacerlog.note(PACER_EVENT_ENDED, term, 0)
    pacer.pace_sweep()
    _record_cycle_stw()
    ended = _end_pause_stw(term, stats.last_stopped_ns)
    slot = stats.num_gc % 256
    stats.pause_ns[slot] = stats.last_pause_ns
    stats.pause_end_ns[slot] = unix_ns + ended - term
    stats.last_gc_unix_ns = unix_ns + ended - term
    stats.last_end_ns = ended
    _log_cycle_stw()
    fence_release()  # pairs with runtime/cyclelog.read
    stats.num_gc += 1
    stats.num_forced += stats.last_forced
    stats.num_automatic += 1 - stats.last_forced
    cpuclasses.account_stw(ended)
    if is_tracing():
        tell_at(ended, TRACE_CYCLE_MARKED, load_relaxed(RT_XCYCLES), marked)
        tell_at(ended, TRACE_HEAP, load_relaxed(PACER_XLIVE), goal.heap_goal())


@inline
def _record_cycle_stw() -> None:
    stats = gcstats()
    stats.last_goal = pacer_record().last_heap_goal
    stats.last_assist_ns = load_relaxed(PACER_XASSIST_NS)
    stats.last_dedicated_ns = load_relaxed(PACER_XDEDICATED_NS)
    stats.last_fractional_ns = load_relaxed(PACER_XFRACTIONAL_NS)
    stats.last_idle_ns = load_relaxed(PACER_XIDLE_NS)
    stats.assist_ns += stats.last_assist_ns
    stats.dedicated_ns += stats.last_dedicated_ns
    stats.fractional_ns += stats.last_fractional_ns
    stats.idle_ns += stats.last_idle_ns


@inline
def _log_cycle_stw() -> None:
    stats = gcstats()
    number = stats.num_gc + 1
    cycle = cycles()[number % CYCLES_KEPT]
    cycle.number = number
    cycle.start_ns = stats.last_start_ns
    cycle.mark_ns = stats.last_mark_ns
    cycle.term_ns = stats.last_term_ns
    cycle.end_ns = stats.last_end_ns
    cycle.pause_ns = stats.last_pause_ns
    cycle.forced = stats.last_forced
    cycle.procs = runtime().nprocs
    cycle.heap_start = stats.heap0
    cycle.heap_end = stats.heap1
    cycle.heap_marked = stats.heap2
    cycle.goal = stats.last_goal
    cycle.assist_ns = stats.last_assist_ns
    cycle.dedicated_ns = stats.last_dedicated_ns
    cycle.fractional_ns = stats.last_fractional_ns
    cycle.idle_ns = stats.last_idle_ns


@kernel("void()")
def announce_end() -> None:
    """The cycle is over, for those who wait for it: at once, or after the whole sweep for those who asked for a collection."""
    add_acq_rel(RT_XCYCLE_DONE, 1)
    futex_wake(RT_XCYCLE_DONE)


# --- settings that change while it runs ---------------------------------------------------------------------------------


@kernel("void()")
def recommit_stw() -> None:
    """After GOGC or the memory limit was set: what follows from them (gcControllerCommit). World: stopped."""
    pacer.commit(1 if sweep.is_sweep_done() else 0)
    scavenger.set_goals_stw()
    if load_relaxed(RT_XGCPHASE) != GC_OFF:
        pacer.revise()
    pacerlog.note(PACER_EVENT_SET, nanotime(), 0)
    pacer.pace_sweep()


# --- all of it --------------------------------------------------------------------------------------------------------


@kernel("int64(int64, int64, int64)")
def collect(kind: int, unix_ns: int, deadline_ns: int) -> int:
    """A whole cycle in one call, by the coordinator and whoever helps: OK, or -1 - p if P p did not stop by ``deadline_ns``."""
    code = begin_cycle(kind, deadline_ns)
    if code != OK:
        return code
    code = NOT_DONE
    while code == NOT_DONE:
        while mark_step(1) != DRY:
            if nanotime() > deadline_ns:
                return -1 - layout.COORDINATOR_P
        code = may_be_done(deadline_ns)
        if code == OK:
            code = end_marking(unix_ns, deadline_ns)
    if code != OK:
        return code
    if kind in (GC_TRIGGER_FORCED, GC_TRIGGER_LAST_RESORT):
        _sweep_all()
        memprofile.publish(1)
    announce_end()
    return OK


@kernel("int64(int64, int64, int64)")
def collect_stopped(kind: int, unix_ns: int, deadline_ns: int) -> int:
    """GODEBUG=gcstoptheworld: a whole cycle in one pause, at level 2 with its sweep; the result is that of :func:`collect`."""
    _sweep_all()
    began = nanotime()
    code = _stop(deadline_ns)
    if code != OK:
        return code
    stopped = nanotime()
    _begin_mark_stw(kind, began)
    if is_tracing():
        tell(TRACE_STOP_WHY | TRACE_TO_COLLECT << TRACE_DETAIL_SHIFT, 0, 0)
    _mark_all_stw()
    stats = gcstats()
    stats.last_term_ns = began
    stats.last_stopped_ns = stopped
    _settle_stw(unix_ns)
    if runtime().stop_the_world > 1:
        _sweep_all()
    start_world()
    futex_wake(RT_XCYCLES)
    memprofile.publish(0)
    if kind in (GC_TRIGGER_FORCED, GC_TRIGGER_LAST_RESORT):
        _sweep_all()
        memprofile.publish(1)
    announce_end()
    return OK
