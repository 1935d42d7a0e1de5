"""Specials: what an object has beside its bytes. A finalizer, weak handles, cleanups, its place in the memory profile.

Nouns
-----
record   one special, in a table of the metadata segment; number 0 is none. Its state word and its object's address are the truth.
list     of a span: the records of its objects, by address and kind, of equals the newest first (mheap.go, addspecial).
queue    of a P: finalizers and cleanups that are due. Only the process that registered a function can run it, so threads of that one do.
handle   of weak pointers: a 16-byte object that holds an address, one for each place that has any; 0 once the object is dead.

States::

    FREE → ARMED → FREE                         weak: the object died · a finalizer was cleared, a cleanup stopped
           ARMED → QUEUED → RUNNING → FREE      cleanup: the object died; its memory is free at once
           ARMED → DYING → QUEUED → RUNNING → FREE    finalizer: the object died, and lives until the function has run
           ARMED → CANCELLED → FREE             a finalizer that another process cleared: its own one forgets the function
    FREE → ARMED → FREE                         profile: the object died; both steps together with the bucket's count, as one redo record

What sweeping does with a slot that is not marked (GO-style, mgcsweep.go):

1. Its finalizers become DYING. If it has none, go on with 4.
2. Its weak handles are set to 0 and their records freed; then the slot is marked: it survives this cycle.
3. The finalizers are QUEUED. Everything else stays. Done.
4. Its weak handles are set to 0 and their records freed, its cleanups QUEUED, its death counted in the profile. The slot becomes free as any other.

All of it happens under one lock, before the sweep copies the marks. A process may be killed before any of these stores: the span is then swept again
(:mod:`~gomp.core.gc.sweep`, step 1), with the lists made anew from the records. DYING tells that second sweep what the mark cannot any more, that
the slot is not alive by itself. Nobody can take a record from a queue before its slot is marked, as that takes the lock, and repair comes
first if its holder died: a QUEUED record is in no queue before the redo record that made it so is withdrawn.

An object is in the profile before it is whole: who is killed in between leaves a record for a free slot, which repair counts as dead.

Lists and queues are derived. Whoever follows a dead holder of the lock may find one that has lost records; never one that has a record twice.
"""

from __future__ import annotations

from gomp.core.gc.memprofile import made_addr, plan_one_more, swept_addr
from gomp.core.heap import mspan
from gomp.core.heap.scavenge import make_room
from gomp.core.jit import inline, kernel
from gomp.core.sched import redo
from gomp.core.sched.locks import acquire, begin_critical, end_critical, release
from gomp.core.shm import layout
from gomp.core.shm.atomics import load64, load_acquire, store64, store_release, xchg_acq_rel
from gomp.core.shm.commit import commit_table
from gomp.core.shm.libc import futex_wake
from gomp.core.shm.records import (
    P_SPECIAL_LOST,
    P_SPECIAL_QUEUED,
    P_XCLEANUPS_READY,
    P_XDEAD,
    P_XFINALIZERS_READY,
    RT_XSPECIALS_LOCK,
    SPAN_IN_USE,
    SPAN_SPECIALS,
    SPECIAL_ARMED,
    SPECIAL_CANCELLED,
    SPECIAL_CLEANUP,
    SPECIAL_DYING,
    SPECIAL_FINALIZER,
    SPECIAL_FREE,
    SPECIAL_NEXT,
    SPECIAL_PROFILE,
    SPECIAL_QUEUED,
    SPECIAL_RUNNING,
    SPECIAL_WEAK,
    SPECIAL_XSTATE,
    mheap,
    nth_p,
    p_at,
    p_records,
    runtime,
    self_p,
    spans,
    special_at,
)

NONE = 0
RECORD = 64
FINALIZERS, CLEANUPS = 0, 1  # the two counts in a P's totals
_EPOCH_SHIFT = 16


# --- records ----------------------------------------------------------------------------------------------------------


@inline
def special_addr(n: int) -> int:
    return layout.SPECIALS_BASE + (n - 1) * RECORD


