"""Tapes: operations on the pacer and its kin, with what goes in and what must come out, one JSON object a line.

A replay keeps one state, performs each operation with its ``in``, and gives what it finds in the fields of the tape's ``out``. The state is the
records of a runtime that nothing runs in; the arithmetic is what a running one uses.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from gomp.core.mutator.lifecycle import init_runtime
from gomp.core.shm import layout, segments
from gomp.core.shm.records import layout_version
from gomp.kernels import load_all_kernels
from gomp.runtime.replay.comparing import Difference, compare, in_fields_of
from gomp.runtime.replay.format import check_fields, is_complete
from gomp.runtime.replay.limiter import Limiter
from gomp.runtime.replay.pacer import Goals, Pacer
from gomp.runtime.replay.scavenger import Scavenger
from gomp.runtime.replay.tape import Kind, Operation, TapeError, read_tape
from gomp.runtime.replay.workers import Workers

__all__ = ["REPLAYS", "Difference", "compare", "in_fields_of", "replay"]

REPLAYS: dict[Kind, Callable[[], Any]] = {
    "pacer": Pacer,
    "goals": Goals,
    "workers": Workers,
    "limiter": Limiter,
    "scavenger": Scavenger,
}


@contextlib.contextmanager
def fresh_records() -> Iterator[None]:
    """The records of a runtime that has just begun, in this process alone."""
    load_all_kernels()
    made = segments.create(layout.ARENA_SIZE)
    try:
        segments.map_segments(made)
        segments.commit_fixed(made, [0, layout.COORDINATOR_P])
        segments.map_self(made, 0)
        init_runtime(layout_version(), layout.ARENA_SIZE // layout.PAGE_SIZE, 1)
        yield
    finally:
        segments.unmap()
        made.close()


def replay(path: Path, kind: Kind) -> Iterator[tuple[Operation, Any]]:
    """Each operation of a tape and what it gives. Raises TapeError."""
    operations = read_tape(path, kind)
    first = next(operations, None)
    if first is None:
        raise TapeError(f"{path} is no tape: there is no operation in it")
    says_all = is_complete(kind, first)
    with fresh_records():
        state = REPLAYS[kind]()
        for operation in itertools.chain([first], operations):
            try:
                found = state.apply(operation)
            except ArithmeticError as error:
                raise TapeError(
                    f"line {operation.line}: field 'in' leads to a number that is out of range: {error}"
                ) from None
            if says_all:
                check_fields(kind, operation)
            yield operation, found
