"""Compiling functions before anybody calls them, for the arguments that their annotations name.

What an image brings along, no container has to compile: a compiler takes memory that a small one does not have.
"""

from __future__ import annotations

import importlib
import os
import pkgutil
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from types import ModuleType

from gomp.core.jit import COMPILED
from gomp.errors import ConfigError
from gomp.runtime import compiled, program_cache
from gomp.runtime.compiled import Compiled


def compile_ahead(names: Iterable[str]) -> int:
    """Compile what modules of these names, and those below them, declare and call from Python; how many functions the cache has of them now.

    Left out are functions whose annotations do not say what their arguments are. Each is compiled in a child of its own, as on a P.
    Raises ConfigError for what cannot be imported, CompileError for what cannot be compiled.
    """
    if not COMPILED:
        return 0
    found = dict.fromkeys(function for name in names for module in _modules(name) for function in _declared_in(module))
    compiled.prepare()
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as threads:
        return sum(threads.map(_compile, found))


def _compile(function: Compiled[..., object]) -> bool:
    kinds = function.annotated_kinds()
    if kinds is None:
        return False
    program_cache.do_in_child(lambda: function.program(kinds))
    return True


def _modules(name: str) -> Iterator[ModuleType]:
    try:
        top = importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name and not f"{name}.".startswith(f"{error.name}."):
            raise
        raise ConfigError(f"there is no module {name}") from None
    yield top
    for below in pkgutil.walk_packages(getattr(top, "__path__", ()), f"{name}."):
        yield importlib.import_module(below.name)


def _declared_in(module: ModuleType) -> Iterator[Compiled[..., object]]:
    for value in vars(module).values():
        if isinstance(value, Compiled) and value.py_func.__module__ == module.__name__:
            yield value
