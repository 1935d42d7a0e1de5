"""What a program may get wrong, in Python and in compiled code: an exception names the place, the type and the fix, and the heap is whole."""

from __future__ import annotations

import copy
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest
from kernel_heap import collect_now, in_machine_code

import gomp
from gomp.errors import CompileError, NilDereference
from gomp.runtime.arrays import Array, array
from gomp.runtime.compiled import compiled
from gomp.runtime.hashmap import Map, map  # noqa: A004
from gomp.runtime.ndarrays import ndarray
from gomp.runtime.parts import Inline
from gomp.runtime.pool import Pool
from gomp.runtime.root_table import Global
from gomp.runtime.structs import new, struct
from gomp.runtime.texts import Str, bytes_, str_
from gomp.runtime.verify import verify


@struct
class Point:
    x: gomp.int16
    y: gomp.float32


@struct
class Shape:
    small: gomp.int8
    bits: gomp.uint64
    area: float
    is_open: bool
    name: Str
    at: Inline[Point]
    next: Shape
    points: Array[Point]
    weights: Array[gomp.uint8, 3]
    by_name: Map[str, Point]


ROOT = Global("bad_input", Shape)


@pytest.fixture
def shape(heap):
    """A shape that is what it was, in a heap that is whole, when the test has done what it did."""
    made = new(Shape, 1, 2, 3.0, True, str_("four"))
    made.weights[2] = 5
    yield made
    collect_now()
    assert verify(3).problems == ()
    assert (made.small, made.bits, made.area, made.is_open, made.name, made.weights[:]) == (
        1,
        2,
        3.0,
        True,
        "four",
        [0, 0, 5],
    )
    assert (made.at.x, made.at.y, made.next, made.points, made.by_name) == (0, 0.0, None, None, None)


PYTHON = [
    ("small", 1.5, TypeError, r"field small of Shape holds an int8, not float 1.5: convert it with int\(\)"),
    ("small", "7", TypeError, r"field small of Shape holds an int8, not str '7': convert it with int\(\)"),
    ("small", None, TypeError, r"field small of Shape holds an int8, not None: give a value"),
    ("small", 128, OverflowError, r"field small of Shape is an int8, -128 to 127; 128 does not fit: gomp.int16 holds it"),
    ("small", -(1 << 40), OverflowError, r"-1099511627776 does not fit: int holds it"),
    ("bits", -1, OverflowError, r"field bits of Shape is a uint64, 0 to 18446744073709551615; -1 does not fit: int holds it"),
    ("bits", 1 << 64, OverflowError, r"no integer here is wider than 64 bits, keep it as text"),
    ("area", "3", TypeError, r"field area of Shape holds a float, not str '3': convert it with float\(\)"),
    ("area", 10**400, OverflowError, r"field area of Shape is a float; an integer of 1329 bits does not fit: keep it as text"),
    ("is_open", 1, TypeError, r"field is_open of Shape holds a bool, not int 1: convert it with bool\(\)"),
    ("name", "text", TypeError, r"field name of Shape holds a Str or None, not str 'text': make one with gomp.str\(...\)"),
    ("at", None, TypeError, r"field at of Shape is a Point by value, a part of the object: .*"),
    ("next", 5, TypeError, r"field next of Shape holds a Shape or None, not int 5: make one with gomp.new\(Shape, ...\)"),
    ("points", [1], TypeError, r"field points of Shape holds a Array\[Point\] or None, not list \[1\]: make one with gomp.array\(Point, ...\)"),
    ("weights", [1, 2, 3], TypeError, r"field weights of Shape is a Array\[uint8, 3\] by value"),
    ("by_name", {}, TypeError, r"field by_name of Shape holds a Map\[str, Point\] or None, not dict {}: make one with gomp.map\(str, Point\)"),
]  # fmt: skip


@pytest.mark.parametrize(("field", "value", "error", "message"), PYTHON)
def test_a_field_refuses_from_python(shape, field, value, error, message):
    with pytest.raises(error, match=message):
        setattr(shape, field, value)
    if value is not None:
        with pytest.raises(error, match=message):
            new(Shape, **{field: value})


