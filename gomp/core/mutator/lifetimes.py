"""What Python calls for finalizers, cleanups and weak pointers: slot numbers, offsets and record numbers in, a record number or status out.

Who enters, and RETRY: as in :mod:`gomp.core.mutator.boundary`. The lock of the specials is tried, and a RETRY if it is taken. Compiled programs have
weak pointers by addresses, and wait.

Adding while the heap is marked (mheap.go, addfinalizer). A root job has looked at the table, perhaps at the record's number, before it was armed: so
whoever arms a finalizer greys the object's fields, and whoever makes a weak handle greys the handle. A cleanup's function is held by its process.
"""

from __future__ import annotations

from gomp.core.gc.mark import grey
from gomp.core.gc.roots import grey_fields
from gomp.core.gc.specials import (
    CLEANUPS,
    FINALIZERS,
    NONE,
    add_locked,
    cancel_locked,
    count_of,
    find_locked,
    free_record_locked,
    make_room_for_special,
    owner_word,
    pop_locked,
    remove_locked,
    set_state,
    special_addr,
    state_of,
)
from gomp.core.heap import mspan
from gomp.core.heap.sizeclass import TINY_SPAN_CLASS
from gomp.core.jit import inline, kernel
from gomp.core.mutator.boundary import OUT_OF_MEMORY, fill_handle, load_handle
from gomp.core.mutator.malloc import PROGRAM, new_bytes
from gomp.core.sched import redo
from gomp.core.sched.locks import acquire, release, try_lock
from gomp.core.sched.status import OK, RETRY, enter, leave
from gomp.core.shm import layout
from gomp.core.shm.atomics import load64, load_acquire, load_relaxed, lsr, store_release
from gomp.core.shm.libc import futex_wait, futex_wake
from gomp.core.shm.records import (
    GC_OFF,
    P_SPECIAL_FAILED,
    P_SPECIAL_RUN,
    P_XCLEANUPS_READY,
    P_XFINALIZERS_READY,
    RT_XGCPHASE,
    RT_XSPECIALS_LOCK,
    SPECIAL_ARMED,
    SPECIAL_CANCELLED,
    SPECIAL_CLEANUP,
    SPECIAL_FINALIZER,
    SPECIAL_FREE,
    SPECIAL_RUNNING,
    SPECIAL_WEAK,
    SPECIAL_XSTATE,
    STEP_SWEEPING,
    runtime,
    self_p,
    spans,
    special_at,
)

NOT_IN_BLOCK, NOT_AT_START, ALREADY_SET, NOT_SET = -16, -17, -18, -19
NIL = 1  # a weak pointer to nothing, or to what is dead
SAME_SLOT, SAME_ADDRESS, SAME_TINY_SLOT = 1, 2, 3
TO_FORGET = 1 << 40  # added to the number of a finalizer that another process has cleared
_HEADER = 8
_BOX_BYTES = 16


@inline
def _own() -> int:
    return layout.p_addr(self_p().idx)


@inline
def _begin() -> int:
    """Enter, with the lock: OK or RETRY."""
    if enter() != OK:
        return RETRY
    if not try_lock(RT_XSPECIALS_LOCK):
        leave()
        return RETRY
    return OK


@inline
def _begin_adding() -> int:
    """As :func:`_begin`, with memory for one more record. In KERNEL: a stop would not wait for a SAFE P that has pages borrowed."""
    if enter() != OK:
        return RETRY
    make_room_for_special()
    if not try_lock(RT_XSPECIALS_LOCK):
        leave()
        return RETRY
    return OK


@inline
def _end() -> None:
    release(RT_XSPECIALS_LOCK)
    leave()


@inline
def _is_marking() -> bool:
    return load_relaxed(RT_XGCPHASE) != GC_OFF


@inline
def slot_base(addr: int) -> int:
    """In KERNEL: a repair, with the world stopped, forgets for a while where spans are. The slot that ``addr`` is in, or 0."""
    page = mspan.find_span(addr)
    if page == mspan.NO_SPAN or mspan.obj_idx_of(page, addr) >= spans()[page].nelems:
        return 0
    return mspan.obj_addr(page, mspan.obj_idx_of(page, addr))


