"""The numbers of the heap as Python reads and writes them: straight through the mapping, without a kernel.

Why that is sound. The handle keeps the object, which never moves. No collector looks at a word that holds a number, so it does not matter whether the
world is stopped. Each access is one aligned load or store of the number's width. What holds a reference is never read or written here: such a store
would have no barrier, and such an address would be in flight.

``views[code]`` is a list of one memoryview over the whole heap, in elements of that format: the element at address ``a`` has the index
``(a - HEAP_BASE) >> shift``. While no runtime is open it is empty. For a single number, the index is worked out before the view is taken, in steps
between which Python lets no other thread run: so nobody reads it from a runtime that another thread has ended. Whoever slices a view does not keep
the slice: only a view that :mod:`~gomp.runtime.mapping` watches keeps the mapping.
"""

from __future__ import annotations

import ctypes
from typing import Any

from gomp.core.shm import layout
from gomp.runtime.kinds import SCALARS

Cell = list["memoryview[Any]"]
views: dict[str, Cell] = {kind.code: [] for kind in SCALARS.values()}
words, octets = views["q"], views["B"]


def open_views(nbytes: int) -> None:
    """The heap's segment, of ``nbytes``, is mapped."""
    whole = memoryview((ctypes.c_char * nbytes).from_address(layout.HEAP_BASE)).cast("B")
    for code, cell in views.items():
        cell[:] = [whole.cast(code)]  # type: ignore[call-overload]


def close_views() -> None:
    for code, cell in views.items():
        cell[:] = [memoryview(b"").cast(code)]  # type: ignore[call-overload]


close_views()
