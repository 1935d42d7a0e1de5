"""What compiled code does with references: read and write fields, make structs, compare identities.

Everything that is stored goes through :func:`store_part`: a number is checked against the range of what holds it, a reference is stored with the
write barrier, and a part by value cannot be replaced.
"""

from __future__ import annotations

import functools
import inspect
import operator
from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba.core import types
from numba.core.imputils import lower_getattr, lower_getattr_generic, lower_setattr_generic
from numba.core.typing.templates import AbstractTemplate, AttributeTemplate, Signature, infer_getattr, infer_global
from numba.extending import intrinsic, lower_builtin

from gomp.core.heap.sizeclass import MAX_SMALL_REQUEST, TINY_SIZE
from gomp.core.jit import inline
from gomp.core.mutator.barrier import read_pointer, write_pointer
from gomp.core.mutator.malloc import new_bytes, new_noscan, new_small, new_tiny, new_typed
from gomp.core.mutator.types import find_type
from gomp.core.shm import layout as memory
from gomp.core.shm.records import runtime
from gomp.errors import NilDereference, OutOfMemory
from gomp.runtime import pointers, structs
from gomp.runtime.kinds import FLOAT32_MAX, Scalar
from gomp.runtime.parts import Embedded, Part
from gomp.runtime.places import caller_here
from gomp.runtime.references import how_made, is_struct
from gomp.runtime.reftypes import (
    REFERENCES,
    NullType,
    RefType,
    StackAddress,
    StructClass,
    StructRef,
    TextRef,
    can_store,
    field_type,
    in_compiled_code,
    numba_type,
    part_type,
    refusal,
    rejection,
    shown,
)
from gomp.runtime.structs import StructInfo

_I8, _I64 = ir.IntType(8), ir.IntType(64)
HEAP_FULL = "the heap is full, even after a collection"
_TOO_LARGE = (
    "so large an object takes more bytes than the whole heap has: make a smaller one, or choose a larger max_heap"
)


@inline
def raise_out_of_memory(nbytes: int) -> None:
    """Say why there is no memory for an object of a size that the program has chosen."""
    if nbytes > runtime().max_pages * memory.PAGE_SIZE:
        raise OutOfMemory(_TOO_LARGE)
    raise OutOfMemory(HEAP_FULL)


def call_inline(context: Any, builder: Any, function: Any, restype: types.Type, args: tuple[Any, ...]) -> Any:
    """Call an ``@inline`` function on words."""
    function_type = context.typing_context.resolve_value_type(function)
    signature = function_type.get_call_type(context.typing_context, (types.int64,) * len(args), {})
    emit = context.get_function(function_type, signature)
    context.add_linking_libs(getattr(emit, "libs", ()))
    return emit(builder, args)


def raise_if(context: Any, builder: Any, condition: Any, error: type[Exception], message: str) -> None:
    with builder.if_then(condition, likely=False):
        context.call_conv.return_user_exc(builder, error, (message,))


def _is_null(builder: Any, value: Any) -> Any:
    return builder.icmp_signed("==", value, ir.Constant(_I64, 0))


def _at(builder: Any, addr: Any, offset: int, to: Any) -> Any:
    return builder.inttoptr(builder.add(addr, ir.Constant(_I64, offset)), to.as_pointer())


def load_part(context: Any, builder: Any, part: Part, addr: Any, offset: int = 0) -> Any:
    """The number or the reference at ``addr + offset``; of a part by value, that address."""
    if not isinstance(part, Scalar):
        at = builder.add(addr, ir.Constant(_I64, offset))
        return at if isinstance(part, Embedded) else call_inline(context, builder, read_pointer, types.int64, (at,))
    if part.code == "?":
        return builder.icmp_unsigned("!=", builder.load(_at(builder, addr, offset, _I8)), ir.Constant(_I8, 0))
    return builder.load(_at(builder, addr, offset, context.get_value_type(part_type(part))))


