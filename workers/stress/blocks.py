"""A live set of blocks of a kilobyte that grows and shrinks, and garbage beside it."""

from __future__ import annotations

from typing import Literal

import gomp
from gomp.config import NO_LIMIT

BLOCK = 1024  # with the word that names its type
_UNLIMITED = 256 << 20
_ROOM = 2  # times the blocks that the first limit allows


@gomp.struct
class Block:
    next: "Block"
    words: gomp.Array[int, Literal[126]]


TABLE = gomp.Global("stress.table", gomp.Array[Block])


@gomp.compiled
def _fill(first: int, end: int) -> int:
    table = TABLE.get()
    for slot in range(first, end):
        table[slot] = gomp.new(Block)
    return end


@gomp.compiled
def _empty(first: int, end: int) -> int:
    table = TABLE.get()
    for slot in range(first, end):
        table[slot] = None
    return first


@gomp.compiled
def litter(blocks: int) -> int:
    """Allocate so many blocks and drop them."""
    for _ in range(blocks):
        gomp.new(Block)
    return blocks


def memory() -> int:
    """The memory limit in bytes or, without one, something modest."""
    limit = gomp.debug.set_memory_limit(-1)
    return limit if limit < NO_LIMIT else _UNLIMITED


class LiveSet:
    """At most a share of the memory limit in live blocks. It follows the limit: an auto one falls while interpreters load."""

    def __init__(self, share: float) -> None:
        self.n = 0
        self._share = share
        TABLE.set(gomp.array(Block, 0))
        for compiled in (_fill, _empty):  # now, and not in the time of the run
            compiled(0, 0)
        litter(0)
        self._room = _ROOM * self.most
        TABLE.set(gomp.array(Block, self._room))

    @property
    def most(self) -> int:
        """Blocks that the share comes to now."""
        return int(self._share * memory()) // BLOCK

    def resize(self, share: float) -> None:
        """Have this share of the most live: from 0 to 1."""
        wanted = min(round(self.most * share), self._room)
        self.n = _fill(self.n, wanted) if wanted > self.n else _empty(wanted, self.n)

    def close(self) -> None:
        """Let go of it."""
        TABLE.set(None)
