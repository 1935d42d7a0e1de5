"""Level 2: each page belongs to one span or is free, as bits, summaries and page caches say."""

from __future__ import annotations

import numpy as np

from gomp.core.gc.verify.problems import (
    CACHED_PAGE,
    CACHED_TWICE,
    CACHED_ZERO,
    FREE_BYTES,
    PAGE_HEAD,
    PAGE_LOST,
    PAGE_NOT_TAKEN,
    PAGE_SCAVENGED,
    RELEASED_BYTES,
    SUMMARY,
    expect,
    problem,
)
from gomp.core.gc.verify.slots import after, p_number
from gomp.core.heap import mspan
from gomp.core.heap.palloc import PALLOC_OK, check_summaries_locked
from gomp.core.jit import inline, kernel
from gomp.core.shm import layout
from gomp.core.shm.atomics import load_relaxed, lsr, popcount
from gomp.core.shm.records import (
    MHEAP_XCOMMITTED,
    MHEAP_XINUSE,
    MHEAP_XRELEASED,
    SPAN_DEAD,
    chunks,
    mheap,
    p_at,
    p_records,
    page_heads,
    spans,
)


@inline
def _alloc_bit(page: int) -> int:
    return lsr(chunks()[page >> layout.CHUNK_SHIFT].alloc[(page & (layout.CHUNK_PAGES - 1)) >> 6], page & 63) & 1


@inline
def _scav_bit(page: int) -> int:
    return lsr(chunks()[page >> layout.CHUNK_SHIFT].scav[(page & (layout.CHUNK_PAGES - 1)) >> 6], page & 63) & 1


@inline
def _is_in_cache(p: int, page: int) -> bool:
    pp = p_at(layout.p_addr(p))
    at = page - pp.cache_page
    return pp.cache_free != 0 and 0 <= at < 64 and lsr(pp.cache_free, at) & 1 == 1


@kernel("void(int64)")
def check_pages(out: int) -> None:
    """Level 2: each page is in one span, or in one page cache, or free. World: stopped."""
    end = mheap().end_page
    free, released = 0, 0
    page = 0
    while page < end:
        if spans()[page].state != SPAN_DEAD:
            stop = min(after(page), end)
            for at in range(page, stop):
                _check_span_page(out, page, at)
            page = stop
            continue
        if _alloc_bit(page) == 0:
            released += _scav_bit(page)
            free += 1 - _scav_bit(page)
        elif _is_cached_or_taking(page) == 0:
            problem(out, PAGE_LOST, page, 0, 0)
        page += 1
    for i in range(p_records()):
        pp = p_at(layout.p_addr(p_number(i)))
        released += popcount(pp.cache_scav)
        free += popcount(pp.cache_free) - popcount(pp.cache_scav)
        _check_page_cache(out, i)
    expect(out, FREE_BYTES, load_relaxed(MHEAP_XCOMMITTED) - load_relaxed(MHEAP_XINUSE), free << layout.PAGE_SHIFT)
    expect(out, RELEASED_BYTES, load_relaxed(MHEAP_XRELEASED), released << layout.PAGE_SHIFT)
    expect(out, SUMMARY, check_summaries_locked(), PALLOC_OK)


@kernel("void(int64, int64, int64)")
def _check_span_page(out: int, page: int, at: int) -> None:
    if _alloc_bit(at) == 0:
        problem(out, PAGE_NOT_TAKEN, at, page, 0)
    if _scav_bit(at) == 1:
        problem(out, PAGE_SCAVENGED, at, 0, 0)
    head = np.int64(page_heads()[at])
    if head != mspan.head_entry(spans()[page].span_class, spans()[page].elem_size, at - page):
        problem(out, PAGE_HEAD, at, page, head)


@kernel("int64(int64)")
def _is_cached_or_taking(page: int) -> int:
    """1 if the page is in a page cache, or on its way into a span."""
    for i in range(p_records()):
        p = p_number(i)
        pp = p_at(layout.p_addr(p))
        if _is_in_cache(p, page):
            return 1
        if pp.taking_page != mspan.NO_SPAN and pp.taking_page <= page < pp.taking_page + pp.taking_npages:
            return 1
    return 0


@kernel("void(int64, int64)")
def _check_page_cache(out: int, i: int) -> None:
    """Each page of the i-th P's cache is taken, in no span and in no other cache."""
    p = p_number(i)
    pp = p_at(layout.p_addr(p))
    strange = pp.cache_zero & (~pp.cache_free | pp.cache_scav)
    if strange != 0:
        problem(out, CACHED_ZERO, p, pp.cache_zero, strange)
    for k in range(64):
        if lsr(pp.cache_free, k) & 1 == 0:
            continue
        page = pp.cache_page + k
        span = mspan.find_span(layout.page_to_addr(page))  # the heads of spans' pages have been checked
        if span != mspan.NO_SPAN or _alloc_bit(page) == 0 or _scav_bit(page) == 1:
            problem(out, CACHED_PAGE, page, p, span)
        for j in range(i):
            if _is_in_cache(p_number(j), page):
                problem(out, CACHED_TWICE, page, p, p_number(j))
