"""Ctrl-C in a script while it runs a compiled program.

Python's handler of SIGINT only takes a note, which the interpreter reads between two instructions: a compiled program holds the interpreter's
lock until it ends. So a handler of ours, a dozen machine instructions, first calls Python's and then sets the interrupt bit of the P's poll word:

1. The program's next poll ends it with Interrupted, and Python, asked for its note, raises KeyboardInterrupt instead.
2. A Ctrl-C that came while no program ran leaves the bit behind. The next program clears it before it begins, *then* asks Python for the note: a
   Ctrl-C from before has its note read, one from after has its bit seen.

It is installed while a runtime is open and Python's own handling of Ctrl-C is in force; whoever sets another handler (asyncio.run does) ends it.
A forked child inherits the handler and has no P: there the handler finds another process's number and only calls Python's.
"""

from __future__ import annotations

import ctypes
import functools
import os
import signal
from typing import Any

import llvmlite.binding as llvm
from llvmlite import ir

from gomp.core.sched.interrupt import clear_interrupt
from gomp.core.sched.status import SELF_POLL
from gomp.core.shm.libc import libc
from gomp.core.shm.records import POLL_INTERRUPT

_I32, _I64 = ir.IntType(32), ir.IntType(64)
_HANDLER = ir.FunctionType(ir.VoidType(), [_I32])
_NO_WORD = memoryview(bytes(8)).cast("q")


class _SigAction(ctypes.Structure):
    """glibc's ``struct sigaction``, the same on x86-64 and aarch64."""

    _fields_ = (
        ("handler", ctypes.c_void_p),
        ("mask", ctypes.c_uint64 * 16),
        ("flags", ctypes.c_int),
        ("restorer", ctypes.c_void_p),
    )


class _Handler:
    """Our handler: ``word`` is the poll word while it is installed, and a zero otherwise."""

    def __init__(self) -> None:
        self.word = _NO_WORD

    def install(self) -> None:
        """Let Ctrl-C end compiled programs from here. The P's record is in place."""
        if signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
            return
        self._python = _current_action()
        ours = _SigAction.from_buffer_copy(self._python)
        code = _compile(os.getpid(), self._python.handler or 0)
        ours.handler = self._address = code.get_function_address("on_sigint")
        self.word = memoryview(ctypes.c_int64.from_address(SELF_POLL)).cast("B").cast("q")
        libc.sigaction(int(signal.SIGINT), ctypes.byref(ours), None)

    def uninstall(self) -> None:
        """Give Python its own back, unless somebody has set another meanwhile. Called before the segments are unmapped."""
        if self.word is not _NO_WORD and _current_action().handler == self._address:
            libc.sigaction(int(signal.SIGINT), ctypes.byref(self._python), None)
        self.word = _NO_WORD

    def drop_stale(self) -> None:
        """Before a program begins, if the interrupt bit is set. Raises KeyboardInterrupt if Python has not yet."""
        clear_interrupt()
        raise_noted()


def raise_noted() -> None:
    """Have Python handle the signals that it has taken note of, now: what their handlers raise is raised."""
    ctypes.pythonapi.PyErr_CheckSignals()


def _current_action() -> _SigAction:
    action = _SigAction()
    libc.sigaction(int(signal.SIGINT), None, ctypes.byref(action))
    return action


@functools.cache  # and so never freed: a handler that somebody has set on top of ours may still call it
def _compile(pid: int, python_handler: int) -> Any:
    """Machine code of: call Python's handler; if this is process ``pid``, set the bit."""
    module = ir.Module()
    function = ir.Function(module, _HANDLER, "on_sigint")
    getpid = ir.Function(module, ir.FunctionType(_I32, []), "getpid")
    b = ir.IRBuilder(function.append_basic_block())
    b.call(b.inttoptr(ir.Constant(_I64, python_handler), _HANDLER.as_pointer()), function.args)
    with b.if_then(b.icmp_signed("==", b.call(getpid, []), ir.Constant(_I32, pid))):
        word = b.inttoptr(ir.Constant(_I64, SELF_POLL), _I64.as_pointer())
        b.atomic_rmw("or", word, ir.Constant(_I64, POLL_INTERRUPT), "acq_rel")
    b.ret_void()
    machine = llvm.Target.from_default_triple().create_target_machine()
    code = llvm.create_mcjit_compiler(llvm.parse_assembly(str(module)), machine)
    code.finalize_object()
    return code


handler = _Handler()
os.register_at_fork(after_in_child=handler.uninstall)
