"""Run for :mod:`tests.faults.test_coordinator_in_phases`: the coordinator dies while it scans a stack that the script waits for.

Nobody else is left who could find out.
"""

from __future__ import annotations

import gomp
from gomp.core.shm import layout
from gomp.core.shm.atomics import load_acquire, store_release
from gomp.core.shm.records import G_SCAN, G_SCANNER_SHIFT, G_WAITING, SCHED, sched_dtype, view
from tests.faults.phases import kill, pid_of, runtime, wait_until


@gomp.frame
class Receiver:
    source: gomp.Chan[int]
    got: int
    waits: bool

    def step(f) -> gomp.Action:
        if f.waits:
            return f.ret()
        f.waits = True
        return f.recv(f.source, into="got")


def are_all_waiting() -> bool:
    return [goroutine.status for goroutine in gomp.debug.goroutines()] == ["waiting"]


def hold_stacks() -> None:
    """What a marker does with the stack of who waits, before it scans it."""
    for number in range(1, int(view(sched_dtype, SCHED)[0].ngs) + 1):
        if load_acquire(layout.g_addr(number)) == G_WAITING:
            store_release(layout.g_addr(number), G_WAITING | G_SCAN | layout.COORDINATOR_P << G_SCANNER_SHIFT)


def main() -> None:
    with gomp.Runtime(procs=1, max_procs=1, max_heap="64MiB") as rt:
        source = gomp.Chan[int]()
        gomp.go(Receiver, source=source)
        wait_until(are_all_waiting, "nobody waits")
        hold_stacks()
        for pid in (int(runtime().coordinator_pid), pid_of(0)):
            kill(pid)
        source.send(1)
        rt.gc()


try:
    main()
except gomp.RuntimeLost:
    print("lost")
