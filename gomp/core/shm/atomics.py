"""Every access to memory that is not a record's field: plain words, atomic words, bit operations.

The memory order is part of the name. Read-modify-write operations return the **old** value; ``cas_*`` says whether it stored.
Reads of a word that another process writes must go through ``load_*`` here: LLVM hoists a plain read out of a loop.

``seq_cst`` exists for the words where a store must be visible before a *later load* of another word (store→load): the status and stop
words, and a mark before its span's owner. Nothing else needs it.

In plain Python each operation checks that its address is aligned and inside a mapped segment.
"""

from __future__ import annotations

import contextlib
import ctypes
import platform
import threading
from collections.abc import Iterator
from typing import Any

from llvmlite import ir

from gomp.core.jit import primitive

_I1, _I8, _I32, _I64 = ir.IntType(1), ir.IntType(8), ir.IntType(32), ir.IntType(64)
_MASK64 = (1 << 64) - 1
_X86 = platform.machine() in ("x86_64", "AMD64")

_mapped: tuple[tuple[int, int], ...] = ()  # never changed, but replaced: other threads go through it meanwhile
_mapping = threading.Lock()


def allow_range(base: int, size: int) -> None:
    """Tell the checked Python bodies that ``[base, base + size)`` is mapped, for good."""
    global _mapped
    with _mapping:
        if (base, base + size) not in _mapped:
            _mapped = (*_mapped, (base, base + size))


@contextlib.contextmanager
def allowed_range(base: int, size: int) -> Iterator[None]:
    """As :func:`allow_range`, for the block: a buffer's, that is gone afterwards. No two blocks at a time have the same range."""
    global _mapped
    allow_range(base, size)
    try:
        yield
    finally:
        with _mapping:
            _mapped = tuple(known for known in _mapped if known != (base, base + size))


def signed(value: int) -> int:
    """The int64 with the same 64 bits as ``value``."""
    value &= _MASK64
    return value - (1 << 64) if value >> 63 else value


def _cell(addr: int, size: int = 8) -> Any:
    addr = int(addr)
    if addr % size:
        raise AssertionError(f"unaligned access of {size} bytes at {addr:#x}")
    if not any(lo <= addr < hi for lo, hi in _mapped):
        raise AssertionError(f"wild address {addr:#x}")
    return (ctypes.c_int64 if size == 8 else ctypes.c_int32 if size == 4 else ctypes.c_uint8).from_address(addr)


def _pointer(b: Any, addr: Any, to: Any = _I64) -> Any:
    return b.inttoptr(addr, to.as_pointer())


def _atomic_load(order: str) -> Any:
    return lambda b, a: b.load_atomic(_pointer(b, a[0]), order, 8)


def _atomic_store(order: str) -> Any:
    def lower(b: Any, a: Any) -> None:
        b.store_atomic(a[1], _pointer(b, a[0]), order, 8)

    return lower


def _rmw(op: str, order: str) -> Any:
    return lambda b, a: b.atomic_rmw(op, _pointer(b, a[0]), a[1], order)


def _cas(order: str, failure: str) -> Any:
    return lambda b, a: b.extract_value(b.cmpxchg(_pointer(b, a[0]), a[1], a[2], order, failure), 1)


# --- plain memory -----------------------------------------------------------------------------------------------------


@primitive("int64(int64)", lambda b, a: b.load(_pointer(b, a[0])))
def load64(addr: int) -> int:
    """The word at ``addr``. Only for words that no other process writes now."""
    return _cell(addr).value


def _store64(b: Any, a: Any) -> None:
    b.store(a[1], _pointer(b, a[0]))


@primitive("void(int64, int64)", _store64)
def store64(addr: int, value: int) -> None:
    _cell(addr).value = signed(int(value))


@primitive("int64(int64)", lambda b, a: b.zext(b.load(_pointer(b, a[0], _I8)), _I64))
def load8(addr: int) -> int:
    """The byte at ``addr``, 0..255."""
    return _cell(addr, 1).value


def _store8(b: Any, a: Any) -> None:
    b.store(b.trunc(a[1], _I8), _pointer(b, a[0], _I8))


@primitive("void(int64, int64)", _store8)
def store8(addr: int, value: int) -> None:
    _cell(addr, 1).value = int(value) & 255


