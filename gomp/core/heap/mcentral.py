"""The central lists of spans, one mcentral a span class: partial and full, each for this sweep generation (swept) and the last (unswept).

A span that nobody has cached is in exactly one list. The lists are links through the span records under the mcentral's lock, held for a few
instructions; they are derived (from ``set`` and ``state`` in the span table) and can be thrown away and rebuilt.

If the lock's holder is killed, the list works on for those who have a span in hand and cannot wait for repair: a span is put at the end by ``tail``
first, so what was half done loses spans, until repair finds them, and gives none out twice.

The swept lists of one cycle are the unswept lists of the next: index ``sweepgen / 2 % 2`` is swept, the other unswept.
"""

from __future__ import annotations

from gomp.core.jit import inline, kernel
from gomp.core.sched.locks import acquire, release
from gomp.core.shm import layout
from gomp.core.shm.atomics import fence_release
from gomp.core.shm.records import SET_FULL, SET_NONE, SET_PARTIAL, mcentrals, runtime, spans

_MCENTRAL_SIZE = 128
EMPTY = -1


@inline
def swept_set(kind: int) -> int:
    """List number of SET_PARTIAL or SET_FULL for spans of this generation."""
    return kind + ((runtime().sweepgen >> 1) & 1)


@inline
def unswept_set(kind: int) -> int:
    return kind + (1 - ((runtime().sweepgen >> 1) & 1))


@inline
def _lock_of(span_class: int) -> int:
    return layout.MCENTRALS_BASE + span_class * _MCENTRAL_SIZE


@kernel("void(int64, int64, int64)")
def push_span(span_class: int, which: int, page: int) -> None:
    """Put a span at the end of list ``which``. The caller gives it up: nobody else has it."""
    acquire(_lock_of(span_class))
    push_span_locked(span_class, which, page)
    release(_lock_of(span_class))


@inline
def push_span_locked(span_class: int, which: int, page: int) -> None:
    c = mcentrals()[span_class]
    sp = spans()[page]
    sp.next = EMPTY
    sp.set = which
    last = c.tail[which]
    c.tail[which] = page
    fence_release()
    if c.head[which] == EMPTY:
        c.head[which] = page
    else:
        spans()[last].next = page
    c.count[which] += 1


@kernel("int64(int64, int64)")
def pop_span(span_class: int, which: int) -> int:
    """Take the span that is longest in list ``which``: its first page, or EMPTY."""
    if mcentrals()[span_class].count[which] == 0:  # a hint: whoever pushes now is not waited for
        return EMPTY
    acquire(_lock_of(span_class))
    c = mcentrals()[span_class]
    page = c.head[which]
    if page != EMPTY:
        sp = spans()[page]
        c.head[which] = sp.next
        c.count[which] -= 1
        sp.set = SET_NONE
    release(_lock_of(span_class))
    return page


@kernel("void()")
def reset_mcentrals_stw() -> None:
    """Empty every list. World: stopped, or not started yet."""
    for span_class in range(layout.NUM_SPAN_CLASSES):
        c = mcentrals()[span_class]
        c.xlock = 0
        for which in range(4):
            c.head[which] = EMPTY
            c.tail[which] = EMPTY
            c.count[which] = 0


__all__ = [
    "EMPTY",
    "SET_FULL",
    "SET_PARTIAL",
    "pop_span",
    "push_span",
    "reset_mcentrals_stw",
    "swept_set",
    "unswept_set",
]
