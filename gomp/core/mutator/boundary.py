"""What Python calls: every kernel here takes slot numbers and scalars, and returns scalars. No address leaves.

A *handle* is a slot of this P's handle table; its number is what a Python reference holds. Kernels fill slots, Python only clears them.

Who enters. Whatever stores a reference or fills a slot runs in KERNEL, and returns RETRY, having done nothing, if a stop or a claim is in the way.
Comparing two handles changes nothing that a collector looks at, and the handles keep the objects: this does not enter and cannot be refused. For the
same reason numbers need no kernel at all: Python reads and writes them through its mapping (``gomp/runtime/cells.py``).

An allocation has five outcomes: OK; ``n + WAIT_BASE``: the handle is filled, but wait until more than ``n`` cycles have begun before
going on; WAIT_CREDIT: the same, but wait for credit; ``-n - WAIT_BASE``: nothing was allocated, wait until more than ``n`` cycles have ended
and call with ``again`` = 1; OUT_OF_MEMORY.
"""

from __future__ import annotations

from gomp.core.jit import inline, kernel
from gomp.core.mutator.barrier import read_pointer, write_pointer
from gomp.core.mutator.malloc import PYTHON, PYTHON_AGAIN, new_bytes, new_masked, new_typed
from gomp.core.mutator.types import TABLE_FULL, find_type
from gomp.core.sched.locks import acquire, release, try_lock
from gomp.core.sched.status import OK, RETRY, enter, leave
from gomp.core.shm import layout
from gomp.core.shm.atomics import (
    fence_release,
    load64,
    load_acquire,
    load_relaxed,
    store64,
    store_relaxed,
    store_release,
)
from gomp.core.shm.commit import commit_table
from gomp.core.shm.records import (
    GC_TRIGGER_HEAP,
    GC_WAIT_CREDIT,
    RT_XCYCLES,
    RT_XNGLOBALS,
    RT_XTABLE_LOCK,
    root_globals,
    self_p,
)

NULL = 1  # a reference was read, and it is None: the slot is still empty
OUT_OF_MEMORY, NO_TYPE = -2, -3
WAIT_CREDIT = 2
WAIT_BASE = 16
NO_SLOT = -1
ARRAY_HEADER = 8
_GLOBAL_NAME, _GLOBAL_TYPE = 16, 8


# --- handles ----------------------------------------------------------------------------------------------------------


@inline
def slot_addr(slot: int) -> int:
    return layout.handles_addr(self_p().idx) + 8 * slot


@inline
def load_handle(slot: int) -> int:
    """The address that a handle of this P holds; 0 for NO_SLOT."""
    if slot < 0:
        return 0
    return load_relaxed(slot_addr(slot))


@inline
def fill_handle(slot: int, addr: int) -> int:
    """In KERNEL. Root ``addr``: OK, or NULL."""
    if addr == 0:
        return NULL
    store_relaxed(slot_addr(slot), addr)
    return OK


@kernel("int64(int64)")
def grow_handles(n: int) -> int:
    """Make ``n`` more slots usable; the number of the first, OUT_OF_MEMORY or RETRY."""
    if enter() != OK:
        return RETRY
    me = self_p()
    first = me.handles
    status = first
    need = 8 * (first + n)
    if first + n > layout.HANDLES_PER_P:
        status = OUT_OF_MEMORY
    elif need > me.handles_committed:
        more = layout.align_up(need, layout.TABLE_STEP) - me.handles_committed
        at = layout.handles_addr(me.idx) - layout.META_BASE + me.handles_committed
        if commit_table(me.meta_fd, at, more) != 0:
            status = OUT_OF_MEMORY
        else:
            me.handles_committed += more
    if status >= 0:
        me.handles = first + n
    leave()
    return status


@kernel("int64()")
def handles_in_use() -> int:
    """Slots ever made usable in this P's table."""
    return self_p().handles


@kernel("int64(int64)")
def handle_addr(slot: int) -> int:
    """The object's address as a number: for ``repr`` and ``hash``. Objects never move, and a number keeps nothing alive."""
    return load_handle(slot)


@kernel("int64(int64, int64)")
def is_same_object(a: int, b: int) -> int:
    return 1 if load_handle(a) == load_handle(b) else 0


# --- allocation -------------------------------------------------------------------------------------------------------


@inline
def _caller(again: int) -> int:
    return PYTHON_AGAIN if again else PYTHON


