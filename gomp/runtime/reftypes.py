"""References in compiled code: a Numba type whose value is an address, and what can be done with one.

========================  =============================================================================================
``node.value``            a load at a constant offset; ``NilDereference`` if ``node`` is None
``node.left = x``         a store with the write barrier; ``x`` may be None
``gomp.new(Node, ...)``   malloc's fast path with this type's constants, inlined
``node.at``               of a part by value: the address itself, inside the object
``gomp.array(T, n)``      the same by size, which is only known when it runs (``arraytypes``)
``a[i]``, ``len(a)``      checked: a reference past the end would be followed by the collector; ``for x in a`` (``arraywalks``)
``m[key]``, ``len(m)``    of maps (``maptypes``); ``for key in m`` (``mapwalks``)
``s[i]``, ``len(s)``      of texts (``texttypes``, ``textwalks``), where ``==`` compares what they hold
``x is y``, ``x == y``    whether it is the same object; ``x is None``
``ROOT.get()``            a load from the root table (``globaltypes``)
``gomp.weak(x)``          and ``keep_alive`` (``lifetypes``); arrays of numpy's shape are Numba's own (``ndarraytypes``)
========================  =============================================================================================

None is a type of its own here (:class:`NullType`), which unifies with every reference type: so a reference is one word, never Numba's
Optional. The compiler step of ``@gomp.compiled`` puts it in place of Python's None (``polling``).

Numbers have the Numba type of their width, and Numba's arithmetic. What is stored is checked against the field's range first: Numba would cut it.

Addresses of structs may be held only as addresses of their fields: those lie inside the object, and the scan of the native stack takes them
for it. An address computed from an array or a text may lie outside, so these stay on the stack as long as they are held (``polling.Lower``).
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba.core import errors, types
from numba.core.imputils import lower_constant
from numba.core.typeconv import Conversion
from numba.extending import lower_cast, models, overload, overload_method, register_model, typeof_impl

from gomp.runtime.arrays import Array
from gomp.runtime.chan import Chan
from gomp.runtime.fields import Field
from gomp.runtime.hashmap import Map
from gomp.runtime.kinds import SCALARS, Scalar, scalar
from gomp.runtime.parts import ByValue, Inline, Link, Part
from gomp.runtime.references import ReferenceMeta, is_declared, key_of
from gomp.runtime.root_table import Global
from gomp.runtime.sync import Mutex, WaitGroup
from gomp.runtime.texts import Bytes, Str

_I64 = ir.IntType(64)
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


def refusal(where: str, given: types.Type, otherwise: str = "") -> errors.TypingError:
    """Why what is ``where`` takes no value of the type ``given``: it would lead into a stack, or as ``otherwise`` says."""
    if isinstance(given, StackAddress):
        return rejection(f"{where} cannot hold a {shown(given)}, an address in a goroutine's stack, {ESCAPES}")
    return rejection(otherwise)


# --- types ------------------------------------------------------------------------------------------------------------


class SlotType(types.Type):
    """An address that crosses between Python and compiled code in a handle's slot; 0 if there is none."""


class StackAddress(types.Type):
    """An address in a goroutine's stack, which nothing outside that stack may hold."""


class RefType(SlotType, types.Hashable):  # a set may be of references until ``polling`` says why it must not
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


class WalkedRef(RefType, types.IterableType):
    """A reference to what a loop goes through."""

    @property
    def iterator_type(self) -> types.Type:
        return walks[type(self)](self)


walks: dict[type, Callable[[Any], types.Type]] = {}  # of each kind of reference that is walked


class ArrayRef(WalkedRef):
    """A reference to an array, of the heap or by value."""

    @property
    def elem(self) -> types.Type:
        return part_type(self.cls.layout.part)


class TextRef(WalkedRef):
    """A reference to a Bytes or a Str."""


class MapRef(WalkedRef):
    """A reference to a map (``maptypes``)."""


class ChanRef(RefType):
    """A reference to a channel (``chantypes``)."""


class MutexRef(RefType):
    """A reference to a lock (``synctypes``)."""


class GroupRef(RefType):
    """A reference to a WaitGroup."""


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


class ByValueClass(types.Type):
    """``gomp.Inline[T]``, as an argument of ``gomp.array``."""

    def __init__(self, described: ByValue) -> None:
        self.described = described
        super().__init__(name=f"Inline[{described.cls.__name__}#{key_of(described.cls):x}]")

    @property
    def key(self) -> tuple[str, int, int]:
        return "by value", key_of(self.described.cls), id(self.described.cls)


class InlineName(types.Type):
    """``gomp.Inline`` itself."""

    def __init__(self) -> None:
        super().__init__(name="gomp.Inline")


class GenericName(types.Type):
    """``gomp.Array`` itself, of which nothing is an instance."""

    def __init__(self, cls: ReferenceMeta) -> None:
        super().__init__(name=f"gomp.{cls.__name__}")


class ScalarClass(types.Type):
    """A kind of number itself, as ``gomp.int8``."""

    def __init__(self, kind: Scalar) -> None:
        self.kind = kind
        super().__init__(name=f"kind {kind.name}")


class GlobalType(types.Type):
    """A ``gomp.Global``."""

    def __init__(self, root: Global[Any]) -> None:
        self.root = root
        super().__init__(name=f"Global {root.name}: {root.cls.__name__}#{key_of(root.cls):x}")


