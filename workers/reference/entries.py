"""What the reference programs allocate: entries with a block of bytes each, and blocks that are dropped at once.

A block that is kept is an array of ints whose object, length word and all, has the size class of the bytes that Go's twin asks for. One that is
dropped is those bytes: nobody writes to them, there or here.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

import gomp
from workers.xorshift import draw

_STAR = np.uint64(0x2545F4914F6CDD1D)
_KEPT = (7, 12, 24, 62, 124, 249)  # blocks of 64, 100, 200, 500, 1000, 2000 bytes


@gomp.struct
class Entry:
    """32 bytes, of which only the first word is a reference: a slice of Go and a key."""

    data: gomp.Array[int]
    length: int
    capacity: int
    key: int


@gomp.struct
class Bytes16:
    bytes: gomp.Array[gomp.uint8, Literal[16]]


@gomp.struct
class Bytes48:
    bytes: gomp.Array[gomp.uint8, Literal[48]]


@gomp.struct
class Bytes128:
    bytes: gomp.Array[gomp.uint8, Literal[128]]


@gomp.struct
class Bytes300:
    bytes: gomp.Array[gomp.uint8, Literal[300]]


@gomp.struct
class Bytes800:
    bytes: gomp.Array[gomp.uint8, Literal[800]]


@gomp.struct
class Bytes4000:
    bytes: gomp.Array[gomp.uint8, Literal[4000]]


TABLE = gomp.Global("reference.table", gomp.Array[Entry])


@gomp.compiled
def new_entry(first: int, second: int) -> Entry:
    """An entry that two successive states of the random numbers make."""
    n = _KEPT[draw(first, 6)]
    entry = gomp.new(Entry)
    entry.data = gomp.array(int, n)
    entry.length = n
    entry.capacity = n
    entry.key = np.int64(np.uint64(second) * _STAR)
    return entry


@gomp.compiled
def drop_block(state: int) -> None:
    """A block that nothing refers to."""
    size = draw(state, 6)
    if size == 0:
        gomp.new(Bytes16)
    elif size == 1:
        gomp.new(Bytes48)
    elif size == 2:
        gomp.new(Bytes128)
    elif size == 3:
        gomp.new(Bytes300)
    elif size == 4:
        gomp.new(Bytes800)
    else:
        gomp.new(Bytes4000)


def outcome(check: int, state: int) -> dict[str, int]:
    return {"check": check, "final_rng": state & 0xFFFFFFFFFFFFFFFF}
