"""``gomp.Runtime``: a runtime of a script's own.

The coordinator is a process of its own, started with ``python -m`` in a session of its own, so nothing of the script is imported twice and a
Ctrl-C reaches the script alone. The script gets a P: it allocates from the heap like any other. When it leaves the ``with`` block, or
dies, its socket hangs up and the runtime ends.
"""

from __future__ import annotations

import contextlib
import functools
import os
import signal
import socket
import subprocess
import sys
from typing import Any

from gomp import errors
from gomp.cgroup import MemoryCgroup
from gomp.config import RuntimeSettings, check_system, load
from gomp.core.shm import segments
from gomp.core.shm.records import (
    RUNTIME,
    layout_version,
    runtime_dtype,
    view,
)
from gomp.errors import GompError, RuntimeLost
from gomp.kernels import Progress, are_all_compiled, load_all_kernels
from gomp.runtime import current, interrupt, mapping
from gomp.runtime.channel import Channel, Message
from gomp.runtime.joined import Joined
from gomp.runtime.oomkills import ADVICE, OomKills

_START_TIMEOUT_S = 300.0
_END_TIMEOUT_S = 5.0
_DYING_S = 1.0  # from the hang-up of its socket to the end of its process


class Runtime(Joined):
    """One shared heap, ``procs`` processes that run programs on it, and a coordinator; this process takes part.

    ``gogc`` is a percentage or "off", ``memory_limit`` and ``max_heap`` are bytes or texts such as "512MiB". ``max_procs`` is how
    many Ps there may be later, with :func:`gomp.debug.set_max_procs`, ``max_attached`` to how many
    others :func:`gomp.attach` lends a P. What is left out comes from the environment, as in Go.
    Raises ConfigError for values that cannot be used, SegmentError if there is no memory for it.
    """

    def __init__(
        self,
        procs: int | None = None,
        gogc: int | str | None = None,
        memory_limit: int | str | None = None,
        name: str | None = None,
        max_heap: int | str | None = None,
        max_procs: int | None = None,
        max_attached: int | None = None,
    ) -> None:
        given: dict[str, Any] = {
            "procs": procs,
            "gogc": gogc,
            "memory_limit": memory_limit,
            "name": name,
            "max_heap": max_heap,
            "max_procs": max_procs,
            "max_attached": max_attached,
        }
        self._prepare(load(RuntimeSettings, **given))

    @classmethod
    def of(cls, settings: RuntimeSettings) -> Runtime:
        """A runtime with exactly these settings, whatever the environment says: for callers that have read it already."""
        made = cls.__new__(cls)
        made._prepare(settings)
        return made

    def _prepare(self, settings: RuntimeSettings) -> None:
        check_system()
        super().__init__()
        self.settings = settings

    def __enter__(self) -> Runtime:
        self.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    # --- life ---------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start the processes and join them. One runtime is open in a process at a time."""
        self._make_way()
        ours, theirs = socket.socketpair()
        command = [sys.executable, "-m", "gomp.runtime.coordinator", str(theirs.fileno())]
        environment = os.environ | {
            "OPENBLAS_NUM_THREADS": "1",
            "PYTHONPATH": os.pathsep.join(p for p in sys.path if p),
        }
        with theirs:
            try:
                self._process = subprocess.Popen(
                    command,
                    pass_fds=[theirs.fileno()],
                    env=environment,
                    start_new_session=True,
                    stdin=subprocess.DEVNULL,
                )
            except OSError as error:  # the system allows no more processes, or files
                ours.close()
                raise GompError(f"the runtime cannot be started: {error.strerror}") from None
        channel = Channel(ours, takes_descriptors=True)
        channel.explain = functools.partial(_explain, self._process, OomKills(MemoryCgroup.of_this_process()))
        try:
            settings = self.settings.model_dump(mode="json")
            if "log_level" not in self.settings.model_fields_set:
                settings["log_level"] = "warning"  # what a script prints is its own, unless it wants more
            if "procs" not in self.settings.model_fields_set:
                del settings["procs"]  # it follows the processors there are
            channel.send("start", settings=settings, path=sys.path, cwd=os.getcwd())
            if are_all_compiled():  # else the coordinator compiles them, and says how far it is
                load_all_kernels()  # beside the coordinator, which does the same
            ready = self._wait_until_ready(channel)
            if ready["version"] != layout_version():
                raise RuntimeLost("the coordinator runs another version of gomp: is more than one installed?")
            load_all_kernels()
            self._join(channel, ready)
        except BaseException:
            channel.close()
            self._reap()
            raise

    def _wait_until_ready(self, channel: Channel) -> Message:
        with Progress() as progress:
            while (message := channel.next(_START_TIMEOUT_S)) is not None:
                if message.op == "ready":
                    return message
                if message.op == "failed":
                    raise getattr(errors, message["kind"])(message["text"])
                if message.op == "progress":
                    progress.show(message["done"], message["total"])
        raise RuntimeLost(f"the coordinator (pid {self._process.pid}) was not ready within {_START_TIMEOUT_S:.0f} s")

    def close(self) -> None:
        """End the runtime. References that are left become unusable; nothing of it stays behind, but what a view of it looks at."""
        with self._alone():
            self._close()

    def _close(self) -> None:
        peer = self._take_peer()
        if peer is None:
            return
        with contextlib.ExitStack() as ends:  # whatever is interrupted, from below
            ends.callback(mapping.release, self._unmap)
            ends.callback(self._say_shutdown)
            ends.callback(self._reap)
            ends.callback(current.close_process)
            ends.callback(peer.mailbox.close)
            ends.callback(interrupt.handler.uninstall)

    @staticmethod
    def _say_shutdown() -> None:
        """A coordinator that was killed has not said so to threads that wait here."""
        view(runtime_dtype, RUNTIME)[0].xshutdown = 1

    def _unmap(self) -> None:
        """Once more, if it was interrupted."""
        segments.cover(self._segments)
        self._close_descriptors()

    def _reap(self) -> None:
        try:
            self._process.wait(_END_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait()


def _explain(coordinator: subprocess.Popen[bytes], oom_kills: OomKills, loss: str) -> str:
    """The connection is gone, ``loss`` in words; and if its coordinator was killed, that, for it says nothing itself."""
    with contextlib.suppress(subprocess.TimeoutExpired):
        code = coordinator.wait(_DYING_S)
        if code < 0:
            why = oom_kills.suspect() if code == -signal.SIGKILL else ""
            how = f"{why}; {ADVICE}" if why else f"was killed by {signal.Signals(-code).name}"
            return f"{loss}: its coordinator (pid {coordinator.pid}) {how}"
    return loss
