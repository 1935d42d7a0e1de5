"""Each problem that the verifier knows is found when exactly that is broken, and a sound heap has none."""

from __future__ import annotations

import re

import numpy as np
import pytest
from heap_world import heap_world

from gomp.core.gc.memprofile import find_or_make_bucket_locked
from gomp.core.gc.specials import profile_locked
from gomp.core.gc.stackrebuild import manual_span_of
from gomp.core.gc.verify import problems as codes
from gomp.core.heap import mspan
from gomp.core.heap.gs import take_g
from gomp.core.heap.waitq import LAST_RECEIVER, RECEIVERS
from gomp.core.mutator.lifetimes import add_cleanup
from gomp.core.shm import layout, records
from gomp.core.shm.atomics import load64, store64
from gomp.core.shm.records import GC_TRIGGER_HEAP, SET_NONE
from gomp.errors import OutOfMemory
from gomp.runtime.verify import MAX_PROBLEMS, Scratch, verify

SIZE = 64
FRESH, SWEPT, UNSWEPT = "fresh", "swept", "unswept"


class Broken:
    """A small heap to be damaged: P 0 has objects of several sizes, two of them linked, and their records are at hand."""

    def __init__(self, world):
        self.world = world
        node = world.struct_type(SIZE, (0, 3))
        self.nodes = [world.new(0, SIZE, node) for _ in range(5)]
        self.numbers = [world.new(0, 1024) for _ in range(3)]
        self.big = world.new(0, 40_000)
        self.other = world.new(1, 2048)
        self.a, self.b = (world.address(root) for root in self.nodes[:2])
        store64(self.a, self.b)
        self.node_page = mspan.find_span(self.a)
        self.number_page = mspan.find_span(world.address(self.numbers[0]))
        self.big_page = mspan.find_span(world.address(self.big))
        self.node_class = int(self.span(self.node_page).span_class)
        world.be(0)
        self.special = records.view(records.special_dtype, layout.SPECIALS_BASE)[
            add_cleanup(self.nodes[0][1], 8, 1) - 1
        ]

        bucket = find_or_make_bucket_locked(self.a, 0, SIZE)
        self.bucket = records.view(records.bucket_dtype, layout.PROFILE_BUCKETS_BASE)[0]
        self.profiled = records.view(records.special_dtype, layout.SPECIALS_BASE, 2)[profile_locked(self.b, bucket) - 1]

        self.stacks = records.view(records.stackpool_dtype, records.STACKPOOL)[0]
        self.g = take_g()
        self.goroutine = records.view(records.g_dtype, layout.g_addr(self.g))[0]
        self.goroutine.xstatus = records.G_WAITING

    def span(self, page):
        return records.view(records.span_dtype, mspan.span_addr(page))[0]

    def chunk(self):
        return records.view(records.chunk_dtype, layout.CHUNKS_BASE)[0]

    def mcentral(self):
        return records.view(records.mcentral_dtype, layout.MCENTRALS_BASE + 128 * self.node_class)[0]

    def entry(self):
        at = layout.p_addr(0) + records.P_MCACHE + records.MCACHE_ENTRY * self.node_class
        return records.view(records.mcache_dtype, at)[0]

    def which(self):
        return int(self.span(self.node_page).set)

    def set_alloc_bit(self, page, on):
        at = layout.CHUNKS_BASE + page // 64 * 8
        bit = 1 << page % 64
        store64(at, load64(at) | bit if on else load64(at) & ~bit)


def damage_lock(h):
    h.world.mheap.xlock = 1


def damage_map_lock(h):
    store64(layout.MAP_LOCKS_BASE + (layout.MAP_LOCKS - 1) * layout.MAP_LOCK_SIZE, 1)


def damage_no_park(h):
    h.world.ps[0].no_park = 1


def damage_work_left(h):
    h.world.runtime.xwbuf_full = 1


