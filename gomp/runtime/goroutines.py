"""Goroutines whose bodies are frames, from Python: starting them, running them, and what is done on a P about those that it cannot go on with."""

from __future__ import annotations

import functools
import logging
import os
import threading
import traceback
from collections.abc import Callable, Iterable
from typing import Any

from gomp.core.jit import COMPILED
from gomp.core.mutator import schedule
from gomp.core.mutator.poll import POLL_SHUT_DOWN
from gomp.core.mutator.sites import NO_SITE
from gomp.core.sched.runq import NO_G
from gomp.core.shm.records import g_dtype, view
from gomp.errors import RuntimeLost
from gomp.runtime import bodies, coroutines, current, declarations, endings, frames, stacks, steps
from gomp.runtime.bodies import BodyMeta
from gomp.runtime.callsites import begin_at
from gomp.runtime.compiled import Compiled, compiled
from gomp.runtime.endings import raise_failure
from gomp.runtime.frames import FrameMeta
from gomp.runtime.gotypes import check_first
from gomp.runtime.handles import table
from gomp.runtime.here import Identity
from gomp.runtime.labels import number_of
from gomp.runtime.places import MADE
from gomp.runtime.recordaddr import g_addr
from gomp.runtime.sites import number_of_caller
from gomp.runtime.type_table import description

log = logging.getLogger("gomp.p")
_programs: dict[tuple[FrameMeta, str, tuple[str, ...]], Compiled[..., Any]] = {}


def run(cls: FrameMeta, slots: dict[str, Any]) -> Any:
    """The result of a goroutine whose first frame is of ``cls`` with these slots."""
    return _program(cls, "cls.run(%s)", slots)(number_of_caller(), NO_SITE, *slots.values())


def go(cls: FrameMeta, slots: dict[str, Any], labels: dict[str, str] | None = None) -> int:
    """Start a goroutine whose first frame is of ``cls`` with these slots, and with these labels or those of who starts it: its id."""
    return starter(cls, slots, labels)()


def starter(cls: FrameMeta, slots: dict[str, Any], labels: dict[str, str] | None) -> Callable[[], int]:
    """What does it, compiled."""
    program = _program(cls, "gomp.go(cls, %s)", slots)
    args = number_of_caller(), number_of(labels), *slots.values()
    program.program_for(args)
    return functools.partial(program, *args)


def _program(cls: FrameMeta, call: str, slots: Iterable[str]) -> Compiled[..., Any]:
    """A compiled function that makes this ``call`` at a place by number, with the slots that it is given by position."""
    if not COMPILED:
        raise TypeError(f"frame {cls.__name__} runs as machine code only: NUMBA_DISABLE_JIT is set")
    key = cls, call, tuple(slots)
    if key not in _programs:
        check_first(cls, slots)
        _programs[key] = Compiled(_function(cls, call, tuple(slots)))
    return _programs[key]


def _function(cls: FrameMeta, call: str, names: tuple[str, ...]) -> Callable[..., Any]:
    scope: dict[str, Any] = {"cls": cls, "gomp": current, "begin_at": begin_at, "__name__": __name__}
    given = call % ", ".join(f"{n}={n}" for n in names)
    text = f"def made({', '.join(('_site', '_labels', *names))}):\n    begin_at(_site, _labels)\n    return {given}\n"
    exec(compile(text, f"{MADE}{cls.__name__}>", "exec"), scope)
    function: Any = scope["made"]
    function.__annotations__ = {
        n: p.target for n, (_, p) in frames.given_slots(cls, names).items() if hasattr(p, "target")
    }
    function.__name__ = f"{cls.__name__}.{'run' if 'run' in call else 'go'}"
    return function  # type: ignore[no-any-return]


# --- on a P that has nothing else to do -------------------------------------------------------------------------------


@compiled
def _raise_failure(failed: int) -> None:
    raise_failure(failed)


