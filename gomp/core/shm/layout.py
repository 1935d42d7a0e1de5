"""The address map: which address means what, identical in every process, and the only conversions between units.

Words: an *address* is absolute and 0 is null; a *page* is Go's 8 KiB runtime page, numbered from the start of the heap; an *OS page* is the
kernel's; a *chunk* is 512 pages, the unit of the page allocator; an *arena* is 64 MiB, the unit in which the heap grows.

Two shared segments and one alias::

    SELF_BASE     this process's own P record, mapped a second time so that its fields are at constant addresses (private to each process)
    HEAP_BASE     the heap: at most HEAP_MAX bytes of pages
    META_BASE     everything about the heap, one region after another in the order of REGIONS

Both segments are sparse files: a region costs nothing until it is touched. The address map is compiled into the kernels, so every runtime
on a machine has the same one; a runtime's own maximum only bounds how much of it is used.

Alias rule: a kernel reaches a P's record either through SELF_BASE or through ``p_addr``, never both: LLVM may assume that two
constant addresses are two places.
"""

from __future__ import annotations

from gomp.core.jit import inline

PAGE_SHIFT = 13
PAGE_SIZE = 1 << PAGE_SHIFT
CHUNK_PAGES = 512
CHUNK_SHIFT = 9
ARENA_SIZE = 64 << 20
ARENA_PAGES = ARENA_SIZE // PAGE_SIZE
ARENA_PAGE_SHIFT = 13

# Below this, x86-64 and aarch64 Linux (48-bit addresses) put neither executables, libraries nor stacks.
HEAP_BASE = 0xC0_0000_0000
HEAP_MAX = 64 << 40
HEAP_PAGES = HEAP_MAX // PAGE_SIZE
HEAP_LIMIT = HEAP_BASE + HEAP_MAX

P_STRIDE = 64 << 10  # a multiple of every OS page: each process maps its own record a second time
P_BYTES = 24 << 10  # of which so many are used
MAX_PS = 256
COORDINATOR_P = MAX_PS - 1  # the coordinator's own record: it marks and sweeps like a P, but runs no programs

SELF_BASE = 0x40F0_0000_0000
META_BASE = 0x4100_0000_0000

HANDLES_PER_P = 1 << 22
NATIVE_ROOTS_BYTES = 16 << 20  # the largest native stack that can be scanned
WBUF_SIZE = 2048
MAX_WBUFS = 1 << 21
MAX_SPANQ = 1 << 17  # entries of a P's span queue
MAX_TYPES = 1 << 12
MAX_SITES = (
    1 << 12
)  # places in programs at which goroutines are started and objects sampled, and what is on the stacks there
SITE_RECORD = 32
MAX_GLOBALS = 1 << 16
MAX_TASKS = 1 << 16
MAX_SPECIALS = 1 << 24
TABLE_STEP = 64 << 10  # tables and stacks of roots are committed in pieces of this many bytes
TASKS_STEP = 1024  # their records, in pieces of this many
MAX_GS = 1 << 24
G_RECORD = 256
FIXED_STACK = 2048  # the smallest stack of a goroutine
STACK_ORDERS = 4  # sizes of stacks that share spans: FIXED_STACK << order
STACK_SPAN = 32 << 10  # bytes of such a span; stacks of so much or more have spans of their own
NUM_SPAN_CLASSES = 136
MAP_LOCKS_SHIFT = 8
MAP_LOCKS = 1 << MAP_LOCKS_SHIFT  # locks of hash maps, a line each
MAP_LOCK_SIZE = 64
MAX_POOLS = 64
GLOBAL_RECORD = 64  # of a named root
POOL_RECORD = 128  # of a pool and a P
POOL_BYTES = MAX_PS * POOL_RECORD  # of a pool
POOL_HEAD_BYTES = 64
PROFILE_CHAINS = 1 << 10  # of the memory profile: its hash table
MAX_BUCKETS = 1 << 13
BUCKET_RECORD = 1024
TRACE_EVENT = 32
TRACE_EVENTS = 1 << 14  # of a P, that a trace's reader has not taken yet
TRACE_HEADER = 4096
TRACE_RING = TRACE_HEADER + TRACE_EVENTS * TRACE_EVENT
SUMMARY_LEVELS = 5
MAX_CHUNKS = HEAP_PAGES // CHUNK_PAGES

