"""A recursion as deep as you like, on the stack of a goroutine: what its growth costs, by depth, with and without room made before.

A stack begins with 2 KiB and doubles when a frame does not fit. Each time all of it is copied: together as many bytes as it has in the end.
"""

from __future__ import annotations

import time

import gomp
from gomp.runtime import memstats

FRAME_BYTES = 56


@gomp.frame
class Descend(gomp.Frame[int]):
    """One frame a level; it adds up the levels below by the address of its caller's frame, which moves with the stack."""

    depth: int
    up: "Descend"
    levels: int
    is_back: bool

    def step(f) -> gomp.Action:
        if not f.is_back and f.depth > 0:
            f.is_back = True
            return f.call(Descend, depth=f.depth - 1, up=f)
        if f.up is not None:
            f.up.levels = f.levels + 1
        return f.ret(f.levels)


@gomp.frame
class Begin(gomp.Frame[int]):
    depth: int
    first_room: int
    levels: int
    is_back: bool

    def step(f) -> gomp.Action:
        if f.is_back:
            return f.ret(f.levels)
        f.is_back = True
        return f.call(Descend, depth=f.depth, into="levels", room=f.first_room)


def measure(depth: int, room: int) -> dict[str, float]:
    """Copies, bytes that they copied, and nanoseconds a level of a recursion ``depth`` deep that begins with ``room``."""
    before = _copied()
    began = time.perf_counter_ns()
    levels = Begin.run(depth=depth, first_room=room)
    took = time.perf_counter_ns() - began
    if levels != depth:
        raise AssertionError(f"a recursion of {depth} levels has counted {levels}")
    copies, copied = (now - then for now, then in zip(_copied(), before, strict=True))
    return {"depth": depth, "room": room, "copies": copies, "bytes": copied, "ns": round(took / depth, 1)}


def _copied() -> tuple[int, int]:
    """Moves of stacks by all Ps so far, and the bytes that they copied."""
    ps = memstats.read().ps
    return sum(p.stack_copies for p in ps), sum(p.stack_copied for p in ps)


def main(depth: int = 100_000) -> list[dict[str, float]]:
    """Two rows for each power of ten up to ``depth``: without room made before, and with it."""
    Begin.run(depth=1, first_room=0)  # compiles
    depths = [10**n for n in range(1, len(str(depth))) if 10**n <= depth]
    return [measure(d, room) for d in depths for room in (0, FRAME_BYTES * (d + 2))]
