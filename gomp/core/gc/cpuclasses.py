"""What the CPU time of the Ps was spent on (mstats.go, cpuStats): worked out when a marking ends, and as it was then until the next.

The classes add up to the time that there was, GOMAXPROCS times the time since the start, and none ever goes back. They are measured one by one, some
by those who are no Ps: a script that helps with marking takes time that the Ps have had idle. So a class catches up with what was measured of it as
far as there is time left since the last account, in the order of CPU_*; programs have the rest.

Two records take turns. One is written whole, then published by one word: whoever reads it and finds the word unchanged has read one account.
"""

from __future__ import annotations

from gomp.core.jit import inline, kernel
from gomp.core.shm import layout
from gomp.core.shm.atomics import fence_release, load64, load_relaxed, store64, store_release
from gomp.core.shm.records import (
    CPU_ASSIST,
    CPU_DEDICATED,
    CPU_IDLE,
    CPU_MARK_IDLE,
    CPU_NS,
    CPU_PAUSE,
    CPU_SCAVENGE_ASSIST,
    CPU_SCAVENGE_BACKGROUND,
    CPU_STATS,
    CPU_TOTAL,
    CPU_USER,
    CPU_XPUBLISHED,
    P_XIDLE_NS,
    SCAV_XBACKGROUND_NS,
    SCAV_XEAGER_NS,
    cpu_dtype,
    gcstats,
    nth_p,
    p_at,
    p_records,
    runtime,
)

_BYTES = cpu_dtype.itemsize


@kernel("void(int64)")
def account_stw(now_ns: int) -> None:
    """Account for the time up to ``now_ns``. World: stopped, and the pause accounted for."""
    rt, stats = runtime(), gcstats()
    published = load_relaxed(CPU_XPUBLISHED)
    old, new = CPU_STATS + published % 2 * _BYTES, CPU_STATS + (published + 1) % 2 * _BYTES
    fence_release()  # ``new`` is what was read before the last account: pairs with load_after_reads
    total = max(rt.cpu_before_ns + (now_ns - rt.resized_ns) * rt.nprocs, load64(old + CPU_TOTAL))
    left = total - load64(old + CPU_TOTAL)
    left -= _catch_up(old, new, CPU_PAUSE, stats.pause_cpu_ns, left)
    left -= _catch_up(old, new, CPU_DEDICATED, stats.dedicated_ns + stats.fractional_ns, left)
    left -= _catch_up(old, new, CPU_SCAVENGE_BACKGROUND, load_relaxed(SCAV_XBACKGROUND_NS), left)
    left -= _catch_up(old, new, CPU_SCAVENGE_ASSIST, load_relaxed(SCAV_XEAGER_NS), left)
    left -= _catch_up(old, new, CPU_MARK_IDLE, stats.idle_ns, left)
    left -= _catch_up(old, new, CPU_ASSIST, stats.assist_ns, left)
    left -= _catch_up(old, new, CPU_IDLE, _idle_ns(), left)
    store64(new + CPU_NS + 8 * CPU_USER, load64(old + CPU_NS + 8 * CPU_USER) + left)
    store64(new + CPU_TOTAL, total)
    store_release(CPU_XPUBLISHED, published + 1)
    for i in range(rt.nprocs):
        _account_for(layout.p_addr(i), now_ns - rt.resized_ns)


@inline
def _account_for(p: int, since_ns: int) -> None:
    """What the P at ``p`` has had for its programs: all of its time that is not known to be anything else's. World: stopped."""
    pp, idle_ns = p_at(p), load_relaxed(p + P_XIDLE_NS)
    pp.idle_ns = max(pp.idle_ns, idle_ns)
    elsewhere = idle_ns + pp.mark_ns + pp.stand_in_ns + pp.assist_ns + pp.sweep_ns + pp.stopped_ns
    pp.mutator_ns = max(pp.mutator_ns, pp.available_ns + since_ns - elsewhere)


@inline
def _catch_up(old: int, new: int, which: int, measured: int, left: int) -> int:
    """How much of what is left of the time class ``which`` takes."""
    before = load64(old + CPU_NS + 8 * which)
    taken = min(max(measured - before, 0), left)
    store64(new + CPU_NS + 8 * which, before + taken)
    return taken


@inline
def _idle_ns() -> int:
    idle = 0
    for i in range(p_records()):
        idle += load_relaxed(nth_p(i) + P_XIDLE_NS)
    return idle
