"""The GC CPU limiter: collection takes half of the processors at most, however small the heap that is left to it (mgclimit.go; proposal 48409).

A leaky bucket holds up to a second of CPU time for each P. Time that collection takes fills it: assists, a quarter of all while the heap is
marked, pauses whole. Time that programs have drains it; idle time does neither. While it is full, nobody assists.

Times are nanoseconds, and arguments. Whoever comes while somebody updates leaves it to him: what has piled up in the pools waits.

A P that assists or is idle says so in its ``xevent``. An update counts what has gone by and has the event begin anew, by a compare-and-swap, so that
no time counts twice when the event ends meanwhile. Who is killed in an update leaves out some time; that the bucket is full and that it is said to be
would stay apart until it has filled and drained once more, so repair brings them together.
"""

from __future__ import annotations

from gomp.core.gc import credit
from gomp.core.jit import inline, kernel
from gomp.core.sched.locks import release, try_lock
from gomp.core.shm import layout
from gomp.core.shm.atomics import (
    add_relaxed,
    cas_acq_rel,
    load_acquire,
    load_relaxed,
    store_relaxed,
    store_release,
    xchg_acq_rel,
)
from gomp.core.shm.libc import nanotime
from gomp.core.shm.records import (
    LIMITER_XASSIST,
    LIMITER_XIDLE,
    LIMITER_XLAST_UPDATE,
    LIMITER_XLIMITING,
    LIMITER_XLOCK,
    P_XEVENT,
    P_XIDLE,
    P_XIDLE_NS,
    P_XSLICE,
    gcstats,
    limiter,
    runtime,
    self_p,
)

EVENT_IDLE, EVENT_ASSIST = 1, 2
EVENT_KIND = 3  # these bits of the word say which; above them, since when
_EVENT = layout.SELF_BASE + P_XEVENT

CAPACITY_PER_P_NS = 1_000_000_000
UPDATE_PERIOD_NS = 10_000_000
_WITHIN_ASSISTS_NS = 5_000_000  # what an assist takes beyond a full bucket is forgotten: Go's period alone comes to 60% with two Ps in debt
_BACKGROUND_SHARE = 0.25


@inline
def is_limiting() -> bool:
    return load_relaxed(LIMITER_XLIMITING) != 0


@kernel("int64(int64)")
def needs_update(now_ns: int) -> int:
    return 1 if now_ns - load_relaxed(LIMITER_XLAST_UPDATE) > UPDATE_PERIOD_NS else 0


@kernel("void(int64)")
def add_assist_time(ns: int) -> None:
    add_relaxed(LIMITER_XASSIST, ns)


@kernel("void(int64)")
def add_idle_time(ns: int) -> None:
    add_relaxed(LIMITER_XIDLE, ns)


@inline
def take_from_idle(p: int, ns: int, is_free: int) -> None:
    """So much of the time of the P at ``p`` was not idle, though it waits: the coordinator was a worker in its place.

    In Go such a P is not idle; but what an idle worker does, which ``is_free``, counts here as if it were.
    """
    if load_acquire(p + P_XEVENT) & EVENT_KIND == EVENT_IDLE:
        add_relaxed(p + P_XIDLE_NS, -ns)
        if not is_free:
            add_relaxed(LIMITER_XIDLE, -ns)


@inline
def begin_event(kind: int, now_ns: int) -> None:
    """This P's time is not its program's from now on, but EVENT_IDLE or EVENT_ASSIST."""
    store_release(_EVENT, now_ns << 2 | kind)


@inline
def end_event(now_ns: int) -> None:
    event = xchg_acq_rel(_EVENT, 0)
    took = max(now_ns - (event >> 2), 0)
    if event & EVENT_KIND == EVENT_IDLE:
        if self_p().idx < runtime().nprocs:  # the time of others is none of what there is
            add_idle_time(took)
            add_relaxed(layout.SELF_BASE + P_XIDLE_NS, took)
    elif event & EVENT_KIND == EVENT_ASSIST:
        add_assist_time(took)


@kernel("void()")
def begin_idle() -> None:
    """This P waits for something to run, or for the end of a collection that its program has asked for."""
    begin_event(EVENT_IDLE, nanotime())
    store_release(layout.SELF_BASE + P_XIDLE, 1)


@kernel("void()")
def end_idle() -> None:
    now = nanotime()
    store_relaxed(layout.SELF_BASE + P_XSLICE, now)
    store_release(layout.SELF_BASE + P_XIDLE, 0)
    end_event(now)


@kernel("void(int64)")
def update(now_ns: int) -> None:
    """Account for the time since the last update, unless somebody else is at it."""
    if try_lock(LIMITER_XLOCK):
        _update_locked(now_ns)
        release(LIMITER_XLOCK)


