"""Proof that the heap is sound: :func:`verify` runs the kernels of ``gomp/core/gc/verify/`` and words what they find.

Those are slow, simple, and share no code with what they check but the record layouts. Whoever calls them has stopped the world, or is the only
process and outside every kernel. Spans may be in mcaches, and the heap may be in the middle of being marked.
"""

from __future__ import annotations

import ctypes
import mmap
from dataclasses import dataclass

from gomp.core.gc.verify import problems, trace
from gomp.core.gc.verify.counters import check_counters
from gomp.core.gc.verify.lists import check_lists
from gomp.core.gc.verify.pages import check_pages
from gomp.core.gc.verify.ps import check_ps
from gomp.core.gc.verify.queues import check_queues
from gomp.core.gc.verify.sizes import check_sizes
from gomp.core.gc.verify.spans import check_spans
from gomp.core.gc.verify.specials import check_specials
from gomp.core.gc.verify.stacks import check_stacks
from gomp.core.gc.verify.zero import check_zero
from gomp.core.shm import layout, records
from gomp.core.shm.atomics import allow_range, load64, store64, zero_range
from gomp.core.shm.commit import take_budget
from gomp.errors import OutOfMemory

MAX_PROBLEMS = 100
_OUT_BYTES = 8192
_AT = _OUT_BYTES - 8  # of the number of the check that is under way
_CHECKS = (  # from which level, what each looks at
    (1, "the counters", check_counters),
    (2, "the spans", check_spans),
    (2, "the lists of spans", check_lists),
    (2, "the pages", check_pages),
    (2, "the stacks of goroutines", check_stacks),
    (2, "the queues of goroutines", check_queues),
    (2, "the special records", check_specials),
)
_LEAST = 1 << 16


@dataclass(frozen=True)
class Report:
    """What a verification at ``level`` saw: spans in use, objects and their slots' bytes, and one line for each problem."""

    level: int
    spans: int
    objects: int
    bytes: int
    problems: tuple[str, ...]
    reached: int = 0  # objects reached from the roots: level 3


class Scratch:
    """Private memory for kernels, kept from one use to the next: bytes at ``address``, zeroed when it is given out.

    It is taken from the budget of what may be committed: where a cgroup has no room for it, touching it would kill this process.
    """

    def __init__(self) -> None:
        self.size = 0
        self.address = 0

    def zeroed(self, size: int) -> int:
        if size > self.size:
            self._grow(max(size, 2 * self.size, _LEAST))
        else:
            zero_range(self.address, size)
        return self.address

    def _grow(self, size: int) -> None:
        """Raises OutOfMemory, and has what it had."""
        if not take_budget(size):
            raise OutOfMemory(f"there is no room for the {size:,} bytes that looking through the heap takes")
        try:
            self._map = mmap.mmap(-1, size)  # zero already
        except OSError as error:
            raise OutOfMemory(f"the {size:,} bytes that looking through the heap takes: {error.strerror}") from None
        self.size = size
        self.address = ctypes.addressof(ctypes.c_char.from_buffer(self._map))
        allow_range(self.address, self.size)


_out, _trace, _visited, _queue = Scratch(), Scratch(), Scratch(), Scratch()


def verify(level: int) -> Report:
    """Check the heap: 1 counters and equations, 2 also pages, spans and lists, 3 also everything reachable. World: stopped.

    Level 3 walks only through a heap in which the levels below found nothing: a broken one could lead it anywhere.
    """
    out = begin()
    if check_sizes(out) and check_ps(out):
        for n, (least, _, check) in enumerate(_CHECKS):
            if level >= least:
                store64(out + _AT, n)
                check(out)
    reached = 0
    if level >= 3 and _word(out, problems.OUT_PROBLEMS) == 0:
        store64(out + _AT, len(_CHECKS))
        check_zero(out)
        reached = int(trace.trace(new_trace(out)))
    return Report(
        level=level,
        spans=_word(out, problems.OUT_SPANS),
        objects=_word(out, problems.OUT_OBJECTS),
        bytes=_word(out, problems.OUT_BYTES),
        problems=_problem_lines(out),
        reached=reached,
    )


def begin() -> int:
    """Where what is found will be: also by processes that are forked from here on, so that it is there if one of them comes to grief."""
    out = _out.zeroed(_OUT_BYTES)
    store64(out, MAX_PROBLEMS)
    return out


def found_so_far() -> tuple[tuple[str, ...], str]:
    """The problems that a verification has found which has come to no end, and what it was looking at."""
    at = int(load64(_out.address + _AT))
    return _problem_lines(_out.address), _CHECKS[at][1] if at < len(_CHECKS) else "what is reachable"


def check_marks() -> tuple[str, ...]:
    """GODEBUG=gccheckmark: what the precise roots lead to and is not marked. World: stopped, and marking has just ended."""
    out = begin()
    check_counters(out)
    t = new_trace(out)
    store64(t + trace.T_IS_MARKED, 1)
    trace.trace(t)
    return _problem_lines(out)


def new_trace(out: int = 0) -> int:
    """The record of a trace that begins; its problems go to ``out``, a result that has counted the objects. World: stopped."""
    t = _trace.zeroed(trace.TRACE_BYTES)
    store64(t + trace.T_OUT, out)
    store64(t + trace.T_VISITED, _visited.zeroed(visited_bytes()))
    store64(t + trace.T_QUEUE, _queue.zeroed(8 * (_word(out, problems.OUT_OBJECTS) if out else count_objects()) + 8))
    return t


def visited_bytes() -> int:
    """Size of a bitmap with a bit for each word of the heap."""
    return int(records.view(records.mheap_dtype, records.MHEAP)[0].end_page) * layout.PAGE_SIZE // 64 + 8


def count_objects() -> int:
    """How many objects the heap has, those among them that nobody can reach. World: stopped."""
    out = _out.zeroed(_OUT_BYTES)
    check_counters(out)
    return _word(out, problems.OUT_OBJECTS)


def _word(out: int, idx: int) -> int:
    return int(load64(out + 8 * idx))


def _problem_lines(out: int) -> tuple[str, ...]:
    found = _word(out, problems.OUT_PROBLEMS)
    lines = [_problem_line(out + problems.FIRST_PROBLEM + 32 * i) for i in range(min(found, MAX_PROBLEMS))]
    if found > MAX_PROBLEMS:
        lines.append(f"{found - MAX_PROBLEMS} more")
    return tuple(lines)


def _problem_line(addr: int) -> str:
    code, a, b, c = (int(load64(addr + 8 * i)) for i in range(problems.PROBLEM_WORDS))
    return problems.PROBLEMS[code].format(a=a, b=b, c=c)
