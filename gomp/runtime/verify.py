"""Proof that the heap is sound: :func:`verify` runs the kernels of :mod:`gomp.core.gc.verify` and words what they find.

Whoever calls it has stopped the world, or is the only process and outside every kernel.
"""

from __future__ import annotations

import ctypes
import mmap
from dataclasses import dataclass

from gomp.core.gc import verify as kernels
from gomp.core.shm import layout, records
from gomp.core.shm.atomics import allow_range, load64, store64, zero_range

MAX_PROBLEMS = 100
_OUT_BYTES = 8192


@dataclass(frozen=True)
class Report:
    """What a verification at ``level`` saw: spans in use, objects and their slots' bytes, and one line for each problem."""

    level: int
    spans: int
    objects: int
    bytes: int
    problems: tuple[str, ...]
    reached: int = 0  # objects reached from the roots: level 3


class _Scratch:
    """Private memory for kernels, kept from one use to the next: bytes at ``address``, zeroed when it is given out."""

    def __init__(self) -> None:
        self.size = 0
        self.address = 0

    def zeroed(self, size: int) -> int:
        if size > self.size:
            self.size = max(size, 2 * self.size, 1 << 20)
            self._map = mmap.mmap(-1, self.size)  # zero already
            self.address = ctypes.addressof(ctypes.c_char.from_buffer(self._map))
            allow_range(self.address, self.size)
        else:
            zero_range(self.address, size)
        return self.address


_out, _visited, _stack = _Scratch(), _Scratch(), _Scratch()


def verify(level: int) -> Report:
    """Check the heap: 1 counters and equations, 2 also pages, spans and lists, 3 also everything reachable. World: stopped.

    Level 3 traces only a heap in which the levels below found nothing: a broken one could lead it anywhere.
    """
    out = _out.zeroed(_OUT_BYTES)
    store64(out, MAX_PROBLEMS)
    kernels.check_counters(out)
    if level >= 2:
        kernels.check_spans(out)
        kernels.check_lists(out)
        kernels.check_pages(out)
        kernels.check_specials(out)
    reached = 0
    if level >= 3 and _word(out, kernels.OUT_PROBLEMS) == 0:
        reached = _trace(out)
    return Report(
        level=level,
        spans=_word(out, kernels.OUT_SPANS),
        objects=_word(out, kernels.OUT_OBJECTS),
        bytes=_word(out, kernels.OUT_BYTES),
        problems=_problem_lines(out),
        reached=reached,
    )


def check_marks() -> tuple[str, ...]:
    """GODEBUG=gccheckmark: what the precise roots lead to and is not marked. World: stopped, and marking has just ended."""
    out = _out.zeroed(_OUT_BYTES)
    store64(out, MAX_PROBLEMS)
    kernels.check_counters(out)
    store64(out + 8 * kernels.OUT_IS_MARKED, 1)
    _trace(out)
    return _problem_lines(out)


def scratch() -> tuple[int, int, int]:
    """What a trace needs, zeroed: a result that has counted the objects, a bit for each word of the heap, and a stack. World: stopped."""
    out = _out.zeroed(_OUT_BYTES)
    kernels.check_counters(out)
    return out, *_marks_and_stack(out)


def _trace(out: int) -> int:
    return int(kernels.check_reachable(out, *_marks_and_stack(out)))


def _marks_and_stack(out: int) -> tuple[int, int]:
    grown_bytes = int(records.view(records.mheap_dtype, records.MHEAP)[0].end_page) * layout.PAGE_SIZE
    visited = _visited.zeroed(grown_bytes // 64 + 8)
    stack = _stack.zeroed(8 * _word(out, kernels.OUT_OBJECTS) + 8)
    return visited, stack


def _word(out: int, idx: int) -> int:
    return int(load64(out + 8 * idx))


def _problem_lines(out: int) -> tuple[str, ...]:
    found = _word(out, kernels.OUT_PROBLEMS)
    lines = [_problem_line(out + kernels.FIRST_PROBLEM + 32 * i) for i in range(min(found, MAX_PROBLEMS))]
    if found > MAX_PROBLEMS:
        lines.append(f"{found - MAX_PROBLEMS} more")
    return tuple(lines)


def _problem_line(addr: int) -> str:
    code, a, b, c = (int(load64(addr + 8 * i)) for i in range(kernels.PROBLEM_WORDS))
    return kernels.PROBLEMS[code].format(a=a, b=b, c=c)
