"""Ten thousand goroutines whose body is a Python generator: each waits at a channel of its own, and says on one for all what it has received."""

from __future__ import annotations

import time
from collections.abc import Generator
from typing import Any

import gomp


def worker(mine: gomp.Chan[int], results: gomp.Chan[int]) -> Generator[Any, Any, None]:
    value = yield mine.receiving()
    yield results.sending(value)


async def feed(channels: list[gomp.Chan[int]]) -> None:
    for value, ch in enumerate(channels):
        await ch.sending(value)


async def main(n: int = 10_000) -> int:
    """The sum of what ``n`` of them have said; prints a line."""
    began = time.perf_counter()
    results = gomp.Chan[int](64)
    channels = [gomp.Chan[int]() for _ in range(n)]
    started = [gomp.go(worker(ch, results)) for ch in channels]
    gomp.go(feed(channels))
    total = sum([await results.receiving() for _ in range(n)])
    for goroutine in started:
        await goroutine
    took = time.perf_counter() - began
    print(f"{n:,} generators: {took:.2f} s, {1e6 * took / max(n, 1):.0f} us each")
    return total
