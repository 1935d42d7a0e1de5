"""Several processes on one heap: they allocate, trade references and mark at once, while this one is the coordinator."""

from __future__ import annotations

import ctypes
import os
import random
import signal
import time
import traceback

import pytest
from heap_world import World, heap_world
from kernel_heap import collect_now
from spoil import spoil

from gomp.core import COMPILED, kernel
from gomp.core.gc import repair
from gomp.core.gc.rebuild import rebuild_derived_stw
from gomp.core.mutator import boundary
from gomp.core.mutator.poll import poll, sleep_for_credit, sleep_until, take_request
from gomp.core.sched.status import OK, RETRY, enter_waiting, leave, start_world, stop_world, wait_to_enter
from gomp.core.shm import layout, segments
from gomp.core.shm.atomics import cpu_pause, load_acquire, store64
from gomp.core.shm.libc import stack_pointer
from gomp.core.shm.records import GC_TRIGGER_FORCED, RT_XCYCLE_DONE, RT_XCYCLES, RT_XSHUTDOWN, self_p

NPROCS = 2
NGLOBALS = 8
COOKIE_BYTES = 96


@kernel("int64()")
def poll_until_shutdown():
    """A program that does nothing but look whether it should mark."""
    if enter_waiting() != OK:
        return 0
    self_p().native_base = stack_pointer()
    while load_acquire(RT_XSHUTDOWN) == 0:
        poll()
        cpu_pause()
    leave()
    return 0


class Child(World):
    """A P in its own process: it waits where the world in one process collects."""

    def __init__(self, parent: World, p: int) -> None:
        segments.map_segments(parent.segments)
        segments.map_self(parent.segments, p)
        self.segments, self.nprocs, self._self = parent.segments, parent.nprocs, p
        self.runtime = parent.runtime
        self._types, self.references = parent._types, parent.references
        self._free = [[] for _ in range(parent.nprocs)]

    def collect(self, kind=GC_TRIGGER_FORCED):
        raise AssertionError("only the coordinator collects")

    def call(self, kernel, *args):
        """Until the P may enter."""
        while (status := kernel(*args)) == RETRY:
            wait_to_enter(1_000_000)
        return status

    def _free_slot(self, p):
        if not self._free[p]:
            first = self.call(boundary.grow_handles, 64)
            self._free[p] = list(range(first, first + 64))
        return self._free[p].pop()

    def _new(self, p, kernel, n, key):
        slot = self._free_slot(p)
        again = 0
        while True:
            status = self.call(kernel, slot, n, key, again)
            if status == boundary.OUT_OF_MEMORY:
                self._free[p].append(slot)
                return None
            if status == boundary.WAIT_CREDIT:
                return p, slot
            if status != OK:
                again = 1
                done = abs(status) - boundary.WAIT_BASE
                while sleep_until(RT_XCYCLES if status > 0 else RT_XCYCLE_DONE, done, 10_000_000) <= done:
                    pass
            if status >= 0:
                return p, slot


def forked(parent, p, body, *args):
    """Run ``body(child, ...)`` as P ``p`` in a process of its own; its pid."""
    pid = os.fork()
    if pid:
        return pid
    try:
        body(Child(parent, p), p, *args)
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    os._exit(0)


def trade(child, p, seed, seconds):
    """Allocate, fill, link and check; put objects into globals and take those of others, whose words must all be alike."""
    rng = random.Random(seed)
    pair = child.struct_type(16, (0, 1))
    kept = []
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        size = rng.choice([24, 96, 500, 3000, 20_000, 60_000])
        root = child.new(p, size)
        if root is not None:
            pattern = bytes([rng.randrange(1, 256)]) * size
            addr = child.address(root)
            assert ctypes.string_at(addr, size) == bytes(size)
            ctypes.memmove(addr, pattern, size)
            kept.append((root, addr, pattern))
        if len(kept) > 50:
            child.drop(kept.pop(rng.randrange(len(kept)))[0])
        chain(child, p, pair, rng.randrange(20))
        put_and_take(child, p, rng)
        for _, addr, pattern in kept[::7]:
            assert ctypes.string_at(addr, len(pattern)) == pattern


def chain(child, p, pair, n):
    """A list of pairs, all but its head held by references only; walked once it is made."""
    head = child.new(p, 16, pair)
    for _ in range(n if head else 0):
        one = child.new(p, 16, pair)
        if one is None:
            break
        assert child.call(boundary.write_reference, one[1], 0, head[1]) == OK
        child.drop(head)
        head = one
    if head:
        child.drop(head)


def put_and_take(child, p, rng):
    mine = child.new(p, COOKIE_BYTES)
    if mine:
        ctypes.memmove(child.address(mine), bytes([rng.randrange(256)]) * COOKIE_BYTES, COOKIE_BYTES)
        assert child.call(boundary.write_global, rng.randrange(NGLOBALS), mine[1], 5) == OK
        child.drop(mine)
    slot = child._free_slot(p)
    if child.call(boundary.read_global, rng.randrange(NGLOBALS), slot) == OK:
        cookie = ctypes.string_at(child.address((p, slot)), COOKIE_BYTES)
        assert cookie == cookie[:1] * COOKIE_BYTES
    child.drop((p, slot))


