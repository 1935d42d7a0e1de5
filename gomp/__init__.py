"""gomp: Go's memory system as a multi-process runtime in Python.

Nothing heavy is imported until a name is used: ``gomp --help`` and a bad option answer at once, and the coordinator can set up its process
before numpy is loaded.
"""

from __future__ import annotations

import builtins
import importlib
import sys
from typing import TYPE_CHECKING, Any

from gomp.errors import (
    CleanupError,
    ClosedChannel,
    CompileError,
    ConfigError,
    Deadlock,
    FinalizerError,
    GompError,
    HeapCorrupt,
    Interrupted,
    MessageTooLarge,
    NilDereference,
    NoFreeP,
    OutOfMemory,
    ProgramError,
    RuntimeLost,
    SegmentError,
    StackEscapeError,
    StackOverflow,
    StaleReference,
    WorkerDied,
)

if TYPE_CHECKING:
    from gomp import debug, metrics
    from gomp.runtime.arrays import Array, array
    from gomp.runtime.attach import attach
    from gomp.runtime.boxes import Box, box
    from gomp.runtime.chan import Chan
    from gomp.runtime.compiled import compiled
    from gomp.runtime.current import gc, go, num_goroutine, num_procs, sleep
    from gomp.runtime.executor import Executor
    from gomp.runtime.figures import gc_stats, mem_stats
    from gomp.runtime.frames import Action, Frame, frame
    from gomp.runtime.hashmap import Map, map
    from gomp.runtime.kinds import float32, float64, int8, int16, int32, int64, uint8, uint16, uint32, uint64
    from gomp.runtime.lifetimes import Cleanup, add_cleanup, set_finalizer
    from gomp.runtime.ndarrays import NDArray, ndarray
    from gomp.runtime.parts import Inline
    from gomp.runtime.peer import Goroutine
    from gomp.runtime.pointers import Pointer, address, keep_alive, pointer
    from gomp.runtime.pool import Pool
    from gomp.runtime.retention import Retention, who_retains
    from gomp.runtime.root_table import Global, globals
    from gomp.runtime.runtime import Runtime
    from gomp.runtime.select import select, selecting
    from gomp.runtime.structs import new, struct
    from gomp.runtime.sync import Mutex, WaitGroup
    from gomp.runtime.texts import Bytes, Str
    from gomp.runtime.texts import bytes_ as bytes
    from gomp.runtime.texts import str_ as str
    from gomp.runtime.weak import Weak, weak

_WIDTHS = ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "float32", "float64")
_HOMES = {
    "attach": "gomp.runtime.attach",
    "Chan": "gomp.runtime.chan",
    "compiled": "gomp.runtime.compiled",
    "gc": "gomp.runtime.current",
    "go": "gomp.runtime.current",
    "num_goroutine": "gomp.runtime.current",
    "num_procs": "gomp.runtime.current",
    "sleep": "gomp.runtime.current",
    "Executor": "gomp.runtime.executor",
    "Action": "gomp.runtime.frames",
    "Frame": "gomp.runtime.frames",
    "frame": "gomp.runtime.frames",
    "gc_stats": "gomp.runtime.figures",
    "mem_stats": "gomp.runtime.figures",
    "Map": "gomp.runtime.hashmap",
    "map": "gomp.runtime.hashmap",
    "Cleanup": "gomp.runtime.lifetimes",
    "Pointer": "gomp.runtime.pointers",
    "Weak": "gomp.runtime.weak",
    "add_cleanup": "gomp.runtime.lifetimes",
    "address": "gomp.runtime.pointers",
    "keep_alive": "gomp.runtime.pointers",
    "pointer": "gomp.runtime.pointers",
    "set_finalizer": "gomp.runtime.lifetimes",
    "weak": "gomp.runtime.weak",
    "Goroutine": "gomp.runtime.peer",
    "Pool": "gomp.runtime.pool",
    "NDArray": "gomp.runtime.ndarrays",
    "ndarray": "gomp.runtime.ndarrays",
    "Retention": "gomp.runtime.retention",
    "who_retains": "gomp.runtime.retention",
    "Global": "gomp.runtime.root_table",
    "globals": "gomp.runtime.root_table",
    "Runtime": "gomp.runtime.runtime",
    "Array": "gomp.runtime.arrays",
    "array": "gomp.runtime.arrays",
    "Box": "gomp.runtime.boxes",
    "box": "gomp.runtime.boxes",
    "Inline": "gomp.runtime.parts",
    "Bytes": "gomp.runtime.texts",
    "Str": "gomp.runtime.texts",
    "bytes": "gomp.runtime.texts",
    "str": "gomp.runtime.texts",
    "select": "gomp.runtime.select",
    "selecting": "gomp.runtime.select",
    "Mutex": "gomp.runtime.sync",
    "WaitGroup": "gomp.runtime.sync",
    "new": "gomp.runtime.structs",
    "struct": "gomp.runtime.structs",
    **dict.fromkeys(_WIDTHS, "gomp.runtime.kinds"),
}

__all__ = [
    "Action",
    "Array",
    "Box",
    "Bytes",
    "Chan",
    "Cleanup",
    "CleanupError",
    "ClosedChannel",
    "CompileError",
    "ConfigError",
    "Deadlock",
    "Executor",
    "FinalizerError",
    "Frame",
    "Global",
    "GompError",
    "Goroutine",
    "HeapCorrupt",
    "Inline",
    "Interrupted",
    "Map",
    "MessageTooLarge",
    "Mutex",
    "NDArray",
    "NilDereference",
    "NoFreeP",
    "OutOfMemory",
    "Pointer",
    "Pool",
    "ProgramError",
    "Retention",
    "Runtime",
    "RuntimeLost",
    "SegmentError",
    "StackEscapeError",
    "StackOverflow",
    "StaleReference",
    "Str",
    "WaitGroup",
    "Weak",
    "WorkerDied",
    "add_cleanup",
    "address",
    "array",
    "attach",
    "box",
    "bytes",
    "compiled",
    "debug",
    "float32",
    "float64",
    "frame",
    "gc",
    "gc_stats",
    "globals",
    "go",
    "int8",
    "int16",
    "int32",
    "int64",
    "keep_alive",
    "map",
    "mem_stats",
    "metrics",
    "ndarray",
    "new",
    "num_goroutine",
    "num_procs",
    "pointer",
    "select",
    "selecting",
    "set_finalizer",
    "sleep",
    "str",
    "struct",
    "uint8",
    "uint16",
    "uint32",
    "uint64",
    "weak",
    "who_retains",
]


def __getattr__(name: builtins.str) -> Any:
    if name in ("debug", "metrics"):
        return importlib.import_module(f"gomp.{name}")
    if name not in _HOMES:
        raise AttributeError(f"module 'gomp' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOMES[name]), f"{name}_" if name in ("bytes", "str") else name)
    setattr(sys.modules[__name__], name, value)
    return value
