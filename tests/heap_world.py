"""A heap with one to three Ps in this one process, which is each of them in turn and the coordinator for collections.

Everything goes through the kernels that Python calls (:mod:`gomp.core.mutator.boundary`), with their waiting rules: who is told to wait for
a collection gets one at once.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from kernel_heap import collect_now, kernel_heap

from gomp.core.gc import cycle, pacer, ragged, worker
from gomp.core.mutator import boundary
from gomp.core.mutator.types import publish_type, reserve_mask, set_mask_word
from gomp.core.sched.status import OK
from gomp.core.shm import layout, records, segments
from gomp.core.shm.atomics import load64, store64
from gomp.core.shm.records import GC_MARK, GC_TRIGGER_FORCED, GC_TRIGGER_HEAP
from gomp.runtime.verify import Report, check_marks, verify

_HANDLES = 256  # asked for at a time


class World:
    """Ps 0..nprocs-1. A *root* is (P, slot): an object is kept by the handle there."""

    def __init__(self, made: segments.Segments, nprocs: int) -> None:
        self.segments = made
        self.nprocs = nprocs
        self.runtime = records.view(records.runtime_dtype, records.RUNTIME)[0]
        self.mheap = records.view(records.mheap_dtype, records.MHEAP)[0]
        self.pacer = records.view(records.pacer_dtype, records.PACER)[0]
        self.ps = [records.view(records.p_dtype, layout.p_addr(p))[0] for p in range(nprocs)]
        self._free: list[list[int]] = [[] for _ in range(nprocs)]
        self._types: dict[tuple[int, tuple[int, ...]], int] = {}
        self._self = 0
        self.references = self.array_type()

    # --- who we are -----------------------------------------------------------------------------------------------------

    def be(self, p: int) -> None:
        """Become P ``p``."""
        if p != self._self:
            segments.map_self(self.segments, p)
            self._self = p

    @contextmanager
    def as_coordinator(self) -> Iterator[None]:
        before = self._self
        self.be(layout.COORDINATOR_P)
        yield
        self.be(before)
        assert self.runtime.xthrow == 0, self.runtime

    def collect(self, kind: int = GC_TRIGGER_FORCED) -> None:
        """A whole cycle by the coordinator, after the one that is on."""
        self.finish_marking()
        with self.as_coordinator():
            self.runtime.xgc_request = 0
            collect_now(kind)

    # --- a cycle in steps -----------------------------------------------------------------------------------------------

    @property
    def is_marking(self) -> bool:
        return bool(self.runtime.xgcphase == GC_MARK)

    def begin_marking(self) -> None:
        if not self.is_marking:
            with self.as_coordinator():
                assert cycle.begin_cycle(GC_TRIGGER_HEAP, _deadline()) == OK

    def scan_p(self, p: int) -> None:
        """Handles and native stack of P ``p``, which are black from then on."""
        if self.is_marking:
            with self.as_coordinator():
                ragged.publish_grey(layout.p_addr(p))

    def mark(self, budget: int) -> None:
        """Scan so many bytes, if there are any."""
        if self.is_marking:
            with self.as_coordinator():
                worker.drain(budget)

    def finish_marking(self) -> tuple[str, ...]:
        """To the end of a cycle that is on. What the check of the marks has found: nothing, unless a test has broken something."""
        if not self.is_marking:
            return ()
        with self.as_coordinator():
            code = cycle.NOT_DONE
            while code == cycle.NOT_DONE:
                while worker.mark_step(1) != worker.DRY:
                    pass
                code = cycle.may_be_done(_deadline())
                if code == OK:
                    code = cycle.stop_marking(_deadline())
            assert code == OK
            problems = check_marks()
            cycle.finish_cycle(time.time_ns())
            cycle.announce_end()
        return problems

    # --- types ----------------------------------------------------------------------------------------------------------

    def struct_type(self, size: int, reference_words: tuple[int, ...]) -> int:
        """Key of a struct of ``size`` bytes whose words with these numbers are references."""
        return self._type(size, reference_words, 8 * (max(reference_words) + 1), 0)

    def array_type(self) -> int:
        """Key of the arrays of references."""
        return self._type(0, (0,), 8, 8)

    def _type(self, size: int, words: tuple[int, ...], ptr_bytes: int, elem_size: int) -> int:
        key = self._types.get((size, words))
        if key is None:
            key = self._types[size, words] = 1000 + len(self._types)
            mask = reserve_mask(ptr_bytes // 512 + 1)
            for i in range(ptr_bytes // 512 + 1):
                bits = sum(1 << w % 64 for w in words if w // 64 == i)
                set_mask_word(mask, i, bits - (1 << 64) if bits >> 63 else bits)
            assert publish_type(key, size, ptr_bytes, elem_size, mask) > 0
        return key

    # --- objects --------------------------------------------------------------------------------------------------------

    def _free_slot(self, p: int) -> int:
        if not self._free[p] or self.ps[p].handles == 0:  # a repair has taken those that it had
            first = boundary.grow_handles(_HANDLES)
            assert first >= 0, first
            self._free[p] = list(range(first + _HANDLES - 1, first - 1, -1))
        return self._free[p].pop()

    def new(self, p: int, size: int, key: int = 0) -> tuple[int, int] | None:
        """An object of ``size`` bytes, of the struct type ``key`` or without references; None if there is no memory."""
        return self._new(p, boundary.new_object, size, key)

    def new_array(self, p: int, n: int, key: int) -> tuple[int, int] | None:
        """An array of ``n`` references, or of ``n`` numbers if ``key`` is 0."""
        return self._new(p, boundary.new_array, n, 8 + 8 * n, key)

    def _new(self, p, kernel, *args):
        self.be(p)
        slot = self._free_slot(p)
        again = 0
        while True:
            status = kernel(slot, *args, again)
            if status == OK:
                return p, slot
            if status == boundary.OUT_OF_MEMORY:
                self._free[p].append(slot)
                return None
            if status == boundary.WAIT_CREDIT:
                return p, slot
            assert abs(status) >= boundary.WAIT_BASE, status
            self.collect(int(self.runtime.xgc_request))
            if status > 0:
                return p, slot
            again = 1

    def address(self, root: tuple[int, int]) -> int:
        return int(load64(layout.handles_addr(root[0]) + 8 * root[1]))

    def handles(self, p: int) -> list[int]:
        """What is in the handle table of P ``p``."""
        first = layout.handles_addr(p)
        return [int(load64(slot)) for slot in range(first, first + 8 * int(self.ps[p].handles), 8)]

    def hold(self, p: int, addr: int) -> tuple[int, int]:
        """Root an object that is reachable already."""
        self.be(p)
        slot = self._free_slot(p)
        store64(layout.handles_addr(p) + 8 * slot, addr)
        return p, slot

    def drop(self, root: tuple[int, int]) -> None:
        """Clear a handle, as a Python reference does that goes away."""
        store64(layout.handles_addr(root[0]) + 8 * root[1], 0)
        self._free[root[0]].append(root[1])

    # --- looking --------------------------------------------------------------------------------------------------------

    def verify(self, level: int = 3) -> Report:
        report = verify(level)
        assert report.problems == (), "\n".join(report.problems)
        return report


def _deadline() -> int:
    return time.monotonic_ns() + 10**10


@contextmanager
def heap_world(nprocs: int = 1, max_pages: int = layout.ARENA_PAGES, gc_percent: int = -1) -> Iterator[World]:
    """A fresh heap of at most ``max_pages`` pages."""
    with kernel_heap(layout.align_up(max_pages * layout.PAGE_SIZE, layout.ARENA_SIZE), nprocs) as made:
        world = World(made, nprocs)
        world.runtime.max_pages = max_pages
        pacer.set_gc_percent(gc_percent)
        pacer.commit(1)
        yield world
