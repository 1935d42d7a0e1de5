"""The page allocator against Go's recorded tapes (tests/data/pagealloc) and against lists of bits."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gomp.core import COMPILED
from gomp.core.heap import pagecache, palloc, scavenge, scavindex
from gomp.core.shm.layout import ARENA_SIZE, CHUNK_PAGES, PAGE_SIZE, SUMMARY_BASES, SUMMARY_START

DATA = Path(__file__).parents[1] / "data" / "pagealloc"
TAPES = sorted(DATA.glob("*.jsonl"))
ROOT_CHUNKS = (1 << palloc.ROOT_SHIFT) // CHUNK_PAGES


def tape(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def hex_words(words: Any) -> list[str]:
    """A chunk's eight bit words as the tapes print them."""
    return [f"{int(word) % 2**64:016x}" for word in words]


def unmask(word: int) -> list[int]:
    return [k for k in range(64) if int(word) >> k & 1]


class Player:
    """Plays a tape's operations on a real heap; each method returns what the tape says it should."""

    def __init__(self, heap, huge_page_bytes):
        self.heap = heap
        heap.mheap.huge_pages = huge_page_bytes // PAGE_SIZE

    def grow(self, chunk, nchunks):
        assert palloc.grow_locked(nchunks) == chunk * CHUNK_PAGES

    def alloc(self, npages):
        page, nscav = palloc.alloc_pages_locked(npages)
        return {"page": page, "scavenged_bytes": nscav * PAGE_SIZE}

    def free(self, page, npages):
        assert palloc.free_pages_locked(page, npages, 0) == npages

    def scavenge(self, bytes, force):  # noqa: A002  the tape's word
        return {"released": scavenge.scavenge(bytes, bytes, int(force), scavenge.ALWAYS)}

    def next_gen(self):
        scavindex.next_generation_locked()

    def cache_fill(self):
        npages = pagecache.fill_cache_locked(self.heap.p_addr)
        p = self.heap.p
        assert len(unmask(p.cache_free)) == npages
        free_mask, scav_mask = hex_words([p.cache_free, p.cache_scav])
        return {"page": p.cache_page if npages else -1, "free_mask": free_mask, "scav_mask": scav_mask}

    def cache_alloc(self, npages):
        page, nscav, _ = pagecache.alloc_cached(self.heap.p_addr, npages)
        return {"page": page, "scavenged_bytes": nscav * PAGE_SIZE}

    def cache_flush(self):
        pages = [self.heap.p.cache_page + k for k in unmask(self.heap.p.cache_free)]
        assert pagecache.flush_cache_locked(self.heap.p_addr) == len(pages)

    def check(self):
        total = int(self.heap.mheap.end_page)
        return {
            "pages_in_use": total - palloc.count_free_pages_locked(),
            "pages_free_and_scavenged": palloc.count_scavenged_pages_locked(),
            "pages_total": total,
        }

    def final_chunk(self, chunk):
        record = self.heap.chunk(chunk)
        return {"alloc_words": hex_words(record.alloc), "scavenged_words": hex_words(record.scav)}


@pytest.mark.parametrize("path", TAPES, ids=lambda path: path.stem)
def test_go_did_the_same(heap, path):
    init, *operations = tape(path)
    player = Player(heap, init["in"]["phys_huge_page_size"])
    for number, operation in enumerate(operations, 2):
        got = getattr(player, operation["op"])(**operation["in"])
        assert got == operation.get("out"), f"{path.name}, line {number}: {operation}"
        assert palloc.check_summaries_locked() == palloc.PALLOC_OK, f"{path.name}, line {number}: {operation}"
    assert len(operations) > 1900


# --- against lists of bits --------------------------------------------------------------------------------------------


