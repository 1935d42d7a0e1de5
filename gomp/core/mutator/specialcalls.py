"""How a call from Python comes to the specials, and where in the heap a place is that it names.

Who enters, and RETRY: as in :mod:`gomp.core.mutator.boundary`. The lock of the specials is tried, and a RETRY if it is taken.
"""

from __future__ import annotations

from gomp.core.gc.mark import grey
from gomp.core.gc.specials import make_room_for_special
from gomp.core.heap import mspan
from gomp.core.jit import inline
from gomp.core.mutator.boundary import fill_handle
from gomp.core.sched.locks import release, try_lock
from gomp.core.sched.status import OK, RETRY, enter, leave
from gomp.core.shm import layout
from gomp.core.shm.atomics import load_relaxed
from gomp.core.shm.records import GC_OFF, RT_XGCPHASE, RT_XSPECIALS_LOCK, self_p, spans

NOT_IN_BLOCK, NOT_AT_START, ALREADY_SET, NOT_SET = -16, -17, -18, -19


@inline
def own_p() -> int:
    """Address of this process's P."""
    return layout.p_addr(self_p().idx)


@inline
def begin() -> int:
    """Enter, with the lock: OK or RETRY."""
    if enter() != OK:
        return RETRY
    if not try_lock(RT_XSPECIALS_LOCK):
        leave()
        return RETRY
    return OK


@inline
def begin_adding() -> int:
    """As :func:`begin`, with memory for one more record. In KERNEL: a stop would not wait for a SAFE P that has pages borrowed."""
    if enter() != OK:
        return RETRY
    make_room_for_special()
    if not try_lock(RT_XSPECIALS_LOCK):
        leave()
        return RETRY
    return OK


@inline
def end() -> None:
    release(RT_XSPECIALS_LOCK)
    leave()


@inline
def is_marking() -> bool:
    return load_relaxed(RT_XGCPHASE) != GC_OFF


@inline
def slot_base(addr: int) -> int:
    """In KERNEL: a repair, with the world stopped, forgets for a while where spans are. The slot that ``addr`` is in, or 0."""
    page = mspan.find_span(addr)
    if page == mspan.NO_SPAN or mspan.obj_idx_of(page, addr) >= spans()[page].nelems:
        return 0
    return mspan.obj_addr(page, mspan.obj_idx_of(page, addr))


@inline
def shaded(addr: int) -> int:
    """An object that something else than a reference led to."""
    if is_marking():
        grey(own_p(), addr, 0)
    return addr


@inline
def hold(into: int, addr: int) -> int:
    """Root such an object."""
    return fill_handle(into, shaded(addr))
