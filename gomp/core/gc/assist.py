"""Assists: whoever allocates while the heap is marked pays for it with marking (mgcmark.go, gcAssistAlloc).

A P's ``assist_bytes`` is what it may still allocate. An allocation that opens a window, or is large, debits all of it at once; below zero it
takes from the credit that background workers have earned, or marks by itself, more than it must so that it does not come back at once. What it
cannot pay because there is nothing to mark it waits for: until there is credit, or the marking has ended.
"""

from __future__ import annotations

from gomp.core.gc import credit, limiter
from gomp.core.gc.worker import drain, has_work, stop_marking_here
from gomp.core.jit import inline, kernel
from gomp.core.shm import layout
from gomp.core.shm.atomics import add_relaxed, load_relaxed, store_release
from gomp.core.shm.libc import nanotime
from gomp.core.shm.records import (
    GC_MARK,
    P_XMARKING,
    PACER_XASSIST_NS,
    RT_XGCPHASE,
    TRACE_ASSIST,
    TRACE_ASSIST_END,
    pacer,
    self_p,
)
from gomp.core.shm.tracing import is_tracing, tell_at

PAID, IN_DEBT, DRY = 0, 1, 2
_MARKING = layout.SELF_BASE + P_XMARKING
_OVER_ASSIST = 64 << 10
_STEP = 256 << 10  # between looks at the limiter


@inline
def debit(nbytes: int) -> bool:
    """Charge an allocation to this P; whether it must assist."""
    if load_relaxed(RT_XGCPHASE) != GC_MARK:
        return False
    me = self_p()
    me.assist_bytes -= nbytes
    return me.assist_bytes < 0


@kernel("int64()")
def try_assist() -> int:
    """Pay the debt of this P as far as it can be paid now: PAID, IN_DEBT, or DRY: paid, and then there was nothing left to mark. In KERNEL."""
    me, pc = self_p(), pacer()
    if load_relaxed(RT_XGCPHASE) != GC_MARK:
        me.assist_bytes = 0
        return PAID
    if limiter.is_limiting():
        return PAID  # not that it were: the debt stays
    debt = -me.assist_bytes
    if debt <= 0:
        return PAID
    need = int(pc.assist_work_per_byte * float(debt))
    if need < _OVER_ASSIST:
        need = _OVER_ASSIST
        debt = int(pc.assist_bytes_per_work * float(_OVER_ASSIST))
    stolen = _steal_credit(need, debt)
    need -= stolen
    if need > 0:
        began = nanotime()
        if is_tracing():
            tell_at(began, TRACE_ASSIST, debt, stolen)
        limiter.begin_event(limiter.EVENT_ASSIST, began)
        store_release(_MARKING, 1)
        done = _drain_unless_limited(need)
        stop_marking_here(layout.p_addr(me.idx), done < need)
        now = nanotime()
        limiter.end_event(now)
        limiter.update_if_due(now)
        took = now - began
        me.assist_ns += took
        me.cycle_assist_ns += took
        add_relaxed(PACER_XASSIST_NS, took)
        me.assist_bytes += 1 + int(pc.assist_bytes_per_work * float(done))
        if is_tracing():
            tell_at(now, TRACE_ASSIST_END, done, me.assist_bytes)
        if me.assist_bytes >= 0 and done < need and not has_work():
            return DRY
    return PAID if me.assist_bytes >= 0 else IN_DEBT


@inline
def _drain_unless_limited(need: int) -> int:
    """Mark ``need`` bytes, or what there is until the limiter goes on (gcDrainN); how many it was."""
    done = 0
    while done < need and not limiter.is_limiting():
        want = min(need - done, _STEP)
        found = drain(want)
        done += found
        if found < want:
            break
        limiter.update_within_assist(nanotime())
    return done


@inline
def _steal_credit(need: int, debt: int) -> int:
    """Take as much of ``need`` from the credit as there is, in payment of ``debt``."""
    stolen = credit.steal(need)
    if stolen > 0:
        self_p().assist_bytes += debt if stolen == need else 1 + int(pacer().assist_bytes_per_work * float(stolen))
    return stolen
