"""The GC CPU limiter: collection takes half of the processors at most, however small the heap that is left to it (mgclimit.go; proposal 48409).

A leaky bucket holds up to a second of CPU time for each P. Time that collection takes fills it: assists, a quarter of all while the heap is
marked, pauses whole. Time that programs have drains it; idle time does neither. While it is full, nobody assists.

Times are nanoseconds, and arguments. Whoever comes while somebody updates leaves it to him: what has piled up in the pools waits.
"""

from __future__ import annotations

from gomp.core.jit import inline, kernel
from gomp.core.sched.locks import release, try_lock
from gomp.core.shm.atomics import add_relaxed, load_relaxed, store_relaxed, xchg_acq_rel
from gomp.core.shm.records import (
    LIMITER_XASSIST,
    LIMITER_XIDLE,
    LIMITER_XLAST_UPDATE,
    LIMITER_XLIMITING,
    LIMITER_XLOCK,
    gcstats,
    limiter,
)

CAPACITY_PER_P_NS = 1_000_000_000
UPDATE_PERIOD_NS = 10_000_000
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


@kernel("void(int64)")
def update(now_ns: int) -> None:
    """Account for the time since the last update, unless somebody else is at it."""
    if try_lock(LIMITER_XLOCK):
        _update_locked(now_ns)
        release(LIMITER_XLOCK)


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
    if lim.gc_enabled:
        collecting += int(float(total) * _BACKGROUND_SHARE)
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
