"""GODEBUG=checkfinalizers=1: after each cycle, what is due, and which objects can never be finalized, on stderr.

As Go's, it stops the world and traces from each object that has a finalizer, so it is for finding a mistake and not for production.
"""

from __future__ import annotations

from gomp.core.gc import selfreach
from gomp.core.gc.specials import RECORD
from gomp.core.shm import layout, records
from gomp.runtime.verify import new_trace

SHOWN = 100


def check_stw() -> list[str]:
    """The lines to print. World: stopped."""
    lines = [
        f"checkfinalizers: queue: {selfreach.count_queued(1, 0)} finalizers + {selfreach.count_queued(0, 1)} cleanups"
    ]
    made = int(records.view(records.runtime_dtype, records.RUNTIME)[0].nspecials)
    found = [n for n in range(made) if _leads_back(n)]
    for n in found[:SHOWN]:
        record = records.view(records.special_dtype, layout.SPECIALS_BASE + n * RECORD)[0]
        lines.append(
            f"checkfinalizers: the object at {int(record.addr):#x} has a finalizer of P{int(record.owner) & 0xFFFF} and leads back to itself through "
            "another object: it will never run"
        )
    if len(found) > SHOWN:
        lines.append(f"checkfinalizers: {len(found) - SHOWN} more such objects")
    return lines


def _leads_back(n: int) -> bool:
    record = records.view(records.special_dtype, layout.SPECIALS_BASE + n * RECORD)[0]
    if record.xstate != records.SPECIAL_ARMED or record.kind != records.SPECIAL_FINALIZER:
        return False
    return int(selfreach.leads_back(new_trace(), n)) == selfreach.LEADS_BACK
