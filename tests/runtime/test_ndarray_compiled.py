"""``gomp.ndarray`` in compiled code: the same memory, indices that are checked, and nobody's memory kept or lost."""

from __future__ import annotations

import gc

import numpy as np
import pytest
from kernel_heap import collect_now

import gomp
from gomp.core.shm.records import GCSTATS, gcstats_dtype, view
from gomp.errors import CompileError
from gomp.runtime.compiled import compiled
from gomp.runtime.ndarrays import NDArray, block_of, ndarray
from gomp.runtime.structs import new, struct
from gomp.runtime.verify import verify
from gomp.runtime.weak import weak
from tests.free_slots import free_slots

PAIR = np.dtype([("a", "i4")])


@struct
class Item:
    number: int


@compiled
def weighted(a) -> float:
    """Sum of elements times their place."""
    total = 0.0
    for i in range(a.shape[0]):
        for j in range(a.shape[1]):
            total += a[i, j] * (i * a.shape[1] + j)
    return total


@compiled
def put(a, i: int, value: float) -> int:
    a[i] = value
    return len(a)


@compiled
def tail(a, n: int):
    return a[n:]


def filled(shape, dtype=float):
    a = ndarray(shape, dtype)
    a[...] = np.arange(a.size).reshape(a.shape)
    return a


def test_every_kind_of_view(heap):
    a = filled((4, 6))
    for b in (a, a.T, a[1:3], a[::-1, ::2], a[:, 1:4].T, a.reshape(2, 12), np.asarray(a), a[:0]):
        plain = np.array(b)
        assert weighted(b) == (plain * np.arange(plain.size).reshape(plain.shape)).sum()


@pytest.mark.parametrize("dtype", ["?", "i1", "u2", "i8", "f4", "c16"])
def test_numbers_of_every_width(heap, dtype):
    @compiled
    def copy(a, b) -> int:
        for i in range(len(a)):
            b[i] = a[i]
        return a.ndim * 1000 + a.size * 10 + b.shape[0]

    a, b = filled(5, dtype), ndarray(5, dtype)
    assert copy(a, b) == 1055
    assert np.array_equal(a, b)


def test_three_dimensions_and_none(heap):
    @compiled
    def fill(a, b) -> int:
        n = 0
        for i in range(a.shape[0]):
            for j in range(a.shape[1]):
                for k in range(a.shape[2]):
                    a[i, j, k] = n
                    n += 1
        b[()] = n
        return b[()]

    a, b = ndarray((2, 3, 4), "i4"), ndarray((), "i8")
    assert fill(a, b) == b[()] == 24
    assert a.ravel().tolist() == list(range(24))


def test_what_numba_knows_of_arrays(heap):
    @compiled
    def use(a) -> float:
        a[1:3] = 10.0
        return a.sum()

    a = filled(6)
    expected = np.array(a)
    expected[1:3] = 10
    assert use(a) == expected.sum()
    assert np.array_equal(a, expected)


@pytest.mark.parametrize("i", [5, -6, 1 << 40, -(1 << 40)])
def test_indices_are_checked(heap, i):
    a, after = filled(5), filled(5)
    with pytest.raises(IndexError, match="index is out of bounds"):
        put(a, i, 1.0)
    assert put(a, -1, 7.0) == 5
    assert (a[4], after.tolist()) == (7.0, [0, 1, 2, 3, 4])
    assert verify(3).problems == ()


def test_results_are_views_that_keep_the_memory(heap):
    a = filled(5)
    b = tail(a, 2)
    assert type(b) is NDArray
    assert block_of(b) is not None
    b[0] = 70
    assert a[2] == 70
    alive = weak(block_of(a).memory)
    del a
    collect_now()
    assert b.tolist() == [70, 3, 4]
    assert alive.value() is not None
    del b
    collect_now()
    assert alive.value() is None
    c = filled(3)
    assert tail(c, 0).tolist() == [0, 1, 2]
    assert type(tail(c, 3)) is NDArray


def test_results_of_its_own_and_constants(heap):
    table_of_constants = np.arange(3)

    @compiled
    def twice(a):
        return a * 2

    @compiled
    def constant():
        return table_of_constants

    a = filled(3)
    result = twice(a)
    assert type(result) is np.ndarray
    assert block_of(result) is None
    assert result.tolist() == [0, 2, 4]
    assert constant().tolist() == [0, 1, 2]


def test_the_memory_lives_while_the_program_runs(collected_heap):
    """Nobody else holds the array: only what the program was called with."""

    @compiled
    def churn(a, n: int) -> float:
        total = 0.0
        for i in range(n):
            new(Item, i)
            total += a[i % len(a)]
        return total

    before = int(view(gcstats_dtype, GCSTATS)[0].num_gc)
    assert churn(filled(1000), 1_000_000) == 1000 * sum(range(1000))
    assert int(view(gcstats_dtype, GCSTATS)[0].num_gc) > before
    assert verify(3).problems == ()


def test_an_exception_leaves_nothing_behind(heap):
    a = filled(5)
    alive = weak(block_of(a).memory)
    with pytest.raises(IndexError):
        put(a, 5, 1.0)
    in_use = free_slots()
    for _ in range(100):
        with pytest.raises(IndexError):
            put(a[1:], 5, 1.0)
    gc.collect()
    assert free_slots() == in_use
    del a
    gc.collect()
    collect_now()
    assert alive.value() is None


