"""Machine code without Numba: what it takes to call a compiled function, out of all that the compiler knows of it.

A function that Numba takes from its cache brings its types and its bitcode along, becomes a module of LLVM's again, and first the compiler's
registries are brought up to date. A process that only calls it needs its object code, the names of its entries, and the Python objects that the
code refers to. In a P the rest was several MiB of private memory: not for what was loaded, but for the shared pages that were written to on the way,
to count references.
"""

from __future__ import annotations

import ctypes
import pickle
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import llvmlite.binding as llvm
from numba import _dynfunc
from numba.core.compiler import CompileResult
from numba.core.environment import lookup_environment
from numba.core.registry import cpu_target
from numba.core.serialize import dumps

_ENVIRONMENT = "_ZN08NumbaEnv"  # begins the names of those variables


@dataclass(frozen=True)
class Loaded:
    """A function to call: ``entry`` by Python, ``address`` by other machine code.

    ``environments`` have the Python objects that are its constants. They and what is ``owned`` must live as long.
    """

    entry: Callable[..., Any]
    address: int
    environments: tuple[Any, ...]
    owned: object = None


def compiled_here(code: CompileResult) -> Loaded:
    address = code.library.get_pointer_to_function(code.fndesc.llvm_cfunc_wrapper_name)
    return Loaded(code.entry_point, address, (code.environment, *_environments_of(code)), code)


def _environments_of(code: CompileResult) -> list[Any]:
    """Of all functions that are inlined: as Numba finds them, but those it would not put into a cache too."""
    found = (
        lookup_environment(v.name)
        for v in code.library._final_module.global_variables
        if v.name.startswith(_ENVIRONMENT)
    )
    return [environment for environment in found if environment is not None]


def pack(code: CompileResult, has_constants: bool = True) -> bytes:
    """A function that was compiled here, for :func:`unpack`. ``has_constants``: it, or what is inlined, may refer to objects of Python."""
    (_, _, (object_code, _)), fndesc, own, *_, initializers, environments = code._reduce()
    entries = fndesc.llvm_cpython_wrapper_name, fndesc.llvm_cfunc_wrapper_name
    constants = environments if has_constants else ()
    return dumps((object_code, fndesc.qualname, entries, own, constants, initializers or ()))  # type: ignore[no-any-return]


def unpack(data: bytes, prepare: Callable[[tuple[Any, ...]], None] = lambda environments: None) -> Loaded:
    """The function, loaded. The symbols of what it calls must be known already: a missing one ends the process.

    ``prepare`` is called with the environments before anything is loaded, and may raise.
    """
    object_code, qualname, (python_entry, c_entry), own, environments, initializers = pickle.loads(data)
    prepare((own, *environments))
    for initialize in initializers:
        initialize()
    engine = _engine()
    engine.add_object_file(llvm.ObjectFileRef.from_data(object_code))
    engine.finalize_object()
    for environment in (own, *environments):
        word = engine.get_global_value_address(environment.env_name)
        ctypes.c_void_p.from_address(word).value = id(environment)
    name = qualname.split(".")[-1]
    address = engine.get_function_address(python_entry)
    entry = _dynfunc.make_function(
        sys.modules[__name__], name, f"machine code of {qualname}", address, own, environments
    )
    return Loaded(entry, engine.get_function_address(c_entry), (own, *environments))


def _engine() -> llvm.ExecutionEngine:
    """The one that Numba compiles into: LLVM resolves symbols within an engine, and what Numba's code needs is known to this one."""
    return cpu_target.target_context.codegen()._engine._ee
