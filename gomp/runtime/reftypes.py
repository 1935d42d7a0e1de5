"""References in compiled code: a Numba type whose value is an address, and what can be done with one.

========================  =============================================================================================
``node.value``            a load at a constant offset; ``NilDereference`` if ``node`` is None
``node.left = x``         a store with the write barrier; ``x`` may be None
``gomp.new(Node, ...)``   malloc's fast path with this type's constants, inlined
``gomp.array(T, n)``      the same by size, which is only known when it runs
``a[i]``, ``len(a)``      checked: a reference past the end would be followed by the collector
``x is y``, ``x == y``    whether it is the same object; ``x is None``
``ROOT.get()``            a load from the root table
========================  =============================================================================================

None is a type of its own here (:class:`NullType`), which unifies with every reference type: so a reference is one word, never Numba's
Optional. The compiler step of ``@gomp.compiled`` puts it in place of Python's None (``polling``).

Addresses of structs may be held only as addresses of their fields: those lie inside the object, and the scan of the native stack takes them
for it. An address computed from an array may lie outside, so arrays stay on the stack as long as they are held (``polling.Lower``).
"""

from __future__ import annotations

import functools
import inspect
import operator
from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba.core import errors, types
from numba.core.imputils import lower_constant, lower_getattr_generic, lower_setattr_generic
from numba.core.typeconv import Conversion
from numba.core.typing.templates import AbstractTemplate, AttributeTemplate, Signature, infer_getattr, infer_global
from numba.extending import (
    intrinsic,
    lower_builtin,
    lower_cast,
    models,
    overload,
    overload_method,
    register_model,
    typeof_impl,
)

from gomp.core.heap.sizeclass import TINY_SIZE
from gomp.core.jit import inline
from gomp.core.mutator.barrier import read_pointer, write_pointer
from gomp.core.mutator.boundary import (
    ARRAY_HEADER,
    OK,
    bind_global,
    global_addr,
    global_type_of,
    set_global,
)
from gomp.core.mutator.malloc import PROGRAM, new_bytes, new_noscan, new_small, new_tiny, new_typed
from gomp.core.mutator.types import find_type
from gomp.core.shm.atomics import load64, store64
from gomp.errors import NilDereference, OutOfMemory
from gomp.runtime import structs
from gomp.runtime.root_table import UNBOUND, Global
from gomp.runtime.structs import (
    BOOL,
    FLOAT,
    INT,
    MAX_ARRAY,
    REF,
    Array,
    Field,
    ReferenceMeta,
    StructInfo,
    holds_references,
    is_small,
    key_of,
)

_I8, _I64 = ir.IntType(8), ir.IntType(64)
MARK = "gomp: "  # begins the messages below, so that they are found inside Numba's


