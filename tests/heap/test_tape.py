"""Go's exact counters after a fixed sequence of 200,000 allocations (tests/data/memstats) and after two collections.

In plain Python the sequence is shorter, and what it should count comes from a model that the first test holds against Go's numbers.
"""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from kernel_heap import collect_now, kernel_heap

from gomp.core import COMPILED, inline, kernel
from gomp.core.gc import pacer
from gomp.core.heap.mcache import release_all_stw
from gomp.core.heap.sizeclass import SIZES, span_class_for
from gomp.core.mutator import boundary
from gomp.core.mutator.malloc import new_bytes, new_typed
from gomp.core.mutator.types import publish_type, reserve_mask, set_mask_word
from gomp.core.sched.status import enter, leave
from gomp.core.shm import layout, records
from gomp.core.shm.atomics import lsl, lsr, mul64, store_relaxed
from gomp.runtime.verify import verify

GO = json.loads((Path(__file__).parents[1] / "data" / "memstats" / "bysize.json").read_text())
SEED = int(GO["seed"])
SMALL, MEDIUM, LARGE = (np.array(GO[name], dtype=np.int64) for name in ("small", "medium", "large"))
N = GO["n"] if COMPILED else 3000
KEEP_EVERY = 5
_MULTIPLIER = 0x2545F4914F6CDD1D
_MASK64 = 2**64 - 1


# --- the program --------------------------------------------------------------------------------------------------------


@inline
def _step(x):
    x ^= lsr(x, 12)
    x ^= lsl(x, 25)
    return x ^ lsr(x, 27)


@inline
def _pick(r):
    """The size that random word ``r`` asks for."""
    percent = 2 * (lsr(r, 1) % 50) + (r & 1)  # r mod 100, r unsigned
    if percent < 72:
        return SMALL[lsr(r, 8) % len(SMALL)]
    if percent < 97:
        return MEDIUM[lsr(r, 8) % len(MEDIUM)]
    return LARGE[lsr(r, 8) % len(LARGE)]


