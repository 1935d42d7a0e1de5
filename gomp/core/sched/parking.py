"""Ps that have nothing to run, and how they are woken (proc.go, wakep and findRunnable).

parked    the main thread of the P's process sleeps on the futex ``xwake``, or is about to; the P is SAFE.
spinning  it looks for something to run, or was woken to. While one does, what becomes ready wakes nobody: that one will find it, and wakes another
          when it does.
mail      something is there for its main thread that is in no queue: a message, or a goroutine that was set aside. Said by whoever has put it there.
over      a wait of its process's is over, which the main thread's may be. Said by whoever has ended it.

No wake is lost. Who parks says so and then looks at every queue; who has put something into a queue then looks who is parked: of the two stores and
loads, all sequentially consistent, at least one sees the other. A P that stops spinning says so and then looks at every queue again, for the same
reason. Whatever else is for that thread sets its flag and then counts ``xwake`` up; the thread reads the counter before it takes the flags and looks.

The counts of parked and spinning Ps are derived from the Ps' records, and made again after a death. No stop waits for a P that parks or wakes: so the
count of the parked may be wrong by that one until it is made again. Who is not woken for that is found by the coordinator (:func:`watch_queues`).
"""

from __future__ import annotations

from gomp.core.jit import inline, kernel
from gomp.core.sched.runq import has_ring, is_ring_empty
from gomp.core.shm import layout
from gomp.core.shm.atomics import (
    add_acq_rel,
    add_relaxed,
    cas_seq_cst,
    load_acquire,
    load_relaxed,
    load_seq_cst,
    or_acq_rel,
    store_relaxed,
    store_release,
    store_seq_cst,
    xchg_acq_rel,
)
from gomp.core.shm.interpreter import release_interpreter, take_interpreter
from gomp.core.shm.libc import eventfd_signal, futex_wait, futex_wake
from gomp.core.shm.records import (
    P_XDEAD,
    P_XMAIL,
    P_XOVER,
    P_XPARKED,
    P_XPOLL,
    P_XSPINNING,
    P_XSTATUS,
    P_XWAKE,
    POLL_OTHERS,
    POLL_SCHED,
    SCHED_XPARKED,
    SCHED_XRUNQ_SIZE,
    SCHED_XSPINNING,
    SCHED_XSYSMON,
    STATUS_KERNEL,
    TRACE_PARK,
    TRACE_PARK_END,
    nth_p,
    p_records,
    runtime,
    self_p,
)
from gomp.core.shm.tracing import is_tracing, skip_no_more, tell

_MAIL = layout.SELF_BASE + P_XMAIL
_OVER = layout.SELF_BASE + P_XOVER
_PARKED = layout.SELF_BASE + P_XPARKED
_SPINNING = layout.SELF_BASE + P_XSPINNING
_WAKE = layout.SELF_BASE + P_XWAKE


@inline
def is_any_queued() -> bool:
    """Whether any queue has something; who has just said that he parks or does not spin any more misses nothing."""
    if load_seq_cst(SCHED_XRUNQ_SIZE) != 0:
        return True
    for i in range(runtime().nprocs):
        if not is_ring_empty(layout.p_addr(i)):
            return True
    return False


@inline
def park(seen: int, timeout_ns: int) -> None:
    """Sleep, SAFE and without the interpreter's lock, until something is to be run or ``xwake`` is not ``seen`` any more; at most so long."""
    if is_tracing():
        tell(TRACE_PARK, 0, 0)
    thread = release_interpreter()
    say_parked()
    if not (has_ring() and is_any_queued()):
        futex_wait(_WAKE, seen, timeout_ns)
    say_not_parked()
    take_interpreter(thread)
    if is_tracing():
        tell(TRACE_PARK_END, 0, 0)
        skip_no_more()


@inline
def say_parked() -> None:
    """Before this P looks for the last time whether there is something to run. One that is to leave runs nothing, and is not counted."""
    if has_ring() and cas_seq_cst(_PARKED, 0, 1):
        add_acq_rel(SCHED_XPARKED, 1)


@inline
def say_not_parked() -> None:
    if cas_seq_cst(_PARKED, 1, 0):
        add_relaxed(SCHED_XPARKED, -1)


@kernel("int64()")
def wakes() -> int:
    """How often this P was woken: for :func:`park`, before what is to be done is looked for."""
    return load_acquire(_WAKE)


@kernel("int64()")
def begin_look() -> int:
    """The same, for the main thread, which looks for all that it was ever woken for.

    It takes the flags by exchange: so it sees what was there before they were set, or leaves them for the next look.
    """
    seen = load_acquire(_WAKE)
    xchg_acq_rel(_MAIL, 0)
    end_wait()
    return seen


@inline
def end_wait() -> None:
    """What ``xover`` told of a wait of the main thread's has been found out. Of another one the same: it asks before it sleeps."""
    xchg_acq_rel(_OVER, 0)


