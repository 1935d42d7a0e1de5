"""Tapes: operations on the pacer and its kin, with what goes in and what must come out, one JSON object a line.

A replay keeps one state, performs each operation with its ``in``, and gives what it finds in the fields of the tape's ``out``. The state is the
records of a runtime that nothing runs in; the arithmetic is what a running one uses.
"""

from __future__ import annotations

import contextlib
import gzip
import itertools
import json
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from gomp.core.gc import goal, limiter, pacer, scavpace
from gomp.core.mutator.lifecycle import init_runtime
from gomp.core.shm import layout, segments
from gomp.core.shm.records import (
    GC_TRIGGER_HEAP,
    GC_TRIGGER_TIME,
    GCSTATS,
    LIMITER,
    MHEAP,
    PACER,
    SCAVPACE,
    gcstats_dtype,
    layout_version,
    limiter_dtype,
    mheap_dtype,
    pacer_dtype,
    scavpace_dtype,
    view,
)
from gomp.errors import ConfigError
from gomp.kernels import load_all_kernels

Kind = str  # one of REPLAYS
Fields = dict[str, Any]
_NONE = (1 << 64) - 1
_KINDS = {"heap": GC_TRIGGER_HEAP, "time": GC_TRIGGER_TIME}
_OS_PAGE = 4096
_GOALS = ("gc_percent_heap_goal", "heap_goal", "trigger", "gc_percent_goal", "memory_limit_goal")


class TapeError(ConfigError):
    """A tape that cannot be read: the line and the field."""


@dataclass(frozen=True)
class Operation:
    """``given`` and ``expected`` are objects or arrays, as the tape has them."""

    line: int
    op: str
    given: Any
    expected: Any


# --- reading ----------------------------------------------------------------------------------------------------------


def read_tape(path: Path, kind: Kind) -> Iterator[Operation]:
    """The operations of a ``.jsonl`` or ``.jsonl.gz`` tape, or of a ``.json`` table. Raises TapeError."""
    opener: Callable[..., Any] = gzip.open if path.suffix == ".gz" else open
    try:
        with opener(path, "rt", encoding="utf-8") as tape:
            if path.suffix == ".json":
                yield from _read_table(json.load(tape))
                return
            for number, text in enumerate(tape, 1):
                yield _parse(number, text, kind)
    except TapeError:
        raise
    except (OSError, EOFError, zlib.error) as error:
        raise TapeError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}") from None
    except (ValueError, RecursionError) as error:
        raise TapeError(f"{path} is no tape: {error}") from None


def _read_table(rows: Any) -> Iterator[Operation]:
    """A table has no operations: what goes in stands beside what comes out."""
    if not isinstance(rows, list):
        raise TapeError("a table is an array of rows")
    for number, row in enumerate(rows, 1):
        if not isinstance(row, dict):
            raise TapeError(f"row {number}: not an object")
        yield Operation(number, "workers", row, row)


def _parse(number: int, text: str, kind: Kind) -> Operation:
    try:
        row = json.loads(text)
    except json.JSONDecodeError as error:
        raise TapeError(f"line {number}: no JSON: {error.msg} at character {error.pos}") from None
    except (ValueError, RecursionError) as error:  # numbers, or nesting, beyond what Python reads
        raise TapeError(f"line {number}: no JSON: {error}") from None
    if not isinstance(row, dict):
        raise TapeError(f"line {number}: an operation is an object")
    if kind in ("goals", "scavenger"):
        row = {"op": "row"} | row
    if "op" not in row:
        raise TapeError(f"line {number}: field 'op' is missing")
    op = row["op"]
    if not isinstance(op, str):
        raise TapeError(f"line {number}: field 'op' is {op!r}, not a text")
    row = {"out": None} | row if op in ("init", "revise") else row  # of which nothing need be expected
    for field in ("in", "out"):
        if field not in row:
            raise TapeError(f"line {number}: field {field!r} is missing")
    return Operation(number, op, row["in"], row["out"])


