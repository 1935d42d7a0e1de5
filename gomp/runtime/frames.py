"""``@gomp.frame``: the frames of goroutines, as a program declares them.

A frame's annotations are its *slots* on the goroutine's stack: numbers, references to objects, and other frames of the same stack. Its ``step`` is
compiled (``steps``): it runs until it has to wait, and returns an action.

===========================================  ======================================================================================
``return f.call(F, x=..., into="y")``        a frame of F with these slots, the others zero; its result is in slot y when this runs next
``return f.call(F, x=..., room=n)``          the same, and the stack has room for n bytes of frames before it moves again
``return f.ret(value)``                      to the caller, with a result if the frame is a ``gomp.Frame[R]``
``return f.send(ch, value)``                 to a channel: this runs again when it is sent
``return f.recv(ch, into="y", ok="z")``      from a channel: what is received is in slot y, and slot z says whether it was not closed and empty
``return f.select(a.receiving(into="y"),      does the first that can be done, whose place is in slot "n": 0 or 1
b.sending(value), into="n")``
``return f.lock(m)``                         a ``gomp.Mutex``: this runs again when it is locked, and unlocks it by ``m.unlock()``
``return f.wait(group)``                     for a ``gomp.WaitGroup``: this runs again when all are done
``return f.yield_()``                        others have their turn, then this runs again
===========================================  ======================================================================================

A slot that holds a frame (``up: "Walk"``, of this class or one declared before) is an address in the stack. It is rewritten when the stack moves, and
only a frame's own slots hold one: so it never leads to a frame that is gone.
"""

from __future__ import annotations

import inspect
import sys
import types as python_types
from collections.abc import Callable
from functools import cached_property
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast, get_args

from gomp.core.shm.records import FRAME_HEADER, OUT_BYTES
from gomp.runtime.kinds import BOOL, FLOAT, INT, Scalar, scalar
from gomp.runtime.parts import Embedded, Link, Names, Part, check_size, evaluated, names_around, part, placed
from gomp.runtime.references import is_declared, is_reference_class, name_of

__all__ = ["Action", "Frame", "frame"]

if TYPE_CHECKING:
    from gomp.runtime.chan import Case, Chan
    from gomp.runtime.sync import Mutex, WaitGroup

T = TypeVar("T")
R = TypeVar("R")
_STEP = "step"
_RESERVED = (
    _STEP,
    "call",
    "ret",
    "send",
    "recv",
    "select",
    "lock",
    "wait",
    "yield_",
    "run",
    "cls",
    "into",
    "room",
    "labels",
)


class FrameLink:
    """A slot that leads to a frame of the same stack, or is None."""

    size = align = 8
    reference_words: tuple[int, ...] = ()

    def __init__(self, target: FrameMeta) -> None:
        self.target = target

    @property
    def text(self) -> str:
        return f"frame {name_of(self.target)}"


Slot = Part | FrameLink