@inline
def state_of(n: int) -> int:
    return load_acquire(special_addr(n) + SPECIAL_XSTATE)


@inline
def set_state(n: int, state: int) -> None:
    """Holds: specials_lock, or the world is stopped. Pairs with state_of: whoever sees the state sees what was written before it."""
    store_release(special_addr(n) + SPECIAL_XSTATE, state)


@inline
def owner_word(p: int) -> int:
    """Who the process of the P at ``p`` is."""
    return p_at(p).idx | (p_at(p).epoch << _EPOCH_SHIFT)


@inline
def owner_p(owner: int) -> int:
    return layout.p_addr(owner & ((1 << _EPOCH_SHIFT) - 1))


@inline
def _is_owner_there(owner: int) -> bool:
    p = owner_p(owner)
    return owner_word(p) == owner and load_acquire(p + P_XDEAD) == 0


@inline
def make_room_for_special() -> None:
    """Before the lock is taken: memory for one more record, if it will need any."""
    rt = runtime()
    if rt.specials_free == NONE and (rt.nspecials * RECORD) % layout.TABLE_STEP == 0:
        make_room(layout.TABLE_STEP)


@kernel("int64()")
def _take_record_locked() -> int:
    """A free record, in no list; NONE if there is no memory for one. Killed from here on, it is lost until repair."""
    rt = runtime()
    n = rt.specials_free
    if n != NONE:
        rt.specials_free = special_at(special_addr(n)).next
        return n
    if rt.nspecials == layout.MAX_SPECIALS:
        return NONE
    at = rt.nspecials * RECORD
    if at % layout.TABLE_STEP == 0:
        if commit_table(self_p().meta_fd, layout.SPECIALS_BASE - layout.META_BASE + at, layout.TABLE_STEP) != 0:
            return NONE
    store_release(layout.SPECIALS_BASE + at + SPECIAL_XSTATE, SPECIAL_FREE)
    rt.nspecials += 1
    return rt.nspecials


@kernel("void(int64)")
def free_record_locked(n: int) -> None:
    """Holds: specials_lock. The record is in no list, or its list is about to be forgotten."""
    set_state(n, SPECIAL_FREE)
    special_at(special_addr(n)).next = runtime().specials_free
    runtime().specials_free = n


# --- the lists of spans -----------------------------------------------------------------------------------------------


@inline
def list_link(page: int) -> int:
    """Address of the word with the number of the span's first record."""
    return mspan.span_addr(page) + SPAN_SPECIALS


@inline
def next_link(n: int) -> int:
    return special_addr(n) + SPECIAL_NEXT


@inline
def has_specials(page: int) -> bool:
    """A hint, without the lock. For a sweeper it is exact enough: what is added meanwhile is added to marked objects."""
    return load_acquire(list_link(page)) != NONE


@inline
def _comes_before(a: int, b: int) -> bool:
    sa, sb = special_at(special_addr(a)), special_at(special_addr(b))
    if sa.addr != sb.addr:
        return sa.addr < sb.addr
    if sa.kind != sb.kind:
        return sa.kind < sb.kind
    return sa.id > sb.id


@kernel("void(int64, int64)")
def _insert_locked(page: int, n: int) -> None:
    link = list_link(page)
    while load64(link) != NONE and _comes_before(load64(link), n):
        link = next_link(load64(link))
    store64(next_link(n), load64(link))
    store_release(link, n)


@kernel("int64(int64, int64)")
def remove_locked(page: int, n: int) -> int:
    """Take a record out of its span's list; 1 if it was there."""
    link = list_link(page)
    while load64(link) != NONE:
        if load64(link) == n:
            store64(link, load64(next_link(n)))
            return 1
        link = next_link(load64(link))
    return 0


@kernel("int64(int64, int64)")
def find_locked(addr: int, kind: int) -> int:
    """The newest armed record of this kind for exactly this address; NONE if there is none."""
    n = load64(list_link(mspan.span_of(addr)))
    while n != NONE:
        s = special_at(special_addr(n))
        if s.addr == addr and s.kind == kind and state_of(n) == SPECIAL_ARMED:
            return n
        n = s.next
    return NONE


