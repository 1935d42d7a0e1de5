"""Nanoseconds per object, by size and kind, from compiled programs: the same loops as ``benchmarks/go/alloc.go``."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import gomp

RING = 1024  # an object is garbage after so many allocations
BYTES_PER_LOOP = 64 << 20
SIZES = (16, 32, 64, 128, 512, 2048)


@gomp.struct
class Pair:
    left: "Pair"
    right: "Pair"


def _declare(name: str, fields: dict[str, object]) -> Any:
    declared = type(name, (), {"__annotations__": fields, "__module__": __name__, "__qualname__": name})
    return gomp.struct(declared)


def _words(n: int) -> dict[str, object]:
    return {f"w{i}": int for i in range(n)}


def _loop_for(cls: Any) -> Callable[[int], None]:
    """A compiled loop that makes objects of one struct."""

    @gomp.compiled
    def loop(n: int) -> None:
        kept = gomp.array(cls, RING)
        for i in range(n):
            kept[i % RING] = gomp.new(cls)

    return loop


KINDS: dict[str, tuple[int, Any]] = {"pair16": (16, Pair)}
for _size in SIZES:
    _count = _size // 8
    KINDS[f"linked{_size}"] = (_size, _declare(f"Linked{_size}", {"ref": f"Linked{_size}", **_words(_count - 1)}))
    KINDS[f"plain{_size}"] = (_size, _declare(f"Plain{_size}", _words(_count)))
for _, _cls in KINDS.values():
    globals()[_cls.__name__] = _cls
LOOPS = {name: _loop_for(cls) for name, (_, cls) in KINDS.items()}


def ns_per_object(kind: str, bytes_per_loop: int = BYTES_PER_LOOP) -> float:
    """On this P, warm: the loop has been compiled and its spans have been used once."""
    loop, n = LOOPS[kind], max(bytes_per_loop // KINDS[kind][0], 1 << 16)
    loop(n // 8)
    began = time.perf_counter_ns()
    loop(n)
    return (time.perf_counter_ns() - began) / n


def main(kinds: tuple[str, ...] = tuple(KINDS)) -> dict[str, float]:
    """Nanoseconds per object for each kind."""
    return {kind: ns_per_object(kind) for kind in kinds}
