"""The ragged barrier: an action runs once for each P, at a moment of its own, and then it has run for all.

It runs at the P's next poll, or the coordinator claims the P if it is SAFE. Claim and status exclude each other, so ``xragged``, the last
barrier passed, decides who was first. The P clears its poll bit *before* it reads the barrier's number: a later barrier sets the bit again.

The action is what marking needs of a P: that its roots are scanned, once a cycle, and that grey objects which only it knows of become
everybody's. ``xflushed`` says at which barrier that last found any; a barrier at which nobody had any, with no work left in public, is the
sign that the marking may be over (mgc.go, gcMarkDone).
"""

from __future__ import annotations

from gomp.core.gc import roots, spanq, wbbuf
from gomp.core.gc.mark import publish_scan_work
from gomp.core.jit import inline, kernel
from gomp.core.sched.status import (
    MISSED,
    OK,
    SELF_POLL,
    SPINS,
    ask_each_p,
    forget_native_roots,
    publish_native_roots,
    put_off,
    try_claim,
    unclaim,
)
from gomp.core.shm import layout
from gomp.core.shm.atomics import (
    and_acq_rel,
    cpu_pause,
    load_acquire,
    load_relaxed,
    store_release,
    store_seq_cst,
)
from gomp.core.shm.libc import futex_wait, is_readable, nanotime, sched_yield
from gomp.core.shm.records import (
    GC_OFF,
    P_XPOLL,
    P_XRAGGED,
    P_XSTATUS,
    POLL_RAGGED,
    RT_XFLUSHED,
    RT_XGCPHASE,
    RT_XRAGGED,
    STATUS_KERNEL,
    STATUS_SAFE,
    nrecords,
    p_at,
    self_p,
)

_SHORT_NAP_NS = 50_000


@kernel("int64(int64)")
def publish_grey(p: int) -> int:
    """Make the grey objects that only the P at ``p`` knows of everybody's, its roots and its barrier's buffer included; 1 if there were any.

    Called in KERNEL by itself, by its claimer, or with the world stopped. May be repeated after a kill.
    """
    if not roots.is_scanned(p):
        roots.scan_p(p)
    wbbuf.flush(p)
    publish_scan_work(p)
    return spanq.dispose(p)


@kernel("void(int64, int64)")
def _pass_barrier(p: int, number: int) -> None:
    """Once for each barrier, however often the bit is found set. Called as :func:`publish_grey` is."""
    if has_passed(p, number):
        return
    if load_relaxed(RT_XGCPHASE) != GC_OFF and publish_grey(p):
        store_release(RT_XFLUSHED, number)
    p_at(p).ragged_runs += 1
    store_release(p + P_XRAGGED, number)  # pairs with has_passed


@inline
def pass_ragged() -> None:
    """At a poll, in KERNEL: what the barrier's action did on this P is visible to whoever reads the number."""
    and_acq_rel(SELF_POLL, ~POLL_RAGGED)  # before the number is read
    p = layout.p_addr(self_p().idx)
    must_scan = load_relaxed(RT_XGCPHASE) != GC_OFF and not roots.is_scanned(p)
    if must_scan:
        publish_native_roots()
    _pass_barrier(p, load_acquire(RT_XRAGGED))
    if must_scan:
        forget_native_roots()


@inline
def has_passed(p: int, number: int) -> bool:
    return load_acquire(p + P_XRAGGED) >= number


@inline
def open_ragged() -> int:
    """There is a ragged barrier to pass, for whoever is asked to, or asked for something else; its number."""
    number = load_acquire(RT_XRAGGED) + 1  # one coordinator: no other process adds
    store_seq_cst(RT_XRAGGED, number)
    return number


@inline
def begin_ragged() -> int:
    """Ask every P to pass a ragged barrier at its next poll; returns the barrier's number."""
    number = open_ragged()
    ask_each_p(POLL_RAGGED)
    return number


@inline
def _try_act_for(p: int, number: int) -> bool:
    """Pass the barrier for a P that is SAFE; false if it is not."""
    if load_acquire(p + P_XSTATUS) != STATUS_SAFE or not try_claim(p):
        return False
    _pass_barrier(p, number)
    and_acq_rel(p + P_XPOLL, ~POLL_RAGGED)
    unclaim(p)
    return True


@kernel("int64()")
def act_for_safe_ps() -> int:
    """Pass the last barrier for those that are SAFE and have not passed it; how many have still not. Called by the coordinator."""
    number, left = load_acquire(RT_XRAGGED), 0
    for i in range(nrecords()):
        p = layout.p_addr(i)
        if not has_passed(p, number) and not _try_act_for(p, number):
            left += 1
    return left


@kernel("int64(int64)")
def for_each_p(deadline_ns: int) -> int:
    """Have the barrier's action run once for each P. World: running, called by the coordinator.

    OK, or -1 - p if P p has neither passed nor been SAFE by ``deadline_ns``, or until something urgent came up; it passes that barrier
    together with the next one.
    """
    number = begin_ragged()
    for i in range(nrecords()):
        deadline_ns = _wait_until_passed(layout.p_addr(i), number, deadline_ns)
        if deadline_ns == MISSED:
            return -1 - i
    return OK


@inline
def _wait_until_passed(p: int, number: int, deadline_ns: int) -> int:
    """Until when the next may take, or MISSED."""
    tries, looked_ns = 0, nanotime()
    while not has_passed(p, number) and not _try_act_for(p, number):
        tries += 1
        if tries < SPINS:
            cpu_pause()
        elif tries < 2 * SPINS:
            sched_yield()
        else:
            now_ns = nanotime()
            deadline_ns = put_off(deadline_ns, looked_ns, now_ns)
            looked_ns = now_ns
            if now_ns > deadline_ns or is_readable(self_p().urgent_fd):
                return MISSED
            # Neither leaving nor passing wakes anybody for this: both are frequent, and a barrier is rare.
            futex_wait(p + P_XSTATUS, STATUS_KERNEL, _SHORT_NAP_NS)
    return deadline_ns
