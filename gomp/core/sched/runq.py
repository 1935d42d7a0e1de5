"""Queues of goroutines that are ready to run: a ring and one place before it for each P, and a list for all (proc.go, runqput to runqsteal).

ring   words between head and tail, both counts. Its P alone puts in, at the tail; whoever takes moves the head by a compare-and-swap, so that each
       entry is taken once. A thief takes half.
next   what its P has made ready last: it runs first, while what it needs is still in the caches. Thieves leave it alone at first.
list   linked through the records, under sched.lock: what no ring had room for, what has had its slice, what processes without a ring made ready.

A goroutine is in one of them, once, while its status is G_RUNNABLE and no ``home`` is set, and its P does not poll between the change of the status
and the queue. So all of them are derived: after a death the records tell what was in them.

Memory order: an entry is written before the tail is (release), and read after it (acquire); who takes it read it before it moves the head, and a
head that has not moved says that the entry was not overwritten.
"""

from __future__ import annotations

from gomp.core.jit import inline, kernel
from gomp.core.sched.locks import acquire, begin_critical, end_critical, release
from gomp.core.shm import layout
from gomp.core.shm.atomics import (
    cas_acq_rel,
    cpu_pause,
    load64,
    load_acquire,
    load_relaxed,
    load_seq_cst,
    store_relaxed,
    store_release,
    store_seq_cst,
    xchg_acq_rel,
)
from gomp.core.shm.libc import nanotime
from gomp.core.shm.records import (
    P_RUNQ,
    P_XRUNNEXT,
    P_XRUNQ_HEAD,
    P_XRUNQ_TAIL,
    P_XSTATUS,
    RUNQ_SIZE,
    SCHED_XLOCK,
    SCHED_XRUNQ_SIZE,
    STATUS_KERNEL,
    g_at,
    runtime,
    sched,
    self_p,
)

NO_G = 0
_HALF = RUNQ_SIZE // 2
_LET_RUN_NS = 3000  # before what a P is about to run is taken from it


@inline
def _own() -> int:
    return layout.p_addr(self_p().idx)


@inline
def _place(p: int, i: int) -> int:
    return p + P_RUNQ + 8 * (i & RUNQ_SIZE - 1)


@inline
def has_ring() -> bool:
    """Whether this process is a P that runs what is in its ring."""
    return self_p().idx < runtime().nprocs


@inline
def is_ring_empty(p: int) -> bool:
    """Of the P at ``p``; for others than itself a hint."""
    return load_seq_cst(p + P_XRUNQ_HEAD) == load_seq_cst(p + P_XRUNQ_TAIL) and load_seq_cst(p + P_XRUNNEXT) == NO_G


# --- putting ----------------------------------------------------------------------------------------------------------


@kernel("void(int64, int64)")
def runq_put(g: int, is_next: int) -> None:
    """Put goroutine ``g`` into this P's queue, to run before all others if ``is_next``; into the list if it has none or is full."""
    if not has_ring():
        put_global(g)
        return
    p = _own()
    if is_next:
        g = xchg_acq_rel(p + P_XRUNNEXT, g)
        if g == NO_G:
            return
    while True:
        head, tail = load_acquire(p + P_XRUNQ_HEAD), load_relaxed(p + P_XRUNQ_TAIL)
        if tail - head < RUNQ_SIZE:
            store_relaxed(_place(p, tail), g)
            store_seq_cst(p + P_XRUNQ_TAIL, tail + 1)  # store→load, against who parks
            return
        if _put_half(p, head, g):
            return


@inline
def _put_half(p: int, head: int, g: int) -> bool:
    """Move the older half of a full ring to the list, and ``g`` behind it; false if somebody has taken some meanwhile."""
    if not cas_acq_rel(p + P_XRUNQ_HEAD, head, head + _HALF):
        return False
    first, last = load64(_place(p, head)), load64(_place(p, head + _HALF - 1))  # only this P writes there
    for i in range(_HALF - 1):
        g_at(layout.g_addr(load64(_place(p, head + i)))).link = load64(_place(p, head + i + 1))
    g_at(layout.g_addr(last)).link = g
    _put_chain(first, g, _HALF + 1)
    return True


@kernel("void(int64)")
def put_global(g: int) -> None:
    """Put goroutine ``g`` behind all others in the list."""
    _put_chain(g, g, 1)


@inline
def _put_chain(first: int, last: int, n: int) -> None:
    begin_critical()  # what is in hand is in no queue
    acquire(SCHED_XLOCK)
    put_chain_locked(first, last, n)
    release(SCHED_XLOCK)
    end_critical()


@inline
def put_chain_locked(first: int, last: int, n: int) -> None:
    """Holds: sched.lock. ``n`` goroutines that are linked, behind all others in the list."""
    s = sched()
    g_at(layout.g_addr(last)).link = NO_G
    if s.runq_tail != NO_G:
        g_at(layout.g_addr(s.runq_tail)).link = first
    else:
        s.runq_head = first
    s.runq_tail = last
    store_relaxed(SCHED_XRUNQ_SIZE, load_relaxed(SCHED_XRUNQ_SIZE) + n)