@pytest.mark.parametrize(
    ("field", "make"),
    [
        ("next", lambda: new(Point)),
        ("name", lambda: bytes_(b"x")),
        ("points", lambda: array(Inline[Point], 2)),
        ("points", lambda: array(int, 2)),
        ("by_name", lambda: map(Point)),
        ("by_name", lambda: map(int, Point)),
    ],
)
def test_references_of_another_class_are_refused(shape, field, make):
    with pytest.raises(TypeError, match=rf"field {field} of Shape holds a .* or None, not .*: make one with gomp\."):
        setattr(shape, field, make())


def test_an_ndarray_is_no_field_and_no_declared_global(heap):
    with pytest.raises(
        TypeError,
        match=r"field image of Frame cannot be NDArray: a gomp.ndarray is an argument, a result or a value of gomp.globals",
    ):
        struct(type("Frame", (), {"__annotations__": {"image": gomp.NDArray}, "__module__": __name__}))
    with pytest.raises(TypeError, match=r"global 'image' holds a struct or an array, not NDArray: use gomp.globals"):
        Global("image", gomp.NDArray)


SIZES = [
    (lambda n: array(int, n), ValueError, MemoryError),
    (lambda n: array(Shape, n), ValueError, MemoryError),
    (lambda n: array(Inline[Shape], n), ValueError, MemoryError),
    (lambda n: ndarray(n), ValueError, MemoryError),
    (lambda n: ndarray((2, n), "u1"), ValueError, MemoryError),
    (lambda n: ndarray((n, n), "u1"), ValueError, MemoryError),
    (lambda n: Array[int, n], ValueError, ValueError),
    (lambda n: Pool(Shape, max_bytes=n), ValueError, None),
]


@pytest.mark.parametrize(("make", "below", "above"), SIZES)
def test_sizes_that_cannot_be(shape, make, below, above):
    with pytest.raises(below, match=r"-5|negative"):
        make(-5)
    if above:
        for absurd in (1 << 40, 1 << 62, 1 << 80):
            with pytest.raises(above):
                make(absurd)
    with pytest.raises((TypeError, ValueError)):
        make("many")
    with pytest.raises((TypeError, ValueError)):
        make(2.5)


# --- compiled code ----------------------------------------------------------------------------------------------------


def set_small(s: Shape, value: int) -> None:
    s.small = value


def set_bits(s: Shape, value: int) -> None:
    s.bits = value


def set_area(s: Shape, value: float) -> None:
    s.area = value


def set_open(s: Shape, value: bool) -> None:
    s.is_open = value


def set_x(s: Shape, value: int) -> None:
    s.at.x = value


def set_y(s: Shape, value: float) -> None:
    s.at.y = value


def set_weight(s: Shape, value: int) -> None:
    s.weights[1] = value


def set_next(s: Shape, value) -> None:
    s.next = value


def set_root(s: Shape, value) -> None:
    ROOT.set(value)


def make_small(s: Shape, value: int) -> Shape:
    return new(Shape, value)


