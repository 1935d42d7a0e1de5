"""``python -m benchmarks.sharing``: handing data from process to process, and small reads and writes, beside what Python has for that.

Every row is measured in this one run, round after round in turn, so that a slow moment of the machine hits all; quoted are medians. The table goes
into docs/benchmarks.md, between its two marks. LMDB has its rows if the package lmdb is there.
"""

from __future__ import annotations

import importlib.util
import multiprocessing
import statistics
import tempfile
import time
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, contextmanager
from multiprocessing import resource_tracker, shared_memory
from typing import Any

import numpy as np

import gomp
from benchmarks import objects
from benchmarks.page import put_section

TITLE = "Sharing between processes"
ROUNDS = 15
SMALL, LARGE = 1 << 20, 1 << 26
READS = 200
_SETTLE_S = 0.02  # garbage that the way before has left is collected and given back meanwhile
Hand = Callable[[], float]


@gomp.struct
class Point:
    x: int


def touch(array: Any) -> int:
    """What the other process does with what it gets: look at one element, so that it has to be there."""
    return int(array[len(array) // 2])


def touch_named(name: str, n: int) -> int:
    block = shared_memory.SharedMemory(name)
    try:
        return int(np.ndarray(n, np.uint8, block.buf)[n // 2])
    finally:
        block.close()


def timed(call: Callable[[], object]) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def echo(connection: Any) -> None:
    """The other end of a pipe."""
    while (array := connection.recv()) is not None:
        connection.send(touch(array))


@contextmanager
def pipe() -> Iterator[Any]:
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.Process(target=echo, args=(theirs,))
    process.start()
    try:
        yield ours
    finally:
        ours.send(None)
        process.join()


def ask(connection: Any, array: Any) -> int:
    connection.send(array)
    return int(connection.recv())


def in_shared_memory(pool: ProcessPoolExecutor, n: int) -> int:
    block = shared_memory.SharedMemory(create=True, size=n)
    try:
        return pool.submit(touch_named, block.name, n).result()
    finally:
        block.close()
        block.unlink()


def through(proxy: Any, array: Any) -> int:
    proxy["array"] = array
    return touch(proxy["array"])


def hand_over(
    rt: gomp.Runtime, executor: gomp.Executor, pool: ProcessPoolExecutor, connection: Any, proxy: Any, n: int
) -> dict[str, Hand]:
    """Ways of giving n bytes to a process that looks at one of them, and says so."""
    private, shared = np.ones(n, np.uint8), gomp.ndarray(n, np.uint8)
    block = shared_memory.SharedMemory(create=True, size=n)
    weakref.finalize(shared, lambda: (block.close(), block.unlink()))
    return {
        "gomp, rt.run": lambda: timed(lambda: rt.run(touch, shared)),
        "gomp, Executor": lambda: timed(lambda: executor.submit(touch, shared).result()),
        "gomp, a new array": lambda: timed(lambda: rt.run(touch, gomp.ndarray(n, np.uint8))),
        "shared_memory, one block for all": lambda: timed(lambda: pool.submit(touch_named, block.name, n).result()),
        "shared_memory, a new block": lambda: timed(lambda: in_shared_memory(pool, n)),
        "pickle over a pipe": lambda: timed(lambda: ask(connection, private)),
        "Manager().dict(), there and back": lambda: timed(lambda: through(proxy, private)),
        "ProcessPoolExecutor": lambda: timed(lambda: pool.submit(touch, private).result()),
    }


def small(rt: gomp.Runtime, manager: Any, lmdb_dir: str) -> dict[str, tuple[Hand, Hand]]:
    """Ways of reading and writing one number that others see, as (read, write), a call each."""
    point = gomp.new(Point)
    values = gomp.array(int, 8)
    proxy = manager.dict({"x": 1})

    def get() -> int:
        return point.x

    def put() -> None:
        point.x = 5

    def put_item() -> None:
        values[3] = 5

    def put_proxy() -> None:
        proxy["x"] = 5

    ways = {
        "gomp, a field": (per_call(get), per_call(put)),
        "gomp, an element": (per_call(lambda: values[3]), per_call(put_item)),
        "Manager().dict()": (per_call(lambda: proxy["x"]), per_call(put_proxy)),
    }
    if importlib.util.find_spec("lmdb"):
        ways["LMDB"] = _lmdb(lmdb_dir)
    return ways


def _lmdb(directory: str) -> tuple[Hand, Hand]:
    import lmdb

    environment = lmdb.open(directory, map_size=1 << 24, sync=False)

    def get() -> int:
        with environment.begin() as reader:
            return int.from_bytes(reader.get(b"x", b""), "little")

    def put() -> None:
        with environment.begin(write=True) as writer:
            writer.put(b"x", (5).to_bytes(8, "little"))

    put()
    return per_call(get), per_call(put)


def per_call(call: Callable[[], object]) -> Hand:
    def measure() -> float:
        began = time.perf_counter()
        for _ in range(READS):
            call()
        return (time.perf_counter() - began) / READS

    return measure


def medians(ways: dict[str, Hand], rounds: int = ROUNDS) -> dict[str, float]:
    """Seconds, of each way, taken in turn; the first round warms up."""
    seen: dict[str, list[float]] = {name: [] for name in ways}
    for i in range(rounds + 1):
        for name, measure in ways.items():
            time.sleep(_SETTLE_S)
            seconds = measure()
            if i:
                seen[name].append(seconds)
    return {name: statistics.median(all_) for name, all_ in seen.items()}


def measure() -> str:
    """The tables."""
    with ExitStack() as stack:
        resource_tracker.ensure_running()  # before the pool's processes start trackers of their own
        pool = stack.enter_context(ProcessPoolExecutor(2))
        pool.submit(touch, np.ones(3)).result()
        connection = stack.enter_context(pipe())
        manager = stack.enter_context(multiprocessing.Manager())
        directory = stack.enter_context(tempfile.TemporaryDirectory())
        rt = stack.enter_context(gomp.Runtime(procs=2, max_heap="2GiB"))
        executor = stack.enter_context(gomp.Executor(rt))
        proxy = manager.dict()
        first = medians(hand_over(rt, executor, pool, connection, proxy, SMALL))
        second = medians(hand_over(rt, executor, pool, connection, proxy, LARGE), 5)
        ways = small(rt, manager, directory)
        reads = medians({name: read for name, (read, _) in ways.items()})
        writes = medians({name: write for name, (_, write) in ways.items()})
    lines = [
        "| an array to another process that looks at it, and back, ms | 1 MiB | 64 MiB |",
        "|---|---|---|",
        *(f"| {name} | {1e3 * first[name]:.2f} | {1e3 * second[name]:.2f} |" for name in first),
        "",
        "| one number that other processes see, µs | read | write |",
        "|---|---|---|",
        *(f"| {name} | {1e6 * reads[name]:.2f} | {1e6 * writes[name]:.2f} |" for name in reads),
    ]
    return "\n".join(lines)


def measure_all() -> str:
    """What goes into the page."""
    return f"{measure()}\n\n{objects.measure()}"


if __name__ == "__main__":
    table = measure_all()
    print(table)
    put_section("sharing", TITLE, table)
