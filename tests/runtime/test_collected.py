"""Compiled programs while another process collects: what is only on the native stack, in registers or in arrays survives."""

from __future__ import annotations

import pytest

from gomp.core.shm.records import GC_TRIGGER_HEAP, GCSTATS, PACER, gcstats_dtype, pacer_dtype, view
from gomp.errors import OutOfMemory
from gomp.runtime.arrays import array
from gomp.runtime.compiled import compiled
from gomp.runtime.current import gc
from gomp.runtime.structs import new, struct


@struct
class Node:
    left: Node
    right: Node


@struct
class Link:
    next: Link
    value: int
    weight: float


@compiled
def build(depth):
    node = new(Node)
    if depth:
        node.left = build(depth - 1)
        node.right = build(depth - 1)
    return node


@compiled
def count(node: Node):
    if node is None:
        return 0
    return 1 + count(node.left) + count(node.right)


def cycles():
    return int(view(gcstats_dtype, GCSTATS)[0].num_gc)


def bytes_marked():
    return int(view(pacer_dtype, PACER)[0].heap_marked)


def test_trees_built_and_dropped(collected_heap):
    @compiled
    def many(depth, times):
        nodes = 0
        kept = build(depth)
        for _ in range(times):
            nodes += count(build(depth))
        return nodes + count(kept)

    before = cycles()
    assert many(13, 60) == 61 * ((1 << 14) - 1)
    assert cycles() > before


def test_locals_live_in_registers_and_frames_only(collected_heap):
    @compiled
    def chains(rounds):
        a, b, c = new(Link, value=1), new(Link, value=2), new(Link, value=3)
        wrong = 0
        for i in range(rounds):
            a = new(Link, a if i % 100 else None, value=i, weight=0.5)
            b = new(Link, a, b.value + 1)
            c.next = new(Link, value=i)
            if a.value != i or b.next is not a or c.next.value != i or c.value != 3:
                wrong += 1
        return wrong * 1_000_000_000 + b.value

    before = cycles()
    assert chains(1_000_000) == 1_000_002
    assert cycles() > before


def test_an_array_is_held_by_a_variable(collected_heap):
    @compiled
    def churn(n, rounds):
        table = array(Link, n)
        numbers = array(int, n)
        for i in range(n):
            table[i] = new(Link, value=i)
            numbers[i] = i
        for _ in range(rounds):
            for i in range(n):
                old = table[i]
                table[i] = new(Link, value=old.value + 1)
                numbers[i] += 1
        wrong = 0
        for i in range(n):
            wrong += (table[i].value != i + rounds) + (numbers[i] != i + rounds)
        return wrong

    before = cycles()
    assert churn(5000, 100) == 0
    assert cycles() > before


def test_references_of_python_survive_what_programs_do(collected_heap):
    kept = [build(4) for _ in range(50)]
    before = cycles()
    for _ in range(20):
        build(14)
    assert cycles() > before
    assert [count(tree) for tree in kept] == [31] * 50


def test_python_waits_for_the_collections_it_asks_for(collected_heap):
    before = cycles()
    chain = None
    for i in range(2000):
        chain = new(Link, chain, value=i)
        array(int, 2000)
    assert cycles() > before
    n = 0
    while chain is not None:
        n, chain = n + 1, chain.next
    assert n == 2000


def test_a_full_heap_ends_the_program_and_not_the_runtime(collected_heap):
    @compiled
    def fill():
        last = new(Link)
        while True:
            last = new(Link, last)

    with pytest.raises(OutOfMemory, match="the heap is full, even after a collection"):
        fill()
    assert count(build(10)) == 2047
    assert collected_heap.xgc_request in (0, GC_TRIGGER_HEAP)


def test_collections_at_every_few_allocations(collected_heap):
    collected_heap.collect_every = 5
    assert count(build(12)) == (1 << 13) - 1
    collected_heap.collect_every = 0


@compiled
def dive(depth, a, b, c, d):
    if depth == 0:
        gc()
        return 0
    return dive(depth - 1, b, c, d, a) + a * b + c * d


@compiled
def drop_and_dive(depth):
    total = 0
    for i in range(2):
        if i == 0:
            total += count(build(13))
        else:
            total += dive(depth, i, 2, i, 2)
    return total


def test_a_tree_is_not_kept_alive_by_what_finished_calls_have_left_on_the_stack(collected_heap):
    for depth in range(1, 16):
        drop_and_dive(depth)
        assert bytes_marked() == 0, depth


def test_a_tree_is_not_kept_alive_by_the_slot_in_which_a_call_returned_it(collected_heap):
    @compiled
    def drop_and_collect(times):
        total = 0
        for i in range(times):
            if i == times - 1:
                gc()
            else:
                total += count(build(13))
        return total

    drop_and_collect(2)
    assert bytes_marked() == 0
