"""What the machine code of a compiled function depends on, as a hash; and which types it may make.

Its bytecode and constants, and whatever its names lead to, as Numba freezes it into the code: other compiled functions, structs and the
structs they refer to, numbers, strings, arrays. Where a name leads to something whose value cannot be told, there is no
fingerprint, and the function is compiled afresh in each process.
"""

from __future__ import annotations

import builtins
import functools
import hashlib
import secrets
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numba.core import errors
from numba.core.compiler import run_frontend
from numba.core.dispatcher import Dispatcher
from numba.core.extending import _Intrinsic

from gomp.errors import CompileError
from gomp.runtime.bodies import digest_of_body, makes_body
from gomp.runtime.boxes import all_boxes, box
from gomp.runtime.classnames import GENERIC, fold_classes
from gomp.runtime.frames import FrameMeta
from gomp.runtime.kinds import Scalar
from gomp.runtime.ndarrays import block_of
from gomp.runtime.parts import ByValue, Inline
from gomp.runtime.pool import Pool
from gomp.runtime.pythoncalls import function_key
from gomp.runtime.references import ReferenceMeta, array_class, is_struct, key_of, layout_of, name_of, trait
from gomp.runtime.root_table import Global

_PLAIN = (int, float, complex, bool, str, bytes, type(None), type(Ellipsis), np.generic)
_OPAQUE = (types.BuiltinFunctionType, type, np.ufunc)


class Survey:
    """A walk over everything that a function reaches. ``classes``: the structs and arrays; ``certain``: whether all of it was understood.

    ``functions``: those that machine code may have as constants, by what stands for them in the cache.
    Without ``places`` it does not matter where in which file they stand, and frames count by what they do.
    """

    def __init__(self, function: Any, places: bool = True) -> None:
        self._places = places
        self.classes: dict[Any, None] = {}
        self.functions: dict[tuple[str, str], Any] = {}
        self.certain = True
        self._seen: set[int] = set()
        self._digest = hashlib.sha256()
        self._makes_by_value = self._writes_classes = False
        self._function(function)
        if self._makes_by_value:
            for cls in filter(is_struct, list(self.classes)):
                self.classes[array_class(ByValue(cls))] = None

    def hexdigest(self, *more: object) -> str:
        digest = self._digest.copy()
        digest.update(repr((compiler_sources(), *more)).encode())
        return digest.hexdigest()[:40]

    def _note(self, *what: object) -> None:
        self._digest.update(repr(what).encode() + b"\0")

    def _first_time(self, value: object) -> bool:
        if id(value) in self._seen:
            return False
        self._seen.add(id(value))
        return True

    def _function(self, function: Any) -> None:
        if not self._first_time(function):
            return
        self._note("function", function.__module__, function.__qualname__)
        if "__name__" not in function.__globals__:  # of exec: Numba's cache does not keep its constants
            self.certain = False
        self._value("defaults", function.__defaults__)
        self._note(sorted((k, repr(v)) for k, v in function.__annotations__.items()))
        for code in _all_code(function.__code__):
            self._code(code, function.__globals__)
        if self._writes_classes:
            self._writes_classes = False
            self._written_out(function)
        for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
            try:
                self._value(name, cell.cell_contents)
            except ValueError:  # not assigned yet: nobody can say what it will be
                self.certain = False

    def _code(self, code: types.CodeType, names: dict[str, Any]) -> None:
        plain = [
            sorted(map(repr, c)) if isinstance(c, frozenset) else c
            for c in code.co_consts
            if not isinstance(c, types.CodeType)
        ]
        self._note(code.co_code, plain, code.co_names, code.co_varnames)
        if self._places:
            self._note(code.co_filename, code.co_firstlineno, code.co_linetable)
        modules = []
        for name in code.co_names:
            if name in names:
                self._value(name, names[name])
                if isinstance(names[name], types.ModuleType):
                    modules.append(names[name])
            elif not hasattr(builtins, name):
                for module in modules:
                    if hasattr(module, name):
                        self._value(name, getattr(module, name))

    def _value(self, name: str, value: Any) -> None:
        if any(value is generic for generic in GENERIC):
            self._writes_classes = True
        elif isinstance(value, ReferenceMeta):
            self._class(value)
        elif value is box:
            for made in all_boxes():
                self._class(made)
        elif isinstance(value, FrameMeta):
            self._frame(value)
        elif isinstance(value, ByValue):
            self._class(array_class(value))
        elif value is Inline:
            self._makes_by_value = True
        elif isinstance(value, Scalar):
            self._note(name, value.name)
        elif isinstance(value, _PLAIN):
            self._note(name, value)
        elif isinstance(value, (tuple, list)):
            self._note(name, len(value))
            for item in value:
                self._value(name, item)
        elif isinstance(value, Global):
            self._note(name, value.name)
            self._class(value.cls)
        elif isinstance(value, Pool):
            self._note(name, value.name, value.max_bytes)
            self._class(value.cls)
            self._value("new", value.new)
        elif hasattr(value, "py_func") and isinstance(value.py_func, types.FunctionType):
            self._note(name, isinstance(value, Dispatcher))
            self._function(value.py_func)
            self._named(value)
        elif isinstance(value, np.ndarray) and block_of(value) is not None:
            raise CompileError(
                f"{name} is an array of the shared heap, and compiled code would have what it holds now as a constant: make it an argument"
            )
        elif isinstance(value, np.ndarray) and not value.dtype.hasobject:
            self._note(name, value.dtype, value.shape, hashlib.sha256(value.tobytes()).digest())
        elif isinstance(value, types.ModuleType):
            self._note(name, value.__name__)
        elif isinstance(value, _Intrinsic) and _is_of_the_compiler(value._defn):
            self._note(name, value._defn.__module__, value._defn.__qualname__)
        elif isinstance(value, (*_OPAQUE, types.FunctionType)) or type(value).__module__.startswith("numpy"):
            self._note(name, getattr(value, "__module__", ""), getattr(value, "__qualname__", repr(value)))
            if isinstance(value, types.FunctionType):
                self._named(value)
                if makes_body(value):  # the key of what it is given is in the machine code
                    self._note(digest_of_body(value))
        else:
            self.certain = False

    def _written_out(self, function: Any) -> None:
        try:
            for cls in fold_classes(run_frontend(function)):  # type: ignore[no-untyped-call]
                self._class(cls)
        except (errors.NumbaError, errors.UnsupportedBytecodeError):  # the compiler will say what is wrong with it
            self.certain = False

    def _named(self, function: Any) -> None:
        if self.functions.setdefault(function_key(function), function) is not function:
            self.certain = False

    def _frame(self, cls: FrameMeta) -> None:
        """Its step is a program of its own."""
        if self._first_time(cls):
            self.classes[cls] = None
            if self._places:
                self._note("frame", key_of(cls))
            else:
                self._note("frame", name_of(cls), cls.layout.shape)
                self._function(cls.step)
            for target in layout_of(cls).targets:
                (self._frame if isinstance(target, FrameMeta) else self._class)(target)

    def _class(self, cls: Any) -> None:
        if not self._first_time(cls):
            return
        self.classes[cls] = None
        self._note("class", key_of(cls))
        if not trait(cls, "length"):  # else no array can be made of it
            self.classes[array_class(cls)] = None
        for target in layout_of(cls).targets:
            self._class(target)