def verify_stopped(world):
    assert stop_world(time.monotonic_ns() + 10**10) == OK
    try:
        return world.verify(3)
    finally:
        start_world()


def rebuild_stopped(world, rng):
    """While the other processes have live caches and half-used windows, throw away all that is derived."""
    assert stop_world(time.monotonic_ns() + 10**10) == OK
    try:
        reached = world.verify(3).reached
        spoil(world, rng)
        rebuild_derived_stw()
        assert world.verify(3).reached <= reached  # a P at a safepoint may clear handles
    finally:
        start_world()


def run_coordinator(world, pids):
    """Collect when asked, and now and then; look at the whole heap in between, or rebuild it. Returns how many cycles there were."""
    rng = random.Random(len(pids))
    cycles, turns = 0, 0
    while pids:
        kind = take_request()
        turns += 1
        if kind or turns % 50 == 0:
            collect_now(kind or GC_TRIGGER_FORCED)
            cycles += 1
        if turns % 40 == 0:
            verify_stopped(world)
        elif turns % 40 == 20:
            rebuild_stopped(world, rng)
        assert world.runtime.xthrow == 0
        for pid in list(pids):
            done, status = os.waitpid(pid, os.WNOHANG)
            if done:
                pids.remove(pid)
                assert status == 0, f"child {pid} ended with status {status}"
        time.sleep(0.0005)
    return cycles


def end(world, pids):
    """Leave no process behind, whatever happened."""
    world.runtime.xshutdown = 1
    for pid in pids:
        os.kill(pid, 9)
        os.waitpid(pid, 0)


if COMPILED:  # in plain Python the atomics are atomic in one process only

    @pytest.mark.parametrize(
        ("chunks", "seconds"),
        [(3, 1.5), (30, 1.5), *(pytest.param(c, s, marks=pytest.mark.slow) for c, s in [(3, 30), (30, 300)])],
    )
    def test_processes_trade_references_while_the_heap_is_collected(chunks, seconds):
        with heap_world(NPROCS, chunks * layout.CHUNK_PAGES, gc_percent=30) as world:
            world.struct_type(16, (0, 1))
            world.runtime.clobberfree = 1
            for i in range(NGLOBALS):
                assert boundary.add_global(i + 1, 0, 0, 0, 0, 0) == i
            world.be(layout.COORDINATOR_P)
            pids = [forked(world, p, trade, 100 * chunks + p, seconds) for p in range(NPROCS)]
            try:
                assert run_coordinator(world, pids) > 10
                collect_now()
                verify_stopped(world)
            finally:
                end(world, pids)

    def test_a_p_that_is_killed_while_it_waits_for_credit_is_not_counted_any_longer():
        with heap_world(NPROCS, layout.ARENA_PAGES) as world:
            world.begin_marking()
            world.mark(1 << 30)
            world.pacer.xbg_scan_credit = 0
            world.be(layout.COORDINATOR_P)
            pid = forked(world, 1, lambda child, p: sleep_for_credit(60 * 10**9))
            pids = [pid]
            try:
                deadline = time.monotonic() + 10
                while not world.ps[1].xawaits_credit:
                    assert time.monotonic() < deadline
                    time.sleep(0.001)
                assert world.pacer.xassist_waiters == 1
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pids.pop(), 0)
                repair.bury(layout.p_addr(1))
                assert repair.repair(time.monotonic_ns() + 10**10) == OK
                assert (world.pacer.xassist_waiters, world.ps[1].xawaits_credit) == (0, 0)
            finally:
                end(world, pids)

    def test_a_program_that_polls_marks_its_share():
        """The same graph is marked again and again by two processes; each time all of it, by some division."""
        with heap_world(NPROCS, layout.ARENA_PAGES) as world:
            n = 50_000
            table = world.new_array(0, n, world.references)
            pair = world.struct_type(16, (0, 1))
            last = world.new(0, 16, pair)
            for i in range(n):
                child = world.new(0, 16, pair)
                store64(world.address(child), world.address(last))
                store64(world.address(table) + 8 + 8 * i, world.address(child))
                if i % 100 == 0:
                    world.drop(last)
                    last = child
                else:
                    world.drop(child)
            world.drop(last)
            world.collect()
            expected = world.verify().objects
            world.be(layout.COORDINATOR_P)
            pids = [forked(world, 1, lambda child, p: poll_until_shutdown())]
            try:
                cycles = 0
                while cycles < 60 or (world.ps[1].objects_marked == 0 and cycles < 2000):  # on a busy machine it sleeps
                    collect_now()
                    report = world.verify()
                    assert report.objects == report.reached == expected
                    cycles += 1
                assert world.ps[1].objects_marked > 0
            finally:
                world.runtime.xshutdown = 1
                assert os.waitpid(pids.pop(), 0)[1] == 0
                end(world, pids)
