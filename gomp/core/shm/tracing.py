"""What a trace is made of: events that each P writes into a ring of its own while somebody wants them.

Nouns
-----
event   four words: when, what (TRACE_*, and a detail above it), and two numbers that depend on that. A stretch of time has an event where it begins
        and one where it ends; those that are short or end in one kernel have one, at the end.
ring    a P's last TRACE_EVENTS events, in shared memory. Event n is in place n % TRACE_EVENTS, and ``xwritten`` says how many there ever were.
detail  what may happen more often than anybody can read: switches of goroutines, those made ready, spans swept. So many in a window of 10 ms are
        told, the others counted. Of switches and wake-ups the next 63 are then left out unseen, or those of 10 ms if others are ready: a goroutine
        that takes long meanwhile is missing, one that comes after it is not.

A ring is written by its P's process alone, with the interpreter's lock, so by one thread at a time: the words of an event, then ``xwritten``
(release). The words of the next are stored after that is visible (``fence_release``). A reader loads ``xwritten``, the events, each word with
acquire, then ``xwritten`` again: what the writer may have overwritten meanwhile it drops and counts. It takes no lock, and nobody waits for it. A
process that is killed leaves a ring with whole events: the one that it was about to write is not counted.

Off, it costs a load of a word in the P's own record where an event would be, and nothing in the fast path of an allocation. That load is relaxed;
who finds the word set orders it before all that follows (``fence_acquire``), for what counts details was made ready before the word was set. The
coordinator commits a P's ring before it sets the word, and it stays committed: who has read the word may write however late.
"""

from __future__ import annotations

from gomp.core.jit import inline, kernel
from gomp.core.shm import layout
from gomp.core.shm.atomics import (
    fence_acquire,
    fence_release,
    load64,
    load_acquire,
    load_relaxed,
    store64,
    store_release,
)
from gomp.core.shm.commit import commit_table
from gomp.core.shm.libc import nanotime
from gomp.core.shm.records import (
    DETAIL_KINDS,
    DETAIL_READIES,
    DETAIL_RUNS,
    DETAIL_SWEEPS,
    P_TRACE_SKIPS,
    P_XTRACING,
    TRACE_DETAIL_SHIFT,
    TRACE_DETAILS,
    TRACE_LEFT_OUT,
    g_at,
    p_at,
    self_p,
    trace_detail_at,
    trace_detail_dtype,
    trace_event_at,
)

OK = 0
WINDOW_NS = 10_000_000
MOST_DETAILS = 50  # of a kind in a window
_LOOK_EVERY = 64  # of those left out, at the clock
_TRACING, _SKIPS = layout.SELF_BASE + P_XTRACING, layout.SELF_BASE + P_TRACE_SKIPS
_DETAIL_BYTES = trace_detail_dtype.itemsize


# --- writing ----------------------------------------------------------------------------------------------------------


@inline
def is_tracing() -> bool:
    """Whether this P is to tell what happens."""
    if load_relaxed(_TRACING) == 0:
        return False
    fence_acquire()  # pairs with begin_tracing
    return True


@kernel("void(int64, int64, int64, int64)")
def tell_at(at_ns: int, what: int, a: int, b: int) -> None:
    """Only while :func:`is_tracing`: at ``at_ns`` this happened."""
    ring = layout.trace_addr(self_p().idx)
    n = load_relaxed(ring)
    event = trace_event_at(ring + layout.TRACE_HEADER + n % layout.TRACE_EVENTS * layout.TRACE_EVENT)
    fence_release()
    event.at_ns = at_ns
    event.what = what
    event.a = a
    event.b = b
    store_release(ring, n + 1)  # pairs with take_events


@kernel("void(int64, int64, int64)")
def tell(what: int, a: int, b: int) -> None:
    """As :func:`tell_at`, now."""
    tell_at(nanotime(), what, a, b)


@kernel("void(int64, int64, int64)")
def tell_if_tracing(what: int, a: int, b: int) -> None:
    """For Python."""
    if is_tracing():
        tell_at(nanotime(), what, a, b)


@kernel("int64()")
def is_this_p_tracing() -> int:
    """For Python."""
    return 1 if is_tracing() else 0


@inline
def is_too_much(which: int) -> bool:
    """Only while :func:`is_tracing`, before :func:`begin_detail`: whether this one of ``which``, DETAIL_RUNS or DETAIL_READIES, is left out, without
    a look at the clock or at the ring: goroutines switch in 80 ns. It has been counted already."""
    skips = load64(_SKIPS + 8 * which)
    if skips == 0:
        return False
    store64(_SKIPS + 8 * which, skips - 1)
    return True


