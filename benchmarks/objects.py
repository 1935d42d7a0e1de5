"""What an operation on an object costs, from Python and in compiled code: nanoseconds, medians of rounds in turn."""

from __future__ import annotations

import statistics
import time
import timeit
from collections.abc import Callable
from functools import partial
from typing import Any

import gomp

ROUNDS, CALLS = 11, 20_000
LOOP = 1_000_000
ENTRIES = 1_000
_KEYS = 511  # that a compiled loop goes through


@gomp.struct
class Cell:
    next: "Cell"
    value: int


POOL = gomp.Pool(Cell)
NUMBERS = gomp.Global("objects.numbers", gomp.Map[int, Cell])


@gomp.compiled
def read_values(n: int, cell: Cell) -> int:
    total = 0
    for _ in range(n):
        total += cell.value
        cell = cell.next  # so that no compiler reads once for all
    return total


@gomp.compiled
def write_references(n: int, cell: Cell) -> int:
    for _ in range(n):
        cell.next = cell
    return n


@gomp.compiled
def make(n: int) -> int:
    for _ in range(n):
        cell = gomp.new(Cell)
        cell.value = n
    return n


@gomp.compiled
def look_up(n: int) -> int:
    numbers = NUMBERS.get()
    total = 0
    for i in range(n):
        cell = numbers[i & _KEYS]
        total += cell.value
    return total


@gomp.compiled
def get_and_put(n: int) -> int:
    for _ in range(n):
        POOL.put(POOL.get())
    return n


def _per_run(statement: str, names: dict[str, Any]) -> float:
    return 1e9 * timeit.timeit(statement, number=CALLS, globals=names) / CALLS


def _per_turn(loop: Callable[[int], int]) -> float:
    began = time.perf_counter_ns()
    loop(LOOP)
    return (time.perf_counter_ns() - began) / LOOP


def measure() -> str:
    """The table, of a runtime of its own."""
    with gomp.Runtime(procs=1, max_heap="1GiB"):
        return _measure_here()


def _measure_here() -> str:
    cell = gomp.new(Cell, value=3)
    cell.next = cell
    numbers, words = gomp.map(int, Cell), gomp.map(str, Cell)
    for i in range(ENTRIES):
        numbers[i] = words[f"word {i}"] = cell
    NUMBERS.set(numbers)

    names = {"gomp": gomp, "Cell": Cell, "POOL": POOL, "cell": cell, "numbers": numbers, "words": words}
    statements = {
        "read a number and the next reference": "cell.value; cell.next",
        "write a reference": "cell.next = cell",
        "a new object": "gomp.new(Cell, value=3)",
        f"map get, int, {ENTRIES:,} entries": "numbers[77]",
        "pool, get and put": "POOL.put(POOL.get())",
        "read a number": "cell.value",
        "read a reference": "cell.next",
        f"map get, str, {ENTRIES:,} entries": "words['word 77']",
    }
    loops: tuple[Callable[[int], int], ...] = (
        lambda n: read_values(n, cell), lambda n: write_references(n, cell), make, look_up, get_and_put
    )  # fmt: skip
    python = _medians({name: partial(_per_run, statement, names) for name, statement in statements.items()})
    compiled = _medians({name: partial(_per_turn, loop) for name, loop in zip(statements, loops, strict=False)})
    rows = [f"| {name} | {ns:,.0f} | {_shown(compiled.get(name))} |" for name, ns in python.items()]
    return "\n".join(["| an operation on an object, ns | from Python | compiled |", "|---|---|---|", *rows])


def _shown(ns: float | None) -> str:
    return "" if ns is None else f"{ns:.1f}"


def _medians(ways: dict[str, Callable[[], float]]) -> dict[str, float]:
    """In turn; the first round warms up."""
    seen: dict[str, list[float]] = {name: [] for name in ways}
    for i in range(ROUNDS + 1):
        for name, way in ways.items():
            ns = way()
            if i:
                seen[name].append(ns)
    return {name: statistics.median(all_) for name, all_ in seen.items()}