class Given:
    """The ``in`` of an operation, checked field by field."""

    def __init__(self, operation: Operation) -> None:
        self._operation = operation
        if not isinstance(operation.given, dict):
            raise TapeError(f"line {operation.line}: field 'in' is not an object")

    def __getitem__(self, name: str) -> Any:
        try:
            return self._operation.given[name]
        except KeyError:
            raise TapeError(f"line {self._operation.line}: field 'in.{name}' is missing") from None

    def integer(self, name: str) -> int:
        value = self[name]
        if not _is_integer(value):
            raise self._wrong(name, "an integer")
        return min(int(value), goal.NO_GOAL)

    def processors(self, name: str) -> int:
        value = self.integer(name)
        if not 0 < value < 1 << 31:
            raise self._wrong(name, "a number of processors")
        return value

    def number(self, name: str) -> float:
        value = self[name]
        if isinstance(value, bool) or not isinstance(value, int | float | str):
            raise self._wrong(name, "a number")
        try:
            return _float(value)
        except (ValueError, OverflowError):
            raise self._wrong(name, "a number") from None

    def flag(self, name: str) -> bool:
        if not isinstance(self[name], bool):
            raise self._wrong(name, "true or false")
        return bool(self[name])

    def one_of(self, name: str, choices: dict[str, int]) -> int:
        if not isinstance(self[name], str) or self[name] not in choices:
            raise self._wrong(name, " or ".join(map(repr, choices)))
        return choices[self[name]]

    def pairs(self, name: str) -> list[tuple[int, int]]:
        value = self[name]
        if not isinstance(value, list) or not all(
            isinstance(pair, list) and len(pair) == 2 and all(map(_is_integer, pair)) for pair in value
        ):
            raise self._wrong(name, "an array of pairs of integers")
        return [(pair[0], pair[1]) for pair in value]

    def has(self, name: str) -> bool:
        return name in self._operation.given

    def slept(self) -> int:
        """For how long the tape's scavenger slept: its clock, which no replay could work out."""
        sleep = self._operation.expected.get("sleep") if isinstance(self._operation.expected, dict) else None
        value = sleep.get("slept_ns") if isinstance(sleep, dict) else None
        if not _is_integer(value):
            raise TapeError(f"line {self._operation.line}: field 'out.sleep.slept_ns' is missing or not an integer")
        return int(cast(int, value))

    def _wrong(self, name: str, what: str) -> TapeError:
        return TapeError(f"line {self._operation.line}: field 'in.{name}' is {self[name]!r}, not {what}")


def _is_integer(value: Any) -> bool:
    """Of 64 bits, with a sign or without."""
    return isinstance(value, int) and not isinstance(value, bool) and -(1 << 63) <= value < 1 << 64


def _float(value: float | str) -> float:
    """A number, as a tape writes it. Raises ValueError."""
    return float({"+Inf": "inf", "-Inf": "-inf", "NaN": "nan"}.get(value, value) if isinstance(value, str) else value)


# --- the state --------------------------------------------------------------------------------------------------------


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


