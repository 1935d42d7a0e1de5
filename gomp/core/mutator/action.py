"""Actions: what a step says is to be done next (:mod:`~gomp.core.mutator.goroutine`).

An action is made before it is returned, and the step may poll in between: so P_OUT is a root until then. Its lowest bits count: the action that is
returned has to be the one that was made last, whose slots are in P_OUT.
"""

from __future__ import annotations

from gomp.core.jit import inline
from gomp.core.shm.records import self_p

COUNT_BITS = 63  # the addresses of types are multiples of 64
ACTION_RETURN, ACTION_RAISED, ACTION_YIELD, ACTION_RECEIVE, ACTION_SEND = range(64, 384, 64)
ACTION_SELECT, ACTION_LOCK, ACTION_WAIT = range(384, 576, 64)


@inline
def note_action(what: int, nbytes: int) -> int:
    """The action that was made last: ``what``, with so many bytes of P_OUT."""
    me = self_p()
    me.out_bytes = nbytes
    me.out_for = what + (me.out_for + 1 & COUNT_BITS)
    return me.out_for


@inline
def is_action_made() -> bool:
    """Whether the step that runs here has made one. Who runs others in the middle of it then would have them overwrite P_OUT."""
    return self_p().out_for & ~COUNT_BITS != 0


@inline
def forget_action() -> None:
    """What the step that runs here has made is not the last any more, or it has not begun to make one."""
    me = self_p()
    me.out_for &= COUNT_BITS
    me.out_bytes = 0
