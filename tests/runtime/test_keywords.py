"""Keywords of calls inside of ``try``: the arguments that they name, wherever they stand."""

from __future__ import annotations

import sys

import pytest

import gomp
from gomp.errors import CompileError
from gomp.runtime.compiled import compiled
from gomp.runtime.structs import new, struct


@struct
class Two:
    a: int
    b: int


@compiled
def digits(a: int, b: int, c: int = 7) -> int:
    return 100 * a + 10 * b + c


@gomp.frame
class Digits(gomp.Frame[int]):
    a: int
    b: int

    def step(f):
        return f.ret(10 * f.a + f.b)


@gomp.frame
class Calls(gomp.Frame[int]):
    calls: int
    found: int

    def step(f):
        try:
            f.calls += 1
            if f.calls == 1:
                return f.call(Digits, b=1, a=5, into="found")
        except Exception:
            return f.ret(-1)
        return f.ret(f.found)


@compiled
def new_struct() -> Two:
    try:
        made = new(Two, b=1, a=5)
    except Exception:
        made = new(Two)
    return made


@compiled
def calls(b: int) -> tuple[int, int, int, int]:
    inner, outer, handled, after = 0, 0, 0, 0
    try:
        try:
            inner = digits(c=digits(b=2, a=1), b=b, a=5)
        finally:
            outer = digits(5, c=3, b=b)
        if b == 1:
            raise ValueError
    except Exception:
        handled = digits(b=b, a=5)
    finally:
        after = digits(c=b, b=2, a=5)
    return inner, outer, handled, after


@compiled
def run_goroutine() -> int:
    try:
        found = Digits.run(b=1, a=5)
    except Exception:
        found = -1
    return found


@compiled
def in_function_within(b: int) -> int:
    def inner(b):
        try:
            found = digits(b=b, a=5)
        except Exception:
            found = -1
        return found

    return inner(b)


def test_fields_of_a_new_struct(heap):
    made = new_struct()
    assert (made.a, made.b) == (5, 1)


@pytest.mark.parametrize("b", [1, 2])
def test_calls_within_one_another_handlers_and_finally(heap, b):
    assert calls(b) == calls.py_func(b)


def test_slots_of_frames(heap):
    assert run_goroutine() == 51
    assert Calls.run() == 51


@pytest.mark.skipif(sys.version_info >= (3, 13), reason="there the names are an argument of the call")
def test_what_is_translated_by_numba_is_refused(heap):
    line = in_function_within.py_func.__code__.co_firstlineno + 4
    problem = (
        "in a function within a function compiled code knows no keyword arguments inside of try: give them by position"
    )
    with pytest.raises(CompileError, match=rf"test_keywords.py:{line}: in in_function_within: {problem}"):
        in_function_within(1)
