"""What a process of Go brings along beside its program: data of its own, which every cycle scans and every goal counts."""

from __future__ import annotations

import gomp
from workers.reference.entries import Entry

DATA = 164_840  # bytes that Go's trace names for a small program


def bring_data(nbytes: int) -> None:
    """Globals of that many bytes, all None. Those that are there already count."""
    for i in range(nbytes // 8):
        gomp.Global(f"reference.data.{i}", Entry).set(None)
