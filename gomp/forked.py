"""What a forked process does first: it ends with its parent, and drops what it inherited and must not use. And how it ended, in words."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
import traceback
from collections.abc import Callable

from gomp.core.shm.libc import libc

ChildMain = Callable[[], None]
_PR_SET_PDEATHSIG, _PR_SET_NAME = 1, 15
# In thousandths of the memory that may be used. A P that has just been started has touched little of the heap, and its coordinator most of it: only
# with all of it on top does every P come before every coordinator. The service, whose death ends the runtime, stands between: somebody has to be left
# who says why. (With 500, containers of 112 to 120 MiB had their coordinator killed, whose libraries count although they are not charged.)
P_OOM_SCORE = _OOM_SCORE_MOST = 1000
SERVICE_OOM_SCORE = 750


def die_with_parent(parent: int, name: bytes) -> None:
    """End with ``parent``, even if it was gone before this could be asked for."""
    libc.prctl(_PR_SET_NAME, ctypes.c_char_p(name), 0, 0, 0)
    libc.prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
    if os.getppid() != parent:
        os._exit(0)


def be_killed_first(score: int) -> None:
    """When memory runs out, this process before its parent, and the higher the ``score`` the earlier.

    Relative to the parent's own score, which an orchestrator may have set for the whole container: from -997 in Kubernetes.
    """
    with open("/proc/self/oom_score_adj", "r+") as file:
        adjusted = min(int(file.read()) + score, _OOM_SCORE_MOST)
        file.seek(0)
        file.write(str(adjusted))


def reset_signals() -> None:
    """Forget the coordinator's handlers; Ctrl-C on a terminal reaches the whole group, and the coordinator decides what it means."""
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])


def close_other_descriptors(keep: set[int]) -> None:
    """Close every descriptor that is not in ``keep``: the coordinator's, and those of other Ps."""
    for fd in {int(name) for name in os.listdir("/proc/self/fd")} - keep:
        with contextlib.suppress(OSError):  # the one that the listing itself used
            os.close(fd)


def fork(child: ChildMain) -> int:
    """Fork a process that runs ``child`` and nothing of its caller afterwards; returns its pid."""
    pid = os.fork()
    if pid:
        return pid
    status = 1
    try:
        child()
        status = 0
    except BaseException as error:
        print("".join(traceback.format_exception(error)), file=sys.stderr, flush=True)
    finally:
        os._exit(status)


def fork_with_pipe(child: Callable[[int], None]) -> tuple[int, int]:
    """As :func:`fork`, of a ``child`` that is given where to write; its pid, and where to read that. Raises OSError, and leaves nothing behind, if
    the system refuses."""
    reader, writer = os.pipe()
    try:
        return fork(lambda: child(writer)), reader
    except BaseException:
        os.close(reader)
        raise
    finally:
        os.close(writer)


def how_it_ended(status: int | None) -> str:
    """A wait status in words; None if it is not known."""
    if status is None:
        return "has ended, it is not known how: whoever traces it keeps that"
    if os.WIFSIGNALED(status):
        return f"was killed by {signal.Signals(os.WTERMSIG(status)).name}"
    return f"exited with code {os.waitstatus_to_exitcode(status)}"