def store_part(context: Any, builder: Any, part: Part, addr: Any, offset: int, given: types.Type, value: Any) -> None:
    """Store a value of the type ``given``, whose range was checked."""
    if not isinstance(part, Scalar):
        slot = builder.add(addr, ir.Constant(_I64, offset))
        call_inline(context, builder, write_pointer, types.none, (slot, value))
        return
    number = context.cast(builder, value, given, part_type(part))
    if part.code == "?":
        builder.store(builder.zext(number, _I8), _at(builder, addr, offset, _I8))
    else:
        builder.store(number, _at(builder, addr, offset, number.type))


def check_part(part: Part, given: types.Type, where: str) -> None:
    """When a store is compiled. CompileError if values of the type ``given`` are none that the part takes."""
    if isinstance(given, StackAddress):
        raise refusal(where, given)
    if isinstance(part, Embedded):
        raise rejection(f"{where} is a {part.cls.__name__} by value: it cannot be replaced, set what is in it")
    wanted = part_type(part)
    if not can_store(wanted, given):
        wants = part.wants if isinstance(part, Scalar) else shown(wanted)
        fix = part.how_to_convert if isinstance(part, Scalar) else f"make one with {how_made(wanted.cls)}"
        raise rejection(f"{where} holds {wants}, not {shown(given)}: {fix}")


def check_range(context: Any, builder: Any, part: Part, given: types.Type, value: Any, where: str) -> None:
    """When it runs: OverflowError if the value does not fit."""
    if not isinstance(part, Scalar) or part.code in "?d":
        return
    given = types.unliteral(given)
    if part.is_integer:
        wrong = _is_outside(builder, part, given, value)
        text = f"{where} is {part.wants}, {part.low} to {part.high}; the value does not fit: test it before, or declare a wider one"
    else:
        wrong = None if given == types.float32 else _is_beyond_float32(context, builder, given, value)
        text = f"{where} is {part.wants}, up to {FLOAT32_MAX:.6g}; the value does not fit: use float"
    if wrong is not None:
        raise_if(context, builder, wrong, OverflowError, text)


def _is_outside(builder: Any, part: Scalar, given: types.Type, value: Any) -> Any:
    if not isinstance(given, types.Integer) or (part.low <= given.minval and given.maxval <= part.high):
        return None
    word = builder.sext(value, _I64) if given.signed else builder.zext(value, _I64)
    if not given.signed:
        return builder.icmp_unsigned(">", word, ir.Constant(_I64, part.high))
    low = builder.icmp_signed("<", word, ir.Constant(_I64, part.low))
    if part.high >= given.maxval:
        return low
    return builder.or_(low, builder.icmp_signed(">", word, ir.Constant(_I64, part.high)))


def _is_beyond_float32(context: Any, builder: Any, given: types.Type, value: Any) -> Any:
    double = ir.DoubleType()
    number = context.cast(builder, value, given, types.float64)
    size = builder.call(builder.module.declare_intrinsic("llvm.fabs", (double,)), [number])
    too_large = builder.fcmp_ordered(">", size, ir.Constant(double, FLOAT32_MAX))
    return builder.and_(too_large, builder.fcmp_ordered("<", size, ir.Constant(double, float("inf"))))


