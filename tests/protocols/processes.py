"""A world with this process as its coordinator, and forked processes that are its Ps. None outlives the test."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from kernel_heap import kernel_heap

from gomp.core.shm import layout, records, segments
from gomp.core.shm.libc import libc

# Words of the tests' own, in a region that nothing else uses here.
SCRATCH = layout.TYPE_MASKS_BASE
LINE = 64
_PR_SET_PDEATHSIG = 1


class World:
    """The segments, the records, and the children."""

    def __init__(self, made: segments.Segments, nprocs: int) -> None:
        self.segments = made
        self.nprocs = nprocs
        self.runtime = records.view(records.runtime_dtype, records.RUNTIME)[0]
        self.ps = [records.view(records.p_dtype, layout.p_addr(p))[0] for p in range(nprocs)]
        self.pids: list[int] = []
        self.cpus = sorted(os.sched_getaffinity(0))

    def word(self, addr: int) -> int:
        return ctypes.c_int64.from_address(addr).value

    def fork(self, p: int, body: Callable[[], Any]) -> int:
        """A process that is P ``p``, runs ``body`` and ends. Ps 0 and 1, and P 0 and the coordinator, have cores of their own if there are two:
        on one core they would interleave at the scheduler's pace only."""
        parent = os.getpid()
        pid = os.fork()
        if pid:
            self.pids.append(pid)
            return pid
        status = 1
        try:
            libc.prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
            if os.getppid() == parent:
                segments.map_segments(self.segments)
                segments.map_self(self.segments, p)
                self.ps[p].xpid = os.getpid()
                os.sched_setaffinity(0, {self.cpus[p % len(self.cpus)]})
                body()
                status = 0
        except BaseException:
            traceback.print_exc(file=sys.stderr)
        finally:
            os._exit(status)

    def kill(self, pid: int) -> None:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        self.pids.remove(pid)

    def join(self, seconds: float = 30.0) -> None:
        """Wait until every child has ended, and well."""
        deadline = time.monotonic() + seconds
        while self.pids:
            pid, status = os.waitpid(self.pids[0], os.WNOHANG)
            if pid:
                self.pids.remove(pid)
                assert status == 0, f"a P ended with {os.waitstatus_to_exitcode(status)}"
            else:
                assert time.monotonic() < deadline, "a P does not end"
                time.sleep(0.001)

    def close(self) -> None:
        for pid in list(self.pids):
            self.kill(pid)


@contextmanager
def new_world(nprocs: int) -> Iterator[World]:
    with kernel_heap(nprocs=nprocs) as made:
        segments.map_self(made, layout.COORDINATOR_P)
        world = World(made, nprocs)
        world.runtime.coordinator_pid = os.getpid()
        os.sched_setaffinity(0, {world.cpus[-1]})
        try:
            yield world
        finally:
            os.sched_setaffinity(0, world.cpus)
            world.close()


def wait_until(condition: Callable[[], bool], what: str, seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"waited {seconds:.0f} s in vain until {what}"
        time.sleep(0.0005)


def now_ns(after_ns: int = 0) -> int:
    return time.monotonic_ns() + after_ns


def sleeps(pid: int) -> bool:
    """Whether a process is asleep in a system call."""
    with open(f"/proc/{pid}/stat") as stat:
        return stat.read().rpartition(")")[2].split()[0] == "S"