def digest_of_step(cls: FrameMeta) -> str:
    """What a frame does, as a hash: the same wherever it is declared in the same way; if that cannot be told, another each time."""
    survey = Survey(cls.step, places=False)
    return survey.hexdigest()[:16] if survey.certain else secrets.token_hex(8)


def _is_of_the_compiler(function: Any) -> bool:
    """Whether the compiler's sources say all about it."""
    return function.__module__.startswith(f"{__package__}.") and function.__closure__ is None


def _all_code(code: types.CodeType) -> Iterator[types.CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _all_code(constant)


_COMPILER = (
    "actiontypes", "arrays", "arraytypes", "arraywalks", "bodies", "boxes", "boxtypes", "callsites", "chan", "chantypes", "classnames",
    "collecttypes", "compiled", "crossing", "endings", "fingerprint", "frames", "frametypes", "globaltypes", "gotypes", "hashmap",
    "keywords", "kinds", "lifetimes", "lifetypes", "madetypes", "mapkeys", "maptypes", "mapwalks", "ndarrays", "ndarraytypes", "parts",
    "places", "pointers", "polling", "pool", "pooltypes", "pythoncalls", "references", "refops", "reftypes", "root_table", "select", "selecttypes",
    "sitetable", "stacks", "steps", "structs", "sync", "synctypes", "texts", "texttypes", "textwalks", "weak",
)  # fmt: skip


@functools.cache
def compiler_sources() -> str:
    """A hash of the compiler itself: the modules here that decide what code is made."""
    digest = hashlib.sha256()
    for name in _COMPILER:
        digest.update((Path(__file__).parent / f"{name}.py").read_bytes())
    digest.update((Path(__file__).parent.parent / "errors.py").read_bytes())
    return digest.hexdigest()
