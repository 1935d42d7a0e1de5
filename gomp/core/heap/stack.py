"""A goroutine's stack: frames on it, and how it grows and shrinks by moving (stack.go, newstack and copystack).

A stack is contiguous and grows down. A frame begins with its caller's address, its type's record and where in its code it is; slots follow. The
type has two masks over the frame's words: references to objects, and addresses that may lead into this stack. The bottom frame has no
caller. Because frames say all of what is in them, a stack moves while its goroutine lives: the used part is copied to the top of a new one, and
whatever led into the old one leads to the same place in the new one.

Nobody else reads a stack while it moves: the goroutine is not running, or it is this P that runs it. One word of the record says which stack it
is, and what is in use counts from the top; so a move is the store of that word, after everything else. A P that is killed before it leaves the
old stack whole and the new one free, after it the other way round.
"""

from __future__ import annotations

from gomp.core.heap.mheap import NO_MEMORY
from gomp.core.heap.stackalloc import alloc_stack, free_stack
from gomp.core.jit import inline, kernel
from gomp.core.sched.throw import THROW_BAD_POINTER, throw
from gomp.core.shm import layout
from gomp.core.shm.atomics import (
    clear_lowest,
    copy_range,
    ctz,
    load64,
    load_acquire,
    load_relaxed,
    store64,
    store_release,
    xchg_acq_rel,
    zero_range,
)
from gomp.core.shm.records import (
    FRAME_CALLER,
    FRAME_TYPE,
    G_XSTACK,
    LEADS_INTO_STACK,
    STACKPOOL_XMAX_STACK,
    g_at,
    self_p,
    stackpool,
    type_at,
)

STACK_OVERFLOW = -1000
# Bytes that no frame may reach into: what Go leaves for functions that do not look (stackNosplit + StackSmall).
STACK_GUARD = 928
_STACK_SMALL = 128  # but by so much a small frame may
_NOSPLIT = 800
_LEAST_POINTER = 4096
_CEILING = 2_000_000_000  # bytes of a stack, whatever its maximum (maxstackceiling)
_LOG_MASK = 63  # of the word that names a stack


# --- frames -----------------------------------------------------------------------------------------------------------


@kernel("int64(int64, int64)")
def push_frame(g: int, type_addr: int) -> int:
    """A frame of that type for the goroutine at ``g``, called by its innermost one, all slots 0: its address.

    STACK_OVERFLOW if the stack would be more than the maximum, NO_MEMORY; then nothing has changed. Otherwise the stack may have moved.
    """
    size = type_at(type_addr).struct_bytes
    if not _fits(g, size):
        grown = _grow(g, size)
        if grown < 0:
            return grown
    caller = innermost(g)
    frame = stack_hi(g) - g_at(g).depth - size
    zero_range(frame, size)
    store64(frame + FRAME_CALLER, caller)
    store64(frame + FRAME_TYPE, type_addr)
    g_at(g).depth += size
    return frame


@kernel("int64(int64)")
def pop_frame(g: int) -> int:
    """Drop the innermost frame: the address of its caller's, 0 if there is none."""
    caller = load64(innermost(g) + FRAME_CALLER)
    g_at(g).depth = stack_hi(g) - caller if caller != 0 else 0
    return caller


@kernel("int64(int64, int64)")
def make_room(g: int, size: int) -> int:
    """Have the stack of the goroutine at ``g`` hold frames of ``size`` bytes more before it moves again: 0, STACK_OVERFLOW or NO_MEMORY."""
    return 0 if _fits(g, size) else _grow(g, size)


@inline
def _fits(g: int, size: int) -> bool:
    """Whether a frame of that size stays above the guard, as the code that Go's compiler puts at a function's start has it."""
    return stack_size(g) - g_at(g).depth - max(size - _STACK_SMALL, 0) > STACK_GUARD


@inline
def stack_lo(g: int) -> int:
    """The lowest address of the stack of the goroutine at ``g``, 0 if it has none."""
    return load_acquire(g + G_XSTACK) & ~_LOG_MASK


