"""Random bytes are written into the tables of runtimes, one after another: says what a verification has made of each. For test_junk."""

from __future__ import annotations

import ctypes
import json
import random
import sys
import time
from collections.abc import Callable

import gomp
from gomp.core.gc.specials import special_addr
from gomp.core.shm import layout
from gomp.core.shm.records import (
    MCACHE_ENTRY,
    MHEAP,
    P_MCACHE,
    RUNTIME,
    SCHED,
    SPAN_IN_USE,
    mcentral_dtype,
    mheap_dtype,
    offset_of,
    p_dtype,
    runtime_dtype,
    sched_dtype,
    span_dtype,
    view,
)
from tests.attaching import chain

JUNK = 64  # bytes
ENDS_WITHIN_S = 10.0


def _span_in_use(rng: random.Random) -> int:
    spans = view(span_dtype, layout.SPANS_BASE, int(view(mheap_dtype, MHEAP)[0].end_page))
    page = rng.choice([page for page in range(len(spans)) if spans[page].state == SPAN_IN_USE])
    return layout.SPANS_BASE + page * span_dtype.itemsize


def _p(rng: random.Random) -> int:
    return int(layout.p_addr(rng.randrange(int(view(runtime_dtype, RUNTIME)[0].nrecords))))


TABLES: dict[str, Callable[[random.Random], int]] = {
    "span": _span_in_use,
    "list of spans": lambda rng: layout.MCENTRALS_BASE + rng.randrange(layout.NUM_SPAN_CLASSES) * mcentral_dtype.itemsize,
    "heap": lambda rng: MHEAP + rng.randrange(8, 88, 8),  # end_page at least
    "special record": lambda rng: special_addr(1 + rng.randrange(int(view(runtime_dtype, RUNTIME)[0].nspecials))),
    "goroutine": lambda rng: layout.g_addr(1 + rng.randrange(int(view(sched_dtype, SCHED)[0].ngs))),
    "mcache": lambda rng: _p(rng) + P_MCACHE + rng.randrange(layout.NUM_SPAN_CLASSES) * MCACHE_ENTRY,
    "work buffers of a P": lambda rng: _p(rng) + offset_of(p_dtype, "wbuf1"),
    "P": lambda rng: _p(rng) + rng.randrange(0, 2048, 8),
}  # fmt: skip


async def wait(ch: gomp.Chan[int]) -> None:
    await ch.receiving()


def outcome(seed: int, table: str) -> str:
    """Of a runtime with junk in this table: ``whole``, or ``noticed``, and it has ended; or what should not be."""
    rng = random.Random(seed)
    with gomp.Runtime(procs=2, max_heap="64MiB") as rt:
        kept = [chain(1 + rng.randrange(2000)) for _ in range(20)]
        for item in kept:
            gomp.add_cleanup(item, print, 1)
        waiting = gomp.Chan[int]()
        gomp.go(wait(waiting))
        rt.run(chain, 5000)
        _wait_for_a_goroutine()
        rt.gc()
        rt.verify(3)
        ctypes.memmove(TABLES[table](rng), rng.randbytes(JUNK), JUNK)
        try:
            rt.verify(3)
        except gomp.HeapCorrupt as error:
            return "noticed" if _ends(rt) else f"{error}, but it goes on"
        except gomp.RuntimeLost as error:  # it has been noticed before anybody has asked
            return "noticed" if "entries, and room for" in str(error) else str(error)
        return "whole"


def _wait_for_a_goroutine() -> None:
    until = time.monotonic() + ENDS_WITHIN_S
    while view(sched_dtype, SCHED)[0].ngs == 0:
        assert time.monotonic() < until, "the goroutine has not begun"
        time.sleep(0.001)


def _ends(rt: gomp.Runtime) -> bool:
    until = time.monotonic() + ENDS_WITHIN_S
    try:
        while time.monotonic() < until:
            rt.gc()
    except gomp.RuntimeLost:
        return True
    return False


def main(seeds: int) -> None:
    for table in TABLES:
        for seed in range(seeds):
            print(json.dumps([table, outcome(seed, table)]), flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]))
