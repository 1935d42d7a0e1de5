"""Arrays in the shared heap: one process writes, another reads, nobody copies; and nothing outlives or underlives anything."""

from __future__ import annotations

import gc
import os
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

import numpy as np
import pytest

import gomp
from gomp.core.mutator import boundary
from gomp.runtime.ndarrays import block_of
from gomp.runtime.transit import outbox
from tests.free_slots import free_slots


@pytest.fixture(scope="module")
def rt() -> Iterator[gomp.Runtime]:
    with gomp.Runtime(procs=2, max_heap="1280MiB") as runtime:
        yield runtime
        gc.collect()
        runtime.gc()
        assert runtime.verify(3).startswith("verified")


def address(array):
    return array.__array_interface__["data"][0]


def fill(array, value):
    array[...] = value
    return array


def test_what_a_p_writes_the_script_reads_in_the_same_memory(rt):
    array = gomp.ndarray((100, 7), np.float32)
    assert not array.any()
    back = rt.run(fill, array, 3)
    assert (array == 3).all()
    assert address(back) == address(array)
    assert type(back) is gomp.NDArray


@pytest.mark.parametrize(
    ("name", "view"),
    [
        ("slice", lambda a: a[3:10, 1]),
        ("backwards", lambda a: a[::-2, ::-1]),
        ("transposed", lambda a: a.T),
        ("reshaped", lambda a: a.reshape(7, 100)),
        ("other dtype", lambda a: a.view(np.uint8)),
        ("one field", lambda a: a.view([("x", "i4"), ("y", "i4")])["y"]),
        ("broadcast", lambda a: np.broadcast_to(a[0], (5, 7))),
        ("empty", lambda a: a[4:4]),
        ("ordinary", np.asarray),
        ("through a memoryview", lambda a: np.asarray(memoryview(a[2:]))),
    ],
)
def test_a_view_travels_as_a_reference_and_where_it_is(rt, name, view):
    array = gomp.ndarray((100, 7), np.int64)
    array[...] = np.arange(700).reshape(100, 7)
    mine = view(array)
    theirs = rt.run(lambda v: v, mine)
    assert block_of(theirs) is not None
    assert (theirs.shape, theirs.strides, theirs.dtype) == (mine.shape, mine.strides, mine.dtype)
    assert np.array_equal(theirs, mine)
    assert theirs.flags.writeable == mine.flags.writeable
    if mine.size:
        assert address(theirs) == address(mine)


@pytest.mark.parametrize("view", [lambda a: a, lambda a: a[5:], lambda a: a.reshape(10, -1).T])
def test_a_pickle_never_holds_the_data(rt, view):
    array = gomp.ndarray(1_000_000)
    array[7] = 5
    data = pickle.dumps(view(array))
    assert len(data) < 1000
    assert np.array_equal(pickle.loads(data), view(array))


def test_data_live_as_long_as_any_view_of_them(rt):
    array = gomp.ndarray(1000)
    array[:] = np.arange(1000)
    views = [array[10:20], array.reshape(10, 100)[3], memoryview(array)[5:], np.asarray(array)[::100]]
    copies = [np.array(v) for v in views]
    del array
    for _ in range(3):
        rt.gc()
        _ = [gomp.ndarray(1000) + 1 for _ in range(50)]
    assert all(np.array_equal(v, c) for v, c in zip(views, copies, strict=True))


def test_memory_of_dropped_arrays_is_collected_and_no_slot_is_lost(rt):
    gc.collect()
    outbox.settle()
    held = boundary.handles_in_use() - free_slots()
    for _ in range(20):
        rt.run(fill, gomp.ndarray(16 << 20, np.uint8)[5:], 1)
    gc.collect()
    outbox.settle()
    assert boundary.handles_in_use() - free_slots() == held
    rt.gc()
    rt.gc()
    assert rt.stats().heap_alloc < 64 << 20


@pytest.mark.parametrize("n", [0, 1, 3, 7, 8, 9, 63, 100, 500, 4000, 5000, 100_000])
def test_data_are_aligned_and_zero(rt, n):
    for _ in range(3):
        array = gomp.ndarray(n, np.uint8)
        assert address(array) % 64 == 0
        assert not array.any()
        array[...] = 255


def test_what_numpy_computes_is_an_ordinary_array(rt):
    array = fill(gomp.ndarray((4, 4)), 2)
    for result in (array + 1, np.sqrt(array), array.sum(axis=0), array.copy(), array.astype(int), array @ array):
        assert type(result) is np.ndarray
        assert block_of(result) is None
    assert type(array.sum()) is np.float64
    assert array.sum() == 32
    out = np.add(array, 1, out=array)
    assert out is array
    array += 1
    assert block_of(array) is not None
    picked = array[[0, 1]]  # a copy that keeps the class: it is pickled as any array
    assert np.array_equal(pickle.loads(pickle.dumps(picked)), picked)


