"""Places in programs as shared memory has them: read by anybody, whatever the runtime does. Who writes them: ``sites``, ``callsites``."""

from __future__ import annotations

import ctypes
import hashlib
import json
from dataclasses import dataclass

from gomp.core.mutator.sites import NO_SITE, find_site
from gomp.core.shm import layout
from gomp.core.shm.records import site_dtype, view
from gomp.runtime.recordaddr import site_addr


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
Labels = tuple[tuple[str, str], ...]  # of a goroutine: keys and values, by key. See ``labels``


def key_of(text: bytes) -> int:
    """The 62-bit number, not 0, under which the table has this text."""
    return int.from_bytes(hashlib.sha256(text).digest()[:8], "little") >> 2 | 1


def text_of(number: int) -> str:
    """What is at that number of the table; "" at NO_SITE, or at what was read while it changed."""
    if not NO_SITE < number <= layout.MAX_SITES:
        return ""
    record = view(site_dtype, site_addr(number))[0]
    if not record.key:
        return ""
    return ctypes.string_at(int(record.text), int(record.text_bytes)).decode(errors="replace")


def site_of(number: int) -> Site:
    """The place at that number; UNKNOWN at NO_SITE."""
    text = text_of(number)
    function, _, rest = text.partition("\n")
    file, _, line = rest.rpartition("\n")
    return Site(function, file, int(line) if line.isascii() and line.isdecimal() else 0)


def labels_of(number: int) -> Labels:
    """The labels at that number; none at NO_SITE."""
    return tuple((key, value) for key, value in json.loads(text_of(number) or "[]"))


def frame_at(key: int, line: int) -> Site:
    """A frame on a stack: of what is at the place with that key, which begins there, the line; FRAME_IS_PLACE: the place itself."""
    place = site_with_key(key)
    return Site(place.function, place.file, line if line > 0 else place.line)


def site_with_key(key: int) -> Site:
    """The place that the table has under ``key``: of a frame's type, where its step begins."""
    return site_of(int(find_site(key)))