@inline
def finish_new(addr: int, slot: int, begun: int) -> int:
    """Root a new object, leave, and say what the caller does next."""
    if addr == 0:
        leave()
        return OUT_OF_MEMORY
    if addr < 0:
        leave()
        return -begun - WAIT_BASE
    fill_handle(slot, addr)
    me = self_p()
    waits_for = me.gc_wait
    me.gc_wait = 0
    leave()
    if waits_for == GC_TRIGGER_HEAP:
        return begun + WAIT_BASE
    return WAIT_CREDIT if waits_for == GC_WAIT_CREDIT else OK


@kernel("int64(int64, int64, int64, int64, int64, int64)")
def new_struct(slot: int, size: int, mask: int, offset: int, word: int, again: int) -> int:
    """A struct of ``size`` bytes, at most 512, into an empty slot: zero, but for the ``word``. Where ``mask`` has a bit are references."""
    if enter() != OK:
        return RETRY
    begun = load_relaxed(RT_XCYCLES)
    addr = new_masked(size, mask, _caller(again))
    if addr > 0:
        store64(addr + offset, word)
    return finish_new(addr, slot, begun)


@kernel("int64(int64, int64, int64, int64)")
def new_object(slot: int, size: int, key: int, again: int) -> int:
    """Any other object into an empty slot: with references if ``key`` is not 0, the key of its type."""
    type_addr = 0
    if key != 0:
        type_addr = find_type(key)
        if type_addr == 0:
            return NO_TYPE
    if enter() != OK:
        return RETRY
    begun = load_relaxed(RT_XCYCLES)
    addr = new_bytes(size, _caller(again)) if key == 0 else new_typed(size, type_addr, _caller(again))
    return finish_new(addr, slot, begun)


@kernel("int64(int64, int64, int64, int64, int64)")
def new_array(slot: int, n: int, size: int, key: int, again: int) -> int:
    """``n`` elements behind their number, ``size`` bytes in all, into an empty slot: references if ``key`` is not 0."""
    type_addr = 0
    if key != 0:
        type_addr = find_type(key)
        if type_addr == 0:
            return NO_TYPE
    if enter() != OK:
        return RETRY
    begun = load_relaxed(RT_XCYCLES)
    addr = new_bytes(size, _caller(again)) if key == 0 else new_typed(size, type_addr, _caller(again))
    if addr > 0:
        set_length(addr, n)
    return finish_new(addr, slot, begun)


@inline
def set_length(addr: int, n: int) -> None:
    """Make a new object an array. As with its zeroing, whoever sees its address sees its length: the store that publishes it is relaxed."""
    store64(addr, n)
    fence_release()


# --- fields -----------------------------------------------------------------------------------------------------------


@kernel("int64(int64, int64, int64)")
def read_reference(slot: int, offset: int, into: int) -> int:
    """Root the reference at ``offset`` in the empty slot ``into``: OK, NULL or RETRY."""
    if enter() != OK:
        return RETRY
    status = fill_handle(into, read_pointer(load_handle(slot) + offset))
    leave()
    return status


@kernel("int64(int64, int64, int64)")
def read_inside(slot: int, offset: int, into: int) -> int:
    """Root the part of an object at ``offset`` in the empty slot ``into``: an address inside an object keeps all of it. OK or RETRY."""
    if enter() != OK:
        return RETRY
    fill_handle(into, load_handle(slot) + offset)
    leave()
    return OK


@kernel("int64(int64, int64, int64)")
def write_reference(slot: int, offset: int, value: int) -> int:
    """Store the reference in slot ``value``, or None for NO_SLOT: OK or RETRY."""
    if enter() != OK:
        return RETRY
    write_pointer(load_handle(slot) + offset, load_handle(value))
    leave()
    return OK


# --- globals ----------------------------------------------------------------------------------------------------------


@inline
def global_addr(idx: int) -> int:
    return layout.GLOBALS_BASE + idx * layout.GLOBAL_RECORD


@inline
def _has_name(idx: int, w0: int, w1: int, w2: int, w3: int, w4: int, w5: int) -> bool:
    name = global_addr(idx) + _GLOBAL_NAME
    if load64(name) != w0 or load64(name + 8) != w1 or load64(name + 16) != w2:
        return False
    return load64(name + 24) == w3 and load64(name + 32) == w4 and load64(name + 40) == w5