@inline
def stack_size(g: int) -> int:
    word = load_acquire(g + G_XSTACK)
    return 1 << (word & _LOG_MASK) if word != 0 else 0


@inline
def stack_hi(g: int) -> int:
    return stack_lo(g) + stack_size(g)


@inline
def innermost(g: int) -> int:
    """Address of the innermost frame, 0 if there is none."""
    return stack_hi(g) - g_at(g).depth if g_at(g).depth != 0 else 0


@inline
def set_stack(g: int, lo: int, size: int) -> None:
    """The goroutine at ``g`` has that stack from now on, and everything in it is as it is to be."""
    store_release(g + G_XSTACK, lo | ctz(size) if lo != 0 else 0)


# --- moving -----------------------------------------------------------------------------------------------------------


@inline
def _grow(g: int, frame_size: int) -> int:
    """Move to a stack of twice the size, or as much as the frame needs: 0, STACK_OVERFLOW or NO_MEMORY."""
    most = min(load_relaxed(STACKPOOL_XMAX_STACK), _CEILING)
    if frame_size > most:
        return STACK_OVERFLOW
    size = 2 * stack_size(g)
    while size - g_at(g).depth < frame_size + STACK_GUARD:
        size *= 2
    if size > most:
        return STACK_OVERFLOW
    return copy_stack(g, size)


@kernel("int64(int64)")
def set_max_stack(size: int) -> int:
    """Set how many bytes a stack may have from now on; what it was (runtime/debug, SetMaxStack). Any process, at any time."""
    return xchg_acq_rel(STACKPOOL_XMAX_STACK, size)


@kernel("int64(int64, int64)")
def copy_stack(g: int, size: int) -> int:
    """Move the stack of the goroutine at ``g`` to one of ``size`` bytes, which holds what is used: 0 or NO_MEMORY."""
    new = alloc_stack(size)
    if new < 0:
        return NO_MEMORY
    lo, hi, depth = stack_lo(g), stack_hi(g), g_at(g).depth
    delta = new + size - hi
    copy_range(new + size - depth, hi - depth, depth)
    if depth != 0:
        _adjust_frames(new + size - depth, lo, hi, delta)
    set_stack(g, new, size)
    g_at(g).copies += 1
    self_p().stack_copies += 1
    self_p().stack_copied += depth
    free_stack(lo, hi - lo)
    return 0


@inline
def _adjust_frames(frame: int, lo: int, hi: int, delta: int) -> None:
    """Have everything in the frames from ``frame`` on that leads into [lo, hi) lead ``delta`` bytes further."""
    while frame != 0:
        adjust_slots(frame, lo, hi, delta)
        caller = load64(frame + FRAME_CALLER)
        if caller != 0:
            caller += delta
            store64(frame + FRAME_CALLER, caller)
        frame = caller


@inline
def adjust_slots(frame: int, lo: int, hi: int, delta: int) -> None:
    """The same of one frame."""
    t = type_at(load64(frame + FRAME_TYPE))
    if t.elem_size != LEADS_INTO_STACK:
        return
    words = (t.struct_bytes + 511) >> 9
    for i in range(words):
        mask = load64(t.mask + 8 * (words + i))
        while mask != 0:
            slot = frame + 512 * i + 8 * ctz(mask)
            word = load64(slot)
            if lo <= word < hi:
                store64(slot, word + delta)
            elif 0 < word < _LEAST_POINTER:
                throw(THROW_BAD_POINTER, word, slot)
            mask = clear_lowest(mask)


@kernel("void(int64)")
def shrink_stack(g: int) -> None:
    """Halve the stack of the goroutine at ``g`` if it uses less than a quarter of it, and there is memory (shrinkstack)."""
    g_at(g).wants_shrink = 0
    size = stack_size(g) // 2
    if stackpool().never_shrink == 0 and size >= layout.FIXED_STACK and g_at(g).depth + _NOSPLIT < stack_size(g) // 4:
        copy_stack(g, size)