@inline
def _is_start(addr: int, base: int) -> bool:
    """An object above 512 bytes with references follows the word that says what it is."""
    sp = spans()[mspan.span_of(addr)]
    has_header = sp.span_class > 1 and not mspan.is_noscan(sp.span_class) and sp.elem_size > mspan.MAX_INLINE
    return addr == (base + _HEADER if has_header else base)


# --- registering ------------------------------------------------------------------------------------------------------


@kernel("int64(int64, int64, int64, int64, int64)")
def set_finalizer(slot: int, offset: int, function: int, may_be_tiny: int, type_key: int) -> int:
    """Arm a finalizer for what is ``offset`` bytes into a handle's object: its record, a status, or RETRY.

    ``may_be_tiny``: it has no references and less than 16 bytes, so it need not be at the start of a slot.
    """
    if _begin_adding() != OK:
        return RETRY
    addr = load_handle(slot) + offset
    base = slot_base(addr)
    if base == 0:
        status = NOT_IN_BLOCK
    elif not may_be_tiny and not _is_start(addr, base):
        status = NOT_AT_START
    else:
        status = _arm_finalizer_locked(addr, function, type_key)
    _end()
    return status


@inline
def _arm_finalizer_locked(addr: int, function: int, type_key: int) -> int:
    if find_locked(addr, SPECIAL_FINALIZER) != NONE:
        return ALREADY_SET
    n = add_locked(addr, SPECIAL_FINALIZER, owner_word(_own()), function, type_key)
    if n == NONE:
        return OUT_OF_MEMORY
    if _is_marking():
        grey_fields(_own(), addr)
    return n


@kernel("int64(int64, int64)")
def clear_finalizer(slot: int, offset: int) -> int:
    """Disarm it: the number of its function if it was this process's, 0 if it was another's, NOT_SET, or RETRY."""
    if _begin() != OK:
        return RETRY
    addr = load_handle(slot) + offset
    n, status = find_locked(addr, SPECIAL_FINALIZER), NOT_SET
    if n != NONE:
        s = special_at(special_addr(n))
        status = s.value if s.owner == owner_word(_own()) else 0
        remove_locked(mspan.span_of(addr), n)
        cancel_locked(n)
    _end()
    return status


@kernel("int64(int64, int64, int64)")
def add_cleanup(slot: int, offset: int, function: int) -> int:
    """Arm a cleanup for the place ``offset`` bytes into a handle's object: its record, OUT_OF_MEMORY, NOT_IN_BLOCK or RETRY."""
    if _begin_adding() != OK:
        return RETRY
    addr = load_handle(slot) + offset
    status = NOT_IN_BLOCK
    if slot_base(addr) != 0:
        n = add_locked(addr, SPECIAL_CLEANUP, owner_word(_own()), function, 0)
        status = n if n != NONE else OUT_OF_MEMORY
    _end()
    return status


@kernel("int64(int64, int64)")
def stop_cleanup(n: int, function: int) -> int:
    """Disarm it if it still is that function's, and armed: 1 if so, 0 if not, or RETRY."""
    if _begin() != OK:
        return RETRY
    s = special_at(special_addr(n))
    found = 0
    if (
        s.kind == SPECIAL_CLEANUP
        and s.value == function
        and s.owner == owner_word(_own())
        and state_of(n) == SPECIAL_ARMED
    ):
        found = remove_locked(mspan.span_of(s.addr), n)
        free_record_locked(n)
    _end()
    return found


@kernel("int64(int64, int64)")
def is_in_slot_of(slot: int, other: int) -> int:
    """Of two handles: SAME_ADDRESS, SAME_SLOT if they lead into the same slot, SAME_TINY_SLOT if tiny objects may share it, 0, or RETRY."""
    if enter() != OK:
        return RETRY
    a, b = load_handle(slot), load_handle(other)
    status = 0
    if a == b:
        status = SAME_ADDRESS
    elif slot_base(a) != 0 and slot_base(a) == slot_base(b):
        status = SAME_TINY_SLOT if spans()[mspan.span_of(a)].span_class == TINY_SPAN_CLASS else SAME_SLOT
    leave()
    return status


