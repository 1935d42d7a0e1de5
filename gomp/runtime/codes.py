"""What kernels know of this process's Python code, for the stacks of sampled objects: its table, in memory of the process's own."""

from __future__ import annotations

import ctypes

import numpy as np

from gomp.core.mutator.pythonstack import CODE_RECORD, CODES, CODES_BYTES
from gomp.core.shm import layout
from gomp.core.shm.atomics import allow_range
from gomp.core.shm.records import p_dtype, view
from gomp.runtime import handles

_table = (ctypes.c_int64 * (CODES_BYTES // 8))()
_decref = ctypes.pythonapi.Py_DecRef
_decref.argtypes = (ctypes.c_void_p,)


def _tell() -> None:
    allow_range(ctypes.addressof(_table), CODES_BYTES)
    view(p_dtype, layout.SELF_BASE)[0].codes = ctypes.addressof(_table)


def _forget() -> None:
    """Another runtime has other places. The code that was kept may go."""
    codes = np.frombuffer(memoryview(_table), np.int64)[: CODES * CODE_RECORD // 8 : CODE_RECORD // 8]
    for at in codes.nonzero()[0].tolist():
        code, codes[at] = int(codes[at]), 0
        _decref(code)


handles.on_open(_tell)
handles.on_close(_forget)