def damage_metadata(heap):
    heap.world.mheap.xmetadata_bytes += 4096


def damage_work_buffers(heap):
    heap.world.mheap.xwbuf_bytes -= 2048


def damage_tables(heap):
    heap.world.mheap.xtable_bytes += 1


def damage_released(h):
    h.world.mheap.xheap_released += 8192


def damage_free(h):
    h.world.mheap.xheap_committed += 8192


def damage_in_use(h):
    h.world.mheap.xheap_inuse += 8192


def damage_pages_in_use(h):
    h.world.mheap.pages_in_use += 1


def damage_total(h):
    h.world.ps[0].small_alloc[5] += 1


def damage_large_total(h):
    h.world.ps[0].large_alloc += 8192


def damage_live(h):
    h.world.pacer.xheap_live = h.world.pacer.heap_marked - 8


def damage_alloc_bit(h):
    h.set_alloc_bit(h.node_page, False)


def damage_scav_bit(h):
    h.chunk().scav[h.node_page // 64] |= 1 << h.node_page % 64


def damage_head(h):
    records.view(np.dtype("i4"), layout.PAGE_HEADS_BASE, layout.CHUNK_PAGES)[h.big_page + 2] = 1


def damage_lost_page(h):
    h.set_alloc_bit(layout.CHUNK_PAGES - 1, True)


def damage_page_cache(h):
    p = h.world.ps[0]
    assert p.cache_page == h.node_page // 64 * 64
    p.cache_free |= 1 << h.node_page % 64


def damage_two_page_caches(h):
    p, q = h.world.ps
    q.cache_page, q.cache_free, q.cache_scav = p.cache_page, p.cache_free, p.cache_scav


def damage_summary(h):
    records.view(np.dtype("i8"), layout.SUMMARY_BASES[4], 1)[0] += 1


def damage_shape(h):
    h.span(h.node_page).elem_size += 8


def damage_npages(h):
    h.span(h.big_page).npages = 1 << 20


def damage_sweepgen(h):
    h.span(h.node_page).xstate = h.world.runtime.sweepgen - 1


def damage_cached_state(h):
    h.span(h.node_page).xstate += 3


def damage_cached_set(h):
    h.span(h.node_page).set = 0


def damage_set(h):
    h.span(h.node_page).set ^= 2


def damage_alloc_count(h):
    h.span(h.node_page).alloc_count -= 1


def damage_bits(h):
    h.span(h.number_page).bits[0] |= 1 << 60


def damage_mark(h):
    store64(mspan.mark_bits_addr(h.node_page), 2)


def damage_mark_of_free(h):
    at = mspan.mark_bits_addr(h.node_page)
    store64(at, load64(at) | 1 << 20)


def damage_mark_of_live(h):
    at = mspan.mark_bits_addr(h.node_page)
    store64(at, load64(at) & ~(1 << int(mspan.obj_idx_of(h.node_page, h.b))))


def damage_list_head(h):
    h.mcentral().head[h.which()] = h.big_page


def damage_list_count(h):
    h.mcentral().count[h.which()] += 1


def damage_list_tail(h):
    h.mcentral().tail[h.which()] = h.big_page


def damage_entry(h):
    h.entry().page = h.big_page


def damage_window(h):
    h.entry().base_addr += SIZE


def damage_reference_to_free_page(h):
    store64(h.a, layout.page_to_addr(layout.CHUNK_PAGES - 1))


def damage_reference_to_free_slot(h):
    store64(h.a, mspan.obj_addr(h.node_page, 20))


def damage_special_address(h):
    h.special.addr = mspan.obj_addr(h.node_page, 20)


def damage_special_list(h):
    h.span(h.node_page).specials = 0


def damage_special_state(h):
    h.special.xstate = records.SPECIAL_FREE


def damage_profile_bucket(h):
    h.profiled.value = 2


def damage_profile_counts(h):
    h.bucket.published_frees = 1


def damage_special_queue(h):
    h.world.ps[0].cleanups = 1


def damage_stack_bytes(h):
    h.stacks.xspan_bytes += 8192


def damage_stack_count(h):
    h.span(manual_span_of(h.goroutine.xstack & ~63)).alloc_count += 1


def damage_cached_stacks(h):
    h.world.ps[0].stack_bytes[0] += 2048


def damage_stack_of_goroutine(h):
    h.goroutine.xstack += 1


def damage_stack_in_use(h):
    h.world.ps[0].stack_free[0] = h.goroutine.xstack & ~63


def damage_frame(h):
    h.goroutine.depth = 64


def damage_running(h):
    h.goroutine.xstatus = records.G_RUNNING


def damage_queued_goroutine(h):
    h.goroutine.xstatus = records.G_RUNNABLE


def damage_waiting_goroutine(h):
    wait_at_a_channel(h)
    h.goroutine.wait = records.WAITS_TO_SEND


def damage_last_who_waits(h):
    store64(wait_at_a_channel(h) + LAST_RECEIVER, 7)


def wait_at_a_channel(h):
    """Its address, which is no object's: any memory of the heap will do."""
    channel = h.goroutine.xstack & ~63
    for word in range(10):
        store64(channel + 8 * word, 0)
    h.goroutine.wait, h.goroutine.chan, h.goroutine.done = records.WAITS_TO_RECEIVE, channel, 0
    store64(channel + RECEIVERS, h.g)
    store64(channel + LAST_RECEIVER, h.g)
    return channel


def damage_listed_goroutines(h):
    records.view(records.sched_dtype, records.SCHED)[0].xrunq_size += 1


def damage_free_goroutines(h):
    h.world.ps[0].g_nfree += 1


def damage_redo_record(h):
    h.world.ps[1].xredo_n = 2


def damage_handles(h):
    h.world.ps[1].handles = layout.HANDLES_PER_P


def damage_native_roots(h):
    h.world.ps[1].xnative_n = -1


def damage_span_queue(h):
    h.world.ps[1].spanq_tail = h.world.ps[1].spanq_head - 1


def damage_work_buffer(h):
    h.world.ps[1].wbuf2 = layout.WBUFS_BASE + 8


def damage_free_slot(h):
    free = int(h.entry().free)
    store64(int(h.entry().base_addr) + 8 + int(h.span(h.entry().page).elem_size) * (free.bit_length() - 1), 7)


def damage_needzero(h):
    h.span(h.entry().page).needzero ^= 1


def damage_cached_zero(h):
    h.world.ps[1].cache_zero = -1


def damage_page_of_an_entry(h):
    h.entry().page = 1 << 40


def damage_size_of_a_table(h):
    records.view(records.sched_dtype, records.SCHED)[0].ngs = layout.MAX_GS + 1


def damage_end_of_the_heap(h):
    """There is room for it in the address space, but not in this heap."""
    h.world.mheap.end_page = h.world.runtime.max_pages + layout.CHUNK_PAGES


def damage_size_of_the_heap(h):
    h.world.runtime.max_pages = layout.HEAP_PAGES + 1


DAMAGES = [
    (codes.TABLE_SIZE, damage_size_of_a_table, FRESH), (codes.TABLE_SIZE, damage_end_of_the_heap, FRESH),
    (codes.TABLE_SIZE, damage_size_of_the_heap, FRESH),
    (codes.REDO_LEFT, damage_redo_record, FRESH), (codes.P_HANDLES, damage_handles, FRESH), (codes.P_NATIVE_ROOTS, damage_native_roots, FRESH),
    (codes.P_SPANQ, damage_span_queue, FRESH), (codes.P_WBUF, damage_work_buffer, FRESH), (codes.CACHE_ENTRY, damage_page_of_an_entry, FRESH),
    (codes.LOCK_HELD, damage_lock, FRESH), (codes.LOCK_HELD, damage_map_lock, FRESH), (codes.NO_PARK, damage_no_park, FRESH),
    (codes.WORK_LEFT, damage_work_left, FRESH),
    (codes.HEAP_BYTES, damage_released, FRESH), (codes.METADATA_BYTES, damage_metadata, FRESH),
    (codes.WBUF_BYTES, damage_work_buffers, FRESH), (codes.TABLE_BYTES, damage_tables, FRESH),
    (codes.IN_USE_BYTES, damage_in_use, FRESH), (codes.IN_USE_PAGES, damage_pages_in_use, FRESH),
    (codes.OBJECT_TOTAL, damage_total, FRESH), (codes.LARGE_TOTAL, damage_large_total, FRESH),
    (codes.LIVE_TOO_LOW, damage_live, SWEPT), (codes.PAGE_NOT_TAKEN, damage_alloc_bit, FRESH),
    (codes.PAGE_SCAVENGED, damage_scav_bit, FRESH), (codes.PAGE_HEAD, damage_head, FRESH),
    (codes.PAGE_LOST, damage_lost_page, SWEPT), (codes.CACHED_PAGE, damage_page_cache, FRESH),
    (codes.CACHED_ZERO, damage_cached_zero, FRESH), (codes.CACHED_TWICE, damage_two_page_caches, FRESH), (codes.FREE_BYTES, damage_free, FRESH),
    (codes.RELEASED_BYTES, damage_released, FRESH), (codes.SUMMARY, damage_summary, FRESH),
    (codes.SPAN_SHAPE, damage_shape, FRESH), (codes.SPAN_PAST_END, damage_npages, FRESH),
    (codes.SPAN_STATE, damage_sweepgen, SWEPT), (codes.NOT_CACHED, damage_cached_state, SWEPT),
    (codes.IN_NO_LIST, damage_cached_set, FRESH), (codes.IN_WRONG_LIST, damage_set, SWEPT),
    (codes.ALLOC_COUNT, damage_alloc_count, FRESH), (codes.STRAY_BITS, damage_bits, FRESH),
    (codes.STRAY_MARK, damage_mark, SWEPT), (codes.MARKED_FREE, damage_mark_of_free, UNSWEPT),
    (codes.LIST_MEMBER, damage_list_head, SWEPT), (codes.LIST_COUNT, damage_list_count, SWEPT),
    (codes.LIST_TAIL, damage_list_tail, SWEPT), (codes.CACHE_ENTRY, damage_entry, FRESH),
    (codes.CACHE_WINDOW, damage_window, FRESH), (codes.NOT_ZERO, damage_free_slot, FRESH), (codes.CACHE_NEEDZERO, damage_needzero, FRESH),
    (codes.BAD_POINTER, damage_reference_to_free_page, FRESH),
    (codes.DANGLING, damage_reference_to_free_slot, FRESH), (codes.UNMARKED, damage_mark_of_live, UNSWEPT),
    (codes.SPECIAL_ADDRESS, damage_special_address, FRESH), (codes.SPECIAL_LISTED, damage_special_list, FRESH),
    (codes.PROFILE_BUCKET, damage_profile_bucket, SWEPT), (codes.PROFILE_COUNTS, damage_profile_counts, SWEPT),
    (codes.SPECIAL_ORDER, damage_special_state, FRESH), (codes.SPECIAL_QUEUES, damage_special_queue, FRESH),
    (codes.STACK_BYTES, damage_stack_bytes, SWEPT), (codes.STACK_COUNT, damage_stack_count, FRESH),
    (codes.STACK_FREE, damage_cached_stacks, FRESH), (codes.STACK_OF_G, damage_stack_of_goroutine, SWEPT),
    (codes.STACK_TWICE, damage_stack_in_use, FRESH), (codes.G_COUNT, damage_free_goroutines, FRESH),
    (codes.G_FRAME, damage_frame, FRESH), (codes.G_RUNS, damage_running, FRESH),
    (codes.G_QUEUED, damage_queued_goroutine, FRESH), (codes.G_QUEUED, damage_waiting_goroutine, FRESH),
    (codes.CHAN_LAST, damage_last_who_waits, FRESH), (codes.G_LISTED, damage_listed_goroutines, FRESH),
]  # fmt: skip


@pytest.fixture
def heap(request):
    with heap_world(nprocs=2, max_pages=layout.CHUNK_PAGES) as world:
        broken = Broken(world)
        if request.param != FRESH:
            world.collect(GC_TRIGGER_HEAP)
        if request.param == SWEPT:
            world.collect()
        world.verify(3)
        yield broken


def says(code):
    """A pattern of the sentences with this code."""
    parts = re.split(r"\{[^}]*\}", codes.PROBLEMS[code])
    return re.compile(".+".join(map(re.escape, parts)))


@pytest.mark.parametrize(
    ("code", "damage", "heap"), DAMAGES, indirect=["heap"], ids=[d[1].__name__.removeprefix("damage_") for d in DAMAGES]
)
def test_damage_is_found(code, damage, heap):
    damage(heap)
    problems = verify(3).problems
    assert any(says(code).fullmatch(line) for line in problems), problems


def test_every_problem_has_a_damage():
    assert {code for code, _, _ in DAMAGES} == set(codes.PROBLEMS)


@pytest.mark.parametrize("heap", [FRESH], indirect=True)
def test_a_sentence_names_the_place_the_expected_and_the_found(heap):
    damage_cached_set(heap)
    assert (
        f"span at page {heap.node_page} of class {heap.node_class} is in list 0, expected none: it is cached"
        in verify(2).problems
    )


@pytest.mark.parametrize("heap", [FRESH], indirect=True)
def test_lower_levels_look_at_less(heap):
    damage_reference_to_free_slot(heap)
    assert verify(1).problems == verify(2).problems == ()
    assert len(verify(3).problems) == 1
    damage_summary(heap)
    assert verify(1).problems == ()
    assert len(verify(2).problems) == 1


@pytest.mark.parametrize("heap", [SWEPT], indirect=True)
def test_more_problems_than_the_report_has_room_for_are_counted(heap):
    for page in range(layout.CHUNK_PAGES):
        heap.set_alloc_bit(page, True)
    problems = verify(2).problems
    assert len(problems) == MAX_PROBLEMS + 1
    assert re.fullmatch(r"\d+ more", problems[-1])


@pytest.mark.parametrize("heap", [FRESH, SWEPT, UNSWEPT], indirect=True)
def test_a_report_counts_what_there_is(heap):
    report = verify(3)
    assert report.objects == report.reached == 10
    assert report.spans == 4
    assert report.bytes == 5 * SIZE + 3 * 1024 + 40_960 + 2048
    cached = heap.span(heap.node_page).set == SET_NONE
    assert cached == (heap.entry().page == heap.node_page)


@pytest.mark.parametrize("heap", [FRESH], indirect=True)
def test_memory_for_looking_through_the_heap_is_taken_from_the_budget(heap):
    from gomp.core.shm.records import MHEAP_XBUDGET

    before = load64(MHEAP_XBUDGET)
    scratch = Scratch()
    store64(MHEAP_XBUDGET, (2 << 20) - 1)
    with pytest.raises(OutOfMemory, match="no room for the 2,097,152 bytes that looking through the heap takes"):
        scratch.zeroed(2 << 20)
    address = scratch.zeroed(1000)
    assert load64(MHEAP_XBUDGET) == (2 << 20) - 1 - (64 << 10)
    with pytest.raises(OutOfMemory):
        scratch.zeroed(2 << 20)
    assert scratch.zeroed(64 << 10) == address
    store64(MHEAP_XBUDGET, before)
