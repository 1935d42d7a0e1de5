"""Places in programs as shared memory has them: read by anybody, whatever the runtime does. Who writes them: ``sites``, ``callsites``."""

from __future__ import annotations

import ctypes
import hashlib
from dataclasses import dataclass

from gomp.core.mutator.sites import NO_SITE, find_site, site_addr
from gomp.core.shm.records import site_dtype, view


@dataclass(frozen=True)
class Site:
    """A line of a program: the function's qualified name, its file, and the line. All empty and 0 where nobody knows."""

    function: str = ""
    file: str = ""
    line: int = 0

    @property
    def text(self) -> bytes:
        """As the table has it."""
        return f"{self.function}\n{self.file}\n{self.line}".encode(errors="replace")

    def __str__(self) -> str:
        return f"{self.file}:{self.line}" if self.file else "?"


UNKNOWN = Site()


def key_of(site: Site) -> int:
    """The 62-bit number, not 0, under which the table has it."""
    return int.from_bytes(hashlib.sha256(site.text).digest()[:8], "little") >> 2 | 1


def site_of(number: int) -> Site:
    """What is at that number of the table; UNKNOWN at NO_SITE."""
    if number == NO_SITE:
        return UNKNOWN
    record = view(site_dtype, site_addr(number))[0]
    if not record.key:
        return UNKNOWN
    text = ctypes.string_at(int(record.text), int(record.text_bytes)).decode(errors="replace")
    function, _, rest = text.partition("\n")
    file, _, line = rest.rpartition("\n")
    return Site(function, file, int(line) if line.isdigit() else 0)


def site_with_key(key: int) -> Site:
    """The place that the table has under ``key``: of a frame's type, where its step begins."""
    return site_of(int(find_site(key)))
