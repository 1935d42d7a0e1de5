"""What kernels have told the coordinator: that the heap is lost, or that somebody keeps a lock (see :mod:`gomp.core.sched.throw`)."""

from __future__ import annotations

from gomp.core.sched.throw import LOCK_BITS, MESSAGES, THROW_CODES
from gomp.core.shm import layout
from gomp.core.shm.records import RUNTIME, p_dtype, runtime_dtype, view


def thrown() -> str:
    """What a kernel has found that cannot be, in words; "" if none has."""
    thrower, code = divmod(int(view(runtime_dtype, RUNTIME)[0].xthrow), THROW_CODES)
    if code == 0:
        return ""
    record = view(p_dtype, layout.p_addr(thrower))[0]
    return MESSAGES[code].format(a=int(record.throw_a), b=int(record.throw_b))


def take_lost_lock() -> tuple[int, int] | None:
    """The address of a lock for which somebody has waited too long, and the P that had it then. Told once."""
    rt = view(runtime_dtype, RUNTIME)[0]
    owner, lock = divmod(int(rt.xlost_lock), 1 << LOCK_BITS)
    if lock == 0:
        return None
    rt.xlost_lock = 0
    return lock, owner