@kernel("int64(int64, int64, int64)")
def play_tape(seed, n, type_addr):
    """Allocate ``n`` objects; every fifth goes into a handle. The generator's last state, or 0 if memory ran out."""
    enter()
    x = seed
    for k in range(n):
        x = _step(x)
        r = mul64(x, _MULTIPLIER)
        size = _pick(r)
        if lsr(r, 40) % 3 == 0:
            addr = new_typed(layout.align_up(size, 8), type_addr, 0)
        else:
            addr = new_bytes(size, 0)
        if addr <= 0:
            x = 0
            break
        if k % KEEP_EVERY == 0:
            store_relaxed(boundary.slot_addr(k // KEEP_EVERY), addr)
    leave()
    return x


# --- the model ----------------------------------------------------------------------------------------------------------


def requests(n):
    """(size, has pointers) of each request, and the generator's last state."""
    x, made = SEED, []
    for _ in range(n):
        x ^= x >> 12
        x ^= x << 25 & _MASK64
        x ^= x >> 27
        r = x * _MULTIPLIER & _MASK64
        sizes = SMALL if r % 100 < 72 else MEDIUM if r % 100 < 97 else LARGE
        size = int(sizes[(r >> 8) % len(sizes)])
        pointerful = (r >> 40) % 3 == 0
        made.append((-(-size // 8) * 8 if pointerful else size, pointerful))
    return made, x


class Expected:
    """What the counters should say, counted request by request: objects by size class, large bytes, and those that die."""

    def __init__(self, n):
        self.allocs, self.kept = Counter(), Counter()
        self.large_bytes = self.kept_large_bytes = self.tiny = 0
        made, self.rng = requests(n)
        block, offset, blocks, kept_blocks = None, 0, 0, set()
        for k, (size, pointerful) in enumerate(made):
            keep = k % KEEP_EVERY == 0
            if size < 16 and not pointerful:
                align = 8 if size % 8 == 0 else 4 if size % 4 == 0 else 2 if size % 2 == 0 else 1
                at = -(-offset // align) * align
                if block is not None and at + size <= 16:
                    self.tiny += 1
                    offset, mine = at + size, block
                else:
                    mine, blocks = blocks, blocks + 1
                    if block is None or size < offset:
                        block, offset = mine, size
                if keep:
                    kept_blocks.add(mine)
                continue
            size_class = span_class_for(size, pointerful) // 2
            self.allocs[size_class] += 1
            self.kept[size_class] += keep
            if size_class == 0:
                self.large_bytes += layout.align_up(size, layout.PAGE_SIZE)
                self.kept_large_bytes += keep * layout.align_up(size, layout.PAGE_SIZE)
        self.allocs[2] += blocks
        self.kept[2] += len(kept_blocks)

    def by_size(self, counts):
        """In Go's order: classes 1 to 67, then large objects."""
        return [counts[c] for c in (*range(1, 68), 0)]

    def frees(self):
        return self.allocs - self.kept

    def bytes_of(self, counts, large_bytes):
        return sum(n * SIZES[c] for c, n in counts.items()) + large_bytes


@pytest.fixture(scope="module")
def expected():
    return Expected(N)


@pytest.fixture(scope="module")
def whole_tape():
    return Expected(GO["n"])


def test_the_model_counts_what_go_counted(whole_tape):
    after_alloc, after_gcs = GO["after_alloc"], GO["after_two_gcs"]
    assert whole_tape.rng == int(GO["final_rng_state"])
    assert whole_tape.by_size(whole_tape.allocs) == after_alloc["allocs_by_size_counts"]
    assert whole_tape.by_size(whole_tape.frees()) == after_gcs["frees_by_size_counts"]
    assert whole_tape.tiny == after_alloc["metrics_tiny_allocs_objects"]
    assert whole_tape.bytes_of(whole_tape.allocs, whole_tape.large_bytes) == after_alloc["TotalAlloc"]


# --- the heap -----------------------------------------------------------------------------------------------------------


class Counters:
    """MemStats as GO-style sums over the one P's totals; reading them empties the mcache, as ReadMemStats does."""

    def __init__(self):
        release_all_stw(layout.p_addr(0))
        self.by_p = [records.view(records.p_dtype, layout.p_addr(p))[0] for p in (0, layout.COORDINATOR_P)]
        self.allocs = [self._sum("small_alloc", c) for c in range(1, 68)] + [self._sum("large_alloc_count")]
        self.frees = [self._sum("small_free", c) for c in range(1, 68)] + [self._sum("large_free_count")]
        self.tiny = self._sum("tiny_alloc_count")
        self.total_alloc = self._bytes(self.allocs) + self._sum("large_alloc")
        self.total_free = self._bytes(self.frees) + self._sum("large_free")

    def _sum(self, field, idx=None):
        return sum(int(p[field] if idx is None else p[field][idx]) for p in self.by_p)

    def _bytes(self, counts):
        return sum(n * SIZES[c] for c, n in enumerate(counts[:67], 1))

    @property
    def mallocs(self):
        return sum(self.allocs) + self.tiny

    @property
    def frees_with_tiny(self):
        return sum(self.frees) + self.tiny


@pytest.fixture(scope="module")
def played():
    """Counters after the allocations and after two collections, and the generator's last state."""
    with kernel_heap(1 << 30):
        pacer.set_gc_percent(-1)
        pacer.commit(1)
        assert boundary.grow_handles(N // KEEP_EVERY + 1) == 0
        mask = reserve_mask(1)
        set_mask_word(mask, 0, 1)
        type_addr = publish_type(77, 8, 8, 0, mask)
        rng = play_tape(SEED - 2**64, N, type_addr)
        after_alloc = Counters()
        assert verify(3).problems == ()
        for _ in range(2):
            collect_now()
        report = verify(3)
        assert report.problems == ()
        yield after_alloc, Counters(), rng, report


def test_the_program_drew_what_go_drew(played, expected):
    assert played[2] % 2**64 == expected.rng


def test_counters_after_allocating(played, expected):
    after_alloc = played[0]
    assert after_alloc.allocs == expected.by_size(expected.allocs)
    assert after_alloc.mallocs == N
    assert after_alloc.frees_with_tiny == expected.tiny
    assert after_alloc.total_alloc == expected.bytes_of(expected.allocs, expected.large_bytes)


def test_counters_after_two_collections(played, expected):
    _, after_gcs, _, report = played
    assert after_gcs.allocs == expected.by_size(expected.allocs)
    assert after_gcs.frees == expected.by_size(expected.frees())
    kept_bytes = expected.bytes_of(expected.kept, expected.kept_large_bytes)
    assert after_gcs.total_alloc - after_gcs.total_free == kept_bytes == report.bytes
    assert sum(after_gcs.allocs) - sum(after_gcs.frees) == expected.kept.total() == report.objects