def _memset(b: Any, a: Any) -> None:
    fn = b.module.declare_intrinsic("llvm.memset", (_I8.as_pointer(), _I64))
    b.call(fn, [_pointer(b, a[0], _I8), ir.Constant(_I8, 0), a[1], ir.Constant(_I1, 0)])


@primitive("void(int64, int64)", _memset)
def zero_range(addr: int, size: int) -> None:
    """Set ``[addr, addr + size)`` to zero."""
    if size:
        _cell(addr, 1), _cell(addr + size - 1, 1)
        ctypes.memset(int(addr), 0, int(size))


def _memcpy(b: Any, a: Any) -> None:
    pointer = _I8.as_pointer()
    fn = b.module.declare_intrinsic("llvm.memcpy", [pointer, pointer, _I64])
    b.call(fn, [_pointer(b, a[0], _I8), _pointer(b, a[1], _I8), a[2], ir.Constant(_I1, 0)])


@primitive("void(int64, int64, int64)", _memcpy)
def copy_range(to: int, source: int, size: int) -> None:
    """Copy ``size`` bytes to a place that does not overlap with theirs."""
    if size:
        _cell(to, 1), _cell(to + size - 1, 1), _cell(source, 1), _cell(source + size - 1, 1)
        ctypes.memmove(int(to), int(source), int(size))


# --- atomics ----------------------------------------------------------------------------------------------------------


@primitive("int64(int64)", _atomic_load("monotonic"))
def load_relaxed(addr: int) -> int:
    return _cell(addr).value


@primitive("int64(int64)", _atomic_load("acquire"))
def load_acquire(addr: int) -> int:
    return _cell(addr).value


@primitive("int64(int64)", _atomic_load("seq_cst"))
def load_seq_cst(addr: int) -> int:
    return _cell(addr).value


@primitive("void(int64, int64)", _atomic_store("monotonic"))
def store_relaxed(addr: int, value: int) -> None:
    _cell(addr).value = signed(int(value))


@primitive("void(int64, int64)", _atomic_store("release"))
def store_release(addr: int, value: int) -> None:
    _cell(addr).value = signed(int(value))


@primitive("void(int64, int64)", _atomic_store("seq_cst"))
def store_seq_cst(addr: int, value: int) -> None:
    _cell(addr).value = signed(int(value))


@primitive("int64(int64, int64)", _rmw("add", "monotonic"))
def add_relaxed(addr: int, delta: int) -> int:
    """Add; returns the old value."""
    cell = _cell(addr)
    old = cell.value
    cell.value = signed(old + int(delta))
    return old


@primitive("int64(int64, int64)", _rmw("add", "acq_rel"))
def add_acq_rel(addr: int, delta: int) -> int:
    """Add; returns the old value."""
    return add_relaxed(addr, delta)


@primitive("int64(int64, int64)", _rmw("or", "acq_rel"))
def or_acq_rel(addr: int, bits: int) -> int:
    """Set bits; returns the old value."""
    cell = _cell(addr)
    old = cell.value
    cell.value = signed(old | int(bits))
    return old


@primitive("int64(int64, int64)", _rmw("or", "monotonic"))
def or_relaxed(addr: int, bits: int) -> int:
    """Set bits; returns the old value."""
    return or_acq_rel(addr, bits)


@primitive("int64(int64, int64)", _rmw("or", "seq_cst"))
def or_seq_cst(addr: int, bits: int) -> int:
    """Set bits, ordered before every later load; returns the old value."""
    return or_acq_rel(addr, bits)


@primitive("int64(int64, int64)", _rmw("and", "acq_rel"))
def and_acq_rel(addr: int, bits: int) -> int:
    """Keep only ``bits``; returns the old value."""
    cell = _cell(addr)
    old = cell.value
    cell.value = signed(old & int(bits))
    return old


@primitive("int64(int64, int64)", _rmw("and", "seq_cst"))
def and_seq_cst(addr: int, bits: int) -> int:
    """Keep only ``bits``, ordered before every later load; returns the old value."""
    return and_acq_rel(addr, bits)


@primitive("int64(int64, int64)", _rmw("xchg", "acq_rel"))
def xchg_acq_rel(addr: int, value: int) -> int:
    """Store; returns the old value."""
    cell = _cell(addr)
    old = cell.value
    cell.value = signed(int(value))
    return old


