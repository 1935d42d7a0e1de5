"""Who may touch the heap: the status word of each P, entry and leaving, stopping the world.

States of a P's status word::

    SAFE ──enter──▶ KERNEL ──leave──▶ SAFE        by the P itself
    SAFE ──claim──▶ CLAIMED(q) ──unclaim──▶ SAFE  by P q, which acts for it

Heap state changes only while a P is in KERNEL, or by its claimer, or with the world stopped. A P that runs Python, sleeps in a system
call or sits in a debugger is SAFE: nobody waits for Python.

Stopping the world
------------------
1. The coordinator stores a stop number into ``xstop`` and then loads each P's status.
2. A P that enters stores KERNEL and then loads ``xstop``; if a stop is on it goes back to SAFE.

Both are store→load pairs and therefore sequentially consistent: of a stopper and an enterer that overlap, at least one sees the other. If the
enterer sees the stop, it has done nothing yet; if the stopper sees KERNEL, it waits.

Entry is a compare-and-swap and never an exchange: an exchange would overwrite a claim, and the P would run beside its claimer.

A claimer is a P in KERNEL or the coordinator, and does not park before it unclaims: a stop waits for the claimer, and so for the claim.

A P that waits inside a compiled program publishes its native roots *before* it stores SAFE, and takes them back only *after* its
compare-and-swap to KERNEL: whoever finds it SAFE finds the roots.
"""

from __future__ import annotations

from gomp.core.jit import inline, kernel
from gomp.core.sched import timehist
from gomp.core.shm import layout
from gomp.core.shm.atomics import (
    and_acq_rel,
    cas_seq_cst,
    cpu_pause,
    load64,
    load_acquire,
    load_relaxed,
    load_seq_cst,
    or_acq_rel,
    store64,
    store_relaxed,
    store_release,
    store_seq_cst,
)
from gomp.core.shm.commit import commit_table, commit_table_beyond
from gomp.core.shm.libc import (
    NATIVE_CONTEXT_BYTES,
    futex_wait,
    futex_wake,
    has_hung_up,
    is_readable,
    nanotime,
    save_registers,
    sched_yield,
    stack_pointer,
)
from gomp.core.shm.records import (
    P_CONTEXT,
    P_XNATIVE_KEPT,
    P_XNATIVE_N,
    P_XPOLL,
    P_XSTATUS,
    POLL_SHUTDOWN,
    POLL_STOP,
    RT_XSHUTDOWN,
    RT_XSTOP,
    STATUS_CLAIMED,
    STATUS_KERNEL,
    STATUS_SAFE,
    STOPPED_GC,
    STOPPED_OTHER,
    STOPPING_GC,
    STOPPING_OTHER,
    TRACE_STOP,
    TRACE_STOP_END,
    TRACE_STOPPED,
    TRACE_WAIT,
    TRACE_WAIT_END,
    nrecords,
    p_at,
    runtime,
    self_p,
)
from gomp.core.shm.tracing import is_tracing, tell, tell_at

OK, RETRY = 0, -1
TOO_DEEP, NO_MEMORY = 1, 2
SELF_STATUS = layout.SELF_BASE + P_XSTATUS
SELF_POLL = layout.SELF_BASE + P_XPOLL
SPINS = 200
_NAP_NS = 1_000_000
_LONGEST_NAP_NS = 100_000_000  # on a machine with far more to run than cores
MISSED = -1  # instead of a deadline
NAPS_PER_LOOK = 1000
_YIELDS_PER_LOOK = 100
EVERY_STACK = 1 << 62  # as a stack guard: the first poll takes the slow path, which commits the native-roots buffer
_STACK_MARGIN = 256 << 10  # what the kernels below a program's deepest frame may need
_FIRST_ROOTS = 2 * _STACK_MARGIN
_ROOM_FOR_OTHERS = 4 * _STACK_MARGIN


# --- a P itself -------------------------------------------------------------------------------------------------------


@inline
def enter() -> int:
    """SAFE → KERNEL, for a call from Python: OK, or RETRY if a stop or a claim is in the way (then nothing has happened)."""
    if not cas_seq_cst(SELF_STATUS, STATUS_SAFE, STATUS_KERNEL):
        return RETRY
    if load_seq_cst(RT_XSTOP) != 0:  # store→load, against stop_world
        leave()
        return RETRY
    return OK


@inline
def leave() -> None:
    """KERNEL → SAFE. What this P did is visible to whoever finds it SAFE."""
    store_seq_cst(SELF_STATUS, STATUS_SAFE)
    if load_seq_cst(RT_XSTOP) != 0:  # store→load: a stopper that went to sleep saw KERNEL
        futex_wake(SELF_STATUS)


