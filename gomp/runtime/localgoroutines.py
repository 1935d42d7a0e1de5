"""What only this process knows of its goroutines whose bodies are Python: all their lines, and those that wait for nothing in the heap."""

from __future__ import annotations

import sys
import threading
from dataclasses import replace
from typing import Any

from gomp.core.mutator.goroutinedump import MOST_FRAMES
from gomp.core.shm import layout
from gomp.core.shm.records import p_dtype, view
from gomp.runtime import coroutines
from gomp.runtime.coroutines import PythonGoroutine
from gomp.runtime.goroutineprofile import GoroutineRecord, line_of
from gomp.runtime.here import main
from gomp.runtime.sites import is_ours
from gomp.runtime.sitetable import Site, labels_of, site_of

_FOR_ANOTHER = "end of a goroutine"  # which is in no record
_MOST_LINES = 100


def with_local(records: list[GoroutineRecord]) -> list[GoroutineRecord]:
    """Those records and what is missing in them, by id."""
    by_id = {record.id: record for record in records}
    for started in coroutines.all_here():
        frames = _frames(started)
        if started.id not in by_id:
            by_id[started.id] = _record(started, frames)
        elif frames:
            by_id[started.id] = replace(by_id[started.id], frames=frames)
    return [by_id[goid] for goid in sorted(by_id)]


def waiting_lines() -> list[tuple[int, str]]:
    """Ids of the first that wait, and a line for each that says for what, and where, as those of a deadlock have it."""
    waiting = [g for g in coroutines.all_here() if coroutines.state_of(g) == "waiting"]
    first = sorted(waiting, key=lambda g: g.id)[:_MOST_LINES]
    return [(g.id, line_of(_record(g, _frames(g)))) for g in first]


def _record(started: PythonGoroutine, frames: tuple[Site, ...]) -> GoroutineRecord:
    status, by = coroutines.state_of(started), started.identity
    return GoroutineRecord(
        id=by.id,
        status=status,
        wait_reason=_FOR_ANOTHER if status == "waiting" else "",
        waiting_ns=0,
        leaked=False,
        frames=frames,
        created_at=site_of(by.site),
        parent=by.parent,
        stack_bytes=0,
        frame_bytes=0,
        p=int(view(p_dtype, layout.SELF_BASE)[0].idx),
        labels=labels_of(by.labels),
    )


def _frames(started: PythonGoroutine) -> tuple[Site, ...]:
    """The innermost first."""
    if main.goroutine is started.identity:
        return _running_frames(started.body)
    found: list[Site] = []
    body: Any = started.body
    while body is not None:
        frame = _frame_of(body)
        if frame is not None and not is_ours(frame.f_globals):
            found.append(_site(frame))
        body = getattr(body, "gi_yieldfrom", None) or getattr(body, "cr_await", None) or getattr(body, "ag_await", None)
    return tuple(reversed(found[-MOST_FRAMES:]))


def _running_frames(body: Any) -> tuple[Site, ...]:
    """Of one in whose body the main thread is: down from where that is, as far as it has not left it meanwhile."""
    outermost = _frame_of(body)
    found: list[Site] = []
    frame = sys._current_frames().get(threading.main_thread().ident or 0)
    while frame is not None:
        if not is_ours(frame.f_globals):
            found.append(_site(frame))
        if frame is outermost:
            return tuple(found[:MOST_FRAMES])
        frame = frame.f_back
    return ()


def _frame_of(body: Any) -> Any:
    return getattr(body, "gi_frame", None) or getattr(body, "cr_frame", None) or getattr(body, "ag_frame", None)


def _site(frame: Any) -> Site:
    return Site(frame.f_code.co_qualname, frame.f_code.co_filename, frame.f_lineno)
