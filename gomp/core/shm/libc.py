"""System calls from inside kernels, resolved by symbol so that kernels still cache; each has a Python body.

A failed call returns the negated errno, as the kernel itself does.
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import platform
import select
import time
from typing import Any

from llvmlite import ir
from numba.core import cgutils

from gomp.core.jit import primitive
from gomp.core.shm.atomics import load_relaxed

_NUMBERS = {
    "x86_64": {
        "futex": 202,
        "fallocate": 285,
        "write": 1,
        "sched_yield": 24,
        "ppoll": 271,
        "pidfd_send_signal": 424,
        "mincore": 27,
    },
    "aarch64": {
        "futex": 98,
        "fallocate": 47,
        "write": 64,
        "sched_yield": 124,
        "ppoll": 73,
        "pidfd_send_signal": 424,
        "mincore": 232,
    },
}[platform.machine()]
_FUTEX_WAIT, _FUTEX_WAKE = 0, 1
_FALLOC_KEEP_SIZE, _FALLOC_PUNCH_HOLE = 1, 2
MOST_INCORE = 256 << 10  # bytes that resident_bytes looks at
_INCORE_WORDS = MOST_INCORE // 4096 // 8  # a byte for each of the smallest OS pages there are
_CLOCK_MONOTONIC, _CLOCK_THREAD_CPUTIME = 1, 3
_I32, _I64 = ir.IntType(32), ir.IntType(64)

ENOSPC, ENOMEM, EINTR, EAGAIN = errno.ENOSPC, errno.ENOMEM, errno.EINTR, errno.EAGAIN
NATIVE_CONTEXT_BYTES = (
    1024  # glibc's ucontext_t is 968 bytes on x86-64; aarch64's is larger and is not saved whole (see save_registers)
)

libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long
libc.mmap.restype = ctypes.c_void_p
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
libc.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]


def _lower_syscall(b: Any, name: str, *args: Any) -> Any:
    fnty = ir.FunctionType(_I64, [_I64] * 7)
    fn = cgutils.get_or_insert_function(b.module, fnty, "syscall")
    zero = ir.Constant(_I64, 0)
    words = [ir.Constant(_I64, _NUMBERS[name]), *args]
    out = b.call(fn, words + [zero] * (7 - len(words)))
    errno_fn = cgutils.get_or_insert_function(b.module, ir.FunctionType(_I32.as_pointer(), []), "__errno_location")
    error = b.neg(b.sext(b.load(b.call(errno_fn, [])), _I64))
    return b.select(b.icmp_signed("==", out, ir.Constant(_I64, -1)), error, out)


def _call(name: str, *args: int) -> int:
    out = libc.syscall(*[ctypes.c_long(int(x)) for x in (_NUMBERS[name], *args)])
    return -ctypes.get_errno() if out == -1 else out


def _clock(clock: int) -> Any:
    def lower(b: Any, a: Any) -> Any:
        buffer = cgutils.alloca_once(b, ir.ArrayType(_I64, 2))
        fn = cgutils.get_or_insert_function(b.module, ir.FunctionType(_I32, [_I32, buffer.type]), "clock_gettime")
        b.call(fn, [ir.Constant(_I32, clock), buffer])
        seconds, nanoseconds = (b.load(b.gep(buffer, [ir.Constant(_I32, 0), ir.Constant(_I32, i)])) for i in (0, 1))
        return b.add(b.mul(seconds, ir.Constant(_I64, 10**9)), nanoseconds)

    return lower


@primitive("int64()", _clock(_CLOCK_MONOTONIC))
def nanotime() -> int:
    """Monotonic time in ns; 36 ns a call."""
    return time.monotonic_ns()


@primitive("int64()", _clock(_CLOCK_THREAD_CPUTIME))
def cputime() -> int:
    """CPU time of this thread in ns."""
    return time.thread_time_ns()


def _futex_wait(b: Any, a: Any) -> Any:
    addr, expected, timeout_ns = a
    timespec = cgutils.alloca_once(b, ir.ArrayType(_I64, 2))
    billion = ir.Constant(_I64, 10**9)
    for i, part in enumerate((b.sdiv(timeout_ns, billion), b.srem(timeout_ns, billion))):
        b.store(part, b.gep(timespec, [ir.Constant(_I32, 0), ir.Constant(_I32, i)]))
    # The kernel compares 32 bits: on little-endian machines the low half of the word.
    wait = ir.Constant(_I64, _FUTEX_WAIT)
    return _lower_syscall(
        b, "futex", addr, wait, b.and_(expected, ir.Constant(_I64, 0xFFFFFFFF)), b.ptrtoint(timespec, _I64)
    )


@primitive("int64(int64, int64, int64)", _futex_wait)
def futex_wait(addr: int, expected: int, timeout_ns: int) -> int:
    """Sleep until woken, or at once if the low half of the word at ``addr`` is not ``expected``'s; at most ``timeout_ns``."""
    if load_relaxed(addr) & 0xFFFFFFFF == expected & 0xFFFFFFFF:
        time.sleep(min(timeout_ns, 1_000_000) / 1e9)
    return 0


