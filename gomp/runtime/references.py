"""References from Python, and what is known of the classes whose instances they are.

Nouns
-----
reference  an instance of a struct's, an array's or a text's class; it holds a handle and nothing else. In compiled code it is an address.
key        62 bits that stand for a type in shared memory, the same in every process: a hash of its name, and a hash of its layout and those of all
           types that can be reached from it. So a process that has declared another layout under a name never takes one for the other, and can say
           which name it is.

Two references are equal if they are the same object, or the same part of one. A pickled reference is received once, by a process of the
same runtime (``transit``).
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable, Iterable
from typing import Any, Protocol

from gomp.core.mutator import boundary
from gomp.core.sched.status import OK, RETRY
from gomp.core.shm import layout as memory
from gomp.errors import RuntimeLost
from gomp.runtime import cells
from gomp.runtime.handles import kernels, table
from gomp.runtime.kinds import wrong_type
from gomp.runtime.slots import DEAD, Handle, filled, object_new

LAYOUT_BITS = 40  # of a key; what is above them is the hash of the name
_NAME_BITS = 22
_made: list[Any] = []  # every class of references, however it came into this process
_by_name: dict[tuple[str, str], Any] = {}


class ReferenceMeta(type):
    """The class of the classes of references: their instances are made by the heap, not by calling them."""

    def __init__(cls, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        _made.append(cls)

    def __call__(cls, *args: object, **kwargs: object) -> Any:
        raise TypeError(f"objects of the shared heap are made with {how_made(cls)}")

    def __setattr__(cls, name: str, value: object) -> None:
        field = cls.__dict__.get(name) if is_struct(cls) else None
        if isinstance(field, property) and not isinstance(value, property):
            raise TypeError(f"{name} is a field of {cls.__name__}: set it on an object, not on the class")
        super().__setattr__(name, value)

    def __delattr__(cls, name: str) -> None:
        if is_struct(cls) and isinstance(cls.__dict__.get(name), property):
            raise TypeError(f"{name} is a field of {cls.__name__}: it cannot be deleted")
        super().__delattr__(name)


class Reference(Handle, metaclass=ReferenceMeta):
    """A reference from Python to an object of the shared heap; while it exists the object does."""

    __slots__ = ()

    @property
    def address(self) -> int:
        """Where the object is, as a number that keeps nothing alive: see ``gomp.keep_alive``."""
        return address_of(self)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Reference):
            return NotImplemented
        return bool(kernels.is_same_object(slot_of(self), slot_of(other)))

    def __hash__(self) -> int:
        return hash(address_of(self))

    def __repr__(self) -> str:
        what = called(type(self))
        return f"<{what} @{address_of(self):#x}>" if is_usable(self) else f"<{what} of {owner_of_lost(self)}>"

    def __copy__(self) -> Any:
        raise TypeError(
            f"copy: this {called(type(self))} is a reference, and a second one leads to the same object; make another object with "
            f"{how_made(type(self))}"
        )

    def __deepcopy__(self, memo: object) -> Any:
        return self.__copy__()

    def __reduce__(self) -> Any:
        from gomp.runtime.transit import reduce_reference  # which needs the classes that are known here

        return reduce_reference(slot_of(self), type(self), key_of(type(self)))


def slot_of(ref: Reference) -> int:
    """The slot of a reference. RuntimeLost, which names its type, if its runtime has ended."""
    slot = ref._handle - table.first
    if slot < 0:
        raise stale(ref)
    return slot


def stale(ref: Reference, where: Callable[[], str] | None = None) -> RuntimeLost:
    """What to raise where a reference whose runtime has ended is used, for ``where()`` perhaps."""
    what = f"{where()}: this {called(type(ref))}" if where else f"this {called(type(ref))}"
    if ref._handle == DEAD:
        return RuntimeLost(f"{what} has died: it is used by what Python's collector ends together with it")
    if ref._handle in table.of_parent:
        return RuntimeLost(
            f"{what} belongs to the process that this one was forked from, and a fork shares no heap: have the work done on a P, with rt.run or "
            "gomp.Executor, or send what the object holds"
        )
    now = "" if table.is_open else "; no runtime is open in this process: use gomp.Runtime()"
    return RuntimeLost(f"{what} belongs to a runtime that has ended{now}")


def owner_of_lost(ref: Reference) -> str:
    """In reprs: to what a reference belongs that is not usable."""
    if ref._handle == DEAD:
        return "nobody"
    return "another process" if ref._handle in table.of_parent else "an ended runtime"


def is_usable(ref: Reference) -> bool:
    """Whether its runtime is open."""
    return ref._handle >= table.first


def shown_reference(ref: Any) -> str:
    """What a reference is in the repr of what holds it: a text itself, anything else a sign, as there may be no end to it."""
    return str(ref.shown()) if trait(type(ref), "is_text") else "…"


def address_of(ref: Reference) -> int:
    """Where the object is, as a number that keeps nothing alive."""
    addr: int = kernels.handle_addr(slot_of(ref))
    return addr


def word_at(slot: int, offset: int) -> int:
    """A word of an object that is a number."""
    try:
        at = (table.words[slot] + offset - memory.HEAP_BASE) >> 3
        return int(cells.words[0][at])
    except IndexError:  # another thread has ended the runtime
        table.check_open()
        raise


def set_word_at(slot: int, offset: int, value: int) -> None:
    """Store a word that is a number and is never read as a reference."""
    at = (table.words[slot] + offset - memory.HEAP_BASE) >> 3
    cells.words[0][at] = value


def read_inside(cls: Any, ref: Reference, offset: int) -> Any:
    """A reference to the part at ``offset``."""
    return filled(cls, kernels.read_inside, slot_of(ref), offset)[1]


def read_reference(cls: Any, ref: Reference, offset: int) -> Any:
    """The reference that stands at ``offset``, or None."""
    source = slot_of(ref)
    found = object_new(cls)
    while True:
        try:
            found._slot, table.free = table.free, table.free.next  # type: ignore[union-attr]
            break
        except AttributeError:  # there is none
            table.grow()
    taken = found._slot
    found._handle = taken.handle
    into = taken.slot
    status = kernels.read_reference(source, offset, into)
    if status == RETRY:
        status = table.call(kernels.read_reference, source, offset, into)
    return found if status == OK else None


def write_reference(cls: Any, ref: Reference, offset: int, value: object, where: Callable[[], str]) -> None:
    """Store a reference to a ``cls``, or None. TypeError, which begins with ``where()``, if it is anything else."""
    slot = slot_of(ref)
    if value is None:
        source = boundary.NO_SLOT
    elif type(value) is cls:
        source = slot_of(value)  # type: ignore[arg-type]
    else:
        raise wrong_class(cls, value, where)
    if kernels.write_reference(slot, offset, source) != OK:
        table.call(kernels.write_reference, slot, offset, source)


def wrong_class(cls: Any, value: object, where: Callable[[], str]) -> TypeError:
    """What to raise where something holds references to a ``cls``, and was given anything else."""
    if isinstance(value, Reference) and type(value).__name__ == cls.__name__:
        return TypeError(
            f"{where()} holds a {name_of(cls)} as it was declared before: {cls.__name__} was declared again, and is another type now"
        )
    return wrong_type(where(), f"a {cls.__name__} or None", value, f"make one with {how_made(cls)}")


def how_made(cls: Any) -> str:
    """In messages: the call that makes such an object."""
    return trait(cls, "made_by") or f"gomp.new({cls.__name__}, ...)"


# --- classes ----------------------------------------------------------------------------------------------------------


class Layout(Protocol):
    """What is known of a type: ``layout_of(cls)``. ``text`` describes it, for its key; ``targets`` are the classes that it names."""

    size: int
    align: int
    reference_words: tuple[int, ...]

    @property
    def text(self) -> str: ...

    @property
    def targets(self) -> list[Any]: ...


class OpaqueLayout:
    """Of a class whose objects have no fields: ``text`` names it in its key, ``targets`` are the classes that its objects lead to."""

    size, align = 0, 8
    reference_words: tuple[int, ...] = ()

    def __init__(self, text: str, targets: list[Any] | None = None) -> None:
        self.text, self.targets = text, targets or []


def is_reference_class(value: object) -> bool:
    """Whether this is the class of references to something."""
    return isinstance(value, ReferenceMeta)


def is_struct(value: object) -> bool:
    return isinstance(value, ReferenceMeta) and "_info" in value.__dict__


def layout_of(cls: Any) -> Layout:
    """The layout of a struct, an array or a text class."""
    return cls._info if is_struct(cls) else cls.layout  # type: ignore[no-any-return]


def trait(cls: Any, name: str) -> Any:
    """What a class of arrays or texts says of itself; None of a struct, which may have a field of that name."""
    found = getattr(cls, name, None)
    return None if isinstance(found, property) else found


def called(cls: Any) -> str:
    """A class's name in messages: as its users know it."""
    return str(trait(cls, "called") or cls.__name__)