@inline
def update_if_due(now_ns: int) -> None:
    if needs_update(now_ns):
        update(now_ns)


@inline
def update_within_assist(now_ns: int) -> None:
    """The coordinator may find no processor while Ps assist, and a debt may take long."""
    if now_ns - load_relaxed(LIMITER_XLAST_UPDATE) > _WITHIN_ASSISTS_NS:
        update(now_ns)


@kernel("void(int64, int64)")
def change_gc(is_on: int, now_ns: int) -> None:
    """Marking begins or ends at the pause that is going on: what was before it is accounted for as before. World: stopped."""
    _update_locked(now_ns)
    limiter().gc_enabled = is_on
    limiter().transitioning = 1


@kernel("void(int64)")
def end_pause(now_ns: int) -> None:
    """The pause ends: all of it was collection, on all Ps. World: stopped."""
    lim = limiter()
    last = load_relaxed(LIMITER_XLAST_UPDATE)
    if now_ns >= last:
        _accumulate(0, (now_ns - last) * lim.nprocs, now_ns)
    store_relaxed(LIMITER_XLAST_UPDATE, now_ns)
    lim.transitioning = 0
    _begin_idle_anew(now_ns)


@inline
def _begin_idle_anew(now_ns: int) -> None:
    """Who was idle when the pause began was stopped since then, as all were (in Go a stop takes the idle Ps)."""
    for i in range(runtime().nprocs):
        event = load_acquire(layout.p_addr(i) + P_XEVENT)
        if event & EVENT_KIND == EVENT_IDLE:
            cas_acq_rel(layout.p_addr(i) + P_XEVENT, event, now_ns << 2 | EVENT_IDLE)


@kernel("void(int64, int64)")
def reset_capacity(now_ns: int, procs: int) -> None:
    """There are ``procs`` Ps from now on. World: stopped, or not started yet."""
    _update_locked(now_ns)
    lim = limiter()
    lim.nprocs = procs
    lim.capacity = procs * CAPACITY_PER_P_NS
    if lim.filled > lim.capacity:
        lim.filled = lim.capacity
        _set_limiting(True, now_ns)
    elif lim.filled < lim.capacity:
        _set_limiting(False, now_ns)


@kernel("void(int64)")
def repair_stw(now_ns: int) -> None:
    """Who was killed in the middle of an update may have filled or drained the bucket and not said so. World: stopped."""
    lim = limiter()
    is_full = lim.capacity > 0 and lim.filled == lim.capacity
    if is_full != is_limiting():
        _set_limiting(is_full, now_ns)


@inline
def _update_locked(now_ns: int) -> None:
    lim = limiter()
    last = load_relaxed(LIMITER_XLAST_UPDATE)
    if now_ns < last:
        return
    total = (now_ns - last) * lim.nprocs
    store_relaxed(LIMITER_XLAST_UPDATE, now_ns)
    collecting = xchg_acq_rel(LIMITER_XASSIST, 0)
    idle = xchg_acq_rel(LIMITER_XIDLE, 0)
    for i in range(runtime().nprocs):
        event = load_acquire(layout.p_addr(i) + P_XEVENT)
        if event != 0 and cas_acq_rel(layout.p_addr(i) + P_XEVENT, event, now_ns << 2 | event & EVENT_KIND):
            took = max(now_ns - (event >> 2), 0)
            if event & EVENT_KIND == EVENT_IDLE:
                idle += took
                add_relaxed(layout.p_addr(i) + P_XIDLE_NS, took)
            else:
                collecting += took
    if lim.gc_enabled:
        collecting += int(float(total) * _BACKGROUND_SHARE)
    idle = max(idle, 0)
    _accumulate(total - idle - collecting, collecting, now_ns)


@inline
def _accumulate(mutating: int, collecting: int, now_ns: int) -> None:
    """Fill the bucket with what collection took, drain it by what programs had."""
    lim = limiter()
    room = lim.capacity - lim.filled
    change = collecting - mutating
    if change > 0 and room <= change:
        lim.overflow += change - room
        lim.filled = lim.capacity
        if room != 0:
            _set_limiting(True, now_ns)
        return
    lim.filled = max(lim.filled + change, 0)
    if change != 0 and room == 0:
        _set_limiting(False, now_ns)


@inline
def _set_limiting(is_on: bool, now_ns: int) -> None:
    lim = limiter()
    was_on = load_relaxed(LIMITER_XLIMITING) != 0
    if is_on:
        lim.last_enabled_cycle = gcstats().num_gc + 1
    if is_on and not was_on:
        lim.times_enabled += 1
        lim.enabled_at = now_ns
    elif was_on and not is_on:
        lim.limited_ns += now_ns - lim.enabled_at
    store_relaxed(LIMITER_XLIMITING, 1 if is_on else 0)
    if is_on:
        credit.call_waiters()