@kernel("int64(int64)", nogil=True)
def wait_to_enter(timeout_ns: int) -> int:
    """Sleep while a stop is on or this P is claimed, at most ``timeout_ns``; 1 if entry may succeed now. Holds no GIL."""
    stop = load_acquire(RT_XSTOP)
    if stop != 0:
        futex_wait(RT_XSTOP, stop, timeout_ns)
        return 0
    status = load_acquire(SELF_STATUS)
    if status != STATUS_SAFE:
        futex_wait(SELF_STATUS, status, timeout_ns)
        return 0
    return 1


@kernel("int64()")
def enter_waiting() -> int:
    """SAFE → KERNEL, waiting for stops and claims to end: for a compiled program, which has no frames yet. OK, or RETRY at shutdown."""
    naps = 0
    while enter() != OK:
        if load_acquire(RT_XSHUTDOWN) != 0:
            return RETRY
        wait_to_enter(_NAP_NS)
        naps += 1
        if naps % NAPS_PER_LOOK == 0:
            shut_down_if_orphaned()
    return OK


@inline
def publish_native_roots() -> None:
    """Copy every word of this thread's registers and native stack that could be a heap address to the native-roots buffer.

    From the stack pointer here to ``native_base``, the frame that entered: above it are only Python's frames, which hold no addresses. They come
    behind what programs that wait for Python have there.
    """
    me = self_p()
    context = layout.SELF_BASE + P_CONTEXT
    save_registers(context)
    n = _copy_heap_words(context, context + NATIVE_CONTEXT_BYTES, layout.native_roots_addr(me.idx), native_kept())
    n = _copy_heap_words(stack_pointer() & -8, me.native_base, layout.native_roots_addr(me.idx), n)
    store_relaxed(layout.SELF_BASE + P_XNATIVE_N, n)


@inline
def _copy_heap_words(lo: int, hi: int, out_addr: int, n: int) -> int:
    for addr in range(lo, hi, 8):
        word = load64(addr)
        if layout.is_heap_addr(word):
            store64(out_addr + 8 * n, word)
            n += 1
    return n


@inline
def become_safe() -> None:
    """KERNEL → SAFE in the middle of a compiled program: roots first, then the status."""
    publish_native_roots()
    leave()


@inline
def become_running() -> bool:
    """SAFE → KERNEL after :func:`become_safe`, if no stop is on. The roots are forgotten only once nobody can be scanning them."""
    if enter() != OK:
        return False
    forget_native_roots()
    return True


@inline
def forget_native_roots() -> None:
    """After :func:`publish_native_roots`, in KERNEL."""
    store_relaxed(layout.SELF_BASE + P_XNATIVE_N, native_kept())


@inline
def native_kept() -> int:
    """Words of the native-roots buffer that are of programs which wait for Python."""
    return load_relaxed(layout.SELF_BASE + P_XNATIVE_KEPT)


@kernel("void()")
def park_while_stopped() -> None:
    """Wait, as a P that holds no lock, until no stop is on. At shutdown it returns SAFE: a stop may then never end."""
    became_safe_ns = nanotime()
    note_safepoint(became_safe_ns)
    if is_tracing():
        tell_at(became_safe_ns, TRACE_WAIT, 0, 0)
    become_safe()
    naps = 0
    while load_acquire(RT_XSHUTDOWN) == 0 and not become_running():
        wait_to_enter(_NAP_NS)
        naps += 1
        if naps % NAPS_PER_LOOK == 0:
            shut_down_if_orphaned()
    note_wait(became_safe_ns)


@kernel("void()")
def park_call_while_stopped() -> None:
    """As :func:`park_while_stopped`, in a call from Python, whose stack is not looked at: what it has in hand is a root, or known to every stop.

    It has the interpreter's lock all the time, so no other thread of this process can act as this P meanwhile.
    """
    became_safe_ns = nanotime()
    note_safepoint(became_safe_ns)
    if is_tracing():
        tell_at(became_safe_ns, TRACE_WAIT, 0, 0)
    leave()
    naps = 0
    while load_acquire(RT_XSHUTDOWN) == 0 and enter() != OK:
        wait_to_enter(_NAP_NS)
        naps += 1
        if naps % NAPS_PER_LOOK == 0:
            shut_down_if_orphaned()
    note_wait(became_safe_ns)


@inline
def note_safepoint(now_ns: int) -> None:
    """Account for a stop, if one is on, that this P has met in the middle of something."""
    stop = load_acquire(RT_XSTOP)
    if stop != 0:
        me, took = self_p(), max(now_ns - stop, 0)
        me.safepoints += 1
        me.safepoint_ns += took
        me.safepoint_max_ns = max(me.safepoint_max_ns, took)