# One line a region: (name, bytes). Offsets are computed, never written.
REGIONS: tuple[tuple[str, int], ...] = (
    ("runtime", 64 << 10),
    ("mcentrals", NUM_SPAN_CLASSES * 128),
    ("types", MAX_TYPES * 64),
    ("map_locks", MAP_LOCKS * MAP_LOCK_SIZE),
    ("pool_heads", MAX_POOLS * POOL_HEAD_BYTES),
    ("sites", MAX_SITES * SITE_RECORD),
    ("profile_chains", PROFILE_CHAINS * 8),
    ("ps", MAX_PS * P_STRIDE),
    ("type_masks", 4 << 20),
    ("globals", MAX_GLOBALS * GLOBAL_RECORD),
    ("tasks", MAX_TASKS * 128),
    ("gs", MAX_GS * G_RECORD),
    ("specials", MAX_SPECIALS * 64),
    ("profile_buckets", MAX_BUCKETS * BUCKET_RECORD),
    ("pools", MAX_POOLS * POOL_BYTES),
    ("handles", MAX_PS * HANDLES_PER_P * 8),
    ("native_roots", MAX_PS * NATIVE_ROOTS_BYTES),
    ("wbufs", MAX_WBUFS * WBUF_SIZE),
    ("wbuf_stacks", 2 * MAX_WBUFS * 8),
    ("spanqs", MAX_PS * MAX_SPANQ * 8),
    ("traces", MAX_PS * TRACE_RING),
    ("arenas", HEAP_MAX // ARENA_SIZE * 64),
    ("chunks", MAX_CHUNKS * 128),
    ("densities", MAX_CHUNKS * 32),
    ("summary0", MAX_CHUNKS // 8**4 * 8),
    ("summary1", MAX_CHUNKS // 8**3 * 8),
    ("summary2", MAX_CHUNKS // 8**2 * 8),
    ("summary3", MAX_CHUNKS // 8**1 * 8),
    ("summary4", MAX_CHUNKS * 8),
    ("page_heads", HEAP_PAGES * 4),
    ("spans", HEAP_PAGES * 256),
)


def _region_addresses() -> dict[str, int]:
    addresses, addr = {}, META_BASE
    for name, size in REGIONS:
        addresses[name] = addr
        addr += -(-size // (64 << 10)) * (64 << 10)
    addresses["end"] = addr
    return addresses


REGION = _region_addresses()
META_SIZE = REGION["end"] - META_BASE
RUNTIME_BASE = REGION["runtime"]
PS_BASE = REGION["ps"]
MCENTRALS_BASE = REGION["mcentrals"]
TYPES_BASE = REGION["types"]
MAP_LOCKS_BASE = REGION["map_locks"]
POOL_HEADS_BASE = REGION["pool_heads"]
SITES_BASE = REGION["sites"]
POOLS_BASE = REGION["pools"]
TYPE_MASKS_BASE = REGION["type_masks"]
GLOBALS_BASE = REGION["globals"]
TASKS_BASE = REGION["tasks"]
GS_BASE = REGION["gs"]
SPECIALS_BASE = REGION["specials"]
PROFILE_CHAINS_BASE = REGION["profile_chains"]
PROFILE_BUCKETS_BASE = REGION["profile_buckets"]
HANDLES_BASE = REGION["handles"]
NATIVE_ROOTS_BASE = REGION["native_roots"]
WBUFS_BASE = REGION["wbufs"]
WBUF_STACKS_BASE = REGION["wbuf_stacks"]
SPANQS_BASE = REGION["spanqs"]
TRACES_BASE = REGION["traces"]
ARENAS_BASE = REGION["arenas"]
CHUNKS_BASE = REGION["chunks"]
DENSITIES_BASE = REGION["densities"]
SUMMARY_BASES = tuple(REGION[f"summary{level}"] for level in range(SUMMARY_LEVELS))
SUMMARY_START = tuple((base - SUMMARY_BASES[0]) // 8 for base in SUMMARY_BASES)  # index of each level's first word
SUMMARY_WORDS = SUMMARY_START[-1] + MAX_CHUNKS
PAGE_HEADS_BASE = REGION["page_heads"]
SPANS_BASE = REGION["spans"]


@inline
def align_up(n: int, alignment: int) -> int:
    """``n`` rounded up to a multiple of ``alignment``, a power of two."""
    return (n + alignment - 1) & -alignment


@inline
def is_heap_addr(addr: int) -> bool:
    return HEAP_BASE <= addr < HEAP_LIMIT


@inline
def addr_to_page(addr: int) -> int:
    return (addr - HEAP_BASE) >> PAGE_SHIFT


@inline
def page_to_addr(page: int) -> int:
    return HEAP_BASE + (page << PAGE_SHIFT)


@inline
def pages_for(size: int) -> int:
    """Pages that hold ``size`` bytes."""
    return (size + PAGE_SIZE - 1) >> PAGE_SHIFT


@inline
def p_addr(p_idx: int) -> int:
    return PS_BASE + p_idx * P_STRIDE


@inline
def g_number(addr: int) -> int:
    """Of the goroutine whose record is at ``addr``."""
    return (addr - GS_BASE) // G_RECORD


@inline
def g_addr(g: int) -> int:
    """Address of goroutine record ``g``, 1 or more."""
    return GS_BASE + g * G_RECORD


@inline
def handles_addr(p_idx: int) -> int:
    return HANDLES_BASE + p_idx * (HANDLES_PER_P * 8)


@inline
def spanq_addr(p_idx: int) -> int:
    return SPANQS_BASE + p_idx * (MAX_SPANQ * 8)


@inline
def native_roots_addr(p_idx: int) -> int:
    return NATIVE_ROOTS_BASE + p_idx * NATIVE_ROOTS_BYTES


@inline
def trace_addr(p_idx: int) -> int:
    """Of the ring of events of P ``p_idx``."""
    return TRACES_BASE + p_idx * TRACE_RING