class Pacer:
    """Tapes of the pacer."""

    def __init__(self) -> None:
        self.pacer = view(pacer_dtype, PACER)[0]
        self.heap = view(mheap_dtype, MHEAP)[0]
        self.heap.xtable_bytes = 0  # tapes know of no memory but that which they tell of

    def apply(self, operation: Operation) -> Any:
        """What comes out, in the fields of the tape."""
        if operation.op == "revise":
            return self._revise(operation)
        known = {
            "init": self._init,
            "start_cycle": self._start_cycle,
            "restart_cycle": self._restart_cycle,
            "end_cycle": self._end_cycle,
            "set_gc_percent": self._set_gc_percent,
            "set_memory_limit": self._set_memory_limit,
            "set_mem": self._set_mem,
            "commit": self._commit,
        }
        return _perform(known, operation)

    def _init(self, given: Given) -> Fields:
        pacer.set_gc_percent(given.integer("gc_percent"))
        pacer.set_memory_limit(given.integer("memory_limit"))
        pacer.commit(given.flag("sweep_done"))
        return self._goals()

    def _start_cycle(self, given: Given) -> Fields:
        pc, before = (
            self.pacer,
            {
                "trigger_before": _or_none(goal.trigger()),
                "heap_goal_before": _or_none(goal.heap_goal()),
            },
        )
        pc.xheap_live = given.integer("heap_live")
        pc.xheap_scan += given.integer("heap_scan_delta")
        pc.max_stack_scan = given.integer("max_stack_scan")
        pc.globals_scan = given.integer("globals_scan")
        pacer.start_cycle(0, given.processors("procs"), given.one_of("kind", _KINDS))
        workers = {
            "dedicated_workers": int(pc.xdedicated_needed),
            "fractional_util_goal": float(pc.fractional_goal),
            "max_idle_workers": int(pc.max_idle),
        }
        return before | workers | self._goals()

    def _revise(self, operation: Operation) -> list[int | float]:
        deltas = operation.given
        if not isinstance(deltas, list) or len(deltas) != 5 or not all(map(_is_integer, deltas)):
            raise TapeError(f"line {operation.line}: field 'in' is not an array of five integers")
        pc = self.pacer
        pc.xheap_live += deltas[0]
        pc.xheap_scan += deltas[1]
        pc.xheap_scan_work += deltas[2]
        pc.xstack_scan_work += deltas[3]
        pc.xglobals_scan_work += deltas[4]
        pacer.revise()
        return [float(pc.assist_work_per_byte), float(pc.assist_bytes_per_work), _or_none(goal.heap_goal())]

    def _restart_cycle(self, given: Given) -> Fields:
        pacer.restart_cycle()
        return self._goals()

    def _end_cycle(self, given: Given) -> Fields:
        pc = self.pacer
        pc.xassist_ns = given.integer("assist_time_ns")
        pc.xidle_ns = given.integer("idle_mark_time_ns")
        pacer.end_cycle(given.integer("elapsed_ns"), given.processors("procs"))
        last_goal = int(pc.last_heap_goal)
        pacer.reset_live(given.integer("bytes_marked"))
        pacer.commit(given.flag("sweep_done"))
        return self._goals() | {"last_heap_goal": _or_none(last_goal)}

    def _set_gc_percent(self, given: Given) -> Fields:
        before = pacer.set_gc_percent(given.integer("gc_percent"))
        return {"old": int(before)} | self._after_change(given)

    def _set_memory_limit(self, given: Given) -> Fields:
        before = pacer.set_memory_limit(given.integer("memory_limit"))
        return {"old": int(before)} | self._after_change(given)

    def _after_change(self, given: Given) -> Fields:
        pacer.commit(given.flag("sweep_done"))
        if given.flag("gc_running"):
            pacer.revise()
        return self._goals()

    def _set_mem(self, given: Given) -> Fields:
        set_memory(self.heap, given)
        return self._goals()

    def _commit(self, given: Given) -> Fields:
        pacer.commit(given.flag("sweep_done"))
        return self._goals()

    def _goals(self) -> Fields:
        pc = self.pacer
        names = (
            "heap_minimum", "sweep_dist_min_trigger", "runway", "heap_marked", "last_heap_scan", "last_stack_scan", "triggered",
        )  # fmt: skip
        return {name: int(pc[name]) for name in names} | {
            "heap_live": int(pc.xheap_live),
            "heap_scan": int(pc.xheap_scan),
            "cons_mark": float(pc.cons_mark),
            "last_cons_mark": [float(x) for x in pc.last_cons_mark],
            "gc_percent_heap_goal": _or_none(int(pc.gc_percent_goal)),
            "memory_limit_heap_goal": int(goal.memory_limit_goal()),
            "trigger": _or_none(goal.trigger()),
            "heap_goal": _or_none(goal.heap_goal()),
            "assist_work_per_byte": float(pc.assist_work_per_byte),
            "assist_bytes_per_work": float(pc.assist_bytes_per_work),
        }


def set_memory(heap: Any, given: Given) -> None:
    """Make the heap's counters say what a tape does of memory: what is mapped beside the free heap counts as metadata."""
    heap.xheap_committed = given.integer("heap_free")
    heap.xheap_alloc = given.integer("total_alloc") - given.integer("total_free")
    heap.xheap_inuse = heap.xwbuf_bytes = heap.xtable_bytes = 0
    heap.xmetadata_bytes = given.integer("mapped_ready") - given.integer("heap_free")


class Goals(Pacer):
    """The grid of goals: each row is a pacer of its own."""

    def apply(self, operation: Operation) -> Any:
        given, pc = Given(operation), self.pacer
        pacer.set_gc_percent(given.integer("gc_percent"))
        pacer.set_memory_limit(given.integer("memory_limit"))
        for name in ("heap_marked", "last_heap_scan", "last_stack_scan", "globals_scan"):
            pc[name] = given.integer(name)
        pc.xheap_live = given.integer("heap_live")
        pc.cons_mark = given.number("cons_mark")
        pc.triggered = goal.NO_GOAL if given["triggered"] is None else given.integer("triggered")
        set_memory(self.heap, given)
        pacer.commit(given.flag("sweep_done"))
        return self._goals() | {"min_trigger_from_goal": int(goal.min_trigger())}


