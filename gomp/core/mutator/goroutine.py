"""Running a goroutine: its frames' steps, one after another, and what they say to do next.

A *step* is compiled from the body of a frame. It runs with the frame's address until it has to wait for anything, another frame's result
first of all, and returns an *action*: the address of a frame type to call it, or one of the small numbers below. The slots of the frame that is to be
called, or the result, it has left in the P's P_OUT. So no step runs while frames come, go and move; and no native frame leads into a stack that
moves.

An action is made before it is returned, and the step may poll in between: so P_OUT is a root until then. Its lowest bits count: the action that is
returned has to be the one that was made last, whose slots are in P_OUT.
"""

from __future__ import annotations

from gomp.core.gc.stackscan import is_stack_scanned, scan_stack
from gomp.core.heap.gs import NO_G, drop_g, take_g
from gomp.core.heap.mheap import NO_MEMORY
from gomp.core.heap.stack import (
    adjust_slots,
    copy_stack,
    innermost,
    make_room,
    pop_frame,
    push_frame,
    shrink_stack,
    stack_hi,
    stack_lo,
    stack_size,
)
from gomp.core.jit import inline, kernel
from gomp.core.shm import layout
from gomp.core.shm.atomics import copy_range, load64, load_relaxed, store64, store_release
from gomp.core.shm.calls import call_at
from gomp.core.shm.records import (
    FRAME_HEADER,
    FRAME_INTO,
    FRAME_TYPE,
    G_RUNNING,
    GC_MARK,
    P_OUT,
    RT_XGCPHASE,
    TYPE_BYTES,
    g_at,
    self_p,
    stackpool,
)

COUNT_BITS = 63  # of an action: the addresses of types are multiples of 64
ACTION_RETURN, ACTION_RAISED = 64, 128
# How it ended; STACK_OVERFLOW and NO_MEMORY too.
ENDED, RAISED, NO_STEP, OTHER_ACTION = 0, -1, -2, -3
_OUT = layout.SELF_BASE + P_OUT
INTO_BITS = 32


@kernel("int64(int64)")
def new_g(type_addr: int) -> int:
    """Address of a new goroutine, which is to run here next, with a frame of that type whose slots are in P_OUT; or NO_MEMORY.

    It is black: while the heap is marked, what it was given is grey from now on.
    """
    number = take_g()
    if number == NO_G:
        return NO_MEMORY
    g, me = layout.g_addr(number), self_p()
    frame = push_frame(g, type_addr)
    if frame < 0:
        drop_g(number)
        return frame
    copy_range(frame + FRAME_HEADER, _OUT, me.out_bytes)
    me.out_bytes = 0
    store64(frame + FRAME_INTO, 0)
    gp = g_at(g)
    gp.p = me.idx
    gp.link = me.curg
    store_release(g, G_RUNNING)
    me.curg = g
    blacken(g)
    return g


@kernel("void(int64)")
def end_g(g: int) -> None:
    """The goroutine at ``g``, which ran here last, is over, whatever is left on its stack."""
    me = self_p()
    me.curg = g_at(g).link
    me.out_bytes = 0
    me.out_for &= COUNT_BITS  # no action: one that the goroutine under this one has made is not the last any more
    drop_g(layout.g_number(g))


@inline
def blacken(g: int) -> None:
    """A stack is scanned before its goroutine runs on a P that is black."""
    if load_relaxed(RT_XGCPHASE) == GC_MARK and not is_stack_scanned(g):
        scan_stack(layout.p_addr(self_p().idx), g)


@kernel("int64(int64)")
def execute(g: int) -> int:
    """Run the goroutine at ``g`` to its end, or to what cannot be gone on from: ENDED, and its result is in P_OUT; or why not."""
    frame = innermost(g)
    while frame != 0:
        if g_at(g).wants_shrink or stackpool().always_copy:
            frame = _move(g)
        step = _step_of(load64(frame + FRAME_TYPE))
        if step == 0:
            return NO_STEP
        action = call_at(step, frame)
        if action == ACTION_RAISED:
            return RAISED
        if action != self_p().out_for:
            return OTHER_ACTION
        if action & ~COUNT_BITS == ACTION_RETURN:
            frame = _return(g, frame)
        else:
            frame = _call(g, action & ~COUNT_BITS)
            if frame < 0:
                return frame
    return ENDED


@inline
def _move(g: int) -> int:
    """The innermost frame, where it is now."""
    if stackpool().always_copy:
        copy_stack(g, stack_size(g))
    else:
        shrink_stack(g)
    return innermost(g)


@inline
def _step_of(type_addr: int) -> int:
    """Address of the machine code of a frame type's step in this process, 0 if it has none."""
    return load64(self_p().steps + (type_addr - layout.TYPES_BASE) // TYPE_BYTES * 8)


@inline
def _call(g: int, type_addr: int) -> int:
    """The new frame, STACK_OVERFLOW or NO_MEMORY."""
    lo, hi = stack_lo(g), stack_hi(g)
    if self_p().out_room != 0:
        short = make_room(g, self_p().out_room)
        if short < 0:
            return short
    frame = push_frame(g, type_addr)
    if frame >= 0:
        copy_range(frame + FRAME_HEADER, _OUT, self_p().out_bytes)
        self_p().out_bytes = 0
        store64(frame + FRAME_INTO, self_p().out_into)
        if stack_lo(g) != lo:  # what its caller has left in P_OUT leads into the old one
            adjust_slots(frame, lo, hi, stack_hi(g) - hi)
    return frame


@inline
def _return(g: int, frame: int) -> int:
    """The caller's frame, which has the result where it wants it; 0 if there is none, and the result is still in P_OUT."""
    self_p().out_bytes = 0
    into = load64(frame + FRAME_INTO)
    caller = pop_frame(g)
    if caller != 0 and into != 0:
        copy_range(caller + (into & ((1 << INTO_BITS) - 1)), _OUT, into >> INTO_BITS)
    return caller
