"""What a process of Go brings along beside its program: data of its own, which every cycle scans, and objects of its own, which every cycle marks.

Go's trace names the data (globals); after a collection in an empty program its metrics name the objects (``/gc/scan/heap``, ``/gc/heap/live``):
so much, and so much more for each P.
"""

from __future__ import annotations

import gomp
from workers.reference.entries import Entry

DATA = 164_840  # bytes of globals
_SCANNED, _SCANNED_PER_P = 18_064, 19_472  # bytes of objects with references
_UNSCANNED, _UNSCANNED_PER_P = 12_272, 3_248  # and without

_HEAP = gomp.Global("reference.heap", gomp.Array[Entry])
_BYTES = gomp.Global("reference.bytes", gomp.Array[int])


def bring_data(nbytes: int) -> None:
    """Globals of that many bytes, all None, and, if that is more than none, objects. What is there already counts."""
    for i in range(nbytes // 8):
        gomp.Global(f"reference.data.{i}", Entry).set(None)
    if nbytes:
        procs = gomp.num_procs()
        _HEAP.set(gomp.array(Entry, (_SCANNED + _SCANNED_PER_P * procs) // 8 - 1))
        _BYTES.set(gomp.array(int, (_UNSCANNED + _UNSCANNED_PER_P * procs) // 8 - 1))
