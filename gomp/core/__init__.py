"""The compiled core: kernels that take and return int64 and float64, raise nothing and allocate no Python objects.

Layers, each importing only from those before it: ``shm`` (memory, records, atomics, locks), ``sched`` (who runs, who is stopped),
``heap`` (pages, spans, size classes), ``gc`` (mark, sweep, verify), ``mutator`` (what a program calls).
"""

from gomp.core.jit import COMPILED, inline, kernel, load_kernels, primitive

__all__ = ["COMPILED", "inline", "kernel", "load_kernels", "primitive"]