@kernel("int64(int64, int64, int64, int64)")
def find_function_locked(addr: int, kind: int, owner: int, value: int) -> int:
    """The armed record of this kind for exactly this address with which ``owner`` means its function ``value``; NONE if there is none."""
    n = load64(list_link(mspan.span_of(addr)))
    while n != NONE:
        s = special_at(special_addr(n))
        if s.addr == addr and s.kind == kind and s.owner == owner and s.value == value and state_of(n) == SPECIAL_ARMED:
            return n
        n = s.next
    return NONE


@kernel("int64(int64, int64, int64, int64, int64)")
def add_locked(addr: int, kind: int, owner: int, value: int, type_key: int) -> int:
    """A new armed record in its span's list, or NONE without memory. ``addr`` leads to an object that a handle of this P keeps.

    The span may still have to be swept: the object is marked then, so the sweep leaves its records alone, whether it sees this one or not.
    """
    n = _new_record_locked(addr, kind, owner, value, type_key)
    if n != NONE:
        # The publishing store: repair, which may come before the next line, puts it into the list.
        set_state(n, SPECIAL_ARMED)
        _insert_locked(mspan.span_of(addr), n)
    return n


@inline
def _new_record_locked(addr: int, kind: int, owner: int, value: int, type_key: int) -> int:
    """One that still counts as free, or NONE."""
    n = _take_record_locked()
    if n == NONE:
        return NONE
    rt = runtime()
    rt.special_ids += 1
    s = special_at(special_addr(n))
    s.kind = kind
    s.addr = addr
    s.owner = owner
    s.value = value
    s.id = rt.special_ids
    s.next = NONE
    s.type_key = type_key
    return n


@kernel("int64(int64, int64)")
def profile_locked(addr: int, bucket: int) -> int:
    """Have the slot at ``addr``, of a span that this P has cached or makes, in the profile's ``bucket``: its record, or NONE without memory."""
    n = _new_record_locked(addr, SPECIAL_PROFILE, 0, bucket, 0)
    if n != NONE:
        plan_one_more(0, made_addr(bucket))
        redo.plan(1, special_addr(n) + SPECIAL_XSTATE, SPECIAL_ARMED)
        redo.commit(2)
        _insert_locked(mspan.span_of(addr), n)
    return n


@inline
def _end_profile_locked(n: int) -> None:
    """The object of a record that is in no list any more is dead."""
    plan_one_more(0, swept_addr(special_at(special_addr(n)).value))
    redo.plan(1, special_addr(n) + SPECIAL_XSTATE, SPECIAL_FREE)
    redo.commit(2)
    free_record_locked(n)


# --- the queues of Ps -------------------------------------------------------------------------------------------------


@inline
def count_of(kind: int) -> int:
    return FINALIZERS if kind == SPECIAL_FINALIZER else CLEANUPS


@kernel("void(int64)")
def _push_locked(n: int) -> None:
    """Put a QUEUED or CANCELLED record into its owner's queue, and wake who works on it."""
    s = special_at(special_addr(n))
    p = owner_p(s.owner)
    pp = p_at(p)
    ready = p + P_XFINALIZERS_READY
    if s.kind == SPECIAL_FINALIZER:
        s.next = pp.finalizers
        pp.finalizers = n
    else:
        ready = p + P_XCLEANUPS_READY
        s.next = NONE
        if pp.cleanups == NONE:
            pp.cleanups_tail = n  # first: a tail is looked at only if there is a head
            pp.cleanups = n
        else:
            store64(next_link(pp.cleanups_tail), n)
            pp.cleanups_tail = n
    if xchg_acq_rel(ready, 1) == 0:
        futex_wake(ready)


