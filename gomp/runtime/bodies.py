"""Goroutines of Python's that compiled code starts: ``gomp.go(function, ...)``, where ``function`` makes a generator or a coroutine.

Such a goroutine begins as any other, with a frame in which the arguments are: they are roots, and whichever P comes first takes it. But for that
frame no process has a step. So the P sets it aside for Python, which makes the body of what the frame holds, and has it go on as a goroutine of
Python's under the same id (:mod:`~gomp.runtime.goroutines`).

The class of the frame is made when the call is compiled. Compiled code has it as a constant (:class:`Started`), through which the process that loads
the code from the cache makes its own.
"""

from __future__ import annotations

import hashlib
import inspect
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from types import FunctionType
from typing import Any

from gomp.core.mutator import schedule
from gomp.core.mutator.pythoncalls import root_address
from gomp.core.shm.records import FRAME_HEADER, OUT_BYTES
from gomp.errors import CompileError
from gomp.runtime import handles, pickling
from gomp.runtime.frames import FrameInfo, FrameMeta, Slot
from gomp.runtime.kinds import SCALARS, Scalar
from gomp.runtime.parts import Link, Part, placed
from gomp.runtime.pythoncalls import function_key
from gomp.runtime.references import key_of
from gomp.runtime.slots import filled
from gomp.runtime.typekeys import class_of_key

Given = tuple[str, Any]  # the name, "" by position; and a kind of number, a class of references, or None for None


class _BodyInfo(FrameInfo):
    begins = "body"

    def _digest(self) -> str:
        return digest_of_body(self.cls.step)


class BodyMeta(FrameMeta):
    """The class of such frames' classes. ``step`` is the function: it takes what is in the frame, and what the frame does is what it does."""

    layout: _BodyInfo
    given: tuple[Given, ...]

    def get_ready(cls) -> None:
        from gomp.runtime import declarations

        if cls.know():
            declarations.declare(cls)

    def know(cls) -> bool:
        """Have this process make bodies of such frames, in the runtime that is open, by this class from now on; whether it could not before."""
        from gomp.runtime import steps

        is_new = key_of(cls) not in _known
        if is_new:
            steps.publish_frame(cls)
        _known[key_of(cls)] = cls
        return is_new

    def reduced(cls) -> Any:
        return sent_class, (cls.step, cls.given, cls.layout.what_it_does)

    def body_of(cls, number: int) -> Any:
        """The generator or coroutine, of the arguments that the goroutine of that number, set aside, has in its frame."""
        args, kwargs = [], {}
        for i, (name, kind) in enumerate(cls.given):
            value = None if kind is None else _read(number, *cls.layout.slots[_slot(i)])
            if name:
                kwargs[name] = value
            else:
                args.append(value)
        return cls.step(*args, **kwargs)


def _read(number: int, at: int, p: Any) -> Any:
    word = int(schedule.strange_word(number, at))
    if isinstance(p, Link):
        return filled(p.target, root_address, word)[1] if word else None
    return memoryview(word.to_bytes(8, "little", signed=True)).cast(p.code)[0]


def _slot(i: int) -> str:
    return f"argument {i + 1}"


def slots_given(given: Iterable[Given]) -> Iterable[tuple[int, str]]:
    """The slots of such a frame, by the positions of what they hold: None needs none."""
    return ((i, _slot(i)) for i, (_, kind) in enumerate(given) if kind is not None)


def makes_body(target: Any) -> bool:
    """Whether what ``target`` makes when it is called can be the body of a goroutine."""
    return inspect.isgeneratorfunction(target) or inspect.iscoroutinefunction(target)


def digest_of_body(function: Any) -> str:
    """What tells a function from others of its name, as a hash; "" if each process has it by that name. CompileError if it cannot be sent."""
    if _is_found_by_name(function):
        return ""
    try:
        return hashlib.sha256(pickling.dumps(function)).hexdigest()[:16]
    except Exception as error:
        raise CompileError(
            f"{function.__qualname__} cannot go to another process: {error}; make what it names an argument, or have it in a module"
        ) from None


