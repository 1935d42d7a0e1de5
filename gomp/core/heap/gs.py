"""The table of goroutines, whose records are used again (proc.go, gfget and gfput).

A record is free while its status is G_DEAD. A P keeps up to 64 free ones, gives half of them to all when it has more, and takes as many, those
with stacks first. The lists say nothing that the statuses do not, and are made again after a death.
"""

from __future__ import annotations

from gomp.core.heap.stack import set_stack, stack_lo, stack_size
from gomp.core.heap.stackalloc import alloc_stack, free_stack
from gomp.core.jit import inline, kernel
from gomp.core.sched.locks import acquire, begin_critical, end_critical, release
from gomp.core.sched.runq import NO_G
from gomp.core.shm import layout
from gomp.core.shm.atomics import store_release
from gomp.core.shm.commit import commit_table
from gomp.core.shm.records import (
    G_CASE,
    G_DEAD,
    G_IDLE,
    SCHED_XLOCK,
    g_at,
    nth_p,
    p_at,
    p_records,
    sched,
    self_p,
    stackpool,
)

_MOST, _HALF = 64, 32


@kernel("int64()")
def take_g() -> int:
    """Number of a record with an empty stack for a new goroutine, whose status is G_IDLE; NO_G if there is no memory.

    A record that was never used gets FIXED_STACK bytes, one that was, what stacks begin with now.
    """
    begin_critical()
    g, size = _take_used(), stackpool().start_size
    if g == NO_G:
        g, size = _make_g(), layout.FIXED_STACK
    if g != NO_G and not _has_stack(g, size):
        _put_free(g)
        g = NO_G
    if g != NO_G:
        g_at(layout.g_addr(g)).scanned_epoch = 0  # of the goroutine before: this one's stack is white
        store_release(layout.g_addr(g), G_IDLE)
    end_critical()
    return g


@kernel("int64(int64)")
def take_case(of: int) -> int:
    """Number of a record that is a case of goroutine ``of`` from now on (``mutator/select.py``); NO_G if there is no memory."""
    begin_critical()
    g = _take_used()
    if g == NO_G:
        g = _make_g()
    if g != NO_G:
        g_at(layout.g_addr(g)).of = of
        self_p().g_ncases += 1
        store_release(layout.g_addr(g), G_CASE)
    end_critical()
    return g


@kernel("void(int64)")
def drop_case(number: int) -> None:
    """The record of that number is a case no more, and free."""
    begin_critical()
    self_p().g_ncases -= 1
    store_release(layout.g_addr(number), G_DEAD)
    _put_free(number)
    end_critical()


@kernel("void(int64)")
def drop_g(g: int) -> None:
    """The goroutine of record ``g`` is over. It keeps its stack if that has the size that stacks begin with now."""
    begin_critical()
    at = layout.g_addr(g)
    g_at(at).depth = 0
    store_release(at, G_DEAD)
    if stack_lo(at) != 0 and stack_size(at) != stackpool().start_size:
        _drop_stack(at)
    _put_free(g)
    end_critical()


@kernel("int64()")
def num_free_gs() -> int:
    """How many free records all share."""
    return sched().nfree


@kernel("int64(int64)")
def free_dead_stacks(most: int) -> int:
    """Take the stacks from up to ``most`` of the free records that all share (markroot, fixedRootFreeGStacks): how many had one.

    Called by who begins the cycles, which starts no goroutines, and in no cycle: so what becomes empty goes back to the heap at once.
    """
    me, n = self_p(), 0
    begin_critical()
    acquire(SCHED_XLOCK)
    while n < most and sched().free_with_stack != NO_G:
        _take_shared_locked(me)
        n += 1
    release(SCHED_XLOCK)
    g = me.g_free
    while g != NO_G:
        if stack_lo(layout.g_addr(g)) != 0:
            _drop_stack(layout.g_addr(g))
        g = g_at(layout.g_addr(g)).link
    acquire(SCHED_XLOCK)
    _share_free_locked(0)
    release(SCHED_XLOCK)
    end_critical()
    return n