ESCAPES = "which moves: what others are to hold is made with gomp.new, and a number put on the heap with gomp.box"

NULL_TYPE, NULL = NullType(), Null()

# By Python types that say too little of an argument: what its value's Numba type is. TypeError, which goes on after "argument x of f".
typed_by_value: dict[type, Callable[[Any], types.Type]] = {}

_NUMBERS: dict[str, types.Type] = {
    **{name: getattr(types, name) for name in SCALARS if hasattr(types, name)},
    "int": types.int64,
    "float": types.float64,
    "bool": types.boolean,
}


# Every other class is a struct.
_KINDS_OF_REFERENCE: tuple[tuple[type, Any], ...] = (
    (Array, ArrayRef),
    (Bytes, TextRef),
    (Str, TextRef),
    (Map, MapRef),
    (Chan, ChanRef),
    (Mutex, MutexRef),
    (WaitGroup, GroupRef),
)
REFERENCES = (StructRef, *dict.fromkeys(made for _, made in _KINDS_OF_REFERENCE))


def numba_type(kind: object) -> types.Type:
    """The Numba type of a kind of number, or of references of a class."""
    number = scalar(kind)
    if number is not None:
        return _NUMBERS[number.name]
    if isinstance(kind, ReferenceMeta):
        return next((made for base, made in _KINDS_OF_REFERENCE if issubclass(kind, base)), StructRef)(kind)
    raise TypeError(f"no value of type {kind} exists in compiled code")


def part_type(part: Part) -> types.Type:
    """What compiled code reads from a part: of one by value, a reference to it."""
    if isinstance(part, Scalar):
        return _NUMBERS[part.name]
    return numba_type(part.target if isinstance(part, Link) else part.cls)


def field_type(field: Field) -> types.Type:
    return part_type(field.part)


def can_store(wanted: types.Type, given: types.Type) -> bool:
    """Whether a field or element takes a value of the type ``given``: Numba's casts would let a float into an int."""
    given = types.unliteral(given)
    if isinstance(wanted, RefType):
        return given == wanted or isinstance(given, NullType)
    if wanted == types.boolean:
        return isinstance(given, types.Boolean)
    numbers = (types.Integer, types.Boolean) if isinstance(wanted, types.Integer) else (types.Integer, types.Float)
    return isinstance(given, numbers)


def shown(type_: types.Type) -> str:
    """A type's name in messages."""
    return re.sub(r"#[0-9a-f]+", "", str(types.unliteral(type_)))


def holds(type_: types.Type, kind: type) -> bool:
    """Whether values of the type are made of some of that kind."""
    parts = [
        *getattr(type_, "types", ()),
        *(getattr(type_, name, None) for name in ("dtype", "key_type", "value_type")),
    ]
    return any(isinstance(p, kind) or (isinstance(p, types.Type) and holds(p, kind)) for p in parts)


@register_model(NullType)
class _AddressModel(models.PrimitiveModel):  # type: ignore[misc]
    def __init__(self, manager: Any, fe_type: types.Type) -> None:
        super().__init__(manager, fe_type, _I64)


for _made in REFERENCES:
    register_model(_made)(_AddressModel)

register_model(StructClass)(models.OpaqueModel)
register_model(ScalarClass)(models.OpaqueModel)
register_model(ByValueClass)(models.OpaqueModel)
register_model(InlineName)(models.OpaqueModel)
register_model(GenericName)(models.OpaqueModel)
register_model(GlobalType)(models.OpaqueModel)


@typeof_impl.register(ReferenceMeta)
def _typeof_class(value: Any, context: object) -> types.Type:
    return StructClass(value) if is_declared(value) else GenericName(value)


@typeof_impl.register(Scalar)
def _typeof_kind(value: Scalar, context: object) -> types.Type:
    return ScalarClass(value)


@typeof_impl.register(ByValue)
def _typeof_by_value(value: ByValue, context: object) -> types.Type:
    return ByValueClass(value)


@typeof_impl.register(type(Inline))
def _typeof_inline(value: Any, context: object) -> types.Type:
    return InlineName()


@typeof_impl.register(Null)
def _typeof_null(value: Null, context: object) -> types.Type:
    return NULL_TYPE


@typeof_impl.register(Global)
def _typeof_global(value: Global[Any], context: object) -> types.Type:
    return GlobalType(value)


@lower_constant(StructClass)
@lower_constant(ScalarClass)
@lower_constant(ByValueClass)
@lower_constant(InlineName)
@lower_constant(GenericName)
@lower_constant(GlobalType)
def _no_value(context: Any, builder: Any, type_: types.Type, value: object) -> Any:
    return context.get_dummy_value()


@lower_constant(NullType)
def _null_constant(context: Any, builder: Any, type_: types.Type, value: object) -> Any:
    return ir.Constant(_I64, 0)


def _null_to_ref(context: Any, builder: Any, from_: types.Type, to: types.Type, value: Any) -> Any:
    return value


for _made in REFERENCES:
    lower_constant(_made)(_null_constant)  # the default of an argument: None is the only one
    lower_cast(NullType, _made)(_null_to_ref)


@lower_cast(NullType, types.NoneType)
def _null_to_none(context: Any, builder: Any, from_: types.Type, to: types.Type, value: Any) -> Any:
    return context.get_dummy_value()
