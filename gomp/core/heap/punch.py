"""Taking pages out of the heap's segment."""

from __future__ import annotations

from gomp.core.jit import kernel
from gomp.core.sched.throw import THROW_PUNCH, throw
from gomp.core.shm import layout
from gomp.core.shm.libc import EINTR, punch_hole
from gomp.core.shm.records import self_p


@kernel("void(int64, int64)")
def punch(page: int, npages: int) -> None:
    """From here on they are not in memory, and read as zero: whoever gets them relies on it."""
    while True:
        code = punch_hole(self_p().heap_fd, page << layout.PAGE_SHIFT, npages << layout.PAGE_SHIFT)
        if code != -EINTR:
            break
    if code != 0:
        throw(THROW_PUNCH, page, -code)