def run_ready(only_one: bool = False) -> bool:
    """Run frames that are ready until none is, a message has come, or ``only_one``; whether there is more to do than to sleep. Raises RuntimeLost."""
    if not COMPILED:
        return False
    while (why := schedule.run_ready(threading.get_ident(), only_one)) == schedule.OTHER_THREAD:
        stacks.announce()
    _check_not_shut_down(why)
    look_aside()
    return why != schedule.NOTHING  # type: ignore[no-any-return]


def park(seen: int, seconds: float) -> None:
    """Sleep, at most so long, until there is something to do for Python that was not there when this P had been woken ``seen`` times; run what is
    ready meanwhile. Raises RuntimeLost."""
    _check_not_shut_down(schedule.park_and_run(threading.get_ident(), seen, int(seconds * 1e9)))


def _check_not_shut_down(why: int) -> None:
    if why == POLL_SHUT_DOWN:
        raise RuntimeLost("the runtime has ended")


_looks_aside = threading.Lock()
_RUNS_FOR_OTHERS = 32


def _forget() -> None:
    global _looks_aside
    _looks_aside = threading.Lock()  # another thread of the parent's may have held it


os.register_at_fork(after_in_child=_forget)


def look_aside(in_program: bool = False) -> None:
    """What this process has set aside: say how goroutines have failed, learn the frames that it did not know, and begin bodies of Python's, which
    others are to do sooner if this is in the middle of a program (``in_program``) that they would wait for. By one thread at a time."""
    while _is_any_aside():  # looked at again after the lock is free: who sets one aside meanwhile does not wait for it
        if not _looks_aside.acquire(blocking=False):
            return
        try:
            _look_aside(in_program)
        finally:
            _looks_aside.release()


def _is_any_aside() -> bool:
    return bool(schedule.last_strange() != NO_G or schedule.last_failed() != NO_G)


def _look_aside(in_program: bool) -> None:
    while (strange := schedule.last_strange()) != NO_G:
        key = schedule.strange_type(strange)
        try:
            if not (steps.is_known(key) or bodies.known_body(key)):
                declarations.learn(key)
            begins = bodies.known_body(key)
            if begins is None or (in_program and _may_others_begin(strange)):
                table.call(schedule.release_strange, strange, int(begins is not None))
            else:
                _begin_body(begins, strange)
        except RuntimeLost:
            raise
        except Exception as error:
            log.error("goroutine %d has ended: %s", schedule.goroutine_id(strange), error)
            table.call(schedule.bury_strange, strange)
    while (failed := schedule.last_failed()) != NO_G:
        try:
            _raise_failure(failed)
        except RuntimeLost:
            raise
        except Exception as error:
            goid, name = schedule.goroutine_id(failed), _failed_name(failed)
            log.error("goroutine %d (%s) has ended%s: %s: %s", goid, name, _where(error), type(error).__name__, error)
        table.call(schedule.bury_failed, failed)


def _may_others_begin(strange: int) -> bool:
    """Whether there are other Ps, and have not had their turn in vain: they may all be in programs."""
    return current.num_procs() > 1 and int(view(g_dtype, g_addr(strange))[0].runs) <= _RUNS_FOR_OTHERS


def _begin_body(cls: BodyMeta, strange: int) -> None:
    """A function of Python's has its arguments in the frame of a goroutine: from here on its body is that goroutine."""
    body = cls.body_of(strange)
    known = view(g_dtype, g_addr(strange))[0]
    identity = Identity(int(known.id), int(known.parent), int(known.site), int(known.labels))
    table.call(schedule.bury_strange, strange)  # first: interrupted in between it is lost, and not there twice
    coroutines.begin(body, identity, is_anybodys=False)


def _where(error: BaseException) -> str:
    """At which line of a step it was raised, if one has."""
    at = traceback.extract_tb(error.__traceback__)[-1]
    return "" if at.filename == endings.__file__ or at.filename == __file__ else f" at {at.filename}:{at.lineno}"


def _failed_name(failed: int) -> str:
    """What the first frame of that goroutine is called."""
    return description(schedule.failed_entry(failed)).partition("\n")[0].rpartition(".")[2] or "?"
