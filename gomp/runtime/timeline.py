"""A trace's events as a timeline: JSON objects of the Trace Event Format, which ui.perfetto.dev and chrome://tracing show.

Each process has a track with what its P does, one within the other: a program, in it a goroutine, in that an assist. The coordinator's process
has its own marking and scavenging, and two more tracks: the collector's cycles, and the stops of the world. What takes time becomes one "X" object
when it has ended, with its beginning and its duration; a wake-up is an arrow from who has made a goroutine ready to where that runs ("s", "f"); the
heap and its goal are counters ("C").

Ends whose beginnings are unknown are dropped: those of before the trace, and after a gap, where events were lost. What is open at a gap, at the
death of its process or at the end of the trace ends there. What a P does when the trace begins it may tell once more, having just begun it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from gomp.config import ENDLESS
from gomp.core.mutator import action
from gomp.core.mutator.goroutine import ENDED, NO_STEP, PARKED, RAISED, YIELDED
from gomp.core.shm import layout
from gomp.core.shm.records import (
    DETAIL_READIES,
    DETAIL_RUNS,
    DETAIL_SWEEPS,
    GC_TRIGGER_FORCED,
    GC_TRIGGER_HEAP,
    GC_TRIGGER_LAST_RESORT,
    GC_TRIGGER_TIME,
    TRACE_ASSIST,
    TRACE_ASSIST_END,
    TRACE_CREATE,
    TRACE_CYCLE,
    TRACE_CYCLE_MARKED,
    TRACE_CYCLE_SWEPT,
    TRACE_DEATH,
    TRACE_DEDICATED,
    TRACE_DETAIL_SHIFT,
    TRACE_FOR_COLLECTION,
    TRACE_FOR_CREDIT,
    TRACE_FOR_CYCLE,
    TRACE_FOR_END,
    TRACE_FOR_PROGRAM,
    TRACE_FOR_STOP,
    TRACE_FRACTIONAL,
    TRACE_HEAP,
    TRACE_IDLE,
    TRACE_LEFT_OUT,
    TRACE_MARK,
    TRACE_MARK_END,
    TRACE_PARK,
    TRACE_PARK_END,
    TRACE_PROCESS,
    TRACE_PROGRAM,
    TRACE_PROGRAM_END,
    TRACE_READY,
    TRACE_REPAIR,
    TRACE_REPAIR_END,
    TRACE_RUN,
    TRACE_RUN_END,
    TRACE_SCAVENGED,
    TRACE_SITE_SHIFT,
    TRACE_STAND_IN,
    TRACE_STOP,
    TRACE_STOP_END,
    TRACE_STOP_WHY,
    TRACE_STOPPED,
    TRACE_SWEPT,
    TRACE_TEXT,
    TRACE_TO_COLLECT,
    TRACE_TO_END,
    TRACE_TO_MARK,
    TRACE_TO_REPAIR,
    TRACE_TO_RESIZE,
    TRACE_WAIT,
    TRACE_WAIT_END,
    type_dtype,
    view,
)
from gomp.runtime.goroutineprofile import WAITS
from gomp.runtime.sitetable import site_of, site_with_key
from gomp.runtime.traced import TEXT_WORDS
from gomp.runtime.tracks import Event, Track, microseconds

_KIND_MASK = (1 << TRACE_DETAIL_SHIFT) - 1
_MAIN, _GC, _STOPS, _LEFT_OUT = range(1, 5)  # tracks of a process
_MOST_PENDING = 1 << 16  # arrows that have not arrived
_NO_PROCESS = 1 << 22  # Linux gives no process a number as high

_WAITS_FOR = {
    TRACE_FOR_STOP: "stopped",
    TRACE_FOR_CYCLE: "waits for a cycle to begin",
    TRACE_FOR_COLLECTION: "waits for a collection",
    TRACE_FOR_END: "waits for marking to end",
    TRACE_FOR_CREDIT: "waits for credit",
}
_WORKERS = {
    TRACE_DEDICATED: "mark (dedicated)",
    TRACE_FRACTIONAL: "mark (fractional)",
    TRACE_IDLE: "mark (idle)",
    TRACE_STAND_IN: "mark (in place of a P)",
}
_STOPS_TO = {
    TRACE_TO_MARK: "stop the world: marking begins",
    TRACE_TO_END: "stop the world: marking ends",
    TRACE_TO_COLLECT: "stop the world: a whole cycle",
    TRACE_TO_REPAIR: "stop the world: repair",
    TRACE_TO_RESIZE: "stop the world: GOMAXPROCS changes",
}
_TRIGGERS = {
    GC_TRIGGER_HEAP: "heap",
    GC_TRIGGER_TIME: "time",
    GC_TRIGGER_FORCED: "forced",
    GC_TRIGGER_LAST_RESORT: "last resort",
}
_WHY_STOPPED = {ENDED: "ended", YIELDED: "gave its turn", RAISED: "raised", NO_STEP: "needs a frame not known here"}
_PARKED_FOR = {
    action.ACTION_RECEIVE: "chan receive",
    action.ACTION_SEND: "chan send",
    action.ACTION_SELECT: "select",
    action.ACTION_LOCK: "sync.Mutex.Lock",
    action.ACTION_WAIT: "sync.WaitGroup.Wait",
}
_DETAILS = {DETAIL_RUNS: "switches", DETAIL_READIES: "wake-ups", DETAIL_SWEEPS: "sweeps"}


class Timeline:
    """Takes events, in the order of their times, and has made objects of them in ``out``, for whoever takes them from there.

    ``began_ns``: when the trace began; ``pid``: the coordinator's process.
    """

    def __init__(self, began_ns: int, pid: int) -> None:
        self.began_ns = began_ns
        self.out: list[Event] = []
        self.told = 0  # events
        self.lost = 0  # those that were overwritten before they were read
        self._last_ns = began_ns
        self._told_ns: dict[int, int] = {}  # by P: when its last event was
        self._pid = pid
        self._tracks: dict[int, Track] = {}  # of Ps
        self._scripts: set[int] = set()
        self._texts: dict[int, bytes] = {}  # of Ps: names that the next event has
        self._pending: dict[int, tuple[Track, int]] = {}  # who has made a goroutine ready, and when
        self._arrows = 0
        self._names: dict[int, str] = {}  # of types of frames, by their places
        self._sites: dict[int, str] = {}
        self._coordinator = self._named_track(pid, _MAIN, "coordinator", "coordinator")
        self._gc = self._named_track(pid, _GC, "collector")
        self._stops = self._named_track(pid, _STOPS, "stops of the world")
        self._do: dict[int, Callable[[int, int, int, int, int], None]] = self._handlers()

    def take(self) -> list[Event]:
        """What there is so far; it is the caller's."""
        taken = self.out[:]
        self.out.clear()
        return taken

    # --- tracks -------------------------------------------------------------------------------------------------------

    def _named_track(self, pid: int, tid: int, name: str, process: str = "") -> Track:
        if process:
            self._name("process_name", pid, 0, name=process)
        self._name("thread_name", pid, tid, name=name)
        return Track(self.out, self.began_ns, pid, tid)

    def _name(self, what: str, pid: int, tid: int, **args: Any) -> None:
        self.out.append({"ph": "M", "pid": pid, "tid": tid, "ts": 0, "name": what, "args": args})

    def open_p(self, p: int, pid: int, is_script: bool = False) -> Track:
        """P ``p`` has the process ``pid`` from now on; 0: none."""
        pid = pid or _NO_PROCESS + p
        if p in self._tracks:
            self._tracks[p].end_all(self._told_ns.get(p, self.began_ns))
        if is_script:
            self._scripts.add(p)
        name = f"P{p} (script)" if p in self._scripts else f"P{p}"
        self._tracks[p] = track = self._named_track(pid, _MAIN, name, name)
        self._name("thread_name", pid, _LEFT_OUT, name=f"{name}: left out")
        self._name("process_sort_index", pid, 0, sort_index=p + 1)
        return track

    def _track(self, p: int) -> Track:
        """One that nobody has told of yet has a track of its own."""
        if p == layout.COORDINATOR_P:
            return self._coordinator
        return self._tracks.get(p) or self.open_p(p, 0)

    # --- what it is told ----------------------------------------------------------------------------------------------

    def begin(self, ps: Iterable[Event], phase: str = "", cycle: int = 0) -> None:
        """What each P does when the trace begins, as the coordinator has told; and the collector, which marks or sweeps or does nothing."""
        at = self.began_ns
        if phase:
            self._gc.begin(at, "cycle", phase, "gc", {"cycle": cycle})
        for state in ps:
            p = state["p"]
            track = self.open_p(p, state["pid"], state["is_script"])
            for id_, name in state["programs"]:
                track.begin(at, ("program", id_), name, "program", {"id": id_})
            if "goroutine" in state:
                goid, entry, site = state["goroutine"]
                self._begin_run(track, at, goid, (entry - layout.TYPES_BASE) // type_dtype.itemsize, site)
            if state["is_parked"]:
                track.begin(at, "park", "parked", "idle")

    def add(self, p: int, at_ns: int, what: int, a: int, b: int) -> None:
        """One event of P ``p``."""
        self.told += 1
        handler = self._do.get(what & _KIND_MASK)
        if handler is not None:
            handler(p, at_ns, what >> TRACE_DETAIL_SHIFT, a, b)
        self._last_ns = max(self._last_ns, at_ns)
        self._told_ns[p] = at_ns

    def lose(self, p: int, n: int) -> None:
        """The next ``n`` events of P ``p`` were overwritten before they were read."""
        self.lost += n
        at = self._told_ns.get(p, self.began_ns)
        own = [self._coordinator, self._gc, self._stops] if p == layout.COORDINATOR_P else [self._track(p)]
        for track in own:
            track.end_all(at)
            track.instant(at, f"{n:,} events lost", {"lost": n})
        self._texts.pop(p, None)

    def count(self, at_ns: int, name: str, **values: int) -> None:
        """Counters of the whole runtime."""
        ts = microseconds(at_ns, self.began_ns)
        self.out.append({"ph": "C", "pid": self._pid, "tid": _MAIN, "ts": ts, "name": name, "args": values})

    def end(self, at_ns: int) -> None:
        """The trace is over."""
        at_ns = max(at_ns, self._last_ns)
        for track in (*self._tracks.values(), self._coordinator, self._gc, self._stops):
            track.end_all(at_ns, unfinished=True)

    # --- of a P -------------------------------------------------------------------------------------------------------

    def _handlers(self) -> dict[int, Callable[[int, int, int, int, int], None]]:
        return {
            TRACE_PROCESS: self._on_process,
            TRACE_TEXT: self._on_text,
            TRACE_PROGRAM: self._on_program,
            TRACE_PROGRAM_END: self._on_program_end,
            TRACE_RUN: self._on_run,
            TRACE_RUN_END: self._on_run_end,
            TRACE_CREATE: self._on_create,
            TRACE_READY: lambda p, at, detail, a, b: self._note_ready(p, at, a),
            TRACE_PARK: self._on_park,
            TRACE_PARK_END: lambda p, at, detail, a, b: self._track(p).end(at, "park"),
            TRACE_WAIT: self._on_wait,
            TRACE_WAIT_END: lambda p, at, detail, a, b: self._track(p).end(at, "wait"),
            TRACE_MARK: self._on_mark,
            TRACE_MARK_END: lambda p, at, detail, a, b: self._track(p).end(at, "mark", {"scanned_bytes": b}),
            TRACE_ASSIST: lambda p, at, detail, a, b: self._track(p).begin(
                at, "assist", "assist", "gc", {"debt_bytes": a, "credit_taken": b}
            ),
            TRACE_ASSIST_END: lambda p, at, detail, a, b: self._track(p).end(
                at, "assist", {"work_done": a, "may_allocate_bytes": b}
            ),
            TRACE_SWEPT: lambda p, at, detail, a, b: self._track(p).complete(a, at, "sweep", "gc", {"spans": b}),
            TRACE_SCAVENGED: lambda p, at, detail, a, b: self._track(p).complete(a, at, "scavenge", "gc", {"bytes": b}),
            TRACE_LEFT_OUT: self._on_left_out,
            TRACE_STOP: lambda p, at, detail, a, b: self._stops.begin(at, "stop", "stop the world", "gc"),
            TRACE_STOPPED: self._on_stopped,
            TRACE_STOP_WHY: self._on_stop_why,
            TRACE_STOP_END: lambda p, at, detail, a, b: self._stops.end(at, "stop"),
            TRACE_CYCLE: self._on_cycle,
            TRACE_CYCLE_MARKED: self._on_marked,
            TRACE_CYCLE_SWEPT: lambda p, at, detail, a, b: self._gc.end_all(at),
            TRACE_HEAP: lambda p, at, detail, a, b: self.count_heap(at, a, b),
            TRACE_DEATH: self._on_death,
            TRACE_REPAIR: lambda p, at, detail, a, b: self._coordinator.begin(at, "repair", "repair", "deaths"),
            TRACE_REPAIR_END: lambda p, at, detail, a, b: self._coordinator.end(at, "repair"),
        }

    def _on_process(self, p: int, at: int, detail: int, pid: int, b: int) -> None:
        if self._track(p).pid != pid:
            self._track(p).end_all(at)
            self.open_p(p, pid)
        self._texts.pop(p, None)  # whoever was there before has been killed in the middle of one

    def _on_text(self, p: int, at: int, detail: int, a: int, b: int) -> None:
        self._texts[p] = self._texts.get(p, b"") + TEXT_WORDS.pack(a, b)

    def _on_program(self, p: int, at: int, detail: int, id_: int, of_p: int) -> None:
        """Of one that ran on a P before that began to tell, the coordinator tells."""
        text = self._texts.pop(p, b"").rstrip(b"\0").decode(errors="replace")
        track = self._track(of_p if p == layout.COORDINATOR_P else p)
        if not track.is_open(("program", id_)):
            track.begin(at, ("program", id_), text or "a program", "program", {"id": id_})

    def _on_program_end(self, p: int, at: int, detail: int, id_: int, of_p: int) -> None:
        """Of one that was over when the trace began, and only the coordinator did not know, the coordinator tells."""
        if p == layout.COORDINATOR_P:
            self._track(of_p).end_before_what_is_within(at, ("program", id_))
        else:
            self._track(p).end(at, ("program", id_))

    def _on_park(self, p: int, at: int, detail: int, a: int, b: int) -> None:
        track = self._track(p)
        if not track.is_open("park"):
            track.begin(at, "park", "parked", "idle")

    def _on_run(self, p: int, at: int, detail: int, goid: int, place: int) -> None:
        track = self._track(p)
        self._begin_run(track, at, goid, place & ((1 << TRACE_SITE_SHIFT) - 1), place >> TRACE_SITE_SHIFT)
        if (woken := self._pending.pop(goid, None)) is not None:
            self._arrows += 1
            woken[0].arrow("s", woken[1], self._arrows)
            track.arrow("f", at, self._arrows)

    def _begin_run(self, track: Track, at: int, goid: int, type_place: int, site: int) -> None:
        if type_place not in self._names:
            self._names[type_place] = self._name_of_type(type_place)
        if site not in self._sites:
            self._sites[site] = str(site_of(site))
        track.begin(
            at,
            ("run", goid),
            self._names[type_place],
            "goroutine",
            {"goroutine": goid, "started_at": self._sites[site]},
        )

    def _name_of_type(self, place: int) -> str:
        """Of the frame's class, if anybody has said what it is called."""
        key = int(view(type_dtype, layout.TYPES_BASE + place * type_dtype.itemsize)[0].key)
        return site_with_key(key).function.removesuffix(".step") or "goroutine"

    def _on_run_end(self, p: int, at: int, what: int, goid: int, why: int) -> None:
        stopped = _PARKED_FOR.get(what, "waits") if why == PARKED else _WHY_STOPPED.get(why, "failed")
        self._track(p).end(at, ("run", goid), {"stopped_by": stopped})

    def _on_create(self, p: int, at: int, detail: int, goid: int, parent: int) -> None:
        self._note_ready(p, at, goid)
        self._track(p).instant(at, "go", {"goroutine": goid, "parent": parent})

    def _note_ready(self, p: int, at: int, goid: int) -> None:
        if len(self._pending) >= _MOST_PENDING:
            self._pending.clear()
        self._pending[goid] = self._track(p), at

    def _on_wait(self, p: int, at: int, why: int, a: int, b: int) -> None:
        name = _WAITS_FOR.get(why) or f"waits: {WAITS.get(why - TRACE_FOR_PROGRAM, 'a goroutine')}"
        self._track(p).begin(at, "wait", name, "wait")

    def _on_mark(self, p: int, at: int, kind: int, for_p: int, b: int) -> None:
        args = {} if for_p == p else {"for_p": for_p}
        self._track(p).begin(at, "mark", _WORKERS.get(kind, "mark"), "gc", args)

    def _on_left_out(self, p: int, at: int, which: int, n: int, ns: int) -> None:
        track = self._track(p)
        Track(self.out, self.began_ns, track.pid, _LEFT_OUT).instant(
            at, f"{n:,} {_DETAILS.get(which, '')} left out", {"count": n} | ({"ms": ns / 1e6} if ns else {})
        )

    # --- of the coordinator -------------------------------------------------------------------------------------------

    def _on_stopped(self, p: int, at: int, detail: int, a: int, b: int) -> None:
        if self._stops.open:
            stop = self._stops.open[-1]
            stop.event["args"]["stopping_us"] = (at - stop.began_ns) / 1e3

    def _on_stop_why(self, p: int, at: int, why: int, a: int, b: int) -> None:
        if self._stops.open:
            self._stops.open[-1].event["name"] = _STOPS_TO.get(why, "stop the world")

    def _on_cycle(self, p: int, at: int, detail: int, number: int, trigger: int) -> None:
        self._gc.end_all(at)
        self._gc.begin(at, "cycle", "mark phase", "gc", {"cycle": number, "trigger": _TRIGGERS.get(trigger, "")})

    def _on_marked(self, p: int, at: int, detail: int, number: int, marked: int) -> None:
        for slice_ in self._gc.open:
            slice_.event["args"]["marked_bytes"] = marked
        self._gc.end_all(at)
        self._gc.begin(at, "cycle", "sweep phase", "gc", {"cycle": number})

    def count_heap(self, at_ns: int, live: int, goal: int) -> None:
        values = {"live": live, "goal": goal}
        if goal >= ENDLESS:
            del values["goal"]
        self.count(at_ns, "heap", **values)

    def _on_death(self, p: int, at: int, detail: int, dead: int, b: int) -> None:
        track = self._track(dead)
        track.end_all(at, killed=True)
        track.instant(at, "its process has died", {})
        self._texts.pop(dead, None)