@primitive("boolean(int64, int64, int64)", _cas("acq_rel", "acquire"))
def cas_acq_rel(addr: int, old: int, new: int) -> bool:
    """Store ``new`` if the word is ``old``; says whether it did."""
    cell = _cell(addr)
    if cell.value != signed(int(old)):
        return False
    cell.value = signed(int(new))
    return True


@primitive("boolean(int64, int64, int64)", _cas("seq_cst", "seq_cst"))
def cas_seq_cst(addr: int, old: int, new: int) -> bool:
    """As :func:`cas_acq_rel`, and ordered before every later load: for the status word only."""
    return cas_acq_rel(addr, old, new)


def _fence_release(b: Any, a: Any) -> None:
    b.fence("release")


@primitive("void()", _fence_release)
def fence_release() -> None:
    """Earlier stores become visible before any later store: what ``new`` does before it returns an address."""


def _fence_acquire(b: Any, a: Any) -> None:
    b.fence("acquire")


@primitive("void()", _fence_acquire)
def fence_acquire() -> None:
    """Earlier loads are done before any later load: what a reader does who looks afterwards whether its copy is whole."""


def _pause(b: Any, a: Any) -> None:
    name, arguments = ("llvm.x86.sse2.pause", []) if _X86 else ("llvm.aarch64.hint", [ir.Constant(_I32, 1)])
    hint = b.module.globals.get(name) or ir.Function(
        b.module, ir.FunctionType(ir.VoidType(), [x.type for x in arguments]), name
    )
    b.call(hint, arguments)


@primitive("void()", _pause)
def cpu_pause() -> None:
    """Tell the core that this is a spin loop."""


def _prefetch(b: Any, a: Any) -> None:
    type_ = ir.FunctionType(ir.VoidType(), [_I8.as_pointer(), _I32, _I32, _I32])
    fn = b.module.declare_intrinsic("llvm.prefetch", (_I8.as_pointer(),), type_)
    b.call(fn, [_pointer(b, a[0], _I8), *(ir.Constant(_I32, n) for n in (1, 3, 1))])  # to write, to keep, data


@primitive("void(int64)", _prefetch)
def prefetch(addr: int) -> None:
    """Have the line at ``addr`` fetched; it need not be mapped."""


# --- bits -------------------------------------------------------------------------------------------------------------


@primitive("int64(int64)", lambda b, a: b.cttz(a[0], ir.Constant(_I1, 0)))
def ctz(word: int) -> int:
    """Number of zero bits below the lowest one; 64 for 0."""
    word = int(word) & _MASK64
    return (word & -word).bit_length() - 1 if word else 64


@primitive("int64(int64)", lambda b, a: b.ctlz(a[0], ir.Constant(_I1, 0)))
def clz(word: int) -> int:
    """Number of zero bits above the highest one; 64 for 0."""
    return 64 - (int(word) & _MASK64).bit_length()


@primitive("int64(int64)", lambda b, a: b.ctpop(a[0]))
def popcount(word: int) -> int:
    return (int(word) & _MASK64).bit_count()


@primitive("int64(int64, int64)", lambda b, a: b.lshr(a[0], a[1]))
def lsr(word: int, n: int) -> int:
    """Logical shift right, ``0 <= n < 64``: on int64, ``>>`` copies the sign."""
    return signed((int(word) & _MASK64) >> int(n))


@primitive("int64(int64, int64)", lambda b, a: b.shl(a[0], a[1]))
def lsl(word: int, n: int) -> int:
    """Shift left, ``0 <= n < 64``, dropping what leaves the word."""
    return signed(int(word) << int(n))


@primitive("int64(int64)", lambda b, a: b.and_(a[0], b.sub(a[0], ir.Constant(_I64, 1))))
def clear_lowest(word: int) -> int:
    """``word`` without its lowest one bit."""
    word = int(word) & _MASK64
    return signed(word & (word - 1)) if word else 0


@primitive("int64(int64, int64)", lambda b, a: b.mul(a[0], a[1]))
def mul64(a: int, b: int) -> int:
    """The low 64 bits of the product."""
    return signed(int(a) * int(b))