class FrameInfo:
    """The layout of a frame, header included. ``returns``: INT, FLOAT, BOOL, a class of references, or None for nothing."""

    align = 8
    begins = "frame"  # the text of the key

    def __init__(self, cls: FrameMeta, slots: dict[str, tuple[int, Slot]], size: int, returns: Any) -> None:
        self.cls, self.slots, self.size, self.returns = cls, slots, size, returns
        self.reference_words = tuple(at // 8 for at, p in slots.values() if isinstance(p, Link))
        self.frame_words = tuple(at // 8 for at, p in slots.values() if isinstance(p, FrameLink))

    @property
    def text(self) -> str:
        """For the key."""
        return f"{self.shape} {self.what_it_does}".rstrip()

    @property
    def shape(self) -> str:
        """What the stack has to know."""
        gives = self.returns.text if isinstance(self.returns, Scalar) else self.returns and name_of(self.returns)
        return f"{self.begins} {self.size} {gives} {[(name, at, p.text) for name, (at, p) in self.slots.items()]}"

    @cached_property
    def what_it_does(self) -> str:
        """Of a frame that is sent by value: it may be declared again under its name, with the same slots, as when a cell of a notebook is run
        anew, or with another value around it; who has learned one must not take the other for it. It goes along with the class."""
        return self._digest()

    def _digest(self) -> str:
        if _is_known_by_name(self.cls):
            return ""
        from gomp.runtime.fingerprint import digest_of_step  # above this

        return digest_of_step(self.cls)

    @property
    def targets(self) -> list[Any]:
        led_to = [p.target for _, p in self.slots.values() if isinstance(p, Link | FrameLink)]
        return led_to if self.returns is None or isinstance(self.returns, Scalar) else [*led_to, self.returns]

    def slot(self, name: str) -> tuple[int, Slot]:
        """Offset and kind of a slot. TypeError if there is none."""
        if name not in self.slots:
            raise TypeError(f"{self.cls.__name__} has no slot {name}; it has {', '.join(self.slots) or 'none'}")
        return self.slots[name]


def _is_known_by_name(cls: type) -> bool:
    """Whether each process that has it has imported the same module."""
    return cls.__module__ != "__main__" and "<locals>" not in cls.__qualname__ and cls.__module__ in sys.modules


class FrameMeta(type):
    """The class of the classes of frames."""

    layout: FrameInfo
    step: Callable[[Any], Any]
    called: str

    def __call__(cls, **slots: object) -> Any:
        raise TypeError(
            f"{cls.called} is made by the runtime: {cls.__name__}.run(...) runs a goroutine that begins with one"
        )

    def run(cls, /, **slots: object) -> Any:
        """The result of a goroutine whose first frame has these slots. It runs here, to its end."""
        from gomp.runtime.goroutines import run

        return run(cls, slots)

    def reduced(cls) -> Any:
        """As ``__reduce__``, of a class that is not sent as any other; None: as any other."""
        return None

    def get_ready(cls) -> None:
        """Have this process know the step, in the runtime that is open, and others be able to."""
        from gomp.runtime import declarations, steps

        if steps.load(cls):
            declarations.declare(cls)


class Action:
    """What a step returns: ``f.call``, ``f.ret`` and ``f.yield_`` make it."""


class Frame(Generic[R]):
    """The base of a frame that returns an R: ``@gomp.frame`` on ``class F(gomp.Frame[int])``. Without it, a frame returns nothing."""

    def call(self, cls: type[Frame[Any]], /, *, into: str = "", room: int = 0, **slots: Any) -> Action:
        """In a step: push a frame of ``cls`` with these slots."""
        raise _outside("call")

    def ret(self, result: R | None = None, /) -> Action:
        """In a step: this frame is over."""
        raise _outside("ret")

    def send(self, ch: Chan[T], value: T, /) -> Action:
        """In a step: send to a channel, which waits while nobody receives and no room is left."""
        raise _outside("send")

    def recv(self, ch: Chan[Any], /, *, into: str = "", ok: str = "") -> Action:
        """In a step: receive from a channel, which waits while there is nothing."""
        raise _outside("recv")

    def select(self, *cases: Case, into: str = "", default: bool = False) -> Action:
        """In a step: do the first of the cases that can be done, ``ch.receiving(into="slot", ok="slot")`` and ``ch.sending(value)``; its place is
        in slot ``into``. With ``default`` it does not wait, and the place is -1 if none can be done."""
        raise _outside("select")

    def lock(self, mutex: Mutex, /) -> Action:
        """In a step: this frame goes on when it has locked ``mutex``."""
        raise _outside("lock")

    def wait(self, group: WaitGroup, /) -> Action:
        """In a step: this frame goes on when all of ``group`` are done."""
        raise _outside("wait")

    def yield_(self) -> Action:
        """In a step: this frame goes on when others have had their turn."""
        raise _outside("yield_")

    if TYPE_CHECKING:

        @classmethod
        def run(cls, **slots: Any) -> R:
            """The result of a goroutine whose first frame has these slots. It runs here, to its end."""
            ...


def _outside(name: str) -> TypeError:
    return TypeError(f"{name} is an action of a frame's step, which is compiled: return it there")


def frame(cls: type[T]) -> type[T]:
    """Declare a frame: ``@gomp.frame`` on a class with annotated slots and a ``step``."""
    if not isinstance(cls, type):
        raise TypeError(f"@gomp.frame declares a class, not {cls!r}")
    step = vars(cls).get(_STEP)
    if not isinstance(step, python_types.FunctionType) or len(inspect.signature(step).parameters) != 1:
        raise TypeError(f"frame {cls.__name__} has no step: define 'def step(f):', which returns an action")
    namespace = {_STEP: staticmethod(step), "__module__": cls.__module__, "__doc__": cls.__doc__}
    made = FrameMeta(cls.__name__, (), namespace)
    made.__qualname__ = cls.__qualname__
    made.called = f"frame {cls.__name__}"
    names = names_around(made, {**sys._getframe(1).f_locals, cls.__name__: made})
    annotations = inspect.get_annotations(cls)
    if given := [name for name in annotations if name in vars(cls)]:
        raise TypeError(
            f"slot {given[0]} of {cls.__name__} is given a value where it is declared, but slots begin as zero or None: give it to gomp.go or f.call"
        )
    slots = [_slot(evaluated(a, names), made, name) for name, a in annotations.items()]
    offsets, size, _ = placed(cast(list[Part], slots), made.called)
    at = (FRAME_HEADER + offset for offset in offsets)
    size = FRAME_HEADER + (size + 7 & -8)
    check_size(size, made.called)
    by_name = dict(zip(annotations, zip(at, slots, strict=True), strict=True))
    made.layout = FrameInfo(made, by_name, size, _result(cls, names))
    return made  # type: ignore[return-value]


def _result(cls: Any, names: Names) -> Any:
    """What a frame returns: the R of its base."""
    if cls.__bases__ == (object,):
        return None
    if cls.__bases__ != (Frame,):
        raise TypeError(
            f"frame {cls.__name__} cannot have base classes but gomp.Frame[...]: its layout is its own annotations"
        )
    (result,) = get_args(cls.__orig_bases__[0]) or (None,)
    returns = evaluated(getattr(result, "__forward_arg__", result), names)
    kind = scalar(returns)
    if returns in (None, type(None)) or kind in (INT, FLOAT, BOOL):
        return kind
    if is_reference_class(returns) and is_declared(returns):
        return returns
    name = getattr(returns, "__name__", getattr(returns, "name", returns))
    raise TypeError(
        f"frame {cls.__name__} returns int, float, bool or an object of a class that is declared before, not {name}"
    )


def _slot(annotation: Any, owner: FrameMeta, name: str) -> Slot:
    where = f"slot {name} of {owner.__name__}"
    if name.startswith("_") or name in _RESERVED:
        raise TypeError(f"{where}: this name is gomp's, take another")
    if isinstance(annotation, FrameMeta):
        return FrameLink(annotation)
    made = part(annotation, owner, where)
    if isinstance(made, Embedded):
        raise TypeError(f"{where} cannot be a part by value: a slot holds a number, a reference or a frame")
    return made


def given_slots(cls: FrameMeta, names: Any) -> dict[str, tuple[int, Slot]]:
    """The slots of these names, which a call gives. TypeError."""
    found = {name: cls.layout.slot(name) for name in names}
    for name, (at, p) in found.items():
        if at - FRAME_HEADER + p.size > OUT_BYTES:
            raise TypeError(
                f"slot {name} of {cls.__name__} is beyond the first {OUT_BYTES} bytes, which a call can give: declare it before the others"
            )
    return found
