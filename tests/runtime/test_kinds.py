"""Numbers of every width, in fields and in arrays: what is stored is read again, and what does not fit is refused."""

from __future__ import annotations

import math
import re
import struct as packing

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gomp.runtime.arrays import Array, array
from gomp.runtime.kinds import SCALARS, float32, int8, int16, uint8, uint64
from gomp.runtime.structs import info, new, struct

INTEGERS = [kind for kind in SCALARS.values() if kind.is_integer]


@struct
class Numbers:
    a: int8
    b: int16
    c: uint8
    d: uint64
    e: float32
    f: float
    g: bool


def one_field(kind):
    """A struct with a byte and then a field of this kind."""
    return struct(type("One", (), {"__annotations__": {"pad": bool, "value": kind}, "__module__": __name__}))


@pytest.mark.parametrize("kind", INTEGERS, ids=lambda k: k.name)
def test_an_integer_holds_its_range_and_no_more(heap, kind):
    one, many = new(one_field(kind)), array(kind, 3)
    text = re.escape(f"is {kind.wants}, {kind.low} to {kind.high}; ")
    for value in (kind.low, kind.high, 0, 1):
        one.value, many[1] = value, value
        assert (one.value, many[1], list(many)) == (value, value, [0, value, 0])
    for value in (kind.low - 1, kind.high + 1, -(1 << 70), 1 << 70):
        fix = ".* holds it|no integer here is wider than 64 bits, keep it as text"
        with pytest.raises(OverflowError, match=f"^field value of One {text}{value} does not fit: ({fix})$"):
            one.value = value
        with pytest.raises(OverflowError, match=rf"^an element of Array\[.*\] {text}{value} does not fit: ({fix})$"):
            many[1] = value
        with pytest.raises(OverflowError):
            array(kind, [0, value])
    for value in (1.5, None, "1", 1j):
        with pytest.raises(TypeError, match=f"^field value of One holds {kind.wants}, not "):
            one.value = value
        with pytest.raises(TypeError):
            array(kind, [0, value])
    assert (one.value, one.pad, list(many)) == (1, False, [0, 1, 0])


@given(st.floats(width=64))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_floats_are_rounded_to_their_width(heap, value):
    numbers, halves = new(Numbers, f=value), array(float32, 1)
    assert packing.pack("d", numbers.f) == packing.pack("d", value) or math.isnan(value)
    with np.errstate(over="ignore"):
        rounded = float(np.float32(value))
    if math.isinf(rounded) and not math.isinf(value) and abs(value) > 3.4028235677973366e38:
        with pytest.raises(
            OverflowError, match=r"field e of Numbers is a float32, up to 3.40282e\+38; .* does not fit"
        ):
            numbers.e = value
        with pytest.raises(OverflowError):
            halves[0] = value
    elif abs(value) <= 3.4028234663852886e38 or not math.isfinite(value):
        numbers.e, halves[0] = value, value
        assert numbers.e == halves[0] == rounded or math.isnan(value)


def test_what_numpy_has_is_taken_as_what_it_is(heap):
    numbers = new(Numbers, a=np.int64(-5), b=np.uint8(200), d=np.uint64(1 << 63), f=np.float32(0.5), g=np.bool_(True))
    assert (numbers.a, numbers.b, numbers.d, numbers.f, numbers.g) == (-5, 200, 1 << 63, 0.5, True)
    with pytest.raises(OverflowError, match="field a of Numbers is an int8, -128 to 127; 200 does not fit"):
        numbers.a = np.int64(200)
    assert list(array(int, np.arange(5))) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("value", [1, 0, None, "x"])
def test_only_bools_are_bools(heap, value):
    with pytest.raises(TypeError, match="field g of Numbers holds a bool, not"):
        new(Numbers).g = value
    with pytest.raises(TypeError, match=r"an element of Array\[bool\] holds a bool, not"):
        array(bool, 1)[0] = value


def test_the_view_of_a_struct_sees_every_width():
    assert [info(Numbers).dtype[i].str for i in range(7)] == ["|i1", "<i2", "|u1", "<u8", "<f4", "<f8", "|b1"]


# --- arrays


@pytest.mark.parametrize("kind", SCALARS.values(), ids=lambda k: k.name)
def test_arrays_of_every_kind(heap, kind):
    values = [True, False, True] if kind.code == "?" else [1, 0, 7]
    many = array(kind, values)
    assert list(many) == many[:] == values
    assert type(many) is Array[kind]
    assert many[::-1] == values[::-1]
    assert many[1:] == values[1:]
    assert values[2] in many
    assert 99 not in many
    assert len(array(kind, 0)) == 0
    assert array(kind, 1000)[999] == 0
    assert all(type(x) is type(values[0]) or kind.code in "fd" for x in many)


def test_the_elements_of_an_iterable(heap):
    assert list(array(int, (i * i for i in range(5)))) == [0, 1, 4, 9, 16]
    assert list(array(int, range(3))) == [0, 1, 2]
    assert list(array(float, [1, 2.5])) == [1.0, 2.5]
    assert list(array(float, {1: 2})) == [1.0]
    many = array(int, range(10_000))
    assert sum(many) == sum(range(10_000))
    assert 9_999 in many
    assert -1 not in many


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: array(int8, [1, 200]), OverflowError, r"an element of Array\[int8\] is an int8, -128 to 127; 200"),
        (
            lambda: array(int, 2.5),
            TypeError,
            r"gomp.array\(int, n\) wants a number of elements or the elements, not 2.5",
        ),
        (lambda: array(int, None), TypeError, "wants a number of elements"),
        (lambda: array(int, -1), ValueError, "an array cannot have -1 elements"),
        (
            lambda: array(int, 1 << 62),
            MemoryError,
            "an array of 4611686018427387904 elements of int takes .*: choose a larger max_heap",
        ),
        (lambda: array(int, 1 << 41), MemoryError, "choose a larger max_heap"),
        (lambda: array(complex, 1), TypeError, "an array holds numbers or references to .*, not complex"),
        (lambda: array(Array[int, 3], 1), TypeError, "an array holds numbers or references"),
        (lambda: array(int, 3)["x"], TypeError, "str"),
        (lambda: array(int, 3)[1.0], TypeError, "float"),
        (lambda: array(int, 3).__setitem__(slice(0, 1), [1]), TypeError, "slice"),
    ],
)
def test_what_arrays_refuse(heap, make, error, message):
    with pytest.raises(error, match=message):
        make()
