"""Paths from roots to objects: as short as those of a search in plain Python, and each step of them is there."""

from __future__ import annotations

import itertools
import random
from collections import deque

import pytest
from heap_world import heap_world
from special_world import lifetimes

from gomp.core.jit import COMPILED
from gomp.core.mutator import boundary
from gomp.core.shm import layout
from gomp.core.shm.atomics import load64, store64
from gomp.core.shm.records import P_XNATIVE_N, P_XPENDING, SPECIAL_QUEUED, special_dtype, view
from gomp.runtime.retainers import KEPT, Search, may_search

# Bytes, and which words are references: with the mask in the page, with a type, large, without references, of one word.
KINDS = [
    (24, (0, 1)),
    (64, (0, 3, 7)),
    (512, (63,)),
    (600, (1, 70)),
    (40_000, (4_000,)),
    (8, (0,)),
    (48, ()),
    (9_000, ()),
]


class Graph:
    """Objects of a heap, and what a test knows of them: word ``w`` of object ``i`` refers to object ``edges[i][w]``."""

    def __init__(self, world, seed, n):
        self.world, self.random = world, random.Random(seed)
        self.edges: dict[int, dict[int, int]] = {}
        self.words: dict[int, tuple[int, ...]] = {}
        self.at: dict[int, int] = {}
        self.handles = [self.new() for _ in range(n)]
        for i in range(n):
            for word in self.words[i]:
                if self.random.random() < 0.7:
                    self.link(i, word, self.random.randrange(n))

    def new(self):
        p = self.random.randrange(self.world.nprocs)
        i = len(self.at)
        if self.random.random() < 0.2:
            n = self.random.choice([0, 1, 5, 200, 20_000])
            root = self.world.new_array(p, n, self.world.references)
            self.words[i] = tuple(1 + k for k in range(min(n, 6))) + ((n,) if n > 6 else ())
        else:
            size, words = self.random.choice(KINDS)
            root = self.world.new(p, size, self.world.struct_type(size, words) if words else 0)
            self.words[i] = words
        self.at[i] = self.world.address(root)
        self.edges[i] = {}
        return root

    def link(self, i, word, j):
        target = self.world.hold(self.handles[i][0], self.at[j])
        assert boundary.write_reference(self.handles[i][1], 8 * word, target[1]) == 0
        self.world.drop(target)
        self.edges[i][word] = j

    def distances(self, roots):
        """By each object that can be reached, how many steps it is from a root: 1 if one refers to it."""
        found = dict.fromkeys(roots, 1)
        queue = deque(found)
        while queue:
            i = queue.popleft()
            for j in self.edges[i].values():
                if j not in found:
                    found[j] = found[i] + 1
                    queue.append(j)
        return found


def search(root):
    assert may_search(*root)
    return Search(*root).run()