def in_compiled_code(*what: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Say what a function, or a method of a type, is in compiled code: inlined. As Numba's ``overload``, which takes no annotated functions."""
    register = overload if len(what) == 1 else overload_method

    def declare(choose: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(choose)
        def choose_plain(*args: Any, **kwargs: Any) -> Any:
            chosen = choose(*args, **kwargs)
            if chosen is not None:
                chosen.__annotations__ = {}
            return chosen

        choose.__annotations__ = choose_plain.__annotations__ = {}
        register(*what, jit_options={"forceinline": True})(choose_plain)
        return choose

    return declare


def rejection(message: str) -> errors.TypingError:
    return errors.TypingError(MARK + message)


# --- types ------------------------------------------------------------------------------------------------------------


class RefType(types.Type):
    """A reference to an object of the struct or array class ``cls``, or None."""

    def __init__(self, cls: ReferenceMeta) -> None:
        self.cls: Any = cls
        super().__init__(name=f"{cls.__name__}#{key_of(cls):x}")

    @property
    def key(self) -> tuple[int, int]:
        return key_of(self.cls), id(self.cls)

    def can_convert_from(self, context: Any, other: types.Type) -> Conversion | None:
        return Conversion.safe if isinstance(other, NullType) else None


class StructRef(RefType):
    """A reference to a struct."""


class ArrayRef(RefType):
    """A reference to an array."""

    @property
    def elem(self) -> types.Type:
        return numba_type(self.cls.elem)


class NullType(types.Type):
    """None, where a reference may be meant."""

    def __init__(self) -> None:
        super().__init__(name="None")

    def unify(self, context: Any, other: types.Type) -> types.Type | None:
        return other if isinstance(other, (RefType, types.NoneType)) else None

    def can_convert_to(self, context: Any, other: types.Type) -> Conversion | None:
        return Conversion.safe if isinstance(other, types.NoneType) else None


class Null:
    """The Python object that the compiler step puts in place of None."""


class StructClass(types.Type):
    """A struct or array class itself, as an argument of ``gomp.new`` and ``gomp.array``."""

    def __init__(self, cls: ReferenceMeta) -> None:
        self.cls: Any = cls
        super().__init__(name=f"struct {cls.__name__}#{key_of(cls):x}")

    @property
    def key(self) -> tuple[str, int, int]:
        return "class", key_of(self.cls), id(self.cls)


class GlobalType(types.Type):
    """A ``gomp.Global``."""

    def __init__(self, root: Global[Any]) -> None:
        self.root = root
        super().__init__(name=f"Global {root.name}: {root.cls.__name__}#{key_of(root.cls):x}")


NULL_TYPE, NULL = NullType(), Null()
# The Numba type of a class is that of its base here; every other one is a struct.
kinds_of_reference: list[tuple[Any, Any]] = [(Array, ArrayRef)]


def numba_type(kind: object) -> types.Type:
    """The Numba type of a Python one: int, float, bool, a struct or an array class."""
    if kind is int:
        return types.int64
    if kind is float:
        return types.float64
    if kind is bool:
        return types.boolean
    if isinstance(kind, ReferenceMeta):
        return next((made for base, made in kinds_of_reference if issubclass(kind, base)), StructRef)(kind)
    raise TypeError(f"no value of type {kind} exists in compiled code")


def field_type(field: Field) -> types.Type:
    scalars = {INT: types.int64, FLOAT: types.float64, BOOL: types.boolean}
    return numba_type(field.target) if field.kind == REF else scalars[field.kind]


def can_store(wanted: types.Type, given: types.Type) -> bool:
    """Whether a field or element takes a value of the type ``given``: Numba's casts would let a float into an int."""
    given = types.unliteral(given)
    if isinstance(wanted, RefType):
        return given == wanted or isinstance(given, NullType)
    if wanted == types.boolean:
        return isinstance(given, types.Boolean)
    numbers = (types.Integer, types.Boolean) if wanted == types.int64 else (types.Integer, types.Float)
    return isinstance(given, numbers)


def shown(type_: types.Type) -> str:
    """A type's name in messages."""
    return str(types.unliteral(type_)).partition("#")[0]


@register_model(StructRef)
@register_model(ArrayRef)
@register_model(NullType)
class _AddressModel(models.PrimitiveModel):  # type: ignore[misc]
    def __init__(self, manager: Any, fe_type: types.Type) -> None:
        super().__init__(manager, fe_type, _I64)


register_model(StructClass)(models.OpaqueModel)
register_model(GlobalType)(models.OpaqueModel)


@typeof_impl.register(ReferenceMeta)
def _typeof_class(value: Any, context: object) -> types.Type:
    return StructClass(value)


@typeof_impl.register(Null)
def _typeof_null(value: Null, context: object) -> types.Type:
    return NULL_TYPE


@typeof_impl.register(Global)
def _typeof_global(value: Global[Any], context: object) -> types.Type:
    return GlobalType(value)


@lower_constant(StructClass)
@lower_constant(GlobalType)
def _no_value(context: Any, builder: Any, type_: types.Type, value: object) -> Any:
    return context.get_dummy_value()


@lower_constant(NullType)
@lower_constant(StructRef)  # the default of an argument: None is the only one
@lower_constant(ArrayRef)
def _null_constant(context: Any, builder: Any, type_: types.Type, value: object) -> Any:
    return ir.Constant(_I64, 0)


@lower_cast(NullType, StructRef)
@lower_cast(NullType, ArrayRef)
def _null_to_ref(context: Any, builder: Any, from_: types.Type, to: types.Type, value: Any) -> Any:
    return value


@lower_cast(NullType, types.NoneType)
def _null_to_none(context: Any, builder: Any, from_: types.Type, to: types.Type, value: Any) -> Any:
    return context.get_dummy_value()


# --- emitting code ----------------------------------------------------------------------------------------------------


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


def _load(context: Any, builder: Any, type_: types.Type, addr: Any, offset: int) -> Any:
    if isinstance(type_, RefType):
        return call_inline(context, builder, read_pointer, types.int64, (builder.add(addr, ir.Constant(_I64, offset)),))
    if type_ == types.boolean:
        return builder.icmp_unsigned("!=", builder.load(_at(builder, addr, offset, _I8)), ir.Constant(_I8, 0))
    return builder.load(_at(builder, addr, offset, context.get_value_type(type_)))


def _store(context: Any, builder: Any, type_: types.Type, addr: Any, offset: int, value: Any) -> None:
    if isinstance(type_, RefType):
        slot = builder.add(addr, ir.Constant(_I64, offset))
        call_inline(context, builder, write_pointer, types.none, (slot, value))
    elif type_ == types.boolean:
        builder.store(builder.zext(value, _I8), _at(builder, addr, offset, _I8))
    else:
        builder.store(value, _at(builder, addr, offset, context.get_value_type(type_)))


# --- fields -----------------------------------------------------------------------------------------------------------


@infer_getattr
class _StructAttribute(AttributeTemplate):  # type: ignore[misc]
    key = StructRef

    def generic_resolve(self, type_: StructRef, attr: str) -> types.Type:
        layout = structs.info(type_.cls)
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
    return _load(context, builder, field_type(field), value, field.offset)


@lower_setattr_generic(StructRef)
def _store_field(context: Any, builder: Any, sig: Signature, args: Any, attr: str) -> None:
    type_ = sig.args[0]
    field = structs.info(type_.cls).fields[attr]
    raise_if(
        context, builder, _is_null(builder, args[0]), NilDereference, f"{attr} of a {type_.cls.__name__} that is None"
    )
    _store(context, builder, field_type(field), args[0], field.offset, args[1])


# --- making objects ---------------------------------------------------------------------------------------------------


@infer_global(structs.new)
class _New(AbstractTemplate):  # type: ignore[misc]
    def generic(self, args: tuple[types.Type, ...], kws: dict[str, types.Type]) -> Signature:
        if not args or not isinstance(args[0], StructClass) or issubclass(args[0].cls, Array):
            raise rejection("gomp.new makes structs: its first argument is the struct's name")
        layout = structs.info(args[0].cls)
        try:
            given = structs._bind(layout, args[1:], kws)  # type: ignore[arg-type]
        except TypeError as error:
            raise rejection(str(error)) from None
        wanted = [_wanted(field, type_) for field, type_ in given]  # type: ignore[arg-type]
        names = ["cls", *(field.name for field, _ in given)]
        parameters = [inspect.Parameter(n, inspect.Parameter.POSITIONAL_OR_KEYWORD) for n in names]
        return Signature(numba_type(layout.cls), (args[0], *wanted), recvr=None, pysig=inspect.Signature(parameters))


def _wanted(field: Field, given: types.Type) -> types.Type:
    wanted = field_type(field)
    if not can_store(wanted, given):
        raise rejection(f"field {field.name} of {field.owner.__name__} holds {shown(wanted)}, not {shown(given)}")
    return wanted


@lower_builtin(structs.new, types.VarArg(types.Any))
def _lower_new(context: Any, builder: Any, sig: Signature, args: Any) -> Any:
    layout = structs.info(sig.args[0].cls)
    addr = context.compile_internal(builder, _allocator(layout), types.int64(), ())
    names = list(sig.pysig.parameters)[1:]
    for name, value in zip(names, args[1:], strict=True):
        field = layout.fields[name]
        _store(context, builder, field_type(field), addr, field.offset, value)
    return addr


_HEAP_FULL = "the heap is full, even after a collection"


@functools.cache
def _allocator(layout: StructInfo) -> Callable[[], int]:
    """The function that makes such an object, with everything that malloc wants to know as constants."""
    how = layout.allocation
    size, span_class, elem_size, nwords = how.size, how.span_class, how.elem_size, how.elem_size >> 3
    mask, scan_bytes, key = how.mask, how.scan_bytes, layout.key

    def new_with_references() -> int:
        addr = new_small(span_class, elem_size, nwords, mask, scan_bytes, PROGRAM)
        if addr == 0:
            raise OutOfMemory(_HEAP_FULL)
        return addr

    def new_by_type() -> int:
        addr = new_typed(size, find_type(key), PROGRAM)
        if addr == 0:
            raise OutOfMemory(_HEAP_FULL)
        return addr

    def new_plain() -> int:
        addr = new_noscan(size, span_class, elem_size, PROGRAM)
        if addr == 0:
            raise OutOfMemory(_HEAP_FULL)
        return addr

    def new_small_plain() -> int:
        addr = new_tiny(size, PROGRAM)
        if addr == 0:
            raise OutOfMemory(_HEAP_FULL)
        return addr

    def new_large_plain() -> int:
        addr = new_bytes(size, PROGRAM)
        if addr == 0:
            raise OutOfMemory(_HEAP_FULL)
        return addr

    if how.by_type:
        return new_by_type
    if how.mask:
        return new_with_references
    if size < TINY_SIZE:
        return new_small_plain
    return new_plain if is_small(how) else new_large_plain


@infer_global(structs.array)
class _Array(AbstractTemplate):  # type: ignore[misc]
    def generic(self, args: tuple[types.Type, ...], kws: dict[str, types.Type]) -> Signature:
        elem = _element(args[0]) if len(args) == 2 and not kws else None
        if elem is None or not isinstance(args[1], types.Integer):
            raise rejection("write gomp.array(T, n), with T a struct, int or float, and n an int")
        return Signature(numba_type(Array[elem]), (args[0], types.int64), recvr=None)


def _element(type_: types.Type) -> Any:
    if isinstance(type_, StructClass):
        return type_.cls
    key = getattr(type_, "typing_key", None)
    return key if key in (int, float) else None


@lower_builtin(structs.array, types.Any, types.int64)
def _lower_array(context: Any, builder: Any, sig: Signature, args: Any) -> Any:
    allocate = _array_allocator(sig.return_type.cls)
    return context.compile_internal(builder, allocate, types.int64(types.int64), (args[1],))


@functools.cache
def _array_allocator(cls: type[Array]) -> Callable[[int], int]:
    key = cls.key

    def new_references(n: int) -> int:
        _check_length(n)
        addr = new_typed(ARRAY_HEADER + 8 * n, find_type(key), PROGRAM)
        if addr == 0:
            raise OutOfMemory(_HEAP_FULL)
        store64(addr, n)
        return addr

    def new_numbers(n: int) -> int:
        _check_length(n)
        addr = new_bytes(ARRAY_HEADER + 8 * n, PROGRAM)
        if addr == 0:
            raise OutOfMemory(_HEAP_FULL)
        store64(addr, n)
        return addr

    return new_references if holds_references(cls) else new_numbers


@inline
def _check_length(n: int) -> None:
    if n < 0:
        raise ValueError("an array cannot have a negative number of elements")
    if n > MAX_ARRAY:
        raise OutOfMemory("an array of so many elements is larger than any heap")


# --- arrays -----------------------------------------------------------------------------------------------------------


@intrinsic  # type: ignore[untyped-decorator]
def _address(context: Any, ref: Any) -> Any:
    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return args[0]

    return types.int64(ref), codegen


@intrinsic  # type: ignore[untyped-decorator]
def _load_element(context: Any, array: Any, addr: Any) -> Any:
    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return _load(context, builder, sig.return_type, args[1], 0)

    return array.elem(array, types.int64), codegen


@intrinsic  # type: ignore[untyped-decorator]
def _store_element(context: Any, array: Any, addr: Any, value: Any) -> Any:
    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        stored = context.cast(builder, args[2], sig.args[2], sig.args[0].elem)
        _store(context, builder, sig.args[0].elem, args[1], 0, stored)
        return context.get_dummy_value()

    return types.none(array, types.int64, value), codegen


@inline
def _element_addr(base: int, i: int) -> int:
    if base == 0:
        raise NilDereference("an element of an array that is None")
    if i < 0 or i >= load64(base):
        raise IndexError("array index out of range")
    return base + ARRAY_HEADER + 8 * i


@in_compiled_code(operator.getitem)
def _getitem(array: Any, i: Any) -> Any:
    if isinstance(array, ArrayRef) and isinstance(i, types.Integer):
        return lambda array, i: _load_element(array, _element_addr(_address(array), i))
    return None


@in_compiled_code(operator.setitem)
def _setitem(array: Any, i: Any, value: Any) -> Any:
    if isinstance(array, ArrayRef) and isinstance(i, types.Integer):
        if not can_store(array.elem, value):
            raise rejection(f"an array of {shown(array.elem)} cannot hold {shown(value)}")
        return lambda array, i, value: _store_element(array, _element_addr(_address(array), i), value)
    return None


@inline
def _length(base: int) -> int:
    if base == 0:
        raise NilDereference("the length of an array that is None")
    return load64(base)


@in_compiled_code(len)
def _len(array: Any) -> Any:
    if isinstance(array, ArrayRef):
        return lambda array: _length(_address(array))
    return None


@in_compiled_code(bool)
def _bool(ref: Any) -> Any:
    if isinstance(ref, ArrayRef):
        return lambda ref: _address(ref) != 0 and load64(_address(ref)) != 0
    if type(ref) is StructRef or isinstance(ref, NullType):
        return lambda ref: _address(ref) != 0
    return None


# --- identity ---------------------------------------------------------------------------------------------------------


def _same(context: Any, builder: Any, sig: Signature, args: Any) -> Any:
    return builder.icmp_signed("==", args[0], args[1])


def _different(context: Any, builder: Any, sig: Signature, args: Any) -> Any:
    return builder.icmp_signed("!=", args[0], args[1])


class _Comparison(AbstractTemplate):  # type: ignore[misc]
    def generic(self, args: tuple[types.Type, ...], kws: dict[str, types.Type]) -> Signature | None:
        if len(args) == 2 and all(isinstance(a, (RefType, NullType)) for a in args):
            return Signature(types.boolean, args, recvr=None)
        return None


for _operation, _lower in (
    (operator.eq, _same),
    (operator.ne, _different),
    (operator.is_, _same),
    (operator.is_not, _different),
):
    infer_global(_operation)(type(f"_{_operation.__name__}", (_Comparison,), {"key": _operation}))
    for _left in (StructRef, ArrayRef, NullType):
        for _right in (StructRef, ArrayRef, NullType):
            lower_builtin(_operation, _left, _right)(_lower)


# --- globals ----------------------------------------------------------------------------------------------------------


@intrinsic  # type: ignore[untyped-decorator]
def _cell_addr(context: Any, root: Any) -> Any:
    """Address of the process's word that says where the global is."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        symbol = sig.args[0].root.symbol
        cell = builder.module.globals.get(symbol) or ir.GlobalVariable(builder.module, _I64, symbol)
        return builder.ptrtoint(cell, _I64)

    return types.int64(root), codegen


@intrinsic  # type: ignore[untyped-decorator]
def _as_value(context: Any, root: Any, addr: Any) -> Any:
    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return args[1]

    return numba_type(root.root.cls)(root, types.int64), codegen


def _place_finder(root: Global[Any]) -> Any:
    w0, w1, w2, w3, w4, w5 = root.words

    @inline
    def place(cell: int) -> int:
        idx = load64(cell)
        if idx == UNBOUND:
            idx = bind_global(w0, w1, w2, w3, w4, w5)
            if idx < 0:
                raise OutOfMemory("no room for more globals")
            store64(cell, idx)
        return idx

    return place


@in_compiled_code(GlobalType, "get")
def _get(root: Any) -> Any:
    place, key = _place_finder(root.root), key_of(root.root.cls)

    def get(root: Any) -> Any:
        idx = place(_cell_addr(root))
        held = global_type_of(idx)
        if held != 0 and held != key:
            raise TypeError("a global does not hold the type that it was declared with")
        return _as_value(root, read_pointer(global_addr(idx)))

    return get


@in_compiled_code(GlobalType, "set")
def _set(root: Any, value: Any) -> Any:
    if not can_store(numba_type(root.root.cls), value):
        raise rejection(f"global {root.root.name!r} holds {root.root.cls.__name__}, not {shown(value)}")
    place, key = _place_finder(root.root), key_of(root.root.cls)

    def set(root: Any, value: Any) -> None:  # noqa: A001
        if set_global(place(_cell_addr(root)), _address(value), key) != OK:
            raise TypeError("a global does not hold the type that it was declared with")

    return set
