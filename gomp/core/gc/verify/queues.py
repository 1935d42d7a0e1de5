"""Level 2: each goroutine that is ready is in one queue, each that waits for others, or case of one, in its, and no other is in any."""

from __future__ import annotations

from gomp.core.gc.verify.problems import CHAN_LAST, G_LISTED, G_QUEUED, expect, problem
from gomp.core.heap.waitq import TO_LAST, is_in_queue, queue_of
from gomp.core.jit import inline, kernel
from gomp.core.sched.runq import ring_entry
from gomp.core.shm import layout
from gomp.core.shm.atomics import load64, load_acquire, load_relaxed
from gomp.core.shm.records import (
    G_RUNNABLE,
    P_XENDED_WAITS,
    P_XRUNNEXT,
    P_XRUNQ_HEAD,
    P_XRUNQ_TAIL,
    RUNQ_SIZE,
    SCHED_XRUNQ_SIZE,
    g_at,
    nth_p,
    p_at,
    p_records,
    sched,
)


@kernel("void(int64)")
def check_queues(out: int) -> None:
    """World: stopped."""
    s = sched()
    for g in range(1, s.ngs + 1):
        g_at(layout.g_addr(g)).queued = 0
    for i in range(p_records()):
        p = nth_p(i)
        head, tail = load_relaxed(p + P_XRUNQ_HEAD), load_relaxed(p + P_XRUNQ_TAIL)
        for n in range(head, min(tail, head + RUNQ_SIZE)):
            _count(out, ring_entry(p, n))
        if load_relaxed(p + P_XRUNNEXT) != 0:
            _count(out, load_relaxed(p + P_XRUNNEXT))
        _walk_ended(out, load_relaxed(p + P_XENDED_WAITS))
        _walk_ended(out, p_at(p).ended_waits)
    g, listed = s.runq_head, 0
    while 0 < g <= s.ngs and listed <= s.ngs:
        _count(out, g)
        listed += 1
        g = g_at(layout.g_addr(g)).link
    expect(out, G_LISTED, listed, load_relaxed(SCHED_XRUNQ_SIZE))
    for g in range(1, s.ngs + 1):
        at = layout.g_addr(g)
        if is_in_queue(at) and load64(queue_of(at)) == g:
            _walk(out, queue_of(at))
    for g in range(1, s.ngs + 1):
        at = layout.g_addr(g)
        is_ready = load_acquire(at) == G_RUNNABLE and (g_at(at).home == 0 or g_at(at).listens != 0)
        if g_at(at).queued != (1 if is_ready or is_in_queue(at) else 0):
            problem(out, G_QUEUED, g, load_acquire(at), g_at(at).queued)


@kernel("void(int64, int64)")
def _walk_ended(out: int, g: int) -> None:
    """Count those in a list of ended waits."""
    left = sched().ngs
    while g != 0 and left > 0:
        _count(out, g)
        g = g_at(layout.g_addr(g)).link if 0 < g <= sched().ngs else 0
        left -= 1


@kernel("void(int64, int64)")
def _walk(out: int, queue: int) -> None:
    """Count those in a queue, whose first is one that waits there."""
    g, last, left = load64(queue), 0, sched().ngs
    while 0 < g <= sched().ngs and left > 0:
        at = layout.g_addr(g)
        _count(out, g)
        if not is_in_queue(at) or queue_of(at) != queue:
            problem(out, G_QUEUED, g, load_acquire(at), 1)
            return
        left -= 1
        last = g
        g = g_at(at).next
    expect(out, CHAN_LAST, load64(queue + TO_LAST), last)


@inline
def _count(out: int, g: int) -> None:
    if 0 < g <= sched().ngs:
        g_at(layout.g_addr(g)).queued += 1
    else:
        problem(out, G_QUEUED, g, -1, 1)