@pytest.mark.parametrize("seed", range(20 if COMPILED else 2))
@pytest.mark.parametrize("phase", ["fresh", "marking", "unswept"])
def test_a_path_is_as_short_as_one_found_in_python(seed, phase):
    with heap_world(2) as world:
        graph = Graph(world, seed, 40)
        if phase != "fresh":
            world.begin_marking()
            world.mark(2000)
        if phase == "unswept":
            world.finish_marking()
        kept = graph.random.sample(range(40), 3)
        for i in set(range(40)) - set(kept):
            world.drop(graph.handles[i])
        distances = graph.distances(kept)
        by_address = {at: i for i, at in graph.at.items()}
        reached = set()
        for i in distances:
            root = world.hold(graph.random.randrange(2), graph.at[i])
            found = search(root)
            assert found["root"]["kind"] == "reference"
            assert len(found["nodes"]) == distances[i], found
            objects = [by_address[node["at"]] for node in found["nodes"]]
            assert objects[0] in kept
            assert objects[-1] == i
            for (a, b), node in zip(itertools.pairwise(objects), found["nodes"], strict=False):
                assert graph.edges[a][node["out"] // 8] == b
            reached.add(i)
            world.drop(root)
        assert reached == set(distances)


def test_what_cannot_be_reached_has_no_path():
    with heap_world(1) as world:
        node = world.struct_type(24, (0, 1))
        a, b = world.new(0, 24, node), world.new(0, 24, node)
        for x, y in ((a, b), (b, a)):
            assert boundary.write_reference(x[1], 0, y[1]) == 0
        world.drop(b)
        found = search(a)
        assert found["root"] is None
        assert [n["at"] for n in found["nodes"]] == [world.address(a)]


def test_the_middle_of_a_long_path_is_left_out():
    with heap_world(1) as world:
        node = world.struct_type(24, (0, 1))
        first = last = world.new(0, 24, node)
        at = [world.address(first)]
        for _ in range(100):
            following = world.new(0, 24, node)
            assert boundary.write_reference(last[1], 8, following[1]) == 0
            if last is not first:
                world.drop(last)
            last = following
            at.append(world.address(last))
        found = search(last)
        assert found["left_out"] == 101 - 2 * KEPT
        assert [n["at"] for n in found["nodes"]] == at[:KEPT] + at[-KEPT:]
        assert [n["out"] for n in found["nodes"]] == [8] * (2 * KEPT - 1) + [None]


def test_a_reference_into_an_object_leads_to_it():
    with heap_world(1) as world:
        holder = world.new(0, 600, world.struct_type(600, (1, 70)))
        target = world.new(0, 64)
        store64(world.address(holder) + 560, world.address(target) + 24)
        found = search(target)
        assert [(n["out"], n["inside"]) for n in found["nodes"]] == [(560, 0), (None, 24)]
        assert found["asked"] == world.address(target)
        into = world.hold(0, world.address(target) + 16)
        assert search(into)["asked"] == world.address(target) + 16


@pytest.mark.parametrize("slot", [-1, 1 << 20, 3])
def test_a_handle_that_is_not_there(slot):
    with heap_world(1) as world:
        world.drop(world.new(0, 24))
        assert not may_search(0, slot)
        assert not may_search(7, 0)


# --- roots ------------------------------------------------------------------------------------------------------------


def root_of(root):
    return search(root)["root"]


def test_native_stacks_and_results_that_are_not_rooted_yet():
    with heap_world(2) as world:
        a, b = world.new(0, 64), world.new(0, 64)
        store64(layout.native_roots_addr(1), 12345)
        store64(layout.native_roots_addr(1) + 8, world.address(a) + 8)
        store64(layout.p_addr(1) + P_XNATIVE_N, 2)
        store64(layout.p_addr(0) + P_XPENDING, world.address(b))
        assert [(root_of(x)["kind"], root_of(x)["p"]) for x in (a, b)] == [("stack", 1), ("stack", 0)]
        store64(layout.p_addr(1) + P_XNATIVE_N, 0)
        store64(layout.p_addr(0) + P_XPENDING, 0)


def test_specials():
    with lifetimes() as x:
        world = x.world
        node = world.struct_type(24, (0, 1))
        holder, kept, cell_of = world.new(0, 24, node), world.new(0, 24, node), world.new(0, 24, node)
        x.link(holder, 0, holder)
        x.link(holder, 1, kept)
        assert x.finalizer(holder, 1) > 0
        cell = x.weak(cell_of)
        assert root_of(cell)["kind"] == "weak"
        assert search(cell_of)["root"] is None, "a weak pointer keeps nothing"
        at = world.address(holder)
        assert search(holder)["root"] is None, "nor does a finalizer its own object"
        world.drop(holder)
        found = search(kept)
        assert (found["root"]["kind"], found["root"]["is_due"]) == ("finalizer", 0)
        assert [(n["at"], n["out"]) for n in found["nodes"]] == [(at, 8), (world.address(kept), None)]
        world.collect()
        assert view(special_dtype, layout.SPECIALS_BASE)[0].xstate == SPECIAL_QUEUED
        found = search(kept)
        assert (found["root"]["kind"], found["root"]["is_due"]) == ("finalizer", 1)
        assert load64(world.address(kept)) == 0
        assert len(found["nodes"]) == 2