class Workers:
    """The table of mark workers."""

    def apply(self, operation: Operation) -> Any:
        procs = Given(operation).processors("gomaxprocs")
        pc = view(pacer_dtype, PACER)[0]
        pacer.start_cycle(0, procs, GC_TRIGGER_TIME)
        periodic = int(pc.max_idle)
        pacer.start_cycle(0, procs, GC_TRIGGER_HEAP)
        return {
            "gomaxprocs": procs,
            "dedicated_workers": int(pc.xdedicated_needed),
            "fractional_util_goal": float(pc.fractional_goal),
            "max_idle_workers_heap_trigger": int(pc.max_idle),
            "max_idle_workers_periodic": periodic,
        }


class Limiter:
    """Tapes of the GC CPU limiter."""

    def __init__(self) -> None:
        self.limiter = view(limiter_dtype, LIMITER)[0]
        for name in limiter_dtype.names or ():
            self.limiter[name] = 0

    def apply(self, operation: Operation) -> Any:
        known = {
            "init": lambda given: limiter.reset_capacity(given.integer("now"), given.processors("nprocs")),
            "reset_capacity": lambda given: limiter.reset_capacity(given.integer("now"), given.processors("nprocs")),
            "update": lambda given: limiter.update(given.integer("now")),
            "need_update": self._need_update,
            "add_assist_time": lambda given: limiter.add_assist_time(given.integer("ns")),
            "add_idle_time": lambda given: limiter.add_idle_time(given.integer("ns")),
            "start_gc_transition": lambda given: limiter.change_gc(given.flag("enable_gc"), given.integer("now")),
            "finish_gc_transition": lambda given: limiter.end_pause(given.integer("now")),
            "gc_cycle_done": self._gc_cycle_done,
        }
        _perform(known, operation)
        lim = self.limiter
        return {name: int(lim[name]) for name in ("capacity", "overflow", "last_enabled_cycle", "nprocs")} | {
            "fill": int(lim.filled),
            "limiting": bool(lim.xlimiting),
            "assist_pool": int(lim.xassist_pool),
            "idle_pool": int(lim.xidle_pool),
            "last_update": int(lim.xlast_update),
            "gc_enabled": bool(lim.gc_enabled),
            "transitioning": bool(lim.transitioning),
        }

    @staticmethod
    def _need_update(given: Given) -> None:
        needed = bool(limiter.needs_update(given.integer("now")))
        if needed != given.flag("result"):
            raise Difference("result", given["result"], needed)

    @staticmethod
    def _gc_cycle_done(given: Given) -> None:
        view(gcstats_dtype, GCSTATS)[0].num_gc = given.integer("num_gc")