# --- taking -----------------------------------------------------------------------------------------------------------


@kernel("int64()")
def runq_get() -> int:
    """The next goroutine of this P's own queue, NO_G if it has none."""
    p = _own()
    g = load_relaxed(p + P_XRUNNEXT)
    if g != NO_G and cas_acq_rel(p + P_XRUNNEXT, g, NO_G):
        return g
    while True:
        head, tail = load_acquire(p + P_XRUNQ_HEAD), load_relaxed(p + P_XRUNQ_TAIL)
        if head == tail:
            return NO_G
        g = load64(_place(p, head))
        if cas_acq_rel(p + P_XRUNQ_HEAD, head, head + 1):
            return g


@kernel("int64(int64)")
def get_global(most: int) -> int:
    """The first of the list, NO_G if there is none. This P's share of the others, at most ``most`` - 1, goes into its ring, which has room."""
    if load_relaxed(SCHED_XRUNQ_SIZE) == 0:
        return NO_G
    begin_critical()
    acquire(SCHED_XLOCK)
    size = load_relaxed(SCHED_XRUNQ_SIZE)
    n = min(size, size // runtime().nprocs + 1, most)
    g = _pop_locked(n)
    for _ in range(n - 1):
        runq_put(_pop_locked(1), 0)
    release(SCHED_XLOCK)
    end_critical()
    return g


@inline
def _pop_locked(n: int) -> int:
    """Holds: sched.lock. The first of the list if ``n`` > 0."""
    s = sched()
    if n <= 0:
        return NO_G
    g = s.runq_head
    s.runq_head = g_at(layout.g_addr(g)).link
    if s.runq_head == NO_G:
        s.runq_tail = NO_G
    store_relaxed(SCHED_XRUNQ_SIZE, load_relaxed(SCHED_XRUNQ_SIZE) - 1)
    return g


@kernel("int64(int64, int64)")
def runq_steal(victim: int, takes_next: int) -> int:
    """Take half of what is in the ring of the P at ``victim`` into this P's own, which is empty: one of them, NO_G if there was nothing.

    ``takes_next``: else what it was to run next, too.
    """
    p = _own()
    tail = load_relaxed(p + P_XRUNQ_TAIL)
    while True:
        head, end = load_acquire(victim + P_XRUNQ_HEAD), load_acquire(victim + P_XRUNQ_TAIL)
        n = end - head - (end - head) // 2
        if n <= 0:
            return _steal_next(victim) if takes_next else NO_G
        if n > _HALF:  # head and tail are not of one moment
            continue
        for i in range(n):
            store_relaxed(_place(p, tail + i), load64(_place(victim, head + i)))
        if cas_acq_rel(victim + P_XRUNQ_HEAD, head, head + n):
            break
    store_release(p + P_XRUNQ_TAIL, tail + n - 1)
    self_p().steals += n
    return load64(_place(p, tail + n - 1))


@inline
def _steal_next(victim: int) -> int:
    g = load_acquire(victim + P_XRUNNEXT)
    if g == NO_G:
        return NO_G
    if load_relaxed(victim + P_XSTATUS) == STATUS_KERNEL:  # it may be about to run it
        until = nanotime() + _LET_RUN_NS
        while nanotime() < until:
            cpu_pause()
    if not cas_acq_rel(victim + P_XRUNNEXT, g, NO_G):
        return NO_G
    self_p().steals += 1
    return g


@kernel("int64()")
def num_queued() -> int:
    """How many goroutines are in the queues: a hint."""
    n = load_relaxed(SCHED_XRUNQ_SIZE)
    for i in range(runtime().nprocs):
        p = layout.p_addr(i)
        n += max(load_relaxed(p + P_XRUNQ_TAIL) - load_relaxed(p + P_XRUNQ_HEAD), 0)
        n += load_relaxed(p + P_XRUNNEXT) != NO_G
    return n


# --- with the world stopped -------------------------------------------------------------------------------------------


@inline
def ring_entry(p: int, i: int) -> int:
    """The i-th entry ever put into the ring of the P at ``p``, if it is there."""
    return load64(_place(p, i))


@kernel("void(int64)")
def forget_ring_stw(p: int) -> None:
    """The queue of the P at ``p`` is empty."""
    store_relaxed(p + P_XRUNQ_HEAD, 0)
    store_relaxed(p + P_XRUNQ_TAIL, 0)
    store_relaxed(p + P_XRUNNEXT, NO_G)


@kernel("void(int64)")
def spill_ring_stw(p: int) -> None:
    """What is in the queue of the P at ``p`` goes to the list: it is not to run any more."""
    for i in range(load_relaxed(p + P_XRUNQ_HEAD), load_relaxed(p + P_XRUNQ_TAIL)):
        put_chain_locked(load64(_place(p, i)), load64(_place(p, i)), 1)
    g = load_relaxed(p + P_XRUNNEXT)
    if g != NO_G:
        put_chain_locked(g, g, 1)
    forget_ring_stw(p)
