"""``gomp.box``: a number put on the heap, where everybody may hold a reference to it; in a struct of its own, ``gomp.Box[T]``, with a ``value``.

A slot of a frame is in its goroutine's stack, which moves: nothing may lead there. Go's compiler puts a variable on the heap whose address escapes;
here the program does, and what it shares from then on is the box.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from gomp.runtime.kinds import SCALARS, Scalar, scalar
from gomp.runtime.parts import Names, evaluated
from gomp.runtime.references import is_struct
from gomp.runtime.structs import info, new, struct

__all__ = ["Box", "box"]

T = TypeVar("T")


class BoxMeta(type):
    """The class of ``gomp.Box``, whose instances are classes: what it is of says which."""

    def __call__(cls, *args: object, **kwargs: object) -> Any:
        raise TypeError("write gomp.box(value), or gomp.new(gomp.Box[T], value=...) with T a kind of number")

    def __getitem__(cls, elem: object) -> Any:
        kind = scalar(evaluated(elem, Names()))
        if kind is None:
            raise TypeError(
                f"a box is of a number, int, float, bool or gomp.int8 to gomp.float64, not {getattr(elem, '__name__', elem)}: "
                "an object is on the heap already, and a reference leads to it"
            )
        return box_class(kind)


if TYPE_CHECKING:

    class Box(Generic[T]):
        """A number on the heap."""

        value: T

else:

    class Box(metaclass=BoxMeta):
        """``gomp.Box[T]`` are the structs of one number, ``value``."""


@functools.cache
def box_class(kind: Scalar) -> Any:
    """``Box[kind]``."""
    name = f"Box[{kind.name}]"
    return struct(type(name, (), {"__annotations__": {"value": kind}, "__module__": __name__, "__qualname__": name}))


def is_box_class(cls: Any) -> bool:
    """Whether a class of references is one of boxes."""
    return is_struct(cls) and cls.__module__ == __name__


def kind_of_box(cls: Any) -> Any:
    """The kind of number that is in the boxes of a class."""
    return info(cls).fields["value"].part


def box(value: T) -> Box[T]:
    """A new ``gomp.Box`` of an int, a float or a bool."""
    kind = scalar(type(value))
    if kind is None:
        raise TypeError(
            f"gomp.box puts an int, a float or a bool on the heap, not a {type(value).__name__}; of another kind of number, "
            "write gomp.new(gomp.Box[T], value=...)"
        )
    return new(box_class(kind), value=value)


def all_boxes() -> list[Any]:
    """The classes of boxes, of every kind of number: another process may have made one that this one has not named."""
    return [box_class(kind) for kind in SCALARS.values()]
