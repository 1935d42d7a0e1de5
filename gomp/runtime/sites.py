"""Places in programs, made known by Python: where a goroutine is started or waited for from Python, and where the steps of frames begin."""

from __future__ import annotations

import contextlib
import inspect
import struct as packing
import sys
from collections.abc import Iterator
from types import CodeType
from typing import Any

from gomp.core.mutator.sites import NO_SITE, find_site, publish_site
from gomp.core.shm import layout
from gomp.core.shm.records import p_dtype, view
from gomp.errors import OutOfMemory
from gomp.runtime import handles, sitetable
from gomp.runtime.handles import table
from gomp.runtime.sitetable import Site
from gomp.runtime.type_table import reserved

_numbers: dict[tuple[str, str, int], int] = {}  # not by code objects: those of two files may be equal
handles.on_open(_numbers.clear)
handles.on_close(_numbers.clear)


def number_of_caller() -> int:
    """Number of the line of a program that has called gomp's functions, the innermost of which calls this; NO_SITE if none has."""
    frame: Any = sys._getframe(1)
    while frame is not None and is_ours(frame.f_globals):
        frame = frame.f_back
    return NO_SITE if frame is None else number_of(frame)


def number_of(frame: Any) -> int:
    """Number of the line at which a frame is."""
    return _number_of(frame.f_code, frame.f_lineno)


def _number_of(code: CodeType, line: int) -> int:
    where = code.co_qualname, code.co_filename, line
    number = _numbers.get(where)
    if number is None:
        text = Site(*where).text
        number = _numbers[where] = publish(sitetable.key_of(text), text)
    return number


@contextlib.contextmanager
def program(function: Any) -> Iterator[None]:
    """What runs on this P meanwhile is ``function``, for those who look at it from outside."""
    code = getattr(inspect.unwrap(function), "__code__", None)
    me = view(p_dtype, layout.SELF_BASE)[0]
    outer = int(me.program_site)
    me.program_site = outer if code is None else _number_of(code, code.co_firstlineno)
    try:
        yield
    finally:
        if table.is_open:
            me.program_site = outer


def is_ours(names: dict[str, Any]) -> bool:
    """Whether a module's names are those of gomp, or of what has started its process."""
    return (names.get("__package__") or "").partition(".")[0] == "gomp" or names.get("__name__") == "runpy"


def publish(key: int, text: bytes) -> int:
    """Have the table know a place by its ``text`` under ``key``: its number; NO_SITE where there is no room."""
    number = int(find_site(key))
    if number == NO_SITE:
        words = [word for (word,) in packing.iter_unpack("<q", text.ljust((len(text) + 7) & -8))]
        with contextlib.suppress(OutOfMemory):
            number = table.call(publish_site, key, reserved(words, "a place in a program"), len(text))
    return number
