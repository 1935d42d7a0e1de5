"""What the scenarios are made of: lists of blocks that stay, and garbage."""

from __future__ import annotations

import time
from typing import Literal

import gomp

BLOCK = 1024  # with the word that names its type


@gomp.struct
class Block:
    next: "Block"
    words: gomp.Array[int, Literal[126]]


KEPT = gomp.Global("scenarios.kept", Block)


@gomp.compiled
def keep(blocks: int) -> int:
    """Have so many more blocks live."""
    for _ in range(blocks):
        KEPT.set(gomp.new(Block, next=KEPT.get()))
    return blocks


@gomp.compiled
def litter(blocks: int) -> int:
    """Allocate so many blocks and drop them."""
    for _ in range(blocks):
        gomp.new(Block)
    return blocks


def forget() -> None:
    """Have nothing live any more."""
    KEPT.set(None)


def blocks_in(mib: int) -> int:
    return (mib << 20) // BLOCK


def compile_all() -> None:
    """Now, and not in the time of the scenario."""
    keep(0)
    litter(0)


def allocate(seconds: float) -> None:
    """Make garbage as fast as can be."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        litter(2000)


def allocate_on_all(seconds: float) -> None:
    """The same, on each P."""
    others = [gomp.go(allocate, seconds) for _ in range(gomp.num_procs() - 1)]
    allocate(seconds)
    for other in others:
        other.wait()
