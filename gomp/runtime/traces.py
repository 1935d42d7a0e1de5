"""Recording a trace: events are taken from the Ps' rings while they come, and what is made of them is handed on at once, as pieces of one JSON text.

Any process of the user may: one that has the segments mapped, as the service, or one that is handed the metadata by the coordinator. Nobody waits
for it, and it keeps only what is open. If it is too slow, events are overwritten before it has read them; the trace says where, and how many.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Iterator
from typing import Any

import numpy as np

from gomp.core.gc.goal import NO_LIMIT, heap_goal
from gomp.core.jit import load_kernels
from gomp.core.shm import layout, tracing
from gomp.core.shm.atomics import allowed_range
from gomp.core.shm.records import (
    MHEAP,
    PACER,
    RUNTIME,
    TRACE_DETAIL_SHIFT,
    TRACE_LEFT_OUT,
    mheap_dtype,
    p_dtype,
    pacer_dtype,
    runtime_dtype,
    trace_event_dtype,
    view,
)
from gomp.errors import ConfigError, RuntimeLost
from gomp.runtime import discovery
from gomp.runtime.channel import MOST_TRACE_MS, check_answer
from gomp.runtime.looking import map_runtime
from gomp.runtime.timeline import Timeline

MOST_SECONDS = MOST_TRACE_MS / 1e3
_TURN_S = 0.01  # between two looks at the rings
_LATE_NS = 20_000_000  # that an event may be: its process has looked at the clock and lost the processor
_AT_A_TIME = 8192  # events, of half a KiB each until they are text
_ANSWER_S = 60.0  # whoever holds up the stop with which a trace begins
_END_S = 10.0  # the coordinator answers at once
_HEAD = '{"displayTimeUnit":"ns","traceEvents":[\n'
_event_dtype = np.dtype([(name, "i8") for name in ("p", "at_ns", "what", "a", "b")])
_NONE = np.zeros(0, _event_dtype)
_encode = json.JSONEncoder(allow_nan=False, separators=(",", ":"), check_circular=False).encode


def check_seconds(text: str | float) -> float:
    """How long a trace is to be. Raises ConfigError."""
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds <= MOST_SECONDS:
        raise ConfigError(f"seconds={str(text)[:40]}: give a number above 0, up to {MOST_SECONDS:.0f}")
    return seconds


class Rings:
    """The events that Ps tell, of each P from the number on that ``first`` has for it, else all.

    Those of a P come in their order, and none with an earlier time than the one before it: some are told a while after their time.
    """

    def __init__(self, first: dict[int, int]) -> None:
        self._next = first
        self._told_ns: dict[int, int] = {}  # by P: when its last event was
        self._buffer = np.zeros(8 + layout.TRACE_EVENTS * layout.TRACE_EVENT, np.uint8)

    def has_more(self, p: int) -> bool:
        """Whether P ``p``, which has a ring, has told anything since the last time."""
        return int(tracing.count_events(p)) > self._next.get(p, 0)

    def take(self, p: int) -> tuple[int, Any]:
        """How many events of P ``p`` are lost since the last time, and those that have come after them. It tells, or has told."""
        first, out = self._next.get(p, 0), self._buffer.ctypes.data
        with allowed_range(out, self._buffer.nbytes):
            end = int(tracing.take_events(p, first, out))
        kept = max(first, end - layout.TRACE_EVENTS)
        whole = int(self._buffer[:8].view("i8")[0])
        events = self._buffer[8 : 8 + (end - kept) * layout.TRACE_EVENT].view(trace_event_dtype)[whole - kept :].copy()
        self._next[p] = end
        events["at_ns"] = np.maximum(np.maximum.accumulate(events["at_ns"]), self._told_ns.get(p, 0))
        if len(events):
            self._told_ns[p] = int(events["at_ns"][-1])
        return whole - first, events


class Recording:
    """A trace of the runtime ``info`` that begins now and takes ``seconds``. ``maps``: this process has not mapped the segments.

    Raises ConfigError, RuntimeLost, and GompError if there is another one.
    """

    def __init__(self, info: discovery.RuntimeInfo, seconds: float, maps: bool) -> None:
        self.ended_early = ""  # why
        self.seconds = 0.0  # that it took
        self.was_stopped = False
        self._left_out: list[list[int]] = []  # at its end: P, DETAIL_*, how many, their time in ns
        load_kernels()  # which takes a second, where they are not loaded yet
        self._channel = discovery.open_channel(info.name, takes_descriptors=maps)
        self._info = info
        try:
            began = self._ask("trace", ms=math.ceil(seconds * 1e3))
            if maps:
                for fd in map_runtime(self._channel, info.name):
                    os.close(fd)
            self._began_ns: int = began["began_ns"]
            self._end_ns = self._began_ns + int(seconds * 1e9)
            self._end_asked_ns = 0  # when everybody was to end
            self._unix_ns: int = began["unix_ns"]
            self.timeline = Timeline(self._began_ns, began["pid"])
            self._later: dict[int, Any] = {}  # by P: events that wait for those of others
            self._slots: int = began["slots"]
            self._telling = [layout.COORDINATOR_P, *(state["p"] for state in began["ps"])]
            self._rings = Rings(dict(enumerate(began["firsts"])) | {layout.COORDINATOR_P: began["first"]})
            self.timeline.begin(began["ps"], began["phase"], began["cycle"])
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Nobody tells anything any more."""
        self._channel.close()

    def stop(self) -> None:
        """End it before its time. From anywhere."""
        self.was_stopped = True

    def summary(self) -> str:
        """What has become of it, for people."""
        lost = f", {self.timeline.lost:,} lost: this process was too slow" if self.timeline.lost else ""
        why = f"; {self.ended_early}" if self.ended_early else ""
        return f"{self.seconds:.3g} s of {self._info.name}, {self.timeline.told:,} event{'s' * (self.timeline.told != 1)}{lost}{why}"

    def pieces(self) -> Iterator[str]:
        """The trace, as it comes: one JSON object in the end."""
        try:
            yield _HEAD + self._text().removeprefix(",\n")
            ended_ns = 0
            while not ended_ns:
                ended_ns = self._wait()
                now_ns = time.monotonic_ns()
                yield from self._turn(math.inf if ended_ns else now_ns - _LATE_NS)
                self._count(now_ns)
                yield self._text()
            for p, which, n, ns in self._left_out:
                self.timeline.add(p, ended_ns, TRACE_LEFT_OUT | which << TRACE_DETAIL_SHIFT, n, ns)
            self.timeline.end(ended_ns)
            yield self._text() + self._tail(ended_ns)
        finally:
            self.close()

    def _wait(self) -> int:
        """Until the rings are to be looked at; when everybody has ended, if they have."""
        now = time.monotonic_ns()
        try:
            if not self._end_asked_ns and (self.was_stopped or now >= self._end_ns):
                self._channel.send("end_trace")
                self._end_asked_ns = now
                if self.was_stopped:
                    self.ended_early = "ended before its time"
            message = self._channel.next(_TURN_S if self._end_asked_ns else min(_TURN_S, (self._end_ns - now) / 1e9))
            if message is not None:
                answer = check_answer(message)
                self._left_out = answer["left_out"]
                return int(answer["ended_ns"])
        except RuntimeLost as error:
            self.ended_early = f"the runtime has ended: {error}"
            return now
        if self._end_asked_ns and now - self._end_asked_ns > _END_S * 1e9:
            self.ended_early = f"the runtime did not answer within {_END_S:g} s: is its coordinator stopped?"
            return now
        return 0

    def _turn(self, until_ns: float) -> Iterator[str]:
        """What becomes of the events that have come, in the order of their times: of those until ``until_ns``, as of later ones some may not be there
        yet."""
        ready = []
        self._look_for_ps()
        for p in self._telling:  # the coordinator first: when a death is read, so is all that the dead one has told
            lost, events = self._rings.take(p)
            if lost:
                self._add(self._later.pop(p, _NONE))
                self.timeline.lose(p, lost)
            new = np.zeros(len(events), _event_dtype)
            new["p"] = p
            for name in ("at_ns", "what", "a", "b"):
                new[name] = events[name]
            waiting = np.concatenate([self._later.pop(p, _NONE), new])
            n = int(np.searchsorted(waiting["at_ns"], until_ns, "right"))
            ready.append(waiting[:n])
            if n < len(waiting):
                self._later[p] = waiting[n:]
        events = np.concatenate(ready)
        events = events[np.argsort(events["at_ns"], kind="stable")]
        for at in range(0, len(events), _AT_A_TIME):
            self._add(events[at : at + _AT_A_TIME])
            yield self._text()

    def _add(self, events: Any) -> None:
        for event in events.tolist():
            self.timeline.add(*event)

    def _look_for_ps(self) -> None:
        """Those that have come since the trace began: that tell now, or have told something."""
        for p in range(int(view(runtime_dtype, RUNTIME)[0].nrecords)):
            record = view(p_dtype, layout.p_addr(p))[0]
            if p in self._telling or not record.trace_committed:
                continue
            if record.xtracing or self._rings.has_more(p):
                self._telling.append(p)
                self.timeline.open_p(p, int(record.xpid), is_script=p >= self._slots)

    def _count(self, now_ns: int) -> None:
        pacer, heap = view(pacer_dtype, PACER)[0], view(mheap_dtype, MHEAP)[0]
        self.timeline.count_heap(now_ns, int(pacer.xheap_live), int(heap_goal()))
        mapped = int(heap.xheap_committed + heap.xmetadata_bytes + heap.xwbuf_bytes + heap.xtable_bytes)
        limit = int(pacer.memory_limit)
        self.timeline.count(now_ns, "memory", mapped=mapped, **({"limit": limit} if limit < NO_LIMIT else {}))

    def _text(self) -> str:
        out = self.timeline.take()
        return ",\n" + _encode(out)[1:-1] if out else ""

    def _tail(self, ended_ns: int) -> str:
        self.seconds = (ended_ns - self._began_ns) / 1e9
        about = {
            "runtime": self._info.name,
            "began_unix_ns": self._unix_ns,
            "seconds": self.seconds,
            "events": self.timeline.told,
            "lost_events": self.timeline.lost,
        }
        return f'\n],"otherData":{_encode(about)}}}\n'

    def _ask(self, op: str, **fields: Any) -> Any:
        self._channel.send(op, **fields)
        answer = self._channel.next(_ANSWER_S)
        if answer is None:
            raise RuntimeLost(
                f"the runtime {self._info.name} did not answer within {_ANSWER_S:.0f} s: is its coordinator stopped?"
            )
        return check_answer(answer)