@in_machine_code
@pytest.mark.parametrize(
    ("body", "value", "error", "message"),
    [
        (set_small, 1.5, CompileError, r"field small of Shape holds an int8, not float64: convert it with int\(\)"),
        (set_small, 128, OverflowError, "field small of Shape is an int8, -128 to 127; the value does not fit: .*declare a wider one"),
        (make_small, -129, OverflowError, "field small of Shape is an int8, -128 to 127; the value does not fit"),
        (set_bits, -1, OverflowError, "field bits of Shape is a uint64, 0 to 18446744073709551615; the value does not fit"),
        (set_x, 1 << 40, OverflowError, "field x of Point is an int16"),
        (set_y, 1e300, OverflowError, r"field y of Point is a float32, up to 3.40282e\+38; the value does not fit: use float"),
        (set_open, 1, CompileError, r"field is_open of Shape holds a bool, not int64: convert it with bool\(\)"),
        (set_weight, 256, OverflowError, r"an element of Array\[uint8, 3\] is a uint8, 0 to 255; the value does not fit"),
        (set_weight, 1.0, CompileError, r"an element of Array\[uint8, 3\] holds a uint8, not float64"),
        (set_next, 5, CompileError, r"field next of Shape holds Shape, not int64: make one with gomp.new\(Shape, ...\)"),
        (set_root, 5, CompileError, "global 'bad_input' holds Shape, not int64"),
        (set_small, "x", TypeError, "argument value of set_small cannot be str: use int, float, bool, a reference, a gomp.ndarray or None"),
        (set_small, 1 << 70, OverflowError, "argument value of set_small is an int, .* does not fit: no integer here is wider than 64 bits"),
        (set_area, None, CompileError, "field area of Shape holds a float, not None"),
    ],
)  # fmt: skip
def test_a_field_refuses_in_compiled_code(shape, body, value, error, message):
    with pytest.raises(error, match=message):
        compiled(body)(shape, value)


@in_machine_code
def test_references_of_another_class_do_not_compile(shape):
    for value in (new(Point), array(Shape, 1), str_("x"), map(str, Point)):
        with pytest.raises(
            CompileError, match=r"field next of Shape holds Shape, not .*: make one with gomp.new\(Shape, ...\)"
        ):
            compiled(set_next)(shape, value)


@in_machine_code
def test_sizes_that_cannot_be_in_compiled_code(collected_heap):
    @compiled
    def numbers(n: int) -> Array[int]:
        return array(int, n)

    @compiled
    def shapes(n: int) -> Array[Shape]:
        return array(Shape, n)

    @compiled
    def points(n: int) -> Array[Inline[Shape]]:
        return array(Inline[Shape], n)

    for make in (numbers, shapes, points):
        with pytest.raises(ValueError, match="an array cannot have a negative number of elements"):
            make(-5)
        for absurd in (1 << 35, 1 << 62):
            with pytest.raises(MemoryError):
                make(absurd)
        with pytest.raises(OverflowError):
            make(1 << 80)
        with pytest.raises(CompileError, match="and n an int"):
            make(2.5)


@in_machine_code
def test_containers_that_the_collector_does_not_see_are_refused(shape):
    @compiled
    def in_list(s: Shape) -> int:
        return len([s, s])

    @compiled
    def in_dict(s: Shape) -> int:
        return len({1: (s, 2)})

    @compiled
    def in_tuple(s: Shape) -> int:
        return (s, 7)[1] + len([1, 2])

    for kept, kind in ((in_list, "list"), (in_dict, "dict")):
        with pytest.raises(
            CompileError, match=rf"test_bad_input.py:\d+: .* a {kind} keeps no references alive .*: use gomp.array"
        ):
            kept(shape)
    assert in_tuple(shape) == 9


@in_machine_code
def test_wrong_arguments_name_the_function_and_its_parameters(shape):
    with pytest.raises(TypeError, match="set_small: missing a required argument: 'value'; its parameters are s, value"):
        compiled(set_small)(shape)


@in_machine_code
def test_what_numba_cannot_read_is_a_compile_error(shape):
    @compiled
    def imports(s: Shape) -> int:
        import math

        return math.floor(s.area)

    with pytest.raises(CompileError, match=r"test_bad_input.py:\d+: in imports: .*IMPORT_NAME"):
        imports(shape)


@in_machine_code
def test_none_where_an_object_is_needed(shape):
    @compiled
    def through(s: Shape) -> int:
        return s.next.small

    with pytest.raises(NilDereference, match="small of a Shape that is None"):
        through(shape)
    with pytest.raises(NilDereference, match="next of a Shape that is None"):
        through(None)
    with pytest.raises(NilDereference, match="small of a Shape that is None"):
        compiled(set_small)(None, 5)


def test_a_float_is_not_whatever_has_float(shape):
    for value in (Decimal(1), Fraction(1, 2)):
        with pytest.raises(TypeError, match=r"holds a float, not .*: convert it with float\(\)"):
            shape.area = value