@primitive(
    "int64(int64)",
    lambda b, a: _lower_syscall(b, "futex", a[0], ir.Constant(_I64, _FUTEX_WAKE), ir.Constant(_I64, 1 << 30)),
)
def futex_wake(addr: int) -> int:
    """Wake everyone who sleeps on the word at ``addr``."""
    return _call("futex", addr, _FUTEX_WAKE, 1 << 30)


@primitive("int64()", lambda b, a: _lower_syscall(b, "sched_yield"))
def sched_yield() -> int:
    """Give the core to another process: there are more processes than cores."""
    os.sched_yield()
    return 0


@primitive(
    "int64(int64, int64, int64)", lambda b, a: _lower_syscall(b, "fallocate", a[0], ir.Constant(_I64, 0), a[1], a[2])
)
def fallocate(fd: int, offset: int, size: int) -> int:
    """Commit ``size`` bytes of a segment, so that touching them cannot fail; 0 or a negated errno."""
    return _call("fallocate", fd, 0, offset, size)


@primitive(
    "int64(int64, int64, int64)",
    lambda b, a: _lower_syscall(
        b, "fallocate", a[0], ir.Constant(_I64, _FALLOC_KEEP_SIZE | _FALLOC_PUNCH_HOLE), a[1], a[2]
    ),
)
def punch_hole(fd: int, offset: int, size: int) -> int:
    """Give ``size`` bytes of a segment back to the system; they read as zero afterwards."""
    return _call("fallocate", fd, _FALLOC_KEEP_SIZE | _FALLOC_PUNCH_HOLE, offset, size)


def _resident_bytes(b: Any, a: Any) -> Any:
    words = ir.ArrayType(_I64, _INCORE_WORDS)
    vector = cgutils.alloca_once_value(b, ir.Constant(words, None))
    b.store(ir.Constant(words, None), vector)
    _lower_syscall(b, "mincore", a[0], a[1], b.ptrtoint(vector, _I64))
    count = b.module.declare_intrinsic("llvm.ctpop", [_I64])
    lowest, pages = ir.Constant(_I64, 0x0101010101010101), ir.Constant(_I64, 0)
    for i in range(_INCORE_WORDS):
        word = b.load(b.gep(vector, [ir.Constant(_I32, 0), ir.Constant(_I32, i)]))
        pages = b.add(pages, b.call(count, [b.and_(word, lowest)]))
    return b.mul(pages, ir.Constant(_I64, mmap.PAGESIZE))