@inline
def note_wait(began_ns: int) -> None:
    """Account for a wait of this P that has just ended, and for how long it took to go on if a stop did meanwhile."""
    me, now = self_p(), nanotime()
    me.stops += 1
    me.stopped_ns += now - began_ns
    ended_ns = runtime().stop_ended_ns
    if ended_ns > began_ns:
        me.resume_ns = now - ended_ns
        me.resume_max_ns = max(me.resume_max_ns, me.resume_ns)
    if is_tracing():
        tell_at(now, TRACE_WAIT_END, 0, 0)


@inline
def ask_each_p(bit: int) -> None:
    """Have each P see that at its next poll: POLL_*."""
    for i in range(nrecords()):
        or_acq_rel(layout.p_addr(i) + P_XPOLL, bit)


@kernel("void()")
def shut_down_if_orphaned() -> None:
    """Without a coordinator nobody ends a stop or a cycle: of the processes that outlive it, the first that finds that out tells all."""
    if has_hung_up(self_p().coordinator_fd):
        end_world()


@inline
def pause(looks: int) -> int:
    """After so many looks at what another process is about to do: one more. It may need this processor, or have died with all who would repair it."""
    if looks < SPINS:
        cpu_pause()
    else:
        sched_yield()
        if looks % _YIELDS_PER_LOOK == 0:
            shut_down_if_orphaned()
    return looks + 1


@kernel("void()")
def end_world() -> None:
    """The runtime has ended: a stop without end. No kernel is entered any more, no wait goes on, and programs end by their next poll."""
    store_release(RT_XSHUTDOWN, 1)
    store_seq_cst(RT_XSTOP, nanotime() | 1)
    ask_each_p(POLL_SHUTDOWN)


@inline
def stop_requested() -> bool:
    """Whether this P, in KERNEL, should park. A claimer or the coordinator never parks."""
    return load_acquire(RT_XSTOP) != 0 and load_acquire(SELF_STATUS) == STATUS_KERNEL


@kernel("int64(int64)")
def grow_native_stack(sp: int) -> int:
    """Make room in the native-roots buffer for a stack that reaches down to ``sp``: OK, TOO_DEEP, or NO_MEMORY for that much room."""
    me = self_p()
    if sp < me.stack_low + _STACK_MARGIN:
        return TOO_DEEP
    status = commit_native_roots(8 * native_kept() + native_bytes(sp))
    if status == OK:
        guard_native_stack()
    return status


@inline
def has_room_for_others() -> bool:
    """Whether programs may run here, on this thread's native stack, on top of what does: those that need little."""
    return stack_pointer() > self_p().stack_low + _ROOM_FOR_OTHERS


@inline
def native_bytes(sp: int) -> int:
    """What a stack that reaches down to ``sp`` may take in the native-roots buffer, and the kernels below it."""
    return self_p().native_base - sp + NATIVE_CONTEXT_BYTES + _STACK_MARGIN


@inline
def commit_native_roots(nbytes: int) -> int:
    """Have so much of the native-roots buffer committed: OK, TOO_DEEP or NO_MEMORY."""
    me = self_p()
    need = layout.align_up(nbytes, layout.TABLE_STEP)
    if need > layout.NATIVE_ROOTS_BYTES:
        return TOO_DEEP
    if need > me.native_committed:
        at = layout.native_roots_addr(me.idx) - layout.META_BASE + me.native_committed
        more = need - me.native_committed
        # A program that finds the budget used up has a collection make room, but only once its stack can be scanned: so its first pieces cost none.
        is_first = need <= _FIRST_ROOTS
        if (commit_table_beyond(me.meta_fd, at, more) if is_first else commit_table(me.meta_fd, at, more)) != 0:
            return NO_MEMORY
        me.native_committed = need
    return OK


@inline
def guard_native_stack() -> None:
    """Have polls at entries look again where what is committed does not reach any more, or the stack ends."""
    me = self_p()
    room = me.native_committed - 8 * native_kept()
    me.stack_guard = max(me.native_base - room, me.stack_low) + _STACK_MARGIN


# --- others -----------------------------------------------------------------------------------------------------------


@inline
def try_claim(p: int) -> bool:
    """SAFE → CLAIMED by this process, to flush or scan for the P at address ``p``, briefly; never to mark.

    Called in KERNEL, or by the coordinator. Until it unclaims the claimer does not park: the stop that it parked for would find the P
    SAFE enough, and half flushed.
    """
    me = self_p()
    if not cas_seq_cst(p + P_XSTATUS, STATUS_SAFE, STATUS_CLAIMED | me.idx):
        return False
    me.no_park += 1
    return True