@kernel("int64(int64, int64)")
def pop_locked(p: int, count: int) -> int:
    """The next record of a queue of the P at ``p``, its own process's; NONE if it is empty.

    Finalizers come in batches, the newest of a batch first: what dies while a batch runs comes after it (mfinal.go, runFinalizers).
    """
    pp = p_at(p)
    if count == CLEANUPS:
        n = pp.cleanups
        if n != NONE:
            pp.cleanups = special_at(special_addr(n)).next
        return n
    if pp.finalizer_batch == NONE:
        n = pp.finalizers
        pp.finalizers = NONE  # killed in between, they are lost until repair
        pp.finalizer_batch = n
    n = pp.finalizer_batch
    if n != NONE:
        pp.finalizer_batch = special_at(special_addr(n)).next
    return n


@inline
def _queue_locked(n: int) -> None:
    """A record that is in no list any more is due. Counted together with its state, before anybody can find it in a queue."""
    mine = layout.p_addr(self_p().idx)
    rt = runtime()
    rt.special_ids += 1
    special_at(special_addr(n)).id = rt.special_ids
    total = mine + P_SPECIAL_QUEUED + 8 * count_of(special_at(special_addr(n)).kind)
    redo.plan(0, total, load64(total) + 1)
    redo.plan(1, special_addr(n) + SPECIAL_XSTATE, SPECIAL_QUEUED)
    redo.commit(2)
    _push_locked(n)


@inline
def cancel_locked(n: int) -> None:
    """A finalizer that is in no list any more will not run: free it, once its process has forgotten the function."""
    s = special_at(special_addr(n))
    if s.owner == owner_word(layout.p_addr(self_p().idx)) or not _is_owner_there(s.owner):
        free_record_locked(n)
        return
    set_state(n, SPECIAL_CANCELLED)
    _push_locked(n)


@inline
def _lose_locked(n: int) -> None:
    """The process that could have run it is gone."""
    total = layout.p_addr(self_p().idx) + P_SPECIAL_LOST + 8 * count_of(special_at(special_addr(n)).kind)
    redo.plan(0, total, load64(total) + 1)
    redo.plan(1, special_addr(n) + SPECIAL_XSTATE, SPECIAL_FREE)
    redo.commit(2)
    free_record_locked(n)


# --- sweeping ---------------------------------------------------------------------------------------------------------


@kernel("void(int64)")
def sweep_specials(page: int) -> None:
    """Owns: the span, in step SWEEPING, its marks as marking left them. May be repeated after a kill."""
    begin_critical()  # a span is in hand
    acquire(RT_XSPECIALS_LOCK)
    link = list_link(page)
    while load64(link) != NONE:
        idx = _slot_of(page, load64(link))
        if mspan.is_marked(page, idx) and not _has_dying(page, link, idx):
            link = _past_slot(page, link, idx)
        else:
            link = _sweep_slot(page, link, idx)
    release(RT_XSPECIALS_LOCK)
    end_critical()


@inline
def _slot_of(page: int, n: int) -> int:
    return mspan.obj_idx_of(page, special_at(special_addr(n)).addr)


@inline
def _is_of_slot(page: int, n: int, idx: int) -> bool:
    return n != NONE and _slot_of(page, n) == idx


@inline
def _past_slot(page: int, link: int, idx: int) -> int:
    while _is_of_slot(page, load64(link), idx):
        link = next_link(load64(link))
    return link


@inline
def _has_dying(page: int, link: int, idx: int) -> bool:
    n, found = load64(link), False
    while _is_of_slot(page, n, idx):
        found |= state_of(n) == SPECIAL_DYING
        n = special_at(special_addr(n)).next
    return found


@inline
def _condemn(page: int, link: int, idx: int) -> bool:
    """Step 1: whether the slot has a finalizer that somebody can run."""
    n, found = load64(link), False
    while _is_of_slot(page, n, idx):
        s = special_at(special_addr(n))
        if s.kind == SPECIAL_FINALIZER and _is_owner_there(s.owner):
            set_state(n, SPECIAL_DYING)
            found = True
        n = s.next
    return found


@inline
def _drop_weak(page: int, link: int, idx: int) -> None:
    """Step 2. The handle first: as long as it holds the address its record must be found."""
    n = load64(link)
    while _is_of_slot(page, n, idx):
        s = special_at(special_addr(n))
        if s.kind == SPECIAL_WEAK:
            store_release(s.value, 0)  # pairs with weak_value
            store64(link, s.next)
            free_record_locked(n)
        else:
            link = next_link(n)
        n = load64(link)


