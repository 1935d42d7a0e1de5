"""An object is sampled: where it is made goes into the memory profile (mprof.go, mProf_Malloc).

Its stack, the innermost frame first:

1. in compiled code, the place of the call that makes it. A constant of the code, which costs nothing until it is asked for: the key of a place
   (:mod:`~gomp.core.mutator.sites`), the length of its text, the text. Functions that many calls share, those of maps and texts, do not get it:
   before such a call it is stored to the P's ``makes_at``.
2. the frames of the goroutine that runs here; if there is none, or it has none, those of Python, around the program.

The lock of the specials is held for a few hundred instructions, once in half a MiB.
"""

from __future__ import annotations

from gomp.core.gc.memprofile import NO_BUCKET, find_or_make_bucket_locked
from gomp.core.gc.specials import NONE, make_room_for_special, profile_locked
from gomp.core.heap.scavenge import make_room
from gomp.core.heap.stack import innermost
from gomp.core.jit import inline, kernel
from gomp.core.mutator.pythonstack import read_python_stack
from gomp.core.mutator.sites import LINE_SHIFT, add_site
from gomp.core.sched.locks import acquire, begin_critical, end_critical, release
from gomp.core.shm import layout
from gomp.core.shm.atomics import add_relaxed, load64, load_acquire, store64
from gomp.core.shm.records import (
    FRAME_CALLER,
    FRAME_INTO,
    FRAME_IS_PLACE,
    FRAME_TYPE,
    MEMPROFILE_XLOST,
    MEMPROFILE_XNBUCKETS,
    P_STACK,
    PROFILE_FRAMES,
    RT_XSPECIALS_LOCK,
    self_p,
    type_at,
)

NO_PLACE = 0
PLACE_HEADER = 16
_STACK = layout.SELF_BASE + P_STACK


@kernel("void(int64, int64, int64)")
def take_sample(addr: int, size: int, place: int) -> None:
    """The slot at ``addr`` of ``size`` bytes is about to hold an object that is made at ``place``. It does not park: the slot stays this P's."""
    begin_critical()
    nframes = _read_stack(place)
    make_room_for_special()
    if load_acquire(MEMPROFILE_XNBUCKETS) * layout.BUCKET_RECORD % layout.TABLE_STEP == 0:
        make_room(layout.TABLE_STEP)
    acquire(RT_XSPECIALS_LOCK)
    bucket = find_or_make_bucket_locked(_STACK, nframes, size)
    if bucket == NO_BUCKET or profile_locked(addr, bucket) == NONE:
        add_relaxed(MEMPROFILE_XLOST, 1)
    release(RT_XSPECIALS_LOCK)
    end_critical()


@inline
def _read_stack(place: int) -> int:
    n = 0
    if place != NO_PLACE:
        add_site(load64(place), place + PLACE_HEADER, load64(place + 8))
        _put_frame(0, load64(place), FRAME_IS_PLACE)
        n = 1
    g = self_p().curg
    frame = innermost(g) if g != 0 else 0
    if frame == 0:
        return n + read_python_stack(_STACK + 16 * n, PROFILE_FRAMES - n)
    while frame != 0 and n < PROFILE_FRAMES:
        _put_frame(n, type_at(load64(frame + FRAME_TYPE)).key, load64(frame + FRAME_INTO) >> LINE_SHIFT)
        n += 1
        frame = load64(frame + FRAME_CALLER)
    return n


@inline
def _put_frame(n: int, key: int, line: int) -> None:
    store64(_STACK + 16 * n, key)
    store64(_STACK + 16 * n + 8, line)
