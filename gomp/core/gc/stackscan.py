"""Goroutine stacks as roots: precise, frame by frame, once a cycle each (mgcmark.go, markroot and scanstack).

    G_SCAN beside a status, and which P: a marker there has the stack, and the status is nobody else's to change. Who wants to waits for it: so
    the marker does not park, and if it is killed, the bit goes with its locks.

Once black, a stack stays black, because what its goroutine loads from the heap the barrier keeps, and what it allocates is born black. So a stack is
to be scanned before its goroutine runs; and by a P that runs it, before it waits or offers its turn: the P may be white itself, and would not be
found to run it any more. Records that are made after the jobs were counted begin black: who starts a goroutine shades what it
hands over.

A stack that is scanned here is halved here too if it uses too little.
"""

from __future__ import annotations

from gomp.core.gc.leaks import begin_leaks_stw, stays_hidden
from gomp.core.gc.mark import grey, grey_conservative
from gomp.core.heap.stack import STACK_GUARD, innermost, shrink_stack
from gomp.core.jit import inline, kernel
from gomp.core.sched.locks import begin_critical, end_critical
from gomp.core.sched.runq import NO_G
from gomp.core.shm import layout
from gomp.core.shm.atomics import (
    add_relaxed,
    cas_acq_rel,
    clear_lowest,
    ctz,
    load64,
    load_acquire,
    load_relaxed,
    store_release,
)
from gomp.core.shm.records import (
    FRAME_CALLER,
    FRAME_TYPE,
    G_ELEM,
    G_RUNNABLE,
    G_SCAN,
    G_SCANNER_SHIFT,
    G_STATUS_MASK,
    G_WAITING,
    LEAKS_IGNORED,
    P_OUT,
    PACER_XSTACK_WORK,
    SCHED_XSCANNED_BYTES,
    SCHED_XSCANNED_STACKS,
    SINCE_MASK,
    STACKPOOL_XMAX_STACK,
    WAITS_IN_SELECT,
    WAITS_TO_RECEIVE,
    g_at,
    p_at,
    pacer,
    sched,
    self_p,
    stackpool,
    type_at,
)

GS_PER_JOB = 64


@kernel("int64()")
def prepare_stack_jobs_stw() -> int:
    """Every stack is white: how many root jobs they are."""
    s = sched()
    s.mark_epoch += 1
    s.job_gs = s.ngs
    store_release(SCHED_XSCANNED_BYTES, 0)
    store_release(SCHED_XSCANNED_STACKS, 0)
    begin_leaks_stw()
    return (s.ngs + GS_PER_JOB - 1) // GS_PER_JOB


@kernel("void()")
def set_start_size_stw() -> None:
    """Stacks begin as large as those just scanned were used on average, with the guard (gcComputeStartingStackSize)."""
    n = load_relaxed(SCHED_XSCANNED_STACKS)
    size = layout.FIXED_STACK
    average = load_relaxed(SCHED_XSCANNED_BYTES) // n + STACK_GUARD if n != 0 else 0
    while size < min(average, load_relaxed(STACKPOOL_XMAX_STACK)):
        size *= 2
    stackpool().start_size = layout.FIXED_STACK if stackpool().start_small else size


@kernel("int64(int64, int64)")
def run_stack_job(p: int, job: int) -> int:
    """Scan the stacks of a shard of the table that nobody runs, into the buffers of the P at ``p``: the bytes scanned."""
    first = job * GS_PER_JOB + 1
    work = 0
    for g in range(first, min(first + GS_PER_JOB, sched().job_gs + 1)):
        work += try_scan(p, layout.g_addr(g))
    return work


@kernel("int64(int64, int64)")
def try_scan(p: int, g: int) -> int:
    """Scan the goroutine at ``g`` unless somebody runs it, has it in hand, or has scanned it, or it is hidden: the bytes scanned."""
    work = 0
    begin_critical()
    me = self_p()
    me.scanning = g
    status = load_acquire(g)
    while status in (G_RUNNABLE, G_WAITING) and not is_stack_scanned(g):
        if cas_acq_rel(g, status, status | _scanned_by(me.idx)):
            if status == G_WAITING and g_at(g).since_ns == 0:
                g_at(g).since_ns = pacer().mark_start_ns & ~SINCE_MASK
            if not is_stack_scanned(g) and not (sched().leak_mode != LEAKS_IGNORED and stays_hidden(g, status)):
                work = scan_stack(p, g)
                shrink_stack(g)
            store_release(g, status)
            break
        status = load_acquire(g)  # one that was just made ready may not run before the marking ends
    me.scanning = 0
    end_critical()
    return work


@inline
def _scanned_by(p_idx: int) -> int:
    return G_SCAN | p_idx << G_SCANNER_SHIFT


@kernel("void(int64)")
def let_go_of_stack(p: int) -> None:
    """The stack that the dead P at ``p`` had in hand as a marker is nobody's again. Whatever the world does: the marking begins anew."""
    g = p_at(p).scanning
    if g != 0:
        word = load_acquire(g)
        if word & ~G_STATUS_MASK == _scanned_by(p_at(p).idx):
            cas_acq_rel(g, word, word & G_STATUS_MASK)
        p_at(p).scanning = 0


@kernel("void(int64, int64)")
def scan_running(p: int, g: int) -> None:
    """Scan the goroutine at ``g``, which the P at ``p`` runs, and those under it, and what its step is about to hand over.

    Its steps shrink its stack.
    """
    for slot in range(p + P_OUT, p + P_OUT + p_at(p).out_bytes, 8):
        grey_conservative(p, load64(slot))
    while g != 0:
        if not is_stack_scanned(g):
            scan_stack(p, g)
            g_at(g).wants_shrink = 1
        g = g_at(g).under


@inline
def is_stack_scanned(g: int) -> bool:
    return g_at(g).scanned_epoch == sched().mark_epoch


@kernel("int64(int64, int64)")
def scan_stack(p: int, g: int) -> int:
    """Grey what the frames of the goroutine at ``g`` refer to, into the buffers of the P at ``p``. Nobody else touches the stack meanwhile."""
    gp = g_at(g)
    frame = innermost(g)
    while frame != 0:
        _scan_frame(p, frame)
        frame = load64(frame + FRAME_CALLER)
    if gp.wait >= WAITS_TO_RECEIVE:
        _scan_wait(p, g)
    case = gp.cases if gp.wait == WAITS_IN_SELECT else NO_G
    while case != NO_G:
        _scan_wait(p, layout.g_addr(case))
        case = g_at(layout.g_addr(case)).link
    gp.scanned_epoch = sched().mark_epoch
    gp.scans += 1
    work = gp.depth
    add_relaxed(PACER_XSTACK_WORK, work)
    add_relaxed(SCHED_XSCANNED_BYTES, work)
    add_relaxed(SCHED_XSCANNED_STACKS, 1)
    return work


@inline
def _scan_wait(p: int, g: int) -> None:
    """What the goroutine, or the case, at ``g`` waits at, and what it sends there or was given."""
    gp = g_at(g)
    if gp.chan != 0:
        grey(p, gp.chan, g)
    if gp.elem_is_link and gp.elem != 0:
        grey(p, gp.elem, g + G_ELEM)


@inline
def _scan_frame(p: int, frame: int) -> None:
    t = type_at(load64(frame + FRAME_TYPE))
    for i in range((t.ptr_bytes + 511) >> 9):
        mask = load64(t.mask + 8 * i)
        while mask != 0:
            slot = frame + 512 * i + 8 * ctz(mask)
            word = load_relaxed(slot)
            if word != 0:
                grey(p, word, slot)
            mask = clear_lowest(mask)
