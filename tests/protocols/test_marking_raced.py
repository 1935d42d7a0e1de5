"""The end of marking: workers come and go on every P, and when a cycle ends everything reachable is marked, once."""

from __future__ import annotations

import pytest

from gomp.core import inline, kernel
from gomp.core.gc import sweep
from gomp.core.gc.cycle import NOT_DONE, begin_cycle, finish_cycle, may_be_done, stop_marking
from gomp.core.gc.worker import DRY, has_work, mark_step
from gomp.core.heap.sizeclass import size_class
from gomp.core.mutator.barrier import write_pointer
from gomp.core.mutator.malloc import new_small
from gomp.core.mutator.poll import poll
from gomp.core.sched.status import OK, SELF_POLL, enter_waiting, leave, stop_world
from gomp.core.shm import layout, records, segments
from gomp.core.shm.atomics import (
    add_relaxed,
    load64,
    lsl,
    lsr,
    or_acq_rel,
    store64,
    store_relaxed,
)
from gomp.core.shm.libc import nanotime, stack_pointer
from gomp.core.shm.records import (
    GC_TRIGGER_HEAP,
    POLL_WORK,
    RT_XWBUF_FULL,
    gcstats,
    nth_p,
    p_at,
    p_records,
    self_p,
)
from tests.protocols.drivers import OVER, OWN, VIOLATIONS, dawdle, is_over
from tests.protocols.processes import LINE, World, now_ns

pytestmark = pytest.mark.alone

MUTANT_NS = 30_000_000_000
NODES = 80_000
NODE_BYTES, WORDS = 32, 4
ADDRESSES = OWN + 8192
ROUNDS, HELPED, AGAIN = OWN, OWN + LINE, OWN + 2 * LINE
SOUND, HASTY = 0, 1
_FRAME = 1024
_PATIENCE_NS = 60_000_000_000


@kernel("int64(int64, int64)")
def build_graph(n: int, seed: int) -> int:
    """A binary tree with two random references more in each node; its root in P0's first handle. Returns the nodes made."""
    span_class = 2 * size_class(NODE_BYTES)
    for i in range(n):
        addr = new_small(span_class, NODE_BYTES, WORDS, (1 << WORDS) - 1, NODE_BYTES, 0)
        if addr <= 0:
            return i
        store64(ADDRESSES + 8 * i, addr)
    for i in range(n):
        addr = load64(ADDRESSES + 8 * i)
        for child in range(2):
            if 2 * i + 1 + child < n:
                write_pointer(addr + 8 * child, load64(ADDRESSES + 8 * (2 * i + 1 + child)))
            seed ^= lsl(seed, 13)
            seed ^= lsr(seed, 7)
            seed ^= lsl(seed, 17)
            write_pointer(addr + 16 + 8 * child, load64(ADDRESSES + 8 * (lsr(seed, 1) % n)))
    store64(layout.HANDLES_BASE, load64(ADDRESSES))
    self_p().handles = 1
    return n


@inline
def until_dry() -> int:
    """As the coordinator does: look until nobody finds work, ask everybody, stop the world."""
    while mark_step(0) != DRY:
        pass
    code = may_be_done(nanotime() + _PATIENCE_NS)
    return stop_marking(nanotime() + _PATIENCE_NS) if code == OK else code


@inline
def until_nothing_is_public() -> int:
    """Mutant: what the Ps have in their own hands is not asked for."""
    while has_work():
        mark_step(0)
    gcstats().last_term_ns = nanotime()
    return stop_world(nanotime() + _PATIENCE_NS)


@kernel("int64(int64)")
def mark_once(how: int) -> int:
    """A cycle: how many objects were marked by anybody, or what went wrong. The world is stopped."""
    for i in range(p_records()):
        p_at(nth_p(i)).objects_marked = 0
    code = begin_cycle(GC_TRIGGER_HEAP, nanotime() + _PATIENCE_NS)
    if code != OK:
        return code
    code = NOT_DONE
    while code == NOT_DONE:
        code = until_nothing_is_public() if how == HASTY else until_dry()
        if code == NOT_DONE:
            add_relaxed(AGAIN, 1)
    if code != OK:
        return code
    marked = 0
    for i in range(p_records()):
        marked += p_at(nth_p(i)).objects_marked
    add_relaxed(HELPED, marked - p_at(nth_p(p_records() - 1)).objects_marked)
    return marked


@kernel("void(int64, int64, int64)")
def keep_marking(until_ns: int, expected: int, how: int) -> None:
    while nanotime() < until_ns and not is_over():
        if mark_once(how) != expected or (how == SOUND and load64(RT_XWBUF_FULL) != 0):
            add_relaxed(VIOLATIONS, 1)
        finish_cycle(0)
        while sweep.sweep_step(64):
            pass
        add_relaxed(ROUNDS, 1)


@kernel("void(int64, int64)")
def keep_polling(until_ns: int, seed: int) -> None:
    """A program that is told to mark more often than it is due, and comes and goes."""
    self_p().native_base = stack_pointer() + _FRAME
    while nanotime() < until_ns and not is_over():
        if enter_waiting() != OK:
            return
        for _ in range(seed & 127):
            if seed & 768 == 0:
                or_acq_rel(SELF_POLL, POLL_WORK)
            poll()
            seed = dawdle(seed)
        leave()
        seed = dawdle(seed)


@kernel("void()")
def set_over() -> None:
    store_relaxed(OVER, 1)


def build(world: World) -> None:
    segments.map_self(world.segments, 0)
    assert build_graph(NODES, 88172645463325252) == NODES
    segments.map_self(world.segments, layout.COORDINATOR_P)


def mark_with_workers(world: World, length_ns: int, how: int) -> None:
    build(world)
    until = now_ns(length_ns)
    for p in range(3):
        world.fork(p, lambda p=p: keep_polling(until, 1181783497276652981 + 2 * p))
    keep_marking(until, NODES, how)
    set_over()
    world.join()


def test_everything_reachable_is_marked_whoever_comes_and_goes(world, run_ns):
    mark_with_workers(world, 2 * run_ns, SOUND)
    assert world.word(VIOLATIONS) == 0
    assert world.word(ROUNDS) > 5
    assert world.word(HELPED) > 0


def test_an_end_that_asks_nobody_is_caught(world):
    mark_with_workers(world, MUTANT_NS, HASTY)
    assert world.word(VIOLATIONS) > 0


def test_marking_needs_no_budget_since_it_is_what_refills_it(world):
    build(world)
    mheap = records.view(records.mheap_dtype, records.MHEAP)[0]
    mheap.xcommit_budget = 0
    world.runtime.wbuf_empty = 0
    before = int(mheap.xwbuf_bytes)
    assert mark_once(SOUND) == NODES
    assert mheap.xwbuf_bytes > before
    assert world.runtime.xthrow == 0
    finish_cycle(0)