@intrinsic  # type: ignore[untyped-decorator]
def address(context: Any, ref: Any) -> Any:
    """The address that a reference is."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return args[0]

    return types.int64(ref), codegen


# --- fields -----------------------------------------------------------------------------------------------------------


@infer_getattr
class _StructAttribute(AttributeTemplate):  # type: ignore[misc]
    key = StructRef

    def generic_resolve(self, type_: StructRef, attr: str) -> types.Type | None:
        layout = structs.info(type_.cls)
        if attr == "address" and attr not in layout.fields:
            return None
        if attr not in layout.fields:
            what = "is a method: compiled code can call functions only" if hasattr(type_.cls, attr) else "is no field"
            raise rejection(f"{attr} {what}; {type_.cls.__name__} has {', '.join(layout.fields)}")
        return field_type(layout.fields[attr])


@infer_getattr
class _NullAttribute(AttributeTemplate):  # type: ignore[misc]
    key = NullType

    def generic_resolve(self, type_: NullType, attr: str) -> types.Type:
        raise rejection(
            f"{attr} of a value that is always None here; if it is an argument, annotate it with its struct"
        )


@lower_getattr_generic(StructRef)
def _load_field(context: Any, builder: Any, type_: StructRef, value: Any, attr: str) -> Any:
    field = structs.info(type_.cls).fields[attr]
    raise_if(
        context, builder, _is_null(builder, value), NilDereference, f"{attr} of a {type_.cls.__name__} that is None"
    )
    return load_part(context, builder, field.part, value, field.offset)


@infer_getattr
class _Address(AttributeTemplate):  # type: ignore[misc]
    key = RefType

    def resolve_address(self, type_: RefType) -> types.Type:
        return types.int64


@lower_getattr(RefType, "address")
def _load_address(context: Any, builder: Any, type_: RefType, value: Any) -> Any:
    if isinstance(type_, StructRef) and "address" in structs.info(type_.cls).fields:
        return _load_field(context, builder, type_, value, "address")
    raise_if(context, builder, _is_null(builder, value), NilDereference, "the address of a reference that is None")
    return value


@in_compiled_code(pointers.address)
def _address(obj: Any) -> Any:
    if not isinstance(obj, RefType):
        raise rejection(f"gomp.address: {shown(obj)} is no reference")

    def address_of(obj: Any) -> int:
        addr: int = address(obj)
        if addr == 0:
            raise NilDereference("the address of a reference that is None")
        return addr

    return address_of


@lower_setattr_generic(StructRef)
def _store_field(context: Any, builder: Any, sig: Signature, args: Any, attr: str) -> None:
    type_ = sig.args[0]
    field = structs.info(type_.cls).fields[attr]
    raise_if(
        context, builder, _is_null(builder, args[0]), NilDereference, f"{attr} of a {type_.cls.__name__} that is None"
    )
    store_part(context, builder, field.part, args[0], field.offset, sig.args[1], args[1])


# --- making objects ---------------------------------------------------------------------------------------------------


@infer_global(structs.new)
class _New(AbstractTemplate):  # type: ignore[misc]
    def generic(self, args: tuple[types.Type, ...], kws: dict[str, types.Type]) -> Signature:
        if not args or not isinstance(args[0], StructClass) or not is_struct(args[0].cls):
            raise rejection("gomp.new makes structs: its first argument is the struct's name")
        layout = structs.info(args[0].cls)
        try:
            given = structs.bound(layout, args[1:], kws)
        except TypeError as error:
            raise rejection(str(error)) from None
        for name, type_ in given.items():
            check_part(layout.fields[name].part, type_, layout.fields[name].where())
        parameters = [inspect.Parameter(n, inspect.Parameter.POSITIONAL_OR_KEYWORD) for n in ("cls", *given)]
        types_ = (args[0], *map(types.unliteral, given.values()))
        return Signature(numba_type(layout.cls), types_, recvr=None, pysig=inspect.Signature(parameters))


@lower_builtin(structs.new, types.VarArg(types.Any))
def _lower_new(context: Any, builder: Any, sig: Signature, args: Any) -> Any:
    layout = structs.info(sig.args[0].cls)
    addr = context.compile_internal(
        builder, _allocator(layout), types.int64(types.int64), (caller_here(context, builder),)
    )
    names = list(sig.pysig.parameters)[1:]
    for name, given, value in zip(names, sig.args[1:], args[1:], strict=True):
        field = layout.fields[name]
        check_range(context, builder, field.part, given, value, field.where())
        store_part(context, builder, field.part, addr, field.offset, given, value)
    return addr


@functools.cache
def _allocator(layout: StructInfo) -> Callable[[int], int]:
    """The function that makes such an object for a caller, with everything else that malloc wants to know as constants."""
    how = layout.allocation
    size, span_class, elem_size, nwords = how.size, how.span_class, how.elem_size, how.elem_size >> 3
    mask, scan_bytes, key = how.mask, how.scan_bytes, layout.key

    def new_with_references(caller: int) -> int:
        addr = new_small(span_class, elem_size, nwords, mask, scan_bytes, caller)
        if addr == 0:
            raise OutOfMemory(HEAP_FULL)
        return addr

    def new_by_type(caller: int) -> int:
        addr = new_typed(size, find_type(key), caller)
        if addr == 0:
            raise OutOfMemory(HEAP_FULL)
        return addr

    def new_plain(caller: int) -> int:
        addr = new_noscan(size, span_class, elem_size, caller)
        if addr == 0:
            raise OutOfMemory(HEAP_FULL)
        return addr

    def new_small_plain(caller: int) -> int:
        addr = new_tiny(size, caller)
        if addr == 0:
            raise OutOfMemory(HEAP_FULL)
        return addr

    def new_large_plain(caller: int) -> int:
        addr = new_bytes(size, caller)
        if addr == 0:
            raise OutOfMemory(HEAP_FULL)
        return addr

    if how.by_type:
        return new_by_type
    if how.mask:
        return new_with_references
    if size < TINY_SIZE:
        return new_small_plain
    return new_plain if how.size <= MAX_SMALL_REQUEST else new_large_plain


# --- identity ---------------------------------------------------------------------------------------------------------


def same(context: Any, builder: Any, sig: Signature, args: Any) -> Any:
    return builder.icmp_signed("==", args[0], args[1])


def different(context: Any, builder: Any, sig: Signature, args: Any) -> Any:
    return builder.icmp_signed("!=", args[0], args[1])


class _Comparison(AbstractTemplate):  # type: ignore[misc]
    def generic(self, args: tuple[types.Type, ...], kws: dict[str, types.Type]) -> Signature | None:
        if len(args) != 2 or not all(isinstance(a, (RefType, NullType, StackAddress)) for a in args):
            return None
        if self.key in (operator.eq, operator.ne) and all(isinstance(a, TextRef) for a in args):
            return None  # texts are compared by what they hold (texttypes)
        return Signature(types.boolean, args, recvr=None)


@lower_builtin("print_item", RefType)
@lower_builtin("print_item", NullType)
def _print(context: Any, builder: Any, sig: Signature, args: Any) -> Any:
    raise rejection(
        f"print({shown(sig.args[0])}): compiled code prints numbers and texts of Python's: give it fields, or return the object"
    )


_COMPARED = (*REFERENCES, NullType)
for _operation, _lower in (
    (operator.eq, same),
    (operator.ne, different),
    (operator.is_, same),
    (operator.is_not, different),
):
    infer_global(_operation)(type(f"_{_operation.__name__}", (_Comparison,), {"key": _operation}))
    for _left in _COMPARED:
        for _right in _COMPARED:
            lower_builtin(_operation, _left, _right)(_lower)


@in_compiled_code(isinstance)
def _isinstance(ref: Any, cls: Any) -> Any:
    """Only None is not of the class that the compiler knows already."""
    if not isinstance(ref, (RefType, NullType)):
        return None
    if not isinstance(cls, StructClass):
        raise rejection(f"isinstance of a {shown(ref)} asks for one class of gomp's in compiled code, not {shown(cls)}")
    if isinstance(ref, RefType) and issubclass(ref.cls, cls.cls):
        return lambda ref, cls: address(ref) != 0
    return lambda ref, cls: False


@in_compiled_code(bool)
def _bool(ref: Any) -> Any:
    if isinstance(ref, (StructRef, NullType)):
        return lambda ref: address(ref) != 0
    return None
