"""What Python calls for finalizers and cleanups: slot numbers, offsets and record numbers in, a record number or status out.

Adding while the heap is marked (mheap.go, addfinalizer). A root job has looked at the table, perhaps at the record's number, before it was armed: so
whoever arms a finalizer greys the object's fields. A cleanup's function is held by its process.
"""

from __future__ import annotations

from gomp.core.gc.roots import grey_fields
from gomp.core.gc.specials import (
    CLEANUPS,
    FINALIZERS,
    NONE,
    add_locked,
    cancel_locked,
    count_of,
    find_function_locked,
    find_locked,
    free_record_locked,
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
from gomp.core.mutator.boundary import OUT_OF_MEMORY, load_handle
from gomp.core.mutator.specialcalls import (
    ALREADY_SET,
    NOT_AT_START,
    NOT_IN_BLOCK,
    NOT_SET,
    begin,
    begin_adding,
    end,
    hold,
    is_marking,
    own_p,
    slot_base,
)
from gomp.core.sched import redo
from gomp.core.sched.status import OK, RETRY, enter, leave
from gomp.core.shm.atomics import load64, load_acquire, store_release
from gomp.core.shm.libc import futex_wait, futex_wake
from gomp.core.shm.records import (
    P_SPECIAL_FAILED,
    P_SPECIAL_RUN,
    P_XCLEANUPS_READY,
    P_XFINALIZERS_READY,
    SPECIAL_ARMED,
    SPECIAL_CANCELLED,
    SPECIAL_CLEANUP,
    SPECIAL_FINALIZER,
    SPECIAL_FREE,
    SPECIAL_RUNNING,
    SPECIAL_XSTATE,
    spans,
    special_at,
)

SAME_SLOT, SAME_ADDRESS, SAME_TINY_SLOT = 1, 2, 3
TO_FORGET = 1 << 40  # added to the number of a finalizer that another process has cleared
_HEADER = 8


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
    if begin_adding() != OK:
        return RETRY
    addr = load_handle(slot) + offset
    base = slot_base(addr)
    if base == 0:
        status = NOT_IN_BLOCK
    elif not may_be_tiny and not _is_start(addr, base):
        status = NOT_AT_START
    else:
        status = _arm_finalizer_locked(addr, function, type_key)
    end()
    return status


@inline
def _arm_finalizer_locked(addr: int, function: int, type_key: int) -> int:
    if find_locked(addr, SPECIAL_FINALIZER) != NONE:
        return ALREADY_SET
    n = add_locked(addr, SPECIAL_FINALIZER, owner_word(own_p()), function, type_key)
    if n == NONE:
        return OUT_OF_MEMORY
    if is_marking():
        grey_fields(own_p(), addr)
    return n


@kernel("int64(int64, int64)")
def clear_finalizer(slot: int, offset: int) -> int:
    """Disarm it: the number of its function if it was this process's, 0 if it was another's, NOT_SET, or RETRY."""
    if begin() != OK:
        return RETRY
    addr = load_handle(slot) + offset
    n, status = find_locked(addr, SPECIAL_FINALIZER), NOT_SET
    if n != NONE:
        s = special_at(special_addr(n))
        status = s.value if s.owner == owner_word(own_p()) else 0
        remove_locked(mspan.span_of(addr), n)
        cancel_locked(n)
    end()
    return status


@kernel("int64(int64, int64, int64)")
def add_cleanup(slot: int, offset: int, function: int) -> int:
    """Arm a cleanup for the place ``offset`` bytes into a handle's object: its record, OUT_OF_MEMORY, NOT_IN_BLOCK or RETRY."""
    if begin_adding() != OK:
        return RETRY
    addr = load_handle(slot) + offset
    status = NOT_IN_BLOCK
    if slot_base(addr) != 0:
        n = add_locked(addr, SPECIAL_CLEANUP, owner_word(own_p()), function, 0)
        status = n if n != NONE else OUT_OF_MEMORY
    end()
    return status


@kernel("int64(int64, int64)")
def stop_cleanup(n: int, function: int) -> int:
    """Disarm it if it still is that function's, and armed: 1 if so, 0 if not, or RETRY."""
    if begin() != OK:
        return RETRY
    s = special_at(special_addr(n))
    found = 0
    if (
        s.kind == SPECIAL_CLEANUP
        and s.value == function
        and s.owner == owner_word(own_p())
        and state_of(n) == SPECIAL_ARMED
    ):
        found = remove_locked(mspan.span_of(s.addr), n)
        free_record_locked(n)
    end()
    return found


@kernel("int64(int64, int64, int64)")
def withdraw(slot: int, count: int, function: int) -> int:
    """Disarm what this process has armed for a handle's object under that number, if it has: OK or RETRY. ``count``: FINALIZERS or CLEANUPS."""
    if begin() != OK:
        return RETRY
    addr = load_handle(slot)
    if slot_base(addr) != 0:
        kind = SPECIAL_FINALIZER if count == FINALIZERS else SPECIAL_CLEANUP
        n = find_function_locked(addr, kind, owner_word(own_p()), function)
        if n != NONE:
            remove_locked(mspan.span_of(addr), n)
            free_record_locked(n)
    end()
    return OK


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


# --- running ----------------------------------------------------------------------------------------------------------


@kernel("int64(int64)")
def take_finalizer(into: int) -> int:
    """The next finalizer of this process that is due, RUNNING from now on, with its object in the empty slot ``into``.

    Its record; that plus TO_FORGET for one that was cleared, and nothing is rooted; NONE; or RETRY. Followed by :func:`finish_special`. Until then
    the object is a root by its record, whatever becomes of the handle.
    """
    if begin() != OK:
        return RETRY
    n = pop_locked(own_p(), FINALIZERS)
    if n != NONE:
        if state_of(n) == SPECIAL_CANCELLED:
            n += TO_FORGET
        else:
            set_state(n, SPECIAL_RUNNING)
            hold(into, special_at(special_addr(n)).addr)
    end()
    return n


@kernel("int64()")
def take_cleanup() -> int:
    """The next cleanup of this process that is due, RUNNING from now on: its record, NONE, or RETRY. Followed by :func:`finish_special`."""
    if begin() != OK:
        return RETRY
    n = pop_locked(own_p(), CLEANUPS)
    if n != NONE:
        set_state(n, SPECIAL_RUNNING)
    end()
    return n


@kernel("int64(int64)")
def function_of(n: int) -> int:
    """Number of the function of a record that this process has taken."""
    return special_at(special_addr(n)).value


@kernel("int64(int64, int64)")
def finish_special(n: int, failed: int) -> int:
    """The function of a record that this process has taken has run, ``failed`` if it raised, or is forgotten: OK or RETRY."""
    if begin() != OK:
        return RETRY
    if state_of(n) == SPECIAL_RUNNING:
        count = 8 * count_of(special_at(special_addr(n)).kind)
        total, failures = own_p() + P_SPECIAL_RUN + count, own_p() + P_SPECIAL_FAILED + count
        redo.plan(0, total, load64(total) + 1)
        redo.plan(1, failures, load64(failures) + failed)
        redo.plan(2, special_addr(n) + SPECIAL_XSTATE, SPECIAL_FREE)
        redo.commit(3)
    free_record_locked(n)
    end()
    return OK


@inline
def _ready_word(count: int) -> int:
    return own_p() + (P_XFINALIZERS_READY if count == FINALIZERS else P_XCLEANUPS_READY)


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