@primitive("int64(int64, int64)", _resident_bytes)
def resident_bytes(addr: int, size: int) -> int:
    """Of at most MOST_INCORE bytes from the OS page at ``addr``, how many are in memory. What is committed and was never touched is not.

    (SEEK_HOLE would tell as well, but looks through the file until it finds one: 1.5 ms each time for 400 MiB.)
    """
    vector = (ctypes.c_char * (8 * _INCORE_WORDS))()
    _call("mincore", addr, size, ctypes.addressof(vector))
    return sum(byte & 1 for byte in bytes(vector)) * mmap.PAGESIZE


def _eventfd_signal(b: Any, a: Any) -> Any:
    one = cgutils.alloca_once_value(b, ir.Constant(_I64, 1))
    return _lower_syscall(b, "write", a[0], b.ptrtoint(one, _I64), ir.Constant(_I64, 8))


@primitive("int64(int64)", _eventfd_signal)
def eventfd_signal(fd: int) -> int:
    """Add one to an eventfd."""
    os.eventfd_write(int(fd), 1)
    return 8


@primitive("int64(int64)", lambda b, a: _lower_syscall(b, "pidfd_send_signal", a[0], ir.Constant(_I64, 9)))
def kill_process(pidfd: int) -> int:
    """Send SIGKILL to the process of a pidfd; 0 or a negated errno."""
    return _call("pidfd_send_signal", pidfd, 9, 0, 0)


def _poll_now(events: int, wanted: int) -> Any:
    """Lowers to: does poll(2) say one of ``wanted`` of the descriptor, asked for ``events``, without waiting?"""

    def lower(b: Any, a: Any) -> Any:
        # struct pollfd: the descriptor, the events, and the answer in the upper 16 bits.
        fd = b.and_(a[0], ir.Constant(_I64, 0xFFFFFFFF))
        pollfd = cgutils.alloca_once(b, _I64)
        b.store(b.or_(fd, ir.Constant(_I64, events << 32)), pollfd)
        at_once = cgutils.alloca_once_value(b, ir.Constant(ir.ArrayType(_I64, 2), [0, 0]))
        _lower_syscall(b, "ppoll", b.ptrtoint(pollfd, _I64), ir.Constant(_I64, 1), b.ptrtoint(at_once, _I64))
        answer = b.lshr(b.load(pollfd), ir.Constant(_I64, 48))
        return b.icmp_signed("!=", b.and_(answer, ir.Constant(_I64, wanted)), ir.Constant(_I64, 0))

    return lower


def _polls(fd: int, events: int) -> bool:
    if fd < 0:
        return False
    poller = select.poll()
    poller.register(fd, events)
    return bool(poller.poll(0))


@primitive("boolean(int64)", _poll_now(0, select.POLLHUP))
def has_hung_up(fd: int) -> bool:
    """Whether the process at the other end of a socket is gone. A negative descriptor never hangs up."""
    return _polls(fd, 0)


@primitive("boolean(int64)", _poll_now(select.POLLIN, select.POLLIN))
def is_readable(fd: int) -> bool:
    """Whether there is something to read. From a negative descriptor there never is."""
    return _polls(fd, select.POLLIN)


def _save_registers(b: Any, a: Any) -> None:
    # setjmp-like: getcontext stores the callee-saved registers, the only ones that can hold a caller's values across this call.
    fn = cgutils.get_or_insert_function(b.module, ir.FunctionType(_I32, [_I64]), "getcontext")
    b.call(fn, [a[0]])


@primitive("void(int64)", _save_registers)
def save_registers(addr: int) -> None:
    """Store this thread's registers into a ``ucontext_t`` at ``addr``."""


def _stack_pointer(b: Any, a: Any) -> Any:
    fn = b.module.declare_intrinsic("llvm.stacksave", (), ir.FunctionType(ir.IntType(8).as_pointer(), []))
    return b.ptrtoint(b.call(fn, []), _I64)


@primitive("int64()", _stack_pointer)
def stack_pointer() -> int:
    """Where this thread's native stack ends now."""
    return 0
