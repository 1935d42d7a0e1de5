"""gomp: Go's memory system as a multi-process runtime in Python.

Nothing heavy is imported until a name is used: ``gomp --help`` and a bad option answer at once, and the coordinator can set up its process
before numpy is loaded.
"""

from __future__ import annotations

import importlib
import sys
from typing import TYPE_CHECKING, Any

from gomp.errors import (
    CompileError,
    ConfigError,
    GompError,
    HeapCorrupt,
    Interrupted,
    MessageTooLarge,
    NilDereference,
    OutOfMemory,
    ProgramError,
    RuntimeLost,
    SegmentError,
    StackOverflow,
    WorkerDied,
)

if TYPE_CHECKING:
    from gomp import debug
    from gomp.runtime.compiled import compiled
    from gomp.runtime.current import gc, go, num_procs
    from gomp.runtime.hashmap import Map, map
    from gomp.runtime.peer import Goroutine
    from gomp.runtime.pool import Pool
    from gomp.runtime.root_table import Global, globals
    from gomp.runtime.runtime import Runtime
    from gomp.runtime.structs import Array, array, new, struct

_HOMES = {
    "compiled": "gomp.runtime.compiled",
    "gc": "gomp.runtime.current",
    "go": "gomp.runtime.current",
    "num_procs": "gomp.runtime.current",
    "Map": "gomp.runtime.hashmap",
    "map": "gomp.runtime.hashmap",
    "Goroutine": "gomp.runtime.peer",
    "Pool": "gomp.runtime.pool",
    "Global": "gomp.runtime.root_table",
    "globals": "gomp.runtime.root_table",
    "Runtime": "gomp.runtime.runtime",
    "Array": "gomp.runtime.structs",
    "array": "gomp.runtime.structs",
    "new": "gomp.runtime.structs",
    "struct": "gomp.runtime.structs",
}

__all__ = [
    "Array",
    "CompileError",
    "ConfigError",
    "Global",
    "GompError",
    "Goroutine",
    "HeapCorrupt",
    "Interrupted",
    "Map",
    "MessageTooLarge",
    "NilDereference",
    "OutOfMemory",
    "Pool",
    "ProgramError",
    "Runtime",
    "RuntimeLost",
    "SegmentError",
    "StackOverflow",
    "WorkerDied",
    "array",
    "compiled",
    "debug",
    "gc",
    "globals",
    "go",
    "map",
    "new",
    "num_procs",
    "struct",
]


def __getattr__(name: str) -> Any:
    if name == "debug":
        return importlib.import_module("gomp.debug")
    if name not in _HOMES:
        raise AttributeError(f"module 'gomp' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOMES[name]), name)
    setattr(sys.modules[__name__], name, value)
    return value
