"""Reading no more of the compiler's library than it uses, where memory is short.

A fault on a page of a file reads what lies around it as well, up to the device's readahead: 128 KiB by default, 4 MiB or more where somebody has
tuned it. The compiler jumps about in 96 MiB of LLVM's code. In a cgroup with less than that to spare each fault then throws out what the next one
wants: at 8 MiB a program that takes seconds was not compiled within two minutes.

``MADV_RANDOM`` is meant for this, and enough before Linux 6.16. Since then it does not count for code, but no fault reads beyond its mapping: so the
code becomes a row of small ones. Neighbours must differ for that, by a flag that says nothing to anybody but who writes a core dump.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from pathlib import Path

from llvmlite.utils import get_library_name

from gomp.core.shm.libc import libc

PIECE = 128 << 10  # bytes: what Linux reads by default
MAPS = Path("/proc/self/maps")


def read_little() -> None:
    """From here on a fault of this process on a page of LLVM's library reads at most PIECE bytes."""
    for start, end, is_code in mappings(MAPS.read_text(), get_library_name()):
        libc.madvise(start, end - start, mmap.MADV_RANDOM)
        for piece in range(start, end, 2 * PIECE) if is_code else ():
            libc.madvise(piece, min(PIECE, end - piece), mmap.MADV_DONTDUMP)


def mappings(maps: str, library: str) -> Iterator[tuple[int, int, bool]]:
    """Where a library is, by the text of ``/proc/PID/maps``: addresses of begin and end, and whether code is there."""
    for line in maps.splitlines():
        addresses, flags, _, _, _, *path = line.split(maxsplit=5)
        if path and Path(path[0]).name == library:
            start, end = (int(address, 16) for address in addresses.split("-"))
            yield start, end, "x" in flags
