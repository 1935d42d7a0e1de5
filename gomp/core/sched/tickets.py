"""Which P may start a goroutine that is queued: a word of its record, the *ticket*, that one process takes.

    0 ──issue──▶ id << 8 | p ──take, by P p──▶ -(id << 8 | p)
                      └──reissue, by the coordinator──▶ id << 8 | q

A goroutine lies in the socket of a P that may be in a long program. For it to go elsewhere that P need not answer: the coordinator writes another P's
number into the ticket, and what is still in the socket says nothing any more. An id is never given twice, so neither does it when the record is
another goroutine's.
"""

from __future__ import annotations

from gomp.core.jit import inline, kernel
from gomp.core.shm import layout
from gomp.core.shm.atomics import cas_acq_rel, store_release
from gomp.core.shm.records import TASK_BYTES, TASK_XTICKET

TAKEN, GONE = 1, 0
_P_BITS = 8  # layout.MAX_PS


@inline
def _ticket(goroutine: int, p: int) -> int:
    return goroutine << _P_BITS | p


@inline
def _word(g: int) -> int:
    return layout.TASKS_BASE + g * TASK_BYTES + TASK_XTICKET


@kernel("void(int64, int64, int64)")
def issue_ticket(g: int, goroutine: int, p: int) -> None:
    """P ``p`` may start what is in record ``g`` and has the id ``goroutine``. By the coordinator; nobody else may, unless it is dead."""
    store_release(_word(g), _ticket(goroutine, p))


@kernel("int64(int64, int64, int64)")
def take_ticket(g: int, goroutine: int, p: int) -> int:
    """TAKEN: P ``p``, which calls this, starts the goroutine, and nobody else will. GONE: it is not for it any more."""
    ticket = _ticket(goroutine, p)
    return TAKEN if cas_acq_rel(_word(g), ticket, -ticket) else GONE


@kernel("int64(int64, int64, int64, int64)")
def reissue_ticket(g: int, goroutine: int, p: int, to: int) -> int:
    """TAKEN: P ``to`` may start it and not ``p``. GONE: P ``p`` has started it already. By the coordinator."""
    return TAKEN if cas_acq_rel(_word(g), _ticket(goroutine, p), _ticket(goroutine, to)) else GONE
