"""What goroutines do, copied out of the table while everything goes on: for whoever has the segments mapped, whatever the world does.

Nobody is stopped and nothing is written. A goroutine that waits or is ready has the same frames until somebody gives it a P, and ``runs`` counts how
often that happened; so a copy is whole if the words that say which goroutine it is, what it does, and where its stack is, are the same before and
after. Each is shown as it was at one moment of its own. Of one that runs, the frames are those that it had while they were looked at, each one
checked: the line of its innermost frame is that of the last action.
"""

from __future__ import annotations

from gomp.core.heap.stack import stack_lo, stack_size
from gomp.core.jit import inline, kernel
from gomp.core.mutator.sites import LINE_SHIFT, NO_SITE
from gomp.core.sched.runq import NO_G
from gomp.core.shm import layout
from gomp.core.shm.atomics import load64, load_acquire, store64
from gomp.core.shm.records import (
    FRAME_CALLER,
    FRAME_INTO,
    FRAME_TYPE,
    G_CASE,
    G_DEAD,
    G_DEPTH,
    G_ID,
    G_IDLE,
    G_RUNNING,
    G_RUNS,
    G_STATUS_MASK,
    G_XSTACK,
    TYPE_BYTES,
    WAITS_IN_SELECT,
    g_at,
    sched,
    type_at,
)

MOST_FRAMES = 100  # of a goroutine, the innermost ones: as many as Go's tracebacks show
_TRIES = 4
_PRIME = 1099511628211  # FNV-1a's

# A copy: words, then two for each frame, the key of its type and its line.
(
    DUMP_ID, DUMP_STATUS, DUMP_WAIT, DUMP_HAS_CHAN, DUMP_SITE, DUMP_PARENT, DUMP_SINCE, DUMP_LEAKED, DUMP_STACK, DUMP_DEPTH, DUMP_P, DUMP_HOME,
    DUMP_LABELS, DUMP_PLACE, DUMP_HASH, DUMP_NFRAMES,
) = range(0, 128, 8)  # fmt: skip
DUMP_FRAMES = 128
DUMP_BYTES = DUMP_FRAMES + 16 * MOST_FRAMES


@kernel("int64(int64, int64, int64)")
def dump_goroutines(first: int, most: int, out: int) -> int:
    """Copy up to ``most`` goroutines, from record ``first`` on, to ``out``, behind a word for how many there are: the record to go on with, 0 at the
    end."""
    n, g = 0, first
    while g <= sched().ngs and n < most:
        n += _dump(layout.g_addr(g), out + 8 + n * DUMP_BYTES)
        g += 1
    store64(out, n)
    return g if g <= sched().ngs else 0


@inline
def _dump(g: int, out: int) -> int:
    """1 if there is a goroutine."""
    for _ in range(_TRIES):
        status = load_acquire(g) & G_STATUS_MASK
        if status in (G_DEAD, G_IDLE, G_CASE):
            return 0
        goid, runs, stack, depth = (
            load_acquire(g + G_ID),
            load_acquire(g + G_RUNS),
            load_acquire(g + G_XSTACK),
            load_acquire(g + G_DEPTH),
        )
        _copy_words(g, status, out)
        _copy_frames(g, depth, out)
        is_same = (
            load_acquire(g) & G_STATUS_MASK == status
            and load_acquire(g + G_ID) == goid
            and load_acquire(g + G_RUNS) == runs
            and load_acquire(g + G_XSTACK) == stack
        )
        if is_same and (status != G_RUNNING or load_acquire(g + G_DEPTH) == depth):
            return 1
    store64(out + DUMP_NFRAMES, 0)  # it moves too fast: where it is, nobody can say
    store64(out + DUMP_HASH, 0)
    return 1


@inline
def _copy_words(g: int, status: int, out: int) -> None:
    gp = g_at(g)
    store64(out + DUMP_ID, gp.id)
    store64(out + DUMP_STATUS, status)
    store64(out + DUMP_WAIT, gp.wait)
    store64(out + DUMP_HAS_CHAN, 1 if gp.chan != 0 or (gp.wait == WAITS_IN_SELECT and gp.cases != NO_G) else 0)
    store64(out + DUMP_SITE, gp.site)
    store64(out + DUMP_PARENT, gp.parent)
    store64(out + DUMP_SINCE, gp.since_ns)
    store64(out + DUMP_LEAKED, gp.leaked)
    store64(out + DUMP_STACK, stack_size(g))
    store64(out + DUMP_DEPTH, gp.depth)
    store64(out + DUMP_P, gp.p)
    store64(out + DUMP_HOME, gp.home)
    store64(out + DUMP_LABELS, gp.labels)
    store64(out + DUMP_PLACE, gp.into if gp.entry == 0 else NO_SITE)


@inline
def _copy_frames(g: int, depth: int, out: int) -> None:
    lo, hi = stack_lo(g), stack_lo(g) + stack_size(g)
    frame = hi - depth if depth != 0 else 0
    n, digest = 0, 0
    while n < MOST_FRAMES and lo <= frame <= hi - FRAME_INTO - 8 and frame & 7 == 0:
        type_addr = load_acquire(frame + FRAME_TYPE)
        if not _is_type(type_addr):
            break
        key, line = type_at(type_addr).key, load_acquire(frame + FRAME_INTO) >> LINE_SHIFT
        store64(out + DUMP_FRAMES + 16 * n, key)
        store64(out + DUMP_FRAMES + 16 * n + 8, line)
        digest = ((digest ^ key) * _PRIME ^ line) * _PRIME
        n += 1
        caller = load64(frame + FRAME_CALLER)
        if caller <= frame:
            break
        frame = caller
    store64(out + DUMP_NFRAMES, n)
    store64(out + DUMP_HASH, digest)


@inline
def _is_type(addr: int) -> bool:
    at = addr - layout.TYPES_BASE
    return 0 <= at < layout.MAX_TYPES * TYPE_BYTES and at % TYPE_BYTES == 0 and load_acquire(addr) != 0
