"""GODEBUG=checkfinalizers=1: after each cycle, what is due, and which objects can never be finalized, each of them once, on stderr.

As Go's, it stops the world and traces from each object that has a finalizer, so it is for finding a mistake and not for production.
"""

from __future__ import annotations

from typing import Any

from gomp.core.gc import selfreach
from gomp.core.gc.specials import RECORD
from gomp.core.shm import layout, records
from gomp.runtime import type_table
from gomp.runtime.verify import new_trace

SHOWN = 100


class FinalizerCheck:
    """Remembers what it has told, by the numbers of registrations."""

    def __init__(self) -> None:
        self._told: set[int] = set()

    def look_stw(self) -> list[str]:
        """The lines to print. World: stopped."""
        lines = [
            f"checkfinalizers: queue: {selfreach.count_queued(1, 0)} finalizers + {selfreach.count_queued(0, 1)} cleanups"
        ]
        made = int(records.view(records.runtime_dtype, records.RUNTIME)[0].nspecials)
        found = {int(_record(n).id): n for n in range(made) if _leads_back(n)}
        new = [n for number, n in found.items() if number not in self._told]
        self._told = set(found)
        lines += [_line(n) for n in new[:SHOWN]]
        if len(new) > SHOWN:
            lines.append(f"checkfinalizers: {len(new) - SHOWN} more such objects")
        return lines


def _record(n: int) -> Any:
    return records.view(records.special_dtype, layout.SPECIALS_BASE + n * RECORD)[0]


def _line(n: int) -> str:
    record = _record(n)
    name = type_table.description(int(record.type_key)).partition("\n")[0] or "object"
    return (
        f"checkfinalizers: the {name} at {int(record.addr):#x} has a finalizer of P{int(record.owner) & 0xFFFF} and leads back to "
        "itself through another object: it will never run"
    )


def _leads_back(n: int) -> bool:
    record = _record(n)
    if record.xstate != records.SPECIAL_ARMED or record.kind != records.SPECIAL_FINALIZER:
        return False
    return int(selfreach.leads_back(new_trace(), n)) == selfreach.LEADS_BACK
