"""Marking by several processes: joining, helping, and knowing that it is over.

``xmarkers`` counts the helpers that are marking now; -1 means that marking is closed. A helper joins by compare-and-swap while it is open,
marks until it finds nothing, publishes what it has left (nothing) and leaves. The coordinator marks too, and closes marking when it finds
nothing, the count is 0, and after closing the shared stack is still empty: a helper publishes before it leaves, so work that
it left behind is seen.

A helper that died or was stopped while it marks would keep the count up for ever. So the coordinator gives up when nobody has marked or scanned
anything for a while: however long one helper marks alone, it makes progress.
"""

from __future__ import annotations

from gomp.core.gc import roots, work
from gomp.core.gc.mark import drain
from gomp.core.jit import inline, kernel
from gomp.core.shm import layout
from gomp.core.shm.atomics import add_acq_rel, cas_acq_rel, cpu_pause, load_acquire, store_release
from gomp.core.shm.libc import cputime, nanotime, sched_yield
from gomp.core.shm.records import RT_XMARKERS, p_at, runtime, self_p

CLOSED = -1
OK = 0
PATIENCE_NS = 10_000_000_000
_SPINS = 50
_LOOK_EVERY = 256
_MOST_WAITED_NS = 10_000_000  # in one look: who was frozen together with the others has not waited for them


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


@kernel("int64()")
def _progress() -> int:
    """A number that changes while anybody marks."""
    total = 0
    for i in range(runtime().nrecords):
        p = p_at(layout.p_addr(i))
        total += p.objects_marked + p.heap_scan_work
    return total


@kernel("int64()")
def _pick_marker() -> int:
    """A P that has work buffers, which a helper has while it marks."""
    for i in range(runtime().nrecords):
        if p_at(layout.p_addr(i)).wbuf1 != 0:
            return i
    return 0


@kernel("int64(int64)")
def mark_all_stw(patience_ns: int) -> int:
    """Mark everything reachable, with whoever helps. World: stopped; the root jobs are prepared. Called by the coordinator.

    OK, or -1 - p if for ``patience_ns`` nobody made progress and P p has not finished. Then what is live is not known.
    """
    p = layout.p_addr(self_p().idx)
    store_release(RT_XMARKERS, 0)
    tries, waited, progress, looked = 0, 0, 0, 0
    while True:
        if work.has_full() or roots.has_root_jobs():
            _mark_until_dry(p)
            tries, waited, looked = 0, 0, 0
        elif load_acquire(RT_XMARKERS) == 0 and cas_acq_rel(RT_XMARKERS, 0, CLOSED):
            if not work.has_full():
                return OK
            store_release(RT_XMARKERS, 0)
        else:
            tries += 1
            if tries < _SPINS:
                cpu_pause()
                continue
            sched_yield()
            if tries % _LOOK_EVERY == 0:
                now, seen = nanotime(), _progress()
                waited = waited + min(now - looked, _MOST_WAITED_NS) if looked and seen == progress else 0
                progress, looked = seen, now
                if waited > patience_ns:
                    return -1 - _pick_marker()
