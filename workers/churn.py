"""A table whose entries are replaced at random: a live set that stays, and garbage of every age.

Each of ``ops`` operations draws a slot, makes an entry whose ``next`` is the slot's old entry, cuts the old entry's ``next`` and stores the new
one. Slots and operations are shared out over the goroutines. The result is the number of entries that can be reached at the end.
"""

from __future__ import annotations

import gomp
from workers.shares import shares
from workers.xorshift import advance, draw, seed


@gomp.struct
class Entry:
    """64 bytes."""

    next: "Entry"
    a: int
    b: int
    c: int
    d: int
    e: int
    f: int
    g: int


TABLE = gomp.Global("churn.table", gomp.Array[Entry])


@gomp.compiled
def churn(first: int, end: int, ops: int, state: int) -> int:
    """Replace ``ops`` entries in the slots [first, end); returns the last state."""
    table = TABLE.get()
    for _ in range(ops):
        state = advance(state)
        slot = first + draw(state, end - first)
        entry = gomp.new(Entry)
        old = table[slot]
        entry.next = old
        if old is not None:
            old.next = None
        table[slot] = entry
    return state


@gomp.compiled
def count_entries() -> int:
    table = TABLE.get()
    entries = 0
    for slot in range(len(table)):
        entry = table[slot]
        while entry is not None:
            entries += 1
            entry = entry.next
    return entries


def main(live: int = 1 << 20, ops: int = 20_000_000, goroutines: int = 1) -> int:
    """The number of entries that are reachable at the end."""
    if live < goroutines or goroutines < 1 or ops < 0:
        raise gomp.ConfigError(f"live={live} ops={ops} goroutines={goroutines}: give a slot or more to each goroutine")
    TABLE.set(gomp.array(Entry, live))
    slots, operations = shares(live, goroutines), shares(ops, goroutines)
    started = [
        gomp.go(churn, first, end, last - begin, seed(g))
        for g, ((first, end), (begin, last)) in enumerate(zip(slots, operations, strict=True), 1)
    ]
    for goroutine in started:
        goroutine.wait()
    return count_entries()