@kernel("void(int64)")
def wake(p: int) -> None:
    """There is something for the thread that parks at the P at ``p``, and not in a queue."""
    add_acq_rel(p + P_XWAKE, 1)
    futex_wake(p + P_XWAKE)


@kernel("void(int64)")
def ring(p: int) -> None:
    """A message has come for the P at ``p``."""
    store_release(p + P_XMAIL, 1)
    wake(p)


@kernel("void(int64)")
def tell_over(p: int) -> None:
    """The wait of a program is over whose home is the P at ``p``."""
    store_release(p + P_XOVER, 1)
    wake(p)


@inline
def wake_one() -> None:
    """After something was put into a queue: have a parked P look for it, unless one looks for something already.

    If all are busy, or the one that looks is stopped, the coordinator sees to it that it gets its turn.
    """
    if load_seq_cst(SCHED_XPARKED) != 0 and load_seq_cst(SCHED_XSPINNING) == 0:
        _wake_one()
    elif load_relaxed(SCHED_XSYSMON) == 0:
        _call_sysmon()


@kernel("void()")
def _call_sysmon() -> None:
    if cas_seq_cst(SCHED_XSYSMON, 0, 1):
        eventfd_signal(self_p().wake_fd)


@kernel("void()")
def _wake_one() -> None:
    if not cas_seq_cst(SCHED_XSPINNING, 0, 1):
        return
    for i in range(runtime().nprocs):
        p = layout.p_addr(i)
        if load_acquire(p + P_XPARKED) != 0 and cas_seq_cst(p + P_XPARKED, 1, 0):
            add_relaxed(SCHED_XPARKED, -1)
            if not cas_seq_cst(p + P_XSPINNING, 0, 1):  # another thread of its process looks already
                add_acq_rel(SCHED_XSPINNING, -1)
            wake(p)
            return
    add_acq_rel(SCHED_XSPINNING, -1)
    if load_relaxed(SCHED_XSYSMON) == 0:  # who was counted could not be woken for this
        _call_sysmon()


# --- sysmon: the coordinator's ----------------------------------------------------------------------------------------


@kernel("int64()")
def watch_queues() -> int:
    """Called by the coordinator every SLICE_NS while ``xsysmon``: have what is ready run soon. 0 if nothing is: it need not look again.

    Wakes a parked P, whoever spins: that one may be stopped. Tells those that run something that others are to have their turn.
    """
    if not is_any_queued():
        store_seq_cst(SCHED_XSYSMON, 0)
        if not is_any_queued():  # store→load, against wake_one
            return 0
        store_seq_cst(SCHED_XSYSMON, 1)
    for i in range(runtime().nprocs):
        p = layout.p_addr(i)
        if load_acquire(p + P_XPARKED) != 0:
            wake(p)
        elif load_relaxed(p + P_XSTATUS) == STATUS_KERNEL:
            or_acq_rel(p + P_XPOLL, POLL_OTHERS if load_relaxed(p + P_XPOLL) & POLL_SCHED else POLL_SCHED)
    return 1


# --- who looks --------------------------------------------------------------------------------------------------------


@inline
def begin_spinning() -> bool:
    """Whether this P spins from now on: half of those that are busy may, as in Go."""
    if load_acquire(_SPINNING) != 0:
        return True
    busy = runtime().nprocs - load_acquire(SCHED_XPARKED)
    if 2 * load_acquire(SCHED_XSPINNING) >= busy:
        return False
    if cas_seq_cst(_SPINNING, 0, 1):
        add_acq_rel(SCHED_XSPINNING, 1)
    return True


@inline
def end_spinning() -> bool:
    """This P does not spin any more; whether it did. Who has found nothing looks at all queues once more."""
    if load_relaxed(_SPINNING) == 0 or not cas_seq_cst(_SPINNING, 1, 0):
        return False
    return add_acq_rel(SCHED_XSPINNING, -1) >= 0


@kernel("void()")
def wake_all_stw() -> None:
    """Have everybody look: what is ready may have gone to other queues, or was not made ready by who was to."""
    for i in range(p_records()):
        store_release(nth_p(i) + P_XOVER, 1)
        ring(nth_p(i))


@kernel("void()")
def count_parked_stw() -> None:
    """Count anew who is parked and who spins. World: stopped; the dead are neither."""
    parked, spinning = 0, 0
    for i in range(p_records()):
        p = nth_p(i)
        if load_acquire(p + P_XDEAD) != 0:
            store_relaxed(p + P_XPARKED, 0)
            store_relaxed(p + P_XSPINNING, 0)
        parked += load_acquire(p + P_XPARKED)
        spinning += load_acquire(p + P_XSPINNING)
    store_release(SCHED_XPARKED, parked)
    store_release(SCHED_XSPINNING, spinning)