@kernel("int64(int64, int64, int64)")
def point_into(slot: int, offset: int, into: int) -> int:
    """Root the place ``offset`` bytes into a handle's object in the empty slot ``into``: OK or RETRY."""
    if enter() != OK:
        return RETRY
    status = fill_handle(into, load_handle(slot) + offset)
    leave()
    return status


# --- weak pointers ----------------------------------------------------------------------------------------------------


@kernel("int64(int64, int64, int64)")
def find_weak(slot: int, offset: int, into: int) -> int:
    """Root the weak handle of a place in the empty slot ``into``: OK, NIL if it has none yet, or RETRY."""
    if _begin() != OK:
        return RETRY
    n, status = find_locked(load_handle(slot) + offset, SPECIAL_WEAK), NIL
    if n != NONE:
        status = _hold(into, special_at(special_addr(n)).value)
    _end()
    return status


@kernel("int64(int64, int64, int64)")
def add_weak(slot: int, offset: int, box: int) -> int:
    """Make the fresh 16-byte object in slot ``box`` the weak handle of a place, or have the slot hold the one that there is: OK, a status, RETRY."""
    if _begin_adding() != OK:
        return RETRY
    addr = load_handle(slot) + offset
    status = NOT_IN_BLOCK
    if slot_base(addr) != 0:
        handle = _find_or_add_weak_locked(addr, load_handle(box))
        status = fill_handle(box, handle) if handle != 0 else OUT_OF_MEMORY
    _end()
    return status


@kernel("int64(int64, int64)")
def weak_value(box: int, into: int) -> int:
    """Root what a weak handle leads to in the empty slot ``into``: OK, NIL, or RETRY.

    Why nothing comes back that this cycle has found dead. This P is in KERNEL, so no cycle begins, and none ends, between here and the filled
    handle, which keeps the object from then on.

    - While the heap is marked every span is swept, so the handle's object was alive when the cycle began. It is shaded, as a snapshot at the
      beginning does not know of it; if marking was about to end, the stop that would end it finds the grey object in this P's buffers and
      goes on. (Go, whose marking ends without looking at every buffer again, has such a caller wait.)
    - While nothing is marked, an object of a span that is not swept yet is alive if it is marked: marks change no more, and sweeping sets
      this handle to 0 before it marks an object that is dead so that a finalizer can have it. A span whose marks are gone was swept, and
      this handle with it: an address in it is a living object's.
    """
    if _begin() != OK:
        return RETRY
    addr = load_acquire(load_handle(box))  # pairs with _drop_weak
    status = NIL
    if addr != 0 and _is_alive_locked(addr):
        status = _hold(into, addr)
    _end()
    return status


@inline
def _is_alive_locked(addr: int) -> bool:
    """Holds: specials_lock, so a sweeper has not passed this object's specials, or has left its weak handle because it lives."""
    page = mspan.span_of(addr)
    idx = mspan.obj_idx_of(page, addr)
    while True:
        state = mspan.state_of(page)
        gen, h = mspan.sweepgen_of(state), runtime().sweepgen
        if gen != h - 2 and (gen != h - 1 or mspan.step_of(state) != STEP_SWEEPING):
            return True
        word = load_acquire(mspan.mark_bits_addr(page) + ((idx >> 6) << 3))
        if lsr(word, idx & 63) & 1:
            return True
        if mspan.state_of(page) == state:  # nobody was clearing the marks that were read
            return False


@inline
def _shaded(addr: int) -> int:
    """An object that something else than a reference led to."""
    if _is_marking():
        grey(_own(), addr, 0)
    return addr


@inline
def _hold(into: int, addr: int) -> int:
    """Root such an object."""
    return fill_handle(into, _shaded(addr))


# --- weak pointers in compiled programs -------------------------------------------------------------------------------


@kernel("int64(int64)")
def weak_waiting(addr: int) -> int:
    """The weak handle of a place in an object that the program's frames keep; 0 if there is no memory."""
    acquire(RT_XSPECIALS_LOCK)
    n = find_locked(addr, SPECIAL_WEAK)
    box = _shaded(special_at(special_addr(n)).value) if n != NONE else 0
    release(RT_XSPECIALS_LOCK)
    if box != 0:
        return box
    box = new_bytes(_BOX_BYTES, PROGRAM)
    if box == 0:
        return 0
    make_room_for_special()
    acquire(RT_XSPECIALS_LOCK)
    box = _find_or_add_weak_locked(addr, box)
    release(RT_XSPECIALS_LOCK)
    return box


