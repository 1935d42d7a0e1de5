"""A garbage collection cycle, run by the coordinator. The pause is one kernel.

1. Sweep what the last cycle left unswept, while programs run.
2. Stop the world. Empty every mcache, so that the span table says exactly what is allocated.
3. Mark from the roots: the coordinator, and every P that was stopped inside a program.
4. Settle: what is marked is live; the next goal; a new sweep generation.
5. Start the world. The pause is stamped before anybody is woken.
6. Those who wait for the cycle go on; sweeping is proportional to allocation and, in the background, the coordinator's.
"""

from __future__ import annotations

from gomp.core.gc import pacer, sweep
from gomp.core.gc.assist import PATIENCE_NS, mark_all_stw
from gomp.core.gc.roots import prepare_root_jobs_stw
from gomp.core.heap.mcache import release_all_stw
from gomp.core.jit import inline, kernel
from gomp.core.sched.status import OK, start_world, stop_world
from gomp.core.shm import layout
from gomp.core.shm.atomics import add_acq_rel, clz, load_relaxed
from gomp.core.shm.libc import futex_wake, nanotime
from gomp.core.shm.records import (
    GC_MARK,
    GC_OFF,
    GC_TRIGGER_FORCED,
    GC_TRIGGER_LAST_RESORT,
    PACER_XLIVE,
    RT_XCYCLE_DONE,
    gcstats,
    p_at,
    runtime,
)
from gomp.core.shm.records import pacer as pacer_record

_SWEEP_SLICE = 64


@kernel("int64(int64, int64, int64)")
def collect(kind: int, unix_ns: int, deadline_ns: int) -> int:
    """Run one cycle; OK, or -1 - p if P p did not stop by ``deadline_ns``. ``unix_ns``: the time of day, for the statistics.

    Also -1 - p if P p began to help with marking and did not go on; then the world stays stopped, for the runtime to be ended.
    """
    while sweep.sweep_step(_SWEEP_SLICE):
        pass
    began = nanotime()
    code = stop_world(deadline_ns)
    if code != OK:
        start_world()
        return code
    stopped = nanotime()
    while sweep.sweep_step(_SWEEP_SLICE):  # a P may have been in the middle of a span
        pass
    code = _mark_stw(began)
    if code != OK:
        return code
    _record_stw(kind, unix_ns, began, stopped, nanotime())
    start_world()
    gcstats().last_resume_ns = nanotime()
    if kind in (GC_TRIGGER_FORCED, GC_TRIGGER_LAST_RESORT):
        while sweep.sweep_step(_SWEEP_SLICE):
            pass
    add_acq_rel(RT_XCYCLE_DONE, 1)
    futex_wake(RT_XCYCLE_DONE)
    return OK


@inline
def _each_p(i: int) -> int:
    """Address of the i-th P record in use; the last is the coordinator's."""
    return layout.p_addr(i if i < runtime().nrecords else layout.COORDINATOR_P)


@kernel("void()")
def flush_caches_stw() -> None:
    """Give every P's cached spans back, so that the counters say exactly what is allocated. World: stopped."""
    for i in range(runtime().nrecords + 1):
        release_all_stw(_each_p(i))


@kernel("int64(int64)")
def _mark_stw(began: int) -> int:
    rt, stats = runtime(), gcstats()
    rt.cycles += 1
    flush_caches_stw()
    for i in range(rt.nrecords + 1):
        p = _each_p(i)
        p_at(p).bytes_marked = 0
        p_at(p).heap_scan_work = 0
    stats.heap0 = load_relaxed(PACER_XLIVE)
    pacer.start_cycle(began)
    rt.gcphase = GC_MARK
    prepare_root_jobs_stw()
    code = mark_all_stw(PATIENCE_NS)
    if code != OK:
        return code
    rt.gcphase = GC_OFF
    marked, scanned = 0, 0
    for i in range(rt.nrecords + 1):
        marked += p_at(_each_p(i)).bytes_marked
        scanned += p_at(_each_p(i)).heap_scan_work
    pacer_record().heap_scan_work = scanned
    stats.heap1 = load_relaxed(PACER_XLIVE)
    stats.heap2 = marked
    pacer.reset_live(marked)
    sweep.begin_sweep_stw()
    pacer.commit()
    pacer.pace_sweep()
    return OK


@kernel("void(int64, int64, int64, int64, int64)")
def _record_stw(kind: int, unix_ns: int, began: int, stopped: int, ended: int) -> None:
    rt, stats = runtime(), gcstats()
    pause = ended - began
    slot = stats.num_gc % 256
    stats.pause_ns[slot] = pause
    stats.pause_end_ns[slot] = unix_ns + pause
    stats.num_gc += 1
    stats.last_forced = 1 if kind == GC_TRIGGER_FORCED else 0
    stats.num_forced += stats.last_forced
    stats.last_gc_unix_ns = unix_ns + pause
    stats.pause_total_ns += pause
    stats.pause_max_ns = max(stats.pause_max_ns, pause)
    stats.stop_seconds[64 - clz(pause)] += 1
    stats.last_stopping_ns = stopped - began
    stats.stopping_total_ns += stopped - began
    stats.last_pause_ns = pause
    stats.last_goal = pacer_record().last_heap_goal
    stats.last_start_ns = began
    stats.last_mark_ns = stopped
    stats.last_end_ns = ended
    mark_ns = 0
    for i in range(rt.nrecords + 1):
        mark_ns += p_at(_each_p(i)).mark_ns
    stats.last_cpu_ns = mark_ns - stats.mark_cpu_ns
    stats.mark_cpu_ns = mark_ns
    stats.pause_cpu_ns += pause * rt.nprocs
