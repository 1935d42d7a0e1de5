"""Before all else, too: what each P says of memory of its own is within that memory. The other checks, and the next cycle, go where it leads."""

from __future__ import annotations

from gomp.core.gc.verify.problems import CACHE_ENTRY, P_HANDLES, P_NATIVE_ROOTS, P_SPANQ, P_WBUF, REDO_LEFT, problem
from gomp.core.gc.verify.slots import p_number
from gomp.core.heap import mspan
from gomp.core.heap.mcache import entry_addr
from gomp.core.jit import inline, kernel
from gomp.core.shm import layout
from gomp.core.shm.atomics import load_acquire
from gomp.core.shm.records import P_XNATIVE_N, P_XREDO_N, mcache_at, mheap, p_at, p_records, runtime


@kernel("int64(int64)")
def check_ps(out: int) -> int:
    """Whether all of it can be. World: stopped."""
    ok = True
    for i in range(p_records()):
        ok &= _check_p(out, p_number(i))
    return 1 if ok else 0


@inline
def _check_p(out: int, number: int) -> bool:
    p = layout.p_addr(number)
    pp = p_at(p)
    ok = _fits(out, P_HANDLES, number, pp.handles, min(pp.handles_committed >> 3, layout.HANDLES_PER_P))
    ok &= _fits(out, P_NATIVE_ROOTS, number, load_acquire(p + P_XNATIVE_N), layout.NATIVE_ROOTS_BYTES >> 3)
    ok &= _fits(out, P_SPANQ, number, pp.spanq_tail - pp.spanq_head, min(pp.spanq_capacity, layout.MAX_SPANQ))
    ok &= _is_buffer(out, number, pp.wbuf1)
    ok &= _is_buffer(out, number, pp.wbuf2)
    ok &= _fits(out, REDO_LEFT, number, load_acquire(p + P_XREDO_N), 0)
    for span_class in range(layout.NUM_SPAN_CLASSES):
        page = mcache_at(entry_addr(p, span_class)).page
        if page != mspan.NO_SPAN and not 0 <= page < mheap().end_page:
            problem(out, CACHE_ENTRY, number, span_class, page)
            ok = False
    return ok


@inline
def _fits(out: int, code: int, number: int, n: int, room: int) -> bool:
    if 0 <= n <= room:
        return True
    problem(out, code, number, n, room)
    return False


@inline
def _is_buffer(out: int, number: int, addr: int) -> bool:
    """Also if the P has none."""
    at = addr - layout.WBUFS_BASE
    if addr == 0 or (at % layout.WBUF_SIZE == 0 and 0 <= at < runtime().wbuf_made * layout.WBUF_SIZE):
        return True
    problem(out, P_WBUF, number, addr, runtime().wbuf_made)
    return False
