"""The pacer's decisions, read from where the coordinator's kernels keep them: each with all that went into it and all that came out."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any

from gomp.core.shm.records import (
    MAX_PACER_EVENTS,
    PACER_EVENTS,
    PACER_LOG,
    pacer_dtype,
    pacer_event_dtype,
    pacer_log_dtype,
    view,
    with_attributes,
)

_PACER = with_attributes(pacer_dtype)


@dataclass(frozen=True)
class Decision:
    """One decision. ``pacer`` is the pacer's record then, ``event`` says which decision it was: PACER_EVENT_*."""

    event: int
    now_ns: int
    procs: int
    kind: int
    mapped: int
    heap_free: int
    heap_alloc: int
    goal: int
    trigger: int
    limit_goal: int
    is_sweep_done: int
    is_marking: int
    pacer: Any


def keep(is_on: bool) -> None:
    """From now on decisions are kept, or not."""
    log = view(pacer_log_dtype, PACER_LOG)[0]
    log.n, log.is_on = 0, is_on


def take() -> Iterator[Decision]:
    """The decisions since the last call. By the coordinator."""
    log = view(pacer_log_dtype, PACER_LOG)[0]
    n, log.n = int(log.n), 0
    if n > MAX_PACER_EVENTS:
        raise AssertionError(f"{n} decisions of the pacer in one step: only {MAX_PACER_EVENTS} can be kept")
    for i in range(n):
        event = view(pacer_event_dtype, PACER_EVENTS + i * pacer_event_dtype.itemsize)[0]
        numbers: dict[str, Any] = {field.name: int(event[field.name]) for field in fields(Decision)[:-1]}
        yield Decision(**numbers, pacer=event["pacer"].copy().view(_PACER)[0])
