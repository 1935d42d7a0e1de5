"""The free slots of this process's handle table: what a leak would make fewer."""

from __future__ import annotations

from collections.abc import Iterator

from gomp.runtime.handles import table


def free_handles() -> Iterator[int]:
    free = table.free
    while free is not None:
        yield free.handle
        free = free.next


def free_slots() -> int:
    return sum(1 for _ in free_handles())