@inline
def unclaim(p: int) -> None:
    store_seq_cst(p + P_XSTATUS, STATUS_SAFE)
    futex_wake(p + P_XSTATUS)
    self_p().no_park -= 1


@kernel("int64(int64)")
def release_claims_of(p: int) -> int:
    """Unclaim what the dead P at address ``p`` had claimed; returns how many. For repair: what it did there may be half done."""
    claim = STATUS_CLAIMED | p_at(p).idx
    released = 0
    for i in range(nrecords()):
        status = layout.p_addr(i) + P_XSTATUS
        if cas_seq_cst(status, claim, STATUS_SAFE):
            futex_wake(status)
            released += 1
    return released


@kernel("int64(int64)")
def stop_world(deadline_ns: int) -> int:
    """Stop every P. World: running, called by the coordinator.

    OK, or -1 - p if P p has not stopped by ``deadline_ns``, or when something came up that the coordinator must look at first.
    """
    rt = runtime()
    began = nanotime() | 1
    rt.stop_began_ns = began
    rt.stop_stood_ns = 0
    if is_tracing():
        tell_at(began, TRACE_STOP, 0, 0)
    store_seq_cst(RT_XSTOP, began)  # any number whose low half is not 0; store→load, against enter()
    for i in range(nrecords()):
        p = layout.p_addr(i)
        or_acq_rel(p + P_XPOLL, POLL_STOP)
        p_at(p).stood_ns = 0 if load_relaxed(p + P_XSTATUS) == STATUS_KERNEL else began
    for i in range(nrecords()):
        p = layout.p_addr(i)
        deadline_ns = _wait_until_not_running(p, deadline_ns)
        if deadline_ns == MISSED:
            return -1 - i
        if p_at(p).stood_ns == 0:
            p_at(p).stood_ns = nanotime()
    _note_stood()
    if is_tracing():
        tell(TRACE_STOPPED, 0, 0)
    return OK


@inline
def _note_stood() -> None:
    rt, now = runtime(), nanotime()
    rt.stop_stood_ns = now
    waited = 0
    for i in range(rt.nprocs):
        waited += now - p_at(layout.p_addr(i)).stood_ns
    rt.stopping_cpu_ns = waited


@inline
def put_off(deadline_ns: int, looked_ns: int, now_ns: int) -> int:
    """The deadline of a wait that slept from ``looked_ns`` to ``now_ns``: whoever was frozen meanwhile, with those it waits for, has not waited."""
    return deadline_ns + max(now_ns - looked_ns - _LONGEST_NAP_NS, 0)


@inline
def _wait_until_not_running(p: int, deadline_ns: int) -> int:
    """Until when the next may take, or MISSED."""
    tries, looked_ns = 0, nanotime()
    while load_seq_cst(p + P_XSTATUS) == STATUS_KERNEL:
        tries += 1
        if tries < SPINS:
            cpu_pause()
        elif tries < 2 * SPINS:
            sched_yield()  # there are more processes than cores: the one we wait for may need ours
        else:
            now_ns = nanotime()
            deadline_ns = put_off(deadline_ns, looked_ns, now_ns)
            looked_ns = now_ns
            if now_ns > deadline_ns or is_readable(self_p().urgent_fd):
                return MISSED
            futex_wait(p + P_XSTATUS, STATUS_KERNEL, _NAP_NS)
    return deadline_ns


@kernel("void()")
def start_world() -> None:
    """End the stop. The poll bits go first, so that no P finds a bit whose stop is over."""
    rt = runtime()
    for i in range(nrecords()):
        and_acq_rel(layout.p_addr(i) + P_XPOLL, ~POLL_STOP)
    rt.stop_ended_ns = nanotime()
    _note_stop(rt.stop_ended_ns)
    if is_tracing():
        tell_at(rt.stop_ended_ns, TRACE_STOP_END, 0, 0)
    store_seq_cst(RT_XSTOP, 0)
    futex_wake(RT_XSTOP)


@inline
def _note_stop(now_ns: int) -> None:
    """Count the stop that ends now, if there was one; also one that was given up before the world stood."""
    rt = runtime()
    began, is_gc = rt.stop_began_ns, rt.stop_is_gc
    rt.stop_began_ns = 0
    rt.stop_is_gc = 0
    if began != 0:
        stood = rt.stop_stood_ns if rt.stop_stood_ns != 0 else now_ns
        timehist.add(STOPPING_GC if is_gc else STOPPING_OTHER, stood - began)
        timehist.add(STOPPED_GC if is_gc else STOPPED_OTHER, now_ns - began)
