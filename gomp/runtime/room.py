"""Room on Python's stack for those who wait, and for what runs meanwhile.

A P that waits runs what is queued: above the program that waits, whose frames stay where they are. Many that wait would use up Python's recursion
limit, and who meets that in the middle of gomp's own work leaves it half done: a message is lost, or the connection. So

1. who is about to wait, and has no room for that, is told before anything has begun;
2. a program begins with as much room as Python gives one, however many wait below it: the limit is raised. Python's frames take nothing of the
   native stack, so there may be many; what recurses in C as well does, so there is an end.
"""

from __future__ import annotations

import sys

from gomp.errors import StackOverflow

DEEPEST = 10_000  # frames: where programs wait so deep, no other begins above them
_OF_A_WAIT = 128
_OF_A_PROGRAM = 900  # of Python's 1000: one that begins where nobody waits has them


def check_room() -> None:
    """Raises RecursionError if there is no room to wait in."""
    if _is_deeper_than(sys.getrecursionlimit() - _OF_A_WAIT):
        raise RecursionError(
            f"a wait takes up to {_OF_A_WAIT} frames, and Python's recursion limit leaves fewer: wait where the recursion is less deep"
        )


def make_room() -> None:
    """Have room for a program that begins here. Raises StackOverflow."""
    if _is_deeper_than(DEEPEST):
        raise StackOverflow(
            f"programs that wait are {DEEPEST:,} frames deep on this P, each above the one before: start fewer that wait at the same time, or "
            "have one program start the others as its goroutines, by gomp.go(body())"
        )
    limit = sys.getrecursionlimit()
    if _is_deeper_than(limit - _OF_A_PROGRAM):
        sys.setrecursionlimit(limit + _OF_A_PROGRAM)


def _is_deeper_than(frames: int) -> bool:
    try:
        sys._getframe(frames)
    except ValueError:
        return False
    return True
