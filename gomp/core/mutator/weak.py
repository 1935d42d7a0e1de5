"""Weak pointers: as Python has them, by slots, and compiled programs, by addresses.

A *weak handle* is the 16-byte object that all weak pointers to one place share. It holds the place until a sweep finds that nothing else leads
there, then 0. Its record keeps it while the place is there. Made while the heap is marked it is greyed, as a root job may have looked at the table
before its record was armed.
"""

from __future__ import annotations

from gomp.core.gc.specials import NONE, add_locked, find_locked, make_room_for_special, owner_word, special_addr
from gomp.core.heap import mspan
from gomp.core.jit import inline, kernel
from gomp.core.mutator.boundary import OUT_OF_MEMORY, fill_handle, load_handle
from gomp.core.mutator.malloc import PROGRAM, new_bytes
from gomp.core.mutator.specialcalls import NOT_IN_BLOCK, begin, begin_adding, end, hold, own_p, shaded, slot_base
from gomp.core.sched.locks import acquire, release
from gomp.core.sched.status import OK, RETRY
from gomp.core.shm.atomics import load_acquire, lsr, store_release
from gomp.core.shm.records import RT_XSPECIALS_LOCK, SPECIAL_WEAK, STEP_SWEEPING, runtime, special_at

NIL = 1  # a weak pointer to nothing, or to what is dead
BOX_BYTES = 16


@kernel("int64(int64, int64, int64)")
def find_weak(slot: int, offset: int, into: int) -> int:
    """Root the weak handle of a place in the empty slot ``into``: OK, NIL if it has none yet, or RETRY."""
    if begin() != OK:
        return RETRY
    n, status = find_locked(load_handle(slot) + offset, SPECIAL_WEAK), NIL
    if n != NONE:
        status = hold(into, special_at(special_addr(n)).value)
    end()
    return status


@kernel("int64(int64, int64, int64)")
def add_weak(slot: int, offset: int, box: int) -> int:
    """Make the fresh 16-byte object in slot ``box`` the weak handle of a place, or have the slot hold the one that there is: OK, a status, RETRY."""
    if begin_adding() != OK:
        return RETRY
    addr = load_handle(slot) + offset
    status = NOT_IN_BLOCK
    if slot_base(addr) != 0:
        handle = _find_or_add_weak_locked(addr, load_handle(box))
        status = fill_handle(box, handle) if handle != 0 else OUT_OF_MEMORY
    end()
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
    if begin() != OK:
        return RETRY
    addr = load_acquire(load_handle(box))  # pairs with _drop_weak
    status = NIL
    if addr != 0 and _is_alive_locked(addr):
        status = hold(into, addr)
    end()
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


# --- in compiled programs ----------------------------------------------------------------------------------------------


@kernel("int64(int64)")
def weak_waiting(addr: int) -> int:
    """The weak handle of a place in an object that the program's frames keep; 0 if there is no memory."""
    acquire(RT_XSPECIALS_LOCK)
    n = find_locked(addr, SPECIAL_WEAK)
    box = shaded(special_at(special_addr(n)).value) if n != NONE else 0
    release(RT_XSPECIALS_LOCK)
    if box != 0:
        return box
    box = new_bytes(BOX_BYTES, PROGRAM)
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
        return shaded(special_at(special_addr(n)).value)
    store_release(box, addr)
    if add_locked(addr, SPECIAL_WEAK, owner_word(own_p()), box, 0) == NONE:
        store_release(box, 0)
        return 0
    return shaded(box)


@kernel("int64(int64)")
def weak_value_waiting(box: int) -> int:
    """What a weak handle leads to, or 0: for the same reasons as :func:`weak_value`, with the program's frame in place of the handle."""
    acquire(RT_XSPECIALS_LOCK)
    addr = load_acquire(box)  # pairs with _drop_weak
    found = shaded(addr) if addr != 0 and _is_alive_locked(addr) else 0
    release(RT_XSPECIALS_LOCK)
    return found
