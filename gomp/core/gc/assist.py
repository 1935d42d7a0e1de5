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
from gomp.core.gc.mark import drain, scan
from gomp.core.heap import mspan
from gomp.core.jit import inline, kernel
from gomp.core.shm import layout
from gomp.core.shm.atomics import add_acq_rel, cas_acq_rel, cpu_pause, load_acquire, store_release
from gomp.core.shm.libc import cputime, nanotime, sched_yield
from gomp.core.shm.records import (
    RT_XMARKERS,
    RT_XOVERFLOW,
    SPAN_IN_USE,
    mheap,
    p_at,
    page_heads,
    runtime,
    self_p,
    spans,
)

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
    drain(p)
    while roots.run_root_job(p) != 0:
        drain(p)
    p_at(p).mark_ns += cputime() - began


@kernel("void()")
def help_mark() -> None:
    """Mark, if the world is stopped for it and there is work. World: stopped; this P is SAFE and its roots are published."""
    while load_acquire(RT_XMARKERS) != CLOSED and (work.has_full() or roots.has_root_jobs()):
        n = load_acquire(RT_XMARKERS)
        if n != CLOSED and cas_acq_rel(RT_XMARKERS, n, n + 1):
            p = layout.p_addr(self_p().idx)
            equipped = work.init_buffers(p)
            if equipped:
                _mark_until_dry(p)
            work.dispose(p)
            add_acq_rel(RT_XMARKERS, -1)
            if not equipped:
                return


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


@kernel("void(int64)")
def _rescan_marked(p: int) -> None:
    """Scan every marked object once more: among them are those that were dropped."""
    page, end = 0, mheap().end_page
    while page < end:
        sp = spans()[page]
        if sp.state != SPAN_IN_USE or page_heads()[page] != 1:
            page += 1
            continue
        if not mspan.is_noscan(sp.span_class):
            for idx in range(sp.nelems):
                if mspan.is_marked(page, idx):
                    scan(p, mspan.obj_addr(page, idx))
            drain(p)
        page += sp.npages


@kernel("int64(int64)")
def mark_all_stw(patience_ns: int) -> int:
    """Mark everything reachable, with whoever helps. World: stopped; the root jobs are prepared. Called by the coordinator.

    OK, or -1 - p if for ``patience_ns`` nobody made progress and P p has not finished. Then what is live is not known.
    """
    p = layout.p_addr(self_p().idx)
    work.init_buffers(p)  # the two that were made when the runtime began: all buffers are empty now
    store_release(RT_XOVERFLOW, 0)
    store_release(RT_XMARKERS, 0)
    tries, waited, progress, looked = 0, 0, 0, 0
    while True:
        if work.has_full() or roots.has_root_jobs():
            _mark_until_dry(p)
            tries, waited, looked = 0, 0, 0
        elif load_acquire(RT_XMARKERS) == 0 and cas_acq_rel(RT_XMARKERS, 0, CLOSED):
            dropped = load_acquire(RT_XOVERFLOW)
            if not work.has_full() and dropped == 0:
                work.dispose(p)
                return OK
            store_release(RT_XMARKERS, 0)
            if dropped:
                store_release(RT_XOVERFLOW, 0)
                _rescan_marked(p)
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
