"""References that come and go, and references that stay: nothing is left of the ones, and the others hurt nobody."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
from collections.abc import Callable

import pytest

import gomp
from gomp.core.mutator import boundary
from gomp.core.shm import layout
from gomp.runtime.handles import table
from gomp.runtime.residency import private_bytes
from tests.free_slots import free_slots

TIMES = [pytest.param(100_000, id="100k"), pytest.param(10_000_000, id="10M", marks=pytest.mark.slow)]
NOISE = 1 << 20
FREE_SLOT = 160  # bytes of Python for each slot, free or not
MOST_IN_CYCLES = 200_000

PROCS = 1


@gomp.struct
class Node:
    next: Node
    n: int


def make_and_drop(times: int) -> None:
    for i in range(times):
        gomp.new(Node, n=i)


def read_and_drop(times: int) -> None:
    node = gomp.new(Node, next=gomp.new(Node))
    for _ in range(times):
        _ = node.next


def in_bundles(times: int) -> None:
    """A thousand at a time, some of them in cycles of Python objects."""
    for _ in range(times // 1000):
        bundle: list[object] = [gomp.new(Node, n=i) for i in range(1000)]
        bundle.append(bundle)


def balance(action: Callable[[int], None], times: int) -> tuple[list[int], list[int]]:
    """What this process has before and after: handles in use, slots of its table, bytes of its own."""
    action(min(times, 100_000))
    _held()  # to look costs memory, once
    before = _held()
    action(times)
    return before, _held()


def _held() -> list[int]:
    gc.collect()
    slots = boundary.handles_in_use()
    used = sum(1 for slot in range(slots) if table.words[slot] != 0)
    assert used + free_slots() == slots
    return [used, slots, private_bytes(os.getpid())]


@pytest.mark.parametrize("times", TIMES)
@pytest.mark.parametrize("action", [make_and_drop, read_and_drop, in_bundles])
@pytest.mark.parametrize("where", ["script", "program"])
def test_what_is_dropped_leaves_nothing(
    rt: gomp.Runtime, where: str, action: Callable[[int], None], times: int
) -> None:
    rt.gc()
    heap = rt.stats().heap_alloc
    before, after = balance(action, times) if where == "script" else rt.run(balance, action, times)
    assert after[0] == before[0]
    # Python finds cycles when it looks for them: the table is as long as it was at most.
    assert after[1] == before[1] or (action is in_bundles and after[1] < MOST_IN_CYCLES)
    assert after[2] < before[2] + NOISE + FREE_SLOT * (after[1] - before[1])
    rt.gc()
    assert rt.stats().heap_alloc == heap


# --- forgetting -------------------------------------------------------------------------------------------------------

SCRIPT = """
import threading, gomp
@gomp.struct
class Node:
    next: "Node"
    n: int
kept = [gomp]
local = threading.local()
{body}
"""

FORGETFUL = {
    "within_the_block": """
rt = gomp.Runtime(procs=1, max_heap="64MiB")
rt.start()
kept += [gomp.new(Node, n=i) for i in range(100_000)]
local.kept = kept
""",
    "after_two_runtimes": """
for _ in range(2):
    with gomp.Runtime(procs=1, max_heap="64MiB") as rt:
        kept += [gomp.new(Node, n=i) for i in range(100_000)]
        del kept[1:50_000]
        assert rt.verify(3)
kept.append(kept)
""",
}


@pytest.mark.parametrize("body", FORGETFUL.values(), ids=FORGETFUL)
def test_references_that_are_never_dropped_crash_nothing(body: str) -> None:
    command = [sys.executable, "-c", SCRIPT.replace("{body}", body)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def keep_for_ever(n: int) -> int:
    _kept.extend(gomp.new(Node, n=i) for i in range(n))
    return len(_kept)


_kept: list[Node] = []


def test_what_a_program_forgets_lives_as_long_as_its_process(rt: gomp.Runtime) -> None:
    rt.gc()
    before = rt.stats().heap_alloc
    assert rt.run(keep_for_ever, 50_000) == 50_000
    rt.gc()
    assert rt.stats().heap_alloc >= before + 50_000 * 16
    with pytest.raises(gomp.WorkerDied):
        rt.run(os.kill, rt.run(os.getpid), 9)
    rt.gc()
    assert rt.stats().heap_alloc == before
    assert rt.run(keep_for_ever, 10) == 10


def keep_all(kept: list[Node]) -> None:
    while True:
        kept.append(gomp.new(Node))


def fill_table() -> int:
    kept: list[Node] = []
    with pytest.raises(gomp.OutOfMemory, match="no room for more references in this process"):
        keep_all(kept)
    return len(kept)


@pytest.mark.slow
def test_a_full_table_is_an_error_that_can_be_caught(rt: gomp.Runtime) -> None:
    for _ in range(2):
        assert layout.HANDLES_PER_P - 10_000 < rt.run(fill_table) <= layout.HANDLES_PER_P
    assert rt.run(make_and_drop, 1000) is None
