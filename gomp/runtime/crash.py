"""What is said of a runtime that is lost, as the heap breaks its own rules: what was found, what each P was doing, and the last events that it told.

Nothing that is read here can be trusted: any word may be anything. So everything is a number, which is shown as it is.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np

from gomp.core.heap import mspan
from gomp.core.shm import layout, records
from gomp.core.shm.records import GC_MARK, MHEAP, PACER, RUNTIME, SWEEP_SETS, view
from gomp.runtime import doing
from gomp.runtime.recordaddr import g_number, trace_addr
from gomp.runtime.stopping import p_record

LAST_EVENTS = 12  # of each P
_WORDS = {
    doing.GONE: "has no process", doing.STOPPED: "stands still", doing.ASSISTS: "assists", doing.MARKS: "marks", doing.OWES: "waits for credit",
    doing.IDLE: "is idle", doing.PROGRAM: "is in machine code", doing.PYTHON: "is in Python or a system call", doing.SWEEPS: "sweeps",
}  # fmt: skip
_EVENTS = {
    getattr(records, f"TRACE_{name.upper().replace(' ', '_')}"): name
    for name in (
        "process", "text", "program", "program end", "run", "run end", "create", "ready", "park", "park end", "wait", "wait end", "mark", "mark end",
        "assist", "assist end", "swept", "scavenged", "left out", "stop", "stopped", "stop why", "stop end", "cycle", "cycle marked", "cycle swept",
        "heap", "death", "repair", "repair end",
    )
}  # fmt: skip


def report(why: str, found: Iterable[str], running: Callable[[int], list[str]]) -> str:
    """The whole report. ``why`` says how it was found; ``running`` names the programs of a P."""
    return "\n".join([why, *(f"  {line}" for line in found), *_where(), *_ps(running)])


def _where() -> Iterator[str]:
    runtime, pacer = view(records.runtime_dtype, RUNTIME)[0], view(records.pacer_dtype, PACER)[0]
    mheap = view(records.mheap_dtype, MHEAP)[0]
    is_swept = runtime.xsweep_class >= SWEEP_SETS
    phase = "marking" if runtime.xgcphase == GC_MARK else "between cycles" if is_swept else "sweeping"
    yield (
        f"cycle {int(runtime.xcycles)}, {phase}; heap live {int(pacer.xheap_live):,} bytes, marked {int(pacer.heap_marked):,}, "
        f"committed {int(mheap.xheap_committed):,}; GOGC={int(pacer.gc_percent)}, GOMEMLIMIT={int(pacer.memory_limit)}"
    )


def _ps(running: Callable[[int], list[str]]) -> Iterator[str]:
    now_ns = time.monotonic_ns()
    does = doing.look()
    for p in (*range(len(does) - 1), layout.COORDINATOR_P):
        record = p_record(p)
        is_coordinator = p == layout.COORDINATOR_P
        what = does[-1] if is_coordinator else does[p]
        if what == doing.GONE and not record.trace_committed:
            continue
        who = "coordinator" if is_coordinator else f"P{p} (pid {int(record.xpid)})"
        programs = "" if is_coordinator else ", ".join(running(p))
        yield f"{who} {_WORDS[what]}{f', runs {programs}' if programs else ''}{_details(record)}"
        yield from _last_events(p, now_ns)


def _details(record: Any) -> str:
    """The words of a P's record that say most about where it is."""
    shown = {
        "goroutine record": g_number(int(record.curg)) if record.curg else 0,
        "waits for the lock at": hex(int(record.waiting_for)) if record.waiting_for else 0,
        "critical sections": int(record.no_park),
        "redo stores": int(record.xredo_n),
        "takes page": int(record.taking_page) if record.taking_page != mspan.NO_SPAN else 0,
        "deaths": int(record.deaths),
    }
    return "".join(f"; {name} {value}" for name, value in shown.items() if value)


def _last_events(p: int, now_ns: int) -> Iterator[str]:
    """Of a P that tells, as in a trace: how long ago each was, which, and its two numbers."""
    if p_record(p).trace_committed != layout.TRACE_RING:
        return
    ring = trace_addr(p)
    written = int(view(np.dtype("i8"), ring, 1)[0])
    events = view(records.trace_event_dtype, ring + layout.TRACE_HEADER, layout.TRACE_EVENTS)
    for n in range(max(written - LAST_EVENTS, 0), written):
        event = events[n % layout.TRACE_EVENTS]
        detail, what = divmod(int(event.what), 1 << records.TRACE_DETAIL_SHIFT)
        yield (
            f"    {(int(event.at_ns) - now_ns) / 1e6:12.3f} ms  {_EVENTS.get(what, f'event {what}')}"
            f"{f' {detail}' if detail else ''}  {int(event.a)} {int(event.b)}"
        )
