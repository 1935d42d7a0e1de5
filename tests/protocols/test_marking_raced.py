"""The end of marking: helpers come and go at random, and when marking is closed everything reachable is marked."""

from __future__ import annotations

import pytest

from gomp.core import inline, kernel
from gomp.core.gc import roots, sweep, work
from gomp.core.gc.assist import CLOSED, OK, help_mark, mark_all_stw
from gomp.core.gc.mark import scan
from gomp.core.heap.mcache import release_all_stw
from gomp.core.heap.sizeclass import size_class
from gomp.core.mutator.barrier import write_pointer
from gomp.core.mutator.malloc import new_small
from gomp.core.shm import layout, records, segments
from gomp.core.shm.atomics import (
    add_acq_rel,
    add_relaxed,
    cas_acq_rel,
    cpu_pause,
    load64,
    load_acquire,
    load_relaxed,
    lsl,
    lsr,
    store64,
    store_relaxed,
)
from gomp.core.shm.libc import nanotime
from gomp.core.shm.records import RT_XMARKERS, RT_XWBUF_FULL, p_at, runtime, self_p
from tests.protocols.drivers import OVER, OWN, VIOLATIONS, dawdle, is_over
from tests.protocols.processes import LINE, World, now_ns

MUTANT_NS = 30_000_000_000
NODES = 60_000
NODE_BYTES, WORDS = 32, 4
ADDRESSES = OWN + 8192
ROUNDS, HELPED, LEFT_EARLY = OWN, OWN + LINE, OWN + 2 * LINE
JOINED = OWN + 3 * LINE
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


@kernel("void()")
def flush() -> None:
    release_all_stw(layout.p_addr(0))


@kernel("int64(int64)")
def mark_once(patience_ns: int) -> int:
    """Mark everything, with whoever helps: how many objects were marked, or what mark_all_stw said."""
    rt = runtime()
    me = self_p()
    for i in range(rt.nrecords):
        p_at(layout.p_addr(i)).objects_marked = 0
    coordinator = layout.p_addr(me.idx)
    p_at(coordinator).objects_marked = 0
    roots.prepare_root_jobs_stw()
    code = mark_all_stw(patience_ns)
    if code != OK:
        return code
    marked = p_at(coordinator).objects_marked
    for i in range(rt.nrecords):
        helped = p_at(layout.p_addr(i)).objects_marked
        marked += helped
        add_relaxed(HELPED, helped)
    return marked


@kernel("void()")
def clear_marks() -> None:
    """By sweeping: whatever was marked stays allocated."""
    sweep.begin_sweep_stw()
    while sweep.sweep_step(64):
        pass


@kernel("void(int64, int64)")
def keep_marking(until_ns: int, expected: int) -> None:
    while nanotime() < until_ns and not is_over():
        if mark_once(_PATIENCE_NS) != expected or load_relaxed(RT_XWBUF_FULL) != 0:
            add_relaxed(VIOLATIONS, 1)
            return
        clear_marks()
        add_relaxed(ROUNDS, 1)


@inline
def help_a_little(p: int, objects: int, seed: int, late: int) -> int:
    """A helper that leaves with work in its hands: it disposes of it first. ``late``, the mutant: it counts itself out first."""
    n = load_acquire(RT_XMARKERS)
    if n == CLOSED or not work.has_full() or not cas_acq_rel(RT_XMARKERS, n, n + 1):
        return seed
    work.init_buffers(p)
    for _ in range(objects):
        addr = work.get(p)
        if addr == 0:
            break
        scan(p, addr)
    add_relaxed(LEFT_EARLY, 1)
    if late:
        add_acq_rel(RT_XMARKERS, -1)
        for _ in range(10):
            seed = dawdle(seed)
        work.dispose(p)
    else:
        work.dispose(p)
        add_acq_rel(RT_XMARKERS, -1)
    return seed


@kernel("void(int64, int64, int64)")
def keep_helping(until_ns: int, seed: int, late: int) -> None:
    p = layout.p_addr(self_p().idx)
    while nanotime() < until_ns and not is_over():
        if seed & 1 and not late:
            help_mark()
        else:
            seed = help_a_little(p, lsr(seed, 8) & 255, seed, late)
        seed = dawdle(seed)


@kernel("void()")
def set_over() -> None:
    store_relaxed(OVER, 1)


def build(world: World) -> None:
    segments.map_self(world.segments, 0)
    assert build_graph(NODES, 88172645463325252) == NODES
    segments.map_self(world.segments, layout.COORDINATOR_P)
    flush()


def mark_with_help(world: World, length_ns: int, late: int) -> None:
    build(world)
    until = now_ns(length_ns)
    for p in (1, 2):
        world.fork(p, lambda p=p: keep_helping(until, 1181783497276652981 + 2 * p, late))
    keep_marking(until, NODES)
    set_over()
    world.join()


def test_everything_reachable_is_marked_whoever_comes_and_goes(world, run_ns):
    mark_with_help(world, 2 * run_ns, 0)
    assert world.word(VIOLATIONS) == 0
    assert world.word(ROUNDS) > 5
    assert world.word(HELPED) > 0
    assert world.word(LEFT_EARLY) > 0
    assert world.word(RT_XMARKERS) == CLOSED


def test_marking_needs_no_budget_since_it_is_what_refills_it(world):
    build(world)
    mheap = records.view(records.mheap_dtype, records.MHEAP)[0]
    mheap.xcommit_budget = 0
    assert mheap.xwbuf_bytes == 0
    assert mark_once(_PATIENCE_NS) == NODES
    assert mheap.xwbuf_bytes > 0
    assert world.runtime.xthrow == 0


def test_a_helper_that_counts_itself_out_before_it_disposes_is_caught(world):
    mark_with_help(world, MUTANT_NS, 1)
    assert world.word(VIOLATIONS) > 0


@kernel("void()")
def join_and_hang() -> None:
    """A helper that is stopped, or dead, in the middle."""
    p = layout.p_addr(self_p().idx)
    while load_relaxed(OVER) == 0:
        n = load_acquire(RT_XMARKERS)
        if n != CLOSED and cas_acq_rel(RT_XMARKERS, n, n + 1):
            work.init_buffers(p)
            add_relaxed(JOINED, 1)
            while load_relaxed(OVER) == 0:
                cpu_pause()


@pytest.mark.parametrize("p", [0, 2])
def test_a_helper_that_never_comes_back_is_named(world, p):
    build(world)
    world.fork(p, join_and_hang)
    until = now_ns(MUTANT_NS)
    while (
        outcome := mark_once(200_000_000)
    ) == NODES and now_ns() < until:  # until the helper was quick enough to join
        clear_marks()
    assert outcome == -1 - p
    assert world.word(JOINED) == 1
    set_over()
    world.join()
