"""Stacks of goroutines: where they come from, and that everything which leads into one still does after it has moved."""

from __future__ import annotations

import random

import pytest
from heap_world import heap_world

from gomp.core.gc.rebuild import rebuild_derived_stw
from gomp.core.heap import gs, stack, stackalloc
from gomp.core.mutator.types import publish_type, reserve_mask, set_mask_word
from gomp.core.shm import layout, records
from gomp.core.shm.atomics import load64, signed, store64
from gomp.core.shm.records import FRAME_HEADER, LEADS_INTO_STACK

KIB = 1 << 10
MIB = 1 << 20
HEADER_WORDS = FRAME_HEADER // 8


class Stacks:
    """Goroutines of a heap, and types of frames."""

    def __init__(self, world):
        self.world = world
        self.pool = records.view(records.stackpool_dtype, records.STACKPOOL)[0]
        self._types = {}

    def go(self):
        g = int(gs.take_g())
        assert g != gs.NO_G
        return Goroutine(self, layout.g_addr(g), g)

    def type(self, words, pointers=(), references=()):
        """Address of a frame type with so many words after the header, of which some may point into the stack, and some refer to objects."""
        if (words, pointers, references) not in self._types:
            size = FRAME_HEADER + 8 * words
            n = (size + 511) // 512
            mask = int(reserve_mask(2 * n))
            for at, marked in ((0, references), (n, pointers)):
                for i in range(n):
                    bits = sum(1 << (HEADER_WORDS + w) % 64 for w in marked if (HEADER_WORDS + w) // 64 == i)
                    set_mask_word(mask, at + i, signed(bits))
            ptr_bytes = FRAME_HEADER + 8 * (max(references) + 1) if references else 0
            elem_size = LEADS_INTO_STACK if pointers else 0
            addr = int(publish_type(5000 + len(self._types), size, ptr_bytes, elem_size, mask))
            assert addr > 0
            self._types[words, pointers, references] = addr
        return self._types[words, pointers, references]


class Goroutine:
    def __init__(self, stacks, addr, number):
        self.stacks, self.addr, self.number = stacks, addr, number
        self.record = records.view(records.g_dtype, addr)[0]

    def push(self, type_addr):
        return int(stack.push_frame(self.addr, type_addr))

    @property
    def lo(self):
        return int(stack.stack_lo(self.addr))

    @property
    def size(self):
        return int(stack.stack_size(self.addr))

    @property
    def hi(self):
        return self.lo + self.size

    def offset(self, addr):
        """Bytes from the top: what does not change when the stack moves."""
        return self.hi - addr

    def frames(self):
        """From the innermost out."""
        frame, out = int(stack.innermost(self.addr)), []
        while frame:
            out.append(frame)
            frame = int(load64(frame))
        return out


@pytest.fixture
def stacks():
    with heap_world(max_pages=4 * layout.ARENA_PAGES) as world:
        yield Stacks(world)


def test_a_new_goroutine_has_a_stack_of_2_kib(stacks):
    g = stacks.go()
    assert g.size == 2 * KIB
    assert g.frames() == []
    stacks.world.verify()


def test_from_2_kib_to_4_mib_a_stack_is_copied_11_times(stacks):
    g, frame = stacks.go(), stacks.type(13)
    while g.size < 4 * MIB:
        assert g.push(frame) > 0
    assert g.record.copies == 11
    stacks.world.verify()


def test_no_frame_reaches_into_the_guard(stacks):
    g, small, large = stacks.go(), stacks.type(5), stacks.type(60)
    for frame in (small, large) * 50:
        g.push(frame)
        # a small frame may reach 128 bytes further, as in Go
        assert g.frames()[0] >= g.lo + stack.STACK_GUARD - 128


def test_a_frame_larger_than_the_stack_gets_one_that_holds_it(stacks):
    g = stacks.go()
    g.push(stacks.type(10))
    g.push(stacks.type(3000))
    assert (g.size, g.record.copies) == (32 * KIB, 1)


def test_what_leads_into_the_stack_leads_to_the_same_place_after_every_possible_move(stacks):
    """Each frame has an address of each earlier frame's slot, in turn, of itself and of nothing; the stack moves at every push."""
    g, frame = stacks.go(), stacks.type(6, pointers=(0, 1, 2, 3))
    targets = []
    for n in range(200):
        at = g.push(frame)
        older = g.frames()
        places = [at + FRAME_HEADER + 40, older[n // 2] + FRAME_HEADER + 32, older[-1] + FRAME_HEADER, 0]
        for slot, place in enumerate(places):
            store64(at + FRAME_HEADER + 8 * slot, place)
        store64(at + FRAME_HEADER + 40, n)
        targets.append([g.offset(place) if place else None for place in places])
        assert stack.copy_stack(g.addr, g.size) == 0
        for number, at in enumerate(reversed(g.frames())):
            found = [int(load64(at + FRAME_HEADER + 8 * slot)) for slot in range(4)]
            assert [g.offset(place) if place else None for place in found] == targets[number]
            assert load64(at + FRAME_HEADER + 40) == number
    assert g.record.copies >= 200
    stacks.world.verify()


def test_addresses_that_lead_elsewhere_stay_as_they_are(stacks):
    g, frame = stacks.go(), stacks.type(4, pointers=(0, 1))
    other = stacks.go()
    at = g.push(frame)
    outside = [other.lo, g.hi]
    for slot, place in enumerate(outside):
        store64(at + FRAME_HEADER + 8 * slot, place)
    like_an_address = at
    store64(at + FRAME_HEADER + 16, like_an_address)  # in a slot that is no pointer
    stack.copy_stack(g.addr, 2 * g.size)
    at = g.frames()[0]
    assert [int(load64(at + FRAME_HEADER + 8 * slot)) for slot in range(3)] == [*outside, like_an_address]


@pytest.mark.parametrize("seed", range(6))
def test_random_frames_that_come_and_go_with_moves_in_between(stacks, seed):
    """Against a list of frames in which a pointer is (frame, word)."""
    rng = random.Random(seed)
    kinds = [(4, (0, 3)), (9, ()), (17, tuple(range(0, 17, 2))), (70, (1, 64, 69)), (130, (0, 129))]
    goroutines = [(stacks.go(), []) for _ in range(3)]
    for _ in range(400):
        g, model = goroutines[rng.randrange(3)]
        action = rng.random()
        if action < 0.55:
            words, pointers = rng.choice(kinds)
            at = g.push(stacks.type(words, pointers))
            assert at > 0
            frames = g.frames()[::-1]
            values = {}
            for word in range(words):
                if word in pointers and rng.random() < 0.8:
                    to = rng.randrange(len(frames))
                    values[word] = ("at", to, rng.randrange(4))
                    store64(at + FRAME_HEADER + 8 * word, frames[to] + FRAME_HEADER + 8 * values[word][2])
                elif word not in pointers:
                    values[word] = rng.getrandbits(62)
                    store64(at + FRAME_HEADER + 8 * word, values[word])
            model.append((words, values))
        elif action < 0.8 and model:
            model.pop()
            stack.pop_frame(g.addr)
        elif action < 0.9:
            stack.shrink_stack(g.addr)
        else:
            stack.copy_stack(g.addr, max(g.size, 2 * KIB) << rng.randrange(2))
            while g.size > 256 * KIB and int(g.record.depth) + 4 * KIB < 128 * KIB:
                stack.copy_stack(g.addr, 128 * KIB)
        frames = g.frames()[::-1]
        assert len(frames) == len(model)
        for at, (words, values) in zip(frames, model, strict=True):
            for word in range(words):
                value = values.get(word, 0)
                wanted = frames[value[1]] + FRAME_HEADER + 8 * value[2] if isinstance(value, tuple) else value
                assert load64(at + FRAME_HEADER + 8 * word) == wanted
    stacks.world.verify()
    stacks.world.collect()
    stacks.world.verify()


def test_a_stack_that_uses_less_than_a_quarter_is_halved_and_2_kib_are_the_least(stacks):
    g, frame = stacks.go(), stacks.type(13)
    g.push(stacks.type(7000))
    stack.pop_frame(g.addr)
    sizes = [g.size]
    for _ in range(10):
        stack.shrink_stack(g.addr)
        sizes.append(g.size)
    assert [size // KIB for size in sizes[:7]] == [64, 32, 16, 8, 4, 2, 2]
    stack.copy_stack(g.addr, 4 * KIB)
    g.push(frame)
    g.push(frame)  # 256 bytes, and 800 always count as used: more than a quarter
    stack.shrink_stack(g.addr)
    assert g.size == 4 * KIB


def test_a_stack_beyond_the_maximum_is_an_overflow_and_nothing_changes(stacks):
    stack.set_max_stack(64 * KIB)
    g, frame = stacks.go(), stacks.type(100)
    pushed = 0
    while (at := g.push(frame)) > 0:
        pushed += 1
    assert at == stack.STACK_OVERFLOW
    assert g.size == 64 * KIB
    assert len(g.frames()) == pushed
    stacks.world.verify()


def test_without_memory_a_push_fails_and_nothing_changes():
    with heap_world(max_pages=layout.CHUNK_PAGES) as world:
        stacks = Stacks(world)
        g, frame = stacks.go(), stacks.type(1000)
        pushed = 0
        while (at := g.push(frame)) > 0:
            pushed += 1
        assert at == stack.NO_MEMORY
        assert len(g.frames()) == pushed
        world.verify()


def test_stacks_of_goroutines_that_are_over_are_used_again_and_go_back_with_a_collection(stacks):
    goroutines = [stacks.go() for _ in range(100)]
    assert len({g.lo for g in goroutines}) == 100
    for g in goroutines[:50]:
        g.push(stacks.type(4000))  # 64 KiB each
    assert stacks.pool.xspan_bytes >= 50 * 64 * KIB
    for g in goroutines:
        gs.drop_g(g.number)
    again = {int(gs.take_g()) for _ in range(100)}
    assert again == {g.number for g in goroutines}
    for number in again:
        gs.drop_g(number)
    stacks.world.collect()
    assert stacks.pool.xspan_bytes <= 100 * 2 * KIB + 32 * KIB  # free records keep what stacks begin with
    stacks.world.verify()


def test_between_cycles_the_records_of_goroutines_that_are_over_lose_their_stacks(stacks):
    """All but those that a P keeps for itself, 63 at most."""
    goroutines = [stacks.go() for _ in range(1000)]
    for g in goroutines:
        gs.drop_g(g.number)
    assert stacks.pool.xspan_bytes >= 1000 * 2 * KIB
    shared = int(gs.num_free_gs())
    assert shared > 1000 - 64
    for most in (100, shared, 1):
        assert gs.free_dead_stacks(most) == min(most, shared)
        stacks.world.verify()
        shared = max(shared - most, 0)
    assert stacks.pool.xspan_bytes <= 64 * 2 * KIB + 2 * 32 * KIB
    again = [stacks.go() for _ in range(1000)]
    assert {g.number for g in again} == {g.number for g in goroutines}
    stacks.world.verify()


def test_a_span_that_becomes_empty_while_the_heap_is_marked_is_used_again_in_any_size_and_returned_after_it(stacks):
    goroutines = [stacks.go() for _ in range(400)]
    spans_before = stacks.pool.xspan_bytes
    runtime = records.view(records.runtime_dtype, records.RUNTIME)[0]
    for g in goroutines:
        gs.drop_g(g.number)
    runtime.xgcphase = records.GC_MARK  # for the allocator of stacks alone
    gs.free_dead_stacks(1000)
    assert stacks.pool.xspan_bytes == spans_before
    stacks.world.verify()
    g = Goroutine(stacks, layout.g_addr(int(gs.take_g())), 0)
    for size in (8 * KIB, 32 * KIB, 4 * KIB):
        stack.copy_stack(g.addr, size)
        assert stacks.pool.xspan_bytes == spans_before
        stacks.world.verify()
    runtime.xgcphase = records.GC_OFF
    assert stackalloc.free_large_stacks(2) == 2
    freed = 2
    while n := int(stackalloc.free_large_stacks(1000)):
        freed += n
    assert stacks.pool.xspan_bytes == spans_before - freed * 32 * KIB < 10 * 32 * KIB
    stacks.world.verify()


def test_all_that_is_derived_is_made_again_from_the_table(stacks):
    rng = random.Random(1)
    frame = stacks.type(40, pointers=(0,))
    goroutines = [stacks.go() for _ in range(60)]
    for g in goroutines:
        for _ in range(rng.randrange(40)):
            at = g.push(frame)
            store64(at + FRAME_HEADER, g.frames()[-1] + FRAME_HEADER)
    for g in goroutines[::3]:
        gs.drop_g(g.number)
    kept = [g for i, g in enumerate(goroutines) if i % 3]
    before = [(g.lo, g.frames()) for g in kept]
    p = stacks.world.ps[0]
    p.stack_free[:] = 0
    p.g_free = 12345
    stacks.pool.head[:] = 77
    sched = records.view(records.sched_dtype, records.SCHED)[0]
    sched.free_with_stack, sched.nfree = 99, 1 << 40
    for g in kept:
        g.record.xstatus = records.G_WAITING
    rebuild_derived_stw()
    stacks.world.verify()
    assert [(g.lo, g.frames()) for g in kept] == before
    for _ in range(200):
        stacks.go()
    stacks.world.verify()


def test_a_marker_that_died_with_a_stack_in_hand_does_not_keep_it(stacks):
    g = stacks.go()
    g.record.xstatus = records.G_WAITING | records.G_SCAN
    rebuild_derived_stw()
    assert g.record.xstatus == records.G_WAITING
    stacks.world.verify()


# --- as roots ---------------------------------------------------------------------------------------------------------


def wait(g):
    """Nobody runs it."""
    g.record.xstatus = records.G_WAITING


def test_what_frames_refer_to_lives_and_what_popped_ones_did_is_collected(stacks):
    world, frame = stacks.world, stacks.type(80, references=(0, 3, 79))
    g = stacks.go()
    wait(g)
    node = world.struct_type(16, (0, 1))
    for _ in range(30):
        at = g.push(frame)
        for word in (0, 3, 79):
            root = world.new(0, 16, node)
            store64(at + FRAME_HEADER + 8 * word, world.address(root))
            world.drop(root)
    world.collect()
    assert world.verify().objects == 90
    for _ in range(20):
        stack.pop_frame(g.addr)
    world.collect()
    assert world.verify().objects == 30
    assert g.record.scans == 2


def test_a_word_that_is_no_reference_keeps_nothing(stacks):
    world = stacks.world
    g = stacks.go()
    wait(g)
    root = world.new(0, 16, world.struct_type(16, (0, 1)))
    store64(g.push(stacks.type(4, references=(0,))) + FRAME_HEADER + 8, world.address(root))
    world.drop(root)
    world.collect()
    assert world.verify().objects == 0


def test_a_collection_halves_a_stack_once_and_new_ones_begin_as_large_as_they_were_used(stacks):
    deep, shallow = stacks.go(), [stacks.go() for _ in range(3)]
    for g in (deep, *shallow):
        wait(g)
    deep.push(stacks.type(7000))
    stack.pop_frame(deep.addr)
    stacks.world.collect()
    assert deep.size == 32 * KIB
    for g in shallow:
        for _ in range(60):
            g.push(stacks.type(13))  # 7680 bytes
    stacks.world.collect()
    # (3 * 7680 + 0) / 4 + 928 = 6688
    assert stacks.pool.start_size == 8 * KIB
    number = stacks.go().number
    gs.drop_g(number)
    assert stacks.go().size == 8 * KIB
    stacks.world.verify()


def test_a_stack_is_scanned_once_in_a_cycle_and_a_running_one_by_no_job(stacks):
    world = stacks.world
    waiting, running = stacks.go(), stacks.go()
    wait(waiting)
    running.record.xstatus = records.G_RUNNING
    for _ in range(3):
        world.collect()
    assert (waiting.record.scans, running.record.scans) == (3, 0)