def name_of(cls: Any) -> str:
    """A class's full name: the same in every process."""
    return f"{cls.__module__}.{cls._info.qualname if is_struct(cls) else cls.__qualname__}"


def key_of(cls: Any) -> int:
    """The key of a class. Raises TypeError if a struct that it refers to is not declared yet."""
    if "_key" not in cls.__dict__:
        cls._key = name_hash(cls) << LAYOUT_BITS | _hash(_closure(cls), LAYOUT_BITS)
    return cls.__dict__["_key"]  # type: ignore[no-any-return]


def name_hash(cls: Any) -> int:
    """What stands for a class's name in its key."""
    return _hash(name_of(cls), _NAME_BITS)


def _closure(cls: Any) -> str:
    """The layouts of everything that can be reached from a class, in words."""
    return "\n".join(f"{name_of(each)}: {layout_of(each).text}" for each in reached_from([cls]))


def reached_from(classes: Iterable[Any]) -> list[Any]:
    """The classes and all that their layouts name."""
    found = list(classes)
    for each in found:
        found += [target for target in layout_of(each).targets if target not in found]
    return found


def _hash(text: str, bits: int) -> int:
    return (int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little") >> (64 - bits)) or 1


def declare(cls: Any) -> None:
    """Have a struct found by its name, in annotations that name it."""
    _by_name[cls.__module__, cls.__qualname__] = cls


def class_named(name: str, owner: Any) -> Any:
    """The struct called ``name`` where ``owner`` was declared: beside it, in an enclosing function, or in its module; or None."""
    scope = owner.__qualname__
    while "." in scope:
        scope = scope.rpartition(".")[0]
        found = _by_name.get((owner.__module__, f"{scope}.{name}"))
        if found is not None:
            return found
    return vars(sys.modules[owner.__module__]).get(name) or _by_name.get((owner.__module__, name))


def is_declared(cls: Any) -> bool:
    """Whether a class is one of objects, and whole: not a base class, nor a struct that is only now being declared."""
    return "_info" in cls.__dict__ or trait(cls, "layout") is not None


def declared_classes() -> list[Any]:
    """Every class of objects that this process knows."""
    return list(filter(is_declared, _made))


def array_class(elem: Any, n: int = 0) -> Any:
    """``Array[elem]`` or ``Array[elem, n]``."""
    from gomp.runtime.arrays import Array

    made: Any = Array
    return made[elem, n] if n else made[elem]


def map_class(elem: Any, kind: int) -> Any:
    """``Map[elem]`` with keys of a kind."""
    from gomp.runtime import hashmap

    return hashmap.map_class(elem, kind)


def is_map_class(cls: Any) -> bool:
    """Whether this is a ``Map[elem]``: without it, Map is a class like others."""
    from gomp.runtime.hashmap import Map

    return isinstance(cls, ReferenceMeta) and issubclass(cls, Map) and cls is not Map


def fixed_array_class(elem: Any, n: int, owner: Any, where: str) -> Any:
    """``Array[elem, n]``, where ``elem`` may be a struct that is declared later."""
    from gomp.runtime.arrays import fixed_class

    return fixed_class(elem, n, owner, where)
