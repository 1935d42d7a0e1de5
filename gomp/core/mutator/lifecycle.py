"""The first state of a runtime and of a P."""

from __future__ import annotations

from gomp.core.gc import goal, limiter, pacer, work
from gomp.core.heap import mspan
from gomp.core.heap.accounting import table_bytes_stw
from gomp.core.heap.mcache import reset_mcache
from gomp.core.heap.mcentral import reset_mcentrals_stw
from gomp.core.heap.stack import set_max_stack
from gomp.core.heap.stackalloc import reset_stackpool
from gomp.core.jit import kernel
from gomp.core.sched.parking import wake_all_stw
from gomp.core.sched.runq import spill_ring_stw
from gomp.core.shm import layout
from gomp.core.shm.atomics import store_relaxed, store_release
from gomp.core.shm.commit import ENDLESS
from gomp.core.shm.libc import nanotime
from gomp.core.shm.records import (
    MAGIC,
    MHEAP_XBUDGET,
    MHEAP_XTABLES,
    P_XMAIL,
    P_XNATIVE_KEPT,
    P_XNATIVE_N,
    P_XOVER,
    RT_XSWEEP_CLASS,
    SWEEP_SETS,
    TRACE_DETAIL_SHIFT,
    TRACE_STOP_WHY,
    TRACE_TO_RESIZE,
    p_at,
    runtime,
    stackpool,
)
from gomp.core.shm.records import pacer as pacer_record
from gomp.core.shm.tracing import is_tracing, tell_at

_FIRST_SWEEPGEN = 2
_MAX_STACK = 1_000_000_000  # bytes, as in Go on 64-bit machines


@kernel("void(int64, int64, int64)")
def init_runtime(version: int, max_pages: int, nprocs: int) -> None:
    """Write the records of a new runtime. World: not started; the fixed regions are committed."""
    rt = runtime()
    rt.version = version
    rt.max_pages = max_pages
    rt.nprocs = nprocs
    rt.slots = nprocs
    rt.nrecords = nprocs
    rt.start_ns = nanotime()
    rt.resized_ns = rt.start_ns
    rt.sweepgen = _FIRST_SWEEPGEN
    store_release(RT_XSWEEP_CLASS, SWEEP_SETS)
    reset_mcentrals_stw()
    reset_stackpool()
    set_max_stack(_MAX_STACK)
    stackpool().start_size = layout.FIXED_STACK
    store_release(MHEAP_XBUDGET, ENDLESS)
    store_relaxed(MHEAP_XTABLES, table_bytes_stw())
    limiter.reset_capacity(rt.start_ns, nprocs)
    pacer_record().triggered = goal.NO_GOAL
    pacer.set_gc_percent(100)
    pacer.set_memory_limit(goal.NO_LIMIT)
    pacer.commit(1)
    rt.magic = MAGIC


@kernel("void(int64)")
def change_procs_stw(nprocs: int) -> None:
    """GOMAXPROCS is ``nprocs`` from now on (proc.go, procresize). World: stopped, and no cycle is on: it goes by one number from end to end."""
    rt, now = runtime(), nanotime()
    if is_tracing():
        tell_at(now, TRACE_STOP_WHY | TRACE_TO_RESIZE << TRACE_DETAIL_SHIFT, 0, 0)
    limiter.reset_capacity(now, nprocs)  # what is left of the time until now is the old Ps'
    rt.cpu_before_ns += (now - rt.resized_ns) * rt.nprocs
    for i in range(rt.nprocs):
        p_at(layout.p_addr(i)).available_ns += now - rt.resized_ns
    rt.resized_ns = now
    for i in range(nprocs, rt.nprocs):
        spill_ring_stw(layout.p_addr(i))
    wake_all_stw()
    rt.nprocs = nprocs


@kernel("int64(int64, int64, int64, int64, int64, int64)")
def init_p(idx: int, pid: int, heap_fd: int, meta_fd: int, wake_fd: int, coordinator_fd: int) -> int:
    """Make P ``idx`` this process's: 1, or 0 if there is no memory for its work buffers.

    World: running or not started; the P is SAFE and nobody runs it. The first P of all is the caller's own.
    """
    p = p_at(layout.p_addr(idx))
    p.idx = idx
    p.xpid = pid
    p.heap_fd = heap_fd
    p.meta_fd = meta_fd
    p.wake_fd = wake_fd
    p.coordinator_fd = coordinator_fd
    p.urgent_fd = -1
    p.taking_page = mspan.NO_SPAN
    p.no_park = 0
    p.epoch += 1
    p.stack_guard = 0
    p.stack_thread = 0
    p.steps = 0
    p.scheduler = 0
    p.waiter = 0
    p.codes = 0
    p.makes_at = 0
    p.program_site = 0
    store_relaxed(layout.p_addr(idx) + P_XMAIL, 0)
    store_relaxed(layout.p_addr(idx) + P_XOVER, 0)
    p.main_thread = 0
    p.python_turn_ns = 0
    p.python_gs = 0
    p.python_g = 0
    p.python_labels = 0
    p.native_deepest = 0
    store_relaxed(layout.p_addr(idx) + P_XNATIVE_N, 0)
    store_relaxed(layout.p_addr(idx) + P_XNATIVE_KEPT, 0)
    if p.cache_free == 0:  # else its pages are there still, of a former process
        p.cache_page = mspan.NO_SPAN
    reset_mcache(layout.p_addr(idx))
    return work.init_buffers(layout.p_addr(idx))