class BitModel:
    """The same heap as two lists of bools and a list of what was allocated."""

    def __init__(self, max_chunks):
        self.max_pages = max_chunks * CHUNK_PAGES
        self.taken, self.scav, self.allocations = [], [], []
        self.cache = {}  # page -> scavenged

    def grow(self, nchunks):
        page = len(self.taken)
        if page + nchunks * CHUNK_PAGES > self.max_pages:
            return -1
        self.taken += [False] * (nchunks * CHUNK_PAGES)
        self.scav += [True] * (nchunks * CHUNK_PAGES)
        return page

    def alloc(self, npages):
        page = self._first_run([i for i, taken in enumerate(self.taken) if not taken], npages)
        if page < 0:
            return -1, 0
        nscav = sum(self.scav[page : page + npages])
        self.taken[page : page + npages] = [True] * npages
        self.scav[page : page + npages] = [False] * npages
        self.allocations.append((page, npages))
        return page, nscav

    def free(self, page, npages, scavenged):
        self.taken[page : page + npages] = [False] * npages
        self.scav[page : page + npages] = [bool(scavenged)] * npages

    def fill(self):
        page = self._first_run([i for i, taken in enumerate(self.taken) if not taken], 1)
        block = range(page // 64 * 64, page // 64 * 64 + 64) if page >= 0 else range(0)
        self.cache = {i: self.scav[i] for i in block if not self.taken[i]}
        for i in self.cache:
            self.taken[i], self.scav[i] = True, False
        return len(self.cache)

    def cache_alloc(self, npages):
        page = self._first_run(list(self.cache), npages)
        if page < 0:
            return -1, 0
        self.allocations.append((page, npages))
        return page, sum(self.cache.pop(i) for i in range(page, page + npages))

    def flush(self):
        flushed, self.cache = self.cache, {}
        for i, scavenged in flushed.items():
            self.taken[i], self.scav[i] = False, scavenged
        return len(flushed)

    @staticmethod
    def _first_run(pages, npages):
        run, last = 0, -2
        for i in pages:
            run = run + 1 if i == last + 1 else 1
            last = i
            if run == npages:
                return i - npages + 1
        return -1


def act(heap, model, action, number):
    """Do one action on both; they must answer the same. ``number`` chooses a size or an allocation."""
    if action == "grow":
        nchunks = number % 3 + 1
        assert palloc.grow_locked(nchunks) == model.grow(nchunks)
    elif action == "alloc":
        assert palloc.alloc_pages_locked(number) == model.alloc(number)
    elif action == "cache":
        npages = number % (pagecache.PAGE_CACHE_LIMIT - 1) + 1
        if not model.cache:
            assert pagecache.fill_cache_locked(heap.p_addr) == model.fill()
        assert pagecache.alloc_cached(heap.p_addr, npages)[:2] == model.cache_alloc(npages)
    elif action == "flush":
        assert pagecache.flush_cache_locked(heap.p_addr) == model.flush()
    elif model.allocations:
        page, npages = model.allocations.pop(number % len(model.allocations))
        scavenged = int(action == "release")
        assert palloc.free_pages_locked(page, npages, scavenged) == npages
        model.free(page, npages, scavenged)


def bits_of(heap, field, npages):
    return [
        bool(int(word) >> k & 1)
        for c in range(npages // CHUNK_PAGES)
        for word in heap.chunk(c)[field]
        for k in range(64)
    ]


def expect_same(heap, model):
    npages = len(model.taken)
    assert heap.mheap.end_page == npages
    assert bits_of(heap, "alloc", npages) == model.taken
    assert bits_of(heap, "scav", npages) == model.scav
    assert palloc.count_free_pages_locked() == npages - sum(model.taken)
    assert palloc.count_scavenged_pages_locked() == sum(model.scav)
    for c in range(npages // CHUNK_PAGES):
        summary = int(heap.summaries[SUMMARY_START[palloc.LEAF] + c])
        assert unpack(summary) == naive_summary(model.taken[c * CHUNK_PAGES : (c + 1) * CHUNK_PAGES])
    if npages:
        assert unpack(int(heap.summaries[0])) == naive_summary([*model.taken, True])
    assert palloc.check_summaries_locked() == palloc.PALLOC_OK


def unpack(summary):
    return summary & 0x1FFFFF, summary >> 21 & 0x1FFFFF, summary >> 42


def naive_summary(taken):
    runs = "".join("x" if t else "." for t in taken).split("x")
    return len(runs[0]), max(map(len, runs)), len(runs[-1])


ACTIONS = st.sampled_from(["alloc", "free", "alloc", "cache", "release", "flush", "grow"])
SIZES = st.one_of(st.integers(1, 20), st.integers(21, 130), st.integers(131, 1300))


@settings(max_examples=200 if COMPILED else 25, deadline=None)
@given(st.lists(st.tuples(ACTIONS, SIZES), min_size=1, max_size=60))
def test_random_actions_answer_as_a_list_of_bits_does(new_heap, program):
    with new_heap(5 * CHUNK_PAGES) as heap:
        model = BitModel(5)
        act(heap, model, "grow", 0)
        for action, number in program:
            act(heap, model, action, number)
            expect_same(heap, model)


@settings(max_examples=100 if COMPILED else 20, deadline=None)
@given(st.lists(st.booleans(), min_size=CHUNK_PAGES, max_size=CHUNK_PAGES), st.integers(1, 512))
def test_any_chunk_is_searched_and_summarized_bit_for_bit(new_heap, taken, npages):
    with new_heap(CHUNK_PAGES) as heap:
        model = BitModel(1)
        act(heap, model, "grow", 0)
        for page in [i for i, t in enumerate(taken) if t]:
            palloc.set_alloc_range_locked(page, 1)
            model.taken[page], model.scav[page] = True, False
        assert palloc.rebuild_summaries_locked() == taken.count(False)
        expect_same(heap, model)
        assert palloc.alloc_pages_locked(npages) == model.alloc(npages)
        expect_same(heap, model)


def test_random_runs_of_a_chunk(new_heap):
    """Long runs of every length and place, which random bits hardly ever have."""
    for npages in (1, 2, 31, 62, 63, 64, 65, 127, 128, 129, 300):
        for start in (0, 1, 30, 63, 64, 65, 127, 200, 212):
            with new_heap(CHUNK_PAGES) as heap:
                model = BitModel(1)
                act(heap, model, "grow", 0)
                act(heap, model, "alloc", CHUNK_PAGES)
                last = (CHUNK_PAGES - 5, 4 if start + npages <= CHUNK_PAGES - 5 else 0)
                for page, n in ((start, npages), last):
                    palloc.free_pages_locked(page, n, 0)
                    model.free(page, n, 0)
                expect_same(heap, model)
                assert palloc.find_pages_locked(npages + 1) == -1 or npages < 4
                assert palloc.alloc_pages_locked(npages) == (start, 0)


@pytest.mark.parametrize("edge_run", [40, 60, 61, 62])
def test_a_run_inside_a_word_counts_beside_nearly_as_long_ones_at_edges(heap, edge_run):
    palloc.grow_locked(1)
    palloc.take_pages_locked(0, CHUNK_PAGES)
    palloc.free_pages_locked(0, edge_run, 0)
    palloc.free_pages_locked(65, 62, 0)
    assert unpack(int(heap.summaries[SUMMARY_START[palloc.LEAF]])) == (edge_run, 62, 0)
    assert palloc.find_pages_locked(62) == (0 if edge_run == 62 else 65)


def test_runs_do_not_join_over_a_full_chunk(heap):
    palloc.grow_locked(5)
    palloc.take_pages_locked(0, 5 * CHUNK_PAGES)
    for page, npages in ((CHUNK_PAGES - 100, 100), (2 * CHUNK_PAGES, 100), (2100, 200)):
        palloc.free_pages_locked(page, npages, 0)
    assert palloc.find_pages_locked(150) == 2100


# --- the edges --------------------------------------------------------------------------------------------------------


def test_an_empty_heap_has_no_pages(heap):
    assert palloc.find_pages_locked(1) == -1
    assert pagecache.fill_cache_locked(heap.p_addr) == 0
    assert palloc.check_summaries_locked() == palloc.PALLOC_OK


def test_the_heap_does_not_grow_beyond_its_maximum(new_heap):
    with new_heap(2 * CHUNK_PAGES) as heap:
        assert palloc.grow_locked(3) == -1
        assert heap.mheap.end_page == 0
        assert palloc.grow_locked(2) == 0
        assert palloc.grow_locked(1) == -1
        assert palloc.alloc_pages_locked(2 * CHUNK_PAGES + 1) == (-1, 0)
        assert palloc.alloc_pages_locked(2 * CHUNK_PAGES) == (0, 2 * CHUNK_PAGES)
        assert palloc.find_pages_locked(1) == -1
        assert palloc.grow_locked(1) == -1


def test_a_failed_search_changes_no_later_answer(heap):
    palloc.grow_locked(1)
    palloc.alloc_pages_locked(CHUNK_PAGES)
    assert palloc.find_pages_locked(1) == -1
    palloc.free_pages_locked(77, 1, 0)
    assert palloc.find_pages_locked(2) == -1
    assert palloc.find_pages_locked(1) == 77


def test_ranges_over_chunks_and_words_are_exact(heap):
    palloc.grow_locked(3)
    assert palloc.set_alloc_range_locked(500, 600) == 600
    assert palloc.set_alloc_range_locked(500, 600) == 0
    assert palloc.clear_alloc_range_locked(450, 100) == 50
    assert palloc.set_scav_range_locked(440, 110) == 50
    assert palloc.rebuild_summaries_locked() == 3 * CHUNK_PAGES - 550
    assert palloc.count_scavenged_pages_locked() == 3 * CHUNK_PAGES - 550


def test_runs_join_across_root_entries(new_heap):
    """A heap that goes a little beyond one root entry of 16 GiB, and runs that no single entry shows."""
    edge = ROOT_CHUNKS * CHUNK_PAGES
    npages = edge + 2 * CHUNK_PAGES
    with new_heap(edge + ARENA_SIZE // PAGE_SIZE) as heap:
        assert palloc.grow_locked(ROOT_CHUNKS + 2) == 0
        assert heap.summaries[0] == palloc.ROOT_FREE
        assert palloc.find_pages_locked(npages + 1) == -1
        assert palloc.find_pages_locked(npages) == 0
        assert palloc.take_pages_locked(0, npages) == npages
        assert palloc.find_pages_locked(1) == -1
        palloc.free_pages_locked(edge - 700, 600, 0)
        palloc.free_pages_locked(edge - 50, 900, 1)
        assert palloc.alloc_pages_locked(901) == (-1, 0)
        assert palloc.alloc_pages_locked(900) == (edge - 50, 900)
        assert palloc.alloc_pages_locked(601) == (-1, 0)
        assert palloc.alloc_pages_locked(600) == (edge - 700, 0)
        assert palloc.check_summaries_locked() == palloc.PALLOC_OK


# --- the checks catch what they are for -------------------------------------------------------------------------------


def damaged_heap(heap):
    palloc.grow_locked(9)
    palloc.alloc_pages_locked(700)
    assert palloc.check_summaries_locked() == palloc.PALLOC_OK


@pytest.mark.parametrize("level", range(palloc.LEVELS))
def test_a_wrong_summary_is_found_and_rebuilt(heap, level):
    damaged_heap(heap)
    word_idx = (SUMMARY_BASES[level] - SUMMARY_BASES[0]) // 8
    right = int(heap.summaries[word_idx])
    heap.summaries[word_idx] = right ^ 1 << 21
    found = palloc.check_summaries_locked()
    assert found in {(SUMMARY_BASES[k] - SUMMARY_BASES[0]) // 8 for k in (level - 1, level) if k >= 0}
    palloc.rebuild_summaries_locked()
    assert heap.summaries[word_idx] == right
    assert palloc.check_summaries_locked() == palloc.PALLOC_OK


def test_a_free_page_below_the_search_page_is_found(heap):
    damaged_heap(heap)
    heap.mheap.search_page = 900
    assert palloc.check_summaries_locked() == palloc.PALLOC_SEARCH_PAGE


def test_a_taken_page_that_is_marked_scavenged_is_found(heap):
    damaged_heap(heap)
    heap.chunk(0).scav[3] = 1
    assert palloc.check_summaries_locked() == palloc.PALLOC_SCAVENGED
