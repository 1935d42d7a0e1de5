"""What the pacer decided and what went into it: copies of its record at each decision, for traces and tapes.

Only the coordinator takes these decisions, and it takes the copies away before the next one. Off, it costs one load a decision.
"""

from __future__ import annotations

from gomp.core.gc.goal import heap_goal, memory_limit_goal, trigger
from gomp.core.gc.sweep import is_sweep_done
from gomp.core.heap.accounting import heap_free, mapped_ready
from gomp.core.jit import kernel
from gomp.core.shm.atomics import load64, load_relaxed, store64
from gomp.core.shm.records import (
    GC_OFF,
    MAX_PACER_EVENTS,
    MHEAP_XALLOC,
    PACER,
    PACER_EVENTS,
    RT_XGCPHASE,
    pacer_dtype,
    pacer_event_dtype,
    pacer_events,
    pacer_log,
    runtime,
)

_COPY = pacer_event_dtype.fields["pacer"][1]
_EVENT = pacer_event_dtype.itemsize
_PACER = pacer_dtype.itemsize


@kernel("void(int64, int64, int64)")
def note(event: int, now_ns: int, kind: int) -> None:
    """Keep a copy, if somebody wants it. ``event``: PACER_EVENT_*; ``kind``: of a cycle that begins. World: stopped."""
    log = pacer_log()
    if not log.is_on:
        return
    n = log.n % MAX_PACER_EVENTS
    e = pacer_events()[n]
    e.event, e.kind, e.now_ns, e.procs = event, kind, now_ns, runtime().nprocs
    e.mapped, e.heap_free, e.heap_alloc = mapped_ready(), heap_free(), load_relaxed(MHEAP_XALLOC)
    e.goal, e.trigger, e.limit_goal = heap_goal(), trigger(), memory_limit_goal()
    e.is_sweep_done = 1 if is_sweep_done() else 0
    e.is_marking = 1 if load_relaxed(RT_XGCPHASE) != GC_OFF else 0
    for at in range(0, _PACER, 8):
        store64(PACER_EVENTS + n * _EVENT + _COPY + at, load64(PACER + at))
    log.n += 1
