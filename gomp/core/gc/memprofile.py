"""The memory profile: of the sampled objects, how many were made and died with each stack (mprof.go).

A *bucket* counts the objects of one size that were made with one stack. A sampled object has a special record that names its bucket
(:mod:`~gomp.core.gc.specials`), so its death is counted by whoever sweeps it.

Objects are made at any time, and found dead only by the sweep after a marking. So that a profile shows one moment, the last mark termination whose
sweep is over, counts wait for it, by the *cycle* C of the profile, which grows at each mark termination: what is made counts for C + 2, what is swept
for C + 1, and C is published when it begins. A forced collection, which waits for its sweep, publishes C + 1 then, too.

Buckets are in chains by the hash of their stacks. One appears with the store of its chain's head, and is constant then but for its counts. Those
change under the lock of the specials together with the state of the special record, as one redo record. Counts of the cycle that is published nobody
else changes any more: the coordinator moves them, and who reads meanwhile sees that it does (``xflushes``).

When the table is full, objects of new stacks count by their size alone.
"""

from __future__ import annotations

from gomp.core.jit import inline, kernel
from gomp.core.sched import redo
from gomp.core.shm import layout
from gomp.core.shm.atomics import (
    add_acq_rel,
    copy_range,
    fence_release,
    load64,
    load_acquire,
    lsl,
    lsr,
    store64,
    store_release,
)
from gomp.core.shm.commit import commit_table
from gomp.core.shm.records import (
    BUCKET_ALLOCS,
    BUCKET_FRAMES,
    BUCKET_FREES,
    MEMPROFILE_XFLUSHES,
    MEMPROFILE_XNBUCKETS,
    bucket_at,
    memprofile,
    self_p,
)

NO_BUCKET = 0
_WITHOUT_STACK = 512  # buckets that are kept for those
_IN_MAKING, _IN_SWEEPING, _CYCLES = 2, 1, 3


@inline
def bucket_addr(n: int) -> int:
    """Address of bucket number ``n``, 1 or more."""
    return layout.PROFILE_BUCKETS_BASE + (n - 1) * layout.BUCKET_RECORD


@inline
def made_addr(bucket: int) -> int:
    """Where an object that is made now is counted."""
    return bucket_addr(bucket) + BUCKET_ALLOCS + (memprofile().cycle + _IN_MAKING) % _CYCLES * 8


@inline
def swept_addr(bucket: int) -> int:
    """Where an object that is found dead now is counted."""
    return bucket_addr(bucket) + BUCKET_FREES + (memprofile().cycle + _IN_SWEEPING) % _CYCLES * 8


@inline
def plan_one_more(i: int, count: int) -> None:
    """The i-th store of a redo record: one more at the address ``count``."""
    redo.plan(i, count, load64(count) + 1)


# --- buckets ----------------------------------------------------------------------------------------------------------


@kernel("int64(int64, int64, int64)")
def find_or_make_bucket_locked(stack: int, nframes: int, size: int) -> int:
    """Holds: specials_lock. The bucket of objects of ``size`` bytes with the ``nframes`` frames at ``stack``; NO_BUCKET without memory.

    Killed while it makes one, that bucket counts nothing, and is in no chain perhaps.
    """
    bucket = _find(stack, nframes, size)
    if bucket == NO_BUCKET and nframes != 0 and _is_nearly_full():
        nframes = 0
        bucket = _find(stack, nframes, size)
    return bucket if bucket != NO_BUCKET else _make_locked(stack, nframes, size)


@inline
def _is_nearly_full() -> bool:
    return load_acquire(MEMPROFILE_XNBUCKETS) >= layout.MAX_BUCKETS - _WITHOUT_STACK


@inline
def _hash(stack: int, nframes: int, size: int) -> int:
    """As stkbucket."""
    h = 0
    for i in range(2 * nframes):
        h += load64(stack + 8 * i)
        h += lsl(h, 10)
        h ^= lsr(h, 6)
    h += size
    h += lsl(h, 10)
    h ^= lsr(h, 6)
    h += lsl(h, 3)
    return lsl(h ^ lsr(h, 11), 0)  # in plain Python: the word, of a number that has grown


@inline
def _chain(digest: int) -> int:
    return layout.PROFILE_CHAINS_BASE + (digest & (layout.PROFILE_CHAINS - 1)) * 8


@kernel("int64(int64, int64, int64)")
def _find(stack: int, nframes: int, size: int) -> int:
    digest = _hash(stack, nframes, size)
    n = load_acquire(_chain(digest))  # pairs with _make_locked
    while n != NO_BUCKET:
        b = bucket_at(bucket_addr(n))
        if b.hash == digest and b.object_bytes == size and b.nframes == nframes and _has_frames(n, stack, nframes):
            return n
        n = b.next
    return NO_BUCKET


@inline
def _has_frames(n: int, stack: int, nframes: int) -> bool:
    frames = bucket_addr(n) + BUCKET_FRAMES
    for at in range(0, 16 * nframes, 8):
        if load64(frames + at) != load64(stack + at):
            return False
    return True


@kernel("int64(int64, int64, int64)")
def _make_locked(stack: int, nframes: int, size: int) -> int:
    made = load_acquire(MEMPROFILE_XNBUCKETS)
    at = made * layout.BUCKET_RECORD
    if made == layout.MAX_BUCKETS:
        return NO_BUCKET
    if at % layout.TABLE_STEP == 0:
        if commit_table(self_p().meta_fd, layout.PROFILE_BUCKETS_BASE - layout.META_BASE + at, layout.TABLE_STEP) != 0:
            return NO_BUCKET
    n = made + 1
    b = bucket_at(bucket_addr(n))
    digest = _hash(stack, nframes, size)
    b.hash = digest
    b.object_bytes = size
    b.nframes = nframes
    b.next = load64(_chain(digest))
    copy_range(bucket_addr(n) + BUCKET_FRAMES, stack, 16 * nframes)
    store_release(MEMPROFILE_XNBUCKETS, n)  # pairs with those who read the profile
    store_release(_chain(digest), n)
    return n


# --- publishing -------------------------------------------------------------------------------------------------------


@inline
def next_cycle_stw() -> None:
    """Marking is over: what is made and swept from now on counts for later (mProf_NextCycle). World: stopped."""
    memprofile().cycle += 1


@kernel("void(int64)")
def publish(ahead: int) -> None:
    """Publish the cycle that has begun (mProf_Flush), or, 1 ``ahead``, the next, whose sweep is over (mProf_PostSweep). By the coordinator."""
    idx = (memprofile().cycle + ahead) % _CYCLES
    add_acq_rel(MEMPROFILE_XFLUSHES, 1)
    fence_release()  # pairs with load_after_reads
    for n in range(1, load_acquire(MEMPROFILE_XNBUCKETS) + 1):
        b = bucket_at(bucket_addr(n))
        b.published_allocs += b.allocs[idx]
        b.published_frees += b.frees[idx]
        store64(bucket_addr(n) + BUCKET_ALLOCS + 8 * idx, 0)
        store64(bucket_addr(n) + BUCKET_FREES + 8 * idx, 0)
    add_acq_rel(MEMPROFILE_XFLUSHES, 1)
