"""Which fields a tape has for what comes out of an operation: without one of them a check would check less than it says."""

from __future__ import annotations

from gomp.runtime.replay.tape import Kind, Operation, TapeError

_GOALS = (
    "gc_percent_heap_goal", "heap_goal", "heap_minimum", "memory_limit_heap_goal", "runway", "sweep_dist_min_trigger", "trigger",
)  # fmt: skip
_RATIOS = ("assist_work_per_byte", "assist_bytes_per_work")
_CHANGED = ("old", *_GOALS, *_RATIOS)
_LIMITER = (
    "assist_pool", "capacity", "fill", "gc_enabled", "idle_pool", "last_enabled_cycle", "last_update", "limiting", "nprocs", "overflow",
    "transitioning",
)  # fmt: skip
_OUT: dict[Kind, dict[str, tuple[str, ...]]] = {
    "pacer": {
        "init": ("cons_mark", *_GOALS),
        "start_cycle": (
            "dedicated_workers", "fractional_util_goal", "heap_goal", "heap_goal_before", "heap_scan", "max_idle_workers", "trigger_before",
            "triggered", *_RATIOS,
        ),
        "end_cycle": (
            "cons_mark", "heap_live", "heap_marked", "heap_scan", "last_cons_mark", "last_heap_goal", "last_heap_scan", "last_stack_scan",
            *(name for name in _GOALS if name != "heap_minimum"),
        ),
        "set_gc_percent": _CHANGED,
        "set_memory_limit": _CHANGED,
        "commit": _CHANGED[1:],
        "set_mem": ("heap_goal", "memory_limit_heap_goal", "trigger"),
    },
    "goals": {"row": ("min_trigger_from_goal", *_GOALS)},
    "limiter": dict.fromkeys(
        ("init", "reset_capacity", "update", "need_update", "add_assist_time", "add_idle_time", "start_gc_transition", "finish_gc_transition",
         "gc_cycle_done"),
        _LIMITER,
    ),
    "scavenger": {
        "row": ("gc_percent_goal", "memory_limit_goal"),
        "run": ("parked", "released", "worked_ns"),
        "next": ("err_integral", "err_overflow", "input_overflow", "ok", "output"),
    },
    "workers": {
        "workers": ("dedicated_workers", "fractional_util_goal", "max_idle_workers_heap_trigger", "max_idle_workers_periodic"),
    },
}  # fmt: skip


def is_complete(kind: Kind, first: Operation) -> bool:
    """Whether the tape that begins with ``first`` says all that comes out. A runtime's own log says what it has, and of its init nothing."""
    return kind != "pacer" or first.expected is not None


def check_fields(kind: Kind, operation: Operation) -> None:
    """Raise TapeError unless the tape says all that comes out of the operation."""
    if operation.expected is None:
        return
    for name in _OUT[kind].get(operation.op, ()):
        if not isinstance(operation.expected, dict) or name not in operation.expected:
            raise TapeError(f"line {operation.line}: field 'out.{name}' is missing")