@inline
def _find_or_add_weak_locked(addr: int, box: int) -> int:
    """The weak handle of a place: ``box``, a fresh 16-byte object, unless it has one. 0 if there is no memory for the record."""
    n = find_locked(addr, SPECIAL_WEAK)
    if n != NONE:
        return _shaded(special_at(special_addr(n)).value)
    store_release(box, addr)
    if add_locked(addr, SPECIAL_WEAK, owner_word(_own()), box, 0) == NONE:
        store_release(box, 0)
        return 0
    return _shaded(box)


@kernel("int64(int64)")
def weak_value_waiting(box: int) -> int:
    """What a weak handle leads to, or 0: for the same reasons as :func:`weak_value`, with the program's frame in place of the handle."""
    acquire(RT_XSPECIALS_LOCK)
    addr = load_acquire(box)  # pairs with _drop_weak
    found = _shaded(addr) if addr != 0 and _is_alive_locked(addr) else 0
    release(RT_XSPECIALS_LOCK)
    return found


# --- running ----------------------------------------------------------------------------------------------------------


@kernel("int64(int64)")
def take_finalizer(into: int) -> int:
    """The next finalizer of this process that is due, RUNNING from now on, with its object in the empty slot ``into``.

    Its record; that plus TO_FORGET for one that was cleared, and nothing is rooted; NONE; or RETRY. Followed by :func:`finish_special`. Until then
    the object is a root by its record, whatever becomes of the handle.
    """
    if _begin() != OK:
        return RETRY
    n = pop_locked(_own(), FINALIZERS)
    if n != NONE:
        if state_of(n) == SPECIAL_CANCELLED:
            n += TO_FORGET
        else:
            set_state(n, SPECIAL_RUNNING)
            _hold(into, special_at(special_addr(n)).addr)
    _end()
    return n


@kernel("int64()")
def take_cleanup() -> int:
    """The next cleanup of this process that is due, RUNNING from now on: its record, NONE, or RETRY. Followed by :func:`finish_special`."""
    if _begin() != OK:
        return RETRY
    n = pop_locked(_own(), CLEANUPS)
    if n != NONE:
        set_state(n, SPECIAL_RUNNING)
    _end()
    return n


@kernel("int64(int64)")
def function_of(n: int) -> int:
    """Number of the function of a record that this process has taken."""
    return special_at(special_addr(n)).value


@kernel("int64(int64, int64)")
def finish_special(n: int, failed: int) -> int:
    """The function of a record that this process has taken has run, ``failed`` if it raised, or is forgotten: OK or RETRY."""
    if _begin() != OK:
        return RETRY
    if state_of(n) == SPECIAL_RUNNING:
        count = 8 * count_of(special_at(special_addr(n)).kind)
        total, failures = _own() + P_SPECIAL_RUN + count, _own() + P_SPECIAL_FAILED + count
        redo.plan(0, total, load64(total) + 1)
        redo.plan(1, failures, load64(failures) + failed)
        redo.plan(2, special_addr(n) + SPECIAL_XSTATE, SPECIAL_FREE)
        redo.commit(3)
    free_record_locked(n)
    _end()
    return OK


@inline
def _ready_word(count: int) -> int:
    return _own() + (P_XFINALIZERS_READY if count == FINALIZERS else P_XCLEANUPS_READY)


@kernel("void(int64)")
def begin_look(count: int) -> None:
    """Before this process looks whether anything is due: what is queued from here on ends its next sleep."""
    store_release(_ready_word(count), 0)


@kernel("int64(int64, int64)", nogil=True)
def sleep_until_ready(count: int, timeout_ns: int) -> int:
    """Sleep until something is queued for this process, at most ``timeout_ns``; 1 if something is. This P is whatever its program makes of it."""
    word = _ready_word(count)
    if load_acquire(word) == 0:
        futex_wait(word, 0, timeout_ns)
    return load_acquire(word)


@kernel("void()")
def wake_all() -> None:
    """Have everybody in this process who sleeps there look."""
    for count in (FINALIZERS, CLEANUPS):
        store_release(_ready_word(count), 1)
        futex_wake(_ready_word(count))
