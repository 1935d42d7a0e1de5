"""A track of a trace: what takes time, one within the other, as objects of the Trace Event Format."""

from __future__ import annotations

from typing import Any, NamedTuple

Event = dict[str, Any]


def microseconds(at_ns: int, began_ns: int) -> float:
    """A moment as the format has it: since the trace began."""
    return max(at_ns - began_ns, 0) / 1e3


class Slice(NamedTuple):
    """Something that goes on. ``key``: by which its end finds it; ``event``: what is shown of it, but for its duration."""

    key: object
    began_ns: int
    event: Event


class Track:
    """What one track of a process shows, while it grows: what is open lies one within the other. What is complete goes to ``out``.

    Nothing begins or ends before what has begun or ended on it last: what comes late is shown then. So of two that overlap one lies within the other,
    whatever comes. ``began_ns``: when the trace began.
    """

    def __init__(self, out: list[Event], began_ns: int, pid: int, tid: int) -> None:
        self._out = out
        self._began_ns = began_ns
        self.pid, self.tid = pid, tid
        self.open: list[Slice] = []
        self._last_ns = began_ns

    def is_open(self, key: object) -> bool:
        return any(slice_.key == key for slice_ in self.open)

    def begin(self, at_ns: int, key: object, name: str, kind: str, args: Event | None = None) -> None:
        self._last_ns = at_ns = max(at_ns, self._within_ns())
        self.open.append(Slice(key, at_ns, self._event("X", at_ns, name, kind, args)))

    def _within_ns(self) -> int:
        """When something may begin: within what is open it has to begin later, for whoever sorts by that."""
        return max(self._last_ns, self.open[-1].began_ns + 1) if self.open else self._last_ns

    def end(self, at_ns: int, key: object, args: Event | None = None) -> None:
        """The last of that key ends, and whatever has begun within it."""
        for i in range(len(self.open) - 1, -1, -1):
            if self.open[i].key == key:
                if args:
                    self.open[i].event["args"].update(args)
                self.end_all(at_ns, i)
                return

    def end_all(self, at_ns: int, above: int = 0, **args: Any) -> None:
        self._last_ns = at_ns = max(at_ns, self._last_ns)
        while len(self.open) > above:
            self._close(len(self.open) - 1, at_ns, args)

    def end_before_what_is_within(self, at_ns: int, key: object) -> None:
        """What has that key was over before what is open within it began."""
        for i, slice_ in enumerate(self.open):
            if slice_.key == key:
                self._close(i, self.open[i + 1].began_ns if i + 1 < len(self.open) else max(at_ns, self._last_ns), {})
                return

    def _close(self, i: int, at_ns: int, args: Event) -> None:
        _, began_ns, event = self.open.pop(i)
        event["dur"] = (at_ns - began_ns) / 1e3
        event["args"].update(args)
        self._out.append(event)

    def complete(self, began_ns: int, ended_ns: int, name: str, kind: str, args: Event) -> None:
        """Something that is over."""
        began_ns = max(began_ns, self._within_ns())
        self._last_ns = ended_ns = max(ended_ns, began_ns)
        event = self._event("X", began_ns, name, kind, args)
        event["dur"] = (ended_ns - began_ns) / 1e3
        self._out.append(event)

    def instant(self, at_ns: int, name: str, args: Event) -> None:
        self._out.append(self._event("i", at_ns, name, "note", args) | {"s": "t"})

    def arrow(self, phase: str, at_ns: int, number: int) -> None:
        event = self._event(phase, at_ns, "ready", "wake-up", None)
        event["id"] = number
        if phase == "f":
            event["bp"] = "e"  # to what encloses that moment
        self._out.append(event)

    def _event(self, phase: str, at_ns: int, name: str, kind: str, args: Event | None) -> Event:
        return {
            "ph": phase,
            "pid": self.pid,
            "tid": self.tid,
            "ts": microseconds(at_ns, self._began_ns),
            "name": name,
            "cat": kind,
            "args": {} if args is None else args,
        }