@pytest.mark.parametrize(
    "dtype",
    ["f8", "<U7", "S3", "?", "c16", "M8[ms]", [("a", "u1"), ("b", "f4", (2, 3))], np.dtype("u2, f8", align=True)],
)
def test_globals_give_an_array_back_with_its_dtype_and_shape(rt, dtype):
    array = gomp.ndarray((3, 2), dtype)
    gomp.globals["an array"] = array
    found = gomp.globals["an array"]
    assert (found.dtype, found.shape, address(found)) == (array.dtype, array.shape, address(array))
    assert rt.run(lambda: gomp.globals["an array"].dtype) == array.dtype
    del gomp.globals["an array"]


def test_globals_hold_whole_arrays_of_the_heap(rt):
    array = gomp.ndarray((3, 2))
    for view in (array[1:], array.T, array.reshape(6), array.view(np.int64)):
        with pytest.raises(TypeError, match="holds whole arrays"):
            gomp.globals["a view"] = view
    with pytest.raises(TypeError, match="copy this one into a gomp"):
        gomp.globals["private"] = np.zeros(3)


@pytest.mark.parametrize(
    ("shape", "dtype", "error", "message"),
    [
        (3, object, TypeError, "pointers to objects of this process"),
        (3, [("a", "i4"), ("b", object)], TypeError, "pointers to objects of this process"),
        (3, "U", TypeError, "give one, as in U20"),
        ((2, -1), float, ValueError, "no negative dimension: -1"),
        ("three", float, TypeError, "an int or a tuple of ints"),
        (2.5, float, TypeError, "an int or a tuple of ints"),
        ((1,) * 65, float, ValueError, "at most"),
        (1 << 40, float, gomp.OutOfMemory, "choose a larger max_heap"),
        (1 << 200, float, MemoryError, "choose a larger max_heap"),
        ((1 << 62, 4), "u1", MemoryError, "choose a larger max_heap"),
        ((1280 << 20) - 4096, "u1", MemoryError, "heap is full"),
    ],
)
def test_what_cannot_be_made_says_why(rt, shape, dtype, error, message):
    keep = gomp.ndarray(1 << 20, np.uint8)
    with pytest.raises(error, match=message):
        gomp.ndarray(shape, dtype)
    del keep
    assert rt.verify(3).startswith("verified")


@pytest.mark.alone
def test_a_gibibyte_is_handed_over_in_no_time(rt):
    array = gomp.ndarray(1 << 30, np.uint8)
    array[123] = 9

    def once(value):
        began = time.perf_counter()
        rt.run(lambda v: v, value)
        return time.perf_counter() - began

    bare = min(once(1) for _ in range(50))
    whole = min(once(array) for _ in range(50))
    assert whole - bare < 1e-3
    began = time.perf_counter()
    gomp.globals["gibibyte"] = array
    assert gomp.globals["gibibyte"][123] == 9
    assert time.perf_counter() - began < 1e-2
    del gomp.globals["gibibyte"]


def write_and_die(array):
    array[0] = 7
    os.kill(os.getpid(), signal.SIGKILL)


def test_an_array_outlives_a_p_that_dies_with_it(rt):
    array = gomp.ndarray(10)
    with pytest.raises(gomp.WorkerDied):
        rt.run(write_and_die, array)
    assert array[0] == 7


AFTER_THE_END = """
import gomp, numpy as np, pickle
with gomp.Runtime(procs=1, max_heap="64MiB") as rt:
    array = gomp.ndarray(1000)
    array[:] = 2
    view = memoryview(array)[10:]
    part = array[::7]
del array
print(part.sum(), view[3])
part[0] = 5
for attempt in (lambda: pickle.dumps(part), lambda: gomp.ndarray(3), lambda: gomp.Runtime(procs=1).start()):
    try: attempt()
    except gomp.RuntimeLost as error: print(str(error)[:22])
del part, view, attempt
with gomp.Runtime(procs=1, max_heap="64MiB") as rt:
    print(gomp.ndarray(3).sum())
"""


def test_a_view_can_be_looked_at_after_the_runtime_has_ended():
    done = subprocess.run(
        [sys.executable, "-c", AFTER_THE_END], capture_output=True, text=True, timeout=100, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "286.0 2.0", "this ndarray belongs t", "no runtime is open in ", "the last runtime of th", "0.0",
    ]  # fmt: skip
