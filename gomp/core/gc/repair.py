"""What is left to do after the process of a P was killed, between any two of its instructions.

1. :func:`bury`, at once: nobody waits for it any more. Its status is SAFE, its locks and claims are free. Others may be unable to stop before
   that, as who has something in hand waits for a lock and does not park; what the locks protect is usable meanwhile
   (see :mod:`~gomp.core.sched.locks`).
2. :func:`repair`, with the world stopped: finish what its redo record says, drop what only it held, make everything derived again, and start
   the marking over if it was on.
3. Fork a process that is this P from now on. Its totals go on in the same record.

All of it may be repeated from the start, so it does not matter who dies meanwhile. (If the coordinator does, so do all.)
"""

from __future__ import annotations

from gomp.core.gc import limiter
from gomp.core.gc.cycle import restart_marking_stw
from gomp.core.gc.rebuild import rebuild_derived_stw
from gomp.core.gc.specials import lose_specials_of_stw
from gomp.core.gc.stackscan import let_go_of_stack
from gomp.core.gc.worker import DEDICATED
from gomp.core.heap import mspan
from gomp.core.heap.mcache import reset_mcache
from gomp.core.jit import inline, kernel
from gomp.core.sched.locks import release_locks_of, release_map_locks_of
from gomp.core.sched.redo import apply_redo
from gomp.core.sched.status import OK, release_claims_of, start_world, stop_world
from gomp.core.shm import layout
from gomp.core.shm.atomics import (
    add_relaxed,
    load64,
    load_acquire,
    load_relaxed,
    store64,
    store_relaxed,
    store_release,
    store_seq_cst,
)
from gomp.core.shm.libc import futex_wake, nanotime
from gomp.core.shm.records import (
    GC_MARK,
    P_XAWAITS_CREDIT,
    P_XDEAD,
    P_XEVENT,
    P_XIDLE,
    P_XMARKING,
    P_XNATIVE_KEPT,
    P_XNATIVE_N,
    P_XPENDING,
    P_XPOLL,
    P_XSTATUS,
    PACER_XDEDICATED_NEEDED,
    PACER_XWAITERS,
    RT_XGCPHASE,
    STATUS_SAFE,
    TRACE_DEATH,
    TRACE_DETAIL_SHIFT,
    TRACE_REPAIR,
    TRACE_REPAIR_END,
    TRACE_STOP_WHY,
    TRACE_TO_REPAIR,
    gcstats,
    nth_p,
    p_at,
    p_records,
)
from gomp.core.shm.tracing import is_tracing, tell


@kernel("void(int64)")
def bury(p: int) -> None:
    """Have nobody wait for the P at ``p``, whose process has died. Called by the coordinator, whatever the world does."""
    store_release(p + P_XDEAD, 1)
    if is_tracing():
        tell(TRACE_DEATH, p_at(p).idx, 0)
    release_claims_of(p)
    gcstats().repaired_locks += release_locks_of(p)
    let_go_of_stack(p)
    store_seq_cst(p + P_XSTATUS, STATUS_SAFE)
    futex_wake(p + P_XSTATUS)


@kernel("int64(int64)")
def retire(deadline_ns: int) -> int:
    """As :func:`repair`, of Ps whose processes were told to end: it is no repair, and counts as none."""
    code = stop_world(deadline_ns)
    if code == OK:
        repair_stw()
    start_world()
    return code


@kernel("int64(int64)")
def repair(deadline_ns: int) -> int:
    """Put right what the buried have left: OK, or -1 - p if P p did not stop by ``deadline_ns``. World: running, and again afterwards."""
    began = nanotime()
    code = stop_world(deadline_ns)
    if code == OK:
        repair_stw()
        stats = gcstats()
        stats.repairs += 1
        stats.repair_last_ns = nanotime() - began
        stats.repair_ns += stats.repair_last_ns
        stats.repair_max_ns = max(stats.repair_max_ns, stats.repair_last_ns)
    start_world()
    return code


@kernel("void()")
def repair_stw() -> None:
    """As :func:`repair`. World: stopped."""
    if is_tracing():
        tell(TRACE_STOP_WHY | TRACE_TO_REPAIR << TRACE_DETAIL_SHIFT, 0, 0)
        tell(TRACE_REPAIR, 0, 0)
    for i in range(p_records()):
        if load_acquire(nth_p(i) + P_XDEAD):
            _settle(nth_p(i))
    rebuild_derived_stw()
    limiter.repair_stw(nanotime())
    if load_relaxed(RT_XGCPHASE) == GC_MARK:
        restart_marking_stw()
        gcstats().repaired_marking += 1
    for i in range(p_records()):
        if load_acquire(nth_p(i) + P_XDEAD):
            reset_mcache(nth_p(i))
            store_release(nth_p(i) + P_XDEAD, 0)
    if is_tracing():
        tell(TRACE_REPAIR_END, 0, 0)


@kernel("void(int64)")
def _settle(p: int) -> None:
    """Finish what the dead P at ``p`` had begun, and drop what it alone held. The rest is found by rebuilding."""
    apply_redo(p)
    gcstats().repaired_locks += release_map_locks_of(p)
    p_at(p).taking_page = mspan.NO_SPAN
    _drop_handles(p)
    lose_specials_of_stw(p)
    forget_process_stw(p)


@kernel("void(int64)")
def forget_process_stw(p: int) -> None:
    """What the record of the P at ``p`` says of a process that is gone. World: stopped."""
    pp = p_at(p)
    store_relaxed(p + P_XPENDING, 0)
    store_relaxed(p + P_XNATIVE_N, 0)
    store_relaxed(p + P_XNATIVE_KEPT, 0)
    if load_acquire(p + P_XMARKING) == DEDICATED and load_relaxed(RT_XGCPHASE) == GC_MARK:
        add_relaxed(PACER_XDEDICATED_NEEDED, 1)
    store_release(p + P_XMARKING, 0)
    store_release(p + P_XIDLE, 0)
    add_relaxed(PACER_XWAITERS, -load_relaxed(p + P_XAWAITS_CREDIT))
    store_relaxed(p + P_XAWAITS_CREDIT, 0)
    store_release(p + P_XEVENT, 0)
    store_release(p + P_XPOLL, 0)
    pp.gc_wait = 0
    pp.no_park = 0
    pp.waiting_for = 0
    pp.curg = 0
    pp.scheduling = 0
    pp.failed = 0
    pp.strange = 0
    pp.woken = 0
    pp.selecting = 0
    pp.out_bytes = 0
    pp.tiny = 0
    pp.tiny_offset = 0
    pp.python_gs = 0
    pp.python_g = 0
    pp.python_labels = 0
    pp.program_site = 0


@inline
def _drop_handles(p: int) -> None:
    pp = p_at(p)
    first = layout.handles_addr(pp.idx)
    for slot in range(first, first + 8 * pp.handles, 8):
        gcstats().repaired_handles += load64(slot) > 0  # a transit's ticket is below
        store64(slot, 0)
    pp.handles = 0  # or each later process of this P would have as many scanned, and cleared when it ends; their memory stays, and stays counted