@kernel("int64(int64, int64, int64)")
def _sweep_slot(page: int, link: int, idx: int) -> int:
    """The slot whose records begin at ``link`` is not alive by itself; returns the link to the next slot's."""
    resurrects = _condemn(page, link, idx)
    _drop_weak(page, link, idx)
    if resurrects:
        mspan.try_mark(page, idx)
    n = load64(link)
    while _is_of_slot(page, n, idx):
        s = special_at(special_addr(n))
        is_due = state_of(n) == SPECIAL_DYING if resurrects else s.kind != SPECIAL_WEAK
        if not is_due:
            link = next_link(n)
        else:
            store64(link, s.next)
            if s.kind == SPECIAL_PROFILE:
                _end_profile_locked(n)
            elif _is_owner_there(s.owner):
                _queue_locked(n)
            else:
                _lose_locked(n)
        n = load64(link)
    return link


# --- after a death ----------------------------------------------------------------------------------------------------


@kernel("void(int64)")
def lose_specials_of_stw(p: int) -> None:
    """What the dead process of the P at ``p`` has registered runs in none. World: stopped; the lists are made anew afterwards. May be repeated."""
    owner = owner_word(p)
    for n in range(1, runtime().nspecials + 1):
        s = special_at(special_addr(n))
        if s.owner == owner and s.kind in (SPECIAL_FINALIZER, SPECIAL_CLEANUP):
            if state_of(n) == SPECIAL_CANCELLED:
                set_state(n, SPECIAL_FREE)
            elif state_of(n) != SPECIAL_FREE:
                _lose_locked(n)


@kernel("int64(int64)")
def has_specials_stw(p: int) -> int:
    """Whether the process of the P at ``p`` has registered something that has not run yet. World: stopped."""
    owner = owner_word(p)
    for n in range(1, runtime().nspecials + 1):
        s = special_at(special_addr(n))
        if s.owner == owner and s.kind in (SPECIAL_FINALIZER, SPECIAL_CLEANUP) and state_of(n) != SPECIAL_FREE:
            return 1
    return 0


@kernel("void()")
def rebuild_specials_stw() -> None:
    """Lists and queues from the records, after the spans are settled. World: stopped. The order within a queue is lost."""
    store_release(RT_XSPECIALS_LOCK, 0)
    _forget_lists()
    for n in range(runtime().nspecials, 0, -1):
        state = state_of(n)
        if state == SPECIAL_FREE:
            special_at(special_addr(n)).next = runtime().specials_free
            runtime().specials_free = n
        elif state in (SPECIAL_QUEUED, SPECIAL_CANCELLED):
            _push_locked(n)
        elif special_at(special_addr(n)).kind == SPECIAL_PROFILE and not _is_allocated(
            special_at(special_addr(n)).addr
        ):
            _end_profile_locked(n)
        elif state != SPECIAL_RUNNING:
            _insert_locked(mspan.span_of(special_at(special_addr(n)).addr), n)


@inline
def _is_allocated(addr: int) -> bool:
    """Precondition: no span is cached."""
    page = mspan.find_span(addr)
    return page != mspan.NO_SPAN and mspan.is_allocated(page, mspan.obj_idx_of(page, addr))


@inline
def _forget_lists() -> None:
    page, end = 0, mheap().end_page
    while page < end:
        if spans()[page].state != SPAN_IN_USE:
            page += 1
            continue
        store64(list_link(page), NONE)
        page += spans()[page].npages
    runtime().specials_free = NONE
    for i in range(p_records()):
        pp = p_at(nth_p(i))
        pp.finalizers = NONE
        pp.finalizer_batch = NONE
        pp.cleanups = NONE
        store_release(
            nth_p(i) + P_XFINALIZERS_READY, 0
        )  # whoever dies between the word and the wake-up leaves sleepers
        store_release(nth_p(i) + P_XCLEANUPS_READY, 0)
