"""What crosses between Python and a compiled program, and as what: only numbers do.

==================  ==========================================  ==============================
in Python           in compiled code                            crosses as
==================  ==========================================  ==============================
int, float, bool    Numba's                                     itself
a reference, None   an address (``reftypes``)                   the number of a handle's slot
a weak pointer      the address of its handle (``lifetypes``)   the number of a handle's slot
an array            Numba's (``ndarraytypes``)                  address, shape and strides
==================  ==========================================  ==============================

The *kind* of an argument chooses the program: its Python type, or where that does not say enough, the Numba type that its value has.
"""

from __future__ import annotations

import types as python_types
from collections.abc import Callable, Iterable
from typing import Any, Union, get_args, get_origin

import numpy as np
from llvmlite import ir
from numba.core import types

from gomp.core.mutator.boundary import NO_SLOT, load_handle
from gomp.errors import CompileError
from gomp.runtime.lifetypes import WeakRef, WeakResult
from gomp.runtime.ndarraytypes import from_words, words_of, words_type
from gomp.runtime.references import ReferenceMeta, is_declared, key_of, slot_of
from gomp.runtime.refops import call_inline
from gomp.runtime.reftypes import (
    NULL_TYPE,
    ArrayRef,
    MapRef,
    NullType,
    RefType,
    SlotType,
    holds,
    numba_type,
    shown,
    typed_by_value,
)
from gomp.runtime.typekeys import class_of_key
from gomp.runtime.weak import Weak, WeakHandle, handle_slot

Kind = type | types.Type
Result = (
    type | WeakResult | None
)  # a class of references; NoneType; ndarray; None for what Numba has made a Python object of
_PLAIN_RESULTS: dict[str, Result] = {"none": type(None), "ndarray": np.ndarray, "value": None}
_NUMBERS = (
    ((bool, np.bool_), types.boolean),
    ((int, np.integer), types.int64),
    ((float, np.floating), types.float64),
)


# --- arguments --------------------------------------------------------------------------------------------------------


def kind_of(value: object) -> Kind:
    """The kind of an argument. TypeError, which goes on after "argument x of f"."""
    look = typed_by_value.get(type(value))
    return look(value) if look else type(value)


def kind_annotated(annotation: object) -> Kind | None:
    """The kind of arguments that are annotated so, None aside; None if the annotation does not say, or says more than one."""
    options = [option for option in _options(annotation) if option not in (None, type(None))]
    if len(options) != 1:
        return None
    (only,) = options
    return only if only in (int, float, bool) or _is_class(only) else None  # type: ignore[return-value]


def type_of(kind: Kind) -> types.Type:
    """The Numba type of arguments of a kind. TypeError, which goes on after "argument x of f"."""
    if isinstance(kind, types.Type):
        return kind
    for accepted, number in _NUMBERS:
        if issubclass(kind, accepted):
            return number
    if kind is type(None):
        return NULL_TYPE
    if isinstance(kind, ReferenceMeta):
        return numba_type(kind)
    raise TypeError(f"cannot be {kind.__name__}: use int, float, bool, a reference, a gomp.ndarray or None")


def type_of_none(annotation: object) -> types.Type | None:
    """What None is where an argument is annotated so; None if the annotation does not say."""
    found = [type_ for option in _options(annotation) if (type_ := _pointer_type(option)) is not None]
    return found[0] if len(found) == 1 else None


def accepted_by(annotation: object) -> tuple[types.Type, ...]:
    """The types of references that an argument is annotated with; none if it may be something else too, but for None."""
    found = [(option, _pointer_type(option)) for option in _options(annotation)]
    if any(type_ is None and option not in (None, type(None)) for option, type_ in found):
        return ()
    return tuple(type_ for _, type_ in found if type_ is not None)


def accepts(wanted: types.Type, given: types.Type) -> bool:
    """Whether references of the type ``given`` are such as are ``wanted``: a fixed array is an array, and a class may be that of another process."""
    if not isinstance(given, type(wanted)):
        return False
    if isinstance(wanted, ArrayRef) and not wanted.cls.length and given.cls.elem == wanted.cls.elem:
        return True
    return given.key[:-1] == wanted.key[:-1] or (isinstance(given, MapRef) and issubclass(given.cls, wanted.cls))