@inline
def _drop_stack(at: int) -> None:
    lo, size = stack_lo(at), stack_size(at)
    set_stack(at, 0, 0)
    free_stack(lo, size)


@inline
def _has_stack(g: int, size: int) -> bool:
    """Give the record a stack of that size, if it has none or another; whether it has one."""
    at = layout.g_addr(g)
    if stack_lo(at) != 0 and stack_size(at) != size:
        _drop_stack(at)
    if stack_lo(at) == 0:
        stack = alloc_stack(size)
        if stack < 0:
            return False
        set_stack(at, stack, size)
    return True


@kernel("int64()")
def num_goroutines() -> int:
    """How many goroutines there are, as of one moment if nothing changes meanwhile (gcount)."""
    n = sched().ngs - sched().nfree
    for i in range(p_records()):
        n += p_at(nth_p(i)).python_gs - p_at(nth_p(i)).g_nfree - p_at(nth_p(i)).g_ncases
    return max(n, 0)


# --- free records -----------------------------------------------------------------------------------------------------


@inline
def _put_free(g: int) -> None:
    me = self_p()
    g_at(layout.g_addr(g)).link = me.g_free
    me.g_free = g
    me.g_nfree += 1
    if me.g_nfree >= _MOST:
        acquire(SCHED_XLOCK)
        _share_free_locked(_HALF - 1)
        release(SCHED_XLOCK)


@inline
def _share_free_locked(kept: int) -> None:
    """Holds: sched.lock. All share the free records that this P has beyond ``kept``."""
    me = self_p()
    while me.g_nfree > kept:
        g = me.g_free
        me.g_free = g_at(layout.g_addr(g)).link
        me.g_nfree -= 1
        give_free_locked(g)


@inline
def give_free_locked(g: int) -> None:
    """Holds: sched.lock."""
    gp = g_at(layout.g_addr(g))
    if stack_lo(layout.g_addr(g)) != 0:
        gp.link = sched().free_with_stack
        sched().free_with_stack = g
    else:
        gp.link = sched().free_without
        sched().free_without = g
    sched().nfree += 1


@inline
def _take_used() -> int:
    """Number of a record that was free, and still says so; NO_G if there is none."""
    me = self_p()
    if me.g_free == NO_G:
        _take_free(me)
    g = me.g_free
    if g != NO_G:
        me.g_free = g_at(layout.g_addr(g)).link
        me.g_nfree -= 1
    return g


@inline
def _take_free(me: int) -> None:
    if sched().nfree == 0:  # a hint
        return
    acquire(SCHED_XLOCK)
    while me.g_nfree < _HALF and sched().nfree > 0:
        _take_shared_locked(me)
    release(SCHED_XLOCK)


@inline
def _take_shared_locked(me: int) -> None:
    """Holds: sched.lock. One of the free records that all share is this P's, with a stack if any has one. There are some."""
    g = sched().free_with_stack
    if g != NO_G:
        sched().free_with_stack = g_at(layout.g_addr(g)).link
    else:
        g = sched().free_without
        sched().free_without = g_at(layout.g_addr(g)).link
    sched().nfree -= 1
    g_at(layout.g_addr(g)).link = me.g_free
    me.g_free = g
    me.g_nfree += 1


@inline
def _make_g() -> int:
    """Number of a record that nobody has used, all zero but dead; NO_G if the table is full or there is no memory for more of it."""
    acquire(SCHED_XLOCK)
    g = sched().ngs + 1
    end = (g + 1) * layout.G_RECORD
    if end > sched().gs_committed:
        at = layout.GS_BASE - layout.META_BASE + sched().gs_committed
        if g >= layout.MAX_GS or commit_table(self_p().meta_fd, at, layout.TABLE_STEP) != 0:
            g = NO_G
        else:
            sched().gs_committed += layout.TABLE_STEP
    if g != NO_G:
        store_release(layout.g_addr(g), G_DEAD)
        sched().ngs = g
    release(SCHED_XLOCK)
    return g
