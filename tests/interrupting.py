"""Ctrl-C at a chosen place of a program: for tests that try them all."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import CodeType, FrameType

from gomp.runtime.peer import Goroutine
from gomp.runtime.slots import Handle

UNINTERRUPTED: tuple[CodeType, ...] = (Handle.__del__.__code__, Goroutine.__del__.__code__)


class Interrupting:
    """Raises KeyboardInterrupt at the n-th place from here at which Python handles signals: a call of Python, or the end of one of C."""

    def __init__(self, n: int) -> None:
        self._left = n

    def __call__(self, frame: FrameType, event: str, arg: object) -> None:
        if frame.f_code in UNINTERRUPTED:
            return
        if event in ("call", "c_return") and arg is not sys.setprofile:
            self._left -= 1
            if self._left == 0:
                sys.setprofile(None)
                raise KeyboardInterrupt


def interrupted(use: Callable[[], object], n: int) -> bool:
    """Whether ``use()``, if it is interrupted at the n-th place, ends there."""
    sys.setprofile(Interrupting(n))
    try:
        use()
    except KeyboardInterrupt:
        return True
    except ValueError as error:
        if "PyArray_NewFromDescr" not in str(error):  # what Numba makes of an interrupt while it makes an array
            raise
        return True
    finally:
        sys.setprofile(None)
    return False
