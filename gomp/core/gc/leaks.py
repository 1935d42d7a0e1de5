"""Goroutines that wait for ever: a marking that does not take those who wait for roots finds them (mgc.go, findGoroutineLeaks).

A goroutine waits at *primitives*, objects of the heap: at a channel, a lock or a group, in a select at several, or at none, which a channel that is
None is. If nobody can reach one of them who
may still run, nothing will end its wait: it has *leaked*. In a cycle for which this was asked:

1. HIDE: a goroutine that waits is no root, and what its record has is none, unless one of its primitives is marked. All else is as in any cycle.
2. When nothing grey is left, all stacks are looked at again, a *round*: who has a primitive that is marked by now is a root after all. So again,
   until a round has found nobody, and nothing was marked since it began.
3. With the world stopped that is looked at once more. Those who are hidden still have leaked: REVEAL. In one more round they are counted, told
   so, and become roots: what they have is not reclaimed, as somebody may come to it through a weak pointer.

Invariant, while HIDE and a round is over: a stack that is not scanned is that of a goroutine which has waited since the cycle began, at primitives
that were not marked when its shard was last looked at. For who begins to wait is black before (mutator/chan), so is who is born and who is given a P,
and who was made ready since is no more hidden.

A program reaches what the roots that are not hidden lead to when the cycle begins, and what is new: the barrier sees to it that the first is marked,
and the second is no primitive of anybody hidden. All Ps are black before the first round. So who ends a hidden one's wait after that came by its
primitive in a way that marks it, as from a weak pointer; that is counted, and another round follows.

That nothing was marked since a round began is known by counting: each P counts the objects that it makes grey, and the sum only grows. It is
read before the round's first look; who sets a mark later counts it later, too.

Someone who waits in a program, Python or compiled (``home``), is a root: a signal or a timeout may end that wait. If a process is killed, the marking
begins anew, at 1: who was told already is told again, or is seen to wait for something after all.
"""

from __future__ import annotations

from gomp.core.heap import mspan
from gomp.core.jit import inline, kernel
from gomp.core.shm import layout
from gomp.core.shm.atomics import add_relaxed, load_acquire, load_relaxed, store_release
from gomp.core.shm.records import (
    G_WAITING,
    LEAKS_HIDE,
    LEAKS_IGNORED,
    LEAKS_REVEAL,
    RT_XROOT_NEXT,
    SCHED_XLEAK_SCANS,
    SCHED_XLEAKED,
    WAITS_IN_SELECT,
    WAITS_TO_RECEIVE,
    g_at,
    nth_p,
    p_at,
    p_records,
    sched,
)

_NO_ROUND = -1
_NO_PRIMITIVE = 0


# --- the cycle --------------------------------------------------------------------------------------------------------


@kernel("void()")
def want_leaks() -> None:
    """The next cycle looks for leaks. By the coordinator, while none is on."""
    sched().leaks_wanted = 1


@inline
def begin_leaks_stw() -> None:
    """A marking begins, or begins anew."""
    s = sched()
    s.leak_mode = LEAKS_HIDE if s.leaks_wanted else LEAKS_IGNORED
    s.leak_marked = _NO_ROUND
    store_release(SCHED_XLEAK_SCANS, 0)
    store_release(SCHED_XLEAKED, 0)


@inline
def end_leaks_stw() -> None:
    """Marking is over."""
    s = sched()
    if s.leak_mode == LEAKS_REVEAL:
        s.leaked = load_relaxed(SCHED_XLEAKED)
        s.leak_looks += 1
        s.leaks_wanted = 0
    s.leak_mode = LEAKS_IGNORED


@inline
def is_hiding() -> bool:
    return sched().leak_mode == LEAKS_HIDE


@inline
def needs_round() -> bool:
    """Whether goroutines are hidden that need not be, for all that the last round says. Nothing grey is left."""
    s = sched()
    return s.leak_mode == LEAKS_HIDE and (load_acquire(SCHED_XLEAK_SCANS) != 0 or s.leak_marked != _marked_objects())


@inline
def begin_round() -> None:
    """Have all stacks that are not scanned looked at again. By the coordinator; nobody is in a root job."""
    s = sched()
    s.leak_marked = _marked_objects()
    store_release(SCHED_XLEAK_SCANS, 0)
    store_release(RT_XROOT_NEXT, s.first_stack_job)


@inline
def reveal_stw() -> None:
    """Who is hidden has leaked."""
    sched().leak_mode = LEAKS_REVEAL
    store_release(RT_XROOT_NEXT, sched().first_stack_job)


@kernel("int64()")
def _marked_objects() -> int:
    n = 0
    for i in range(p_records()):
        n += p_at(nth_p(i)).objects_marked
    return n


# --- a goroutine ------------------------------------------------------------------------------------------------------


@inline
def stays_hidden(g: int, status: int) -> bool:
    """Whether the goroutine at ``g``, whose stack this P has in hand as a marker, is no root so far. In a cycle that looks for leaks."""
    gp = g_at(g)
    may_leak = status == G_WAITING and gp.wait >= WAITS_TO_RECEIVE and gp.home == 0 and gp.done == 0
    if sched().leak_mode == LEAKS_REVEAL:
        if may_leak:
            gp.leaked = 1
            add_relaxed(SCHED_XLEAKED, 1)
        return False
    if may_leak and not _is_any_marked(g):
        return True
    gp.leaked = 0
    add_relaxed(SCHED_XLEAK_SCANS, 1)
    return False


@inline
def _is_any_marked(g: int) -> bool:
    i = 0
    addr = primitive(g, i)
    while addr != _NO_PRIMITIVE:
        page = mspan.span_of(addr)
        if mspan.is_marked(page, mspan.obj_idx_of(page, addr)):
            return True
        i += 1
        addr = primitive(g, i)
    return False


@inline
def primitive(g: int, i: int) -> int:
    """Address of the i-th object at which the goroutine at ``g`` waits, 0 behind the last."""
    if g_at(g).wait != WAITS_IN_SELECT:
        return g_at(g).chan if i == 0 else _NO_PRIMITIVE
    case = g_at(g).cases
    while case != 0:
        at = g_at(layout.g_addr(case)).chan
        if at != _NO_PRIMITIVE:
            if i == 0:
                return at
            i -= 1
        case = g_at(layout.g_addr(case)).link
    return _NO_PRIMITIVE
