"""Marking by several processes: joining, helping, and knowing that it is over.

``xmarkers`` counts the helpers that are marking now; -1 means that marking is closed. A helper joins by compare-and-swap while it is open,
marks until it finds nothing, publishes what it has left (nothing) and leaves. The coordinator marks too, and closes marking when it finds
nothing, the count is 0, and after closing the shared stack is still empty: a helper publishes before it leaves, so work that
it left behind is seen.
"""

from __future__ import annotations

from gomp.core.gc import roots, work
from gomp.core.gc.mark import drain
from gomp.core.jit import inline, kernel
from gomp.core.shm import layout
from gomp.core.shm.atomics import add_acq_rel, cas_acq_rel, cpu_pause, load_acquire, store_release
from gomp.core.shm.libc import cputime, sched_yield
from gomp.core.shm.records import RT_XMARKERS, p_at, self_p

CLOSED = -1
_SPINS = 50


@inline
def _mark_until_dry(p: int) -> None:
    """Mark what can be found, and charge the time to the P at ``p``, this process's."""
    began = cputime()
    work.init_buffers(p)
    drain(p)
    while roots.run_root_job(p) != 0:
        drain(p)
    work.dispose(p)
    p_at(p).mark_ns += cputime() - began


@kernel("void()")
def help_mark() -> None:
    """Mark, if the world is stopped for it and there is work. World: stopped; this P is SAFE and its roots are published."""
    while load_acquire(RT_XMARKERS) != CLOSED and (work.has_full() or roots.has_root_jobs()):
        n = load_acquire(RT_XMARKERS)
        if n != CLOSED and cas_acq_rel(RT_XMARKERS, n, n + 1):
            _mark_until_dry(layout.p_addr(self_p().idx))
            add_acq_rel(RT_XMARKERS, -1)


@kernel("void()")
def mark_all_stw() -> None:
    """Mark everything reachable, with whoever helps. World: stopped; the root jobs are prepared. Called by the coordinator."""
    p = layout.p_addr(self_p().idx)
    store_release(RT_XMARKERS, 0)
    tries = 0
    while True:
        if work.has_full() or roots.has_root_jobs():
            _mark_until_dry(p)
            tries = 0
        elif load_acquire(RT_XMARKERS) == 0 and cas_acq_rel(RT_XMARKERS, 0, CLOSED):
            if not work.has_full():
                return
            store_release(RT_XMARKERS, 0)
        else:
            tries += 1
            if tries < _SPINS:
                cpu_pause()
            else:
                sched_yield()
