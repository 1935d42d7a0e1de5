"""What the verifier has found: counts and problems, in a private buffer whose address its kernels are given.

Words 0..6 as named below, 68 counts of objects by size class, then the first problems, four words each: a code and what it is about.
:data:`PROBLEMS` turns them into sentences.
"""

from __future__ import annotations

from gomp.core.jit import inline, kernel
from gomp.core.shm.atomics import load64, store64

OUT_CAPACITY, OUT_PROBLEMS, OUT_SPANS, OUT_OBJECTS, OUT_BYTES, OUT_PAGES, OUT_PENDING = range(7)
CLASS_COUNTS = 7 * 8
FIRST_PROBLEM = CLASS_COUNTS + 68 * 8
PROBLEM_WORDS = 4

(
    LOCK_HELD, NO_PARK, WORK_LEFT, HEAP_BYTES, IN_USE_BYTES, IN_USE_PAGES, OBJECT_TOTAL, LARGE_TOTAL, LIVE_TOO_LOW,
    PAGE_NOT_TAKEN, PAGE_SCAVENGED, PAGE_HEAD, PAGE_LOST, CACHED_PAGE, CACHED_TWICE, FREE_BYTES, RELEASED_BYTES, SUMMARY,
    SPAN_SHAPE, SPAN_PAST_END, SPAN_STATE, NOT_CACHED, IN_NO_LIST, IN_WRONG_LIST, ALLOC_COUNT, STRAY_BITS, STRAY_MARK, MARKED_FREE,
    LIST_MEMBER, LIST_COUNT, LIST_TAIL, CACHE_ENTRY, CACHE_WINDOW,
    BAD_POINTER, DANGLING, UNMARKED, METADATA_BYTES, WBUF_BYTES, TABLE_BYTES,
    SPECIAL_ADDRESS, SPECIAL_LISTED, SPECIAL_ORDER, SPECIAL_QUEUES, PROFILE_BUCKET, PROFILE_COUNTS,
    STACK_BYTES, STACK_COUNT, STACK_FREE, STACK_OF_G, STACK_TWICE, G_COUNT, G_FRAME, G_RUNS, G_QUEUED, G_LISTED, CHAN_LAST,
    TABLE_SIZE, REDO_LEFT, P_HANDLES, P_NATIVE_ROOTS, P_SPANQ, P_WBUF, NOT_ZERO, CACHE_NEEDZERO, CACHED_ZERO,
) = range(1, 66)  # fmt: skip