def _options(annotation: object) -> tuple[object, ...]:
    is_union = isinstance(annotation, python_types.UnionType) or get_origin(annotation) is Union
    return get_args(annotation) if is_union else (annotation,)


def _pointer_type(annotation: object) -> types.Type | None:
    if get_origin(annotation) is Weak:
        (target,) = get_args(annotation)
        return WeakRef(target) if _is_class(target) else None
    return numba_type(annotation) if _is_class(annotation) else None


def _is_class(annotation: object) -> bool:
    """Whether it is a class of objects: the generic ones are none."""
    return isinstance(annotation, ReferenceMeta) and is_declared(annotation)


def crosses_as(type_: types.Type) -> types.Type:
    if isinstance(type_, types.Array):
        return words_type(type_)
    return types.int64 if isinstance(type_, (SlotType, NullType)) else type_


def conversion(kind: Kind) -> Callable[[Any], Any] | None:
    """From an argument of this kind to what crosses; None where Numba's own conversion does (and checks ints for their size)."""
    if kind in (int, float, bool):
        return None
    if isinstance(kind, types.Array):
        return words_of
    if isinstance(kind, WeakRef):
        return handle_slot
    if kind is type(None):
        return lambda none: NO_SLOT
    if isinstance(kind, ReferenceMeta):
        return slot_of
    return bool if issubclass(kind, np.bool_) else float if issubclass(kind, (float, np.floating)) else int


def received(context: Any, builder: Any, type_: types.Type, word: Any) -> Any:
    """The argument, inside the program, out of what has crossed."""
    if isinstance(type_, types.Array):
        return from_words(context, builder, type_, word)
    if isinstance(type_, SlotType):
        return call_inline(context, builder, load_handle, types.int64, (word,))
    return ir.Constant(ir.IntType(64), 0) if isinstance(type_, NullType) else word


# --- results ----------------------------------------------------------------------------------------------------------


def result_of(type_: types.Type, name: str) -> Result:
    """What the function called ``name``, which returns values of that type, gives to Python. Raises CompileError."""
    if isinstance(type_, RefType):
        return type_.cls  # type: ignore[no-any-return]
    if isinstance(type_, WeakRef):
        return WeakResult(type_.target)
    if isinstance(type_, NullType) or type_ == types.none:
        return type(None)
    if isinstance(type_, types.Array):
        return np.ndarray
    if isinstance(type_, types.Generator):
        raise CompileError(
            f"{name} is a generator, which would go on outside a program: return what it yields in a gomp.array"
        )
    for kind, what in ((SlotType, "a reference"), (types.Array, "an array")):
        if holds(type_, kind):
            raise CompileError(f"{name} returns {shown(type_)}: {what} is returned alone, not inside something else")
    return None


def name_of_result(result: Result) -> str:
    """For the cache of programs, which other processes read: a class by its key, because each process has classes of its own."""
    if isinstance(result, WeakResult):
        return f"weak {key_of(result.target)}"
    if isinstance(result, ReferenceMeta):
        return f"reference {key_of(result)}"
    return next(name for name, plain in _PLAIN_RESULTS.items() if plain is result)


def result_named(name: str, classes: Iterable[Any], args: tuple[types.Type, ...]) -> Result:
    """The result of a program which names ``classes`` and takes ``args``: two classes may have one key, and it returns its own.

    Raises TypeError if this process does not know the class.
    """
    if name in _PLAIN_RESULTS:
        return _PLAIN_RESULTS[name]
    what, key = name.split()
    taken = [t.target if isinstance(t, WeakRef) else t.cls for t in args if isinstance(t, (RefType, WeakRef))]
    cls = class_of_key(int(key), among=[*classes, *taken])
    return WeakResult(cls) if what == "weak" else cls  # type: ignore[no-any-return]


def owner_class(result: Result) -> Any:
    """The class of what owns the slot in which a program leaves the reference or the handle of the weak pointer that it returns."""
    return WeakHandle if isinstance(result, WeakResult) else result


def made_of(result: Result, owner: Any) -> Any:
    """The reference or the weak pointer that a program has returned, from the :func:`owner_class` of its slot; None: it was None."""
    return result.made(owner) if isinstance(result, WeakResult) else owner