def test_compiled_functions_pass_arrays_on(heap):
    @compiled
    def outer(a, n: int) -> int:
        for i in range(n):
            put(a, i, i * 2.0)
        return len(tail(a, n))

    a = ndarray(10)
    assert outer(a, 4) == 6
    assert a.tolist() == [0, 2, 4, 6, 0, 0, 0, 0, 0, 0]


def test_what_is_refused(heap):
    a = filled(5)

    @compiled
    def pair(a):
        return 1, a

    @compiled
    def deep(a):
        return [(a, a)]

    @compiled
    def captured(i: int) -> float:
        return a[i]

    with pytest.raises(CompileError, match="an array is returned alone, not inside something else"):
        pair(a)
    with pytest.raises(CompileError, match="a list keeps no arrays alive in compiled code: use a tuple"):
        deep(a)
    with pytest.raises(CompileError, match=r"a is an array of the shared heap.*make it an argument"):
        captured(1)
    with pytest.raises(TypeError, match=r"argument a of tail is an array of this process.*gomp.ndarray\(3,\)"):
        tail(np.zeros(3), 1)
    for dtype in (">i4", "f2", [("a", "f2")]):
        with pytest.raises(
            TypeError, match=r"argument a of tail is an array of dtype .*, which compiled code does not"
        ):
            tail(ndarray(3, dtype), 1)
    a.flags.writeable = False
    assert tail(a, 1).flags.writeable is False
    with pytest.raises(CompileError, match="this array is read-only"):
        put(a, 1, 1.0)


# --- made in compiled code --------------------------------------------------------------------------------------------


@compiled
def backwards(n: int, m: int):
    made = ndarray((n, m), np.int32)
    for i in range(n):
        made[i] = i
    return made[1:, ::-1]


def test_one_that_a_program_makes_is_python_s(heap):
    made = backwards(3, 12)
    assert type(made) is NDArray
    assert made.dtype == np.int32
    assert made.tolist() == [[1] * 12, [2] * 12]
    assert block_of(made).made_as == (np.dtype(np.int32), (3, 12))
    assert block_of(made).addr % 64 == 0
    alive = weak(block_of(made).memory)
    collect_now()
    assert made.sum() == 36
    del made
    gc.collect()
    collect_now()
    assert alive.value() is None


@pytest.mark.parametrize(
    ("body", "dtype", "shape"),
    [
        (lambda: ndarray(7), "f8", (7,)),
        (lambda: ndarray((2, 100, 3), int), "i8", (2, 100, 3)),
        (lambda: ndarray((), dtype="f4"), "f4", ()),
        (lambda: ndarray(shape=5, dtype=gomp.uint8), "u1", (5,)),
        (lambda: ndarray((4, np.int8(3)), np.complex128), "c16", (4, 3)),
        (lambda: ndarray(3, bool), "?", (3,)),
    ],
)
def test_every_shape_and_kind_of_number(heap, body, dtype, shape):
    made, wanted = compiled(body)(), ndarray(shape, dtype)
    assert (made.dtype, made.shape, made.any()) == (wanted.dtype, wanted.shape, False)
    assert block_of(made).made_as == block_of(wanted).made_as


def test_arrays_that_programs_make_are_kept_by_variables_and_by_views_and_by_tuples(collected_heap):
    @compiled
    def both(n: int, value: int):
        return ndarray(n, np.int64), ndarray(n, np.int64)[value % n :]

    @compiled
    def churn(rounds: int) -> int:
        wrong = 0
        first, pair = ndarray(1000, np.int64), both(100, 3)
        last = first[900:]
        first[999] = 5
        pair[0][7] = pair[1][96] = 6
        for i in range(rounds):
            other = ndarray(1 + i % 2000, np.int64)
            other[0] = i
            new(Item, i)
            wrong += other.sum() != i
        return 10 * wrong + (last[99] == 5) + (pair[0][7] == 6) + (pair[1][96] == 6)

    before = int(view(gcstats_dtype, GCSTATS)[0].num_gc)
    assert churn(20_000) == 3
    assert view(gcstats_dtype, GCSTATS)[0].num_gc > before


@pytest.mark.parametrize(
    ("body", "error", "message"),
    [
        (lambda n: ndarray(n, "U5"), CompileError, "of dtype <U5 is made in Python, and an argument here"),
        (lambda n: ndarray(n, PAIR), CompileError, r"of dtype \[\('a', '<i4'\)\] is made in Python"),
        (
            lambda n: ndarray(n, np.float16),
            CompileError,
            "of dtype float16 is not known to compiled code: use bool, int8",
        ),
        (lambda n: ndarray(n, ">i4"), CompileError, "of dtype >i4 is not known to compiled code"),
        (lambda n: ndarray(n * 0.5), CompileError, "a shape is an int or a tuple of ints, not float64"),
        (lambda n: ndarray(n, Item), CompileError, "the dtype of a gomp.ndarray is a kind of number"),
        (lambda n: ndarray((2, -n)), ValueError, "no negative dimension"),
        (lambda n: ndarray((n << 50, n << 50)), gomp.OutOfMemory, "larger than any heap"),
    ],
)
def test_what_cannot_be_made(heap, body, error, message):
    with pytest.raises(error, match=message):
        compiled(body)(3)


def test_what_does_not_compile_keeps_no_array(heap):
    def attempt():
        a = filled(5)
        a.flags.writeable = False
        with pytest.raises(CompileError, match="this array is read-only"):
            put(a, 1, 1.0)
        return weak(block_of(a).memory)

    alive = attempt()
    gc.collect()
    collect_now()
    assert alive.value() is None
