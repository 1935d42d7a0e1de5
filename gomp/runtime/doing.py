"""What each P is doing at a moment, in one letter: a look at a few words of its record, which nobody is stopped for.

The words are read one after the other, so a P that changes meanwhile may be told as what it was or as what it is. A look costs some
microseconds, however many Ps there are.
"""

from __future__ import annotations

import ctypes
import functools
from typing import Any

import numpy as np

from gomp.core.gc.limiter import EVENT_ASSIST, EVENT_IDLE, EVENT_KIND
from gomp.core.shm import layout, records
from gomp.core.shm.records import STATUS_KERNEL, STATUS_SAFE

# It has no process · it stands still, as the world is stopped · its program assists: marks to pay for what it allocates · it marks · it waits until
# its assist is paid for · it is idle · it runs a compiled program · it runs Python, or is in a system call · it sweeps.
GONE, STOPPED, ASSISTS, MARKS, OWES, IDLE, PROGRAM, PYTHON, SWEEPS = "gsamoirpw"


@functools.lru_cache(4)
def _p_records(n: int) -> Any:
    """The first ``n`` P records as one array."""
    buffer = (ctypes.c_char * (n * layout.P_STRIDE)).from_address(layout.PS_BASE)
    return np.ndarray((n,), records.p_dtype, memoryview(buffer), strides=(layout.P_STRIDE,))


def look() -> str:
    """A letter for each P, by number, and one for the coordinator."""
    runtime = records.view(records.runtime_dtype, records.RUNTIME)[0]
    return _look_at_ps(runtime) + _look_at_coordinator(runtime)


def _look_at_ps(runtime: Any) -> str:
    ps = _p_records(min(max(int(runtime.nrecords), 0), layout.COORDINATOR_P))  # in a damaged heap it may be any number
    is_safe, event = ps["xstatus"] == STATUS_SAFE, ps["xevent"] & EVENT_KIND
    conditions = {
        GONE: (ps["xpid"] == 0) | (ps["xdead"] != 0),
        STOPPED: is_safe & bool(runtime.xstop),
        ASSISTS: event == EVENT_ASSIST,
        MARKS: ps["xmarking"] != 0,
        OWES: is_safe & (ps["xawaits_credit"] > 0),
        IDLE: (event == EVENT_IDLE) | (ps["xidle"] != 0),
        PROGRAM: ps["xstatus"] == STATUS_KERNEL,
    }
    return "".join(np.select(list(conditions.values()), list(conditions), PYTHON))


def _look_at_coordinator(runtime: Any) -> str:
    if runtime.xstop:
        return STOPPED
    if runtime.xgcphase != records.GC_OFF:
        return MARKS if runtime.xresting == records.RESTS_NOT else IDLE
    return SWEEPS if runtime.xsweep_class < records.SWEEP_SETS else IDLE