@kernel("int64(int64, int64)")
def begin_detail(which: int, now_ns: int) -> int:
    """1 if this one of ``which``, DETAIL_*, is to be told; 0 if it is one too many, and counted."""
    detail = trace_detail_at(_detail_addr(which))
    if detail.left == 0 and now_ns < detail.until_ns:
        detail.count += 1
        if which != DETAIL_SWEEPS:
            detail.count += _LOOK_EVERY - 1
            store64(_SKIPS + 8 * which, _LOOK_EVERY - 1)
        return 0
    if now_ns >= detail.until_ns:
        if detail.count > 0:
            tell_at(now_ns, TRACE_LEFT_OUT | which << TRACE_DETAIL_SHIFT, detail.count, detail.ns)
        detail.until_ns = now_ns + WINDOW_NS
        detail.left = MOST_DETAILS
        detail.count = 0
        detail.ns = 0
    detail.left -= 1
    return 1


@inline
def _detail_addr(which: int) -> int:
    return layout.trace_addr(self_p().idx) + TRACE_DETAILS + which * _DETAIL_BYTES


@kernel("void(int64, int64)")
def leave_out(which: int, took_ns: int) -> None:
    """One that :func:`begin_detail` has not let be told took so long."""
    trace_detail_at(_detail_addr(which)).ns += took_ns


@kernel("void()")
def skip_no_more() -> None:
    """This P has slept, or 10 ms have passed: for the next of each kind the clock is looked at, however many were left out."""
    for which in (DETAIL_RUNS, DETAIL_READIES):
        trace_detail_at(_detail_addr(which)).count -= load64(_SKIPS + 8 * which)
        store64(_SKIPS + 8 * which, 0)


@inline
def was_running(goid: int) -> bool:
    """Only while tracing: whether the goroutine that stops here now has run since before the trace began."""
    me = self_p()
    if me.trace_running != goid:
        return False
    me.trace_running = 0
    return True


# --- the coordinator --------------------------------------------------------------------------------------------------


@kernel("int64(int64)")
def begin_tracing(p: int) -> int:
    """Have the P at ``p`` tell what happens from now on: OK, or a negated errno if there is no memory for its ring. World: stopped; of a P that
    has come since the trace began: running."""
    pp = p_at(p)
    ring = layout.trace_addr(pp.idx)
    if pp.trace_committed == 0:
        code = commit_table(self_p().meta_fd, ring - layout.META_BASE, layout.TRACE_RING)
        if code != OK:
            return code
        pp.trace_committed = layout.TRACE_RING
    for which in range(DETAIL_KINDS):
        detail = trace_detail_at(ring + TRACE_DETAILS + which * _DETAIL_BYTES)
        detail.until_ns = 0
        detail.left = 0
        detail.count = 0
    for which in (DETAIL_RUNS, DETAIL_READIES):
        store64(p + P_TRACE_SKIPS + 8 * which, 0)
    g = pp.curg  # read once: one that has come since the trace began may run
    pp.trace_running = g_at(g).id if g != 0 else 0
    store_release(p + P_XTRACING, 1)  # pairs with is_tracing
    return OK


@kernel("void(int64)")
def end_tracing(p: int) -> None:
    store_release(p + P_XTRACING, 0)


# --- reading ----------------------------------------------------------------------------------------------------------


@kernel("int64(int64)")
def count_events(p_idx: int) -> int:
    """Events that P ``p_idx`` ever wrote. Its ring is committed."""
    return load_acquire(layout.trace_addr(p_idx))


@kernel("int64(int64, int64, int64)")
def take_events(p_idx: int, first: int, out: int) -> int:
    """Copy the events of P ``p_idx`` from number ``first`` on, or the last TRACE_EVENTS of them, to ``out``, behind a word for the number of the
    first that is whole: the others were overwritten meanwhile. Returns the number of the event after the last."""
    ring = layout.trace_addr(p_idx)
    end = load_acquire(ring)  # pairs with tell_at
    kept = max(first, end - layout.TRACE_EVENTS)
    to = out + 8
    for n in range(kept, end):
        event = ring + layout.TRACE_HEADER + n % layout.TRACE_EVENTS * layout.TRACE_EVENT
        for at in range(0, layout.TRACE_EVENT, 8):
            store64(to + at, load_acquire(event + at))
        to += layout.TRACE_EVENT
    store64(out, min(max(kept, load_acquire(ring) + 1 - layout.TRACE_EVENTS), end))  # the next one may be half written
    return end
