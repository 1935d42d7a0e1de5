"""Polls: where a running program looks whether it should do something else; and waiting for the collector.

One word answers everything. A compiled program looks at it at each function entry and loop back-edge; the rest is :func:`poll_slow`.
A P that waits here has published its native roots and is SAFE; while the world is stopped to mark, it marks.
"""

from __future__ import annotations

from gomp.core.gc.assist import help_mark
from gomp.core.jit import inline, kernel
from gomp.core.sched.status import (
    NAPS_PER_LOOK,
    OK,
    SELF_POLL,
    become_running,
    become_safe,
    grow_native_stack,
    pass_ragged,
    shut_down_if_orphaned,
    wait_to_enter,
)
from gomp.core.shm.atomics import and_acq_rel, cas_acq_rel, load_acquire, load_relaxed, xchg_acq_rel
from gomp.core.shm.libc import eventfd_signal, futex_wait, nanotime, stack_pointer
from gomp.core.shm.records import (
    POLL_INTERRUPT,
    POLL_RAGGED,
    POLL_STOP,
    RT_XCYCLE_DONE,
    RT_XGC_REQUEST,
    RT_XSHUTDOWN,
    RT_XSTOP,
    runtime,
    self_p,
)

POLL_INTERRUPTED, POLL_OVERFLOW, POLL_SHUT_DOWN = 1, 2, 3
_NAP_NS = 1_000_000


@inline
def poll() -> int:
    """At a loop's back-edge: 0, or why the program must end."""
    if load_relaxed(SELF_POLL) == 0:
        return OK
    return poll_slow()


@inline
def poll_entry() -> int:
    """At a function's entry: as :func:`poll`, and a native stack that is too deep is POLL_OVERFLOW."""
    sp = stack_pointer()
    if sp < self_p().stack_guard and grow_native_stack(sp) != OK:
        return POLL_OVERFLOW
    return poll()


@kernel("int64()")
def poll_slow() -> int:
    bits = load_acquire(SELF_POLL)
    if bits & POLL_RAGGED:
        pass_ragged()
    if bits & POLL_STOP and load_acquire(RT_XSTOP) != 0:
        park_and_help(0)
    if load_acquire(RT_XSHUTDOWN) != 0:
        return POLL_SHUT_DOWN
    if bits & POLL_INTERRUPT:
        and_acq_rel(SELF_POLL, ~POLL_INTERRUPT)
        return POLL_INTERRUPTED
    return OK


@kernel("void(int64)")
def park_and_help(until_cycle: int) -> None:
    """Wait until no stop is on and, if ``until_cycle`` > 0, that many mark phases have ended; mark while the world is stopped for it."""
    began = nanotime()
    become_safe()
    naps = 0
    while load_acquire(RT_XSHUTDOWN) == 0:
        naps += 1
        if naps % NAPS_PER_LOOK == 0:
            shut_down_if_orphaned()
        help_mark()
        done = load_acquire(RT_XCYCLE_DONE)
        if until_cycle > done and load_acquire(RT_XSTOP) == 0:
            futex_wait(RT_XCYCLE_DONE, done, _NAP_NS)
        elif until_cycle <= done and become_running():
            break
        else:
            wait_to_enter(_NAP_NS // 20)
    _end_wait(began)


@inline
def _end_wait(began: int) -> None:
    me = self_p()
    me.stops += 1
    me.stopped_ns += nanotime() - began


@kernel("int64(int64)")
def request_collection(kind: int) -> int:
    """Ask the coordinator for a cycle; returns how many mark phases will have ended when it has been done. The strongest request stands."""
    target = runtime().cycles + 1
    pending = load_acquire(RT_XGC_REQUEST)
    while pending < kind and not cas_acq_rel(RT_XGC_REQUEST, pending, kind):
        pending = load_acquire(RT_XGC_REQUEST)
    eventfd_signal(self_p().wake_fd)
    return target


@kernel("int64()")
def take_request() -> int:
    """The pending request, or 0; it is the coordinator's now."""
    return xchg_acq_rel(RT_XGC_REQUEST, 0)


@kernel("void(int64)")
def wait_for_cycle(kind: int) -> None:
    """Ask for a collection and wait for it, in a compiled program. The caller has nothing in hand that is not on its native stack."""
    park_and_help(request_collection(kind))


@kernel("int64(int64, int64)", nogil=True)
def sleep_until_cycle(done: int, timeout_ns: int) -> int:
    """Sleep until more than ``done`` mark phases have ended, at most ``timeout_ns``; returns how many have. For Python: this P is SAFE."""
    now = load_acquire(RT_XCYCLE_DONE)
    if now <= done:
        futex_wait(RT_XCYCLE_DONE, now, timeout_ns)
    return load_acquire(RT_XCYCLE_DONE)
