"""Children are killed at the sites of one kernel, one after another; says what each has left in the words that it writes. For test_killsites."""

from __future__ import annotations

import ctypes
import mmap
import os

from gomp.core import kernel, killsites, load_kernels
from gomp.core.shm.atomics import add_acq_rel, store64, store_release


@kernel("int64(int64)")
def write_three(at: int) -> int:
    """A store, an atomic store and an atomic addition."""
    store64(at, 1)
    store_release(at + 8, 2)
    return add_acq_rel(at + 16, 3)


def main() -> None:
    load_kernels()
    shared = mmap.mmap(-1, mmap.PAGESIZE)
    words = (ctypes.c_int64 * 3).from_buffer(shared)
    table = killsites.Table(str(killsites.DIRECTORY))
    while True:
        words[:] = [0, 0, 0]
        pid = os.fork()
        if pid == 0:
            table.arm(os.getpid(), killsites.OF_A_P)
            write_three(ctypes.addressof(words))
            os._exit(0)
        _, status = os.waitpid(pid, 0)
        print(os.waitstatus_to_exitcode(status), *words)
        if status == 0:
            break
    print(len(table.visited(killsites.OF_A_P)), len(table.visited(killsites.OF_A_GUEST)), table.last.value)


if __name__ == "__main__":
    main()
