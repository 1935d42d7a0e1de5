"""The lines that ``GODEBUG=gcpacertrace=1`` prints, as Go writes them: at a cycle's start, at its end, and when its sweep is done.

::

    pacer: assist ratio=0.36 (scan 1 MB in 90->94 MB) workers=0+0.25
    pacer: 59% CPU (25 exp.) for 1638728+8304+164938 B work (1812186 B exp.) in 94402952 B -> 100844584 B (∆goal -178248, cons/mark 53.3)
    pacer: sweep done at heap size 87MB; allocated 14MB during sweep; swept 12771 pages at 0.0007952290491299742 pages/byte
"""

from __future__ import annotations

from decimal import Decimal

from gomp.core.gc.pacer import UTILIZATION
from gomp.core.shm.records import (
    PACER_EVENT_ENDED,
    PACER_EVENT_ENDING,
    PACER_EVENT_STARTED,
    RUNTIME,
    runtime_dtype,
    view,
)
from gomp.runtime.pacerlog import Decision

_LEAST_EXPONENT, _TOO_BIG_EXPONENT = -4, 6


class PacerTrace:
    """Makes a line of what it is told, where Go has one."""

    def __init__(self) -> None:
        self._ending: Decision

    def line(self, decision: Decision) -> str:
        """The line that tells of ``decision``, or ""."""
        if decision.event == PACER_EVENT_STARTED:
            return _start_line(decision)
        if decision.event == PACER_EVENT_ENDING:
            self._ending = decision
        return _end_line(self._ending, decision) if decision.event == PACER_EVENT_ENDED else ""


def _start_line(d: Decision) -> str:
    pc = d.pacer
    return (
        f"pacer: assist ratio={format_float(pc.assist_work_per_byte)} (scan {int(pc.xheap_scan) >> 20} MB in "
        f"{int(pc.triggered) >> 20}->{d.goal >> 20} MB) workers={int(pc.xdedicated_needed)}+{format_float(pc.fractional_goal)}"
    )


def _end_line(before: Decision, after: Decision) -> str:
    pc = before.pacer
    work = [int(pc[name]) for name in ("xheap_scan_work", "xstack_scan_work", "xglobals_scan_work")]
    live, triggered = int(pc.xheap_live), int(pc.triggered)
    if live <= triggered or not sum(work):
        return ""  # nothing could be learnt
    cpu = (before.now_ns - int(pc.mark_start_ns)) * before.procs
    utilization = UTILIZATION + (int(pc.xassist_ns) / cpu if cpu > 0 else 0.0)
    expected = int(pc.last_heap_scan + pc.last_stack_scan + pc.globals_scan)
    return (
        f"pacer: {int(utilization * 100)}% CPU ({int(UTILIZATION * 100)} exp.) for {'+'.join(map(str, work))} B work "
        f"({expected} B exp.) in {triggered} B -> {live} B (∆goal {live - int(after.pacer.last_heap_goal)}, "
        f"cons/mark {format_float(pc.cons_mark)})"
    )


def sweep_line(live: int) -> str:
    """The line for the end of a sweep at which the heap is ``live`` bytes."""
    rt = view(runtime_dtype, RUNTIME)[0]
    return (
        f"pacer: sweep done at heap size {live >> 20}MB; allocated {(live - int(rt.sweep_basis_live)) >> 20}MB during sweep; "
        f"swept {int(rt.xpages_swept)} pages at {format_float(rt.sweep_ratio)} pages/byte"
    )


def format_float(x: float) -> str:
    """The shortest decimals that are ``x`` again, as Go's print writes them: with an exponent below 1e-4 and from 1e6."""
    number = Decimal(repr(float(x)))
    if not number.is_finite():
        return {"Infinity": "+Inf", "-Infinity": "-Inf"}.get(str(number), "NaN")
    exponent = number.adjusted() if number else 0
    if _LEAST_EXPONENT <= exponent < _TOO_BIG_EXPONENT:
        return f"{number.normalize():f}" if number else "0"
    digits = "".join(map(str, number.normalize().as_tuple().digits))
    fraction = f".{digits[1:]}" if len(digits) > 1 else ""
    return f"{'-' if number < 0 else ''}{digits[0]}{fraction}e{exponent:+03d}"
