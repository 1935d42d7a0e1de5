"""A memory limit that is approached, that cannot be kept, and that fits again."""

from __future__ import annotations

import threading
import time
from contextlib import contextmanager

import pytest
from served import gomp as command

import gomp
from gomp.core import COMPILED
from gomp.runtime import memstats
from workers.xorshift import advance

if not COMPILED:
    pytest.skip("runs processes of its own", allow_module_level=True)

MIB = 1 << 20
LIMIT = 200 * MIB


@gomp.struct
class Node:
    """16 bytes: much to mark for what it takes."""

    left: Node
    right: Node


LIVE = gomp.Global("limit.live", gomp.Array[Node])


@gomp.compiled
def tree(depth: int) -> Node:
    node = gomp.new(Node)
    if depth > 0:
        node.left = tree(depth - 1)
        node.right = tree(depth - 1)
    return node


@gomp.compiled
def keep(mib: int) -> int:
    """Live data of so many MiB: trees of one MiB each."""
    LIVE.set(None)
    table = gomp.array(Node, mib)
    LIVE.set(table)
    for i in range(mib):
        table[i] = tree(15)
    return mib


@gomp.compiled
def litter(objects: int) -> int:
    """Allocate and drop, as fast as can be."""
    dropped = 0
    for _ in range(objects):
        gomp.new(Node)
        dropped += 1
    return dropped


@gomp.struct
class Block:
    """64 bytes."""

    next: Block
    a: int
    b: int
    c: int
    d: int
    e: int
    f: int
    g: int


@gomp.compiled
def work(mib: int) -> int:
    """Allocate so much in blocks, with arithmetic between them: some hundred MiB a second."""
    state = 88172645463325252
    for _ in range(mib * 16384):
        block = gomp.new(Block)
        for _ in range(200):
            state = advance(state)
        block.a = state
    return state


def litter_for(seconds: float) -> int:
    until, n = time.monotonic() + seconds, 0
    while time.monotonic() < until:
        litter(2000)
        n += 2000
    return n


@contextmanager
def peak_mapped():
    """The most that the limit counted meanwhile."""
    seen, over = [0], threading.Event()

    def watch():
        while not over.wait(0.001):
            seen[0] = max(seen[0], memstats.read().mapped)

    watcher = threading.Thread(target=watch)
    watcher.start()
    yield seen
    over.set()
    watcher.join()


@pytest.fixture
def rt():
    with gomp.Runtime(procs=2, gogc="off", memory_limit=LIMIT, max_heap="1GiB") as runtime:
        yield runtime


@pytest.mark.alone
def test_without_gogc_no_cycle_comes_before_the_limit_is_near_and_then_the_total_stays_below_it(rt):
    """The first cycle knows nothing of the program: one that allocates much faster passes the limit in it, as in Go."""
    rt.run(keep, 60)
    rt.run(work, 80)
    assert rt.stats().num_gc == 0
    assert rt.stats().mapped > 140 * MIB
    with peak_mapped() as peak:
        rt.run(work, 500)
    stats = rt.stats()
    assert stats.num_gc >= 3
    assert stats.limiter.times == 0
    assert 0.9 * LIMIT < peak[0] <= LIMIT


@pytest.mark.alone
def test_live_data_that_leaves_no_room_costs_half_of_the_time_and_no_more(rt):
    """190 of 200 MiB live: what a cycle frees lasts for milliseconds. When the data shrinks again, all is as it was within three cycles."""
    rt.run(keep, 190)
    filling = time.monotonic() + 20
    while rt.stats().limiter.times == 0:  # its bucket fills with what collection takes beyond the half
        assert time.monotonic() < filling
        litter_on_both(rt, 1.0)
    before, began = rt.stats(), time.monotonic()
    made = litter_on_both(rt, 6.0)  # many cycles, each of which may take half a second
    took, after = time.monotonic() - began, rt.stats()
    assert 0.42 < (busy_s(after) - busy_s(before)) / (2 * took) < 0.58
    assert made > 1_000_000
    assert after.limiter.times > before.limiter.times
    assert after.limiter.seconds > before.limiter.seconds
    assert after.limiter.last_cycle > before.num_gc

    rt.run(keep, 60)
    shrunk = rt.stats().num_gc
    while rt.stats().num_gc < shrunk + 3:
        rt.run(work, 20)
    recovered = rt.stats()
    assert not recovered.limiter.active
    with peak_mapped() as peak:
        rt.run(work, 400)
    assert peak[0] <= LIMIT
    assert rt.stats().limiter.times == recovered.limiter.times
    assert rt.stats().num_gc - recovered.num_gc < 10


def litter_on_both(rt: gomp.Runtime, seconds: float) -> int:
    return sum(goroutine.wait(60) for goroutine in [rt.go(litter_for, seconds) for _ in range(2)])


def busy_s(stats: memstats.MemStats) -> float:
    """CPU time of mark workers and assists."""
    return stats.mark_assist_s + stats.mark_dedicated_s + stats.mark_fractional_s


def test_a_limit_below_what_the_runtime_takes_is_accepted_with_one_warning(environment):
    """Also one that it only passes once it has begun to work."""
    done = command(environment | {"GOMEMLIMIT": "1MiB"}, "run", "reference.churn", "n=20000", "m=40000")
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("WARNING") == 1
    assert "memory_limit is 1048576 bytes, and beside the heap the runtime itself takes" in done.stderr


@pytest.mark.parametrize(("flags", "is_told"), [((), False), (("--log-level", "info"), True)], ids=["default", "info"])
def test_a_change_by_a_script_is_logged_where_it_asks_for_that(environment, tmp_path, flags, is_told):
    (tmp_path / "told").mkdir()
    (tmp_path / "told" / "halves.py").write_text(
        "import gomp\n\ndef main():\n    return gomp.debug.set_gc_percent(50)\n"
    )
    done = command(environment | {"PYTHONPATH": str(tmp_path)}, "run", "told.halves:main", *flags)
    assert (done.returncode, done.stdout.splitlines()[0]) == (0, "100"), done.stderr
    assert ("gogc is 50 now; it was 100" in done.stderr) is is_told
