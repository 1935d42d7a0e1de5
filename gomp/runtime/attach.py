"""``gomp.attach``: this process takes part in a runtime that runs already, with a P that it borrows.

It is no worker: programs that others start do not run here, and its end is no end of anything else. However it goes, the coordinator takes the P
back: when it is told so, when the socket hangs up, or when the process has died, and then it puts right what was half done, as for any P.

Who leaves first has nothing of the segments mapped any more, then says so: what another thread is about to do finds a runtime that has ended.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import subprocess
import sys
import threading
import warnings
from collections.abc import Sequence
from importlib.metadata import version
from numbers import Real
from stat import S_ISREG

import numpy as np

from gomp.config import check_system
from gomp.core.jit import cache_key
from gomp.core.shm import layout
from gomp.core.shm.records import MAGIC, RUNTIME, layout_version, runtime_dtype
from gomp.errors import ConfigError, GompError, NoFreeP, RuntimeLost
from gomp.kernels import are_all_compiled, load_all_kernels
from gomp.runtime import current, discovery, mapping
from gomp.runtime.channel import Channel, Message, check_answer
from gomp.runtime.joined import Joined
from gomp.runtime.mailbox import Mailbox

_ANSWER_S = 10.0  # the coordinator lends a P at once, if it has one
_LONGEST_S = 1e6  # that poll can wait, about
_COMPILED_S = 900.0
_HANDED = {"p": int, "heap_bytes": int, "backing": str, "name": str}  # beside the descriptors


class Attached(Joined):
    """A part in the runtime ``name``, until it is closed. References that are left then are dead, and views of arrays show zeros."""

    def __init__(self, name: str | None, timeout: float) -> None:
        wait_s = _seconds(timeout)
        check_system()
        super().__init__()
        self._make_way()
        info = discovery.choose(name)
        if info.build:  # kernels of another need not be compiled to find out
            _check_build(info.name, info.gomp, info.build)
        _load_kernels()
        channel = discovery.open_channel(info.name, takes_descriptors=True)
        channel.explain = lambda why: f"the runtime {info.name} has ended, or has let go of this process: {why}"
        try:
            self._join(channel, _borrow(channel, info.name, wait_s))
            atexit.register(self.close)
        except BaseException:
            self.close()
            _give_up(channel, has_it_mapped=bool(self._descriptors))
            raise

    def __enter__(self) -> Attached:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __repr__(self) -> str:
        is_there = self._peer is not None and current.is_peer(self._peer)  # a forked child is not
        return f"<attached to {self.name}>" if is_there else "<attached no more>"

    def _why_not_open(self) -> str:
        return f"this process has left the runtime {self.name}: attach again"

    def close(self) -> None:
        """Give the P back. The runtime goes on."""
        with self._alone():
            self._close()

    def _close(self) -> None:
        peer = self._peer
        if peer is None or not current.is_peer(peer):
            return
        try:
            self._leave(peer.mailbox)
        except BaseException:  # such as a Ctrl-C: who has hung up, and has the heap mapped, would be killed
            self._leave(peer.mailbox)
            raise
        atexit.unregister(self.close)
        if mapping.is_viewed():
            warnings.warn(
                "arrays of the runtime that is left are still looked at: they show zeros from now on",
                RuntimeWarning,
                stacklevel=3,
            )

    def _leave(self, mailbox: Mailbox) -> None:
        """Once more, if it was interrupted."""
        self._let_go()
        self._hang_up_others()
        with contextlib.suppress(GompError):  # the runtime has ended
            mailbox.post("leave")
        mailbox.close()
        self._peer = None


def attach(name: str | None = None, timeout: float = 0.0) -> Attached:
    """Take part in the runtime ``name``, or in the only one there is: until ``close()``, the end of a ``with`` block, or of this process.

    If each P that it lends is lent, wait for one, at most ``timeout`` seconds. Raises NoFreeP; ConfigError if there is no such runtime, or it is of
    another version of gomp.
    """
    return Attached(name, timeout)


def _seconds(timeout: object) -> float:
    if not isinstance(timeout, Real):
        raise TypeError(f"a timeout is a number of seconds, not {timeout!r}")
    return min(float(timeout), _LONGEST_S)


def _load_kernels() -> None:
    if not are_all_compiled() and threading.active_count() > 1:
        _compile_kernels_aside()  # to compile is to fork, and here are threads
    load_all_kernels()


def _compile_kernels_aside() -> None:
    try:
        subprocess.run([sys.executable, "-m", "gomp", "kernels"], check=True, timeout=_COMPILED_S)
    except (OSError, subprocess.SubprocessError) as error:
        raise GompError(f"the kernels could not be compiled: run `gomp kernels` first ({error})") from None


def _borrow(channel: Channel, name: str, timeout: float) -> Message:
    """The coordinator's answer, which says which P it is."""
    with contextlib.suppress(RuntimeLost):  # it has hung up: perhaps it has said why
        channel.send("attach", build=cache_key(), wait=timeout > 0)
    answer = channel.next(timeout if timeout > 0 else _ANSWER_S)
    if answer is None and timeout > 0:
        raise NoFreeP(
            f"the runtime {name} has lent no P within {timeout:g} s: start it with a larger max_attached, unless its coordinator is stopped"
        )
    if answer is None:
        raise RuntimeLost(f"the runtime {name} did not answer within {_ANSWER_S:.0f} s: is its coordinator stopped?")
    if answer.op == "busy":
        raise NoFreeP(answer["text"])
    if answer.op == "mismatch":
        _check_build(name, answer["gomp"], answer["build"])
    _check_handed(check_answer(answer), channel.descriptors, name)
    return answer


def _check_build(name: str, its_version: str, its_build: str) -> None:
    """Raise ConfigError unless the runtime ``name`` is of the build that this process has."""
    if its_build != cache_key():
        raise ConfigError(
            f"the runtime {name} is of gomp {its_version}, build {its_build}, and this process has gomp {version('gomp')}, build "
            f"{cache_key()}: use the gomp, and the Python, that it was started with"
        )


def _check_handed(answer: Message, descriptors: Sequence[int], name: str) -> None:
    """Raise RuntimeLost unless a coordinator hands out its runtime so: what is mapped is believed."""
    lost = RuntimeLost(f"what answers as the runtime {name} is no runtime: end the program that listens at its socket")
    if answer.op != "attach" or len(descriptors) != 3:
        raise lost
    if any(type(answer.fields.get(field)) is not kind for field, kind in _HANDED.items()):
        raise lost
    try:
        heap, meta = (os.fstat(fd) for fd in descriptors[:2])
        sizes = (heap.st_size, meta.st_size) if S_ISREG(heap.st_mode) and S_ISREG(meta.st_mode) else (0, 0)
        if sizes != (answer["heap_bytes"], layout.META_SIZE) or not 0 < sizes[0] <= layout.HEAP_MAX:
            raise lost
        record = os.pread(descriptors[1], runtime_dtype.itemsize, RUNTIME - layout.META_BASE)
    except OSError:
        raise lost from None
    found = np.frombuffer(record, runtime_dtype)[0]
    if (found["magic"], found["version"]) != (MAGIC, layout_version()) or not 0 <= answer["p"] < found["nrecords"]:
        raise lost


def _give_up(channel: Channel, has_it_mapped: bool) -> None:
    """A P may have been lent. Only who has nothing of the heap mapped may say that it leaves; who was interrupted while it let go hangs up."""
    if has_it_mapped:
        channel.close()
        return
    with contextlib.suppress(GompError):  # the runtime has ended, or has refused
        channel.send("leave")
    channel.close()