# What each code says of its three words a, b, c.
PROBLEMS = {
    LOCK_HELD: "the lock at {a:#x} is held by P {b} while the world is stopped",
    NO_PARK: "P {a} stands outside every kernel with {b} things in hand, expected 0",
    WORK_LEFT: "{a} full work buffers while nothing is marked, expected 0",
    HEAP_BYTES: "in use + free + released is {a} bytes, expected {b}: all that the heap has grown to",
    IN_USE_BYTES: "heap_inuse is {a}, expected {b}: the bytes of the spans and of those being made",
    METADATA_BYTES: "xmetadata_bytes is {a}, expected {b}: what is committed for the pages that the heap has grown to",
    WBUF_BYTES: "xwbuf_bytes is {a}, expected {b}: the work buffers and span queues",
    TABLE_BYTES: "xtable_bytes is {a}, expected {b}: the records and tables",
    IN_USE_PAGES: "pages_in_use is {a}, expected {b}: the pages of the spans and of those being made",
    OBJECT_TOTAL: "size class {a}: {b} objects allocated and not freed, {c} found",
    LARGE_TOTAL: "{a} bytes of large objects allocated and not freed, {b} found",
    LIVE_TOO_LOW: "heap_live is {a}, expected at least heap_marked, {b}",
    PAGE_NOT_TAKEN: "page {a} of the span at page {b} is free in the bitmap, expected taken",
    PAGE_SCAVENGED: "page {a}, which is taken, is marked scavenged",
    PAGE_HEAD: "page {a}: its head entry is {c}, expected the span at page {b}",
    PAGE_LOST: "page {a} is taken and in no span and no page cache",
    CACHED_PAGE: "page {a} is in the page cache of P {b} and in the span at page {c} or free in the bitmap",
    CACHED_ZERO: "P {a} takes the pages {b:#x} of its cache for zero, and has not or not committed {c:#x} of them",
    CACHED_TWICE: "page {a} is in the page caches of P {b} and P {c}",
    FREE_BYTES: "heap_free is {a}, expected {b}: the free pages that are committed",
    RELEASED_BYTES: "heap_released is {a}, expected {b}: the free pages that are scavenged",
    SUMMARY: "page summaries: check_summaries_locked found {a}, expected {b}",
    SPAN_SHAPE: "span at page {a} of class {b}: its field {c} (npages, elem_size, nelems, div_magic) is not that of the class",
    SPAN_PAST_END: "span at page {a} has {b} pages, which end after the heap's {c}",
    SPAN_STATE: "span at page {a} has state {b:#x}, which is neither unswept, swept nor cached at sweepgen {c}",
    NOT_CACHED: "span at page {a} says that it is cached; {b} mcaches have it, expected 1",
    IN_NO_LIST: "span at page {a} of class {b} is in list {c}, expected none: it is cached",
    IN_WRONG_LIST: "span at page {a} is in list {b}, expected list {c}",
    ALLOC_COUNT: "span at page {a}: alloc_count is {b}, {c} slots are allocated",
    STRAY_BITS: "span at page {a}: bits {c:#x} are set beyond its {b} slots",
    STRAY_MARK: "span at page {a}, which is swept, has marks {c:#x} in window {b}",
    MARKED_FREE: "span at page {a}: slots {c:#x} of window {b} are marked and not allocated",
    LIST_MEMBER: "list {b} of class {a} holds the page {c}, which is no span that belongs to it",
    LIST_COUNT: "list {b} of class {a} has another length than its count and its spans say: {c}",
    LIST_TAIL: "list {b} of class {a} ends at page {c}, not at its tail",
    CACHE_ENTRY: "mcache of P {a}, class {b}: page {c} is no span that belongs there",
    CACHE_WINDOW: "mcache of P {a}, class {b}: the window of the span at page {c} offers allocated slots or another address",
    CACHE_NEEDZERO: "mcache of P {a}, class {b}: whether its slots are to be zeroed is not what the span at page {c} says",
    NOT_ZERO: "the span at page {a} says that its free slots are zero; at {b:#x} is {c:#x}",
    BAD_POINTER: "the reference at {b:#x} is {a:#x}, which is in no span in use",
    DANGLING: "the reference at {b:#x} is {a:#x}, a free slot of the span at page {c}",
    SPECIAL_ADDRESS: "special {a} is for {b:#x}, which is no allocated object",
    SPECIAL_LISTED: "{a} specials are in the lists of spans, expected {b}: the armed ones",
    SPECIAL_QUEUES: "{a} specials are in the queues of Ps, expected {b}: those that are due",
    SPECIAL_ORDER: "special {b} in the list of the span at page {a} is in state {c}, or not of this span, or out of order",
    PROFILE_BUCKET: "special {a} of the memory profile names bucket {b}, of {c}",
    PROFILE_COUNTS: "the memory profile counts {a} objects made and not dead, expected {b}: its specials",
    STACK_BYTES: "xspan_bytes is {a}, expected {b}: the spans of stacks",
    STACK_COUNT: "the span of stacks at page {a}: alloc_count is {b}, expected {c}: those of goroutines and in the caches of Ps",
    STACK_FREE: "the span of stacks at page {a} has {b} free ones in its list, expected {c}",
    STACK_OF_G: "goroutine {a} has the stack at {b:#x} of {c} bytes, which is none in a span of stacks",
    STACK_TWICE: "the stack at {a:#x} is in use twice, or in use and in a cache",
    G_COUNT: "{a} goroutine records are in the lists of free ones, expected {b}: those that are dead",
    G_FRAME: "goroutine {a}: what lies at {b:#x} is no frame of its stack; its type would be at {c:#x}",
    G_QUEUED: "goroutine {a} of status {b} is in {c} queues; one that is ready and has no home, or waits at a channel, is in one, any other in none",
    G_LISTED: "{a} goroutines are in the list of ready ones, expected {b}: its size",
    CHAN_LAST: "the last goroutine in the queue of a channel is {a}, expected {b}",
    G_RUNS: "goroutine {a} of status {b} is not what P {c} says that it runs",
    TABLE_SIZE: "the table at {a:#x} has {b} entries, and room for {c}",
    REDO_LEFT: "P {a} stands outside every kernel with {b} stores to be done again, expected 0",
    P_HANDLES: "P {a} has {b} handles, and room for {c}",
    P_NATIVE_ROOTS: "P {a} has published {b} words of its native stack, and has room for {c}",
    P_SPANQ: "the span queue of P {a} has {b} entries, and room for {c}",
    P_WBUF: "P {a} has the work buffer at {b:#x}, which is none of the {c} that there are",
    UNMARKED: "the reference at {b:#x} is {a:#x}, an object of the span at page {c} that is not marked",
}


@inline
def get_word(out: int, word: int) -> int:
    return load64(out + 8 * word)


@inline
def add_word(out: int, word: int, delta: int) -> None:
    store64(out + 8 * word, load64(out + 8 * word) + delta)


@kernel("void(int64, int64, int64, int64, int64)")
def problem(out: int, code: int, a: int, b: int, c: int) -> None:
    """Count a problem, and write it down if there is room."""
    n = get_word(out, OUT_PROBLEMS)
    if n < get_word(out, OUT_CAPACITY):
        at = out + FIRST_PROBLEM + 8 * PROBLEM_WORDS * n
        store64(at, code)
        store64(at + 8, a)
        store64(at + 16, b)
        store64(at + 24, c)
    store64(out + 8 * OUT_PROBLEMS, n + 1)


@kernel("void(int64, int64, int64, int64)")
def expect(out: int, code: int, found: int, expected: int) -> None:
    if found != expected:
        problem(out, code, found, expected, 0)