@inline
def _find_or_add_locked(w0: int, w1: int, w2: int, w3: int, w4: int, w5: int) -> int:
    n = load_relaxed(RT_XNGLOBALS)
    for idx in range(n):
        if _has_name(idx, w0, w1, w2, w3, w4, w5):
            return idx
    if n == layout.MAX_GLOBALS:
        return TABLE_FULL
    addr = global_addr(n)
    at = addr - layout.GLOBALS_BASE
    if at % layout.TABLE_STEP == 0:
        if commit_table(self_p().meta_fd, addr - layout.META_BASE, layout.TABLE_STEP) != 0:
            return TABLE_FULL
    name = addr + _GLOBAL_NAME
    store64(name, w0)
    store64(name + 8, w1)
    store64(name + 16, w2)
    store64(name + 24, w3)
    store64(name + 32, w4)
    store64(name + 40, w5)
    store_release(addr, 0)
    store_release(RT_XNGLOBALS, n + 1)  # pairs with count_globals
    return n


@kernel("int64(int64, int64, int64, int64, int64, int64)")
def add_global(w0: int, w1: int, w2: int, w3: int, w4: int, w5: int) -> int:
    """The number of the global with this name (48 bytes in six words), added if it is new; TABLE_FULL; or RETRY."""
    if enter() != OK:
        return RETRY
    if not try_lock(RT_XTABLE_LOCK):
        leave()
        return RETRY
    idx = _find_or_add_locked(w0, w1, w2, w3, w4, w5)
    release(RT_XTABLE_LOCK)
    leave()
    return idx


@kernel("int64()")
def count_globals() -> int:
    """Globals ever named: whoever knows the number finds their names."""
    return load_acquire(RT_XNGLOBALS)


@kernel("int64(int64)")
def global_type(idx: int) -> int:
    """Key of the type that this global holds: 0 until it first held something, then for ever the same."""
    return load_acquire(global_addr(idx) + _GLOBAL_TYPE)


@kernel("int64(int64)")
def is_global_set(idx: int) -> int:
    return 1 if load_acquire(global_addr(idx)) != 0 else 0


@kernel("int64(int64, int64, int64)")
def write_global(idx: int, value: int, key: int) -> int:
    """Store the reference in slot ``value`` (NO_SLOT: None), of the type ``key``: OK, NO_TYPE if the global holds another type, or RETRY."""
    if enter() != OK:
        return RETRY
    status = OK
    if global_type_of(idx) != key:
        if not try_lock(RT_XTABLE_LOCK):
            leave()
            return RETRY
        status = fix_global_type_locked(idx, key)
        release(RT_XTABLE_LOCK)
    if status == OK:  # without the lock: the barrier may need another
        write_pointer(global_addr(idx), load_handle(value))
    leave()
    return status


@inline
def fix_global_type_locked(idx: int, key: int) -> int:
    """The first store decides what a global holds. So the type beside a reference can be read without a lock: it never changes."""
    g = root_globals()[idx]
    if g.type_key == 0:
        store_release(global_addr(idx) + _GLOBAL_TYPE, key)
        return OK
    return OK if g.type_key == key else NO_TYPE


@kernel("int64(int64, int64)")
def read_global(idx: int, into: int) -> int:
    """Root a global's reference in the empty slot ``into``: OK, NULL or RETRY."""
    if enter() != OK:
        return RETRY
    status = fill_handle(into, read_pointer(global_addr(idx)))
    leave()
    return status


# --- globals, from compiled programs ----------------------------------------------------------------------------------


@kernel("int64(int64, int64, int64, int64, int64, int64)")
def bind_global(w0: int, w1: int, w2: int, w3: int, w4: int, w5: int) -> int:
    """As :func:`add_global`, in a compiled program: waits for the lock."""
    acquire(RT_XTABLE_LOCK)
    idx = _find_or_add_locked(w0, w1, w2, w3, w4, w5)
    release(RT_XTABLE_LOCK)
    return idx


@kernel("int64(int64, int64, int64)")
def set_global(idx: int, addr: int, key: int) -> int:
    """In a compiled program: OK, or NO_TYPE if the global holds another type."""
    if global_type_of(idx) != key:
        acquire(RT_XTABLE_LOCK)
        status = fix_global_type_locked(idx, key)
        release(RT_XTABLE_LOCK)
        if status != OK:
            return status
    write_pointer(global_addr(idx), addr)
    return OK


@inline
def global_type_of(idx: int) -> int:
    return load_acquire(global_addr(idx) + _GLOBAL_TYPE)
