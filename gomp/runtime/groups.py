"""``group.go(F, slot=...)``, from Python: a goroutine that a ``gomp.WaitGroup`` counts until its frame of F has returned."""

from __future__ import annotations

from typing import Any

from gomp.runtime import frames, goroutines
from gomp.runtime.counted import counted_class, own_slots
from gomp.runtime.frames import FrameMeta
from gomp.runtime.sync import WaitGroup


def go(group: WaitGroup, cls: Any, slots: dict[str, Any], labels: dict[str, str] | None) -> int:
    """Start it: its id. What keeps it from starting is raised, and the group is as it was."""
    if not isinstance(cls, FrameMeta):
        raise TypeError(
            "write group.go(F, slot=value, ...), with F a frame; for a call, group.add(), and group.done() at its end"
        )
    frames.given_slots(cls, slots)
    start = goroutines.starter(counted_class(cls), {own_slots(cls)[0]: group, **slots}, labels)
    group.add()  # not before: Ctrl-C may end what compiles it
    try:
        return start()
    except Exception:
        group.done()
        raise
