"""``python -m benchmarks.trigger``: what the trigger test costs an allocation.

Whether a cycle is due is asked when a span is full, not at each object. One compiled loop allocates, and after every so many objects asks once
more: never (A), or as often as spans are refilled (B). Both run in turn in one process; what B takes longer is what the test costs, and is
shown with how much A differs from itself.
"""

from __future__ import annotations

import importlib
import statistics
import sys
import time
from dataclasses import dataclass
from typing import Annotated

import typer

import gomp
from gomp.core.gc.goal import trigger
from gomp.core.heap.sizeclass import NELEMS_NOSCAN

OBJECTS = 200_000
ROUNDS = 200
NEVER = 1 << 62
RING = 1024
LIMITS = {"no memory limit": "off", "a memory limit": "1GiB"}


@gomp.struct
class Plain:
    a: int
    b: int


PER_SPAN = NELEMS_NOSCAN[2]  # of 16 bytes, without references


@gomp.compiled
def allocate(n: int, every: int) -> int:
    """Make ``n`` objects, and ask for the trigger after every ``every`` of them."""
    kept = gomp.array(Plain, RING)
    left, met = every, 0
    for i in range(n):
        kept[i % RING] = gomp.new(Plain)
        left -= 1
        if left == 0:
            left = every
            met += trigger() < 0
    return met


@gomp.compiled
def ask(n: int) -> int:
    """Ask ``n`` times."""
    met = 0
    for _ in range(n):
        met += trigger() < 0
    return met


def _ns(every: int) -> float:
    """Of this process's time: other processes do not count."""
    began = time.process_time_ns()
    allocate(OBJECTS, every)
    return (time.process_time_ns() - began) / OBJECTS


@dataclass(frozen=True)
class Figures:
    """Nanoseconds: an object, and a test by itself. In percent: what B takes longer than A, and what A takes longer than A; medians."""

    object: float
    test: float
    longer: float
    noise: float


def measure(rounds: int) -> Figures:
    """On this P, warm. A round is A, B, A and B, A, A by turns, so that neither has the better place."""
    allocate(10 * OBJECTS, NEVER)
    allocate(10 * OBJECTS, PER_SPAN)
    first, second, asked = [], [], []
    for i in range(rounds):
        order = (NEVER, PER_SPAN, NEVER) if i % 2 else (PER_SPAN, NEVER, NEVER)
        took = [_ns(every) for every in order]
        asked.append(took.pop(order.index(PER_SPAN)))
        first.append(took[0])
        second.append(took[1])
    ask(1)
    began = time.process_time_ns()
    ask(1_000_000)
    test = (time.process_time_ns() - began) / 1_000_000
    middle = statistics.median
    return Figures(
        object=middle(first),
        test=test,
        longer=100 * (middle(asked) / middle(first + second) - 1),
        noise=100 * (middle(second) / middle(first) - 1),
    )


def rows(rounds: int) -> dict[str, float]:
    """For the page of benchmarks."""
    found: dict[str, float] = {}
    for name, limit in LIMITS.items():
        with gomp.Runtime(procs=1, memory_limit=limit) as rt:
            figures = rt.run(
                importlib.import_module("benchmarks.trigger").measure, rounds=rounds
            )  # not of __main__: other processes import it
        found |= {
            f"trigger test with {name}, ns": figures.test,
            f"that with {name}, for each of the {PER_SPAN} objects of 16 bytes in a span, percent of an allocation": 100
            * figures.test
            / PER_SPAN
            / figures.object,
            f"allocation with a second trigger test and {name}, percent longer than with one": figures.longer,
            f"with one and {name}, percent longer than with one": figures.noise,
        }
    return found


def main(rounds: Annotated[int, typer.Option(min=1, help="how often each is run")] = ROUNDS) -> None:
    """Measure, and print one line a figure."""
    for name, value in rows(rounds).items():
        print(f"{name}: {value:.3g}")


if __name__ == "__main__":
    sys.exit(typer.run(main))
