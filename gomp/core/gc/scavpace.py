"""How much memory goes back to the system, and at what pace: decisions only (mgcscavenge.go; proposal 30333).

goals   what is retained goes down to ten percent above what the next goal will need; what is mapped, to 95 percent of the memory limit
pace    a hundredth of the Ps' time goes into it: a PI controller sets how long it sleeps for the time it has worked
"""

from __future__ import annotations

from gomp.core.jit import inline, kernel
from gomp.core.shm import layout
from gomp.core.shm.records import scavpace

NOTHING_TO_DO = (1 << 63) - 1
SHARE = 0.01  # of all Ps' time
QUANTUM = 64 << 10  # bytes scavenged at a time
MIN_WORK_NS = 1e6
START_RATIO = 0.001
_RETAIN_EXTRA = 10  # percent
_LIMIT_SHARE = 0.95
_ENDLESS = 2.0**62
_COOLDOWN_NS = 5_000_000_000
_UNTIMED_PAGE_NS = 10e3  # assumed if the clock did not move


# --- goals ------------------------------------------------------------------------------------------------------------


@kernel("int64(int64, int64)")
def memory_limit_goal(limit: int, mapped_ready: int) -> int:
    """What may stay mapped because of the memory limit, in bytes; NOTHING_TO_DO if no more is."""
    goal = int(float(limit) * _LIMIT_SHARE)
    return NOTHING_TO_DO if mapped_ready <= goal else goal


@kernel("int64(int64, int64, int64, int64, int64)")
def gc_percent_goal(goal: int, last_goal: int, last_in_use: int, retained: int, os_page: int) -> int:
    """What the heap may retain because it was so big at the end of the last cycle, in bytes; NOTHING_TO_DO if it does not retain more."""
    if last_goal == 0:
        return NOTHING_TO_DO
    scaled = float(last_in_use) * (float(goal) / float(last_goal))
    if scaled >= _ENDLESS:  # collection is off
        return NOTHING_TO_DO
    wanted = int(scaled)
    wanted = layout.align_up(wanted + wanted // _RETAIN_EXTRA, os_page)
    return NOTHING_TO_DO if retained <= wanted or retained - wanted < os_page else wanted


# --- the controller ---------------------------------------------------------------------------------------------------


@kernel("void(float64, float64, float64, float64, float64)")
def init_controller(kp: float, ti: float, tt: float, least: float, most: float) -> None:
    """A proportional-integral controller with back calculation: its gain, its two time constants, and the bounds of its output."""
    s = scavpace()
    s.kp, s.ti, s.tt, s.least, s.most = kp, ti, tt, least, most
    s.err_integral = 0.0
    s.err_overflow = 0
    s.input_overflow = 0


@kernel("void()")
def init_pace() -> None:
    init_controller(0.3375, 3.2e6, 1e9, 0.001, 1000.0)
    s = scavpace()
    s.sleep_ratio = START_RATIO
    s.cooldown_ns = 0


@inline
def _is_finite(x: float) -> bool:
    return x - x == 0.0


@kernel("int64(float64, float64, float64)")
def control(measured: float, wanted: float, period: float) -> int:
    """The controller's next output, in ``output``: 1, or 0 if it overflowed and began anew."""
    s = scavpace()
    s.output = s.least
    raw = s.kp * (wanted - measured) + s.err_integral
    if not _is_finite(raw):
        s.err_integral = 0.0
        s.input_overflow = 1
        return 0
    s.output = min(max(raw, s.least), s.most)
    if s.ti != 0.0 and s.tt != 0.0:
        s.err_integral += (s.kp * period / s.ti) * (wanted - measured) + (period / s.tt) * (s.output - raw)
        if not _is_finite(s.err_integral):
            s.err_integral = 0.0
            s.err_overflow = 1
            s.output = s.least
            return 0
    return 1


# --- work and sleep ---------------------------------------------------------------------------------------------------


@kernel("float64(int64, int64, int64)")
def work_of(nbytes: int, took_ns: int, os_page: int) -> float:
    """What a piece of work counts as, in ns."""
    return float(took_ns) if took_ns != 0 else _UNTIMED_PAGE_NS * float(nbytes // os_page)


@kernel("int64(float64)")
def sleep_time(worked_ns: float) -> int:
    """For how many ns to sleep after so much work."""
    return int(max(worked_ns, MIN_WORK_NS) / scavpace().sleep_ratio)


@kernel("void(float64, int64, int64)")
def slept(worked_ns: float, slept_ns: int, procs: int) -> None:
    """After the sleep: the ratio of the next one."""
    s = scavpace()
    worked = max(worked_ns, MIN_WORK_NS)
    if s.cooldown_ns > 0:
        s.cooldown_ns = max(s.cooldown_ns - (slept_ns + int(worked)), 0)
        return
    period = float(slept_ns) + worked
    if control(worked / (period * float(procs)), SHARE, period):
        s.sleep_ratio = s.output
    else:
        s.sleep_ratio = START_RATIO
        s.cooldown_ns = _COOLDOWN_NS