def use_shape(s: Shape) -> int:
    return 1 if s is None else 2


def use_points(points: Array[Point] | None) -> int:
    return 3


def use_shape_within(s: Shape) -> int:
    return use_shape_compiled(s.at)


use_shape_compiled = compiled(use_shape)


@in_machine_code
@pytest.mark.parametrize(
    ("body", "make", "message"),
    [
        (use_shape, lambda: new(Point), "argument s of use_shape is a Shape or None by its annotation, not Point"),
        (use_shape, lambda: array(Shape, 2), r"argument s of use_shape is a Shape or None by its annotation, not Array\[Shape\]"),
        (use_shape, lambda: 5, "argument s of use_shape is a Shape or None by its annotation, not int64"),
        (use_points, lambda: array(int, 2), r"argument points of use_points is a Array\[Point\] or None by its annotation, not Array\[int\]"),
        (use_shape_within, lambda: new(Shape), "in use_shape_within: argument s of use_shape is a Shape or None by its annotation, not Point"),
    ],
)  # fmt: skip
def test_an_argument_is_what_it_is_annotated_with(shape, body, make, message):
    with pytest.raises(TypeError, match=message):
        compiled(body)(make())


@in_machine_code
def test_an_annotation_takes_what_is_one(shape):
    def numbers(a: Array[int], b: Array[int] | Array[float], c: Map, d: Any, e: Shape | int) -> int:
        return len(a) + len(b)

    assert compiled(numbers)(array(int, 1), array(float, 2), map(str, Point), shape, 5) == 3

    def weights(a: Array[gomp.uint8]) -> int:
        return a[2]

    assert compiled(weights)(shape.weights) == 5
    assert compiled(use_points)(None) == 3


def test_a_reference_is_not_copied(shape):
    for ref, fix in (
        (shape, r"gomp.new\(Shape, ...\)"),
        (array(int, 2), r"gomp.array\(int, ...\)"),
        (map(Point), "gomp.map"),
    ):
        for copy_it in (copy.copy, copy.deepcopy):
            with pytest.raises(TypeError, match=f"is a reference, and a second one leads to the same object.*{fix}"):
                copy_it(ref)
    for same in (shape.name, bytes_(b"x"), gomp.weak(shape), gomp.pointer(shape, "area")):
        assert copy.copy(same) is copy.deepcopy(same) is same


@pytest.mark.parametrize(
    ("use", "error", "message"),
    [
        (lambda: array(int, True), TypeError, r"gomp.array\(int, n\) wants a number of elements or the elements, not True"),
        (lambda: array(int, 1 << 62), gomp.OutOfMemory, "elements of int takes .* bytes, and the heap has .*: choose a larger max_heap"),
        (lambda: struct(3), TypeError, "@gomp.struct declares a class, not 3"),
        (lambda: struct(lambda: 3), TypeError, "@gomp.struct declares a class, not <function"),
        (lambda: setattr(new(Point), "z", 3), AttributeError, "'Point' object has no attribute 'z'"),
        (lambda: delattr(new(Point), "x"), AttributeError, "field x of Point is in every Point"),
    ],
)  # fmt: skip
def test_what_is_refused_at_once(shape, use, error, message):
    with pytest.raises(error, match=message):
        use()


def test_a_field_is_not_set_on_its_class(shape):
    with pytest.raises(TypeError, match="area is a field of Shape: set it on an object, not on the class"):
        Shape.area = 3
    with pytest.raises(TypeError, match="area is a field of Shape: it cannot be deleted"):
        del Shape.area
    shape.area = 3
    assert shape.area == 3.0


def test_an_address_by_a_name_that_no_field_can_have(shape):
    assert gomp.address(shape) == shape.address
    assert compiled(lambda x: gomp.address(x))(shape) == shape.address
    with pytest.raises(TypeError, match=r"gomp.address: int is no pointer into the shared heap"):
        gomp.address(3)
