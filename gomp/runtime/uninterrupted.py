"""Functions in which no signal is handled, for ``__del__``.

What a signal's handler raises in a ``__del__`` is printed, not raised: Ctrl-C would be lost there, and what was to be done not be done.

Python handles signals, and switches to other threads, where a function begins, after a call and where a loop begins anew. So a function without
calls and loops has one such place: the instruction RESUME, with which it begins. There are four of these. That after an ``await`` handles none.
"""

from __future__ import annotations

import dis
from collections.abc import Callable
from types import FunctionType
from typing import Any, TypeVar

F = TypeVar("F", bound=Callable[..., Any])
_AFTER_AWAIT = 3
_LOOKS = ("CALL", "PRECALL", "JUMP_BACKWARD", "FOR_ITER")


def uninterrupted(function: F) -> F:
    """``function``, which has no calls and no loops, beginning as if it went on after an ``await``: what a signal's handler raises comes after it."""
    assert isinstance(function, FunctionType)
    code = function.__code__
    assert not any(i.opname.startswith(_LOOKS) for i in dis.get_instructions(code)), "it has calls or loops"
    begins = next(i.offset for i in dis.get_instructions(code) if i.opname == "RESUME")
    instructions = bytearray(code.co_code)
    instructions[begins + 1] = _AFTER_AWAIT
    function.__code__ = code.replace(co_code=bytes(instructions))
    return function