class Scavenger:
    """Goals, controllers and the loop of work and sleep."""

    def __init__(self) -> None:
        self.pace = view(scavpace_dtype, SCAVPACE)[0]
        self.procs = 1

    def apply(self, operation: Operation) -> Any:
        known = {"row": self._goals, "init": self._init, "next": self._next, "run": self._run}
        return _perform(known, operation)

    @staticmethod
    def _goals(given: Given) -> Fields:
        names = ("heap_goal", "last_heap_goal", "last_heap_in_use")
        retained = given.integer("heap_in_use") + given.integer("heap_free")
        by_percent = scavpace.gc_percent_goal(*map(given.integer, names), retained, given.integer("phys_page_size"))
        return {
            "gc_percent_goal": _or_none(by_percent),
            "memory_limit_goal": _or_none(
                scavpace.memory_limit_goal(given.integer("memory_limit"), given.integer("mapped_ready"))
            ),
        }

    def _init(self, given: Given) -> Fields:
        if given.has("gomaxprocs"):
            scavpace.init_pace()
            self.procs = given.processors("gomaxprocs")
            return {"sleep_ratio": float(self.pace.sleep_ratio)}
        scavpace.init_controller(*(given.number(name) for name in ("kp", "ti", "tt", "min", "max")))
        return {}

    def _next(self, given: Given) -> Fields:
        ok = scavpace.control(given.number("input"), given.number("setpoint"), given.number("period"))
        return {
            "output": float(self.pace.output),
            "ok": bool(ok),
            "err_integral": float(self.pace.err_integral),
            "err_overflow": bool(self.pace.err_overflow),
            "input_overflow": bool(self.pace.input_overflow),
        }

    def _run(self, given: Given) -> Fields:
        worked, released = 0.0, 0
        for nbytes, took in given.pairs("scavenge_results"):
            if worked >= scavpace.MIN_WORK_NS or given.flag("should_stop"):
                break
            worked += scavpace.work_of(nbytes, took, _OS_PAGE)
            released += nbytes
            if nbytes < scavpace.QUANTUM:
                break
        out: Fields = {"released": released, "worked_ns": worked, "parked": released == 0}
        if released:
            out["sleep"] = self._sleep(given, worked)
        return out

    def _sleep(self, given: Given, worked: float) -> Fields:
        requested = scavpace.sleep_time(worked)
        slept = given.slept()
        scavpace.slept(worked, slept, self.procs)
        return {
            "requested_ns": int(requested),
            "slept_ns": slept,
            "sleep_ratio_after": float(self.pace.sleep_ratio),
            "err_integral": float(self.pace.err_integral),
            "cooldown_ns": int(self.pace.cooldown_ns),
        }


REPLAYS: dict[Kind, Callable[[], Any]] = {
    "pacer": Pacer,
    "goals": Goals,
    "workers": Workers,
    "limiter": Limiter,
    "scavenger": Scavenger,
}


def _perform(known: Mapping[str, Callable[[Given], Any]], operation: Operation) -> Any:
    if operation.op not in known:
        raise TapeError(f"line {operation.line}: unknown operation {operation.op!r}: there are {', '.join(known)}")
    return known[operation.op](Given(operation))


def _or_none(n: int) -> int:
    return _NONE if n == goal.NO_GOAL else int(n)


# --- comparing --------------------------------------------------------------------------------------------------------


class Difference(Exception):
    """Field ``field`` should be ``expected`` and is ``found``."""

    def __init__(self, field: str, expected: Any, found: Any) -> None:
        super().__init__(f"{field}: expected {expected!r}, found {found!r}")
        self.field = field


def compare(expected: Any, found: Any, field: str = "out") -> None:
    """Raise Difference unless ``found`` has all of ``expected``: integers equal, floats to the last bit."""
    if expected is None and field == "out":
        return  # of which nothing is expected
    if isinstance(expected, dict):
        for name, value in expected.items():
            if not isinstance(found, dict) or name not in found:
                raise Difference(f"{field}.{name}", value, None)
            compare(value, found[name], f"{field}.{name}")
    elif isinstance(expected, list):
        if not isinstance(found, list) or len(found) != len(expected):
            raise Difference(field, expected, found)
        for i, value in enumerate(expected):
            compare(value, found[i], f"{field}[{i}]")
    elif not _is_same(expected, found):
        raise Difference(field, expected, found)


def _is_same(expected: Any, found: Any) -> bool:
    if isinstance(expected, bool) or isinstance(found, bool):
        return expected is found
    if not isinstance(found, float):
        return bool(expected == found)
    try:
        return repr(_float(expected)) == repr(float(found))  # equal bits have equal texts
    except (TypeError, ValueError, OverflowError):
        return False


def in_fields_of(expected: Any, found: Any) -> Any:
    """What of ``found`` the tape asks for; all of it if it asks for nothing."""
    if isinstance(expected, dict) and isinstance(found, dict) and expected:
        return {name: in_fields_of(value, found.get(name)) for name, value in expected.items()}
    return found


def replay(path: Path, kind: Kind) -> Iterator[tuple[Operation, Any]]:
    """Each operation of a tape and what it gives. Raises TapeError."""
    operations = read_tape(path, kind)
    first = next(operations, None)
    if first is None:
        raise TapeError(f"{path} is no tape: there is no operation in it")
    with fresh_records():
        state = REPLAYS[kind]()
        for operation in itertools.chain([first], operations):
            try:
                found = state.apply(operation)
            except ArithmeticError as error:
                raise TapeError(
                    f"line {operation.line}: field 'in' leads to a number that is out of range: {error}"
                ) from None
            yield operation, found
