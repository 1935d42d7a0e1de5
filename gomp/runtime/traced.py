"""What Python tells, if a trace is recorded: which program a P runs."""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Iterator

from gomp.core.shm import tracing
from gomp.core.shm.records import TRACE_PROGRAM, TRACE_PROGRAM_END, TRACE_TEXT

TEXT_WORDS = struct.Struct("<qq")  # of a TRACE_TEXT
_MOST_BYTES = 128  # of a name


@contextlib.contextmanager
def told_of(program: int, name: str) -> Iterator[None]:
    """This P runs the program of that id and name for the block."""
    if tracing.is_this_p_tracing():
        tell_program(program, name, 0)
    try:
        yield
    finally:
        tracing.tell_if_tracing(TRACE_PROGRAM_END, program, 0)


def tell_program(program: int, name: str, p: int) -> None:
    """That program has begun. ``p``: on which P, if the coordinator tells it."""
    text = name.encode(errors="replace")[:_MOST_BYTES]
    for at in range(0, len(text), TEXT_WORDS.size):
        tracing.tell_if_tracing(
            TRACE_TEXT, *TEXT_WORDS.unpack(text[at : at + TEXT_WORDS.size].ljust(TEXT_WORDS.size, b"\0"))
        )
    tracing.tell_if_tracing(TRACE_PROGRAM, program, p)
