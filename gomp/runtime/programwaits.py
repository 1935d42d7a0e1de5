"""Compiled programs that have to wait for a goroutine and find nothing to run: they wait in Python, in the middle of the program. And those at whose
polls goroutines have run that cannot go on without Python: it looks at them there and then.

There the interpreter's lock is free for other threads, and the main thread of a P runs what else comes, calls of other processes too. What
interrupts the wait, Ctrl-C or the end of the runtime, is kept, and the program ends by its next poll.
"""

from __future__ import annotations

import ctypes
import threading

from gomp.core.mutator import schedule, waitcalls
from gomp.core.shm import layout
from gomp.core.shm.records import p_dtype, view
from gomp.runtime import handles, mapping
from gomp.runtime.waits import wait_until_done

_kept = threading.local()


def _wait(g: int) -> int:
    from gomp.runtime import goroutines  # above this

    try:
        with mapping.asleep():  # the program goes on in the runtime that it waits in, or ends
            if g == schedule.NOBODY:
                goroutines.look_aside(in_program=True)
            else:
                wait_until_done(g, None)
    except BaseException as error:
        _kept.error = error
        waitcalls.interrupt_program()
    return 0


_waiter = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_int64)(_wait)


def _tell() -> None:
    me = view(p_dtype, layout.SELF_BASE)[0]
    me.waiter = ctypes.cast(_waiter, ctypes.c_void_p).value
    me.main_thread = threading.main_thread().ident


handles.on_open(_tell)


def raise_kept() -> None:
    """Raise what has interrupted a program of this thread while it waited, if anything has."""
    error = vars(_kept).pop("error", None)
    if error is not None:
        try:
            raise error
        finally:
            del error  # which leads back to this frame by its traceback