def _is_found_by_name(function: Any) -> bool:
    found: Any = sys.modules.get(function.__module__) if function.__module__ != "__main__" else None
    for name in function.__qualname__.split("."):
        found = getattr(found, name, None)
    return found is function


def body_class(function: FunctionType, given: tuple[Given, ...]) -> BodyMeta:
    """The frames in which arguments of these names and kinds are given to ``function``. TypeError if it cannot take them, there are too many, or it
    makes no body."""
    if not makes_body(function):
        raise TypeError(f"{function.__qualname__} makes nothing that yields or awaits")
    positions, names_given = [name for name, _ in given if not name], {name: name for name, _ in given if name}
    inspect.signature(function).bind(*positions, **names_given)
    names = {"step": staticmethod(function), "__module__": function.__module__, "__doc__": function.__doc__}
    made = BodyMeta(function.__name__, (), names)
    made.__qualname__ = function.__qualname__
    made.called = f"function {function.__name__}"
    made.given = given
    parts: list[Part] = [_part(given[i][1]) for i, _ in slots_given(given)]
    offsets, size, _ = placed(parts, made.called)
    size = FRAME_HEADER + (size + 7 & -8)
    if size - FRAME_HEADER > OUT_BYTES:
        raise TypeError(f"it is given more than {OUT_BYTES // 8} arguments: give it a struct that holds them")
    slots: dict[str, tuple[int, Slot]] = {
        name: (FRAME_HEADER + at, p) for (_, name), at, p in zip(slots_given(given), offsets, parts, strict=True)
    }
    made.layout = _BodyInfo(made, slots, size, None)
    return made


def _part(kind: Any) -> Scalar | Link:
    return kind if isinstance(kind, Scalar) else Link(kind, None, "")


def sent_class(function: FunctionType, given: tuple[Given, ...], what_it_does: str) -> BodyMeta:
    """One that another process has made, from its pickle: what it does, as a hash, that process has worked out."""
    made = body_class(function, given)
    vars(made.layout)["what_it_does"] = what_it_does
    return made


# --- in compiled code -------------------------------------------------------------------------------------------------


@dataclass
class Started:
    """A constant of machine code: the class of frames for what the code starts.

    In the cache of programs the function has its name and each class its key, and ``cls`` is found by :meth:`bind`.
    """

    function: tuple[str, str]
    given: tuple[tuple[str, Any], ...]
    key: int
    cls: BodyMeta | None = None

    @classmethod
    def of(cls, body: BodyMeta) -> Started:
        given = tuple((name, _cached(kind)) for name, kind in body.given)
        return cls(function_key(body.step), given, key_of(body), body)

    def __reduce__(self) -> Any:
        return Started, (self.function, self.given, self.key)

    def bind(self, classes: Iterable[Any], functions: dict[tuple[str, str], Any]) -> None:
        """Find this process's class. TypeError if it has none such: the machine code is of no use here."""
        found = functions.get(self.function)
        given = tuple((name, _uncached(kind, classes)) for name, kind in self.given)
        self.cls = body_class(found, given) if found is not None else None
        if self.cls is None or key_of(self.cls) != self.key:
            raise TypeError(f"a program of the cache starts {'.'.join(self.function)}, which is not what it was")


def _cached(kind: Any) -> Any:
    return kind.name if isinstance(kind, Scalar) else kind and key_of(kind)


def _uncached(kind: Any, classes: Iterable[Any]) -> Any:
    return SCALARS[kind] if isinstance(kind, str) else kind and class_of_key(kind, among=classes)


def started_by(environments: Iterable[Any]) -> list[Any]:
    """Those among the constants of machine code."""
    return [const for e in environments for const in e.consts if isinstance(const, Started)]


# --- in a runtime -----------------------------------------------------------------------------------------------------

_known: dict[int, BodyMeta] = {}  # by their keys
handles.on_open(_known.clear)
handles.on_close(_known.clear)


def known_body(key: int) -> BodyMeta | None:
    """The class of frames with that key, if it is one of these, and this process knows it."""
    return _known.get(key)
