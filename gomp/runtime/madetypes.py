"""Making channels, locks and groups in compiled code: ``gomp.Chan[T](n)``, ``gomp.Mutex()`` and ``gomp.WaitGroup()``, as in Python.

Their classes are called, as no other class of objects is: so the class itself has a Numba type that is a function's.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from numba.core import types
from numba.core.imputils import lower_builtin, lower_constant
from numba.core.typing.templates import Signature
from numba.extending import models, register_model, typeof_impl

from gomp.core.heap.waitq import BUFFER, HOLDS_LINKS, SIZE
from gomp.core.mutator.barrier import write_pointer
from gomp.core.mutator.chan import CHAN_CLASS, CHAN_MASK, CHAN_SLOT, SCAN_BYTES
from gomp.core.mutator.malloc import new_noscan, new_small
from gomp.core.mutator.sync import SYNC_BYTES, SYNC_CLASS, SYNC_SLOT
from gomp.core.shm.atomics import store64
from gomp.errors import OutOfMemory
from gomp.runtime.arrays import array
from gomp.runtime.chan import MOST, ChanMeta
from gomp.runtime.kinds import INT
from gomp.runtime.places import caller_here
from gomp.runtime.references import array_class, is_declared
from gomp.runtime.refops import HEAP_FULL, address
from gomp.runtime.reftypes import GenericName, StructClass, numba_type, rejection, shown
from gomp.runtime.sync import SyncMeta

_CHANNEL, _SYNC = "gomp.Chan[T]", "gomp.sync"


class MadeClass(StructClass, types.Callable):
    """A class whose objects are made by calling it, itself."""

    def get_call_type(self, context: Any, args: tuple[types.Type, ...], kws: dict[str, types.Type]) -> Signature:
        if not isinstance(self.cls, ChanMeta):
            if args or kws:
                raise rejection(f"write gomp.{self.cls.__name__}(), with nothing between the brackets")
            return Signature(numba_type(self.cls), (), recvr=None)
        if kws or len(args) > 1 or not all(isinstance(n, types.Integer) for n in args):
            given = ", ".join(map(shown, (*args, *kws.values())))
            raise rejection(
                f"write gomp.{self.cls.__name__}(n), with n how many wait to be received at most, an int, not {given}"
            )
        return Signature(numba_type(self.cls), (types.int64,) * len(args), recvr=None)

    def get_call_signatures(self) -> tuple[tuple[()], bool]:
        return (), False

    def get_impl_key(self, sig: Signature) -> str:
        return _CHANNEL if isinstance(self.cls, ChanMeta) else _SYNC


class NoElement(GenericName, types.Callable):
    """``gomp.Chan`` itself, which says nothing of what is sent."""

    def get_call_type(self, context: Any, args: tuple[types.Type, ...], kws: dict[str, types.Type]) -> Signature:
        raise rejection("write gomp.Chan[T](n), with T what is sent, and n how many wait to be received at most")

    def get_call_signatures(self) -> tuple[tuple[()], bool]:
        return (), False

    def get_impl_key(self, sig: Signature) -> str:
        return _CHANNEL


register_model(MadeClass)(models.OpaqueModel)
register_model(NoElement)(models.OpaqueModel)


@typeof_impl.register(ChanMeta)
@typeof_impl.register(SyncMeta)
def _typeof_class(value: Any, context: object) -> types.Type:
    return MadeClass(value) if is_declared(value) else NoElement(value)


@lower_constant(MadeClass)
@lower_constant(NoElement)
def _no_value(context: Any, builder: Any, type_: types.Type, value: object) -> Any:
    return context.get_dummy_value()


# --- channels ---------------------------------------------------------------------------------------------------------


@lower_builtin(_CHANNEL)
@lower_builtin(_CHANNEL, types.int64)
def _lower_channel(context: Any, builder: Any, sig: Signature, args: Any) -> Any:
    n = args[0] if args else context.get_constant(types.int64, 0)
    words = n, caller_here(context, builder)
    return context.compile_internal(
        builder, _channel_maker(sig.return_type.cls), types.int64(types.int64, types.int64), words
    )


@functools.cache
def _channel_maker(cls: Any) -> Callable[[int, int], int]:
    holds_links, elem = int(cls.sends_links), cls.elem if cls.sends_links else INT
    array_class(elem)
    wrong = f"{cls.__name__}(n): n is how many values it holds, 0 to {MOST - 1}"

    def make(n: int, caller: int) -> int:
        if not 0 <= n < MOST:
            raise ValueError(wrong)
        buffer = address(array(elem, n)) if n != 0 else 0
        ch = new_small(CHAN_CLASS, CHAN_SLOT, CHAN_SLOT >> 3, CHAN_MASK, SCAN_BYTES, caller)
        if ch == 0:
            raise OutOfMemory(HEAP_FULL)
        if n != 0:
            write_pointer(ch + BUFFER, buffer)
            store64(ch + SIZE, n)
        store64(ch + HOLDS_LINKS, holds_links)
        return ch

    return make


# --- locks and groups -------------------------------------------------------------------------------------------------


@lower_builtin(_SYNC)
def _lower_sync(context: Any, builder: Any, sig: Signature, args: Any) -> Any:
    return context.compile_internal(builder, _make_sync, types.int64(types.int64), (caller_here(context, builder),))


def _make_sync(caller: int) -> int:
    addr = new_noscan(SYNC_BYTES, SYNC_CLASS, SYNC_SLOT, caller)
    if addr == 0:
        raise OutOfMemory(HEAP_FULL)
    return addr
