"""What the service runs: request-like bursts over a slowly changing live set, with the standard library's trees going round beside it.

Each P serves its share of the bursts. A burst makes objects of mixed sizes, keeps a few in the place of older ones in the live set, and drops the
rest. Between bursts a P replaces one syntax tree at a time.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Iterator

import gomp
from workers import stdlib_trees
from workers.shares import shares as split
from workers.xorshift import advance, draw, seed

log = logging.getLogger(__name__)

OBJECTS_PER_BURST = 400
KEPT = 16  # one object in so many replaces one of the live set
REPORT_S = 60.0
_OVERHEAD = 8 + 16  # the array's length, and the cell that holds it in the live set


@gomp.struct
class Cell:
    """A place of the live set: its payload and the request that made it."""

    data: gomp.Array[int]
    request: int


@gomp.compiled
def burst(live: gomp.Array[Cell], words: gomp.Array[int], objects: int, request: int, state: int) -> int:
    """One request: make ``objects`` payloads with sizes drawn from ``words``, keep every KEPT-th; returns the last random state."""
    for i in range(objects):
        state = advance(state)
        data = gomp.array(int, words[draw(state, len(words))])
        data[0] = request
        if i % KEPT == 0:
            state = advance(state)
            live[draw(state, len(live))] = gomp.new(Cell, data, request)
    return state


def size_table(sizes: dict[int, float], entries: int = 1024) -> list[int]:
    """Payload lengths in words, each as often as its weight says."""
    total = sum(sizes.values())
    table = [
        max((int(size) - 8) // 8, 1) for size, weight in sizes.items() for _ in range(round(entries * weight / total))
    ]
    return table or [max((max(sizes) - 8) // 8, 1)]


def _trees(first: int, end: int) -> Iterator[None]:
    """Replace the files' trees one after another, for ever."""
    files = stdlib_trees.library_files()
    while True:
        for index in range(first, end):
            stdlib_trees.hang(index, files[index])
            yield


def serve(number: int, rate: float, live_bytes: int, sizes: dict[int, float], files: tuple[int, int] | None) -> None:
    """Serve ``rate`` bursts a second, for ever, on this P."""
    table = size_table(sizes)
    words = gomp.array(int, len(table))
    for i, n in enumerate(table):
        words[i] = n
    mean = 8 * sum(table) / len(table) + _OVERHEAD
    live = gomp.array(Cell, max(int(live_bytes / mean), 1))
    trees = _trees(*files) if files and files[0] < files[1] else None
    state, request, late = seed(number), 0, 0.0
    due = reported = time.monotonic()
    while True:
        request += 1
        state = burst(live, words, OBJECTS_PER_BURST, request, state)
        if trees and request % 10 == 0:
            next(trees)
        now = time.monotonic()
        due = max(due + random.expovariate(rate), now - 1.0)
        late = max(late, now - due)
        if now - reported > REPORT_S:
            log.info("%d bursts served, at most %.1f ms late", request, 1000 * late)
            reported, late = now, 0.0
        gomp.sleep(max(due - now, 0))


def main(
    rate: float = 100.0,
    live: int = 64 << 20,
    sizes: dict[int, float] | None = None,
    stdlib_trees: bool = True,
    share: int = 0,
    shares: int = 0,
) -> None:
    """Serve the share with this number until the runtime ends; all of them, on all Ps, if there is none."""
    mix = {int(size): float(weight) for size, weight in (sizes or {32: 50, 128: 30, 1024: 18, 16384: 2}).items()}
    if shares:
        serve(share, rate / shares, live // shares, mix, _files(share, shares) if stdlib_trees else None)
        return
    procs = gomp.num_procs()
    for goroutine in [gomp.go(main, rate, live, mix, stdlib_trees, i, procs) for i in range(1, procs + 1)]:
        goroutine.wait()


def _files(share: int, shares: int) -> tuple[int, int]:
    return list(split(len(stdlib_trees.library_files()), shares))[share - 1]
