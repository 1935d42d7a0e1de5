"""Where Python is, as places (:mod:`~gomp.core.mutator.sites`): the frames of the thread that has called a kernel, or the program around it.

A frame is a function's place and a line in it. What is known of code is in a table of the process's own, ``codes`` of its P: of an instruction its
code, its offset in it, the key of the function's place and the line. Such code is kept, so nothing else comes to be at its address. What finds no
room there is worked out each time.
"""

from __future__ import annotations

from gomp.core.jit import inline, kernel
from gomp.core.mutator.sites import add_site
from gomp.core.shm.atomics import load8, load64, lsr, mul64, store8, store64
from gomp.core.shm.interpreter import (
    caller_of,
    code_of,
    copy_file_of,
    copy_name_of,
    drop_object,
    has_interpreter,
    innermost_frame,
    keep_object,
    line_of,
    pause_gc,
    place_in_code,
    resume_gc,
)
from gomp.core.shm.records import self_p

CODES = 1 << 11
CODE_RECORD = 32
_TEXT = CODES * CODE_RECORD  # where a text is put together
_MOST_TEXT = 1 << 12  # bytes; of each of its parts a half
CODES_BYTES = _TEXT + 2 * _MOST_TEXT
_PROBES = 8
_FNV_PRIME, _FNV_BASIS = 1099511628211, 0xCBF29CE484222325 - (1 << 64)
_NEWLINE, _ZERO = 10, 48


@kernel("int64(int64, int64)")
def read_python_stack(out: int, most: int) -> int:
    """Put up to ``most`` frames to ``out``, the innermost first, two words each: how many. In KERNEL, holding nothing."""
    if most <= 0 or self_p().codes == 0 or has_interpreter() == 0:
        return 0
    was_on = pause_gc()
    frame, n = innermost_frame(), 0
    while frame != 0 and n < most:
        _put(frame, out + 16 * n)
        n += 1
        frame = caller_of(frame)
    if frame != 0:
        drop_object(frame)
    resume_gc(was_on)
    return n


@inline
def _put(frame: int, out: int) -> None:
    code, place = code_of(frame), place_in_code(frame)
    known = _find(code, place)
    if known == 0 or load64(known) == 0:
        store64(out, _describe(code))
        store64(out + 8, line_of(code, place))
        if known != 0:
            keep_object(code)
            store64(known + 8, place)
            store64(known + 16, load64(out))
            store64(known + 24, load64(out + 8))
            store64(known, code)
    else:
        store64(out, load64(known + 16))
        store64(out + 8, load64(known + 24))


@inline
def _find(code: int, place: int) -> int:
    """Address of what is known of that instruction, or of where it would be: there is 0 then. 0: there is no room."""
    at = lsr(code, 4) + place
    for _ in range(_PROBES):
        known = self_p().codes + (at & (CODES - 1)) * CODE_RECORD
        if load64(known) == 0 or (load64(known) == code and load64(known + 8) == place):
            return known
        at += 1
    return 0


@kernel("int64(int64)")
def _describe(code: int) -> int:
    """The key of the place of a function: it is in the table from now on, if there is room."""
    text = self_p().codes + _TEXT
    n = max(copy_name_of(code, text, _MOST_TEXT - 2), 0)
    store8(text + n, _NEWLINE)
    n += 1 + max(copy_file_of(code, text + n + 1, _MOST_TEXT - 2), 0)
    store8(text + n, _NEWLINE)
    store8(text + n + 1, _ZERO)
    n += 2
    digest = _FNV_BASIS
    for i in range(n):
        digest = mul64(digest ^ load8(text + i), _FNV_PRIME)
    key = lsr(digest, 2) | 1
    add_site(key, text, n)
    return key
