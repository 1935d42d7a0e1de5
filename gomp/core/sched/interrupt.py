"""The interrupt bit of this process's poll word: set by a handler of SIGINT (``gomp.runtime.interrupt``), taken when a program ends by it."""

from __future__ import annotations

from gomp.core.jit import kernel
from gomp.core.sched.status import SELF_POLL
from gomp.core.shm.atomics import and_acq_rel
from gomp.core.shm.records import POLL_INTERRUPT


@kernel("void()")
def clear_interrupt() -> None:
    """Forget an interrupt: a program ends by it, or none has seen it."""
    and_acq_rel(SELF_POLL, ~POLL_INTERRUPT)
