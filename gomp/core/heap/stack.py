"""A goroutine's stack: frames on it, and how it grows and shrinks by moving (stack.go, newstack and copystack).

A stack is contiguous and grows down. A frame begins with its caller's address, its type's record and where in its code it is; slots follow. The
type has two masks over the frame's words: references to objects, and addresses that may lead into this stack. The bottom frame has no
caller. Because frames say all of what is in them, a stack moves while its goroutine lives: the used part is copied to the top of a new one, and
whatever led into the old one leads to the same place in the new one.

Nobody else reads a stack while it moves: the goroutine is not running, or it is this P that runs it. The record changes last, so a P that is
killed here leaves the old stack whole, and the new one free.
"""

from __future__ import annotations

from gomp.core.heap.mheap import NO_MEMORY
from gomp.core.heap.stackalloc import alloc_stack, free_stack
from gomp.core.jit import inline, kernel
from gomp.core.sched.throw import THROW_BAD_POINTER, throw
from gomp.core.shm import layout
from gomp.core.shm.atomics import clear_lowest, copy_range, ctz, load64, store64, zero_range
from gomp.core.shm.records import (
    FRAME_CALLER,
    FRAME_HEADER,
    FRAME_PC,
    FRAME_TYPE,
    LEADS_INTO_STACK,
    g_at,
    stackpool,
    type_at,
)

STACK_OVERFLOW = -1000
STACK_GUARD = (
    928  # bytes that no frame may reach into: what Go leaves for functions that do not look (stackNosplit + StackSmall)
)
_STACK_SMALL = 128  # but by so much a small frame may
_NOSPLIT = 800
_LEAST_POINTER = 4096


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
    gp = g_at(g)
    frame = gp.frame - size
    zero_range(frame + FRAME_HEADER, size - FRAME_HEADER)
    store64(frame + FRAME_CALLER, gp.frame if gp.frame != gp.stack_hi else 0)
    store64(frame + FRAME_TYPE, type_addr)
    store64(frame + FRAME_PC, 0)
    gp.frame = frame
    return frame


@kernel("int64(int64)")
def pop_frame(g: int) -> int:
    """Drop the innermost frame: the address of its caller's, 0 if there is none."""
    gp = g_at(g)
    caller = load64(gp.frame + FRAME_CALLER)
    gp.frame = caller if caller != 0 else gp.stack_hi
    return caller


@inline
def _fits(g: int, size: int) -> bool:
    """Whether a frame of that size stays above the guard, as the code that Go's compiler puts at a function's start has it."""
    return g_at(g).frame - max(size - _STACK_SMALL, 0) > g_at(g).stack_lo + STACK_GUARD


@inline
def stack_size(g: int) -> int:
    return g_at(g).stack_hi - g_at(g).stack_lo


@inline
def stack_used(g: int) -> int:
    return g_at(g).stack_hi - g_at(g).frame


# --- moving -----------------------------------------------------------------------------------------------------------


@inline
def _grow(g: int, frame_size: int) -> int:
    """Move to a stack of twice the size, or as much as the frame needs: 0, STACK_OVERFLOW or NO_MEMORY."""
    size = 2 * stack_size(g)
    while size - stack_used(g) < frame_size + STACK_GUARD:
        size *= 2
    if size > stackpool().max_stack:
        return STACK_OVERFLOW
    return copy_stack(g, size)


@kernel("int64(int64, int64)")
def copy_stack(g: int, size: int) -> int:
    """Move the stack of the goroutine at ``g`` to one of ``size`` bytes, which holds what is used: 0 or NO_MEMORY."""
    new = alloc_stack(size)
    if new < 0:
        return NO_MEMORY
    gp = g_at(g)
    lo, hi, frame = gp.stack_lo, gp.stack_hi, gp.frame
    delta = new + size - hi
    copy_range(frame + delta, frame, hi - frame)
    _adjust_frames(frame + delta, lo, hi, delta)
    gp.frame = frame + delta
    gp.stack_hi = hi + delta
    gp.stack_lo = new
    gp.copies += 1
    free_stack(lo, hi - lo)
    return 0


@inline
def _adjust_frames(frame: int, lo: int, hi: int, delta: int) -> None:
    """Have everything in the frames from ``frame`` on that leads into [lo, hi) lead ``delta`` bytes further."""
    if frame == hi + delta:
        return
    while frame != 0:
        _adjust_slots(frame, lo, hi, delta)
        caller = load64(frame + FRAME_CALLER)
        if caller != 0:
            caller += delta
            store64(frame + FRAME_CALLER, caller)
        frame = caller


@inline
def _adjust_slots(frame: int, lo: int, hi: int, delta: int) -> None:
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
    size = stack_size(g) // 2
    if size >= layout.FIXED_STACK and stack_used(g) + _NOSPLIT < stack_size(g) // 4:
        copy_stack(g, size)
